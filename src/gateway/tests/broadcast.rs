//! One message for many: each gets it once, none is late for it, and it is in memory once.

use std::sync::Arc;

use super::push::{ask, client, post};
use super::{Stage, config};
use crate::base::config::{GatewayConfig, QueuePolicy, SlowPolicy};
use crate::base::ids::GroupName;
use crate::base::io::{Completion, Op};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::{
    Broadcast, BroadcastReply, BroadcastView, Command, Outcome, Post, Reply, Taken,
};

fn broadcast(
    stage: &mut Stage,
    id: u64,
    group: Option<&str>,
    per_second: u32,
    post: Post,
) -> Reply {
    let group = group.map(|name| GroupName::new(name).expect("a name"));
    let broadcast = Broadcast { id, group, post, per_second: Some(per_second) };
    ask(stage, Command::Broadcast(Box::new(broadcast)))
}

fn status(stage: &mut Stage, id: u64) -> BroadcastView {
    let Reply::Broadcast(BroadcastReply::Is(view)) = ask(stage, Command::BroadcastStatus { id })
    else {
        panic!("it is known");
    };
    view
}

fn result(view: &BroadcastView, outcome: Outcome) -> u64 {
    view.results[outcome.index()]
}

fn crowd(count: u32, config: GatewayConfig) -> Stage {
    let mut stage = Stage::new(GatewayConfig { connections_max: count + 10, ..config });
    for number in 0..count {
        stage.login(&format!("c{number}"));
    }
    stage
}

/// The kernel sends everything it was asked to.
fn send_all(stage: &mut Stage) -> usize {
    let mut sent = 0;
    while let Some(at) = stage.ops.iter().position(|op| matches!(op, Op::Send { .. })) {
        let Op::Send { conn, chunk } = stage.ops.swap_remove(at) else { continue };
        let result = Ok(chunk.len());
        stage.gateway.on_completion(Completion::Sent { conn, chunk, result }, stage.now);
        stage.gateway.take_ops(&mut stage.ops);
        sent += 1;
    }
    sent
}

#[test]
fn everybody_gets_it_once() {
    let mut stage = crowd(10, config());
    let running = broadcast(&mut stage, 7, None, 1_000_000, post("all"));
    assert!(
        matches!(
            running,
            Reply::Broadcast(BroadcastReply::Is(BroadcastView { id: 7, is_running: true, .. }))
        ),
        "{running:?}"
    );
    stage.login("late");
    stage.pass(Span::from_millis(1));
    let view = status(&mut stage, 7);
    assert_eq!((view.is_running, view.targets), (false, 10), "not who came later");
    assert_eq!(send_all(&mut stage), 10);
    assert_eq!(result(&status(&mut stage, 7), Outcome::Delivered), 10);
    assert_eq!(
        ask(&mut stage, Command::BroadcastStatus { id: 8 }),
        Reply::Broadcast(BroadcastReply::Unknown)
    );
}

#[test]
fn a_group_gets_it_and_nobody_else() {
    let mut stage = crowd(10, config());
    for name in ["c3", "c7"] {
        let group = GroupName::new("tills").expect("a name");
        ask(&mut stage, Command::Join { client: client(name), group });
    }
    broadcast(&mut stage, 1, Some("tills"), 1_000_000, post("tills"));
    stage.pass(Span::from_millis(1));
    assert_eq!(status(&mut stage, 1).targets, 2);
    assert_eq!(send_all(&mut stage), 2);
    broadcast(&mut stage, 2, Some("nobody"), 1_000_000, post("x"));
    stage.pass(Span::from_millis(1));
    let view = status(&mut stage, 2);
    assert_eq!((view.is_running, view.targets), (false, 0));
}

#[test]
fn it_is_capped_and_does_not_keep_the_loop_awake() {
    let mut stage = crowd(200, config());
    broadcast(&mut stage, 1, None, 100, post("x"));
    let began = stage.now;
    let mut turns = 0;
    while status(&mut stage, 1).is_running {
        let wake = stage.gateway.next_wake().expect("it goes on").max(stage.now);
        stage.now = wake;
        stage.gateway.on_time(stage.now);
        stage.settle();
        send_all(&mut stage);
        turns += 1;
        let secs = stage.now.since(began).as_secs_f64();
        let targets = status(&mut stage, 1).targets;
        assert!(targets as f64 <= 100.0 * secs + 4.0, "{targets} after {secs} s");
        assert!(turns < 500, "a turn for each, and hardly one more");
    }
    let took = stage.now.since(began);
    assert!(took >= Span::from_millis(1_900) && took <= Span::from_millis(2_300), "{took}");
}

