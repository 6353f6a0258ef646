//! What the supervisor does about requests.

use super::status::{Identity, ModuleStatus, State, Status, WorkerStatus};
use super::{Answer, Reply, Request};
use crate::log;
use crate::supervisor::builds::{self, Build};
use crate::supervisor::crew::{Phase, Worker};
use crate::supervisor::rollout::{Module, Return};
use crate::supervisor::{Event, Supervisor};
use std::io;
use std::thread;
use std::time::{Instant, SystemTime};

impl Supervisor {
    /// Answers a request of the console, now or when it has been done.
    pub(in crate::supervisor) fn on_asked(&mut self, request: Request, reply: Reply) {
        let answer = match request {
            Request::Identity => Answer::Identity(self.identity()),
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Rollback { .. } if self.stopping => Answer::Error(STOPPING.to_owned()),
            Request::Rollback { module, generation } => match self.modules.choose(&module, generation) {
                Ok(chosen) => return self.copy(chosen, reply),
                Err(reason) => Answer::Error(reason),
            },
        };
        // Who asked may have left.
        _ = reply.send(answer);
    }

    /// Has a fresh copy made of the build that is to answer again, on a thread of its own: it may be large.
    fn copy(&self, chosen: Return, reply: Reply) {
        let (events, answer) = (self.sender.clone(), reply.clone());
        let copy = move || {
            let copy = builds::again(&chosen.build);
            // Nobody receives any more when the supervisor ends.
            _ = events.send(Event::Copied(chosen, copy, reply));
        };
        if let Err(error) = thread::Builder::new().name("rollback".to_owned()).spawn(copy) {
            _ = answer.send(Answer::Error(format!("cannot make a thread: {error}")));
        }
    }

    /// Lets a build answer again, of which that is a fresh copy.
    pub(in crate::supervisor) fn on_copied(&mut self, chosen: Return, copy: io::Result<Build>, reply: Reply) {
        let generation = chosen.build.generation;
        let answer = reply.clone();
        let refusal = match copy {
            Err(error) => format!("cannot copy generation {generation}: {error}"),
            Ok(copy) if self.stopping => {
                builds::discard(&copy);
                STOPPING.to_owned()
            }
            Ok(copy) => match self.modules.go_back(&chosen, &copy, reply) {
                Some(build) => {
                    let is_older = self.modules.get(&build.module).is_some_and(|now| now.rolled_back_from().is_some());
                    // The file that is there must not be taken again by the next SIGHUP.
                    self.builds.hold(&build.module, is_older);
                    return self.roll_out(&build);
                }
                None => {
                    builds::discard(&copy);
                    format!("{} has changed meanwhile; see host status", copy.module)
                }
            },
        };
        _ = answer.send(Answer::Error(refusal));
    }

    fn identity(&self) -> Identity {
        Identity {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            folder: std::env::current_dir().unwrap_or_default(),
            handlers: self.config.handlers.clone(),
            listeners: self.crew.addresses().map(ToString::to_string).collect(),
        }
    }

    fn status(&self) -> Status {
        Status {
            server: self.identity(),
            since: ago(self.started),
            age_s: self.started.elapsed().as_secs(),
            modules: self.modules.iter().map(|(name, module)| module_status(name, module)).collect(),
            workers: self.crew.workers().map(worker_status).collect(),
            incidents: self.incidents.iter().cloned().collect(),
        }
    }
}

fn module_status(name: &str, module: &Module) -> ModuleStatus {
    let state = match (&module.build, &module.refused) {
        (Some(_), _) => State::Serving,
        (None, Some(_)) if module.suspended => State::Suspended,
        (None, Some(_)) => State::Refused,
        (None, None) => State::NotBuilt,
    };
    let build = module.build.as_ref();
    ModuleStatus {
        name: name.to_owned(),
        state,
        generation: build.map(|build| build.generation),
        rolled_back_from: module.rolled_back_from(),
        file: build.map(|build| build.source.clone()),
        note: build.map(|build| build.note.clone()).unwrap_or_default(),
        others: module.history.generations().collect(),
        refused_file: module.refused.as_ref().map(|(file, _)| file.clone()),
        reason: module.refused.as_ref().map(|(_, reason)| reason.clone()),
        build_command: module.hint.clone(),
    }
}

fn worker_status(worker: &Worker) -> WorkerStatus {
    let phase = match worker.phase {
        Phase::Booting => "loading",
        Phase::Opening => "opening",
        Phase::Serving if worker.is_tainted() => "crashed, being replaced",
        Phase::Serving => "serving",
        Phase::Draining { .. } => "draining",
        Phase::Stopping => "stopping",
        Phase::Leaving => "ending",
    };
    let hired = worker.hired();
    WorkerStatus { pid: worker.pid(), phase: phase.to_owned(), since: ago(hired), age_s: hired.elapsed().as_secs() }
}

/// When that was, by the calendar of now.
fn ago(time: Instant) -> String {
    log::time(SystemTime::now().checked_sub(time.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH))
}

const STOPPING: &str = "the server is stopping";
