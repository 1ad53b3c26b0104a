//! What became of reading the configuration again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A key whose value is another one than before.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Change {
    /// Its name.
    pub key: String,
    /// What is in effect, or was until now; `None`: nothing.
    pub old: Option<String>,
    /// What was found.
    pub new: Option<String>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Reloaded {
    /// What holds from now on.
    pub changed: Vec<Change>,
    /// What was found and holds from the next start on.
    pub needs_restart: Vec<Change>,
    /// What is wrong, a line each. With any of them nothing changed.
    pub errors: Vec<String>,
}

/// Reads the configuration again. May take as long as the disk does.
pub type Reload = Arc<dyn Fn() -> Reloaded + Send + Sync>;

/// How often the configuration was read again, for whoever counts.
#[derive(Debug, Default)]
pub struct ReloadCounts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    succeeded_last_unix_ms: AtomicU64,
}

impl ReloadCounts {
    /// Nothing was read again since the start, which was at this time.
    pub fn new(unix_ms: u64) -> Self {
        Self { succeeded_last_unix_ms: unix_ms.into(), ..Self::default() }
    }

    /// It went well, at this time.
    pub fn note_success(&self, unix_ms: u64) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        self.succeeded_last_unix_ms.store(unix_ms, Ordering::Relaxed);
    }

    /// It did not.
    pub fn note_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it went well.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// How often it did not.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// When it went well last, the start included, in milliseconds since 1970.
    pub fn succeeded_last_unix_ms(&self) -> u64 {
        self.succeeded_last_unix_ms.load(Ordering::Relaxed)
    }
}
