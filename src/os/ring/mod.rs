//! Operations to io_uring, completions back: the kernel's side of [`base::io`](crate::base::io).
//!
//! One thread drives one [`Driver`]. A driver has one ring, and further ones where the file limit
//! makes a ring's table smaller than the number of connections; they come into being as they are
//! needed. The thread sleeps in the first ring; the others have a bell that the first listens to.
//!
//! What the kernel makes us do, each point measured and tested in `tests/ring.rs`:
//!
//! - Every enter asks for events; deferred work is run by nothing else, and for at most 20
//!   connections unless more completions are wanted. So [`Driver::drain`] wants many and waits
//!   zero.
//! - A close while a receive is armed closes nothing. So everything under way is cancelled and its
//!   end awaited, and then the socket is closed.
//! - An accept into a full table destroys the connection. So there are never more accepts than free
//!   files.
//! - A receive that is ended by the kernel is told as such, and armed again by whoever asked for
//!   it.
//! - A send that waits for nothing is done when its entry is taken, so it makes no completion.
//! - The flag that says "deferred work waits" can be up with nothing behind it. So it is a reason
//!   to enter once, and never to loop.

mod accept;
mod answer;
mod buffers;
mod connect;
mod files;
mod flight;
mod moves;
mod room;
mod send;
mod setup;
mod token;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};

use io_uring::{opcode, squeue, types};
use slab::Slab;

use crate::base::ids::ConnId;
use crate::base::io::{CloseHow, Completion, Op, SocketHandle};
use crate::base::limits;
use crate::base::time::Span;
use crate::os::driver::Sink;
pub use crate::os::driver::{Drained, DriverStats, Heard, More};
use crate::os::ring::accept::Accepts;
use crate::os::ring::answer::Immediate;
use crate::os::ring::connect::Connects;
use crate::os::ring::files::Files;
use crate::os::ring::flight::{Flight, Operation, Socket};
use crate::os::ring::moves::Moves;
use crate::os::ring::room::Room;
use crate::os::ring::setup::{Bell, Cqe, Ran, Ring, Sleep};
use crate::os::ring::token::{Kind, Token};
use crate::os::socket::Listener;
use crate::os::wake::Waker;

/// Drains at the end of a driver.
const LAST_DRAINS_MAX: usize = 1_000;
/// Completions that end a gathering sleep before its window is over.
const GATHERED_ENOUGH: u32 = 64;
/// Completions wanted of an enter that makes up for earlier ones.
const ENOUGH: u32 = 1_024;

/// What a driver remembers of each connection, in bytes: the books of what is under way.
pub const BOOKS_BYTES: usize = flight::ENTRY_BYTES;

/// Where sockets are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Descriptors {
    /// In the ring's own table: no limit for the process, but one for each ring. Kernel 6.13.
    Direct,
    /// In the process's table, as ever.
    Ordinary,
}

/// How large the parts of a ring are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingSizes {
    /// Entries of the submission queue.
    pub sq_entries: u32,
    /// Entries of the completion queue.
    pub cq_entries: u32,
    /// Receive buffers; a power of two.
    pub buffers: u16,
    /// Bytes of each receive buffer.
    pub buffer_bytes: usize,
    /// Sockets that one ring holds at most.
    pub files_per_ring: u32,
}

impl RingSizes {
    /// Sizes for so many connections where a ring's table may have `files_per_ring` entries.
    pub const fn new(connections_max: u32, files_per_ring: u32) -> Self {
        let one = connections_max <= files_per_ring;
        Self {
            sq_entries: limits::RING_SQ_ENTRIES,
            cq_entries: if one { limits::RING_CQ_ENTRIES } else { limits::RING_CQ_ENTRIES_MANY },
            buffers: if one { limits::RECEIVE_BUFFERS } else { limits::RECEIVE_BUFFERS_MANY },
            buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
            files_per_ring,
        }
    }

    /// Memory of one ring in this process, in bytes, once all of it was used: queues and buffers.
    pub const fn ring_bytes(&self) -> usize {
        let (sqe_bytes, cqe_bytes, buffer_entry_bytes) = (64, 16, 16);
        self.sq_entries as usize * sqe_bytes
            + self.cq_entries as usize * cqe_bytes
            + self.buffers as usize * (self.buffer_bytes + buffer_entry_bytes)
    }
}

