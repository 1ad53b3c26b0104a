//! How the webhooks are.

use std::sync::atomic::Ordering::Relaxed;

use axum::http::StatusCode;
use serde::Serialize;

use crate::control::api::{Answer, Asked, json};
use crate::control::webhook::Sources;
use crate::control::webhook::health::Health;

#[derive(Serialize)]
struct WebhookList {
    webhooks: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    target: String,
    stream: &'static str,
    url: String,
    state: &'static str,
    position: String,
    lag: u64,
    batches: u64,
    events: u64,
    failures: u64,
    retries: u64,
    resets: u64,
    missed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_unix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure_unix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
}

impl Row {
    fn of(health: &Health, sources: &Sources) -> Self {
        let (last_failure_unix_ms, last_failure) =
            health.last_failure().map(|failure| (failure.unix_ms, failure.cause)).unzip();
        Self {
            target: health.target.clone(),
            stream: health.stream.word(),
            url: health.url(),
            state: health.state().word(),
            position: health.position().to_string(),
            lag: health.lag(sources),
            batches: health.batches.load(Relaxed),
            events: health.events.load(Relaxed),
            failures: health.attempts_failed.load(Relaxed),
            retries: health.retries.load(Relaxed),
            resets: health.resets.load(Relaxed),
            missed: health.missed.load(Relaxed),
            last_success_unix_ms: health.last_success_unix_ms(),
            last_failure_unix_ms,
            last_failure,
        }
    }
}

/// `GET /v1/webhooks`
pub(crate) async fn list(asked: Asked) -> Answer {
    let webhooks = match &asked.api.webhooks {
        Some(webhooks) => {
            webhooks.rows().iter().map(|health| Row::of(health, webhooks.sources())).collect()
        }
        None => Vec::new(),
    };
    json(StatusCode::OK, &WebhookList { webhooks })
}
