//! Uploads: files that clients put into folders of the site, by a form (POST) or one by one (PUT).
//!
//! 1. `permission`: whether the client may, as far as the head of its request tells.
//! 2. `Uploads::begin`: which folder the request is for, and what is wrong with it, before its content is received.
//! 3. `Upload::store`: content goes into `files` that nobody sees; a `form` is taken apart on the way.
//! 4. When all has come, the files get their names, all or none: new ones (POST), or the one of the target (`put`).
//! 5. `reply`: what the client is told.
//!
//! The first two are for a loop, and open no more than a folder. The others wait for the disk.

mod files;
mod form;
mod name;
mod permission;
mod put;
mod reply;

pub use files::OPEN_FILES_MAX;

use super::resolve;
use crate::config::Config;
use crate::config::token::Token;
use crate::http;
use crate::http::head::Head;
use crate::http::multipart::Parser;
use crate::http::{Framing, path};
use crate::request::Request;
use crate::response::Response;
use crate::sys::deposit::Destination;
use crate::sys::files::{Folder, identify};
use crate::sys::mounts::Whereabouts;
use files::Files;
use form::Form;
use put::Put;
use reply::{Refusal, Stored};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Which folders take uploads, and from whom.
#[derive(Debug)]
pub struct Uploads {
    /// Decoded paths, without the slash at their end.
    prefixes: Vec<Box<[u8]>>,
    token: Option<Token>,
    /// Whoever can write in these runs code in the server.
    forbidden: [PathBuf; 2],
    /// By which those who replace a file take turns.
    turns: PathBuf,
    /// Files of uploads that are open in this process.
    open: Arc<AtomicUsize>,
}

/// What an upload request has come to before its content.
pub enum Begun {
    /// Its content is to be stored.
    Upload(Box<Upload>),
    /// It is answered already.
    Answered(Response),
}

/// An upload under way.
#[derive(Debug)]
pub struct Upload {
    uploads: Arc<Uploads>,
    /// The folder's decoded path, with the slash at its end.
    path: Box<[u8]>,
    files: Files,
    content: Content,
}

/// What the content is.
#[derive(Debug, Serialize, Deserialize)]
enum Content {
    Form(Form),
    /// A file.
    File(Put),
}

/// An upload on its way to another process, without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packed {
    /// Which folder.
    folder: (u64, u64),
    content: Content,
    files: files::Packed,
}

/// Sweeps away what killed processes have left in folders, each once.
#[derive(Debug, Default)]
pub struct Broom {
    swept: HashSet<(u64, u64)>,
}

impl Uploads {
    /// The uploads that are configured, if any are. `runtime`: the folder of private copies of builds, which is the server's own.
    pub fn new(config: &Config, runtime: &Path) -> Option<Uploads> {
        let prefixes: Vec<Box<[u8]>> = config.uploads.iter().map(|prefix| prefix.as_bytes().into()).collect();
        (!prefixes.is_empty()).then(|| Uploads {
            prefixes,
            token: config.upload_token.clone(),
            forbidden: [config.handlers.clone(), runtime.to_owned()],
            turns: runtime.join("uploads.lock"),
            open: Arc::default(),
        })
    }

    /// Whether the folder at `path`, which ends with a slash, takes files.
    fn take(&self, path: &[u8]) -> bool {
        let within = |prefix: &[u8]| path.strip_prefix(prefix).is_some_and(|rest| rest.first() == Some(&b'/'));
        self.prefixes.iter().any(|prefix| within(prefix))
    }

    /// Refuses a request where files are taken that nobody else answers, if there is more to say than that nothing is there.
    pub(super) fn refuse(&self, site: &Folder, head: &Head, path: &path::Path) -> Option<Response> {
        if matches!(head.method(), "GET" | "HEAD") || !resolve::is_shown(path) {
            return None;
        }
        let folder = folder_of(path);
        let refusal = match (head.method(), self.find(site, path)) {
            (_, Some(Found::Folder { .. } | Found::WithoutSlash)) => {
                Refusal::not_allowed("this is a folder; it takes forms with files (POST)", FOLDER_ALLOW)
            }
            (_, Some(Found::File { .. })) => Refusal::not_allowed(
                "this is the name of a file; files are PUT there, or sent to their folder by POST",
                FILE_ALLOW,
            ),
            // RFC 9110 §9.3.4 leaves it to the server whether it makes folders.
            ("PUT", None) if self.take(folder) => {
                Refusal::new(409, "the folder of this file does not exist; files are PUT into folders that are there")
            }
            ("POST", None) if self.take(folder) => Refusal::new(404, "there is no such folder"),
            _ => return None,
        };
        Some(refusal.response(head, folder))
    }

