//! The seam to the kernel: what we ask of it ([`Op`]) and what it tells us ([`Completion`]).
//!
//! Two enums and nothing else. `os` carries them to io_uring or epoll and back; the simulator in
//! `tests/sim` plays the kernel with the same two.
//!
//! The contract, which both sides keep:
//!
//! - A [`SocketHandle`] from `Accepted` or `Connected` is answered with one `Adopt` or `Discard`.
//! - From `Adopt` to `Close` a connection may be used in operations; after `Close` in none.
//! - At most one `Send` of a connection is under way; its chunk comes home with `Sent`, always.
//! - `Receive` stays armed: any number of `Received` follow, until one `ReceiveEnded`. Then it may
//!   be asked for again. Never twice at once.
//! - After `Pause` the receive that is under way ends, by `ReceiveEnded` with
//!   [`Paused`](ReceiveEnd::Paused) or with whatever ended it first. What had been received until
//!   then is told before it. Where no receive is under way, nothing happens and nothing is told.
//! - At most one `Look` of a connection is under way; one `Looked` answers it.
//! - After `Close` come at most one `Sent` (the chunk coming home) and exactly one `Closed`, and
//!   then nothing more for that [`ConnId`]: its slot may be used again.
//! - After `Move` nothing of the connection is told but one answer. `Moved` is the end, as `Closed`
//!   is. After `Stayed` it is open as before, and nothing of it is under way: its receive has to be
//!   asked for again. No `Send` is under way when `Move` is asked for; a `Receive` or a `Look` may
//!   be, and is then over without a word.
//! - What is received of a moving connection until its receive is over is put behind the bytes of
//!   its `Move`, in order, and nothing is left out. A FIN stays with the socket, and is found again
//!   by whoever receives next.
//! - Where a moving connection arrives, `Arrived` stands for `Accepted` and for the `Received` of
//!   all these bytes: its socket is answered with one `Adopt` or `Discard`.
//!
//! How a socket gets from one driver to another is not said here: a driver gives away
//! [`Parcel`](crate::os::parcel::Parcel)s and takes them in, on its own thread, when whoever turns
//! it asks for that.

use std::net::SocketAddr;

use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::introduction::{Baggage, Introduction};
use crate::base::time::Span;

/// A socket that the kernel gave us and that belongs to no connection yet. The number means
/// something only to whoever made it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketHandle(pub u64);

/// What we ask of the kernel.
#[derive(Debug)]
pub enum Op {
    /// Take so many further connections from the listener; each is answered by one `Accepted` or
    /// one `AcceptFailed`.
    Accept {
        /// How many.
        count: u32,
    },
    /// Take no more connections: every accept still waiting ends with `AcceptFailed` and
    /// [`IoFault::Cancelled`], and the listener is closed.
    StopAccepting,
    /// Open a connection; answered by one `Connected` or one `ConnectFailed`.
    Connect(Box<Connect>),
    /// This socket is that connection from now on.
    Adopt {
        /// The socket.
        socket: SocketHandle,
        /// The connection.
        conn: ConnId,
    },
    /// Close this socket; nobody wants it.
    Discard {
        /// The socket.
        socket: SocketHandle,
    },
    /// Receive until told otherwise.
    Receive {
        /// On which connection.
        conn: ConnId,
    },
    /// Receive no more, until `Receive` is asked for again.
    Pause {
        /// On which connection.
        conn: ConnId,
    },
    /// Send these bytes, all or some.
    Send {
        /// On which connection.
        conn: ConnId,
        /// The bytes; owned by the operation until `Sent` brings them home.
        chunk: Chunk,
    },
    /// The last look: is anything waiting in the socket that we have not read?
    Look {
        /// On which connection.
        conn: ConnId,
    },
    /// Set `TCP_USER_TIMEOUT`. Best effort, not answered.
    SetUserTimeout {
        /// On which connection.
        conn: ConnId,
        /// How long sent bytes may stay without an acknowledgement; zero: the kernel's default.
        timeout: Span,
    },
    /// Give the connection to the shard that owns its client; answered by one `Moved` or one
    /// `Stayed`.
    Move(Box<Move>),
    /// End the connection and give its slot back.
    Close {
        /// Which connection.
        conn: ConnId,
        /// In what manner.
        how: CloseHow,
    },
}

