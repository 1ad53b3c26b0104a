//! One connection: what state it is in, what waits to be sent, what was heard.

use std::net::SocketAddr;

use crate::base::config::{Class, ClassId, Duplicate, GatewayConfig, Mode, Rhythm};
use crate::base::event::{CloseReason, Evidence};
use crate::base::introduction::Carrier;
use crate::base::io::{Chunk, CloseHow};
use crate::base::limits;
use crate::base::pulse::{AnswerTime, Pulse};
use crate::base::time::{Millis, Moment, Span};
use crate::gateway::admission::Standing;
use crate::gateway::extra::Extra;
use crate::gateway::peer::Peer;
use crate::gateway::terms::Terms;
use crate::wire::native::Deframer;

/// One connection, from accept to the completion of its close.
///
/// There are a million, and nearly all of them are idle: what only some need is in a box.
pub(crate) struct Connection {
    pub(crate) state: State,
    /// The frame that is incomplete, if one is. Bytes that complete nothing prove no life.
    pub(crate) begun: Option<Box<Begun>>,
    pub(crate) outbox: Outbox,
    pub(crate) look: Look,
    pub(crate) measure: Measure,
    /// In which turn the kernel ended its receive and we armed it again, the latest time.
    pub(crate) rearmed_in: u16,
    pub(crate) receive: Receive,
    pub(crate) hearing: Hearing,
    /// Where it is counted.
    pub(crate) standing: Standing,
    pub(crate) carrier: Carrier,
    peer: Peer,
}

/// A frame that came in part.
pub(crate) struct Begun {
    deframer: Deframer,
    /// When its first bytes came.
    since: Moment,
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
        /// Whether the preface is still to come.
        preface: Preface,
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
    /// The close was asked for, or the move to another shard; the kernel's answer frees the slot.
    Closing,
}

/// Whether a newcomer has said which protocol it speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Preface {
    Awaited,
    Heard,
    /// And HELLO as well: its token is being looked at.
    Checked,
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

/// A client's presence by one connection. Its spans are in whole milliseconds, rounded up: a client
/// is told what is kept.
pub(crate) struct Session {
    pub(crate) epoch: u64,
    /// Which class it named.
    pub(crate) class: ClassId,
    /// When the last complete frame was received.
    pub(crate) last_beat: Moment,
    pub(crate) watch: Watch,
    /// How it beat so far.
    pub(crate) pulse: Pulse,
    timeout: Millis,
    /// The timeout before the rhythm was moved; it counts until the client is heard again.
    former_timeout: Millis,
    /// Zero: never.
    ping_after: Millis,
    terms: Terms,
    /// What becomes of somebody who wants its name.
    pub(crate) duplicate: Duplicate,
    /// What only some sessions need.
    pub(crate) extra: Option<Box<Extra>>,
    /// How long its latest answer to a PING of ours took.
    pub(crate) answered_in: AnswerTime,
}

/// What we undertook about a client that is silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Watch {
    /// Nothing: the deadline stands.
    Calm,
    /// It was sent a PING because nothing came for too long: it is suspect.
    Pinged {
        /// When that was.
        at: Moment,
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

/// Whether the kernel looks at it for a measurement. Another look waits for the end of that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Measure {
    None,
    UnderWay,
}

/// What a leaving connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WaitsFor {
    /// For the last word to be sent; then it is closed like this.
    Sent(CloseHow),
    /// For the peer to close, as GOAWAY asks it to.
    Peer,
    /// The same of somebody who has to go because of a drain or a rebalance, and is counted.
    Leaver,
}

/// Whether the kernel listens on our behalf.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Receive {
    /// It does.
    Armed,
    /// It was asked to stop, and has not said that it has.
    Pausing,
    /// It does not, until it is asked again.
    Paused,
    /// It does not, and will not again: the peer is done, or the connection is.
    Over,
}

/// Whether we act on what the client says, or keep it until those who take its DATA have caught up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hearing {
    Open,
    Stopped,
}

