//! Forms with files, `multipart/form-data` (RFC 7578, RFC 2046 §5.1.1): takes the boundaries off, a run of bytes at a time.
//!
//! The content comes in pieces of any size, and nothing of a file is copied or kept: what may be the beginning of a boundary at
//! the end of a piece is, if it turns out to be none, given from the boundary that it looks like.

use super::disposition::{self, Part};
use super::{Reject, is_token};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// RFC 2046 §5.1.1: "boundary delimiters [...] must be no longer than 70 characters, not counting the two leading hyphens".
const BOUNDARY_BYTES_MAX: usize = 70;

/// The head of one part.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Parts of one form, files or not.
const PARTS_MAX: u32 = 1000;

/// What stands before the first boundary, after the last, and behind one on its line, is dropped, and must not be endless.
const DROPPED_BYTES_MAX: u32 = 8 * 1024;

/// Takes one form apart. It can travel to another process between two calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parser {
    /// CR, LF, two hyphens and the boundary.
    delimiter: Box<[u8]>,
    state: State,
    /// With so many bytes of the delimiter ends what has come so far, where a delimiter is looked for.
    matched: usize,
    /// The head of a part, as far as it has come.
    head: Vec<u8>,
    parts: u32,
    dropped: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// What stands before the first boundary.
    Preamble,
    /// What follows a boundary on its line.
    Boundary,
    /// The second hyphen behind the last boundary.
    Hyphen,
    /// Space behind a boundary.
    Padding,
    /// The LF that ends the line of a boundary.
    BoundaryLf,
    /// The head of a part.
    Head,
    /// The content of a part.
    Content,
    /// What stands after the last boundary.
    Epilogue,
}

/// What has been found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part begins.
    Part(Part),
    /// A run of its content.
    Content(&'a [u8]),
    /// It is complete.
    PartEnd,
    /// Nothing: more has to come.
    Nothing,
}

/// What looking for a delimiter has come to, at the front of the input.
enum Found {
    /// So many bytes of the input are none of it.
    Bytes(usize),
    /// So many bytes at the front of the delimiter were none of it, and have been taken from the input before.
    Lookalike(usize),
    Delimiter,
    /// The input has been used up.
    Nothing,
}

impl Parser {
    /// A parser for content of this type, the value of a `Content-Type` field.
    pub fn new(content_type: &[u8]) -> Result<Parser, Reject> {
        let semicolon = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        let mut boundary = None;
        for parameter in disposition::parameters(&content_type[semicolon..]) {
            let (name, value) = parameter?;
            if name.eq_ignore_ascii_case(b"boundary") && boundary.replace(value).is_some() {
                return Err(Reject::bad_request("the Content-Type must have one boundary, not several"));
            }
        }
        let Some(boundary) = boundary else {
            return Err(Reject::bad_request(
                "the Content-Type has no boundary; it is: multipart/form-data; boundary=...",
            ));
        };
        if !is_boundary(&boundary) {
            return Err(Reject::bad_request("the boundary must be 1 to 70 letters, digits and '()+_,-./:=? of ASCII"));
        }
        Ok(Parser {
            delimiter: [Cow::Borrowed(&b"\r\n--"[..]), boundary].concat().into(),
            state: State::Preamble,
            // The content may begin with the boundary, as if a line had ended before it.
            matched: 2,
            head: Vec::new(),
            parts: 0,
            dropped: 0,
        })
    }

    /// Whether the value of a `Content-Type` field says that the content is a form with files.
    pub fn takes(content_type: &[u8]) -> bool {
        let semicolon = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        super::trim_whitespace(&content_type[..semicolon]).eq_ignore_ascii_case(b"multipart/form-data")
    }

