//! Operations to ordinary system calls, completions back: the kernel's side of
//! [`base::io`](crate::base::io) where io_uring is forbidden.
//!
//! One thread drives one [`Driver`]. It has one epoll instance and one buffer for all that is
//! received: nothing is set aside for a connection but its entry in two tables.
//!
//! Each socket is added once, edge-triggered, for everything that can happen to it. So the news of
//! a socket is told once, and who has some stands in a queue of ours until nothing is left to read:
//!
//! - A beat costs a `recv`, and no `epoll_ctl`, whoever receives or stops to.
//! - Turns are ours to give: each connection in the queue is read once in a drain, by one buffer at
//!   most, and then stands behind all others. A flood delays nobody by more than that.
//! - "Nothing more" means that the kernel had no news when it was asked in this very drain, and
//!   that the queue is empty: whatever had arrived before was handed over. Level-triggered, a
//!   connection that floods would be news for ever, and a listener that nobody accepts from too.
//!
//! What an edge asks of us, each point tested in `tests/ring.rs`:
//!
//! - A short read is the end of what there was, unless an end or an error came with it, for which
//!   there is no further news. Then it is read until nothing comes.
//! - News that came before a receive was asked for is gone; so a receive begins with reading.
//! - A send is tried at once, and waits for news only when there was no room at all.

mod answer;
mod due;
mod moves;
mod poll;
mod sockets;
mod table;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};

use crate::base::ids::ConnId;
use crate::base::io::{Chunk, CloseHow, Connect, IoFault, Op, SocketHandle};
use crate::base::limits::RECEIVE_BYTES_AT_ONCE;
use crate::base::time::Span;
use crate::os::driver::{DriverKind, DriverStats, Heard};
use crate::os::epoll::due::{Due, Dues};
use crate::os::epoll::moves::Moves;
use crate::os::epoll::poll::{Poll, Waited};
use crate::os::epoll::sockets::{Owner, Sockets};
use crate::os::epoll::table::{Operation, Table, Until};
use crate::os::fault::fault_of_error;
use crate::os::outgoing;
use crate::os::socket::{Listener, raw};
use crate::os::wake::Waker;

/// The listener's token; no serial number goes with it.
const LISTENER: u64 = u64::MAX;
/// The waker's token.
const WAKER: u64 = u64::MAX - 1;

/// What a driver is made of.
#[derive(Debug)]
pub struct DriverConfig {
    /// Sockets held at most, those kept for refusals included.
    pub connections_max: u32,
    /// Where connections come from; `None`: nowhere.
    pub listener: Option<Listener>,
}

/// Why epoll cannot be had or used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub struct EpollError {
    /// What failed.
    step: &'static str,
    /// What the kernel says.
    source: io::Error,
}

impl EpollError {
    fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { step, source: source.into() }
    }
}

/// Drives epoll. Belongs to one thread at a time.
pub struct Driver {
    poll: Poll,
    sockets: Sockets,
    table: Table,
    accepts: Accepts,
    /// Answers that need no further news.
    due: Dues,
    moves: Moves,
    /// Connections that wait for their turn to be read, each once.
    ready: VecDeque<ConnId>,
    buffer: Vec<u8>,
    waker: Waker,
    connections_max: u32,
    /// How long a sleep that something ends lasts all the same.
    window: Span,
    stats: DriverStats,
}

/// Where connections come from.
struct Accepts {
    listener: Option<Listener>,
    /// Asked for, and not answered.
    owed: u32,
    /// Whether somebody may wait to be accepted.
    backlog: Backlog,
}

/// What is known of those who wait to be accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Backlog {
    Empty,
    Unknown,
}

/// What came of trying to send.
enum Tried {
    Over(Result<usize, IoFault>),
    NoRoom,
}

impl Driver {
    /// Makes the epoll instance.
    pub fn new(config: DriverConfig) -> Result<Self, EpollError> {
        let DriverConfig { connections_max, listener } = config;
        assert!(connections_max > 0);
        let poll = Poll::new().map_err(EpollError::at("set up epoll"))?;
        let waker = Waker::new().map_err(EpollError::at("make an eventfd for epoll"))?;
        let listening = EpollError::at("listen by epoll");
        poll.add(waker.bell(), WAKER).map_err(EpollError::at("listen to an eventfd by epoll"))?;
        if let Some(listener) = &listener {
            rustix::io::ioctl_fionbio(listener.socket(), true)
                .and_then(|()| poll.add(listener.socket(), LISTENER))
                .map_err(listening)?;
        }
        Ok(Self {
            poll,
            sockets: Sockets::default(),
            table: Table::default(),
            accepts: Accepts { listener, owed: 0, backlog: Backlog::Unknown },
            due: Dues::default(),
            moves: Moves::default(),
            ready: VecDeque::new(),
            buffer: vec![0; RECEIVE_BYTES_AT_ONCE],
            waker,
            connections_max,
            window: Span::ZERO,
            stats: DriverStats { kind: DriverKind::Epoll, ..DriverStats::default() },
        })
    }

