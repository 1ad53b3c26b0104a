//! What the service manager hears: that clients can come, that the loops turn, that it ends.
//!
//! There is no timer here. A sign of life is sent when the reports of all loops have come in, and
//! none of them is old: a loop that stands still is silent, and so are we.

use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::{Leaving, Stats};
use crate::os::supervisor::Supervisor;

/// Between two lines for people.
const STATUS_PAUSE: Span = Span::from_secs(5);
/// A drain may take longer than the manager waits for an end; each time it is told so, it waits for
/// so long more. Several reports come in that time.
const STOP_EXTENSION: Span = Span::from_secs(15);

/// Feeds the service manager with what the loops report.
#[derive(Debug)]
pub struct Watchdog {
    supervisor: Supervisor,
    /// For how long it waits for a sign of life; `None`: it does not.
    patience: Option<Span>,
    fed_at: Option<Moment>,
    said_at: Option<Moment>,
    /// Whether it heard that this is the end.
    is_stopping: bool,
}

impl Watchdog {
    /// Tells `supervisor`, which acts when it has heard nothing for `patience`.
    pub fn new(supervisor: Supervisor, patience: Option<Span>) -> Self {
        Self { supervisor, patience, fed_at: None, said_at: None, is_stopping: false }
    }

    /// All loops have reported, the one that is silent longest at `oldest`.
    pub(crate) fn on_report(&mut self, oldest: Moment, stats: &Stats, now: Moment) {
        if let Some(lines) = self.lines(oldest, stats, now) {
            self.supervisor.tell(&lines);
        }
    }

    fn lines(&mut self, oldest: Moment, stats: &Stats, now: Moment) -> Option<String> {
        let mut lines = Vec::new();
        let is_end = stats.draining && !self.is_stopping;
        if is_end {
            self.is_stopping = true;
            lines.push("STOPPING=1".to_owned());
        }
        if self.is_fed(oldest, now) {
            lines.push("WATCHDOG=1".to_owned());
        }
        let is_due = |last: Option<Moment>| last.is_none_or(|at| now.since(at) >= STATUS_PAUSE);
        if is_end || is_due(self.said_at) {
            self.said_at = Some(now);
            lines.push(status(stats));
            if stats.draining {
                lines.push(format!("EXTEND_TIMEOUT_USEC={}", STOP_EXTENSION.as_micros()));
            }
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Whether a sign of life goes out: at half of the patience, as far as reports come so often.
    fn is_fed(&mut self, oldest: Moment, now: Moment) -> bool {
        let Some(patience) = self.patience else { return false };
        if now.since(oldest) > limits::HEALTH_REPORT_AGE_MAX.min(patience.divided_by(2)) {
            return false;
        }
        // The next chance is a report away.
        let pause = patience.divided_by(2).minus(limits::SLEEP_MAX);
        let is_due = self.fed_at.is_none_or(|at| now.since(at) >= pause);
        if is_due {
            self.fed_at = Some(now);
        }
        is_due
    }
}

fn status(stats: &Stats) -> String {
    let Stats { online, held, connections, leaving: Leaving { told, left, .. }, .. } = stats;
    match stats.draining {
        true => format!("STATUS=draining: {told} told, {left} left, {connections} still here"),
        false => format!("STATUS={online} online, {held} held"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::from_millis(secs * 1_000)
    }

    fn fed(watchdog: &mut Watchdog, oldest: Moment, now: Moment) -> bool {
        let lines = watchdog.lines(oldest, &Stats::default(), now);
        lines.is_some_and(|lines| lines.contains("WATCHDOG=1"))
    }

    #[test]
    fn it_is_fed_at_half_of_the_patience_by_reports_that_are_fresh() {
        let mut watchdog = Watchdog::new(Supervisor::default(), Some(Span::from_secs(20)));
        let fed_at: Vec<u64> =
            (0..40).filter(|now| fed(&mut watchdog, at(*now), at(*now))).collect();
        assert_eq!(fed_at, [0, 9, 18, 27, 36]);
        let old = at(100);
        assert!(fed(&mut watchdog, old, at(105)), "5 s are not old");
        assert!(!fed(&mut watchdog, old, at(120)), "one of the loops stands still");
        assert!(fed(&mut watchdog, at(121), at(121)), "and goes on");
    }

    #[test]
    fn nobody_is_fed_who_did_not_ask_for_it() {
        let mut watchdog = Watchdog::new(Supervisor::default(), None);
        assert!((0..40).all(|now| !fed(&mut watchdog, at(now), at(now))));
    }

    #[test]
    fn the_end_is_told_once_and_time_is_asked_for_as_long_as_it_lasts() {
        let mut watchdog = Watchdog::new(Supervisor::default(), None);
        let draining = Stats { draining: true, ..Stats::default() };
        let mut told = Vec::new();
        for now in 0..11 {
            told.extend(watchdog.lines(at(now), &draining, at(now)));
        }
        let count = |word| told.iter().filter(|lines| lines.contains(word)).count();
        assert_eq!(count("STOPPING=1"), 1);
        assert_eq!(count("EXTEND_TIMEOUT_USEC=15000000"), 3, "{told:?}");
        assert_eq!(count("STATUS=draining: 0 told"), 3);
    }
}
