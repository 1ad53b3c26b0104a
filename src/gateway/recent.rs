//! Who was here lately: enough to tell a client that flaps from one that comes for the first time,
//! two devices that fight for one id from a client that moves, and a wrong verdict from a right
//! one.

use std::hash::Hasher;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::base::event::CloseReason;
use crate::base::limits;
use crate::base::time::Moment;

/// What is remembered of a client: 32 bytes, and more of those few to whom something happened.
///
/// Client ids are kept as keyed hashes: two that collide share a memory, which costs them a count
/// and nothing else.
struct Recent {
    hash: u64,
    /// Since when comings are counted.
    counted_since: Moment,
    /// How often it came online since then.
    comings: u32,
    trouble: Option<Box<Trouble>>,
}

/// What happens to few.
#[derive(Default)]
struct Trouble {
    /// Since when logins that took over are counted.
    fought_since: Moment,
    /// How many took over since then.
    fights: u32,
    /// How its latest session ended, if that was by a verdict.
    verdict: Option<Verdict>,
}

/// A verdict that may yet turn out to have been wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// When something was last heard of it.
    pub(crate) last_beat: Moment,
    /// When it was judged.
    pub(crate) judged_at: Moment,
}

/// Whether a login may take over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fight {
    /// It may.
    Fair,
    /// Too many did lately: this is the how-manieth.
    Contested { count: u32 },
}

/// The clients of late, at most [`limits::RECENT_MAX`]; the longest known is forgotten first.
pub(crate) struct RecentClients {
    key: [u64; 2],
    /// In the order in which they became known, going round.
    clients: Vec<Recent>,
    /// Whose place is taken next, when every place is.
    oldest: usize,
    /// Places in `clients` by hash.
    places: HashTable<u32>,
}

impl RecentClients {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self { key, clients: Vec::new(), oldest: 0, places: HashTable::new() }
    }

    /// A client comes online. Returns how often it did so before, within the window.
    pub(crate) fn on_online(&mut self, client: &str, now: Moment) -> u32 {
        let recent = self.of(client, now);
        if recent.comings == 0 || now.since(recent.counted_since) > limits::FLAP_WINDOW {
            recent.counted_since = now;
            recent.comings = 0;
        }
        let before = recent.comings;
        recent.comings += 1;
        before
    }

    /// A session ended.
    pub(crate) fn on_offline(
        &mut self,
        client: &str,
        reason: CloseReason,
        last_beat: Moment,
        now: Moment,
    ) {
        let recent = self.of(client, now);
        if reason == CloseReason::HeartbeatTimeout {
            recent.trouble().verdict = Some(Verdict { last_beat, judged_at: now });
        } else {
            recent.take_verdict();
        }
    }

    /// A login wants to take over from another.
    pub(crate) fn on_takeover(&mut self, client: &str, now: Moment) -> Fight {
        let recent = self.of(client, now).trouble();
        if recent.fights == 0 || now.since(recent.fought_since) > limits::CONTEST_WINDOW {
            recent.fought_since = now;
            recent.fights = 0;
        }
        recent.fights += 1;
        if recent.fights <= limits::CONTEST_FREE {
            return Fight::Fair;
        }
        // Refusals put the end of the window off: only a pause ends the fight.
        recent.fought_since = now;
        Fight::Contested { count: recent.fights }
    }

    /// Takes the verdict on this client's latest session, if there was one.
    pub(crate) fn take_verdict(&mut self, client: &str) -> Option<Verdict> {
        let place = self.place(self.hash(client))?;
        self.clients[place].take_verdict()
    }

    /// Whether a client of that name was here of late.
    pub(crate) fn knows(&self, client: &str) -> bool {
        self.place(self.hash(client)).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    fn of(&mut self, client: &str, now: Moment) -> &mut Recent {
        let hash = self.hash(client);
        let place = match self.place(hash) {
            Some(place) => place,
            None => self.remember(Recent { hash, counted_since: now, comings: 0, trouble: None }),
        };
        &mut self.clients[place]
    }

    /// Gives a newcomer the next place, or that of whoever is known for longest.
    fn remember(&mut self, newcomer: Recent) -> usize {
        let hash = newcomer.hash;
        let place = if self.clients.len() < limits::RECENT_MAX {
            self.clients.push(newcomer);
            self.clients.len() - 1
        } else {
            let oldest = self.oldest;
            self.oldest = (oldest + 1) % limits::RECENT_MAX;
            let forgotten = std::mem::replace(&mut self.clients[oldest], newcomer).hash;
            let is_its = |&place: &u32| place as usize == oldest;
            self.places
                .find_entry(forgotten, is_its)
                .expect("whoever has a place is found")
                .remove();
            oldest
        };
        let clients = &self.clients;
        let number = u32::try_from(place).expect("places are bounded");
        self.places.insert_unique(hash, number, |&place| clients[place as usize].hash);
        place
    }

    fn place(&self, hash: u64) -> Option<usize> {
        let is_of = |&place: &u32| self.clients[place as usize].hash == hash;
        self.places.find(hash, is_of).map(|&place| place as usize)
    }

    fn hash(&self, client: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(client.as_bytes());
        hasher.finish()
    }
}

