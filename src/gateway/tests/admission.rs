//! Who may come in, how often, and how much a client may say.

use crate::base::admission::{Admission, ClientLimits, Limit, Rate};
use crate::base::config::{GatewayConfig, Shard};
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::introduction::{Baggage, Introduction};
use crate::base::io::{CloseHow, Completion, Op, ReceiveEnd, SocketHandle};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::tests::reconfigure::reload;
use crate::gateway::tests::{Stage, config, moves};
use crate::wire::message::{AckWanted, Message, Reply};
use crate::wire::native;

fn stage(change: impl FnOnce(&mut Admission)) -> Stage {
    let mut config =
        GatewayConfig { connections_max: 5_000, grace: Span::from_secs(600), ..config() };
    change(&mut config.admission);
    Stage::new(config)
}

fn talkers(client_limits: ClientLimits) -> Stage {
    Stage::new(GatewayConfig { client_limits, ..config() })
}

fn code(reason: CloseReason) -> String {
    format!("code: {}", reason.code())
}

fn limited(stage: &Stage, limit: Limit) -> u64 {
    stage.gateway.stats().tally.limited[limit.index()]
}

/// Whether a connection from there is refused; who is refused closes.
fn is_refused(stage: &mut Stage, address: &str, reason: CloseReason) -> bool {
    let Some(conn) = stage.connect_from(address) else { return true };
    let heard = stage.hear(conn);
    if heard.is_empty() {
        return false;
    }
    assert!(heard[0].starts_with("Goaway") && heard[0].contains(&code(reason)), "{heard:?}");
    leaves(stage, conn);
    true
}

fn leaves(stage: &mut Stage, conn: ConnId) {
    stage.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
    assert_eq!(stage.closes(conn), Some(CloseHow::Finish));
}

/// The window of a GOAWAY, in milliseconds.
fn window(heard: &[String]) -> (u64, u64) {
    let number = |field: &str| {
        let (_, rest) = heard[0].split_once(field).unwrap_or_else(|| panic!("{heard:?}"));
        rest.split([',', ' ']).next().unwrap().parse().unwrap()
    };
    (number("reconnect_min_ms: "), number("reconnect_max_ms: "))
}

#[test]
fn one_address_has_so_many_connections_and_others_are_unharmed() {
    let mut stage = stage(|admission| {
        admission.address.connections = Some(3);
        admission.prefix.connections = Some(5);
    });
    let first = stage.connect_from("192.0.2.1").expect("the first");
    let too_many = CloseReason::TooManyConnections;
    for address in ["192.0.2.1", "::ffff:192.0.2.1"] {
        assert!(!is_refused(&mut stage, address, too_many));
    }
    for _ in 0..50 {
        assert!(is_refused(&mut stage, "192.0.2.1", too_many), "the fourth");
    }
    assert_eq!(limited(&stage, Limit::AddressConnections), 50);
    assert!(!is_refused(&mut stage, "192.0.2.2", too_many), "a neighbour");
    assert!(!is_refused(&mut stage, "192.0.2.2", too_many));
    assert!(is_refused(&mut stage, "192.0.2.3", too_many), "the sixth of the network");
    assert_eq!(limited(&stage, Limit::PrefixConnections), 1);
    assert!(!is_refused(&mut stage, "192.0.3.1", too_many), "the next network");
    leaves(&mut stage, first);
    assert!(!is_refused(&mut stage, "::ffff:192.0.2.3", too_many), "a place is free");
}

#[test]
fn a_session_that_is_held_has_no_connection() {
    let mut stage = stage(|admission| admission.address.connections = Some(1));
    let conn = stage.login("anna");
    assert!(is_refused(&mut stage, "127.0.0.1", CloseReason::TooManyConnections));
    stage.is_lost(conn);
    let token = stage.token("anna", 1);
    let back = stage.come_back("anna", &token, None);
    assert!(stage.hear(back)[0].contains("resumed: true"));
}

