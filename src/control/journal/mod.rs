//! The journal: the ledger in files, so that a reader can go on where it stopped.
//!
//! [`recover`] takes over a folder when a boot begins, a [`Writer`] writes it, [`spawn`] puts the
//! writer on a thread of its own, and a [`Reader`] reads it, also while it is written. The form of
//! the files is in the [manual](crate::manual::journal).

mod fold;
mod history;
mod line;
mod reader;
mod recovery;
mod segment;
mod thread;
mod words;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use crate::control::journal::fold::Page;
pub(crate) use crate::control::journal::fold::{Fold, Taken};
pub(crate) use crate::control::journal::history::{History, history};
pub use crate::control::journal::reader::{Change, Entry, Kept, ReadError, Reader, Snapshot};
pub use crate::control::journal::recovery::{Cut, Recovered, RecoveryError, boot_after, recover};
pub use crate::control::journal::segment::{Position, PositionError};
pub use crate::control::journal::thread::{Door, Health, JournalOutcome, JournalThread, spawn};
pub use crate::control::journal::words::{Gap, Present};
pub use crate::control::journal::writer::{Refusal, Step, Writer};

/// Where a journal is kept, and how much of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JournalOptions {
    /// The folder of its segments.
    pub folder: PathBuf,
    /// Bytes of records after which a segment is full.
    pub segment_bytes: u64,
    /// Bytes of all segments; beyond that the oldest ones are removed.
    pub retain_bytes: u64,
}