    /// Begins an upload; `None` if the request is none, so that others may answer it.
    pub(super) fn begin(self: &Arc<Uploads>, site: &Folder, head: &Head, path: &path::Path) -> Option<Begun> {
        if !matches!(head.method(), "POST" | "PUT" | "OPTIONS") || !resolve::is_shown(path) {
            return None;
        }
        let found = self.find(site, path)?;
        let folder = folder_of(path);
        let begun = match (head.method(), found) {
            ("OPTIONS", Found::File { .. }) => return Some(Begun::Answered(reply::options(FILE_ALLOW))),
            ("OPTIONS", _) => return Some(Begun::Answered(reply::options(FOLDER_ALLOW))),
            ("POST", Found::Folder { opened }) => opened
                .map_err(Refusal::from)
                .and_then(|opened| self.begin_form(head).map(|form| (Destination::new(opened), Content::Form(form)))),
            // RFC 9110 §15.4.9: "the user agent MUST NOT change the request method".
            ("POST", Found::WithoutSlash) => {
                let location = format!("{}/", resolve::encode(path.as_bytes()));
                return Some(Begun::Answered(Response::redirect(308, &location)));
            }
            ("PUT", Found::File { opened, name }) => opened.map_err(Refusal::from).and_then(|opened| {
                let destination = Destination::new(opened);
                Put::begin(head, name, &destination, self).map(|put| (destination, Content::File(put)))
            }),
            ("PUT", _) => {
                Err(Refusal::not_allowed("this is a folder; files are PUT under names of their own", FOLDER_ALLOW))
            }
            // It may be an application's.
            _ => return None,
        };
        Some(match begun {
            Ok((destination, content)) => Begun::Upload(Box::new(Upload {
                uploads: Arc::clone(self),
                path: folder.into(),
                files: Files::new(destination, Arc::clone(&self.open)),
                content,
            })),
            Err(refusal) => Begun::Answered(refusal.response(head, folder)),
        })
    }

    /// What there is at `path`; `None` if no folder that takes files has to do with it.
    fn find<'a>(&self, site: &Folder, path: &'a path::Path) -> Option<Found<'a>> {
        let bytes = path.as_bytes();
        let (folder, name) = bytes.split_at(folder_of(path).len());
        if name.is_empty() {
            let opened = self.take(folder).then(|| open(site, folder))?;
            return is_there(&opened).then_some(Found::Folder { opened });
        }
        let as_folder = [bytes, b"/"].concat();
        if self.take(&as_folder) && is_there(&open(site, &as_folder)) {
            return Some(Found::WithoutSlash);
        }
        let opened = self.take(folder).then(|| open(site, folder))?;
        is_there(&opened).then_some(Found::File { opened, name })
    }

    fn begin_form(&self, head: &Head) -> Result<Form, Refusal> {
        permission::refuse_other_sites(head)?;
        let right = permission::right(head, self.token.as_ref())?;
        refuse_codings(head)?;
        let content_type = head.field("content-type").unwrap_or_default();
        if !Parser::takes(content_type) {
            return Err(Refusal::new(415, "this folder takes forms with files: Content-Type: multipart/form-data"));
        }
        if matches!(head.framing(), Framing::None | Framing::Length(0)) {
            return Err(Refusal::new(400, "the form is empty"));
        }
        Ok(Form::new(Parser::new(content_type)?, right))
    }

    /// SECURITY: refuses a folder in which files would be code, by whatever name it is reached.
    fn refuse_code(&self, destination: &Destination) -> Result<(), Refusal> {
        let place = Whereabouts::of(destination);
        let is_code = |place: &Whereabouts| {
            // One that is not there now has nothing in it.
            self.forbidden.iter().any(|path| Whereabouts::at(path).is_ok_and(|forbidden| place.is_within(&forbidden)))
        };
        match place {
            Ok(place) if !is_code(&place) => Ok(()),
            Ok(_) => Err(Refusal::new(403, "this is a folder of handlers; nothing can be uploaded there")),
            Err(error) => {
                tracing::error!("an upload is refused: {error}");
                Err(Refusal::new(403, "the server cannot tell where this folder is"))
            }
        }
    }
}

/// What a path means where files are taken.
enum Found<'a> {
    /// A folder that takes them.
    Folder { opened: Result<OwnedFd, Errno> },
    /// The same, by a path without the slash.
    WithoutSlash,
    /// A name in such a folder, which no folder has.
    File { opened: Result<OwnedFd, Errno>, name: &'a [u8] },
}

/// The path of the folder in which something is, or of itself if it is one, with the slash at its end.
fn folder_of(path: &path::Path) -> &[u8] {
    let bytes = path.as_bytes();
    &bytes[..memchr::memrchr(b'/', bytes).map_or(0, |slash| slash + 1)]
}

