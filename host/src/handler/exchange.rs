//! One request as a module sees it: the `env`, `start_response` and `write` objects of the ABI, and what they have done.
//!
//! The three objects and their state live in one allocation, so that a pointer to any of them leads to the state. While
//! a module's code runs, no Rust reference into the allocation exists; each callback makes one and lets it go.
//!
//! The allocation outlives its request: it is used again by another request of the same thread, so that a small request
//! allocates nothing. Between requests it has neither data nor pointers of any, and its functions refuse, as they do
//! between the calls of a request.

use super::arena::Arena;
use super::body::{Content, HostBody};
use super::environ::{ABSENT, Environ, Sources};
use super::foreign::Foreign;
use super::generation::{Generation, no_extension};
use crate::request::{Excerpt, Request};
use crate::response::{FieldError, Fields, Status, Wire, WireError};
use crate::sys::crash::{self, CalledBack, Fault, Subject};
use abi::ffi::*;
use rustix::fs::OFlags;
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::mem::{self, offset_of, size_of};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The allocation.
#[repr(C)]
struct Exchange {
    objects: Objects,
    state: State,
}

/// What the module sees.
#[repr(C)]
struct Objects {
    env: host_env,
    start_response: host_start_response,
    writer: host_writer,
}

/// What a request has come to.
#[derive(Default)]
pub(super) struct State {
    /// The build that answers it; none between requests.
    pub(super) generation: Option<Arc<Generation>>,
    /// The request itself.
    pub(super) request: Option<Box<Request>>,
    /// The head, once `start_response` was called.
    pub(super) started: Option<(Status, Fields)>,
    /// The head is with the server: it cannot be replaced any more.
    pub(super) committed: bool,
    /// The response cannot be completed: the connection must be aborted.
    pub(super) aborted: bool,
    /// Content has been sent by `write`.
    pub(super) written: bool,
    environ: Environ,
    arena: Arena,
    /// By pointer, because the module has the pointers.
    bodies: Vec<NonNull<HostBody>>,
    /// One that no module has, to be used again.
    spare_body: Option<NonNull<HostBody>>,
    during: During,
    /// Why the content can be read no further, for ever.
    read_failure: Option<i32>,
    /// Why nothing can be written any more.
    write_failure: Option<i32>,
}

/// Which call into the module is under way.
#[derive(Default)]
enum During {
    #[default]
    None,
    Application(*mut dyn Wire),
    Next(*mut dyn Wire),
    Close,
}

/// The owner of an exchange.
pub(super) struct Held(NonNull<Exchange>);

// SAFETY: the exchange belongs to one holder, who may pass it to another thread between calls; the raw pointers in it
// point to memory that it owns itself, or exist only during a call.
unsafe impl Send for Held {}

impl Held {
    /// An exchange in which nothing has happened yet.
    pub(super) fn new(generation: Arc<Generation>, request: Box<Request>, script_name_bytes: usize) -> Held {
        let exchange = SPARE.try_with(|spare| spare.0.take()).ok().flatten();
        let exchange = exchange.unwrap_or_else(|| {
            let fresh = Box::new(Exchange { objects: OBJECTS, state: State::default() });
            NonNull::from(Box::leak(fresh))
        });
        let mut held = Held(exchange);
        // A module can write to the objects: what one has done to them must not meet the next.
        // SAFETY: the exchange is alive, begins with the objects, and nobody else uses it.
        unsafe { exchange.cast::<Objects>().write(OBJECTS) };
        let state = held.state();
        state.generation = Some(generation);
        state.request = Some(request);
        state.environ.begin(script_name_bytes);
        held.attend();
        held
    }

    /// Says that the call of this thread is about this request.
    pub(super) fn attend(&self) {
        crash::call_is_about(Some(Subject(self.0.cast())));
    }

