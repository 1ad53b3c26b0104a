//! Messages for clients: what becomes of each, in every state a client can be in.

use std::sync::Arc;

use super::reconfigure::reload;
use super::{Stage, config};
use crate::base::config::{GatewayConfig, QueuePolicy, SlowPolicy};
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::{Completion, ReceiveEnd};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::{Body, Command, Outcome, Post, Push, Pushed, Reply, Taken};
use crate::wire::message::Message;

pub(super) fn client(name: &str) -> ClientId {
    ClientId::new(name).expect("a client id")
}

pub(super) fn post(text: &str) -> Post {
    let body = Body::new("t", text.as_bytes()).expect("it is short");
    Post { body: Arc::new(body), ack: true, ttl: None }
}

pub(super) fn ask(stage: &mut Stage, command: Command) -> Reply {
    let reply = stage.gateway.on_command(command, stage.now);
    stage.settle();
    reply
}

fn push_post(stage: &mut Stage, to: &str, post: Post) -> Pushed {
    let push = Push { clients: vec![client(to)], epoch: None, post };
    let Reply::Pushed(pushed) = ask(stage, Command::Push(Box::new(push))) else {
        panic!("it was a push");
    };
    assert_eq!(pushed.len(), 1);
    pushed[0]
}

fn push(stage: &mut Stage, to: &str, text: &str) -> Pushed {
    push_post(stage, to, post(text))
}

fn queued(epoch: u64, seq: u32) -> Pushed {
    Pushed { outcome: Outcome::Queued, epoch, seq, is_away: false }
}

fn outcome(stage: &mut Stage, of: &str, pushed: Pushed) -> Outcome {
    let of = vec![Taken { client: client(of), epoch: pushed.epoch, seq: pushed.seq, ack: true }];
    let Reply::Outcomes(outcomes) = ask(stage, Command::Outcomes { of }) else {
        panic!("outcomes were asked for");
    };
    outcomes[0]
}

/// The numbers of the DATA that a peer heard.
fn numbers(heard: &[String]) -> Vec<u32> {
    let data = heard.iter().filter_map(|said| said.strip_prefix("Data { seq: "));
    data.map(|rest| rest.split(',').next().and_then(|n| n.parse().ok()).expect("a number"))
        .collect()
}

fn held(grace_s: u64) -> GatewayConfig {
    GatewayConfig { grace: Span::from_secs(grace_s), ..config() }
}

fn narrow(slow: SlowPolicy) -> GatewayConfig {
    // Room for three messages of one byte about one.
    let queue =
        QueuePolicy { bytes_max: 3 * (limits::LETTER_BYTES + 2), slow, ..QueuePolicy::default() };
    GatewayConfig { queue, ..held(60) }
}

#[test]
fn a_queue_that_was_wider_is_cut_when_something_else_has_to_go_in() {
    let mut stage = Stage::new(narrow(SlowPolicy::Oldest));
    let conn = stuck(&mut stage);
    let pushed: Vec<_> = (1..3).map(|n| push(&mut stage, "anna", &n.to_string())).collect();
    reload(&mut stage, |config| config.queue.bytes_max = 2 * (limits::LETTER_BYTES + 2));
    let outcomes: Vec<_> = pushed.iter().map(|one| outcome(&mut stage, "anna", *one)).collect();
    assert_eq!(outcomes, [Outcome::Queued, Outcome::Queued], "nobody loses what was taken");
    push(&mut stage, "anna", "3");
    assert_eq!(numbers(&stage.hear(conn)), [1, 4], "and it is as narrow as told from then on");
}

/// A client whose outbox is with the kernel, which does not send it.
fn stuck(stage: &mut Stage) -> ConnId {
    let conn = stage.login("anna");
    push(stage, "anna", "0");
    conn
}

