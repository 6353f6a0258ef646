//! Crashes without a pause, kind by kind, and what they cost others.
//!
//! `cargo run --release -p bench --bin storm` has each kind happen `--crashes` times (1,000) while 64 connections ask the same
//! module, and another, for what does not crash. All kinds take about a quarter of an hour.

use bench::table::{Table, number};
use bench::trial::{CRASHES, Trial, offend};
use bench::vitals::Vitals;
use clap::Parser;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Arguments {
    /// How often each kind happens
    #[arg(long, default_value_t = 1000)]
    crashes: usize,
    /// Clients who do it
    #[arg(long, default_value_t = 4)]
    offenders: usize,
    /// Connections of those who do not
    #[arg(long, default_value_t = 64)]
    innocents: usize,
    /// Kinds; all unless given
    kinds: Vec<String>,
}

fn main() {
    let Arguments { crashes, offenders, innocents, kinds } = Arguments::parse();
    let mut kinds = if kinds.is_empty() { CRASHES.map(str::to_owned).to_vec() } else { kinds };
    // For comparison.
    kinds.insert(0, NOTHING.to_owned());
    let trial = Trial::start(&[]);
    let address = trial.server.address();
    // The first replacements open what the supervisor keeps, and allocate it. Among good calls: else the build is refused.
    let load = trial.innocents(innocents);
    (0..20).for_each(|_| offend(address, "segv"));
    _ = load.finish();
    let before = settled(&trial);
    println!("{crashes} crashes of each kind by {offenders} clients, beside {innocents} connections without a fault");
    println!("before: {before}");
    let headings = ["kind", "crashes/s", "good/s", "median ms", "99 % ms", "worst ms", "lost", "closed"];
    let mut table = Table::new(headings);
    for kind in &kinds {
        let load = trial.innocents(innocents);
        let (start, left) = (Instant::now(), AtomicUsize::new(crashes));
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let offender = || {
            while take() {
                offend(address, kind);
            }
        };
        let crashes = if kind == NOTHING {
            std::thread::sleep(CALM);
            0
        } else {
            std::thread::scope(|scope| (0..offenders).for_each(|_| drop(scope.spawn(offender))));
            crashes
        };
        let wall = start.elapsed();
        let outcome = load.finish();
        let ms = |part: f64| number(outcome.latencies.quantile(part).as_secs_f64() * 1e3, 2);
        let per_second = |count: f64, wall: Duration| number(count / wall.as_secs_f64(), 0);
        table.row([
            kind.clone(),
            per_second(crashes as f64, wall),
            per_second(outcome.report.answered as f64, outcome.wall),
            ms(0.5),
            ms(0.99),
            number(outcome.latencies.greatest().as_secs_f64() * 1e3, 0),
            outcome.report.failures.len().to_string(),
            outcome.report.closed.to_string(),
        ]);
        outcome.report.failures.iter().take(3).for_each(|failure| println!("{kind}: {failure}"));
    }
    table.lines().iter().for_each(|line| println!("{line}"));
    println!("after:  {}", settled(&trial));
}

/// When the last replacement is over.
fn settled(trial: &Trial) -> Vitals {
    let start = Instant::now();
    loop {
        let vitals = Vitals::of(trial.server.id());
        if vitals.processes == 2 || start.elapsed() > SETTLING {
            return vitals;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// No kind of crash.
const NOTHING: &str = "(none)";

/// How long nothing happens.
const CALM: Duration = Duration::from_secs(5);

/// A replaced worker is gone within `--timeout-stop`.
const SETTLING: Duration = Duration::from_secs(40);
