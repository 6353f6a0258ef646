//! The light client counts what happened: against servers made up to be right, to freeze, to close and to err, and against
//! host itself, whose hello is what the floor sends.

use bench::client::{self, Expected, Group, Plan, Report};
use bench::{floor, process::Running};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::{PATIENCE, Site, eventually};

const EXPECTED: Expected = Expected { status: 200, length: 14 };
/// Longer than a busy machine makes anybody wait who is not frozen.
const FROZEN_AFTER: Duration = Duration::from_secs(2);

/// What a made-up server does with its connections and their requests, both numbered from 0.
#[derive(Clone, Copy)]
enum Conduct {
    /// Connection 1 gets three answers and then none; the others are served.
    FreezesOne,
    /// Each connection ends after three answers.
    ClosesAfterThree,
    /// Each third answer is a failure.
    FailsSometimes,
}

/// Starts a server with a thread for each connection. The threads end with their connections.
fn serve(conduct: Conduct) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            std::thread::spawn(move || converse(stream.unwrap(), conduct, number));
        }
    });
    address
}

/// Speaks with a client until it closes, which may be in the middle of something.
fn converse(mut stream: TcpStream, conduct: Conduct, number: usize) -> Option<()> {
    for request in 0.. {
        let mut bytes = [0; 4096];
        if stream.read(&mut bytes).ok()? == 0 {
            return Some(());
        }
        match conduct {
            Conduct::FreezesOne if number == 1 && request >= 3 => continue,
            Conduct::FailsSometimes if request % 3 == 2 => {
                stream.write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 14\r\n\r\nHello, World!\n").ok()?
            }
            _ => stream.write_all(floor::ANSWER).ok()?,
        }
        if matches!(conduct, Conduct::ClosesAfterThree) && request == 2 {
            return Some(());
        }
    }
    None
}

fn plan(address: SocketAddr, groups: Vec<Group>) -> Plan {
    let duration = Duration::from_millis(400);
    Plan { address, groups, warm_up: Duration::from_millis(50), duration, frozen_after: FROZEN_AFTER }
}

fn ask(address: SocketAddr, group: Group) -> Report {
    client::run(&plan(address, vec![group])).unwrap()
}

#[test]
fn a_frozen_connection_is_counted_and_the_others_go_on() {
    let report = ask(serve(Conduct::FreezesOne), Group::new("/", EXPECTED, 4));
    let tally = &report.groups[0];
    assert_eq!([tally.frozen, tally.unanswered, tally.failed, tally.closed], [1, 1, 0, 0], "{tally:?}");
    assert!(tally.measured > 10, "{tally:?}");
}

#[test]
fn a_connection_that_the_server_closes_is_made_again() {
    let report = ask(serve(Conduct::ClosesAfterThree), Group::new("/", EXPECTED, 2));
    let tally = &report.groups[0];
    // Either it is seen to be closed in time, or the next request meets the end.
    let ended = tally.closed + tally.failed;
    assert!(ended > 10 && tally.answered.abs_diff(ended * 3) <= 6, "{tally:?}");
    assert_eq!(tally.frozen, 0, "{tally:?}");
}

#[test]
fn wrong_answers_are_failures() {
    let report = ask(serve(Conduct::FailsSometimes), Group::new("/", EXPECTED, 2));
    let tally = &report.groups[0];
    assert!(tally.failed > 2 && tally.answered.abs_diff(tally.failed * 2) <= 4, "{tally:?}");
    assert!(tally.first_failure.as_ref().is_some_and(|what| what.contains("500 Oh")), "{tally:?}");
}

#[test]
fn a_server_that_is_not_there_fails() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = ask(address, Group::new("/", EXPECTED, 1));
    assert!(report.groups[0].failed > 0 && report.groups[0].answered == 0, "{report:?}");
}

#[test]
fn connections_that_are_held_ask_once() {
    let plan = plan(serve(Conduct::ClosesAfterThree), vec![Group::new("/", EXPECTED, 100)]);
    let mut held = false;
    let report = client::hold(&plan, || held = true).unwrap();
    let tally = &report.groups[0];
    assert!(held && [tally.answered, tally.closed, tally.failed] == [100, 0, 0], "{tally:?}");
}

#[test]
fn host_and_the_floor_send_the_same_and_both_are_counted_right() {
    let site = Site::new();
    site.compile("hello", include_str!("../../handlers/hello.c"));
    let host = site.start(&["--threads", "1"]);
    let head = host.connect().get("/hello.so").unwrap().head;
    let (before, date) = head.split_at(head.find("Date: ").unwrap());
    let (_, after) = date.split_once("\r\n").unwrap();
    let dated = format!("{before}Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n{after}Hello, World!\n");
    assert_eq!(dated, String::from_utf8_lossy(floor::ANSWER));

    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _floor = start_floor(address, site.path(""), &[]);
    let closing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _closing = start_floor(closing, site.path("html"), &["--close"]);
    let group = |path: &str| Group::new(path, EXPECTED, 8);
    for (what, address, group) in [
        ("host", host.address(), group("/hello.so")),
        ("host, pipelining", host.address(), Group { depth: 16, ..group("/hello.so") }),
        ("host, closing", host.address(), Group { close: true, ..group("/hello.so") }),
        ("floor", address, group("/")),
        ("floor, closing", closing, Group { close: true, ..group("/") }),
    ] {
        let report = ask(address, group);
        let tally = &report.groups[0];
        let troubles = [tally.frozen, tally.unanswered, tally.failed, tally.closed];
        assert_eq!(troubles, [0; 4], "{what}: {tally:?}");
        assert!(tally.measured > 10 && tally.answered >= tally.measured, "{what}: {tally:?}");
        assert!(tally.p50_us > 0.0 && tally.p50_us <= tally.p99_us && tally.p999_us <= tally.max_us, "{what}");
    }
}

/// The floor as a process, once it accepts.
fn start_floor(address: SocketAddr, folder: impl AsRef<Path>, arguments: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peers"));
    command.args(["floor", "--address", &address.to_string()]).args(arguments);
    let running = Running::start(command, folder.as_ref().join("floor.log"), false).unwrap();
    eventually("the floor listens", PATIENCE, || TcpStream::connect(address).ok());
    running
}
