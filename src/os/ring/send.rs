//! Sends, which say nothing when they succeed.
//!
//! A beat's answer fits into the socket's buffer, so the kernel sends it while it takes the entry,
//! and a completion would only say so. `MSG_DONTWAIT` keeps it from waiting for room, and
//! `MSG_WAITALL` makes a send that took only a part of the bytes a failure, which is told. So after
//! the enter that took the entry either its failure is among the completions, or it is done. A send
//! that found no room at all is sent again as one that waits and is told of.

use io_uring::{opcode, squeue};

use crate::base::ids::ConnId;
use crate::base::io::{Chunk, Completion, IoFault};
use crate::os::driver::Sink;
use crate::os::fault::fault_of_result;
use crate::os::ring::answer::{AHEAD, says_try_again};
use crate::os::ring::flight::{Audience, Operation, Told};
use crate::os::ring::setup::{Cqe, QuietSend};
use crate::os::ring::token::{Kind, Token};
use crate::os::ring::{Driver, Target};

impl Driver {
    pub(super) fn begin_send(&mut self, conn: ConnId, chunk: Chunk) {
        assert!(!chunk.is_empty(), "a send without bytes would look like the end of the stream");
        let socket = self.flight.begin(conn, Operation::Send);
        let ring = &mut self.rings[usize::from(socket.ring)];
        let place = ring.queued();
        ring.quiet.push_back(QuietSend { conn, place });
        let bytes = self.flight.keep_chunk(conn, chunk, Told::OfFailure(place));
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        let entry = self.send_entry(conn, bytes, flags).flags(squeue::Flags::SKIP_SUCCESS);
        self.push_patiently(socket.ring, entry, Token::of(Kind::QuietSend, conn));
    }

    /// Tells of the sends of a ring that succeeded, at most `budget`: those whose entries the
    /// kernel has taken, once every completion that it gave was handed over. Returns how many.
    pub(super) fn tell_of_quiet_sends(
        &mut self,
        index: usize,
        budget: usize,
        sink: &mut impl Sink,
    ) -> usize {
        let ring = &mut self.rings[index];
        // A failure may still be in the queue, or behind it.
        if ring.quiet.is_empty() || ring.ready() > 0 || ring.has_overflowed() {
            return 0;
        }
        let taken = ring.taken();
        let mut due = ring.quiet.partition_point(|quiet| quiet.place < taken);
        for ahead in 0..AHEAD.min(due).min(budget) {
            self.announce(self.rings[index].quiet[ahead].conn.slot, sink);
        }
        let mut told = 0;
        while told < budget && due > 0 {
            let quiet = &mut self.rings[index].quiet;
            let QuietSend { conn, place } = quiet.pop_front().expect("so many are there");
            due -= 1;
            if AHEAD <= due && told + AHEAD < budget {
                let later = quiet[AHEAD - 1].conn.slot;
                self.announce(later, sink);
            }
            if let Some((bytes, audience)) = self.flight.find_quiet(conn, Told::OfFailure(place)) {
                self.end_send(conn, audience, Ok(bytes), &mut |completion| sink.take(completion));
                told += 1;
            }
        }
        told
    }

    pub(super) fn on_quiet_send_failed(
        &mut self,
        ring: usize,
        token: Token,
        cqe: Cqe,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let (conn, audience) = self.flight.find(token).expect("a send ends before its socket");
        let result = match usize::try_from(cqe.result) {
            Ok(count_bytes) => Ok(count_bytes),
            Err(_) if !says_try_again(cqe.result) => Err(fault_of_result(cqe.result)),
            Err(_) if audience == Audience::Closing => Err(IoFault::Cancelled),
            Err(_) => {
                let bytes = self.flight.tell_of_send(conn);
                let entry = self.send_entry(conn, bytes, libc::MSG_NOSIGNAL);
                let ring = u16::try_from(ring).expect("limits keep the rings few");
                return self.push_patiently(ring, entry, Token::of(Kind::Send, conn));
            }
        };
        self.end_send(conn, audience, result, each);
    }

    pub(super) fn on_send(
        &mut self,
        token: Token,
        cqe: Cqe,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let (conn, audience) = self.flight.find(token).expect("a send ends before its socket");
        let result = match usize::try_from(cqe.result) {
            Ok(count_bytes) => Ok(count_bytes),
            Err(_) if says_try_again(cqe.result) => Ok(0),
            Err(_) => Err(fault_of_result(cqe.result)),
        };
        self.end_send(conn, audience, result, each);
    }

    fn end_send(
        &mut self,
        conn: ConnId,
        audience: Audience,
        result: Result<usize, IoFault>,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        self.flight.end(conn, Operation::Send);
        let chunk = self.flight.take_chunk(conn);
        each(Completion::Sent { conn, chunk, result });
        if audience == Audience::Closing {
            self.close_when_ready(conn);
        }
    }

    fn send_entry(
        &mut self,
        conn: ConnId,
        (place, length): (*const u8, u32),
        flags: i32,
    ) -> squeue::Entry {
        let socket = self.flight.socket(conn);
        let send = match self.target(socket) {
            Target::Fixed(file) => opcode::Send::new(file, place, length),
            Target::Fd(file) => opcode::Send::new(file, place, length),
        };
        send.flags(flags).build()
    }
}
