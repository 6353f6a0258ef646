//! Conditional requests (RFC 9110 §13): whether what the client knows of a representation is still so.
//!
//! [`evaluate`] goes through §13.2.2's steps 1 to 4, and [`range`] is its step 5. A precondition counts only for a request that
//! would succeed without it (§13.2.1): who calls has found that out before.

use super::head::Head;
use super::{date, trim_whitespace};

/// What the server says of a current representation.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The entity tag, with its quotes, and with `W/` before them if it is weak.
    pub etag: Option<&'a str>,
    /// Last modification in seconds since 1970.
    pub modified: Option<u64>,
}

/// What a method does to the representation that it selects. The others (CONNECT, OPTIONS, TRACE) know no preconditions (§13.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// GET and HEAD read it.
    Reads,
    /// PUT, POST, DELETE and their like change it, or make it.
    Changes,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were no condition.
    Proceed,
    /// 304: the client's copy is current.
    NotModified,
    /// 412: the representation is not in the state that the request is meant for.
    Failed,
}

/// Evaluates the preconditions of a request against the current representation; `None`: there is none, as before a file is
/// made by PUT.
///
/// A list of tags that is malformed never lets a change through that it was to prevent, and never gives a 304.
pub fn evaluate(head: &Head, class: Class, current: Option<Validators<'_>>) -> Outcome {
    let given = Given::of(head);
    if !given.any() {
        return Outcome::Proceed;
    }
    let modified = current.and_then(|current| current.modified);
    // Step 1: "When recipient is the origin server and If-Match is present, evaluate the If-Match precondition": "if false,
    // respond 412 (Precondition Failed)". §13.1.1: "*" is false without a current representation.
    if given.if_match {
        match listed(head, "if-match", current, strongly_equal) {
            Listed::Yes => {}
            Listed::No | Listed::Malformed => return Outcome::Failed,
        }
    // Step 2: "If-Match is not present, and If-Unmodified-Since is present". §13.1.4: to be ignored "if the resource does
    // not have a modification date available".
    } else if given.if_unmodified_since
        && let Some((date, modified)) = single_date(head, "if-unmodified-since").zip(modified)
        && modified > date
    {
        return Outcome::Failed;
    }
    // Step 3: "if false for GET/HEAD, respond 304 (Not Modified)", "if false for other methods, respond 412".
    if given.if_none_match {
        return match (listed(head, "if-none-match", current, weakly_equal), class) {
            (Listed::Yes, Class::Reads) => Outcome::NotModified,
            (Listed::Yes | Listed::Malformed, Class::Changes) => Outcome::Failed,
            (Listed::No, _) | (Listed::Malformed, Class::Reads) => Outcome::Proceed,
        };
    }
    // Step 4: "When the method is GET or HEAD, If-None-Match is not present, and If-Modified-Since is present".
    if given.if_modified_since
        && class == Class::Reads
        && let Some((date, modified)) = single_date(head, "if-modified-since").zip(modified)
        && modified <= date
    {
        return Outcome::NotModified;
    }
    Outcome::Proceed
}

/// The value of the `Range` field of a GET request that may proceed, if it is to be looked at: step 5, "When the method is
/// GET and both Range and If-Range are present, evaluate the If-Range precondition".
///
/// `date_is_over`: whether the second of the date of modification is over. §13.1.5: the condition is false "If the HTTP-date
/// validator provided is not a strong validator in the sense defined by" §8.8.2.2. Within its second the server does
/// not know whether another change comes; after it, the client's half remains, which may use a date only if its copy
/// came with a `Date` at least a second later.
pub fn range<'a>(head: &'a Head, current: Validators<'_>, date_is_over: impl FnOnce(u64) -> bool) -> Option<&'a [u8]> {
    // §14.2 has one Range field, not a list over several: more than one is malformed, and that is ignored.
    let mut ranges = head.values("range");
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return None };
    let mut conditions = head.values("if-range");
    let Some(condition) = conditions.next() else { return Some(range) };
    if conditions.next().is_some() {
        return None;
    }
    // §13.1.5: "A recipient of an If-Range header field MUST ignore the Range header field if the If-Range condition
    // evaluates to false". A tag is told from a date by the quote in its first three characters.
    let holds = if condition.iter().take(3).any(|byte| *byte == b'"') {
        // "using the strong comparison function"
        current.etag.is_some_and(|etag| strongly_equal(condition, etag.as_bytes()))
    } else {
        // "exactly matches the Last-Modified field value"
        date::parse(condition).is_some_and(|date| current.modified == Some(date) && date_is_over(date))
    };
    holds.then_some(range)
}

