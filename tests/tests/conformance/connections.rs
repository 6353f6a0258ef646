//! How long a connection lives, and in which order it answers.

use crate::{assert_closed, pages, pages_and_mirror};
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;
use tests::client::Framing;
use tests::{Client, Server, Site};

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let site = pages();
    let server = site.start(&[]);
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/a.txt").unwrap().text(), "a");
    }
}

#[test]
fn a_client_that_asks_for_it_has_its_connection_closed() {
    let site = pages();
    let server = site.start(&[]);
    for (connection, closes) in [
        ("close", true),
        ("Close", true),
        ("keep-alive, close", true),
        ("close, keep-alive", true),
        ("x-other,\tclose ", true),
        ("keep-alive", false),
        ("x-close", false),
        ("closed", false),
    ] {
        let mut client = server.connect();
        let response = client.request("GET", "/a.txt", &[("Connection", connection)], b"").unwrap();
        assert_eq!((response.text(), response.closes()), ("a", closes), "{connection}");
        match closes {
            true => assert_closed(&mut client),
            false => assert_eq!(client.get("/b.txt").unwrap().text(), "bb", "{connection}"),
        }
    }
}

#[test]
fn http_1_0_closes_unless_the_client_asks_to_keep_the_connection() {
    let site = pages();
    let server = site.start(&[]);
    for fields in ["", "Host: a\r\n", "Connection: x\r\n", "Connection: keep-alive, close\r\n"] {
        let mut client = server.connect();
        client.send(format!("GET /a.txt HTTP/1.0\r\n{fields}\r\n").as_bytes()).unwrap();
        let response = client.response().unwrap();
        assert_eq!((response.text(), response.field("Connection")), ("a", Some("close")), "{fields:?}");
        assert_closed(&mut client);
    }
    let mut client = server.connect();
    for connection in ["keep-alive", "Keep-Alive", "x, keep-alive"] {
        client.send(format!("GET /a.txt HTTP/1.0\r\nConnection: {connection}\r\n\r\n").as_bytes()).unwrap();
        let response = client.response().unwrap();
        assert_eq!((response.text(), response.field("Connection")), ("a", Some("keep-alive")), "{connection}");
    }
}

#[test]
fn what_follows_the_last_request_is_ignored() {
    let site = pages();
    let server = site.start(&[]);
    let mut client = server.connect();
    client
        .send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /b.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(client.response().unwrap().text(), "a");
    assert_closed(&mut client);
}

/// Pipelined requests of every kind, and what their responses contain.
const PIPELINE: &[(&str, &str)] = &[
    ("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", "a"),
    ("POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
    ("\r\nGET /b.txt HTTP/1.1\r\nHost: a\r\n\r\n", "bb"),
    (
        "POST /mirror.so/x?y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         2;x=y\r\nhe\r\n00003\r\nllo\r\n0;z\r\nTrailer: x\r\n\r\n",
        "hello",
    ),
    ("POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ""),
    ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "home"),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "home"),
];

fn pipeline() -> Vec<u8> {
    PIPELINE.iter().flat_map(|(request, _)| request.bytes()).collect()
}

#[track_caller]
fn assert_pipeline_answered(client: &mut Client, note: &str) {
    for (request, content) in PIPELINE {
        let response = client.response().unwrap_or_else(|error| panic!("{note}: {request:?}: {error}"));
        assert_eq!((response.status, response.text()), (200, *content), "{note}: {request:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_wherever_their_bytes_are_split() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let bytes = pipeline();
    let mut client = server.connect();
    for split in 0..bytes.len() {
        client.send(&bytes[..split]).unwrap();
        // What has been answered so far has been understood, so that the rest is a packet of its own.
        let complete = complete_requests(split);
        for (request, content) in &PIPELINE[..complete] {
            assert_eq!(client.response().unwrap().text(), *content, "split at {split}: {request:?}");
        }
        client.send(&bytes[split..]).unwrap();
        for (request, content) in &PIPELINE[complete..] {
            assert_eq!(client.response().unwrap().text(), *content, "split at {split}: {request:?}");
        }
    }
    for byte in bytes.chunks(1) {
        client.send(byte).unwrap();
    }
    assert_pipeline_answered(&mut client, "byte by byte");
}

fn complete_requests(bytes: usize) -> usize {
    let ends = PIPELINE.iter().scan(0, |end, (request, _)| {
        *end += request.len();
        Some(*end)
    });
    ends.take_while(|end| *end <= bytes).count()
}

#[test]
fn thousands_of_pipelined_requests_are_all_answered() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let mut client = server.connect();
    let rounds = 1000;
    let bytes = pipeline().repeat(rounds);
    let mut sender = client.stream().try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&bytes).unwrap());
    for round in 0..rounds {
        assert_pipeline_answered(&mut client, &format!("round {round}"));
    }
    sending.join().unwrap();
}

/// A client may say that it sends no more (shutdown(2)) and still wait for all answers.
#[test]
fn a_client_that_has_finished_sending_gets_every_answer_and_then_the_end() {
    let site = pages_and_mirror();
    site.write("html/large.bin", vec![7; 3 << 20]);
    let server = site.start(&[]);
    for _ in 0..20 {
        let mut client = server.connect();
        client.send(&pipeline()).unwrap();
        client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        client.finish().unwrap();
        assert_pipeline_answered(&mut client, "half-closed");
        assert_eq!(client.response().unwrap().body.len(), 3 << 20);
        assert_eq!(client.response().unwrap().text(), "a");
        assert_closed(&mut client);
    }
}

