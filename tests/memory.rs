//! Promise: an idle, identified connection costs at most 256 bytes of this process.
//!
//! Everything is counted that grows with the connections: what the gateway holds on the heap, the
//! driver's books, and the rings, where one ring holds 20,000. 100,000 unless `CONNECTIONS` says
//! otherwise.

#[path = "tls/papers.rs"]
#[allow(dead_code, reason = "shared with the tests of TLS, which use more of it")]
mod papers;

use std::sync::{Arc, Mutex};

use heartwheel::base::config::GatewayConfig;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Op, SocketHandle};
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::Gateway;
use heartwheel::layers::Layers;
use heartwheel::layers::terms::{Begin, SharedTerms, Terms};
use heartwheel::layers::tls::{Dial, Files, Serve};
use heartwheel::os::ring::{BOOKS_BYTES, RingSizes};
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

/// The allocator has one set of books.
static BOOKS: Mutex<()> = Mutex::new(());

const CONNECTIONS_DEFAULT: u32 = 100_000;
/// The promise.
const BYTES_MAX: f64 = 256.0;
/// What the allocator adds to a block at most: 8 bytes before it, and rounding to 16.
const BLOCK_BYTES_MAX: usize = 8 + 15;
/// A usual limit of open files, and so of the files in one ring.
const FILES_PER_RING: u32 = 20_000;
/// Events are taken after so many logins, as the loop does once a turn.
const TURN_LOGINS: u32 = 64;

/// The gateway with a kernel that sends everything at once.
struct Stage {
    gateway: Gateway,
    now: Moment,
    ops: Vec<Op>,
    opening: Vec<u8>,
}

impl Stage {
    fn new(connections: u32) -> Self {
        let config = GatewayConfig { connections_max: connections, ..GatewayConfig::default() };
        let now = Moment::from_millis(1);
        Self { gateway: Gateway::new(config, now), now, ops: Vec::new(), opening: Vec::new() }
    }

    /// Carries out what is asked for, and says which connection was adopted.
    fn settle(&mut self) -> Option<ConnId> {
        let mut adopted = None;
        loop {
            self.gateway.take_ops(&mut self.ops);
            let Some(op) = self.ops.pop() else { return adopted };
            match op {
                Op::Adopt { conn, .. } => adopted = Some(conn),
                Op::Send { conn, chunk } => {
                    let result = Ok(chunk.len());
                    let sent = Completion::Sent { conn, chunk, result };
                    self.gateway.on_completion(sent, self.now);
                }
                Op::Accept { .. } | Op::Receive { .. } => {}
                Op::StopAccepting
                | Op::Connect(_)
                | Op::Discard { .. }
                | Op::Look { .. }
                | Op::Pause { .. }
                | Op::SetUserTimeout { .. }
                | Op::Move(_)
                | Op::Close { .. } => panic!("nothing else is asked for: {op:?}"),
            }
        }
    }

    fn accept(&mut self, number: u32) -> ConnId {
        let peer = ([127, 0, 0, 1], 9).into();
        let socket = SocketHandle(u64::from(number));
        self.gateway.on_completion(Completion::Accepted { socket, peer }, self.now);
        self.settle().expect("a connection")
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.gateway.on_completion(Completion::Received { conn, bytes }, self.now);
        self.settle();
    }

    fn login(&mut self, number: u32) -> ConnId {
        let conn = self.accept(number);
        let mut opening = std::mem::take(&mut self.opening);
        opening.clear();
        open(number, &mut opening);
        self.receive(conn, &opening);
        self.opening = opening;
        conn
    }

    /// So many clients come, and time goes on a little while they do.
    fn crowd(&mut self, connections: u32) {
        let mut events = Vec::new();
        for number in 0..connections {
            self.login(number);
            if number % TURN_LOGINS == 0 {
                self.now += Span::from_millis(1);
                self.gateway.on_time(self.now);
                self.gateway.take_events(&mut events, usize::MAX);
                events.clear();
            }
        }
        self.gateway.take_events(&mut events, usize::MAX);
    }
}

/// Preface and HELLO.
fn open(number: u32, out: &mut Vec<u8>) {
    native::encode_preface(native::VERSIONS, out);
    let message = Message::Hello {
        wanted_interval_ms: 0,
        client_id: &format!("device-{number:08}"),
        class: "",
        token: &[],
        resume: &[],
        last_seq: 0,
        before: None,
    };
    native::encode(&message, out);
}

/// Bytes and blocks on the heap.
fn heap() -> (usize, usize) {
    let stats = dhat::HeapStats::get();
    (stats.curr_bytes, stats.curr_blocks)
}

#[test]
fn an_idle_connection_costs_at_most_256_bytes() {
    let _books = BOOKS.lock();
    let _profiler = dhat::Profiler::builder().testing().build();
    let connections = match std::env::var("CONNECTIONS") {
        Ok(text) => text.parse().expect("CONNECTIONS is a number"),
        Err(_) => CONNECTIONS_DEFAULT,
    };
    let (bytes_before, blocks_before) = heap();
    let mut stage = Stage::new(connections);
    stage.crowd(connections);
    let (bytes, blocks) = heap();
    assert_eq!(stage.gateway.stats().online, connections as usize);
    // Vectors of the driver's books double.
    let books = connections.next_power_of_two() as usize * BOOKS_BYTES;
    let sizes = RingSizes::new(connections, FILES_PER_RING);
    let rings = connections.div_ceil(FILES_PER_RING) as usize * sizes.ring_bytes();
    let blocks = blocks - blocks_before;
    let mut sum = 0.0;
    println!("{connections} idle connections, bytes for each:");
    for (name, bytes) in [
        ("gateway", bytes - bytes_before),
        ("the allocator's own", blocks * BLOCK_BYTES_MAX),
        ("the driver's books", books),
        ("rings", rings),
    ] {
        let each = bytes as f64 / f64::from(connections);
        println!("  {each:6.1} {name}");
        sum += each;
    }
    println!("  {sum:6.1} in all");
    assert!(sum <= BYTES_MAX, "{sum:.1} bytes for each connection");
}

