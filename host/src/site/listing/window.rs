//! The next names of a folder in the order of a listing: as many as a window holds, however many there are.
//!
//! A folder gives its names in no order, and may have more than fit into memory. A pass over all of them keeps the smallest
//! that come after the last one listed; the next pass goes on from there.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};

/// The smallest names seen that come after a certain one.
#[derive(Debug)]
pub(super) struct Window {
    names: BTreeSet<Name>,
    bytes: usize,
    share: Share,
    /// Some did not fit: only what comes before the greatest here is known.
    pub(super) is_full: bool,
}

/// The memory that all windows of a site may have besides the first step of each.
#[derive(Debug)]
pub(in crate::site) struct Memory {
    left: AtomicUsize,
}

/// What one window may have.
#[derive(Debug)]
struct Share {
    memory: Arc<Memory>,
    bytes: usize,
}

/// A name, in the order of a listing.
#[derive(Debug, PartialEq, Eq)]
struct Name(CString);

impl Window {
    /// An empty window.
    pub(super) fn new(memory: &Arc<Memory>) -> Window {
        let share = Share { memory: Arc::clone(memory), bytes: STEP_BYTES };
        Window { names: BTreeSet::new(), bytes: 0, share, is_full: false }
    }

    /// Keeps `name` if it comes after `last`, and before others that fill the window.
    pub(super) fn offer(&mut self, name: &CStr, last: Option<&CStr>) {
        if last.is_some_and(|last| compare(name, last).is_le()) {
            return;
        }
        if self.is_full && self.names.last().is_some_and(|greatest| compare(name, &greatest.0).is_ge()) {
            return;
        }
        // A name that is renamed to and fro may be seen twice.
        if self.names.insert(Name(name.to_owned())) {
            self.bytes += weight(name);
        }
        while self.bytes > self.share.bytes && (self.is_full || !self.share.grow()) {
            self.is_full = true;
            match self.names.pop_last() {
                Some(greatest) => self.bytes -= weight(&greatest.0),
                None => return,
            }
        }
    }

    /// Takes the first name.
    pub(super) fn next(&mut self) -> Option<CString> {
        self.names.pop_first().map(|name| name.0)
    }
}

impl Memory {
    /// The whole of it.
    pub(in crate::site) fn new() -> Memory {
        Memory { left: AtomicUsize::new(MEMORY_BYTES_MAX) }
    }
}

