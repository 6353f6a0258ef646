//! The request's environ (PEP 3333): its keys, its content as [`Input`], and its log.

use crate::Input;
use crate::ffi::{self, host_str};
use std::any::Any;
use std::ffi::{CStr, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;

/// The environ of the request that is being answered.
///
/// It is lent to the application for the time of its call: what it gives cannot be kept longer, nor go into a
/// [`Body`](crate::Body), nor to another thread. Copy what is needed there.
///
/// ```compile_fail,E0521
/// # use abi::{Body, Environ, StartResponse};
/// fn application(env: &Environ, start: StartResponse) -> Body {
///     let path = env.path_info(); // `.to_vec()` is missing
///     start.respond("200 OK", &[], Body::chunks(std::iter::repeat_with(move || path.to_vec()).take(3)))
/// }
/// ```
///
/// ```compile_fail,E0277
/// # use abi::{Body, Environ, StartResponse};
/// fn application(env: &Environ, start: StartResponse) -> Body {
///     std::thread::scope(|scope| scope.spawn(|| env.method().len()).join().unwrap());
///     start.respond("200 OK", &[], Body::empty())
/// }
/// ```
pub struct Environ {
    // Neither Send nor Sync, as NonNull is not: the host allows these calls on the thread of the current call only.
    raw: NonNull<ffi::host_env>,
}

impl Environ {
    /// # Safety
    ///
    /// `raw` must be an environ of the host, and this value must be used on this thread and dropped before the call of
    /// the host that gave it returns.
    pub(crate) unsafe fn new(raw: NonNull<ffi::host_env>) -> Environ {
        Environ { raw }
    }

    /// The value of a key, or none if the environ does not have it. The keys are those of `host.h`: `REQUEST_METHOD`,
    /// `HTTP_ACCEPT`, and so on.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let get = self.functions().get;
        // SAFETY: the environ is alive by `new`; the key lives until the function returns.
        let value = unsafe { get(self.as_ptr(), host_str::new(key.as_bytes())) };
        // SAFETY: the host keeps values as long as the request, which outlives this borrow of the environ.
        unsafe { value.bytes() }
    }

    /// The value of a key as text; none also if it is not UTF-8.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The request's method, such as `GET`: methods are case-sensitive tokens (RFC 9110 §9.1).
    pub fn method(&self) -> &str {
        self.get_str("REQUEST_METHOD").unwrap_or_default()
    }

    /// What follows the application in the path, decoded: empty, or begins with `/`.
    pub fn path_info(&self) -> &[u8] {
        self.get("PATH_INFO").unwrap_or_default()
    }

    /// The value of the first `name=value` in the query, decoded as browsers encode forms (`+` is a space, `%41` is
    /// `A`), what is not UTF-8 replaced. A name without `=` has the empty value.
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.get("QUERY_STRING")?;
        query.split(|byte| *byte == b'&').find_map(|pair| {
            let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(equals) => (&pair[..equals], &pair[equals + 1..]),
                None => (pair, &b""[..]),
            };
            (form_decoded(key) == name.as_bytes()).then(|| String::from_utf8_lossy(&form_decoded(value)).into_owned())
        })
    }

    /// Calls `visit` once for each key and its value, in no particular order.
    pub fn each<'a>(&'a self, mut visit: impl FnMut(&'a [u8], &'a [u8])) {
        let mut visitor = Visitor {
            visit: &mut |key, value| {
                // SAFETY: the host keeps keys as long as the request, which outlives this borrow of the environ.
                let key = unsafe { key.bytes() };
                // SAFETY: as for keys.
                let value = unsafe { value.bytes() };
                visit(key.unwrap_or_default(), value.unwrap_or_default());
            },
            panic: None,
        };
        let each = self.functions().each;
        // SAFETY: the environ is alive by `new`, and `visitor` lives until the function returns.
        unsafe { each(self.as_ptr(), Some(Visitor::visit), (&raw mut visitor).cast()) };
        if let Some(panic) = visitor.panic {
            resume_unwind(panic);
        }
    }

    /// All keys and values, in no particular order.
    pub fn iter(&self) -> std::vec::IntoIter<(&[u8], &[u8])> {
        let mut pairs = Vec::new();
        self.each(|key, value| pairs.push((key, value)));
        pairs.into_iter()
    }

    /// `wsgi.input`: the request's content. Each value that this gives reads on where the one before it stopped.
    pub fn input(&self) -> Input<'_> {
        Input::new(self)
    }

    /// `wsgi.errors`: logs `text`, with the names of the module and the request. Each of its lines becomes a log line.
    pub fn errors(&self, text: &str) {
        let errors = self.functions().errors;
        // SAFETY: the environ is alive by `new`; the text lives until the function returns.
        unsafe { errors(self.as_ptr(), host_str::new(text.as_bytes())) }
    }

    /// An extension of the host by its id, such as `c"host.async/1"`, or none if this host does not have it. What it
    /// points to is declared by the extension's own header, and lives as long as the request.
    pub fn extension(&self, id: &CStr) -> Option<NonNull<c_void>> {
        let extension = self.functions().extension;
        // SAFETY: the environ is alive by `new`; the id ends in NUL and lives until the function returns.
        let found = unsafe { extension(self.as_ptr(), id.as_ptr()) };
        NonNull::new(found.cast_mut())
    }

    pub(crate) fn raw(&self) -> NonNull<ffi::host_env> {
        self.raw
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::host_env {
        self.raw.as_ptr()
    }

    pub(crate) fn functions(&self) -> &ffi::host_env {
        // SAFETY: the environ is alive by `new`. It has all these fields: a host of ABI 1.x does not take any away.
        unsafe { self.raw.as_ref() }
    }
}

impl fmt::Debug for Environ {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        formatter.debug_map().entries(self.iter().map(|(key, value)| (text(key), text(value)))).finish()
    }
}

/// Carries a closure through the C function `each`, and a panic of it back.
struct Visitor<'a> {
    visit: &'a mut dyn FnMut(host_str, host_str),
    panic: Option<Box<dyn Any + Send>>,
}

impl Visitor<'_> {
    unsafe extern "C" fn visit(context: *mut c_void, key: host_str, value: host_str) -> i32 {
        // SAFETY: `each` above passes its own visitor, which nothing else uses until `each` of the host returns.
        let visitor = unsafe { &mut *context.cast::<Visitor<'_>>() };
        match catch_unwind(AssertUnwindSafe(|| (visitor.visit)(key, value))) {
            Ok(()) => 0,
            Err(panic) => {
                visitor.panic = Some(panic);
                1
            }
        }
    }
}

/// Decodes `application/x-www-form-urlencoded`; a `%` without two hexadecimal digits stands for itself.
fn form_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let escaped = (byte == b'%').then(|| digit(at + 1).zip(digit(at + 2))).flatten();
        at += if escaped.is_some() { 3 } else { 1 };
        decoded.push(match (escaped, byte) {
            (Some((high, low)), _) => (high * 16 + low) as u8,
            (None, b'+') => b' ',
            (None, other) => other,
        });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::form_decoded;

    #[test]
    fn a_form_is_decoded_once_and_broken_escapes_stand_for_themselves() {
        assert_eq!(form_decoded(b"a+b%20c%2B%2520"), b"a b c+%20");
        assert_eq!(form_decoded(b"%"), b"%");
        assert_eq!(form_decoded(b"%4"), b"%4");
        assert_eq!(form_decoded(b"%zz%fF"), b"%zz\xff");
    }
}
