//! The drivers on the real kernel: every kind of operation, and every fact about io_uring and epoll
//! that they are built on. Each test runs with direct and with ordinary descriptors, and on epoll.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one thing of many")]

#[path = "ring/chaos.rs"]
mod chaos;
#[path = "ring/edges.rs"]
mod edges;
#[path = "ring/moves.rs"]
mod moves;
#[path = "ring/pause.rs"]
mod pause;
#[path = "ring/rig.rs"]
mod rig;
#[path = "ring/sends.rs"]
mod sends;
#[path = "ring/turns.rs"]
mod turns;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{
    Chunk, CloseHow, Connect, Found, IoFault, Op, ReceiveEnd, SocketHandle,
};
use heartwheel::base::time::Span;
use heartwheel::os::driver::More;
use heartwheel::os::ring::RingSizes;
use heartwheel::os::socket::{KeepAlive, ListenOptions, listen};
use rig::{PATIENCE, Rig, Seen, Way};
use rustix::net::sockopt;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// For what every driver promises.
fn each_way(test: impl Fn(Way) + Sync) {
    Way::ALL.into_iter().for_each(|way| on_its_thread(way, &test));
}

/// For what only io_uring can do to us.
fn each_ring(test: impl Fn(Way) + Sync) {
    [Way::Direct, Way::Ordinary].into_iter().for_each(|way| on_its_thread(way, &test));
}

/// A ring that is gone still interrupts the sleep of the thread that it belonged to.
fn on_its_thread(way: Way, test: &(impl Fn(Way) + Sync)) {
    println!("{way:?}");
    std::thread::scope(|scope| scope.spawn(|| test(way)).join()).unwrap();
}

fn sizes() -> RingSizes {
    RingSizes {
        sq_entries: 64,
        cq_entries: 256,
        buffers: 64,
        buffer_bytes: 64,
        files_per_ring: 1_024,
    }
}

#[test]
fn bytes_go_both_ways() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let mut peer = rig.peer();
        rig.ask(Op::Accept { count: 1 });
        let (socket, from) = rig.accepted_socket();
        assert_eq!(from, peer.local_addr().unwrap());
        let conn = rig.adopt(socket);
        rig.ask(Op::Receive { conn });
        for round in 0..3_u8 {
            peer.write_all(&[round; 8]).unwrap();
            assert_eq!(rig.received(conn, 8), [round; 8]);
            assert_eq!(rig.send(conn, &[round; 5]), Ok(5));
            let mut answer = [0; 5];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [round; 5]);
        }
        rig.close(conn, CloseHow::Finish);
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(rig.driver.connections(), 0);
        rig.assert_quiet(0);
    });
}

#[test]
fn frames_written_together_arrive_together() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        peer.write_all(&[5; 40]).unwrap();
        rig.until("all five", |seen| (*seen == Seen::Received(conn, vec![5; 40])).then_some(()));
    });
}

#[test]
fn the_end_of_a_stream_is_told_once() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        peer.write_all(b"last words").unwrap();
        drop(peer);
        assert_eq!(rig.received(conn, 10), b"last words");
        assert_eq!(rig.ended(conn), ReceiveEnd::Eof);
        assert_eq!(rig.look(conn), Found::Eof);
        rig.assert_quiet(0);
        rig.close(conn, CloseHow::Finish);
    });
}

#[test]
fn a_reset_is_told_as_such() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (peer, conn) = rig.pair();
        reset(peer);
        assert_eq!(rig.ended(conn), ReceiveEnd::Fault(IoFault::Reset));
        assert_eq!(rig.send(conn, b"anybody?"), Err(IoFault::Reset));
        rig.close(conn, CloseHow::Abort);
        rig.assert_quiet(0);
    });
}

/// Closes with a RST.
fn reset(peer: TcpStream) {
    sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
}

#[test]
fn a_close_with_an_armed_receive_sends_a_fin() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO); // the receive is armed
        assert_eq!(rig.driver.stats().in_flight, 1);
        rig.close(conn, CloseHow::Finish);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        rig.assert_quiet(0);
    });
}

