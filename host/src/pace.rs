//! How the calls of an application have gone, which decides how the next one is made.
//!
//! Most calls take microseconds: they are made by the thread that leads the event loop, and cost nothing besides. One that
//! takes long is overtaken: another thread takes the loop over, which costs the others a millisecond or two. So an
//! application is remembered whose calls were overtaken, and its loop is passed on before the next calls, until enough
//! of them have been quick. A quick call may be overtaken once because the system gave the processor to somebody else in
//! the middle of it: so the first time a few quick ones are enough, and more whenever it happens again soon.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The pace of one kind of calls: of an application, or of its bodies' `next`.
#[derive(Debug, Default)]
pub struct Pace {
    /// How many quick calls it takes until one is made inline again; and the marks.
    word: AtomicU32,
    /// What overtaking set that number to last, and when, in the milliseconds of the caller.
    last: AtomicU32,
    last_ms: AtomicU64,
}

/// The paces of an application.
#[derive(Debug, Default)]
pub struct Paces {
    /// Of the application itself.
    pub call: Pace,
    /// Of its bodies.
    pub next: Pace,
}

/// How a call is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the thread that leads the loop.
    Inline,
    /// After the loop has been passed on: it will wait.
    Waits,
    /// After the loop has been passed on: it will compute for long, so that more of its kind than there are cores only
    /// get into each other's way.
    Computes,
}

impl Paces {
    /// Of an application that says itself that its calls wait.
    pub fn that_block() -> Paces {
        let always = || Pace { word: AtomicU32::new(DECLARED | QUICK_CALLS_MAX), ..Pace::default() };
        Paces { call: always(), next: always() }
    }
}

impl Pace {
    /// How the next call is to be made.
    pub fn way(&self) -> Way {
        match self.word.load(Ordering::Relaxed) {
            0 => Way::Inline,
            word if word & COMPUTES != 0 => Way::Computes,
            _ => Way::Waits,
        }
    }

    /// An inline call took so long that its loop was taken over, at this time in milliseconds.
    pub fn overtaken(&self, now_ms: u64) {
        // Threads that do this at the same time count as one, which does no harm.
        let since_ms = now_ms.saturating_sub(self.last_ms.swap(now_ms, Ordering::Relaxed));
        let last = self.last.load(Ordering::Relaxed);
        let again = last > 0 && since_ms < SOON_MS;
        let calls = if again { (2 * last + 1).min(QUICK_CALLS_MAX) } else { QUICK_CALLS };
        self.last.store(calls, Ordering::Relaxed);
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word & MARKS | calls.max(word & !MARKS), Ordering::Relaxed);
    }

    /// A call for which the loop had been passed on took this long, and this much of a processor.
    pub fn measured(&self, wall: Duration, processor: Duration) {
        // Others may count at the same time; what is lost by that is one call in the count.
        let word = self.word.load(Ordering::Relaxed);
        let declared = word & DECLARED;
        let next = if wall >= SLOW {
            let computes = if processor * 2 >= wall { COMPUTES } else { 0 };
            declared | computes | QUICK_CALLS_MAX
        } else if declared != 0 || word == 0 {
            word
        } else {
            match (word & !COMPUTES) - 1 {
                0 => 0,
                left => word & COMPUTES | left,
            }
        };
        if next != word {
            self.word.store(next, Ordering::Relaxed);
        }
    }
}

/// The application has said so itself.
const DECLARED: u32 = 1 << 31;

/// The last slow call was busy with a processor.
const COMPUTES: u32 = 1 << 30;

const MARKS: u32 = DECLARED | COMPUTES;

/// Passing a loop on costs some microseconds, a loop that is held up costs all its connections a millisecond or two: as
/// much as so many quick calls that were taken for slow ones.
const QUICK_CALLS_MAX: u32 = 255;

/// So many at first.
const QUICK_CALLS: u32 = 15;

/// What is overtaken again within this time is slow now and then.
const SOON_MS: u64 = 1_000;

/// From here on a call is slow. A loop is taken over from a call that takes one to two milliseconds.
const SLOW: Duration = Duration::from_micros(500);

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(100);
    const SHORT: Duration = Duration::from_micros(3);

    /// How many quick calls it takes until one is made inline.
    fn quick_calls_until_inline(pace: &Pace) -> u32 {
        let calls = (0..1_000).take_while(|_| {
            let beside = pace.way() != Way::Inline;
            pace.measured(SHORT, SHORT);
            beside
        });
        calls.count() as u32
    }

    #[test]
    fn what_was_overtaken_is_remembered_until_its_calls_are_quick() {
        let pace = Pace::default();
        assert_eq!(pace.way(), Way::Inline);
        pace.overtaken(5_000);
        assert_eq!(pace.way(), Way::Waits);
        assert_eq!(quick_calls_until_inline(&pace), QUICK_CALLS);
        pace.measured(SHORT, SHORT);
        assert_eq!(pace.way(), Way::Inline);
    }

    #[test]
    fn what_is_overtaken_again_and_again_is_remembered_longer() {
        let pace = Pace::default();
        let remembered: Vec<u32> = (0..6)
            .map(|time| {
                pace.overtaken(10_000 + time * 100);
                quick_calls_until_inline(&pace)
            })
            .collect();
        assert_eq!(remembered, [15, 31, 63, 127, 255, 255]);
        pace.overtaken(10_500 + SOON_MS);
        assert_eq!(quick_calls_until_inline(&pace), QUICK_CALLS, "that was long ago");
    }

    #[test]
    fn one_slow_call_in_a_hundred_keeps_the_others_from_being_tried_inline() {
        let pace = Pace::default();
        pace.overtaken(1);
        pace.measured(LONG, SHORT);
        for call in 0..10_000 {
            assert_ne!(pace.way(), Way::Inline);
            let wall = if call % 100 == 0 { LONG } else { SHORT };
            pace.measured(wall, SHORT);
        }
    }

    #[test]
    fn who_computes_is_told_from_who_waits() {
        let pace = Pace::default();
        pace.overtaken(1);
        pace.measured(LONG, LONG * 9 / 10);
        assert_eq!(pace.way(), Way::Computes);
        pace.measured(SHORT, SHORT);
        assert_eq!(pace.way(), Way::Computes);
        pace.measured(LONG, SHORT);
        assert_eq!(pace.way(), Way::Waits);
        pace.measured(LONG, LONG);
        assert_eq!(quick_calls_until_inline(&pace), QUICK_CALLS_MAX);
    }

    #[test]
    fn who_says_that_it_blocks_is_never_tried_inline() {
        let Paces { call, next } = Paces::that_block();
        for pace in [call, next] {
            (0..1000).for_each(|_| pace.measured(SHORT, SHORT));
            assert_eq!(pace.way(), Way::Waits);
            pace.measured(LONG, LONG);
            assert_eq!(pace.way(), Way::Computes);
            pace.measured(LONG, SHORT);
            assert_eq!(pace.way(), Way::Waits);
        }
    }
}
