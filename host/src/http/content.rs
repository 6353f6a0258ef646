//! A request's content: takes the framing off (RFC 9112 §6, §7.1), a run of bytes at a time, and copies nothing.
//!
//! The decoder is a state machine over single bytes wherever there is framing, so that input may be split anywhere.

use super::{Framing, Reject, is_field_value_byte, is_token_byte};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Chunk extensions and trailers of one content together: they are read and dropped, and must not be endless.
const DROPPED_BYTES_MAX: u32 = 8 * 1024;

/// A chunk size has at most as many digits as a `u64`, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 16;

/// Decodes one request's content. It can travel to another process between two calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decoder {
    state: State,
    received: u64,
    body_bytes_max: u64,
    dropped: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// `left` bytes, the last of all.
    Length { left: u64 },
    /// A chunk's size, of which `digits` have been read.
    Size { size: u64, digits: u8 },
    /// Space before a chunk extension.
    ExtensionSpace { size: u64 },
    /// A chunk extension.
    Extension { size: u64 },
    /// The LF after a chunk's size and extensions.
    SizeLf { size: u64 },
    /// `left` bytes of a chunk.
    Data { left: u64 },
    /// The CR after a chunk's data.
    DataCr,
    /// The LF after a chunk's data.
    DataLf,
    /// A trailer line, or the CR of the empty line.
    TrailerStart,
    /// The rest of a trailer's name.
    TrailerName,
    /// A trailer's value.
    TrailerValue,
    /// The LF after a trailer.
    TrailerLf,
    /// The LF of the empty line.
    LastLf,
    /// Nothing: the rest belongs to the next request.
    Done,
}

impl Decoder {
    /// A decoder for content with this framing. 413 if its length is known to be over `body_bytes_max`.
    pub fn new(framing: Framing, body_bytes_max: u64) -> Result<Decoder, Reject> {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(left) if left > body_bytes_max => return Err(TOO_LARGE),
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::Size { size: 0, digits: 0 },
        };
        Ok(Decoder { state, received: 0, body_bytes_max, dropped: 0 })
    }

    /// Takes framing and at most one run of content from the front of `input`.
    ///
    /// Returns how many bytes were taken and where in `input` the content among them is; it is the last of them. With an
    /// empty run, `input` was used up by framing, or the content is done. `(0, _)`: there is no input, or it is done.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Range<usize>), Reject> {
        let mut taken = 0;
        while let Some(byte) = input.get(taken).copied() {
            self.state = match self.state {
                State::Done => break,
                State::Length { left } => {
                    let run = self.take(&input[taken..], left);
                    self.state = match left - run as u64 {
                        0 => State::Done,
                        left => State::Length { left },
                    };
                    return Ok((taken + run, taken..taken + run));
                }
                State::Data { left } => {
                    let run = self.take(&input[taken..], left);
                    self.state = match left - run as u64 {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                    return Ok((taken + run, taken..taken + run));
                }
                framing => self.step(framing, byte)?,
            };
            taken += 1;
        }
        Ok((taken, taken..taken))
    }

    /// Whether all content has been decoded.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of content so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How much of `input` is content, if at most `left` bytes are.
    fn take(&mut self, input: &[u8], left: u64) -> usize {
        let run = left.min(input.len() as u64);
        self.received += run;
        run as usize
    }

    /// The state after `byte` of the chunked coding's framing (RFC 9112 §7.1).
    fn step(&mut self, state: State, byte: u8) -> Result<State, Reject> {
        match (state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // RFC 9112 §7.1: "Recipients MUST anticipate potentially large hexadecimal numerals and prevent parsing
                // errors due to integer conversion overflows".
                if digits == SIZE_DIGITS_MAX {
                    return Err(Reject::bad_request("a chunk size has too many digits"));
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(State::Size { size: size << 4 | digit, digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => {
                Err(Reject::bad_request("a chunk must begin with its size in hex digits"))
            }
            (State::Size { size, .. } | State::ExtensionSpace { size }, b';') => {
                self.drop_in(State::Extension { size })
            }
            (State::Size { size, .. } | State::ExtensionSpace { size }, b' ' | b'\t') => {
                self.drop_in(State::ExtensionSpace { size })
            }
            (State::Size { size, .. } | State::Extension { size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { .. } | State::ExtensionSpace { .. }, b'\n') => Err(CRLF_NEEDED),
            (State::Size { .. } | State::ExtensionSpace { .. }, _) => {
                Err(Reject::bad_request("a chunk size must be hex digits"))
            }
            (State::Extension { size }, byte) if is_field_value_byte(byte) => self.drop_in(State::Extension { size }),
            (State::Extension { .. }, b'\n') => Err(CRLF_NEEDED),
            (State::Extension { .. }, _) => Err(Reject::bad_request("a chunk extension has a control character")),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf { size }, b'\n') => match size > self.body_bytes_max - self.received {
                true => Err(TOO_LARGE),
                false => Ok(State::Data { left: size }),
            },
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataCr, b'\n') => Err(CRLF_NEEDED),
            (State::DataCr, _) => Err(Reject::bad_request("a chunk is longer than its size")),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::TrailerStart | State::TrailerName, byte) if is_token_byte(byte) => self.drop_in(State::TrailerName),
            (State::TrailerName, b':') => self.drop_in(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, byte) if is_field_value_byte(byte) => self.drop_in(State::TrailerValue),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, b'\n') => Err(CRLF_NEEDED),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                Err(Reject::bad_request("a trailer line must have the form: Name: value"))
            }
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::SizeLf { .. } | State::DataLf | State::TrailerLf | State::LastLf, _) => {
                Err(Reject::bad_request("a CR must be followed by an LF"))
            }
            (State::Length { .. } | State::Data { .. } | State::Done, _) => unreachable!("decode takes these itself"),
        }
    }

    /// Drops a byte of an extension or a trailer, within the bound.
    fn drop_in(&mut self, next: State) -> Result<State, Reject> {
        self.dropped += 1;
        match self.dropped > DROPPED_BYTES_MAX {
            true => Err(Reject::new(431, "the chunk extensions and trailers are larger than this server takes")),
            false => Ok(next),
        }
    }
}

