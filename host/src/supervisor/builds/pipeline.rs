//! The pipeline's own thread: it owns what is known of each module and decides what happens next.
//!
//! Steps: sleep until a message or the next thing that is due, look, compare with what is settled, start jobs for what
//! changed and is ready, settle what jobs bring back. Only a job copies or checks, so this thread is always free to look.

use super::first::{FirstLook, Refusal};
use super::job::{self, Job, Outcome};
use super::lookup::{Candidate, Look, Lookup};
use super::module::{Module, RETRY_FIRST, RETRY_LAST, Running, Told};
use super::private;
use super::take::NotTaken;
use super::watcher::Watcher;
use super::{Build, Notice, Options};
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
    /// See [`super::Builds::hold`].
    Hold { module: String, held: bool },
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
    /// None once its last notice was given.
    first: Option<FirstLook>,
    look_due: Option<Instant>,
    /// When the last look began and ended.
    look_began: Instant,
    looked: Instant,
    running: usize,
    running_max: usize,
}

/// How often everything is looked at without a hint: for file systems that give none, and for lost ones.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

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
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Pipeline {
            lookup: Lookup::new(options.handlers.clone()),
            checker: checker.into(),
            messages,
            inbox,
            notice,
            watcher: watcher.flatten(),
            hinted,
            modules: options.known.iter().map(|(name, known)| (name.clone(), Module::known(*known))).collect(),
            first: None,
            look_due: None,
            look_began: Instant::now(),
            looked: Instant::now(),
            options: Arc::new(options),
            running: 0,
            // A build that hangs in its constructor holds a place for the whole time limit: one must not stop the rest.
            running_max: processors.clamp(4, 16),
        }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        let Look { modules, folders } = self.lookup.look();
        self.first = Some(FirstLook::new(&modules));
        self.consider(&modules, folders, Instant::now());
        loop {
            self.start_jobs();
            self.cancel_outdated();
            self.end_first_look();
            let now = Instant::now();
            let message = match self.next_due(now) {
                Some(due) => self.inbox.recv_timeout(due.saturating_duration_since(now)),
                None => self.inbox.recv().map_err(RecvTimeoutError::from),
            };
            match message {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return self.stop(),
                Ok(Message::Hint) => self.look_soon(),
                Ok(Message::Rescan { force }) => {
                    self.modules.values_mut().for_each(|module| module.force |= force && !module.held);
                    self.look_due = Some(Instant::now());
                }
                Ok(Message::Hold { module, held }) => {
                    if let Some(module) = self.modules.get_mut(&module) {
                        module.hold(held);
                    }
                }
                Ok(Message::Done { module, outcome }) => self.finish(&module, outcome),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.next_look().is_some_and(|due| due <= Instant::now()) {
                self.look();
            }
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
        let absent = self.modules.values().filter_map(Module::absence_due).filter(|due| *due > self.look_began);
        self.look_due.into_iter().chain(poll).chain(absent).min()
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let free = self.running < self.running_max;
        let retries = self.modules.values().filter(|module| free && module.job.is_none());
        let retries = retries.filter_map(|module| Some(module.pending.as_ref()?.retry));
        let cancels = self.modules.values().filter_map(Module::cancel_due).filter(|due| *due > now);
        let first = self.first.as_ref().map(|first| first.deadline).filter(|deadline| *deadline > now);
        self.next_look().into_iter().chain(retries).chain(cancels).chain(first).min()
    }

    fn look(&mut self) {
        self.look_due = None;
        // Cleared before looking: what changes from here on gives a new hint.
        self.hinted.store(false, Ordering::Release);
        let began = Instant::now();
        let Look { modules, folders } = self.lookup.look();
        self.consider(&modules, folders, began);
    }

    /// Compares what a look found with what is known, and watches where it looked.
    fn consider(&mut self, found: &BTreeMap<String, Candidate>, mut folders: BTreeSet<PathBuf>, began: Instant) {
        for name in found.keys() {
            if !self.modules.contains_key(name) {
                self.modules.insert(name.clone(), Module::default());
            }
        }
        let mut notices = Vec::new();
        for (name, module) in &mut self.modules {
            module.consider(name, found.get(name), began, &mut notices);
            let inputs = module.settled.iter().flat_map(|settled| settled.inputs.keys());
            let parents = inputs.filter_map(|input| input.parent()).filter(|parent| parent.is_dir());
            folders.extend(parents.map(Path::to_owned));
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
                    refused.push(Refusal { module: name.clone(), file: pending.source.clone(), reason });
                    module.settle(pending.settle());
                    continue;
                }
            }
            let started = Instant::now();
            let cancel = Arc::new(AtomicBool::new(false));
            let job = Job {
                module: name.clone(),
                source: pending.source.clone(),
                inputs: pending.inputs.clone(),
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
        refused.into_iter().for_each(|refusal| self.tell(refusal.into()));
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
                module.settle(pending.settle());
                tracing::debug!("{name} generation {} is sound: {steps:?}", build.generation);
                self.tell(Notice::Sound(build));
            }
            Outcome::Refused { reason, inputs, plain } => {
                let file = pending.source.clone();
                // Without a word on the file itself this would be tried again for ever.
                if inputs.contains_key(&file) {
                    pending.inputs = inputs;
                }
                module.settle(pending.settle());
                self.refuse(Refusal { module: name.to_owned(), file, reason }, plain);
            }
            Outcome::NotReady(rest) => {
                pending.postpone(rest);
                module.pending.get_or_insert(pending);
            }
            Outcome::Missing | Outcome::Cancelled => {}
        }
    }

    /// A file that has no application and that another module needs is no module, and nobody wants to read that it is a
    /// bad one. At the first look, the other module may come later.
    fn refuse(&mut self, refusal: Refusal, plain: bool) {
        if plain && let Some(first) = &mut self.first {
            return first.defer(refusal);
        }
        if plain && self.is_library(&refusal.file) {
            return tracing::debug!("{} is a library of modules", refusal.file.display());
        }
        self.tell(refusal.into());
    }

    fn is_library(&self, file: &Path) -> bool {
        let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
        let Some(real) = folder.zip(file.file_name()).map(|(folder, name)| folder.join(name)) else { return false };
        let others = self.modules.values().filter_map(|module| module.settled.as_ref());
        others.filter(|other| other.source != file).any(|other| other.inputs.contains_key(&real))
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

    fn end_first_look(&mut self) {
        let Some(first) = &mut self.first else { return };
        // A module that vanished before anything was told of it is nobody's.
        first.awaited.retain(|name| self.modules.get(name).is_some_and(|m| m.pending.is_some() || m.job.is_some()));
        if Instant::now() >= first.deadline {
            let busy = first.awaited.iter().filter_map(|name| Some((name, self.modules.get(name)?.pending.as_ref()?)));
            let busy: Vec<Refusal> = busy
                .map(|(module, pending)| Refusal {
                    module: module.clone(),
                    file: pending.source.clone(),
                    reason: "is still open for writing; it will be loaded when its writer closes it".into(),
                })
                .collect();
            busy.into_iter().for_each(|refusal| self.tell(refusal.into()));
        }
        let Some(FirstLook { mut found, doubtful, .. }) = self.first.take_if(|first| first.awaited.is_empty()) else {
            return;
        };
        for refusal in doubtful {
            if self.is_library(&refusal.file) {
                found.retain(|found| found.module != refusal.module);
            } else {
                self.tell(refusal.into());
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
        if let Some(first) = &mut self.first {
            first.awaited.remove(name);
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

impl From<Refusal> for Notice {
    fn from(Refusal { module, file, reason }: Refusal) -> Notice {
        Notice::Refused { module, file, reason }
    }
}
