//! How things are, for Prometheus. The numbers are those of the loop's latest report: a scrape asks
//! nobody, and the loop knows nothing of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use crate::base::admission::Limit;
use crate::base::event::CloseReason;
use crate::base::identity::Verdict;
use crate::base::introduction::LayerStats;
use crate::base::limits;
use crate::base::time::Span;
use crate::control::api::Api;
use crate::control::identity::counts::HookCounts;
use crate::control::webhook;
use crate::gateway::{ClassCounts, LATENESS_BOUNDS, Leaving, MailStats, Stats, Tally};
use crate::os::driver::DriverStats;
use crate::os::process;
use crate::server::turns::{BUSY_BOUNDS, LoopStats};

/// What the exposition is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole exposition.
pub(crate) fn exposition(api: &Api) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::of(api)));
    if let Some(webhooks) = &api.webhooks {
        registry.register_collector(Box::new(webhook::metrics::Scrape(webhooks.clone())));
    }
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// All that a scrape looks at.
#[derive(Debug)]
struct Scrape {
    node: String,
    stats: Stats,
    turns: LoopStats,
    driver: DriverStats,
    /// By class id.
    classes: Vec<String>,
    shards: usize,
    /// `None`: the loop has said nothing yet.
    report_age_s: Option<f64>,
    journal: Option<JournalScrape>,
    followers: usize,
    hook: Arc<HookCounts>,
    /// Displaced, refused for want of any place, and of one for their address.
    seats: [u64; 3],
    /// Reloads that went well, and those that did not.
    reloads: [u64; 2],
    reloaded_at_s: f64,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    open_files: Option<u64>,
    open_files_max: Option<u64>,
    cpu_s: f64,
    /// Since 1970.
    began_s: f64,
    uptime_s: f64,
}

#[derive(Debug)]
struct JournalScrape {
    waiting: usize,
    dropped: u64,
    gaps: u64,
    is_writable: bool,
    lag: Span,
}

impl Scrape {
    fn of(api: &Api) -> Self {
        let report = api.door.report();
        let now = api.door.clock().now();
        let journal = api.journal.as_ref().map(|journal| JournalScrape {
            waiting: journal.health.waiting(),
            dropped: journal.health.dropped(),
            gaps: journal.health.gaps(),
            is_writable: journal.health.is_writable(),
            lag: journal.health.oldest_unsynced().map_or(Span::ZERO, |oldest| now.since(oldest)),
        });
        let report_age_s = report.as_ref().map(|report| now.since(report.heard_at).as_secs_f64());
        let (stats, turns, driver, shards) = report
            .map(|report| (report.stats, report.turns, report.driver, report.shards))
            .unwrap_or_default();
        let began_ms = api.door.clock().wall().unix_millis(api.began);
        let no_class = std::iter::once("");
        Self {
            node: api.identity.node.clone(),
            stats,
            turns,
            driver,
            classes: no_class.chain(api.gateway.get().class_places()).map(str::to_owned).collect(),
            shards,
            report_age_s,
            journal,
            followers: limits::FEED_FOLLOWERS_MAX - api.followers.available_permits(),
            seats: [&api.seats.displaced, &api.seats.full, &api.seats.share]
                .map(|count| count.load(Ordering::Relaxed)),
            hook: Arc::clone(&api.hook),
            reloads: [api.reloads.succeeded(), api.reloads.failed()],
            reloaded_at_s: api.reloads.succeeded_last_unix_ms() as f64 / 1_000.0,
            resident_bytes: process::own_rss_bytes(),
            virtual_bytes: process::own_virtual_bytes(),
            open_files: process::own_open_files(),
            open_files_max: process::own_open_files_max(),
            began_s: Span::from_millis(began_ms).as_secs_f64(),
            uptime_s: now.since(api.began).as_secs_f64(),
            cpu_s: process::own_cpu().as_secs_f64(),
        }
    }
}

/// One metric. A counter's name has no `_total` here: the encoder appends it.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    read: fn(&Scrape) -> Option<Reading>,
}

