//! Other files, other configurations, other processes: no line is lost, doubled or torn.

use super::{lines_of, site, start};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::{Load, PATIENCE, Server, Site, children, eventually};

fn load(server: &Server) -> Load {
    let paths = ["/a.txt", "/module.so", "/module.so/chunks", "/module.so/slow", "/nothing"];
    Load::start(server.address(), 8, &paths, |path, response| {
        let expected = if path == "/nothing" { 404 } else { 200 };
        (response.status == expected).then_some(()).ok_or_else(|| response.head.clone())
    })
}

/// All lines of all files, each of which must be whole; and how many there are.
#[track_caller]
fn assert_lines_are_whole(site: &Site, files: &[String]) -> u64 {
    let mut counts = HashMap::new();
    for file in files {
        let text = fs::read_to_string(site.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.is_empty() || text.ends_with('\n'), "{file} ends within a line");
        for line in text.lines() {
            let right = line.starts_with("127.0.0.1 - - [") && line.ends_with(" \"-\" \"-\"");
            assert!(right && line.matches("HTTP/1.1").count() == 1, "{file}: {line}");
            *counts.entry(file).or_insert(0) += 1;
        }
    }
    counts.values().sum()
}

fn workers(server: &Server) -> Vec<u32> {
    let workers = children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    workers.map(|worker| worker.id).collect()
}

#[test]
fn rotation_under_load_loses_no_line_and_doubles_none() {
    let site = site();
    let server = start(&site, "combined", &["--workers", "2", "--threads", "2"]);
    let load = load(&server);
    let mut files = Vec::new();
    for round in 0..10 {
        load.flow(300);
        let old = format!("access.log.{round}");
        fs::rename(site.path("access.log"), site.path(&old)).expect("it is there");
        let mark = server.mark();
        server.signal(Signal::USR1);
        server.wait_for_log_since(mark, "opened the access log anew", PATIENCE);
        eventually("the new file is written to", PATIENCE, || {
            (!lines_of(&site.path("access.log")).is_empty()).then_some(())
        });
        files.push(old);
    }
    let report = load.finish();
    report.assert_nothing_lost();
    assert!(server.stop().success());
    files.push("access.log".to_owned());
    assert_eq!(assert_lines_are_whole(&site, &files), report.answered);
    assert!(fs::metadata(site.path("access.log")).expect("it is there").permissions().mode() & 0o007 == 0);
}

/// Whatever ends a worker, or the whole server in good order, its lines are written by then.
#[test]
fn no_line_is_lost_by_replacements_reloads_and_upgrades() {
    let site = site();
    let mut server = start(&site, "combined", &["--workers", "2"]);
    let load = load(&server);
    load.flow(200);
    for _ in 0..3 {
        let mark = server.mark();
        server.signal(Signal::HUP);
        server.wait_for_log_since(mark, "reloaded everything in", PATIENCE);
        load.flow(100);
        server.upgrade();
        load.flow(100);
        let mark = server.mark();
        server.signal(Signal::TTOU);
        server.wait_for_log_since(mark, "1 worker serve", PATIENCE);
        server.signal(Signal::TTIN);
        server.wait_for_log_since(mark, "2 workers serve", PATIENCE);
    }
    let report = load.finish();
    report.assert_nothing_lost();
    assert!(server.stop().success());
    assert_eq!(assert_lines_are_whole(&site, &["access.log".to_owned()]), report.answered);
}

#[test]
fn a_fast_stop_writes_what_was_answered() {
    let site = site();
    for signal in [Signal::INT, Signal::QUIT] {
        let mut server = start(&site, "combined", &["--threads", "2"]);
        let mut client = server.connect();
        for _ in 0..30 {
            client.get("/a.txt").expect("an answer");
        }
        server.signal(signal);
        assert!(server.wait().success());
        assert_eq!(assert_lines_are_whole(&site, &["access.log".to_owned()]), 30);
        fs::remove_file(site.path("access.log")).expect("it is there");
    }
}

