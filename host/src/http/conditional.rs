//! Conditional requests (RFC 9110 §13): whether what the client has is current.
//!
//! The order is §13.2.2's. Its steps 1 and 2 (`If-Match`, `If-Unmodified-Since`) guard changes, which nothing here makes; they
//! come first in [`evaluate`] when something does. Steps 3 and 4 are below.

use super::head::Head;
use super::{date, trim_whitespace};

/// What the server says of its current representation.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The entity tag, with its quotes.
    pub etag: Option<&'a str>,
    /// Last modification in seconds since 1970.
    pub modified: Option<u64>,
}

/// What to do with a request for a representation that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were no condition.
    Proceed,
    /// 304: the client's copy is current.
    NotModified,
}

/// Evaluates the conditions of a GET or HEAD request against the current representation.
pub fn evaluate(head: &Head, current: Validators<'_>) -> Outcome {
    // Step 3: "When recipient is the origin server and If-None-Match is present, evaluate [it]": false is 304.
    if head.field("if-none-match").is_some() {
        return match head.values("if-none-match").any(|list| any_tag_matches(list, current.etag)) {
            true => Outcome::NotModified,
            false => Outcome::Proceed,
        };
    }
    // Step 4: "When the method is GET or HEAD, If-None-Match is not present, and If-Modified-Since is present".
    // §13.1.3: ignored "if the received field value is not a valid HTTP-date, the field value has more than one member".
    let mut dates = head.values("if-modified-since");
    if let (Some(since), None, Some(modified)) = (dates.next(), dates.next(), current.modified)
        && date::parse(since).is_some_and(|since| modified <= since)
    {
        return Outcome::NotModified;
    }
    Outcome::Proceed
}

/// Whether `If-None-Match`'s list has the current tag, by weak comparison (§8.8.3.2: `W/` does not count), or is `*`.
/// What follows a malformed element is not looked at: the worst of it is a 200.
fn any_tag_matches(list: &[u8], current: Option<&str>) -> bool {
    let mut rest = trim_whitespace(list);
    if rest == b"*" {
        return true;
    }
    let Some(current) = current.map(|tag| tag.strip_prefix("W/").unwrap_or(tag).as_bytes()) else { return false };
    loop {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b',')).unwrap_or(rest.len());
        let tag = rest[start..].strip_prefix(b"W/").unwrap_or(&rest[start..]);
        // A tag may hold commas, so its end is its second quote.
        let Some(end) = tag.strip_prefix(b"\"").and_then(|opaque| memchr::memchr(b'"', opaque)) else { return false };
        let (tag, after) = tag.split_at(end + 2);
        if tag == current {
            return true;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::super::HeadLimits;
    use super::*;

    const MODIFIED: u64 = 784_111_777;

    fn evaluate_with(fields: &str) -> Outcome {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = Head::default();
        head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 8192 }).unwrap().unwrap();
        evaluate(&head, Validators { etag: Some("\"a,b\""), modified: Some(MODIFIED) })
    }

    #[test]
    fn tags_are_compared_weakly() {
        for list in
            ["\"a,b\"", "W/\"a,b\"", "*", "\"x\", \"a,b\"", "\"x\",W/\"a,b\" , \"y\"", ",, \"a,b\"", " \t\"a,b\" "]
        {
            assert_eq!(evaluate_with(&format!("If-None-Match: {list}\r\n")), Outcome::NotModified, "{list}");
        }
        for list in ["\"x\"", "a,b", "\"A,B\"", "\"a", "w/\"a,b\"", "\"x,\"a,b\"", "", "\"*\"", "x, \"a,b\"", "**"] {
            assert_eq!(evaluate_with(&format!("If-None-Match: {list}\r\n")), Outcome::Proceed, "{list}");
        }
    }

    #[test]
    fn several_fields_are_one_list() {
        assert_eq!(evaluate_with("If-None-Match: \"x\"\r\nif-none-match: \"a,b\"\r\n"), Outcome::NotModified);
    }

    #[test]
    fn a_date_at_or_after_the_last_change_is_current() {
        for (date, outcome) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Outcome::NotModified),
            ("Sun, 06 Nov 1994 08:49:38 GMT", Outcome::NotModified),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Outcome::NotModified),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Outcome::Proceed),
            ("yesterday", Outcome::Proceed),
            ("", Outcome::Proceed),
        ] {
            assert_eq!(evaluate_with(&format!("If-Modified-Since: {date}\r\n")), outcome, "{date}");
        }
        let twice = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".repeat(2);
        assert_eq!(evaluate_with(&twice), Outcome::Proceed);
    }

    #[test]
    fn a_tag_takes_precedence_over_a_date() {
        let date = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        assert_eq!(evaluate_with(&format!("{date}If-None-Match: \"x\"\r\n")), Outcome::Proceed);
        let date = "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n";
        assert_eq!(evaluate_with(&format!("{date}If-None-Match: \"a,b\"\r\n")), Outcome::NotModified);
    }

    #[test]
    fn without_a_condition_the_request_proceeds() {
        assert_eq!(evaluate_with(""), Outcome::Proceed);
    }
}