/// What a driver is made of.
#[derive(Debug)]
pub struct DriverConfig {
    /// Sockets held at most, those kept for refusals included.
    pub connections_max: u32,
    /// Where sockets are kept.
    pub descriptors: Descriptors,
    /// Where connections come from; `None`: nowhere.
    pub listener: Option<Listener>,
    /// How large the rings are.
    pub sizes: RingSizes,
}

/// Why a ring cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `io_uring_setup` failed.
    #[error("cannot set up io_uring: {source}")]
    SetUp {
        /// What the kernel says.
        source: io::Error,
    },
    /// The table of files was refused.
    #[error("cannot register a table of {files} files with io_uring: {source}")]
    Files {
        /// How many were asked for.
        files: u32,
        /// What the kernel says.
        source: io::Error,
    },
    /// The receive buffers were refused.
    #[error("cannot register receive buffers with io_uring: {source}")]
    Buffers {
        /// What the kernel says.
        source: io::Error,
    },
    /// The bell was refused.
    #[error("cannot make an eventfd for io_uring: {source}")]
    Bell {
        /// What the kernel says.
        source: io::Error,
    },
    /// `io_uring_enter` failed.
    #[error("cannot enter io_uring: {source}")]
    Enter {
        /// What the kernel says.
        source: io::Error,
    },
}

/// Drives io_uring. Belongs to the thread that made it.
pub struct Driver {
    // The rings are closed before anything that the kernel may read or write is freed: fields are
    // dropped in this order.
    rings: Vec<Ring>,
    files: Files,
    flight: Flight,
    accepts: Accepts,
    connects: Connects,
    moves: Moves,
    options: Slab<Room<u32>>,
    linger: Room<libc::linger>,
    peeked: Room<u8>,
    immediate: VecDeque<Immediate>,
    scratch: Vec<Cqe>,
    waker: Waker,
    sizes: RingSizes,
    descriptors: Descriptors,
    connections_max: u32,
    first: usize,
    /// Whether something was asked whose answer is not to wait for a gathering sleep.
    is_urgent: bool,
    /// Whether the latest enter left work behind.
    is_behind: bool,
    stats: DriverStats,
}

impl Driver {
    /// Makes the first ring.
    pub fn new(config: DriverConfig) -> Result<Self, RingError> {
        let DriverConfig { connections_max, descriptors, listener, sizes } = config;
        assert!(connections_max > 0);
        assert!(sizes.files_per_ring > 0);
        let files = connections_max.min(sizes.files_per_ring);
        let ring = Ring::new(&sizes, descriptors, files, Bell::None)?;
        let waker = Waker::new().map_err(|source| RingError::Bell { source })?;
        let mut driver = Self {
            rings: vec![ring],
            files: Files::default(),
            flight: Flight::default(),
            accepts: Accepts::new(listener),
            connects: Connects::default(),
            moves: Moves::default(),
            options: Slab::new(),
            linger: Room::new(libc::linger { l_onoff: 1, l_linger: 0 }),
            peeked: Room::new(0),
            immediate: VecDeque::new(),
            scratch: Vec::new(),
            waker,
            sizes,
            descriptors,
            connections_max,
            first: 0,
            is_urgent: false,
            is_behind: false,
            stats: DriverStats::default(),
        };
        driver.listen_to(Kind::Wake, 0, driver.waker.raw());
        Ok(driver)
    }

    /// Takes all of `ops`. Nothing is asked of the kernel before the next wait or drain.
    ///
    /// # Panics
    /// When an operation breaks the contract of [`base::io`](crate::base::io).
    pub fn submit(&mut self, ops: &mut Vec<Op>) {
        for op in ops.drain(..) {
            self.begin(op);
        }
    }

    /// Submits, and sleeps until there is a completion, a wake, or `longest` is over; until a send
    /// is done, too. To be followed by [`drain`](Self::drain).
    pub fn wait(&mut self, longest: Option<Span>) -> Result<(), RingError> {
        if !self.immediate.is_empty() || self.rings[0].ready() > 0 {
            return Ok(());
        }
        // Their success makes no completion, so it would end no sleep.
        let is_sending = self.rings.iter().any(|ring| !ring.quiet.is_empty());
        self.enter_rings(if is_sending { Some(Span::ZERO) } else { longest })?;
        Ok(())
    }

