//! A request's head: request line and fields (RFC 9112 §3, §5).
//!
//! Parsing goes: skip one empty line, let httparse split the head, then judge what the parts mean together: target, host,
//! framing, persistence. Where httparse finds no head, `lines` says in words what is wrong, because people type requests
//! by hand.

use super::framing::{Framing, FramingFields};
use super::{Reject, lines, target, trim_whitespace};
use std::mem::MaybeUninit;

/// A parsed head. It owns a copy of the head's bytes, in buffers that the next [`Head::parse`] uses again.
#[derive(Debug, Default)]
pub struct Head {
    /// From the request line to the empty line that ends the head.
    bytes: Vec<u8>,
    /// The method, and the target behind it: what is kept as text need not be validated again whenever it is read.
    line: String,
    /// The method ends, and the target begins, here in the line.
    method_end: usize,
    /// In the line, as is the query.
    path: Span,
    query: Option<Span>,
    host: Option<Span>,
    fields: Vec<Field>,
    minor: u8,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    repeated: bool,
}

/// Bounds on a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of request line and fields together, with their line ends. The request line may take half of it.
    pub head_bytes_max: usize,
}

/// A part of the head's bytes. Heads are far below 4 GiB, and small spans keep a hundred fields in 1.6 KB.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Span,
    value: Span,
}

impl Head {
    /// Parses the head at the front of `bytes`.
    ///
    /// `Ok(None)`: more bytes are needed; call again with all bytes so far and more. `Ok(Some(n))`: the head took `n` bytes,
    /// with a leading empty line, if there was one. On an error the connection must close after the response. The
    /// head is empty unless the answer is `Ok(Some(_))`.
    ///
    /// A head that is byte for byte the one before, as those of programs that ask again and again are, is what that one
    /// was: it is compared, and not parsed. [`is_repeated`](Self::is_repeated) tells.
    pub fn parse(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<usize>, Reject> {
        self.repeated = !self.bytes.is_empty() && bytes.starts_with(&self.bytes);
        if self.repeated && self.bytes.len() <= limits.head_bytes_max {
            return Ok(Some(self.bytes.len()));
        }
        self.clear();
        // RFC 9112 §2.2: a server "SHOULD ignore at least one empty line (CRLF) received prior to the request-line".
        let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        let bytes = &bytes[skipped..];
        let bytes_max = limits.head_bytes_max.min(u32::MAX as usize);
        // Most requests come alone and have no content: what ends like a head is split at once. Anything else is
        // searched for the end first, which costs little, so that a client who sends byte by byte cannot have all that
        // it has sent split again with each byte.
        let head = match bytes.ends_with(b"\r\n\r\n") {
            true => bytes.len().min(bytes_max),
            false => match find_end(bytes, bytes_max)? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        if let Some(head) = self.read(&bytes[..head], bytes_max).inspect_err(|_| self.clear())? {
            return Ok(Some(skipped + head));
        }
        match find_end(bytes, bytes_max)? {
            None => Ok(None),
            Some(head) => {
                lines::check(&bytes[..head])?;
                // RFC 9110 §2.5: what has a higher minor version is processed "as if it were in the highest minor version
                // within that major version to which the recipient is conformant".
                if let Some(lowered) = lines::with_known_version(&bytes[..head])
                    && self.read(&lowered, bytes_max).inspect_err(|_| self.clear())?.is_some()
                {
                    return Ok(Some(skipped + head));
                }
                Err(Reject::bad_request("the head of the request is malformed"))
            }
        }
    }

    /// Whether it is byte for byte the head that was parsed into this before.
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// The method, as sent: methods are case-sensitive (RFC 9110 §9.1).
    pub fn method(&self) -> &str {
        &self.line[..self.method_end]
    }

    /// The request target, as sent.
    pub fn target(&self) -> &str {
        &self.line[self.method_end..]
    }

    /// The target's path, as sent and still encoded. The absolute-form is reduced to its path. `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        match &self.line[self.path.range()] {
            // RFC 9112 §3.2.1: an empty path, which only the absolute-form can have, means "/".
            "" => "/",
            path => path,
        }
    }

