//! Reads a journal: from any place that is kept, over segments and boots, in order.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::control::journal::line::{Found, Lines};
use crate::control::journal::segment::{self, Position, SegmentName};
use crate::control::journal::words::{Present, RecordNews, Said, SnapshotHead, understand};

/// Reads a journal, also one that is being written.
///
/// What comes out is in order and without repetition: after each entry
/// [`position`](Self::position) is right behind it. Whatever is missing is told. Memory: one line
/// and a buffer.
pub struct Reader {
    folder: PathBuf,
    name: SegmentName,
    lines: Lines<File>,
    position: Position,
    /// How far the boot before this one could be read.
    left: Option<Position>,
    /// A newer segment was seen; what is left of this one was written before.
    next: Option<SegmentName>,
    /// Found, and not handed out yet: something that is missing is told first.
    held: VecDeque<Entry>,
}

/// What a journal tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// An event, as in the feed.
    Record {
        /// Its place in the ledgers.
        position: Position,
        /// The event as JSON.
        json: String,
        /// What it means for who is online.
        change: Change,
    },
    /// Records that were never written.
    Gap {
        /// The place of the first one that is missing.
        from: Position,
        /// The number of the last one.
        to_seq: u64,
    },
    /// Records that were written and cannot be read any more.
    Damaged {
        /// The place of the first one that is missing.
        from: Position,
        /// The number of the last one.
        to_seq: u64,
    },
}

/// What a record means for who is online.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A boot begins: nobody is online.
    Started,
    /// A boot ends: nobody is online any more.
    Stopped,
    /// Somebody came.
    Online(Present),
    /// Somebody's session ended.
    Offline {
        /// Who.
        client: String,
        /// Which session.
        epoch: u64,
    },
    /// Somebody's session has another rhythm.
    Rhythm {
        /// Who.
        client: String,
        /// Which session.
        epoch: u64,
        /// How often it is to beat.
        interval_ms: u64,
        /// After how much silence it is judged dead.
        timeout_ms: u64,
    },
    /// None.
    Nothing,
}

/// Who is online, exactly true at a place in the ledgers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Where it is true.
    pub position: Position,
    /// Who is online, by client id.
    pub clients: BTreeMap<String, Present>,
}

/// Why a journal cannot be read from there.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What followed was removed.
    #[error("what follows {wanted} is no longer kept; take a snapshot ({kept})")]
    TooOld {
        /// The place asked for.
        wanted: Position,
        /// What is kept.
        kept: Kept,
    },
    /// The journal never came there, as far as it knows.
    #[error("{wanted} is no place in this journal; take a snapshot ({kept})")]
    Unknown {
        /// The place asked for.
        wanted: Position,
        /// What is kept.
        kept: Kept,
    },
    /// There is no segment.
    #[error("there is no journal in {}", folder.display())]
    Empty {
        /// Where.
        folder: PathBuf,
    },
    /// None of the segments that are kept has a whole snapshot.
    #[error("no segment in {} has a whole snapshot; read from its beginning", folder.display())]
    NoSnapshot {
        /// Where.
        folder: PathBuf,
    },
    /// The machine does not let us read.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the machine said.
        cause: io::Error,
    },
}

/// What a journal still has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kept {
    /// The oldest place that can be read from.
    pub oldest: Position,
    /// Where the newest snapshot is true, if there is one.
    pub snapshot: Option<Position>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.snapshot {
            Some(snapshot) => write!(f, "the newest is at {snapshot}")?,
            None => f.write_str("none is kept at the moment")?,
        }
        write!(f, "; what follows {} is kept", self.oldest)
    }
}

impl Reader {
    /// Reads all that is kept.
    ///
    /// # Errors
    /// When there is nothing, or it cannot be read.
    pub fn from_oldest(folder: &Path) -> Result<Self, ReadError> {
        Self::open(folder, list(folder)?[0])
    }

    /// Reads what follows `position`. O(records of its segment before it).
    ///
    /// # Errors
    /// When the journal does not have what follows it, or cannot be read.
    pub fn after(folder: &Path, position: Position) -> Result<Self, ReadError> {
        let segments = list(folder)?;
        let begins_before = |name: &&SegmentName| name.start() <= position;
        let Some(name) = segments.iter().rev().find(begins_before) else {
            return Err(too_old(folder, position));
        };
        if name.boot != position.boot {
            return Err(unknown(folder, position));
        }
        let mut reader = Self::open(folder, *name)?;
        while let Some(entry) = reader.next_entry()? {
            if entry.end() > position {
                reader.held.push_front(entry);
                break;
            }
        }
        if reader.held.is_empty() && reader.position < position {
            return Err(unknown(folder, position));
        }
        reader.position = position;
        Ok(reader)
    }