    /// Submits, and sleeps until there is a completion, a wake, or `longest` is over: one enter,
    /// and one more for each further ring with news. To be followed by
    /// [`reap_into`](Self::reap_into).
    ///
    /// A send that is done ends no sleep. It is told of at the next occasion, and whoever waits for
    /// that must not ask for a sleep.
    pub fn enter(&mut self, longest: Span) -> Result<Heard, RingError> {
        let has_news =
            !self.immediate.is_empty() || self.rings.iter_mut().any(|ring| ring.ready() > 0);
        self.enter_rings(Some(if has_news { Span::ZERO } else { longest }))
    }

    /// Hands over what is there without entering, at most `budget` completions, and says how many.
    /// Fewer than `budget`: all that there was.
    ///
    /// All of them were there before the latest [`enter`](Self::enter) returned. Of those that can
    /// be seen coming the sink hears before.
    pub fn reap_into(&mut self, budget: usize, sink: &mut impl Sink) -> usize {
        assert!(budget > 0, "no budget is no progress");
        let mut completions =
            self.answer_immediate(budget, &mut |completion| sink.take(completion));
        let rings = self.rings.len();
        for step in 0..rings {
            let ring = (self.first + step) % rings;
            if completions >= budget {
                self.first = ring; // whoever came too late this time is first next time
                break;
            }
            completions += self.reap_ring(ring, budget - completions, sink);
        }
        self.arm_accepts();
        self.begin_waiting_connects();
        completions
    }

    /// Lets a sleep that something ends last for `window` all the same, so that one turn serves
    /// what comes in that time: fewer turns, and later answers by up to `window`. Zero, as at
    /// first: wake at once. A sleep does not grow longer by it, and where anything but sending and
    /// receiving is asked for, that is not made to wait.
    ///
    /// Kernels before 6.12 wake once in every window, also where nothing comes.
    pub fn gather(&mut self, window: Span) {
        self.rings[0].gather(window);
    }

    /// Pieces of bytes received since the driver was made.
    pub const fn received(&self) -> u64 {
        self.stats.received
    }

