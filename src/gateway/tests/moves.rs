//! Connections between shards: what goes, what arrives, and what becomes of what goes wrong.

use crate::base::config::{GatewayConfig, Shard};
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::introduction::Baggage;
use crate::base::io::{Completion, Found, IoFault, Move, Op, ReceiveEnd, SocketHandle, Stay};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, Drain, owner};
use crate::wire::message::{Message, Reply};
use crate::wire::native;

const COUNT: u16 = 3;

fn shard(index: u16) -> Shard {
    Shard { index, count: COUNT, key: [3, 4], connections_total: 1_000 }
}

pub(super) fn sharded(index: u16) -> GatewayConfig {
    GatewayConfig { shard: shard(index), ..config() }
}

/// The number-th client that belongs to this shard.
pub(super) fn client_of(index: u16, number: usize) -> String {
    let names = (0..).map(|n| format!("client-{n}"));
    names.filter(|name| owner(shard(0), name) == index).nth(number).expect("a hash spreads")
}

pub(super) fn greeting(client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode_preface(native::VERSIONS, &mut bytes);
    let hello = Message::Hello {
        wanted_interval_ms: 7_000,
        client_id,
        class: "mobile",
        token: b"proof",
        resume: b"session",
        last_seq: 9,
        before: None,
    };
    native::encode(&hello, &mut bytes);
    bytes
}

fn ping(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode(&Message::Ping { reply: Reply::Wanted, payload }, &mut bytes);
    bytes
}

fn taken(stage: &mut Stage) -> Move {
    let at = stage.ops.iter().position(|op| matches!(op, Op::Move(_))).expect("it moves");
    match stage.ops.remove(at) {
        Op::Move(departure) => *departure,
        op => panic!("{op:?}"),
    }
}

fn arrives(stage: &mut Stage, departure: &Move) -> ConnId {
    let socket = SocketHandle(900 + stage.sockets);
    stage.sockets += 1;
    let bytes = &departure.bytes;
    stage.complete(Completion::Arrived {
        socket,
        peer: departure.peer,
        bytes,
        baggage: Baggage::default(),
    });
    let adopted = stage.ops.iter().find_map(|op| match op {
        Op::Adopt { socket: adopted, conn } if *adopted == socket => Some(*conn),
        _ => None,
    });
    let conn = adopted.expect("every socket becomes a connection");
    assert!(stage.takes(|op| matches!(op, Op::Receive { conn: of } if *of == conn)));
    conn
}

#[test]
fn every_client_has_one_owner_and_each_shard_its_share() {
    let mut counts = [0_u32; 4];
    for number in 0..10_000 {
        let name = format!("device-{number}");
        let shard = Shard { index: 0, count: 4, key: [1, 2], connections_total: 1 };
        let owners: Vec<_> = (0..4).map(|index| owner(Shard { index, ..shard }, &name)).collect();
        assert!(owners.iter().all(|owner| *owner == owners[0]), "all shards agree");
        counts[usize::from(owners[0])] += 1;
    }
    assert!(counts.iter().all(|count| (2_300..2_700).contains(count)), "{counts:?}");
    assert_eq!(owner(Shard::ONLY, "anybody"), 0);
}

#[test]
fn a_connection_moves_wherever_its_first_bytes_are_cut_and_nothing_is_lost() {
    let client = client_of(1, 0);
    let whole = [greeting(&client), ping(b"1"), ping(b"2")].concat();
    for cut in 1..whole.len() {
        let mut from = Stage::new(sharded(0));
        let mut to = Stage::new(sharded(1));
        let conn = from.connect();
        // Both pieces come before operations are taken, as in one batch of completions.
        for bytes in [&whole[..cut], &whole[cut..]] {
            let now = from.now;
            from.gateway.on_completion(Completion::Received { conn, bytes }, now);
        }
        from.settle();
        assert!(from.ops.iter().all(|op| matches!(op, Op::Move(_))), "nothing is said");
        let departure = taken(&mut from);
        assert_eq!((departure.conn, departure.to), (conn, 1));
        assert_eq!(departure.bytes, whole, "cut at {cut}");
        from.complete(Completion::Moved { conn });
        assert_eq!(from.gateway.stats().connections, 0);
        assert_eq!(from.events(), ["started"], "cut at {cut}: nobody was online there");

        let conn = arrives(&mut to, &departure);
        let heard = to.hear(conn);
        assert!(heard[0].starts_with("Welcome"), "{heard:?}");
        assert!(heard[1].starts_with("Pong") && heard[2].starts_with("Pong"), "{heard:?}");
        assert_eq!(to.events(), ["started".to_owned(), format!("online {client} 2")]);
        let (before, after) = (from.gateway.stats(), to.gateway.stats());
        assert_eq!((before.accepted, before.moved, after.arrived), (1, 1, 1));
        assert_eq!((before.frames_received, after.frames_received), (0, 3));
        assert_eq!(before.bytes_received + after.bytes_received, whole.len() as u64);
    }
}

