//! The connections of one loop, in slots that are reused: an event for a connection that is gone is recognised by the
//! slot's generation number.

use super::connection::{Connection, Line};

/// The slots, in blocks: one that grows by copying would leave its old memory behind, several times over.
#[derive(Default)]
pub(super) struct Slots {
    blocks: Vec<Box<[Slot]>>,
    free: Vec<u32>,
}

/// Names a connection of this loop, past and present: `generation << 32 | index`, as epoll keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotId(pub(super) u64);

/// What a loop keeps for a connection, also while a call owns the connection itself.
pub(super) struct Slot {
    generation: u32,
    pub(super) occupant: Occupant,
    /// Reading may give something.
    pub(super) readable: bool,
    /// The client has sent its last byte.
    pub(super) ended: bool,
    /// The client is gone in both directions.
    pub(super) hangup: bool,
    /// It stands in the queue of those that can go on.
    pub(super) queued: bool,
    /// When its earliest timer entry is due, in the loop's milliseconds; 0 for none.
    pub(super) timer_ms: u64,
}

/// The connection of a slot.
pub(super) enum Occupant {
    /// The slot is free.
    Nobody,
    /// Between two requests.
    Resting(Box<Line>),
    /// With a request or a response under way.
    Working(Connection),
    /// A call owns it.
    Away,
}

// Idle connections are many, and this is all that they take.
const _: () = assert!(size_of::<Slot>() + size_of::<Line>() <= 128);

impl Slots {
    /// Puts a connection into a free slot.
    pub(super) fn insert(&mut self, occupant: Occupant) -> SlotId {
        if self.free.is_empty() {
            let first = self.blocks.len() * BLOCK_SLOTS;
            self.blocks.push((0..BLOCK_SLOTS).map(|_| Slot::new(0, Occupant::Nobody)).collect());
            self.free.extend((first..first + BLOCK_SLOTS).rev().map(|index| index as u32));
        }
        let index = self.free.pop().unwrap_or_default();
        let slot = &mut self.blocks[index as usize / BLOCK_SLOTS][index as usize % BLOCK_SLOTS];
        *slot = Slot::new(slot.generation, occupant);
        SlotId(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// The slot, unless its connection is gone.
    pub(super) fn find(&mut self, id: SlotId) -> Option<&mut Slot> {
        let index = id.0 as u32 as usize;
        let slot = &mut self.blocks.get_mut(index / BLOCK_SLOTS)?[index % BLOCK_SLOTS];
        (slot.generation == (id.0 >> 32) as u32 && slot.is_taken()).then_some(slot)
    }

    /// Frees the slot for another connection.
    pub(super) fn remove(&mut self, id: SlotId) {
        let Some(slot) = self.find(id) else { return };
        slot.occupant = Occupant::Nobody;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.0 as u32);
    }

    /// All connections of now.
    pub(super) fn ids(&self) -> Vec<SlotId> {
        let taken = self.blocks.iter().flat_map(|block| &**block).enumerate().filter(|(_, slot)| slot.is_taken());
        taken.map(|(index, slot)| SlotId(u64::from(slot.generation) << 32 | index as u64)).collect()
    }
}

impl Slot {
    fn new(generation: u32, occupant: Occupant) -> Slot {
        // An edge may have come before the registration: what is not known is tried.
        let readable = true;
        Slot { generation, occupant, readable, ended: false, hangup: false, queued: false, timer_ms: 0 }
    }

    fn is_taken(&self) -> bool {
        !matches!(self.occupant, Occupant::Nobody)
    }
}

/// A block takes about as much as a page or two.
const BLOCK_SLOTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_used_again_has_another_name() {
        let mut slots = Slots::default();
        let first = slots.insert(Occupant::Away);
        slots.remove(first);
        let second = slots.insert(Occupant::Away);
        assert!(first != second && first.0 as u32 == second.0 as u32, "the same slot");
        assert!(slots.find(first).is_none() && slots.find(second).is_some());
        slots.remove(first);
        assert_eq!(slots.ids(), [second], "an old name frees nobody else's slot");
    }
}
