//! The pipeline's own thread: it owns what is known of each module and decides what happens next.
//!
//! Steps: sleep until a message or the next thing that is due, look, compare with what is settled, start jobs for what
//! changed and is ready, settle what jobs bring back. Only a job copies or checks, so this thread is always free to look.

use super::job::{self, Job, Outcome};
use super::lookup::{Candidate, Look, Lookup};
use super::private::{self, Inputs};
use super::take::{self, NotTaken, Stamp};
use super::watcher::Watcher;
use super::{Build, Found, Notice, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// What the pipeline's thread is told.
#[expect(clippy::large_enum_variant, reason = "one or two exist at a time, and each is moved a few times")]
pub enum Message {
    /// Something changed in a watched folder.
    Hint,
    /// Look again; `force`: take everything again.
    Rescan { force: bool },
    /// A job has ended.
    Done { module: String, outcome: Outcome },
    /// End.
    Stop,
}

/// The state of the pipeline.
pub struct Pipeline {
    options: Arc<Options>,
    checker: Arc<Path>,
    messages: Sender<Message>,
    inbox: Receiver<Message>,
    notice: Box<dyn Fn(Notice) + Send>,
    lookup: Lookup,
    watcher: Option<Watcher>,
    /// Whether a hint is in the inbox, or was taken from it and not looked at yet: one is enough.
    hinted: Arc<AtomicBool>,
    modules: BTreeMap<String, Module>,
    first: First,
    look_due: Option<Instant>,
    /// When the last look began and ended.
    look_began: Instant,
    looked: Instant,
    running: usize,
    running_max: usize,
}

/// One module, from its first sight until the end: its generation numbers are not reused when it is gone.
#[derive(Default)]
struct Module {
    /// What the last job decided about, sound or not.
    settled: Option<Settled>,
    /// A change that waits until it is ready.
    pending: Option<Pending>,
    job: Option<Running>,
    generations: u64,
    /// Take it even if it did not change.
    force: bool,
    absent_since: Option<Instant>,
    told: Told,
}

struct Settled {
    source: PathBuf,
    inputs: Inputs,
    libraries: Vec<PathBuf>,
}

struct Pending {
    source: PathBuf,
    note: String,
    inputs: Inputs,
    seen: Instant,
    retry: Instant,
    backoff: Duration,
}

struct Running {
    pending: Pending,
    started: Instant,
    cancel: Arc<AtomicBool>,
}

/// What the owner knows of a module.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    NotBuilt,
    /// Sound or refused.
    Build,
}

/// The first look, until each of its modules has had its notice.
enum First {
    Ahead,
    /// `plain`: refused files without an application, which may turn out to be another module's library.
    Awaiting {
        modules: BTreeSet<String>,
        found: Vec<Found>,
        plain: Vec<(String, PathBuf, String)>,
        deadline: Instant,
    },
    Done,
}

/// cargo deletes before it creates, so what is absent for a shorter time is on its way.
const ABSENCE: Duration = Duration::from_secs(1);

/// How often everything is looked at without a hint: for file systems that give none, and for lost ones.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// A writer that is not done is asked again after this, then after twice as long, and so on up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_LAST: Duration = Duration::from_millis(50);

/// A check that has run for this long is given up for a newer build. Shorter ones may end: somebody who builds all the
/// time must still get one through.
const CHECK_KEPT: Duration = Duration::from_millis(250);

/// How long the first look waits for files that are being written.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

