//! What responses say of a file, and what a request for it is to be answered with.

use super::byteranges;
use super::cache::Content;
use crate::http::Head;
use crate::http::accept::Coding;
use crate::http::conditional::{self, Class, Outcome, Validators, evaluate};
use crate::http::date::ImfFixdate;
use crate::http::etag::{ETag, State};
use crate::http::range::{self, Selection, Span};
use crate::request::Spare;
use crate::response::{Body, Fields, Parts, Response, Source, Status};
use crate::sys::clock;
use crate::sys::files::Identity;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What responses say of a file: its validators, and its fields as they are sent.
#[derive(Debug)]
pub(super) struct Description {
    etag: ETag,
    modified: Option<u64>,
    /// The fields of a 200. First those that a 304 has too, then its type, then the others.
    lines: Box<[u8]>,
    kept_bytes: usize,
    type_end: usize,
    varies: bool,
    size: u64,
}

/// What a description is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// The file that is sent.
    pub(super) identity: &'a Identity,
    /// Whether every change of it from now on gives it another identity.
    pub(super) is_settled: bool,
    /// The type of what the client has in the end.
    pub(super) content_type: &'a str,
    /// How the file has that in it.
    pub(super) coding: Option<Coding>,
    /// Whether there are others that have it in another coding.
    pub(super) varies: bool,
    /// The value of `Cache-Control`.
    pub(super) cache_control: Option<&'a str>,
}

/// What a request is to be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The client has it.
    NotModified,
    /// It is not what the client believes that it is.
    Failed,
    /// The fields alone.
    Fields,
    /// The fields and the content.
    Whole,
    /// Some of the content.
    Part(Span),
    /// Several parts of it.
    Parts(Vec<Span>),
    /// Nothing that there is was asked for.
    Unsatisfiable,
}

impl Answer {
    /// Whether it needs the content.
    pub(super) fn has_content(&self) -> bool {
        matches!(self, Answer::Whole | Answer::Part(_) | Answer::Parts(_))
    }
}

impl Description {
    /// The description of a file at `now`.
    pub(super) fn new(facts: &Facts<'_>, now: SystemTime) -> Description {
        let Facts { identity, is_settled, content_type, coding, varies, cache_control } = *facts;
        let Identity { inode, size, modified_ns, changed_ns, .. } = *identity;
        let form = coding.map_or(0, |coding| coding as u8);
        let etag = ETag::of_file(&State { inode, size, modified_ns, changed_ns, is_settled, form });
        let modified = modified_seconds(modified_ns, now);
        let mut fields = Fields::default();
        // RFC 9110 §15.4.5: a 304 has those of "Content-Location, Date, ETag, and Vary" and "Cache-Control and Expires" that the 200
        // would have had.
        fields.append(b"ETag", etag.as_str().as_bytes());
        if varies {
            fields.append_lines(VARY);
        }
        if let Some(value) = cache_control {
            fields.append(b"Cache-Control", value.as_bytes());
        }
        let kept_bytes = fields.lines().len();
        fields.append(CONTENT_TYPE, content_type.as_bytes());
        let type_end = fields.lines().len();
        if let Some(coding) = coding {
            fields.append(b"Content-Encoding", coding.name().as_bytes());
        }
        if let Some(date) = modified.and_then(ImfFixdate::new) {
            fields.append(b"Last-Modified", date.as_str().as_bytes());
        }
        fields.append(b"Accept-Ranges", b"bytes");
        fields.append(b"X-Content-Type-Options", b"nosniff");
        Description { etag, modified, lines: fields.lines().into(), kept_bytes, type_end, varies, size }
    }

