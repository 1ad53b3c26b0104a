//! A pretend kernel: keeps its side of the contract of [`heartwheel::base::io`], as unkindly as the
//! contract allows, and panics when the other side breaks it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fastrand::Rng;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{
    Chunk, CloseHow, Found, IoFault, Op, ReceiveEnd, SocketHandle, TcpFacts,
};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};

use crate::faults::{Faults, happens, span_upto};
use crate::script::Label;

/// Longest that the kernel takes for an operation.
const OPERATION_TIME_MAX: Span = Span::from_millis(20);

/// Longest that the answer to a last look takes.
const LOOK_TIME_MAX: Span = Span::from_secs(2);

/// A connection between a pretend client and the gateway: both ends, and the wire between.
pub(crate) struct Link {
    pub(crate) peer: SocketAddr,
    stage: Stage,
    /// Arrived at the gateway's socket and not read.
    waiting: VecDeque<u8>,
    /// Bytes the client wrote in all, and bytes handed to the gateway in all.
    written_bytes: u64,
    delivered_bytes: u64,
    /// Where the last frame ended that was handed over whole.
    whole_bytes: u64,
    /// Where in the stream the frames end that were not yet handed over whole.
    ends: VecDeque<(u64, Label)>,
    /// The client will write no more.
    is_finished: bool,
    /// The connection broke, in this manner.
    broken: Option<IoFault>,
    /// Sent by the gateway, not yet looked at by the client.
    heard: Vec<u8>,
    /// Bytes that the client's side still takes.
    window_bytes: usize,
    /// How the gateway closed it.
    closed: Option<CloseHow>,
    /// The kernel listens from this moment on.
    armed_from: Option<Moment>,
    /// The gateway may believe that the kernel listens: no `ReceiveEnded` was handed over.
    is_believed_armed: bool,
    /// The last of it was handed over: there is nothing left to be received.
    is_heard_out: bool,
    sending: Option<(Moment, Chunk)>,
    looking: Option<Moment>,
    closing: Option<(Moment, CloseHow)>,
    /// Completions in their order, each with the moment from which it can be seen.
    queue: VecDeque<(Moment, Word)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
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

/// What the kernel tells, and of whom.
#[derive(Debug)]
pub(crate) enum News {
    Accepted { link: usize },
    AcceptFailed { fault: IoFault },
    Of { link: usize, conn: ConnId, word: Word },
}

#[derive(Clone, Copy, Debug)]
enum Lane {
    Accepts,
    Link(usize),
}

pub(crate) struct Kernel {
    pub(crate) faults: Faults,
    rng: Rng,
    pub(crate) links: Vec<Link>,
    /// Links that the gateway holds.
    active: Vec<usize>,
    conns: BTreeMap<ConnId, usize>,
    slots: BTreeSet<u32>,
    conns_ever: BTreeSet<ConnId>,
    backlog: VecDeque<usize>,
    accepts: u32,
    is_listening: bool,
    accepted: VecDeque<(Moment, Result<usize, IoFault>)>,
    round: Vec<Lane>,
}

impl Kernel {
    pub(crate) fn new(faults: Faults, rng: Rng) -> Self {
        Self {
            faults,
            rng,
            links: Vec::new(),
            active: Vec::new(),
            conns: BTreeMap::new(),
            slots: BTreeSet::new(),
            conns_ever: BTreeSet::new(),
            backlog: VecDeque::new(),
            accepts: 0,
            is_listening: true,
            accepted: VecDeque::new(),
            round: Vec::new(),
        }
    }

    // --- the client's side -----------------------------------------------------------------------

