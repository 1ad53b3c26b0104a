//! Connecting: `socket` and `bind` at once, the rest by the ring.
//!
//! With direct descriptors the socket moves into the ring's table before it connects, so that a
//! process can hold more outgoing connections than its file limit.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::opcode;
use rustix::net::SocketFlags;
use slab::Slab;

use crate::base::io::{Completion, Connect, IoFault};
use crate::os::fault::{fault_of_error, fault_of_result};
use crate::os::outgoing;
use crate::os::ring::accept::fault_of_growth;
use crate::os::ring::answer::Immediate;
use crate::os::ring::flight::Socket;
use crate::os::ring::room::Room;
use crate::os::ring::setup::Cqe;
use crate::os::ring::token::{Kind, Token};
use crate::os::ring::{Descriptors, Driver, Target, handle_of};

/// Sockets on their way into the table at once: each holds an ordinary descriptor for that long.
const INSTALLS_MAX: usize = 256;
/// As the kernel has it: choose a free slot.
const ANY_SLOT: i32 = -1;

/// What the kernel reads and writes while it connects.
#[derive(Clone, Copy)]
pub(super) struct Attempted {
    target: [u8; 28],
    /// The descriptor going in, the slot coming out.
    file: i32,
}

/// One attempt to connect.
struct Attempt {
    ticket: u32,
    ring: u16,
    file: u32,
    /// The ordinary descriptor, until the socket is in the table.
    socket: Option<OwnedFd>,
    target_bytes: u32,
    memory: Room<Attempted>,
}

/// All attempts to connect.
#[derive(Default)]
pub(super) struct Connects {
    attempts: Slab<Attempt>,
    installing: usize,
    /// Not begun yet.
    waiting: VecDeque<Connect>,
}

impl Connects {
    /// Adds the files of attempts in each ring to `used_by_ring`.
    pub(super) fn check(&self, used_by_ring: &mut [u32]) {
        let mut installing = 0;
        for (_, attempt) in &self.attempts {
            used_by_ring[usize::from(attempt.ring)] += 1;
            installing += usize::from(attempt.socket.is_some());
        }
        assert_eq!(installing, self.installing);
    }
}

impl Driver {
    pub(super) fn ask_for_connect(&mut self, connect: Connect) {
        self.connects.waiting.push_back(connect);
        self.begin_waiting_connects();
    }

    /// Begins as many attempts as may be under way.
    pub(super) fn begin_waiting_connects(&mut self) {
        while self.connects.installing < INSTALLS_MAX {
            let Some(connect) = self.connects.waiting.pop_front() else { return };
            if let Err(fault) = self.begin_connect(connect) {
                let ticket = connect.ticket;
                self.immediate.push_back(Immediate::ConnectFailed { ticket, fault });
            }
        }
    }

    pub(super) fn on_install(&mut self, token: Token, cqe: Cqe) {
        let key = token.slot() as usize;
        self.connects.installing -= 1;
        let attempt = &mut self.connects.attempts[key];
        attempt.socket = None;
        if cqe.result == 1 {
            attempt.file = attempt.memory.get().file.unsigned_abs();
            self.push_connect(key);
            return;
        }
        let attempt = self.connects.attempts.remove(key);
        self.rings[usize::from(attempt.ring)].files_free += 1;
        let fault =
            if cqe.result < 0 { fault_of_result(cqe.result) } else { IoFault::NoDescriptors };
        self.immediate.push_back(Immediate::ConnectFailed { ticket: attempt.ticket, fault });
    }

    pub(super) fn on_connect(
        &mut self,
        token: Token,
        cqe: Cqe,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let attempt = self.connects.attempts.remove(token.slot() as usize);
        let socket = Socket { ring: attempt.ring, file: attempt.file };
        let ticket = attempt.ticket;
        if cqe.result < 0 {
            self.discard(socket);
            each(Completion::ConnectFailed { ticket, fault: fault_of_result(cqe.result) });
        } else {
            each(Completion::Connected { ticket, socket: handle_of(socket) });
        }
    }

    fn begin_connect(&mut self, connect: Connect) -> Result<(), IoFault> {
        let ring = self
            .ring_with_room()
            .map_err(|error| fault_of_growth(&error))?
            .ok_or(IoFault::NoDescriptors)?;
        let socket = outgoing::open(&connect, SocketFlags::CLOEXEC).map_err(fault_of_error)?;
        let (target, target_bytes) = bytes_of(connect.target);
        let memory = Room::new(Attempted { target, file: socket.as_raw_fd() });
        self.rings[usize::from(ring)].files_free -= 1;
        let attempt =
            Attempt { ticket: connect.ticket, ring, file: 0, socket: None, target_bytes, memory };
        let key = self.connects.attempts.insert(attempt);
        let attempt = &mut self.connects.attempts[key];
        match self.descriptors {
            Descriptors::Ordinary => {
                attempt.file = self.files.keep(socket);
                self.push_connect(key);
            }
            Descriptors::Direct => {
                attempt.socket = Some(socket);
                self.push_install(key);
            }
        }
        Ok(())
    }

    fn push_install(&mut self, key: usize) {
        let attempt = &self.connects.attempts[key];
        let place = attempt.memory.as_ptr();
        let file = place.wrapping_byte_add(std::mem::offset_of!(Attempted, file)).cast();
        let entry = opcode::FilesUpdate::new(file, 1).offset(ANY_SLOT).build();
        let ring = attempt.ring;
        self.connects.installing += 1;
        self.push(ring, entry, Token::new(Kind::Install, 0, slot_of(key)));
    }

    fn push_connect(&mut self, key: usize) {
        let attempt = &self.connects.attempts[key];
        let (ring, file) = (attempt.ring, attempt.file);
        let address = attempt.memory.as_ptr().cast_const();
        let address = address.wrapping_byte_add(std::mem::offset_of!(Attempted, target)).cast();
        let bytes = attempt.target_bytes;
        let entry = match self.target(Socket { ring, file }) {
            Target::Fixed(file) => opcode::Connect::new(file, address, bytes).build(),
            Target::Fd(file) => opcode::Connect::new(file, address, bytes).build(),
        };
        self.push(ring, entry, Token::new(Kind::Connect, 0, slot_of(key)));
    }
}

fn slot_of(key: usize) -> u32 {
    u32::try_from(key).expect("limits keep the connections few enough")
}

/// An address as the kernel reads it.
fn bytes_of(address: SocketAddr) -> ([u8; 28], u32) {
    let mut bytes = [0; 28];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&family_bytes(libc::AF_INET));
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            (bytes, 16)
        }
        SocketAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&family_bytes(libc::AF_INET6));
            bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (bytes, 28)
        }
    }
}

fn family_bytes(family: i32) -> [u8; 2] {
    u16::try_from(family).expect("address families are small").to_ne_bytes()
}
