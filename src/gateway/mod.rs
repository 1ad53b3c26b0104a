//! What we do: connections become sessions, sessions end, and the ledger says so.
//!
//! May import: base, wire, tracker.
//! Never here: sockets, threads, the clock. It is told what happened and when, and says what to do.
//!
//! [`Gateway`] is a value with three doors in, [`on_completion`](Gateway::on_completion),
//! [`on_time`](Gateway::on_time) and [`on_command`](Gateway::on_command), and three ways out,
//! [`take_ops`](Gateway::take_ops), [`take_events`](Gateway::take_events) and
//! [`next_wake`](Gateway::next_wake). What clients send up goes out by
//! [`take_data`](Gateway::take_data), and its credit comes back by
//! [`on_credits`](Gateway::on_credits); what nobody counts on goes out by
//! [`take_transport`](Gateway::take_transport). Tokens that somebody else has to look at go out by
//! [`take_checks`](Gateway::take_checks), and what that one says comes in by
//! [`on_checked`](Gateway::on_checked). It does nothing by itself.
//!
//! ```
//! use heartwheel::base::config::GatewayConfig;
//! use heartwheel::base::io::Op;
//! use heartwheel::base::time::Moment;
//! use heartwheel::gateway::Gateway;
//!
//! let mut gateway = Gateway::new(GatewayConfig::default(), Moment::ZERO);
//! let mut ops = Vec::new();
//! gateway.take_ops(&mut ops);
//! assert!(matches!(ops[0], Op::Accept { .. }), "first of all it wants connections");
//! ```

mod addresses;
mod admission;
mod answers;
mod broadcast;
mod bucket;
mod certified;
mod classes;
mod command;
mod connection;
mod drain;
mod events;
mod extra;
mod farewell;
mod groups;
mod identity;
mod lateness;
mod lived;
mod mail;
mod measure;
mod meter;
mod moves;
mod peer;
mod post;
mod push;
mod recent;
mod reconfigure;
mod requests;
mod resume;
mod sessions;
mod tally;
mod terms;
#[cfg(test)]
mod tests;
mod transport;
mod up;
mod verdict;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use crate::base::config::{GatewayConfig, Rhythm, Shard, TransportEvents};
use crate::base::event::{CloseReason, Event, Record};
use crate::base::ids::ConnId;
use crate::base::io::{
    CloseHow, Completion, IoFault, Move, Op, ReceiveEnd, SocketHandle, TcpFacts,
};
use crate::base::limits;
use crate::base::time::{Moment, WallAnchor};
use crate::gateway::admission::{Door, Standing};
use crate::gateway::answers::session_of;
use crate::gateway::certified::Certified;
use crate::gateway::classes::Classes;
use crate::gateway::connection::{
    ChunkPool, Connection, Hearing, Look, Receive, Socket, State, WaitsFor,
};
use crate::gateway::drain::{Emptying, Shedding};
use crate::gateway::events::Ledger;
use crate::gateway::farewell::Word;
use crate::gateway::groups::Groups;
use crate::gateway::identity::Checks;
use crate::gateway::lived::LivedTime;
use crate::gateway::measure::Measures;
use crate::gateway::meter::Meters;
use crate::gateway::push::PostOffice;
use crate::gateway::recent::RecentClients;
use crate::gateway::sessions::HeldSessions;
use crate::gateway::transport::TransportQueue;
use crate::gateway::up::UpPath;
use crate::tracker::{Progress, Tracker, TrackerConfig};

pub use crate::gateway::classes::ClassCounts;
pub use crate::gateway::command::{
    Command, Drain, Endings, Filter, Kick, Leaving, Mood, Pace, Presence, Rebalance, Reply,
    SessionView, Stats,
};
pub use crate::gateway::lateness::{LATENESS_BOUNDS, Lateness};
pub use crate::gateway::moves::owner;
pub use crate::gateway::post::{
    Body, Broadcast, BroadcastReply, BroadcastView, MailStats, Outcome, Post, Push, Pushed, Taken,
};
pub use crate::gateway::tally::Tally;
pub use crate::gateway::up::UpStats;

