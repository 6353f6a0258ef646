//! The access log, from outside: one line for each request, true and not to be forged, whatever becomes of its response, of
//! the file, and of who reads it.

mod formats;
mod rotation;
mod stalls;

use std::fs;
use std::path::Path;
use tests::{PATIENCE, Server, Site, cc, eventually, repository};

/// A site with a page and a handler.
fn site() -> Site {
    let site = Site::new();
    site.write("html/a.txt", "page\n");
    let source = repository().join("tests/tests/access_log/handler.c");
    cc(&source, &site.path("handlers/module.so"), &[]);
    site
}

/// As [`start`], with one loop: lines of several may come half a second later than they should.
fn start_in_order(site: &Site, format: &str, arguments: &[&str]) -> Server {
    start(site, format, &[&["--threads", "1"], arguments].concat())
}

/// A server that logs in this format to `access.log`.
fn start(site: &Site, format: &str, arguments: &[&str]) -> Server {
    site.start(&[&["--access-log", "access.log", "--access-log-format", format], arguments].concat())
}

/// The whole lines of the file.
fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

/// Waits until `access.log` has so many lines, and gives them without their times, which are those of now.
#[track_caller]
fn lines(site: &Site, count: usize) -> Vec<String> {
    let file = site.path("access.log");
    let lines = eventually(&format!("{count} lines"), PATIENCE, || {
        let lines = lines_of(&file);
        (lines.len() >= count).then_some(lines)
    });
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines.iter().map(|line| without_time(line)).collect()
}

/// A line of text whose time, which must be one, has become `[time]`.
fn without_time(line: &str) -> String {
    let (before, rest) = line.split_once('[').unwrap_or_else(|| panic!("no time in {line}"));
    let (time, after) = rest.split_once(']').expect("the end of the time");
    // `21/Nov/2026:20:17:07 +0000`
    let pattern = "dd/aaa/dddd:dd:dd:dd +dddd";
    let fits = |(byte, kind): (u8, u8)| match kind {
        b'd' => byte.is_ascii_digit(),
        b'a' => byte.is_ascii_alphabetic(),
        other => byte == other,
    };
    assert!(time.len() == pattern.len() && time.bytes().zip(pattern.bytes()).all(fits), "{time}");
    format!("{before}[time]{after}")
}
