//! An event loop: it waits for its connections, lets each go on as far as it can, and comes out whenever a call into a
//! module is due, so that the call runs without the loop.

use super::call::Work;
use super::connection::{Connection, Mode, Situation, Step};
use super::listener::{Accepted, Listener};
use super::slots::{SlotId, Slots};
use super::timer::Timers;
use super::{Letter, Notice, Shared};
use crate::log;
use crate::serial::Waiter;
use crate::sys::epoll::{Happened, Poller};
use crate::sys::socket::Address;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The loop and all its connections. Only its leader touches it.
pub(super) struct EventLoop {
    shared: Arc<Shared>,
    index: usize,
    poller: Poller,
    listeners: Vec<Listener>,
    slots: Slots,
    timers: Timers,
    /// Events taken from the kernel that have not been looked at: they belong to the loop, not to a stack.
    happened: Vec<Happened>,
    /// Connections that can go on.
    ready: VecDeque<SlotId>,
    /// How many of them may do so before the loop looks for new events.
    turns_left: usize,
    letters: VecDeque<Letter>,
    mode: Mode,
    clock: Clock,
}

/// What the leader has to do.
pub(super) enum Turn {
    /// Call this, and then [`EventLoop::returned`].
    Call(SlotId, Box<Connection>, Work),
    /// Nothing more, ever.
    End,
}

struct Clock {
    started: Instant,
    now_ms: u64,
    date_second: u64,
    date: String,
}