    /// The state, between calls.
    pub(super) fn state(&mut self) -> &mut State {
        // SAFETY: no call is under way, or this is the thread of its callback: nobody else has a reference.
        unsafe { &mut (*self.0.as_ptr()).state }
    }

    /// Calls the application.
    pub(super) fn call_application(&mut self, application: host_application, wire: &mut dyn Wire) -> *mut host_body {
        self.state().during = During::Application(erase(wire));
        let exchange = self.0.as_ptr();
        // SAFETY: the exchange is alive; the pointer keeps the provenance of the whole allocation.
        let start_response = unsafe { &raw mut (*exchange).objects.start_response };
        // SAFETY: the function has the ABI's type, both objects live until the exchange ends, and this holder is in the
        // only call of this request.
        let body = crash::foreign(|| unsafe { application(exchange.cast(), start_response) });
        self.state().during = During::None;
        body
    }

    /// Runs a call to the body's `next`.
    pub(super) fn during_next<R>(&mut self, wire: &mut dyn Wire, call: impl FnOnce() -> R) -> R {
        self.state().during = During::Next(erase(wire));
        let result = call();
        self.state().during = During::None;
        result
    }

    /// Runs a call to the body's `close`.
    pub(super) fn during_close(&mut self, call: impl FnOnce()) {
        self.state().during = During::Close;
        call();
        self.state().during = During::None;
    }

    /// Takes a body that the host made for this request, if that is one.
    pub(super) fn take_host_body(&mut self, at: *mut host_body) -> Option<Content> {
        let state = self.state();
        let index = state.bodies.iter().position(|body| ptr::addr_eq(body.as_ptr(), at))?;
        let mut body = state.bodies.swap_remove(index);
        // SAFETY: `keep` leaked the box, and the module has given the body back: no other reference to it exists.
        let content = unsafe { body.as_mut() }.take_rest();
        state.retire(body);
        Some(content)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        crash::call_is_about(None);
        self.state().reset();
        // To this thread, where the next request is most likely to find it in the processor's caches. One is enough: a
        // thread is in one call at a time. A thread that is ending has no place for it any more.
        let surplus = SPARE.try_with(|spare| spare.0.replace(Some(self.0))).unwrap_or(Some(self.0));
        surplus.into_iter().for_each(free);
    }
}

/// The beginning of the request that a call was about which has crashed.
pub fn excerpt(fault: &Fault) -> Option<Excerpt> {
    let exchange: NonNull<Exchange> = fault.subject?.0.cast();
    // SAFETY: only `Held::attend` says what a call is about, and `Held` says when that ends. So it was an exchange when its
    // thread crashed; the thread, which held it, never runs again, and nobody else changes or frees it. What it was in the
    // middle of changing in it is no part of the request's head or content.
    let request = unsafe { &(*exchange.as_ptr()).state.request };
    request.as_deref().map(Request::excerpt)
}

/// An exchange that no request uses.
struct Spare(Cell<Option<NonNull<Exchange>>>);

impl Drop for Spare {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(free);
    }
}

thread_local! {
    static SPARE: Spare = const { Spare(Cell::new(None)) };
}

/// Frees an exchange of which the caller is the only owner.
fn free(exchange: NonNull<Exchange>) {
    // SAFETY: `Held::new` leaked the box; `Held` and `Spare` hand it over before they come here.
    drop(unsafe { Box::from_raw(exchange.as_ptr()) });
}

const OBJECTS: Objects = Objects {
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
    start_response: host_start_response {
        size: size_of::<host_start_response>() as u32,
        flags: 0,
        call: start_response,
    },
    writer: host_writer { size: size_of::<host_writer>() as u32, flags: 0, write },
};

