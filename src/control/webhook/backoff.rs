//! How long to wait before the next attempt.

use crate::base::limits;
use crate::base::time::Span;

/// Pauses that grow with the number of failures, up to a longest one, and are random below that, so
/// that many who fail at once do not come back at once. Pure: it is given its seed.
#[derive(Debug)]
pub(crate) struct Backoff {
    longest: Span,
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(longest: Span, seed: u64) -> Self {
        Self { longest, failures: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    /// All is well again: the next pause is among the short ones.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure: anything from nothing to a bound that doubles.
    pub(crate) fn next_pause(&mut self) -> Span {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        Span::from_nanos(self.rng.u64(0..=bound.as_nanos()))
    }

    fn bound(&self) -> Span {
        let factor = 1_u64.checked_shl(self.failures).unwrap_or(u64::MAX);
        limits::WEBHOOK_RETRY_BASE.times(factor).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread_over_all_below() {
        let longest = Span::from_secs(30);
        let mut sums = [0_u64; 80];
        for seed in 0..400 {
            let mut backoff = Backoff::new(longest, seed);
            for (failure, sum) in sums.iter_mut().enumerate() {
                let bound = limits::WEBHOOK_RETRY_BASE.times(1 << failure.min(30)).min(longest);
                let pause = backoff.next_pause();
                assert!(pause <= bound, "failure {failure}: {pause} is beyond {bound}");
                *sum += pause.as_millis();
            }
        }
        for (failure, sum) in sums.into_iter().enumerate() {
            let bound = limits::WEBHOOK_RETRY_BASE.times(1 << failure.min(30)).min(longest);
            let mean_ms = sum / 400;
            let middle_ms = bound.as_millis() / 2;
            let about = middle_ms * 8 / 10..=middle_ms * 12 / 10;
            assert!(about.contains(&mean_ms), "failure {failure}: {mean_ms} of {bound}");
        }
    }

    #[test]
    fn after_a_success_pauses_are_short_again() {
        let mut backoff = Backoff::new(Span::from_secs(60), 7);
        for _ in 0..20 {
            backoff.next_pause();
        }
        backoff.reset();
        assert!(backoff.next_pause() <= limits::WEBHOOK_RETRY_BASE);
    }
}
