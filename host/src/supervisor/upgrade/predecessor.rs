//! The predecessor, as its heir sees it: what it gives at the start, and what it passes on at the end.

use super::{FromHeir, PROTOCOL, ToHeir, VARIABLE};
use crate::config::Bind;
use crate::control;
use crate::supervisor::crew::turnover::NOBODY;
use crate::supervisor::listeners::{self, Listener, When};
use crate::supervisor::states::Place;
use crate::supervisor::{Event, Supervisor};
use crate::sys::channel::Channel;
use crate::sys::{manager, process};
use anyhow::{Context, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

/// The process that this one takes over from.
pub(in crate::supervisor) struct Predecessor {
    id: u32,
    channel: Channel,
    /// It has left everything to us.
    has_left: bool,
}

/// What is there to take over.
pub(in crate::supervisor) struct Estate {
    listeners: Vec<Listener>,
    /// The last number of each module's builds.
    pub(in crate::supervisor) generations: BTreeMap<String, u64>,
    /// States that will come.
    pub(in crate::supervisor) states: BTreeSet<Place>,
}

impl Predecessor {
    /// Finds out whether there is one, and what it gives.
    ///
    /// # Errors
    /// There is one, and it makes no sense.
    pub(in crate::supervisor) fn greet() -> anyhow::Result<Option<(Predecessor, Estate)>> {
        let said = std::env::var(VARIABLE).ok().and_then(|id| id.parse().ok());
        // A variable that was inherited by mistake, by what a handler executes for one, names another process.
        let Some(id) = said.filter(|id| process::parent() == Some(*id)) else { return Ok(None) };
        let channel = Channel::from_fd(process::take_stdin().context("standard input is no channel")?);
        let greeting = control::receive(&channel)?.context("the process that is to be taken over from is gone")?;
        let (ToHeir::Hello { protocol, listeners, generations, states }, sockets) = greeting else {
            anyhow::bail!("the process that is to be taken over from did not begin with Hello");
        };
        ensure!(listeners.len() == sockets.len(), "{} listeners came with {} sockets", listeners.len(), sockets.len());
        tracing::debug!(
            "taking over from process {id}, which speaks version {protocol} of what {PROTOCOL} is spoken here"
        );
        let borrowed = |(bind, socket)| Listener::borrowed(bind, socket);
        let listeners = listeners.into_iter().zip(sockets).map(borrowed).collect::<anyhow::Result<_>>()?;
        control::send(&channel, &FromHeir::Hello { protocol: PROTOCOL, takes_states: true }, &[])?;
        // Between two versions nothing is passed on, and nothing is to be waited for.
        let states = if protocol == PROTOCOL { states } else { BTreeSet::new() };
        Ok(Some((Predecessor { id, channel, has_left: false }, Estate { listeners, generations, states })))
    }

    /// Starts to receive what it passes on.
    pub(in crate::supervisor) fn follow(&self, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
        let channel = self.channel.try_clone()?;
        let receive = move || {
            loop {
                let event = match control::receive(&channel) {
                    Ok(Some((message, descriptors))) => Event::Predecessor(message, descriptors),
                    Ok(None) => break,
                    Err(error) if control::is_lost_message(&error) => {
                        tracing::error!("a connection that was to be taken over is lost: {error:#}");
                        continue;
                    }
                    Err(error) => {
                        tracing::error!("the process that was taken over from is not heard any more: {error:#}");
                        break;
                    }
                };
                if events.send(event).is_err() {
                    return;
                }
            }
            // Nobody receives any more when the supervisor ends.
            _ = events.send(Event::PredecessorGone);
        };
        thread::Builder::new().name("predecessor".to_owned()).spawn(receive)?;
        Ok(())
    }

    /// Tells it something.
    pub(in crate::supervisor) fn tell(&self, word: &FromHeir) {
        // Its end is an event of its own.
        _ = control::send(&self.channel, word, &[]);
    }
}

impl Estate {
    /// The listeners for `binds`: those that there are, and fresh ones.
    ///
    /// # Errors
    /// One cannot be opened.
    pub(in crate::supervisor) fn listeners(&mut self, binds: &[Bind]) -> anyhow::Result<Vec<Listener>> {
        let mut pool = std::mem::take(&mut self.listeners);
        let missing = listeners::missing(binds, pool.iter().map(|listener| &listener.bind));
        pool.extend(listeners::open(&missing, When::Later)?);
        Ok(listeners::pick(binds, pool).0)
    }
}

impl Supervisor {
    /// The predecessor has said something.
    pub(in crate::supervisor) fn on_predecessor(&mut self, message: ToHeir, descriptors: Vec<OwnedFd>) {
        match message {
            ToHeir::TakeOver => self.own_estate(),
            ToHeir::Adopt(state) => self.crew.pass_on(NOBODY, state, descriptors),
            ToHeir::State { of, is_final } => self.states.inherit(of, descriptors.into_iter().next(), is_final),
            ToHeir::Hello { .. } => tracing::debug!("a second Hello"),
        }
    }

    /// The predecessor is gone, with or without having left everything to us: there is nobody else.
    pub(in crate::supervisor) fn on_predecessor_end(&mut self) {
        self.own_estate();
        self.states.inherit_nothing_more();
        self.predecessor = None;
    }

    fn own_estate(&mut self) {
        let Some(predecessor) = self.predecessor.as_mut().filter(|predecessor| !predecessor.has_left) else { return };
        predecessor.has_left = true;
        if !self.stopping {
            manager::tell("READY=1");
            tracing::info!("took over from process {}", predecessor.id);
            self.crew.own_files(true);
        }
    }
}