#[test]
fn what_is_pushed_goes_out_at_once_and_is_delivered_and_acknowledged() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    let first = push(&mut stage, "anna", "one");
    assert_eq!(first, queued(1, 1));
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Queued, "the kernel has not said so");
    let heard = stage.hear(conn);
    assert_eq!(heard, [r#"Data { seq: 1, ack: Yes, topic: "t", body: [111, 110, 101] }"#]);
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Delivered);
    stage.say(conn, &Message::Ack { seq: 1 });
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Acked);
    let second = push(&mut stage, "anna", "two");
    assert_eq!((second.epoch, second.seq), (1, 2), "numbers go on");
    let stats = stage.gateway.stats();
    assert_eq!((stats.mail.pushed, stats.mail.delivered, stats.mail.acked), (2, 1, 1));
    assert!(stats.mail.queue_bytes > 0);
    stage.hear(conn);
    stage.say(conn, &Message::Ack { seq: 2 });
    assert_eq!(stage.gateway.stats().mail.queue_bytes, 0);
}

#[test]
fn who_is_not_here_is_offline_or_unknown() {
    let mut stage = Stage::new(config());
    assert_eq!(push(&mut stage, "anna", "x").outcome, Outcome::Unknown);
    let conn = stage.login("anna");
    let first = push(&mut stage, "anna", "x");
    stage.say(conn, &Message::Bye { code: 100 });
    assert_eq!(push(&mut stage, "anna", "x").outcome, Outcome::Offline);
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Offline, "its session is over");
    assert_eq!(stage.gateway.stats().mail.orphaned, 1);
    stage.login("anna");
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Offline, "it was another session");
    let never = queued(2, 9);
    assert_eq!(outcome(&mut stage, "anna", never), Outcome::Unknown);
}

#[test]
fn a_push_may_be_meant_for_one_session_alone() {
    let mut stage = Stage::new(config());
    stage.login("anna");
    let mut to = |epoch| {
        let push = Push { clients: vec![client("anna")], epoch, post: post("x") };
        ask(&mut stage, Command::Push(Box::new(push)))
    };
    assert!(matches!(to(Some(1)), Reply::Pushed(_)));
    assert_eq!(to(Some(2)), Reply::OtherSession);
    assert!(matches!(to(None), Reply::Pushed(_)));
}

#[test]
fn a_batch_says_of_each_what_became_of_it() {
    let mut stage = Stage::new(config());
    stage.login("anna");
    let conn = stage.login("bert");
    stage.say(conn, &Message::Bye { code: 100 });
    let clients = ["anna", "bert", "carl"].map(client).to_vec();
    let push = Push { clients, epoch: None, post: post("x") };
    let Reply::Pushed(pushed) = ask(&mut stage, Command::Push(Box::new(push))) else {
        panic!("it was a push");
    };
    let outcomes: Vec<_> = pushed.iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, [Outcome::Queued, Outcome::Offline, Outcome::Unknown]);
}

#[test]
fn what_is_longer_than_clients_were_told_is_not_taken() {
    let mut stage = Stage::new(config());
    stage.login("anna");
    let payload_bytes_max = stage.gateway.config.payload_bytes_max;
    let mut push = |bytes: usize| {
        let body = Arc::new(Body::new("", vec![7; bytes]).expect("a frame could carry it"));
        let post = Post { body, ack: false, ttl: None };
        let push = Push { clients: vec![client("anna")], epoch: None, post };
        ask(&mut stage, Command::Push(Box::new(push)))
    };
    let room = usize::from(payload_bytes_max) - 5;
    assert!(matches!(push(room), Reply::Pushed(_)));
    assert_eq!(push(room + 1), Reply::TooLong { payload_bytes_max });
}

#[test]
fn what_waits_goes_out_in_order_and_in_few_sends() {
    let mut stage = Stage::new(config());
    let conn = stuck(&mut stage);
    for number in 1..10 {
        push(&mut stage, "anna", &number.to_string());
    }
    stage.say(conn, &Message::Ping { reply: crate::wire::message::Reply::Wanted, payload: b"p" });
    let chunk = stage.take_send(conn).expect("the first one");
    let result = Ok(chunk.len());
    stage.complete(Completion::Sent { conn, chunk, result });
    let heard = stage.hear(conn);
    assert!(heard[0].starts_with("Pong"), "what waited longest: {heard:?}");
    assert_eq!(numbers(&heard), (2..=10).collect::<Vec<_>>());
    assert_eq!(stage.gateway.stats().mail.delivered, 10);
}