impl State {
    /// Ends the request: frees or forgets all that is of it, and keeps some ordinary memory for another one.
    fn reset(&mut self) {
        self.take_bodies_back();
        // By name, all of them: the compiler asks about a field that is added.
        let State {
            generation,
            request,
            started,
            committed,
            aborted,
            written,
            environ,
            arena,
            bodies,
            spare_body: _,
            during,
            read_failure,
            write_failure,
        } = self;
        (*generation, *request, *started) = (None, None, None);
        (*committed, *aborted, *written) = (false, false, false);
        environ.end();
        arena.clear();
        bodies.shrink_to(BODIES_KEPT);
        *during = During::None;
        (*read_failure, *write_failure) = (None, None);
    }

    /// Ends the request, and gives it back to the server.
    pub(super) fn take_request(&mut self) -> Option<Box<Request>> {
        self.take_bodies_back();
        self.request.take()
    }

    /// Takes the bodies back that the module has made and not returned, and their memory.
    fn take_bodies_back(&mut self) {
        while let Some(mut body) = self.bodies.pop() {
            // SAFETY: `keep` leaked the box, and the request, in which alone the module may use it, is over.
            let content = unsafe { body.as_mut() }.take_rest();
            if let (Content::Bytes(bytes), Some(request)) = (content, &mut self.request) {
                request.spare.take_content_back(bytes);
            }
            self.retire(body);
        }
    }

    /// Keeps a body without content for another use, or frees it.
    fn retire(&mut self, body: NonNull<HostBody>) {
        if let Some(surplus) = self.spare_body.replace(body) {
            // SAFETY: `keep` leaked the box, and this was the only note of it.
            drop(unsafe { Box::from_raw(surplus.as_ptr()) });
        }
    }

    /// The request line, for the log.
    pub(super) fn request_line(&self) -> String {
        let Some(request) = &self.request else { return String::new() };
        format!("{} {}", request.head.method(), request.head.target())
    }

    /// Logs what a module did wrong.
    pub(super) fn complain(&self, what: &str) {
        let Some(generation) = &self.generation else { return };
        tracing::error!("{} generation {}: {what} ({})", generation.module, generation.number, self.request_line());
    }

    fn start(&mut self, status: &[u8], headers: &[host_header], exc_info: Option<&[u8]>) -> Result<(), String> {
        if let Some(message) = exc_info {
            if !message.is_empty() {
                self.complain(&format!("start_response with exc_info: {}", String::from_utf8_lossy(message)));
            }
            if self.committed {
                self.aborted = true;
                return Err("the head has been sent already; the connection is aborted".to_owned());
            }
        } else if self.started.is_some() || self.committed {
            return Err("start_response was called twice without exc_info".to_owned());
        }
        let status = Status::parse(status).ok_or_else(|| {
            format!("malformed status {:?}; write it like \"200 OK\", from 200 to 999", String::from_utf8_lossy(status))
        })?;
        let mut spare = self.request.as_mut().map(|request| &mut request.spare);
        let mut fields = spare.as_mut().map(|spare| mem::take(&mut spare.fields)).unwrap_or_default();
        let pushed = if fields.are(headers.iter().map(parts)) {
            Ok(())
        } else {
            fields = fields.emptied();
            push_all(&mut fields, headers)
        };
        // What is not sent gives its memory back: the fields that are refused, or those that are replaced.
        let unsent = match pushed {
            Ok(()) => self.started.replace((status, fields)).map(|(_, former)| former),
            Err(_) => Some(fields),
        };
        if let Some((spare, unsent)) = spare.zip(unsent) {
            spare.take_back(unsent, Vec::new());
        }
        pushed
    }

    fn write(&mut self, data: &[u8]) -> i32 {
        let During::Application(wire) = self.during else {
            self.complain("write was called after application had returned");
            return HOST_STATE;
        };
        let Some((status, fields)) = &self.started else { return HOST_STATE };
        if let Some(failure) = self.write_failure {
            return failure;
        }
        if data.is_empty() {
            return 0;
        }
        self.committed = true;
        self.written = true;
        // SAFETY: `call_application` borrows the wire until the call, in which we are, is over.
        let wire = unsafe { &mut *wire };
        self.write_failure = wire.write(status, fields, data).err().map(code_of);
        self.write_failure.unwrap_or(0)
    }