#[test]
fn one_address_comes_so_often() {
    let mut stage =
        stage(|admission| admission.address.connects = Some(Rate::per_second(2).with_burst(4)));
    let too_many = CloseReason::TooManyConnections;
    let comes = |stage: &mut Stage, address: &str| {
        (0..20).filter(|_| !is_refused(stage, address, too_many)).count()
    };
    assert_eq!(comes(&mut stage, "2001:db8::1"), 4);
    assert_eq!(comes(&mut stage, "2001:db8::2"), 0, "the same household");
    assert_eq!(comes(&mut stage, "2001:db8:0:1::1"), 4, "another one");
    stage.pass(Span::from_millis(1_500));
    assert_eq!(comes(&mut stage, "2001:db8::1"), 3);
    assert_eq!(limited(&stage, Limit::AddressConnects), 16 + 20 + 16 + 17);
}

#[test]
fn a_flood_is_closed_unread_when_there_are_no_words_left() {
    let mut stage =
        stage(|admission| admission.accepts = Some(Rate::per_second(10).with_burst(10)));
    let (mut told, mut unread) = (0, 0);
    for _ in 0..10 {
        assert!(!is_refused(&mut stage, "192.0.2.1", CloseReason::Busy));
    }
    for number in 0..1_000_u32 {
        let address = format!("10.0.{}.{}", number / 250, number % 250);
        match stage.connect_from(&address) {
            Some(conn) => {
                assert!(stage.hear(conn)[0].contains(&code(CloseReason::Busy)));
                told += 1;
            }
            None => unread += 1,
        }
    }
    assert_eq!(told, limits::REFUSAL_WORDS_PER_S);
    assert_eq!(unread, 1_000 - told);
    assert_eq!(stage.gateway.stats().tally.refused_unread, u64::from(unread));
    assert_eq!(limited(&stage, Limit::Accepts), 1_000);
    assert!(stage.accepts > 0, "the door is open all the same");
}

#[test]
fn who_was_in_before_goes_before_newcomers() {
    let mut stage = stage(|admission| {
        admission.newcomers = Some(Rate::per_second(10).with_burst(20));
    });
    let conns: Vec<_> = (0..20).map(|number| stage.login(&format!("old-{number}"))).collect();
    for conn in conns {
        stage.is_lost(conn);
    }
    let stranger = stage.connect();
    stage.hello(stranger, "stranger", "", 0);
    assert!(stage.hear(stranger)[0].contains(&code(CloseReason::Busy)));
    for number in 0..20_u64 {
        let client = format!("old-{number}");
        let token = stage.token(&client, number + 1);
        let back = stage.come_back(&client, &token, None);
        assert!(stage.hear(back)[0].contains("resumed: true"), "{client}");
    }
    let mut forged = stage.token("forger", 3);
    forged[20] ^= 1;
    for token in [&forged[..], &[], &[0; 7], &stage.token("old-3", 4)] {
        let forger = stage.come_back("forger", token, None);
        assert!(stage.hear(forger)[0].contains(&code(CloseReason::Busy)), "{token:?}");
    }
    // The resumed have used up what newcomers would have had: no more than two bursts of it.
    stage.pass(Span::from_millis(2_000));
    let stranger = stage.connect();
    stage.hello(stranger, "stranger", "", 0);
    assert!(stage.hear(stranger)[0].contains(&code(CloseReason::Busy)));
    stage.pass(Span::from_millis(2_100));
    stage.login("stranger");
}

