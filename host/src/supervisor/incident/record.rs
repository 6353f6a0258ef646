//! The file of an incident: a line of JSON that says what has happened, and the request behind it, as it could be sent again.
//!
//! The folder has one file for each of the newest incidents, named by its number. Values that nobody else shall see have
//! been taken out of the request ([`redact`](super::redact)); its framing has become `Content-Length`.

use super::redact::{self, Names, REDACTED};
use crate::request::Excerpt;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An incident.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Counts the incidents of a server from 1.
    pub number: u64,
    /// When it was told, as in the log.
    pub at: String,
    /// Whose it was.
    pub module: String,
    /// The build's number.
    pub generation: u64,
    /// The worker's process id.
    pub worker: u32,
    /// What the log says.
    pub text: String,
    /// The request that is kept, if there is one.
    pub request: Option<Kept>,
}

/// What is to be known of a request that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The request line.
    pub line: String,
    /// The fields and parameters whose values were taken out.
    pub redacted: Vec<String>,
    /// How long the content was, if that is known.
    pub content_bytes: Option<u64>,
    /// Why it is not the whole request, if it is not.
    pub missing: Option<String>,
}

/// The request of an excerpt as it is kept: what is to be known of it, and its bytes.
pub(super) fn keep(excerpt: Excerpt) -> (Kept, Vec<u8>) {
    let Excerpt { head, head_is_whole, content, content_bytes } = excerpt;
    let mut redacted = Names::new();
    let head = String::from_utf8_lossy(&head);
    // What was cut may end within a line. A line end stands for the empty line that ends the head.
    let whole = head.strip_suffix("\r\n\r\n").or_else(|| head.rsplit_once("\r\n").map(|(lines, _)| lines));
    let mut lines = whole.unwrap_or_default().split("\r\n");
    let line = redact_request_line(lines.next().unwrap_or_default(), &mut redacted);
    let mut kept = format!("{line}\r\n");
    let (mut is_form, mut has_content) = (false, false);
    for field in lines {
        let (name, value) = field.split_once(':').unwrap_or((field, ""));
        let value = value.trim_matches([' ', '\t']);
        has_content |= is(name, "Content-Length") || is(name, "Transfer-Encoding");
        is_form |= is(name, "Content-Type") && value.to_ascii_lowercase().starts_with(FORM);
        if FRAMING.iter().any(|framing| is(name, framing)) {
            continue;
        }
        let value = if redact::is_secret(name) {
            redacted.insert(name.to_owned());
            REDACTED.to_owned()
        } else if is(name, "Referer") {
            redact::target(value, &mut redacted)
        } else {
            value.to_owned()
        };
        kept.push_str(&format!("{name}: {value}\r\n"));
    }
    let missing = match content_bytes {
        _ if !head_is_whole => Some(format!("only the first {} bytes of its head were kept", head.len())),
        None => Some("its content was not kept: the module reads it as it comes".to_owned()),
        Some(length) if length == content.len() as u64 => None,
        Some(length) => Some(format!("only the first {} of {length} bytes of its content were kept", content.len())),
    };
    let content = match std::str::from_utf8(&content) {
        Ok(form) if is_form => redact::pairs(form, &mut redacted).into_bytes(),
        _ => content,
    };
    if has_content {
        let length = content_bytes.filter(|_| missing.is_some()).unwrap_or(content.len() as u64);
        kept.push_str(&format!("Content-Length: {length}\r\n"));
    }
    kept.push_str("\r\n");
    let bytes = [kept.into_bytes(), content].concat();
    (Kept { line, redacted: redacted.into_iter().collect(), content_bytes, missing }, bytes)
}

/// `GET /path?query HTTP/1.1`, without the secrets of its query. The version may be missing.
pub(super) fn redact_request_line(line: &str, redacted: &mut Names) -> String {
    let redact = |part: &str| redact::target(part, redacted);
    line.split(' ').map(redact).collect::<Vec<_>>().join(" ")
}

fn is(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}

/// Where the files of a server's incidents are.
pub fn folder(runtime: &Path) -> PathBuf {
    runtime.join("incidents")
}

/// Makes that folder.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)
}

/// Writes the file of an incident, and removes that of the one that is now too old.
pub(super) fn write(folder: &Path, record: &Record, request: &[u8]) -> io::Result<()> {
    let path = folder.join(record.number.to_string());
    let written = write_file(&path, record, request);
    if written.is_err() {
        // There may be nothing to remove.
        _ = fs::remove_file(path);
    }
    if let Some(old) = record.number.checked_sub(FILES_MAX) {
        // The request of that one may not have been kept.
        _ = fs::remove_file(folder.join(old.to_string()));
    }
    written
}

