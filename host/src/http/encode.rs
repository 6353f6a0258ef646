//! A response's head and chunks as bytes (RFC 9112 §4, §6, §7.1).
//!
//! The head says how the content is delimited, and whether the connection stays open; the caller keeps to what
//! [`head`] returns.

use crate::response::{Fields, Status};
use std::time::SystemTime;

/// What the head depends on besides the response.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whether this answers a HEAD request.
    pub head_request: bool,
    /// The minor version of the request, or 1 if it could not be parsed.
    pub minor: u8,
    /// Whether client and server both want to keep the connection.
    pub keep_alive: bool,
    /// The fields that the server adds.
    pub signature: &'a Signature,
}

/// `Date` and `Server`, as lines that are made once a second, and not for each response.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    lines: Vec<u8>,
    date_bytes: usize,
}

impl Signature {
    /// The server's signature at this time. An empty `server` sends none.
    pub fn new(now: SystemTime, server: &str) -> Signature {
        let mut lines = format!("Date: {}\r\n", httpdate::fmt_http_date(now)).into_bytes();
        let date_bytes = lines.len();
        if !server.is_empty() {
            field(&mut lines, b"Server: ", server.as_bytes());
        }
        Signature { lines, date_bytes }
    }

    /// The lines that a response has which has these fields itself.
    fn lines(&self, has_date: bool, has_server: bool) -> &[u8] {
        let start = if has_date { self.date_bytes } else { 0 };
        let end = if has_server { self.date_bytes } else { self.lines.len() };
        &self.lines[start..end]
    }
}

/// The length of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// It is this many bytes.
    Known(u64),
    /// It will be known at the end.
    Unknown,
}

/// How the rest of the response is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Content goes through [`chunk`] and [`last_chunk`].
    pub chunked: bool,
    /// The connection stays open after the response.
    pub keep_alive: bool,
    /// Content may be sent; else all of it is dropped.
    pub body_allowed: bool,
}

