//! What happens, as server-sent events, to any number of readers within limits.
//!
//! A follower has a place and a position, and no queue: it takes what follows its position out of
//! the memory that all share, as fast as its connection takes it, and whoever is too slow finds its
//! position gone. Then the journal helps, or the feed ends and says so.

use std::fmt::Write;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;

use crate::base::config::TransportEvents;
use crate::base::limits;
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Api, Asked, pieces, with_type};
use crate::control::door::Newest;
use crate::control::journal::Position;
use crate::control::ledger::{Lost, Trail};
use crate::control::transport;

pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Says nothing, and shows that the feed is alive.
pub(crate) const HEARTBEAT: &[u8] = b": alive\n\n";
const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /v1/events`
pub(crate) async fn events(asked: Asked) -> Answer {
    let place = place(&asked.api)?;
    let wish = Wish::of(&asked)?;
    let boot = asked.api.identity.boot;
    let newest = asked.api.door.subscribe();
    let start = wish.after.unwrap_or(Position { boot, seq: asked.api.door.newest().seq });
    let trail = Trail::begin(asked.api.ledger(), start).await?;
    let (sender, response) = stream();
    let follower = Follower { api: asked.api, place, newest, sender, follows: wish.follows };
    tokio::spawn(follower.run_events(trail));
    Ok(response)
}

/// `GET /v1/transport`
pub(crate) async fn transport(asked: Asked) -> Answer {
    if asked.api.gateway.get().transport_events == TransportEvents::Untold {
        let detail = "start the gateway with --transport-events FILE";
        return Err(Problem::new(Kind::Untold, detail));
    }
    let place = place(&asked.api)?;
    let wish = Wish::of(&asked)?;
    let newest = asked.api.door.subscribe();
    let tseq = match wish.after {
        Some(after) if after.boot == asked.api.identity.boot => after.seq,
        Some(_) => 0,
        None => asked.api.door.newest().tseq,
    };
    let (sender, response) = stream();
    let follower = Follower { api: asked.api, place, newest, sender, follows: wish.follows };
    tokio::spawn(follower.run_transport(tseq));
    Ok(response)
}

pub(crate) fn place(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    let most = limits::FEED_FOLLOWERS_MAX;
    let place = api.followers.clone().try_acquire_owned();
    place.map_err(|_| Problem::new(Kind::Busy, format!("{most} follow already")))
}

pub(crate) fn stream() -> (Sender<Bytes>, Response) {
    let (sender, body) = pieces();
    (sender, with_type(StatusCode::OK, EVENT_STREAM, body))
}

/// What a follower wants.
struct Wish {
    after: Option<Position>,
    follows: bool,
}

impl Wish {
    fn of(asked: &Asked) -> Result<Self, Problem> {
        Ok(Self { after: after(asked, "BOOT:SEQ")?, follows: follows(asked)? })
    }
}

/// Behind what a feed begins, a position written like `form`: what the header says goes before the
/// parameter.
pub(crate) fn after(asked: &Asked, form: &str) -> Result<Option<Position>, Problem> {
    let header = asked.headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let text = match header {
        Some(value) => Some(value.to_str().unwrap_or_default()),
        None => asked.parameter("after"),
    };
    let position = text.map(|text| {
        let position = text.parse();
        position.map_err(|_| Problem::bad(format!("{text:?}: expected {form}")))
    });
    position.transpose()
}

/// Whether it goes on once all that is there was sent.
pub(crate) fn follows(asked: &Asked) -> Result<bool, Problem> {
    match asked.parameter("follow") {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(Problem::bad(format!("follow {other:?}: expected true or false"))),
    }
}

impl From<Lost> for Problem {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Gone(detail) => Self::new(Kind::Gone, detail),
            Lost::Machine(detail) => Self::new(Kind::Machine, detail),
        }
    }
}

/// One who follows.
struct Follower {
    api: Arc<Api>,
    /// Kept until it goes.
    place: OwnedSemaphorePermit,
    newest: watch::Receiver<Newest>,
    sender: Sender<Bytes>,
    follows: bool,
}

/// Why a follower's feed ends.
enum End {
    /// It has gone, or has all it wanted.
    Quiet,
    /// It must take a snapshot.
    Reset { at: Position, detail: String },
}

/// What a feed that breaks off says last.
#[derive(Serialize)]
struct ResetLine<'a> {
    event: &'static str,
    boot: u64,
    seq: u64,
    detail: &'a str,
}

impl Follower {
    async fn run_events(mut self, trail: Trail) {
        let outcome = self.events(trail).await;
        if let Err(End::Reset { at: Position { boot, seq }, detail }) = outcome {
            let line = ResetLine { event: "reset", boot, seq, detail: &detail };
            let mut piece = b"event: reset\ndata: ".to_vec();
            serde_json::to_writer(&mut piece, &line).expect("texts and numbers");
            piece.extend_from_slice(b"\n\n");
            let _ = self.send(piece).await;
        }
        drop(self.place);
    }

    async fn events(&mut self, mut trail: Trail) -> Result<(), End> {
        // With it, whoever is cut off before the first event resumes here.
        self.send(format!("id: {}\n\n", trail.at()).into_bytes()).await?;
        loop {
            self.newest.borrow_and_update();
            let mut piece = Vec::new();
            let taken = trail.take(limits::FEED_BATCH_MAX, |at, json| {
                append(&mut piece, at, |out| out.extend_from_slice(json));
            });
            taken.await.map_err(|lost| End::Reset { at: trail.at(), detail: lost.detail() })?;
            match (piece.is_empty(), trail.is_in_memory()) {
                (false, _) => self.send(piece).await?,
                (true, true) => self.wait().await?,
                (true, false) => sleep(limits::JOURNAL_FOLLOW_PAUSE.into()).await,
            }
        }
    }

    async fn run_transport(mut self, tseq: u64) {
        let _ = self.transport(tseq).await;
        drop(self.place);
    }

    async fn transport(&mut self, mut tseq: u64) -> Result<(), End> {
        let boot = self.api.identity.boot;
        self.send(format!("id: {}\n\n", Position { boot, seq: tseq }).into_bytes()).await?;
        loop {
            self.newest.borrow_and_update();
            let mut piece = Vec::new();
            for dated in self.api.door.transport_after(tseq, limits::FEED_BATCH_MAX) {
                let dropped = dated.record.tseq.saturating_sub(tseq + 1);
                tseq = dated.record.tseq;
                append(&mut piece, Position { boot, seq: tseq }, |out| {
                    let identity = &self.api.identity;
                    transport::append_json(&dated.record, identity, dated.wall, dropped, out);
                });
            }
            match piece.is_empty() {
                false => self.send(piece).await?,
                true => self.wait().await?,
            }
        }
    }

    async fn send(&self, piece: Vec<u8>) -> Result<(), End> {
        self.sender.send(piece.into()).await.map_err(|_| End::Quiet)
    }

    /// Waits for something new, and shows meanwhile that the feed is alive. Ends where nothing more
    /// comes or is wanted.
    async fn wait(&mut self) -> Result<(), End> {
        if !self.follows {
            return Err(End::Quiet);
        }
        tokio::select! {
            changed = self.newest.changed() => changed.map_err(|_| End::Quiet),
            () = self.sender.closed() => Err(End::Quiet),
            () = sleep(limits::FEED_HEARTBEAT.into()) => self.send(HEARTBEAT.to_vec()).await,
        }
    }
}

/// Appends an event whose JSON, which has no line end, is what `write_json` appends.
fn append(out: &mut Vec<u8>, at: Position, write_json: impl FnOnce(&mut Vec<u8>)) {
    let mut head = String::new();
    write!(head, "id: {at}\ndata: ").expect("a text takes everything");
    out.extend_from_slice(head.as_bytes());
    write_json(out);
    out.extend_from_slice(b"\n\n");
}
