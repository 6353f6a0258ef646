//! Which file a path means.
//!
//! Names that a site never shows are turned away before the file system is asked. Then a path without a slash at its end
//! is a file, or a folder that is redirected to itself with a slash; a path with one is the folder's index page, or where
//! nothing else answers the folder itself, to be listed.

use super::cache::{Entry, OPEN_FILE_BYTES_MAX};
use super::content_type;
use super::listing::{Form, Listed, Memory};
use crate::http::Reject;
use crate::http::path::Path;
use crate::sys::entries::Entries;
use crate::sys::files::{Folder, Kind, Opened};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_encode};
use rustix::io::Errno;
use std::borrow::Cow;
use std::ffi::CString;
use std::sync::Arc;

/// The pages that make a folder count, the first that exists.
const INDEX_PAGES: [&[u8]; 2] = [b"index.html", b"index.htm"];

/// What a site has at a path.
#[derive(Debug)]
pub enum Target {
    /// A file of the cache, which was true a moment ago.
    Cached(Cached),
    /// A regular file.
    File(File),
    /// A folder with an index page or a listing, asked for without the slash at its end.
    Folder {
        /// The folder's path with the slash, percent-encoded. It begins with one slash, never two.
        location: String,
    },
    /// A folder to be listed.
    Listing(Listed),
    /// Something that cannot be shown.
    Refused(Reject),
}

/// A file that is in the cache.
#[derive(Debug)]
pub struct Cached(pub(super) Arc<Entry>);

/// A file that can be sent.
#[derive(Debug)]
pub struct File {
    /// The file.
    pub(super) opened: Opened,
    /// The value of its `Content-Type` field.
    pub(super) content_type: Cow<'static, str>,
    /// Its path relative to the root.
    pub(super) relative: CString,
    /// The path of the requests for it, if it may be remembered as the file there.
    pub(super) path: Option<Box<[u8]>>,
}

/// What `folder` has at `path`.
pub(super) fn find(folder: &Folder, path: &Path) -> Option<Target> {
    if !is_shown(path) {
        return None;
    }
    let relative = &path.as_bytes()[1..];
    if path.is_folder() {
        return find_index(folder, relative, Some(path));
    }
    match folder.open_beneath(relative) {
        Ok(opened) if opened.kind == Kind::File => return file(opened, relative, relative, Some(path)),
        Ok(opened) if opened.kind == Kind::Folder => {}
        Ok(_) => return None,
        // A folder that may be entered but not read: its index page decides.
        Err(Errno::ACCESS) if folder.kind_of(relative) == Some(Kind::Folder) => {}
        Err(error) => return refusal(error),
    }
    match find_index(folder, &[relative, b"/"].concat(), None) {
        Some(Target::File(_)) => Some(redirect(relative)),
        // As with the slash at its end.
        refused_or_nothing => refused_or_nothing,
    }
}

/// The folder at `path`, if it can be listed.
pub(super) fn find_folder(root: &Arc<Folder>, path: &Path, memory: &Arc<Memory>, form: Option<Form>) -> Option<Target> {
    if !is_shown(path) {
        return None;
    }
    let relative = &path.as_bytes()[1..];
    let opened = root.open_beneath(relative.strip_suffix(b"/").unwrap_or(relative));
    let entries = opened.and_then(|opened| match opened.kind {
        Kind::Folder => Entries::new(opened.descriptor),
        _ => Err(Errno::NOTDIR),
    });
    match entries {
        Ok(entries) if path.is_folder() => {
            let (root, memory) = (Arc::clone(root), Arc::clone(memory));
            Some(Target::Listing(Listed { root, memory, path: path.as_bytes().into(), entries, form }))
        }
        Ok(_) => Some(redirect(relative)),
        // A folder that cannot be read has nothing to show.
        Err(Errno::ACCESS | Errno::PERM) => None,
        Err(error) => refusal(error),
    }
}

/// The redirection of the folder at `relative` to itself with a slash.
fn redirect(relative: &[u8]) -> Target {
    Target::Folder { location: format!("/{}/", percent_encode(relative, KEPT)) }
}

/// Whether a site shows files with this path, if it has them.
pub(super) fn is_shown(path: &Path) -> bool {
    let mut segments = path.segments().peekable();
    while let Some(segment) = segments.next() {
        // SECURITY: an empty segment would let `//other.example/folder` be redirected to itself, which a browser takes for a
        // host. No file has such a path, so it is not there.
        if segment.is_empty() && segments.peek().is_some() {
            return false;
        }
        if !is_shown_name(segment) {
            return false;
        }
    }
    true
}

/// Whether a site shows what has this name.
pub(super) fn is_shown_name(name: &[u8]) -> bool {
    // SECURITY: names that begin with a dot are the author's own (`.git`, `.env`); a library's code is not a page.
    !name.starts_with(b".") && !name.ends_with(b".so")
}

/// The index page of the folder at `relative`, which ends with a slash unless it is empty. It may be remembered as what is
/// at `path`.
fn find_index(folder: &Folder, relative: &[u8], path: Option<&Path>) -> Option<Target> {
    for page in INDEX_PAGES {
        let its_path = [relative, page].concat();
        match folder.open_beneath(&its_path) {
            // Only the first of the pages is remembered: of another one it would have to be asked each time whether there is still
            // none before it.
            Ok(opened) if opened.kind == Kind::File => {
                return file(opened, page, &its_path, path.filter(|_| page == INDEX_PAGES[0]));
            }
            Ok(_) => {}
            // A folder in which nothing can be looked up: of its index page nothing is known, not even that it may not be read.
            Err(Errno::ACCESS) if folder.kind_of(&its_path).is_none() => {}
            Err(error) => {
                if let Some(refused) = refusal(error) {
                    return Some(refused);
                }
            }
        }
    }
    None
}

/// The file with this name, at `relative`. It may be remembered as what is at `path`.
fn file(opened: Opened, name: &[u8], relative: &[u8], path: Option<&Path>) -> Option<Target> {
    let path = path.filter(|_| opened.identity.size <= OPEN_FILE_BYTES_MAX).map(|path| path.as_bytes().into());
    // What could be opened has no NUL in its path.
    let relative = CString::new(relative).ok()?;
    Some(Target::File(File { opened, content_type: content_type::of(name), relative, path }))
}

/// What a failed open means. What is not there, or not under the root, is nothing.
fn refusal(error: Errno) -> Option<Target> {
    let reject = match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG => return None,
        // Sockets, devices without a driver, and names that the file system cannot have.
        Errno::NXIO | Errno::NODEV | Errno::INVAL | Errno::ILSEQ => return None,
        Errno::ACCESS | Errno::PERM => Reject::new(403, "the server may not read this file"),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => {
            Reject::new(503, "the server is out of file descriptors or memory")
        }
        _ => Reject::new(500, "the file system failed"),
    };
    Some(Target::Refused(reject))
}

/// A path, percent-encoded.
pub(super) fn encode(path: &[u8]) -> PercentEncode<'_> {
    percent_encode(path, KEPT)
}

/// What stands unencoded in a path besides letters and digits (RFC 3986 §3.3). A backslash does not: browsers take it for a
/// slash.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_absence() {
        let status = |error| match refusal(error) {
            Some(Target::Refused(reject)) => Some(reject.status),
            _ => None,
        };
        for error in [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV, Errno::NAMETOOLONG, Errno::NXIO] {
            assert_eq!(status(error), None, "{error}");
        }
        assert_eq!(status(Errno::ACCESS), Some(403));
        assert_eq!(status(Errno::MFILE), Some(503));
        assert_eq!(status(Errno::IO), Some(500));
    }
}
