//! A blocking HTTP/1.1 client that hides nothing: exact bytes go out, and what comes in is read strictly by
//! RFC 9112, so that a mistake of the server is an error here and no courtesy repairs it.

use crate::PATIENCE;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A head that is longer than this is a mistake.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// One connection. Bytes that follow a response are kept for the next one, so requests may be pipelined.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    stream: S,
    received: Vec<u8>,
    tolerant: bool,
}

/// One response, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status line and the fields as they came, with the empty line.
    pub head: String,
    /// The minor version: 1, unless the reader is [tolerant](Client::tolerant).
    pub minor: u8,
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// The fields in order, names as they came.
    pub fields: Vec<(String, String)>,
    /// The content, without chunked framing.
    pub body: Vec<u8>,
    /// How the content's end was known.
    pub framing: Framing,
}

/// How the end of a response's content is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There can be none: to HEAD, 1xx, 204, 304.
    None,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The connection's end.
    Close,
}

impl Client<TcpStream> {
    /// Connects over TCP.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }

    /// Says that no more requests come; responses can still be read.
    ///
    /// # Errors
    /// Those of shutdown(2).
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Client<UnixStream> {
    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }
}

impl<S: Read + Write> Client<S> {
    /// Speaks over any stream.
    pub fn over(stream: S) -> Self {
        Self { stream, received: Vec::new(), tolerant: false }
    }

    /// Takes whatever the RFCs allow a server to send, and not only what `host` sends: HTTP/1.0, values without a space
    /// before them, bytes beyond ASCII, chunk extensions, trailers. For servers of others.
    pub fn tolerant(self) -> Self {
        Self { tolerant: true, ..self }
    }

    /// GETs `path` and keeps the connection.
    ///
    /// # Errors
    /// Those of [`Client::send`] and [`Client::response`].
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, &[], b"")
    }

    /// Sends a request with `Host`, and with `Content-Length` if there is content, and reads its response.
    ///
    /// # Errors
    /// Those of [`Client::send`] and [`Client::response`].
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        for (name, value) in fields {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        if !body.is_empty() {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        self.send(&bytes)?;
        self.response_to(method)
    }

    /// Sends exactly these bytes.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads the next response, to a request other than HEAD. An interim response (1xx) counts as one.
    ///
    /// # Errors
    /// `UnexpectedEof` if the server closed before its end, `InvalidData` if it breaks RFC 9112, a time-out.
    pub fn response(&mut self) -> io::Result<Response> {
        self.response_to("GET")
    }

    /// Reads the next response, to a request of this method.
    ///
    /// # Errors
    /// As [`Client::response`].
    pub fn response_to(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.head()?;
        let length = response.single("Content-Length")?.map(str::to_owned);
        let coding = response.single("Transfer-Encoding")?.map(str::to_owned);
        if length.is_some() && coding.is_some() {
            return Err(invalid("both Content-Length and Transfer-Encoding"));
        }
        if method == "HEAD" || response.status < 200 || matches!(response.status, 204 | 304) {
            return Ok(response);
        }
        if let Some(coding) = coding {
            // RFC 9112 §7: names of codings are case-insensitive.
            if coding != "chunked" && !(self.tolerant && coding.eq_ignore_ascii_case("chunked")) {
                return Err(invalid(format!("Transfer-Encoding {coding:?}")));
            }
            response.framing = Framing::Chunked;
            response.body = self.chunks()?;
        } else if let Some(length) = length {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().ok().filter(|_| digits);
            response.framing = Framing::Length;
            response.body = self.exactly(length.ok_or_else(|| invalid("Content-Length is no number"))?)?;
        } else {
            response.framing = Framing::Close;
            response.body = self.rest()?;
        }
        Ok(response)
    }

    /// Everything until the server closes, unparsed.
    ///
    /// # Errors
    /// A reset, or a time-out because the server does not close.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.received);
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(invalid("a head without end"));
            }
            self.receive()?;
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        match String::from_utf8(head) {
            Ok(head) => parse_head(head, self.tolerant),
            Err(error) if self.tolerant => {
                parse_head(error.as_bytes().iter().map(|byte| char::from(*byte)).collect(), true)
            }
            Err(_) => Err(invalid("a head that is not UTF-8")),
        }
    }

    /// The chunked coding (RFC 9112 §7.1), its last chunk and empty trailer included.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut size = self.line()?;
            if self.tolerant
                && let Some(extension) = size.find(';')
            {
                size.truncate(size[..extension].trim_end_matches([' ', '\t']).len());
            }
            let size = usize::from_str_radix(&size, 16).map_err(|_| invalid(format!("chunk size {size:?}")))?;
            if size == 0 {
                return loop {
                    match self.line()?.as_str() {
                        "" => break Ok(body),
                        trailer if self.tolerant && trailer.contains(':') => {}
                        other => break Err(invalid(format!("trailer {other:?}"))),
                    }
                };
            }
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(invalid("a chunk without CRLF at its end"));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.received.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map_err(|_| invalid("a line that is not UTF-8"));
            }
            self.receive()?;
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            self.receive()?;
        }
        Ok(self.received.drain(..length).collect())
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer)? {
            0 if self.received.is_empty() => Err(Error::new(ErrorKind::UnexpectedEof, "closed between responses")),
            0 => Err(Error::new(ErrorKind::UnexpectedEof, "closed within a response")),
            count => {
                self.received.extend(&buffer[..count]);
                Ok(())
            }
        }
    }
}

