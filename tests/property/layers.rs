//! What holds for what stands between a kernel and a gateway: whatever the one does and the other
//! asks, it keeps the contract of `base::io` towards both, and loses or invents no byte. The
//! property takes bytes, so that proptest here and the fuzzer (`fuzz/fuzz_targets/layers.rs`) call
//! the same one.

use std::sync::{Arc, OnceLock};

use heartwheel::base::event::CloseReason;
use heartwheel::base::ids::ConnId;
use heartwheel::base::introduction::Baggage;
use heartwheel::base::io::{
    Chunk, CloseHow, Completion, IoFault, Move, Op, ReceiveEnd, SocketHandle, Stay,
};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::layers::Layers;
use heartwheel::layers::layer::{Goes, Layer};
use heartwheel::layers::terms::{Begin, SharedTerms, Terms};
use heartwheel::layers::tls::{Dial, Files, Serve};

#[path = "../tls/papers.rs"]
#[allow(dead_code, reason = "shared with the tests of TLS, which use more of it")]
mod papers;

/// Rounds until everything that is under way has come to its end. More: nothing moves.
const ROUNDS_MAX: u32 = 10_000;
const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 7\r\n";

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    PeerSays(usize),
    Delivered(usize),
    GatewaySays(usize),
    Sent(usize),
    SendFails,
    Starved,
    PeerEnds,
    ReceiveFails,
    Turn,
    TimePasses(u64),
    GatewayMoves,
    Departs,
    CannotDepart,
    GatewayCloses(CloseHow),
    Garbled,
}

fn steps(story: &[u8]) -> Vec<Step> {
    let pairs = story.chunks_exact(2).map(|pair| (pair[0], usize::from(pair[1])));
    let step = |(kind, size): (u8, usize)| match kind % 32 {
        0..=3 => Step::PeerSays(1 + size * 3),
        4..=10 => Step::Delivered(1 + size * size / 8),
        11..=13 => Step::GatewaySays(1 + size * 5),
        14..=18 => Step::Sent(1 + size * size / 4),
        19..=22 => Step::Turn,
        23 => Step::Starved,
        24 => Step::TimePasses(size as u64 * 4),
        25 => Step::GatewayMoves,
        26 => Step::Departs,
        27 if size < 40 => Step::CannotDepart,
        28 if size < 40 => Step::PeerEnds,
        29 if size < 40 => Step::GatewayCloses(CloseHow::Finish),
        29 if size < 60 => Step::GatewayCloses(CloseHow::Abort),
        30 if size < 20 => Step::SendFails,
        30 if size < 40 => Step::ReceiveFails,
        31 if size < 30 => Step::Garbled,
        _ => Step::Turn,
    };
    pairs.map(step).collect()
}

/// Lives through a story of one connection between a kernel, two shards and a peer, and holds both
/// contracts at every step. Where nobody ended it everything said is heard in the end.
pub(crate) fn keep_the_contract(bytes: &[u8]) {
    let (&[kind], story) = bytes.split_first_chunk().unwrap_or((&[0], &[]));
    let mut world = World::new(kind & 1 > 0, kind & 2 > 0);
    for step in steps(story) {
        world.take(step);
    }
    world.end();
}

/// What is served, and how it is dialled: made once.
fn spoken() -> &'static (Arc<Serve>, Dial) {
    static SPOKEN: OnceLock<(Arc<Serve>, Dial)> = OnceLock::new();
    SPOKEN.get_or_init(|| {
        let papers = papers::Papers::new();
        let read = |name: &str| std::fs::read(papers.at(name)).expect("it was written");
        let (certificates, key) = (read("gate.pem"), read("gate.key"));
        let files = Files { certificates: &certificates, key: &key, clients: None };
        let serve = Serve::new(files).expect("they are good");
        let dial = Dial::new(vec![papers.authority()], "localhost").expect("an authority");
        (Arc::new(serve), dial)
    })
}

/// Whoever is at the other end of the wire.
struct Peer {
    tls: Option<Box<dyn Layer>>,
    said: Vec<u8>,
    heard: Vec<u8>,
    /// On its way to us.
    wire: Vec<u8>,
    has_ended: bool,
    /// It heard the end, or something it does not understand.
    is_done: bool,
}

