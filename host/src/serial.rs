//! One at a time, without blocking anybody: who comes while another is in leaves a note and is handed the permit later,
//! in the order of coming.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A door that one holder of a [`Permit`] at a time may pass.
#[derive(Default)]
pub struct Serial {
    state: Mutex<State>,
}

/// The right to be in; dropping it lets the next one in.
pub struct Permit(Arc<Serial>);

/// How somebody who waits is told: it is called on the thread that leaves, and must neither block nor run a module's code.
pub type Waiter = Box<dyn FnOnce(Permit) + Send>;

#[derive(Default)]
struct State {
    taken: bool,
    waiting: VecDeque<Waiter>,
}

impl Serial {
    /// The permit, if it is free; else `waiter()` is kept and called with it later.
    pub fn enter(self: &Arc<Self>, waiter: impl FnOnce() -> Waiter) -> Option<Permit> {
        let mut state = self.lock();
        if state.taken {
            state.waiting.push_back(waiter());
            return None;
        }
        state.taken = true;
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
            state.taken = next.is_some();
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
    fn one_who_has_left_meanwhile_passes_the_permit_on() {
        let serial = Arc::new(Serial::default());
        let permit = serial.enter(|| unreachable!("it is free"));
        assert!(serial.enter(|| Box::new(drop)).is_none());
        drop(permit);
        assert!(serial.enter(|| unreachable!("it is free again")).is_some());
    }
}
