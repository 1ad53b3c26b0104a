//! Messages to clients: taken, copied into the outbox when there is room, acknowledged, sent again,
//! dropped.
//!
//! What waits for a client is not in its outbox: the bytes are copied there when the one before has
//! gone, so that a message for many is in memory once.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::config::SlowPolicy;
use crate::base::event::CloseReason;
use crate::base::ids::{ClientId, ConnId};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::answers::{session_of, session_of_mut};
use crate::gateway::broadcast::Broadcasts;
use crate::gateway::connection::{Hearing, State};
use crate::gateway::extra::Extra;
use crate::gateway::mail::{Letter, Mail};
use crate::gateway::post::{Body, Outcome, Post, Push, Pushed, Taken};
use crate::gateway::{Gateway, Reply, Stats};
use crate::tracker::Progress;
use crate::wire::native;

/// What is known of all messages together.
#[derive(Default)]
pub(crate) struct PostOffice {
    pub(crate) broadcasts: Broadcasts,
    /// What the messages of all sessions cost, in bytes.
    queue_bytes: usize,
    /// Sessions that may have messages. Some of these are gone.
    listed: VecDeque<ConnId>,
    /// Nothing of theirs is too old before; `None`: nothing will be.
    too_old_at: Option<Moment>,
    /// When they were last looked through, and how many of them are still to be looked at.
    swept_at: Moment,
    to_sweep: usize,
    /// Dropped just now.
    dropped: Vec<Letter>,
}

/// A message on its way to one client's queue.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) body: Arc<Body>,
    pub(crate) wants_ack: bool,
    /// For how long it may wait from when it is in that queue.
    pub(crate) ttl: Span,
    /// The broadcast it belongs to; 0: none.
    pub(crate) job: u32,
}

/// Why messages were dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Drop {
    TooOld,
    NoRoom,
    SessionOver,
}

const NOT_TAKEN: Pushed = Pushed { outcome: Outcome::Unknown, epoch: 0, seq: 0, is_away: false };

impl PostOffice {
    /// A message became this. Before it was what comes before that.
    fn tell(&mut self, stats: &mut Stats, letter: &Letter, outcome: Outcome) {
        let before = match outcome {
            Outcome::Acked => {
                stats.mail.acked += 1;
                Outcome::Delivered
            }
            Outcome::Delivered => {
                stats.mail.delivered += 1;
                Outcome::Queued
            }
            Outcome::Queued | Outcome::Offline | Outcome::Slow | Outcome::Unknown => {
                Outcome::Queued
            }
        };
        self.broadcasts.on_changed(letter.job, before, outcome);
    }

    /// Does something to a client's mail, and keeps the sum.
    fn with<T>(&mut self, mail: &mut Mail, act: impl FnOnce(&mut Self, &mut Mail) -> T) -> T {
        self.queue_bytes -= mail.bytes();
        let result = act(self, mail);
        self.queue_bytes += mail.bytes();
        result
    }

    /// Something of a client will be too old then.
    fn note_expiry(&mut self, at: Option<Moment>) {
        self.too_old_at = [self.too_old_at, at].into_iter().flatten().min();
    }

    /// When the queues are to be looked through, if anything waits: soon after something is too
    /// old, and not all the time where something always is.
    pub(crate) fn next_wake(&self) -> Option<Moment> {
        self.too_old_at.map(|at| at.max(self.swept_at + limits::SLEEP_MAX))
    }

    /// Bytes of all messages that wait or are not acknowledged.
    pub(crate) fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }
}

impl Gateway {
    /// Takes a message for some clients. O(clients), and what is dropped for it.
    pub(crate) fn push(&mut self, push: Push, now: Moment) -> Reply {
        let Push { clients, epoch, post } = push;
        if post.body.payload_bytes() > usize::from(self.config.payload_bytes_max) {
            return Reply::TooLong { payload_bytes_max: self.config.payload_bytes_max };
        }
        if epoch.is_some() && !clients.first().is_some_and(|client| self.has(client, epoch)) {
            return Reply::OtherSession;
        }
        let order = self.order(post, 0);
        let clients = clients.iter().take(limits::PUSH_CLIENTS_MAX);
        Reply::Pushed(clients.map(|client| self.push_to(client, &order, now)).collect())
    }

    /// A message as it is told to each client's queue.
    pub(crate) fn order(&self, post: Post, job: u32) -> Order {
        let ttl = post.ttl.unwrap_or(self.config.queue.ttl).min(limits::QUEUE_TTL_MAX);
        Order { body: post.body, wants_ack: post.ack, ttl, job }
    }

