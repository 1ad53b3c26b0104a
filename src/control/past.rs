//! How things were lately: one sample for each report of the loop, for as long as a glance goes
//! back.
//!
//! A sample says what is now and what has happened since the sample before, so that whoever draws
//! them needs no other one. The side thread puts them down; the ring is copied out in small pieces.

use std::collections::VecDeque;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::base::event::{CloseReason, Event};
use crate::base::limits;
use crate::base::time::Moment;
use crate::control::door::Report;
use crate::gateway::{LATENESS_BOUNDS, Stats};

/// One moment, and the time since the sample before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Its number on this boot: the first is 1, and none is left out.
    pub n: u64,
    /// When it was, by the wall clock.
    pub at_unix_ms: u64,
    /// Since the sample before.
    pub span_ms: u64,
    /// Connections, in any state.
    pub connections: u32,
    /// Clients online.
    pub online: u32,
    /// Sessions held.
    pub held: u32,
    /// Whether newcomers are let in.
    pub accepting: bool,
    /// Whether a drain is under way.
    pub draining: bool,
    /// Frames received within the span: each one a beat.
    pub beats: u64,
    /// Bytes received within the span.
    pub bytes: u64,
    /// Connections accepted within the span.
    pub accepted: u32,
    /// Sessions begun within the span.
    pub came: u32,
    /// Sessions that went on by another connection.
    pub resumed: u32,
    /// Sessions ended within the span, by reason; as JSON without those that did not happen.
    #[serde(serialize_with = "by_word")]
    pub went: [u32; CloseReason::ALL.len()],
    /// Verdicts within the span, by how late they came: the buckets of
    /// [`LATENESS_BOUNDS`] and one more.
    #[serde(serialize_with = "unless_none")]
    pub late: [u32; LATENESS_BOUNDS.len() + 1],
    /// Clients that the last look found alive within the span.
    pub rescued: u32,
    /// For how long the loop stood still within the span.
    pub stalled_ms: u64,
}

fn by_word<S: Serializer>(went: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    let pairs = CloseReason::ALL.into_iter().zip(went).filter(|(_, count)| **count > 0);
    let map: Map<String, Value> =
        pairs.map(|(reason, count)| (reason.word().to_owned(), (*count).into())).collect();
    map.serialize(serializer)
}

fn unless_none<S: Serializer>(late: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    let some = if late.iter().all(|count| *count == 0) { &[] } else { late };
    serializer.collect_seq(some)
}

/// What the ledger told since the start.
#[derive(Clone, Debug, Default)]
struct Ledger {
    came: u64,
    resumed: u64,
    went: [u64; CloseReason::ALL.len()],
}

/// What the next sample is the difference to.
#[derive(Debug)]
struct Base {
    at: Moment,
    stats: Stats,
    ledger: Ledger,
}

/// The latest samples.
#[derive(Debug, Default)]
pub(crate) struct Past {
    kept: VecDeque<Sample>,
    ledger: Ledger,
    base: Option<Base>,
    last: u64,
}

impl Past {
    /// Counts an event for the next sample.
    pub(crate) fn on_event(&mut self, event: &Event) {
        match event {
            Event::Online { .. } => self.ledger.came += 1,
            Event::Resumed { .. } => self.ledger.resumed += 1,
            Event::Offline { reason, .. } => self.ledger.went[reason.index()] += 1,
            Event::Started { .. }
            | Event::Contested { .. }
            | Event::Rhythm { .. }
            | Event::Stalled { .. }
            | Event::Stopped => {}
        }
    }

    /// Takes a sample, unless the one before is too young: several shards report, each for all.
    /// The number of the latest sample.
    pub(crate) fn on_report(&mut self, report: &Report, at_unix_ms: u64) -> u64 {
        let at = report.heard_at;
        if let Some(base) = &self.base {
            let span = at.since(base.at);
            if span < limits::PAST_STEP_MIN {
                return self.last;
            }
            self.last += 1;
            let sample = Sample {
                n: self.last,
                at_unix_ms,
                span_ms: span.as_millis(),
                ..difference(base, &report.stats, &self.ledger)
            };
            if self.kept.len() >= limits::PAST_SAMPLES_MAX {
                self.kept.pop_front();
            }
            self.kept.push_back(sample);
        }
        let (stats, ledger) = (report.stats.clone(), self.ledger.clone());
        self.base = Some(Base { at, stats, ledger });
        self.last
    }

