//! The one place where a module's code is called, and where its connection is owned meanwhile.

use super::Settings;
use super::connection::Connection;
use super::output::Flow;
use crate::http::encode;
use crate::response::{Chunk, Fields, Status, Wire, WireError};
use crate::route::{self, Application, Ticket};
use crate::serial::Permit;
use crate::sys::socket::{self, Direction, Moved};
use std::os::fd::AsFd;
use std::time::SystemTime;

/// A call into a module.
pub(super) enum Work {
    /// The application itself, with the request.
    Application { application: Application, ticket: Ticket, permit: Option<Permit> },
    /// `next` of the body that is being sent.
    Next { permit: Option<Permit> },
    /// `close` of that body.
    Close { permit: Option<Permit> },
}

/// Does the work. It may block; whoever calls this has no access to the event loop meanwhile.
pub(super) fn perform(connection: &mut Connection, work: Work, settings: &Settings) {
    match work {
        Work::Application { application, ticket, permit } => {
            let Some(request) = connection.request.take() else { return };
            let answer = route::answer(ticket, &application, request, &mut ConnectionWire { connection, settings });
            connection.request = answer.request;
            connection.answer = Some(answer.response);
            drop(permit);
        }
        Work::Next { permit } => {
            let Some(mut stream) = connection.output.stream.take() else { return };
            match stream.next(&mut ConnectionWire { connection, settings }) {
                Chunk::Data(data) => {
                    connection.output.content(data);
                    connection.output.stream = Some(stream);
                }
                Chunk::End => {
                    stream.close();
                    connection.output.end();
                }
                Chunk::Failed => {
                    stream.close();
                    connection.output.failed = true;
                }
            }
            drop(permit);
        }
        Work::Close { permit } => {
            if let Some(stream) = connection.output.stream.take() {
                stream.close();
            }
            drop(permit);
        }
    }
}

/// The connection, for `write` and for content that is read as it arrives. Both block, within the time limits.
struct ConnectionWire<'a> {
    connection: &'a mut Connection,
    settings: &'a Settings,
}

impl Wire for ConnectionWire<'_> {
    fn write(&mut self, status: &Status, fields: &Fields, data: &[u8]) -> Result<(), WireError> {
        if !self.connection.output.begun {
            let date = httpdate::fmt_http_date(SystemTime::now());
            let context = self.connection.traits.context(self.settings, &date);
            self.connection.output.begin(status, fields, None, &context);
        }
        let fits = self.connection.output.content(data);
        self.flush()?;
        if fits { Ok(()) } else { Err(WireError::TooLarge) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, WireError> {
        loop {
            match self.connection.read_stream(buffer) {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => {}
                Err(reject) if reject.status == 413 => return Err(WireError::TooLarge),
                Err(_) => return Err(WireError::Invalid),
            }
            if self.connection.take_continue() && !self.connection.output.begun {
                self.connection.output.interim(encode::continue_100);
                self.flush()?;
            }
            match self.connection.receive_more() {
                Moved::Bytes(_) => {}
                Moved::End => return Err(WireError::Gone),
                Moved::Blocked => {
                    // The client may be waiting for earlier answers before it sends more.
                    self.flush()?;
                    let patience = self.settings.config.timeouts.body;
                    if !socket::wait(self.connection.socket.as_fd(), Direction::Read, patience) {
                        return Err(WireError::Timeout);
                    }
                }
            }
        }
    }
}

impl ConnectionWire<'_> {
    fn flush(&mut self) -> Result<(), WireError> {
        loop {
            match self.connection.output.flush(self.connection.socket.as_fd()) {
                Flow::Done => return Ok(()),
                Flow::Yield => {}
                Flow::Broken => {
                    self.connection.output.give_up();
                    return Err(WireError::Gone);
                }
                Flow::Blocked => {
                    let patience = self.settings.config.timeouts.write;
                    let socket = self.connection.socket.as_fd();
                    let before = socket::unacknowledged(socket);
                    if !socket::wait(socket, Direction::Write, patience) && socket::unacknowledged(socket) >= before {
                        self.connection.output.give_up();
                        return Err(WireError::Timeout);
                    }
                }
            }
        }
    }
}
