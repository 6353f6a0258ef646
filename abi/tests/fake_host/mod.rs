//! A host of a page: Rust functions behind the C structs, enough to call an application, read its body to the end and
//! close it, and to tell what it did. It checks nothing of HTTP.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a double of the other side: all of a callback is one promise"
)]

use abi::ffi::*;
use abi::{Answer, Environ, StartResponse};
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::ptr;

/// What an application is asked.
#[derive(Default)]
pub struct Request {
    pub environ: Vec<(&'static str, &'static [u8])>,
    pub content: &'static [u8],
    /// What reading answers after the content, if not the end.
    pub read_failure: i64,
    /// Whether what is written at once reaches a client.
    pub client_has_left: bool,
}

/// What an application did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Status and header lines of the response that stands in the end; empty if none was started.
    pub head: String,
    /// What was written at once, and then the body's chunks.
    pub content: Vec<u8>,
    /// The body's `count`; none for an empty body.
    pub count: Option<i64>,
    /// What `next` failed with, or 0.
    pub failure: i32,
    /// Whether the connection had to be aborted: a restart came after content.
    pub aborted: bool,
    /// What was logged.
    pub errors: Vec<String>,
}

impl Outcome {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.content).expect("the content is text")
    }
}

/// Serves one request.
pub fn serve<R: Answer>(request: Request, application: impl FnOnce(&Environ, StartResponse<'_>) -> R) -> Outcome {
    // SAFETY: `serve_exported` calls it once, with the arguments of a call.
    serve_exported(request, |env, start| unsafe { abi::export::application(env, start, application) })
}

/// Serves one request with an exported function.
pub fn serve_exported(
    request: Request,
    application: impl FnOnce(*mut host_env, *mut host_start_response) -> *mut host_body,
) -> Outcome {
    let host = Box::into_raw(Box::new(Host::new(request)));
    // SAFETY: the host is alive until it is taken back below.
    unsafe {
        (*host).start.host = host;
        (*host).writer.host = host;
        let body = application(host.cast(), (&raw mut (*host).start).cast());
        (*host).called = true;
        if !body.is_null() {
            read_body(host, body);
        }
        let mut host = Box::from_raw(host);
        for body in host.bodies.drain(..) {
            drop(Box::from_raw(body));
        }
        host.outcome
    }
}

unsafe fn read_body(host: *mut Host, body: *mut host_body) {
    // SAFETY: a body lives until it is closed; it is read on another thread, which is joined, as the contract allows.
    unsafe {
        (*host).outcome.count = Some((*body).count);
        let (shared, next, close) = (Shared(host, body), (*body).next.expect("next is there"), (*body).close);
        std::thread::spawn(move || {
            let Shared(host, body) = { shared };
            let mut chunk = host_str::ABSENT;
            (*host).outcome.failure = loop {
                match next(body, &mut chunk) {
                    1 => (*host).outcome.content.extend(chunk.bytes().expect("a chunk is there")),
                    end => break end,
                }
            };
            if let Some(close) = close {
                close(body);
            }
        })
        .join()
        .expect("neither next nor close unwinds");
    }
}

struct Shared(*mut Host, *mut host_body);
// SAFETY: the thread that made it waits for the one that uses it.
unsafe impl Send for Shared {}

#[repr(C)]
struct Host {
    env: host_env,
    start: Linked<host_start_response>,
    writer: Linked<host_writer>,
    request: Request,
    /// The environ's values as the module sees them: they stay where they are.
    values: Vec<(CString, CString)>,
    read: usize,
    called: bool,
    bodies: Vec<*mut HostBody>,
    outcome: Outcome,
}

#[repr(C)]
struct Linked<T> {
    functions: T,
    host: *mut Host,
}

#[repr(C)]
struct HostBody {
    head: host_body,
    chunk: Option<Vec<u8>>,
    given: Vec<u8>,
}

impl Host {
    fn new(request: Request) -> Host {
        let string = |bytes: &[u8]| CString::new(bytes).expect("no NUL in the environ");
        Host {
            env: host_env {
                size: size_of::<host_env>() as u32,
                abi: HOST_ABI,
                get,
                each,
                read,
                readline,
                errors,
                alloc,
                bytes,
                file,
                extension,
            },
            start: Linked {
                functions: host_start_response { size: size_of::<host_start_response>() as u32, flags: 0, call },
                host: ptr::null_mut(),
            },
            writer: Linked {
                functions: host_writer { size: size_of::<host_writer>() as u32, flags: 0, write },
                host: ptr::null_mut(),
            },
            values: request.environ.iter().map(|(key, value)| (string(key.as_bytes()), string(value))).collect(),
            request,
            read: 0,
            called: false,
            bodies: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    fn make_body(&mut self, chunk: Option<Vec<u8>>) -> *mut host_body {
        let head = host_body { size: size_of::<host_body>() as u32, flags: 0, count: 1, next: Some(next), close: None };
        let body = Box::into_raw(Box::new(HostBody { head, chunk, given: Vec::new() }));
        self.bodies.push(body);
        body.cast()
    }

    fn take(&mut self, wanted: usize, through: Option<u8>) -> &'static [u8] {
        let rest = &self.request.content[self.read..];
        let line = through.and_then(|end| rest.iter().position(|byte| *byte == end)).map_or(rest.len(), |at| at + 1);
        let taken = &rest[..line.min(wanted)];
        self.read += taken.len();
        taken
    }
}

fn as_str(value: &CString) -> host_str {
    host_str { ptr: value.as_ptr(), len: value.as_bytes().len() }
}

unsafe extern "C" fn get(env: *mut host_env, key: host_str) -> host_str {
    // SAFETY: modules pass the environ that they were given, and a key that is alive.
    let (host, key) = unsafe { (&*env.cast::<Host>(), key.bytes().unwrap_or_default()) };
    host.values.iter().find(|(name, _)| name.as_bytes() == key).map_or(host_str::ABSENT, |(_, value)| as_str(value))
}

unsafe extern "C" fn each(env: *mut host_env, visit: Option<host_visit>, context: *mut c_void) -> i32 {
    let Some(visit) = visit else { return HOST_INVALID };
    // SAFETY: modules pass the environ that they were given; strings stay while it lives.
    let pairs: Vec<_> =
        unsafe { &*env.cast::<Host>() }.values.iter().map(|(key, value)| (as_str(key), as_str(value))).collect();
    // SAFETY: the module's own function and context.
    pairs.into_iter().map(|(key, value)| unsafe { visit(context, key, value) }).find(|answer| *answer != 0).unwrap_or(0)
}

unsafe extern "C" fn read(env: *mut host_env, buffer: *mut c_void, len: usize) -> i64 {
    // SAFETY: as the contract of `read`.
    unsafe { give(env, buffer, len, None) }
}

unsafe extern "C" fn readline(env: *mut host_env, buffer: *mut c_void, len: usize) -> i64 {
    // SAFETY: as the contract of `readline`.
    unsafe { give(env, buffer, len, Some(b'\n')) }
}

unsafe fn give(env: *mut host_env, buffer: *mut c_void, len: usize, through: Option<u8>) -> i64 {
    // SAFETY: modules pass the environ that they were given, and a buffer of that length.
    unsafe {
        let host = &mut *env.cast::<Host>();
        let taken = host.take(len, through);
        if taken.is_empty() {
            return host.request.read_failure;
        }
        ptr::copy_nonoverlapping(taken.as_ptr(), buffer.cast(), taken.len());
        taken.len() as i64
    }
}

unsafe extern "C" fn errors(env: *mut host_env, text: host_str) {
    // SAFETY: modules pass the environ that they were given, and a text that is alive.
    unsafe {
        let text = String::from_utf8_lossy(text.bytes().unwrap_or_default()).into_owned();
        (*env.cast::<Host>()).outcome.errors.push(text);
    }
}

unsafe extern "C" fn alloc(_env: *mut host_env, _size: usize) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn bytes(env: *mut host_env, chunk: host_str) -> *mut host_body {
    // SAFETY: modules pass the environ that they were given, and a chunk that is alive.
    unsafe { (*env.cast::<Host>()).make_body(Some(chunk.bytes().unwrap_or_default().to_vec())) }
}

unsafe extern "C" fn file(env: *mut host_env, fd: i32, offset: u64, len: u64) -> *mut host_body {
    // SAFETY: modules pass the environ that they were given, and a descriptor that is the host's from here.
    unsafe {
        let file = File::from_raw_fd(fd);
        let rest = file.metadata().expect("a file").len().saturating_sub(offset);
        let mut content = vec![0; rest.min(len) as usize];
        let chunk = file.read_exact_at(&mut content, offset).is_ok().then_some(content);
        (*env.cast::<Host>()).make_body(chunk)
    }
}

unsafe extern "C" fn extension(_env: *mut host_env, id: *const c_char) -> *const c_void {
    // SAFETY: modules pass an id that ends in NUL.
    let known = unsafe { CStr::from_ptr(id) } == c"test.known/1";
    if known { (&raw const HOST_ABI_HERE).cast() } else { ptr::null() }
}

static HOST_ABI_HERE: u32 = HOST_ABI;

unsafe extern "C" fn call(
    start: *mut host_start_response,
    status: host_str,
    headers: *const host_header,
    count: usize,
    exc_info: *const host_exc_info,
) -> *mut host_writer {
    // SAFETY: modules pass what they were given, and arguments that are alive.
    unsafe {
        let host = &mut *(*start.cast::<Linked<host_start_response>>()).host;
        let text = |string: host_str| String::from_utf8(string.bytes().unwrap_or_default().to_vec()).expect("text");
        let mut head = text(status);
        for header in std::slice::from_raw_parts(headers, count) {
            head += &format!("\n{}: {}", text(header.name), text(header.value));
        }
        if exc_info.is_null() && !host.outcome.head.is_empty() || head.contains('\r') {
            return ptr::null_mut();
        }
        if !exc_info.is_null() && !host.outcome.content.is_empty() {
            host.outcome.aborted = true;
            return ptr::null_mut();
        }
        host.outcome.head = head;
        (&raw mut host.writer).cast()
    }
}

unsafe extern "C" fn write(writer: *mut host_writer, data: host_str) -> i32 {
    // SAFETY: modules pass what they were given, and data that are alive.
    unsafe {
        let host = &mut *(*writer.cast::<Linked<host_writer>>()).host;
        if host.called {
            return HOST_STATE;
        }
        if host.request.client_has_left {
            return HOST_GONE;
        }
        host.outcome.content.extend(data.bytes().unwrap_or_default());
        0
    }
}

unsafe extern "C" fn next(body: *mut host_body, chunk: *mut host_str) -> i32 {
    // SAFETY: this is a body of `make_body`, and there is a place for the chunk.
    unsafe {
        let body = &mut *body.cast::<HostBody>();
        let Some(bytes) = body.chunk.take() else { return 0 };
        body.given = bytes;
        *chunk = host_str::new(&body.given);
        1
    }
}
