//! Who may come in at all: how many from where, how many at once, and who goes first.
//!
//! ```text
//! accept ──► the flood bound, the address, the network ──► HELLO ──► the budget of newcomers
//!            before anything is read                                 before anything costs
//! ```
//!
//! Whoever proves by a resume token that it was in before is not held up by the budget, and is paid
//! for by the newcomers, who wait meanwhile. Whoever has to wait hears until when, and each hears a
//! time of its own.

use std::net::SocketAddr;

use crate::base::admission::{Limit, Rate};
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::introduction::Introduction;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::Gateway;
use crate::gateway::addresses::{Allowance, Level, Origins};
use crate::gateway::bucket::Bucket;
use crate::gateway::connection::{Connection, Socket, State};
use crate::gateway::requests::Next;
use crate::gateway::resume;

/// Where a connection is counted, and whether its HELLO was let in by another shard.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Standing(u8);

impl Standing {
    const BY_ADDRESS: u8 = 1;
    const BY_PREFIX: u8 = 2;
    const LET_IN: u8 = 4;

    const fn of(level: Level) -> u8 {
        match level {
            Level::Address => Self::BY_ADDRESS,
            Level::Prefix => Self::BY_PREFIX,
        }
    }

    /// The same, of one that another shard has let in.
    pub(crate) const fn let_in(self) -> Self {
        Self(self.0 | Self::LET_IN)
    }

    const fn is_let_in(self) -> bool {
        self.0 & Self::LET_IN != 0
    }

    const fn is_counted(self, level: Level) -> bool {
        self.0 & Self::of(level) != 0
    }
}

/// Whether a connection is one that came, or one that came from another shard, where it has paid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Coming {
    Connects,
    Arrives,
}

/// What the door knows of those who come.
#[derive(Default)]
pub(crate) struct Door {
    /// Nothing before anything is limited by where it comes from.
    origins: Option<Box<Origins>>,
    accepts: Bucket,
    newcomers: Bucket,
    /// Those who were told to come back, one after the other.
    crowd: Bucket,
    /// What is left for telling those why who are refused unread.
    words: Bucket,
}

impl Gateway {
    /// Whether the connection that was accepted may be read, and where it is counted from now on.
    pub(crate) fn admit_from(&mut self, peer: SocketAddr, now: Moment) -> Result<Standing, Limit> {
        if let Some(rate) = self.config.admission.accepts {
            let share = rate.share(self.config.shard.count);
            if !self.door.accepts.take(share, now) {
                return Err(Limit::Accepts);
            }
        }
        self.count_address(peer, Coming::Connects, now)
    }

    /// Counts a connection by its address and network, unless it is one too many there.
    ///
    /// Whoever learns later that it comes from somewhere else takes it off by
    /// [`discount_address`](Self::discount_address), and counts it anew.
    pub(crate) fn count_address(
        &mut self,
        peer: SocketAddr,
        coming: Coming,
        now: Moment,
    ) -> Result<Standing, Limit> {
        let mut standing = Standing::default();
        if coming == Coming::Connects && self.config.proxies.contains(peer.ip()) {
            return Ok(standing);
        }
        for allowance in self.allowances().into_iter().flatten() {
            let slots = self.planned.slots;
            let origins = self
                .door
                .origins
                .get_or_insert_with(|| Box::new(Origins::new(self.config.hash_key, slots)));
            let connects = coming == Coming::Connects;
            if let Err(limit) = origins.enter(peer.ip(), &allowance, connects, now) {
                self.leave_address(peer, standing);
                return Err(limit);
            }
            standing.0 |= Standing::of(allowance.level);
        }
        Ok(standing)
    }

    /// Somebody stands behind whom we see, and is counted in its place.
    pub(crate) fn on_introduced(&mut self, conn: ConnId, as_what: &Introduction, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        connection.carrier = as_what.carrier;
        let before = connection.peer();
        if let (true, Some(name)) = (self.config.certified_ids, &as_what.name) {
            self.certified.note(conn, name.clone());
        }
        let Some(peer) = as_what.peer.filter(|peer| *peer != before) else { return };
        self.discount_address(conn);
        let counted = self.count_address(peer, Coming::Connects, now);
        if let Some(connection) = self.tracker.get_mut(conn) {
            connection.set_peer(peer);
            connection.standing = counted.unwrap_or_default();
        }
        if let Err(limit) = counted {
            // It has its slot already, and hears why.
            self.stats.tally.limited[limit.index()] += 1;
            self.turn_away(conn, limit, now);
        }
    }

