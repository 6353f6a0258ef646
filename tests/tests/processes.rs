//! The processes of a server: what is replaced when it dies, what is left behind, and what children inherit.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::process::{descriptors, find};
use tests::{Client, Load, PATIENCE, Server, Site, children, eventually, probe};

/// The workers that live, oldest first.
fn workers(server: &Server) -> Vec<u32> {
    let workers = children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    workers.map(|worker| worker.id).collect()
}

/// The only worker, once there is only one.
fn worker(server: &Server) -> u32 {
    eventually("there is one worker", PATIENCE, || match workers(server)[..] {
        [worker] => Some(worker),
        _ => None,
    })
}

fn signal(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id.cast_signed()).expect("a process id"), signal).expect("the process is there");
}

fn is_gone(id: u32) -> Option<()> {
    find(id).is_none_or(|process| process.state == 'Z').then_some(())
}

#[test]
fn a_killed_worker_is_replaced_and_those_who_wait_in_the_queue_are_answered() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let server = site.start(&["--threads", "2"]);
    let first = worker(&server);
    // A worker that is stopped accepts nothing: whoever connects now is still in the listener's queue when it dies.
    signal(first, Signal::STOP);
    eventually("the worker is stopped", PATIENCE, || find(first).filter(|process| process.state == 'T'));
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(b"GET /probe.so HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    }
    let mark = server.mark();
    signal(first, Signal::KILL);
    for client in &mut clients {
        let response = client.response().expect("an answer");
        assert_ne!(probe::process(&response), first);
    }
    assert_eq!(worker(&server), probe::process(&server.get("/probe.so")));
    let line = server.wait_for_log_since(mark, &format!("worker {first} died of SIGKILL (9)"), PATIENCE);
    assert!(line.contains("what it had in flight is lost"), "{line}");
}

#[test]
fn workers_that_die_at_the_same_time_are_all_replaced() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let server = site.start(&["--workers", "3", "--threads", "1"]);
    let before = workers(&server);
    assert_eq!(before.len(), 3);
    before[..2].iter().for_each(|&id| signal(id, Signal::KILL));
    let after = eventually("there are three workers again", PATIENCE, || {
        Some(workers(&server)).filter(|now| now.len() == 3 && !now.iter().any(|id| before[..2].contains(id)))
    });
    assert!(after.contains(&before[2]), "{after:?} {before:?}");
}

#[test]
fn a_worker_that_dies_while_another_is_being_replaced_is_replaced_too() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DREPLACE"]);
    let server = site.start(&["--workers", "2", "--threads", "1"]);
    let before = workers(&server);
    // The replacements cannot say that they serve before this one is dead.
    let mark = server.mark();
    probe::build(&site, "probe", 2, &["-DREPLACE", "-DSERVE=wait_ms(300)"]);
    eventually("a replacement boots", PATIENCE, || (workers(&server).len() > 2).then_some(()));
    signal(before[0], Signal::KILL);
    server.wait_for_log_since(mark, "reloaded probe generation 2", PATIENCE);
    let after = eventually("there are two new workers and no more", PATIENCE, || {
        Some(workers(&server)).filter(|now| now.len() == 2 && !now.contains(&before[0]) && !now.contains(&before[1]))
    });
    // None comes later.
    server.get("/probe.so");
    assert_eq!(workers(&server), after);
}

#[test]
fn workers_that_die_again_and_again_come_back_more_and_more_slowly_but_come_back() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let server = site.start(&["--threads", "1"]);
    let mut dead = Vec::new();
    for _ in 0..4 {
        let next =
            eventually("another worker", PATIENCE, || workers(&server).into_iter().find(|id| !dead.contains(id)));
        // Once it answers, so that it is not the module's fault.
        assert_eq!(probe::process(&server.get("/probe.so")), next);
        signal(next, Signal::KILL);
        dead.push(next);
    }
    assert_eq!(probe::version(&server.get("/probe.so")), 1);
    let pauses: Vec<String> = server.log().into_iter().filter(|line| line.contains("the next one starts in")).collect();
    assert_eq!(pauses.len(), 3, "{pauses:?}");
    for (pause, ms) in pauses.iter().zip(["100 ms", "200 ms", "400 ms"]) {
        assert!(pause.ends_with(ms), "{pauses:?}");
    }
}

