//! Clients who hold thousands of connections and use them as slowly as they may, and what that costs others.
//!
//! `cargo run --release -p bench --bin attacks` has slowhttptest(1) make its four attacks, each with `--connections` (4,000),
//! while 16 connections ask a module without a pause and one client after another connects for a page. The program comes with
//! `apt-get install slowhttptest`. It takes two minutes and a half.

use bench::histogram::Histogram;
use bench::table::{Table, number};
use bench::trial::Trial;
use bench::vitals::Vitals;
use clap::Parser;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::Client;
use tests::process::{children, descriptors};

#[derive(Parser)]
struct Arguments {
    /// Connections of the attacker
    #[arg(long, default_value_t = 4000)]
    connections: usize,
    /// Seconds of each attack
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// The attacks: name, path, arguments of slowhttptest. First none, for comparison.
const ATTACKS: [(&str, &str, &[&str]); 5] = [
    ("(none)", "", &[]),
    ("slow heads", PAGE, &["-H", "-i", "5"]),
    ("slow content", "/innocent.so", &["-B", "-i", "5", "-s", "8192"]),
    ("many ranges", LARGE, &["-R", "-a", "1", "-b", "2000"]),
    ("slow reading", LARGE, &["-X", "-k", "3", "-n", "5", "-w", "512", "-y", "1024", "-z", "32"]),
];

const PAGE: &str = "/page.txt";

/// A file that does not fit into what the kernel keeps of a connection.
const LARGE: &str = "/large.bin";

/// What those found who came anew, and how much the server had then.
struct Found {
    latencies: Histogram,
    failures: Vec<String>,
    held: usize,
    memory_kib: u64,
}

fn main() {
    let Arguments { connections, seconds } = Arguments::parse();
    let trial = Trial::start(&[]);
    trial.site.write(&format!("html{PAGE}"), "a page");
    trial.site.write(&format!("html{LARGE}"), vec![b'x'; 8 << 20]);
    println!("{connections} connections of an attacker, beside 16 that ask and one newcomer after another");
    println!("before: {}", Vitals::of(trial.server.id()));
    let mut table = Table::new([
        "attack",
        "held",
        "good/s",
        "99 % ms",
        "lost",
        "newcomers/s",
        "99 % ms",
        "worst ms",
        "lost",
        "memory MiB",
    ]);
    for (name, path, arguments) in ATTACKS {
        let load = trial.innocents(16);
        let over = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            let newcomers = scope.spawn(|| come(&trial, &over));
            match path {
                "" => std::thread::sleep(CALM),
                path => attack(trial.server.address(), path, arguments, connections, seconds),
            }
            over.store(true, Ordering::Relaxed);
            newcomers.join().expect("the newcomers do not panic")
        });
        let outcome = load.finish();
        let per_second = |count: u64| number(count as f64 / outcome.wall.as_secs_f64(), 0);
        let ms = |latency: Duration| number(latency.as_secs_f64() * 1e3, 1);
        table.row([
            name.to_owned(),
            found.held.to_string(),
            per_second(outcome.report.answered),
            ms(outcome.latencies.quantile(0.99)),
            outcome.report.failures.len().to_string(),
            per_second(found.latencies.count()),
            ms(found.latencies.quantile(0.99)),
            ms(found.latencies.greatest()),
            found.failures.len().to_string(),
            number(found.memory_kib as f64 / 1024.0, 1),
        ]);
        let failures = found.failures.iter().chain(&outcome.report.failures);
        failures.take(3).for_each(|failure| println!("{name}: {failure}"));
    }
    table.lines().iter().for_each(|line| println!("{line}"));
    println!("after:  {}", Vitals::of(trial.server.id()));
}

/// Attacks, and returns when that is over.
fn attack(address: SocketAddr, path: &str, arguments: &[&str], connections: usize, seconds: u64) {
    let status = Command::new("slowhttptest")
        .args(arguments)
        .args(["-u", &format!("http://{address}{path}"), "-c", &connections.to_string(), "-r", RATE])
        .args(["-l", &seconds.to_string(), "-v", "0"])
        .stdout(Stdio::null())
        .status();
    match status {
        // It ends with an error where the server has closed all its connections, which is no mistake of either.
        Ok(_) => {}
        Err(error) => panic!("slowhttptest: {error}; apt-get install slowhttptest"),
    }
}

/// Connects for a page, again and again, until `over`.
fn come(trial: &Trial, over: &AtomicBool) -> Found {
    let mut found = Found { latencies: Histogram::new(), failures: Vec::new(), held: 0, memory_kib: 0 };
    let workers: Vec<u32> = children(trial.server.id()).iter().map(|process| process.id).collect();
    let mut looked = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match Client::connect(trial.server.address()).and_then(|mut client| client.get(PAGE)) {
            Ok(response) if response.status == 200 => found.latencies.record(begun.elapsed()),
            Ok(response) => found.failures.push(response.head),
            Err(error) => found.failures.push(error.to_string()),
        }
        if looked.elapsed() > LOOK {
            looked = Instant::now();
            found.held = found.held.max(workers.iter().filter_map(|worker| descriptors(*worker)).sum());
            found.memory_kib = found.memory_kib.max(Vitals::of(trial.server.id()).memory_kib);
        }
        std::thread::sleep(BETWEEN);
    }
    found
}

/// New connections of the attacker in a second.
const RATE: &str = "2000";

/// How long nothing happens, for comparison.
const CALM: Duration = Duration::from_secs(5);

/// Between two newcomers.
const BETWEEN: Duration = Duration::from_millis(2);

/// Between two looks at what the server has.
const LOOK: Duration = Duration::from_millis(500);
