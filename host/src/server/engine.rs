//! The threads that run the loops: leaders, followers and the monitor (the Leader/Followers pattern).
//!
//! A leader calls modules itself: no queue, no wake-up, no change of threads. When such a call takes long, the monitor has
//! a follower take the loop over; the thread that comes back late sends its connection to the loop by letter and becomes
//! a follower. Where a call is known to take long, the leader passes the loop on before it.

use super::call::{Call, Origin, Outcome, Permits};
use super::crash::{Belongings, Desk, Incident};
use super::delay::{self, Point};
use super::event_loop::{Calling, EventLoop, Turn};
use super::overdue::Overdue;
use super::slots::SlotId;
use super::task::Task;
use super::{Notice, Shared};
use crate::config::Config;
use crate::pace::Way;
use crate::sys::clock::{self, ThreadUse};
use crate::sys::crash::{self, Fault, Heir, SignalStack, Suspect};
use crate::sys::memory::StackRoom;
use crate::sys::recorder::{self, Slot};
use crate::sys::roster::{Order, Roster};
use crate::sys::sleeper::Sleeper;
use crate::sys::token::{InCall, Lead, Token};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

/// The loops and their threads.
pub(super) struct Engine {
    shared: Arc<Shared>,
    loops: Vec<Token<EventLoop>>,
    followers: Roster,
    /// Followers that are kept ready.
    ready_min: usize,
    /// All places that have been taken come before this one.
    places: AtomicUsize,
    monitor: Sleeper,
    /// Makes threads once a module has crashed here.
    hirer: Sleeper,
    wanted: AtomicBool,
    /// A thread has been parked in a module's code, and may hold a lock that making a thread needs.
    tainted: AtomicBool,
    /// Calls that run beside the loops, each on a thread of its own.
    beside: AtomicIsize,
    /// How many of them there may be. Each loop may come to one more at any time.
    beside_max: isize,
    /// It has been said that no thread can be made.
    complained: AtomicBool,
}

/// What the monitor saw of a loop at its last tick.
#[derive(Clone, Copy, Default)]
struct Seen {
    word: u64,
    call: Option<InCall>,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start(shared: Arc<Shared>, loops: Vec<EventLoop>) -> io::Result<()> {
        let count = loops.len();
        let (beside_max, ready_min) = (beside_max(&shared.settings.config), ready_min(count));
        let engine = Arc::new(Engine {
            followers: Roster::new(threads_max(&shared.settings.config)),
            shared,
            loops: loops.into_iter().map(Token::new).collect(),
            ready_min,
            places: AtomicUsize::new(0),
            monitor: Sleeper::new(),
            hirer: Sleeper::new(),
            wanted: AtomicBool::new(false),
            tainted: AtomicBool::new(false),
            beside: AtomicIsize::new(0),
            beside_max: isize::try_from(beside_max).unwrap_or(isize::MAX),
            complained: AtomicBool::new(false),
        });
        for (index, token) in engine.loops.iter().enumerate() {
            let order = token.observe().map(|seen| Order { loop_index: index as u32, seen });
            engine.hire(order)?;
        }
        for _ in 0..ready_min {
            engine.hire(None)?;
        }
        let hirer = Arc::clone(&engine);
        thread::Builder::new().name("hirer".to_owned()).spawn(move || hirer.hire_on_demand())?;
        thread::Builder::new().name("monitor".to_owned()).spawn(move || engine.watch())?;
        Ok(())
    }

    /// Makes another thread, which begins with this order.
    fn hire(self: &Arc<Self>, first: Option<Order>) -> io::Result<()> {
        let engine = Arc::clone(self);
        let thread = thread::Builder::new().name("loop".to_owned()).stack_size(STACK_BYTES);
        let room = StackRoom::new(STACK_BYTES);
        let live = move || {
            let _room = room;
            engine.follow(first);
        };
        thread.spawn(live).map(|_| ())
    }

    /// A thread's life.
    fn follow(self: &Arc<Self>, first: Option<Order>) {
        let Some(mut place) = self.followers.enlist() else { return };
        // Without one it works as well, but dies with the process when a handler uses up its stack.
        let _signal_stack = SignalStack::new();
        let mut desk = Desk::new(place.index());
        self.places.fetch_max(place.index() + 1, Ordering::Relaxed);
        let mut order = first;
        loop {
            if let Some(Order { loop_index, seen }) = order.take() {
                delay::at(Point::Ordered);
                // It comes too late if the call is over, or another follower was quicker.
                if let Some(lead) = self.loops[loop_index as usize].steal(seen) {
                    self.lead(lead, loop_index as usize, &mut desk);
                }
            }
            let enough = self.followers.idle() >= self.ready_min;
            order = place.wait(enough.then_some(PATIENCE));
            if order.is_none() {
                return;
            }
        }
    }

