//! The console: a Unix socket of the supervisor, and the commands that speak to it or read beside it.
//!
//! One request is one line of JSON, and so is its answer; then the connection ends. `listen` has the socket, whose threads
//! only pass requests to the supervisor's loop and wait; `answer` is what the loop does about them. On the other side,
//! `find` knows which server is meant, and `command` has `host status` and `host rollback`, `replay` has `host replay`.

mod answer;
mod command;
mod find;
mod listen;
mod replay;
mod status;

pub use command::{Command, run};
pub use find::Wanted;

pub(super) use listen::start;

use serde::{Deserialize, Serialize};
use status::{Identity, Status};
use std::sync::mpsc;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Which server this is.
    Identity,
    /// How it is.
    Status,
    /// An older build shall answer.
    Rollback {
        /// The module.
        module: String,
        /// Which build; none is the one before that of now.
        generation: Option<u64>,
    },
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To [`Request::Identity`].
    Identity(Identity),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Rollback`], when every worker answers with that build.
    RolledBack {
        /// The module.
        module: String,
        /// The build that answers now.
        generation: u64,
        /// The one that answered before.
        from: Option<u64>,
    },
    /// Why not.
    Error(String),
}

/// Where an answer goes.
pub(crate) type Reply = mpsc::Sender<Answer>;

/// The socket's name in a server's folder.
const SOCKET: &str = "console";

/// A request has a module's name in it, and no more.
const REQUEST_BYTES_MAX: usize = 4096;
