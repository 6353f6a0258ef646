//! Following a server from one supervisor to the next, and leaving none of them behind.

use super::{PREFIX, Server, wait};
use crate::{PATIENCE, eventually, process};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

impl Server {
    /// Has the program started anew, and follows the supervisor that takes over.
    ///
    /// # Panics
    /// None does, with the log.
    pub fn upgrade(&mut self) {
        let mark = self.mark();
        self.ask_for_upgrade();
        self.follow(mark);
    }

    /// Only asks for that: [`Server::follow`] has to come next, if it succeeds.
    ///
    /// # Panics
    /// The process is gone.
    pub fn ask_for_upgrade(&mut self) {
        self.has_heirs = true;
        // Each supervisor is its predecessor's child. When that one is gone it becomes ours, so that it has somebody who
        // waits for it, wherever the tests run.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("Linux has this");
        self.signal(Signal::USR2);
    }

    /// Waits until another supervisor has taken over, as the lines of the log from `mark` on say.
    ///
    /// # Panics
    /// None does, with the log.
    pub fn follow(&mut self, mark: usize) {
        // Not the line that begins with "not upgraded".
        let line = self.wait_for_log_since(mark, " info upgraded: process ", PATIENCE);
        let id = line.split("upgraded: process ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let before = std::mem::replace(&mut self.supervisor, id.unwrap_or_else(|| panic!("no process in {line:?}")));
        if before != self.child.id() {
            self.former.push(before);
        }
    }

    /// Waits until all supervisors before this one have ended.
    ///
    /// # Panics
    /// One does not, or ends otherwise than it should.
    pub fn wait_for_former(&mut self) {
        if self.supervisor != self.child.id() {
            let status = wait(&mut self.child, PATIENCE);
            assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", self.log.text());
        }
        for id in std::mem::take(&mut self.former) {
            let status = eventually("a former supervisor ends", PATIENCE, || reaped(id));
            assert!(status.is_none_or(|status| status.code() == Some(0)), "{status:?}\n{}", self.log.text());
        }
    }

    /// Ends what is left of upgrades, whichever process it has become: what runs in this site's folder was started by it.
    pub(super) fn end_strays(&self) {
        let is_ours = |folder: &&PathBuf| {
            folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        };
        let Some(folder) = self.folder.as_ref().filter(is_ours) else { return };
        for signal in [Signal::TERM, Signal::KILL] {
            let start = Instant::now();
            let strays = process::in_folder(folder);
            for &id in &strays {
                let _ = rustix::process::kill_process(number(id), signal);
            }
            let is_left = |id: &u32| reaped(*id).is_none();
            while strays.iter().any(is_left) && start.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        for &id in &self.former {
            reaped(id);
        }
    }
}

/// The end of a process: with its status if it was left to us, without if another has waited for it. None while it lives.
pub(super) fn reaped(id: u32) -> Option<Option<ExitStatus>> {
    match waitpid(Some(number(id)), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(Some(ExitStatus::from_raw(status.as_raw()))),
        Ok(None) => None,
        // It is, or was, another's child.
        Err(_) => process::find(id).is_none().then_some(None),
    }
}

pub(super) fn number(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed()).expect("a process id")
}
