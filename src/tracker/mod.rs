//! Who is here, under which name, and until when.
//!
//! May import: base.
//! Never here: bytes, sockets, messages. Three structures that must agree, and nothing else.
//!
//! - [`Tracker`] holds connections, finds them by client id, and hands out those whose deadline
//!   has passed. It is what the gateway stands on.
//! - [`Wheel`] is the timing wheel alone: deadlines by small number.
//! - [`Presence`] is the short way into somebody else's server: `beat`, `leave`, `advance`, and who
//!   came and went.

mod calendar;
#[cfg(test)]
mod effort;
mod index;
#[cfg(test)]
mod pitfalls;
mod presence;
mod table;
mod ticks;
mod wheel;

pub use crate::tracker::presence::{BeatError, Offline, Online, Presence, PresenceConfig};
pub use crate::tracker::wheel::{Progress, REACH_TICKS, Tick, Wheel};

use std::fmt;
use std::ops::Range;

use crate::base::ids::{ClientId, ConnId};
use crate::base::limits::{CONNECTIONS_LIMIT, EXPIRE_BATCH_MAX, REFUSALS_MAX};
use crate::base::limits::{TICK_MIN, TIMEOUT_MAX};
use crate::base::time::{Moment, Span};
use crate::tracker::index::Index;
use crate::tracker::table::Table;
use crate::tracker::ticks::TickScale;

// Every deadline that can be configured is within reach of the wheel.
const _: () = assert!(TIMEOUT_MAX.as_nanos() / TICK_MIN.as_nanos() < REACH_TICKS);

/// What a tracker needs to know.
#[derive(Clone, Copy, Debug)]
pub struct TrackerConfig {
    /// Connections admitted at once, at most.
    pub capacity_max: u32,
    /// Resolution of the deadlines. Not zero.
    pub tick: Span,
    /// Key of the index's hash, secret: client ids come from strangers.
    pub hash_key: [u64; 2],
    /// What time it is.
    pub start: Moment,
}

/// As many connections as allowed are here already. The value is given back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full<T>(pub T);

/// Why a connection did not get a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// The connection is not here any more.
    #[error("the connection is gone")]
    Stale,
    /// The connection has a name.
    #[error("the connection has a name already")]
    Named,
    /// Another connection owns the name.
    #[error("the client id belongs to connection {owner}")]
    Taken {
        /// Who owns it.
        owner: ConnId,
    },
}

/// Connections in a slab, client ids in an index, deadlines on a wheel, and the three in agreement.
///
/// Every operation is O(1), and a stale [`ConnId`] does nothing. Generations count in 24 bits: an
/// id kept while its slot is used 16,777,216 times more would be taken for the newcomer's.
///
/// Memory: the value, 24 bytes for the name (its text too, up to 23 bytes of it), 4 for the
/// generation, 4.3 for the deadline, 6 to 12 in the index.
pub struct Tracker<T> {
    table: Table<T>,
    index: Index,
    wheel: Wheel,
    scale: TickScale,
    capacity_max: u32,
    /// Slots that fired in the call that runs. Empty between calls; kept for its memory.
    fired: Vec<u32>,
}

impl<T> Tracker<T> {
    /// A tracker without connections.
    ///
    /// Sets address space aside for everybody, nearly all of it untouched until used, so that
    /// growing never stops to copy. Names are hashed again as they grow in number, a thousandth
    /// at once.
    pub fn new(config: TrackerConfig) -> Self {
        let TrackerConfig { capacity_max, tick, hash_key, start } = config;
        let expected = capacity_max.min(CONNECTIONS_LIMIT + REFUSALS_MAX);
        let scale = TickScale::new(tick);
        Self {
            table: Table::new(expected as usize),
            index: Index::new(expected as usize, hash_key),
            wheel: Wheel::with_capacity(scale.tick_at_or_before(start), expected),
            scale,
            capacity_max,
            fired: Vec::new(),
        }
    }

    /// Takes in a connection without a name. [`Full`] gives the value back.
    pub fn admit(&mut self, value: T, deadline: Moment) -> Result<ConnId, Full<T>> {
        if self.len() >= self.capacity_max as usize {
            return Err(Full(value));
        }
        let conn = self.table.insert(value);
        self.wheel.arm(conn.slot, self.scale.tick_at_or_after(deadline));
        Ok(conn)
    }

    /// Gives a connection its name. A name has one owner, and a connection one name.
    pub fn name(&mut self, conn: ConnId, client: ClientId) -> Result<(), NameError> {
        if !self.table.is_live(conn) {
            return Err(NameError::Stale);
        }
        if self.table.client(conn).is_some() {
            return Err(NameError::Named);
        }
        if let Some(owner) = self.find(client.as_str()) {
            return Err(NameError::Taken { owner });
        }
        self.table.set_client(conn, client);
        self.index.insert(conn.slot, &self.table);
        Ok(())
    }

