//! At most one line of the log per cause and second.
//!
//! What strangers do to the port must not fill a disk. The number of what was left out is told with
//! the next line of the same cause, or when its second is over.

use crate::base::limits;
use crate::base::time::Moment;

/// Decides which lines are written. Pure: it is told the time. O(causes) per line, and there are at
/// most [`LOG_CAUSES_MAX`](limits::LOG_CAUSES_MAX); beyond that the one silent for longest is
/// forgotten.
#[derive(Clone, Debug)]
pub struct Limiter<C> {
    causes: Vec<Entry<C>>,
}

/// Whether a line is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It is, and tells how many of its cause were left out since the last one.
    Write {
        /// How many.
        suppressed: u64,
    },
    /// It is not, but it is counted.
    Suppress,
}

#[derive(Clone, Debug)]
struct Entry<C> {
    cause: C,
    written_at: Moment,
    suppressed: u64,
}

impl<C> Default for Limiter<C> {
    fn default() -> Self {
        Self { causes: Vec::new() }
    }
}

impl<C: Copy + Eq> Limiter<C> {
    /// Whether a line with this cause is written now.
    pub fn admit(&mut self, cause: C, now: Moment) -> Admission {
        if let Some(entry) = self.causes.iter_mut().find(|entry| entry.cause == cause) {
            if now.since(entry.written_at) < limits::LOG_PAUSE {
                entry.suppressed += 1;
                return Admission::Suppress;
            }
            entry.written_at = now;
            return Admission::Write { suppressed: std::mem::take(&mut entry.suppressed) };
        }
        if self.causes.len() >= limits::LOG_CAUSES_MAX {
            let oldest = (0..self.causes.len()).min_by_key(|index| self.causes[*index].written_at);
            self.causes.swap_remove(oldest.expect("the list is full, not empty"));
        }
        self.causes.push(Entry { cause, written_at: now, suppressed: 0 });
        Admission::Write { suppressed: 0 }
    }

    /// A cause whose second is over while lines of it were left out, and how many. Each is handed
    /// over once; call again until there is none.
    pub fn take_overdue(&mut self, now: Moment) -> Option<(C, u64)> {
        let overdue = |entry: &&mut Entry<C>| {
            entry.suppressed > 0 && now.since(entry.written_at) >= limits::LOG_PAUSE
        };
        let entry = self.causes.iter_mut().find(overdue)?;
        entry.written_at = now;
        Some((entry.cause, std::mem::take(&mut entry.suppressed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Admission = Admission::Write { suppressed: 0 };

    #[test]
    fn one_line_per_cause_and_second_and_the_rest_is_counted() {
        let mut limiter = Limiter::default();
        let at = Moment::from_millis;
        assert_eq!(limiter.admit('a', at(0)), WRITE);
        assert_eq!(limiter.admit('b', at(1)), WRITE);
        for millis in [1, 500, 999] {
            assert_eq!(limiter.admit('a', at(millis)), Admission::Suppress);
        }
        assert_eq!(limiter.admit('a', at(1_000)), Admission::Write { suppressed: 3 });
        assert_eq!(limiter.admit('a', at(1_001)), Admission::Suppress);
        assert_eq!(limiter.admit('b', at(1_001)), WRITE);
    }

    #[test]
    fn what_was_left_out_is_told_even_if_nothing_follows() {
        let mut limiter = Limiter::default();
        let at = Moment::from_millis;
        limiter.admit('a', at(0));
        limiter.admit('a', at(10));
        limiter.admit('b', at(10));
        assert_eq!(limiter.take_overdue(at(999)), None);
        assert_eq!(limiter.take_overdue(at(1_000)), Some(('a', 1)));
        assert_eq!(limiter.take_overdue(at(1_000)), None);
        assert_eq!(limiter.admit('a', at(1_500)), Admission::Suppress);
    }

    #[test]
    fn many_causes_do_not_grow_the_list() {
        let mut limiter = Limiter::default();
        for cause in 0..10 * limits::LOG_CAUSES_MAX {
            let now = Moment::from_nanos(cause as u64);
            assert_eq!(limiter.admit(cause, now), WRITE);
            assert!(limiter.causes.len() <= limits::LOG_CAUSES_MAX);
        }
    }
}