fn write_file(path: &Path, record: &Record, request: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut bytes = serde_json::to_vec(record)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(request);
    file.write_all(&bytes)
}

/// The incident of this number, and its request as it can be sent.
///
/// # Errors
/// There is no file of it, or it makes no sense.
pub fn read(folder: &Path, number: u64) -> io::Result<(Record, Vec<u8>)> {
    let mut bytes = fs::read(folder.join(number.to_string()))?;
    let end = memchr::memchr(b'\n', &bytes).ok_or(io::ErrorKind::InvalidData)?;
    let request = bytes.split_off(end + 1);
    Ok((serde_json::from_slice(&bytes)?, request))
}

/// The numbers of the incidents that have a file, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u64> = names.collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// So many of the newest incidents have a file, each of some 130 KiB at most.
pub(super) const FILES_MAX: u64 = 100;

/// Fields that say how the content is delimited, or how it is to be asked for. What is kept is delimited by its length.
const FRAMING: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Expect", "Trailer"];

/// The content type of forms that look like a query.
const FORM: &str = "application/x-www-form-urlencoded";

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(head: &str, content: &str) -> Excerpt {
        Excerpt {
            head: head.as_bytes().to_vec(),
            head_is_whole: true,
            content: content.as_bytes().to_vec(),
            content_bytes: Some(content.len() as u64),
        }
    }

    #[track_caller]
    fn assert_kept(excerpt: Excerpt, expected: &str, redacted: &[&str]) -> Kept {
        let (kept, bytes) = keep(excerpt);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(kept.redacted, redacted);
        kept
    }

    #[test]
    fn secrets_of_the_head_are_taken_out() {
        let head = "GET /a?token=abc&q=1 HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: Basic abc\r\nCookie: a=b\r\n\
                    X-Api-Key:\tabc \r\nReferer: http://b/?sig=abc&q=1\r\nAccept: */*\r\n\r\n";
        let expected = "GET /a?token=redacted&q=1 HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: redacted\r\nCookie: redacted\r\n\
                        X-Api-Key: redacted\r\nReferer: http://b/?sig=redacted&q=1\r\nAccept: */*\r\n\r\n";
        let kept = assert_kept(excerpt(head, ""), expected, &["AUTHORIZATION", "Cookie", "X-Api-Key", "sig", "token"]);
        assert_eq!((kept.line.as_str(), kept.missing), ("GET /a?token=redacted&q=1 HTTP/1.1", None));
    }

    #[test]
    fn content_is_delimited_by_its_length_and_a_form_has_no_secrets() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n";
        assert_kept(
            excerpt(&format!("{head}\r\n"), "abc"),
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            &[],
        );
        let form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n";
        assert_kept(
            excerpt(&format!("{head}{form}\r\n"), "user=a&password=abcdefghijkl"),
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{form}Content-Length: 24\r\n\r\nuser=a&password=redacted"),
            &["password"],
        );
    }

    #[test]
    fn what_is_missing_is_told() {
        let head = "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n";
        let cut = Excerpt { content_bytes: Some(10), ..excerpt(head, "abc") };
        let kept = assert_kept(cut, "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", &[]);
        assert_eq!(kept.missing.as_deref(), Some("only the first 3 of 10 bytes of its content were kept"));
        let (kept, _) = keep(Excerpt { content_bytes: None, ..excerpt(head, "") });
        assert!(kept.missing.is_some_and(|missing| missing.contains("reads it as it comes")));
        let long = Excerpt { head_is_whole: false, ..excerpt("GET / HTTP/1.1\r\nA: b\r\nAuthoriz", "") };
        let kept = assert_kept(long, "GET / HTTP/1.1\r\nA: b\r\n\r\n", &[]);
        assert!(kept.missing.is_some_and(|missing| missing.contains("of its head")));
    }

    #[test]
    fn files_are_private_and_only_the_newest_stay() {
        use std::os::unix::fs::PermissionsExt;
        let runtime = tempfile::tempdir().unwrap();
        let folder = folder(runtime.path());
        create_folder(&folder).unwrap();
        let record = |number| Record {
            number,
            at: String::new(),
            module: "m".to_owned(),
            generation: 1,
            worker: 1,
            text: "line\nbreak".to_owned(),
            request: None,
        };
        for number in 1..=FILES_MAX + 5 {
            write(&folder, &record(number), b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
        assert_eq!(numbers(&folder).unwrap(), (6..=FILES_MAX + 5).collect::<Vec<_>>());
        let (read, request) = read(&folder, 6).unwrap();
        assert_eq!(
            (read.number, read.text.as_str(), request.as_slice()),
            (6, "line\nbreak", &b"GET / HTTP/1.1\r\n\r\n"[..])
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("6"))), (0o700, 0o600));
    }
}
