//! Range requests (RFC 9110 §14): which bytes of a representation a `Range` field asks for.
//!
//! The field is parsed, its ranges are resolved against the representation's size, and what overlaps or nearly meets is
//! made one, so that no client can have more sent than the representation and a bounded number of parts' heads.

use super::{DecimalError, parse_decimal, trim_whitespace};
use std::fmt;

/// Ranges that one request may ask for. One with more is answered with the whole representation, of which many small parts
/// are most anyway. (Readers of PDF files ask for some tens.)
pub const RANGES_MAX: usize = 64;

/// Ranges with so few bytes between them are sent as one, about what the head of another part would take (§15.3.7.2).
const GAP_BYTES_MAX: u64 = 128;

/// A satisfiable range: at least one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub first: u64,
    /// The last byte, which belongs to it.
    pub last: u64,
}

/// What a `Range` field selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything: the field is ignored, and the answer is a 200.
    Whole,
    /// One part: a 206 with `Content-Range`.
    One(Span),
    /// At least two, apart from each other, in the order in which they were asked for: a 206 of type `multipart/byteranges`.
    Several(Vec<Span>),
    /// Nothing that is there: a 416.
    Unsatisfiable,
}

/// What the value of a `Range` field selects of a representation of `size` bytes.
///
/// §14.2: a server "MAY ignore the Range header field", and it has to ignore a unit that it does not understand. What is
/// invalid (§14.1.1) or asks for more than [`RANGES_MAX`] ranges is ignored here too.
pub fn select(value: &[u8], size: u64) -> Selection {
    // §14.1: "Range unit names are case-insensitive".
    let set = match value.split_at_checked(UNIT.len()) {
        Some((unit, [b'=', set @ ..])) if unit.eq_ignore_ascii_case(UNIT) => set,
        _ => return Selection::Whole,
    };
    let mut spans = Vec::new();
    let mut count = 0;
    // §5.6.1.2: empty elements of a list are parsed and ignored.
    for spec in set.split(|byte| *byte == b',').map(trim_whitespace).filter(|spec| !spec.is_empty()) {
        count += 1;
        let Some(spec) = Spec::parse(spec).filter(|_| count <= RANGES_MAX) else { return Selection::Whole };
        match spec.resolve(size) {
            Resolved::Span(span) => spans.push(span),
            Resolved::Empty => return Selection::Whole,
            Resolved::Unsatisfiable => {}
        }
    }
    coalesce(&mut spans);
    match spans[..] {
        _ if count == 0 => Selection::Whole,
        [] => Selection::Unsatisfiable,
        // §15.3.7.2: "if [...] only one range was found to be satisfiable or only one range remained after coalescing", it
        // may be sent as one; and it is smaller so.
        [span] => Selection::One(span),
        _ => Selection::Several(spans),
    }
}

const UNIT: &[u8] = b"bytes";

/// A range as it was asked for (§14.1.2). Positions that no number of ours can hold are beyond every end.
#[derive(Clone, Copy)]
enum Spec {
    /// From the first to the last byte, which is the end if it is not given.
    Positions { first: u64, last: Option<u64> },
    /// So many bytes at the end.
    Suffix(u64),
}

enum Resolved {
    Span(Span),
    /// Satisfiable, but without a byte, for which there is no `Content-Range`: a suffix of nothing.
    Empty,
    Unsatisfiable,
}

impl Spec {
    fn parse(text: &[u8]) -> Option<Spec> {
        let dash = memchr::memchr(b'-', text)?;
        let (first, last) = (&text[..dash], &text[dash + 1..]);
        match (first.is_empty(), last.is_empty()) {
            (true, _) => Some(Spec::Suffix(position(last)?)),
            (false, true) => Some(Spec::Positions { first: position(first)?, last: None }),
            (false, false) => {
                let (first, last) = (position(first)?, position(last)?);
                // §14.1.1: "An int-range is invalid if the last-pos value is present and less than the first-pos."
                (first <= last).then_some(Spec::Positions { first, last: Some(last) })
            }
        }
    }

    fn resolve(self, size: u64) -> Resolved {
        match self {
            // §14.1.2: satisfiable is "an int-range with a first-pos that is less than the current length of the selected
            // representation or a suffix-range with a non-zero suffix-length".
            Spec::Positions { first, last } if first < size => {
                let end = size - 1;
                Resolved::Span(Span { first, last: last.map_or(end, |last| last.min(end)) })
            }
            Spec::Suffix(1..) if size == 0 => Resolved::Empty,
            Spec::Suffix(length @ 1..) => Resolved::Span(Span { first: size.saturating_sub(length), last: size - 1 }),
            Spec::Positions { .. } | Spec::Suffix(0) => Resolved::Unsatisfiable,
        }
    }
}

