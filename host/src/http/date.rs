//! HTTP dates (RFC 9110 §5.6.7), between text and seconds since 1970.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The first second of the year 10000, which the format cannot say.
const END: u64 = 253_402_300_800;

/// A date as it is sent: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImfFixdate([u8; 29]);

impl ImfFixdate {
    /// The date `seconds` after the beginning of 1970; none after the year 9999.
    pub fn new(seconds: u64) -> Option<ImfFixdate> {
        if seconds >= END {
            return None;
        }
        let mut text = [0; 29];
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds));
        write!(text.as_mut_slice(), "{date}").ok()?;
        Some(ImfFixdate(text))
    }

    /// The date as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an HTTP date is ASCII")
    }
}

/// Parses a date in any of the three formats that a recipient must take. Returns seconds since 1970.
pub fn parse(value: &[u8]) -> Option<u64> {
    let date: SystemTime = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|duration| duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_imf_fixdate() {
        assert_eq!(ImfFixdate::new(784_111_777).unwrap().as_str(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(ImfFixdate::new(0).unwrap().as_str(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(ImfFixdate::new(END - 1).unwrap().as_str(), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn dates_that_the_format_cannot_say_are_none() {
        assert_eq!(ImfFixdate::new(END), None);
        assert_eq!(ImfFixdate::new(u64::MAX), None);
    }

    #[test]
    fn all_three_formats_are_understood() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in ["", "now", "Sun, 06 Nov 1994 08:49:37", "Sun, 31 Feb 1994 08:49:37 GMT", "784111777", "\u{fc}"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
