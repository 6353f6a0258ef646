//! The path of a request, decoded once and free of dot segments, so that it cannot leave its root (RFC 3986 §5.2.4).

use super::Reject;

/// A decoded path. It begins with `/`, no segment of it is `.` or `..`, and none has a NUL or had an encoded slash in it.
///
/// Segments may be empty (`//`) and need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    bytes: Vec<u8>,
}

impl Default for Path {
    /// The path `/`.
    fn default() -> Path {
        Path { bytes: b"/".to_vec() }
    }
}

impl Path {
    /// Decodes `raw`, the path of a target as [`super::Head::path`] returns it.
    pub fn parse(raw: &str) -> Result<Path, Reject> {
        let mut path = Path::default();
        path.parse_into(raw)?;
        Ok(path)
    }

    /// As [`Path::parse`], but into the buffer of an earlier path. After an error the path is `/`.
    pub fn parse_into(&mut self, raw: &str) -> Result<(), Reject> {
        self.bytes.clear();
        self.read(raw.as_bytes()).inspect_err(|_| {
            self.bytes.clear();
            self.bytes.push(b'/');
        })
    }

    /// The path, beginning with `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is between the slashes. The last segment is empty if the path ends with one, so `/` has one, empty segment.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.as_bytes()[1..].split(|byte| *byte == b'/')
    }

    /// Whether the path ends with `/`.
    pub fn is_folder(&self) -> bool {
        self.as_bytes().ends_with(b"/")
    }

    /// Appends the path of `raw` to the empty buffer.
    fn read(&mut self, raw: &[u8]) -> Result<(), Reject> {
        if is_resolved(raw) {
            self.bytes.extend_from_slice(raw);
            return Ok(());
        }
        // No target has one, but this type promises it to whoever opens files by it.
        if raw.contains(&0) {
            return Err(Reject::bad_request("the path must not have a NUL"));
        }
        let Some(raw) = raw.strip_prefix(b"/") else {
            return Err(Reject::bad_request("the path must begin with a slash"));
        };
        let mut segments = raw.split(|byte| *byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            let start = self.bytes.len();
            self.bytes.push(b'/');
            decode(segment, &mut self.bytes)?;
            // The dots are looked for after decoding: RFC 3986 §2.3, `%2e` is a dot.
            match &self.bytes[start + 1..] {
                b"." => self.bytes.truncate(start),
                b".." => {
                    self.bytes.truncate(start);
                    let Some(parent) = memchr::memrchr(b'/', &self.bytes) else {
                        return Err(Reject::bad_request("the path leads above the root"));
                    };
                    self.bytes.truncate(parent);
                }
                _ => continue,
            }
            // `/a/.` and `/a/b/..` are `/a/`.
            if segments.peek().is_none() {
                self.bytes.push(b'/');
            }
        }
        Ok(())
    }
}

/// Whether `raw` is what it means: it begins with a slash, nothing in it is encoded or a NUL, and no segment begins with a dot.
fn is_resolved(raw: &[u8]) -> bool {
    let mut before = 0;
    raw.first() == Some(&b'/')
        && raw.iter().all(|&byte| {
            let begins_segment = std::mem::replace(&mut before, byte) == b'/';
            !(matches!(byte, b'%' | 0) || byte == b'.' && begins_segment)
        })
}

