//! Everything at once, in an order that nobody would think of: peers that come, write, vanish and
//! reset, tiny queues, few buffers, several rings, drains that stop half way. Each connection must
//! hear its peer's bytes in order, and end exactly once.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Chunk, CloseHow, Op, ReceiveEnd};
use heartwheel::base::time::Span;
use heartwheel::os::ring::RingSizes;

use crate::reset;
use crate::rig::{PATIENCE, Rig, Seen, Way};

const SLOTS: u32 = 24;

/// One connection as we believe it to be.
#[derive(Debug)]
struct Believed {
    peer: Option<TcpStream>,
    /// The peer after it said all it had to say; it still listens.
    finished: Option<TcpStream>,
    written: Vec<u8>,
    heard: Vec<u8>,
    receiving: bool,
    sending: bool,
    looking: bool,
    is_pausing: bool,
    closing: bool,
}

struct Chaos {
    rig: Rig,
    dice: fastrand::Rng,
    /// Peers that connected and were not accepted yet, by their port.
    knocking: HashMap<u16, TcpStream>,
    conns: HashMap<ConnId, Believed>,
    generations: [u32; SLOTS as usize],
    accepts: u32,
    ended: u32,
}

impl Chaos {
    fn new(way: Way, seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut one_of = |few: [u32; 3]| few[dice.usize(..3)];
        let sizes = RingSizes {
            sq_entries: one_of([1, 2, 4]),
            cq_entries: one_of([4, 16, 64]),
            buffers: u16::try_from(one_of([1, 2, 16])).unwrap(),
            buffer_bytes: one_of([1, 16, 64]) as usize,
            files_per_ring: one_of([3, 7, SLOTS]),
        };
        println!("{sizes:?}");
        Self {
            rig: Rig::new(way, sizes, SLOTS),
            dice,
            knocking: HashMap::new(),
            conns: HashMap::new(),
            generations: [0; SLOTS as usize],
            accepts: 0,
            ended: 0,
        }
    }

    fn step(&mut self) {
        match self.dice.u32(0..100) {
            0..10 => self.knock(),
            10..40 => self.write(),
            40..45 => self.vanish(),
            45..60 => self.send(),
            60..65 => self.look(),
            65..70 => self.close(),
            70..78 => self.pause(),
            78..95 => self.turn(),
            _ => self.rig.driver.waker().wake(),
        }
        if self.accepts == 0 && self.dice.bool() {
            self.accepts = self.dice.u32(1..4);
            self.rig.ask(Op::Accept { count: self.accepts });
        }
    }

    fn knock(&mut self) {
        if self.knocking.len() < 8 {
            let peer = self.rig.peer();
            self.knocking.insert(peer.local_addr().unwrap().port(), peer);
        }
    }

