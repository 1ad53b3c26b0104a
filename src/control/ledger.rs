//! Follows the ledger from any place that is kept: out of the memory that all share, and out of the
//! journal where that has more.
//!
//! A `Trail` has a position and no queue: it takes what follows its position as fast as its owner
//! asks, and whoever is too slow finds its position gone. Feeds and webhooks are such owners.

use std::mem;
use std::path::PathBuf;

use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::control::door::{Forgotten, LoopHandle};
use crate::control::events::{self, Identity};
use crate::control::journal::{Entry, Position, ReadError, Reader};

/// Where the ledger can be read.
#[derive(Clone)]
pub struct Ledger {
    /// The loop, and what is kept in memory of what it told.
    pub door: LoopHandle,
    /// Whose ledger it is.
    pub identity: Identity,
    /// The folder of the journal, if there is one.
    pub journal: Option<PathBuf>,
}

/// Why what follows a position cannot be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Lost {
    /// It is not kept, or never was.
    Gone(String),
    /// The machine does not let us read it; perhaps later.
    Machine(String),
}

impl Lost {
    /// What it is, for people.
    pub(crate) fn detail(self) -> String {
        match self {
            Self::Gone(detail) | Self::Machine(detail) => detail,
        }
    }
}

impl From<ReadError> for Lost {
    fn from(error: ReadError) -> Self {
        let detail = error.to_string();
        match error {
            ReadError::TooOld { .. }
            | ReadError::Unknown { .. }
            | ReadError::Empty { .. }
            | ReadError::NoSnapshot { .. } => Self::Gone(detail),
            ReadError::Io { .. } => Self::Machine(detail),
        }
    }
}

impl Ledger {
    /// The latest place.
    pub(crate) fn newest(&self) -> Position {
        Position { boot: self.identity.boot, seq: self.door.newest().seq }
    }

    /// Where to go on when what follows `at` is gone: the oldest place behind it that is kept;
    /// where there is none such, the oldest.
    pub(crate) async fn oldest_after(&self, at: Position) -> Position {
        let oldest = self.oldest().await;
        // A journal can be behind the memory, if its disk does not take it.
        match oldest <= at && at.boot == self.identity.boot {
            true => self.oldest_in_memory(),
            false => oldest,
        }
    }

    fn oldest_in_memory(&self) -> Position {
        Position { boot: self.identity.boot, seq: self.door.events_forgotten_up_to() }
    }

    /// The oldest place from which nothing is missing.
    pub(crate) async fn oldest(&self) -> Position {
        let Some(folder) = self.journal.clone() else { return self.oldest_in_memory() };
        let opened = in_background(move || Reader::from_oldest(&folder)).await;
        match opened {
            Ok(Ok(reader)) => reader.position(),
            Ok(Err(_)) | Err(_) => self.oldest_in_memory(),
        }
    }
}

/// One who follows.
pub(crate) struct Trail {
    ledger: Ledger,
    source: Source,
    at: Position,
}

/// Where its events come from.
enum Source {
    Memory,
    Journal(Box<Reader>),
}

impl Trail {
    /// Begins right behind `start`.
    pub(crate) async fn begin(ledger: Ledger, start: Position) -> Result<Self, Lost> {
        let source = begin(&ledger, start).await?;
        Ok(Self { ledger, source, at: start })
    }

    /// Right behind what was taken last.
    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// Whether the door says when there is more; the journal has to be looked at from time to time.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory)
    }

    /// Hands over at most `limit` of the entries that follow, each with the place behind it and as
    /// one JSON object. None: there are none yet. After an error it has to begin anew.
    pub(crate) async fn take(
        &mut self,
        limit: usize,
        mut each: impl FnMut(Position, &[u8]),
    ) -> Result<(), Lost> {
        self.source = match mem::replace(&mut self.source, Source::Memory) {
            Source::Memory => self.take_memory(limit, &mut each).await?,
            Source::Journal(reader) => self.take_journal(reader, limit, &mut each).await?,
        };
        Ok(())
    }

    async fn take_memory(
        &mut self,
        limit: usize,
        each: &mut impl FnMut(Position, &[u8]),
    ) -> Result<Source, Lost> {
        match self.ledger.door.events_after(self.at.seq, limit) {
            Ok(batch) => {
                let mut json = Vec::new();
                for dated in batch {
                    json.clear();
                    events::append_json(
                        &dated.record,
                        &self.ledger.identity,
                        dated.wall,
                        &mut json,
                    );
                    self.at.seq = dated.record.seq;
                    each(self.at, &json);
                }
                Ok(Source::Memory)
            }
            // Too slow for the memory that all share.
            Err(Forgotten) => open_journal(&self.ledger, self.at).await.map(Source::Journal),
        }
    }

    async fn take_journal(
        &mut self,
        mut reader: Box<Reader>,
        limit: usize,
        each: &mut impl FnMut(Position, &[u8]),
    ) -> Result<Source, Lost> {
        let read = in_background(move || {
            let mut entries = Vec::new();
            let mut outcome = Ok(());
            while entries.len() < limit && outcome.is_ok() {
                match reader.next_entry() {
                    Ok(Some(entry)) => entries.push(entry),
                    Ok(None) => break,
                    Err(error) => outcome = Err(error),
                }
            }
            (reader, entries, outcome)
        });
        let (reader, entries, outcome) = read.await?;
        let mut json = Vec::new();
        for entry in &entries {
            json.clear();
            append_entry(entry, &mut json);
            self.at = entry.end();
            each(self.at, &json);
        }
        if let Err(error) = outcome
            && entries.is_empty()
        {
            return Err(error.into());
        }
        let is_here = self.at.boot == self.ledger.identity.boot;
        let is_in_memory = is_here && self.ledger.door.events_after(self.at.seq, 0).is_ok();
        Ok(if is_in_memory { Source::Memory } else { Source::Journal(reader) })
    }
}

/// Finds what follows `start`.
async fn begin(ledger: &Ledger, start: Position) -> Result<Source, Lost> {
    if start.boot == ledger.identity.boot {
        if start.seq > ledger.door.last_seq() {
            return Err(Lost::Gone(format!("{start} is no place in this ledger")));
        }
        if ledger.door.events_after(start.seq, 0).is_ok() {
            return Ok(Source::Memory);
        }
    }
    open_journal(ledger, start).await.map(Source::Journal)
}

async fn open_journal(ledger: &Ledger, after: Position) -> Result<Box<Reader>, Lost> {
    let Some(folder) = ledger.journal.clone() else {
        let detail =
            format!("what follows {after} is no longer in memory, and there is no journal");
        return Err(Lost::Gone(detail));
    };
    Ok(Box::new(in_background(move || Reader::after(&folder, after)).await??))
}

/// Reads files on a thread where nobody else waits.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    spawn_blocking(work).await.map_err(|error| Lost::Machine(error.to_string()))
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
