//! Preconditions, each alone and all against each other.

use super::super::HeadLimits;
use super::Class::{Changes, Reads};
use super::Outcome::{Failed, NotModified, Proceed};
use super::*;

const MODIFIED: u64 = 784_111_777;
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const STRONG: Validators<'_> = Validators { etag: Some("\"a,b\""), modified: Some(MODIFIED) };
const WEAK: Validators<'_> = Validators { etag: Some("W/\"a,b\""), modified: Some(MODIFIED) };
const NAMELESS: Validators<'_> = Validators { etag: None, modified: None };

fn head(fields: &str) -> Head {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut head = Head::default();
    head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 8192 }).unwrap().unwrap();
    head
}

#[track_caller]
fn assert_outcome(fields: &str, class: Class, current: Option<Validators<'_>>, outcome: Outcome) {
    assert_eq!(evaluate(&head(fields), class, current), outcome, "{fields:?} {class:?} {current:?}");
}

#[test]
fn without_a_condition_the_request_proceeds() {
    for class in [Reads, Changes] {
        assert_outcome("", class, Some(STRONG), Proceed);
        assert_outcome("", class, None, Proceed);
    }
}

const LISTS_WITH_IT: [&str; 7] =
    ["\"a,b\"", "*", "\"x\", \"a,b\"", "\"x\",\"a,b\" , \"y\"", ",, \"a,b\"", " \t\"a,b\" ", "W/\"x\", \"a,b\""];
const LISTS_WITHOUT_IT: [&str; 6] = ["\"x\"", "\"A,B\"", "", ",", "\"*\"", "W/\"x\", \"y\","];
const MALFORMED_LISTS: [&str; 9] =
    ["a,b", "\"a", "w/\"a,b\"", "\"x,\"a,b\"", "x, \"a,b\"", "**", "\"x\" \"a,b\"", "\"x\"\"a,b\"", "W/ \"a,b\""];

#[test]
fn if_none_match_compares_weakly() {
    for list in LISTS_WITH_IT.iter().chain(&["W/\"a,b\"", "\"x\",W/\"a,b\" , \"y\""]) {
        let fields = format!("If-None-Match: {list}\r\n");
        for current in [STRONG, WEAK] {
            assert_outcome(&fields, Reads, Some(current), NotModified);
            assert_outcome(&fields, Changes, Some(current), Failed);
        }
        assert_outcome(&fields, Changes, None, Proceed);
    }
    for list in LISTS_WITHOUT_IT {
        assert_outcome(&format!("If-None-Match: {list}\r\n"), Reads, Some(STRONG), Proceed);
        assert_outcome(&format!("If-None-Match: {list}\r\n"), Changes, Some(STRONG), Proceed);
    }
    for list in MALFORMED_LISTS {
        assert_outcome(&format!("If-None-Match: {list}\r\n"), Reads, Some(STRONG), Proceed);
        assert_outcome(&format!("If-None-Match: {list}\r\n"), Changes, Some(STRONG), Failed);
    }
}

#[test]
fn if_match_compares_strongly() {
    for class in [Reads, Changes] {
        for list in LISTS_WITH_IT {
            assert_outcome(&format!("If-Match: {list}\r\n"), class, Some(STRONG), Proceed);
            assert_outcome(&format!("If-Match: {list}\r\n"), class, None, Failed);
        }
        for list in LISTS_WITHOUT_IT.iter().chain(&MALFORMED_LISTS).chain(&["W/\"a,b\""]) {
            assert_outcome(&format!("If-Match: {list}\r\n"), class, Some(STRONG), Failed);
        }
        assert_outcome("If-Match: \"a,b\"\r\n", class, Some(WEAK), Failed);
        assert_outcome("If-Match: W/\"a,b\"\r\n", class, Some(WEAK), Failed);
        // It is there, whatever it is called.
        assert_outcome("If-Match: *\r\n", class, Some(WEAK), Proceed);
        assert_outcome("If-Match: *\r\n", class, Some(NAMELESS), Proceed);
        assert_outcome("If-Match: \"a,b\"\r\n", class, Some(NAMELESS), Failed);
    }
}

#[test]
fn several_fields_are_one_list() {
    assert_outcome("If-None-Match: \"x\"\r\nif-none-match: \"a,b\"\r\n", Reads, Some(STRONG), NotModified);
    assert_outcome("If-Match: \"x\"\r\nif-match: \"a,b\"\r\n", Reads, Some(STRONG), Proceed);
    assert_outcome("If-None-Match: x\r\nif-none-match: \"y\"\r\n", Changes, Some(STRONG), Failed);
}

