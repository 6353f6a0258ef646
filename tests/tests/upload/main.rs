//! Uploads: what is stored, under which names, for whom, and that nothing is ever there by halves.

mod folders;
mod handover;
mod limits;
mod losses;
mod names;
mod permission;
mod put;
mod refusals;

use std::fs;
use tests::{Client, PATIENCE, Response, Server, Site, children, eventually};

/// A form, as browsers send it.
struct Form(Vec<u8>);

const BOUNDARY: &str = "----FormBoundaryhQ1Zk";

impl Form {
    fn new() -> Form {
        Form(Vec::new())
    }

    fn field(self, name: &str, value: &str) -> Form {
        self.part(&format!("form-data; name=\"{name}\""), value.as_bytes())
    }

    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Form {
        self.part(&format!("form-data; name=\"file\"; filename=\"{name}\""), content.as_ref())
    }

    fn part(mut self, disposition: &str, content: &[u8]) -> Form {
        self.0.extend(format!("--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n").into_bytes());
        self.0.extend(content);
        self.0.extend(b"\r\n");
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        self.0
    }

    /// Sends it over a connection of its own.
    fn post(self, server: &Server, path: &str) -> Response {
        self.post_with(server, path, &[])
    }

    fn post_with(self, server: &Server, path: &str, fields: &[(&str, &str)]) -> Response {
        send_form(&mut server.connect(), path, fields, &self.end())
    }
}

fn content_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

fn send_form(client: &mut Client, path: &str, fields: &[(&str, &str)], content: &[u8]) -> Response {
    let content_type = content_type();
    let fields = [fields, &[("Content-Type", content_type.as_str())]].concat();
    client.request("POST", path, &fields, content).expect("an answer")
}

/// The head of a form with so many bytes of content, as a client sends it that sends the content bit by bit.
fn form_head(path: &str, bytes: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nContent-Length: {bytes}\r\n\r\n", content_type())
}

/// A site with the folder `html/in`, which takes uploads.
fn site() -> Site {
    let site = Site::new();
    fs::create_dir(site.path("html/in")).expect("a new folder");
    site
}

fn start(site: &Site, arguments: &[&str]) -> Server {
    site.start(&[&["--upload", "/in"], arguments].concat())
}

