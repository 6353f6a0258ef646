//! The site: the files under one folder, for GET and HEAD.
//!
//! A request goes straight down:
//!
//! 1. `cache`: whether the file has been sent before, and is still the same.
//! 2. `resolve`: which file a path means, or that its folder needs a slash; opened beneath the root, nothing outside of it.
//! 3. `reply`: 304 if the client has it, else its fields and content.

mod cache;
mod content_type;
mod page;
mod reply;
mod resolve;

pub use resolve::{Cached, File, Target};

use cache::Cache;

use crate::http;
use crate::request::Request;
use crate::response::Response;
use crate::sys::clock;
use crate::sys::files::Folder;
use std::path::{Path, PathBuf};

/// The files under one folder.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    folder: Folder,
    cache: Cache,
}

impl Site {
    /// Opens the site's folder and holds it open, so that no later change of the working directory matters.
    pub fn open(folder: &Path) -> anyhow::Result<Site> {
        match Folder::open(folder) {
            Ok(held) => Ok(Site { root: folder.to_owned(), folder: held, cache: Cache::new() }),
            Err(error) => anyhow::bail!(
                "cannot open the site's folder {}: {}; create it, name another with --html DIR, or use --html none",
                folder.display(),
                std::io::Error::from(error)
            ),
        }
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

    /// Answers a GET or HEAD request with what [`Site::find`] found.
    pub fn reply(&self, target: Target, request: &mut Request) -> Response {
        reply::reply(target, request, &self.cache)
    }
}

#[cfg(test)]
mod tests;
