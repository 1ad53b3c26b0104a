//! Accepts: each a single shot with a room of its own for the address.
//!
//! A multishot accept has no address to give, and takes a connection out of the backlog even when
//! there is no file for it. A single shot is asked for when there is one, and only then.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use io_uring::{opcode, types};
use slab::Slab;

use crate::base::io::{Completion, IoFault};
use crate::os::fault::fault_of_result;
use crate::os::ring::answer::Immediate;
use crate::os::ring::flight::Socket;
use crate::os::ring::room::Room;
use crate::os::ring::setup::Cqe;
use crate::os::ring::token::{GENERATION_MASK, Kind, Token};
use crate::os::ring::{Descriptors, Driver, RingError, handle_of};
use crate::os::socket::Listener;

/// Where the kernel writes who connected.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PeerAddress {
    /// `struct sockaddr_in` or `struct sockaddr_in6`, as bytes.
    bytes: [u8; 28],
    length: libc::socklen_t,
}

/// One accept in the kernel.
struct Waiting {
    ring: u16,
    generation: u32,
    peer: Room<PeerAddress>,
}

/// All accepts, in the kernel and asked for.
pub(super) struct Accepts {
    listener: Option<Listener>,
    stage: Stage,
    waiting: Slab<Waiting>,
    /// Asked for, and not in the kernel for want of a free file.
    owed: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Accepting,
    Stopping,
}

impl Accepts {
    pub(super) fn new(listener: Option<Listener>) -> Self {
        let stage = if listener.is_some() { Stage::Accepting } else { Stage::Stopping };
        Self { listener, stage, waiting: Slab::new(), owed: 0, generation: 0 }
    }

    /// How many are in the kernel.
    pub(super) fn armed(&self) -> usize {
        self.waiting.len()
    }

    /// Adds the files kept for accepts of each ring to `used_by_ring`.
    pub(super) fn check(&self, used_by_ring: &mut [u32]) {
        for (_, waiting) in &self.waiting {
            used_by_ring[usize::from(waiting.ring)] += 1;
        }
        if self.stage == Stage::Stopping {
            assert_eq!(self.owed, 0, "nothing is owed after the end");
            assert!(self.listener.is_none() || !self.waiting.is_empty());
        }
    }
}

impl Driver {
    pub(super) fn ask_for_accepts(&mut self, count: u32) {
        match self.accepts.stage {
            Stage::Accepting => {
                self.accepts.owed += count;
                self.arm_accepts();
            }
            Stage::Stopping => self.fail_accepts(count, IoFault::Cancelled),
        }
    }

    pub(super) fn stop_accepting(&mut self) {
        self.accepts.stage = Stage::Stopping;
        let owed = std::mem::take(&mut self.accepts.owed);
        self.fail_accepts(owed, IoFault::Cancelled);
        let waiting: Vec<_> = self
            .accepts
            .waiting
            .iter()
            .map(|(key, waiting)| (key, waiting.ring, waiting.generation))
            .collect();
        for (key, ring, generation) in waiting {
            self.cancel_accept(key, ring, generation);
        }
        self.close_listener_when_unused();
    }

    /// Puts as many accepts into the kernel as are asked for and have a file.
    pub(super) fn arm_accepts(&mut self) {
        while self.accepts.owed > 0 {
            match self.ring_with_room() {
                Ok(Some(ring)) => self.arm_accept(ring),
                Ok(None) => return,
                Err(error) => {
                    let owed = std::mem::take(&mut self.accepts.owed);
                    self.fail_accepts(owed, fault_of_growth(&error));
                }
            }
        }
    }

    pub(super) fn on_accept(
        &mut self,
        token: Token,
        cqe: Cqe,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let key = token.slot() as usize;
        let waiting = self.accepts.waiting.remove(key);
        let ring = waiting.ring;
        self.close_listener_when_unused();
        if cqe.result < 0 {
            self.rings[usize::from(ring)].files_free += 1;
            each(Completion::AcceptFailed { fault: fault_of_result(cqe.result) });
            return;
        }
        self.stats.accepted += 1;
        let socket = Socket { ring, file: cqe.result.unsigned_abs() };
        if self.descriptors == Descriptors::Ordinary {
            self.files.adopt(socket.file);
        }
        let peer = address_of(&waiting.peer.get());
        each(Completion::Accepted { socket: handle_of(socket), peer });
    }

    /// An accept could not be taken back: it was on its way, so it is tried again until it ended.
    pub(super) fn on_cancel_accept(&mut self, token: Token) {
        let key = token.slot() as usize;
        let Some(waiting) = self.accepts.waiting.get(key) else { return };
        if waiting.generation == token.generation() {
            let (ring, generation) = (waiting.ring, waiting.generation);
            self.cancel_accept(key, ring, generation);
        }
    }

