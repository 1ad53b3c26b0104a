//! How clients of a world have to prove who they are, what they show, and who looks at it.

use std::sync::Arc;

use fastrand::Rng;
use heartwheel::base::config::GatewayConfig;
use heartwheel::base::identity::{Check, Keys, Proof, Verdict, Words};
use heartwheel::wire::token;

use crate::faults::happens;
use crate::script::client_id;

const KEY: &[u8] = b"the key of the simulation";
/// What those share who have no word of their own.
const COMMON: &str = "everybody's word";
/// Behind the end of every world, and before the beginning of each, in seconds since 1970.
const LATER: u64 = 900_000_000;
const EARLIER: u64 = 5;

/// What is asked of a client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Guard {
    #[default]
    Nothing,
    Words,
    Keys,
    /// Somebody else looks at the token, and takes his time.
    Asked,
}

/// What the proof that a client shows is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Claim {
    /// Nothing is asked.
    Unneeded,
    /// It shows nothing.
    Missing,
    True,
    False,
    /// Nobody will be able to say.
    Open,
}

impl Guard {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        [Self::Nothing, Self::Nothing, Self::Words, Self::Keys, Self::Asked, Self::Asked]
            [rng.usize(0..6)]
    }

    /// Tells the gateway to ask for it.
    pub(crate) fn set_up(self, config: &mut GatewayConfig, devices: usize) {
        config.proof = match self {
            Self::Nothing => return,
            Self::Asked => Proof::Asked([1; 32]),
            Self::Keys => {
                let keys = vec![b"an older key".as_slice().into(), KEY.into()];
                Proof::Keys(Arc::new(Keys::new(keys, [1; 32])))
            }
            Self::Words => {
                let mut words = Words::new([7; 32], [1; 32]);
                words.add_for_others(COMMON.as_bytes());
                for device in (0..devices).filter(|device| has_own_word(*device)) {
                    words.add(&client_id(device), own_word(device).as_bytes());
                }
                Proof::Words(Arc::new(words))
            }
        };
        // Every world begins later than at zero.
        config.wall.unix_millis_at_zero = 1_000_000;
    }

    /// What a client shows: nearly always what proves it.
    pub(crate) fn show(self, rng: &mut Rng, device: usize) -> (Vec<u8>, Claim) {
        if self == Self::Nothing {
            return (Vec::new(), Claim::Unneeded);
        }
        let other = device + 1;
        let lie = if happens(rng, 250) { rng.u32(1..5) } else { 0 };
        let (token, claim) = match (self, lie) {
            (_, 4) => (String::new(), Claim::Missing),
            (Self::Nothing, _) => (String::new(), Claim::Unneeded),
            (Self::Words, 0) if has_own_word(device) => (own_word(device), Claim::True),
            (Self::Words, 0) => (COMMON.to_owned(), Claim::True),
            (Self::Words, 1) if has_own_word(device) => (COMMON.to_owned(), Claim::False),
            (Self::Words, _) => (own_word(other), Claim::False),
            (Self::Keys, 0) => (token::make(KEY, &client_id(device), LATER), Claim::True),
            (Self::Keys, 1) => (token::make(KEY, &client_id(device), EARLIER), Claim::False),
            (Self::Keys, 2) => (token::make(b"no key", &client_id(device), LATER), Claim::False),
            (Self::Keys, _) => (token::make(KEY, &client_id(other), LATER), Claim::False),
            (Self::Asked, 0) => (format!("true {}", client_id(device)), Claim::True),
            (Self::Asked, 1) => ("open".to_owned(), Claim::Open),
            (Self::Asked, _) => (format!("true {}", client_id(other)), Claim::False),
        };
        (token.into_bytes(), claim)
    }
}

/// What whoever is asked says of a token, who knows nothing of claims.
pub(crate) fn judge(check: &Check) -> Verdict {
    match &*check.token {
        b"open" => Verdict::Unknown,
        token if token == format!("true {}", check.client).as_bytes() => Verdict::Proven,
        _ => Verdict::Refuted,
    }
}

fn has_own_word(device: usize) -> bool {
    device.is_multiple_of(2)
}

fn own_word(device: usize) -> String {
    format!("the word of {device}")
}
