//! From the kernel's completions to ours.

#![allow(unsafe_code, reason = "descriptors from the kernel are numbers")]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::opcode;

use crate::base::ids::ConnId;
use crate::base::io::{Completion, Found, IoFault, ReceiveEnd, Stay, TcpFacts};
use crate::base::limits::REAP_BATCH_MAX;
use crate::os::driver::{Each, Sink};
use crate::os::facts::tcp_facts;
use crate::os::fault::fault_of_result;
use crate::os::ring::flight::{Audience, Operation};
use crate::os::ring::setup::{Cqe, Sleep};
use crate::os::ring::token::{Kind, Token};
use crate::os::ring::{Drained, Driver, More, RingError, Target};

/// How many completions before its own a connection is brought near: time enough for memory to
/// answer, and little enough to stay in the nearest cache.
pub(super) const AHEAD: usize = 8;
/// Completions between two publications of buffers.
const PUBLISH_EVERY: usize = 256;

/// An answer that needs no kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Immediate {
    AcceptFailed { fault: IoFault },
    ConnectFailed { ticket: u32, fault: IoFault },
    Moved { conn: ConnId },
    Stayed { conn: ConnId, why: Stay },
    Arrived { key: usize },
    ArrivalFailed { fault: IoFault },
}

impl Driver {
    /// Hands over the answers that need no kernel, at most `budget`.
    pub(super) fn answer_immediate(
        &mut self,
        budget: usize,
        each: &mut impl FnMut(Completion<'_>),
    ) -> usize {
        let count = self.immediate.len().min(budget);
        for answer in self.immediate.drain(..count) {
            each(match answer {
                Immediate::AcceptFailed { fault } => Completion::AcceptFailed { fault },
                Immediate::ConnectFailed { ticket, fault } => {
                    Completion::ConnectFailed { ticket, fault }
                }
                Immediate::Moved { conn } => Completion::Moved { conn },
                Immediate::Stayed { conn, why } => Completion::Stayed { conn, why },
                Immediate::ArrivalFailed { fault } => Completion::ArrivalFailed { fault },
                Immediate::Arrived { key } => {
                    self.moves.tell_arrival(key, each);
                    continue;
                }
            });
        }
        count
    }

    /// Drains one ring.
    pub(super) fn drain_ring(
        &mut self,
        index: usize,
        budget: usize,
        each: &mut impl FnMut(Completion<'_>),
    ) -> Result<Drained, RingError> {
        let ring = &mut self.rings[index];
        if index > 0 && !ring.may_have_news() && ring.all_sends_told() {
            return Ok(Drained { completions: 0, more: More::Nothing });
        }
        let budget = budget.min(REAP_BATCH_MAX);
        // A receive can fill several buffers when its turn comes: half of them stay in reserve.
        let want = budget.min(usize::from(ring.buffers_ref().count() / 2)).max(1);
        let looked = ring.ready() == 0 || ring.unsubmitted() > 0;
        if looked {
            let want = u32::try_from(want).expect("limits keep the budget small");
            ring.enter(want, Sleep::No)?;
        }
        let ready = ring.ready();
        let exhausted = looked && ready < want && ring.unsubmitted() == 0;
        let completions = self.reap_ring(index, budget, &mut Each(each));
        let ring = &mut self.rings[index];
        let overflowed = ring.has_overflowed();
        let all_told = ring.all_sends_told();
        let more = if exhausted && !overflowed && all_told { More::Nothing } else { More::Maybe };
        Ok(Drained { completions, more })
    }

    /// Hands over what one ring's queue has, without entering, at most `budget` completions.
    pub(super) fn reap_ring(&mut self, index: usize, budget: usize, sink: &mut impl Sink) -> usize {
        let mut batch = std::mem::take(&mut self.scratch);
        let ring = &mut self.rings[index];
        ring.take_completions(budget, &mut batch);
        self.stats.overflows += u64::from(ring.has_overflowed());
        self.stats.completions += batch.len() as u64;
        // Told first, where none of them failed: so a client has nothing under way when it is
        // heard.
        let mut told = 0;
        if !batch.iter().any(|cqe| Token::from_raw(cqe.user_data).is_of(Kind::QuietSend)) {
            told = self.tell_of_quiet_sends(index, budget - batch.len(), sink);
        }
        let mut ahead = batch.iter().map(|cqe| Token::from_raw(cqe.user_data));
        ahead.by_ref().take(AHEAD).for_each(|token| self.expect(token, sink));
        for (count, cqe) in batch.iter().enumerate() {
            if let Some(token) = ahead.next() {
                self.expect(token, sink);
            }
            self.answer(index, *cqe, &mut |completion| sink.take(completion));
            if count % PUBLISH_EVERY == PUBLISH_EVERY - 1 {
                self.rings[index].buffers_ref().publish();
            }
        }
        self.rings[index].buffers_ref().publish();
        let completions = batch.len();
        batch.clear();
        self.scratch = batch;
        told += self.tell_of_quiet_sends(index, budget - completions - told, sink);
        completions + told
    }

    fn expect(&self, token: Token, sink: &mut impl Sink) {
        if token.is_of(Kind::Receive) {
            self.announce(token.slot(), sink);
        }
    }

    /// Says that a completion of this slot's connection follows, and brings near what we know of
    /// it.
    pub(super) fn announce(&self, slot: u32, sink: &mut impl Sink) {
        self.flight.prefetch(slot);
        sink.expect(slot);
    }

    fn answer(&mut self, ring: usize, cqe: Cqe, each: &mut impl FnMut(Completion<'_>)) {
        let token = Token::from_raw(cqe.user_data);
        let kind = token.kind().expect("the kernel gives back what it was given");
        match kind {
            Kind::Receive => self.on_receive(ring, token, cqe, each),
            Kind::Send => self.on_send(token, cqe, each),
            Kind::QuietSend => self.on_quiet_send_failed(ring, token, cqe, each),
            Kind::Look => self.on_look(token, cqe, each),
            Kind::Inspect => self.on_inspect(token, cqe, each),
            Kind::Accept => self.on_accept(token, cqe, each),
            Kind::Close => self.on_close(token, each),
            Kind::CancelAccept => self.on_cancel_accept(token),
            Kind::CancelReceive => self.on_cancel(token, Operation::Receive),
            Kind::CancelSend => self.on_cancel(token, Operation::Send),
            Kind::Linger => self.stats.options_refused += u64::from(cqe.result < 0),
            Kind::UserTimeout => {
                self.stats.options_refused += u64::from(cqe.result < 0);
                self.options.remove(token.slot() as usize);
            }
            Kind::Discard => self.rings[ring].files_free += 1,
            Kind::Install => self.on_install(token, cqe),
            Kind::Connect => self.on_connect(token, cqe, each),
            Kind::Wake => self.on_bell(Kind::Wake, token, cqe),
            Kind::Bell => self.on_bell(Kind::Bell, token, cqe),
            Kind::Depart => self.on_depart(token, cqe),
            Kind::Left => self.on_left(token),
            Kind::Arrive => self.on_arrive(token, cqe, each),
        }
    }

    fn on_receive(
        &mut self,
        ring: usize,
        token: Token,
        cqe: Cqe,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let (conn, audience) = self.flight.find(token).expect("a receive ends before its socket");
        if let Some(buffer) = cqe.buffer() {
            let length = usize::try_from(cqe.result).unwrap_or(0);
            let buffers = self.rings[ring].buffers();
            if audience == Audience::Open && length > 0 {
                each(Completion::Received { conn, bytes: buffers.bytes(buffer, length) });
                self.stats.received += 1;
            } else if length > 0 {
                self.moves.keep(conn, buffers.bytes(buffer, length));
            }
            buffers.give_back(buffer);
        }
        if cqe.has_more() {
            return;
        }
        let is_pausing = self.flight.is_pausing(conn);
        self.flight.end(conn, Operation::Receive);
        match audience {
            Audience::Closing => {
                self.moves.note_end(conn, cqe.result);
                self.close_when_ready(conn);
            }
            Audience::Open => {
                let end = match is_pausing && cqe.result == -libc::ECANCELED {
                    true => ReceiveEnd::Paused,
                    false => self.end_of_receive(cqe.result),
                };
                each(Completion::ReceiveEnded { conn, end });
            }
        }
    }

    fn end_of_receive(&mut self, result: i32) -> ReceiveEnd {
        match result {
            0 => ReceiveEnd::Eof,
            result if result == -libc::ENOBUFS => {
                self.stats.starved += 1;
                ReceiveEnd::Starved
            }
            result if result > 0 || says_try_again(result) => {
                self.stats.interrupted += 1;
                ReceiveEnd::Interrupted
            }
            result => ReceiveEnd::Fault(fault_of_result(result)),
        }
    }

    fn on_look(&mut self, token: Token, cqe: Cqe, each: &mut impl FnMut(Completion<'_>)) {
        let (conn, audience) = self.flight.find(token).expect("a look ends before its socket");
        let found = match cqe.result {
            0 => Found::Eof,
            result if result > 0 => Found::Bytes,
            result if result == -libc::EAGAIN => Found::Nothing,
            result => Found::Fault(fault_of_result(result)),
        };
        if found != Found::Nothing || audience == Audience::Closing {
            self.end_look(conn, audience, found, None, each);
            return;
        }
        let socket = self.flight.socket(conn);
        match self.target(socket) {
            Target::Fd(file) => {
                // SAFETY: the driver owns this descriptor until the connection is released.
                let socket = unsafe { BorrowedFd::borrow_raw(file.0) };
                self.end_look(conn, audience, found, tcp_facts(socket), each);
            }
            Target::Fixed(file) => {
                let entry = opcode::FixedFdInstall::new(file, 0).build();
                self.push(socket.ring, entry, Token::of(Kind::Inspect, conn));
            }
        }
    }

    /// The connection has an ordinary descriptor for a moment, unless the process has no room.
    fn on_inspect(&mut self, token: Token, cqe: Cqe, each: &mut impl FnMut(Completion<'_>)) {
        let (conn, audience) = self.flight.find(token).expect("a look ends before its socket");
        let tcp = (cqe.result >= 0).then(|| {
            // SAFETY: the kernel made this descriptor for us just now; nobody else knows it.
            let socket = unsafe { OwnedFd::from_raw_fd(cqe.result) };
            tcp_facts(socket.as_fd())
        });
        self.end_look(conn, audience, Found::Nothing, tcp.flatten(), each);
    }

    fn end_look(
        &mut self,
        conn: ConnId,
        audience: Audience,
        found: Found,
        tcp: Option<TcpFacts>,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        self.flight.end(conn, Operation::Look);
        match audience {
            Audience::Open => each(Completion::Looked { conn, found, tcp }),
            Audience::Closing => self.close_when_ready(conn),
        }
    }

    fn on_close(&mut self, token: Token, each: &mut impl FnMut(Completion<'_>)) {
        let (conn, _) = self.flight.find(token).expect("a socket is closed once");
        let socket = self.flight.release(conn);
        self.rings[usize::from(socket.ring)].files_free += 1;
        each(Completion::Closed { conn });
    }

    /// An operation could not be taken back. It ended by itself, and then its completion came
    /// first; or it was between two states, and then it is tried again.
    fn on_cancel(&mut self, token: Token, operation: Operation) {
        let Some((conn, audience)) = self.flight.find(token) else { return };
        let is_to_end = audience == Audience::Closing
            || (operation == Operation::Receive && self.flight.is_pausing(conn));
        if is_to_end && self.flight.is_under_way(conn, operation) {
            self.cancel_again(conn, operation);
        }
    }

    fn cancel_again(&mut self, conn: ConnId, operation: Operation) {
        let cancel = match operation {
            Operation::Receive => Kind::CancelReceive,
            Operation::Send => Kind::CancelSend,
            Operation::Look => return, // never waits
        };
        let ring = self.flight.ring(conn);
        self.cancel(ring, cancel, conn);
    }

    /// A bell rang. The kernel may stop listening for reasons of its own.
    fn on_bell(&mut self, kind: Kind, token: Token, cqe: Cqe) {
        if cqe.has_more() {
            return;
        }
        let which = token.slot();
        let bell = match self.rings[which as usize].bell() {
            Some(bell) if kind == Kind::Bell => std::os::fd::AsRawFd::as_raw_fd(bell),
            Some(_) | None => self.waker.raw(),
        };
        self.listen_to(kind, which, bell);
    }
}

/// Whether an operation ended for reasons that say nothing about its connection.
pub(super) const fn says_try_again(result: i32) -> bool {
    result == -libc::EAGAIN || result == -libc::EINTR
}
