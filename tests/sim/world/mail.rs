//! Messages in a world: pushed to one, to nobody, to all.

use std::sync::Arc;

use heartwheel::base::config::{QueuePolicy, SlowPolicy};
use heartwheel::base::ids::ClientId;
use heartwheel::base::limits;
use heartwheel::gateway::{
    Body, Broadcast, BroadcastReply, Command, Outcome, Post, Push, Pushed, Reply, Taken,
};

use super::*;

/// Messages that are asked about later.
const REMEMBERED_MAX: usize = 50;

/// What was pushed, as far as it is asked about.
#[derive(Default)]
pub(super) struct Pushes {
    pub(super) waiting: u32,
    number: u64,
    broadcasts: u64,
    taken: Vec<Taken>,
}

/// Room for everything, or hardly any.
pub(super) fn queue(rng: &mut Rng, rhythm: Rhythm) -> QueuePolicy {
    if rng.bool() {
        let ttl = limits::QUEUE_TTL_MAX;
        return QueuePolicy { bytes_max: limits::QUEUE_BYTES_LIMIT, ttl, slow: SlowPolicy::Oldest };
    }
    QueuePolicy {
        bytes_max: rng.usize(1_100..6_000),
        ttl: part_of(rng, rhythm.timeout, 5..200),
        slow: if rng.bool() { SlowPolicy::Oldest } else { SlowPolicy::Newest },
    }
}

/// Whether nothing is ever dropped for want of room or time.
pub(super) fn is_roomy(queue: QueuePolicy) -> bool {
    queue.bytes_max == limits::QUEUE_BYTES_LIMIT
}

impl World {
    pub(super) fn plan_pushes(&mut self) {
        let timeout = self.config.rhythm.timeout;
        for _ in 0..self.rng.u32(0..40) {
            let at = self.now + span_upto(&mut self.rng, timeout.times(6));
            self.plan(at, Happening::Push);
        }
    }

    /// Somebody pushes.
    pub(super) fn push_what_waits(&mut self) {
        for _ in 0..std::mem::take(&mut self.pushes.waiting) {
            self.oracle.on_told(self.now);
            let online = self.oracle.online();
            match self.rng.u32(0..8) {
                0 => self.push_to_all(),
                1 => self.push_to_nobody(),
                _ if online.is_empty() => self.push_to_nobody(),
                _ => {
                    let device = online[self.rng.usize(0..online.len())];
                    for _ in 0..self.rng.u32(1..12) {
                        self.push_to(device);
                    }
                }
            }
            self.ask_what_became_of_it();
            self.read_ledger(self.now);
        }
    }

    fn post(&mut self, name: &str, wants_ack: bool) -> (String, Post) {
        self.pushes.number += 1;
        let filler = "x".repeat(self.rng.usize(0..900));
        let text = format!("{name}{}:{filler}", self.pushes.number);
        let body = Body::new("t", text.as_bytes()).expect("it is short");
        (text, Post { body: Arc::new(body), ack: wants_ack, ttl: None })
    }

    fn push(&mut self, client: &str, post: Post) -> Pushed {
        let clients = vec![ClientId::new(client).expect("a client id")];
        let push = Command::Push(Box::new(Push { clients, epoch: None, post }));
        let reply = self.gateway.on_command(push, self.now);
        let Reply::Pushed(pushed) = &reply else { panic!("{reply:?}") };
        pushed[0]
    }

    fn push_to(&mut self, device: usize) {
        let client = client_id(device);
        let wants_ack = self.rng.u32(0..4) > 0;
        let (text, post) = self.post(&format!("{client}:"), wants_ack);
        let pushed = self.push(&client, post);
        self.trace(|| format!("pushed to {client}: {pushed:?}"));
        if pushed.outcome == Outcome::Slow && !is_roomy(self.config.queue) {
            return;
        }
        assert_eq!(pushed.outcome, Outcome::Queued, "{client} is online");
        self.clients.inboxes.note(pushed.epoch, pushed.seq, &text, wants_ack);
        let client = ClientId::new(&client).expect("a client id");
        let taken = Taken { client, epoch: pushed.epoch, seq: pushed.seq, ack: wants_ack };
        match self.pushes.taken.len() < REMEMBERED_MAX {
            true => self.pushes.taken.push(taken),
            false => self.pushes.taken[self.rng.usize(0..REMEMBERED_MAX)] = taken,
        }
    }

    fn push_to_nobody(&mut self) {
        let (_, post) = self.post("nobody", true);
        assert_eq!(self.push("nobody", post).outcome, Outcome::Unknown);
    }

    fn push_to_all(&mut self) {
        let (_, post) = self.post("all:", true);
        self.pushes.broadcasts += 1;
        let per_second = Some(self.rng.u32(10..100_000));
        let id = self.pushes.broadcasts;
        let broadcast = Broadcast { id, group: None, post, per_second };
        let reply = self.gateway.on_command(Command::Broadcast(Box::new(broadcast)), self.now);
        let Reply::Broadcast(BroadcastReply::Is(_) | BroadcastReply::Busy) = &reply else {
            panic!("{reply:?}");
        };
    }

    /// Nobody is said to have what it did not hear.
    fn ask_what_became_of_it(&mut self) {
        let of = self.pushes.taken.clone();
        if of.is_empty() {
            return;
        }
        self.let_clients_hear();
        let asked = Command::Outcomes { of: of.clone() };
        let Reply::Outcomes(outcomes) = self.gateway.on_command(asked, self.now) else {
            panic!("outcomes were asked for");
        };
        for (Taken { client, epoch, seq, ack }, outcome) in of.iter().zip(outcomes) {
            match outcome {
                Outcome::Acked => {
                    assert!(*ack, "{client} was not asked: {seq} of {epoch}");
                    let has_heard = self.clients.inboxes.has_heard(*epoch, *seq);
                    assert!(has_heard, "{client} never heard {seq} of {epoch}");
                }
                Outcome::Slow => assert!(!is_roomy(self.config.queue), "{client} {epoch} {seq}"),
                Outcome::Unknown => panic!("{client} was here: {epoch} {seq}"),
                Outcome::Delivered | Outcome::Queued | Outcome::Offline => {}
            }
        }
    }

    /// Every message came to one end.
    pub(super) fn sum_up_mail(&mut self) {
        let mail = self.gateway.stats().mail;
        let ended = mail.delivered + mail.expired + mail.dropped_oldest + mail.orphaned;
        assert_eq!(mail.pushed, ended, "a message is nowhere: {mail:?}");
        assert!(mail.acked + mail.ack_missed <= mail.delivered, "{mail:?}");
        assert_eq!(mail.queue_bytes, 0, "a message waits for nobody");
        if is_roomy(self.config.queue) {
            assert_eq!((mail.expired, mail.dropped_oldest, mail.dropped_newest), (0, 0, 0));
        }
        for (word, count) in [
            ("delivered", mail.delivered),
            ("acked", mail.acked),
            ("not acked in the end", mail.ack_missed),
            ("too old", mail.expired),
            ("dropped as the oldest", mail.dropped_oldest),
            ("dropped as the newest", mail.dropped_newest),
            ("orphaned", mail.orphaned),
            ("sent again", self.clients.inboxes.heard_again),
            ("broadcast", self.pushes.broadcasts),
        ] {
            self.tally.note("message", word, count);
        }
    }
}