/// Appends `segment` to `out` with its percent-encoding undone (RFC 3986 §2.1).
fn decode(segment: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let mut rest = segment;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..percent]);
        let digits = rest[percent + 1..].first_chunk::<2>().and_then(|[high, low]| Some((hex(*high)?, hex(*low)?)));
        match digits.map(|(high, low)| high << 4 | low) {
            None => return Err(Reject::bad_request("a % in the path must be followed by two hex digits")),
            Some(b'/') => return Err(Reject::bad_request("the path must not have an encoded slash (%2F)")),
            Some(0) => return Err(Reject::bad_request("the path must not have a NUL (%00)")),
            Some(byte) => out.push(byte),
        }
        rest = &rest[percent + 3..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_resolved() {
        for (raw, want) in [
            ("/", &b"/"[..]),
            ("/a", b"/a"),
            ("/a/", b"/a/"),
            ("/a/b.html", b"/a/b.html"),
            ("/a%20b", b"/a b"),
            ("/%41%7a", b"/Az"),
            ("/%2541", b"/%41"),
            ("/%252e%252e/x", b"/%2e%2e/x"),
            ("/%252F", b"/%2F"),
            ("/%ff", b"/\xff"),
            ("/%C3%bc", b"/\xc3\xbc"),
            ("/a+b", b"/a+b"),
            ("//", b"//"),
            ("//a", b"//a"),
            ("/a//b/", b"/a//b/"),
            ("/.", b"/"),
            ("/./", b"/"),
            ("/a/.", b"/a/"),
            ("/a/./b", b"/a/b"),
            ("/a/..", b"/"),
            ("/a/../", b"/"),
            ("/a/../b", b"/b"),
            ("/a/b/../../c", b"/c"),
            ("/a/b/..", b"/a/"),
            ("/a//..", b"/a/"),
            ("//..", b"/"),
            ("/%2e/a", b"/a"),
            ("/a/%2E%2e/b", b"/b"),
            ("/a/.%2e/b", b"/b"),
            ("/...", b"/..."),
            ("/..a/.b", b"/..a/.b"),
            ("/a\\..\\b", b"/a\\..\\b"),
            ("/a;p=1/b", b"/a;p=1/b"),
        ] {
            assert_eq!(Path::parse(raw).map(|path| path.as_bytes().to_vec()), Ok(want.to_vec()), "{raw}");
        }
    }

    #[test]
    fn paths_that_mean_harm_are_refused() {
        for raw in [
            "",
            "a",
            "*",
            "/%",
            "/%4",
            "/%4g",
            "/%g4",
            "/%%41",
            "/a%2Fb",
            "/a%2fb",
            "/%00",
            "/a%00.html",
            "/..",
            "/../",
            "/../etc/passwd",
            "/a/../../b",
            "/%2e%2e/b",
            "/.%2e",
            "/a/%2e%2e/%2e%2e/b",
            "/./..",
        ] {
            assert_eq!(Path::parse(raw).map_err(|reject| reject.status), Err(400), "{raw}");
        }
    }

    #[test]
    fn segments_and_folders() {
        let segments =
            |raw| Path::parse(raw).unwrap().segments().map(|s| s.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(segments("/"), [""]);
        assert_eq!(segments("/a"), ["a"]);
        assert_eq!(segments("/a/b/"), ["a", "b", ""]);
        assert_eq!(segments("/a//b"), ["a", "", "b"]);
        assert!(Path::parse("/").unwrap().is_folder());
        assert!(Path::parse("/a/..").unwrap().is_folder());
        assert!(!Path::parse("/a").unwrap().is_folder());
    }

    #[test]
    fn a_path_used_again_keeps_nothing() {
        let mut path = Path::parse("/a/long/path").unwrap();
        path.parse_into("/b").unwrap();
        assert_eq!(path.as_bytes(), b"/b");
        path.parse_into("/c/%zz").unwrap_err();
        assert_eq!(path.as_bytes(), b"/");
        assert_eq!(Path::default(), Path::parse("/").unwrap());
    }

    #[test]
    fn no_input_makes_a_path_that_leaves_its_root() {
        const PIECES: &[&str] = &["/", "/", ".", "..", "%2e", "%2E", "a", "%41", "%2f", "%", "%00", "%ff", "\\"];
        let mut random = Random(3);
        let mut parsed = 0;
        for _ in 0..50_000 {
            let raw: String = (0..random.below(12)).map(|_| PIECES[random.below(PIECES.len())]).collect();
            let Ok(path) = Path::parse(&raw) else { continue };
            parsed += 1;
            assert!(path.as_bytes().starts_with(b"/"), "{raw}");
            assert!(!path.as_bytes().contains(&0), "{raw}");
            assert!(path.segments().all(|segment| segment != b"." && segment != b".."), "{raw}");
        }
        assert!(parsed > 1000, "only {parsed} inputs were paths");
    }
}
