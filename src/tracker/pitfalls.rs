//! Where timing wheels have gone wrong, here or elsewhere, and a test for each.

use crate::base::ids::{ClientId, ConnId};
use crate::base::limits::{EXPIRE_BATCH_MAX, WHEEL_VISITS_MAX};
use crate::base::time::{Moment, Span};
use crate::tracker::{Presence, PresenceConfig, Progress, REACH_TICKS};
use crate::tracker::{Tick, Tracker, TrackerConfig, Wheel};

const NEAR_TICKS: u64 = 1 << 14;
const FAR_TICKS: u64 = 1 << 20;
const REMOTE_TICKS: u64 = 1 << 26;
const HOUR_TICKS: u64 = 360_000;

fn advance(wheel: &mut Wheel, now: u64) -> Vec<u32> {
    let mut fired = Vec::new();
    assert_eq!(wheel.advance(Tick(now), usize::MAX, &mut fired), Progress::Done);
    wheel.check();
    fired
}

/// Sleeps from wake to wake until something fires: when, and what.
fn next_fired(wheel: &mut Wheel) -> Option<(u64, Vec<u32>)> {
    let mut wake = wheel.next_wake();
    while let Some(now) = wake {
        let fired = advance(wheel, now.0);
        if !fired.is_empty() {
            return Some((now.0, fired));
        }
        wake = wheel.next_wake();
        assert!(wake > Some(now), "the wake did not move");
    }
    None
}

fn tracker(capacity_max: u32) -> Tracker<&'static str> {
    Tracker::new(TrackerConfig {
        capacity_max,
        tick: Span::from_millis(10),
        hash_key: [3, 4],
        start: Moment::ZERO,
    })
}

fn expired(tracker: &mut Tracker<&'static str>, now: Moment) -> Vec<ConnId> {
    let mut out = Vec::new();
    assert_eq!(tracker.expire(now, EXPIRE_BATCH_MAX, &mut out), Progress::Done);
    tracker.check();
    out
}

// --- 1 to 5: when --------------------------------------------------------------------------------

#[test]
fn nobody_fires_before_the_deadline_or_a_tick_after_it() {
    let ms = 1_000_000;
    for deadline_nanos in [1, ms, 10 * ms - 1, 10 * ms, 10 * ms + 1, 35_000 * ms + 7, 90_001 * ms] {
        let deadline = Moment::from_nanos(deadline_nanos);
        let mut tracker = tracker(1);
        let conn = tracker.admit("a", deadline).unwrap();
        let before = deadline - Span::from_nanos(1);
        assert!(expired(&mut tracker, before).is_empty(), "{deadline:?}");
        let tick_after = deadline + Span::from_nanos(10 * ms - 1);
        assert_eq!(expired(&mut tracker, tick_after), [conn], "{deadline:?}");
    }
}

#[test]
fn nothing_is_lost_however_time_moves() {
    let distances = [1, 2, 255, 256, 257, 9_000, NEAR_TICKS, HOUR_TICKS, 3 * FAR_TICKS];
    for gap in [1, 255, 256, NEAR_TICKS, HOUR_TICKS, 240 * HOUR_TICKS] {
        let mut wheel = Wheel::new(Tick(77));
        let mut twin = Vec::new();
        for (key, distance) in (0..).zip(distances).map(|(key, distance)| (key * 40, distance)) {
            wheel.arm(key, Tick(77 + distance));
            twin.push((77 + distance, key));
        }
        let mut now = 77;
        assert!(advance(&mut wheel, now).is_empty(), "a gap of nothing");
        // Tick by tick through the whole would take a while; the last stretch goes in one jump.
        for _ in 0..40_000_u64.min(6 * FAR_TICKS / gap) {
            now += gap;
            let mut fired = Vec::new();
            assert_eq!(wheel.advance(Tick(now), usize::MAX, &mut fired), Progress::Done);
            fired.sort_unstable();
            let expected: Vec<u32> =
                twin.extract_if(.., |(deadline, _)| *deadline <= now).map(|(_, key)| key).collect();
            assert_eq!(fired, expected, "gap {gap}, now {now}");
        }
        assert_eq!(advance(&mut wheel, now + 10 * FAR_TICKS).len(), twin.len(), "gap {gap}");
    }
}