    /// Enters without sleeping, and hands over what is there, at most `budget` completions.
    ///
    /// A caller that lets time advance reads the clock first, and then drains until there is
    /// nothing more: so it has seen all that arrived before that moment.
    pub fn drain(
        &mut self,
        budget: usize,
        mut each: impl FnMut(Completion<'_>),
    ) -> Result<Drained, RingError> {
        assert!(budget > 0, "no budget is no progress");
        let mut completions = self.answer_immediate(budget, &mut each);
        let mut more = More::Nothing;
        let rings = self.rings.len();
        for step in 0..rings {
            let ring = (self.first + step) % rings;
            if completions >= budget {
                self.first = ring; // whoever came too late this time is first next time
                more = More::Maybe;
                break;
            }
            let drained = self.drain_ring(ring, budget - completions, &mut each)?;
            completions += drained.completions;
            if drained.more == More::Maybe {
                more = More::Maybe;
            }
        }
        self.arm_accepts();
        self.begin_waiting_connects();
        if !self.immediate.is_empty() {
            more = More::Maybe;
        }
        Ok(Drained { completions, more })
    }

    /// What wakes this driver from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Numbers about this driver. A system call for each ring.
    pub fn stats(&self) -> DriverStats {
        let with_kernel: Option<Vec<u16>> =
            self.rings.iter().map(Ring::buffers_with_kernel).collect();
        DriverStats {
            enters: self.rings.iter().map(|ring| ring.enters).sum(),
            rings: self.rings.len(),
            sockets: self
                .rings
                .iter()
                .map(|ring| u64::from(ring.files_max - ring.files_free))
                .sum(),
            in_flight: self.flight.under_way(),
            accepts_waiting: self.accepts.armed(),
            gathers: self.rings[0].gathers(),
            gathers_without_waking: self.rings[0].can_sleep_on,
            buffers: self.rings.iter().map(|ring| usize::from(ring.buffers_ref().count())).sum(),
            buffers_with_kernel: with_kernel
                .map(|counts| counts.into_iter().map(usize::from).sum()),
            ..self.stats
        }
    }

    /// How many connections are held, from `Adopt` to `Closed`.
    pub fn connections(&self) -> usize {
        self.flight.held()
    }

    /// Walks everything and panics when the books disagree. O(n): tests only.
    pub fn check(&self) {
        let mut used = vec![0_u32; self.rings.len()];
        self.flight.check(&mut used);
        self.accepts.check(&mut used);
        self.connects.check(&mut used);
        self.moves.check(&mut used);
        for (ring, used) in self.rings.iter().zip(used) {
            assert!(ring.files_free <= ring.files_max);
            // The rest are sockets handed over and not yet adopted, or being discarded.
            assert!(used <= ring.files_max - ring.files_free);
        }
    }

    fn begin(&mut self, op: Op) {
        match op {
            Op::Accept { count } => self.ask_for_accepts(count),
            Op::StopAccepting => self.stop_accepting(),
            Op::Connect(connect) => self.ask_for_connect(*connect),
            Op::Adopt { socket, conn } => self.flight.adopt(conn, socket_of(socket)),
            Op::Discard { socket } => self.discard(socket_of(socket)),
            Op::Receive { conn } => self.begin_receive(conn),
            Op::Pause { conn } => self.begin_pause(conn),
            Op::Send { conn, chunk } => self.begin_send(conn, chunk),
            Op::Look { conn } => self.begin_look(conn),
            Op::SetUserTimeout { conn, timeout } => self.set_user_timeout(conn, timeout),
            Op::Move(departure) => self.begin_move(*departure),
            Op::Close { conn, how } => self.begin_close(conn, how),
        }
    }

    fn begin_receive(&mut self, conn: ConnId) {
        let socket = self.flight.begin(conn, Operation::Receive);
        let entry = match self.target(socket) {
            Target::Fixed(file) => opcode::RecvMulti::new(file, buffers::GROUP).build(),
            Target::Fd(file) => opcode::RecvMulti::new(file, buffers::GROUP).build(),
        };
        self.stats.receives_armed += 1;
        self.push_patiently(socket.ring, entry, Token::of(Kind::Receive, conn));
    }

    fn begin_pause(&mut self, conn: ConnId) {
        let socket = self.flight.socket(conn);
        if self.flight.begin_pause(conn) {
            self.cancel(socket.ring, Kind::CancelReceive, conn);
        }
    }

    fn begin_look(&mut self, conn: ConnId) {
        let socket = self.flight.begin(conn, Operation::Look);
        let place = self.peeked.as_ptr();
        let entry = match self.target(socket) {
            Target::Fixed(file) => opcode::Recv::new(file, place, 1),
            Target::Fd(file) => opcode::Recv::new(file, place, 1),
        };
        let entry = entry.flags(libc::MSG_PEEK | libc::MSG_DONTWAIT).build();
        self.push(socket.ring, entry, Token::of(Kind::Look, conn));
    }

    fn set_user_timeout(&mut self, conn: ConnId, timeout: Span) {
        let socket = self.flight.socket(conn);
        let millis = timeout.as_millis_u32();
        match self.target(socket) {
            Target::Fd(file) => {
                let set = crate::os::socket::raw::set_tcp_user_timeout(file.0, millis);
                self.stats.options_refused += u64::from(set.is_err());
            }
            Target::Fixed(file) => {
                let room = self.options.vacant_entry();
                let key = u32::try_from(room.key()).expect("fewer options than connections");
                let place = room.insert(Room::new(millis)).as_ptr().cast_const().cast();
                let (level, name) =
                    (libc::IPPROTO_TCP.unsigned_abs(), libc::TCP_USER_TIMEOUT.unsigned_abs());
                let entry = opcode::SetSockOpt::new(file, level, name, place, 4).build();
                self.push(socket.ring, entry, Token::new(Kind::UserTimeout, 0, key));
            }
        }
    }

    fn begin_close(&mut self, conn: ConnId, how: CloseHow) {
        let socket = self.flight.begin_close(conn, how);
        for (operation, cancel) in
            [(Operation::Receive, Kind::CancelReceive), (Operation::Send, Kind::CancelSend)]
        {
            let ends_by_itself =
                operation == Operation::Send && self.flight.is_sending_quietly(conn);
            if self.flight.is_under_way(conn, operation) && !ends_by_itself {
                self.cancel(socket.ring, cancel, conn);
            }
        }
        self.close_when_ready(conn);
    }

    /// Takes an operation of a connection back.
    fn cancel(&mut self, ring: u16, cancel: Kind, conn: ConnId) {
        let what = if cancel == Kind::CancelReceive { Kind::Receive } else { Kind::Send };
        let entry = opcode::AsyncCancel::new(Token::of(what, conn).raw())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push(ring, entry, Token::of(cancel, conn));
    }

    /// Closes the socket once nothing of its connection is under way, or lets it leave.
    fn close_when_ready(&mut self, conn: ConnId) {
        let Some((socket, how)) = self.flight.take_ready_to_close(conn) else { return };
        if self.moves.is_leaving(conn) {
            return self.depart(conn, socket);
        }
        match how {
            CloseHow::Finish => {}
            CloseHow::Abort => self.make_close_a_reset(socket, conn),
        }
        self.push_close(socket, Token::of(Kind::Close, conn));
    }

    fn make_close_a_reset(&mut self, socket: Socket, conn: ConnId) {
        match self.target(socket) {
            Target::Fd(file) => {
                let set = crate::os::socket::raw::set_linger_reset(file.0);
                self.stats.options_refused += u64::from(set.is_err());
            }
            Target::Fixed(file) => {
                let (level, name) =
                    (libc::SOL_SOCKET.unsigned_abs(), libc::SO_LINGER.unsigned_abs());
                let place = self.linger.as_ptr().cast_const().cast();
                let bytes = u32::try_from(size_of::<libc::linger>()).expect("eight");
                // Done at once when it is submitted, and so before the close behind it.
                let entry = opcode::SetSockOpt::new(file, level, name, place, bytes)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS);
                self.push(socket.ring, entry, Token::of(Kind::Linger, conn));
            }
        }
    }

