//! What `module!` exports, and what its functions do with errors and panics.

use abi::ffi::*;
use abi::{Init, Reason};
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static SERVED: AtomicU64 = AtomicU64::new(0);

abi::module! {
    name: concat!("sam", "ple"),
    version: env!("CARGO_PKG_VERSION"),
    flags: abi::NOT_THREAD_SAFE | abi::STREAM_INPUT,
    init: init,
    stop: || panic!("stop panics"),
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