impl Peer {
    fn say(&mut self, size: usize) {
        let from = self.said.len();
        // Never a byte by which another protocol begins.
        let words: Vec<u8> = (0x80..0xE1).cycle().skip(from % 97).take(size).collect();
        match &mut self.tls {
            Some(tls) => tls.send(&words, &mut self.wire),
            None => self.wire.extend_from_slice(&words),
        }
        self.said.extend_from_slice(&words);
    }

    fn hear(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            _ if self.is_done => {}
            Some(tls) => {
                let goes = tls.take_in(bytes, &mut self.heard, &mut self.wire);
                self.is_done = goes != Ok(Goes::On);
            }
            None => self.heard.extend_from_slice(bytes),
        }
    }
}

/// What the kernel has of the connection.
#[derive(Default)]
struct Kernel {
    is_open: bool,
    is_armed: bool,
    sending: Option<Chunk>,
    moving: Option<Box<Move>>,
    closing: Option<CloseHow>,
}

/// What the gateway knows of it.
#[derive(Default)]
struct Gate {
    is_armed: bool,
    /// What is on its way.
    sending: Option<Vec<u8>>,
    /// What a short send has left of it, where no layer takes care of that.
    unsent: Option<Chunk>,
    is_plain: bool,
    heard: Vec<u8>,
    said: Vec<u8>,
    is_introduced: bool,
    has_heard_here: bool,
    is_over: bool,
    is_moving: bool,
    has_closed: bool,
    is_gone: bool,
    spoilt: Option<CloseReason>,
    stayed: Option<Stay>,
    is_broken: bool,
    arrived: Option<(SocketHandle, Vec<u8>)>,
}

impl Gate {
    fn is_at_rest(&self) -> bool {
        !self.has_closed && !self.is_moving && !self.is_gone
    }

    fn hear(&mut self, told: Completion<'_>) {
        assert!(!self.is_gone, "after the end: {told:?}");
        match told {
            Completion::Introduced { as_what, .. } => {
                assert!(self.is_at_rest() && !self.is_over);
                assert!(!self.has_heard_here && !self.is_introduced, "first and once");
                assert!(as_what.is_encrypted || as_what.peer.is_some());
                self.is_introduced = true;
            }
            Completion::Received { bytes, .. } => {
                assert!(self.is_at_rest() && self.is_armed && !self.is_over && !bytes.is_empty());
                self.has_heard_here = true;
                self.heard.extend_from_slice(bytes);
            }
            Completion::ReceiveEnded { end, .. } => {
                assert!(self.is_at_rest() && self.is_armed && !self.is_over, "{end:?}");
                self.is_armed = false;
                self.is_over = matches!(end, ReceiveEnd::Eof | ReceiveEnd::Fault(_));
            }
            Completion::Sent { mut chunk, result, .. } => {
                let sending = self.sending.take().expect("a send was asked for");
                assert_eq!(chunk.unsent(), sending, "its chunk comes home as it was");
                match result {
                    Ok(count) => {
                        assert!(count == sending.len() || self.is_plain, "all of it is sent");
                        chunk.advance(count);
                        self.unsent = (!chunk.is_done()).then_some(chunk);
                    }
                    Err(_) => self.is_broken = true,
                }
            }
            Completion::Spoilt { reason, .. } => {
                assert!(self.is_at_rest() && !self.is_over);
                self.is_over = true;
                self.spoilt = Some(reason);
            }
            Completion::Closed { .. } => {
                assert!(self.has_closed && self.sending.is_none(), "the chunk comes home first");
                self.is_gone = true;
            }
            Completion::Moved { .. } => assert!(self.is_moving),
            Completion::Stayed { why, .. } => {
                assert!(self.is_moving && self.sending.is_none());
                (self.is_moving, self.is_armed) = (false, false);
                self.stayed = Some(why);
            }
            Completion::Arrived { socket, bytes, baggage, .. } => {
                assert!(baggage.is_empty(), "nobody opens it");
                self.arrived = Some((socket, bytes.to_vec()));
            }
            Completion::Accepted { .. } => {}
            Completion::AcceptFailed { .. }
            | Completion::Connected { .. }
            | Completion::ConnectFailed { .. }
            | Completion::Looked { .. }
            | Completion::ArrivalFailed { .. } => panic!("nobody asked for that: {told:?}"),
        }
    }
}

