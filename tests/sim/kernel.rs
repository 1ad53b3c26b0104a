//! A pretend kernel: keeps its side of the contract of [`heartwheel::base::io`], as unkindly as the
//! contract allows, and panics when the other side breaks it.
//!
//! It plays both drivers. What only a ring does to us (no buffer left, a receive interrupted, a
//! queue that overflows) are faults that half of the worlds go without, each; and half of them
//! receive in pieces as large as epoll gives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{CloseHow, IoFault, Op, ReceiveEnd, SocketHandle};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};

use crate::faults::{Fault, Faults, span_upto};
use crate::link::{Link, Piece, Sabotage, Shop, Stage, Word};
use crate::script::Label;
use crate::ways::Parcel;

/// Longest that the kernel takes for an operation.
const OPERATION_TIME_MAX: Span = Span::from_millis(20);

/// Longest that the answer to a last look takes.
const LOOK_TIME_MAX: Span = Span::from_secs(2);

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
    pub(crate) shop: Shop,
    rng: Rng,
    links: Vec<Link>,
    /// When each link has something to do or to tell; the same twice.
    schedule: BTreeSet<(Moment, usize)>,
    planned: Vec<Option<Moment>>,
    /// Links whose client has something to read.
    heard: Vec<usize>,
    conns: BTreeMap<ConnId, usize>,
    slots: BTreeSet<u32>,
    conns_ever: BTreeSet<ConnId>,
    backlog: VecDeque<usize>,
    accepts: u32,
    is_listening: bool,
    accepted: VecDeque<(Moment, Result<usize, IoFault>)>,
    round: Vec<Lane>,
    buffers: usize,
}

impl Kernel {
    pub(crate) fn new(
        faults: Faults,
        mut rng: Rng,
        devices: usize,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let is_scarce = faults.has(Fault::Scarce);
        let buffers = if is_scarce {
            rng.usize(1..8) + devices / 8
        } else {
            usize::from(limits::RECEIVE_BUFFERS)
        };
        // A ring receives into small buffers, epoll into a large one.
        let piece_bytes_max = match rng.bool() {
            true => limits::RECEIVE_BUFFER_BYTES,
            false => limits::RECEIVE_BYTES_AT_ONCE,
        };
        Self {
            shop: Shop { faults, buffers_free: buffers, piece_bytes_max, sabotage },
            rng,
            links: Vec::new(),
            schedule: BTreeSet::new(),
            planned: Vec::new(),
            heard: Vec::new(),
            conns: BTreeMap::new(),
            slots: BTreeSet::new(),
            conns_ever: BTreeSet::new(),
            backlog: VecDeque::new(),
            accepts: 0,
            is_listening: true,
            accepted: VecDeque::new(),
            round: Vec::new(),
            buffers,
        }
    }

    // --- the clients' side -----------------------------------------------------------------------

    /// A client connects; its link waits to be accepted.
    pub(crate) fn connect(&mut self, rng: Rng) -> usize {
        let index = self.links.len();
        let port = 1_024 + u16::try_from(index % 60_000).expect("below 60,000");
        let mut link = Link::new(port, rng);
        if self.is_listening {
            self.backlog.push_back(index);
        } else {
            link.closed = Some(CloseHow::Abort);
            link.stage = Stage::Gone;
        }
        self.links.push(link);
        self.planned.push(None);
        index
    }

    pub(crate) fn link(&self, index: usize) -> &Link {
        &self.links[index]
    }

    /// The client at this link does something.
    pub(crate) fn touch(&mut self, index: usize, act: impl FnOnce(&mut Link)) {
        act(&mut self.links[index]);
        self.plan(index);
    }

    /// The client at this link reads again.
    pub(crate) fn read_on(&mut self, index: usize) {
        self.touch(index, |link| link.read_on());
        self.heard.push(index);
    }

    /// The client's bytes arrive at the gateway's socket; `ends` says where in them frames end.
    pub(crate) fn arrive(
        &mut self,
        index: usize,
        bytes: &[u8],
        ends: &[(usize, Label)],
        now: Moment,
    ) {
        self.links[index].arrive(bytes, (bytes, ends), now, &mut self.shop);
        self.plan(index);
    }

    /// The same of what is wrapped in something.
    pub(crate) fn arrive_wrapped(&mut self, index: usize, parcel: &Parcel, now: Moment) {
        let Parcel { wire, native, ends } = parcel;
        self.links[index].arrive(wire, (native, ends), now, &mut self.shop);
        self.plan(index);
    }

