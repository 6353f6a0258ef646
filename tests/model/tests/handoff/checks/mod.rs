//! The scenarios, by the file that they try.

mod inbox;
mod roster;
mod sleeper;
mod token;

use crate::sync::{self, TotalOrder};
use loom::model::Builder;
use loom::sync::{Condvar, Mutex};

/// Runs a scenario in every order, with up to so many preemptions: switches to another thread where the first could have
/// gone on. Threads that wait for something are no preemptions, so two or three reach nearly everything.
///
/// # Panics
/// An assertion of the scenario fails in some order, or all threads wait, or two use a cell at once.
fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = std::sync::Arc::new(scenario);
    for total_order in [TotalOrder::AfterStores, TotalOrder::BeforeLoads] {
        let scenario = std::sync::Arc::clone(&scenario);
        let mut builder = Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            sync::begin(total_order);
            scenario();
        });
    }
}

/// What an eventfd is to an event loop: it keeps a ring until the one who sleeps has heard it.
struct Alarm {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Alarm {
    fn new() -> Alarm {
        Alarm { rung: Mutex::new(false), heard: Condvar::new() }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}