struct World {
    shards: [Layers; 2],
    at: usize,
    conn: ConnId,
    now: Moment,
    peer: Peer,
    kernel: Kernel,
    gate: Gate,
    /// What the kernel has told so far.
    happened: u64,
}

impl World {
    fn new(is_behind_proxy: bool, is_encrypted: bool) -> Self {
        let (serve, dial) = spoken();
        let terms = SharedTerms::new(Terms {
            proxies: "10.0.0.0/8".parse().expect("a network"),
            tls: Some(Arc::clone(serve) as Arc<dyn Begin>),
            ..Terms::default()
        });
        let peer = Peer {
            tls: is_encrypted.then(|| dial.begin()),
            said: Vec::new(),
            heard: Vec::new(),
            wire: if is_behind_proxy { HEADER.to_vec() } else { Vec::new() },
            has_ended: false,
            is_done: false,
        };
        let mut world = Self {
            shards: [Layers::new(terms.clone()), Layers::new(terms)],
            at: 0,
            conn: ConnId { slot: 0, generation: 0 },
            now: Moment::from_millis(1),
            peer,
            kernel: Kernel::default(),
            gate: Gate { is_plain: !is_encrypted, ..Gate::default() },
            happened: 0,
        };
        let socket = SocketHandle(1);
        let peer = ([if is_behind_proxy { 10 } else { 192 }, 0, 0, 1], 9).into();
        world.complete(Completion::Accepted { socket, peer });
        world.adopt(socket);
        world
    }

    fn adopt(&mut self, socket: SocketHandle) {
        let conn = self.conn;
        self.gate.is_armed = true;
        self.ask(vec![Op::Adopt { socket, conn }, Op::Receive { conn }]);
    }

    /// The kernel speaks.
    fn complete(&mut self, completion: Completion<'_>) {
        let gate = &mut self.gate;
        self.happened += 1;
        self.shards[self.at].on_completion(completion, |told| gate.hear(told));
        self.send_the_rest();
        self.ask(Vec::new());
    }

    /// As the gateway does after a short send.
    fn send_the_rest(&mut self) {
        if let Some(chunk) = self.gate.unsent.take()
            && self.gate.is_at_rest()
        {
            self.gate.sending = Some(chunk.unsent().to_vec());
            self.ask(vec![Op::Send { conn: self.conn, chunk }]);
        }
    }

    /// The gateway asks, and the kernel notes what comes of it.
    fn ask(&mut self, mut ops: Vec<Op>) {
        self.shards[self.at].on_ops(&mut ops, self.now);
        self.shards[self.at].check();
        for op in ops {
            let kernel = &mut self.kernel;
            let is_usable = kernel.is_open && kernel.closing.is_none() && kernel.moving.is_none();
            assert!(is_usable || matches!(op, Op::Adopt { .. }), "not now: {op:?}");
            match op {
                Op::Adopt { .. } => kernel.is_open = true,
                Op::Receive { .. } => {
                    assert!(!kernel.is_armed, "twice at once");
                    kernel.is_armed = true;
                }
                Op::Send { chunk, .. } => {
                    assert!(kernel.sending.is_none() && !chunk.is_empty(), "one at a time");
                    kernel.sending = Some(chunk);
                }
                Op::Close { how, .. } => kernel.closing = Some(how),
                Op::Move(departure) => {
                    assert!(kernel.sending.is_none(), "no send is under way");
                    kernel.is_armed = false;
                    kernel.moving = Some(departure);
                }
                Op::Accept { .. }
                | Op::StopAccepting
                | Op::Connect(_)
                | Op::Discard { .. }
                | Op::Pause { .. }
                | Op::Look { .. }
                | Op::SetUserTimeout { .. } => panic!("nobody asked for that: {op:?}"),
            }
        }
    }

