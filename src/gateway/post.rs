//! What is pushed to clients, and what became of it: the words of it.

use std::sync::Arc;

use crate::base::ids::{ClientId, GroupName};
use crate::base::time::Span;
use crate::wire::error::Unsayable;
use crate::wire::message::{AckWanted, Message};

/// A message's content. Whoever gets it shares it: it is in memory once, however many clients it
/// waits for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Body {
    topic: Box<str>,
    bytes: Box<[u8]>,
}

impl Body {
    /// A content about `topic`, which may be empty.
    ///
    /// # Errors
    /// When a frame cannot carry it.
    pub fn new(topic: impl Into<Box<str>>, bytes: impl Into<Box<[u8]>>) -> Result<Self, Unsayable> {
        let body = Self { topic: topic.into(), bytes: bytes.into() };
        body.data(1, AckWanted::No).check_sayable()?;
        Ok(body)
    }

    /// What it is about.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of a frame's payload.
    pub fn payload_bytes(&self) -> usize {
        4 + 1 + self.topic.len() + self.bytes.len()
    }

    pub(crate) fn data(&self, seq: u32, ack: AckWanted) -> Message<'_> {
        Message::Data { seq, ack, topic: &self.topic, body: &self.bytes }
    }
}

/// A message, and how it is to be handled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Post {
    /// Its content.
    pub body: Arc<Body>,
    /// Whether the client is asked to acknowledge it. Only what it has not acknowledged is sent
    /// again when it comes back.
    pub ack: bool,
    /// For how long it may wait; `None`: as long as configured.
    pub ttl: Option<Span>,
}

/// A message for one client or several.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Push {
    /// For whom, at most [`PUSH_CLIENTS_MAX`](crate::base::limits::PUSH_CLIENTS_MAX). Among shards
    /// all of them belong to the same one.
    pub clients: Vec<ClientId>,
    /// Only to this session of the first client, if it is still here; `None`: to whichever is.
    pub epoch: Option<u64>,
    /// What.
    pub post: Post,
}

/// What became of a message for one client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was handed to the kernel.
    Delivered,
    /// The client has it in its care.
    Acked,
    /// It waits: behind others, or for the client to come back.
    Queued,
    /// The client is not here, and was of late.
    Offline,
    /// The client did not take what waits for it, so there was no room, or it became too old.
    Slow,
    /// Nobody of that name was here of late.
    Unknown,
}

impl Outcome {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Delivered, Self::Acked, Self::Queued, Self::Offline, Self::Slow, Self::Unknown];

    /// The word for it in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Acked => "acked",
            Self::Queued => "queued",
            Self::Offline => "offline",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What became of a message for one client so far, and how to ask again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pushed {
    /// What became of it.
    pub outcome: Outcome,
    /// The session it is for; 0: none.
    pub epoch: u64,
    /// Its number there; 0: it was not taken.
    pub seq: u32,
    /// Whether it waits for the client to come back.
    pub is_away: bool,
}

/// A message that was taken, to ask what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Taken {
    /// Whom it is for.
    pub client: ClientId,
    /// Which session.
    pub epoch: u64,
    /// Which number there.
    pub seq: u32,
    /// Whether it wanted an ACK.
    pub ack: bool,
}

/// A message for everybody, or for a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broadcast {
    /// A name of the asker's choice; larger than that of every one before.
    pub id: u64,
    /// Only to the clients in this group; `None`: to all.
    pub group: Option<GroupName>,
    /// What.
    pub post: Post,
    /// To so many clients a second, of all shards together; `None`: as configured.
    pub per_second: Option<u32>,
}

/// How a broadcast goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BroadcastView {
    /// Its name.
    pub id: u64,
    /// Whether there are clients who did not get their turn yet.
    pub is_running: bool,
    /// Clients who got their turn.
    pub targets: u64,
    /// How many of them are how far, in the order of [`Outcome::ALL`]. Goes on to change when
    /// everybody has got their turn: what was queued is delivered, what was delivered is acked.
    pub results: [u64; Outcome::ALL.len()],
    /// Some of those who did not get it, at most
    /// [`BROADCAST_OTHERS_MAX`](crate::base::limits::BROADCAST_OTHERS_MAX).
    pub others: Vec<(ClientId, Outcome)>,
}

/// What is said about a broadcast.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BroadcastReply {
    /// How it goes.
    Is(BroadcastView),
    /// There is none of that name, or it was too long ago.
    Unknown,
    /// Too many are under way.
    Busy,
}

/// What became of messages for clients: counts since the start, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MailStats {
    /// Messages that were taken. Each of them is delivered, expired, dropped_oldest or orphaned in
    /// the end.
    pub pushed: u64,
    /// Those that were handed to the kernel.
    pub delivered: u64,
    /// Those of them that wanted an ACK and got it.
    pub acked: u64,
    /// Those of them that wanted one and were given up without.
    pub ack_missed: u64,
    /// Messages that became too old before they were handed over.
    pub expired: u64,
    /// Messages that made room for newer ones.
    pub dropped_oldest: u64,
    /// Messages that were not taken because there was no room.
    pub dropped_newest: u64,
    /// Messages whose session ended before they were handed over.
    pub orphaned: u64,
    /// Bytes that wait for clients or are not acknowledged, right now, by what they count.
    pub queue_bytes: usize,
    /// Broadcasts under way right now.
    pub broadcasts_running: usize,
}

impl MailStats {
    /// Adds what another shard says of itself.
    pub(crate) fn add(&mut self, other: &Self) {
        // Every field is named, so that a new one does not compile until it is added.
        let Self {
            pushed,
            delivered,
            acked,
            ack_missed,
            expired,
            dropped_oldest,
            dropped_newest,
            orphaned,
            queue_bytes,
            broadcasts_running,
        } = other;
        for (sum, count) in [
            (&mut self.pushed, pushed),
            (&mut self.delivered, delivered),
            (&mut self.acked, acked),
            (&mut self.ack_missed, ack_missed),
            (&mut self.expired, expired),
            (&mut self.dropped_oldest, dropped_oldest),
            (&mut self.dropped_newest, dropped_newest),
            (&mut self.orphaned, orphaned),
        ] {
            *sum += count;
        }
        self.queue_bytes += queue_bytes;
        // A broadcast is one for all shards, and some are done with it before others.
        self.broadcasts_running = self.broadcasts_running.max(*broadcasts_running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_places_and_words() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), place);
            assert!(outcome.word().chars().all(|c| c.is_ascii_lowercase()));
        }
    }

    #[test]
    fn a_body_is_what_a_frame_can_carry() {
        let body = Body::new("temp", *b"21.5").expect("it is small");
        assert_eq!((body.topic(), body.bytes(), body.payload_bytes()), ("temp", &b"21.5"[..], 13));
        assert!(Body::new("t".repeat(256), *b"").is_err());
        assert!(Body::new("a\nb", *b"").is_err());
        assert!(Body::new("", vec![0; 65_531]).is_err());
        assert!(Body::new("", vec![0; 65_530]).is_ok());
    }
}
