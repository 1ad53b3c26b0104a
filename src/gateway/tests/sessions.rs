//! Sessions that outlive their connections, names that are fought for, verdicts that were wrong.

use crate::base::config::{Class, Duplicate, GatewayConfig, ProbePolicy};
use crate::base::event::Event;
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::{CloseHow, Completion, IoFault, ReceiveEnd};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, Drain, Kick, Reply, resume};
use crate::wire::message::{Before, EndedBy, Message};

fn config_with_grace() -> GatewayConfig {
    GatewayConfig { grace: Span::from_secs(20), ..config() }
}

#[test]
fn a_lost_client_that_comes_back_in_time_was_never_offline() {
    let mut stage = Stage::new(config_with_grace());
    let lost = stage.connect();
    stage.hello(lost, "anna", "", 0);
    let token = stage.token("anna", 1);
    let heard = stage.hear(lost);
    assert!(heard[0].contains(&format!("resume: {token:?}")), "{heard:?}");
    stage.is_lost(lost);
    assert_eq!(stage.gateway.stats().held, 1);
    assert_eq!(stage.gateway.stats().online, 0);
    stage.pass(Span::from_secs(19));
    let back = stage.come_back("anna", &token, None);
    assert!(stage.hear(back)[0].contains("resumed: true, epoch: 1"));
    assert_eq!(stage.events(), ["started", "online anna 1", "resumed anna 1 19s"]);
    assert_eq!(stage.gateway.stats().connections, 1, "the old slot is free");
    stage.say(back, &Message::Bye { code: 100 });
    assert_eq!(stage.events(), ["offline anna 1 bye"], "who leaves on purpose is not held");
}

#[test]
fn a_lost_client_that_does_not_come_back_is_offline_after_the_grace() {
    let mut stage = Stage::new(config_with_grace());
    let lost = stage.login("anna");
    stage.is_lost(lost);
    stage.pass(Span::from_millis(19_990));
    assert_eq!(stage.events(), ["started", "online anna 1"]);
    stage.pass(Span::from_millis(20));
    let held = stage.records.iter().find_map(|record| match &record.event {
        Event::Offline { evidence, .. } => Some(evidence.held),
        _ => None,
    });
    assert!(held.is_some_and(|held| held >= Span::from_secs(20)));
    assert_eq!(stage.events(), ["offline anna 1 reset"], "for the reason it was lost");
    assert_eq!(stage.gateway.stats().connections, 0);
}

#[test]
fn a_verdict_is_held_as_well() {
    let mut stage = Stage::new(config_with_grace());
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(35_010));
    stage.sees_nothing(conn);
    assert_eq!(stage.events(), ["started", "online anna 1"]);
    let token = stage.token("anna", 1);
    let back = stage.come_back("anna", &token, None);
    assert!(stage.hear(back)[0].contains("resumed: true"));
    assert_eq!(stage.closes(conn), Some(CloseHow::Abort), "its socket was still closing");
    assert_eq!(stage.events(), ["resumed anna 1 0s"]);
    assert_eq!(stage.gateway.stats().connections, 1);
}

#[test]
fn a_client_that_moved_before_the_loss_was_noticed_resumes_too() {
    let mut stage = Stage::new(config_with_grace());
    let old = stage.login("anna");
    let token = stage.token("anna", 1);
    let new = stage.come_back("anna", &token, None);
    assert!(stage.hear(new)[0].contains("resumed: true, epoch: 1"));
    assert!(stage.hear(old)[0].contains("code: 102"));
    stage.complete(Completion::ReceiveEnded { conn: old, end: ReceiveEnd::Eof });
    assert!(stage.closes(old).is_some());
    assert_eq!(stage.events(), ["started", "online anna 1", "resumed anna 1 0s"]);
}