/// The gateway: every connection, every session, and what is to be done about them.
///
/// Inside, every moment is a lived one; the doors turn the clock's into those.
pub struct Gateway {
    config: GatewayConfig,
    planned: Planned,
    /// The most bytes that could wait for a client at any time so far.
    outbox_bytes_ever: usize,
    /// The most bytes that messages for a client could cost at any time so far.
    queue_bytes_ever: usize,
    time: LivedTime,
    tracker: Tracker<Connection>,
    ledger: Ledger,
    /// `None`: nobody wants to know.
    transport: Option<TransportQueue>,
    recent: RecentClients,
    held: HeldSessions,
    up: UpPath,
    groups: Groups,
    post: PostOffice,
    classes: Classes,
    certified: Certified,
    chunks: ChunkPool,
    ops: Vec<Op>,
    /// About to be moved: said to the kernel when operations are taken next.
    departures: BTreeMap<ConnId, Box<Move>>,
    /// About to be moved, and being moved.
    moves: usize,
    checks: Checks,
    /// Connections of the other shards.
    connections_elsewhere: usize,
    accepting: Accepting,
    draining: Option<Emptying>,
    /// Some are asked to go elsewhere.
    shedding: Option<Box<Shedding>>,
    /// Whether the wheel, a drain or a rebalance stopped for want of budget.
    unfinished: Progress,
    due: Vec<ConnId>,
    /// The turn: what comes in until time passes. Never 0, and wrapping: whoever is taken for
    /// rearmed in this turn for that waits for its verdict until the next.
    turn: u16,
    /// Whether anything waits for the end of a send that was asked for.
    awaits_send: bool,
    /// What TCP said of the connection that is being judged.
    tcp_seen: Option<TcpFacts>,
    measures: Measures,
    door: Door,
    meters: Meters,
    epoch_next: u64,
    jitter: fastrand::Rng,
    stats: Stats,
}

/// What was made to fit the configuration of the start, and does not change with it.
struct Planned {
    slots: u32,
    connections_max: u32,
    shard: Shard,
    /// What sockets inherit from the listener is made for it.
    rhythm: Rhythm,
}

/// How new connections come in.
struct Accepting {
    /// Accepts that the kernel has and has not answered.
    outstanding: u32,
    /// Not before this moment, when the machine was short of something.
    paused_until: Option<Moment>,
}

impl Gateway {
    /// A gateway that nobody is connected to yet. Its first operations ask for connections.
    pub fn new(config: GatewayConfig, now: Moment) -> Self {
        let tracker = Tracker::new(TrackerConfig {
            capacity_max: capacity(&config),
            tick: config.tick,
            hash_key: config.hash_key,
            start: now,
        });
        let mut gateway = Self {
            planned: Planned {
                slots: capacity(&config),
                connections_max: config.connections_max,
                shard: config.shard,
                rhythm: config.rhythm,
            },
            outbox_bytes_ever: config.outbox_bytes_max,
            queue_bytes_ever: config.queue.bytes_max,
            time: LivedTime::new(now),
            tracker,
            ledger: Ledger::new(),
            transport: match config.transport_events {
                TransportEvents::Untold => None,
                TransportEvents::Told => Some(TransportQueue::new()),
            },
            recent: RecentClients::new(config.hash_key),
            held: HeldSessions::default(),
            up: UpPath::default(),
            groups: Groups::default(),
            post: PostOffice::default(),
            classes: Classes::new(&config),
            certified: Certified::default(),
            chunks: ChunkPool::default(),
            ops: Vec::new(),
            departures: BTreeMap::new(),
            moves: 0,
            checks: Checks::default(),
            connections_elsewhere: 0,
            accepting: Accepting { outstanding: 0, paused_until: None },
            draining: None,
            shedding: None,
            unfinished: Progress::Done,
            due: Vec::new(),
            turn: 1,
            awaits_send: false,
            tcp_seen: None,
            measures: Measures::default(),
            door: Door::default(),
            meters: Meters::new(&config.client_limits),
            epoch_next: config.epoch_first + u64::from(config.shard.index),
            jitter: fastrand::Rng::with_seed(config.seed),
            stats: Stats::default(),
            config,
        };
        let former = gateway.config.former;
        gateway.ledger.tell(Event::Started { former }, now);
        gateway.ask_for_connections();
        gateway
    }