const TOO_LARGE: Reject = Reject::new(413, "the content is larger than this server takes");
const CRLF_NEEDED: Reject = Reject::bad_request("lines must end in CRLF");

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    /// Decodes `input` in pieces of these sizes. Returns the content and how much of `input` was taken.
    fn decode(
        framing: Framing,
        max: u64,
        input: &[u8],
        mut piece: impl FnMut() -> usize,
    ) -> Result<(Vec<u8>, usize, bool), Reject> {
        let mut decoder = Decoder::new(framing, max)?;
        let mut content = Vec::new();
        let (mut taken, mut visible) = (0, 0);
        loop {
            let (count, run) = decoder.decode(&input[taken..visible])?;
            assert!(run.end == count || run.is_empty());
            content.extend_from_slice(&input[taken..][run]);
            taken += count;
            assert_eq!(decoder.received(), content.len() as u64);
            if count > 0 {
                continue;
            }
            if decoder.is_done() || visible == input.len() {
                return Ok((content, taken, decoder.is_done()));
            }
            visible = input.len().min(visible + piece());
        }
    }

    /// The content of `input`, what is left of it, and whether the content is complete.
    fn chunked(input: &str) -> Result<(String, &str, bool), u16> {
        let whole = decode(Framing::Chunked, 100, input.as_bytes(), || usize::MAX / 2);
        let bytewise = decode(Framing::Chunked, 100, input.as_bytes(), || 1);
        assert_eq!(whole, bytewise, "{input:?}");
        whole
            .map(|(content, taken, done)| (String::from_utf8(content).unwrap(), &input[taken..], done))
            .map_err(|reject| reject.status)
    }

    #[test]
    fn a_length_is_taken_and_no_byte_more() {
        assert_eq!(decode(Framing::Length(5), 5, b"helloGET /", || 3), Ok((b"hello".to_vec(), 5, true)));
        assert_eq!(decode(Framing::Length(5), 5, b"hel", || 3), Ok((b"hel".to_vec(), 3, false)));
        assert_eq!(decode(Framing::None, 5, b"GET /", || 3), Ok((vec![], 0, true)));
        assert_eq!(decode(Framing::Length(0), 0, b"GET /", || 3), Ok((vec![], 0, true)));
        assert_eq!(decode(Framing::Length(6), 5, b"", || 1).unwrap_err().status, 413);
    }

    #[test]
    fn chunks_are_joined_and_the_next_request_is_left() {
        for (input, content) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("2\r\nhe\r\n003\r\nllo\r\n00\r\n\r\n", "hello"),
            ("A;a=b;c=\"d e\"\r\n0123456789\r\n0;x\r\n\r\n", "0123456789"),
            ("1 \t;a\r\nx\r\n0\r\n\r\n", "x"),
            ("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", "x"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ] {
            assert_eq!(chunked(&format!("{input}GET /")), Ok((content.to_owned(), "GET /", true)), "{input:?}");
        }
        assert_eq!(chunked("5\r\nhel"), Ok(("hel".to_owned(), "", false)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            "\r\n",
            "\n",
            " 5\r\nhello",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x5\r\nhello",
            "5\nhello",
            "5\rhello",
            "5 \r\nhello",
            "5 x\r\nhello",
            "5;a\nhello",
            "5;a\rb\r\nhello",
            "5;a\0b\r\nhello",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\rx",
            "00000000000000001\r\nx",
            "0\r\n: b\r\n\r\n",
            "0\r\nA b: c\r\n\r\n",
            "0\r\nA : c\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\rc\r\n",
            "0\r\nA: \x01\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\nA\r\n",
        ] {
            assert_eq!(chunked(input), Err(400), "{input:?}");
        }
    }

    #[test]
    fn sizes_are_bounded_and_never_wrap() {
        assert_eq!(chunked("64\r\n").map(|(.., done)| done), Ok(false));
        assert_eq!(chunked("65\r\n"), Err(413));
        assert_eq!(chunked("ffffffffffffffff\r\n"), Err(413));
        assert_eq!(chunked("10000000000000000\r\n"), Err(400));
        // 1 + (2^64 - 1) would wrap to 0.
        assert_eq!(chunked("1\r\nx\r\nffffffffffffffff\r\n"), Err(413));
        let many = "1\r\nx\r\n".repeat(101);
        assert_eq!(chunked(&many), Err(413));
    }

    #[test]
    fn extensions_and_trailers_are_bounded_together() {
        let max = DROPPED_BYTES_MAX as usize;
        assert!(chunked(&format!("0;{}\r\n\r\n", "a".repeat(max - 1))).is_ok());
        assert_eq!(chunked(&format!("0;{}\r\n\r\n", "a".repeat(max))), Err(431));
        assert_eq!(chunked(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(max / 4 + 1))), Err(431));
        // Spread over many chunks they are still one cost.
        assert_eq!(chunked(&format!("1;{}\r\nx\r\n", "a".repeat(max / 50)).repeat(60)), Err(431));
    }

    #[test]
    fn a_decoder_travels_between_two_bytes() {
        let input = b"5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
        let mut decoder = Decoder::new(Framing::Chunked, 100).unwrap();
        let mut content = Vec::new();
        for byte in input.chunks(1) {
            let (taken, run) = decoder.decode(byte).unwrap();
            assert_eq!(taken, 1);
            content.extend_from_slice(&byte[run]);
            decoder = serde_json::from_str(&serde_json::to_string(&decoder).unwrap()).unwrap();
        }
        assert!(decoder.is_done());
        assert_eq!(content, b"hello");
    }

    #[test]
    fn random_input_never_panics_and_splits_do_not_matter() {
        const ALPHABET: &[u8] = b"00111aF;:\r\n\r\n\r\n x\t\x00\xff";
        let mut random = Random(7);
        for _ in 0..30_000 {
            let input: Vec<u8> = (0..random.below(40)).map(|_| ALPHABET[random.below(ALPHABET.len())]).collect();
            let whole = decode(Framing::Chunked, 20, &input, || 1000);
            let split = decode(Framing::Chunked, 20, &input, || 1 + random.below(4));
            assert_eq!(whole, split, "{input:?}");
        }
    }
}
