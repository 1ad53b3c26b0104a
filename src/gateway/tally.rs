//! What is counted of beats, bytes, sessions and refusals.

use crate::base::admission::Limit;
use crate::base::event::CloseReason;
use crate::base::identity::Verdict;
use crate::base::introduction::LayerStats;
use crate::gateway::classes::ClassCounts;

/// Counts since the start, unless said otherwise.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Those of them that were PINGs which we answered.
    pub beats_answered: u64,
    /// Those of them that were PINGs which want no answer.
    pub beats_unanswered: u64,
    /// Bytes that the kernel took.
    pub bytes_sent: u64,
    /// Those of them on which there never was a session.
    pub refused: [u64; CloseReason::ALL.len()],
    /// Sessions that began.
    pub sessions_began: u64,
    /// Sessions that ended, by reason.
    pub sessions_ended: [u64; CloseReason::ALL.len()],
    /// Sessions right now, by class, in the order of the class ids.
    pub classes: Vec<ClassCounts>,
    /// What was beyond a limit, by limit.
    pub limited: [u64; Limit::ALL.len()],
    /// New connections that were closed unread and without a word.
    pub refused_unread: u64,
    /// Addresses and networks that are known, those that could be forgotten included.
    pub origins: usize,
    /// Times that a client was silent for so long that it was suspect.
    pub suspected: u64,
    /// Tokens that somebody off the loop has said something of, by what was said.
    pub checks: [u64; Verdict::ALL.len()],
    /// Those that somebody looks at right now.
    pub checks_under_way: usize,
    /// Transport events that the side thread has not taken yet.
    pub transport_waiting: usize,
    /// Transport events that were dropped for want of room.
    pub transport_dropped: u64,
    /// What layers around clients' frames did; told by whoever has them.
    pub layers: LayerStats,
}

impl Tally {
    /// Adds what another shard says of itself.
    pub(crate) fn add(&mut self, other: &Self) {
        // Every field is named, so that a new one does not compile until it is added.
        let Self {
            beats_answered,
            beats_unanswered,
            bytes_sent,
            refused,
            sessions_began,
            sessions_ended,
            classes,
            limited,
            refused_unread,
            origins,
            suspected,
            checks,
            checks_under_way,
            transport_waiting,
            transport_dropped,
            layers,
        } = other;
        for (sum, count) in [
            (&mut self.beats_answered, beats_answered),
            (&mut self.beats_unanswered, beats_unanswered),
            (&mut self.bytes_sent, bytes_sent),
            (&mut self.sessions_began, sessions_began),
            (&mut self.refused_unread, refused_unread),
            (&mut self.suspected, suspected),
            (&mut self.transport_dropped, transport_dropped),
        ] {
            *sum += count;
        }
        self.transport_waiting += transport_waiting;
        self.layers.add(layers);
        self.origins += origins;
        self.checks_under_way += checks_under_way;
        self.checks.iter_mut().zip(checks).for_each(|(sum, more)| *sum += more);
        let reasons = self.refused.iter_mut().zip(refused);
        let reasons = reasons.chain(self.sessions_ended.iter_mut().zip(sessions_ended));
        let reasons = reasons.chain(self.limited.iter_mut().zip(limited));
        reasons.for_each(|(sum, more)| *sum += more);
        if self.classes.len() < classes.len() {
            self.classes.resize_with(classes.len(), ClassCounts::default);
        }
        for (sum, more) in self.classes.iter_mut().zip(classes) {
            sum.live += more.live;
            sum.held += more.held;
        }
    }
}
