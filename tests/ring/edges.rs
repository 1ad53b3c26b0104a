//! What edge-triggered news asks of the driver on epoll. The rest is in the contract, and tested
//! with everybody else's.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Chunk, CloseHow, Found, Op, ReceiveEnd};
use heartwheel::base::limits::{EPOLL_EVENTS_MAX, RECEIVE_BUFFER_BYTES, RECEIVE_BYTES_AT_ONCE};
use heartwheel::base::time::Span;
use heartwheel::os::driver::{DriverKind, Heard, More};
use rustix::net::{SendFlags, send};

use crate::rig::{PATIENCE, Rig, Seen, Way};
use crate::{reset, sizes};

fn rig(connections_max: u32) -> Rig {
    let rig = Rig::new(Way::Epoll, sizes(), connections_max);
    assert_eq!(rig.driver.stats().kind, DriverKind::Epoll);
    rig
}

#[test]
fn an_end_behind_the_last_bytes_is_told_though_no_news_tells_of_it() {
    let endings: [(fn(TcpStream), bool); 2] = [(drop, true), (reset, false)];
    for (end, is_polite) in endings {
        let mut rig = rig(4);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        // Bytes and end are there before anybody looks: one piece of news for both.
        peer.write_all(b"last words").unwrap();
        end(peer);
        std::thread::sleep(Duration::from_millis(50));
        rig.drain();
        let ended = |seen: &Seen| matches!(seen, Seen::ReceiveEnded(of, _) if *of == conn);
        assert!(rig.seen.iter().any(ended), "{:?}", rig.seen);
        if is_polite {
            assert_eq!(rig.received(conn, 10), b"last words");
            assert_eq!(rig.ended(conn), ReceiveEnd::Eof);
        }
    }
}

#[test]
fn what_came_before_it_was_asked_for_is_received() {
    let mut rig = rig(4);
    let mut peer = rig.peer();
    let conn = rig.accept();
    peer.write_all(b"early").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    // The news is told, and concerns nobody.
    for _ in 0..3 {
        rig.turn(Duration::from_millis(10));
    }
    assert_eq!(rig.seen, []);
    rig.ask(Op::Receive { conn });
    rig.drain();
    assert_eq!(rig.seen[0], Seen::Received(conn, b"early".to_vec()));
    assert_eq!(rig.seen[1], Seen::ReceiveEnded(conn, ReceiveEnd::Eof));
}

#[test]
fn a_flood_delays_nobody_by_more_than_a_bufferful() {
    for floods_first in [true, false] {
        let mut rig = rig(16);
        let (flooder, flooding) = rig.pair();
        let mut quiet = rig.crowd(5);
        flooder.set_nonblocking(true).unwrap();
        let flood = || while (&flooder).write(&[1; 65_536]).is_ok() {};
        if floods_first {
            flood();
        }
        for (peer, _) in &mut quiet {
            peer.write_all(b"beat").unwrap();
        }
        flood();
        let mut seen = Vec::new();
        for round in 0..3 {
            let before = seen.len();
            let drained = rig.driver.drain(1_000, |c| seen.push(Seen::of(c))).unwrap();
            assert_eq!(drained.more, More::Maybe, "there is more of the flood");
            let of_flood: Vec<usize> = seen[before..]
                .iter()
                .filter_map(|seen| match seen {
                    Seen::Received(conn, bytes) if *conn == flooding => Some(bytes.len()),
                    _ => None,
                })
                .collect();
            assert_eq!(of_flood, [RECEIVE_BYTES_AT_ONCE], "one piece in one drain");
            let heard = |conn: ConnId| seen.contains(&Seen::Received(conn, b"beat".into()));
            let all = quiet.iter().all(|(_, conn)| heard(*conn));
            assert!(all, "whoever has news is read in the drain that hears of it: {round}");
            flood();
        }
    }
}

