//! `Range` fields: what is selected is what was asked for, byte for byte, and no more than little else.
#![no_main]

use host::http::range::{RANGES_MAX, Selection, select};
use libfuzzer_sys::fuzz_target;

/// What may lie between two ranges that are sent as one.
const GAP_BYTES_MAX: usize = 128;

fuzz_target!(|data: &[u8]| {
    let [low, high, value @ ..] = data else { return };
    let size = usize::from(u16::from_le_bytes([*low, *high % 16]));
    let selection = select(value, size as u64);
    let spans = match (&selection, ranges(value, size)) {
        (selection, None) => return assert_eq!(*selection, Selection::Whole, "what is malformed is ignored"),
        // A suffix of nothing can be satisfied, and cannot be told.
        (Selection::Whole, Some(_)) => return assert_eq!(size, 0, "it is well-formed"),
        (Selection::Unsatisfiable, Some(asked)) => return assert!(asked.iter().all(|range| range.is_empty())),
        (Selection::One(span), Some(_)) => vec![*span],
        (Selection::Several(spans), Some(_)) => spans.clone(),
    };
    assert!(spans.len() == 1 || matches!(selection, Selection::Several(_)));
    let mut asked = vec![false; size];
    for range in ranges(value, size).into_iter().flatten() {
        asked[range].fill(true);
    }
    let mut sent = vec![false; size];
    for span in spans {
        let mut gap = 0;
        assert!(span.first <= span.last && (span.last as usize) < size);
        for at in span.first as usize..=span.last as usize {
            assert!(!std::mem::replace(&mut sent[at], true), "a byte is sent twice");
            gap = if asked[at] { 0 } else { gap + 1 };
            assert!(gap <= GAP_BYTES_MAX, "much is sent that nobody asked for");
        }
        assert_eq!(gap, 0, "a part ends with what nobody asked for");
        assert_eq!(span.len(), span.last - span.first + 1);
    }
    assert!(asked.iter().zip(sent).all(|(asked, sent)| sent || !asked), "a byte is missing");
});

/// RFC 9110 §14.1.2: the ranges, cut to the size; `None` where the field is to be ignored.
fn ranges(value: &[u8], size: usize) -> Option<Vec<std::ops::Range<usize>>> {
    let value = std::str::from_utf8(value).ok()?;
    let (unit, set) = value.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        let (first, last) = spec.split_once('-')?;
        ranges.push(match (number(first)?, number(last)?) {
            (None, None) => return None,
            (None, Some(length)) => size - length.min(size as u128) as usize..size,
            (Some(first), None) => first.min(size as u128) as usize..size,
            (Some(first), Some(last)) if first > last => return None,
            (Some(first), Some(last)) => first.min(size as u128) as usize..(last + 1).min(size as u128) as usize,
        });
    }
    (1..=RANGES_MAX).contains(&ranges.len()).then_some(ranges)
}

/// A number of any length, as far as it matters; within: none if there are no digits.
fn number(digits: &str) -> Option<Option<u128>> {
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // All that are larger than any file are the same to us; more digits than fit would be larger still.
    let known = |digits: &str| digits.parse::<u128>().unwrap_or(u128::MAX - 1).min(u64::MAX.into());
    Some((!digits.is_empty()).then(|| known(digits)))
}
