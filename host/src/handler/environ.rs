//! The environ of one request (PEP 3333): every value is made when it is asked for, and not before.

use super::arena::Arena;
use crate::http::Framing;
use crate::request::Request;
use crate::sys::socket::Address;
use abi::ffi::host_str;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::ptr;

/// What is the same for all requests of a module.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// `DOCUMENT_ROOT`.
    pub(super) document_root: Option<CString>,
    /// Whether other threads of this process may call the module meanwhile.
    pub(super) multithread: bool,
    /// Whether other processes serve too.
    pub(super) multiprocess: bool,
    /// `--env` pairs of this module, then those of all.
    pub(super) pairs: Vec<(CString, CString)>,
}

/// The values that have been made.
#[derive(Default)]
pub(super) struct Environ {
    /// How many bytes of the decoded path are `SCRIPT_NAME`; the rest is `PATH_INFO`.
    script_name_bytes: usize,
    made: Vec<(Key, host_str)>,
}

/// A key that a request can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Pair(usize),
    Variable(Variable),
    /// The header fields with the same name as the one at this index, the first such.
    Field(usize),
}

/// Declares the variables with the names that the environ gives them.
macro_rules! variables {
    ($($name:ident $text:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Variable { $($name,)* }
        impl Variable {
            const ALL: &[Variable] = &[$(Variable::$name,)*];
            fn from_name(name: &[u8]) -> Option<Variable> {
                $(if name == $text { return Some(Variable::$name); })*
                None
            }
            fn name(self) -> &'static [u8] {
                match self { $(Variable::$name => $text,)* }
            }
        }
    };
}

variables! {
    RequestMethod b"REQUEST_METHOD",
    ScriptName b"SCRIPT_NAME",
    PathInfo b"PATH_INFO",
    QueryString b"QUERY_STRING",
    ContentType b"CONTENT_TYPE",
    ContentLength b"CONTENT_LENGTH",
    ServerName b"SERVER_NAME",
    ServerPort b"SERVER_PORT",
    ServerProtocol b"SERVER_PROTOCOL",
    ServerSoftware b"SERVER_SOFTWARE",
    RemoteAddr b"REMOTE_ADDR",
    RemotePort b"REMOTE_PORT",
    RequestUri b"REQUEST_URI",
    DocumentRoot b"DOCUMENT_ROOT",
    WsgiVersion b"wsgi.version",
    WsgiUrlScheme b"wsgi.url_scheme",
    WsgiMultithread b"wsgi.multithread",
    WsgiMultiprocess b"wsgi.multiprocess",
    WsgiRunOnce b"wsgi.run_once",
}

/// What every value is made of.
pub(super) struct Sources<'a> {
    pub(super) request: &'a Request,
    pub(super) surroundings: &'a Surroundings,
    pub(super) arena: &'a mut Arena,
}

impl Environ {
    /// Begins a request, for which nothing has been made.
    pub(super) fn begin(&mut self, script_name_bytes: usize) {
        self.script_name_bytes = script_name_bytes;
    }

    /// Ends the request: forgets its values.
    pub(super) fn end(&mut self) {
        self.script_name_bytes = 0;
        self.made.clear();
        self.made.shrink_to(MADE_KEPT);
    }

    /// The value of a key; absent is a null pointer, as is a value for which there is no memory.
    pub(super) fn value(&mut self, name: &[u8], sources: &mut Sources<'_>) -> host_str {
        let key = match sources.surroundings.pairs.iter().position(|(key, _)| key.as_bytes() == name) {
            Some(pair) => Key::Pair(pair),
            None => {
                let key = match name.strip_prefix(b"HTTP_") {
                    Some(name) => field_of(name, sources.request).map(Key::Field),
                    None => Variable::from_name(name).map(Key::Variable),
                };
                match key {
                    Some(key) => key,
                    None => return ABSENT,
                }
            }
        };
        self.make(key, sources)
    }