fn position(digits: &[u8]) -> Option<u64> {
    match parse_decimal(digits) {
        Ok(number) => Some(number),
        Err(DecimalError::TooLarge) => Some(u64::MAX),
        Err(DecimalError::NotDigits) => None,
    }
}

/// Makes one of those that overlap or have less between them than the head of a part. §15.3.7.2: "a server MAY coalesce any of
/// the ranges that overlap, or that are separated by a gap that is smaller than the overhead of sending multiple parts".
///
/// What remains is in the order of the request: "a server that generates a multipart response [...] SHOULD send the parts in the
/// same order that the corresponding range-spec appeared". One that was made of several comes where the first of them was.
fn coalesce(spans: &mut Vec<Span>) {
    if spans.len() < 2 {
        return;
    }
    let mut places: Vec<(Span, usize)> = spans.iter().copied().zip(0..).collect();
    places.sort_unstable_by_key(|(span, _)| span.first);
    places.dedup_by(|(span, place), (before, first_place)| {
        // Both are below the size, which leaves room for the gap unless it is beyond any that a file can have.
        let meets = span.first <= before.last.saturating_add(1).saturating_add(GAP_BYTES_MAX);
        if meets {
            before.last = before.last.max(span.last);
            *first_place = (*first_place).min(*place);
        }
        meets
    });
    places.sort_unstable_by_key(|(_, place)| *place);
    spans.clear();
    spans.extend(places.iter().map(|(span, _)| span));
}

impl Span {
    /// How many bytes it has.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// The value of the `Content-Range` field of this part of `size` bytes (§14.4).
    pub fn content_range(self, size: u64) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "bytes {}-{}/{size}", self.first, self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    #[test]
    fn one_range_of_a_thousand_bytes() {
        for (value, expected) in [
            ("bytes=0-0", span(0, 0)),
            ("bytes=0-499", span(0, 499)),
            ("bytes=999-", span(999, 999)),
            ("bytes=0-", span(0, 999)),
            ("bytes=500-9999", span(500, 999)),
            ("bytes=500-99999999999999999999999999", span(500, 999)),
            ("bytes=-1", span(999, 999)),
            ("bytes=-1000", span(0, 999)),
            ("bytes=-1001", span(0, 999)),
            ("bytes=-99999999999999999999999999", span(0, 999)),
            ("Bytes=1-2", span(1, 2)),
            ("BYTES=007-0008", span(7, 8)),
            // Of several, one is left.
            ("bytes=1-2,1000-", span(1, 2)),
            ("bytes=-0,1-2,99999999999999999999999999-", span(1, 2)),
            ("bytes=, ,1-2 ,\t,", span(1, 2)),
            ("bytes=0-9,10-19", span(0, 19)),
            ("bytes=10-19,0-9", span(0, 19)),
            ("bytes=0-99,0-99,50-149,-950", span(0, 999)),
            ("bytes=0-9,138-140", span(0, 140)),
        ] {
            assert_eq!(select(value.as_bytes(), 1000), Selection::One(expected), "{value}");
        }
    }

    #[test]
    fn several_ranges_stay_in_their_order() {
        for (value, expected) in [
            ("bytes=0-9,500-509", vec![span(0, 9), span(500, 509)]),
            ("bytes=500-509 , 0-9", vec![span(500, 509), span(0, 9)]),
            ("bytes=-1,0-0", vec![span(999, 999), span(0, 0)]),
            // One of several comes where the first of them was.
            ("bytes=900-909,300-309,905-919,600-609,310-319", vec![span(900, 919), span(300, 319), span(600, 609)]),
            ("bytes=0-9,139-140", vec![span(0, 9), span(139, 140)]),
            ("bytes=0-0,2000-,500-500", vec![span(0, 0), span(500, 500)]),
        ] {
            assert_eq!(select(value.as_bytes(), 1000), Selection::Several(expected), "{value}");
        }
    }

