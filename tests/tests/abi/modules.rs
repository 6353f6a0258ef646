//! `init` and `stop`, and what the flags of a module promise.

use crate::compile;
use std::fs;
use std::io::Read;
use tests::{Client, Load, PATIENCE, Server, Site, eventually};

/// The lines that `life.c` has written so far.
fn life(site: &Site) -> Vec<String> {
    fs::read_to_string(site.path("life.log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn compile_life(site: &Site, flags: &[&str]) {
    let log = format!("-DLIFE=\"{}\"", site.path("life.log").display());
    compile(site, "life", &[&[log.as_str()], flags].concat());
}

#[test]
fn a_module_is_checked_initialised_once_and_stopped_once() {
    let site = Site::new();
    compile_life(&site, &[]);
    let server = site.start(&["--threads", "4"]);
    assert_eq!(life(&site), ["init check 0", "init serve 1"]);
    let load = Load::start(server.address(), 8, &["/life.so"], |_, response| {
        (response.text() == "one").then_some(()).ok_or_else(|| response.text().to_owned())
    });
    load.flow(200);
    load.finish().assert_nothing_lost();
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(life(&site), ["init check 0", "init serve 1", "stop"]);
}

#[test]
fn stop_waits_for_the_last_request_of_its_generation() {
    let site = Site::new();
    compile_life(&site, &[]);
    let server = site.start(&["--threads", "2"]);
    let mut client = server.connect();
    client.send(b"GET /life.so/stream HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    // The head and the first chunk; the second waits for a file.
    while !String::from_utf8_lossy(&receive(&client)).contains("first") {}
    compile_life(&site, &["-DANSWER=\"two\""]);
    server.wait_for_log("reloaded life generation 2", PATIENCE);
    // The other loop answers already with the new build.
    let mut other = server.connect();
    tests::eventually("the new build answers", PATIENCE, || {
        (other.get("/life.so").ok()?.text() == "two").then_some(())
    });
    assert!(life(&site).contains(&"init serve 2".to_owned()), "{:?}", life(&site));
    assert!(!life(&site).contains(&"stop".to_owned()), "{:?}", life(&site));
    site.write("life.log.go", "");
    let mut rest = String::new();
    while !rest.contains("last") {
        rest.push_str(&String::from_utf8_lossy(&receive(&client)));
    }
    eventually("stop of the first build", PATIENCE, || life(&site).contains(&"stop".to_owned()).then_some(()));
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(life(&site).iter().filter(|line| *line == "stop").count(), 2);
}

fn receive(client: &Client) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let count = client.stream().read(&mut buffer).unwrap();
    assert!(count > 0, "the server has closed");
    buffer[..count].to_vec()
}

fn start_serial(arguments: &[&str]) -> (Site, Server) {
    let site = Site::new();
    let gate = format!("-DGATE=\"{}\"", site.path("gate").display());
    compile(&site, "serial", &[&gate]);
    let server = site.start(arguments);
    (site, server)
}

#[test]
fn a_module_that_is_not_thread_safe_is_called_one_at_a_time() {
    let (_site, server) = start_serial(&["--threads", "4"]);
    let load = Load::start(server.address(), 16, &["/serial.so/whole", "/serial.so/stream"], |path, response| {
        let expected = if path.ends_with("whole") { "alone" } else { "alone alone alone " };
        (response.text() == expected).then_some(()).ok_or_else(|| response.text().to_owned())
    });
    load.flow(500);
    load.finish().assert_nothing_lost();
    // It knows that it is alone.
    assert_eq!(server.get("/serial.so/multithread").text(), "0");
}

/// A stream that was woken for something else while it waited for its turn asked for another turn each time; when it had
/// ended, the turns that nobody used kept everybody else out for ever.
#[test]
fn a_stream_that_waits_for_its_turn_asks_for_one_turn_only() {
    let (site, server) = start_serial(&["--threads", "4", "--trace"]);
    let hold = |name: &str| {
        let mut client = server.connect();
        client.send(format!("GET /serial.so/hold/{name} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        client
    };
    let entered = |name: &str| {
        let file = site.path(&format!("gate.{name}.in"));
        eventually("a call is in", PATIENCE, || file.exists().then_some(()));
    };
    let let_go = |name: &str| drop(site.write(&format!("gate.{name}.out"), ""));
    // One call is in; a stream and another call wait, in this order.
    let mut first = hold("first");
    entered("first");
    let mut stream = server.connect();
    stream.send(b"GET /serial.so/stream HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.wait_for_log("< GET /serial.so/stream", PATIENCE);
    let mut second = hold("second");
    server.wait_for_log("< GET /serial.so/hold/second", PATIENCE);
    // The stream gets its first chunk, then the other call is in, and the stream waits for its turn to make the next.
    let_go("first");
    entered("second");
    let mut begun = Vec::new();
    while !begun.ends_with(b"alone \r\n") {
        begun.extend(receive(&stream));
    }
    for byte in b"GET /serial.so/whole HTTP/1.1\r\nHost: a\r\n\r\n".chunks(1) {
        stream.send(byte).unwrap();
    }
    let_go("second");
    while !begun.ends_with(b"0\r\n\r\n") && !begun.ends_with(b"alone") {
        begun.extend(receive(&stream));
    }
    // The stream's connection idles. Everybody else still has turns.
    for _ in 0..3 {
        assert_eq!(server.get("/serial.so/stream").text(), "alone alone alone ");
    }
    assert_eq!(first.response().unwrap().text(), "held");
    assert_eq!(second.response().unwrap().text(), "held");
}

fn start_streaming(arguments: &[&str]) -> (Site, Server) {
    let site = Site::new();
    compile(&site, "streaming", &[]);
    site.write("html/a.txt", "a");
    let server = site.start(arguments);
    (site, server)
}

/// Reads until what has come ends with `end`.
fn receive_until(client: &Client, end: &str) -> String {
    let mut received = String::new();
    while !received.ends_with(end) {
        received.push_str(&String::from_utf8_lossy(&receive(client)));
    }
    received
}

#[test]
fn content_can_be_read_as_it_arrives() {
    let (_site, server) = start_streaming(&[]);
    for (framing, pieces) in [
        ("Content-Length: 9", ["abc", "def", "ghi"]),
        ("Transfer-Encoding: chunked", ["3\r\nabc\r\n", "3\r\ndef\r\n", "3\r\nghi\r\n0\r\n\r\n"]),
    ] {
        let mut client = server.connect();
        client.send(format!("POST /streaming.so HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes()).unwrap();
        for (piece, echoed) in pieces.iter().zip(["ABC", "DEF", "GHI"]) {
            client.send(piece.as_bytes()).unwrap();
            // Each piece is answered before the next is sent.
            receive_until(&client, &format!("3\r\n{echoed}\r\n"));
        }
        receive_until(&client, "end: 0\r\n0\r\n\r\n");
        // All content was read, so the connection goes on.
        assert_eq!(client.get("/a.txt").unwrap().text(), "a");
    }
}

#[test]
fn lines_can_be_read_as_they_arrive() {
    let (_site, server) = start_streaming(&[]);
    let mut client = server.connect();
    client.send(b"POST /streaming.so/lines HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\none\ntw").unwrap();
    receive_until(&client, "ONE\n\r\n");
    client.send(b"o\nlast").unwrap();
    let rest = receive_until(&client, "0\r\n\r\n");
    assert!(rest.contains("TWO\n\r\n") && rest.contains("LAST\r\n"), "{rest}");
}

#[test]
fn content_can_be_read_while_the_body_is_made() {
    let (_site, server) = start_streaming(&[]);
    let mut client = server.connect();
    client.send(b"POST /streaming.so/next HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").unwrap();
    receive_until(&client, "ABC\r\n");
    client.send(b"def").unwrap();
    receive_until(&client, "DEF\r\n0\r\n\r\n");
}

#[test]
fn a_client_that_waits_is_told_to_continue_when_content_is_read_and_not_before() {
    let (_site, server) = start_streaming(&[]);
    let head = "HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let mut client = server.connect();
    client.send(format!("POST /streaming.so {head}").as_bytes()).unwrap();
    assert_eq!(client.response().unwrap().status, 100);
    client.send(b"abc").unwrap();
    assert_eq!(client.response().unwrap().text(), "ABCend: 0");
    // Who does not read the content answers at once, and the connection ends.
    let mut client = server.connect();
    client.send(format!("POST /streaming.so/unread {head}").as_bytes()).unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.status, response.text(), response.closes()), (403, "unread", true));
    assert_eq!(client.rest().unwrap(), b"");
}

#[test]
fn read_says_why_there_is_no_more() {
    let (_site, server) = start_streaming(&["--timeout-body", "200ms", "--limit-body", "1000"]);
    let chunked = "POST /streaming.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (more, failure) in [("", -2), ("x\r\n", -6), ("fff\r\n", -3), ("3\nabc", -6)] {
        let mut client = server.connect();
        client.send(format!("{chunked}{more}").as_bytes()).unwrap();
        let response = client.response().unwrap();
        // Twice: it is final.
        assert_eq!(response.text(), format!("ABCend: {failure} {failure}"), "{more:?}");
        assert_eq!(client.rest().unwrap(), b"", "nothing after it is interpreted");
    }
    let mut client = server.connect();
    client.send(chunked.as_bytes()).unwrap();
    client.finish().unwrap();
    assert_eq!(client.response().unwrap().text(), "ABCend: -1 -1");
}

/// The client may wait for the answer to one request before it sends the content of the next.
#[test]
fn earlier_answers_do_not_wait_for_content_that_is_read_as_it_arrives() {
    let (_site, server) = start_streaming(&[]);
    let mut client = server.connect();
    client
        .send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\nPOST /streaming.so HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        .unwrap();
    assert_eq!(client.response().unwrap().text(), "a");
    client.send(b"abc").unwrap();
    assert_eq!(client.response().unwrap().text(), "ABCend: 0");
}
