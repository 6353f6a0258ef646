//! The response to a request for a file of the site.

use super::resolve::{File, Target};
use crate::http::Head;
use crate::http::conditional::{Outcome, Validators, evaluate};
use crate::http::date::ImfFixdate;
use crate::http::etag::ETag;
use crate::response::{Body, Fields, Response, Status};
use crate::sys::files;
use std::time::{SystemTime, UNIX_EPOCH};

/// Files up to this size are read at once, so that head and content leave in one write; beyond it `sendfile` is cheaper
/// than a copy.
const READ_BYTES_MAX: u64 = 16 * 1024;

/// Answers the GET or HEAD request of `head` with `target`.
pub(super) fn reply(target: Target, head: &Head) -> Response {
    match target {
        Target::File(file) => send(file, head),
        Target::Folder { location } => match head.query() {
            Some(query) => Response::redirect(301, &format!("{location}?{query}")),
            None => Response::redirect(301, &location),
        },
        Target::Refused(reject) => reject.into(),
    }
}

fn send(file: File, head: &Head) -> Response {
    let File { opened, content_type } = file;
    let etag = ETag::of_file(opened.inode, opened.size, opened.modified_ns);
    let modified = modified_seconds(opened.modified_ns, SystemTime::now());

    let mut fields = Fields::default();
    fields.append(b"ETag", etag.as_str().as_bytes());
    if evaluate(head, Validators { etag: Some(etag.as_str()), modified }) == Outcome::NotModified {
        // RFC 9110 §15.4.5: of the fields that a 200 would have, those that a cache needs, which is the tag.
        return Response { status: Status::new(304), fields, body: Body::Empty };
    }
    fields.append(b"Content-Type", content_type.as_bytes());
    if let Some(date) = modified.and_then(ImfFixdate::new) {
        fields.append(b"Last-Modified", date.as_str().as_bytes());
    }
    let body = if head.method() == "HEAD" {
        fields.content_length = Some(opened.size);
        Body::Empty
    } else if opened.size <= READ_BYTES_MAX {
        match files::read_start(&opened.descriptor, opened.size as usize) {
            Ok(bytes) => Body::Bytes(bytes.into()),
            Err(_) => return Response::error(500, "the file could not be read"),
        }
    } else {
        Body::File { file: opened.descriptor, offset: 0, length: opened.size }
    };
    Response { status: Status::new(200), fields, body }
}

/// The modification time as `Last-Modified` can say it, if it can.
///
/// RFC 9110 §8.8.2.1: never later than now. A file from the future has no such date rather than a false one.
fn modified_seconds(modified_ns: i128, now: SystemTime) -> Option<u64> {
    let seconds = u64::try_from(modified_ns.div_euclid(1_000_000_000)).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds <= now).then_some(seconds)
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
        assert_eq!(modified_seconds(1_001_000_000_000, now), None);
        assert_eq!(modified_seconds(-1, now), None);
        assert_eq!(modified_seconds(i128::MAX, now), None);
    }
}
