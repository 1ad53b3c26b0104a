//! Drains and rebalances: who is told when, and when they are asked to come back.

use crate::base::config::{GatewayConfig, Shard};
use crate::base::event::{CloseReason, Event, Record};
use crate::base::ids::ConnId;
use crate::base::io::{CloseHow, Completion, IoFault, Op, ReceiveEnd};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, Drain, Leaving, Pace, Rebalance, Reply, owner};

const TICK: Span = limits::TICK_DEFAULT;

fn crowd(count: u32) -> (Stage, Vec<ConnId>) {
    crowd_of(GatewayConfig { connections_max: count, ..config() }, count)
}

fn crowd_of(config: GatewayConfig, count: u32) -> (Stage, Vec<ConnId>) {
    let mut stage = Stage::new(config);
    let conns = (0..count).map(|number| stage.login(&format!("c{number}"))).collect();
    stage.ops.clear();
    (stage, conns)
}

fn order(stage: &mut Stage, drain: Drain) {
    assert_eq!(stage.gateway.on_command(Command::Drain(drain), stage.now), Reply::Done);
    stage.settle();
}

fn shed(stage: &mut Stage, rebalance: Rebalance) -> Reply {
    let reply = stage.gateway.on_command(Command::Rebalance(rebalance), stage.now);
    stage.settle();
    reply
}

fn tenth() -> Rebalance {
    Rebalance { parts_per_million: 100_000, within: None, pace: Pace::AtOnce, window: None }
}

/// Calls as often as the gateway asks for it, as the loop does, and says who was told when, since
/// the order.
fn told(stage: &mut Stage, span: Span) -> Vec<(ConnId, Span)> {
    let began = stage.now;
    let until = began + span;
    let mut told = Vec::new();
    loop {
        stage.gateway.on_time(stage.now);
        stage.settle();
        for op in std::mem::take(&mut stage.ops) {
            match op {
                Op::Send { conn, .. } => told.push((conn, stage.now.since(began))),
                other => stage.ops.push(other),
            }
        }
        let wake = stage.gateway.next_wake().unwrap_or(until).max(stage.now);
        if wake > until {
            stage.now = until;
            stage.gateway.on_time(until);
            stage.settle();
            return told;
        }
        stage.now = wake;
    }
}

fn leavers(stage: &Stage) -> [u64; 3] {
    let Leaving { told, left, closed, .. } = stage.gateway.stats().leaving;
    [told, left, closed]
}

#[test]
fn a_rate_is_kept_to_the_tick() {
    let (mut stage, conns) = crowd(250);
    let pace = Pace::PerSecond(50);
    order(&mut stage, Drain { within: Some(Span::from_secs(60)), notice: Span::ZERO, pace });
    let told = told(&mut stage, Span::from_secs(10));
    let in_order: Vec<_> = told.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(in_order, conns, "each once");
    for (nth, (_, after)) in told.iter().enumerate() {
        let due = Span::from_millis(20).times(nth as u64);
        assert!(*after >= due && *after <= due + TICK, "number {nth} after {after}");
    }
    assert_eq!(leavers(&stage), [250, 0, 0]);
}

#[test]
fn a_high_rate_is_told_in_small_groups_once_a_tick() {
    let (mut stage, _) = crowd(800);
    let pace = Pace::PerSecond(5_000);
    order(&mut stage, Drain { within: Some(Span::from_secs(60)), notice: Span::ZERO, pace });
    let told = told(&mut stage, Span::from_secs(2));
    assert_eq!(told.len(), 800);
    for (nth, (_, after)) in told.iter().enumerate() {
        let due = Span::from_micros(200).times(nth as u64);
        assert!(*after >= due && *after <= due + TICK, "number {nth} after {after}");
    }
    let mut turns: Vec<_> = told.iter().map(|(_, after)| *after).collect();
    turns.dedup();
    assert!(turns.len() <= 18, "{} turns in 160 ms", turns.len());
}

#[test]
fn without_a_rate_a_drain_is_spread_over_its_time_and_leaves_some_for_the_last() {
    let (mut stage, _) = crowd(100);
    let within = Some(Span::from_secs(22));
    order(&mut stage, Drain { within, notice: Span::ZERO, pace: Pace::Spread });
    let told = told(&mut stage, Span::from_secs(21));
    assert_eq!(told.len(), 100);
    for (nth, (_, after)) in told.iter().enumerate() {
        let due = Span::from_millis(200).times(nth as u64);
        assert!(*after >= due && *after <= due + TICK, "number {nth} after {after}");
    }
    assert_eq!(told[99].1.as_millis() / 100, 198, "2 s are left for whoever was told last");
}

