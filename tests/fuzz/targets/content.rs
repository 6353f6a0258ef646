//! Content with chunked framing: however it is cut into pieces, it is what the grammar says.
#![no_main]

use host::http::content::Decoder;
use host::http::{Framing, Reject, encode};
use libfuzzer_sys::fuzz_target;

const BODY_BYTES_MAX: u64 = 4096;

/// What a decoder makes of an input: the content, how much of the input it took, and whether that is all.
type Decoded = Result<(Vec<u8>, usize, bool), Reject>;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let whole = decode(input, usize::MAX);
    assert_eq!(whole, decode(input, 1), "byte by byte it is something else");
    assert_eq!(whole, decode(input, usize::from(cut % 31) + 2), "in pieces it is something else");
    match (model(input), &whole) {
        (Some((content, length)), Ok((decoded, taken, done))) => {
            assert!(
                *done && content == *decoded && length == *taken,
                "the grammar says otherwise: {content:?} {length}"
            );
        }
        (None, Ok((_, _, done))) => assert!(!done, "the grammar does not have this"),
        // Beyond the limits, or wrong.
        (_, Err(_)) => {}
    }

    // What is encoded is decoded.
    let mut out = Vec::new();
    let piece = usize::from(cut % 61) + 1;
    input.chunks(piece).for_each(|data| encode::chunk(&mut out, data));
    encode::last_chunk(&mut out);
    if input.len() as u64 <= BODY_BYTES_MAX {
        assert_eq!(decode(&out, piece), Ok((input.to_vec(), out.len(), true)));
    }
});

fn decode(input: &[u8], piece: usize) -> Decoded {
    let mut decoder = Decoder::new(Framing::Chunked, BODY_BYTES_MAX)?;
    let (mut content, mut taken, mut end) = (Vec::new(), 0, 0);
    while end < input.len() && !decoder.is_done() {
        end = input.len().min(end.saturating_add(piece));
        loop {
            let (consumed, run) = decoder.decode(&input[taken..end])?;
            assert!(run.end <= consumed || run.is_empty());
            content.extend_from_slice(&input[taken..][run]);
            taken += consumed;
            if consumed == 0 {
                break;
            }
        }
        assert!(taken == end || decoder.is_done(), "it leaves bytes that it does not need more for");
    }
    assert_eq!(decoder.received(), content.len() as u64);
    Ok((content, taken, decoder.is_done()))
}

/// RFC 9112 §7.1, read from the front of a whole: `*chunk last-chunk trailer-section CRLF`. The content, and the length of all.
fn model(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut rest = input;
    let mut content = Vec::new();
    loop {
        let (line, after) = line(rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        // What follows are extensions, before which there may be space ("bad" whitespace, which is to be taken).
        let extensions = line[digits..].iter().position(|byte| !matches!(byte, b' ' | b'\t'));
        let is_extended = extensions.is_some_and(|at| line[digits + at] == b';');
        if !(is_extended || digits == line.len()) {
            return None;
        }
        rest = after;
        if size == 0 {
            break;
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, after) = line(rest)?;
        rest = after;
        if trailer.is_empty() {
            return Some((content, input.len() - rest.len()));
        }
        let colon = trailer.iter().position(|byte| *byte == b':')?;
        if !host::http::is_token(&trailer[..colon]) {
            return None;
        }
    }
}

/// The first line, which has nothing in it that a line may not have, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    host::http::is_field_value(&bytes[..end]).then(|| (&bytes[..end], &bytes[end + 2..]))
}