#[test]
fn a_fast_one_gathers_clients_and_keeps_its_rate() {
    let mut stage = crowd(2_000, config());
    broadcast(&mut stage, 1, None, 10_000, post("x"));
    let began = stage.now;
    let mut turns = 0;
    while status(&mut stage, 1).is_running {
        stage.now = stage.gateway.next_wake().expect("it goes on").max(stage.now);
        stage.gateway.on_time(stage.now);
        stage.settle();
        send_all(&mut stage);
        turns += 1;
    }
    let took = stage.now.since(began);
    assert!(took >= Span::from_millis(170) && took <= Span::from_millis(260), "{took}");
    assert!(turns < 40, "{turns} turns");
}

/// The simulated 100,000: one body, and no turn with more than its budget of it.
#[test]
fn a_hundred_thousand_share_one_body_and_no_turn_has_much_to_do() {
    const COUNT: u32 = 100_000;
    let gateway = GatewayConfig { connections_max: COUNT + 10, ..config() };
    let mut stage = Stage::new(gateway);
    stage.gateway.take_ops(&mut stage.ops);
    let mut opening = Vec::new();
    for number in 0..COUNT {
        // As `login`, without looking at everything each time.
        let socket = crate::base::io::SocketHandle(u64::from(number));
        let peer = ([127, 0, 0, 1], 9).into();
        stage.gateway.on_completion(Completion::Accepted { socket, peer }, stage.now);
        stage.gateway.take_ops(&mut stage.ops);
        let conn = stage.ops.iter().find_map(|op| match op {
            Op::Adopt { conn, .. } => Some(*conn),
            _ => None,
        });
        let conn = conn.expect("a connection");
        opening.clear();
        crate::wire::native::encode_preface(crate::wire::native::VERSIONS, &mut opening);
        let id = format!("c{number}");
        let hello = stage.hello_again(&id, &[], None);
        crate::wire::native::encode(&hello, &mut opening);
        stage.gateway.on_completion(Completion::Received { conn, bytes: &opening }, stage.now);
        stage.gateway.take_ops(&mut stage.ops);
        send_all(&mut stage);
        stage.ops.clear();
        stage.gateway.take_events(&mut stage.records, usize::MAX);
        stage.records.clear();
    }
    let post = Post { ack: false, ..post(&"x".repeat(10_000)) };
    let body = Arc::clone(&post.body);
    let command = Broadcast { id: 1, group: None, post, per_second: Some(10_000_000) };
    stage.gateway.on_command(Command::Broadcast(Box::new(command)), stage.now);
    let (mut turns, mut sent) = (0, 0);
    while stage.gateway.stats().mail.broadcasts_running > 0 {
        assert!(stage.gateway.next_wake().is_some_and(|wake| wake <= stage.now), "no time is lost");
        stage.now += Span::from_millis(1);
        stage.gateway.on_time(stage.now);
        stage.gateway.take_ops(&mut stage.ops);
        let sends = stage.ops.iter().filter(|op| matches!(op, Op::Send { .. })).count();
        assert!(sends <= limits::TURN_BROADCAST_MAX as usize, "{sends} in one turn");
        // The job's, those of who waits for the kernel, and this one.
        assert!(Arc::strong_count(&body) <= sends + 2);
        sent += send_all(&mut stage);
        assert!(stage.gateway.stats().mail.queue_bytes == 0);
        turns += 1;
    }
    assert_eq!(sent, COUNT as usize);
    assert!(turns >= COUNT / limits::TURN_BROADCAST_MAX);
    assert_eq!(Arc::strong_count(&body), 1, "nobody has it any more");
    stage.gateway.check();
}

