//! What is refused, with which words, and that nothing is left of it.

use super::{BOUNDARY, Form, content, content_type, form_head, names, send_form, site, start};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::process::descriptors;
use tests::{PATIENCE, eventually};

#[test]
fn forms_that_are_none_are_refused_in_words() {
    let site = site();
    let server = start(&site, &[]);
    let whole = Form::new().file("a", "x").end();
    let last = whole.len() - format!("--{BOUNDARY}--\r\n").len();
    let content_type = content_type();
    for (content_type, content, status, words) in [
        ("multipart/form-data", &whole[..], 400, "no boundary"),
        ("multipart/form-data; boundary=\"\"", &whole, 400, "the boundary must be"),
        ("multipart/form-data; boundary=other", &whole, 400, "no boundary in it"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "multipart/form-data"),
        ("text/plain", b"hello", 415, "multipart/form-data"),
        (&content_type, b"", 400, "empty"),
        (&content_type, b"garbage", 400, "no boundary in it"),
        (&content_type, &whole[..last], 400, "ends before its last boundary"),
        (&content_type, &whole[..20], 400, "no boundary in it"),
        (&content_type, &Form::new().field("a", "b").end(), 400, "no file was chosen"),
        (&content_type, &Form::new().file("", "").end(), 400, "no file was chosen"),
        (&content_type, &Form::new().end(), 400, "no file was chosen"),
        (&content_type, &Form::new().file("", "content").end(), 400, "a file has no name"),
        (&content_type, &Form::new().file("good", "x").part("form-data", b"x").end(), 400, "no name"),
    ] {
        let fields = [("Content-Type", content_type)];
        let response = server.connect().request("POST", "/in/", &fields, content).expect("an answer");
        assert_eq!(response.status, status, "{content_type} {}", String::from_utf8_lossy(content));
        assert!(response.text().contains(words), "{words}: {}", response.text());
    }
    // A field for files that was left empty beside one that was not.
    assert_eq!(Form::new().file("", "").file("a", "x").post(&server, "/in/").status, 201);
    assert_eq!(names(&site, "html/in"), ["a"]);
}

#[test]
fn content_that_is_encoded_is_refused() {
    let site = site();
    let server = start(&site, &[]);
    for (method, path) in [("POST", "/in/"), ("PUT", "/in/a")] {
        let fields = [("Content-Type", content_type()), ("Content-Encoding", "gzip".to_owned())];
        let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
        let response = server.connect().request(method, path, &fields, b"x").expect("an answer");
        assert_eq!((response.status, response.text().contains("Content-Encoding")), (415, true), "{method}");
    }
    assert_eq!(Form::new().file("a", "x").post_with(&server, "/in/", &[("Content-Encoding", "identity")]).status, 201);
}

#[test]
fn one_bad_file_keeps_all_of_its_form_out() {
    let site = site();
    let server = start(&site, &[]);
    let large = content(1 << 20);
    let response = Form::new().file("a", &large).file("b", &large).file(".c", "").post(&server, "/in/");
    assert_eq!(response.status, 400);
    let many = (0..49).fold(Form::new(), |form, number| form.file(&number.to_string(), "x"));
    let response = many.post(&server, "/in/");
    assert_eq!((response.status, response.text().contains("48 files")), (413, true), "{}", response.text());
    assert_eq!(names(&site, "html/in"), [""; 0]);
    let many = (0..48).fold(Form::new(), |form, number| form.file(&number.to_string(), "x"));
    assert_eq!(many.post(&server, "/in/").status, 201);
    assert_eq!(names(&site, "html/in").len(), 48);
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let site = site();
    let server = start(&site, &[]);
    let before = descriptors(super::worker(&server));
    let form = Form::new().file("a", content(2 << 20)).end();
    for (method, head) in [
        ("POST", form_head("/in/", form.len())),
        ("PUT", format!("PUT /in/b HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", form.len())),
    ] {
        for end in [0, 1, 100, 300_000, form.len() - 1] {
            let mut client = server.connect();
            client.send(head.as_bytes()).expect("it is taken");
            client.send(&form[..end]).expect("it is taken");
            client.finish().expect("it is open");
            assert_eq!(client.rest().expect("an end").len(), 0, "{method} {end}");
        }
    }
    let worker = super::worker(&server);
    eventually("the files are closed", PATIENCE, || (descriptors(worker) <= before).then_some(()));
    assert_eq!(names(&site, "html/in"), [""; 0]);
}

