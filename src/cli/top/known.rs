//! What `top` knows of a gateway: what it heard, and what follows from that. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::base::time::Moment;

/// Samples kept: as many as a gateway keeps.
const SAMPLES_MAX: usize = 900;
/// Events kept.
const EVENTS_MAX: usize = 500;
/// Samples whose mean is a rate: long enough that a second's whim does not show.
const RATE_SAMPLES: usize = 5;
/// Samples of a minute.
const MINUTE_SAMPLES: usize = 60;

/// Who speaks, and how things were.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct History {
    /// Name of the node.
    pub node: String,
    /// Number of its boot.
    pub boot: u64,
    /// What it is.
    pub version: String,
    /// Its driver's word.
    pub driver: String,
    /// Its loops.
    pub shards: usize,
    /// When it was started.
    pub started_unix_ms: u64,
    /// Its time.
    pub now_unix_ms: u64,
    /// Upper bounds of the buckets of lateness.
    pub late_bounds_ms: Vec<u64>,
    /// How things were, the oldest first.
    #[serde(default)]
    pub samples: VecDeque<Sample>,
}

/// How things were, and what happened since the sample before.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sample {
    /// When.
    pub at_unix_ms: u64,
    /// Since the sample before.
    pub span_ms: u64,
    /// Connections.
    pub connections: u64,
    /// Clients online.
    pub online: u64,
    /// Sessions held.
    pub held: u64,
    /// Whether newcomers are let in.
    pub accepting: bool,
    /// Whether a drain is under way.
    pub draining: bool,
    /// Beats within the span.
    pub beats: u64,
    /// Bytes received within the span.
    pub bytes: u64,
    /// Sessions begun within the span.
    pub came: u64,
    /// Sessions ended, by reason.
    pub went: BTreeMap<String, u64>,
    /// Verdicts by how late; empty where there were none.
    pub late: Vec<u64>,
}

/// What clients are sorted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sort {
    /// Beats a second, the busiest first.
    #[default]
    Beats,
    /// What waits to be sent to them.
    Outbox,
    /// How long they have been silent.
    Silence,
    /// The newest first.
    Age,
}

impl Sort {
    /// The one after this.
    pub const fn next(self) -> Self {
        match self {
            Self::Beats => Self::Outbox,
            Self::Outbox => Self::Silence,
            Self::Silence => Self::Age,
            Self::Age => Self::Beats,
        }
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Beats => "beats/s",
            Self::Outbox => "outbox",
            Self::Silence => "silence",
            Self::Age => "newest",
        }
    }
}

/// A client as the API told it, and how busy it is.
#[derive(Clone, Debug)]
pub struct Row {
    /// As told.
    pub client: Value,
    /// Beats a second since the look before; `None` where the API does not count them, or there was
    /// no look before.
    pub beats_per_s: Option<f64>,
}

/// How the conversation with the gateway is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Link {
    /// It has not been heard of yet.
    #[default]
    New,
    /// It is heard.
    Live,
    /// It is not, for this reason.
    Lost(String),
}

/// Something heard.
#[derive(Clone, Debug)]
pub enum News {
    /// Who speaks, and how things were.
    History(History),
    /// How things are.
    Sample(Sample),
    /// Something happened.
    Event(Value),
    /// Who is online, of the first so many.
    Clients {
        /// As told.
        clients: Vec<Value>,
        /// Whether there are more.
        more: bool,
        /// When they were asked for.
        at: Moment,
    },
    /// Nothing is heard, for this reason.
    Lost(String),
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Who speaks, and how things were and are.
    pub history: History,
    /// The latest first.
    pub events: VecDeque<Value>,
    /// As told last.
    pub rows: Vec<Row>,
    /// Whether there are more clients than were told.
    pub more: bool,
    /// How the conversation is.
    pub link: Link,
    looked_at: Option<Moment>,
}

impl Known {
    /// Takes note.
    pub fn hear(&mut self, news: News) {
        match news {
            News::History(history) => {
                self.history = history;
                self.link = Link::Live;
            }
            News::Sample(sample) => {
                self.link = Link::Live;
                let samples = &mut self.history.samples;
                // The first one of a feed is the last one of the history.
                if samples.back().is_some_and(|last| last.at_unix_ms >= sample.at_unix_ms) {
                    return;
                }
                samples.push_back(sample);
                if samples.len() > SAMPLES_MAX {
                    samples.pop_front();
                }
            }
            News::Event(event) => {
                let number =
                    |event: &Value| Some((event["boot"].as_u64()?, event["seq"].as_u64()?));
                let last = self.events.front().and_then(number);
                // A feed that was begun again may tell some twice.
                if let (Some((boot, seq)), Some((own, new))) = (last, number(&event))
                    && boot == own
                    && new <= seq
                {
                    return;
                }
                self.events.push_front(event);
                self.events.truncate(EVENTS_MAX);
            }
            News::Clients { clients, more, at } => self.look(clients, more, at),
            News::Lost(why) => self.link = Link::Lost(why),
        }
    }

