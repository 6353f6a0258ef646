//! The response to a request for a file of the site.

use super::cache::{Cache, Content, Entry, MEMORY_FILE_BYTES_MAX};
use super::listing;
use super::resolve::{Cached, File, Target};
use crate::http::Head;
use crate::http::conditional::{Outcome, Validators, evaluate};
use crate::http::date::ImfFixdate;
use crate::http::etag::ETag;
use crate::request::{Request, Spare};
use crate::response::{Body, Fields, Response, Status};
use crate::sys::clock;
use crate::sys::files::{self, Identity};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What responses say of a file: its validators, and its fields as they are sent.
#[derive(Debug)]
pub(super) struct Description {
    etag: ETag,
    modified: Option<u64>,
    /// The fields of a 200. The first of them is all that a 304 has.
    lines: Box<[u8]>,
    first_line_bytes: usize,
    size: u64,
}

/// What a request is to be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The client has it.
    NotModified,
    /// The fields alone.
    Fields,
    /// The fields and the content.
    Content,
}

/// Answers the GET or HEAD request with `target`. What has been read for it is added to `cache`.
pub(super) fn reply(target: Target, request: &mut Request, cache: &Cache) -> Response {
    match target {
        Target::Cached(Cached(entry)) => {
            let description = &entry.description;
            match description.answer_to(&request.head) {
                Answer::Content => description.send(entry.content.body(description.size), &mut request.spare),
                answer => description.send_fields(answer, &mut request.spare),
            }
        }
        Target::File(file) => send(file, request, cache),
        Target::Folder { location } => match request.head.query() {
            Some(query) => Response::redirect(301, &format!("{location}?{query}")),
            None => Response::redirect(301, &location),
        },
        Target::Listing(listed) => listing::respond(listed),
        Target::Refused(reject) => reject.into(),
    }
}

/// Answers with a file that has been opened.
fn send(file: File, request: &mut Request, cache: &Cache) -> Response {
    let File { opened, content_type, place } = file;
    let now = SystemTime::now();
    let identity = opened.identity;
    let description = Description::new(&identity, &content_type, now);
    let answer = description.answer_to(&request.head);
    if answer != Answer::Content {
        return description.send_fields(answer, &mut request.spare);
    }
    let mut place = place.filter(|_| is_settled(&identity, now) && files::is_changed_here_alone(&opened.descriptor));
    let content = if identity.size <= MEMORY_FILE_BYTES_MAX {
        let Ok(bytes) = files::read_start(&opened.descriptor, identity.size as usize) else {
            return Response::error(500, "the file could not be read");
        };
        // What was written while it was read may be in it by halves.
        place = place.filter(|_| files::identify(&opened.descriptor) == Ok(identity));
        Content::Memory(bytes.into())
    } else {
        Content::Open(Arc::new(opened.descriptor))
    };
    let response = description.send(content.body(identity.size), &mut request.spare);
    if let Some(place) = place {
        cache.insert(Entry::new(place, identity, description, content, clock::coarse_ms()));
    }
    response
}

impl Description {
    /// The description, at `now`, of a file with this identity.
    pub(super) fn new(identity: &Identity, content_type: &str, now: SystemTime) -> Description {
        let etag = ETag::of_file(identity.inode, identity.size, identity.modified_ns);
        let modified = modified_seconds(identity.modified_ns, now);
        let mut fields = Fields::default();
        fields.append(b"ETag", etag.as_str().as_bytes());
        let first_line_bytes = fields.lines().len();
        fields.append(b"Content-Type", content_type.as_bytes());
        if let Some(date) = modified.and_then(ImfFixdate::new) {
            fields.append(b"Last-Modified", date.as_str().as_bytes());
        }
        Description { etag, modified, lines: fields.lines().into(), first_line_bytes, size: identity.size }
    }

    fn answer_to(&self, head: &Head) -> Answer {
        match evaluate(head, Validators { etag: Some(self.etag.as_str()), modified: self.modified }) {
            Outcome::NotModified => Answer::NotModified,
            Outcome::Proceed if head.method() == "HEAD" => Answer::Fields,
            Outcome::Proceed => Answer::Content,
        }
    }

