//! An interval, a grace and a beginning in nine bytes: a million sessions have them.

use crate::base::limits;
use crate::base::time::{Moment, Span};

/// Bits that either length has, in whole milliseconds.
const BITS: u32 = 22;
const MASK: u32 = (1 << BITS) - 1;
/// Where the upper bits of the grace end and those of the beginning are, above the interval.
const BEGINNING_SHIFT: u32 = BITS + (BITS - 16);
/// Latest beginning, in seconds; 8 years.
const BEGINNING_MAX: u32 = (1 << (24 + u32::BITS - BEGINNING_SHIFT)) - 1;

const _: () = assert!(limits::GRACE_MAX.as_millis() <= MASK as u64);
const _: () = assert!(limits::INTERVAL_MAX.as_millis() <= MASK as u64);

/// Two lengths of time, each in whole milliseconds and rounded up, and when the session began, in
/// whole seconds. The upper bits of the grace and of the beginning stand above the interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    upper: [u8; 4],
    grace: [u8; 2],
    began: [u8; 3],
}

impl Terms {
    pub(crate) fn new(interval: Span, grace: Span, began: Moment) -> Self {
        let [low, high, grace_top, _] = bits(grace).to_le_bytes();
        let seconds = u32::try_from(began.as_millis() / 1_000).unwrap_or(u32::MAX);
        let [first, second, third, began_top] = seconds.min(BEGINNING_MAX).to_le_bytes();
        let upper =
            bits(interval) | u32::from(grace_top) << BITS | u32::from(began_top) << BEGINNING_SHIFT;
        Self { upper: upper.to_le_bytes(), grace: [low, high], began: [first, second, third] }
    }

    /// The same session with another interval.
    pub(crate) fn with_interval(self, interval: Span) -> Self {
        let upper = u32::from_le_bytes(self.upper) & !MASK | bits(interval);
        Self { upper: upper.to_le_bytes(), ..self }
    }

    /// When the session began, to the second before: people ask for no more.
    pub(crate) fn began(self) -> Moment {
        let [first, second, third] = self.began;
        let [.., top] = self.upper;
        let top = top >> (BEGINNING_SHIFT - 24);
        let seconds = u32::from_le_bytes([first, second, third, top]);
        Moment::from_millis(u64::from(seconds) * 1_000)
    }

    pub(crate) fn interval(self) -> Span {
        Span::from_millis(u64::from(u32::from_le_bytes(self.upper) & MASK))
    }

    /// For how long a session is held when its connection is lost.
    pub(crate) fn grace(self) -> Span {
        let top = (u32::from_le_bytes(self.upper) >> BITS) & (MASK >> 16);
        let low = u32::from(u16::from_le_bytes(self.grace));
        Span::from_millis(u64::from(top << 16 | low))
    }
}

fn bits(span: Span) -> u32 {
    let millis = span.as_nanos().div_ceil(1_000_000);
    u32::try_from(millis).unwrap_or(MASK).min(MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_kept_to_the_millisecond() {
        let spans = (0..=3_600_000).step_by(99_991).chain([1, 65_535, 65_536, 3_600_000]);
        let spans: Vec<Span> = spans.map(Span::from_millis).collect();
        for interval in &spans {
            for grace in &spans {
                for seconds in [0, 1, 77_777_777, BEGINNING_MAX, BEGINNING_MAX + 1] {
                    let began = Moment::from_millis(u64::from(seconds) * 1_000 + 999);
                    let terms = Terms::new(*interval, *grace, began);
                    let kept = Moment::from_millis(u64::from(seconds.min(BEGINNING_MAX)) * 1_000);
                    assert_eq!((terms.interval(), terms.grace()), (*interval, *grace));
                    assert_eq!(terms.began(), kept);
                    let other = terms.with_interval(Span::from_millis(70));
                    assert_eq!((other.interval(), other.grace()), (Span::from_millis(70), *grace));
                    assert_eq!(other.began(), kept);
                }
            }
        }
        let nanosecond = Span::from_nanos(1);
        let terms = Terms::new(nanosecond, nanosecond, Moment::ZERO);
        assert_eq!((terms.interval().as_millis(), terms.grace().as_millis()), (1, 1));
    }
}
