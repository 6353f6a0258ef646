//! Content that is put together of pieces of one file or memory, with text before each and behind the last: what
//! `multipart/byteranges` is (RFC 9110 §14.6). None of it is copied but the text, and its length is known beforehand.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Where the pieces lie.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory that others send too.
    Memory(Arc<[u8]>),
    /// In an open file, from which they are sent by `sendfile`.
    File(Arc<OwnedFd>),
}

/// The pieces, in the order in which they are sent.
pub struct Parts {
    source: Source,
    text: Vec<u8>,
    pieces: Vec<Stretch>,
    /// How many of them have been given away.
    given: usize,
    length: u64,
}

struct Stretch {
    /// Where the text before it ends; it begins where that of the piece before ends.
    text_end: usize,
    offset: u64,
    length: u64,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Bytes to send before it.
    pub before: &'a [u8],
    /// Its first byte in the source.
    pub offset: u64,
    /// How many bytes it has; none behind the last one.
    pub length: u64,
}

impl Parts {
    /// No pieces of this source.
    pub fn new(source: Source) -> Parts {
        Parts { source, text: Vec::new(), pieces: Vec::new(), given: 0, length: 0 }
    }

    /// Adds text, and then `length` bytes of the source from `offset` on; the source must have them.
    pub fn push(&mut self, before: fmt::Arguments<'_>, offset: u64, length: u64) {
        let start = self.text.len();
        // Writing to memory does not fail.
        _ = std::io::Write::write_fmt(&mut self.text, before);
        self.length += (self.text.len() - start) as u64 + length;
        self.pieces.push(Stretch { text_end: self.text.len(), offset, length });
    }

    /// Where the pieces lie.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How many bytes all of it has, text and pieces.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next piece that has not been given away.
    pub fn next_piece(&mut self) -> Option<Piece<'_>> {
        let Stretch { text_end, offset, length } = *self.pieces.get(self.given)?;
        let start = self.given.checked_sub(1).map_or(0, |before| self.pieces[before].text_end);
        self.given += 1;
        Some(Piece { before: &self.text[start..text_end], offset, length })
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pieces of {:?}, {} bytes", self.pieces.len(), self.source, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_given_once_each_with_the_text_before_them() {
        let mut parts = Parts::new(Source::Memory((*b"0123456789").into()));
        parts.push(format_args!("a{}", 1), 7, 2);
        parts.push(format_args!(""), 0, 3);
        parts.push(format_args!("end"), 0, 0);
        assert_eq!(parts.length(), 2 + 2 + 3 + 3);
        assert_eq!(parts.next_piece(), Some(Piece { before: b"a1", offset: 7, length: 2 }));
        assert_eq!(parts.next_piece(), Some(Piece { before: b"", offset: 0, length: 3 }));
        assert_eq!(parts.next_piece(), Some(Piece { before: b"end", offset: 0, length: 0 }));
        assert_eq!(parts.next_piece(), None);
        assert_eq!(parts.length(), 10, "it is that of the whole");
    }
}
