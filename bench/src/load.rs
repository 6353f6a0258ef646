//! One load on one server: what is asked how, by which client, and what the server spent on it.

use crate::accounting::{self, Times};
use crate::client::{Group, Plan, Report, Tally};
use crate::launch;
use crate::network::Network;
use crate::process::{Running, installed, wait_readable};
use crate::reading::{Metric, Reading};
use crate::server::Server;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where clients run, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Clients<'a> {
    /// This program.
    pub bench: &'a Path,
    /// The client's core.
    pub core: usize,
    /// The client's network.
    pub network: &'a Network,
    /// A folder for logs.
    pub folder: &'a Path,
    /// How long a load is measured.
    pub duration: Duration,
}

/// How long a load runs before it is measured.
pub const WARM_UP: Duration = Duration::from_millis(200);
/// A connection on which an answer is due and nothing comes for so long is frozen.
pub const FROZEN_AFTER: Duration = Duration::from_secs(1);
/// How long a client may take to connect and to end, over the time for which it was asked to run.
const CLIENT_PATIENCE: Duration = Duration::from_secs(20);

/// What a server has used up to now, and its core's softirq thread.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    server: Times,
    softirq: Times,
}

impl Account {
    /// The state of now. The server must be at rest: a running thread's time is not up to date.
    pub fn of(server: &Server, core: usize) -> Account {
        let softirq = softirq_thread(core).map_or(Times::default(), |id| accounting::times(&[id]));
        Account { server: accounting::times(&server.running.processes()), softirq }
    }

    /// What was used from `self` to `after`, for each of so many requests.
    fn per_request(self, after: Account, requests: u64) -> Reading {
        let us = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6;
        let each = 1.0 / requests.max(1) as f64;
        let ran = us(self.server.ran, after.server.ran);
        let waited = us(self.server.waited, after.server.waited);
        Reading::default()
            .with(Metric::CpuUs, ran * each)
            .with(Metric::WaitedPercent, waited / (ran + waited) * 100.0)
            .with(Metric::SoftirqUs, us(self.softirq.ran, after.softirq.ran) * each)
    }
}

/// Loads the server with the light client.
///
/// # Errors
/// The client fails as a whole, or `Interrupted`.
pub fn light(server: &Server, clients: Clients<'_>, core: usize, group: Group) -> io::Result<Reading> {
    let before = Account::of(server, core);
    let (report, client) = run(&clients, &plan(server.address, clients.duration, vec![group]))?;
    let after = Account::of(server, core);
    let tally = &report.groups[0];
    if tally.answered == 0 {
        return Err(io::Error::other(tally.first_failure.clone().unwrap_or_else(|| "no answers".to_owned())));
    }
    let memory = accounting::memory(&server.running.processes());
    let reading = before
        .per_request(after, tally.answered)
        .with(Metric::ClientUs, client.as_secs_f64() * 1e6 / tally.answered as f64)
        .with(Metric::Rate, tally.rate())
        .with(Metric::MemoryKib, memory.proportional_kib as f64);
    Ok(faults(latencies(reading, tally), &[tally]))
}

/// Loads the server with wrk.
///
/// # Errors
/// It is not installed, fails, or `Interrupted`.
pub fn wrk(server: &Server, clients: Clients<'_>, core: usize, path: &str, connections: usize) -> io::Result<Reading> {
    let program = installed("wrk").ok_or_else(|| io::Error::other("wrk is not installed"))?;
    let script = clients.folder.join("report.lua");
    std::fs::write(&script, WRK_REPORT)?;
    let mut command = launch::command(clients.bench, clients.core, clients.network, &program);
    let seconds = clients.duration.as_secs().max(1);
    command.args(["--threads=1", &format!("--connections={connections}"), &format!("--duration={seconds}s")]);
    command.arg("--script").arg(&script).arg(format!("http://{}{path}", server.address));
    let before = Account::of(server, core);
    let mut client = Running::start(command, clients.folder.join("client.log"), true)?;
    drop(client.child().stdin.take());
    let used = client.finish(Duration::from_secs(seconds) + CLIENT_PATIENCE)?;
    let after = Account::of(server, core);
    let words = read_all(&mut client)?;
    let numbers = wrk_numbers(&words).ok_or_else(|| io::Error::other(format!("wrk says: {words}")))?;
    let [requests, us, p50, p99, p999, max, failed] = numbers;
    let memory = accounting::memory(&server.running.processes());
    Ok(before
        .per_request(after, requests as u64)
        .with(Metric::ClientUs, used.as_secs_f64() * 1e6 / requests.max(1.0))
        .with(Metric::Rate, requests / (us / 1e6))
        .with(Metric::P50Us, p50)
        .with(Metric::P99Us, p99)
        .with(Metric::P999Us, p999)
        .with(Metric::MaxUs, max)
        .with(Metric::Failed, failed)
        .with(Metric::MemoryKib, memory.proportional_kib as f64))
}