    fn look(&mut self, clients: Vec<Value>, more: bool, at: Moment) {
        let session = |client: &Value| {
            Some((client["client"].as_str()?.to_owned(), client["epoch"].as_u64()?))
        };
        let before: HashMap<_, _> = self
            .rows
            .iter()
            .filter_map(|row| Some((session(&row.client)?, row.client["beats"].as_u64()?)))
            .collect();
        let span = self.looked_at.map(|then| at.since(then).as_secs_f64());
        let rate = |client: &Value| {
            let beats = client["beats"].as_u64()?;
            let former = before.get(&session(client)?)?;
            let span = span.filter(|span| *span > 0.0)?;
            Some(beats.saturating_sub(*former) as f64 / span)
        };
        let row = |client: Value| Row { beats_per_s: rate(&client), client };
        self.rows = clients.into_iter().map(row).collect();
        self.more = more;
        self.looked_at = Some(at);
    }

    /// How things are.
    pub fn now(&self) -> Option<&Sample> {
        self.history.samples.back()
    }

    /// Beats a second, lately.
    pub fn beats_per_s(&self) -> Option<f64> {
        let samples = || self.history.samples.iter().rev().take(RATE_SAMPLES);
        let span_ms: u64 = samples().map(|sample| sample.span_ms).sum();
        let beats: u64 = samples().map(|sample| sample.beats).sum();
        (span_ms > 0).then(|| beats as f64 * 1_000.0 / span_ms as f64)
    }

    fn minute(&self) -> impl Iterator<Item = &Sample> {
        self.history.samples.iter().rev().take(MINUTE_SAMPLES)
    }

    /// Sessions begun in the last minute.
    pub fn came(&self) -> u64 {
        self.minute().map(|sample| sample.came).sum()
    }

    /// Sessions ended, by reason: in the last minute, and as far back as is known; those first that
    /// happened most.
    pub fn went(&self) -> Vec<(String, u64, u64)> {
        let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (age, sample) in self.history.samples.iter().rev().enumerate() {
            for (reason, count) in &sample.went {
                let sum = sums.entry(reason).or_default();
                sum.0 += if age < MINUTE_SAMPLES { *count } else { 0 };
                sum.1 += count;
            }
        }
        let mut all: Vec<_> = sums
            .into_iter()
            .map(|(reason, (minute, all))| (reason.to_owned(), minute, all))
            .collect();
        all.sort_by_key(|(_, minute, all)| std::cmp::Reverse((*all, *minute)));
        all
    }

    /// The bound in milliseconds that this share of the known verdicts kept; `None` without any.
    /// The last bucket has no bound: infinity.
    pub fn late_ms(&self, share: f64) -> Option<f64> {
        let mut sums = vec![0; self.history.late_bounds_ms.len() + 1];
        for sample in &self.history.samples {
            sums.iter_mut().zip(&sample.late).for_each(|(sum, count)| *sum += count);
        }
        let all: u64 = sums.iter().sum();
        let mut left = all as f64 * share;
        for (at, count) in sums.iter().enumerate().filter(|_| all > 0) {
            left -= *count as f64;
            if left <= 0.0 {
                let bound = self.history.late_bounds_ms.get(at);
                return Some(bound.map_or(f64::INFINITY, |bound| *bound as f64));
            }
        }
        None
    }

    /// Whether the API counts the beats of a client.
    pub fn counts_beats(&self) -> bool {
        self.rows.iter().any(|row| row.client["beats"].is_u64())
    }

    /// Clients whose id contains `filter`, sorted.
    pub fn sorted(&self, sort: Sort, filter: &str) -> Vec<&Row> {
        let mut rows: Vec<&Row> =
            self.rows.iter().filter(|row| contains(&row.client, filter)).collect();
        let number = |row: &Row, key: &str| row.client[key].as_u64().unwrap_or_default();
        // Those that are equal stay in the order of their names, and do not jump about.
        rows.sort_by_cached_key(|row| row.client["client"].as_str().map(str::to_owned));
        match sort {
            Sort::Beats => rows.sort_by(|a, b| {
                let rate = |row: &Row| row.beats_per_s.unwrap_or_default();
                rate(b).total_cmp(&rate(a))
            }),
            Sort::Outbox => rows.sort_by_key(|row| std::cmp::Reverse(number(row, "outbox_bytes"))),
            Sort::Silence => rows.sort_by_key(|row| std::cmp::Reverse(number(row, "silence_ms"))),
            Sort::Age => rows.sort_by_key(|row| std::cmp::Reverse(number(row, "since_unix_ms"))),
        }
        rows
    }

    /// Events of clients whose id contains `filter`, the latest first.
    pub fn events_of(&self, filter: &str) -> impl Iterator<Item = &Value> {
        let filter = filter.to_owned();
        self.events.iter().filter(move |event| contains(event, &filter))
    }

