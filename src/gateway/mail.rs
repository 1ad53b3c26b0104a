//! The messages for one client: those that wait, those on their way, and those it has not
//! acknowledged. A value by itself: who sends and who counts is elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::connection::Hearing;
use crate::gateway::post::{Body, Outcome};
use crate::wire::message::{AckWanted, Message};

/// A message for one client. What it says is shared with all others who get it.
pub(crate) struct Letter {
    pub(crate) body: Arc<Body>,
    age: Age,
    pub(crate) seq: u32,
    /// The broadcast it belongs to; 0: none.
    pub(crate) job: u32,
    wants_ack: bool,
    /// Whether the kernel has had it before: it is sent again.
    pub(crate) was_handed: bool,
    /// Whether its ACK was waited for behind a stop already: it has the least of that once.
    was_waited_for: bool,
}

/// For how long a message waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Age {
    /// Until then.
    Until(Moment),
    /// So long from when its client is heard again: its ACK may be there and cannot be read.
    Left(Span),
}

impl Age {
    fn until(self) -> Option<Moment> {
        match self {
            Self::Until(at) => Some(at),
            Self::Left(_) => None,
        }
    }
}

impl Letter {
    /// Its client is not heard any more.
    fn stop_ageing(&mut self, now: Moment) {
        if let Age::Until(at) = self.age {
            self.age = Age::Left(at.since(now));
        }
    }

    /// Its client is heard again, or not to be heard by that connection any more.
    fn go_on_ageing(&mut self, now: Moment) {
        if let Age::Left(span) = self.age {
            let is_first = !std::mem::replace(&mut self.was_waited_for, true);
            let least = if is_first { limits::ACK_WAIT_MIN } else { Span::ZERO };
            self.age = Age::Until(now + span.max(least));
        }
    }

    fn is_too_old(&self, now: Moment) -> bool {
        self.age.until().is_some_and(|at| at <= now)
    }

    /// What it counts against the client's bound.
    pub(crate) fn cost_bytes(body: &Body) -> usize {
        limits::LETTER_BYTES + body.topic().len() + body.bytes().len()
    }

    fn cost(&self) -> usize {
        Self::cost_bytes(&self.body)
    }

    /// Bytes of its frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        limits::FRAME_HEADER_BYTES + self.body.payload_bytes()
    }

    pub(crate) fn message(&self) -> Message<'_> {
        let ack = if self.wants_ack { AckWanted::Yes } else { AckWanted::No };
        self.body.data(self.seq, ack)
    }
}

/// The messages for one client.
///
/// ```text
/// push ──► waiting ──copied──► flying ──handed to the kernel──► unacked ──ACK──► gone
///             ▲                  │                                 │
///             └──────────────────┴──────the connection is lost─────┘
/// ```
///
/// Numbers rise along each of the three, and from the last to the first of them.
#[derive(Default)]
pub(crate) struct Mail {
    /// Not in the outbox yet.
    waiting: VecDeque<Letter>,
    /// In the outbox, and not handed to the kernel with all their bytes.
    flying: VecDeque<Letter>,
    /// Handed to the kernel and not acknowledged, though they want it.
    unacked: VecDeque<Letter>,
    /// What all of them cost.
    bytes: usize,
    seq_last: u32,
    /// How many were handed to the kernel, each once.
    delivered: u64,
    /// Everything up to these numbers was copied, was handed over, was acknowledged; but for what
    /// is in `lost`.
    copied_upto: u32,
    handed_upto: u32,
    acked_upto: u32,
    /// What was dropped lately, by number: before it was handed over, or before its ACK.
    lost: VecDeque<(u32, Outcome)>,
    /// Up to here it is forgotten what was dropped.
    forgotten_upto: u32,
    /// Nothing is too old before.
    expires_first: Option<Moment>,
    /// Whether whoever sweeps knows of it.
    pub(crate) is_listed: bool,
}

