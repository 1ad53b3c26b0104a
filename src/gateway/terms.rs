//! An interval and a grace in six bytes: a million sessions have them.

use crate::base::limits;
use crate::base::time::Span;

/// Bits that either has, in whole milliseconds.
const BITS: u32 = 22;
const MASK: u32 = (1 << BITS) - 1;

const _: () = assert!(limits::GRACE_MAX.as_millis() <= MASK as u64);
const _: () = assert!(limits::INTERVAL_MAX.as_millis() <= MASK as u64);

/// Both, each in whole milliseconds and rounded up. Between them is what the other one leaves free:
/// the grace's upper bits stand above the interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    upper: [u8; 4],
    lower: [u8; 2],
}

impl Terms {
    pub(crate) fn new(interval: Span, grace: Span) -> Self {
        let grace = bits(grace);
        let [low, high, top, _] = grace.to_le_bytes();
        let upper = (bits(interval) | u32::from(top) << BITS).to_le_bytes();
        Self { upper, lower: [low, high] }
    }

    pub(crate) fn interval(self) -> Span {
        Span::from_millis(u64::from(u32::from_le_bytes(self.upper) & MASK))
    }

    /// For how long a session is held when its connection is lost.
    pub(crate) fn grace(self) -> Span {
        let top = u32::from_le_bytes(self.upper) >> BITS;
        let low = u32::from(u16::from_le_bytes(self.lower));
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
                let terms = Terms::new(*interval, *grace);
                assert_eq!((terms.interval(), terms.grace()), (*interval, *grace));
            }
        }
        let terms = Terms::new(Span::from_nanos(1), Span::from_nanos(1));
        assert_eq!((terms.interval().as_millis(), terms.grace().as_millis()), (1, 1));
    }
}