#[test]
fn in_the_notice_nothing_changes_but_readiness() {
    let mut stage = Stage::new(GatewayConfig { grace: Span::from_secs(60), ..config() });
    let lost = stage.login("lost");
    stage.is_lost(lost);
    let notice = Span::from_secs(3);
    order(&mut stage, Drain { within: Some(Span::from_secs(10)), notice, pace: Pace::AtOnce });
    let stats = stage.gateway.stats();
    assert!(stats.draining && stats.accepting);
    stage.pass(Span::from_millis(2_900));
    let newcomer = stage.login("newcomer");
    let token = stage.token("lost", 1);
    let back = stage.come_back("lost", &token, None);
    assert!(stage.hear(back)[0].contains("resumed: true"));
    assert!(!stage.takes(|op| matches!(op, Op::StopAccepting)));
    stage.pass(Span::from_millis(100));
    assert!(stage.takes(|op| matches!(op, Op::StopAccepting)));
    assert!(!stage.gateway.stats().accepting);
    for conn in [newcomer, back] {
        assert!(stage.hear(conn)[0].contains("code: 101"));
    }
}

#[test]
fn a_gateway_without_clients_keeps_its_notice_and_then_ends() {
    let mut stage = Stage::new(config());
    let within = Some(Span::from_secs(4));
    order(&mut stage, Drain { within, notice: Span::from_secs(60), pace: Pace::Spread });
    for _ in 0..stage.accepts {
        stage.complete(Completion::AcceptFailed { fault: IoFault::Cancelled });
    }
    stage.gateway.on_time(stage.now);
    let wake = stage.gateway.next_wake().expect("there is something to wait for");
    assert!(wake <= stage.now + limits::SLEEP_MAX, "a longer sleep would be taken for a stall");
    stage.pass(Span::from_millis(1_990));
    assert!(!stage.gateway.is_drained(), "at most half of the time, and no less");
    stage.pass(Span::from_millis(10));
    assert!(stage.gateway.is_drained());
}

#[test]
fn a_later_drain_that_is_faster_overtakes_and_a_slower_one_does_not() {
    let (mut stage, _) = crowd(100);
    let slow = |rate| Drain {
        within: Some(Span::from_secs(600)),
        notice: Span::ZERO,
        pace: Pace::PerSecond(rate),
    };
    order(&mut stage, slow(2));
    assert_eq!(told(&mut stage, Span::from_millis(4_990)).len(), 10);
    order(&mut stage, slow(1));
    assert_eq!(told(&mut stage, Span::from_millis(5_000)).len(), 10, "the faster pace holds");
    order(&mut stage, slow(10));
    assert_eq!(told(&mut stage, Span::from_millis(1_990)).len(), 20);
    order(&mut stage, Drain::at_once(Span::from_secs(5)));
    let at_once = told(&mut stage, Span::from_millis(10));
    assert_eq!(at_once.len(), 60);
    stage.pass(Span::from_millis(5_000));
    let closes = stage.ops.iter().filter(|op| matches!(op, Op::Close { .. })).count();
    assert_eq!(closes, 100, "those who were told before have no more time than the others");
}

#[test]
fn the_same_order_again_slows_nothing_down_though_many_have_left() {
    let (mut stage, conns) = crowd(100);
    let spread = |secs| Drain {
        within: Some(Span::from_secs(secs)),
        notice: Span::ZERO,
        pace: Pace::Spread,
    };
    order(&mut stage, spread(22));
    assert_eq!(told(&mut stage, Span::from_millis(1_990)).len(), 10, "five a second");
    for conn in &conns[50..] {
        stage.complete(Completion::ReceiveEnded { conn: *conn, end: ReceiveEnd::Eof });
        assert!(stage.closes(*conn).is_some());
    }
    order(&mut stage, spread(20));
    let told = told(&mut stage, Span::from_secs(4)).len();
    assert!((19..=21).contains(&told), "{told}");
}

#[test]
fn a_rate_beyond_a_batch_in_a_tick_is_kept() {
    let (mut stage, _) = crowd(limits::DRAIN_BATCH_MAX + 300);
    let pace = Pace::PerSecond(200_000);
    order(&mut stage, Drain { within: Some(Span::from_secs(60)), notice: Span::ZERO, pace });
    let told = told(&mut stage, Span::from_secs(1));
    for (nth, (_, after)) in told.iter().enumerate() {
        let due = Span::from_micros(5).times(nth as u64);
        assert!(*after >= due && *after <= due + TICK, "number {nth} after {after}");
    }
}

