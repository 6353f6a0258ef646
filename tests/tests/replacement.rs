//! Replacement of workers without loss: under load, and of connections in every state that they can be in.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::{Client, Load, PATIENCE, Response, Server, Site, cc, children, eventually, probe};

/// 32 connections that GET `path` and hold every announcement against the answers: a request that begins after the line
/// `reloaded` is never answered by an older version.
fn load_that_believes_announcements(server: &Server, path: &str, announced: &Arc<AtomicUsize>) -> Load {
    let noted = Arc::clone(announced);
    let verify = |_: &str, floor: usize, response: &Response| match probe::version(response) {
        version if version < floor => Err(format!("version {version} answered after {floor} was announced")),
        _ => Ok(()),
    };
    Load::start_noting(server.address(), 32, &[path], move |_| noted.load(Ordering::SeqCst), verify)
}

/// The workers that live.
fn workers(server: &Server) -> Vec<u32> {
    let workers = children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    workers.map(|worker| worker.id).collect()
}

/// A handler in C++ whose answer is held by a symbol that is unique in its process: a worker that has loaded one build
/// would see the same value in all later ones.
fn build_unique(site: &Site, version: usize) {
    let source = format!(
        r#"#include "host.h"
        struct version {{ char text[8]; }};
        inline version &now() {{ static version version = {{"{version}"}}; return version; }}
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
            host_header headers[] = {{{{HOST_STR("X-Version"), {{now().text, {length}}}}}}};
            start_response->call(start_response, HOST_STR("200 OK"), headers, 1, nullptr);
            return env->bytes(env, HOST_STR("answered\n"));
        }}"#,
        length = version.to_string().len()
    );
    cc(&site.write("sources/unique.cc", source), &site.path("handlers/unique.so"), &[]);
}

/// Rebuilds under load, `count` times, waiting for each announcement.
fn rebuild_under_load(site: &Site, server: &Server, module: &str, count: usize, build: impl Fn(&Site, usize)) {
    let announced = Arc::new(AtomicUsize::new(1));
    let load = load_that_believes_announcements(server, &format!("/{module}.so"), &announced);
    load.flow(100);
    for version in 2..2 + count {
        let mark = server.mark();
        build(site, version);
        server.wait_for_log_since(mark, &format!("reloaded {module} generation {version}"), PATIENCE);
        announced.store(version, Ordering::SeqCst);
    }
    load.flow(100);
    load.finish().assert_nothing_lost();
    assert!(!server.log().iter().any(|line| line.contains("error") || line.contains("warn")), "{:?}", server.log());
}

#[test]
fn thirty_builds_that_need_a_new_worker_each_lose_nothing_and_each_line_is_true() {
    let site = Site::new();
    build_unique(&site, 1);
    let server = site.start(&["--threads", "2"]);
    rebuild_under_load(&site, &server, "unique", 30, build_unique);
    eventually("the old workers are gone", PATIENCE, || (workers(&server).len() == 1).then_some(()));
}

#[test]
fn builds_that_need_new_workers_lose_nothing_with_two_workers_either() {
    let site = Site::new();
    build_unique(&site, 1);
    let server = site.start(&["--workers", "2", "--threads", "1"]);
    rebuild_under_load(&site, &server, "unique", 10, build_unique);
    eventually("the old workers are gone", PATIENCE, || (workers(&server).len() == 2).then_some(()));
}

#[test]
fn a_worker_that_keeps_too_many_generations_is_replaced_without_loss() {
    let site = Site::new();
    let build = |site: &Site, version| drop(probe::build(site, "probe", version, &[]));
    build(&site, 1);
    let server = site.start(&["--threads", "2", "--limit-generations", "3"]);
    let first = workers(&server);
    rebuild_under_load(&site, &server, "probe", 40, build);
    eventually("one other worker is left", PATIENCE, || {
        let now = workers(&server);
        (now.len() == 1 && now != first).then_some(())
    });
}

/// Makes a new build that needs a new worker, and waits until no request begins in the old one any more.
fn replace(site: &Site, server: &Server, version: usize) {
    let mark = server.mark();
    probe::build(site, "probe", version, &["-DREPLACE"]);
    server.wait_for_log_since(mark, "reloaded probe generation", PATIENCE);
}

