//! What goes wrong in a world, and how often. Each seed turns a random subset on: a fault that is
//! always on hides what only happens without it.

use fastrand::Rng;
use heartwheel::base::time::Span;

/// How often, out of a thousand chances, each thing goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Received bytes are cut into small pieces.
    pub(crate) cut: u32,
    /// A receive ends because no buffer is left.
    pub(crate) starve: u32,
    /// A receive ends for the kernel's own reasons.
    pub(crate) interrupt: u32,
    /// A send takes only some of the bytes.
    pub(crate) short_send: u32,
    /// The kernel takes its time with an operation.
    pub(crate) slow_kernel: u32,
    /// A last look is answered late.
    pub(crate) slow_look: u32,
    /// An accept fails.
    pub(crate) accept: u32,
    /// The process stands still, up to three timeouts long, while the clients go on.
    pub(crate) stall: u32,
    /// Everything stands still but the clock.
    pub(crate) leap: u32,
    /// A turn runs out of budget before it comes to look at the time.
    pub(crate) hurry: u32,
    /// Operations are handed to the kernel later than they could be.
    pub(crate) late_ops: u32,
}

impl Faults {
    /// A random subset, each fault with a strength of its own.
    pub(crate) fn swarm(rng: &mut Rng) -> Self {
        let mut some = |most: u32| if rng.bool() { rng.u32(1..=most) } else { 0 };
        Self {
            cut: some(800),
            starve: some(300),
            interrupt: some(200),
            short_send: some(700),
            slow_kernel: some(500),
            slow_look: some(500),
            accept: some(300),
            stall: some(10),
            leap: some(5),
            hurry: some(300),
            late_ops: some(500),
        }
    }
}

/// Whether it happens this time.
pub(crate) fn happens(rng: &mut Rng, per_mille: u32) -> bool {
    per_mille > 0 && rng.u32(0..1_000) < per_mille
}

/// A span from zero to `longest`.
pub(crate) fn span_upto(rng: &mut Rng, longest: Span) -> Span {
    Span::from_nanos(rng.u64(0..=longest.as_nanos()))
}

/// A span of so many to so many hundredths of another.
pub(crate) fn part_of(rng: &mut Rng, span: Span, hundredths: std::ops::Range<u64>) -> Span {
    span.times(rng.u64(hundredths)).divided_by(100)
}
