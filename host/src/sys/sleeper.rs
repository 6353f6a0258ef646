//! A thread that sleeps while there is no work, and costs those who make work one load while it is awake.
//!
//! The futex word is the state itself. The sleeper says that it parks, looks for work once more, and only then waits;
//! who makes work does so, and only then looks whether the sleeper parks. Both do it in one order that all threads agree
//! on (sequential consistency), so that one of the two sees the other: no work is overslept.

use super::sync::{AtomicU32, Instant, Ordering, futex};
use std::thread;
use std::time::Duration;

/// The state of one sleeper.
#[derive(Debug, Default)]
pub struct Sleeper {
    word: AtomicU32,
}

impl Sleeper {
    /// One that is awake.
    pub fn new() -> Sleeper {
        Sleeper { word: AtomicU32::new(AWAKE) }
    }

    /// Wakes the sleeper, if it parks. The work that was made must have been stored before, sequentially consistent.
    ///
    /// It takes no lock and allocates nothing: a signal handler may call it (signal-safety(7)).
    pub fn rouse(&self) {
        if self.word.load(Ordering::SeqCst) == PARKED && self.word.swap(AWAKE, Ordering::SeqCst) == PARKED {
            futex::wake(&self.word);
        }
    }

    /// Parks until somebody rouses it, or `patience` is over, unless `is_work` finds some. Only the sleeper itself may call this.
    ///
    /// Who is roused sees what was done before [`rouse`](Self::rouse).
    pub fn park_unless(&self, patience: Option<Duration>, is_work: impl FnOnce() -> bool) {
        self.word.store(PARKED, Ordering::SeqCst);
        if !is_work() {
            let end = patience.map(|patience| Instant::now() + patience);
            while self.word.load(Ordering::Acquire) == PARKED {
                let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                if left == Some(Duration::ZERO) {
                    break;
                }
                // Interrupted, or roused before it slept: the word tells.
                futex::wait(&self.word, PARKED, left);
            }
        }
        // Relaxed: who still sees it parked rouses it in vain.
        self.word.store(AWAKE, Ordering::Relaxed);
    }

    /// Sleeps for so long, whatever happens.
    pub fn nap(duration: Duration) {
        thread::sleep(duration);
    }
}

const AWAKE: u32 = 0;
const PARKED: u32 = 1;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn no_work_is_overslept() {
        const ROUNDS: u64 = 20_000;
        let (sleeper, made) = (Sleeper::new(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut done = 0;
                while done < ROUNDS {
                    // It would hang here for ever, if it parked with work waiting.
                    sleeper.park_unless(None, || made.load(Ordering::SeqCst) != done);
                    done = made.load(Ordering::SeqCst);
                }
            });
            for _ in 0..ROUNDS {
                made.fetch_add(1, Ordering::SeqCst);
                sleeper.rouse();
            }
        });
    }
}
