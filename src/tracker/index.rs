//! From a client id to the slot of the connection that owns it.

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::tracker::table::Table;

/// Names in one part of the index when as many are here as it was made for.
const NAMES_PER_PART: usize = 1_024;

/// Slots by client id. The ids live once, in the [`Table`]; here are their slots only.
///
/// Hashed with SipHash-1-3 under a secret key: client ids come from strangers, who must not be able
/// to choose many that collide.
///
/// It is many tables and not one: each grows for itself, so that nobody waits while a million names
/// are hashed again, and memory is as much as there are names.
pub(crate) struct Index {
    /// A power of two of them.
    parts: Box<[HashTable<u32>]>,
    len: usize,
    hasher: SipHasher13,
}

impl Index {
    /// An index made for up to `names`. Six to twelve bytes for each that comes.
    pub(crate) fn new(names: usize, key: [u64; 2]) -> Self {
        let parts = names.div_ceil(NAMES_PER_PART).next_power_of_two();
        Self {
            parts: (0..parts).map(|_| HashTable::new()).collect(),
            len: 0,
            hasher: SipHasher13::new_with_keys(key[0], key[1]),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn find<T>(&self, client: &str, table: &Table<T>) -> Option<u32> {
        let hash = self.hash(client);
        let part = &self.parts[part_of(hash, self.parts.len())];
        part.find(hash, |&slot| is_of(slot, client, table)).copied()
    }

    /// Enters a slot under the name it has in the table. The name must not be in the index.
    pub(crate) fn insert<T>(&mut self, slot: u32, table: &Table<T>) {
        let hash_of = |&slot: &u32| hash_slot(&self.hasher, slot, table);
        let hash = hash_of(&slot);
        let part = part_of(hash, self.parts.len());
        self.parts[part].insert_unique(hash, slot, hash_of);
        self.len += 1;
    }

    /// Removes the slot entered under a name, which the table must still have.
    pub(crate) fn remove<T>(&mut self, client: &str, table: &Table<T>) {
        let hash = self.hash(client);
        let part = part_of(hash, self.parts.len());
        self.parts[part]
            .find_entry(hash, |&slot| is_of(slot, client, table))
            .expect("a name in the table is in the index")
            .remove();
        self.len -= 1;
    }

    /// Panics when a slot is entered that has no name, or is not found under it.
    pub(crate) fn check<T>(&self, table: &Table<T>) {
        let in_parts: usize = self.parts.iter().map(HashTable::len).sum();
        assert_eq!(in_parts, self.len, "names in the parts and in all");
        for &slot in self.parts.iter().flatten() {
            let client = table.client_at(slot).expect("a slot in the index has a name");
            assert_eq!(self.find(client.as_str(), table), Some(slot), "{client}");
        }
    }

    fn hash(&self, client: &str) -> u64 {
        self.hasher.hash(client.as_bytes())
    }
}

/// The part for a hash. A table goes by the lowest bits and the highest seven: these lie between.
fn part_of(hash: u64, parts: usize) -> usize {
    (hash >> 32) as usize & (parts - 1)
}

fn is_of<T>(slot: u32, client: &str, table: &Table<T>) -> bool {
    table.client_at(slot).is_some_and(|owner| owner.as_str() == client)
}

fn hash_slot<T>(hasher: &SipHasher13, slot: u32, table: &Table<T>) -> u64 {
    let client = table.client_at(slot).expect("a slot in the index has a name");
    hasher.hash(client.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ClientId;

    #[test]
    fn no_part_has_much_more_than_its_share() {
        const NAMES: usize = 64 * NAMES_PER_PART;
        let (mut table, mut index) = (Table::new(NAMES), Index::new(NAMES, [1, 2]));
        for number in 0..NAMES {
            let conn = table.insert(());
            table.set_client(conn, ClientId::new(&format!("client-{number}")).unwrap());
            index.insert(conn.slot, &table);
        }
        index.check(&table);
        assert_eq!(index.parts.len(), 64);
        let most = index.parts.iter().map(HashTable::len).max();
        assert!(most < Some(NAMES_PER_PART * 5 / 4), "{most:?} names are hashed in one go");
    }

    /// Whoever chose names that fall into one part under some key has chosen nothing under another.
    #[test]
    fn names_that_collide_under_one_key_do_not_under_another() {
        const NAMES: usize = 16 * NAMES_PER_PART;
        let parts_of = |key: [u64; 2], names: &[String]| {
            let (mut table, mut index) = (Table::new(NAMES), Index::new(NAMES, key));
            for name in names {
                let conn = table.insert(());
                table.set_client(conn, ClientId::new(name).unwrap());
                index.insert(conn.slot, &table);
            }
            index.check(&table);
            index.parts.iter().map(HashTable::len).max().unwrap_or_default()
        };
        let known = Index::new(NAMES, [1, 2]);
        let falls_into_the_first =
            |name: &String| part_of(known.hash(name), known.parts.len()) == 0;
        let chosen: Vec<String> = (0..)
            .map(|number| format!("id-{number}"))
            .filter(falls_into_the_first)
            .take(400)
            .collect();
        assert_eq!(parts_of([1, 2], &chosen), 400, "they are well chosen for this key");
        let most = parts_of([2, 1], &chosen);
        assert!(most < 60, "{most} of 400 in one of 16 parts under another key");
    }
}