/// Everybody at once, newcomers first: those who resume are in at once, and all others when their
/// window comes, with few who have to come a third time.
#[test]
fn a_storm_of_everybody_is_over_when_the_windows_are() {
    const CROWD: usize = 1_000;
    let mut stage = stage(|admission| {
        admission.newcomers = Some(Rate::per_second(50).with_burst(100));
    });
    let mut random = fastrand::Rng::with_seed(7);
    let mut waiting: Vec<(Span, usize)> = (0..CROWD).map(|n| (Span::ZERO, n)).collect();
    let (mut attempts, mut second, begin) = (0, 0, stage.now);
    while let Some((at, number)) = waiting.pop() {
        assert!(stage.now.since(begin) < Span::from_secs(120), "{} are out", waiting.len());
        if stage.now.since(begin) < at {
            let wait = at.minus(stage.now.since(begin));
            stage.pass(wait);
        }
        attempts += 1;
        let conn = stage.connect();
        stage.hello(conn, &format!("client-{number}"), "", 0);
        let heard = stage.hear(conn);
        if heard[0].starts_with("Welcome") {
            continue;
        }
        leaves(&mut stage, conn);
        let (min, max) = window(&heard);
        assert!(min < max);
        second += usize::from(at > Span::ZERO);
        let after = Span::from_millis(random.u64(min..=max));
        waiting.push((stage.now.since(begin) + after, number));
        waiting.sort_by(|a, b| b.cmp(a));
    }
    assert_eq!(stage.gateway.stats().online, CROWD);
    // 900 have to wait, at 40 in a second, and the window is 9 s long.
    let took = stage.now.since(begin);
    assert!(took > Span::from_secs(18) && took < Span::from_secs(40), "{took}");
    assert!(attempts < 2 * CROWD + CROWD / 4, "{attempts} attempts");
    assert!(second < CROWD / 4, "{second} were sent away again");
}

#[test]
fn nobody_is_kept_out_for_longer_by_a_crowd_that_is_none() {
    let mut stage =
        stage(|admission| admission.newcomers = Some(Rate::per_second(1).with_burst(1)));
    let mut last = (0, 0);
    for number in 0..1_000 {
        let conn = stage.connect();
        stage.hello(conn, &format!("fake-{number}"), "", 0);
        let heard = stage.hear(conn);
        if number > 0 {
            last = window(&heard);
            leaves(&mut stage, conn);
        }
    }
    let most = limits::CROWD_STRETCH_MAX + limits::RECONNECT_WINDOW.1;
    assert_eq!(last.1, most.as_millis());
}

#[test]
fn what_another_shard_let_in_has_paid_and_is_counted() {
    let shard = Shard { index: 1, count: 3, key: [3, 4], connections_total: 1_000 };
    let mut config = GatewayConfig { shard, connections_max: 100, ..config() };
    config.admission.newcomers = Some(Rate::per_second(1).with_burst(1));
    config.admission.address.connections = Some(9);
    config.admission.address.connects = Some(Rate::per_second(1).with_burst(1));
    let mut stage = Stage::new(config);
    let mut arrive = |number: usize| {
        let greeting = moves::greeting(&moves::client_of(1, number));
        let socket = SocketHandle(500 + number as u64);
        let peer = "192.0.2.1:7".parse().expect("an address");
        stage.complete(Completion::Arrived {
            socket,
            peer,
            bytes: &greeting,
            baggage: Baggage::default(),
        });
        let adopted = stage.ops.iter().find_map(|op| match op {
            Op::Adopt { socket: of, conn } if *of == socket => Some(*conn),
            _ => None,
        });
        stage.hear(adopted.expect("it arrives"))[0].clone()
    };
    // Two parts of three.
    for number in 0..6 {
        assert!(arrive(number).starts_with("Welcome"), "{number}");
    }
    assert!(arrive(6).contains(&code(CloseReason::TooManyConnections)));
}

#[test]
fn the_door_of_a_shard_has_its_part_of_the_budget() {
    let mut config = moves::sharded(1);
    config.connections_max = 100;
    config.admission.newcomers = Some(Rate::per_second(3).with_burst(9));
    let mut stage = Stage::new(config);
    let mut let_in = 0;
    for number in 0..20 {
        let conn = stage.connect();
        // Of another shard: it costs the budget before it costs a move.
        stage.receive(conn, &moves::greeting(&moves::client_of(2, number)));
        let_in += usize::from(stage.takes(|op| matches!(op, Op::Move(_))));
    }
    assert_eq!(let_in, 3);
}

