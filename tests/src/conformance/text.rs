//! How the corpus writes bytes: text with the escapes `\r`, `\n`, `\t`, `\\`, `\xHH`, and what stands in `\(…)`:
//!
//! - `\(9000*a)`: the text behind the star so many times; it may have escapes.
//! - `\(etag /a.txt)`, `\(modified /a.txt)`: the `ETag` and the `Last-Modified` that the server gives for it.
//! - `\(opaque /a.txt)`: that `ETag` without `W/` and without its quotes.
//! - `\(echo)`: the path of a handler that answers with the content of the request.

/// What a server says of itself and its files.
pub trait Facts {
    /// A field of its response to HEAD of this path.
    ///
    /// # Errors
    /// Why there is none.
    fn field(&self, name: &str, path: &str) -> Result<String, String>;

    /// The path of what answers with the content of the request, or of a file if it has no such thing.
    fn echo(&self) -> &str;
}

/// The bytes that `text` stands for.
///
/// # Errors
/// What is wrong with the text, or what the server lacks.
pub fn bytes(text: &str, facts: &dyn Facts) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let kind = rest.chars().next().ok_or("a backslash at the end")?;
        rest = &rest[kind.len_utf8()..];
        match kind {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '\\' => out.push(b'\\'),
            'x' => {
                let digits = rest.get(..2).ok_or("\\x needs two hex digits")?;
                out.push(u8::from_str_radix(digits, 16).map_err(|_| format!("\\x{digits}"))?);
                rest = &rest[2..];
            }
            '(' => {
                let end = rest.find(')').ok_or("\\( without )")?;
                directive(&rest[..end], facts, &mut out)?;
                rest = &rest[end + 1..];
            }
            other => return Err(format!("\\{other} means nothing")),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// What stands between the brackets.
fn directive(words: &str, facts: &dyn Facts, out: &mut Vec<u8>) -> Result<(), String> {
    if let Some((count, repeated)) = words.split_once('*') {
        let count = count.parse().map_err(|_| format!("\\({words})"))?;
        out.extend(bytes(repeated, facts)?.repeat(count));
        return Ok(());
    }
    let value = match words.split_once(' ') {
        None if words == "echo" => facts.echo().to_owned(),
        Some(("etag", path)) => facts.field("ETag", path)?,
        Some(("modified", path)) => facts.field("Last-Modified", path)?,
        Some(("opaque", path)) => {
            let etag = facts.field("ETag", path)?;
            etag.trim_start_matches("W/").trim_matches('"').to_owned()
        }
        _ => return Err(format!("\\({words}) means nothing")),
    };
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Facts for Fixed {
        fn field(&self, name: &str, path: &str) -> Result<String, String> {
            match name {
                "ETag" => Ok(format!("W/\"{path}\"")),
                _ => Err("no such field".to_owned()),
            }
        }

        fn echo(&self) -> &str {
            "/echo"
        }
    }

    #[test]
    fn escapes_are_bytes() {
        for (text, expected) in [
            (r"GET / HTTP/1.1\r\n", &b"GET / HTTP/1.1\r\n"[..]),
            (r"\t\\\x00\xff\xe9", b"\t\\\0\xff\xe9"),
            ("é", "é".as_bytes()),
            (r"a\(3*bc)d\(2*\r\n)", b"abcbcbcd\r\n\r\n"),
            (r"\(0*a)", b""),
            (r"\(echo)?", b"/echo?"),
            (r"\(etag /a) \(opaque /a)", b"W/\"/a\" /a"),
        ] {
            assert_eq!(bytes(text, &Fixed).as_deref(), Ok(expected), "{text}");
        }
        for bad in [r"\", r"\q", r"\x1", r"\xzz", r"\(3*a", r"\(a*b)", r"\(what)", r"\(modified /a)"] {
            assert!(bytes(bad, &Fixed).is_err(), "{bad}");
        }
    }
}