    /// A connection is gone, or does not come from where it seemed to.
    pub(crate) fn discount_address(&mut self, conn: ConnId) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let standing = std::mem::take(&mut connection.standing);
        let peer = connection.peer();
        self.leave_address(peer, standing);
    }

    /// The same for one that is in no table any more.
    pub(crate) fn leave_address(&mut self, peer: SocketAddr, standing: Standing) {
        let Some(origins) = &mut self.door.origins else { return };
        let admission = &self.config.admission;
        for (level, crowding) in
            [(Level::Address, &admission.address), (Level::Prefix, &admission.prefix)]
        {
            if standing.is_counted(level) {
                // It is counted whatever is limited now; only the bits have to be the same.
                let bits = crowding.bits;
                let allowance = Allowance { level, bits, connections: None, connects: None };
                origins.leave(peer.ip(), &allowance);
            }
        }
    }

    fn allowances(&self) -> [Option<Allowance>; 2] {
        let (admission, shards) = (&self.config.admission, self.config.shard.count);
        [
            Allowance::of(Level::Address, &admission.address, shards),
            Allowance::of(Level::Prefix, &admission.prefix, shards),
        ]
    }

    /// Counts a refusal, and says whether there is a word left for telling why.
    pub(crate) fn is_told(&mut self, limit: Limit, now: Moment) -> bool {
        self.stats.tally.limited[limit.index()] += 1;
        let is_told = self.door.words.take(WORDS, now);
        self.stats.tally.refused_unread += u64::from(!is_told);
        is_told
    }

    /// Whether this HELLO may be acted on now: it belongs to somebody who was in before, or there
    /// is room in the budget of newcomers.
    pub(crate) fn let_in(&mut self, conn: ConnId, client: &str, token: &[u8], now: Moment) -> Next {
        let Some(rate) = self.config.admission.newcomers else { return Next::Listen };
        let rate = rate.share(self.config.shard.count);
        let is_let_in = |connection: &Connection| connection.standing.is_let_in();
        if self.tracker.get(conn).is_none_or(is_let_in) || self.door.newcomers.take(rate, now) {
            return Next::Listen;
        }
        if self.was_in_before(client, token) {
            self.door.newcomers.charge(rate.cost(1), now);
            self.door.newcomers.owe_at_most(rate.tolerance().times(2), now);
            return Next::Listen;
        }
        self.stats.tally.limited[Limit::Newcomers.index()] += 1;
        let window = self.window_of_crowd(rate, now);
        self.end_within(conn, CloseReason::Busy, window, now);
        Next::Ended
    }

    /// Ends a connection of whom nobody can say now whether it may come in. All may be in its
    /// place, and come back one after the other.
    pub(crate) fn put_off(&mut self, conn: ConnId, now: Moment) {
        let rate = self.config.admission.newcomers.unwrap_or(CHECKED_AGAIN);
        let window = self.window_of_crowd(rate.share(self.config.shard.count), now);
        self.end_within(conn, CloseReason::Busy, window, now);
    }

    /// Whether the token is one that we gave this client since the start. Nothing is looked up: it
    /// is as cheap for whoever made it up.
    fn was_in_before(&self, client: &str, token: &[u8]) -> bool {
        let Some((epoch, _)) = token.split_first_chunk() else { return false };
        let epoch = u64::from_be_bytes(*epoch);
        resume::is_token_of(self.config.resume_key, client, epoch, token)
    }

    /// When the next one of a crowd comes back: behind everybody who was sent away before.
    fn window_of_crowd(&mut self, rate: Rate, now: Moment) -> (Span, Span) {
        let later = self.door.crowd.debt(now);
        // A part of the budget is for those who come for the first time.
        let place = rate.cost(limits::CROWD_PLACE_PARTS).divided_by(limits::CROWD_PARTS);
        self.door.crowd.charge(place, now);
        self.door.crowd.owe_at_most(limits::CROWD_STRETCH_MAX, now);
        let window = self.config.reconnect_window;
        (window.0 + later, window.1 + later)
    }

    /// Ends a connection that comes from where too many are.
    pub(crate) fn turn_away(&mut self, conn: ConnId, limit: Limit, now: Moment) {
        let reason = match limit {
            Limit::AddressConnections
            | Limit::AddressConnects
            | Limit::PrefixConnections
            | Limit::PrefixConnects => CloseReason::TooManyConnections,
            Limit::Accepts | Limit::Newcomers => CloseReason::Busy,
            Limit::ClientFrames | Limit::ClientBytes | Limit::ClientBeats => CloseReason::Flood,
        };
        self.end(conn, reason, now);
    }

    /// How many addresses and networks are known.
    pub(crate) fn origins_known(&self) -> usize {
        self.door.origins.as_ref().map_or(0, |origins| origins.len())
    }

    pub(crate) fn check_door(&self) {
        let Some(origins) = &self.door.origins else { return };
        let mut counted = 0;
        for slot in 0..self.tracker.slots_end() {
            let Some((_, connection)) = self.tracker.slot(slot) else { continue };
            for level in [Level::Address, Level::Prefix] {
                counted += u64::from(connection.standing.is_counted(level));
            }
            if let State::Held(held) = &connection.state
                && held.socket == Socket::Gone
            {
                assert_eq!(connection.standing, Standing::default(), "nobody is there");
            }
        }
        assert_eq!(origins.check(), counted, "who is counted is here");
    }
}

/// How many in a second are told why they are refused unread: each has a slot until it has heard.
const WORDS: Rate =
    Rate::per_second(limits::REFUSAL_WORDS_PER_S).with_burst(limits::REFUSAL_WORDS_PER_S);
/// At which those come back of whom nobody could say whether they may come in.
const CHECKED_AGAIN: Rate = Rate::per_second(limits::CHECKS_AGAIN_PER_S);
