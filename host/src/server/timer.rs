//! Deadlines of connections: each has at most one that counts, and mostly it is put off again and again. So an entry
//! stays where it is, and is looked at anew when it is due.

use super::slots::SlotId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The entries of one loop, by time.
#[derive(Default)]
pub(super) struct Timers {
    entries: BinaryHeap<Reverse<(u64, SlotId)>>,
}

impl Timers {
    /// Makes sure that the connection is looked at when `deadline_ms` is due. `entry_ms` is the slot's own note of its
    /// earliest entry.
    pub(super) fn arm(&mut self, id: SlotId, deadline_ms: u64, entry_ms: &mut u64) {
        if *entry_ms == 0 || deadline_ms < *entry_ms {
            *entry_ms = deadline_ms;
            self.entries.push(Reverse((deadline_ms, id)));
        }
    }

    /// An entry that is due. It counts only if the slot's note has the same time.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<(u64, SlotId)> {
        let Reverse((time, _)) = self.entries.peek()?;
        if *time > now_ms {
            return None;
        }
        self.entries.pop().map(|Reverse(entry)| entry)
    }

    /// How long until the next entry is due, in milliseconds.
    pub(super) fn next_in(&self, now_ms: u64) -> Option<u64> {
        self.entries.peek().map(|Reverse((time, _))| time.saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_is_put_off_costs_no_entry() {
        let (mut timers, mut entry) = (Timers::default(), 0);
        for deadline in 10..1000 {
            timers.arm(SlotId(1), deadline, &mut entry);
        }
        assert_eq!(timers.entries.len(), 1);
        assert_eq!(timers.due(9), None);
        assert_eq!(timers.due(10), Some((10, SlotId(1))));
        assert_eq!(timers.next_in(0), None);
    }

    #[test]
    fn an_earlier_deadline_comes_first() {
        let (mut timers, mut entry) = (Timers::default(), 0);
        timers.arm(SlotId(1), 50, &mut entry);
        timers.arm(SlotId(1), 20, &mut entry);
        assert_eq!((entry, timers.next_in(5)), (20, Some(15)));
        assert_eq!(timers.due(60), Some((20, SlotId(1))));
        assert_eq!(timers.due(60), Some((50, SlotId(1))), "stale: the slot's note says 20");
    }
}