#[test]
fn without_the_right_token_a_session_is_not_resumed() {
    for (name, token) in [
        ("none", Vec::new()),
        ("another client's", resume::token([0, 0], "bert", 1).to_vec()),
        ("a former session's", resume::token([0, 0], "anna", 0).to_vec()),
        ("another boot's", resume::token([1, 1], "anna", 1).to_vec()),
    ] {
        let mut stage = Stage::new(config_with_grace());
        let lost = stage.login("anna");
        stage.is_lost(lost);
        let back = stage.come_back("anna", &token, None);
        assert!(stage.hear(back)[0].contains("resumed: false, epoch: 2"), "{name}");
        let events = stage.events();
        assert_eq!(events[2..], ["offline anna 1 reset", "online anna 2"], "{name}");
    }
}

#[test]
fn the_held_end_with_a_drain_and_with_a_kick() {
    let mut stage = Stage::new(config_with_grace());
    let (anna, bert) = (stage.login("anna"), stage.login("bert"));
    stage.is_lost(anna);
    stage.is_lost(bert);
    let client = ClientId::new("anna").expect("a client id");
    assert_eq!(stage.gateway.on_command(Command::Kick(Kick::of(client)), stage.now), Reply::Done);
    stage.settle();
    stage.gateway.on_command(Command::Drain(Drain::at_once(Span::from_secs(5))), stage.now);
    stage.settle();
    for _ in 0..stage.accepts {
        stage.complete(Completion::AcceptFailed { fault: IoFault::Cancelled });
    }
    stage.pass(Span::from_millis(1));
    assert!(stage.gateway.is_drained());
    let events = stage.events();
    assert_eq!(events[3..], ["offline anna 1 kicked", "offline bert 2 reset", "stopped"]);
}

#[test]
fn a_full_house_lets_in_whom_it_holds() {
    let mut stage = Stage::new(config_with_grace());
    let inside: Vec<ConnId> = (0..4).map(|number| stage.login(&format!("c{number}"))).collect();
    for conn in &inside {
        stage.is_lost(*conn);
    }
    for number in 0..4_u64 {
        let client = format!("c{number}");
        let token = stage.token(&client, number + 1);
        let back = stage.come_back(&client, &token, None);
        assert!(stage.hear(back)[0].contains("resumed: true"), "{client}");
    }
    assert_eq!(stage.gateway.stats().online, 4);
}

#[test]
fn the_held_do_not_close_the_door_to_others() {
    let mut stage = Stage::new(config_with_grace());
    let inside: Vec<ConnId> = (0..4).map(|number| stage.login(&format!("c{number}"))).collect();
    for conn in &inside {
        stage.is_lost(*conn);
    }
    stage.events();
    for _ in 0..limits::REFUSALS_MAX {
        let conn = stage.connect();
        stage.hear(conn);
    }
    let events = stage.events();
    assert_eq!(events[0], "offline c0 1 reset", "whoever was lost longest ago goes first");
    assert_eq!(stage.gateway.stats().held, 0);
}

#[test]
fn a_client_that_is_lost_again_and_again_is_remembered_once() {
    let mut stage = Stage::new(GatewayConfig { connections_max: 100, ..config_with_grace() });
    let first = stage.login("held-all-the-time");
    stage.is_lost(first);
    let mut conn = stage.login("anna");
    let token = stage.token("anna", 2);
    for _ in 0..1_000 {
        stage.is_lost(conn);
        conn = stage.come_back("anna", &token, None);
        stage.hear(conn);
    }
    assert_eq!(stage.gateway.stats().held, 1);
}

#[test]
fn a_wrong_verdict_is_counted_across_a_stall_too() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(35_010));
    stage.sees_nothing(conn);
    stage.hear(conn);
    stage.closes(conn);
    stage.stand_still(Span::from_secs(600));
    stage.pass(Span::ZERO);
    let before = Before { last_beat_ago_ms: 610_000, ended_by: EndedBy::Server };
    let other = stage.login("bert");
    stage.say(other, &Message::Bye { code: 100 });
    stage.come_back("anna", &[], Some(before));
    assert_eq!(stage.gateway.stats().false_offline, 1, "it beat twenty-five seconds in");
}

