//! One connection: it reads a head, receives its content, has it answered, sends the answer, and begins anew.
//!
//! `step` goes on as far as it can without waiting and without running a module's code, and says what it needs next.

use super::Settings;
use super::call::Work;
use super::handover::{self, Handover};
use super::output::{Flow, Output};
use super::patience::{Patience, Wait};
use crate::http::content::Decoder;
use crate::http::{Framing, Head, HeadLimits, Reject, encode};
use crate::log;
use crate::request::Request;
use crate::response::Response;
use crate::route::{self, Application, Route, Ticket};
use crate::serial::{Permit, Serial, Waiter};
use crate::sys::socket::{self, Address, Moved};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A connection and everything that is known of it.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) peer: Address,
    pub(super) local: Arc<Address>,
    /// What has been received; what comes before `taken` has been understood.
    input: Vec<u8>,
    taken: usize,
    pub(super) request: Option<Box<Request>>,
    decoder: Option<Decoder>,
    /// Content in `input` that has been decoded for a handler that streams it, but not been read by it.
    run: Range<usize>,
    /// The request could not be understood to its end: where the next one begins is unknown.
    rejected: bool,
    /// The client waits for `100 Continue` before it sends the content.
    continue_due: bool,
    pub(super) traits: Traits,
    stage: Stage,
    pub(super) output: Output,
    permit: Option<Permit>,
    /// The door at which it has left a note, until its turn comes.
    noted: Option<Arc<Serial>>,
    /// The response that a call has come to.
    pub(super) answer: Option<Response>,
    /// What it waits for, and until when.
    pub(super) patience: Patience,
}

/// What encoding a response must know of its request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traits {
    pub(super) head_request: bool,
    pub(super) minor: u8,
    pub(super) keep_alive: bool,
    /// The client has said that it sends no other request.
    last: bool,
}

enum Stage {
    /// Between requests, or within a head.
    Head,
    /// Within the content of a request.
    Content(Route),
    /// The request is complete, and its module is called one at a time by others.
    Queued(Application, Ticket),
    /// A call of its module is under way or has come back.
    Called,
    /// The response is being made or sent.
    Responding,
    /// The last response has been sent; the client may still be sending (RFC 9112 §9.6).
    Lingering,
    /// There is nothing more to do for it.
    Over,
}

/// What a connection needs next.
pub(super) enum Step {
    /// An event, or its deadline.
    Wait(Wait),
    /// Another turn, after others had theirs.
    Yield,
    /// A call that runs a module's code and owns the connection meanwhile.
    Call(Work),
    /// To be passed to the worker that replaces this one.
    HandOver,
    /// To be closed.
    Close,
}

