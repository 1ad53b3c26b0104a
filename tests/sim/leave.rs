//! What an operator orders when clients are to leave: anything that can be said.

use fastrand::Rng;
use heartwheel::base::time::Span;
use heartwheel::gateway::{Drain, Pace, Rebalance};

use crate::faults::span_upto;

/// A drain that ends after `within`.
pub(crate) fn drain(rng: &mut Rng, within: Span) -> Drain {
    let notice = match rng.bool() {
        true => Span::ZERO,
        false => span_upto(rng, within.divided_by(2)),
    };
    Drain { within: Some(within), notice, pace: pace(rng) }
}

/// Any part, at any pace.
pub(crate) fn rebalance(rng: &mut Rng) -> Rebalance {
    Rebalance {
        parts_per_million: rng.u32(0..=1_000_000),
        within: rng.bool().then(|| span_upto(rng, Span::from_secs(5))),
        pace: pace(rng),
        window: None,
    }
}

fn pace(rng: &mut Rng) -> Pace {
    match rng.usize(0..4) {
        0 => Pace::AtOnce,
        1 => Pace::Spread,
        _ => Pace::PerSecond(rng.u32(1..50)),
    }
}