/// What a metric is at the moment.
enum Reading {
    Counter(u64),
    /// A counter of something that can be divided.
    Amount(f64),
    Gauge(u64),
    /// A gauge of something that can be divided.
    Level(f64),
    /// A gauge that is always 1, for its labels.
    Info(Vec<(&'static str, String)>),
    /// Counters told apart by a label.
    Counters(&'static str, Vec<(&'static str, u64)>),
    /// Gauges told apart by a label.
    Gauges(&'static str, Vec<(&'static str, u64)>),
    /// Gauges told apart by several labels.
    Table(Vec<(Vec<(&'static str, String)>, u64)>),
    /// Seconds all together, how many, and how many in each bucket up to its bound.
    Histogram(f64, u64, Vec<(f64, u64)>),
}

impl Reading {
    const fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) | Self::Amount(_) | Self::Counters(..) => MetricType::Counter,
            Self::Gauge(_) | Self::Level(_) | Self::Info(_) | Self::Gauges(..) | Self::Table(_) => {
                MetricType::Gauge
            }
            Self::Histogram(..) => MetricType::Histogram,
        }
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        const NOTHING: Option<&Exemplar<NoLabelSet, f64>> = None;
        match self {
            Self::Counter(value) => encoder.encode_counter(value, NOTHING),
            Self::Amount(value) => encoder.encode_counter(value, NOTHING),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Level(value) => encoder.encode_gauge(value),
            Self::Info(labels) => encoder.encode_family(labels)?.encode_gauge(&1_u64),
            Self::Counters(label, values) => values.iter().try_for_each(|(name, value)| {
                encoder.encode_family(&[(*label, *name)])?.encode_counter(value, NOTHING)
            }),
            Self::Gauges(label, values) => values.iter().try_for_each(|(name, value)| {
                encoder.encode_family(&[(*label, *name)])?.encode_gauge(value)
            }),
            Self::Table(values) => values
                .iter()
                .try_for_each(|(labels, value)| encoder.encode_family(labels)?.encode_gauge(value)),
            Self::Histogram(sum, count, buckets) => {
                encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
        }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| {
            let Some(reading) = (metric.read)(self) else { return Ok(()) };
            let kind = reading.kind();
            reading.encode(encoder.encode_descriptor(metric.name, metric.help, None, kind)?)
        })
    }
}

const fn metric(
    name: &'static str,
    help: &'static str,
    read: fn(&Scrape) -> Option<Reading>,
) -> Metric {
    Metric { name, help, read }
}

#[expect(clippy::unnecessary_wraps, reason = "some metrics are not there at times")]
fn count(value: u64) -> Option<Reading> {
    Some(Reading::Counter(value))
}

#[expect(clippy::unnecessary_wraps, reason = "some metrics are not there at times")]
fn gauge(value: usize) -> Option<Reading> {
    Some(Reading::Gauge(value as u64))
}

fn lateness(scrape: &Scrape) -> Option<Reading> {
    let lateness = &scrape.stats.lateness;
    let bounds = LATENESS_BOUNDS.iter().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
    let buckets = bounds.zip(lateness.buckets).collect();
    Some(Reading::Histogram(lateness.sum.as_secs_f64(), lateness.count, buckets))
}

