//! A worker process: it loads modules and serves. It does what its supervisor says, and ends when that is gone.
//!
//! The main thread takes orders. What may run a module's code, constructors and `init`, is done by a thread of its own,
//! so that a module that hangs there does not keep the others' connections from being drained. Reports go out on a
//! third thread where loops make them, which must not block.

use crate::config::{Config, values};
use crate::control::{self, Order, Report, State};
use crate::handler::{self, Errand, News, Registry, Retired, Saved, What};
use crate::log::{self, Role};
use crate::route::Router;
use crate::server::{AccessLog, Ending, Incident, Notice, Server, Settings};
use crate::site::{Site, Uploads};
use crate::sys::channel::{self, Channel};
use crate::sys::crash;
use crate::sys::memory;
use crate::sys::process;
use crate::sys::recorder;
use crate::sys::socket::Address;
use anyhow::{Context, bail};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

/// The worker's life. Its standard input is the channel to the supervisor.
pub fn main() -> ! {
    let code = match take_orders() {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    };
    // Never exit(3): a destructor of a module could hang or crash, or wait for a lock that a thread still holds.
    process::exit_now(code)
}

fn take_orders() -> anyhow::Result<()> {
    process::name_thread(c"host: worker");
    process::leave_signals_to_parent().context("cannot catch signals")?;
    // Before any code of a module runs.
    crash::contain().context("cannot catch faults")?;
    let channel = Channel::from_fd(process::take_stdin().context("the supervisor's channel is not standard input")?);
    let Some((Order::Start { config, listeners, spool, memory_bytes_max }, mut sockets)) = control::receive(&channel)?
    else {
        bail!("the supervisor did not begin with Start");
    };
    let access_log = match config.access_log {
        Some(_) => Some(sockets.pop().context("the supervisor gave no access log")?),
        None => None,
    };
    recorder::install(sockets.pop().context("the supervisor gave no flight recorder")?)
        .context("cannot map the flight recorder")?;
    log::start(config.log_format, Role::Worker)?;
    let worker = Worker::new(Arc::new(*config), access_log, &channel)?;
    worker.report(Report::Started);
    let site = worker.config.html.as_deref().map(Site::open).transpose()?.map(|site| {
        site.with_listing(worker.config.listing)
            .with_cache_control(worker.config.cache_control.clone())
            // What is stored for a moment lies where the private copies do.
            .with_uploads(Uploads::new(&worker.config, &spool))
    });
    let listeners = listeners.into_iter().zip(sockets).map(|(address, socket)| (socket, Arc::new(address))).collect();
    let prepared = Prepared { listeners, site, spool };
    if let Some(bytes) = memory_bytes_max {
        memory::bound(bytes).context("cannot bound this process's memory")?;
    }
    let (to_loader, loads) = mpsc::channel();
    let loader = worker.clone();
    thread::Builder::new().name("loader".to_owned()).spawn(move || loader.load(loads, prepared))?;
    // The end of the channel is the end of the supervisor.
    loop {
        let (order, descriptors) = match control::receive(&channel) {
            Ok(Some(received)) => received,
            Ok(None) => {
                worker.end_access_log().into_iter().for_each(Ending::wait);
                return Ok(());
            }
            // A connection that finds no room here is lost; that is no reason to lose the others.
            Err(error) if control::is_lost_message(&error) => {
                tracing::error!("{error:#}");
                continue;
            }
            Err(error) => return Err(error),
        };
        match order {
            Order::Start { .. } => bail!("the supervisor said Start twice"),
            Order::Load(_) | Order::Restore { .. } | Order::Announce { .. } | Order::Remove { .. } | Order::Serve => {
                // The loader ends only with the process.
                _ = to_loader.send((order, descriptors));
            }
            Order::Adopt(state) => worker.server().adopt(control::handover((state, descriptors))),
            Order::OpenAccessLog => {
                if let Some((log, opened)) = worker.access_log.as_ref().zip(descriptors.into_iter().next()) {
                    log.reopen(opened).context("cannot use the access log that was opened")?;
                }
            }
            Order::Drain => {
                worker.draining.store(true, Ordering::Relaxed);
                worker.server().drain();
            }
            Order::Stop => worker.server().stop(),
            Order::Exit => {
                let ending = worker.end_access_log();
                worker.retire();
                ending.into_iter().for_each(Ending::wait);
                return Ok(());
            }
        }
    }
}