    /// The kernel spoke. `now` was read after the completion was there, so that what is reckoned
    /// from it is never too early.
    pub fn on_completion(&mut self, completion: Completion<'_>, now: Moment) {
        let now = self.on_told(now);
        match completion {
            Completion::Accepted { socket, peer } => self.on_accepted(socket, peer, now),
            Completion::AcceptFailed { fault } => self.on_accept_failed(fault, now),
            Completion::Received { conn, bytes } => self.on_received(conn, bytes, now),
            Completion::ReceiveEnded { conn, end } => self.on_receive_ended(conn, end, now),
            Completion::Sent { conn, chunk, result } => self.on_sent(conn, chunk, result, now),
            Completion::Looked { conn, found, tcp } => self.on_looked(conn, found, tcp, now),
            Completion::Closed { conn } => self.on_closed(conn),
            Completion::Moved { conn } => self.on_moved(conn, now),
            Completion::Stayed { conn, why } => self.on_stayed(conn, why, now),
            Completion::Introduced { conn, as_what } => self.on_introduced(conn, as_what, now),
            Completion::Spoilt { conn, reason } => self.on_gone(conn, reason, now),
            // Its baggage is opened before it comes here.
            Completion::Arrived { socket, peer, bytes, .. } => {
                self.on_arrived(socket, peer, bytes, now);
            }
            Completion::ArrivalFailed { .. } => self.stats.accept_faults += 1,
            // A gateway opens no connections.
            Completion::Connected { socket, .. } => self.ops.push(Op::Discard { socket }),
            Completion::ConnectFailed { .. } => self.stats.stale += 1,
        }
    }

    /// Time passed, and everything that the kernel had received by `now` was handed in before.
    /// Verdicts are made here and nowhere else.
    pub fn on_time(&mut self, now: Moment) {
        let now = self.on_told(now);
        self.turn = self.turn.wrapping_add(1).max(1);
        self.expire(now);
        self.shed_further(now);
        self.drain_further(now);
        self.read_on(now);
        self.sweep_mail(now);
        self.broadcast_further(now);
        if self.accepting.paused_until.is_some_and(|until| until <= now) {
            self.accepting.paused_until = None;
            self.ask_for_connections();
        }
    }

    /// Somebody asks. The answer is there at once; what takes longer has then begun.
    pub fn on_command(&mut self, command: Command, now: Moment) -> Reply {
        let now = self.on_told(now);
        match command {
            Command::Drain(drain) => {
                self.begin_drain(drain, now);
                Reply::Done
            }
            Command::Reconfigure(new) => {
                self.reconfigure(&new);
                Reply::Done
            }
            Command::Rebalance(rebalance) => self.begin_rebalance(&rebalance, now),
            Command::Kick(kick) => self.kick(&kick, now),
            Command::SetRhythm { client, rhythm } => self.set_rhythm(client, rhythm, now),
            Command::Session { client } => self.session(&client),
            Command::Measure { client } => self.measure(&client, now),
            Command::Sessions { from_slot, limit, filter } => {
                self.sessions(from_slot, limit, &filter)
            }
            Command::Join { client, group } => self.join(&client, group),
            Command::Leave { client, group } => self.leave_group(&client, &group),
            Command::Groups { after, limit } => self.groups.page(after.as_ref(), limit),
            Command::Push(push) => self.push(*push, now),
            Command::Outcomes { of } => self.outcomes(&of),
            Command::Broadcast(broadcast) => self.broadcast(*broadcast, now),
            Command::BroadcastStatus { id } => self.broadcast_status(id),
            Command::Stats => Reply::Stats(Box::new(self.stats())),
            Command::Clients { from_slot, limit } => self.clients(from_slot, limit),
        }
    }

