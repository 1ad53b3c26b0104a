//! Messages of a client that talks: each wants an ACK, and is timed from when it was to be sent.

use std::collections::VecDeque;

use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::load::client::{Client, Due, State};
use crate::load::plan::Plan;
use crate::wire::message::{AckWanted, Message};
use crate::wire::native;

/// What all messages are about.
const TOPIC: &str = "load";

/// What it has said in this session.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// When the message was to be sent that is not sent yet.
    unsaid: Option<Moment>,
    seq_last: u32,
    acked_upto: u32,
    /// When those were to be sent that are not acknowledged, each with its number, oldest first.
    sent: VecDeque<(u32, Moment)>,
}

impl Talk {
    /// Everything up to `seq` is taken; what was never sent cannot have been.
    pub(super) fn on_ack(&mut self, seq: u32) {
        self.acked_upto = self.acked_upto.max(seq.min(self.seq_last));
    }
}

impl Client {
    /// A message is due. The next one is, too, so much later.
    pub(super) fn speak(&mut self, plan: &Plan) -> Due {
        let (Some(talk), State::Live { act_at, .. }) = (&mut self.talk, &mut self.state) else {
            return Due::Nothing;
        };
        let intended = *act_at;
        *act_at += plan.options().talk_every();
        if talk.unsaid.is_some() || talk.sent.len() >= limits::LOAD_UNACKED_MAX {
            return Due::SkipMessage;
        }
        talk.unsaid = Some(intended);
        Due::Say
    }

    pub(super) fn has_message(&self) -> bool {
        let is_live = matches!(self.state, State::Live { .. });
        is_live && self.talk.as_ref().is_some_and(|talk| talk.unsaid.is_some())
    }

    /// Appends the message that is due, if one is.
    pub(super) fn write_message(&mut self, plan: &Plan, out: &mut Vec<u8>) -> bool {
        if !self.has_message() {
            return false;
        }
        let Some(talk) = &mut self.talk else { return false };
        let Some(intended) = talk.unsaid.take() else { return false };
        talk.seq_last += 1;
        let seq = talk.seq_last;
        talk.sent.push_back((seq, intended));
        let body = vec![b'x'; usize::from(plan.options().talk.bytes)];
        native::encode(&Message::Data { seq, ack: AckWanted::Yes, topic: TOPIC, body: &body }, out);
        true
    }

    /// How long the next message took of those that were acknowledged; each is told once.
    pub(super) fn next_acked(&mut self, now: Moment) -> Option<Span> {
        let talk = self.talk.as_mut()?;
        talk.sent.front().filter(|(seq, _)| *seq <= talk.acked_upto)?;
        let (_, intended) = talk.sent.pop_front()?;
        Some(now.since(intended))
    }
}