#[test]
fn what_became_of_it_goes_on_to_be_counted() {
    let grace = Span::from_secs(60);
    let mut stage = crowd(3, GatewayConfig { grace, ..config() });
    let conns: Vec<_> =
        (0..3).map(|slot| stage.gateway.tracker.slot(slot).expect("there").0).collect();
    stage.is_lost(conns[0]);
    broadcast(&mut stage, 1, None, 1_000_000, post("x"));
    stage.pass(Span::from_millis(1));
    let view = status(&mut stage, 1);
    assert_eq!((view.targets, result(&view, Outcome::Queued)), (3, 3));
    stage.hear(conns[1]);
    stage.hear(conns[2]);
    stage.say(conns[1], &crate::wire::message::Message::Ack { seq: 1 });
    let view = status(&mut stage, 1);
    assert_eq!(result(&view, Outcome::Queued), 1);
    assert_eq!(result(&view, Outcome::Delivered), 1);
    assert_eq!(result(&view, Outcome::Acked), 1);
    stage.pass(grace + Span::from_secs(1));
    let view = status(&mut stage, 1);
    assert_eq!(result(&view, Outcome::Offline), 1);
    assert_eq!(view.others, [(client("c0"), Outcome::Offline)]);
    assert_eq!(view.results.iter().sum::<u64>(), 3);
}

#[test]
fn who_did_not_get_it_is_named_but_not_for_ever() {
    let count = u32::try_from(limits::BROADCAST_OTHERS_MAX).expect("few") + 20;
    let queue = QueuePolicy { bytes_max: 10, slow: SlowPolicy::Newest, ..QueuePolicy::default() };
    let mut stage = crowd(count, GatewayConfig { queue, ..config() });
    broadcast(&mut stage, 1, None, 1_000_000, post("x"));
    stage.pass(Span::from_millis(5));
    let view = status(&mut stage, 1);
    assert_eq!(result(&view, Outcome::Slow), u64::from(count));
    assert_eq!(view.others.len(), limits::BROADCAST_OTHERS_MAX);
    assert_eq!(view.others[0], (client("c0"), Outcome::Slow));
}

#[test]
fn who_moves_while_it_goes_on_gets_it_once() {
    for (moved, turn) in [("c0", 5), ("c8", 5), ("c0", 0), ("c9", 9)] {
        let mut stage = crowd(10, GatewayConfig { grace: Span::from_secs(60), ..config() });
        // A slot before and one behind are free to move into.
        let (low, high) = match moved {
            "c0" => (false, true),
            _ => (true, false),
        };
        if low {
            let conn = stage.gateway.tracker.slot(1).expect("there").0;
            stage.say(conn, &crate::wire::message::Message::Bye { code: 100 });
            stage.complete(Completion::Closed { conn });
        }
        broadcast(&mut stage, 1, None, 10, post("x"));
        stage.gateway.on_time(stage.now);
        stage.settle();
        for _ in 0..turn {
            stage.pass(Span::from_millis(100));
        }
        let was = stage.gateway.tracker.find(moved).expect("there");
        let epoch = moved[1..].parse::<u64>().expect("a number") + 1;
        let token = stage.token(moved, epoch);
        let conn = stage.come_back(moved, &token, None);
        assert_eq!(conn.slot > was.slot, high, "{moved} moved from {was} to {conn}");
        for _ in 0..20 {
            stage.pass(Span::from_millis(100));
        }
        let view = status(&mut stage, 1);
        assert_eq!((view.is_running, view.targets), (false, 10 - u64::from(low)), "{moved} {turn}");
        let of = |seq| vec![Taken { client: client(moved), epoch, seq, ack: true }];
        let mut outcome = |seq| ask(&mut stage, Command::Outcomes { of: of(seq) });
        assert_ne!(outcome(1), Reply::Outcomes(vec![Outcome::Unknown]), "{moved} got one");
        assert_eq!(outcome(2), Reply::Outcomes(vec![Outcome::Unknown]), "{moved}: no second one");
    }
}

#[test]
fn who_moves_ahead_of_it_does_not_get_it_again() {
    let mut stage = crowd(10, GatewayConfig { grace: Span::from_secs(60), ..config() });
    let free = stage.gateway.tracker.slot(8).expect("there").0;
    stage.say(free, &crate::wire::message::Message::Bye { code: 100 });
    stage.complete(Completion::Closed { conn: free });
    broadcast(&mut stage, 1, None, 10, post("x"));
    for _ in 0..3 {
        stage.pass(Span::from_millis(100));
    }
    let before = status(&mut stage, 1).targets;
    assert!((1..7).contains(&before), "{before} have got it");
    let token = stage.token("c0", 1);
    let conn = stage.come_back("c0", &token, None);
    assert_eq!(conn.slot, 8, "ahead of the walk");
    for _ in 0..20 {
        stage.pass(Span::from_millis(100));
    }
    let view = status(&mut stage, 1);
    assert_eq!((view.is_running, view.targets), (false, 9));
}

