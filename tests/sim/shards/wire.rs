//! A connection in a town: what its client does, and what the kernel has of it.

use std::collections::VecDeque;

use fastrand::Rng;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Chunk, IoFault, Move};
use heartwheel::base::time::Moment;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound};

/// Where a socket is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Backlog,
    /// Told to this shard, and not answered.
    Offered(usize),
    At(usize, ConnId),
    /// Between two shards.
    Between,
    Gone,
}

/// What a client does when it is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Habit {
    Beats,
    IsSilent,
}

pub(super) struct Wire {
    pub(super) client: usize,
    pub(super) habit: Habit,
    pub(super) place: Place,
    /// Arrived at the socket and not read.
    pub(super) inbox: VecDeque<u8>,
    pub(super) is_finished: bool,
    pub(super) broken: Option<IoFault>,
    /// The kernel told that it broke: a socket says so once.
    pub(super) is_break_told: bool,
    pub(super) is_armed: bool,
    pub(super) sending: Option<Chunk>,
    pub(super) is_looking: bool,
    pub(super) is_closing: bool,
    pub(super) moving: Option<Box<Move>>,
    /// What the client has not written yet: first of all its greeting.
    pub(super) unsaid: VecDeque<u8>,
    pub(super) acts_at: Moment,
    /// When it last wrote something that left nothing incomplete.
    pub(super) last_whole_at: Moment,
    /// When a gateway last heard anything of it.
    pub(super) last_heard_at: Moment,
    pub(super) pings: u64,
    pub(super) pongs: u64,
    /// Its session, as WELCOME said.
    pub(super) epoch: Option<u64>,
    pub(super) last_word: Option<u16>,
    deframer: Deframer,
}

impl Wire {
    pub(super) fn new(client: usize, habit: Habit, resume: &[u8], now: Moment) -> Self {
        let mut wire = Self {
            client,
            habit,
            place: Place::Backlog,
            inbox: VecDeque::new(),
            is_finished: false,
            broken: None,
            is_break_told: false,
            is_armed: false,
            sending: None,
            is_looking: false,
            is_closing: false,
            moving: None,
            unsaid: VecDeque::new(),
            acts_at: now,
            last_whole_at: now,
            last_heard_at: now,
            pings: 0,
            pongs: 0,
            epoch: None,
            last_word: None,
            deframer: Deframer::client_side(),
        };
        let mut bytes = Vec::new();
        native::encode_preface(native::VERSIONS, &mut bytes);
        let hello = Message::Hello {
            wanted_interval_ms: 0,
            client_id: &client_id(client),
            class: "",
            token: b"a proof that has to travel",
            resume,
            last_seq: 0,
            before: None,
        };
        native::encode(&hello, &mut bytes);
        wire.unsaid.extend(bytes);
        wire
    }

    /// A PING whose number has to come back, behind everything that is to be said before it.
    pub(super) fn ping(&mut self) {
        let mut bytes = Vec::new();
        let payload = self.pings.to_be_bytes();
        native::encode(&Message::Ping { reply: Reply::Wanted, payload: &payload }, &mut bytes);
        self.pings += 1;
        self.unsaid.extend(bytes);
    }

    pub(super) fn bye(&mut self) {
        let mut bytes = Vec::new();
        native::encode(&Message::Bye { code: 100 }, &mut bytes);
        self.unsaid.extend(bytes);
    }

    /// Writes some of what is to be said, or all.
    pub(super) fn write(&mut self, rng: &mut Rng, now: Moment) {
        if self.unsaid.is_empty() || self.is_finished || self.broken.is_some() {
            return;
        }
        let length = self.unsaid.len();
        let count = if rng.bool() { length } else { rng.usize(1..=length) };
        self.inbox.extend(self.unsaid.drain(..count));
        if self.unsaid.is_empty() {
            self.last_whole_at = now;
        }
    }

    pub(super) fn breaks(&mut self) {
        self.broken = Some(IoFault::Reset);
        self.inbox.clear();
    }

    pub(super) fn is_there(&self) -> bool {
        !self.is_finished && self.broken.is_none() && self.place != Place::Gone
    }

    /// The client reads. What it hears is in order, and nothing is left out. Says what it is given
    /// to come back with.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut rest = bytes;
        let mut badge = None;
        loop {
            let inbound = self.deframer.next(&mut rest, usize::from(u16::MAX));
            let Some(inbound) = inbound.expect("the gateway speaks the protocol") else { break };
            let Inbound::Message(message) = inbound else { panic!("the gateway said {inbound:?}") };
            assert_eq!(self.last_word, None, "{message:?} behind the last word");
            match message {
                Message::Welcome { epoch, resume, .. } => {
                    assert_eq!(self.epoch, None, "welcome twice");
                    self.epoch = Some(epoch);
                    badge = Some(resume.to_vec());
                }
                Message::Pong { payload } => {
                    assert_eq!(payload, self.pongs.to_be_bytes(), "an answer was left out");
                    self.pongs += 1;
                }
                Message::Goaway { code, .. } | Message::Error { code, .. } => {
                    self.last_word = Some(code);
                }
                Message::Hello { .. }
                | Message::Ping { .. }
                | Message::Data { .. }
                | Message::Ack { .. }
                | Message::Bye { .. }
                | Message::Beat { .. } => panic!("the gateway said {message:?}"),
            }
        }
        badge
    }
}

pub(super) fn client_id(client: usize) -> String {
    format!("client-{client}")
}