    /// At most `limit` samples that follow number `n`, as far as they are kept.
    pub(crate) fn after(&self, n: u64, limit: usize) -> Vec<Sample> {
        let start = self.kept.partition_point(|sample| sample.n <= n);
        self.kept.iter().skip(start).take(limit).cloned().collect()
    }
}

fn difference(base: &Base, stats: &Stats, ledger: &Ledger) -> Sample {
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let since = |now: u64, then: u64| now.saturating_sub(then);
    let (then, before) = (&base.stats, &base.ledger);
    let went = std::array::from_fn(|at| small(since(ledger.went[at], before.went[at])));
    let late = std::array::from_fn(|at| {
        small(since(stats.lateness.buckets[at], then.lateness.buckets[at]))
    });
    Sample {
        n: 0,
        at_unix_ms: 0,
        span_ms: 0,
        connections: small(stats.connections as u64),
        online: small(stats.online as u64),
        held: small(stats.held as u64),
        accepting: stats.accepting,
        draining: stats.draining,
        beats: since(stats.frames_received, then.frames_received),
        bytes: since(stats.bytes_received, then.bytes_received),
        accepted: small(since(stats.accepted, then.accepted)),
        came: small(since(ledger.came, before.came)),
        resumed: small(since(ledger.resumed, before.resumed)),
        went,
        late,
        rescued: small(since(stats.rescued, then.rescued)),
        stalled_ms: since(stats.stalled.as_millis(), then.stalled.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ClientId, ConnId};
    use crate::base::time::Span;
    use crate::os::driver::DriverStats;
    use crate::server::turns::LoopStats;

    fn report(at_ms: u64, frames_received: u64) -> Report {
        let stats = Stats { frames_received, online: 7, accepting: true, ..Stats::default() };
        Report {
            heard_at: Moment::from_millis(at_ms),
            stats,
            turns: LoopStats::default(),
            driver: DriverStats::default(),
            shards: 1,
        }
    }

    fn offline(reason: CloseReason) -> Event {
        Event::Offline {
            client: ClientId::new("a").expect("short"),
            epoch: 1,
            conn: ConnId { slot: 0, generation: 0 },
            remote: "127.0.0.1:1".parse().expect("an address"),
            reason,
            last_beat: Moment::ZERO,
            evidence: crate::base::event::Evidence::default(),
        }
    }

    #[test]
    fn a_sample_says_what_happened_since_the_one_before() {
        let mut past = Past::default();
        assert_eq!(past.on_report(&report(1_000, 500), 1), 0, "nothing to compare with");
        past.on_event(&offline(CloseReason::Reset));
        past.on_event(&offline(CloseReason::Reset));
        let mut second = report(2_000, 530);
        second.stats.lateness.buckets[3] = 2;
        second.stats.stalled = Span::from_millis(40);
        assert_eq!(past.on_report(&second, 77), 1);
        assert_eq!(past.on_report(&report(2_100, 999), 78), 1, "another shard's, at once");
        let samples = past.after(0, 9);
        assert_eq!(samples.len(), 1);
        let json = serde_json::to_value(&samples[0]).expect("texts and numbers");
        assert_eq!(json["at_unix_ms"], 77);
        assert_eq!((&json["beats"], &json["span_ms"]), (&30.into(), &1_000.into()));
        assert_eq!(json["went"], serde_json::json!({ "reset": 2 }));
        assert_eq!(json["late"][3], 2);
        assert_eq!(json["stalled_ms"], 40);
        past.on_report(&second, 79);
        past.on_report(&report(3_000, 530), 80);
        let quiet = serde_json::to_value(&past.after(1, 9)[0]).expect("texts and numbers");
        assert_eq!(
            (&quiet["went"], &quiet["late"]),
            (&Value::Object(Map::new()), &Value::Array(vec![]))
        );
    }

    #[test]
    fn the_past_is_bounded_and_its_numbers_have_no_gap() {
        let mut past = Past::default();
        let most = limits::PAST_SAMPLES_MAX as u64;
        for n in 0..=most + 5 {
            past.on_report(&report(n * 1_000, n), n);
        }
        let numbers: Vec<u64> = past.after(0, usize::MAX).iter().map(|sample| sample.n).collect();
        assert!(numbers.iter().copied().eq(6..=most + 5), "{numbers:?}");
        assert_eq!(past.after(most, 2).len(), 2);
        assert!(past.after(most + 5, 2).is_empty());
    }
}
