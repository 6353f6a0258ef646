//! `start_response`, `write`, bodies and files.

use crate::{assert_aborted, compile};
use std::net::Shutdown;
use tests::client::Framing;
use tests::{PATIENCE, Response, Server, Site, eventually};

const FILE: &[u8] = b"0123456789abcdef";

fn start(arguments: &[&str]) -> (Site, Server) {
    let site = Site::new();
    let path = site.write("file.txt", FILE);
    compile(&site, "response", &[&format!("-DFILE_PATH=\"{}\"", path.display())]);
    let server = site.start(arguments);
    (site, server)
}

fn get(server: &Server, path: &str) -> Response {
    let mut client = server.connect();
    let response = client.get(&format!("/response.so{path}")).unwrap_or_else(|error| panic!("{path}: {error}"));
    // Whatever the application did: the connection goes on if the response did not say otherwise.
    if !response.closes() {
        assert_eq!(client.get("/response.so/bytes-empty").unwrap().status, 200, "after {path}");
    }
    response
}

#[track_caller]
fn assert_answer(server: &Server, path: &str, status: u16, text: &str) {
    let response = get(server, path);
    assert_eq!((response.status, response.text()), (status, text), "{path}");
}

/// Every body that was given has been closed, once: a second `close` of one would count in the log.
fn assert_balance(server: &Server) {
    let text = eventually("every body is closed", PATIENCE, || {
        let text = get(server, "/balance").text().to_owned();
        let (given, closed) = text.strip_suffix(" closed").unwrap().split_once(" given, ").unwrap();
        (given == closed).then_some(text.clone())
    });
    assert!(!text.starts_with("0 "), "no body was given, so nothing was tested");
    assert!(!server.log().iter().any(|line| line.contains("close was wrong")), "{:#?}", server.log());
}

#[test]
fn a_response_ends_without_a_body() {
    let (_site, server) = start(&[]);
    let response = get(&server, "/null-started");
    assert_eq!((response.status, response.framing), (204, Framing::None));
    let response = get(&server, "/empty");
    assert_eq!((response.status, response.field("Content-Length")), (200, Some("0")));
    for path in ["/bytes-empty", "/bytes-absent"] {
        let response = get(&server, path);
        assert_eq!((response.status, response.field("Content-Length")), (200, Some("0")), "{path}");
    }
    assert_answer(&server, "/bytes-unused", 200, "returned");
}

#[test]
fn an_application_that_does_not_start_its_response_is_answered_500_with_the_reason_in_the_log() {
    let (_site, server) = start(&[]);
    for path in ["/null", "/not-started", "/not-started-own"] {
        let mark = server.mark();
        let response = get(&server, path);
        assert_eq!(response.status, 500, "{path}");
        assert!(response.text().contains("log"), "{}", response.text());
        let line = server.wait_for_log_since(mark, "start_response", PATIENCE);
        assert!(line.contains("response") && line.contains(path), "{line}");
    }
    assert_balance(&server);
}

#[test]
fn start_response_may_wait_for_the_first_next() {
    let (_site, server) = start(&[]);
    assert_answer(&server, "/late-start", 202, "1\n2\n3\n");
    assert_balance(&server);
}

#[test]
fn malformed_heads_are_refused_with_a_reason_and_a_better_one_may_follow() {
    let (_site, server) = start(&[]);
    assert_answer(&server, "/refusals", 200, "0 taken");
    // Statuses, then headers, then a count of headers where there are none.
    const EXPECTED: usize = 16 + 23 + 1;
    let refusals =
        || -> Vec<String> { server.log().into_iter().filter(|line| line.contains("start_response refused")).collect() };
    // The log is read by a thread of its own, a little later.
    let refusals = eventually("each refusal is in the log", PATIENCE, || {
        let refusals = refusals();
        (refusals.len() >= EXPECTED).then_some(refusals)
    });
    assert_eq!(refusals.len(), EXPECTED, "{refusals:#?}");
    for word in ["malformed status", "hop-by-hop", "control character", "Content-Length", "not a header name"] {
        assert!(refusals.iter().any(|line| line.contains(word)), "{word}: {refusals:#?}");
    }
    assert_answer(&server, "/start-twice", 200, "refused");
}