/// A site whose server, started with the second value as its arguments, has handlers that wait at a gate.
fn gated(flags: &[&str]) -> (Site, [String; 4]) {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[&["-DREPLACE"], flags].concat());
    probe::build(&site, "other", 1, &[]);
    let gate = format!("GATE={}", site.path("gate").display());
    (site, ["--threads".to_owned(), "3".to_owned(), "--env".to_owned(), gate])
}

/// As [`replace`], while handlers wait at the gate: they hold nobody up, and the gate opens when the new build has been
/// announced.
fn replace_before_the_gate_opens(site: &Site, server: &Server, flags: &[&str]) {
    let mut free = server.connect();
    let old = probe::process(&free.get("/other.so").expect("an answer"));
    let mark = server.mark();
    probe::build(site, "probe", 2, &[&["-DREPLACE"], flags].concat());
    server.wait_for_log_since(mark, "reloaded probe generation 2", PATIENCE);
    assert_ne!(probe::process(&free.get("/other.so").expect("an answer")), old, "it has moved");
    site.write("gate", "");
}

/// Sends bytes and waits until the server has taken them out of the kernel.
fn send(client: &mut Client, bytes: &[u8]) {
    client.send(bytes).expect("the kernel takes it");
    let (here, there) = (client.stream().local_addr(), client.stream().peer_addr());
    let (here, there) = (here.expect("an address").port(), there.expect("an address").port());
    // proc(5): local address, remote address, state 01 (established), and the queues as tx:rx.
    let (local, remote) = (format!(":{there:04X}"), format!(":{here:04X}"));
    eventually("the server has received what was sent", PATIENCE, || {
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1].ends_with(&local) && row[2].ends_with(&remote))?;
        row[4].ends_with(":00000000").then_some(())
    });
}

#[track_caller]
fn assert_version(response: std::io::Result<Response>, version: usize, text: &str) {
    let response = response.expect("an answer");
    assert_eq!((probe::version(&response), response.text() == text), (version, true), "{}", response.head);
}

fn connected(server: &Server) -> Client {
    let mut client = server.connect();
    assert_version(client.get("/probe.so"), 1, "answered\n");
    client
}

