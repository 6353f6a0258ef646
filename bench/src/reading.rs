//! What a measurement gives: numbers by name. Tables, goals and the JSON file all read them by these names.

use serde::Serialize;
use std::collections::BTreeMap;

/// One round's numbers of one server in one case.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Reading(BTreeMap<Metric, f64>);

/// The name of a number, with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Answers per second.
    Rate,
    /// Latency that half of the answers kept, in µs.
    P50Us,
    /// 99 %.
    P99Us,
    /// 99.9 %.
    P999Us,
    /// The longest latency, in µs.
    MaxUs,
    /// Processor time of the server for each request, in µs: seconds for a million.
    CpuUs,
    /// How much of the time in which the server could run somebody else had its core, in %: on a quiet machine next to
    /// nothing, and else a warning.
    WaitedPercent,
    /// Processor time of the kernel's softirq thread of the server's core for each request, in µs: packets it has dealt
    /// with for whomever, which no process is charged for.
    SoftirqUs,
    /// Processor time of the client for each request, in µs.
    ClientUs,
    /// Memory of the server's processes, in KiB: proportional set size.
    MemoryKib,
    /// Connections on which an answer was due and did not come for too long.
    Frozen,
    /// Everything else that went wrong: failed and closed connections, wrong answers, requests without one at the end.
    Failed,
    /// Slow answers per second.
    SlowRate,
    /// Fast answers per second beside the slow ones.
    FastRate,
    /// Fast answers per second without slow ones.
    AloneRate,
    /// Memory that each idle connection adds, in KiB.
    KibPerConnection,
    /// Memory that each retired generation adds, in KiB, of a handler in C.
    KibPerGeneration,
    /// The same of one in Rust.
    KibPerRustGeneration,
    /// From the start to the first answer, in ms.
    StartMs,
}

impl Reading {
    /// With another number.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: f64) -> Reading {
        self.0.insert(metric, value);
        self
    }

    /// The number of that name, if it was measured.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }
}
