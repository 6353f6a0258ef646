//! A request that has been received: its head, its path, its content, and between whom.

mod excerpt;

pub use excerpt::{CONTENT_BYTES_MAX, Excerpt, HEAD_BYTES_MAX};

use crate::http::head::Head;
use crate::http::path::Path;
use crate::response::Fields;
use crate::sys::socket::Address;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A request. Its buffers are reused from one request to the next.
pub struct Request {
    /// The request line and the header fields.
    pub head: Head,
    /// The decoded path.
    pub path: Path,
    /// The content.
    pub input: Input,
    /// Buffers for the response.
    pub spare: Spare,
    /// The client.
    pub peer: Address,
    /// The listener's address.
    pub local: Arc<Address>,
}

impl Request {
    /// An empty request between these two.
    pub fn new(peer: Address, local: Arc<Address>) -> Request {
        let (head, path, input, spare) = <(Head, Path, Input, Spare)>::default();
        Request { head, path, input, spare, peer, local }
    }

    /// Is from now on a request between these two.
    pub fn between(&mut self, peer: &Address, local: &Arc<Address>) {
        if self.peer != *peer {
            self.peer = peer.clone();
        }
        // All connections of a listener share it: counting would cost their loops a cache line.
        if !Arc::ptr_eq(&self.local, local) {
            self.local = Arc::clone(local);
        }
    }
}

/// Memory that a response is made in. Whoever makes one may take it, and the server puts it back when the response is
/// encoded: so a small one allocates nothing.
#[derive(Default)]
pub struct Spare {
    /// What was sent last, which an application may send again, or whose memory it may use.
    pub fields: Fields,
    /// For content. What is in it means nothing.
    pub content: Vec<u8>,
}

impl Spare {
    /// Takes buffers back, unless they have become unusually large.
    pub fn take_back(&mut self, fields: Fields, content: Vec<u8>) {
        if (1..=SPARE_BYTES_MAX).contains(&fields.capacity()) {
            self.fields = fields;
        }
        self.take_content_back(content);
    }

    /// Takes the buffer of content back, unless it has become unusually large.
    pub fn take_content_back(&mut self, content: Vec<u8>) {
        if (1..=SPARE_BYTES_MAX).contains(&content.capacity()) {
            self.content = content;
        }
    }
}

/// The content of a request: in memory up to a bound, then in an unlinked temporary file.
#[derive(Default)]
pub struct Input {
    memory: Vec<u8>,
    spool: Option<File>,
    length: u64,
    position: u64,
    /// Whether all of it has been received.
    pub complete: bool,
}

impl Input {
    /// Adds content at the end.
    ///
    /// # Errors
    /// The temporary file in `folder` cannot be made or written: the disk is full, most likely.
    pub fn push(&mut self, data: &[u8], folder: &std::path::Path) -> io::Result<()> {
        if self.spool.is_none() && self.memory.len() + data.len() > MEMORY_BYTES_MAX {
            let mut file = tempfile::tempfile_in(folder)?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.spool = Some(file);
        }
        match &mut self.spool {
            Some(file) => file.write_all_at(data, self.length)?,
            None => self.memory.extend_from_slice(data),
        }
        self.length += data.len() as u64;
        Ok(())
    }

    /// How many bytes have been received.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many bytes that have been received have not been read.
    pub fn unread(&self) -> u64 {
        self.length - self.position
    }

    /// Reads on; 0 when there is no more.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &self.spool {
            Some(file) => file.read_at(buffer, self.position)?,
            None => (&self.memory[self.position as usize..]).read(buffer)?,
        };
        self.position += count as u64;
        Ok(count)
    }

    /// Reads on, at most to the end of the line (LF) and of the buffer; 0 when there is no more.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn read_line(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.position;
        let count = self.read(buffer)?;
        let line = memchr::memchr(b'\n', &buffer[..count]).map_or(count, |at| at + 1);
        self.position = start + line as u64;
        Ok(line)
    }

    /// The content that is in memory: all of it, if there is no [`spool`](Self::spool).
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// The temporary file that holds all of the content, if it does.
    pub fn spool(&self) -> Option<BorrowedFd<'_>> {
        self.spool.as_ref().map(AsFd::as_fd)
    }

    /// The content that another process had received so far.
    ///
    /// # Errors
    /// The temporary file does not tell its length.
    pub fn restore(&mut self, memory: &[u8], spool: Option<OwnedFd>) -> io::Result<()> {
        self.clear();
        self.memory.extend_from_slice(memory);
        self.spool = spool.map(File::from);
        self.length = match &self.spool {
            Some(file) => file.metadata()?.len(),
            None => memory.len() as u64,
        };
        Ok(())
    }

    /// Makes room for the next request.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.memory.shrink_to(KEPT_BYTES_MAX);
        self.spool = None;
        self.length = 0;
        self.position = 0;
        self.complete = false;
    }
}

/// Content beyond this many bytes goes to a file.
const MEMORY_BYTES_MAX: usize = 64 * 1024;

/// The largest buffer that is kept for another response.
const SPARE_BYTES_MAX: usize = 32 * 1024;

/// Memory that an empty content keeps for the next one.
const KEPT_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_reads_back_the_same_from_memory_and_from_a_file() {
        for size in [0, 1, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX + 1, 5 * MEMORY_BYTES_MAX] {
            let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut input = Input::default();
            for piece in sent.chunks(1000) {
                input.push(piece, &std::env::temp_dir()).unwrap();
            }
            assert_eq!(input.spool().is_some(), size > MEMORY_BYTES_MAX);
            let mut got = Vec::new();
            let mut buffer = [0; 777];
            while let count @ 1.. = input.read(&mut buffer).unwrap() {
                got.extend_from_slice(&buffer[..count]);
            }
            assert!(got == sent, "{size} bytes");
        }
    }

    #[test]
    fn lines_end_after_lf_at_the_end_or_where_the_buffer_is_full() {
        let mut input = Input::default();
        input.push(b"one\ntwo and more\nlast", &std::env::temp_dir()).unwrap();
        let mut line = |room| {
            let mut buffer = vec![0; room];
            let count = input.read_line(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        };
        assert_eq!([line(99), line(4), line(99), line(99), line(99)], ["one\n", "two ", "and more\n", "last", ""]);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut input = Input::default();
        let missing = std::path::Path::new("/nonexistent/folder");
        assert!(input.push(&vec![0; MEMORY_BYTES_MAX + 1], missing).is_err());
    }
}
