//! The process that owns sockets, signals, the watcher and roll-out. It never loads a module.
//!
//! 1. Everything that can be refused is refused before anything starts.
//! 2. It opens the listeners, starts workers, has every build checked, and says what serves what.
//! 3. Then it is one loop over events: builds, reports of workers, ends of workers, signals. All else runs on threads
//!    that only send events.

pub mod admission;
pub mod builds;
mod crew;
mod incident;
mod rollout;
pub mod runtime;
mod startup;
mod states;
mod verdict;

use crate::config::{Bind, Config};
use crate::control::{Order, Report, State};
use crate::exit::Exit;
use crate::log::{self, Role};
use crate::sys::process;
use crate::sys::socket::{self, Address, SocketFile};
use anyhow::Context;
use builds::{Builds, LastStates, Notice};
use crew::{Crew, Phase, WorkerId};
use incident::Reporter;
use rollout::Modules;
use runtime::Runtime;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use states::States;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitCode, ExitStatus};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use verdict::Verdicts;

/// Runs the server until it is told to stop.
pub fn run(config: Config) -> ExitCode {
    match Supervisor::start(config).and_then(|mut supervisor| supervisor.supervise()) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            tracing::error!("{:#}", failure.error);
            failure.exit.into()
        }
    }
}

/// What the supervisor acts on.
pub(crate) enum Event {
    Build(Notice),
    Report(WorkerId, Report, Vec<OwnedFd>),
    Ended(WorkerId, std::io::Result<ExitStatus>),
    Signal(i32),
}

struct Supervisor {
    config: Arc<Config>,
    events: mpsc::Receiver<Event>,
    modules: Modules,
    crew: Crew,
    builds: Builds,
    /// What happened while the first builds were looked up.
    early: VecDeque<Event>,
    /// The first workers serve, and people have been told.
    announced: bool,
    stopping: bool,
    verdicts: Verdicts,
    reporter: Reporter,
    states: States,
    _runtime: Runtime,
}

/// A listening socket, for as long as anybody shall connect.
struct Listener {
    socket: OwnedFd,
    address: Address,
    _file: Option<SocketFile>,
}

