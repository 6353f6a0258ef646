//! The modules, their builds, and which build is on its way to answering.

use super::builds::{Build, Known, Notice, Steps};
use super::crew::Crew;
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
    /// What is to be logged once it is certain.
    untold: Option<Vec<String>>,
}

/// A module.
#[derive(Clone, Default)]
pub(super) struct Module {
    /// The build that is to answer.
    pub(super) build: Option<Arc<Kept>>,
    /// The one that did answer before, for the case that the new one cannot be loaded to serve, or crashes too often.
    previous: Option<Arc<Kept>>,
    /// Why the newest build is not used.
    pub(super) refused: Option<(PathBuf, String)>,
    /// How to build it.
    pub(super) hint: Option<String>,
    /// The build that a worker was loading when somebody killed it.
    suspected: Option<u64>,
}

/// A build whose private copy is removed when nobody needs it any more: not even to name the line of a crash.
pub(super) struct Kept(Build);

/// A build on its way to all workers.
#[derive(Clone)]
struct Rollout {
    build: Arc<Kept>,
    first: bool,
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
                let build = Arc::new(Kept(build));
                self.generations.insert(build.module.clone(), build.generation);
                let unproven = self.rollouts.iter().any(|rollout| rollout.build.module == build.module);
                let module = self.modules.entry(build.module.clone()).or_default();
                let first = module.build.is_none();
                let before = module.build.replace(Arc::clone(&build));
                // What is itself still on its way is nothing to fall back to.
                if !unproven {
                    module.previous = before;
                }
                module.refused = None;
                module.hint = None;
                // What is overtaken is never announced: it may answer no more when its line is read.
                self.rollouts.retain(|rollout| rollout.build.module != build.module);
                self.rollouts.push(Rollout { build: Arc::clone(&build), first });
                Change::Load(build)
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
        module.build = module.previous.take();
        self.rollouts.retain(|rollout| rollout.build.module != name);
        module.refused = Some((bad.source.clone(), reason.to_owned()));
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

    /// Logs the builds that answer everywhere: from then on no older one begins an answer.
    pub(super) fn announce_completed(&mut self, crew: &Crew) {
        let announced = self.announced;
        self.rollouts.retain(|Rollout { build, first }| {
            if !crew.all_answer_with(&build.module, build.generation) {
                return true;
            }
            let total = Instant::now().saturating_duration_since(build.noticed);
            let ms = total.as_millis();
            let verb = if *first { "loaded" } else { "reloaded" };
            if announced {
                let Steps { wait, copy, check } = build.steps;
                let rollout = total.saturating_sub(wait + copy + check);
                let [wait, copy, check, rollout] = [wait, copy, check, rollout].map(milliseconds);
                tracing::info!(
                    wait,
                    copy,
                    check,
                    rollout,
                    "{verb} {} generation {} in {ms} ms",
                    build.module,
                    build.generation,
                );
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

impl Kept {
    /// Whether a process that has loaded an older build of the module cannot load this one properly.
    pub(super) fn needs_new_worker(&self) -> bool {
        self.report.class == ReloadClass::Replace
    }
}

/// With one decimal.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

impl Deref for Kept {
    type Target = Build;

    fn deref(&self) -> &Build {
        &self.0
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        super::builds::discard(&self.0);
    }
}
