//! The process that owns sockets, signals, the watcher and roll-out. It never loads a module.
//!
//! 1. Everything that can be refused is refused before anything starts.
//! 2. It opens the listeners, starts workers, has every build checked, and says what serves what.
//! 3. Then it is one loop over events: builds, reports of workers, ends of workers, signals, what another supervisor says
//!    from which it takes over, or which takes over from it. All else runs on threads that only send events.

pub mod admission;
pub mod builds;
pub mod console;
mod crew;
mod history;
mod incident;
mod judgement;
mod listeners;
mod memory;
mod reload;
mod rollout;
pub mod runtime;
mod startup;
mod states;
mod upgrade;
mod verdict;

use crate::config::{Config, values};
use crate::control::{Order, Report, State};
use crate::exit::Exit;
use crate::log::{self, Role};
use crate::request::Excerpt;
use crate::site::UPLOAD_FILES_MAX;
use crate::sys::{manager, process, program};
use builds::{Build, Builds, Known, LastStates, Notice};
use crew::{Crew, Phase, WorkerId, turnover};
use incident::{Record, Reporter};
use listeners::When;
use memory::MemoryLimit;
use reload::Reload;
use rollout::{Kept, Modules, Return};
use runtime::Runtime;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};
use states::States;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use upgrade::{FromHeir, Heir, Predecessor, ToHeir};
use verdict::Verdicts;

/// Runs the server until it is told to stop. `reread` reads the configuration once more.
pub fn run(config: Config, reread: fn() -> anyhow::Result<Config>) -> ExitCode {
    match Supervisor::start(config, reread).and_then(|mut supervisor| supervisor.supervise()) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            tracing::error!("{:#}", failure.error);
            failure.exit.into()
        }
    }
}

/// What the supervisor acts on.
pub(crate) enum Event {
    /// By the number of the pipeline.
    Build(u64, Notice),
    Report(WorkerId, Report, Vec<OwnedFd>),
    Ended(WorkerId, std::io::Result<ExitStatus>),
    Signal(i32),
    /// Somebody asks at the console.
    Asked(console::Request, console::Reply),
    /// A build that is to answer again has been copied.
    Copied(Return, std::io::Result<Build>, console::Reply),
    /// An incident is in the log, and in its file.
    Told(Record),
    Heir(FromHeir),
    HeirEnded(std::io::Result<ExitStatus>),
    Predecessor(ToHeir, Vec<OwnedFd>),
    PredecessorGone,
}

struct Supervisor {
    config: Arc<Config>,
    reread: fn() -> anyhow::Result<Config>,
    /// What is started by an upgrade.
    program: PathBuf,
    /// For those who send events.
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    modules: Modules,
    crew: Crew,
    builds: Builds,
    /// The number of the pipeline that counts, and of the last one that was started.
    pipeline: u64,
    pipelines: u64,
    reload: Option<Reload>,
    /// A reload has been asked for that could not begin yet.
    reload_due: bool,
    /// The process that takes over, or is to.
    heir: Option<Heir>,
    /// The process that this one takes over from, as long as it lives.
    predecessor: Option<Predecessor>,
    /// What happened while the first builds were looked up.
    early: VecDeque<Event>,
    /// The first workers serve, and people have been told.
    announced: bool,
    stopping: bool,
    verdicts: Verdicts,
    reporter: Reporter,
    /// The last ones, oldest first.
    incidents: VecDeque<Record>,
    states: States,
    started: Instant,
    runtime: Runtime,
}

