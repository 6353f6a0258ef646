//! The listening sockets: opened, kept over a change of the configuration, taken over from another process, closed.

use super::startup::url;
use crate::config::Bind;
use crate::server::Handover;
use crate::sys::socket::{self, Address, SocketFile};
use anyhow::{Context, bail};
use std::os::fd::{AsFd, OwnedFd};

/// A listening socket, for as long as anybody shall connect.
pub(super) struct Listener {
    /// What was asked for.
    pub(super) bind: Bind,
    pub(super) socket: OwnedFd,
    /// What came of it.
    pub(super) address: Address,
    file: Option<SocketFile>,
}

/// Who may name descriptors that this process was given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// At the start nothing else is open.
    Start,
    /// Under any number there may be something of our own.
    Later,
}

/// Opens listeners, those first that were inherited.
///
/// # Errors
/// The first that cannot be opened, and what to do; then none is.
pub(super) fn open(binds: &[Bind], when: When) -> anyhow::Result<Vec<Listener>> {
    let (inherited, other): (Vec<_>, Vec<_>) = binds.iter().partition(|bind| matches!(bind, Bind::Inherited(_)));
    let mut listeners = Vec::new();
    for bind in inherited.into_iter().chain(other) {
        if when == When::Later && matches!(bind, Bind::Inherited(_)) {
            bail!("--bind {bind} can only be taken over when the server is started, not later");
        }
        let socket = socket::listen(bind)?;
        listeners.push(Listener::new(bind.clone(), socket, SocketFile::of(bind, true))?);
    }
    Ok(listeners)
}

/// Those of `binds` for which there is nothing in `open`: each of these serves one.
pub(super) fn missing<'a>(binds: &[Bind], open: impl Iterator<Item = &'a Bind>) -> Vec<Bind> {
    let mut open: Vec<_> = open.collect();
    let mut missing = binds.to_vec();
    missing.retain(|bind| match open.iter().position(|other| *other == bind) {
        Some(at) => {
            open.swap_remove(at);
            false
        }
        None => true,
    });
    missing
}

/// Takes for each of `binds` a listener from `pool`, which has all of them. Then: what is left there.
pub(super) fn pick(binds: &[Bind], mut pool: Vec<Listener>) -> (Vec<Listener>, Vec<Listener>) {
    let find = |bind: &Bind| Some(pool.remove(pool.iter().position(|listener| listener.bind == *bind)?));
    (binds.iter().filter_map(find).collect(), pool)
}

impl Listener {
    fn new(bind: Bind, socket: OwnedFd, file: Option<SocketFile>) -> anyhow::Result<Listener> {
        let address = socket::local_address(socket.as_fd()).context("a listener does not tell its address")?;
        Ok(Listener { bind, socket, address, file })
    }

    /// One that another process still owns, too: its file, if it has one, stays with that one.
    pub(super) fn borrowed(bind: Bind, socket: OwnedFd) -> anyhow::Result<Listener> {
        let file = SocketFile::of(&bind, false);
        Listener::new(bind, socket, file)
    }

    /// Whether its file, if it has one, is removed with it.
    pub(super) fn own_file(&mut self, ours: bool) {
        if let Some(file) = &mut self.file {
            file.set_ours(ours);
        }
    }

    /// Closes it when no worker listens there any more. Who is in the queue was told that somebody does.
    pub(super) fn close(self, mut take: impl FnMut(Handover)) {
        for _ in 0..QUEUE_MAX {
            let Ok((socket, peer)) = socket::accept(self.socket.as_fd()) else { break };
            take(Handover::fresh(socket, peer, self.address.clone()));
        }
        tracing::info!("no longer listening on {}", url(&self.address));
    }
}

/// Taken off the queue of a listener that is closed: more than any queue holds.
const QUEUE_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_open_listener_serves_one_bind() {
        let [any, other] = ["127.0.0.1:0", "127.0.0.1:1"].map(|address| Bind::Tcp(address.parse().unwrap()));
        let three = [any.clone(), any.clone(), other.clone()];
        assert_eq!(missing(&three, [&any].into_iter()), [any.clone(), other.clone()]);
        assert_eq!(missing(&three[..1], [&any, &any, &other].into_iter()), []);

        let pool = open(&[any.clone(), any.clone()], When::Start).unwrap();
        let ports: Vec<_> = pool.iter().map(|listener| listener.address.clone()).collect();
        let (picked, left) = pick(&[any], pool);
        assert_eq!((&picked[0].address, &left[0].address), (&ports[0], &ports[1]));
        assert!(open(&[Bind::Inherited(0)], When::Later).is_err());
    }
}
