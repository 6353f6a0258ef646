//! The workers: hiring, orders, replacement without loss, and their end.
//!
//! A replacement boots beside the worker that it replaces, loads everything, and serves; then the old one passes its
//! connections on and goes. At most one replacement of a worker boots at a time.

pub(super) mod turnover;

use super::listeners::Listener;
use super::memory::{MemoryLimit, Share};
use super::rollout::{Change, Kept, Modules};
use super::states::{self, Place, Seat, States};
use super::upgrade::ToHeir;
use super::{Event, startup};
use crate::config::Config;
use crate::control::{self, Order};
use crate::handler::Loadable;
use crate::server::{self, HandoverState};
use crate::sys::channel::Channel;
use crate::sys::process::{Child, Reaper};
use crate::sys::recorder::{self, LastCall};
use crate::sys::socket::Address;
use anyhow::Context;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use turnover::Turnover;

/// An order, with the descriptors that go along.
type Outgoing = (Order, Vec<OwnedFd>);

/// Names a worker; never reused.
pub(crate) type WorkerId = u64;

/// All workers.
pub(super) struct Crew {
    config: Arc<Config>,
    listeners: Vec<Listener>,
    spool: PathBuf,
    access_log: Option<OwnedFd>,
    events: mpsc::Sender<Event>,
    workers: BTreeMap<WorkerId, Worker>,
    workers_wanted: usize,
    memory: MemoryLimit,
    next_id: WorkerId,
    /// When another worker is to be hired in the place of one that died, and whom that one was to replace.
    vacancies: Vec<(Instant, Option<WorkerId>)>,
    /// Deaths in a row, none of whom served for long.
    early_deaths: u32,
    /// Times in a row that no worker could be started.
    failed_hires: u32,
    /// Connections whose next worker died before it could take them.
    stranded: Vec<(HandoverState, Vec<OwnedFd>)>,
    turnover: Turnover,
    /// Who takes the connections of all, once there is another supervisor.
    heir: Option<mpsc::Sender<(ToHeir, Vec<OwnedFd>)>>,
}

/// A worker process.
pub(super) struct Worker {
    process: Child,
    orders: mpsc::Sender<Outgoing>,
    /// What it writes down of its calls.
    recorder: OwnedFd,
    /// What it was hired under.
    config: Arc<Config>,
    pub(super) phase: Phase,
    /// Its part of the memory, if that is limited.
    memory: Share,
    /// The worker that this one replaces once it serves.
    replaces: Option<WorkerId>,
    /// Every build that it has loaded, or is loading.
    builds: Vec<Arc<Kept>>,
    /// The build of each module that answers.
    answering: HashMap<String, Arc<Kept>>,
    /// It takes orders.
    started: bool,
    /// What it was told to load and has not reported, with the time since when it may be at the first.
    loading: VecDeque<Arc<Kept>>,
    loading_since: Instant,
    hired: Instant,
    /// When it is ended if it has not ended itself.
    deadline: Option<Instant>,
    /// It has said why it cannot serve, and is being ended.
    failed: bool,
    /// A module has crashed in it: it loads nothing any more, and is being replaced.
    tainted: bool,
    seat: Seat,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Loading: it has accepted nothing and can be ended without loss.
    Booting,
    /// It has loaded everything and was told to serve: it may accept connections at any moment.
    Opening,
    Serving,
    /// Passing its connections on; `quiet` once no request begins there.
    Draining {
        quiet: bool,
    },
    /// Answering what it has, then closing.
    Stopping,
    /// It may end at any time.
    Leaving,
}

impl Crew {
    pub(super) fn new(
        config: Arc<Config>,
        listeners: Vec<Listener>,
        spool: PathBuf,
        memory: MemoryLimit,
        events: mpsc::Sender<Event>,
    ) -> Crew {
        Crew {
            workers_wanted: config.workers,
            config,
            listeners,
            spool,
            access_log: None,
            events,
            workers: BTreeMap::new(),
            memory,
            next_id: 1,
            vacancies: Vec::new(),
            early_deaths: 0,
            failed_hires: 0,
            stranded: Vec::new(),
            turnover: Turnover::default(),
            heir: None,
        }
    }

