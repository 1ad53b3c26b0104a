//! How a client beat: a few bytes that every session can afford.

use crate::base::time::Span;

/// Gaps between beats that are remembered.
pub const GAPS_KEPT: usize = 8;

/// Bits of a float behind those that a code keeps.
const DROPPED_BITS: u32 = 20;
/// The exponent of a float whose value is 1, and three bits of its fraction.
const CODE_OF_ONE: u32 = 1.0_f32.to_bits() >> DROPPED_BITS;
/// Gaps get codes from an eighth of 2 to this in nanoseconds on: about a millisecond.
const GAP_LOG: u32 = 23;
/// Answers get codes from an eighth of 2 to this in nanoseconds on: about 8 microseconds.
const ANSWER_LOG: u32 = 16;

/// A length of time as the bits of a float of its nanoseconds and 2 to the `log`. They sort as the
/// lengths do.
#[allow(clippy::cast_precision_loss, reason = "24 bits of a length of time are exact enough")]
const fn bits_of(span: Span, log: u32) -> u32 {
    // As a signed number, for which processors have an instruction; 292 years are not seen.
    (span.as_nanos().wrapping_add(1 << log).cast_signed() as f32).to_bits()
}

/// The length of time that has these bits.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
const fn span_of(bits: u32, log: u32) -> Span {
    Span::from_nanos((f32::from_bits(bits) as u64).saturating_sub(1 << log))
}

/// A length of time in one byte: in eight steps to the octave where it is long, and in steps of an
/// eighth of 2 to the `log` nanoseconds where it is short. Zero: shorter than one such step.
/// Lengths of more than 2 to the `log + 32` nanoseconds have none.
const fn code_of(bits: u32, log: u32) -> u8 {
    (bits >> DROPPED_BITS).wrapping_sub(CODE_OF_ONE + 8 * log).to_le_bytes()[0]
}

/// The middle of the lengths that have this code.
const fn value_of(code: u8, log: u32) -> Span {
    let bits = (code as u32 + CODE_OF_ONE + 8 * log) << DROPPED_BITS;
    span_of(bits | 1 << (DROPPED_BITS - 1), log)
}

/// What is remembered of the beats of one session: 16 bytes, and a few instructions a beat.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pulse {
    /// Codes of the latest gaps; the latest one's in the lowest byte. A zero is no gap.
    gaps: u64,
    beats: u32,
    /// Its bits.
    longest: u32,
}

impl Pulse {
    /// Notes a beat that came so long after the one before. Beats within a millisecond or so are
    /// counted, and are one in the timeline.
    #[inline]
    pub fn note(&mut self, gap: Span) {
        let bits = bits_of(gap, GAP_LOG);
        let code = code_of(bits, GAP_LOG);
        self.gaps = (self.gaps << (u32::from(code > 0) * u8::BITS)) | u64::from(code);
        self.beats = self.beats.wrapping_add(1);
        self.longest = self.longest.max(bits);
    }

    /// Complete frames since the session began, not counting the one that began it. They begin
    /// again at zero after four billion.
    pub fn beats(&self) -> u32 {
        self.beats
    }

    /// The longest time between two of them so far, to one in a million.
    pub fn longest_gap(&self) -> Span {
        span_of(self.longest, GAP_LOG)
    }

    /// The latest gaps between beats, oldest first, each to within 7 percent; at most
    /// [`GAPS_KEPT`].
    pub fn gaps(&self) -> impl Iterator<Item = Span> {
        let codes = self.gaps.to_be_bytes().into_iter().filter(|code| *code > 0);
        codes.map(|code| value_of(code, GAP_LOG))
    }
}

/// How long an answer took, in one byte, to within 7 percent; or that there was none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AnswerTime(u8);

impl AnswerTime {
    /// It took so long; never none.
    pub fn of(span: Span) -> Self {
        Self(code_of(bits_of(span, ANSWER_LOG), ANSWER_LOG).max(1))
    }

    /// How long it took, if there was one.
    pub fn span(self) -> Option<Span> {
        (self.0 > 0).then(|| value_of(self.0, ANSWER_LOG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Millis;

    #[test]
    fn a_length_of_time_comes_back_out_of_a_byte_as_nearly_the_same() {
        let mut last = 0;
        for step in 0..3_000_u32 {
            let secs = 0.001 * 1.01_f64.powf(f64::from(step));
            let span = Span::from(std::time::Duration::from_secs_f64(secs.min(1.0e7)));
            let code = code_of(bits_of(span, GAP_LOG), GAP_LOG);
            assert!(code >= last, "{span}: codes grow with what they stand for");
            last = code;
            let back = value_of(code, GAP_LOG);
            let wrong = back.as_nanos().abs_diff(span.as_nanos());
            let allowed = (span.as_nanos() + (1 << GAP_LOG)) / 100 * 7;
            assert!(wrong <= allowed, "{span} came back as {back}");
        }
        let code = |nanos| code_of(bits_of(Span::from_nanos(nanos), GAP_LOG), GAP_LOG);
        assert_eq!((code(0), code((1 << 20) - 1), code(1 << 20)), (0, 0, 1));
        let longest = Millis::at_least(Span::from_nanos(u64::MAX)).span();
        assert!(code(longest.as_nanos()) > code(longest.as_nanos() / 2), "any timeout has a code");
    }

    fn gaps_ms(pulse: &Pulse) -> Vec<u64> {
        pulse.gaps().map(Span::as_millis).collect()
    }

    #[test]
    fn the_latest_gaps_are_remembered_in_order() {
        let mut pulse = Pulse::default();
        assert_eq!((pulse.beats(), pulse.longest_gap()), (0, Span::ZERO));
        assert!(gaps_ms(&pulse).is_empty());
        for secs in 1..=10 {
            pulse.note(Span::from_secs(secs));
        }
        let gaps = gaps_ms(&pulse);
        assert_eq!(gaps.len(), GAPS_KEPT);
        for (gap, secs) in gaps.iter().zip(3..) {
            assert!(gap.abs_diff(secs * 1_000) * 100 <= 7 * secs * 1_000, "{gaps:?}");
        }
        pulse.note(Span::from_millis(500));
        assert_eq!((pulse.beats(), gaps_ms(&pulse).len()), (11, GAPS_KEPT));
        let longest = pulse.longest_gap().as_micros();
        assert!(longest.abs_diff(10_000_000) <= 10, "{longest}");
    }

    #[test]
    fn beats_that_come_together_are_one_in_the_timeline() {
        let mut pulse = Pulse::default();
        pulse.note(Span::from_secs(15));
        let before = gaps_ms(&pulse);
        for _ in 0..100 {
            pulse.note(Span::from_micros(10));
        }
        assert_eq!((pulse.beats(), gaps_ms(&pulse)), (101, before));
    }

    #[test]
    fn an_answer_is_one_or_is_none() {
        assert_eq!(AnswerTime::default().span(), None);
        assert!(AnswerTime::of(Span::ZERO).span().is_some());
        let span = AnswerTime::of(Span::from_millis(40)).span().expect("there was one");
        assert!(span.as_micros().abs_diff(40_000) < 2_800, "{span}");
    }
}
