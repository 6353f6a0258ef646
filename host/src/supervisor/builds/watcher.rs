//! Watching folders for hints that something changed.
//!
//! Folders, not files: a file that is replaced takes its watch along. An event says only "look again"; what to look at
//! is [`super::lookup`]'s to say, so a lost event costs time and nothing else.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Watches a set of folders, each without those below it.
pub struct Watcher {
    inner: RecommendedWatcher,
    /// With device and inode: a folder that was made anew under an old name needs a new watch.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    warned: bool,
}

impl Watcher {
    /// Calls `hint` from a thread of its own at every change in the folders of the last [`Watcher::watch`]. None, with a
    /// warning in the log, if the system has no more of them to give: then there is the poll.
    pub fn new(hint: impl Fn() + Send + 'static) -> Option<Watcher> {
        let inner = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event)) {
                hint();
            }
        });
        let warn = |error: &notify::Error| {
            tracing::warn!(
                "cannot watch folders: {error}; changes are found within seconds, not at once (raise \
                 fs.inotify.max_user_instances)"
            );
        };
        let inner = inner.inspect_err(warn).ok()?;
        Some(Watcher { inner, watched: BTreeMap::new(), warned: false })
    }

    /// Watches exactly these folders from now on. True if some are new: what happened in them before this returned has
    /// given no hint.
    pub fn watch(&mut self, folders: &BTreeSet<PathBuf>) -> bool {
        let gone: Vec<PathBuf> = self.watched.keys().filter(|path| !folders.contains(*path)).cloned().collect();
        for path in gone {
            self.forget(&path);
        }
        let mut added = false;
        for path in folders {
            let Ok(metadata) = path.metadata() else { continue };
            let identity = (metadata.dev(), metadata.ino());
            match self.watched.get(path) {
                Some(known) if *known == identity => continue,
                Some(_) => self.forget(path),
                None => {}
            }
            match self.inner.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), identity);
                    added = true;
                }
                Err(error) => self.warn(path, &error),
            }
        }
        added
    }

    fn forget(&mut self, path: &Path) {
        self.watched.remove(path);
        // It fails if the folder is gone, and the kernel has dropped the watch itself.
        let _ = self.inner.unwatch(path);
    }

    fn warn(&mut self, path: &Path, error: &notify::Error) {
        if self.warned || !path.exists() {
            return;
        }
        self.warned = true;
        tracing::warn!(
            "cannot watch {}: {error}; changes there are found within seconds, not at once (raise \
             fs.inotify.max_user_watches)",
            path.display()
        );
    }
}

/// Whether an event can mean a new build. Opening and reading cannot, and we do both ourselves: to take them for changes
/// would be to wake ourselves for ever.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        // The queue of the kernel has overflown, and other things that notify cannot name, are reasons to look, too.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    fn watcher(folder: &Path) -> (Watcher, Receiver<()>) {
        let (sender, receiver) = channel();
        let mut watcher = Watcher::new(move || {
            let _ = sender.send(());
        })
        .unwrap();
        assert!(watcher.watch(&BTreeSet::from([folder.to_owned()])));
        assert!(!watcher.watch(&BTreeSet::from([folder.to_owned()])));
        (watcher, receiver)
    }

    /// Waits for the hints of a change that is certain to give one, and drops them.
    fn settle(folder: &Path, hints: &Receiver<()>) {
        std::fs::create_dir(folder.join("mark")).unwrap();
        hints.recv_timeout(Duration::from_secs(10)).unwrap();
        std::fs::remove_dir(folder.join("mark")).unwrap();
        hints.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn reading_gives_no_hint_and_writing_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.so");
        std::fs::write(&path, "x").unwrap();
        let (_watcher, hints) = watcher(folder.path());
        for _ in 0..10 {
            std::fs::read(&path).unwrap();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        // Events come in order: if reading gave any, they would stand before these two.
        settle(folder.path(), &hints);
        assert!(hints.try_recv().is_err());
        std::fs::write(&path, "y").unwrap();
        hints.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_folder_that_was_made_anew_is_watched_anew() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("handlers");
        std::fs::create_dir(&folder).unwrap();
        let (mut watcher, hints) = watcher(&folder);
        std::fs::rename(&folder, root.path().join("old")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert!(watcher.watch(&BTreeSet::from([folder.clone()])));
        while hints.try_recv().is_ok() {}
        settle(&folder, &hints);
    }
}
