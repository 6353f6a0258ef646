//! The HTTP server of a worker: loops, the threads that lead them, and their mailboxes.
//!
//! A leader calls modules inline. During a call the loop's token says so, and the call owns its connection; nothing of
//! the loop is borrowed across it, so that another thread may take the loop over. All that other threads do to a loop
//! goes through its mailbox.

mod call;
mod connection;
mod crash;
mod delay;
mod engine;
mod event_loop;
mod handover;
mod listener;
mod output;
mod overdue;
mod patience;
mod slots;
mod spaces;
mod storing;
mod task;
mod timer;
mod wire;

pub use crash::Incident;
pub use engine::threads_max;
pub use handover::{Handover, State as HandoverState};

use crate::config::Config;
use crate::request::Excerpt;
use crate::route::Router;
use crate::serial::{Permit, Serial};
use crate::sys::epoll::Alarm;
use crate::sys::inbox::{Blank, Inbox};
use crate::sys::process;
use crate::sys::socket::Address;
use connection::{Connection, Line};
use crash::Crash;
use engine::Engine;
use event_loop::EventLoop;
use slots::SlotId;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use storing::Storage;

/// The running server.
pub struct Server {
    shared: Arc<Shared>,
}

/// What the server needs to know.
pub struct Settings {
    /// Limits, time-outs, and how many loops.
    pub config: Arc<Config>,
    /// Decides who answers.
    pub router: Router,
    /// Where content of requests goes that is too large for memory.
    pub spool: PathBuf,
    /// Is told what happens, on the threads of the loops: it must not block.
    pub notice: Box<dyn Fn(Notice) + Send + Sync>,
}

/// What a server tells.
pub enum Notice {
    /// While draining: a connection that another worker has to take.
    Handover(Handover),
    /// A module has crashed: none of its applications is called here any more, and requests to them wait until the server
    /// is drained. With the request at which that was, if it is known.
    Crashed(Incident, Option<Excerpt>),
    /// After [`Server::drain`] or [`Server::stop`]: no loop begins another request from what it receives from now on
    /// (draining), or takes another connection (stopping).
    Quiet,
    /// After that: the last connection is gone.
    Done,
    /// Calls are made, after a while without any. [`Server::is_busy`] tells until when.
    Busy,
}

/// What the loops have in common.
struct Shared {
    settings: Settings,
    /// Where the listeners listen.
    addresses: Vec<Arc<Address>>,
    mailboxes: Vec<Mailbox>,
    /// For calls that keep a processor busy: more of them than there are would only get into each other's way.
    processors: Arc<Serial>,
    /// Connections in all loops, those on the way between them, and calls that go on without one.
    connections: AtomicUsize,
    connections_max: usize,
    storage: Storage,
    /// Loops that have not been told to leave.
    running: AtomicUsize,
    done: AtomicBool,
    /// Calls are made now, or were a moment ago.
    busy: AtomicBool,
}

struct Mailbox {
    inbox: Inbox<Letter>,
    alarm: Alarm,
    connections: AtomicUsize,
}

/// What a loop is told by another thread.
enum Letter {
    /// A connection that is new to it.
    Accepted(Box<Line>),
    /// A connection that another worker has begun.
    Adopted(Box<Connection>),
    /// A connection whose call has ended after its loop was taken over, or whose upload has been stored.
    Returned(SlotId, Box<Connection>),
    /// A call has ended its thread.
    Crashed(Crash),
    /// The turn of a connection has come to call its module.
    Permit(SlotId, Permit),
    Drain,
    Stop,
}

impl Server {
    /// Starts the loops, which share the listening sockets.
    ///
    /// # Errors
    /// The system has no more descriptors or threads.
    pub fn start(settings: Settings, listeners: Vec<(OwnedFd, Arc<Address>)>) -> io::Result<Server> {
        let loops = settings.config.threads;
        let connections_max = connections_max(settings.config.limits.connections_max);
        let mailbox = |_| Ok(Mailbox { inbox: Inbox::new(), alarm: Alarm::new()?, connections: AtomicUsize::new(0) });
        let (storage, desks) = Storage::new(!settings.config.uploads.is_empty());
        let shared = Arc::new(Shared {
            settings,
            addresses: listeners.iter().map(|(_, address)| Arc::clone(address)).collect(),
            mailboxes: (0..loops).map(mailbox).collect::<io::Result<_>>()?,
            processors: Arc::new(Serial::for_so_many(thread::available_parallelism().map_or(1, usize::from))),
            connections: AtomicUsize::new(0),
            connections_max,
            storage,
            running: AtomicUsize::new(loops),
            done: AtomicBool::new(false),
            busy: AtomicBool::new(true),
        });
        let event_loop = |index| EventLoop::new(Arc::clone(&shared), index, &listeners);
        let event_loops = (0..loops).map(event_loop).collect::<io::Result<_>>()?;
        desks.into_iter().try_for_each(|desk| desk.open(Arc::clone(&shared)))?;
        Engine::start(Arc::clone(&shared), event_loops)?;
        Ok(Server { shared })
    }

