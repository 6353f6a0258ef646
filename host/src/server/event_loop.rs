//! An event loop: it waits for its connections, lets each go on as far as it can, and comes out whenever a call into a
//! module is due, so that the call runs without the loop.

use super::access_log::{self, Lines};
use super::call::{Call, Epilogue, Outcome, Work};
use super::clock::Clock;
use super::connection::{Connection, Mode, Situation, Step};
use super::crash::Crash;
use super::listener::{Accepted, Listener};
use super::slots::{Occupant, SlotId, Slots};
use super::spaces::Spaces;
use super::task::Task;
use super::timer::Timers;
use super::{Letter, Notice, Shared};
use crate::log;
use crate::pace::Pace;
use crate::response::Response;
use crate::route;
use crate::serial::Waiter;
use crate::sys::epoll::{Events, Poller};
use crate::sys::socket::Address;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The loop and all its connections. Only its leader touches it.
pub(super) struct EventLoop {
    shared: Arc<Shared>,
    index: usize,
    poller: Poller,
    listeners: Vec<Listener>,
    slots: Slots,
    /// Workspaces that nobody uses now.
    spaces: Spaces,
    timers: Timers,
    /// Events taken from the kernel: their buffer belongs to the loop, not to a stack.
    events: Events,
    /// The connection whose call is just over: it goes on first.
    returned: Option<(SlotId, Connection)>,
    /// Others that can go on.
    ready: VecDeque<SlotId>,
    /// How many of them may do so before the loop looks for new events.
    turns_left: usize,
    /// Bodies whose end nobody waits for.
    epilogues: VecDeque<Box<Epilogue>>,
    /// Calls for which there was no thread.
    postponed: VecDeque<Task>,
    letters: VecDeque<Letter>,
    mode: Mode,
    clock: Clock,
    /// For the access log, if there is one.
    lines: Option<Lines>,
    /// The call that the leader is in, or was when the loop was taken over.
    pub(super) calling: Option<Calling>,
}

/// What the leader has to do.
pub(super) enum Turn {
    /// Make this call, and then [`EventLoop::returned`].
    Call(Task),
    /// Nothing more, ever.
    End,
}

