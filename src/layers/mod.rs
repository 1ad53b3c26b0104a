//! Between the kernel's bytes and a client's frames: who stands behind a proxy, TLS, WebSocket.
//!
//! May import: base, wire.
//! Never here: sockets, threads, the clock, sessions. It stands between two who keep the contract
//! of [`base::io`](crate::base::io), and keeps it towards both.
//!
//! [`Layers`] takes the gateway's operations and gives the kernel's, takes the kernel's completions
//! and gives the gateway's. A connection that speaks the native protocol at once is let through
//! from its first byte on; where nothing is configured nobody is even looked at.
//!
//! What a layer has to say of its own (an answer to a handshake, a pong, a last word) is sent
//! between the chunks of the gateway, whose own chunk comes home when everything is sent. A
//! handshake costs some hundred times what a beat does: only so many steps of handshakes are taken
//! in a turn, and what came for others waits, bounded, for the next.

pub mod certificate;
pub mod layer;
pub mod proxy;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod websocket;
mod wrapped;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::introduction::{Baggage, LayerStats};
use crate::base::io::{
    Chunk, CloseHow, Completion, IoFault, Move, Op, ReceiveEnd, SocketHandle, Stay,
};
use crate::base::limits;
use crate::base::time::Moment;
use crate::layers::layer::Flow;
use crate::layers::terms::{SharedTerms, Terms};
use crate::layers::wrapped::{Means, TakenIn, Wrapped};

/// All connections that are more than a stream of frames.
pub struct Layers {
    shared: SharedTerms,
    /// As they were when the latest newcomer came.
    terms: Arc<Terms>,
    wrapped: HashMap<ConnId, Box<Wrapped>>,
    /// Sockets that are no connections yet: who is there.
    newcomers: HashMap<SocketHandle, SocketAddr>,
    /// Sockets that we have connected and that are no connections yet.
    dialled: HashSet<SocketHandle>,
    /// Sockets that came from other shards and are no connections yet.
    arrivals: HashMap<SocketHandle, Box<Wrapped>>,
    /// To the kernel, of our own accord.
    ops: Vec<Op>,
    /// Who has something to be told to the gateway.
    due: VecDeque<ConnId>,
    /// Whose bytes wait for a turn with room for a handshake.
    put_off: VecDeque<ConnId>,
    /// Who waits for the end of a send, and until when at most, in order.
    waits: VecDeque<(Moment, ConnId)>,
    /// Steps of handshakes that may be taken in this turn.
    budget: usize,
    /// Whether anything waits for the end of a send.
    awaits_send: bool,
    flow: Flow,
    stats: LayerStats,
}

impl Layers {
    /// Layers on these terms, which may change.
    pub fn new(shared: SharedTerms) -> Self {
        Self {
            terms: shared.now(),
            shared,
            wrapped: HashMap::new(),
            newcomers: HashMap::new(),
            dialled: HashSet::new(),
            arrivals: HashMap::new(),
            ops: Vec::new(),
            due: VecDeque::new(),
            put_off: VecDeque::new(),
            waits: VecDeque::new(),
            budget: limits::TURN_HANDSHAKES_MAX,
            awaits_send: false,
            flow: Flow::default(),
            stats: LayerStats::default(),
        }
    }

    /// What was done so far, and how things are.
    pub fn stats(&self) -> LayerStats {
        LayerStats { wrapped: self.wrapped.len(), waiting: self.put_off.len(), ..self.stats }
    }

    /// Whether something is to be told that no completion brings.
    pub fn has_work(&self) -> bool {
        !self.due.is_empty() || !self.put_off.is_empty()
    }

    /// Whether anything waits for the end of a send that was asked for since this was last asked.
    /// Who sleeps on it holds it up.
    pub fn take_awaits_send(&mut self) -> bool {
        std::mem::take(&mut self.awaits_send)
    }

    /// When somebody has waited long enough, if somebody waits.
    pub fn next_wake(&self) -> Option<Moment> {
        self.waits.front().map(|(until, _)| *until)
    }

    // --- from the gateway to the kernel ----------------------------------------------------------

