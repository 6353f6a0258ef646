//! The head of a response: [`StartResponse`], the [`Writer`] that it gives, and what an application may return.

use crate::ffi::{self, host_header, host_str};
use crate::{Body, Error};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

/// The `start_response` callable (PEP 3333) of one request.
///
/// It is valid for the time of the application's call, and cannot be kept longer:
///
/// ```compile_fail,E0521
/// # use abi::{Body, Environ, StartResponse};
/// # use std::cell::RefCell;
/// thread_local!(static KEPT: RefCell<Vec<StartResponse<'static>>> = RefCell::default());
///
/// fn application(_env: &Environ, start: StartResponse) -> Body {
///     KEPT.with_borrow_mut(|kept| kept.push(start));
///     Body::empty()
/// }
/// ```
#[derive(Debug)]
pub struct StartResponse<'request> {
    raw: NonNull<ffi::host_start_response>,
    request: PhantomData<&'request mut ffi::host_start_response>,
}

impl<'request> StartResponse<'request> {
    /// # Safety
    ///
    /// `raw` must be a `start_response` of the host, and `'request` must end before the call of the host that gave it
    /// returns.
    pub(crate) unsafe fn new(raw: NonNull<ffi::host_start_response>) -> StartResponse<'request> {
        StartResponse { raw, request: PhantomData }
    }

    /// Starts the response and gives its body: what most applications end with.
    ///
    /// ```
    /// # use abi::{Body, Environ, StartResponse};
    /// fn application(env: &Environ, start: StartResponse) -> Body {
    ///     let Some(name) = env.query("name") else {
    ///         return start.respond("400 Bad Request", &[("Content-Type", "text/plain")], "who are you?\n");
    ///     };
    ///     start.respond("200 OK", &[("Content-Type", "text/plain; charset=utf-8")], format!("Hello, {name}!\n"))
    /// }
    /// ```
    ///
    /// A status or header that the host refuses makes the response a 500, with the reason in the log.
    pub fn respond(self, status: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Body {
        match self.start(status, headers) {
            Ok(_) => body.into(),
            // Nothing has been started, which the host answers by 500.
            Err(Refused) => Body::empty(),
        }
    }

    /// Starts the response. Nothing is sent before its first byte of content, so that a failure until then can still
    /// become another response.
    ///
    /// `status` is a code and a reason, such as `404 Not Found`; `headers` are names and values. The host refuses what
    /// is malformed, and the fields of the connection: `host.h` has the list.
    pub fn start(self, status: &str, headers: &[(&str, &str)]) -> Result<Writer<'request>, Refused> {
        call(self, status, headers, None)
    }
}

/// The `write` callable (PEP 3333): sends content at once, before that of the body. To ignore it is fine.
#[derive(Debug)]
pub struct Writer<'request> {
    raw: NonNull<ffi::host_writer>,
    start: StartResponse<'request>,
}

impl<'request> Writer<'request> {
    /// Replaces the response, of which nothing has been sent, by another one. `error` is why, for the log. If something
    /// has been sent this is refused, and the connection is aborted when the application returns.
    pub fn restart(self, status: &str, headers: &[(&str, &str)], error: &str) -> Result<Writer<'request>, Refused> {
        call(self.start, status, headers, Some(error))
    }
}

impl io::Write for Writer<'_> {
    /// Sends all of `data`; waits while the client is slow. Errors carry an [`Error`], and are final.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // SAFETY: the host keeps the writer as long as the request, of which this is a borrow.
        let write = unsafe { self.raw.as_ref() }.write;
        // SAFETY: as above; the data live until the function returns.
        match unsafe { write(self.raw.as_ptr(), host_str::new(data)) } {
            0.. => Ok(data.len()),
            code => Err(Error::from_code(code.into()).into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The host has refused to start the response. The reason is in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("start_response refused the status or the headers: the line before this one says why")
    }
}

impl std::error::Error for Refused {}

/// What an application may return: a [`Body`], or a `Result` whose error is logged and answered by 500, also in place
/// of a response that has been started and not sent.
pub trait Answer {
    /// The body, or what to log.
    fn answer(self) -> Result<Body, String>;
}

impl Answer for Body {
    fn answer(self) -> Result<Body, String> {
        Ok(self)
    }
}

impl<E: fmt::Display> Answer for Result<Body, E> {
    fn answer(self) -> Result<Body, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

/// Calls the host's function, with an `exc_info` if there is an error.
fn call<'request>(
    start: StartResponse<'request>,
    status: &str,
    headers: &[(&str, &str)],
    error: Option<&str>,
) -> Result<Writer<'request>, Refused> {
    let as_field = |&(name, value): &(&str, &str)| host_header {
        name: host_str::new(name.as_bytes()),
        value: host_str::new(value.as_bytes()),
    };
    // Most responses have a few fields: those need no allocation.
    let mut few = [const { MaybeUninit::uninit() }; 16];
    let many: Vec<host_header>;
    let fields = if headers.len() <= few.len() {
        for (field, header) in few.iter_mut().zip(headers) {
            field.write(as_field(header));
        }
        // SAFETY: so many have been written.
        unsafe { few[..headers.len()].assume_init_ref() }
    } else {
        many = headers.iter().map(as_field).collect();
        &many[..]
    };
    let exc_info = error.map(|error| ffi::host_exc_info {
        size: size_of::<ffi::host_exc_info>() as u32,
        flags: 0,
        message: host_str::new(error.as_bytes()),
    });
    let exc_info = exc_info.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the host keeps start_response as long as the request, of which this is a borrow.
    let function = unsafe { start.raw.as_ref() }.call;
    let status = host_str::new(status.as_bytes());
    // SAFETY: as above; the arguments live until the function returns.
    let writer = unsafe { function(start.raw.as_ptr(), status, fields.as_ptr(), fields.len(), exc_info) };
    NonNull::new(writer).map(|raw| Writer { raw, start }).ok_or(Refused)
}
