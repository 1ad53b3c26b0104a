//! What happens, as server-sent events, to any number of readers within limits.
//!
//! A follower has a place and a position, and no queue: it takes what follows its position out of
//! the memory that all share, as fast as its connection takes it, and whoever is too slow finds its
//! position gone. Then the journal helps, or the feed ends and says so. Other outputs than this one
//! (webhooks, a broker) would be followers too.

use std::fmt::Write;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::base::config::TransportEvents;
use crate::base::limits;
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Api, Asked, pieces, with_type};
use crate::control::door::{Forgotten, Newest};
use crate::control::events;
use crate::control::journal::{Entry, Position, ReadError, Reader};
use crate::control::transport;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Says nothing, and shows that the feed is alive.
const HEARTBEAT: &[u8] = b": alive\n\n";
const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /v1/events`
pub(crate) async fn events(asked: Asked) -> Answer {
    let place = place(&asked.api)?;
    let wish = Wish::of(&asked)?;
    let boot = asked.api.identity.boot;
    let newest = asked.api.door.subscribe();
    let start = wish.after.unwrap_or(Position { boot, seq: asked.api.door.newest().seq });
    let source = begin(&asked.api, start).await?;
    let (sender, response) = stream();
    let follower = Follower { api: asked.api, place, newest, sender, follows: wish.follows };
    tokio::spawn(follower.run_events(source, start));
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

fn place(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    let most = limits::FEED_FOLLOWERS_MAX;
    let place = api.followers.clone().try_acquire_owned();
    place.map_err(|_| Problem::new(Kind::Busy, format!("{most} follow already")))
}

fn stream() -> (Sender<Bytes>, Response) {
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
        let header = asked.headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
        let after = match header {
            Some(value) => Some(value.to_str().unwrap_or_default()),
            None => asked.parameter("after"),
        };
        let after = after.map(|text| {
            let position = text.parse::<Position>();
            position.map_err(|_| Problem::bad(format!("{text:?}: expected BOOT:SEQ")))
        });
        let follows = match asked.parameter("follow") {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => {
                return Err(Problem::bad(format!("follow {other:?}: expected true or false")));
            }
        };
        Ok(Self { after: after.transpose()?, follows })
    }
}

/// Where a follower's events come from.
enum Source {
    Memory,
    Journal(Box<Reader>),
}

/// Finds what follows `start`.
async fn begin(api: &Api, start: Position) -> Result<Source, Problem> {
    if start.boot == api.identity.boot {
        if start.seq > api.door.last_seq() {
            let detail = format!("{start} is no place in this ledger");
            return Err(Problem::new(Kind::Gone, detail));
        }
        if api.door.events_after(start.seq, 0).is_ok() {
            return Ok(Source::Memory);
        }
    }
    open_journal(api, start).await.map(|reader| Source::Journal(Box::new(reader)))
}

async fn open_journal(api: &Api, after: Position) -> Result<Reader, Problem> {
    let Some(journal) = &api.journal else {
        let detail =
            format!("what follows {after} is no longer in memory, and there is no journal");
        return Err(Problem::new(Kind::Gone, detail));
    };
    let folder = journal.folder.clone();
    in_background(move || Reader::after(&folder, after)).await?.map_err(unreadable)
}

fn unreadable(error: ReadError) -> Problem {
    let kind = match error {
        ReadError::TooOld { .. }
        | ReadError::Unknown { .. }
        | ReadError::Empty { .. }
        | ReadError::NoSnapshot { .. } => Kind::Gone,
        ReadError::Io { .. } => Kind::Machine,
    };
    Problem::new(kind, error.to_string())
}

/// Reads files on a thread where nobody else waits.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| Problem::new(Kind::Machine, error.to_string()))
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
    async fn run_events(mut self, source: Source, start: Position) {
        let outcome = self.events(source, start).await;
        if let Err(End::Reset { at: Position { boot, seq }, detail }) = outcome {
            let line = ResetLine { event: "reset", boot, seq, detail: &detail };
            let mut piece = b"event: reset\ndata: ".to_vec();
            serde_json::to_writer(&mut piece, &line).expect("texts and numbers");
            piece.extend_from_slice(b"\n\n");
            let _ = self.send(piece).await;
        }
        drop(self.place);
    }

    async fn events(&mut self, mut source: Source, mut at: Position) -> Result<(), End> {
        // With it, whoever is cut off before the first event resumes here.
        self.send(format!("id: {at}\n\n").into_bytes()).await?;
        loop {
            self.newest.borrow_and_update();
            let mut piece = Vec::new();
            source = match source {
                Source::Memory => self.take_memory(&mut at, &mut piece).await?,
                Source::Journal(reader) => self.take_journal(reader, &mut at, &mut piece).await?,
            };
            match (piece.is_empty(), &source) {
                (false, _) => self.send(piece).await?,
                (true, Source::Memory) => self.wait().await?,
                (true, Source::Journal(_)) => sleep(limits::JOURNAL_FOLLOW_PAUSE.into()).await,
            }
        }
    }

    async fn take_memory(&self, at: &mut Position, piece: &mut Vec<u8>) -> Result<Source, End> {
        match self.api.door.events_after(at.seq, limits::FEED_BATCH_MAX) {
            Ok(batch) => {
                for dated in batch {
                    at.seq = dated.record.seq;
                    append(piece, *at, |out| {
                        events::append_json(&dated.record, &self.api.identity, dated.wall, out);
                    });
                }
                Ok(Source::Memory)
            }
            // Too slow for the memory that all share.
            Err(Forgotten) => match open_journal(&self.api, *at).await {
                Ok(reader) => Ok(Source::Journal(Box::new(reader))),
                Err(problem) => Err(End::Reset { at: *at, detail: problem.detail }),
            },
        }
    }

    async fn take_journal(
        &self,
        mut reader: Box<Reader>,
        at: &mut Position,
        piece: &mut Vec<u8>,
    ) -> Result<Source, End> {
        let read = in_background(move || {
            let mut entries = Vec::new();
            let outcome = loop {
                match reader.next_entry() {
                    Ok(Some(entry)) => entries.push(entry),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
                if entries.len() >= limits::FEED_BATCH_MAX {
                    break Ok(());
                }
            };
            (reader, entries, outcome)
        });
        let reset =
            |at: &Position, problem: Problem| End::Reset { at: *at, detail: problem.detail };
        let (reader, entries, outcome) = read.await.map_err(|problem| reset(at, problem))?;
        for entry in &entries {
            *at = entry.end();
            append(piece, *at, |out| append_entry(entry, out));
        }
        if let Err(error) = outcome
            && entries.is_empty()
        {
            return Err(reset(at, unreadable(error)));
        }
        let is_here = at.boot == self.api.identity.boot;
        let is_in_memory = is_here && self.api.door.events_after(at.seq, 0).is_ok();
        Ok(if is_in_memory { Source::Memory } else { Source::Journal(reader) })
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

/// What stands for events that are missing in the journal.
#[derive(Serialize)]
struct MissingLine {
    event: &'static str,
    boot: u64,
    from_seq: u64,
    to_seq: u64,
}

fn append_entry(entry: &Entry, out: &mut Vec<u8>) {
    let (event, from, to_seq) = match entry {
        Entry::Record { json, .. } => return out.extend_from_slice(json.as_bytes()),
        Entry::Gap { from, to_seq } => ("gap", from, *to_seq),
        Entry::Damaged { from, to_seq } => ("damaged", from, *to_seq),
    };
    let line = MissingLine { event, boot: from.boot, from_seq: from.seq, to_seq };
    serde_json::to_writer(out, &line).expect("texts and numbers");
}
