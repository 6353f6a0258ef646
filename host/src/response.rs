//! A response as values: what `site` and `handler` make and `server` sends. No I/O happens here.

mod fields;
mod parts;

pub use fields::{FieldError, Fields};
pub use parts::{Parts, Piece, Source};

use crate::http;
use crate::pace::Pace;
use crate::serial::Serial;
use crate::sys::crash::Suspect;
use crate::sys::recorder::Slot;
use std::borrow::Cow;
use std::fmt;
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

/// The content of a response.
pub enum Body {
    /// No content.
    Empty,
    /// Content in memory.
    Bytes(Cow<'static, [u8]>),
    /// Why the server itself refuses or fails, as a line of text. The site may have a page to show instead.
    Reason(String),
    /// Content in memory that others send too.
    Shared(Arc<[u8]>),
    /// `length` bytes of an open file from `offset`, sent by `sendfile`.
    File {
        /// The file, open for reading; others may send it too.
        file: Arc<OwnedFd>,
        /// First byte to send.
        offset: u64,
        /// How many bytes to send.
        length: u64,
    },
    /// Pieces of a file or of memory.
    Parts(Box<Parts>),
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

    /// How its calls have gone.
    fn pace(&self) -> &'static Pace;

    /// Whose code they are.
    fn suspect(&self) -> &'static Suspect;

    /// Writes down for which request they are.
    fn note_request(&mut self, slot: &Slot);

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

impl Response {
    /// A text of one line, for people.
    pub fn text(code: u16, message: impl Into<Cow<'static, str>>) -> Response {
        let body = match message.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Response { status: Status::new(code), fields: text_fields(), body: Body::Bytes(body) }
    }

    /// An error page: the status and why, as text. `reason` is a phrase without a full stop, such as `lines must end in CRLF`.
    pub fn error(code: u16, reason: &str) -> Response {
        let status = Status::new(code);
        let body = Body::Reason(format!("{status}: {reason}\n"));
        let mut fields = text_fields();
        // RFC 9110 §15.1: 404, 405, 414 and 501 are "heuristically cacheable", so that a cache may go on to say that something is
        // not there when it is; and what is shown depends on what the client accepts.
        fields.append(b"Cache-Control", b"no-store");
        Response { status, fields, body }
    }

    /// 503 for what may be well in a moment: who asks again then is welcome (RFC 9110 §10.2.3).
    pub fn unavailable(reason: &str) -> Response {
        let mut response = Response::error(503, reason);
        response.fields.append(b"Retry-After", b"1");
        response
    }

    /// A redirection to `location`, a URI reference (RFC 9110 §10.2.2). What cannot stand in a field is percent-encoded.
    pub fn redirect(code: u16, location: &str) -> Response {
        let location: Cow<'_, str> = percent_encoding::utf8_percent_encode(location, percent_encoding::CONTROLS).into();
        let mut response = Response::text(code, format!("{code} {}: {location}\n", Status::new(code).reason));
        response.fields.append(b"Location", location.as_bytes());
        response
    }
}

/// The fields of a text of the server's own. It may repeat what the client has sent, so nobody shall guess that it is a page.
fn text_fields() -> Fields {
    let mut fields = Fields::default();
    fields.append(b"Content-Type", b"text/plain; charset=utf-8");
    fields.append(b"X-Content-Type-Options", b"nosniff");
    fields
}

impl From<http::Reject> for Response {
    fn from(reject: http::Reject) -> Response {
        match reject.status {
            503 => Response::unavailable(reject.reason),
            status => Response::error(status, reject.reason),
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("fields", &self.fields)
            .field("body", &self.body)
            .finish()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Empty => f.write_str("Empty"),
            Body::Bytes(bytes) => write!(f, "Bytes({:?})", String::from_utf8_lossy(bytes)),
            Body::Reason(text) => write!(f, "Reason({text:?})"),
            Body::Shared(bytes) => write!(f, "Shared({:?})", String::from_utf8_lossy(bytes)),
            Body::File { file, offset, length } => write!(f, "File({file:?}, {offset}+{length})"),
            Body::Parts(parts) => write!(f, "Parts({parts:?})"),
            Body::Stream(_) => f.write_str("Stream"),
            Body::Written => f.write_str("Written"),
            Body::Failed => f.write_str("Failed"),
        }
    }
}

impl Status {
    /// A status with the reason phrase that the registry gives for its code; an empty one if it gives none.
    pub const fn new(code: u16) -> Status {
        Status { code, reason: Cow::Borrowed(registered_reason(code)) }
    }

    /// Parses the status of an application (PEP 3333): three digits, a space, a reason phrase without control characters.
    ///
    /// The code is 200 to 999: interim responses (1xx) are the server's. The phrase means nothing to a client (RFC 9112
    /// §4), so bytes that are not UTF-8 are replaced rather than refused.
    pub fn parse(bytes: &[u8]) -> Option<Status> {
        // Most are.
        if bytes == b"200 OK" {
            return Some(Status::new(200));
        }
        let (digits, [b' ', reason @ ..]) = bytes.split_at_checked(3)? else { return None };
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        if !(200..=999).contains(&code) {
            return None;
        }
        let registered = registered_reason(code);
        if reason == registered.as_bytes() {
            return Some(Status { code, reason: Cow::Borrowed(registered) });
        }
        if !reason.iter().all(|byte| matches!(byte, b' '..=0x7e | 0x80..)) {
            return None;
        }
        let reason = Cow::Owned(String::from_utf8_lossy(reason).into_owned());
        Some(Status { code, reason })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

/// The reason phrase of a registered code (RFC 9110 §15, RFC 6585 and the IANA registry), else empty.
const fn registered_reason(code: u16) -> &'static str {
    match code {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_applications() {
        let parse = |text: &str| Status::parse(text.as_bytes()).map(|status| (status.code, status.reason.into_owned()));
        assert_eq!(parse("200 OK"), Some((200, "OK".to_owned())));
        assert_eq!(parse("404 file not found"), Some((404, "file not found".to_owned())));
        assert_eq!(parse("999 "), Some((999, String::new())));
        assert_eq!(parse("200 Très bien"), Some((200, "Très bien".to_owned())));
        assert!(matches!(Status::parse(b"404 Not Found").unwrap().reason, Cow::Borrowed("Not Found")));
        assert_eq!(Status::parse(b"200 D\xe9j\xe0").unwrap().reason, "D\u{fffd}j\u{fffd}");
        for bad in [
            "",
            "200",
            "20 OK",
            "2000 OK",
            "200OK",
            " 200 OK",
            "+20 OK",
            "0x2 OK",
            "100 Continue",
            "199 x",
            "1000 x",
            "000 x",
            "200 O\rK",
            "200 O\nK",
            "200 O\tK",
            "200 O\0K",
            "200\tOK",
            "200 \x7f",
            "OK",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn pages_for_people() {
        let page = Response::error(400, "lines must end in CRLF");
        assert_eq!(page.status.to_string(), "400 Bad Request");
        let lines =
            "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n";
        assert_eq!(page.fields.lines(), lines.as_bytes());
        assert!(matches!(page.body, Body::Reason(text) if text == "400 Bad Request: lines must end in CRLF\n"));

        let page = Response::redirect(301, "/a/?x\r\nSet-Cookie: é");
        let lines = String::from_utf8(page.fields.lines().to_vec()).unwrap();
        assert!(lines.ends_with("\r\nLocation: /a/?x%0D%0ASet-Cookie: %C3%A9\r\n"), "{lines}");
    }
}