    /// Whether a client that is here has this session. Whoever is not here has none to differ.
    fn has(&self, client: &ClientId, epoch: Option<u64>) -> bool {
        let conn = self.tracker.find(client.as_str());
        let session = conn.and_then(|conn| session_of(self.tracker.get(conn)?));
        session.is_none_or(|session| Some(session.epoch) == epoch)
    }

    fn push_to(&mut self, client: &ClientId, order: &Order, now: Moment) -> Pushed {
        match self.tracker.find(client.as_str()) {
            Some(conn) => self.put(conn, order, now),
            None => Pushed { outcome: self.absent(client), ..NOT_TAKEN },
        }
    }

    /// What is said of a client that is not here.
    fn absent(&self, client: &ClientId) -> Outcome {
        match self.recent.knows(client.as_str()) {
            true => Outcome::Offline,
            false => Outcome::Unknown,
        }
    }

    /// What became of messages that were taken.
    pub(crate) fn outcomes(&self, of: &[Taken]) -> Reply {
        let outcome = |taken: &Taken| {
            let conn = self.tracker.find(taken.client.as_str());
            let session = conn.and_then(|conn| session_of(self.tracker.get(conn)?));
            match session.filter(|session| session.epoch == taken.epoch) {
                Some(session) => session
                    .extra
                    .as_ref()
                    .map_or(Outcome::Unknown, |extra| extra.mail.outcome(taken.seq, taken.ack)),
                None => self.absent(&taken.client),
            }
        };
        Reply::Outcomes(of.iter().take(limits::PUSH_CLIENTS_MAX).map(outcome).collect())
    }

