//! What a loop's leader has to call, with all that it owns.

use super::call::{Call, Epilogue, Outcome};
use super::connection::Connection;
use super::slots::SlotId;
use crate::pace::{Pace, Way};
use crate::sys::crash::Suspect;

/// A call with all that it owns.
pub(super) enum Task {
    Connection(SlotId, Connection, Call),
    Epilogue(Box<Epilogue>),
}

impl Task {
    /// How this kind of calls has gone.
    pub(super) fn pace(&self) -> Option<&'static Pace> {
        match self {
            Task::Connection(_, connection, call) => call.pace(connection),
            Task::Epilogue(epilogue) => Some(epilogue.pace()),
        }
    }

    /// Whose code it calls; `None` if there is nothing to call.
    pub(super) fn suspect(&self) -> Option<&'static Suspect> {
        match self {
            Task::Connection(_, connection, call) => call.suspect(connection),
            Task::Epilogue(epilogue) => Some(epilogue.suspect()),
        }
    }

    /// What it comes to if nothing is called.
    pub(super) fn skip(self) -> (Option<SlotId>, Outcome) {
        match self {
            Task::Connection(id, connection, _) => (Some(id), Outcome { connection: Some(connection), epilogue: None }),
            Task::Epilogue(_) => (None, Outcome { connection: None, epilogue: None }),
        }
    }

    /// How it is to be called.
    pub(super) fn way(&self) -> Way {
        match self {
            Task::Connection(_, _, call) => call.way,
            Task::Epilogue(epilogue) => epilogue.pace().way(),
        }
    }
}
