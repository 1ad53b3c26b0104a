//! What happened in all worlds together, and what never did: a simulation that no longer meets what
//! it is there for is blind, and says nothing about it by itself.

use std::collections::BTreeMap;
use std::fmt;

use heartwheel::base::event::CloseReason;

use crate::faults::FAULTS;
use crate::script::STEPS;

/// Endings that nothing in these worlds leads to: there are no layers in them, for one.
const UNREACHABLE: [CloseReason; 7] = [
    CloseReason::BadToken,
    CloseReason::Flood,
    CloseReason::TooManyConnections,
    CloseReason::ServerError,
    CloseReason::BadProxyHeader,
    CloseReason::BadTls,
    CloseReason::BadWebsocket,
];

const EVENTS: [&str; 7] =
    ["started", "online", "resumed", "contested", "offline", "stalled", "stopped"];

/// Things worth meeting that are no fault, step, event or reason.
const FINDS: [&str; 15] = [
    "verdict",
    "rescued",
    "ping answered",
    "ping unanswered",
    "facts of TCP",
    "stall in evidence",
    "partial frame in evidence",
    "more than a hundred clients",
    "resumed before the loss was noticed",
    "resumed after a while",
    "held for nobody",
    "held and makes room",
    "held and somebody else came",
    "verdict taken back",
    "wrong verdict",
];

/// What can become of messages.
const MESSAGES: [&str; 9] = [
    "delivered",
    "acked",
    "not acked in the end",
    "too old",
    "dropped as the oldest",
    "dropped as the newest",
    "orphaned",
    "sent again",
    "broadcast",
];

/// What has to be met where there are layers, beside the endings.
const LAYERS: [&str; 7] = [
    "websocket in TLS",
    "TLS",
    "websocket",
    "proxied",
    "handshake put off",
    "TLS failed",
    "pongs unread",
];

/// And where tokens are looked at.
const CLAIMS: [&str; 6] = [
    "proven",
    "refuted",
    "nobody could say",
    "judged when it was gone",
    "said more before it was proven",
    "said too much before it was proven",
];

/// Endings that only layers and tokens lead to.
const GUARDED: [CloseReason; 4] = [
    CloseReason::BadProxyHeader,
    CloseReason::BadTls,
    CloseReason::BadWebsocket,
    CloseReason::BadToken,
];

/// How often each thing happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<(&'static str, &'static str), u64>);

impl Tally {
    pub(crate) fn note(&mut self, kind: &'static str, word: &'static str, count: u64) {
        *self.0.entry((kind, word)).or_default() += count;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for ((kind, word), count) in &other.0 {
            self.note(kind, word, *count);
        }
    }

    pub(crate) fn count(&self, kind: &'static str, word: &'static str) -> u64 {
        self.0.get(&(kind, word)).copied().unwrap_or_default()
    }

    /// What should have happened where there are layers, and did not.
    pub(crate) fn missing_in_layers(&self) -> Vec<(&'static str, &'static str)> {
        let layers = LAYERS.into_iter().map(|word| ("layer", word));
        let reasons = GUARDED.into_iter().map(|reason| ("reason", reason.word()));
        let claims = CLAIMS.into_iter().map(|word| ("find", word));
        layers
            .chain(reasons)
            .chain(claims)
            .filter(|(kind, word)| self.count(kind, word) == 0)
            .collect()
    }

    /// What should have happened and did not.
    pub(crate) fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let faults = FAULTS.iter().map(|(_, word, _)| ("fault", *word));
        let reachable = CloseReason::ALL.into_iter().filter(|why| !UNREACHABLE.contains(why));
        let reasons = reachable.map(|reason| ("reason", reason.word()));
        let events = EVENTS.into_iter().map(|word| ("event", word));
        let steps = STEPS.into_iter().map(|word| ("step", word));
        let finds = FINDS.into_iter().map(|word| ("find", word));
        let messages = MESSAGES.into_iter().map(|word| ("message", word));
        let all = faults.chain(reasons).chain(events).chain(steps).chain(finds).chain(messages);
        all.filter(|(kind, word)| self.count(kind, word) == 0).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kind_last = "";
        for ((kind, word), count) in self.0.iter().filter(|(_, count)| **count > 0) {
            if *kind != kind_last {
                write!(f, "{}{kind}:", if kind_last.is_empty() { "" } else { "\n" })?;
                kind_last = kind;
            }
            write!(f, " {word} {count},")?;
        }
        Ok(())
    }
}
