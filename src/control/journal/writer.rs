//! Writes the journal: lines to the newest segment, a new segment when that is full, and the oldest
//! ones away.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};

use crate::base::event::{Event, Record};
use crate::base::limits;
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::events::{Identity, append_json};
use crate::control::journal::JournalOptions;
use crate::control::journal::fold::{Fold, Page, Taken};
use crate::control::journal::line::append_line;
use crate::control::journal::segment::{self, SegmentName};
use crate::control::journal::words::{
    Gap, SnapshotHead, append_gap_line, append_present_line, append_segment_line,
};
use crate::gateway::Command;
use crate::server::mailbox::{Busy, Ticket};

/// Bytes of a snapshot written at once.
const SNAPSHOT_WRITE_BYTES: usize = 256 * 1_024;

/// Writes the journal of one boot. A value: it starts no thread and is told the time.
///
/// What the disk does not take waits here, so give it no more while it
/// [is blocked](Self::is_blocked).
pub struct Writer {
    options: JournalOptions,
    identity: Identity,
    wall: WallAnchor,
    /// `None` until the disk took the first one.
    segment: Option<Segment>,
    /// Older segments and their bytes, oldest first.
    older: VecDeque<(SegmentName, u64)>,
    /// Whole lines, of which the first `written` bytes are in the segment.
    waiting: Vec<u8>,
    written: usize,
    lines_waiting: usize,
    seq_last: u64,
    fold: Option<Fold>,
    life: Life,
    unsynced_since: Option<Moment>,
    /// When the oldest record happened that is not synced.
    oldest_unsynced: Option<Moment>,
    /// No new segment is tried before, because the last attempt failed.
    begin_not_before: Moment,
}

/// The segment that is being written.
struct Segment {
    name: SegmentName,
    file: File,
    bytes: u64,
    /// Bytes of its first line and its snapshot.
    base_bytes: u64,
    snapshot: SnapshotState,
}

/// Whether who reads the segment from its beginning knows who is online.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SnapshotState {
    Good,
    /// It has none, or records are missing after it.
    Wanted,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    Running,
    /// The ledger has ended: nothing follows.
    Stopped,
}

/// Something that the disk refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Refusal {
    /// What was tried.
    pub step: Step,
    /// What the machine said.
    pub cause: io::Error,
}

/// What can be refused by the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Writing lines. They wait.
    Write,
    /// Beginning a segment. Where there is one already it goes on.
    Begin,
    /// Waiting until what was written is on the disk. A new segment is begun.
    Sync,
    /// Removing the oldest segment.
    Remove,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write => "cannot write",
            Self::Begin => "cannot begin a segment",
            Self::Sync => "cannot sync",
            Self::Remove => "cannot remove the oldest segment",
        })
    }
}