#[test]
fn deadlines_at_the_edge_of_a_slot_fire_at_their_tick() {
    let starts = [0, 1, NEAR_TICKS - 1, NEAR_TICKS, 3 * FAR_TICKS - 1, 3 * FAR_TICKS, 987_654_321];
    let edges = [
        1,
        63,
        64,
        NEAR_TICKS,
        2 * NEAR_TICKS,
        63 * NEAR_TICKS,
        64 * NEAR_TICKS, // the far slot that is current now, one turn ahead
        65 * NEAR_TICKS,
        2 * FAR_TICKS,
        63 * FAR_TICKS,
        64 * FAR_TICKS, // the same among the remote slots
        65 * FAR_TICKS,
        REMOTE_TICKS * 3,
    ];
    for start in starts {
        for edge in edges {
            // The edge counted from now, and the edge where the slot's number changes.
            for base in [start, start / edge * edge] {
                for deadline in [base + edge - 1, base + edge, base + edge + 1] {
                    let mut wheel = Wheel::new(Tick(start));
                    assert!(advance(&mut wheel, start).is_empty());
                    wheel.arm(5, Tick(deadline));
                    let fired = next_fired(&mut wheel);
                    let expected = deadline.max(start);
                    assert_eq!(fired, Some((expected, vec![5])), "start {start}, edge {edge}");
                }
            }
        }
    }
}

#[test]
fn a_deadline_now_fires_now() {
    let mut wheel = Wheel::new(Tick(1_000));
    for (key, deadline) in [(1, 1_000), (2, 999), (3, 0)] {
        assert!(advance(&mut wheel, 1_000).is_empty());
        wheel.arm(key, Tick(deadline));
        assert_eq!(wheel.next_wake(), Some(Tick(1_000)));
        assert_eq!(advance(&mut wheel, 1_000), [key], "deadline {deadline}");
    }
}

/// 65,536 clients that connected within a second beat every 30 s. Work in blocks, not in time: the
/// same on every machine. 600 virtual seconds cross every edge of the near level thrice.
fn busiest_tick(timeout_ticks: u64) -> (u64, u64) {
    const CLIENTS: u32 = 65_536;
    const INTERVAL_TICKS: u32 = 3_000;
    let mut wheel = Wheel::with_capacity(Tick(0), CLIENTS);
    let mut fired = Vec::new();
    let (mut worst, mut all) = (0, 0);
    for now in 0..60_000_u32 {
        let time = u64::from(now);
        let beats = if now < 100 { CLIENTS / 100 + 1 } else { CLIENTS / INTERVAL_TICKS + 1 };
        for beat in 0..beats {
            // Odd factors: a walk through all clients that has no order a block could see.
            let turn = if now < 100 { now * beats + beat } else { (now - 100) * beats + beat };
            let client = if now < 100 { turn } else { turn.wrapping_mul(40_503) } % CLIENTS;
            wheel.arm(client, Tick(time + timeout_ticks));
        }
        let visits_before = wheel.visits();
        assert_eq!(wheel.advance(Tick(time), EXPIRE_BATCH_MAX, &mut fired), Progress::Done);
        let visits = wheel.visits() - visits_before;
        worst = worst.max(visits);
        all += visits;
    }
    assert!(fired.is_empty(), "everybody beats in time");
    (worst, all)
}

#[test]
fn no_edge_brings_down_a_level_at_once() {
    for timeout_ticks in [9_000, NEAR_TICKS + 1, 17_000, 30_000, 31 * NEAR_TICKS] {
        let (worst, all) = busiest_tick(timeout_ticks);
        // 1,024 blocks in all.
        assert!(worst <= 32, "timeout of {timeout_ticks} ticks: {worst} blocks in one tick");
        assert!(all <= 20_000, "timeout of {timeout_ticks} ticks: {all} visits in 60,000 ticks");
    }
}

