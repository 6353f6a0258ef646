//! The site from outside: what is shown of the files under `--html`, what is not, and who answers what.

mod cached;
mod conditions;
mod ranges;
mod representations;

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use tests::{PATIENCE, Response, Server, Site, cc, eventually, repository};

fn get(server: &Server, path: &str) -> (u16, String) {
    let response = server.get(path);
    (response.status, String::from_utf8_lossy(&response.body).into_owned())
}

/// A module that answers with `MODULE SCRIPT_NAME|PATH_INFO`.
fn module(site: &Site, name: &str) {
    let source = repository().join("tests/tests/site/where.c");
    let out = site.path(&format!("handlers/{name}.so"));
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    cc(&source, &out, &[&format!("-DMODULE=\"{name}\"")]);
}

#[test]
fn a_folder_is_its_index_page_and_is_redirected_to_its_slash() {
    let site = Site::new();
    site.write("html/index.html", "root");
    site.write("html/docs/index.html", "docs");
    site.write("html/old/index.htm", "old");
    site.write("html/both/index.html", "html");
    site.write("html/both/index.htm", "htm");
    site.write("html/bare/page.html", "page");
    site.write("html/sp ace/\u{fc}/index.html", "umlaut");
    let server = site.start(&[]);
    for (path, text) in [("/", "root"), ("/docs/", "docs"), ("/old/", "old"), ("/both/", "html")] {
        assert_eq!(get(&server, path), (200, text.to_owned()), "{path}");
        assert_eq!(server.get(path).field("Content-Type"), Some("text/html; charset=utf-8"), "{path}");
    }
    for (path, location) in [
        ("/docs", "/docs/"),
        ("/docs?a=b&c=%20", "/docs/?a=b&c=%20"),
        ("/docs?", "/docs/?"),
        ("/x/../docs", "/docs/"),
        ("/sp%20ace/%C3%BC", "/sp%20ace/%C3%BC/"),
        ("http://elsewhere.example/docs", "/docs/"),
    ] {
        let response = server.connect().get(path).unwrap();
        assert_eq!((response.status, response.field("Location")), (301, Some(location)), "{path}");
    }
    // Whatever a redirection of ours says leads back to us.
    let mut client = server.connect();
    let location = client.get("/sp%20ace/%C3%BC").unwrap().field("Location").unwrap().to_owned();
    assert_eq!(client.get(&location).unwrap().text(), "umlaut");
    for path in ["/bare", "/bare/", "/docs/nothing", "/index.html/", "/docs/index.html/x", "//", "//docs", "/docs//"] {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
}

#[test]
fn redirections_stay_at_this_server() {
    let site = Site::new();
    site.write("html/\\evil.example/index.html", "x");
    site.write("html/evil.example/index.html", "x");
    site.write("html/a\r\nb/index.html", "x");
    let server = site.start(&[]);
    for (path, location) in [
        ("/\\evil.example", Some("/%5Cevil.example/")),
        ("/%5cevil.example", Some("/%5Cevil.example/")),
        ("//evil.example", None),
        ("///evil.example", None),
        ("/.//evil.example", None),
        ("/x/..//evil.example", None),
        ("/a%0d%0ab", Some("/a%0D%0Ab/")),
    ] {
        let response = server.connect().get(path).unwrap();
        assert_eq!(response.field("Location"), location, "{path}: {}", response.head);
        assert_eq!(response.status, if location.is_some() { 301 } else { 404 }, "{path}");
    }
}

#[test]
fn types_follow_the_name_and_the_unknown_is_bytes() {
    let site = Site::new();
    let server = site.start(&[]);
    for (name, content_type) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("A.JSON", "application/json"),
        ("a.png", "image/png"),
        ("a.wasm", "application/wasm"),
        ("a.unknown", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ] {
        site.write(&format!("html/{name}"), "x");
        assert_eq!(server.get(&format!("/{name}")).field("Content-Type"), Some(content_type), "{name}");
    }
}

/// The response, when its tag is a strong one: some file systems cannot tell every change apart while their clock stands still,
/// and until it has moved on the tag is a weak one, which gives way to another.
fn settled(server: &Server, path: &str) -> Response {
    eventually("a strong tag", PATIENCE, || {
        let response = server.get(path);
        response.field("ETag")?.starts_with('"').then_some(response)
    })
}

fn request(server: &Server, method: &str, fields: &[(&str, &str)]) -> Response {
    server.connect().request(method, "/a.txt", fields, b"").unwrap()
}

#[test]
fn a_client_with_a_current_copy_gets_304_and_a_new_one_after_each_change() {
    let site = Site::new();
    site.write("html/a.txt", "one");
    let server = site.start(&[]);
    let first = settled(&server, "/a.txt");
    let (tag, date) = (first.field("ETag").unwrap(), first.field("Last-Modified").unwrap());
    for method in ["GET", "HEAD"] {
        for condition in [
            ("If-None-Match", tag.to_owned()),
            ("If-None-Match", format!("\"x\", W/{tag}")),
            ("If-None-Match", "*".to_owned()),
            ("If-Modified-Since", date.to_owned()),
            ("If-Modified-Since", "Fri, 31 Dec 2100 00:00:00 GMT".to_owned()),
        ] {
            let response = request(&server, method, &[(condition.0, &condition.1)]);
            assert_eq!((response.status, response.field("ETag")), (304, Some(tag)), "{condition:?}");
            assert_eq!(response.field("Content-Length"), None, "{condition:?}");
        }
        for condition in [
            ("If-None-Match", "\"x\""),
            ("If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"),
            ("If-Modified-Since", "yesterday"),
        ] {
            assert_eq!(request(&server, method, &[condition]).status, 200, "{condition:?}");
        }
        // RFC 9110 §13.1.3: a tag counts more than a date.
        let both = [("If-None-Match", "\"x\""), ("If-Modified-Since", date)];
        assert_eq!(request(&server, method, &both).status, 200);
    }
    let mut tags = vec![tag.to_owned()];
    for change in ["two", "three", "two"] {
        site.write("html/a.txt", change);
        let response = request(&server, "GET", &[("If-None-Match", &tags.join(", "))]);
        assert_eq!((response.status, response.text()), (200, change));
        tags.push(response.field("ETag").unwrap().to_owned());
    }
}

#[test]
fn what_a_site_never_shows_is_not_there() {
    let site = Site::new();
    for name in [
        "html/page.html",
        "html/.env",
        "html/.git/config",
        "html/sub/.hidden/index.html",
        "html/lib.so.txt/index.html",
        "outside.txt",
        "outside/secret.txt",
    ] {
        site.write(name, "secret");
    }
    let html = site.path("html");
    symlink("../outside.txt", html.join("relative.txt")).unwrap();
    symlink(site.path("outside.txt"), html.join("absolute.txt")).unwrap();
    symlink("..", html.join("up")).unwrap();
    symlink(site.path("outside"), html.join("folder")).unwrap();
    symlink("/proc/self/root", html.join("magic")).unwrap();
    symlink("loop", html.join("loop")).unwrap();
    symlink("nowhere", html.join("dangling")).unwrap();
    let _socket = UnixListener::bind(html.join("socket")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(html.join("fifo")).status().unwrap();
    assert!(fifo.success());
    let server = site.start(&[]);
    for path in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git/",
        "/x/../.env",
        "/sub/.hidden/",
        "/sub/.hidden",
        "/relative.txt",
        "/absolute.txt",
        "/up",
        "/up/outside.txt",
        "/folder/secret.txt",
        "/folder/",
        "/magic/etc/hostname",
        "/loop",
        "/dangling",
        "/socket",
        "/fifo",
        "/html/page.html",
        "/%5c..%5coutside.txt",
        "/..%5coutside.txt",
        "/..;/outside.txt",
        "/%252e%252e/outside.txt",
        "/page.html%20",
        "/PAGE.html",
    ] {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
    for path in ["/../outside.txt", "/%2e%2e/outside.txt", "/.%2e/outside.txt", "/a/../../outside.txt"] {
        assert_eq!(get(&server, path).0, 400, "{path}");
    }
    for path in ["/%2e%2e%2foutside.txt", "/page.html%00.txt", "/%00", "/a%2Fb", "/%zz"] {
        assert_eq!(get(&server, path).0, 400, "{path}");
    }
    assert_eq!(get(&server, "/page.html").0, 200);
    assert_eq!(get(&server, "/lib.so.txt/").0, 200, "only the end of a segment counts");
}

#[test]
fn links_inside_the_site_are_followed() {
    let site = Site::new();
    site.write("html/real/page.html", "page");
    site.write("html/real/index.html", "index");
    symlink("real/page.html", site.path("html/link.html")).unwrap();
    symlink("real", site.path("html/alias")).unwrap();
    let server = site.start(&[]);
    assert_eq!(get(&server, "/link.html"), (200, "page".to_owned()));
    assert_eq!(get(&server, "/alias/"), (200, "index".to_owned()));
    assert_eq!(server.connect().get("/alias").unwrap().field("Location"), Some("/alias/"));
}

#[test]
fn the_code_of_a_library_is_never_sent() {
    let site = Site::new();
    for name in ["lib.so", "sub/lib.so", "dir.so/index.html", "a b.so"] {
        site.write(&format!("html/{name}"), "code");
    }
    let server = site.start(&[]);
    for path in
        ["/lib.so", "/lib.so?x", "/lib.s%6f", "/%6cib.so", "/sub/lib.so", "/dir.so/", "/dir.so", "/a%20b.so", "/.so"]
    {
        let response = server.get(path);
        assert_eq!((response.status, response.body == b"code"), (404, false), "{path}");
    }
}

/// Whether this test may do everything, so that no permission can keep it, or a server that it starts, from reading.
fn may_everything() -> bool {
    fs::read_dir("/proc/1/fd").is_ok()
}

#[test]
fn what_the_server_may_not_read_is_forbidden_and_the_server_goes_on() {
    let site = Site::new();
    let path = site.write("html/private.txt", "x");
    site.write("html/a.txt", "a");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let server = site.start(&[]);
    let expected = if may_everything() { 200 } else { 403 };
    assert_eq!(get(&server, "/private.txt").0, expected);
    assert_eq!(get(&server, "/a.txt").0, 200);
}

#[test]
fn files_of_every_size_arrive_to_the_byte() {
    let site = Site::new();
    let server = site.start(&[]);
    let mut client = server.connect();
    for size in [0, 1, 1000, 16 << 10, (16 << 10) + 1, 65_536, 1_000_003, 20 << 20] {
        let content: Vec<u8> = (0..size).map(|at: usize| (at / 5 + at % 241) as u8).collect();
        site.write("html/file.bin", &content);
        let response = client.get("/file.bin").unwrap();
        assert!(response.body == content, "{size} bytes: {} came", response.body.len());
        let head = client.request("HEAD", "/file.bin", &[], b"").unwrap();
        assert_eq!(head.field("Content-Length"), Some(size.to_string().as_str()));
    }
}

#[test]
fn a_file_that_is_deleted_or_replaced_while_it_is_sent_arrives_as_it_was() {
    let site = Site::new();
    let old = vec![b'o'; 32 << 20];
    let path = site.write("html/file.bin", &old);
    let server = site.start(&[]);
    for replace in [true, false] {
        let mut client = server.connect();
        client.send(b"GET /file.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        // The head has come, so the file has been opened.
        client.stream().read_exact(&mut [0; 1]).unwrap();
        if replace {
            let new = site.write("new.bin", vec![b'n'; 32 << 20]);
            fs::rename(new, &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let rest = client.rest().unwrap();
        let byte = if replace { b'o' } else { b'n' };
        let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(rest.len() - head, 32 << 20);
        assert!(rest[head..].iter().all(|its| *its == byte));
    }
    assert_eq!(get(&server, "/file.bin").0, 404);
}

/// The length has been promised, so the connection is aborted: the client must be able to tell.
#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_connection_and_not_the_server() {
    let site = Site::new();
    let path = site.write("html/file.bin", vec![b'x'; 32 << 20]);
    site.write("html/a.txt", "a");
    let server = site.start(&[]);
    let mut client = server.connect();
    client.send(b"GET /file.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.stream().read_exact(&mut [0; 1]).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    let mut received = Vec::new();
    let end = client.stream().read_to_end(&mut received);
    assert!(end.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true), "{end:?}");
    assert!(received.len() < 32 << 20, "{} bytes", received.len());
    assert!(!received.ends_with(b"\r\n\r\na"), "nothing may follow content that is not complete");
    assert_eq!(get(&server, "/a.txt"), (200, "a".to_owned()));
    let response = server.get("/file.bin");
    assert_eq!(response.body.len(), 100);
}

#[test]
fn without_html_there_is_no_site() {
    let site = Site::new();
    site.write("html/index.html", "root");
    module(&site, "app");
    let server = site.start(&["--html", "none"]);
    assert_eq!(get(&server, "/").0, 404);
    assert_eq!(server.connect().request("POST", "/", &[], b"").unwrap().status, 404);
    assert_eq!(get(&server, "/app.so"), (200, "app /app.so|".to_owned()));
    drop(server);
    let server = site.start(&["--html", "none", "app"]);
    assert_eq!(get(&server, "/"), (200, "app |/".to_owned()));
    assert_eq!(get(&server, "/index.html"), (200, "app |/index.html".to_owned()));
}

/// The order: a mount, a segment that ends in `.so`, a file, the root application, nothing.
#[test]
fn the_first_rule_that_matches_answers() {
    let site = Site::new();
    for name in ["root", "one", "two", "admin/deep"] {
        module(&site, name);
    }
    site.write("html/index.html", "page");
    site.write("html/api/index.html", "never");
    site.write("html/one/index.html", "folder");
    site.write("html/apis.txt", "text");
    let server = site.start(&[
        "root",
        "--mount",
        "/api=one",
        "--mount",
        "/api/v2=two:other",
        "--mount",
        "/caf\u{e9}=one",
        "--mount",
        "/missing=nosuch",
    ]);
    for (path, answer) in [
        // Mounts match whole segments, the longest first, before everything else.
        ("/api", "one /api|"),
        ("/api/", "one /api|/"),
        ("/api/x/../y", "one /api|/y"),
        ("/api/two.so", "one /api|/two.so"),
        ("/api/v2", "two:other /api/v2|"),
        ("/api/v2/x?y=z", "two:other /api/v2|/x"),
        ("/api/v20", "one /api|/v20"),
        ("/caf%C3%A9/x", "one /caf\u{e9}|/x"),
        // Then the first segment that ends in .so.
        ("/one.so", "one /one.so|"),
        ("/one.so/", "one /one.so|/"),
        ("/one.so/a/b.so/c?d", "one /one.so|/a/b.so/c"),
        ("/one.so//x", "one /one.so|//x"),
        ("/x/../one.so/y", "one /one.so|/y"),
        ("/admin/deep.so/x", "admin/deep /admin/deep.so|/x"),
        ("/%6fne.so/%41%2542", "one /one.so|/A%42"),
        // Then files.
        ("/", "page"),
        ("/one/", "folder"),
        ("/apis.txt", "text"),
        // Then the root application.
        ("/nothing", "root |/nothing"),
        ("/one.SO", "root |/one.SO"),
        ("/one.so.txt", "root |/one.so.txt"),
        ("/one/nothing", "root |/one/nothing"),
        ("/%2e%2e%2e", "root |/..."),
        ("//x", "root |//x"),
    ] {
        assert_eq!(get(&server, path), (200, answer.to_owned()), "{path}");
    }
    // What is no GET or HEAD goes past the files.
    let mut client = server.connect();
    assert_eq!(client.request("POST", "/apis.txt", &[], b"").unwrap().text(), "root |/apis.txt");
    assert_eq!(client.request("DELETE", "/", &[], b"").unwrap().text(), "root |/");
    for path in ["/nosuch.so", "/a%20b/one.so", "//one.so", "/admin//deep.so", "/.so", "/\u{2d}.so", "/missing/x"] {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
    // A file that appears is shown at once, before the root application.
    site.write("html/nothing", "something");
    assert_eq!(get(&server, "/nothing"), (200, "something".to_owned()));
}

#[test]
fn an_index_page_before_a_root_application_is_told_at_the_start() {
    let site = Site::new();
    module(&site, "root");
    site.write("html/index.html", "page");
    let server = site.start(&["root"]);
    let line = server.wait_for_log("GET / is", PATIENCE);
    for word in ["html/index.html", "root:application", "--html none"] {
        assert!(line.contains(word), "{line}");
    }
}
