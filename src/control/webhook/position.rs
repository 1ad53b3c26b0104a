//! Where a target is in the ledgers, in a small file beside the journal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::control::journal::Position;

/// Longest content of such a file.
const BYTES_MAX: u64 = 64;

/// The file of one target's position.
#[derive(Clone, Debug)]
pub(crate) struct PositionFile {
    folder: PathBuf,
    path: PathBuf,
}

/// What such a file says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// There is none: the target is new.
    Nothing,
    /// The last event that was taken.
    At(Position),
    /// It is there, and is no position.
    Damaged,
}

impl PositionFile {
    /// The file of the target `name` in the folder of the journal.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("webhook-{name}.position"));
        Self { folder: folder.to_owned(), path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it.
    pub(crate) fn load(&self) -> io::Result<Found> {
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => match file.take(BYTES_MAX).read_to_string(&mut text) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        }
        let position = text.strip_suffix('\n').and_then(|line| line.parse().ok());
        Ok(position.map_or(Found::Damaged, Found::At))
    }

    /// Puts a position in its place: at any moment the file has the old one or the new one.
    pub(crate) fn save(&self, position: Position) -> io::Result<()> {
        let path_unfinished = self.path.with_extension("position-unfinished");
        let mut file = File::create(&path_unfinished)?;
        file.write_all(format!("{position}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&path_unfinished, &self.path)?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_kept_and_a_torn_one_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = PositionFile::new(folder.path(), "audit.2");
        assert_eq!(file.load().expect("readable"), Found::Nothing);
        for position in [Position { boot: 1, seq: 0 }, Position { boot: u64::MAX, seq: u64::MAX }] {
            file.save(position).expect("there is room");
            assert_eq!(file.load().expect("readable"), Found::At(position));
        }
        let other = PositionFile::new(folder.path(), "audit.3");
        assert_eq!(other.load().expect("readable"), Found::Nothing, "each has its own");
        for text in ["", "17:4", "17\n", "17:x\n", "\u{0}\u{0}\u{0}"] {
            fs::write(file.path(), text).expect("there is room");
            assert_eq!(file.load().expect("readable"), Found::Damaged, "{text:?}");
        }
        fs::write(file.path(), b"\xff\xfe:1\n").expect("there is room");
        assert_eq!(file.load().expect("readable"), Found::Damaged);
        assert_eq!(
            fs::read_dir(folder.path()).expect("a folder").count(),
            1,
            "nothing is left over"
        );
    }
}