/// Where to connect, and from where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connect {
    /// Comes back with the answer.
    pub ticket: u32,
    /// The local address; `None` leaves it to the kernel. Port 0 leaves the port to the kernel.
    pub source: Option<SocketAddr>,
    /// The peer.
    pub target: SocketAddr,
}

/// A connection that another shard should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Move {
    /// Which connection.
    pub conn: ConnId,
    /// Which shard.
    pub to: u16,
    /// The peer's address, for whoever gets it.
    pub peer: SocketAddr,
    /// What was received of it so far, from the beginning of a preface on. At most
    /// [`MOVE_BYTES_MAX`](crate::base::limits::MOVE_BYTES_MAX) travel.
    pub bytes: Vec<u8>,
}

/// Why a connection could not be moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    /// It broke before it could leave.
    Broken(IoFault),
    /// The machine had no descriptor for it.
    NoRoom,
    /// More was received than may travel. What was received is lost.
    TooMuch,
}

/// In what manner a connection is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseHow {
    /// With a FIN, after what was sent.
    Finish,
    /// With a RST: nothing is left behind in the kernel for a peer that is not there.
    Abort,
}

/// What the kernel tells us.
#[derive(Debug)]
pub enum Completion<'a> {
    /// Somebody connected.
    Accepted {
        /// Their socket.
        socket: SocketHandle,
        /// Their address.
        peer: SocketAddr,
    },
    /// One accept that was asked for gave no connection.
    AcceptFailed {
        /// Why.
        fault: IoFault,
    },
    /// A connection that was asked for is open.
    Connected {
        /// The ticket of [`Connect`].
        ticket: u32,
        /// The socket.
        socket: SocketHandle,
    },
    /// A connection that was asked for could not be opened.
    ConnectFailed {
        /// The ticket of [`Connect`].
        ticket: u32,
        /// Why.
        fault: IoFault,
    },
    /// Bytes came in; the receive stays armed. Never empty.
    Received {
        /// On which connection.
        conn: ConnId,
        /// The bytes, borrowed from the kernel's buffer for this one call.
        bytes: &'a [u8],
    },
    /// The receive is not armed any more.
    ReceiveEnded {
        /// On which connection.
        conn: ConnId,
        /// Why.
        end: ReceiveEnd,
    },
    /// A send is over and its chunk is home.
    Sent {
        /// On which connection.
        conn: ConnId,
        /// The chunk as it was handed over; what was sent is still in it.
        chunk: Chunk,
        /// How many bytes were sent (perhaps not all), or why none were.
        result: Result<usize, IoFault>,
    },
    /// What the last look found.
    Looked {
        /// On which connection.
        conn: ConnId,
        /// What was there.
        found: Found,
        /// What TCP knows of the connection, where nothing was found and TCP could be asked.
        tcp: Option<TcpFacts>,
    },
    /// The connection is gone and no operation of it is left.
    Closed {
        /// Which connection.
        conn: ConnId,
    },
    /// The connection is another shard's, and no operation of it is left here.
    Moved {
        /// Which connection.
        conn: ConnId,
    },
    /// The connection could not be moved. It is still here, with nothing under way.
    Stayed {
        /// Which connection.
        conn: ConnId,
        /// Why.
        why: Stay,
    },
    /// A connection came from another shard.
    Arrived {
        /// Its socket.
        socket: SocketHandle,
        /// The peer's address.
        peer: SocketAddr,
        /// What was received of it so far. Borrowed for this one call.
        bytes: &'a [u8],
        /// What came with it.
        baggage: Baggage,
    },
    /// What is between the kernel and us has found out what a connection is. No driver tells it.
    Introduced {
        /// Which connection.
        conn: ConnId,
        /// What it is.
        as_what: &'a Introduction,
    },
    /// What is between the kernel and us cannot go on with a connection. No driver tells it.
    Spoilt {
        /// Which connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// A connection came from another shard, and the machine had no place for it: it is closed.
    ArrivalFailed {
        /// Why.
        fault: IoFault,
    },
}

/// Why a receive ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReceiveEnd {
    /// The peer sent FIN.
    Eof,
    /// There was no buffer; bytes may wait in the socket. Ask again.
    Starved,
    /// The kernel ended it for reasons of its own (queue overflow among them). Ask again.
    Interrupted,
    /// It was asked to, by `Pause`; bytes may wait in the socket.
    Paused,
    /// The connection broke.
    Fault(IoFault),
}

