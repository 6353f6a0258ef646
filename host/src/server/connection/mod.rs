//! One connection: it reads a head, receives its content, has it answered, sends the answer, and begins anew.
//!
//! What lasts is small, and stays in the loop's slot: the [`Line`]. What a request and its response take besides is a
//! [`Workspace`], which goes back to the loop's pool between requests, so that an idle connection costs next to nothing
//! and a busy one finds its buffers warm. [`Connection::step`] goes on as far as it can without waiting and without
//! running a module's code, and says what it needs next.

mod answering;
mod receiving;
mod sending;
mod uploading;

use super::call::Call;
use super::handover::{self, Handover};
use super::output::Output;
use super::patience::{Patience, Wait};
use super::storing::{Storage, Uploading};
use super::{Settings, Shared};
use crate::config::Timeouts;
use crate::http::Head;
use crate::http::content::Decoder;
use crate::http::encode::{self, Signature};
use crate::request::Request;
use crate::response::Response;
use crate::route::{Place, Route, Ticket};
use crate::serial::{Permit, Serial, Waiter};
use crate::sys::socket::{self, Address, Moved};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A connection with what it works on. Both by pointer: it moves into each call and out again.
pub(super) struct Connection {
    pub(super) line: Box<Line>,
    pub(super) space: Box<Workspace>,
}

/// What lasts as long as the connection.
pub(super) struct Line {
    pub(super) socket: OwnedFd,
    pub(super) peer: Address,
    pub(super) local: Arc<Address>,
    /// What it waits for, and until when.
    pub(super) patience: Patience,
}

/// What a request and its response take.
#[derive(Default)]
pub(super) struct Workspace {
    /// What has been received; what comes before `taken` has been understood.
    input: Vec<u8>,
    taken: usize,
    /// Kept for its buffers, too.
    pub(super) request: Option<Box<Request>>,
    /// Where the path of the request leads, if it leads to a handler.
    place: Option<Place>,
    decoder: Option<Decoder>,
    /// Content in `input` that has been decoded for a handler that streams it, but not been read by it.
    run: Range<usize>,
    /// The request could not be understood to its end: where the next one begins is unknown.
    rejected: bool,
    /// The client waits for `100 Continue` before it sends the content.
    continue_due: bool,
    /// A handler has read from the socket: what is known of its readiness is out of date.
    pub(super) read_in_call: bool,
    pub(super) traits: Traits,
    stage: Stage,
    pub(super) output: Output,
    doors: Doors,
    /// The response that a call has come to.
    pub(super) answer: Option<Response>,
}

/// What encoding a response must know of its request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traits {
    head_request: bool,
    minor: u8,
    keep_alive: bool,
    /// The client has said that it sends no other request.
    last: bool,
    /// It takes pages: known here only if the request itself is gone, with a call that crashed.
    takes_pages: bool,
}

#[derive(Default)]
enum Stage {
    /// Between requests, or within a head.
    #[default]
    Head,
    /// Within the content of a request.
    Content(Route),
    /// The same, for an upload.
    Uploading(Uploading),
    /// The request is complete, and waits for its turn to be answered.
    Queued(Ticket),
    /// A call of its module is under way or has come back.
    Called,
    /// The response is being made or sent.
    Responding,
    /// The last response has been sent; the client may still be sending (RFC 9112 §9.6).
    Lingering,
    /// There is nothing more to do for it.
    Over,
}

/// The doors that a request has to pass before its call.
#[derive(Default)]
struct Doors {
    /// Of an earlier door, while it waits at a later one.
    held: Option<Permit>,
    /// That it has waited for.
    arrived: Option<Permit>,
    /// Where it has left a note, until its turn comes.
    noted: Option<Arc<Serial>>,
}

/// What a connection needs next.
pub(super) enum Step {
    /// An event, or its deadline.
    Wait(Wait),
    /// Another request, some time: it has no use for its workspace until then.
    Rest,
    /// Another turn, after others had theirs.
    Yield,
    /// A call that runs a module's code and owns the connection meanwhile.
    Call(Call),
    /// What it has gathered of an upload to be stored, by a thread that owns it meanwhile.
    Store,
    /// To be passed to the worker that replaces this one.
    HandOver,
    /// To be closed.
    Close,
}