    fn read(&mut self, buffer: &mut [u8], line: bool) -> i64 {
        if let Some(failure) = self.read_failure {
            return failure.into();
        }
        let count = self.read_on(buffer, line);
        if count < 0 && count != i64::from(HOST_STATE) {
            self.read_failure = i32::try_from(count).ok();
        }
        count
    }

    fn read_on(&mut self, buffer: &mut [u8], line: bool) -> i64 {
        let wire = match self.during {
            During::Application(wire) | During::Next(wire) => wire,
            During::None | During::Close => return HOST_STATE.into(),
        };
        let Some(request) = &mut self.request else { return HOST_STATE.into() };
        if request.input.unread() > 0 || request.input.complete {
            let read = if line { request.input.read_line(buffer) } else { request.input.read(buffer) };
            return read.map_or(HOST_IO.into(), |count| count as i64);
        }
        // SAFETY: the call in which we are borrows the wire until it is over.
        let wire = unsafe { &mut *wire };
        if !line {
            return wire.read(buffer).map_or_else(|error| code_of(error).into(), |count| count as i64);
        }
        // A line ends where its LF is: nothing past it may be taken off the wire, so bytes come one by one. Streams are
        // read in blocks by those who care for speed.
        for at in 0..buffer.len() {
            match wire.read(&mut buffer[at..=at]) {
                Ok(0) => return at as i64,
                Ok(_) if buffer[at] == b'\n' => return at as i64 + 1,
                Ok(_) => {}
                // What came before the failure is given first; the failure is final and comes again.
                Err(_) if at > 0 => return at as i64,
                Err(error) => return code_of(error).into(),
            }
        }
        buffer.len() as i64
    }

    /// A copy of a chunk, in the memory that is there for it if it fits; `None` if there is no memory.
    pub(super) fn copy(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        let mut copy = match &mut self.request {
            // The rest of the condition keeps a use for nothing from emptying it.
            Some(request) if (1..=request.spare.content.capacity()).contains(&chunk.len()) => {
                mem::take(&mut request.spare.content)
            }
            _ => Vec::new(),
        };
        copy.clear();
        copy.try_reserve_exact(chunk.len()).ok()?;
        copy.extend_from_slice(chunk);
        Some(copy)
    }

    fn keep(&mut self, content: Content) -> *mut host_body {
        let body = match self.spare_body.take() {
            Some(body) => {
                // SAFETY: the body is the state's alone until the module gets it below.
                unsafe { *body.as_ptr() = HostBody::new(content) };
                body
            }
            None => NonNull::from(Box::leak(Box::new(HostBody::new(content)))),
        };
        self.bodies.push(body);
        body.as_ptr().cast()
    }
}

/// A header's name and value, which are empty if they are absent.
fn parts(header: &host_header) -> (&[u8], &[u8]) {
    // SAFETY: the caller of `start_response` gives readable strings.
    let name = unsafe { slice(header.name) }.unwrap_or_default();
    // SAFETY: as above.
    let value = unsafe { slice(header.value) }.unwrap_or_default();
    (name, value)
}

/// Adds headers of a module; an error is said for its author.
fn push_all(fields: &mut Fields, headers: &[host_header]) -> Result<(), String> {
    for (name, value) in headers.iter().map(parts) {
        fields.push(name, value).map_err(|error| {
            let name = String::from_utf8_lossy(name);
            match error {
                FieldError::Name => format!("{name:?} is not a header name"),
                FieldError::Value => format!("the value of {name} has CR, LF, NUL or another control character"),
                FieldError::HopByHop => {
                    format!("{name} is hop-by-hop: it belongs to the server, not to an application")
                }
                FieldError::ContentLength => "Content-Length is not a number, or is given twice".to_owned(),
            }
        })?;
    }
    Ok(())
}

