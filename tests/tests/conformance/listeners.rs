//! Where a server listens, how it stops, and what `--trace` shows.

use crate::{assert_closed, pages, pages_and_mirror};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use tests::{Client, PATIENCE, eventually};

#[test]
fn a_unix_socket_serves_too() {
    let site = pages();
    let server = site.start(&["--bind", "unix:host.sock"]);
    let path = site.path("host.sock");
    server.wait_for_log("listening on unix:", PATIENCE);
    let mut client = Client::connect_unix(&path).unwrap();
    assert_eq!(client.get("/a.txt").unwrap().text(), "a");
    assert_eq!(client.request("POST", "/a.txt", &[], b"x").unwrap().status, 405);
    assert_eq!(client.get("/b.txt").unwrap().text(), "bb");
    // Over TCP at the same time.
    assert_eq!(server.get("/a.txt").text(), "a");
}

#[test]
fn the_socket_of_a_server_that_is_gone_is_replaced_and_another_file_is_not() {
    let site = pages();
    // Dropped without removing its file, as after a crash.
    drop(UnixListener::bind(site.path("host.sock")).unwrap());
    let server = site.start(&["--bind", "unix:host.sock"]);
    let mut client = Client::connect_unix(&site.path("host.sock")).unwrap();
    assert_eq!(client.get("/a.txt").unwrap().text(), "a");
    // A living one is not taken over.
    let output = site.run(&["--bind", "unix:host.sock"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("host.sock") && words.contains("--bind"), "{words}");
    assert_eq!(client.get("/b.txt").unwrap().text(), "bb");
    drop(server);

    let file = site.write("precious", "x");
    let output = site.run(&["--bind", "unix:precious"]);
    assert!(!output.status.success() && file.exists(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn ipv6_serves_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let site = pages();
    let server = site.start(&["--bind", "[::1]:0"]);
    let line = server.wait_for_log("listening on http://[::1]:", PATIENCE);
    let address: SocketAddr = line.split("http://").nth(1).unwrap().trim().parse().unwrap();
    assert_eq!(Client::connect(address).unwrap().get("/a.txt").unwrap().text(), "a");
}

#[test]
fn a_busy_address_is_named_with_the_remedy() {
    let site = pages();
    let server = site.start(&[]);
    let output = site.run(&["--bind", &server.address().to_string(), "--runtime", "other"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{words}");
    assert!(words.contains(&server.address().to_string()) && words.contains("--bind"), "{words}");
}

/// The names of the log lines of a server that stops.
const STOPPING: &str = "stopping";

#[test]
fn a_server_that_stops_answers_what_it_has_received() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    // One connection idles, one is within a head, one within content, one sends no more but has not read its answers.
    let mut idle = server.connect();
    assert_eq!(idle.get("/a.txt").unwrap().text(), "a");
    let mut head = server.connect();
    assert_eq!(head.get("/a.txt").unwrap().text(), "a");
    head.send(b"GET /b.txt HTTP/1.1\r\nHos").unwrap();
    let mut content = server.connect();
    content.send(b"POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(content.response().unwrap().status, 100);
    let mut pipelined = server.connect();
    assert_eq!(pipelined.get("/a.txt").unwrap().text(), "a");
    let three = b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    pipelined.send(&[&three[..], b"GET /b.txt HTTP/1.1\r\nHo"].concat()).unwrap();
    let first_three = [pipelined.response(), pipelined.response(), pipelined.response()];
    assert!(first_three.iter().all(|response| response.as_ref().unwrap().text() == "a"));

    server.signal(Signal::TERM);
    server.wait_for_log(STOPPING, PATIENCE);
    assert_closed(&mut idle);
    head.send(b"t: a\r\n\r\n").unwrap();
    let response = head.response().unwrap();
    assert_eq!((response.text(), response.closes()), ("bb", true));
    assert_closed(&mut head);
    // Several requests that have arrived are all answered, and only the last says that it is.
    pipelined.send(&[b"st: a\r\n\r\n", &three[..]].concat()).unwrap();
    let closes: Vec<bool> = (0..4).map(|_| pipelined.response().unwrap().closes()).collect();
    assert_eq!(closes, [false, false, false, true]);
    assert_closed(&mut pipelined);
    content.send(b"hello").unwrap();
    let response = content.response().unwrap();
    assert_eq!((response.text(), response.closes()), ("hello", true));
    assert_closed(&mut content);
    let mut server = server;
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_large_response_under_way_is_completed_before_the_end() {
    let site = pages();
    site.write("html/large.bin", vec![7; 32 << 20]);
    let mut server = site.start(&[]);
    let mut client = server.connect();
    client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut client.stream(), &mut first).unwrap();
    server.signal(Signal::TERM);
    server.wait_for_log(STOPPING, PATIENCE);
    let rest = client.rest().unwrap();
    let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(rest.len() - head, 32 << 20);
    assert_eq!(server.wait().code(), Some(0));
}

/// A service manager, a terminal or timeout(1) sends a signal to all processes of the server at once.
#[test]
fn a_signal_to_all_processes_stops_as_gracefully_as_one_to_the_first() {
    let site = pages_and_mirror();
    let mut server = site.start(&[]);
    let mut client = server.connect();
    client.send(b"POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().status, 100);
    let workers = tests::children(server.id());
    assert!(!workers.is_empty());
    for worker in workers {
        let id = rustix::process::Pid::from_raw(worker.id.cast_signed()).unwrap();
        rustix::process::kill_process(id, Signal::TERM).unwrap();
    }
    server.signal(Signal::TERM);
    server.wait_for_log(STOPPING, PATIENCE);
    client.send(b"hello").unwrap();
    assert_eq!(client.response().unwrap().text(), "hello");
    assert_eq!(server.wait().code(), Some(0));
}

/// A new worker takes the connections over with what has been received of their requests, and nobody notices.
#[test]
fn connections_move_to_a_new_worker_wherever_they_are_in_a_request() {
    let site = pages_and_mirror();
    let server = site.start(&[]);
    let content = "0123456789".repeat(20_000);
    let length = content.len();
    let chunk = format!("{length:x}\r\n{content}\r\n0\r\n\r\n");
    let requests = [
        ("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "a"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(), ""),
        ("POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(), "hello"),
        (format!("POST /mirror.so HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{content}"), &*content),
        (format!("POST /mirror.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"), &*content),
    ];
    let mut waiting = Vec::new();
    for (request, text) in &requests {
        for split in [0, 1, request.len() / 3, request.len() / 2, request.len() - 3, request.len() - 1] {
            let mut client = server.connect();
            assert_eq!(client.get("/b.txt").unwrap().text(), "bb");
            client.send(&request.as_bytes()[..split]).unwrap();
            waiting.push((client, &request.as_bytes()[split..], *text));
        }
    }
    for _ in 0..2 {
        let before = tests::children(server.id());
        server.signal(Signal::HUP);
        eventually("another worker", PATIENCE, || {
            let now = tests::children(server.id());
            (!now.is_empty() && now.iter().all(|worker| !before.contains(worker))).then_some(())
        });
    }
    for (mut client, rest, text) in waiting {
        client.send(rest).unwrap();
        let response = client.response().unwrap();
        assert!(response.text() == text && !response.closes(), "{}", response.head);
        assert_eq!(client.get("/b.txt").unwrap().text(), "bb");
    }
}

#[test]
fn trace_shows_connections_requests_and_responses() {
    let site = pages();
    let server = site.start(&["--trace"]);
    let mut client = server.connect();
    let peer = client.stream().local_addr().unwrap();
    assert_eq!(client.get("/a.txt?x=1").unwrap().status, 200);
    assert_eq!(client.get("/nothing").unwrap().status, 404);
    drop(client);
    server.wait_for_log(&format!("* {peer} closed"), PATIENCE);
    let log = server.log();
    let traced: Vec<&str> = log.iter().map(String::as_str).filter(|line| line.starts_with(['*', '<', '>'])).collect();
    assert_eq!(
        traced,
        [
            &format!("* {peer} connected"),
            "< GET /a.txt?x=1 HTTP/1.1",
            "> HTTP/1.1 200 OK",
            "< GET /nothing HTTP/1.1",
            "> HTTP/1.1 404 Not Found",
            &format!("* {peer} closed"),
        ]
    );
}

#[test]
fn without_trace_nothing_is_shown() {
    let site = pages();
    let server = site.start(&[]);
    assert_eq!(server.get("/a.txt").status, 200);
    assert!(!server.log().iter().any(|line| line.starts_with(['*', '<', '>'])), "{:?}", server.log());
}

#[test]
fn connections_are_spread_over_the_loops() {
    let site = pages();
    let server = site.start(&["--threads", "4"]);
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/a.txt").unwrap().text(), "a");
    }
    let worker = tests::children(server.id()).remove(0);
    // Each loop has an epoll instance, whose registrations /proc shows (proc(5)): a listener, an alarm, connections.
    let registrations = eventually("four epoll instances", PATIENCE, || {
        let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", worker.id)).ok()?;
        let counts: Vec<usize> = infos
            .filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok())
            .map(|info| info.lines().filter(|line| line.starts_with("tfd:")).count())
            .filter(|count| *count > 0)
            .collect();
        (counts.len() == 4).then_some(counts)
    });
    assert_eq!(registrations.iter().sum::<usize>(), 4 * 2 + 40);
    assert!(registrations.iter().all(|count| (2 + 5..=2 + 15).contains(count)), "{registrations:?}");
}
