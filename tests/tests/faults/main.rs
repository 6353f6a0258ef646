//! Handlers that crash: each costs its own request, and nobody else anything.

mod hangs;
mod losses;

use std::collections::BTreeSet;
use tests::process::descriptors;
use tests::{Client, Load, PATIENCE, Response, Server, Site, cc, children, eventually, repository};

/// A server with a module that misbehaves as its path says, and another that does nothing wrong.
struct Fixture {
    site: Site,
    server: Server,
}

/// What the guilty client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// 500, and the connection is closed.
    Error,
    /// The response ends before it is complete.
    Aborted,
    /// What it asked for: the crash comes after that.
    Answered,
}

use Fate::{Aborted, Answered, Error};

/// What crashes and is contained: the path, what becomes of its request, and what the log calls it.
const CONTAINED: [(&str, Fate, &str); 32] = [
    ("/segv", Error, "SIGSEGV in write_to_nowhere"),
    ("/jump", Error, "SIGSEGV"),
    ("/divide", Error, "SIGFPE in application"),
    ("/illegal", Error, "SIGILL in application"),
    ("/abort", Error, "SIGABRT, called by application"),
    ("/bus", Error, "SIGBUS in map_past_the_end"),
    ("/stack", Error, "SIGSEGV in use_up_the_stack"),
    ("/exit", Error, "a call of exit(3)"),
    ("/pthread_exit", Error, "a call of pthread_exit"),
    ("/double_free", Error, "SIGABRT, called by application"),
    ("/raise", Error, "SIGSEGV, called by application"),
    ("/mask/segv", Error, "SIGSEGV in write_to_nowhere"),
    ("/bad/get", Error, "SIGSEGV, called by"),
    ("/bad/get/env", Error, "SIGSEGV, called by"),
    ("/bad/each", Error, "SIGSEGV, called by"),
    ("/bad/errors", Error, "SIGSEGV, called by"),
    ("/bad/bytes", Error, "SIGSEGV, called by"),
    ("/bad/status", Error, "SIGSEGV, called by"),
    ("/bad/headers", Error, "SIGSEGV, called by"),
    ("/bad/header/name", Error, "SIGSEGV, called by"),
    ("/bad/header/value", Error, "SIGSEGV, called by"),
    ("/bad/exc_info", Error, "SIGSEGV, called by"),
    ("/bad/body", Error, "SIGSEGV"),
    ("/bad/chunk", Error, "SIGSEGV"),
    ("/bad/read", Error, "SIGSEGV, called by"),
    ("/bad/readline", Error, "SIGSEGV, called by"),
    ("/bad/write", Aborted, "SIGSEGV, called by"),
    ("/written", Aborted, "SIGSEGV in write_to_nowhere"),
    ("/complete", Answered, "SIGSEGV in write_to_nowhere"),
    ("/next", Error, "SIGSEGV in write_to_nowhere"),
    ("/next/later", Aborted, "SIGSEGV in write_to_nowhere"),
    ("/close", Answered, "SIGSEGV in write_to_nowhere"),
];

/// What the process does not survive, and what the log says then.
const FATAL: [(&str, &str); 3] =
    [("/_exit", "exited with code 4"), ("/kill", "died of SIGKILL"), ("/thread", "died of SIGSEGV")];

/// What looks dangerous and is not.
const HARMLESS: [&str; 6] = ["/fork", "/fork/exit", "/sigpipe", "/chdir", "/wait", "/mask"];

impl Fixture {
    fn start(arguments: &[&str]) -> Fixture {
        let site = Site::new();
        let source = site.write("sources/guilty.c", include_str!("guilty.c"));
        cc(&source, &site.path("handlers/guilty.so"), &["-g", "-O1", "-pthread", "-fno-optimize-sibling-calls"]);
        cc(&repository().join("handlers/hello.c"), &site.path("handlers/innocent.so"), &[]);
        let server = site.start(arguments);
        Fixture { site, server }
    }

    fn workers(&self) -> BTreeSet<u32> {
        let workers = children(self.server.id()).into_iter().filter(|child| child.command == "host: worker");
        workers.map(|worker| worker.id).collect()
    }

    /// Waits until none of these is left, and others serve.
    fn replaced(&self, old: &BTreeSet<u32>) {
        eventually("the worker is replaced", PATIENCE, || {
            let now = self.workers();
            (!now.is_empty() && now.is_disjoint(old)).then_some(())
        });
    }

    /// Has the guilty handler misbehave, with a request that has content, and says what came of it.
    fn offend(&self, path: &str) -> Result<Response, std::io::Error> {
        let mut client = self.server.connect();
        client.request("POST", &format!("/guilty.so{path}"), &[], b"some content\n")
    }