impl Connection {
    /// Somebody was accepted.
    pub(crate) fn new(peer: SocketAddr, since: Moment) -> Self {
        Self {
            state: State::Greeting { since, preface: Preface::Awaited },
            begun: None,
            outbox: Outbox::default(),
            look: Look::None,
            measure: Measure::None,
            rearmed_in: 0,
            receive: Receive::Over,
            hearing: Hearing::Open,
            standing: Standing::default(),
            carrier: Carrier::Stream,
            peer: peer.into(),
        }
    }

    /// The same, counted where its peer is.
    pub(crate) fn counted(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer.into()
    }

    /// Somebody else than who connected is at the other end.
    pub(crate) fn set_peer(&mut self, peer: SocketAddr) {
        self.peer = peer.into();
    }

    /// Who sends its beats: a browser's timers cannot be trusted, so it is pinged in any case.
    pub(crate) fn mode(&self, configured: Mode) -> Mode {
        match (self.carrier, configured) {
            (Carrier::WebSocket, Mode::Client) => Mode::Either,
            (Carrier::WebSocket | Carrier::Stream, mode) => mode,
        }
    }

    /// Whether it is sent a PING when its silence calls for one. A probe that is not read is of no
    /// use; where its beats are answers, the answer waits in the socket for the last look.
    pub(crate) fn is_asked(&self, configured: Mode) -> bool {
        self.hearing == Hearing::Open || self.mode(configured).server_pings()
    }

    /// Whether it is one of the few sessions that have more than beats.
    pub(crate) fn has_extra(&self) -> bool {
        matches!(&self.state, State::Live(session) if session.extra.is_some())
    }

    /// What goes on cutting its bytes into frames, and since when one is incomplete, if one is.
    pub(crate) fn take_begun(&mut self) -> (Deframer, Option<Moment>) {
        match self.begun.take() {
            Some(begun) => (begun.deframer, Some(begun.since)),
            None => match self.preface() {
                Preface::Awaited => (Deframer::server_side(), None),
                // Behind the preface both sides say frames and nothing else.
                Preface::Heard | Preface::Checked => (Deframer::client_side(), None),
            },
        }
    }

    /// Keeps what was begun and is not complete. Whoever is between two frames keeps nothing.
    pub(crate) fn keep_begun(&mut self, deframer: Deframer, since: Moment) {
        if deframer.is_partial() {
            self.begun = Some(Box::new(Begun { deframer, since }));
        }
    }

