//! The heir, as its predecessor sees it: started, awaited, and given everything, or given up.

use super::{FromHeir, PROTOCOL, ToHeir, VARIABLE};
use crate::control;
use crate::supervisor::listeners::Listener;
use crate::supervisor::startup::describe_end;
use crate::supervisor::states::Place;
use crate::supervisor::{Event, Supervisor};
use crate::sys::channel::{Channel, DESCRIPTORS_MAX};
use crate::sys::manager;
use crate::sys::process::Child;
use anyhow::{Context, ensure};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The process that takes over, or is to.
pub(in crate::supervisor) struct Heir {
    process: Child,
    channel: Channel,
    phase: Phase,
    /// When it is ended if it has not come further.
    deadline: Option<Instant>,
    is_compatible: bool,
    /// The states that it waits for.
    states: BTreeSet<Place>,
    /// It has been told to stop after it had taken over.
    is_stopping: bool,
    /// Why it is not wanted any more.
    given_up: Option<String>,
    /// It may have opened the access log before that was moved.
    log_is_moved: bool,
    /// Says when the last connection has been passed on.
    passed: Option<mpsc::Receiver<()>>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has said nothing yet: it may be any program.
    Silent,
    Starting,
    Serving,
}

impl Heir {
    fn start<'a>(
        program: &Path,
        listeners: impl Iterator<Item = &'a Listener>,
        generations: BTreeMap<String, u64>,
        states: BTreeSet<Place>,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Heir> {
        let (ours, theirs) = Channel::pair().context("cannot open a channel")?;
        let mut binds = Vec::new();
        let mut sockets: Vec<OwnedFd> = Vec::new();
        for listener in listeners {
            binds.push(listener.bind.clone());
            sockets.push(listener.socket.try_clone()?);
        }
        ensure!(sockets.len() <= DESCRIPTORS_MAX, "more than {DESCRIPTORS_MAX} listeners cannot be passed on");
        let hello = ToHeir::Hello { protocol: PROTOCOL, listeners: binds, generations, states: states.clone() };
        control::send(&ours, &hello, &sockets)?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program);
        if let Some(name) = arguments.next() {
            std::os::unix::process::CommandExt::arg0(&mut command, name);
        }
        command.args(arguments).env(VARIABLE, std::process::id().to_string()).stdin(theirs.into_fd());
        let receiving = ours.try_clone()?;
        let (process, reaper) =
            Child::spawn(&mut command).with_context(|| format!("cannot execute {}", program.display()))?;
        // The command holds the other end: while it is open here, that of the heir is not seen.
        drop(command);
        let words = events.clone();
        let receive = move || {
            while let Ok(Some((word, _))) = control::receive(&receiving) {
                if words.send(Event::Heir(word)).is_err() {
                    return;
                }
            }
        };
        let wait = move || {
            let status = reaper.wait();
            // Nobody receives any more when the supervisor ends.
            _ = events.send(Event::HeirEnded(status));
        };
        let heir = Heir {
            process,
            channel: ours,
            phase: Phase::Silent,
            deadline: Some(Instant::now() + HELLO_TIMEOUT),
            is_compatible: true,
            states,
            is_stopping: false,
            given_up: None,
            log_is_moved: false,
            passed: None,
        };
        let threads = thread::Builder::new().name("heir's words".to_owned()).spawn(receive);
        let threads = threads.and_then(|_| thread::Builder::new().name("heir's reaper".to_owned()).spawn(wait));
        if threads.is_err() {
            heir.process.kill();
        }
        threads.context("cannot start a thread")?;
        Ok(heir)
    }

    /// Whether it answers for everything: from then on nothing begins in this process.
    pub(in crate::supervisor) fn serves(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// When [`Supervisor::give_up_late_heir`] has to be called.
    pub(in crate::supervisor) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// This server stops, and so shall the heir, if it has not taken over.
    pub(in crate::supervisor) fn stop(&mut self, is_fast: bool, patience: Duration) {
        if self.serves() {
            return;
        }
        let signal = match (is_fast, &self.given_up) {
            (true, Some(_)) => Signal::KILL,
            (true, None) => Signal::INT,
            (false, _) => Signal::TERM,
        };
        self.given_up = Some("the server stops".to_owned());
        let patience = if is_fast { Duration::ZERO } else { patience };
        self.deadline = Some(Instant::now() + patience + STOP_TIMEOUT);
        self.process.signal(signal);
    }

    /// It has to open the access log anew, as soon as it can be told.
    pub(in crate::supervisor) fn reopen_access_log(&mut self) {
        if self.serves() {
            self.process.signal(Signal::USR1);
        } else {
            self.log_is_moved = true;
        }
    }

    /// Gives it the messages that come through the sender. They go by a thread of their own, since the channel may be
    /// full.
    fn take_messages(&mut self) -> anyhow::Result<mpsc::Sender<(ToHeir, Vec<OwnedFd>)>> {
        let (sender, messages) = mpsc::channel::<(ToHeir, Vec<OwnedFd>)>();
        let (done, passed) = mpsc::channel();
        let channel = self.channel.try_clone()?;
        let send = move || {
            for (message, descriptors) in messages {
                // Its end is an event of its own.
                _ = control::send(&channel, &message, &descriptors);
            }
            drop(done);
        };
        thread::Builder::new().name("to heir".to_owned()).spawn(send)?;
        self.passed = Some(passed);
        Ok(sender)
    }

    /// Waits until the last connection is on its way.
    pub(in crate::supervisor) fn flush(&self) {
        if let Some(passed) = &self.passed
            && passed.recv_timeout(FLUSH_TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            tracing::error!("process {} does not take the last connections; they are lost", self.process.id());
        }
    }
}