#[test]
fn deadlines_survive_the_wrap_of_the_count() {
    for wrap in [1_u64 << 31, 1 << 32, 3 << 31] {
        for lead in [1, 100, NEAR_TICKS + 5, HOUR_TICKS] {
            let mut wheel = Wheel::new(Tick(0));
            // Near the wrap in steps that the wheel can reach.
            for step in 1..=4 {
                assert!(advance(&mut wheel, (wrap - lead) / 4 * step).is_empty());
            }
            advance(&mut wheel, wrap - lead);
            for (key, deadline) in [(0, wrap - 1), (64, wrap), (65, wrap + 1), (128, wrap + lead)] {
                wheel.arm(key, Tick(deadline));
            }
            wheel.arm(7, Tick(wrap + 5));
            wheel.disarm(7);
            for (deadline, key) in [(wrap - 1, 0), (wrap, 64), (wrap + 1, 65)] {
                assert_eq!(wheel.deadline(key), Some(Tick(deadline)));
                let fired = next_fired(&mut wheel).expect("armed");
                assert_eq!(fired.0, deadline, "wrap {wrap}, lead {lead}");
                assert!(fired.1.contains(&key), "wrap {wrap}, lead {lead}");
            }
            assert_eq!(wheel.deadline(7), None);
            advance(&mut wheel, wrap + lead);
            assert!(wheel.is_empty());
        }
    }
}

#[test]
fn counting_anew_in_the_middle_of_a_drain_loses_nothing() {
    let mut wheel = Wheel::new(Tick(0));
    (0..100).for_each(|key| wheel.arm(key, Tick(50)));
    wheel.arm(500, Tick(60 + NEAR_TICKS));
    let mut fired = Vec::new();
    assert_eq!(wheel.advance(Tick(50), 3, &mut fired), Progress::More);
    for (key, now) in [(600, 1 << 31), (601, (1 << 31) + 1), (602, 1 << 33), (603, 1 << 50)] {
        assert_eq!(wheel.advance(Tick(now), 3, &mut fired), Progress::More);
        wheel.check();
        wheel.arm(key, Tick(now + 1_000));
        assert_eq!(wheel.deadline(key), Some(Tick(now + 1_000)));
    }
    fired.extend(advance(&mut wheel, 1 << 50));
    fired.sort_unstable();
    let expected = (0..100).chain([500, 600, 601, 602]);
    assert!(fired.iter().copied().eq(expected), "each once: {fired:?}");
    assert_eq!(next_fired(&mut wheel), Some(((1 << 50) + 1_000, vec![603])));
}

#[test]
fn a_deadline_beyond_the_reach_is_kept_at_its_end_and_not_lost() {
    for deadline in [Tick(u64::MAX), Tick(1 << 33), Tick((1 << 32) + 9)] {
        let mut wheel = Wheel::new(Tick(10));
        wheel.arm(1, deadline);
        wheel.arm(2, deadline);
        wheel.disarm(2);
        wheel.check();
        let kept = wheel.deadline(1).expect("armed");
        assert!(kept >= Tick(10 + REACH_TICKS), "{deadline:?} kept as {kept:?}");
        assert!(advance(&mut wheel, 10 + REACH_TICKS - 1).is_empty());
        assert_eq!(next_fired(&mut wheel).map(|(_, keys)| keys), Some(vec![1]));
    }
}

// --- 6: the clock --------------------------------------------------------------------------------

#[test]
fn a_clock_that_goes_back_is_ignored() {
    let mut wheel = Wheel::new(Tick(500));
    wheel.arm(1, Tick(1_000));
    assert!(advance(&mut wheel, 999).is_empty());
    assert!(advance(&mut wheel, 3).is_empty());
    wheel.arm(2, Tick(1_001));
    assert_eq!(advance(&mut wheel, 1_000), [1]);
    assert!(advance(&mut wheel, 0).is_empty());
    assert_eq!(advance(&mut wheel, 1_001), [2]);
}

#[test]
fn after_a_stall_whoever_beats_before_time_advances_lives() {
    let mut presence = Presence::new(PresenceConfig {
        timeout: Span::from_secs(35),
        tick: Span::from_millis(10),
        clients_max: 10,
        hash_key: [5, 6],
        start: Moment::ZERO,
    });
    let mut gone = Vec::new();
    for client in ["waiting", "silent"] {
        assert!(presence.beat(client, Moment::from_millis(10)).unwrap().is_some());
    }
    // The process stood still for an hour; one beat was waiting to be read.
    let now = Moment::from_millis(3_600_000);
    assert_eq!(presence.beat("waiting", now), Ok(None), "not online anew: it never was away");
    assert_eq!(presence.advance(now, &mut gone), Progress::Done);
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].client.as_str(), "silent");
    assert_eq!(gone[0].last_beat, Moment::from_millis(10));
    assert_eq!(presence.len(), 1);
}

// --- 7 to 9: what happens to a deadline meanwhile ------------------------------------------------