impl Response {
    /// The value of the first field of that name, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(its, _)| its.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The content as text.
    ///
    /// # Panics
    /// It is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the content is UTF-8")
    }

    /// Whether the server said that it closes (RFC 9112 §9.3).
    pub fn closes(&self) -> bool {
        self.framing == Framing::Close
            || self.has("Connection", "close")
            || self.minor == 0 && !self.has("Connection", "keep-alive")
    }

    /// Whether the fields of that name, as one list, have this element, both in any case.
    pub fn has(&self, name: &str, element: &str) -> bool {
        let values = self.fields.iter().filter(|(its, _)| its.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(element))
    }

    /// The value of a field that must not come twice.
    fn single(&self, name: &str) -> io::Result<Option<&str>> {
        match self.fields.iter().filter(|(its, _)| its.eq_ignore_ascii_case(name)).count() {
            0 | 1 => Ok(self.field(name)),
            _ => Err(invalid(format!("{name} came twice"))),
        }
    }
}

/// One GET over a connection of its own.
///
/// # Errors
/// Those of [`Client`].
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    Client::connect(address)?.request("GET", path, &[("Connection", "close")], b"")
}

/// Sends `bytes` and gives everything that came until the server closed.
///
/// # Errors
/// Those of [`Client`]; a time-out if the server does not close.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut client = Client::connect(address)?;
    client.send(bytes)?;
    client.rest()
}

fn parse_head(head: String, tolerant: bool) -> io::Result<Response> {
    let mut lines = head.strip_suffix("\r\n\r\n").unwrap_or(&head).split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let bad = || invalid(format!("status line {status_line:?}"));
    // RFC 9112 §4: the space before the reason stays even if the reason is empty.
    let (minor, rest) = match (status_line.strip_prefix("HTTP/1.1 "), status_line.strip_prefix("HTTP/1.0 ")) {
        (Some(rest), _) => (1, rest),
        (None, Some(rest)) if tolerant => (0, rest),
        _ => return Err(bad()),
    };
    let (code, reason) = rest.split_once(' ').ok_or_else(bad)?;
    let status = code.parse().ok().filter(|code| (100..=999).contains(code)).ok_or_else(bad)?;
    if code.len() != 3 || reason.contains(char::is_control) {
        return Err(bad());
    }
    let mut fields = Vec::new();
    for line in lines {
        let parts = match tolerant {
            // RFC 9112 §5: OWS on both sides of the value.
            true => line.split_once(':').map(|(name, value)| (name, value.trim_matches([' ', '\t']))),
            false => line.split_once(": "),
        };
        let (name, value) = parts.ok_or_else(|| invalid(format!("field line {line:?}")))?;
        if name.is_empty() || name.contains(char::is_whitespace) || line.contains(['\r', '\n', '\0']) {
            return Err(invalid(format!("field line {line:?}")));
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    let reason = reason.to_owned();
    Ok(Response { head, minor, status, reason, fields, body: Vec::new(), framing: Framing::None })
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that answers with fixed bytes and takes whatever is sent.
    struct Canned(io::Cursor<&'static [u8]>);

    impl Read for Canned {
        // One byte at a time: whatever depends on where reads end shows.
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn client(bytes: &'static str) -> Client<Canned> {
        Client::over(Canned(io::Cursor::new(bytes.as_bytes())))
    }

    #[test]
    fn every_framing_is_read_and_the_next_response_follows() {
        let mut client = client(concat!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b: c\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.1 299 \r\nConnection: close\r\n\r\nthe rest"
        ));
        let first = client.get("/").unwrap();
        assert_eq!((first.text(), first.field("x-a"), first.framing), ("hello", Some("b: c"), Framing::Length));
        let second = client.response().unwrap();
        assert_eq!((second.text(), second.framing), ("abc0123456789", Framing::Chunked));
        assert_eq!(client.response().unwrap().status, 100);
        assert_eq!(client.response().unwrap().body, b"");
        let last = client.response().unwrap();
        assert_eq!((last.text(), last.reason.as_str(), last.closes()), ("the rest", "", true));
        assert_eq!(client.response().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_tolerant_reader_takes_what_is_allowed_and_no_more() {
        let mut client = client(concat!(
            "HTTP/1.0 200 OK\r\nA:b \r\nConnection: x, Keep-Alive\r\nContent-Length:1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3 ;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
        ))
        .tolerant();
        let first = client.get("/").unwrap();
        assert_eq!((first.minor, first.field("a"), first.text(), first.closes()), (0, Some("b"), "a", false));
        assert_eq!(client.response().unwrap().text(), "abc");
        assert!(client.response().unwrap().closes());
        assert_eq!(client.response().unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_response_to_head_has_no_content() {
        let mut client = client("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(client.request("HEAD", "/", &[], b"").unwrap().framing, Framing::None);
        assert_eq!(client.response().unwrap().status, 204);
    }

    #[test]
    fn what_breaks_the_rules_is_an_error() {
        for bytes in [
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        ] {
            assert_eq!(client(bytes).response().unwrap_err().kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
        for bytes in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"] {
            assert_eq!(client(bytes).response().unwrap_err().kind(), ErrorKind::UnexpectedEof, "{bytes:?}");
        }
    }
}
