//! What may be answered: one of several alternatives, each with a status and maybe fields and content.

use super::text::{self, Facts};
use crate::Response;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One alternative or several, of which one must be right.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Expectation {
    /// Statuses alone.
    Status(String),
    /// A status with more.
    One(Alternative),
    /// Any of these.
    Any(Vec<Expectation>),
}

/// A response that is right.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// Statuses and classes, any of which will do: `200|206`, `4xx|5xx`. With a `!` some that will not: `4xx|!400`. `closed`
    /// is an end of the connection without a response.
    pub status: String,
    /// What fields must be.
    #[serde(default)]
    pub fields: BTreeMap<String, Matchers>,
    /// Fields that must not be there.
    #[serde(default)]
    pub absent: Vec<String>,
    /// All of the content, in the notation of `text`.
    pub content: Option<String>,
    /// What the content must have somewhere, in that notation.
    #[serde(default)]
    pub contains: Vec<String>,
}

/// What a field must be, all at once.
///
/// `*` any value; `~gzip` a list with this element, in any case; `^text/` a value that begins so; `@date` an IMF-fixdate;
/// `@past` a date that is not after the response's `Date`; `@etag` an entity tag; anything else the value itself, in the
/// notation of `text`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Matchers {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// The word for an end without a response.
const CLOSED: &str = "closed";

/// What a server that does nothing with content may say to a request that has some.
const REFUSALS: &str = "403|404|405|411|413|415|501";

