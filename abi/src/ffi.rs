//! The C ABI, item for item as `include/host.h` declares it. Read the header for the contract of each
//! function: thread, lifetime, legal order, owner, and state after failure.
#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_void};

/// The ABI version that this crate was written against: `major << 16 | minor`.
pub const HOST_ABI: u32 = 0x0001_0000;

/// The client has left.
pub const HOST_GONE: i32 = -1;
/// A time limit passed.
pub const HOST_TIMEOUT: i32 = -2;
/// A size limit passed.
pub const HOST_TOO_LARGE: i32 = -3;
/// Not now: the order of calls is wrong.
pub const HOST_STATE: i32 = -4;
/// The system failed.
pub const HOST_IO: i32 = -5;
/// An argument is wrong.
pub const HOST_INVALID: i32 = -6;

/// `"HOST"` in little-endian ASCII, the first field of `host_module_info`.
pub const HOST_MODULE_MAGIC: u32 = 0x5453_4f48;
/// Module flag: one call at a time.
pub const HOST_NOT_THREAD_SAFE: u32 = 1;
/// Module flag: calls block; the event loop is handed over before each.
pub const HOST_BLOCKING: u32 = 2;
/// Module flag: called before the request's body has arrived.
pub const HOST_STREAM_INPUT: u32 = 4;
/// `host_init.reason`: the build is only being tried.
pub const HOST_INIT_CHECK: u32 = 1;
/// `host_init.reason`: the build is about to serve.
pub const HOST_INIT_SERVE: u32 = 2;
/// Bytes that a module can have kept.
pub const HOST_STATE_MAX: u32 = 16 << 20;

/// A string by pointer and length. Absent: `ptr` is null. From the host: `ptr[len]` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct host_str {
    /// First byte, or null when absent.
    pub ptr: *const c_char,
    /// Length in bytes, without a terminating NUL.
    pub len: usize,
}

impl host_str {
    /// No string, which is not the same as an empty one.
    pub const ABSENT: host_str = host_str { ptr: std::ptr::null(), len: 0 };

    /// Points to `bytes`, for as long as they live.
    pub const fn new(bytes: &[u8]) -> host_str {
        host_str { ptr: bytes.as_ptr().cast(), len: bytes.len() }
    }

    /// The bytes pointed to, or none when absent.
    ///
    /// # Safety
    ///
    /// Unless `ptr` is null, `len` bytes must be readable there and unchanged for all of `'a`.
    pub const unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        if self.ptr.is_null() {
            return None;
        }
        // SAFETY: the pointer is not null, and the caller promises the rest.
        Some(unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.len) })
    }
}

/// One header field of a response.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct host_header {
    /// Field name, a token of RFC 9110 §5.6.2.
    pub name: host_str,
    /// Field value of RFC 9110 §5.5.
    pub value: host_str,
}

/// The exception that is being handled when `start_response` is called a second time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct host_exc_info {
    /// `sizeof(host_exc_info)` where the caller was compiled.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// What went wrong, for the log.
    pub message: host_str,
}

/// Called by `host_env.each` for every environ key; 0 goes on, anything else stops.
pub type host_visit = unsafe extern "C" fn(*mut c_void, host_str, host_str) -> i32;