#[test]
fn limits_that_come_and_go_while_people_are_here_count_whom_they_saw() {
    let mut stage = stage(|_| {});
    let before = stage.connect_from("192.0.2.1").expect("no limit");
    reload(&mut stage, |config| config.admission.address.connections = Some(1));
    let counted = stage.connect_from("192.0.2.1").expect("the first that is counted");
    let too_many = CloseReason::TooManyConnections;
    assert!(is_refused(&mut stage, "192.0.2.1", too_many));
    leaves(&mut stage, before);
    assert!(is_refused(&mut stage, "192.0.2.1", too_many), "that one was not counted");
    reload(&mut stage, |config| {
        config.admission.address.connections = None;
        config.admission.address.bits.v4 = 8;
    });
    leaves(&mut stage, counted);
    assert!(!is_refused(&mut stage, "192.0.2.1", too_many));
    reload(&mut stage, |config| config.admission.address.connections = Some(1));
    assert!(!is_refused(&mut stage, "192.0.2.1", too_many), "all who were counted are gone");
    assert!(!is_refused(&mut stage, "192.0.2.2", too_many), "the bits stay as they were");
}

// --- after identity ------------------------------------------------------------------------------

fn pings(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        native::encode(&Message::Ping { reply: Reply::Wanted, payload: &[] }, &mut bytes);
    }
    bytes
}

fn frames(count: u32, burst: u32) -> ClientLimits {
    let frames = Some(Rate::per_second(count).with_burst(burst));
    ClientLimits { frames, ..ClientLimits::default() }
}

/// Whether it is online.
fn is_in(stage: &Stage) -> bool {
    stage.gateway.stats().online == 1
}

#[test]
fn whoever_says_too_much_is_told_and_sent_away() {
    for (name, millis, at_once, is_fine) in [
        ("a beat", 1_000, 1, true),
        ("beats with a message", 2_000, 15, true),
        ("as fast as allowed", 100, 1, true),
        ("a little faster", 90, 1, false),
        ("much faster", 1, 1, false),
        ("many at once", 1_000, 12, false),
        ("very many at once", 5_000, 64, false),
    ] {
        let mut stage = talkers(frames(10, 30));
        let conn = stage.login("anna");
        for _ in 0..600 {
            stage.pass(Span::from_millis(millis));
            stage.receive(conn, &pings(at_once));
            if !is_in(&stage) {
                break;
            }
            stage.hear(conn);
        }
        assert_eq!(is_in(&stage), is_fine, "{name}");
        if !is_fine {
            let heard = stage.hear(conn);
            let last = heard.last().expect("it hears why");
            assert!(last.starts_with("Error") && last.contains("code: 304"), "{name}: {heard:?}");
            assert_eq!(limited(&stage, Limit::ClientFrames), 1);
        }
    }
}

#[test]
fn a_burst_is_forgiven_and_a_flood_is_noticed_soon() {
    let mut stage = talkers(frames(10, 30));
    let conn = stage.login("anna");
    for _ in 0..20 {
        stage.pass(Span::from_secs(4));
        for _ in 0..28 {
            stage.receive(conn, &pings(1));
        }
        stage.hear(conn);
    }
    assert!(is_in(&stage));
    stage.pass(Span::from_secs(4));
    let said = (1..100).find(|_| {
        stage.receive(conn, &pings(1));
        !is_in(&stage)
    });
    assert!(said.is_some_and(|said| (30..=33).contains(&said)), "{said:?}");
}

#[test]
fn bytes_count_in_whole_frames_and_in_pieces() {
    let bytes = Some(Rate::per_second(1_000).with_burst(20_000));
    let mut stage = talkers(ClientLimits { bytes, ..ClientLimits::default() });
    let conn = stage.login("anna");
    let mut data = Vec::new();
    let body = [7; 16_000];
    native::encode(
        &Message::Data { seq: 1, ack: AckWanted::No, topic: "t", body: &body },
        &mut data,
    );
    for _ in 0..5 {
        stage.pass(Span::from_secs(17));
        for piece in data.chunks(256) {
            stage.receive(conn, piece);
        }
        assert!(is_in(&stage), "the largest frame, at the rate");
    }
    for (name, piece_bytes) in [("pieces", 256), ("crumbs", 3)] {
        let mut stage = talkers(ClientLimits { bytes, ..ClientLimits::default() });
        let conn = stage.login("anna");
        let mut said = 0;
        'flood: for _ in 0..10 {
            stage.pass(Span::from_secs(1));
            for piece in data.chunks(piece_bytes) {
                stage.receive(conn, piece);
                said += piece.len();
                if !is_in(&stage) {
                    break 'flood;
                }
            }
        }
        assert!((20_000..24_000).contains(&said), "{name}: {said} bytes");
        assert_eq!(limited(&stage, Limit::ClientBytes), 1, "{name}");
    }
}

