//! The modules, their builds, and which build is on its way to answering.

use super::builds::{Build, Known, Notice, Steps};
use super::console::{Answer, Reply};
use super::crew::Crew;
use super::history::History;
use super::startup::relative;
use crate::handler::check::ReloadClass;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All modules that were ever found.
#[derive(Clone, Default)]
pub(super) struct Modules {
    modules: BTreeMap<String, Module>,
    /// The last number of each module that ever was, so that none is used twice.
    generations: BTreeMap<String, u64>,
    rollouts: Vec<Rollout>,
    announced: bool,
    /// Of the build that was kept last.
    serial: u64,
    /// What is to be logged once it is certain.
    untold: Option<Vec<String>>,
}

/// A module.
#[derive(Clone, Default)]
pub(super) struct Module {
    /// The build that is to answer.
    pub(super) build: Option<Arc<Kept>>,
    /// Those that did answer before: for the case that the new one crashes too often, or that somebody wants them back.
    pub(super) history: History<Arc<Kept>>,
    /// Why the newest build is not used.
    pub(super) refused: Option<(PathBuf, String)>,
    /// That build had answered, and was taken out of service.
    pub(super) suspended: bool,
    /// How to build it.
    pub(super) hint: Option<String>,
    /// The build that a worker was loading when somebody killed it.
    suspected: Option<u64>,
}

/// A build whose private copy is removed when nobody needs it any more: not even to name the line of a crash.
pub(crate) struct Kept {
    build: Build,
    /// Grows with each build that is to answer, also when that is an older one again.
    serial: u64,
}

/// A build on its way to all workers.
#[derive(Clone)]
struct Rollout {
    build: Arc<Kept>,
    /// What answers everywhere until then.
    before: Option<Arc<Kept>>,
    cause: Cause,
}

/// Why a build is on its way.
#[derive(Clone)]
enum Cause {
    First,
    Reload,
    /// Somebody wants an older build back, or one from which people had gone back, and waits for it.
    Return {
        from: Option<u64>,
        reply: Reply,
    },
}

/// A build that is to answer again.
pub(crate) struct Return {
    /// The build, of which a fresh copy is to be made.
    pub(super) build: Arc<Kept>,
    /// What answered when that was decided.
    instead_of: Option<u64>,
}

/// What a notice asks of the workers.
pub(super) enum Change {
    None,
    Load(Arc<Kept>),
    /// It exists, without a sound build.
    Announce(String),
    Remove(String),
}

impl Modules {
    /// Takes note of what has become of a build.
    pub(super) fn note(&mut self, notice: Notice) -> Change {
        match notice {
            Notice::Scanned { .. } => Change::None,
            Notice::Sound(build) => {
                self.generations.insert(build.module.clone(), build.generation);
                let first = self.get(&build.module).is_none_or(|module| module.build.is_none());
                Change::Load(self.begin(build, if first { Cause::First } else { Cause::Reload }))
            }
            Notice::Refused { module: name, file, reason } => {
                let module = self.modules.entry(name.clone()).or_default();
                let line = match &module.build {
                    Some(good) => format!("kept {name} generation {}: {}: {reason}", good.generation, relative(&file)),
                    None => format!("refused {name}: {}: {reason}", file.display()),
                };
                match &mut self.untold {
                    Some(untold) => untold.push(line),
                    None => tracing::error!("{line}"),
                }
                module.refused = Some((file, reason));
                module.suspended = false;
                if module.build.is_none() { Change::Announce(name) } else { Change::None }
            }
            Notice::NotBuilt { module: name, hint } => {
                let module = self.modules.entry(name.clone()).or_default();
                module.hint = Some(hint);
                if module.build.is_none() { Change::Announce(name) } else { Change::None }
            }
            Notice::Gone { module } => {
                self.modules.remove(&module);
                self.rollouts.retain(|rollout| rollout.build.module != module);
                tracing::info!("removed {module}: its files are gone");
                Change::Remove(module)
            }
        }
    }

    /// A worker was killed from outside while it was told to load this build. The first time that says little of the
    /// build; true if it happens again.
    pub(super) fn suspect(&mut self, name: &str, generation: u64) -> bool {
        let Some(module) = self.modules.get_mut(name) else { return false };
        module.suspected.replace(generation) == Some(generation)
    }

    /// A worker has loaded this build.
    pub(super) fn loaded(&mut self, name: &str, generation: u64) {
        if let Some(module) = self.modules.get_mut(name) {
            module.suspected.take_if(|suspected| *suspected == generation);
        }
    }

