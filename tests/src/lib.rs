//! What the tests share: starting `host`, speaking HTTP to it, keeping it busy, compiling handlers.
//!
//! Nothing here sleeps and hopes: whatever must come about is waited for, with [`PATIENCE`] as the end of the wait
//! and a panic that says what did not come about. Servers listen on port 0 of the loopback address.

pub mod browser;
pub mod client;
pub mod compile;
pub mod conformance;
pub mod load;
pub mod probe;
pub mod process;
pub mod server;
pub mod source;

pub use browser::Browser;
pub use client::{Client, Response};
pub use compile::cc;
pub use load::Load;
pub use process::{Process, children};
pub use server::{Server, Site};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long something that must happen may take before a test fails: far longer than it ever takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository").to_owned()
}

/// The first value that `condition` gives.
///
/// # Panics
/// With `what` if there is none within `deadline`.
pub fn eventually<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let mut wait = Wait::new(deadline);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(!wait.left().is_zero(), "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A wait that has an end. A machine that stands still for a while, as virtual ones do, goes on with all of its clocks ahead:
/// whoever is waited for has had none of that time.
#[derive(Debug)]
pub struct Wait {
    left: Duration,
    last: Instant,
}

impl Wait {
    /// For so long, from now on.
    pub fn new(patience: Duration) -> Wait {
        Wait { left: patience, last: Instant::now() }
    }

    /// What is left of it. To be asked at least every tenth of a second: what has passed beyond that does not count.
    pub fn left(&mut self) -> Duration {
        let now = Instant::now();
        self.left = self.left.saturating_sub((now - self.last).min(Self::STEP));
        self.last = now;
        self.left
    }

    /// Nobody may sleep longer between two looks.
    pub const STEP: Duration = Duration::from_millis(100);
}