impl Pipeline {
    /// A pipeline that has not looked yet.
    pub fn new(
        checker: PathBuf,
        options: Options,
        messages: Sender<Message>,
        inbox: Receiver<Message>,
        notice: Box<dyn Fn(Notice) + Send>,
    ) -> Pipeline {
        let hinted = Arc::new(AtomicBool::new(false));
        let watcher = options.reload.then(|| {
            let (messages, hinted) = (messages.clone(), hinted.clone());
            Watcher::new(move || {
                if !hinted.swap(true, Ordering::AcqRel) {
                    let _ = messages.send(Message::Hint);
                }
            })
        });
        let watcher = watcher.and_then(|created| {
            let warn = |error: &notify::Error| {
                tracing::warn!(
                    "cannot watch folders: {error}; changes are found every {} s (raise fs.inotify.max_user_instances)",
                    POLL_INTERVAL.as_secs()
                );
            };
            created.inspect_err(warn).ok()
        });
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Pipeline {
            lookup: Lookup::new(options.handlers.clone()),
            options: Arc::new(options),
            checker: checker.into(),
            messages,
            inbox,
            notice,
            watcher,
            hinted,
            modules: BTreeMap::new(),
            first: First::Ahead,
            look_due: Some(Instant::now()),
            look_began: Instant::now(),
            looked: Instant::now(),
            running: 0,
            // A build that hangs in its constructor holds a place for the whole time limit: one must not stop the rest.
            running_max: processors.clamp(4, 16),
        }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            let message = match self.next_due(now) {
                Some(due) => self.inbox.recv_timeout(due.saturating_duration_since(now)),
                None => self.inbox.recv().map_err(RecvTimeoutError::from),
            };
            match message {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return self.stop(),
                Ok(Message::Hint) => self.look_soon(),
                Ok(Message::Rescan { force }) => {
                    self.modules.values_mut().for_each(|module| module.force |= force);
                    self.look_due = Some(Instant::now());
                }
                Ok(Message::Done { module, outcome }) => self.finish(&module, outcome),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.next_look().is_some_and(|due| due <= Instant::now()) {
                self.look();
            }
            self.start_jobs();
            self.cancel_outdated();
            self.end_first_look();
        }
    }

    /// A hint is rarely alone, and a linker gives dozens: look a little later, and do not look all the time.
    fn look_soon(&mut self) {
        let gap = Duration::from_millis(3).max(4 * (self.looked - self.look_began));
        let due = (Instant::now() + Duration::from_millis(1)).max(self.looked + gap);
        self.look_due = Some(self.look_due.map_or(due, |known| known.min(due)));
    }

    fn next_look(&self) -> Option<Instant> {
        let poll = self.options.reload.then(|| self.looked + POLL_INTERVAL);
        // What was due before the last look began has had its look.
        let absent = self.modules.values().filter_map(|module| module.absent_since.map(|since| since + ABSENCE));
        let absent = absent.filter(|due| *due > self.look_began);
        self.look_due.into_iter().chain(poll).chain(absent).min()
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let free = self.running < self.running_max;
        let retries = self.modules.values().filter(|module| free && module.job.is_none());
        let retries = retries.filter_map(|module| Some(module.pending.as_ref()?.retry));
        let cancels = self.modules.values().filter_map(Module::cancel_due).filter(|due| *due > now);
        let first = match &self.first {
            First::Awaiting { deadline, .. } if *deadline > now => Some(*deadline),
            _ => None,
        };
        self.next_look().into_iter().chain(retries).chain(cancels).chain(first).min()
    }

    fn look(&mut self) {
        self.look_due = None;
        // Cleared before looking: what changes from here on gives a new hint.
        self.hinted.store(false, Ordering::Release);
        let began = Instant::now();
        let Look { modules: found, mut folders } = self.lookup.look();
        if matches!(self.first, First::Ahead) {
            self.begin_first_look(&found);
        }
        for module in found.keys().filter(|module| !self.modules.contains_key(*module)).cloned().collect::<Vec<_>>() {
            self.modules.insert(module, Module::default());
        }
        let mut notices = Vec::new();
        for (name, module) in &mut self.modules {
            module.consider(name, found.get(name), began, &mut notices);
            let inputs = module.settled.iter().flat_map(|settled| settled.inputs.keys());
            folders
                .extend(inputs.filter_map(|input| input.parent()).filter(|parent| parent.is_dir()).map(Path::to_owned));
        }
        (self.look_began, self.looked) = (began, Instant::now());
        for notice in notices {
            self.tell(notice);
        }
        if self.watcher.as_mut().is_some_and(|watcher| watcher.watch(&folders)) {
            self.look_due = Some(self.looked);
        }
    }