#[test]
fn a_deadline_brought_nearer_fires_at_the_nearer_one_and_once() {
    let mut wheel = Wheel::new(Tick(0));
    wheel.arm(9, Tick(9_000));
    wheel.arm(9, Tick(100));
    assert_eq!(next_fired(&mut wheel), Some((100, vec![9])));
    // Nearer, farther and nearer within a tick; then farther than the bound its block is queued at.
    for deadlines in
        [[300, 9_000, 200], [500, 400, 700], [9_000, 9_000, 1_000], [1_003, 1_002, 1_001]]
    {
        deadlines.into_iter().for_each(|deadline| wheel.arm(9, Tick(deadline)));
        assert_eq!(next_fired(&mut wheel), Some((deadlines[2], vec![9])), "{deadlines:?}");
        assert_eq!(next_fired(&mut wheel), None, "{deadlines:?}: twice");
    }
}

#[test]
fn a_neighbour_does_not_hide_a_nearer_deadline() {
    let mut wheel = Wheel::new(Tick(0));
    wheel.arm(1, Tick(9_000));
    assert!(advance(&mut wheel, 8_000).is_empty());
    wheel.arm(1, Tick(20_000));
    wheel.arm(2, Tick(8_001)); // before the bound their block is queued at
    assert_eq!(wheel.next_wake(), Some(Tick(8_001)));
    assert_eq!(advance(&mut wheel, 8_001), [2]);
}

#[test]
fn a_block_that_moves_out_of_a_slot_takes_no_neighbour_along() {
    for moved in 0..5 {
        let mut wheel = Wheel::new(Tick(0));
        (0..5).for_each(|block| wheel.arm(block * 64, Tick(100)));
        wheel.arm(moved * 64, Tick(50));
        wheel.check();
        assert_eq!(advance(&mut wheel, 50), [moved * 64]);
        assert_eq!(advance(&mut wheel, 100).len(), 4, "block {moved}");
    }
}

#[test]
fn a_key_that_fired_can_be_armed_again_at_once() {
    let mut wheel = Wheel::new(Tick(0));
    wheel.arm(3, Tick(10));
    for round in 1..100 {
        assert_eq!(advance(&mut wheel, round * 10), [3]);
        assert_eq!(wheel.deadline(3), None);
        assert_eq!(wheel.next_wake(), None);
        wheel.arm(3, Tick(round * 10 + 10));
        assert!(wheel.next_wake() <= Some(Tick(round * 10 + 10)), "whoever sleeps is told");
    }
}

#[test]
fn a_whole_block_that_fired_can_be_armed_again() {
    let mut wheel = Wheel::new(Tick(0));
    for round in 1..10 {
        (0..64).for_each(|key| wheel.arm(key, Tick(round * 10)));
        assert_eq!(wheel.len(), 64);
        assert_eq!(advance(&mut wheel, round * 10).len(), 64);
        assert!(wheel.is_empty());
        wheel.check();
    }
}

#[test]
fn arming_into_the_slot_that_is_being_drained_ends() {
    let mut wheel = Wheel::new(Tick(0));
    (0..10).for_each(|key| wheel.arm(key, Tick(10)));
    let mut fired = Vec::new();
    let mut calls = 0;
    while wheel.advance(Tick(20), 1, &mut fired) == Progress::More {
        calls += 1;
        // The verdict on the last one: not dead, look again in 16,384 ticks. The same slot.
        wheel.arm(fired[fired.len() - 1], Tick(10 + NEAR_TICKS));
        wheel.check();
    }
    assert_eq!(calls, 9);
    fired.sort_unstable();
    assert!(fired.iter().copied().eq(0..10), "each once: {fired:?}");
    assert_eq!(wheel.len(), 9);
}

#[test]
fn a_beat_saves_whoever_is_due_but_not_yet_handed_out() {
    for budget in 1..=5 {
        let mut wheel = Wheel::new(Tick(0));
        (0..200).for_each(|key| wheel.arm(key, Tick(100)));
        let mut fired = Vec::new();
        assert_eq!(wheel.advance(Tick(100), budget, &mut fired), Progress::More);
        assert_eq!(fired.len(), budget);
        wheel.arm(150, Tick(500));
        wheel.disarm(151);
        wheel.arm(63, Tick(100)); // armed again to what it was: still due
        wheel.disarm(62);
        wheel.arm(62, Tick(99));
        let mut progress = Progress::More;
        while progress == Progress::More {
            let before = fired.len();
            progress = wheel.advance(Tick(100), budget, &mut fired);
            assert!(fired.len() - before <= budget);
            wheel.check();
        }
        fired.sort_unstable();
        assert!(fired.iter().copied().eq((0..200).filter(|key| ![150, 151].contains(key))));
        assert_eq!(next_fired(&mut wheel), Some((500, vec![150])));
    }
}

