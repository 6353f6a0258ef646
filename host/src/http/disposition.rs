//! What the head of a part of a form says: its name, and the name of its file (RFC 7578 §4.2, RFC 6266, RFC 8187), and the
//! parameters of field values in general (RFC 9110 §5.6.6).

use super::{Reject, is_field_value_byte, is_token, is_token_byte, trim_whitespace};
use std::borrow::Cow;

/// A part of a form, as its head describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name of the form's field.
    pub name: Vec<u8>,
    /// The name that the client gives to the file; empty where a browser's field for files was left empty. None: it is no file.
    pub file_name: Option<Vec<u8>>,
}

impl Part {
    /// Reads the head of a part: its lines, each with its CRLF.
    pub(super) fn parse(head: &[u8]) -> Result<Part, Reject> {
        let mut part = None;
        for line in lines(head) {
            let line = line?;
            let Some(colon) = memchr::memchr(b':', line).filter(|&colon| is_token(&line[..colon])) else {
                return Err(Reject::bad_request("a line in the head of a part must have the form: Name: value"));
            };
            let (name, value) = (&line[..colon], trim_whitespace(&line[colon + 1..]));
            if name.eq_ignore_ascii_case(b"content-disposition") {
                if part.replace(disposition(value)?).is_some() {
                    return Err(Reject::bad_request("a part must have one Content-Disposition, not several"));
                }
            } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
                // RFC 7578 §4.7: senders "SHOULD NOT generate any parts with a Content-Transfer-Encoding header field". These
                // change nothing; what does change something would be kept changed.
                if ![&b"binary"[..], b"8bit", b"7bit"].iter().any(|known| value.eq_ignore_ascii_case(known)) {
                    return Err(Reject::new(415, "parts are taken as they are, without a Content-Transfer-Encoding"));
                }
            }
        }
        // RFC 7578 §4.2: "Each part MUST contain a Content-Disposition header field".
        part.ok_or(Reject::bad_request("a part has no Content-Disposition"))
    }
}

/// The lines of a head, without their CRLF.
fn lines(head: &[u8]) -> impl Iterator<Item = Result<&[u8], Reject>> {
    let head = head.strip_suffix(b"\r\n").unwrap_or(head);
    memchr::memmem::find_iter(head, b"\r\n").chain([head.len()]).scan(0, move |start, end| {
        let line = &head[std::mem::replace(start, end + 2)..end];
        Some(match line.iter().all(|&byte| is_field_value_byte(byte)) {
            true => Ok(line),
            false => Err(Reject::bad_request("the head of a part has a control character, or a line without CRLF")),
        })
    })
}

/// Reads the value of a part's `Content-Disposition`.
fn disposition(value: &[u8]) -> Result<Part, Reject> {
    let semicolon = memchr::memchr(b';', value).unwrap_or(value.len());
    // RFC 7578 §4.2: the type is "form-data", and there "MUST" be a "name" parameter.
    if !trim_whitespace(&value[..semicolon]).eq_ignore_ascii_case(b"form-data") {
        return Err(Reject::bad_request("the Content-Disposition of a part must be form-data"));
    }
    let (mut field, mut plain, mut extended) = (None, None, None);
    for parameter in parameters(&value[semicolon..]) {
        let (name, value) = parameter?;
        let place = match () {
            () if name.eq_ignore_ascii_case(b"name") => &mut field,
            () if name.eq_ignore_ascii_case(b"filename") => &mut plain,
            () if name.eq_ignore_ascii_case(b"filename*") => &mut extended,
            () => continue,
        };
        if place.replace(value).is_some() {
            return Err(Reject::bad_request("a part has two names"));
        }
    }
    let Some(field) = field else { return Err(Reject::bad_request("a part of the form has no name")) };
    // RFC 6266 §4.3: of both, "recipients SHOULD pick filename* and ignore filename", and ignore one that they cannot decode.
    let file_name = match (extended.as_deref().map(decode_extended), plain) {
        (Some(Some(name)), _) => Some(name),
        (_, Some(name)) => Some(decode_form(&name)),
        (Some(None), None) => return Err(Reject::bad_request("filename* must be UTF-8'' and a percent-encoded name")),
        (None, None) => None,
    };
    Ok(Part { name: decode_form(&field), file_name })
}

