//! What goes wrong in a world, and how often. Each seed turns a random subset on: a fault that is
//! always on hides what only happens without it.

use fastrand::Rng;
use heartwheel::base::time::Span;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    /// Received bytes are cut into small pieces.
    Cut,
    /// There are only a few receive buffers for everybody.
    Scarce,
    /// A receive ends because no buffer is left.
    Starve,
    /// A receive ends for the kernel's own reasons.
    Interrupt,
    /// The completion queue overflows: every receive ends at once.
    Overflow,
    /// A send takes only some of the bytes.
    ShortSend,
    /// The kernel takes its time with an operation.
    SlowKernel,
    /// What was received, or that something was sent, is told late.
    LateNews,
    /// A last look is answered late.
    SlowLook,
    /// An accept fails.
    Accept,
    /// The process stands still, up to three timeouts long, while the clients go on.
    Stall,
    /// It stands still so briefly that it is no stall.
    Nap,
    /// It stands still between what is received and the look at the time.
    StallInTurn,
    /// Everything stands still but the clock.
    Leap,
    /// A turn runs out of budget before it comes to look at the time.
    Hurry,
    /// Operations are handed to the kernel later than they could be.
    LateOps,
    /// The network is down for a while, for everybody.
    Blackout,
    /// Half of the clients vanish in the same instant.
    MassDeath,
    /// Half of the connections are reset in the same instant.
    MassReset,
    /// Every device connects again in the same instant.
    Storm,
    /// One client id connects again and again.
    Duel,
}

/// All of them, with the name for the command line and how often out of a thousand chances they
/// happen at the most.
pub(crate) const FAULTS: [(Fault, &str, u32); 21] = [
    (Fault::Cut, "cut", 800),
    (Fault::Scarce, "scarce", 1_000),
    (Fault::Starve, "starve", 300),
    (Fault::Interrupt, "interrupt", 200),
    (Fault::Overflow, "overflow", 10),
    (Fault::ShortSend, "short-send", 700),
    (Fault::SlowKernel, "slow-kernel", 500),
    (Fault::LateNews, "late-news", 300),
    (Fault::SlowLook, "slow-look", 500),
    (Fault::Accept, "accept", 300),
    (Fault::Stall, "stall", 100),
    (Fault::Nap, "nap", 100),
    (Fault::StallInTurn, "stall-in-turn", 50),
    (Fault::Leap, "leap", 5),
    (Fault::Hurry, "hurry", 300),
    (Fault::LateOps, "late-ops", 500),
    (Fault::Blackout, "blackout", 3),
    (Fault::MassDeath, "mass-death", 300),
    (Fault::MassReset, "mass-reset", 300),
    (Fault::Storm, "storm", 300),
    (Fault::Duel, "duel", 500),
];

impl Fault {
    pub(crate) fn word(self) -> &'static str {
        FAULTS[self as usize].1
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        FAULTS.iter().find(|(_, known, _)| *known == word).map(|(fault, _, _)| *fault)
    }
}

/// How often, out of a thousand chances, each thing goes wrong, and how often it did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    per_mille: [u32; FAULTS.len()],
    pub(crate) played: [u64; FAULTS.len()],
}

impl Faults {
    /// A random subset, each fault with a strength of its own; of those only what is `allowed`.
    pub(crate) fn swarm(rng: &mut Rng, allowed: Option<&[Fault]>) -> Self {
        let mut per_mille = [0; FAULTS.len()];
        for (fault, _, most) in FAULTS {
            let is_on = rng.bool();
            let strength = rng.u32(1..=most);
            let is_allowed = allowed.is_none_or(|allowed| allowed.contains(&fault));
            per_mille[fault as usize] = if is_on && is_allowed { strength } else { 0 };
        }
        Self { per_mille, played: [0; FAULTS.len()] }
    }

    /// Whether it can happen in this world.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.per_mille[fault as usize] > 0
    }

    /// Those that can happen in this world.
    pub(crate) fn all(&self) -> Vec<Fault> {
        FAULTS.iter().map(|(fault, _, _)| *fault).filter(|fault| self.has(*fault)).collect()
    }

    /// Whether it happens this time.
    pub(crate) fn strikes(&mut self, rng: &mut Rng, fault: Fault) -> bool {
        let does = happens(rng, self.per_mille[fault as usize]);
        self.played[fault as usize] += u64::from(does);
        does
    }

    /// It does not happen any more.
    pub(crate) fn forbid(&mut self, fault: Fault) {
        self.per_mille[fault as usize] = 0;
    }
}

/// Whether it happens this time. Takes the same from the randomness when it cannot, so that a world
/// without a fault goes the same way until the fault would have struck.
pub(crate) fn happens(rng: &mut Rng, per_mille: u32) -> bool {
    rng.u32(0..1_000) < per_mille
}

/// A span from zero to `longest`.
pub(crate) fn span_upto(rng: &mut Rng, longest: Span) -> Span {
    Span::from_nanos(rng.u64(0..=longest.as_nanos()))
}

/// A span of so many to so many hundredths of another.
pub(crate) fn part_of(rng: &mut Rng, span: Span, hundredths: std::ops::Range<u64>) -> Span {
    span.times(rng.u64(hundredths)).divided_by(100)
}

/// The randomness of one part of a world: it stays the same when other parts are left out.
pub(crate) fn stream(seed: u64, part: u64, nth: u64) -> Rng {
    let mixed = [part, nth].iter().fold(seed, |mixed, number| {
        let mixed = (mixed ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    });
    Rng::with_seed(mixed)
}

#[test]
fn every_fault_is_found_by_its_number_and_its_word() {
    for (index, (fault, word, most)) in FAULTS.into_iter().enumerate() {
        assert_eq!(fault as usize, index);
        assert_eq!(fault.word(), word);
        assert_eq!(Fault::from_word(word), Some(fault));
        assert!(most > 0);
    }
}