    #[track_caller]
    fn assert_fate(&self, path: &str, fate: Fate) {
        match (fate, self.offend(path)) {
            (Error, Ok(response)) => {
                assert_eq!(response.status, 500, "{path}: {}", response.text());
                assert!(response.closes(), "{path}");
            }
            (Answered, Ok(response)) => assert_eq!(response.status, 200, "{path}"),
            (Aborted, Err(_)) => {}
            (_, Ok(response)) => panic!("{path}: {fate:?} expected, not {}\n{}", response.head, response.text()),
            (_, Err(error)) => panic!("{path}: {fate:?} expected, not {error}"),
        }
    }
}

fn innocents(server: &Server, connections: usize) -> Load {
    Load::start(server.address(), connections, &["/innocent.so", "/guilty.so"], |path, response| {
        match (response.status, response.text()) {
            (200, "Hello, World!\n" | "answered\n") => Ok(()),
            _ => Err(format!("{path}: {} {}", response.status, response.text())),
        }
    })
}

#[test]
fn a_crash_costs_its_own_request_and_is_named() {
    let fixture = Fixture::start(&["--threads", "1"]);
    for (path, fate, told) in CONTAINED {
        let (workers, mark) = (fixture.workers(), fixture.server.mark());
        let mut bystander = fixture.server.connect();
        assert_eq!(bystander.get("/guilty.so").expect("an answer").status, 200);
        fixture.assert_fate(path, fate);
        // The module and its connections go on, in another worker.
        assert_eq!(bystander.get("/guilty.so").expect("the connection is kept").text(), "answered\n", "after {path}");
        assert_eq!(bystander.get("/innocent.so").expect("the connection is kept").status, 200, "after {path}");
        let line = fixture.server.wait_for_log_since(mark, "guilty generation 1 crashed: ", PATIENCE);
        assert!(line.contains(&format!("crashed: {told}")), "{path}: {line}");
        fixture.replaced(&workers);
    }
    let line = fixture.server.wait_for_log("in write_to_nowhere at ", PATIENCE);
    let number =
        include_str!("guilty.c").lines().position(|line| line.contains("*nowhere = 1")).expect("it is there") + 1;
    assert!(line.contains(&format!("guilty.c:{number}, guilty.so+0x")), "{line}");
    assert!(line.contains("(POST /guilty.so/segv)"), "{line}");
    drop(fixture.site);
}

#[test]
fn a_crash_under_load_costs_nobody_else() {
    let fixture = Fixture::start(&[]);
    let load = innocents(&fixture.server, 64);
    load.flow(100);
    for (path, fate, _) in CONTAINED {
        let (workers, mark) = (fixture.workers(), fixture.server.mark());
        fixture.assert_fate(path, fate);
        fixture.server.wait_for_log_since(mark, "guilty generation 1 crashed: ", PATIENCE);
        fixture.replaced(&workers);
        load.flow(100);
    }
    load.finish().assert_nothing_lost();
}

#[test]
fn a_process_that_ends_is_replaced_and_its_end_is_told() {
    let fixture = Fixture::start(&[]);
    for (path, told) in FATAL {
        let (workers, mark) = (fixture.workers(), fixture.server.mark());
        fixture.offend(path).expect_err("nobody is left to answer");
        let line = fixture.server.wait_for_log_since(mark, told, PATIENCE);
        let during = format!("in a call of guilty generation 1 (POST /guilty.so{path});");
        assert!(line.contains(&during), "{line}");
        fixture.replaced(&workers);
        // Among good calls: else the build would be judged.
        for _ in 0..5 {
            assert_eq!(fixture.server.get("/guilty.so").text(), "answered\n", "after {path}");
        }
    }
}

#[test]
fn what_does_no_harm_is_answered() {
    let fixture = Fixture::start(&["--threads", "1"]);
    let workers = fixture.workers();
    for path in HARMLESS {
        let response = fixture.offend(path).expect("an answer");
        assert_eq!((response.status, response.text()), (200, "answered\n"), "{path}");
    }
    assert_eq!(fixture.server.get("/innocent.so").status, 200);
    assert_eq!(fixture.workers(), workers, "nothing was replaced, and no forked copy is left");
}

#[test]
fn earlier_answers_come_before_the_crash() {
    let fixture = Fixture::start(&["--threads", "1"]);
    let mut client = fixture.server.connect();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = ["/innocent.so", "/guilty.so", "/guilty.so/segv", "/innocent.so"].map(request).concat();
    client.send(all.as_bytes()).expect("the connection is open");
    let statuses: Vec<_> = (0..3).map(|_| client.response().expect("an answer").status).collect();
    assert_eq!(statuses, [200, 200, 500]);
}