#[test]
fn without_a_budget_nothing_fires_and_nothing_is_lost() {
    let mut wheel = Wheel::new(Tick(0));
    wheel.arm(1, Tick(10));
    let mut fired = Vec::new();
    assert_eq!(wheel.advance(Tick(9), 0, &mut fired), Progress::Done);
    assert_eq!(wheel.advance(Tick(10), 0, &mut fired), Progress::More);
    assert_eq!(advance(&mut wheel, 10), [1]);
}

// --- 10: who is meant ----------------------------------------------------------------------------

#[test]
fn an_expired_id_never_means_the_newcomer_in_its_slot() {
    let mut tracker = tracker(4);
    let deadline = Moment::from_millis(100);
    let old = tracker.admit("old", deadline).unwrap();
    assert_eq!(expired(&mut tracker, deadline), [old]);
    // In the same turn it leaves by itself, and another takes its slot.
    assert_eq!(tracker.dismiss(old), Some("old"));
    let new = tracker.admit("new", Moment::from_millis(200)).unwrap();
    assert_eq!(new.slot, old.slot);
    let name = ClientId::new("somebody").unwrap();
    assert_eq!(tracker.name(new, name.clone()), Ok(()));
    // Then the verdict on the old one is carried out, late.
    assert_eq!(tracker.get(old), None);
    assert_eq!(tracker.unname(old), None);
    tracker.touch(old, Moment::from_millis(9_000));
    tracker.disarm(old);
    assert_eq!(tracker.dismiss(old), None);
    assert_eq!(tracker.find("somebody"), Some(new));
    assert_eq!(tracker.deadline(new), Some(Moment::from_millis(200)));
    assert_eq!(expired(&mut tracker, Moment::from_millis(200)), [new]);
}

#[test]
fn whoever_leaves_while_due_does_not_expire() {
    let mut tracker = tracker(4);
    let deadline = Moment::from_millis(100);
    let first = tracker.admit("first", deadline).unwrap();
    let second = tracker.admit("second", deadline).unwrap();
    let mut out = Vec::new();
    assert_eq!(tracker.expire(deadline, 1, &mut out), Progress::More);
    assert_eq!(out, [first]);
    assert_eq!(tracker.dismiss(second), Some("second"));
    assert!(expired(&mut tracker, deadline).is_empty());
    let newcomer = tracker.admit("newcomer", Moment::from_millis(5_000)).unwrap();
    assert_eq!(newcomer.slot, second.slot);
    assert!(expired(&mut tracker, Moment::from_millis(4_990)).is_empty());
    assert_eq!(expired(&mut tracker, Moment::from_millis(5_000)), [newcomer]);
}

// --- 11 to 14: how much --------------------------------------------------------------------------

#[test]
fn a_mass_death_is_handed_out_in_slices() {
    const CLIENTS: u32 = 20_000;
    let mut wheel = Wheel::with_capacity(Tick(0), CLIENTS);
    (0..CLIENTS).for_each(|key| wheel.arm(key, Tick(100)));
    let mut fired = Vec::new();
    let mut calls = 1;
    while wheel.advance(Tick(100), EXPIRE_BATCH_MAX, &mut fired) == Progress::More {
        assert_eq!(fired.len(), calls * EXPIRE_BATCH_MAX);
        assert_eq!(wheel.next_wake(), Some(Tick(100)), "nobody sleeps before it is done");
        calls += 1;
    }
    assert_eq!(calls, (CLIENTS as usize).div_ceil(EXPIRE_BATCH_MAX));
    assert_eq!(fired.len(), CLIENTS as usize);
}

#[test]
fn looking_is_work_too_and_bounded() {
    let blocks = u32::try_from(WHEEL_VISITS_MAX).unwrap() * 2 + 10;
    let mut wheel = Wheel::with_capacity(Tick(0), blocks * 64);
    for key in (0..blocks).map(|block| block * 64) {
        wheel.arm(key, Tick(100));
        wheel.arm(key, Tick(5_000)); // everybody was heard meanwhile: all to be filed anew
    }
    let mut fired = Vec::new();
    for expected in [Progress::More, Progress::More, Progress::Done] {
        let before = wheel.visits();
        assert_eq!(wheel.advance(Tick(100), EXPIRE_BATCH_MAX, &mut fired), expected);
        assert!(wheel.visits() - before <= WHEEL_VISITS_MAX as u64);
    }
    assert!(fired.is_empty());
    wheel.check();
}

