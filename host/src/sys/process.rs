//! What a process sets up for itself and how it ends.

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

/// Names the calling thread, for ps(1) and its like; a process has the name of its main thread.
pub fn name_thread(name: &CStr) {
    // It fails only for a name that is too long, and a name is a convenience.
    _ = rustix::thread::set_name(name);
}

/// Leaves the signals that steer the server to the parent: a service manager sends them to all processes at once. They
/// are caught and not ignored, so that what a handler executes finds them as usual (execve(2)).
///
/// # Errors
/// The system refuses, which it has no reason to.
pub fn leave_signals_to_parent() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}

/// Takes descriptor 0 as one of our own, close-on-exec, and leaves `/dev/null` in its place. A supervisor passes its
/// channel to a worker as standard input: of all ways it is the only one that no other child can inherit by accident.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(taken)
}

/// The number of the process whose child this one is; none if it lives in another namespace.
pub fn parent() -> Option<u32> {
    rustix::process::getppid().map(|id| id.as_raw_nonzero().get().cast_unsigned())
}

/// Ends this process at once: no atexit handler, no destructor of a module, no flush of a lock that may be held.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Keeps children from inheriting what our caller left open beside the standard streams: a lock or a pipe of somebody
/// else, kept open by a program that a handler runs, lets that one wait for ever.
pub fn inherit_nothing_further() {
    // SAFETY: close_range(2) with this flag closes nothing in this process and takes no pointers. Before Linux 5.11 it
    // fails, and children inherit what they always did.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Lets this process and its children have up to `wanted` descriptors, as far as the hard limit allows (getrlimit(2)).
/// The usual soft limit of 1024 is for programs that use select(2).
pub fn raise_descriptor_limit(wanted: u64) {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current.is_some_and(|current| current < allowed) {
        // It fails only above the hard limit.
        _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    }
}

/// How many more files this process may open; `None` if there is no limit.
pub fn descriptors_left() -> Option<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current?;
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Some(limit.saturating_sub(open as u64))
}

/// A child process that can be signalled safely: by a pidfd, so that its number can be nobody else's.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
}

/// The right and duty to wait for a [`Child`].
#[derive(Debug)]
pub struct Reaper(std::process::Child);

impl Child {
    /// Executes this program again, under another `argv[0]` and with this standard input. It is in a process group of
    /// its own: what a terminal sends to the group is for the parent to act on.
    ///
    /// # Errors
    /// The system has no room for another process or descriptor.
    pub fn spawn_self(name: &str, stdin: OwnedFd) -> io::Result<(Child, Reaper)> {
        Child::spawn(Command::new("/proc/self/exe").arg0(name).stdin(stdin).process_group(0))
    }

    /// Executes a program.
    ///
    /// # Errors
    /// It cannot be executed, or the system has no room for another process or descriptor.
    pub fn spawn(command: &mut Command) -> io::Result<(Child, Reaper)> {
        let mut child = command.spawn()?;
        let pid = child.id();
        // The child has not been waited for, so the number is still its own. Pidfds are close-on-exec.
        match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok((Child { pid, pidfd }, Reaper(child))),
            Err(error) => {
                // Nobody else could end it, or wait for it.
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Its process id, for people.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // ESRCH: it has ended already.
        _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }
}

impl Reaper {
    /// Waits for its end, so that it does not stay a zombie.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}