    /// Puts a message into the queue of the session on this connection. Where the client is here
    /// and nothing is before it, it goes out at once.
    pub(crate) fn put(&mut self, conn: ConnId, order: &Order, now: Moment) -> Pushed {
        let cost = Letter::cost_bytes(&order.body);
        if !self.make_room_for(conn, cost, now) {
            return Pushed { outcome: Outcome::Slow, ..NOT_TAKEN };
        }
        let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) else {
            return NOT_TAKEN;
        };
        let epoch = session.epoch;
        let mail = &mut session.extra().mail;
        let Order { body, wants_ack, ttl, job } = order;
        let seq = self
            .post
            .with(mail, |_, mail| mail.push(Arc::clone(body), *wants_ack, now + *ttl, *job));
        self.stats.mail.pushed += 1;
        let expires_at = now + *ttl;
        if !std::mem::replace(&mut mail.is_listed, true) {
            self.post.listed.push_back(conn);
        }
        self.post.note_expiry(Some(expires_at));
        self.fill_outbox(conn, now);
        self.send_waiting(conn);
        let connection = self.tracker.get(conn);
        let is_away = connection.is_some_and(|one| matches!(one.state, State::Held(_)));
        Pushed { outcome: Outcome::Queued, epoch, seq, is_away }
    }

    /// Makes room for a message by the policy, and says whether there is.
    fn make_room_for(&mut self, conn: ConnId, cost: usize, now: Moment) -> bool {
        self.drop_old(conn, now);
        let policy = self.config.queue;
        let hearing = self.tracker.get(conn).map_or(Hearing::Open, |connection| connection.hearing);
        loop {
            let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) else {
                return false;
            };
            let Some(extra) = &mut session.extra else { return cost <= policy.bytes_max };
            if extra.mail.bytes() + cost <= policy.bytes_max && extra.mail.has_numbers() {
                return true;
            }
            let dropped = match policy.slow {
                SlowPolicy::Oldest if cost <= policy.bytes_max => {
                    self.post.with(&mut extra.mail, |_, mail| mail.drop_oldest())
                }
                SlowPolicy::Oldest | SlowPolicy::Newest | SlowPolicy::Close => None,
            };
            match dropped {
                Some(letter) => self.on_dropped(conn, &letter, Drop::NoRoom, Outcome::Slow),
                None => {
                    self.stats.mail.dropped_newest += 1;
                    // Whoever we do not read may have read everything.
                    if policy.slow == SlowPolicy::Close && hearing == Hearing::Open {
                        self.end(conn, CloseReason::SlowConsumer, now);
                    }
                    return false;
                }
            }
        }
    }

    /// Copies messages into the outbox of a client that is here, if nothing is on its way to it.
    ///
    /// Half of the outbox is left to answers, or a client that is sent much would be ended for not
    /// reading fast enough.
    pub(crate) fn fill_outbox(&mut self, conn: ConnId, now: Moment) {
        if !self.has_mail(conn) {
            return;
        }
        self.drop_old(conn, now);
        let bytes_max = self.config.outbox_bytes_max.min(limits::OUTBOX_BYTES_LIMIT);
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let State::Live(session) = &mut connection.state else { return };
        let Some(extra) = &mut session.extra else { return };
        if connection.outbox.is_in_flight() {
            return;
        }
        loop {
            let taken = connection.outbox.bytes();
            // One that is larger than half has the outbox for itself.
            let room = if taken == 0 { bytes_max } else { (bytes_max / 2).saturating_sub(taken) };
            let Some(letter) = extra.mail.next_waiting(room) else { return };
            let write = |out: &mut Vec<u8>| native::encode(&letter.message(), out);
            if connection.outbox.append(&mut self.chunks, bytes_max, write).is_err() {
                return;
            }
            self.stats.frames_sent += 1;
            extra.mail.on_copied();
        }
    }

    /// Everything that was in flight to this client was handed to the kernel.
    pub(crate) fn on_handed(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let hearing = connection.hearing;
        let State::Live(session) = &mut connection.state else { return };
        let Some(extra) = &mut session.extra else { return };
        let stats = &mut self.stats;
        self.post.with(&mut extra.mail, |post, mail| {
            mail.on_handed(hearing, now, |letter, outcome| post.tell(stats, letter, outcome));
        });
        self.post.note_expiry(extra.mail.expires_first());
    }

    /// The client says that everything up to `seq` arrived.
    pub(crate) fn on_ack(&mut self, conn: ConnId, seq: u32) {
        let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) else { return };
        let Some(extra) = &mut session.extra else { return };
        let stats = &mut self.stats;
        self.post.with(&mut extra.mail, |post, mail| {
            mail.on_ack(seq, |letter, outcome| post.tell(stats, letter, outcome));
        });
    }

    /// The session goes on by this connection: what did not arrive goes out again.
    pub(crate) fn on_mail_resumed(&mut self, conn: ConnId, last_seq: u32, now: Moment) {
        let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) else { return };
        let Some(extra) = &mut session.extra else { return };
        // It was listed by its former connection.
        extra.mail.is_listed = !extra.mail.is_empty();
        if extra.mail.is_listed {
            self.post.listed.push_back(conn);
            self.on_lost(conn, now);
            self.on_ack(conn, last_seq);
            self.fill_outbox(conn, now);
        }
    }

    /// The connection of this session is lost: what may not have arrived waits again.
    pub(crate) fn on_lost(&mut self, conn: ConnId, now: Moment) {
        let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) else { return };
        if let Some(extra) = &mut session.extra {
            extra.mail.requeue(now);
            self.post.note_expiry(extra.mail.expires_first());
        }
    }

    fn has_mail(&self, conn: ConnId) -> bool {
        let session = self.tracker.get(conn).and_then(session_of);
        let extra = session.and_then(|session| session.extra.as_ref());
        extra.is_some_and(|extra| !extra.mail.is_empty())
    }

    /// The client on this connection is not read from now on, or it is read again. How many
    /// messages were looked at for that.
    pub(crate) fn on_mail_hearing(&mut self, conn: ConnId, hearing: Hearing, now: Moment) -> usize {
        let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) else { return 0 };
        let Some(extra) = &mut session.extra else { return 0 };
        let letters = extra.mail.len();
        extra.mail.on_hearing(hearing, now);
        self.post.note_expiry(extra.mail.expires_first());
        // Whoever is heard for a moment now and then may not be when everybody is swept.
        self.drop_old(conn, now);
        letters
    }

    // --- dropped ---------------------------------------------------------------------------------

    /// Drops what is too old of one client's messages.
    fn drop_old(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let outcome = match connection.state {
            State::Held(_) => Outcome::Offline,
            State::Live(_) | State::Greeting { .. } | State::Leaving { .. } | State::Closing => {
                Outcome::Slow
            }
        };
        let Some(session) = session_of_mut(connection) else { return };
        let Some(extra) = &mut session.extra else { return };
        let mut dropped = std::mem::take(&mut self.post.dropped);
        self.post.with(&mut extra.mail, |_, mail| mail.expire(now, outcome, &mut dropped));
        for letter in dropped.drain(..) {
            self.on_dropped(conn, &letter, Drop::TooOld, outcome);
        }
        self.post.dropped = dropped;
    }

    fn on_dropped(&mut self, conn: ConnId, letter: &Letter, why: Drop, outcome: Outcome) {
        let client = self.tracker.client(conn).cloned();
        self.count_dropped(client.as_ref(), letter, why, outcome);
    }

    fn count_dropped(
        &mut self,
        client: Option<&ClientId>,
        letter: &Letter,
        why: Drop,
        outcome: Outcome,
    ) {
        if letter.was_handed {
            self.stats.mail.ack_missed += 1;
            return;
        }
        match why {
            Drop::TooOld => self.stats.mail.expired += 1,
            Drop::NoRoom => self.stats.mail.dropped_oldest += 1,
            Drop::SessionOver => self.stats.mail.orphaned += 1,
        }
        self.post.tell(&mut self.stats, letter, outcome);
        if let Some(client) = client {
            self.post.broadcasts.note_other(letter.job, client, outcome);
        }
    }

    /// A session has ended for good, and this is what it had.
    pub(crate) fn drop_extra(&mut self, client: &ClientId, extra: Option<Box<Extra>>, now: Moment) {
        let Some(mut extra) = extra else { return };
        extra.groups.iter().for_each(|group| self.groups.on_left(group));
        let letters = self.post.with(&mut extra.mail, |_, mail| mail.take_all(now));
        for letter in letters {
            self.count_dropped(Some(client), &letter, Drop::SessionOver, Outcome::Offline);
        }
    }

    /// Looks through the queues of all clients when something in them is too old, some of them in
    /// each turn.
    pub(crate) fn sweep_mail(&mut self, now: Moment) {
        if self.post.listed.len() > 2 * self.capacity() {
            let tracker = &self.tracker;
            self.post.listed.retain(|conn| tracker.get(*conn).and_then(session_of).is_some());
        }
        self.post.to_sweep = self.post.to_sweep.min(self.post.listed.len());
        if self.post.to_sweep == 0 {
            if self.post.next_wake().is_none_or(|at| now < at) {
                return;
            }
            self.post.to_sweep = self.post.listed.len();
            self.post.swept_at = now;
            self.post.too_old_at = None;
        }
        let mut letters = 0;
        for _ in 0..limits::SWEEP_BATCH_MAX.min(self.post.to_sweep) {
            if letters > limits::SWEEP_LETTERS_MAX {
                break;
            }
            let Some(conn) = self.post.listed.pop_front() else { break };
            self.post.to_sweep -= 1;
            self.drop_old(conn, now);
            let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) else {
                continue;
            };
            let Some(extra) = &mut session.extra else { continue };
            letters += extra.mail.len();
            extra.mail.is_listed = !extra.mail.is_empty();
            if extra.mail.is_listed {
                self.post.listed.push_back(conn);
                self.post.note_expiry(extra.mail.expires_first());
            }
        }
        if self.post.to_sweep > 0 {
            self.unfinished = Progress::More;
        }
    }

    /// Panics when the sums are not those of the parts. O(n): tests and simulation only.
    pub(crate) fn check_mail(&self) {
        let mut bytes = 0;
        for slot in 0..self.tracker.slots_end() {
            let Some((conn, connection)) = self.tracker.slot(slot) else { continue };
            let extra = session_of(connection).and_then(|session| session.extra.as_ref());
            let Some(extra) = extra else { continue };
            extra.mail.check(connection.hearing);
            bytes += extra.mail.bytes();
            assert!(extra.mail.bytes() <= self.queue_bytes_ever, "{conn}: it is bounded");
            assert!(extra.mail.is_listed || extra.mail.is_empty(), "{conn}: it is swept");
            let is_seen = |first| self.post.too_old_at.is_some_and(|at| at <= first);
            let is_in_time = extra.mail.first_expiry().is_none_or(is_seen);
            assert!(is_in_time || self.post.to_sweep > 0, "{conn}: it is swept in time");
            let is_idle =
                matches!(connection.state, State::Live(_)) && connection.outbox.is_empty();
            assert!(!is_idle || !extra.mail.has_waiting(), "{conn}: it goes out");
        }
        self.post.broadcasts.check();
        assert_eq!(bytes, self.post.queue_bytes);
        assert!(self.post.listed.len() <= 3 * self.capacity() + limits::SWEEP_BATCH_MAX);
    }
}