#[test]
fn connections_move_between_and_within_requests_with_every_byte() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DREPLACE"]);
    let server = site.start(&["--threads", "2", "--bind", "unix:host.sock"]);
    let [mut idle, mut head, mut memory, mut file, mut size_line, mut trailer, mut waits, mut asterisk, mut site_file] =
        std::array::from_fn(|_| connected(&server));
    let mut fresh = server.connect();
    let mut unix = Client::connect_unix(&site.path("host.sock")).expect("it listens");
    assert_version(unix.get("/probe.so"), 1, "answered\n");

    let post = |framing: &str| format!("POST /probe.so/echo HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").into_bytes();
    send(&mut head, b"GET /probe.so HTTP/1.1\r\nHos");
    send(&mut memory, &[&post("Content-Length: 10")[..], b"01234"].concat());
    let large: Vec<u8> = (0..300_000).map(|at| b'a' + (at % 23) as u8).collect();
    send(&mut file, &[&post("Content-Length: 300000")[..], &large[..200_000]].concat());
    // The size is 0x10.
    send(&mut size_line, &[&post("Transfer-Encoding: chunked")[..], b"5\r\nhello\r\n1"].concat());
    send(&mut trailer, &[&post("Transfer-Encoding: chunked")[..], b"5\r\nhello\r\n0\r\nX-Trai"].concat());
    send(&mut waits, &post("Expect: 100-continue\r\nContent-Length: 5"));
    assert_eq!(waits.response().expect("an interim response").status, 100);
    send(&mut asterisk, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    send(&mut site_file, b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");

    replace(&site, &server, 2);

    assert_version(idle.get("/probe.so"), 2, "answered\n");
    assert_version(fresh.get("/probe.so"), 2, "answered\n");
    assert_version(unix.get("/probe.so"), 2, "answered\n");
    head.send(b"t: a\r\n\r\n").expect("the connection is open");
    assert_version(head.response(), 2, "answered\n");
    memory.send(b"56789").expect("the connection is open");
    assert_version(memory.response(), 2, "0123456789");
    file.send(&large[200_000..]).expect("the connection is open");
    assert_version(file.response(), 2, std::str::from_utf8(&large).expect("letters"));
    size_line.send(b"0\r\n0123456789abcdef\r\n0\r\n\r\n").expect("the connection is open");
    assert_version(size_line.response(), 2, "hello0123456789abcdef");
    trailer.send(b"ler: x\r\n\r\n").expect("the connection is open");
    assert_version(trailer.response(), 2, "hello");
    waits.send(b"12345").expect("the connection is open");
    assert_version(waits.response(), 2, "12345");
    asterisk.send(b"cd").expect("the connection is open");
    assert_eq!(asterisk.response_to("OPTIONS").expect("an answer").status, 204);
    site_file.send(b"cd").expect("the connection is open");
    assert_eq!(site_file.response().expect("an answer").status, 404);
    // All of them go on after that.
    for client in [idle, head, memory, file, size_line, trailer, waits, asterisk, site_file, fresh].iter_mut() {
        assert_version(client.get("/probe.so"), 2, "answered\n");
    }
}

#[test]
fn what_is_being_answered_is_completed_and_then_its_connection_moves() {
    let (site, arguments) = gated(&[]);
    let server = site.start(&arguments.each_ref().map(String::as_str));
    let [mut pipelined, mut stream, mut reader] = std::array::from_fn(|_| connected(&server));
    let next = b"GET /probe.so HTTP/1.1\r\nHost: a\r\n\r\n";
    reader.send(b"GET /probe.so/large?20971520 HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    let mut first = [0; 1];
    reader.stream().read_exact(&mut first).expect("the response begins");
    stream.send(&[&b"GET /probe.so/lines?100 HTTP/1.1\r\nHost: a\r\n\r\n"[..], next].concat()).expect("it is open");
    let gate = b"GET /probe.so/gate?100 HTTP/1.1\r\nHost: a\r\n\r\n";
    pipelined.send(&[&gate[..], next, b"GET /probe.so/echo HTTP/1.1\r\nHost: a\r\n\r\n", next].concat()).expect("open");
    server.wait_for_log("waiting", PATIENCE);
    server.wait_for_log("half-way", PATIENCE);

    replace_before_the_gate_opens(&site, &server, &[]);

    assert_version(pipelined.response(), 1, "answered\n");
    assert_version(pipelined.response(), 2, "answered\n");
    assert_version(pipelined.response(), 2, "");
    assert_version(pipelined.response(), 2, "answered\n");
    let lines: String = (1..=100).rev().map(|line| format!("{line}\n")).collect();
    assert_version(stream.response(), 1, &lines);
    assert_version(stream.response(), 2, "answered\n");
    // 20 MiB at 64 KiB a read: the kernel's buffers hold only a part of it, so the old worker has to wait.
    let mut rest = Client::over(Slowly(reader.stream(), Some(first[0])));
    let expected: String = (0..20 << 20).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    assert_version(rest.response(), 1, &expected);
    assert_version(rest.get("/probe.so"), 2, "answered\n");
    eventually("the old worker is gone", PATIENCE, || (workers(&server).len() == 1).then_some(()));
}

/// A stream whose first byte has been read already.
struct Slowly<'a>(&'a TcpStream, Option<u8>);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.1.take() {
            Some(first) => {
                buffer[0] = first;
                Ok(1)
            }
            None => self.0.read(buffer),
        }
    }
}

