//! Listings of folders (`--listing`) from outside: what they show, in which order, and what they cost others.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tests::client::Framing;
use tests::{PATIENCE, Response, Server, Site, cc, eventually, process, repository};

/// A row: what the link shows, where it leads, and the rest of the row's text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    name: String,
    reference: String,
    rest: String,
}

/// The rows of a listing, as a browser would read them.
#[track_caller]
fn rows(page: &Response) -> Vec<Row> {
    assert_eq!(page.status, 200, "{page:?}");
    let text = page.text();
    assert!(text.starts_with("<!DOCTYPE html><html lang=\"en\">") && text.ends_with("</main></body></html>"), "{text}");
    let row = |row: &str| {
        let (before, after) = row.split_once("\">").unwrap();
        let (name, rest) = after.split_once("</a>").unwrap();
        Row { name: text_of(name), reference: unescaped(before), rest: text_of(rest).trim().to_owned() }
    };
    text.split("<tr><th scope=\"row\"><a href=\"").skip(1).map(row).collect()
}

/// The text in a piece of HTML: without its tags, of which none must have come from a name.
fn text_of(html: &str) -> String {
    let mut text = String::new();
    for piece in html.split('<') {
        match piece.split_once('>') {
            Some((tag, after)) => {
                let known = ["bdi", "/bdi", "/th", "td", "/td", "data", "/data", "time", "/time", "tr", "/tr"];
                let tag = tag.split(' ').next().unwrap();
                if known.contains(&tag) {
                    text.push_str(after);
                    text.push_str(if tag == "/td" { " " } else { "" });
                }
            }
            None => text.push_str(piece),
        }
    }
    unescaped(&text)
}