/// The parameters of a value, from the first semicolon on: names, and values without their quotes.
///
/// Within quotes a backslash counts as an escape before a quote and a backslash only (RFC 9110 §5.6.4 lets it stand before any
/// character): names of files with the folders of Windows in them are sent as they are.
pub(super) fn parameters(list: &[u8]) -> impl Iterator<Item = Result<(&[u8], Cow<'_, [u8]>), Reject>> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        loop {
            let list = trim_whitespace(rest.take()?);
            let after = trim_whitespace(list.strip_prefix(b";")?);
            // RFC 9110 §5.6.6: `*( OWS ";" OWS [ parameter ] )`: it may be missing.
            if after.is_empty() || after[0] == b';' {
                rest = Some(after);
                continue;
            }
            return Some(match parameter(after) {
                Some((parameter, after)) if after.is_empty() || after[0] == b';' => {
                    rest = Some(after);
                    Ok(parameter)
                }
                _ => Err(MALFORMED),
            });
        }
    })
}

/// The parameter at the front of `text`, and what follows it.
#[expect(clippy::type_complexity, reason = "a name, a value and the rest")]
fn parameter(text: &[u8]) -> Option<((&[u8], Cow<'_, [u8]>), &[u8])> {
    let (name, text) = split_token(text)?;
    let text = text.strip_prefix(b"=")?;
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let (value, rest) = split_token(text)?;
        return Some(((name, Cow::Borrowed(value)), trim_whitespace(rest)));
    };
    let mut unescaped = Vec::new();
    let mut at = 0;
    let mut copied = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', &quoted[at..])?;
        match (quoted[at], quoted.get(at + 1)) {
            (b'"', _) => break,
            (_, Some(b'"' | b'\\')) => {
                unescaped.extend_from_slice(&quoted[copied..at]);
                copied = at + 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    let rest = trim_whitespace(&quoted[at + 1..]);
    if copied == 0 {
        return Some(((name, Cow::Borrowed(&quoted[..at])), rest));
    }
    unescaped.extend_from_slice(&quoted[copied..at]);
    Some(((name, Cow::Owned(unescaped)), rest))
}

fn split_token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Undoes what forms do to names: quotes, CR and LF are percent-encoded, and nothing else is (HTML, "multipart/form-data
/// encoding algorithm").
fn decode_form(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        decoded.extend_from_slice(&rest[..percent]);
        let (byte, length) = match rest.get(percent + 1..percent + 3) {
            Some(b"22") => (b'"', 3),
            Some(b"0D" | b"0d") => (b'\r', 3),
            Some(b"0A" | b"0a") => (b'\n', 3),
            _ => (b'%', 1),
        };
        decoded.push(byte);
        rest = &rest[percent + length..];
    }
    decoded.extend_from_slice(rest);
    decoded
}

/// RFC 8187 §3.2: `charset "'" [ language ] "'" value-chars`. None if it is malformed, or in another charset than UTF-8, which
/// is the one that everybody has to know.
fn decode_extended(value: &[u8]) -> Option<Vec<u8>> {
    let mut parts = value.splitn(3, |&byte| byte == b'\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case(b"utf-8") {
        return None;
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => byte,
        });
    }
    std::str::from_utf8(&decoded).is_ok().then_some(decoded)
}

const MALFORMED: Reject = Reject::bad_request("a parameter must have the form: name=value or name=\"value\"");

#[cfg(test)]
mod tests {
    use super::*;

