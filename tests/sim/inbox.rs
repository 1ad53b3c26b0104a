//! What clients hear of what was pushed to them: in order, nothing twice that they said they had,
//! and nothing left out that wants an ACK, where there is room for all of it.

use std::collections::{BTreeMap, BTreeSet};

/// All that was pushed to each session, and heard of it on any connection.
#[derive(Default)]
pub(crate) struct Inboxes {
    by_epoch: BTreeMap<u64, Inbox>,
    /// Whether there is room and time for every message.
    pub(crate) is_roomy: bool,
    /// Messages that were heard once more.
    pub(crate) heard_again: u64,
}

#[derive(Default)]
struct Inbox {
    /// By number: what it says, and whether it wants an ACK.
    pushed: BTreeMap<u32, (String, bool)>,
    heard: BTreeSet<u32>,
}

/// What one connection hears.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ear {
    epoch: u64,
    /// The last number heard on it, or named in its HELLO.
    last: u32,
}

impl Inboxes {
    /// A message was taken for a session.
    pub(crate) fn note(&mut self, epoch: u64, seq: u32, text: &str, wants_ack: bool) {
        let pushed = &mut self.by_epoch.entry(epoch).or_default().pushed;
        let before = pushed.insert(seq, (text.to_owned(), wants_ack));
        assert_eq!(before, None, "number {seq} of session {epoch} was given twice");
    }

    pub(crate) fn has_heard(&self, epoch: u64, seq: u32) -> bool {
        self.by_epoch.get(&epoch).is_some_and(|inbox| inbox.heard.contains(&seq))
    }

    /// The last number that was heard in a session, on any connection.
    pub(crate) fn heard_last(&self, epoch: u64) -> u32 {
        let heard = self.by_epoch.get(&epoch).and_then(|inbox| inbox.heard.last());
        heard.copied().unwrap_or_default()
    }

    /// A connection hears a message. `name` is what its client is called in messages.
    pub(crate) fn hear(&mut self, ear: &mut Ear, seq: u32, body: &[u8], name: &str) {
        let text = std::str::from_utf8(body).expect("it was a text");
        let Ear { epoch, last } = *ear;
        assert!(seq > last, "{seq} of session {epoch} comes behind {last}");
        assert!(text.starts_with(name) || text.starts_with("all:"), "{text:?} is not for {name}");
        let inbox = self.by_epoch.entry(epoch).or_default();
        if let Some((pushed, _)) = inbox.pushed.get(&seq) {
            assert!(text == pushed, "{text:?} instead of {pushed:?}");
        }
        if self.is_roomy {
            for missing in last + 1..seq {
                // What is not noted was for all, and wanted an ACK. What another connection heard
                // meanwhile may have been acknowledged there.
                let wants_ack = inbox.pushed.get(&missing).is_none_or(|(_, wants_ack)| *wants_ack);
                let is_lost = wants_ack && !inbox.heard.contains(&missing);
                assert!(!is_lost, "{missing} of session {epoch} is lost before {seq}");
            }
        }
        self.heard_again += u64::from(!inbox.heard.insert(seq));
        ear.last = seq;
    }
}

impl Ear {
    /// It was welcomed to a session; `named` is the last number that its HELLO named.
    pub(crate) fn new(epoch: u64, named: u32) -> Self {
        Self { epoch, last: named }
    }
}
