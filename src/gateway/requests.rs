//! What a client said, and what follows from it.

use crate::base::config::{Preset, Rhythm, UserTimeout};
use crate::base::event::{CloseReason, Event};
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::Op;
use crate::base::time::{Moment, Span};
use crate::gateway::Gateway;
use crate::gateway::connection::{Look, Receive, Session, State, Watch};
use crate::tracker::NameError;
use crate::wire::message::{Message, Reply};
use crate::wire::native::{self, Inbound};

/// Whether a connection is listened to further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Listen,
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
            State::Greeting { .. } | State::Live(_) => {}
            State::Leaving { .. } | State::Closing => return,
        }
        let mut deframer = std::mem::take(&mut connection.deframer);
        let mut rest = bytes;
        loop {
            let Some(connection) = self.tracker.get(conn) else { return };
            let payload_max = connection.payload_bytes_max(self.config.payload_bytes_max);
            let next = match deframer.next(&mut rest, payload_max) {
                Ok(Some(inbound)) => self.on_inbound(conn, &inbound, now),
                Ok(None) => break,
                Err(error) => {
                    self.end(conn, error.reason(), now);
                    Next::Ended
                }
            };
            if next == Next::Ended {
                return;
            }
        }
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        connection.deframer = deframer;
        self.after_received(conn, now);
    }

    /// All complete frames were acted on: answers go out, and the next deadline is set.
    fn after_received(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        if connection.deframer.is_partial() {
            connection.partial_since.get_or_insert(now);
        }
        let deadline = connection.next_deadline(&self.config);
        match &connection.state {
            State::Live(_) => {
                if connection.look == Look::None
                    && let Some(deadline) = deadline
                {
                    self.tracker.touch(conn, deadline);
                }
                self.send_waiting(conn);
            }
            // Nothing is said before HELLO, and its deadline stands.
            State::Greeting { .. } | State::Leaving { .. } | State::Closing => {}
        }
    }

    fn on_inbound(&mut self, conn: ConnId, inbound: &Inbound<'_>, now: Moment) -> Next {
        let Some(connection) = self.tracker.get_mut(conn) else { return Next::Ended };
        connection.partial_since = None;
        let is_greeting = match &mut connection.state {
            State::Greeting { .. } => true,
            State::Live(session) => {
                session.last_beat = now;
                if session.watch != Watch::Calm {
                    session.watch = Watch::Calm;
                    self.stats.pings_answered += 1;
                }
                false
            }
            State::Leaving { .. } | State::Closing => return Next::Ended,
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
                    self.on_first_message(conn, message, now)
                } else {
                    self.on_message(conn, message, now)
                }
            }
        }
    }

    /// The first frame says who the client is, or there is no second one.
    fn on_first_message(&mut self, conn: ConnId, message: &Message<'_>, now: Moment) -> Next {
        match message {
            Message::Hello { client_id, class, wanted_interval_ms, .. } => {
                let wanted = Span::from_millis(u64::from(*wanted_interval_ms));
                let rhythm = self.grant(class, wanted);
                self.on_hello(conn, client_id, rhythm, now)
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
                Reply::Wanted | Reply::AtOnce => self.answer(conn, &Message::Pong { payload }, now),
                Reply::NotWanted => Next::Listen,
            },
            Message::Pong { .. } | Message::Ack { .. } => Next::Listen,
            Message::Data { .. } => {
                self.stats.data_received += 1;
                Next::Listen
            }
            Message::Bye { .. } => self.refuse(conn, CloseReason::Bye, now),
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Goaway { .. }
            | Message::Error { .. }
            | Message::Beat { .. } => self.refuse(conn, CloseReason::UnexpectedFrame, now),
        }
    }

    fn refuse(&mut self, conn: ConnId, reason: CloseReason, now: Moment) -> Next {
        self.end(conn, reason, now);
        Next::Ended
    }

    /// Writes a frame to the outbox; whoever lets it run full does not read.
    pub(crate) fn say(&mut self, conn: ConnId, message: &Message<'_>, now: Moment) {
        let _ = self.answer(conn, message, now);
    }

    fn answer(&mut self, conn: ConnId, message: &Message<'_>, now: Moment) -> Next {
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

    /// A client says who it is.
    fn on_hello(&mut self, conn: ConnId, client_id: &str, rhythm: Rhythm, now: Moment) -> Next {
        if self.ledger.is_congested() {
            return self.refuse(conn, CloseReason::Busy, now);
        }
        let Ok(client) = ClientId::new(client_id) else {
            return self.refuse(conn, CloseReason::BadClientId, now);
        };
        match self.tracker.name(conn, client.clone()) {
            Ok(()) => {}
            Err(NameError::Taken { owner }) => {
                self.end(owner, CloseReason::Replaced, now);
                if self.tracker.name(conn, client.clone()).is_err() {
                    return self.refuse(conn, CloseReason::ServerError, now);
                }
            }
            Err(NameError::Named | NameError::Stale) => {
                return self.refuse(conn, CloseReason::ServerError, now);
            }
        }
        let ping_after = self.ping_after(rhythm);
        let epoch = self.epoch_next;
        self.epoch_next += 1;
        let Some(connection) = self.tracker.get_mut(conn) else { return Next::Ended };
        debug_assert_eq!(connection.receive, Receive::Armed);
        connection.state =
            State::Live(Session { epoch, rhythm, ping_after, last_beat: now, watch: Watch::Calm });
        let remote = connection.peer;
        let (interval, timeout) = (rhythm.interval, rhythm.timeout);
        self.tell(Event::Online { client, epoch, conn, remote, interval, timeout }, now);
        self.follow_timeout(conn, rhythm);
        self.welcome(conn, epoch, rhythm, now)
    }

    /// The rhythm a client gets: its class's or the configured one, at the interval it wishes for,
    /// within bounds.
    fn grant(&self, class: &str, wanted: Span) -> Rhythm {
        let config = &self.config;
        let rhythm = Preset::from_word(class).map_or(config.rhythm, Preset::rhythm);
        if wanted == Span::ZERO {
            return rhythm;
        }
        let shortest = config.interval_wish_min.min(rhythm.interval);
        let longest = config.interval_wish_max.max(rhythm.interval);
        let granted = wanted.clamp(shortest, longest);
        if granted == rhythm.interval { rhythm } else { rhythm.with_interval(granted) }
    }

    /// After how much silence a client of this rhythm is pinged: an interval where the server pings,
    /// and otherwise when it becomes suspect.
    fn ping_after(&self, rhythm: Rhythm) -> Option<Span> {
        if self.config.mode.server_pings() {
            return Some(rhythm.interval);
        }
        self.config.probe.span(rhythm).map(|span| rhythm.timeout.minus(span))
    }

    /// The listener's sockets inherit the timeout of the configured rhythm; another one is set.
    fn follow_timeout(&mut self, conn: ConnId, rhythm: Rhythm) {
        match self.config.user_timeout {
            UserTimeout::FollowTimeout if rhythm.timeout != self.config.rhythm.timeout => {
                self.ops.push(Op::SetUserTimeout { conn, timeout: rhythm.timeout });
            }
            UserTimeout::FollowTimeout | UserTimeout::Fixed(_) | UserTimeout::Off => {}
        }
    }

    fn welcome(&mut self, conn: ConnId, epoch: u64, rhythm: Rhythm, now: Moment) -> Next {
        // A crowd that came at once must not beat in step.
        let interval_ms = rhythm.interval.as_millis_u32();
        let first_beat_ms = self.jitter.u32(0..interval_ms.max(1));
        let welcome = Message::Welcome {
            version: *native::VERSIONS.end(),
            mode: self.config.mode,
            resumed: false,
            epoch,
            interval_ms,
            timeout_ms: rhythm.timeout.as_millis_u32(),
            first_beat_ms,
            payload_max: self.config.payload_bytes_max,
            server_unix_ms: self.config.wall.unix_millis(self.time.expected(now)),
            resume: &[],
        };
        self.answer(conn, &welcome, now)
    }
}

/// A PING that wants an answer at once.
pub(crate) const PROBE: Message<'static> = Message::Ping { reply: Reply::AtOnce, payload: &[] };
