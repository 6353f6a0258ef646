//! What cannot be without loss: crashes within a lock of the process, and the end of the process. What is lost is at most
//! what the worker had in flight, it is told, and afterwards everything is as before.

use super::{Fate, Fixture};
use tests::{Load, PATIENCE, Response, cc};

const CONNECTIONS: usize = 64;

/// The path of the crash, and one that needs the lock.
const LOCKS: [(&str, &str); 4] = [
    ("/lock/malloc", "/take/malloc"),
    ("/lock/stdio", "/take/stdio"),
    ("/lock/dl", "/take/dl"),
    ("/lock/own", "/take/own"),
];

/// The end of the whole process.
const ENDS: [&str; 4] = ["/_exit", "/kill", "/thread", "/close/all"];

fn is_answered(path: &str, response: &Response) -> Result<(), String> {
    match (response.status, response.text()) {
        (200, "Hello, World!\n" | "answered\n") => Ok(()),
        _ => Err(format!("{path}: {} {}", response.status, response.text())),
    }
}

/// Has one request do its damage under load, and the server recover.
fn damage(fixture: &Fixture, row: &str, paths: &[&str], offend: impl FnOnce()) {
    let (workers, mark) = (fixture.workers(), fixture.server.mark());
    let load = Load::start(fixture.server.address(), CONNECTIONS, paths, is_answered);
    load.flow(200);
    offend();
    fixture.replaced(&workers);
    load.flow(200);
    let report = load.finish();
    let (lost, closed) = (report.failures.len(), report.closed);
    println!("{row}: {lost} of {} requests lost, {closed} of {CONNECTIONS} connections", report.answered + lost as u64);
    assert!(lost <= CONNECTIONS && closed <= CONNECTIONS as u64, "{row}: {:?}", report.failures);
    let told = |line: &String| line.contains("in flight is lost") || line.contains("connections that were still busy");
    assert!(lost == 0 || fixture.server.log()[mark..].iter().any(told), "{row}: {:?}", fixture.server.log());
    let after = Load::start(fixture.server.address(), CONNECTIONS, paths, is_answered);
    after.flow(200);
    after.finish().assert_nothing_lost();
}

#[test]
fn a_crash_within_a_lock_costs_at_most_what_its_worker_had_in_flight() {
    let fixture = Fixture::start(&["--timeout-stop", "1s"]);
    // Another module that needs the same locks.
    let source = fixture.site.path("sources/guilty.c");
    cc(&source, &fixture.site.path("handlers/neighbour.so"), &["-O1", "-pthread"]);
    fixture.server.wait_for_log("loaded neighbour generation 1", PATIENCE);
    for (crash, take) in LOCKS {
        let [own, others] = ["guilty", "neighbour"].map(|module| format!("/{module}.so{take}"));
        damage(&fixture, crash, &["/innocent.so", &own, &others], || fixture.assert_fate(crash, Fate::Error));
        fixture.server.wait_for_log(&format!("(POST /guilty.so{crash})"), PATIENCE);
    }
}

#[test]
fn the_end_of_a_process_costs_at_most_what_it_had_in_flight() {
    let fixture = Fixture::start(&[]);
    for end in ENDS {
        damage(&fixture, end, &["/innocent.so", "/guilty.so"], || {
            fixture.offend(end).expect_err("nobody is left to answer");
        });
    }
}
