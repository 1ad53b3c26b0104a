//! What is counted of the hook, for metrics.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How often what happened, and how it is now. Written by the thread that asks, read by others.
#[derive(Debug, Default)]
pub struct HookCounts {
    /// Requests that were answered with yes.
    pub proven: Count,
    /// Requests that were answered with no.
    pub refuted: Count,
    /// Requests that were answered otherwise, or could not be made.
    pub failed: Count,
    /// Requests that were not answered in time.
    pub timed_out: Count,
    /// Tokens that were proven a moment before.
    pub cached: Count,
    /// Tokens that somebody was being asked about already.
    pub shared: Count,
    /// Tokens for which there was no place to wait.
    pub full: Count,
    /// Tokens that waited for too long.
    pub waited: Count,
    /// Requests under way.
    pub asking: Count,
    /// Those who wait for their request.
    pub waiting: Count,
    /// Proofs that are kept.
    pub kept: Count,
}

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
