//! The response to a request for a file of the site: in which form it is sent, and what becomes of it in the cache.

use super::Site;
use super::cache::{Content, Entry, MEMORY_FILE_BYTES_MAX, OPEN_FILE_BYTES_MAX, Place};
use super::description::{Description, Facts};
use super::listing;
use super::resolve::{Cached, File, Target};
use super::sidecar::{self, Found};
use crate::http::accept::{self, Coding, Codings};
use crate::request::Request;
use crate::response::Response;
use crate::sys::clock;
use crate::sys::files::{self, Identity, Kind, Opened};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers the GET or HEAD request with `target`. What has been read for it is added to the site's cache.
pub(super) fn reply(target: Target, request: &mut Request, site: &Site) -> Response {
    match target {
        Target::Cached(Cached(entry)) => send_cached(&entry, request, site),
        Target::File(file) => send(file, request, site),
        Target::Folder { location } => match request.head.query() {
            Some(query) => Response::redirect(301, &format!("{location}?{query}")),
            None => Response::redirect(301, &location),
        },
        Target::Listing(listed) => listing::respond(listed, &request.head),
        Target::Refused(reject) => reject.into(),
    }
}

/// Answers with a file of the cache, which was true a moment ago, or with a sidecar of it.
fn send_cached(entry: &Arc<Entry>, request: &mut Request, site: &Site) -> Response {
    if !entry.sidecars.is_empty()
        && let Some(coding) = accept::coding(&request.head, entry.sidecars)
    {
        return match send_cached_sidecar(entry, coding, request, site) {
            Some(response) => response,
            None => send_anew(entry, request, site),
        };
    }
    let answer = entry.description.answer_to(&request.head);
    match &entry.content {
        // Only its sidecars have been asked for until now.
        None if answer.has_content() => send_anew(entry, request, site),
        content => entry.description.respond(answer, content.as_ref(), &mut request.spare),
    }
}

/// Answers with the file of an entry that does not have what is asked for, as if nothing were known of it.
fn send_anew(entry: &Arc<Entry>, request: &mut Request, site: &Site) -> Response {
    site.cache.remove(entry);
    let Place { path, relative, .. } = entry.place.clone();
    match site.folder.open_beneath(relative.as_bytes()) {
        Ok(opened) if opened.kind == Kind::File => {
            let path = (opened.identity.size <= OPEN_FILE_BYTES_MAX).then_some(path);
            let content_type = String::from_utf8_lossy(entry.description.content_type()).into_owned().into();
            send(File { opened, content_type, relative, path }, request, site)
        }
        // It was there a moment ago.
        _ => Response::error(404, "not found"),
    }
}

/// Answers with the sidecar of a file that has been found true, if that is still so of it too.
fn send_cached_sidecar(original: &Entry, coding: Coding, request: &mut Request, site: &Site) -> Option<Response> {
    let Place { path, relative, .. } = &original.place;
    if let Some(entry) = site.cache.find(path, Some(coding), clock::coarse_ms()) {
        let is_beside = entry.beside.as_deref() == Some(&original.identity);
        if is_beside && site.folder.identify(&entry.place.relative) == Ok(entry.identity) {
            let answer = entry.description.answer_to(&request.head);
            return Some(entry.description.respond(answer, entry.content.as_ref(), &mut request.spare));
        }
        site.cache.remove(&entry);
    }
    let now = SystemTime::now();
    match sidecar::open(&site.folder, relative.as_bytes(), coding, &original.identity, now) {
        Found::Sidecar(opened) => {
            let content_type = String::from_utf8_lossy(original.description.content_type());
            let sidecar =
                Form { opened, coding: Some(coding), sidecars: Codings::default(), beside: Some(original.identity) };
            let common = Common { content_type: &content_type, varies: true, relative, path: Some(path), now };
            Some(deliver(sidecar, &common, request, site))
        }
        Found::Waiting | Found::Nothing => None,
    }
}

/// Answers with a file that has been opened, or with a sidecar of it.
fn send(file: File, request: &mut Request, site: &Site) -> Response {
    let File { opened, content_type, relative, path } = file;
    let now = SystemTime::now();
    let original = opened.identity;
    let mut sidecars = sidecar::look(&site.folder, relative.as_bytes(), &original, now);
    // What is remembered says which sidecars there are.
    let path = path.as_deref().filter(|_| !sidecars.is_waiting);
    let codings = sidecars.codings;
    let common = Common { content_type: &content_type, varies: !codings.is_empty(), relative: &relative, path, now };
    let itself = Form { opened, coding: None, sidecars: codings, beside: None };
    let chosen = accept::coding(&request.head, codings);
    match chosen.and_then(|coding| sidecars.take(coding)) {
        None => deliver(itself, &common, request, site),
        Some(opened) => {
            remember(&itself, &common, site);
            let sidecar = Form { opened, coding: chosen, sidecars: Codings::default(), beside: Some(original) };
            deliver(sidecar, &common, request, site)
        }
    }
}

