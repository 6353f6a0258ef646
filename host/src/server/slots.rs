//! The connections of one loop, in slots that are reused: an event for a connection that is gone is recognised by the
//! slot's generation number.

use super::connection::Connection;

/// The slots.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// Names a connection of this loop, past and present: `generation << 32 | index`, as epoll keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotId(pub(super) u64);

/// What a loop keeps for a connection, also while a call owns the connection itself.
#[derive(Default)]
pub(super) struct Slot {
    generation: u32,
    taken: bool,
    /// The connection; none while a call owns it.
    pub(super) connection: Option<Box<Connection>>,
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

impl Slots {
    /// Puts a connection into a free slot.
    pub(super) fn insert(&mut self, connection: Box<Connection>) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        // An edge may have come before the registration: what is not known is tried.
        *slot = Slot { generation: slot.generation, taken: true, readable: true, ..Slot::default() };
        slot.connection = Some(connection);
        SlotId(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// The slot, unless its connection is gone.
    pub(super) fn find(&mut self, id: SlotId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.0 as u32 as usize)?;
        (slot.taken && slot.generation == (id.0 >> 32) as u32).then_some(slot)
    }

    /// Frees the slot for another connection.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<Box<Connection>> {
        let slot = self.find(id)?;
        let connection = slot.connection.take();
        slot.taken = false;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.0 as u32);
        connection
    }

    /// All connections of now.
    pub(super) fn ids(&self) -> Vec<SlotId> {
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| slot.taken);
        taken.map(|(index, slot)| SlotId(u64::from(slot.generation) << 32 | index as u64)).collect()
    }
}