    fn start_jobs(&mut self) {
        let mut refused = Vec::new();
        for (name, module) in &mut self.modules {
            if self.running == self.running_max {
                break;
            }
            if module.job.is_some() {
                continue;
            }
            let Some(mut pending) = module.pending.take_if(|pending| pending.retry <= Instant::now()) else { continue };
            match pending.ready() {
                Ok(()) => {}
                Err(NotTaken::Later(rest)) => {
                    pending.postpone(rest);
                    module.pending = Some(pending);
                    continue;
                }
                // The next look says what is there instead.
                Err(NotTaken::Missing) => {
                    self.look_due = Some(Instant::now() + RETRY_FIRST);
                    continue;
                }
                Err(NotTaken::Failed(reason)) => {
                    refused.push((name.clone(), pending.source.clone(), reason));
                    module.settled = Some(pending.settle(Vec::new()));
                    continue;
                }
            }
            let started = Instant::now();
            let cancel = Arc::new(AtomicBool::new(false));
            let job = Job {
                module: name.clone(),
                source: pending.source.clone(),
                number: module.generations + 1,
                checker: self.checker.clone(),
                options: self.options.clone(),
                cancel: cancel.clone(),
            };
            if let Err(error) = job::start(job, self.messages.clone()) {
                tracing::warn!("cannot start a thread to check {name}: {error}; trying again");
                pending.postpone(RETRY_LAST);
                module.pending = Some(pending);
                continue;
            }
            module.force = false;
            module.job = Some(Running { pending, started, cancel });
            self.running += 1;
        }
        for (module, file, reason) in refused {
            self.tell(Notice::Refused { module, file, reason });
        }
    }

    fn finish(&mut self, name: &str, outcome: Outcome) {
        self.running -= 1;
        // What changed while the job ran may have been taken for part of it.
        self.look_soon();
        let Some(module) = self.modules.get_mut(name) else { return };
        let Some(Running { mut pending, started, cancel }) = module.job.take() else { return };
        let is_gone = cancel.load(Ordering::Relaxed) && !pending.source.exists();
        match outcome {
            Outcome::Sound { folder, .. } if is_gone => private::remove(&folder),
            _ if is_gone => {}
            Outcome::Sound { taken, folder, report, mut steps } => {
                module.generations += 1;
                steps.wait = started - pending.seen;
                let build = Build {
                    module: name.to_owned(),
                    generation: module.generations,
                    source: pending.source.clone(),
                    copy: taken.copy,
                    folder,
                    note: std::mem::take(&mut pending.note),
                    report,
                    noticed: pending.seen,
                    steps,
                };
                pending.inputs = taken.inputs;
                module.settled = Some(pending.settle(taken.libraries));
                tracing::debug!("{name} generation {} is sound: {steps:?}", build.generation);
                self.tell(Notice::Sound(build));
            }
            Outcome::Refused { reason, inputs, plain } => {
                let file = pending.source.clone();
                // Without a word on the file itself this would be tried again for ever.
                if inputs.contains_key(&file) {
                    pending.inputs = inputs;
                }
                module.settled = Some(pending.settle(Vec::new()));
                self.refuse(name.to_owned(), file, reason, plain);
            }
            Outcome::NotReady(rest) => {
                pending.postpone(rest);
                module.pending.get_or_insert(pending);
            }
            Outcome::Missing | Outcome::Cancelled => {}
        }
    }

    /// A file that has no application and that another module needs is no module, and nobody wants to read that it is a
    /// bad one. At the first look the other module may come later.
    fn refuse(&mut self, module: String, file: PathBuf, reason: String, plain: bool) {
        if plain && self.is_library(&file) {
            return tracing::debug!("{} is a library of other modules", file.display());
        }
        match &mut self.first {
            First::Awaiting { modules, plain: doubtful, .. } if plain => {
                modules.remove(&module);
                doubtful.push((module, file, reason));
            }
            _ => self.tell(Notice::Refused { module, file, reason }),
        }
    }

    fn is_library(&self, file: &Path) -> bool {
        let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
        let Some(real) = folder.zip(file.file_name()).map(|(folder, name)| folder.join(name)) else { return false };
        self.modules.values().filter_map(|module| module.settled.as_ref()).any(|known| known.libraries.contains(&real))
    }

    fn cancel_outdated(&mut self) {
        let now = Instant::now();
        for module in self.modules.values() {
            if module.cancel_due().is_some_and(|due| due <= now)
                && let Some(job) = &module.job
            {
                job.cancel.store(true, Ordering::Relaxed);
            }
        }
    }

    fn begin_first_look(&mut self, found: &BTreeMap<String, Candidate>) {
        let modules = found.keys().cloned().collect();
        let found = found.iter().map(|(module, candidate)| match candidate {
            Candidate::File { path, note } => {
                Found { module: module.clone(), file: Some(path.clone()), note: note.clone() }
            }
            Candidate::NotBuilt { .. } => Found { module: module.clone(), file: None, note: String::new() },
        });
        let found = found.collect();
        let deadline = Instant::now() + FIRST_PATIENCE;
        self.first = First::Awaiting { modules, found, plain: Vec::new(), deadline };
    }

