//! One at a time, or a few, without blocking anybody: who comes while no permit is left leaves a note and is handed one
//! later, in the order of coming.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A door that so many holders of a [`Permit`] at a time may pass.
pub struct Serial {
    permits: usize,
    state: Mutex<State>,
}

/// The right to be in; dropping it lets the next one in.
pub struct Permit(Arc<Serial>);

/// How somebody who waits is told: it is called on the thread that leaves, and must neither block nor run a module's code.
pub type Waiter = Box<dyn FnOnce(Permit) + Send>;

#[derive(Default)]
struct State {
    taken: usize,
    waiting: VecDeque<Waiter>,
}

impl Default for Serial {
    /// A door for one at a time.
    fn default() -> Serial {
        Serial::for_so_many(1)
    }
}

impl Serial {
    /// A door for so many at a time, at least one.
    pub fn for_so_many(permits: usize) -> Serial {
        Serial { permits: permits.max(1), state: Mutex::default() }
    }

    /// A permit, if one is free; else `waiter()` is kept and called with it later.
    pub fn enter(self: &Arc<Self>, waiter: impl FnOnce() -> Waiter) -> Option<Permit> {
        let mut state = self.lock();
        if state.taken == self.permits {
            state.waiting.push_back(waiter());
            return None;
        }
        state.taken += 1;
        Some(Permit(Arc::clone(self)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Whether this permit is for that door.
    pub fn is_for(&self, serial: &Arc<Serial>) -> bool {
        Arc::ptr_eq(&self.0, serial)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock();
            let next = state.waiting.pop_front();
            if next.is_none() {
                state.taken -= 1;
            }
            next
        };
        if let Some(waiter) = next {
            waiter(Permit(Arc::clone(&self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn those_who_wait_are_let_in_one_by_one_in_order() {
        let serial = Arc::new(Serial::default());
        let (sender, receiver) = mpsc::channel();
        let mut permit = serial.enter(|| unreachable!("it is free"));
        for n in 0..3 {
            let sender = sender.clone();
            let waiter: Waiter = Box::new(move |permit| sender.send((n, permit)).unwrap());
            assert!(serial.enter(|| waiter).is_none());
        }
        for n in 0..3 {
            assert!(receiver.try_recv().is_err(), "somebody is in");
            drop(permit);
            let (who, next) = receiver.try_recv().unwrap();
            assert_eq!(who, n);
            permit = Some(next);
        }
        drop(permit);
        assert!(serial.enter(|| unreachable!("it is free again")).is_some());
    }

    #[test]
    fn a_wide_door_lets_so_many_in() {
        let door = Arc::new(Serial::for_so_many(2));
        let (sender, receiver) = mpsc::channel();
        let first = door.enter(|| unreachable!("it is free"));
        let second = door.enter(|| unreachable!("there is room for one more"));
        assert!(first.is_some() && second.is_some());
        assert!(door.enter(|| Box::new(move |permit| sender.send(permit).unwrap())).is_none());
        drop(first);
        let third = receiver.try_recv().expect("the permit is handed on");
        drop(second);
        let fourth = door.enter(|| unreachable!("there is room again"));
        drop((third, fourth));
        assert_eq!(door.lock().taken, 0);
    }

    #[test]
    fn one_who_has_left_meanwhile_passes_the_permit_on() {
        let serial = Arc::new(Serial::default());
        let permit = serial.enter(|| unreachable!("it is free"));
        assert!(serial.enter(|| Box::new(drop)).is_none());
        drop(permit);
        assert!(serial.enter(|| unreachable!("it is free again")).is_some());
    }
}