/// Why the supervisor ends, and with which code.
struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Supervisor {
    fn start(config: Config, reread: fn() -> anyhow::Result<Config>) -> Result<Supervisor, Failure> {
        let with = |exit| move |error| Failure { exit, error };
        log::start(config.log_format, Role::Supervisor).map_err(with(Exit::Usage))?;
        process::inherit_nothing_further();
        let program = program::path().map_err(anyhow::Error::from).map_err(with(Exit::Failure))?;
        let (predecessor, mut estate) = Predecessor::greet().map_err(with(Exit::Failure))?.unzip();
        process::raise_descriptor_limit(descriptors_max(&config));
        let runtime = Runtime::create(config.runtime.as_deref()).map_err(with(Exit::Failure))?;
        admission::check(&config, runtime.path()).map_err(with(Exit::Usage))?;
        let listeners = match &mut estate {
            Some(estate) => estate.listeners(&config.bind),
            None => listeners::open(&config.bind, When::Start),
        };
        let listeners = listeners.map_err(with(Exit::Failure))?;
        let (sender, events) = mpsc::channel();
        forward_signals(sender.clone()).map_err(with(Exit::Failure))?;
        // Before there are other processes, which would be in the way of groups.
        let memory = MemoryLimit::new(config.limits.memory_bytes_max);
        let mut modules = Modules::default();
        let mut states = States::default();
        if let Some(estate) = estate {
            modules.go_on_from(estate.generations);
            states.expect(estate.states);
        }
        let builds = start_builds(&config, &runtime, modules.known(), states.last(), 0, sender.clone())
            .map_err(with(Exit::Failure))?;
        if let Err(error) = console::start(runtime.path(), sender.clone()) {
            tracing::warn!("host status and host rollback cannot reach this server: {error:#}");
        }
        let reporter = Reporter::start(runtime.path(), sender.clone());
        if let Some(predecessor) = &predecessor {
            predecessor.follow(sender.clone()).map_err(with(Exit::Failure))?;
        }
        let config = Arc::new(config);
        let mut supervisor = Supervisor {
            crew: Crew::new(Arc::clone(&config), listeners, runtime.path().to_owned(), memory, sender.clone()),
            config,
            reread,
            program,
            sender,
            events,
            modules,
            builds,
            pipeline: 0,
            pipelines: 0,
            reload: None,
            reload_due: false,
            heir: None,
            predecessor,
            early: VecDeque::new(),
            announced: false,
            stopping: false,
            verdicts: Verdicts::default(),
            reporter: reporter.map_err(|error| Failure { exit: Exit::Worker, error: error.into() })?,
            incidents: VecDeque::new(),
            states,
            started: Instant::now(),
            runtime,
        };
        if let Err(failure) = supervisor.open() {
            // Else they would only end when they have noticed.
            supervisor.crew.end_now();
            return Err(failure);
        }
        Ok(supervisor)
    }

    /// Starts the workers, and gives them the builds that are found first. They boot while those are checked.
    fn open(&mut self) -> Result<(), Failure> {
        let with = |exit| move |error| Failure { exit, error };
        for _ in 0..self.config.workers {
            self.crew.hire(None, &self.modules).map_err(with(Exit::Worker))?;
        }
        // The first look-up decides whether there is anything to serve.
        loop {
            match self.events.recv() {
                Ok(Event::Build(_, Notice::Scanned { .. })) => break,
                Ok(Event::Build(pipeline, notice)) => self.on_build(pipeline, notice),
                Ok(Event::Signal(SIGTERM | SIGINT | SIGQUIT)) | Err(_) => {
                    self.stopping = true;
                    self.crew.end_now();
                    return Ok(());
                }
                Ok(event) => self.early.push_back(event),
            }
        }
        startup::require_root(&self.config, &self.modules).map_err(with(Exit::RootApplication))?;
        startup::warn_of_mounts(&self.config, &self.modules);
        startup::warn_of_uploads(&self.config);
        Ok(())
    }

    fn supervise(&mut self) -> Result<(), Failure> {
        while !self.is_done() {
            self.crew.open_loaded(!self.announced);
            self.crew.hand_states_over(&self.states);
            let heir_deadline = self.heir.as_ref().and_then(Heir::deadline);
            let event = match self.crew.next_deadline().into_iter().chain(heir_deadline).min() {
                _ if !self.early.is_empty() => self.early.pop_front(),
                Some(deadline) => match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(event) => Some(event),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                },
                None => match self.events.recv() {
                    Ok(event) => Some(event),
                    Err(_) => break,
                },
            };
            match event {
                Some(Event::Build(pipeline, notice)) => self.on_build(pipeline, notice),
                Some(Event::Report(worker, report, descriptors)) => self.on_report(worker, report, descriptors)?,
                Some(Event::Ended(worker, status)) => self.on_end(worker, status)?,
                Some(Event::Signal(signal)) => self.on_signal(signal),
                Some(Event::Asked(request, reply)) => self.on_asked(request, reply),
                Some(Event::Copied(chosen, copy, reply)) => self.on_copied(chosen, copy, reply),
                Some(Event::Told(record)) => {
                    self.incidents.push_back(record);
                    if self.incidents.len() > INCIDENTS_MAX {
                        self.incidents.pop_front();
                    }
                }
                Some(Event::Heir(word)) => self.on_heir(word),
                Some(Event::HeirEnded(status)) => self.on_heir_end(status),
                Some(Event::Predecessor(message, descriptors)) => self.on_predecessor(message, descriptors),
                Some(Event::PredecessorGone) => self.on_predecessor_end(),
                None => {}
            }
            for (worker, module, generation) in self.crew.act_on_deadlines(&self.modules, self.stopping) {
                // Its loops go on; what cannot load any more is replaced.
                let reason = "its constructor, init or restore did not finish when it was about to serve";
                self.refuse(&module, generation, reason)?;
                self.crew.replace(worker, &self.modules);
            }
            self.give_up_late_heir();
            self.bequeath_states();
            if !self.stopping {
                self.crew.settle(&self.modules);
            }
            self.modules.announce_completed(&self.crew);
        }
        self.crew.disinherit();
        self.heir.iter().for_each(Heir::flush);
        Ok(())
    }

    /// Whether there is nobody any more whom this process has to wait for.
    fn is_done(&self) -> bool {
        let waits = match &self.heir {
            // What is still to come from there goes on to the heir.
            Some(heir) if heir.serves() => self.predecessor.is_some(),
            // It has been told to stop.
            Some(_) => true,
            None => false,
        };
        self.stopping && self.crew.is_empty() && !waits
    }

    fn on_build(&mut self, pipeline: u64, notice: Notice) {
        if let Some(notice) = self.hold(pipeline, notice) {
            self.act_on_build(notice);
        }
    }

    fn act_on_build(&mut self, notice: Notice) {
        if self.stopping {
            return;
        }
        match self.modules.note(notice) {
            rollout::Change::None => {}
            rollout::Change::Load(build) => self.roll_out(&build),
            rollout::Change::Announce(module) => self.crew.tell_all(|| Order::Announce { module: module.clone() }),
            rollout::Change::Remove(module) => self.crew.tell_all(|| Order::Remove { module: module.clone() }),
        }
    }

    /// Has every worker answer with a build that is the module's from now on.
    fn roll_out(&mut self, build: &Arc<Kept>) {
        if build.needs_new_worker() && self.crew.has_loaded(&build.module) {
            self.crew.replace_all(&self.modules);
        } else {
            self.crew.load(build);
        }
    }

    fn on_report(&mut self, id: WorkerId, report: Report, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        match report {
            Report::Started => self.crew.started(id),
            Report::Loaded { module, generation, error: None } => {
                self.modules.loaded(&module, generation);
                self.crew.loaded(id, &module, generation);
                self.crew.replace_if_full(id, &self.modules);
            }
            Report::Loaded { module, generation, error: Some(reason) } => {
                self.crew.loaded(id, &module, 0);
                self.refuse(&module, generation, &reason)?;
                self.crew.fall_back(id, &module, &self.modules);
            }
            Report::State { module, generation, state, .. } => {
                let Some(seat) = self.crew.seat(id) else { return Ok(()) };
                if state == State::Settled {
                    seat.settled(&module);
                }
                self.states.note(seat.number(), &module, generation, state, descriptors.into_iter().next());
            }
            Report::Serving => {
                self.crew.serving(id);
                if !self.announced && self.crew.all_serve() {
                    self.announced = true;
                    log::say(&startup::table(&self.config, self.crew.addresses(), &self.modules));
                    self.modules.announced();
                    match &self.predecessor {
                        Some(predecessor) => predecessor.tell(&FromHeir::Serving),
                        None => manager::tell("READY=1"),
                    }
                    self.catch_up();
                }
            }
            Report::Failed(reason) if !self.announced => {
                return Err(Failure { exit: Exit::Worker, error: anyhow::anyhow!("a worker cannot start: {reason}") });
            }
            Report::Failed(reason) => self.crew.failed(id, &reason),
            Report::Excerpt { crash, .. } => {
                self.reporter.expect(id, crash, Excerpt::from_report(&report, descriptors));
            }
            Report::Crashed { crash, incident } => self.on_crash(id, crash, incident)?,
            Report::Handover(state) => self.crew.pass_on(id, state, descriptors),
            Report::Quiet => self.crew.quiet(id),
            Report::Done => self.crew.dismiss(id),
        }
        Ok(())
    }

    fn on_end(&mut self, id: WorkerId, status: std::io::Result<ExitStatus>) -> Result<(), Failure> {
        let Some(worker) = self.crew.remove(id) else { return Ok(()) };
        self.reporter.forget(id);
        let how = worker.describe_end(&status);
        let mut is_explained = false;
        if let Some((module, generation)) = worker.loading().filter(|_| worker.is_active() && !self.stopping) {
            let (module, generation) = (module.to_owned(), generation);
            if startup::was_killed(&status) && !self.modules.suspect(&module, generation) {
                let pid = worker.pid();
                tracing::error!(
                    "worker {pid} {how} while it had to load {module} generation {generation}; trying again"
                );
            } else {
                // It was in the module's constructor or init, which had passed the check.
                self.refuse(&module, generation, &format!("the worker that loaded it {how}"))?;
                is_explained = true;
            }
        } else if matches!(worker.phase, Phase::Booting | Phase::Opening) && !self.announced && !self.stopping {
            let error = anyhow::anyhow!("a worker {how} before it could serve");
            return Err(Failure { exit: Exit::Worker, error });
        } else if !worker.is_expected_to_end() {
            is_explained = self.judge_death(id, &worker, &how)?;
        }
        if !self.stopping && worker.is_active() {
            self.crew.rehire(id, &worker, is_explained, &self.modules);
        }
        Ok(())
    }

    /// From now on nothing begins.
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            manager::tell("STOPPING=1");
        }
        self.abandon_reload();
        self.predecessor.iter().for_each(|predecessor| predecessor.tell(&FromHeir::Stopping));
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            SIGHUP => self.reload(),
            SIGUSR2 => self.upgrade(),
            SIGTTIN => self.resize(1),
            SIGTTOU => self.resize(-1),
            SIGTERM if !self.stopping => {
                self.stop();
                tracing::info!("stopping: answering what has been received");
                self.crew.stop(self.config.timeouts.stop);
                self.heir.iter_mut().for_each(|heir| heir.stop(false, self.config.timeouts.stop));
            }
            SIGTERM => {}
            _ => {
                self.stop();
                self.crew.end_now();
                self.heir.iter_mut().for_each(|heir| heir.stop(true, Duration::ZERO));
            }
        }
    }
}