    /// What conditions of requests are compared with.
    pub(super) fn validators(&self) -> Validators<'_> {
        Validators { etag: Some(self.etag.as_str()), modified: self.modified }
    }

    /// What a GET or HEAD request is to be answered with.
    pub(super) fn answer_to(&self, head: &Head) -> Answer {
        let validators = self.validators();
        match evaluate(head, Class::Reads, Some(validators)) {
            Outcome::NotModified => return Answer::NotModified,
            Outcome::Failed => return Answer::Failed,
            // RFC 9110 §14.2: "A server MUST ignore a Range header field received with a request method that is unrecognized or
            // for which range handling is not defined. For this specification, GET is the only method".
            Outcome::Proceed if head.method() == "HEAD" => return Answer::Fields,
            Outcome::Proceed => {}
        }
        match conditional::range(head, validators, |date| date < clock::coarse_time().as_secs()) {
            None => Answer::Whole,
            Some(value) => match range::select(value, self.size) {
                Selection::Whole => Answer::Whole,
                Selection::One(span) => Answer::Part(span),
                Selection::Several(spans) => Answer::Parts(spans),
                Selection::Unsatisfiable => Answer::Unsatisfiable,
            },
        }
    }

    /// The response. An answer that has content needs it here.
    pub(super) fn respond(&self, answer: Answer, content: Option<&Content>, spare: &mut Spare) -> Response {
        let mut fields = std::mem::take(&mut spare.fields).emptied();
        let (code, body) = match (answer, content) {
            (Answer::Whole, Some(content)) => {
                fields.append_lines(&self.lines);
                (200, content.body(self.size))
            }
            (Answer::Part(span), Some(content)) => {
                fields.append_lines(&self.lines);
                fields.append_formatted(b"Content-Range", format_args!("{}", span.content_range(self.size)));
                (206, content.part(span))
            }
            (Answer::Parts(spans), Some(content)) => {
                // §15.3.7.2: "a server MUST NOT generate a Content-Range header field in the HTTP header section of a multiple
                // part response": each part has its own, and the type.
                let parts = byteranges::Multipart::new(self.content_type(), self.size);
                fields.append_lines(&self.lines[..self.kept_bytes]);
                fields.append_formatted(CONTENT_TYPE, format_args!("{}", parts.content_type()));
                fields.append_lines(&self.lines[self.type_end..]);
                (206, Body::Parts(Box::new(parts.of(&spans, content.source()))))
            }
            (Answer::NotModified, _) => {
                fields.append_lines(&self.lines[..self.kept_bytes]);
                (304, Body::Empty)
            }
            (Answer::Failed, _) => {
                return self.refuse(412, "the file is not in the state that the request is meant for");
            }
            (Answer::Unsatisfiable, _) => {
                let reason = format!("none of these ranges is in the file, which has {} bytes", self.size);
                let mut response = self.refuse(416, &reason);
                // §15.5.17: a 416 "SHOULD generate a Content-Range header field specifying the current length".
                response.fields.append_formatted(b"Content-Range", format_args!("bytes */{}", self.size));
                return response;
            }
            (Answer::Fields | Answer::Whole | Answer::Part(_) | Answer::Parts(_), _) => {
                fields.append_lines(&self.lines);
                fields.content_length = Some(self.size);
                (200, Body::Empty)
            }
        };
        Response { status: Status::new(code), fields, body }
    }

    /// An error that depends on the form that was chosen, as much as anything else does.
    fn refuse(&self, code: u16, reason: &str) -> Response {
        let mut response = Response::error(code, reason);
        if self.varies {
            response.fields.append_lines(VARY);
        }
        response
    }

    /// The value of its type's field.
    pub(super) fn content_type(&self) -> &[u8] {
        &self.lines[self.kept_bytes + CONTENT_TYPE.len() + b": ".len()..self.type_end - b"\r\n".len()]
    }

    /// What its lines take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len()
    }
}

const CONTENT_TYPE: &[u8] = b"Content-Type";
const VARY: &[u8] = b"Vary: Accept-Encoding\r\n";

impl Content {
    /// All of it as the content of a response; its file has this size.
    fn body(&self, size: u64) -> Body {
        match self {
            Content::Memory(bytes) => Body::Shared(Arc::clone(bytes)),
            Content::Open(file) => Body::File { file: Arc::clone(file), offset: 0, length: size },
        }
    }

    /// This part of it as the content of a response.
    fn part(&self, span: Span) -> Body {
        match self {
            Content::Memory(bytes) => {
                let mut parts = Parts::new(Source::Memory(Arc::clone(bytes)));
                parts.push(format_args!(""), span.first, span.len());
                Body::Parts(Box::new(parts))
            }
            Content::Open(file) => Body::File { file: Arc::clone(file), offset: span.first, length: span.len() },
        }
    }

    fn source(&self) -> Source {
        match self {
            Content::Memory(bytes) => Source::Memory(Arc::clone(bytes)),
            Content::Open(file) => Source::File(Arc::clone(file)),
        }
    }
}

/// The modification time as `Last-Modified` can say it, if it can.
///
/// RFC 9110 §8.8.2.1: if it "evaluates to some time in the future [...], then the origin server MUST replace that value with the
/// message origination date". Such a file is not kept in the cache, so that this is the date of each of its answers.
fn modified_seconds(modified_ns: i128, now: SystemTime) -> Option<u64> {
    let seconds = u64::try_from(modified_ns.div_euclid(1_000_000_000)).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(seconds.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_that_cannot_be_told_are_left_out() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(modified_seconds(999_999_999_999, now), Some(999));
        assert_eq!(modified_seconds(1_000_999_999_999, now), Some(1000));
        assert_eq!(modified_seconds(1_001_000_000_000, now), Some(1000));
        assert_eq!(modified_seconds(-1, now), None);
        assert_eq!(modified_seconds(i128::MAX, now), None);
    }

    #[test]
    fn what_may_change_unseen_has_a_weak_tag() {
        let identity = Identity { device: 1, inode: 1, size: 1, modified_ns: 1, changed_ns: 1 };
        let facts = Facts {
            identity: &identity,
            is_settled: false,
            content_type: "text/plain",
            coding: None,
            varies: true,
            cache_control: Some("no-cache"),
        };
        let lines = |facts: &Facts<'_>| {
            let description = Description::new(facts, UNIX_EPOCH);
            assert_eq!(description.content_type(), b"text/plain");
            String::from_utf8(description.lines.to_vec()).unwrap()
        };
        let weak = lines(&facts);
        assert!(weak.starts_with("ETag: W/\""), "{weak}");
        let strong = lines(&Facts { is_settled: true, ..facts });
        assert!(strong.starts_with("ETag: \""), "{strong}");
        let others = "Vary: Accept-Encoding\r\nCache-Control: no-cache\r\nContent-Type: text/plain\r\n\
                      Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nAccept-Ranges: bytes\r\nX-Content-Type-Options: nosniff\r\n";
        for lines in [weak, strong] {
            assert_eq!(lines.split_once("\r\n").unwrap().1, others);
        }
    }
}