#[test]
fn a_worker_that_somebody_kills_while_it_loads_speaks_against_no_module() {
    let site = Site::new();
    // Its init takes so long that a worker is sure to be in it.
    probe::build(&site, "probe", 1, &["-DSERVE=wait_ms(300)"]);
    let server = site.start(&["--threads", "1"]);
    let first = worker(&server);
    signal(first, Signal::KILL);
    let mark = server.mark();
    let loading = eventually("the next worker", PATIENCE, || workers(&server).into_iter().find(|id| *id != first));
    signal(loading, Signal::KILL);
    let line = server.wait_for_log_since(mark, &format!("worker {loading} died of SIGKILL (9)"), PATIENCE);
    assert!(line.contains("trying again"), "{line}");
    assert_eq!(probe::version(&server.get("/probe.so")), 1);
}

#[test]
fn a_dead_supervisor_leaves_no_process_no_listener_and_the_next_one_cleans_up() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let mut server = site.start(&["--threads", "1"]);
    let address = server.address();
    // A checker is at work at that moment.
    probe::build(&site, "slow", 1, &["-DCHECK=wait_ms(60000)"]);
    let checker = eventually("a checker", PATIENCE, || {
        children(server.id()).into_iter().find(|child| child.command.starts_with("host: checker"))
    });
    let worker = worker(&server);
    let mut client = server.connect();
    assert_eq!(client.get("/probe.so").expect("an answer").status, 200);
    let folders = || fs::read_dir(site.path("runtime")).expect("the runtime folder").filter_map(Result::ok);
    let server_folders =
        || folders().filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect::<Vec<_>>();
    let stale = server_folders();
    assert_eq!(stale.len(), 1);

    server.signal(Signal::KILL);
    assert_eq!(server.wait().code(), None);
    eventually("the worker is gone", PATIENCE, || is_gone(worker));
    eventually("the checker is gone", PATIENCE, || is_gone(checker.id));
    assert!(client.rest().is_ok_and(|rest| rest.is_empty()), "the connection ends with its worker");
    assert!(std::net::TcpStream::connect(address).is_err());

    fs::remove_file(site.path("handlers/slow.so")).expect("our own file");
    let mut command = site.command(&["--runtime", "runtime", "--bind", &address.to_string()]);
    command.arg("--threads=1");
    let next = Server::start(command);
    assert_eq!(next.address(), address);
    assert_eq!(probe::version(&next.get("/probe.so")), 1);
    let now = server_folders();
    assert!(now.len() == 1 && now != stale, "{stale:?} {now:?}");
}

#[test]
fn what_a_terminal_sends_to_its_group_reaches_the_supervisor_alone() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let mut command = site.command(&["--runtime", "runtime", "--bind", "127.0.0.1:0"]);
    command.process_group(0);
    let mut server = Server::start(command);
    let mut client = server.connect();
    client.send(b"GET /probe.so/sleep?300 HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    server.wait_for_log("sleeping", PATIENCE);
    let group = Pid::from_raw(server.id().cast_signed()).expect("a process id");
    // TERM shows it best: a worker that got it would die, with the request.
    kill_process_group(group, Signal::TERM).expect("the group is there");
    assert_eq!(client.response().expect("the answer").text(), "answered\n");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_program_that_a_handler_runs_inherits_three_descriptors() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    site.write("html/a.txt", "a");
    let server = site.start(&["--bind", "unix:host.sock", "--threads", "2"]);
    // Connections, files under way and content in a temporary file shall be open at that moment.
    let mut idle = server.connect();
    assert_eq!(idle.get("/a.txt").expect("an answer").text(), "a");
    let mut spooled = server.connect();
    let head = "POST /probe.so/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    spooled.send(&[head.as_bytes(), &[b'x'; 150_000]].concat()).expect("the server reads");
    eventually("the content is in a file", PATIENCE, || {
        let links = fs::read_dir(format!("/proc/{}/fd", worker(&server))).ok()?;
        let links: Vec<_> = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok()).collect();
        links.iter().any(|link| link.to_string_lossy().contains("(deleted)")).then_some(())
    });
    let listing = server.get("/probe.so/descriptors");
    let listing = listing.text();
    // A fourth is the folder that ls(1) reads: its own descriptors.
    let inherited =
        listing.lines().filter(|line| !line.contains("-> /proc/")).filter_map(|line| line.split_once(" -> "));
    let numbers: Vec<_> = inherited.filter_map(|(before, _)| before.split_whitespace().last()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{listing}");
    assert!(listing.contains("0 -> /dev/null"), "{listing}");
}