impl Expectation {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<&'static str> {
        let statuses_are_words = |statuses: &str| {
            statuses.split('|').all(|word| {
                let word = word.strip_prefix('!').unwrap_or(word);
                let class = word.strip_suffix("xx").unwrap_or(word);
                word == CLOSED || matches!(class.len(), 1 | 3) && class.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        match self {
            Expectation::Status(status) | Expectation::One(Alternative { status, .. }) => {
                (!statuses_are_words(status)).then_some("a status must be a number, a class such as 4xx, or closed")
            }
            Expectation::Any(alternatives) => alternatives.iter().find_map(Expectation::fault),
        }
    }

    /// Whether a connection that ends without a response is right.
    pub fn allows_end(&self) -> bool {
        match self {
            Expectation::Status(status) | Expectation::One(Alternative { status, .. }) => {
                status.split('|').any(|word| word == CLOSED)
            }
            Expectation::Any(alternatives) => alternatives.iter().any(Expectation::allows_end),
        }
    }

    /// Whether an interim response with this status is what is waited for.
    pub fn names(&self, status: u16) -> bool {
        match self {
            Expectation::Status(words) | Expectation::One(Alternative { status: words, .. }) => allows(words, status),
            Expectation::Any(alternatives) => alternatives.iter().any(|alternative| alternative.names(status)),
        }
    }

    /// Why this response is wrong.
    ///
    /// # Errors
    /// What was expected of it.
    pub fn check(&self, response: &Response, facts: &dyn Facts) -> Result<(), String> {
        match self {
            Expectation::Status(status) => check_status(status, response),
            Expectation::One(alternative) => alternative.check(response, facts),
            Expectation::Any(alternatives) => {
                let mut reasons = Vec::new();
                for alternative in alternatives {
                    match alternative.check(response, facts) {
                        Ok(()) => return Ok(()),
                        Err(reason) => reasons.push(reason),
                    }
                }
                Err(reasons.join("; or "))
            }
        }
    }

    /// What a server without a handler may answer as well: it may refuse the request for what it is, or answer before it has
    /// looked at the content. That the request is malformed (400) it may not say of one that a handler would have answered.
    pub fn without_handler(&self) -> Expectation {
        let others = ["2xx", REFUSALS].map(|statuses| Expectation::Status(statuses.to_owned()));
        Expectation::Any([self.clone()].into_iter().chain(others).collect())
    }

    /// Its statuses, for people.
    pub fn shown(&self) -> String {
        match self {
            Expectation::Status(status) | Expectation::One(Alternative { status, .. }) => status.clone(),
            Expectation::Any(alternatives) => alternatives.iter().map(Expectation::shown).collect::<Vec<_>>().join("|"),
        }
    }
}

impl Alternative {
    fn check(&self, response: &Response, facts: &dyn Facts) -> Result<(), String> {
        check_status(&self.status, response)?;
        for (name, matchers) in &self.fields {
            let matchers = match matchers {
                Matchers::One(matcher) => std::slice::from_ref(matcher),
                Matchers::Many(matchers) => matchers,
            };
            for matcher in matchers {
                if !matches(response, name, matcher, facts)? {
                    let value = response.field(name).map_or("none".to_owned(), |value| format!("{value:?}"));
                    return Err(format!("{name} must be {matcher:?}, and is {value}"));
                }
            }
        }
        if let Some(name) = self.absent.iter().find(|name| response.field(name).is_some()) {
            return Err(format!("there must be no {name}"));
        }
        if let Some(content) = &self.content {
            let content = text::bytes(content, facts)?;
            if response.body != content {
                return Err(format!("the content must be {}, and is {}", excerpt(&content), excerpt(&response.body)));
            }
        }
        for part in &self.contains {
            let part = text::bytes(part, facts)?;
            if !response.body.windows(part.len()).any(|window| window == part) {
                return Err(format!("the content must have {}, and is {}", excerpt(&part), excerpt(&response.body)));
            }
        }
        Ok(())
    }
}

fn check_status(words: &str, response: &Response) -> Result<(), String> {
    match allows(words, response.status) {
        true => Ok(()),
        false => Err(format!("{words} was expected")),
    }
}

fn allows(words: &str, status: u16) -> bool {
    let is = |word: &str| match word.strip_suffix("xx") {
        Some(class) => class.parse() == Ok(status / 100),
        None => word.parse() == Ok(status),
    };
    let refused = words.split('|').filter_map(|word| word.strip_prefix('!')).any(is);
    !refused && words.split('|').any(is)
}

fn matches(response: &Response, name: &str, matcher: &str, facts: &dyn Facts) -> Result<bool, String> {
    let Some(value) = response.field(name) else { return Ok(false) };
    Ok(match matcher.split_at_checked(1) {
        _ if matcher == "*" => true,
        _ if matcher == "@date" => is_imf_fixdate(value),
        _ if matcher == "@past" => {
            let date = response.field("Date").and_then(sortable);
            sortable(value).is_some_and(|value| date.is_some_and(|date| value <= date))
        }
        _ if matcher == "@etag" => is_entity_tag(value),
        Some(("~", element)) => response.has(name, element),
        Some(("^", start)) => value.starts_with(start),
        _ => value.as_bytes() == text::bytes(matcher, facts)?,
    })
}

/// Whether it is a date as servers must send it (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn is_imf_fixdate(text: &str) -> bool {
    sortable(text).is_some()
}

/// An IMF-fixdate as numbers that are in order when dates are.
fn sortable(text: &str) -> Option<[u32; 6]> {
    const DAYS: [&str; 7] = ["Mon, ", "Tue, ", "Wed, ", "Thu, ", "Fri, ", "Sat, ", "Sun, "];
    const MONTHS: [&str; 12] =
        [" Jan ", " Feb ", " Mar ", " Apr ", " May ", " Jun ", " Jul ", " Aug ", " Sep ", " Oct ", " Nov ", " Dec "];
    let digits = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let well_formed = text.len() == 29
        && DAYS.contains(&text.get(..5)?)
        && text.get(16..17)? == " "
        && text.get(19..20)? == ":"
        && text.get(22..23)? == ":"
        && text.get(25..)? == " GMT";
    let month = MONTHS.iter().position(|month| text.get(7..12) == Some(month))?;
    let date = [digits(12..16)?, month as u32, digits(5..7)?, digits(17..19)?, digits(20..22)?, digits(23..25)?];
    well_formed.then_some(date)
}

/// RFC 9110 §8.8.3.
pub fn is_entity_tag(text: &str) -> bool {
    let opaque = text.strip_prefix("W/").unwrap_or(text).strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    opaque.is_some_and(|opaque| opaque.chars().all(|c| c == '!' || ('#'..='~').contains(&c) || c >= '\u{80}'))
}

/// Bytes for people, cut where there are many.
pub fn excerpt(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 160;
    let shown = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    match bytes.len() {
        0..=SHOWN_BYTES_MAX => format!("\"{shown}\""),
        length => format!("\"{shown}…\" ({length} bytes)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_classes() {
        for (words, status, right) in [
            ("200", 200, true),
            ("200|206", 206, true),
            ("4xx|501", 405, true),
            ("4xx|501", 501, true),
            ("4xx|501", 500, false),
            ("4xx|!400", 404, true),
            ("4xx|!400", 400, false),
            ("closed", 400, false),
        ] {
            assert_eq!(allows(words, status), right, "{words} {status}");
        }
        for bad in ["20", "4xxx", "2xx,3xx", "", "200|"] {
            assert!(Expectation::Status(bad.to_owned()).fault().is_some(), "{bad}");
        }
    }

    #[test]
    fn dates_and_tags() {
        assert!(is_imf_fixdate("Sun, 06 Nov 1994 08:49:37 GMT"));
        for bad in
            ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 UTC", ""]
        {
            assert!(!is_imf_fixdate(bad), "{bad}");
        }
        assert!(sortable("Tue, 31 Jan 2023 23:59:59 GMT") < sortable("Wed, 01 Feb 2023 00:00:00 GMT"));
        for (tag, right) in [("\"a\"", true), ("W/\"\"", true), ("a", false), ("\"a b\"", false), ("w/\"a\"", false)] {
            assert_eq!(is_entity_tag(tag), right, "{tag}");
        }
    }
}