    fn end_first_look(&mut self) {
        let First::Awaiting { modules, deadline, .. } = &mut self.first else { return };
        // A module that vanished before anything was told of it is nobody's.
        modules.retain(|name| self.modules.get(name).is_some_and(|m| m.pending.is_some() || m.job.is_some()));
        if Instant::now() >= *deadline {
            let busy = modules.iter().filter_map(|name| Some((name, self.modules.get(name)?.pending.as_ref()?)));
            let busy: Vec<_> = busy.map(|(name, pending)| (name.clone(), pending.source.clone())).collect();
            for (module, file) in busy {
                let reason = "is still open for writing; it will be loaded when its writer closes it".into();
                self.tell(Notice::Refused { module, file, reason });
            }
        }
        let First::Awaiting { modules, .. } = &self.first else { return };
        if !modules.is_empty() {
            return;
        }
        let First::Awaiting { mut found, plain, .. } = std::mem::replace(&mut self.first, First::Done) else { return };
        for (module, file, reason) in plain {
            if self.is_library(&file) {
                found.retain(|found| found.module != module);
            } else {
                self.tell(Notice::Refused { module, file, reason });
            }
        }
        self.tell(Notice::Scanned { modules: found });
    }

    fn tell(&mut self, notice: Notice) {
        let (name, told) = match &notice {
            Notice::Sound(build) => (&build.module, Told::Build),
            Notice::Refused { module, .. } => (module, Told::Build),
            Notice::Gone { module } => (module, Told::Nothing),
            Notice::NotBuilt { module, .. } => (module, Told::NotBuilt),
            Notice::Scanned { .. } => return (self.notice)(notice),
        };
        if let Some(module) = self.modules.get_mut(name) {
            module.told = told;
        }
        if let First::Awaiting { modules, .. } = &mut self.first {
            modules.remove(name);
        }
        (self.notice)(notice);
    }

    fn stop(mut self) {
        self.watcher = None;
        for job in self.modules.values().filter_map(|module| module.job.as_ref()) {
            job.cancel.store(true, Ordering::Relaxed);
        }
        while self.running > 0 {
            match self.inbox.recv() {
                Ok(Message::Done { outcome: Outcome::Sound { folder, .. }, .. }) => {
                    private::remove(&folder);
                    self.running -= 1;
                }
                Ok(Message::Done { .. }) => self.running -= 1,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

impl Module {
    /// Compares what a look found with what is known. `now`: when the look began.
    fn consider(&mut self, name: &str, candidate: Option<&Candidate>, now: Instant, notices: &mut Vec<Notice>) {
        if let Some(Candidate::File { path, note }) = candidate {
            if !self.falls_back_to(path) {
                self.absent_since = None;
                return self.compare(path, note, now);
            }
            if self.is_absent(now) {
                return self.compare(path, note, now);
            }
            self.pending = None;
            return;
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
                *pending = Some(Pending {
                    source: path.to_owned(),
                    note: note.to_owned(),
                    inputs,
                    seen: now,
                    retry: now,
                    backoff: RETRY_FIRST,
                });
            }
        }
    }

    /// When a running job has had its chance against the change that waits behind it.
    fn cancel_due(&self) -> Option<Instant> {
        let job = self.job.as_ref().filter(|job| !job.cancel.load(Ordering::Relaxed))?;
        self.pending.as_ref().map(|_| job.started + CHECK_KEPT)
    }
}

impl Pending {
    /// Whether everything that is known to go into the build can be copied now.
    fn ready(&mut self) -> Result<(), NotTaken> {
        for (path, stamp) in &mut self.inputs {
            let now = Stamp::of(path);
            if *stamp != now {
                *stamp = now;
                self.seen = Instant::now();
            }
            if now.is_none() {
                if *path == self.source {
                    return Err(NotTaken::Missing);
                }
                continue;
            }
            take::ready(path, self.seen)?;
        }
        Ok(())
    }

    /// `rest`: how long it certainly takes; zero if that is the writer's to know.
    fn postpone(&mut self, rest: Duration) {
        let wait = if rest.is_zero() { self.backoff } else { rest };
        self.backoff = (2 * self.backoff).min(RETRY_LAST);
        self.retry = Instant::now() + wait;
    }

    fn settle(self, libraries: Vec<PathBuf>) -> Settled {
        Settled { source: self.source, inputs: self.inputs, libraries }
    }
}
