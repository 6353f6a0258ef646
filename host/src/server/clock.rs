//! What time it is for a loop: the same for everything that it does between two waits.

use super::access_log::Lines;
use crate::http::encode::Signature;
use crate::sys::clock;
use std::time::{Duration, SystemTime};

/// The time of a loop.
pub(super) struct Clock {
    /// Of a clock that never goes back, in milliseconds.
    pub(super) now_ms: u64,
    second: u64,
    /// `Date` and `Server`, as they are now.
    pub(super) signature: Signature,
}

impl Clock {
    pub(super) fn new(server: &str, lines: &mut Option<Lines>) -> Clock {
        let mut clock = Clock { now_ms: 1, second: u64::MAX, signature: Signature::default() };
        clock.tick(server, lines);
        clock
    }

    /// Looks at the clocks, also for the access log.
    pub(super) fn tick(&mut self, server: &str, lines: &mut Option<Lines>) {
        // Never 0, which stands for no deadline.
        self.now_ms = clock::coarse_ms() + 1;
        let now = clock::coarse_time();
        if let Some(lines) = lines {
            lines.tick(self.now_ms, now);
        }
        let second = now.as_secs();
        if second != self.second {
            self.second = second;
            self.signature = Signature::new(SystemTime::UNIX_EPOCH + Duration::from_secs(second), server);
        }
    }
}
