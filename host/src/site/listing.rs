//! The listing of a folder: a page that is made while it is sent, in an amount of memory that does not depend on the folder.
//!
//! Its steps are small, so that others have their turn in between: read some names; when all have been read, look at the
//! smallest and write a row for each; read again for those that come after them; write the end.

mod window;

use super::page;
use super::resolve;
use crate::http::Head;
use crate::http::conditional::{Class, Outcome, Validators, evaluate};
use crate::log;
use crate::response::{Body, Chunk, Fields, Maker, Response, Status};
use crate::sys::entries::{Entries, Entry};
use crate::sys::files::{Folder, Kind};
use maud::{Markup, html};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use window::Window;

pub(super) use window::Memory;

/// A folder that is to be listed.
#[derive(Debug)]
pub struct Listed {
    /// The site's folder.
    pub(super) root: Arc<Folder>,
    /// For the names.
    pub(super) memory: Arc<Memory>,
    /// The path of the one to be listed, with a slash at both ends.
    pub(super) path: Box<[u8]>,
    /// What is in it.
    pub(super) entries: Entries,
    /// The form that its page has, if it takes files.
    pub(super) form: Option<Form>,
}

/// A form for uploads.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Whether it asks for the token.
    pub(super) asks_token: bool,
}

/// A listing that is being made.
struct Listing {
    listed: Listed,
    stage: Stage,
    /// The last name that has been looked at.
    last: Option<CString>,
    folders: u64,
    files: u64,
    /// What one step has made.
    made: String,
}

enum Stage {
    Beginning,
    /// Names are being read.
    Reading(Window),
    /// All have been read: the window's are next.
    Writing(Window),
    Over,
}

/// The listing of a folder.
pub(super) fn respond(listed: Listed, head: &Head) -> Response {
    // A tag would have to cover the state of every file.
    match evaluate(head, Class::Reads, Some(Validators { etag: None, modified: None })) {
        Outcome::Proceed => {}
        Outcome::NotModified => {
            // RFC 9110 §15.4.5: with the fields that caches need, of those that a 200 would have.
            let mut fields = Fields::default();
            fields.append(page::FRESHNESS.0, page::FRESHNESS.1);
            return Response { status: Status::new(304), fields, body: Body::Empty };
        }
        Outcome::Failed => return Response::error(412, "a listing has no entity tag"),
    }
    let kind = if listed.form.is_some() { page::Kind::Form } else { page::Kind::Plain };
    let listing = Listing { listed, stage: Stage::Beginning, last: None, folders: 0, files: 0, made: String::new() };
    Response { status: Status::new(200), fields: page::fields(kind), body: Body::Made(Box::new(listing)) }
}

impl Maker for Listing {
    fn make(&mut self) -> Chunk<'_> {
        if matches!(self.stage, Stage::Over) {
            return Chunk::End;
        }
        self.made.clear();
        match self.step() {
            Ok(stage) => {
                self.stage = stage;
                Chunk::Data(self.made.as_bytes())
            }
            Err(error) => {
                let path = page::visible(&self.listed.path);
                tracing::error!("cannot list {path} to its end: {}", std::io::Error::from(error));
                Chunk::Failed
            }
        }
    }
}

