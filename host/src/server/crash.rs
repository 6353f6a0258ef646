//! What a call leaves behind when a module's code crashes in it, and what its loop makes of that.
//!
//! The thread is gone with all that is on its stack. What must not go with it stands in the call's [`Belongings`], and
//! reaches the loop as a letter; the loop itself is taken over by another thread, as from a call that takes long.

use super::call::Permits;
use super::connection::Connection;
use super::slots::SlotId;
use super::{Letter, Shared};
use crate::sys::crash::{Fault, Found, Kind, Limit, Suspect};
use crate::sys::inbox::Blank;
use crate::sys::recorder::{self, Occupied, Slot};
use crate::sys::roster::Order;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a thread has beside it while it calls.
pub(super) struct Desk {
    /// Where it writes down what it calls.
    pub(super) slot: Occupied,
    /// For the one letter that can be sent from a signal handler.
    blank: Option<Blank<Letter>>,
}

/// What belongs to a call.
pub(super) struct Belongings<'a> {
    pub(super) desk: &'a mut Desk,
    pub(super) loop_index: usize,
    /// By which the loop can be taken over, if this thread leads it.
    pub(super) order: Option<Order>,
    pub(super) id: Option<SlotId>,
    /// None when it has gone back before the end of the call.
    pub(super) connection: Option<Connection>,
    pub(super) permits: Permits,
}

/// What is left of a call that crashed.
pub(super) struct Crash {
    pub(super) fault: Fault,
    pub(super) id: Option<SlotId>,
    pub(super) connection: Option<Connection>,
    slot: &'static Slot,
    /// Dropping them lets others in.
    _permits: Permits,
}

/// A crash, for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Incident {
    /// The module's name.
    pub module: String,
    /// The build's number.
    pub generation: u64,
    /// What has happened, such as `SIGSEGV`.
    pub what: String,
    /// The file and the offset of the code in which it happened; none if the host read what the module had given.
    pub place: Option<(PathBuf, u64)>,
    /// Whether it happened there, or in something that was called from there.
    pub is_exact: bool,
    /// `GET /path`, or `in its save`; empty if it is not known.
    pub request: String,
    /// How often the build's applications have been called in this process, about.
    pub calls: u64,
    /// For how long it has been loaded there.
    pub age: Duration,
    /// The time limit that the call had exceeded, if it did not crash.
    pub limit: Option<Limit>,
}

impl Desk {
    /// For the thread that has this place on the roster.
    pub(super) fn new(place: usize) -> Desk {
        Desk { slot: Occupied::new(place), blank: Some(Blank::default()) }
    }
}

impl Belongings<'_> {
    /// Leaves all of it to the loop. It neither allocates nor frees: it may run in a signal handler.
    pub(super) fn leave(self, shared: &Shared, fault: Fault) {
        let Belongings { desk, loop_index, order: _, id, connection, permits } = self;
        let crash = Crash { fault, id, connection, slot: desk.slot.get(), _permits: permits };
        if let Some(blank) = desk.blank.take() {
            shared.post_on(loop_index, blank, Letter::Crashed(crash));
        }
    }
}

impl Crash {
    /// What is told of it. It reads the memory map of the process.
    pub(super) fn incident(&self) -> Incident {
        Incident::of(&self.fault, self.slot.request())
    }
}

impl Incident {
    /// What is told of a fault, and at which request. It reads the memory map of the process.
    pub fn of(fault: &Fault, request: String) -> Incident {
        let place = fault.place();
        let limit = match fault.kind {
            Kind::Overdue(limit) => Some(limit),
            _ => None,
        };
        Incident {
            what: Told(fault.kind).to_string(),
            is_exact: place.as_ref().is_some_and(|(_, found)| *found == Found::Exactly),
            place: place.map(|(place, _)| (place.file, place.offset)),
            limit,
            ..Incident::in_code_of(fault.suspect, request)
        }
    }

    /// What is told of a function of a module itself that does not return.
    pub fn of_hang(suspect: &Suspect, function: &str) -> Incident {
        Incident { what: "a hang".to_owned(), ..Incident::in_code_of(suspect, format!("in its {function}")) }
    }

    fn in_code_of(suspect: &Suspect, request: String) -> Incident {
        Incident {
            module: suspect.module.clone(),
            generation: suspect.generation,
            what: String::new(),
            place: None,
            is_exact: false,
            request,
            calls: suspect.record().calls(),
            age: suspect.since.elapsed(),
            limit: None,
        }
    }
}

impl Incident {
    /// Of a call that is overdue, and whose thread does not let itself be interrupted.
    pub(super) fn of_stuck(slot: &Slot) -> Incident {
        let (module, generation) = recorder::build_of(slot);
        Incident {
            module,
            generation,
            what: "a thread that cannot be interrupted".to_owned(),
            place: None,
            is_exact: false,
            request: String::new(),
            calls: 0,
            age: Duration::ZERO,
            limit: Some(Limit::Handler),
        }
    }
}

struct Told(Kind);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Signal(signal) => match signal_hook::low_level::signal_name(signal) {
                Some(name) => f.write_str(name),
                None => write!(f, "signal {signal}"),
            },
            Kind::Exit(status) => write!(f, "a call of exit({status})"),
            Kind::ThreadExit => f.write_str("a call of pthread_exit"),
            Kind::Overdue(Limit::Handler) => f.write_str("no progress within --timeout-handler"),
            Kind::Overdue(Limit::Processor) => f.write_str("more time on a processor than --timeout-cpu"),
        }
    }
}