    /// What clients can read by now, link by link.
    pub(crate) fn take_heard(&mut self) -> Vec<(usize, Vec<u8>)> {
        let heard = std::mem::take(&mut self.heard);
        heard.into_iter().map(|index| (index, self.links[index].take_heard())).collect()
    }

    fn plan(&mut self, index: usize) {
        let due = match self.links[index].stage {
            Stage::Adopted(_) => self.links[index].next_due(),
            Stage::Backlog | Stage::Offered | Stage::Gone => None,
        };
        if due != self.planned[index] {
            if let Some(at) = self.planned[index] {
                self.schedule.remove(&(at, index));
            }
            self.planned[index] = due;
            self.schedule.extend(due.map(|at| (at, index)));
        }
    }

    // --- what it tells ---------------------------------------------------------------------------

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
        let links = self.schedule.first().map(|(at, _)| *at);
        links.into_iter().chain(accepts).min()
    }

    /// Takes what belongs to a word that is handed over: which frames it completes, and how many
    /// bytes of another are there then.
    pub(crate) fn hand_over(&mut self, index: usize, bytes: &[u8]) -> (Vec<Piece>, u64) {
        self.links[index].hand_over(bytes)
    }

    /// The link of a connection that is open.
    pub(crate) fn link_of(&self, conn: ConnId) -> usize {
        self.conns[&conn]
    }

    /// Panics when somebody could still be heard and nobody listens. Those who are `leaving` were
    /// closed by the gateway, and whatever stands between has not yet said so.
    pub(crate) fn check_heard(&self, leaving: impl Fn(ConnId) -> bool) {
        for (conn, index) in &self.conns {
            let link = &self.links[*index];
            let is_listened_to = link.is_believed_armed || link.is_heard_out || link.is_to_pause;
            let is_over = link.closing.is_some() || leaving(*conn);
            assert!(is_listened_to || is_over, "{conn}: nobody listens");
        }
    }

    /// Whether the answer to a last look is awaited.
    pub(crate) fn is_looking(&self) -> bool {
        self.conns.values().any(|index| self.links[*index].looking.is_some())
    }

    /// Whether clients wait to be accepted, and nobody accepts.
    pub(crate) fn is_deaf(&self) -> bool {
        !self.backlog.is_empty() && self.accepts == 0 && self.accepted.is_empty()
    }

    /// Links that the gateway holds.
    pub(crate) fn held(&self) -> Vec<usize> {
        self.conns.values().copied().collect()
    }

    /// Panics unless everything was given back.
    pub(crate) fn check_empty(&self) {
        assert!(self.conns.is_empty(), "connections left: {:?}", self.conns);
        assert!(self.slots.is_empty(), "slots left");
        assert_eq!(self.accepts, 0, "accepts left");
        assert!(self.accepted.is_empty(), "accepted sockets left");
        assert_eq!(self.shop.buffers_free, self.buffers, "receive buffers got lost");
        for link in &self.links {
            assert_ne!(link.stage, Stage::Offered, "a socket neither adopted nor discarded");
            assert!(link.sending.is_none(), "a chunk did not come home");
            assert!(link.ready_at().is_none(), "a completion was not told");
        }
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
            Op::Receive { conn } => self.on_link(conn, now, |link, due, _| {
                assert!(!link.is_believed_armed, "{conn}: a second receive");
                link.is_believed_armed = true;
                link.armed_from = Some(due);
                link.is_to_pause = false;
            }),
            Op::Pause { conn } => self.on_link(conn, now, |link, due, _| link.pause(due)),
            Op::Send { conn, chunk } => self.on_link(conn, now, |link, due, _| {
                assert!(link.sending.is_none(), "{conn}: a second send");
                assert!(!chunk.is_empty(), "{conn}: nothing to send");
                link.sending = Some((due, chunk));
            }),
            Op::Look { conn } => self.on_link(conn, now, |link, mut due, shop| {
                if shop.faults.strikes(&mut link.rng, Fault::SlowLook) {
                    due += span_upto(&mut link.rng, LOOK_TIME_MAX);
                }
                assert!(link.looking.is_none(), "{conn}: a second look");
                link.looking = Some(due);
            }),
            Op::SetUserTimeout { conn, .. } => self.on_link(conn, now, |_, _, _| {}),
            Op::Move(departure) => panic!("{departure:?}: there is one shard"),
            Op::Close { conn, how } => {
                self.on_link(conn, now, |link, due, shop| link.begin_close(due, how, shop));
            }
        }
    }

    /// An operation on a connection that is open, and when it is carried out.
    fn on_link(
        &mut self,
        conn: ConnId,
        now: Moment,
        act: impl FnOnce(&mut Link, Moment, &mut Shop),
    ) {
        let index = *self.conns.get(&conn).unwrap_or_else(|| panic!("{conn} does not exist"));
        let link = &mut self.links[index];
        assert!(link.closing.is_none(), "{conn}: an operation after close");
        let is_slow = self.shop.faults.strikes(&mut link.rng, Fault::SlowKernel);
        let late = if is_slow { span_upto(&mut link.rng, OPERATION_TIME_MAX) } else { Span::ZERO };
        act(link, now + late, &mut self.shop);
        self.plan(index);
    }

    fn adopt(&mut self, socket: SocketHandle, conn: ConnId) {
        let index = link_of(socket);
        let link = &mut self.links[index];
        assert_eq!(link.stage, Stage::Offered, "{conn}: adopts a socket that is not offered");
        link.stage = Stage::Adopted(conn);
        assert!(self.slots.insert(conn.slot), "{conn}: the slot is in use");
        assert!(self.conns_ever.insert(conn), "{conn}: was used before");
        self.conns.insert(conn, index);
        self.plan(index);
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

    /// When an operation on the listener is answered.
    fn due(&mut self, now: Moment) -> Moment {
        if self.shop.faults.strikes(&mut self.rng, Fault::SlowKernel) {
            now + span_upto(&mut self.rng, OPERATION_TIME_MAX)
        } else {
            now
        }
    }

    // --- carrying out ----------------------------------------------------------------------------

    /// Carries out what can be carried out by now.
    pub(crate) fn work(&mut self, now: Moment) {
        while self.accepts > 0 && !self.backlog.is_empty() {
            self.accepts -= 1;
            let due = self.due(now);
            let outcome = if self.shop.faults.strikes(&mut self.rng, Fault::Accept) {
                let faults = [IoFault::NoDescriptors, IoFault::NoMemory, IoFault::Reset];
                Err(faults[self.rng.usize(0..faults.len())])
            } else {
                let link = self.backlog.pop_front().expect("it is not empty");
                self.links[link].stage = Stage::Offered;
                Ok(link)
            };
            self.accepted.push_back((due, outcome));
        }
        if !self.conns.is_empty() && self.shop.faults.strikes(&mut self.rng, Fault::Overflow) {
            for index in self.held() {
                self.links[index].interrupt(now);
                self.plan(index);
            }
        }
        for index in self.due_links(now) {
            let link = &mut self.links[index];
            link.work(now, &mut self.shop);
            if link.has_heard() {
                self.heard.push(index);
            }
            self.plan(index);
        }
    }

    fn due_links(&self, now: Moment) -> Vec<usize> {
        let due = self.schedule.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, index)| *index).collect()
    }

    fn begin_round(&mut self, now: Moment) {
        let is_ready = |index: &usize| self.links[*index].ready_at().is_some_and(|at| at <= now);
        let ready: Vec<_> = self.due_links(now).into_iter().filter(is_ready).collect();
        self.round.extend(ready.into_iter().map(Lane::Link));
        if self.accepted.front().is_some_and(|(at, _)| *at <= now) {
            self.round.push(Lane::Accepts);
        }
        self.rng.shuffle(&mut self.round);
    }

    fn take(&mut self, lane: Lane, now: Moment) -> Option<News> {
        match lane {
            Lane::Accepts => {
                self.accepted.front().filter(|(at, _)| *at <= now)?;
                let (_, outcome) = self.accepted.pop_front()?;
                Some(match outcome {
                    Ok(link) => News::Accepted { link },
                    Err(fault) => News::AcceptFailed { fault },
                })
            }
            Lane::Link(index) => {
                let link = &mut self.links[index];
                let Stage::Adopted(conn) = link.stage else { return None };
                let word = link.take(now)?;
                match &word {
                    Word::Ended(end) => {
                        link.is_believed_armed = false;
                        link.is_heard_out |= matches!(end, ReceiveEnd::Eof | ReceiveEnd::Fault(_));
                    }
                    Word::Closed => {
                        link.stage = Stage::Gone;
                        self.conns.remove(&conn);
                        self.slots.remove(&conn.slot);
                    }
                    Word::Received(_) => self.shop.buffers_free += 1,
                    Word::Sent(..) | Word::Looked(..) => {}
                }
                self.plan(index);
                Some(News::Of { link: index, conn, word })
            }
        }
    }
}

/// The socket of a link. The offset catches whoever takes another number for it.
pub(crate) fn socket_of(link: usize) -> SocketHandle {
    SocketHandle(link as u64 + 1_000_000)
}

pub(crate) fn link_of(socket: SocketHandle) -> usize {
    usize::try_from(socket.0 - 1_000_000).expect("a link's number")
}
