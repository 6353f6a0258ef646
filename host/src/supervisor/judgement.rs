//! What becomes of a build that has crashed, or has taken a worker with it.

use super::crew::{Worker, WorkerId};
use super::verdict::Offence;
use super::{Failure, Supervisor, startup};
use crate::exit::Exit;
use crate::server::Incident;
use crate::sys::crash::Limit;
use crate::sys::recorder::LastCall;
use std::time::Instant;

impl Supervisor {
    /// A call has ended its thread: the worker is replaced, and the build judged.
    pub(super) fn on_crash(&mut self, id: WorkerId, crash: u64, incident: Incident) -> Result<(), Failure> {
        let pid = self.crew.taint(id, &self.modules).unwrap_or_default();
        let (module, generation) = (incident.module.clone(), incident.generation);
        let offence = Offence { module: &module, generation, what: &incident.what };
        // Who waited too long may have waited for somebody else.
        let counts = incident.limit != Some(Limit::Handler);
        let verdict = counts.then(|| self.verdicts.note(id, &offence, incident.calls, incident.age, Instant::now()));
        self.reporter.report(id, crash, incident, pid);
        match verdict.flatten() {
            Some(reason) => self.refuse(&module, generation, &reason),
            None => Ok(()),
        }
    }

    /// A worker has died while it served. Says whether it is clear which build did it.
    pub(super) fn judge_death(&mut self, id: WorkerId, worker: &Worker, how: &str) -> Result<bool, Failure> {
        let calls = worker.last_calls();
        let first = calls.first().cloned().filter(|_| !self.stopping);
        let is_same = |call: &LastCall| {
            first.as_ref().is_some_and(|first| call.module == first.module && call.generation == first.generation)
        };
        let is_clear = calls.iter().all(is_same);
        self.reporter.died(worker.pid(), how, calls);
        let Some(LastCall { module, generation, calls, .. }) = first.filter(|_| is_clear) else { return Ok(false) };
        let what = format!("a worker that {how}");
        let death = Offence { module: &module, generation, what: &what };
        if let Some(reason) = self.verdicts.note(id, &death, calls, worker.hired().elapsed(), Instant::now()) {
            self.refuse(&module, generation, &reason)?;
        }
        Ok(true)
    }

    /// A build that was found sound does not serve after all.
    pub(super) fn refuse(&mut self, module: &str, generation: u64, reason: &str) -> Result<(), Failure> {
        if let Some(previous) = self.modules.refuse(module, generation, reason) {
            // A worker that has it already would go on with it.
            self.crew.replace_those_with(module, generation, &self.modules);
            self.crew.tell_of(previous);
        }
        if self.announced {
            return Ok(());
        }
        startup::require_root(&self.config, &self.modules)
            .map_err(|error| Failure { exit: Exit::RootApplication, error })
    }
}
