//! Handlers that take their time: they hold up nobody but their own client, and often not even that one. One loop serves
//! all of these, so that every other answer is one that it gave while a handler was waiting.

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tests::{Client, PATIENCE, Server, Site, cc, children, eventually};

/// A server with one loop, whose handlers wait at a gate.
struct Fixture {
    site: Site,
    server: Server,
}

impl Fixture {
    fn start(flags: &[&str], arguments: &[&str]) -> Fixture {
        let site = Site::new();
        let source = site.write("sources/handler.c", include_str!("handler.c"));
        cc(&source, &site.path("handlers/slow.so"), flags);
        cc(&source, &site.path("handlers/other.so"), &[]);
        let gate = format!("GATE={}", site.path("gate").display());
        let server = site.start(&[&["--threads", "1", "--env", &gate], arguments].concat());
        Fixture { site, server }
    }

    /// Sends a request whose handler waits, and returns when it does.
    fn wait_at(&self, path: &str) -> Client {
        let mark = self.server.mark();
        let mut client = self.server.connect();
        client.send(&get(path)).expect("the connection is open");
        self.server.wait_for_log_since(mark, "waiting", PATIENCE);
        client
    }

    fn open_gate(&self) {
        self.site.write("gate", "");
    }

    /// Another module, another client: answered at once.
    #[track_caller]
    fn assert_others_are_served(&self) {
        for _ in 0..20 {
            assert_eq!(self.server.get("/other.so").text(), "answered\n");
        }
    }

    fn worker(&self) -> u32 {
        eventually("a worker", PATIENCE, || {
            children(self.server.id()).into_iter().find(|child| child.command == "host: worker").map(|child| child.id)
        })
    }

    fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.worker())).expect("it runs").count()
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

#[track_caller]
fn assert_answered(client: &mut Client) {
    let response = client.response().expect("an answer");
    assert_eq!((response.status, response.text()), (200, "answered\n"));
}

#[test]
fn a_handler_that_waits_holds_up_nobody() {
    let fixture = Fixture::start(&[], &[]);
    let mut waiting: Vec<Client> = (0..20).map(|_| fixture.wait_at("/slow.so/wait")).collect();
    fixture.assert_others_are_served();
    // Nor others of the same application.
    assert_eq!(fixture.server.get("/slow.so").text(), "answered\n");
    fixture.open_gate();
    waiting.iter_mut().for_each(assert_answered);
    // Each connection goes on.
    for client in &mut waiting {
        assert_eq!(client.get("/slow.so").expect("an answer").text(), "answered\n");
    }
    assert!(fixture.server.stop().success());
}

#[test]
fn a_client_that_has_its_whole_response_does_not_wait_for_what_the_handler_does_then() {
    for path in ["/slow.so/written", "/slow.so/next", "/slow.so/close", "/slow.so/stream-close"] {
        for flags in [&[][..], &["-DFLAGS=HOST_BLOCKING"][..]] {
            let fixture = Fixture::start(flags, &[]);
            let mut client = fixture.wait_at(path);
            assert_answered(&mut client);
            assert_eq!(client.get("/other.so").expect("an answer").text(), "answered\n", "{path}");
            assert_eq!(client.get("/slow.so").expect("an answer").text(), "answered\n", "{path}");
            assert!(!fixture.server.log().iter().any(|line| line.contains("closed")), "{path} is over already");
            fixture.open_gate();
            fixture.server.wait_for_log("closed", PATIENCE);
            assert!(fixture.server.stop().success());
        }
    }
}

#[test]
fn a_body_is_closed_also_when_its_response_was_written_whole_before() {
    let fixture = Fixture::start(&[], &[]);
    fixture.open_gate();
    for count in [0, 1, -1] {
        let mark = fixture.server.mark();
        let mut client = fixture.server.connect();
        client.send(&get(&format!("/slow.so/written-body?{count}"))).expect("the connection is open");
        assert_answered(&mut client);
        fixture.server.wait_for_log_since(mark, "closed", PATIENCE);
    }
}

