//! The site over a real folder: what it shows, what it hides, and how it answers.

mod cached;
mod forms;

use super::*;
use crate::http::{HeadLimits, encode};
use crate::response::{Body, Source};
use crate::sys::socket::Address;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::SystemTime;

/// A site in the folder `html` of a temporary folder.
struct Fixture {
    base: tempfile::TempDir,
    site: Site,
}

impl Fixture {
    fn new() -> Fixture {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("html")).unwrap();
        let site = Site::open(&base.path().join("html")).unwrap();
        Fixture { base, site }
    }

    fn with(self, path: &str, content: impl AsRef<[u8]>) -> Fixture {
        let path = self.site.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// The response to a request with these additional field lines, if the site has an answer.
    fn request(&self, method: &str, target: &str, fields: &str) -> Option<Response> {
        ask(&self.site, method, target, fields)
    }

    #[track_caller]
    fn get(&self, target: &str) -> Response {
        self.request("GET", target, "").unwrap_or_else(|| panic!("the site has nothing at {target}"))
    }
}

/// The response, when its tag is a strong one: where the kernel cannot tell every change, a file that has just been written has
/// another one for a moment.
#[track_caller]
fn settled(fixture: &Fixture, target: &str) -> Response {
    let start = std::time::Instant::now();
    loop {
        let response = fixture.get(target);
        if field(&response, "ETag").is_some_and(|tag| tag.starts_with('"')) {
            return response;
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "its tag stays weak");
    }
}

fn ask(site: &Site, method: &str, target: &str, fields: &str) -> Option<Response> {
    let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut request = request();
    request.head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 8192 }).unwrap().unwrap();
    let path = http::path::Path::parse(request.head.path()).unwrap();
    let found = site.find(&path)?;
    Some(site.reply(found, &mut request))
}

fn request() -> Request {
    Request::new(Address::Unix(None), Arc::new(Address::Unix(None)))
}

#[track_caller]
fn bytes(response: &Response) -> &[u8] {
    match &response.body {
        Body::Bytes(bytes) => bytes,
        Body::Shared(bytes) => bytes,
        other => panic!("not in memory: {other:?}"),
    }
}

/// The content as it is sent.
fn content(response: &mut Response) -> Vec<u8> {
    let of_file = |file: &std::os::fd::OwnedFd, offset: u64, length: u64| {
        let start = crate::sys::files::read_start(file, (offset + length) as usize).unwrap();
        assert_eq!(start.len() as u64, offset + length);
        start[offset as usize..].to_vec()
    };
    match &mut response.body {
        Body::Empty => Vec::new(),
        Body::Bytes(bytes) => bytes.to_vec(),
        Body::Shared(bytes) => bytes.to_vec(),
        Body::Reason(text) => text.clone().into_bytes(),
        Body::File { file, offset, length } => of_file(file, *offset, *length),
        Body::Parts(parts) => {
            let (source, length) = (parts.source().clone(), parts.length());
            let mut content = Vec::new();
            while let Some(piece) = parts.next_piece() {
                content.extend_from_slice(piece.before);
                content.extend(match &source {
                    Source::Memory(bytes) => bytes[piece.offset as usize..][..piece.length as usize].to_vec(),
                    Source::File(file) => of_file(file, piece.offset, piece.length),
                });
            }
            assert_eq!(content.len() as u64, length);
            content
        }
        other => panic!("{other:?}"),
    }
}

fn field(response: &Response, name: &str) -> Option<String> {
    let lines = String::from_utf8(response.fields.lines().to_vec()).unwrap();
    lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
}

#[test]
fn a_file_is_sent_with_its_fields() {
    let fixture = Fixture::new().with("a/b c.html", "hello");
    let response = fixture.get("/a/b%20c.html?x=1");
    assert_eq!((response.status.code, bytes(&response)), (200, &b"hello"[..]));
    assert_eq!(field(&response, "Content-Type").unwrap(), "text/html; charset=utf-8");
    assert!(field(&response, "ETag").unwrap().starts_with('"'));
    let date = field(&response, "Last-Modified").unwrap();
    let metadata = fs::metadata(fixture.site.root().join("a/b c.html")).unwrap();
    let modified = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(http::date::parse(date.as_bytes()), Some(modified.as_secs()));
}