#[test]
fn an_abort_sends_a_reset() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        rig.close(conn, CloseHow::Abort);
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(rig.driver.stats().options_refused, 0);
    });
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        // All in one batch: a refusal is told like this.
        rig.driver.submit(&mut vec![
            Op::Send { conn, chunk: Chunk::from(b"goodbye".to_vec()) },
            Op::Close { conn, how: CloseHow::Finish },
        ]);
        rig.closed(conn);
        assert_eq!(rig.sent(conn), Ok(7));
        let mut words = Vec::new();
        peer.read_to_end(&mut words).unwrap();
        assert_eq!(words, b"goodbye");
        rig.assert_quiet(0);
    });
}

#[test]
fn bytes_between_close_and_closed_are_dropped() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        peer.write_all(b"too late").unwrap();
        rig.driver.wait(Some(PATIENCE.into())).unwrap(); // the bytes are in the queue now
        rig.ask(Op::Look { conn });
        rig.close(conn, CloseHow::Finish);
        rig.assert_quiet(0);
    });
}

#[test]
fn a_slot_used_again_hears_nothing_of_its_former_life() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        for generation in 1..100 {
            let mut peer = rig.peer();
            rig.ask(Op::Accept { count: 1 });
            let socket = rig.accepted_socket().0;
            let conn = ConnId { slot: 3, generation };
            rig.driver.submit(&mut vec![Op::Adopt { socket, conn }, Op::Receive { conn }]);
            let word = generation.to_be_bytes();
            peer.write_all(&word).unwrap();
            assert_eq!(rig.received(conn, 4), word);
            // Bytes, the cancel and the end of the stream meet in one batch.
            peer.write_all(b"late").unwrap();
            drop(peer);
            rig.close(conn, CloseHow::Abort);
            assert_eq!(rig.seen, [], "generation {generation}");
        }
        rig.assert_quiet(0);
    });
}

#[test]
fn a_starved_receive_is_told_and_loses_nothing() {
    each_ring(|way| {
        let few = RingSizes { buffers: 4, buffer_bytes: 16, ..sizes() };
        let mut rig = Rig::new(way, few, 16);
        let (mut peer, conn) = rig.pair();
        let sent: Vec<u8> = (0..=255).collect();
        peer.write_all(&sent).unwrap();
        assert_eq!(rig.received(conn, 256), sent);
        assert!(rig.driver.stats().starved > 0);
        let armed = rig.driver.stats().receives_armed;
        assert!(armed < 256 / 16 + 8, "{armed} is a storm");
        rig.drain();
    });
}

#[test]
fn a_look_finds_what_a_starved_connection_was_not_heard_saying() {
    each_ring(|way| {
        let few = RingSizes { buffers: 4, buffer_bytes: 16, ..sizes() };
        let mut rig = Rig::new(way, few, 16);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        assert_eq!(rig.look(conn), Found::Nothing);
        peer.write_all(&[1; 100]).unwrap();
        assert_eq!(rig.ended(conn), ReceiveEnd::Starved);
        assert_eq!(rig.look(conn), Found::Bytes);
        rig.ask(Op::Receive { conn });
        rig.received(conn, 100);
    });
}

#[test]
fn an_overflowing_completion_queue_loses_nobody() {
    each_ring(|way| {
        let tiny = RingSizes { sq_entries: 4, cq_entries: 8, ..sizes() };
        let mut rig = Rig::new(way, tiny, 64);
        let mut pairs = rig.crowd(32);
        for round in 0..3_u8 {
            for (peer, _) in &mut pairs {
                peer.write_all(&[round; 8]).unwrap();
            }
            for (_, conn) in &pairs {
                assert_eq!(rig.received(*conn, 8), [round; 8]);
            }
        }
        assert!(rig.driver.stats().overflows > 0, "the test overflows nothing");
    });
}

#[test]
fn a_full_table_delays_newcomers_and_destroys_nobody() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 2);
        rig.ask(Op::Accept { count: 4 });
        let mut peers: Vec<_> = (0..4).map(|_| rig.peer()).collect();
        for (word, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[u8::try_from(word).unwrap()]).unwrap();
        }
        let mut held = vec![rig.accepted(), rig.accepted()];
        for _ in 0..5 {
            rig.turn(Duration::from_millis(5));
        }
        assert_eq!(rig.seen, [], "a third was accepted, or failed");
        assert_eq!(rig.driver.stats().accepts_waiting, 0);
        for word in 0..4 {
            let conn = held.remove(0);
            rig.ask(Op::Receive { conn });
            assert_eq!(rig.received(conn, 1), [word]);
            rig.close(conn, CloseHow::Finish);
            if word < 2 {
                held.push(rig.accepted());
            }
        }
        rig.assert_quiet(0);
    });
}

