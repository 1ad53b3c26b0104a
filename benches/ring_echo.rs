//! One beat there and back with the kernel in between: eight bytes over loopback, by the driver.

#![allow(missing_docs, reason = "the macros of criterion make undocumented functions")]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;

use criterion::{Criterion, criterion_group, criterion_main};
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Chunk, Completion, Op};
use heartwheel::os::driver::{Driver, DriverConfig, More};
use heartwheel::os::ring::{Descriptors, RingSizes};
use heartwheel::os::socket::{ListenOptions, Listener, listen};
use heartwheel::os::{epoll, ring};

const CONN: ConnId = ConnId { slot: 0, generation: 1 };

/// A server that says everything twice.
struct Echo {
    driver: Driver,
    ops: Vec<Op>,
    chunk: Chunk,
    sent: usize,
}

impl Echo {
    fn new(config: impl Fn(Listener) -> DriverConfig) -> (Self, TcpStream) {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = listen(address, &ListenOptions::default()).expect("a free port");
        let address = listener.local_address();
        let driver = Driver::new(config(listener)).expect("a driver");
        let ops = vec![Op::Accept { count: 1 }];
        let mut echo = Self { driver, ops, chunk: Chunk::new(), sent: 0 };
        let peer = TcpStream::connect(address).expect("it listens");
        peer.set_nodelay(true).expect("a TCP socket");
        while echo.driver.connections() == 0 {
            echo.turn();
        }
        (echo, peer)
    }

    /// One turn of a loop like the server's.
    fn turn(&mut self) {
        self.driver.submit(&mut self.ops);
        self.driver.wait(None).expect("it works");
        loop {
            let Self { driver, ops, chunk, sent } = self;
            let drained = driver
                .drain(1_024, |completion| match completion {
                    Completion::Accepted { socket, .. } => {
                        ops.push(Op::Adopt { socket, conn: CONN });
                        ops.push(Op::Receive { conn: CONN });
                    }
                    Completion::Received { conn, bytes } => {
                        let mut answer = std::mem::take(chunk);
                        answer.clear();
                        answer.buffer().extend_from_slice(bytes);
                        ops.push(Op::Send { conn, chunk: answer });
                    }
                    Completion::Sent { chunk: home, .. } => {
                        *chunk = home;
                        *sent += 1;
                    }
                    other @ (Completion::AcceptFailed { .. }
                    | Completion::Connected { .. }
                    | Completion::ConnectFailed { .. }
                    | Completion::ReceiveEnded { .. }
                    | Completion::Looked { .. }
                    | Completion::Closed { .. }
                    | Completion::Introduced { .. }
                    | Completion::Spoilt { .. }
                    | Completion::Moved { .. }
                    | Completion::Stayed { .. }
                    | Completion::Arrived { .. }
                    | Completion::ArrivalFailed { .. }) => panic!("{other:?}"),
                })
                .expect("it works");
            self.driver.submit(&mut self.ops);
            if drained.more == More::Nothing {
                break;
            }
        }
    }

    fn answer_one(&mut self) {
        let before = self.sent;
        while self.sent == before {
            self.turn();
        }
    }
}

fn on_ring(descriptors: Descriptors) -> impl Fn(Listener) -> DriverConfig {
    move |listener| {
        let (listener, sizes) = (Some(listener), RingSizes::new(16, 16));
        ring::DriverConfig { connections_max: 16, descriptors, listener, sizes }.into()
    }
}

fn on_epoll(listener: Listener) -> DriverConfig {
    epoll::DriverConfig { connections_max: 16, listener: Some(listener) }.into()
}

fn ring_echo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring_echo");
    for (name, (mut echo, mut peer)) in [
        ("direct", Echo::new(on_ring(Descriptors::Direct))),
        ("ordinary", Echo::new(on_ring(Descriptors::Ordinary))),
        ("epoll", Echo::new(on_epoll)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                peer.write_all(black_box(b"12345678")).expect("connected");
                echo.answer_one();
                let mut answer = [0; 8];
                peer.read_exact(&mut answer).expect("connected");
                answer
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ring_echo);
criterion_main!(benches);