#[test]
fn who_belongs_here_stays_and_epochs_are_unlike_those_of_other_shards() {
    let mut epochs: Vec<u64> = Vec::new();
    for index in 0..COUNT {
        let mut stage = Stage::new(GatewayConfig { epoch_first: 100, ..sharded(index) });
        for number in 0..3 {
            let client = client_of(index, number);
            stage.login(&client);
        }
        let epoch =
            |line: &String| line.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
        epochs.extend(stage.events().iter().filter_map(epoch));
    }
    assert_eq!(epochs, [100, 103, 106, 101, 104, 107, 102, 105, 108]);
}

#[test]
fn a_move_that_fails_is_told_politely_and_gives_its_place_back() {
    let (busy, flood) = ("code: 302", "code: 304");
    for (why, word) in [(Stay::NoRoom, busy), (Stay::TooMuch, flood)] {
        let mut stage = Stage::new(sharded(0));
        let conn = stage.connect();
        stage.receive(conn, &greeting(&client_of(1, 0)));
        taken(&mut stage);
        stage.complete(Completion::Stayed { conn, why });
        assert!(stage.takes(|op| matches!(op, Op::Receive { conn: of } if *of == conn)));
        let heard = stage.hear(conn);
        assert!(heard[0].contains(word), "{why:?}: {heard:?}");
        stage.pass(Span::from_secs(3));
        assert!(stage.closes(conn).is_some());
        assert_eq!(stage.gateway.stats().connections, 0);
    }
    let mut stage = Stage::new(sharded(0));
    let conn = stage.connect();
    stage.receive(conn, &greeting(&client_of(1, 0)));
    taken(&mut stage);
    stage.complete(Completion::Stayed { conn, why: Stay::Broken(IoFault::Reset) });
    assert!(stage.closes(conn).is_some());
    assert_eq!(stage.gateway.stats().ended(CloseReason::Reset), 1);
    assert_eq!(stage.gateway.stats().connections, 0);
}

#[test]
fn who_breaks_before_the_move_is_asked_for_does_not_move() {
    let mut stage = Stage::new(sharded(0));
    let conn = stage.connect();
    let now = stage.now;
    let bytes = greeting(&client_of(1, 0));
    stage.gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
    stage.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Fault(IoFault::Reset) });
    assert!(!stage.takes(|op| matches!(op, Op::Move(_))));
    assert!(stage.closes(conn).is_some());
    assert_eq!(stage.gateway.stats().ended(CloseReason::Reset), 1);
}

#[test]
fn a_fin_before_the_move_does_not_hold_it_up() {
    for end in [ReceiveEnd::Eof, ReceiveEnd::Starved, ReceiveEnd::Interrupted] {
        let mut stage = Stage::new(sharded(0));
        let conn = stage.connect();
        let now = stage.now;
        let bytes = greeting(&client_of(2, 0));
        stage.gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
        stage.complete(Completion::ReceiveEnded { conn, end });
        assert!(!stage.takes(|op| matches!(op, Op::Receive { .. })), "{end:?}");
        assert_eq!(taken(&mut stage).bytes, bytes, "{end:?}");
    }
}

#[test]
fn only_so_many_bytes_travel() {
    let mut stage = Stage::new(sharded(0));
    let conn = stage.connect();
    let now = stage.now;
    let mut came = greeting(&client_of(1, 0));
    stage.gateway.on_completion(Completion::Received { conn, bytes: &came }, now);
    while came.len() <= limits::MOVE_BYTES_MAX {
        let bytes = [7; limits::RECEIVE_BUFFER_BYTES];
        stage.gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
        came.extend(bytes);
    }
    stage.settle();
    assert!(!stage.takes(|op| matches!(op, Op::Move(_))));
    assert!(stage.hear(conn)[0].contains("code: 304"));
    assert_eq!(stage.gateway.stats().ended(CloseReason::Flood), 1);
}

#[test]
fn a_full_shard_refuses_its_own_and_lets_others_through() {
    let mut stage = Stage::new(sharded(0));
    for number in 0..4 {
        stage.login(&client_of(0, number));
    }
    let own = stage.connect();
    stage.receive(own, &greeting(&client_of(0, 4)));
    assert!(stage.hear(own)[0].contains("code: 302"));
    let passing = stage.connect();
    stage.receive(passing, &greeting(&client_of(1, 0)));
    assert_eq!(taken(&mut stage).conn, passing);
    // And who comes from another shard is told the same.
    let departure = Move {
        conn: passing,
        to: 0,
        peer: "127.0.0.1:9".parse().expect("an address"),
        bytes: greeting(&client_of(0, 5)),
    };
    let late = arrives(&mut stage, &departure);
    assert!(stage.hear(late)[0].contains("code: 302"));
    assert_eq!(stage.gateway.stats().ended(CloseReason::Busy), 2);
}

