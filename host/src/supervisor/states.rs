//! The states of modules, kept for whoever takes their place: the next worker, the next build.
//!
//! Each worker has memory of its own, and so a module has a state in each. What keeps them apart is the **seat**: a
//! replacement has the seat of the worker that it replaces, and gets what was saved there. It gets it when nobody before it
//! in that seat may still change it.

use super::builds::LastStates;
use super::crew::WorkerId;
use crate::control::State;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Whose state: the number of a seat, and a module.
pub(super) type Place = (usize, String);

/// All that is kept, in sealed files in memory that only workers read.
#[derive(Default)]
pub(super) struct States {
    kept: BTreeMap<Place, Arc<OwnedFd>>,
    /// Those that somebody in another process may still change.
    expected: BTreeSet<Place>,
    /// One of each module, for the checkers of new builds.
    last: LastStates,
}

/// A worker's place among the others, and what it has to do with states there.
#[derive(Debug)]
pub(super) struct Seat {
    number: usize,
    /// Modules whose requests wait for a state.
    awaits: BTreeSet<Place>,
    /// Modules whose state it has, and will hand on.
    has: BTreeSet<Place>,
}

impl States {
    /// Where the checkers find a state to try.
    pub(super) fn last(&self) -> LastStates {
        self.last.clone()
    }

    /// Takes note of what a worker in this seat has told.
    pub(super) fn note(&mut self, seat: usize, module: &str, generation: u64, state: State, saved: Option<OwnedFd>) {
        if state == State::Unusable {
            self.kept.remove(&(seat, module.to_owned()));
            self.last.forget(module);
            tracing::error!("the state of {module} is given up: generation {generation} could not be restored from it");
        }
        if let Some(saved) = saved.map(Arc::new) {
            self.last.keep(module, Arc::clone(&saved));
            self.kept.insert((seat, module.to_owned()), saved);
        }
    }

    /// What is kept there.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub(super) fn of(&self, place: &Place) -> std::io::Result<Option<OwnedFd>> {
        self.kept.get(place).map(|kept| kept.try_clone()).transpose()
    }

    /// Where something is kept.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.kept.keys()
    }

    /// These will come from another process: until then nobody gets them.
    pub(super) fn expect(&mut self, places: BTreeSet<Place>) {
        self.expected = places;
    }

    /// One of them has come. `is_final`: it will not come again.
    pub(super) fn inherit(&mut self, place: Place, saved: Option<OwnedFd>, is_final: bool) {
        if is_final {
            self.expected.remove(&place);
        }
        self.note(place.0, &place.1, 0, State::Saved, saved);
    }

    /// What has not come will not come.
    pub(super) fn inherit_nothing_more(&mut self) {
        self.expected.clear();
    }
}

impl Seat {
    /// The seat of this number, for a worker that has loaded nothing.
    pub(super) fn new(number: usize) -> Seat {
        Seat { number, awaits: BTreeSet::new(), has: BTreeSet::new() }
    }

    /// The lowest number that nobody of these has.
    pub(super) fn free<'a>(taken: impl Iterator<Item = &'a Seat>) -> usize {
        let taken: BTreeSet<_> = taken.map(|seat| seat.number).collect();
        (0..).find(|number| !taken.contains(number)).unwrap_or_default()
    }

    /// Its number.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// A build of a module that has its state kept is loaded by the worker.
    pub(super) fn await_state(&mut self, module: &str) {
        self.awaits.insert((self.number, module.to_owned()));
    }

    /// The states that the worker has, or waits for.
    pub(super) fn holds(&self) -> impl Iterator<Item = &Place> {
        self.awaits.iter().chain(&self.has)
    }

    /// The worker does not call the module any more.
    pub(super) fn settled(&mut self, module: &str) {
        let place = (self.number, module.to_owned());
        self.awaits.remove(&place);
        self.has.remove(&place);
    }
}