/// What the loop tells its connections.
pub(super) struct Situation<'a> {
    pub(super) settings: &'a Settings,
    pub(super) mode: Mode,
    /// The time as the `Date` field has it.
    pub(super) date: &'a str,
    /// The client has sent its last byte.
    pub(super) ended: bool,
    /// The client is gone in both directions.
    pub(super) hangup: bool,
    /// Whether reading may give something.
    pub(super) readable: &'a mut bool,
    /// Makes a note for the door of a module that is called one at a time.
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
    /// A connection that has just been accepted.
    pub(super) fn new(socket: OwnedFd, peer: Address, local: Arc<Address>) -> Connection {
        Connection {
            socket,
            peer,
            local,
            input: Vec::new(),
            taken: 0,
            request: None,
            decoder: None,
            run: 0..0,
            rejected: false,
            continue_due: false,
            traits: Traits::default(),
            stage: Stage::Head,
            output: Output::default(),
            permit: None,
            noted: None,
            answer: None,
            patience: Patience::new(Wait::First),
        }
    }

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
        if let Some(response) = self.answer.take() {
            self.respond(response, situation);
            return None;
        }
        match &mut self.stage {
            Stage::Head => self.read_head(situation),
            Stage::Content(_) => self.receive_content(situation),
            Stage::Queued(..) => self.take_turn(situation),
            Stage::Called => Some(Step::Wait(Wait::Turn)),
            Stage::Over => Some(Step::Close),
            Stage::Responding => self.send(situation),
            Stage::Lingering => {
                self.input.clear();
                match socket::receive(self.socket.as_fd(), &mut self.input, READ_BYTES) {
                    Moved::Bytes(_) => {
                        self.patience.renew();
                        None
                    }
                    Moved::Blocked => Some(Step::Wait(Wait::Linger)),
                    Moved::End => Some(Step::Close),
                }
            }
        }
    }

    fn read_head(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if situation.mode == Mode::Draining {
            return self.flush(situation).or(Some(Step::HandOver));
        }
        if self.taken < self.input.len() {
            let limits = HeadLimits { head_bytes_max: situation.settings.config.limits.head_bytes_max };
            let (peer, local) = (&self.peer, &self.local);
            let request = self.request.get_or_insert_with(|| Box::new(Request::new(peer.clone(), Arc::clone(local))));
            self.traits = Traits::default();
            match request.head.parse(&self.input[self.taken..], limits) {
                Ok(Some(length)) => {
                    self.taken += length;
                    return self.begin_request(situation);
                }
                Ok(None) => {}
                Err(reject) => return self.reject(reject, situation),
            }
        }
        // The answers so far go before the wait for the next request.
        if self.output.pending() {
            return self.flush(situation);
        }
        if !*situation.readable {
            let partial = self.taken < self.input.len();
            return Some(match situation.mode {
                Mode::Stopping if !partial => Step::Close,
                _ if partial => Step::Wait(Wait::Head),
                _ => {
                    self.rest();
                    Step::Wait(if self.patience.waiting() == Wait::First { Wait::First } else { Wait::Idle })
                }
            });
        }
        self.receive(situation)
    }

    fn begin_request(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        let Some(request) = &mut self.request else { return Some(Step::Close) };
        let head = &request.head;
        self.traits = Traits::of(head);
        if situation.settings.config.trace {
            log::trace(format_args!("< {} {} HTTP/1.{}", head.method(), head.target(), head.minor()));
        }
        if head.path() != "*"
            && let Err(reject) = request.path.parse_into(head.path())
        {
            return self.reject(reject, situation);
        }
        let framing = head.framing();
        let decoder = match Decoder::new(framing, situation.settings.config.limits.body_bytes_max) {
            Ok(decoder) => decoder,
            Err(reject) => return self.reject(reject, situation),
        };
        let route = situation.settings.router.route(head, &request.path);
        let expects_continue = head.expects_continue() && head.minor() > 0 && !matches!(framing, Framing::None);
        self.continue_due = expects_continue && self.taken == self.input.len();
        self.decoder = Some(decoder);
        match route {
            Route::Answer(response) if self.continue_due => {
                // RFC 9110 §10.1.1: a final status instead of 100; whether the content comes all the same is unknown.
                self.traits.keep_alive = false;
                self.respond(response, situation);
                None
            }
            Route::Handler(application) if application.streams_input() => self.enter(application, situation),
            route => {
                if self.continue_due {
                    self.output.interim(encode::continue_100);
                    self.continue_due = false;
                }
                self.stage = Stage::Content(route);
                None
            }
        }
    }

    fn receive_content(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if situation.mode == Mode::Draining {
            return self.flush(situation).or(Some(Step::HandOver));
        }
        let (Some(request), Some(decoder)) = (&mut self.request, &mut self.decoder) else { return Some(Step::Close) };
        let keep = matches!(self.stage, Stage::Content(Route::Handler(_)));
        while !decoder.is_done() {
            let rest = &self.input[self.taken..];
            let (consumed, content) = match decoder.decode(rest) {
                Ok(decoded) => decoded,
                Err(reject) => return self.reject(reject, situation),
            };
            if consumed == 0 {
                if self.output.pending() {
                    return self.flush(situation);
                }
                if !*situation.readable {
                    return Some(Step::Wait(Wait::Content));
                }
                // Patience is measured from one piece of content to the next.
                self.patience.renew();
                return self.receive(situation);
            }
            if keep && let Err(error) = request.input.push(&rest[content], &situation.settings.spool) {
                tracing::error!(
                    "cannot keep the content of a request in {}: {error}",
                    situation.settings.spool.display()
                );
                let reason = "the server cannot keep the request's content now";
                return self.reject(Reject { status: 507, reason }, situation);
            }
            self.taken += consumed;
        }
        request.input.complete = true;
        match std::mem::replace(&mut self.stage, Stage::Called) {
            Stage::Content(Route::Answer(response)) => self.respond(response, situation),
            Stage::Content(Route::Site(target)) => {
                let response = situation.settings.router.reply(target, &request.head);
                self.respond(response, situation);
            }
            Stage::Content(Route::Handler(application)) => return self.enter(application, situation),
            _ => return Some(Step::Close),
        }
        None
    }

    /// Comes to the door of the application's module.
    fn enter(&mut self, application: Application, situation: &mut Situation<'_>) -> Option<Step> {
        let Some(ticket) = application.ticket() else {
            self.respond(route::no_sound_build(application.module.name()), situation);
            return None;
        };
        let permit = match ticket.serial().cloned() {
            None => None,
            Some(serial) => match self.permit_for(&serial, situation) {
                Some(permit) => Some(permit),
                None => {
                    self.stage = Stage::Queued(application, ticket);
                    return Some(Step::Wait(Wait::Turn));
                }
            },
        };
        self.stage = Stage::Called;
        Some(Step::Call(Work::Application { application, ticket, permit }))
    }

    fn take_turn(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if situation.mode == Mode::Draining {
            return self.flush(situation).or(Some(Step::HandOver));
        }
        if situation.hangup {
            return Some(Step::Close);
        }
        let Stage::Queued(application, ticket) = &self.stage else { return None };
        let same = application.ticket().is_some_and(|now| now.is_same(ticket));
        if same && self.permit.is_none() {
            return Some(Step::Wait(Wait::Turn));
        }
        if !same {
            // A new build has taken over: what waited for the old one's door goes to the new one's.
            self.permit = None;
        }
        match std::mem::replace(&mut self.stage, Stage::Called) {
            Stage::Queued(application, _) => self.enter(application, situation),
            _ => None,
        }
    }

    fn permit_for(&mut self, serial: &Arc<Serial>, situation: &Situation<'_>) -> Option<Permit> {
        match self.permit.take() {
            Some(permit) if permit.is_for(serial) => Some(permit),
            // It may be asked again before its turn: one note is enough, and a second would be a turn that nobody uses.
            _ if self.noted.as_ref().is_some_and(|noted| Arc::ptr_eq(noted, serial)) => None,
            _ => {
                let permit = serial.enter(situation.waiter);
                self.noted = permit.is_none().then(|| Arc::clone(serial));
                permit
            }
        }
    }

    /// Takes the permit that it has waited for; one that it does not wait for any more is dropped, for the next one.
    pub(super) fn admit(&mut self, permit: Permit) {
        if self.noted.take_if(|noted| permit.is_for(noted)).is_some() {
            self.permit = Some(permit);
        }
    }

    /// Begins the response.
    fn respond(&mut self, response: Response, situation: &Situation<'_>) {
        if situation.settings.config.trace {
            log::trace(format_args!("> HTTP/1.1 {} {}", response.status.code, response.status.reason));
        }
        let incomplete = self.decoder.as_ref().is_some_and(|decoder| !decoder.is_done());
        // What has arrived behind this request is answered too.
        let is_last = situation.mode == Mode::Stopping && self.taken == self.input.len();
        self.traits.keep_alive &= !incomplete && !is_last;
        let context = self.traits.context(situation.settings, situation.date);
        self.output.respond(response, &context);
        self.stage = Stage::Responding;
    }

    /// Answers a request that cannot be answered otherwise, and closes.
    fn reject(&mut self, reject: Reject, situation: &Situation<'_>) -> Option<Step> {
        self.traits.keep_alive = false;
        self.rejected = true;
        self.respond(Response::error(reject.status, reject.reason), situation);
        None
    }

    fn send(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        if self.output.failed {
            return Some(self.abort(situation));
        }
        let more_to_make = self.output.stream.is_some();
        let pipelined = self.goes_on() && self.taken < self.input.len() && !self.output.is_large();
        if more_to_make || !pipelined {
            let waiting = self.flush(situation);
            if waiting.is_some() {
                return waiting;
            }
        }
        if more_to_make {
            return Some(self.call_stream(self.output.wants_content(), situation));
        }
        self.finish_response()
    }

    fn finish_response(&mut self) -> Option<Step> {
        let (goes_on, received) = (self.goes_on(), self.is_received());
        self.decoder = None;
        if let Some(request) = &mut self.request {
            // Content that lies in a file takes room on the disk until it is dropped.
            request.input.clear();
        }
        self.run = 0..0;
        if !goes_on {
            if received && self.traits.last && self.taken == self.input.len() {
                return Some(Step::Close);
            }
            // A close while the client still sends would make the kernel reset the connection, and the client might
            // lose the response (RFC 9112 §9.6).
            socket::finish_sending(self.socket.as_fd());
            self.taken = 0;
            self.stage = Stage::Lingering;
            return None;
        }
        self.output.next_response();
        self.patience.rest();
        self.stage = Stage::Head;
        None
    }

    /// Whether another request may follow this response.
    fn goes_on(&self) -> bool {
        self.output.keep_alive && self.is_received()
    }

    /// Whether the request has been understood to its end.
    fn is_received(&self) -> bool {
        self.decoder.as_ref().is_none_or(Decoder::is_done) && !self.rejected
    }

    /// Calls the stream's `next`, or its `close`, when its module lets it.
    fn call_stream(&mut self, next: bool, situation: &Situation<'_>) -> Step {
        let serial = self.output.stream.as_ref().and_then(|stream| stream.serial().cloned());
        let permit = match serial {
            None => None,
            Some(serial) => match self.permit_for(&serial, situation) {
                Some(permit) => Some(permit),
                None => return Step::Wait(Wait::Turn),
            },
        };
        Step::Call(if next { Work::Next { permit } } else { Work::Close { permit } })
    }

    /// Ends in a way that the client can tell from a complete response. A stream is closed first, by its module.
    pub(super) fn abort(&mut self, situation: &Situation<'_>) -> Step {
        self.output.give_up();
        if self.output.stream.is_some() {
            self.stage = Stage::Responding;
            return self.call_stream(false, situation);
        }
        socket::reset_on_close(self.socket.as_fd());
        Step::Close
    }

    /// Sends what is there; `None` when all of it is sent.
    fn flush(&mut self, situation: &Situation<'_>) -> Option<Step> {
        match self.output.flush(self.socket.as_fd()) {
            Flow::Done => None,
            Flow::Blocked => Some(Step::Wait(Wait::Write)),
            Flow::Yield => Some(Step::Yield),
            Flow::Broken => Some(self.abort(situation)),
        }
    }

    /// Receives more.
    fn receive(&mut self, situation: &mut Situation<'_>) -> Option<Step> {
        self.input.drain(..self.taken);
        self.taken = 0;
        match socket::receive(self.socket.as_fd(), &mut self.input, READ_BYTES) {
            Moved::Bytes(count) => {
                // A short read has emptied the socket: the next byte is a new edge. The end is not, if its edge came
                // with these bytes.
                *situation.readable = count == READ_BYTES || situation.ended;
                None
            }
            Moved::Blocked => {
                *situation.readable = false;
                None
            }
            Moved::End => Some(Step::Close),
        }
    }

    /// Waits for this from now on; `now_ms` is the loop's time.
    pub(super) fn wait_for(&mut self, wait: Wait, now_ms: u64, settings: &Settings) {
        let progressed = std::mem::take(&mut self.output.progressed);
        self.patience.wait_for(wait, now_ms, &settings.config.timeouts, self.socket.as_fd(), progressed);
    }

    /// Its deadline has passed: it has to end, with an answer where one is due.
    pub(super) fn expire(&mut self, situation: &Situation<'_>) -> Step {
        let reason = match self.patience.waiting() {
            Wait::Head => "the request's head did not arrive in time",
            Wait::Content => "the request's content did not arrive in time",
            Wait::Write => {
                if self.patience.is_slow_but_steady(self.socket.as_fd()) {
                    self.patience.renew();
                    return Step::Wait(Wait::Write);
                }
                self.output.give_up();
                self.stage = Stage::Responding;
                return Step::Yield;
            }
            Wait::First | Wait::Idle | Wait::Linger | Wait::Turn => {
                self.stage = Stage::Over;
                return Step::Yield;
            }
        };
        self.reject(Reject { status: 408, reason }, situation);
        Step::Yield
    }

    /// Keeps no buffer between requests.
    fn rest(&mut self) {
        if self.input.is_empty() || self.taken == self.input.len() {
            self.taken = 0;
            self.input = Vec::new();
            self.output.shrink();
        }
    }

    /// Reads content as it arrives, for a handler that streams it; 0 at the end, `None` when more has to arrive first.
    pub(super) fn read_stream(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Reject> {
        let Some(decoder) = &mut self.decoder else { return Ok(Some(0)) };
        while self.run.is_empty() {
            if decoder.is_done() {
                return Ok(Some(0));
            }
            let (consumed, content) = decoder.decode(&self.input[self.taken..])?;
            if consumed == 0 {
                return Ok(None);
            }
            self.run = self.taken + content.start..self.taken + content.end;
            self.taken += consumed;
        }
        let count = self.run.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.input[self.run.start..self.run.start + count]);
        self.run.start += count;
        Ok(Some(count))
    }

    /// Whether `100 Continue` is to be sent before the content is read; asks once.
    pub(super) fn take_continue(&mut self) -> bool {
        std::mem::take(&mut self.continue_due)
    }

    /// Receives more for [`read_stream`](Self::read_stream).
    pub(super) fn receive_more(&mut self) -> Moved {
        debug_assert!(self.run.is_empty(), "what has been decoded is read first");
        self.input.drain(..self.taken);
        self.taken = 0;
        socket::receive(self.socket.as_fd(), &mut self.input, READ_BYTES)
    }

    /// Everything that another worker needs to go on with it.
    pub(super) fn hand_over(self) -> std::io::Result<Handover> {
        let receiving = matches!(self.stage, Stage::Content(_) | Stage::Queued(..));
        let request = self.request.filter(|_| receiving);
        let rest = &self.input[self.taken..];
        let content = request.as_deref().zip(self.decoder);
        handover::pack(self.socket, self.peer, &self.local, content, self.continue_due, rest)
    }

    /// Goes on with what another worker has received.
    pub(super) fn adopt(handover: Handover, local: Arc<Address>, settings: &Settings) -> Option<Connection> {
        let unpacked = handover::unpack(handover, Arc::clone(&local))?;
        let mut connection = Connection::new(unpacked.socket, unpacked.peer, local);
        connection.patience.rest();
        connection.input = unpacked.rest;
        if let Some((request, decoder)) = unpacked.content {
            let head = &request.head;
            connection.traits = Traits::of(head);
            connection.stage = Stage::Content(settings.router.route(head, &request.path));
            connection.request = Some(request);
            connection.decoder = Some(decoder);
            if unpacked.continue_due {
                connection.output.interim(encode::continue_100);
            }
        }
        Some(connection)
    }
}

impl Traits {
    fn of(head: &Head) -> Traits {
        let keep_alive = head.keep_alive();
        Traits { head_request: head.method() == "HEAD", minor: head.minor(), keep_alive, last: !keep_alive }
    }

    pub(super) fn context<'a>(self, settings: &'a Settings, date: &'a str) -> encode::Context<'a> {
        encode::Context {
            head_request: self.head_request,
            minor: self.minor,
            keep_alive: self.keep_alive,
            date,
            server: &settings.config.server_header,
        }
    }
}

/// Stages of one connection before others have their turn: about 16 requests.
const STAGES_PER_TURN: usize = 64;

/// Bytes that one read may give.
const READ_BYTES: usize = 16 * 1024;