/// What a last look found in the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Bytes that were not read yet.
    Bytes,
    /// The peer's FIN.
    Eof,
    /// A broken connection.
    Fault(IoFault),
}

/// What TCP knows of a connection (`TCP_INFO`), as far as it tells a hung application from a path
/// that is gone: in the first case the peer's kernel still acknowledges.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TcpFacts {
    /// Since the last data was received, in milliseconds.
    pub last_data_received_ms: u32,
    /// Since the last acknowledgement was received, in milliseconds.
    pub last_ack_received_ms: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Smoothed round trip time, in microseconds.
    pub rtt_us: u32,
    /// Retransmissions of the segment that is waited for.
    pub retransmits: u8,
}

/// What went wrong between us and the machine, as far as anybody decides by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IoFault {
    /// The peer sent RST, or the connection was aborted.
    #[error("connection reset by peer")]
    Reset,
    /// TCP gave up: keep-alive probes or sent bytes stayed unanswered.
    #[error("TCP timed out")]
    TimedOut,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No way there.
    #[error("network unreachable")]
    Unreachable,
    /// No free port or address.
    #[error("local address in use or not available")]
    AddressUnavailable,
    /// We took the operation back.
    #[error("cancelled")]
    Cancelled,
    /// No file descriptor or no slot for one is left.
    #[error("no file descriptor left")]
    NoDescriptors,
    /// The kernel has no memory for it.
    #[error("no memory left in the kernel")]
    NoMemory,
    /// Anything else, as the kernel's error number.
    #[error("operating system error {0}")]
    Other(i32),
}

/// Bytes on their way out.
///
/// Owned by us while it is filled, by the kernel while it is sent: what is in flight nobody can
/// touch, because nobody has it. One pointer: it changes hands often, and where nothing is to be
/// sent it is nothing.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Chunk(Option<Box<Filled>>);

#[derive(Debug, Default, Eq, PartialEq)]
struct Filled {
    bytes: Vec<u8>,
    start: usize,
}

impl Chunk {
    /// An empty chunk; allocates nothing.
    pub const fn new() -> Self {
        Self(None)
    }

    /// What is still to be sent.
    pub fn unsent(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |filled| &filled.bytes[filled.start..])
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(|filled| filled.start == filled.bytes.len())
    }

    /// How many bytes are still to be sent.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |filled| filled.bytes.len() - filled.start)
    }

    /// Whether nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.is_done()
    }

    /// The first `count` unsent bytes were sent.
    ///
    /// # Panics
    /// When that is more than there were.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "sent {count} of {} bytes", self.len());
        if let Some(filled) = &mut self.0 {
            filled.start += count;
        }
    }

    /// Where to append further bytes.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0.get_or_insert_default().bytes
    }

    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        if let Some(filled) = &mut self.0 {
            filled.bytes.clear();
            filled.start = 0;
        }
    }

    /// Bytes of memory held for bytes to send.
    pub fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |filled| filled.bytes.capacity())
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Some(Box::new(Filled { bytes, start: 0 })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_send_leaves_the_rest() {
        let mut chunk = Chunk::from(b"heartbeat".to_vec());
        chunk.advance(5);
        assert_eq!(chunk.unsent(), b"beat");
        chunk.advance(4);
        assert!(chunk.is_done());
        chunk.clear();
        assert!(chunk.is_empty());
    }

    #[test]
    #[should_panic(expected = "sent 2 of 1 bytes")]
    fn more_than_everything_cannot_have_been_sent() {
        Chunk::from(vec![1]).advance(2);
    }

    #[test]
    fn nothing_to_send_takes_no_memory() {
        let mut chunk = Chunk::new();
        assert_eq!((chunk.len(), chunk.capacity(), chunk.unsent()), (0, 0, &[][..]));
        chunk.clear();
        chunk.advance(0);
        assert!(chunk.0.is_none());
        chunk.buffer().push(1);
        assert_eq!(chunk.unsent(), [1]);
    }

    #[test]
    fn operations_and_completions_stay_small() {
        assert!(size_of::<Chunk>() <= 8, "{}", size_of::<Chunk>());
        assert!(size_of::<Op>() <= 24, "{}", size_of::<Op>());
        assert!(size_of::<Completion<'_>>() <= 64, "{}", size_of::<Completion<'_>>());
    }
}
