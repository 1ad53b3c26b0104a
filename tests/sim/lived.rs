//! Lived time, naively: every gap in which the gateway stood still, from when to when.

use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};

pub(crate) struct Lived {
    /// The latest moment that was told.
    pub(crate) told_at: Moment,
    gaps: Vec<Gap>,
}

struct Gap {
    from: Moment,
    upto: Moment,
}

impl Gap {
    fn span(&self) -> Span {
        self.upto.since(self.from)
    }

    /// What is taken out of time: all of it but the instant that lies between before and after.
    fn credit(&self) -> Span {
        self.span().minus(Span::from_nanos(1))
    }
}

impl Lived {
    pub(crate) fn new(now: Moment) -> Self {
        Self { told_at: now, gaps: Vec::new() }
    }

    /// Somebody is told that it is `now`. A gap since the last time is returned.
    pub(crate) fn on_told(&mut self, now: Moment) -> Option<Span> {
        let from = self.told_at;
        self.told_at = from.max(now);
        if now.since(from) <= limits::SLEEP_MAX + limits::STALL_THRESHOLD {
            return None;
        }
        self.gaps.push(Gap { from, upto: now });
        Some(now.since(from))
    }

    /// How much of the time between the two was lived.
    pub(crate) fn between(&self, from: Moment, upto: Moment) -> Span {
        self.gaps_in(from, upto).fold(upto.since(from), |lived, gap| lived.minus(gap.credit()))
    }

    /// How much of the time between the two was not.
    pub(crate) fn stalled(&self, from: Moment, upto: Moment) -> Span {
        self.gaps_in(from, upto).fold(Span::ZERO, |sum, gap| sum + gap.span())
    }

    /// When so much time will have been lived since `from`, if there is no further gap.
    pub(crate) fn due(&self, from: Moment, span: Span) -> Moment {
        self.gaps_from(from).iter().fold(from + span, |due, gap| due + gap.credit())
    }

    fn gaps_in(&self, from: Moment, upto: Moment) -> impl Iterator<Item = &Gap> {
        self.gaps_from(from).iter().take_while(move |gap| gap.upto <= upto)
    }

    /// Whether the gateway can still tell the date of what happened then: it remembers only the
    /// latest gaps.
    pub(crate) fn is_dated(&self, at: Moment) -> bool {
        self.gaps_from(at).len() <= limits::STALLS_KEPT_MAX
    }

    /// The gaps that did not begin before `from`, oldest first.
    fn gaps_from(&self, from: Moment) -> &[Gap] {
        &self.gaps[self.gaps.partition_point(|gap| gap.from < from)..]
    }
}
