//! A lock-free queue of many senders and one receiver: pushing never waits for anybody, so it may be done by a thread
//! that must not take a lock. It is a Treiber stack that the receiver takes whole and turns round.

use super::sync::{AtomicPtr, Ordering};
use std::mem::MaybeUninit;
use std::ptr;

/// The queue.
pub struct Inbox<T> {
    top: AtomicPtr<Node<T>>,
}

struct Node<T> {
    below: *mut Node<T>,
    letter: T,
}

/// The memory for a letter, made beforehand for a thread that may have to send it when it must not allocate.
pub struct Blank<T>(Box<MaybeUninit<Node<T>>>);

impl<T> Default for Blank<T> {
    /// Memory for one letter.
    fn default() -> Blank<T> {
        Blank(Box::new_uninit())
    }
}

// SAFETY: letters are moved in by one thread and out by another, which `T: Send` allows; nothing is shared.
unsafe impl<T: Send> Sync for Inbox<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Inbox<T> {}

impl<T> Inbox<T> {
    /// An empty queue.
    pub fn new() -> Inbox<T> {
        Inbox { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Adds a letter; true if the queue was empty, so that only the first sender has to wake the receiver.
    pub fn push(&self, letter: T) -> bool {
        self.publish(Box::into_raw(Box::new(Node { below: ptr::null_mut(), letter })))
    }

    /// As [`push`](Self::push), in memory that was made beforehand.
    ///
    /// It takes no lock and allocates nothing: a signal handler may call it (signal-safety(7)).
    pub fn push_on(&self, blank: Blank<T>, letter: T) -> bool {
        let node = Box::into_raw(blank.0).cast::<Node<T>>();
        // SAFETY: the memory is ours, and as large and aligned as a node.
        unsafe { node.write(Node { below: ptr::null_mut(), letter }) };
        self.publish(node)
    }

    fn publish(&self, node: *mut Node<T>) -> bool {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is not published yet, so this thread alone has it.
            unsafe { (*node).below = top };
            match self.top.compare_exchange_weak(top, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return top.is_null(),
                Err(now) => top = now,
            }
        }
    }

    /// Takes all letters, oldest first, onto the end of `letters`.
    pub fn take(&self, letters: &mut std::collections::VecDeque<T>) {
        if self.top.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut node = self.top.swap(ptr::null_mut(), Ordering::Acquire);
        let oldest_at = letters.len();
        while !node.is_null() {
            // SAFETY: the swap took the whole chain, every node of which came from `Box::into_raw` and is reached once.
            let Node { below, letter } = *unsafe { Box::from_raw(node) };
            letters.push_back(letter);
            node = below;
        }
        letters.make_contiguous()[oldest_at..].reverse();
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox::new()
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.take(&mut std::collections::VecDeque::new());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn letters_of_one_sender_keep_their_order_and_none_is_lost() {
        const SENDERS: usize = 4;
        const EACH: usize = 2_000;
        let inbox = Inbox::new();
        let mut got = VecDeque::new();
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let inbox = &inbox;
                scope.spawn(move || (0..EACH).for_each(|n| _ = inbox.push((sender, n))));
            }
            while got.len() < SENDERS * EACH {
                inbox.take(&mut got);
                std::thread::yield_now();
            }
        });
        for sender in 0..SENDERS {
            let of_sender: Vec<_> = got.iter().filter(|letter| letter.0 == sender).map(|letter| letter.1).collect();
            assert_eq!(of_sender, (0..EACH).collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_the_first_letter_asks_for_a_wake() {
        let inbox = Inbox::new();
        assert!(inbox.push(1));
        assert!(!inbox.push(2));
        inbox.take(&mut VecDeque::new());
        assert!(inbox.push(3));
    }
}
