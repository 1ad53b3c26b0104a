//! TCP is asked for the way to a client, and no verdict is another for it.

use crate::base::config::{GatewayConfig, Mode, ProbePolicy};
use crate::base::event::Event;
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::{Completion, Found, TcpFacts};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, Mood, Reply, SessionView};
use crate::wire::message::{Message, Reply as PingReply};

const PING: Message<'static> = Message::Ping { reply: PingReply::NotWanted, payload: &[] };
const FACTS: TcpFacts = TcpFacts {
    last_data_received_ms: 1,
    last_ack_received_ms: 2,
    unacked: 0,
    rtt_us: 18_400,
    retransmits: 0,
};

fn ask(stage: &mut Stage, command: Command) -> SessionView {
    let reply = stage.gateway.on_command(command, stage.now);
    stage.settle();
    match reply {
        Reply::Session(view) => *view,
        other => panic!("{other:?}"),
    }
}

fn anna() -> ClientId {
    ClientId::new("anna").expect("a client id")
}

fn measure(stage: &mut Stage) -> SessionView {
    ask(stage, Command::Measure { client: anna() })
}

fn view(stage: &mut Stage) -> SessionView {
    ask(stage, Command::Session { client: anna() })
}

fn answer(stage: &mut Stage, conn: ConnId, found: Found) {
    let tcp = (found == Found::Nothing).then_some(FACTS);
    stage.complete(Completion::Looked { conn, found, tcp });
}

#[test]
fn the_way_to_a_client_is_measured_once_and_kept_for_a_moment() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    assert_eq!(measure(&mut stage).tcp, None, "it has only begun");
    measure(&mut stage);
    assert!(stage.looks_at(conn) && !stage.looks_at(conn), "one is under way, and no more");
    assert_eq!(view(&mut stage).mood, Mood::Live, "nobody suspects it");
    answer(&mut stage, conn, Found::Nothing);
    assert_eq!(view(&mut stage).tcp, Some(FACTS));
    measure(&mut stage);
    assert!(!stage.looks_at(conn), "it is known");
    stage.pass(limits::MEASURE_AGE_MAX + Span::from_millis(1));
    assert_eq!(view(&mut stage).tcp, None, "that was then");
    measure(&mut stage);
    assert!(stage.looks_at(conn));
    assert_eq!(stage.gateway.on_command(Command::Measure { client: anna() }, stage.now), {
        stage.gateway.on_command(Command::Session { client: anna() }, stage.now)
    });
    let nobody = Command::Measure { client: ClientId::new("nobody").expect("a client id") };
    assert_eq!(stage.gateway.on_command(nobody, stage.now), Reply::NoSuchClient);
}

#[test]
fn a_measurement_ends_nobody_and_saves_nobody() {
    for found in [Found::Nothing, Found::Bytes, Found::Eof] {
        let mut stage = Stage::new(config());
        let conn = stage.login("anna");
        stage.pass(Span::from_secs(20));
        measure(&mut stage);
        assert!(stage.looks_at(conn));
        answer(&mut stage, conn, found);
        assert_eq!(view(&mut stage).mood, Mood::Live, "{found:?}");
        stage.pass(Span::from_millis(14_990));
        assert!(!stage.looks_at(conn), "{found:?}: its deadline stands");
        stage.pass(Span::from_millis(30));
        stage.sees_nothing(conn);
        let events = stage.events();
        assert_eq!(events.last().map(String::as_str), Some("offline anna 1 heartbeat_timeout"));
    }
}

/// The deadline passes while a measurement is under way. What that saw is older than the suspicion:
/// it is looked again.
#[test]
fn a_verdict_waits_for_a_look_of_its_own() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(34_990));
    measure(&mut stage);
    assert!(stage.looks_at(conn));
    stage.pass(Span::from_millis(30));
    assert!(!stage.looks_at(conn), "one look at a time");
    assert_eq!(view(&mut stage).mood, Mood::Suspect);
    measure(&mut stage);
    assert!(!stage.looks_at(conn), "and no second measurement");
    stage.events();
    answer(&mut stage, conn, Found::Nothing);
    assert!(stage.events().is_empty(), "no verdict by a measurement");
    measure(&mut stage);
    assert!(stage.looks_at(conn) && !stage.looks_at(conn));
    answer(&mut stage, conn, Found::Bytes);
    assert!(stage.events().is_empty(), "its bytes wait");
    stage.say(conn, &PING);
    stage.pass(Span::from_secs(30));
    assert!(!stage.looks_at(conn));
    assert_eq!(view(&mut stage).mood, Mood::Live);
}