/// Has wrk say on one line what [`wrk_numbers`] reads: wrk's own words round to three digits.
const WRK_REPORT: &str = r#"done = function(summary, latency)
    local e = summary.errors
    io.write(string.format("numbers %d %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
        latency:percentile(99), latency:percentile(99.9), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// Requests, duration, p50, p99, p99.9, maximum in µs, and failures.
fn wrk_numbers(words: &str) -> Option<[f64; 7]> {
    let line = words.lines().find_map(|line| line.strip_prefix("numbers "))?;
    let numbers: Vec<f64> = line.split(' ').map_while(|number| number.parse().ok()).collect();
    numbers.try_into().ok()
}

/// Loads the server with 16 connections that ask for something fast, at first alone, then beside 64 that ask for
/// something that takes its time.
///
/// # Errors
/// As [`light`].
pub fn slow_beside_fast(server: &Server, clients: Clients<'_>, fast: Group, slow: Group) -> io::Result<Reading> {
    let (alone, _) = run(&clients, &plan(server.address, clients.duration, vec![fast.clone()]))?;
    let (beside, _) = run(&clients, &plan(server.address, clients.duration, vec![fast, slow]))?;
    let [fast, slow] = &beside.groups[..] else { return Err(io::Error::other("a report of two groups")) };
    let alone = &alone.groups[0];
    let reading = latencies(Reading::default(), fast)
        .with(Metric::SlowRate, slow.rate())
        .with(Metric::FastRate, fast.rate())
        .with(Metric::AloneRate, alone.rate());
    Ok(faults(reading, &[alone, fast, slow]))
}

/// Opens connections, each of which asks once and then stays open, and says what they add to the server's memory.
///
/// # Errors
/// As [`light`]; a connection was refused or closed.
pub fn idle(server: &Server, clients: Clients<'_>, group: Group) -> io::Result<Reading> {
    // What the server sets up for its first connections is not to be divided among these.
    let first = Group { connections: 64, ..group.clone() };
    run(&clients, &plan(server.address, WARM_UP, vec![first]))?;
    let kib = || accounting::memory(&server.running.processes()).proportional_kib as f64;
    let before = kib();
    let connections = group.connections;
    let mut client = start(&clients, &plan(server.address, WARM_UP, vec![group]), &["--hold"])?;
    let stdout = client.child().stdout.take().ok_or_else(|| io::Error::other("the client has no output"))?;
    wait_readable(&stdout, CLIENT_PATIENCE)?;
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut String::new())?;
    let during = kib();
    drop(client.child().stdin.take());
    client.finish(CLIENT_PATIENCE)?;
    let mut words = String::new();
    stdout.read_to_string(&mut words)?;
    let report: Report = serde_json::from_str(&words)?;
    let tally = &report.groups[0];
    if tally.answered != connections as u64 {
        let why = tally.first_failure.clone().unwrap_or_default();
        return Err(io::Error::other(format!("{} of {connections} connections were answered; {why}", tally.answered)));
    }
    let reading = Reading::default()
        .with(Metric::KibPerConnection, (during - before) / connections as f64)
        .with(Metric::MemoryKib, during);
    Ok(faults(reading, &[tally]))
}

fn plan(address: SocketAddr, duration: Duration, groups: Vec<Group>) -> Plan {
    Plan { address, groups, warm_up: WARM_UP, duration, frozen_after: FROZEN_AFTER }
}

/// Runs the light client to its end: its report, and the processor time it took.
fn run(clients: &Clients<'_>, plan: &Plan) -> io::Result<(Report, Duration)> {
    let mut client = start(clients, plan, &[])?;
    drop(client.child().stdin.take());
    let used = client.finish(plan.warm_up + plan.duration + CLIENT_PATIENCE)?;
    Ok((serde_json::from_str(&read_all(&mut client)?)?, used))
}

/// Starts the light client; its standard input stays open.
fn start(clients: &Clients<'_>, plan: &Plan, arguments: &[&str]) -> io::Result<Running> {
    let mut command: Command = launch::command(clients.bench, clients.core, clients.network, clients.bench);
    command.arg("client").args(arguments);
    let log: PathBuf = clients.folder.join("client.log");
    let mut client = Running::start(command, log, true)?;
    if let Some(stdin) = &mut client.child().stdin {
        writeln!(stdin, "{}", serde_json::to_string(plan)?)?;
    }
    Ok(client)
}

fn read_all(client: &mut Running) -> io::Result<String> {
    let mut words = String::new();
    if let Some(stdout) = &mut client.child().stdout {
        stdout.read_to_string(&mut words)?;
    }
    Ok(words)
}

fn latencies(reading: Reading, tally: &Tally) -> Reading {
    if tally.measured == 0 {
        // No latency is not a short one.
        return reading;
    }
    reading
        .with(Metric::P50Us, tally.p50_us)
        .with(Metric::P99Us, tally.p99_us)
        .with(Metric::P999Us, tally.p999_us)
        .with(Metric::MaxUs, tally.max_us)
}

fn faults(reading: Reading, tallies: &[&Tally]) -> Reading {
    for what in tallies.iter().filter_map(|tally| tally.first_failure.as_ref()) {
        eprintln!("the first failure: {what}");
    }
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(|tally| count(tally)).sum::<u64>() as f64;
    reading
        .with(Metric::Frozen, sum(|tally| tally.frozen))
        .with(Metric::Failed, sum(|tally| tally.failed + tally.closed + tally.unanswered))
}

/// The process that deals with a core's packets when they are too many to be dealt with on the side.
fn softirq_thread(core: usize) -> Option<u32> {
    static FOUND: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    // There is one server core in a run.
    *FOUND.get_or_init(|| {
        let name = format!("ksoftirqd/{core}\n");
        let ids = std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_it = |id: &u32| std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm == name);
        ids.into_iter().find(is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood_or_not() {
        let words = "Running 2s test\nnumbers 100 2000000 1 2 3 4 0\n";
        assert_eq!(wrk_numbers(words), Some([100.0, 2e6, 1.0, 2.0, 3.0, 4.0, 0.0]));
        assert_eq!(wrk_numbers("Running 2s test\n"), None);
        assert_eq!(wrk_numbers("numbers 1 2\n"), None);
    }
}