    /// Takes a connection's name away; it is free at once.
    pub fn unname(&mut self, conn: ConnId) -> Option<ClientId> {
        let client = self.table.client(conn)?;
        self.index.remove(client.as_str(), &self.table);
        self.table.take_client(conn)
    }

    /// The connection that owns a name.
    pub fn find(&self, client: &str) -> Option<ConnId> {
        self.table.id_at(self.index.find(client, &self.table)?)
    }

    /// A connection's name.
    pub fn client(&self, conn: ConnId) -> Option<&ClientId> {
        self.table.client(conn)
    }

    /// A connection's value.
    pub fn get(&self, conn: ConnId) -> Option<&T> {
        self.table.value(conn)
    }

    /// A connection's value.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        self.table.value_mut(conn)
    }

    /// Sets a connection's deadline. Made for putting it off, which is one store; correct for
    /// bringing it forward and for arming it again.
    ///
    /// The deadline is rounded up to the tick, so a connection has its time in full. One beyond
    /// [`REACH_TICKS`] of the last [`expire`](Self::expire) is kept as being there.
    #[inline]
    pub fn touch(&mut self, conn: ConnId, deadline: Moment) {
        if self.table.is_live(conn) {
            self.wheel.arm(conn.slot, self.scale.tick_at_or_after(deadline));
        }
    }

    /// Takes a connection's deadline away.
    pub fn disarm(&mut self, conn: ConnId) {
        if self.table.is_live(conn) {
            self.wheel.disarm(conn.slot);
        }
    }

    /// A connection's deadline, rounded up to the tick, if it has one. One that was missed may be
    /// told as less long ago.
    pub fn deadline(&self, conn: ConnId) -> Option<Moment> {
        if !self.table.is_live(conn) {
            return None;
        }
        self.wheel.deadline(conn.slot).map(|tick| self.scale.moment(tick))
    }

    /// Appends the connections whose deadline has passed, at most `budget`. They are disarmed and
    /// still here: what becomes of them is the caller's verdict.
    ///
    /// Never before the deadline, and less than a tick after it where this is called every tick.
    pub fn expire(&mut self, now: Moment, budget: usize, out: &mut Vec<ConnId>) -> Progress {
        let now = self.scale.tick_at_or_before(now);
        let progress = self.wheel.advance(now, budget, &mut self.fired);
        out.extend(self.fired.drain(..).map(|slot| {
            self.table.id_at(slot).expect("who leaves is disarmed, so who fires is here")
        }));
        self.fired.shrink_to(EXPIRE_BATCH_MAX);
        progress
    }

    /// When [`expire`](Self::expire) is worth calling: not after the first deadline, `None` when
    /// there is none.
    pub fn next_wake(&self) -> Option<Moment> {
        self.wheel.next_wake().map(|tick| self.scale.moment(tick))
    }

    /// Lets a connection go: its name is free, its deadline gone, its id stale.
    pub fn dismiss(&mut self, conn: ConnId) -> Option<T> {
        self.unname(conn);
        let value = self.table.remove(conn)?;
        self.wheel.disarm(conn.slot);
        Some(value)
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of connections that have a name.
    pub fn named(&self) -> usize {
        self.index.len()
    }

    /// Who is in a slot: for pages and sweeps, from 0 to [`slots_end`](Self::slots_end).
    pub fn slot(&self, slot: u32) -> Option<(ConnId, &T)> {
        let conn = self.table.id_at(slot)?;
        Some((conn, self.table.value(conn)?))
    }

    /// Where in memory the connection in a slot is kept, or the last one was, and what tells it
    /// from earlier ones: to be brought near before it is asked for, which costs a few nanoseconds
    /// then and not a hundred. Good until the next change, and for nothing else. Reads none of it.
    #[inline]
    pub fn memory(&self, slot: u32) -> Option<[Range<*const u8>; 2]> {
        self.table.memory(slot)
    }

    /// One past the highest slot ever used.
    pub fn slots_end(&self) -> u32 {
        self.table.slots_end()
    }

    /// Panics when slab, index and wheel disagree. Walks everything: for tests.
    pub fn check(&self) {
        self.table.check();
        self.index.check(&self.table);
        self.wheel.check();
        assert!(self.len() <= self.capacity_max as usize, "more connections than allowed");
        assert!(self.fired.is_empty(), "everybody who fired was handed out");
        let slots = || (0..self.slots_end()).filter_map(|slot| self.table.id_at(slot));
        let named = slots().filter(|conn| self.client(*conn).is_some()).count();
        assert_eq!(named, self.named(), "names in the table and in the index");
        let armed = slots().filter(|conn| self.deadline(*conn).is_some()).count();
        assert_eq!(armed, self.wheel.len(), "a deadline of somebody who is not here");
    }
}

impl<T> fmt::Debug for Tracker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker")
            .field("len", &self.len())
            .field("named", &self.named())
            .field("wheel", &self.wheel)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as many connections as allowed are here already")
    }
}

impl<T: fmt::Debug> std::error::Error for Full<T> {}