    /// Takes all of `ops`, and does what can be done at once; the answers come with a drain.
    ///
    /// # Panics
    /// When an operation breaks the contract of [`base::io`](crate::base::io).
    pub fn submit(&mut self, ops: &mut Vec<Op>) {
        for op in ops.drain(..) {
            self.begin(op);
        }
    }

    /// Sleeps until there is news, a wake, or `longest` is over; until a send is done, too. To be
    /// followed by [`drain`](Self::drain).
    pub fn wait(&mut self, longest: Option<Span>) -> Result<(), EpollError> {
        if self.has_work() {
            return Ok(());
        }
        self.sleep(longest)?;
        Ok(())
    }

    /// Sleeps until there is news, a wake, or `longest` is over, and takes all news there is. To be
    /// followed by [`reap`](Self::reap).
    ///
    /// A send that is done ends no sleep. It is told of at the next occasion, and whoever waits for
    /// that must not ask for a sleep.
    pub fn enter(&mut self, longest: Span) -> Result<Heard, EpollError> {
        let is_idle = self.poll.is_empty() && !self.has_urgent_work();
        let longest = if is_idle { longest } else { Span::ZERO };
        self.take_news(usize::MAX);
        let heard = self.sleep(Some(longest))?;
        self.take_news(usize::MAX);
        Ok(heard)
    }

    /// Lets a sleep that something ends last for `window` all the same, counted from its beginning,
    /// so that one turn serves what comes in that time: fewer turns, and later answers by up to
    /// `window`. Zero, as at first: wake at once. A sleep does not grow longer by it, where nothing
    /// comes it goes on, and what is neither sending nor receiving is not made to wait.
    pub fn gather(&mut self, window: Span) {
        self.window = window;
    }

    /// Pieces of bytes received since the driver was made.
    pub const fn received(&self) -> u64 {
        self.stats.received
    }

    /// What wakes this driver from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Numbers about this driver. Costs nothing.
    pub fn stats(&self) -> DriverStats {
        DriverStats {
            sockets: self.sockets.count().into(),
            in_flight: self.table.under_way(),
            accepts_waiting: self.accepts.owed.min(self.room()) as usize,
            gathers: self.window > Span::ZERO,
            gathers_without_waking: true,
            buffers: 1,
            ..self.stats
        }
    }

    /// How many connections are held, from `Adopt` to `Closed`.
    pub fn connections(&self) -> usize {
        self.table.held()
    }

    /// Walks everything and panics when the books disagree. O(n): tests only.
    pub fn check(&self) {
        assert_eq!(self.sockets.check(), self.table.check(), "a socket for each connection");
        assert!(self.sockets.count() <= self.connections_max);
        if self.accepts.listener.is_none() {
            assert_eq!(self.accepts.owed, 0, "nothing is owed after the end");
        }
    }

    fn begin(&mut self, op: Op) {
        match op {
            Op::Accept { count } => self.ask_for_accepts(count),
            Op::StopAccepting => self.stop_accepting(),
            Op::Connect(connect) => self.begin_connect(&connect),
            Op::Adopt { socket, conn } => {
                self.sockets.give(socket, Owner::Connection(conn.slot));
                self.table.adopt(conn, socket);
            }
            Op::Discard { socket } => self.sockets.close(socket),
            Op::Receive { conn } => self.begin_receive(conn),
            Op::Pause { conn } => {
                if self.table.begin_pause(conn) {
                    self.due.push(Due::Paused { conn });
                }
            }
            Op::Send { conn, chunk } => self.begin_send(conn, chunk),
            Op::Look { conn } => {
                self.table.begin(conn, Operation::Look);
                self.due.push(Due::Look { conn });
            }
            Op::SetUserTimeout { conn, timeout } => {
                let file = self.sockets.file(self.table.socket(conn));
                let set = raw::set_tcp_user_timeout(file.as_raw_fd(), timeout.as_millis_u32());
                self.stats.options_refused += u64::from(set.is_err());
            }
            Op::Move(departure) => self.begin_move(*departure),
            Op::Close { conn, how } => self.begin_close(conn, how),
        }
    }

    fn ask_for_accepts(&mut self, count: u32) {
        if self.accepts.listener.is_some() {
            self.accepts.owed += count;
        } else {
            self.fail_accepts(count);
        }
    }

    fn stop_accepting(&mut self) {
        self.accepts.listener = None;
        let owed = std::mem::take(&mut self.accepts.owed);
        self.fail_accepts(owed);
    }

    fn fail_accepts(&mut self, count: u32) {
        let fault = IoFault::Cancelled;
        (0..count).for_each(|_| self.due.push(Due::AcceptFailed { fault }));
    }

    fn begin_connect(&mut self, connect: &Connect) {
        let ticket = connect.ticket;
        if let Err(fault) = self.try_connect(connect) {
            self.due.push(Due::ConnectFailed { ticket, fault });
        }
    }

