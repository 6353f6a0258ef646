//! The keeper: a thread of the worker that hands the state of modules on, from one build to the next and out of the
//! process.
//!
//! All saving and restoring is its decision, one after the other, and none of it is done by its own hands: an
//! [`Attendant`] calls the module, and may crash or hang there. Each wait has a limit.

use super::generation::Generation;
use super::keeping::Keeping;
use super::registry::Registry;
use super::state::{Functions, Saved};
use crate::serial::Permit;
use crate::sys::attendant::{Attendant, Outcome};
use crate::sys::crash::{Fault, Suspect};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What the keeper is asked for.
pub enum Errand {
    /// Let this build take over from the one before it, with its state if both have it kept.
    Succeed(Arc<Generation>, Sender<Result<(), NotTaken>>),
    /// What was kept elsewhere is for the build of this module that waits for it; `None`: there is nothing.
    Restore(String, Option<Saved>),
    /// These do not serve here any more: save what they have when their last request is over.
    Settle(Vec<Arc<Generation>>),
    /// Calls are made again.
    Stir,
    /// Do this when all that was asked before is done.
    Then(Box<dyn FnOnce() + Send>),
}

/// Why a build does not take over.
#[derive(Debug)]
pub struct NotTaken {
    /// In words that follow the file's name.
    pub reason: String,
    /// It has crashed.
    pub fault: Option<Fault>,
}

/// What others have to know.
#[derive(Debug)]
pub struct News {
    /// The module's name.
    pub module: String,
    /// The build's number.
    pub generation: u64,
    /// What is new.
    pub what: What,
}

