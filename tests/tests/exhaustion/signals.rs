//! Floods of signals: interrupted system calls go on, nothing is lost, and nothing dead is left.

use crate::{Fixture, kill};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::process::children;

/// What neither process has a use for, and what a worker leaves to its supervisor. A process that is stopped and goes on has
/// its waits interrupted, whether it catches the signal or not.
const TO_SUPERVISOR: [Signal; 4] = [Signal::CHILD, Signal::WINCH, Signal::URG, Signal::CONT];
const TO_WORKER: [Signal; 8] =
    [Signal::CHILD, Signal::WINCH, Signal::USR1, Signal::USR2, Signal::HUP, Signal::TERM, Signal::STOP, Signal::CONT];

#[test]
fn floods_of_signals_and_of_children_that_end_lose_nothing_and_leave_no_zombie() {
    const FORKS: usize = 200;
    let fixture = Fixture::start(&[], &["--threads", "2"]);
    let (before, worker) = (fixture.footprint(), fixture.worker());
    let load = fixture.innocents(16);
    load.flow(100);
    let done = AtomicBool::new(false);
    fixture.without_zombies(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    TO_SUPERVISOR.iter().for_each(|signal| kill(fixture.server.id(), *signal));
                    TO_WORKER.iter().for_each(|signal| kill(worker, *signal));
                    std::thread::yield_now();
                }
            });
            for _ in 0..10 {
                let mut client = fixture.server.connect();
                let response = client.get(&format!("/greedy.so/fork?{FORKS}")).expect("an answer");
                assert_eq!(response.text(), format!("{FORKS}\n"));
                // Content in a file, and a sleep that is interrupted.
                let content = client.request("POST", "/modest.so", &[], &[b'x'; 200_000]).expect("an answer");
                assert_eq!(content.status, 200);
                assert_eq!(client.get("/greedy.so/sleep?50").expect("an answer").status, 200);
                load.flow(50);
            }
            // Whoever is stopped goes on.
            done.store(true, Ordering::Relaxed);
        });
    });
    load.flow(100);
    load.finish().assert_nothing_lost();
    assert_eq!(fixture.worker(), worker, "no signal has ended it");
    assert_eq!(children(worker), [], "no forked copy is left");
    fixture.assert_as_before(before);
}

#[test]
fn workers_that_are_killed_in_a_flood_of_signals_are_replaced_and_waited_for() {
    let fixture = Fixture::start(&[], &["--workers", "2", "--threads", "1"]);
    let done = AtomicBool::new(false);
    fixture.without_zombies(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    TO_SUPERVISOR.iter().for_each(|signal| kill(fixture.server.id(), *signal));
                    std::thread::yield_now();
                }
            });
            for _ in 0..3 {
                let old = fixture.workers();
                old.iter().for_each(|worker| kill(*worker, Signal::KILL));
                tests::eventually("there are two others", tests::PATIENCE, || {
                    let now = fixture.workers();
                    (now.len() == 2 && now.iter().all(|worker| !old.contains(worker))).then_some(())
                });
                assert_eq!(fixture.server.get("/modest.so").status, 200);
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}
