//! How long a session is held, in two bytes: a million sessions have one each.

use crate::base::limits;
use crate::base::time::Span;

/// A unit in which every bound of a grace has room in 15 bits, in milliseconds.
const COARSE_MS: u64 = 125;
const COARSE: u16 = 1 << 15;

const _: () = assert!(limits::GRACE_MAX.as_millis() / COARSE_MS < COARSE as u64);

/// A length of time up to [`GRACE_MAX`](limits::GRACE_MAX): exact to the millisecond up to 32 s,
/// and beyond that in eighths of a second, rounded up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Grace(u16);

impl Grace {
    /// `span`, or the next longer one that can be kept.
    pub(crate) fn at_least(span: Span) -> Self {
        let millis = span.min(limits::GRACE_MAX).as_nanos().div_ceil(1_000_000);
        match u16::try_from(millis) {
            Ok(millis) if millis < COARSE => Self(millis),
            _ => Self(u16::try_from(millis.div_ceil(COARSE_MS)).unwrap_or(u16::MAX) | COARSE),
        }
    }

    pub(crate) fn span(self) -> Span {
        let count = u64::from(self.0 & !COARSE);
        let unit = if self.0 & COARSE == 0 { 1 } else { COARSE_MS };
        Span::from_millis(count * unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_kept_exactly_or_a_little_longer() {
        for millis in (0..3_600_000).step_by(997).chain([1, 32_767, 32_768, 40_000, 3_600_000]) {
            let span = Span::from_millis(millis);
            let kept = Grace::at_least(span).span();
            assert!(kept >= span && kept.minus(span) < Span::from_millis(COARSE_MS), "{millis}");
            if millis < 32_768 || millis % COARSE_MS == 0 {
                assert_eq!(kept, span, "{millis}");
            }
        }
        assert_eq!(Grace::at_least(Span::from_nanos(1)).span(), Span::from_millis(1));
        assert_eq!(Grace::at_least(Span::from_secs(9_999)).span(), limits::GRACE_MAX);
        assert_eq!(Grace::default().span(), Span::ZERO);
    }
}