fn unescaped(text: &str) -> String {
    assert!(!text.contains(['<', '>', '"']), "not escaped: {text}");
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

fn names(page: &Response) -> Vec<String> {
    rows(page).into_iter().map(|row| row.name).collect()
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_folder_is_listed_with_names_sizes_and_dates_in_the_order_of_names() {
    let site = Site::new();
    for (name, bytes) in [("b.txt", 0), ("A.txt", 1536), ("a.TXT", 1023), ("Zoo", 1), ("10", 5 << 20)] {
        let path = site.write(&format!("html/pub/{name}"), vec![b'x'; bytes]);
        set_time(&path, 784_111_777);
    }
    fs::create_dir(site.path("html/pub/c")).unwrap();
    set_time(&site.path("html/pub/c"), 0);
    let server = site.start(&["--listing"]);
    let page = server.get("/pub/");
    let expected = [
        ("10", "10", "5.0 MiB 1994-11-06 08:49"),
        ("A.txt", "A.txt", "1.5 KiB 1994-11-06 08:49"),
        ("a.TXT", "a.TXT", "1023 B 1994-11-06 08:49"),
        ("b.txt", "b.txt", "0 B 1994-11-06 08:49"),
        ("c/", "c/", "1970-01-01 00:00"),
        ("Zoo", "Zoo", "1 B 1994-11-06 08:49"),
    ];
    let found = rows(&page);
    let found: Vec<_> = found.iter().map(|row| (&*row.name, &*row.reference, row.rest.trim())).collect();
    // The text after the last row is not its own.
    assert_eq!(found[..5], expected[..5]);
    assert!(found[5].2.starts_with(expected[5].2) && found.len() == 6, "{found:?}");
    let text = page.text();
    for exact in [
        "<data value=\"5242880\" title=\"5,242,880 bytes\">5.0 MiB</data>",
        "<time datetime=\"1994-11-06T08:49:37Z\">",
        "<title>Index of /pub/</title>",
        "<a href=\"/\"><bdi>Home</bdi></a>",
        "1 folder, 5 files",
    ] {
        assert!(text.contains(exact), "{exact} is missing: {text}");
    }
    assert_eq!(names(&server.get("/")), ["pub/"]);
    assert!(server.get("/pub/c/").text().contains("This folder is empty."));
    assert!(!server.get("/pub/c/").text().contains("<table"), "and has no empty table");
}

#[test]
fn a_listing_is_a_page_that_nothing_can_be_put_into() {
    let site = Site::new();
    fs::create_dir(site.path("html/a")).unwrap();
    let server = site.start(&["--listing"]);
    let page = server.get("/a/");
    assert_eq!(page.framing, Framing::Chunked);
    assert_eq!(page.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.field("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(page.field("Cache-Control"), Some("no-cache"));
    let policy = page.field("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");

    let head = server.connect().request("HEAD", "/a/", &[], b"").unwrap();
    assert_eq!((head.status, head.field("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(head.body.is_empty());
    // The same connection goes on after both.
    let mut client = server.connect();
    client
        .send(
            b"HEAD /a/ HTTP/1.1\r\nHost: a\r\n\r\nGET /a/ HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.response_to("HEAD").unwrap().status, 200);
    assert!(client.response().unwrap().text().contains("This folder is empty."));
    assert_eq!(names(&client.response().unwrap()), ["a/"]);

    // There is a representation, but none that could be known again (RFC 9110 §13.1).
    for (field, value, status) in [
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"a\"", 200),
        ("If-Match", "*", 200),
        ("If-Match", "\"a\"", 412),
        ("If-Modified-Since", "Fri, 31 Dec 9999 23:59:59 GMT", 200),
        ("Range", "bytes=0-1", 200),
    ] {
        let answer = server.connect().request("GET", "/a/", &[(field, value)], b"").unwrap();
        assert_eq!(answer.status, status, "{field}: {value}");
        assert!(status == 412 || answer.field("Cache-Control") == Some("no-cache"), "{field}: {value}");
    }

    let mut old = server.connect();
    old.send(b"GET /a/ HTTP/1.0\r\n\r\n").unwrap();
    let page = old.response().unwrap();
    assert_eq!((page.framing, page.field("Transfer-Encoding")), (Framing::Close, None));
    assert!(page.text().ends_with("</html>"));

    for (path, location) in [("/a", "/a/"), ("/a?x=1", "/a/?x=1"), ("/b/../a", "/a/")] {
        let moved = server.connect().get(path).unwrap();
        assert_eq!((moved.status, moved.field("Location")), (301, Some(location)), "{path}");
    }
    for path in ["//", "//a", "//a/", "/a//", "/b", "/b/", "/a/b/"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

/// Names that mean something to a shell, a browser, a URL or a terminal, and are only names here.
const NASTY: [&[u8]; 24] = [
    b"<svg onload=alert(1)>",
    b"\"><img src=x onerror=alert(1)>",
    b"' onmouseover='x",
    b"&amp;",
    b"a&b=c",
    b"100%",
    b"%2e%2e",
    b"%2Fetc",
    b"a#b",
    b"a?b",
    b"javascript:alert(1)",
    b"https:",
    b"http:example.org",
    b"\\\\example.org\\x",
    b" leading and trailing ",
    b"new\nline",
    b"tab\tand\x1b[31mescape",
    b"\xff\xfe not UTF-8",
    b"\xc3\x28",
    "\u{202e}gpj.exe".as_bytes(),
    "\u{2066}isolate".as_bytes(),
    "日本語 עברית 🦀".as_bytes(),
    b"--option",
    b"~",
];

#[test]
fn every_name_is_only_a_name_and_its_link_leads_to_it() {
    let site = Site::new();
    for (number, name) in NASTY.iter().enumerate() {
        site.write("html/x", "");
        fs::rename(site.path("html/x"), site.path("html").join(OsStr::from_bytes(name))).unwrap();
        fs::write(site.path("html").join(OsStr::from_bytes(name)), format!("file {number}")).unwrap();
        let folder = site.path("html/folders").join(OsStr::from_bytes(name));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("inside"), "").unwrap();
    }
    let server = site.start(&["--listing"]);
    let mut client = server.connect();
    let page = client.get("/").unwrap();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for row in rows(&page).iter().filter(|row| row.name != "folders/") {
        // RFC 3986 §3.3: letters, digits and percent-encoded bytes alone.
        assert!(row.reference.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)), "{row:?}");
        let answer = client.get(&format!("/{}", row.reference)).unwrap();
        assert_eq!(answer.status, 200, "{row:?}");
        let number: usize = answer.text().strip_prefix("file ").unwrap().parse().unwrap();
        let shown: String = String::from_utf8_lossy(NASTY[number])
            .chars()
            .map(|char| if char.is_control() || "\u{202e}\u{2066}".contains(char) { '\u{fffd}' } else { char })
            .collect();
        assert_eq!(row.name, shown);
        found.push(NASTY[number].to_vec());
    }
    found.sort();
    let mut expected = NASTY.map(<[u8]>::to_vec);
    expected.sort();
    assert_eq!(found, expected);
    let folders = rows(&client.get("/folders/").unwrap());
    assert_eq!(folders.len(), NASTY.len());
    for row in folders {
        let inner = client.get(&format!("/folders/{}", row.reference)).unwrap();
        assert_eq!(names(&inner), ["inside"], "{row:?}");
        assert!(row.name.ends_with('/'), "{row:?}");
    }
}

#[test]
fn what_the_site_would_not_send_is_not_listed() {
    let site = Site::new();
    site.write("secret", "x");
    for name in [".git/config", ".env", "lib.so", "dir.so/a", "shown.so.txt", "folder/a", "file"] {
        site.write(&format!("html/{name}"), "x");
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        site.path("html/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for (target, link) in [
        ("file", "to-file"),
        ("folder", "to-folder"),
        ("nowhere", "dangling"),
        ("loop", "loop"),
        ("../secret", "outside"),
        ("/etc/passwd", "absolute"),
        ("..", "up"),
        ("fifo", "to-fifo"),
    ] {
        symlink(target, site.path("html").join(link)).unwrap();
    }
    let private = site.write("html/private", "x");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o000)).unwrap();
    let server = site.start(&["--listing"]);
    let mut expected = vec!["file", "folder/", "shown.so.txt", "to-file@", "to-folder@"];
    if may_everything() {
        expected.insert(2, "private");
    }
    let page = server.get("/");
    assert_eq!(names(&page), expected);
    assert_eq!(page.text().matches("<table").count(), 1, "also if the first entry is none that is listed");
    for row in rows(&page) {
        let reference = &row.reference;
        assert_eq!(server.get(&format!("/{reference}")).status, 200, "{row:?}");
        assert_eq!(
            reference.ends_with('/'),
            row.name.contains("folder"),
            "a folder's link needs no redirection: {row:?}"
        );
    }
    let size = rows(&page).into_iter().find(|row| row.name == "to-file@").unwrap().rest;
    assert!(size.starts_with("1 B "), "of what the link leads to: {size}");
}

/// Whether this test may do everything, so that no permission can keep it, or a server that it starts, from reading.
fn may_everything() -> bool {
    fs::read_dir("/proc/1/fd").is_ok()
}

#[test]
fn a_folder_that_cannot_be_read_is_not_there() {
    let site = Site::new();
    for (name, mode) in [("unreadable", 0o311), ("unsearchable", 0o644), ("closed", 0o000)] {
        site.write(&format!("html/{name}/a"), "x");
        fs::set_permissions(site.path("html").join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let server = site.start(&["--listing"]);
    let expected = if may_everything() { (200, 301) } else { (404, 404) };
    for name in ["unreadable", "unsearchable", "closed"] {
        let statuses = (server.get(&format!("/{name}/")).status, server.get(&format!("/{name}")).status);
        assert_eq!(statuses, expected, "{name}");
    }
    assert_eq!(names(&server.get("/")).len(), if may_everything() { 3 } else { 0 });
    // Of a page that may not be read it is said that there is one, if its folder may be looked into.
    let page = site.write("html/public/index.html", "x");
    fs::set_permissions(&page, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(server.get("/public/").status, if may_everything() { 200 } else { 403 });
    // So that the folders can be removed.
    for name in ["unreadable", "unsearchable", "closed"] {
        fs::set_permissions(site.path("html").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn folders_are_listed_when_nothing_else_answers_and_only_if_asked() {
    let site = Site::new();
    site.write("html/docs/index.html", "docs");
    site.write("html/bare/a", "a");
    site.write("html/api/a", "a");
    let where_am_i = repository().join("tests/tests/site/where.c");
    cc(&where_am_i, &site.path("handlers/app.so"), &["-DMODULE=\"app\""]);
    {
        let server = site.start(&[]);
        assert_eq!((server.get("/bare/").status, server.get("/bare").status), (404, 404), "it is off by default");
    }
    {
        let server = site.start(&["--listing", "--mount", "/api=app"]);
        assert_eq!(server.get("/docs/").text(), "docs", "an index page comes first");
        assert!(server.get("/api/").text().starts_with("app "), "a mount too");
        assert_eq!(names(&server.get("/bare/")), ["a"]);
        for (method, status, allow) in [
            ("POST", 405, Some("GET, HEAD, OPTIONS")),
            ("PUT", 405, Some("GET, HEAD, OPTIONS")),
            ("DELETE", 405, Some("GET, HEAD, OPTIONS")),
            ("OPTIONS", 204, Some("GET, HEAD, OPTIONS")),
            ("get", 501, None),
        ] {
            let answer = server.connect().request(method, "/bare/", &[], b"").unwrap();
            assert_eq!((answer.status, answer.field("Allow")), (status, allow), "{method}");
        }
    }
    let server = site.start(&["--listing", "app"]);
    assert!(server.get("/bare/").text().starts_with("app "), "and the root application");
    server.wait_for_log("--listing shows nothing: app:application answers for folders without", PATIENCE);
    server.wait_for_log("with listings", PATIENCE);
}

#[test]
fn a_listing_needs_a_site() {
    let site = Site::new();
    let output = site.run(&["--listing", "--html", "none"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("--listing needs a site, whose folders it lists; name one with --html DIR"), "{text}");
}

/// More entries than one window or one read holds.
const MANY: usize = 100_000;

/// A site whose folder `many` has `count` empty files, with names in no order of their making.
fn site_with(count: usize) -> Site {
    let site = Site::new();
    let folder = site.path("html/many");
    fs::create_dir(&folder).unwrap();
    for number in 0..count {
        // Links are made and removed faster than files; ext4 lets a file have 65,000.
        let file = site.path(&format!("file-{}", number / 50_000));
        if number.is_multiple_of(50_000) {
            fs::write(&file, "").unwrap();
        }
        fs::hard_link(&file, folder.join(file_name(number * 7919 % count))).unwrap();
    }
    site.write("html/a.txt", "a");
    site
}

fn file_name(number: usize) -> String {
    format!("File {number:06} with a name of an ordinary length.txt")
}

/// Resident memory of the worker, in KiB.
fn resident_kib(worker: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn worker(server: &Server) -> u32 {
    process::children(server.id()).into_iter().find(|child| child.command == "host: worker").unwrap().id
}

#[test]
fn a_hundred_thousand_entries_are_listed_in_little_memory_while_others_are_served() {
    let site = site_with(MANY);
    let server = site.start(&["--listing", "--threads", "1"]);
    assert_eq!(server.get("/a.txt").text(), "a");
    let worker = worker(&server);
    let before = resident_kib(worker);
    let over = AtomicBool::new(false);
    let (page, served) = std::thread::scope(|scope| {
        let listing = scope.spawn(|| {
            let page = server.get("/many/");
            over.store(true, Ordering::SeqCst);
            page
        });
        let mut client = server.connect();
        let mut served = 0;
        while !over.load(Ordering::SeqCst) {
            assert_eq!(client.get("/a.txt").unwrap().text(), "a");
            served += 1;
        }
        (listing.join().unwrap(), served)
    });
    // A pass over the folder is hundreds of steps, and there are several passes; after each step the others have their turn.
    assert!(served > 100, "{served} requests were served on the same loop meanwhile");
    let found = names(&page);
    assert_eq!(found.len(), MANY);
    assert!(found.iter().enumerate().all(|(at, name)| *name == file_name(at)), "in order, each once");
    assert!(page.text().contains("<p class=\"sum\">100,000 files</p>"));
    let grown = resident_kib(worker) - before;
    assert!(grown < 4096, "a page of {} KiB took {grown} KiB", page.body.len() / 1024);
}

#[test]
fn a_listing_waits_for_a_client_who_does_not_read_and_ends_with_one_who_leaves() {
    let site = site_with(20_000);
    let server = site.start(&["--listing", "--threads", "1"]);
    let worker = worker(&server);
    let before = process::descriptors(worker).unwrap();
    let mut patient = server.connect();
    patient.send(b"GET /many/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut leaving = server.connect();
    leaving.send(b"GET /many/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0];
    leaving.stream().read_exact(&mut first).unwrap();
    drop(leaving);
    // The socket and the folder of the other one are what is left.
    eventually("the folder of a client who has left is closed", PATIENCE, || {
        (process::descriptors(worker)? == before + 2).then_some(())
    });
    assert_eq!(server.get("/a.txt").text(), "a");
    assert_eq!(names(&patient.response().unwrap()).len(), 20_000, "nothing is lost by waiting");
}

#[test]
fn a_folder_that_changes_while_it_is_listed_shows_what_stays() {
    let site = site_with(5000);
    let server = site.start(&["--listing"]);
    let folder = site.path("html/many");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::SeqCst) {
                let name =
                    |number: u32| folder.join(format!("{} {number}", if number.is_multiple_of(2) { "a" } else { "z" }));
                fs::write(name(number), "").unwrap();
                fs::rename(name(number), folder.join("moving")).unwrap();
                number += 1;
            }
        });
        for _ in 0..5 {
            let mut times: HashMap<String, u32> = HashMap::new();
            names(&server.get("/many/")).into_iter().for_each(|name| *times.entry(name).or_default() += 1);
            for number in 0..5000 {
                assert_eq!(times.get(&file_name(number)), Some(&1), "{}", file_name(number));
            }
            assert!(times.values().all(|&count| count == 1), "no name twice");
        }
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_folder_that_is_removed_while_it_is_listed_ends_its_listing() {
    let site = site_with(20_000);
    let server = site.start(&["--listing"]);
    let mut client = server.connect();
    client.send(b"GET /many/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    fs::remove_dir_all(site.path("html/many")).unwrap();
    let page = client.response().unwrap();
    assert!(names(&page).len() <= 20_000, "whatever was there when it was looked at");
    assert_eq!(server.get("/many/").status, 404);
}
