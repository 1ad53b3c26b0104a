//! A point in time and a length of time, which are not the same thing.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, AddAssign, Sub};

/// A point on the monotonic clock, in nanoseconds since an origin that is fixed for one process.
///
/// The core never asks what time it is; it is told a `Moment`. 64 bits of nanoseconds last 584
/// years, so arithmetic saturates only where a caller made an error. An `Option<Moment>` is no
/// larger than a `Moment`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Moment(
    /// Nanoseconds since the origin, and one.
    NonZeroU64,
);

/// A length of time, in nanoseconds. Never negative.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span(u64);

/// A length of time in whole milliseconds, up to 49 days, in four bytes: as the wire carries it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Millis(u32);

impl Moment {
    /// The origin of the clock.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// The moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// The moment `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole milliseconds since the origin, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.as_nanos() / 1_000_000
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Moment {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Millis {
    /// The span, rounded up, so that nothing comes early by it; at most 49 days.
    pub const fn at_least(span: Span) -> Self {
        let millis = span.0.div_ceil(1_000_000);
        Self(if millis > u32::MAX as u64 { u32::MAX } else { lower_half(millis) })
    }

    /// The span.
    pub const fn span(self) -> Span {
        // No product of 32 and 20 bits saturates.
        Span(self.0 as u64 * 1_000_000)
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A span of `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// A span of `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// A span of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds, rounded down.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole milliseconds, rounded down, or the largest `u32` when there are more.
    pub const fn as_millis_u32(self) -> u32 {
        let millis = self.as_millis();
        if millis > u32::MAX as u64 { u32::MAX } else { lower_half(millis) }
    }

    /// Seconds, with their fraction.
    pub fn as_secs_f64(self) -> f64 {
        std::time::Duration::from(self).as_secs_f64()
    }

    /// This span `factor` times over.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// The `divisor`-th part of this span, rounded down. `divisor` must not be zero.
    #[must_use]
    pub const fn divided_by(self, divisor: u64) -> Self {
        Self(self.0 / divisor)
    }

    /// What is left of this span after `other`; zero when nothing is.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "who calls has compared it with u32::MAX")]
const fn lower_half(number: u64) -> u32 {
    number as u32
}

impl Add<Span> for Moment {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Moment {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub<Span> for Moment {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(NonZeroU64::new(self.0.get().saturating_sub(span.0)).unwrap_or(NonZeroU64::MIN))
    }
}

impl Add for Span {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl From<std::time::Duration> for Span {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        Self::from_nanos(span.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            nanos if nanos.is_multiple_of(1_000_000_000) => write!(f, "{}s", nanos / 1_000_000_000),
            nanos if nanos < 1_000 => write!(f, "{nanos}ns"),
            nanos if nanos < 1_000_000 => write!(f, "{}us", nanos / 1_000),
            nanos if nanos < 10_000_000_000 => write!(f, "{}ms", nanos / 1_000_000),
            nanos => write!(f, "{}s", nanos / 1_000_000_000),
        }
    }
}

/// What the wall clock says at a [`Moment`]: turns moments into dates where people read them.
///
/// Nothing is ever decided by it. It is taken anew from time to time, so that a date stays right
/// when the machine's clock is set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WallAnchor {
    /// Milliseconds since 1970-01-01 UTC at [`Moment::ZERO`]. Negative when the monotonic clock is
    /// ahead of a wall clock that was never set.
    pub unix_millis_at_zero: i64,
}

impl WallAnchor {
    /// Milliseconds since 1970-01-01 UTC at `moment`; zero for dates before 1970.
    pub fn unix_millis(self, moment: Moment) -> u64 {
        let since_zero = i64::try_from(moment.as_millis()).unwrap_or(i64::MAX);
        u64::try_from(self.unix_millis_at_zero.saturating_add(since_zero)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_minus_a_later_one_is_no_time() {
        let early = Moment::from_millis(5);
        let late = Moment::from_millis(7);
        assert_eq!(late.since(early), Span::from_millis(2));
        assert_eq!(early.since(late), Span::ZERO);
    }

    #[test]
    fn a_moment_costs_nothing_more_where_there_may_be_none() {
        assert_eq!(size_of::<Option<Moment>>(), size_of::<Moment>());
        assert_eq!(Moment::from_nanos(0), Moment::ZERO);
        assert_eq!(Moment::default(), Moment::ZERO);
        assert_eq!(Moment::from_nanos(7) - Span::from_nanos(7), Moment::ZERO);
        assert_eq!(Moment::from_nanos(7) - Span::from_nanos(8), Moment::ZERO);
        assert_eq!(Moment::from_nanos(8) - Span::from_nanos(1), Moment::from_nanos(7));
        let last = Moment::from_nanos(u64::MAX);
        assert_eq!(last.as_nanos(), u64::MAX - 1, "the last moment there is");
        assert_eq!(last + Span::from_nanos(1), last);
    }

    #[test]
    fn short_spans_are_never_shorter() {
        for (span, millis) in [
            (Span::ZERO, 0),
            (Span::from_nanos(1), 1),
            (Span::from_millis(1), 1),
            (Span::from_micros(1_001), 2),
            (Span::from_millis(u64::from(u32::MAX)), u64::from(u32::MAX)),
            (Span::from_nanos(u64::MAX), u64::from(u32::MAX)),
        ] {
            assert_eq!(Millis::at_least(span).span(), Span::from_millis(millis), "{span}");
        }
    }

    #[test]
    fn spans_are_shown_with_a_unit_a_person_would_choose() {
        for (span, text) in [
            (Span::from_nanos(17), "17ns"),
            (Span::from_micros(17), "17us"),
            (Span::from_millis(1_500), "1500ms"),
            (Span::from_secs(5), "5s"),
            (Span::ZERO, "0s"),
            (Span::from_secs(35), "35s"),
        ] {
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn the_anchor_turns_moments_into_dates() {
        let anchor = WallAnchor { unix_millis_at_zero: 1_000 };
        assert_eq!(anchor.unix_millis(Moment::from_millis(234)), 1_234);
        let unset = WallAnchor { unix_millis_at_zero: -5_000 };
        assert_eq!(unset.unix_millis(Moment::from_millis(1_000)), 0);
    }
}
