//! The feed of events: who came and who went, as JSON lines.

use std::path::PathBuf;

/// Where events are written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum EventsTarget {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Standard output.
    Stdout,
    /// A file, appended to, made if it is missing.
    File(PathBuf),
}
