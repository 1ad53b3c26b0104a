//! What does one heartbeat cost above the kernel, and what with it?
//!
//! `pure`: receive → decode → touch → answer → sent, with the real gateway and no ring, over as
//! many clients as named, in random order. The answer bounds what the seam of two enums can cost.
//! `announced`: the gateway hears of each client a few beats before, as io_uring's driver does it.
//! `kernel`: one PING and its PONG over a real socket, the server on a thread of its own.
//!
//! With `BEATS` set it sends so many answered beats over `CLIENTS` clients and measures nothing:
//! for valgrind, which counts instructions and cache misses. What the clients' coming costs is the
//! same with `BEATS=0`.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use heartwheel::base::config::GatewayConfig;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Op, SocketHandle};
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::Gateway;
use heartwheel::os::prefetch::prefetch;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;

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

fn ping(reply: Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode(&Message::Ping { reply, payload: b"12345678" }, &mut bytes);
    bytes
}

/// A gateway with clients online, and their connections in random order.
fn crowd(clients: u32) -> (Gateway, Vec<ConnId>) {
    let config = GatewayConfig { connections_max: clients, ..GatewayConfig::default() };
    let now = Moment::from_millis(1);
    let mut gateway = Gateway::new(config, now);
    let mut ops = Vec::new();
    let mut conns = Vec::new();
    for number in 0..clients {
        let peer = "127.0.0.1:9".parse().expect("an address");
        let socket = SocketHandle(u64::from(number));
        gateway.on_completion(Completion::Accepted { socket, peer }, now);
        gateway.take_ops(&mut ops);
        let mut adopted = None;
        for op in ops.drain(..) {
            if let Op::Adopt { conn, .. } = op {
                adopted = Some(conn);
            }
        }
        let conn = adopted.expect("a connection");
        let bytes = hello(&format!("client-{number}"));
        gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
        send_all(&mut gateway, &mut ops, now);
        conns.push(conn);
    }
    gateway.take_events(&mut Vec::new(), usize::MAX);
    fastrand::Rng::with_seed(7).shuffle(&mut conns);
    (gateway, conns)
}

fn send_all(gateway: &mut Gateway, ops: &mut Vec<Op>, now: Moment) {
    gateway.take_ops(ops);
    for op in ops.drain(..) {
        if let Op::Send { conn, chunk } = op {
            let result = Ok(chunk.len());
            gateway.on_completion(Completion::Sent { conn, chunk, result }, now);
        }
    }
}

fn pure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heartbeat/pure");
    group.throughput(Throughput::Elements(1));
    let sizes: &[u32] = if is_test() { &[100] } else { &[10_000, 100_000, 1_000_000] };
    for &clients in sizes {
        let (mut gateway, conns) = crowd(clients);
        let mut ops = Vec::new();
        let (mut next, mut now) = (0, Moment::from_millis(1));
        for (name, reply, ahead) in [
            ("answered", Reply::Wanted, None),
            // As far ahead as the driver does it.
            ("answered_announced", Reply::Wanted, Some(8)),
            ("no_reply", Reply::NotWanted, None),
        ] {
            let bytes = ping(reply);
            group.bench_function(BenchmarkId::new(name, clients), |bencher| {
                bencher.iter(|| {
                    let later = ahead.and_then(|ahead| conns.get(next + ahead));
                    let memory = later.and_then(|later| gateway.memory(later.slot));
                    memory.into_iter().flatten().for_each(prefetch);
                    let received = Completion::Received { conn: conns[next], bytes: &bytes };
                    gateway.on_completion(black_box(received), now);
                    send_all(&mut gateway, &mut ops, now);
                    next += 1;
                    if next == conns.len() {
                        next = 0;
                        now += Span::from_secs(15);
                    }
                    if next % 1_024 == 0 {
                        gateway.on_time(now);
                    }
                });
            });
        }
    }
    group.finish();
}

fn kernel(criterion: &mut Criterion) {
    let (address, stop) = serve();
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("an option");
    stream.write_all(&hello("bench")).expect("sends");
    let mut welcome = [0; 256];
    assert!(stream.read(&mut welcome).expect("receives") > 0);
    let bytes = ping(Reply::Wanted);
    let mut pong = vec![0; bytes.len()];
    let mut group = criterion.benchmark_group("heartbeat/kernel");
    group.measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(1));
    group.bench_function("round_trip", |bencher| {
        bencher.iter(|| {
            stream.write_all(&bytes).expect("sends");
            stream.read_exact(&mut pong).expect("receives");
        });
    });
    group.finish();
    stop();
}

/// A server on a thread of its own, and how to stop it.
fn serve() -> (std::net::SocketAddr, impl FnOnce()) {
    use heartwheel::gateway::{Command, Drain};
    use heartwheel::os::ring::DriverConfig;
    use heartwheel::os::{clock::Clock, socket};
    use heartwheel::server::Server;

    let options = socket::ListenOptions::default();
    let listener =
        socket::listen("127.0.0.1:0".parse().expect("an address"), &options).expect("listens");
    let address = listener.local_address();
    let (asker_in, asker_out) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let descriptors = heartwheel::os::ring::Descriptors::Direct;
        let sizes = heartwheel::os::ring::RingSizes::new(128, 20_000);
        let driver =
            DriverConfig { connections_max: 128, descriptors, listener: Some(listener), sizes };
        let config = GatewayConfig { connections_max: 32, ..GatewayConfig::default() };
        let (mut server, asker, reader) =
            Server::new(driver, config, Clock::new()).expect("io_uring works");
        drop(reader);
        asker_in.send(asker).expect("the bench waits");
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

fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Beats in the order of `pure`, for valgrind to count.
fn counted(clients: u32, beats: u32) {
    let (mut gateway, conns) = crowd(clients);
    let (mut ops, mut now) = (Vec::new(), Moment::from_millis(1));
    let bytes = ping(Reply::Wanted);
    for (beat, conn) in (1..=beats).zip(conns.iter().cycle()) {
        gateway.on_completion(Completion::Received { conn: *conn, bytes: &bytes }, now);
        send_all(&mut gateway, &mut ops, now);
        if beat % 1_024 == 0 {
            now += Span::from_millis(10);
            gateway.on_time(now);
        }
    }
}

fn number(variable: &str) -> Option<u32> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

criterion_group!(benches, pure, kernel);

fn main() {
    if let Some(beats) = number("BEATS") {
        return counted(number("CLIENTS").unwrap_or(1_000), beats);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
