//! Moving a connection to the driver of another thread.
//!
//! Operations of a ring are submitted by its own thread only, and each ring has a table of its own.
//! So a socket travels as an ordinary descriptor: its receive is taken back and its end awaited,
//! what it brings until then is kept, the socket gets an ordinary descriptor and leaves the table,
//! and the driver at the other end puts it into whichever of its tables has room. At any moment one
//! thread owns it.

#![allow(unsafe_code, reason = "descriptors from the kernel are numbers")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::opcode;
use slab::Slab;

use crate::base::ids::ConnId;
use crate::base::introduction::Baggage;
use crate::base::io::{CloseHow, Completion, IoFault, Move, Stay};
use crate::base::limits::{MOVE_BYTES_MAX, MOVE_DESCRIPTORS_MAX};
use crate::os::fault::fault_of_result;
use crate::os::parcel::Parcel;
use crate::os::ring::accept::fault_of_growth;
use crate::os::ring::answer::Immediate;
use crate::os::ring::flight::{Operation, Socket};
use crate::os::ring::room::Room;
use crate::os::ring::setup::Cqe;
use crate::os::ring::token::{Kind, Token};
use crate::os::ring::{Descriptors, Driver, Target, handle_of};

/// As the kernel has it: choose a free slot.
const ANY_SLOT: i32 = -1;

/// All connections on their way out or in.
#[derive(Default)]
pub(super) struct Moves {
    /// On their way out, by slot.
    leaving: HashMap<u32, Leaving>,
    /// Those of them that wait for an ordinary descriptor.
    waiting: VecDeque<ConnId>,
    /// Those of them that have left the table, and can be taken.
    ready: VecDeque<ConnId>,
    /// Ordinary descriptors of direct ones, asked for or had.
    descriptors: usize,
    /// On their way in.
    arriving: Slab<Arriving>,
}

struct Leaving {
    to: u16,
    peer: SocketAddr,
    bytes: Vec<u8>,
    /// Why it cannot leave, if it cannot.
    stays: Option<Stay>,
    /// The ordinary descriptor, when it has one.
    socket: Option<OwnedFd>,
}

struct Arriving {
    ring: u16,
    peer: SocketAddr,
    bytes: Vec<u8>,
    baggage: Baggage,
    place: Place,
}

/// How far an arrival has come.
enum Place {
    /// On its way into the table: the kernel reads the descriptor and writes the slot.
    Entering { memory: Room<i32>, _socket: OwnedFd },
    /// Arrived, and not told yet.
    At(Socket),
}

impl Moves {
    /// Whether this connection, of which nothing is under way any more, is to be moved.
    pub(super) fn is_leaving(&self, conn: ConnId) -> bool {
        !self.leaving.is_empty() && self.leaving.contains_key(&conn.slot)
    }

    /// A connection that nobody is told about any more received something.
    pub(super) fn keep(&mut self, conn: ConnId, bytes: &[u8]) {
        if self.leaving.is_empty() {
            return;
        }
        let Some(leaving) = self.leaving.get_mut(&conn.slot) else { return };
        if leaving.bytes.len() + bytes.len() > MOVE_BYTES_MAX {
            leaving.stays.get_or_insert(Stay::TooMuch);
        } else if leaving.stays.is_none() {
            leaving.bytes.extend_from_slice(bytes);
        }
    }

    /// The receive of a connection that nobody is told about any more is over.
    pub(super) fn note_end(&mut self, conn: ConnId, result: i32) {
        if self.leaving.is_empty() {
            return;
        }
        let Some(leaving) = self.leaving.get_mut(&conn.slot) else { return };
        // A socket says once that it broke, and never again.
        let is_broken = !matches!(
            -result,
            i32::MIN..=0 | libc::ECANCELED | libc::ENOBUFS | libc::EAGAIN | libc::EINTR
        );
        if is_broken {
            leaving.stays = Some(Stay::Broken(fault_of_result(result)));
        }
    }

