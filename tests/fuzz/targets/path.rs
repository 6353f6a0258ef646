//! Paths: what comes of them is what the RFC says, and never leads out of the root.
#![no_main]

use host::http::path::Path;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    let path = Path::parse(raw);
    assert_eq!(path.as_ref().ok().map(|path| path.as_bytes().to_vec()), model(raw.as_bytes()), "{raw:?}: {path:?}");
    let Ok(path) = path else { return };
    for segment in path.segments() {
        assert!(!matches!(segment, b"." | b"..") && !segment.contains(&0) && !segment.contains(&b'/'));
    }
    assert_eq!(path.is_folder(), path.as_bytes().last() == Some(&b'/'));
    // What has been decoded is not decoded again: encoded anew, it is the same path.
    let encode = |byte: &u8| if *byte == b'/' { "/".to_owned() } else { format!("%{byte:02x}") };
    let encoded: String = path.as_bytes().iter().map(encode).collect();
    assert_eq!(Path::parse(&encoded).as_ref(), Ok(&path));
});

/// RFC 3986 §5.2.4 after §2.1, one segment at a time.
fn model(raw: &[u8]) -> Option<Vec<u8>> {
    let segments: Vec<&[u8]> = raw.strip_prefix(b"/")?.split(|byte| *byte == b'/').collect();
    let mut stack: Vec<Vec<u8>> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let decoded = decode(segment)?;
        let is_last = index + 1 == segments.len();
        match &*decoded {
            b".." => _ = stack.pop()?,
            b"." => {}
            _ => {
                stack.push(decoded);
                continue;
            }
        }
        if is_last {
            stack.push(Vec::new());
        }
    }
    Some(stack.iter().flat_map(|segment| [b"/", &**segment].concat()).collect())
}

fn decode(segment: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut bytes = segment.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(*digit).to_digit(16));
                let byte = (digit()? * 16 + digit()?) as u8;
                // Neither can be part of a name.
                if matches!(byte, b'/' | 0) {
                    return None;
                }
                byte
            }
            0 => return None,
            byte => byte,
        });
    }
    Some(decoded)
}
