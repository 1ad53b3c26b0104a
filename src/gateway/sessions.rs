//! How sessions begin, go on, are held, and end: one client id, one owner.

use std::collections::VecDeque;

use crate::base::config::{Class, ClassId, Duplicate, Mode, Rhythm, UserTimeout};
use crate::base::event::{CloseReason, Event, Evidence, Probe};
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::Op;
use crate::base::limits;
use crate::base::pulse::Pulse;
use crate::base::time::{Millis, Moment, Span};
use crate::gateway::Gateway;
use crate::gateway::connection::{
    Connection, Hearing, Held, Receive, Session, Socket, State, WaitsFor, Watch,
};
use crate::gateway::extra::Extra;
use crate::gateway::recent::Fight;
use crate::gateway::requests::Next;
use crate::gateway::resume;
use crate::wire::message::{Before, EndedBy, Message};
use crate::wire::native;

/// What a HELLO asks for.
pub(crate) struct Wish<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) class: &'a str,
    /// Zero: none.
    pub(crate) interval: Span,
    /// Empty: none.
    pub(crate) resume: &'a [u8],
    /// Number of the last DATA that arrived in the session it wants back.
    pub(crate) last_seq: u32,
    pub(crate) before: Option<Before>,
}

/// What a session begins with.
enum Entry {
    New,
    Resumed {
        from: ConnId,
        epoch: u64,
        began: Moment,
        away: Span,
        past: Past,
        extra: Option<Box<Extra>>,
    },
}

/// How a session that goes on had beaten.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Past {
    pulse: Pulse,
    last_beat: Moment,
}

impl Past {
    fn of(session: &Session) -> Self {
        Self { pulse: session.pulse, last_beat: session.last_beat }
    }
}

impl Gateway {
    /// A client says who it is.
    pub(crate) fn on_hello(&mut self, conn: ConnId, wish: &Wish<'_>, now: Moment) -> Next {
        if self.ledger.is_congested() {
            return self.refuse(conn, CloseReason::Busy, now);
        }
        if self.is_sharded() && self.is_full() {
            return self.refuse(conn, CloseReason::Busy, now);
        }
        let Ok(client) = ClientId::new(wish.client_id) else {
            return self.refuse(conn, CloseReason::BadClientId, now);
        };
        let class_id = self.config.class_id(wish.class);
        let class = self.config.class_named(class_id);
        let mut entry = Entry::New;
        if let Some(owner) = self.tracker.find(client.as_str()) {
            if self.is_own(owner, &client, wish.resume) {
                entry = self.take_session(owner, now);
            } else if self.make_way(conn, owner, &client, now) == Next::Ended {
                return Next::Ended;
            }
        }
        if self.tracker.name(conn, client.clone()).is_err() {
            return self.refuse(conn, CloseReason::ServerError, now);
        }
        self.note_return(&client, wish, class.rhythm, now);
        let class = (class_id, self.grant(class, wish.interval));
        let from = match entry {
            Entry::New => None,
            Entry::Resumed { from, .. } => Some(from),
        };
        if self.begin_session(conn, client, class, entry, now) == Next::Ended {
            return Next::Ended;
        }
        if let Some(from) = from {
            self.on_mail_resumed(conn, wish.last_seq, now);
            self.follow_broadcasts(from, conn, now);
        }
        Next::Listen
    }

    fn begin_session(
        &mut self,
        conn: ConnId,
        client: ClientId,
        class: (ClassId, Class),
        mut entry: Entry,
        now: Moment,
    ) -> Next {
        let (class_id, class) = class;
        let epoch = match entry {
            Entry::New => self.epoch_next,
            Entry::Resumed { epoch, .. } => epoch,
        };
        let is_new = matches!(entry, Entry::New);
        if is_new {
            // The epochs between are those of the other shards.
            self.epoch_next += u64::from(self.config.shard.count);
        }
        let Some(connection) = self.tracker.get_mut(conn) else { return Next::Ended };
        let mode = connection.mode(self.config.mode);
        let mut session = Session::new(epoch, class_id, class, ping_after(mode, class), now);
        if let Entry::Resumed { began, past, extra, .. } = &mut entry {
            session.set_began(*began);
            session.pulse = past.pulse;
            session.pulse.note(now.since(past.last_beat));
            session.extra = extra.take();
        }
        let rhythm = session.rhythm();
        debug_assert_eq!(connection.receive, Receive::Armed);
        connection.state = State::Live(session);
        self.classes.on_live(class_id);
        let remote = connection.peer();
        self.follow_timeout(conn, class.rhythm);
        let token = resume::token(self.config.resume_key, client.as_str(), epoch);
        let Rhythm { interval, timeout } = rhythm;
        match entry {
            Entry::New => {
                self.stats.tally.sessions_began += 1;
                let flaps = self.recent.on_online(client.as_str(), now);
                let online =
                    Event::Online { client, epoch, conn, remote, interval, timeout, flaps };
                self.tell(online, now);
            }
            Entry::Resumed { away, .. } => {
                self.stats.resumed += 1;
                let resumed =
                    Event::Resumed { client, epoch, conn, remote, away, interval, timeout };
                self.tell(resumed, now);
            }
        }
        // Said after it was written down: should even this be too much, OFFLINE follows ONLINE.
        let token: &[u8] = if class.grace == Span::ZERO { &[] } else { &token };
        let welcome = self.welcome((epoch, rhythm, mode), is_new, token, now);
        let next = self.answer(conn, &welcome, now);
        if next == Next::Listen && !is_new {
            self.on_up_resumed(epoch, conn, now);
        }
        next
    }