    /// Runs one loop, until another thread has taken it over or it is over.
    fn lead(self: &Arc<Self>, mut lead: Lead<'_, EventLoop>, index: usize, desk: &mut Desk) {
        delay::at(Point::Stolen);
        if let Some(calling) = lead.calling.take()
            && !calling.passed_on
        {
            self.beside.fetch_add(1, Ordering::Relaxed);
            if let Some(pace) = calling.pace {
                pace.overtaken(clock::coarse_ms());
            }
        }
        loop {
            let Turn::Call(task) = lead.turn() else { return };
            if self.beside.load(Ordering::Relaxed) >= self.beside_max {
                lead.no_room(task);
                continue;
            }
            let Some(suspect) = task.suspect() else {
                let (id, outcome) = task.skip();
                lead.returned(id, outcome);
                continue;
            };
            // Before the token says that a call is under way: who sees that sees this.
            desk.slot.get().begin(suspect.record());
            let passed_on = task.way() != Way::Inline;
            lead.calling = Some(Calling { pace: task.pace(), passed_on });
            if passed_on {
                let Some(again) = self.pass_on(lead, index) else {
                    return self.call_beside(task, suspect, index, desk);
                };
                lead = again;
                desk.slot.get().end();
                lead.calling = None;
                if self.tainted.load(Ordering::Relaxed) {
                    lead.wait_for_another_worker(task)
                } else {
                    lead.no_room(task)
                }
                continue;
            }
            let ((id, outcome), back) = lead.call(|seen| {
                delay::at(Point::CallBegun);
                self.monitor.rouse();
                let order = Order { loop_index: index as u32, seen };
                let outcome = self.perform(task, suspect, index, Some(order), desk);
                delay::at(Point::CallOver);
                outcome
            });
            match back {
                Some(again) => {
                    lead = again;
                    lead.calling = None;
                    lead.returned(id, outcome);
                }
                None => return self.come_late(id, outcome, index, desk),
            }
        }
    }