    /// A client connects; its link waits to be accepted.
    pub(crate) fn connect(&mut self) -> usize {
        let link = self.links.len();
        let port = 1_024 + u16::try_from(link % 60_000).expect("below 60,000");
        self.links.push(Link {
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            stage: Stage::Backlog,
            waiting: VecDeque::new(),
            written_bytes: 0,
            delivered_bytes: 0,
            whole_bytes: 0,
            ends: VecDeque::new(),
            is_finished: false,
            broken: None,
            heard: Vec::new(),
            window_bytes: usize::MAX,
            closed: None,
            armed_from: None,
            is_believed_armed: false,
            is_heard_out: false,
            sending: None,
            looking: None,
            closing: None,
            queue: VecDeque::new(),
        });
        if self.is_listening {
            self.backlog.push_back(link);
        } else {
            self.links[link].closed = Some(CloseHow::Abort);
            self.links[link].stage = Stage::Gone;
        }
        link
    }

    /// What the kernel has to tell by `now`: one thing, from anybody who has something.
    pub(crate) fn next(&mut self, now: Moment) -> Option<News> {
        loop {
            if self.round.is_empty() {
                self.work(now);
                self.begin_round(now);
            }
            let lane = self.round.pop()?;
            if let Some(news) = self.take(lane, now) {
                return Some(news);
            }
        }
    }

    /// When the kernel has something to do or to tell at the earliest.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        let accepts = self.accepted.front().map(|(at, _)| *at);
        let links = self.active.iter().filter_map(|link| self.links[*link].next_due());
        links.chain(accepts).min()
    }

    /// Takes what belongs to a word that is handed over: which frames it completes, and how many
    /// bytes of another are there then.
    pub(crate) fn hand_over(&mut self, link: usize, bytes: usize) -> (Vec<Label>, u64) {
        let link = &mut self.links[link];
        link.delivered_bytes += bytes as u64;
        let whole = link.ends.iter().take_while(|(end, _)| *end <= link.delivered_bytes).count();
        let frames: Vec<_> = link.ends.drain(..whole).collect();
        if let Some((end, _)) = frames.last() {
            link.whole_bytes = *end;
        }
        let begun = link.delivered_bytes - link.whole_bytes;
        (frames.into_iter().map(|(_, label)| label).collect(), begun)
    }

    /// Panics when somebody could still be heard and nobody listens.
    pub(crate) fn check_heard(&self) {
        for index in &self.active {
            let link = &self.links[*index];
            let is_listened_to = link.is_believed_armed || link.is_heard_out;
            let is_closing = link.closing.is_some();
            assert!(is_listened_to || is_closing, "{:?}: nobody listens", link.stage);
        }
    }

    /// Whether the answer to a last look is awaited.
    pub(crate) fn is_looking(&self) -> bool {
        self.active.iter().any(|link| self.links[*link].looking.is_some())
    }

    /// Whether clients wait to be accepted, and nobody accepts.
    pub(crate) fn is_deaf(&self) -> bool {
        !self.backlog.is_empty() && self.accepts == 0 && self.accepted.is_empty()
    }

    /// Panics unless everything was given back.
    pub(crate) fn check_empty(&self) {
        assert!(self.active.is_empty(), "connections left: {:?}", self.conns);
        assert!(self.slots.is_empty(), "slots left");
        assert_eq!(self.accepts, 0, "accepts left");
        assert!(self.accepted.is_empty(), "accepted sockets left");
        let offered = self.links.iter().filter(|link| link.stage == Stage::Offered).count();
        assert_eq!(offered, 0, "sockets that were neither adopted nor discarded");
    }

    // --- operations ------------------------------------------------------------------------------