#[test]
fn a_flood_counts_by_its_bytes_and_a_budget_of_completions_bounds_them() {
    let mut rig = rig(4);
    let (flooder, flooding) = rig.pair();
    rig.turn(Duration::ZERO);
    flooder.set_nonblocking(true).unwrap();
    while (&flooder).write(&[1; 65_536]).is_ok() {}
    for budget in [1, 10, 1_000] {
        let mut bytes = 0;
        let drained = rig.driver.drain(budget, |completion| match Seen::of(completion) {
            Seen::Received(conn, piece) if conn == flooding => bytes += piece.len(),
            seen => panic!("{seen:?}"),
        });
        let drained = drained.unwrap();
        assert!(drained.completions <= budget, "{drained:?}");
        assert!(bytes > 0 && bytes <= drained.completions * RECEIVE_BUFFER_BYTES, "{bytes}");
        assert_eq!(drained.more, More::Maybe);
    }
}

#[test]
fn more_news_than_fits_into_one_look_is_all_heard_before_there_is_nothing_more() {
    let crowd = EPOLL_EVENTS_MAX * 3 / 2;
    let mut rig = rig(u32::try_from(crowd).unwrap());
    let mut pairs = rig.crowd(crowd);
    for (peer, _) in &mut pairs {
        peer.write_all(b"x").unwrap();
    }
    // What a sleep brought is old when the clock is read; this one comes in between.
    rig.driver.wait(Some(PATIENCE.into())).unwrap();
    pairs[0].0.write_all(b"y").unwrap();
    rig.drain();
    let bytes: usize = rig
        .seen
        .iter()
        .map(|seen| match seen {
            Seen::Received(_, bytes) => bytes.len(),
            _ => panic!("{seen:?}"),
        })
        .sum();
    assert_eq!(bytes, crowd + 1);
}

#[test]
fn urgent_bytes_hide_nothing_from_a_last_look() {
    let mut rig = rig(4);
    let (peer, conn) = rig.pair();
    rig.turn(Duration::ZERO);
    // A receive stops at the urgent byte, with more behind it: a short read that is no end.
    for (bytes, flags) in
        [(b"one", SendFlags::empty()), (b"two", SendFlags::OOB), (b"six", SendFlags::empty())]
    {
        send(&peer, bytes, flags).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    rig.drain();
    rig.ask(Op::Look { conn });
    rig.drain();
    let mut heard: Vec<u8> = Vec::new();
    for seen in &rig.seen {
        match seen {
            Seen::Received(of, bytes) if *of == conn => heard.extend(bytes),
            Seen::Looked(_, Found::Bytes | Found::Nothing) => {}
            _ => panic!("{seen:?}"),
        }
    }
    assert_eq!(heard, b"onetwsix", "the urgent byte itself is not in the stream");
}

#[test]
fn a_blocked_send_goes_on_when_there_is_room_and_costs_no_turns_meanwhile() {
    let mut rig = rig(4);
    let (mut peer, conn) = rig.pair();
    let mut sent = 0;
    loop {
        rig.ask(Op::Send { conn, chunk: Chunk::from(vec![7; 1_000_000]) });
        rig.turn(Duration::from_millis(20));
        let Some(Seen::Sent(_, _, result)) = rig.seen.pop() else { break };
        sent += result.unwrap();
    }
    let before = rig.driver.stats().enters;
    let began = Instant::now();
    rig.driver.wait(Some(Span::from_millis(100))).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100), "a full socket is no news");
    assert_eq!(rig.driver.stats().enters, before + 1);
    let mut read = vec![0; sent];
    peer.read_exact(&mut read).unwrap();
    assert!(rig.sent(conn).unwrap() > 0);
    rig.close(conn, CloseHow::Abort);
}

#[test]
fn a_listener_that_nobody_accepts_from_wakes_nobody() {
    let mut rig = rig(1);
    let (_peer, _conn) = rig.pair();
    let _knocking: Vec<_> = (0..3).map(|_| rig.peer()).collect();
    rig.ask(Op::Accept { count: 5 });
    rig.turn(Duration::from_millis(50));
    assert_eq!(rig.seen, [], "there is no room");
    let began = Instant::now();
    rig.turn(Duration::from_millis(100));
    assert!(began.elapsed() >= Duration::from_millis(100), "who knocks is news once");
}