#[test]
fn a_stop_waits_for_a_handler_whose_client_has_left_with_its_whole_response() {
    let fixture = Fixture::start(&[], &[]);
    for path in ["/slow.so/written", "/slow.so/close"] {
        let mut client = fixture.wait_at(path);
        assert_answered(&mut client);
    }
    let Fixture { site, server } = fixture;
    let mark = server.mark();
    server.signal(Signal::TERM);
    server.wait_for_log_since(mark, "stopping", PATIENCE);
    site.write("gate", "");
    server.wait_for_log_since(mark, "closed", PATIENCE);
    let mut server = server;
    assert!(server.wait().success());
    assert_eq!(server.log()[mark..].iter().filter(|line| line.contains("closed")).count(), 2);
}

#[test]
fn pipelined_answers_are_sent_before_a_handler_waits_that_is_known_to() {
    let fixture = Fixture::start(&["-DFLAGS=HOST_BLOCKING"], &[]);
    let mut client = fixture.server.connect();
    client.send(&[get("/other.so"), get("/slow.so/wait"), get("/other.so")].concat()).expect("the connection is open");
    assert_answered(&mut client);
    fixture.server.wait_for_log("waiting", PATIENCE);
    fixture.open_gate();
    assert_answered(&mut client);
    assert_answered(&mut client);
}

#[test]
fn a_module_that_is_called_one_at_a_time_holds_up_only_its_own_requests() {
    let fixture = Fixture::start(&["-DFLAGS=HOST_NOT_THREAD_SAFE"], &[]);
    let mut first = fixture.wait_at("/slow.so/wait");
    let mut queued: Vec<Client> = (0..5).map(|_| fixture.server.connect()).collect();
    queued.iter_mut().for_each(|client| client.send(&get("/slow.so")).expect("the connection is open"));
    fixture.assert_others_are_served();
    let threads = fixture.threads();
    fixture.open_gate();
    assert_answered(&mut first);
    queued.iter_mut().for_each(assert_answered);
    assert!(threads < 20, "{threads} threads for one call");
}

#[test]
fn one_that_streams_its_input_waits_for_its_client_alone() {
    let fixture = Fixture::start(&["-DFLAGS=HOST_STREAM_INPUT"], &[]);
    let mut uploads: Vec<Client> = (0..5).map(|_| fixture.server.connect()).collect();
    for client in &mut uploads {
        let mark = fixture.server.mark();
        let head = b"POST /slow.so/read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234";
        client.send(head).expect("the connection is open");
        fixture.server.wait_for_log_since(mark, "reading", PATIENCE);
    }
    fixture.assert_others_are_served();
    for client in &mut uploads {
        client.send(b"56789").expect("the connection is open");
        assert_eq!(client.response().expect("an answer").text(), "10\n");
        assert_eq!(client.get("/other.so").expect("an answer").text(), "answered\n");
    }
}

/// So many, or as many as the system's limit of descriptors lets a server have, which keeps a quarter for other things.
fn connections(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a limit up to the hard one");
    let possible = maximum.map_or(wanted, |maximum| maximum as usize / 4 * 3 - 200);
    assert!(possible >= 500, "the limit of descriptors leaves no room for a crowd");
    wanted.min(possible)
}

#[test]
fn uploads_that_come_slowly_hold_no_thread() {
    let fixture = Fixture::start(&[], &["--limit-connections", "11000"]);
    fixture.assert_others_are_served();
    let before = fixture.threads();
    let mut uploads: Vec<Client> = (0..connections(10_000)).map(|_| fixture.server.connect()).collect();
    for client in &mut uploads {
        let head = b"POST /slow.so/read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234";
        client.send(head).expect("the connection is open");
    }
    fixture.assert_others_are_served();
    // On a machine that has other things to do, a quick call may be overtaken, for which a thread is made.
    assert!(fixture.threads() <= before + 10, "{} threads, {before} before", fixture.threads());
    for client in &mut uploads {
        client.send(b"56789").expect("the connection is open");
        assert_eq!(client.response().expect("an answer").text(), "10\n");
    }
}

#[test]
fn one_that_writes_to_a_client_who_takes_nothing_holds_up_nobody_and_learns_of_its_end() {
    let fixture = Fixture::start(&[], &[]);
    let mut client = fixture.server.connect();
    client.send(&get("/slow.so/write?200000000")).expect("the connection is open");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut client.stream(), &mut first).expect("the response begins");
    fixture.assert_others_are_served();
    let mark = fixture.server.mark();
    drop(client);
    fixture.server.wait_for_log_since(mark, "gone", PATIENCE);
    fixture.server.wait_for_log_since(mark, "closed", PATIENCE);
}