    /// Who is online at the end of what can be read without anything missing, and the reader of
    /// what follows. O(newest snapshot and the records after it); memory for every client.
    ///
    /// # Errors
    /// When no whole snapshot is kept, or the journal cannot be read.
    pub fn snapshot(folder: &Path) -> Result<(Snapshot, Self), ReadError> {
        for name in list(folder)?.into_iter().rev() {
            let mut reader = Self::open(folder, name)?;
            let Some(mut snapshot) = reader.read_snapshot()? else { continue };
            while let Some(entry) = reader.next_entry()? {
                if !snapshot.apply(&entry) {
                    reader.position = snapshot.position;
                    reader.held.push_front(entry);
                    break;
                }
            }
            return Ok((snapshot, reader));
        }
        Err(ReadError::NoSnapshot { folder: folder.to_owned() })
    }

    /// Right behind the last entry that was handed out.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next entry. `None`: there is none yet; ask again later.
    ///
    /// # Errors
    /// When what follows was removed in the meantime, or cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        if let Some(entry) = self.held.pop_front() {
            self.position = entry.end();
            return Ok(Some(entry));
        }
        loop {
            let found = self.lines.next_line().map_err(|cause| self.unreadable(cause))?;
            let told = match found {
                // The next number tells what is missing.
                Found::Damaged => None,
                Found::Sound(json) => self.on_line(json),
                Found::End => match self.on_end()? {
                    AtEnd::Over => return Ok(None),
                    AtEnd::Again => None,
                    AtEnd::Missing(entry) => Some(entry),
                },
            };
            if let Some(entry) = told {
                self.position = entry.end();
                return Ok(Some(entry));
            }
        }
    }

    fn open(folder: &Path, name: SegmentName) -> Result<Self, ReadError> {
        let lines = open_lines(folder, name)?;
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            name,
            lines,
            position: name.start(),
            left: None,
            next: None,
            held: VecDeque::new(),
        })
    }

    /// The snapshot at the beginning of the segment, if there is one and all of it is sound.
    fn read_snapshot(&mut self) -> Result<Option<Snapshot>, ReadError> {
        let Some(Said::Segment { snapshot: Some(head) }) = self.next_said()? else {
            return Ok(None);
        };
        let mut clients = BTreeMap::new();
        for _ in 0..head.clients {
            let Some(Said::Present(present)) = self.next_said()? else { return Ok(None) };
            clients.insert(present.client.clone(), present);
        }
        let is_whole = clients.len() as u64 == head.clients && head.seq == self.position.seq;
        Ok(is_whole.then_some(Snapshot { position: self.position, clients }))
    }

    fn next_said(&mut self) -> Result<Option<Said>, ReadError> {
        match self.lines.next_line().map_err(|cause| self.unreadable(cause))? {
            Found::Sound(json) => Ok(understand(&json)),
            Found::Damaged | Found::End => Ok(None),
        }
    }

    /// What a sound line tells. Something that is missing before it is told first.
    fn on_line(&mut self, json: String) -> Option<Entry> {
        let boot = self.name.boot;
        let (first_seq, entry) = match understand(&json)? {
            Said::Segment { .. } | Said::Present(_) | Said::Unknown => return None,
            Said::Gap { from_seq, to_seq } => {
                (from_seq, Entry::Gap { from: Position { boot, seq: from_seq }, to_seq })
            }
            Said::Record { seq, news } => {
                let lost = self.lost_with_former_boot(&news);
                let change = change_of(news);
                let entry = Entry::Record { position: Position { boot, seq }, json, change };
                if lost.is_some() {
                    self.held.push_back(entry);
                    return lost;
                }
                (seq, entry)
            }
        };
        if self.position.boot == boot && entry.end() <= self.position {
            return None;
        }
        let expected_seq = self.expected_seq();
        if first_seq > expected_seq {
            self.held.push_back(entry);
            let from = Position { boot, seq: expected_seq };
            return Some(Entry::Damaged { from, to_seq: first_seq - 1 });
        }
        Some(entry)
    }

    /// The end of the boot before, where its last records were found at the start of this one and
    /// cannot be read now.
    fn lost_with_former_boot(&self, news: &RecordNews) -> Option<Entry> {
        let RecordNews::Started { former: Some((boot, seq)) } = *news else { return None };
        let left = self.left.filter(|left| left.boot == boot && left.seq < seq)?;
        let from = Position { boot, seq: left.seq + 1 };
        (seq < u64::MAX).then_some(Entry::Damaged { from, to_seq: seq })
    }

    /// The segment has nothing more: perhaps there is a newer one.
    fn on_end(&mut self) -> Result<AtEnd, ReadError> {
        let segments = segment::list(&self.folder).map_err(|cause| self.unreadable(cause))?;
        let Some(next) = self.next.take() else {
            // What was written to this one before the next began may have come since: look again.
            self.next = segments.iter().copied().find(|name| *name > self.name);
            return Ok(if self.next.is_some() { AtEnd::Again } else { AtEnd::Over });
        };
        let is_same_boot = next.boot == self.name.boot;
        let expected_seq = if is_same_boot { self.expected_seq() } else { 1 };
        // The oldest are removed first: while this one is here, nothing after it is gone.
        let was_removed = !segments.contains(&self.name) || !is_same_boot;
        if next.first_seq > expected_seq && was_removed {
            return Err(too_old(&self.folder, self.position));
        }
        self.lines = match File::open(next.path(&self.folder)) {
            Ok(file) => Lines::new(file),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(too_old(&self.folder, self.position));
            }
            Err(cause) => return Err(ReadError::Io { path: next.path(&self.folder), cause }),
        };
        if !is_same_boot {
            let seq = self.expected_seq() - 1;
            self.left = Some(Position { boot: self.name.boot, seq });
        }
        self.name = next;
        if is_same_boot && next.first_seq > expected_seq {
            let from = Position { boot: next.boot, seq: expected_seq };
            return Ok(AtEnd::Missing(Entry::Damaged { from, to_seq: next.first_seq - 1 }));
        }
        Ok(AtEnd::Again)
    }

    /// The number that the next record of this segment has, if none is missing.
    fn expected_seq(&self) -> u64 {
        let is_underway = self.position.boot == self.name.boot;
        if is_underway { self.position.seq + 1 } else { self.name.first_seq }
    }

    fn unreadable(&self, cause: io::Error) -> ReadError {
        ReadError::Io { path: self.name.path(&self.folder), cause }
    }
}