/// Opens the folder at `path`, which begins and ends with a slash.
fn open(site: &Folder, path: &[u8]) -> Result<OwnedFd, Errno> {
    site.open_folder_beneath(path[1..].strip_suffix(b"/").unwrap_or_default())
}

fn is_there(opened: &Result<OwnedFd, Errno>) -> bool {
    !matches!(opened, Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG | Errno::INVAL))
}

/// RFC 9110 §8.4: content that is encoded would have to be decoded, or be stored with the word for its coding, which a file has not.
fn refuse_codings(head: &Head) -> Result<(), Refusal> {
    let mut codings = head.values("content-encoding").flat_map(|list| list.split(|&byte| byte == b','));
    match codings.all(|coding| matches!(http::trim_whitespace(coding), b"" | b"identity")) {
        true => Ok(()),
        false => Err(Refusal::new(415, "uploads are stored as they are, so they must not have a Content-Encoding")),
    }
}

impl Upload {
    /// Stores the next piece of the content. Gives the response when `is_last`, or when the upload has failed: it is over then.
    ///
    /// It waits for the disk.
    pub fn store(&mut self, content: &[u8], is_last: bool, request: &Request, broom: &mut Broom) -> Option<Response> {
        let stored = self.take(content).and_then(|()| match is_last {
            true => self.finish(request, broom).map(Some),
            false => Ok(None),
        });
        stored.unwrap_or_else(|refusal| {
            self.files.discard();
            let path = reply::location(&self.path, "");
            let (client, Refusal { code, reason, .. }) = (&request.peer, &refusal);
            match code {
                500.. => tracing::error!(path, status = code, client = %client, "an upload failed: {reason}"),
                _ => tracing::info!(path, status = code, client = %client, "an upload was refused: {reason}"),
            }
            Some(refusal.response(&request.head, &self.path))
        })
    }

    fn take(&mut self, content: &[u8]) -> Result<(), Refusal> {
        match &mut self.content {
            Content::Form(form) => form.take(content, &mut self.files, self.uploads.token.as_ref()),
            Content::File(put) => put.take(content, &mut self.files),
        }
    }

    fn finish(&mut self, request: &Request, broom: &mut Broom) -> Result<Response, Refusal> {
        self.uploads.refuse_code(&self.files.destination)?;
        match &self.content {
            Content::Form(form) => {
                form.end(&self.files)?;
                let stored = self.files.publish(broom)?;
                stored.iter().for_each(|file| self.tell(file, request));
                Ok(reply::created(&request.head, &self.path, &stored))
            }
            Content::File(put) => {
                let (stored, response) =
                    put.finish(&request.head, &mut self.files, &self.path, &self.uploads.turns, broom)?;
                self.tell(&stored, request);
                Ok(response)
            }
        }
    }

    /// One line in the log for each file. The path is percent-encoded: a name can neither be mistaken nor forge a line.
    fn tell(&self, file: &Stored, request: &Request) {
        let path = reply::location(&self.path, &file.name);
        tracing::info!(path, bytes = file.bytes, client = %request.peer, "uploaded");
    }

    /// For another process: what is known of it, and its files.
    ///
    /// # Errors
    /// The folder's identity cannot be told.
    pub fn pack(mut self) -> std::io::Result<(Packed, Vec<OwnedFd>)> {
        let folder = identity(&self.files.destination)?;
        let (files, descriptors) = self.files.pack();
        Ok((Packed { folder, content: self.content, files }, descriptors))
    }

    /// Goes on, as the upload that has begun with the same head here, with what another process has stored of it. False if
    /// that cannot be.
    pub fn unpack(&mut self, packed: Packed, descriptors: Vec<OwnedFd>) -> bool {
        let is_same = identity(&self.files.destination) == Ok(packed.folder);
        self.content = packed.content;
        // Also if it is another folder: then what has a hidden name there stays, until it is swept away.
        self.files.unpack(packed.files, descriptors) && is_same
    }
}

fn identity(destination: &Destination) -> Result<(u64, u64), Errno> {
    identify(destination).map(|identity| (identity.device, identity.inode))
}

impl Broom {
    fn sweep(&mut self, destination: &Destination) {
        if self.swept.len() == SWEPT_MAX {
            self.swept.clear();
        }
        if identity(destination).is_ok_and(|folder| self.swept.insert(folder)) {
            destination.sweep();
        }
    }
}

const FOLDER_ALLOW: &str = "GET, HEAD, OPTIONS, POST";
const FILE_ALLOW: &str = "GET, HEAD, OPTIONS, PUT";

/// Folders of which is remembered that they have been swept.
const SWEPT_MAX: usize = 1024;
