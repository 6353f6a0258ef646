//! Threads that are ready to take over an event loop, and how they get their orders: without a lock, so that also a
//! signal handler can give one.
//!
//! Each thread has a place, whose state is a futex word. Only the thread itself makes its place idle; who gives an order
//! makes it busy first, writes the order, and then says so.

use super::sync::{AtomicU32, AtomicU64, AtomicUsize, Instant, Ordering, futex};
use super::token::InCall;
use std::time::Duration;

/// The places.
pub struct Roster {
    cells: Box<[Cell]>,
    idle: AtomicUsize,
    taken: AtomicUsize,
}

/// A place; each in a cache line of its own.
#[repr(align(64))]
struct Cell {
    state: AtomicU32,
    loop_index: AtomicU32,
    seen: AtomicU64,
}

/// A thread's own place. Dropping it makes it vacant.
pub struct Place<'a> {
    roster: &'a Roster,
    index: usize,
    cell: &'a Cell,
}

/// What a thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The loop that it shall take over,
    pub loop_index: u32,
    /// from a leader that is in this call.
    pub seen: InCall,
}

impl Roster {
    /// So many vacant places.
    pub fn new(places: usize) -> Roster {
        let cell = |_| Cell { state: AtomicU32::new(VACANT), loop_index: AtomicU32::new(0), seen: AtomicU64::new(0) };
        Roster { cells: (0..places).map(cell).collect(), idle: AtomicUsize::new(0), taken: AtomicUsize::new(0) }
    }

    /// A place for the calling thread; `None` if all are taken.
    pub fn enlist(&self) -> Option<Place<'_>> {
        let (index, cell) = self.cells.iter().enumerate().find(|(_, cell)| cell.change(VACANT, BUSY))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some(Place { roster: self, index, cell })
    }

    /// How many threads wait for an order; it may have changed already.
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether all places are taken; it may have changed already.
    pub fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.cells.len()
    }

    /// Gives an order to an idle thread and wakes it; false if there is none.
    ///
    /// It takes no lock and allocates nothing: a signal handler may call it (signal-safety(7)).
    pub fn dispatch(&self, order: Order) -> bool {
        // The first idle one always: so those at the front stay warm, and those at the back may end.
        let Some(cell) = self.cells.iter().find(|cell| cell.change(IDLE, BUSY)) else { return false };
        self.idle.fetch_sub(1, Ordering::Relaxed);
        cell.loop_index.store(order.loop_index, Ordering::Relaxed);
        cell.seen.store(order.seen.number(), Ordering::Relaxed);
        // Release: the order is visible to who sees the state.
        cell.state.store(ORDERED, Ordering::Release);
        futex::wake(&cell.state);
        true
    }
}

impl Place<'_> {
    /// Which one it is: nobody else has the same as long as this one is held.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Waits for an order; `None` if none has come within `patience`.
    pub fn wait(&mut self, patience: Option<Duration>) -> Option<Order> {
        let end = patience.map(|patience| Instant::now() + patience);
        self.roster.idle.fetch_add(1, Ordering::Relaxed);
        self.cell.state.store(IDLE, Ordering::Release);
        loop {
            let state = self.cell.state.load(Ordering::Acquire);
            if state == ORDERED {
                self.cell.state.store(BUSY, Ordering::Relaxed);
                let seen = InCall::from_number(self.cell.seen.load(Ordering::Relaxed));
                return Some(Order { loop_index: self.cell.loop_index.load(Ordering::Relaxed), seen });
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) && self.cell.change(IDLE, BUSY) {
                self.roster.idle.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            // If an order is being written (`BUSY`), it is there in a moment: the wait is for the change of that word.
            futex::wait(&self.cell.state, state, left.filter(|left| !left.is_zero()));
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.cell.state.store(VACANT, Ordering::Release);
        self.roster.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cell {
    fn change(&self, from: u32, to: u32) -> bool {
        // The load first: most places are not in that state, and a look does not take the cache line from its thread.
        self.state.load(Ordering::Relaxed) == from
            && self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// Nobody's.
const VACANT: u32 = 0;
/// Its thread is at work, or is being given an order.
const BUSY: u32 = 1;
/// Its thread waits.
const IDLE: u32 = 2;
/// There is an order in it.
const ORDERED: u32 = 3;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    fn order(number: u64) -> Order {
        Order { loop_index: number as u32, seen: InCall::from_number(number) }
    }

    #[test]
    fn no_order_is_lost_or_given_twice() {
        const ORDERS: u64 = 5_000;
        let (roster, over) = (Roster::new(4), AtomicBool::new(false));
        let (sender, got) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let sender = sender.clone();
                let (roster, over) = (&roster, &over);
                scope.spawn(move || {
                    let mut place = roster.enlist().expect("there are as many places as threads");
                    while !over.load(Ordering::Relaxed) {
                        // Impatient, so that orders and ends of patience meet.
                        if let Some(order) = place.wait(Some(Duration::from_micros(20))) {
                            assert_eq!(u64::from(order.loop_index), order.seen.number());
                            sender.send(order.seen.number()).unwrap();
                        }
                    }
                });
            }
            for number in 0..ORDERS {
                while !roster.dispatch(order(number)) {
                    std::thread::yield_now();
                }
            }
            let mut numbers: Vec<_> = got.iter().take(ORDERS as usize).collect();
            over.store(true, Ordering::Relaxed);
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..ORDERS), "each order once");
        });
        assert_eq!(roster.idle(), 0);
        assert!(!roster.is_full());
    }

    #[test]
    fn who_is_busy_gets_no_order() {
        let roster = Roster::new(1);
        assert!(!roster.dispatch(order(1)), "nobody is there");
        let mut place = roster.enlist().unwrap();
        assert!(roster.enlist().is_none() && roster.is_full());
        assert!(!roster.dispatch(order(1)), "it does not wait");
        assert_eq!(place.wait(Some(Duration::from_millis(1))), None);
        assert!(!roster.dispatch(order(1)), "it does not wait any more");
        drop(place);
        assert!(roster.enlist().is_some());
    }
}
