//! How late verdicts are: a histogram of fixed size.

use crate::base::time::Span;

/// Upper bounds of the buckets; the last bucket has none.
pub const LATENESS_BOUNDS: [Span; 14] = [
    Span::from_millis(1),
    Span::from_millis(2),
    Span::from_millis(5),
    Span::from_millis(10),
    Span::from_millis(20),
    Span::from_millis(50),
    Span::from_millis(100),
    Span::from_millis(200),
    Span::from_millis(500),
    Span::from_secs(1),
    Span::from_secs(2),
    Span::from_secs(5),
    Span::from_secs(10),
    Span::from_secs(60),
];

/// How many verdicts came how long after their deadlines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lateness {
    /// Verdicts in each bucket: at most [`LATENESS_BOUNDS`] late, and more than the bound before.
    pub buckets: [u64; LATENESS_BOUNDS.len() + 1],
    /// All of them.
    pub count: u64,
    /// All of their lateness.
    pub sum: Span,
    /// The latest one's.
    pub max: Span,
}

impl Lateness {
    pub(crate) fn note(&mut self, late: Span) {
        let bucket = LATENESS_BOUNDS.partition_point(|bound| *bound < late);
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum = self.sum + late;
        self.max = self.max.max(late);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
        self.count += other.count;
        self.sum = self.sum + other.sum;
        self.max = self.max.max(other.max);
    }

    /// A bound that this share of the verdicts kept, `share` from 0 to 1: the upper bound of the
    /// bucket in which the share is reached, or the maximum where that is less.
    pub fn quantile(&self, share: f64) -> Span {
        let mut rest = self.count as f64 * share.clamp(0.0, 1.0);
        for (bucket, count) in self.buckets.iter().enumerate() {
            rest -= *count as f64;
            if rest <= 0.0 {
                return LATENESS_BOUNDS.get(bucket).map_or(self.max, |bound| self.max.min(*bound));
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted_by_how_late_they_were() {
        let mut lateness = Lateness::default();
        for millis in [0, 1, 2, 3, 10, 11, 70_000] {
            lateness.note(Span::from_millis(millis));
        }
        assert_eq!(lateness.buckets[0], 2, "up to and with 1 ms");
        assert_eq!(lateness.buckets[1], 1);
        assert_eq!(lateness.buckets[14], 1, "beyond every bound");
        assert_eq!(lateness.count, 7);
        assert_eq!(lateness.max, Span::from_secs(70));
        assert_eq!(lateness.quantile(0.5), Span::from_millis(5));
        assert_eq!(lateness.quantile(1.0), Span::from_secs(70));
        assert_eq!(Lateness::default().quantile(0.99), Span::ZERO);
    }
}