impl Mail {
    /// What all messages cost, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many were handed to the kernel, each once.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Nothing but what is in the outbox is too old before; `None`: there is nothing else.
    pub(crate) fn expires_first(&self) -> Option<Moment> {
        self.expires_first
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.flying.len() + self.unacked.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether there is a number for another message. There are enough for decades of use.
    pub(crate) fn has_numbers(&self) -> bool {
        self.seq_last < u32::MAX
    }

    /// Takes a message, whatever the bound, and says its number.
    pub(crate) fn push(
        &mut self,
        body: Arc<Body>,
        wants_ack: bool,
        expires_at: Moment,
        job: u32,
    ) -> u32 {
        self.seq_last += 1;
        let seq = self.seq_last;
        let age = Age::Until(expires_at);
        let (was_handed, was_waited_for) = (false, false);
        let letter = Letter { body, age, seq, job, wants_ack, was_handed, was_waited_for };
        self.bytes += letter.cost();
        self.note_age(age);
        self.waiting.push_back(letter);
        seq
    }

    /// Drops the oldest message that is not in the outbox, and whose ACK is not there unread.
    pub(crate) fn drop_oldest(&mut self) -> Option<Letter> {
        let can_go = |letter: &Letter| letter.age.until().is_some();
        let letter = match self.unacked.front().is_some_and(can_go) {
            true => self.unacked.pop_front()?,
            false => self.waiting.pop_front()?,
        };
        self.on_dropped(&letter, Outcome::Slow);
        Some(letter)
    }

    /// Drops what is too old by now; `outcome` is what became of it.
    pub(crate) fn expire(&mut self, now: Moment, outcome: Outcome, dropped: &mut Vec<Letter>) {
        if self.expires_first.is_none_or(|at| now < at) {
            return;
        }
        let before = dropped.len();
        for letters in [&mut self.unacked, &mut self.waiting] {
            if letters.iter().any(|letter| letter.is_too_old(now)) {
                let (old, young) =
                    std::mem::take(letters).into_iter().partition(|one| one.is_too_old(now));
                *letters = young;
                let old: VecDeque<Letter> = old;
                dropped.extend(old);
            }
        }
        for letter in &dropped[before..] {
            self.on_dropped(letter, outcome);
        }
        self.expires_first = self.first_expiry();
    }

    fn note_age(&mut self, age: Age) {
        self.expires_first = [self.expires_first, age.until()].into_iter().flatten().min();
    }

    /// When the first of those that age is too old, but for what is in the outbox. O(n).
    pub(crate) fn first_expiry(&self) -> Option<Moment> {
        let letters = self.unacked.iter().chain(&self.waiting);
        letters.filter_map(|letter| letter.age.until()).min()
    }

    /// The client is not read from now on, or it is read again: what it may have acknowledged does
    /// not age between.
    pub(crate) fn on_hearing(&mut self, hearing: Hearing, now: Moment) {
        for letter in &mut self.unacked {
            match hearing {
                Hearing::Stopped => letter.stop_ageing(now),
                Hearing::Open => letter.go_on_ageing(now),
            }
        }
        self.expires_first = self.first_expiry();
    }

    /// The next message to be copied into the outbox, if it has at most `frame_bytes_max`.
    pub(crate) fn next_waiting(&self, frame_bytes_max: usize) -> Option<&Letter> {
        self.waiting.front().filter(|letter| letter.frame_bytes() <= frame_bytes_max)
    }

    /// The next message was copied into the outbox.
    pub(crate) fn on_copied(&mut self) {
        let Some(letter) = self.waiting.pop_front() else { return };
        self.copied_upto = self.copied_upto.max(letter.seq);
        self.flying.push_back(letter);
        give_back(&mut self.waiting);
    }

    /// What was in the outbox was handed to the kernel. Says of each what it was.
    pub(crate) fn on_handed(
        &mut self,
        hearing: Hearing,
        now: Moment,
        mut tell: impl FnMut(&Letter, Outcome),
    ) {
        for mut letter in std::mem::take(&mut self.flying) {
            let is_acked = letter.seq <= self.acked_upto;
            if !letter.was_handed {
                self.delivered += 1;
                tell(&letter, Outcome::Delivered);
            }
            if letter.wants_ack && is_acked {
                tell(&letter, Outcome::Acked);
            }
            self.handed_upto = self.handed_upto.max(letter.seq);
            if letter.wants_ack && !is_acked {
                letter.was_handed = true;
                if hearing == Hearing::Stopped {
                    letter.stop_ageing(now);
                }
                self.note_age(letter.age);
                self.unacked.push_back(letter);
            } else {
                self.bytes -= letter.cost();
            }
        }
    }

    /// The client says that everything up to `seq` arrived. Says of each what it is by that.
    ///
    /// What was never sent cannot have arrived.
    pub(crate) fn on_ack(&mut self, seq: u32, mut tell: impl FnMut(&Letter, Outcome)) {
        self.acked_upto = self.acked_upto.max(seq.min(self.copied_upto));
        while let Some(letter) = pop_upto(&mut self.unacked, self.acked_upto) {
            tell(&letter, Outcome::Acked);
            self.bytes -= letter.cost();
        }
        // What was sent before, and waits to be sent again.
        while let Some(letter) = pop_upto(&mut self.waiting, self.acked_upto) {
            if !letter.was_handed {
                self.delivered += 1;
                tell(&letter, Outcome::Delivered);
            }
            self.handed_upto = self.handed_upto.max(letter.seq);
            if letter.wants_ack {
                tell(&letter, Outcome::Acked);
            }
            self.bytes -= letter.cost();
        }
        give_back(&mut self.unacked);
        give_back(&mut self.waiting);
    }

    /// The connection is gone: what may not have arrived waits again, in order. Nothing more is to
    /// be read from it, so everything ages.
    pub(crate) fn requeue(&mut self, now: Moment) {
        for letters in [&mut self.flying, &mut self.unacked] {
            while let Some(mut letter) = letters.pop_back() {
                letter.go_on_ageing(now);
                self.waiting.push_front(letter);
            }
        }
        self.expires_first = self.first_expiry();
    }

    /// All messages, for good.
    pub(crate) fn take_all(&mut self, now: Moment) -> impl Iterator<Item = Letter> + use<> {
        self.requeue(now);
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// What became of the message with this number. Of one that wanted no ACK none tells anything:
    /// it may have been lost with a connection, and later ones not.
    pub(crate) fn outcome(&self, seq: u32, wanted_ack: bool) -> Outcome {
        if seq == 0 || seq > self.seq_last {
            return Outcome::Unknown;
        }
        if let Some((_, outcome)) = self.lost.iter().find(|(lost, _)| *lost == seq) {
            return *outcome;
        }
        // Better to say too little: who hears it may push again.
        if seq <= self.forgotten_upto {
            Outcome::Slow
        } else if seq <= self.acked_upto && wanted_ack {
            Outcome::Acked
        } else if seq <= self.handed_upto.max(self.acked_upto) {
            Outcome::Delivered
        } else {
            Outcome::Queued
        }
    }

    fn on_dropped(&mut self, letter: &Letter, outcome: Outcome) {
        self.bytes -= letter.cost();
        // Nobody will know whether it arrived: a later ACK says nothing of it.
        let outcome = if letter.was_handed { Outcome::Delivered } else { outcome };
        if self.lost.len() >= limits::LOST_KEPT_MAX
            && let Some((seq, _)) = self.lost.pop_front()
        {
            self.forgotten_upto = self.forgotten_upto.max(seq);
        }
        self.lost.push_back((letter.seq, outcome));
    }

    /// Panics when the parts disagree, or with how its client is heard. O(n): tests and simulation
    /// only.
    pub(crate) fn check(&self, hearing: Hearing) {
        let letters: Vec<&Letter> =
            self.unacked.iter().chain(&self.flying).chain(&self.waiting).collect();
        assert_eq!(letters.iter().map(|letter| letter.cost()).sum::<usize>(), self.bytes);
        assert!(letters.is_sorted_by(|one, next| one.seq < next.seq), "numbers rise");
        assert!(letters.last().is_none_or(|letter| letter.seq <= self.seq_last));
        assert!(self.acked_upto <= self.copied_upto && self.copied_upto <= self.seq_last);
        assert!(self.unacked.iter().all(|letter| letter.wants_ack && letter.was_handed));
        assert!(self.lost.len() <= limits::LOST_KEPT_MAX);
        let ages = |letters: &VecDeque<Letter>| letters.iter().all(|one| one.age.until().is_some());
        assert!(ages(&self.waiting) && ages(&self.flying), "what was not sent grows older");
        match hearing {
            Hearing::Open => assert!(ages(&self.unacked), "a client that is heard is waited for"),
            Hearing::Stopped => assert!(self.unacked.iter().all(|one| one.age.until().is_none())),
        }
        let first = self.first_expiry();
        assert!(first.is_none_or(|first| self.expires_first.is_some_and(|at| at <= first)));
    }
}

fn pop_upto(letters: &mut VecDeque<Letter>, seq: u32) -> Option<Letter> {
    letters.front().filter(|letter| letter.seq <= seq)?;
    letters.pop_front()
}

/// A queue that was long keeps no memory when it is empty.
fn give_back(letters: &mut VecDeque<Letter>) {
    if letters.is_empty() && letters.capacity() > limits::LETTERS_KEPT_MAX {
        *letters = VecDeque::new();
    }
}
