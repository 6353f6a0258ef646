//! Header fields of a response, kept as they are sent.

use crate::http;
use std::fmt;

/// Header fields, kept encoded as `Name: value\r\n` lines, with what the server must know about them.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    lines: Vec<u8>,
    /// The value of `Content-Length`, which is kept out of the lines: the encoder writes it.
    pub content_length: Option<u64>,
    /// Whether the lines have a `Date` field.
    pub has_date: bool,
    /// Whether the lines have a `Server` field.
    pub has_server: bool,
}

/// A header field that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The name is not a token (RFC 9110 §5.6.2).
    Name,
    /// The value has CR, LF, NUL or another control character (RFC 9110 §5.5).
    Value,
    /// The field belongs to the connection, not to the response (RFC 9110 §7.6.1).
    HopByHop,
    /// `Content-Length` is not a decimal number, or is given twice with different values.
    ContentLength,
}

impl Fields {
    /// Adds a field of an application, after those that are there.
    ///
    /// Whitespace around the value is dropped. `Content-Length` goes to [`Fields::content_length`] instead of the lines.
    /// On an error nothing has been added.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        if !http::is_token(name) {
            return Err(FieldError::Name);
        }
        let value = http::trim_whitespace(value);
        if !http::is_field_value(value) {
            return Err(FieldError::Value);
        }
        // By the length first: most fields are none of these.
        match name.len() {
            2 | 7 | 8 | 10 | 16..=19 if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)) => {
                return Err(FieldError::HopByHop);
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = http::parse_decimal(value).map_err(|_| FieldError::ContentLength)?;
                return match self.content_length.replace(length) {
                    Some(other) if other != length => {
                        self.content_length = Some(other);
                        Err(FieldError::ContentLength)
                    }
                    _ => Ok(()),
                };
            }
            4 => self.has_date |= name.eq_ignore_ascii_case(b"date"),
            6 => self.has_server |= name.eq_ignore_ascii_case(b"server"),
            _ => {}
        }
        self.append(name, value);
        Ok(())
    }

    /// Whether these names and values are all that is here, in this order: applications give the same again and again, and
    /// what has been found valid once is compared faster than examined.
    pub fn are<'a>(&self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        let mut rest = &*self.lines;
        for (name, value) in fields {
            // SECURITY: with these bytes in them, others could make the same lines.
            if name.contains(&b':') || value.contains(&b'\r') {
                return false;
            }
            let after_name = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix(b": "));
            let after_value = after_name.and_then(|rest| rest.strip_prefix(value));
            let Some(after) = after_value.and_then(|rest| rest.strip_prefix(b"\r\n")) else { return false };
            rest = after;
        }
        rest.is_empty() && self.content_length.is_none()
    }

    /// No fields, in the memory of these.
    pub fn emptied(self) -> Fields {
        let mut lines = self.lines;
        lines.clear();
        Fields { lines, ..Fields::default() }
    }

    /// How many bytes of lines fit into its memory.
    pub fn capacity(&self) -> usize {
        self.lines.capacity()
    }

    /// The fields as they are sent, each with its CRLF.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Adds lines that were [`lines`](Self::lines) of other fields, and have neither `Date` nor `Server` among them.
    pub(crate) fn append_lines(&mut self, lines: &[u8]) {
        self.lines.extend_from_slice(lines);
    }

    /// Adds a field of the server's own, as [`append`](Self::append) does.
    pub(crate) fn append_formatted(&mut self, name: &[u8], value: fmt::Arguments<'_>) {
        self.lines.extend_from_slice(name);
        self.lines.extend_from_slice(b": ");
        // Writing to memory does not fail.
        _ = std::io::Write::write_fmt(&mut self.lines, value);
        self.lines.extend_from_slice(b"\r\n");
    }

    /// Gives the first field of the server's own of this name another value.
    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) {
        let is_it = |line: &[u8]| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(b": "));
        let old = std::mem::take(&mut self.lines);
        let mut is_replaced = false;
        for line in old.split_inclusive(|byte| *byte == b'\n') {
            match is_it(line) && !std::mem::replace(&mut is_replaced, true) {
                true => self.append(name, value),
                false => self.lines.extend_from_slice(line),
            }
        }
    }

    /// Adds a field of the server's own, which is valid and none that [`Fields::push`] treats apart.
    pub(crate) fn append(&mut self, name: &[u8], value: &[u8]) {
        self.lines.reserve(name.len() + value.len() + 4);
        self.lines.extend_from_slice(name);
        self.lines.extend_from_slice(b": ");
        self.lines.extend_from_slice(value);
        self.lines.extend_from_slice(b"\r\n");
    }
}

