//! Conditional requests: what a condition comes to is what the RFC says of it, for every condition, tag and date.
#![no_main]

use host::http::conditional::{Class, Outcome, Validators, evaluate, range};
use host::http::{Head, HeadLimits, date};
use libfuzzer_sys::fuzz_target;

/// Tags that the representation may have: short ones, which are met by chance.
const TAGS: [&str; 4] = ["\"a\"", "W/\"a\"", "\"a,b\"", "\"\""];

/// Sun, 06 Nov 1994 08:49:37 GMT.
const MODIFIED: u64 = 784_111_777;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, fields)) = data.split_first() else { return };
    let text = [b"GET / HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n\r\n"].concat();
    let mut head = Head::default();
    let Ok(Some(_)) = head.parse(&text, HeadLimits { head_bytes_max: 8192 }) else { return };
    let tag = TAGS[usize::from(choice % 4)];
    let there = Validators { etag: (choice & 4 == 0).then_some(tag), modified: (choice & 8 == 0).then_some(MODIFIED) };
    let current = (choice & 16 == 0).then_some(there);
    for class in [Class::Reads, Class::Changes] {
        let outcome = evaluate(&head, class, current);
        if let Some(expected) = model(&head, class, current) {
            assert_eq!(outcome, expected, "{class:?} {current:?}");
        }
        match class {
            Class::Reads => assert!(outcome != Outcome::Failed || has(&head, &["if-match", "if-unmodified-since"])),
            Class::Changes => assert_ne!(outcome, Outcome::NotModified, "a change is not answered with 304"),
        }
    }
    let asked = range(&head, there, |_| choice & 32 == 0);
    let strong = there.etag.filter(|tag| !tag.starts_with("W/"));
    match (head.field("if-range"), asked) {
        (None, asked) => assert_eq!(asked.is_some(), head.values("range").count() == 1),
        (Some(condition), Some(_)) => {
            let is_date = choice & 32 == 0 && date::parse(condition).is_some_and(|date| Some(date) == there.modified);
            assert!(
                is_date || strong.is_some_and(|tag| tag.as_bytes() == condition),
                "the copy may be of another state"
            );
        }
        (Some(_), None) => {}
    }
});

fn has(head: &Head, names: &[&str]) -> bool {
    names.iter().any(|name| head.field(name).is_some())
}

/// RFC 9110 §13.2.2, for heads with well-formed conditions; `None` for others.
fn model(head: &Head, class: Class, current: Option<Validators<'_>>) -> Option<Outcome> {
    let etag = current.and_then(|current| current.etag);
    let modified = current.and_then(|current| current.modified);
    let opaque = |tag: &str| tag.trim_start_matches("W/").to_owned();
    if let Some(tags) = tags(head, "if-match")? {
        let holds = match tags {
            Tags::Any => current.is_some(),
            Tags::These(tags) => etag.is_some_and(|etag| !etag.starts_with("W/") && tags.iter().any(|tag| tag == etag)),
        };
        if !holds {
            return Some(Outcome::Failed);
        }
    } else if let (Some(date), Some(modified)) = (single_date(head, "if-unmodified-since"), modified)
        && modified > date
    {
        return Some(Outcome::Failed);
    }
    if let Some(tags) = tags(head, "if-none-match")? {
        let is_there = match tags {
            Tags::Any => current.is_some(),
            Tags::These(tags) => etag.is_some_and(|etag| tags.iter().any(|tag| opaque(tag) == opaque(etag))),
        };
        return Some(match (is_there, class) {
            (false, _) => Outcome::Proceed,
            (true, Class::Reads) => Outcome::NotModified,
            (true, Class::Changes) => Outcome::Failed,
        });
    }
    match (single_date(head, "if-modified-since"), modified) {
        (Some(date), Some(modified)) if class == Class::Reads && modified <= date => Some(Outcome::NotModified),
        _ => Some(Outcome::Proceed),
    }
}

enum Tags {
    Any,
    These(Vec<String>),
}

/// The tags of a condition that is well-formed, each line of it; within: none if there is no such condition.
fn tags(head: &Head, name: &str) -> Option<Option<Tags>> {
    let values: Vec<&[u8]> = head.values(name).collect();
    match &values[..] {
        [] => return Some(None),
        [b"*"] => return Some(Some(Tags::Any)),
        _ => {}
    }
    let mut tags = Vec::new();
    for value in values {
        tags.extend(tags_of(std::str::from_utf8(value).ok()?)?);
    }
    Some(Some(Tags::These(tags)))
}

fn tags_of(list: &str) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    // Quotes have no escapes in tags: every second piece between them is a tag.
    let mut pieces = list.split('"');
    let mut before = pieces.next()?;
    loop {
        let is_weak = before.ends_with("W/");
        let separator = before.strip_suffix("W/").unwrap_or(before);
        let Some(opaque) = pieces.next() else { return (!is_weak && is_separator(separator)).then_some(tags) };
        // After the first tag there has to be a comma.
        if !is_separator(separator) || !tags.is_empty() && !separator.contains(',') {
            return None;
        }
        tags.push(format!("{}\"{opaque}\"", if is_weak { "W/" } else { "" }));
        before = pieces.next()?;
    }
}

fn is_separator(text: &str) -> bool {
    text.chars().all(|c| matches!(c, ' ' | '\t' | ','))
}

fn single_date(head: &Head, name: &str) -> Option<u64> {
    let values: Vec<&[u8]> = head.values(name).collect();
    match &values[..] {
        [value] => date::parse(value),
        _ => None,
    }
}
