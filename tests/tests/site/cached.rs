//! What a file that has been sent before costs: one question to the file system.

use std::fs;
use std::path::Path;
use std::process::Command;
use tests::{PATIENCE, Server, Site, eventually};

/// Requests that must cost no more, one after the other.
const IN_A_ROW: usize = 10;

/// `host` with every system call about files and sockets in files of `traces`, one for each thread.
fn traced(site: &Site, traces: &Path) -> Server {
    fs::create_dir(traces).unwrap();
    let host = site.command(&["--bind", "127.0.0.1:0", "--runtime", "runtime", "--threads", "1"]);
    let mut command = Command::new("strace");
    // -D: strace is the grandchild, so that the process that is started is host's own, and signals reach it.
    command.args(["-D", "-q", "-ff", "-e", "trace=%file,%desc,%network", "-o"]).arg(traces.join("trace"));
    command.arg(host.get_program()).args(host.get_args()).stdin(std::process::Stdio::null());
    command.current_dir(host.get_current_dir().expect("the site's folder"));
    for (name, value) in host.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Server::start(command)
}

/// The system calls between the arrival of the request with this line and the first piece of its answer, if that has
/// been written down.
fn calls(traces: &Path, request_line: &str) -> Option<Vec<String>> {
    fs::read_dir(traces).unwrap().find_map(|trace| {
        let text = fs::read_to_string(trace.unwrap().path()).unwrap();
        let mut lines = text.lines().skip_while(|line| !(line.starts_with("recvfrom(") && line.contains(request_line)));
        lines.next()?;
        let mut names = Vec::new();
        for line in lines {
            if line.starts_with("send") {
                return Some(names);
            }
            names.push(line.split('(').next().unwrap_or(line).to_owned());
        }
        None
    })
}

#[test]
fn a_file_that_was_sent_before_costs_one_look_at_the_file_system() {
    let site = Site::new();
    site.write("html/a.txt", "hello");
    site.write("html/d/index.html", "index");
    site.write("html/b.txt", "x".repeat(100_000));
    let traces = site.path("traces");
    let server = traced(&site, &traces);
    let mut client = server.connect();
    for (path, size) in [("/a.txt", 5), ("/d/", 5), ("/b.txt", 100_000)] {
        let mut number = 0;
        // A file that has changed just now is not kept yet, and after some seconds each is looked up anew.
        eventually(&format!("{IN_A_ROW} requests for {path} that cost one call each"), PATIENCE, || {
            (0..IN_A_ROW).try_for_each(|_| {
                number += 1;
                let target = format!("{path}?{number}");
                assert_eq!(client.get(&target).unwrap().body.len(), size);
                let line = format!("\"GET {target} ");
                let calls = eventually("the trace of a request", PATIENCE, || calls(&traces, &line));
                matches!(&*calls, [call] if call.contains("stat")).then_some(())
            })
        });
        // The first one was opened: that calls are seen at all.
        let first = calls(&traces, &format!("\"GET {path}?1 ")).unwrap();
        assert!(first.iter().any(|call| call.starts_with("open")), "{first:?}");
    }
}