impl Supervisor {
    /// USR2.
    pub(in crate::supervisor) fn upgrade(&mut self) {
        if self.stopping || !self.announced {
            tracing::warn!("not upgraded: the server is {}", if self.stopping { "stopping" } else { "still starting" });
            return;
        }
        if std::process::id() == 1 {
            tracing::warn!("not upgraded: this is process 1, with which its container would end; start another one");
            return;
        }
        if let Some(heir) = &self.heir {
            tracing::warn!("not upgraded: process {} is about to take over already", heir.process.id());
            return;
        }
        // The heir reads the configuration itself. If nothing comes of it, the reload begins anew.
        self.reload_due |= self.abandon_reload();
        let (listeners, generations) = (self.crew.listeners(), self.modules.generations().clone());
        let states = self.crew.held_states().chain(self.states.places()).cloned().collect();
        match Heir::start(&self.program, listeners, generations, states, self.sender.clone()) {
            Ok(heir) => {
                tracing::info!("upgrading: process {} starts {}", heir.process.id(), self.program.display());
                self.heir = Some(heir);
            }
            Err(error) => {
                tracing::error!("not upgraded: {error:#}; going on as before");
                self.catch_up();
            }
        }
    }

    /// The heir has said something.
    pub(in crate::supervisor) fn on_heir(&mut self, word: FromHeir) {
        let Some(heir) = self.heir.as_mut().filter(|heir| heir.given_up.is_none()) else { return };
        match word {
            FromHeir::Hello { protocol, takes_states } if heir.phase == Phase::Silent => {
                heir.is_compatible = protocol == PROTOCOL;
                if !takes_states {
                    heir.states.clear();
                }
                heir.phase = Phase::Starting;
                heir.deadline = Some(Instant::now() + START_TIMEOUT);
            }
            FromHeir::Serving if heir.phase == Phase::Starting => {
                heir.phase = Phase::Serving;
                heir.deadline = None;
                self.leave_to_heir();
            }
            // What it cannot take over is answered here.
            FromHeir::Stopping if heir.phase == Phase::Serving => {
                heir.is_stopping = true;
                self.crew.stop(self.config.timeouts.stop);
            }
            _ => tracing::debug!("process {} says what makes no sense now: {word:?}", heir.process.id()),
        }
    }