    /// Gives the loop to a follower. If there is none, and none can be made, the lead comes back.
    fn pass_on<'a>(self: &Arc<Self>, lead: Lead<'a, EventLoop>, index: usize) -> Option<Lead<'a, EventLoop>> {
        self.beside.fetch_add(1, Ordering::Relaxed);
        let token = lead.token();
        let order = Order { loop_index: index as u32, seen: lead.release() };
        delay::at(Point::Released);
        // Should the order get lost, the monitor gives another.
        self.monitor.rouse();
        if self.followers.dispatch(order) {
            return None;
        }
        if self.tainted.load(Ordering::Relaxed) {
            self.hire_later();
        } else {
            self.complain(&self.hire(Some(order)).err()?);
        }
        // Unless the monitor has found somebody meanwhile.
        let again = token.steal(order.seen)?;
        self.beside.fetch_sub(1, Ordering::Relaxed);
        Some(again)
    }

    /// Makes a call while another thread leads the loop, and notes how long it takes.
    fn call_beside(&self, task: Task, suspect: &'static Suspect, index: usize, desk: &mut Desk) {
        let pace = task.pace();
        let (start, before) = (Instant::now(), ThreadUse::now());
        let (id, outcome) = self.perform(task, suspect, index, None, desk);
        if let Some(pace) = pace {
            let wall = start.elapsed();
            pace.measured(wall, ThreadUse::now().busy_since(before, wall));
        }
        self.come_late(id, outcome, index, desk);
    }

    /// Makes a call that has begun in the thread's slot. `order`: by which its loop can be taken over, if this thread leads it.
    fn perform(
        &self,
        task: Task,
        suspect: &'static Suspect,
        index: usize,
        order: Option<Order>,
        desk: &mut Desk,
    ) -> (Option<SlotId>, Outcome) {
        let slot = desk.slot.get();
        let own =
            Belongings { desk, loop_index: index, order, id: None, connection: None, permits: Permits::default() };
        let result = match task {
            Task::Connection(id, connection, Call { work, permits, .. }) => {
                let own = Belongings { id: Some(id), connection: Some(connection), permits, ..own };
                let origin = Origin { shared: &self.shared, loop_index: index, id };
                let (own, epilogue) = crash::watched(suspect, slot, self, own, |own| work.perform(own, origin));
                (Some(id), Outcome { connection: own.connection, epilogue })
            }
            Task::Epilogue(epilogue) => {
                crash::watched(suspect, slot, self, own, |_| epilogue.perform(slot, &self.shared));
                (None, Outcome { connection: None, epilogue: None })
            }
        };
        slot.end();
        result
    }

    /// The end of a call whose loop another thread leads. Only the leader touches a connection that is registered.
    fn come_late(&self, id: Option<SlotId>, outcome: Outcome, index: usize, desk: &mut Desk) {
        if let (Some(id), Some(connection)) = (id, outcome.connection) {
            delay::at(Point::Late);
            Origin { shared: &self.shared, loop_index: index, id }.give_back(connection);
        }
        if let Some(epilogue) = outcome.epilogue {
            let suspect = epilogue.suspect();
            desk.slot.get().begin(suspect.record());
            // The monitor, if it parks, has seen that, or is roused.
            fence(Ordering::SeqCst);
            self.monitor.rouse();
            self.perform(Task::Epilogue(epilogue), suspect, index, None, desk);
        }
        self.beside.fetch_sub(1, Ordering::Relaxed);
    }

    /// The monitor's life: it sees to it that no loop is without a leader for long, and that no call takes too long. It
    /// sleeps while no calls are made.
    fn watch(self: &Arc<Self>) {
        let mut overdue = Overdue::new(&self.shared.settings.config.timeouts);
        let mut seen = vec![Seen::default(); self.loops.len()];
        let (mut quiet, mut ticks) = (0, 0u32);
        let mut due = None;
        (self.shared.settings.notice)(Notice::Busy);
        loop {
            Sleeper::nap(TICK);
            let mut active = false;
            for (index, (token, seen)) in self.loops.iter().zip(&mut seen).enumerate() {
                let word = token.word();
                let call = token.observe();
                active |= word != seen.word || call.is_some();
                if let Some(call) = call
                    && seen.call == Some(call)
                {
                    self.replace_leader(Order { loop_index: index as u32, seen: call });
                }
                *seen = Seen { word, call };
            }
            ticks = ticks.wrapping_add(1);
            // A thread that was needed once has a slot for ever: looking at all of them is not for each tick.
            if ticks % LOOK_TICKS == 0 || due.is_some_and(|due| due <= Instant::now()) {
                due = overdue.look(self.slots(), |slot| {
                    (self.shared.settings.notice)(Notice::Crashed(Incident::of_stuck(slot), None));
                });
            }
            if self.followers.idle() < self.ready_min && self.beside.load(Ordering::Relaxed) < self.beside_max {
                self.reinforce(None);
            }
            quiet = if active { 0 } else { quiet + 1 };
            if quiet > QUIET_TICKS {
                delay::at(Point::Quiet);
                let patience = due.map(|due| due.saturating_duration_since(Instant::now()));
                self.shared.busy.store(false, Ordering::SeqCst);
                self.monitor.park_unless(patience, || {
                    let mut loops = self.loops.iter().zip(&seen);
                    loops.any(|(token, seen)| token.word() != seen.word) || !overdue.is_current(self.slots())
                });
                // In this order: who finds it not busy is told afterwards.
                self.shared.busy.store(true, Ordering::SeqCst);
                (self.shared.settings.notice)(Notice::Busy);
                quiet = 0;
            }
        }
    }

    fn replace_leader(self: &Arc<Self>, order: Order) {
        delay::at(Point::Seen);
        if !self.followers.dispatch(order) {
            self.reinforce(Some(order));
        }
    }

    fn reinforce(self: &Arc<Self>, first: Option<Order>) {
        if self.followers.is_full() {
            return;
        }
        if self.tainted.load(Ordering::Relaxed) {
            // The monitor gives the order again.
            return self.hire_later();
        }
        if let Err(error) = self.hire(first) {
            self.complain(&error);
        }
    }

    fn hire_later(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.hirer.rouse();
    }

    /// Makes threads in the stead of those who must not wait for a lock that a parked thread may hold for ever.
    fn hire_on_demand(self: &Arc<Self>) {
        loop {
            self.hirer.park_unless(None, || self.wanted.load(Ordering::SeqCst));
            if self.wanted.swap(false, Ordering::SeqCst)
                && let Err(error) = self.hire(None)
            {
                self.complain(&error);
            }
        }
    }

    /// The slots of all threads that may make calls.
    fn slots(&self) -> &'static [Slot] {
        recorder::slots(self.places.load(Ordering::Relaxed))
    }

    fn complain(&self, error: &io::Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::error!("cannot make a thread: {error}; calls that take long are answered 503");
        }
    }
}

impl Heir<Belongings<'_>> for Engine {
    fn inherit(&self, belongings: Belongings<'_>, fault: Fault) {
        let order = belongings.order;
        self.tainted.store(true, Ordering::Relaxed);
        belongings.leave(&self.shared, fault);
        if let Some(order) = order {
            // Without an idle follower the monitor finds one: the thread is in its call for ever.
            self.followers.dispatch(order);
            self.monitor.rouse();
        }
    }
}

/// How many threads of a worker may call modules at the same time: one for each call beside the loops, and so many that
/// there always is a follower for each loop, as long as the calls keep to their limit.
pub fn threads_max(config: &Config) -> usize {
    beside_max(config) + 2 * config.threads + ready_min(config.threads)
}

fn beside_max(config: &Config) -> usize {
    config.limits.threads_max.saturating_sub(config.threads).max(1)
}

fn ready_min(loops: usize) -> usize {
    loops + 1
}

/// How often the monitor looks while calls are made. A loop is taken over after one to two of these.
const TICK: Duration = Duration::from_millis(1);

/// The monitor parks after so many ticks without a call.
const QUIET_TICKS: u32 = 8;

/// It looks for calls that take too long each so many ticks, and when a limit is reached.
const LOOK_TICKS: u32 = 4;

/// A follower of whom there are enough ends after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// As much as a program's main thread has by default: modules are written with that in mind. It is memory only when used.
const STACK_BYTES: usize = 8 << 20;
