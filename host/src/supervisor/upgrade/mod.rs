//! A new executable takes over from this one: the sockets first, and the connections when it serves.
//!
//! 1. USR2: the program is started once more, by the path that this one was started by, with the same arguments, as the
//!    *heir*. The listening sockets come with the first message.
//! 2. It starts as it always would, but opens only what it was not given. Both processes accept connections then.
//! 3. When all its workers serve it says so, and from then on it answers for everything. This process drains its workers,
//!    passes their connections on, and ends with the last.
//!
//! Until step 3 this process serves on, whatever becomes of the heir (`heir`). What the heir sees of it is `predecessor`.

mod heir;
mod predecessor;

pub(super) use heir::Heir;
pub(super) use predecessor::Predecessor;

use crate::config::Bind;
use crate::server::HandoverState;
use crate::supervisor::states::Place;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version of [`ToHeir::Adopt`], which says how a connection travels: a change of [`HandoverState`], or of what goes
/// with it, is a new one. Between two versions no connection is passed on. All else in these messages only grows.
const PROTOCOL: u32 = 2;

/// Tells a process that it is an heir: the number of the process that it takes over from, whose child it is. Its standard
/// input is the channel.
pub(super) const VARIABLE: &str = "HOST_UPGRADE";

/// What the predecessor tells its heir.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHeir {
    /// The first message. With it come the listening sockets, in the order of `listeners`.
    Hello {
        /// The predecessor's [`PROTOCOL`].
        protocol: u32,
        /// What the sockets were opened for.
        listeners: Vec<Bind>,
        /// The last number of each module's builds.
        generations: BTreeMap<String, u64>,
        /// The states that [`ToHeir::State`] will bring.
        #[serde(default)]
        states: BTreeSet<Place>,
    },
    /// The answer to [`FromHeir::Serving`]: the files of Unix sockets are the heir's now.
    TakeOver,
    /// A connection, with its descriptors.
    Adopt(HandoverState),
    /// What is kept of a module's state, with its descriptor, if anything is.
    State {
        /// Whose it is.
        of: Place,
        /// Nobody will change it any more.
        is_final: bool,
    },
}

/// What an heir tells its predecessor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHeir {
    /// The first message, once it has read the other's.
    Hello {
        /// The heir's [`PROTOCOL`].
        protocol: u32,
        /// It knows [`ToHeir::State`].
        #[serde(default)]
        takes_states: bool,
    },
    /// All workers serve.
    Serving,
    /// It was told to stop: what the predecessor still has, that one shall answer itself.
    Stopping,
}
