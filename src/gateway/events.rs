//! The ledger: what happened, in order, with numbers that have no gaps.

use std::collections::VecDeque;

use crate::base::event::{Event, Record};
use crate::base::limits;
use crate::base::time::Moment;

/// Events in order, until the side thread takes them.
///
/// Bounded: newcomers are refused while too many wait (see [`Ledger::is_congested`]), and whoever
/// is online has room for its one OFFLINE. So the most that can wait is
/// [`limits::EVENTS_WAITING_MAX`] plus twice the connections, and nothing is ever dropped.
pub(crate) struct Ledger {
    waiting: VecDeque<Record>,
    seq_next: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::new(), seq_next: 1 }
    }

    /// Writes down what happened.
    pub(crate) fn tell(&mut self, event: Event, at: Moment) {
        self.waiting.push_back(Record { seq: self.seq_next, at, event });
        self.seq_next += 1;
    }

    /// Moves at most `budget` events to `out`.
    pub(crate) fn take(&mut self, out: &mut Vec<Record>, budget: usize) {
        let count = budget.min(self.waiting.len());
        out.extend(self.waiting.drain(..count));
        if self.waiting.is_empty() && self.waiting.capacity() > limits::TURN_EVENTS_MAX {
            self.waiting = VecDeque::new();
        }
    }

    /// Whether so many events wait that nobody new may come in.
    pub(crate) fn is_congested(&self) -> bool {
        self.waiting.len() >= limits::EVENTS_WAITING_MAX
    }

    /// Events not yet taken.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The number of the latest event; zero before the first.
    pub(crate) fn seq_last(&self) -> u64 {
        self.seq_next - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gaps_however_the_events_are_taken() {
        let mut ledger = Ledger::new();
        let mut out = Vec::new();
        for round in 0..10 {
            for _ in 0..round {
                ledger.tell(Event::Started { former: None }, Moment::ZERO);
            }
            ledger.take(&mut out, 3);
        }
        ledger.take(&mut out, usize::MAX);
        let numbers: Vec<u64> = out.iter().map(|record| record.seq).collect();
        assert_eq!(numbers, (1..=45).collect::<Vec<_>>());
        assert_eq!(ledger.seq_last(), 45);
    }

    #[test]
    fn a_storm_leaves_no_memory_behind() {
        let mut ledger = Ledger::new();
        for _ in 0..=limits::TURN_EVENTS_MAX {
            ledger.tell(Event::Started { former: None }, Moment::ZERO);
        }
        ledger.take(&mut Vec::new(), limits::TURN_EVENTS_MAX);
        assert!(ledger.waiting.capacity() > limits::TURN_EVENTS_MAX, "one still waits");
        ledger.take(&mut Vec::new(), limits::TURN_EVENTS_MAX);
        assert_eq!(ledger.waiting.capacity(), 0);
    }

    #[test]
    fn a_full_ledger_says_so_before_anything_is_lost() {
        let mut ledger = Ledger::new();
        for _ in 0..limits::EVENTS_WAITING_MAX {
            assert!(!ledger.is_congested());
            ledger.tell(Event::Started { former: None }, Moment::ZERO);
        }
        assert!(ledger.is_congested());
        let mut out = Vec::new();
        ledger.take(&mut out, 1);
        assert!(!ledger.is_congested());
    }
}
