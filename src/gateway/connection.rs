//! One connection: what state it is in, what waits to be sent, what was heard.

use std::net::SocketAddr;

use crate::base::config::{Duplicate, GatewayConfig, Rhythm};
use crate::base::event::{CloseReason, Evidence};
use crate::base::io::{Chunk, CloseHow};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::wire::native::Deframer;

/// One connection, from accept to the completion of its close.
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) state: State,
    pub(crate) deframer: Deframer,
    pub(crate) outbox: Outbox,
    /// Since when a frame is incomplete. Bytes that complete nothing prove no life.
    pub(crate) partial_since: Option<Moment>,
    pub(crate) receive: Receive,
    /// In which turn the kernel ended its receive and we armed it again, the latest time.
    pub(crate) rearmed_in: u32,
    pub(crate) look: Look,
}

/// The life of a connection.
///
/// ```text
/// accept ──► Greeting ──HELLO──► Live ──┬─► Leaving ──┬─► Closing ──Closed──► slot is free
///               │                       │      ▲      │      ▲                    ▲
///               ├───────────────────────┼──────┴──────┘      │                    │
///               │                       └─► Held ────────────┴────────────────────┘
///               └──resume: takes the session of Live or Held──► Live
/// ```
pub(crate) enum State {
    /// Nobody yet: preface and HELLO are awaited.
    Greeting {
        /// When it was accepted.
        since: Moment,
    },
    /// A client is online by this connection.
    Live(Session),
    /// The connection is gone, and its session waits for the client to come back.
    Held(Box<Held>),
    /// We said our last word. What still comes in is not listened to.
    Leaving {
        /// When we close without further waiting.
        until: Moment,
        /// What we wait for.
        waits_for: WaitsFor,
    },
    /// The close was asked for; the kernel's answer frees the slot.
    Closing,
}

/// A session without a connection.
pub(crate) struct Held {
    pub(crate) session: Session,
    /// Why the connection was lost; why the client is offline, if it does not come back.
    pub(crate) reason: CloseReason,
    pub(crate) evidence: Evidence,
    pub(crate) lost_at: Moment,
    pub(crate) socket: Socket,
}

/// Whether the kernel is done with the socket of a lost connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Socket {
    Closing,
    Gone,
}

/// A client's presence by one connection.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) epoch: u64,
    pub(crate) rhythm: Rhythm,
    /// After how much silence it is sent a PING, if at all.
    pub(crate) ping_after: Option<Span>,
    /// When the last complete frame was received.
    pub(crate) last_beat: Moment,
    pub(crate) watch: Watch,
    /// For how long it is held when its connection is lost.
    pub(crate) grace: Span,
    /// What becomes of somebody who wants its name.
    pub(crate) duplicate: Duplicate,
}

/// What we undertook about a client that is silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Watch {
    /// Nothing: the deadline stands.
    Calm,
    /// It was sent a PING because nothing came for too long: it is suspect.
    Pinged {
        /// When it is judged. Later than its deadline only when we pinged too late to be answered
        /// by then.
        until: Moment,
    },
}

/// Whether a last look is under way: a deadline passed, and the verdict waits for what it finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Look {
    None,
    UnderWay {
        /// When it was asked for.
        since: Moment,
    },
}

/// What a leaving connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WaitsFor {
    /// For the last word to be sent; then it is closed like this.
    Sent(CloseHow),
    /// For the peer to close, as GOAWAY asks it to.
    Peer,
}

/// Whether the kernel listens on our behalf.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Receive {
    /// It does.
    Armed,
    /// It does not, and will not again: the peer is done, or the connection is.
    Over,
}

impl Connection {
    pub(crate) fn new(peer: SocketAddr, state: State) -> Self {
        Self {
            peer,
            state,
            deframer: Deframer::server_side(),
            outbox: Outbox::default(),
            partial_since: None,
            receive: Receive::Over,
            rearmed_in: 0,
            look: Look::None,
        }
    }

    /// When something has to be done about whoever has not left yet, if nothing more is heard of
    /// it: the deadline of its handshake or session, or of the frame it has begun.
    pub(crate) fn next_deadline(&self, config: &GatewayConfig) -> Option<Moment> {
        match &self.state {
            State::Greeting { since } => Some(*since + config.handshake_timeout),
            State::Live(session) => {
                let frame = self.frame_deadline(config.frame_timeout).into_iter();
                frame.chain([session.deadline()]).min()
            }
            State::Held(_) | State::Leaving { .. } | State::Closing => None,
        }
    }