#[test]
fn small_files_are_read_and_large_ones_are_left_to_sendfile() {
    let fixture =
        Fixture::new().with("empty", "").with("small", vec![b'x'; 16 * 1024]).with("large", vec![b'x'; 16 * 1024 + 1]);
    assert_eq!(bytes(&fixture.get("/empty")), b"");
    assert_eq!(bytes(&fixture.get("/small")).len(), 16 * 1024);
    let response = fixture.get("/large");
    let Body::File { offset: 0, length: 16385, file } = response.body else { panic!("{response:?}") };
    assert_eq!(crate::sys::files::read_start(&file, 20_000).unwrap().len(), 16385);
}

#[test]
fn head_tells_the_length_and_reads_nothing() {
    let fixture = Fixture::new().with("a.txt", "hello");
    let response = fixture.request("HEAD", "/a.txt", "").unwrap();
    assert!(matches!(response.body, Body::Empty));
    let signature = encode::Signature::new(SystemTime::now(), "");
    let context = encode::Context { head_request: true, minor: 1, keep_alive: true, signature: &signature };
    let mut out = Vec::new();
    encode::head(&mut out, &response.status, &response.fields, encode::Length::Known(0), &context);
    assert!(String::from_utf8(out).unwrap().contains("\r\nContent-Length: 5\r\n"));
}

#[test]
fn a_folder_is_its_index_page() {
    let fixture = Fixture::new()
        .with("index.html", "root")
        .with("one/index.htm", "one")
        .with("two/index.html", "html")
        .with("two/index.htm", "htm")
        .with("none/page.html", "x");
    fs::create_dir_all(fixture.site.root().join("folder/index.html")).unwrap();
    assert_eq!(bytes(&fixture.get("/")), b"root");
    assert_eq!(bytes(&fixture.get("/one/")), b"one");
    assert_eq!(bytes(&fixture.get("/two/")), b"html");
    assert_eq!(field(&fixture.get("/one/"), "Content-Type").unwrap(), "text/html; charset=utf-8");
    for nothing in ["/none/", "/none", "/absent/", "/folder/", "/folder"] {
        assert!(fixture.request("GET", nothing, "").is_none(), "{nothing}");
    }
}

#[test]
fn a_folder_without_its_slash_is_redirected_within_the_origin() {
    let fixture = Fixture::new()
        .with("docs/index.html", "x")
        .with("a/b c/index.html", "x")
        .with("\\evil.example/index.html", "x")
        .with("ü;=@:/index.html", "x")
        .with("%2e/index.html", "x");
    for (target, location) in [
        ("/docs", "/docs/"),
        ("/docs?x=1&y=%20", "/docs/?x=1&y=%20"),
        ("/docs?", "/docs/?"),
        ("/a/../docs", "/docs/"),
        ("/a/b%20c", "/a/b%20c/"),
        ("/\\evil.example", "/%5Cevil.example/"),
        ("/%C3%BC;=@:", "/%C3%BC;=@:/"),
        ("/%252e", "/%252e/"),
        ("http://other.example/docs", "/docs/"),
    ] {
        let response = fixture.get(target);
        assert_eq!(response.status.code, 301, "{target}");
        assert_eq!(field(&response, "Location").unwrap(), location, "{target}");
    }
}

#[test]
fn what_a_site_never_shows_is_not_there() {
    let fixture = Fixture::new()
        .with(".env", "secret")
        .with(".git/config", "secret")
        .with("sub/.hidden/index.html", "secret")
        .with("lib.so", "secret")
        .with("dir.so/index.html", "secret")
        .with(".so", "secret")
        .with("docs/index.html", "x")
        .with("page.html", "x");
    let root = fixture.site.root();
    let outside = fixture.base.path().join("outside.txt");
    fs::write(&outside, "secret").unwrap();
    symlink(&outside, root.join("absolute.txt")).unwrap();
    symlink("../outside.txt", root.join("relative.txt")).unwrap();
    symlink("..", root.join("up")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();

    let long = format!("/{}", "a".repeat(300));
    for target in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git/",
        "/.git",
        "/sub/.hidden/",
        "/lib.so",
        "/lib.s%6f",
        "/dir.so/",
        "/dir.so",
        "/.so",
        "/absolute.txt",
        "/relative.txt",
        "/up",
        "/up/",
        "/fifo",
        "/socket",
        "//docs",
        "//docs/",
        "/docs//",
        "//",
        "/docs/x",
        "/page.html/",
        "/page.html/x",
        "/docs%5C",
        "/PAGE.HTML",
        &long,
    ] {
        assert!(fixture.request("GET", target, "").is_none(), "{target}");
    }
    // That all these were hidden for a reason.
    assert!(fixture.request("GET", "/page.html", "").is_some() && fixture.request("GET", "/docs/", "").is_some());
}