/// What the threads of a worker share.
#[derive(Clone)]
struct Worker {
    config: Arc<Config>,
    access_log: Option<Arc<AccessLog>>,
    registry: Arc<Registry>,
    retired: mpsc::Sender<Retired>,
    channel: Arc<Channel>,
    /// For those who must not wait for the channel.
    reports: mpsc::Sender<Outgoing>,
    /// Set by the loader when it is told to serve.
    server: Arc<OnceLock<Server>>,
    /// It passes everything on to another worker.
    draining: Arc<AtomicBool>,
}

/// What serving takes besides.
struct Prepared {
    listeners: Vec<(OwnedFd, Arc<Address>)>,
    site: Option<Site>,
    spool: PathBuf,
}

type Outgoing = (Report, Vec<OwnedFd>);

impl Worker {
    fn new(config: Arc<Config>, access_log: Option<OwnedFd>, channel: &Channel) -> anyhow::Result<Worker> {
        let access_log = access_log.map(|opened| AccessLog::start(opened, config.access_log_format)).transpose()?;
        let reports = send_reports(channel.try_clone()?)?;
        let channel = Arc::new(channel.try_clone()?);
        let (retired, to_retire) = mpsc::channel();
        thread::Builder::new().name("retire".to_owned()).spawn(move || handler::retire(&to_retire))?;
        let (errands, to_run) = mpsc::channel();
        let registry = Arc::new(Registry::new(Arc::clone(&config), retired.clone(), errands));
        let (server, draining) = (Arc::default(), Arc::default());
        let worker = Worker { config, access_log, registry, retired, channel, reports, server, draining };
        let keeper = worker.clone();
        thread::Builder::new().name("keeper".to_owned()).spawn(move || keeper.keep(&to_run))?;
        Ok(worker)
    }

    /// Hands the state of modules on.
    fn keep(&self, errands: &mpsc::Receiver<Errand>) {
        let news = |News { module, generation, what }| {
            let (state, saved) = match what {
                What::Saved(saved) => (State::Saved, Some(saved)),
                What::Settled(saved) => (State::Settled, saved),
                What::Unusable => (State::Unusable, None),
                What::Crashed(fault, function) => {
                    let incident = Incident::of(&fault, format!("in its {function}"));
                    return self.report_later(Report::Crashed { crash: 0, incident }, Vec::new());
                }
                What::Hung(suspect, function) => {
                    let incident = Incident::of_hang(suspect, function);
                    return self.report_later(Report::Crashed { crash: 0, incident }, Vec::new());
                }
            };
            let file = saved.map(|saved| channel::memory_file(saved.bytes())).transpose();
            let descriptors = file.unwrap_or_else(|error| {
                tracing::error!("the state of {module} generation {generation} is not kept: {error}");
                None
            });
            self.report_later(Report::State { module, generation, state }, descriptors.into_iter().collect());
        };
        handler::keep(&self.registry, errands, news, || self.server.get().is_some_and(Server::is_busy));
    }

    /// Does what may run a module's code, one order after the other.
    fn load(&self, orders: mpsc::Receiver<(Order, Vec<OwnedFd>)>, prepared: Prepared) {
        let mut prepared = Some(prepared);
        for (order, mut descriptors) in orders {
            match order {
                Order::Load(build) => {
                    let not_taken = self.registry.load(&build).err();
                    let fault = not_taken.as_ref().and_then(|not_taken| not_taken.fault);
                    let error = not_taken.map(|not_taken| not_taken.reason);
                    self.report(Report::Loaded { module: build.module, generation: build.generation, error });
                    // After that, so that the worker that replaces this one does not load it.
                    if let Some(fault) = fault {
                        let incident = Incident::of(&fault, "in its restore".to_owned());
                        self.report(Report::Crashed { crash: 0, incident });
                    }
                }
                Order::Restore { module } => {
                    let bytes = descriptors.pop().map(channel::read_memory_file).transpose();
                    let bytes = bytes.unwrap_or_else(|error| {
                        tracing::error!("{module} begins anew: its state cannot be read: {error}");
                        None
                    });
                    self.registry.restore(module, bytes.map(Saved::new));
                }
                Order::Announce { module } => self.registry.announce(&module),
                Order::Remove { module } => self.registry.remove(&module),
                Order::Serve => {
                    let Some(prepared) = prepared.take() else { continue };
                    match self.serve(prepared) {
                        Ok(()) => self.report(Report::Serving),
                        Err(error) => self.report(Report::Failed(format!("{error:#}"))),
                    }
                }
                _ => {}
            }
        }
    }

