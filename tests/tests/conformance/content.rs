//! The content of requests, and of responses whose length is not known before their end.

use crate::{assert_closed, last_response, pages, pages_and_mirror};
use tests::client::Framing;
use tests::{Client, Site, cc, repository};

fn example(site: &Site, name: &str) {
    let source = repository().join(format!("abi/examples/{name}.c"));
    cc(&source, &site.path(&format!("handlers/{name}.so")), &[]);
}

fn some_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 3 + at % 253) as u8).collect()
}

/// `content` in chunks of these sizes, in turn.
fn chunked(content: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = content;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at(rest.len().min(*size));
        out.extend(format!("{:X}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        rest = after;
    }
    out.extend(b"0\r\n\r\n");
    out
}

/// From nothing over what fits in memory to what goes to a file, at the bounds.
const LENGTHS: [usize; 9] = [0, 1, 100, 16 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 1 << 20, 5_000_000];

#[test]
fn content_of_every_size_reaches_the_handler_to_the_byte() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let mut client = server.connect();
    for length in LENGTHS {
        let content = some_bytes(length);
        let response = client.request("POST", "/mirror.so", &[], &content).unwrap();
        assert!(response.status == 200 && response.body == content, "{length} bytes: {}", response.head);
        client.send(b"PUT /mirror.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        client.send(&chunked(&content, &[1, 10, 100, 70_000, 16])).unwrap();
        let response = client.response().unwrap();
        assert!(response.status == 200 && response.body == content, "{length} bytes, chunked: {}", response.head);
    }
}

#[test]
fn content_that_comes_slowly_is_complete() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let mut client = server.connect();
    let content = some_bytes(2000);
    let framed = chunked(&content, &[7]);
    client.send(b"POST /mirror.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    framed.chunks(1).for_each(|byte| client.send(byte).unwrap());
    assert!(client.response().unwrap().body == content);
}

#[test]
fn content_for_a_page_is_taken_and_dropped() {
    let site = pages();
    let server = site.start(&[]);
    let mut client = server.connect();
    for path in ["/a.txt", "/nothing"] {
        let status = client.request("GET", path, &[], &some_bytes(1 << 20)).unwrap().status;
        assert_eq!(status, if path == "/a.txt" { 200 } else { 404 });
    }
}

const EXPECTING: &[u8] = b"POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(EXPECTING).unwrap();
        let interim = client.response().unwrap();
        assert_eq!((interim.status, interim.fields.len()), (100, 0));
        client.send(b"hello").unwrap();
        assert_eq!(client.response().unwrap().text(), "hello");
    }
    // Earlier answers come first.
    client.send(&[b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", EXPECTING].concat()).unwrap();
    assert_eq!(client.response().unwrap().text(), "a");
    assert_eq!(client.response().unwrap().status, 100);
    client.send(b"hello").unwrap();
    assert_eq!(client.response().unwrap().text(), "hello");
}

#[test]
fn a_client_that_does_not_wait_is_told_nothing() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let mut client = server.connect();
    for request in [
        // RFC 9110 §10.1.1: it may be left out when content has come already.
        [EXPECTING, b"hello"].concat(),
        // There is nothing to wait for.
        b"POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n".to_vec(),
        b"GET /mirror.so HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n".to_vec(),
    ] {
        client.send(&request).unwrap();
        assert_eq!(client.response().unwrap().status, 200, "{}", request.escape_ascii());
    }
    // HTTP/1.0 has no interim responses.
    let mut client = server.connect();
    client.send(b"POST /mirror.so HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.response().unwrap().text(), "hello");
}

/// RFC 9110 §10.1.1: a final status instead, when the answer does not depend on the content; then whether content
/// comes is not known, and the connection ends.
#[test]
fn a_client_that_waits_in_vain_gets_the_final_answer() {
    let site = pages();
    let server = site.start(&["--limit-body", "1000"]);
    for (target, length, status) in [("/nothing", 5, 404), ("/a.txt", 5, 405), ("/", 1001, 413)] {
        let text =
            format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(last_response(&server, text.as_bytes()).status, status, "{target}");
    }
}

#[test]
fn what_has_no_known_length_is_chunked_or_ends_with_the_connection() {
    let site = Site::new();
    example(&site, "ticks");
    let server = site.start(&[]);
    let expected: String = (1..=500).rev().map(|n| format!("{n}\n")).collect();
    let mut client = server.connect();
    for _ in 0..2 {
        let response = client.get("/ticks.so?n=500").unwrap();
        assert_eq!((response.framing, response.closes()), (Framing::Chunked, false));
        assert_eq!(response.text(), expected);
    }
    // HTTP/1.0 has no chunks, and its client is not told that the connection is kept.
    for connection in ["", "Connection: keep-alive\r\n"] {
        let mut client = server.connect();
        client.send(format!("GET /ticks.so?n=500 HTTP/1.0\r\n{connection}\r\n").as_bytes()).unwrap();
        let response = client.response().unwrap();
        assert_eq!((response.framing, response.field("Connection")), (Framing::Close, Some("close")));
        assert_eq!(response.text(), expected);
    }
    // HEAD gets neither.
    let response = client.request("HEAD", "/ticks.so", &[], b"").unwrap();
    assert_eq!((response.status, response.field("Content-Length")), (200, None));
    assert_eq!(client.get("/ticks.so").unwrap().text(), "3\n2\n1\n");
}

#[test]
fn what_is_written_piece_by_piece_arrives_whole() {
    let site = Site::new();
    example(&site, "upper");
    let server = site.start(&[]);
    let content = "abc \u{e4}\u{f6}\n".repeat(30_000);
    let mut client = server.connect();
    for _ in 0..3 {
        let response = client.request("POST", "/upper.so", &[], content.as_bytes()).unwrap();
        assert_eq!(response.framing, Framing::Chunked);
        assert!(response.text() == content.replace("abc", "ABC"));
    }
}

#[test]
fn a_hello_in_c_is_five_lines_and_one_command() {
    let site = Site::new();
    example(&site, "hello");
    let server = site.start(&[]);
    let response = server.get("/hello.so");
    assert_eq!((response.text(), response.framing), ("Hello, World!\n", Framing::Length));
    assert_eq!(response.field("Content-Type"), Some("text/plain"));
}

/// A pipelined request whose content does not come yet must not hold back the answers before it: the client may be
/// waiting for them.
#[test]
fn answers_do_not_wait_for_the_content_of_the_next_request() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let mut client: Client = server.connect();
    client
        .send(
            b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\nPOST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
        )
        .unwrap();
    assert_eq!(client.response().unwrap().text(), "a");
    client.send(b"llo").unwrap();
    assert_eq!(client.response().unwrap().text(), "hello");
    client.finish().unwrap();
    assert_closed(&mut client);
}

/// What has come of a request is kept in memory that another request uses later, of another client maybe.
#[test]
fn content_that_a_client_did_not_complete_is_no_part_of_another_request() {
    let site = pages_and_mirror();
    let server = site.start(&["--threads", "1"]);
    for length in [10, 100_000] {
        let mut leaves = server.connect();
        let head = format!("POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        leaves.send(&[head.as_bytes(), &some_bytes(length - 1)].concat()).unwrap();
        leaves.finish().unwrap();
        assert_closed(&mut leaves);
        let other = server.connect().request("POST", "/mirror.so", &[], b"hello").unwrap();
        assert_eq!((other.status, other.text()), (200, "hello"));
    }
}