    /// Every key that has a value, with it.
    pub(super) fn all(&mut self, sources: &mut Sources<'_>) -> Vec<(host_str, host_str)> {
        let mut all = Vec::new();
        let pairs = &sources.surroundings.pairs;
        for pair in 0..pairs.len() {
            if pairs[..pair].iter().any(|(key, _)| *key == pairs[pair].0) {
                continue;
            }
            all.push((from_c(&pairs[pair].0), self.make(Key::Pair(pair), sources)));
        }
        let is_pair = |name: &[u8]| pairs.iter().any(|(key, _)| key.as_bytes() == name);
        for &variable in Variable::ALL {
            let value = self.make(Key::Variable(variable), sources);
            if !value.ptr.is_null() && !is_pair(variable.name()) {
                all.push((made(sources.arena.text(&[variable.name()])), value));
            }
        }
        for (index, (name, _)) in sources.request.head.fields().enumerate() {
            if !is_visible(name) || first_of(name, sources.request) != Some(index) {
                continue;
            }
            let upper: Vec<u8> = name.iter().copied().map(environ_byte).collect();
            if !is_pair(&[b"HTTP_", upper.as_slice()].concat()) {
                let key = made(sources.arena.text(&[b"HTTP_", &upper]));
                all.push((key, self.make(Key::Field(index), sources)));
            }
        }
        all.retain(|(key, value)| !key.ptr.is_null() && !value.ptr.is_null());
        all
    }

    fn make(&mut self, key: Key, sources: &mut Sources<'_>) -> host_str {
        // Made once: a handler that asks again and again takes no more memory.
        if let Some((_, value)) = self.made.iter().find(|(made, _)| *made == key) {
            return *value;
        }
        let value = match key {
            Key::Pair(pair) => return from_c(&sources.surroundings.pairs[pair].1),
            Key::Variable(variable) => self.variable(variable, sources),
            Key::Field(field) => field_value(field, sources),
        };
        self.made.push((key, value));
        value
    }

    fn variable(&self, variable: Variable, sources: &mut Sources<'_>) -> host_str {
        let Sources { request, surroundings, arena } = sources;
        let head = &request.head;
        let path = request.path.as_bytes();
        let flag = |on| from_c(if on { c"1" } else { c"0" });
        match variable {
            Variable::RequestMethod => match head.method() {
                "GET" => from_c(c"GET"),
                "HEAD" => from_c(c"HEAD"),
                "POST" => from_c(c"POST"),
                other => made(arena.text(&[other.as_bytes()])),
            },
            Variable::ScriptName => made(arena.text(&[&path[..self.script_name_bytes]])),
            Variable::PathInfo => made(arena.text(&[&path[self.script_name_bytes..]])),
            Variable::QueryString => match head.query() {
                None | Some("") => from_c(c""),
                Some(query) => made(arena.text(&[query.as_bytes()])),
            },
            Variable::ContentType => head.field("content-type").map_or(ABSENT, |value| made(arena.text(&[value]))),
            Variable::ContentLength => content_length(request, arena),
            Variable::ServerName => match head.host().map(host_without_port).filter(|host| !host.is_empty()) {
                Some(host) => made(arena.text(&[host])),
                None => match &*request.local {
                    Address::Unix(_) => from_c(c"localhost"),
                    local => address(local, arena),
                },
            },
            Variable::ServerPort => match head.host().and_then(port_of).filter(|port| !port.is_empty()) {
                Some(port) => made(arena.text(&[port])),
                None => match &*request.local {
                    // The port of the scheme: a Unix socket has none of its own, and this is never empty.
                    Address::Unix(_) => from_c(c"80"),
                    local => port(local, arena),
                },
            },
            Variable::ServerProtocol => from_c(if head.minor() == 0 { c"HTTP/1.0" } else { c"HTTP/1.1" }),
            Variable::ServerSoftware => from_c(SOFTWARE),
            Variable::RemoteAddr => address(&request.peer, arena),
            Variable::RemotePort => port(&request.peer, arena),
            Variable::RequestUri => made(arena.text(&[head.target().as_bytes()])),
            Variable::DocumentRoot => surroundings.document_root.as_deref().map_or(ABSENT, from_c),
            Variable::WsgiVersion => from_c(c"1.0"),
            Variable::WsgiUrlScheme => from_c(c"http"),
            Variable::WsgiMultithread => flag(surroundings.multithread),
            Variable::WsgiMultiprocess => flag(surroundings.multiprocess),
            Variable::WsgiRunOnce => flag(false),
        }
    }
}

/// The length of the content as the handler reads it, which for a chunked request is known once it is complete.
fn content_length(request: &Request, arena: &mut Arena) -> host_str {
    match request.head.framing() {
        Framing::None => ABSENT,
        Framing::Length(length) => number(length, arena),
        Framing::Chunked if request.input.complete => number(request.input.length(), arena),
        Framing::Chunked => ABSENT,
    }
}