#[test]
fn slow_content_is_taken_and_content_that_stops_is_timed_out() {
    let site = site();
    let server = start(&site, &["--timeout-body", "500ms"]);
    let form = Form::new().file("slow", "hello").end();
    let mut client = server.connect();
    client.send(form_head("/in/", form.len()).as_bytes()).expect("it is taken");
    for byte in form.chunks(5) {
        client.send(byte).expect("it is taken");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(client.response().expect("an answer").status, 201);
    let mut client = server.connect();
    client.send(form_head("/in/", form.len() + 1).as_bytes()).expect("it is taken");
    client.send(&form).expect("it is taken");
    let late = client.response().expect("an answer");
    assert_eq!((late.status, late.closes()), (408, true));
    assert_eq!(names(&site, "html/in"), ["slow"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_in_words() {
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere; what refuses it too is a file system that is mounted read-only.
        let site = site();
        let script = "mount -t tmpfs -o ro tmpfs html/in && exec \"$@\"";
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(tests::server::binary());
        command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--upload", "/in"]).current_dir(site.path(""));
        let server = tests::Server::start(command);
        server.wait_for_log("the server may not write to that folder", PATIENCE);
        let response = Form::new().file("a", "x").post(&server, "/in/");
        assert_eq!((response.status, response.text().contains("read-only")), (403, true), "{}", response.text());
        return;
    }
    let site = site();
    let server = start(&site, &[]);
    fs::set_permissions(site.path("html/in"), fs::Permissions::from_mode(0o555)).expect("our own folder");
    let response = Form::new().file("a", "x").post(&server, "/in/");
    assert_eq!((response.status, response.text().contains("may not write")), (403, true), "{}", response.text());
}

#[test]
fn a_folder_that_may_not_be_read_takes_files_all_the_same() {
    let site = site();
    fs::set_permissions(site.path("html/in"), fs::Permissions::from_mode(0o300)).expect("our own folder");
    let server = start(&site, &[]);
    assert_eq!(Form::new().file("a", "x").post(&server, "/in/").status, 201);
    assert_eq!(server.get("/in/a").text(), "x");
    fs::set_permissions(site.path("html/in"), fs::Permissions::from_mode(0o700)).expect("our own folder");
}

#[test]
fn stored_files_are_never_executable_and_obey_the_mask() {
    let site = site();
    let script = "umask 027; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh"]).arg(tests::server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--upload", "/in"]).current_dir(site.path(""));
    let server = tests::Server::start(command);
    assert_eq!(Form::new().file("a.sh", "#!/bin/sh\n").post(&server, "/in/").status, 201);
    assert_eq!(server.connect().request("PUT", "/in/b.sh", &[], b"#!/bin/sh\n").expect("an answer").status, 201);
    site.write("html/in/c.sh", "old");
    fs::set_permissions(site.path("html/in/c.sh"), fs::Permissions::from_mode(0o755)).expect("our own file");
    assert_eq!(server.connect().request("PUT", "/in/c.sh", &[], b"new").expect("an answer").status, 204);
    for name in ["a.sh", "b.sh", "c.sh"] {
        let mode = fs::metadata(site.path("html/in").join(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o640, "{name}");
    }
}

#[test]
fn a_connection_lives_on_after_a_refusal_whose_content_was_small() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    let response = send_form(&mut client, "/in/none/", &[], &Form::new().file("a", "x").end());
    assert_eq!((response.status, response.closes()), (404, false));
    assert_eq!(send_form(&mut client, "/in/", &[], &Form::new().file(".a", "x").end()).status, 400);
    assert_eq!(send_form(&mut client, "/in/", &[], &Form::new().file("a", "x").end()).status, 201);
}
