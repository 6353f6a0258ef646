//! What clients send, for a line of the log: SECURITY: no byte of it may end the line or a quoted part of it, steer the
//! terminal on which somebody reads it, or make the line longer than it may be.

/// Appends at most `bytes_max` bytes of text in which a quote, a backslash, and whatever is not visible ASCII or a space is
/// escaped as Apache's httpd does (`ap_escape_logitem`): `\"`, `\\`, `\n`, `\xhh`. What is cut ends with `\...`, which
/// nothing else does.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    if bytes.len() <= bytes_max && bytes.iter().all(|&byte| is_plain(byte)) {
        return out.extend_from_slice(bytes);
    }
    let mut room = Room::new(out, bytes_max, CUT_TEXT);
    for &byte in bytes {
        let [high, low] = hex(byte);
        let whole = match byte {
            _ if is_plain(byte) => room.push(&[byte]),
            b'"' | b'\\' => room.push(&[b'\\', byte]),
            b'\n' => room.push(b"\\n"),
            b'\r' => room.push(b"\\r"),
            b'\t' => room.push(b"\\t"),
            0x08 => room.push(b"\\b"),
            0x0b => room.push(b"\\v"),
            _ => room.push(&[b'\\', b'x', high, low]),
        };
        if !whole {
            return;
        }
    }
}

/// Appends at most `bytes_max` bytes of a JSON string's inside (RFC 8259 §7), in ASCII alone: a character that is no visible
/// ASCII is `\uXXXX`, and a byte that is not UTF-8 is U+FFFD. What is cut ends with an ellipsis (U+2026).
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    if bytes.len() <= bytes_max && bytes.iter().all(|&byte| is_plain(byte)) {
        return out.extend_from_slice(bytes);
    }
    let mut room = Room::new(out, bytes_max, CUT_JSON);
    for chunk in bytes.utf8_chunks() {
        let replacement = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for char in chunk.valid().chars().chain(replacement) {
            let whole = match char {
                '"' => room.push(b"\\\""),
                '\\' => room.push(b"\\\\"),
                ' '..='~' => room.push(&[char as u8]),
                _ => {
                    let (mut units, mut escaped) = ([0; 2], [0; 12]);
                    let units = char.encode_utf16(&mut units);
                    for (unit, escaped) in units.iter().zip(escaped.chunks_exact_mut(6)) {
                        let ([a, b], [c, d]) = (hex((unit >> 8) as u8), hex(*unit as u8));
                        escaped.copy_from_slice(&[b'\\', b'u', a, b, c, d]);
                    }
                    room.push(&escaped[..6 * units.len()])
                }
            };
            if !whole {
                return;
            }
        }
    }
}

/// Whether a byte stands for itself in both forms.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Room at the end of a buffer, of which the end is kept for a mark.
struct Room<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    /// The last place from which there is room for the mark.
    cut: usize,
    mark: &'static [u8],
}

impl Room<'_> {
    fn new<'a>(out: &'a mut Vec<u8>, bytes_max: usize, mark: &'static [u8]) -> Room<'a> {
        let (cut, end) = (out.len(), out.len() + bytes_max);
        Room { out, end, cut, mark }
    }

    /// Adds a piece that must not be parted. False if it does not fit: then what is there is cut, and marked.
    fn push(&mut self, piece: &[u8]) -> bool {
        if self.out.len() + self.mark.len() <= self.end {
            self.cut = self.out.len();
        }
        let fits = self.out.len() + piece.len() <= self.end;
        if fits {
            self.out.extend_from_slice(piece);
        } else {
            self.out.truncate(self.cut);
            self.out.extend_from_slice(self.mark);
        }
        fits
    }
}

const CUT_TEXT: &[u8] = b"\\...";
const CUT_JSON: &[u8] = b"\\u2026";

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8], bytes_max: usize) -> [String; 2] {
        [text, json].map(|escape| {
            let mut out = b"before ".to_vec();
            escape(&mut out, bytes, bytes_max);
            assert!(out.len() <= 7 + bytes_max, "{}", out.escape_ascii());
            String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
        })
    }

    #[test]
    fn what_is_plain_stays_and_everything_else_is_escaped() {
        for (bytes, as_text, as_json) in [
            (&b"/a?b=c%20d"[..], "/a?b=c%20d", "/a?b=c%20d"),
            (b"", "", ""),
            (b"a\"b\\c", "a\\\"b\\\\c", "a\\\"b\\\\c"),
            (b"\n\r\t\x08\x0b", "\\n\\r\\t\\b\\v", "\\u000a\\u000d\\u0009\\u0008\\u000b"),
            (b"\0\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f", "\\u0000\\u001b[31m\\u007f"),
            ("\u{e9}\u{9b}\u{202e}".as_bytes(), "\\xc3\\xa9\\xc2\\x9b\\xe2\\x80\\xae", "\\u00e9\\u009b\\u202e"),
            ("\u{1f600}".as_bytes(), "\\xf0\\x9f\\x98\\x80", "\\ud83d\\ude00"),
            (b"\xff\xc3x\xed\xa0\x80", "\\xff\\xc3x\\xed\\xa0\\x80", "\\ufffd\\ufffdx\\ufffd\\ufffd\\ufffd"),
        ] {
            assert_eq!(texts(bytes, 100), [as_text, as_json]);
        }
    }

    #[test]
    fn json_gives_back_what_was_utf_8() {
        let all: Vec<char> = ('\0'..='\u{2ff}').chain(['\u{2028}', '\u{ffff}', '\u{10000}', '\u{10ffff}']).collect();
        let all = String::from_iter(all);
        let [_, json] = texts(all.as_bytes(), 1 << 20);
        assert!(json.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&format!("\"{json}\"")).unwrap(), all);
    }

    #[test]
    fn what_is_cut_has_a_mark_and_no_half_escape() {
        assert_eq!(texts(b"0123456789", 10), ["0123456789", "0123456789"]);
        assert_eq!(texts(b"0123456789a", 10), ["012345\\...", "0123\\u2026"]);
        // What is escaped takes more room than it has bytes.
        for length in 1..20 {
            let [as_text, as_json] = texts(&vec![0xff; length], 25);
            assert_eq!(as_text, if length <= 6 { "\\xff".repeat(length) } else { "\\xff".repeat(5) + "\\..." });
            assert_eq!(as_json, if length <= 4 { "\\ufffd".repeat(length) } else { "\\ufffd".repeat(3) + "\\u2026" });
        }
    }
}
