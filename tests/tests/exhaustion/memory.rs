//! Handlers that take all memory, with `--limit-memory`: by control groups where there are any for us, by a resource limit
//! always.

use crate::{Fixture, site};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tests::{Client, PATIENCE, Site, cc, eventually};

/// In a mount namespace in which no control groups are to be seen.
const WITHOUT_GROUPS: [&str; 6] = [
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs tmpfs /sys/fs/cgroup && shift && exec \"$@\"",
];

fn start_with_rlimit(arguments: &[&str]) -> Fixture {
    let fixture = Fixture::start(&[&WITHOUT_GROUPS[..], &["sh", "sh"]].concat(), arguments);
    fixture.server.wait_for_log("RLIMIT_DATA limits the memory of each worker's modules", PATIENCE);
    fixture
}

#[test]
fn by_a_resource_limit_a_handler_that_takes_all_memory_finds_an_end_of_it_and_costs_nobody_else() {
    let fixture = start_with_rlimit(&["--limit-memory", "128M"]);
    let before = fixture.footprint();
    let load = fixture.innocents(16);
    load.flow(100);
    for path in ["/memory/give", "/memory/give", "/memory/request", "/memory/keep", "/memory/give"] {
        let response = fixture.server.get(&format!("/greedy.so{path}"));
        let mebibytes: u64 = response.text().trim().parse().expect("a number");
        println!("{path}: {mebibytes} MiB");
        // The stacks that the C library keeps are beside the limit, and so is the reserve of the host's own allocator.
        let most = if path == "/memory/request" { 1024 + 256 } else { 256 };
        assert!(mebibytes < most, "{path}: {mebibytes} MiB");
        load.flow(100);
    }
    // It has kept all: one that makes nothing of that crashes, and its worker with all that it had is replaced.
    let worker = fixture.worker();
    assert_eq!(fixture.server.get("/greedy.so/memory/crash").status, 500);
    eventually("the worker is replaced", PATIENCE, || (!fixture.workers().contains(&worker)).then_some(()));
    let free: u64 = fixture.server.get("/greedy.so/memory/give").text().trim().parse().expect("a number");
    assert!(free > 64, "{free} MiB");
    load.flow(100);
    load.finish().assert_nothing_lost();
    fixture.assert_as_before(before);
}

#[test]
fn threads_of_the_server_do_not_count_as_memory_of_its_modules() {
    let fixture = start_with_rlimit(&["--limit-memory", "64M", "--threads", "2"]);
    // Their stacks alone are more than that.
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(fixture.server.get("/greedy.so/sleep?300").status, 200));
        }
    });
    assert!(fixture.server.get("/greedy.so/memory/give").text().trim().parse::<u64>().is_ok_and(|free| free > 16));
}

/// The host's own allocator, too, gets nothing: a limit from outside counts all that is mapped.
#[test]
fn a_worker_whose_own_allocations_fail_ends_and_is_replaced() {
    let fixture = Fixture::start(&["prlimit", "--as=700000000"], &["--threads", "2"]);
    let before = fixture.footprint();
    for _ in 0..3 {
        let worker = fixture.worker();
        // Within a call it is the call's affair.
        for path in ["/memory/request", "/memory/keep", "/memory/request"] {
            assert_eq!(fixture.server.get(&format!("/greedy.so{path}")).status, 200);
        }
        // Outside, the server cannot go on: content that is kept in memory, of as many requests as it takes.
        let mut clients = Vec::new();
        eventually("the worker has ended", PATIENCE, || {
            for _ in 0..100 {
                let Ok(mut client) = Client::connect(fixture.server.address()) else { break };
                // It may end at any of these.
                _ = client.send(b"POST /modest.so HTTP/1.1\r\nHost: a\r\nContent-Length: 60001\r\n\r\n");
                _ = client.send(&[b'x'; 60_000]);
                clients.push(client);
            }
            fixture.server.log().iter().any(|line| line.contains(&format!("worker {worker} died of"))).then_some(())
        });
        eventually("another one answers", PATIENCE, || {
            let response = fixture.server.connect().get("/modest.so");
            response.ok().filter(|response| response.status == 200)
        });
    }
    fixture.assert_as_before(before);
}