    /// Takes an operation, and panics when it breaks the contract.
    pub(crate) fn submit(&mut self, op: Op, now: Moment) {
        match op {
            Op::Accept { count } => {
                assert!(self.is_listening, "accept after StopAccepting");
                self.accepts += count;
                assert!(self.accepts <= limits::ACCEPTS_MAX, "{} accepts", self.accepts);
            }
            Op::StopAccepting => self.stop_accepting(now),
            Op::Connect(_) => panic!("a gateway opens no connections"),
            Op::Adopt { socket, conn } => self.adopt(socket, conn),
            Op::Discard { socket } => {
                let link = &mut self.links[link_of(socket)];
                assert_eq!(link.stage, Stage::Offered, "discard of a socket that is not offered");
                link.stage = Stage::Gone;
                link.closed = Some(CloseHow::Abort);
            }
            Op::Receive { conn } => {
                let due = self.due(now);
                let link = self.open_link(conn);
                assert!(!link.is_believed_armed, "{conn}: a second receive");
                link.is_believed_armed = true;
                link.armed_from = Some(due);
            }
            Op::Send { conn, chunk } => {
                let due = self.due(now);
                let link = self.open_link(conn);
                assert!(link.sending.is_none(), "{conn}: a second send");
                assert!(!chunk.is_empty(), "{conn}: nothing to send");
                link.sending = Some((due, chunk));
            }
            Op::Look { conn } => {
                let mut due = self.due(now);
                if happens(&mut self.rng, self.faults.slow_look) {
                    due += span_upto(&mut self.rng, LOOK_TIME_MAX);
                }
                let link = self.open_link(conn);
                assert!(link.looking.is_none(), "{conn}: a second look");
                link.looking = Some(due);
            }
            Op::SetUserTimeout { conn, .. } => {
                self.open_link(conn);
            }
            Op::Close { conn, how } => {
                let due = self.due(now);
                let link = self.open_link(conn);
                link.closing = Some((due, how));
                link.armed_from = None;
                link.looking = None;
                // What follows a close is the chunk coming home, and the end.
                link.queue.retain(|(_, word)| matches!(word, Word::Sent(..)));
            }
        }
    }

    /// When an operation taken now is carried out.
    fn due(&mut self, now: Moment) -> Moment {
        if happens(&mut self.rng, self.faults.slow_kernel) {
            now + span_upto(&mut self.rng, OPERATION_TIME_MAX)
        } else {
            now
        }
    }

    fn open_link(&mut self, conn: ConnId) -> &mut Link {
        let link = *self.conns.get(&conn).unwrap_or_else(|| panic!("{conn} does not exist"));
        let link = &mut self.links[link];
        assert!(link.closing.is_none(), "{conn}: an operation after close");
        link
    }

    fn adopt(&mut self, socket: SocketHandle, conn: ConnId) {
        let index = link_of(socket);
        let link = &mut self.links[index];
        assert_eq!(link.stage, Stage::Offered, "{conn}: adopts a socket that is not offered");
        link.stage = Stage::Adopted(conn);
        assert!(self.slots.insert(conn.slot), "{conn}: the slot is in use");
        assert!(self.conns_ever.insert(conn), "{conn}: was used before");
        self.conns.insert(conn, index);
        self.active.push(index);
    }

    fn stop_accepting(&mut self, now: Moment) {
        assert!(self.is_listening, "StopAccepting twice");
        self.is_listening = false;
        for _ in 0..std::mem::take(&mut self.accepts) {
            let due = self.due(now);
            self.accepted.push_back((due, Err(IoFault::Cancelled)));
        }
        for link in self.backlog.drain(..) {
            self.links[link].closed = Some(CloseHow::Abort);
            self.links[link].stage = Stage::Gone;
        }
    }

    // --- carrying out ----------------------------------------------------------------------------

    /// Carries out what can be carried out by now.
    pub(crate) fn work(&mut self, now: Moment) {
        while self.accepts > 0 && !self.backlog.is_empty() {
            self.accepts -= 1;
            let due = self.due(now);
            let outcome = if happens(&mut self.rng, self.faults.accept) {
                let faults = [IoFault::NoDescriptors, IoFault::NoMemory, IoFault::Reset];
                Err(faults[self.rng.usize(0..faults.len())])
            } else {
                let link = self.backlog.pop_front().expect("it is not empty");
                self.links[link].stage = Stage::Offered;
                Ok(link)
            };
            self.accepted.push_back((due, outcome));
        }
        for index in 0..self.active.len() {
            let link = &mut self.links[self.active[index]];
            link.work(now, &self.faults, &mut self.rng);
        }
    }

