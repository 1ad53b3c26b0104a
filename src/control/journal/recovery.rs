//! Takes over a journal when a boot begins: what the former one left half done is put in order.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::base::event::{FormerBoot, FormerEnd};
use crate::base::limits;
use crate::control::journal::line::{Found, Lines};
use crate::control::journal::reader::{Change, Entry, ReadError, Reader};
use crate::control::journal::segment::{self, SegmentName};

/// Who holds it writes the journal.
const LOCK_NAME: &str = "lock";

/// A journal that was taken over.
#[derive(Debug)]
pub struct Recovered {
    /// What is known about the boot before; `None` in a new journal.
    pub former: Option<FormerBoot>,
    /// What was cut off the newest segment, because it was written in part.
    pub cut: Option<Cut>,
    /// Records of the newest segments that cannot be read.
    pub damaged: u64,
    /// Nobody else writes to the journal as long as this is kept.
    pub lock: File,
}

/// The torn end of a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cut {
    /// Which segment.
    pub path: PathBuf,
    /// How many bytes were cut off.
    pub bytes: u64,
}

/// Why a journal cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Somebody else writes to it.
    #[error("another process writes to the journal in {}", folder.display())]
    Taken {
        /// Where.
        folder: PathBuf,
    },
    /// The machine does not let us.
    #[error("cannot use {} for the journal: {cause}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the machine said.
        cause: io::Error,
    },
    /// The segments cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Takes over the journal in `folder`, which is made if it is missing.
///
/// Reads the newest segments, from the newest whole snapshot on. A torn end is cut off, so that
/// what is kept is a prefix of what was written. Damage in the middle stays and is counted; readers
/// are told about it where it is.
///
/// # Errors
/// When the folder cannot be made, read or written, or another process has it.
pub fn recover(folder: &Path) -> Result<Recovered, RecoveryError> {
    let unusable = |cause| RecoveryError::Io { path: folder.to_owned(), cause };
    fs::create_dir_all(folder).map_err(unusable)?;
    let lock = take_lock(folder)?;
    segment::remove_unfinished(folder).map_err(unusable)?;
    let segments = segment::list(folder).map_err(unusable)?;
    let Some(newest) = segments.last() else {
        return Ok(Recovered { former: None, cut: None, damaged: 0, lock });
    };
    let cut = cut_torn_end(folder, *newest)?;
    let (former, damaged) = look_at_former(folder, *newest)?;
    Ok(Recovered { former: Some(former), cut, damaged, lock })
}

/// The number of a boot that begins at `unix_ms`: larger than that of the boot before, and so much
/// larger that sessions, which are numbered from it, have larger numbers as well. The clock may
/// have been set back.
pub fn boot_after(unix_ms: u64, former: Option<&FormerBoot>) -> u64 {
    let Some(former) = former else { return unix_ms };
    // Decision D-5: a boot's sessions are counted up from `boot << 11`, and each has an event.
    // Among shards each counts in steps of their number.
    let sessions_max = former.seq.saturating_mul(limits::SHARDS_MAX.into()) >> 11;
    unix_ms.max(former.boot.saturating_add(sessions_max).saturating_add(2))
}

fn take_lock(folder: &Path) -> Result<File, RecoveryError> {
    let path = folder.join(LOCK_NAME);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let unusable = |cause| RecoveryError::Io { path: path.clone(), cause };
    let lock = opened.map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(RecoveryError::Taken { folder: folder.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(unusable(cause)),
    }
}

/// Cuts off whatever follows the last sound line.
fn cut_torn_end(folder: &Path, name: SegmentName) -> Result<Option<Cut>, RecoveryError> {
    let path = name.path(folder);
    let cut = || {
        let file = File::options().read(true).write(true).open(&path)?;
        let mut lines = Lines::new(&file);
        let mut sound_bytes = 0;
        loop {
            match lines.next_line()? {
                Found::Sound(_) => sound_bytes = lines.offset(),
                Found::Damaged => {}
                Found::End => break,
            }
        }
        let bytes = file.metadata()?.len().saturating_sub(sound_bytes);
        if bytes > 0 {
            file.set_len(sound_bytes)?;
            file.sync_all()?;
        }
        Ok(bytes)
    };
    let bytes = cut().map_err(|cause| RecoveryError::Io { path: path.clone(), cause })?;
    Ok((bytes > 0).then_some(Cut { path, bytes }))
}

/// How the newest boot ended, and how many of its records, as far as it was read, are damaged.
fn look_at_former(folder: &Path, newest: SegmentName) -> Result<(FormerBoot, u64), RecoveryError> {
    let (mut open, mut reader) = match Reader::snapshot(folder) {
        Ok((snapshot, reader)) => (Some(snapshot.clients.len() as u64), reader),
        Err(ReadError::NoSnapshot { .. }) => (None, Reader::after(folder, newest.start())?),
        Err(error) => return Err(error.into()),
    };
    let mut damaged = 0;
    while let Some(entry) = reader.next_entry()? {
        match entry {
            Entry::Record { .. } => {}
            Entry::Gap { .. } => open = None,
            Entry::Damaged { from, to_seq } => {
                open = None;
                damaged += (to_seq + 1).saturating_sub(from.seq);
            }
        }
    }
    // A boot of which nothing is left, not even the first line, says nothing about its sessions.
    let is_there = reader.position().boot == newest.boot;
    let open = open.filter(|_| is_there);
    let seq = if is_there { reader.position().seq } else { newest.start().seq };
    let (ended, sessions_lost) = match last_change(folder, newest)? {
        Some(Change::Stopped) => (FormerEnd::Stopped, None),
        Some(
            Change::Started
            | Change::Online(_)
            | Change::Offline { .. }
            | Change::Rhythm { .. }
            | Change::Nothing,
        )
        | None => (FormerEnd::Lost, open),
    };
    Ok((FormerBoot { boot: newest.boot, seq, ended, sessions_lost }, damaged))
}

/// What the last record of the segment says, if it has one.
fn last_change(folder: &Path, newest: SegmentName) -> Result<Option<Change>, RecoveryError> {
    let mut reader = Reader::after(folder, newest.start())?;
    let mut last = None;
    while let Some(entry) = reader.next_entry()? {
        if let Entry::Record { change, .. } = entry {
            last = Some(change);
        }
    }
    Ok(last)
}
