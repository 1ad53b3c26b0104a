//! Promise P8: beats allocate nothing, once every buffer has its size.

use heartwheel::base::config::GatewayConfig;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Op, SocketHandle};
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::Gateway;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

const CLIENTS: u64 = 2_000;

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
            | Op::Send { .. }
            | Op::Look { .. }
            | Op::SetUserTimeout { .. }
            | Op::Close { .. } => None,
        });
        let conn = conn.expect("a connection");
        let mut hello = Vec::new();
        native::encode_preface(native::VERSIONS, &mut hello);
        let client_id = format!("client-{number}");
        let message = Message::Hello {
            wanted_interval_ms: 0,
            client_id: &client_id,
            class: "",
            token: &[],
            resume: &[],
            last_seq: 0,
            before: None,
        };
        native::encode(&message, &mut hello);
        self.gateway.on_completion(Completion::Received { conn, bytes: &hello }, self.now);
        self.settle();
        conn
    }
}

#[test]
fn a_million_beats_allocate_nothing() {
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
