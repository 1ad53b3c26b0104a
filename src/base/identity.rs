//! What a client has to show before it is who it says it is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::base::ids::{ClientId, ConnId};

/// How a client proves its id. Copies share what is secret, and no copy shows it.
#[derive(Clone, Default)]
pub enum Proof {
    /// Not at all: whoever says an id has it.
    #[default]
    None,
    /// By a word that it shares with us.
    Words(Arc<Words>),
    /// By a token that was made with one of these keys, for it and for a time.
    Keys(Arc<Keys>),
    /// By the name in its certificate and by nothing else.
    Certificate,
    /// By whatever somebody else says of its token, who is set up by what this is the hash of.
    Asked([u8; 32]),
}

impl Proof {
    /// Of what it was made. Two that are made of the same ask for the same.
    fn origin(&self) -> Option<(u8, &[u8; 32])> {
        match self {
            Self::None => None,
            Self::Certificate => Some((4, &[0; 32])),
            Self::Words(words) => Some((1, &words.origin)),
            Self::Keys(keys) => Some((2, &keys.origin)),
            Self::Asked(origin) => Some((3, origin)),
        }
    }
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        self.origin() == other.origin()
    }
}

impl Eq for Proof {}

impl fmt::Debug for Proof {
    /// Nothing of what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Certificate => "Certificate",
            Self::Words(_) => "Words(..)",
            Self::Keys(_) => "Keys(..)",
            Self::Asked(_) => "Asked(..)",
        })
    }
}

/// A token that somebody else has to look at.
pub struct Check {
    /// Who showed it; the answer has this as well.
    pub conn: ConnId,
    /// Who it says it is.
    pub client: ClientId,
    /// The token, secret.
    pub token: Box<[u8]>,
    /// Where it comes from.
    pub peer: SocketAddr,
}

impl fmt::Debug for Check {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({}, {}, {})", self.conn, self.client, self.peer)
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The client is who it says it is.
    Proven,
    /// It is not, as far as this token goes.
    Refuted,
    /// Nobody could say. It may try again.
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Proven, Self::Refuted, Self::Unknown];

    /// Its place among all.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Refuted => "refuted",
            Self::Unknown => "unknown",
        }
    }
}

/// The words of clients, as keyed hashes.
pub struct Words {
    key: [u8; 32],
    origin: [u8; 32],
    clients: BTreeMap<Box<str>, Digest>,
    /// The word of whoever has none of its own.
    others: Option<Digest>,
}

type Digest = [u8; 32];

impl Words {
    /// Nobody has one yet. `key` is secret, and `origin` is the hash of where they come from.
    pub fn new(key: [u8; 32], origin: [u8; 32]) -> Self {
        Self { key, origin, clients: BTreeMap::new(), others: None }
    }

    /// This client has this word. Whether it had none before.
    pub fn add(&mut self, client: &str, word: &[u8]) -> bool {
        let digest = self.hash(word).finalize().into_bytes().into();
        self.clients.insert(client.into(), digest).is_none()
    }

    /// All who have none of their own have this word. Whether they had none before.
    pub fn add_for_others(&mut self, word: &[u8]) -> bool {
        let digest = self.hash(word).finalize().into_bytes().into();
        self.others.replace(digest).is_none()
    }

    /// How many clients have one.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.others.is_none()
    }

    /// Whether this is the client's word. How long that takes says nothing about the right one, nor
    /// whether there is one.
    pub fn is_of(&self, client: &str, word: &[u8]) -> bool {
        let right = self.clients.get(client).or(self.others.as_ref());
        let is_right = self.hash(word).verify_slice(right.unwrap_or(&[0; 32])).is_ok();
        is_right && right.is_some()
    }

    fn hash(&self, word: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length");
        mac.update(word);
        mac
    }
}

/// Keys with which tokens are made. One signs, and others still count while keys are changed.
pub struct Keys {
    origin: [u8; 32],
    keys: Vec<Box<[u8]>>,
}

impl Keys {
    /// `origin` is the hash of where they come from.
    pub fn new(keys: Vec<Box<[u8]>>, origin: [u8; 32]) -> Self {
        Self { origin, keys }
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|key| &**key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_of_one_client_or_of_all_others() {
        let mut words = Words::new([7; 32], [1; 32]);
        assert!(words.is_empty());
        assert!(!words.is_of("anna", b""), "who has no word has not the empty one");
        assert!(!words.is_of("anna", &[0; 32]));
        assert!(words.add("anna", b"first"));
        assert!(!words.add("anna", b"second"), "she had one");
        assert!(words.is_of("anna", b"second"));
        assert!(!words.is_of("anna", b"first"));
        assert!(!words.is_of("bert", b"second"), "another client's");
        assert!(words.add_for_others(b"common"));
        assert!(words.is_of("bert", b"common"));
        assert!(!words.is_of("anna", b"common"), "she has one of her own");
    }

    #[test]
    fn what_is_secret_is_not_shown_and_is_the_same_by_its_origin() {
        let mut words = Words::new([7; 32], [1; 32]);
        words.add("anna", b"secret");
        let proof = Proof::Words(Arc::new(words));
        assert_eq!(format!("{proof:?}"), "Words(..)");
        assert_eq!(proof, Proof::Words(Arc::new(Words::new([8; 32], [1; 32]))));
        assert_ne!(proof, Proof::Words(Arc::new(Words::new([7; 32], [2; 32]))));
        assert_ne!(proof, Proof::Keys(Arc::new(Keys::new(Vec::new(), [1; 32]))));
        assert_ne!(proof, Proof::None);
        assert_ne!(Proof::Certificate, Proof::None);
    }
}
