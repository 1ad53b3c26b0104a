//! A driver under test, and everything it said.
#![allow(unreachable_pub, reason = "a module of a test is reached by that test only")]

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{
    Chunk, CloseHow, Completion, Found, IoFault, Op, ReceiveEnd, SocketHandle, Stay,
};
use heartwheel::os::driver::{Driver, DriverConfig, More};
use heartwheel::os::ring::{Descriptors, RingSizes};
use heartwheel::os::socket::{ListenOptions, Listener, listen};
use heartwheel::os::{epoll, ring};

/// Longer than anything here takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A completion that owns what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    Accepted(SocketHandle, SocketAddr),
    AcceptFailed(IoFault),
    Connected(u32, SocketHandle),
    ConnectFailed(u32, IoFault),
    Received(ConnId, Vec<u8>),
    ReceiveEnded(ConnId, ReceiveEnd),
    Sent(ConnId, usize, Result<usize, IoFault>),
    Looked(ConnId, Found),
    Closed(ConnId),
    Moved(ConnId),
    Stayed(ConnId, Stay),
    Arrived(SocketHandle, SocketAddr, Vec<u8>),
    ArrivalFailed(IoFault),
}

impl Seen {
    pub fn of(completion: Completion<'_>) -> Self {
        match completion {
            Completion::Accepted { socket, peer } => Self::Accepted(socket, peer),
            Completion::AcceptFailed { fault } => Self::AcceptFailed(fault),
            Completion::Connected { ticket, socket } => Self::Connected(ticket, socket),
            Completion::ConnectFailed { ticket, fault } => Self::ConnectFailed(ticket, fault),
            Completion::Received { conn, bytes } => Self::Received(conn, bytes.to_vec()),
            Completion::ReceiveEnded { conn, end } => Self::ReceiveEnded(conn, end),
            Completion::Sent { conn, chunk, result } => Self::Sent(conn, chunk.len(), result),
            Completion::Looked { conn, found, tcp } => {
                let is_asked = found == Found::Nothing;
                assert_eq!(tcp.is_some(), is_asked, "TCP is asked about whoever is silent");
                Self::Looked(conn, found)
            }
            Completion::Closed { conn } => Self::Closed(conn),
            Completion::Moved { conn } => Self::Moved(conn),
            Completion::Stayed { conn, why } => Self::Stayed(conn, why),
            Completion::Arrived { socket, peer, bytes, .. } => {
                Self::Arrived(socket, peer, bytes.to_vec())
            }
            Completion::Introduced { .. } | Completion::Spoilt { .. } => {
                panic!("a driver knows nothing of layers")
            }
            Completion::ArrivalFailed { fault } => Self::ArrivalFailed(fault),
        }
    }
}

/// By what means the kernel is asked, and where sockets are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    Direct,
    Ordinary,
    Epoll,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Direct, Self::Ordinary, Self::Epoll];

    /// What a driver is made of; `sizes` are those of rings and mean nothing without.
    pub fn config(
        self,
        connections_max: u32,
        listener: Listener,
        sizes: RingSizes,
    ) -> DriverConfig {
        let listener = Some(listener);
        let descriptors = match self {
            Self::Direct => Descriptors::Direct,
            Self::Ordinary => Descriptors::Ordinary,
            Self::Epoll => return epoll::DriverConfig { connections_max, listener }.into(),
        };
        ring::DriverConfig { connections_max, descriptors, listener, sizes }.into()
    }

    /// A driver that is made of that.
    pub fn driver(self, connections_max: u32, listener: Listener, sizes: RingSizes) -> Driver {
        Driver::new(self.config(connections_max, listener, sizes)).unwrap()
    }
}

/// Lets this process have as many files as it may: many machines begin with a soft limit of 1,024,
/// and the tests need more at once. On a thread of its own: the end of the ring that is tried
/// interrupts the sleep of its thread.
pub fn raise_file_limit() {
    std::thread::spawn(heartwheel::os::machine::survey).join().unwrap();
}

/// A driver and what it said.
pub struct Rig {
    pub driver: Driver,
    pub address: SocketAddr,
    pub seen: Vec<Seen>,
    pub next_slot: u32,
}

impl Rig {
    pub fn new(way: Way, sizes: RingSizes, connections_max: u32) -> Self {
        Self::with_options(way, sizes, connections_max, &ListenOptions::default())
    }

    pub fn on(driver: Driver, address: SocketAddr) -> Self {
        Self { driver, address, seen: Vec::new(), next_slot: 0 }
    }