/// Nothing is held for receiving while a connection is idle, whatever it received before.
#[test]
fn what_a_frame_in_two_parts_took_is_given_back() {
    const CONNECTIONS: u32 = 1_000;
    let _books = BOOKS.lock();
    let _profiler = dhat::Profiler::builder().testing().build();
    let (_, blocks_before) = heap();
    let mut stage = Stage::new(CONNECTIONS);
    let mut opening = Vec::new();
    let mut conns = Vec::new();
    for number in 0..CONNECTIONS {
        let conn = stage.accept(number);
        opening.clear();
        open(number, &mut opening);
        // The preface alone, and then HELLO in two parts.
        for part in [&opening[..8], &opening[8..20], &opening[20..]] {
            stage.receive(conn, part);
        }
        conns.push(conn);
    }
    assert_eq!(stage.gateway.stats().online, CONNECTIONS as usize);
    let mut ping = Vec::new();
    native::encode(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" }, &mut ping);
    let (idle, blocks) = heap();
    let blocks = blocks - blocks_before;
    assert!(blocks < CONNECTIONS as usize / 10, "{blocks} blocks for {CONNECTIONS} idle ones");
    for conn in &conns {
        stage.receive(*conn, &ping[..7]);
    }
    let (begun, _) = heap();
    assert!(begun > idle + CONNECTIONS as usize * 7, "a part is kept");
    for conn in &conns {
        stage.receive(*conn, &ping[7..]);
    }
    assert_eq!(heap().0, idle, "and given back");
    assert_eq!(stage.gateway.stats().frames_received, 2 * u64::from(CONNECTIONS));
    stage.gateway.check();
}

/// What an idle connection may cost because it speaks TLS: most of it is the library's.
const TLS_BYTES_MAX: usize = 7_500;

/// A client that comes in by TLS and says something, large or small, and is idle then.
fn come_in(layers: &mut Layers, conn: ConnId, dial: &Dial, size: usize) {
    let now = Moment::from_millis(1);
    let socket = SocketHandle(conn.slot.into());
    let peer = ([127, 0, 0, 1], 9).into();
    layers.on_completion(Completion::Accepted { socket, peer }, |_| {});
    let mut ops = vec![Op::Adopt { socket, conn }];
    layers.on_ops(&mut ops, now);
    let (mut client, mut up, mut heard) = (dial.begin(), Vec::new(), 0);
    client.send(&vec![7; size], &mut up);
    while !up.is_empty() {
        for bytes in std::mem::take(&mut up).chunks(4_096) {
            let received = Completion::Received { conn, bytes };
            layers.on_completion(received, |told| {
                if let Completion::Received { bytes, .. } = told {
                    heard += bytes.len();
                }
            });
        }
        layers.work(now, |_| {});
        ops.clear();
        layers.on_ops(&mut ops, now);
        while let Some(op) = ops.pop() {
            let Op::Send { conn, chunk } = op else { panic!("nothing else is asked for: {op:?}") };
            client.take_in(chunk.unsent(), &mut Vec::new(), &mut up).expect("it goes on");
            let result = Ok(chunk.len());
            layers.on_completion(Completion::Sent { conn, chunk, result }, |_| {});
            layers.on_ops(&mut ops, now);
        }
    }
    assert_eq!(heard, size, "everything was heard");
}

#[test]
fn an_idle_connection_in_tls_gives_its_buffers_back() {
    const CONNECTIONS: u32 = 64;
    let papers = papers::Papers::new();
    let read = |name: &str| std::fs::read(papers.at(name)).expect("it was written");
    let (certificates, key) = (read("gate.pem"), read("gate.key"));
    let files = Files { certificates: &certificates, key: &key, clients: None };
    let serve = Arc::new(Serve::new(files).expect("they are good"));
    let dial = Dial::new(vec![papers.authority()], "localhost").expect("an authority");
    for size in [40, 60_000] {
        let _books = BOOKS.lock();
        let terms = Terms { tls: Some(Arc::clone(&serve) as Arc<dyn Begin>), ..Terms::default() };
        let mut layers = Layers::new(SharedTerms::new(terms));
        let conn = |slot| ConnId { slot, generation: 0 };
        // What the library makes once is made.
        come_in(&mut layers, conn(0), &dial, size);
        let _profiler = dhat::Profiler::builder().testing().build();
        let (before, blocks_before) = heap();
        for slot in 1..=CONNECTIONS {
            come_in(&mut layers, conn(slot), &dial, size);
        }
        let (bytes, blocks) = heap();
        let own = (blocks - blocks_before) * BLOCK_BYTES_MAX;
        let each = (bytes - before + own) / CONNECTIONS as usize;
        println!("{each} bytes for each idle connection in TLS that has said {size}");
        assert!(each <= TLS_BYTES_MAX, "{each} bytes for each that has said {size}");
        assert_eq!(layers.stats().wrapped, CONNECTIONS as usize + 1);
    }
}
