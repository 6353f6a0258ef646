//! Conditional requests (RFC 9110 §13) for files: what is current, what has changed, and which condition counts.

use crate::settled;
use std::fs;
use std::time::{Duration, SystemTime};
use tests::{Response, Server, Site};

/// A site whose file was changed at a time that can be said in advance: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn site() -> Site {
    let site = Site::new();
    let path = site.write("html/a.txt", "0123456789");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    site
}

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn tag(server: &Server) -> String {
    settled(server, "/a.txt").field("ETag").unwrap().to_owned()
}

fn ask(server: &Server, method: &str, fields: &[(&str, &str)]) -> Response {
    server.connect().request(method, "/a.txt", fields, b"").unwrap()
}

#[test]
fn a_condition_that_does_not_hold_is_412_and_says_nothing_of_the_file() {
    let site = site();
    let server = site.start(&[]);
    let tag = tag(&server);
    let weak = format!("W/{tag}");
    for method in ["GET", "HEAD"] {
        for fields in
            [("If-Match", "\"x\""), ("If-Match", weak.as_str()), ("If-Match", "x"), ("If-Unmodified-Since", BEFORE)]
        {
            let response = ask(&server, method, &[fields]);
            assert_eq!(response.status, 412, "{fields:?}");
            assert_eq!((response.field("ETag"), response.field("Last-Modified")), (None, None), "{fields:?}");
            assert!(!String::from_utf8_lossy(&response.body).contains("0123456789"), "{fields:?}");
        }
        for fields in [("If-Match", tag.as_str()), ("If-Match", "*"), ("If-Unmodified-Since", THEN)] {
            assert_eq!(ask(&server, method, &[fields]).status, 200, "{fields:?}");
        }
    }
    // What is not there is not there, whatever the condition (§13.2.1); and so is a redirection.
    site.write("html/d/index.html", "x");
    for (path, status) in [("/nothing", 404), ("/d", 301)] {
        for field in ["If-Match", "If-None-Match"] {
            let response = server.connect().request("GET", path, &[(field, "*")], b"").unwrap();
            assert_eq!(response.status, status, "{path} {field}");
        }
    }
}

/// §13.2.2 from outside: what comes first decides, in whatever order it is sent; a range comes last.
#[test]
fn the_first_condition_that_counts_decides() {
    let site = site();
    let server = site.start(&[]);
    let tag = tag(&server);
    let (same, other) = (tag.as_str(), "\"x\"");
    let range = ("Range", "bytes=1-2");
    type Case<'a> = (&'a [(&'a str, &'a str)], u16);
    let cases: [Case<'_>; 16] = [
        (&[range], 206),
        (&[("If-Match", same), range], 206),
        (&[("If-Match", other), range], 412),
        (&[("If-Match", other), ("If-None-Match", same)], 412),
        (&[("If-Match", same), ("If-None-Match", same)], 304),
        (&[("If-Match", same), ("If-Unmodified-Since", BEFORE)], 200),
        (&[("If-Unmodified-Since", BEFORE), ("If-None-Match", same)], 412),
        (&[("If-Unmodified-Since", THEN), ("If-None-Match", same)], 304),
        (&[("If-None-Match", same), range], 304),
        (&[("If-None-Match", other), range], 206),
        (&[("If-None-Match", other), ("If-Modified-Since", THEN)], 200),
        (&[("If-Modified-Since", THEN), range], 304),
        (&[("If-Modified-Since", BEFORE), range], 206),
        (&[("If-None-Match", same), ("If-Range", same), range], 304),
        (&[("If-Match", other), ("If-Range", same), range], 412),
        (&[("If-None-Match", other), ("If-Range", other), range], 200),
    ];
    for (fields, status) in cases {
        assert_eq!(ask(&server, "GET", fields).status, status, "{fields:?}");
        let reversed: Vec<_> = fields.iter().rev().copied().collect();
        assert_eq!(ask(&server, "GET", &reversed).status, status, "{reversed:?}");
    }
}

#[test]
fn a_tag_changes_with_the_content_even_if_size_and_time_are_set_back() {
    let site = site();
    let server = site.start(&[]);
    let mut tags = vec![tag(&server)];
    for content in ["1234567890", "2345678901", "0123456789"] {
        let path = site.path("html/a.txt");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let response = ask(&server, "GET", &[("If-None-Match", &tags.join(", "))]);
        assert_eq!((response.status, response.text()), (200, content));
        assert_eq!(response.field("Last-Modified"), Some(THEN));
        // A client that has the beginning of the older one does not get the rest of the newer one.
        let fields = [("If-Range", tags.last().unwrap().as_str()), ("Range", "bytes=5-")];
        assert_eq!(ask(&server, "GET", &fields).status, 200);
        tags.push(tag(&server));
    }
    let mut different = tags.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), tags.len(), "{tags:?}");
}