    fn begin_round(&mut self, now: Moment) {
        let is_ready = |link: &Link| link.queue.front().is_some_and(|(at, _)| *at <= now);
        let active = self.active.iter().copied();
        self.round.extend(active.filter(|link| is_ready(&self.links[*link])).map(Lane::Link));
        if self.accepted.front().is_some_and(|(at, _)| *at <= now) {
            self.round.push(Lane::Accepts);
        }
        self.rng.shuffle(&mut self.round);
    }

    fn take(&mut self, lane: Lane, now: Moment) -> Option<News> {
        match lane {
            Lane::Accepts => {
                let (_, outcome) = pop_ready(&mut self.accepted, now)?;
                Some(match outcome {
                    Ok(link) => News::Accepted { link },
                    Err(fault) => News::AcceptFailed { fault },
                })
            }
            Lane::Link(index) => {
                let link = &mut self.links[index];
                let Stage::Adopted(conn) = link.stage else { return None };
                let (_, word) = pop_ready(&mut link.queue, now)?;
                match &word {
                    Word::Ended(end) => {
                        link.is_believed_armed = false;
                        link.is_heard_out = matches!(end, ReceiveEnd::Eof | ReceiveEnd::Fault(_));
                    }
                    Word::Closed => {
                        link.stage = Stage::Gone;
                        self.active.retain(|active| *active != index);
                        self.conns.remove(&conn);
                        self.slots.remove(&conn.slot);
                    }
                    Word::Received(_) | Word::Sent(..) | Word::Looked(..) => {}
                }
                Some(News::Of { link: index, conn, word })
            }
        }
    }
}

impl Link {
    /// The client's bytes arrive at the gateway's socket; `ends` says where in them frames end.
    pub(crate) fn arrive(&mut self, bytes: &[u8], ends: &[(usize, Label)]) {
        if self.broken.is_some() || self.is_finished || self.closed.is_some() {
            return;
        }
        let before = self.written_bytes;
        self.ends.extend(ends.iter().map(|(end, label)| (before + *end as u64, *label)));
        self.written_bytes += bytes.len() as u64;
        self.waiting.extend(bytes);
    }

    /// The client sends FIN.
    pub(crate) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The connection breaks. What was not read is lost.
    pub(crate) fn break_with(&mut self, fault: IoFault) {
        if self.broken.is_none() {
            self.broken = Some(fault);
            self.waiting.clear();
        }
    }

    /// The client's side takes so many bytes more and no further ones.
    pub(crate) fn stop_reading(&mut self, window_bytes: usize) {
        self.window_bytes = window_bytes;
    }

    /// Whether the client's side takes everything.
    pub(crate) fn is_reading(&self) -> bool {
        self.window_bytes == usize::MAX
    }

    /// Whether the peer did anything that ends the connection.
    pub(crate) fn is_peer_gone(&self) -> bool {
        self.broken.is_some() || self.is_finished
    }