#[test]
fn a_drain_at_once_cuts_a_notice_short() {
    let (mut stage, _) = crowd(3);
    let (within, notice) = (Some(Span::from_secs(60)), Span::from_secs(30));
    order(&mut stage, Drain { within, notice, pace: Pace::Spread });
    assert!(told(&mut stage, Span::from_secs(1)).is_empty());
    order(&mut stage, Drain::at_once(Span::from_secs(5)));
    assert_eq!(told(&mut stage, TICK).len(), 3);
}

#[test]
fn who_was_not_told_at_the_deadline_is_told_and_closed_then() {
    let (mut stage, _) = crowd(20);
    let pace = Pace::PerSecond(2);
    order(&mut stage, Drain { within: Some(Span::from_secs(5)), notice: Span::ZERO, pace });
    let before = told(&mut stage, Span::from_millis(4_990));
    assert_eq!(before.len(), 10);
    let after = told(&mut stage, Span::from_millis(50));
    assert_eq!(after.len(), 10);
    let closed = stage.ops.iter().filter(|op| matches!(op, Op::Close { .. })).count();
    assert_eq!(closed, 20, "nobody is left");
    assert_eq!(leavers(&stage), [20, 0, 20]);
}

#[test]
fn a_rate_without_a_deadline_has_time_for_everybody() {
    let (mut stage, _) = crowd(40);
    let drain = Drain { within: None, notice: Span::from_secs(1), pace: Pace::PerSecond(2) };
    order(&mut stage, drain);
    assert_eq!(told(&mut stage, Span::from_millis(25_900)).len(), 40);
    assert_eq!(leavers(&stage), [40, 0, 0]);
    told(&mut stage, Span::from_millis(200));
    assert_eq!(leavers(&stage), [40, 0, 40], "1 s notice, 20 s of telling, 5 s to leave");
}

#[test]
fn who_leaves_and_who_has_to_be_closed_are_counted_apart() {
    let (mut stage, conns) = crowd(3);
    order(&mut stage, Drain::at_once(Span::from_secs(5)));
    stage.pass(Span::ZERO);
    for conn in &conns[..2] {
        stage.complete(Completion::ReceiveEnded { conn: *conn, end: ReceiveEnd::Eof });
        assert_eq!(stage.closes(*conn), Some(CloseHow::Finish));
    }
    assert_eq!(leavers(&stage), [3, 2, 0]);
    stage.hear(conns[2]);
    stage.pass(Span::from_millis(5_010));
    assert_eq!(stage.closes(conns[2]), Some(CloseHow::Finish), "it was told, and may have heard");
    assert_eq!(leavers(&stage), [3, 2, 1]);
}

#[test]
fn a_turn_looks_at_so_many_slots_and_no_more() {
    let count = limits::DRAIN_BATCH_MAX * 2 + 10;
    let (mut stage, conns) = crowd(count);
    for conn in &conns[..conns.len() - 1] {
        stage.complete(Completion::ReceiveEnded { conn: *conn, end: ReceiveEnd::Eof });
        stage.closes(*conn);
    }
    order(&mut stage, Drain::at_once(Span::from_secs(5)));
    let mut turns = 0;
    while stage.gateway.stats().leaving.told == 0 {
        assert_eq!(stage.gateway.next_wake(), Some(Moment::ZERO), "there is more to look at");
        stage.gateway.on_time(stage.now);
        stage.settle();
        turns += 1;
    }
    assert_eq!(turns, 3, "the last one is behind two batches of empty slots");
}

/// What the peers were asked: the windows, in the order in which they were told.
fn windows(stage: &mut Stage, conns: &[ConnId]) -> Vec<(u64, u64)> {
    let number = |text: &str, key: &str| -> u64 {
        let rest = text.split(key).nth(1).unwrap_or_else(|| panic!("no {key} in {text}"));
        let digits = rest.trim_start_matches(": ");
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().expect("a number")
    };
    let heard = conns.iter().flat_map(|conn| stage.hear(*conn)).collect::<Vec<_>>();
    let window =
        |text: &String| (number(text, "reconnect_min_ms"), number(text, "reconnect_max_ms"));
    heard.iter().map(window).collect()
}

/// One of so many shards that a few of its clients are a large crowd.
const SHARD: Shard = Shard { index: 0, count: 50, ..Shard::ONLY };
/// As many as come back to it in a second.
const SECOND_FULL: u32 = limits::COME_BACKS_PER_S / 50;