/// What has become of a state.
#[derive(Debug)]
pub enum What {
    /// This is it now.
    Saved(Saved),
    /// This is it, and the build is not called here any more; `None`: what was kept before has to do.
    Settled(Option<Saved>),
    /// What was kept before has made `restore` crash or hang.
    Unusable,
    /// The module has crashed in that function of its own.
    Crashed(Fault, &'static str),
    /// That function has not returned, and the module cannot be called as long as it runs.
    Hung(&'static Suspect, &'static str),
}

/// A keeper's life. `is_busy` tells whether the worker has calls to make at this time.
pub fn keep(registry: &Registry, errands: &Receiver<Errand>, news: impl Fn(News), is_busy: impl Fn() -> bool) {
    let mut keeper = Keeper { registry, news, attendants: Vec::new(), gates: HashMap::new() };
    let mut due: Option<Instant> = None;
    loop {
        let errand = match due {
            Some(due) => errands.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => errands.recv().map_err(RecvTimeoutError::from),
        };
        match errand {
            Ok(Errand::Succeed(new, reply)) => {
                if new.keeping.is_some() {
                    // Calls may be under way all the time, so that nobody would stir.
                    registry.note_stir();
                    due = due.or_else(|| Some(Instant::now() + SAVE_PAUSE));
                }
                let taken = keeper.succeed(new);
                // The loader waits for it.
                _ = reply.send(taken);
            }
            Ok(Errand::Restore(module, saved)) => keeper.restore(&module, saved),
            Ok(Errand::Settle(generations)) => keeper.settle(generations),
            Ok(Errand::Then(work)) => work(),
            Ok(Errand::Stir) => due = due.or_else(|| Some(Instant::now() + SAVE_PAUSE)),
            Err(RecvTimeoutError::Timeout) => {
                // First this: calls that begin from here on make somebody stir again.
                registry.forget_stir();
                let start = Instant::now();
                let active = keeper.save_what_was_called() || is_busy();
                let pause = SAVE_PAUSE.max(start.elapsed().saturating_mul(SAVE_PAUSE_FACTOR));
                due = active.then(|| {
                    registry.note_stir();
                    Instant::now() + pause
                });
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Keeper<'a, N> {
    registry: &'a Registry,
    news: N,
    /// Made beforehand, if there is a module that needs them. One more than is needed, because what is in the way of a new
    /// one, a crash, has taken one.
    attendants: Vec<Attendant>,
    /// What those wait for who stand at the gate of a module.
    gates: HashMap<String, Permit>,
}

impl<N: Fn(News)> Keeper<'_, N> {
    fn succeed(&mut self, new: Arc<Generation>) -> Result<(), NotTaken> {
        let module = new.module.clone();
        let before = self.gates.remove(&module);
        if let Some(keeping) = &new.keeping {
            self.gates.extend(keeping.shut().map(|permit| (module.clone(), permit)));
            self.prepare();
        }
        let old = self.registry.install(&new);
        // Who waited for the state of the build before waits for that of this one.
        drop(before);
        let Some(keeping) = &new.keeping else { return Ok(()) };
        // Else the state comes from outside, by another errand.
        let Some(old) = old.filter(|old| old.is_able_to_save()) else { return Ok(()) };
        let again = Arc::new(old.again());
        let (settled, all_settled) = channel();
        old.tell_when_settled(0, settled);
        drop(old);
        let is_settled = all_settled.recv_timeout(SETTLE_PATIENCE).is_ok();
        if !is_settled {
            again.warn_of_requests();
        }
        let Some(saved) = self.save(&again, is_settled) else { return Ok(()) };
        let copy = Saved::new(saved.bytes().to_vec());
        let restored = self.run_restore(&new, keeping.functions, copy);
        self.tell(&again, What::Saved(saved));
        let (how, fault) = match restored {
            // Without anybody who could call it, the state waits for the worker that replaces this one.
            None => return Ok(()),
            Some(Outcome::Done(Ok(()))) => {
                keeping.open();
                self.gates.remove(&module);
                return Ok(());
            }
            Some(Outcome::Done(Err(how))) => (format!("its restore {how}"), None),
            Some(Outcome::Late) => (format!("its restore did not return in {} s", PATIENCE.as_secs()), None),
            Some(Outcome::Crashed(fault)) => ("it crashed in its restore".to_owned(), Some(fault)),
        };
        self.registry.reinstall(&again, &new);
        self.gates.remove(&module);
        let reason = format!("does not take over the state of generation {}: {how}", again.number);
        Err(NotTaken { reason, fault })
    }

    fn restore(&mut self, module: &str, saved: Option<Saved>) {
        let Some(new) = self.registry.current(module) else { return };
        let Some(keeping) = new.keeping.as_ref().filter(|keeping| keeping.is_shut()) else { return };
        let unusable = match saved.map(|saved| self.run_restore(&new, keeping.functions, saved)) {
            None | Some(Some(Outcome::Done(Ok(())))) => None,
            Some(Some(Outcome::Done(Err(how)))) => {
                tracing::error!("{} begins anew: its restore {how} for the state that was kept", new.name());
                None
            }
            Some(Some(Outcome::Late)) => Some(What::Hung(new.suspect, "restore")),
            Some(Some(Outcome::Crashed(fault))) => Some(What::Crashed(fault, "restore")),
            Some(None) => return,
        };
        match unusable {
            None => {
                keeping.open();
                self.gates.remove(module);
            }
            // Who waits at the gate goes to another worker.
            Some(what) => {
                self.tell(&new, What::Unusable);
                self.tell(&new, what);
            }
        }
    }

    fn settle(&mut self, generations: Vec<Arc<Generation>>) {
        let (settled, all_settled) = channel();
        let mut left = BTreeMap::new();
        for (which, old) in generations.into_iter().enumerate() {
            self.gates.remove(&old.module);
            if !old.is_able_to_save() {
                self.tell(&old, What::Settled(None));
                continue;
            }
            left.insert(which, old.again());
            old.tell_when_settled(which, settled.clone());
        }
        let deadline = Instant::now() + SETTLE_PATIENCE;
        while !left.is_empty()
            && let Ok(which) = all_settled.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some(again) = left.remove(&which) {
                let saved = self.save(&again, true);
                self.tell(&again, What::Settled(saved));
            }
        }
        for again in left.into_values() {
            again.warn_of_requests();
            let saved = self.save(&again, false);
            self.tell(&again, What::Settled(saved));
        }
    }

    /// Saves the builds that were called since they were last saved; whether there was one.
    fn save_what_was_called(&mut self) -> bool {
        let mut any = false;
        for generation in self.registry.stateful() {
            let calls = generation.suspect.record().calls();
            let was_called = |keeping: &Keeping| keeping.saved_calls.swap(calls, Ordering::Relaxed) != calls;
            if !generation.is_able_to_save() || !generation.keeping.as_ref().is_some_and(was_called) {
                continue;
            }
            any = true;
            if let Some(saved) = self.save(&generation, false) {
                self.tell(&generation, What::Saved(saved));
            }
        }
        any
    }

    /// Has a build save its state. `is_settled`: it has no requests any more.
    fn save(&mut self, generation: &Generation, is_settled: bool) -> Option<Saved> {
        let keeping = generation.keeping.as_ref()?;
        let permit = match &generation.serial {
            Some(serial) if !is_settled => {
                let (sender, receiver) = channel();
                let entered = serial.enter(|| Box::new(move |permit| drop(sender.send(permit))));
                // A call that does not end keeps everybody out.
                Some(entered.or_else(|| receiver.recv_timeout(PATIENCE).ok())?)
            }
            _ => None,
        };
        let functions = keeping.functions;
        let saved = self.attend(generation, move || {
            // SAFETY: the build is loaded and initialised; the keeper alone has builds saved, one after the other, and does
            // not ask one again whose save has not come to an end. If it is not thread-safe, it has no requests any more, or
            // this has the permit to call it.
            let saved = unsafe { functions.save() };
            drop(permit);
            saved
        });
        match saved? {
            Outcome::Done(Ok(saved)) => return Some(saved),
            Outcome::Done(Err(how)) => {
                tracing::error!("the state of {} is not kept: its save {how}", generation.name())
            }
            Outcome::Late => {
                keeping.hangs.store(true, Ordering::Relaxed);
                let (name, seconds) = (generation.name(), PATIENCE.as_secs());
                tracing::error!("the state of {name} is not kept any more: its save did not return in {seconds} s");
            }
            Outcome::Crashed(fault) => self.tell(generation, What::Crashed(fault, "save")),
        }
        None
    }

    fn run_restore(
        &mut self,
        new: &Generation,
        functions: Functions,
        saved: Saved,
    ) -> Option<Outcome<Result<(), String>>> {
        // SAFETY: the build is loaded and initialised, and its gate is shut, so that nobody calls it.
        self.attend(new, move || unsafe { functions.restore(saved) })
    }

    /// Has the attendant do this; `None`: there is none.
    fn attend<R: Send + 'static>(
        &mut self,
        generation: &Generation,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<Outcome<R>> {
        self.prepare();
        let attendant = self.attendants.pop()?;
        // As long as its code runs, or a thread is parked in it, `stop` is not called.
        let life = Arc::clone(&generation.life);
        let (outcome, attendant) = attendant.run(generation.suspect, PATIENCE, move || {
            let result = work();
            drop(life);
            result
        });
        self.attendants.extend(attendant);
        if let Outcome::Crashed(_) = outcome {
            self.registry.taint();
        }
        Some(outcome)
    }

    /// Sees to it that there are attendants.
    fn prepare(&mut self) {
        while self.attendants.len() < ATTENDANTS && !self.registry.is_tainted() {
            match Attendant::start() {
                Ok(attendant) => self.attendants.push(attendant),
                Err(error) => return tracing::error!("cannot make a thread to keep the state of modules: {error}"),
            }
        }
    }

    fn tell(&self, generation: &Generation, what: What) {
        (self.news)(News { module: generation.module.clone(), generation: generation.number, what });
    }
}

impl Generation {
    /// Whether it has a state to ask for: not one that waits for its own, nor one that has crashed, whose memory may be in
    /// any condition.
    fn is_able_to_save(&self) -> bool {
        let able = |keeping: &Keeping| !keeping.is_shut() && !keeping.hangs.load(Ordering::Relaxed);
        self.keeping.as_ref().is_some_and(able) && !self.suspect.has_crashed()
    }

    fn tell_when_settled(&self, which: usize, done: Sender<usize>) {
        if let Some(keeping) = &self.keeping {
            keeping.tell_when_settled(which, done);
        }
    }

    fn warn_of_requests(&self) {
        tracing::warn!(
            "{} still has requests under way; what they change from here on is not in the state that is handed on",
            self.name()
        );
    }

    fn name(&self) -> String {
        format!("{} generation {}", self.module, self.number)
    }
}

/// How long the requests of a build that is taken out of service are waited for before its state is saved. Others wait that
/// long at the next one's gate.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a `save` or a `restore` may take, and the door before a `save`.
const PATIENCE: Duration = Duration::from_secs(2);

/// Threads that call `save` and `restore`.
const ATTENDANTS: usize = 2;

/// Between two saves of what is called all the time, at least.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// Where saving takes long it is done less often: so many times as long as it took.
const SAVE_PAUSE_FACTOR: u32 = 50;
