//! Connections that go to the shard that owns their client, and those that come from others.
//!
//! A connection moves when its HELLO is complete and before anything came of it: nobody was let in,
//! nothing was said. The owner begins with the same bytes, so it decides as if it had accepted the
//! connection itself.

use std::hash::Hasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

use crate::base::config::Shard;
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::io::{IoFault, Move, Op, SocketHandle, Stay};
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::admission::Coming;
use crate::gateway::connection::{Look, Preface, Receive, State};
use crate::gateway::requests::Next;
use crate::gateway::{Gateway, reason_of};
use crate::wire::message::Message;
use crate::wire::native;

/// The number of the shard that owns a client id. O(its length).
pub fn owner(shard: Shard, client: &str) -> u16 {
    if shard.count <= 1 {
        return 0;
    }
    let mut hasher = SipHasher13::new_with_keys(shard.key[0], shard.key[1]);
    hasher.write(client.as_bytes());
    let number = hasher.finish() % u64::from(shard.count);
    u16::try_from(number).expect("less than a u16")
}

impl Gateway {
    /// The other shard that owns this client, if one does.
    pub(crate) fn elsewhere(&self, client: &str) -> Option<u16> {
        let to = owner(self.config.shard, client);
        (to != self.config.shard.index).then_some(to)
    }

    /// The client that says this HELLO belongs to the shard `to`; `rest` is what came behind it.
    ///
    /// It is said to the kernel when operations are taken, since more of it may come in until then.
    pub(crate) fn move_away(
        &mut self,
        conn: ConnId,
        hello: &Message<'_>,
        rest: &[u8],
        to: u16,
        now: Moment,
    ) -> Next {
        if self.is_emptying() {
            return self.refuse(conn, CloseReason::Drain, now);
        }
        if self.moves >= limits::MOVES_MAX {
            return self.refuse(conn, CloseReason::Busy, now);
        }
        let Some(connection) = self.tracker.get_mut(conn) else { return Next::Ended };
        let mut bytes = Vec::new();
        native::encode_preface(native::VERSIONS, &mut bytes);
        if native::try_encode(hello, &mut bytes).is_err() {
            return self.refuse(conn, CloseReason::ServerError, now);
        }
        connection.state = State::Closing;
        connection.look = Look::None;
        let departure = Move { conn, to, peer: connection.peer(), bytes };
        self.tracker.disarm(conn);
        self.moves += 1;
        // What travels is counted where it arrives.
        let hello_bytes = departure.bytes.len() as u64;
        self.stats.bytes_received = self.stats.bytes_received.saturating_sub(hello_bytes);
        self.stats.frames_received = self.stats.frames_received.saturating_sub(1);
        self.departures.insert(conn, Box::new(departure));
        self.send_behind(conn, rest, now);
        Next::Ended
    }

    /// Bytes of a connection that is no longer listened to: where it is about to be moved they
    /// travel with it.
    pub(crate) fn send_behind(&mut self, conn: ConnId, bytes: &[u8], now: Moment) {
        let Some(departure) = self.departures.get_mut(&conn) else { return };
        let received = self.stats.bytes_received;
        self.stats.bytes_received = received.saturating_sub(bytes.len() as u64);
        if departure.bytes.len() + bytes.len() > limits::MOVE_BYTES_MAX {
            self.departures.remove(&conn);
            return self.keep(conn, Stay::TooMuch, now);
        }
        departure.bytes.extend_from_slice(bytes);
    }

    /// A connection broke. Where it is about to be moved it is not.
    pub(crate) fn on_broken_before_move(&mut self, conn: ConnId, fault: IoFault, now: Moment) {
        if self.departures.remove(&conn).is_some() {
            self.keep(conn, Stay::Broken(fault), now);
        }
    }

    /// The kernel gave the connection away.
    pub(crate) fn on_moved(&mut self, conn: ConnId, now: Moment) {
        if self.tracker.get(conn).is_some() {
            self.moves -= 1;
            self.stats.moved += 1;
            self.tell_moved(conn, now);
        }
        self.on_closed(conn);
    }

    /// The kernel could not give the connection away. Its receive is over.
    pub(crate) fn on_stayed(&mut self, conn: ConnId, why: Stay, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else {
            self.stats.stale += 1;
            return;
        };
        connection.receive = Receive::Over;
        self.keep(conn, why, now);
    }

    /// A connection that was to be moved is refused here.
    fn keep(&mut self, conn: ConnId, why: Stay, now: Moment) {
        self.moves -= 1;
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        connection.state = State::Greeting { since: now, preface: Preface::Heard };
        let reason = match why {
            Stay::Broken(fault) => reason_of(fault),
            Stay::NoRoom => CloseReason::Busy,
            Stay::TooMuch => CloseReason::Flood,
        };
        if connection.receive == Receive::Over && !matches!(why, Stay::Broken(_)) {
            // It is told why, and may close first.
            connection.receive = Receive::Armed;
            self.ops.push(Op::Receive { conn });
        }
        self.tracker.touch(conn, now + self.config.handshake_timeout);
        self.end(conn, reason, now);
    }

    /// A connection came from another shard, with a complete HELLO.
    pub(crate) fn on_arrived(
        &mut self,
        socket: SocketHandle,
        peer: SocketAddr,
        bytes: &[u8],
        now: Moment,
    ) {
        self.stats.arrived += 1;
        let counted = self.count_address(peer, Coming::Arrives, now);
        let standing = counted.unwrap_or_default().let_in();
        let Some(conn) = self.admit(socket, peer, standing, now) else { return };
        if self.is_emptying() {
            self.end(conn, CloseReason::Drain, now);
        } else if let Err(limit) = counted {
            self.stats.tally.limited[limit.index()] += 1;
            self.turn_away(conn, limit, now);
        } else {
            self.on_received(conn, bytes, now);
        }
        self.make_room(now);
    }

    // --- what whoever turns the loop has to know -------------------------------------------------

    /// How many connections can arrive from other shards now.
    pub fn room_for_arrivals(&self) -> usize {
        let taken = self.tracker.len() + self.accepting.outstanding as usize;
        self.capacity().saturating_sub(taken)
    }

    /// Connections of this shard that count towards the total: all but those that are held for
    /// clients that are away, and those that are being moved.
    pub fn here(&self) -> usize {
        (self.tracker.len() - self.held.count()).saturating_sub(self.moves)
    }

    /// How many connections the other shards have.
    pub fn set_elsewhere(&mut self, connections: usize) {
        self.connections_elsewhere = connections;
    }

    /// Whether nothing will be moved from here any more, because all are asked to leave.
    pub fn moves_no_more(&self) -> bool {
        self.is_emptying() && self.moves == 0
    }

    /// Whether no connection is left, in whatever state.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}