/// Fields of the connection, which the server alone decides (RFC 9110 §7.6.1; the list of PEP 3333 and its `wsgiref`).
const HOP_BY_HOP: [&[u8]; 10] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"trailers",
    b"transfer-encoding",
    b"upgrade",
];

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldError::Name => "the name is not a token (RFC 9110 section 5.6.2)",
            FieldError::Value => "the value has a control character",
            FieldError::HopByHop => "the field belongs to the connection, which the server manages",
            FieldError::ContentLength => "Content-Length must be one decimal number",
        })
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kept_as_lines() {
        let mut fields = Fields::default();
        fields.push(b"Content-Type", b" text/html\t").unwrap();
        fields.push(b"Set-Cookie", b"a=b").unwrap();
        fields.push(b"Set-Cookie", b"c=\xff").unwrap();
        fields.push(b"X-Empty", b"").unwrap();
        assert_eq!(
            fields.lines(),
            b"Content-Type: text/html\r\nSet-Cookie: a=b\r\nSet-Cookie: c=\xff\r\nX-Empty: \r\n"
        );
        assert!(!fields.has_date && !fields.has_server && fields.content_length.is_none());
        fields.push(b"dAtE", b"x").unwrap();
        fields.push(b"server", b"x").unwrap();
        assert!(fields.has_date && fields.has_server);
        let fields = fields.emptied();
        assert!(fields.lines().is_empty() && !fields.has_date && !fields.has_server);
    }

    #[test]
    fn a_field_of_the_servers_own_can_be_replaced() {
        let mut fields = Fields::default();
        for (name, value) in [("A", "b"), ("AB", "c"), ("B", "A: d"), ("A", "e")] {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        fields.replace(b"A", b"x");
        assert_eq!(fields.lines(), b"A: x\r\nAB: c\r\nB: A: d\r\nA: e\r\n");
        fields.replace(b"C", b"x");
        assert_eq!(fields.lines(), b"A: x\r\nAB: c\r\nB: A: d\r\nA: e\r\n");
    }

    #[test]
    fn fields_that_come_again_are_known_and_no_others() {
        let pairs = |pairs: &[(&'static str, &'static str)]| -> Vec<(&'static [u8], &'static [u8])> {
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
        };
        let kept = |given: &[(&'static str, &'static str)]| {
            let mut fields = Fields::default();
            pairs(given).into_iter().for_each(|(name, value)| fields.push(name, value).unwrap());
            fields
        };
        let are = |fields: &Fields, given: &[(&'static str, &'static str)]| fields.are(pairs(given).into_iter());
        let fields = kept(&[("A", "b"), ("X", "y")]);
        assert!(are(&fields, &[("A", "b"), ("X", "y")]));
        for others in [
            &[][..],
            &[("A", "b")],
            &[("A", "b"), ("X", "z")],
            &[("a", "b"), ("X", "y")],
            &[("X", "y"), ("A", "b")],
            &[("A", "b"), ("X", "y"), ("X", "y")],
            &[("A", " b"), ("X", "y")],
            // The same lines, but not the same fields.
            &[("A", "b\r\nX: y")],
            &[("A: b\r\nX", "y")],
            &[("A", "b\r\nX: y"), ("", "")],
        ] {
            assert!(!are(&fields, others), "{others:?}");
        }
        assert!(!are(&kept(&[("A", "b: c")]), &[("A: b", "c")]));
        assert!(!are(&kept(&[("A", "b"), ("Content-Length", "1")]), &[("A", "b")]), "a length is kept elsewhere");
        assert!(are(&Fields::default(), &[]) && are(&fields.emptied(), &[]));
    }

    #[test]
    fn fields_that_would_break_the_message_are_refused() {
        let mut fields = Fields::default();
        for name in ["", "a b", "a:", "a\r\nb", "a\0", "é", " a", "a "] {
            assert_eq!(fields.push(name.as_bytes(), b"x"), Err(FieldError::Name), "{name:?}");
        }
        for value in ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "a\x7fb", "a\x1bb", "\r\n"] {
            assert_eq!(fields.push(b"A", value.as_bytes()), Err(FieldError::Value), "{value:?}");
        }
        for name in HOP_BY_HOP {
            assert_eq!(fields.push(&name.to_ascii_uppercase(), b"x"), Err(FieldError::HopByHop));
        }
        assert!(fields.lines().is_empty());
    }

    #[test]
    fn a_content_length_is_one_number() {
        let mut fields = Fields::default();
        for bad in ["", "-1", "1 2", "1,1", "0x1", "18446744073709551616"] {
            assert_eq!(fields.push(b"Content-Length", bad.as_bytes()), Err(FieldError::ContentLength), "{bad}");
        }
        fields.push(b"content-length", b"12").unwrap();
        fields.push(b"Content-Length", b" 12 ").unwrap();
        assert_eq!(fields.push(b"Content-Length", b"13"), Err(FieldError::ContentLength));
        assert_eq!(fields.content_length, Some(12));
        assert!(fields.lines().is_empty(), "the encoder writes it");
    }
}
