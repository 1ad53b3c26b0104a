//! The files of a journal: their names, their order, and where in the ledger one is.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Ending of a segment's name.
const ENDING: &str = ".journal";
/// Ending of a segment that is being made. It counts only once it has been renamed.
const ENDING_UNFINISHED: &str = ".unfinished";
/// Digits of each number in a name: all numbers of 64 bits, in order as texts too.
const DIGITS: usize = 20;

/// A place in the ledgers of all boots: right behind this record.
///
/// Written as `BOOT:SEQ`. With a `seq` of 0 it is before the boot's first record.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// Which boot.
    pub boot: u64,
    /// The number of the last record before this place.
    pub seq: u64,
}

/// Not a position.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected the boot and seq of an event, such as 1763884800000:42")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.boot, self.seq)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (boot, seq) = text.split_once(':').ok_or(PositionError)?;
        Ok(Self {
            boot: number(boot).ok_or(PositionError)?,
            seq: number(seq).ok_or(PositionError)?,
        })
    }
}

/// The name of a segment: its boot, and the first number that a record in it may have.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SegmentName {
    pub(crate) boot: u64,
    pub(crate) first_seq: u64,
}

impl SegmentName {
    pub(crate) fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{self}{ENDING}"))
    }

    pub(crate) fn path_unfinished(self, folder: &Path) -> PathBuf {
        folder.join(format!("{self}{ENDING_UNFINISHED}"))
    }

    /// Right before the first record.
    pub(crate) fn start(self) -> Position {
        Position { boot: self.boot, seq: self.first_seq.saturating_sub(1) }
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let (boot, first_seq) = name.strip_suffix(ENDING)?.split_once('-')?;
        let full = boot.len() == DIGITS && first_seq.len() == DIGITS;
        let parsed = || Some(Self { boot: number(boot)?, first_seq: number(first_seq)? });
        if full { parsed().filter(|name| name.first_seq > 0) } else { None }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$}-{:0width$}", self.boot, self.first_seq, width = DIGITS)
    }
}

/// The segments in `folder`, oldest first. Other files are left alone.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<SegmentName>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        segments.extend(entry?.file_name().to_str().and_then(SegmentName::from_file_name));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Removes the segments that were not finished when their process died.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ENDING_UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Puts the names of a folder on the disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A number written with digits alone.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_like_the_ledger() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |boot, first_seq| SegmentName { boot, first_seq };
        let names = [name(1, 1), name(1, 900), name(1, 1_000), name(20, 1), name(u64::MAX, 1)];
        for name in names.iter().rev() {
            fs::write(name.path(folder.path()), "").expect("a file");
        }
        for other in ["lock", "x.journal", "1-1.journal", "00000000000000000001-x.journal"] {
            fs::write(folder.path().join(other), "").expect("a file");
        }
        fs::write(name(5, 1).path_unfinished(folder.path()), "").expect("a file");
        assert_eq!(list(folder.path()).expect("a folder"), names);
        remove_unfinished(folder.path()).expect("a folder");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), names.len() + 4);
    }

    #[test]
    fn a_position_is_a_boot_and_a_number() {
        let position = Position { boot: 17, seq: 4 };
        assert_eq!("17:4".parse(), Ok(position));
        assert_eq!(position.to_string(), "17:4");
        for text in
            ["", "17", ":4", "17:", "a:b", "-1:4", "+1:4", "1:4:5", "99999999999999999999:1"]
        {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }
}
