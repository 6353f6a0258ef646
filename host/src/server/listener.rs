//! A listener of one loop: it takes connections off the queue that all loops and workers share.

use super::Shared;
use super::connection::Line;
use super::extent::Extent;
use crate::log;
use crate::sys::epoll::Poller;
use crate::sys::socket::{self, Address};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The listener.
pub(super) struct Listener {
    socket: OwnedFd,
    address: Arc<Address>,
    key: u64,
    /// The system had no room for a connection: when it is asked again.
    paused_until: Option<Instant>,
    /// When that was said last.
    complained: Option<Instant>,
}

/// What asking for a connection came to.
pub(super) enum Accepted {
    Connection(Box<Line>),
    /// There was one, and it has been sent away with this.
    SentAway(Address, Extent),
    /// It has ended before it could be taken.
    Gone,
    Nothing,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd, address: Arc<Address>, key: u64) -> Listener {
        Listener { socket, address, key, paused_until: None, complained: None }
    }

    pub(super) fn listen(&self, poller: &Poller) -> rustix::io::Result<()> {
        poller.add_listener(self.socket.as_fd(), self.key)
    }

    /// Takes the next connection.
    pub(super) fn accept(&mut self, poller: &Poller, shared: &Shared) -> Accepted {
        let (socket, peer) = match socket::accept(self.socket.as_fd()) {
            Ok(accepted) => accepted,
            Err(Errno::AGAIN) => return Accepted::Nothing,
            // The client has given up, or the network has reported an old error (accept(2)): the next one may be well.
            Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::NETDOWN | Errno::HOSTUNREACH) => {
                return Accepted::Gone;
            }
            Err(error) => {
                if self.complained.is_none_or(|last| last.elapsed() >= QUIET) {
                    self.complained = Some(Instant::now());
                    tracing::error!(
                        "cannot accept connections on {} now: {error}; those that are open go on, and it is tried again",
                        self.address
                    );
                }
                // The listener stays ready, and would wake this loop without end.
                _ = poller.remove(self.socket.as_fd());
                self.paused_until = Some(Instant::now() + PAUSE);
                return Accepted::Nothing;
            }
        };
        if !shared.has_room() {
            // Its socket buffer is empty, so this fits.
            socket::send(socket.as_fd(), FULL, false);
            socket::finish_sending(socket.as_fd());
            // A close with a request unread would be a reset, by which the client could lose the response.
            socket::receive(socket.as_fd(), &mut Vec::new(), REQUEST_BYTES);
            let all = FULL.len() as u64;
            return Accepted::SentAway(peer, Extent::new(503, 0, all - FULL_CONTENT_BYTES, false).until(all));
        }
        if shared.settings.config.trace {
            log::trace(format_args!("* {peer} connected"));
        }
        Accepted::Connection(Line::new(socket, peer, Arc::clone(&self.address)))
    }

    /// How long until [`retry`](Self::retry) has to be called.
    pub(super) fn retry_in(&self) -> Option<Duration> {
        self.paused_until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Listens again after a pause.
    pub(super) fn retry(&mut self, poller: &Poller) {
        if self.paused_until.is_some_and(|until| until <= Instant::now()) {
            // A pause that is over and stays would have the loop ask without end.
            self.paused_until = self.listen(poller).is_err().then(|| Instant::now() + PAUSE);
        }
    }

    pub(super) fn close(self, poller: &Poller) {
        // The supervisor holds the socket too: closing this copy alone would not end the registration.
        _ = poller.remove(self.socket.as_fd());
    }
}

/// As much as most requests have.
const REQUEST_BYTES: usize = 16 * 1024;

/// A shortage that comes and goes is one.
const QUIET: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(100);

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\ntoo many connections\n";
const FULL_CONTENT_BYTES: u64 = 21;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bind;

    #[test]
    fn a_listener_that_cannot_be_watched_again_is_not_asked_without_end() {
        let socket = socket::listen(&"127.0.0.1:0".parse::<Bind>().unwrap()).unwrap();
        let address = Arc::new(socket::local_address(socket.as_fd()).unwrap());
        let poller = Poller::new().unwrap();
        let mut listener = Listener::new(socket, address, 0);
        // It is watched already, so that watching it again fails.
        listener.listen(&poller).unwrap();
        listener.paused_until = Some(Instant::now());
        listener.retry(&poller);
        assert!(listener.retry_in().is_some_and(|pause| !pause.is_zero()));
    }
}
