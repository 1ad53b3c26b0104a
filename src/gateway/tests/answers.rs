//! One session seen and moved from outside.

use crate::base::config::{GatewayConfig, Rhythm};
use crate::base::ids::ClientId;
use crate::base::io::Op;
use crate::base::time::Span;
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, Filter, Kick, Mood, Reply, SessionView};
use crate::wire::message::{Message, Reply as PingReply};

const PING: Message<'static> = Message::Ping { reply: PingReply::NotWanted, payload: &[] };

fn secs(secs: u64) -> Span {
    Span::from_secs(secs)
}

fn anna() -> ClientId {
    ClientId::new("anna").expect("a client id")
}

fn ask(stage: &mut Stage, command: Command) -> Reply {
    let reply = stage.gateway.on_command(command, stage.now);
    stage.settle();
    reply
}

fn view(stage: &mut Stage) -> SessionView {
    match ask(stage, Command::Session { client: anna() }) {
        Reply::Session(view) => *view,
        other => panic!("{other:?}"),
    }
}

fn set_rhythm(stage: &mut Stage, interval: u64, timeout: u64) -> Reply {
    let rhythm = Rhythm { interval: secs(interval), timeout: secs(timeout) };
    ask(stage, Command::SetRhythm { client: anna(), rhythm })
}

#[test]
fn a_session_is_seen_as_it_is() {
    let mut stage = Stage::new(GatewayConfig { grace: secs(60), ..config() });
    assert_eq!(ask(&mut stage, Command::Session { client: anna() }), Reply::NoSuchClient);
    let conn = stage.connect();
    stage.hello(conn, "anna", "typical", 0);
    let began = stage.now;
    stage.pass(secs(20));
    stage.receive(conn, &[3, 0]);
    let seen = view(&mut stage);
    assert_eq!((seen.mood, seen.since, seen.last_beat), (Mood::Live, began, began));
    assert_eq!((seen.presence.conn, seen.grace), (conn, secs(60)));
    assert_eq!(seen.partial_bytes, 2);
    assert!(seen.outbox_bytes > 0, "WELCOME was not sent yet");
    stage.receive(conn, &[0, 0]);
    assert_eq!(view(&mut stage).last_beat, began + secs(20));
    stage.is_lost(conn);
    assert_eq!(view(&mut stage).mood, Mood::Held);
    let token = stage.token("anna", 1);
    stage.pass(secs(5));
    stage.come_back("anna", &token, None);
    assert_eq!(view(&mut stage).since, began, "the same session goes on");
}

#[test]
fn a_page_of_sessions_leaves_out_whom_the_filter_does() {
    let mut stage = Stage::new(GatewayConfig { connections_max: 10, ..config() });
    for (client, class) in [("a-1", "mobile"), ("b-1", ""), ("a-2", ""), ("b-2", "mobile")] {
        let conn = stage.connect();
        stage.hello(conn, client, class, 0);
    }
    let mobile = Some(stage.gateway.config.class_id("mobile"));
    for (prefix, class, expected) in [
        ("", None, vec!["a-1", "b-1", "a-2", "b-2"]),
        ("a-", None, vec!["a-1", "a-2"]),
        ("", mobile, vec!["a-1", "b-2"]),
        ("b", mobile, vec!["b-2"]),
        ("c", None, vec![]),
    ] {
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(from_slot) = from {
            let filter = Filter { prefix: prefix.into(), class, group: None };
            let reply = ask(&mut stage, Command::Sessions { from_slot, limit: 3, filter });
            let Reply::Sessions { sessions, next_slot } = reply else { panic!("{reply:?}") };
            seen.extend(sessions.iter().map(|view| view.presence.client.to_string()));
            from = next_slot;
        }
        assert_eq!(seen, expected, "{prefix:?} {class:?}");
    }
}

#[test]
fn a_kick_says_what_it_was_told_and_spares_a_newer_session() {
    let mut stage = Stage::new(config());
    stage.login("anna");
    let conn = stage.login("anna");
    let kick = |epoch, code| {
        Command::Kick(Kick { client: anna(), epoch, code, text: "come to the office".into() })
    };
    assert_eq!(ask(&mut stage, kick(Some(1), 300)), Reply::OtherSession);
    assert_eq!(ask(&mut stage, kick(Some(2), 1_234)), Reply::Done);
    let heard = stage.hear(conn);
    assert!(heard[0].contains("code: 1234, text: \"come to the office\""), "{heard:?}");
    assert_eq!(stage.events().last().expect("some"), "offline anna 2 kicked");
}