    /// What follows `?` in the target, as sent.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|span| &self.line[span.range()])
    }

    /// The version's minor number: 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub fn minor(&self) -> u8 {
        self.minor
    }

    /// Host and maybe port that the client asked for: the absolute-form's, else the `Host` field's (RFC 9112 §3.2.2).
    ///
    /// It is ASCII.
    pub fn host(&self) -> Option<&[u8]> {
        self.host.map(|span| self.slice(span))
    }

    /// The fields in order: name as sent, a token; value without the whitespace around it, which may have any byte from
    /// 0x80 up.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.slice(field.name), self.slice(field.value)))
    }

    /// The value of the first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The values of all fields of this name, in any case.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = move |field: &&Field| self.slice(field.name).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| self.slice(field.value))
    }

    /// How the content that follows the head is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client wants the connection to stay open (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends its content (RFC 9110 §10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The head's bytes, from the request line to the empty line that ends it. A version that is not known has been lowered to one
    /// that is.
    pub fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// Splits the head at the front of `bytes`, and judges it; says how long it is. `None` if there is none that the
    /// grammar and the limits allow, or not all of it: then nothing has changed.
    fn read(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Reject> {
        let mut storage = [const { MaybeUninit::uninit() }; lines::FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let (Ok(httparse::Status::Complete(length)), Some(method), Some(target), Some(minor)) =
            (request.parse_with_uninit_headers(bytes, &mut storage), request.method, request.path, request.version)
        else {
            return Ok(None);
        };
        let bytes = &bytes[..length];
        let span = |part: &[u8]| Span::of(bytes, part);
        let starts = request.headers.iter().map(|header| span(header.name.as_bytes()).start as usize);
        if !lines::are_strict(bytes, method.as_bytes(), starts, bytes_max) {
            return Ok(None);
        }
        let parts = target::parse(method.as_bytes(), target.as_bytes())?;

        let mut framing = FramingFields::default();
        let mut host = None;
        let mut connection = Connection::default();
        let mut expects_continue = false;
        self.fields.reserve(request.headers.len());
        for header in request.headers.iter() {
            let (name, value) = (header.name, header.value);
            self.fields.push(Field { name: span(name.as_bytes()), value: span(value) });
            // By the length first: most fields are none of these.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    // RFC 9112 §3.2: 400 to "any request message that contains more than one Host header field line or a
                    // Host header field with an invalid field value". Empty is invalid where a host is needed (RFC 9110
                    // §4.2.1).
                    if host.replace(value).is_some() {
                        return Err(Reject::bad_request("there must be one Host header, not several"));
                    }
                    // §3.2.2: with the absolute-form the server "MUST ignore the received Host header field", and clients send
                    // an empty one where their URI has no authority.
                    let is_ignored = value.is_empty() && parts.authority.is_some();
                    if !is_ignored && !target::is_authority(value) {
                        return Err(Reject::bad_request("the Host header is not a valid host"));
                    }
                }
                6 if name.eq_ignore_ascii_case("expect") => {
                    // RFC 9110 §10.1.1: a list, whose other members a server "MAY respond" to with 417. This one ignores them.
                    let mut members = value.split(|byte| *byte == b',').map(trim_whitespace);
                    expects_continue |= members.any(|member| member.eq_ignore_ascii_case(b"100-continue"));
                }
                10 if name.eq_ignore_ascii_case("connection") => connection.add(value),
                14 if name.eq_ignore_ascii_case("content-length") => framing.content_length(value)?,
                17 if name.eq_ignore_ascii_case("transfer-encoding") => framing.transfer_encoding(value)?,
                _ => {}
            }
        }
        if host.is_none() && minor == 1 {
            return Err(Reject::bad_request("HTTP/1.1 needs a Host header"));
        }
        self.bytes.extend_from_slice(bytes);
        self.line.push_str(method);
        self.line.push_str(target);
        self.method_end = method.len();
        let in_line = |part: &[u8]| Span::of(target.as_bytes(), part).moved_by(method.len());
        (self.path, self.query) = (in_line(parts.path), parts.query.map(in_line));
        self.minor = minor;
        self.host = parts.authority.or(host).map(span);
        self.framing = framing.decide(minor)?;
        self.keep_alive = connection.keep_alive(minor);
        // RFC 9110 §10.1.1: to be ignored in HTTP/1.0, and there is nothing to wait for without content.
        self.expects_continue =
            expects_continue && minor == 1 && !matches!(self.framing, Framing::None | Framing::Length(0));
        Ok(Some(length))
    }

    /// Forgets everything but the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.line.clear();
        self.fields.clear();
        self.method_end = 0;
        self.path = Span::default();
        (self.query, self.host) = (None, None);
        self.minor = 0;
        self.framing = Framing::None;
        (self.keep_alive, self.expects_continue, self.repeated) = (false, false, false);
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }
}

