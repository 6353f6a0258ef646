//! `wsgi.input`: the content of a request, as a reader.

use crate::{Environ, Error, ffi};
use std::ffi::c_void;
use std::io;

/// The request's content, framing removed; `env.input()` gives it.
///
/// Errors carry an [`Error`], and are final: the client has left, or its content is too large, late or malformed.
#[derive(Debug)]
pub struct Input<'request> {
    env: &'request Environ,
}

impl<'request> Input<'request> {
    pub(crate) fn new(env: &'request Environ) -> Input<'request> {
        Input { env }
    }

    /// Appends the next line to `line`, with its LF unless the content ends without one. Gives the number of bytes; 0
    /// at the end. A line is as long as the client made it: the host's limit on content is the only bound.
    pub fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<usize> {
        let readline = self.env.functions().readline;
        let before = line.len();
        let mut piece = [0; 1024];
        loop {
            let len = self.fill(readline, &mut piece)?;
            line.extend_from_slice(&piece[..len]);
            if len == 0 || piece[len - 1] == b'\n' {
                return Ok(line.len() - before);
            }
        }
    }

    fn fill(&mut self, function: ReadFunction, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the environ is alive while it is borrowed; the host writes at most `len` bytes to the buffer.
        let answer = unsafe { function(self.env.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(answer) {
            Ok(len) => Ok(len.min(buffer.len())),
            Err(_) => Err(Error::from_code(answer).into()),
        }
    }
}

impl io::Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(self.env.functions().read, buffer)
    }
}

type ReadFunction = unsafe extern "C" fn(*mut ffi::host_env, *mut c_void, usize) -> i64;
