//! Disks that are full and readers that do not read: they hold up neither requests nor the server's end, and what is lost
//! is told.

use super::{lines_of, site, start};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use tests::{PATIENCE, Server, Site, eventually, server};

/// Requests with lines as long as they may be, in pipelines; how many there were.
fn flood(server: &Server, requests: usize) {
    let mut client = server.connect();
    let long = "x".repeat(2500);
    let request = format!("GET /a.txt?{long} HTTP/1.1\r\nHost: a\r\nUser-Agent: {long}\r\nReferer: {long}\r\n\r\n");
    const PIPELINE: usize = 10;
    for _ in 0..requests / PIPELINE {
        client.send(request.repeat(PIPELINE).as_bytes()).expect("the kernel takes it");
        for _ in 0..PIPELINE {
            assert_eq!(client.response().expect("an answer").status, 200);
        }
    }
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo is everywhere").success());
}

/// How many lines the server says it has dropped, by all lines of its log.
fn dropped(server: &Server) -> usize {
    let log = server.log();
    let counts = log.iter().filter_map(|line| {
        let count: Option<usize> = line.split("the access log goes on; ").nth(1)?.split(' ').next()?.parse().ok();
        count
    });
    counts.sum()
}

/// The queue has some megabytes: this is more.
const REQUESTS: usize = 3000;

#[test]
fn a_reader_who_stops_reading_holds_up_nobody_and_every_line_is_accounted_for() {
    let site = site();
    make_fifo(&site.path("access.log"));
    let server = start(&site, "combined", &["--threads", "2"]);
    // Nobody has read at all so far.
    flood(&server, REQUESTS);
    server.wait_for_log("lines of the access log are dropped: it takes no more", PATIENCE);
    // Then somebody does.
    let reader = File::open(site.path("access.log")).expect("a reader");
    let count = std::thread::spawn(move || {
        let lines = BufReader::new(reader).lines();
        lines
            .map(|line| line.expect("ASCII"))
            .inspect(|line| assert!(line.starts_with("127.0.0.1 - - ["), "{line}"))
            .count()
    });
    server.wait_for_log("the access log goes on; ", PATIENCE);
    flood(&server, 100);
    let dropped = dropped(&server);
    assert!(server.stop().success());
    assert!(dropped > 0);
    assert_eq!(count.join().expect("whole lines") + dropped, REQUESTS + 100);
}

#[test]
fn a_reader_who_never_reads_does_not_keep_the_server_from_its_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let site = site();
        make_fifo(&site.path("access.log"));
        let mut server = start(&site, "combined", &[]);
        flood(&server, REQUESTS);
        server.signal(signal);
        assert!(server.wait().success());
        let log = server.log().join("\n");
        assert!(log.contains(" lines of the access log were dropped"), "{log}");
    }
}

#[test]
fn a_rotation_is_not_held_up_by_a_reader_who_does_not_read() {
    let site = site();
    make_fifo(&site.path("access.log"));
    let server = start(&site, "combined", &[]);
    flood(&server, 100);
    fs::rename(site.path("access.log"), site.path("fifo")).expect("it is there");
    server.signal(Signal::USR1);
    let count = eventually("the lines are in the new file", PATIENCE, || {
        server.get("/a.txt");
        Some(lines_of(&site.path("access.log"))).filter(|lines| !lines.is_empty())
    });
    // The line of which the FIFO has the beginning has its end nowhere else.
    assert!(count.iter().all(|line| line.starts_with("127.0.0.1 - - [")), "{count:?}");
    assert!(server.stop().success());
}

/// A server that logs to its standard output.
fn start_on_output(site: &Site, redirection: &str) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]).arg(server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--access-log", "-", "--workers", "2"]);
    Server::start({
        command.current_dir(site.path("")).stdin(Stdio::null());
        command
    })
}

#[test]
fn the_standard_output_may_be_a_file() {
    let site = site();
    for redirection in ["> out", ">> out"] {
        _ = fs::remove_file(site.path("out"));
        let server = start_on_output(&site, redirection);
        for _ in 0..20 {
            server.get("/a.txt");
        }
        let mark = server.mark();
        server.signal(Signal::USR1);
        server.wait_for_log_since(mark, "the access log goes to the standard output", PATIENCE);
        assert!(server.stop().success());
        assert_eq!(lines_of(&site.path("out")).len(), 20, "{redirection}");
    }
}

/// SIGPIPE ends whoever does not think of it.
#[test]
fn a_reader_who_leaves_costs_only_lines() {
    let site = site();
    make_fifo(&site.path("pipe"));
    let reader = std::thread::spawn({
        let path = site.path("pipe");
        move || File::open(path).expect("a reader")
    });
    let server = start_on_output(&site, "> pipe");
    let mut reader = BufReader::new(reader.join().expect("it is open"));
    server.get("/a.txt");
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    assert!(line.contains("GET /a.txt"), "{line}");
    drop(reader);
    for _ in 0..50 {
        server.get("/a.txt");
    }
    server.wait_for_log("error cannot write the access log: Broken pipe", PATIENCE);
    // Another one comes.
    let mut reader = File::open(site.path("pipe")).expect("a reader");
    for _ in 0..50 {
        server.get("/a.txt");
    }
    server.wait_for_log("the access log goes on; ", PATIENCE);
    assert!(server.stop().success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("the rest");
    assert!(rest.lines().count() > 0 && rest.lines().all(|line| line.starts_with("127.0.0.1 - - [")), "{rest}");
}

#[test]
fn a_full_disk_costs_only_lines_and_the_log_goes_on_when_there_is_room() {
    let site = site();
    // A disk of our own, in a mount namespace of our own.
    fs::create_dir(site.path("disk")).expect("a new folder");
    let script = "mount -t tmpfs -o size=256k tmpfs disk && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--access-log", "disk/log", "--threads", "1"]);
    command.current_dir(site.path(""));
    let server = Server::start(command);
    let disk = Path::new("/proc")
        .join(server.id().to_string())
        .join("root")
        .join(site.path("disk").canonicalize().expect("it is there").strip_prefix("/").expect("an absolute path"));
    fs::write(disk.join("ballast"), vec![0; 100 << 10]).expect("there is room");
    flood(&server, REQUESTS);
    server.wait_for_log("error cannot write the access log: No space left on device", PATIENCE);
    server.wait_for_log("lines of the access log are dropped", PATIENCE);
    let log = disk.join("log");
    let before = fs::read(&log).expect("it is there").len();
    assert!(before > 0);
    // What is in the queue has no room either, until the file is moved to another disk.
    fs::remove_file(disk.join("ballast")).expect("it is there");
    eventually("the log goes on", PATIENCE, || (fs::read(&log).expect("it is there").len() > before).then_some(()));
    let text = fs::read_to_string(&log).expect("ASCII");
    assert!(text.lines().all(|line| line.starts_with("127.0.0.1 - - [")), "no line is torn");
    // Room for all that waits.
    fs::rename(&log, disk.join("old")).expect("it is there");
    fs::File::options().write(true).open(disk.join("old")).expect("it is there").set_len(0).expect("it can be cut");
    assert!(server.stop().success());
}

/// A line is in the file soon, although nobody asks again.
#[test]
fn a_single_line_is_written_without_another_request() {
    let site = site();
    let server = start(&site, "combined", &[]);
    server.get("/a.txt");
    eventually("its line", PATIENCE, || (lines_of(&site.path("access.log")).len() == 1).then_some(()));
}
