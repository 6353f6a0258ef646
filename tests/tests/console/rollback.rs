//! `host rollback`: an older build answers again, at once, everywhere, and until a new one comes.

use crate::{build, complains, host, says, status, workers};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::{Load, PATIENCE, Response, Server, Site, cc, eventually, probe};

/// Builds a version, and waits until it answers.
fn reload(site: &Site, server: &Server, version: usize, flags: &[&str]) {
    let mark = server.mark();
    probe::build(site, "probe", version, flags);
    server.wait_for_log_since(mark, &format!("reloaded probe generation {version}"), PATIENCE);
}

/// A server with a module of which versions 1 to 3 have been built one after the other.
fn three_builds(arguments: &[&str], flags: &[&str]) -> (Site, Server) {
    let site = Site::new();
    probe::build(&site, "probe", 1, flags);
    let server = site.start(arguments);
    reload(&site, &server, 2, flags);
    reload(&site, &server, 3, flags);
    (site, server)
}

#[track_caller]
fn assert_answers(server: &Server, version: usize) {
    for _ in 0..20 {
        assert_eq!(probe::version(&server.get("/probe.so")), version);
    }
}

#[test]
fn going_back_under_load_loses_nothing_and_the_command_ends_when_it_is_true() {
    let (site, server) = three_builds(&["--threads", "2"], &[]);
    let before = workers(&server);
    // Whoever asks after the command has said so is answered by that build.
    let answering = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&answering);
    let verify = |_: &str, expected: usize, response: &Response| match probe::version(response) {
        version if expected != 0 && version != expected => Err(format!("{version} answered instead of {expected}")),
        _ => Ok(()),
    };
    let load = Load::start_noting(server.address(), 32, &["/probe.so"], move |_| noted.load(Ordering::SeqCst), verify);
    load.flow(100);
    let go = |arguments: &[&str], version: usize, words: &str| {
        // From here on both are right, until the command says which.
        answering.store(0, Ordering::SeqCst);
        load.flow(100);
        assert_eq!(says(&site, &[&["rollback", "probe"], arguments].concat()), words);
        answering.store(version, Ordering::SeqCst);
        load.flow(100);
    };
    go(&[], 2, "probe: generation 2 answers, instead of 3\n");
    server.wait_for_log("rolled probe back to generation 2 from 3 in ", PATIENCE);
    go(&[], 1, "probe: generation 1 answers, instead of 2\n");
    go(&["3"], 3, "probe: generation 3 answers, instead of 1\n");
    server.wait_for_log("rolled probe forward to generation 3 from 1 in ", PATIENCE);
    go(&["2"], 2, "probe: generation 2 answers, instead of 3\n");
    assert_eq!(workers(&server), before, "all of it happens in the running worker");
    // A new build ends it.
    answering.store(0, Ordering::SeqCst);
    load.flow(100);
    reload(&site, &server, 4, &[]);
    answering.store(4, Ordering::SeqCst);
    load.flow(100);
    // What comes before that is what answered before it, and not what people had gone back from.
    go(&[], 2, "probe: generation 2 answers, instead of 4\n");
    load.finish().assert_nothing_lost();
    let module = &status(&site)["modules"][0];
    assert_eq!((&module["generation"], &module["rolled_back_from"]), (&2.into(), &4.into()));
    assert_eq!(module["others"], serde_json::json!([4, 3, 1]));
}

#[test]
fn what_there_is_to_go_back_to_is_named() {
    let (site, server) = three_builds(&[], &[]);
    assert!(complains(&site, &["rollback", "nosuch"]).contains("no module \"nosuch\"; there are: probe"));
    assert!(complains(&site, &["rollback", "probe", "3"]).contains("probe generation 3 answers already"));
    assert!(complains(&site, &["rollback", "probe", "7"]).contains("has no generation 7 to go back to; it has 2, 1"));
    assert_eq!(host(&site, &["rollback", "handlers/probe.so"]).status.code(), Some(2));
    says(&site, &["rollback", "probe", "1"]);
    assert!(complains(&site, &["rollback", "probe"]).contains("has no older generation to go back to; it has 3, 2"));
    assert_answers(&server, 1);
}

