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

/// That requests for `path` come to cost no more than these looks at the file system, and that the first cost more.
fn assert_looks(server: &Server, traces: &Path, path: &str, fields: &[(&str, &str)], content: &[u8], looks: usize) {
    let mut client = server.connect();
    let mut number = 0;
    // A file that has changed just now is not kept yet, and after some seconds each is looked up anew.
    eventually(&format!("{IN_A_ROW} requests for {path} that cost {looks} each"), PATIENCE, || {
        (0..IN_A_ROW).try_for_each(|_| {
            number += 1;
            let target = format!("{path}?{}{number}", fields.len());
            assert!(client.request("GET", &target, fields, b"").unwrap().body == content);
            let line = format!("\"GET {target} ");
            let calls = eventually("the trace of a request", PATIENCE, || calls(traces, &line));
            (calls.len() == looks && calls.iter().all(|call| call.contains("stat"))).then_some(())
        })
    });
    // The first one was opened: that calls are seen at all.
    let first = calls(traces, &format!("\"GET {path}?{}1 ", fields.len())).unwrap();
    assert!(first.iter().any(|call| call.starts_with("open")) || !fields.is_empty(), "{first:?}");
}

#[test]
fn a_file_that_was_sent_before_costs_one_look_at_the_file_system() {
    let site = Site::new();
    site.write("html/a.txt", "hello");
    site.write("html/d/index.html", "index");
    site.write("html/b.txt", "x".repeat(100_000));
    let traces = site.path("traces");
    let server = traced(&site, &traces);
    for (path, content) in [("/a.txt", "hello"), ("/d/", "index"), ("/b.txt", &*"x".repeat(100_000))] {
        assert_looks(&server, &traces, path, &[], content.as_bytes(), 1);
        // Neither does it cost more to take what there is not.
        assert_looks(&server, &traces, path, &[("Accept-Encoding", "gzip, deflate, br, zstd")], content.as_bytes(), 1);
    }
}

/// One for the file, without which the compressed one is not to be sent, and one for that.
#[test]
fn a_compressed_file_beside_it_costs_one_look_more() {
    let site = Site::new();
    site.write("html/a.txt", "hello");
    site.write("html/a.txt.gz", "packed");
    site.write("html/b.txt", "hello");
    site.write("html/b.txt.br", "x".repeat(100_000));
    let traces = site.path("traces");
    let server = traced(&site, &traces);
    let browser = [("Accept-Encoding", "gzip, deflate, br, zstd")];
    eventually("the compressed form", PATIENCE, || {
        let response = server.connect().request("GET", "/b.txt", &browser, b"").unwrap();
        response.field("Content-Encoding").map(|_| ())
    });
    for (path, packed) in [("/a.txt", "packed"), ("/b.txt", &*"x".repeat(100_000))] {
        assert_looks(&server, &traces, path, &browser, packed.as_bytes(), 2);
        assert_looks(&server, &traces, path, &[], b"hello", 1);
    }
}
