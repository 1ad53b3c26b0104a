//! How long turns take, and what waits for them.

use crate::base::time::{Moment, Span};

/// Upper bounds of the buckets of busy time; the last bucket has none.
pub const BUSY_BOUNDS: [Span; 15] = [
    Span::from_micros(20),
    Span::from_micros(50),
    Span::from_micros(100),
    Span::from_micros(200),
    Span::from_micros(500),
    Span::from_millis(1),
    Span::from_millis(2),
    Span::from_millis(5),
    Span::from_millis(10),
    Span::from_millis(20),
    Span::from_millis(50),
    Span::from_millis(100),
    Span::from_millis(200),
    Span::from_millis(500),
    Span::from_secs(1),
];

/// Numbers about a loop, counted since it began unless said otherwise.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LoopStats {
    /// Turns, by how long each was busy: from the end of its sleep to the beginning of the next.
    pub busy: [u64; BUSY_BOUNDS.len() + 1],
    /// All of that time.
    pub busy_sum: Span,
    /// The longest of it.
    pub busy_max: Span,
    /// Questions that were answered.
    pub questions: u64,
    /// Now: questions that wait.
    pub questions_waiting: usize,
    /// Now: answers that wait for room.
    pub answers_waiting: usize,
    /// Now: events on their way to the side thread.
    pub news_waiting: usize,
}

impl LoopStats {
    /// Turns, all of them.
    pub fn turns(&self) -> u64 {
        self.busy.iter().sum()
    }

    /// Adds what another loop says of itself.
    pub fn add(&mut self, other: &Self) {
        // Every field is named, so that a new one does not compile until it is added.
        let Self {
            busy,
            busy_sum,
            busy_max,
            questions,
            questions_waiting,
            answers_waiting,
            news_waiting,
        } = other;
        self.busy.iter_mut().zip(busy).for_each(|(sum, count)| *sum += count);
        self.busy_sum = self.busy_sum + *busy_sum;
        self.busy_max = self.busy_max.max(*busy_max);
        self.questions += questions;
        self.questions_waiting += questions_waiting;
        self.answers_waiting += answers_waiting;
        self.news_waiting += news_waiting;
    }
}

/// Times the turns of one loop by the moments that it reads anyway.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// When the latest sleep was over, until the next begins.
    woke_at: Option<Moment>,
    pub(super) stats: LoopStats,
}

impl Turns {
    /// The sleep is over.
    pub(super) fn on_woken(&mut self, now: Moment) {
        self.woke_at = Some(now);
    }

    /// The next sleep begins.
    pub(super) fn on_sleep(&mut self, now: Moment) {
        let Some(woke_at) = self.woke_at.take() else { return };
        let busy = now.since(woke_at);
        self.stats.busy[BUSY_BOUNDS.partition_point(|bound| *bound < busy)] += 1;
        self.stats.busy_sum = self.stats.busy_sum + busy;
        self.stats.busy_max = self.stats.busy_max.max(busy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_busy_from_the_end_of_a_sleep_to_the_next() {
        let mut turns = Turns::default();
        let at = |micros| Moment::ZERO + Span::from_micros(micros);
        turns.on_sleep(at(5));
        assert_eq!(turns.stats.turns(), 0, "nothing was seen of it");
        turns.on_woken(at(1_000));
        turns.on_sleep(at(1_020));
        turns.on_woken(at(9_000));
        turns.on_sleep(at(9_021));
        turns.on_sleep(at(99_021));
        turns.on_woken(at(100_000));
        turns.on_sleep(at(5_000_000));
        let mut stats = turns.stats;
        assert_eq!((stats.turns(), stats.busy[0], stats.busy[1]), (3, 1, 1));
        assert_eq!(stats.busy[BUSY_BOUNDS.len()], 1);
        assert_eq!(stats.busy_max, Span::from_micros(4_900_000));
        assert_eq!(stats.busy_sum, Span::from_micros(4_900_041));
        stats.add(&stats.clone());
        assert_eq!((stats.turns(), stats.busy_max), (6, Span::from_micros(4_900_000)));
    }
}
