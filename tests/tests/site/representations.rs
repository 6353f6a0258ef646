//! In which form files are sent, with which fields, and which pages are shown for errors.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::{PATIENCE, Response, Server, Site, eventually};

/// What browsers accept where a page is to be shown.
const BROWSER: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

fn ask(server: &Server, path: &str, fields: &[(&str, &str)]) -> Response {
    server.connect().request("GET", path, fields, b"").unwrap()
}

/// Waits until the file has not changed for a second: until then it could be a sidecar that is being written.
fn rest(site: &Site, name: &str) {
    let metadata = fs::metadata(site.path(name)).unwrap();
    let changed = UNIX_EPOCH + Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32);
    eventually("a second without a change", PATIENCE, || {
        (SystemTime::now() > changed + Duration::from_secs(1)).then_some(())
    });
}

#[test]
fn nothing_of_the_servers_own_is_sniffed() {
    let site = Site::new();
    site.write("html/index.html", "x");
    site.write("html/a.txt", "<script>");
    site.write("html/d/index.html", "x");
    let server = site.start(&[]);
    for (path, status) in [("/", 200), ("/a.txt", 200), ("/nothing", 404), ("/d", 301), ("/%zz", 400)] {
        let response = ask(&server, path, &[]);
        assert_eq!(response.status, status);
        assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn compressed_files_are_sent_to_who_takes_them() {
    let site = Site::new();
    site.write("html/style.css", "plain");
    site.write("html/style.css.gz", "gzipped");
    site.write("html/style.css.br", "brotli");
    site.write("html/style.css.zst", "zstandard");
    site.write("html/other.css", "other");
    rest(&site, "html/style.css.zst");
    let server = site.start(&[]);
    // More than once each: the first look is another one than those that follow.
    for _ in 0..3 {
        for (accepted, text, coding) in [
            (None, "plain", None),
            (Some("gzip, deflate, br, zstd"), "brotli", Some("br")),
            (Some("gzip"), "gzipped", Some("gzip")),
            (Some("zstd, gzip;q=0.9"), "zstandard", Some("zstd")),
            (Some("*"), "brotli", Some("br")),
            (Some("br;q=0, *;q=0.5"), "zstandard", Some("zstd")),
            (Some("gzip;q=0"), "plain", None),
            (Some("gzip;q=0.5, identity"), "plain", None),
            (Some("identity;q=0, gzip;q=0.1"), "gzipped", Some("gzip")),
            (Some("identity;q=0"), "plain", None),
            (Some("*;q=0"), "plain", None),
            (Some(""), "plain", None),
        ] {
            let fields: Vec<_> = accepted.map(|accepted| ("Accept-Encoding", accepted)).into_iter().collect();
            for method in ["GET", "HEAD"] {
                let response = server.connect().request(method, "/style.css", &fields, b"").unwrap();
                assert_eq!((response.status, response.field("Content-Encoding")), (200, coding), "{accepted:?}");
                assert_eq!(response.field("Vary"), Some("Accept-Encoding"), "{accepted:?}");
                assert_eq!(response.field("Content-Type"), Some("text/css; charset=utf-8"), "{accepted:?}");
                assert_eq!(response.field("Content-Length"), Some(&*text.len().to_string()), "{accepted:?}");
                if method == "GET" {
                    assert_eq!(response.text(), text, "{accepted:?}");
                    // A range is one of the bytes that are sent (§14.2: of "the selected representation").
                    let ranged = [&fields[..], &[("Range", "bytes=1-3")]].concat();
                    let part = ask(&server, "/style.css", &ranged);
                    assert_eq!((part.status, part.text(), part.field("Content-Encoding")), (206, &text[1..4], coding));
                    let tag = response.field("ETag").unwrap();
                    let current = ask(&server, "/style.css", &[&fields[..], &[("If-None-Match", tag)]].concat());
                    assert_eq!((current.status, current.field("Vary")), (304, Some("Accept-Encoding")));
                    assert_eq!(current.field("ETag"), Some(tag));
                    // A tag of one form is none of another.
                    if coding.is_some() {
                        assert_eq!(ask(&server, "/style.css", &[("If-None-Match", tag)]).status, 200);
                    }
                }
            }
        }
    }
    // What is refused depends on the form too.
    for (field, status) in [(("Range", "bytes=6-"), 416), (("If-Match", "\"x\""), 412)] {
        let response = ask(&server, "/style.css", &[field]);
        assert_eq!((response.status, response.field("Vary")), (status, Some("Accept-Encoding")));
    }
    let part = ask(&server, "/style.css", &[("Range", "bytes=6-"), ("Accept-Encoding", "gzip")]);
    assert_eq!((part.status, part.text()), (206, "d"));
    let other = ask(&server, "/other.css", &[("Accept-Encoding", "br")]);
    assert_eq!((other.text(), other.field("Vary"), other.field("Content-Encoding")), ("other", None, None));
    let itself = ask(&server, "/style.css.gz", &[("Accept-Encoding", "gzip")]);
    assert_eq!((itself.text(), itself.field("Content-Type")), ("gzipped", Some("application/gzip")));
    assert_eq!(itself.field("Content-Encoding"), None);
}

#[test]
fn a_changed_file_is_never_sent_in_its_old_compressed_form() {
    let site = Site::new();
    site.write("html/a.js", "version 0");
    site.write("html/a.js.gz", "packed 0");
    rest(&site, "html/a.js.gz");
    let server = site.start(&[]);
    let gzip = [("Accept-Encoding", "gzip")];
    eventually("the compressed form", PATIENCE, || (ask(&server, "/a.js", &gzip).text() == "packed 0").then_some(()));
    for version in 1..50 {
        site.write("html/a.js", format!("version {version}"));
        let response = ask(&server, "/a.js", &gzip);
        assert_eq!((response.text(), response.field("Content-Encoding")), (&*format!("version {version}"), None));
    }
    // Compressed again it is sent again, as soon as it is at rest.
    site.write("html/a.js.gz", "packed 50");
    eventually("the new compressed form", PATIENCE, || {
        let response = ask(&server, "/a.js", &gzip);
        match response.field("Content-Encoding") {
            None => {
                assert_eq!(response.text(), "version 49");
                None
            }
            Some(_) => {
                assert_eq!(response.text(), "packed 50");
                Some(())
            }
        }
    });
}

#[test]
fn cache_control_follows_the_rules() {
    let site = Site::new();
    for name in ["index.html", "a.css", "assets/b.css", "assets/c.png"] {
        site.write(&format!("html/{name}"), "x");
    }
    let rules = ["--cache-control", "no-cache", "--cache-control", "*.css=max-age=31536000, immutable"];
    let server = site.start(&[&rules[..], &["--cache-control", "/assets/=max-age=60"]].concat());
    for (path, value) in [
        ("/", "no-cache"),
        ("/a.css", "max-age=31536000, immutable"),
        ("/assets/b.css", "max-age=31536000, immutable"),
        ("/assets/c.png", "max-age=60"),
        ("/nothing", "no-store"),
    ] {
        assert_eq!(ask(&server, path, &[]).field("Cache-Control"), Some(value), "{path}");
    }
    let current = ask(&server, "/a.css", &[("If-None-Match", "*")]);
    assert_eq!((current.status, current.field("Cache-Control")), (304, Some("max-age=31536000, immutable")));
    drop(server);
    for (rule, reason) in [("max-age=1h", "needs a number of seconds"), ("/=no-cache", "say the value alone")] {
        let output = site.run(&["--cache-control", rule]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{output:?}");
    }
    let output = site.run(&["--cache-control", "no-cache", "--cache-control", "private"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("given twice"), "{output:?}");
}

/// Crashes, fails, hangs or answers an error of its own, by the path.
const TROUBLE: &str = r#"
#include "host.h"
#include <string.h>
HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    if (strcmp(path.ptr, "/crash") == 0) *(volatile int *)0 = 1;
    if (strcmp(path.ptr, "/hang") == 0) for (volatile int forever = 1; forever;) {}
    if (strcmp(path.ptr, "/fail") == 0) return NULL;
    start_response->call(start_response, HOST_STR("404 Not Found"), NULL, 0, NULL);
    return env->bytes(env, HOST_STR("the application's own"));
}
"#;

#[test]
fn errors_are_shown_as_the_sites_pages_to_people_and_as_text_to_programs() {
    let site = Site::new();
    site.compile("trouble", TROUBLE);
    site.write("html/404.html", "<h1>lost</h1>");
    site.write("html/40x.html", "<h1>yours</h1>");
    site.write("html/50x.html", "<h1>ours</h1>");
    site.write("html/a.txt", "a");
    let server = site.start(&["--timeout-cpu", "100ms"]);
    // A build of which half of all calls crash would be taken out of service.
    let mut client = server.connect();
    (0..50).for_each(|_| assert_eq!(client.get("/trouble.so/").unwrap().text(), "the application's own"));
    for (path, status, page) in [
        ("/nothing", 404, "<h1>lost</h1>"),
        ("/nosuch.so", 404, "<h1>lost</h1>"),
        ("/trouble.so/fail", 500, "<h1>ours</h1>"),
        ("/trouble.so/crash", 500, "<h1>ours</h1>"),
        ("/trouble.so/hang", 504, "<h1>ours</h1>"),
    ] {
        let response = ask(&server, path, &[BROWSER]);
        assert_eq!((response.status, response.text()), (status, page), "{path}");
        assert_eq!(response.field("Content-Type"), Some("text/html; charset=utf-8"), "{path}");
        assert_eq!(response.field("Cache-Control"), Some("no-store"), "{path}");
        for accept in ["*/*", "application/json", "text/html;q=0"] {
            let response = ask(&server, path, &[("Accept", accept)]);
            assert_eq!(response.status, status, "{path} {accept}");
            assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"), "{path} {accept}");
            assert!(response.text().starts_with(&format!("{status} ")), "{path} {accept}");
        }
    }
    // Who asks for something that is not understood has not said what it takes.
    assert!(ask(&server, "/%zz", &[BROWSER]).text().starts_with("400 Bad Request: "));
    let mut client = server.connect();
    let response = client.request("PUT", "/a.txt", &[BROWSER], b"x").unwrap();
    assert_eq!((response.status, response.text()), (405, "<h1>yours</h1>"));
    assert_eq!(response.field("Allow"), Some("GET, HEAD, OPTIONS"), "the other fields stay");
    let response = client.request("HEAD", "/nothing", &[BROWSER], b"").unwrap();
    assert_eq!((response.status, response.field("Content-Length")), (404, Some("13")));
    // For 416 there is none.
    let response = client.request("GET", "/a.txt", &[BROWSER, ("Range", "bytes=9-")], b"").unwrap();
    assert_eq!((response.status, response.field("Content-Range")), (416, Some("bytes */1")));
    assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"));
    // What an application answers is its own.
    assert_eq!(ask(&server, "/trouble.so/", &[BROWSER]).text(), "the application's own");
    // And as a file it is one like others.
    assert_eq!(ask(&server, "/404.html", &[BROWSER]).status, 200);
}

#[test]
fn a_page_for_errors_that_is_of_no_use_is_not_shown() {
    let site = Site::new();
    site.write("html/huge.html", "x");
    fs::File::create(site.path("html/404.html")).unwrap().set_len(1 << 40).unwrap();
    let server = site.start(&[]);
    let text = |server: &Server| ask(server, "/nothing", &[BROWSER]).text().to_owned();
    assert!(text(&server).starts_with("404 Not Found"));
    // A pipe would be waited for, a folder cannot be read, and a link leads outside.
    fs::remove_file(site.path("html/404.html")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(site.path("html/404.html")).status().unwrap().success());
    fs::create_dir(site.path("html/40x.html")).unwrap();
    assert!(text(&server).starts_with("404 Not Found"));
    fs::remove_dir(site.path("html/40x.html")).unwrap();
    site.write("secret.html", "secret");
    std::os::unix::fs::symlink("../secret.html", site.path("html/40x.html")).unwrap();
    let server = site.start(&[]);
    assert!(text(&server).starts_with("404 Not Found"));
    // One that appears is seen.
    fs::remove_file(site.path("html/40x.html")).unwrap();
    site.write("html/40x.html", "now");
    eventually("the new page", PATIENCE, || (text(&server) == "now").then_some(()));
}