#[test]
fn a_server_that_stops_does_not_wait_for_a_module_that_has_crashed() {
    let fixture = Fixture::start(&["--threads", "1"]);
    fixture.assert_fate("/segv", Error);
    let mut client: Client = fixture.server.connect();
    _ = client.get("/guilty.so");
    assert!(fixture.server.stop().success());
}

/// A module of which every call crashes, or none.
fn build(site: &Site, crashes: bool) {
    let body = if crashes { "*(volatile int *)16 = 1;" } else { "" };
    let source = format!(
        r#"#include "host.h"
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
            {body}
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR("answered\n"));
        }}"#
    );
    let source = site.write("sources/module.c", source);
    cc(&source, &site.path("module.so"), &[]);
    std::fs::rename(site.path("module.so"), site.path("handlers/module.so")).expect("it is in the same folder");
}

#[test]
fn a_build_that_always_crashes_is_taken_out_of_service_until_a_new_one_comes() {
    let site = Site::new();
    build(&site, true);
    let server = site.start(&[]);
    let refused = eventually("it is refused", PATIENCE, || {
        let response = server.get("/module.so");
        (response.status != 500).then_some(response)
    });
    assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")));
    server.wait_for_log("refused module: handlers/module.so: 5 of its last 5 calls crashed", PATIENCE);
    let mark = server.mark();
    build(&site, false);
    server.wait_for_log_since(mark, "loaded module generation 2", PATIENCE);
    assert_eq!(server.get("/module.so").text(), "answered\n");
}

#[test]
fn a_build_that_always_crashes_gives_way_to_the_one_before() {
    let site = Site::new();
    build(&site, false);
    let server = site.start(&[]);
    assert_eq!(server.get("/module.so").text(), "answered\n");
    build(&site, true);
    server.wait_for_log("reloaded module generation 2", PATIENCE);
    eventually("the build before answers again", PATIENCE, || {
        let response = server.get("/module.so");
        assert!(matches!(response.status, 200 | 500), "{}", response.head);
        (response.status == 200).then_some(())
    });
    server.wait_for_log("kept module generation 1: handlers/module.so: 5 of its last 5 calls crashed", PATIENCE);
    for _ in 0..20 {
        assert_eq!(server.get("/module.so").text(), "answered\n");
    }
}

/// As a language runtime does it: what is not its own it passes on.
#[test]
fn a_crash_is_contained_also_if_a_module_has_taken_the_signal_over() {
    let fixture = Fixture::start(&["--threads", "1"]);
    let source = r#"
        #define _GNU_SOURCE
        #include "host.h"
        #include <signal.h>
        static struct sigaction before;
        static void pass_on(int signal, siginfo_t *info, void *context) { before.sa_sigaction(signal, info, context); }
        __attribute__((constructor)) static void take_over(void) {
            struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_ONSTACK};
            sigaction(SIGSEGV, &action, &before);
        }
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR("answered\n"));
        }"#;
    fixture.site.compile("runtime", source);
    fixture.server.wait_for_log("loaded runtime generation 1", PATIENCE);
    assert_eq!(fixture.server.get("/runtime.so").text(), "answered\n");
    fixture.assert_fate("/segv", Error);
    fixture.assert_fate("/stack", Error);
    assert_eq!(fixture.server.get("/runtime.so").text(), "answered\n");
}

/// Crashes of all kinds, one after the other from each of several clients, without a pause.
#[test]
fn a_storm_of_crashes_costs_nobody_else_and_leaves_nothing_behind() {
    const CLIENTS: usize = 4;
    const CRASHES: usize = 50;
    let fixture = Fixture::start(&[]);
    let supervisor = fixture.server.id();
    let settled = || {
        let worker = fixture.workers().into_iter().collect::<Vec<_>>();
        let count = |id| descriptors(id).unwrap_or(usize::MAX);
        (worker.len() == 1).then(|| children(supervisor).len() + count(supervisor) + count(worker[0]))
    };
    // The first replacement opens what the supervisor keeps.
    let old = fixture.workers();
    fixture.assert_fate("/segv", Error);
    fixture.replaced(&old);
    let before = eventually("one worker is left", PATIENCE, settled);
    let load = innocents(&fixture.server, 32);
    load.flow(100);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let fixture = &fixture;
            scope.spawn(move || {
                for turn in 0..CRASHES {
                    let (path, fate, _) = CONTAINED[(client + CLIENTS * turn) % CONTAINED.len()];
                    fixture.assert_fate(path, fate);
                }
            });
        }
    });
    load.flow(100);
    load.finish().assert_nothing_lost();
    // Two hundred dead workers later; the ends of the first one's channels may have been open still.
    eventually("no more is left than before", PATIENCE, || settled().filter(|now| *now <= before));
}
