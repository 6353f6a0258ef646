//! What a call leaves behind when a module's code crashes in it, and what its loop makes of that.
//!
//! The thread is gone with all that is on its stack. What must not go with it stands in the call's [`Belongings`], and
//! reaches the loop as a letter; the loop itself is taken over by another thread, as from a call that takes long.

use super::call::Permits;
use super::connection::Connection;
use super::slots::SlotId;
use super::{Letter, Shared};
use crate::sys::crash::{Fault, Found, Kind, Suspect};
use crate::sys::inbox::Blank;
use crate::sys::roster::Order;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a thread has beside it while it calls.
pub(super) struct Desk {
    /// For the one letter that can be sent from a signal handler.
    blank: Option<Blank<Letter>>,
    /// What the call answers: `GET /path`. Empty if it makes more of a response.
    request: String,
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
    request: String,
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
    /// `GET /path`, or `in its save`; empty if the call was to make more of a response that had begun.
    pub request: String,
    /// How often the build's applications have been called in this process, about.
    pub calls: u64,
    /// For how long it has been loaded there.
    pub age: Duration,
}

impl Desk {
    pub(super) fn new() -> Desk {
        Desk { blank: Some(Blank::default()), request: String::with_capacity(REQUEST_BYTES_MAX) }
    }

    /// Notes what the next call is for; of a long target only the beginning.
    pub(super) fn note(&mut self, method: &str, target: &str) {
        self.request.clear();
        if method.is_empty() {
            return;
        }
        let room = REQUEST_BYTES_MAX - METHOD_BYTES_MAX - 1;
        self.request.push_str(&method[..method.len().min(METHOD_BYTES_MAX)]);
        self.request.push(' ');
        // Targets are ASCII.
        self.request.push_str(&target[..target.len().min(room)]);
    }
}

impl Belongings<'_> {
    /// Leaves all of it to the loop. It neither allocates nor frees: it may run in a signal handler.
    pub(super) fn leave(self, shared: &Shared, fault: Fault) {
        let Belongings { desk, loop_index, order: _, id, connection, permits } = self;
        let request = std::mem::take(&mut desk.request);
        let crash = Crash { fault, id, connection, request, _permits: permits };
        if let Some(blank) = desk.blank.take() {
            shared.post_on(loop_index, blank, Letter::Crashed(crash));
        }
    }
}

impl Crash {
    /// What is told of it. It reads the memory map of the process.
    pub(super) fn incident(&mut self) -> Incident {
        Incident::of(&self.fault, std::mem::take(&mut self.request))
    }
}

impl Incident {
    /// What is told of a fault, and at which request. It reads the memory map of the process.
    pub fn of(fault: &Fault, request: String) -> Incident {
        let place = fault.place();
        Incident {
            what: Told(fault.kind).to_string(),
            is_exact: place.as_ref().is_some_and(|(_, found)| *found == Found::Exactly),
            place: place.map(|(place, _)| (place.file, place.offset)),
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
            calls: suspect.calls(),
            age: suspect.since.elapsed(),
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
        }
    }
}

/// What is told of a request at most.
const REQUEST_BYTES_MAX: usize = 1024;

/// The longest method that the parser takes.
const METHOD_BYTES_MAX: usize = 32;