impl Drop for State {
    fn drop(&mut self) {
        for body in self.bodies.drain(..).chain(self.spare_body.take()) {
            // SAFETY: `keep` leaked the box, and the request, in which alone the module may use it, is over.
            drop(unsafe { Box::from_raw(body.as_ptr()) });
        }
    }
}

fn code_of(error: WireError) -> i32 {
    match error {
        WireError::Gone => HOST_GONE,
        WireError::Timeout => HOST_TIMEOUT,
        WireError::TooLarge => HOST_TOO_LARGE,
        WireError::Invalid => HOST_INVALID,
    }
}

/// Forgets how long the wire is borrowed: the callers forget the pointer before the borrow is over.
fn erase(wire: &mut dyn Wire) -> *mut dyn Wire {
    let wire: *mut (dyn Wire + '_) = wire;
    // SAFETY: only the lifetime changes, and a pointer carries no promise about it.
    unsafe { std::mem::transmute::<*mut (dyn Wire + '_), *mut (dyn Wire + 'static)>(wire) }
}

/// The bytes of a string from a module; `None` if it is absent.
///
/// # Safety
/// A string that is not absent has `len` readable bytes for `'a`.
unsafe fn slice<'a>(text: host_str) -> Option<&'a [u8]> {
    if text.ptr.is_null() || isize::try_from(text.len).is_err() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(text.ptr.cast(), text.len) })
}

/// The state behind a pointer to one of the three objects.
///
/// # Safety
/// `object` is the pointer that the host gave to the module, `offset` bytes into a living [`Exchange`], and no other
/// reference to the state exists.
unsafe fn state_of<'a, T>(object: *mut T, offset: usize) -> Option<&'a mut State> {
    if object.is_null() {
        return None;
    }
    // SAFETY: the pointer has the provenance of the whole allocation, which begins `offset` bytes before it.
    let exchange = unsafe { object.byte_sub(offset) }.cast::<Exchange>();
    // SAFETY: the exchange lives, and by the caller's promise nobody else has a reference to its state.
    let state = unsafe { &mut (*exchange).state };
    // Out of order, but before the request is over: the contract promises that this is noticed.
    (!matches!(state.during, During::None)).then_some(state)
}

unsafe extern "C" fn get(env: *mut host_env, key: host_str) -> host_str {
    let _host = CalledBack::begin();
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(env, ENV) }) else { return ABSENT };
    // SAFETY: the module gives a readable string.
    let Some(key) = (unsafe { slice(key) }) else { return ABSENT };
    let (Some(request), Some(generation)) = (&state.request, &state.generation) else { return ABSENT };
    let surroundings = &generation.surroundings;
    state.environ.value(key, &mut Sources { request, surroundings, arena: &mut state.arena })
}

unsafe extern "C" fn each(env: *mut host_env, visit: Option<host_visit>, context: *mut c_void) -> i32 {
    let Some(visit) = visit else { return HOST_INVALID };
    let all = {
        let _host = CalledBack::begin();
        // SAFETY: the module calls within the current call of this request, one at a time.
        let Some(state) = (unsafe { state_of(env, ENV) }) else { return HOST_STATE };
        let (Some(request), Some(generation)) = (&state.request, &state.generation) else { return HOST_STATE };
        let surroundings = &generation.surroundings;
        state.environ.all(&mut Sources { request, surroundings, arena: &mut state.arena })
    };
    // No reference to the state is held here: `visit` may call back.
    for (key, value) in all {
        // SAFETY: the module's function gets its own context, and strings that live as long as the request.
        let stop = unsafe { visit(context, key, value) };
        if stop != 0 {
            return stop;
        }
    }
    0
}

unsafe extern "C" fn read(env: *mut host_env, buffer: *mut c_void, len: usize) -> i64 {
    let _host = CalledBack::begin();
    // SAFETY: the contract of `read` is that of `read_into`.
    unsafe { read_into(env, buffer, len, false) }
}