#[test]
fn dates_are_compared_by_the_second() {
    for (date, since, unmodified) in [
        (BEFORE, Proceed, Failed),
        (THEN, NotModified, Proceed),
        (AFTER, NotModified, Proceed),
        ("Sunday, 06-Nov-94 08:49:37 GMT", NotModified, Proceed),
        ("Sun Nov  6 08:49:36 1994", Proceed, Failed),
        // What is no date is ignored.
        ("yesterday", Proceed, Proceed),
        ("", Proceed, Proceed),
    ] {
        assert_outcome(&format!("If-Modified-Since: {date}\r\n"), Reads, Some(STRONG), since);
        assert_outcome(&format!("If-Modified-Since: {date}\r\n"), Changes, Some(STRONG), Proceed);
        for class in [Reads, Changes] {
            assert_outcome(&format!("If-Unmodified-Since: {date}\r\n"), class, Some(STRONG), unmodified);
            // And so are dates where there is none to compare them with.
            assert_outcome(&format!("If-Unmodified-Since: {date}\r\n"), class, Some(NAMELESS), Proceed);
            assert_outcome(&format!("If-Unmodified-Since: {date}\r\n"), class, None, Proceed);
        }
    }
    let twice = |name| format!("{name}: {BEFORE}\r\n{name}: {BEFORE}\r\n");
    assert_outcome(&twice("If-Unmodified-Since"), Reads, Some(STRONG), Proceed);
    assert_outcome(&twice("If-Modified-Since").replace(BEFORE, THEN), Reads, Some(STRONG), Proceed);
}

/// §13.2.2 as a table: what each of the four says where it counts, and every combination of them.
#[test]
fn precedence_is_that_of_the_standard() {
    // A condition is absent, true or false.
    let cases = [None, Some(true), Some(false)];
    let field = |name: &str, case: Option<bool>, right: &str, wrong: &str| match case {
        None => String::new(),
        Some(true) => format!("{name}: {right}\r\n"),
        Some(false) => format!("{name}: {wrong}\r\n"),
    };
    let mut count = 0;
    for if_match in cases {
        for unmodified in cases {
            for none_match in cases {
                for since in cases {
                    let fields = [
                        field("If-Modified-Since", since, BEFORE, THEN),
                        field("If-None-Match", none_match, "\"x\"", "\"a,b\""),
                        field("If-Unmodified-Since", unmodified, THEN, BEFORE),
                        field("If-Match", if_match, "\"a,b\"", "\"x\""),
                    ];
                    for class in [Reads, Changes] {
                        let expected = match (if_match, unmodified, none_match, since, class) {
                            (Some(false), ..) | (None, Some(false), ..) => Failed,
                            (_, _, Some(false), _, Reads) => NotModified,
                            (_, _, Some(false), _, Changes) => Failed,
                            (_, _, None, Some(false), Reads) => NotModified,
                            _ => Proceed,
                        };
                        // The order in which they are sent means nothing.
                        assert_outcome(&fields.concat(), class, Some(STRONG), expected);
                        let reversed: String = fields.iter().rev().map(String::as_str).collect();
                        assert_outcome(&reversed, class, Some(STRONG), expected);
                        count += 1;
                    }
                }
            }
        }
    }
    assert_eq!(count, 2 * 81);
}

#[test]
fn a_range_counts_if_the_client_has_the_beginning_of_the_same() {
    let range_of = |fields: &str, current: Validators<'_>, is_over: bool| {
        range(&head(fields), current, |date| date == MODIFIED && is_over).map(|range| range.to_vec())
    };
    let counts = |fields: &str, current| {
        let range = range_of(&format!("Range: bytes=1-2\r\n{fields}"), current, true);
        assert!(range.is_none() || range.as_deref() == Some(b"bytes=1-2"));
        range.is_some()
    };
    assert!(counts("", STRONG) && counts("", NAMELESS));
    for (condition, expected) in [
        ("\"a,b\"", true),
        ("\"x\"", false),
        ("W/\"a,b\"", false),
        ("*", false),
        ("\"a,b\", \"x\"", false),
        ("a,b", false),
        ("", false),
        (THEN, true),
        ("Sunday, 06-Nov-94 08:49:37 GMT", true),
        (BEFORE, false),
        // Neither does a later date tell that it is the same.
        (AFTER, false),
    ] {
        assert_eq!(counts(&format!("If-Range: {condition}\r\n"), STRONG), expected, "{condition}");
        assert!(!counts(&format!("If-Range: {condition}\r\n"), NAMELESS), "{condition}");
    }
    assert!(!counts("If-Range: W/\"a,b\"\r\n", WEAK) && !counts("If-Range: \"a,b\"\r\n", WEAK));
    assert!(!counts("If-Range: \"a,b\"\r\nIf-Range: \"a,b\"\r\n", STRONG));
    assert_eq!(range_of(&format!("Range: x\r\nIf-Range: {THEN}\r\n"), STRONG, false), None, "its second is not over");
    assert_eq!(range_of("", STRONG, true), None);
    assert_eq!(range_of("Range: bytes=1-2\r\nRange: bytes=1-2\r\n", STRONG, true), None);
}
