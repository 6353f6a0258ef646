//! When a build that crashes again and again is taken out of service: if at least half of its calls do.
//!
//! One address that always crashes, among good traffic, is no off-switch for a module: what counts are shares, not numbers.

use super::crew::WorkerId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The crashes of late.
#[derive(Default)]
pub(super) struct Verdicts {
    /// By module and generation.
    crashes: HashMap<(String, u64), Vec<Crash>>,
}

/// What a build has done.
pub(super) struct Offence<'a> {
    /// The module's name.
    pub(super) module: &'a str,
    /// The build's number.
    pub(super) generation: u64,
    /// Such as `SIGSEGV`.
    pub(super) what: &'a str,
}

struct Crash {
    at: Instant,
    worker: WorkerId,
    /// How often that worker had called the build so far, within the window.
    calls: u64,
}

impl Verdicts {
    /// Takes note of an offence, of a build that its worker has called so often and for so long. Says why the build shall
    /// not serve any more, if it shall not; then its offences are forgotten.
    pub(super) fn note(
        &mut self,
        worker: WorkerId,
        offence: &Offence<'_>,
        calls: u64,
        age: Duration,
        now: Instant,
    ) -> Option<String> {
        self.crashes.retain(|_, crashes| {
            crashes.retain(|crash| now.saturating_duration_since(crash.at) < WINDOW);
            !crashes.is_empty()
        });
        let key = (offence.module.to_owned(), offence.generation);
        let crashes = self.crashes.entry(key.clone()).or_default();
        crashes.push(Crash { at: now, worker, calls: within_window(calls, age) });
        // A worker tells of all of its calls each time.
        let mut calls = HashMap::new();
        for crash in &*crashes {
            let most: &mut u64 = calls.entry(crash.worker).or_default();
            *most = crash.calls.max(*most);
        }
        let (calls, crashed) = (calls.values().sum::<u64>(), crashes.len() as u64);
        if calls < CALLS_MIN || crashed * 2 < calls {
            return None;
        }
        self.crashes.remove(&key);
        Some(format!("{crashed} of its last {calls} calls crashed, the last one with {}", offence.what))
    }
}

/// How many of a build's calls in a process fall into the window, if they came evenly; at least the one that crashed.
fn within_window(calls: u64, age: Duration) -> u64 {
    let share = WINDOW.as_secs_f64() / age.as_secs_f64().max(WINDOW.as_secs_f64());
    ((calls as f64 * share) as u64).max(1)
}

/// What is longer ago does not count.
const WINDOW: Duration = Duration::from_secs(60);

/// Fewer calls than these say nothing.
const CALLS_MIN: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    impl Verdicts {
        fn crash(
            &mut self,
            worker: WorkerId,
            generation: u64,
            calls: u64,
            age: Duration,
            now: Instant,
        ) -> Option<String> {
            self.note(worker, &Offence { module: "m", generation, what: "SIGSEGV" }, calls, age, now)
        }
    }

    const YOUNG: Duration = Duration::from_millis(20);

    #[test]
    fn a_build_that_always_crashes_is_stopped_at_the_fifth_call() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        for worker in 1..5 {
            assert_eq!(verdicts.crash(worker, 1, 1, YOUNG, now), None);
        }
        let reason = verdicts.crash(5, 1, 1, YOUNG, now).expect("five of five");
        assert_eq!(reason, "5 of its last 5 calls crashed, the last one with SIGSEGV");
        assert_eq!(verdicts.crash(6, 1, 1, YOUNG, now), None, "another trial begins anew");
    }

    #[test]
    fn a_bad_address_among_good_traffic_stops_nothing() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        for worker in 1..1000 {
            assert_eq!(verdicts.crash(worker, 1, 3, YOUNG, now), None, "two good calls for each bad one");
        }
    }

    #[test]
    fn good_calls_of_long_ago_are_no_excuse() {
        let (mut verdicts, start) = (Verdicts::default(), Instant::now());
        let old = Duration::from_secs(100_000);
        assert_eq!(verdicts.crash(1, 1, 1_000_000, old, start), None, "600 of its calls were in the last minute");
        let later = start + WINDOW;
        let stopped = (2..7).filter_map(|worker| verdicts.crash(worker, 1, 1, YOUNG, later)).count();
        assert_eq!(stopped, 1);
    }

    #[test]
    fn calls_of_one_worker_count_once_and_those_of_another_build_not_at_all() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(verdicts.crash(1, 1, 8, YOUNG, now), None);
        }
        assert_eq!(verdicts.crash(9, 2, 1, YOUNG, now), None);
        assert!(verdicts.crash(1, 1, 8, YOUNG, now).is_some(), "four of eight");
    }
}
