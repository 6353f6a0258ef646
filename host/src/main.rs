//! The `host` command.
//!
//! 1. Which process is this? The supervisor executes this program again for its workers and checkers, and tells
//!    them so by their `argv[0]`, which is also what `ps` shows.
//! 2. Else somebody typed a command line.

use host::cli::{self, Invocation};
use host::exit::Exit;
use std::ffi::OsStr;
use std::process::ExitCode;

// Handlers share the process but not this allocator: a thread that is parked inside malloc's locks by a handler's
// crash must not take the server's own memory with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match std::env::args_os().next().as_deref().and_then(OsStr::to_str) {
        Some("host: worker") => host::worker::main(),
        Some("host: checker") => host::handler::check::main(),
        _ => command_line(),
    }
}

fn command_line() -> ExitCode {
    match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Invocation::Serve(config)) => host::supervisor::run(*config),
        Ok(Invocation::Check(files)) => host::supervisor::builds::command(&files),
        Ok(Invocation::Generate(what)) => match what.write(&mut std::io::stdout().lock()) {
            Ok(()) => Exit::Success.into(),
            Err(_) => Exit::Failure.into(),
        },
        Err(refusal) => refusal.report(),
    }
}
