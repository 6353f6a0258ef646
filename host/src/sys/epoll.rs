//! epoll(7) and eventfd(2): where an event loop waits.

use rustix::event::{self, epoll};
use rustix::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// One epoll instance.
pub struct Poller(OwnedFd);

/// What happened to a registered descriptor.
#[derive(Clone, Copy)]
pub struct Happened(epoll::Event);

impl Happened {
    /// The value that was given at registration.
    pub fn key(self) -> u64 {
        let data = self.0.data;
        data.u64()
    }

    /// Reading may give something: data, the end, or an error.
    pub fn readable(self) -> bool {
        self.has(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
    }

    /// The peer has sent its last byte: whatever can be read ends with the end.
    pub fn ended(self) -> bool {
        self.has(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
    }

    /// The peer is gone for good, in both directions.
    pub fn hangup(self) -> bool {
        self.has(epoll::EventFlags::HUP | epoll::EventFlags::ERR)
    }

    fn has(self, any: epoll::EventFlags) -> bool {
        let flags = self.0.flags;
        flags.intersects(any)
    }
}

impl Poller {
    /// A new instance, close-on-exec.
    pub fn new() -> io::Result<Poller> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Poller)
    }

    /// Registers a connection: edge-triggered, in both directions.
    pub fn add_connection(&self, socket: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.0, socket, epoll::EventData::new_u64(key), flags)
    }

    /// Registers a listener that other loops wait for too: level-triggered, and one loop is woken for a connection.
    pub fn add_listener(&self, socket: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&self.0, socket, epoll::EventData::new_u64(key), flags)
    }

    /// Registers the loop's own [`Alarm`].
    pub fn add_alarm(&self, alarm: &Alarm, key: u64) -> io::Result<()> {
        epoll::add(
            &self.0,
            alarm.0.as_fd(),
            epoll::EventData::new_u64(key),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )
    }

    /// Ends a registration. Needed before a descriptor is passed to another process: closing our copy of a socket that
    /// lives on elsewhere does not end it (epoll(7), questions and answers, 6).
    pub fn remove(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        epoll::delete(&self.0, socket)
    }

    /// Waits until something happens or the time is over, and adds what happened to `events`.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.0.reserve(BATCH);
        let timeout = timeout.map(|timeout| event::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events.0), timeout.as_ref()) {
            Ok(_) | Err(io::Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What happened, in a buffer that is used again.
#[derive(Default)]
pub struct Events(Vec<epoll::Event>);

// SAFETY: the union for user data that makes events thread-bound may hold a pointer; here it only ever holds a number.
unsafe impl Send for Events {}

impl Events {
    /// What happened, in the order of the kernel.
    pub fn iter(&self) -> impl Iterator<Item = Happened> {
        self.0.iter().copied().map(Happened)
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Wakes a loop from another thread: an eventfd(2).
pub struct Alarm(OwnedFd);

impl Alarm {
    /// A silent alarm, close-on-exec and non-blocking.
    pub fn new() -> io::Result<Alarm> {
        event::eventfd(0, event::EventfdFlags::CLOEXEC | event::EventfdFlags::NONBLOCK).map(Alarm)
    }

    /// Wakes the loop. A loop never reads the counter: the registration is edge-triggered, and every write is an edge. It
    /// could overflow only after 2^64 - 2 writes.
    pub fn ring(&self) {
        // A failure here would be EAGAIN on overflow: then an edge is pending anyway.
        _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it silent again, for who looks at it by poll(2).
    ///
    /// # Errors
    /// `EAGAIN`: it was.
    pub fn silence(&self) -> io::Result<()> {
        rustix::io::read(&self.0, &mut [0; 8]).map(|_| ())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Events taken from the kernel at once: enough to amortise the call, few enough to stay fair.
const BATCH: usize = 128;