#[test]
fn whoever_goes_while_it_is_measured_is_not_missed() {
    let mut stage = Stage::new(GatewayConfig { grace: Span::from_secs(60), ..config() });
    let conn = stage.login("anna");
    measure(&mut stage);
    assert!(stage.looks_at(conn));
    stage.is_lost(conn);
    answer(&mut stage, conn, Found::Nothing);
    let held = measure(&mut stage);
    assert_eq!((held.mood, held.tcp), (Mood::Held, None));
    assert!(!stage.looks_at(conn), "there is no connection to look at");
    let token = stage.token("anna", 1);
    let back = stage.come_back("anna", &token, None);
    measure(&mut stage);
    assert!(stage.looks_at(back));
    answer(&mut stage, back, Found::Nothing);
    assert_eq!(view(&mut stage).tcp, Some(FACTS));
}

#[test]
fn what_was_measured_is_remembered_for_so_many_only() {
    let most = u32::try_from(limits::MEASURES_MAX).expect("few");
    let mut stage = Stage::new(GatewayConfig { connections_max: most + 9, ..config() });
    for number in 0..most + 9 {
        let name = format!("c{number}");
        let conn = stage.login(&name);
        let client = ClientId::new(&name).expect("a client id");
        ask(&mut stage, Command::Measure { client: client.clone() });
        assert!(stage.looks_at(conn));
        answer(&mut stage, conn, Found::Nothing);
        assert_eq!(ask(&mut stage, Command::Session { client }).tcp, Some(FACTS));
    }
    let client = ClientId::new("c0").expect("a client id");
    assert_eq!(ask(&mut stage, Command::Session { client }).tcp, None, "long ago");
}

#[test]
fn beats_leave_a_timeline_that_a_resumed_session_goes_on_with() {
    let mut stage = Stage::new(GatewayConfig { grace: Span::from_secs(60), ..config() });
    let conn = stage.login("anna");
    for _ in 0..3 {
        stage.pass(Span::from_secs(10));
        stage.say(conn, &PING);
    }
    stage.is_lost(conn);
    stage.pass(Span::from_secs(20));
    let token = stage.token("anna", 1);
    let back = stage.come_back("anna", &token, None);
    let seen = view(&mut stage).pulse;
    assert_eq!(seen.beats(), 4, "that it came back is a sign of life as well");
    assert_eq!(seen.longest_gap().as_millis(), 20_000);
    let gaps: Vec<_> = seen.gaps().map(Span::as_millis).collect();
    assert!(gaps.len() == 4 && gaps[3] > 18_000 && gaps[..3].iter().all(|gap| *gap < 11_000));
    stage.pass(Span::from_secs(5));
    stage.records.clear();
    stage.say(back, &Message::Bye { code: 100 });
    let evidence = stage.records.iter().find_map(|record| match &record.event {
        Event::Offline { evidence, .. } => Some(*evidence),
        _ => None,
    });
    let evidence = evidence.expect("it left");
    assert_eq!((evidence.pulse.beats(), evidence.timeout.span()), (5, Span::from_secs(35)));
}

#[test]
fn how_long_an_answer_took_is_known_and_how_long_none_came() {
    for (mode, probe, asked_after) in
        [(Mode::Client, ProbePolicy::Auto, 30_010), (Mode::Server, ProbePolicy::Off, 15_010)]
    {
        let mut stage = Stage::new(GatewayConfig { mode, probe, ..config() });
        let conn = stage.login("anna");
        assert_eq!(view(&mut stage).answered_in, None);
        stage.pass(Span::from_millis(asked_after));
        assert!(stage.hear(conn)[0].contains("AtOnce"));
        stage.pass(Span::from_millis(40));
        stage.say(conn, &Message::Pong { payload: b"" });
        let took = view(&mut stage).answered_in.expect("it answered").as_micros();
        assert!((37_000..60_000).contains(&took), "{took}: from the tick in which it was asked");
        stage.pass(Span::from_millis(35_020));
        stage.hear(conn);
        stage.sees_nothing(conn);
        let evidence = stage.records.iter().find_map(|record| match &record.event {
            Event::Offline { evidence, .. } => Some(*evidence),
            _ => None,
        });
        let ago = evidence.expect("it was judged").probe_ago.span().as_millis();
        assert!(ago.abs_diff(35_020 - asked_after) <= 20, "{ago}");
    }
}