    /// A build that passed the check does not serve; the one before answers again, or none. What the workers are to be
    /// told of the module, unless a newer build has come meanwhile.
    pub(super) fn refuse(&mut self, name: &str, generation: u64, reason: &str) -> Option<Change> {
        let module = self.modules.get_mut(name)?;
        let bad = module.build.take_if(|build| build.generation == generation)?;
        let underway = self.rollouts.extract_if(.., |rollout| rollout.build.module == name).next();
        module.suspended = underway.is_none();
        let before = underway.as_ref().and_then(|rollout| rollout.before.clone());
        module.build = before.or_else(|| module.history.before().map(|(_, build)| Arc::clone(build)));
        if let Some(good) = &module.build {
            module.history.take(good.generation);
        }
        module.refused = Some((bad.source.clone(), reason.to_owned()));
        if let Some(Rollout { cause: Cause::Return { reply, .. }, .. }) = underway {
            // Who asked may have lost patience.
            _ = reply.send(Answer::Error(format!("{name} generation {generation} does not answer again: {reason}")));
        }
        match &module.build {
            Some(good) => {
                tracing::error!("kept {name} generation {}: {}: {reason}", good.generation, relative(&bad.source));
                Some(Change::None)
            }
            None => {
                tracing::error!("refused {name}: {}: {reason}", relative(&bad.source));
                Some(Change::Announce(name.to_owned()))
            }
        }
    }

    /// The build that is to answer again: of this generation, or else the one before the one of now.
    ///
    /// # Errors
    /// Why there is none, and what there is.
    pub(super) fn choose(&self, name: &str, generation: Option<u64>) -> Result<Return, String> {
        let Some(module) = self.modules.get(name) else {
            let names: Vec<_> = self.modules.keys().map(String::as_str).collect();
            return Err(match &names[..] {
                [] => format!("no module \"{name}\"; there is none"),
                names => format!("no module \"{name}\"; there are: {}", names.join(", ")),
            });
        };
        let now = module.build.as_ref().map(|build| build.generation);
        let chosen = match generation {
            Some(generation) if now == Some(generation) => {
                return Err(format!("{name} generation {generation} answers already"));
            }
            Some(generation) => module.history.get(generation),
            None => module.history.before().map(|(_, build)| build),
        };
        let build = chosen.ok_or_else(|| {
            let which =
                generation.map_or("older generation".to_owned(), |generation| format!("generation {generation}"));
            let others: Vec<_> = module.history.generations().map(|generation| generation.to_string()).collect();
            match others.is_empty() {
                true => format!("{name} has no {which} to go back to, nor another one"),
                false => format!("{name} has no {which} to go back to; it has {}", others.join(", ")),
            }
        })?;
        Ok(Return { build: Arc::clone(build), instead_of: module.build.as_ref().map(|build| build.serial) })
    }

    /// Lets that build answer again, of which this is a fresh copy, and tells `reply` when it does so everywhere. `None`
    /// if things have changed since the build was chosen: then the copy is still the caller's.
    pub(super) fn go_back(&mut self, chosen: &Return, copy: &Build, reply: Reply) -> Option<Arc<Kept>> {
        let generation = chosen.build.generation;
        let module = self.modules.get_mut(&copy.module)?;
        let is_current = module.build.as_ref().map(|build| build.serial) == chosen.instead_of;
        if !is_current {
            return None;
        }
        module.history.take(generation)?;
        let former = module.build.clone();
        let from = former.as_ref().map(|former| former.generation);
        let build = self.begin(copy.clone(), Cause::Return { from, reply });
        let history = &mut self.modules.entry(build.module.clone()).or_default().history;
        if let Some(former) = former {
            // Also one that was on its way itself: it can be named.
            history.keep(former.generation, former);
        }
        history.leave_those_after(generation);
        Some(build)
    }

    /// Lets a build answer from now on.
    fn begin(&mut self, build: Build, cause: Cause) -> Arc<Kept> {
        self.serial += 1;
        let build = Arc::new(Kept { build, serial: self.serial });
        // What is overtaken is never announced: it may answer no more when its line is read.
        let overtaken = self.rollouts.extract_if(.., |rollout| rollout.build.module == build.module).next();
        let module = self.modules.entry(build.module.clone()).or_default();
        let former = module.build.replace(Arc::clone(&build));
        let before = match overtaken {
            // What is itself still on its way, and has not answered before, is nothing to fall back to.
            Some(Rollout { cause: Cause::First | Cause::Reload, before, .. }) => before,
            _ => former,
        };
        if let Some(before) = &before {
            module.history.keep(before.generation, Arc::clone(before));
        }
        (module.refused, module.hint, module.suspended) = (None, None, false);
        self.rollouts.push(Rollout { build: Arc::clone(&build), before, cause });
        build
    }