    /// What the gateway sent since the last call.
    pub(crate) fn take_heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.heard)
    }

    fn next_due(&self) -> Option<Moment> {
        let word = self.queue.front().map(|(at, _)| *at);
        let send = match &self.sending {
            Some((at, _)) if self.window_bytes > 0 || self.broken.is_some() => Some(*at),
            Some(_) | None => None,
        };
        let has_input = !self.waiting.is_empty() || self.is_peer_gone();
        let receive = self.armed_from.filter(|_| has_input);
        let close = self.closing.filter(|_| self.closed.is_none()).map(|(at, _)| at);
        [word, send, receive, close, self.looking].into_iter().flatten().min()
    }

    fn work(&mut self, now: Moment, faults: &Faults, rng: &mut Rng) {
        self.work_on_receive(now, faults, rng);
        self.work_on_send(now, faults, rng);
        if self.looking.is_some_and(|due| due <= now) {
            self.looking = None;
            let found = match self.broken {
                Some(fault) => Found::Fault(fault),
                None if !self.waiting.is_empty() => Found::Bytes,
                None if self.is_finished => Found::Eof,
                None => Found::Nothing,
            };
            let is_known = found == Found::Nothing && rng.bool();
            // Unlike any other look's, so that another's facts are noticed.
            let facts = || TcpFacts {
                last_data_received_ms: rng.u32(..),
                last_ack_received_ms: rng.u32(..),
                unacked: rng.u32(..),
                rtt_us: rng.u32(..),
                retransmits: rng.u8(..),
            };
            self.queue.push_back((now, Word::Looked(found, is_known.then(facts))));
        }
        if let Some((due, how)) = self.closing
            && due <= now
            && self.closed.is_none()
        {
            if let Some((_, chunk)) = self.sending.take() {
                self.queue.push_back((now, Word::Sent(chunk, Err(IoFault::Cancelled))));
            }
            self.closed = Some(how);
            self.queue.push_back((now + span_upto(rng, Span::from_millis(2)), Word::Closed));
        }
    }

    fn work_on_receive(&mut self, now: Moment, faults: &Faults, rng: &mut Rng) {
        while self.armed_from.is_some_and(|from| from <= now) {
            let end = if let Some(fault) = self.broken {
                Some(ReceiveEnd::Fault(fault))
            } else if self.waiting.is_empty() {
                if !self.is_finished {
                    return;
                }
                Some(ReceiveEnd::Eof)
            } else if happens(rng, faults.starve) {
                Some(ReceiveEnd::Starved)
            } else if happens(rng, faults.interrupt) {
                Some(ReceiveEnd::Interrupted)
            } else {
                None
            };
            if let Some(end) = end {
                self.armed_from = None;
                self.queue.push_back((now, Word::Ended(end)));
                return;
            }
            let longest = self.waiting.len().min(limits::RECEIVE_BUFFER_BYTES);
            let is_cut = happens(rng, faults.cut);
            let count = if is_cut { rng.usize(1..=longest.min(9)) } else { longest };
            let bytes = self.waiting.drain(..count).collect();
            self.queue.push_back((now, Word::Received(bytes)));
        }
    }

    fn work_on_send(&mut self, now: Moment, faults: &Faults, rng: &mut Rng) {
        let Some((due, chunk)) = self.sending.take_if(|(due, _)| *due <= now) else { return };
        if let Some(fault) = self.broken {
            self.queue.push_back((now, Word::Sent(chunk, Err(fault))));
            return;
        }
        let longest = chunk.len().min(self.window_bytes);
        if longest == 0 {
            self.sending = Some((due, chunk)); // until the client reads, or somebody ends it
            return;
        }
        let is_short = happens(rng, faults.short_send);
        let count = if is_short { rng.usize(1..=longest) } else { longest };
        if self.is_reading() {
            self.heard.extend_from_slice(&chunk.unsent()[..count]);
        } else {
            self.window_bytes -= count;
        }
        self.queue.push_back((now, Word::Sent(chunk, Ok(count))));
    }
}

fn pop_ready<T>(queue: &mut VecDeque<(Moment, T)>, now: Moment) -> Option<(Moment, T)> {
    queue.front().filter(|(at, _)| *at <= now)?;
    queue.pop_front()
}

/// The socket of a link. The offset catches whoever takes another number for it.
pub(crate) fn socket_of(link: usize) -> SocketHandle {
    SocketHandle(link as u64 + 1_000_000)
}

fn link_of(socket: SocketHandle) -> usize {
    usize::try_from(socket.0 - 1_000_000).expect("a link's number")
}
