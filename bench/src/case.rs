//! The cases: what is asked of the servers, of which of them, and which numbers are shown.

use crate::reading::Metric;
use crate::server::Page;

/// One thing that is measured for several servers, in one table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name for `--only` and for the goals.
    pub name: &'static str,
    /// What is measured, in words.
    pub title: &'static str,
    /// Who takes part unless servers are named.
    pub field: Field,
    /// How it is measured.
    pub kind: Kind,
    /// No more rounds than these: some figures hardly vary, and take long.
    pub rounds_max: u32,
    /// What is shown.
    pub columns: &'static [Column],
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// All servers, and host with each of its hellos.
    Everybody,
    /// All servers.
    Servers,
    /// host, and these others.
    Leaders(&'static [&'static str]),
}

/// How a case is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same request again and again.
    Load(Load),
    /// A slow handler beside something fast.
    Slow,
    /// Connections that do nothing.
    Idle,
    /// Builds that were replaced.
    Generations,
    /// From the start to the first answer.
    Start,
}

/// A closed loop of requests for one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// What is asked for.
    pub page: Page,
    /// By how many connections.
    pub connections: usize,
    /// How many requests are under way on each.
    pub depth: usize,
    /// Whether each request has its own connection.
    pub close: bool,
    /// Whether wrk asks, and not the light client.
    pub wrk: bool,
    /// Whether the answers go through a veth(4), where congestion control is known, and not over loopback.
    pub joined: bool,
}

/// A column of a case's table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// What it shows.
    pub metric: Metric,
    /// Its heading.
    pub heading: &'static str,
    /// Decimals.
    pub decimals: usize,
    /// Whether the least and the greatest of the rounds are shown too.
    pub spread: bool,
}

const fn column(metric: Metric, heading: &'static str, decimals: usize) -> Column {
    Column { metric, heading, decimals, spread: false }
}

const fn spread(metric: Metric, heading: &'static str, decimals: usize) -> Column {
    Column { metric, heading, decimals, spread: true }
}

const LOAD_COLUMNS: &[Column] = &[
    spread(Metric::CpuUs, "CPU µs/req", 2),
    spread(Metric::Rate, "requests/s", 0),
    column(Metric::P50Us, "p50 µs", 0),
    column(Metric::P99Us, "p99 µs", 0),
    column(Metric::P999Us, "p99.9 µs", 0),
    column(Metric::MaxUs, "max µs", 0),
    column(Metric::MemoryKib, "PSS KiB", 0),
    column(Metric::SoftirqUs, "softirq µs/req", 2),
    column(Metric::ClientUs, "client µs/req", 2),
    column(Metric::WaitedPercent, "waited %", 0),
    column(Metric::Frozen, "frozen", 0),
    column(Metric::Failed, "failed", 0),
];

const SLOW_COLUMNS: &[Column] = &[
    spread(Metric::SlowRate, "slow/s", 1),
    spread(Metric::FastRate, "fast/s", 0),
    spread(Metric::AloneRate, "fast alone/s", 0),
    column(Metric::P50Us, "fast p50 µs", 0),
    column(Metric::P99Us, "p99 µs", 0),
    column(Metric::P999Us, "p99.9 µs", 0),
    column(Metric::MaxUs, "max µs", 0),
    column(Metric::Frozen, "frozen", 0),
    column(Metric::Failed, "failed", 0),
];

const IDLE_COLUMNS: &[Column] = &[
    spread(Metric::KibPerConnection, "KiB/connection", 3),
    column(Metric::MemoryKib, "PSS KiB with all", 0),
    column(Metric::Failed, "failed", 0),
];

const GENERATIONS_COLUMNS: &[Column] = &[
    spread(Metric::KibPerGeneration, "C KiB/generation", 1),
    spread(Metric::KibPerRustGeneration, "Rust KiB/generation", 1),
];

const START_COLUMNS: &[Column] = &[spread(Metric::StartMs, "ms", 1)];

const HELLO: Load = Load { page: Page::Hello, connections: 64, depth: 1, close: false, wrk: false, joined: false };
const FILE: Load = Load { page: Page::Kib1, ..HELLO };