    /// Turns the gateway's operations into the kernel's.
    pub fn on_ops(&mut self, ops: &mut Vec<Op>, now: Moment) {
        let is_idle = self.wrapped.is_empty() && self.ops.is_empty() && self.dialled.is_empty();
        if is_idle && self.newcomers.is_empty() && self.arrivals.is_empty() {
            return;
        }
        for op in std::mem::take(ops) {
            if let Some(op) = self.on_op(op, now) {
                self.ops.push(op);
            }
        }
        std::mem::swap(ops, &mut self.ops);
    }

    fn on_op(&mut self, op: Op, now: Moment) -> Option<Op> {
        match op {
            Op::Adopt { socket, conn } => {
                self.adopt(socket, conn);
                Some(op)
            }
            Op::Discard { socket } => {
                self.newcomers.remove(&socket);
                self.dialled.remove(&socket);
                self.arrivals.remove(&socket);
                Some(op)
            }
            Op::Send { conn, chunk } => self.send(conn, chunk),
            Op::Receive { conn } => {
                let wrapped = self.wrapped.get(&conn);
                (!wrapped.is_some_and(|wrapped| wrapped.is_over)).then_some(op)
            }
            Op::Close { conn, how } => self.close(conn, how, now),
            Op::Move(departure) => self.depart(departure, now),
            Op::Accept { .. }
            | Op::StopAccepting
            | Op::Connect(_)
            | Op::Pause { .. }
            | Op::Look { .. }
            | Op::SetUserTimeout { .. } => Some(op),
        }
    }

    fn adopt(&mut self, socket: SocketHandle, conn: ConnId) {
        if let Some(wrapped) = self.arrivals.remove(&socket) {
            self.wrapped.insert(conn, wrapped);
            self.due.push_back(conn);
        } else if self.dialled.remove(&socket) {
            if let Some(dial) = &self.terms.dial {
                self.wrapped.insert(conn, Box::new(Wrapped::dialled(dial.begin())));
            }
        } else if let Some(peer) = self.newcomers.remove(&socket)
            && self.terms.is_on()
        {
            let wrapped = Wrapped::new(self.terms.proxies.contains(peer.ip()));
            self.wrapped.insert(conn, Box::new(wrapped));
        }
    }

    fn send(&mut self, conn: ConnId, chunk: Chunk) -> Option<Op> {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else {
            return Some(Op::Send { conn, chunk });
        };
        wrapped.send(chunk);
        let op = wrapped.next_send(conn);
        self.awaits_send |= wrapped.awaits_send();
        if op.is_none() && !wrapped.is_in_flight {
            self.due.push_back(conn);
        }
        op
    }

