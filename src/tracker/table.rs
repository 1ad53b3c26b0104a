//! The table of connections: a slab, and for each slot the generation of who is in it.

use std::ops::Range;
use std::ptr;

use slab::Slab;

use crate::base::ids::{ClientId, ConnId};

/// Generations count in 24 bits, because a token of the ring carries no more beside the slot.
const GENERATION_MASK: u32 = (1 << 24) - 1;
/// Set in a slot's generation while nobody is in it, so that no id fits.
const VACANT: u32 = 1 << 31;

/// Connections by slot.
///
/// The slab forgets who was in a slot; `generations` remembers, 4 bytes for each slot ever used.
/// One counter for all slots would be smaller, but then a slot could meet its old number again; so
/// it does only after it was used 2^24 times. And being dense, it tells a live id from a stale one
/// without touching the connection's own memory.
pub(crate) struct Table<T> {
    entries: Slab<Entry<T>>,
    /// Invariant: as long as the slab ever was; marked [`VACANT`] where the slab has nobody.
    generations: Vec<u32>,
    /// The address of slot 0 in the slab, as soon as anybody is in any.
    first: usize,
}

/// As large as a slot of the slab, which does not say how large that is: an entry, or which slot is
/// free next.
#[expect(dead_code, reason = "only its size is asked for")]
enum Place<T> {
    Free(usize),
    Taken(Entry<T>),
}

struct Entry<T> {
    client: Option<ClientId>,
    value: T,
}

impl<T> Table<T> {
    /// A table with room set aside for `slots`, untouched until used: growing a slab of a million
    /// would move it, and half of what it grew to would be for nobody.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            entries: Slab::with_capacity(slots),
            generations: Vec::with_capacity(slots),
            first: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// One past the highest slot ever used.
    pub(crate) fn slots_end(&self) -> u32 {
        u32::try_from(self.generations.len()).expect("slots are bounded by the capacity, a u32")
    }

    pub(crate) fn insert(&mut self, value: T) -> ConnId {
        let place = self.entries.vacant_entry();
        let index = place.key();
        let entry = place.insert(Entry { client: None, value });
        // Only an insertion can move the slab.
        self.first =
            ptr::from_ref(entry).addr().wrapping_sub(index.wrapping_mul(size_of::<Place<T>>()));
        if index == self.generations.len() {
            self.generations.push(VACANT);
        }
        let slot = u32::try_from(index).expect("slots are bounded by the capacity, a u32");
        let generation = self.generations[index] ^ VACANT;
        self.generations[index] = generation;
        ConnId { slot, generation }
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<T> {
        if !self.is_live(conn) {
            return None;
        }
        self.generations[conn.slot as usize] =
            (conn.generation.wrapping_add(1) & GENERATION_MASK) | VACANT;
        Some(self.entries.remove(conn.slot as usize).value)
    }

    /// Whether the id is of a connection that is here. Does not touch the connection.
    #[inline]
    pub(crate) fn is_live(&self, conn: ConnId) -> bool {
        conn.generation <= GENERATION_MASK
            && self.generations.get(conn.slot as usize) == Some(&conn.generation)
    }

    /// Where in memory whoever is in a slot is kept, or was, and the slot's generation. Reckoned,
    /// for to ask the slab is to read that memory, and to wait for it.
    #[inline]
    pub(crate) fn memory(&self, slot: u32) -> Option<[Range<*const u8>; 2]> {
        let slot = slot as usize;
        let generation = ptr::from_ref(self.generations.get(slot)?).cast::<u8>();
        let entry = self.first.wrapping_add(slot.wrapping_mul(size_of::<Place<T>>()));
        let entry = ptr::without_provenance::<u8>(entry);
        Some([
            entry..entry.wrapping_add(size_of::<Entry<T>>()),
            generation..generation.wrapping_add(size_of::<u32>()),
        ])
    }

    /// Who is in a slot.
    pub(crate) fn id_at(&self, slot: u32) -> Option<ConnId> {
        let generation = *self.generations.get(slot as usize)?;
        (generation & VACANT == 0).then_some(ConnId { slot, generation })
    }

    pub(crate) fn value(&self, conn: ConnId) -> Option<&T> {
        self.entry(conn).map(|entry| &entry.value)
    }

    pub(crate) fn value_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        if !self.is_live(conn) {
            return None;
        }
        self.entries.get_mut(conn.slot as usize).map(|entry| &mut entry.value)
    }