    /// Everything as JSON, for programs.
    pub fn json(&self, sort: Sort, filter: &str) -> Value {
        let History { node, boot, version, driver, shards, .. } = &self.history;
        let now = self.now().cloned().unwrap_or_default();
        let went: Map<String, Value> = self
            .went()
            .into_iter()
            .map(|(reason, minute, all)| (reason, json!({ "last_minute": minute, "known": all })))
            .collect();
        let clients: Vec<Value> = self
            .sorted(sort, filter)
            .into_iter()
            .map(|row| {
                let mut client = row.client.clone();
                client["beats_per_s"] = row.beats_per_s.into();
                client
            })
            .collect();
        json!({
            "node": node, "boot": boot, "version": version, "driver": driver, "shards": shards,
            "connections": now.connections, "online": now.online, "held": now.held,
            "accepting": now.accepting, "draining": now.draining,
            "beats_per_s": self.beats_per_s(), "came_last_minute": self.came(), "went": went,
            "late_p50_ms": self.late_ms(0.5), "late_p99_ms": self.late_ms(0.99),
            "events": self.events_of(filter).collect::<Vec<_>>(),
            "clients": clients, "more_clients": self.more,
        })
    }
}

fn contains(told: &Value, filter: &str) -> bool {
    filter.is_empty() || told["client"].as_str().is_some_and(|client| client.contains(filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, beats: u64, went: &[(&str, u64)]) -> Sample {
        let went = went.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Sample { at_unix_ms: second * 1_000, span_ms: 1_000, beats, went, ..Sample::default() }
    }

    #[test]
    fn rates_are_means_of_the_last_seconds_and_a_minute_is_a_minute() {
        let mut known = Known::default();
        assert_eq!(known.beats_per_s(), None);
        for second in 0..100 {
            known.hear(News::Sample(sample(second, second, &[("bye", 1)])));
        }
        known.hear(News::Sample(sample(99, 7_000, &[("reset", 500)])));
        assert_eq!(known.beats_per_s(), Some(97.0), "what was heard already counts once");
        assert_eq!(known.went(), [("bye".to_owned(), 60, 100)]);
        for second in 100..2_000 {
            known.hear(News::Sample(sample(second, 0, &[])));
        }
        assert_eq!(known.history.samples.len(), SAMPLES_MAX);
    }

    #[test]
    fn lateness_is_told_by_the_bound_that_was_kept() {
        let mut known = Known::default();
        known.history.late_bounds_ms = vec![1, 10];
        assert_eq!(known.late_ms(0.5), None);
        known.hear(News::Sample(Sample { late: vec![98, 1, 1], ..sample(1, 0, &[]) }));
        assert_eq!(known.late_ms(0.5), Some(1.0));
        assert_eq!(known.late_ms(0.99), Some(10.0));
        assert_eq!(known.late_ms(1.0), Some(f64::INFINITY));
    }

    #[test]
    fn the_busiest_come_first_and_a_new_session_counts_anew() {
        let client = |name: &str, epoch: u64, beats: u64| {
            let silence_ms = epoch;
            json!({ "client": name, "epoch": epoch, "beats": beats, "silence_ms": silence_ms })
        };
        let mut known = Known::default();
        let look = |known: &mut Known, clients, second| {
            let at = Moment::from_millis(second * 1_000_u64);
            known.hear(News::Clients { clients, more: false, at });
        };
        look(&mut known, vec![client("a", 1, 10), client("b", 2, 0), client("c", 3, 90)], 1);
        look(&mut known, vec![client("a", 1, 12), client("b", 2, 8), client("c", 4, 99)], 3);
        let names = |sort, filter| {
            let rows = known.sorted(sort, filter);
            rows.iter().map(|row| row.client["client"].to_string()).collect::<String>()
        };
        assert_eq!(names(Sort::Beats, ""), r#""b""a""c""#);
        assert_eq!(names(Sort::Silence, ""), r#""c""b""a""#);
        assert_eq!(names(Sort::Beats, "a"), r#""a""#);
        assert_eq!(known.sorted(Sort::Beats, "b")[0].beats_per_s, Some(4.0));
        assert_eq!(known.sorted(Sort::Beats, "c")[0].beats_per_s, None);
    }

    #[test]
    fn only_the_latest_events_are_kept() {
        let mut known = Known::default();
        for seq in 0..2_000 {
            known.hear(News::Event(
                json!({ "boot": 7, "seq": seq, "client": format!("c{}", seq % 2) }),
            ));
        }
        known.hear(News::Event(json!({ "boot": 7, "seq": 1_500, "client": "c0" })));
        assert_eq!(known.events.len(), EVENTS_MAX);
        assert_eq!(known.events_of("c0").next().expect("some")["seq"], 1_998);
    }
}