#[test]
fn a_second_start_replaces_a_head_that_has_not_been_sent() {
    let (_site, server) = start(&[]);
    let mark = server.mark();
    let response = get(&server, "/restart");
    assert_eq!((response.status, response.reason.as_str(), response.text()), (418, "Teapot", "again"));
    assert_eq!((response.field("X-Again"), response.field("Content-Type")), (Some("yes"), None));
    let line = server.wait_for_log_since(mark, "something", PATIENCE);
    assert!(line.contains("\\u{1b}[31m went\\nwrong") && line.contains("GET /response.so/restart"), "{line}");
    // One that is wrong changes nothing.
    assert_answer(&server, "/restart-badly", 202, "as before");
}

#[test]
fn a_second_start_aborts_when_the_head_has_been_sent() {
    let (_site, server) = start(&[]);
    for path in ["/restart-after-head", "/restart-while-streaming"] {
        assert_aborted(server.connect().get(&format!("/response.so{path}")));
    }
    assert_balance(&server);
}

/// The host had forgotten that the response of a body that it iterates over had been started.
#[test]
fn a_second_start_without_exc_info_is_refused_while_the_body_is_sent() {
    let (_site, server) = start(&[]);
    assert_answer(&server, "/start-while-streaming", 200, "1\nrefused3\n");
    assert_balance(&server);
}

#[test]
fn what_is_written_comes_before_the_body() {
    let (_site, server) = start(&[]);
    assert_answer(&server, "/write", 200, "written written written and returned");
    assert_answer(&server, "/write-only", 200, "written");
    assert_answer(&server, "/file-after-write", 200, "before 0123456789abcdef");
    // HOST_STATE: within application only.
    assert_answer(&server, "/write-in-next", 200, "-42\n3\n");
    assert_balance(&server);
}