#[test]
fn a_rhythm_is_moved_within_bounds_and_the_ledger_says_so() {
    let mut stage = Stage::new(config());
    assert_eq!(set_rhythm(&mut stage, 5, 12), Reply::NoSuchClient);
    let conn = stage.login("anna");
    assert!(matches!(
        ask(
            &mut stage,
            Command::SetRhythm {
                client: anna(),
                rhythm: Rhythm { interval: Span::from_millis(60), timeout: secs(2) }
            }
        ),
        Reply::OutOfBounds { shortest, .. } if shortest == secs(1)
    ));
    assert!(stage.hear(conn).is_empty());
    assert_eq!(set_rhythm(&mut stage, 5, 12), Reply::Done);
    assert_eq!(stage.hear(conn), ["Beat { interval_ms: 5000, timeout_ms: 12000 }"]);
    assert_eq!(stage.events().last().expect("some"), "rhythm anna 1 5s 12s");
    let is_set = |op: &Op| matches!(op, Op::SetUserTimeout { timeout, .. } if *timeout == secs(12));
    assert!(stage.takes(is_set));
    assert_eq!(view(&mut stage).presence.timeout, secs(12));
}

/// Whoever has not said anything since BEAT may not have read it yet.
#[test]
fn a_shorter_timeout_counts_from_the_next_beat_on() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    assert_eq!(set_rhythm(&mut stage, 5, 12), Reply::Done);
    stage.pass(secs(34));
    assert!(!stage.looks_at(conn), "35 s were promised");
    stage.say(conn, &PING);
    stage.pass(secs(11));
    assert!(!stage.looks_at(conn));
    stage.pass(Span::from_millis(1_010));
    stage.sees_nothing(conn);
    assert_eq!(stage.events().last().expect("some"), "offline anna 1 heartbeat_timeout");
}

#[test]
fn moved_twice_without_a_word_the_longest_timeout_counts() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    set_rhythm(&mut stage, 5, 12);
    set_rhythm(&mut stage, 2, 5);
    stage.pass(secs(34));
    assert!(!stage.looks_at(conn), "35 s were promised");
    stage.pass(Span::from_millis(1_010));
    assert!(stage.looks_at(conn));
}

#[test]
fn a_longer_timeout_counts_at_once() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    assert_eq!(set_rhythm(&mut stage, 60, 130), Reply::Done);
    stage.pass(secs(129));
    assert!(!stage.looks_at(conn));
    stage.pass(Span::from_millis(1_010));
    assert!(stage.looks_at(conn));
}

#[test]
fn whoever_has_no_connection_cannot_be_moved() {
    let mut stage = Stage::new(GatewayConfig { grace: secs(60), ..config() });
    let conn = stage.login("anna");
    stage.is_lost(conn);
    assert_eq!(set_rhythm(&mut stage, 5, 12), Reply::NotConnected);
}

#[test]
fn who_is_online_is_told_in_pages_that_are_true_at_their_number() {
    let mut stage = Stage::new(GatewayConfig { connections_max: 10, ..config() });
    let conns: Vec<_> = (0..7).map(|number| stage.login(&format!("c{number}"))).collect();
    stage.say(conns[3], &Message::Bye { code: 100 });
    let mut seen = Vec::new();
    let mut from_slot = Some(0);
    let mut pages = 0;
    while let Some(slot) = from_slot {
        let command = Command::Clients { from_slot: slot, limit: 3 };
        let reply = stage.gateway.on_command(command, stage.now);
        let Reply::Clients { seq, clients, next_slot } = reply else { panic!("{reply:?}") };
        assert_eq!(seq, stage.gateway.stats().seq_last);
        assert!(clients.len() <= 3);
        seen.extend(clients);
        from_slot = next_slot;
        pages += 1;
    }
    assert_eq!(pages, 3);
    let names: Vec<_> = seen.iter().map(|one| (one.conn, one.client.to_string())).collect();
    let expected: Vec<_> = [0, 1, 2, 4, 5, 6].map(|n: usize| (conns[n], format!("c{n}"))).into();
    assert_eq!(names, expected, "whoever said BYE is not there");
    assert_eq!(seen[0].interval, config().rhythm.interval);

    let beyond = Command::Clients { from_slot: u32::MAX, limit: 0 };
    let reply = stage.gateway.on_command(beyond, stage.now);
    assert!(matches!(reply, Reply::Clients { clients, next_slot: None, .. } if clients.is_empty()));
}