/// What a file and its sidecars have in common.
struct Common<'a> {
    content_type: &'a str,
    /// There are sidecars.
    varies: bool,
    /// Where the file itself is, from the root.
    relative: &'a CString,
    /// The path of the requests for it, if it may be remembered.
    path: Option<&'a [u8]>,
    now: SystemTime,
}

/// A file or a sidecar of it, as it is to be sent.
struct Form {
    opened: Opened,
    coding: Option<Coding>,
    /// Those of the file itself.
    sidecars: Codings,
    /// What it is a sidecar of.
    beside: Option<Identity>,
}

/// Answers with what has been opened, and remembers it if that may be.
fn deliver(form: Form, common: &Common<'_>, request: &mut Request, site: &Site) -> Response {
    let mut place = form.place(common);
    let Form { opened: Opened { descriptor, identity, .. }, coding, sidecars, beside } = form;
    let is_settled = is_settled(&identity, common.now) || files::tells_every_change(&descriptor, &identity);
    let mut description = common.describe(&identity, coding, is_settled, site);
    let mut answer = description.answer_to(&request.head);
    if !answer.has_content() {
        return description.respond(answer, None, &mut request.spare);
    }
    let content = if identity.size <= MEMORY_FILE_BYTES_MAX {
        let Ok(bytes) = files::read_start(&descriptor, identity.size as usize) else {
            return Response::error(500, "the file could not be read");
        };
        // What was written while it was read may be in it by halves: it is sent, but under a name that nothing else has.
        if files::identify(&descriptor) != Ok(identity) || bytes.len() as u64 != identity.size {
            place = None;
            let seen = Identity { size: bytes.len() as u64, ..identity };
            description = common.describe(&seen, coding, false, site);
            answer = description.answer_to(&request.head);
        }
        Content::Memory(bytes.into())
    } else {
        Content::Open(Arc::new(descriptor))
    };
    let response = description.respond(answer, Some(&content), &mut request.spare);
    if let Some(place) = place {
        site.cache.insert(Entry {
            place,
            identity,
            description,
            content: Some(content),
            sidecars,
            beside: beside.map(Box::new),
            seen_ms: clock::coarse_ms(),
            used: AtomicBool::new(false),
        });
    }
    response
}

/// Remembers a file of which a sidecar is sent, so that the next request finds at once which sidecars there are.
fn remember(file: &Form, common: &Common<'_>, site: &Site) {
    let Some(place) = file.place(common) else { return };
    let identity = file.opened.identity;
    site.cache.insert(Entry {
        place,
        identity,
        description: common.describe(&identity, None, true, site),
        content: None,
        sidecars: file.sidecars,
        beside: None,
        seen_ms: clock::coarse_ms(),
        used: AtomicBool::new(false),
    });
}

impl Form {
    /// Where it is, if it may be remembered in the state in which it was opened.
    fn place(&self, common: &Common<'_>) -> Option<Place> {
        let Opened { descriptor, identity, .. } = &self.opened;
        let path = common.path.filter(|_| identity.size <= OPEN_FILE_BYTES_MAX)?.into();
        if !is_settled(identity, common.now) || !files::is_changed_here_alone(descriptor) {
            return None;
        }
        let relative = match self.coding {
            None => common.relative.clone(),
            Some(coding) => CString::new(sidecar::path(common.relative.as_bytes(), coding)).ok()?,
        };
        Some(Place { path, coding: self.coding, relative })
    }
}

impl Common<'_> {
    fn describe(&self, identity: &Identity, coding: Option<Coding>, is_settled: bool, site: &Site) -> Description {
        let Common { content_type, varies, relative, now, .. } = *self;
        let cache_control = site.cache_control_of(relative.as_bytes());
        Description::new(&Facts { identity, is_settled, content_type, coding, varies, cache_control }, now)
    }
}

/// Whether every change of the file from `now` on will give it another identity, and time alone none another description.
///
/// A change within the same tick of the file system's clock as the one before may leave the same times.
/// (Git calls such a file "racily clean".) A file from the future has another date in each answer.
pub(super) fn is_settled(identity: &Identity, now: SystemTime) -> bool {
    let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    let tick_ns = if identity.changed_ns % SECOND_NS == 0 { COARSE_TICK_NS } else { TICK_NS };
    identity.changed_ns + tick_ns <= now_ns && identity.modified_ns <= now_ns
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
        assert!(!settled(now_ns + 1, 1), "modified in the future, so its date goes with the clock");
        assert!(settled(-1, 1), "modified before 1970");
    }
}
