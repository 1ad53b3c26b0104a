//! Who is dead. A deadline that passed is a suspicion; the last look makes it a verdict.

use crate::base::event::{CloseReason, Rescue};
use crate::base::ids::ConnId;
use crate::base::io::{CloseHow, Found, Op, TcpFacts};
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::connection::{Hearing, Look, Measure, State, WaitsFor};
use crate::gateway::requests::PROBE;
use crate::gateway::{Gateway, reason_of};
use crate::wire::message::{Message, Reply};

impl Gateway {
    /// Takes who is due, at most a batch; the rest is due in the next turn.
    pub(crate) fn expire(&mut self, now: Moment) {
        let mut due = std::mem::take(&mut self.due);
        due.clear();
        self.unfinished = self.tracker.expire(now, limits::EXPIRE_BATCH_MAX, &mut due);
        for conn in &due {
            self.on_due(*conn, now);
        }
        self.due = due;
    }

    /// The deadline of this connection passed.
    fn on_due(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let is_asked = connection.is_asked(self.config.mode);
        match &mut connection.state {
            State::Live(session) if is_asked && session.is_to_be_pinged(now) => {
                session.on_pinged(now);
                self.stats.pings_sent += 1;
                if !connection.mode(self.config.mode).server_pings() {
                    self.tell_suspect(conn, now);
                }
                self.rearm(conn, now);
                self.say(conn, &PROBE, now);
                self.send_waiting(conn);
            }
            State::Greeting { .. } | State::Live(_) => {
                let is_stopped = connection.hearing == Hearing::Stopped;
                if connection.overdue(&self.config, now).is_some() {
                    if is_stopped && self.has_unread(conn) {
                        return self.look_later(conn, now);
                    }
                    self.begin_look(conn, now);
                    if !self.is_probed(conn) && !is_stopped {
                        self.tell_suspect(conn, now);
                    }
                } else {
                    self.rearm(conn, now);
                    if is_stopped {
                        self.show_life(conn, now);
                    }
                }
            }
            State::Held(_) => self.end_held(conn, None, now),
            State::Leaving { until, waits_for } => {
                let (until, waits_for) = (*until, *waits_for);
                let is_said = connection.outbox.is_empty();
                if until > now {
                    self.tracker.touch(conn, until);
                    return;
                }
                self.stats.leaving.closed += u64::from(waits_for == WaitsFor::Leaver);
                let is_patient = matches!(waits_for, WaitsFor::Peer | WaitsFor::Leaver);
                let is_heard = is_patient && is_said;
                self.close(conn, if is_heard { CloseHow::Finish } else { CloseHow::Abort });
            }
            State::Closing => {}
        }
    }

    fn begin_look(&mut self, conn: ConnId, now: Moment) {
        if let Some(connection) = self.tracker.get_mut(conn) {
            connection.look = Look::UnderWay { since: now };
            if connection.measure == Measure::None {
                self.ops.push(Op::Look { conn });
            }
        }
    }

    /// A client that we do not read has said something. It lives until that was read.
    fn look_later(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get(conn) else { return };
        if let State::Live(session) = &connection.state {
            let later = now + session.rhythm().interval;
            self.tracker.touch(conn, later);
            self.show_life(conn, now);
        }
    }

    /// A client that we do not read waits for answers to its beats in vain, and is not to take us
    /// for dead.
    fn show_life(&mut self, conn: ConnId, now: Moment) {
        self.say(conn, &Message::Ping { reply: Reply::NotWanted, payload: &[] }, now);
        self.send_waiting(conn);
    }

    /// Whether this client is suspect from its probe on, rather than from its deadline.
    fn is_probed(&self, conn: ConnId) -> bool {
        let connection = self.tracker.get(conn);
        connection.is_some_and(|connection| match &connection.state {
            State::Live(session) => {
                session.ping_after().is_some() && !connection.mode(self.config.mode).server_pings()
            }
            State::Greeting { .. } | State::Held(_) | State::Leaving { .. } | State::Closing => {
                false
            }
        })
    }

    /// Sets the deadline that holds if nothing more is heard. Whoever is not read is shown a sign
    /// of life in every interval until then.
    pub(crate) fn rearm(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get(conn) else { return };
        let Some(mut deadline) = connection.next_deadline(&self.config) else { return };
        if connection.hearing == Hearing::Stopped
            && let State::Live(session) = &connection.state
        {
            deadline = deadline.min(now + session.rhythm().interval);
        }
        self.tracker.touch(conn, deadline);
    }

    /// What the last look found. Everything received before it was handed in before it.
    ///
    /// Whoever was overdue when the look was asked for is judged. Between asking and answer the
    /// process may have stood still, and what came meanwhile waits behind the answer.
    pub(crate) fn on_looked(
        &mut self,
        conn: ConnId,
        found: Found,
        tcp: Option<TcpFacts>,
        now: Moment,
    ) {
        if self.on_measured(conn, tcp, now) {
            return;
        }
        let Some(connection) = self.tracker.get_mut(conn) else {
            self.stats.stale += 1;
            return;
        };
        let Look::UnderWay { since } = std::mem::replace(&mut connection.look, Look::None) else {
            return;
        };
        let is_stopped = connection.hearing == Hearing::Stopped;
        match &connection.state {
            State::Greeting { .. } | State::Live(_) => {}
            State::Held(_) | State::Leaving { .. } | State::Closing => return,
        }
        let was_deaf = connection.rearmed_in == self.turn;
        let overdue = connection.overdue(&self.config, since);
        let is_broken = matches!(found, Found::Fault(_));
        if is_stopped && !is_broken && (found == Found::Bytes || self.has_unread(conn)) {
            return self.look_later(conn, now);
        }
        match (found, overdue) {
            // The kernel did not listen for it until just now: what it said may not be here yet.
            (Found::Nothing, Some(_)) if was_deaf => {
                let next_turn = now + self.config.tick;
                self.tracker.touch(conn, next_turn);
            }
            (Found::Nothing, Some(reason)) => {
                self.tcp_seen = tcp;
                self.judge(conn, reason, now);
                self.tcp_seen = None;
            }
            // It was heard between the suspicion and the look.
            (Found::Nothing, None) => {
                // Whoever was probed was told to be alive when its answer came.
                if !self.is_probed(conn) {
                    self.tell_rescued(conn, Rescue::Heard, now);
                }
                self.rearm(conn, now);
            }
            // Its bytes wait to be read: nobody is judged for our slowness. They are read before
            // the wheel turns again, and if they complete no frame the next look finds nothing.
            (Found::Bytes, _) => {
                self.stats.rescued += 1;
                self.tell_rescued(conn, Rescue::LastLook, now);
                self.tracker.touch(conn, now + self.config.tick);
            }
            (Found::Eof, _) => self.end(conn, CloseReason::ClosedByPeer, now),
            (Found::Fault(fault), _) => self.end(conn, reason_of(fault), now),
        }
    }

    fn judge(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        let Some(connection) = self.tracker.get(conn) else { return };
        if let State::Live(session) = &connection.state
            && reason == CloseReason::HeartbeatTimeout
        {
            self.stats.lateness.note(now.since(session.dead_at()));
        }
        self.end(conn, reason, now);
    }
}