/// What the loop tells its connections.
pub(super) struct Situation<'a> {
    pub(super) settings: &'a Settings,
    /// The door for calls that keep a processor busy.
    pub(super) processors: &'a Arc<Serial>,
    /// The threads that store uploads.
    pub(super) storage: &'a Storage,
    pub(super) mode: Mode,
    /// `Date` and `Server`, as they are now.
    pub(super) signature: &'a Signature,
    /// The client has sent its last byte.
    pub(super) ended: bool,
    /// The client is gone in both directions.
    pub(super) hangup: bool,
    /// Whether reading may give something.
    pub(super) readable: &'a mut bool,
    /// Makes a note for a door.
    pub(super) waiter: &'a dyn Fn() -> Waiter,
}

/// What the loop is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Running,
    /// Connections go to the worker that replaces this one; no request begins here.
    Draining,
    /// What has been received is answered; then connections are closed.
    Stopping,
}

impl Connection {
    /// Goes on as far as possible.
    pub(super) fn step(&mut self, situation: &mut Situation<'_>) -> Step {
        for _ in 0..STAGES_PER_TURN {
            if let Some(step) = self.advance(situation) {
                return step;
            }
        }
        Step::Yield
    }

    /// One stage further; `None`: there may be more to do.
    fn advance(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if let Some(response) = self.space.answer.take() {
            self.respond(response, situation);
        }
        match &self.space.stage {
            Stage::Head => self.read_head(situation),
            Stage::Content(_) => self.receive_content(situation),
            Stage::Uploading(_) => self.receive_upload(situation),
            Stage::Queued(_) => self.take_turn(situation),
            Stage::Called => Some(Step::Wait(Wait::Turn)),
            Stage::Over => Some(Step::Close),
            Stage::Responding => self.send(situation),
            Stage::Lingering => self.linger(),
        }
    }

    /// Waits for this from now on; `now_ms` is the loop's time.
    pub(super) fn wait_for(&mut self, wait: Wait, now_ms: u64, settings: &Settings) {
        let progressed = std::mem::take(&mut self.space.output.progressed);
        let Line { patience, socket, .. } = &mut *self.line;
        patience.wait_for(wait, now_ms, &settings.config.timeouts, socket.as_fd(), progressed);
        if matches!(wait, Wait::Head | Wait::Content) {
            self.space.settle();
        }
    }

    /// Its deadline has passed: it has to end, with an answer where one is due.
    pub(super) fn expire(&mut self, situation: &Situation<'_>) -> Step {
        let reason = match self.line.patience.waiting() {
            Wait::Head => "the request's head did not arrive in time",
            Wait::Content => "the request's content did not arrive in time",
            Wait::Write => {
                if self.line.patience.is_slow_but_steady(self.line.socket.as_fd()) {
                    self.line.patience.renew();
                    return Step::Wait(Wait::Write);
                }
                self.space.output.give_up();
                self.space.stage = Stage::Responding;
                return Step::Yield;
            }
            Wait::First | Wait::Idle | Wait::Linger | Wait::Turn => {
                self.space.stage = Stage::Over;
                return Step::Yield;
            }
        };
        self.reject(crate::http::Reject { status: 408, reason }, situation);
        Step::Yield
    }

    /// After the last response: what the client still sends is read and dropped.
    fn linger(&mut self) -> Option<Step> {
        self.space.input.clear();
        match socket::receive(self.line.socket.as_fd(), &mut self.space.input, READ_BYTES) {
            Moved::Bytes(_) => {
                self.line.patience.renew();
                None
            }
            Moved::Blocked => Some(Step::Wait(Wait::Linger)),
            Moved::End => Some(Step::Close),
        }
    }