#[test]
fn a_peer_that_does_not_read_gets_short_sends_in_order() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        let all: Vec<u8> = (0..40_000_000_u32).map(|i| i.to_be_bytes()[1]).collect();
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let mut read = Vec::new();
            peer.read_to_end(&mut read).unwrap();
            read
        });
        let (mut done, mut short) = (0, 0);
        while done < all.len() {
            let piece = &all[done..(done + 8_000_000).min(all.len())];
            let count = rig.send(conn, piece).unwrap();
            short += usize::from(count < piece.len());
            done += count;
        }
        rig.close(conn, CloseHow::Finish);
        assert!(reader.join().unwrap() == all, "bytes are in order");
        assert!(short > 0, "the test sends nothing short");
    });
}

#[test]
fn a_blocked_send_comes_home_when_its_connection_is_closed() {
    each_way(|way| {
        for how in [CloseHow::Finish, CloseHow::Abort] {
            let mut rig = Rig::new(way, sizes(), 16);
            let (_peer, conn) = rig.pair();
            loop {
                rig.ask(Op::Send { conn, chunk: Chunk::from(vec![0; 4_000_000]) });
                rig.turn(Duration::from_millis(50));
                if !rig.seen.iter().any(|seen| matches!(seen, Seen::Sent(..))) {
                    break; // nobody reads, and every buffer on the way is full
                }
                rig.seen.clear();
            }
            rig.ask(Op::Close { conn, how });
            assert!(rig.sent(conn).is_err());
            rig.closed(conn);
            rig.assert_quiet(0);
        }
    });
}

#[test]
fn a_socket_that_nobody_wants_is_closed() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 1);
        for _ in 0..3 {
            let mut peer = rig.peer();
            rig.ask(Op::Accept { count: 1 });
            let socket = rig.accepted_socket().0;
            rig.ask(Op::Discard { socket });
            rig.turn(Duration::ZERO);
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(rig.driver.stats().sockets, 0);
    });
}

#[test]
fn no_more_is_accepted_after_the_stop() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 4);
        rig.ask(Op::Accept { count: 6 });
        rig.turn(Duration::ZERO);
        assert_eq!(rig.driver.stats().accepts_waiting, 4);
        rig.ask(Op::StopAccepting);
        for _ in 0..6 {
            let fault = rig.until("failed accept", |seen| match seen {
                Seen::AcceptFailed(fault) => Some(*fault),
                _ => None,
            });
            assert_eq!(fault, IoFault::Cancelled);
        }
        rig.assert_quiet(0);
        let refused = TcpStream::connect(rig.address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        rig.ask(Op::Accept { count: 1 });
        rig.until("late accept", |seen| {
            (*seen == Seen::AcceptFailed(IoFault::Cancelled)).then_some(())
        });
    });
}

#[test]
fn a_connection_is_opened_from_where_it_is_told_to() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let source = Some("127.0.0.77:0".parse().unwrap());
        rig.ask(Op::Connect(Box::new(Connect { ticket: 5, source, target })));
        let socket = rig.until("connected", |seen| match seen {
            Seen::Connected(5, socket) => Some(*socket),
            _ => None,
        });
        let (mut peer, from) = server.accept().unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.77");
        let conn = rig.adopt(socket);
        rig.ask(Op::Receive { conn });
        peer.write_all(b"ping").unwrap();
        assert_eq!(rig.received(conn, 4), b"ping");
        assert_eq!(rig.send(conn, b"pong"), Ok(4));
        rig.close(conn, CloseHow::Finish);
        let mut read = Vec::new();
        peer.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"pong");
        rig.assert_quiet(0);
    });
}

