//! The Rust SDK for handlers of `host`, over the C ABI of `include/host.h`. A handler is a function and one line that
//! exports it:
//!
//! ```
//! use abi::{Body, Environ, StartResponse};
//!
//! fn application(_env: &Environ, start: StartResponse) -> Body {
//!     start.respond("200 OK", &[("Content-Type", "text/plain")], "Hello, World!\n")
//! }
//!
//! abi::application!(application);
//! ```
//!
//! Its crate is a `cdylib` that depends on this one:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! abi = { path = "../host/abi" }
//! ```
//!
//! What can go wrong stays in the request: an application that panics, or that returns an error (`Result<Body, E>`),
//! is logged and answered by 500, or by an aborted connection if the head has been sent; so is a [`Body`] that panics
//! while it is read. (A library that is built with `panic = "abort"` gives this up.)

mod body;
mod environ;
mod error;
#[doc(hidden)]
pub mod export;
pub mod ffi;
mod input;
mod module;
mod panics;
mod response;

pub use body::Body;
pub use environ::Environ;
pub use error::Error;
pub use input::Input;
pub use module::{BLOCKING, Init, NOT_THREAD_SAFE, Reason, STREAM_INPUT};
pub use response::{Answer, Refused, StartResponse, Writer};

/// Exports a function as an application of this library.
///
/// The function takes `&Environ` and [`StartResponse`] and returns a [`Body`], or a `Result` of one: see [`Answer`].
/// It is exported under its own name, or under the one after `as`:
///
/// ```
/// # use abi::{Body, Environ, StartResponse};
/// fn app(env: &Environ, start: StartResponse) -> Result<Body, std::fmt::Error> {
///     Ok(start.respond("200 OK", &[], env.path_info().to_vec()))
/// }
///
/// abi::application!(app);
/// abi::application!(app as application);
/// ```
#[macro_export]
macro_rules! application {
    ($function:path as $symbol:ident) => {
        const _: () = {
            #[unsafe(export_name = stringify!($symbol))]
            unsafe extern "C" fn __exported(
                env: *mut $crate::ffi::host_env,
                start_response: *mut $crate::ffi::host_start_response,
            ) -> *mut $crate::ffi::host_body {
                // SAFETY: the host calls this, by the contract of `host_application` in host.h.
                unsafe { $crate::export::application(env, start_response, $function) }
            }
        };
    };
    ($function:ident) => {
        $crate::application!($function as $function);
    };
}
