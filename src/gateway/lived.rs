//! The gateway's own time: the clock less the time in which we stood still.
//!
//! When the process, the machine or the loop stands still, clients can neither be heard nor asked.
//! Such a gap is credited to all of them at once: everything below counts in lived moments, which
//! simply did not pass in the gap. That costs one addition, however many clients there are.

use std::collections::VecDeque;

use crate::base::limits;
use crate::base::time::{Moment, Span};

/// Turns the clock's moments into lived ones, and back.
pub(crate) struct LivedTime {
    /// The latest moment of the clock that we were told.
    told_at: Moment,
    /// How long we stood still, all gaps together.
    credit: Span,
    /// The latest gaps, oldest first.
    stalls: VecDeque<Stall>,
}

/// A gap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stall {
    /// The lived moment at which it began. It ended an instant later.
    pub(crate) at: Moment,
    /// How long it was.
    pub(crate) gap: Span,
}

impl LivedTime {
    pub(crate) fn new(now: Moment) -> Self {
        Self { told_at: now, credit: Span::ZERO, stalls: VecDeque::new() }
    }

    /// The latest moment of the clock that we were told.
    pub(crate) fn told_at(&self) -> Moment {
        self.told_at
    }

    /// We are told that it is `now`. A gap since we were last told anything is credited, and
    /// returned: nobody who calls when asked to leaves one.
    pub(crate) fn on_told(&mut self, now: Moment) -> Option<Stall> {
        let gap = now.since(self.told_at);
        if gap <= limits::SLEEP_MAX + limits::STALL_THRESHOLD {
            self.told_at = self.told_at.max(now);
            return None;
        }
        let stall = Stall { at: self.lived(self.told_at), gap };
        self.credit = self.credit + stall.credited();
        self.told_at = now;
        if self.stalls.len() == limits::STALLS_KEPT_MAX {
            self.stalls.pop_front();
        }
        self.stalls.push_back(stall);
        Some(stall)
    }

    /// The lived moment of a moment of the clock not before the latest gap.
    pub(crate) fn lived(&self, clock: Moment) -> Moment {
        clock - self.credit
    }

    /// The clock's moment of something that will happen at this lived moment, if there is no
    /// further gap until then.
    pub(crate) fn expected(&self, lived: Moment) -> Moment {
        lived + self.credit
    }

    /// What the clock said at a lived moment of the past. Exact as long as the gaps since then are
    /// remembered.
    pub(crate) fn clock(&self, lived: Moment) -> Moment {
        let credited = |sum, stall: &Stall| sum + stall.credited();
        self.expected(lived) - self.since(lived).fold(Span::ZERO, credited)
    }

    /// How long we stood still since this lived moment.
    pub(crate) fn stalled_since(&self, lived: Moment) -> Span {
        self.since(lived).fold(Span::ZERO, |sum, stall| sum + stall.gap)
    }

    fn since(&self, lived: Moment) -> impl Iterator<Item = &Stall> {
        self.stalls.iter().rev().take_while(move |stall| stall.at >= lived)
    }
}

impl Stall {
    /// What is taken out of time: an instant less than the gap, so that what is heard in the very
    /// call that ends it comes after it.
    fn credited(&self) -> Span {
        self.gap.minus(Span::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    #[test]
    fn a_sleep_is_no_gap_and_standing_still_is() {
        let mut time = LivedTime::new(at(0));
        assert_eq!(time.on_told(at(1_500)), None);
        assert_eq!(time.lived(at(1_500)), at(1_500));
        let stall = Stall { at: at(1_500), gap: Span::from_millis(60_000) };
        assert_eq!(time.on_told(at(61_500)), Some(stall));
        let instant = Span::from_nanos(1);
        assert_eq!(time.lived(at(61_500)), at(1_500) + instant, "the gap was not lived");
        assert_eq!(time.on_told(at(62_000)), None);
        assert_eq!(time.lived(at(62_000)), at(2_000) + instant);
        assert_eq!(time.expected(at(3_000) + instant), at(63_000));
    }

    #[test]
    fn what_happened_before_a_gap_keeps_its_date() {
        let mut time = LivedTime::new(at(0));
        let before = time.lived(at(1_000));
        assert_eq!(time.on_told(at(1_200)), None);
        assert!(time.on_told(at(11_200)).is_some());
        let between = time.lived(at(11_300));
        assert_eq!(time.on_told(at(11_400)), None);
        assert!(time.on_told(at(31_400)).is_some());
        let after = time.lived(at(31_500));
        assert_eq!(time.clock(before), at(1_000));
        assert_eq!(time.clock(between), at(11_300));
        assert_eq!(time.clock(after), at(31_500));
        assert_eq!(time.stalled_since(before), Span::from_secs(30));
        assert_eq!(time.stalled_since(between), Span::from_secs(20));
        assert_eq!(time.stalled_since(after), Span::ZERO);
    }

    #[test]
    fn what_is_heard_in_the_call_that_ends_a_gap_is_dated_behind_it() {
        let mut time = LivedTime::new(at(0));
        assert!(time.on_told(at(60_000)).is_some());
        let heard = time.lived(at(60_000));
        assert_eq!(time.clock(heard), at(60_000));
        assert_eq!(time.stalled_since(heard), Span::ZERO);
        assert_eq!(time.stalled_since(at(0)), Span::from_secs(60));
    }

    #[test]
    fn a_clock_that_runs_backwards_is_not_believed() {
        let mut time = LivedTime::new(at(5_000));
        assert_eq!(time.on_told(at(1_000)), None);
        assert_eq!(time.told_at(), at(5_000));
    }

    #[test]
    fn only_so_many_gaps_are_remembered() {
        let mut time = LivedTime::new(at(0));
        for count in 1..=100 {
            assert!(time.on_told(at(count * 10_000)).is_some());
        }
        assert_eq!(time.stalls.len(), limits::STALLS_KEPT_MAX);
        assert_eq!(time.lived(at(1_000_000)), Moment::from_nanos(100));
    }
}
