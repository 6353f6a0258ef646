//! What goes wrong in the functions themselves costs the state at the most, and nobody a request; and when nobody can be
//! asked, what was kept before has to do.

use crate::*;
use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Rebuilds under load with a build that does not come to serve. The one before it goes on, and counts every call.
fn refused(flags: &[&str], reason: &str) -> (Site, Server) {
    let site = Site::new();
    build(&site, 1, &[]);
    let server = site.start(&["--threads", "2"]);
    let load = count_without_pause(&server);
    load.flow(50);
    build(&site, 2, flags);
    let line = server.wait_for_log("kept counting generation 1: handlers/counting.so: ", PATIENCE);
    assert!(line.contains(reason), "{line}");
    load.flow(50);
    let report = load.finish();
    let answered = report.answered;
    report.assert_nothing_lost();
    assert_eq!(look(&server), answered);
    assert!(server.get("/counting.so/look").field("x-build").is_some_and(|build| build.starts_with("1 ")));
    (site, server)
}

#[test]
fn a_build_that_refuses_the_state_does_not_serve() {
    let (site, server) = refused(&["-DRESTORE=return -6;"], "does not take over the state");
    let mark = server.mark();
    build(&site, 3, &[]);
    server.wait_for_log_since(mark, "reloaded counting generation", PATIENCE);
    assert!(look(&server) > 0, "the next one goes on");
}

/// The check finds that, if there is a state to try.
#[test]
fn a_build_that_refuses_the_state_is_found_by_the_check() {
    let site = Site::new();
    build(&site, 1, &[&kept_flag(&site)]);
    let server = site.start(&["--threads", "2"]);
    count(&server, 5);
    wait_until_kept(&site, &server, 5);
    for (flag, reason) in [
        ("-DRESTORE=return -6;", "does not take over the state of the build before it: its restore returned -6"),
        ("-DRESTORE=*nowhere=1;", "crashed with SIGSEGV in its restore"),
        ("-DSAVE=*nowhere=1;", "crashed with SIGSEGV in its save"),
    ] {
        let mark = server.mark();
        build(&site, 2, &[flag]);
        let line = server.wait_for_log_since(mark, "kept counting generation 1", PATIENCE);
        assert!(line.contains(reason), "{line}");
    }
    assert_eq!(look(&server), 5);
}

#[test]
fn a_build_that_refuses_the_state_when_it_is_to_serve_gives_way() {
    refused(
        &["-DRESTORE=if (serving) return -6;"],
        "does not take over the state of generation 1: its restore returned -6",
    );
}

#[test]
fn a_build_that_hangs_with_the_state_when_it_is_to_serve_gives_way() {
    refused(&["-DRESTORE=while (serving) usleep(1000);"], "its restore did not return in 2 s");
}

#[test]
fn a_build_that_crashes_with_the_state_when_it_is_to_serve_gives_way() {
    let (_site, server) = refused(&["-DRESTORE=if (serving) *nowhere = 1;"], "it crashed in its restore");
    server.wait_for_log("counting generation 2 crashed: SIGSEGV in restore at ", PATIENCE);
}

/// A build that gives way to the one before it ends, and that one ends when its own time has come.
#[test]
fn each_build_is_stopped_once() {
    let site = Site::new();
    let kept = kept_flag(&site);
    build(&site, 1, &[&kept]);
    let server = site.start(&["--threads", "2"]);
    count(&server, 2);
    let text = || fs::read_to_string(site.path("kept")).unwrap_or_default();
    let stopped = |version: usize| {
        let line = format!("stop of {version}");
        eventually(&line, PATIENCE, || text().lines().any(|found| found == line).then_some(()));
    };
    build(&site, 2, &[&kept, "-DRESTORE=if (serving) return -6;"]);
    stopped(2);
    assert!(!text().contains("stop of 1"), "{}", text());
    build(&site, 3, &[&kept]);
    stopped(1);
    assert_eq!(look(&server), 2);
    assert!(server.stop().success());
    for version in 1..4 {
        assert_eq!(text().matches(&format!("stop of {version}\n")).count(), 1, "{}", text());
    }
}

/// A module whose `save` goes wrong is replaced all the same, and its requests are answered. The count is one that was
/// kept before.
fn badly_saved(code: &str, told: &str) {
    let site = Site::new();
    // All is well as long as the count is 3.
    let flag = format!("-DSAVE=if (serving && count > 3) {{ {code} }}");
    let flags = [flag.as_str(), &kept_flag(&site)];
    build(&site, 1, &flags);
    let server = site.start(&["--threads", "2"]);
    count(&server, 3);
    wait_until_kept(&site, &server, 3);
    let load = count_without_pause(&server);
    load.flow(50);
    server.wait_for_log(told, PATIENCE);
    build(&site, 2, &[]);
    server.wait_for_log("reloaded counting generation 2", PATIENCE);
    load.flow(50);
    let report = load.finish();
    let answered = report.answered;
    report.assert_nothing_lost();
    let now = look(&server);
    assert!((3 + 50..3 + answered).contains(&now), "{now} of {answered}");
}