fn connections(scrape: &Scrape) -> Option<Reading> {
    let Stats { connections, online, held, .. } = scrape.stats;
    // Those that are neither have not said their name yet, or are on their way out.
    let nameless = connections.saturating_sub(online + held);
    let states = [("online", online), ("held", held), ("nameless", nameless)];
    let states = states.map(|(state, count)| (state, count as u64));
    Some(Reading::Gauges("state", states.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "some metrics are not there at times")]
fn by_reason(count: impl Fn(CloseReason) -> u64) -> Option<Reading> {
    let counts = CloseReason::ALL.into_iter().map(|reason| (reason.word(), count(reason)));
    Some(Reading::Counters("reason", counts.collect()))
}

fn sessions(scrape: &Scrape) -> Option<Reading> {
    let classes = scrape.classes.iter().zip(&scrape.stats.tally.classes);
    let of_class = |(class, counts): (&String, &ClassCounts)| {
        [("live", counts.live), ("held", counts.held)].map(|(state, count)| {
            let labels = vec![("class", class.clone()), ("state", state.to_owned())];
            (labels, count as u64)
        })
    };
    Some(Reading::Table(classes.flat_map(of_class).collect()))
}

fn beats(scrape: &Scrape) -> Option<Reading> {
    let frames_received = scrape.stats.frames_received;
    let Tally { beats_answered, beats_unanswered, .. } = scrape.stats.tally;
    let others = frames_received.saturating_sub(beats_answered + beats_unanswered);
    let kinds = [("answered", beats_answered), ("no_reply", beats_unanswered), ("other", others)];
    Some(Reading::Counters("kind", kinds.into()))
}

fn lost(scrape: &Scrape) -> Option<Reading> {
    let MailStats { expired, dropped_oldest, dropped_newest, orphaned, .. } = scrape.stats.mail;
    let why = [
        ("expired", expired),
        ("dropped_oldest", dropped_oldest),
        ("dropped_newest", dropped_newest),
        ("orphaned", orphaned),
    ];
    Some(Reading::Counters("why", why.into()))
}

fn busy(scrape: &Scrape) -> Option<Reading> {
    let turns = &scrape.turns;
    let bounds = BUSY_BOUNDS.iter().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
    let buckets = bounds.zip(turns.busy).collect();
    Some(Reading::Histogram(turns.busy_sum.as_secs_f64(), turns.turns(), buckets))
}

/// Every metric, in the order of the exposition.
pub(crate) static METRICS: &[Metric] = &[
    metric("heartwheel_node_info", "The node and its version; always 1", |s| {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Some(Reading::Info(vec![("node", s.node.clone()), ("version", version)]))
    }),
    metric("heartwheel_build_info", "How it was built; always 1", |_| {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Some(Reading::Info(vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("profile", profile.to_owned()),
            ("arch", std::env::consts::ARCH.to_owned()),
        ]))
    }),
    metric("heartwheel_uptime_seconds", "Since the start", |s| Some(Reading::Level(s.uptime_s))),
    metric("heartwheel_driver_info", "By what the kernel is asked; always 1", |s| {
        let driver = s.report_age_s.map(|_| s.driver.kind.word().to_owned());
        driver.map(|driver| Reading::Info(vec![("driver", driver)]))
    }),
    metric("heartwheel_shards", "Loops", |s| gauge(s.shards)),
    metric("heartwheel_report_age_seconds", "Since the loop said how things are", |s| {
        s.report_age_s.map(Reading::Level)
    }),
    metric("heartwheel_accepting", "1 while newcomers are let in", |s| {
        gauge(usize::from(s.stats.accepting))
    }),
    metric("heartwheel_draining", "1 while a drain is under way", |s| {
        gauge(usize::from(s.stats.draining))
    }),
    metric("heartwheel_rebalancing", "1 while a rebalance is under way", |s| {
        gauge(usize::from(s.stats.leaving.rebalancing))
    }),
    metric("heartwheel_leavers", "Connections asked to leave, by what came of it", |s| {
        let Leaving { told, left, closed, .. } = s.stats.leaving;
        let stages = [("told", told), ("left", left), ("closed", closed)];
        Some(Reading::Counters("stage", stages.into()))
    }),
    metric("heartwheel_connections", "Connections and held sessions, by state", connections),
    metric("heartwheel_connections_accepted", "Connections accepted", |s| count(s.stats.accepted)),
    metric(
        "heartwheel_accept_faults",
        "Accepts that failed for want of descriptors or memory",
        |s| count(s.stats.accept_faults),
    ),
    metric("heartwheel_connections_ended", "Connections ended, by reason", |s| {
        by_reason(|reason| s.stats.ended(reason))
    }),
    metric(
        "heartwheel_connections_refused",
        "Those of them on which there never was a session, by reason",
        |s| by_reason(|reason| s.stats.tally.refused[reason.index()]),
    ),
    metric("heartwheel_limited", "What was beyond a limit and was refused, by limit", |s| {
        let count = |limit: Limit| (limit.word(), s.stats.tally.limited[limit.index()]);
        Some(Reading::Counters("limit", Limit::ALL.map(count).into()))
    }),
    metric(
        "heartwheel_connections_refused_unread",
        "New connections that were closed at once and without a word",
        |s| count(s.stats.tally.refused_unread),
    ),
    metric("heartwheel_origins", "Addresses and networks that limits know of", |s| {
        gauge(s.stats.tally.origins)
    }),
    metric("heartwheel_checks", "Tokens that were looked at off the loop, by outcome", |s| {
        let outcomes = Verdict::ALL.map(|it| (it.word(), s.stats.tally.checks[it.index()]));
        Some(Reading::Counters("outcome", outcomes.into()))
    }),
    metric("heartwheel_checks_under_way", "Tokens that are being looked at off the loop", |s| {
        gauge(s.stats.tally.checks_under_way)
    }),
    metric("heartwheel_hook_requests", "Requests to the identity hook, by outcome", |s| {
        let HookCounts { proven, refuted, failed, timed_out, .. } = &*s.hook;
        let outcomes =
            [("proven", proven), ("refuted", refuted), ("failed", failed), ("timeout", timed_out)];
        Some(Reading::Counters("outcome", outcomes.map(|(word, it)| (word, it.get())).into()))
    }),
    metric("heartwheel_hook_spared", "Tokens for which no request was needed, by why", |s| {
        let why = [("cached", s.hook.cached.get()), ("shared", s.hook.shared.get())];
        Some(Reading::Counters("why", why.into()))
    }),
    metric(
        "heartwheel_hook_put_off",
        "Tokens for which no request was made in time, by why",
        |s| {
            let why = [("full", s.hook.full.get()), ("waited", s.hook.waited.get())];
            Some(Reading::Counters("why", why.into()))
        },
    ),
    metric("heartwheel_hook_requests_under_way", "Requests to the hook under way", |s| {
        Some(Reading::Gauge(s.hook.asking.get()))
    }),
    metric("heartwheel_hook_waiting", "Tokens that wait for such a request", |s| {
        Some(Reading::Gauge(s.hook.waiting.get()))
    }),
    metric("heartwheel_hook_kept", "Proofs by the hook that are remembered", |s| {
        Some(Reading::Gauge(s.hook.kept.get()))
    }),
    metric("heartwheel_sessions", "Sessions, by class and state", sessions),
    metric("heartwheel_sessions_began", "Sessions that began", |s| {
        count(s.stats.tally.sessions_began)
    }),
    metric("heartwheel_sessions_ended", "Sessions that ended, by reason", |s| {
        by_reason(|reason| s.stats.tally.sessions_ended[reason.index()])
    }),
    metric("heartwheel_beats", "Complete frames received, by kind", beats),
    metric("heartwheel_frames_received", "Complete frames received; each is a beat", |s| {
        count(s.stats.frames_received)
    }),
    metric("heartwheel_frames_sent", "Frames sent", |s| count(s.stats.frames_sent)),
    metric("heartwheel_data_received", "DATA frames received", |s| count(s.stats.data_received)),
    metric("heartwheel_data_taken", "DATA frames that everybody took who wanted them", |s| {
        count(s.stats.up.taken)
    }),
    metric("heartwheel_data_unclaimed", "DATA frames that nobody wanted", |s| {
        count(s.stats.up.unclaimed)
    }),
    metric("heartwheel_up_bytes", "DATA not taken yet, as it counts against --up-bytes", |s| {
        gauge(s.stats.up.bytes)
    }),
    metric("heartwheel_up_unread_bytes", "Bytes received of clients that are not read now", |s| {
        gauge(s.stats.up.unread_bytes)
    }),
    metric("heartwheel_up_paused", "Clients that are not read until their DATA is taken", |s| {
        gauge(s.stats.up.stopped)
    }),
    metric("heartwheel_up_pauses", "Times that a client was not read any further", |s| {
        count(s.stats.up.stops)
    }),
    metric("heartwheel_messages_pushed", "Messages for clients that were taken", |s| {
        count(s.stats.mail.pushed)
    }),
    metric("heartwheel_messages_delivered", "Those handed to the kernel, each once", |s| {
        count(s.stats.mail.delivered)
    }),
    metric("heartwheel_messages_acked", "Those that a client acknowledged", |s| {
        count(s.stats.mail.acked)
    }),
    metric("heartwheel_messages_ack_missed", "Those given up on without their ACK", |s| {
        count(s.stats.mail.ack_missed)
    }),
    metric("heartwheel_messages_lost", "Messages never handed over, by why", lost),
    metric("heartwheel_messages_queued_bytes", "What waits for clients or for their ACK", |s| {
        gauge(s.stats.mail.queue_bytes)
    }),
    metric("heartwheel_broadcasts_running", "Broadcasts under way", |s| {
        gauge(s.stats.mail.broadcasts_running)
    }),
    metric("heartwheel_received_bytes", "Bytes received", |s| count(s.stats.bytes_received)),
    metric("heartwheel_sent_bytes", "Bytes that the kernel took", |s| {
        count(s.stats.tally.bytes_sent)
    }),
    metric("heartwheel_sessions_resumed", "Sessions that went on by another connection", |s| {
        count(s.stats.resumed)
    }),
    metric("heartwheel_events", "Events of the ledger", |s| count(s.stats.seq_last)),
    metric("heartwheel_events_waiting", "Events that the side thread has not taken", |s| {
        gauge(s.stats.events_waiting)
    }),
    metric("heartwheel_probes_sent", "Silent clients that were asked", |s| {
        count(s.stats.pings_sent)
    }),
    metric("heartwheel_probes_answered", "Those that then said something", |s| {
        count(s.stats.pings_answered)
    }),
    metric("heartwheel_suspects", "Times that a client was silent for too long", |s| {
        count(s.stats.tally.suspected)
    }),
    metric("heartwheel_rescued", "Clients found alive by the last look", |s| {
        count(s.stats.rescued)
    }),
    metric("heartwheel_verdict_lateness_seconds", "How late verdicts of silence came", lateness),
    metric("heartwheel_returned", "Clients that came back after they were judged dead", |s| {
        count(s.stats.returned)
    }),
    metric("heartwheel_false_offline", "Those that show that they were alive", |s| {
        count(s.stats.false_offline)
    }),
    metric("heartwheel_stalls", "Times that the loop stood still", |s| count(s.stats.stalls)),
    metric("heartwheel_stalled_seconds", "For how long, all together", |s| {
        Some(Reading::Amount(s.stats.stalled.as_secs_f64()))
    }),
    metric("heartwheel_loop_busy_seconds", "How long turns of the loops were busy", busy),
    metric("heartwheel_loop_busy_longest_seconds", "How long the longest was", |s| {
        Some(Reading::Level(s.turns.busy_max.as_secs_f64()))
    }),
    metric("heartwheel_questions_answered", "Questions of the API and others answered", |s| {
        count(s.turns.questions)
    }),
    metric("heartwheel_queue_length", "What waits, by queue", |s| {
        let queues = [
            ("events", s.stats.events_waiting),
            ("news", s.turns.news_waiting),
            ("questions", s.turns.questions_waiting),
            ("answers", s.turns.answers_waiting),
            ("transport", s.stats.tally.transport_waiting),
        ];
        Some(Reading::Gauges("queue", queues.map(|(queue, count)| (queue, count as u64)).into()))
    }),
    metric("heartwheel_transport_dropped", "Transport events dropped for want of room", |s| {
        count(s.stats.tally.transport_dropped)
    }),
    metric("heartwheel_proxied_connections", "Connections that a proxy said its word for", |s| {
        count(s.stats.tally.layers.proxied)
    }),
    metric("heartwheel_tls_handshakes", "TLS handshakes, by outcome", |s| {
        let LayerStats { tls_handshakes: ok, tls_failed: failed, .. } = s.stats.tally.layers;
        Some(Reading::Counters("outcome", vec![("ok", ok), ("failed", failed)]))
    }),
    metric("heartwheel_websockets_opened", "WebSockets opened", |s| {
        count(s.stats.tally.layers.websockets)
    }),
    metric("heartwheel_handshakes_put_off", "Handshakes that had to wait for a turn", |s| {
        count(s.stats.tally.layers.put_off)
    }),
    metric("heartwheel_layered_connections", "Connections that are more than a stream", |s| {
        gauge(s.stats.tally.layers.wrapped)
    }),
    metric("heartwheel_stale_completions", "Completions for connections that are gone", |s| {
        count(s.stats.stale)
    }),
    metric("heartwheel_journal_writable", "1 while the disk takes the journal", |s| {
        s.journal.as_ref().and_then(|journal| gauge(usize::from(journal.is_writable)))
    }),
    metric("heartwheel_journal_waiting", "Events that wait to be written", |s| {
        s.journal.as_ref().and_then(|journal| gauge(journal.waiting))
    }),
    metric("heartwheel_journal_lag_seconds", "Age of the oldest event not on the disk", |s| {
        s.journal.as_ref().map(|journal| Reading::Level(journal.lag.as_secs_f64()))
    }),
    metric("heartwheel_journal_dropped", "Events that are missing in the journal", |s| {
        s.journal.as_ref().and_then(|journal| count(journal.dropped))
    }),
    metric("heartwheel_journal_gaps", "Gaps in the journal", |s| {
        s.journal.as_ref().and_then(|journal| count(journal.gaps))
    }),
    metric("heartwheel_driver_enters", "Times the kernel was entered", |s| count(s.driver.enters)),
    metric("heartwheel_driver_completions", "Completions taken", |s| count(s.driver.completions)),
    metric("heartwheel_driver_receives_armed", "Receives armed, first times included", |s| {
        count(s.driver.receives_armed)
    }),
    metric("heartwheel_driver_receives_rearmed", "Receives that had to be armed again", |s| {
        count(s.stats.receives_rearmed)
    }),
    metric("heartwheel_driver_starved", "Receives that ended for want of a buffer", |s| {
        count(s.driver.starved)
    }),
    metric("heartwheel_driver_interrupted", "Receives that the kernel ended otherwise", |s| {
        count(s.driver.interrupted)
    }),
    metric("heartwheel_driver_overflows", "Drains that found the completion queue full", |s| {
        count(s.driver.overflows)
    }),
    metric("heartwheel_driver_options_refused", "Socket options that could not be set", |s| {
        count(s.driver.options_refused)
    }),
    metric("heartwheel_rings", "Rings", |s| gauge(s.driver.rings)),
    metric("heartwheel_driver_sockets", "Sockets in use", |s| {
        Some(Reading::Gauge(s.driver.sockets))
    }),
    metric("heartwheel_driver_operations", "Operations of connections under way", |s| {
        gauge(s.driver.in_flight)
    }),
    metric("heartwheel_driver_accepts_waiting", "Accepts waiting in the kernel", |s| {
        gauge(s.driver.accepts_waiting)
    }),
    metric("heartwheel_driver_buffers", "Receive buffers", |s| gauge(s.driver.buffers)),
    metric("heartwheel_driver_buffers_free", "Receive buffers that the kernel has", |s| {
        s.driver.buffers_with_kernel.and_then(gauge)
    }),
    metric("heartwheel_feed_followers", "Those who follow a feed of the API", |s| {
        gauge(s.followers)
    }),
    metric("heartwheel_api_connections_refused", "Connections to the API without a place", |s| {
        let why = ["displaced", "full", "share"].into_iter().zip(s.seats);
        Some(Reading::Counters("why", why.collect()))
    }),
    metric("heartwheel_config_reloads", "Times the configuration was read again", |s| {
        let [ok, failed] = s.reloads;
        Some(Reading::Counters("outcome", vec![("ok", ok), ("failed", failed)]))
    }),
    metric(
        "heartwheel_config_last_reload_success_timestamp_seconds",
        "When it was last read without a mistake, the start included, since 1970",
        |s| Some(Reading::Level(s.reloaded_at_s)),
    ),
    metric("process_resident_memory_bytes", "Memory in use", |s| {
        s.resident_bytes.map(Reading::Gauge)
    }),
    metric("process_virtual_memory_bytes", "Address space", |s| {
        s.virtual_bytes.map(Reading::Gauge)
    }),
    metric("process_open_fds", "Files open", |s| s.open_files.map(Reading::Gauge)),
    metric("process_max_fds", "Files that may be open", |s| s.open_files_max.map(Reading::Gauge)),
    metric("process_start_time_seconds", "When it was started, since 1970", |s| {
        Some(Reading::Level(s.began_s))
    }),
    metric("process_cpu_seconds", "Processor time used", |s| Some(Reading::Amount(s.cpu_s))),
];
