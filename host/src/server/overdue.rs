//! Calls that take too long: `--timeout-handler` for time without progress, `--timeout-cpu` for time on a processor.
//!
//! The monitor looks at the slots of all threads. It measures from when it first saw a call in its present state, so that
//! a call itself costs no look at a clock. A call that is overdue is marked and its thread interrupted, again and again
//! until it parks: it may be in code that must come to its end first.

use crate::config::Timeouts;
use crate::sys::clock;
use crate::sys::crash::{self, Limit};
use crate::sys::recorder::{Flight, Slot};
use std::time::{Duration, Instant};

/// What is known of the calls under way.
pub(super) struct Overdue {
    handler: Duration,
    processor: Duration,
    seen: Vec<Seen>,
}

/// What was seen of one slot.
#[derive(Clone, Copy)]
struct Seen {
    flight: Flight,
    /// Since when.
    since: Instant,
    /// What its thread had used of a processor soon after.
    used: Option<Duration>,
    /// When there is something to do about it.
    due: Instant,
    interrupts: u32,
}

impl Overdue {
    pub(super) fn new(timeouts: &Timeouts) -> Overdue {
        Overdue { handler: timeouts.handler, processor: timeouts.cpu, seen: Vec::new() }
    }

    /// Looks at all slots, and acts on what is due. Says when something is due next; and tells of each call that is
    /// overdue and cannot be ended.
    pub(super) fn look(&mut self, slots: &[Slot], mut tell: impl FnMut(&Slot)) -> Option<Instant> {
        let now = Instant::now();
        let unknown = Seen { flight: Flight::default(), since: now, used: None, due: now, interrupts: 0 };
        self.seen.resize(slots.len(), unknown);
        let mut next: Option<Instant> = None;
        for (slot, seen) in slots.iter().zip(&mut self.seen) {
            let flight = slot.look();
            if flight != seen.flight {
                let first = FIRST_LOOK.min(self.handler).min(self.processor);
                *seen = Seen { flight, since: now, used: None, due: now + first, interrupts: 0 };
            }
            if !flight.is_call() {
                continue;
            }
            if seen.due <= now
                && let Some(thread) = slot.thread()
            {
                match seen.exceeded(thread, now, self.handler, self.processor) {
                    Some(limit) => {
                        slot.condemn(flight, limit as u32);
                        crash::interrupt(thread);
                        seen.interrupts = seen.interrupts.saturating_add(1);
                        if seen.interrupts == INTERRUPTS_MAX {
                            tell(slot);
                        }
                        seen.due = now + if seen.interrupts < INTERRUPTS_MAX { AGAIN } else { AGAIN_LATER };
                    }
                    None => {
                        let left = self.processor.saturating_sub(seen.used(thread)).max(AGAIN);
                        seen.due = (seen.since + self.handler).min(now + left);
                    }
                }
            }
            next = Some(next.map_or(seen.due, |next| next.min(seen.due)));
        }
        next
    }

    /// Whether all is as it was at the last look.
    pub(super) fn is_current(&self, slots: &[Slot]) -> bool {
        slots.len() == self.seen.len() && slots.iter().zip(&self.seen).all(|(slot, seen)| slot.look() == seen.flight)
    }
}

impl Seen {
    /// Which limit it has exceeded.
    fn exceeded(&mut self, thread: i32, now: Instant, handler: Duration, processor: Duration) -> Option<Limit> {
        if now.saturating_duration_since(self.since) >= handler {
            return Some(Limit::Handler);
        }
        (self.used(thread) >= processor).then_some(Limit::Processor)
    }

    /// How much of a processor it has used since the first look at that.
    fn used(&mut self, thread: i32) -> Duration {
        let Some(used) = clock::used_by(thread) else { return Duration::ZERO };
        used.saturating_sub(*self.used.get_or_insert(used))
    }
}

/// Most calls are over before anybody asks what they use of a processor.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// When a thread is interrupted again.
const AGAIN: Duration = Duration::from_millis(1);

/// A thread that has been interrupted so often has blocked the signal, or waits where nobody can interrupt it.
const INTERRUPTS_MAX: u32 = 1_000;

/// When such a thread is interrupted again.
const AGAIN_LATER: Duration = Duration::from_secs(1);