#[test]
fn a_class_may_keep_the_older_login() {
    let own = Class {
        rhythm: config().rhythm,
        probe: ProbePolicy::Off,
        grace: Span::ZERO,
        duplicate: Duplicate::Reject,
    };
    let classes = vec![("lock".to_owned(), own)];
    let mut stage = Stage::new(GatewayConfig { classes, ..config() });
    let older = stage.connect();
    stage.hello(older, "anna", "lock", 0);
    stage.hear(older);
    let newer = stage.connect();
    stage.hello(newer, "anna", "", 0);
    let heard = stage.hear(newer);
    assert!(heard[0].contains("code: 305"), "the class of the owner decides: {heard:?}");
    assert!(stage.closes(newer).is_some());
    assert_eq!(stage.events(), ["started", "online anna 1"]);
}

#[test]
fn two_devices_that_fight_for_an_id_are_slowed_down() {
    let mut stage = Stage::new(GatewayConfig { connections_max: 40, ..config() });
    stage.login("anna");
    for _ in 0..limits::CONTEST_FREE {
        stage.login("anna");
    }
    let mut waits = Vec::new();
    for _ in 0..3 {
        let newcomer = stage.connect();
        stage.hello(newcomer, "anna", "", 0);
        let heard = stage.hear(newcomer);
        assert!(heard[0].contains("code: 306"), "{heard:?}");
        let wait = heard[0]
            .split("reconnect_max_ms: ")
            .nth(1)
            .and_then(|rest| rest.split(',').next().and_then(|number| number.parse::<u32>().ok()));
        waits.push(wait.expect("a window"));
        stage.complete(Completion::ReceiveEnded { conn: newcomer, end: ReceiveEnd::Eof });
        assert!(stage.closes(newcomer).is_some());
    }
    assert_eq!(waits, [2_000, 4_000, 8_000], "twice as long each time");
    let events = stage.events();
    assert_eq!(events.iter().filter(|event| event.starts_with("contested")).count(), 1);
    assert_eq!(stage.gateway.stats().online, 1, "whoever has the id keeps it");
    stage.pass(limits::CONTEST_WINDOW);
    stage.pass(Span::from_secs(1));
    stage.login("anna");
}

#[test]
fn a_client_that_comes_and_goes_is_known_for_it() {
    let mut stage = Stage::new(config());
    let mut flaps = Vec::new();
    for _ in 0..3 {
        let conn = stage.login("anna");
        stage.say(conn, &Message::Bye { code: 100 });
        stage.closes(conn);
    }
    for record in stage.records.drain(..) {
        if let Event::Online { flaps: count, .. } = record.event {
            flaps.push(count);
        }
    }
    assert_eq!(flaps, [0, 1, 2]);
}

#[test]
fn a_wrong_verdict_is_counted_when_the_client_can_show_it() {
    let secs = |secs: u32| secs * 1_000;
    for (name, ago_ms, ended_by, is_false) in [
        ("it beat, and we closed", secs(5), EndedBy::Server, true),
        ("it beat into a dead network", secs(5), EndedBy::Client, false),
        ("it was silent itself", secs(50), EndedBy::Server, false),
    ] {
        let mut stage = Stage::new(config());
        let conn = stage.login("anna");
        stage.pass(Span::from_millis(35_010));
        stage.sees_nothing(conn);
        stage.hear(conn);
        stage.closes(conn);
        stage.pass(Span::from_secs(2));
        let before = Some(Before { last_beat_ago_ms: ago_ms, ended_by });
        stage.come_back("anna", &[], before);
        assert_eq!(stage.gateway.stats().returned, 1, "{name}");
        assert_eq!(stage.gateway.stats().false_offline, u64::from(is_false), "{name}");
    }
}
