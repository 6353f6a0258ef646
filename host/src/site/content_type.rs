//! The content type of a file, by the extension of its name.
//!
//! A site's texts are taken to be UTF-8 and said to be, because a browser that is not told guesses. This holds for XML and
//! SVG too, whose own declaration the field overrides (RFC 7303 §3.2): they are UTF-8 unless declared otherwise. JSON
//! has no such parameter, it is UTF-8 always (RFC 8259 §8.1, §11).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is not known is bytes: a browser saves it and guesses nothing.
const UNKNOWN: &str = "application/octet-stream";

/// The types of most files of most sites, complete, so that they cost no allocation.
const FREQUENT: [(&[u8], &str); 14] = [
    (b"html", "text/html; charset=utf-8"),
    (b"htm", "text/html; charset=utf-8"),
    (b"css", "text/css; charset=utf-8"),
    (b"js", "text/javascript; charset=utf-8"),
    (b"mjs", "text/javascript; charset=utf-8"),
    (b"svg", "image/svg+xml; charset=utf-8"),
    (b"txt", "text/plain; charset=utf-8"),
    (b"md", "text/markdown; charset=utf-8"),
    (b"xml", "text/xml; charset=utf-8"),
    (b"json", "application/json"),
    (b"png", "image/png"),
    (b"jpg", "image/jpeg"),
    (b"webp", "image/webp"),
    (b"woff2", "font/woff2"),
];

/// The content type of the file with this name or path.
pub(super) fn of(name: &[u8]) -> Cow<'static, str> {
    let Some(extension) = Path::new(OsStr::from_bytes(name)).extension() else { return UNKNOWN.into() };
    let known = |(frequent, _): &&(&[u8], _)| extension.as_bytes().eq_ignore_ascii_case(frequent);
    if let Some((_, content_type)) = FREQUENT.iter().find(known) {
        return (*content_type).into();
    }
    let guessed = extension.to_str().and_then(|extension| mime_guess::from_ext(extension).first_raw());
    match guessed.unwrap_or(UNKNOWN) {
        text if text.starts_with("text/") || text.ends_with("+xml") || is_xml_or_script(text) => {
            format!("{text}; charset=utf-8").into()
        }
        other => other.into(),
    }
}

fn is_xml_or_script(mime: &str) -> bool {
    matches!(mime, "application/xml" | "application/xml-dtd" | "application/javascript")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_extension() {
        for (name, content_type) in [
            ("index.html", "text/html; charset=utf-8"),
            ("INDEX.HTM", "text/html; charset=utf-8"),
            ("a/b.tar/style.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("logo.svg", "image/svg+xml; charset=utf-8"),
            ("feed.atom", "application/atom+xml; charset=utf-8"),
            ("page.xhtml", "application/xhtml+xml; charset=utf-8"),
            ("data.csv", "text/csv; charset=utf-8"),
            ("data.json", "application/json"),
            ("photo.jpeg", "image/jpeg"),
            ("photo.PNG", "image/png"),
            ("favicon.ico", "image/x-icon"),
            ("module.wasm", "application/wasm"),
            ("film.mp4", "video/mp4"),
            ("paper.pdf", "application/pdf"),
            ("archive.tar.gz", "application/gzip"),
            ("unknown.zzz", "application/octet-stream"),
            ("README", "application/octet-stream"),
            ("html", "application/octet-stream"),
            ("a.html/b", "application/octet-stream"),
            ("a.\u{fc}", "application/octet-stream"),
            ("a.", "application/octet-stream"),
        ] {
            assert_eq!(of(name.as_bytes()), content_type, "{name}");
        }
        assert_eq!(of(b"a.\xff"), "application/octet-stream");
    }

    /// The short list only saves time: it says what the long one would say, but for JavaScript's one name (RFC 9239 §6).
    #[test]
    fn frequent_types_are_the_registered_ones() {
        for (extension, content_type) in FREQUENT {
            let extension = std::str::from_utf8(extension).unwrap();
            let registered = mime_guess::from_ext(extension).first_raw().unwrap();
            let registered = registered.replace("application/javascript", "text/javascript");
            assert_eq!(content_type.split(';').next(), Some(registered.as_str()), "{extension}");
        }
    }
}
