//! Reading stops and goes on: what had come is told, what comes later waits, nothing is lost.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use heartwheel::base::io::{CloseHow, Found, IoFault, Op, ReceiveEnd};
use heartwheel::os::ring::RingSizes;

use crate::reset;
use crate::rig::{Rig, Seen, Way};

fn rig(way: Way) -> Rig {
    Rig::new(way, RingSizes::new(16, 16), 16)
}

#[test]
fn what_had_come_is_told_and_what_comes_later_waits() {
    for way in Way::ALL {
        let mut rig = rig(way);
        let (mut peer, conn) = rig.pair();
        for round in 0..20 {
            let size = 200 * round + 1;
            let said: Vec<u8> = (0..size).map(|n: usize| n.to_le_bytes()[0]).collect();
            peer.write_all(&said).unwrap();
            // Unread: its completions lie in the queue when the pause is asked for.
            if round % 2 == 0 {
                rig.driver.wait(Some(Duration::from_millis(5).into())).unwrap();
            }
            rig.ask(Op::Pause { conn });
            let mut heard = Vec::new();
            let start = std::time::Instant::now();
            loop {
                assert!(start.elapsed() < Duration::from_secs(30), "{way:?} {round}");
                rig.turn(Duration::from_millis(5));
                let mut ended = None;
                for seen in rig.seen.drain(..) {
                    match seen {
                        Seen::Received(of, bytes) if of == conn && ended.is_none() => {
                            heard.extend(bytes);
                        }
                        Seen::ReceiveEnded(of, end) if of == conn => ended = Some(end),
                        other => panic!("{way:?} {round}: {other:?}"),
                    }
                }
                match ended {
                    Some(ReceiveEnd::Paused) => break,
                    // The kernel ended it for reasons of its own: then that is the end.
                    Some(ReceiveEnd::Starved | ReceiveEnd::Interrupted) => break,
                    Some(other) => panic!("{way:?} {round}: {other:?}"),
                    None => {}
                }
            }
            peer.write_all(b"later").unwrap();
            rig.turn(Duration::from_millis(1));
            assert!(rig.seen.is_empty(), "{way:?}: nobody listens: {:?}", rig.seen);
            let rest = said.len() + 5 - heard.len();
            assert_eq!(rig.look(conn), Found::Bytes);
            rig.ask(Op::Receive { conn });
            heard.extend(rig.received(conn, rest));
            assert_eq!(heard, [said.as_slice(), b"later"].concat(), "{way:?} {round}");
        }
        rig.assert_quiet(1);
        rig.close(conn, CloseHow::Finish);
        rig.assert_quiet(0);
    }
}

#[test]
fn a_pause_that_finds_nothing_under_way_is_not_answered() {
    for way in Way::ALL {
        let mut rig = rig(way);
        let peer = rig.peer();
        let conn = rig.accept();
        rig.ask(Op::Pause { conn });
        rig.turn(Duration::from_millis(5));
        rig.assert_quiet(0);
        rig.ask(Op::Receive { conn });
        // Said twice, it is answered once; and it may be taken back before it is answered.
        rig.ask(Op::Pause { conn });
        rig.ask(Op::Pause { conn });
        assert_eq!(rig.ended(conn), ReceiveEnd::Paused, "{way:?}");
        rig.assert_quiet(0);
        rig.ask(Op::Receive { conn });
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rig.ended(conn), ReceiveEnd::Eof);
        rig.ask(Op::Pause { conn });
        rig.turn(Duration::from_millis(5));
        rig.assert_quiet(0);
        rig.close(conn, CloseHow::Finish);
    }
}

fn pause(rig: &mut Rig, way: Way) -> (std::net::TcpStream, heartwheel::base::ids::ConnId) {
    let (peer, conn) = rig.pair();
    rig.turn(Duration::from_millis(1));
    rig.ask(Op::Pause { conn });
    assert_eq!(rig.ended(conn), ReceiveEnd::Paused, "{way:?}");
    (peer, conn)
}