    /// A connection that has what is asked for.
    fn pick(&mut self, fit: impl Fn(&Believed) -> bool) -> Option<ConnId> {
        let mut fitting: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, believed)| fit(believed))
            .map(|(conn, _)| *conn)
            .collect();
        fitting.sort();
        self.dice.choice(fitting)
    }

    fn write(&mut self) {
        let Some(conn) = self.pick(|believed| believed.peer.is_some() && !believed.closing) else {
            return;
        };
        let bytes: Vec<u8> = (0..self.dice.usize(1..100)).map(|_| self.dice.u8(..)).collect();
        let believed = self.conns.get_mut(&conn).unwrap();
        let mut peer = believed.peer.as_ref().unwrap();
        // Whoever reads what we send keeps the way free; nobody looks at it.
        peer.set_nonblocking(true).unwrap();
        let _read = peer.read(&mut [0; 4_096]);
        if let Ok(count) = peer.write(&bytes) {
            believed.written.extend(&bytes[..count]);
        }
    }

    fn vanish(&mut self) {
        let Some(conn) = self.pick(|believed| believed.peer.is_some()) else { return };
        let believed = self.conns.get_mut(&conn).unwrap();
        let peer = believed.peer.take().unwrap();
        match self.dice.u32(0..3) {
            0 => reset(peer),
            1 => drop(peer), // with a reset, if it has not read what we sent
            _ => {
                // Nothing to shut down, if we aborted the connection meanwhile.
                let finished = peer.shutdown(Shutdown::Write).is_ok();
                believed.finished = finished.then_some(peer);
            }
        }
    }

    fn send(&mut self) {
        let Some(conn) = self.pick(|believed| !believed.sending && !believed.closing) else {
            return;
        };
        self.conns.get_mut(&conn).unwrap().sending = true;
        let chunk = Chunk::from(vec![7; self.dice.usize(1..2_000)]);
        self.rig.ask(Op::Send { conn, chunk });
    }

    fn look(&mut self) {
        let Some(conn) = self.pick(|believed| !believed.looking && !believed.closing) else {
            return;
        };
        self.conns.get_mut(&conn).unwrap().looking = true;
        self.rig.ask(Op::Look { conn });
        self.rig.ask(Op::SetUserTimeout { conn, timeout: Span::from_secs(9) });
    }

    fn pause(&mut self) {
        let Some(conn) = self.pick(|believed| believed.receiving && !believed.closing) else {
            return;
        };
        self.conns.get_mut(&conn).unwrap().is_pausing = true;
        self.rig.ask(Op::Pause { conn });
    }

    fn close(&mut self) {
        let Some(conn) = self.pick(|believed| !believed.closing) else { return };
        self.conns.get_mut(&conn).unwrap().closing = true;
        let how = if self.dice.bool() { CloseHow::Finish } else { CloseHow::Abort };
        self.rig.ask(Op::Close { conn, how });
    }

    fn turn(&mut self) {
        if self.dice.bool() {
            let longest = Duration::from_micros(self.dice.u64(0..300));
            self.rig.driver.wait(Some(longest.into())).unwrap();
        }
        let budget = self.dice.usize(1..40);
        let seen = &mut self.rig.seen;
        self.rig.driver.drain(budget, |completion| seen.push(Seen::of(completion))).unwrap();
        self.rig.driver.check();
        for seen in std::mem::take(&mut self.rig.seen) {
            self.believe(seen);
        }
    }

    fn believe(&mut self, seen: Seen) {
        match seen {
            Seen::Accepted(socket, from) => {
                self.accepts -= 1;
                let slot = (0..SLOTS).find(|slot| !self.conns.keys().any(|c| c.slot == *slot));
                let slot = slot.expect("no more is accepted than there are files");
                let generation = self.generations[slot as usize];
                self.generations[slot as usize] += 1;
                let conn = ConnId { slot, generation };
                let believed = Believed {
                    peer: self.knocking.remove(&from.port()),
                    finished: None,
                    written: Vec::new(),
                    heard: Vec::new(),
                    receiving: true,
                    sending: false,
                    looking: false,
                    is_pausing: false,
                    closing: false,
                };
                assert!(self.conns.insert(conn, believed).is_none());
                self.rig.ask(Op::Adopt { socket, conn });
                self.rig.ask(Op::Receive { conn });
            }
            Seen::Received(conn, bytes) => {
                let believed = self.conns.get_mut(&conn).unwrap();
                assert!(believed.receiving && !believed.closing && !bytes.is_empty());
                believed.heard.extend(bytes);
                assert!(believed.written.starts_with(&believed.heard), "{conn} heard wrong");
            }
            Seen::ReceiveEnded(conn, end) => self.believe_end(conn, end),
            Seen::Sent(conn, _, _) => {
                let believed = self.conns.get_mut(&conn).unwrap();
                assert!(std::mem::take(&mut believed.sending));
            }
            Seen::Looked(conn, _) => {
                let believed = self.conns.get_mut(&conn).unwrap();
                assert!(!believed.closing && std::mem::take(&mut believed.looking));
            }
            Seen::Closed(conn) => {
                let believed = self.conns.remove(&conn).unwrap();
                assert!(believed.closing && !believed.sending);
                self.ended += 1;
            }
            Seen::AcceptFailed(_)
            | Seen::Connected(..)
            | Seen::ConnectFailed(..)
            | Seen::Moved(_)
            | Seen::Stayed(..)
            | Seen::Arrived(..)
            | Seen::ArrivalFailed(_) => {
                panic!("{seen:?}");
            }
        }
    }

    fn believe_end(&mut self, conn: ConnId, end: ReceiveEnd) {
        let believed = self.conns.get_mut(&conn).unwrap();
        assert!(believed.receiving && !believed.closing);
        match end {
            ReceiveEnd::Starved | ReceiveEnd::Interrupted | ReceiveEnd::Paused => {
                assert!(end != ReceiveEnd::Paused || believed.is_pausing);
                believed.is_pausing = false;
                self.rig.ask(Op::Receive { conn });
            }
            ReceiveEnd::Eof => {
                assert!(believed.peer.is_none(), "{conn} has a peer");
                if believed.finished.is_some() {
                    assert_eq!(believed.heard, believed.written, "{conn} missed something");
                }
                believed.receiving = false;
            }
            ReceiveEnd::Fault(_) => {
                assert!(believed.peer.is_none(), "{conn} has a peer");
                assert!(believed.finished.is_none(), "{conn} had a polite peer");
                believed.receiving = false;
            }
        }
    }

    /// Everybody who is still there is heard to the end, and then closed.
    fn finish(mut self) {
        let start = Instant::now();
        while self.conns.values().any(|b| {
            b.receiving && !b.closing && b.peer.is_some() && b.heard.len() < b.written.len()
        }) {
            assert!(start.elapsed() < PATIENCE, "somebody is not heard");
            self.turn();
        }
        self.knocking.clear();
        while !self.conns.is_empty() {
            self.close();
            assert!(
                start.elapsed() < 2 * PATIENCE,
                "{:?} never end: {:?}",
                self.conns,
                self.rig.driver.stats()
            );
            self.turn();
        }
        assert_eq!(self.rig.driver.connections(), 0);
        assert_eq!(self.rig.driver.stats().in_flight, 0);
        assert!(self.ended > 20, "only {} connections came and went", self.ended);
    }
}

/// `RING_CHAOS_SEEDS=300` makes it thorough, and takes 50 seconds.
#[test]
fn chaos_is_heard_in_order_and_ends_once() {
    let seeds = std::env::var("RING_CHAOS_SEEDS").map_or(6, |text| text.parse().unwrap());
    for way in Way::ALL {
        for seed in 0..seeds {
            println!("{way:?}, seed {seed}");
            let mut chaos = Chaos::new(way, seed);
            for _ in 0..3_000 {
                chaos.step();
            }
            chaos.finish();
        }
    }
}