/// Half a second of its own lines goes with a worker that is killed, and nothing of others'.
#[test]
fn a_worker_that_is_killed_takes_no_older_line_with_it() {
    let site = site();
    let server = start(&site, "combined", &["--workers", "2"]);
    for round in 1..4 {
        for _ in 0..20 {
            server.get("/a.txt");
        }
        eventually("the lines are written", PATIENCE, || {
            (lines_of(&site.path("access.log")).len() == 20 * round).then_some(())
        });
        let victim = workers(&server)[0];
        let mark = server.mark();
        kill_process(Pid::from_raw(victim as i32).expect("a process"), Signal::KILL).expect("it runs");
        server.wait_for_log_since(mark, "died of SIGKILL", PATIENCE);
        eventually("another takes its place", PATIENCE, || (workers(&server).len() == 2).then_some(()));
    }
    server.get("/a.txt");
    assert!(server.stop().success());
    assert_eq!(assert_lines_are_whole(&site, &["access.log".to_owned()]), 61);
}

#[test]
fn a_file_that_cannot_be_opened_anew_leaves_the_old_one() {
    let site = site();
    let log = site.path("access.log");
    let server = start(&site, "combined", &[]);
    server.get("/a.txt");
    fs::rename(&log, site.path("old")).expect("it is there");
    fs::create_dir(&log).expect("the name is free");
    let mark = server.mark();
    server.signal(Signal::USR1);
    let line = server.wait_for_log_since(mark, "going on with the access log that was open", PATIENCE);
    assert!(line.contains("error --access-log: ") && line.contains("access.log is a folder"), "{line}");
    // A reload is refused as a whole.
    server.signal(Signal::HUP);
    let line = server.wait_for_log_since(mark, "not reloaded", PATIENCE);
    assert!(line.contains("access.log is a folder"), "{line}");
    server.get("/a.txt");
    eventually("both lines", PATIENCE, || (lines_of(&site.path("old")).len() == 2).then_some(()));
    fs::remove_dir(&log).expect("an empty folder");
    let mark = server.mark();
    server.signal(Signal::USR1);
    server.wait_for_log_since(mark, "opened the access log anew", PATIENCE);
    server.get("/a.txt");
    assert!(server.stop().success());
    assert_eq!(assert_lines_are_whole(&site, &["old".to_owned(), "access.log".to_owned()]), 3);
}

#[test]
fn a_reload_turns_the_log_on_elsewhere_and_off() {
    let site = site();
    let begin = |settings: &str| site.write("host.toml", format!("bind = [\"127.0.0.1:0\"]\n{settings}"));
    begin("");
    let server = Server::start(site.command(&["--config", "host.toml", "--runtime", "runtime"]));
    let mut client = server.connect();
    let mut step = |settings: &str, changed: &str| {
        begin(settings);
        let mark = server.mark();
        server.signal(Signal::HUP);
        server.wait_for_log_since(mark, "reloaded everything in", PATIENCE);
        let line = server.wait_for_log_since(mark, "changed options: ", PATIENCE);
        assert!(line.ends_with(changed), "{line}");
        client.get("/a.txt").expect("an answer");
    };
    let mark = server.mark();
    server.signal(Signal::USR1);
    server.wait_for_log_since(mark, "there is no access log", PATIENCE);
    step("access-log = \"one\"\n", ": access-log");
    step("access-log = \"two\"\naccess-log-format = \"json\"\n", ": access-log, access-log-format");
    step("access-log = \"one\"\n", ": access-log, access-log-format");
    step("", ": access-log");
    assert!(server.stop().success());
    assert_eq!(assert_lines_are_whole(&site, &["one".to_owned()]), 2);
    let two = lines_of(&site.path("two"));
    assert!(two.len() == 1 && two[0].starts_with('{'), "{two:?}");
}

#[test]
fn a_log_that_cannot_be_written_is_refused_at_the_start() {
    let site = site();
    site.write("file", "");
    fs::create_dir(site.path("folder")).expect("a new folder");
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).expect("a new socket");
    for (file, expected) in [
        ("none/access.log", "no folder for"),
        ("folder", "is a folder; name a file in it"),
        ("file/log", "is no folder"),
        ("html/access.log", "is inside --html"),
        ("handlers/access.log", "is inside --handlers"),
        ("socket", "is a socket"),
        ("", "name one, or say -"),
    ] {
        let output = site.run(&["--bind", "127.0.0.1:0", "--runtime", "runtime", "--access-log", file]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{file}: {words}");
        assert!(words.contains("--access-log") && words.contains(expected), "{file}: {words}");
        assert!(!words.contains("listening"), "{words}");
    }
}