    /// Everything that another worker needs to go on with it.
    pub(super) fn hand_over(self) -> std::io::Result<Handover> {
        let Connection { line, space } = self;
        let Line { socket, peer, local, .. } = *line;
        let rest = &space.input[space.taken..];
        let (receiving, upload) = match space.stage {
            Stage::Content(_) | Stage::Queued(_) => (true, None),
            Stage::Uploading(uploading) => (true, Some(uploading)),
            _ => (false, None),
        };
        let request = space.request.filter(|_| receiving);
        let content = request.as_deref().zip(space.decoder);
        handover::pack(socket, peer, &local, content, upload, space.continue_due, rest)
    }

    /// Goes on with what another worker has received.
    pub(super) fn adopt(handover: Handover, local: Arc<Address>, shared: &Shared) -> Option<Connection> {
        let unpacked = handover::unpack(handover, Arc::clone(&local))?;
        let mut line = Line::new(unpacked.socket, unpacked.peer, local);
        line.patience.rest();
        let mut space = Box::new(Workspace { input: unpacked.rest, ..Workspace::default() });
        if let Some((request, decoder)) = unpacked.content {
            let head = &request.head;
            space.traits = Traits::of(head);
            let route = shared.settings.router.route(head, &request.path, &mut space.place);
            space.stage = uploading::resume(route, unpacked.upload, &shared.storage);
            space.request = Some(request);
            space.decoder = Some(decoder);
            if unpacked.continue_due {
                space.output.interim(encode::continue_100);
            }
        }
        Some(Connection { line, space })
    }
}

impl Line {
    /// A connection that has just been accepted.
    pub(super) fn new(socket: OwnedFd, peer: Address, local: Arc<Address>) -> Box<Line> {
        Box::new(Line { socket, peer, local, patience: Patience::new(Wait::First) })
    }

    /// Waits for another request, or for the first, and says until when, in the loop's milliseconds.
    pub(super) fn rest(&mut self, now_ms: u64, timeouts: &Timeouts) -> u64 {
        let wait = if self.patience.waiting() == Wait::First { Wait::First } else { Wait::Idle };
        self.patience.wait_for(wait, now_ms, timeouts, self.socket.as_fd(), false);
        self.patience.deadline_ms().unwrap_or(u64::MAX)
    }
}

impl Workspace {
    /// Makes ready for another connection, after one that rests: all of its responses have been sent.
    pub(super) fn rest(&mut self) {
        debug_assert!(matches!(self.stage, Stage::Head) && self.taken == self.input.len() && self.decoder.is_none());
        debug_assert!(self.answer.is_none() && self.run.is_empty() && !self.rejected);
        // It may have left a note at the door of a build that has been replaced since.
        self.doors = Doors::default();
        self.taken = 0;
        self.input.clear();
        if self.input.capacity() > 2 * READ_BYTES {
            self.input.shrink_to(READ_BYTES);
        }
        self.output.rest();
    }

    /// Makes ready for another connection, whatever this one was at.
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.input.shrink_to(READ_BYTES);
        let input = std::mem::take(&mut self.input);
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        *self = Workspace { input, output, request: self.request.take(), ..Workspace::default() };
    }

    /// Gives back what a client who sends slowly has no use for.
    fn settle(&mut self) {
        self.input.drain(..self.taken);
        self.taken = 0;
        self.input.shrink_to_fit();
    }
}

impl Traits {
    fn of(head: &Head) -> Traits {
        let keep_alive = head.keep_alive();
        Traits {
            head_request: head.method() == "HEAD",
            minor: head.minor(),
            keep_alive,
            last: !keep_alive,
            takes_pages: false,
        }
    }

    pub(super) fn context(self, signature: &Signature) -> encode::Context<'_> {
        let Traits { head_request, minor, keep_alive, .. } = self;
        encode::Context { head_request, minor, keep_alive, signature }
    }
}

/// Stages of one connection before others have their turn: about 16 requests.
const STAGES_PER_TURN: usize = 64;

/// Bytes that one read may give.
const READ_BYTES: usize = 16 * 1024;
