//! How long things took: every measurement counts, and memory does not grow with them.

use hdrhistogram::Histogram;

use crate::base::time::Span;

/// Longest time told apart from longer ones.
const LONGEST: Span = Span::from_secs(60 * 60);
/// Three digits are kept of every measurement.
const DIGITS: u8 = 3;

/// Lengths of time, from a microsecond to an hour, each kept to three digits.
#[derive(Clone, Debug)]
pub struct Latencies {
    micros: Histogram<u64>,
}

/// What is told about many lengths of time; all zero when there were none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// The shortest.
    pub min: Span,
    /// Half of them were no longer than this.
    pub p50: Span,
    /// Nine of ten.
    pub p90: Span,
    /// 99 of 100.
    pub p99: Span,
    /// 999 of 1,000.
    pub p999: Span,
    /// The longest.
    pub max: Span,
}

impl Latencies {
    /// Nothing measured yet.
    pub fn new() -> Self {
        let micros = Histogram::new_with_bounds(1, LONGEST.as_micros(), DIGITS)
            .expect("the bounds are constants that hdrhistogram accepts");
        Self { micros }
    }

    /// Counts one. Longer than an hour counts as an hour. O(1).
    pub fn record(&mut self, span: Span) {
        self.micros.saturating_record(span.as_micros());
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// What is told about all of them.
    pub fn summary(&self) -> Summary {
        if self.micros.is_empty() {
            return Summary::default();
        }
        let at = |quantile| Span::from_micros(self.micros.value_at_quantile(quantile));
        Summary {
            count: self.micros.len(),
            min: Span::from_micros(self.micros.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Span::from_micros(self.micros.max()),
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut latencies = Latencies::new();
        for millis in 1..=1_000 {
            latencies.record(Span::from_millis(millis));
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 1_000);
        for (name, found, millis) in [
            ("min", summary.min, 1),
            ("p50", summary.p50, 500),
            ("p90", summary.p90, 900),
            ("p99", summary.p99, 990),
            ("p999", summary.p999, 999),
            ("max", summary.max, 1_000),
        ] {
            let error = found.as_micros().abs_diff(millis * 1_000);
            assert!(error <= millis, "{name}: {found} is not {millis} ms to three digits");
        }
    }

    #[test]
    fn nothing_measured_is_nothing_told() {
        assert_eq!(Latencies::new().summary(), Summary::default());
    }

    #[test]
    fn what_is_off_the_scale_is_kept_at_its_end() {
        let mut latencies = Latencies::new();
        latencies.record(Span::ZERO);
        latencies.record(Span::from_secs(100_000));
        let summary = latencies.summary();
        assert_eq!(summary.count, 2);
        assert_eq!(summary.min, Span::ZERO);
        assert!(summary.max >= LONGEST);
    }
}
