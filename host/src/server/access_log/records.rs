//! What a connection notes of its requests until their lines can be made.

use super::escape;
use super::lines::Lines;
use crate::config::AccessLogFormat;
use crate::http::Head;
use crate::server::extent::Extent;
use crate::server::output::Output;
use crate::sys::clock;
use crate::sys::crash::Suspect;
use crate::sys::socket::Address;
use std::io::Write;

/// The requests of a connection that have no line yet: those whose responses wait to be sent, and the one that is being
/// answered. Empty, and without memory, as long as there is no access log.
#[derive(Default)]
pub(in crate::server) struct Records {
    /// What their lines say of the requests, one behind the other.
    text: Vec<u8>,
    answered: Vec<Answered>,
    current: Option<Record>,
}

/// A request.
#[derive(Clone, Copy)]
struct Record {
    /// Where in the text the part of its line begins that comes before the numbers, where that which follows them does, and
    /// where that ends.
    text: [usize; 3],
    /// Since when, by the clock of [`clock::precise_us`]; 0 if nobody wants to know.
    since_us: u64,
    /// Whose build answers it.
    suspect: Option<&'static Suspect>,
}

/// A request whose response is complete, but may still have to be sent.
struct Answered {
    record: Record,
    extent: Extent,
    /// Where it ends in the connection's output.
    end: u64,
}

impl Records {
    /// A request begins.
    pub(in crate::server) fn begin(&mut self, lines: &Lines, peer: &Address, head: &Head) {
        self.start(lines, peer, |out, format| match format {
            AccessLogFormat::Json => {
                out.extend_from_slice(b"\"method\":\"");
                escape::json(out, head.method().as_bytes(), METHOD_BYTES_MAX);
                out.extend_from_slice(b"\",\"target\":\"");
                escape::json(out, head.target().as_bytes(), REQUEST_BYTES_MAX);
                // Writing to a Vec cannot fail.
                _ = write!(out, "\",\"protocol\":\"HTTP/1.{}\",", head.minor());
            }
            AccessLogFormat::Common | AccessLogFormat::Combined => {
                let line = head.raw().split(|byte| *byte == b'\r').next().unwrap_or_default();
                escape::text(out, line, REQUEST_BYTES_MAX);
            }
        });
        self.fields(lines, head.field("Referer"), head.field("User-Agent"));
    }

    /// An answer to what is no request, or not all of one: `received`.
    pub(in crate::server) fn begin_with(&mut self, lines: &Lines, peer: &Address, received: &[u8]) {
        if self.current.is_some() {
            return;
        }
        let mut parts = received.split(|byte| matches!(byte, b'\r' | b'\n'));
        // RFC 9112 §2.2: an empty line may come before the request.
        let line = parts.find(|line| !line.is_empty());
        self.start(lines, peer, |out, format| match (format, line) {
            (AccessLogFormat::Json, Some(line)) => {
                out.extend_from_slice(b"\"method\":null,\"target\":null,\"protocol\":null,\"request\":\"");
                escape::json(out, line, REQUEST_BYTES_MAX);
                out.extend_from_slice(b"\",");
            }
            (AccessLogFormat::Json, None) => {
                out.extend_from_slice(b"\"method\":null,\"target\":null,\"protocol\":null,");
            }
            (_, line) => escape::text(out, line.unwrap_or(b"-"), REQUEST_BYTES_MAX),
        });
        self.fields(lines, None, None);
    }

    /// A build answers it.
    pub(in crate::server) fn answered_by(&mut self, suspect: &'static Suspect) {
        if let Some(record) = &mut self.current {
            record.suspect = Some(suspect);
        }
    }

    /// Its response is complete, and sent, or waits to be.
    pub(in crate::server) fn complete(&mut self, output: &Output) {
        if let Some(record) = self.current.take() {
            self.answered.push(Answered { record, extent: output.extent(), end: output.position() });
        }
    }

    /// Makes the lines of those whose responses are over; `is_over`: there is no connection any more.
    pub(in crate::server) fn settle(&mut self, lines: &mut Lines, output: &Output, is_over: bool) {
        let sent = output.sent();
        let over = self.answered.iter().take_while(|answered| is_over || answered.end <= sent).count();
        for Answered { record, extent, end } in self.answered.drain(..over) {
            line(lines, &self.text, record, extent.until(end), sent, end <= sent);
        }
        if is_over && let Some(record) = self.current.take() {
            let extent = if output.begun { output.extent() } else { Extent::default() };
            line(lines, &self.text, record, extent, sent, false);
        }
    }

