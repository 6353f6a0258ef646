//! Calls of an application: environ in, response out.

use super::body::{Content, ModuleBody};
use super::exchange::{Held, State};
use super::generation::{Entry, Generation};
use super::registry::Registry;
use crate::pace::{Pace, Paces};
use crate::request::Request;
use crate::response::{Body, Chunk, Fields, Response, Status, Stream, Wire};
use crate::serial::{Permit, Serial};
use crate::sys::crash::Suspect;
use crate::sys::recorder::Slot;
use std::sync::Arc;

/// The application, of one build, that is to answer a request.
#[derive(Clone)]
pub struct Ticket {
    generation: Arc<Generation>,
    application: usize,
    script_name_bytes: usize,
}

/// The application that is to answer a request when its content has arrived, of whichever build that will be. It keeps no
/// build from being retired meanwhile.
#[derive(Clone, Copy)]
pub struct Reservation {
    module: &'static str,
    symbol: &'static str,
    script_name_bytes: usize,
}

/// What a call came to. The request comes back unless a stream still needs it.
pub struct Answer {
    /// The response.
    pub response: Response,
    /// The request.
    pub request: Option<Box<Request>>,
    /// A body that has given all of its content and is still to be closed, which may take long.
    pub unclosed: Option<Box<dyn Stream>>,
}

/// Why a module cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// Nobody knows it.
    NoModule,
    /// It has no sound build.
    NoBuild,
    /// Its build exports no such application.
    NoApplication,
}

impl Ticket {
    /// For an application of this build, by its index, to which `script_name_bytes` of the decoded path lead.
    pub(super) fn new(generation: Arc<Generation>, application: usize, script_name_bytes: usize) -> Ticket {
        Ticket { generation, application, script_name_bytes }
    }

    /// For a request whose content is still to come.
    pub fn reservation(&self) -> Reservation {
        let symbol = self.generation.application(self.application).symbol;
        let module = &self.generation.suspect.module;
        Reservation { module, symbol, script_name_bytes: self.script_name_bytes }
    }

    /// Whether it is called before the request's content has arrived.
    pub fn streams_input(&self) -> bool {
        self.generation.streams_input()
    }

    /// How its calls have gone.
    pub fn paces(&self) -> &'static Paces {
        self.generation.application(self.application).paces
    }

    /// Whose code it calls.
    pub fn suspect(&self) -> &'static Suspect {
        self.generation.suspect
    }

    /// The door through which calls of the module go one at a time, if they have to.
    pub fn serial(&self) -> Option<&Arc<Serial>> {
        self.generation.serial.as_ref()
    }

    /// Where its requests wait, as long as the build has not got the state of the one before it.
    pub fn gate(&self) -> Option<&Arc<Serial>> {
        self.generation.keeping.as_ref().filter(|keeping| keeping.is_shut()).map(|keeping| keeping.gate())
    }

    /// Whether that is a permit of its gate, open or not.
    pub fn has_waited(&self, permit: &Permit) -> bool {
        self.generation.keeping.as_ref().is_some_and(|keeping| permit.is_for(keeping.gate()))
    }

    /// Whether this is the same build.
    pub fn is_same(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.generation, &other.generation)
    }
}

impl Reservation {
    /// The application of the module's build of this moment.
    ///
    /// # Errors
    /// Why it cannot answer any more.
    pub fn ticket(self, registry: &Registry) -> Result<Ticket, NoTicket> {
        registry.ticket(self.module.as_bytes(), self.symbol, self.script_name_bytes).map(|(ticket, _)| ticket)
    }

    /// The module's name.
    pub fn module(self) -> &'static str {
        self.module
    }
}

/// Calls the application, and its body's `next` until there is something to send. It may block, crash or hang.
pub fn answer(ticket: Ticket, request: Box<Request>, wire: &mut dyn Wire) -> Answer {
    let Entry { function, paces, .. } = *ticket.generation.application(ticket.application);
    let suspect = ticket.suspect();
    let mut held = Held::new(ticket.generation, request, ticket.script_name_bytes);
    let body = held.call_application(function, wire);
    if body.is_null() {
        return finish(held, Ok(Content::Bytes(Vec::new())));
    }
    if let Some(content) = held.take_host_body(body) {
        return finish(held, Ok(content));
    }
    // SAFETY: it is what the module returned, and no body of the host's.
    let mut body = unsafe { ModuleBody::new(body) };
    if let Some(fault) = body.fault() {
        // What is not a body is not closed either.
        return finish(held, Err(format!("application returned a body that is none: {fault}")));
    }
    let count = body.count();
    let first = if count == 0 { Ok(None) } else { first_chunk(&mut held, &mut body, wire, count) };
    let whole = match first {
        Ok(Some(first)) if count == 1 => Ok(first),
        Ok(None) => Ok(Vec::new()),
        Ok(Some(first)) if held.state().started.is_some() && !held.state().aborted => {
            let (status, fields) = begin_stream(held.state());
            let body = Body::Stream(Box::new(ModuleStream::new(held, body, Some(first), &paces.next, suspect)));
            return Answer { response: Response { status, fields, body }, request: None, unclosed: None };
        }
        Ok(Some(_)) => Err("the body gave content, but start_response was not called".to_owned()),
        Err(reason) => Err(reason),
    };
    let response = conclude(held.state(), whole.map(Content::Bytes));
    // The client does not wait for `close`, in which the module may still use the request.
    let unclosed = ModuleStream::new(held, body, None, &paces.next, suspect);
    Answer { response, request: None, unclosed: Some(Box::new(unclosed)) }
}