    /// Which deadline passed, if one did: what the verdict will be, if the last look finds nothing.
    pub(crate) fn overdue(&self, config: &GatewayConfig, now: Moment) -> Option<CloseReason> {
        match &self.state {
            State::Greeting { since } => {
                (*since + config.handshake_timeout <= now).then_some(CloseReason::HandshakeTimeout)
            }
            State::Live(session) if session.is_overdue(now) => Some(CloseReason::HeartbeatTimeout),
            State::Live(_) => self
                .frame_deadline(config.frame_timeout)
                .filter(|deadline| *deadline <= now)
                .map(|_| CloseReason::FrameTimeout),
            State::Held(_) | State::Leaving { .. } | State::Closing => None,
        }
    }

    /// When the frame that was begun, if one was, has to be complete.
    fn frame_deadline(&self, frame_timeout: Span) -> Option<Moment> {
        self.partial_since.map(|since| since + frame_timeout)
    }

    /// Largest payload it may send now.
    pub(crate) fn payload_bytes_max(&self, configured: u16) -> usize {
        match self.state {
            State::Greeting { .. } => limits::HELLO_PAYLOAD_BYTES_MAX,
            State::Live(_) | State::Held(_) | State::Leaving { .. } | State::Closing => {
                usize::from(configured)
            }
        }
    }
}

impl Session {
    /// Last beat + timeout.
    pub(crate) fn dead_at(&self) -> Moment {
        self.last_beat + self.rhythm.timeout
    }

    /// When something has to be done about this client if nothing more is heard of it.
    pub(crate) fn deadline(&self) -> Moment {
        match (self.watch, self.ping_after) {
            (Watch::Calm, Some(silence)) => self.last_beat + silence,
            (Watch::Calm, None) => self.dead_at(),
            (Watch::Pinged { until }, _) => until,
        }
    }

    /// Whether it is time to ping this client.
    pub(crate) fn is_to_be_pinged(&self, now: Moment) -> bool {
        match self.watch {
            Watch::Calm => self.ping_after.is_some() && self.deadline() <= now,
            Watch::Pinged { .. } => false,
        }
    }

    /// Notes that a PING goes out now. Whoever is pinged late, because we were, has at least half
    /// of the usual time to answer.
    pub(crate) fn on_pinged(&mut self, now: Moment) {
        let usual = self.rhythm.timeout.minus(self.ping_after.unwrap_or_default());
        let until = self.dead_at().max(now + usual.divided_by(2));
        self.watch = Watch::Pinged { until };
    }

    /// Whether this client was silent for its whole timeout, and pinged if the mode asks for that.
    fn is_overdue(&self, now: Moment) -> bool {
        self.deadline() <= now && self.dead_at() <= now && !self.is_to_be_pinged(now)
    }
}

/// What waits to be sent to one client. One send is in flight at a time, ever: two would be
/// reordered when the first is short.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Chunk,
    in_flight_bytes: usize,
}

/// There is no room for more: the client does not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OutboxFull;

impl Outbox {
    /// Appends what `write` writes, unless the outbox is full afterwards.
    pub(crate) fn append(
        &mut self,
        chunks: &mut ChunkPool,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), OutboxFull> {
        if self.waiting.capacity() == 0 {
            self.waiting = chunks.take();
        }
        write(self.waiting.buffer());
        if self.in_flight_bytes + self.waiting.len() > bytes_max {
            return Err(OutboxFull);
        }
        Ok(())
    }

    /// Hands over what waits, if anything does and nothing is in flight.
    pub(crate) fn take_to_send(&mut self) -> Option<Chunk> {
        if self.in_flight_bytes > 0 || self.waiting.is_empty() {
            return None;
        }
        self.in_flight_bytes = self.waiting.len();
        Some(std::mem::take(&mut self.waiting))
    }

    /// A chunk came home after `sent_bytes` of it went out; what is left of it goes out again.
    pub(crate) fn on_sent(
        &mut self,
        mut chunk: Chunk,
        sent_bytes: usize,
        chunks: &mut ChunkPool,
    ) -> Option<Chunk> {
        chunk.advance(sent_bytes.min(chunk.len()));
        self.in_flight_bytes = chunk.len();
        if chunk.is_done() {
            chunks.give(chunk);
            return self.take_to_send();
        }
        Some(chunk)
    }

    /// A chunk came home unsent, and nothing will be sent any more.
    pub(crate) fn on_failed(&mut self, chunk: Chunk, chunks: &mut ChunkPool) {
        self.in_flight_bytes = 0;
        chunks.give(chunk);
        chunks.give(std::mem::take(&mut self.waiting));
    }