    fn leave_to_heir(&mut self) {
        let Some(heir) = &mut self.heir else { return };
        let (id, patience) = (heir.process.id(), self.config.timeouts.stop);
        self.stopping = true;
        // Before it may say anything itself: only the main process is believed.
        manager::tell(&format!("MAINPID={id}"));
        self.crew.own_files(false);
        if std::mem::take(&mut self.reload_due) {
            // It may have read the configuration before it was changed.
            heir.process.signal(Signal::HUP);
        }
        if std::mem::take(&mut heir.log_is_moved) {
            heir.process.signal(Signal::USR1);
        }
        // Its end is an event of its own.
        _ = control::send(&heir.channel, &ToHeir::TakeOver, &[]);
        if heir.is_compatible {
            match heir.take_messages() {
                Ok(sender) => {
                    tracing::info!("upgraded: process {id} serves; passing the connections on to it");
                    self.crew.hand_over(sender, patience);
                    // Should this process die before they are final, these are something.
                    return self.bequeath(|_| true, false);
                }
                Err(error) => tracing::error!("cannot pass connections on: {error:#}"),
            }
        }
        tracing::warn!("upgraded: process {id} serves, but takes no connections from this version; closing them");
        self.crew.stop(patience);
    }

    /// Passes on the states that nobody here will change any more. To be called after each event.
    pub(in crate::supervisor) fn bequeath_states(&mut self) {
        if self.heir.as_ref().is_some_and(|heir| heir.serves() && !heir.states.is_empty()) {
            let held: BTreeSet<_> = self.crew.held_states().cloned().collect();
            self.bequeath(|place| !held.contains(place), true);
        }
    }

    fn bequeath(&mut self, is_due: impl Fn(&Place) -> bool, is_final: bool) {
        let Some(heir) = &mut self.heir else { return };
        let due: Vec<_> = heir.states.iter().filter(|place| is_due(place)).cloned().collect();
        for of in due {
            let state = self.states.of(&of).unwrap_or_else(|error| {
                tracing::error!("the state of {} cannot be passed on: {error}", of.1);
                None
            });
            if is_final {
                heir.states.remove(&of);
            }
            self.crew.tell_heir(ToHeir::State { of, is_final }, state.into_iter().collect());
        }
    }

    /// The heir has ended.
    pub(in crate::supervisor) fn on_heir_end(&mut self, status: std::io::Result<ExitStatus>) {
        let Some(heir) = &mut self.heir else { return };
        let (id, how) = (heir.process.id(), describe_end(&status));
        if heir.is_stopping {
            return;
        }
        if heir.serves() {
            tracing::error!("process {id}, which has taken over, {how}; answering what is left here");
            return self.crew.stop(self.config.timeouts.stop);
        }
        let reason = heir.given_up.take().unwrap_or_else(|| format!("{how} before it served"));
        self.heir = None;
        tracing::error!(
            "not upgraded: process {id}: {reason}{}",
            if self.stopping { "" } else { "; going on as before" }
        );
        self.catch_up();
    }

    /// Ends an heir that takes too long. Its end is an event of its own.
    pub(in crate::supervisor) fn give_up_late_heir(&mut self) {
        let Some(heir) = &mut self.heir else { return };
        if heir.deadline.is_none_or(|deadline| deadline > Instant::now()) {
            return;
        }
        let (seconds, what) = match heir.phase {
            Phase::Silent => (HELLO_TIMEOUT.as_secs(), "say a word"),
            _ => (START_TIMEOUT.as_secs(), "serve"),
        };
        heir.given_up.get_or_insert_with(|| format!("did not {what} within {seconds} s"));
        heir.deadline = None;
        heir.process.kill();
    }
}

/// For the heir to read its configuration and to say its first word. What is no `host` never does.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// From then on until all its workers serve.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// For an heir that has to stop, beside what its requests are given.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// For the heir to take what has been sent to it when this process has nothing else to do any more.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