    fn try_connect(&mut self, connect: &Connect) -> Result<(), IoFault> {
        if self.room() == 0 {
            return Err(IoFault::NoDescriptors);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let file = outgoing::open(connect, flags).map_err(fault_of_error)?;
        let ticket = connect.ticket;
        let connected = rustix::net::connect(&file, &connect.target);
        let owner = match connected {
            Ok(()) => Owner::Nobody,
            Err(Errno::INPROGRESS | Errno::INTR) => Owner::Attempt(ticket),
            Err(errno) => return Err(fault_of_error(errno)),
        };
        // Added only now: a socket that has not begun to connect looks like one that has ended.
        let socket = self.sockets.keep(file, owner);
        if let Err(errno) = self.poll.add(self.sockets.file(socket), socket.0) {
            self.sockets.close(socket);
            return Err(fault_of_error(errno));
        }
        if owner == Owner::Nobody {
            self.due.push(Due::Connected { ticket, socket });
        }
        Ok(())
    }

    fn begin_receive(&mut self, conn: ConnId) {
        self.table.begin(conn, Operation::Receive);
        self.stats.receives_armed += 1;
        self.enqueue(conn, Until::Dry);
    }

    fn begin_send(&mut self, conn: ConnId, chunk: Chunk) {
        assert!(!chunk.is_empty(), "a send without bytes would look like the end of the stream");
        let socket = self.table.begin(conn, Operation::Send);
        match self.try_send(socket, &chunk) {
            Tried::Over(result) => self.due.push(Due::Sent { conn, chunk, result }),
            Tried::NoRoom => self.table.block(conn, chunk),
        }
    }

    fn try_send(&self, socket: SocketHandle, chunk: &Chunk) -> Tried {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(self.sockets.file(socket), chunk.unsent(), flags) {
            Ok(count_bytes) => Tried::Over(Ok(count_bytes)),
            Err(Errno::AGAIN) => Tried::NoRoom,
            Err(Errno::INTR) => Tried::Over(Ok(0)),
            Err(errno) => Tried::Over(Err(fault_of_error(errno))),
        }
    }

    fn begin_close(&mut self, conn: ConnId, how: CloseHow) {
        if let Some(chunk) = self.table.unblock(conn) {
            let result = Err(IoFault::Cancelled);
            self.due.push(Due::Sent { conn, chunk, result });
        }
        let socket = self.table.begin_close(conn);
        match how {
            CloseHow::Finish => {}
            CloseHow::Abort => {
                let set = raw::set_linger_reset(self.sockets.file(socket).as_raw_fd());
                self.stats.options_refused += u64::from(set.is_err());
            }
        }
        self.sockets.close(socket);
        self.due.push(Due::Closed { conn });
    }

    fn enqueue(&mut self, conn: ConnId, until: Until) {
        if self.table.enqueue(conn, until) {
            self.ready.push_back(conn);
        }
    }

    /// Sockets that there may be on top of those that there are.
    fn room(&self) -> u32 {
        self.connections_max - self.sockets.count()
    }

    /// Whether somebody is to be accepted and may be there.
    fn may_accept(&self) -> bool {
        self.accepts.owed > 0 && self.accepts.backlog == Backlog::Unknown && self.room() > 0
    }

    /// Whether there is something to hand over without further news.
    fn has_work(&self) -> bool {
        !self.due.is_empty() || !self.poll.is_empty() || self.has_urgent_work()
    }

    /// The same, but for sends that are done and news that was not taken.
    fn has_urgent_work(&self) -> bool {
        self.due.has_urgent() || !self.ready.is_empty() || self.may_accept()
    }

    /// Sleeps for `longest` at most. What comes first ends the sleep, or is taken and the rest of
    /// the window slept out.
    ///
    /// # Panics
    /// When there is news that was not taken.
    fn sleep(&mut self, longest: Option<Span>) -> Result<Heard, EpollError> {
        let window = longest.map_or(self.window, |longest| longest.min(self.window));
        let began = (window > Span::ZERO).then(Instant::now);
        let waited = self.look(longest)?;
        let heard = match waited {
            Waited::ToTheEnd => Heard::All { after: longest.unwrap_or_default() },
            Waited::ForNews => Heard::All { after: Span::ZERO },
            Waited::InVain | Waited::ForMany => Heard::Part,
        };
        let Some(began) = began.filter(|_| waited == Waited::ForNews) else { return Ok(heard) };
        self.take_news(usize::MAX);
        if self.due.has_urgent() || self.may_accept() {
            return Ok(heard);
        }
        std::thread::sleep(Duration::from(window).saturating_sub(began.elapsed()));
        Ok(match self.look(Some(Span::ZERO))? {
            Waited::ToTheEnd | Waited::ForNews => Heard::All { after: Span::ZERO },
            Waited::InVain | Waited::ForMany => Heard::Part,
        })
    }

    fn look(&mut self, longest: Option<Span>) -> Result<Waited, EpollError> {
        self.stats.enters += 1;
        self.poll.wait(longest).map_err(EpollError::at("wait by epoll"))
    }
}
