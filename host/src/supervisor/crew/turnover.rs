//! What concerns all workers at once: another configuration, another number of them, another supervisor.

use super::{Crew, Phase, Worker, WorkerId};
use crate::config::Config;
use crate::control::Order;
use crate::supervisor::listeners::{self, Listener};
use crate::supervisor::rollout::Modules;
use crate::supervisor::upgrade::ToHeir;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// What is under way until the workers of before serve no more.
#[derive(Default)]
pub(super) struct Turnover {
    /// Workers below this number were hired under the configuration before.
    hired_before: WorkerId,
    /// Listeners that are to be closed then.
    retired: Vec<Listener>,
    /// Since when a reload waits to be called complete.
    reload_since: Option<Instant>,
    /// The number of workers was changed by hand, and people want to know when they serve.
    resized: bool,
}

impl Crew {
    /// Goes over to another configuration: every worker is replaced. `opened`: the listeners that are new in it. Its access
    /// log has been [set](Self::set_access_log).
    pub(in crate::supervisor) fn reconfigure(&mut self, config: Arc<Config>, opened: Vec<Listener>, modules: &Modules) {
        self.workers_wanted = config.workers;
        let retired = std::mem::take(&mut self.turnover.retired);
        let pool = std::mem::take(&mut self.listeners).into_iter().chain(retired).chain(opened).collect();
        let (listeners, retired) = listeners::pick(&config.bind, pool);
        self.listeners = listeners;
        self.config = config;
        self.turnover =
            Turnover { hired_before: self.next_id, retired, reload_since: Some(Instant::now()), resized: false };
        self.replace_all(modules);
    }

    /// Gives this to workers that are hired from now on.
    pub(in crate::supervisor) fn set_access_log(&mut self, opened: Option<OwnedFd>) {
        self.access_log = opened;
    }

    /// Has all workers write their access log there from now on. Those that end under a configuration with another one
    /// keep to that.
    ///
    /// # Errors
    /// There are no more descriptors: then nothing has changed.
    pub(in crate::supervisor) fn change_access_log(&mut self, opened: Option<OwnedFd>) -> anyhow::Result<()> {
        let log = |config: &Config| (config.access_log.clone(), config.access_log_format);
        let same = self.workers.values().filter(|worker| log(&worker.config) == log(&self.config));
        let mut orders = Vec::new();
        for (worker, opened) in same.flat_map(|worker| opened.iter().map(move |opened| (worker, opened))) {
            orders.push((worker, opened.try_clone()?));
        }
        orders.into_iter().for_each(|(worker, opened)| worker.order(Order::OpenAccessLog, vec![opened]));
        self.access_log = opened;
        Ok(())
    }