impl Writer {
    /// A journal in `options.folder`, which exists. Nothing is written yet.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn new(options: JournalOptions, identity: Identity, wall: WallAnchor) -> io::Result<Self> {
        let mut older = VecDeque::new();
        for name in segment::list(&options.folder)? {
            let bytes = fs::metadata(name.path(&options.folder))?.len();
            older.push_back((name, bytes));
        }
        Ok(Self {
            options,
            identity,
            wall,
            segment: None,
            older,
            waiting: Vec::new(),
            written: 0,
            lines_waiting: 0,
            seq_last: 0,
            fold: None,
            life: Life::Running,
            unsynced_since: None,
            oldest_unsynced: None,
            begin_not_before: Moment::ZERO,
        })
    }

    /// Takes a record, to be written in the next turn.
    pub fn write(&mut self, record: &Record, wall: WallAnchor) {
        self.wall = wall;
        let identity = &self.identity;
        append_line(&mut self.waiting, |out| append_json(record, identity, wall, out));
        self.lines_waiting += 1;
        self.oldest_unsynced.get_or_insert(record.at);
        self.seq_last = record.seq;
        if let Some(fold) = &mut self.fold {
            fold.on_record(record);
        }
        if record.event == Event::Stopped {
            self.life = Life::Stopped;
        }
    }

    /// Notes that records are missing. Who is online is then to be asked anew.
    pub fn write_gap(&mut self, gap: &Gap, wall: WallAnchor) {
        self.wall = wall;
        append_gap_line(&mut self.waiting, &self.identity, gap, wall);
        self.lines_waiting += 1;
        self.seq_last = gap.to_seq;
        self.want_snapshot();
    }

    /// Takes a page that was asked for.
    pub fn on_page(&mut self, page: Page) {
        if let Some(fold) = &mut self.fold
            && fold.on_page(page) == Taken::Broken
        {
            self.fold = None;
        }
    }

    /// Writes what waits; syncs, begins a segment and removes old ones when it is time. `ask` puts
    /// a question to the loop, whose answer goes to [`on_page`](Self::on_page).
    ///
    /// # Errors
    /// When the disk refuses something. The next turn tries again.
    pub fn turn(
        &mut self,
        now: Moment,
        ask: &mut impl FnMut(Command) -> Result<Ticket, Busy>,
    ) -> Result<(), Refusal> {
        self.flush(now)?;
        if self.sync_due().is_some_and(|due| due <= now) {
            self.sync()?;
        }
        if self.wants_segment() && now >= self.begin_not_before {
            self.prepare_segment(now, ask)?;
        }
        Ok(())
    }

    /// Writes and syncs what waits, at the end.
    ///
    /// # Errors
    /// When the disk refuses it; [`lines_waiting`](Self::lines_waiting) says how much.
    pub fn finish(&mut self, now: Moment) -> Result<(), Refusal> {
        self.flush(now)?;
        self.sync()
    }

    /// Whether lines wait that the disk did not take.
    pub fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lines whose last byte is not written.
    pub fn lines_waiting(&self) -> usize {
        self.lines_waiting
    }

    /// When the oldest record happened that is not synced, if there is one.
    pub fn oldest_unsynced(&self) -> Option<Moment> {
        self.oldest_unsynced
    }

    /// How long the next [`turn`](Self::turn) can wait when nothing comes.
    pub fn patience(&self, now: Moment) -> Span {
        let until_sync = self.sync_due().map_or(limits::SLEEP_MAX, |due| due.since(now));
        if self.wants_segment() { until_sync.min(limits::EVENTS_FLUSH) } else { until_sync }
    }

    // --- lines -----------------------------------------------------------------------------------

    fn flush(&mut self, now: Moment) -> Result<(), Refusal> {
        if self.segment.is_none() {
            // At its start nobody is here: the first segment needs no page for its snapshot.
            let nobody = Fold::new(now, 0);
            let name = SegmentName { boot: self.identity.boot, first_seq: 1 };
            self.begin(name, Some(&nobody), now).map_err(refused(Step::Begin))?;
            self.remove_oldest()?;
        }
        let segment = self.segment.as_mut().expect("begun above, if it was not before");
        while self.written < self.waiting.len() {
            let count = match segment.file.write(&self.waiting[self.written..]) {
                Ok(0) => return Err(refused(Step::Write)(io::ErrorKind::WriteZero.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(refused(Step::Write)(error)),
            };
            let out = &self.waiting[self.written..self.written + count];
            self.lines_waiting -= out.iter().filter(|byte| **byte == b'\n').count();
            self.written += count;
            segment.bytes += count as u64;
            self.unsynced_since.get_or_insert(now);
        }
        self.waiting.clear();
        self.waiting.shrink_to(SNAPSHOT_WRITE_BYTES);
        self.written = 0;
        Ok(())
    }

    fn sync_due(&self) -> Option<Moment> {
        self.unsynced_since.map(|since| since + limits::JOURNAL_SYNC)
    }

    /// What a failed sync leaves on the disk nobody knows, so who reads on gets a new start.
    fn sync(&mut self) -> Result<(), Refusal> {
        let Some(segment) = &self.segment else { return Ok(()) };
        self.unsynced_since = None;
        // Whatever comes of it, nothing more can be done for them.
        self.oldest_unsynced = None;
        let outcome = segment.file.sync_data();
        if outcome.is_err() {
            self.want_snapshot();
        }
        outcome.map_err(refused(Step::Sync))
    }

    // --- segments --------------------------------------------------------------------------------

    fn want_snapshot(&mut self) {
        self.fold = None;
        if let Some(segment) = &mut self.segment {
            segment.snapshot = SnapshotState::Wanted;
        }
    }

    fn wants_segment(&self) -> bool {
        let wanted = self.segment.as_ref().is_some_and(|segment| {
            segment.snapshot == SnapshotState::Wanted || self.is_full(segment)
        });
        wanted && self.life == Life::Running
    }

    fn is_full(&self, segment: &Segment) -> bool {
        let records = segment.bytes - segment.base_bytes;
        records >= self.options.segment_bytes.max(segment.base_bytes)
    }

    /// Asks who is online, page by page, and begins a segment when all is known, or when the
    /// segment is full and it takes too long. Until then the old one goes on.
    fn prepare_segment(
        &mut self,
        now: Moment,
        ask: &mut impl FnMut(Command) -> Result<Ticket, Busy>,
    ) -> Result<(), Refusal> {
        let seq_last = self.seq_last;
        let fold = self.fold.get_or_insert_with(|| Fold::new(now, seq_last));
        if fold.is_complete() {
            let fold = self.fold.take();
            let outcome = self.begin_next(fold.as_ref(), now);
            if outcome.is_err() {
                self.fold = fold; // it stays true while records are applied
            }
            return outcome;
        }
        if now.since(fold.began_at()) >= limits::JOURNAL_SNAPSHOT_PATIENCE {
            self.fold = None;
            let is_full = self.segment.as_ref().is_some_and(|segment| self.is_full(segment));
            return if is_full { self.begin_next(None, now) } else { Ok(()) };
        }
        if let Some(from_slot) = fold.wants_page_from()
            && let Ok(ticket) = ask(Command::Clients { from_slot, limit: limits::CLIENTS_PAGE_MAX })
        {
            fold.on_asked(ticket);
        }
        Ok(())
    }

    /// Ends the segment and begins the next one. A refusal leaves the old one in use.
    fn begin_next(&mut self, snapshot: Option<&Fold>, now: Moment) -> Result<(), Refusal> {
        self.sync()?;
        let name = SegmentName { boot: self.identity.boot, first_seq: self.seq_last + 1 };
        let outcome = self.begin(name, snapshot, now);
        if outcome.is_err() {
            self.begin_not_before = now + limits::LOG_PAUSE;
        }
        outcome.map_err(refused(Step::Begin))?;
        self.remove_oldest()
    }

    /// Makes a segment, with its snapshot on the disk before it has its name.
    fn begin(&mut self, name: SegmentName, snapshot: Option<&Fold>, now: Moment) -> io::Result<()> {
        let unfinished = name.path_unfinished(&self.options.folder);
        let made = self.make_segment(name, snapshot, now);
        let (file, bytes) = match made {
            Ok(made) => made,
            Err(error) => {
                // What is left of it only takes room; a later attempt begins it anew.
                let _ = fs::remove_file(&unfinished);
                return Err(error);
            }
        };
        let state = if snapshot.is_some() { SnapshotState::Good } else { SnapshotState::Wanted };
        let segment = Segment { name, file, bytes, base_bytes: bytes, snapshot: state };
        if let Some(older) = self.segment.replace(segment)
            && older.name != name
        {
            self.older.push_back((older.name, older.bytes));
        }
        Ok(())
    }

    fn make_segment(
        &self,
        name: SegmentName,
        snapshot: Option<&Fold>,
        now: Moment,
    ) -> io::Result<(File, u64)> {
        let folder = &self.options.folder;
        let unfinished = name.path_unfinished(folder);
        let mut file = File::create(&unfinished)?;
        let head = snapshot
            .map(|fold| SnapshotHead { seq: fold.seq(), clients: fold.clients().len() as u64 });
        let (mut lines, mut bytes) = (Vec::new(), 0);
        let at_unix_ms = self.wall.unix_millis(now);
        append_segment_line(&mut lines, &self.identity, name.first_seq, at_unix_ms, head);
        for presence in snapshot.iter().flat_map(|fold| fold.clients()) {
            append_present_line(&mut lines, presence);
            if lines.len() >= SNAPSHOT_WRITE_BYTES {
                file.write_all(&lines)?;
                bytes += lines.len() as u64;
                lines.clear();
            }
        }
        file.write_all(&lines)?;
        bytes += lines.len() as u64;
        file.sync_all()?;
        fs::rename(&unfinished, name.path(folder))?;
        segment::sync_folder(folder)?;
        Ok((file, bytes))
    }

    /// Removes the oldest segments until the newest one has room to grow. That one always stays.
    fn remove_oldest(&mut self) -> Result<(), Refusal> {
        let Some(segment) = &self.segment else { return Ok(()) };
        let room = self.options.segment_bytes.max(segment.base_bytes) + segment.base_bytes;
        let mut total = room + self.older.iter().map(|(_, bytes)| bytes).sum::<u64>();
        while let Some((name, bytes)) = self.older.front()
            && (total > self.options.retain_bytes
                || self.older.len() >= limits::JOURNAL_SEGMENTS_MAX)
        {
            match fs::remove_file(name.path(&self.options.folder)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(refused(Step::Remove)(error)),
            }
            total -= bytes;
            self.older.pop_front();
        }
        Ok(())
    }
}

fn refused(step: Step) -> impl Fn(io::Error) -> Refusal {
    move |cause| Refusal { step, cause }
}