    /// Takes over a connection from another worker.
    pub fn adopt(&self, handover: Handover) {
        let known = self.shared.addresses.iter().find(|address| ***address == handover.state.local);
        let local = known.cloned().unwrap_or_else(|| Arc::new(handover.state.local.clone()));
        let Some(connection) = Connection::adopt(handover, local, &self.shared) else {
            tracing::error!("a connection that was handed over makes no sense; it is closed");
            return;
        };
        self.shared.begin();
        let index = self.shared.assign(0);
        self.shared.post(index, Letter::Adopted(Box::new(connection)));
    }

    /// Hands all connections over, each as soon as no response of it is under way.
    pub fn drain(&self) {
        self.tell_all(|| Letter::Drain);
    }

    /// Answers what has been received, then closes.
    pub fn stop(&self) {
        self.tell_all(|| Letter::Stop);
    }

    /// Whether calls are made now, or were a moment ago. When it is not, the next call is told of ([`Notice::Busy`]).
    pub fn is_busy(&self) -> bool {
        self.shared.busy.load(Ordering::SeqCst)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    fn tell_all(&self, letter: impl Fn() -> Letter) {
        (0..self.shared.mailboxes.len()).for_each(|index| self.shared.post(index, letter()));
    }
}

/// As many connections as configured, if there are descriptors for them, for what they ask for, and for handlers.
fn connections_max(configured: usize) -> usize {
    let Some(left) = process::descriptors_left() else { return configured };
    let possible = usize::try_from(left / 4 * 3).unwrap_or(usize::MAX).max(1);
    if possible < configured {
        tracing::warn!(
            "the system's limit of open files leaves room for {possible} connections, not for {configured}; raise it \
             (ulimit -n, LimitNOFILE), or lower --limit-connections"
        );
    }
    possible.min(configured)
}

impl Shared {
    fn post(&self, index: usize, letter: Letter) {
        let mailbox = &self.mailboxes[index];
        if mailbox.inbox.push(letter) {
            delay::at(delay::Point::Posted);
            mailbox.alarm.ring();
        }
    }

    /// As [`post`](Self::post), but neither allocates nor takes a lock: a signal handler may do it.
    fn post_on(&self, index: usize, blank: Blank<Letter>, letter: Letter) {
        let mailbox = &self.mailboxes[index];
        if mailbox.inbox.push_on(blank, letter) {
            mailbox.alarm.ring();
        }
    }

    /// Counts a connection to a loop: to `here`, unless another has clearly fewer. Wake-ups come last-in-first-out, so
    /// that without this one loop would get nearly all.
    fn assign(&self, here: usize) -> usize {
        let count = |index: usize| self.mailboxes[index].connections.load(Ordering::Relaxed);
        let least = (0..self.mailboxes.len()).min_by_key(|&index| count(index)).unwrap_or(here);
        let index = if count(least) + 1 < count(here) + 1 { least } else { here };
        self.mailboxes[index].connections.fetch_add(1, Ordering::Relaxed);
        index
    }

    /// Counts a connection in if there is room for it.
    fn has_room(&self) -> bool {
        let max = self.connections_max;
        let counted =
            self.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < max).then_some(now + 1));
        counted.is_ok()
    }

    /// A connection of that loop is gone.
    fn forget(&self, index: usize) {
        self.mailboxes[index].connections.fetch_sub(1, Ordering::Relaxed);
        self.end();
    }

    /// Counts something in for which the server has to wait before it is done.
    fn begin(&self) {
        self.connections.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts it out.
    fn end(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
        self.finish_if_done();
    }

    /// A loop has been told to leave.
    fn quiet(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            (self.settings.notice)(Notice::Quiet);
            self.finish_if_done();
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    fn finish_if_done(&self) {
        let over = self.running.load(Ordering::Acquire) == 0 && self.connections.load(Ordering::Acquire) == 0;
        if over && !self.done.swap(true, Ordering::AcqRel) {
            (self.settings.notice)(Notice::Done);
            self.mailboxes.iter().for_each(|mailbox| mailbox.alarm.ring());
        }
    }
}

#[cfg(test)]
mod tests;
