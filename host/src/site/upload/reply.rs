//! What clients are told of their uploads: a page for people, a line of text for programs.

use crate::http::head::Head;
use crate::http::{Reject, trim_whitespace};
use crate::response::{Body, Fields, Response, Status};
use crate::site::page;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::io::Errno;
use std::borrow::Cow;

/// Why an upload is not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    /// A phrase without a full stop.
    pub(super) reason: Cow<'static, str>,
    /// A field that belongs to it.
    field: Option<(&'static str, &'static str)>,
}

/// A file that has been stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// What the client called it.
    pub(super) asked: String,
    /// What it is called.
    pub(super) name: String,
    pub(super) bytes: u64,
}

impl Refusal {
    pub(super) fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, reason: reason.into(), field: None }
    }

    /// 401 with this challenge.
    pub(super) fn challenge(reason: &'static str, challenge: &'static str) -> Refusal {
        Refusal { field: Some(("WWW-Authenticate", challenge)), ..Refusal::new(401, reason) }
    }

    /// 405 for a target with which these can be done.
    pub(super) fn not_allowed(reason: &'static str, allow: &'static str) -> Refusal {
        Refusal { field: Some(("Allow", allow)), ..Refusal::new(405, reason) }
    }

    /// What a failure of the file system means for the client.
    pub(super) fn of(error: Errno) -> Refusal {
        match error {
            Errno::NOSPC | Errno::DQUOT => Refusal::new(507, "there is no room for it on the server's disk"),
            Errno::FBIG => Refusal::new(413, "the server's file system takes no file of that size"),
            Errno::ACCESS | Errno::PERM => Refusal::new(
                403,
                "the server may not write to this folder; its owner has to give the server's user the right to (chown, chmod)",
            ),
            Errno::ROFS => Refusal::new(403, "this folder can only be read; its file system is mounted read-only"),
            Errno::NOENT | Errno::NOTDIR => Refusal::new(409, "the folder has been removed meanwhile"),
            Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ => {
                Refusal::new(400, "the server's file system takes no file of that name")
            }
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Refusal {
                field: Some(("Retry-After", "1")),
                ..Refusal::new(503, "the server is out of file descriptors or memory")
            },
            _ => Refusal::new(500, "the server's file system failed"),
        }
    }

    /// The response to the request with this head for the folder at `path`.
    pub(super) fn response(&self, head: &Head, path: &[u8]) -> Response {
        let Refusal { code, reason, field } = self;
        let mut response = match wants_page(head) {
            true => {
                let content = html! { p { (sentence(reason)) } (way_back(path)) };
                page::response(*code, path, "Not uploaded", &content)
            }
            false => Response::error(*code, reason),
        };
        if let Some((name, value)) = field {
            response.fields.append(name.as_bytes(), value.as_bytes());
        }
        response
    }
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Refusal {
        Refusal::new(reject.status, reject.reason)
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Refusal {
        Refusal::of(error)
    }
}

/// The response to a form whose files have been stored in the folder at `path`.
pub(super) fn created(head: &Head, path: &[u8], files: &[Stored]) -> Response {
    let mut response = match wants_page(head) {
        true => page::response(201, path, "Uploaded", &html! { (list(files)) (way_back(path)) }),
        false => {
            let line = |Stored { asked, name, bytes }: &Stored| match asked == name {
                true => format!("stored {name}, {bytes} bytes\n"),
                false => format!("stored {name}, {bytes} bytes: the name {asked} was taken\n"),
            };
            Response::text(201, files.iter().map(line).collect::<String>())
        }
    };
    // RFC 9110 §15.3.2: what was created is "identified by either a Location header field in the response or, if no Location
    // header field is received, by the target URI".
    if let [file] = files {
        response.fields.append(b"Location", location(path, &file.name).as_bytes());
    }
    response
}

/// The response to a PUT that has made a file, or replaced one, which has this tag now.
pub(super) fn put(is_new: bool, location: &str, etag: Option<&str>) -> Response {
    let mut response = match is_new {
        true => Response::text(201, format!("{location}\n")),
        false => Response { status: Status::new(204), fields: Fields::default(), body: Body::Empty },
    };
    if is_new {
        response.fields.append(b"Location", location.as_bytes());
    }
    // RFC 9110 §9.3.4: no validator "unless the request's representation data was saved without any transformation applied to
    // the content": it was.
    if let Some(etag) = etag {
        response.fields.append(b"ETag", etag.as_bytes());
    }
    response
}

/// The response to OPTIONS for what can be done with the target.
pub(super) fn options(allow: &str) -> Response {
    let mut response = Response { status: Status::new(204), fields: Fields::default(), body: Body::Empty };
    response.fields.append(b"Allow", allow.as_bytes());
    response
}

/// The path of a file in the folder at `path`, as a URI reference; a log line can have it, too.
pub(super) fn location(path: &[u8], name: &str) -> String {
    format!("{}{}", percent_encode(path, KEPT), page::reference(name.as_bytes()))
}

fn list(files: &[Stored]) -> Markup {
    html! {
        ul {
            @for file in files {
                li {
                    a href=(page::reference(file.name.as_bytes())) { bdi { (page::visible(file.name.as_bytes())) } }
                    ", " (file.bytes) " bytes"
                    @if file.asked != file.name {
                        ": the name " bdi { (page::visible(file.asked.as_bytes())) } " was taken"
                    }
                }
            }
        }
    }
}

/// A link to the folder: never to where the client says that it comes from.
fn way_back(path: &[u8]) -> Markup {
    html! { p { a href=(percent_encode(path, KEPT)) { "Back to the folder" } } }
}

fn sentence(reason: &str) -> String {
    let mut chars = reason.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).chain(['.']).collect())
}

/// Whether the client is one that shows pages: it names their type itself (RFC 9110 §12.5.1), and does not refuse it.
fn wants_page(head: &Head) -> bool {
    head.values("accept").flat_map(|list| list.split(|&byte| byte == b',')).any(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(trim_whitespace);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"text/html"))
            && !parts.any(|weight| weight.len() > 2 && weight[..2].eq_ignore_ascii_case(b"q=") && is_zero(&weight[2..]))
    })
}

fn is_zero(weight: &[u8]) -> bool {
    weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

/// All that is not unreserved (RFC 3986 §2.3), but for slashes.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadLimits;

    #[test]
    fn pages_are_for_those_who_name_them() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", true),
            ("application/json, Text/HTML ; q=0.5", true),
            ("*/*", false),
            ("text/*", false),
            ("text/html;q=0", false),
            ("text/html; q=0.000", false),
            ("text/html; q=0.001", true),
            ("text/plain", false),
        ] {
            let mut head = Head::default();
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
            head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 4096 }).unwrap().unwrap();
            assert_eq!(wants_page(&head), expected, "{accept}");
        }
    }

    #[test]
    fn a_location_is_one_path_whatever_the_names() {
        assert_eq!(location(b"/a b/", "ü?#%/.txt"), "/a%20b/%C3%BC%3F%23%25%2F.txt");
    }
}
