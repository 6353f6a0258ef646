//! Files that have been asked for before: small ones with their content, larger ones open.
//!
//! An entry is found by the path of a request, and is then only a guess: [`Site::find`](super::Site::find) asks the file
//! system once whether the path still leads to that very file in that very state, and else looks the path up anew.
//! What is not there is not remembered, so a file that appears is seen at once.
//!
//! **Why one `fstatat` is enough.** It follows links, and is not kept beneath the root as the first look-up was. But it must find
//! the same inode with the same time of change, and whatever happens to an inode (content, mode, owner, a label, one more
//! or one less name) sets that time, which nobody can set back. So what is sent is what a client could read at this path
//! before, to the byte, whatever the folders and links on the way have become; and a folder that may not be entered
//! any more fails the call. Only this differs from a look-up: a folder on the way was moved out of the root (or has hard links
//! there to the same files) and a symbolic link to it was put in its place. Its files that are in the cache are still sent,
//! and the others are not found. So that this comes to an end, and with it all that an inode does not tell (stores through a
//! mapping of a page that was written before, a security module's new policy), an entry is believed for
//! [`BELIEVED_MS`] at most.
//!
//! **Sidecars.** An entry for a file remembers which sidecars it had when it was looked up (`super::sidecar`), each of which is an entry of
//! its own, under the same path and its coding. One is sent only if an `fstatat` of its own confirms it *and* it was found beside
//! the very file that has just been confirmed: what is sent never is a combination that a look-up could not have found. A
//! new sidecar is seen when the entry of its file is not believed any more.
//!
//! **Memory.** Two tables, for small and for larger files, each of sets of [`WAYS`] places: the path's hash chooses the set, and within
//! it a newcomer takes the place of an entry that was not used since the last one came (the clock algorithm). A place
//! is an atomic pointer, so a look-up takes no lock, and neither does a change.

use super::description::Description;
use crate::http::accept::{Coding, Codings};
use crate::sys::files::Identity;
use arc_swap::ArcSwapOption;
use std::ffi::CString;
use std::hash::{DefaultHasher, Hasher};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Files up to this size are kept in memory, larger ones open: beyond it `sendfile` is cheaper than a copy.
pub(super) const MEMORY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Files up to this size are kept open. A larger one would keep its blocks on the disk after it was deleted, and an open
/// and a close are nothing beside the sending of it.
pub(super) const OPEN_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How long an entry is believed, in milliseconds.
const BELIEVED_MS: u64 = 10_000;

/// Places of a set.
const WAYS: usize = 4;

/// Sets of small files: 4096 places, which take 64 KiB.
const MEMORY_SETS: usize = 1024;

/// Sets of larger files: 64 places, so that at most 64 descriptors and 64 MiB of deleted files are held.
const OPEN_SETS: usize = 16;

/// What all entries of small files may take together. With files of 8 KiB or more it is reached before the places are.
const MEMORY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The cache of a site.
#[derive(Debug)]
pub(super) struct Cache {
    memory: Table,
    open: Table,
}

/// A file, as it was when it was looked up.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it is.
    pub(super) place: Place,
    /// What must be found there for the entry to be true.
    pub(super) identity: Identity,
    /// What is said of it.
    pub(super) description: Description,
    /// Its content; none if nobody has asked for more than its sidecars.
    pub(super) content: Option<Content>,
    /// The sidecars that it had.
    pub(super) sidecars: Codings,
    /// What it is a sidecar of, if it is one.
    pub(super) beside: Option<Box<Identity>>,
    /// When it was looked up, on the clock of `sys::clock::coarse_ms`.
    pub(super) seen_ms: u64,
    /// It was used since the last newcomer looked for a place.
    pub(super) used: AtomicBool,
}

/// Where a file is, for the clients and for the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The path of the requests for it, decoded.
    pub(super) path: Box<[u8]>,
    /// The coding of what is sent to them, if it is a sidecar.
    pub(super) coding: Option<Coding>,
    /// Its path relative to the root. It is another one if the file is a folder's index page.
    pub(super) relative: CString,
}

/// What an entry is found by.
#[derive(Clone, Copy)]
struct Key<'a> {
    path: &'a [u8],
    coding: Option<Coding>,
}

/// The content of an entry.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// All of it.
    Memory(Arc<[u8]>),
    /// The open file.
    Open(Arc<OwnedFd>),
}

impl Cache {
    /// An empty cache.
    pub(super) fn new() -> Cache {
        Cache { memory: Table::new(MEMORY_SETS), open: Table::new(OPEN_SETS) }
    }

    /// The entry for requests for `path`, or for its sidecar with this coding, if there is one that can be believed at `now_ms`,
    /// provided that the file system agrees.
    pub(super) fn find(&self, path: &[u8], coding: Option<Coding>, now_ms: u64) -> Option<Arc<Entry>> {
        let key = Key { path, coding };
        let hash = key.hash();
        let entry = self.memory.find(key, hash).or_else(|| self.open.find(key, hash))?;
        (now_ms.saturating_sub(entry.seen_ms) < BELIEVED_MS).then_some(entry)
    }

    /// Adds an entry. It takes the place of an older one for its path.
    pub(super) fn insert(&self, entry: Entry) {
        let hash = entry.key().hash();
        let (table, other) = match entry.content {
            Some(Content::Memory(_)) | None => (&self.memory, &self.open),
            Some(Content::Open(_)) => (&self.open, &self.memory),
        };
        // The file may have grown or shrunk over the bound between the tables.
        if let Some(older) = other.find(entry.key(), hash) {
            other.remove(&older, hash);
        }
        table.insert(entry, hash, MEMORY_BYTES_MAX);
    }

