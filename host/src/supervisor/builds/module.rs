//! What is known of one module, and what a look at its file means for it.

use super::lookup::Candidate;
use super::private::Inputs;
use super::take::{self, NotTaken, Stamp};
use super::{Known, Notice};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One module, from its first sight until the end: its generation numbers are not reused when it is gone.
#[derive(Default)]
pub struct Module {
    /// What the last job decided about, sound or not.
    pub settled: Option<Settled>,
    /// A change that waits until it is ready.
    pub pending: Option<Pending>,
    /// The job that is under way.
    pub job: Option<Running>,
    /// Sound builds so far.
    pub generations: u64,
    /// Take it even if it did not change.
    pub force: bool,
    /// Somebody has gone back from the build that was settled last: it is taken again only when it has changed.
    pub held: bool,
    /// What the owner was told last.
    pub told: Told,
    absent_since: Option<Instant>,
}

/// A decision, and the state of the files that it was about.
pub struct Settled {
    /// The module's file.
    pub source: PathBuf,
    /// All that went into it.
    pub inputs: Inputs,
}

/// A change that no job has taken up yet.
pub struct Pending {
    /// The module's file.
    pub source: PathBuf,
    /// See [`super::Build::note`].
    pub note: String,
    /// All that is known to go into it, as last seen.
    pub inputs: Inputs,
    /// Since when it is in that state.
    pub seen: Instant,
    /// Those that were there when the last decision was made.
    had: BTreeSet<PathBuf>,
    /// When to ask next whether it is ready.
    pub retry: Instant,
    backoff: Duration,
}

/// A job that is under way.
pub struct Running {
    /// What it was started for.
    pub pending: Pending,
    /// When it was started.
    pub started: Instant,
    /// Set to give it up.
    pub cancel: Arc<AtomicBool>,
}

/// What the owner knows of a module.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing, or that it is gone.
    #[default]
    Nothing,
    /// Not built.
    NotBuilt,
    /// Sound or refused.
    Build,
}

/// cargo deletes before it creates, so what is absent for a shorter time is on its way.
const ABSENCE: Duration = Duration::from_secs(1);

/// A writer that is not done is asked again after this, then after twice as long, and so on up to the second.
pub const RETRY_FIRST: Duration = Duration::from_millis(2);
/// See [`RETRY_FIRST`].
pub const RETRY_LAST: Duration = Duration::from_millis(50);

/// A check that has run for this long is given up for a newer build. Shorter ones may end: somebody who builds all the
/// time must still get one through.
const CHECK_KEPT: Duration = Duration::from_millis(250);

impl Module {
    /// One that another pipeline had.
    pub fn known(known: Known) -> Module {
        let told = if known.is_present { Told::Build } else { Told::Nothing };
        Module { generations: known.generation, told, ..Module::default() }
    }

    /// Compares what a look found with what is known. `now`: when the look began.
    pub fn consider(&mut self, name: &str, candidate: Option<&Candidate>, now: Instant, notices: &mut Vec<Notice>) {
        if let Some(Candidate::File { path, note }) = candidate {
            if !self.falls_back_to(path) {
                self.absent_since = None;
            } else if !self.is_absent(now) {
                self.pending = None;
                return;
            }
            return self.compare(path, note, now);
        }
        self.pending = None;
        let module = name.to_owned();
        if self.told != Told::Build
            && let Some(Candidate::NotBuilt { hint }) = candidate
        {
            self.absent_since = None;
            if self.told == Told::Nothing && self.job.is_none() {
                self.told = Told::NotBuilt;
                notices.push(Notice::NotBuilt { module, hint: hint.clone() });
            }
            return;
        }
        if self.told == Told::Nothing {
            // A library of other modules, or a file that came and went before it could be checked.
            self.settled = None;
            self.absent_since = None;
            return;
        }
        if !self.is_absent(now) {
            return;
        }
        self.absent_since = None;
        self.settled = None;
        self.told = Told::Nothing;
        if let Some(job) = &self.job {
            job.cancel.store(true, Ordering::Relaxed);
        }
        notices.push(Notice::Gone { module: module.clone() });
        if let Some(Candidate::NotBuilt { hint }) = candidate {
            self.told = Told::NotBuilt;
            notices.push(Notice::NotBuilt { module, hint: hint.clone() });
        }
    }

    /// A decision has been made. A change that was seen while the job ran, and that the job has taken along, is decided
    /// too: else the same build would come twice, and people could take the second line for that of their next build.
    pub fn settle(&mut self, settled: Settled) {
        let is_decided = |pending: &Pending| {
            let decided = |(path, stamp): (&PathBuf, &Option<Stamp>)| settled.inputs.get(path) == Some(stamp);
            pending.source == settled.source && pending.inputs.iter().all(decided)
        };
        if !self.force && self.pending.as_ref().is_some_and(is_decided) {
            self.pending = None;
        }
        self.settled = Some(settled);
        self.held = false;
    }

