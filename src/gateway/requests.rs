//! What a client said, and what follows from it.

use crate::base::event::{CloseReason, Rescue};
use crate::base::ids::ConnId;
use crate::base::time::{Moment, Span};
use crate::gateway::Gateway;
use crate::gateway::connection::{Hearing, Look, Preface, State, Watch};
use crate::gateway::sessions::Wish;
use crate::gateway::up::Data;
use crate::wire::message::{Message, Reply};
use crate::wire::native::{self, Deframer, Inbound};

/// Whether a connection is listened to further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    Listen,
    /// Not now: what follows is kept.
    Stopped,
    Ended,
}

impl Gateway {
    /// Bytes came in: takes them apart and acts on each frame. Answers to all of them go out in
    /// one send.
    pub(crate) fn on_received(&mut self, conn: ConnId, bytes: &[u8], now: Moment) {
        self.stats.bytes_received += bytes.len() as u64;
        let Some(connection) = self.tracker.get_mut(conn) else {
            self.stats.stale += 1;
            return;
        };
        match &connection.state {
            State::Greeting { preface: Preface::Checked, .. } => {
                return self.keep_behind_check(conn, bytes, now);
            }
            State::Greeting { .. } => {}
            State::Live(session) => {
                if self.meters.are_on() {
                    let is_within_frame = connection.begun.is_some();
                    if is_within_frame || self.meters.is_hasty(bytes, session.last_beat, now) {
                        return self.hear_hasty(conn, bytes, now);
                    }
                }
            }
            State::Closing => return self.send_behind(conn, bytes, now),
            State::Held(_) | State::Leaving { .. } => return,
        }
        let hearing = connection.hearing;
        self.hear(conn, hearing, bytes, now);
    }

    /// Acts on bytes of a client that may say them, or keeps them.
    #[inline]
    pub(crate) fn hear(&mut self, conn: ConnId, hearing: Hearing, bytes: &[u8], now: Moment) {
        match hearing {
            Hearing::Open => self.take_apart(conn, bytes, now),
            Hearing::Stopped => self.keep_unread(conn, bytes, now),
        }
    }

    /// Acts on each frame of these bytes, until the client is not to be read any further.
    pub(crate) fn take_apart(&mut self, conn: ConnId, bytes: &[u8], now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let (mut deframer, mut begun_at) = connection.take_begun();
        let (mut rest, mut is_stopped) = (bytes, false);
        loop {
            let Some(connection) = self.tracker.get(conn) else { return };
            let payload_max = connection.payload_bytes_max(self.config.payload_bytes_max);
            let next = match deframer.next(&mut rest, payload_max) {
                Ok(Some(inbound)) => {
                    begun_at = None;
                    self.on_inbound(conn, &inbound, rest, now)
                }
                Ok(None) => break,
                Err(error) => {
                    self.end(conn, error.reason(), now);
                    Next::Ended
                }
            };
            match next {
                Next::Listen => {}
                Next::Stopped => {
                    self.keep_unread(conn, rest, now);
                    is_stopped = true;
                    break;
                }
                Next::Ended => return,
            }
        }
        self.after_received(conn, deframer, begun_at.unwrap_or(now));
        if is_stopped {
            self.rearm_stopped(conn, now);
        }
    }

    /// All complete frames were acted on, and what is left was begun at that moment: answers go
    /// out, and the next deadline is set.
    fn after_received(&mut self, conn: ConnId, rest: Deframer, begun_at: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        connection.keep_begun(rest, begun_at);
        match &connection.state {
            State::Live(_) => {}
            // Nothing is said before HELLO, and its deadline stands.
            State::Greeting { .. } | State::Held(_) | State::Leaving { .. } | State::Closing => {
                return;
            }
        }
        let has_to_send = !connection.outbox.is_empty();
        if connection.look == Look::None
            && let Some(deadline) = connection.next_deadline(&self.config)
        {
            self.tracker.touch(conn, deadline);
        }
        if has_to_send {
            self.send_waiting(conn);
        }
    }

    /// Whoever is not read any further is shown in every interval that we live.
    fn rearm_stopped(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get(conn) else { return };
        if connection.hearing == Hearing::Stopped && connection.look == Look::None {
            self.rearm(conn, now);
        }
    }