    pub(crate) fn client(&self, conn: ConnId) -> Option<&ClientId> {
        self.entry(conn)?.client.as_ref()
    }

    /// The name of whoever is in a slot.
    pub(crate) fn client_at(&self, slot: u32) -> Option<&ClientId> {
        self.entries.get(slot as usize)?.client.as_ref()
    }

    /// The connection must be here.
    pub(crate) fn set_client(&mut self, conn: ConnId, client: ClientId) {
        debug_assert!(self.is_live(conn), "only who is here has a name");
        self.entries[conn.slot as usize].client = Some(client);
    }

    pub(crate) fn take_client(&mut self, conn: ConnId) -> Option<ClientId> {
        if !self.is_live(conn) {
            return None;
        }
        self.entries.get_mut(conn.slot as usize)?.client.take()
    }

    /// Panics when slab and generations disagree.
    pub(crate) fn check(&self) {
        let occupied = (0..self.slots_end()).filter(|&slot| self.id_at(slot).is_some()).count();
        assert_eq!(occupied, self.entries.len(), "slots with a generation and slots in use");
        for (slot, entry) in &self.entries {
            let generation = self.generations[slot];
            assert!(generation <= GENERATION_MASK, "slot {slot}: generation {generation:#x}");
            let slot = u32::try_from(slot).expect("slots are bounded by the capacity, a u32");
            let [memory, _] = self.memory(slot).expect("it is in use");
            assert_eq!(memory.start, ptr::from_ref(entry).cast(), "where slot {slot} is");
        }
    }

    fn entry(&self, conn: ConnId) -> Option<&Entry<T>> {
        if !self.is_live(conn) {
            return None;
        }
        self.entries.get(conn.slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_used_again_has_another_generation() {
        let mut table = Table::new(1);
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(second.slot, first.slot);
        assert_ne!(second.generation, first.generation);
        assert_eq!(table.value(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.value(second), Some(&"second"));
        table.check();
    }

    #[test]
    fn the_memory_of_a_slot_is_where_its_value_and_its_name_are() {
        let mut table = Table::new(2);
        table.insert([1_u8; 200]);
        let conn = table.insert([2_u8; 200]);
        table.set_client(conn, ClientId::new("ada").unwrap());
        let [memory, _] = table.memory(conn.slot).expect("somebody is there");
        let value = table.value(conn).expect("somebody is there").as_ptr_range();
        let name = std::ptr::from_ref(table.client(conn).expect("a name")).cast::<u8>();
        assert!(memory.contains(&value.start) && value.end <= memory.end);
        assert!(memory.contains(&name));
        assert_eq!(table.memory(7), None);
    }

    #[test]
    fn the_memory_of_all_slots_is_known_when_the_slab_was_moved() {
        let mut table = Table::new(1);
        let conns: Vec<_> = (0..1_000).map(|n| table.insert([n; 5])).collect();
        for conn in conns.iter().step_by(3) {
            table.remove(*conn);
        }
        table.insert([7; 5]);
        table.check();
        for conn in conns.iter().filter(|conn| table.is_live(**conn)) {
            let [memory, generation] = table.memory(conn.slot).expect("somebody is there");
            assert_eq!(
                generation.start,
                ptr::from_ref(&table.generations[conn.slot as usize]).cast()
            );
            assert!(memory.contains(&table.value(*conn).expect("here").as_ptr().cast()));
        }
    }

    #[test]
    fn generations_wrap_within_24_bits() {
        let mut table = Table::new(1);
        let mut last = table.insert(());
        table.generations[0] = GENERATION_MASK;
        last.generation = GENERATION_MASK;
        assert!(table.remove(last).is_some());
        assert_eq!(table.insert(()), ConnId { slot: 0, generation: 0 });
        table.check();
    }

    #[test]
    fn no_id_fits_an_empty_slot() {
        let mut table = Table::new(1);
        let conn = table.insert(());
        table.remove(conn);
        for generation in [0, 1, 2, VACANT, VACANT | 1] {
            let forged = ConnId { slot: 0, generation };
            assert_eq!(table.value(forged), None, "{generation:#x}");
            assert_eq!(table.remove(forged), None, "{generation:#x}");
        }
        table.check();
    }
}