    /// The policies a client gets: those of its class, at the interval it wishes for, within
    /// bounds.
    fn grant(&self, class: Class, wanted: Span) -> Class {
        let rhythm = class.rhythm;
        if wanted == Span::ZERO {
            return class;
        }
        let shortest = self.config.interval_wish_min.min(rhythm.interval);
        let longest = self.config.interval_wish_max.max(rhythm.interval);
        let granted = wanted.clamp(shortest, longest);
        if granted == rhythm.interval {
            return class;
        }
        Class { rhythm: rhythm.with_interval(granted), ..class }
    }

    /// The listener's sockets inherit the timeout of the rhythm at the start; another one is set.
    fn follow_timeout(&mut self, conn: ConnId, rhythm: Rhythm) {
        match self.config.user_timeout {
            UserTimeout::FollowTimeout if rhythm.timeout != self.planned.rhythm.timeout => {
                self.ops.push(Op::SetUserTimeout { conn, timeout: rhythm.timeout });
            }
            UserTimeout::FollowTimeout | UserTimeout::Fixed(_) | UserTimeout::Off => {}
        }
    }

    /// What a session begins with, said to the client.
    fn welcome<'a>(
        &mut self,
        session: (u64, Rhythm, Mode),
        is_new: bool,
        token: &'a [u8],
        now: Moment,
    ) -> Message<'a> {
        let (epoch, rhythm, mode) = session;
        // A crowd that came at once must not beat in step.
        let interval_ms = rhythm.interval.as_millis_u32();
        Message::Welcome {
            version: *native::VERSIONS.end(),
            mode,
            resumed: !is_new,
            epoch,
            interval_ms,
            timeout_ms: rhythm.timeout.as_millis_u32(),
            first_beat_ms: self.jitter.u32(0..interval_ms.max(1)),
            payload_max: self.config.payload_bytes_max,
            server_unix_ms: self.config.wall.unix_millis(self.time.expected(now)),
            resume: token,
        }
    }

    // --- somebody of that name is here already ---------------------------------------------------

    /// Whether the session of `owner` is the one that this token is for.
    fn is_own(&self, owner: ConnId, client: &ClientId, token: &[u8]) -> bool {
        let Some(connection) = self.tracker.get(owner) else { return false };
        let epoch = match &connection.state {
            State::Live(session) if session.grace() > Span::ZERO => session.epoch,
            State::Held(held) => held.session.epoch,
            State::Live(_) | State::Greeting { .. } | State::Leaving { .. } | State::Closing => {
                return false;
            }
        };
        resume::is_token_of(self.config.resume_key, client.as_str(), epoch, token)
    }

    /// Takes the session from the connection that had it; that one goes without a word in the
    /// ledger, since nobody went.
    fn take_session(&mut self, owner: ConnId, now: Moment) -> Entry {
        let is_live = |connection: &Connection| matches!(connection.state, State::Live(_));
        if self.tracker.get(owner).is_some_and(is_live) {
            self.tell_disconnected(owner, CloseReason::Replaced, now);
        }
        self.tracker.unname(owner);
        let Some(connection) = self.tracker.get_mut(owner) else { return Entry::New };
        let peer = connection.peer();
        match &mut connection.state {
            State::Live(session) => {
                let (epoch, began) = (session.epoch, session.began());
                let (past, extra) = (Past::of(session), session.extra.take());
                self.up.on_lost(epoch);
                self.classes.on_lost(session.class);
                self.stats.count_ending(CloseReason::Replaced, peer);
                let replaced = CloseReason::Replaced;
                let goaway = Message::Goaway {
                    code: replaced.code(),
                    reconnect_min_ms: 0,
                    reconnect_max_ms: 0,
                    address: "",
                    text: replaced.word(),
                };
                self.leave(owner, &goaway, WaitsFor::Peer, now);
                Entry::Resumed { from: owner, epoch, began, away: Span::ZERO, past, extra }
            }
            State::Held(held) => {
                let (epoch, began) = (held.session.epoch, held.session.began());
                let away = now.since(held.lost_at);
                let (past, extra) = (Past::of(&held.session), held.session.extra.take());
                self.release_held(owner);
                Entry::Resumed { from: owner, epoch, began, away, past, extra }
            }
            State::Greeting { .. } | State::Leaving { .. } | State::Closing => Entry::New,
        }
    }

    /// Ends the session of `owner` so that `conn` can have its name, or refuses `conn`.
    fn make_way(&mut self, conn: ConnId, owner: ConnId, client: &ClientId, now: Moment) -> Next {
        let Some(connection) = self.tracker.get(owner) else { return Next::Listen };
        let (epoch, duplicate) = match &connection.state {
            State::Live(session) => (session.epoch, session.duplicate),
            State::Held(_) => {
                self.end_held(owner, None, now);
                return Next::Listen;
            }
            State::Greeting { .. } | State::Leaving { .. } | State::Closing => {
                return Next::Listen;
            }
        };
        if duplicate == Duplicate::Reject {
            return self.refuse(conn, CloseReason::AlreadyConnected, now);
        }
        match self.recent.on_takeover(client.as_str(), now) {
            Fight::Fair => {
                self.end(owner, CloseReason::Replaced, now);
                Next::Listen
            }
            Fight::Contested { count } => self.send_away(conn, client, epoch, count, now),
        }
    }

    /// Two devices that take one id from each other would do so for ever: newcomers wait, twice as
    /// long each time.
    fn send_away(
        &mut self,
        conn: ConnId,
        client: &ClientId,
        epoch: u64,
        count: u32,
        now: Moment,
    ) -> Next {
        let doublings = (count - limits::CONTEST_FREE).min(16);
        let wait = Span::from_secs(1 << doublings).min(limits::CONTEST_WAIT_MAX);
        if count.is_power_of_two() {
            let remote = self.tracker.get(conn).map(|connection| connection.peer());
            let Some(remote) = remote else { return Next::Ended };
            let client = client.clone();
            self.tell(Event::Contested { client, epoch, remote, count }, now);
        }
        self.end_within(conn, CloseReason::Contested, (wait.divided_by(2), wait), now);
        Next::Ended
    }

    /// Counts a verdict that turns out to have been wrong: the client says that it sent a beat
    /// after the last one that we heard, and that it was we who closed the connection.
    fn note_return(&mut self, client: &ClientId, wish: &Wish<'_>, rhythm: Rhythm, now: Moment) {
        let Some(verdict) = self.recent.take_verdict(client.as_str()) else { return };
        self.stats.returned += 1;
        let Some(before) = wish.before else { return };
        // The client counts by the clock, stalls of ours included.
        let sent_at =
            self.time.expected(now) - Span::from_millis(u64::from(before.last_beat_ago_ms));
        let heard_until = self.time.clock(verdict.last_beat) + rhythm.interval.divided_by(2);
        let was_alive = sent_at > heard_until && verdict.judged_at > verdict.last_beat;
        if was_alive && before.ended_by == EndedBy::Server {
            self.stats.false_offline += 1;
        }
    }

    // --- the end, at once or after a while -------------------------------------------------------

    /// Ends the session on this connection, if there is one: it is held where its class wants that
    /// and the network took it, and written off otherwise. Says whether it is held.
    pub(crate) fn end_session(&mut self, conn: ConnId, reason: CloseReason, now: Moment) -> bool {
        let is_emptying = self.is_emptying();
        let Some(connection) = self.tracker.get_mut(conn) else { return false };
        let partial_bytes = connection.partial_bytes();
        let State::Live(session) = &mut connection.state else { return false };
        let silence = now.since(session.last_beat);
        let intervals = silence.as_nanos() / session.rhythm().interval.as_nanos().max(1);
        let (probe, probe_ago) = match session.watch {
            Watch::Calm => (Probe::NotSent, Millis::default()),
            Watch::Pinged { at } => (Probe::Unanswered, Millis::at_least(now.since(at))),
        };
        let evidence = Evidence {
            beats_missed: u32::try_from(intervals).unwrap_or(u32::MAX),
            partial_bytes: u32::try_from(partial_bytes).unwrap_or(u32::MAX),
            stalled: self.time.stalled_since(session.last_beat),
            timeout: Millis::at_least(session.rhythm().timeout),
            pulse: session.pulse,
            probe,
            probe_ago,
            tcp: self.tcp_seen.take(),
            held: Span::ZERO,
        };
        let (grace, class) = (session.grace(), session.class);
        self.classes.on_lost(class);
        if grace > Span::ZERO && reason.is_loss() && !is_emptying {
            let until = now + grace;
            let State::Live(session) = std::mem::replace(&mut connection.state, State::Closing)
            else {
                return false;
            };
            let held = Held { session, reason, evidence, lost_at: now, socket: Socket::Closing };
            let epoch = held.session.epoch;
            connection.state = State::Held(Box::new(held));
            connection.hearing = Hearing::Open;
            connection.begun = None;
            self.up.on_lost(epoch);
            connection.outbox.forget(&mut self.chunks);
            self.tracker.touch(conn, until);
            self.on_lost(conn, now);
            self.classes.on_held(class);
            self.hold(conn);
            return true;
        }
        let (epoch, last_beat) = (session.epoch, session.last_beat);
        let (extra, remote) = (session.extra.take(), connection.peer());
        self.up.on_over(epoch);
        let Some(client) = self.tracker.unname(conn) else { return false };
        self.drop_extra(&client, extra, now);
        self.stats.tally.sessions_ended[reason.index()] += 1;
        self.recent.on_offline(client.as_str(), reason, last_beat, now);
        let last_beat = self.time.clock(last_beat);
        let offline = Event::Offline { client, epoch, conn, remote, reason, last_beat, evidence };
        self.tell(offline, now);
        false
    }

    /// Writes off a session that was held: nobody came for it, or `instead` is the reason now.
    pub(crate) fn end_held(&mut self, conn: ConnId, instead: Option<CloseReason>, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let State::Held(held) = &mut connection.state else { return };
        let extra = held.session.extra.take();
        let reason = instead.unwrap_or(held.reason);
        let evidence = Evidence { held: now.since(held.lost_at), ..held.evidence };
        let (epoch, last_beat, remote) =
            (held.session.epoch, held.session.last_beat, connection.peer());
        self.up.on_over(epoch);
        if let Some(client) = self.tracker.unname(conn) {
            self.drop_extra(&client, extra, now);
            self.stats.tally.sessions_ended[reason.index()] += 1;
            self.recent.on_offline(client.as_str(), reason, last_beat, now);
            let last_beat = self.time.clock(last_beat);
            let offline =
                Event::Offline { client, epoch, conn, remote, reason, last_beat, evidence };
            self.tell(offline, now);
        }
        self.release_held(conn);
    }

    fn hold(&mut self, conn: ConnId) {
        self.held.count += 1;
        self.held.order.push_back(conn);
        if self.held.order.len() > self.held.remembered_max() {
            let tracker = &self.tracker;
            self.held.order.retain(|conn| {
                let connection = tracker.get(*conn);
                connection.is_some_and(|connection| matches!(connection.state, State::Held(_)))
            });
        }
    }

    /// Writes off whoever was lost longest ago when slots run short: the held must not close the
    /// door to those who are here.
    pub(crate) fn make_room(&mut self, now: Moment) {
        while self.room() < limits::HELD_ROOM_MIN
            && let Some(conn) = self.held.pop_oldest()
        {
            self.end_held(conn, None, now);
        }
    }

    /// Gives back the slot of a session that is held no longer.
    fn release_held(&mut self, conn: ConnId) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let State::Held(held) = &connection.state else { return };
        self.classes.on_released(held.session.class);
        self.held.on_released();
        match held.socket {
            Socket::Closing => {
                connection.state = State::Closing;
                self.tracker.disarm(conn);
            }
            Socket::Gone => {
                self.tracker.dismiss(conn);
                self.ask_for_connections();
            }
        }
    }
}

/// The sessions that are held, in the order in which they were lost.
#[derive(Default)]
pub(crate) struct HeldSessions {
    /// Some of these are held no longer; their ids are stale or their state tells.
    order: VecDeque<ConnId>,
    count: usize,
}

impl HeldSessions {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many ids may be remembered, stale ones included, before they are sorted out.
    pub(crate) fn remembered_max(&self) -> usize {
        2 * self.count + limits::HELD_ROOM_MIN
    }

    /// How many ids are remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.order.len()
    }

    fn on_released(&mut self) {
        self.count -= 1;
        if self.count == 0 {
            self.order.clear();
        }
    }

    fn pop_oldest(&mut self) -> Option<ConnId> {
        self.order.pop_front()
    }
}

/// After how much silence a client is pinged: an interval where the server pings, and otherwise
/// when it becomes suspect.
pub(crate) fn ping_after(mode: Mode, class: Class) -> Option<Span> {
    let rhythm = class.rhythm;
    if mode.server_pings() {
        return Some(rhythm.interval);
    }
    class.probe.span(rhythm).map(|span| rhythm.timeout.minus(span))
}