    /// Something complete came in, and `rest` behind it.
    fn on_inbound(
        &mut self,
        conn: ConnId,
        inbound: &Inbound<'_>,
        rest: &[u8],
        now: Moment,
    ) -> Next {
        let Some(connection) = self.tracker.get_mut(conn) else { return Next::Ended };
        let is_greeting = match &mut connection.state {
            State::Greeting { preface, .. } => {
                *preface = Preface::Heard;
                true
            }
            State::Live(session) => {
                session.on_heard(now);
                if session.watch != Watch::Calm && session.on_answered(now) {
                    self.stats.pings_answered += 1;
                    if !connection.mode(self.config.mode).server_pings() {
                        self.tell_rescued(conn, Rescue::Heard, now);
                    }
                }
                false
            }
            State::Held(_) | State::Leaving { .. } | State::Closing => return Next::Ended,
        };
        match inbound {
            Inbound::Preface(_) => Next::Listen,
            Inbound::Skipped { .. } => {
                self.stats.frames_received += 1;
                match is_greeting {
                    true => self.refuse(conn, CloseReason::UnexpectedFrame, now),
                    false => Next::Listen,
                }
            }
            Inbound::Message(message) => {
                self.stats.frames_received += 1;
                if is_greeting {
                    self.on_first_message(conn, message, rest, now)
                } else {
                    self.on_message(conn, message, now)
                }
            }
        }
    }

    /// The first frame says who the client is, or there is no second one.
    fn on_first_message(
        &mut self,
        conn: ConnId,
        message: &Message<'_>,
        rest: &[u8],
        now: Moment,
    ) -> Next {
        match message {
            Message::Hello {
                wanted_interval_ms,
                client_id,
                class,
                resume,
                last_seq,
                before,
                ..
            } => {
                if self.let_in(conn, client_id, resume, now) == Next::Ended {
                    return Next::Ended;
                }
                if let Some(to) = self.elsewhere(client_id) {
                    return self.move_away(conn, message, rest, to, now);
                }
                if let Some(next) = self.prove(conn, message, rest, now) {
                    return next;
                }
                let interval = Span::from_millis(u64::from(*wanted_interval_ms));
                let (last_seq, before) = (*last_seq, *before);
                let wish = Wish { client_id, class, interval, resume, last_seq, before };
                self.on_hello(conn, &wish, now)
            }
            Message::Welcome { .. }
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::Data { .. }
            | Message::Ack { .. }
            | Message::Goaway { .. }
            | Message::Bye { .. }
            | Message::Error { .. }
            | Message::Beat { .. } => self.refuse(conn, CloseReason::UnexpectedFrame, now),
        }
    }

    /// A frame of a client that is online.
    fn on_message(&mut self, conn: ConnId, message: &Message<'_>, now: Moment) -> Next {
        match message {
            Message::Ping { reply, payload } => match reply {
                Reply::Wanted | Reply::AtOnce if !self.is_beat_answered(conn, now) => Next::Listen,
                Reply::Wanted | Reply::AtOnce => {
                    self.stats.tally.beats_answered += 1;
                    self.answer(conn, &Message::Pong { payload }, now)
                }
                Reply::NotWanted => {
                    self.stats.tally.beats_unanswered += 1;
                    Next::Listen
                }
            },
            Message::Pong { .. } => Next::Listen,
            Message::Ack { seq } => {
                self.on_ack(conn, *seq);
                Next::Listen
            }
            Message::Data { seq, ack, topic, body } => {
                self.on_data(conn, Data { seq: *seq, ack: *ack, topic, body }, now)
            }
            Message::Bye { .. } => self.refuse(conn, CloseReason::Bye, now),
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Goaway { .. }
            | Message::Error { .. }
            | Message::Beat { .. } => self.refuse(conn, CloseReason::UnexpectedFrame, now),
        }
    }

    pub(crate) fn refuse(&mut self, conn: ConnId, reason: CloseReason, now: Moment) -> Next {
        self.end(conn, reason, now);
        Next::Ended
    }

    /// Writes a frame to the outbox; whoever lets it run full does not read.
    pub(crate) fn say(&mut self, conn: ConnId, message: &Message<'_>, now: Moment) {
        let _ = self.answer(conn, message, now);
    }

    pub(crate) fn answer(&mut self, conn: ConnId, message: &Message<'_>, now: Moment) -> Next {
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.tracker.get_mut(conn) else { return Next::Ended };
        let write = |out: &mut Vec<u8>| native::encode(message, out);
        match connection.outbox.append(&mut self.chunks, bytes_max, write) {
            Ok(()) => {
                self.stats.frames_sent += 1;
                Next::Listen
            }
            Err(_) => self.refuse(conn, CloseReason::SlowConsumer, now),
        }
    }
}

/// A PING that wants an answer at once.
pub(crate) const PROBE: Message<'static> = Message::Ping { reply: Reply::AtOnce, payload: &[] };