/// Those who moved behind the last slot that it will see have got it.
#[test]
fn who_moves_behind_its_end_and_then_again_does_not_get_it_again() {
    for turns in [0, 3] {
        let mut stage = crowd(10, GatewayConfig { grace: Span::from_secs(60), ..config() });
        broadcast(&mut stage, 1, None, 10, post("x"));
        for _ in 0..turns {
            stage.pass(Span::from_millis(100));
        }
        for slot in [10, 11] {
            let token = stage.token("c0", 1);
            let conn = stage.come_back("c0", &token, None);
            assert_eq!(conn.slot, slot, "behind the end of the walk");
        }
        for _ in 0..20 {
            stage.pass(Span::from_millis(100));
        }
        let view = status(&mut stage, 1);
        assert_eq!((view.is_running, view.targets), (false, 10), "after {turns}");
    }
}

#[test]
fn only_so_many_go_on_at_once_and_are_remembered() {
    let mut stage = crowd(3, config());
    for id in 1..=limits::BROADCASTS_RUNNING_MAX as u64 {
        broadcast(&mut stage, id, None, 1, post("x"));
    }
    assert_eq!(
        broadcast(&mut stage, 99, None, 1, post("x")),
        Reply::Broadcast(BroadcastReply::Busy)
    );
    assert_eq!(stage.gateway.stats().mail.broadcasts_running, limits::BROADCASTS_RUNNING_MAX);
    stage.pass(Span::from_secs(4));
    let first = 1_000;
    for id in first..first + limits::BROADCASTS_KEPT_MAX as u64 + 1 {
        let reply = broadcast(&mut stage, id, None, 1_000_000, post("x"));
        assert!(matches!(reply, Reply::Broadcast(BroadcastReply::Is(_))));
        stage.pass(Span::from_millis(1));
        send_all(&mut stage);
    }
    let forgotten = ask(&mut stage, Command::BroadcastStatus { id: first });
    assert_eq!(forgotten, Reply::Broadcast(BroadcastReply::Unknown));
    assert_eq!(status(&mut stage, first + 1).targets, 3);
}

#[test]
fn those_that_are_over_are_forgotten_though_one_goes_on() {
    let mut stage = crowd(100, config());
    broadcast(&mut stage, 1, None, 1, post("slow"));
    let count = 3 * limits::BROADCASTS_KEPT_MAX as u64;
    for id in 2..2 + count {
        broadcast(&mut stage, id, Some("nobody"), 1_000_000, post("x"));
        stage.pass(Span::from_millis(1));
    }
    assert!(status(&mut stage, 1).is_running);
    let known = (2..2 + count)
        .filter(|id| {
            let reply = ask(&mut stage, Command::BroadcastStatus { id: *id });
            reply != Reply::Broadcast(BroadcastReply::Unknown)
        })
        .count();
    assert_eq!(known, limits::BROADCASTS_KEPT_MAX);
    // What becomes of the slow one's messages is still counted.
    send_all(&mut stage);
    let view = status(&mut stage, 1);
    assert_eq!(result(&view, Outcome::Delivered), view.targets);
}

#[test]
fn whose_turn_comes_late_gets_a_message_that_is_as_young_as_the_first_ones() {
    let mut stage = crowd(20, config());
    let post = Post { ttl: Some(Span::from_secs(2)), ..post("x") };
    broadcast(&mut stage, 1, None, 2, post);
    for _ in 0..130 {
        stage.pass(Span::from_millis(100));
        send_all(&mut stage);
    }
    let view = status(&mut stage, 1);
    assert_eq!((view.is_running, view.targets), (false, 20));
    assert_eq!(result(&view, Outcome::Delivered), 20, "{view:?}");
}

#[test]
fn what_grew_old_while_its_client_was_away_is_not_called_slow() {
    let mut stage = crowd(1, GatewayConfig { grace: Span::from_secs(60), ..config() });
    let conn = stage.gateway.tracker.slot(0).expect("there").0;
    stage.is_lost(conn);
    broadcast(&mut stage, 1, None, 10, Post { ttl: Some(Span::from_secs(1)), ..post("x") });
    stage.pass(Span::from_secs(3));
    let view = status(&mut stage, 1);
    assert_eq!((result(&view, Outcome::Slow), result(&view, Outcome::Offline)), (0, 1));
    assert_eq!(view.others, [(client("c0"), Outcome::Offline)]);
}
