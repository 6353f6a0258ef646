//! Where a request's content ends (RFC 9112 §6): decided by `Content-Length` or `Transfer-Encoding`, never by both.
//!
//! Two readers that disagree on this are how requests are smuggled, so whatever is ambiguous is refused.

use super::{DecimalError, Reject, parse_decimal, trim_whitespace};
use serde::{Deserialize, Serialize};

/// How a request's content is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// There is no content (RFC 9112 §6.3, case 7).
    #[default]
    None,
    /// This many bytes follow the head.
    Length(u64),
    /// Chunks follow the head (RFC 9112 §7.1).
    Chunked,
}

/// Gathers what the fields of one head say about the framing.
#[derive(Default)]
pub(super) struct FramingFields {
    content_length: Option<u64>,
    transfer_encoding: bool,
    chunked: bool,
    other_coding: bool,
}

impl FramingFields {
    /// Takes the value of a `Content-Length` field.
    pub fn content_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        // RFC 9112 §6.3: a list of equal values may be taken for one or refused. No client of good will sends one.
        if self.content_length.is_some() {
            return Err(Reject::bad_request("Content-Length must be given once"));
        }
        let length = parse_decimal(value).map_err(|error| match error {
            DecimalError::NotDigits => Reject::bad_request("Content-Length must be a decimal number"),
            // RFC 9110 §8.6: any number is valid, and one that does not fit is larger than any limit.
            DecimalError::TooLarge => Reject::new(413, "the content is larger than this server takes"),
        })?;
        self.content_length = Some(length);
        Ok(())
    }

    /// Takes the value of a `Transfer-Encoding` field. Several fields are one list (RFC 9110 §5.3).
    pub fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reject> {
        self.transfer_encoding = true;
        for coding in value.split(|byte| *byte == b',').map(trim_whitespace) {
            if coding.is_empty() {
                return Err(Reject::bad_request("Transfer-Encoding has an empty element"));
            }
            // RFC 9112 §6.1: chunked is applied once, and last.
            if self.chunked {
                return Err(Reject::bad_request("chunked must be the last transfer coding, given once"));
            }
            match coding.eq_ignore_ascii_case(b"chunked") {
                true => self.chunked = true,
                false => self.other_coding = true,
            }
        }
        Ok(())
    }

    /// The framing of a request of HTTP/1.`minor` with these fields.
    pub fn decide(self, minor: u8) -> Result<Framing, Reject> {
        if !self.transfer_encoding {
            return Ok(self.content_length.map_or(Framing::None, Framing::Length));
        }
        // RFC 9112 §6.1: "A server MAY reject a request that contains both Content-Length and Transfer-Encoding".
        if self.content_length.is_some() {
            return Err(Reject::bad_request("Content-Length and Transfer-Encoding exclude each other"));
        }
        // RFC 9112 §6.1: the framing of such a message is faulty even if a Content-Length is present.
        if minor == 0 {
            return Err(Reject::bad_request("HTTP/1.0 has no Transfer-Encoding"));
        }
        // RFC 9112 §6.3, case 4: "the message body length cannot be determined reliably; the server MUST respond with
        // the 400 (Bad Request) status code and then close the connection".
        if !self.chunked {
            return Err(Reject::bad_request("the last transfer coding must be chunked"));
        }
        // RFC 9112 §6.1: "A server that receives a request message with a transfer coding it does not understand SHOULD
        // respond with 501 (Not Implemented)".
        if self.other_coding {
            return Err(Reject::new(501, "chunked is the only transfer coding that this server knows"));
        }
        Ok(Framing::Chunked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(minor: u8, lengths: &[&str], codings: &[&str]) -> Result<Framing, u16> {
        let framing = || {
            let mut fields = FramingFields::default();
            lengths.iter().try_for_each(|value| fields.content_length(value.as_bytes()))?;
            codings.iter().try_for_each(|value| fields.transfer_encoding(value.as_bytes()))?;
            fields.decide(minor)
        };
        framing().map_err(|reject: Reject| reject.status)
    }

    #[test]
    fn framing_is_decided_by_one_field_or_refused() {
        assert_eq!(decide(1, &[], &[]), Ok(Framing::None));
        assert_eq!(decide(1, &["0"], &[]), Ok(Framing::Length(0)));
        assert_eq!(decide(0, &["12"], &[]), Ok(Framing::Length(12)));
        assert_eq!(decide(1, &[], &["chunked"]), Ok(Framing::Chunked));
        assert_eq!(decide(1, &[], &["Chunked"]), Ok(Framing::Chunked));

        for lengths in [&["5", "5"][..], &["5", "6"], &["5, 5"], &["-1"], &["+1"], &[""], &["0x5"], &["5 5"]] {
            assert_eq!(decide(1, lengths, &[]), Err(400), "{lengths:?}");
        }
        assert_eq!(decide(1, &["18446744073709551616"], &[]), Err(413));

        for codings in [
            &["identity"][..],
            &["gzip"],
            &["xchunked"],
            &["chunked;q=1"],
            &["chunked, gzip"],
            &["chunked", "identity"],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &[""],
            &[", chunked"],
            &["chunked,"],
            &["\"chunked\""],
        ] {
            assert_eq!(decide(1, &[], codings), Err(400), "{codings:?}");
        }
        assert_eq!(decide(1, &[], &["gzip, chunked"]), Err(501));
        assert_eq!(decide(1, &[], &["gzip", "chunked"]), Err(501));
        assert_eq!(decide(1, &["5"], &["chunked"]), Err(400));
        assert_eq!(decide(0, &[], &["chunked"]), Err(400));
    }
}
