//! The two sides of the ABI's iterable: bodies that the host makes for a module, and bodies that a module gives.

use crate::response::Chunk;
use abi::ffi::{self, host_body, host_str};
use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::ptr;

/// What `bytes` and `file` give. Its address is that of its first field, which is what the module gets.
#[repr(C)]
pub(super) struct HostBody {
    base: host_body,
    content: Content,
    /// What a module that calls `next` itself has taken.
    taken: u64,
    chunk: Vec<u8>,
}

/// The content of a [`HostBody`].
pub(super) enum Content {
    Bytes(Vec<u8>),
    File {
        file: File,
        offset: u64,
        length: u64,
    },
    /// It could not be made; the text says why.
    Failed(String),
}

impl HostBody {
    pub(super) fn new(content: Content) -> Box<HostBody> {
        let count = if matches!(content, Content::Bytes(_)) { 1 } else { -1 };
        let base = host_body {
            size: size_of::<host_body>() as u32,
            flags: 0,
            count,
            next: Some(next_of_host_body),
            close: Some(close_of_host_body),
        };
        Box::new(HostBody { base, content, taken: 0, chunk: Vec::new() })
    }

    /// The rest of the content: all of it, unless the module has called `next` itself.
    pub(super) fn into_rest(self: Box<HostBody>) -> Content {
        match self.content {
            Content::Bytes(_) if self.taken > 0 => Content::Bytes(Vec::new()),
            Content::File { file, offset, length } => {
                Content::File { file, offset: offset + self.taken, length: length - self.taken }
            }
            whole => whole,
        }
    }

    fn next(&mut self) -> Result<Option<&[u8]>, i32> {
        match &self.content {
            Content::Bytes(_) if self.taken > 0 => Ok(None),
            Content::Bytes(bytes) => {
                self.taken = 1;
                Ok(Some(bytes))
            }
            Content::File { length, .. } if self.taken >= *length => Ok(None),
            Content::File { file, offset, length } => {
                let want = (*length - self.taken).min(FILE_CHUNK_BYTES) as usize;
                self.chunk.resize(want, 0);
                let count = file.read_at(&mut self.chunk, offset + self.taken).map_err(|_| ffi::HOST_IO)?;
                self.taken += count as u64;
                // A file that has shrunk meanwhile cannot give what was promised.
                if count == 0 { Err(ffi::HOST_IO) } else { Ok(Some(&self.chunk[..count])) }
            }
            Content::Failed(_) => Err(ffi::HOST_IO),
        }
    }
}

/// For a module that iterates over a host's body itself, as a middleware does.
unsafe extern "C" fn next_of_host_body(body: *mut host_body, chunk: *mut host_str) -> i32 {
    if body.is_null() || chunk.is_null() {
        return ffi::HOST_INVALID;
    }
    // SAFETY: the module passes the pointer that it got from `bytes` or `file`, whose first field this is; the request
    // owns the body until it ends, and calls of one request do not overlap.
    let body = unsafe { &mut *body.cast::<HostBody>() };
    let (result, value) = match body.next() {
        Ok(Some(data)) => (1, host_str { ptr: data.as_ptr().cast(), len: data.len() }),
        Ok(None) => return 0,
        Err(error) => return error,
    };
    // SAFETY: the caller gives room for one `host_str`.
    unsafe { chunk.write(value) };
    result
}

/// The request owns the body and frees it: there is nothing to do here.
unsafe extern "C" fn close_of_host_body(_body: *mut host_body) {}

/// A body that a module gave, to be closed exactly once.
pub(super) struct ModuleBody {
    at: *mut host_body,
    closed: bool,
}

impl ModuleBody {
    /// Takes over what `application` returned; it is not null.
    pub(super) fn new(at: *mut host_body) -> ModuleBody {
        ModuleBody { at, closed: false }
    }

    /// How many chunks the module says there are; negative when it does not know.
    pub(super) fn count(&self) -> i64 {
        if !self.has(offset_of!(host_body, count) + size_of::<i64>()) {
            return 0;
        }
        // SAFETY: the module says that its struct is large enough, and it lives until `close`.
        unsafe { ptr::addr_of!((*self.at).count).read() }
    }

    /// The next chunk, in the module's memory: it lives until the following `next` or `close`.
    ///
    /// # Safety
    /// The caller does not use the chunk after that, and is in a call of this request.
    pub(super) unsafe fn next<'a>(&mut self) -> Chunk<'a> {
        let next = if self.has(offset_of!(host_body, next) + size_of::<usize>()) {
            // SAFETY: as in `count`; a null pointer is `None`.
            unsafe { ptr::addr_of!((*self.at).next).read() }
        } else {
            None
        };
        let Some(next) = next else { return Chunk::Failed };
        let mut chunk = host_str { ptr: ptr::null(), len: 0 };
        // SAFETY: the module's function gets its own body and room for one chunk.
        match unsafe { next(self.at, &mut chunk) } {
            0 => Chunk::End,
            1 if chunk.len == 0 => Chunk::Data(&[]),
            1 if !chunk.ptr.is_null() && isize::try_from(chunk.len).is_ok() => {
                // SAFETY: the module gives `len` readable bytes that live until the following call.
                Chunk::Data(unsafe { std::slice::from_raw_parts(chunk.ptr.cast(), chunk.len) })
            }
            _ => Chunk::Failed,
        }
    }

    /// Calls `close`, once.
    pub(super) fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if !self.has(offset_of!(host_body, close) + size_of::<usize>()) {
            return;
        }
        // SAFETY: as in `count`; a null pointer is `None`.
        let close = unsafe { ptr::addr_of!((*self.at).close).read() };
        if let Some(close) = close {
            // SAFETY: the module's function gets its own body, and no call uses it afterwards.
            unsafe { close(self.at) };
        }
    }

    /// Why this is no body at all, if so: memory that was not initialised, most likely.
    pub(super) fn fault(&self) -> Option<&'static str> {
        // SAFETY: every body begins with its size and flags.
        let flags = unsafe { ptr::addr_of!((*self.at).flags).read() };
        if self.size() < offset_of!(host_body, count) {
            return Some("its size is not sizeof(host_body)");
        }
        (flags != 0).then_some("its flags are not 0")
    }

    /// Whether the module's struct reaches so far; fields past its size are zero.
    fn has(&self, end: usize) -> bool {
        self.size() >= end
    }

    fn size(&self) -> usize {
        // SAFETY: every body begins with its size, and lives until `close`.
        unsafe { ptr::addr_of!((*self.at).size).read() as usize }
    }
}

const FILE_CHUNK_BYTES: u64 = 64 * 1024;
