//! Processes that a measurement starts: waited for with a deadline, and ended with all that they have started.

use crate::accounting;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A process of a group of its own, so that a Ctrl-C at the terminal is ours alone. Ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    reaped: bool,
    log: PathBuf,
}

/// What a process that was told to end may take for it.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// What its descendants may take when it has ended.
const ORPHANS_PATIENCE: Duration = Duration::from_millis(300);
/// How many lines of a log are shown, from its end.
const LOG_LINES: usize = 3;

/// Makes Ctrl-C, and being told to end, an error of whatever is waited for, so that everything is put away.
///
/// # Errors
/// Those of sigaction(2).
pub fn watch_for_interruption() -> io::Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(interrupted()))?;
    }
    Ok(())
}

/// Whether to go on.
///
/// # Errors
/// `Interrupted`, if somebody wants us to end.
pub fn go_on() -> io::Result<()> {
    match interrupted().load(Ordering::Relaxed) {
        true => Err(io::Error::new(ErrorKind::Interrupted, "interrupted")),
        false => Ok(()),
    }
}

impl Running {
    /// Starts `command`, whose standard error goes to the file `log`, and its output too unless it is piped.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, log: PathBuf, piped: bool) -> io::Result<Running> {
        let file = fs::File::create(&log)?;
        match piped {
            true => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
            false => command.stdin(Stdio::null()).stdout(file.try_clone()?),
        };
        let child = command.stderr(file).process_group(0).spawn();
        let child = child.map_err(|error| io::Error::other(format!("{}: {error}", command_name(&command))))?;
        Ok(Running { child, reaped: false, log })
    }

    /// Its pipes, if it has any.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Itself and all its descendants.
    pub fn processes(&self) -> Vec<u32> {
        accounting::tree(self.child.id())
    }

    /// The last lines that it has written to its log, as one.
    pub fn words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join(" / ")
    }

    /// Whether it has ended. It is not reaped, so its number remains its own.
    pub fn has_ended(&self) -> bool {
        !runs(self.child.id())
    }

    /// Waits for its own end, and says how much processor time it has used.
    ///
    /// # Errors
    /// Its failure with its words, `TimedOut`, `Interrupted`.
    pub fn finish(&mut self, patience: Duration) -> io::Result<Duration> {
        let handle = rustix::process::pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        wait_readable(&handle, patience)?;
        // It is not reaped yet, so its account is still there.
        let used = accounting::ticks(self.child.id()).unwrap_or_default();
        let status = self.child.wait()?;
        self.reaped = true;
        match status.success() {
            true => Ok(used),
            false => Err(io::Error::other(format!("{status}: {}", self.words()))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            // Those that are waited for to their end, clients, start nothing.
            return;
        }
        let root = self.child.id();
        // Descendants may leave the group and lose their parents, so they are kept in mind by number and time of start: as
        // they are now, and as they are found while it ends.
        let mut known = BTreeSet::new();
        let look = |known: &mut BTreeSet<(u32, u64)>| {
            let found = self.processes().into_iter().chain(accounting::group(root));
            known.extend(found.filter_map(|process| Some((process, accounting::started(process)?))));
            known.retain(|(process, started)| runs(*process) && accounting::started(*process) == Some(*started));
        };
        look(&mut known);
        // Until it is reaped, its number is its own, and that of its group.
        _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        let mut deadline = Instant::now() + STOP_PATIENCE;
        let mut root_runs = true;
        let mut last = false;
        loop {
            look(&mut known);
            if known.is_empty() {
                break;
            }
            if root_runs && !runs(root) {
                root_runs = false;
                // Those whose parent has not ended them may see for themselves that it is gone.
                deadline = deadline.min(Instant::now() + ORPHANS_PATIENCE);
            }
            if Instant::now() > deadline {
                if last {
                    eprintln!("these do not end: {known:?}");
                    break;
                }
                (last, deadline) = (true, Instant::now() + STOP_PATIENCE);
            }
            for (process, _) in known.iter().filter(|_| last) {
                if let Some(process) = i32::try_from(*process).ok().and_then(Pid::from_raw) {
                    _ = rustix::process::kill_process(process, Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        _ = self.child.try_wait();
    }
}

/// Whether there is a process of that number that has not ended. A zombie has; who has lost its parent stays one until
/// somebody else reaps it.
fn runs(process: u32) -> bool {
    ::tests::process::find(process).is_some_and(|found| found.state != 'Z')
}

/// Waits until there is something to read.
///
/// # Errors
/// `TimedOut`, `Interrupted`.
pub fn wait_readable(descriptor: impl AsFd, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        go_on()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("not within {patience:?}")));
        }
        // A signal that comes just before the wait does not end it, so the wait is short.
        let turn = left.min(Duration::from_millis(200));
        let turn = Timespec { tv_sec: 0, tv_nsec: turn.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&turn)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where a program is installed: in `PATH`, or where Debian has servers.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn command_name(command: &Command) -> String {
    Path::new(command.get_program()).display().to_string()
}

fn interrupted() -> &'static Arc<AtomicBool> {
    static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    INTERRUPTED.get_or_init(Arc::default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn what_a_process_has_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // The shell ends at once when told, its child does not hear of it, and is in a group of its own.
        command.args(["-c", "setsid sleep 1000 & echo started; wait"]);
        let mut running = Running::start(command, folder.path().join("log"), true).unwrap();
        wait_readable(running.child().stdout.as_ref().unwrap(), ::tests::PATIENCE).unwrap();
        let mut processes = Vec::new();
        ::tests::eventually("a sleep", ::tests::PATIENCE, || {
            processes = running.processes();
            let sleeps = |id: &u32| ::tests::process::find(*id).is_some_and(|found| found.command == "sleep 1000");
            processes.iter().any(sleeps).then_some(())
        });
        drop(running);
        for process in processes {
            assert!(::tests::process::find(process).is_none_or(|found| found.state == 'Z'), "{process} lives");
        }
    }

    #[test]
    fn what_has_lost_its_parent_ends_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // The inner shell ends at once, so that the sleep is nobody's child of ours.
        command.args(["-c", "sh -c 'sleep 1000 & echo $!'; exec sleep 1001"]);
        let mut running = Running::start(command, folder.path().join("log"), true).unwrap();
        let mut line = String::new();
        BufReader::new(running.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
        let orphan = line.trim().parse().unwrap();
        ::tests::eventually("it is an orphan", ::tests::PATIENCE, || {
            (runs(orphan) && !running.processes().contains(&orphan)).then_some(())
        });
        drop(running);
        assert!(!runs(orphan));
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let mut running = Running::start(command, folder.path().join("log"), false).unwrap();
        let error = running.finish(::tests::PATIENCE).unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains('3'), "{error}");
    }
}
