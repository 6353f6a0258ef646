//! What is kept of a request whose handler has crashed: the head, and the content up to a bound.

use super::{Input, Request};
use std::os::unix::fs::FileExt;

/// The beginning of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The head as it was sent, from the request line on; at most [`HEAD_BYTES_MAX`].
    pub head: Vec<u8>,
    /// Whether that is all of the head.
    pub head_is_whole: bool,
    /// The content, without its framing; at most [`CONTENT_BYTES_MAX`].
    pub content: Vec<u8>,
    /// How long the content was; unknown if the handler was called before all of it had come.
    pub content_bytes: Option<u64>,
}

impl Request {
    /// Its beginning.
    pub fn excerpt(&self) -> Excerpt {
        let head = self.head.raw();
        Excerpt {
            head: head[..head.len().min(HEAD_BYTES_MAX)].to_vec(),
            head_is_whole: head.len() <= HEAD_BYTES_MAX,
            content: self.input.beginning(CONTENT_BYTES_MAX),
            content_bytes: self.input.complete.then_some(self.input.length()),
        }
    }
}

impl Input {
    /// The first bytes, whether or not they have been read; fewer if the temporary file cannot be read.
    fn beginning(&self, bytes_max: usize) -> Vec<u8> {
        let Some(file) = &self.spool else { return self.memory[..self.memory.len().min(bytes_max)].to_vec() };
        let mut bytes = vec![0; bytes_max.min(usize::try_from(self.length).unwrap_or(bytes_max))];
        let read = file.read_at(&mut bytes, 0).unwrap_or_default();
        bytes.truncate(read);
        bytes
    }
}

/// What is kept of a head at most. Few limits are larger.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is kept of the content at most.
pub const CONTENT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadLimits;
    use crate::sys::socket::Address;
    use std::sync::Arc;

    #[test]
    fn what_was_read_is_kept_too_up_to_the_bound() {
        let local = Arc::new(Address::Unix(None));
        for size in [0, 1, CONTENT_BYTES_MAX, CONTENT_BYTES_MAX + 1, 3 * CONTENT_BYTES_MAX] {
            let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut request = Request::new(Address::Unix(None), Arc::clone(&local));
            let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            request.head.parse(head, HeadLimits { head_bytes_max: 1024 }).expect("a head");
            request.input.push(&sent, &std::env::temp_dir()).unwrap();
            assert_eq!(request.excerpt().content_bytes, None, "more may come");
            request.input.complete = true;
            request.input.read(&mut [0; 100]).unwrap();
            let excerpt = request.excerpt();
            assert_eq!((excerpt.head.as_slice(), excerpt.head_is_whole), (head.as_slice(), true));
            assert_eq!(excerpt.content_bytes, Some(size as u64));
            assert!(excerpt.content == sent[..size.min(CONTENT_BYTES_MAX)], "{size} bytes");
        }
    }
}