/// What is in a folder of the site's, hidden or not.
fn names(site: &Site, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(site.path(folder)).expect("the folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn read(site: &Site, name: &str) -> Vec<u8> {
    fs::read(site.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The worker; it may just be starting.
fn worker(server: &Server) -> u32 {
    eventually("there is a worker", PATIENCE, || {
        children(server.id()).into_iter().find(|child| child.command == "host: worker").map(|child| child.id)
    })
}

/// Bytes in which every mistake of place or order shows.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(8))
        .flat_map(|word| (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(bytes)
        .collect()
}

#[test]
fn a_form_stores_its_files_and_the_site_shows_them() {
    let site = site();
    let server = start(&site, &["--trace"]);
    let large = content(3 << 20);
    let stored =
        Form::new().field("comment", "ignored").file("a.txt", "hello").file("b c.bin", &large).post(&server, "/in/");
    assert_eq!((stored.status, stored.text()), (201, "stored a.txt, 5 bytes\nstored b c.bin, 3145728 bytes\n"));
    assert_eq!(stored.field("Location"), None, "there are two");
    assert_eq!(names(&site, "html/in"), ["a.txt", "b c.bin"]);
    assert!(read(&site, "html/in/b c.bin") == large);
    assert_eq!(server.get("/in/a.txt").text(), "hello");
    assert!(server.get("/in/b%20c.bin").body == large);
    let one = Form::new().file("b c.bin", "").post(&server, "/in/");
    assert_eq!((one.status, one.field("Location")), (201, Some("/in/b%20c_1.bin")));
    assert_eq!(one.text(), "stored b c_1.bin, 0 bytes: the name b c.bin was taken\n");
    assert_eq!(server.get("/in/b%20c_1.bin").text(), "");
    let line = server.log().into_iter().find(|line| line.contains("uploaded path=/in/a.txt")).expect("a line");
    assert!(line.contains(" bytes=5 client=127.0.0.1:"), "{line}");
}

#[test]
fn a_connection_takes_upload_after_upload_however_the_content_is_framed() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    for number in 0..20 {
        let name = format!("{number}.bin");
        let bytes = content(number * 60_000);
        let form = Form::new().file(&name, &bytes).end();
        let response = if number % 2 == 0 {
            send_form(&mut client, "/in/", &[], &form)
        } else {
            let head = format!(
                "POST /in/ HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
                content_type()
            );
            client.send(head.as_bytes()).expect("it is taken");
            for chunk in form.chunks(10_007) {
                client
                    .send(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
                    .expect("it is taken");
            }
            client.send(b"0\r\n\r\n").expect("it is taken");
            client.response().expect("an answer")
        };
        assert_eq!(response.status, 201, "{}", response.text());
        assert!(read(&site, &format!("html/in/{name}")) == bytes, "{number}");
    }
    assert_eq!(names(&site, "html/in").len(), 20);
}

#[test]
fn two_forms_in_one_write_are_two_uploads() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    let one = |name: &str| {
        let form = Form::new().file(name, name).end();
        [form_head("/in/", form.len()).into_bytes(), form].concat()
    };
    client
        .send(&[one("a"), one("b"), b"GET /in/a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat())
        .expect("it is taken");
    assert_eq!(client.response().expect("an answer").field("Location"), Some("/in/a"));
    assert_eq!(client.response().expect("an answer").field("Location"), Some("/in/b"));
    assert_eq!(client.response().expect("an answer").text(), "a");
}

#[test]
fn browsers_get_a_page_that_leads_back_to_the_folder_and_to_nowhere_else() {
    let site = site();
    let server = start(&site, &[]);
    let fields = [("Accept", "text/html,*/*;q=0.8"), ("Referer", "http://evil.example/")];
    let page = Form::new().file("<b>&quot;'.txt", "x").post_with(&server, "/in/", &fields);
    assert_eq!((page.status, page.field("Content-Type")), (201, Some("text/html; charset=utf-8")));
    let text = page.text();
    assert!(text.contains("<a href=\"/in/\">"), "{text}");
    assert!(text.contains("&lt;b&gt;&amp;quot;") && !text.contains("<b>") && !text.contains("evil"), "{text}");
    let refused = Form::new().file(".hidden", "x").post_with(&server, "/in/", &fields);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("must not begin with a dot"), "{}", refused.text());
    assert!(refused.text().contains("<a href=\"/in/\">") && !refused.text().contains("evil"));
}

#[test]
fn folders_below_a_prefix_take_uploads_and_others_do_not() {
    let site = site();
    site.write("html/in/deep/er/x", "");
    site.write("html/other/x", "");
    site.write("html/index-in/x", "");
    let server = start(&site, &[]);
    assert_eq!(Form::new().file("a", "1").post(&server, "/in/deep/er/").field("Location"), Some("/in/deep/er/a"));
    for (path, status) in [
        ("/", 404),
        ("/other/", 404),
        ("/index-in/", 404),
        ("/in/none/", 404),
        ("/in/deep/er/x", 405),
        ("/in/../other/", 404),
        ("/in//", 404),
        ("/in/.git/", 404),
    ] {
        let refused = Form::new().file("a", "1").post(&server, path);
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
    }
    let redirected = Form::new().file("a", "1").post(&server, "/in/deep");
    assert_eq!((redirected.status, redirected.field("Location")), (308, Some("/in/deep/")));
    assert_eq!(names(&site, "html/other"), ["x"]);
    // Without --upload there is no such thing.
    let server = site.start(&[]);
    assert_eq!(Form::new().file("a", "1").post(&server, "/in/").status, 404);
}

#[test]
fn the_whole_site_takes_uploads_and_an_application_answers_the_rest() {
    let site = Site::new();
    site.compile(
        "app",
        r#"#include "host.h"
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR("the application"));
        }"#,
    );
    fs::create_dir(site.path("html/in")).expect("a new folder");
    let server = site.start(&["--upload", "/", "--mount", "/in/mounted=app", "app"]);
    for (path, location) in [("/", "/a"), ("/in/", "/in/a")] {
        assert_eq!(Form::new().file("a", "1").post(&server, path).field("Location"), Some(location));
    }
    for path in ["/api/", "/api", "/in/mounted/", "/in/mounted", "/app.so", "/app.so/in/", "/in/none/"] {
        assert_eq!(Form::new().file("a", "1").post(&server, path).text(), "the application", "{path}");
    }
    let mut client = server.connect();
    for (method, path) in [("PUT", "/api/x"), ("DELETE", "/in/a"), ("PATCH", "/in/"), ("GET", "/none")] {
        assert_eq!(
            client.request(method, path, &[], b"").expect("an answer").text(),
            "the application",
            "{method} {path}"
        );
    }
    assert_eq!(client.request("PUT", "/in/b", &[], b"1").expect("an answer").status, 201);
}

#[test]
fn what_can_be_done_with_a_target_is_told() {
    let site = site();
    site.write("html/in/a", "");
    site.write("html/b", "");
    let server = start(&site, &[]);
    let mut client = server.connect();
    for (method, path, status, allow) in [
        ("OPTIONS", "/in/", 204, "GET, HEAD, OPTIONS, POST"),
        ("OPTIONS", "/in", 204, "GET, HEAD, OPTIONS, POST"),
        ("OPTIONS", "/in/a", 204, "GET, HEAD, OPTIONS, PUT"),
        ("OPTIONS", "/in/new", 204, "GET, HEAD, OPTIONS, PUT"),
        ("DELETE", "/in/", 405, "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/in/a", 405, "GET, HEAD, OPTIONS, PUT"),
        ("POST", "/in/a", 405, "GET, HEAD, OPTIONS, PUT"),
        ("PUT", "/in/", 405, "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/in", 405, "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/b", 405, "GET, HEAD, OPTIONS"),
    ] {
        let response = client.request(method, path, &[], b"").expect("an answer");
        assert_eq!((response.status, response.field("Allow")), (status, Some(allow)), "{method} {path}");
    }
}
