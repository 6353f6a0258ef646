//! Heads: however the bytes arrive, they mean the same; and what is taken for a head is one.
#![no_main]

use host::http::path::Path;
use host::http::{Head, HeadLimits, is_field_value, is_token};
use libfuzzer_sys::fuzz_target;

/// Each prefix is parsed, which takes time that grows with the square of the length.
const INPUT_BYTES_MAX: usize = 1500;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1024 };

fuzz_target!(|data: &[u8]| {
    let data = &data[..data.len().min(INPUT_BYTES_MAX)];
    let mut head = Head::default();
    let parsed = head.parse(data, LIMITS);
    let mut piecewise = Head::default();
    let first = (0..=data.len()).map(|end| (end, piecewise.parse(&data[..end], LIMITS)));
    let Some((end, outcome)) = first.into_iter().find(|(_, outcome)| *outcome != Ok(None)) else {
        assert_eq!(parsed, Ok(None), "it is taken at once, and not piece by piece");
        return;
    };
    // A mistake in a line is told when the line is complete, and else with the end of the head.
    let is_told_earlier = parsed == Ok(None) && outcome.is_err();
    assert!(is_told_earlier || outcome == parsed, "after {end} bytes {outcome:?}, at once {parsed:?}");
    let Ok(Some(length)) = parsed else { return };
    assert_eq!(end, length, "it is taken before or after its end");
    assert!(length <= LIMITS.head_bytes_max + b"\r\n".len());

    let raw = head.raw();
    assert!(length - raw.len() <= b"\r\n".len());
    let sent = &data[length - raw.len()..length];
    let changed: Vec<_> = raw.iter().zip(sent).filter(|(raw, sent)| raw != sent).collect();
    // A higher minor version is processed as the one that is known (RFC 9110 §2.5).
    assert!(matches!(changed[..], [] | [(b'1', b'2'..=b'9')]), "the head is not what was sent: {changed:?}");
    assert!(raw.ends_with(b"\r\n\r\n") && !raw[..raw.len() - 4].windows(4).any(|four| four == b"\r\n\r\n"));
    assert!(is_token(head.method().as_bytes()) && head.minor() <= 1);
    assert!(head.target().bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(raw.iter().filter(|byte| **byte == b'\n').count(), 2 + head.fields().count());
    for (name, value) in head.fields() {
        assert!(is_token(name) && is_field_value(value));
        assert!(![value.first(), value.last()].contains(&Some(&b' ')), "space around a value is no part of it");
    }
    let hosts = head.values("host").count();
    assert!(hosts == 1 || hosts == 0 && head.minor() == 0);
    assert!(!(head.field("content-length").is_some() && head.field("transfer-encoding").is_some()));
    if head.path() != "*" {
        // It may be refused, but must not panic.
        _ = Path::parse(head.path());
    }

    // The same head again is compared, and not parsed: it must be the same.
    let raw = raw.to_vec();
    let before = format!("{:?}", (head.target(), head.framing(), head.keep_alive(), head.expects_continue()));
    assert_eq!(head.parse(&raw, LIMITS), Ok(Some(raw.len())));
    assert!(head.is_repeated());
    assert_eq!(before, format!("{:?}", (head.target(), head.framing(), head.keep_alive(), head.expects_continue())));
});