#[test]
fn what_was_left_comes_back_neither_with_a_hangup_nor_with_time() {
    let (site, server) = three_builds(&["--threads", "1"], &[]);
    probe::build(&site, "other", 1, &[]);
    server.wait_for_log("loaded other generation 1", PATIENCE);
    says(&site, &["rollback", "probe"]);
    let (mark, old) = (server.mark(), workers(&server));
    server.signal(Signal::HUP);
    // All others are taken again, and all workers are replaced.
    server.wait_for_log_since(mark, "reloaded other generation 2", PATIENCE);
    eventually("the worker is replaced", PATIENCE, || workers(&server).is_disjoint(&old).then_some(()));
    assert_answers(&server, 2);
    // Everything is looked at every two seconds; a change that comes after that is seen by the look after it.
    site.write("handlers/broken.so", "");
    server.wait_for_log_since(mark, "refused broken", PATIENCE);
    assert_answers(&server, 2);
    assert!(!server.log().iter().skip(mark).any(|line| line.contains("loaded probe")), "{:?}", server.log());
    // It is taken again when somebody wants that, by name or by building it.
    says(&site, &["rollback", "probe", "3"]);
    let mark = server.mark();
    server.signal(Signal::HUP);
    server.wait_for_log_since(mark, "reloaded probe generation 4", PATIENCE);
    assert_answers(&server, 3);
    says(&site, &["rollback", "probe", "1"]);
    let mark = server.mark();
    probe::build(&site, "probe", 5, &[]);
    server.wait_for_log_since(mark, "reloaded probe generation 5", PATIENCE);
    assert_answers(&server, 5);
}

#[test]
fn all_workers_go_back_and_those_that_come_later_too() {
    let (site, server) = three_builds(&["--workers", "2", "--threads", "1"], &[]);
    says(&site, &["rollback", "probe"]);
    assert_answers(&server, 2);
    for victim in workers(&server) {
        let pid = i32::try_from(victim).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::KILL).expect("the worker lives");
        eventually("another has taken its place", PATIENCE, || {
            let now = workers(&server);
            (now.len() == 2 && !now.contains(&victim)).then_some(())
        });
    }
    assert_answers(&server, 2);
}

#[test]
fn builds_of_which_a_process_can_hold_one_go_back_by_new_workers() {
    let (site, server) = three_builds(&["--threads", "2"], &["-DREPLACE"]);
    let load = Load::start(server.address(), 16, &["/probe.so"], |_, _| Ok(()));
    load.flow(100);
    says(&site, &["rollback", "probe"]);
    assert_answers(&server, 2);
    load.flow(100);
    load.finish().assert_nothing_lost();
}

#[test]
fn the_command_waits_for_a_build_that_takes_long_to_start() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &["-DSERVE=wait_ms(300)"]);
    let server = site.start(&["--workers", "2", "--threads", "1"]);
    reload(&site, &server, 2, &[]);
    says(&site, &["rollback", "probe"]);
    assert_answers(&server, 1);
}

/// Says by which version it was answered, and what has been called in that build's own memory.
const LIFE: &str = r#"#include "host.h"
    #include <stdio.h>
    static int started, stopped, calls;
    static int32_t init(const host_init *arguments) { (void)arguments; started++; return 0; }
    static void stop(void) { stopped++; }
    HOST_EXPORT const host_module_info host_module = {
        .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .init = init, .stop = stop,
    };
    HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
        char text[99];
        int length = snprintf(text, sizeof text, "version %d, started %d, stopped %d, calls %d", VERSION, started, stopped, ++calls);
        start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
        return env->bytes(env, (host_str){text, (size_t)length});
    }"#;