/// Who shows how requests per second fall with connections, and similar things on the side.
const FEW: Field = Field::Leaders(&["floor", "nginx"]);

const fn load(name: &'static str, title: &'static str, field: Field, load: Load) -> Case {
    Case { name, title, field, kind: Kind::Load(load), rounds_max: u32::MAX, columns: LOAD_COLUMNS }
}

const fn hello_at(name: &'static str, title: &'static str, connections: usize) -> Case {
    load(name, title, FEW, Load { connections, ..HELLO })
}

/// How many connections ask for something fast, and how many for something slow beside them.
pub const FAST_AND_SLOW: (usize, usize) = (16, 64);
/// How many connections idle.
pub const IDLE_CONNECTIONS: usize = 10_000;
/// How many builds are replaced.
pub const GENERATIONS: u32 = 30;

/// All of them, in the order of measuring.
pub const CASES: &[Case] = &[
    load("hello", "a constant of 14 bytes, 64 connections", Field::Everybody, HELLO),
    load("hello-wrk", "the same, asked by wrk", FEW, Load { wrk: true, ..HELLO }),
    load("static-1k", "a file of 1 KiB, 64 connections", Field::Servers, FILE),
    load("static-1k-wrk", "the same, asked by wrk", FEW, Load { wrk: true, ..FILE }),
    load(
        "static-100k",
        "a file of 100 KiB, 16 connections",
        Field::Servers,
        Load { page: Page::Kib100, connections: 16, joined: true, ..FILE },
    ),
    load(
        "static-10m",
        "a file of 10 MiB, 4 connections",
        Field::Servers,
        Load { page: Page::Mib10, connections: 4, joined: true, ..FILE },
    ),
    hello_at("connections-1", "hello, 1 connection", 1),
    hello_at("connections-16", "hello, 16 connections", 16),
    hello_at("connections-64", "hello, 64 connections", 64),
    hello_at("connections-256", "hello, 256 connections", 256),
    hello_at("connections-1024", "hello, 1024 connections", 1024),
    load("pipelining", "hello, 64 connections with 16 requests under way each", FEW, Load { depth: 16, ..HELLO }),
    load("close", "hello, 64 at a time, a connection for each request", FEW, Load { close: true, ..HELLO }),
    Case {
        name: "slow",
        title: "16 connections on hello beside 64 on a handler that sleeps 100 ms",
        field: Field::Leaders(&["kore", "uwsgi", "nginx"]),
        kind: Kind::Slow,
        rounds_max: u32::MAX,
        columns: SLOW_COLUMNS,
    },
    Case {
        name: "idle",
        title: "10,000 connections, idle after one answer each",
        field: Field::Servers,
        kind: Kind::Idle,
        rounds_max: 2,
        columns: IDLE_COLUMNS,
    },
    Case {
        name: "generations",
        title: "memory of a retired generation, 30 builds of hello",
        field: Field::Leaders(&[]),
        kind: Kind::Generations,
        rounds_max: 2,
        columns: GENERATIONS_COLUMNS,
    },
    Case {
        name: "start",
        title: "from the start to the first answer, with the example handlers",
        field: Field::Leaders(&[]),
        kind: Kind::Start,
        rounds_max: u32::MAX,
        columns: START_COLUMNS,
    },
];

/// The cases that a name of `--only` means: the one of that name, or else those whose names begin with it and a dash.
pub fn named(name: &str) -> Vec<&'static Case> {
    let exact: Vec<_> = CASES.iter().filter(|case| case.name == name).collect();
    if !exact.is_empty() {
        return exact;
    }
    let family = format!("{name}-");
    CASES.iter().filter(|case| case.name.starts_with(&family)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_case_or_a_family() {
        let names = |name| named(name).iter().map(|case| case.name).collect::<Vec<_>>();
        assert_eq!(names("hello"), ["hello"]);
        assert_eq!(names("static"), ["static-1k", "static-1k-wrk", "static-100k", "static-10m"]);
        assert_eq!(names("connections").len(), 5);
        assert!(names("nothing").is_empty());
    }

    #[test]
    fn names_are_unique() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{}", case.name);
        }
    }
}
