//! Handlers that hang: each costs its own request and its worker, and nobody else anything.

use super::{Fixture, innocents};
use std::io::Read;
use std::time::Duration;
use tests::PATIENCE;

/// What becomes of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// 504, and the connection is closed.
    Timeout,
    /// The response ends before it is complete.
    Aborted,
    /// What it asked for: the hang comes after that.
    Answered,
}

use Fate::{Aborted, Answered, Timeout};

/// Calls that wait for what never comes: the path, and what becomes of its request.
const WAITS: [(&str, Fate); 6] = [
    ("/hang/lock", Timeout),
    ("/hang/sleep", Timeout),
    ("/hang/write", Aborted),
    ("/hang/next", Timeout),
    ("/hang/next/later", Aborted),
    ("/hang/close", Answered),
];

/// Calls that compute without an end.
const COMPUTES: [(&str, Fate); 4] =
    [("/hang/loop", Timeout), ("/hang/get", Timeout), ("/hang/read", Timeout), ("/hang/malloc", Timeout)];

impl Fixture {
    #[track_caller]
    fn assert_hang(&self, path: &str, fate: Fate) {
        match (fate, self.offend(path)) {
            (Timeout, Ok(response)) => {
                assert_eq!(response.status, 504, "{path}: {}", response.text());
                assert!(response.closes(), "{path}");
            }
            (Answered, Ok(response)) => assert_eq!(response.status, 200, "{path}"),
            (Aborted, Err(_)) => {}
            (_, other) => panic!("{path}: {fate:?} expected, not {other:?}"),
        }
    }
}

fn each_costs_its_own_request(arguments: &[&str], hangs: &[(&str, Fate)], told: &str) -> Fixture {
    let fixture = Fixture::start(&[arguments, &["--threads", "1"]].concat());
    for &(path, fate) in hangs {
        let (workers, mark) = (fixture.workers(), fixture.server.mark());
        let mut bystander = fixture.server.connect();
        assert_eq!(bystander.get("/guilty.so").expect("an answer").status, 200);
        fixture.assert_hang(path, fate);
        let line = fixture.server.wait_for_log_since(mark, "guilty generation 1 hung: ", PATIENCE);
        assert!(line.contains(told) && line.contains(&format!("(POST /guilty.so{path})")), "{path}: {line}");
        assert_eq!(bystander.get("/guilty.so").expect("the connection is kept").text(), "answered\n", "after {path}");
        fixture.replaced(&workers);
    }
    fixture
}

#[test]
fn a_call_that_waits_for_ever_costs_its_own_request_and_is_named() {
    let fixture =
        each_costs_its_own_request(&["--timeout-handler", "1s"], &WAITS, "no progress within --timeout-handler");
    fixture.server.wait_for_log("called by wait_for_ever at ", PATIENCE);
}

#[test]
fn a_call_that_computes_for_ever_costs_its_own_request_and_is_named() {
    let told = "more time on a processor than --timeout-cpu";
    let fixture = each_costs_its_own_request(&["--timeout-cpu", "300ms"], &COMPUTES, told);
    let line = fixture.server.wait_for_log("in compute_for_ever at ", PATIENCE);
    assert!(line.contains("guilty.c:"), "{line}");
}

/// All of them at once, many times over, among good traffic.
#[test]
fn many_hangs_under_load_cost_nobody_else() {
    const EACH: usize = 4;
    let hangs = [&WAITS[..], &COMPUTES].concat();
    let fixture = Fixture::start(&["--timeout-handler", "2s", "--timeout-cpu", "500ms"]);
    let load = innocents(&fixture.server, 32);
    load.flow(100);
    std::thread::scope(|scope| {
        for (path, fate) in std::iter::repeat_n(hangs, EACH).flatten() {
            let fixture = &fixture;
            scope.spawn(move || fixture.assert_hang(path, fate));
        }
    });
    load.flow(100);
    load.finish().assert_nothing_lost();
}

/// A worker is replaced when more than 64 threads are parked after crashes. These are no crashes.
#[test]
fn a_hundred_calls_that_wait_for_the_same_thing_are_each_answered() {
    const CALLS: usize = 100;
    let fixture = Fixture::start(&["--timeout-handler", "1s"]);
    let clients: Vec<_> = (0..CALLS)
        .map(|_| {
            let mut client = fixture.server.connect();
            client.send(b"GET /guilty.so/hang/lock HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
            client
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").status, 504);
    }
    assert_eq!(fixture.server.get("/guilty.so").text(), "answered\n");
    // It waits for somebody else: the build is not to blame.
    let log = fixture.server.log();
    assert!(!log.iter().any(|line| line.contains("refused")), "{log:?}");
}

#[test]
fn what_makes_progress_is_not_cut() {
    let fixture = Fixture::start(&["--timeout-handler", "1s", "--timeout-cpu", "1s"]);
    let workers = fixture.workers();
    for path in ["/slow/next", "/slow/write"] {
        let response = fixture.offend(path).expect("an answer");
        assert_eq!((response.status, response.text()), (200, "some ".repeat(8).as_str()), "{path}");
    }
    // A client that takes its time is no handler that does.
    let mut client = fixture.server.connect();
    client.send(b"GET /guilty.so/slow/client HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it is open");
    std::thread::sleep(Duration::from_secs(3));
    let mut all = Vec::new();
    client.stream().read_to_end(&mut all).expect("it is sent to its end");
    assert!(all.len() > 32 << 20 && all.ends_with(b"0\r\n\r\n"), "{} bytes", all.len());
    assert_eq!(fixture.workers(), workers, "nothing was replaced");
}

#[test]
fn a_call_that_cannot_be_interrupted_ends_with_its_worker() {
    let fixture = Fixture::start(&["--timeout-handler", "500ms", "--timeout-stop", "1s", "--threads", "1"]);
    let workers = fixture.workers();
    let mut bystander = fixture.server.connect();
    assert_eq!(bystander.get("/innocent.so").expect("an answer").status, 200);
    fixture.offend("/hang/masked").expect_err("its worker is ended");
    fixture.server.wait_for_log("guilty generation 1 hung: a thread that cannot be interrupted", PATIENCE);
    assert_eq!(bystander.get("/innocent.so").expect("the connection is kept").status, 200);
    fixture.replaced(&workers);
}

#[test]
fn a_server_without_requests_does_not_forget_a_call_that_hangs() {
    let fixture = Fixture::start(&["--timeout-handler", "3s"]);
    // The monitor has long parked when the limit is reached.
    assert_eq!(fixture.offend("/hang/sleep").expect("an answer").status, 504);
    fixture.server.wait_for_log("guilty generation 1 hung: no progress within --timeout-handler", PATIENCE);
}