#[test]
fn a_client_that_is_sent_much_has_half_of_its_outbox_for_answers() {
    let mut stage = Stage::new(GatewayConfig { outbox_bytes_max: 1_000, ..config() });
    let conn = stuck(&mut stage);
    for _ in 0..100 {
        push(&mut stage, "anna", &"x".repeat(90));
    }
    let mut delivered = 0;
    for _ in 0..100 {
        let Some(chunk) = stage.take_send(conn) else { break };
        assert!(chunk.len() <= 500, "{}", chunk.len());
        delivered += 1;
        let result = Ok(chunk.len());
        stage.complete(Completion::Sent { conn, chunk, result });
    }
    assert!(delivered > 20);
    assert_eq!(stage.gateway.stats().mail.delivered, 101);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_when_the_client_comes_back() {
    let mut stage = Stage::new(held(60));
    let conn = stage.login("anna");
    for text in ["1", "2", "3"] {
        push(&mut stage, "anna", text);
    }
    let unwanted = push_post(&mut stage, "anna", Post { ack: false, ..post("4") });
    assert_eq!(numbers(&stage.hear(conn)), [1, 2, 3, 4]);
    stage.say(conn, &Message::Ack { seq: 1 });
    stage.is_lost(conn);
    let fifth = push(&mut stage, "anna", "5");
    assert_eq!(fifth, Pushed { is_away: true, ..queued(1, 5) }, "it is held");
    let token = stage.token("anna", 1);
    let conn = stage.come_back("anna", &token, None);
    let heard = stage.hear(conn);
    assert!(heard[0].starts_with("Welcome"), "{heard:?}");
    assert_eq!(numbers(&heard), [2, 3, 5], "4 wanted no ACK");
    assert_eq!(outcome(&mut stage, "anna", unwanted), Outcome::Delivered);
    stage.say(conn, &Message::Ack { seq: 5 });
    assert_eq!(outcome(&mut stage, "anna", fifth), Outcome::Acked);
    let stats = stage.gateway.stats();
    assert_eq!(
        (stats.mail.pushed, stats.mail.delivered, stats.mail.acked, stats.mail.queue_bytes),
        (5, 5, 4, 0)
    );
}

#[test]
fn the_last_number_in_hello_acknowledges_and_what_was_not_handed_over_is_sent_again() {
    let mut stage = Stage::new(held(60));
    let conn = stage.login("anna");
    push(&mut stage, "anna", "1");
    push(&mut stage, "anna", "2");
    let chunk = stage.take_send(conn).expect("one goes out");
    let result = Ok(chunk.len());
    stage.complete(Completion::Sent { conn, chunk, result });
    // The second is with the kernel, and nobody knows how far it got.
    push_post(&mut stage, "anna", Post { ack: false, ..post("3") });
    let token = stage.token("anna", 1);
    let mut hello = stage.hello_again("anna", &token, None);
    if let Message::Hello { last_seq, .. } = &mut hello {
        *last_seq = 2;
    }
    // It comes back before the loss is noticed.
    let conn = stage.come_back_with(&hello);
    let heard = stage.hear(conn);
    assert_eq!(numbers(&heard), [3]);
    let stats = stage.gateway.stats();
    assert_eq!((stats.mail.delivered, stats.mail.acked, stats.mail.queue_bytes), (3, 2, 0));
}

#[test]
fn nobody_acknowledges_what_was_never_sent() {
    let mut stage = Stage::new(held(60));
    let conn = stage.login("anna");
    stage.is_lost(conn);
    let first = push(&mut stage, "anna", "1");
    let token = stage.token("anna", 1);
    let mut hello = stage.hello_again("anna", &token, None);
    if let Message::Hello { last_seq, .. } = &mut hello {
        *last_seq = u32::MAX;
    }
    let conn = stage.come_back_with(&hello);
    assert_eq!(numbers(&stage.hear(conn)), [1]);
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Delivered);
    stage.say(conn, &Message::Ack { seq: u32::MAX });
    let second = push(&mut stage, "anna", "2");
    assert_eq!(outcome(&mut stage, "anna", second), Outcome::Queued);
}

