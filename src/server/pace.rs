//! Whether beats come so densely that it pays to let several wait for each other.

use crate::base::limits;
use crate::base::time::{Moment, Span};

/// Beats in a window that are worth it.
const WORTH_IT: u64 = 2;
/// Windows after which the rate is looked at again.
const LOOK_EVERY: u64 = 4;

/// Decides how long the next sleep gathers.
#[derive(Debug)]
pub(super) struct Pace {
    window: Span,
    looked_at: Moment,
    received_by_then: u64,
    is_dense: bool,
}

impl Pace {
    /// Never gathers.
    pub(super) fn new(now: Moment) -> Self {
        Self { window: Span::ZERO, looked_at: now, received_by_then: 0, is_dense: false }
    }

    /// From now on gathers for `window` where it pays; zero: never.
    pub(super) fn set_window(&mut self, window: Span) {
        self.window = window.min(limits::COALESCE_MAX);
    }

    /// How long a sleep that begins now should gather, `received` pieces of bytes having come so
    /// far: zero where hardly anything would be gathered, so that who is alone is answered at once.
    pub(super) fn window(&mut self, now: Moment, received: u64) -> Span {
        let elapsed = now.since(self.looked_at).as_nanos();
        let period = self.window.times(LOOK_EVERY).as_nanos();
        if period == 0 {
            return Span::ZERO;
        }
        if elapsed >= period {
            let windows = elapsed / self.window.as_nanos();
            self.is_dense = received - self.received_by_then >= windows.saturating_mul(WORTH_IT);
            self.looked_at = now;
            self.received_by_then = received;
        }
        if self.is_dense { self.window } else { Span::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Span = Span::from_millis(10);

    /// How many of `looks` sleeps gather while a beat comes every so often.
    fn gathering(pace: &mut Pace, between: Span, beats: u64) -> u64 {
        let (from, received) = (pace.looked_at, pace.received_by_then);
        (1..=beats)
            .filter(|beat| {
                let now = from + between.times(*beat);
                pace.window(now, received + beat) == WINDOW
            })
            .count() as u64
    }

    #[test]
    fn a_crowd_is_gathered_and_who_is_alone_is_not() {
        let mut pace = Pace::new(Moment::from_millis(7));
        assert_eq!(gathering(&mut pace, Span::from_millis(1), 1_000), 0, "nobody asked for it");
        pace.set_window(WINDOW);
        assert_eq!(gathering(&mut pace, Span::from_secs(1), 1_000), 0, "somebody alone");
        assert_eq!(gathering(&mut pace, Span::from_millis(11), 1_000), 0, "now and then");
        let dense = gathering(&mut pace, Span::from_millis(2), 1_000);
        assert!(dense >= 1_000 - 20, "{dense} of a dense thousand");
        assert!(gathering(&mut pace, Span::from_secs(2), 10) == 0, "the crowd has gone");
    }

    #[test]
    fn no_window_is_longer_than_allowed() {
        let mut pace = Pace::new(Moment::ZERO);
        pace.set_window(Span::from_secs(1_000));
        assert_eq!(pace.window, limits::COALESCE_MAX);
    }
}
