//! The right to run an event loop: one atomic word that passes a value between threads without a lock.
//!
//! A lock is the wrong tool here: it cannot move between threads, and a thread that comes back late from a call could
//! win it again. The word is `sequence << 1 | IN_CALL`. While a leader is in a call it has no access to the value, so a
//! follower may take the value over; the leader finds out when it comes back and cannot restore its own word.

use super::sync::{AtomicU64, Ordering, UnsafeCell};
use std::ops::{Deref, DerefMut};

/// A value and the right to use it.
pub struct Token<T> {
    word: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a `Lead`, of which there is one at a time: `lead` gives the first, `call`
// consumes it, and either `call` or `steal` (never both: they compete for one word) gives the next.
unsafe impl<T: Send> Sync for Token<T> {}

/// The proof that its holder is the leader. It derefs to the value.
pub struct Lead<'a, T> {
    token: &'a Token<T>,
    sequence: u64,
}

/// A leader's word while it is in a call, as an observer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InCall(u64);

impl<T> Token<T> {
    /// A token whose value nobody leads yet: the first call of [`steal`](Self::steal) wins it.
    pub fn new(value: T) -> Token<T> {
        Token { word: AtomicU64::new(IN_CALL), value: UnsafeCell::new(value) }
    }

    /// What the leader is in, if it is in a call. Two equal observations are the same call.
    pub fn observe(&self) -> Option<InCall> {
        // Relaxed: it gives no access to the value, and `steal` does not rely on it.
        let word = self.word.load(Ordering::Relaxed);
        (word & IN_CALL != 0).then_some(InCall(word))
    }

    /// The word, whatever it says: it is another one after each call.
    pub fn word(&self) -> u64 {
        self.word.load(Ordering::SeqCst)
    }

    /// Takes the lead from a thread that still is in the call that was observed.
    pub fn steal(&self, seen: InCall) -> Option<Lead<'_, T>> {
        let sequence = (seen.0 >> 1) + 1;
        // Acquire: the value as the late leader left it before its call is visible here.
        self.word.compare_exchange(seen.0, sequence << 1, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Lead { token: self, sequence })
    }
}

impl<'a, T> Lead<'a, T> {
    /// Runs `work`, which may block, without access to the value; it learns by what the lead can be stolen. Gives the lead
    /// back unless it was stolen meanwhile.
    ///
    /// If `work` unwinds, the lead stays in the call and can be stolen: the value is not lost.
    pub fn call<R>(self, work: impl FnOnce(InCall) -> R) -> (R, Option<Lead<'a, T>>) {
        let Lead { token, sequence } = self;
        let sequence = sequence + 1;
        let word = sequence << 1 | IN_CALL;
        // What this leader did to the value is visible to whoever steals it (release). And the store comes before every
        // later look of this thread at a [`Sleeper`](super::sleeper::Sleeper): a monitor that parks has seen it, or is roused.
        token.word.store(word, Ordering::SeqCst);
        let result = work(InCall(word));
        // Relaxed: the word that it finds is its own, so nobody has touched the value since.
        let back = token.word.compare_exchange(word, sequence << 1, Ordering::Relaxed, Ordering::Relaxed);
        (result, back.is_ok().then_some(Lead { token, sequence }))
    }

    /// Gives the lead up, before a call that will block: whoever first steals it from what this returns has it then.
    pub fn release(self) -> InCall {
        let word = (self.sequence + 1) << 1 | IN_CALL;
        self.token.word.store(word, Ordering::SeqCst);
        InCall(word)
    }

    /// The token that this is the lead of.
    pub fn token(&self) -> &'a Token<T> {
        self.token
    }
}

impl InCall {
    /// As a number, for those who pass it on in an atomic.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The observation that has this number.
    pub fn from_number(number: u64) -> InCall {
        InCall(number)
    }
}

impl<T> Deref for Lead<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this lead is the only one, and it is borrowed.
        unsafe { &*self.token.value.get() }
    }
}

impl<T> DerefMut for Lead<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this lead is the only one, and it is borrowed mutably.
        unsafe { &mut *self.token.value.get() }
    }
}

/// The lowest bit of the word: the leader is in a call.
const IN_CALL: u64 = 1;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn a_leader_that_nobody_overtakes_comes_back() {
        let token = Token::new(1);
        let mut lead = token.steal(token.observe().unwrap()).unwrap();
        *lead += 1;
        assert_eq!(token.observe(), None);
        let (seen, lead) = lead.call(|_| token.observe());
        assert!(seen.is_some());
        assert_eq!(*lead.unwrap(), 2);
    }

    #[test]
    fn a_late_leader_never_takes_the_lead_back() {
        let token = Token::new(0);
        let lead = token.steal(token.observe().unwrap()).unwrap();
        let (_, late) = lead.call(|_| {
            let mut follower = token.steal(token.observe().unwrap()).unwrap();
            *follower += 1;
            // Even when the follower is in a call of its own at the moment that the late one comes back.
            let (_, back) = follower.call(|_| ());
            assert!(back.is_some());
        });
        assert!(late.is_none());
    }

    #[test]
    fn an_old_observation_steals_nothing() {
        let token = Token::new(());
        let lead = token.steal(token.observe().unwrap()).unwrap();
        let (old, lead) = lead.call(|_| token.observe().unwrap());
        let (stolen, _) = lead.unwrap().call(|_| token.steal(old).is_some());
        assert!(!stolen);
    }

    #[test]
    fn a_lead_that_is_given_up_can_be_stolen_once() {
        let token = Token::new(1);
        let lead = token.steal(token.observe().unwrap()).unwrap();
        let given_up = InCall::from_number(lead.release().number());
        assert_eq!(token.observe(), Some(given_up));
        let follower = token.steal(given_up);
        assert_eq!(follower.as_deref(), Some(&1));
        assert!(token.steal(given_up).is_none());
    }

    #[test]
    fn leaders_and_thieves_work_on_one_value_and_lose_nothing() {
        const LEADS: u64 = 20_000;
        let (token, done) = (Token::new(0u64), AtomicU64::new(0));
        // A value that two threads had at once would miss what one of them added.
        let turn = |mut lead: Lead<'_, u64>| {
            *lead += 1;
            done.fetch_add(1, Ordering::Relaxed);
            if let (_, Some(mut lead)) = lead.call(|_| std::thread::yield_now()) {
                *lead += 1;
                done.fetch_add(1, Ordering::Relaxed);
                lead.release();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while done.load(Ordering::Relaxed) < LEADS {
                        token.observe().and_then(|seen| token.steal(seen)).map_or_else(std::thread::yield_now, turn);
                    }
                });
            }
        });
        let last = token.steal(token.observe().unwrap()).unwrap();
        assert_eq!(*last, done.load(Ordering::Relaxed));
    }

    #[test]
    fn two_thieves_share_no_lead() {
        for _ in 0..2_000 {
            let token = Token::new(0u32);
            let seen = token.observe().unwrap();
            let barrier = Barrier::new(2);
            let won = std::thread::scope(|scope| {
                let thief = || {
                    barrier.wait();
                    token.steal(seen).map(|mut lead| *lead += 1).is_some()
                };
                let other = scope.spawn(thief);
                usize::from(thief()) + usize::from(other.join().unwrap())
            });
            assert_eq!(won, 1);
        }
    }
}
