//! Who was proven a moment ago, so that nobody is asked again for each reconnect.

use std::collections::{HashMap, VecDeque};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::base::time::{Moment, Span};

/// A client and its token, as a keyed hash of both.
pub(crate) type Digest = [u8; 32];

/// Clients that were proven, each for the same time from the answer on. No token is in it.
///
/// ```text
/// order   oldest ─► ─► ─► newest     all hold for the same time, so that the oldest is over first:
/// until   digest ─► when it is over  making room takes one step, and nothing has to be searched
/// ```
///
/// Only proofs are kept. A refusal tells a client to stay away, which should not outlive its
/// reason, and whoever makes up tokens would drive out those that are good.
pub(crate) struct Cache {
    key: [u8; 32],
    entries_max: usize,
    age: Span,
    until: HashMap<Digest, Moment>,
    /// An entry that was noted again is in it twice, and counts twice.
    order: VecDeque<(Digest, Moment)>,
}

impl Cache {
    /// `key` is secret and of this start; without entries or age nothing is kept.
    pub(crate) fn new(key: [u8; 32], entries_max: usize, age: Span) -> Self {
        Self { key, entries_max, age, until: HashMap::new(), order: VecDeque::new() }
    }

    /// What stands for this client with this token; `None`: nothing is kept.
    pub(crate) fn digest(&self, client: &str, token: &[u8]) -> Option<Digest> {
        if self.entries_max == 0 || self.age == Span::ZERO {
            return None;
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length");
        // Where the one ends and the other begins is part of it.
        mac.update(&(client.len() as u64).to_be_bytes());
        mac.update(client.as_bytes());
        mac.update(token);
        Some(mac.finalize().into_bytes().into())
    }

    /// Whether it was proven so lately that this still counts.
    pub(crate) fn is_proven(&self, digest: &Digest, now: Moment) -> bool {
        self.until.get(digest).is_some_and(|until| now < *until)
    }

    /// It was proven just now.
    pub(crate) fn note(&mut self, digest: Digest, now: Moment) {
        let is_full = self.order.len() >= self.entries_max;
        if is_full {
            self.forget_oldest();
        }
        // Two go where one comes, so that what is over does not stay.
        if self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.forget_oldest();
        }
        let until = now + self.age;
        self.until.insert(digest, until);
        self.order.push_back((digest, until));
    }

    fn forget_oldest(&mut self) {
        let Some((digest, until)) = self.order.pop_front() else { return };
        if self.until.get(&digest) == Some(&until) {
            self.until.remove(&digest);
        }
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Span = Span::from_secs(60);

    fn at(secs: u64) -> Moment {
        Moment::from_millis(secs * 1_000)
    }

    fn cache(entries_max: usize) -> Cache {
        Cache::new([7; 32], entries_max, AGE)
    }

    fn digest(cache: &Cache, client: &str, token: &[u8]) -> Digest {
        cache.digest(client, token).expect("it keeps something")
    }

    fn check(cache: &Cache) {
        assert!(cache.until.len() <= cache.order.len());
        assert!(cache.order.len() <= cache.entries_max);
        for (digest, until) in &cache.until {
            assert!(cache.order.contains(&(*digest, *until)), "it will be forgotten");
        }
    }

    #[test]
    fn a_proof_is_of_one_client_with_one_token_and_of_one_start() {
        let mut cache = cache(10);
        let anna = digest(&cache, "anna", b"token");
        cache.note(anna, at(0));
        assert!(cache.is_proven(&digest(&cache, "anna", b"token"), at(1)));
        for (client, token) in
            [("anna", &b"tokem"[..]), ("bert", b"token"), ("annat", b"oken"), ("ann", b"atoken")]
        {
            assert!(!cache.is_proven(&digest(&cache, client, token), at(1)), "{client}");
        }
        assert_ne!(digest(&Cache::new([8; 32], 10, AGE), "anna", b"token"), anna);
    }

    #[test]
    fn a_proof_is_over_when_its_time_is() {
        let mut cache = cache(10);
        let anna = digest(&cache, "anna", b"token");
        cache.note(anna, at(0));
        assert!(cache.is_proven(&anna, at(59)));
        assert!(!cache.is_proven(&anna, at(60)));
        cache.note(anna, at(70));
        assert!(cache.is_proven(&anna, at(129)), "it is proven again");
        check(&cache);
        for second in 0..1_000 {
            let client = digest(&cache, "bert", &[u8::try_from(second % 251).expect("small")]);
            cache.note(client, at(200 + second * 100));
            check(&cache);
        }
        assert!(cache.len() <= 2, "{} are over and stay", cache.len() - 1);
    }

    #[test]
    fn one_that_was_proven_again_is_not_forgotten_with_what_was_known_of_it_before() {
        let mut cache = cache(10);
        let [first, anna, last] =
            ["first", "anna", "last"].map(|client| digest(&cache, client, b"token"));
        cache.note(first, at(0));
        cache.note(anna, at(1));
        cache.note(anna, at(70));
        check(&cache);
        cache.note(last, at(71));
        assert!(cache.is_proven(&anna, at(129)));
        check(&cache);
    }

    #[test]
    fn the_oldest_make_way_when_it_is_full() {
        let mut cache = cache(100);
        let all: Vec<Digest> =
            (0..250_u64).map(|n| digest(&cache, "anna", &n.to_be_bytes())).collect();
        for (number, client) in all.iter().enumerate() {
            cache.note(*client, at(1));
            check(&cache);
            assert_eq!(cache.len(), (number + 1).min(100));
        }
        let kept = all.iter().map(|client| cache.is_proven(client, at(2)));
        assert_eq!(kept.collect::<Vec<_>>(), [vec![false; 150], vec![true; 100]].concat());
    }

    #[test]
    fn without_room_or_time_nothing_is_kept() {
        for (entries_max, age) in [(0, AGE), (10, Span::ZERO)] {
            assert_eq!(Cache::new([7; 32], entries_max, age).digest("anna", b"token"), None);
        }
    }
}