    /// Removes an entry that is no longer true.
    pub(super) fn remove(&self, entry: &Arc<Entry>) {
        let table = match entry.content {
            Some(Content::Memory(_)) | None => &self.memory,
            Some(Content::Open(_)) => &self.open,
        };
        table.remove(entry, entry.key().hash());
    }
}

impl Key<'_> {
    fn hash(self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(self.path);
        match self.coding {
            None => hasher.finish(),
            // No path has a NUL in it.
            Some(coding) => {
                hasher.write(&[0, coding as u8]);
                hasher.finish()
            }
        }
    }
}

impl Entry {
    fn key(&self) -> Key<'_> {
        Key { path: &self.place.path, coding: self.place.coding }
    }

    fn is_for(&self, key: Key<'_>) -> bool {
        *self.place.path == *key.path && self.place.coding == key.coding
    }

    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize {
        let content = match &self.content {
            Some(Content::Memory(bytes)) => bytes.len(),
            Some(Content::Open(_)) | None => 0,
        };
        let beside = self.beside.as_ref().map_or(0, |_| size_of::<Identity>());
        let names = self.place.path.len() + self.place.relative.as_bytes().len();
        size_of::<Entry>() + content + names + beside + self.description.bytes()
    }
}

/// Entries in sets.
#[derive(Debug)]
struct Table {
    sets: Box<[Set]>,
    /// What the entries take together.
    bytes: AtomicUsize,
    /// The set from which memory is taken next, when there is too little.
    hand: AtomicUsize,
}

/// A set fits a line of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    /// For each place a part of the hash of its path, so that of the wrong entries hardly any is touched. They may be
    /// behind the places for a moment: an entry is then overlooked, which is no more than a miss.
    tags: [AtomicU32; WAYS],
    places: [ArcSwapOption<Entry>; WAYS],
}

const _: () = assert!(size_of::<Set>() == 64);

impl Table {
    /// A table of so many sets, which is a power of two.
    fn new(sets: usize) -> Table {
        assert!(sets.is_power_of_two(), "a hash is cut to the number of a set");
        let (bytes, hand) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Table { sets: (0..sets).map(|_| Set::default()).collect(), bytes, hand }
    }

    fn find(&self, key: Key<'_>, hash: u64) -> Option<Arc<Entry>> {
        let set = self.set(hash);
        for (tag, place) in set.tags.iter().zip(&set.places) {
            if tag.load(Ordering::Relaxed) != tag_of(hash) {
                continue;
            }
            if let Some(entry) = place.load_full().filter(|entry| entry.is_for(key)) {
                // A store of what is there already would take the line away from the other processors.
                if !entry.used.load(Ordering::Relaxed) {
                    entry.used.store(true, Ordering::Relaxed);
                }
                return Some(entry);
            }
        }
        None
    }

    fn insert(&self, entry: Entry, hash: u64, bytes_max: usize) {
        let bytes = entry.bytes();
        self.make_room(bytes, bytes_max);
        let set = self.set(hash);
        let at = set.place_for(entry.key());
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.forget(set.places[at].swap(Some(Arc::new(entry))));
        set.tags[at].store(tag_of(hash), Ordering::Relaxed);
    }

    fn remove(&self, entry: &Arc<Entry>, hash: u64) {
        for place in &self.set(hash).places {
            let there = place.load();
            if there.as_ref().is_some_and(|there| Arc::ptr_eq(there, entry)) {
                self.take(place, &there);
            }
        }
    }

    /// Empties places, those of unused entries first, until there is room for so many bytes more.
    fn make_room(&self, bytes: usize, bytes_max: usize) {
        // Once around to find all unused since, and once more because then all are.
        for _ in 0..2 * self.sets.len() {
            if self.bytes.load(Ordering::Relaxed) + bytes <= bytes_max {
                return;
            }
            let hand = self.hand.fetch_add(1, Ordering::Relaxed) & (self.sets.len() - 1);
            for place in &self.sets[hand].places {
                let there = place.load();
                if there.as_ref().is_some_and(|entry| !entry.used.swap(false, Ordering::Relaxed)) {
                    self.take(place, &there);
                }
            }
        }
    }

    /// Empties the place, if it still holds that.
    fn take(&self, place: &ArcSwapOption<Entry>, there: &arc_swap::Guard<Option<Arc<Entry>>>) {
        let was = place.compare_and_swap(there, None);
        let taken = match (&*was, &**there) {
            (Some(was), Some(there)) => Arc::ptr_eq(was, there),
            _ => false,
        };
        if taken {
            self.forget(arc_swap::Guard::into_inner(was));
        }
    }

    /// Counts an entry no more that has left its place.
    fn forget(&self, entry: Option<Arc<Entry>>) {
        if let Some(entry) = entry {
            self.bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
        }
    }

    fn set(&self, hash: u64) -> &Set {
        &self.sets[hash as usize & (self.sets.len() - 1)]
    }
}

impl Set {
    /// The place for an entry of this key: that of an older one, else an empty one, else that of an unused one.
    fn place_for(&self, key: Key<'_>) -> usize {
        let mut empty = None;
        let mut unused = None;
        for (at, place) in self.places.iter().enumerate() {
            match &*place.load() {
                Some(entry) if entry.is_for(key) => return at,
                Some(entry) if unused.is_none() => {
                    if !entry.used.swap(false, Ordering::Relaxed) {
                        unused = Some(at);
                    }
                }
                Some(_) => {}
                None => empty = empty.or(Some(at)),
            }
        }
        // If all were used, they are not any more, and the next newcomer takes the second place if this one is in use.
        empty.or(unused).unwrap_or(0)
    }
}

/// The half of the hash that does not choose the set.
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests;