    fn close(&mut self, conn: ConnId, how: CloseHow, now: Moment) -> Option<Op> {
        let close = Some(Op::Close { conn, how });
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return close };
        if how == CloseHow::Abort || wrapped.is_broken {
            wrapped.is_closed = true;
            return close;
        }
        wrapped.finish();
        let send = wrapped.next_send(conn);
        if !wrapped.is_in_flight {
            wrapped.is_closed = true;
            return close;
        }
        wrapped.closing = Some(how);
        self.awaits_send = true;
        self.waits.push_back((now + limits::LAYER_LINGER, conn));
        send
    }

    fn depart(&mut self, mut departure: Box<Move>, now: Moment) -> Option<Op> {
        let Some(wrapped) = self.wrapped.get_mut(&departure.conn) else {
            return Some(Op::Move(departure));
        };
        // They were taken out of their layers here, and what comes behind them is in its layers.
        wrapped.unwrapped = std::mem::take(&mut departure.bytes);
        if wrapped.is_in_flight {
            self.waits.push_back((now + limits::LAYER_LINGER, departure.conn));
            wrapped.moving = Some(departure);
            self.awaits_send = true;
            return None;
        }
        Some(Op::Move(departure))
    }

    /// What goes with a connection that leaves for another shard.
    pub fn pack(&mut self, conn: ConnId) -> Baggage {
        match self.wrapped.remove(&conn) {
            Some(wrapped) => Baggage::of(*wrapped),
            None => Baggage::default(),
        }
    }

    // --- from the kernel to the gateway ----------------------------------------------------------

    /// Tells the gateway by `each` what this completion of the kernel means.
    #[inline]
    pub fn on_completion(
        &mut self,
        completion: Completion<'_>,
        mut each: impl FnMut(Completion<'_>),
    ) {
        match completion {
            Completion::Received { conn, bytes } if self.wrapped.contains_key(&conn) => {
                self.on_received(conn, bytes, &mut each);
            }
            Completion::Received { .. } => each(completion),
            Completion::Accepted { socket, peer } => {
                self.terms = self.shared.now();
                if self.terms.is_on() {
                    self.newcomers.insert(socket, peer);
                }
                each(completion);
            }
            Completion::Connected { socket, .. } => {
                if self.terms.dial.is_some() {
                    self.dialled.insert(socket);
                }
                each(completion);
            }
            Completion::Arrived { socket, peer, bytes, baggage } => {
                self.on_arrived(socket, peer, bytes, baggage, &mut each);
            }
            Completion::ReceiveEnded { conn, end } => self.on_receive_ended(conn, end, &mut each),
            Completion::Sent { conn, chunk, result } => {
                self.on_sent(conn, chunk, result, &mut each);
            }
            Completion::Looked { conn, .. } => {
                let wrapped = self.wrapped.get(&conn);
                if !wrapped.is_some_and(|wrapped| wrapped.is_leaving()) {
                    each(completion);
                }
            }
            Completion::Closed { conn } => {
                if let Some(home) = self.wrapped.remove(&conn).and_then(|gone| gone.home) {
                    each(Completion::Sent { conn, chunk: home, result: Err(IoFault::Cancelled) });
                }
                each(completion);
            }
            Completion::Stayed { conn, why } => self.stay(conn, why, &mut each),
            Completion::AcceptFailed { .. }
            | Completion::ConnectFailed { .. }
            | Completion::Moved { .. }
            | Completion::ArrivalFailed { .. }
            | Completion::Introduced { .. }
            | Completion::Spoilt { .. } => each(completion),
        }
    }

    fn on_arrived(
        &mut self,
        socket: SocketHandle,
        peer: SocketAddr,
        bytes: &[u8],
        baggage: Baggage,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let Some(mut wrapped) = baggage.open::<Wrapped>() else {
            let baggage = Baggage::default();
            return each(Completion::Arrived { socket, peer, bytes, baggage });
        };
        wrapped.late.extend_from_slice(bytes);
        self.arrivals.insert(socket, wrapped);
        each(Completion::Arrived { socket, peer, bytes: &[], baggage: Baggage::default() });
    }

    fn on_received(&mut self, conn: ConnId, bytes: &[u8], each: &mut impl FnMut(Completion<'_>)) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return };
        if wrapped.is_deaf() {
            return;
        }
        let is_moving = wrapped.moving.is_some();
        // What came with it from another shard comes before.
        let is_late = wrapped.has_more_before();
        if is_moving || is_late || (wrapped.is_costly() && self.budget == 0) {
            if wrapped.late.len() + bytes.len() > limits::LAYER_LATE_BYTES_MAX {
                return self.drown(conn, each);
            }
            wrapped.late.extend_from_slice(bytes);
            if !is_moving && !is_late {
                self.stats.put_off += 1;
                self.put_off.push_back(conn);
            }
            return;
        }
        self.take_in(conn, bytes, each);
    }

    /// So much came that has to wait that it is too much.
    fn drown(&mut self, conn: ConnId, each: &mut impl FnMut(Completion<'_>)) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return };
        wrapped.late = Vec::new();
        if wrapped.moving.take().is_some() {
            return self.give_up_move(conn, Stay::TooMuch, each);
        }
        wrapped.is_over = true;
        each(Completion::Spoilt { conn, reason: CloseReason::Flood });
    }

    /// Takes bytes out of their layers, and tells what was in them.
    fn take_in(&mut self, conn: ConnId, bytes: &[u8], each: &mut impl FnMut(Completion<'_>)) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return };
        self.budget -= usize::from(wrapped.is_costly() && self.budget > 0);
        let (terms, flow, stats) = (&*self.terms, &mut self.flow, &mut self.stats);
        let mut taken = wrapped.take_in(bytes, &mut Means { terms, flow, stats });
        if wrapped.answers > limits::LAYER_ANSWERS_BYTES_MAX {
            // It asks, and does not read the answers.
            taken = TakenIn::Spoilt(CloseReason::SlowConsumer);
        }
        if let Some(op) = wrapped.next_send(conn) {
            self.ops.push(op);
        }
        self.awaits_send |= wrapped.awaits_send();
        if let Some(introduction) = wrapped.take_introduction(!self.flow.up.is_empty()) {
            each(Completion::Introduced { conn, as_what: introduction });
        }
        match taken {
            TakenIn::Plain => {
                self.wrapped.remove(&conn);
            }
            TakenIn::GoesOn => {}
            TakenIn::Over | TakenIn::Spoilt(_) => wrapped.is_over = true,
        }
        if !self.flow.up.is_empty() {
            each(Completion::Received { conn, bytes: &self.flow.up });
        }
        self.flow.clear();
        match taken {
            TakenIn::Plain | TakenIn::GoesOn => {}
            TakenIn::Over => each(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof }),
            TakenIn::Spoilt(reason) => each(Completion::Spoilt { conn, reason }),
        }
    }

    /// It could not be moved, and what was to travel is of no use any more.
    fn stay(&mut self, conn: ConnId, why: Stay, each: &mut impl FnMut(Completion<'_>)) {
        if let Some(wrapped) = self.wrapped.get_mut(&conn) {
            wrapped.unwrapped = Vec::new();
        }
        each(Completion::Stayed { conn, why });
    }

    /// The kernel was not even asked to move it, and may still receive: nobody hears of that, since
    /// what was to travel is lost.
    fn give_up_move(&mut self, conn: ConnId, why: Stay, each: &mut impl FnMut(Completion<'_>)) {
        if let Some(wrapped) = self.wrapped.get_mut(&conn) {
            wrapped.is_over = true;
        }
        self.stay(conn, why, each);
    }

    fn on_receive_ended(
        &mut self,
        conn: ConnId,
        end: ReceiveEnd,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        if let Some(wrapped) = self.wrapped.get_mut(&conn) {
            if wrapped.is_deaf() {
                return;
            }
            let is_end = matches!(end, ReceiveEnd::Eof | ReceiveEnd::Fault(_));
            match (end, wrapped.moving.is_some()) {
                (ReceiveEnd::Fault(fault), true) => {
                    wrapped.moving = None;
                    return self.give_up_move(conn, Stay::Broken(fault), each);
                }
                // It is found again by whoever receives next.
                (_, true) => return,
                (_, false) if is_end && wrapped.has_more_before() => {
                    wrapped.late_end = Some(end);
                    return;
                }
                (_, false) => {}
            }
        }
        each(Completion::ReceiveEnded { conn, end });
    }

    fn on_sent(
        &mut self,
        conn: ConnId,
        mut chunk: Chunk,
        result: Result<usize, IoFault>,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else {
            return each(Completion::Sent { conn, chunk, result });
        };
        wrapped.is_in_flight = false;
        let is_closed = wrapped.is_closed;
        match result {
            Ok(count) if !is_closed => {
                chunk.advance(count.min(chunk.len()));
                let next = match chunk.is_done() {
                    true => wrapped.next_send(conn),
                    false => {
                        wrapped.is_in_flight = true;
                        Some(Op::Send { conn, chunk })
                    }
                };
                match next {
                    Some(op) => {
                        self.ops.push(op);
                        self.awaits_send |= wrapped.awaits_send();
                    }
                    None => self.settle(conn, Ok(()), each),
                }
            }
            // Whether it was sent matters to nobody any more.
            Ok(_) => self.settle(conn, Err(IoFault::Cancelled), each),
            Err(fault) => {
                wrapped.is_broken = true;
                self.settle(conn, Err(fault), each);
            }
        }
    }

    /// Nothing is under way: what waited for that is done.
    fn settle(
        &mut self,
        conn: ConnId,
        result: Result<(), IoFault>,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return };
        if wrapped.is_in_flight {
            return;
        }
        let (closing, moving) = (wrapped.closing.take(), wrapped.moving.take());
        wrapped.is_closed |= closing.is_some();
        if let Some(home) = wrapped.home.take() {
            let result = result.map(|()| home.len());
            each(Completion::Sent { conn, chunk: home, result });
        }
        if let Some(how) = closing {
            self.ops.push(Op::Close { conn, how });
        }
        match (moving, result) {
            (Some(_), Err(fault)) => self.give_up_move(conn, Stay::Broken(fault), each),
            (Some(departure), Ok(())) => self.ops.push(Op::Move(departure)),
            (None, _) => {}
        }
    }

    // --- of our own accord -----------------------------------------------------------------------

    /// Once in a turn: tells what no completion brings, takes further steps of handshakes, and
    /// waits no longer for whom it has waited long enough.
    pub fn work(&mut self, now: Moment, mut each: impl FnMut(Completion<'_>)) {
        self.budget = limits::TURN_HANDSHAKES_MAX;
        for _ in 0..self.due.len() {
            let Some(conn) = self.due.pop_front() else { break };
            self.tell_arrived(conn, &mut each);
            self.settle(conn, Ok(()), &mut each);
        }
        for _ in 0..self.put_off.len().min(limits::TURN_HANDSHAKES_MAX) {
            let Some(conn) = self.put_off.pop_front() else { break };
            self.take_in_late(conn, &mut each);
        }
        while self.waits.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, conn)) = self.waits.pop_front() else { break };
            self.wait_no_longer(conn, &mut each);
        }
    }

    /// Somebody who came from another shard is a connection now.
    fn tell_arrived(&mut self, conn: ConnId, each: &mut impl FnMut(Completion<'_>)) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return };
        let unwrapped = std::mem::take(&mut wrapped.unwrapped);
        if unwrapped.is_empty() || wrapped.is_deaf() {
            return;
        }
        wrapped.is_introduced = false;
        if let Some(introduction) = wrapped.take_introduction(true) {
            each(Completion::Introduced { conn, as_what: introduction });
        }
        each(Completion::Received { conn, bytes: &unwrapped });
        self.take_in_late(conn, each);
    }

    fn take_in_late(&mut self, conn: ConnId, each: &mut impl FnMut(Completion<'_>)) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return };
        let late = std::mem::take(&mut wrapped.late);
        if wrapped.is_deaf() {
            return;
        }
        let end = wrapped.late_end.take();
        if !late.is_empty() {
            self.take_in(conn, &late, each);
        }
        let is_deaf = self.wrapped.get(&conn).is_some_and(|wrapped| wrapped.is_deaf());
        if let (Some(end), false) = (end, is_deaf) {
            each(Completion::ReceiveEnded { conn, end });
        }
    }

    fn wait_no_longer(&mut self, conn: ConnId, each: &mut impl FnMut(Completion<'_>)) {
        let Some(wrapped) = self.wrapped.get_mut(&conn) else { return };
        if wrapped.closing.take().is_some() {
            wrapped.is_closed = true;
            self.ops.push(Op::Close { conn, how: CloseHow::Abort });
        } else if wrapped.moving.take().is_some() {
            self.give_up_move(conn, Stay::NoRoom, each);
        }
    }

    /// Whether nothing is held of any connection. Tests and simulation only.
    pub fn is_empty(&self) -> bool {
        let is_nobody_coming =
            self.newcomers.is_empty() && self.dialled.is_empty() && self.arrivals.is_empty();
        self.wrapped.is_empty() && self.ops.is_empty() && is_nobody_coming && !self.has_work()
    }

    /// Walks everything and panics when the parts disagree. O(n): tests and simulation only.
    pub fn check(&self) {
        for (conn, wrapped) in &self.wrapped {
            assert!(wrapped.late.len() <= limits::LAYER_LATE_BYTES_MAX, "{conn}");
            let answers_max = limits::LAYER_ANSWERS_BYTES_MAX + limits::PAYLOAD_BYTES_LIMIT;
            assert!(wrapped.answers <= answers_max, "{conn}");
        }
    }
}
