//! Who is dead. A deadline that passed is a suspicion; the last look makes it a verdict.

use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::io::{CloseHow, Found, Op};
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::connection::{State, WaitsFor, Watch};
use crate::gateway::requests::PROBE;
use crate::gateway::{Gateway, reason_of};

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
        let handshake_timeout = self.config.handshake_timeout;
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        match &connection.state {
            State::Greeting { since, .. } => {
                let deadline = *since + handshake_timeout;
                if deadline <= now {
                    self.end(conn, CloseReason::HandshakeTimeout, now);
                } else {
                    self.tracker.touch(conn, deadline);
                }
            }
            State::Live(_) => self.on_due_live(conn, now),
            State::Leaving { until, waits_for } => {
                let (until, waits_for) = (*until, *waits_for);
                let is_silent = connection.outbox.is_empty();
                if until > now {
                    self.tracker.touch(conn, until);
                } else if waits_for == WaitsFor::Peer && is_silent {
                    self.close(conn, CloseHow::Finish);
                } else {
                    self.close(conn, CloseHow::Abort);
                }
            }
            State::Closing => {}
        }
    }

    /// A client was silent for too long, or dawdles over a frame, or is to be pinged.
    fn on_due_live(&mut self, conn: ConnId, now: Moment) {
        let frame_timeout = self.config.frame_timeout;
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let frame_deadline = connection.frame_deadline(frame_timeout);
        let State::Live(session) = &mut connection.state else { return };
        if session.last_beat + session.rhythm.timeout <= now {
            session.watch = Watch::Looking;
            self.ops.push(Op::Look { conn });
            return;
        }
        if frame_deadline.is_some_and(|deadline| deadline <= now) {
            self.end(conn, CloseReason::FrameTimeout, now);
            return;
        }
        let is_to_be_pinged = session.deadline() <= now;
        if is_to_be_pinged {
            session.watch = Watch::Pinged;
        }
        if let Some(deadline) = connection.next_deadline(frame_timeout) {
            self.tracker.touch(conn, deadline);
        }
        if is_to_be_pinged {
            self.say(conn, &PROBE, now);
            self.send_waiting(conn);
        }
    }

    /// What the last look found. Everything received before it was handed in before it.
    pub(crate) fn on_looked(&mut self, conn: ConnId, found: Found, now: Moment) {
        let (tick, frame_timeout) = (self.config.tick, self.config.frame_timeout);
        let Some(connection) = self.tracker.get_mut(conn) else {
            self.stats.stale += 1;
            return;
        };
        let State::Live(session) = &mut connection.state else { return };
        session.watch = Watch::Calm;
        let dead_at = session.last_beat + session.rhythm.timeout;
        match found {
            Found::Nothing if dead_at <= now => {
                let lateness = now.since(dead_at);
                self.stats.verdicts += 1;
                self.stats.lateness_max = self.stats.lateness_max.max(lateness);
                self.stats.lateness_sum = self.stats.lateness_sum + lateness;
                self.end(conn, CloseReason::HeartbeatTimeout, now);
            }
            // It was heard between the suspicion and the look.
            Found::Nothing => {
                if let Some(deadline) = connection.next_deadline(frame_timeout) {
                    self.tracker.touch(conn, deadline);
                }
            }
            // Its bytes wait to be read: nobody is judged for our slowness. They are read before
            // the wheel turns again, and if they complete no frame the next look finds nothing.
            Found::Bytes => {
                self.stats.rescued += 1;
                self.tracker.touch(conn, now + tick);
            }
            Found::Eof => self.end(conn, CloseReason::ClosedByPeer, now),
            Found::Fault(fault) => self.end(conn, reason_of(fault), now),
        }
    }
}