#[test]
fn a_limit_that_is_too_small_is_refused_with_the_reason() {
    let site = Site::new();
    let refused = site.run(&["--limit-memory", "1M"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("--limit-memory") && told.contains("it may have 16M and more"), "{told}");

    // A module whose own data is more than that.
    let source = site.write(
        "sources/large.c",
        r#"#include "host.h"
        char data[256 << 20];
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, (host_str){data, 1});
        }"#,
    );
    cc(&source, &site.path("handlers/large.so"), &[]);
    let mut command = std::process::Command::new(WITHOUT_GROUPS[0]);
    command.args(&WITHOUT_GROUPS[1..]).args(["sh", "sh"]).arg(tests::server::binary()).current_dir(site.path(""));
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--limit-memory", "16M", "large"]);
    let refused = tests::server::finish(command);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("a worker cannot start: cannot start the event loops with --limit-memory 16M"), "{told}");
}

/// A control group for one test, in which nothing else is.
struct OwnGroup(PathBuf);

impl OwnGroup {
    /// None where no control groups with memory limits can be made; says why.
    fn new() -> Option<OwnGroup> {
        let root = Path::new("/sys/fs/cgroup");
        let made = (|| {
            let enabled = root.join("cgroup.subtree_control");
            let memory = fs::read_to_string(root.join("cgroup.controllers"))?;
            if !memory.split_whitespace().any(|controller| controller == "memory") {
                return Err(std::io::Error::other("no memory controller of version 2"));
            }
            if !fs::read_to_string(&enabled)?.split_whitespace().any(|controller| controller == "memory") {
                fs::write(&enabled, "+memory")?;
            }
            let path = root.join(format!("host-test-{}", std::process::id()));
            fs::create_dir(&path)?;
            let group = OwnGroup(path);
            // As systemd says it of a service with Delegate=memory.
            rustix::fs::setxattr(&group.0, "trusted.delegate", b"1", rustix::fs::XattrFlags::empty())?;
            Ok(group)
        })();
        match made {
            Ok(group) => Some(group),
            Err(error) => {
                // Past the test harness, which keeps what a test that succeeds prints to itself.
                let told = writeln!(
                    std::io::stderr(),
                    "not tried: control groups ({}: {error}); tests/cgroups tries them in a kernel of its own",
                    root.display()
                );
                told.expect("standard error is open");
                None
            }
        }
    }

    fn groups(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("it exists").filter_map(Result::ok);
        let folders = entries.filter(|entry| entry.path().is_dir());
        folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        // It must be empty, which tests check before.
        _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn by_a_control_group_a_handler_that_takes_all_memory_costs_its_worker_and_leaves_no_group() {
    let Some(group) = OwnGroup::new() else { return };
    let procs = group.0.join("cgroup.procs");
    let enter = format!("echo $$ > {} && shift && exec \"$@\"", procs.display());
    let fixture = Fixture::start_in(site(), &["sh", "-c", &enter, "sh", "sh"], &["--limit-memory", "64M"]);
    fixture.server.wait_for_log("a control group in ", PATIENCE);
    let before = fixture.footprint();
    assert_eq!(group.groups().len(), 2, "{:?}", group.groups());
    for path in ["/memory/keep", "/memory/request", "/memory/crash"] {
        let (worker, mark) = (fixture.worker(), fixture.server.mark());
        fixture.without_zombies(|| {
            fixture.server.connect().get(&format!("/greedy.so{path}")).expect_err("nobody is left to answer");
            let told = format!("worker {worker} used up its memory (--limit-memory 64M) and was killed");
            fixture.server.wait_for_log_since(mark, &told, PATIENCE);
            assert_eq!(fixture.server.get("/modest.so").status, 200);
        });
        assert_ne!(fixture.worker(), worker);
    }
    // A program that a handler runs is killed alone.
    let worker = fixture.worker();
    assert_eq!(fixture.server.get("/greedy.so/memory/child").status, 200);
    assert_eq!(fixture.worker(), worker);
    // What a handler has left behind ends with its worker.
    assert_eq!(fixture.server.get("/greedy.so/left/behind").status, 200);
    crate::kill(worker, rustix::process::Signal::KILL);
    eventually("one worker's group and the supervisor's are left", PATIENCE, || {
        (group.groups().len() == 2).then_some(())
    });
    fixture.assert_as_before(before);
    assert_eq!(fixture.server.get("/greedy.so/left/behind").status, 200);
    assert!(fixture.server.stop().success());
    assert_eq!(group.groups(), Vec::<String>::new());
    let left = fs::read_to_string(&procs).expect("it exists");
    assert_eq!(left, "", "processes are left");
}