/// The values of all fields of one name, joined (RFC 9110 §5.3; cookies by RFC 9113 §8.2.3).
fn field_value(first: usize, sources: &mut Sources<'_>) -> host_str {
    let Some((name, value)) = sources.request.head.fields().nth(first) else { return ABSENT };
    let same = |other: &[u8]| other.eq_ignore_ascii_case(name);
    if same(b"host") {
        // RFC 9112 §3.2.2: "When an origin server receives a request with an absolute-form of request-target, the origin
        // server MUST ignore the received Host header field (if any) and instead use the host information of the
        // request-target."
        return made(sources.arena.text(&[sources.request.head.host().unwrap_or_default()]));
    }
    if !sources.request.head.fields().skip(first + 1).any(|(other, _)| same(other)) {
        return made(sources.arena.text(&[value]));
    }
    let separator: &[u8] = if same(b"cookie") { b"; " } else { b", " };
    let values: Vec<_> =
        sources.request.head.fields().filter(|(other, _)| same(other)).map(|(_, value)| value).collect();
    made(sources.arena.text(&[&values.join(separator)]))
}

/// The first field whose name is that of an `HTTP_` key.
fn field_of(upper: &[u8], request: &Request) -> Option<usize> {
    request.head.fields().position(|(name, _)| is_named(name, upper) && is_visible(name))
}

/// Whether the key of a field of this name ends in `upper`.
fn is_named(name: &[u8], upper: &[u8]) -> bool {
    name.len() == upper.len() && name.iter().zip(upper).all(|(&byte, &upper)| environ_byte(byte) == upper)
}

fn first_of(name: &[u8], request: &Request) -> Option<usize> {
    request.head.fields().position(|(other, _)| other.eq_ignore_ascii_case(name))
}

/// Whether a field has an `HTTP_` key.
fn is_visible(name: &[u8]) -> bool {
    // SECURITY: `X_User` would become the key of `X-User`, which a front proxy may have checked; `Proxy` would become
    // HTTP_PROXY, which HTTP clients in handlers trust. PEP 3333 gives content type and length keys of their own.
    !name.contains(&b'_')
        && ![&b"proxy"[..], b"content-type", b"content-length"].iter().any(|hidden| name.eq_ignore_ascii_case(hidden))
}

fn environ_byte(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }
}

fn host_without_port(authority: &[u8]) -> &[u8] {
    split_authority(authority).0
}

fn port_of(authority: &[u8]) -> Option<&[u8]> {
    split_authority(authority).1
}

fn split_authority(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memrchr(b':', authority) {
        // An IPv6 literal has colons inside its brackets.
        Some(at) if !authority[at..].contains(&b']') => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    }
}

fn address(address: &Address, arena: &mut Arena) -> host_str {
    match address {
        Address::Tcp(address) => display(&address.ip(), arena),
        Address::Unix(_) => from_c(c""),
    }
}

fn port(address: &Address, arena: &mut Arena) -> host_str {
    match address {
        Address::Tcp(address) => number(address.port().into(), arena),
        Address::Unix(_) => from_c(c""),
    }
}

fn number(number: u64, arena: &mut Arena) -> host_str {
    display(&number, arena)
}

fn display(value: &dyn std::fmt::Display, arena: &mut Arena) -> host_str {
    // The longest is an IPv6 address with a scope: 45 bytes and a 10-digit scope.
    let mut text = [0; 64];
    let mut rest = &mut text[..];
    _ = write!(rest, "{value}");
    let left = rest.len();
    let length = text.len() - left;
    made(arena.text(&[&text[..length]]))
}

fn made(text: Option<(ptr::NonNull<u8>, usize)>) -> host_str {
    text.map_or(ABSENT, |(start, len)| host_str { ptr: start.as_ptr().cast(), len })
}

fn from_c(text: &CStr) -> host_str {
    host_str { ptr: text.as_ptr(), len: text.count_bytes() }
}

/// The list of more values than this is not kept for another request.
const MADE_KEPT: usize = 64;

/// No value.
pub(super) const ABSENT: host_str = host_str { ptr: ptr::null(), len: 0 };

const SOFTWARE: &CStr = match CStr::from_bytes_with_nul(concat!("host/", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(software) => software,
    Err(_) => c"host",
};
