//! `host replay`: sends the request of an incident again, as it was kept, and prints what comes back.

use super::find::{self, Found, Wanted};
use crate::config::Bind;
use crate::exit::Exit;
use crate::http::Framing;
use crate::http::content::Decoder;
use crate::supervisor::incident;
use anyhow::{Context, Result, bail, ensure};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sends the request of that incident. It is a success if an answer comes that blames no server.
pub(super) fn replay(server: &Wanted, number: u64, to: Option<&Bind>) -> Result<Exit> {
    let found = find::find(server)?;
    let request = request(&incident::folder(&found.folder), number)?;
    let to = match to {
        Some(to) => to.clone(),
        None => first_listener(&found)?,
    };
    let mut connection = connect(&to).with_context(|| format!("cannot connect to {to}"))?;
    // A server that has answered may not read all of it: its answer counts.
    let sent = connection.write_all(&request);
    let answer = receive(connection.as_mut(), &mut io::stdout().lock()).with_context(|| format!("{to} did not answer"));
    match (answer, sent) {
        (Ok(status), _) => Ok(if status < 500 { Exit::Success } else { Exit::Failure }),
        (Err(_), Err(error)) => Err(error).with_context(|| format!("cannot send the request to {to}")),
        (Err(error), Ok(())) => Err(error),
    }
}

/// The bytes to send. What they lack is told.
fn request(folder: &Path, number: u64) -> Result<Vec<u8>> {
    let (record, bytes) = match incident::read(folder, number) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let numbers = incident::numbers(folder).unwrap_or_default();
            match (numbers.first(), numbers.last()) {
                (Some(first), Some(last)) => {
                    bail!("no incident {number}; there are {first} to {last}, see host status")
                }
                _ => bail!("no incident {number}; there is none"),
            }
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read incident {number}")),
    };
    let Some(kept) = record.request else { bail!("the request of incident {number} is not known") };
    if let Some(missing) = kept.missing {
        bail!("the request of incident {number} cannot be sent again: {missing}");
    }
    if !kept.redacted.is_empty() {
        let names = kept.redacted.join(", ");
        // A closed standard error leaves nobody to tell.
        _ = writeln!(io::stderr(), "note: these were not kept, and are sent as \"redacted\": {names}");
    }
    once(&bytes).with_context(|| format!("the request of incident {number} makes no sense"))
}

/// The request, with a connection that ends after its answer.
fn once(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let (head, rest) = bytes.split_at(end);
    let is_connection = |line: &[u8]| {
        line.split(|byte| *byte == b':').next().is_some_and(|name| name.eq_ignore_ascii_case(b"Connection"))
    };
    let mut lines: Vec<_> = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end()).collect();
    lines.retain(|line| !is_connection(line));
    lines.push(b"Connection: close");
    Some([&lines.join(&b"\r\n"[..]), rest].concat())
}

fn first_listener(found: &Found) -> Result<Bind> {
    let first = found.identity.listeners.first().context("the server does not listen any more; it is stopping")?;
    first.parse()
}

/// A stream of either kind.
trait Connection: Read + Write {}
impl<S: Read + Write> Connection for S {}

fn connect(to: &Bind) -> Result<Box<dyn Connection>> {
    match to {
        Bind::Tcp(address) => {
            // What listens everywhere listens here.
            let here = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            let stream = TcpStream::connect_timeout(&SocketAddr::new(here, address.port()), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Box::new(stream))
        }
        Bind::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Box::new(stream))
        }
        Bind::Inherited(_) => bail!("a descriptor is no address; say PORT, IP:PORT or unix:PATH"),
    }
}

/// Passes an answer on, without the framing of its content, and gives its status.
fn receive(from: &mut dyn Connection, out: &mut dyn Write) -> Result<u16> {
    let mut bytes = Vec::new();
    let (status, length, chunked) = loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&bytes).context("the answer is not HTTP")? {
            httparse::Status::Complete(end) => {
                let status = response.code.unwrap_or_default();
                let value = |name: &str| {
                    let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
                    field.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::to_owned)
                };
                let length = value("Content-Length").and_then(|value| value.parse::<u64>().ok());
                let chunked = value("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
                out.write_all(&bytes[..end])?;
                bytes.drain(..end);
                if status >= 200 {
                    break (status, length, chunked);
                }
            }
            httparse::Status::Partial => {
                ensure!(bytes.len() <= HEAD_BYTES_MAX, "the head of the answer is longer than {HEAD_BYTES_MAX} bytes");
                ensure!(
                    read(from, &mut bytes)? > 0,
                    "the connection ended before an answer came: the handler crashed?"
                );
            }
        }
    };
    let mut decoder = if chunked { Some(Decoder::new(Framing::Chunked, u64::MAX)) } else { None }.transpose();
    let mut passed = 0;
    loop {
        if let Ok(Some(decoder)) = &mut decoder {
            let mut taken = 0;
            while let (count @ 1.., content) = decoder.decode(&bytes[taken..]).ok().context("bad chunks")? {
                out.write_all(&bytes[taken..][content])?;
                taken += count;
            }
        } else {
            out.write_all(&bytes)?;
            passed += bytes.len() as u64;
        }
        bytes.clear();
        match read(from, &mut bytes) {
            Ok(0) => break,
            Ok(_) => {}
            // An abort, which a client shall be able to tell from an end.
            Err(error) => return Err(error).context("the answer was cut: the handler crashed?"),
        }
    }
    let is_whole = match &decoder {
        Ok(Some(decoder)) => decoder.is_done(),
        // An answer to HEAD, or 304, has a length and no content.
        _ => passed == 0 || length.is_none_or(|length| passed == length),
    };
    ensure!(is_whole, "the answer was cut: the handler crashed?");
    Ok(status)
}

fn read(from: &mut dyn Connection, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; READ_BYTES];
    let count = loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => break done?,
        }
    };
    bytes.extend_from_slice(&buffer[..count]);
    Ok(count)
}

/// Without a byte in either direction.
const PATIENCE: Duration = Duration::from_secs(60);

const HEAD_BYTES_MAX: usize = 256 * 1024;

const FIELDS_MAX: usize = 256;

const READ_BYTES: usize = 16 * 1024;
