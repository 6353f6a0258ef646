//! The comparison as a whole, in small: host beside the floor, and what is left when it is interrupted.

use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tests::{PATIENCE, children, eventually};

/// The comparison of what cargo has built, with its files in `folder`.
fn peers(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peers"));
    command.args(arguments).arg("--host-binary").arg(tests::server::binary());
    command.env("TMPDIR", folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().unwrap().next().is_none()
}

#[test]
fn host_is_compared_with_the_floor() {
    let (folder, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("json");
    let arguments = ["--only", "hello", "--servers", "host,floor", "--rounds", "1", "--seconds", "0.1"];
    let output = peers(folder.path(), &arguments).arg("--json").arg(&json).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));

    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let rows = record["cases"][0]["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["server"].as_str().unwrap()).collect();
    assert_eq!(names, ["host", "host-c", "floor"], "{record}");
    for row in rows {
        let number = |name: &str| row["rounds"][0][name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"));
        for name in ["rate", "cpu_us", "client_us", "memory_kib", "p50_us", "p99_us", "p999_us", "max_us"] {
            assert!(number(name) > 0.0, "{name} of {row}");
        }
        assert_eq!([number("frozen"), number("failed")], [0.0, 0.0], "{row}");
    }
    let goals = record["goals"].as_array().unwrap();
    let measured = goals.iter().filter(|goal| goal["measured"].is_number()).count();
    assert_eq!(measured, 2, "each hello against the floor, and nothing else: {record}");
    assert!(table.contains("hello: CPU ÷ floor") && table.contains("not measured"), "{table}");
    assert!(is_empty(folder.path()), "something is left");
}

#[test]
fn an_unknown_server_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = peers(folder.path(), &["--servers", "host,iis"]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("iis") && words.contains("host-c"), "{words}");
}

#[test]
fn an_interrupted_comparison_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--only", "hello", "--servers", "floor", "--rounds", "1", "--seconds", "600"];
    let mut running = Ended(peers(folder.path(), &arguments).spawn().unwrap());
    let id = running.0.id();
    let parts = eventually("it has a server and a client", PATIENCE, || {
        let parts = children(id);
        let has = |part: &str| parts.iter().any(|child| child.command.contains(part));
        (has("peers floor") && has("peers client")).then_some(parts)
    });
    kill_process(Pid::from_child(&running.0), Signal::INT).unwrap();
    let status = eventually("it ends", PATIENCE, || running.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    for part in parts {
        assert_eq!(tests::process::find(part.id).filter(|process| process.state != 'Z'), None);
    }
    assert!(is_empty(folder.path()), "something is left");
}

/// A process that is killed if the test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            _ = self.0.kill();
            _ = self.0.wait();
        }
    }
}
