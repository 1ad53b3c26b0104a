//! Who was here lately: enough to tell a client that flaps from one that comes for the first time,
//! two devices that fight for one id from a client that moves, and a wrong verdict from a right
//! one.

use std::collections::VecDeque;
use std::hash::Hasher;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use siphasher::sip::SipHasher13;

use crate::base::event::CloseReason;
use crate::base::limits;
use crate::base::time::Moment;

/// What is remembered of a client. Client ids are kept as keyed hashes: two that collide share a
/// memory, which costs them a count and nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    /// Since when comings are counted.
    counted_since: Moment,
    /// How often it came online since then.
    comings: u32,
    /// Since when logins that took over are counted.
    fought_since: Moment,
    /// How many took over since then.
    fights: u32,
    /// How its latest session ended, if that was by a verdict.
    pub(crate) verdict: Option<Verdict>,
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
    clients: HashMap<u64, Recent>,
    order: VecDeque<u64>,
}

impl RecentClients {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self { key, clients: HashMap::new(), order: VecDeque::new() }
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
        let verdict = Verdict { last_beat, judged_at: now };
        let is_verdict = reason == CloseReason::HeartbeatTimeout;
        self.of(client, now).verdict = is_verdict.then_some(verdict);
    }

    /// A login wants to take over from another.
    pub(crate) fn on_takeover(&mut self, client: &str, now: Moment) -> Fight {
        let recent = self.of(client, now);
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
        let hash = self.hash(client);
        self.clients.get_mut(&hash)?.verdict.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    fn of(&mut self, client: &str, now: Moment) -> &mut Recent {
        let hash = self.hash(client);
        if !self.clients.contains_key(&hash) {
            while self.clients.len() >= limits::RECENT_MAX {
                let Some(oldest) = self.order.pop_front() else { break };
                self.clients.remove(&oldest);
            }
            self.order.push_back(hash);
        }
        match self.clients.entry(hash) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Recent {
                counted_since: now,
                comings: 0,
                fought_since: now,
                fights: 0,
                verdict: None,
            }),
        }
    }

    fn hash(&self, client: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(client.as_bytes());
        hasher.finish()
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
        assert_eq!(recent.order.len(), limits::RECENT_MAX);
        assert_eq!(recent.on_online("client-0", at(0)), 0, "the first is forgotten");
    }
}
