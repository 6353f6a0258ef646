//! What a connection has to send: bytes in memory, then perhaps part of a file, then perhaps what a stream makes.

use crate::http::encode::{self, Context, Length};
use crate::response::{Body, Fields, Response, Status, Stream};
use crate::sys::socket::{self, Moved};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The output of a connection, response by response.
#[derive(Default)]
pub(super) struct Output {
    buffer: Vec<u8>,
    sent: usize,
    file: Option<FilePart>,
    /// Chunks that are still to be made.
    pub(super) stream: Option<Box<dyn Stream>>,
    framing: Framing,
    /// The head of the response is in the buffer or sent.
    pub(super) begun: bool,
    /// The response cannot be completed as its head promises.
    pub(super) failed: bool,
    /// Whether the connection may go on after this response.
    pub(super) keep_alive: bool,
    /// Bytes have left since this was last cleared.
    pub(super) progressed: bool,
}

struct FilePart {
    file: OwnedFd,
    offset: u64,
    left: u64,
    /// What ends the chunk that the file is, if it is one.
    then: &'static [u8],
}

/// How the end of the content is told (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    /// There is no content.
    #[default]
    None,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    UntilClose,
}

/// What sending came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Everything that is there has been sent.
    Done,
    /// The client has to take some first.
    Blocked,
    /// Others shall have their turn.
    Yield,
    /// The client is gone, or the file has less than was promised.
    Broken,
}

impl Output {
    /// Adds a response, or completes one whose head has been sent through the wire.
    pub(super) fn respond(&mut self, response: Response, context: &Context<'_>) {
        let Response { status, fields, body } = response;
        match body {
            Body::Empty => {
                self.begin(&status, &fields, if context.head_request { None } else { Some(0) }, context);
                self.end();
            }
            Body::Written => self.end(),
            Body::Bytes(bytes) => {
                self.begin(&status, &fields, Some(bytes.len() as u64), context);
                self.content(&bytes);
                self.end();
            }
            Body::File { file, offset, length } => {
                self.begin(&status, &fields, Some(length), context);
                self.send_file(file, offset, length);
            }
            Body::Stream(mut stream) => {
                self.begin(&status, &fields, None, context);
                if let Some(first) = stream.first() {
                    self.content(&first);
                }
                self.stream = Some(stream);
            }
            Body::Failed => self.failed = true,
        }
    }

    /// Adds the head, unless that has been done; `length` is that of the content, if known.
    pub(super) fn begin(&mut self, status: &Status, fields: &Fields, length: Option<u64>, context: &Context<'_>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        // What the application has declared, it has to keep: `content` and `end` see to that.
        let declared = fields.content_length.is_some();
        let length = length.filter(|_| !declared).map_or(Length::Unknown, Length::Known);
        let known = match length {
            Length::Known(length) => Some(length),
            Length::Unknown => fields.content_length,
        };
        let sent = encode::head(&mut self.buffer, status, fields, length, context);
        self.keep_alive = sent.keep_alive;
        self.framing = match known {
            _ if !sent.body_allowed => Framing::None,
            _ if sent.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
    }

    /// Adds content; false if it is more than the head has promised, which is dropped.
    pub(super) fn content(&mut self, data: &[u8]) -> bool {
        match &mut self.framing {
            Framing::None => {}
            Framing::Length(left) => {
                // RFC 9112 §6.3: bytes past the length would be taken for the next response.
                let fits = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.buffer.extend_from_slice(&data[..fits]);
                *left -= fits as u64;
                if fits < data.len() {
                    tracing::error!("a handler gave more content than its Content-Length said; the rest is dropped");
                    return false;
                }
            }
            Framing::Chunked => encode::chunk(&mut self.buffer, data),
            Framing::UntilClose => self.buffer.extend_from_slice(data),
        }
        true
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) {
        let (left, then): (u64, &[u8]) = match &mut self.framing {
            Framing::None => (0, b""),
            Framing::Length(left) => {
                let fits = length.min(*left);
                *left -= fits;
                (fits, b"")
            }
            Framing::Chunked if length == 0 => (0, LAST_CHUNK),
            Framing::Chunked => {
                self.buffer.extend_from_slice(format!("{length:x}\r\n").as_bytes());
                (length, END_OF_CHUNK_AND_LAST_CHUNK)
            }
            Framing::UntilClose => (length, b""),
        };
        if !matches!(self.framing, Framing::Chunked) {
            self.end();
        }
        self.file = Some(FilePart { file, offset, left, then });
    }

    /// Completes the content.
    pub(super) fn end(&mut self) {
        match self.framing {
            Framing::Length(1..) => {
                tracing::error!("a handler gave less content than its Content-Length said; the connection is aborted");
                self.failed = true;
            }
            Framing::Chunked => encode::last_chunk(&mut self.buffer),
            Framing::None | Framing::Length(0) | Framing::UntilClose => {}
        }
    }

    /// Adds bytes that are not part of a response: `100 Continue`.
    pub(super) fn interim(&mut self, add: impl FnOnce(&mut Vec<u8>)) {
        add(&mut self.buffer);
    }

    /// Whether content is expected at all: not for HEAD, 204 and 304.
    pub(super) fn wants_content(&self) -> bool {
        self.framing != Framing::None
    }

    /// Whether something can be sent now.
    pub(super) fn pending(&self) -> bool {
        self.sent < self.buffer.len() || self.file.is_some()
    }

    /// Whether so much is waiting that it should go before more is added.
    pub(super) fn is_large(&self) -> bool {
        self.buffer.len() - self.sent >= BATCH_BYTES || self.file.is_some()
    }

    /// Sends what can be sent without waiting.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Flow {
        while self.sent < self.buffer.len() {
            match socket::send(socket, &self.buffer[self.sent..], self.file.is_some()) {
                Moved::Bytes(count) => {
                    self.sent += count;
                    self.progressed = true;
                }
                Moved::Blocked => return Flow::Blocked,
                Moved::End => return Flow::Broken,
            }
        }
        self.buffer.clear();
        self.sent = 0;
        let mut turn = FILE_BYTES_PER_TURN;
        while let Some(part) = &mut self.file {
            if part.left == 0 {
                self.buffer.extend_from_slice(part.then);
                self.file = None;
                return if self.buffer.is_empty() { Flow::Done } else { self.flush(socket) };
            }
            if turn == 0 {
                return Flow::Yield;
            }
            let length = part.left.min(turn);
            match socket::send_file(socket, part.file.as_fd(), &mut part.offset, length as usize) {
                Moved::Bytes(count) => {
                    part.left -= count as u64;
                    turn -= (count as u64).min(turn);
                    self.progressed = true;
                }
                Moved::Blocked => return Flow::Blocked,
                // The file has been cut meanwhile: the length that was promised cannot be kept.
                Moved::End => return Flow::Broken,
            }
        }
        Flow::Done
    }

    /// Forgets what cannot be sent any more.
    pub(super) fn give_up(&mut self) {
        self.buffer.clear();
        self.sent = 0;
        self.file = None;
        self.failed = true;
    }

    /// Makes ready for the next response; what is in the buffer stays.
    pub(super) fn next_response(&mut self) {
        self.begun = false;
        self.framing = Framing::None;
    }

    /// Gives memory back that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        self.buffer = Vec::new();
    }
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const END_OF_CHUNK_AND_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Responses to pipelined requests are sent together up to this size.
const BATCH_BYTES: usize = 64 * 1024;

/// After so much of a file other connections have their turn.
const FILE_BYTES_PER_TURN: u64 = 4 * 1024 * 1024;
