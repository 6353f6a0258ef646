//! The site: the files under one folder, for GET and HEAD; and those that clients put there.
//!
//! A request goes straight down:
//!
//! 1. `cache`: whether the file has been sent before, and is still the same.
//! 2. `resolve`: which file a path means, or that its folder needs a slash; opened beneath the root, nothing outside of it.
//! 3. `reply`: the file or a `sidecar` that has it compressed; 304 if the client has it, else the fields of its `description` and
//!    content, or some of it (`byteranges`).
//!
//! An error of the server is shown as an `error_page`, if there is one. A folder without an index page may be listed: `resolve` opens
//! it too, and `listing` makes the page (`page`). Where it is told to, the site also takes files: `upload`.

mod byteranges;
mod cache;
mod content_type;
mod description;
mod error_page;
mod listing;
mod page;
mod reply;
mod resolve;
mod sidecar;
mod upload;

pub use resolve::{Cached, File, Target};
pub use upload::{Begun, Broom, OPEN_FILES_MAX as UPLOAD_FILES_MAX, Packed as PackedUpload, Upload, Uploads};

use cache::Cache;
use error_page::ErrorPages;

use crate::config::CacheControl;
use crate::http;
use crate::http::head::Head;
use crate::request::Request;
use crate::response::{Body, Response};
use crate::sys::clock;
use crate::sys::files::Folder;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files under one folder.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    folder: Arc<Folder>,
    cache: Cache,
    /// What is needed to list folders, if they are listed.
    listing: Option<Arc<listing::Memory>>,
    uploads: Option<Arc<Uploads>>,
    cache_control: Vec<CacheControl>,
    error_pages: ErrorPages,
}

impl Site {
    /// Opens the site's folder and holds it open, so that no later change of the working directory matters.
    pub fn open(folder: &Path) -> anyhow::Result<Site> {
        match Folder::open(folder) {
            Ok(held) => Ok(Site {
                root: folder.to_owned(),
                folder: Arc::new(held),
                cache: Cache::new(),
                cache_control: Vec::new(),
                error_pages: ErrorPages::new(),
                listing: None,
                uploads: None,
            }),
            Err(error) => anyhow::bail!(
                "cannot open the site's folder {}: {}; create it, name another with --html DIR, or use --html none",
                folder.display(),
                std::io::Error::from(error)
            ),
        }
    }

    /// The same site, which lists its folders or does not.
    #[must_use]
    pub fn with_listing(self, lists: bool) -> Site {
        Site { listing: lists.then(|| Arc::new(listing::Memory::new())), ..self }
    }

    /// The same, which takes these uploads.
    #[must_use]
    pub fn with_uploads(self, uploads: Option<Uploads>) -> Site {
        Site { uploads: uploads.map(Arc::new), ..self }
    }

    /// The same with these rules for `Cache-Control`.
    #[must_use]
    pub fn with_cache_control(self, cache_control: Vec<CacheControl>) -> Site {
        Site { cache_control, ..self }
    }

    /// The site's folder, as it was opened.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the site has at this path. `None`: nothing, so the next rule may answer.
    ///
    /// It opens files, and reads none. For a file of the cache it makes one system call.
    pub fn find(&self, path: &http::path::Path) -> Option<Target> {
        if let Some(entry) = self.cache.find(path.as_bytes(), None, clock::coarse_ms()) {
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

    /// The folder at this path, if folders are listed and this one can be. It is for who has found nothing else.
    pub fn find_folder(&self, path: &http::path::Path) -> Option<Target> {
        let memory = self.listing.as_ref()?;
        let form = self.uploads.as_ref().and_then(|uploads| uploads.form(path));
        resolve::find_folder(&self.folder, path, memory, form)
    }

    /// Answers a GET or HEAD request with what [`Site::find`] or [`Site::find_folder`] found.
    pub fn reply(&self, target: Target, request: &mut Request) -> Response {
        reply::reply(target, request, self)
    }

    /// The same response as a page, if it is an error of the server's own and the site has a page for it.
    pub fn with_page(&self, mut response: Response) -> Response {
        if let Body::Reason(_) = response.body
            && let Some(page) = self.error_pages.find(&self.folder, response.status.code)
        {
            response.fields.replace(b"Content-Type", b"text/html; charset=utf-8");
            response.body = Body::Shared(page);
        }
        response
    }

    /// The value of `Cache-Control` for the file at this path beneath the root.
    fn cache_control_of(&self, relative: &[u8]) -> Option<&str> {
        self.cache_control.iter().find(|rule| rule.files.have(relative)).map(|rule| rule.value.as_str())
    }
}

#[cfg(test)]
mod tests;
