//! A connection between a pretend client and the gateway: both ends, and the wire between.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use fastrand::Rng;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Chunk, CloseHow, Found, IoFault, ReceiveEnd, TcpFacts};
use heartwheel::base::time::{Moment, Span};

use crate::faults::{Fault, Faults, span_upto};
use crate::script::Label;

/// Longest that the kernel keeps what it knows to itself.
const NEWS_TIME_MAX: Span = Span::from_millis(10);

pub(crate) struct Link {
    pub(crate) peer: SocketAddr,
    pub(crate) rng: Rng,
    pub(crate) stage: Stage,
    /// Arrived at the gateway's socket and not read.
    waiting: VecDeque<u8>,
    /// When what waits arrived, and where in the stream it ends.
    arrivals: VecDeque<(Moment, u64)>,
    /// Bytes the client wrote in all.
    written_bytes: u64,
    /// Of what it said: handed to the gateway in all.
    delivered_bytes: u64,
    /// What the client said in the native protocol in all, whatever it is wrapped in, and what of
    /// that was not handed to the gateway.
    said_bytes: u64,
    said: VecDeque<u8>,
    /// Where the last frame ended that was handed over whole.
    whole_bytes: u64,
    /// Where in what it said the frames end that were not yet handed over whole.
    ends: VecDeque<(u64, Label)>,
    /// The kernel loses bytes on purpose.
    is_lied_about: bool,
    /// The client will write no more.
    is_finished: bool,
    /// The client's machine knows nothing of this connection any more.
    is_forgotten: bool,
    /// The connection broke, in this manner.
    broken: Option<IoFault>,
    /// Sent by the gateway, not yet looked at by the client.
    heard: Vec<u8>,
    /// The client's side has it, and the client has not read it.
    unread: Vec<u8>,
    /// Bytes that the client's side still takes.
    window_bytes: usize,
    /// How the gateway closed it.
    pub(crate) closed: Option<CloseHow>,
    /// The kernel listens from this moment on.
    pub(crate) armed_from: Option<Moment>,
    /// It stops to from this moment on.
    pausing: Option<Moment>,
    /// The gateway wants it to listen no more, for a while.
    pub(crate) is_to_pause: bool,
    /// And tells nothing before this one.
    quiet_until: Moment,
    /// The gateway may believe that the kernel listens: no `ReceiveEnded` was handed over.
    pub(crate) is_believed_armed: bool,
    /// The last of it was handed over: there is nothing left to be received.
    pub(crate) is_heard_out: bool,
    pub(crate) sending: Option<(Moment, Chunk)>,
    /// It was closed before the kernel had come to what was to be sent.
    pub(crate) is_cut_off: bool,
    pub(crate) looking: Option<Moment>,
    pub(crate) closing: Option<(Moment, CloseHow)>,
    /// A chunk on its way home: what was sent and what was received are told in any order.
    home: Option<(Moment, Chunk, Result<usize, IoFault>)>,
    /// Other completions in their order, each with the moment from which it can be seen.
    queue: VecDeque<(Moment, Word)>,
}

/// What a client said, once it was handed over whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) label: Label,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    Backlog,
    Offered,
    Adopted(ConnId),
    Gone,
}

/// What the kernel tells of one connection.
#[derive(Debug)]
pub(crate) enum Word {
    Received(Vec<u8>),
    Ended(ReceiveEnd),
    Sent(Chunk, Result<usize, IoFault>),
    Looked(Found, Option<TcpFacts>),
    Closed,
}

/// What all links have in common.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) faults: Faults,
    /// Receive buffers that hold nothing.
    pub(crate) buffers_free: usize,
    /// Longest piece that is received at once.
    pub(crate) piece_bytes_max: usize,
    /// The kernel does not keep its side of the contract, for tests of the tests.
    pub(crate) sabotage: Option<Sabotage>,
}

/// A kernel that lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sabotage {
    /// A last look never sees what waits.
    BlindLook,
    /// What was received gets lost now and then.
    LostBytes,
}