#[test]
fn a_connection_that_cannot_be_opened_says_why() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let foreign = Some("192.0.2.1:0".parse().unwrap());
        for (source, fault) in [(None, IoFault::Refused), (foreign, IoFault::AddressUnavailable)] {
            rig.ask(Op::Connect(Box::new(Connect { ticket: 9, source, target: closed })));
            rig.until("failed connect", |seen| {
                (*seen == Seen::ConnectFailed(9, fault)).then_some(())
            });
        }
        rig.assert_quiet(0);
        assert_eq!(rig.driver.stats().sockets, 0, "failed attempts hold no file");
    });
}

#[test]
fn a_crowd_connects_to_itself_over_several_rings() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 300, ..sizes() };
        let mut rig = Rig::new(way, several, 1_600);
        let target = rig.address;
        let mut ops = vec![Op::Accept { count: 700 }];
        ops.extend(
            (0..700).map(|ticket| Op::Connect(Box::new(Connect { ticket, source: None, target }))),
        );
        rig.driver.submit(&mut ops);
        assert!(ops.is_empty());
        let start = Instant::now();
        while rig.seen.len() < 1_400 {
            assert!(start.elapsed() < PATIENCE, "{:?}", rig.driver.stats());
            rig.turn(Duration::from_millis(20));
        }
        let mut conns = Vec::new();
        for seen in std::mem::take(&mut rig.seen) {
            let (Seen::Accepted(socket, _) | Seen::Connected(_, socket)) = seen else {
                panic!("{seen:?}");
            };
            let conn = rig.adopt(socket);
            rig.ask(Op::Receive { conn });
            conns.push(conn);
        }
        assert_eq!(rig.driver.stats().rings, if way == Way::Epoll { 0 } else { 5 });
        assert_eq!(rig.driver.stats().sockets, 1_400);
        for conn in &conns {
            rig.ask(Op::Send { conn: *conn, chunk: Chunk::from(vec![1; 8]) });
        }
        for conn in &conns {
            assert_eq!(rig.received(*conn, 8), [1; 8]);
            assert_eq!(rig.sent(*conn), Ok(8));
        }
        for conn in &conns {
            rig.ask(Op::Close { conn: *conn, how: CloseHow::Abort });
        }
        while rig.driver.connections() > 0 {
            assert!(start.elapsed() < 3 * PATIENCE, "{:?}", rig.driver.stats());
            rig.turn(Duration::from_millis(20));
        }
        rig.seen.clear();
        rig.assert_quiet(0);
        assert_eq!(rig.driver.stats().sockets, 0);
    });
}

#[test]
fn bytes_in_a_further_ring_end_the_sleep() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 2, ..sizes() };
        let mut rig = Rig::new(way, several, 16);
        let mut pairs: Vec<_> = (0..7).map(|_| rig.pair()).collect();
        assert_eq!(rig.driver.stats().rings, if way == Way::Epoll { 0 } else { 4 });
        for round in 0..50_u8 {
            rig.turn(Duration::ZERO);
            for (peer, conn) in &mut pairs {
                let mut writer = peer.try_clone().unwrap();
                let late = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(u64::from(round) * 20));
                    writer.write_all(&[round]).unwrap();
                });
                let start = Instant::now();
                while rig.seen.is_empty() {
                    rig.turn(PATIENCE);
                }
                assert!(start.elapsed() < PATIENCE / 2, "it slept through");
                assert_eq!(rig.received(*conn, 1), [round]);
                late.join().unwrap();
            }
        }
    });
}

#[test]
fn a_stall_is_made_up_for_before_time_advances() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 200, ..sizes() };
        for sizes in [sizes(), several] {
            let mut rig = Rig::new(way, sizes, 600);
            let mut pairs = rig.crowd(300);
            for (peer, _) in &mut pairs {
                peer.write_all(b"I live!!").unwrap();
            }
            // No wait, no second chance: what is not heard until `More::Nothing` would be judged.
            rig.drain();
            let heard = rig.seen.iter().filter(|seen| matches!(seen, Seen::Received(..))).count();
            let starved = rig
                .seen
                .iter()
                .filter(|seen| matches!(seen, Seen::ReceiveEnded(_, ReceiveEnd::Starved)))
                .count();
            assert_eq!(heard + starved, 300, "{:?}", rig.driver.stats());
        }
    });
}

