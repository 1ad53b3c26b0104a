//! How things were: the history of samples, and the feed of them.

use std::time::Duration;

use serde_json::Value;

use crate::gate::Caller;
use crate::http::{Follower, Said, get, start};

fn number(sample: &Value, key: &str) -> u64 {
    sample[key].as_u64().unwrap_or_else(|| panic!("{key} in {sample}"))
}

/// Samples until all of what was to happen is in them.
fn samples_until(feed: &mut Follower, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut samples = Vec::new();
    while !holds(&samples) {
        assert!(samples.len() < 60, "not within a minute: {samples:?}");
        samples.extend(feed.events(1));
    }
    samples
}

fn sum(samples: &[Value], of: impl Fn(&Value) -> u64) -> u64 {
    samples.iter().map(of).sum()
}

#[test]
fn samples_come_once_a_second_and_what_happens_is_in_exactly_one_of_them() {
    let (gate, admin) = start(&["--shards", "2"]);
    let mut feed = Follower::start(admin, "/v1/stats/stream", "");
    feed.events(1);
    let callers: Vec<_> = (0..20).map(|n| Caller::login(gate.address, &format!("c-{n}"))).collect();
    let came = |samples: &[Value]| sum(samples, |one| number(one, "came"));
    let first = samples_until(&mut feed, |samples| came(samples) >= 20);
    drop(callers);
    let went = |one: &Value| one["went"]["closed_by_peer"].as_u64().unwrap_or_default();
    let then = samples_until(&mut feed, |samples| sum(samples, went) >= 20);
    let all = [first, then].concat();
    assert_eq!((came(&all), sum(&all, went)), (20, 20));
    assert!(sum(&all, |one| number(one, "beats")) >= 20, "a HELLO is a beat");
    let numbers: Vec<u64> = all.iter().map(|one| number(one, "n")).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert!(
        all.iter().all(|one| number(one, "span_ms") >= 900),
        "two shards, and one row: {all:?}"
    );
    assert!(feed.last_id.ends_with(&format!(":{}", numbers.last().expect("some"))));

    let history = get(admin, "/v1/stats/history").json();
    assert_eq!(history["shards"], 2);
    assert!(number(&history, "started_unix_ms") < number(&history, "now_unix_ms"));
    let bounds = history["late_bounds_ms"].as_array().expect("a list");
    assert_eq!(bounds.first().zip(bounds.last()), Some((&1.into(), &60_000.into())));
    let kept = history["samples"].as_array().expect("a list");
    assert!(all.iter().all(|one| kept.contains(one)), "what was told is what is kept");
}

#[test]
fn the_feed_of_samples_ends_with_the_gateway_or_when_told() {
    let (mut gate, admin) = start(&[]);
    let mut feed = Follower::start(admin, "/v1/stats/stream", "");
    feed.events(2);
    let mut short = Follower::start(admin, "/v1/stats/stream?follow=false", "");
    assert!(matches!(short.next(), Said::Event(_)));
    assert_eq!(short.next_within(Duration::from_secs(5)), Said::End);
    gate.signal("TERM");
    gate.wait();
    let end = std::iter::repeat_with(|| feed.next()).find(|said| !matches!(said, Said::Event(_)));
    assert_eq!(end, Some(Said::End));
}
