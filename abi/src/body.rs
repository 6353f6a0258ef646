//! The body of a response: plain values here, which become a `host_body` when the application has returned.

use crate::ffi::{HOST_IO, host_body, host_env, host_str};
use crate::{Environ, panics};
use std::borrow::Cow;
use std::fmt;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// The content of a response: text or bytes (by `From`), [a file](Body::file), or [chunks](Body::chunks) that are made
/// one by one.
///
/// It owns what it holds and borrows nothing of the request, since the host reads it after the application has returned.
#[derive(Default)]
pub struct Body(Content);

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Bytes(Cow<'static, [u8]>),
    File {
        file: OwnedFd,
        offset: u64,
        len: u64,
    },
    Chunks(Chunks),
}

type Chunk = Cow<'static, [u8]>;
type Chunks = Box<dyn Iterator<Item = Result<Chunk, String>> + Send>;

impl Body {
    /// A body without content.
    pub fn empty() -> Body {
        Body::default()
    }

    /// A body that is made chunk by chunk, each sent before the next one is made. The iterator may block, and may run on
    /// another thread than the application.
    ///
    /// ```
    /// # use abi::Body;
    /// let countdown = Body::chunks((1..=3).rev().map(|left| format!("{left}\n")));
    /// ```
    ///
    /// One that panics fails the response: 500 if nothing has been sent, else the connection is aborted, so that the
    /// client can tell.
    pub fn chunks<I>(chunks: I) -> Body
    where
        I: IntoIterator<Item: Into<Vec<u8>>, IntoIter: Send + 'static>,
    {
        Body(Content::Chunks(Box::new(chunks.into_iter().map(|chunk| Ok(Cow::Owned(chunk.into()))))))
    }

    /// As [`chunks`](Body::chunks), for an iterator that may fail: the first error is logged, and fails the response.
    pub fn try_chunks<I, T, E>(chunks: I) -> Body
    where
        I: IntoIterator<Item = Result<T, E>, IntoIter: Send + 'static>,
        T: Into<Vec<u8>>,
        E: fmt::Display,
    {
        Body(Content::Chunks(Box::new(chunks.into_iter().map(|chunk| match chunk {
            Ok(chunk) => Ok(Cow::Owned(chunk.into())),
            Err(error) => Err(format!("{error:#}")),
        }))))
    }

    /// A regular file, from its begin to its end. The host sends it without reading it, and gives a `Content-Length`.
    pub fn file(file: impl Into<OwnedFd>) -> Body {
        Body::file_part(file, 0, u64::MAX)
    }

    /// `len` bytes of a regular file from `offset`; what is past its end is left out.
    pub fn file_part(file: impl Into<OwnedFd>, offset: u64, len: u64) -> Body {
        Body(Content::File { file: file.into(), offset, len })
    }

    /// Hands the body to the host; null is an empty one.
    pub(crate) fn into_host(self, env: &Environ) -> *mut host_body {
        match self.0 {
            Content::Empty => ptr::null_mut(),
            Content::Bytes(bytes) if bytes.is_empty() => ptr::null_mut(),
            Content::Bytes(bytes) if bytes.len() <= COPY_BYTES_MAX => {
                let make = env.functions().bytes;
                // SAFETY: the environ is alive while it is borrowed; the bytes live until the function returns.
                unsafe { make(env.as_ptr(), host_str::new(&bytes)) }
            }
            Content::Bytes(bytes) => ChunkBody::allocate(Box::new(std::iter::once(Ok(bytes))), 1, env),
            Content::File { file, offset, len } => {
                let make = env.functions().file;
                // SAFETY: the environ is alive while it is borrowed; the host owns the descriptor from here.
                unsafe { make(env.as_ptr(), file.into_raw_fd(), offset, len) }
            }
            Content::Chunks(chunks) => ChunkBody::allocate(chunks, -1, env),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Empty => formatter.write_str("Body::empty()"),
            Content::Bytes(bytes) => write!(formatter, "Body of {} bytes", bytes.len()),
            Content::File { file, offset, len } => write!(formatter, "Body of {len} bytes from {offset} of {file:?}"),
            Content::Chunks(_) => formatter.write_str("Body of chunks"),
        }
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Body {
        Body(Content::Bytes(Cow::Borrowed(bytes)))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body(Content::Bytes(Cow::Owned(bytes)))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        text.as_bytes().into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        text.into_bytes().into()
    }
}

/// Up to here content is copied into a body of the host, which saves two calls into the module; beyond, copying costs
/// more than they do.
const COPY_BYTES_MAX: usize = 64 * 1024;

/// A body that this library makes: the host sees its head only.
#[repr(C)]
struct ChunkBody {
    head: host_body,
    /// For the log; the host keeps it until `close` has returned.
    env: NonNull<host_env>,
    chunks: Chunks,
    /// What `next` gave last: it must stand until the following call.
    chunk: Chunk,
}

impl ChunkBody {
    fn allocate(chunks: Chunks, count: i64, env: &Environ) -> *mut host_body {
        let head = host_body {
            size: size_of::<host_body>() as u32,
            flags: 0,
            count,
            next: Some(ChunkBody::next),
            close: Some(ChunkBody::close),
        };
        Box::into_raw(Box::new(ChunkBody { head, env: env.raw(), chunks, chunk: Cow::Borrowed(b"") })).cast()
    }

    unsafe extern "C" fn next(body: *mut host_body, chunk: *mut host_str) -> i32 {
        // SAFETY: the host passes a body that `allocate` made and `close` has not freed, in one call at a time.
        let this = unsafe { &mut *body.cast::<ChunkBody>() };
        match panics::catch(|| this.chunks.next().transpose()).flatten() {
            Ok(None) => 0,
            Ok(Some(made)) => {
                this.chunk = made;
                // SAFETY: the host passes a place for the chunk.
                unsafe { chunk.write(host_str::new(&this.chunk)) };
                1
            }
            Err(failure) => {
                // SAFETY: this is a call of the request that the environ is of, and the value is dropped before it ends.
                let env = unsafe { Environ::new(this.env) };
                env.errors(&format!("the body failed: {failure}"));
                HOST_IO
            }
        }
    }

    unsafe extern "C" fn close(body: *mut host_body) {
        // SAFETY: the host closes once a body that `allocate` made.
        let this = unsafe { Box::from_raw(body.cast::<ChunkBody>()) };
        // SAFETY: this is a call of the request that the environ is of, and the value is dropped before it ends.
        let env = unsafe { Environ::new(this.env) };
        if let Err(failure) = panics::catch(|| drop(this)) {
            env.errors(&format!("the body failed while it was closed: {failure}"));
        }
    }
}