#[test]
fn http_1_0_gets_what_is_written_until_the_end() {
    let (_site, server) = start(&[]);
    for (path, text) in
        [("/write", "written written written and returned"), ("/file-after-write", "before 0123456789abcdef")]
    {
        let mut client = server.connect();
        client.send(format!("GET /response.so{path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes()).unwrap();
        let response = client.response().unwrap();
        assert_eq!((response.text(), response.framing), (text, Framing::Close), "{path}");
    }
    // What cannot be completed does not end as if it were complete.
    let mut client = server.connect();
    client.send(b"GET /response.so/next-fails-later HTTP/1.0\r\n\r\n").unwrap();
    assert_aborted(client.response());
}

#[test]
fn a_body_is_asked_as_often_as_it_says() {
    let (_site, server) = start(&[]);
    for (path, text, framing) in [
        ("/count-0", "", Framing::Length),
        ("/count-1", "1\n", Framing::Length),
        ("/count-3", "1\n2\n3\n", Framing::Chunked),
        ("/count-unknown", "1\n2\n3\n", Framing::Chunked),
        ("/no-close", "1\n2\n3\n", Framing::Chunked),
        ("/exact-own", "1\n2\n3\n", Framing::Length),
    ] {
        let response = get(&server, path);
        assert_eq!((response.status, response.text(), response.framing), (200, text, framing), "{path}");
    }
    // The head waits for the first byte.
    let response = get(&server, "/empty-chunks");
    assert_eq!((response.status, response.text()), (200, ""));
    assert_balance(&server);
}

#[test]
fn a_body_that_fails_is_a_500_before_the_head_and_an_abort_after_it() {
    let (_site, server) = start(&[]);
    for path in ["/next-fails", "/next-reserved", "/no-next"] {
        let mark = server.mark();
        assert_eq!(get(&server, path).status, 500, "{path}");
        server.wait_for_log_since(mark, "next failed", PATIENCE);
    }
    for path in ["/next-fails-later", "/next-reserved-later", "/write-and-fail"] {
        let mark = server.mark();
        let mut client = server.connect();
        // A request behind it must not be answered in its place.
        let request = format!("GET /response.so{path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(2);
        client.send(request.as_bytes()).unwrap();
        assert_aborted(client.response());
        server.wait_for_log_since(mark, "next failed", PATIENCE);
    }
    assert_balance(&server);
}

#[test]
fn what_is_no_body_is_a_500_and_is_not_called() {
    let (_site, server) = start(&[]);
    assert_eq!(get(&server, "/no-body").status, 500);
    server.wait_for_log("a body that is none", PATIENCE);
}

#[test]
fn content_is_as_long_as_the_header_says_or_the_client_can_tell() {
    let (_site, server) = start(&[]);
    assert_answer(&server, "/too-long", 200, "hello");
    assert_answer(&server, "/too-long-own", 200, "1\n2");
    for path in ["/too-short", "/too-short-own"] {
        let mut client = server.connect();
        client.send(format!("GET /response.so{path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(2).as_bytes()).unwrap();
        assert_aborted(client.response());
    }
    // HOST_TOO_LARGE, which is final.
    assert_answer(&server, "/write-too-much", 200, "hello");
    server.wait_for_log("write answered -3, then -3", PATIENCE);
    assert_balance(&server);
}

#[test]
fn a_module_may_iterate_over_a_body_of_the_host() {
    let (_site, server) = start(&[]);
    let response = get(&server, "/middleware");
    assert_eq!((response.text(), response.framing), ("from the host", Framing::Length));
    assert_answer(&server, "/middleware-first-chunk", 200, "taken by the module");
    assert_answer(&server, "/file-in-middleware?2,5", 200, "23456");
    assert_balance(&server);
}

#[test]
fn a_file_is_sent_in_part_or_whole_and_never_past_its_end() {
    let (_site, server) = start(&[]);
    for (query, text) in [
        ("", "0123456789abcdef"),
        ("4", "456789abcdef"),
        ("4,3", "456"),
        ("0,0", ""),
        ("16,1", ""),
        ("1000000,5", ""),
        ("10,1000", "abcdef"),
        ("18446744073709551615,18446744073709551615", ""),
    ] {
        let response = get(&server, &format!("/file?{query}"));
        let length = text.len().to_string();
        assert_eq!(
            (response.status, response.text(), response.field("Content-Length")),
            (200, text, Some(length.as_str())),
            "{query}"
        );
    }
    assert_answer(&server, "/file-with-length?3,5", 200, "34567");
    assert_answer(&server, "/file-with-length?3", 200, "34567");
    assert_aborted(server.connect().get("/response.so/file-with-length?13"));
    let head = server.connect().request("HEAD", "/response.so/file?4", &[], b"").unwrap();
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("12")));
}

#[test]
fn a_descriptor_that_is_no_readable_file_is_a_500() {
    let (_site, server) = start(&[]);
    for (kind, reason) in [
        ("negative", "descriptor -1"),
        ("closed", "not open"),
        ("folder", "regular file"),
        ("device", "regular file"),
        ("write-only", "for reading"),
        ("path-only", "for reading"),
    ] {
        let mark = server.mark();
        assert_eq!(get(&server, &format!("/bad-file/{kind}")).status, 500, "{kind}");
        let line = server.wait_for_log_since(mark, "file was given", PATIENCE);
        assert!(line.contains(reason), "{kind}: {line}");
    }
}

#[test]
fn the_descriptor_of_a_file_is_closed_whatever_becomes_of_it() {
    let (_site, server) = start(&["--threads", "1"]);
    let worker = tests::children(server.id()).remove(0).id;
    assert_eq!(get(&server, "/file").status, 200);
    let before = tests::process::descriptors(worker).unwrap();
    for _ in 0..20 {
        for path in ["/file", "/file?16", "/file-in-middleware", "/bad-file/folder", "/bad-file/write-only"] {
            get(&server, path);
        }
        server.connect().request("HEAD", "/response.so/file", &[], b"").unwrap();
    }
    eventually("no descriptor is left open", PATIENCE, || {
        (tests::process::descriptors(worker)? <= before).then_some(())
    });
}

#[test]
fn head_closes_a_body_without_asking_for_all_of_it() {
    let (_site, server) = start(&[]);
    let mut client = server.connect();
    for path in ["/endless", "/count-unknown", "/write", "/write-much", "/count-1", "/exact-own", "/file"] {
        let response = client.request("HEAD", &format!("/response.so{path}"), &[], b"").unwrap();
        assert_eq!((response.status, response.closes()), (200, false), "{path}");
    }
    assert_eq!(client.get("/response.so/count-1").unwrap().text(), "1\n");
    assert_balance(&server);
}

#[test]
fn a_body_is_closed_also_when_the_client_leaves() {
    let (_site, server) = start(&[]);
    for path in ["/endless", "/slow", "/count-unknown", "/write-much"] {
        for how in [Shutdown::Both, Shutdown::Write] {
            let mut client = server.connect();
            client.send(format!("GET /response.so{path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            // The response has begun, and much of it is still to come.
            std::io::Read::read_exact(&mut client.stream(), &mut [0; 100]).unwrap();
            client.stream().shutdown(how).unwrap();
        }
    }
    assert_balance(&server);
}

#[test]
fn write_tells_that_the_client_has_left_or_takes_nothing() {
    let (_site, server) = start(&["--timeout-write", "300ms"]);
    // HOST_TIMEOUT, and then for ever.
    let mut client = server.connect();
    client.send(b"GET /response.so/write-much HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.wait_for_log("write answered -2, then -2", PATIENCE);
    assert_aborted(client.response());
    // HOST_GONE likewise.
    let mut client = server.connect();
    client.send(b"GET /response.so/write-much HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::io::Read::read_exact(&mut client.stream(), &mut [0; 100]).unwrap();
    drop(client);
    server.wait_for_log("write answered -1, then -1", PATIENCE);
    assert_balance(&server);
}

#[test]
fn a_stream_that_makes_its_chunks_slowly_lets_others_have_their_turn() {
    let (site, server) = start(&["--threads", "1"]);
    site.write("html/a.txt", "a");
    let mut slow = server.connect();
    slow.send(b"GET /response.so/slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::io::Read::read_exact(&mut slow.stream(), &mut [0; 1]).unwrap();
    assert_eq!(server.get("/a.txt").text(), "a");
    // The stream goes on, so the answer came in between.
    slow.stream().set_nonblocking(true).unwrap();
    let mut rest = Vec::new();
    let end = std::io::Read::read_to_end(&mut slow.stream(), &mut rest).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "the stream had its end first");
}

#[test]
fn errors_become_lines_of_the_log_and_cannot_forge_one() {
    let (_site, server) = start(&[]);
    assert_answer(&server, "/errors", 200, "logged");
    let line = server.wait_for_log("first", PATIENCE);
    assert!(line.contains("response") && line.contains("first \\u{1b}[31mline"), "{line}");
    assert!(line.contains("GET /response.so/errors"), "{line}");
    server.wait_for_log("second \\xff line", PATIENCE);
    let line = server.wait_for_log("error fake", PATIENCE);
    assert!(!line.starts_with("2026 error fake"), "{line}");
}

#[test]
fn memory_of_the_request_is_aligned_and_refused_when_there_is_none() {
    let (_site, server) = start(&[]);
    assert_answer(&server, "/alloc", 200, "0 wrong");
    assert_answer(&server, "/extension", 200, "nothing");
}