#[test]
fn more_calls_than_threads_are_refused_and_nobody_stalls() {
    let fixture = Fixture::start(&[], &["--limit-threads", "4"]);
    // One of the four is the loop's own.
    let mut waiting: Vec<Client> = (0..3).map(|_| fixture.wait_at("/slow.so/wait")).collect();
    fixture.site.write("html/page.txt", "a page\n");
    for path in ["/slow.so/wait", "/other.so"] {
        let response = fixture.server.get(path);
        assert_eq!(response.status, 503, "{}", response.text());
        assert!(response.field("Retry-After").is_some());
    }
    // What needs no handler is served as ever.
    assert_eq!(fixture.server.get("/page.txt").text(), "a page\n");
    fixture.open_gate();
    waiting.iter_mut().for_each(assert_answered);
    eventually("there is room again", PATIENCE, || (fixture.server.get("/other.so").status == 200).then_some(()));
}

#[test]
fn streams_go_on_when_there_was_no_thread_for_them() {
    let fixture = Fixture::start(&[], &["--limit-threads", "3"]);
    let mut stream = fixture.wait_at("/slow.so/next");
    let _waiting = fixture.wait_at("/slow.so/wait");
    assert_answered(&mut stream);
    // Its `next` has been called, or is called now; there is room for nothing else.
    eventually("no room", PATIENCE, || (fixture.server.get("/other.so").status == 503).then_some(()));
    fixture.open_gate();
    fixture.server.wait_for_log("closed", PATIENCE);
    eventually("there is room again", PATIENCE, || (fixture.server.get("/other.so").status == 200).then_some(()));
}

#[test]
fn calls_that_compute_queue_beyond_the_processors() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let fixture = Fixture::start(&[], &[]);
    // So long that it cannot be missed: from then on it is known.
    for _ in 0..3 {
        assert_eq!(fixture.server.get("/slow.so/compute?50").text(), "answered\n");
    }
    let mut clients: Vec<Client> = (0..4 * processors).map(|_| fixture.server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&get("/slow.so/compute?30")).expect("the connection is open"));
    fixture.assert_others_are_served();
    clients.iter_mut().for_each(assert_answered);
    let peak: usize = fixture.server.get("/slow.so/peak").text().trim().parse().expect("a number");
    assert!(peak <= processors, "{peak} at a time on {processors} processors");
}

#[test]
fn a_fast_client_beside_slow_ones_is_served_within_milliseconds() {
    let fixture = Fixture::start(&[], &[]);
    let address = fixture.server.address();
    let slow: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address).expect("it listens");
                for _ in 0..20 {
                    assert_eq!(client.get("/slow.so/sleep?50").expect("an answer").status, 200);
                }
            })
        })
        .collect();
    let mut client = fixture.server.connect();
    let mut answered = 0;
    let start = Instant::now();
    while !slow.iter().all(std::thread::JoinHandle::is_finished) {
        assert_eq!(client.get("/other.so").expect("an answer").status, 200);
        answered += 1;
    }
    let elapsed = start.elapsed();
    slow.into_iter().for_each(|thread| thread.join().expect("every slow request is answered"));
    // Held up by each of the 320, it would get one answer for each, in 16 seconds. Speed itself is not tested here.
    assert!(answered > 1_000, "{answered} in {elapsed:?}");
}

#[test]
fn threads_that_are_not_needed_any_more_end() {
    let fixture = Fixture::start(&[], &[]);
    fixture.assert_others_are_served();
    let before = fixture.threads();
    let mut waiting: Vec<Client> = (0..30).map(|_| fixture.wait_at("/slow.so/wait")).collect();
    assert!(fixture.threads() >= before + 28);
    fixture.open_gate();
    waiting.iter_mut().for_each(assert_answered);
    eventually("they end", PATIENCE, || (fixture.threads() <= before + 1).then_some(()));
}

/// How often the threads of a process have given their processor up, each time to wait.
fn waits(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap_or_default();
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    tasks.filter_map(Result::ok).filter_map(|task| count(status(task))).sum()
}

