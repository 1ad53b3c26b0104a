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
        upto.since(from).minus(self.stalled(from, upto))
    }

    /// How much of the time between the two was not.
    pub(crate) fn stalled(&self, from: Moment, upto: Moment) -> Span {
        let inside = self.gaps_from(from).iter().take_while(|gap| gap.upto <= upto);
        inside.fold(Span::ZERO, |sum, gap| sum + gap.span())
    }

    /// When so much time will have been lived since `from`, if there is no further gap.
    pub(crate) fn due(&self, from: Moment, span: Span) -> Moment {
        self.gaps_from(from).iter().fold(from + span, |due, gap| due + gap.span())
    }

    /// Whether the gateway can still tell the date of what happened then: it remembers only the
    /// latest gaps.
    pub(crate) fn is_dated(&self, at: Moment) -> bool {
        let is_at_an_end = self.gaps.iter().any(|gap| gap.upto == at); // FINDING F1
        self.gaps_from(at).len() <= limits::STALLS_KEPT_MAX && !is_at_an_end
    }

    /// The gaps that did not begin before `from`, oldest first.
    fn gaps_from(&self, from: Moment) -> &[Gap] {
        &self.gaps[self.gaps.partition_point(|gap| gap.from < from)..]
    }
}
