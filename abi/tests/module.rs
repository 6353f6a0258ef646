//! What `module!` exports, and what its functions do with errors and panics.

use abi::ffi::*;
use abi::{Init, Reason};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static SERVED: AtomicU64 = AtomicU64::new(0);

abi::module! {
    name: concat!("sam", "ple"),
    version: env!("CARGO_PKG_VERSION"),
    flags: abi::NOT_THREAD_SAFE | abi::STREAM_INPUT,
    init: init,
    stop: || panic!("stop panics"),
    save: save,
    restore: restore,
}

thread_local! {
    static STATE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn save() -> Result<Vec<u8>, &'static str> {
    let state = STATE.take();
    match &*state {
        b"fail" => Err("failed"),
        b"panic" => panic!("save panics"),
        _ => Ok(state),
    }
}

fn restore(state: &[u8]) -> Result<(), &'static str> {
    assert!(state != b"panic", "restore panics");
    if state == b"fail" {
        return Err("failed");
    }
    STATE.set(state.to_vec());
    Ok(())
}

fn init(init: &Init) -> Result<(), String> {
    match (init.reason(), init.generation()) {
        (Reason::Serve, 13) => Err("unlucky".to_owned()),
        (Reason::Serve, 14) => panic!("worse"),
        (Reason::Serve, generation) => {
            SERVED.store(generation, Ordering::Relaxed);
            assert!(init.extension(c"test.unknown/1").is_none());
            Ok(())
        }
        (Reason::Check, _) => Ok(()),
    }
}

// SAFETY: the macro above defines it with this type.
unsafe extern "C" {
    safe static host_module: abi::export::Module;
}

fn call_init(reason: u32, generation: u64) -> i32 {
    unsafe extern "C" fn extension(_id: *const c_char) -> *const c_void {
        std::ptr::null()
    }
    let told = host_init { size: size_of::<host_init>() as u32, reason, generation, extension };
    let init = host_module.0.init.expect("init is there");
    // SAFETY: called as the host does.
    unsafe { init(&told) }
}

#[test]
fn a_module_describes_itself() {
    let module = &host_module.0;
    assert_eq!((module.magic, module.abi), (HOST_MODULE_MAGIC, HOST_ABI));
    assert_eq!(module.size as usize, size_of::<host_module_info>());
    assert_eq!(module.flags, HOST_NOT_THREAD_SAFE | HOST_STREAM_INPUT);
    // SAFETY: the macro ends it with NUL.
    assert_eq!(unsafe { CStr::from_ptr(module.name) }, c"sample");
    // SAFETY: the macro ends it with NUL.
    assert_eq!(unsafe { CStr::from_ptr(module.version) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_init_that_fails_or_panics_refuses_the_build() {
    assert_eq!(call_init(HOST_INIT_SERVE, 12), 0);
    assert_eq!(SERVED.load(Ordering::Relaxed), 12);
    assert_eq!(call_init(HOST_INIT_CHECK, 0), 0);
    assert_eq!(call_init(9, 13), 0, "a reason of a later host is a check");
    assert_ne!(call_init(HOST_INIT_SERVE, 13), 0);
    assert_ne!(call_init(HOST_INIT_SERVE, 14), 0);
}

#[test]
fn a_stop_that_panics_does_not_unwind() {
    let stop = host_module.0.stop.expect("stop is there");
    // SAFETY: called as the host does.
    unsafe { stop() };
}

/// A `host_state` that keeps what it is given, up to a limit.
#[repr(C)]
struct Kept {
    state: host_state,
    bytes: Vec<u8>,
}

unsafe extern "C" fn write(state: *mut host_state, data: host_str) -> i32 {
    // SAFETY: it is the one that `call_save` made, and nobody else uses it.
    let kept = unsafe { &mut *state.cast::<Kept>() };
    // SAFETY: what `save` gives lives until this returns.
    let data = unsafe { data.bytes() }.unwrap_or_default();
    if kept.bytes.len() + data.len() > 8 {
        return HOST_TOO_LARGE;
    }
    kept.bytes.extend_from_slice(data);
    0
}

fn call_save() -> Result<Vec<u8>, i32> {
    let mut kept =
        Kept { state: host_state { size: size_of::<host_state>() as u32, flags: 0, write }, bytes: Vec::new() };
    let save = host_module.0.save.expect("save is there");
    // SAFETY: called as the host does, with a pointer to the whole.
    let returned = unsafe { save((&raw mut kept).cast()) };
    if returned == 0 { Ok(kept.bytes) } else { Err(returned) }
}

fn call_restore(state: &[u8]) -> i32 {
    let restore = host_module.0.restore.expect("restore is there");
    // SAFETY: called as the host does.
    unsafe { restore(host_str::new(state)) }
}

#[test]
fn what_is_saved_is_what_was_restored() {
    assert_eq!((call_restore(b"seven"), call_save()), (0, Ok(b"seven".to_vec())));
    assert_eq!((call_restore(b""), call_save()), (0, Ok(Vec::new())));
}

#[test]
fn a_save_or_restore_that_fails_or_panics_says_so_by_a_number() {
    for state in ["fail", "panic"] {
        assert_ne!(call_restore(state.as_bytes()), 0, "{state}");
        STATE.set(state.as_bytes().to_vec());
        assert!(call_save().is_err(), "{state}");
    }
    STATE.set(b"too large".to_vec());
    assert!(call_save().is_err(), "the host refused it");
}