    fn arm_accept(&mut self, ring: u16) {
        let Some(listener) = &self.accepts.listener else { return };
        let listener = types::Fd(listener.raw());
        self.accepts.owed -= 1;
        self.rings[usize::from(ring)].files_free -= 1;
        self.accepts.generation = self.accepts.generation.wrapping_add(1);
        let generation = self.accepts.generation & GENERATION_MASK;
        let peer = Room::new(PeerAddress { bytes: [0; 28], length: 28 });
        let place = peer.as_ptr();
        let key = self.accepts.waiting.insert(Waiting { ring, generation, peer });
        let length = place.wrapping_byte_add(std::mem::offset_of!(PeerAddress, length));
        let entry = opcode::Accept::new(listener, place.cast(), length.cast());
        let entry = match self.descriptors {
            Descriptors::Direct => {
                entry.file_index(Some(types::DestinationSlot::auto_target())).build()
            }
            Descriptors::Ordinary => entry.flags(libc::SOCK_CLOEXEC).build(),
        };
        let slot = u32::try_from(key).expect("limits keep the accepts few");
        self.push(ring, entry, Token::new(Kind::Accept, generation, slot));
    }

    fn cancel_accept(&mut self, key: usize, ring: u16, generation: u32) {
        let slot = u32::try_from(key).expect("limits keep the accepts few");
        let what = Token::new(Kind::Accept, generation, slot).raw();
        let entry =
            opcode::AsyncCancel::new(what).build().flags(io_uring::squeue::Flags::SKIP_SUCCESS);
        self.push(ring, entry, Token::new(Kind::CancelAccept, generation, slot));
    }

    fn fail_accepts(&mut self, count: u32, fault: IoFault) {
        for _ in 0..count {
            self.immediate.push_back(Immediate::AcceptFailed { fault });
        }
    }

    fn close_listener_when_unused(&mut self) {
        if self.accepts.stage == Stage::Stopping && self.accepts.waiting.is_empty() {
            self.accepts.listener = None;
        }
    }
}

/// What a ring that cannot be had means to whoever wanted a socket in it.
pub(super) fn fault_of_growth(error: &RingError) -> IoFault {
    match error {
        RingError::SetUp { source }
        | RingError::Files { source, .. }
        | RingError::Buffers { source }
        | RingError::Bell { source }
        | RingError::Enter { source } => {
            fault_of_result(-source.raw_os_error().unwrap_or(libc::ENOMEM))
        }
    }
}

/// Reads what the kernel wrote. An IPv4 peer of an IPv6 listener has its IPv4 address; a peer of no
/// family that we listen on has an unspecified one.
fn address_of(peer: &PeerAddress) -> SocketAddr {
    let [f0, f1, p0, p1, rest @ ..] = peer.bytes;
    let port = u16::from_be_bytes([p0, p1]);
    match i32::from(u16::from_ne_bytes([f0, f1])) {
        libc::AF_INET => {
            let [a, b, c, d, ..] = rest;
            SocketAddr::from(([a, b, c, d], port))
        }
        libc::AF_INET6 => {
            let [flow0, flow1, flow2, flow3, address @ .., s0, s1, s2, s3] = rest;
            let address = Ipv6Addr::from(address);
            if let Some(v4) = address.to_ipv4_mapped() {
                return SocketAddr::from((v4, port));
            }
            let flow = u32::from_be_bytes([flow0, flow1, flow2, flow3]);
            let scope = u32::from_ne_bytes([s0, s1, s2, s3]);
            SocketAddr::V6(SocketAddrV6::new(address, port, flow, scope))
        }
        _ => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let mut peer = PeerAddress { bytes: [0; 28], length: 16 };
        peer.bytes[..2].copy_from_slice(&2_u16.to_ne_bytes());
        peer.bytes[2..8].copy_from_slice(&[0x1f, 0x90, 127, 0, 0, 9]);
        assert_eq!(address_of(&peer), "127.0.0.9:8080".parse().unwrap());
        peer.bytes = [0; 28];
        peer.bytes[..2].copy_from_slice(&10_u16.to_ne_bytes());
        peer.bytes[2..4].copy_from_slice(&[0x1f, 0x90]);
        peer.bytes[23] = 1;
        assert_eq!(address_of(&peer), "[::1]:8080".parse().unwrap());
        peer.bytes[18..24].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(address_of(&peer), "192.0.2.7:8080".parse().unwrap());
    }
}
