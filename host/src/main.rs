//! The `host` command.
//!
//! 1. Which process is this? The supervisor executes this program again for its workers and checkers, and tells
//!    them so by their `argv[0]`, which is also what `ps` shows.
//! 2. Else somebody typed a command line.

use host::cli::{self, Invocation};
use host::exit::Exit;
use host::sys::crash;
use libc::sigset_t;
use std::ffi::{OsStr, c_int, c_void};
use std::process::ExitCode;

// Handlers share the process but not this allocator: a thread that is parked inside malloc's locks by a handler's
// crash must not take the server's own memory with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// exit(3), as modules find it: the executable's symbols come first (ld.so(8)). In a handler it would end the process, and
/// run destructors of everybody meanwhile; there it ends the call.
#[unsafe(no_mangle)]
extern "C" fn exit(status: c_int) -> ! {
    crash::exit(status)
}

/// pthread_exit(3), likewise: it would unwind through frames that cannot be unwound.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_exit(value: *mut c_void) -> ! {
    // SAFETY: the caller's promise is that of this function, too.
    unsafe { crash::exit_thread(value) }
}

/// pthread_sigmask(3), as modules find it: a thread that has blocked the signals of its own faults dies of them with the
/// whole process.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
    // SAFETY: the caller's promise is that of this function, too.
    match unsafe { crash::set_mask(how, set, old) } {
        Ok(()) => 0,
        Err(error) => error.raw_os_error(),
    }
}

/// sigprocmask(2), likewise.
#[unsafe(no_mangle)]
unsafe extern "C" fn sigprocmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
    // SAFETY: the caller's promise is that of this function, too.
    match unsafe { crash::set_mask(how, set, old) } {
        Ok(()) => 0,
        // rt_sigprocmask(2) has left it in errno.
        Err(_) => -1,
    }
}

fn main() -> ExitCode {
    match std::env::args_os().next().as_deref().and_then(OsStr::to_str) {
        Some("host: worker") => host::worker::main(),
        Some("host: checker") => host::handler::check::main(),
        _ => command_line(),
    }
}

fn command_line() -> ExitCode {
    match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Invocation::Serve(config)) => host::supervisor::run(*config, cli::reread),
        Ok(Invocation::Check(files)) => host::supervisor::builds::command(&files),
        Ok(Invocation::Console(command)) => host::supervisor::console::run(&command),
        Ok(Invocation::Generate(what)) => match what.write(&mut std::io::stdout().lock()) {
            Ok(()) => Exit::Success.into(),
            Err(_) => Exit::Failure.into(),
        },
        Err(refusal) => refusal.report(),
    }
}
