//! Moments as ticks, and back.

use crate::base::time::{Moment, Span};
use crate::tracker::wheel::Tick;

/// The length of a tick, and a way to divide by it without dividing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickScale {
    tick_nanos: u64,
    /// 2^64 divided by the tick, rounded down.
    inverse: u64,
}

impl TickScale {
    /// Panics when the tick has no length.
    pub(crate) fn new(tick: Span) -> Self {
        let tick_nanos = tick.as_nanos();
        assert!(tick_nanos > 0, "a tick has a length");
        Self { tick_nanos, inverse: u64::MAX / tick_nanos }
    }

    /// The first tick that is not before the moment.
    #[inline]
    pub(crate) fn tick_at_or_after(self, moment: Moment) -> Tick {
        let (ticks, rest_nanos) = self.divide(moment);
        Tick(ticks + u64::from(rest_nanos > 0))
    }

    /// The last tick that is not after the moment.
    #[inline]
    pub(crate) fn tick_at_or_before(self, moment: Moment) -> Tick {
        Tick(self.divide(moment).0)
    }

    /// The moment a tick stands for.
    pub(crate) fn moment(self, tick: Tick) -> Moment {
        Moment::from_nanos(tick.0.saturating_mul(self.tick_nanos))
    }

    /// Quotient and remainder. The product with the inverse is the quotient or one less, because
    /// the inverse is too small by less than 1 + 1 / 2^64, and is multiplied by less than 2^64.
    #[inline]
    fn divide(self, moment: Moment) -> (u64, u64) {
        let nanos = moment.as_nanos();
        let product = u128::from(nanos) * u128::from(self.inverse);
        let ticks = u64::try_from(product >> 64).expect("the upper half of 128 bits");
        let rest_nanos = nanos - ticks * self.tick_nanos;
        if rest_nanos < self.tick_nanos {
            (ticks, rest_nanos)
        } else {
            (ticks + 1, rest_nanos - self.tick_nanos)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_divides_exactly() {
        let ticks_nanos = [1, 2, 3, 7, 1_000, 999_983, 1_000_000, 10_000_000, 1_000_000_000];
        for tick_nanos in ticks_nanos {
            let scale = TickScale::new(Span::from_nanos(tick_nanos));
            let around = |nanos: u64| [nanos.saturating_sub(1), nanos, nanos.saturating_add(1)];
            let last_multiple = u64::MAX / tick_nanos * tick_nanos;
            let random = (0..2_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let multiples = (0..64).map(|bit| (1_u64 << bit) / tick_nanos * tick_nanos);
            for nanos in multiples.chain([u64::MAX, last_multiple]).flat_map(around).chain(random) {
                // There is no moment of u64::MAX nanoseconds.
                let nanos = nanos.min(u64::MAX - 1);
                let moment = Moment::from_nanos(nanos);
                assert_eq!(scale.tick_at_or_before(moment).0, nanos / tick_nanos);
                assert_eq!(scale.tick_at_or_after(moment).0, nanos.div_ceil(tick_nanos));
            }
        }
    }

    #[test]
    fn a_tick_stands_for_its_first_moment() {
        let scale = TickScale::new(Span::from_millis(10));
        for (millis, at_or_before, at_or_after) in [(0, 0, 0), (1, 0, 1), (10, 1, 1), (11, 1, 2)] {
            let moment = Moment::from_millis(millis);
            assert_eq!(scale.tick_at_or_before(moment), Tick(at_or_before), "{millis} ms");
            assert_eq!(scale.tick_at_or_after(moment), Tick(at_or_after), "{millis} ms");
        }
        assert_eq!(scale.moment(Tick(7)), Moment::from_millis(70));
    }
}