#[test]
fn an_ack_may_come_before_the_kernel_says_that_it_is_done() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    let first = push(&mut stage, "anna", "1");
    stage.say(conn, &Message::Ack { seq: 1 });
    assert_eq!(numbers(&stage.hear(conn)), [1]);
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Acked);
    let stats = stage.gateway.stats();
    assert_eq!((stats.mail.delivered, stats.mail.acked, stats.mail.queue_bytes), (1, 1, 0));
}

#[test]
fn a_new_session_begins_with_empty_hands() {
    let mut stage = Stage::new(held(60));
    let conn = stage.login("anna");
    stage.is_lost(conn);
    push(&mut stage, "anna", "1");
    let conn = stage.login("anna");
    let first = push(&mut stage, "anna", "new");
    assert_eq!((first.epoch, first.seq), (2, 1));
    assert_eq!(numbers(&stage.hear(conn)), [1]);
    assert_eq!(stage.gateway.stats().mail.orphaned, 1);
}

#[test]
fn when_there_is_no_room_the_oldest_make_way() {
    let mut stage = Stage::new(narrow(SlowPolicy::Oldest));
    let conn = stuck(&mut stage);
    let pushed: Vec<_> = (1..6).map(|n| push(&mut stage, "anna", &n.to_string())).collect();
    assert!(pushed.iter().all(|one| one.outcome == Outcome::Queued));
    let outcomes: Vec<_> = pushed.iter().map(|one| outcome(&mut stage, "anna", *one)).collect();
    let (slow, queued) = (Outcome::Slow, Outcome::Queued);
    assert_eq!(outcomes, [slow, slow, slow, queued, queued]);
    assert_eq!(numbers(&stage.hear(conn)), [1, 5, 6], "what is on its way stays");
    let stats = stage.gateway.stats();
    assert_eq!((stats.mail.dropped_oldest, stats.mail.dropped_newest), (3, 0));
    let large = Body::new("", vec![0; 1_000]).expect("a frame could carry it");
    let large = Post { body: Arc::new(large), ack: true, ttl: None };
    assert_eq!(push_post(&mut stage, "anna", large).outcome, slow, "nothing makes way in vain");
    assert_eq!(stage.gateway.stats().mail.ack_missed, 0);
}

#[test]
fn when_there_is_no_room_the_newest_is_not_taken() {
    let mut stage = Stage::new(narrow(SlowPolicy::Newest));
    let conn = stuck(&mut stage);
    let pushed: Vec<_> = (1..6).map(|n| push(&mut stage, "anna", &n.to_string())).collect();
    let seqs: Vec<_> = pushed.iter().map(|one| one.seq).collect();
    assert_eq!(seqs, [2, 3, 0, 0, 0]);
    assert_eq!(pushed[2].outcome, Outcome::Slow);
    assert_eq!(numbers(&stage.hear(conn)), [1, 2, 3]);
    assert_eq!(stage.gateway.stats().mail.dropped_newest, 3);
    stage.say(conn, &Message::Ack { seq: 3 });
    assert_eq!(push(&mut stage, "anna", "7").seq, 4, "there is room again, and no gap");
}