#[test]
fn a_budget_is_kept_and_what_is_left_comes_next() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 10, ..sizes() };
        let mut rig = Rig::new(way, several, 64);
        let mut pairs = rig.crowd(30);
        for (peer, _) in &mut pairs {
            peer.write_all(b"x").unwrap();
        }
        let (mut seen, mut calls) = (Vec::new(), 0);
        loop {
            let before = seen.len();
            let drained =
                rig.driver.drain(3, |completion| seen.push(Seen::of(completion))).unwrap();
            calls += 1;
            assert!(drained.completions <= 3);
            assert!(seen.len() - before <= 3);
            if drained.more == More::Nothing {
                break;
            }
        }
        assert_eq!(seen.len(), 30);
        assert!(calls >= 10);
    });
}

#[test]
fn a_waker_ends_the_sleep_from_another_thread() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        for round in 0..100 {
            let waker = rig.driver.waker();
            let thread = std::thread::spawn(move || {
                if round % 2 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                waker.wake();
            });
            let start = Instant::now();
            rig.driver.wait(Some(PATIENCE.into())).unwrap();
            while start.elapsed() < PATIENCE && rig.driver.stats().completions == round {
                rig.drain();
            }
            assert!(start.elapsed() < PATIENCE / 2);
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_wake_before_the_sleep_is_not_lost() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        rig.driver.waker().wake();
        let start = Instant::now();
        rig.driver.wait(Some(PATIENCE.into())).unwrap();
        assert!(start.elapsed() < PATIENCE / 2, "it slept through");
    });
}

#[test]
fn a_sleep_is_as_long_as_it_was_told_to_be() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 2, ..sizes() };
        let mut rig = Rig::new(way, several, 16);
        let _pairs = rig.crowd(5);
        rig.turn(Duration::ZERO);
        for millis in [1, 10, 100] {
            let span = Duration::from_millis(millis);
            let start = Instant::now();
            rig.driver.wait(Some(span.into())).unwrap();
            let slept = start.elapsed();
            assert!(slept >= span, "woke after {slept:?} instead of {span:?}");
            assert!(slept < span + Duration::from_secs(1), "{slept:?} instead of {span:?}");
        }
    });
}

#[test]
fn an_idle_driver_hardly_enters_the_kernel() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 2, ..sizes() };
        let mut rig = Rig::new(way, several, 16);
        let _pairs = rig.crowd(7);
        let before = rig.driver.stats().enters;
        for _ in 0..10 {
            rig.turn(Duration::from_millis(20));
        }
        let enters = rig.driver.stats().enters - before;
        assert!(enters <= 10 * (2 + 3), "{enters} enters in ten idle turns");
    });
}

#[test]
fn a_storm_of_ends_is_told_to_each_once() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 40, ..sizes() };
        let mut rig = Rig::new(way, several, 128);
        let pairs: Vec<_> = (0..100).map(|_| rig.pair()).collect();
        let mut conns = Vec::new();
        for (index, (peer, conn)) in pairs.into_iter().enumerate() {
            conns.push(conn);
            if index % 2 == 0 { reset(peer) } else { drop(peer) }
        }
        for (index, conn) in conns.iter().enumerate() {
            let end = rig.ended(*conn);
            if index % 2 == 0 {
                assert_eq!(end, ReceiveEnd::Fault(IoFault::Reset));
            } else {
                assert_eq!(end, ReceiveEnd::Eof);
            }
            rig.ask(Op::Close { conn: *conn, how: CloseHow::Finish });
        }
        for conn in conns {
            rig.closed(conn);
        }
        rig.assert_quiet(0);
    });
}

#[test]
fn accepted_sockets_inherit_what_the_listener_was_told() {
    let options = ListenOptions {
        keep_alive: Some(KeepAlive {
            idle: Span::from_secs(61),
            interval: Span::from_secs(7),
            count: 3,
        }),
        user_timeout: Some(Span::from_millis(35_000)),
        ..ListenOptions::default()
    };
    for way in [Way::Ordinary, Way::Epoll] {
        let mut rig = Rig::with_options(way, sizes(), 4, &options);
        let _peer = rig.peer();
        rig.ask(Op::Accept { count: 1 });
        let handle = rig.accepted_socket().0;
        let socket = duplicate(handle);
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(61));
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), Duration::from_secs(7));
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 3);
        assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 35_000);
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
    }
}