impl Link {
    pub(crate) fn new(port: u16, mut rng: Rng) -> Self {
        Self {
            // A few hosts in a few networks.
            peer: SocketAddr::new(Ipv4Addr::new(10, 0, rng.u8(0..3), rng.u8(0..5)).into(), port),
            rng,
            stage: Stage::Backlog,
            waiting: VecDeque::new(),
            arrivals: VecDeque::new(),
            written_bytes: 0,
            delivered_bytes: 0,
            said_bytes: 0,
            said: VecDeque::new(),
            whole_bytes: 0,
            ends: VecDeque::new(),
            is_lied_about: false,
            is_finished: false,
            is_forgotten: false,
            broken: None,
            heard: Vec::new(),
            unread: Vec::new(),
            window_bytes: usize::MAX,
            closed: None,
            armed_from: None,
            pausing: None,
            is_to_pause: false,
            quiet_until: Moment::ZERO,
            is_believed_armed: false,
            is_heard_out: false,
            sending: None,
            is_cut_off: false,
            looking: None,
            closing: None,
            home: None,
            queue: VecDeque::new(),
        }
    }

    // --- the client's end ------------------------------------------------------------------------

    /// The client's bytes arrive at the gateway's socket: what it says, in whatever it is wrapped
    /// in, and where in what it says frames end.
    pub(crate) fn arrive(
        &mut self,
        wire: &[u8],
        (said, ends): (&[u8], &[(usize, Label)]),
        now: Moment,
        shop: &mut Shop,
    ) {
        if self.is_peer_gone() || self.is_forgotten || self.closed.is_some() {
            return;
        }
        let before = self.said_bytes;
        self.ends.extend(ends.iter().map(|(end, label)| (before + *end as u64, *label)));
        self.said_bytes += said.len() as u64;
        self.said.extend(said);
        self.written_bytes += wire.len() as u64;
        self.waiting.extend(wire);
        self.arrivals.push_back((now, self.written_bytes));
        if shop.faults.strikes(&mut self.rng, Fault::LateNews) {
            self.quiet_until = now + span_upto(&mut self.rng, NEWS_TIME_MAX);
        }
    }

    /// The client sends FIN.
    pub(crate) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The client's machine starts anew: it answers whatever it is sent with a reset.
    pub(crate) fn forget(&mut self) {
        self.is_forgotten = true;
    }

    /// The connection breaks. What was not read is lost.
    pub(crate) fn break_with(&mut self, fault: IoFault) {
        if self.broken.is_none() {
            self.broken = Some(fault);
            self.waiting.clear();
            self.arrivals.clear();
        }
    }

    /// The client's side takes so many bytes more and no further ones.
    pub(crate) fn stop_reading(&mut self, window_bytes: usize) {
        self.window_bytes = window_bytes;
    }

    /// The client reads again, and first what it had not read.
    pub(crate) fn read_on(&mut self) {
        self.window_bytes = usize::MAX;
        self.heard.append(&mut self.unread);
    }

    /// Whether the client's side takes everything.
    pub(crate) fn is_reading(&self) -> bool {
        self.window_bytes == usize::MAX && !self.is_forgotten
    }

    /// Whether the peer did anything that ends the connection.
    pub(crate) fn is_peer_gone(&self) -> bool {
        self.broken.is_some() || self.is_finished
    }

