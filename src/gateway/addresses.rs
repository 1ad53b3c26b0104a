//! Where connections come from: how many are here of each address and network, and how fast they
//! come. Bounded, whoever comes from wherever.
//!
//! ```text
//!              is here ──► counted exactly, never forgotten
//! an address ─┤
//!              was here ──► the one unseen for longest makes room, and where it is not at rest yet
//!                           the newcomer pays from a bucket that it shares with many
//! ```

use std::hash::Hasher;
use std::net::IpAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::base::admission::{Crowding, Limit, PrefixBits, Rate};
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::bucket::Bucket;

/// No place.
const NOWHERE: u32 = u32::MAX;

/// What is known of an address or a network: 32 bytes. It stands for all whose keyed hash it is.
struct Origin {
    hash: u64,
    bucket: Bucket,
    /// Those that are here. Without any it is in the row of those that can be forgotten.
    connections: u32,
    newer: u32,
    older: u32,
}

/// Whether an address is told apart, or a network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    Address,
    Prefix,
}

/// What one level allows here: the part of this shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) level: Level,
    pub(crate) bits: PrefixBits,
    pub(crate) connections: Option<u32>,
    pub(crate) connects: Option<Rate>,
}

/// Who is here from where.
pub(crate) struct Origins {
    key: [u64; 2],
    capacity: usize,
    origins: Vec<Origin>,
    /// Places in `origins` by hash.
    places: HashTable<u32>,
    /// The ends of the row of those without connections.
    oldest: u32,
    newest: u32,
    /// For newcomers when every place is taken by somebody who was here a moment ago.
    shared: Box<[Bucket; limits::ORIGINS_SHARED]>,
}

impl Allowance {
    /// What one of `shards` allows, or nothing where nothing is limited.
    pub(crate) fn of(level: Level, crowding: &Crowding, shards: u16) -> Option<Self> {
        crowding.is_limited().then(|| Self {
            level,
            bits: crowding.bits,
            connections: crowding.connections.map(|all| share_of_connections(all, shards)),
            connects: crowding.connects.map(|rate| rate.generous_share(shards)),
        })
    }

    const fn connections_limit(&self) -> Limit {
        match self.level {
            Level::Address => Limit::AddressConnections,
            Level::Prefix => Limit::PrefixConnections,
        }
    }

    const fn connects_limit(&self) -> Limit {
        match self.level {
            Level::Address => Limit::AddressConnects,
            Level::Prefix => Limit::PrefixConnects,
        }
    }
}

/// The kernel spreads connections by a hash: a shard allows twice its share of an address, and
/// never more than all.
fn share_of_connections(all: u32, shards: u16) -> u32 {
    let share = all.div_ceil(u32::from(shards.max(1)));
    share.saturating_mul(2).min(all)
}

impl Origins {
    /// Room for those of `connections`, and for some who were here.
    pub(crate) fn new(key: [u64; 2], connections: u32) -> Self {
        Self::with_capacity(key, 2 * connections as usize + limits::ORIGINS_IDLE_MAX)
    }

    fn with_capacity(key: [u64; 2], capacity: usize) -> Self {
        Self {
            key,
            capacity,
            origins: Vec::new(),
            places: HashTable::new(),
            oldest: NOWHERE,
            newest: NOWHERE,
            shared: Box::new([Bucket::default(); limits::ORIGINS_SHARED]),
        }
    }

    /// Counts a connection from there, unless it is one too many. `connects`: it counts towards
    /// the rate as well.
    pub(crate) fn enter(
        &mut self,
        from: IpAddr,
        allowance: &Allowance,
        connects: bool,
        now: Moment,
    ) -> Result<(), Limit> {
        let rate = allowance.connects.filter(|_| connects);
        let hash = self.hash(from, allowance);
        let place = match self.find(hash) {
            Some(place) => place,
            None => self.make(hash, allowance, now)?,
        };
        let origin = &self.origins[place as usize];
        if allowance.connections.is_some_and(|most| origin.connections >= most) {
            return Err(allowance.connections_limit());
        }
        let has_room = rate.is_none_or(|rate| origin.bucket.has_room(rate, now));
        if origin.connections == 0 {
            self.unlink(place);
            if !has_room {
                self.link(place);
            }
        }
        if !has_room {
            return Err(allowance.connects_limit());
        }
        let origin = &mut self.origins[place as usize];
        if let Some(rate) = rate {
            origin.bucket.charge(rate.cost(1), now);
        }
        origin.connections += 1;
        Ok(())
    }

