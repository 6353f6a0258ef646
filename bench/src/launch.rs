//! Becoming another program, in the right place: on one core, in a network namespace, with many descriptors, and not
//! outliving the measurement.
//!
//! `peers launch` does this to itself and then executes the program, so that whatever the program starts inherits it.
//! Nothing has to be done between fork and exec, which only unsafe code could.

use crate::network::Network;
use rustix::process::{Resource, Rlimit, Signal};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where a program is to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The core for it and all that it starts
    #[arg(long)]
    core: usize,
    /// The network namespace, by its name in ip-netns(8)
    #[arg(long)]
    namespace: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<std::ffi::OsString>,
}

/// Descriptors for ten thousand connections and as many files.
const DESCRIPTORS: u64 = 65_536;

/// Executes the program; returns only if that fails.
pub fn execute(place: Place) -> io::Error {
    match prepare(&place) {
        Ok(()) => Command::new(&place.program[0]).args(&place.program[1..]).exec(),
        Err(error) => error,
    }
}

/// The command that starts `program` on a core, in a network.
pub fn command(bench: &Path, core: usize, network: &Network, program: &Path) -> Command {
    let mut command = Command::new(bench);
    command.args(["launch", "--core", &core.to_string()]);
    if let Some(namespace) = network.namespace() {
        command.args(["--namespace", namespace]);
    }
    command.arg("--").arg(program);
    command
}

fn prepare(place: &Place) -> io::Result<()> {
    // All servers end in an orderly way on TERM, and take their workers along.
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    raise_descriptors();
    crate::accounting::pin(None, place.core)?;
    match &place.namespace {
        Some(namespace) => crate::network::enter(namespace),
        None => Ok(()),
    }
}

/// As many descriptors as wanted, or as many as we may have.
fn raise_descriptors() {
    let most = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    if rustix::process::setrlimit(Resource::Nofile, most).is_err() {
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        // What is too few shows as a failed measurement, with the server's own words.
        _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
