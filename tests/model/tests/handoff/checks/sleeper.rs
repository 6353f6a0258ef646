//! The monitor never parks while a call is under way.

use super::{Alarm, explore};
use crate::sleeper::Sleeper;
use crate::sync::{AtomicU64, Ordering};
use crate::token::Token;
use crate::weaken::{Check, each_guarantee_is_needed};
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;

pub const CHECKS: [Check; 4] = [
    ("a lead that is given up", a_lead_that_is_given_up),
    ("who is roused sees what was done", who_is_roused_sees_what_was_done),
    ("calls that wait for the monitor", calls_that_wait_for_the_monitor),
    ("calls of two loops", calls_of_two_loops),
];

struct Engine {
    loops: Vec<Loop>,
    monitor: Sleeper,
}

/// A loop whose calls end when the monitor has seen them. If it parks instead, nothing moves ever again.
struct Loop {
    token: Token<()>,
    seen: Alarm,
}

#[test]
fn calls_that_wait_for_the_monitor() {
    explore(3, || {
        let engine = Engine::new(1);
        let monitor = engine.watch(2);
        engine.lead(0, 2);
        monitor.join().unwrap();
    });
}

/// One of the two may find the sleeper roused by the other.
#[test]
fn calls_of_two_loops() {
    explore(2, || {
        let engine = Engine::new(2);
        let monitor = engine.watch(2);
        let other = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.lead(1, 1))
        };
        engine.lead(0, 1);
        other.join().unwrap();
        monitor.join().unwrap();
    });
}

/// The order to a follower may get lost: then the monitor has to see that nobody leads.
#[test]
fn a_lead_that_is_given_up() {
    explore(3, || {
        let engine = Engine::new(1);
        let monitor = engine.watch(1);
        let token = &engine.loops[0].token;
        token.steal(token.observe().unwrap()).unwrap().release();
        engine.monitor.rouse();
        monitor.join().unwrap();
    });
}

#[test]
fn who_is_roused_sees_what_was_done() {
    explore(3, || {
        let (sleeper, made) = (Arc::new(Sleeper::new()), Arc::new((AtomicU64::new(0), UnsafeCell::new(()))));
        let parked = {
            let (sleeper, made) = (Arc::clone(&sleeper), Arc::clone(&made));
            thread::spawn(move || {
                sleeper.park_unless(None, || made.0.load(Ordering::SeqCst) != 0);
                made.1.with_mut(|_| ());
            })
        };
        made.1.with_mut(|_| ());
        made.0.store(1, Ordering::SeqCst);
        sleeper.rouse();
        parked.join().unwrap();
    });
}

#[test]
fn each_guarantee_of_the_sleeper_is_needed() {
    each_guarantee_is_needed(include_str!("../../../../../host/src/sys/sleeper.rs"), "sys/sleeper.rs", &CHECKS);
}

impl Engine {
    fn new(loops: usize) -> Arc<Engine> {
        let one = |_| Loop { token: Token::new(()), seen: Alarm::new() };
        Arc::new(Engine { loops: (0..loops).map(one).collect(), monitor: Sleeper::new() })
    }

    /// Leads a loop for so many calls.
    fn lead(&self, index: usize, calls: usize) {
        let Loop { token, seen } = &self.loops[index];
        let mut lead = token.steal(token.observe().unwrap()).unwrap();
        for _ in 0..calls {
            let (_, back) = lead.call(|_| {
                self.monitor.rouse();
                seen.sleep();
            });
            lead = back.expect("there are no thieves here");
        }
    }

    /// The monitor, until it has seen so many calls. Where the real one sees a call twice, one time is enough here.
    fn watch(self: &Arc<Engine>, calls: usize) -> thread::JoinHandle<()> {
        // That nobody leads yet looks like a call.
        let mut known: Vec<_> = self.loops.iter().map(|one| one.token.observe()).collect();
        let engine = Arc::clone(self);
        thread::spawn(move || {
            let mut seen = 0;
            while seen < calls {
                let words: Vec<u64> = engine.loops.iter().map(|one| one.token.word()).collect();
                for (one, known) in engine.loops.iter().zip(&mut known) {
                    let call = one.token.observe();
                    if call.is_some() && call != *known {
                        *known = call;
                        seen += 1;
                        one.seen.ring();
                    }
                }
                if seen < calls {
                    let unchanged = |(one, word): (&Loop, &u64)| one.token.word() == *word;
                    engine.monitor.park_unless(None, || !engine.loops.iter().zip(&words).all(unchanged));
                }
            }
        })
    }
}
