//! A file that is PUT where it is to be (RFC 9110 §9.3.4): made, or in the place of the one before it, at once.

use super::files::Files;
use super::permission::{self, Right};
use super::reply::{self, Refusal, Stored};
use super::{Broom, Uploads, name, refuse_codings};
use crate::http::conditional::{Class, Outcome, evaluate};
use crate::http::head::Head;
use crate::response::Response;
use crate::site::description::{Description, Facts};
use crate::site::reply::is_settled;
use crate::sys::deposit::{Destination, Named, Turns};
use crate::sys::files::{Identity, Kind, tells_every_change};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::SystemTime;

/// A PUT that is under way. It can travel to another process between two pieces.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Put {
    name: String,
}

impl Put {
    pub(super) fn begin(
        head: &Head,
        name: &[u8],
        destination: &Destination,
        uploads: &Uploads,
    ) -> Result<Put, Refusal> {
        permission::refuse_other_sites(head)?;
        if permission::right(head, uploads.token.as_ref())? == Right::Open {
            return Err(permission::no_token());
        }
        // RFC 9110 §14.5: "An origin server SHOULD respond with a 400 (Bad Request) status code if it receives Content-Range on a
        // PUT request" (for whose target partial PUT is not supported: it would be taken for all of the file).
        if head.field("content-range").is_some() {
            return Err(Refusal::new(
                400,
                "a part of a file cannot be PUT: leave Content-Range away, and send all of it",
            ));
        }
        refuse_codings(head)?;
        let put = Put { name: name::check(name)? };
        // Before the content is sent, if it waits for 100 Continue (RFC 9110 §10.1.1). What holds then need not hold later.
        put.look(head, destination)?;
        Ok(put)
    }

    /// What is there now, if the request is for that (RFC 9110 §13.2).
    fn look(&self, head: &Head, destination: &Destination) -> Result<Option<Named>, Refusal> {
        let found = destination.look(&self.name)?;
        if found.is_some_and(|found| found.kind != Kind::File) {
            return Err(Refusal::new(409, "what has this name is no file; it cannot be replaced"));
        }
        let description = found.map(|found| describe(&found.identity, destination).0);
        let validators = description.as_ref().map(Description::validators);
        match evaluate(head, Class::Changes, validators) {
            Outcome::Proceed => Ok(found),
            Outcome::NotModified | Outcome::Failed => {
                Err(Refusal::new(412, "the file is not in the state that the request is meant for"))
            }
        }
    }

    /// Takes the next piece of the content.
    pub(super) fn take(&self, content: &[u8], files: &mut Files) -> Result<(), Refusal> {
        if files.is_empty() {
            files.begin(self.name.clone())?;
        }
        files.write(content)
    }

    /// There is no more content: the file takes its place.
    pub(super) fn finish(
        &self,
        head: &Head,
        files: &mut Files,
        path: &[u8],
        turns: &Path,
        broom: &mut Broom,
    ) -> Result<(Stored, Response), Refusal> {
        let Some((file, bytes)) = files.only() else { return Err(Refusal::new(500, "the file is gone")) };
        file.sync()?;
        broom.sweep(&files.destination);
        // Between the look and the exchange nobody else replaces a file: of two clients that mean the same state one is refused.
        let is_new = Turns::by(turns)?.take(|| {
            for _ in 0..TRIES_MAX {
                let is_new = self.look(head, &files.destination)?.is_none();
                match files.replace(is_new) {
                    // Others may make a file of that name at any time.
                    Err(Errno::EXIST) => {}
                    replaced => return replaced.map(|()| is_new).map_err(Refusal::from),
                }
            }
            Err(Refusal::new(503, "the file comes and goes; try again"))
        })?;
        files.destination.sync()?;
        let description = file_of(files).map(|identity| describe(&identity, &files.destination));
        let location = reply::location(path, &self.name);
        // RFC 9110 §9.3.4: no validator "unless the request's representation data was saved without any transformation applied to
        // the content": it was. But a weak tag soon gives way to a strong one, and no condition could ever match it.
        let etag =
            description.as_ref().filter(|(_, is_settled)| *is_settled).and_then(|(known, _)| known.validators().etag);
        let response = reply::put(is_new, &location, etag);
        Ok((Stored { asked: self.name.clone(), name: self.name.clone(), bytes }, response))
    }
}

/// The file that has been put in its place.
fn file_of(files: &Files) -> Option<Identity> {
    files.only().and_then(|(file, _)| file.identity().ok())
}

/// A file as the site describes it when it is asked for, and whether its tag is there to stay.
fn describe(identity: &Identity, destination: &Destination) -> (Description, bool) {
    let now = SystemTime::now();
    let is_settled = is_settled(identity, now) || tells_every_change(destination, identity);
    let facts = Facts { identity, is_settled, content_type: "", coding: None, varies: false, cache_control: None };
    (Description::new(&facts, now), is_settled)
}

/// How often is looked again when a file has come meanwhile, where none was.
const TRIES_MAX: usize = 8;