/// What is known of a call while it runs.
#[derive(Clone, Copy)]
pub(super) struct Calling {
    pub(super) pace: Option<&'static Pace>,
    /// The loop was passed on before the call, and not taken over in it.
    pub(super) passed_on: bool,
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
        let mut lines = shared.settings.access_log.clone().map(Lines::new);
        let clock = Clock::new(&shared.settings.config.server_header, &mut lines);
        Ok(EventLoop {
            shared,
            index,
            poller,
            listeners,
            slots: Slots::default(),
            spaces: Spaces::default(),
            timers: Timers::default(),
            events: Events::default(),
            returned: None,
            ready: VecDeque::new(),
            turns_left: 0,
            epilogues: VecDeque::new(),
            postponed: VecDeque::new(),
            letters: VecDeque::new(),
            mode: Mode::Running,
            clock,
            lines,
            calling: None,
        })
    }

    /// Goes on until a call is due.
    pub(super) fn turn(&mut self) -> Turn {
        // The call before this may have taken long, and what is ready may have many more to make: an order to leave must
        // not wait for all of them. Without a letter this costs one load.
        self.read_letters();
        if let Some((id, connection)) = self.returned.take()
            && let Some(task) = self.drive(id, connection, Connection::step)
        {
            return Turn::Call(task);
        }
        loop {
            while self.turns_left > 0
                && let Some(id) = self.ready.pop_front()
            {
                self.turns_left -= 1;
                let Some(slot) = self.slots.find(id) else { continue };
                slot.queued = false;
                let connection = match std::mem::replace(&mut slot.occupant, Occupant::Away) {
                    Occupant::Working(connection) => connection,
                    Occupant::Resting(line) => self.spaces.wake(line),
                    // Its call is not over: what has happened meanwhile stands in the slot.
                    Occupant::Away | Occupant::Nobody => continue,
                };
                if let Some(task) = self.drive(id, connection, Connection::step) {
                    return Turn::Call(task);
                }
            }
            if let Some(epilogue) = self.epilogues.pop_front() {
                return Turn::Call(Task::Epilogue(epilogue));
            }
            if self.mode != Mode::Running && self.shared.is_done() {
                return Turn::End;
            }
            let postponed = !self.postponed.is_empty();
            self.wait(postponed);
            self.turns_left = self.ready.len() + TURNS_MORE;
            if let Some(task) = self.postponed.pop_front() {
                return Turn::Call(task);
            }
        }
    }

    /// A call is over: its connection goes on.
    pub(super) fn returned(&mut self, id: Option<SlotId>, outcome: Outcome) {
        if let Some(epilogue) = outcome.epilogue {
            self.epilogues.push_back(epilogue);
        }
        let (Some(id), Some(connection)) = (id, outcome.connection) else { return };
        if self.turns_left == 0 || connection.space.output.stream.is_some() || connection.space.read_in_call {
            return self.come_back(id, connection);
        }
        // It is warm, and most want no more than to send their response.
        self.turns_left -= 1;
        self.returned = Some((id, connection));
    }

    /// There is no thread for this call now.
    pub(super) fn no_room(&mut self, task: Task) {
        match task {
            Task::Connection(id, mut connection, Call { work: Work::Application(_), .. }) => {
                connection.answer_with_this(Response::unavailable("too many calls are under way"));
                self.come_back(id, connection);
            }
            // What has begun has to be brought to its end.
            task => self.postponed.push_back(task),
        }
    }

    /// There is no thread for this call, and maybe never will be, since making one takes a lock that a crashed thread may
    /// hold. Another worker is on the way.
    pub(super) fn wait_for_another_worker(&mut self, task: Task) {
        match task {
            Task::Connection(id, mut connection, Call { work: Work::Application(ticket), .. }) => {
                connection.wait_at_the_door(ticket);
                self.come_back(id, connection);
            }
            task => self.postponed.push_back(task),
        }
    }

    fn come_back(&mut self, id: SlotId, mut connection: Connection) {
        let Some(slot) = self.slots.find(id) else { return };
        slot.readable |= std::mem::take(&mut connection.space.read_in_call);
        if connection.space.output.stream.is_some() {
            // Each call for a stream may take long, and there is no end to them: others come in between.
            self.turns_left = 0;
        }
        slot.occupant = Occupant::Working(connection);
        self.queue(id);
    }

    /// Lets one connection go on and does what it needs next.
    fn drive(
        &mut self,
        id: SlotId,
        mut connection: Connection,
        go: impl FnOnce(&mut Connection, &mut Situation<'_>) -> Step,
    ) -> Option<Task> {
        let slot = self.slots.find(id)?;
        let (shared, index) = (&self.shared, self.index);
        let mut situation = Situation {
            settings: &shared.settings,
            processors: &shared.processors,
            storage: &shared.storage,
            mode: self.mode,
            signature: &self.clock.signature,
            ended: slot.ended,
            hangup: slot.hangup,
            readable: &mut slot.readable,
            waiter: &|| -> Waiter {
                let shared = Arc::clone(shared);
                Box::new(move |permit| shared.post(index, Letter::Permit(id, permit)))
            },
            lines: self.lines.as_ref(),
        };
        let step = go(&mut connection, &mut situation);
        if let Some(lines) = &mut self.lines {
            connection.settle(lines, matches!(step, Step::Close));
        }
        match step {
            Step::Wait(wait) => {
                connection.wait_for(wait, self.clock.now_ms, &shared.settings);
                if let Some(deadline_ms) = connection.line.patience.deadline_ms() {
                    self.timers.arm(id, deadline_ms, &mut slot.timer_ms);
                }
                slot.occupant = Occupant::Working(connection);
            }
            Step::Rest => {
                let Connection { mut line, mut space } = connection;
                space.rest();
                let deadline_ms = line.rest(self.clock.now_ms, &shared.settings.config.timeouts);
                self.timers.arm(id, deadline_ms, &mut slot.timer_ms);
                slot.occupant = Occupant::Resting(line);
                self.spaces.give_back(space);
            }
            Step::Yield => {
                // Whatever it waited for before has come.
                connection.line.patience.renew();
                if connection.space.output.is_made() {
                    // There is much more to make: others come in between.
                    self.turns_left = 0;
                }
                slot.occupant = Occupant::Working(connection);
                self.queue(id);
            }
            Step::Call(call) => {
                connection.line.patience.renew();
                return Some(Task::Connection(id, connection, call));
            }
            Step::Store => {
                // The disk's time is not the client's.
                connection.line.patience.renew();
                shared.storage.store(index, id, connection);
            }
            Step::Close => {
                if shared.settings.config.trace {
                    log::trace(format_args!("* {} closed", connection.line.peer));
                }
                self.slots.remove(id);
                let Connection { line, mut space } = connection;
                space.clear();
                self.spaces.give_back(space);
                drop(line);
                self.shared.forget(index);
            }
            Step::HandOver => {
                // Else its events would go on coming here while the socket lives in the other worker.
                _ = self.poller.remove(connection.line.socket.as_fd());
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
    fn wait(&mut self, postponed: bool) {
        let timeout = self.timers.next_in(self.clock.now_ms);
        let retry = self.listeners.iter().filter_map(Listener::retry_in).min();
        let soon = if !self.ready.is_empty() { Some(Duration::ZERO) } else { postponed.then_some(POSTPONED) };
        let lines = self.lines.as_mut().and_then(Lines::due_in_ms);
        let timeout = timeout.into_iter().chain(lines).map(Duration::from_millis).chain(retry).chain(soon).min();
        self.events.clear();
        if let Err(error) = self.poller.wait(&mut self.events, timeout) {
            // Only a bug or a module that closed descriptors of ours can bring this about: nothing can be served.
            tracing::error!("epoll_wait failed: {error}");
            crate::sys::process::exit_now(1);
        }
        self.clock.tick(&self.shared.settings.config.server_header, &mut self.lines);
        let events = std::mem::take(&mut self.events);
        for event in events.iter().filter(|event| event.key() as u32 == LISTENER as u32) {
            self.accept((event.key() >> 32) as usize);
        }
        for listener in &mut self.listeners {
            listener.retry(&self.poller);
        }
        self.read_letters();
        for event in events.iter() {
            let id = SlotId(event.key());
            if let Some(slot) = self.slots.find(id) {
                slot.readable |= event.readable();
                slot.ended |= event.ended();
                slot.hangup |= event.hangup();
                self.queue(id);
            }
        }
        self.events = events;
        while let Some((time_ms, id)) = self.timers.due(self.clock.now_ms) {
            self.expire(id, time_ms);
        }
    }

    /// Takes connections off a listener's queue; false when it is empty.
    fn accept(&mut self, listener: usize) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listeners.get_mut(listener) else { return false };
            let line = match listener.accept(&self.poller, &self.shared) {
                Accepted::Connection(line) => line,
                Accepted::SentAway(peer, extent) => {
                    self.lines.iter_mut().for_each(|lines| access_log::sent_away(lines, &peer, extent));
                    continue;
                }
                Accepted::Gone => continue,
                Accepted::Nothing => return false,
            };
            let index = self.shared.assign(self.index);
            if index == self.index {
                self.register(Occupant::Resting(line));
            } else {
                self.shared.post(index, Letter::Accepted(line));
            }
        }
        true
    }

    fn register(&mut self, occupant: Occupant) {
        let id = self.slots.insert(occupant);
        let Some(slot) = self.slots.find(id) else { return };
        let line = match &slot.occupant {
            Occupant::Resting(line) | Occupant::Working(Connection { line, .. }) => line,
            Occupant::Away | Occupant::Nobody => return,
        };
        if let Err(error) = self.poller.add_connection(line.socket.as_fd(), id.0) {
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
            Letter::Accepted(line) => self.register(Occupant::Resting(line)),
            Letter::Adopted(mut connection) => {
                if let Some(lines) = &self.lines {
                    connection.note_adopted(lines);
                }
                self.register(Occupant::Working(*connection));
            }
            Letter::Returned(id, connection) => {
                if let Some(slot) = self.slots.find(id) {
                    // It was away while edges may have come, and may have read meanwhile.
                    slot.readable = true;
                }
                self.come_back(id, *connection);
            }
            Letter::Crashed(crash) => self.bury(crash),
            Letter::Permit(id, permit) => {
                // A connection that is gone, or away in a call, has no use for it: dropping it lets the next one in.
                if let Some(Occupant::Working(connection)) = self.slots.find(id).map(|slot| &mut slot.occupant) {
                    connection.admit(permit);
                    self.queue(id);
                }
            }
            Letter::PassLines(_done) => self.lines.iter_mut().for_each(Lines::pass),
            Letter::Drain => self.leave(Mode::Draining),
            Letter::Stop => self.leave(Mode::Stopping),
        }
    }

    /// A call has ended its thread: its client is told, and so is the supervisor, who replaces this worker.
    fn bury(&mut self, mut crash: Crash) {
        let excerpt = route::excerpt(&crash.fault);
        let mut connection = crash.connection.take();
        if let Some(connection) = &mut connection {
            connection.crashed(crash.fault.kind, excerpt.as_ref());
        }
        (self.shared.settings.notice)(Notice::Crashed(crash.incident(), excerpt));
        match crash.id.zip(connection) {
            Some((id, connection)) => {
                if let Some(slot) = self.slots.find(id) {
                    slot.readable = true;
                }
                self.come_back(id, connection);
            }
            // It counted in the stead of a connection.
            None => self.shared.end(),
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
        self.lines.iter_mut().for_each(Lines::leave);
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
        let line = match &slot.occupant {
            Occupant::Resting(line) | Occupant::Working(Connection { line, .. }) => line,
            Occupant::Away | Occupant::Nobody => return,
        };
        let Some(deadline_ms) = line.patience.deadline_ms() else { return };
        if deadline_ms > self.clock.now_ms {
            self.timers.arm(id, deadline_ms, &mut slot.timer_ms);
            return;
        }
        let connection = match std::mem::replace(&mut slot.occupant, Occupant::Away) {
            Occupant::Working(connection) => connection,
            Occupant::Resting(line) => self.spaces.wake(line),
            Occupant::Away | Occupant::Nobody => return,
        };
        // Expiring never comes to a call: what it decides is done at the connection's next turn.
        self.drive(id, connection, |connection, situation| connection.expire(situation));
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

/// When a call is tried again for which there was no thread.
const POSTPONED: Duration = Duration::from_millis(10);