/// Overwrites the handler in place by a build that was made before.
fn overwrite(site: &Site, server: &Server, build: &[u8]) {
    let mark = server.mark();
    fs::write(site.path("handlers/probe.so"), build).expect("our own file");
    server.wait_for_log_since(mark, "reloaded probe generation", PATIENCE);
}

#[test]
fn a_hundred_reloads_and_ten_replacements_cost_no_descriptor_and_leave_no_zombie() {
    let site = Site::new();
    let swap = fs::read(probe::build(&site, "probe", 2, &[])).expect("the build");
    let replace = fs::read(probe::build(&site, "probe", 3, &["-DREPLACE"])).expect("the build");
    probe::build(&site, "probe", 1, &[]);
    let server = site.start(&["--threads", "2", "--limit-generations", "1000"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Between the end of a process and the moment that it is waited for it is a zombie: it must not stay one.
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for zombie in children(server.id()).into_iter().filter(|child| child.state == 'Z') {
                    eventually("a zombie is waited for", PATIENCE, || find(zombie.id).is_none().then_some(()));
                }
                std::thread::yield_now();
            }
        });
        server.get("/probe.so");
        overwrite(&site, &server, &swap);
        let worker_before = worker(&server);
        let settle = |what: &str, id: u32, expected: usize| {
            eventually(what, PATIENCE, || descriptors(id).filter(|count| *count <= expected));
        };
        let count = |id| descriptors(id).expect("it runs");
        let (supervisor, of_worker) = (count(server.id()), count(worker_before));
        (0..100).for_each(|_| overwrite(&site, &server, &swap));
        assert_eq!(worker(&server), worker_before);
        settle("the worker has no more descriptors than before", worker_before, of_worker);
        settle("the supervisor has no more descriptors than before", server.id(), supervisor);
        (0..10).for_each(|_| overwrite(&site, &server, &replace));
        let worker_after = worker(&server);
        assert_ne!(worker_after, worker_before);
        settle("the new worker has no more descriptors than the first", worker_after, of_worker);
        settle("the supervisor has still no more descriptors", server.id(), supervisor);
        done.store(true, Ordering::Relaxed);
        watch.join().expect("no zombie stays");
    });
    // Folders of builds that nothing maps any more go, too: what is left is the build that answers, and the eight before it
    // that somebody may go back to.
    let of_server = fs::read_dir(site.path("runtime")).expect("a folder").filter_map(Result::ok);
    let folder = of_server.map(|entry| entry.path()).find(|path| path.is_dir()).expect("the server's folder");
    eventually("nine builds are left", PATIENCE, || {
        let entries = fs::read_dir(&folder).ok()?.filter_map(Result::ok);
        let builds = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("probe@"));
        (builds.count() == 9).then_some(())
    });
}

#[test]
fn a_hangup_signal_reloads_every_module_and_loses_nothing() {
    let site = Site::new();
    probe::build(&site, "swap", 1, &[]);
    probe::build(&site, "replace", 1, &["-DREPLACE"]);
    let server = site.start(&["--threads", "2", "--no-reload"]);
    let load = Load::start(server.address(), 8, &["/swap.so", "/replace.so"], |_, response| {
        (response.text() == "answered\n").then_some(()).ok_or_else(|| response.head.clone())
    });
    for generation in 2..5 {
        load.flow(100);
        let mark = server.mark();
        let before = children(server.id());
        server.signal(Signal::HUP);
        server.wait_for_log_since(mark, &format!("reloaded swap generation {generation}"), PATIENCE);
        server.wait_for_log_since(mark, &format!("reloaded replace generation {generation}"), PATIENCE);
        eventually("every worker is another", PATIENCE, || {
            (!children(server.id()).iter().any(|child| before.contains(child))).then_some(())
        });
    }
    load.flow(100);
    load.finish().assert_nothing_lost();
}
