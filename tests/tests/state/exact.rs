//! Hand-overs in good order: not one call is lost, nor counted twice.

use crate::*;
use rustix::process::Signal;

/// Rebuilds under load, and has every call counted.
fn rebuild_and_count(site: &Site, server: &Server, flags: &[&str], builds: usize) {
    let before = look(server);
    let load = count_without_pause(server);
    load.flow(50);
    for version in 2..2 + builds {
        let mark = server.mark();
        build(site, version, flags);
        server.wait_for_log_since(mark, &format!("reloaded counting generation {version}"), PATIENCE);
        load.flow(50);
    }
    let report = load.finish();
    let answered = report.answered;
    report.assert_nothing_lost();
    assert_eq!(look(server) - before, answered);
}

#[test]
fn a_count_survives_rebuilds_under_load() {
    let site = Site::new();
    build(&site, 1, &[]);
    let server = site.start(&["--threads", "2"]);
    let worker = workers(&server);
    rebuild_and_count(&site, &server, &[], 20);
    assert_eq!(workers(&server), worker, "all of it in one process");
}

#[test]
fn a_count_that_is_not_thread_safe_survives_them_too() {
    let site = Site::new();
    let flags = ["-DFLAGS=HOST_NOT_THREAD_SAFE"];
    build(&site, 1, &flags);
    let server = site.start(&["--threads", "2"]);
    rebuild_and_count(&site, &server, &flags, 10);
}

#[test]
fn a_count_survives_builds_that_need_a_new_worker() {
    let site = Site::new();
    build(&site, 1, &["-DREPLACE"]);
    let server = site.start(&["--threads", "2"]);
    rebuild_and_count(&site, &server, &["-DREPLACE"], 10);
}

#[test]
fn a_count_survives_the_replacement_of_its_worker_under_load() {
    let site = Site::new();
    build(&site, 1, &[]);
    let server = site.start(&["--threads", "2"]);
    let load = count_without_pause(&server);
    load.flow(50);
    for _ in 0..5 {
        let old = workers(&server);
        server.signal(Signal::HUP);
        replaced(&server, &old, 1);
        load.flow(50);
    }
    assert_exact(&server, load);
}

#[test]
fn a_count_survives_upgrades_under_load() {
    let site = Site::new();
    build(&site, 1, &[]);
    let mut server = site.start(&["--threads", "2"]);
    let load = count_without_pause(&server);
    load.flow(50);
    for _ in 0..4 {
        server.upgrade();
        load.flow(50);
    }
    server.wait_for_former();
    assert_exact(&server, load);
}

#[test]
fn a_count_survives_the_crash_of_another_module_under_load() {
    let site = Site::new();
    build(&site, 1, &[]);
    build_guilty(&site);
    let server = site.start(&["--threads", "2"]);
    let load = count_without_pause(&server);
    load.flow(50);
    for _ in 0..4 {
        let old = workers(&server);
        assert_eq!(server.get("/guilty.so").status, 500);
        replaced(&server, &old, 1);
        load.flow(50);
    }
    assert_exact(&server, load);
}

/// Each worker counts its own calls, and hands its own count on.
#[test]
fn several_workers_have_a_count_each() {
    let site = Site::new();
    build(&site, 1, &[]);
    let server = site.start(&["--workers", "3", "--threads", "1"]);
    let load = count_without_pause(&server);
    load.flow(100);
    build(&site, 2, &[]);
    server.wait_for_log("reloaded counting generation 2", PATIENCE);
    load.flow(100);
    let old = workers(&server);
    server.signal(Signal::HUP);
    replaced(&server, &old, 3);
    load.flow(100);
    let report = load.finish();
    let answered = report.answered;
    report.assert_nothing_lost();
    let counts = || kept_files(&server).iter().filter_map(|state| state.strip_prefix("count ")?.parse().ok()).collect();
    eventually("the counts that are kept are all of it", PATIENCE, || {
        let counts: Vec<u64> = counts();
        (counts.iter().sum::<u64>() == answered && counts.len() > 1).then_some(())
    });
}

