//! Several parts of a file in one response: `multipart/byteranges` (RFC 9110 §14.6).

use crate::http::range::Span;
use crate::response::{Parts, Source};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The frame of such a content.
pub(super) struct Multipart<'a> {
    boundary: Boundary,
    /// The type of each part.
    part_type: &'a [u8],
    /// The size of the whole, of which they are parts.
    size: u64,
}

/// What stands between parts, and nowhere in them but by an accident of one in 2^128: it is made anew for each response, of a
/// number and of keys that only this process knows, so that nobody can put it into a file beforehand.
#[derive(Clone, Copy)]
struct Boundary([u64; 2]);

impl<'a> Multipart<'a> {
    /// A frame with a new boundary.
    pub(super) fn new(part_type: &'a [u8], size: u64) -> Multipart<'a> {
        Multipart { boundary: Boundary::new(), part_type, size }
    }

    /// The type of the whole content.
    pub(super) fn content_type(&self) -> impl fmt::Display {
        let boundary = self.boundary;
        fmt::from_fn(move |f| write!(f, "multipart/byteranges; boundary={boundary}"))
    }

    /// These parts of `source`, framed.
    pub(super) fn of(&self, spans: &[Span], source: Source) -> Parts {
        let mut parts = Parts::new(source);
        let part_type = String::from_utf8_lossy(self.part_type);
        let mut line_end = "";
        for span in spans {
            // §15.3.7.2: "Within the header area of each body part in the multipart content, the server MUST generate a
            // Content-Range header field corresponding to the range being enclosed in that body part. If the selected
            // representation would have had a Content-Type header field in a 200 (OK) response, the server SHOULD generate that
            // same Content-Type".
            let range = span.content_range(self.size);
            let boundary = self.boundary;
            let head =
                format_args!("{line_end}--{boundary}\r\nContent-Type: {part_type}\r\nContent-Range: {range}\r\n\r\n");
            parts.push(head, span.first, span.len());
            line_end = "\r\n";
        }
        parts.push(format_args!("\r\n--{}--\r\n", self.boundary), 0, 0);
        parts
    }
}

impl Boundary {
    fn new() -> Boundary {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Boundary([KEYS[0].hash_one(number), KEYS[1].hash_one(!number)])
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_boundary_comes_twice() {
        let boundaries: HashSet<String> = (0..10_000).map(|_| Boundary::new().to_string()).collect();
        assert_eq!(boundaries.len(), 10_000);
        assert!(boundaries.iter().all(|boundary| boundary.len() == 32));
    }

    #[test]
    fn parts_are_framed_to_the_letter() {
        let multipart = Multipart::new(b"text/plain", 100);
        let boundary = multipart.boundary;
        assert_eq!(multipart.content_type().to_string(), format!("multipart/byteranges; boundary={boundary}"));
        let spans = [Span { first: 90, last: 99 }, Span { first: 0, last: 0 }];
        let mut parts = multipart.of(&spans, Source::Memory([b'x'; 100].into()));
        let mut whole = String::new();
        while let Some(piece) = parts.next_piece() {
            whole += std::str::from_utf8(piece.before).unwrap();
            whole += &"x".repeat(piece.length as usize);
        }
        assert_eq!(
            whole,
            format!(
                "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 90-99/100\r\n\r\nxxxxxxxxxx\r\n\
                 --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-0/100\r\n\r\nx\r\n\
                 --{boundary}--\r\n"
            )
        );
        assert_eq!(parts.length(), whole.len() as u64);
    }
}
