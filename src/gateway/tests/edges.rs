//! Edges that were found by breaking the code on purpose (`tests/breakages/`) and that nothing else
//! noticed.

use crate::base::config::GatewayConfig;
use crate::base::event::{CloseReason, Event};
use crate::base::ids::ClientId;
use crate::base::io::{CloseHow, Completion, Found, IoFault, Op, ReceiveEnd, TcpFacts};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, Drain, Kick};
use crate::wire::message::{Before, EndedBy, Message};
use crate::wire::native::kind;

fn drain(stage: &mut Stage, within: Span) {
    stage.gateway.on_command(Command::Drain(Drain::at_once(within)), stage.now);
    stage.settle();
}

#[test]
fn no_verdict_is_early_wherever_the_tick_falls() {
    for millis in 0..10 {
        let mut stage = Stage::new(config());
        stage.pass(Span::from_millis(millis));
        let conn = stage.login("anna");
        stage.pass(Span::from_millis(34_999));
        assert!(!stage.looks_at(conn), "{millis} ms behind the tick");
        stage.pass(Span::from_millis(1 + 10));
        assert!(stage.looks_at(conn), "{millis} ms behind the tick");
    }
}

#[test]
fn what_a_last_look_finds_is_the_reason_of_the_end() {
    for (found, reason) in [
        (Found::Eof, CloseReason::ClosedByPeer),
        (Found::Fault(IoFault::Reset), CloseReason::Reset),
        (Found::Fault(IoFault::TimedOut), CloseReason::TcpTimeout),
        (Found::Nothing, CloseReason::HeartbeatTimeout),
    ] {
        let mut stage = Stage::new(config());
        let conn = stage.login("anna");
        stage.pass(Span::from_millis(35_010));
        assert!(stage.looks_at(conn));
        stage.complete(Completion::Looked { conn, found, tcp: None });
        assert_eq!(stage.events()[2], format!("offline anna 1 {reason}"));
        let verdicts = u64::from(found == Found::Nothing);
        assert_eq!(stage.gateway.stats().lateness.count, verdicts, "{found:?}");
    }
}

#[test]
fn a_look_judges_nobody_whose_deadline_passed_after_it_was_asked_for() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(35_010));
    assert!(stage.looks_at(conn));
    stage.say(conn, &Message::Ack { seq: 1 });
    // The answer takes its time, and there may be bytes that came after the look.
    stage.pass(Span::from_secs(36));
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    assert_eq!(stage.gateway.stats().online, 1);
    stage.pass(Span::from_millis(10));
    stage.sees_nothing(conn);
    assert_eq!(stage.gateway.stats().online, 0);
}

#[test]
fn what_tcp_knew_of_a_stranger_is_told_of_nobody_else() {
    let mut stage = Stage::new(config());
    let stranger = stage.connect();
    stage.pass(Span::from_millis(10_010));
    assert!(stage.looks_at(stranger));
    let tcp = Some(TcpFacts::default());
    stage.complete(Completion::Looked { conn: stranger, found: Found::Nothing, tcp });
    let conn = stage.login("anna");
    stage.say(conn, &Message::Bye { code: 100 });
    let last = stage.records.last().map(|record| &record.event);
    let Some(Event::Offline { evidence, .. }) = last else { panic!("{last:?}") };
    assert_eq!(evidence.tcp, None);
}

#[test]
fn after_standing_still_the_next_wake_is_the_clocks() {
    let mut stage = Stage::new(config());
    stage.login("anna");
    stage.stand_still(Span::from_secs(600));
    stage.pass(Span::ZERO);
    assert_eq!(stage.gateway.next_wake(), Some(stage.now + limits::SLEEP_MAX));
    stage.complete(Completion::AcceptFailed { fault: IoFault::NoDescriptors });
    assert_eq!(stage.gateway.next_wake(), Some(stage.now + limits::ACCEPT_PAUSE));
}

#[test]
fn a_frame_that_was_begun_brings_the_deadline_nearer() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    // What was armed for the handshake is over by then, and does not help.
    stage.pass(Span::from_secs(11));
    stage.receive(conn, &[kind::PING]);
    stage.pass(Span::from_millis(9_990));
    assert!(!stage.looks_at(conn));
    stage.pass(Span::from_millis(20));
    stage.sees_nothing(conn);
    assert_eq!(stage.gateway.stats().ended(CloseReason::FrameTimeout), 1);
}

#[test]
fn who_was_silent_after_a_stall_is_no_wrong_verdict() {
    let mut stage = Stage::new(config());
    let other = stage.login("bert");
    stage.stand_still(Span::from_secs(600));
    let conn = stage.login("anna");
    stage.say(other, &Message::Bye { code: 100 });
    stage.pass(Span::from_millis(35_010));
    stage.sees_nothing(conn);
    stage.hear(conn);
    stage.closes(conn);
    let before = Before { last_beat_ago_ms: 35_010, ended_by: EndedBy::Server };
    stage.come_back("anna", &[], Some(before));
    assert_eq!(stage.gateway.stats().returned, 1);
    assert_eq!(stage.gateway.stats().false_offline, 0, "HELLO was its last beat");
}

#[test]
fn who_is_lost_in_a_drain_is_not_held() {
    let mut stage = Stage::new(GatewayConfig { grace: Span::from_secs(20), ..config() });
    let conn = stage.login("anna");
    drain(&mut stage, Span::from_secs(5));
    let end = ReceiveEnd::Fault(IoFault::Reset);
    stage.complete(Completion::ReceiveEnded { conn, end });
    assert_eq!(stage.gateway.stats().held, 0);
    assert_eq!(stage.events()[2], "offline anna 1 reset");
}

