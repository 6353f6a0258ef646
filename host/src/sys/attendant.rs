//! A thread that runs foreign code for another one, which waits for so long and learns if that code crashed.

use super::crash::{Fault, Heir, SignalStack, Suspect, watched};
use super::inbox::{Blank, Inbox};
use super::recorder::Occupied;
use super::sync::{AtomicU32, Ordering, futex};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The thread. It is made before it is needed: where a module has crashed, a new one might wait for ever for a lock of the
/// C library.
pub struct Attendant {
    tasks: mpsc::Sender<(&'static Suspect, Task)>,
    desk: Arc<Desk>,
}

/// How a task ended.
#[derive(Debug)]
pub enum Outcome<R> {
    /// With this.
    Done(R),
    /// It has not ended. It may still be under way, and end any time.
    Late,
    /// With its thread.
    Crashed(Fault),
}

type Task = Box<dyn FnOnce() + Send>;

/// What both sides look at.
struct Desk {
    word: AtomicU32,
    faults: Inbox<Fault>,
}

impl Attendant {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start() -> io::Result<Attendant> {
        let desk = Arc::new(Desk { word: AtomicU32::new(FREE), faults: Inbox::new() });
        let (tasks, to_do) = mpsc::channel::<(&'static Suspect, Task)>();
        let shared = Arc::clone(&desk);
        let attend = move || {
            // Without one it works as well, but dies with the process when the code uses up its stack.
            let _signal_stack = SignalStack::new();
            let slot = Occupied::beside();
            slot.get().note("its", "save or restore");
            for (suspect, task) in to_do {
                slot.get().begin(suspect.record());
                watched(suspect, slot.get(), &*shared, Blank::default(), |_| task());
                slot.get().end();
                shared.tell(FREE);
            }
        };
        thread::Builder::new().name("attendant".to_owned()).stack_size(STACK_BYTES).spawn(attend)?;
        Ok(Attendant { tasks, desk })
    }

    /// Has `work` done, which runs the code of `suspect`, and waits for it. The attendant comes back only from what it has
    /// done.
    pub fn run<R: Send + 'static>(
        self,
        suspect: &'static Suspect,
        patience: Duration,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> (Outcome<R>, Option<Attendant>) {
        let (result, results) = mpsc::channel();
        self.desk.word.store(BUSY, Ordering::Relaxed);
        // Nobody receives any more if this comes too late.
        let task = Box::new(move || drop(result.send(work())));
        // The thread ends only with this value, or for ever.
        _ = self.tasks.send((suspect, task));
        if !self.desk.wait(Instant::now() + patience) {
            return (Outcome::Late, None);
        }
        if let Ok(result) = results.try_recv() {
            return (Outcome::Done(result), Some(self));
        }
        let mut faults = VecDeque::new();
        self.desk.faults.take(&mut faults);
        (faults.pop_front().map_or(Outcome::Late, Outcome::Crashed), None)
    }
}

impl Desk {
    /// It neither allocates nor takes a lock: it may run in a signal handler.
    fn tell(&self, word: u32) {
        self.word.store(word, Ordering::Release);
        futex::wake(&self.word);
    }

    /// Whether the task is over before that time.
    fn wait(&self, deadline: Instant) -> bool {
        while self.word.load(Ordering::Acquire) == BUSY {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            futex::wait(&self.word, BUSY, Some(left));
        }
        true
    }
}

impl Heir<Blank<Fault>> for Desk {
    fn inherit(&self, blank: Blank<Fault>, fault: Fault) {
        self.faults.push_on(blank, fault);
        self.tell(CRASHED);
    }
}

const FREE: u32 = 0;
const BUSY: u32 = 1;
const CRASHED: u32 = 2;

/// As threads of modules have it that call their applications.
const STACK_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn suspect() -> &'static Suspect {
        Suspect::new("m", 1, "/nowhere".into())
    }

    #[test]
    fn results_come_back_one_after_the_other() {
        let mut attendant = Attendant::start().ok();
        for n in 0..100 {
            let (outcome, back) = attendant.expect("it has done what it had to").run(suspect(), LONG, move || n + 1);
            assert!(matches!(outcome, Outcome::Done(m) if m == n + 1), "{outcome:?}");
            attendant = back;
        }
    }

    #[test]
    fn who_is_late_does_not_come_back() {
        let (release, wait) = mpsc::channel::<()>();
        let attendant = Attendant::start().expect("a thread");
        let (outcome, back) = attendant.run(suspect(), Duration::from_millis(1), move || wait.recv().is_ok());
        assert!(matches!(outcome, Outcome::Late) && back.is_none());
        drop(release);
    }
}