#[test]
fn a_worker_without_requests_never_wakes_up() {
    for arguments in [&[][..], &["--access-log", "access.log"]] {
        assert_it_rests(&Fixture::start(&[], arguments));
    }
}

fn assert_it_rests(fixture: &Fixture) {
    let mut idle = fixture.server.connect();
    assert_eq!(idle.get("/other.so").expect("an answer").status, 200);
    assert_eq!(idle.get("/slow.so/sleep?20").expect("an answer").status, 200);
    let worker = fixture.worker();
    let span = Duration::from_secs(2);
    eventually("no thread wakes up any more", PATIENCE, || {
        let before = waits(worker);
        std::thread::park_timeout(span);
        (waits(worker) == before).then_some(())
    });
    assert_eq!(idle.get("/other.so").expect("an answer").status, 200);
}

/// Requests whose system calls are counted together, and how often that is tried.
const REQUESTS: usize = 100;
const ROUNDS_MAX: usize = 50;

#[test]
fn a_small_request_to_a_handler_takes_one_read_and_one_write() {
    assert_frugal(&Fixture::start(&[], &[]), &[]);
}

/// Lines go to their writer by some hundred, or twice a second.
#[test]
fn a_line_of_the_access_log_takes_no_system_call() {
    assert_frugal(&Fixture::start(&[], &["--access-log", "access.log"]), &["write"]);
}

/// `rare`: what may be called now and then.
fn assert_frugal(fixture: &Fixture, rare: &[&str]) {
    let trace = fixture.site.path("trace");
    let mut client = fixture.server.connect();
    assert_eq!(client.get("/other.so").expect("an answer").status, 200);
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .args(["-p", &fixture.worker().to_string()])
        .spawn()
        .expect("strace is installed by tests/run");
    let attached = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("recvfrom"));
    eventually("strace has attached", PATIENCE, || {
        assert_eq!(client.get("/other.so").expect("an answer").status, 200);
        attached(&trace).then_some(())
    });
    // On a machine that has other things to do, a call may be overtaken, and the next few are handed off. So not every
    // round is one of inline calls; but a system call more for each request would be in all of them.
    let mut rounds = Vec::new();
    let one_is_plain = (0..ROUNDS_MAX).any(|_| {
        let start = fs::read_to_string(&trace).expect("a trace").len();
        for _ in 0..REQUESTS {
            assert_eq!(client.get("/other.so").expect("an answer").status, 200);
        }
        let calls = calls_of_those_who_serve(&fs::read_to_string(&trace).expect("a trace")[start..]);
        let of = |name: &str| calls.get(name).copied().unwrap_or(0);
        // The trace may begin and end within a request.
        let about = |count: usize| (REQUESTS - 2..=REQUESTS + 2).contains(&count);
        // Waking the monitor is not the request's: it does not grow with the rate of requests.
        let plain = ["recvfrom", "sendto", "epoll_wait", "epoll_pwait", "epoll_pwait2", "futex"];
        let is_plain = about(of("recvfrom"))
            && about(of("sendto"))
            && of("futex") < REQUESTS / 10
            && rare.iter().all(|call| of(call) < REQUESTS / 10)
            && calls.keys().all(|call| plain.contains(&call.as_str()) || rare.contains(&call.as_str()));
        rounds.push(calls);
        is_plain
    });
    kill_process(Pid::from_child(&strace), Signal::INT).expect("it runs");
    strace.wait().expect("it ends");
    assert!(one_is_plain, "{rounds:?}");
}

/// How often which system call was made, by an excerpt from strace's output. Only threads count that receive: others wait
/// for what may never come, which strace writes down when it finds them.
fn calls_of_those_who_serve(trace: &str) -> BTreeMap<String, usize> {
    let calls = trace.lines().filter(|line| !line.contains("resumed")).filter_map(|line| {
        let (thread, call) = line.split_once(' ')?;
        call.trim_start().split_once('(').map(|(name, _)| (thread, name))
    });
    let calls: Vec<_> = calls.collect();
    let serves = |of: &str| calls.iter().any(|(thread, name)| *thread == of && *name == "recvfrom");
    let mut counts = BTreeMap::new();
    calls
        .iter()
        .filter(|(thread, _)| serves(thread))
        .for_each(|(_, name)| *counts.entry((*name).to_owned()).or_insert(0) += 1);
    counts
}
