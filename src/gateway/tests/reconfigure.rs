//! A gateway is told anew, and whoever is here goes on as before.

use crate::base::config::{Duplicate, GatewayConfig, Rhythm, UserTimeout};
use crate::base::event::CloseReason;
use crate::base::ids::ClientId;
use crate::base::io::{Completion, Op, ReceiveEnd};
use crate::base::reconfiguration::Reconfiguration;
use crate::base::time::Span;
use crate::gateway::tests::{Stage, config, moves};
use crate::gateway::{Command, Reply};
use crate::wire::message::{Message, Reply as PingReply};

const fn secs(secs: u64) -> Span {
    Span::from_secs(secs)
}

/// Tells it what `change` makes of what it was told before.
pub(super) fn reload(stage: &mut Stage, change: impl FnOnce(&mut GatewayConfig)) {
    let mut wanted = stage.gateway.config.clone();
    wanted.classes = wanted.classes_in_force().cloned().collect();
    wanted.classes_retired.clear();
    change(&mut wanted);
    let new =
        Reconfiguration::new(&stage.gateway.config, &wanted, Span::ZERO).expect("few classes");
    let command = Command::Reconfigure(Box::new(new));
    assert_eq!(stage.gateway.on_command(command, stage.now), Reply::Done);
    stage.settle();
}

fn code(reason: CloseReason) -> String {
    format!("code: {}", reason.code())
}

fn rhythm(interval: u64, timeout: u64) -> Rhythm {
    Rhythm { interval: secs(interval), timeout: secs(timeout) }
}

#[test]
fn a_session_keeps_its_rhythm_and_a_newcomer_gets_the_new_one() {
    let mut stage = Stage::new(config());
    let old = stage.login("old");
    reload(&mut stage, |config| config.rhythm = rhythm(5, 12));
    let new = stage.connect();
    stage.hello(new, "new", "", 0);
    let heard = stage.hear(new);
    assert!(heard[0].contains("interval_ms: 5000, timeout_ms: 12000"), "{heard:?}");
    stage.pass(secs(13));
    assert!(stage.looks_at(new) && !stage.looks_at(old));
    stage.pass(secs(23));
    assert!(stage.looks_at(old), "35 s are over");
}

#[test]
fn a_session_keeps_its_grace_and_its_place() {
    let mut stage = Stage::new(GatewayConfig { grace: secs(20), ..config() });
    let (old, token) = (stage.login("old"), stage.token("old", 1));
    reload(&mut stage, |config| {
        config.grace = Span::ZERO;
        config.duplicate = Duplicate::Reject;
    });
    let new = stage.login("new");
    stage.is_lost(new);
    assert_eq!(stage.events()[3..], ["offline new 2 reset"], "it came under no grace");
    stage.is_lost(old);
    assert_eq!(stage.gateway.stats().held, 1);
    stage.pass(secs(19));
    let back = stage.come_back("old", &token, None);
    assert!(stage.hear(back)[0].contains("resumed: true, epoch: 1"));
    let second = stage.connect();
    stage.hello(second, "old", "", 0);
    assert!(
        stage.hear(second)[0].contains(&code(CloseReason::AlreadyConnected)),
        "back under the new policy"
    );
}

#[test]
fn a_class_that_goes_takes_nobodys_name() {
    let own = config().class("own");
    let class = |name: &str| (name.to_owned(), own);
    let classes = vec![class("lock"), class("door")];
    let mut stage = Stage::new(GatewayConfig { classes, ..config() });
    let conn = stage.connect();
    stage.hello(conn, "anna", "door", 0);
    stage.hear(conn);
    let class_of = |stage: &Stage, client: &str| {
        let client = ClientId::new(client).expect("a client id");
        let Reply::Session(view) = stage.gateway.session(&client) else { panic!("not online") };
        stage.gateway.config.class_name(view.class).to_owned()
    };
    reload(&mut stage, |config| config.classes = vec![class("gate"), class("lock")]);
    assert_eq!(class_of(&stage, "anna"), "door");
    for (client, named, expected) in [("bert", "door", ""), ("carl", "gate", "gate")] {
        let conn = stage.connect();
        stage.hello(conn, client, named, 0);
        stage.hear(conn);
        assert_eq!(class_of(&stage, client), expected, "{named}");
    }
    reload(&mut stage, |config| config.classes = vec![class("door")]);
    assert_eq!(class_of(&stage, "anna"), "door");
    assert_eq!(class_of(&stage, "carl"), "gate");
}

#[test]
fn fewer_connections_send_nobody_away_and_more_than_planned_are_none() {
    let mut stage = Stage::new(config());
    for client in ["a", "b", "c"] {
        stage.login(client);
    }
    reload(&mut stage, |config| config.connections_max = 2);
    let refused = stage.connect();
    assert!(stage.hear(refused)[0].contains(&code(CloseReason::Busy)), "busy");
    assert_eq!(stage.gateway.stats().online, 3);
    assert!(stage.closes(refused).is_none());
    stage.complete(Completion::ReceiveEnded { conn: refused, end: ReceiveEnd::Eof });
    assert!(stage.closes(refused).is_some());
    reload(&mut stage, |config| config.connections_max = 1_000_000);
    stage.login("d");
    let fifth = stage.connect();
    assert!(stage.hear(fifth)[0].contains(&code(CloseReason::Busy)), "four were planned for");
}

#[test]
fn among_shards_the_total_is_what_changes() {
    let mut stage = Stage::new(moves::sharded(0));
    let names: Vec<String> = (0..2).map(|number| moves::client_of(0, number)).collect();
    stage.login(&names[0]);
    reload(&mut stage, |config| config.connections_max = 1);
    let refused = stage.connect();
    stage.hello(refused, &names[1], "", 0);
    assert!(stage.hear(refused)[0].contains(&code(CloseReason::Busy)));
}

#[test]
fn the_timeouts_of_strangers_hold_at_once() {
    let mut stage = Stage::new(config());
    let early = stage.connect();
    reload(&mut stage, |config| config.handshake_timeout = secs(30));
    stage.pass(secs(11));
    assert!(!stage.looks_at(early), "it has longer now");
    reload(&mut stage, |config| config.handshake_timeout = secs(2));
    let late = stage.connect();
    stage.pass(secs(3));
    assert!(stage.looks_at(late));
}

/// Sockets go on inheriting what the listener was told at the start.
#[test]
fn tcp_follows_a_rhythm_that_is_not_the_first() {
    let mut stage = Stage::new(config());
    let sets = |stage: &mut Stage| stage.takes(|op| matches!(op, Op::SetUserTimeout { .. }));
    stage.login("a");
    assert!(!sets(&mut stage), "it inherited the right one");
    assert_eq!(stage.gateway.config.user_timeout, UserTimeout::FollowTimeout);
    reload(&mut stage, |config| config.rhythm = rhythm(5, 12));
    stage.login("b");
    assert!(sets(&mut stage));
}

#[test]
fn a_smaller_outbox_is_checked_against_what_could_wait_before() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    reload(&mut stage, |config| config.outbox_bytes_max = 20_000);
    let ping = Message::Ping { reply: PingReply::Wanted, payload: b"still here" };
    stage.say(conn, &ping);
    assert_eq!(stage.hear(conn).len(), 1);
}