    /// Starts a worker with all builds of now.
    ///
    /// # Errors
    /// The system has no room for another process.
    pub(super) fn hire(&mut self, replaces: Option<WorkerId>, modules: &Modules) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        // First what may fail: a worker that is not told to start would wait for ever.
        let recorder = recorder::create(server::threads_max(&self.config)).context("cannot make a flight recorder")?;
        let sockets = self.listeners.iter().map(|listener| &listener.socket).chain([&recorder]);
        let sockets = sockets.chain(&self.access_log).map(OwnedFd::try_clone).collect::<std::io::Result<_>>()?;
        let (process, orders) = spawn(id, self.events.clone())?;
        // Before its first order: until then it does nothing.
        let memory = self.memory.share(id, process.id()).inspect_err(|_| process.kill())?;
        let mut worker = Worker {
            process,
            orders,
            recorder,
            config: Arc::clone(&self.config),
            phase: Phase::Booting,
            memory,
            replaces,
            builds: Vec::new(),
            answering: HashMap::new(),
            started: false,
            loading: VecDeque::new(),
            loading_since: Instant::now(),
            hired: Instant::now(),
            deadline: Some(Instant::now() + BOOT_TIMEOUT),
            failed: false,
            tainted: false,
            seat: Seat::new(self.seat_for(replaces)),
        };
        let listeners = self.listeners.iter().map(|listener| listener.address.clone()).collect();
        let (config, spool) = (Box::new(Config::clone(&self.config)), self.spool.clone());
        let start = Order::Start { config, listeners, spool, memory_bytes_max: self.memory.of_worker_itself() };
        worker.order(start, sockets);
        for (name, module) in modules.iter() {
            match &module.build {
                Some(build) => worker.load(build, &self.config),
                None => worker.order(Order::Announce { module: name.to_owned() }, Vec::new()),
            }
        }
        self.workers.insert(id, worker);
        Ok(())
    }

    /// The seat of the worker that is replaced, or one that nobody has who serves, or will.
    fn seat_for(&self, replaces: Option<WorkerId>) -> usize {
        let former = replaces.and_then(|old| self.workers.get(&old)).map(|old| old.seat.number());
        let active = self.workers.values().filter(|worker| worker.is_active());
        former.unwrap_or_else(|| Seat::free(active.map(|worker| &worker.seat)))
    }

    /// The seat of a worker.
    pub(super) fn seat(&mut self, id: WorkerId) -> Option<&mut Seat> {
        self.workers.get_mut(&id).map(|worker| &mut worker.seat)
    }

    /// The states that workers have, or wait for.
    pub(super) fn held_states(&self) -> impl Iterator<Item = &Place> {
        self.workers.values().flat_map(|worker| worker.seat.holds())
    }

    /// Gives those the states of modules who wait for them, where they are final.
    pub(super) fn hand_states_over(&mut self, states: &States) {
        let mut given = Vec::new();
        let seats = self.workers.iter_mut().map(|(&id, worker)| (id, &mut worker.seat));
        states::hand_over(seats, states, |id, module, state| given.push((id, module, state)));
        for (id, module, state) in given {
            if let Some(worker) = self.workers.get(&id) {
                worker.order(Order::Restore { module }, state.into_iter().collect());
            }
        }
    }

    /// Tells those to serve who have loaded everything there is. Until then they accept nothing, so that no request
    /// is answered by an older build than those that have been announced. `together`: all or none, so that none has
    /// accepted anything if another one cannot load.
    pub(super) fn open_loaded(&mut self, together: bool) {
        if together && self.workers.values().any(|worker| worker.phase == Phase::Booting && !worker.loading.is_empty())
        {
            return;
        }
        for worker in self.workers.values_mut() {
            if worker.phase == Phase::Booting && worker.loading.is_empty() {
                worker.phase = Phase::Opening;
                worker.order(Order::Serve, Vec::new());
            }
        }
    }

    /// Has every worker that serves, or will, load a build.
    pub(super) fn load(&mut self, build: &Arc<Kept>) {
        let config = Arc::clone(&self.config);
        self.active().for_each(|worker| worker.load(build, &config));
    }

    /// Gives every worker that serves, or will, the same order.
    pub(super) fn tell_all(&mut self, order: impl Fn() -> Order) {
        self.active().for_each(|worker| worker.order(order(), Vec::new()));
    }

    /// Tells them what has become of a module whose build was refused.
    pub(super) fn tell_of(&mut self, change: Change) {
        if let Change::Announce(module) = change {
            self.tell_all(|| Order::Announce { module: module.clone() });
        }
    }

    /// Whether any build of a module has been loaded by a worker that serves, or will.
    pub(super) fn has_loaded(&mut self, module: &str) -> bool {
        self.active().any(|worker| worker.builds.iter().any(|build| build.module == module))
    }

    /// A worker has begun to take orders. No module is to blame for the time that the system took until then.
    pub(super) fn started(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.started = true;
        worker.loading_since = Instant::now();
    }

    /// A worker has loaded what it was told to; generation 0 if that failed.
    pub(super) fn loaded(&mut self, id: WorkerId, module: &str, generation: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let loaded = worker.loading.pop_front();
        worker.loading_since = Instant::now();
        // After what was stuck has been forgotten, a report may be of something else.
        if let Some(build) = loaded.filter(|build| build.module == module && build.generation == generation) {
            worker.answering.insert(module.to_owned(), build);
        }
    }

    /// A worker could not load a build, and the one before is to answer: if it has not even that, it loads that one.
    pub(super) fn fall_back(&mut self, id: WorkerId, name: &str, modules: &Modules) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let build = modules.get(name).and_then(|module| module.build.as_ref());
        if let Some(build) = build.filter(|_| !worker.answering.contains_key(name)) {
            worker.load(build, &self.config);
        }
    }

    /// Replaces a worker that keeps too many retired generations mapped.
    pub(super) fn replace_if_full(&mut self, id: WorkerId, modules: &Modules) {
        let Some(worker) = self.workers.get(&id) else { return };
        let retired = worker.builds.len().saturating_sub(worker.answering.len());
        if worker.phase == Phase::Serving && retired > self.config.limits.generations_max {
            tracing::debug!("worker {} keeps {retired} retired generations; replacing it", worker.pid());
            self.replace(id, modules);
        }
    }

    /// A module has crashed in a worker: a lock that the crashed thread holds may be held for ever, so that nothing new
    /// begins there. Gives its process id, for the log.
    pub(super) fn taint(&mut self, id: WorkerId, modules: &Modules) -> Option<u32> {
        let worker = self.workers.get_mut(&id)?;
        let pid = worker.pid();
        worker.tainted = true;
        worker.loading.clear();
        self.replace(id, modules);
        Some(pid)
    }

    /// Replaces every worker.
    pub(super) fn replace_all(&mut self, modules: &Modules) {
        let active: Vec<_> = self.workers.iter().filter(|(_, worker)| worker.is_active()).map(|(&id, _)| id).collect();
        active.into_iter().for_each(|id| self.replace(id, modules));
    }

    /// Replaces the workers in which a generation answers that must not.
    pub(super) fn replace_those_with(&mut self, module: &str, generation: u64, modules: &Modules) {
        let answers = |worker: &Worker| worker.answering.get(module).map(|build| build.generation);
        let has = |worker: &Worker| worker.is_active() && answers(worker) == Some(generation);
        let those: Vec<_> = self.workers.iter().filter(|(_, worker)| has(worker)).map(|(&id, _)| id).collect();
        those.into_iter().for_each(|id| self.replace(id, modules));
    }

    /// Replaces a worker.
    pub(super) fn replace(&mut self, id: WorkerId, modules: &Modules) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.phase {
            // It serves nobody yet: another one boots in its place, with the builds of now.
            Phase::Booting => {
                let replaces = worker.replaces.take();
                worker.leave_now();
                self.hire_or_retry(replaces, modules);
            }
            Phase::Opening | Phase::Serving => {
                // A replacement that boots already loads what comes meanwhile, unless it has to be replaced itself.
                if !self.has_successor(id) {
                    self.hire_or_retry(Some(id), modules);
                }
            }
            Phase::Draining { .. } | Phase::Stopping | Phase::Leaving => {}
        }
    }

    fn hire_or_retry(&mut self, replaces: Option<WorkerId>, modules: &Modules) {
        let Err(error) = self.hire(replaces, modules) else { return self.failed_hires = 0 };
        let pause = back_off(self.failed_hires);
        self.failed_hires += 1;
        tracing::error!("cannot start a worker: {error:#}; trying again in {} ms", pause.as_millis());
        self.vacancies.push((Instant::now() + pause, replaces));
    }

    /// Whether somebody is on the way who will replace this worker.
    fn has_successor(&self, id: WorkerId) -> bool {
        let of_workers = self.workers.values().map(|worker| worker.replaces);
        of_workers.chain(self.vacancies.iter().map(|(_, replaces)| *replaces)).any(|replaces| replaces == Some(id))
    }

    /// A worker accepts connections: the one that it replaces passes its own on.
    pub(super) fn serving(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.phase != Phase::Opening {
            return;
        }
        worker.phase = Phase::Serving;
        worker.deadline = None;
        for (state, descriptors) in self.stranded.drain(..) {
            worker.order(Order::Adopt(state), descriptors);
        }
        // One that is replaced before it could say that it serves leaves the one that it was to replace.
        let mut replaced = worker.replaces.take();
        while let Some(old) = replaced.and_then(|old| self.workers.get_mut(&old)) {
            replaced = old.replaces.take();
            old.drain(self.config.timeouts.stop);
        }
    }

    /// A worker has said that it cannot serve: it ends, and another may do better.
    pub(super) fn failed(&mut self, id: WorkerId, reason: &str) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        tracing::error!("worker {} cannot serve: {reason}", worker.pid());
        worker.failed = true;
        worker.process.kill();
    }

    /// Whether as many serve as are wanted.
    pub(super) fn all_serve(&self) -> bool {
        self.workers.values().filter(|worker| worker.phase == Phase::Serving).count() >= self.workers_wanted
    }

    /// Passes a connection on to the supervisor that takes over, or to the newest worker that serves; when all stop, to one
    /// that still answers what it has.
    pub(super) fn pass_on(&mut self, from: WorkerId, state: HandoverState, descriptors: Vec<OwnedFd>) {
        if let Some(heir) = &self.heir {
            // Its end is an event of its own.
            _ = heir.send((ToHeir::Adopt(state), descriptors));
            return;
        }
        let in_phase = |phase| {
            let mut workers = self.workers.iter().rev().filter(move |(_, worker)| worker.phase == phase);
            workers.find(|(id, _)| **id != from).map(|(_, worker)| worker)
        };
        match in_phase(Phase::Serving).or_else(|| in_phase(Phase::Stopping)) {
            Some(worker) => worker.order(Order::Adopt(state), descriptors),
            None => self.stranded.push((state, descriptors)),
        }
    }

    /// No request begins in a worker any more.
    pub(super) fn quiet(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id)
            && let Phase::Draining { quiet } = &mut worker.phase
        {
            *quiet = true;
        }
    }

    /// A worker has no connection left.
    pub(super) fn dismiss(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.leave();
        }
    }

    /// Whether every request that begins anywhere is answered by this build, or one that came after it.
    pub(super) fn all_answer_with(&self, build: &Kept) -> bool {
        let mut anyone = false;
        let all = self.workers.values().all(|worker| match worker.phase {
            Phase::Opening | Phase::Serving => {
                anyone |= worker.phase == Phase::Serving;
                worker.answering.get(&build.module).is_some_and(|now| now.is_at_least(build))
            }
            Phase::Draining { quiet } => quiet,
            Phase::Booting | Phase::Stopping | Phase::Leaving => true,
        });
        all && anyone
    }

    /// Graceful stop.
    pub(super) fn stop(&mut self, patience: Duration) {
        self.vacancies.clear();
        // Nobody shall wait in a queue that is not served any more.
        self.close_listeners();
        for worker in self.workers.values_mut() {
            match worker.phase {
                Phase::Booting => worker.leave_now(),
                Phase::Opening | Phase::Serving | Phase::Draining { .. } => {
                    worker.phase = Phase::Stopping;
                    worker.deadline = Some(Instant::now() + patience);
                    worker.order(Order::Stop, Vec::new());
                }
                Phase::Stopping | Phase::Leaving => {}
            }
        }
    }

    /// Fast stop; asked for again, at once.
    pub(super) fn end_now(&mut self) {
        self.vacancies.clear();
        self.close_listeners();
        for worker in self.workers.values_mut() {
            if worker.phase == Phase::Leaving { worker.leave_now() } else { worker.leave() }
        }
    }

    /// Forgets a worker that has ended.
    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        self.workers.remove(&id)
    }

    /// Hires another in the place of one that died: at once, unless they die one after the other and nobody knows why.
    pub(super) fn rehire(&mut self, id: WorkerId, dead: &Worker, is_explained: bool, modules: &Modules) {
        let replaces = dead.replaces.filter(|old| self.workers.contains_key(old));
        if self.has_successor(id) {
            // Another is on the way already, and takes over what this one was to do.
            let of_workers = self.workers.values_mut().map(|worker| &mut worker.replaces);
            let successors = of_workers.chain(self.vacancies.iter_mut().map(|(_, replaces)| replaces));
            successors.filter(|successor| **successor == Some(id)).for_each(|successor| *successor = replaces);
            return;
        }
        if is_explained {
            return self.hire_or_retry(replaces, modules);
        }
        self.early_deaths = if dead.hired.elapsed() > EARLY { 0 } else { self.early_deaths + 1 };
        if self.early_deaths <= 1 {
            return self.hire_or_retry(replaces, modules);
        }
        let pause = back_off(self.early_deaths - 2);
        tracing::warn!("workers die one after the other; the next one starts in {} ms", pause.as_millis());
        self.vacancies.push((Instant::now() + pause, replaces));
    }

    /// When [`act_on_deadlines`](Self::act_on_deadlines) has to be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let of_workers = self.workers.values().filter_map(Worker::next_deadline);
        of_workers.chain(self.vacancies.iter().map(|(due, _)| *due)).min()
    }

    /// Ends those who are late, and fills vacancies. Gives the builds that do not finish loading, with whom they hold up.
    pub(super) fn act_on_deadlines(&mut self, modules: &Modules, stopping: bool) -> Vec<(WorkerId, String, u64)> {
        let now = Instant::now();
        let mut stuck = Vec::new();
        for (&id, worker) in &mut self.workers {
            if worker.loading_deadline().is_some_and(|deadline| deadline <= now)
                && let Some(build) = worker.loading.pop_front()
            {
                // Nothing that comes after can be loaded there.
                worker.loading.clear();
                stuck.push((id, build.module.clone(), build.generation));
            }
            if worker.deadline.is_some_and(|deadline| deadline <= now) {
                match worker.phase {
                    // It says how many connections it still had, and ends.
                    Phase::Draining { .. } | Phase::Stopping => worker.leave(),
                    Phase::Booting | Phase::Opening | Phase::Serving => {
                        tracing::error!("worker {} did not begin to serve in time; ending it", worker.pid());
                        worker.deadline = None;
                        worker.process.kill();
                    }
                    Phase::Leaving => worker.leave_now(),
                }
            }
        }
        if stopping {
            return Vec::new();
        }
        let due: Vec<_> = self.vacancies.extract_if(.., |(due, _)| *due <= now).collect();
        due.into_iter().for_each(|(_, replaces)| self.hire_or_retry(replaces, modules));
        stuck
    }

    /// Where the listeners listen.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(|listener| &listener.address)
    }

    /// All of them, oldest first.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// Whether there is no worker.
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    fn active(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.workers.values_mut().filter(|worker| worker.is_active() && !worker.tainted)
    }
}

