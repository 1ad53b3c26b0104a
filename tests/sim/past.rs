//! What is remembered of a device between its sessions.

use heartwheel::base::config::Rhythm;
use heartwheel::base::event::CloseReason;
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::wire::message::{Before, EndedBy};

use crate::lived::Lived;

pub(crate) struct Past {
    counted_since: Moment,
    comings: u32,
    fought_since: Moment,
    fights: u32,
    /// Its latest session ended by a verdict.
    pub(crate) verdict: Option<Verdict>,
}

pub(crate) struct Verdict {
    pub(crate) last_beat: Moment,
}

impl Past {
    pub(crate) fn new(now: Moment) -> Self {
        Self { counted_since: now, comings: 0, fought_since: now, fights: 0, verdict: None }
    }

    /// It comes online. Returns how often it did so before, of late.
    pub(crate) fn on_online(&mut self, lived: &Lived, now: Moment) -> u32 {
        if self.comings == 0 || lived.between(self.counted_since, now) > limits::FLAP_WINDOW {
            (self.counted_since, self.comings) = (now, 0);
        }
        self.comings += 1;
        self.comings - 1
    }

    /// Somebody else wants its name. Returns how many did of late, where that is too many.
    pub(crate) fn on_takeover(&mut self, lived: &Lived, now: Moment) -> Option<u32> {
        if self.fights == 0 || lived.between(self.fought_since, now) > limits::CONTEST_WINDOW {
            (self.fought_since, self.fights) = (now, 0);
        }
        self.fights += 1;
        if self.fights <= limits::CONTEST_FREE {
            return None;
        }
        self.fought_since = now;
        Some(self.fights)
    }

    /// Its session ended.
    pub(crate) fn on_offline(&mut self, reason: CloseReason, last_beat: Moment) {
        let is_verdict = reason == CloseReason::HeartbeatTimeout;
        self.verdict = is_verdict.then_some(Verdict { last_beat });
    }
}

impl Verdict {
    /// Whether the client shows that it was alive: it sent something that was never heard, and saw
    /// us close.
    pub(crate) fn is_wrong(&self, before: Option<Before>, rhythm: Rhythm, now: Moment) -> bool {
        let Some(before) = before else { return false };
        let ago = Span::from_millis(u64::from(before.last_beat_ago_ms));
        let unheard = ago + rhythm.interval.divided_by(2);
        before.ended_by == EndedBy::Server && now.since(self.last_beat) > unheard
    }
}
