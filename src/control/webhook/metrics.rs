//! The webhooks, for Prometheus.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use crate::control::webhook::Webhooks;
use crate::control::webhook::health::{Health, State};

/// The webhooks, when they are looked at.
pub(crate) struct Scrape(pub(crate) Webhooks);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scrape").field(&self.0.rows().len()).finish()
    }
}

/// One metric. A counter's name has no `_total` here: the encoder appends it.
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    read: fn(&Health, &Webhooks) -> f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&Health, &Webhooks) -> f64,
) -> Metric {
    Metric { name, help, kind: Kind::Counter, read }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&Health, &Webhooks) -> f64,
) -> Metric {
    Metric { name, help, kind: Kind::Gauge, read }
}

/// Counts beyond 2^53 are not exact, and never come.
#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point as well")]
const fn float(count: u64) -> f64 {
    count as f64
}

static METRICS: [Metric; 10] = [
    counter("heartwheel_webhook_batches", "Batches that a target took", |h, _| {
        float(h.batches.load(Relaxed))
    }),
    counter("heartwheel_webhook_events", "Entries of them", |h, _| float(h.events.load(Relaxed))),
    counter("heartwheel_webhook_failures", "Attempts that failed", |h, _| {
        float(h.attempts_failed.load(Relaxed))
    }),
    counter("heartwheel_webhook_retries", "Attempts after the first of a batch", |h, _| {
        float(h.retries.load(Relaxed))
    }),
    counter(
        "heartwheel_webhook_resets",
        "Times that a target was told to take a snapshot",
        |h, _| float(h.resets.load(Relaxed)),
    ),
    counter("heartwheel_webhook_missed", "Entries known to be lost for a target", |h, _| {
        float(h.missed.load(Relaxed))
    }),
    counter("heartwheel_webhook_positions_unsaved", "Positions that were not kept", |h, _| {
        float(h.positions_unsaved.load(Relaxed))
    }),
    gauge("heartwheel_webhook_lag", "Entries of this boot that wait for a target", |h, all| {
        float(h.lag(all.sources()))
    }),
    gauge("heartwheel_webhook_up", "1 while a target takes what it is sent", |h, _| {
        float(u64::from(h.state() == State::Ok))
    }),
    gauge(
        "heartwheel_webhook_last_success_timestamp_seconds",
        "When a target took a batch last; 0: not yet",
        |h, _| float(h.last_success_unix_ms().unwrap_or(0)) / 1_000.0,
    ),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let rows: Vec<Arc<Health>> = self.0.rows();
        if rows.is_empty() {
            return Ok(());
        }
        for metric in &METRICS {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for row in &rows {
                let labels = [("target", row.target.as_str()), ("stream", row.stream.word())];
                let value = (metric.read)(row, &self.0);
                let mut one = family.encode_family(&labels)?;
                match metric.kind {
                    Kind::Counter => {
                        one.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)?;
                    }
                    Kind::Gauge => one.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }
}