    /// A response without content.
    fn send_fields(&self, answer: Answer, spare: &mut Spare) -> Response {
        if answer == Answer::NotModified {
            let mut fields = std::mem::take(&mut spare.fields).emptied();
            // RFC 9110 §15.4.5: of the fields that a 200 would have, those that a cache needs, which is the tag.
            fields.append_lines(&self.lines[..self.first_line_bytes]);
            return Response { status: Status::new(304), fields, body: Body::Empty };
        }
        let mut response = self.send(Body::Empty, spare);
        response.fields.content_length = Some(self.size);
        response
    }

    fn send(&self, body: Body, spare: &mut Spare) -> Response {
        let mut fields = std::mem::take(&mut spare.fields).emptied();
        fields.append_lines(&self.lines);
        Response { status: Status::new(200), fields, body }
    }

    /// What its lines take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len()
    }
}

impl Content {
    /// All of it as the content of a response; its file has this size.
    fn body(&self, size: u64) -> Body {
        match self {
            Content::Memory(bytes) => Body::Shared(Arc::clone(bytes)),
            Content::Open(file) => Body::File { file: Arc::clone(file), offset: 0, length: size },
        }
    }
}

/// Whether every change of the file from `now` on will give it another identity, and time alone none another description.
///
/// A change within the same tick of the file system's clock as the one before may leave the same times.
/// (Git calls such a file "racily clean".) A file from the future gets its date when that has come.
fn is_settled(identity: &Identity, now: SystemTime) -> bool {
    let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    let tick_ns = if identity.changed_ns % SECOND_NS == 0 { COARSE_TICK_NS } else { TICK_NS };
    identity.changed_ns + tick_ns <= now_ns && identity.modified_ns <= now_ns
}

/// The modification time as `Last-Modified` can say it, if it can.
///
/// RFC 9110 §8.8.2.1: never later than now. A file from the future has no such date rather than a false one.
fn modified_seconds(modified_ns: i128, now: SystemTime) -> Option<u64> {
    let seconds = u64::try_from(modified_ns.div_euclid(SECOND_NS)).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds <= now).then_some(seconds)
}

const SECOND_NS: i128 = 1_000_000_000;

/// Longer than a tick of the kernel's coarse clock, which is 1 to 10 ms and is what most file systems use.
const TICK_NS: i128 = 20_000_000;

/// The same for file systems that keep whole seconds, such as ext4 with inodes of 128 bytes.
const COARSE_TICK_NS: i128 = 2 * SECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_that_cannot_be_told_are_left_out() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(modified_seconds(999_999_999_999, now), Some(999));
        assert_eq!(modified_seconds(1_000_999_999_999, now), Some(1000));
        assert_eq!(modified_seconds(1_001_000_000_000, now), None);
        assert_eq!(modified_seconds(-1, now), None);
        assert_eq!(modified_seconds(i128::MAX, now), None);
    }

    #[test]
    fn a_file_is_settled_when_the_clock_of_its_file_system_has_moved_on() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let now_ns = 1000 * SECOND_NS;
        let settled = |modified_ns, changed_ns| {
            is_settled(&Identity { device: 1, inode: 1, size: 1, modified_ns, changed_ns }, now)
        };
        assert!(settled(0, now_ns - TICK_NS));
        assert!(!settled(0, now_ns - TICK_NS + 1), "changed in this tick");
        assert!(!settled(0, now_ns - SECOND_NS), "it keeps whole seconds, so the tick may be longer");
        assert!(settled(0, now_ns - 2 * SECOND_NS));
        assert!(!settled(0, now_ns + 1), "changed while the clock was ahead");
        assert!(settled(now_ns, 1));
        assert!(!settled(now_ns + 1, 1), "modified in the future, so it gets a date later");
        assert!(settled(-1, 1), "modified before 1970");
    }
}
