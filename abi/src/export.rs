//! What the macros export: C functions that call Rust ones, and let neither a panic nor an error of them out.

use crate::ffi::{HOST_ABI, HOST_IO, host_body, host_env, host_exc_info, host_header, host_init, host_module_info};
use crate::ffi::{HOST_INVALID, host_start_response, host_state, host_str};
use crate::{Answer, Environ, Init, StartResponse, panics};
use std::fmt::Display;
use std::io::{self, Write};
use std::ptr::{self, NonNull};

/// What this library was compiled against. It stands here and not in a macro because a library has it once, however
/// many applications it exports; the linker exports it from every `cdylib` that this crate is linked into.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static host_abi_version: u32 = HOST_ABI;

/// A `host_module_info`, whose pointers are to constants and functions.
#[repr(transparent)]
pub struct Module(pub host_module_info);

// SAFETY: nothing writes to it, and what it points to is immutable.
unsafe impl Sync for Module {}

/// Calls an application, and answers 500 if it panics or fails.
///
/// # Safety
///
/// Within a call of `host_application` (`host.h`), with the arguments of that call.
pub unsafe fn application<R: Answer>(
    env: *mut host_env,
    start_response: *mut host_start_response,
    application: impl FnOnce(&Environ, StartResponse<'_>) -> R,
) -> *mut host_body {
    let (Some(env), Some(start_response)) = (NonNull::new(env), NonNull::new(start_response)) else {
        return ptr::null_mut();
    };
    // SAFETY: the host's environ; this value is dropped before the call ends, on the same thread.
    let env = unsafe { Environ::new(env) };
    // SAFETY: the host's start_response; its lifetime is that of the application's call, which ends before this one.
    let start = unsafe { StartResponse::new(start_response) };
    let answer = panics::catch(|| application(&env, start).answer().map(|body| body.into_host(&env)));
    match answer.flatten() {
        Ok(body) => body,
        Err(failure) => {
            env.errors(&failure);
            // SAFETY: as the caller promises.
            unsafe { internal_server_error(&env, start_response) }
        }
    }
}

/// Replaces what has been started by a 500. If its head has been sent the host refuses, and aborts the connection.
///
/// # Safety
///
/// `start_response` must be the host's, of the request of `env`.
unsafe fn internal_server_error(env: &Environ, start_response: NonNull<host_start_response>) -> *mut host_body {
    let headers = [host_header { name: host_str::new(b"Content-Type"), value: host_str::new(b"text/plain") }];
    // Without a message: `errors` has been told already.
    let exc_info = host_exc_info { size: size_of::<host_exc_info>() as u32, flags: 0, message: host_str::ABSENT };
    // SAFETY: as the caller promises.
    let call = unsafe { start_response.as_ref() }.call;
    let status = host_str::new(b"500 Internal Server Error");
    // SAFETY: as the caller promises; the arguments live until the function returns.
    let writer = unsafe { call(start_response.as_ptr(), status, headers.as_ptr(), headers.len(), &exc_info) };
    if writer.is_null() {
        return ptr::null_mut();
    }
    crate::Body::from("Internal Server Error\n").into_host(env)
}

/// Calls `init`; an error or a panic refuses the build, and is said on standard error, as `host.h` asks.
///
/// # Safety
///
/// Within a call of `host_module_info.init`, with the argument of that call.
pub unsafe fn init<E: Display>(told: *const host_init, init: impl FnOnce(&Init) -> Result<(), E>) -> i32 {
    // SAFETY: the host passes what init is told, or null if it breaks its contract.
    let Some(told) = (unsafe { told.as_ref() }) else {
        return HOST_IO;
    };
    let told = Init::new(told);
    match panics::catch(|| init(&told).map_err(|error| format!("{error:#}"))).flatten() {
        Ok(()) => 0,
        Err(failure) => {
            say(&format!("init failed: {failure}"));
            HOST_IO
        }
    }
}

/// Calls `stop`; a panic of it is said on standard error, and changes nothing.
pub fn stop(stop: impl FnOnce()) {
    if let Err(failure) = panics::catch(stop) {
        say(&format!("stop failed: {failure}"));
    }
}

/// Calls `save`, and gives what it wrote down to the host; an error or a panic keeps what was kept before.
///
/// # Safety
///
/// Within a call of `host_module_info.save`, with the argument of that call.
pub unsafe fn save<S: AsRef<[u8]>, E: Display>(state: *mut host_state, save: impl FnOnce() -> Result<S, E>) -> i32 {
    let failure = match panics::catch(|| save().map_err(|error| format!("{error:#}"))).flatten() {
        Ok(saved) => {
            // SAFETY: the host passes its own, or null if it breaks its contract.
            let Some(write) = (unsafe { state.as_ref() }).map(|state| state.write) else { return HOST_IO };
            // SAFETY: this is within the call; the bytes live until the function returns.
            match unsafe { write(state, host_str::new(saved.as_ref())) } {
                0 => return 0,
                error => format!("the host does not keep {} bytes ({error})", saved.as_ref().len()),
            }
        }
        Err(failure) => failure,
    };
    say(&format!("save failed: {failure}"));
    HOST_IO
}

/// Calls `restore`; an error or a panic refuses the build, or gives the state up.
///
/// # Safety
///
/// Within a call of `host_module_info.restore`, with the argument of that call.
pub unsafe fn restore<E: Display>(state: host_str, restore: impl FnOnce(&[u8]) -> Result<(), E>) -> i32 {
    // SAFETY: the host's bytes live until this call ends.
    let state = unsafe { state.bytes() }.unwrap_or_default();
    match panics::catch(|| restore(state).map_err(|error| format!("{error:#}"))).flatten() {
        Ok(()) => 0,
        Err(failure) => {
            say(&format!("restore failed: {failure}"));
            HOST_INVALID
        }
    }
}

/// Writes a line to standard error. Not `eprintln!`, which panics if that cannot be written to.
fn say(line: &str) {
    let _unsaid = writeln!(io::stderr(), "{line}");
}

/// `text` as a C string; refused at compile time if it has a NUL or does not fit.
pub const fn nul_terminated<const N: usize>(text: &str) -> [u8; N] {
    assert!(text.len() + 1 == N);
    let mut terminated = [0; N];
    let mut at = 0;
    while at < text.len() {
        assert!(text.as_bytes()[at] != 0, "a module's name and version cannot have a NUL in them");
        terminated[at] = text.as_bytes()[at];
        at += 1;
    }
    terminated
}
