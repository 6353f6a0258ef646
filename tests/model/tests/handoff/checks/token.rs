//! A token has one leader at a time, and the value goes with the lead.

use super::{explore, sleeper};
use crate::token::{InCall, Lead, Token};
use crate::weaken::{Check, each_guarantee_is_needed};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::sync::Arc;

pub const CHECKS: [Check; 5] = [
    ("a call and a thief compete", a_call_and_a_thief_compete),
    ("a call and two thieves compete", a_call_and_two_thieves_compete),
    ("a lead that is given up goes to one of two", a_lead_that_is_given_up_goes_to_one_of_two),
    ("what was seen of a call may be passed on", what_was_seen_of_a_call_may_be_passed_on),
    ("who comes late stays late, whatever the others do", who_comes_late_stays_late_whatever_the_others_do),
];

#[test]
fn a_call_and_a_thief_compete() {
    explore(3, || {
        let token = Arc::new(Token::new(0));
        let lead = token.steal(token.observe().unwrap()).unwrap();
        let thief = thief(&token);
        let added = lead_once(lead);
        assert_last(&token, added + thief.join().unwrap());
    });
}

#[test]
fn a_call_and_two_thieves_compete() {
    explore(2, || {
        let token = Arc::new(Token::new(0));
        let lead = token.steal(token.observe().unwrap()).unwrap();
        let thieves = [thief(&token), thief(&token)];
        let added = lead_once(lead);
        assert_last(&token, added + thieves.map(|thief| thief.join().unwrap()).iter().sum::<u32>());
    });
}

/// The two are the follower that has got the order, and the one that the monitor sends because it sees the same call.
#[test]
fn a_lead_that_is_given_up_goes_to_one_of_two() {
    explore(3, || {
        let token = Arc::new(Token::new(0));
        let mut lead = token.steal(token.observe().unwrap()).unwrap();
        *lead += 1;
        let given_up = lead.release();
        let follower = {
            let token = Arc::clone(&token);
            thread::spawn(move || token.steal(given_up).map_or(0, lead_once))
        };
        let sent = thief(&token);
        assert_last(&token, 1 + follower.join().unwrap() + sent.join().unwrap());
    });
}

/// The monitor sees the call, and the follower who steals it has no more than the number.
#[test]
fn what_was_seen_of_a_call_may_be_passed_on() {
    explore(3, || {
        let token = Arc::new(Token::new(0));
        let lead = token.steal(token.observe().unwrap()).unwrap();
        let passed_on = Arc::new(AtomicU64::new(0));
        let monitor = {
            let (token, passed_on) = (Arc::clone(&token), Arc::clone(&passed_on));
            thread::spawn(move || {
                let number = token.observe().map_or(0, InCall::number);
                passed_on.store(number, Ordering::Relaxed);
            })
        };
        let follower = {
            let (token, passed_on) = (Arc::clone(&token), Arc::clone(&passed_on));
            thread::spawn(move || match passed_on.load(Ordering::Relaxed) {
                0 => 0,
                number => token.steal(InCall::from_number(number)).map_or(0, lead_once),
            })
        };
        let added = lead_once(lead);
        monitor.join().unwrap();
        assert_last(&token, added + follower.join().unwrap());
    });
}

/// The words of the others' calls are never that of the late call: it would take the lead from under them.
#[test]
fn who_comes_late_stays_late_whatever_the_others_do() {
    explore(2, || {
        let token = Arc::new(Token::new(0));
        let lead = token.steal(token.observe().unwrap()).unwrap();
        let follower = {
            let token = Arc::clone(&token);
            thread::spawn(move || {
                let Some(mut lead) = token.observe().and_then(|seen| token.steal(seen)) else { return 0 };
                *lead += 1;
                let (_, Some(mut lead)) = lead.call(|_| ()) else { return 1 };
                *lead += 1;
                2 + lead_once(lead)
            })
        };
        let mut added = lead_once(lead);
        added += token.observe().and_then(|seen| token.steal(seen)).map_or(0, lead_once);
        assert_last(&token, added + follower.join().unwrap());
    });
}

#[test]
fn each_guarantee_of_the_token_is_needed() {
    let checks = [&CHECKS[..], &sleeper::CHECKS].concat();
    each_guarantee_is_needed(include_str!("../../../../../host/src/sys/token.rs"), "sys/token.rs", &checks);
}

/// A thread that takes the lead over if it sees a call; it says how much it has added.
fn thief(token: &Arc<Token<u32>>) -> thread::JoinHandle<u32> {
    let token = Arc::clone(token);
    thread::spawn(move || token.observe().and_then(|seen| token.steal(seen)).map_or(0, lead_once))
}

/// Uses the value before a call and, if the lead comes back, after it.
fn lead_once(mut lead: Lead<'_, u32>) -> u32 {
    *lead += 1;
    let (_, Some(mut lead)) = lead.call(|_| ()) else { return 1 };
    *lead += 1;
    lead.release();
    2
}

fn assert_last(token: &Token<u32>, added: u32) {
    let last = token.observe().and_then(|seen| token.steal(seen)).expect("somebody has left it in a call");
    assert_eq!(*last, added, "what somebody has added is lost");
}
