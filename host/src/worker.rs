//! A worker process: it loads modules and serves. It does what its supervisor says, and ends when that is gone.
//!
//! The main thread takes orders, one loads modules on it; reports go out on a thread of their own, because loops make
//! them and must not block.

use crate::config::Config;
use crate::control::{self, Order, Report};
use crate::handler::{self, Registry, Retired};
use crate::log::{self, Role};
use crate::route::Router;
use crate::server::{Notice, Server, Settings};
use crate::site::Site;
use crate::sys::channel::Channel;
use crate::sys::process;
use crate::sys::socket::Address;
use anyhow::{Context, bail};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
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
    let channel = Channel::from_fd(process::take_stdin().context("the supervisor's channel is not standard input")?);
    let Some((Order::Start { config, listeners, spool }, sockets)) = control::receive(&channel)? else {
        bail!("the supervisor did not begin with Start");
    };
    log::start(config.log_format, Role::Worker)?;
    let reports = send_reports(channel.try_clone()?)?;
    let mut worker = Worker::new(Arc::new(*config), listeners.into_iter().zip(sockets), spool, reports)?;
    // The end of the channel is the end of the supervisor.
    while let Some((order, descriptors)) = control::receive(&channel)? {
        match order {
            Order::Start { .. } => bail!("the supervisor said Start twice"),
            Order::Load { module, generation, copy } => {
                let error = worker.registry.load(&module, generation, &copy).err();
                worker.report(Report::Loaded { module, generation, error });
            }
            Order::Announce { module } => worker.registry.announce(&module),
            Order::Remove { module } => worker.registry.remove(&module),
            Order::Serve => match worker.serve() {
                Ok(()) => worker.report(Report::Serving),
                Err(error) => worker.report(Report::Failed(format!("{error:#}"))),
            },
            Order::Adopt(state) => worker.server()?.adopt(control::handover((state, descriptors))),
            Order::Drain => worker.server()?.drain(),
            Order::Stop => worker.server()?.stop(),
            Order::Exit => {
                worker.retire();
                return Ok(());
            }
        }
    }
    Ok(())
}

struct Worker {
    config: Arc<Config>,
    registry: Arc<Registry>,
    retired: mpsc::Sender<Retired>,
    reports: mpsc::Sender<Outgoing>,
    /// What serving takes; none once it serves.
    prepared: Option<(Vec<(OwnedFd, Arc<Address>)>, Option<Site>, PathBuf)>,
    server: Option<Server>,
}

type Outgoing = (Report, Vec<OwnedFd>);

impl Worker {
    fn new(
        config: Arc<Config>,
        listeners: impl Iterator<Item = (Address, OwnedFd)>,
        spool: PathBuf,
        reports: mpsc::Sender<Outgoing>,
    ) -> anyhow::Result<Worker> {
        let (retired, to_retire) = mpsc::channel();
        thread::Builder::new().name("retire".to_owned()).spawn(move || handler::retire(&to_retire))?;
        let site = config.html.as_deref().map(Site::open).transpose()?;
        let listeners = listeners.map(|(address, socket)| (socket, Arc::new(address))).collect();
        Ok(Worker {
            registry: Arc::new(Registry::new(Arc::clone(&config), retired.clone())),
            config,
            retired,
            reports,
            prepared: Some((listeners, site, spool)),
            server: None,
        })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let (listeners, site, spool) = self.prepared.take().context("the supervisor said Serve twice")?;
        let reports = self.reports.clone();
        let notice = move |notice| {
            let outgoing = match notice {
                Notice::Handover(handover) => (Report::Handover(handover.state), handover.descriptors),
                Notice::Quiet => (Report::Quiet, Vec::new()),
                Notice::Done => (Report::Done, Vec::new()),
            };
            // The receiver ends only with the process.
            _ = reports.send(outgoing);
        };
        let settings = Settings {
            router: Router::new(&self.config, site, Arc::clone(&self.registry)),
            config: Arc::clone(&self.config),
            listeners,
            spool,
            notice: Box::new(notice),
        };
        self.server = Some(Server::start(settings).context("cannot start the event loops")?);
        Ok(())
    }

    fn server(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("the supervisor gave an order for a server before Serve")
    }

    fn report(&self, report: Report) {
        // The receiver ends only with the process.
        _ = self.reports.send((report, Vec::new()));
    }

    /// Calls every `stop` that is due, and waits for them, but not for ever.
    fn retire(&self) {
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
