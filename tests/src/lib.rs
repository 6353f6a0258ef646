//! What the tests share: starting `host`, speaking HTTP to it, keeping it busy, compiling handlers.
//!
//! Nothing here sleeps and hopes: whatever must come about is waited for, with [`PATIENCE`] as the end of the wait
//! and a panic that says what did not come about. Servers listen on port 0 of the loopback address.

pub mod client;
pub mod compile;
pub mod load;
pub mod probe;
pub mod process;
pub mod server;
pub mod source;

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
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