#[test]
fn beats_that_come_too_fast_count_and_are_not_answered() {
    let beats = Some(Rate::per_second(1).with_burst(5));
    let mut stage = talkers(ClientLimits { beats, ..ClientLimits::default() });
    let conn = stage.login("anna");
    let mut answered = 0;
    for _ in 0..300 {
        stage.pass(Span::from_millis(100));
        stage.receive(conn, &pings(1));
        answered += stage.hear(conn).len();
    }
    assert!((33..=36).contains(&answered), "{answered} of 300 in 30 s");
    assert_eq!(limited(&stage, Limit::ClientBeats), 300 - answered as u64);
    stage.pass(Span::from_secs(34));
    assert!(is_in(&stage), "each was a beat");
    for _ in 0..3 {
        stage.pass(Span::from_secs(5));
        stage.receive(conn, &pings(1));
        assert_eq!(stage.hear(conn).len(), 1, "who keeps its distance is answered");
    }
}

#[test]
fn nobody_is_blamed_for_what_waited_while_we_stood_still() {
    let mut stage = talkers(frames(10, 20));
    let conn = stage.login("anna");
    for _ in 0..50 {
        stage.pass(Span::from_millis(100));
        stage.receive(conn, &pings(1));
        stage.hear(conn);
    }
    stage.stand_still(Span::from_secs(20));
    for _ in 0..200 {
        stage.receive(conn, &pings(1));
    }
    assert!(is_in(&stage), "20 s at its rate");
    for _ in 0..200 {
        stage.receive(conn, &pings(1));
    }
    assert!(!is_in(&stage), "40 s are too much");
}

#[test]
fn a_slot_that_is_used_again_has_no_debts() {
    let mut stage = talkers(frames(10, 20));
    for _ in 0..5 {
        let conn = stage.login("anna");
        for _ in 0..20 {
            stage.receive(conn, &pings(1));
        }
        stage.hear(conn);
        assert!(is_in(&stage));
        leaves(&mut stage, conn);
    }
}

#[test]
fn who_stands_behind_a_proxy_is_counted_and_the_proxy_is_not() {
    let mut stage = stage(|admission| admission.address.connections = Some(2));
    let proxies = "10.0.0.0/8".parse().expect("a network");
    reload(&mut stage, |config| config.proxies = proxies);
    let mut behind = |peer: &str| {
        let conn = stage.connect_from("10.1.1.1").expect("a proxy is not counted");
        let peer = Some(peer.parse().expect("an address"));
        let as_what = Introduction { peer, ..Introduction::default() };
        stage.complete(Completion::Introduced { conn, as_what: &as_what });
        (conn, stage.hear(conn))
    };
    let (first, heard) = behind("192.0.2.7:1");
    assert!(heard.is_empty());
    assert!(behind("192.0.2.7:2").1.is_empty());
    assert!(behind("192.0.2.8:3").1.is_empty(), "another address");
    let (_, heard) = behind("192.0.2.7:4");
    assert!(heard[0].contains(&code(CloseReason::TooManyConnections)), "{heard:?}");
    assert_eq!(limited(&stage, Limit::AddressConnections), 1);
    stage.complete(Completion::ReceiveEnded { conn: first, end: ReceiveEnd::Eof });
    stage.complete(Completion::Closed { conn: first });
    let conn = stage.connect_from("10.1.1.1").expect("a proxy is not counted");
    let peer = Some("192.0.2.7:5".parse().expect("an address"));
    let as_what = Introduction { peer, ..Introduction::default() };
    stage.complete(Completion::Introduced { conn, as_what: &as_what });
    assert!(stage.hear(conn).is_empty(), "one has gone");
}