    /// All listeners that are open, those included that will be closed.
    pub(in crate::supervisor) fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().chain(&self.turnover.retired)
    }

    /// The files of Unix sockets are removed by this process, or not any more.
    pub(in crate::supervisor) fn own_files(&mut self, ours: bool) {
        self.listeners.iter_mut().chain(&mut self.turnover.retired).for_each(|listener| listener.own_file(ours));
    }

    /// Wants so many workers more, or fewer. Gives how many it wants then; `None` if it cannot be more, or fewer.
    pub(in crate::supervisor) fn resize(&mut self, by: isize, workers_max: usize) -> Option<usize> {
        let wanted = self.workers_wanted.checked_add_signed(by).filter(|wanted| (1..=workers_max).contains(wanted))?;
        self.workers_wanted = wanted;
        self.turnover.resized = true;
        Some(wanted)
    }

    /// Goes on with what could not be done at once. To be called after each event while the server does not stop.
    pub(in crate::supervisor) fn settle(&mut self, modules: &Modules) {
        self.hire_or_drain(modules);
        if self.turnover.resized && self.is_settled() {
            self.turnover.resized = false;
            tracing::info!("{} serve", workers(self.workers_wanted));
        }
        if (self.turnover.reload_since.is_some() || !self.turnover.retired.is_empty()) && self.none_accepts_of_before()
        {
            for listener in std::mem::take(&mut self.turnover.retired) {
                listener.close(|handover| self.pass_on(NOBODY, handover.state, handover.descriptors));
            }
            if let Some(since) = self.turnover.reload_since.take() {
                tracing::info!("reloaded everything in {} ms", since.elapsed().as_millis());
            }
        }
    }

    /// Leaves everything to another supervisor: new connections at once, those that are open as soon as nothing of them is
    /// under way. Workers that do not get done are ended.
    pub(in crate::supervisor) fn hand_over(&mut self, to: mpsc::Sender<(ToHeir, Vec<OwnedFd>)>, patience: Duration) {
        self.vacancies.clear();
        self.close_listeners();
        for (state, descriptors) in self.stranded.drain(..) {
            // Its end is an event of its own.
            _ = to.send((ToHeir::Adopt(state), descriptors));
        }
        self.heir = Some(to);
        for worker in self.workers.values_mut() {
            match worker.phase {
                Phase::Booting => worker.leave_now(),
                Phase::Opening | Phase::Serving => worker.drain(patience),
                Phase::Draining { .. } | Phase::Stopping | Phase::Leaving => {}
            }
        }
    }

    /// Tells the supervisor that everything is left to.
    pub(in crate::supervisor) fn tell_heir(&self, message: ToHeir, descriptors: Vec<OwnedFd>) {
        if let Some(heir) = &self.heir {
            // Its end is an event of its own.
            _ = heir.send((message, descriptors));
        }
    }

    /// No connection is passed on to another supervisor any more.
    pub(in crate::supervisor) fn disinherit(&mut self) {
        self.heir = None;
    }

    /// Nobody can connect any more.
    pub(super) fn close_listeners(&mut self) {
        self.listeners.clear();
        self.turnover.retired.clear();
    }

    /// One step towards the number of workers that is wanted, if it can be done without loss now.
    fn hire_or_drain(&mut self, modules: &Modules) {
        loop {
            let heads = self.workers.iter().filter(|(id, worker)| worker.is_active() && !self.has_successor(**id));
            let heads: Vec<_> = heads.map(|(&id, worker)| (id, worker.phase, worker.replaces)).collect();
            let seats = heads.len() + self.vacancies.len();
            if seats < self.workers_wanted {
                self.hire_or_retry(None, modules);
                continue;
            }
            if seats == self.workers_wanted {
                return;
            }
            if let Some(at) = self.vacancies.iter().position(|(_, replaces)| replaces.is_none()) {
                self.vacancies.swap_remove(at);
                continue;
            }
            // The youngest first: it serves nobody yet, or has the least to pass on.
            let booting =
                heads.iter().rev().find(|(_, phase, replaces)| *phase == Phase::Booting && replaces.is_none());
            if let Some((id, ..)) = booting {
                self.workers.get_mut(id).into_iter().for_each(Worker::leave_now);
                continue;
            }
            // Another must be there to take its connections.
            let serving: Vec<_> = heads.iter().filter(|(_, phase, _)| *phase == Phase::Serving).collect();
            let [_, .., (id, ..)] = serving[..] else { return };
            let patience = self.config.timeouts.stop;
            self.workers.get_mut(id).into_iter().for_each(|worker| worker.drain(patience));
        }
    }

    /// Whether there are as many workers as are wanted, and no others.
    fn is_settled(&self) -> bool {
        let expected = |worker: &Worker| matches!(worker.phase, Phase::Serving | Phase::Leaving);
        self.all_serve() && self.workers.values().all(expected)
    }

    fn none_accepts_of_before(&self) -> bool {
        self.workers.range(..self.turnover.hired_before).all(|(_, worker)| match worker.phase {
            Phase::Draining { quiet } => quiet,
            Phase::Stopping | Phase::Leaving => true,
            Phase::Booting | Phase::Opening | Phase::Serving => false,
        })
    }
}

impl Worker {
    /// Has it pass its connections on.
    pub(super) fn drain(&mut self, patience: Duration) {
        self.phase = Phase::Draining { quiet: false };
        self.deadline = Some(Instant::now() + patience);
        self.order(Order::Drain, Vec::new());
    }
}

/// `1 worker`, `3 workers`.
pub(in crate::supervisor) fn workers(count: usize) -> String {
    format!("{count} worker{}", if count == 1 { "" } else { "s" })
}

/// No worker has this number.
pub(in crate::supervisor) const NOBODY: WorkerId = 0;
