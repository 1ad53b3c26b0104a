//! Sends that say nothing when they succeed: what the driver concludes from the silence is true.

use std::io::{Read, Write};
use std::time::Duration;

use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Chunk, Op};
use heartwheel::base::time::Span;
use heartwheel::os::ring::RingSizes;

use crate::rig::{Rig, Seen};
use crate::{each_ring, each_way, sizes};

/// More than any socket takes at once.
const FAR_TOO_MUCH: usize = 16_000_000;

/// Bytes that tell where in the stream they belong.
fn stream(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| at.to_be_bytes()[6] ^ at.to_be_bytes()[5]).collect()
}

#[test]
fn a_send_that_succeeds_makes_no_completion() {
    each_ring(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        let before = rig.driver.stats().completions;
        for round in 0..100_u8 {
            assert_eq!(rig.send(conn, &[round; 8]), Ok(8));
            let mut answer = [0; 8];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [round; 8]);
        }
        assert_eq!(rig.driver.stats().completions, before);
        rig.assert_quiet(1);
    });
}

#[test]
fn a_send_for_which_there_is_no_room_waits_and_is_told_of() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        // What fits is sent at once, and told of exactly.
        let mut sent = rig.send(conn, &stream(0, FAR_TOO_MUCH)).unwrap();
        assert!((1..FAR_TOO_MUCH).contains(&sent), "{sent}");
        // In the end nothing fits any more, and nothing is told.
        loop {
            rig.ask(Op::Send { conn, chunk: Chunk::from(stream(sent, 1_000_000)) });
            rig.turn(Duration::from_millis(50));
            match rig.seen.pop() {
                Some(Seen::Sent(of, _, result)) if of == conn => sent += result.unwrap(),
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        let in_flight = rig.driver.stats().in_flight;
        assert_eq!(in_flight, 2, "a receive and a send");
        // Room is made, and what was sent then is told.
        let mut read = vec![0; sent];
        peer.read_exact(&mut read).unwrap();
        let more = rig.sent(conn).unwrap();
        assert!((1..=1_000_000).contains(&more), "{more}");
        read.resize(sent + more, 0);
        peer.read_exact(&mut read[sent..]).unwrap();
        assert!(read == stream(0, sent + more), "bytes are in order");
    });
}

#[test]
fn failures_that_find_no_room_in_the_queue_are_not_taken_for_success() {
    each_ring(|way| {
        let tiny = RingSizes { sq_entries: 32, cq_entries: 32, ..sizes() };
        let mut rig = Rig::new(way, tiny, 64);
        let mut pairs = rig.crowd(24);
        let overflows = rig.driver.stats().overflows;
        // What comes in fills most of the queue, and is left there.
        for (peer, _) in &mut pairs {
            peer.write_all(b"x").unwrap();
        }
        rig.driver.enter(Span::ZERO).unwrap();
        let bytes = stream(0, FAR_TOO_MUCH / 2);
        for (_, conn) in &pairs {
            rig.ask(Op::Send { conn: *conn, chunk: Chunk::from(bytes.clone()) });
        }
        let told: Vec<(ConnId, usize)> =
            pairs.iter().map(|(_, conn)| (*conn, rig.sent(*conn).unwrap())).collect();
        for ((peer, conn), (of, count)) in pairs.iter_mut().zip(told) {
            assert_eq!(*conn, of);
            assert!((1..bytes.len()).contains(&count), "{count} bytes cannot have been sent");
            let mut read = vec![0; count];
            peer.read_exact(&mut read).unwrap();
            assert!(read == bytes[..count], "bytes are in order");
            peer.set_nonblocking(true).unwrap();
            assert!(peer.read(&mut [0]).is_err(), "more was sent than was told");
        }
        assert!(rig.driver.stats().overflows > overflows, "the test overflows nothing");
        rig.seen.clear();
    });
}

#[test]
fn sends_that_the_kernel_has_not_taken_yet_are_not_told() {
    each_ring(|way| {
        let few = RingSizes { sq_entries: 2, ..sizes() };
        let mut rig = Rig::new(way, few, 64);
        let mut pairs = rig.crowd(40);
        for (_, conn) in &pairs {
            rig.ask(Op::Send { conn: *conn, chunk: Chunk::from(vec![9; 8]) });
        }
        let seen = &mut rig.seen;
        rig.driver.reap(1_024, |completion| seen.push(Seen::of(completion)));
        assert_eq!(rig.seen, [], "nothing was entered");
        for (peer, conn) in &mut pairs {
            assert_eq!(rig.sent(*conn), Ok(8));
            peer.read_exact(&mut [0; 8]).unwrap();
        }
        rig.assert_quiet(40);
    });
}
