//! The site: the files under one folder, for GET and HEAD.
//!
//! A request goes straight down:
//!
//! 1. `resolve`: which file a path means, or that its folder needs a slash; opened beneath the root, nothing outside of it.
//! 2. `reply`: 304 if the client has it, else its fields and content.

mod content_type;
mod reply;
mod resolve;

pub use resolve::{File, Target};

use crate::http;
use crate::response::Response;
use crate::sys::files::Folder;
use std::path::{Path, PathBuf};

/// The files under one folder.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    folder: Folder,
}

impl Site {
    /// Opens the site's folder and holds it open, so that no later change of the working directory matters.
    pub fn open(folder: &Path) -> anyhow::Result<Site> {
        match Folder::open(folder) {
            Ok(held) => Ok(Site { root: folder.to_owned(), folder: held }),
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
    /// It opens files, and reads none.
    pub fn find(&self, path: &http::path::Path) -> Option<Target> {
        resolve::find(&self.folder, path)
    }

    /// Answers a GET or HEAD request with what [`Site::find`] found.
    pub fn reply(&self, target: Target, head: &http::Head) -> Response {
        reply::reply(target, head)
    }
}

#[cfg(test)]
mod tests;
