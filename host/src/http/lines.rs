//! The lines of a head: where they end, and what is wrong with one, in words.
//!
//! [`are_strict`] holds what the fast parser has taken to what it leaves open. [`scan`] finds the end of a head in one pass
//! over its line ends. [`check`] goes through complete lines slowly and says what is wrong: for a head that is not complete
//! yet, so that who types by hand hears of a mistake at once, and for one that the fast parser has refused.

use super::{Reject, is_field_value_byte, is_token, is_token_byte, target};

/// More fields than any client sends (431).
pub const FIELDS_MAX: usize = 100;

/// Longer than any registered method (501).
const METHOD_BYTES_MAX: usize = 32;

const CRLF_NEEDED: Reject = Reject::bad_request("lines must end in CRLF");
const BARE_CR: Reject = Reject::bad_request("a CR must be followed by an LF");
const FORM: Reject = Reject::bad_request("the request line must have the form: GET /path HTTP/1.1");

/// What [`scan`] finds. `lines` is the length of the complete lines that come before the place of interest.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// The head ends here.
    Complete { head: usize },
    /// More bytes are needed.
    Incomplete { lines: usize },
    /// No bytes can make this a head that is taken, unless `lines` are to blame first.
    Refused { lines: usize, reject: Reject },
}

/// Looks for the empty line that ends the head at the front of `bytes`.
///
/// It costs one search for LF per line, of which there are at most [`FIELDS_MAX`] and some, so that a client who sends
/// byte by byte, and has each byte looked at again, costs the server less than its own system calls do.
pub fn scan(bytes: &[u8], head_bytes_max: usize) -> Scan {
    // A target that leaves no room for fields is the target's fault: 414 tells more than 431.
    let request_line_bytes_max = head_bytes_max / 2;
    let too_long = Reject::new(414, "the request line is longer than this server takes");
    let mut line = 0;
    let mut count = 0;
    for lf in memchr::memchr_iter(b'\n', &bytes[..bytes.len().min(head_bytes_max)]) {
        if count == 0 && lf >= request_line_bytes_max {
            return Scan::Refused { lines: 0, reject: too_long };
        }
        // RFC 9112 §2.2 lets a recipient take a bare LF for a line end. This one does not: a proxy in front that reads
        // such lines differently is a way to smuggle requests.
        if lf == line || bytes[lf - 1] != b'\r' {
            return Scan::Refused { lines: line, reject: CRLF_NEEDED };
        }
        if lf == line + 1 {
            return match count {
                0 => Scan::Refused { lines: 0, reject: FORM },
                _ => Scan::Complete { head: lf + 1 },
            };
        }
        if count > FIELDS_MAX {
            return Scan::Refused { lines: line, reject: Reject::new(431, "there are more than 100 header fields") };
        }
        count += 1;
        line = lf + 1;
    }
    if count == 0 && bytes.len() >= request_line_bytes_max {
        return Scan::Refused { lines: 0, reject: too_long };
    }
    // At the limit and not complete is over the limit: the next byte is one too many.
    if bytes.len() >= head_bytes_max {
        return Scan::Refused {
            lines: line,
            reject: Reject::new(431, "the header fields are larger than this server takes"),
        };
    }
    Scan::Incomplete { lines: line }
}

/// Whether a head that the fast parser has taken is one that [`scan`] and [`check_method`] take: it begins with the method,
/// whose length is bounded as that of the request line is, and each line ends in CRLF. `names` is where the fields begin.
pub fn are_strict(head: &[u8], method: &[u8], names: impl Iterator<Item = usize>, head_bytes_max: usize) -> bool {
    let ends_before = |at: usize| at >= 2 && head[at - 2..at] == *b"\r\n";
    // The empty line at the end comes behind the line of the last field.
    let mut lines = names.chain([head.len() - 2]);
    let request_line_fits = lines.next().is_some_and(|first| ends_before(first) && first <= head_bytes_max / 2);
    request_line_fits
        && lines.all(ends_before)
        && ends_before(head.len())
        && head.starts_with(method)
        && method.len() <= METHOD_BYTES_MAX
}

/// Checks the method at the front of a head that may have just begun. CR and LF are left to [`scan`] and [`check`].
pub fn check_method(bytes: &[u8]) -> Result<(), Reject> {
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' | b'\n' => return Ok(()),
            b' ' if index > 0 => return Ok(()),
            _ if !is_token_byte(*byte) => {
                return Err(Reject::bad_request("the request must begin with a method, such as GET"));
            }
            // RFC 9112 §3: a method longer than any that is implemented is answered 501.
            _ if index == METHOD_BYTES_MAX => return Err(Reject::new(501, "the method is longer than any known one")),
            _ => {}
        }
    }
    Ok(())
}

/// The head with HTTP/1.1 for its version, if that is a higher one of HTTP/1.
pub fn with_known_version(head: &[u8]) -> Option<Vec<u8>> {
    let minor = memchr::memchr(b'\r', head)?.checked_sub(1)?;
    if !head[..minor].ends_with(b" HTTP/1.") || !matches!(head[minor], b'2'..=b'9') {
        return None;
    }
    let mut known = head.to_vec();
    known[minor] = b'1';
    Some(known)
}

/// Checks complete lines, of which the first is the request line, one by one.
pub fn check(lines: &[u8]) -> Result<(), Reject> {
    let mut lines = lines.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r\n").unwrap_or(line));
    if let Some(line) = lines.next() {
        check_request_line(line)?;
    }
    lines.take_while(|line| !line.is_empty()).try_for_each(check_field_line)
}

fn check_request_line(line: &[u8]) -> Result<(), Reject> {
    if line.contains(&b'\r') {
        return Err(BARE_CR);
    }
    let Some(space) = memchr::memchr(b' ', line) else { return Err(FORM) };
    let (method, rest) = (&line[..space], &line[space + 1..]);
    let Some(space) = memchr::memrchr(b' ', rest) else {
        return Err(Reject::bad_request("the request line must end in HTTP/1.1"));
    };
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    match version {
        // RFC 9110 §2.5: the minor version says nothing about how to read the message.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Reject::new(505, "this server speaks HTTP/1.1 and HTTP/1.0"));
        }
        _ => return Err(Reject::bad_request("the request line must end in HTTP/1.1")),
    }
    if target.is_empty() || target[0] == b' ' {
        return Err(FORM);
    }
    target::parse(method, target).map(|_| ())
}

fn check_field_line(line: &[u8]) -> Result<(), Reject> {
    if line.contains(&b'\r') {
        return Err(BARE_CR);
    }
    // RFC 9112 §5.2: "A server that receives an obs-fold in a request message [...] MUST either reject the message by
    // sending a 400 (Bad Request) [...] or replace".
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Reject::bad_request("a line must not begin with a space (obs-fold)"));
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(Reject::bad_request("a header line must have the form: Name: value"));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // RFC 9112 §5.1: "A server MUST reject, with a response status code of 400 (Bad Request), any received request message
    // that contains whitespace between a header field name and colon".
    if matches!(name.last(), Some(b' ' | b'\t')) {
        return Err(Reject::bad_request("there must be no space between a header's name and its colon"));
    }
    if name.is_empty() {
        return Err(Reject::bad_request("a header name must not be empty"));
    }
    if !is_token(name) {
        return Err(Reject::bad_request("a header name has a character that is not allowed"));
    }
    // RFC 9110 §5.5: CR, LF and NUL are "invalid and dangerous", other controls are invalid too.
    if !value.iter().copied().all(is_field_value_byte) {
        return Err(Reject::bad_request("a header value has a control character"));
    }
    Ok(())
}
