//! Sizes, numbers and time-outs.

use crate::{assert_aborted, assert_closed, last_response, pages, pages_and_mirror};
use std::time::Duration;
use tests::{PATIENCE, Server, Site, eventually};

/// A request with a request line and fields of exactly `length` bytes together.
fn head_of(length: usize) -> Vec<u8> {
    let start = "GET /a.txt HTTP/1.1\r\nHost: a\r\nX: ";
    let end = "\r\n\r\n";
    format!("{start}{}{end}", "x".repeat(length - start.len() - end.len())).into_bytes()
}

#[test]
fn a_head_may_be_as_large_as_the_limit_and_no_larger() {
    let site = pages();
    for (limit, bytes) in [("32K", 32 << 10), ("2000", 2000)] {
        let server = site.start(&["--limit-head", limit]);
        let mut client = server.connect();
        client.send(&head_of(bytes)).unwrap();
        assert_eq!(client.response().unwrap().text(), "a", "{limit}");
        let response = last_response(&server, &head_of(bytes + 1));
        assert_eq!(response.status, 431, "{limit}");
        assert!(response.text().contains("header fields"), "{}", response.text());
        // Without an end, too.
        assert_eq!(last_response(&server, &head_of(bytes * 3)[..bytes * 2]).status, 431, "{limit}");
    }
}

