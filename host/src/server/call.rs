//! The one place where a module's code is called. A call owns its connection; the event loop has no part in it.

use super::connection::Connection;
use super::crash::Belongings;
use super::slots::SlotId;
use super::wire::{ConnectionWire, NoWire};
use super::{Letter, Shared};
use crate::pace::{Pace, Way};
use crate::response::{Body, Chunk, Stream};
use crate::route::{self, Ticket};
use crate::serial::Permit;
use crate::sys::crash::Suspect;
use crate::sys::recorder::Slot;
use std::mem;

/// A call that is to be made.
pub(super) struct Call {
    pub(super) work: Work,
    pub(super) way: Way,
    pub(super) permits: Permits,
}

/// What it calls.
pub(super) enum Work {
    /// The application itself, with the request.
    Application(Ticket),
    /// `next` of the body that is being sent.
    Next,
    /// The end of that body, of which the client needs no more.
    Close,
}

/// The right to call, given back by dropping it: of the module's door, if it is called one at a time, and of the
/// processors', if the call keeps one busy.
pub(super) type Permits = [Option<Permit>; 2];

/// Where a connection comes from, and goes back to.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) shared: &'a Shared,
    pub(super) loop_index: usize,
    pub(super) id: SlotId,
}

/// What a call has come to.
pub(super) struct Outcome {
    /// None if it has gone back before the end of the call.
    pub(super) connection: Option<Connection>,
    /// What is still to be called, when the client has all that is meant for it.
    pub(super) epilogue: Option<Box<Epilogue>>,
}

/// A body that has nothing more to give to the client, and has not been closed.
pub(super) struct Epilogue {
    stream: Box<dyn Stream>,
    /// `next` has said that there is nothing more.
    exhausted: bool,
    permits: Permits,
}

impl Call {
    /// The pace of this kind of calls.
    pub(super) fn pace(&self, connection: &Connection) -> Option<&'static Pace> {
        match &self.work {
            Work::Application(ticket) => Some(&ticket.paces().call),
            Work::Next | Work::Close => connection.space.output.stream.as_ref().map(|stream| stream.pace()),
        }
    }

    /// Whose code is called; `None` if there is nothing to call.
    pub(super) fn suspect(&self, connection: &Connection) -> Option<&'static Suspect> {
        match &self.work {
            Work::Application(ticket) => Some(ticket.suspect()),
            Work::Next | Work::Close => connection.space.output.stream.as_ref().map(|stream| stream.suspect()),
        }
    }
}

impl Work {
    /// Does it. It may block, or crash. Gives what is still to be called when the client has all that is meant for it.
    pub(super) fn perform(self, own: &mut Belongings<'_>, origin: Origin<'_>) -> Option<Box<Epilogue>> {
        match self {
            Work::Application(ticket) => answer(own, ticket, origin),
            Work::Next => next(own, origin),
            Work::Close => {
                let output = &mut own.connection.as_mut()?.space.output;
                let exhausted = output.failed || !output.has_kept_its_length();
                let stream = output.stream.take();
                stream.map(|stream| Epilogue::new(stream, exhausted, mem::take(&mut own.permits), origin.shared))
            }
        }
    }
}

fn answer(own: &mut Belongings<'_>, ticket: Ticket, origin: Origin<'_>) -> Option<Box<Epilogue>> {
    let connection = own.connection.as_mut()?;
    let request = connection.space.request.take()?;
    ticket.suspect().record().count_call();
    own.desk.slot.get().note(request.head.method(), request.head.target());
    let answer = route::answer(ticket, request, &mut ConnectionWire::new(&mut own.connection, origin));
    let Some(connection) = &mut own.connection else {
        // The client has its whole response: what else was made is for nobody, but is closed all the same.
        let leftover = match answer.response.body {
            Body::Stream(stream) => Some((stream, false)),
            _ => answer.unclosed.map(|stream| (stream, true)),
        };
        let permits = mem::take(&mut own.permits);
        let epilogue = leftover.map(|(stream, exhausted)| Epilogue::new(stream, exhausted, permits, origin.shared));
        origin.shared.end();
        return epilogue;
    };
    connection.space.request = answer.request;
    connection.space.answer = Some(answer.response);
    answer.unclosed.map(|stream| Epilogue::new(stream, true, mem::take(&mut own.permits), origin.shared))
}

fn next(own: &mut Belongings<'_>, origin: Origin<'_>) -> Option<Box<Epilogue>> {
    let slot = own.desk.slot.get();
    let mut wire = ConnectionWire::new(&mut own.connection, origin);
    let mut stream = wire.take_stream()?;
    stream.note_request(slot);
    let chunk = stream.next(&mut wire);
    let output = &mut own.connection.as_mut()?.space.output;
    let exhausted = match chunk {
        Chunk::Data(data) => {
            output.content(data);
            if !output.is_complete() {
                output.stream = Some(stream);
                return None;
            }
            false
        }
        Chunk::End => {
            output.end();
            true
        }
        Chunk::Failed => {
            output.failed = true;
            true
        }
    };
    Some(Epilogue::new(stream, exhausted, mem::take(&mut own.permits), origin.shared))
}

impl Epilogue {
    /// It counts as a connection until it is over: the server is not done before.
    fn new(stream: Box<dyn Stream>, exhausted: bool, permits: Permits, shared: &Shared) -> Box<Epilogue> {
        shared.begin();
        Box::new(Epilogue { stream, exhausted, permits })
    }

    /// The pace of its calls.
    pub(super) fn pace(&self) -> &'static Pace {
        self.stream.pace()
    }

    /// Whose code they are.
    pub(super) fn suspect(&self) -> &'static Suspect {
        self.stream.suspect()
    }

    /// Lets the body come to its own end, and closes it.
    pub(super) fn perform(mut self, slot: &Slot, shared: &Shared) {
        self.stream.note_request(slot);
        while !self.exhausted {
            self.exhausted = match self.stream.next(&mut NoWire) {
                Chunk::Data([]) => false,
                Chunk::Data(_) => {
                    tracing::error!("a handler gave more content than its Content-Length said; the rest is dropped");
                    true
                }
                Chunk::End | Chunk::Failed => true,
            };
        }
        self.stream.close();
        drop(self.permits);
        shared.end();
    }
}

impl Origin<'_> {
    /// Sends a connection back to its loop, from a thread that does not lead it.
    pub(super) fn give_back(self, connection: Connection) {
        self.shared.post(self.loop_index, Letter::Returned(self.id, Box::new(connection)));
    }
}
