//! Connections that go from one driver to another, on the real kernel.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{CloseHow, IoFault, Move, Op, Stay};
use heartwheel::base::limits;
use heartwheel::os::parcel::Parcel;
use heartwheel::os::ring::RingSizes;

use crate::rig::{PATIENCE, Rig, Seen, Way};

/// Those that read ahead.
const RINGS: [Way; 2] = [Way::Direct, Way::Ordinary];

fn rig(way: Way, connections_max: u32) -> Rig {
    // A few sockets a ring, so that a shard has several of them.
    Rig::new(way, RingSizes::new(connections_max, 4), connections_max)
}

fn go(from: &mut Rig, conn: ConnId, bytes: &[u8]) {
    let peer = from.address;
    from.ask(Op::Move(Box::new(Move { conn, to: 1, peer, bytes: bytes.to_vec() })));
}

/// Turns until a connection can be taken.
fn taken(from: &mut Rig) -> Parcel {
    let start = Instant::now();
    loop {
        assert!(from.driver.take_departure(|to| to != 1).is_none(), "for another shard");
        if let Some(parcel) = from.driver.take_departure(|to| to == 1) {
            return parcel;
        }
        assert!(start.elapsed() < PATIENCE, "it does not leave: {:?}", from.seen);
        from.turn(Duration::from_millis(20));
    }
}

fn arrived(to: &mut Rig) -> (ConnId, Vec<u8>) {
    let (socket, bytes) = to.until("arrival", |seen| match seen {
        Seen::Arrived(socket, _, bytes) => Some((*socket, bytes.clone())),
        _ => None,
    });
    let conn = to.adopt(socket);
    to.ask(Op::Receive { conn });
    (conn, bytes)
}

fn moved(from: &mut Rig, conn: ConnId) {
    from.until("moved", |seen| (*seen == Seen::Moved(conn)).then_some(()));
    assert!(from.seen.is_empty(), "nothing but the one answer: {:?}", from.seen);
}

#[test]
fn a_connection_goes_to_another_driver_and_loses_no_byte() {
    for way in Way::ALL {
        let (mut from, mut to) = (rig(way, 16), rig(way, 16));
        let mut peers = Vec::new();
        for number in 0..9_u8 {
            let (mut peer, conn) = from.pair();
            peer.write_all(b"first").unwrap();
            let first = from.received(conn, 5);
            // What comes now is received before the kernel knows of the move, or after, or later.
            peer.write_all(b"second").unwrap();
            go(&mut from, conn, &first);
            peer.write_all(b"third").unwrap();
            let parcel = taken(&mut from);
            peer.write_all(b"fourth").unwrap();
            to.driver.arrive(parcel);
            moved(&mut from, conn);
            let (conn, mut bytes) = arrived(&mut to);
            let rest = b"firstsecondthirdfourth".len() - bytes.len();
            bytes.extend(to.received(conn, rest));
            assert_eq!(bytes, b"firstsecondthirdfourth", "{way:?} {number}");
            assert_eq!(to.send(conn, &[number]), Ok(1));
            let mut heard = [0];
            peer.read_exact(&mut heard).unwrap();
            assert_eq!(heard, [number]);
            peers.push((peer, conn));
        }
        assert!(to.driver.stats().rings > 1 || way != Way::Direct);
        assert_eq!(from.driver.connections(), 0);
        assert_eq!(from.driver.stats().sockets, 0, "every place was given back");
        from.assert_quiet(0);
        for (mut peer, conn) in peers {
            to.close(conn, CloseHow::Finish);
            assert_eq!(peer.read(&mut [0]).unwrap(), 0, "one owner, so its close is a FIN");
        }
        assert_eq!(to.driver.stats().sockets, 0);
        to.assert_quiet(0);
    }
}

#[test]
fn what_comes_while_the_receive_is_taken_back_travels_too() {
    for way in Way::ALL {
        let (mut from, mut to) = (rig(way, 4), rig(way, 4));
        for round in 0..30 {
            let (mut peer, conn) = from.pair();
            let size = 40 * round;
            let said: Vec<u8> = (0..size).map(|n: usize| n.to_le_bytes()[0]).collect();
            peer.write_all(&said).unwrap();
            // Unread: its completions lie in the queue when the move is asked for.
            if round % 2 == 0 {
                from.driver.wait(Some(Duration::from_millis(5).into())).unwrap();
            }
            go(&mut from, conn, b"");
            let parcel = taken(&mut from);
            to.driver.arrive(parcel);
            moved(&mut from, conn);
            let (conn, mut bytes) = arrived(&mut to);
            bytes.extend(to.received(conn, size - bytes.len()));
            assert_eq!(bytes, said, "{way:?} {round}");
            to.close(conn, CloseHow::Finish);
        }
    }
}