    /// Logs the builds that answer everywhere: from then on no older one begins an answer.
    pub(super) fn announce_completed(&mut self, crew: &Crew) {
        let announced = self.announced;
        self.rollouts.retain(|Rollout { build, cause, .. }| {
            if !crew.all_answer_with(build) {
                return true;
            }
            let total = Instant::now().saturating_duration_since(build.noticed);
            let (module, generation, ms) = (&build.module, build.generation, total.as_millis());
            match cause {
                _ if !announced => {}
                Cause::First | Cause::Reload => {
                    let verb = if matches!(cause, Cause::First) { "loaded" } else { "reloaded" };
                    let Steps { wait, copy, check } = build.steps;
                    let rollout = total.saturating_sub(wait + copy + check);
                    let [wait, copy, check, rollout] = [wait, copy, check, rollout].map(milliseconds);
                    tracing::info!(wait, copy, check, rollout, "{verb} {module} generation {generation} in {ms} ms");
                }
                Cause::Return { from, reply } => {
                    let from = *from;
                    let instead = from.map(|from| format!(" from {from}")).unwrap_or_default();
                    let way = if from.is_some_and(|from| from < generation) { "forward" } else { "back" };
                    tracing::info!("rolled {module} {way} to generation {generation}{instead} in {ms} ms");
                    // Who asked may have lost patience.
                    _ = reply.send(Answer::RolledBack { module: module.clone(), generation, from });
                }
            }
            false
        });
    }

    /// People have read the start-up table: from now on builds are announced one by one.
    pub(super) fn announced(&mut self) {
        self.rollouts.clear();
        self.announced = true;
    }

    /// The same once more, to see what a reload would make of it. Dropping it leaves no trace.
    pub(super) fn trial(&self) -> Modules {
        Modules { untold: Some(Vec::new()), ..self.clone() }
    }

    /// As [`trial`](Self::trial), for another folder of handlers: without any module.
    pub(super) fn trial_elsewhere(&self) -> Modules {
        Modules { untold: Some(Vec::new()), modules: BTreeMap::new(), rollouts: Vec::new(), ..self.clone() }
    }

    /// Whether this is a build from which people have gone back, taken once more.
    pub(super) fn has_turned_away(&self, build: &Build) -> bool {
        let left = self.get(&build.module).into_iter().flat_map(|module| module.history.left());
        // Their private copies tell, which nobody changes. One that cannot be read is another build.
        left.filter(|left| left.source == build.source).any(|left| {
            let length = |build: &Build| std::fs::metadata(&build.copy).map(|copy| copy.len()).ok();
            let content = |build: &Build| std::fs::read(&build.copy).ok();
            length(left) == length(build) && content(left).is_some_and(|left| Some(left) == content(build))
        })
    }

    /// The trial becomes the truth.
    pub(super) fn accept(&mut self) {
        for line in self.untold.take().into_iter().flatten() {
            tracing::error!("{line}");
        }
    }

    /// The last number of each module that ever was.
    pub(super) fn generations(&self) -> &BTreeMap<String, u64> {
        &self.generations
    }

    /// What the next pipeline has to know of them.
    pub(super) fn known(&self) -> BTreeMap<String, Known> {
        let is_present = |module: &Module| module.build.is_some() || module.refused.is_some();
        let present = |name: &String| self.modules.get(name).is_some_and(is_present);
        let numbered = self.generations.keys().chain(self.modules.keys());
        let known = |name: &String| {
            let generation = self.generations.get(name).copied().unwrap_or_default();
            (name.clone(), Known { generation, is_present: present(name) })
        };
        numbered.map(known).collect()
    }

    /// Goes on with the numbers of another process.
    pub(super) fn go_on_from(&mut self, generations: BTreeMap<String, u64>) {
        self.generations = generations;
    }

    /// A module by its name.
    pub(super) fn get(&self, name: &str) -> Option<&Module> {
        self.modules.get(name)
    }

    /// All modules by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Module)> {
        self.modules.iter().map(|(name, module)| (name.as_str(), module))
    }
}

impl Module {
    /// The newest generation that people have gone back from, if an older one answers now.
    pub(super) fn rolled_back_from(&self) -> Option<u64> {
        let now = self.build.as_ref()?.generation;
        self.history.generations().next().filter(|newest| *newest > now)
    }
}

impl Kept {
    /// Whether a process that has loaded an older build of the module cannot load this one properly.
    pub(super) fn needs_new_worker(&self) -> bool {
        self.report.class == ReloadClass::Replace
    }

    /// Whether it was to answer later than the other one, or is the same.
    pub(super) fn is_at_least(&self, other: &Kept) -> bool {
        self.serial >= other.serial
    }
}

/// With one decimal.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

impl Deref for Kept {
    type Target = Build;

    fn deref(&self) -> &Build {
        &self.build
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        super::builds::discard(&self.build);
    }
}