impl std::io::Write for Slowly<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn those_who_wait_for_a_module_that_is_called_one_at_a_time_are_answered_by_the_next_worker() {
    let flags = ["-DFLAGS=HOST_NOT_THREAD_SAFE"];
    let (site, arguments) = gated(&flags);
    let server = site.start(&arguments.each_ref().map(String::as_str));
    let mut inside = connected(&server);
    let mut waiting: Vec<Client> = (0..6).map(|_| connected(&server)).collect();
    inside.send(b"GET /probe.so/gate?100 HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    server.wait_for_log("waiting", PATIENCE);
    for client in &mut waiting {
        client.send(b"POST /probe.so/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").expect("it is open");
    }
    replace_before_the_gate_opens(&site, &server, &flags);
    assert_version(inside.response(), 1, "answered\n");
    for client in &mut waiting {
        assert_version(client.response(), 2, "abc");
    }
}

#[test]
fn replacements_that_overtake_each_other_lose_nothing() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DREPLACE"]);
    let server = site.start(&["--threads", "2", "--workers", "2"]);
    let announced = Arc::new(AtomicUsize::new(1));
    let load = load_that_believes_announcements(&server, "/probe.so", &announced);
    let mut head = connected(&server);
    send(&mut head, b"GET /probe.so HTTP/1.1\r\nHos");
    let mut content = connected(&server);
    send(&mut content, b"POST /probe.so/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n");
    for version in 2..=20 {
        // Without a look at the log: a replacement may be booting, opening, or draining the one before it.
        probe::build(&site, "probe", version, &["-DREPLACE"]);
        content.send(b"x").expect("the connection is open");
        load.flow(20);
    }
    eventually("the last build answers, and the workers before are gone", PATIENCE, || {
        (probe::version(&server.get("/probe.so")) == 20 && workers(&server).len() == 2).then_some(())
    });
    content.send(b"y").expect("the connection is open");
    assert_version(content.response(), 20, "xxxxxxxxxxxxxxxxxxxy");
    head.send(b"t: a\r\n\r\n").expect("the connection is open");
    assert_version(head.response(), 20, "answered\n");
    load.flow(100);
    load.finish().assert_nothing_lost();
    assert_eq!(workers(&server).len(), 2);
}

#[test]
fn a_replacement_that_dies_before_it_serves_is_started_again_and_nobody_notices() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DREPLACE"]);
    let server = site.start(&["--threads", "2"]);
    let announced = Arc::new(AtomicUsize::new(1));
    let load = load_that_believes_announcements(&server, "/probe.so", &announced);
    load.flow(100);
    let old = workers(&server);
    // Its init takes so long that the replacement is sure to be in it.
    let mark = server.mark();
    probe::build(&site, "probe", 2, &["-DREPLACE", "-DSERVE=wait_ms(300)"]);
    let replacement =
        eventually("a replacement", PATIENCE, || workers(&server).into_iter().find(|id| !old.contains(id)));
    let replacement = Pid::from_raw(replacement.cast_signed()).expect("a process id");
    kill_process(replacement, Signal::KILL).expect("the process is there");
    server.wait_for_log_since(mark, "reloaded probe generation 2", PATIENCE);
    announced.store(2, Ordering::SeqCst);
    load.flow(100);
    load.finish().assert_nothing_lost();
    eventually("one worker is left", PATIENCE, || (workers(&server).len() == 1).then_some(()));
}

#[test]
fn more_connections_than_the_callers_soft_limit_of_descriptors_move_at_once() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DREPLACE"]);
    let host = site.command(&[]);
    let mut command = Command::new("sh");
    command.current_dir(site.path(".")).args(["-c", "ulimit -Sn 128; exec \"$0\" \"$@\""]).arg(host.get_program());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--threads", "2"]);
    let server = Server::start(command);
    let mut clients: Vec<Client> = (0..400).map(|_| connected(&server)).collect();
    for client in clients.iter_mut().step_by(2) {
        client.send(b"GET /probe.so HTTP/1.1\r\nHos").expect("the connection is open");
    }
    replace(&site, &server, 2);
    for (at, client) in clients.iter_mut().enumerate() {
        let rest: &[u8] = if at % 2 == 0 { b"t: a\r\n\r\n" } else { b"GET /probe.so HTTP/1.1\r\nHost: a\r\n\r\n" };
        client.send(rest).expect("the connection is open");
        assert_version(client.response(), 2, "answered\n");
    }
}

#[test]
fn what_does_not_end_is_ended_after_the_time_for_it_and_counted() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DREPLACE"]);
    let server = site.start(&["--threads", "2", "--timeout-stop", "1"]);
    let mut endless = connected(&server);
    endless.send(b"GET /probe.so/sleep?3600000 HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    server.wait_for_log("sleeping", PATIENCE);
    replace(&site, &server, 2);
    server.wait_for_log("ended 1 connections that were still busy", PATIENCE);
    assert!(endless.response().is_err());
    assert_eq!(probe::version(&server.get("/probe.so")), 2);
    eventually("the old worker is gone", PATIENCE, || (workers(&server).len() == 1).then_some(()));
}