impl Worker {
    /// Its process id, for the log.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// When it was started.
    pub(super) fn hired(&self) -> Instant {
        self.hired
    }

    /// Whether a module has crashed in it.
    pub(super) fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// How it ended, as the end of a sentence about it.
    pub(super) fn describe_end(&self, status: &std::io::Result<ExitStatus>) -> String {
        let over = startup::was_killed(status).then(|| self.memory.was_used_up()).flatten();
        over.unwrap_or_else(|| startup::describe_end(status))
    }

    /// The calls that were under way when it died.
    pub(super) fn last_calls(&self) -> Vec<LastCall> {
        recorder::last_calls(self.recorder.as_fd()).unwrap_or_else(|error| {
            tracing::warn!("cannot read what worker {} was calling: {error}", self.pid());
            Vec::new()
        })
    }

    /// The build that it is loading, if any.
    pub(super) fn loading(&self) -> Option<(&str, u64)> {
        self.loading.front().map(|build| (build.module.as_str(), build.generation))
    }

    /// Whether its end is nothing to speak of.
    pub(super) fn is_expected_to_end(&self) -> bool {
        self.phase == Phase::Leaving || self.failed
    }

    /// Whether it serves, or will.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Booting | Phase::Opening | Phase::Serving)
    }

    fn order(&self, order: Order, descriptors: Vec<OwnedFd>) {
        // Its end is an event of its own.
        _ = self.orders.send((order, descriptors));
    }

    fn load(&mut self, build: &Arc<Kept>, config: &Config) {
        if self.loading.is_empty() {
            self.loading_since = Instant::now();
        }
        self.loading.push_back(Arc::clone(build));
        self.builds.push(Arc::clone(build));
        let exported = |symbol: &String| build.report.symbols.contains(symbol);
        let loadable = Loadable {
            module: build.module.clone(),
            generation: build.generation,
            copy: build.copy.clone(),
            applications: config.symbols_of(&build.module).into_iter().filter(exported).collect(),
            described: build.report.described,
        };
        if build.report.keeps_state {
            self.seat.await_state(&build.module);
        }
        self.order(Order::Load(loadable), Vec::new());
    }

    fn leave(&mut self) {
        self.phase = Phase::Leaving;
        self.deadline = Some(Instant::now() + LEAVE_TIMEOUT);
        self.order(Order::Exit, Vec::new());
    }

    fn leave_now(&mut self) {
        self.phase = Phase::Leaving;
        self.deadline = None;
        self.process.kill();
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.loading_deadline()).min()
    }

    fn loading_deadline(&self) -> Option<Instant> {
        (self.started && self.is_active() && !self.loading.is_empty()).then(|| self.loading_since + LOAD_TIMEOUT)
    }
}

