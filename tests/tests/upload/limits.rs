//! How much is taken, and what it costs the server.

use super::{Form, content, form_head, names, read, site, start, worker};
use std::fs;
use std::io::Write;
use tests::process::descriptors;
use tests::{PATIENCE, eventually};

#[test]
fn more_than_the_limit_is_413_at_once_if_the_length_tells() {
    let site = site();
    let server = start(&site, &["--limit-upload", "100K", "--limit-body", "10"]);
    let fits = Form::new().file("fits", content(90_000)).end();
    assert_eq!(super::send_form(&mut server.connect(), "/in/", &[], &fits).status, 201, "--limit-body is for handlers");
    for head in [
        form_head("/in/", 200_000),
        "PUT /in/a HTTP/1.1\r\nHost: a\r\nContent-Length: 102401\r\n\r\n".to_owned(),
        "PUT /in/a HTTP/1.1\r\nHost: a\r\nContent-Length: 102401\r\nExpect: 100-continue\r\n\r\n".to_owned(),
    ] {
        let mut client = server.connect();
        client.send(head.as_bytes()).expect("it is taken");
        let refused = client.response().expect("an answer before the content");
        assert_eq!((refused.status, refused.closes()), (413, true));
    }
    let mut client = server.connect();
    client.send(b"PUT /in/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("it is taken");
    // It may be refused, and the connection reset, while it is sent.
    _ = client.send(&[b"19001\r\n".to_vec(), content(0x19001)].concat());
    assert_eq!(client.response().expect("an answer").status, 413);
    assert_eq!(server.connect().request("PUT", "/in/b", &[], &content(102_400)).expect("an answer").status, 201);
    assert_eq!(names(&site, "html/in"), ["b", "fits"]);
}

#[test]
fn a_large_upload_takes_no_memory() {
    const BYTES: usize = 256 << 20;
    let site = site();
    let server = start(&site, &["--threads", "1"]);
    let worker = worker(&server);
    assert_eq!(Form::new().file("warm", content(1 << 20)).post(&server, "/in/").status, 201);
    let before = resident(worker);
    let piece = content(1 << 20);
    let mut most = 0;
    let mut client = server.connect();
    client
        .send(format!("PUT /in/large HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n").as_bytes())
        .expect("it is taken");
    for _ in 0..BYTES / piece.len() {
        client.send(&piece).expect("it is taken");
        most = most.max(resident(worker));
    }
    assert_eq!(client.response().expect("an answer").status, 201);
    assert_eq!(fs::metadata(site.path("html/in/large")).expect("it is there").len(), BYTES as u64);
    assert!(most < before + (8 << 20), "{before} bytes before, {most} during the upload");
}

/// The memory of a process, without that of files which others could have too.
fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a kernel of this century");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn uploads_beyond_what_one_worker_takes_at_a_time_are_asked_to_come_again() {
    const MAX: usize = 128;
    let site = site();
    let server = start(&site, &["--threads", "2"]);
    let head = form_head("/in/", 1000).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let begin = |_| {
        let mut client = server.connect();
        client.send(head.as_bytes()).expect("it is taken");
        assert_eq!(client.response().expect("an answer").status, 100);
        client
    };
    let clients: Vec<_> = (0..MAX).map(begin).collect();
    let refused = Form::new().file("more", "x").post(&server, "/in/");
    assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")));
    drop(clients);
    eventually("there is room again", PATIENCE, || {
        (Form::new().file("more", "x").post(&server, "/in/").status == 201).then_some(())
    });
}

#[test]
fn a_full_disk_is_507_and_nothing_is_left() {
    let site = site();
    let script = "mount -t tmpfs -o size=1m tmpfs html/in && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(tests::server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--upload", "/in"]).current_dir(site.path(""));
    let server = tests::Server::start(command);
    let worker = worker(&server);
    assert_eq!(Form::new().file("first", content(1000)).post(&server, "/in/").status, 201);
    let before = descriptors(worker);
    for _ in 0..3 {
        // What is refused in the middle may find the connection closed.
        let form = Form::new().file("fits", content(1000)).file("a", content(4 << 20)).end();
        let mut client = server.connect();
        client.send(form_head("/in/", form.len()).as_bytes()).expect("it is taken");
        let _sent = client.stream().try_clone().expect("a descriptor").write_all(&form);
        let refused = client.response().expect("an answer");
        assert_eq!((refused.status, refused.text().contains("no room")), (507, true), "{}", refused.text());
        drop(client);
        eventually("the files are closed", PATIENCE, || (descriptors(worker) <= before).then_some(()));
    }
    assert_eq!(server.get("/in/fits").status, 404);
    assert_eq!(server.get("/in/a").status, 404);
    // The room is free again.
    let most = content(900 << 10);
    assert_eq!(server.connect().request("PUT", "/in/b", &[], &most).expect("an answer").status, 201);
    assert!(server.get("/in/b").body == most);
    assert_eq!(server.get("/in/first").body.len(), 1000);
    assert!(server.log().iter().any(|line| line.contains("error an upload failed") && line.contains("no room")));
}

#[test]
fn others_are_served_while_uploads_are_stored() {
    let site = site();
    site.write("html/a.txt", "a");
    let server = start(&site, &["--threads", "1"]);
    let large = content(32 << 20);
    std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..4)
            .map(|number| {
                let (server, large) = (&server, &large);
                scope.spawn(move || Form::new().file(&format!("{number}"), large).post(server, "/in/").status)
            })
            .collect();
        let mut client = server.connect();
        while uploads.iter().any(|upload| !upload.is_finished()) {
            assert_eq!(client.get("/a.txt").expect("an answer").text(), "a");
        }
        uploads.into_iter().for_each(|upload| assert_eq!(upload.join().expect("a client"), 201));
    });
    assert!(read(&site, "html/in/3") == large);
}