/// What there is at the end of a segment.
enum AtEnd {
    /// Nothing yet.
    Over,
    /// Something, perhaps.
    Again,
    /// A segment that begins later than the last one ended.
    Missing(Entry),
}

impl Entry {
    /// The place right behind it.
    pub fn end(&self) -> Position {
        match self {
            Self::Record { position, .. } => *position,
            Self::Gap { from, to_seq } | Self::Damaged { from, to_seq } => {
                Position { boot: from.boot, seq: *to_seq }
            }
        }
    }
}

impl Snapshot {
    /// Lets the next entry happen. `false`: something is missing, and the snapshot stays true where
    /// it is.
    #[must_use]
    pub fn apply(&mut self, entry: &Entry) -> bool {
        let Entry::Record { position, change, .. } = entry else { return false };
        self.position = *position;
        match change {
            Change::Started | Change::Stopped => self.clients.clear(),
            Change::Online(present) => {
                self.clients.insert(present.client.clone(), present.clone());
            }
            Change::Offline { client, epoch } => {
                if self.clients.get(client).is_some_and(|present| present.epoch == *epoch) {
                    self.clients.remove(client);
                }
            }
            Change::Rhythm { client, epoch, interval_ms, timeout_ms } => {
                let present = self.clients.get_mut(client);
                if let Some(present) = present.filter(|present| present.epoch == *epoch) {
                    (present.interval_ms, present.timeout_ms) = (*interval_ms, *timeout_ms);
                }
            }
            Change::Nothing => {}
        }
        true
    }
}

fn change_of(news: RecordNews) -> Change {
    match news {
        RecordNews::Started { .. } => Change::Started,
        RecordNews::Stopped => Change::Stopped,
        RecordNews::Online(present) => Change::Online(present),
        RecordNews::Offline { client, epoch } => Change::Offline { client, epoch },
        RecordNews::Rhythm { client, epoch, interval_ms, timeout_ms } => {
            Change::Rhythm { client, epoch, interval_ms, timeout_ms }
        }
        RecordNews::Other => Change::Nothing,
    }
}

/// The segments, of which there is at least one.
fn list(folder: &Path) -> Result<Vec<SegmentName>, ReadError> {
    let segments =
        segment::list(folder).map_err(|cause| ReadError::Io { path: folder.to_owned(), cause })?;
    if segments.is_empty() {
        return Err(ReadError::Empty { folder: folder.to_owned() });
    }
    Ok(segments)
}

fn open_lines(folder: &Path, name: SegmentName) -> Result<Lines<File>, ReadError> {
    let path = name.path(folder);
    match File::open(&path) {
        Ok(file) => Ok(Lines::new(file)),
        Err(cause) => Err(ReadError::Io { path, cause }),
    }
}

fn too_old(folder: &Path, wanted: Position) -> ReadError {
    look_at_kept(folder).map_or_else(|error| error, |kept| ReadError::TooOld { wanted, kept })
}

fn unknown(folder: &Path, wanted: Position) -> ReadError {
    look_at_kept(folder).map_or_else(|error| error, |kept| ReadError::Unknown { wanted, kept })
}

fn look_at_kept(folder: &Path) -> Result<Kept, ReadError> {
    let segments = list(folder)?;
    let mut snapshot = None;
    for name in segments.iter().rev() {
        let head = Reader::open(folder, *name)?.next_said()?;
        if let Some(Said::Segment { snapshot: Some(SnapshotHead { seq, .. }) }) = head {
            snapshot = Some(Position { boot: name.boot, seq });
            break;
        }
    }
    Ok(Kept { oldest: segments[0].start(), snapshot })
}
