//! What belongs to a build that has its state kept: its functions, and the gate before it.

use super::state::Functions;
use crate::serial::{Permit, Serial};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

/// A build's part in the keeping of its module's state.
pub(super) struct Keeping {
    pub(super) functions: Functions,
    /// Requests wait here until the build has the state of the one before it. What they wait for is a permit, which they
    /// pass on at once.
    gate: Arc<Serial>,
    shut: AtomicBool,
    /// How many calls had been counted when it was last saved.
    pub(super) saved_calls: AtomicU64,
    /// A save has not come to an end.
    pub(super) hangs: AtomicBool,
    /// Goes with the build: tells who waits for its last request.
    settling: OnceLock<Settling>,
}

/// Tells by its end that a build has no request any more.
struct Settling {
    which: usize,
    done: mpsc::Sender<usize>,
}

impl Keeping {
    /// With an open gate.
    pub(super) fn new(functions: Functions) -> Keeping {
        Keeping {
            functions,
            gate: Arc::default(),
            shut: AtomicBool::new(false),
            saved_calls: AtomicU64::new(0),
            hangs: AtomicBool::new(false),
            settling: OnceLock::new(),
        }
    }

    /// For the same build once more.
    pub(super) fn again(&self) -> Keeping {
        let hangs = AtomicBool::new(self.hangs.load(Ordering::Relaxed));
        Keeping { hangs, ..Keeping::new(self.functions) }
    }

    /// Shuts the gate of a build that has not been called yet. Dropping the permit lets those look again who wait.
    pub(super) fn shut(&self) -> Option<Permit> {
        self.shut.store(true, Ordering::Release);
        self.gate.enter(|| Box::new(drop))
    }

    /// Lets requests in. Who finds it open sees all that was done before.
    pub(super) fn open(&self) {
        self.shut.store(false, Ordering::Release);
    }

    /// Whether requests have to wait.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// Where they wait.
    pub(super) fn gate(&self) -> &Arc<Serial> {
        &self.gate
    }

    /// Has `done` told this number when the last request of the build is over.
    pub(super) fn tell_when_settled(&self, which: usize, done: mpsc::Sender<usize>) {
        // It is said once: a build is taken out of service once.
        _ = self.settling.set(Settling { which, done });
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        // Who waited may have lost patience.
        _ = self.done.send(self.which);
    }
}
