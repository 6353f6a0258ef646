//! The site: the files under one folder, for GET and HEAD; and those that clients put there.
//!
//! A request goes straight down:
//!
//! 1. `cache`: whether the file has been sent before, and is still the same.
//! 2. `resolve`: which file a path means, or that its folder needs a slash; opened beneath the root, nothing outside of it.
//! 3. `reply`: 304 if the client has it, else its fields and content.
//!
//! Where it is told to, it also takes files: `upload`.

mod cache;
mod content_type;
mod page;
mod reply;
mod resolve;
mod upload;

pub use resolve::{Cached, File, Target};
pub use upload::{Begun, Broom, OPEN_FILES_MAX as UPLOAD_FILES_MAX, Packed as PackedUpload, Upload, Uploads};

use cache::Cache;

use crate::http;
use crate::http::head::Head;
use crate::request::Request;
use crate::response::Response;
use crate::sys::clock;
use crate::sys::files::Folder;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files under one folder.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    folder: Folder,
    cache: Cache,
    uploads: Option<Arc<Uploads>>,
}

impl Site {
    /// Opens the site's folder and holds it open, so that no later change of the working directory matters.
    pub fn open(folder: &Path) -> anyhow::Result<Site> {
        match Folder::open(folder) {
            Ok(held) => Ok(Site { root: folder.to_owned(), folder: held, cache: Cache::new(), uploads: None }),
            Err(error) => anyhow::bail!(
                "cannot open the site's folder {}: {}; create it, name another with --html DIR, or use --html none",
                folder.display(),
                std::io::Error::from(error)
            ),
        }
    }

    /// The same site, which takes these uploads.
    pub fn taking(self, uploads: Option<Uploads>) -> Site {
        Site { uploads: uploads.map(Arc::new), ..self }
    }

    /// The site's folder, as it was opened.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the site has at this path. `None`: nothing, so the next rule may answer.
    ///
    /// It opens files, and reads none. For a file of the cache it makes one system call.
    pub fn find(&self, path: &http::path::Path) -> Option<Target> {
        if let Some(entry) = self.cache.find(path.as_bytes(), clock::coarse_ms()) {
            if self.folder.identify(&entry.place.relative) == Ok(entry.identity) {
                return Some(Target::Cached(Cached(entry)));
            }
            self.cache.remove(&entry);
        }
        resolve::find(&self.folder, path)
    }

    /// Begins to take an upload. `None`: the request is none, so the next rule may answer.
    pub fn upload(&self, head: &Head, path: &http::path::Path) -> Option<Begun> {
        self.uploads.as_ref()?.begin(&self.folder, head, path)
    }

    /// Why a request is no upload although its method and its path promise one, if that is so. It is for who has found
    /// nothing else.
    pub fn no_upload(&self, head: &Head, path: &http::path::Path) -> Option<Response> {
        self.uploads.as_ref()?.refuse(&self.folder, head, path)
    }

    /// Answers a GET or HEAD request with what [`Site::find`] found.
    pub fn reply(&self, target: Target, request: &mut Request) -> Response {
        reply::reply(target, request, &self.cache)
    }
}

#[cfg(test)]
mod tests;