    fn discard(&mut self, socket: Socket) {
        self.push_close(socket, Token::new(Kind::Discard, 0, socket.file));
    }

    fn push_close(&mut self, socket: Socket, token: Token) {
        let entry = match self.target(socket) {
            Target::Fixed(file) => opcode::Close::new(file).build(),
            Target::Fd(file) => {
                self.files.let_go(socket.file);
                opcode::Close::new(file).build()
            }
        };
        self.push(socket.ring, entry, token);
    }

    /// Lets the first ring hear a bell.
    fn listen_to(&mut self, kind: Kind, which: u32, bell: i32) {
        let events = libc::POLLIN.unsigned_abs().into();
        let entry = opcode::PollAdd::new(types::Fd(bell), events).multi(true).build();
        self.push(0, entry, Token::new(kind, 0, which));
    }

    fn target(&self, socket: Socket) -> Target {
        match self.descriptors {
            Descriptors::Direct => Target::Fixed(types::Fixed(socket.file)),
            Descriptors::Ordinary => Target::Fd(types::Fd(socket.file.cast_signed())),
        }
    }

    fn push(&mut self, ring: u16, entry: squeue::Entry, token: Token) {
        self.is_urgent = true;
        self.push_patiently(ring, entry, token);
    }

    /// The same for an operation whose answer may wait for a gathering sleep.
    fn push_patiently(&mut self, ring: u16, entry: squeue::Entry, token: Token) {
        self.rings[usize::from(ring)].push(entry.user_data(token.raw()));
    }

    /// Enters the first ring, and every other one that has something to do.
    fn enter_rings(&mut self, longest: Option<Span>) -> Result<Heard, RingError> {
        let mut longest = longest;
        if self.rings.len() > 1 && self.settle_further_rings()? == Settled::News {
            longest = Some(Span::ZERO);
        }
        let first = &mut self.rings[0];
        let enough = u32::from(first.buffers_ref().count() / 2).max(1);
        let want = if longest == Some(Span::ZERO) {
            if self.is_behind { ENOUGH.min(enough) } else { 0 }
        } else if first.gathers() && !self.is_urgent {
            longest = first.gathering(longest);
            GATHERED_ENOUGH.min(enough)
        } else {
            1
        };
        let sleep = match longest {
            None => Sleep::Forever,
            Some(Span::ZERO) => Sleep::No,
            Some(longest) => Sleep::AtMost(longest),
        };
        first.enter(want, sleep)?;
        let mut heard = match first.latest() {
            Ran::Part => Heard::Part,
            Ran::All => Heard::All { after: Span::ZERO },
            Ran::AllToTheEnd => Heard::All { after: longest.unwrap_or_default() },
        };
        for ring in &mut self.rings[1..] {
            ring.silence_bell();
            if ring.has_work() {
                ring.enter(if self.is_behind { ENOUGH.min(enough) } else { 0 }, Sleep::No)?;
                if ring.latest() == Ran::Part {
                    heard = Heard::Part;
                }
            }
        }
        self.is_urgent = false;
        self.is_behind = heard == Heard::Part;
        Ok(heard)
    }

