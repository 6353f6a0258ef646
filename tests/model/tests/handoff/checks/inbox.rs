//! No letter is lost, and the receiver never sleeps while there is one.

use super::{Alarm, explore};
use crate::inbox::Inbox;
use crate::weaken::{Check, each_guarantee_is_needed};
use loom::cell::UnsafeCell;
use loom::thread;
use std::collections::VecDeque;
use std::sync::Arc;

const CHECKS: [Check; 2] = [
    ("a sender and a receiver who looks", a_sender_and_a_receiver_who_looks),
    ("two senders and a receiver who sleeps", two_senders_and_a_receiver_who_sleeps),
];

struct Letter {
    sender: usize,
    number: usize,
    /// Stands for what a letter is about: loom says if it is used before it is there.
    content: UnsafeCell<()>,
}

struct Mailbox {
    inbox: Inbox<Letter>,
    alarm: Alarm,
}

#[test]
fn two_senders_and_a_receiver_who_sleeps() {
    explore(3, || {
        let mailbox = Arc::new(Mailbox { inbox: Inbox::new(), alarm: Alarm::new() });
        let senders = [sender(&mailbox, 0, 1), sender(&mailbox, 1, 2)];
        let mut got = vec![0, 0];
        let mut batches = 0;
        while got.iter().sum::<usize>() < 3 {
            batches += receive(&mailbox, &mut got, true);
        }
        let rings: usize = senders.map(|sender| sender.join().unwrap()).iter().sum();
        assert_eq!(rings, batches, "the first letter of a batch asks for a ring, and only that");
    });
}

#[test]
fn a_sender_and_a_receiver_who_looks() {
    explore(3, || {
        let mailbox = Arc::new(Mailbox { inbox: Inbox::new(), alarm: Alarm::new() });
        let sender = sender(&mailbox, 0, 3);
        let mut got = vec![0];
        // A loop looks into its inbox also when something else has woken it.
        let mut batches = receive(&mailbox, &mut got, false);
        batches += receive(&mailbox, &mut got, false);
        while got[0] < 3 {
            batches += receive(&mailbox, &mut got, true);
        }
        assert_eq!(sender.join().unwrap(), batches, "the first letter of a batch asks for a ring, and only that");
    });
}

#[test]
fn each_guarantee_of_the_inbox_is_needed() {
    each_guarantee_is_needed(include_str!("../../../../../host/src/sys/inbox.rs"), "sys/inbox.rs", &CHECKS);
}

/// A thread that sends so many letters; it says how often it had to ring.
fn sender(mailbox: &Arc<Mailbox>, sender: usize, count: usize) -> thread::JoinHandle<usize> {
    let mailbox = Arc::clone(mailbox);
    thread::spawn(move || {
        let mut rings = 0;
        for number in 0..count {
            let letter = Letter { sender, number, content: UnsafeCell::new(()) };
            letter.content.with_mut(|_| ());
            if mailbox.inbox.push(letter) {
                mailbox.alarm.ring();
                rings += 1;
            }
        }
        rings
    })
}

/// Takes what is there; if that is nothing, sleeps when told so. Says whether there was a batch.
fn receive(mailbox: &Mailbox, got: &mut [usize], sleeps: bool) -> usize {
    let mut letters = VecDeque::new();
    mailbox.inbox.take(&mut letters);
    let batch = usize::from(!letters.is_empty());
    for letter in letters {
        letter.content.with_mut(|_| ());
        assert_eq!(letter.number, got[letter.sender], "the letters of a sender keep their order");
        got[letter.sender] += 1;
    }
    if batch == 0 && sleeps {
        mailbox.alarm.sleep();
    }
    batch
}