/// Whether the head at the front of `bytes`, which is not complete or was refused, is that of a HEAD request. Its refusal
/// has no content either (RFC 9110 §9.3.2): a client would take that for the next response.
pub fn begins_with_head(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"HEAD ")
}

/// Where the head at the front of `bytes` ends, if it is complete; a mistake in what there is so far.
fn find_end(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Reject> {
    lines::check_method(bytes)?;
    match lines::scan(bytes, bytes_max) {
        lines::Scan::Complete { head } => Ok(Some(head)),
        lines::Scan::Incomplete { lines } => {
            // Only when a line has just been completed: then it is worth it, and a head has few of these moments.
            if lines == bytes.len() {
                lines::check(&bytes[..lines])?;
            }
            Ok(None)
        }
        lines::Scan::Refused { lines, reject } => Err(lines::check(&bytes[..lines]).err().unwrap_or(reject)),
    }
}

/// What the `Connection` fields say about persistence.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    fn add(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(trim_whitespace) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112 §9.3: `close` wins, HTTP/1.1 persists, HTTP/1.0 persists if it asks for it.
    fn keep_alive(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep_alive)
    }
}

impl Span {
    /// Where `part` lies in `whole`, of which it is a part.
    fn of(whole: &[u8], part: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }

    fn moved_by(self, bytes: usize) -> Span {
        Span { start: self.start + bytes as u32, end: self.end + bytes as u32 }
    }

    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1024 };

    fn parse(text: &[u8]) -> Result<Option<Head>, Reject> {
        let mut head = Head::default();
        Ok(head.parse(text, LIMITS)?.map(|_| head))
    }

    #[track_caller]
    fn head(text: &str) -> Head {
        parse(text.as_bytes()).unwrap().expect("the head is complete")
    }

    /// The refusal of `text`; every prefix of it must be refused likewise or wait for more.
    #[track_caller]
    fn refusal(text: impl AsRef<[u8]>) -> Reject {
        let text = text.as_ref();
        let reject = parse(text).expect_err("the head is refused");
        assert_prefixes_agree(text);
        reject
    }

    #[track_caller]
    fn assert_prefixes_agree(text: &[u8]) {
        let whole = parse(text).map(|head| head.is_some());
        for end in 0..text.len() {
            match parse(&text[..end]) {
                Ok(None) => {}
                Ok(Some(_)) => assert_eq!(whole, Ok(true), "{:?}", text.escape_ascii().to_string()),
                // Input that ends within a line is not looked at again until the line or the head ends.
                Err(_) if whole == Ok(false) => {}
                Err(reject) => assert_eq!(whole, Err(reject), "{:?}", text[..end].escape_ascii().to_string()),
            }
        }
    }

    /// A head that comes alone is split without a search for its end: that must not show.
    #[track_caller]
    fn assert_alone_or_not_is_the_same(text: &[u8]) {
        let shown = |text: &[u8]| parse(text).map(|head| head.map(|head| format!("{head:?}")));
        assert_eq!(shown(text), shown(&[text, b"x"].concat()), "{:?}", text.escape_ascii().to_string());
    }

    #[test]
    fn a_head_is_split_into_its_parts() {
        let text =
            "GET /a%20b?x=1&y HTTP/1.1\r\nHost: a.example:80\r\nX-One:\t one \r\nx-one: two\r\nEmpty:\r\n\r\nnext";
        let mut head = Head::default();
        assert_eq!(head.parse(text.as_bytes(), LIMITS), Ok(Some(text.len() - 4)));
        assert_eq!((head.method(), head.target(), head.minor()), ("GET", "/a%20b?x=1&y", 1));
        assert_eq!((head.path(), head.query(), head.host()), ("/a%20b", Some("x=1&y"), Some(&b"a.example:80"[..])));
        assert_eq!(head.field("X-ONE"), Some(&b"one"[..]));
        assert_eq!(head.values("x-One").collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!((head.field("empty"), head.field("absent")), (Some(&b""[..]), None));
        let names: Vec<_> = head.fields().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"Host"[..], b"X-One", b"x-one", b"Empty"]);
        assert_eq!(head.raw(), &text.as_bytes()[..text.len() - 4]);
        assert_eq!((head.framing(), head.keep_alive(), head.expects_continue()), (Framing::None, true, false));
    }

    #[test]
    fn a_head_that_comes_again_is_known_and_no_other() {
        let text = "GET /a?b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut head = Head::default();
        for (text, length, repeated) in [
            (text.to_owned(), text.len(), false),
            (text.to_owned(), text.len(), true),
            (format!("{text}GET"), text.len(), true),
            (format!("\r\n{text}"), text.len() + 2, false),
            (text.to_owned(), text.len(), true),
            (text.replace("a?b", "a?c"), text.len(), false),
            (text.replace("a?b", "a?c"), text.len(), true),
            (text.replace("close", "x"), text.len() - 4, false),
        ] {
            assert_eq!(head.parse(text.as_bytes(), LIMITS), Ok(Some(length)), "{text:?}");
            assert_eq!(head.is_repeated(), repeated, "{text:?}");
            let mut fresh = self::head(&text);
            fresh.repeated = repeated;
            assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
        }
        // Neither what is refused nor what has not come to its end is known afterwards.
        for text in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let first = head.parse(text.as_bytes(), LIMITS);
            assert!(first != Ok(Some(text.len())));
            assert_eq!(head.parse(text.as_bytes(), LIMITS), first);
            assert!(!head.is_repeated());
        }
        assert_eq!(head.parse(text.as_bytes(), LIMITS), Ok(Some(text.len())));
        assert!(head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 20 }).is_err(), "limits hold for it, too");
    }

    #[test]
    fn one_empty_line_may_come_first() {
        let mut head = Head::default();
        assert_eq!(head.parse(b"\r\nGET / HTTP/1.0\r\n\r\n", LIMITS), Ok(Some(20)));
        assert_eq!(head.raw(), b"GET / HTTP/1.0\r\n\r\n");
        assert!(parse(b"").unwrap().is_none());
        assert!(parse(b"\r").unwrap().is_none());
        assert!(parse(b"\r\n").unwrap().is_none());
        assert!(parse(b"\r\n\r").unwrap().is_none());
        assert_eq!(refusal("\r\n\r\nGET / HTTP/1.0\r\n\r\n").status, 400);
        assert_eq!(refusal("\nGET / HTTP/1.0\r\n\r\n").reason, "lines must end in CRLF");
    }

    #[test]
    fn a_head_used_again_keeps_nothing() {
        let mut head = Head::default();
        let post =
            b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
        head.parse(post, LIMITS).unwrap().unwrap();
        assert!(head.expects_continue() && !head.keep_alive());
        head.parse(b"GET / HTTP/1.0\r\n\r\n", LIMITS).unwrap().unwrap();
        assert_eq!((head.method(), head.target(), head.query(), head.host()), ("GET", "/", None, None));
        assert_eq!((head.minor(), head.framing(), head.expects_continue()), (0, Framing::None, false));
        assert_eq!(head.fields().count(), 0);
        head.parse(post, LIMITS).unwrap().unwrap();
        head.parse(b"GET / HTTP/1.1\r\nA: b\r\n\r\n", LIMITS).unwrap_err();
        assert_eq!((head.method(), head.fields().count(), head.raw().len()), ("", 0, 0));
    }

    #[test]
    fn mistakes_are_refused_in_words() {
        for (text, status, reason) in [
            ("GET / HTTP/1.1\n", 400, "lines must end in CRLF"),
            ("GET / HTTP/1.1\r\nHost: a\n", 400, "lines must end in CRLF"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "lines must end in CRLF"),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "a CR must be followed by an LF"),
            ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "a CR must be followed by an LF"),
            ("GET /\rHTTP/1.1\r\n\r\n", 400, "a CR must be followed by an LF"),
            ("GET / HTTP/1.1\r\n\r\n", 400, "HTTP/1.1 needs a Host header"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "there must be one Host header, not several"),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "the Host header is not a valid host"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "the Host header is not a valid host"),
            ("GET / HTTP/1.0\r\nHost: a@b\r\n\r\n", 400, "the Host header is not a valid host"),
            ("GET http://a/ HTTP/1.1\r\n\r\n", 400, "HTTP/1.1 needs a Host header"),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400, "a line must not begin with a space (obs-fold)"),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "a line must not begin with a space (obs-fold)"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\t\r\n\r\n", 400, "a line must not begin with a space (obs-fold)"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "there must be no space between a header's name and its colon"),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", 400, "a header name must not be empty"),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", 400, "a header line must have the form: Name: value"),
            ("GET / HTTP/1.1\r\nA b: c\r\n\r\n", 400, "a header name has a character that is not allowed"),
            ("GET / HTTP/1.1\r\n\u{e9}: c\r\n\r\n", 400, "a header name has a character that is not allowed"),
            ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400, "a header value has a control character"),
            ("GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", 400, "a header value has a control character"),
            (" GET / HTTP/1.1\r\n\r\n", 400, "the request must begin with a method, such as GET"),
            ("G@T / HTTP/1.1\r\n\r\n", 400, "the request must begin with a method, such as GET"),
            ("GET\r\n", 400, "the request line must have the form: GET /path HTTP/1.1"),
            ("GET  / HTTP/1.1\r\n\r\n", 400, "the request line must have the form: GET /path HTTP/1.1"),
            ("GET HTTP/1.1\r\n\r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET /\r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET / \r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET / HTTP/1.1 \r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET / http/1.1\r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET / HTTP/1\r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET / HTTP/11\r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET / HTTP/1.10\r\n", 400, "the request line must end in HTTP/1.1"),
            ("GET / HTTP/2.0\r\n", 505, "this server speaks HTTP/1.1 and HTTP/1.0"),
            ("GET / HTTP/0.9\r\n", 505, "this server speaks HTTP/1.1 and HTTP/1.0"),
            ("GET / HTTP/1.2\r\n\r\n", 400, "HTTP/1.1 needs a Host header"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "this server speaks HTTP/1.1 and HTTP/1.0"),
            ("GET /a b HTTP/1.1\r\n\r\n", 400, "a space in the target must be sent as %20"),
            ("GET /a\tb HTTP/1.1\r\n\r\n", 400, "the target has a control character"),
            ("GET /é HTTP/1.1\r\n\r\n", 400, "the target must be ASCII: percent-encode other bytes"),
            ("GET /a#b HTTP/1.1\r\n\r\n", 400, "a fragment (#) must not be sent: it stays with the client"),
            ("GET * HTTP/1.1\r\n\r\n", 400, "the target * is for OPTIONS only"),
            ("GET a.html HTTP/1.1\r\n\r\n", 400, "the target must begin with a slash"),
            ("CONNECT a:443 HTTP/1.1\r\n\r\n", 501, "CONNECT asks for a tunnel, and this server is no proxy"),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
                400,
                "Content-Length must be a decimal number",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
                "Content-Length and Transfer-Encoding exclude each other",
            ),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0 has no Transfer-Encoding"),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
                400,
                "a header value has a control character",
            ),
        ] {
            assert_eq!(refusal(text), Reject::new(status, reason), "{text:?}");
        }
    }

    #[test]
    fn a_mistake_is_refused_at_the_end_of_its_line() {
        for text in ["GET / HTTP/1.1\n", "GET /\r\n", "GET / HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost : a\r\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
            assert!(parse(&text.as_bytes()[..text.len() - 1]).unwrap().is_none(), "{text:?}");
        }
        // What does not even begin like a request, such as TLS, is refused at once.
        assert_eq!(refusal("\x16\x03\x01").status, 400);
    }

    #[test]
    fn the_first_mistake_is_the_one_that_is_told() {
        let text = "GET / HTTP/1.1\r\nHost : a\r\n folded\r\nA: b\n\r\n";
        assert_eq!(refusal(text).reason, "there must be no space between a header's name and its colon");
    }

    #[test]
    fn methods_are_bounded() {
        let long = "M".repeat(32);
        assert_eq!(head(&format!("{long} / HTTP/1.0\r\n\r\n")).method(), long);
        assert_eq!(refusal(format!("{long}M / HTTP/1.0\r\n\r\n")).status, 501);
        assert_alone_or_not_is_the_same(format!("{long}M / HTTP/1.0\r\n\r\n").as_bytes());
    }

    #[test]
    fn sizes_are_bounded_and_known_as_soon_as_they_are_passed() {
        let target = |length| format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(length));
        assert!(parse(target(450).as_bytes()).unwrap().is_some());
        assert_eq!(refusal(target(512)).status, 414);
        assert_eq!(refusal(target(2000)).status, 414);
        assert_eq!(parse(&target(600).as_bytes()[..512]).unwrap_err().status, 414);

        let value = |length| format!("GET / HTTP/1.0\r\nA: {}\r\n\r\n", "a".repeat(length));
        let room = LIMITS.head_bytes_max - value(0).len();
        assert!(parse(value(room).as_bytes()).unwrap().is_some());
        assert_eq!(refusal(value(room + 1)).status, 431);
        assert!(parse(&value(room + 1).as_bytes()[..1023]).unwrap().is_none());
        assert_eq!(parse(&value(room + 1).as_bytes()[..1024]).unwrap_err().status, 431);

        for text in [target(450), target(512), target(2000), value(room), value(room + 1), value(5000)] {
            assert_alone_or_not_is_the_same(text.as_bytes());
        }

        let fields = |count| format!("GET / HTTP/1.0\r\n{}\r\n", "a:b\r\n".repeat(count));
        assert_eq!(head(&fields(100)).fields().count(), 100);
        assert_eq!(refusal(fields(101)).status, 431);
        assert_alone_or_not_is_the_same(fields(100).as_bytes());
        assert_alone_or_not_is_the_same(fields(101).as_bytes());
    }

    #[test]
    fn the_absolute_form_names_the_host() {
        let absolute = head("GET http://a.example/p?q HTTP/1.1\r\nHost: b.example\r\n\r\n");
        assert_eq!((absolute.path(), absolute.query(), absolute.host()), ("/p", Some("q"), Some(&b"a.example"[..])));
        assert_eq!(absolute.target(), "http://a.example/p?q");
        assert_eq!(head("GET http://a.example?q HTTP/1.0\r\n\r\n").path(), "/");
        assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path(), "*");
    }

    #[test]
    fn an_empty_host_is_ignored_with_the_absolute_form_and_with_no_other() {
        assert_eq!(head("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n").host(), Some(&b"a"[..]));
        assert_eq!(refusal("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n").status, 400);
    }

    #[test]
    fn a_higher_minor_version_is_processed_as_1_1() {
        for minor in 2..10 {
            let text = format!("\r\nGET /a HTTP/1.{minor}\r\nHost: a\r\nX: HTTP/1.{minor}\r\n\r\nnext");
            let mut head = Head::default();
            for _ in 0..2 {
                assert_eq!(head.parse(text.as_bytes(), LIMITS), Ok(Some(text.len() - 4)));
                assert_eq!((head.minor(), head.path(), head.keep_alive()), (1, "/a", true));
                assert_eq!(head.field("x"), Some(format!("HTTP/1.{minor}").as_bytes()));
            }
            assert_alone_or_not_is_the_same(text[2..].strip_suffix("next").unwrap_or_default().as_bytes());
        }
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        for (minor, connection, keep_alive) in [
            (1, "", true),
            (1, "Connection: keep-alive\r\n", true),
            (1, "Connection: close\r\n", false),
            (1, "Connection: Upgrade, CLOSE\r\n", false),
            (1, "Connection: x\r\nConnection: close\r\n", false),
            (1, "Connection: closed\r\n", true),
            (0, "", false),
            (0, "Connection: Keep-Alive\r\n", true),
            (0, "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("GET / HTTP/1.{minor}\r\nHost: a\r\n{connection}\r\n");
            assert_eq!(head(&text).keep_alive(), keep_alive, "{text}");
        }
    }

    #[test]
    fn continue_is_expected_only_where_there_is_content_to_wait_for() {
        for (text, expects) in [
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: x, 100-continue\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", false),
            ("POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: more\r\n\r\n", false),
        ] {
            assert_eq!(head(text).expects_continue(), expects, "{text}");
        }
    }

    #[test]
    fn values_may_have_bytes_beyond_ascii() {
        let head = parse(b"GET / HTTP/1.0\r\nA: \xff\xe9\t\x80\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.field("a"), Some(&b"\xff\xe9\t\x80"[..]));
    }

    #[test]
    fn random_heads_never_panic_and_splits_do_not_matter() {
        const PIECES: &[&[u8]] = &[
            b"GET",
            b"POST",
            b"OPTIONS",
            b" ",
            b" ",
            b"/",
            b"/a?b",
            b"*",
            b"http://a",
            b"HTTP/1.1",
            b"HTTP/1.0",
            b"HTTP/2.0",
            b"\r\n",
            b"\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b"Host",
            b": ",
            b":",
            b"a",
            b"Content-Length: 5",
            b"\xff",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"\t",
            b"\0",
            b",",
            b"#",
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"GET /x HTTP/1.0\r\n",
        ];
        let mut random = Random(11);
        let mut complete = 0;
        for _ in 0..20_000 {
            let text: Vec<u8> =
                (0..random.below(14)).flat_map(|_| PIECES[random.below(PIECES.len())]).copied().collect();
            assert_prefixes_agree(&text);
            assert_alone_or_not_is_the_same(&[text.as_slice(), b"\r\n\r\n"].concat());
            complete += usize::from(parse(&text).is_ok_and(|head| head.is_some()));
        }
        assert!(complete > 100, "only {complete} inputs were heads");
    }

    /// Whatever the fast parser refuses, [`lines::check`] finds words for, and what that refuses is refused.
    #[test]
    fn both_parsers_agree_on_single_bytes() {
        let text = b"GET /a HTTP/1.1\r\nHost: a\r\nX: y z\r\n\r\n";
        for position in 0..text.len() {
            for byte in 0..=255 {
                let mut text = text.to_vec();
                text[position] = byte;
                assert_prefixes_agree(&text);
                if text.ends_with(b"\r\n\r\n") {
                    assert_alone_or_not_is_the_same(&text);
                }
                let lines::Scan::Complete { head } = lines::scan(&text, LIMITS.head_bytes_max) else { continue };
                let shown = text.escape_ascii().to_string();
                // A higher version is parsed as the known one.
                let known = lines::with_known_version(&text[..head]).unwrap_or(text[..head].to_vec());
                let fast = httparse::Request::new(&mut [httparse::EMPTY_HEADER; 8]).parse(&known).is_ok();
                let slow = lines::check_method(&text).and_then(|()| lines::check(&text[..head])).is_ok();
                assert!(fast || !slow, "{shown}");
                assert!(slow || parse(&text).is_err(), "{shown}");
            }
        }
    }
}
