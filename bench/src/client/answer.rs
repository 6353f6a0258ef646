//! The answers of one connection, checked: the status, and as many bytes of content as `Content-Length` says, which must
//! be as many as are expected.
//!
//! Checking must cost next to nothing, because the client has one core. Servers send the same head again and again,
//! but for its date; so a head that equals the one before it is right because that one was.

use serde::{Deserialize, Serialize};

/// What each answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its status code.
    pub status: u16,
    /// The bytes of its content.
    pub length: u64,
}

/// What has arrived of the answer that a connection is at.
#[derive(Debug, Default)]
pub struct Answers {
    /// The head as far as it has arrived, if it came in pieces.
    head: Vec<u8>,
    content_left: u64,
}

/// An answer that is not as expected: wrong in its head, or bytes where no answer begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

/// A head that is longer than this is a mistake.
const HEAD_BYTES_MAX: usize = 64 << 10;

impl Answers {
    /// Takes in what was received, and says how many answers have become complete. `known` is a head that was found
    /// right, shared by all connections that ask for the same.
    pub fn take(&mut self, mut bytes: &[u8], known: &mut Vec<u8>, expected: Expected) -> Result<u64, Wrong> {
        let mut complete = 0;
        while !bytes.is_empty() {
            if self.content_left == 0 {
                let Some(rest) = self.take_head(bytes, known, expected)? else { break };
                bytes = rest;
                self.content_left = expected.length;
            }
            let content = usize::try_from(self.content_left).unwrap_or(usize::MAX).min(bytes.len());
            self.content_left -= content as u64;
            bytes = &bytes[content..];
            complete += u64::from(self.content_left == 0);
        }
        Ok(complete)
    }

    /// How many bytes of content are still to come.
    pub fn content_left(&self) -> u64 {
        self.content_left
    }

    /// Takes in bytes of content that were received and not looked at, at most as many as are still to come. Says how many
    /// answers have become complete.
    pub fn skip(&mut self, count: u64) -> u64 {
        self.content_left -= count;
        u64::from(self.content_left == 0)
    }

    /// What follows the head; none if the head is not complete.
    fn take_head<'a>(
        &mut self,
        bytes: &'a [u8],
        known: &mut Vec<u8>,
        expected: Expected,
    ) -> Result<Option<&'a [u8]>, Wrong> {
        if self.head.is_empty()
            && !known.is_empty()
            && let Some(rest) = bytes.strip_prefix(known.as_slice())
        {
            return Ok(Some(rest));
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|end| end == b"\r\n\r\n") else {
            let too_long = self.head.len() > HEAD_BYTES_MAX;
            return if too_long { Err(Wrong("a head without an end".to_owned())) } else { Ok(None) };
        };
        self.head.truncate(end + 4);
        check(&self.head, expected)?;
        std::mem::swap(known, &mut self.head);
        self.head.clear();
        Ok(Some(&bytes[end + 4 - before..]))
    }
}

/// Whether a complete head is one of the expected answer.
fn check(head: &[u8], expected: Expected) -> Result<(), Wrong> {
    let wrong = |what: &str| Err(Wrong(format!("{what}: {}", String::from_utf8_lossy(head).escape_debug())));
    let Ok(text) = std::str::from_utf8(head) else { return wrong("a head that is no text") };
    let mut lines = text.split("\r\n");
    // uWSGI says HTTP/1.0 whatever it does. A connection that then ends is noticed elsewhere.
    let version = |line: &'_ str| line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 ");
    let line = lines.next().filter(|line| version(line));
    let status = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    if status != Some(expected.status) {
        return wrong("another status");
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim());
    if length.collect::<Vec<_>>() != [expected.length.to_string()] {
        return wrong("another length, or none");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected { status: 200, length: 3 };
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length: 3\r\n\r\nabc";

    fn take(pieces: &[&[u8]]) -> Result<u64, Wrong> {
        let (mut answers, mut known) = (Answers::default(), Vec::new());
        pieces.iter().map(|piece| answers.take(piece, &mut known, EXPECTED)).sum()
    }

    #[test]
    fn answers_are_counted_however_they_are_cut() {
        let other = ANSWER.iter().map(|byte| if *byte == b'x' { b'y' } else { *byte }).collect::<Vec<u8>>();
        let stream = [ANSWER, ANSWER, &other, ANSWER].concat();
        for size in 1..=stream.len() {
            assert_eq!(take(&stream.chunks(size).collect::<Vec<_>>()), Ok(4), "pieces of {size}");
            assert_eq!(take(&stream[..stream.len() - 1].chunks(size).collect::<Vec<_>>()), Ok(3), "pieces of {size}");
        }
    }

    #[test]
    fn content_that_is_not_looked_at_counts() {
        let (mut answers, mut known) = (Answers::default(), Vec::new());
        let (head, content) = ANSWER.split_at(ANSWER.len() - 2);
        for _ in 0..2 {
            assert_eq!(answers.take(head, &mut known, EXPECTED), Ok(0));
            assert_eq!((answers.content_left(), content.len()), (2, 2));
            assert_eq!([answers.skip(1), answers.skip(1)], [0, 1]);
        }
    }

    #[test]
    fn an_answer_without_content_is_complete_with_its_head() {
        let head = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        let expected = Expected { status: 204, length: 0 };
        let found = Answers::default().take(&[head.as_slice(), head].concat(), &mut Vec::new(), expected);
        assert_eq!(found, Ok(2));
    }

    #[test]
    fn what_is_not_expected_is_refused() {
        for (from, to) in [
            ("200 OK", "500 Internal Server Error"),
            ("HTTP/1.1", "HTTP/2"),
            ("length: 3", "length: 4"),
            ("content-length: 3\r\n", ""),
            ("Date: x", "Content-Length: 3"),
        ] {
            let text = String::from_utf8(ANSWER.to_vec()).unwrap().replace(from, to);
            assert!(take(&[text.as_bytes()]).is_err(), "{text}");
            // Neither is it after a right one.
            assert!(take(&[ANSWER, text.as_bytes()]).is_err(), "{text}");
        }
        assert!(take(&[ANSWER, b"d", ANSWER]).is_err(), "more content than was announced");
        assert!(take(&[&[b'a'; HEAD_BYTES_MAX + 1]]).is_err());
    }
}
