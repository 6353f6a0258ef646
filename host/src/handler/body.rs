//! The two sides of the ABI's iterable: bodies that the host makes for a module, and bodies that a module gives.

use super::foreign::Foreign;
use crate::response::Chunk;
use crate::sys::crash::{self, CalledBack};
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
    pub(super) fn new(content: Content) -> HostBody {
        let count = if matches!(content, Content::Bytes(_)) { 1 } else { -1 };
        let base = host_body {
            size: size_of::<host_body>() as u32,
            flags: 0,
            count,
            next: Some(next_of_host_body),
            close: Some(close_of_host_body),
        };
        HostBody { base, content, taken: 0, chunk: Vec::new() }
    }

    /// Takes the rest of the content out: all of it, unless the module has called `next` itself.
    pub(super) fn take_rest(&mut self) -> Content {
        self.chunk = Vec::new();
        match std::mem::replace(&mut self.content, Content::Bytes(Vec::new())) {
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
    let _host = CalledBack::begin();
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
    fields: Foreign<host_body>,
    closed: bool,
}

impl ModuleBody {
    /// Takes over what `application` returned; it is not null.
    ///
    /// # Safety
    /// `at` is what the module returned as its body.
    pub(super) unsafe fn new(at: *mut host_body) -> ModuleBody {
        // SAFETY: every body begins with its size.
        let fields = unsafe { Foreign::new(at.cast_const(), offset_of!(host_body, size)) };
        ModuleBody { at, fields, closed: false }
    }

    /// Why this is no body at all, if so: memory that was not initialised, most likely.
    pub(super) fn fault(&self) -> Option<&'static str> {
        // SAFETY: the type is that of the field, and the body lives until `close`.
        let flags: Option<u32> = unsafe { self.fields.field(offset_of!(host_body, flags)) };
        if self.fields.size() < size_of::<host_body>() {
            return Some("its size is not sizeof(host_body)");
        }
        (flags != Some(0)).then_some("its flags are not 0")
    }

    /// How many chunks the module says there are; negative when it does not know.
    pub(super) fn count(&self) -> i64 {
        // SAFETY: as in `fault`.
        unsafe { self.fields.field(offset_of!(host_body, count)) }.unwrap_or(0)
    }

    /// The next chunk, in the module's memory: it lives until the following `next` or `close`.
    ///
    /// # Safety
    /// The caller does not use the chunk after that, and is in a call of this request.
    pub(super) unsafe fn next<'a>(&mut self) -> Chunk<'a> {
        // SAFETY: as in `fault`; a null pointer is `None`.
        let next: Option<Option<Next>> = unsafe { self.fields.field(offset_of!(host_body, next)) };
        let Some(next) = next.flatten() else { return Chunk::Failed };
        let mut chunk = host_str { ptr: ptr::null(), len: 0 };
        // SAFETY: the module's function gets its own body and room for one chunk.
        match crash::foreign(|| unsafe { next(self.at, &mut chunk) }) {
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
        // SAFETY: as in `fault`; a null pointer is `None`.
        let close: Option<Option<Close>> = unsafe { self.fields.field(offset_of!(host_body, close)) };
        if let Some(close) = close.flatten() {
            // SAFETY: the module's function gets its own body, and no call uses it afterwards.
            crash::foreign(|| unsafe { close(self.at) });
        }
    }
}

type Next = unsafe extern "C" fn(*mut host_body, *mut host_str) -> i32;
type Close = unsafe extern "C" fn(*mut host_body);

const FILE_CHUNK_BYTES: u64 = 64 * 1024;