#[test]
fn a_reap_that_is_not_full_leaves_nothing_of_a_flood() {
    let mut rig = rig(4);
    let (mut flooder, flooding) = rig.pair();
    rig.turn(Duration::ZERO);
    let flood = 5 * RECEIVE_BYTES_AT_ONCE;
    flooder.write_all(&vec![1; flood]).unwrap();
    let mut bytes = 0;
    let mut reap = |rig: &mut Rig, budget| {
        let count = rig.driver.reap(budget, |completion| match Seen::of(completion) {
            Seen::Received(conn, piece) if conn == flooding => bytes += piece.len(),
            seen => panic!("{seen:?}"),
        });
        (count, bytes)
    };
    assert_eq!(rig.driver.enter(PATIENCE.into()).unwrap(), Heard::All { after: Span::ZERO });
    assert_eq!(reap(&mut rig, 3), (3, 3 * RECEIVE_BUFFER_BYTES), "bytes count, too");
    let (count, bytes) = reap(&mut rig, 1_024);
    assert!(count < 1_024, "{count}");
    assert_eq!(bytes, flood);
}

#[test]
fn an_enter_that_hears_of_as_many_as_it_can_says_so() {
    let crowd = EPOLL_EVENTS_MAX * 3 / 2;
    let mut rig = rig(u32::try_from(crowd).unwrap());
    let mut pairs = rig.crowd(crowd);
    for window in [Span::ZERO, PATIENCE.into()] {
        rig.driver.gather(window);
        for (peer, _) in &mut pairs {
            peer.write_all(b"x").unwrap();
        }
        let start = Instant::now();
        for heard in [Heard::Part, Heard::All { after: Span::ZERO }] {
            assert_eq!(rig.driver.enter(Span::from_secs(1)).unwrap(), heard);
        }
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        let mut bytes = 0;
        let count = rig.driver.reap(2 * crowd, |_| bytes += 1);
        assert_eq!((count, bytes), (crowd, crowd));
    }
}

#[test]
fn a_gathering_sleep_goes_on_where_nothing_comes() {
    let mut rig = rig(4);
    let _pair = rig.pair();
    rig.turn(Duration::ZERO);
    rig.driver.gather(Span::from_millis(5));
    let before = rig.driver.stats();
    assert!(before.gathers_without_waking);
    let sleep = Span::from_millis(100);
    assert_eq!(rig.driver.enter(sleep).unwrap(), Heard::All { after: sleep });
    assert_eq!(rig.driver.stats().enters - before.enters, 1);
}

#[test]
fn what_comes_while_a_sleep_gathers_is_heard_with_the_first() {
    let mut rig = rig(16);
    let mut pairs = rig.crowd(5);
    rig.driver.gather(Span::from_millis(300));
    let conns: Vec<ConnId> = pairs.iter().map(|(_, conn)| *conn).collect();
    let writer = std::thread::spawn(move || {
        for (peer, _) in &mut pairs {
            peer.write_all(b"beat").unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        pairs
    });
    rig.driver.enter(PATIENCE.into()).unwrap();
    let mut heard = Vec::new();
    rig.driver.reap(1_024, |completion| heard.push(Seen::of(completion)));
    let all: Vec<_> = conns.iter().map(|conn| Seen::Received(*conn, b"beat".into())).collect();
    assert_eq!(heard, all);
    let _pairs = writer.join().unwrap();
    // A newcomer who is waited for ends the sleep.
    rig.ask(Op::Accept { count: 1 });
    rig.driver.enter(Span::ZERO).unwrap();
    assert_eq!(rig.driver.reap(1_024, |_| {}), 0);
    rig.driver.gather(PATIENCE.into());
    let start = Instant::now();
    let _newcomer = rig.peer();
    rig.driver.enter(PATIENCE.into()).unwrap();
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}