    /// Submits what the further rings have, and lets them ring from now on.
    fn settle_further_rings(&mut self) -> Result<Settled, RingError> {
        for ring in &mut self.rings[1..] {
            ring.ring_bell();
        }
        // What came before the bell could ring is seen below; what comes later rings.
        fence(Ordering::SeqCst);
        let mut settled = Settled::Quiet;
        for ring in &mut self.rings[1..] {
            if ring.may_have_news() && ring.ready() == 0 {
                ring.enter(0, Sleep::No)?;
            }
            if ring.ready() > 0 || ring.unsubmitted() > 0 {
                settled = Settled::News;
            }
        }
        Ok(settled)
    }

    /// A ring with a free file; a further one is made when all are full and one is allowed.
    fn ring_with_room(&mut self) -> Result<Option<u16>, RingError> {
        let found = self.rings.iter().position(|ring| ring.files_free > 0);
        let ring = match found {
            Some(ring) => ring,
            None => {
                let held: u32 = self.rings.iter().map(|ring| ring.files_max).sum();
                let files = (self.connections_max - held).min(self.sizes.files_per_ring);
                if files == 0 || self.rings.len() == limits::RINGS_MAX {
                    return Ok(None);
                }
                self.add_ring(files)?
            }
        };
        Ok(Some(u16::try_from(ring).expect("limits keep the rings few")))
    }

    fn add_ring(&mut self, files: u32) -> Result<usize, RingError> {
        let mut ring = Ring::new(&self.sizes, self.descriptors, files, Bell::Fitted)?;
        ring.silence_bell();
        let bell = ring.bell().map(AsRawFd::as_raw_fd).expect("it was just fitted");
        let index = self.rings.len();
        self.rings.push(ring);
        let which = u32::try_from(index).expect("limits keep the rings few");
        self.listen_to(Kind::Bell, which, bell);
        Ok(index)
    }
}

impl Drop for Driver {
    /// Submits what was asked for and takes what was given: descriptors are in both. Bounded, for
    /// peers may keep it busy; then the kernel ends what is left together with the ring.
    fn drop(&mut self) {
        self.stop_accepting();
        for _ in 0..LAST_DRAINS_MAX {
            let Ok(drained) = self.drain(limits::REAP_BATCH_MAX, |_| {}) else { return };
            let unsubmitted = self.rings.iter_mut().any(|ring| ring.unsubmitted() > 0);
            if drained.more == More::Nothing && !unsubmitted {
                return;
            }
        }
    }
}

/// A socket as an operation names it.
enum Target {
    Fixed(types::Fixed),
    Fd(types::Fd),
}

/// What was found in the further rings before going to sleep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Settled {
    Quiet,
    News,
}

/// The number that stands for a socket outside: the ring above, the file below.
fn handle_of(socket: Socket) -> SocketHandle {
    SocketHandle(u64::from(socket.ring) << 32 | u64::from(socket.file))
}

fn socket_of(handle: SocketHandle) -> Socket {
    let [.., r1, r0, f3, f2, f1, f0] = handle.0.to_be_bytes();
    Socket { ring: u16::from_be_bytes([r1, r0]), file: u32::from_be_bytes([f3, f2, f1, f0]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_wakes_in_every_window_and_no_later() {
        let sizes = RingSizes::new(16, 16);
        let descriptors = Descriptors::Ordinary;
        let config = DriverConfig { connections_max: 16, descriptors, listener: None, sizes };
        let mut driver = Driver::new(config).expect("io_uring");
        driver.enter(Span::ZERO).expect("io_uring");
        let (window, sleep) = (Span::from_millis(20), Span::from_secs(60));
        driver.gather(window);
        driver.rings[0].can_sleep_on = false;
        assert_eq!(driver.enter(sleep).expect("io_uring"), Heard::All { after: window });
        let brief = Span::from_millis(1);
        assert_eq!(driver.enter(brief).expect("io_uring"), Heard::All { after: brief });
    }
}
