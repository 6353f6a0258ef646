//! An order that is given is taken, once, whatever ends at the same moment.

use super::explore;
use crate::roster::{Order, Roster};
use crate::sync::end_patience;
use crate::token::InCall;
use crate::weaken::{Check, each_guarantee_is_needed};
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;
use std::time::Duration;

const CHECKS: [Check; 6] = [
    ("an order and the end of patience", an_order_and_the_end_of_patience),
    ("a place that is given back", a_place_that_is_given_back),
    ("orders one after the other", orders_one_after_the_other),
    ("two orders and one place", two_orders_and_one_place),
    ("two orders and two places", two_orders_and_two_places),
    ("two givers and two places", two_givers_and_two_places),
];

const PATIENCE: Option<Duration> = Some(Duration::from_secs(1));

#[test]
fn an_order_and_the_end_of_patience() {
    explore(3, || {
        let roster = Arc::new(Roster::new(1));
        let follower = follower(&roster, PATIENCE, 1);
        let time = thread::spawn(end_patience);
        let given = give(&roster, 1);
        assert_taken(&roster, [given], [follower]);
        time.join().unwrap();
    });
}

#[test]
fn two_orders_and_one_place() {
    explore(2, || {
        let roster = Arc::new(Roster::new(1));
        let follower = follower(&roster, PATIENCE, 1);
        let time = thread::spawn(end_patience);
        let other = giver(&roster, 1);
        let given = give(&roster, 2);
        assert_taken(&roster, [given, other.join().unwrap()], [follower]);
        time.join().unwrap();
    });
}

#[test]
fn two_orders_and_two_places() {
    explore(2, || {
        let roster = Arc::new(Roster::new(2));
        let followers = [follower(&roster, PATIENCE, 1), follower(&roster, PATIENCE, 1)];
        let time = thread::spawn(end_patience);
        let given = [give(&roster, 1), give(&roster, 2)];
        assert_taken(&roster, given, followers);
        time.join().unwrap();
    });
}

#[test]
fn two_givers_and_two_places() {
    explore(2, || {
        let roster = Arc::new(Roster::new(2));
        let followers = [follower(&roster, PATIENCE, 1), follower(&roster, PATIENCE, 1)];
        let other = giver(&roster, 1);
        let given = give(&roster, 2);
        let other = other.join().unwrap();
        end_patience();
        assert_taken(&roster, [given, other], followers);
    });
}

/// The second order is not written over the first, nor is the first read again; and who gives an order sees what the
/// follower did before it waited.
#[test]
fn orders_one_after_the_other() {
    explore(3, || {
        let (roster, done) = (Arc::new(Roster::new(1)), Arc::new(UnsafeCell::new(())));
        let follower = {
            let (roster, done) = (Arc::clone(&roster), Arc::clone(&done));
            thread::spawn(move || {
                done.with_mut(|_| ());
                follow(&roster, None, 2)
            })
        };
        for number in 1..3 {
            while give(&roster, number).is_none() {
                thread::yield_now();
            }
            done.with(|_| ());
        }
        assert_taken(&roster, [Some(1), Some(2)], [follower]);
    });
}

/// The next thread in a place finds all done that the last one did.
#[test]
fn a_place_that_is_given_back() {
    explore(3, || {
        let roster = Arc::new(Roster::new(1));
        let held = Arc::new(UnsafeCell::new(()));
        let hold =
            |roster: &Roster, held: &UnsafeCell<()>| roster.enlist().map(|_place| held.with_mut(|_| ())).is_some();
        let other = {
            let (roster, held) = (Arc::clone(&roster), Arc::clone(&held));
            thread::spawn(move || hold(&roster, &held))
        };
        let one = hold(&roster, &held);
        assert!(one | other.join().unwrap(), "nobody has got the place");
        assert!(!roster.is_full());
        assert!(roster.enlist().is_some() && roster.enlist().is_some());
    });
}

#[test]
fn each_guarantee_of_the_roster_is_needed() {
    each_guarantee_is_needed(include_str!("../../../../../host/src/sys/roster.rs"), "sys/roster.rs", &CHECKS);
}

/// A thread that takes a place and waits for an order so many times, until its patience ends; it says what it has got.
fn follower(roster: &Arc<Roster>, patience: Option<Duration>, orders: usize) -> thread::JoinHandle<Vec<u64>> {
    let roster = Arc::clone(roster);
    thread::spawn(move || follow(&roster, patience, orders))
}

fn follow(roster: &Roster, patience: Option<Duration>, orders: usize) -> Vec<u64> {
    let mut place = roster.enlist().expect("there are as many places as threads");
    let number = |Order { loop_index, seen }: Order| {
        assert_eq!(u64::from(loop_index), seen.number(), "parts of two orders");
        seen.number()
    };
    (0..orders).map_while(|_| place.wait(patience)).map(number).collect()
}

fn give(roster: &Roster, number: u64) -> Option<u64> {
    roster.dispatch(Order { loop_index: number as u32, seen: InCall::from_number(number) }).then_some(number)
}

fn giver(roster: &Arc<Roster>, number: u64) -> thread::JoinHandle<Option<u64>> {
    let roster = Arc::clone(roster);
    thread::spawn(move || give(&roster, number))
}

/// Those who follow have got what was given, each once, and have left nothing behind.
fn assert_taken<const F: usize, const G: usize>(
    roster: &Roster,
    given: [Option<u64>; G],
    followers: [thread::JoinHandle<Vec<u64>>; F],
) {
    let mut got: Vec<u64> = followers.into_iter().flat_map(|follower| follower.join().unwrap()).collect();
    let mut given: Vec<u64> = given.into_iter().flatten().collect();
    got.sort_unstable();
    given.sort_unstable();
    assert_eq!(got, given, "an order is lost, or was given twice");
    assert_eq!(roster.idle(), 0, "who is idle is counted wrong");
    assert!(!roster.is_full(), "who has a place is counted wrong");
}
