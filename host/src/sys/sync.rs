//! What the lock-free files of this folder are made of: atomics, a cell, a clock and the futex.
//!
//! They take these from here and from nowhere else, because `tests/model/` compiles the very same files with models of
//! these in their place, and runs them in every order that the memory model allows.

pub use std::cell::UnsafeCell;
pub use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub use std::time::Instant;

/// Sleeping until a word changes, between the threads of one process (futex(2)).
pub mod futex {
    use super::AtomicU32;
    use rustix::thread::futex::{self, Flags, Timespec};
    use std::time::Duration;

    /// Sleeps while the word is as expected, until it is woken, and no longer than `patience`. It may return for no
    /// reason, such as a signal: the caller looks again at what it waits for.
    pub fn wait(word: &AtomicU32, expected: u32, patience: Option<Duration>) {
        let patience = patience.map(|left| Timespec {
            // More seconds than these never pass.
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        // Whatever ended the wait, the word and the clock tell.
        _ = futex::wait(word, Flags::PRIVATE, expected, patience.as_ref());
    }

    /// Wakes one thread that sleeps on the word. It takes no lock and allocates nothing: a signal handler may call it
    /// (signal-safety(7)).
    pub fn wake(word: &AtomicU32) {
        // It can fail only for an address that is not ours.
        _ = futex::wake(word, Flags::PRIVATE, 1);
    }
}