    /// Moves what the kernel should do to the end of `out`.
    pub fn take_ops(&mut self, out: &mut Vec<Op>) {
        out.append(&mut self.ops);
        if !self.departures.is_empty() {
            out.extend(std::mem::take(&mut self.departures).into_values().map(Op::Move));
        }
    }

    /// Whether anything waits for the end of a send that was asked for since this was last asked:
    /// further bytes of the same client, or the close after a last word. Who sleeps on it holds
    /// these up.
    pub fn take_awaits_send(&mut self) -> bool {
        std::mem::take(&mut self.awaits_send)
    }

    /// How much came that is in more of a hurry than a beat: connections, logins, DATA,
    /// acknowledgements. A count since the start.
    pub fn hurried(&self) -> u64 {
        let Stats { accepted, arrived, resumed, data_received, mail, tally, .. } = &self.stats;
        accepted + arrived + tally.sessions_began + resumed + data_received + mail.acked
    }

    /// Where in memory the connection in a slot is kept, for whoever knows that a completion of it
    /// comes next.
    #[inline]
    pub fn memory(&self, slot: u32) -> Option<[Range<*const u8>; 2]> {
        self.tracker.memory(slot)
    }

    /// Moves at most `budget` events to the end of `out`, in order.
    pub fn take_events(&mut self, out: &mut Vec<Record>, budget: usize) {
        self.ledger.take(out, budget);
    }

    /// When [`on_time`](Self::on_time) should be called at the latest; a moment that has passed
    /// when work was left over. `None`: nothing will happen by itself.
    pub fn next_wake(&self) -> Option<Moment> {
        if self.unfinished == Progress::More || self.is_about_to_stop() {
            return Some(Moment::ZERO);
        }
        let leave_wake = self.leave_wake();
        let broadcast_wake = self.post.broadcasts.next_wake();
        let paused_until = self.accepting.paused_until;
        let sweep = self.post.next_wake();
        let wakes = [self.tracker.next_wake(), paused_until, leave_wake, broadcast_wake, sweep];
        let lived = wakes.into_iter().flatten();
        let wake = lived.min().map(|moment| self.time.expected(moment));
        // A sleep that is longer is taken for a stall, and puts off what is waited for.
        if self.tracker.is_empty() && leave_wake.is_none() {
            return wake;
        }
        let longest = self.time.told_at() + limits::SLEEP_MAX;
        Some(wake.map_or(longest, |wake| wake.min(longest)))
    }