#[test]
fn when_there_is_no_room_the_session_ends() {
    let mut stage = Stage::new(narrow(SlowPolicy::Close));
    let conn = stuck(&mut stage);
    push(&mut stage, "anna", "1");
    push(&mut stage, "anna", "2");
    assert!(stage.closes(conn).is_none());
    assert_eq!(push(&mut stage, "anna", "3").outcome, Outcome::Slow);
    assert!(stage.closes(conn).is_some());
    assert_eq!(stage.events().last().map(String::as_str), Some("offline anna 1 slow_consumer"));
    assert_eq!(stage.gateway.stats().mail.orphaned, 3);
}

#[test]
fn a_held_session_that_gets_too_much_ends_by_the_same_policy() {
    let mut stage = Stage::new(narrow(SlowPolicy::Close));
    let conn = stage.login("anna");
    stage.is_lost(conn);
    for _ in 0..3 {
        assert_eq!(push(&mut stage, "anna", "1").outcome, Outcome::Queued);
    }
    assert_eq!(push(&mut stage, "anna", "1").outcome, Outcome::Slow);
    assert_eq!(stage.events().last().map(String::as_str), Some("offline anna 1 slow_consumer"));
}

#[test]
fn what_is_too_old_is_dropped_when_it_is_touched_and_by_itself() {
    let ttl = Some(Span::from_secs(5));
    let mut stage = Stage::new(held(60));
    let conn = stage.login("anna");
    stage.is_lost(conn);
    let first = push_post(&mut stage, "anna", Post { ttl, ..post("1") });
    let second = push(&mut stage, "anna", "2");
    stage.pass(Span::from_millis(4_900));
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Queued);
    let bytes = stage.gateway.stats().mail.queue_bytes;
    stage.pass(Span::from_secs(2));
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Offline, "it was not here to take it");
    let stats = stage.gateway.stats();
    assert_eq!((stats.mail.expired, stats.mail.queue_bytes), (1, bytes / 2), "nobody touched it");
    let token = stage.token("anna", 1);
    let conn = stage.come_back("anna", &token, None);
    assert_eq!(numbers(&stage.hear(conn)), [2]);
    let third = push_post(&mut stage, "anna", Post { ttl, ..post("3") });
    let fourth = push_post(&mut stage, "anna", Post { ttl, ..post("4") });
    stage.stand_still(Span::from_millis(400));
    stage.now += Span::from_millis(0);
    let chunk = stage.take_send(conn).expect("the third");
    stage.pass(Span::from_secs(6));
    let result = Ok(chunk.len());
    stage.complete(Completion::Sent { conn, chunk, result });
    assert_eq!(outcome(&mut stage, "anna", fourth), Outcome::Slow, "it did not read in time");
    assert_eq!(outcome(&mut stage, "anna", third), Outcome::Delivered);
    assert_eq!(outcome(&mut stage, "anna", second), Outcome::Delivered);
}

#[test]
fn what_is_sent_and_never_acknowledged_is_given_up_in_the_end() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    push(&mut stage, "anna", "1");
    stage.hear(conn);
    for _ in 0..31 {
        stage.pass(Span::from_secs(10));
        stage.say(
            conn,
            &Message::Ping { reply: crate::wire::message::Reply::NotWanted, payload: b"" },
        );
    }
    let stats = stage.gateway.stats();
    assert_eq!((stats.mail.ack_missed, stats.mail.expired, stats.mail.queue_bytes), (1, 0, 0));
}

#[test]
fn what_became_of_much_that_was_dropped_is_said_too_badly_and_never_too_well() {
    let mut stage = Stage::new(narrow(SlowPolicy::Oldest));
    let conn = stuck(&mut stage);
    let count = limits::LOST_KEPT_MAX + 10;
    let pushed: Vec<_> = (0..count).map(|_| push(&mut stage, "anna", "x")).collect();
    stage.hear(conn);
    stage.say(conn, &Message::Ack { seq: u32::MAX });
    for one in &pushed[..pushed.len() - 2] {
        assert_eq!(outcome(&mut stage, "anna", *one), Outcome::Slow);
    }
    assert_eq!(outcome(&mut stage, "anna", pushed[pushed.len() - 1]), Outcome::Acked);
}