impl EventLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        index: usize,
        sockets: &[(OwnedFd, Arc<Address>)],
    ) -> std::io::Result<EventLoop> {
        let poller = Poller::new()?;
        poller.add_alarm(&shared.mailboxes[index].alarm, ALARM)?;
        let mut listeners = Vec::new();
        for (number, (socket, address)) in sockets.iter().enumerate() {
            let listener = Listener::new(socket.try_clone()?, Arc::clone(address), LISTENER | (number as u64) << 32);
            listener.listen(&poller)?;
            listeners.push(listener);
        }
        Ok(EventLoop {
            shared,
            index,
            poller,
            listeners,
            slots: Slots::default(),
            timers: Timers::default(),
            happened: Vec::new(),
            ready: VecDeque::new(),
            turns_left: 0,
            letters: VecDeque::new(),
            mode: Mode::Running,
            clock: Clock::new(),
        })
    }

    /// Goes on until a call is due.
    pub(super) fn turn(&mut self) -> Turn {
        // The call before this may have taken long, and what is ready may have many more to make: an order to leave must
        // not wait for all of them. Without a letter this costs one load.
        self.read_letters();
        loop {
            while self.turns_left > 0
                && let Some(id) = self.ready.pop_front()
            {
                self.turns_left -= 1;
                let Some(slot) = self.slots.find(id) else { continue };
                slot.queued = false;
                let Some(connection) = slot.connection.take() else { continue };
                if let Some(turn) = self.drive(id, connection, Connection::step) {
                    return turn;
                }
            }
            if self.mode != Mode::Running && self.shared.is_done() {
                return Turn::End;
            }
            self.wait();
            self.turns_left = self.ready.len() + TURNS_MORE;
        }
    }

    /// A call is over: its connection goes on.
    pub(super) fn returned(&mut self, id: SlotId, connection: Box<Connection>) {
        let Some(slot) = self.slots.find(id) else { return };
        if connection.output.stream.is_some() {
            // Each call for a stream may take long, and there is no end to them: others come in between.
            self.turns_left = 0;
        }
        slot.connection = Some(connection);
        self.queue(id);
    }

    /// Lets one connection go on and does what it needs next.
    fn drive(
        &mut self,
        id: SlotId,
        mut connection: Box<Connection>,
        go: impl FnOnce(&mut Connection, &mut Situation<'_>) -> Step,
    ) -> Option<Turn> {
        let slot = self.slots.find(id)?;
        let (shared, index) = (&self.shared, self.index);
        let mut situation = Situation {
            settings: &shared.settings,
            mode: self.mode,
            date: &self.clock.date,
            ended: slot.ended,
            hangup: slot.hangup,
            readable: &mut slot.readable,
            waiter: &|| -> Waiter {
                let shared = Arc::clone(shared);
                Box::new(move |permit| shared.post(index, Letter::Permit(id, permit)))
            },
        };
        match go(&mut connection, &mut situation) {
            Step::Wait(wait) => {
                connection.wait_for(wait, self.clock.now_ms, &shared.settings);
                if let Some(deadline_ms) = connection.patience.deadline_ms() {
                    self.timers.arm(id, deadline_ms, &mut slot.timer_ms);
                }
                slot.connection = Some(connection);
            }
            Step::Yield => {
                // Whatever it waited for before has come.
                connection.patience.renew();
                slot.connection = Some(connection);
                self.queue(id);
            }
            Step::Call(work) => {
                connection.patience.renew();
                return Some(Turn::Call(id, connection, work));
            }
            Step::Close => {
                if shared.settings.config.trace {
                    log::trace(format_args!("* {} closed", connection.peer));
                }
                self.slots.remove(id);
                drop(connection);
                self.shared.forget(index);
            }
            Step::HandOver => {
                // Else its events would go on coming here while the socket lives in the other worker.
                _ = self.poller.remove(connection.socket.as_fd());
                self.slots.remove(id);
                match connection.hand_over() {
                    Ok(handover) => (shared.settings.notice)(Notice::Handover(handover)),
                    Err(error) => tracing::error!("cannot hand a connection over: {error}"),
                }
                self.shared.forget(index);
            }
        }
        None
    }

    /// Waits for events and sorts them: new connections first, then letters, connections and timers.
    fn wait(&mut self) {
        let timeout = self.timers.next_in(self.clock.now_ms);
        let retry = self.listeners.iter().filter_map(Listener::retry_in).min();
        let now = (!self.ready.is_empty()).then_some(Duration::ZERO);
        let timeout = timeout.map(Duration::from_millis).into_iter().chain(retry).chain(now).min();
        if let Err(error) = self.poller.wait(&mut self.happened, timeout) {
            // Only a bug or a module that closed descriptors of ours can bring this about: nothing can be served.
            tracing::error!("epoll_wait failed: {error}");
            crate::sys::process::exit_now(1);
        }
        self.clock.tick();
        let happened = std::mem::take(&mut self.happened);
        for event in happened.iter().filter(|event| event.key as u32 == LISTENER as u32) {
            self.accept((event.key >> 32) as usize);
        }
        for listener in &mut self.listeners {
            listener.retry(&self.poller);
        }
        self.read_letters();
        for event in &happened {
            let id = SlotId(event.key);
            if let Some(slot) = self.slots.find(id) {
                slot.readable |= event.readable;
                slot.ended |= event.ended;
                slot.hangup |= event.hangup;
                self.queue(id);
            }
        }
        self.happened = happened;
        self.happened.clear();
        while let Some((time_ms, id)) = self.timers.due(self.clock.now_ms) {
            self.expire(id, time_ms);
        }
    }

    /// Takes connections off a listener's queue; false when it is empty.
    fn accept(&mut self, listener: usize) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listeners.get_mut(listener) else { return false };
            let connection = match listener.accept(&self.poller, &self.shared) {
                Accepted::Connection(connection) => connection,
                Accepted::Refused => continue,
                Accepted::Nothing => return false,
            };
            let index = self.shared.assign(self.index);
            if index == self.index {
                self.register(connection);
            } else {
                self.shared.post(index, Letter::Accepted(connection));
            }
        }
        true
    }

    fn register(&mut self, connection: Box<Connection>) {
        let id = self.slots.insert(connection);
        let registered = match self.slots.find(id).and_then(|slot| slot.connection.as_ref()) {
            Some(connection) => self.poller.add_connection(connection.socket.as_fd(), id.0),
            None => return,
        };
        if let Err(error) = registered {
            tracing::error!("cannot watch a connection: {error}");
            self.slots.remove(id);
            self.shared.forget(self.index);
            return;
        }
        self.queue(id);
    }

    fn read_letters(&mut self) {
        self.shared.mailboxes[self.index].inbox.take(&mut self.letters);
        while let Some(letter) = self.letters.pop_front() {
            self.open(letter);
        }
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::Accepted(connection) => self.register(connection),
            Letter::Returned(id, connection) => self.returned(id, connection),
            Letter::Permit(id, permit) => {
                // A connection that is gone, or away in a call, has no use for it: dropping it lets the next one in.
                if let Some(connection) = self.slots.find(id).and_then(|slot| slot.connection.as_mut()) {
                    connection.admit(permit);
                    self.queue(id);
                }
            }
            Letter::Drain => self.leave(Mode::Draining),
            Letter::Stop => self.leave(Mode::Stopping),
        }
    }

    /// Takes no more connections, and lets those that are here end or go.
    fn leave(&mut self, mode: Mode) {
        let first = self.mode == Mode::Running;
        if first && mode == Mode::Stopping {
            // Who is in the queue was told that somebody listens.
            for listener in 0..self.listeners.len() {
                while self.accept(listener) {}
            }
        }
        self.mode = mode;
        for listener in self.listeners.drain(..) {
            listener.close(&self.poller);
        }
        for id in self.slots.ids() {
            // A request may have arrived of which epoll has not told yet.
            if let Some(slot) = self.slots.find(id) {
                slot.readable = true;
            }
            self.queue(id);
        }
        if first {
            self.shared.quiet();
        }
    }

    fn queue(&mut self, id: SlotId) {
        let Some(slot) = self.slots.find(id) else { return };
        if !std::mem::replace(&mut slot.queued, true) {
            self.ready.push_back(id);
        }
    }

    fn expire(&mut self, id: SlotId, time_ms: u64) {
        let Some(slot) = self.slots.find(id) else { return };
        if slot.timer_ms != time_ms {
            return;
        }
        slot.timer_ms = 0;
        if slot.queued {
            // What it waited for may have come while the loop was busy: that goes first, and counts.
            self.timers.arm(id, self.clock.now_ms + 1, &mut slot.timer_ms);
            return;
        }
        let Some(connection) = &slot.connection else { return };
        let Some(deadline_ms) = connection.patience.deadline_ms() else { return };
        if deadline_ms > self.clock.now_ms {
            self.timers.arm(id, deadline_ms, &mut slot.timer_ms);
            return;
        }
        let Some(connection) = slot.connection.take() else { return };
        self.drive(id, connection, |connection, situation| connection.expire(situation));
    }
}

impl Clock {
    fn new() -> Clock {
        let mut clock = Clock { started: Instant::now(), now_ms: 1, date_second: u64::MAX, date: String::new() };
        clock.tick();
        clock
    }

    fn tick(&mut self) {
        // Never 0, which stands for no deadline.
        self.now_ms = self.started.elapsed().as_millis() as u64 + 1;
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.date_second {
            self.date_second = second;
            self.date = httpdate::fmt_http_date(now);
        }
    }
}

/// Registration keys that no slot has: its index would be the highest.
const LISTENER: u64 = u32::MAX as u64;
const ALARM: u64 = u32::MAX as u64 - 1;

/// Turns that connections may have, besides one for each that was ready, before the loop looks for new events: after a
/// call most want one to send its response.
const TURNS_MORE: usize = 16;

/// Connections that one event takes before others have their turn.
const ACCEPTS_PER_TURN: usize = 64;