    /// Whether the gateway sent something since.
    pub(crate) fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }

    /// What the gateway sent since the last call.
    pub(crate) fn take_heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.heard)
    }

    // --- what is known of it ---------------------------------------------------------------------

    /// Since when bytes wait that nobody read.
    pub(crate) fn waiting_since(&self) -> Option<Moment> {
        self.arrivals.front().map(|(at, _)| *at)
    }

    /// Takes what belongs to a word that is handed over: which frames it completes, and how many
    /// bytes of another are there then.
    pub(crate) fn hand_over(&mut self, bytes: &[u8]) -> (Vec<Piece>, u64) {
        self.delivered_bytes += bytes.len() as u64;
        let said = self.said.len().min(bytes.len());
        let is_said = self.said.drain(..said).eq(bytes.iter().copied());
        assert!(is_said || self.is_lied_about, "the gateway is told what nobody said");
        let whole = self.ends.iter().take_while(|(end, _)| *end <= self.delivered_bytes).count();
        let mut pieces = Vec::new();
        for (end, label) in self.ends.drain(..whole) {
            pieces.push(Piece { label, bytes: end - self.whole_bytes });
            self.whole_bytes = end;
        }
        (pieces, self.delivered_bytes - self.whole_bytes)
    }

    /// Whether something is being sent, and what came of it was not told.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending.is_some() || self.home.is_some()
    }

    /// When something of it can be told at the earliest.
    pub(crate) fn ready_at(&self) -> Option<Moment> {
        let home = self.home.as_ref().map(|(at, ..)| *at);
        match (self.queue.front(), home) {
            (Some((_, Word::Closed)), Some(home)) => Some(home),
            (Some((at, _)), home) => Some(home.map_or(*at, |home| home.min(*at))),
            (None, home) => home,
        }
    }

    /// When there is something to do or to tell at the earliest.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        let send = match &self.sending {
            Some((at, _)) if self.window_bytes > 0 || self.broken.is_some() => Some(*at),
            Some(_) | None => None,
        };
        let has_input = !self.waiting.is_empty() || self.is_peer_gone();
        let receive = self.receives_from().filter(|_| has_input);
        let close = self.closing.filter(|_| self.closed.is_none()).map(|(at, _)| at);
        [self.ready_at(), self.pausing, send, receive, close, self.looking]
            .into_iter()
            .flatten()
            .min()
    }

    fn receives_from(&self) -> Option<Moment> {
        self.armed_from.map(|from| from.max(self.quiet_until))
    }

    // --- the kernel's part -----------------------------------------------------------------------

    /// One completion that can be seen by now.
    pub(crate) fn take(&mut self, now: Moment) -> Option<Word> {
        let is_home = self.home.as_ref().is_some_and(|(at, ..)| *at <= now);
        let is_next = self.queue.front().is_some_and(|(at, word)| {
            *at <= now && (self.home.is_none() || !matches!(word, Word::Closed))
        });
        if is_home && (!is_next || self.rng.bool()) {
            return self.home.take().map(|(_, chunk, result)| Word::Sent(chunk, result));
        }
        if is_next { self.queue.pop_front().map(|(_, word)| word) } else { None }
    }

    /// The gateway closes. Nothing but the chunk coming home and the end is told from now on.
    pub(crate) fn begin_close(&mut self, due: Moment, how: CloseHow, shop: &mut Shop) {
        self.closing = Some((due, how));
        self.armed_from = None;
        self.pausing = None;
        self.looking = None;
        let is_buffer = |(_, word): &&(Moment, Word)| matches!(word, Word::Received(_));
        shop.buffers_free += self.queue.iter().filter(is_buffer).count();
        self.queue.clear();
    }

    /// The gateway wants to hear no more for a while. Where nothing is under way, nothing ends.
    pub(crate) fn pause(&mut self, due: Moment) {
        self.is_to_pause = true;
        self.pausing = self.armed_from.map(|_| due);
    }

    /// The kernel ends the receive, if there is one.
    pub(crate) fn interrupt(&mut self, now: Moment) {
        if self.armed_from.take_if(|from| *from <= now).is_some() {
            self.pausing = None;
            self.queue.push_back((now, Word::Ended(ReceiveEnd::Interrupted)));
        }
    }

    /// Carries out what can be carried out by now.
    pub(crate) fn work(&mut self, now: Moment, shop: &mut Shop) {
        self.work_on_receive(now, shop);
        if self.pausing.take_if(|due| *due <= now).is_some() {
            self.armed_from = None;
            self.queue.push_back((now, Word::Ended(ReceiveEnd::Paused)));
        }
        self.work_on_send(now, shop);
        if self.looking.is_some_and(|due| due <= now) {
            self.looking = None;
            self.look(now, shop);
        }
        if let Some((due, how)) = self.closing
            && due <= now
            && self.closed.is_none()
        {
            if let Some((from, chunk)) = self.sending.take() {
                self.is_cut_off = from >= due;
                self.home = Some((now, chunk, Err(IoFault::Cancelled)));
            }
            self.closed = Some(how);
            let at = now + span_upto(&mut self.rng, Span::from_millis(2));
            self.queue.push_back((at, Word::Closed));
        }
    }

    fn look(&mut self, now: Moment, shop: &mut Shop) {
        let has_bytes = !self.waiting.is_empty() && shop.sabotage != Some(Sabotage::BlindLook);
        let found = match self.broken {
            Some(fault) => Found::Fault(fault),
            None if has_bytes => Found::Bytes,
            None if self.is_finished => Found::Eof,
            None => Found::Nothing,
        };
        let rng = &mut self.rng;
        let is_known = found == Found::Nothing && rng.bool();
        // Unlike any other look's, so that another's facts are noticed.
        let facts = TcpFacts {
            last_data_received_ms: rng.u32(..),
            last_ack_received_ms: rng.u32(..),
            unacked: rng.u32(..),
            rtt_us: rng.u32(..),
            retransmits: rng.u8(..),
        };
        self.queue.push_back((now, Word::Looked(found, is_known.then_some(facts))));
    }

    fn work_on_receive(&mut self, now: Moment, shop: &mut Shop) {
        while self.receives_from().is_some_and(|from| from <= now) {
            let end = if let Some(fault) = self.broken {
                Some(ReceiveEnd::Fault(fault))
            } else if self.waiting.is_empty() {
                if !self.is_finished {
                    return;
                }
                Some(ReceiveEnd::Eof)
            } else if shop.buffers_free == 0 {
                let played = &mut shop.faults.played[Fault::Scarce as usize];
                *played += 1;
                Some(ReceiveEnd::Starved)
            } else if shop.faults.strikes(&mut self.rng, Fault::Starve) {
                Some(ReceiveEnd::Starved)
            } else if shop.faults.strikes(&mut self.rng, Fault::Interrupt) {
                Some(ReceiveEnd::Interrupted)
            } else {
                None
            };
            if let Some(end) = end {
                self.armed_from = None;
                self.pausing = None;
                self.queue.push_back((now, Word::Ended(end)));
                return;
            }
            let bytes = self.read(shop);
            let is_lost = shop.sabotage == Some(Sabotage::LostBytes) && self.rng.u32(0..20) == 0;
            self.is_lied_about |= is_lost;
            if !is_lost {
                shop.buffers_free -= 1;
                self.queue.push_back((now, Word::Received(bytes)));
            }
        }
    }

    fn read(&mut self, shop: &mut Shop) -> Vec<u8> {
        let longest = self.waiting.len().min(shop.piece_bytes_max);
        let is_cut = shop.faults.strikes(&mut self.rng, Fault::Cut);
        let count = if is_cut { self.rng.usize(1..=longest.min(9)) } else { longest };
        let bytes = self.waiting.drain(..count).collect();
        let read_bytes = self.written_bytes - self.waiting.len() as u64;
        while self.arrivals.front().is_some_and(|(_, end)| *end <= read_bytes) {
            self.arrivals.pop_front();
        }
        bytes
    }

    fn work_on_send(&mut self, now: Moment, shop: &mut Shop) {
        let Some((due, chunk)) = self.sending.take_if(|(due, _)| *due <= now) else { return };
        if let Some(fault) = self.broken {
            self.home = Some((now, chunk, Err(fault)));
            return;
        }
        let longest = chunk.len().min(self.window_bytes);
        if longest == 0 {
            self.sending = Some((due, chunk)); // until the client reads, or somebody ends it
            return;
        }
        let is_short = shop.faults.strikes(&mut self.rng, Fault::ShortSend);
        let count = if is_short { self.rng.usize(1..=longest) } else { longest };
        if self.is_forgotten {
            self.break_with(IoFault::Reset);
        } else if self.is_reading() {
            self.heard.extend_from_slice(&chunk.unsent()[..count]);
        } else {
            self.window_bytes -= count;
            self.unread.extend_from_slice(&chunk.unsent()[..count]);
        }
        let is_late = shop.faults.strikes(&mut self.rng, Fault::LateNews);
        let late = if is_late { span_upto(&mut self.rng, NEWS_TIME_MAX) } else { Span::ZERO };
        self.home = Some((now + late, chunk, Ok(count)));
    }
}