    #[test]
    fn what_is_not_there_is_unsatisfiable() {
        for value in
            ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=-0,1000-", "bytes=99999999999999999999999999-"]
        {
            assert_eq!(select(value.as_bytes(), 1000), Selection::Unsatisfiable, "{value}");
        }
        // Of nothing there is no first byte. A suffix is satisfiable (§14.1.2), but no Content-Range can say so.
        assert_eq!(select(b"bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(select(b"bytes=0-0", 0), Selection::Unsatisfiable);
        assert_eq!(select(b"bytes=-0", 0), Selection::Unsatisfiable);
        assert_eq!(select(b"bytes=-5", 0), Selection::Whole);
        assert_eq!(select(b"bytes=0-18446744073709551615", u64::MAX), Selection::One(span(0, u64::MAX - 1)));
    }

    #[test]
    fn what_is_malformed_or_of_another_unit_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes= - ",
            "bytes=a-b",
            "bytes=1",
            "bytes=2-1",
            "bytes=1-2,2-1",
            "bytes=1-2,x",
            "bytes=1--2",
            "bytes=--2",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=0x1-2",
            "bytes=1-2;3-4",
            "bytes =1-2",
            " bytes=1-2",
            "bytes:1-2",
            "seconds=1-2",
            "bytesx=1-2",
            "none",
            "1-2",
        ] {
            assert_eq!(select(value.as_bytes(), 1000), Selection::Whole, "{value}");
        }
    }

    #[test]
    fn more_ranges_than_the_limit_are_ignored() {
        let ranges =
            |count: u64| (0..count).map(|at| format!("{}-{}", at * 1000, at * 1000)).collect::<Vec<_>>().join(",");
        let select = |count| select(format!("bytes={}", ranges(count)).as_bytes(), 1_000_000);
        assert!(matches!(select(RANGES_MAX as u64), Selection::Several(spans) if spans.len() == RANGES_MAX));
        assert_eq!(select(RANGES_MAX as u64 + 1), Selection::Whole);
        // Also if all of them are the same.
        let same = format!("bytes={}", "0-,".repeat(RANGES_MAX + 1));
        assert_eq!(super::select(same.as_bytes(), 1000), Selection::Whole);
    }

    #[test]
    fn a_content_range_tells_the_size() {
        assert_eq!(span(0, 499).content_range(1234).to_string(), "bytes 0-499/1234");
    }

    /// Random fields against a model that marks each byte that is asked for.
    #[test]
    fn what_is_selected_is_what_was_asked_for() {
        let mut random = Random(5);
        let mut seen = [0; 4];
        for _ in 0..20_000 {
            let size = [0, 1, 10, 1000, 3000][random.below(5)];
            let mut marked = vec![false; size];
            let mut specs = Vec::new();
            let mut is_empty_suffix = false;
            for _ in 0..1 + random.below(6) {
                let first = random.below(size + size / 4 + 2);
                let last = first + random.below(size / 4 + 2);
                let (spec, range) = match random.below(4) {
                    0 => (format!("{first}-"), first..size),
                    1 => {
                        is_empty_suffix |= size == 0 && last > 0;
                        (format!("-{last}"), size.saturating_sub(last)..size)
                    }
                    _ => (format!("{first}-{last}"), first..size.min(last + 1)),
                };
                marked.iter_mut().skip(range.start).take(range.len()).for_each(|mark| *mark = true);
                specs.push(spec);
            }
            let value = format!("bytes={}", specs.join([",", ", ", " ,,"][random.below(3)]));
            let spans = match select(value.as_bytes(), size as u64) {
                Selection::Whole => {
                    seen[0] += 1;
                    assert!(is_empty_suffix, "{value} of {size}");
                    continue;
                }
                Selection::One(span) => {
                    seen[1] += 1;
                    vec![span]
                }
                Selection::Several(spans) => {
                    seen[2] += 1;
                    assert!(spans.len() > 1);
                    spans
                }
                Selection::Unsatisfiable => {
                    seen[3] += 1;
                    assert!(!marked.contains(&true), "{value} of {size}");
                    continue;
                }
            };
            // No byte twice, none too few, and what was not asked for only in gaps that are small.
            let mut sent = vec![false; size];
            for span in &spans {
                assert!(span.first <= span.last && span.last < size as u64, "{value} of {size}: {spans:?}");
                let part = span.first as usize..=span.last as usize;
                assert!(marked[*part.start()] && marked[*part.end()], "{value} of {size}: {spans:?}");
                let mut gap = 0;
                for at in part {
                    assert!(!std::mem::replace(&mut sent[at], true), "{value} of {size}: {spans:?}");
                    gap = if marked[at] { 0 } else { gap + 1 };
                    assert!(gap <= GAP_BYTES_MAX, "{value} of {size}: {spans:?}");
                }
            }
            assert!(marked.iter().zip(&sent).all(|(marked, sent)| *sent || !marked), "{value} of {size}: {spans:?}");
            assert_eq!(
                spans.iter().map(|span| span.len()).sum::<u64>(),
                sent.iter().filter(|sent| **sent).count() as u64
            );
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
    }
}
