//! What time it is for a loop: asked for once each time that it has waited, and not for each response.

use crate::http::encode::Signature;
use crate::sys::clock;
use std::time::{Duration, SystemTime};

/// The time of a loop, as it was when it last looked.
pub(super) struct Clock {
    /// Milliseconds from some start; never 0, which stands for no deadline.
    pub(super) now_ms: u64,
    second: u64,
    /// `Date` and `Server` of responses.
    pub(super) signature: Signature,
}

impl Clock {
    /// Now, with this name of the server.
    pub(super) fn new(server: &str) -> Clock {
        let mut clock = Clock { now_ms: 1, second: u64::MAX, signature: Signature::default() };
        clock.tick(server);
        clock
    }

    /// Looks again.
    pub(super) fn tick(&mut self, server: &str) {
        self.now_ms = clock::coarse_ms() + 1;
        let second = clock::coarse_second();
        if second != self.second {
            self.second = second;
            self.signature = Signature::new(SystemTime::UNIX_EPOCH + Duration::from_secs(second), server);
        }
    }
}