impl Recent {
    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    fn take_verdict(&mut self) -> Option<Verdict> {
        let trouble = self.trouble.as_mut()?;
        let verdict = trouble.verdict.take();
        if trouble.fights == 0 {
            self.trouble = None;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Span;

    fn at(secs: u64) -> Moment {
        Moment::ZERO + Span::from_secs(secs)
    }

    #[test]
    fn comings_are_counted_within_a_window() {
        let mut recent = RecentClients::new([1, 2]);
        for before in 0..5 {
            assert_eq!(recent.on_online("anna", at(u64::from(before))), before);
        }
        assert_eq!(recent.on_online("bert", at(5)), 0);
        let later = at(1) + limits::FLAP_WINDOW;
        assert_eq!(recent.on_online("anna", later), 0, "the window is over");
    }

    #[test]
    fn a_fight_is_contested_until_there_is_a_pause() {
        let mut recent = RecentClients::new([1, 2]);
        for second in 0..limits::CONTEST_FREE {
            assert_eq!(recent.on_takeover("anna", at(u64::from(second))), Fight::Fair);
        }
        let count = limits::CONTEST_FREE + 1;
        assert_eq!(recent.on_takeover("anna", at(50)), Fight::Contested { count });
        assert_eq!(recent.on_takeover("anna", at(100)), Fight::Contested { count: count + 1 });
        let after = at(101) + limits::CONTEST_WINDOW;
        assert_eq!(recent.on_takeover("anna", after), Fight::Fair);
    }

    #[test]
    fn a_window_begins_with_the_first_that_is_counted() {
        let mut recent = RecentClients::new([1, 2]);
        recent.on_online("anna", at(0));
        for second in [50, 70, 80] {
            assert_eq!(recent.on_takeover("anna", at(second)), Fight::Fair);
        }
        assert_eq!(recent.on_takeover("anna", at(90)), Fight::Contested { count: 4 });
    }

    #[test]
    fn only_a_verdict_can_turn_out_to_be_wrong_and_only_once() {
        let mut recent = RecentClients::new([1, 2]);
        recent.on_offline("anna", CloseReason::HeartbeatTimeout, at(1), at(36));
        let verdict = Verdict { last_beat: at(1), judged_at: at(36) };
        assert_eq!(recent.take_verdict("anna"), Some(verdict));
        assert_eq!(recent.take_verdict("anna"), None);
        recent.on_offline("anna", CloseReason::HeartbeatTimeout, at(1), at(36));
        recent.on_offline("anna", CloseReason::Bye, at(40), at(40));
        assert_eq!(recent.take_verdict("anna"), None);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut recent = RecentClients::new([1, 2]);
        for number in 0..limits::RECENT_MAX + 10 {
            recent.on_online(&format!("client-{number}"), at(0));
        }
        assert_eq!(recent.len(), limits::RECENT_MAX);
        assert_eq!(recent.places.len(), limits::RECENT_MAX);
        assert_eq!(recent.on_online("client-10", at(0)), 1, "the first of the others is not");
        assert_eq!(recent.on_online("client-0", at(0)), 0, "the first is forgotten");
        assert_eq!(recent.on_online("client-10", at(0)), 0, "and now this one");
    }

    #[test]
    fn a_client_without_trouble_is_remembered_in_few_bytes() {
        assert!(size_of::<Recent>() <= 32, "{}", size_of::<Recent>());
        let mut recent = RecentClients::new([1, 2]);
        let is_small = |recent: &RecentClients| recent.clients[0].trouble.is_none();
        recent.on_online("anna", at(0));
        recent.on_offline("anna", CloseReason::Bye, at(1), at(1));
        assert!(is_small(&recent));
        recent.on_offline("anna", CloseReason::HeartbeatTimeout, at(2), at(3));
        assert!(!is_small(&recent));
        assert!(recent.take_verdict("anna").is_some());
        assert!(is_small(&recent), "what is over takes no memory");
        recent.on_takeover("anna", at(4));
        recent.on_offline("anna", CloseReason::Bye, at(5), at(5));
        assert!(!is_small(&recent), "a fight is not over yet");
    }
}
