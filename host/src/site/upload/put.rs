//! A file that is PUT where it is to be (RFC 9110 §9.3.4): made, or in the place of the one before it, at once.

use super::files::Files;
use super::permission::{self, Right};
use super::reply::{self, Refusal, Stored};
use super::shim::{Class, Outcome, evaluate};
use super::{Broom, Uploads, name, refuse_codings};
use crate::http::conditional::Validators;
use crate::http::etag::ETag;
use crate::http::head::Head;
use crate::response::Response;
use crate::sys::deposit::{Destination, Named, Turns};
use crate::sys::files::Kind;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::Path;

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
        let etag = found.map(tag);
        let modified = |found: Named| u64::try_from(found.identity.modified_ns.div_euclid(1_000_000_000)).ok();
        let validators = found
            .zip(etag.as_ref())
            .map(|(found, etag)| Validators { etag: Some(etag.as_str()), modified: modified(found) });
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
        let etag = files
            .only()
            .and_then(|(file, _)| file.identity().ok())
            .map(|identity| tag(Named { kind: Kind::File, identity }));
        let response = reply::put(is_new, &reply::location(path, &self.name), etag.as_ref().map(ETag::as_str));
        Ok((Stored { asked: self.name.clone(), name: self.name.clone(), bytes }, response))
    }
}

fn tag(file: Named) -> ETag {
    ETag::of_file(file.identity.inode, file.identity.size, file.identity.modified_ns)
}

/// How often is looked again when a file has come meanwhile, where none was.
const TRIES_MAX: usize = 8;