    pub fn with_options(
        way: Way,
        sizes: RingSizes,
        connections_max: u32,
        options: &ListenOptions,
    ) -> Self {
        raise_file_limit();
        let listener = listen("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let address = listener.local_address();
        Self::on(way.driver(connections_max, listener, sizes), address)
    }

    pub fn ask(&mut self, op: Op) {
        self.driver.submit(&mut vec![op]);
    }

    /// One turn: waits at most so long, then drains all there is.
    pub fn turn(&mut self, longest: Duration) {
        self.driver.wait(Some(longest.into())).unwrap();
        self.drain();
    }

    pub fn drain(&mut self) {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "it is never drained: {:?}", self.seen.last());
            let seen = &mut self.seen;
            let drained =
                self.driver.drain(1_024, |completion| seen.push(Seen::of(completion))).unwrap();
            self.driver.check();
            if drained.more == More::Nothing {
                break;
            }
        }
    }

    /// Turns until one of what was seen is wanted, and takes it.
    pub fn until<T>(&mut self, what: &str, wanted: impl Fn(&Seen) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let found = self.seen.iter().enumerate().find_map(|(i, seen)| Some((i, wanted(seen)?)));
            if let Some((index, found)) = found {
                self.seen.remove(index);
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "no {what}; seen: {:?}", self.seen);
            self.turn(Duration::from_millis(20));
        }
    }

    /// Takes one connection from the listener.
    pub fn accept(&mut self) -> ConnId {
        self.ask(Op::Accept { count: 1 });
        self.accepted()
    }

    /// The connection that an accept asked for earlier brings.
    pub fn accepted(&mut self) -> ConnId {
        let socket = self.accepted_socket().0;
        self.adopt(socket)
    }

    pub fn accepted_socket(&mut self) -> (SocketHandle, SocketAddr) {
        self.until("accepted", |seen| match seen {
            Seen::Accepted(socket, from) => Some((*socket, *from)),
            _ => None,
        })
    }

    pub fn adopt(&mut self, socket: SocketHandle) -> ConnId {
        let conn = ConnId { slot: self.next_slot, generation: 7 };
        self.next_slot += 1;
        self.ask(Op::Adopt { socket, conn });
        conn
    }

    /// A peer and our side of it, receiving.
    pub fn pair(&mut self) -> (TcpStream, ConnId) {
        let peer = self.peer();
        let conn = self.accept();
        self.ask(Op::Receive { conn });
        (peer, conn)
    }

    /// So many pairs, whose receives the kernel has.
    pub fn crowd(&mut self, count: usize) -> Vec<(TcpStream, ConnId)> {
        let pairs = (0..count).map(|_| self.pair()).collect();
        self.turn(Duration::ZERO);
        pairs
    }

    pub fn peer(&self) -> TcpStream {
        let peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    }

    /// Turns until so many bytes came, arming the receive again where the kernel ended it.
    pub fn received(&mut self, conn: ConnId, count_bytes: usize) -> Vec<u8> {
        let start = Instant::now();
        let mut bytes = Vec::new();
        while bytes.len() < count_bytes {
            assert!(start.elapsed() < PATIENCE, "{} of {count_bytes} bytes", bytes.len());
            let piece = self.until("bytes", |seen| match seen {
                Seen::Received(of, bytes) if *of == conn => Some(bytes.clone()),
                Seen::ReceiveEnded(of, ReceiveEnd::Starved | ReceiveEnd::Interrupted)
                    if *of == conn =>
                {
                    Some(Vec::new())
                }
                _ => None,
            });
            if piece.is_empty() {
                self.ask(Op::Receive { conn });
            }
            bytes.extend(piece);
        }
        bytes
    }

    pub fn ended(&mut self, conn: ConnId) -> ReceiveEnd {
        self.until("end of receive", |seen| match seen {
            Seen::ReceiveEnded(of, end) if *of == conn => Some(*end),
            _ => None,
        })
    }

    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<usize, IoFault> {
        self.ask(Op::Send { conn, chunk: Chunk::from(bytes.to_vec()) });
        self.sent(conn)
    }

    pub fn sent(&mut self, conn: ConnId) -> Result<usize, IoFault> {
        self.until("sent", |seen| match seen {
            Seen::Sent(of, _, result) if *of == conn => Some(*result),
            _ => None,
        })
    }

    pub fn look(&mut self, conn: ConnId) -> Found {
        self.ask(Op::Look { conn });
        self.until("looked", |seen| match seen {
            Seen::Looked(of, found) if *of == conn => Some(*found),
            _ => None,
        })
    }

    pub fn close(&mut self, conn: ConnId, how: CloseHow) {
        self.ask(Op::Close { conn, how });
        self.closed(conn);
    }

    pub fn closed(&mut self, conn: ConnId) {
        self.until("closed", |seen| (*seen == Seen::Closed(conn)).then_some(()));
    }

    /// Every buffer is with the kernel again and nothing is under way but what is asked for.
    pub fn assert_quiet(&mut self, in_flight: usize) {
        self.turn(Duration::ZERO);
        assert!(self.seen.is_empty(), "{:?}", self.seen);
        let stats = self.driver.stats();
        assert_eq!(stats.in_flight, in_flight);
        if let Some(with_kernel) = stats.buffers_with_kernel {
            assert_eq!(with_kernel, stats.buffers, "every buffer is home");
        }
    }
}
