//! The `host` command.

use host::cli::{self, Invocation};
use host::exit::Exit;
use std::process::ExitCode;

// Handlers share the process but not this allocator: a thread that is parked inside malloc's locks by a handler's
// crash must not take the server's own memory with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Invocation::Generate(what)) => match what.write(&mut std::io::stdout().lock()) {
            Ok(()) => Exit::Success.into(),
            Err(_) => Exit::Failure.into(),
        },
        Ok(_) => Exit::Failure.into(),
        Err(refusal) => refusal.report(),
    }
}
