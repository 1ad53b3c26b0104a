//! Saying that somebody does not answer: once in a while, however often it fails and recovers.

use crate::base::limits;
use crate::base::time::Moment;

/// What was said of somebody who fails.
#[derive(Default)]
pub(crate) struct Complaint {
    /// Since the last success.
    failures: u64,
    said_at: Option<Moment>,
    /// Whether the log knows of the failures since the last success.
    is_said: bool,
}

impl Complaint {
    /// It failed. How often it did since its last success, if that is to be said now.
    pub(crate) fn on_failed(&mut self, now: Moment) -> Option<u64> {
        self.failures += 1;
        let is_due = |at: Moment| now.since(at) >= limits::WEBHOOK_LOG_PAUSE;
        if !self.said_at.is_none_or(is_due) {
            return None;
        }
        (self.said_at, self.is_said) = (Some(now), true);
        Some(self.failures)
    }

    /// It did not. How often it had failed, if that is to be taken back.
    pub(crate) fn on_succeeded(&mut self) -> Option<u64> {
        let failures = std::mem::take(&mut self.failures);
        std::mem::take(&mut self.is_said).then_some(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_now_and_then_is_said_once_in_a_while() {
        let (mut complaint, mut said) = (Complaint::default(), (0, 0));
        let pause = limits::WEBHOOK_LOG_PAUSE;
        for number in 0..100 {
            let now = Moment::ZERO + pause.divided_by(40).times(number);
            said.0 += u32::from(complaint.on_failed(now).is_some());
            said.1 += u32::from(complaint.on_succeeded().is_some());
        }
        assert_eq!(said, (3, 3));
    }
}
