//! Until when everything is known to have been handed in.

use crate::base::limits;
use crate::base::time::Moment;

/// The least that a turn counts for, so that small turns come to an end as well.
const TURN_COUNTS_FOR_MIN: usize = 64;

/// What a turn handed in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Input {
    /// All that had arrived by this moment.
    Until(Moment),
    /// Perhaps not all that had arrived when it began, but so many completions.
    Part(usize),
}

/// Time may advance as far as everything was heard.
///
/// A flood can hide for ever whether that is so. Time must not wait for its end, or nobody would be
/// judged meanwhile: it follows at a distance of so many completions that whatever had arrived
/// before them is among them. What the flood still hides is found by the last look.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// When the first turn of those began that left something over, and what they handed in.
    behind: Option<(Moment, usize)>,
}

impl Hearing {
    /// Until when everything was handed in by the turn that began at `began`; `None`: that is not
    /// known yet.
    pub(super) fn until(&mut self, began: Moment, input: Input) -> Option<Moment> {
        let completions = match input {
            Input::Until(moment) => {
                self.behind = None;
                return Some(moment);
            }
            Input::Part(completions) => completions.max(TURN_COUNTS_FOR_MIN),
        };
        let (since, before) = self.behind.unwrap_or((began, 0));
        let completions = before + completions;
        if completions < limits::TURN_COMPLETIONS_MAX {
            self.behind = Some((since, completions));
            return None;
        }
        self.behind = Some((began, 0));
        Some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_a_flood_at_a_distance() {
        let mut hearing = Hearing::default();
        let at = Moment::from_millis;
        let (half, little) = (Input::Part(limits::TURN_COMPLETIONS_MAX / 2), Input::Part(0));
        for (name, began, input, until) in [
            ("all was read", at(1), Input::Until(at(1)), Some(at(1))),
            ("and until the sleep was over", at(1), Input::Until(at(2)), Some(at(2))),
            ("a flood begins", at(3), half, None),
            ("enough of it came", at(4), half, Some(at(3))),
            ("it goes on", at(5), half, None),
            ("and on", at(6), half, Some(at(4))),
            ("it is over", at(7), Input::Until(at(7)), Some(at(7))),
            ("another one begins", at(8), half, None),
            ("and is over before it was one", at(9), Input::Until(at(9)), Some(at(9))),
            ("one more", at(10), half, None),
            ("with a turn that brings nothing", at(11), little, None),
            ("enough, of itself", at(12), half, Some(at(10))),
        ] {
            assert_eq!(hearing.until(began, input), until, "{name}");
        }
    }

    #[test]
    fn time_does_not_wait_for_turns_that_bring_nothing() {
        let mut hearing = Hearing::default();
        let turns = (1..2_000).map(Moment::from_millis);
        let heard: Vec<_> =
            turns.filter_map(|began| hearing.until(began, Input::Part(0))).collect();
        assert_eq!(heard, [Moment::from_millis(1)]);
    }
}