impl Share {
    /// Takes one step more, if as much as it has then is left for others.
    fn grow(&mut self) -> bool {
        if self.bytes >= WINDOW_BYTES_MAX {
            return false;
        }
        let (acquire, relaxed) = (atomic::Ordering::Acquire, atomic::Ordering::Relaxed);
        let take = |left: usize| left.checked_sub(STEP_BYTES).filter(|&left| left >= self.bytes);
        let taken = self.memory.left.fetch_update(acquire, relaxed, take).is_ok();
        if taken {
            self.bytes += STEP_BYTES;
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.left.fetch_add(self.bytes - STEP_BYTES, atomic::Ordering::Release);
    }
}

/// The order of a listing: by letters, whose case matters only between names that are the same otherwise.
///
/// Each letter alone is made small (`char::to_lowercase`), whatever the language; what is not UTF-8 comes as U+FFFD would.
pub(super) fn compare(one: &CStr, other: &CStr) -> Ordering {
    let (a, b) = (one.to_bytes(), other.to_bytes());
    // Most names are ASCII, and most pairs differ early.
    for (at, (x, y)) in a.iter().zip(b).enumerate() {
        if !x.is_ascii() || !y.is_ascii() {
            return letters(&a[at..]).cmp(letters(&b[at..])).then_with(|| a.cmp(b));
        }
        let order = x.to_ascii_lowercase().cmp(&y.to_ascii_lowercase());
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn letters(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let invalid = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().flat_map(char::to_lowercase).chain(invalid)
    })
}

/// What a name takes in memory, about: itself, and its place in a tree whose nodes are not all full.
fn weight(name: &CStr) -> usize {
    2 * size_of::<Name>() + name.to_bytes_with_nul().len().next_multiple_of(16)
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A window begins with this, which is enough for most folders, and grows by it.
const STEP_BYTES: usize = 64 * 1024;

/// One window has no more: some ten thousand names of an ordinary length, which are dropped in a millisecond or two when their
/// client leaves.
const WINDOW_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What all windows have together, besides the first step of each.
const MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> CString {
        CString::new(bytes).unwrap()
    }

    #[test]
    fn names_are_in_order_whatever_their_case() {
        // Each comes before the next.
        let ordered: [&[u8]; 14] = [
            b" a",
            b"1",
            b"10",
            b"2",
            b"A",
            b"a",
            b"AB",
            b"aB",
            b"ab",
            b"b",
            b"Zoo",
            "Äpfel".as_bytes(),
            "äpfel".as_bytes(),
            b"\xff",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(compare(&name(one), &name(other)), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_order_is_one_for_names_of_any_bytes() {
        let pieces: [&[u8]; 8] =
            [b"a", b"A", b"b", "ä".as_bytes(), "Ä".as_bytes(), b"\xff", b"\xc3", "\u{130}".as_bytes()];
        let piece = |number: usize| pieces[number % pieces.len()];
        let names: Vec<CString> = (0..pieces.len().pow(3))
            .map(|number| name(&[piece(number), piece(number / 8), piece(number / 64)].concat()))
            .collect();
        let mut sorted = names.clone();
        sorted.sort_by(|one, other| compare(one, other));
        for (at, one) in sorted.iter().enumerate() {
            for other in &sorted[at..] {
                let expected = one.to_bytes() != other.to_bytes();
                assert_eq!(compare(one, other).is_lt(), expected, "{one:?} {other:?}");
                assert_eq!(compare(other, one).is_gt(), expected, "{other:?} {one:?}");
            }
        }
    }

    /// Names in no order and of different lengths, up to the longest that there are.
    fn many(count: u64) -> Vec<CString> {
        let long = |number: u64| "x".repeat(number as usize % 250);
        (0..count).map(|number| name(format!("{:05}{}", number * 7919 % count, long(number)).as_bytes())).collect()
    }

    fn fill(memory: &Arc<Memory>, names: &[CString], last: Option<&CStr>) -> Window {
        let mut window = Window::new(memory);
        names.iter().for_each(|name| window.offer(name, last));
        assert!(window.bytes <= window.share.bytes && window.share.bytes <= WINDOW_BYTES_MAX);
        window
    }

    #[test]
    fn passes_give_all_names_in_order_and_each_once() {
        let all = many(30_000);
        let mut expected = all.clone();
        expected.sort_by(|one, other| compare(one, other));
        let memory = Arc::new(Memory::new());
        let (mut listed, mut passes) = (Vec::new(), 0);
        loop {
            let mut window = fill(&memory, &all, listed.last().map(CString::as_c_str));
            passes += 1;
            while let Some(name) = window.next() {
                listed.push(name);
            }
            if !window.is_full {
                break;
            }
        }
        assert!(passes > 2, "they do not fit into one window");
        assert!(listed == expected, "{} of {} names", listed.len(), expected.len());
    }

    #[test]
    fn many_windows_share_what_there_is_and_give_it_back() {
        let memory = Arc::new(Memory::new());
        let all = many(15_000);
        let mut windows: Vec<Window> = (0..40).map(|_| fill(&memory, &all, None)).collect();
        let shares: Vec<usize> = windows.iter().map(|window| window.share.bytes).collect();
        assert_eq!(shares[0], WINDOW_BYTES_MAX);
        assert!(shares.is_sorted_by(|earlier, later| earlier >= later), "{shares:?}");
        assert!(shares.iter().sum::<usize>() <= MEMORY_BYTES_MAX + 40 * STEP_BYTES, "{shares:?}");
        assert!(windows.iter().all(|window| window.names.len() > 100), "the last of them goes on too");
        windows.clear();
        assert_eq!(memory.left.load(atomic::Ordering::Relaxed), MEMORY_BYTES_MAX);
    }
}