#[test]
fn a_save_that_crashes_costs_what_was_not_kept() {
    badly_saved("*nowhere = 1;", "counting generation 1 crashed: SIGSEGV in save at ");
}

#[test]
fn a_save_that_gives_a_bad_pointer_costs_what_was_not_kept() {
    badly_saved(
        "state->write(state, (host_str){(char *)nowhere, 64});",
        "counting generation 1 crashed: SIGSEGV, called by save at ",
    );
}

#[test]
fn a_save_that_exits_costs_what_was_not_kept() {
    badly_saved("exit(3);", "counting generation 1 crashed: a call of exit(3) (in its save)");
}

#[test]
fn a_save_that_fails_costs_what_was_not_kept() {
    badly_saved("return -5;", "the state of counting generation 1 is not kept: its save returned -5");
}

#[test]
fn a_save_that_is_too_large_costs_what_was_not_kept() {
    badly_saved(
        "static char large[HOST_STATE_MAX + 1]; \
         if (state->write(state, (host_str){large, sizeof large}) != HOST_TOO_LARGE) return 1; \
         if (state->write(state, HOST_STR(\"more\")) != HOST_STATE) return 1;",
        "the state of counting generation 1 is not kept: its save wrote more than 16777216 bytes",
    );
}

#[test]
fn a_save_that_hangs_costs_what_was_not_kept() {
    badly_saved(
        "for (;;) usleep(1000);",
        "the state of counting generation 1 is not kept any more: its save did not return in 2 s",
    );
}

/// Neither a module that has crashed is asked, nor a process that is gone.
#[test]
fn what_was_kept_last_is_there_after_a_crash_and_after_a_sudden_death() {
    let site = Site::new();
    build(&site, 1, &[&kept_flag(&site)]);
    let server = site.start(&["--threads", "2"]);
    count(&server, 5);
    wait_until_kept(&site, &server, 5);
    let old = workers(&server);
    assert_eq!(server.get("/counting.so/crash").status, 500);
    replaced(&server, &old, 1);
    assert_eq!(look(&server), 5);
    count(&server, 2);
    wait_until_kept(&site, &server, 7);
    let old = workers(&server);
    let pid = Pid::from_raw(old[0] as i32).expect("a process");
    kill_process(pid, Signal::KILL).expect("it is ours");
    replaced(&server, &old, 1);
    eventually("it answers", PATIENCE, || {
        let mut client = server.connect();
        (client.get("/counting.so/look").ok()?.text() == "7").then_some(())
    });
}

/// The same build, in a new process, that cannot use what was kept: it is better without than not at all.
#[test]
fn a_state_that_nobody_can_use_is_given_up() {
    for (code, told) in [
        ("return -6;", "counting generation 1 begins anew: its restore returned -6 for the state that was kept"),
        ("*nowhere = 1;", "the state of counting is given up"),
        ("while (1) usleep(1000);", "counting generation 1 crashed: a hang (in its restore)"),
    ] {
        let site = Site::new();
        build(&site, 1, &[&format!("-DRESTORE={code}"), &kept_flag(&site)]);
        let server = site.start(&["--threads", "2"]);
        count(&server, 5);
        wait_until_kept(&site, &server, 5);
        let old = workers(&server);
        kill_process(Pid::from_raw(old[0] as i32).expect("a process"), Signal::KILL).expect("it is ours");
        server.wait_for_log(told, PATIENCE);
        eventually("it answers", PATIENCE, || {
            let mut client = server.connect();
            (client.get("/counting.so/look").ok()?.text() == "0").then_some(())
        });
    }
}

#[test]
fn a_check_says_what_is_kept_and_refuses_half_of_it() {
    let site = Site::new();
    build(&site, 1, &[]);
    let output = site.run(&["check", "handlers/counting.so"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("  state    kept, by its save and restore\n"), "{text}");
    site.compile(
        "half",
        r#"#include "host.h"
        static int32_t save(host_state *state) { return state->write(state, HOST_STR("x")); }
        HOST_EXPORT const host_module_info host_module = {
            .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .save = save,
        };
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR("x"));
        }"#,
    );
    let output = site.run(&["check", "handlers/half.so"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && text.contains("give it both, or neither"), "{text}");
}

/// A request that does not end keeps its state from being final; then its supervisor dies.
#[test]
fn what_was_kept_last_is_there_after_an_upgrade_that_was_cut_short() {
    let site = Site::new();
    let gate = site.path("gate");
    build(&site, 1, &[&kept_flag(&site), &format!("-DGATE=\"{}\"", gate.display())]);
    let mut server = site.start(&["--threads", "2"]);
    count(&server, 7);
    wait_until_kept(&site, &server, 7);
    let mut slow = server.connect();
    slow.send(b"GET /counting.so/hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
    eventually("the request is under way", PATIENCE, || site.path("gate.in").exists().then_some(()));
    let old = server.id();
    server.upgrade();
    eventually("the state has come along", PATIENCE, || {
        kept_files(&server).contains(&"count 7".to_owned()).then_some(())
    });
    kill_process(Pid::from_raw(old as i32).expect("a process"), Signal::KILL).expect("it is ours");
    assert_eq!(look(&server), 7);
}