/// The end of the client's bytes may come in the same packet as its last request: it is seen at once, and not when the
/// connection has idled for its whole minute.
#[test]
fn the_end_of_a_client_is_seen_also_when_it_comes_with_its_last_request() {
    let site = pages();
    let server = site.start(&["--threads", "1"]);
    for _ in 0..50 {
        let mut client = server.connect();
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        client.finish().unwrap();
        assert_eq!(client.response().unwrap().text(), "a");
        assert_closed(&mut client);
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_request_is_forgotten() {
    let site = pages();
    let server = site.start(&["--limit-connections", "3"]);
    for part in ["", "GET /a", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"] {
        let mut client = server.connect();
        client.send(part.as_bytes()).unwrap();
        client.finish().unwrap();
        assert_closed(&mut client);
        // A reset instead of an end.
        let client = server.connect();
        client.stream().write_all(part.as_bytes()).unwrap();
        rustix::net::sockopt::set_socket_linger(client.stream(), Some(Duration::ZERO)).unwrap();
    }
    // None of the six counts any more. The server may need a moment to notice.
    let mut clients = Vec::new();
    tests::eventually("there is room for three connections", tests::PATIENCE, || {
        let mut client = server.connect();
        if client.get("/a.txt").ok().is_some_and(|response| response.status == 200) {
            clients.push(client);
        }
        (clients.len() == 3).then_some(())
    });
}

fn large_file(site: &Site, name: &str, length: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..length).map(|at| (at / 7 + at % 251) as u8).collect();
    site.write(&format!("html/{name}"), &content);
    content
}

/// A connection whose client has a small receive buffer, so that the server has to wait for it. It is larger than four
/// segments of the loopback device: below that the kernel announces room so seldom that transfers crawl.
fn narrow(server: &Server) -> Client {
    let client = server.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(client.stream(), 256 << 10).unwrap();
    client
}

#[test]
fn a_slow_reader_gets_ten_mebibytes_to_the_byte_and_holds_nobody_up() {
    let site = pages();
    let content = large_file(&site, "large.bin", 10 << 20);
    let server = site.start(&["--threads", "1"]);
    let mut slow = narrow(&server);
    slow.send(b"GET /large.bin HTTP/1.0\r\n\r\n").unwrap();
    // While it reads nothing, another is answered by the same loop.
    assert_eq!(server.get("/a.txt").text(), "a");
    let mut received = Vec::new();
    let mut buffer = [0; 3000];
    let mut stream = slow.stream();
    while let count @ 1.. = stream.read(&mut buffer).unwrap() {
        received.extend_from_slice(&buffer[..count]);
    }
    let head = received.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(received[head..] == content, "{} bytes of content came", received.len() - head);
}

#[test]
fn a_response_read_byte_by_byte_is_complete() {
    let site = pages();
    let content = large_file(&site, "page.bin", 20_000);
    let server = site.start(&[]);
    let mut client = server.connect();
    client.send(b"GET /page.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    struct OneByOne<'a>(&'a std::net::TcpStream);
    impl Read for OneByOne<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }
    impl Write for OneByOne<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut slow = Client::over(OneByOne(client.stream()));
    let response = slow.response().unwrap();
    assert!(response.body == content && response.framing == Framing::Length);
    assert_eq!(slow.response().unwrap().text(), "a");
}

/// The refusal reaches a client that goes on sending what nobody reads: closing at once would make the kernel reset the
/// connection, and the client could lose the response (RFC 9112 §9.6).
#[test]
fn a_refusal_is_not_lost_though_the_client_keeps_sending() {
    let site = pages();
    let server = site.start(&[]);
    for length in [64 << 10, 1 << 20, 16 << 20] {
        let mut client = server.connect();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
        client.send(&vec![b'x'; length]).unwrap_or_else(|error| panic!("{length} bytes of content: {error}"));
        let response = client.response().unwrap_or_else(|error| panic!("after {length} bytes of content: {error}"));
        assert_eq!((response.status, response.closes()), (413, true));
        assert_closed(&mut client);
    }
}

/// One connection that always has another request ready takes no more than its turn.
#[test]
fn a_client_that_never_stops_asking_holds_nobody_up() {
    let site = pages_and_mirror();
    let server = site.start(&["--threads", "1"]);
    for request in ["GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", "GET /mirror.so HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let greedy = server.connect();
        let (mut sender, mut receiver) = (greedy.stream().try_clone().unwrap(), greedy.stream().try_clone().unwrap());
        let requests = request.repeat(1000);
        let sending = std::thread::spawn(move || {
            loop {
                match sender.write_all(requests.as_bytes()) {
                    Ok(()) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let receiving = std::thread::spawn(move || while let Ok(1..) = receiver.read(&mut [0; 65536]) {});
        for _ in 0..20 {
            assert_eq!(server.get("/b.txt").text(), "bb");
        }
        greedy.stream().shutdown(std::net::Shutdown::Both).unwrap();
        sending.join().unwrap();
        receiving.join().unwrap();
    }
}