    /// Tells of a connection that arrived without the kernel's help.
    pub(super) fn tell_arrival(&mut self, key: usize, each: &mut impl FnMut(Completion<'_>)) {
        let Arriving { peer, bytes, baggage, place, .. } = self.arriving.remove(key);
        let Place::At(socket) = place else { return };
        each(Completion::Arrived { socket: handle_of(socket), peer, bytes: &bytes, baggage });
    }

    /// Adds the files kept for arrivals in each ring to `used_by_ring`.
    pub(super) fn check(&self, used_by_ring: &mut [u32]) {
        for (_, arriving) in &self.arriving {
            used_by_ring[usize::from(arriving.ring)] += 1;
        }
        assert!(self.descriptors <= MOVE_DESCRIPTORS_MAX);
        assert!(self.waiting.len() + self.ready.len() <= self.leaving.len());
    }
}

impl Driver {
    // --- out -------------------------------------------------------------------------------------

    pub(super) fn begin_move(&mut self, departure: Move) {
        let Move { conn, to, peer, bytes } = departure;
        let socket = self.flight.begin_close(conn, CloseHow::Finish);
        assert!(!self.flight.is_under_way(conn, Operation::Send), "{conn} moves while it sends");
        let leaving = Leaving { to, peer, bytes, stays: None, socket: None };
        self.moves.leaving.insert(conn.slot, leaving);
        if self.flight.is_under_way(conn, Operation::Receive) {
            self.cancel(socket.ring, Kind::CancelReceive, conn);
        }
        self.close_when_ready(conn);
    }

    /// Nothing of a connection that is to be moved is under way any more.
    pub(super) fn depart(&mut self, conn: ConnId, socket: Socket) {
        let Some(leaving) = self.moves.leaving.get_mut(&conn.slot) else { return };
        if leaving.stays.is_some() {
            return self.stay(conn);
        }
        match self.descriptors {
            Descriptors::Ordinary => {
                leaving.socket = Some(self.files.take(socket.file));
                self.moves.ready.push_back(conn);
            }
            Descriptors::Direct => {
                self.moves.waiting.push_back(conn);
                self.begin_departures();
            }
        }
    }

    /// Asks for as many ordinary descriptors as may be in use.
    fn begin_departures(&mut self) {
        while self.moves.descriptors < MOVE_DESCRIPTORS_MAX {
            let Some(conn) = self.moves.waiting.pop_front() else { return };
            self.moves.descriptors += 1;
            let socket = self.flight.socket_of_closing(conn);
            let Target::Fixed(file) = self.target(socket) else { return };
            let entry = opcode::FixedFdInstall::new(file, 0).build();
            self.push(socket.ring, entry, Token::of(Kind::Depart, conn));
        }
    }

    /// The connection has an ordinary descriptor, unless the process has no room for one.
    pub(super) fn on_depart(&mut self, token: Token, cqe: Cqe) {
        let (conn, _) = self.flight.find(token).expect("it leaves when this is answered");
        let leaving = self.moves.leaving.get_mut(&conn.slot).expect("the same");
        if cqe.result < 0 {
            leaving.stays = Some(Stay::NoRoom);
            self.moves.descriptors -= 1;
            self.begin_departures();
            return self.stay(conn);
        }
        // SAFETY: the kernel made this descriptor for us just now; nobody else knows it.
        leaving.socket = Some(unsafe { OwnedFd::from_raw_fd(cqe.result) });
        let socket = self.flight.socket_of_closing(conn);
        self.push_close(socket, Token::of(Kind::Left, conn));
    }

    /// The connection has left the table.
    pub(super) fn on_left(&mut self, token: Token) {
        let (conn, _) = self.flight.find(token).expect("it leaves once");
        self.moves.ready.push_back(conn);
    }

    fn stay(&mut self, conn: ConnId) {
        let leaving = self.moves.leaving.remove(&conn.slot).expect("it was to leave");
        let why = leaving.stays.expect("whoever stays has a reason");
        self.flight.reopen(conn);
        self.immediate.push_back(Immediate::Stayed { conn, why });
    }

