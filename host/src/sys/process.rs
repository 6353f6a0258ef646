//! What a process sets up for itself and how it ends.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Takes descriptor 0 as one of our own, close-on-exec, and leaves `/dev/null` in its place. A supervisor passes its
/// channel to a worker as standard input: of all ways it is the only one that no other child can inherit by accident.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(taken)
}

/// Ends this process at once: no atexit handler, no destructor of a module, no flush of a lock that may be held.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Ignores SIGIO, whose default ends the process: the kernel sends it to the holder of a lease when somebody opens the
/// file (fcntl(2), Leases).
pub fn ignore_sigio() {
    // SAFETY: SIG_IGN is a valid disposition for SIGIO, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
}

/// Sends a signal to a child of this process that has not been waited for.
pub fn signal(child: u32, signal: rustix::process::Signal) {
    let Some(pid) = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw) else { return };
    // ESRCH: it has ended already.
    _ = rustix::process::kill_process(pid, signal);
}
