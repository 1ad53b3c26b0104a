//! Promise P8: beats allocate nothing, once every buffer has its size.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;

use heartwheel::base::config::GatewayConfig;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Op, SocketHandle};
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::Gateway;
use heartwheel::os::driver::DriverKind;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

const CLIENTS: u64 = 2_000;

/// The allocator has one set of books.
static BOOKS: Mutex<()> = Mutex::new(());

fn hello(client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode_preface(native::VERSIONS, &mut bytes);
    let message = Message::Hello {
        wanted_interval_ms: 0,
        client_id,
        class: "",
        token: &[],
        resume: &[],
        last_seq: 0,
        before: None,
    };
    native::encode(&message, &mut bytes);
    bytes
}

/// The gateway with a kernel that sends everything at once.
struct Stage {
    gateway: Gateway,
    now: Moment,
    ops: Vec<Op>,
}

impl Stage {
    fn settle(&mut self) {
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        self.gateway.take_ops(&mut self.ops);
        let Some(op) = self.ops.pop() else { return false };
        if let Op::Send { conn, chunk } = op {
            let result = Ok(chunk.len());
            self.gateway.on_completion(Completion::Sent { conn, chunk, result }, self.now);
        }
        true
    }

    fn login(&mut self, number: u64) -> ConnId {
        let peer = "127.0.0.1:9".parse().expect("an address");
        let socket = SocketHandle(number);
        self.gateway.on_completion(Completion::Accepted { socket, peer }, self.now);
        self.gateway.take_ops(&mut self.ops);
        let conn = self.ops.iter().find_map(|op| match op {
            Op::Adopt { conn, .. } => Some(*conn),
            Op::Accept { .. }
            | Op::StopAccepting
            | Op::Connect(_)
            | Op::Discard { .. }
            | Op::Receive { .. }
            | Op::Pause { .. }
            | Op::Send { .. }
            | Op::Look { .. }
            | Op::SetUserTimeout { .. }
            | Op::Move(_)
            | Op::Close { .. } => None,
        });
        let conn = conn.expect("a connection");
        let hello = hello(&format!("client-{number}"));
        self.gateway.on_completion(Completion::Received { conn, bytes: &hello }, self.now);
        self.settle();
        conn
    }
}

#[test]
fn a_million_beats_allocate_nothing() {
    let _books = BOOKS.lock();
    let _profiler = dhat::Profiler::builder().testing().build();
    let config = GatewayConfig { connections_max: 3_000, ..GatewayConfig::default() };
    let now = Moment::from_millis(1);
    let mut stage = Stage { gateway: Gateway::new(config, now), now, ops: Vec::new() };
    let conns: Vec<ConnId> = (0..CLIENTS).map(|number| stage.login(number)).collect();
    stage.gateway.take_events(&mut Vec::new(), usize::MAX);
    let mut pings = Vec::new();
    native::encode(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" }, &mut pings);
    native::encode(&Message::Ping { reply: Reply::NotWanted, payload: b"" }, &mut pings);

    let beat_round = |stage: &mut Stage| {
        for conn in &conns {
            let received = Completion::Received { conn: *conn, bytes: &pings };
            stage.gateway.on_completion(received, stage.now);
            stage.settle();
        }
        stage.now += Span::from_secs(15);
        stage.gateway.on_time(stage.now);
    };
    for _ in 0..10 {
        beat_round(&mut stage);
    }
    let before = dhat::HeapStats::get();
    for _ in 0..250 {
        beat_round(&mut stage);
    }
    let after = dhat::HeapStats::get();
    assert_eq!(after.total_blocks - before.total_blocks, 0, "allocations in 1,000,000 beats");
    let stats = stage.gateway.stats();
    assert_eq!(stats.online as u64, CLIENTS);
    assert_eq!(stats.frames_received, CLIENTS * (1 + 2 * 260));
}

#[test]
fn beats_over_real_sockets_allocate_nothing_either() {
    for driver in [DriverKind::IoUring, DriverKind::Epoll] {
        println!("{driver:?}");
        beats_allocate_nothing(driver);
    }
}

fn beats_allocate_nothing(driver: DriverKind) {
    const BEATS: u64 = 20_000;
    let _books = BOOKS.lock();
    let _profiler = dhat::Profiler::builder().testing().build();
    let (address, stop) = serve(driver);
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("an option");
    stream.write_all(&hello("beating")).expect("sends");
    let mut welcome = [0; 256];
    assert!(stream.read(&mut welcome).expect("receives") > 0);
    let mut ping = Vec::new();
    native::encode(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" }, &mut ping);
    let mut pong = vec![0; ping.len()];
    let mut beat = |count: u64| {
        for _ in 0..count {
            stream.write_all(&ping).expect("sends");
            stream.read_exact(&mut pong).expect("receives");
        }
    };
    beat(1_000);
    let (before, began) = (dhat::HeapStats::get(), std::time::Instant::now());
    beat(BEATS);
    let blocks = dhat::HeapStats::get().total_blocks - before.total_blocks;
    // Once a second the loop tells how things are: its counts, the classes in them, its turns.
    let reports = began.elapsed().as_secs() + 1;
    assert!(blocks <= 4 * reports, "{blocks} allocations in {BEATS} beats");
    stop();
}

/// A server on a thread of its own, where it is, and how to stop it.
fn serve(driver: DriverKind) -> (std::net::SocketAddr, impl FnOnce()) {
    use heartwheel::gateway::{Command, Drain};
    use heartwheel::os::machine::{self, Survey, Wanted};
    use heartwheel::os::{clock::Clock, socket};
    use heartwheel::server::Server;

    let any_port = "127.0.0.1:0".parse().expect("an address");
    let listener = socket::listen(any_port, &socket::ListenOptions::default()).expect("listens");
    let address = listener.local_address();
    let (asker_in, asker_out) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let plan = Survey { driver_wanted: Some(driver), ..machine::survey() }
            .plan(Wanted::UpTo(64))
            .expect("either driver works");
        let driver = plan.driver_config(Some(listener));
        let config = GatewayConfig { connections_max: 64, ..GatewayConfig::default() };
        let (mut server, asker, _) =
            Server::new(driver, config, Clock::new()).expect("io_uring works");
        asker_in.send(asker).expect("the test waits");
        server.run().expect("the ring holds");
    });
    let mut asker = asker_out.recv().expect("the server starts");
    let stop = move || {
        asker
            .ask(Command::Drain(Drain::at_once(Span::from_millis(10))))
            .expect("room for a question");
        thread.join().expect("the server ends");
    };
    (address, stop)
}
