//! What a library says of itself: the `module!` macro, and what its `init` is told.

use crate::ffi;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

/// One call at a time: of all requests and all applications of the library.
pub const NOT_THREAD_SAFE: u32 = ffi::HOST_NOT_THREAD_SAFE;
/// Calls are expected to block: the host hands its event loop over before each.
pub const BLOCKING: u32 = ffi::HOST_BLOCKING;
/// The application is called before the request's content has arrived.
pub const STREAM_INPUT: u32 = ffi::HOST_STREAM_INPUT;

/// Describes this library to the host, once. All fields but `name` may be left out; the order stays.
///
/// ```
/// use abi::{Init, Reason};
///
/// abi::module! {
///     name: "counter",
///     version: env!("CARGO_PKG_VERSION"),
///     flags: abi::NOT_THREAD_SAFE | abi::BLOCKING,
///     init: init,
///     stop: stop,
///     save: save,
///     restore: restore,
/// }
///
/// /// An error refuses the build: the one before it goes on serving.
/// fn init(init: &Init) -> Result<(), std::io::Error> {
///     if init.reason() == Reason::Serve { /* open, connect, start threads */ }
///     Ok(())
/// }
///
/// /// Called once, after the last request of this build.
/// fn stop() {}
///
/// /// What the next build is to go on with, or this one in another process; `save` and `restore` come together. It is
/// /// also called now and then while the module serves. An error keeps what was kept before.
/// fn save() -> Result<String, std::fmt::Error> {
///     Ok("1 41".to_owned())
/// }
///
/// /// Called before the first request, if a build of this module has saved anything. An error refuses this build.
/// fn restore(state: &[u8]) -> Result<(), &'static str> {
///     if state.starts_with(b"1 ") { Ok(()) } else { Err("not a state that this build knows") }
/// }
/// ```
///
/// `host.h` says when exactly they are called, and what is lost when the worst comes.
#[macro_export]
macro_rules! module {
    (@text) => { ::std::ptr::null() };
    (@text $text:expr) => {{
        const __TEXT: &str = $text;
        static __TERMINATED: [u8; __TEXT.len() + 1] = $crate::export::nul_terminated(__TEXT);
        (&raw const __TERMINATED).cast()
    }};
    (@flags) => { 0 };
    (@flags $flags:expr) => { $flags };
    (@init) => { ::std::option::Option::None };
    (@init $init:expr) => {{
        unsafe extern "C" fn __init(init: *const $crate::ffi::host_init) -> i32 {
            // SAFETY: the host calls this, by the contract of `init` in host.h.
            unsafe { $crate::export::init(init, $init) }
        }
        ::std::option::Option::Some(__init)
    }};
    (@stop) => { ::std::option::Option::None };
    (@stop $stop:expr) => {{
        unsafe extern "C" fn __stop() {
            $crate::export::stop($stop)
        }
        ::std::option::Option::Some(__stop)
    }};
    (@save) => { ::std::option::Option::None };
    (@save $save:expr) => {{
        unsafe extern "C" fn __save(state: *mut $crate::ffi::host_state) -> i32 {
            // SAFETY: the host calls this, by the contract of `save` in host.h.
            unsafe { $crate::export::save(state, $save) }
        }
        ::std::option::Option::Some(__save)
    }};
    (@restore) => { ::std::option::Option::None };
    (@restore $restore:expr) => {{
        unsafe extern "C" fn __restore(state: $crate::ffi::host_str) -> i32 {
            // SAFETY: the host calls this, by the contract of `restore` in host.h.
            unsafe { $crate::export::restore(state, $restore) }
        }
        ::std::option::Option::Some(__restore)
    }};
    (
        name: $name:expr
        $(, version: $version:expr)?
        $(, flags: $flags:expr)?
        $(, init: $init:expr)?
        $(, stop: $stop:expr)?
        $(, save: $save:expr, restore: $restore:expr)?
        $(,)?
    ) => {
        const _: () = {
            #[unsafe(export_name = "host_module")]
            static __MODULE: $crate::export::Module = $crate::export::Module($crate::ffi::host_module_info {
                magic: $crate::ffi::HOST_MODULE_MAGIC,
                size: ::std::mem::size_of::<$crate::ffi::host_module_info>() as u32,
                abi: $crate::ffi::HOST_ABI,
                flags: $crate::module!(@flags $($flags)?),
                name: $crate::module!(@text $name),
                version: $crate::module!(@text $($version)?),
                init: $crate::module!(@init $($init)?),
                stop: $crate::module!(@stop $($stop)?),
                save: $crate::module!(@save $($save)?),
                restore: $crate::module!(@restore $($restore)?),
            });
        };
    };
}

/// What `init` is told.
#[derive(Debug)]
pub struct Init {
    reason: Reason,
    generation: u64,
    extension: unsafe extern "C" fn(*const std::ffi::c_char) -> *const c_void,
}

/// Why `init` is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// To try the build, in a process that serves nothing: no lasting side effects.
    Check,
    /// To serve.
    Serve,
}

impl Init {
    pub(crate) fn new(init: &ffi::host_init) -> Init {
        Init {
            // Reasons that a later host may have are to be treated as a check.
            reason: if init.reason == ffi::HOST_INIT_SERVE { Reason::Serve } else { Reason::Check },
            generation: init.generation,
            extension: init.extension,
        }
    }

    /// Why `init` is run.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The number of this build, from 1 and never used again; 0 in a check.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// An extension of the host that concerns the module, by its id, or none if this host does not have it. What it
    /// points to is declared by the extension's own header, and lives as long as the process.
    pub fn extension(&self, id: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: `init` borrows this value, so it has not returned; the id ends in NUL.
        let found = unsafe { (self.extension)(id.as_ptr()) };
        NonNull::new(found.cast_mut())
    }
}
