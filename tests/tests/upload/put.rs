//! PUT: a file where it is to be, in the place of the one before.

use super::{content, names, read, site, start};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use tests::{Response, Server};

fn put(server: &Server, path: &str, fields: &[(&str, &str)], content: &[u8]) -> Response {
    server.connect().request("PUT", path, fields, content).expect("an answer")
}

#[test]
fn a_file_is_made_and_then_replaced() {
    let site = site();
    let server = start(&site, &[]);
    let large = content(2 << 20);
    let made = put(&server, "/in/a%20b.bin", &[], &large);
    assert_eq!((made.status, made.field("Location"), made.text()), (201, Some("/in/a%20b.bin"), "/in/a%20b.bin\n"));
    assert!(server.get("/in/a%20b.bin").body == large);
    let replaced = put(&server, "/in/a%20b.bin", &[], b"new");
    assert_eq!((replaced.status, replaced.body.len()), (204, 0));
    assert_eq!(server.get("/in/a%20b.bin").text(), "new");
    // Nothing at all is a content, too.
    assert_eq!(put(&server, "/in/empty", &[], b"").status, 201);
    assert_eq!(server.get("/in/empty").text(), "");
    assert_eq!(names(&site, "html/in"), ["a b.bin", "empty"]);
    assert_eq!(server.log().iter().filter(|line| line.contains(" uploaded path=/in/")).count(), 3);
}

#[test]
fn a_tag_in_the_answer_is_the_tag_of_the_file() {
    let site = site();
    let server = start(&site, &[]);
    for status in [201, 204] {
        let response = put(&server, "/in/a", &[], b"hello");
        assert_eq!(response.status, status);
        // Only file systems that tell all changes apart at once have one to give.
        if let Some(tag) = response.field("ETag") {
            assert_eq!(server.get("/in/a").field("ETag"), Some(tag));
            assert!(!tag.starts_with("W/"), "{tag}");
        }
    }
}

#[test]
fn conditions_are_kept() {
    let site = site();
    let server = start(&site, &[]);
    assert_eq!(put(&server, "/in/a", &[("If-Match", "*")], b"0").status, 412, "there is none");
    assert_eq!(put(&server, "/in/a", &[("If-None-Match", "*")], b"1").status, 201);
    assert_eq!(put(&server, "/in/a", &[("If-None-Match", "*")], b"2").status, 412, "there is one");
    // A tag is strong as soon as the file system's clock has moved on.
    let tag = || {
        tests::eventually("a strong tag", tests::PATIENCE, || {
            server.get("/in/a").field("ETag").filter(|tag| !tag.starts_with("W/")).map(str::to_owned)
        })
    };
    let first = tag();
    assert_eq!(put(&server, "/in/a", &[("If-Match", &first)], b"3").status, 204);
    assert_eq!(put(&server, "/in/a", &[("If-Match", &first)], b"4").status, 412);
    assert_eq!(put(&server, "/in/a", &[("If-None-Match", &tag())], b"5").status, 412);
    assert_eq!(put(&server, "/in/a", &[("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")], b"6").status, 412);
    assert_eq!(put(&server, "/in/a", &[("If-Unmodified-Since", "Sun, 06 Nov 2044 08:49:37 GMT")], b"7").status, 204);
    assert_eq!(read(&site, "html/in/a"), b"7");
    assert_eq!(names(&site, "html/in"), ["a"]);
}

#[test]
fn a_condition_that_fails_while_the_content_comes_keeps_it_out() {
    let site = site();
    let server = start(&site, &[]);
    let mut client = server.connect();
    client
        .send(b"PUT /in/a HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\nContent-Length: 4\r\n\r\nsl")
        .expect("it is taken");
    // A request behind it on another connection shows that the head has been seen.
    assert_eq!(put(&server, "/in/a", &[], b"quick").status, 201);
    client.send(b"ow").expect("it is taken");
    assert_eq!(client.response().expect("an answer").status, 412);
    assert_eq!(read(&site, "html/in/a"), b"quick");
    assert_eq!(names(&site, "html/in"), ["a"]);
}

#[test]
fn of_many_who_mean_the_same_state_one_wins() {
    let site = site();
    let server = start(&site, &["--workers", "2", "--threads", "2"]);
    for round in 0..10 {
        let path = format!("/in/{round}");
        let (made, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..8u8 {
                let (server, path, made, refused) = (&server, &path, &made, &refused);
                scope.spawn(move || match put(server, path, &[("If-None-Match", "*")], &[number; 1000]).status {
                    201 => made.fetch_add(1, Ordering::Relaxed),
                    412 => refused.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other}"),
                });
            }
        });
        assert_eq!((made.into_inner(), refused.into_inner()), (1, 7));
    }
    for round in 0..10 {
        let path = format!("/in/{round}");
        let tag = tests::eventually("a strong tag", tests::PATIENCE, || {
            server.get(&path).field("ETag").filter(|tag| !tag.starts_with("W/")).map(str::to_owned)
        });
        let replaced = AtomicUsize::new(0);
        thread::scope(|scope| {
            for number in 0..8u8 {
                let (server, path, tag, replaced) = (&server, &path, &tag, &replaced);
                scope.spawn(move || {
                    let status = put(server, path, &[("If-Match", tag)], &[number; 1000]).status;
                    replaced.fetch_add(usize::from(status == 204), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(replaced.into_inner(), 1, "a lost update");
    }
}

#[test]
fn who_reads_meanwhile_sees_one_file_or_the_other() {
    let site = site();
    let server = start(&site, &["--threads", "2"]);
    let (one, other) = (vec![b'1'; 200_000], vec![b'2'; 100_000]);
    put(&server, "/in/a", &[], &one);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut client = server.connect();
            let mut reads = 0;
            while !over.load(Ordering::Relaxed) {
                let response = client.get("/in/a").expect("an answer");
                assert_eq!(response.status, 200, "there is always one");
                assert!(response.body == one || response.body == other, "it is one of both, as a whole");
                reads += 1;
            }
            reads
        });
        for _ in 0..20 {
            put(&server, "/in/a", &[], &other);
            put(&server, "/in/a", &[], &one);
        }
        over.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("the reader") > 0);
    });
    assert_eq!(names(&site, "html/in"), ["a"]);
}

#[test]
fn targets_that_are_no_file_are_refused() {
    let site = site();
    fs::create_dir(site.path("html/in/folder")).unwrap();
    site.write("outside", "untouched");
    symlink("../../outside", site.path("html/in/link")).unwrap();
    symlink("none", site.path("html/in/dangling")).unwrap();
    let server = start(&site, &[]);
    for (path, fields, status, words) in [
        ("/in/", &[][..], 405, "a folder"),
        ("/in/folder", &[], 405, "a folder"),
        ("/in/folder/", &[], 405, "a folder"),
        ("/in/none/a", &[], 409, "does not exist"),
        ("/in/link", &[], 409, "no file"),
        ("/in/dangling", &[], 409, "no file"),
        ("/in/.hidden", &[], 404, ""),
        ("/in/a.so", &[], 404, ""),
        ("/in/a%0Ab", &[], 400, "control characters"),
        ("/in/%FF", &[], 400, "UTF-8"),
        ("/in/a", &[("Content-Range", "bytes 0-1/5")], 400, "Content-Range"),
        ("/elsewhere", &[], 404, ""),
    ] {
        let refused = put(&server, path, fields, b"x");
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        assert!(refused.text().contains(words), "{path}: {}", refused.text());
    }
    assert_eq!(read(&site, "outside"), b"untouched");
    assert_eq!(names(&site, "html/in"), ["dangling", "folder", "link"]);
}