#[test]
fn what_is_pushed_to_whoever_is_leaving_is_for_nobody() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    push(&mut stage, "anna", "1");
    stage.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
    assert_eq!(push(&mut stage, "anna", "2").outcome, Outcome::Offline);
    assert_eq!(stage.gateway.stats().mail.queue_bytes, 0);
}

#[test]
fn an_ack_says_nothing_of_what_was_given_up_or_wanted_none() {
    let mut stage = Stage::new(narrow(SlowPolicy::Oldest));
    let conn = stage.login("anna");
    let given_up = push(&mut stage, "anna", "1");
    stage.hear(conn);
    let unwanted = push_post(&mut stage, "anna", Post { ack: false, ..post("2") });
    stage.hear(conn);
    stage.is_lost(conn);
    (3..6).for_each(|n| assert_eq!(push(&mut stage, "anna", &n.to_string()).seq, n));
    let token = stage.token("anna", 1);
    let conn = stage.come_back("anna", &token, None);
    assert_eq!(numbers(&stage.hear(conn)), [3, 4, 5], "the first made way");
    stage.say(conn, &Message::Ack { seq: 5 });
    assert_eq!(outcome(&mut stage, "anna", given_up), Outcome::Delivered);
    let of = vec![Taken { client: client("anna"), epoch: 1, seq: unwanted.seq, ack: false }];
    let reply = ask(&mut stage, Command::Outcomes { of });
    assert_eq!(reply, Reply::Outcomes(vec![Outcome::Delivered]));
    let mail = stage.gateway.stats().mail;
    assert_eq!((mail.delivered, mail.acked, mail.ack_missed), (5, 3, 1));
}

#[test]
fn a_session_that_came_back_with_nothing_is_swept_like_any_other() {
    let mut stage = Stage::new(held(60));
    let conn = stage.login("anna");
    let first = push(&mut stage, "anna", "one");
    stage.hear(conn);
    // Acknowledged, and not swept since.
    stage.say(conn, &Message::Ack { seq: 1 });
    assert_eq!(outcome(&mut stage, "anna", first), Outcome::Acked);
    let token = stage.token("anna", 1);
    let back = stage.come_back("anna", &token, None);
    push(&mut stage, "anna", "stuck");
    let ttl = Some(Span::from_secs(1));
    let late = push_post(&mut stage, "anna", Post { ttl, ..post("late") });
    stage.pass(Span::from_secs(3));
    assert_eq!(outcome(&mut stage, "anna", late), Outcome::Slow, "it became too old");
    assert_eq!(stage.gateway.stats().mail.expired, 1);
    stage.hear(back);
}

#[test]
fn what_is_too_old_is_found_at_its_time_however_many_it_waits_for() {
    let count = 1_000;
    let mut stage = Stage::new(GatewayConfig { connections_max: count + 10, ..held(600) });
    let ttl = Some(Span::from_secs(60));
    for number in 0..count {
        let name = format!("c{number}");
        let conn = stage.login(&name);
        stage.is_lost(conn);
        push_post(&mut stage, &name, Post { ttl, ..post("x") });
        stage.ops.clear();
    }
    let young = push_post(&mut stage, "c7", Post { ttl: Some(Span::from_secs(300)), ..post("y") });
    // As often as it wants to be told, and no oftener.
    let until = stage.now + Span::from_secs(62);
    let mut turns = 0;
    while stage.now < until {
        let wake = stage.gateway.next_wake().unwrap_or(until).min(until);
        stage.now = wake.max(stage.now);
        stage.gateway.on_time(stage.now);
        turns += 1;
    }
    assert_eq!(stage.gateway.stats().mail.expired, u64::from(count));
    assert!(turns < 100, "{turns} turns");
    assert_eq!(outcome(&mut stage, "c7", young), Outcome::Queued);
    stage.pass(Span::from_secs(240));
    assert_eq!(stage.gateway.stats().mail.expired, u64::from(count) + 1);
    assert_eq!(stage.gateway.stats().mail.queue_bytes, 0);
}
