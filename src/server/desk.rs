//! The desk at which a loop has tokens looked at that take longer than it can wait.
//!
//! Bounded and lock-free in both directions. A gateway has only so many checks under way, and there
//! is room for all of them and for their answers.

use std::sync::{Arc, OnceLock};
use std::task;

use crate::base::identity::{Check, Verdict};
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::os::wake::Waker;

/// The loop's end.
pub(crate) struct DeskInside {
    checks: rtrb::Producer<Check>,
    verdicts: rtrb::Consumer<(ConnId, Verdict)>,
    clerk: Arc<OnceLock<task::Waker>>,
}

/// The other end. For one thread.
pub struct Desk {
    checks: rtrb::Consumer<Check>,
    verdicts: rtrb::Producer<(ConnId, Verdict)>,
    clerk: Arc<OnceLock<task::Waker>>,
    waker: Waker,
}

/// Opens a desk.
pub(crate) fn open(waker: Waker) -> (DeskInside, Desk) {
    let (checks_in, checks) = rtrb::RingBuffer::new(limits::CHECKS_MAX);
    let (verdicts, verdicts_out) = rtrb::RingBuffer::new(limits::CHECKS_MAX);
    let clerk = Arc::new(OnceLock::new());
    let inside =
        DeskInside { checks: checks_in, verdicts: verdicts_out, clerk: Arc::clone(&clerk) };
    (inside, Desk { checks, verdicts, clerk, waker })
}

impl DeskInside {
    /// For how many checks there is room.
    pub(crate) fn room(&self) -> usize {
        self.checks.slots()
    }

    /// Hands a check over; gives it back where nobody will ever look at it.
    pub(crate) fn hand_over(&mut self, check: Check) -> Result<(), Check> {
        if self.checks.is_abandoned() {
            return Err(check);
        }
        self.checks.push(check).map_err(|rtrb::PushError::Full(check)| check)
    }

    /// Wakes whoever looks at tokens.
    pub(crate) fn ring(&self) {
        if let Some(clerk) = self.clerk.get() {
            clerk.wake_by_ref();
        }
    }

    /// The next answer, if there is one.
    pub(crate) fn next_verdict(&mut self) -> Option<(ConnId, Verdict)> {
        self.verdicts.pop().ok()
    }

    /// Whether answers wait.
    pub(crate) fn has_verdicts(&self) -> bool {
        !self.verdicts.is_empty()
    }
}

impl Drop for DeskInside {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Desk {
    /// From now on this rings when checks come, and at the end. Always the same.
    pub fn listen(&self, bell: &task::Waker) {
        self.clerk.get_or_init(|| bell.clone());
    }

    /// The next check, if there is one.
    pub fn next_check(&mut self) -> Option<Check> {
        self.checks.pop().ok()
    }

    /// Answers a check, once for each. The loop hears of it when it is [rung](Self::ring).
    pub fn answer(&mut self, conn: ConnId, verdict: Verdict) {
        // There are no more answers than checks, and for those there is room.
        let _ = self.verdicts.push((conn, verdict));
    }

    /// Wakes the loop.
    pub fn ring(&self) {
        self.waker.wake();
    }

    /// Whether the loop has ended.
    pub fn has_ended(&self) -> bool {
        self.checks.is_abandoned()
    }
}
