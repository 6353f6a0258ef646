//! A worker process: it loads modules and serves. It does what its supervisor says, and ends when that is gone.
//!
//! The main thread takes orders. What may run a module's code, constructors and `init`, is done by a thread of its own,
//! so that a module that hangs there does not keep the others' connections from being drained. Reports go out on a
//! third thread where loops make them, which must not block.

use crate::config::{Config, values};
use crate::control::{self, Order, Report};
use crate::handler::{self, Registry, Retired};
use crate::log::{self, Role};
use crate::route::Router;
use crate::server::{Notice, Server, Settings};
use crate::site::Site;
use crate::sys::channel::Channel;
use crate::sys::crash;
use crate::sys::memory;
use crate::sys::process;
use crate::sys::recorder;
use crate::sys::socket::Address;
use anyhow::{Context, bail};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
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
    recorder::install(sockets.pop().context("the supervisor gave no flight recorder")?)
        .context("cannot map the flight recorder")?;
    log::start(config.log_format, Role::Worker)?;
    let worker = Worker::new(Arc::new(*config), &channel)?;
    worker.report(Report::Started);
    let site = worker.config.html.as_deref().map(Site::open).transpose()?;
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
            Ok(None) => return Ok(()),
            // A connection that finds no room here is lost; that is no reason to lose the others.
            Err(error) if control::is_lost_message(&error) => {
                tracing::error!("{error:#}");
                continue;
            }
            Err(error) => return Err(error),
        };
        match order {
            Order::Start { .. } => bail!("the supervisor said Start twice"),
            Order::Load(_) | Order::Announce { .. } | Order::Remove { .. } | Order::Serve => {
                // The loader ends only with the process.
                _ = to_loader.send(order);
            }
            Order::Adopt(state) => worker.server().adopt(control::handover((state, descriptors))),
            Order::Drain => worker.server().drain(),
            Order::Stop => worker.server().stop(),
            Order::Exit => {
                worker.retire();
                return Ok(());
            }
        }
    }
}

/// What the threads of a worker share.
#[derive(Clone)]
struct Worker {
    config: Arc<Config>,
    registry: Arc<Registry>,
    retired: mpsc::Sender<Retired>,
    channel: Arc<Channel>,
    /// For those who must not wait for the channel.
    reports: mpsc::Sender<Outgoing>,
    /// Set by the loader when it is told to serve.
    server: Arc<OnceLock<Server>>,
}

/// What serving takes besides.
struct Prepared {
    listeners: Vec<(OwnedFd, Arc<Address>)>,
    site: Option<Site>,
    spool: PathBuf,
}

type Outgoing = (Report, Vec<OwnedFd>);

impl Worker {
    fn new(config: Arc<Config>, channel: &Channel) -> anyhow::Result<Worker> {
        let reports = send_reports(channel.try_clone()?)?;
        let channel = Arc::new(channel.try_clone()?);
        let (retired, to_retire) = mpsc::channel();
        thread::Builder::new().name("retire".to_owned()).spawn(move || handler::retire(&to_retire))?;
        let registry = Arc::new(Registry::new(Arc::clone(&config), retired.clone()));
        Ok(Worker { config, registry, retired, channel, reports, server: Arc::default() })
    }

    /// Does what may run a module's code, one order after the other.
    fn load(&self, orders: mpsc::Receiver<Order>, prepared: Prepared) {
        let mut prepared = Some(prepared);
        for order in orders {
            match order {
                Order::Load(build) => {
                    let error = self.registry.load(&build).err();
                    self.report(Report::Loaded { module: build.module, generation: build.generation, error });
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
        let reports = self.reports.clone();
        let crashes = AtomicU64::new(0);
        let notice = move |notice| {
            let outgoing = match notice {
                Notice::Handover(handover) => (Report::Handover(handover.state), handover.descriptors),
                Notice::Crashed(incident, excerpt) => {
                    let crash = crashes.fetch_add(1, Ordering::Relaxed);
                    // Without it the crash is told all the same.
                    if let Some(excerpt) = excerpt.and_then(|excerpt| excerpt.report(crash)) {
                        _ = reports.send(excerpt);
                    }
                    (Report::Crashed { crash, incident }, Vec::new())
                }
                Notice::Quiet => (Report::Quiet, Vec::new()),
                Notice::Done => (Report::Done, Vec::new()),
            };
            // The receiver ends only with the process.
            _ = reports.send(outgoing);
        };
        let settings = Settings {
            router: Router::new(&self.config, site, Arc::clone(&self.registry)),
            config: Arc::clone(&self.config),
            spool,
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
