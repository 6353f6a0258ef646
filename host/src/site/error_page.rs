//! Pages of the site that are shown for errors of the server: `404.html`, else `40x.html`.
//!
//! They are looked up when an error is answered to somebody who takes HTML, and kept for a second, there or not: so a flood of errors
//! costs two look-ups a second for each status. What cannot be read, or is too large, is no page, and the answer is the
//! line of text that it would have been; nothing here can fail in turn.

use crate::sys::clock;
use crate::sys::files::{self, Folder, Kind};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Larger than any page that says that something is wrong, and small enough to be kept for each status.
const PAGE_BYTES_MAX: u64 = 256 * 1024;

/// How long what was found, or not, is believed.
const BELIEVED_MS: u64 = 1_000;

/// Statuses of errors: 400 to 599.
const FIRST: u16 = 400;
const COUNT: usize = 200;

/// The pages of a site.
#[derive(Debug)]
pub(super) struct ErrorPages {
    /// By status.
    known: Box<[ArcSwapOption<Known>]>,
    /// That one is too large has been said.
    has_complained: AtomicBool,
}

#[derive(Debug)]
struct Known {
    page: Option<Arc<[u8]>>,
    /// On the clock of `sys::clock::coarse_ms`.
    seen_ms: u64,
}

impl ErrorPages {
    /// None has been looked up.
    pub(super) fn new() -> ErrorPages {
        ErrorPages {
            known: (0..COUNT).map(|_| ArcSwapOption::empty()).collect(),
            has_complained: AtomicBool::new(false),
        }
    }

    /// The page for this status.
    pub(super) fn find(&self, folder: &Folder, status: u16) -> Option<Arc<[u8]>> {
        let place = self.known.get(usize::from(status.checked_sub(FIRST)?))?;
        let now_ms = clock::coarse_ms();
        if let Some(known) = &*place.load()
            && now_ms.saturating_sub(known.seen_ms) < BELIEVED_MS
        {
            return known.page.clone();
        }
        let names = [format!("{status}.html"), format!("{}x.html", status / 10)];
        let page = names.iter().find_map(|name| self.read(folder, name));
        place.store(Some(Arc::new(Known { page: page.clone(), seen_ms: now_ms })));
        page
    }

    fn read(&self, folder: &Folder, name: &str) -> Option<Arc<[u8]>> {
        let opened = folder.open_beneath(name.as_bytes()).ok()?;
        if opened.kind != Kind::File {
            return None;
        }
        let size = opened.identity.size;
        if size > PAGE_BYTES_MAX {
            if !self.has_complained.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "{name} is not shown for errors: it has {size} bytes, and {PAGE_BYTES_MAX} are the most"
                );
            }
            return None;
        }
        files::read_start(&opened.descriptor, size as usize).ok().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_page_of_the_status_comes_before_that_of_its_kind() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::open(base.path()).unwrap();
        let find =
            |status| ErrorPages::new().find(&folder, status).map(|page| String::from_utf8(page.to_vec()).unwrap());
        assert_eq!(find(404), None);
        fs::write(base.path().join("40x.html"), "kind").unwrap();
        fs::write(base.path().join("50x.html"), "ours").unwrap();
        fs::write(base.path().join("20x.html"), "never").unwrap();
        assert_eq!(find(404).as_deref(), Some("kind"));
        fs::write(base.path().join("404.html"), "exact").unwrap();
        assert_eq!(find(404).as_deref(), Some("exact"));
        assert_eq!(find(405).as_deref(), Some("kind"));
        assert_eq!((find(503).as_deref(), find(507).as_deref()), (Some("ours"), Some("ours")));
        for status in [0, 200, 304, 399, 412, 600, u16::MAX] {
            assert_eq!(find(status), None, "{status}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_no_page() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::open(base.path()).unwrap();
        fs::create_dir(base.path().join("404.html")).unwrap();
        fs::write(base.path().join("403.html"), vec![b'x'; PAGE_BYTES_MAX as usize + 1]).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", base.path().join("405.html")).unwrap();
        std::os::unix::fs::symlink("406.html", base.path().join("406.html")).unwrap();
        for status in 400..410 {
            assert_eq!(ErrorPages::new().find(&folder, status), None, "{status}");
        }
        fs::write(base.path().join("400.html"), vec![b'x'; PAGE_BYTES_MAX as usize]).unwrap();
        assert!(ErrorPages::new().find(&folder, 400).is_some());
    }

    #[test]
    fn a_flood_of_errors_does_not_ask_the_file_system_each_time() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::open(base.path()).unwrap();
        let pages = ErrorPages::new();
        let start = clock::coarse_ms();
        assert_eq!(pages.find(&folder, 404), None);
        fs::write(base.path().join("404.html"), "new").unwrap();
        let found = pages.find(&folder, 404);
        // On a busy machine the second may be over.
        assert!(found.is_none() || clock::coarse_ms() - start >= BELIEVED_MS);
        while pages.find(&folder, 404).is_none() {
            assert!(clock::coarse_ms() - start < 30_000, "it is never seen");
        }
        assert!(clock::coarse_ms() - start >= BELIEVED_MS);
    }
}