#[test]
fn a_build_that_answers_again_begins_anew() {
    let site = Site::new();
    build(&site, "life", LIFE, &["-DVERSION=1"]);
    let server = site.start(&["--threads", "1"]);
    assert_eq!(server.get("/life.so").text(), "version 1, started 1, stopped 0, calls 1");
    build(&site, "life", LIFE, &["-DVERSION=2"]);
    server.wait_for_log("reloaded life generation 2", PATIENCE);
    assert_eq!(server.get("/life.so").text(), "version 2, started 1, stopped 0, calls 1");
    for _ in 0..2 {
        says(&site, &["rollback", "life", "1"]);
        assert_eq!(server.get("/life.so").text(), "version 1, started 1, stopped 0, calls 1");
        says(&site, &["rollback", "life", "2"]);
        assert_eq!(server.get("/life.so").text(), "version 2, started 1, stopped 0, calls 1");
    }
}

#[test]
fn a_build_that_cannot_be_loaded_again_leaves_the_one_of_now() {
    let site = Site::new();
    let forbidden = site.path("forbidden");
    // Unless there is that file.
    let refuses = format!("-DSERVE=if (access(\"{}\", F_OK) == 0) return 7", forbidden.display());
    probe::build(&site, "probe", 1, &[&refuses]);
    let server = site.start(&["--workers", "2", "--threads", "1"]);
    reload(&site, &server, 2, &[]);
    site.write("forbidden", "");
    let words = complains(&site, &["rollback", "probe"]);
    assert!(words.contains("probe generation 1 does not answer again: its init answered 7"), "{words}");
    server.wait_for_log("kept probe generation 2", PATIENCE);
    assert_answers(&server, 2);
}

#[test]
fn a_bad_build_gives_way_to_the_one_that_somebody_went_back_to() {
    let site = Site::new();
    let source = |body: &str| {
        format!(
            r#"#include "host.h"
            HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
                {body}
            }}"#
        )
    };
    let good = |version: usize| {
        source(&format!(
            "start_response->call(start_response, HOST_STR(\"200 OK\"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR(\"{version}\"));"
        ))
    };
    build(&site, "module", &good(1), &[]);
    let server = site.start(&["--threads", "1"]);
    build(&site, "module", &good(2), &[]);
    server.wait_for_log("reloaded module generation 2", PATIENCE);
    says(&site, &["rollback", "module"]);
    build(&site, "module", &source("*(volatile int *)16 = 1; return 0;"), &[]);
    server.wait_for_log("reloaded module generation 3", PATIENCE);
    eventually("the build before answers again", PATIENCE, || {
        let response = server.get("/module.so");
        assert!(matches!(response.status, 200 | 500), "{}", response.head);
        (response.status == 200).then(|| assert_eq!(response.text(), "1"))
    });
    server.wait_for_log("kept module generation 1: handlers/module.so: 5 of its last 5 calls crashed", PATIENCE);
    let module = &status(&site)["modules"][0];
    assert_eq!((&module["state"], &module["generation"]), (&"serving".into(), &1.into()));
    assert!(module["reason"].as_str().is_some_and(|reason| reason.contains("crashed")), "{module}");
    assert!(complains(&site, &["rollback", "module", "3"]).contains("has no generation 3"));
}

#[test]
fn old_copies_do_not_pile_up() {
    let site = Site::new();
    build(&site, "life", LIFE, &["-DVERSION=1"]);
    let server = site.start(&["--threads", "1", "--limit-generations", "2"]);
    for version in 2..=15 {
        let source = site.write("sources/life.c", LIFE);
        cc(&source, &site.path("life.new"), &[&format!("-DVERSION={version}")]);
        let mark = server.mark();
        std::fs::rename(site.path("life.new"), site.path("handlers/life.so")).expect("the same file system");
        server.wait_for_log_since(mark, &format!("reloaded life generation {version}"), PATIENCE);
    }
    for _ in 0..10 {
        says(&site, &["rollback", "life", "14"]);
        says(&site, &["rollback", "life", "15"]);
    }
    assert_eq!(status(&site)["modules"][0]["others"], serde_json::json!([14, 13, 12, 11, 10, 9, 8, 7]));
    // Nine that can be named, and what the workers of now have loaded besides.
    eventually("the rest is gone", PATIENCE, || {
        let entries = std::fs::read_dir(crate::server_folder(&site)).expect("the server's folder");
        let copies =
            entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains('@')));
        (copies.count() <= 9 + 2 * 4).then_some(())
    });
}