    /// A connection that was counted is gone.
    pub(crate) fn leave(&mut self, from: IpAddr, allowance: &Allowance) {
        let hash = self.hash(from, allowance);
        let Some(place) = self.find(hash) else { return };
        let origin = &mut self.origins[place as usize];
        debug_assert!(origin.connections > 0, "who leaves was here");
        origin.connections = origin.connections.saturating_sub(1);
        if origin.connections == 0 {
            self.link(place);
        }
    }

    /// How many addresses and networks are known.
    pub(crate) fn len(&self) -> usize {
        self.origins.len()
    }

    /// Connections that are counted from there.
    #[cfg(test)]
    pub(crate) fn count(&self, from: IpAddr, allowance: &Allowance) -> u32 {
        let place = self.find(self.hash(from, allowance));
        place.map_or(0, |place| self.origins[place as usize].connections)
    }

    fn make(&mut self, hash: u64, allowance: &Allowance, now: Moment) -> Result<u32, Limit> {
        let origin = Origin {
            hash,
            bucket: Bucket::default(),
            connections: 0,
            newer: NOWHERE,
            older: NOWHERE,
        };
        let place = if self.origins.len() < self.capacity {
            self.origins.push(origin);
            u32::try_from(self.origins.len() - 1).expect("places are bounded")
        } else {
            let oldest = self.oldest;
            let Some(forgotten) = self.origins.get(oldest as usize) else {
                return Err(allowance.connections_limit());
            };
            let is_at_rest = forgotten.bucket.is_full(now);
            let shared = &mut self.shared[shared_place(hash)];
            let pays = |rate: Rate| is_at_rest || shared.take(rate, now);
            if !allowance.connects.is_none_or(pays) {
                return Err(allowance.connects_limit());
            }
            self.unlink(oldest);
            let forgotten = std::mem::replace(&mut self.origins[oldest as usize], origin).hash;
            let is_its = |&place: &u32| place == oldest;
            self.places
                .find_entry(forgotten, is_its)
                .expect("whoever has a place is found")
                .remove();
            oldest
        };
        let origins = &self.origins;
        self.places.insert_unique(hash, place, |&place| origins[place as usize].hash);
        self.link(place);
        Ok(place)
    }

    /// Puts it at the young end of the row of those that can be forgotten.
    fn link(&mut self, place: u32) {
        let newest = std::mem::replace(&mut self.newest, place);
        let origin = &mut self.origins[place as usize];
        (origin.older, origin.newer) = (newest, NOWHERE);
        match self.origins.get_mut(newest as usize) {
            Some(former) => former.newer = place,
            None => self.oldest = place,
        }
    }

    fn unlink(&mut self, place: u32) {
        let origin = &mut self.origins[place as usize];
        let (older, newer) = (origin.older, origin.newer);
        (origin.older, origin.newer) = (NOWHERE, NOWHERE);
        match self.origins.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.origins.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }

    fn find(&self, hash: u64) -> Option<u32> {
        let is_of = |&place: &u32| self.origins[place as usize].hash == hash;
        self.places.find(hash, is_of).copied()
    }

    fn hash(&self, from: IpAddr, allowance: &Allowance) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        let level = match allowance.level {
            Level::Address => 0,
            Level::Prefix => 2,
        };
        // IPv4 written as IPv6 is IPv4: a listener of both families says so.
        match from.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(allowance.bits.v4.min(32)));
                hasher.write_u8(level);
                hasher.write_u32(v4.to_bits() & mask.unwrap_or(0));
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(allowance.bits.v6.min(128)));
                hasher.write_u8(level + 1);
                hasher.write_u128(v6.to_bits() & mask.unwrap_or(0));
            }
        }
        hasher.finish()
    }

    /// Walks everything and panics when the parts disagree. Returns the connections of all.
    pub(crate) fn check(&self) -> u64 {
        assert!(self.origins.len() <= self.capacity);
        assert_eq!(self.origins.len(), self.places.len());
        let (mut place, mut older, mut idle) = (self.oldest, NOWHERE, 0);
        while let Some(origin) = self.origins.get(place as usize) {
            assert_eq!((origin.connections, origin.older), (0, older));
            (older, place) = (place, origin.newer);
            idle += 1;
            assert!(idle <= self.origins.len(), "the row goes round");
        }
        assert_eq!(older, self.newest);
        let is_here = |origin: &&Origin| origin.connections > 0;
        assert_eq!(idle, self.origins.len() - self.origins.iter().filter(is_here).count());
        self.origins.iter().map(|origin| u64::from(origin.connections)).sum()
    }
}

/// Which of the shared buckets those of a hash have.
fn shared_place(hash: u64) -> usize {
    usize::try_from(hash % limits::ORIGINS_SHARED as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests;
