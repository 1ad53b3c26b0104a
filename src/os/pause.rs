//! Waiting with nothing to wait for.

use crate::base::time::Span;

/// Puts the calling thread to sleep. Never on the loop's thread.
pub fn pause(span: Span) {
    std::thread::sleep(span.into());
}