/// Why the supervisor ends, and with which code.
struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Supervisor {
    fn start(config: Config) -> Result<Supervisor, Failure> {
        let with = |exit| move |error| Failure { exit, error };
        log::start(config.log_format, Role::Supervisor).map_err(with(Exit::Usage))?;
        process::inherit_nothing_further();
        process::raise_descriptor_limit(descriptors_max(&config));
        let runtime = Runtime::create(config.runtime.as_deref()).map_err(with(Exit::Failure))?;
        admission::check(config.html.as_deref(), &config.handlers, runtime.path()).map_err(with(Exit::Usage))?;
        let listeners = listen(&config).map_err(with(Exit::Failure))?;
        let (sender, events) = mpsc::channel();
        forward_signals(sender.clone()).map_err(with(Exit::Failure))?;
        let states = States::default();
        let builds = start_builds(&config, &runtime, states.last(), sender.clone()).map_err(with(Exit::Failure))?;
        let config = Arc::new(config);
        let mut supervisor = Supervisor {
            crew: Crew::new(Arc::clone(&config), listeners, runtime.path().to_owned(), sender),
            config,
            events,
            modules: Modules::default(),
            builds,
            early: VecDeque::new(),
            announced: false,
            stopping: false,
            verdicts: Verdicts::default(),
            reporter: Reporter::start().map_err(|error| Failure { exit: Exit::Worker, error: error.into() })?,
            states,
            _runtime: runtime,
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
                Ok(Event::Build(Notice::Scanned { .. })) => break,
                Ok(Event::Build(notice)) => self.on_build(notice),
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
        Ok(())
    }

    fn supervise(&mut self) -> Result<(), Failure> {
        while !(self.stopping && self.crew.is_empty()) {
            self.crew.open_loaded();
            self.crew.hand_states_over(&self.states);
            let event = match self.crew.next_deadline() {
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
                Some(Event::Build(notice)) => self.on_build(notice),
                Some(Event::Report(worker, report, descriptors)) => self.on_report(worker, report, descriptors)?,
                Some(Event::Ended(worker, status)) => self.on_end(worker, status)?,
                Some(Event::Signal(signal)) => self.on_signal(signal),
                None => {}
            }
            for (worker, module, generation) in self.crew.act_on_deadlines(&self.modules, self.stopping) {
                // Its loops go on; what cannot load any more is replaced.
                let reason = "its constructor, init or restore did not finish when it was about to serve";
                self.refuse(&module, generation, reason)?;
                self.crew.replace(worker, &self.modules);
            }
            self.modules.announce_completed(&self.crew);
        }
        Ok(())
    }

    fn on_build(&mut self, notice: Notice) {
        if self.stopping {
            return;
        }
        match self.modules.note(notice) {
            rollout::Change::None => {}
            rollout::Change::Load(build) if build.needs_new_worker() && self.crew.has_loaded(&build.module) => {
                self.crew.replace_all(&self.modules);
            }
            rollout::Change::Load(build) => self.crew.load(&build),
            rollout::Change::Announce(module) => self.crew.tell_all(|| Order::Announce { module: module.clone() }),
            rollout::Change::Remove(module) => self.crew.tell_all(|| Order::Remove { module: module.clone() }),
        }
    }

    fn on_report(&mut self, id: WorkerId, report: Report, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        match report {
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
                }
            }
            Report::Failed(reason) if !self.announced => {
                return Err(Failure { exit: Exit::Worker, error: anyhow::anyhow!("a worker cannot start: {reason}") });
            }
            Report::Failed(reason) => self.crew.failed(id, &reason),
            Report::Crashed(incident) => {
                let pid = self.crew.taint(id, &self.modules).unwrap_or_default();
                let verdict = self.verdicts.note(id, &incident, Instant::now());
                let (module, generation) = (incident.module.clone(), incident.generation);
                self.reporter.report(incident, pid);
                if let Some(reason) = verdict {
                    self.refuse(&module, generation, &reason)?;
                }
            }
            Report::Handover(state) => self.crew.pass_on(id, state, descriptors),
            Report::Quiet => self.crew.quiet(id),
            Report::Done => self.crew.dismiss(id),
        }
        Ok(())
    }

    /// A build that was found sound does not serve after all.
    fn refuse(&mut self, module: &str, generation: u64, reason: &str) -> Result<(), Failure> {
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

    fn on_end(&mut self, id: WorkerId, status: std::io::Result<ExitStatus>) -> Result<(), Failure> {
        let Some(worker) = self.crew.remove(id) else { return Ok(()) };
        let how = startup::describe_end(&status);
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
            tracing::error!("worker {} {how}; what it had in flight is lost", worker.pid());
        }
        if !self.stopping && worker.is_active() {
            self.crew.rehire(id, &worker, is_explained, &self.modules);
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            SIGHUP => {
                tracing::info!("reloading everything: all builds are taken again, and every worker is replaced");
                self.builds.rescan(true);
                if self.announced && !self.stopping {
                    self.crew.replace_all(&self.modules);
                }
            }
            SIGTERM if !self.stopping => {
                self.stopping = true;
                tracing::info!("stopping: answering what has been received");
                self.crew.stop(self.config.timeouts.stop);
            }
            SIGTERM => {}
            _ => {
                self.stopping = true;
                self.crew.end_now();
            }
        }
    }
}

/// How many descriptors this process or a worker may need: on its way to another worker a connection has up to three,
/// and all of them may be under way at once.
fn descriptors_max(config: &Config) -> u64 {
    3 * config.limits.connections_max as u64 + DESCRIPTORS_BESIDE_CONNECTIONS
}

fn listen(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let (inherited, other): (Vec<_>, Vec<_>) = config.bind.iter().partition(|bind| matches!(bind, Bind::Inherited(_)));
    for bind in inherited.into_iter().chain(other) {
        let socket = socket::listen(bind)?;
        let address = socket::local_address(socket.as_fd()).context("a listener does not tell its address")?;
        listeners.push(Listener { socket, address, _file: SocketFile::of(bind) });
    }
    Ok(listeners)
}

fn start_builds(
    config: &Config,
    runtime: &Runtime,
    states: LastStates,
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
        check_timeout: CHECK_TIMEOUT,
        states,
    };
    // Nobody receives any more when the supervisor ends.
    Builds::start(options, move |notice| drop(events.send(Event::Build(notice))))
}

fn forward_signals(events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
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

/// For everything but connections: modules may open files of their own.
const DESCRIPTORS_BESIDE_CONNECTIONS: u64 = 1024;

/// How long the constructor and `init` of a build may take when it is tried.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