    fn part(head: &str) -> Result<(String, Option<String>), u16> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let part = Part::parse(head.as_bytes()).map_err(|reject| reject.status)?;
        Ok((text(part.name), part.file_name.map(text)))
    }

    /// The file's name in a part whose disposition has these parameters.
    fn file_name(parameters: &str) -> Result<Option<String>, u16> {
        part(&format!("Content-Disposition: form-data; name=\"file\"{parameters}\r\n")).map(|(_, name)| name)
    }

    #[test]
    fn heads_as_browsers_and_programs_write_them() {
        for (head, name, file) in [
            ("Content-Disposition: form-data; name=\"token\"\r\n", "token", None),
            ("content-disposition:form-data;name=token\r\n", "token", None),
            (
                "Content-Disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\nContent-Type: text/plain\r\n",
                "file",
                Some("a b.txt"),
            ),
            ("X: y\r\nContent-Disposition: form-data ; filename=\"\" ; name=\"f\" ;\r\n", "f", Some("")),
            ("Content-Disposition: form-data; name=f; filename=a.txt; size=5\r\n", "f", Some("a.txt")),
            ("Content-Transfer-Encoding: Binary\r\nContent-Disposition: form-data; name=\"f\"\r\n", "f", None),
        ] {
            assert_eq!(part(head), Ok((name.to_owned(), file.map(str::to_owned))), "{head}");
        }
    }

    #[test]
    fn names_are_decoded_as_each_sender_encodes_them() {
        for (parameters, name) in [
            // Browsers.
            ("; filename=\"a%22b%0D%0A%20%25.txt\"", "a\"b\r\n%20%25.txt"),
            ("; filename=\"ü.txt\"", "ü.txt"),
            ("; filename=\"100%\"", "100%"),
            ("; filename=\"%2\"", "%2"),
            // Programs.
            ("; filename=\"a\\\"b\\\\c.txt\"", "a\"b\\c.txt"),
            ("; filename=\"C:\\new\\file.txt\"", "C:\\new\\file.txt"),
            ("; filename=\";name=x\"", ";name=x"),
            ("; filename*=UTF-8''%C3%BC%20%22.txt", "ü \".txt"),
            ("; filename*=utf-8'de'a", "a"),
            ("; filename=\"plain\"; filename*=UTF-8''better", "better"),
            ("; filename*=UTF-8''better; filename=\"plain\"", "better"),
            ("; filename*=ISO-8859-1''%FC; filename=\"plain\"", "plain"),
            ("; filename*=UTF-8''%FC; filename=\"plain\"", "plain"),
            ("; filename*=UTF-8''%; filename=\"plain\"", "plain"),
        ] {
            assert_eq!(file_name(parameters), Ok(Some(name.to_owned())), "{parameters}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for parameters in [
            "; filename=\"a",
            "; filename=\"a\\\"",
            "; filename=",
            "; filename=a b",
            "; filename=\"a\"b",
            "; filename",
            "; =a",
            " filename=a",
            "; filename=\"a\"; filename=\"b\"",
            "; name=\"x\"",
            "; filename*=UTF-8''%FC",
            "; filename*=latin1''a",
            "; filename*=a",
            "; filename=\"a\0b\"",
            "; filename=\"a\rb\"",
            "; filename=\"a\nb\"",
        ] {
            assert_eq!(file_name(parameters), Err(400), "{parameters:?}");
        }
        for (head, status) in [
            ("", 400),
            ("\r\n", 400),
            ("Content-Type: text/plain\r\n", 400),
            ("Content-Disposition: attachment; name=\"a\"\r\n", 400),
            ("Content-Disposition: form-data\r\n", 400),
            ("Content-Disposition: form-data; filename=\"a\"\r\n", 400),
            ("Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=a\r\n", 400),
            ("Content-Disposition : form-data; name=a\r\n", 400),
            ("Content-Disposition: form-data;\r\n name=a\r\n", 400),
            ("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n", 415),
        ] {
            assert_eq!(part(head), Err(status), "{head:?}");
        }
    }
}
