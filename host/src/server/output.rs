//! What a connection has to send: bytes that were put together, then perhaps content that lies elsewhere, in memory or in
//! a file, or is made of pieces of these, then perhaps what a stream makes.

use crate::http::encode::{self, Context, Length};
use crate::request::Spare;
use crate::response::{Body, Fields, Parts, Response, Source, Status, Stream};
use crate::sys::socket::{self, Direction, Moved};
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The output of a connection, response by response.
#[derive(Default)]
pub(super) struct Output {
    buffer: Vec<u8>,
    sent: usize,
    content: Option<Content>,
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

/// Content that is not copied into the buffer. It comes after what is there.
struct Content {
    place: Place,
    offset: u64,
    left: u64,
    /// Further pieces of the same place.
    parts: Option<Box<Parts>>,
    /// What ends the chunk that it is, if it is one.
    then: &'static [u8],
}

enum Place {
    Memory(Cow<'static, [u8]>),
    Shared(Arc<[u8]>),
    File(Arc<OwnedFd>),
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
    /// Adds a response, or completes one whose head has been sent through the wire. Its buffers go to `spare`.
    pub(super) fn respond(&mut self, response: Response, context: &Context<'_>, spare: Option<&mut Spare>) {
        let Response { status, fields, body } = response;
        let mut emptied = Vec::new();
        match body {
            Body::Empty => {
                self.begin(&status, &fields, if context.head_request { None } else { Some(0) }, context);
                self.end();
            }
            Body::Written => self.end(),
            Body::Bytes(bytes) => {
                self.begin(&status, &fields, Some(bytes.len() as u64), context);
                if bytes.len() <= COPIED_BYTES_MAX {
                    self.content(&bytes);
                    self.end();
                    if let Cow::Owned(bytes) = bytes {
                        emptied = bytes;
                    }
                } else {
                    let length = bytes.len() as u64;
                    self.content_elsewhere(Place::Memory(bytes), 0, length);
                }
            }
            Body::Reason(text) => {
                self.begin(&status, &fields, Some(text.len() as u64), context);
                self.content(text.as_bytes());
                self.end();
            }
            Body::Shared(bytes) => {
                let length = bytes.len() as u64;
                self.begin(&status, &fields, Some(length), context);
                if bytes.len() <= COPIED_BYTES_MAX {
                    self.content(&bytes);
                    self.end();
                } else {
                    self.content_elsewhere(Place::Shared(bytes), 0, length);
                }
            }
            Body::File { file, offset, length } => {
                self.begin(&status, &fields, Some(length), context);
                self.content_elsewhere(Place::File(file), offset, length);
            }
            Body::Parts(parts) => {
                self.begin(&status, &fields, Some(parts.length()), context);
                self.content_in_parts(parts);
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
        if let Some(spare) = spare {
            spare.take_back(fields, emptied);
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
                    complain_of_more();
                    return false;
                }
            }
            Framing::Chunked => encode::chunk(&mut self.buffer, data),
            Framing::UntilClose => self.buffer.extend_from_slice(data),
        }
        true
    }

    /// Adds the rest of the content without copying it, and completes it.
    fn content_elsewhere(&mut self, place: Place, offset: u64, length: u64) {
        let (left, then): (u64, &[u8]) = match &mut self.framing {
            Framing::None => (0, b""),
            Framing::Length(left) => {
                let fits = length.min(*left);
                *left -= fits;
                if fits < length && !matches!(place, Place::File(_)) {
                    complain_of_more();
                }
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
        self.content = Some(Content { place, offset, left, parts: None, then });
    }

    /// Adds the rest of the content piece by piece, and completes it.
    fn content_in_parts(&mut self, parts: Box<Parts>) {
        let place = match parts.source() {
            Source::Memory(bytes) => Place::Shared(Arc::clone(bytes)),
            Source::File(file) => Place::File(Arc::clone(file)),
        };
        self.content_elsewhere(place, 0, parts.length());
        if let Some(content) = self.content.as_mut().filter(|content| content.left > 0) {
            // Nothing of the place goes before the first piece says what.
            content.left = 0;
            content.parts = Some(parts);
        }
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

    /// Whether the client expects no more content than what is here: there is none at all for HEAD, 204 and 304.
    pub(super) fn is_complete(&self) -> bool {
        self.begun && matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether content was promised, and all of it is here or sent.
    pub(super) fn has_kept_its_length(&self) -> bool {
        self.begun && self.framing == Framing::Length(0)
    }

    /// Whether something can be sent now.
    pub(super) fn pending(&self) -> bool {
        self.sent < self.buffer.len() || self.content.is_some()
    }

    /// Whether so much is waiting that it should go before more is added.
    pub(super) fn is_large(&self) -> bool {
        self.buffer.len() - self.sent >= BATCH_BYTES || self.content.is_some()
    }

    /// Sends what can be sent without waiting.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Flow {
        let mut turn = BYTES_PER_TURN;
        loop {
            let rest = &self.buffer[self.sent..];
            let mut asked = rest.len();
            let moved = match &mut self.content {
                None if rest.is_empty() => {
                    self.buffer.clear();
                    self.sent = 0;
                    return Flow::Done;
                }
                None => socket::send(socket, rest, false),
                Some(content) if content.left == 0 => {
                    match content.parts.as_mut().and_then(|parts| parts.next_piece()) {
                        Some(piece) => {
                            self.buffer.extend_from_slice(piece.before);
                            (content.offset, content.left) = (piece.offset, piece.length);
                        }
                        None => {
                            self.buffer.extend_from_slice(content.then);
                            self.content = None;
                        }
                    }
                    continue;
                }
                Some(_) if turn == 0 => return Flow::Yield,
                Some(content) => {
                    let length = content.left.min(turn);
                    asked += length as usize;
                    match content.place.bytes() {
                        Some(bytes) => {
                            let start = content.offset as usize;
                            socket::send_both(socket, rest, &bytes[start..start + length as usize])
                        }
                        None if rest.is_empty() => content.place.send_file(socket, content.offset, length),
                        None => {
                            asked = rest.len();
                            socket::send(socket, rest, true)
                        }
                    }
                }
            };
            let count = match moved {
                Moved::Bytes(count) => count,
                Moved::Blocked => return Flow::Blocked,
                // Also when a file has been cut meanwhile: the length that was promised cannot be kept.
                Moved::End => return Flow::Broken,
            };
            self.progressed = true;
            let of_buffer = count.min(self.buffer.len() - self.sent);
            self.sent += of_buffer;
            if let Some(content) = &mut self.content {
                let of_content = (count - of_buffer) as u64;
                content.offset += of_content;
                content.left -= of_content;
                turn -= of_content.min(turn);
            }
            // The client takes it bit by bit, and to follow it would take a system call for each bit. The kernel tells
            // when a third of its buffer is free, and asking sees to it that it will.
            if count < asked && !socket::wait(socket, Direction::Write, Duration::ZERO) {
                return Flow::Blocked;
            }
        }
    }

    /// Forgets what cannot be sent any more.
    pub(super) fn give_up(&mut self) {
        self.buffer.clear();
        self.sent = 0;
        self.content = None;
        self.failed = true;
    }

    /// Makes ready for the next response; what is in the buffer stays.
    pub(super) fn next_response(&mut self) {
        self.begun = false;
        self.framing = Framing::None;
    }

    /// Makes ready for another connection, after one that has sent everything.
    pub(super) fn rest(&mut self) {
        debug_assert!(!self.pending() && self.stream.is_none() && !self.begun && !self.failed);
        if self.buffer.capacity() > 2 * KEPT_BYTES_MAX {
            self.buffer.shrink_to(KEPT_BYTES_MAX);
        }
        self.progressed = false;
    }

    /// Makes ready for another connection, with a buffer of an ordinary size.
    pub(super) fn clear(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.shrink_to(KEPT_BYTES_MAX);
        *self = Output { buffer, ..Output::default() };
    }
}

impl Place {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Place::Memory(bytes) => Some(bytes),
            Place::Shared(bytes) => Some(bytes),
            Place::File(_) => None,
        }
    }

    fn send_file(&self, socket: BorrowedFd<'_>, mut offset: u64, length: u64) -> Moved {
        match self {
            Place::File(file) => socket::send_file(socket, file.as_fd(), &mut offset, length as usize),
            Place::Memory(_) | Place::Shared(_) => Moved::End,
        }
    }
}

fn complain_of_more() {
    tracing::error!("a handler gave more content than its Content-Length said; the rest is dropped");
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const END_OF_CHUNK_AND_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Content in memory up to this size is copied behind its head; more is sent from where it lies.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// Responses to pipelined requests are sent together up to this size.
const BATCH_BYTES: usize = 64 * 1024;

/// Memory that an empty buffer keeps.
const KEPT_BYTES_MAX: usize = 32 * 1024;

/// After so much of one content other connections have their turn.
const BYTES_PER_TURN: u64 = 2 * 1024 * 1024;
