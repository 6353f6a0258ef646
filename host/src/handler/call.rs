//! Calls of an application: environ in, response out.

use super::body::{Content, ModuleBody};
use super::exchange::Held;
use super::generation::Generation;
use super::registry::Module;
use crate::request::Request;
use crate::response::{Body, Chunk, Fields, Response, Status, Stream, Wire};
use crate::serial::Serial;
use std::sync::Arc;

/// An application that a request was routed to.
#[derive(Clone)]
pub struct Application {
    /// Its module.
    pub module: Arc<Module>,
    /// The function's name.
    pub symbol: Arc<str>,
    /// How many bytes of the decoded path lead to it: `SCRIPT_NAME`.
    pub script_name_bytes: usize,
}

/// The build that is to answer one request.
#[derive(Clone)]
pub struct Ticket(Arc<Generation>);

/// What a call came to. The request comes back unless a stream still needs it.
pub struct Answer {
    /// The response.
    pub response: Response,
    /// The request.
    pub request: Option<Box<Request>>,
}

impl Application {
    /// The module's build of this moment; `None` if it has none that is sound.
    pub fn ticket(&self) -> Option<Ticket> {
        self.module.current().map(Ticket)
    }

    /// Whether it is called before the request's content has arrived.
    pub fn streams_input(&self) -> bool {
        self.module.current().is_some_and(|generation| generation.streams_input())
    }
}

impl Ticket {
    /// The door through which calls of the module go one at a time, if they have to.
    pub fn serial(&self) -> Option<&Arc<Serial>> {
        self.0.serial.as_ref()
    }

    /// Whether this is the same build.
    pub fn is_same(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Calls the application, and its body's `next` until there is something to send. It may block, crash or hang.
pub fn answer(ticket: Ticket, application: &Application, request: Box<Request>, wire: &mut dyn Wire) -> Answer {
    let Some(function) = ticket.0.application(&application.symbol) else {
        let reason = format!("{} exports no \"{}\"", application.module.name(), application.symbol);
        return Answer { response: Response::error(404, &reason), request: Some(request) };
    };
    let mut held = Held::new(ticket.0, request, application.script_name_bytes);
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
            return stream(held, body, first);
        }
        Ok(Some(_)) => Err("the body gave content, but start_response was not called".to_owned()),
        Err(reason) => Err(reason),
    };
    held.during_close(|| body.close());
    finish(held, whole.map(Content::Bytes))
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
            Chunk::Data(data) => return Ok(Some(data.to_vec())),
            Chunk::End => return Ok(None),
            Chunk::Failed => return Err("next failed".to_owned()),
        }
    }
}

/// A response whose content is known.
fn finish(mut held: Held, content: Result<Content, String>) -> Answer {
    let state = held.state();
    let content = content.and_then(|content| match content {
        Content::Failed(reason) => Err(reason),
        content => Ok(content),
    });
    let content = content.and_then(|content| match state.started.take() {
        Some(head) => Ok((head, content)),
        None => Err("application returned without a call of start_response".to_owned()),
    });
    let response = match content {
        _ if state.aborted => failed(),
        Ok(((status, fields), content)) => {
            let body = match content {
                Content::Bytes(bytes) if bytes.is_empty() && state.written => Body::Written,
                Content::Bytes(bytes) if bytes.is_empty() => Body::Empty,
                Content::Bytes(bytes) => Body::Bytes(bytes.into()),
                Content::File { file, offset, length } => Body::File { file: file.into(), offset, length },
                Content::Failed(_) => Body::Failed,
            };
            Response { status, fields, body }
        }
        Err(reason) => {
            state.complain(&reason);
            if state.written { failed() } else { internal_error() }
        }
    };
    let request = state.request.take();
    Answer { response, request }
}

fn stream(mut held: Held, body: ModuleBody, first: Vec<u8>) -> Answer {
    let state = held.state();
    state.committed = true;
    let (status, fields) = state.started.take().unwrap_or_else(|| (Status::new(500), Fields::default()));
    let serial = state.generation.serial.clone();
    let stream = ModuleStream { held, body, first: Some(first), serial };
    Answer { response: Response { status, fields, body: Body::Stream(Box::new(stream)) }, request: None }
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
}

// SAFETY: the body is the module's, whose calls for one request do not overlap but may come on different threads.
unsafe impl Send for ModuleStream {}

impl Stream for ModuleStream {
    fn serial(&self) -> Option<&Arc<Serial>> {
        self.serial.as_ref()
    }

    fn first(&mut self) -> Option<Vec<u8>> {
        self.first.take()
    }

    fn next(&mut self, wire: &mut dyn Wire) -> Chunk<'_> {
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
        held.during_close(|| body.close());
    }
}
