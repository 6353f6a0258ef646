//! The builds of a module that have answered and may answer again, and which of them people have turned away from.

use std::collections::BTreeMap;

/// Builds by generation, without the one that answers now. `B` is a build that is kept.
#[derive(Clone, Debug)]
pub(super) struct History<B> {
    builds: BTreeMap<u64, Entry<B>>,
}

#[derive(Clone, Debug)]
struct Entry<B> {
    build: B,
    /// Somebody has gone back to an older one from it, or from one before it: it comes again only when it is named.
    left: bool,
}

impl<B> Default for History<B> {
    fn default() -> History<B> {
        History { builds: BTreeMap::new() }
    }
}

impl<B: Clone> History<B> {
    /// Keeps a build that answers no more; beyond [`BUILDS_MAX`] the oldest one is forgotten.
    pub(super) fn keep(&mut self, generation: u64, build: B) {
        self.builds.insert(generation, Entry { build, left: false });
        if self.builds.len() > BUILDS_MAX {
            self.builds.pop_first();
        }
    }

    /// The build that answers if the one of now must not: the newest that nobody has turned away from.
    pub(super) fn before(&self) -> Option<(u64, &B)> {
        let trusted = self.builds.iter().rev().find(|(_, entry)| !entry.left);
        trusted.map(|(&generation, entry)| (generation, &entry.build))
    }

    /// A build by its generation.
    pub(super) fn get(&self, generation: u64) -> Option<&B> {
        self.builds.get(&generation).map(|entry| &entry.build)
    }

    /// Takes a build out: it answers now, or shall never again.
    pub(super) fn take(&mut self, generation: u64) -> Option<B> {
        self.builds.remove(&generation).map(|entry| entry.build)
    }

    /// Somebody goes back to this generation: those after it are not returned to unless they are named.
    pub(super) fn leave_those_after(&mut self, generation: u64) {
        self.builds.range_mut(generation + 1..).for_each(|(_, entry)| entry.left = true);
    }

    /// The builds that people have turned away from.
    pub(super) fn left(&self) -> impl Iterator<Item = &B> {
        self.builds.values().filter(|entry| entry.left).map(|entry| &entry.build)
    }

    /// All generations, newest first.
    pub(super) fn generations(&self) -> impl Iterator<Item = u64> {
        self.builds.keys().rev().copied()
    }
}

/// Builds of a module that are kept besides the one that answers. Each is a file of some megabytes on the disk.
const BUILDS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn history(generations: &[u64]) -> History<()> {
        let mut history = History::default();
        generations.iter().for_each(|&generation| history.keep(generation, ()));
        history
    }

    fn before(history: &History<()>) -> Option<u64> {
        history.before().map(|(generation, ())| generation)
    }

    #[test]
    fn the_newest_few_are_kept() {
        let all: Vec<u64> = (1..=20).collect();
        let kept: Vec<u64> = history(&all).generations().collect();
        assert_eq!(kept, (13..=20).rev().collect::<Vec<_>>());
    }

    #[test]
    fn what_was_left_is_not_returned_to_by_itself() {
        // 7 answers, and somebody goes back to 5.
        let mut history = history(&[4, 5, 6, 7]);
        assert_eq!(history.take(5), Some(()));
        history.leave_those_after(5);
        assert_eq!(before(&history), Some(4));
        // A new build comes, and 5 is what comes before it.
        history.keep(5, ());
        assert_eq!(before(&history), Some(5));
        assert!(history.get(7).is_some(), "it can still be named");
    }

    #[test]
    fn what_is_returned_to_by_name_is_trusted_again() {
        let mut history = history(&[5, 7]);
        history.leave_those_after(5);
        history.take(7);
        history.leave_those_after(7);
        history.keep(7, ());
        assert_eq!(before(&history), Some(7));
    }
}
