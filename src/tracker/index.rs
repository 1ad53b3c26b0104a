//! From a client id to the slot of the connection that owns it.

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::tracker::table::Table;

/// Slots by client id. The ids live once, in the [`Table`]; here are their slots only.
///
/// Hashed with SipHash-1-3 under a secret key: client ids come from strangers, who must not be able
/// to choose many that collide.
pub(crate) struct Index {
    slots: HashTable<u32>,
    hasher: SipHasher13,
}

impl Index {
    /// An index with room for `names`. Five to ten bytes for each; to grow later would hash every
    /// name again in one go.
    pub(crate) fn new(names: usize, key: [u64; 2]) -> Self {
        Self {
            slots: HashTable::with_capacity(names),
            hasher: SipHasher13::new_with_keys(key[0], key[1]),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn find<T>(&self, client: &str, table: &Table<T>) -> Option<u32> {
        self.slots.find(self.hash(client), |&slot| is_of(slot, client, table)).copied()
    }

    /// Enters a slot under the name it has in the table. The name must not be in the index.
    pub(crate) fn insert<T>(&mut self, slot: u32, table: &Table<T>) {
        let hash_of = |&slot: &u32| hash_slot(&self.hasher, slot, table);
        self.slots.insert_unique(hash_of(&slot), slot, hash_of);
    }

    /// Removes the slot entered under a name, which the table must still have.
    pub(crate) fn remove<T>(&mut self, client: &str, table: &Table<T>) {
        let hash = self.hash(client);
        self.slots
            .find_entry(hash, |&slot| is_of(slot, client, table))
            .expect("a name in the table is in the index")
            .remove();
    }

    /// Panics when a slot is entered that has no name, or is not found under it.
    pub(crate) fn check<T>(&self, table: &Table<T>) {
        for &slot in &self.slots {
            let client = table.client_at(slot).expect("a slot in the index has a name");
            assert_eq!(self.find(client.as_str(), table), Some(slot), "{client}");
        }
    }

    fn hash(&self, client: &str) -> u64 {
        self.hasher.hash(client.as_bytes())
    }
}

fn is_of<T>(slot: u32, client: &str, table: &Table<T>) -> bool {
    table.client_at(slot).is_some_and(|owner| owner.as_str() == client)
}

fn hash_slot<T>(hasher: &SipHasher13, slot: u32, table: &Table<T>) -> u64 {
    let client = table.client_at(slot).expect("a slot in the index has a name");
    hasher.hash(client.as_str().as_bytes())
}