#[test]
fn an_end_behind_unread_bytes_is_found_behind_them() {
    for way in Way::ALL {
        let mut rig = rig(way);
        let (mut peer, conn) = pause(&mut rig, way);
        assert_eq!(rig.look(conn), Found::Nothing);
        peer.write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        rig.turn(Duration::from_millis(5));
        assert!(rig.seen.is_empty(), "{way:?}: {:?}", rig.seen);
        assert_eq!(rig.look(conn), Found::Bytes);
        rig.ask(Op::Receive { conn });
        assert_eq!(rig.received(conn, 10), b"last words");
        assert_eq!(rig.ended(conn), ReceiveEnd::Eof);
        rig.close(conn, CloseHow::Finish);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_reset_while_nobody_listens_is_found_by_whoever_looks_or_listens_again() {
    for way in Way::ALL {
        for looks in [false, true] {
            let mut rig = rig(way);
            let (peer, conn) = pause(&mut rig, way);
            reset(peer);
            rig.turn(Duration::from_millis(5));
            assert!(rig.seen.is_empty(), "{way:?}: {:?}", rig.seen);
            if looks {
                assert_eq!(rig.look(conn), Found::Fault(IoFault::Reset), "{way:?}");
            } else {
                rig.ask(Op::Receive { conn });
                assert_eq!(rig.ended(conn), ReceiveEnd::Fault(IoFault::Reset), "{way:?}");
            }
            rig.close(conn, CloseHow::Abort);
            rig.assert_quiet(0);
        }
    }
}

#[test]
fn a_connection_that_pauses_or_is_paused_can_be_closed_and_sent_to() {
    for way in Way::ALL {
        for how in [CloseHow::Finish, CloseHow::Abort] {
            let mut rig = rig(way);
            let (mut peer, conn) = rig.pair();
            peer.write_all(b"unread").unwrap();
            rig.ask(Op::Pause { conn });
            rig.ask(Op::Close { conn, how });
            rig.closed(conn);
            rig.seen.retain(|seen| !matches!(seen, Seen::Received(..)));
            rig.assert_quiet(0);
            let (mut peer, conn) = pause(&mut rig, way);
            assert_eq!(rig.send(conn, b"heard"), Ok(5));
            let mut heard = [0; 5];
            peer.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"heard");
            rig.close(conn, how);
            rig.assert_quiet(0);
            assert_eq!(rig.driver.connections(), 0);
        }
    }
}

/// Many times in quick succession, while bytes come all the time.
#[test]
fn pausing_and_going_on_races_with_what_comes_and_loses_nothing() {
    for way in Way::ALL {
        let mut rig = rig(way);
        let (peer, conn) = rig.pair();
        let total = 300_000_usize;
        let writer = std::thread::spawn(move || {
            let mut peer = peer;
            let said: Vec<u8> = (0..total).map(|n| (n % 251).to_le_bytes()[0]).collect();
            for piece in said.chunks(9_770) {
                peer.write_all(piece).unwrap();
                // Or all of it would be there before the first pause is answered.
                std::thread::sleep(Duration::from_millis(2));
            }
            peer
        });
        let start = std::time::Instant::now();
        let (mut heard, mut pauses) = (0_usize, 0);
        let (mut asked, mut heard_since) = (false, false);
        while heard < total {
            assert!(start.elapsed() < Duration::from_secs(60), "{way:?}: {heard} bytes");
            if !asked && std::mem::take(&mut heard_since) {
                rig.ask(Op::Pause { conn });
                asked = true;
            }
            rig.turn(Duration::from_millis(1));
            for seen in std::mem::take(&mut rig.seen) {
                match seen {
                    Seen::Received(_, bytes) => {
                        heard_since = true;
                        for byte in bytes {
                            assert_eq!(byte, (heard % 251).to_le_bytes()[0], "{way:?}");
                            heard += 1;
                        }
                    }
                    Seen::ReceiveEnded(
                        _,
                        ReceiveEnd::Paused | ReceiveEnd::Starved | ReceiveEnd::Interrupted,
                    ) => {
                        pauses += 1;
                        asked = false;
                        rig.ask(Op::Receive { conn });
                    }
                    other => panic!("{way:?}: {other:?}"),
                }
            }
        }
        assert!(pauses > 3, "{way:?}: {pauses}");
        drop(writer.join().unwrap());
    }
}