unsafe extern "C" fn readline(env: *mut host_env, buffer: *mut c_void, len: usize) -> i64 {
    let _host = CalledBack::begin();
    // SAFETY: the contract of `readline` is that of `read_into`.
    unsafe { read_into(env, buffer, len, true) }
}

/// # Safety
/// `env` is the module's; `buffer` has room for `len` bytes.
unsafe fn read_into(env: *mut host_env, buffer: *mut c_void, len: usize, line: bool) -> i64 {
    if len > 0 && buffer.is_null() || isize::try_from(len).is_err() {
        return HOST_INVALID.into();
    }
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(env, ENV) }) else { return HOST_STATE.into() };
    if len == 0 {
        return 0;
    }
    // SAFETY: the module gives `len` writable bytes. They may not be initialised; nothing here reads what it has not
    // written.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    state.read(buffer, line)
}

unsafe extern "C" fn errors(env: *mut host_env, text: host_str) {
    let _host = CalledBack::begin();
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(env, ENV) }) else { return };
    // SAFETY: the module gives a readable string.
    let Some(text) = (unsafe { slice(text) }) else { return };
    let text = &text[..text.len().min(ERRORS_BYTES_MAX)];
    for line in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n') {
        let line = visible(line.strip_suffix(b"\r").unwrap_or(line));
        let module = state.generation.as_ref().map_or("", |generation| &generation.module);
        tracing::warn!("{module}: {line} ({})", state.request_line());
    }
}

/// A text with the bytes that are not UTF-8 escaped; the log escapes control characters.
fn visible(text: &[u8]) -> String {
    let part = |part: std::str::Utf8Chunk<'_>| format!("{}{}", part.valid(), part.invalid().escape_ascii());
    text.utf8_chunks().map(part).collect()
}

unsafe extern "C" fn alloc(env: *mut host_env, size: usize) -> *mut c_void {
    let _host = CalledBack::begin();
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(env, ENV) }) else { return ptr::null_mut() };
    state.arena.allocate(size).map_or(ptr::null_mut(), |at| at.as_ptr().cast())
}

unsafe extern "C" fn bytes(env: *mut host_env, chunk: host_str) -> *mut host_body {
    let _host = CalledBack::begin();
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(env, ENV) }) else { return ptr::null_mut() };
    // SAFETY: the module gives a readable string.
    let content = match unsafe { slice(chunk) } {
        _ if matches!(state.during, During::Close) => Content::Failed("bytes was called within close".to_owned()),
        Some(chunk) => match state.copy(chunk) {
            Some(copy) => Content::Bytes(copy),
            None => Content::Failed(format!("no memory for a body of {} bytes", chunk.len())),
        },
        None if chunk.len == 0 => Content::Bytes(Vec::new()),
        None => Content::Failed("bytes was given no pointer".to_owned()),
    };
    state.keep(content)
}

unsafe extern "C" fn file(env: *mut host_env, fd: i32, offset: u64, len: u64) -> *mut host_body {
    let _host = CalledBack::begin();
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(env, ENV) }) else { return ptr::null_mut() };
    if fd < 0 {
        return state.keep(Content::Failed(format!("file was given descriptor {fd}")));
    }
    // SAFETY: the module gives the descriptor away, open or not: fstat below finds out.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let content = match state.during {
        During::Close => Content::Failed("file was called within close".to_owned()),
        _ => file_content(fd, offset, len),
    };
    state.keep(content)
}

