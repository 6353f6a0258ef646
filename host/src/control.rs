//! What the supervisor and its workers say to each other, as JSON over a [`Channel`].

use crate::config::Config;
use crate::handler::Loadable;
use crate::request::Excerpt;
use crate::server::{Handover, HandoverState, Incident};
use crate::sys::channel::{Channel, memory_file, read_memory_file};
use crate::sys::socket::Address;
use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// What a supervisor tells a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The first order. With it come the listening sockets, in the order of `listeners`, and behind them the memory of
    /// the flight recorder, and then the access log, if there is one.
    Start {
        /// The checked configuration.
        config: Box<Config>,
        /// Where the sockets listen.
        listeners: Vec<Address>,
        /// Where content of requests goes that is too large for memory.
        spool: PathBuf,
        /// To how many bytes the worker has to bound its memory itself; none if it is bounded already, or not at all.
        memory_bytes_max: Option<u64>,
    },
    /// Load a private copy of a sound build and let it answer.
    Load(Loadable),
    /// What is kept of the state of a module, which comes along as a descriptor, is for the build that was loaded last; or
    /// there is nothing. A build that has got the state of one before it in the same process has no need of it.
    Restore {
        /// Its name.
        module: String,
    },
    /// A module exists, but has no sound build.
    Announce {
        /// Its name.
        module: String,
    },
    /// A module's files are gone.
    Remove {
        /// Its name.
        module: String,
    },
    /// All modules have been sent: begin to serve.
    Serve,
    /// Take over a connection. Its descriptors come along.
    Adopt(HandoverState),
    /// Write the access log there from now on. Its descriptor comes along.
    OpenAccessLog,
    /// Pass all connections on.
    Drain,
    /// Answer what has been received, and close.
    Stop,
    /// Call what modules want called at the end, and end.
    Exit,
}

/// What a worker tells its supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The answer to [`Order::Start`]: from now on the worker does what it is told.
    Started,
    /// The answer to [`Order::Load`].
    Loaded {
        /// The module's name.
        module: String,
        /// The build's number.
        generation: u64,
        /// Why not; the previous build goes on.
        error: Option<String>,
    },
    /// What has become of a module's state.
    State {
        /// The module's name.
        module: String,
        /// The build's number.
        generation: u64,
        /// What it is now. If it was saved it comes along as a descriptor.
        state: State,
    },
    /// The answer to [`Order::Serve`]: connections are accepted.
    Serving,
    /// The worker cannot serve at all.
    Failed(String),
    /// A request at which a module has crashed, of which [`Report::Crashed`] will tell. The head and the content come in a
    /// memfd, which may get lost; that a module has crashed must not.
    Excerpt {
        /// Which crash of this worker.
        crash: u64,
        /// How many of the bytes are the head's.
        head_bytes: usize,
        /// As [`Excerpt::head_is_whole`].
        head_is_whole: bool,
        /// As [`Excerpt::content_bytes`].
        content_bytes: Option<u64>,
    },
    /// A module has crashed in this worker, which has to be replaced.
    Crashed {
        /// Which crash of this worker; 0 if it was at no request.
        crash: u64,
        /// What has happened.
        incident: Incident,
    },
    /// While draining: a connection for another worker. Its descriptors come along.
    Handover(HandoverState),
    /// After [`Order::Drain`]: no request begins here any more.
    Quiet,
    /// After [`Order::Drain`] or [`Order::Stop`]: the last connection is gone.
    Done,
}

/// What has become of a module's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It was saved while the build serves.
    Saved,
    /// The build is not called any more in that worker. The state was saved if something comes along.
    Settled,
    /// What was kept makes the build crash or hang.
    Unusable,
}

/// Sends one message.
///
/// # Errors
/// The other process is gone.
pub fn send(channel: &Channel, message: &impl Serialize, descriptors: &[OwnedFd]) -> anyhow::Result<()> {
    let message = serde_json::to_vec(message).context("a control message cannot be written as JSON")?;
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    channel.send(&message, &descriptors).context("cannot send a control message")
}

/// Receives the next message; `None` when the other process is gone.
///
/// # Errors
/// The message makes no sense, which only a bug or a lack of descriptors brings about.
pub fn receive<T: DeserializeOwned>(channel: &Channel) -> anyhow::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((message, descriptors)) = channel.receive().context("cannot receive a control message")? else {
        return Ok(None);
    };
    let message = serde_json::from_slice(&message).context("a control message makes no sense")?;
    Ok(Some((message, descriptors)))
}

/// Whether an error of [`receive`] concerns one message only, so that the next one may be well.
pub fn is_lost_message(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
}

impl Excerpt {
    /// The message that carries it; `None` if there is no descriptor to be had.
    pub fn report(&self, crash: u64) -> Option<(Report, Vec<OwnedFd>)> {
        let bytes = memory_file(&[&*self.head, &*self.content].concat()).ok()?;
        let Excerpt { head_is_whole, content_bytes, .. } = *self;
        Some((Report::Excerpt { crash, head_bytes: self.head.len(), head_is_whole, content_bytes }, vec![bytes]))
    }

    /// What such a message carried; `None` if it makes no sense.
    pub fn from_report(report: &Report, descriptors: Vec<OwnedFd>) -> Option<Excerpt> {
        let Report::Excerpt { head_bytes, head_is_whole, content_bytes, .. } = *report else { return None };
        let mut head = read_memory_file(descriptors.into_iter().next()?).ok()?;
        let content = (head_bytes <= head.len()).then(|| head.split_off(head_bytes))?;
        Some(Excerpt { head, head_is_whole, content, content_bytes })
    }
}

/// A connection under way, from a message that carried it.
pub fn handover((state, descriptors): (HandoverState, Vec<OwnedFd>)) -> Handover {
    Handover { state, descriptors }
}
