//! The light client: one thread that keeps many connections busy, and accounts for every request.
//!
//! Load generators that stop counting when an answer never comes make a frozen server look fast. This one knows of each
//! connection whether an answer is due and since when. It is a process of its own, so that it can be given a core:
//! a [`Plan`] comes in as JSON, a [`Report`] goes out. A request costs it two system calls and no allocation.
//!
//! A closed loop: a connection asks again when it has been answered. Its latency is from the request's (with
//! pipelining: from its batch's) sending to the last byte of its answer.

pub mod answer;
mod connection;
mod run;

pub use answer::Expected;
pub use run::{hold, run};

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// What the client is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// Who asks for what; all at the same time.
    pub groups: Vec<Group>,
    /// How long they ask before anything is measured.
    pub warm_up: Duration,
    /// How long they then ask.
    pub duration: Duration,
    /// A connection that has waited for so long without a byte is frozen. So long, too, is waited at the end.
    pub frozen_after: Duration,
}

/// Connections that ask for the same thing in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The path, with the query.
    pub path: String,
    /// What must come.
    pub expected: Expected,
    /// How many connections.
    pub connections: usize,
    /// How many requests are under way on each, at least 1.
    pub depth: usize,
    /// Whether each request has a connection of its own, which the server is told to close.
    pub close: bool,
    /// The time within which the connections begin one after another, so that they do not go in step.
    pub stagger: Duration,
}

impl Group {
    /// So many connections, each with one request under way.
    pub fn new(path: &str, expected: Expected, connections: usize) -> Group {
        Group { path: path.to_owned(), expected, connections, depth: 1, close: false, stagger: Duration::ZERO }
    }
}

/// What came of a plan: a [`Tally`] for each group, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The groups'.
    pub groups: Vec<Tally>,
}

/// What came of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Answers within the measured time.
    pub measured: u64,
    /// The measured time, in seconds.
    pub seconds: f64,
    /// All answers, those before and after the measured time too: what the server's work is to be divided by.
    pub answered: u64,
    /// Latency that half of the measured answers kept, in microseconds; so on.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Connections that were frozen at some time: an answer was due, and for too long nothing came.
    pub frozen: u64,
    /// Requests to which no answer had come at the end.
    pub unanswered: u64,
    /// Connections that the server closed between two answers although nobody had told it to.
    pub closed: u64,
    /// Connections that could not be made, that broke while an answer was due, or that got a wrong one.
    pub failed: u64,
    /// What was wrong first.
    pub first_failure: Option<String>,
}

impl Tally {
    /// Measured answers per second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.measured as f64 / self.seconds } else { 0.0 }
    }
}