/// Appends the head of a response to `out`: status line, `Date`, `Server`, the fields, framing, `Connection`, empty line.
///
/// The length in `fields` frames content of unknown length (the caller sees to it that it is true), and is told to HEAD.
pub fn head(out: &mut Vec<u8>, status: &Status, fields: &Fields, length: Length, context: &Context<'_>) -> Sent {
    // RFC 9110 §15.3.6: 205 has no content either, but unlike the others its head must say so.
    let bodyless = matches!(status.code, 100..=199 | 204 | 304);
    let body_allowed = !bodyless && status.code != 205 && !context.head_request;
    let length = match (length, fields.content_length) {
        // RFC 9112 §6.1: neither field in 1xx and 204. RFC 9110 §8.6: 304 may tell the length that a 200 would have.
        _ if status.code == 304 => fields.content_length,
        _ if bodyless => None,
        _ if status.code == 205 => Some(0),
        (_, Some(length)) if context.head_request => Some(length),
        (Length::Known(length), _) => Some(length),
        (Length::Unknown, length) => length,
    };
    let unframed = body_allowed && length.is_none();
    // RFC 9112 §6.1: "A server MUST NOT send a response containing Transfer-Encoding unless the corresponding request
    // indicates HTTP/1.1". HTTP/1.0 gets such content until the connection closes (§6.3, case 8).
    let chunked = unframed && context.minor > 0;
    let keep_alive = context.keep_alive && (!unframed || chunked);

    // Room for everything at once, so that it does not grow line by line.
    let signature = context.signature.lines(fields.has_date, fields.has_server);
    out.reserve(HEAD_BYTES + status.reason.len() + signature.len() + fields.lines().len());
    let digit = |place: u16| b'0' + (status.code / place % 10) as u8;
    let start = *b"HTTP/1.1 ";
    out.extend_from_slice(&start);
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(status.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(signature);
    out.extend_from_slice(fields.lines());
    if let Some(length) = length {
        out.extend_from_slice(b"Content-Length: ");
        decimal(out, length);
        out.extend_from_slice(b"\r\n");
    }
    if chunked {
        field(out, b"Transfer-Encoding: ", b"chunked");
    }
    match (keep_alive, context.minor) {
        (false, _) => field(out, b"Connection: ", b"close"),
        (true, 0) => field(out, b"Connection: ", b"keep-alive"),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
    Sent { chunked, keep_alive, body_allowed }
}

/// Appends `data` as one chunk. Nothing if it is empty: an empty chunk would be the last.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let digits = (usize::BITS - data.len().leading_zeros()).div_ceil(4);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[data.len() >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the chunk that ends the content.
pub fn last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Appends the interim response that a client waits for before it sends its content (RFC 9110 §15.2.1).
pub fn continue_100(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// More than the head's own words take: its names, line ends and numbers.
const HEAD_BYTES: usize = 160;

// Inlined, so that the names, which are constants, are copied without a call.
#[inline(always)]
fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number; `format!` would allocate, and `write!` costs several times as much.
fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    static SIGNATURE: LazyLock<Signature> = LazyLock::new(|| Signature::new(SystemTime::UNIX_EPOCH, "S"));
    static CONTEXT: LazyLock<Context<'static>> =
        LazyLock::new(|| Context { head_request: false, minor: 1, keep_alive: true, signature: &SIGNATURE });

    fn encode(code: u16, fields: &[(&str, &str)], length: Length, context: Context<'_>) -> (String, Sent) {
        let mut kept = Fields::default();
        for (name, value) in fields {
            kept.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let mut out = b"before ".to_vec();
        let sent = head(&mut out, &Status::new(code), &kept, length, &context);
        let text = String::from_utf8(out).unwrap();
        (text.strip_prefix("before ").expect("head appends").to_owned(), sent)
    }

    /// Whether the head says these things, and how the rest is sent: length, chunked, keep-alive, content.
    #[track_caller]
    fn assert_framing(
        encoded: &(String, Sent),
        length: Option<u64>,
        chunked: bool,
        keep_alive: bool,
        body_allowed: bool,
    ) {
        let (text, sent) = encoded;
        assert_eq!(*sent, Sent { chunked, keep_alive, body_allowed }, "{text}");
        let said =
            text.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map(|length| length.parse().unwrap());
        assert_eq!(said, length, "{text}");
        assert_eq!(text.contains("Transfer-Encoding: chunked\r\n"), chunked, "{text}");
        assert_eq!(text.contains("Connection: close\r\n"), !keep_alive, "{text}");
        assert!(text.ends_with("\r\n\r\n") && !text.trim_end().contains("\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_head_to_the_letter() {
        let (text, _) = encode(200, &[("Content-Type", "text/plain"), ("X-A", "b")], Length::Known(12), *CONTEXT);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: S\r\nContent-Type: text/plain\r\nX-A: b\r\nContent-Length: 12\r\n\r\n"
        );
    }

    #[test]
    fn date_and_server_are_the_applications_if_it_has_them() {
        let (text, _) = encode(200, &[("date", "mine"), ("SERVER", "mine")], Length::Known(0), *CONTEXT);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ndate: mine\r\nSERVER: mine\r\nContent-Length: 0\r\n\r\n");
        let nameless = Signature::new(SystemTime::UNIX_EPOCH, "");
        let (text, _) = encode(200, &[], Length::Known(0), Context { signature: &nameless, ..*CONTEXT });
        assert_eq!(text, "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn content_is_framed_by_length_by_chunks_or_by_the_end() {
        let old = Context { minor: 0, ..*CONTEXT };
        assert_framing(&encode(200, &[], Length::Known(7), *CONTEXT), Some(7), false, true, true);
        assert_framing(&encode(200, &[], Length::Unknown, *CONTEXT), None, true, true, true);
        assert_framing(&encode(200, &[], Length::Unknown, old), None, false, false, true);
        assert_framing(&encode(200, &[], Length::Known(7), old), Some(7), false, true, true);
        // What the application promised frames what it makes chunk by chunk.
        let promised = [("Content-Length", "9")];
        assert_framing(&encode(200, &promised, Length::Unknown, *CONTEXT), Some(9), false, true, true);
        assert_framing(&encode(200, &promised, Length::Unknown, old), Some(9), false, true, true);
        // What is in memory is known better than what was promised.
        assert_framing(&encode(200, &promised, Length::Known(7), *CONTEXT), Some(7), false, true, true);
    }

    #[test]
    fn a_connection_that_closes_says_so() {
        let closing = Context { keep_alive: false, ..*CONTEXT };
        assert_framing(&encode(200, &[], Length::Known(7), closing), Some(7), false, false, true);
        assert_framing(&encode(200, &[], Length::Unknown, closing), None, true, false, true);
    }

    #[test]
    fn http_1_0_is_told_that_the_connection_is_kept() {
        let (text, _) = encode(200, &[], Length::Known(7), Context { minor: 0, ..*CONTEXT });
        assert!(text.contains("Connection: keep-alive\r\n"), "{text}");
        let (text, _) = encode(200, &[], Length::Known(7), *CONTEXT);
        assert!(!text.contains("Connection"), "{text}");
    }

    #[test]
    fn a_head_request_gets_lengths_and_no_content() {
        let context = Context { head_request: true, ..*CONTEXT };
        assert_framing(&encode(200, &[], Length::Known(7), context), Some(7), false, true, false);
        assert_framing(
            &encode(200, &[("Content-Length", "9")], Length::Known(0), context),
            Some(9),
            false,
            true,
            false,
        );
        assert_framing(&encode(200, &[], Length::Unknown, context), None, false, true, false);
        let old = Context { minor: 0, ..context };
        assert_framing(&encode(200, &[], Length::Unknown, old), None, false, true, false);
    }

    #[test]
    fn statuses_without_content_have_no_framing() {
        let promised = [("Content-Length", "9")];
        for code in [100, 101, 204] {
            assert_framing(&encode(code, &promised, Length::Known(7), *CONTEXT), None, false, true, false);
            assert_framing(&encode(code, &[], Length::Unknown, *CONTEXT), None, false, true, false);
        }
        assert_framing(&encode(205, &promised, Length::Unknown, *CONTEXT), Some(0), false, true, false);
        assert_framing(&encode(304, &[], Length::Known(0), *CONTEXT), None, false, true, false);
        assert_framing(&encode(304, &promised, Length::Known(0), *CONTEXT), Some(9), false, true, false);
    }

    #[test]
    fn chunks_are_sized_in_hex() {
        for (length, size) in
            [(1, "1"), (9, "9"), (15, "f"), (16, "10"), (255, "ff"), (4096, "1000"), (70_000, "11170")]
        {
            let mut out = Vec::new();
            chunk(&mut out, &vec![b'x'; length]);
            assert_eq!(out, format!("{size}\r\n{}\r\n", "x".repeat(length)).into_bytes());
        }
        let mut out = Vec::new();
        chunk(&mut out, b"");
        assert!(out.is_empty(), "an empty chunk would end the content");
        last_chunk(&mut out);
        continue_100(&mut out);
        assert_eq!(out, b"0\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 1, 9, 10, 404, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
