//! Stopping: how long it may take, what a second signal does, and that nothing is left.

use rustix::process::Signal;
use std::fs;
use std::net::TcpStream;
use tests::{Client, PATIENCE, Server, Site, children, eventually, probe, process};

/// Handlers in two ways: one that is asleep for an hour, and one that has been.
fn asleep(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(b"GET /probe.so/sleep?3600000 HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    server.wait_for_log("sleeping", PATIENCE);
    client
}

fn site() -> Site {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    site
}

/// The processes of a server, the supervisor first.
fn processes(server: &Server) -> Vec<u32> {
    std::iter::once(server.id()).chain(children(server.id()).into_iter().map(|child| child.id)).collect()
}

/// No process, no listener and no folder is left.
fn assert_nothing_left(site: &Site, server: &Server, before: &[u32]) {
    for &id in before {
        assert_eq!(process::find(id), None);
    }
    assert!(TcpStream::connect(server.address()).is_err());
    let left: Vec<_> = fs::read_dir(site.path("runtime")).expect("the runtime folder").filter_map(Result::ok).collect();
    assert!(left.iter().all(|entry| entry.file_name() == "lock"), "{left:?}");
}

#[test]
fn a_stopped_server_leaves_nothing_behind() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let site = site();
        let mut server = site.start(&["--workers", "2", "--bind", "unix:host.sock"]);
        // A checker is at work, too.
        probe::build(&site, "slow", 1, &["-DCHECK=wait_ms(3600000)"]);
        eventually("a checker", PATIENCE, || (children(server.id()).len() == 3).then_some(()));
        let before = processes(&server);
        let mut idle = server.connect();
        assert_eq!(idle.get("/probe.so").expect("an answer").status, 200);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        assert_nothing_left(&site, &server, &before);
        assert!(!site.path("host.sock").exists());
        assert_eq!(idle.rest().expect("the connection ends as it should"), b"");
    }
}

#[test]
fn while_requests_are_completed_nobody_else_can_connect() {
    let site = site();
    let mut server = site.start(&["--threads", "2"]);
    let mut slow = server.connect();
    slow.send(b"POST /probe.so/echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .expect("open");
    assert_eq!(slow.response().expect("an interim response").status, 100);
    server.signal(Signal::TERM);
    eventually("new connections are refused", PATIENCE, || TcpStream::connect(server.address()).is_err().then_some(()));
    slow.send(b"12345").expect("the connection is open");
    assert_eq!(slow.response().expect("an answer").text(), "12345");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_does_not_end_in_time_is_ended_and_counted() {
    let site = site();
    let mut server = site.start(&["--threads", "1", "--timeout-stop", "1"]);
    let mut client = asleep(&server);
    let before = processes(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    server.wait_for_log("ended 1 connections that were still busy", PATIENCE);
    assert!(client.response().is_err());
    assert_nothing_left(&site, &server, &before);
}

#[test]
fn a_fast_stop_waits_for_nobody_and_also_ends_a_graceful_one() {
    for first in [None, Some(Signal::TERM)] {
        let site = site();
        let mut server = site.start(&["--threads", "1", "--timeout-stop", "3600"]);
        let mut client = asleep(&server);
        let before = processes(&server);
        if let Some(first) = first {
            server.signal(first);
            server.wait_for_log("stopping", PATIENCE);
            // Said twice, it is no less graceful.
            server.signal(first);
        }
        server.signal(Signal::INT);
        assert_eq!(server.wait().code(), Some(0));
        assert!(client.response().is_err());
        assert_nothing_left(&site, &server, &before);
    }
}

#[test]
fn a_server_that_is_still_starting_can_be_stopped() {
    for (behaviour, words) in
        [("-DCHECK=wait_ms(3600000)", "host: checker"), ("-DSERVE=wait_ms(3600000)", "host: worker")]
    {
        let site = Site::new();
        probe::build(&site, "probe", 1, &[behaviour]);
        let mut command = site.command(&["--bind", "127.0.0.1:0", "--runtime", "runtime"]);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("host starts");
        let other = eventually(words, PATIENCE, || {
            children(child.id()).into_iter().find(|process| process.command.starts_with(words))
        });
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("it runs");
        let ended = eventually("it ends", PATIENCE, || child.try_wait().expect("our own child"));
        assert_eq!(ended.code(), Some(0));
        assert_eq!(process::find(other.id), None);
    }
}

#[test]
fn a_stop_in_the_middle_of_a_replacement_answers_what_has_been_received() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DREPLACE"]);
    let mut server = site.start(&["--threads", "2"]);
    let before = processes(&server);
    let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(probe::version(&client.get("/probe.so").expect("an answer")), 1);
        client.send(b"POST /probe.so/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").expect("open");
    }
    // The new worker has taken over a few, or none, or all.
    probe::build(&site, "probe", 2, &["-DREPLACE"]);
    eventually("a second worker", PATIENCE, || {
        let was_there = || server.log().iter().any(|line| line.contains("reloaded"));
        (children(server.id()).len() > 1 || was_there()).then_some(())
    });
    server.signal(Signal::TERM);
    server.wait_for_log("stopping", PATIENCE);
    for client in &mut clients {
        client.send(b"cd").expect("the connection is open");
        assert_eq!(client.response().expect("an answer").text(), "abcd");
    }
    assert_eq!(server.wait().code(), Some(0));
    assert_nothing_left(&site, &server, &before);
}