/// The body's first chunk that is not empty: the head waits for it, as `start_response` may first be called in `next`.
fn first_chunk(
    held: &mut Held,
    body: &mut ModuleBody,
    wire: &mut dyn Wire,
    count: i64,
) -> Result<Option<Vec<u8>>, String> {
    loop {
        // SAFETY: this is a call of the request, and the chunk is copied before the next one.
        let chunk = held.during_next(wire, || unsafe { body.next() });
        match chunk {
            Chunk::Data([]) if count == 1 => return Ok(None),
            Chunk::Data([]) => {}
            Chunk::Data(data) => {
                let copy = held.state().copy(data);
                return copy.map(Some).ok_or_else(|| format!("no memory for a chunk of {} bytes", data.len()));
            }
            Chunk::End => return Ok(None),
            Chunk::Failed => return Err("next failed".to_owned()),
        }
    }
}

/// A response that needs nothing more of its module.
fn finish(mut held: Held, content: Result<Content, String>) -> Answer {
    let state = held.state();
    let response = conclude(state, content);
    Answer { response, request: state.take_request(), unclosed: None }
}

/// A response whose content is known.
fn conclude(state: &mut State, content: Result<Content, String>) -> Response {
    let content = content.and_then(|content| match content {
        Content::Failed(reason) => Err(reason),
        content => Ok(content),
    });
    let content = content.and_then(|content| match state.started.take() {
        Some(head) => Ok((head, content)),
        None => Err("application returned without a call of start_response".to_owned()),
    });
    match content {
        _ if state.aborted => failed(),
        Ok(((status, fields), content)) => {
            let body = match content {
                Content::Bytes(bytes) if bytes.is_empty() && state.written => Body::Written,
                Content::Bytes(bytes) if bytes.is_empty() => Body::Empty,
                Content::Bytes(bytes) => Body::Bytes(bytes.into()),
                Content::File { file, offset, length } => Body::File { file: Arc::new(file.into()), offset, length },
                Content::Failed(_) => Body::Failed,
            };
            Response { status, fields, body }
        }
        Err(reason) => {
            state.complain(&reason);
            if state.written { failed() } else { internal_error() }
        }
    }
}

/// The head of a response whose content the module makes chunk by chunk.
fn begin_stream(state: &mut State) -> (Status, Fields) {
    state.committed = true;
    state.started.take().unwrap_or_else(|| (Status::new(500), Fields::default()))
}

/// What a client gets whose handler failed: no detail, which is in the log.
fn internal_error() -> Response {
    Response::error(500, "the handler failed; the server's log says why")
}

fn failed() -> Response {
    Response { status: Status::new(500), fields: Fields::default(), body: Body::Failed }
}

/// A module's iterable, with the request that it belongs to.
struct ModuleStream {
    held: Held,
    body: ModuleBody,
    first: Option<Vec<u8>>,
    serial: Option<Arc<Serial>>,
    pace: &'static Pace,
    suspect: &'static Suspect,
}

// SAFETY: the body is the module's, whose calls for one request do not overlap but may come on different threads.
unsafe impl Send for ModuleStream {}

impl ModuleStream {
    fn new(
        mut held: Held,
        body: ModuleBody,
        first: Option<Vec<u8>>,
        pace: &'static Pace,
        suspect: &'static Suspect,
    ) -> ModuleStream {
        let serial = held.state().generation.as_ref().and_then(|generation| generation.serial.clone());
        ModuleStream { held, body, first, serial, pace, suspect }
    }
}

impl Stream for ModuleStream {
    fn serial(&self) -> Option<&Arc<Serial>> {
        self.serial.as_ref()
    }

    fn pace(&self) -> &'static Pace {
        self.pace
    }

    fn suspect(&self) -> &'static Suspect {
        self.suspect
    }

    fn note_request(&mut self, slot: &Slot) {
        if let Some(request) = &self.held.state().request {
            slot.note(request.head.method(), request.head.target());
        }
    }

    fn first(&mut self) -> Option<Vec<u8>> {
        self.first.take()
    }

    fn next(&mut self, wire: &mut dyn Wire) -> Chunk<'_> {
        self.held.attend();
        let body = &mut self.body;
        // SAFETY: this is a call of the request, and the chunk is borrowed from the stream, which the following call
        // borrows anew.
        let chunk = self.held.during_next(wire, || unsafe { body.next() });
        let state = self.held.state();
        if state.aborted {
            return Chunk::Failed;
        }
        if matches!(chunk, Chunk::Failed) {
            state.complain("next failed after the head was sent; the connection is aborted");
        }
        chunk
    }

    fn close(mut self: Box<Self>) {
        let ModuleStream { held, body, .. } = &mut *self;
        held.attend();
        held.during_close(|| body.close());
    }
}
