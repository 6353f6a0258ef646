//! HTTP/1.1 as values (RFC 9110, RFC 9112): bytes in, values out. No I/O, no clock.
//!
//! In the order of a request's life: [`head`] parses the request line and fields, [`content`] decodes what follows them,
//! [`multipart`] takes a form with files apart, [`path`] makes the target's path safe to look up, [`accept`] chooses the form that
//! suits the client, [`conditional`] decides whether its copy is current, [`range`] which part it asks for, and [`encode`] writes
//! the response's head and chunks.

pub mod accept;
pub mod conditional;
pub mod content;
pub mod date;
pub mod disposition;
pub mod encode;
pub mod etag;
pub mod framing;
pub mod head;
mod lines;
pub mod multipart;
pub mod path;
pub mod range;
mod target;

pub use framing::Framing;
pub use head::{Head, HeadLimits};

use std::fmt;

/// A request that is refused before anything could answer it. The connection closes after the response, because where
/// the next request would begin is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The response's status code.
    pub status: u16,
    /// What was wrong, for the person at the other end, who may have typed the request by hand.
    pub reason: &'static str,
}

impl Reject {
    /// Refuses with `status` because of `reason`.
    pub const fn new(status: u16, reason: &'static str) -> Reject {
        Reject { status, reason }
    }

    /// Refuses with 400 Bad Request because of `reason`.
    pub const fn bad_request(reason: &'static str) -> Reject {
        Reject { status: 400, reason }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

impl std::error::Error for Reject {}

/// Whether `bytes` are a token (RFC 9110 §5.6.2), such as a method or a field name.
pub fn is_token(bytes: &[u8]) -> bool {
    // Without a branch for each byte: nearly all names are tokens.
    !bytes.is_empty() && bytes.iter().fold(true, |so_far, &byte| so_far & is_token_byte(byte))
}

/// Whether `byte` may stand in a token.
pub fn is_token_byte(byte: u8) -> bool {
    const TABLE: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TABLE[usize::from(byte)]
}

/// Whether all of `bytes` may stand in a field value.
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |so_far, &byte| so_far & is_field_value_byte(byte))
}

/// Whether `byte` may stand in a field value: visible characters, space, tab and obs-text (RFC 9110 §5.5).
pub fn is_field_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

/// A table of ASCII letters and digits and the bytes in `others`: one look where comparisons would be many.
const fn alphanumeric_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// `value` without the optional whitespace around it (RFC 9110 §5.6.3: spaces and tabs only).
pub fn trim_whitespace(value: &[u8]) -> &[u8] {
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A decimal number of digits alone (RFC 9110 §8.6): no sign, no space. `Err` is why not.
pub fn parse_decimal(digits: &[u8]) -> Result<u64, DecimalError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecimalError::NotDigits);
    }
    if digits.len() <= DIGITS_THAT_FIT {
        return Ok(digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')));
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let value = value.checked_mul(10).ok_or(DecimalError::TooLarge)?;
        value.checked_add(u64::from(digit - b'0')).ok_or(DecimalError::TooLarge)
    })
}

/// Every number of so many digits is less than 2^64, which has 20.
const DIGITS_THAT_FIT: usize = 19;

/// Why bytes are no decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// Something else than digits, or nothing.
    NotDigits,
    /// More than a `u64` holds.
    TooLarge,
}

#[cfg(test)]
mod random {
    //! A small generator for tests that try many inputs: the same seed gives the same inputs (xorshift64*).

    pub struct Random(pub u64);

    impl Random {
        pub fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        /// A number below `bound`.
        pub fn below(&mut self, bound: usize) -> usize {
            (self.next() >> 33) as usize % bound
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_only_and_never_wrap() {
        for (text, want) in [
            ("0", Ok(0)),
            ("007", Ok(7)),
            ("9999999999999999999", Ok(9_999_999_999_999_999_999)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(DecimalError::TooLarge)),
            ("99999999999999999999999", Err(DecimalError::TooLarge)),
            ("", Err(DecimalError::NotDigits)),
            ("+1", Err(DecimalError::NotDigits)),
            ("-1", Err(DecimalError::NotDigits)),
            ("1 ", Err(DecimalError::NotDigits)),
            ("0x10", Err(DecimalError::NotDigits)),
            ("1,1", Err(DecimalError::NotDigits)),
        ] {
            assert_eq!(parse_decimal(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn tokens_are_made_of_the_characters_of_rfc_9110() {
        for byte in 0..=255 {
            let listed = b"!#$%&'*+-.^_`|~".contains(&byte) || byte.is_ascii_digit() || byte.is_ascii_alphabetic();
            assert_eq!(is_token(&[b'a', byte]), listed, "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn only_spaces_and_tabs_are_trimmed() {
        assert_eq!(trim_whitespace(b" \ta b\t "), b"a b");
        assert_eq!(trim_whitespace(b" \t "), b"");
        assert_eq!(trim_whitespace(b""), b"");
        assert_eq!(trim_whitespace(b"\x0bx"), b"\x0bx");
    }
}
