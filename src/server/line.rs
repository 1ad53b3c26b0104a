//! The line by which DATA goes up from a loop to whoever takes it, and credit comes back.
//!
//! Bounded and lock-free in both directions. The loop hands up nothing before it is wished for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::data::{Credit, DataRecord};
use crate::base::limits;
use crate::os::wake::Waker;

/// The loop's end.
pub(crate) struct LineInside {
    records: rtrb::Producer<Box<DataRecord>>,
    credits: rtrb::Consumer<Credit>,
    is_wished: Arc<AtomicBool>,
}

/// The other end. For one thread at a time.
pub struct Line {
    records: rtrb::Consumer<Box<DataRecord>>,
    credits: rtrb::Producer<Credit>,
    is_wished: Arc<AtomicBool>,
    waker: Waker,
}

/// So many credits wait that this one was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

/// Opens a line.
pub(crate) fn open(waker: Waker) -> (LineInside, Line) {
    let (records_in, records) = rtrb::RingBuffer::new(limits::DATA_QUEUE_MAX);
    let (credits, credits_out) = rtrb::RingBuffer::new(limits::DATA_QUEUE_MAX);
    let is_wished = Arc::new(AtomicBool::new(false));
    let inside =
        LineInside { records: records_in, credits: credits_out, is_wished: Arc::clone(&is_wished) };
    (inside, Line { records, credits, is_wished, waker })
}

impl LineInside {
    /// Whether anybody wants DATA.
    pub(crate) fn is_wished(&self) -> bool {
        self.is_wished.load(Ordering::Acquire)
    }

    /// For how many records there is room.
    pub(crate) fn room(&self) -> usize {
        self.records.slots()
    }

    /// Hands a record up; there must be [room](Self::room). What nobody will read is dropped.
    pub(crate) fn hand_up(&mut self, record: Box<DataRecord>) {
        let _ = self.records.push(record);
    }

    /// Moves at most `limit` credits to the end of `out`. Whether others may have waited for room.
    pub(crate) fn take_credits(&mut self, limit: usize, out: &mut Vec<Credit>) -> bool {
        let waiting = self.credits.slots();
        out.extend((0..waiting.min(limit)).filter_map(|_| self.credits.pop().ok()));
        waiting == limits::DATA_QUEUE_MAX
    }

    /// Whether credits wait.
    pub(crate) fn has_credits(&self) -> bool {
        !self.credits.is_empty()
    }
}

impl Line {
    /// Says whether anybody wants DATA. What was received before may still come afterwards.
    pub fn wish(&self, is_wished: bool) {
        self.is_wished.store(is_wished, Ordering::Release);
    }

    /// The next record, if there is one.
    pub fn next_record(&mut self) -> Option<Box<DataRecord>> {
        self.records.pop().ok()
    }

    /// Gives the credit of a record back, once for each. The loop hears of it when the line is
    /// [rung](Self::ring).
    ///
    /// # Errors
    /// When too many wait; to be tried again.
    pub fn give_back(&mut self, credit: Credit) -> Result<(), Full> {
        self.credits.push(credit).map_err(|_| Full)
    }

    /// Wakes the loop.
    pub fn ring(&self) {
        self.waker.wake();
    }
}