#[test]
fn a_fin_is_found_where_the_connection_arrives() {
    for way in Way::ALL {
        let (mut from, mut to) = (rig(way, 4), rig(way, 4));
        let (mut peer, conn) = from.pair();
        peer.write_all(b"bye").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        go(&mut from, conn, b"");
        let parcel = taken(&mut from);
        to.driver.arrive(parcel);
        moved(&mut from, conn);
        let (conn, mut bytes) = arrived(&mut to);
        bytes.extend(to.received(conn, 3 - bytes.len()));
        assert_eq!(bytes, b"bye");
        assert_eq!(to.ended(conn), heartwheel::base::io::ReceiveEnd::Eof, "{way:?}");
    }
}

#[test]
fn who_breaks_before_leaving_stays_and_is_told() {
    for way in RINGS {
        let mut from = rig(way, 4);
        let (peer, conn) = from.pair();
        // Closed with unread bytes: the peer's kernel sends RST.
        from.send(conn, b"unread").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        drop(peer);
        // The error is taken from the socket, and lies in the queue.
        from.driver.wait(Some(PATIENCE.into())).unwrap();
        go(&mut from, conn, b"");
        let stayed = Seen::Stayed(conn, Stay::Broken(IoFault::Reset));
        from.until("stayed", |seen| (*seen == stayed).then_some(()));
        assert!(!from.driver.has_departures());
        from.close(conn, CloseHow::Abort);
        from.assert_quiet(0);
    }
}

#[test]
fn where_nothing_is_read_ahead_whoever_breaks_is_found_broken_elsewhere() {
    let (mut from, mut to) = (rig(Way::Epoll, 4), rig(Way::Epoll, 4));
    let (peer, conn) = from.pair();
    from.send(conn, b"unread").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    drop(peer);
    from.driver.wait(Some(PATIENCE.into())).unwrap();
    go(&mut from, conn, b"said");
    let parcel = taken(&mut from);
    to.driver.arrive(parcel);
    moved(&mut from, conn);
    let (conn, bytes) = arrived(&mut to);
    assert_eq!(bytes, b"said");
    let reset = heartwheel::base::io::ReceiveEnd::Fault(IoFault::Reset);
    assert_eq!(to.ended(conn), reset);
}

#[test]
fn only_so_many_bytes_travel_and_who_sent_more_stays() {
    for way in RINGS {
        let mut from = rig(way, 4);
        let (mut peer, conn) = from.pair();
        peer.write_all(b"x").unwrap();
        from.received(conn, 1);
        peer.write_all(&[b'x'; 256]).unwrap();
        from.driver.wait(Some(PATIENCE.into())).unwrap();
        go(&mut from, conn, &vec![b'x'; limits::MOVE_BYTES_MAX - 10]);
        from.until("stayed", |seen| (*seen == Seen::Stayed(conn, Stay::TooMuch)).then_some(()));
        // It is as it was: it can be listened to, spoken to and closed.
        from.ask(Op::Receive { conn });
        peer.write_all(b"still here").unwrap();
        assert_eq!(from.received(conn, 10), b"still here", "{way:?}");
        assert_eq!(from.send(conn, b"no"), Ok(2));
        from.close(conn, CloseHow::Finish);
        from.assert_quiet(0);
    }
}

#[test]
fn a_driver_without_room_says_so_and_the_peer_is_not_left_hanging() {
    for way in Way::ALL {
        let (mut from, mut to) = (rig(way, 4), rig(way, 2));
        let inside = [to.pair(), to.pair()];
        let (mut peer, conn) = from.pair();
        go(&mut from, conn, b"");
        to.driver.arrive(taken(&mut from));
        moved(&mut from, conn);
        to.until("failure", |seen| {
            (*seen == Seen::ArrivalFailed(IoFault::NoDescriptors)).then_some(())
        });
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "closed");
        assert_eq!(to.driver.arriving(), 0);
        drop(inside);
    }
}

#[test]
fn a_crowd_leaves_with_a_few_descriptors_at_a_time() {
    let crowd = u32::try_from(4 * limits::MOVE_DESCRIPTORS_MAX).unwrap();
    for way in Way::ALL {
        let sizes = RingSizes::new(crowd, crowd);
        let mut from = Rig::new(way, sizes, crowd);
        let mut to = Rig::new(way, sizes, crowd);
        let pairs: Vec<(TcpStream, ConnId)> = (0..crowd).map(|_| from.pair()).collect();
        for (_, conn) in &pairs {
            go(&mut from, *conn, b"hello");
        }
        for _ in 0..50 {
            from.turn(Duration::ZERO);
        }
        assert!(from.driver.has_departures());
        let mut count = 0;
        while count < crowd {
            let parcel = taken(&mut from);
            to.driver.arrive(parcel);
            count += 1;
            let (conn, bytes) = arrived(&mut to);
            assert_eq!(bytes, b"hello");
            to.close(conn, CloseHow::Finish);
        }
        from.drain();
        assert_eq!(from.seen.len(), pairs.len(), "each is told once");
        assert_eq!(from.driver.connections(), 0);
        assert_eq!(from.driver.stats().sockets, 0);
    }
}
