//! A server with a module that misbehaves and others that do not, and clients who ask the latter without a pause: for
//! seeing what misbehaviour costs them.

use crate::histogram::Histogram;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::load::Report;
use tests::{Client, Load, Server, Site, cc, repository};

/// Ways to crash that are contained: the last part of `/guilty.so/…`. They are told in `tests/tests/faults/guilty.c`.
pub const CRASHES: [&str; 32] = [
    "segv",
    "jump",
    "divide",
    "illegal",
    "abort",
    "bus",
    "stack",
    "exit",
    "pthread_exit",
    "double_free",
    "raise",
    "mask/segv",
    "bad/get",
    "bad/get/env",
    "bad/each",
    "bad/errors",
    "bad/bytes",
    "bad/status",
    "bad/headers",
    "bad/header/name",
    "bad/header/value",
    "bad/exc_info",
    "bad/body",
    "bad/chunk",
    "bad/read",
    "bad/readline",
    "bad/write",
    "written",
    "complete",
    "next",
    "next/later",
    "close",
];

/// What the good calls answer.
const ANSWERS: [&str; 2] = ["Hello, World!\n", "answered\n"];

/// The server and its files.
pub struct Trial {
    /// The server: before its files, which are removed when the server has been ended.
    pub server: Server,
    /// Files and handlers.
    pub site: Site,
}

/// Clients who count everything that goes wrong, and note how long each answer takes.
pub struct Innocents {
    load: Load,
    latencies: Arc<Mutex<Histogram>>,
    since: Instant,
}

/// What they had.
#[derive(Debug)]
pub struct Outcome {
    /// Answers, and what was lost.
    pub report: Report,
    /// For how long they asked.
    pub wall: Duration,
    /// How long answers took.
    pub latencies: Histogram,
}

impl Trial {
    /// Compiles the modules and starts the server.
    pub fn start(arguments: &[&str]) -> Trial {
        let site = Site::new();
        let guilty = repository().join("tests/tests/faults/guilty.c");
        cc(&guilty, &site.path("handlers/guilty.so"), &["-g", "-O1", "-pthread", "-fno-optimize-sibling-calls"]);
        cc(&repository().join("handlers/hello.c"), &site.path("handlers/innocent.so"), &[]);
        let server = site.start(arguments);
        Trial { site, server }
    }

    /// Starts so many clients who ask the innocent module and the guilty one, which is not guilty of that.
    pub fn innocents(&self, connections: usize) -> Innocents {
        let latencies = Arc::new(Mutex::new(Histogram::new()));
        let noted = Arc::clone(&latencies);
        let verify = move |path: &str, begun: Instant, response: &tests::Response| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).record(begun.elapsed());
            match (response.status, response.text()) {
                (200, text) if ANSWERS.contains(&text) => Ok(()),
                (status, text) => Err(format!("{path}: {status} {text}")),
            }
        };
        let paths = ["/innocent.so", "/guilty.so"];
        let load = Load::start_noting(self.server.address(), connections, &paths, |_| Instant::now(), verify);
        load.flow(connections as u64);
        Innocents { load, latencies, since: Instant::now() }
    }
}

/// Has the guilty module misbehave once, whatever comes of it.
pub fn offend(address: SocketAddr, how: &str) {
    if let Ok(mut client) = Client::connect(address) {
        // 500, 504, an end in the middle, or an answer: each way has its own.
        _ = client.request("POST", &format!("/guilty.so/{how}"), &[], b"some content\n");
    }
}

impl Innocents {
    /// Right answers so far.
    pub fn answered(&self) -> u64 {
        self.load.answered()
    }

    /// Lets each finish its request.
    pub fn finish(self) -> Outcome {
        let wall = self.since.elapsed();
        let report = self.load.finish();
        let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Outcome { report, wall, latencies }
    }
}
