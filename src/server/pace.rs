//! Whether beats come so densely that it pays to let several wait for each other, and for how long.
//!
//! A beat is in no hurry, and a login, a message or a question of the side thread is. Where much of
//! what comes is of these, or many of them come in a window, nothing waits: in a storm of logins
//! each would wait several times, and whoever opens the next when one is answered would be held to
//! so many a window. Where none of them has come for a second, the window grows step by step to
//! several times what was asked for, as long as TCP does not acknowledge by itself; the first of
//! them finds it so, and the next one does not.

use crate::base::limits;
use crate::base::time::{Moment, Span};

/// Beats in a window that are worth it.
const WORTH_IT: u64 = 2;
/// Windows after which the rate is looked at again.
const LOOK_EVERY: u64 = 4;
/// What is in a hurry does not wait where it is one for so many pieces of bytes that came. A login
/// counts twice: its connection, and the session that begins.
const MUCH: u64 = 4;
/// Nor where so many come in a window, however large the crowd: gathering itself holds a storm to
/// as many as are under way at once in a window, and must not take that for calm.
const MANY: u64 = 64;
/// Nothing but beats for so long is calm.
const CALM_AFTER: Span = Span::from_secs(1);

/// Decides how long the next sleep gathers.
#[derive(Debug)]
pub(super) struct Pace {
    window: Span,
    /// How many times that a sleep gathers for.
    stretch: u64,
    looked_at: Moment,
    received_by_then: u64,
    hurried_by_then: u64,
    pays: bool,
    /// What is in more of a hurry than beats, as it was counted last, and since when that is so.
    hurried: u64,
    calm_since: Moment,
}

impl Pace {
    /// Never gathers.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            window: Span::ZERO,
            stretch: 1,
            looked_at: now,
            received_by_then: 0,
            hurried_by_then: 0,
            pays: false,
            hurried: 0,
            calm_since: now,
        }
    }

    /// From now on gathers for `window` where it pays; zero: never.
    pub(super) fn set_window(&mut self, window: Span) {
        self.window = window.min(limits::COALESCE_MAX);
    }

    /// How long a sleep that begins now should gather, `received` pieces of bytes having come so
    /// far, and `hurried` of what is more than a beat: zero where hardly anything would be
    /// gathered, so that who is alone is answered at once, and where too much is in a hurry.
    pub(super) fn window(&mut self, now: Moment, received: u64, hurried: u64) -> Span {
        if hurried != self.hurried {
            self.hurried = hurried;
            self.calm_since = now;
            self.stretch = 1;
        }
        let elapsed = now.since(self.looked_at).as_nanos();
        let period = self.window.times(LOOK_EVERY).as_nanos();
        if period == 0 {
            return Span::ZERO;
        }
        if elapsed >= period {
            let windows = elapsed / self.window.as_nanos();
            let (came, in_a_hurry) =
                (received - self.received_by_then, hurried - self.hurried_by_then);
            let is_dense = came >= windows.saturating_mul(WORTH_IT);
            let is_much = in_a_hurry.saturating_mul(MUCH) >= came;
            let is_many = in_a_hurry >= windows.saturating_mul(MANY);
            self.pays = is_dense && !is_much && !is_many;
            (self.looked_at, self.received_by_then, self.hurried_by_then) =
                (now, received, hurried);
            if now.since(self.calm_since) >= CALM_AFTER {
                self.stretch = (self.stretch + 1).min(limits::COALESCE_STRETCH_MAX);
            }
        }
        match self.pays {
            true => self.stretched().max(self.window),
            false => Span::ZERO,
        }
    }

    fn stretched(&self) -> Span {
        self.window.times(self.stretch).min(limits::COALESCE_CALM_MAX)
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
                // In no calm: somebody logs in with every fifth beat.
                pace.window(now, received + beat, (received + beat) / 5) == WINDOW
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
    fn in_a_calm_crowd_beats_wait_longer_until_somebody_is_in_a_hurry() {
        let mut pace = Pace::new(Moment::ZERO);
        pace.set_window(WINDOW);
        let mut windows = Vec::new();
        for beat in 1..2_000 {
            let now = Moment::ZERO + Span::from_millis(2).times(beat);
            windows.push(pace.window(now, beat, 0));
        }
        let first = |window| windows.iter().position(|it| *it == window).expect("it comes");
        assert!(first(WINDOW.times(2)) >= 499, "not within a second");
        assert!(first(WINDOW.times(2)) < first(WINDOW.times(3)), "step by step");
        let longest = limits::COALESCE_CALM_MAX;
        assert_eq!(windows.iter().max(), Some(&longest));
        assert_eq!(windows.last(), Some(&longest));
        assert_eq!(pace.window(Moment::from_millis(5_000), 3_000, 1), WINDOW, "a login");
        assert_eq!(pace.window(Moment::from_millis(5_000), 3_000, 1), WINDOW);
    }

    #[test]
    fn no_window_grows_so_long_that_tcp_acknowledges_before_the_answer() {
        // What was asked for, and how long it is in a calm crowd.
        for (window_ms, grown_ms) in [(1, 5), (5, 25), (10, 40), (39, 40), (50, 50), (100, 100)] {
            let mut pace = Pace::new(Moment::ZERO);
            pace.set_window(Span::from_millis(window_ms));
            let beats = (1..10_000).map(|n| pace.window(Moment::from_millis(n), 4 * n, 0));
            assert_eq!(beats.last(), Some(Span::from_millis(grown_ms)), "{window_ms} ms");
        }
    }

    #[test]
    fn a_storm_of_logins_is_not_gathered() {
        // A beat or a HELLO each millisecond, and a login with one of so many.
        let gathering = |for_a_login: u64| {
            let mut pace = Pace::new(Moment::ZERO);
            pace.set_window(WINDOW);
            let gathers = |came: &u64| {
                let now = Moment::ZERO + Span::from_millis(1).times(*came);
                pace.window(now, *came, *came / for_a_login) > Span::ZERO
            };
            (1..10_000).filter(gathers).count()
        };
        assert_eq!(gathering(1), 0, "a storm");
        assert_eq!(gathering(3), 0, "the end of one");
        let crowd = gathering(300);
        assert!(crowd > 8_000, "a crowd that some come to: {crowd} of 10,000");
    }

    #[test]
    fn no_crowd_is_so_large_that_a_storm_is_gathered() {
        let mut pace = Pace::new(Moment::ZERO);
        pace.set_window(WINDOW);
        let (mut now, mut logins) = (Moment::ZERO, 0);
        // A million beat; of so many others each logs in anew as soon as it is answered.
        let mut gathering = |under_way: u64| {
            let rounds = (0..100).filter(|_| {
                let window = pace.window(now, 100 * now.as_millis() + logins, 2 * logins);
                now += window.max(Span::from_millis(1));
                logins += under_way;
                window > Span::ZERO
            });
            rounds.count()
        };
        assert!(gathering(0) > 50, "the crowd is gathered");
        let held_up = gathering(64);
        assert!(held_up <= 5, "the storm is, too, {held_up} times");
    }

    #[test]
    fn no_window_is_longer_than_allowed() {
        let mut pace = Pace::new(Moment::ZERO);
        pace.set_window(Span::from_secs(1_000));
        assert_eq!(pace.window, limits::COALESCE_MAX);
    }
}
