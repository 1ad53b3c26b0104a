//! A token bucket in one moment: how far ahead of its rate somebody is.

use crate::base::admission::Rate;
use crate::base::time::{Moment, Span};

/// When everything that was taken will have been made good. Full when that has passed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Bucket {
    even_at: Moment,
}

impl Bucket {
    /// Whether one more may be taken.
    pub(crate) fn has_room(self, rate: Rate, now: Moment) -> bool {
        self.even_at.since(now) + rate.cost(1) <= rate.tolerance()
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Moment) -> bool {
        let has_room = self.has_room(rate, now);
        if has_room {
            self.charge(rate.cost(1), now);
        }
        has_room
    }

    /// Takes what so much time makes good, whether it is there or not.
    pub(crate) fn charge(&mut self, cost: Span, now: Moment) {
        self.even_at = self.even_at.max(now) + cost;
    }

    /// Takes what so much time makes good, of which the last part was taken at `last` and took
    /// `part`: what came before may have been made good meanwhile, and that is not.
    pub(crate) fn charge_since(&mut self, cost: Span, part: Span, last: Moment) {
        if cost > Span::ZERO {
            self.even_at = (self.even_at + cost).max(last + part);
        }
    }

    /// Owes no more than what so much time makes good.
    pub(crate) fn owe_at_most(&mut self, debt: Span, now: Moment) {
        self.even_at = self.even_at.min(now + debt);
    }

    /// How long it takes until it is full.
    pub(crate) fn debt(self, now: Moment) -> Span {
        self.even_at.since(now)
    }

    /// Whether nothing is known of it that a new one would not know.
    pub(crate) fn is_full(self, now: Moment) -> bool {
        self.even_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    #[test]
    fn a_burst_is_there_at_once_and_the_rest_comes_at_the_rate() {
        let rate = Rate::per_second(10).with_burst(3);
        let mut bucket = Bucket::default();
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(taken(&mut bucket, at(5_000)), 3);
        assert_eq!(taken(&mut bucket, at(5_099)), 0);
        assert_eq!(taken(&mut bucket, at(5_100)), 1);
        assert_eq!(taken(&mut bucket, at(5_350)), 2);
        assert_eq!(taken(&mut bucket, at(60_000)), 3, "it does not run over");
        assert!(!bucket.is_full(at(60_299)) && bucket.is_full(at(60_300)));
    }

    #[test]
    fn debts_are_bounded() {
        let rate = Rate::per_second(10).with_burst(3);
        let mut bucket = Bucket::default();
        for _ in 0..1_000 {
            bucket.charge(rate.cost(1), at(0));
            bucket.owe_at_most(rate.tolerance().times(2), at(0));
        }
        assert_eq!(bucket.debt(at(0)), Span::from_millis(600));
        assert!(!bucket.has_room(rate, at(399)) && bucket.has_room(rate, at(400)));
    }
}