#[test]
fn a_user_timeout_is_set_on_one_connection() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 4);
        let _peer = rig.peer();
        rig.ask(Op::Accept { count: 1 });
        let handle = rig.accepted_socket().0;
        let conn = rig.adopt(handle);
        rig.ask(Op::SetUserTimeout { conn, timeout: Span::from_millis(7_000) });
        rig.turn(Duration::ZERO);
        assert_eq!(rig.driver.stats().options_refused, 0);
        if way != Way::Direct {
            assert_eq!(sockopt::tcp_user_timeout(duplicate(handle)).unwrap(), 7_000);
        }
        rig.close(conn, CloseHow::Finish);
        rig.assert_quiet(0);
    });
}

#[test]
fn a_gathering_sleep_lasts_its_window() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 4);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        let window = Duration::from_millis(50);
        for gathering in [false, true] {
            rig.driver.gather(if gathering { window.into() } else { Span::ZERO });
            peer.write_all(b"early").unwrap();
            let start = Instant::now();
            rig.driver.wait(Some(PATIENCE.into())).unwrap();
            let slept = start.elapsed();
            assert!(slept < PATIENCE / 2, "{slept:?}");
            if gathering && rig.driver.stats().gathers {
                assert!(slept >= window, "{slept:?}");
            }
            assert_eq!(rig.received(conn, 5), b"early");
        }
        rig.driver.gather(PATIENCE.into());
        let start = Instant::now();
        rig.driver.wait(Some(Duration::from_millis(10).into())).unwrap();
        assert!(start.elapsed() < PATIENCE / 2, "the window outlasts the sleep");
    });
}

#[test]
fn addresses_of_the_sixth_version_will_do() {
    each_way(|way| {
        let Ok(listener) = listen("[::1]:0".parse().unwrap(), &ListenOptions::default()) else {
            return; // a machine without them
        };
        let target = listener.local_address();
        let mut rig = Rig::on(way.driver(4, listener, sizes()), target);
        rig.ask(Op::Accept { count: 1 });
        rig.ask(Op::Connect(Box::new(Connect { ticket: 1, source: None, target })));
        let (_, from) = rig.accepted_socket();
        assert_eq!(from.ip(), target.ip());
        rig.until("connected", |seen| matches!(seen, Seen::Connected(1, _)).then_some(()));
    });
}

/// Another descriptor of a socket that a driver holds as an ordinary one.
fn duplicate(handle: SocketHandle) -> OwnedFd {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let number = i32::try_from(handle.0 & 0xffff_ffff).unwrap();
    pidfd_getfd(this, number, PidfdGetfdFlags::empty()).unwrap()
}

#[test]
fn a_driver_that_is_dropped_keeps_no_descriptor() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 100, ..sizes() };
        let mut rig = Rig::new(way, several, 1_000);
        let peers: Vec<_> = (0..800).map(|_| rig.peer()).collect();
        rig.ask(Op::Accept { count: 800 });
        let conns: Vec<_> = (0..700).map(|_| rig.accepted()).collect();
        for conn in &conns[..300] {
            rig.ask(Op::Receive { conn: *conn });
        }
        rig.turn(Duration::ZERO);
        for conn in &conns[200..500] {
            rig.ask(Op::Close { conn: *conn, how: CloseHow::Finish });
        }
        // Now there is some of everything: held, receiving, closing, accepted and not adopted.
        drop(rig);
        // A descriptor that is still open anywhere would keep its peer waiting.
        for mut peer in peers {
            let ended = peer.read_to_end(&mut Vec::new());
            assert!(ended.is_ok_and(|count| count == 0));
        }
    });
}

#[test]
fn many_drivers_come_and_go_on_one_thread() {
    each_way(|way| {
        for _ in 0..40 {
            let mut rig = Rig::new(way, sizes(), 4);
            let (mut peer, conn) = rig.pair();
            peer.write_all(b"hello").unwrap();
            assert_eq!(rig.received(conn, 5), b"hello");
            drop(rig); // with a connection held and its receive armed
            assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0);
        }
    });
}