    fn take(&mut self, step: Step) {
        let conn = self.conn;
        let can_receive = self.kernel.is_armed && self.kernel.closing.is_none();
        match step {
            Step::PeerSays(size) if !self.peer.has_ended && !self.peer.is_done => {
                self.peer.say(size);
            }
            Step::Delivered(size) => self.deliver(size),
            Step::GatewaySays(size) => self.say(size),
            Step::Sent(size) => self.send(size),
            Step::SendFails => self.fail_send(),
            Step::Starved if can_receive => {
                self.kernel.is_armed = false;
                self.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Starved });
                self.receive_again();
            }
            Step::PeerEnds => self.peer.has_ended = true,
            Step::ReceiveFails if can_receive => {
                self.kernel.is_armed = false;
                let end = ReceiveEnd::Fault(IoFault::Reset);
                self.complete(Completion::ReceiveEnded { conn, end });
                self.peer.is_done = true;
            }
            Step::Turn => self.turn(),
            Step::TimePasses(millis) => self.now += Span::from_millis(millis),
            Step::GatewayMoves => self.leave(),
            Step::Departs => self.depart(),
            Step::CannotDepart if self.kernel.moving.take().is_some() => {
                self.complete(Completion::Stayed { conn, why: Stay::NoRoom });
            }
            Step::GatewayCloses(how) => self.close(how),
            // Only TLS notices.
            Step::Garbled if self.peer.tls.is_some() => {
                if let Some(last) = self.peer.wire.last_mut() {
                    *last ^= 0x55;
                    self.peer.is_done = true;
                }
            }
            Step::PeerSays(_)
            | Step::Starved
            | Step::ReceiveFails
            | Step::CannotDepart
            | Step::Garbled => {}
        }
    }

    /// As the gateway does when its receive was ended by the kernel.
    fn receive_again(&mut self) {
        if self.gate.is_at_rest() && !self.gate.is_over && !self.gate.is_armed {
            self.gate.is_armed = true;
            self.ask(vec![Op::Receive { conn: self.conn }]);
        }
    }

    fn deliver(&mut self, size: usize) {
        let conn = self.conn;
        let size = size.min(self.peer.wire.len()).min(4_096);
        if self.kernel.closing.is_some() {
            return;
        }
        if let Some(departure) = &mut self.kernel.moving {
            let room = limits::MOVE_BYTES_MAX.saturating_sub(departure.bytes.len());
            departure.bytes.extend(self.peer.wire.drain(..size.min(room)));
            return;
        }
        if !self.kernel.is_armed {
            return;
        }
        if size > 0 {
            let bytes: Vec<u8> = self.peer.wire.drain(..size).collect();
            self.complete(Completion::Received { conn, bytes: &bytes });
        } else if self.peer.has_ended {
            self.kernel.is_armed = false;
            self.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
        }
    }

    /// The gateway says something, once it has heard something.
    fn say(&mut self, size: usize) {
        let gate = &mut self.gate;
        let may = gate.is_at_rest() && gate.sending.is_none() && !gate.is_broken;
        if !may || gate.heard.is_empty() || gate.is_over {
            return;
        }
        let from = gate.said.len();
        let words: Vec<u8> = (0..89).cycle().skip(from % 89).take(size).collect();
        gate.said.extend_from_slice(&words);
        gate.sending = Some(words.clone());
        self.ask(vec![Op::Send { conn: self.conn, chunk: Chunk::from(words) }]);
    }

    fn send(&mut self, size: usize) {
        let Some(chunk) = self.kernel.sending.take() else { return };
        let size = size.min(chunk.len());
        self.peer.hear(&chunk.unsent()[..size]);
        self.complete(Completion::Sent { conn: self.conn, chunk, result: Ok(size) });
    }

    fn fail_send(&mut self) {
        let Some(chunk) = self.kernel.sending.take() else { return };
        self.peer.is_done = true;
        let result = Err(IoFault::Reset);
        self.complete(Completion::Sent { conn: self.conn, chunk, result });
    }

    fn turn(&mut self) {
        let gate = &mut self.gate;
        self.shards[self.at].work(self.now, |told| gate.hear(told));
        self.ask(Vec::new());
    }

    /// The gateway gives the connection away, with the latest of what it has heard.
    fn leave(&mut self) {
        let gate = &mut self.gate;
        let may = gate.is_at_rest() && gate.sending.is_none() && !gate.is_over && !gate.is_broken;
        // A gateway that knows whose it is has heard that here.
        if !may || !gate.has_heard_here || gate.stayed.is_some() {
            return;
        }
        let bytes = gate.heard.split_off(gate.heard.len().saturating_sub(200));
        gate.is_moving = true;
        let peer = ([192, 0, 2, 1], 9).into();
        let departure = Move { conn: self.conn, to: 1, peer, bytes };
        self.ask(vec![Op::Move(Box::new(departure))]);
    }

    /// The kernel has given it away, and the other shard's has it.
    fn depart(&mut self) {
        let Some(departure) = self.kernel.moving.take() else { return };
        let baggage: Baggage = self.shards[self.at].pack(self.conn);
        self.complete(Completion::Moved { conn: self.conn });
        assert_eq!(self.shards[self.at].stats().wrapped, 0, "nothing is left behind");
        self.at = 1 - self.at;
        self.conn.slot += 1;
        self.kernel = Kernel::default();
        (self.gate.is_armed, self.gate.is_moving) = (false, false);
        (self.gate.has_heard_here, self.gate.is_introduced) = (false, false);
        let (socket, bytes) = (SocketHandle(u64::from(self.conn.slot)), &departure.bytes);
        self.complete(Completion::Arrived { socket, peer: departure.peer, bytes, baggage });
        let (socket, bytes) = self.gate.arrived.take().expect("it arrived");
        // What came with it is heard before anything else.
        self.gate.heard.extend_from_slice(&bytes);
        self.gate.has_heard_here = !bytes.is_empty();
        self.adopt(socket);
    }

    fn close(&mut self, how: CloseHow) {
        if self.gate.is_at_rest() {
            self.gate.has_closed = true;
            self.ask(vec![Op::Close { conn: self.conn, how }]);
        }
    }

    /// The kernel does what it was asked for about the end.
    fn finish_close(&mut self) {
        let conn = self.conn;
        if self.kernel.closing.is_none() {
            return;
        }
        if let Some(chunk) = self.kernel.sending.take() {
            let result = Err(IoFault::Cancelled);
            self.complete(Completion::Sent { conn, chunk, result });
        }
        self.complete(Completion::Closed { conn });
        self.kernel = Kernel::default();
    }

    /// Everything comes to its end.
    fn end(&mut self) {
        let mut is_quiet = false;
        for _ in 0..ROUNDS_MAX {
            let before = self.happened;
            self.turn();
            self.depart();
            self.receive_again();
            self.deliver(4_096);
            self.send(usize::MAX);
            self.finish_close();
            let layers = &self.shards[self.at];
            is_quiet =
                before == self.happened && self.kernel.sending.is_none() && !layers.has_work();
            if is_quiet && self.kernel.moving.is_none() && self.kernel.closing.is_none() {
                break;
            }
        }
        assert!(is_quiet, "it does not come to rest");
        let Self { gate, peer, .. } = self;
        // What was to travel is not heard again by who stays: it is refused.
        let is_heard = peer.said.starts_with(&gate.heard) || gate.stayed.is_some();
        assert!(is_heard, "heard what was not said");
        assert!(gate.said.starts_with(&peer.heard), "said what was not meant");
        let nobody_ended_it = gate.is_at_rest() && !gate.is_over && !peer.is_done;
        if nobody_ended_it && !gate.is_broken && gate.stayed.is_none() {
            assert_eq!(peer.said.len(), gate.heard.len(), "everything is heard");
            assert_eq!(gate.said.len(), peer.heard.len(), "both ways");
        }
        if let Some(reason) = gate.spoilt {
            let is_own = matches!(reason, CloseReason::Flood | CloseReason::SlowConsumer);
            assert!(is_own || peer.is_done, "{reason} without a reason");
        }
        self.close(CloseHow::Finish);
        for _ in 0..3 {
            self.now += limits::LAYER_LINGER;
            self.turn();
            self.finish_close();
        }
        assert!(self.gate.is_gone, "it stays for ever");
        assert!(self.shards.iter().all(|layers| layers.stats().wrapped == 0), "something is left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_seeds_of_the_fuzzer_hold() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/layers");
        let mut seeds = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            keep_the_contract(&std::fs::read(file.unwrap().path()).unwrap());
            seeds += 1;
        }
        assert!(seeds > 0, "the fuzzer has seeds");
    }

    proptest! {
        #[test]
        fn layers_keep_the_contract(kind in 0..4_u8, story in vec(any::<u8>(), 0..240)) {
            keep_the_contract(&[&[kind][..], &story].concat());
        }
    }
}