#[test]
fn a_request_line_that_leaves_no_room_for_fields_is_too_long() {
    let site = pages();
    let server = site.start(&["--limit-head", "1K"]);
    let target = "a".repeat(600);
    let response = last_response(&server, format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert_eq!(response.status, 414);
    // Without an end, too.
    assert_eq!(last_response(&server, format!("GET /{target}").as_bytes()).status, 414);
}

#[test]
fn a_hundred_fields_are_enough() {
    let site = pages();
    let server = site.start(&[]);
    let request = |fields: usize| {
        let fields: String = (1..fields).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET /a.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    let mut client = server.connect();
    client.send(request(100).as_bytes()).unwrap();
    assert_eq!(client.response().unwrap().text(), "a");
    let response = last_response(&server, request(101).as_bytes());
    assert!(response.status == 431 && response.text().contains("100"), "{}", response.text());
}

#[test]
fn content_may_be_as_large_as_the_limit_and_no_larger() {
    let site = pages_and_mirror();
    let server = site.start(&["--limit-body", "1000"]);
    let mut client = server.connect();
    let chunked = |sizes: &[usize]| {
        let chunks: String = sizes.iter().map(|&size| format!("{size:x}\r\n{}\r\n", "x".repeat(size))).collect();
        format!("POST /mirror.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    assert_eq!(client.request("POST", "/mirror.so", &[], &[b'x'; 1000]).unwrap().body.len(), 1000);
    for sizes in [&[1000][..], &[999, 1], &[10; 100]] {
        client.send(chunked(sizes).as_bytes()).unwrap();
        assert_eq!(client.response().unwrap().body.len(), 1000, "{sizes:?}");
    }
    for sizes in [&[1001][..], &[1000, 1], &[10; 101]] {
        assert_eq!(last_response(&server, chunked(sizes).as_bytes()).status, 413, "{sizes:?}");
    }
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001));
    let response = last_response(&server, text.as_bytes());
    assert!(response.status == 413 && response.text().contains("larger"), "{}", response.text());
}

#[test]
fn extensions_and_trailers_are_not_endless() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let start = "POST /mirror.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for endless in [format!("1;{}", "x".repeat(20_000)), format!("0\r\n{}", "X: y\r\n".repeat(4000))] {
        assert_eq!(last_response(&server, format!("{start}{endless}").as_bytes()).status, 431);
    }
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_answered_408() {
    let site = pages();
    let server = site.start(&["--timeout-head", "200ms"]);
    let response = last_response(&server, b"GET /a.txt HTTP/1.1\r\nHost:");
    assert!(response.status == 408 && response.text().contains("head"), "{}", response.text());
    // Bytes that trickle in do not prolong it.
    let mut client = server.connect();
    let response = eventually("an answer to a head without end", PATIENCE, || {
        // Sending fails once the server has closed; the answer is there all the same.
        let _ = client.send(b"X");
        client.stream().set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
        client.response().ok()
    });
    assert_eq!(response.status, if response.text().contains("head") { 408 } else { 501 }, "{}", response.text());
}

#[test]
fn content_that_does_not_arrive_in_time_is_answered_408() {
    let site = pages_and_mirror();
    let server = site.start(&["--timeout-body", "200ms"]);
    let response = last_response(&server, b"POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    assert!(response.status == 408 && response.text().contains("content"), "{}", response.text());
    let chunked = b"POST /mirror.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n";
    assert_eq!(last_response(&server, chunked).status, 408);
}

/// Nothing has been asked, so there is nothing to answer (RFC 9110 §15.5.9 speaks of a request that is incomplete).
#[test]
fn a_connection_without_a_request_is_closed_in_silence() {
    let site = pages();
    let server = site.start(&["--timeout-head", "200ms", "--timeout-idle", "300ms"]);
    assert_closed(&mut server.connect());
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").unwrap().text(), "a");
    assert_closed(&mut client);
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let site = pages();
    site.write("html/large.bin", vec![7; 64 << 20]);
    let server = site.start(&["--timeout-write", "300ms", "--limit-connections", "1"]);
    let mut client = server.connect();
    client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    // The place is this client's: another loop could have accepted another connection first.
    client.stream().peek(&mut [0; 1]).unwrap();
    // It reads nothing, and its place is free for another before long.
    eventually("the connection is given up", PATIENCE, || {
        server.connect().get("/a.txt").ok().filter(|response| response.status == 200)
    });
    assert_aborted(client.response());
}

#[test]
fn connections_past_the_limit_are_sent_away_and_come_back_later() {
    let site = pages();
    let server = site.start(&["--limit-connections", "3"]);
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/a.txt").unwrap().text(), "a");
    }
    for _ in 0..20 {
        let mut client = server.connect();
        let response = client.get("/a.txt").unwrap();
        assert_eq!((response.status, response.field("Retry-After")), (503, Some("1")));
        assert!(response.closes());
        assert_closed(&mut client);
    }
    clients.pop();
    eventually("a place is free", PATIENCE, || {
        server.connect().get("/a.txt").ok().filter(|response| response.status == 200)
    });
    assert_eq!(clients[0].get("/b.txt").unwrap().text(), "bb", "the others are untouched");
}

/// A server whose processes may have so many files open.
fn start_with_descriptors(site: &Site, count: usize, arguments: &[&str]) -> Server {
    let host = site.command(arguments);
    let mut command = std::process::Command::new("sh");
    let limited = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
    command.current_dir(site.path(".")).args(["-c", &limited]).arg(host.get_program()).args(host.get_args());
    Server::start(command)
}

#[test]
fn more_connections_than_descriptors_are_sent_away_and_the_others_still_get_their_files() {
    let site = pages();
    let server = start_with_descriptors(&site, 96, &["--threads", "1"]);
    server.wait_for_log("raise it (ulimit -n, LimitNOFILE)", PATIENCE);
    let mut first = server.connect();
    let mut others: Vec<_> = (0..150).map(|_| server.connect()).collect();
    let statuses: Vec<u16> = others.iter_mut().map(|client| client.get("/a.txt").map_or(0, |got| got.status)).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    // One that is sent away may find its connection closed before it has asked.
    assert!(served >= 20 && statuses.iter().all(|status| [200, 503, 0].contains(status)), "{statuses:?}");
    assert_eq!(first.get("/a.txt").expect("an answer").text(), "a");
    drop(others);
    eventually("there is room again", PATIENCE, || (server.get("/a.txt").status == 200).then_some(()));
    assert!(!server.log().iter().any(|line| line.contains("cannot accept")), "{:?}", server.log());
}

#[test]
fn when_a_handler_has_taken_all_descriptors_open_connections_go_on_and_it_is_said_once() {
    let site = pages();
    site.compile(
        "hoard",
        r#"
        #include "host.h"
        #include <fcntl.h>
        #include <string.h>
        #include <unistd.h>
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
            static int held[200];
            int free = strcmp(env->get(env, HOST_STR("PATH_INFO")).ptr, "/free") == 0;
            int all = strcmp(env->get(env, HOST_STR("PATH_INFO")).ptr, "/all") == 0;
            for (int n = 0; free && n < 200; n++) if (held[n] > 0) close(held[n]), held[n] = 0;
            for (int n = 0; all && n < 200; n++) held[n] = open("/dev/null", O_RDONLY);
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR("done\n"));
        }"#,
    );
    let server = start_with_descriptors(&site, 96, &["--threads", "1"]);
    let mut first = server.connect();
    assert_eq!(first.get("/hoard.so/all").expect("an answer").text(), "done\n");
    let mut second = server.connect();
    server.wait_for_log("cannot accept connections", PATIENCE);
    // The listener is tried again ten times a second.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(600) {
        assert_eq!(first.get("/hoard.so").expect("an answer").text(), "done\n");
    }
    assert_eq!(first.get("/hoard.so/free").expect("an answer").text(), "done\n");
    assert_eq!(second.get("/a.txt").expect("an answer").text(), "a");
    let complaints = server.log().iter().filter(|line| line.contains("cannot accept")).count();
    assert_eq!(complaints, 1, "{:?}", server.log());
}
