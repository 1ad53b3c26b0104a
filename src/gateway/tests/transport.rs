//! What is told of connections beside the ledger.

use crate::base::config::{GatewayConfig, Mode, ProbePolicy, TransportEvents};
use crate::base::event::{TransportEvent, TransportRecord};
use crate::base::ids::ConnId;
use crate::base::io::{Completion, Found, ReceiveEnd, Stay};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::tests::moves::{client_of, greeting, sharded};
use crate::gateway::tests::{Stage, config};
use crate::wire::message::Message;

fn told() -> GatewayConfig {
    GatewayConfig { transport_events: TransportEvents::Told, ..config() }
}

fn take(stage: &mut Stage) -> Vec<TransportRecord> {
    let mut records = Vec::new();
    stage.gateway.take_transport(&mut records, usize::MAX);
    records
}

/// What was told since the last call, a line each.
fn lines(stage: &mut Stage) -> Vec<String> {
    let line = |record: TransportRecord| match record.event {
        TransportEvent::Connected { conn, .. } => format!("connected {conn}"),
        TransportEvent::Disconnected { conn, client, reason, .. } => {
            let client = client.map_or("nobody".to_owned(), |client| client.to_string());
            format!("disconnected {conn} {client} {reason}")
        }
        TransportEvent::Moved { conn, .. } => format!("moved {conn}"),
        TransportEvent::Suspect { client, silence, .. } => format!("suspect {client} {silence}"),
        TransportEvent::Rescued { client, by, .. } => format!("rescued {client} {}", by.word()),
    };
    take(stage).into_iter().map(line).collect()
}

fn looks(stage: &mut Stage, conn: ConnId, found: Found) {
    stage.ops.retain(|op| !matches!(op, crate::base::io::Op::Look { .. }));
    stage.complete(Completion::Looked { conn, found, tcp: None });
}

#[test]
fn nothing_is_told_unless_somebody_wants_to_know() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.is_lost(conn);
    assert_eq!(lines(&mut stage), [] as [&str; 0]);
}

#[test]
fn every_connection_that_is_told_ends_once() {
    let mut stage = Stage::new(GatewayConfig { grace: Span::from_secs(20), ..told() });
    let first = stage.login("anna");
    stage.is_lost(first);
    let token = stage.token("anna", 1);
    let second = stage.come_back("anna", &token, None);
    let third = stage.come_back("anna", &token, None);
    stage.complete(Completion::ReceiveEnded { conn: second, end: ReceiveEnd::Eof });
    assert!(stage.closes(second).is_some());
    let stranger = stage.connect();
    stage.receive(stranger, b"GET / HTTP/1.1");
    assert!(stage.closes(stranger).is_some());
    stage.say(third, &Message::Bye { code: 100 });
    assert_eq!(
        lines(&mut stage),
        [
            format!("connected {first}"),
            format!("disconnected {first} anna reset"),
            format!("connected {second}"),
            format!("connected {third}"),
            format!("disconnected {second} anna replaced"),
            format!("connected {stranger}"),
            format!("disconnected {stranger} nobody bad_preface"),
            format!("disconnected {third} anna bye"),
        ]
    );
    let ledger = stage.events();
    assert_eq!(ledger.len(), 5, "the ledger knows of two resumes and no more: {ledger:?}");
}

#[test]
fn a_probed_client_is_suspect_from_its_probe_on_and_rescued_by_its_answer() {
    let mut stage = Stage::new(GatewayConfig { probe: ProbePolicy::Auto, ..told() });
    let conn = stage.login("anna");
    lines(&mut stage);
    stage.pass(Span::from_millis(30_010));
    assert_eq!(lines(&mut stage), ["suspect anna 30s"]);
    stage.hear(conn);
    stage.say(conn, &Message::Pong { payload: &[] });
    assert_eq!(lines(&mut stage), ["rescued anna heard"]);
    stage.pass(Span::from_millis(35_010));
    stage.sees_nothing(conn);
    let told = lines(&mut stage);
    assert_eq!(told, ["suspect anna 30s", &format!("disconnected {conn} anna heartbeat_timeout")]);
}

#[test]
fn a_client_that_is_not_probed_is_suspect_at_its_deadline() {
    for (name, config) in [
        ("no probe", told()),
        ("pinged as a matter of course", GatewayConfig { mode: Mode::Server, ..told() }),
    ] {
        let mut stage = Stage::new(config);
        let conn = stage.login("anna");
        stage.pass(Span::from_millis(34_900));
        stage.hear(conn);
        lines(&mut stage);
        stage.pass(Span::from_millis(200));
        assert_eq!(lines(&mut stage), ["suspect anna 35s"], "{name}");
        looks(&mut stage, conn, Found::Bytes);
        assert_eq!(lines(&mut stage), ["rescued anna last_look"], "{name}");
        stage.pass(Span::from_millis(20));
        assert_eq!(lines(&mut stage), ["suspect anna 35s"], "{name}");
        stage.say(conn, &Message::Ack { seq: 0 });
        looks(&mut stage, conn, Found::Nothing);
        assert_eq!(lines(&mut stage).last().map(String::as_str), Some("rescued anna heard"));
        let stats = stage.gateway.stats();
        assert_eq!((stats.online, stats.tally.suspected, stats.rescued), (1, 2, 1), "{name}");
    }
}

#[test]
fn where_there_is_no_room_they_are_dropped_and_counted() {
    let mut stage = Stage::new(told());
    let connections = limits::TRANSPORT_WAITING_MAX as u64 / 2 + 50;
    for _ in 0..connections {
        let stranger = stage.connect();
        stage.receive(stranger, b"GET / HTTP/1.1");
        assert!(stage.closes(stranger).is_some());
    }
    let kept = take(&mut stage);
    assert_eq!(kept.len(), limits::TRANSPORT_WAITING_MAX);
    assert!(kept.iter().all(|record| record.dropped == 0));
    stage.connect();
    let next = take(&mut stage);
    assert_eq!((next[0].tseq, next[0].dropped), (2 * connections + 1, 100));
    stage.connect();
    assert_eq!(take(&mut stage)[0].dropped, 0, "told once");
}

#[test]
fn a_connection_that_moves_is_told_so_and_ends_by_that() {
    let told = GatewayConfig { transport_events: TransportEvents::Told, ..sharded(0) };
    let mut stage = Stage::new(told);
    let conn = stage.connect();
    stage.receive(conn, &greeting(&client_of(1, 0)));
    assert_eq!(lines(&mut stage), [format!("connected {conn}")], "it is still here");
    stage.complete(Completion::Moved { conn });
    assert_eq!(lines(&mut stage), [format!("moved {conn}")]);
    let conn = stage.connect();
    stage.receive(conn, &greeting(&client_of(1, 1)));
    stage.complete(Completion::Stayed { conn, why: Stay::NoRoom });
    let connected = format!("connected {conn}");
    assert_eq!(lines(&mut stage), [connected, format!("disconnected {conn} nobody busy")]);
}