/// Gives those their states who wait for one that nobody will change any more. `workers` are in the order of their hiring.
pub(super) fn hand_over<'a>(
    workers: impl Iterator<Item = (WorkerId, &'a mut Seat)>,
    states: &States,
    mut give: impl FnMut(WorkerId, String, Option<OwnedFd>),
) {
    let mut held = states.expected.clone();
    for (id, seat) in workers {
        let free = |place: &Place| !held.contains(place);
        for place in seat.awaits.extract_if(.., |place| free(place)).collect::<Vec<_>>() {
            let state = states.of(&place).unwrap_or_else(|error| {
                tracing::error!("{} begins anew: its state cannot be passed on: {error}", place.1);
                None
            });
            give(id, place.1.clone(), state);
            seat.has.insert(place);
        }
        held.extend(seat.has.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::channel::{memory_file, read_memory_file};

    fn seat(number: usize) -> Seat {
        let mut seat = Seat::new(number);
        seat.await_state("m");
        seat
    }

    fn keep(states: &mut States, seat: usize, text: &str) {
        states.note(seat, "m", 1, State::Saved, Some(memory_file(text.as_bytes()).unwrap()));
    }

    /// Who is given what.
    fn given(workers: &mut [Seat], states: &States) -> Vec<(WorkerId, Option<String>)> {
        let mut given = Vec::new();
        hand_over((1..).zip(workers), states, |id, module, state| {
            assert_eq!(module, "m");
            given.push((id, state.map(|file| String::from_utf8(read_memory_file(file).unwrap()).unwrap())));
        });
        given
    }

    #[test]
    fn a_replacement_gets_the_state_when_the_one_before_it_has_settled() {
        let mut states = States::default();
        let mut workers = vec![seat(0)];
        assert_eq!(given(&mut workers, &states), [(1, None)]);
        workers.push(seat(0));
        workers.push(seat(0));
        keep(&mut states, 0, "early");
        assert_eq!(given(&mut workers, &states), []);
        keep(&mut states, 0, "last");
        workers[0].settled("m");
        assert_eq!(given(&mut workers, &states), [(2, Some("last".to_owned()))], "and the third waits for the second");
        workers[1].settled("m");
        assert_eq!(given(&mut workers, &states), [(3, Some("last".to_owned()))]);
    }

    #[test]
    fn one_that_never_had_a_state_keeps_nobody_waiting_but_those_before_it_do() {
        let states = States::default();
        let mut workers = vec![seat(0)];
        assert_eq!(given(&mut workers, &states), [(1, None)]);
        workers.push(seat(0));
        workers.push(seat(0));
        workers[1].settled("m");
        assert_eq!(given(&mut workers, &states), []);
        workers[0].settled("m");
        assert_eq!(given(&mut workers, &states), [(3, None)]);
    }

    #[test]
    fn what_another_process_may_still_change_is_waited_for() {
        let mut states = States::default();
        states.expect([(0, "m".to_owned()), (1, "m".to_owned())].into());
        let mut workers = [seat(0), seat(1), seat(2)];
        assert_eq!(given(&mut workers, &states), [(3, None)], "nobody else has had that seat");
        states.inherit((0, "m".to_owned()), Some(memory_file(b"early").unwrap()), false);
        assert_eq!(given(&mut workers, &states), []);
        states.inherit((0, "m".to_owned()), Some(memory_file(b"last").unwrap()), true);
        assert_eq!(given(&mut workers, &states), [(1, Some("last".to_owned()))]);
        states.inherit_nothing_more();
        assert_eq!(given(&mut workers, &states), [(2, None)]);
    }

    #[test]
    fn each_seat_has_its_own() {
        let mut states = States::default();
        let taken = [Seat::new(0), Seat::new(2)];
        assert_eq!((Seat::free(taken.iter()), Seat::free([].iter())), (1, 0));
        keep(&mut states, 1, "one");
        let mut workers = [seat(0), seat(1)];
        assert_eq!(given(&mut workers, &states), [(1, None), (2, Some("one".to_owned()))]);
        states.note(1, "m", 1, State::Unusable, None);
        assert_eq!(given(&mut [seat(1)], &states), [(1, None)]);
        assert!(states.last().of("m").is_none());
    }
}