    /// Whether everything was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight_bytes == 0 && self.waiting.is_empty()
    }

    /// Bytes waiting and in flight.
    pub(crate) fn bytes(&self) -> usize {
        self.in_flight_bytes + self.waiting.len()
    }

    /// Gives up what waits.
    pub(crate) fn forget(&mut self, chunks: &mut ChunkPool) {
        chunks.give(std::mem::take(&mut self.waiting));
    }
}

/// Send buffers for reuse, so that answering a beat allocates nothing.
#[derive(Default)]
pub(crate) struct ChunkPool {
    free: Vec<Chunk>,
}

impl ChunkPool {
    fn take(&mut self) -> Chunk {
        self.free.pop().unwrap_or_default()
    }

    fn give(&mut self, mut chunk: Chunk) {
        let worth_keeping = (1..=limits::CHUNK_BYTES_KEPT_MAX).contains(&chunk.capacity());
        if worth_keeping && self.free.len() < limits::CHUNKS_KEPT_MAX {
            chunk.clear();
            self.free.push(chunk);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.free.len()
    }
}

/// How we part from a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Farewell {
    /// Without a word: it would not be understood, or not be read.
    Silent(CloseHow),
    /// ERROR with the reason, then closed by us like this.
    Error(CloseHow),
    /// GOAWAY with the reason; the peer closes first.
    Goaway,
}

impl Farewell {
    /// How one parts for this reason.
    pub(crate) const fn for_reason(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Bye | CloseReason::ClosedByPeer => Self::Silent(CloseHow::Finish),
            CloseReason::BadPreface
            | CloseReason::Reset
            | CloseReason::TcpTimeout
            | CloseReason::NetworkFault
            | CloseReason::SlowConsumer => Self::Silent(CloseHow::Abort),
            CloseReason::Drain
            | CloseReason::Replaced
            | CloseReason::Busy
            | CloseReason::Contested => Self::Goaway,
            // Whoever is judged dead leaves no orphan behind that retries for minutes. Should it be
            // there after all, it still reads why.
            CloseReason::HeartbeatTimeout => Self::Error(CloseHow::Abort),
            CloseReason::Kicked
            | CloseReason::BadToken
            | CloseReason::Flood
            | CloseReason::AlreadyConnected
            | CloseReason::FrameTooLong
            | CloseReason::UnexpectedFrame
            | CloseReason::Malformed
            | CloseReason::HandshakeTimeout
            | CloseReason::FrameTimeout
            | CloseReason::UnsupportedVersion
            | CloseReason::BadClientId
            | CloseReason::UnknownCriticalFrame
            | CloseReason::ServerError => Self::Error(CloseHow::Finish),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: &'static [u8]) -> impl FnOnce(&mut Vec<u8>) {
        move |out| out.extend_from_slice(bytes)
    }

    #[test]
    fn one_send_is_in_flight_and_the_rest_waits_in_order() {
        let (mut outbox, mut chunks) = (Outbox::default(), ChunkPool::default());
        outbox.append(&mut chunks, 100, write(b"one")).unwrap();
        let first = outbox.take_to_send().unwrap();
        outbox.append(&mut chunks, 100, write(b"two")).unwrap();
        outbox.append(&mut chunks, 100, write(b"three")).unwrap();
        assert!(outbox.take_to_send().is_none(), "one is in flight");
        let rest = outbox.on_sent(first, 2, &mut chunks).unwrap();
        assert_eq!(rest.unsent(), b"e", "a short send goes on where it stopped");
        let second = outbox.on_sent(rest, 1, &mut chunks).unwrap();
        assert_eq!(second.unsent(), b"twothree");
        assert!(outbox.on_sent(second, 8, &mut chunks).is_none());
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_is_noticed() {
        let (mut outbox, mut chunks) = (Outbox::default(), ChunkPool::default());
        outbox.append(&mut chunks, 6, write(b"four")).unwrap();
        let _with_the_kernel = outbox.take_to_send().unwrap();
        outbox.append(&mut chunks, 6, write(b"56")).unwrap();
        assert_eq!(outbox.append(&mut chunks, 6, write(b"7")), Err(OutboxFull));
    }

    #[test]
    fn buffers_are_used_again_unless_they_grew_large() {
        let mut chunks = ChunkPool::default();
        chunks.give(Chunk::from(Vec::with_capacity(64)));
        chunks.give(Chunk::from(Vec::with_capacity(limits::CHUNK_BYTES_KEPT_MAX + 1)));
        chunks.give(Chunk::new());
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks.take().capacity(), 64);
    }

    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Connection>() <= 224, "{}", size_of::<Connection>());
    }
}