#[test]
fn all_shards_together_hold_no_more_than_the_total() {
    let shard = Shard { connections_total: 3, ..shard(0) };
    let mut stage = Stage::new(GatewayConfig { shard, ..config() });
    stage.gateway.set_elsewhere(1);
    stage.login(&client_of(0, 0));
    stage.login(&client_of(0, 1));
    let late = stage.connect();
    stage.receive(late, &greeting(&client_of(0, 2)));
    assert!(stage.hear(late)[0].contains("code: 302"), "two here and one elsewhere");
    assert_eq!(stage.gateway.here(), 3, "it has not closed yet");
    stage.complete(Completion::ReceiveEnded { conn: late, end: ReceiveEnd::Eof });
    assert!(stage.closes(late).is_some());
    stage.gateway.set_elsewhere(0);
    stage.login(&client_of(0, 3));
    let passing = stage.connect();
    assert_eq!(stage.gateway.here(), 4);
    stage.receive(passing, &greeting(&client_of(1, 0)));
    assert_eq!(stage.gateway.here(), 3, "who moves counts where it arrives");
}

#[test]
fn there_is_room_for_arrivals_when_the_door_is_full_of_newcomers() {
    let mut stage = Stage::new(sharded(0));
    while stage.accepts > 0 {
        stage.connect();
    }
    let room = stage.gateway.room_for_arrivals();
    assert_eq!(room, limits::ARRIVALS_MAX as usize);
    for number in 0..room {
        let departure = Move {
            conn: ConnId { slot: 0, generation: 0 },
            to: 0,
            peer: "127.0.0.1:9".parse().expect("an address"),
            bytes: greeting(&client_of(0, number % 50)),
        };
        arrives(&mut stage, &departure);
        stage.ops.clear();
    }
    assert_eq!(stage.gateway.room_for_arrivals(), 0);
    let socket = SocketHandle(7_777);
    let peer = "127.0.0.1:9".parse().expect("an address");
    let (bytes, baggage) = (&greeting("late")[..], Baggage::default());
    stage.complete(Completion::Arrived { socket, peer, bytes, baggage });
    assert!(stage.takes(|op| matches!(op, Op::Discard { socket: of } if *of == socket)));
}

#[test]
fn only_so_many_are_on_their_way() {
    let mut stage = Stage::new(GatewayConfig { connections_max: 5_000, ..sharded(0) });
    for number in 0..=limits::MOVES_MAX {
        let conn = stage.connect();
        stage.receive(conn, &greeting(&client_of(1, number % 100)));
        let moves = stage.takes(|op| matches!(op, Op::Move(_)));
        assert_eq!(moves, number < limits::MOVES_MAX, "{number}");
    }
    assert_eq!(stage.gateway.stats().ended(CloseReason::Busy), 1);
}

#[test]
fn a_drain_waits_for_who_is_being_moved_and_moves_nobody_more() {
    let mut stage = Stage::new(sharded(0));
    let moving = stage.connect();
    stage.receive(moving, &greeting(&client_of(1, 0)));
    let departure = taken(&mut stage);
    let greeting_conn = stage.connect();
    assert!(!stage.gateway.moves_no_more());
    let drain = Command::Drain(Drain::at_once(Span::from_secs(1)));
    stage.gateway.on_command(drain, stage.now);
    stage.receive(greeting_conn, &greeting(&client_of(1, 1)));
    assert!(stage.hear(greeting_conn)[0].contains("code: 101"), "told to leave, and not moved");
    for _ in 0..stage.accepts {
        stage.complete(Completion::AcceptFailed { fault: IoFault::Cancelled });
    }
    stage.pass(Span::from_secs(2));
    assert!(stage.closes(greeting_conn).is_some());
    stage.pass(Span::from_secs(2));
    assert!(!stage.gateway.is_drained(), "one is still here");
    assert!(!stage.gateway.moves_no_more());
    stage.complete(Completion::Moved { conn: moving });
    assert!(stage.gateway.moves_no_more());
    stage.pass(Span::from_millis(20));
    assert!(stage.gateway.is_drained());

    // Who arrives after the end of the ledger is told to leave, and is not in it.
    let mut to = Stage::new(sharded(1));
    to.gateway.on_command(Command::Drain(Drain::at_once(Span::ZERO)), to.now);
    for _ in 0..to.accepts {
        to.complete(Completion::AcceptFailed { fault: IoFault::Cancelled });
    }
    to.pass(Span::from_millis(20));
    assert!(to.gateway.is_drained());
    let late = arrives(&mut to, &departure);
    assert!(to.hear(late)[0].contains("code: 101"));
    assert!(!to.gateway.is_empty());
    to.pass(Span::from_millis(20));
    assert!(to.closes(late).is_some());
    assert!(to.gateway.is_empty());
    assert_eq!(to.events(), ["started", "stopped"]);
}

#[test]
fn a_look_under_way_does_not_follow_a_connection_that_moves() {
    let mut stage = Stage::new(sharded(0));
    let conn = stage.connect();
    stage.pass(Span::from_millis(10_010));
    assert!(stage.looks_at(conn));
    stage.receive(conn, &greeting(&client_of(1, 0)));
    taken(&mut stage);
    // The kernel tells nothing more of it; and should it, that would mean nothing.
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    stage.complete(Completion::Moved { conn });
    assert_eq!(stage.gateway.stats().ended(CloseReason::HandshakeTimeout), 0);
    assert_eq!(stage.gateway.stats().stale, 0);
}