#[test]
fn while_too_many_events_wait_nobody_new_comes_in() {
    let mut stage = Stage::new(config());
    let fill = |stage: &mut Stage| {
        while !stage.gateway.ledger.is_congested() {
            stage.gateway.ledger.tell(Event::Stalled { gap: Span::ZERO }, stage.now);
        }
    };
    let greeting = stage.connect();
    fill(&mut stage);
    stage.hello(greeting, "anna", "", 0);
    let heard = stage.hear(greeting);
    assert!(heard[0].contains("code: 302"), "{heard:?}");
    fill(&mut stage);
    let newcomer = stage.connect();
    let heard = stage.hear(newcomer);
    assert!(heard[0].contains("code: 302"), "{heard:?}");
    stage.login("bert");
}

#[test]
fn who_is_accepted_during_a_drain_is_asked_to_leave() {
    let mut stage = Stage::new(config());
    drain(&mut stage, Span::from_secs(5));
    stage.pass(Span::ZERO);
    let late = stage.connect();
    let heard = stage.hear(late);
    assert!(heard[0].contains("code: 101"), "{heard:?}");
}

#[test]
fn a_second_drain_can_only_shorten_the_first() {
    for (name, first_secs, second_secs, turns_between) in [
        ("longer, at once", 5, 60, 0),
        ("shorter, at once", 60, 5, 0),
        ("longer, when everybody was told", 5, 60, 1),
        ("shorter, when everybody was told", 60, 5, 1),
    ] {
        let mut stage = Stage::new(config());
        let deaf = stage.login("anna");
        drain(&mut stage, Span::from_secs(first_secs));
        for _ in 0..turns_between {
            stage.pass(Span::ZERO);
        }
        drain(&mut stage, Span::from_secs(second_secs));
        stage.pass(Span::from_millis(4_990));
        assert!(stage.closes(deaf).is_none(), "{name}");
        stage.pass(Span::from_millis(20));
        assert!(stage.closes(deaf).is_some(), "{name}");
    }
}

#[test]
fn who_was_leaving_before_a_drain_leaves_with_it() {
    let mut stage = Stage::new(config());
    let deaf = stage.login("anna");
    let client = ClientId::new("anna").expect("a client id");
    stage.gateway.on_command(Command::Kick(Kick::of(client)), stage.now);
    drain(&mut stage, Span::from_millis(500));
    stage.pass(Span::from_millis(490));
    assert!(stage.closes(deaf).is_none());
    stage.pass(Span::from_millis(20));
    assert!(stage.closes(deaf).is_some(), "sooner than it would have lingered");
}

#[test]
fn a_drain_of_many_goes_on_in_the_next_turn() {
    let connections_max = limits::DRAIN_BATCH_MAX + 6;
    let mut stage = Stage::new(GatewayConfig { connections_max, ..config() });
    for _ in 0..connections_max {
        stage.connect();
    }
    drain(&mut stage, Span::from_secs(5));
    let mut told = Vec::new();
    while stage.gateway.next_wake() == Some(Moment::ZERO) {
        stage.gateway.on_time(stage.now);
        stage.settle();
        told.push(stage.ops.iter().filter(|op| matches!(op, Op::Send { .. })).count());
    }
    assert_eq!(told, [limits::DRAIN_BATCH_MAX as usize, connections_max as usize]);
}

#[test]
fn a_stranger_may_say_hello_and_no_more() {
    let longest = u16::try_from(limits::HELLO_PAYLOAD_BYTES_MAX).expect("about a KiB");
    for (length, is_refused) in [(longest, false), (longest + 1, true)] {
        let mut stage = Stage::new(config());
        let stranger = stage.connect();
        let [high, low] = length.to_be_bytes();
        stage.receive(stranger, b"\xb7HWP\x01\x01\0\0");
        stage.receive(stranger, &[kind::HELLO, 0, high, low]);
        let ended = stage.gateway.stats().ended(CloseReason::FrameTooLong);
        assert_eq!(ended, u64::from(is_refused), "{length} bytes");
    }
}

#[test]
fn who_was_deaf_by_no_fault_of_its_own_is_not_judged_in_that_turn() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(35_010));
    assert!(stage.looks_at(conn));
    stage.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Interrupted });
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    assert_eq!(stage.gateway.stats().online, 1, "it was armed again in this very turn");
    stage.pass(Span::from_millis(20));
    stage.sees_nothing(conn);
    assert_eq!(stage.gateway.stats().online, 0);
}

#[test]
fn whoever_was_told_to_leave_and_cannot_be_heard_any_more_is_not_waited_for() {
    let mut stage = Stage::new(config());
    let told = stage.login("anna");
    let busy = stage.login("berta");
    let again = stage.login("berta");
    drain(&mut stage, Span::from_secs(60));
    for conn in [told, busy, again] {
        stage.hear(conn);
        assert_eq!(stage.closes(conn), None, "it closes first");
        stage.complete(Completion::Spoilt { conn, reason: CloseReason::BadTls });
        assert_eq!(stage.closes(conn), Some(CloseHow::Finish), "{conn}: nothing more comes");
        stage.complete(Completion::Closed { conn });
    }
    assert_eq!(stage.gateway.stats().connections, 0, "the drain waits for nobody");
}