fn crowd_of_shard(count: u32) -> (Stage, Vec<ConnId>) {
    let reconnect_window = (Span::from_secs(1), Span::from_secs(2));
    let config = GatewayConfig { shard: SHARD, reconnect_window, ..config() };
    let mut stage = Stage::new(GatewayConfig { connections_max: count, ..config });
    let names = (0..).map(|number| format!("c{number}"));
    let own = names.filter(|name| owner(SHARD, name) == 0).take(count as usize);
    let conns = own.map(|name| stage.login(&name)).collect();
    stage.ops.clear();
    (stage, conns)
}

#[test]
fn a_small_crowd_comes_back_within_the_window_and_a_large_one_takes_its_time() {
    let (mut stage, conns) = crowd_of_shard(SECOND_FULL);
    order(&mut stage, Drain::at_once(Span::from_secs(5)));
    stage.pass(Span::ZERO);
    assert!(windows(&mut stage, &conns).iter().all(|window| *window == (1_000, 2_000)));

    let (mut stage, conns) = crowd_of_shard(2 * SECOND_FULL);
    order(&mut stage, Drain::at_once(Span::from_secs(5)));
    stage.pass(Span::ZERO);
    let windows = windows(&mut stage, &conns);
    let lengths: Vec<_> = windows.iter().map(|(min, max)| max - min).collect();
    assert!(lengths.iter().all(|length| *length == 1_000), "each as configured");
    // Another second is needed, and as many begin in each tenth of it.
    let mut tenths = [0; 10];
    for (min, _) in &windows {
        tenths[usize::try_from((min - 1_000) / 100).expect("few")] += 1;
    }
    assert_eq!(tenths, [2 * SECOND_FULL / 10; 10]);
}

#[test]
fn who_waited_for_its_turn_need_not_wait_as_long_again() {
    let (mut stage, conns) = crowd_of_shard(2 * SECOND_FULL);
    let pace = Pace::PerSecond(limits::COME_BACKS_PER_S);
    order(&mut stage, Drain { within: Some(Span::from_secs(60)), notice: Span::ZERO, pace });
    for _ in 0..=200 {
        stage.pass(TICK);
    }
    let windows = windows(&mut stage, &conns);
    assert_eq!(windows.len(), conns.len(), "told within 2 s");
    let latest = windows.into_iter().map(|(_, max)| max).max();
    assert!(latest.is_some_and(|max| max <= 2_010), "{latest:?}: the drain has spread them");
}

#[test]
fn shards_keep_one_rate_together_and_take_turns() {
    let mut moments = Vec::new();
    for index in 0..3 {
        let shard = Shard { index, count: 3, ..Shard::ONLY };
        let config = GatewayConfig { connections_max: 100, shard, ..config() };
        let mut stage = Stage::new(config);
        let mut conns = 0;
        let names = (0..).map(|number| format!("c{number}"));
        for name in names.filter(|name| owner(shard, name) == index).take(20) {
            stage.login(&name);
            conns += 1;
        }
        stage.ops.clear();
        let pace = Pace::PerSecond(6);
        order(&mut stage, Drain { within: Some(Span::from_secs(60)), notice: Span::ZERO, pace });
        let told = told(&mut stage, Span::from_secs(20));
        assert_eq!(told.len(), conns);
        moments.extend(told.into_iter().map(|(_, after)| after));
    }
    moments.sort();
    assert_eq!(moments.len(), 60);
    for (nth, after) in moments.iter().enumerate() {
        let due_ms = nth as u64 * 1_000 / 6;
        let is_due = (due_ms..=due_ms + 11).contains(&after.as_millis());
        assert!(is_due, "number {nth} after {after}");
    }
}

#[test]
fn a_rebalance_sheds_its_part_tells_why_and_leaves_the_others_alone() {
    let (mut stage, _) = crowd(400);
    stage.records.clear();
    assert_eq!(shed(&mut stage, tenth()), Reply::Done);
    let told = told(&mut stage, Span::from_secs(1));
    assert_eq!(told.len(), 40, "exactly, for nobody left meanwhile");
    assert_eq!(stage.gateway.stats().online, 360);
    let offline = |record: &Record| {
        matches!(record.event, Event::Offline { reason: CloseReason::Rebalance, .. })
    };
    assert_eq!(stage.records.iter().filter(|record| offline(record)).count(), 40);
    assert_eq!(stage.records.len(), 40);
    assert!(stage.gateway.stats().accepting && !stage.gateway.stats().leaving.rebalancing);
    assert_eq!(leavers(&stage), [40, 0, 0]);
    assert!(CloseReason::Rebalance.code() == 103);
    stage.pass(limits::LINGER_TIMEOUT + TICK.times(2));
    assert_eq!(leavers(&stage), [40, 0, 40], "who does not leave is closed after a while");
}

