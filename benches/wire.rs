//! What does the codec cost? A beat is one PING in and one PONG out; bursts come from clients that
//! were stuck; HELLO is what a reconnect storm is made of.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use heartwheel::base::limits;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::{Deframer, Inbound, encode};

const PAYLOAD_MAX: usize = limits::PAYLOAD_BYTES_DEFAULT as usize;

fn frame(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out);
    out
}

/// Reads all of `bytes`; how many messages there were.
fn read_all(deframer: &mut Deframer, mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some(inbound)) = deframer.next(&mut bytes, PAYLOAD_MAX) {
        black_box(&inbound);
        count += usize::from(matches!(inbound, Inbound::Message(_)));
    }
    count
}

fn decode(criterion: &mut Criterion) {
    let ping = frame(&Message::Ping { reply: Reply::Wanted, payload: &7u64.to_be_bytes() });
    let burst = ping.repeat(10);
    let hello = frame(&Message::Hello {
        wanted_interval_ms: 15_000,
        client_id: "device-0000042",
        class: "typical",
        token: &[7; 32],
        resume: &[8; 32],
        last_seq: 0,
        before: None,
    });
    let mut group = criterion.benchmark_group("decode");
    for (name, bytes, count) in
        [("ping", &ping, 1), ("burst_of_10_pings", &burst, 10), ("hello", &hello, 1)]
    {
        let mut deframer = Deframer::client_side();
        assert_eq!(read_all(&mut deframer, bytes), count, "{name}");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| read_all(&mut deframer, black_box(bytes)));
        });
    }
    let (head, tail) = ping.split_at(5);
    let mut deframer = Deframer::client_side();
    group.throughput(Throughput::Elements(1));
    group.bench_function("ping_in_two_pieces", |bencher| {
        bencher.iter(|| {
            read_all(&mut deframer, black_box(head)) + read_all(&mut deframer, black_box(tail))
        });
    });
    group.finish();
}

fn encode_pong(criterion: &mut Criterion) {
    let payload = 7u64.to_be_bytes();
    let mut out = Vec::with_capacity(64);
    criterion.bench_function("encode/pong", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&Message::Pong { payload: &payload }), &mut out);
            black_box(out.len())
        });
    });
}

criterion_group!(benches, decode, encode_pong);
criterion_main!(benches);
