//! Everything at once, for a while: reloads, crashes, hangs, replacements, upgrades, slow clients and large requests, beside
//! connections that want nothing but answers. What is lost, and whether anything grows.
//!
//! `cargo run --release -p bench --bin soak` takes ten minutes. A line every ten seconds shows the vitals; what counts is
//! that they are flat, which the summary divides: the second half of the time by the first.

use bench::sample::Sample;
use bench::table::number;
use bench::trial::{CRASHES, Trial};
use bench::vitals::Vitals;
use clap::Parser;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tests::cc;

#[derive(Parser)]
struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Connections that want nothing but answers
    #[arg(long, default_value_t = 32)]
    innocents: usize,
    /// Let handlers end whole processes, too, every so many seconds: then requests are lost
    #[arg(long)]
    deaths: Option<u64>,
}

/// How often each thing has happened.
#[derive(Default)]
struct Counts {
    builds: AtomicU64,
    crashes: AtomicU64,
    hangs: AtomicU64,
    deaths: AtomicU64,
    replacements: AtomicU64,
    upgrades: AtomicU64,
    uploads: AtomicU64,
    abandoned: AtomicU64,
}

fn main() {
    let arguments = Arguments::parse();
    let mut trial = Trial::start(&["--timeout-handler", "1s", "--timeout-cpu", "1s", "--timeout-stop", "10s"]);
    let (counts, over) = (Counts::default(), AtomicBool::new(false));
    let address = trial.server.address();
    let handlers = trial.site.path("handlers");
    let sources = trial.site.path("");
    let load = trial.innocents(arguments.innocents);
    let mut vitals = Vec::new();
    std::thread::scope(|scope| {
        let (counts, over) = (&counts, &over);
        let each = |pause: Duration, mut act: Box<dyn FnMut(u64) + Send>| {
            scope.spawn(move || {
                for turn in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    act(turn);
                    std::thread::sleep(pause);
                }
            });
        };
        let crash = move |turn: u64| {
            bench::trial::offend(address, CRASHES[turn as usize % CRASHES.len()]);
            counts.crashes.fetch_add(1, Ordering::Relaxed);
        };
        each(Duration::from_millis(100), Box::new(crash));
        let hang = move |turn: u64| {
            bench::trial::offend(address, ["hang/lock", "hang/loop", "hang/next"][turn as usize % 3]);
            counts.hangs.fetch_add(1, Ordering::Relaxed);
        };
        each(Duration::from_secs(2), Box::new(hang));
        let rebuild = move |turn: u64| {
            build(&sources, &handlers, turn);
            counts.builds.fetch_add(1, Ordering::Relaxed);
        };
        each(Duration::from_millis(500), Box::new(rebuild));
        let upload = move |_| {
            upload(address);
            counts.uploads.fetch_add(1, Ordering::Relaxed);
        };
        each(Duration::from_millis(200), Box::new(upload));
        let abandon = move |turn: u64| {
            abandon(address, turn);
            counts.abandoned.fetch_add(1, Ordering::Relaxed);
        };
        each(Duration::from_millis(20), Box::new(abandon));
        if let Some(pause) = arguments.deaths {
            let die = move |_| {
                bench::trial::offend(address, "kill");
                counts.deaths.fetch_add(1, Ordering::Relaxed);
            };
            each(Duration::from_secs(pause), Box::new(die));
        }
        let start = Instant::now();
        let end = Duration::from_secs(arguments.seconds);
        for turn in 1u32.. {
            let next = INTERVAL * turn;
            if next > end {
                break;
            }
            std::thread::sleep(next.saturating_sub(start.elapsed()));
            match turn % 4 {
                0 => {
                    trial.server.upgrade();
                    counts.upgrades.fetch_add(1, Ordering::Relaxed);
                }
                1 => trial.server.signal(Signal::TTIN),
                2 => trial.server.signal(Signal::HUP),
                _ => trial.server.signal(Signal::TTOU),
            }
            counts.replacements.fetch_add(1, Ordering::Relaxed);
            let now = Vitals::of(trial.server.id());
            println!("{:4} s  {:8} answers  {now}", start.elapsed().as_secs(), load.answered());
            vitals.push(now);
        }
        over.store(true, Ordering::Relaxed);
    });
    let outcome = load.finish();
    let Counts { builds, crashes, hangs, deaths, replacements, upgrades, uploads, abandoned } = counts;
    let told = [
        (builds, "builds"),
        (crashes, "crashes"),
        (hangs, "hangs"),
        (deaths, "deaths"),
        (replacements, "signals"),
        (upgrades, "of them upgrades"),
        (uploads, "large requests"),
        (abandoned, "clients who left in the middle"),
    ];
    let told: Vec<_> = told.into_iter().map(|(count, what)| format!("{} {what}", count.into_inner())).collect();
    println!("{}", told.join(", "));
    let rate = outcome.report.answered as f64 / outcome.wall.as_secs_f64();
    let p99 = outcome.latencies.quantile(0.99).as_secs_f64() * 1e3;
    println!(
        "{} answers, {} each second, 99 % within {} ms; lost {}, closed {}",
        outcome.report.answered,
        number(rate, 0),
        number(p99, 1),
        outcome.report.failures.len(),
        outcome.report.closed,
    );
    outcome.report.failures.iter().take(10).for_each(|failure| println!("  {failure}"));
    let (first, second) = vitals.split_at(vitals.len() / 2);
    let growth = |what: &str, of: fn(&Vitals) -> f64| {
        let median = |half: &[Vitals]| half.iter().map(of).collect::<Sample>().median();
        let (before, after) = (median(first), median(second));
        println!("{what:<22} {:>10} then {:>10}, {:.2} times", number(before, 0), number(after, 0), after / before);
    };
    growth("threads", |vitals| vitals.threads as f64);
    growth("descriptors", |vitals| vitals.descriptors as f64);
    growth("memory, KiB", |vitals| vitals.memory_kib as f64);
    growth("the supervisor's, KiB", |vitals| vitals.supervisor_kib as f64);
}

/// A module that is rebuilt again and again, every fourth time so that it is refused.
fn build(sources: &Path, handlers: &Path, turn: u64) {
    let call = if turn % 4 == 3 { "missing()" } else { "(void)0" };
    let source = sources.join("rebuilt.c");
    let text = format!(
        r#"#include "host.h"
        void missing(void);
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
            {call};
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR("{turn}\n"));
        }}"#
    );
    std::fs::write(&source, text).expect("the site's folder can be written");
    cc(&source, &handlers.join("rebuilt.so"), &[]);
}

/// A request with content that does not stay in memory.
fn upload(address: SocketAddr) {
    let content = vec![b'x'; 1 << 20];
    if let Ok(mut client) = tests::Client::connect(address) {
        // It may meet the end of the run.
        _ = client.request("POST", "/innocent.so", &[], &content);
    }
}

/// A client who leaves in the middle of something.
fn abandon(address: SocketAddr, turn: u64) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let pieces = [
        "GET /inno",
        "POST /innocent.so HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome",
        "GET /guilty.so HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
    ];
    // Whatever becomes of it.
    _ = stream.write_all(pieces[turn as usize % pieces.len()].as_bytes());
    _ = stream.set_read_timeout(Some(Duration::from_millis(turn % 7 + 1)));
    _ = stream.read(&mut [0; 64]);
}

/// Between two looks, each with a signal to the server.
const INTERVAL: Duration = Duration::from_secs(10);
