//! Running a checker process: start it, read its report within bounds, and put its death into words.

use crate::handler::check::{PROCESS, Phase, REPORT_FOLLOWS, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How a check ended.
#[derive(Debug)]
pub enum Verdict {
    /// The checker reported; see [`Report::error`].
    Reported(Report),
    /// It died, hung or could not run; the words follow the file's name.
    Failed(String),
    /// It was given up.
    Cancelled,
}

/// What a build is tried with.
#[derive(Debug, Default)]
pub struct Trial<'a> {
    /// Symbols that it must export.
    pub required: &'a [String],
    /// What a build before it has saved.
    pub state: Option<Arc<OwnedFd>>,
}

/// A report is refused beyond this.
const REPORT_BYTES_MAX: usize = 1 << 20;

/// How often a running check looks whether it was given up.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// Checks `copy` in a process of its own, the executable `program` (normally `/proc/self/exe`), within `timeout`.
///
/// Call it from a thread that lives until it returns: the checker is killed when the thread that started it ends.
pub fn run(program: &Path, copy: &Path, trial: Trial<'_>, timeout: Duration, cancel: &AtomicBool) -> Verdict {
    let mut checker = match Checker::start(program, copy, &trial) {
        Ok(checker) => checker,
        Err(error) => return Verdict::Failed(format!("cannot be checked: {error}")),
    };
    let deadline = Instant::now() + timeout;
    let mut message = Message::default();
    let ended = checker.listen(&mut message, deadline, cancel);
    let status = checker.end();
    match ended {
        Err(error) => Verdict::Failed(format!("cannot be checked: {error}")),
        Ok(Ended::Cancelled) => Verdict::Cancelled,
        Ok(Ended::TimedOut) => {
            Verdict::Failed(format!("hangs: {} did not finish in {} s", message.culprit(), timeout.as_secs_f32()))
        }
        Ok(Ended::Reported(json)) => match serde_json::from_slice(&json) {
            Ok(report) => Verdict::Reported(report),
            Err(error) => Verdict::Failed(format!("cannot be checked: the checker's report is damaged ({error})")),
        },
        Ok(Ended::Died) => Verdict::Failed(match status {
            Ok(status) => message.epitaph(status),
            Err(error) => format!("cannot be checked: {error}"),
        }),
    }
}

struct Checker {
    child: Child,
    pipe: ChildStdout,
    process: OwnedFd,
}

enum Ended {
    Reported(Vec<u8>),
    Died,
    TimedOut,
    Cancelled,
}

impl Checker {
    fn start(program: &Path, copy: &Path, trial: &Trial<'_>) -> io::Result<Checker> {
        let mut command = Command::new(program);
        command.arg0(PROCESS).arg(copy).args(trial.required);
        let state = trial.state.as_ref().map(|state| state.try_clone()).transpose()?;
        // A group of its own: what the module starts is killed with it.
        command.stdin(state.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let pipe = child.stdout.take();
        let opened = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        match (pipe, opened) {
            (Some(pipe), Ok(process)) => Ok(Checker { child, pipe, process }),
            (_, opened) => {
                child.kill()?;
                child.wait()?;
                Err(opened.err().map_or(io::ErrorKind::BrokenPipe.into(), io::Error::from))
            }
        }
    }

    /// Reads until the report is complete, the process is dead or the time is over. The end of the pipe alone says
    /// nothing: a process that the module forked may hold it open, or have closed it.
    fn listen(&mut self, message: &mut Message, deadline: Instant, cancel: &AtomicBool) -> io::Result<Ended> {
        rustix::io::ioctl_fionbio(&self.pipe, true)?;
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Ok(Ended::Cancelled);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Ended::TimedOut);
            }
            let wait = Timespec::try_from(left.min(CANCEL_INTERVAL)).map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut events = [
                PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::IN),
            ];
            // A pipe at its end is always ready: it would turn this into a spin.
            let awaited = if message.ended { &mut events[..1] } else { &mut events[..] };
            match poll(awaited, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            // Look at the process first: what it wrote before its death is in the pipe then.
            let dead = !events[0].revents().is_empty();
            message.receive(&mut self.pipe)?;
            if let Some(json) = message.report()? {
                return Ok(Ended::Reported(json));
            }
            if dead {
                return Ok(Ended::Died);
            }
        }
    }

    /// Kills what is left of the group, and reaps. The leader is not reaped before, so its number, which is the group's,
    /// cannot belong to anybody else yet.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let killed = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        if killed.is_err() {
            self.child.kill()?;
        }
        self.child.wait()
    }
}

/// What has come through the pipe.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
    ended: bool,
}

impl Message {
    fn receive(&mut self, pipe: &mut ChildStdout) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while !self.ended {
            match io::Read::read(pipe, &mut chunk) {
                Ok(0) => self.ended = true,
                Ok(len) => self.bytes.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.bytes.len() > REPORT_BYTES_MAX {
                return Err(io::Error::other(format!("its report is longer than {REPORT_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }

    /// The report's JSON, once it is complete.
    fn report(&self) -> io::Result<Option<Vec<u8>>> {
        let Some(start) = memchr::memchr(REPORT_FOLLOWS, &self.bytes) else { return Ok(None) };
        let rest = &self.bytes[start + 1..];
        let Some((length, json)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > REPORT_BYTES_MAX {
            return Err(io::Error::other(format!("its report is longer than {REPORT_BYTES_MAX} bytes")));
        }
        Ok(json.get(..length).map(<[u8]>::to_vec))
    }

    /// Whose code was running last.
    fn culprit(&self) -> &'static str {
        match self.bytes.last() {
            Some(phase) if *phase == Phase::Constructor as u8 => "its constructor",
            Some(phase) if *phase == Phase::Description as u8 => "reading its host_module",
            Some(phase) if *phase == Phase::Init as u8 => "its init",
            Some(phase) if *phase == Phase::Restore as u8 => "its restore",
            Some(phase) if *phase == Phase::Save as u8 => "its save",
            Some(phase) if *phase == Phase::Signals as u8 => {
                "its signal handler, which was given a fault that is not its own"
            }
            _ => "reading its file",
        }
    }

    fn epitaph(&self, status: ExitStatus) -> String {
        let culprit = self.culprit();
        match (status.signal(), status.code()) {
            (Some(9), _) => format!("was killed by SIGKILL in {culprit}: perhaps it took too much memory"),
            (Some(signal), _) => format!("crashed with {} in {culprit}", signal_name(signal)),
            (None, Some(code)) => format!("ended the process with status {code} in {culprit}"),
            (None, None) => format!("ended the process in {culprit}"),
        }
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGSYS => "SIGSYS",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGALRM => "SIGALRM",
        libc::SIGXCPU => "SIGXCPU",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