fn file_content(fd: OwnedFd, offset: u64, len: u64) -> Content {
    let stat = match rustix::fs::fstat(&fd) {
        Ok(stat) => stat,
        Err(error) => {
            // Nothing is open under that number: closing it is not ours.
            _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
            return Content::Failed(format!("file was given a descriptor that is not open: {error}"));
        }
    };
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Content::Failed("file was given a descriptor that is not of a regular file".to_owned());
    }
    let readable = rustix::fs::fcntl_getfl(&fd).is_ok_and(|flags| {
        // One that is open for its path alone says that it is open for reading too (open(2), O_PATH).
        flags.intersection(OFlags::RWMODE) != OFlags::WRONLY && !flags.contains(OFlags::PATH)
    });
    if !readable {
        return Content::Failed("file was given a descriptor that is not open for reading".to_owned());
    }
    let length = len.min((stat.st_size as u64).saturating_sub(offset));
    Content::File { file: fd.into(), offset, length }
}

unsafe extern "C" fn extension(_env: *mut host_env, id: *const c_char) -> *const c_void {
    // SAFETY: it ignores its argument.
    unsafe { no_extension(id) }
}

unsafe extern "C" fn start_response(
    object: *mut host_start_response,
    status: host_str,
    headers: *const host_header,
    count: usize,
    exc_info: *const host_exc_info,
) -> *mut host_writer {
    let _host = CalledBack::begin();
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(object, START_RESPONSE) }) else { return ptr::null_mut() };
    // SAFETY: the module gives readable arguments that live until this call returns.
    let started = unsafe { start_with(state, status, headers, count, exc_info) };
    if let Err(reason) = started {
        state.complain(&format!("start_response refused: {reason}"));
        return ptr::null_mut();
    }
    // The pointer has the provenance of the whole exchange, which lives.
    object.wrapping_byte_sub(START_RESPONSE).wrapping_byte_add(WRITER).cast()
}

/// # Safety
/// The arguments are those of `start_response`, by its contract.
unsafe fn start_with(
    state: &mut State,
    status: host_str,
    headers: *const host_header,
    count: usize,
    exc_info: *const host_exc_info,
) -> Result<(), String> {
    if matches!(state.during, During::Close) {
        return Err("it was called within close".to_owned());
    }
    // SAFETY: the module gives a readable string.
    let status = unsafe { slice(status) }.unwrap_or_default();
    if count > HEADERS_MAX || count > 0 && headers.is_null() {
        return Err(format!("{count} headers; at most {HEADERS_MAX} can be given"));
    }
    let headers = if count == 0 {
        &[]
    } else {
        // SAFETY: the module gives an array of `count` headers.
        unsafe { std::slice::from_raw_parts(headers, count) }
    };
    let message = if exc_info.is_null() {
        None
    } else {
        // SAFETY: the struct begins with its size.
        let fields = unsafe { Foreign::new(exc_info, offset_of!(host_exc_info, size)) };
        // SAFETY: the type is that of the field.
        let message = unsafe { fields.field(offset_of!(host_exc_info, message)) }.unwrap_or(ABSENT);
        // SAFETY: the module gives a readable string.
        Some(unsafe { slice(message) }.unwrap_or_default())
    };
    state.start(status, headers, message)
}

unsafe extern "C" fn write(object: *mut host_writer, data: host_str) -> i32 {
    let _host = CalledBack::begin();
    // SAFETY: the module calls within the current call of this request, one at a time.
    let Some(state) = (unsafe { state_of(object, WRITER) }) else { return HOST_STATE };
    // SAFETY: the module gives a readable string.
    match unsafe { slice(data) } {
        Some(data) => state.write(data),
        None if data.len == 0 => 0,
        None => HOST_INVALID,
    }
}

const ENV: usize = offset_of!(Exchange, objects.env);
const START_RESPONSE: usize = offset_of!(Exchange, objects.start_response);
const WRITER: usize = offset_of!(Exchange, objects.writer);

/// A module that makes more bodies for one request than this is unusual: their list is not kept.
const BODIES_KEPT: usize = 16;

/// More header fields than this are taken for a count that was not initialised.
const HEADERS_MAX: usize = 1_000;

/// One call of `errors` logs at most so many bytes.
const ERRORS_BYTES_MAX: usize = 16 * 1024;
