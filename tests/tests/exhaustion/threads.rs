//! No more threads and processes (`ulimit -u`), for servers whose user is not root: the limit does not bind that one.

use crate::{Fixture, kill, public_binary, site};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use tests::{PATIENCE, eventually};

/// A user who has no other processes, if root may choose one.
const NOBODY: u32 = 64_791;

/// Threads and processes of the server together.
const TASKS_MAX: usize = 64;

/// A server whose user may have so many threads and processes.
fn limited(arguments: &[&str]) -> Fixture {
    let site = site();
    let limit = format!("--nproc={TASKS_MAX}");
    if !rustix::process::geteuid().is_root() {
        // In a user namespace of its own, those outside do not count.
        return Fixture::start_in(site, &["unshare", "--map-root-user", "prlimit", &limit], arguments);
    }
    let binary = public_binary(&site);
    give_away(&site.path(""));
    let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    let script = format!("shift; exec {binary} \"$@\"");
    let wrapper = ["setpriv", &user[0], &user[1], "--clear-groups", "prlimit", &limit, "sh", "-c", &script, "sh"];
    Fixture::start_in(site, &wrapper, arguments)
}

fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    if path.is_dir() {
        fs::read_dir(path).expect("our own").for_each(|entry| give_away(&entry.expect("our own").path()));
    }
}

#[test]
fn a_worker_that_can_make_no_thread_answers_503_at_most_and_all_of_it_is_over_when_threads_are_back() {
    let fixture = limited(&["--threads", "2"]);
    let (before, worker) = (fixture.footprint(), fixture.worker());
    // Each holds a thread.
    std::thread::scope(|scope| {
        for _ in 0..2 * TASKS_MAX {
            scope.spawn(|| {
                eventually("a slow request is answered", 2 * PATIENCE, || {
                    let response = fixture.server.get("/greedy.so/sleep?100");
                    assert!(matches!(response.status, 200 | 503), "{}", response.head);
                    (response.status == 200).then_some(())
                });
            });
        }
        fixture.server.wait_for_log("cannot make a thread", PATIENCE);
        // Pages are served as ever, as soon as a loop is not in a call.
        assert_eq!(fixture.server.get("/page.txt").text(), "a page\n");
    });
    assert_eq!(fixture.worker(), worker);
    fixture.assert_as_before(before);
}

#[test]
fn a_supervisor_that_can_start_no_process_starts_one_as_soon_as_it_can_and_leaves_no_zombie() {
    let fixture = limited(&["--threads", "1"]);
    let (before, worker) = (fixture.footprint(), fixture.worker());
    fixture.without_zombies(|| {
        let mut greedy = fixture.server.connect();
        greedy.send(b"GET /greedy.so/processes HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
        fixture.server.wait_for_log("no more processes", PATIENCE);
        // What it has started outlives it, and takes what becomes free. Whichever step of a hiring fails then, of the
        // supervisor's or of the new worker's own, another try is made.
        eventually("no worker can be started", PATIENCE, || {
            fixture.workers().into_iter().for_each(|worker| kill(worker, Signal::KILL));
            fixture.server.log().iter().any(|line| line.contains("cannot start a worker")).then_some(())
        });
        fixture.open_gate();
        // Whoever is in the queue is answered, too.
        assert_eq!(fixture.server.get("/modest.so").text(), "Hello, World!\n");
        assert_ne!(fixture.worker(), worker);
    });
    fixture.assert_as_before(before);
}