/// The request's environ; owned by the host.
#[repr(C)]
pub struct host_env {
    /// `sizeof(host_env)` in this host.
    pub size: u32,
    /// The ABI version of this host.
    pub abi: u32,
    /// Value of an environ key; absent is a null `ptr`.
    pub get: unsafe extern "C" fn(*mut host_env, host_str) -> host_str,
    /// Visits every key and value.
    pub each: unsafe extern "C" fn(*mut host_env, Option<host_visit>, *mut c_void) -> i32,
    /// `wsgi.input`: reads at most `len` bytes; 0 at the end, negative on failure.
    pub read: unsafe extern "C" fn(*mut host_env, *mut c_void, usize) -> i64,
    /// `wsgi.input`: reads to the next LF, at most `len` bytes.
    pub readline: unsafe extern "C" fn(*mut host_env, *mut c_void, usize) -> i64,
    /// `wsgi.errors`: a log line.
    pub errors: unsafe extern "C" fn(*mut host_env, host_str),
    /// Memory aligned for anything, freed after `close`.
    pub alloc: unsafe extern "C" fn(*mut host_env, usize) -> *mut c_void,
    /// A body of one chunk, copied; never null.
    pub bytes: unsafe extern "C" fn(*mut host_env, host_str) -> *mut host_body,
    /// `wsgi.file_wrapper`; owns the descriptor at once; never null.
    pub file: unsafe extern "C" fn(*mut host_env, i32, u64, u64) -> *mut host_body,
    /// An extension by its id, or null.
    pub extension: unsafe extern "C" fn(*mut host_env, *const c_char) -> *const c_void,
}

/// The `start_response` callable; owned by the host.
#[repr(C)]
pub struct host_start_response {
    /// `sizeof(host_start_response)` in this host.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Starts the response; null when refused, with the reason in the log.
    pub call: unsafe extern "C" fn(
        *mut host_start_response,
        host_str,
        *const host_header,
        usize,
        *const host_exc_info,
    ) -> *mut host_writer,
}

/// The `write` callable; owned by the host.
#[repr(C)]
pub struct host_writer {
    /// `sizeof(host_writer)` in this host.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Sends data now; 0, or negative.
    pub write: unsafe extern "C" fn(*mut host_writer, host_str) -> i32,
}

/// The iterable; owned by whoever made it.
#[repr(C)]
pub struct host_body {
    /// `sizeof(host_body)` where it was made.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// How many chunks, if known, else -1.
    pub count: i64,
    /// 1 a chunk, 0 the end, negative failed; greater than 1 is reserved.
    pub next: Option<unsafe extern "C" fn(*mut host_body, *mut host_str) -> i32>,
    /// Called exactly once, always; may be null.
    pub close: Option<unsafe extern "C" fn(*mut host_body)>,
}

/// What `host_module_info.init` is told.
#[repr(C)]
pub struct host_init {
    /// `sizeof(host_init)` in this host.
    pub size: u32,
    /// `HOST_INIT_CHECK` or `HOST_INIT_SERVE`.
    pub reason: u32,
    /// The generation number of this build; 0 in a check.
    pub generation: u64,
    /// An extension by its id, or null.
    pub extension: unsafe extern "C" fn(*const c_char) -> *const c_void,
}

/// Where `host_module_info.save` puts what is to be kept; owned by the host.
#[repr(C)]
pub struct host_state {
    /// `sizeof(host_state)` in this host.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Adds bytes; 0, or negative, which is final.
    pub write: unsafe extern "C" fn(*mut host_state, host_str) -> i32,
}

/// The optional exported object `host_module`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct host_module_info {
    /// `HOST_MODULE_MAGIC`.
    pub magic: u32,
    /// `sizeof(host_module_info)` where the module was compiled.
    pub size: u32,
    /// `HOST_ABI` where the module was compiled.
    pub abi: u32,
    /// Module flags; an unknown one refuses the load.
    pub flags: u32,
    /// The module's name for people, or null.
    pub name: *const c_char,
    /// The module's version for people, or null.
    pub version: *const c_char,
    /// 0, or the build is refused; may be null.
    pub init: Option<unsafe extern "C" fn(*const host_init) -> i32>,
    /// Called once, after the generation's last request; may be null.
    pub stop: Option<unsafe extern "C" fn()>,
    /// Writes the module's state down; null if `restore` is.
    pub save: Option<unsafe extern "C" fn(*mut host_state) -> i32>,
    /// Takes over what another build wrote; null if `save` is.
    pub restore: Option<unsafe extern "C" fn(host_str) -> i32>,
}

/// The one required symbol, `application`: a pointer to the header's function type of this name.
pub type host_application = unsafe extern "C" fn(*mut host_env, *mut host_start_response) -> *mut host_body;