/// Another number of workers, until the configuration is read again.
impl Supervisor {
    fn resize(&mut self, by: isize) {
        if self.stopping {
            return;
        }
        match self.crew.resize(by, values::SMALL_COUNT_MAX) {
            Some(count) if by > 0 => tracing::info!("one worker more: {}", turnover::workers(count)),
            Some(count) => tracing::info!("one worker less: {}", turnover::workers(count)),
            None if by > 0 => tracing::warn!("no worker more: there are at most {}", values::SMALL_COUNT_MAX),
            None => tracing::warn!("no worker less: there is at least 1"),
        }
    }
}

/// How many descriptors this process or a worker may need: on its way to another worker a connection has up to three,
/// and all of them may be under way at once.
fn descriptors_max(config: &Config) -> u64 {
    let uploads = if config.uploads.is_empty() { 0 } else { UPLOAD_FILES_MAX as u64 };
    3 * config.limits.connections_max as u64 + uploads + DESCRIPTORS_BESIDE_CONNECTIONS
}

fn start_builds(
    config: &Config,
    runtime: &Runtime,
    known: BTreeMap<String, Known>,
    states: LastStates,
    pipeline: u64,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<Builds> {
    let mut symbols = BTreeMap::<String, Vec<String>>::new();
    for application in config.applications() {
        let of_module = symbols.entry(application.module.clone()).or_default();
        if !of_module.contains(&application.symbol) {
            of_module.push(application.symbol.clone());
        }
    }
    let options = builds::Options {
        handlers: config.handlers.clone(),
        runtime: runtime.path().to_owned(),
        reload: config.reload,
        symbols,
        known,
        check_timeout: CHECK_TIMEOUT,
        states,
    };
    // Nobody receives any more when the supervisor ends.
    Builds::start(options, move |notice| drop(events.send(Event::Build(pipeline, notice))))
}

fn forward_signals(events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(SIGNALS)?;
    let forward = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(forward)?;
    Ok(())
}

/// Incidents that are remembered, as many as have a file.
const INCIDENTS_MAX: usize = 100;
/// What people steer the server by.
const SIGNALS: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2];

/// For everything but connections: modules may open files of their own.
const DESCRIPTORS_BESIDE_CONNECTIONS: u64 = 1024;

/// How long the constructor and `init` of a build may take when it is tried.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
