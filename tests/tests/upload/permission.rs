//! Who may upload.

use super::{Form, content, names, site, start};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::{PATIENCE, Server, Site};

fn with_token(site: &Site, token: &str) -> Server {
    write_token(site, token);
    start(site, &["--upload-token-file", "token"])
}

fn write_token(site: &Site, token: &str) {
    let path = site.write("token", token);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}

#[test]
fn a_token_is_said_in_the_head_or_first_in_the_form() {
    let site = site();
    let server = with_token(&site, "s3cret\n");
    let bearer = [("Authorization", "Bearer s3cret")];
    assert_eq!(Form::new().file("head", "x").post_with(&server, "/in/", &bearer).status, 201);
    assert_eq!(Form::new().field("token", "s3cret").file("form", "x").post(&server, "/in/").status, 201);
    assert_eq!(server.connect().request("PUT", "/in/put", &bearer, b"x").expect("an answer").status, 201);
    let stored = ["form", "head", "put"];
    assert_eq!(names(&site, "html/in"), stored);

    let none = "Bearer realm=\"uploads\"";
    let wrong = "Bearer realm=\"uploads\", error=\"invalid_token\"";
    for (form, fields, challenge) in [
        (Form::new().file("a", "x"), &[][..], none),
        (Form::new().field("token", "").file("a", "x"), &[], none),
        (Form::new().file("a", "x").field("token", "s3cret"), &[], none),
        (Form::new().field("tokens", "s3cret").file("a", "x"), &[], none),
        (Form::new().field("a", "b"), &[], none),
        (Form::new().field("token", "S3cret").file("a", "x"), &[], wrong),
        (Form::new().field("token", "s3cret2").file("a", "x"), &[], wrong),
        (Form::new().field("token", &"x".repeat(5000)).file("a", "x"), &[], wrong),
        (Form::new().field("token", "s3cret").file("a", "x"), &[("Authorization", "Bearer s3cre")], wrong),
        (Form::new().file("a", "x"), &[("Authorization", "Basic czNjcmV0")], wrong),
    ] {
        let refused = form.post_with(&server, "/in/", fields);
        assert_eq!((refused.status, refused.field("WWW-Authenticate")), (401, Some(challenge)), "{}", refused.text());
    }
    for (fields, challenge) in [(&[][..], none), (&[("Authorization", "Bearer x")], wrong)] {
        let refused = server.connect().request("PUT", "/in/a", fields, b"x").expect("an answer");
        assert_eq!((refused.status, refused.field("WWW-Authenticate")), (401, Some(challenge)));
    }
    assert_eq!(names(&site, "html/in"), stored);
    assert!(!server.log().iter().any(|line| line.contains("s3cret")), "the log does not know it");
}