    /// Takes what belongs to the next event from the front of `input`, and says how many bytes that were: maybe none, if the
    /// event had only to be decided. After [`Event::Nothing`] all of it has been taken.
    pub fn parse<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), Reject> {
        let mut taken = 0;
        while let Some(&byte) = input.get(taken) {
            self.state = match (self.state, byte) {
                (State::Preamble, _) => {
                    let (count, found) = self.find(&input[taken..]);
                    taken += count;
                    match found {
                        Found::Bytes(count) | Found::Lookalike(count) => self.drop(count, State::Preamble)?,
                        Found::Delimiter => State::Boundary,
                        Found::Nothing => State::Preamble,
                    }
                }
                (State::Content, _) => {
                    let (count, found) = self.find(&input[taken..]);
                    let start = taken;
                    taken += count;
                    match found {
                        Found::Bytes(count) => return Ok((taken, Event::Content(&input[start..start + count]))),
                        Found::Lookalike(count) => return Ok((taken, Event::Content(&self.delimiter[..count]))),
                        Found::Delimiter => {
                            self.state = State::Boundary;
                            return Ok((taken, Event::PartEnd));
                        }
                        Found::Nothing => State::Content,
                    }
                }
                (State::Head, _) => {
                    let (count, part) = self.read_head(&input[taken..])?;
                    taken += count;
                    match part {
                        None => State::Head,
                        Some(part) => {
                            self.state = State::Content;
                            // Empty content has nothing before the CRLF of its boundary, but that.
                            self.matched = 0;
                            return Ok((taken, Event::Part(part)));
                        }
                    }
                }
                (State::Epilogue, _) => {
                    let rest = input.len() - taken;
                    taken += rest;
                    self.drop(rest, State::Epilogue)?
                }
                (line, byte) => {
                    taken += 1;
                    self.step(line, byte)?
                }
            };
        }
        Ok((taken, Event::Nothing))
    }

    /// Whether what has come is a whole form: that it is not is a reason to refuse it when there is no more.
    pub fn end(&self) -> Result<(), Reject> {
        match self.state {
            State::Epilogue => Ok(()),
            State::Preamble => {
                Err(Reject::bad_request("the content has no boundary in it, as its Content-Type says it has"))
            }
            _ => Err(Reject::bad_request("the content ends before its last boundary")),
        }
    }

    /// One byte of the line of a boundary further.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Reject> {
        match (state, byte) {
            (State::Boundary, b'-') => Ok(State::Hyphen),
            (State::Hyphen, b'-') => Ok(State::Epilogue),
            // RFC 2046 §5.1.1: `transport-padding := *LWSP-char`, which receivers "MUST be able to handle".
            (State::Boundary | State::Padding, b' ' | b'\t') => self.drop(1, State::Padding),
            (State::Boundary | State::Padding, b'\r') => Ok(State::BoundaryLf),
            (State::BoundaryLf, b'\n') if self.parts == PARTS_MAX => {
                Err(Reject::bad_request("the form has more parts than this server takes"))
            }
            (State::BoundaryLf, b'\n') => {
                self.parts += 1;
                Ok(State::Head)
            }
            _ => Err(Reject::bad_request("a boundary must be all of its line")),
        }
    }

    /// Takes more of a part's head; gives the part when it is complete.
    fn read_head(&mut self, input: &[u8]) -> Result<(usize, Option<Part>), Reject> {
        let before = self.head.len();
        let count = input.len().min(HEAD_BYTES_MAX - before);
        self.head.extend_from_slice(&input[..count]);
        // An empty line ends it; it may be the first.
        let end = match self.head.starts_with(b"\r\n") {
            true => Some(0),
            false => {
                let from = before.saturating_sub(3);
                memchr::memmem::find(&self.head[from..], b"\r\n\r\n").map(|at| from + at + 2)
            }
        };
        let Some(end) = end else {
            return match self.head.len() < HEAD_BYTES_MAX {
                true => Ok((count, None)),
                false => Err(Reject::bad_request("the head of a part is larger than this server takes")),
            };
        };
        let part = Part::parse(&self.head[..end])?;
        self.head = Vec::new();
        Ok((end + 2 - before, Some(part)))
    }

    /// Looks for the delimiter at the front of `input`, of which there is some, and says how much of it has been taken.
    fn find(&mut self, input: &[u8]) -> (usize, Found) {
        let delimiter = &*self.delimiter;
        if self.matched > 0 {
            let count = common(&delimiter[self.matched..], input);
            self.matched += count;
            let found = match self.matched {
                matched if matched == delimiter.len() => Found::Delimiter,
                _ if count == input.len() => return (count, Found::Nothing),
                // It has only one CR, at its front, so none that begins later could have been missed.
                matched => Found::Lookalike(matched),
            };
            self.matched = 0;
            return (count, found);
        }
        let mut from = 0;
        while let Some(at) = memchr::memchr(b'\r', &input[from..]).map(|at| from + at) {
            let count = common(delimiter, &input[at..]);
            if count == delimiter.len() || at + count == input.len() {
                if at > 0 {
                    return (at, Found::Bytes(at));
                }
                if count == delimiter.len() {
                    return (count, Found::Delimiter);
                }
                self.matched = count;
                return (count, Found::Nothing);
            }
            from = at + count;
        }
        (input.len(), Found::Bytes(input.len()))
    }

    /// Drops bytes that mean nothing, within the bound.
    fn drop(&mut self, count: usize, next: State) -> Result<State, Reject> {
        self.dropped = self.dropped.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        match self.dropped > DROPPED_BYTES_MAX {
            true => Err(Reject::bad_request("the content has too much in it that belongs to no part")),
            false => Ok(next),
        }
    }
}

/// With how many bytes both begin.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// RFC 2046 §5.1.1: `boundary := 0*69<bchars> bcharsnospace`.
fn is_boundary(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    // What a token may have besides is no harm, and some programs use it.
    (1..=BOUNDARY_BYTES_MAX).contains(&text.len())
        && (text.iter().all(is_one) || is_token(text))
        && !text.ends_with(b" ")
}

#[cfg(test)]
mod tests;