    fn serve(&self, Prepared { listeners, site, spool }: Prepared) -> anyhow::Result<()> {
        let worker = self.clone();
        let crashes = AtomicU64::new(0);
        let notice = move |notice| match notice {
            Notice::Handover(handover) => worker.report_later(Report::Handover(handover.state), handover.descriptors),
            Notice::Crashed(incident, excerpt) => {
                worker.registry.taint();
                let crash = crashes.fetch_add(1, Ordering::Relaxed) + 1;
                // Without it the crash is told all the same.
                if let Some((report, descriptors)) = excerpt.and_then(|excerpt| excerpt.report(crash)) {
                    worker.report_later(report, descriptors);
                }
                worker.report_later(Report::Crashed { crash, incident }, Vec::new());
            }
            Notice::Quiet => {
                if worker.draining.load(Ordering::Relaxed) {
                    worker.registry.settle();
                }
                worker.report_later(Report::Quiet, Vec::new());
            }
            Notice::Done if worker.draining.load(Ordering::Relaxed) => {
                // This ends the process, which must not be before the states have been handed on.
                let own = worker.clone();
                worker.registry.when_settled(move || own.report_later(Report::Done, Vec::new()));
            }
            Notice::Done => worker.report_later(Report::Done, Vec::new()),
            Notice::Busy => worker.registry.stir(),
        };
        let settings = Settings {
            router: Router::new(&self.config, site, Arc::clone(&self.registry)),
            config: Arc::clone(&self.config),
            spool,
            access_log: self.access_log.clone(),
            notice: Box::new(notice),
        };
        let server = Server::start(settings, listeners).with_context(|| match self.config.limits.memory_bytes_max {
            Some(bytes) => format!("cannot start the event loops with --limit-memory {}", values::size(bytes)),
            None => "cannot start the event loops".to_owned(),
        })?;
        _ = self.server.set(server);
        Ok(())
    }

    /// The server: orders for it come after `Serve`, which the loader may still be at. If it fails there, the
    /// supervisor, who is told, ends this process.
    fn server(&self) -> &Server {
        self.server.wait()
    }

    /// Reports, and returns when that is under way: what comes next may end the process, and the supervisor must know
    /// how far it had come.
    fn report(&self, report: Report) {
        // Without a supervisor the main thread ends the process.
        _ = control::send(&self.channel, &report, &[]);
    }

    /// Reports, and does not wait for that.
    fn report_later(&self, report: Report, descriptors: Vec<OwnedFd>) {
        // The receiver ends only with the process.
        _ = self.reports.send((report, descriptors));
    }

    /// Has the last lines of the access log written, beside what else is done at the end.
    fn end_access_log(&self) -> Option<Ending> {
        let log = self.access_log.as_ref()?;
        // Loops that were told to leave have given away all that they have.
        self.server.get().into_iter().for_each(Server::pass_lines);
        Some(log.end())
    }

    /// Calls every `stop` that is due, and waits for them, but not for ever.
    fn retire(&self) {
        let busy = self.server.get().map_or(0, Server::connections);
        if busy > 0 {
            tracing::warn!("ended {busy} connections that were still busy");
        }
        self.registry.clear();
        let (done, all_done) = mpsc::channel();
        _ = self.retired.send(Retired::barrier(done));
        if all_done.recv_timeout(STOP_PATIENCE).is_err() {
            tracing::warn!("a module's stop did not return in {} s", STOP_PATIENCE.as_secs());
        }
    }
}

fn send_reports(channel: Channel) -> anyhow::Result<mpsc::Sender<Outgoing>> {
    let (reports, outgoing) = mpsc::channel::<Outgoing>();
    let send = move || {
        for (report, descriptors) in outgoing {
            // Without a supervisor the main thread ends the process.
            if control::send(&channel, &report, &descriptors).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("reports".to_owned()).spawn(send)?;
    Ok(reports)
}

/// How long modules' `stop` functions may take together at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