#[test]
fn links_inside_the_site_are_followed() {
    let fixture = Fixture::new().with("real/page.html", "hello").with("real/index.html", "index");
    symlink("real/page.html", fixture.site.root().join("link.html")).unwrap();
    symlink("real", fixture.site.root().join("alias")).unwrap();
    assert_eq!(bytes(&fixture.get("/link.html")), b"hello");
    assert_eq!(bytes(&fixture.get("/alias/")), b"index");
}

#[test]
fn a_client_with_the_current_copy_gets_304() {
    let fixture = Fixture::new().with("a.txt", "hello");
    let first = settled(&fixture, "/a.txt");
    let (tag, date) = (field(&first, "ETag").unwrap(), field(&first, "Last-Modified").unwrap());
    for method in ["GET", "HEAD"] {
        for condition in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
            let response = fixture.request(method, "/a.txt", &condition).unwrap();
            assert_eq!(response.status.code, 304, "{condition}");
            assert!(matches!(response.body, Body::Empty));
            assert_eq!(field(&response, "ETag").as_ref(), Some(&tag), "a 304 repeats the tag");
            assert_eq!(field(&response, "Content-Type"), None);
        }
    }
    let response = fixture.request("GET", "/a.txt", "If-None-Match: \"x\"\r\n").unwrap();
    assert_eq!(response.status.code, 200);
}

#[test]
fn every_change_of_a_file_changes_its_tag() {
    let fixture = Fixture::new().with("a.txt", "hello");
    let path = fixture.site.root().join("a.txt");
    let tag = || field(&settled(&fixture, "/a.txt"), "ETag").unwrap();
    let first = tag();
    assert_eq!(tag(), first, "no change, same tag");

    // Another file of the same size and the same time, renamed into place: only the inode tells.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let other = fixture.site.root().join("b.txt");
    fs::write(&other, "HELLO").unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    fs::rename(&other, &path).unwrap();
    let renamed = tag();
    assert_ne!(renamed, first);

    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified + std::time::Duration::from_nanos(1))
        .unwrap();
    assert_ne!(tag(), renamed);
}

#[test]
fn a_file_from_the_future_has_the_date_of_its_answer() {
    let fixture = Fixture::new().with("a.txt", "hello");
    let file = fs::File::options().write(true).open(fixture.site.root().join("a.txt")).unwrap();
    let now = || std::time::SystemTime::now();
    file.set_modified(now() + std::time::Duration::from_secs(86_400)).unwrap();
    let before = now();
    let told = field(&fixture.get("/a.txt"), "Last-Modified").unwrap();
    let told = httpdate::parse_http_date(&told).unwrap();
    assert!(before.duration_since(told).is_ok_and(|since| since.as_secs() == 0) || (before..=now()).contains(&told));
}

#[test]
fn a_replaced_file_is_seen_at_once_and_a_moved_root_stays_open() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("html")).unwrap();
    fs::write(base.path().join("html/a.txt"), "old").unwrap();
    let site = Site::open(&base.path().join("html")).unwrap();
    fs::rename(base.path().join("html"), base.path().join("moved")).unwrap();
    fs::write(base.path().join("moved/a.txt"), "new").unwrap();
    let found = site.find(&http::path::Path::parse("/a.txt").unwrap()).expect("the held folder is still the site");
    let mut request = request();
    request.head.parse(b"GET /a.txt HTTP/1.0\r\n\r\n", HeadLimits { head_bytes_max: 1024 }).unwrap().unwrap();
    assert_eq!(bytes(&site.reply(found, &mut request)), b"new");
}

#[test]
fn a_missing_folder_is_named_with_the_remedy() {
    let error = Site::open(Path::new("/nonexistent/html")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/html") && error.contains("--html"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(Site::open(file.path()).is_err(), "a file is no site");
}
