//! What a server has of the system at one moment: for seeing whether it grows.

use crate::accounting;
use std::fmt;
use std::fs;
use tests::process::descriptors;

/// Of all processes of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// How many they are, zombies included.
    pub processes: usize,
    /// Their threads.
    pub threads: usize,
    /// What they have open.
    pub descriptors: usize,
    /// Their proportional set size, in KiB.
    pub memory_kib: u64,
    /// That of the first of them, the supervisor.
    pub supervisor_kib: u64,
}

impl Vitals {
    /// Those of this process and its descendants.
    pub fn of(supervisor: u32) -> Vitals {
        let processes = accounting::tree(supervisor);
        let threads = |process: &u32| fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
        Vitals {
            processes: processes.len(),
            threads: processes.iter().map(threads).sum(),
            descriptors: processes.iter().filter_map(|process| descriptors(*process)).sum(),
            memory_kib: accounting::memory(&processes).proportional_kib,
            supervisor_kib: accounting::memory(&[supervisor]).proportional_kib,
        }
    }
}

impl fmt::Display for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Vitals { processes, threads, descriptors, memory_kib, supervisor_kib } = self;
        let mib = |kib: &u64| *kib as f64 / 1024.0;
        write!(f, "{processes} processes, {threads} threads, {descriptors} descriptors, ")?;
        write!(f, "{:.1} MiB, of which the supervisor {:.1}", mib(memory_kib), mib(supervisor_kib))
    }
}