#[test]
fn everybody_has_the_same_chance_to_be_shed() {
    let mut hits = vec![0_u32; 40];
    for seed in 0..500 {
        let config = GatewayConfig { connections_max: 40, seed, ..config() };
        let (mut stage, conns) = crowd_of(config, 40);
        shed(&mut stage, Rebalance { parts_per_million: 250_000, ..tenth() });
        let told = told(&mut stage, Span::from_millis(50));
        assert_eq!(told.len(), 10, "seed {seed}");
        for (conn, _) in told {
            hits[conns.iter().position(|own| *own == conn).expect("one of them")] += 1;
        }
    }
    // 125 each; six standard deviations are 58.
    assert!(hits.iter().all(|count| (67..=183).contains(count)), "{hits:?}");
}

#[test]
fn a_part_of_one_is_a_chance() {
    let mut shed_all = 0;
    for seed in 0..400 {
        let config = GatewayConfig { connections_max: 5, seed, ..config() };
        let (mut stage, _) = crowd_of(config, 5);
        shed(&mut stage, tenth());
        shed_all += told(&mut stage, Span::from_millis(50)).len();
    }
    // 200 are expected; six standard deviations are 60.
    assert!((140..=260).contains(&shed_all), "{shed_all}");
}

#[test]
fn a_rebalance_has_a_pace_and_spares_those_who_come_meanwhile() {
    let config = GatewayConfig { connections_max: 400, ..config() };
    let (mut stage, conns) = crowd_of(config, 200);
    let half = Rebalance { parts_per_million: 500_000, pace: Pace::PerSecond(10), ..tenth() };
    shed(&mut stage, half);
    let first = told(&mut stage, Span::from_millis(4_950));
    assert_eq!(first.len(), 50);
    assert!(stage.gateway.stats().leaving.rebalancing);
    // In their places others come, who were not meant.
    for conn in &conns[170..] {
        stage.complete(Completion::ReceiveEnded { conn: *conn, end: ReceiveEnd::Eof });
        stage.closes(*conn);
    }
    let newcomers: Vec<_> = (0..30).map(|number| stage.login(&format!("n{number}"))).collect();
    assert!(newcomers.iter().all(|conn| conns.iter().any(|old| old.slot == conn.slot)));
    stage.ops.clear();
    let second = told(&mut stage, Span::from_secs(6));
    assert!((20..=50).contains(&second.len()), "{}", second.len());
    assert!(second.iter().all(|(conn, _)| !newcomers.contains(conn)));
    assert!(!stage.gateway.stats().leaving.rebalancing);
}

#[test]
fn a_rebalance_ends_with_its_time_by_another_one_and_by_a_drain() {
    let all = |within| Rebalance {
        parts_per_million: 1_000_000,
        within,
        pace: Pace::PerSecond(10),
        window: None,
    };
    let (mut stage, _) = crowd(100);
    shed(&mut stage, all(Some(Span::from_secs(2))));
    let told_in_time = told(&mut stage, Span::from_secs(5)).len();
    assert!((20..=21).contains(&told_in_time), "{told_in_time}");
    assert!(!stage.gateway.stats().leaving.rebalancing);

    shed(&mut stage, all(None));
    shed(&mut stage, Rebalance { parts_per_million: 0, ..all(None) });
    assert!(!stage.gateway.stats().leaving.rebalancing, "nobody is wanted any more");

    shed(&mut stage, all(None));
    order(&mut stage, Drain::at_once(Span::from_secs(5)));
    told(&mut stage, TICK);
    assert!(!stage.gateway.stats().leaving.rebalancing);
    assert_eq!(shed(&mut stage, all(None)), Reply::Draining);
}

#[test]
fn a_rebalance_may_say_when_to_come_back() {
    let (mut stage, conns) = crowd(10);
    let window = Some((Span::from_secs(30), Span::from_secs(40)));
    shed(&mut stage, Rebalance { parts_per_million: 1_000_000, window, ..tenth() });
    stage.pass(Span::ZERO);
    assert_eq!(windows(&mut stage, &conns), [(30_000, 40_000); 10]);
}
