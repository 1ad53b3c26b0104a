//! What one client did lately: its events, out of memory and out of the journal.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use tokio::task::spawn_blocking;

use crate::base::limits;
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Asked, with_type};
use crate::control::events;
use crate::control::journal::{self, History, Position};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// `GET /v1/clients/{id}/history`
pub(crate) async fn show(asked: Asked) -> Answer {
    let limit = limit(asked.parameter("limit"))?;
    let client = asked.client().to_owned();
    let boot = asked.api.identity.boot;
    let (recent, mut are_all) = asked.api.door.events_of(&client, limit);
    let mut by_place = BTreeMap::new();
    for dated in &recent {
        let mut json = Vec::new();
        events::append_json(&dated.record, &asked.api.identity, dated.wall, &mut json);
        by_place.insert(Position { boot, seq: dated.record.seq }, json);
    }
    if asked.api.journal.is_some() && by_place.len() < limit {
        let older = from_journal(&asked, client.clone(), limit).await?;
        // The journal has what is in memory no longer; what it does not have yet is in memory.
        are_all = older.are_all;
        for (place, json) in older.events {
            by_place.entry(place).or_insert_with(|| json.into_bytes());
        }
    }
    are_all &= by_place.len() <= limit;
    while by_place.len() > limit {
        by_place.pop_first();
    }
    let mut body = b"{\"client\":".to_vec();
    serde_json::to_writer(&mut body, &client).expect("a text");
    body.extend_from_slice(format!(",\"complete\":{are_all},\"events\":[").as_bytes());
    for (number, json) in by_place.values().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(json);
    }
    body.extend_from_slice(b"]}");
    Ok(with_type(StatusCode::OK, JSON, Body::from(body)))
}

/// Files are read on a thread where nobody else waits, for one who asks at a time.
async fn from_journal(asked: &Asked, client: String, limit: usize) -> Result<History, Problem> {
    let Some(journal) = &asked.api.journal else { return Ok(History::default()) };
    let place = asked.api.histories.clone().try_acquire_owned();
    let place =
        place.map_err(|_| Problem::new(Kind::Busy, "the journal is read for somebody already"))?;
    let folder = journal.folder.clone();
    let read = spawn_blocking(move || {
        let found = journal::history(&folder, &client, limit, limits::HISTORY_BYTES_MAX);
        drop(place);
        found
    });
    let machine = |error: &dyn std::error::Error| Problem::new(Kind::Machine, error.to_string());
    read.await.map_err(|error| machine(&error))?.map_err(|error| machine(&error))
}

fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(limits::HISTORY_EVENTS_DEFAULT) };
    let most = limits::HISTORY_EVENTS_MAX;
    let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| Problem::bad(format!("limit {text:?}: expected 1 to {most}")))
}
