//! The only place where the time is asked for.

use rustix::time::{ClockId, clock_gettime};

use crate::base::time::{Moment, Span, WallAnchor};

/// The monotonic clock of this machine.
///
/// Its origin is that of `CLOCK_MONOTONIC` itself, so all clocks of a process agree, on whatever
/// thread they were made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(());

impl Clock {
    /// A clock; costs nothing.
    pub const fn new() -> Self {
        Self(())
    }

    /// What it is now. About 25 ns, without entering the kernel.
    pub fn now(self) -> Moment {
        Moment::from_nanos(nanos_of(ClockId::Monotonic))
    }

    /// Sleeps. For side threads; the loop sleeps in its driver.
    pub fn sleep(self, span: Span) {
        std::thread::sleep(span.into());
    }

    /// What the wall clock says, tied to this clock.
    pub fn wall(self) -> WallAnchor {
        let unix_millis = nanos_of(ClockId::Realtime) / 1_000_000;
        let here_millis = self.now().as_millis();
        WallAnchor { unix_millis_at_zero: unix_millis.cast_signed() - here_millis.cast_signed() }
    }
}

/// Nanoseconds on a clock that is never negative: not before boot, not before 1970.
fn nanos_of(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let clock = Clock::new();
        let mut last = clock.now();
        assert!(last > Moment::ZERO);
        for _ in 0..1_000 {
            let now = Clock::new().now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_anchor_names_this_century() {
        let clock = Clock::new();
        let millis = clock.wall().unix_millis(clock.now());
        assert!(millis > 1_600_000_000_000, "{millis}");
        assert!(millis < 4_102_444_800_000, "{millis}");
    }
}