    /// How many bytes were begun and are not complete.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.begun.as_ref().map_or(0, |begun| begun.deframer.partial_bytes())
    }

    /// Memory held for what is not complete, in bytes.
    pub(crate) fn partial_memory_bytes(&self) -> usize {
        self.begun.as_ref().map_or(0, |begun| begun.deframer.memory_bytes())
    }

    fn preface(&self) -> Preface {
        match self.state {
            State::Greeting { preface, .. } => preface,
            State::Live(_) | State::Held(_) | State::Leaving { .. } | State::Closing => {
                Preface::Heard
            }
        }
    }

    /// When something has to be done about whoever has not left yet, if nothing more is heard of
    /// it: the deadline of its handshake or session, or of the frame it has begun.
    pub(crate) fn next_deadline(&self, config: &GatewayConfig) -> Option<Moment> {
        match &self.state {
            State::Greeting { since, .. } => Some(*since + config.handshake_timeout),
            State::Live(session) => {
                let frame = self.frame_deadline(config.frame_timeout).into_iter();
                let judged = match self.is_asked(config.mode) {
                    true => session.deadline(),
                    false => session.judged_unasked_at(),
                };
                frame.chain([judged]).min()
            }
            State::Held(_) | State::Leaving { .. } | State::Closing => None,
        }
    }

    /// Which deadline passed, if one did: what the verdict will be, if the last look finds nothing.
    pub(crate) fn overdue(&self, config: &GatewayConfig, now: Moment) -> Option<CloseReason> {
        match &self.state {
            State::Greeting { since, .. } => {
                (*since + config.handshake_timeout <= now).then_some(CloseReason::HandshakeTimeout)
            }
            State::Live(session)
                if session.is_overdue(now)
                    || (!self.is_asked(config.mode) && session.judged_unasked_at() <= now) =>
            {
                Some(CloseReason::HeartbeatTimeout)
            }
            State::Live(_) => self
                .frame_deadline(config.frame_timeout)
                .filter(|deadline| *deadline <= now)
                .map(|_| CloseReason::FrameTimeout),
            State::Held(_) | State::Leaving { .. } | State::Closing => None,
        }
    }

    /// When the frame that was begun, if one was, has to be complete.
    fn frame_deadline(&self, frame_timeout: Span) -> Option<Moment> {
        self.begun.as_ref().map(|begun| begun.since + frame_timeout)
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
    /// A session that begins now, in the class `id` and under its `terms`. `ping_after`: after how
    /// much silence the client is sent a PING, if at all.
    pub(crate) fn new(
        epoch: u64,
        id: ClassId,
        terms: Class,
        ping_after: Option<Span>,
        now: Moment,
    ) -> Self {
        Self {
            epoch,
            class: id,
            last_beat: now,
            watch: Watch::Calm,
            pulse: Pulse::default(),
            timeout: Millis::at_least(terms.rhythm.timeout),
            former_timeout: Millis::default(),
            ping_after: Millis::at_least(ping_after.unwrap_or_default()),
            terms: Terms::new(terms.rhythm.interval, terms.grace, now),
            duplicate: terms.duplicate,
            extra: None,
            answered_in: AnswerTime::default(),
        }
    }

    pub(crate) fn rhythm(&self) -> Rhythm {
        Rhythm { interval: self.terms.interval(), timeout: self.timeout.span() }
    }

    /// After how much silence it is sent a PING, if at all.
    pub(crate) fn ping_after(&self) -> Option<Span> {
        (self.ping_after > Millis::default()).then(|| self.ping_after.span())
    }

    /// When it began, to the second before.
    pub(crate) fn began(&self) -> Moment {
        self.terms.began()
    }

    /// It goes on with one that began earlier.
    pub(crate) fn set_began(&mut self, began: Moment) {
        self.terms = Terms::new(self.terms.interval(), self.terms.grace(), began);
    }

    /// For how long it is held when its connection is lost.
    pub(crate) fn grace(&self) -> Span {
        self.terms.grace()
    }

    /// Moves it to another rhythm. Until the client is heard again it may not know of it.
    pub(crate) fn change_rhythm(&mut self, rhythm: Rhythm, ping_after: Option<Span>) {
        self.former_timeout = self.former_timeout.max(self.timeout);
        self.terms = self.terms.with_interval(rhythm.interval);
        self.timeout = Millis::at_least(rhythm.timeout);
        self.ping_after = Millis::at_least(ping_after.unwrap_or_default());
    }

    /// Notes that the client said something complete.
    #[inline(always)] // the call would be a third of it, and this is done for every beat
    pub(crate) fn on_heard(&mut self, now: Moment) {
        self.pulse.note(now.since(self.last_beat));
        self.last_beat = now;
        self.former_timeout = Millis::default();
    }

    /// Last beat + timeout; the longer of two where the client may not know the newer one yet.
    pub(crate) fn dead_at(&self) -> Moment {
        self.last_beat + self.timeout.max(self.former_timeout).span()
    }

    /// When something has to be done about this client if nothing more is heard of it.
    pub(crate) fn deadline(&self) -> Moment {
        match (self.watch, self.ping_after()) {
            (Watch::Calm, Some(silence)) => self.last_beat + silence,
            (Watch::Calm, None) => self.dead_at(),
            (Watch::Pinged { at }, _) => self.judged_at(at),
        }
    }

    /// When this client is judged if nothing more is heard of it and it is not asked any more.
    pub(crate) fn judged_unasked_at(&self) -> Moment {
        match self.watch {
            Watch::Calm => self.dead_at(),
            Watch::Pinged { at } => self.judged_at(at),
        }
    }

    /// When whoever was pinged then is judged. Later than its deadline only when we pinged too late
    /// to be answered by then: whoever is pinged late, because we were, has at least half of the
    /// usual time to answer.
    fn judged_at(&self, pinged_at: Moment) -> Moment {
        let usual = self.timeout.span().minus(self.ping_after().unwrap_or_default());
        self.dead_at().max(pinged_at + usual.divided_by(2))
    }

    /// Whether it is time to ping this client.
    pub(crate) fn is_to_be_pinged(&self, now: Moment) -> bool {
        match self.watch {
            Watch::Calm => self.ping_after().is_some() && self.deadline() <= now,
            Watch::Pinged { .. } => false,
        }
    }

    /// Notes that a PING goes out now.
    pub(crate) fn on_pinged(&mut self, now: Moment) {
        self.watch = Watch::Pinged { at: now };
    }

    /// Notes that the client is not suspect any more, if it was, and says whether it was.
    #[cold]
    pub(crate) fn on_answered(&mut self, now: Moment) -> bool {
        let Watch::Pinged { at } = std::mem::replace(&mut self.watch, Watch::Calm) else {
            return false;
        };
        self.answered_in = AnswerTime::of(now.since(at));
        true
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
    in_flight_bytes: u32,
}

/// There is no room for more: the client does not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OutboxFull;

impl Outbox {
    /// Appends what `write` writes, unless the outbox is full afterwards. At most
    /// [`limits::OUTBOX_BYTES_LIMIT`], whatever `bytes_max` is.
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
        if self.bytes() > bytes_max.min(limits::OUTBOX_BYTES_LIMIT) {
            return Err(OutboxFull);
        }
        Ok(())
    }

    /// Hands over what waits, if anything does and nothing is in flight.
    pub(crate) fn take_to_send(&mut self) -> Option<Chunk> {
        if self.in_flight_bytes > 0 || self.waiting.is_empty() {
            return None;
        }
        let chunk = std::mem::take(&mut self.waiting);
        self.note_in_flight(&chunk);
        Some(chunk)
    }

    /// A chunk came home after `sent_bytes` of it went out; what is left of it goes out again, and
    /// before everything that waits.
    pub(crate) fn on_sent(
        &mut self,
        mut chunk: Chunk,
        sent_bytes: usize,
        chunks: &mut ChunkPool,
    ) -> Option<Chunk> {
        chunk.advance(sent_bytes.min(chunk.len()));
        self.note_in_flight(&chunk);
        if chunk.is_done() {
            chunks.give(chunk);
            return None;
        }
        Some(chunk)
    }

    /// A chunk came home unsent, and nothing will be sent any more.
    pub(crate) fn on_failed(&mut self, chunk: Chunk, chunks: &mut ChunkPool) {
        self.in_flight_bytes = 0;
        chunks.give(chunk);
        chunks.give(std::mem::take(&mut self.waiting));
    }

    /// Whether something is with the kernel.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight_bytes > 0
    }

    /// Whether everything was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight_bytes == 0 && self.waiting.is_empty()
    }

    /// Bytes waiting and in flight.
    pub(crate) fn bytes(&self) -> usize {
        self.in_flight_bytes as usize + self.waiting.len()
    }

    /// Gives up what waits.
    pub(crate) fn forget(&mut self, chunks: &mut ChunkPool) {
        chunks.give(std::mem::take(&mut self.waiting));
    }

    fn note_in_flight(&mut self, chunk: &Chunk) {
        self.in_flight_bytes = u32::try_from(chunk.len()).expect("an outbox is bounded");
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
            // In a layer's own words, if it has any.
            CloseReason::Bye
            | CloseReason::ClosedByPeer
            | CloseReason::BadProxyHeader
            | CloseReason::BadTls
            | CloseReason::BadWebsocket => Self::Silent(CloseHow::Finish),
            CloseReason::BadPreface
            | CloseReason::Reset
            | CloseReason::TcpTimeout
            | CloseReason::NetworkFault
            | CloseReason::SlowConsumer => Self::Silent(CloseHow::Abort),
            CloseReason::Drain
            | CloseReason::Replaced
            | CloseReason::Rebalance
            | CloseReason::Busy
            | CloseReason::TooManyConnections
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
        assert!(outbox.on_sent(rest, 1, &mut chunks).is_none());
        let second = outbox.take_to_send().unwrap();
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
        assert!(size_of::<Session>() <= 72, "{}", size_of::<Session>());
        assert!(size_of::<State>() <= 72, "{}", size_of::<State>());
        assert!(size_of::<Outbox>() <= 16, "{}", size_of::<Outbox>());
        assert!(size_of::<Connection>() <= 136, "{}", size_of::<Connection>());
    }
}