/// How long to wait when so many attempts have come to nothing before.
fn back_off(failures: u32) -> Duration {
    BACK_OFF_MIN.saturating_mul(1 << failures.min(16)).min(BACK_OFF_MAX)
}

/// Starts a worker process, with a thread that sends it orders, one that receives its reports, and one that waits for
/// its end. The threads come first: without them a process would be nobody's, and stay a zombie.
fn spawn(id: WorkerId, events: mpsc::Sender<Event>) -> anyhow::Result<(Child, mpsc::Sender<Outgoing>)> {
    let (ours, theirs) = Channel::pair().context("cannot open a control channel")?;
    let (orders, to_send) = mpsc::channel::<Outgoing>();
    let sending = ours.try_clone()?;
    let send = move || {
        for (order, descriptors) in to_send {
            if control::send(&sending, &order, &descriptors).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name(format!("orders {id}")).spawn(send)?;
    let (receiving, reports) = (ours.try_clone()?, events.clone());
    let receive = move || {
        loop {
            match control::receive(&receiving) {
                Ok(Some((report, descriptors))) => {
                    if reports.send(Event::Report(id, report, descriptors)).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => tracing::error!("worker: {error:#}"),
            }
        }
    };
    let receiver = thread::Builder::new().name(format!("reports {id}")).spawn(receive)?;
    let (born, to_reap) = mpsc::channel::<Reaper>();
    let wait = move || {
        let Ok(reaper) = to_reap.recv() else { return };
        let status = reaper.wait();
        // A process that a handler forked may hold the other end open; what the worker itself has said is in the queue.
        ours.shut_down();
        _ = receiver.join();
        // Nobody receives any more when the supervisor ends.
        _ = events.send(Event::Ended(id, status));
    };
    thread::Builder::new().name(format!("reaper {id}")).spawn(wait)?;
    let (process, reaper) = Child::spawn_self("host: worker", theirs.into_fd()).context("cannot start a worker")?;
    // It waits for nothing else.
    _ = born.send(reaper);
    Ok((process, orders))
}

/// From its start to serving.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// For the constructor and `init` of one build.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// For the `stop` functions of its modules, and a little more.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A worker that dies younger than this may have a reason that the next one has too.
const EARLY: Duration = Duration::from_secs(10);
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
