//! Forms with files: however they are cut into pieces, the parts are what stands between the boundaries.
#![no_main]

use host::http::Reject;
use host::http::multipart::{Event, Parser};
use libfuzzer_sys::fuzz_target;

/// Short, and with what a boundary has in it too, so that what looks like one is common.
const BOUNDARIES: [&str; 4] = ["-", "a", "aa-", "--a--a"];

/// The parts, each with how it is described, its content, and whether that is all of it; and whether the form is complete.
type Parsed = Result<(Vec<(String, Vec<u8>, bool)>, bool), Reject>;

fuzz_target!(|data: &[u8]| {
    let [choice, input @ ..] = data else { return };
    let boundary = BOUNDARIES[usize::from(choice % 4)];
    let whole = parse(boundary, input, usize::MAX);
    assert_eq!(whole, parse(boundary, input, 1), "byte by byte it is something else");
    assert_eq!(whole, parse(boundary, input, usize::from(choice / 4) + 2), "in pieces it is something else");
    let Ok((parts, is_complete)) = whole else { return };
    let (expected, is_expected_complete) = model(boundary, input).expect("the grammar does not have this");
    assert_eq!(is_complete, is_expected_complete);
    let found: Vec<_> = parts.iter().filter(|(.., is_whole)| *is_whole).map(|(_, content, _)| content).collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
});

fn parse(boundary: &str, input: &[u8], piece: usize) -> Parsed {
    let mut parser = Parser::new(format!("multipart/form-data; boundary=\"{boundary}\"").as_bytes())?;
    let mut parts: Vec<(String, Vec<u8>, bool)> = Vec::new();
    for (index, piece) in input.chunks(piece.min(input.len().max(1))).enumerate() {
        if index % 61 == 3 {
            // It travels to another process.
            let text = serde_json::to_string(&parser).expect("it can be written");
            parser = serde_json::from_str(&text).expect("and read");
        }
        let mut rest = piece;
        loop {
            let (taken, event) = parser.parse(rest)?;
            match event {
                Event::Part(part) => parts.push((format!("{part:?}"), Vec::new(), false)),
                Event::Content(content) => {
                    let last = parts.last_mut().expect("content belongs to a part");
                    assert!(!last.2, "content comes after the end of its part");
                    last.1.extend_from_slice(content);
                }
                Event::PartEnd => {
                    let last = parts.last_mut().expect("what ends has begun");
                    assert!(!std::mem::replace(&mut last.2, true), "a part ends once");
                }
                Event::Nothing => {
                    assert_eq!(taken, rest.len(), "it asks for more and has not taken what there is");
                    break;
                }
            }
            rest = &rest[taken..];
        }
    }
    Ok((parts, parser.end().is_ok()))
}

/// RFC 2046 §5.1.1, read from a whole: the contents of the complete parts, and whether there is a last boundary.
fn model(boundary: &str, input: &[u8]) -> Option<(Vec<Vec<u8>>, bool)> {
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    // The first boundary may have no line before it.
    let text = [b"\r\n", input].concat();
    let mut parts = Vec::new();
    let Some(first) = find(&text, &delimiter) else { return Some((parts, false)) };
    let mut rest = &text[first + delimiter.len()..];
    loop {
        if rest.starts_with(b"--") {
            return Some((parts, true));
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let line = &rest[padding..];
        if line.len() < 2 {
            // More could come, but for this.
            return (line.is_empty() || line == b"\r" || padding == 0 && line == b"-").then_some((parts, false));
        }
        let head = line.strip_prefix(b"\r\n")?;
        let content = match head.strip_prefix(b"\r\n") {
            Some(content) => content,
            None => match find(head, b"\r\n\r\n") {
                Some(end) => &head[end + 4..],
                None => return Some((parts, false)),
            },
        };
        let Some(end) = find(content, &delimiter) else { return Some((parts, false)) };
        parts.push(content[..end].to_vec());
        rest = &content[end + delimiter.len()..];
    }
}