    /// Whether there is something to settle.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.answered.is_empty() && self.current.is_none()
    }

    /// Makes ready for another connection: what was noted is nobody's.
    pub(in crate::server) fn clear(&mut self) {
        self.answered.clear();
        self.current = None;
        self.rest();
    }

    /// Gives back what it will hardly need again; all lines have been made.
    pub(in crate::server) fn rest(&mut self) {
        debug_assert!(self.is_empty());
        if self.text.capacity() > KEPT_BYTES_MAX || self.answered.capacity() > KEPT_MAX {
            self.text.clear();
            self.text.shrink_to(KEPT_BYTES_MAX);
            self.answered.shrink_to(KEPT_MAX);
        }
    }

    fn start(&mut self, lines: &Lines, peer: &Address, request: impl FnOnce(&mut Vec<u8>, AccessLogFormat)) {
        if self.answered.is_empty() {
            self.text.clear();
        }
        let (start, out, format) = (self.text.len(), &mut self.text, lines.format());
        let is_json = format == AccessLogFormat::Json;
        if is_json {
            out.extend_from_slice(b"{\"time\":");
            out.extend_from_slice(lines.stamp());
            out.extend_from_slice(b",\"client\":\"");
            push_client(out, peer);
            out.extend_from_slice(b"\",");
            request(out, format);
        } else {
            push_client(out, peer);
            out.extend_from_slice(b" - - ");
            out.extend_from_slice(lines.stamp());
            out.extend_from_slice(b" \"");
            request(out, format);
            out.extend_from_slice(b"\" ");
        }
        let since_us = if is_json { clock::precise_us() } else { 0 };
        let text = [start, out.len(), out.len()];
        self.current = Some(Record { text, since_us, suspect: None });
    }

    fn fields(&mut self, lines: &Lines, referer: Option<&[u8]>, user_agent: Option<&[u8]>) {
        let (out, Some(record)) = (&mut self.text, &mut self.current) else { return };
        match lines.format() {
            AccessLogFormat::Common => {}
            AccessLogFormat::Combined => {
                for value in [referer, user_agent] {
                    out.extend_from_slice(b" \"");
                    escape::text(out, value.unwrap_or(b"-"), FIELD_BYTES_MAX);
                    out.push(b'"');
                }
            }
            AccessLogFormat::Json => {
                for (name, value) in [(&b"\"referer\":"[..], referer), (b"\"user_agent\":", user_agent)] {
                    out.extend_from_slice(name);
                    push_json(out, value);
                    out.push(b',');
                }
                record.text[1] = out.len();
            }
        }
        record.text[2] = out.len();
    }
}

/// Makes the line of a client who was sent away before it could ask.
pub(in crate::server) fn sent_away(lines: &mut Lines, peer: &Address, extent: Extent) {
    let mut records = Records::default();
    records.begin_with(lines, peer, b"");
    if let Some(record) = records.current.take() {
        line(lines, &records.text, record, extent, u64::MAX, true);
    }
}

/// Makes the line of a request whose response is over: all of it, or what of it has been sent.
fn line(lines: &mut Lines, text: &[u8], record: Record, extent: Extent, sent: u64, is_complete: bool) {
    let Record { text: [start, middle, end], since_us, suspect } = record;
    let (before, after) = (&text[start..middle], &text[middle..end]);
    let (head_bytes, bytes) = (extent.head_sent(sent), extent.content_sent(sent));
    // A client who has got nothing has no status either.
    let status = if head_bytes > 0 || is_complete { extent.status } else { 0 };
    let is_json = lines.format() == AccessLogFormat::Json;
    lines.push(|out| {
        out.extend_from_slice(before);
        // Writing to a Vec cannot fail.
        _ = match (is_json, status) {
            (true, 0) => out.write_all(b"\"status\":null"),
            (true, status) => write!(out, "\"status\":{status}"),
            (false, 0) => out.write_all(b"-"),
            (false, status) => write!(out, "{status}"),
        };
        if !is_json {
            _ = if bytes == 0 { out.write_all(b" -") } else { write!(out, " {bytes}") };
            out.extend_from_slice(after);
            return;
        }
        let duration_us = clock::precise_us().saturating_sub(since_us);
        _ = write!(out, ",\"bytes\":{bytes},\"head_bytes\":{head_bytes},\"duration_us\":{duration_us}");
        _ = write!(out, ",\"complete\":{is_complete},\"module\":");
        let module = suspect.map(|suspect| suspect.module.as_bytes());
        push_json(out, module);
        _ = match suspect {
            Some(suspect) => write!(out, ",\"generation\":{}}}", suspect.generation),
            None => out.write_all(b",\"generation\":null}"),
        };
    });
}

/// Without the port, which tells nothing a second later.
fn push_client(out: &mut Vec<u8>, peer: &Address) {
    // Writing to a Vec cannot fail.
    _ = match peer {
        Address::Tcp(address) => write!(out, "{}", address.ip()),
        Address::Unix(_) => out.write_all(b"unix:"),
    };
}

fn push_json(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else { return out.extend_from_slice(b"null") };
    out.push(b'"');
    escape::json(out, value, FIELD_BYTES_MAX);
    out.push(b'"');
}

/// Of a request line, or of a target.
const REQUEST_BYTES_MAX: usize = 2048;

/// Of each field, and of a module's name.
const FIELD_BYTES_MAX: usize = 512;

/// Of a method, where it stands alone.
const METHOD_BYTES_MAX: usize = 64;

/// Memory that an empty record keeps.
const KEPT_BYTES_MAX: usize = 8 * 1024;
const KEPT_MAX: usize = 64;