/// The last request of the old build counts still, and the first of the new one waits for it.
#[test]
fn a_build_takes_over_when_the_requests_before_it_are_over() {
    let site = Site::new();
    let gate = format!("-DGATE=\"{}\"", site.path("gate").display());
    build(&site, 1, &[&gate]);
    let server = site.start(&["--threads", "2"]);
    count(&server, 3);
    let mut held = server.connect();
    held.send(b"GET /counting.so/hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is open");
    eventually("its call has begun", PATIENCE, || site.path("gate.in").exists().then_some(()));
    count(&server, 1);
    build(&site, 2, &[&gate]);
    // It waits for a second at the most.
    server.wait_for_log("counting generation 1 still has requests under way", PATIENCE);
    server.wait_for_log("reloaded counting generation 2", PATIENCE);
    assert_eq!(look(&server), 4);
    site.write("gate", "");
    assert_eq!(held.response().expect("an answer").text(), "5", "counted by the old build, and lost");
    assert_eq!(look(&server), 4);
    count(&server, 1);
    assert_eq!(look(&server), 5);
}

/// The example of the repository, in Rust.
#[test]
fn the_counter_counts_on() {
    let site = Site::new();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--package", "counter", "--target-dir"]).arg(site.path("target"));
    assert!(build.current_dir(repository()).status().expect("cargo is installed").success());
    let deploy = || {
        fs::copy(site.path("target/debug/libcounter.so"), site.path("new.so")).expect("it was built");
        fs::rename(site.path("new.so"), site.path("handlers/counter.so")).expect("they are in one folder");
    };
    deploy();
    let server = site.start(&["--threads", "2"]);
    for call in 1..4 {
        assert!(server.get("/counter.so").text().starts_with(&format!("call {call}, of generation 1 ")));
    }
    deploy();
    server.wait_for_log("reloaded counter generation 2", PATIENCE);
    assert!(server.get("/counter.so").text().starts_with("call 4, of generation 2 "));
    let old = workers(&server);
    server.signal(Signal::HUP);
    replaced(&server, &old, 1);
    assert!(server.get("/counter.so").text().starts_with("call 5, of generation "));
}

/// A request whose content is still coming has not begun, and is for the new build.
#[test]
fn an_upload_that_is_still_coming_is_not_waited_for() {
    let site = Site::new();
    build(&site, 1, &[]);
    let server = site.start(&["--threads", "2"]);
    count(&server, 3);
    let mut upload = server.connect();
    upload.send(b"POST /counting.so HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").expect("it is open");
    count(&server, 1);
    build(&site, 2, &[]);
    server.wait_for_log("reloaded counting generation 2", PATIENCE);
    upload.send(b"b").expect("it is open");
    let response = upload.response().expect("an answer");
    assert_eq!(response.text(), "5");
    assert!(response.field("x-build").is_some_and(|build| build.starts_with("2 ")), "{}", response.head);
    assert!(!server.log().iter().any(|line| line.contains("still has requests")), "{:?}", server.log());
}

#[test]
fn a_module_that_is_removed_goes_on_when_it_comes_back() {
    let site = Site::new();
    build(&site, 1, &[]);
    let server = site.start(&["--threads", "2"]);
    count(&server, 7);
    fs::remove_file(site.path("handlers/counting.so")).expect("it is there");
    server.wait_for_log("removed counting", PATIENCE);
    eventually("its count is kept", PATIENCE, || kept_files(&server).contains(&"count 7".to_owned()).then_some(()));
    build(&site, 2, &[]);
    server.wait_for_log("loaded counting generation", PATIENCE);
    eventually("it answers", PATIENCE, || (server.get("/counting.so/look").text() == "7").then_some(()));
}

/// What is compiled against a header without these functions begins anew with each build, as ever.
#[test]
fn a_module_without_the_functions_is_none_the_worse() {
    let site = Site::new();
    site.compile("counting", PLAIN);
    let server = site.start(&["--threads", "2"]);
    count(&server, 3);
    assert_eq!(look(&server), 4);
    site.compile("counting", &format!("{PLAIN}/* again */\nint again;\n"));
    server.wait_for_log("reloaded counting generation 2", PATIENCE);
    assert_eq!(look(&server), 1);
    // One that has them may come after one that has not, and the other way round.
    build(&site, 3, &[]);
    server.wait_for_log("reloaded counting generation 3", PATIENCE);
    count(&server, 2);
    assert_eq!(look(&server), 2);
    site.compile("counting", PLAIN);
    server.wait_for_log("reloaded counting generation 4", PATIENCE);
    assert_eq!(look(&server), 1);
}

const PLAIN: &str = r#"
    #include "host.h"
    #include <stdio.h>
    HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
        static int count;
        char text[16];
        int len = snprintf(text, sizeof text, "%d", __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST));
        start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
        return env->bytes(env, (host_str){text, (size_t)len});
    }
"#;