#[test]
fn who_waits_for_100_continue_is_refused_before_it_sends() {
    let site = site();
    let server = with_token(&site, "s3cret");
    let bearer = "Authorization: Bearer s3cret\r\n";
    let multipart = format!("Content-Type: {}\r\n", super::content_type());
    for (request, fields, status) in [
        ("PUT /in/a", String::new(), 401),
        ("PUT /in/a", "Authorization: Bearer x\r\n".to_owned(), 401),
        ("PUT /in/a", format!("{bearer}Origin: http://evil.example\r\n"), 403),
        ("PUT /in/none/a", bearer.to_owned(), 409),
        ("PUT /none/a", bearer.to_owned(), 404),
        ("PUT /in/a", format!("{bearer}If-Match: *\r\n"), 412),
        ("PUT /in/a", format!("{bearer}Content-Encoding: br\r\n"), 415),
        ("PUT /in/a", format!("{bearer}Content-Range: bytes 0-1/2\r\n"), 400),
        ("POST /in/", format!("{bearer}Content-Type: text/plain\r\n"), 415),
        ("POST /in/", format!("{multipart}Authorization: Bearer x\r\n"), 401),
        ("POST /in/", format!("{multipart}Sec-Fetch-Site: cross-site\r\n"), 403),
    ] {
        let mut client = server.connect();
        let head =
            format!("{request} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 10\r\nExpect: 100-continue\r\n\r\n");
        client.send(head.as_bytes()).expect("it is taken");
        let response = client.response().expect("an answer");
        assert_eq!((response.status, response.closes()), (status, true), "{request} {fields}: {}", response.text());
    }
    let mut client = server.connect();
    client
        .send(
            format!("PUT /in/a HTTP/1.1\r\nHost: a\r\n{bearer}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
                .as_bytes(),
        )
        .expect("it is taken");
    assert_eq!(client.response().expect("an answer").status, 100);
    client.send(b"ok").expect("it is taken");
    assert_eq!(client.response().expect("an answer").status, 201);
    assert_eq!(names(&site, "html/in"), ["a"]);
}

#[test]
fn who_may_not_is_told_so_and_not_that_it_is_too_much() {
    let site = site();
    let server = with_token(&site, "s3cret");
    let mut client = server.connect();
    client.send(b"PUT /in/a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").expect("it is taken");
    let refused = client.response().expect("an answer before the content");
    assert_eq!((refused.status, refused.closes()), (401, true));
}

#[test]
fn pages_of_other_sites_may_not_upload() {
    let site = site();
    let server = start(&site, &[]);
    for fields in [
        &[("Origin", "http://evil.example")][..],
        &[("Origin", "null")],
        &[("Origin", "http://localhost:1234")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
    ] {
        let refused = Form::new().file("a", "x").post_with(&server, "/in/", fields);
        assert_eq!(refused.status, 403, "{fields:?}");
        assert!(refused.text().contains("other sites"), "{}", refused.text());
        let refused = server.connect().request("PUT", "/in/a", fields, b"x").expect("an answer");
        assert_eq!(refused.status, 403, "{fields:?}");
    }
    assert_eq!(names(&site, "html/in"), [""; 0]);
    let own = [("Origin", "http://localhost"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(Form::new().file("a", "x").post_with(&server, "/in/", &own).status, 201);
}

#[test]
fn a_new_token_counts_from_the_reload_on() {
    let site = site();
    let server = with_token(&site, "first");
    write_token(&site, "second");
    let mark = server.mark();
    server.signal(Signal::HUP);
    let line = server.wait_for_log_since(mark, "changed options", PATIENCE);
    assert!(line.ends_with("changed options: upload-token-file") || line.contains("upload-token-file "), "{line}");
    server.wait_for_log_since(mark, "reloaded everything", PATIENCE);
    let form = |token: &str| Form::new().field("token", token).file("a", "x").post(&server, "/in/").status;
    assert_eq!((form("first"), form("second")), (401, 201));
    fs::set_permissions(site.path("token"), fs::Permissions::from_mode(0o644)).expect("our own file");
    let mark = server.mark();
    server.signal(Signal::HUP);
    let line = server.wait_for_log_since(mark, "not reloaded", PATIENCE);
    assert!(line.contains("chmod o-rw"), "{line}");
    assert_eq!(form("second"), 201);
}

#[test]
fn a_server_that_everybody_reaches_says_so() {
    let site = site();
    let mut command =
        site.command(&["--bind", "127.0.0.1:0", "--bind", "0.0.0.0:0", "--runtime", "runtime", "--upload", "/in"]);
    command.args(["--limit-upload", "10M"]);
    let server = Server::start(command);
    server.wait_for_log(
        "warn everybody who reaches 0.0.0.0:0 may upload; --upload-token-file FILE asks for a token",
        PATIENCE,
    );
    server.wait_for_log("  upload /in/  for everybody  up to 10M", PATIENCE);
    let server = with_token(&site, "s3cret");
    server.wait_for_log("  upload /in/  for who has the token  up to 1G", PATIENCE);
    assert!(!server.log().iter().any(|line| line.contains(" warn ")), "{:?}", server.log());
    drop(server);
    // Large content that is refused in the middle.
    let server = with_token(&site, "s3cret");
    let refused = Form::new().field("token", "x").file("a", content(100_000)).post(&server, "/in/");
    assert_eq!(refused.status, 401);
}