    /// Keeps from taking the settled build again, or lets that be.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        let is_settled = |pending: &mut Pending| {
            self.settled
                .as_ref()
                .is_some_and(|settled| (&settled.source, &settled.inputs) == (&pending.source, &pending.inputs))
        };
        if held && std::mem::take(&mut self.force) {
            self.pending.take_if(is_settled);
        }
    }

    /// Whether `path` only answers because the file that answered so far is away: cargo has deleted the debug build to
    /// make it anew, and an older release build is not what anybody asked for.
    fn falls_back_to(&self, path: &Path) -> bool {
        let Some(settled) = &self.settled else { return false };
        if settled.source == path || settled.source.exists() {
            return false;
        }
        let before = settled.inputs.get(&settled.source).copied().flatten();
        before.zip(Stamp::of(path)).is_some_and(|(before, after)| after.modified <= before.modified)
    }

    /// Whether the file that answered has been away for long enough to be gone.
    fn is_absent(&mut self, now: Instant) -> bool {
        now.duration_since(*self.absent_since.get_or_insert(now)) >= ABSENCE
    }

    fn compare(&mut self, path: &Path, note: &str, now: Instant) {
        let settled = self.settled.as_ref().filter(|settled| settled.source == path);
        let mut inputs: Inputs = settled.map(|settled| settled.inputs.clone()).unwrap_or_default();
        inputs.insert(path.to_owned(), None);
        for (input, stamp) in &mut inputs {
            *stamp = Stamp::of(input);
        }
        let main = inputs[path];
        let is_settled = settled.is_some_and(|settled| settled.inputs == inputs);
        let is_running = self
            .job
            .as_ref()
            .is_some_and(|job| job.pending.source == path && job.pending.inputs.get(path).copied().flatten() == main);
        if !self.force && (is_settled || is_running) {
            self.pending = None;
            return;
        }
        match &mut self.pending {
            Some(pending) if pending.source == path && pending.inputs == inputs => pending.retry = now,
            pending => {
                let before = settled.iter().flat_map(|settled| &settled.inputs);
                let had = before.filter(|(_, stamp)| stamp.is_some()).map(|(path, _)| path.clone()).collect();
                *pending = Some(Pending {
                    source: path.to_owned(),
                    note: note.to_owned(),
                    inputs,
                    had,
                    seen: now,
                    retry: now,
                    backoff: RETRY_FIRST,
                });
            }
        }
    }

    /// When the file will have been away for long enough, if it is away.
    pub fn absence_due(&self) -> Option<Instant> {
        self.absent_since.map(|since| since + ABSENCE)
    }

    /// When a running job has had its chance against the change that waits behind it.
    pub fn cancel_due(&self) -> Option<Instant> {
        let job = self.job.as_ref().filter(|job| !job.cancel.load(Ordering::Relaxed))?;
        self.pending.as_ref().map(|_| job.started + CHECK_KEPT)
    }
}

impl Pending {
    /// Whether everything that is known to go into the build can be copied now.
    pub fn ready(&mut self) -> Result<(), NotTaken> {
        for (path, stamp) in &mut self.inputs {
            let now = Stamp::of(path);
            if *stamp != now {
                *stamp = now;
                self.seen = Instant::now();
            }
            match now {
                Some(_) => take::ready(path, self.seen)?,
                None if *path == self.source => return Err(NotTaken::Missing),
                None if !self.had.contains(path) => {}
                // A library that is being built anew is away for a moment, like any build.
                None => match ABSENCE.checked_sub(self.seen.elapsed()) {
                    Some(rest) if !rest.is_zero() => return Err(NotTaken::Later(rest)),
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// `rest`: how long it certainly takes; zero if that is the writer's to know.
    pub fn postpone(&mut self, rest: Duration) {
        let wait = if rest.is_zero() { self.backoff } else { rest };
        self.backoff = (2 * self.backoff).min(RETRY_LAST);
        self.retry = Instant::now() + wait;
    }

    /// Makes it the state that the decision is about.
    pub fn settle(self) -> Settled {
        Settled { source: self.source, inputs: self.inputs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module whose file is seen as it is now while a job for an earlier state of it runs.
    fn seen(file: &Path) -> Module {
        let mut module = Module::default();
        let candidate = Candidate::File { path: file.to_owned(), note: String::new() };
        module.consider("x", Some(&candidate), Instant::now(), &mut Vec::new());
        assert!(module.pending.is_some());
        module
    }

    fn decision(file: &Path) -> Settled {
        Settled { source: file.to_owned(), inputs: Inputs::from([(file.to_owned(), Stamp::of(file))]) }
    }

    #[test]
    fn what_a_job_has_taken_along_is_not_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.so");
        std::fs::write(&file, "a build").unwrap();
        let mut module = seen(&file);
        module.settle(decision(&file));
        assert!(module.pending.is_none());
    }

    #[test]
    fn a_change_after_the_copy_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.so");
        std::fs::write(&file, "a build").unwrap();
        let taken = decision(&file);
        std::fs::write(&file, "another build").unwrap();
        let mut module = seen(&file);
        module.settle(taken);
        assert!(module.pending.is_some());
    }

    #[test]
    fn what_is_held_is_not_taken_again_unless_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.so");
        std::fs::write(&file, "a build").unwrap();
        let mut module = seen(&file);
        module.settle(decision(&file));
        let candidate = Candidate::File { path: file.clone(), note: String::new() };
        let look = |module: &mut Module| {
            module.consider("x", Some(&candidate), Instant::now(), &mut Vec::new());
            module.pending.is_some()
        };
        module.force = true;
        assert!(look(&mut module), "it was forced");
        module.hold(true);
        assert!(!look(&mut module), "somebody has gone back from it");
        std::fs::write(&file, "another build").unwrap();
        assert!(look(&mut module), "it has changed");
    }

    #[test]
    fn a_forced_look_takes_what_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.so");
        std::fs::write(&file, "a build").unwrap();
        let mut module = seen(&file);
        module.force = true;
        module.settle(decision(&file));
        assert!(module.pending.is_some());
    }
}
