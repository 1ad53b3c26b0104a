//! Whoever comes by a WebSocket is a browser, and is pinged.

use crate::base::introduction::{Carrier, Introduction};

use crate::base::config::{GatewayConfig, Mode, Rhythm, TransportEvents};
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::Completion;
use crate::base::time::Span;
use crate::gateway::Command;
use crate::gateway::tests::{Stage, config};
use crate::wire::message::{Message, Reply as PingReply};

fn browser(stage: &mut Stage) -> ConnId {
    let conn = stage.connect();
    let as_what = &Introduction { carrier: Carrier::WebSocket, ..Introduction::default() };
    stage.complete(Completion::Introduced { conn, as_what });
    conn
}

#[test]
fn a_browser_is_pinged_after_an_interval_of_silence_and_others_are_not() {
    for (configured, told) in
        [(Mode::Client, "Either"), (Mode::Either, "Either"), (Mode::Server, "Server")]
    {
        let mut stage = Stage::new(GatewayConfig { mode: configured, ..config() });
        let conn = browser(&mut stage);
        stage.hello(conn, "anna", "", 0);
        let heard = stage.hear(conn);
        assert!(heard[0].contains(&format!("mode: {told}")), "{configured:?}: {heard:?}");
        stage.pass(Span::from_secs(15));
        assert_eq!(
            stage.hear(conn),
            [format!("{:?}", Message::Ping { reply: PingReply::AtOnce, payload: &[] })]
        );
        stage.say(conn, &Message::Pong { payload: &[] });
        assert_eq!(stage.gateway.stats().pings_answered, 1);
        stage.pass(Span::from_secs(14));
        assert_eq!(stage.hear(conn).len(), 0, "it was heard");
        stage.pass(Span::from_secs(1));
        assert_eq!(stage.hear(conn).len(), 1);
        stage.pass(Span::from_secs(21));
        stage.sees_nothing(conn);
        assert!(stage.hear(conn)[0].contains("code: 202"), "a page that is gone is gone");
    }
    let mut stage = Stage::new(config());
    let conn = stage.login("berta");
    stage.pass(Span::from_secs(34));
    assert_eq!(stage.hear(conn).len(), 0);
}

#[test]
fn a_browser_keeps_being_pinged_at_another_rhythm_and_by_another_connection() {
    let grace = Span::from_secs(60);
    let mut stage = Stage::new(GatewayConfig { grace, ..config() });
    let conn = browser(&mut stage);
    stage.hello(conn, "anna", "", 0);
    stage.hear(conn);
    let rhythm = Rhythm { interval: Span::from_secs(5), timeout: Span::from_secs(12) };
    let client = ClientId::new("anna").expect("an id");
    let now = stage.now;
    stage.gateway.on_command(Command::SetRhythm { client, rhythm }, now);
    stage.settle();
    stage.hear(conn);
    stage.pass(Span::from_secs(5));
    assert_eq!(stage.hear(conn).len(), 1);
    let token = stage.token("anna", 1);
    // Not by a browser this time.
    let conn = stage.come_back("anna", &token, None);
    let heard = stage.hear(conn);
    assert!(heard[0].contains("mode: Client"), "{heard:?}");
    stage.pass(Span::from_secs(30));
    assert_eq!(stage.hear(conn).len(), 0);
}

#[test]
fn being_pinged_makes_no_suspect_of_a_browser() {
    let transport = GatewayConfig { transport_events: TransportEvents::Told, ..config() };
    let mut stage = Stage::new(transport);
    let conn = browser(&mut stage);
    stage.hello(conn, "anna", "", 0);
    stage.hear(conn);
    stage.pass(Span::from_secs(15));
    stage.hear(conn);
    stage.say(conn, &Message::Pong { payload: &[] });
    let mut told = Vec::new();
    stage.gateway.take_transport(&mut told, 100);
    let words: Vec<String> = told.iter().map(|record| format!("{:?}", record.event)).collect();
    assert!(
        !words.iter().any(|word| word.contains("Suspect") || word.contains("Rescued")),
        "{words:?}"
    );
}
