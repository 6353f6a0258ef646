//! The connection as a running handler sees it: `write`, and content that is read as it arrives. Both block, within the
//! time limits; the loop goes on meanwhile without the thread that waits here.

use super::call::Origin;
use super::connection::Connection;
use super::output::Flow;
use crate::http::encode::{self, Signature};
use crate::response::{Body, Fields, Response, Status, Stream, Wire, WireError};
use crate::sys::crash;
use crate::sys::socket::{self, Direction, Moved};
use std::os::fd::AsFd;
use std::time::SystemTime;

/// A connection during its call.
pub(super) struct ConnectionWire<'a> {
    /// None when the response was complete and the connection has gone back to its loop.
    connection: &'a mut Option<Connection>,
    origin: Origin<'a>,
}

impl<'a> ConnectionWire<'a> {
    pub(super) fn new(connection: &'a mut Option<Connection>, origin: Origin<'a>) -> ConnectionWire<'a> {
        ConnectionWire { connection, origin }
    }

    /// The stream that is being sent.
    pub(super) fn take_stream(&mut self) -> Option<Box<dyn Stream>> {
        self.connection.as_mut().and_then(|connection| connection.space.output.stream.take())
    }
}

impl Wire for ConnectionWire<'_> {
    fn write(&mut self, status: &Status, fields: &Fields, data: &[u8]) -> Result<(), WireError> {
        // The response is complete: this is more than its head has promised.
        let Some(connection) = self.connection else { return Err(WireError::TooLarge) };
        let settings = &self.origin.shared.settings;
        let output = &mut connection.space.output;
        if !output.begun {
            let signature = Signature::new(SystemTime::now(), &settings.config.server_header);
            output.begin(status, fields, None, &connection.space.traits.context(&signature));
        }
        let fits = output.content(data);
        crash::waiting_for_client(|| flush(connection, self.origin), Result::is_ok)?;
        if connection.space.output.is_complete() && connection.is_received() {
            // The handler may go on for long; its client has what it wants, and may ask for more.
            let body = Body::Written;
            connection.answer_with_this(Response { status: status.clone(), fields: Fields::default(), body });
            if let Some(connection) = self.connection.take() {
                // This call counts in its stead.
                self.origin.shared.begin();
                self.origin.give_back(connection);
            }
        }
        if fits { Ok(()) } else { Err(WireError::TooLarge) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, WireError> {
        // Without a connection all of the content has been received.
        let Some(connection) = self.connection else { return Ok(0) };
        let origin = self.origin;
        crash::waiting_for_client(|| receive(connection, origin, buffer), |read| matches!(read, Ok(1..)))
    }
}

/// Receives content until there is some to give.
fn receive(connection: &mut Connection, origin: Origin<'_>, buffer: &mut [u8]) -> Result<usize, WireError> {
    loop {
        match connection.read_stream(buffer) {
            Ok(Some(count)) => return Ok(count),
            Ok(None) => {}
            Err(reject) if reject.status == 413 => return Err(WireError::TooLarge),
            Err(_) => return Err(WireError::Invalid),
        }
        if connection.take_continue() && !connection.space.output.begun {
            connection.space.output.interim(encode::continue_100);
            flush(connection, origin)?;
        }
        connection.space.read_in_call = true;
        match connection.receive_more() {
            Moved::Bytes(_) => {}
            Moved::End => return Err(WireError::Gone),
            Moved::Blocked => {
                // The client may be waiting for earlier answers before it sends more.
                flush(connection, origin)?;
                let patience = origin.shared.settings.config.timeouts.body;
                if !socket::wait(connection.line.socket.as_fd(), Direction::Read, patience) {
                    return Err(WireError::Timeout);
                }
            }
        }
    }
}

/// Sends all that is there.
fn flush(connection: &mut Connection, origin: Origin<'_>) -> Result<(), WireError> {
    let socket = connection.line.socket.as_fd();
    let output = &mut connection.space.output;
    loop {
        match output.flush(socket) {
            Flow::Done => return Ok(()),
            Flow::Yield => {}
            Flow::Broken => {
                output.give_up();
                return Err(WireError::Gone);
            }
            Flow::Blocked => {
                let patience = origin.shared.settings.config.timeouts.write;
                let before = socket::unacknowledged(socket);
                if !socket::wait(socket, Direction::Write, patience) && socket::unacknowledged(socket) >= before {
                    output.give_up();
                    return Err(WireError::Timeout);
                }
            }
        }
    }
}

/// For a body whose response is complete: nobody reads, and nobody sends.
pub(super) struct NoWire;

impl Wire for NoWire {
    fn write(&mut self, _status: &Status, _fields: &Fields, _data: &[u8]) -> Result<(), WireError> {
        Err(WireError::Gone)
    }

    fn read(&mut self, _buffer: &mut [u8]) -> Result<usize, WireError> {
        Ok(0)
    }
}
