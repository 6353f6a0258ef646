//! A handler that allocates nothing can be written with the SDK: it adds no allocation of its own to a static response.

use abi::ffi::*;
use abi::{Answer, Body, Environ, StartResponse, export};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::ptr;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    // Without a destructor and without lazy initialisation, so that the allocator may use it at any time.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: each function does what the system's allocator does; the count allocates nothing and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, and `block` is the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

/// How often the SDK and the application allocate for one request of a host that itself allocates nothing.
fn allocations<R: Answer>(application: impl FnOnce(&Environ, StartResponse<'_>) -> R) -> u64 {
    let size = |size: usize| size as u32;
    let mut env = host_env {
        size: size(size_of::<host_env>()),
        abi: HOST_ABI,
        get,
        each,
        read,
        readline: read,
        errors,
        alloc,
        bytes,
        file,
        extension,
    };
    let mut start_response =
        host_start_response { size: size(size_of::<host_start_response>()), flags: 0, call: start_response };
    let before = COUNT.get();
    // SAFETY: both objects live until the call returns, and their functions keep to the contract.
    let body = unsafe { export::application(&raw mut env, &raw mut start_response, application) };
    let count = COUNT.get() - before;
    assert_eq!(body, BODY, "the application answers");
    count
}

/// No body is ever used: it is only handed back.
const BODY: *mut host_body = ptr::without_provenance_mut(8);

unsafe extern "C" fn get(_env: *mut host_env, _key: host_str) -> host_str {
    host_str::new(b"name=World")
}

unsafe extern "C" fn each(_env: *mut host_env, _visit: Option<host_visit>, _context: *mut c_void) -> i32 {
    0
}

unsafe extern "C" fn read(_env: *mut host_env, _buffer: *mut c_void, _len: usize) -> i64 {
    0
}

unsafe extern "C" fn errors(_env: *mut host_env, _text: host_str) {}

unsafe extern "C" fn alloc(_env: *mut host_env, _size: usize) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn bytes(_env: *mut host_env, _chunk: host_str) -> *mut host_body {
    BODY
}

unsafe extern "C" fn file(_env: *mut host_env, _fd: i32, _offset: u64, _len: u64) -> *mut host_body {
    BODY
}

unsafe extern "C" fn extension(_env: *mut host_env, _id: *const c_char) -> *const c_void {
    ptr::null()
}

unsafe extern "C" fn start_response(
    _object: *mut host_start_response,
    _status: host_str,
    headers: *const host_header,
    count: usize,
    _exc_info: *const host_exc_info,
) -> *mut host_writer {
    // SAFETY: the SDK gives so many headers.
    let headers = unsafe { std::slice::from_raw_parts(headers, count) };
    assert!(headers.iter().all(|header| !header.name.ptr.is_null() && header.name.len == 6));
    // The SDK hands it on to the application, which does not use it.
    ptr::without_provenance_mut(8)
}

const HEADERS: [(&str, &str); 16] = [("X-Some", "thing"); 16];

#[test]
fn a_static_response_allocates_nothing() {
    for count in [0, 1, 16] {
        let hello = |_: &Environ, start: StartResponse<'_>| -> Body {
            start.respond("200 OK", &HEADERS[..count], "Hello, World!\n")
        };
        assert_eq!(allocations(hello), 0, "{count} headers");
    }
}

#[test]
fn looking_at_the_environ_allocates_nothing() {
    let look = |env: &Environ, start: StartResponse<'_>| -> Result<Body, std::fmt::Error> {
        let status = if env.method() == "name=World" && env.get("PATH_INFO").is_some() { "200 OK" } else { "500 " };
        Ok(start.respond(status, &[], "looked\n"))
    };
    assert_eq!(allocations(look), 0);
}

#[test]
fn a_response_that_is_made_is_counted() {
    let greeting = |env: &Environ, start: StartResponse<'_>| -> Body {
        start.respond("200 OK", &[], format!("Hello, {}!\n", env.method()))
    };
    assert!(allocations(greeting) > 0);
}
