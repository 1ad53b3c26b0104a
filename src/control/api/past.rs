//! How things were lately, as a whole and as it goes on.

use std::io::Write;

use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;

use crate::base::limits;
use crate::control::api::{Answer, Asked, json};
use crate::control::door::LoopHandle;
use crate::control::feed;
use crate::control::past::Sample;
use crate::gateway::LATENESS_BOUNDS;

#[derive(Serialize)]
struct History<'a> {
    node: &'a str,
    boot: u64,
    version: &'static str,
    driver: &'static str,
    shards: usize,
    started_unix_ms: u64,
    now_unix_ms: u64,
    late_bounds_ms: [u64; LATENESS_BOUNDS.len()],
    samples: Vec<Sample>,
}

/// `GET /v1/stats/history`
pub(crate) async fn history(asked: Asked) -> Answer {
    let door = &asked.api.door;
    let (clock, report) = (door.clock(), door.report());
    let wall = clock.wall();
    let history = History {
        node: &asked.api.identity.node,
        boot: asked.api.identity.boot,
        version: env!("CARGO_PKG_VERSION"),
        driver: report.as_ref().map_or("", |report| report.driver.kind.word()),
        shards: report.as_ref().map_or(0, |report| report.shards),
        started_unix_ms: wall.unix_millis(door.opened_at()),
        now_unix_ms: wall.unix_millis(clock.now()),
        late_bounds_ms: LATENESS_BOUNDS.map(|bound| bound.as_millis()),
        samples: door.samples_after(0, limits::PAST_SAMPLES_MAX),
    };
    json(StatusCode::OK, &history)
}

/// `GET /v1/stats/stream`
pub(crate) async fn stream(asked: Asked) -> Answer {
    let place = feed::place(&asked.api)?;
    let follows = feed::follows(&asked)?;
    let (sender, response) = feed::stream();
    let newest = asked.api.door.subscribe_to_samples();
    let boot = asked.api.identity.boot;
    let door = asked.api.door.clone();
    tokio::spawn(Follower { door, boot, newest, sender, place, follows }.run());
    Ok(response)
}

/// One who follows the samples.
struct Follower {
    door: LoopHandle,
    boot: u64,
    newest: watch::Receiver<u64>,
    sender: Sender<Bytes>,
    /// Kept until it goes.
    place: OwnedSemaphorePermit,
    follows: bool,
}

impl Follower {
    async fn run(mut self) {
        // Whoever goes, or finds that the loop has ended, knows all there is.
        let _ = self.follow().await;
        drop(self.place);
    }

    async fn follow(&mut self) -> Result<(), ()> {
        let mut at = self.newest.borrow_and_update().saturating_sub(1);
        loop {
            let samples = self.door.samples_after(at, limits::FEED_BATCH_MAX);
            at = samples.last().map_or(at, |sample| sample.n);
            if !samples.is_empty() {
                self.send(pieces(self.boot, &samples)).await?;
                continue;
            }
            if !self.follows {
                return Ok(());
            }
            tokio::select! {
                changed = self.newest.changed() => changed.map_err(drop)?,
                () = self.sender.closed() => return Err(()),
                () = sleep(limits::FEED_HEARTBEAT.into()) => {
                    self.send(feed::HEARTBEAT.to_vec()).await?;
                }
            }
        }
    }

    async fn send(&self, piece: Vec<u8>) -> Result<(), ()> {
        self.sender.send(piece.into()).await.map_err(drop)
    }
}

fn pieces(boot: u64, samples: &[Sample]) -> Vec<u8> {
    let mut out = Vec::new();
    for sample in samples {
        write!(out, "id: {boot}:{}\ndata: ", sample.n).expect("a vector takes every byte");
        serde_json::to_writer(&mut out, sample).expect("texts and numbers");
        out.extend_from_slice(b"\n\n");
    }
    out
}
