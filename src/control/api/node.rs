//! The node as a whole: counts, health, the end.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::task::spawn_blocking;

use crate::base::event::CloseReason;
use crate::base::limits;
use crate::base::time::Span;
use crate::control::api::clients::{Done, unexpected};
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Api, Asked, json, with_type};
use crate::control::metrics as exposition;
use crate::gateway::{Command, Reply, Stats};

#[derive(Serialize)]
struct StatsBody<'a> {
    node: &'a str,
    boot: u64,
    version: &'static str,
    seq: u64,
    accepting: bool,
    draining: bool,
    rebalancing: bool,
    leavers_told: u64,
    leavers_left: u64,
    leavers_closed: u64,
    connections: usize,
    online: usize,
    held: usize,
    events_waiting: usize,
    accepted: u64,
    accept_faults: u64,
    frames_received: u64,
    frames_sent: u64,
    bytes_received: u64,
    data_received: u64,
    data_taken: u64,
    data_unclaimed: u64,
    up_bytes: usize,
    up_unread_bytes: usize,
    up_paused: usize,
    up_pauses: u64,
    resumed: u64,
    rescued: u64,
    probes_sent: u64,
    probes_answered: u64,
    verdicts: u64,
    late_p50_ms: f64,
    late_p99_ms: f64,
    late_max_ms: f64,
    returned: u64,
    false_offline: u64,
    stalls: u64,
    stalled_ms: u64,
    pushed: u64,
    delivered: u64,
    acked: u64,
    ack_missed: u64,
    expired: u64,
    dropped_oldest: u64,
    dropped_newest: u64,
    orphaned: u64,
    queue_bytes: usize,
    broadcasts_running: usize,
    /// Connections ended, by reason; those that never happened are left out.
    ended: Map<String, Value>,
}

impl<'a> StatsBody<'a> {
    fn new(api: &'a Api, stats: &Stats) -> Self {
        let millis = |span: Span| span.as_secs_f64() * 1_000.0;
        let ended = CloseReason::ALL.into_iter().filter(|reason| stats.ended(*reason) > 0);
        Self {
            node: &api.identity.node,
            boot: api.identity.boot,
            version: env!("CARGO_PKG_VERSION"),
            seq: stats.seq_last,
            accepting: stats.accepting,
            draining: stats.draining,
            rebalancing: stats.leaving.rebalancing,
            leavers_told: stats.leaving.told,
            leavers_left: stats.leaving.left,
            leavers_closed: stats.leaving.closed,
            connections: stats.connections,
            online: stats.online,
            held: stats.held,
            events_waiting: stats.events_waiting,
            accepted: stats.accepted,
            accept_faults: stats.accept_faults,
            frames_received: stats.frames_received,
            frames_sent: stats.frames_sent,
            bytes_received: stats.bytes_received,
            data_received: stats.data_received,
            data_taken: stats.up.taken,
            data_unclaimed: stats.up.unclaimed,
            up_bytes: stats.up.bytes,
            up_unread_bytes: stats.up.unread_bytes,
            up_paused: stats.up.stopped,
            up_pauses: stats.up.stops,
            resumed: stats.resumed,
            rescued: stats.rescued,
            probes_sent: stats.pings_sent,
            probes_answered: stats.pings_answered,
            verdicts: stats.lateness.count,
            late_p50_ms: millis(stats.lateness.quantile(0.5)),
            late_p99_ms: millis(stats.lateness.quantile(0.99)),
            late_max_ms: millis(stats.lateness.max),
            returned: stats.returned,
            false_offline: stats.false_offline,
            stalls: stats.stalls,
            stalled_ms: stats.stalled.as_millis(),
            pushed: stats.mail.pushed,
            delivered: stats.mail.delivered,
            acked: stats.mail.acked,
            ack_missed: stats.mail.ack_missed,
            expired: stats.mail.expired,
            dropped_oldest: stats.mail.dropped_oldest,
            dropped_newest: stats.mail.dropped_newest,
            orphaned: stats.mail.orphaned,
            queue_bytes: stats.mail.queue_bytes,
            broadcasts_running: stats.mail.broadcasts_running,
            ended: ended.map(|reason| (reason.word().into(), stats.ended(reason).into())).collect(),
        }
    }
}

/// `GET /v1/stats`
pub(crate) async fn stats(asked: Asked) -> Answer {
    let Reply::Stats(stats) = asked.api.door.ask(Command::Stats).await? else {
        return Err(unexpected());
    };
    json(StatusCode::OK, &StatsBody::new(&asked.api, &stats))
}

/// `POST /v1/reload`
pub(crate) async fn reload(asked: Asked) -> Answer {
    if !asked.body.is_empty() {
        return Err(Problem::bad("expected no body: what is read is the configuration"));
    }
    let reload = Arc::clone(&asked.api.reload);
    let reloaded = spawn_blocking(move || reload())
        .await
        .map_err(|_| Problem::new(Kind::Machine, "the reload did not come to an end"))?;
    if reloaded.errors.is_empty() {
        // All loops answer this one behind the command: what was told holds when it is answered.
        asked.api.door.ask(Command::Stats).await?;
    }
    json(StatusCode::OK, &reloaded)
}

/// `GET /healthz`
pub(crate) async fn health(asked: Asked) -> Answer {
    turning(&asked.api).map(drop)?;
    json(StatusCode::OK, &Done { done: true })
}

/// `GET /readyz`
pub(crate) async fn readiness(asked: Asked) -> Answer {
    let stats = turning(&asked.api)?;
    let journal = asked.api.journal.as_ref();
    let is_unwritable = journal.is_some_and(|journal| !journal.health.is_writable());
    let why = if stats.draining {
        "a drain is under way"
    } else if !stats.accepting {
        "the machine is short of descriptors or memory"
    } else if is_unwritable {
        "the journal cannot be written"
    } else {
        return json(StatusCode::OK, &Done { done: true });
    };
    Err(Problem::new(Kind::NotReady, why))
}

/// What the loop said last, if that is not too long ago.
fn turning(api: &Api) -> Result<Stats, Problem> {
    let not_ready = |why: &str| Problem::new(Kind::NotReady, why);
    let report = api.door.report().ok_or_else(|| not_ready("the loop has said nothing yet"))?;
    if api.door.has_ended() {
        return Err(not_ready("the loop has ended"));
    }
    let age = api.door.clock().now().since(report.heard_at);
    if age > limits::HEALTH_REPORT_AGE_MAX {
        return Err(not_ready(&format!("the loop has said nothing for {age}")));
    }
    Ok(report.stats)
}

/// `GET /metrics`
pub(crate) async fn metrics(asked: Asked) -> Answer {
    let text = exposition::exposition(&asked.api)
        .map_err(|error| Problem::new(Kind::Machine, error.to_string()))?;
    let content_type = HeaderValue::from_static(exposition::CONTENT_TYPE);
    Ok(with_type(StatusCode::OK, content_type, Body::from(text)))
}