/// Which preconditions a request has: one look at its fields, of which most have none.
#[derive(Default)]
struct Given {
    if_match: bool,
    if_none_match: bool,
    if_modified_since: bool,
    if_unmodified_since: bool,
}

impl Given {
    fn of(head: &Head) -> Given {
        let mut given = Given::default();
        for (name, _) in head.fields() {
            // By the length first: most fields are none of these.
            match name.len() {
                8 => given.if_match |= name.eq_ignore_ascii_case(b"if-match"),
                13 => given.if_none_match |= name.eq_ignore_ascii_case(b"if-none-match"),
                17 => given.if_modified_since |= name.eq_ignore_ascii_case(b"if-modified-since"),
                19 => given.if_unmodified_since |= name.eq_ignore_ascii_case(b"if-unmodified-since"),
                _ => {}
            }
        }
        given
    }

    fn any(&self) -> bool {
        self.if_match || self.if_none_match || self.if_modified_since || self.if_unmodified_since
    }
}

/// Whether the current tag is in a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Yes,
    No,
    /// Not up to the place where the list cannot be understood.
    Malformed,
}

/// Looks for the current tag in all fields of this name, which are one list (§5.3); `*` is any representation that there is.
fn listed(
    head: &Head,
    name: &str,
    current: Option<Validators<'_>>,
    are_equal: impl Fn(&[u8], &[u8]) -> bool,
) -> Listed {
    let etag = current.and_then(|current| current.etag);
    let mut outcome = Listed::No;
    for list in head.values(name) {
        let found = match trim_whitespace(list) {
            b"*" if current.is_some() => Listed::Yes,
            b"*" => Listed::No,
            list => in_list(list, |tag| etag.is_some_and(|etag| are_equal(tag, etag.as_bytes()))),
        };
        match found {
            Listed::Yes => return Listed::Yes,
            Listed::Malformed => outcome = Listed::Malformed,
            Listed::No => {}
        }
    }
    outcome
}

/// Goes through a list of tags (§8.8.3: `[ W/ ] DQUOTE *etagc DQUOTE`) until one is the one that is looked for.
fn in_list(list: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Listed {
    let mut rest = list;
    loop {
        // §5.6.1.2: empty elements are parsed and ignored.
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b',')).unwrap_or(rest.len());
        rest = &rest[start..];
        if rest.is_empty() {
            return Listed::No;
        }
        let weak = if rest.starts_with(b"W/") { 2 } else { 0 };
        // A tag may hold commas, so its end is its second quote.
        let Some(end) = rest[weak..].strip_prefix(b"\"").and_then(|opaque| memchr::memchr(b'"', opaque)) else {
            return Listed::Malformed;
        };
        let (tag, after) = rest.split_at(weak + end + 2);
        let after = trim_whitespace(after);
        if !matches!(after.first(), None | Some(b',')) {
            return Listed::Malformed;
        }
        if is_it(tag) {
            return Listed::Yes;
        }
        rest = after;
    }
}

/// §8.8.3.2: "two entity tags are equivalent if both are not weak and their opaque-tags match character-by-character".
fn strongly_equal(one: &[u8], other: &[u8]) -> bool {
    !one.starts_with(b"W/") && one == other
}

/// §8.8.3.2: "if their opaque-tags match character-by-character, regardless of either or both being tagged as 'weak'".
fn weakly_equal(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag| <[u8]>::strip_prefix(tag, b"W/").unwrap_or(tag);
    opaque(one) == opaque(other)
}

/// The date in the one field of this name. §13.1.3, §13.1.4: ignored "if the received field value is not a valid HTTP-date,
/// the field value has more than one member".
fn single_date(head: &Head, name: &str) -> Option<u64> {
    let mut values = head.values(name);
    match (values.next(), values.next()) {
        (Some(value), None) => date::parse(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
