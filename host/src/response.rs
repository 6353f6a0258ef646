//! A response as values: what `site` and `handler` make and `server` sends. No I/O happens here.

use crate::serial::Serial;
use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A response that has been decided but not encoded: framing, `Date`, `Server` and `Connection` are the server's.
pub struct Response {
    /// The status line's code and reason.
    pub status: Status,
    /// The header fields, in order.
    pub fields: Fields,
    /// The content.
    pub body: Body,
}

/// A status code with its reason phrase (RFC 9112 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// 100 to 999.
    pub code: u16,
    /// The reason phrase; may be empty.
    pub reason: Cow<'static, str>,
}

/// Header fields, kept encoded as `Name: value\r\n` lines, with what the server must know about them.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    lines: Vec<u8>,
    /// The value of `Content-Length`, which is kept out of the lines: the encoder writes it.
    pub content_length: Option<u64>,
    /// Whether the lines have a `Date` field.
    pub has_date: bool,
    /// Whether the lines have a `Server` field.
    pub has_server: bool,
}

/// The content of a response.
pub enum Body {
    /// No content.
    Empty,
    /// Content in memory.
    Bytes(Cow<'static, [u8]>),
    /// `length` bytes of an open file from `offset`, sent by `sendfile`.
    File {
        /// The file, open for reading.
        file: OwnedFd,
        /// First byte to send.
        offset: u64,
        /// How many bytes to send.
        length: u64,
    },
    /// Content that is made chunk by chunk.
    Stream(Box<dyn Stream>),
    /// The content has been written already, through the [`Wire`].
    Written,
    /// The content cannot be completed: the connection must be aborted, so that the client can tell.
    Failed,
}

/// Content that is made chunk by chunk by code that may block, crash or hang: a module's iterable.
pub trait Stream: Send {
    /// The door through which `next` and `close` go one at a time, if they have to.
    fn serial(&self) -> Option<&Arc<Serial>>;

    /// The first chunk, if it is known already; it comes before those of `next`.
    fn first(&mut self) -> Option<Vec<u8>>;

    /// The next chunk. `wire` serves what the code behind the stream reads from its request meanwhile.
    fn next(&mut self, wire: &mut dyn Wire) -> Chunk<'_>;

    /// Ends the stream and frees what it holds. Called exactly once, whether or not the stream was complete.
    fn close(self: Box<Self>);
}

/// What a [`Stream`] answers.
#[derive(Debug)]
pub enum Chunk<'a> {
    /// Some content; may be empty.
    Data(&'a [u8]),
    /// The content is complete.
    End,
    /// The content cannot be completed: the connection must be aborted, so that the client can tell.
    Failed,
}

/// The client's connection as a running handler sees it. Both calls block until they are done or a limit passes.
pub trait Wire {
    /// Sends `data` as content, preceded by the head if that has not been sent.
    fn write(&mut self, status: &Status, fields: &Fields, data: &[u8]) -> Result<(), WireError>;

    /// Reads content of the request that has not been received before the handler was called; 0 is its end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, WireError>;
}

/// Why a [`Wire`] could not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The client has left.
    Gone,
    /// The client took or gave nothing for longer than the limit.
    Timeout,
    /// The request's content is larger than the limit.
    TooLarge,
    /// The request's content is malformed.
    Invalid,
}

/// A header field that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The name is not a token (RFC 9110 §5.6.2).
    Name,
    /// The value has CR, LF, NUL or another control character (RFC 9110 §5.5).
    Value,
    /// The field belongs to the connection, not to the response (RFC 9110 §7.6.1).
    HopByHop,
    /// `Content-Length` is not a decimal number, or is given twice with different values.
    ContentLength,
}