impl Listing {
    /// Does some of the work, and says what is next.
    fn step(&mut self) -> Result<Stage, Errno> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Beginning => {
                self.begin();
                Ok(Stage::Reading(Window::new(&self.listed.memory)))
            }
            Stage::Reading(window) => self.read(window),
            Stage::Writing(window) => self.write(window),
            Stage::Over => Ok(Stage::Over),
        }
    }

    fn begin(&mut self) {
        let path = &self.listed.path;
        self.made = page::opening(path, &format!("Index of {}", page::visible(path)));
        if let Some(form) = self.listed.form {
            self.made.push_str(&page::form(form.asks_token).0);
        }
        self.made.push_str(CONTENTS);
    }

    /// Reads some more names into the window.
    fn read(&mut self, mut window: Window) -> Result<Stage, Errno> {
        let last = self.last.as_deref();
        let more = self.listed.entries.read(|name| {
            if resolve::is_shown_name(name.to_bytes()) {
                window.offer(name, last);
            }
        })?;
        Ok(if more { Stage::Reading(window) } else { Stage::Writing(window) })
    }

    /// Writes some more rows, and the end if there are no more names.
    fn write(&mut self, mut window: Window) -> Result<Stage, Errno> {
        for _ in 0..ROWS_PER_STEP {
            let Some(name) = window.next() else {
                if !window.is_full {
                    self.end();
                    return Ok(Stage::Over);
                }
                self.listed.entries.rewind()?;
                return Ok(Stage::Reading(Window::new(&self.listed.memory)));
            };
            self.add(&name);
            self.last = Some(name);
            if self.made.len() >= STEP_BYTES {
                break;
            }
        }
        Ok(Stage::Writing(window))
    }

    /// Adds the row of this name, unless it has gone, or is nothing that the site would send.
    fn add(&mut self, name: &CStr) {
        let Ok(mut entry) = self.listed.entries.look_at(name) else { return };
        let is_link = entry.kind == Kind::Link;
        // What it leads to, and what not everybody may read, is opened as a request for it would open it. So no link is listed that
        // leads out of the site or nowhere, and no file that would be refused.
        if is_link || !entry.is_public {
            let path = [&self.listed.path[1..], name.to_bytes()].concat();
            let Ok(opened) = self.listed.root.open_beneath(&path) else { return };
            let identity = opened.identity;
            if opened.kind == Kind::Folder && Entries::new(opened.descriptor).is_err() {
                return;
            }
            entry = Entry { kind: opened.kind, size: identity.size, modified_ns: identity.modified_ns, ..entry };
        }
        let count = match entry.kind {
            Kind::File => &mut self.files,
            Kind::Folder => &mut self.folders,
            Kind::Link | Kind::Other => return,
        };
        *count += 1;
        if self.folders + self.files == 1 {
            self.made.push_str(TABLE);
        }
        self.made.push_str(&row(name.to_bytes(), &entry, is_link).0);
    }

    fn end(&mut self) {
        let number = |count: u64, one: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{} {one}s", grouped(count))),
        };
        let sum = match [number(self.folders, "folder"), number(self.files, "file")] {
            [Some(folders), Some(files)] => format!("{folders}, {files}"),
            [Some(one), None] | [None, Some(one)] => one,
            [None, None] => "This folder is empty.".to_owned(),
        };
        if self.folders + self.files > 0 {
            self.made.push_str(TABLE_END);
        }
        self.made.push_str(&html! { p.sum { (sum) } }.0);
        self.made.push_str(CONTENTS_END);
        self.made.push_str(page::CLOSING);
    }
}

fn row(name: &[u8], entry: &Entry, is_link: bool) -> Markup {
    let is_folder = entry.kind == Kind::Folder;
    let sign = match (is_link, is_folder) {
        (true, _) => "@",
        (false, true) => "/",
        (false, false) => "",
    };
    let (exact, short) = time(entry.modified_ns);
    html! {
        tr {
            th scope="row" {
                a href={ (page::reference(name)) (if is_folder { "/" } else { "" }) } { bdi { (page::visible(name)) } (sign) }
            }
            td.size {
                @if !is_folder {
                    data value=(entry.size) title={ (grouped(entry.size)) " bytes" } { (size(entry.size)) }
                }
            }
            td.date { time datetime=(exact) { (short) } }
        }
    }
}

/// A size for people: three digits of it, or four.
fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    // Half a unit below the next one is written as that.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // 9.95 would be written as 10.0.
    let digits = if value < 9.95 { 1 } else { 0 };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A number with commas, for people.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in UTC, to the second as HTML writes it, and to the minute for people. What is before 1970 is 1970.
fn time(ns: i128) -> (String, String) {
    let seconds = (ns / 1_000_000_000).clamp(0, SECONDS_MAX);
    let text = log::time(UNIX_EPOCH + Duration::from_secs(seconds as u64));
    let (day, hours) = text.split_once('T').unwrap_or((&text, ""));
    let to = |length: usize| hours.get(..length).unwrap_or(hours);
    (format!("{day}T{}Z", to(8)), format!("{day} {}", to(5)))
}

/// What the script of the form replaces when files have come.
const CONTENTS: &str = "<div id=\"contents\">";
const CONTENTS_END: &str = "</div>";

const TABLE: &str = "<table><caption class=\"unseen\">Contents</caption><thead><tr><th scope=\"col\">Name</th>\
    <th scope=\"col\" class=\"size\">Size</th><th scope=\"col\" class=\"date\">Modified (UTC)</th></tr></thead><tbody>";
const TABLE_END: &str = "</tbody></table>";

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Rows of one step: each takes a system call, or four for a link.
const ROWS_PER_STEP: usize = 100;

/// A step that has made so much is over: a long name may take ten times as much in a page.
const STEP_BYTES: usize = 32 * 1024;

/// The last second of the year 9999.
const SECONDS_MAX: i128 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (200 << 20, "200 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
        let numbers = [0, 12, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "12", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn times_in_utc() {
        let expected = |exact: &str, short: &str| (exact.to_owned(), short.to_owned());
        assert_eq!(time(784_111_777_999_999_999), expected("1994-11-06T08:49:37Z", "1994-11-06 08:49"));
        assert_eq!(time(-1), expected("1970-01-01T00:00:00Z", "1970-01-01 00:00"));
        assert_eq!(time(i128::MAX), expected("9999-12-31T23:59:59Z", "9999-12-31 23:59"));
    }
}