    /// A connection that is ready to go to a shard for which `may_go` holds, if there is one. Its
    /// `Moved` is told by the next drain.
    pub fn take_departure(&mut self, may_go: impl Fn(u16) -> bool) -> Option<Parcel> {
        let may_go = |conn: &ConnId| {
            self.moves.leaving.get(&conn.slot).is_some_and(|leaving| may_go(leaving.to))
        };
        let index = self.moves.ready.iter().position(may_go)?;
        let conn = self.moves.ready.remove(index)?;
        let Leaving { to, peer, bytes, socket, .. } = self.moves.leaving.remove(&conn.slot)?;
        if self.descriptors == Descriptors::Direct {
            self.moves.descriptors -= 1;
            self.begin_departures();
        }
        let place = self.flight.release(conn);
        self.rings[usize::from(place.ring)].files_free += 1;
        self.immediate.push_back(Immediate::Moved { conn });
        let socket = socket.expect("whoever is ready has an ordinary descriptor");
        Some(Parcel { to, peer, bytes, from: conn, baggage: Baggage::default(), socket })
    }

    /// Whether connections are ready to go.
    pub fn has_departures(&self) -> bool {
        !self.moves.ready.is_empty()
    }

    // --- in --------------------------------------------------------------------------------------

    /// Takes in a connection of another driver: `Arrived` is told when it is here.
    pub fn arrive(&mut self, parcel: Parcel) {
        let Parcel { peer, bytes, baggage, socket, .. } = parcel;
        let ring = match self.ring_with_room() {
            Ok(Some(ring)) => ring,
            Ok(None) => return self.fail_arrival(IoFault::NoDescriptors),
            Err(error) => return self.fail_arrival(fault_of_growth(&error)),
        };
        self.rings[usize::from(ring)].files_free -= 1;
        match self.descriptors {
            Descriptors::Ordinary => {
                let place = Place::At(Socket { ring, file: self.files.keep(socket) });
                let key =
                    self.moves.arriving.insert(Arriving { ring, peer, bytes, baggage, place });
                self.immediate.push_back(Immediate::Arrived { key });
            }
            Descriptors::Direct => {
                let memory = Room::new(socket.as_raw_fd());
                let address = memory.as_ptr().cast_const();
                let place = Place::Entering { memory, _socket: socket };
                let key =
                    self.moves.arriving.insert(Arriving { ring, peer, bytes, baggage, place });
                let entry = opcode::FilesUpdate::new(address, 1).offset(ANY_SLOT).build();
                let slot = u32::try_from(key).expect("limits keep the arrivals few");
                self.push(ring, entry, Token::new(Kind::Arrive, 0, slot));
            }
        }
    }

    /// How many connections are on their way in, those that were not told included.
    pub fn arriving(&self) -> usize {
        self.moves.arriving.len()
    }

    /// The kernel took the descriptor into the table and wrote its slot in its place, or did not.
    pub(super) fn on_arrive(
        &mut self,
        token: Token,
        cqe: Cqe,
        each: &mut impl FnMut(Completion<'_>),
    ) {
        let arriving = self.moves.arriving.remove(token.slot() as usize);
        let Place::Entering { memory, _socket } = &arriving.place else { return };
        if cqe.result != 1 {
            self.rings[usize::from(arriving.ring)].files_free += 1;
            let is_known = cqe.result < 0;
            let fault = if is_known { fault_of_result(cqe.result) } else { IoFault::NoDescriptors };
            each(Completion::ArrivalFailed { fault });
            return;
        }
        let socket = Socket { ring: arriving.ring, file: memory.get().unsigned_abs() };
        let Arriving { peer, bytes, baggage, .. } = arriving;
        each(Completion::Arrived { socket: handle_of(socket), peer, bytes: &bytes, baggage });
    }

    fn fail_arrival(&mut self, fault: IoFault) {
        self.immediate.push_back(Immediate::ArrivalFailed { fault });
    }
}