#[test]
fn blocks_filled_in_one_storm_do_not_come_due_together_for_ever() {
    const BLOCKS: u32 = 1_024;
    const TIMEOUT_TICKS: u64 = 9_000;
    let mut wheel = Wheel::with_capacity(Tick(0), BLOCKS * 64);
    (0..BLOCKS * 64).for_each(|key| wheel.arm(key, Tick(TIMEOUT_TICKS)));
    let mut worst_by_round = Vec::new();
    let mut fired = Vec::new();
    for round in 0..3 {
        let mut worst = 0;
        for now in round * TIMEOUT_TICKS..(round + 1) * TIMEOUT_TICKS {
            if now % 3_000 == 2_999 {
                (0..BLOCKS * 64).for_each(|key| wheel.arm(key, Tick(now + TIMEOUT_TICKS)));
            }
            let before = wheel.visits();
            assert_eq!(wheel.advance(Tick(now), EXPIRE_BATCH_MAX, &mut fired), Progress::Done);
            worst = worst.max(wheel.visits() - before);
        }
        worst_by_round.push(worst);
    }
    assert!(fired.is_empty());
    assert!(worst_by_round[2] <= u64::from(BLOCKS) / 32, "{worst_by_round:?}");
}

#[test]
fn an_empty_wheel_sleeps() {
    let mut wheel = Wheel::new(Tick(0));
    assert_eq!(wheel.next_wake(), None);
    for key in [0, 1_000, 77] {
        wheel.arm(key, Tick(50 + u64::from(key)));
        wheel.disarm(key);
        assert_eq!(wheel.next_wake(), None, "disarmed, though a block is still queued");
    }
    assert!(advance(&mut wheel, 5_000).is_empty());
    assert_eq!(wheel.next_wake(), None);
    let visits = wheel.visits();
    assert!(advance(&mut wheel, 1 << 40).is_empty());
    assert_eq!(wheel.visits(), visits, "nothing is left to look at");
}

#[test]
fn a_jump_of_days_costs_no_walk() {
    let mut wheel = Wheel::new(Tick(0));
    wheel.arm(1, Tick(240 * HOUR_TICKS));
    assert!(advance(&mut wheel, 240 * HOUR_TICKS - 1).is_empty());
    assert_eq!(advance(&mut wheel, 240 * HOUR_TICKS), [1]);
    assert!(wheel.visits() <= 10, "{} looks for one deadline", wheel.visits());
}

#[test]
fn growing_keeps_every_deadline_and_set_aside_memory_is_enough() {
    let mut growing = Wheel::new(Tick(0));
    let mut ready = Wheel::with_capacity(Tick(0), 300_000);
    let bytes_before = ready.memory_bytes();
    for key in (0..300_000).step_by(17) {
        growing.arm(key, Tick(u64::from(key) + 5));
        ready.arm(key, Tick(u64::from(key) + 5));
    }
    assert_eq!(ready.memory_bytes(), bytes_before, "grown although there was room");
    for key in 0..300_000 {
        let expected = (key % 17 == 0).then_some(Tick(u64::from(key) + 5));
        assert_eq!(growing.deadline(key), expected, "key {key}");
        assert_eq!(ready.deadline(key), expected, "key {key}");
    }
    growing.check();
    ready.check();
}

#[test]
fn a_million_timers_take_six_bytes_each_at_most() {
    const TIMERS: u32 = 1_000_000;
    let mut grown = Wheel::new(Tick(0));
    let mut ready = Wheel::with_capacity(Tick(0), TIMERS);
    for key in 0..TIMERS {
        grown.arm(key, Tick(9_000));
        ready.arm(key, Tick(9_000));
    }
    for (name, wheel, bytes_max) in [("grown", grown, 6.0), ("set aside", ready, 4.5)] {
        let bytes = wheel.memory_bytes() as f64 / f64::from(TIMERS);
        assert!(bytes <= bytes_max, "{name}: {bytes} bytes for each timer");
    }
}