    /// How things are. O(number of reasons).
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.tracker.len(),
            online: self.tracker.named() - self.held.count(),
            held: self.held.count(),
            accepting: !self.is_emptying() && self.accepting.paused_until.is_none(),
            draining: self.draining.is_some(),
            leaving: Leaving { rebalancing: self.shedding.is_some(), ..self.stats.leaving },
            events_waiting: self.ledger.waiting(),
            seq_last: self.ledger.seq_last(),
            up: self.up.stats(self.stats.up),
            mail: MailStats {
                queue_bytes: self.post.queue_bytes(),
                broadcasts_running: self.post.broadcasts.running(),
                ..self.stats.mail
            },
            tally: Tally {
                checks_under_way: self.checks.under_way(),
                classes: self.classes.counts(),
                origins: self.origins_known(),
                transport_waiting: self.transport.as_ref().map_or(0, TransportQueue::waiting),
                transport_dropped: self.transport.as_ref().map_or(0, TransportQueue::dropped_ever),
                ..self.stats.tally.clone()
            },
            ..self.stats.clone()
        }
    }

    /// A page of who is online. O(slots looked at), which are bounded.
    fn clients(&self, from_slot: u32, limit: u32) -> Reply {
        let limit = limit.clamp(1, limits::CLIENTS_PAGE_MAX);
        let slots_end = self.tracker.slots_end();
        let upto = from_slot.saturating_add(limit).min(slots_end);
        let present = |slot| {
            let (conn, connection) = self.tracker.slot(slot)?;
            let session = session_of(connection)?;
            Some(Presence {
                client: self.tracker.client(conn)?.clone(),
                epoch: session.epoch,
                conn,
                remote: connection.peer(),
                interval: session.rhythm().interval,
                timeout: session.rhythm().timeout,
            })
        };
        Reply::Clients {
            seq: self.ledger.seq_last(),
            clients: (from_slot..upto).filter_map(present).collect(),
            next_slot: (upto < slots_end).then_some(upto),
        }
    }

    /// Events that nobody has taken yet.
    pub fn events_waiting(&self) -> usize {
        self.ledger.waiting()
    }

    /// The wall clock was looked at again.
    pub fn set_wall(&mut self, wall: WallAnchor) {
        self.config.wall = wall;
    }

    /// Whether a drain has been asked for and nobody is left.
    pub fn is_drained(&self) -> bool {
        self.draining.as_ref().is_some_and(|drain| drain.stopped)
    }

    /// Walks everything and panics when the parts disagree. O(n): tests and simulation only.
    pub fn check(&self) {
        self.tracker.check();
        assert!(self.accepting.outstanding <= limits::ACCEPTS_MAX);
        assert!(self.chunks.len() <= limits::CHUNKS_KEPT_MAX);
        let room = self.capacity() - self.tracker.len();
        assert!(self.accepting.outstanding as usize <= room, "every accept has a slot waiting");
        assert!(self.departures.len() <= self.moves);
        assert!(self.measures.len() <= limits::MEASURES_MAX);
        assert!(self.moves <= limits::MOVES_MAX);
        assert!(self.certified.len() <= self.tracker.len() - self.tracker.named());
        let (mut live, mut held, mut leavers) = (0, 0, 0);
        let mut classes = Classes::new(&self.config);
        for slot in 0..self.tracker.slots_end() {
            let Some((conn, connection)) = self.tracker.slot(slot) else { continue };
            let is_live = matches!(connection.state, State::Live(_));
            live += usize::from(is_live);
            let is_held = matches!(connection.state, State::Held(_));
            held += usize::from(is_held);
            match (session_of(connection), is_held) {
                (Some(session), false) => classes.on_live(session.class),
                (Some(session), true) => classes.on_held(session.class),
                (None, _) => {}
            }
            let is_named = self.tracker.client(conn).is_some();
            assert_eq!(is_live || is_held, is_named, "sessions have names");
            assert!(connection.outbox.bytes() <= self.outbox_bytes_ever);
            let partial_max = usize::from(self.config.payload_bytes_max)
                .max(limits::HANDSHAKE_BYTES_MAX)
                + limits::FRAME_HEADER_BYTES;
            assert!(connection.partial_memory_bytes() <= 2 * partial_max);
            let is_watched = self.tracker.deadline(conn).is_some();
            match &connection.state {
                State::Greeting { .. } | State::Live(_) => {
                    let is_looked_at = connection.look != Look::None;
                    assert!(is_watched != is_looked_at, "{conn}: nobody stays for ever");
                    match is_live {
                        true => self.check_hearing(conn, connection.hearing, connection.receive),
                        false => assert_eq!(connection.receive, Receive::Armed, "{conn} is heard"),
                    }
                }
                State::Leaving { waits_for, .. } => {
                    assert!(is_watched, "{conn}: nobody leaves for ever");
                    leavers += u64::from(*waits_for == WaitsFor::Leaver);
                }
                State::Held(_) => assert!(is_watched, "{conn}: nobody is held for ever"),
                State::Closing => {}
            }
        }
        self.check_up();
        self.check_door();
        self.check_checks();
        assert_eq!(held, self.held.count());
        let Leaving { told, left, closed, .. } = self.stats.leaving;
        assert_eq!(told, left + closed + leavers, "each is counted once");
        assert_eq!(classes, self.classes);
        assert!(self.held.remembered() <= 2 * self.capacity() + limits::HELD_ROOM_MIN);
        assert_eq!(live + held, self.tracker.named());
        assert!(self.recent.len() <= limits::RECENT_MAX);
        self.check_groups();
        self.check_mail();
        assert!(
            self.ledger.waiting() <= limits::EVENTS_WAITING_MAX + 2 * self.capacity() + 2,
            "the ledger is bounded"
        );
    }

    /// Turns the clock's moment into a lived one. Every door begins with it, so that a gap is seen
    /// before anything is reckoned from behind it.
    fn on_told(&mut self, now: Moment) -> Moment {
        if let Some(stall) = self.time.on_told(now)
            && !self.tracker.is_empty()
        {
            self.stats.stalls += 1;
            self.stats.stalled = self.stats.stalled + stall.gap;
            self.tell(Event::Stalled { gap: stall.gap }, self.time.lived(now));
        }
        self.time.lived(now)
    }

    // --- connections come and go -----------------------------------------------------------------

    fn capacity(&self) -> usize {
        self.planned.slots as usize
    }

    /// Slots that are free for whoever is accepted.
    fn room(&self) -> usize {
        let room = self.capacity() - self.tracker.len();
        if self.is_sharded() { room.saturating_sub(limits::ARRIVALS_MAX as usize) } else { room }
    }

    /// Whether there are other shards.
    fn is_sharded(&self) -> bool {
        self.config.shard.count > 1
    }

    /// Asks for as many connections as there are slots for, so that an accepted one always has one.
    fn ask_for_connections(&mut self) {
        if self.is_emptying() || self.accepting.paused_until.is_some() {
            return;
        }
        let room = u32::try_from(self.room()).unwrap_or(u32::MAX);
        let wanted = limits::ACCEPTS_MAX.min(room);
        let count = wanted.saturating_sub(self.accepting.outstanding);
        if count > 0 {
            self.accepting.outstanding += count;
            self.ops.push(Op::Accept { count });
        }
    }

    fn on_accepted(&mut self, socket: SocketHandle, peer: SocketAddr, now: Moment) {
        self.accepting.outstanding = self.accepting.outstanding.saturating_sub(1);
        self.stats.accepted += 1;
        let standing = match self.admit_from(peer, now) {
            Err(limit) if !self.is_told(limit, now) => {
                self.ops.push(Op::Discard { socket });
                return self.ask_for_connections();
            }
            standing => standing,
        };
        let Some(conn) = self.admit(socket, peer, standing.unwrap_or_default(), now) else {
            return;
        };
        if self.is_emptying() {
            self.end(conn, CloseReason::Drain, now);
        } else if let Err(limit) = standing {
            self.turn_away(conn, limit, now);
        } else if !self.is_sharded() && self.is_full() {
            // Among shards it is known with HELLO whose the newcomer is, and who has to have room.
            self.end(conn, CloseReason::Busy, now);
        }
        self.make_room(now);
        self.ask_for_connections();
    }

    /// A socket becomes a connection that has everything still to say.
    fn admit(
        &mut self,
        socket: SocketHandle,
        peer: SocketAddr,
        standing: Standing,
        now: Moment,
    ) -> Option<ConnId> {
        let deadline = now + self.config.handshake_timeout;
        let connection = Connection::new(peer, now).counted(standing);
        let Ok(conn) = self.tracker.admit(connection, deadline) else {
            self.leave_address(peer, standing);
            self.ops.push(Op::Discard { socket });
            return None;
        };
        self.ops.push(Op::Adopt { socket, conn });
        self.ops.push(Op::Receive { conn });
        if let Some(connection) = self.tracker.get_mut(conn) {
            connection.receive = Receive::Armed;
        }
        self.tell_connected(conn, now);
        Some(conn)
    }

    /// Whether the newest connection is one too many, or its events would be.
    fn is_full(&self) -> bool {
        // Whoever is held comes back by a further connection, and must not find the door closed.
        let here = self.tracker.len() - self.held.count();
        let everywhere = self.here() + self.connections_elsewhere;
        here > self.config.connections_max as usize
            || everywhere > self.config.shard.connections_total as usize
            || self.ledger.is_congested()
    }

    fn on_accept_failed(&mut self, fault: IoFault, now: Moment) {
        self.accepting.outstanding = self.accepting.outstanding.saturating_sub(1);
        match fault {
            IoFault::Cancelled => {}
            // The peer gave up while it waited for us: no reason to wait.
            IoFault::Reset => self.ask_for_connections(),
            IoFault::NoDescriptors
            | IoFault::NoMemory
            | IoFault::TimedOut
            | IoFault::Refused
            | IoFault::Unreachable
            | IoFault::AddressUnavailable
            | IoFault::Other(_) => {
                self.stats.accept_faults += 1;
                self.accepting.paused_until = Some(now + limits::ACCEPT_PAUSE);
            }
        }
    }

    fn on_receive_ended(&mut self, conn: ConnId, end: ReceiveEnd, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else {
            self.stats.stale += 1;
            return;
        };
        connection.receive = Receive::Over;
        if connection.hearing == Hearing::Stopped && self.on_stopped_receive_ended(conn, end) {
            return;
        }
        match end {
            ReceiveEnd::Starved | ReceiveEnd::Interrupted => {
                self.stats.receives_rearmed += 1;
                self.receive_again(conn);
            }
            // It is to be read on before the kernel had stopped.
            ReceiveEnd::Paused => self.receive_again(conn),
            ReceiveEnd::Eof => self.on_gone(conn, CloseReason::ClosedByPeer, now),
            ReceiveEnd::Fault(fault) => {
                self.on_gone(conn, reason_of(fault), now);
                self.on_broken_before_move(conn, fault, now);
            }
        }
    }

    /// Asks for a receive where the kernel ended one, unless nobody listens any more.
    pub(crate) fn receive_again(&mut self, conn: ConnId) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        if !matches!(connection.state, State::Closing | State::Held(_)) {
            connection.receive = Receive::Armed;
            connection.rearmed_in = self.turn;
            self.ops.push(Op::Receive { conn });
        }
    }

    /// The peer is gone, or not to be heard any more; if it was leaving, we waited for that.
    fn on_gone(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        let Some(connection) = self.tracker.get(conn) else { return };
        match connection.state {
            State::Greeting { .. } | State::Live(_) => self.end(conn, reason, now),
            State::Leaving { waits_for, .. } => {
                let how = match waits_for {
                    WaitsFor::Sent(how) => how,
                    WaitsFor::Peer => CloseHow::Finish,
                    WaitsFor::Leaver => {
                        self.stats.leaving.left += 1;
                        CloseHow::Finish
                    }
                };
                self.close(conn, how);
            }
            State::Held(_) | State::Closing => {}
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        self.discount_address(conn);
        self.certified.take(conn);
        if let Some(connection) = self.tracker.get_mut(conn)
            && let State::Held(held) = &mut connection.state
        {
            held.socket = Socket::Gone;
            return;
        }
        match self.tracker.dismiss(conn) {
            Some(mut connection) => {
                connection.outbox.forget(&mut self.chunks);
                self.ask_for_connections();
            }
            None => self.stats.stale += 1,
        }
    }
}

/// Slots: the connections, those that are kept for refusals, and those for who comes from other
/// shards.
fn capacity(config: &GatewayConfig) -> u32 {
    let for_arrivals = if config.shard.count > 1 { limits::ARRIVALS_MAX } else { 0 };
    config.connections_max.saturating_add(limits::REFUSALS_MAX).saturating_add(for_arrivals)
}

/// The reason that a fault of the socket is.
fn reason_of(fault: IoFault) -> CloseReason {
    match fault {
        IoFault::Reset => CloseReason::Reset,
        IoFault::TimedOut => CloseReason::TcpTimeout,
        IoFault::Refused
        | IoFault::Unreachable
        | IoFault::AddressUnavailable
        | IoFault::Cancelled
        | IoFault::NoDescriptors
        | IoFault::NoMemory
        | IoFault::Other(_) => CloseReason::NetworkFault,
    }
}
