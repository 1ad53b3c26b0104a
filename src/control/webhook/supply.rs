//! Where the entries of a target's batches come from, and how far it has taken them.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use crate::control::door::{Forgotten, Newest};
use crate::control::events::Identity;
use crate::control::hub::{Hub, Message, Sink};
use crate::control::journal::Position;
use crate::control::ledger::{Ledger, Lost, Trail};
use crate::control::messages;
use crate::control::transport;
use crate::control::webhook::Sources;
use crate::control::webhook::batch::Gathering;
use crate::control::webhook::target::{Stream, Target};

/// What one stream to one target reads.
pub(crate) struct Supply {
    ledger: Ledger,
    newest: watch::Receiver<Newest>,
    /// The last that was taken by the target.
    taken: Position,
    source: Source,
    /// What was lost, until a batch that says so was taken.
    reset: Option<ResetLine>,
}

/// Where a worker ended.
pub(crate) struct Left {
    /// The last that was taken by the target.
    pub(crate) taken: Position,
    /// The messages that wait for whoever goes on.
    pub(crate) sink: Option<Sink>,
}

enum Source {
    /// `None` until something is wanted, and after everything that went wrong.
    Events(Option<Trail>),
    Messages(Messages),
    Transport,
}

/// Messages of clients. Those that are handed out are kept until they are taken: the hub hands out
/// each once.
struct Messages {
    sink: Sink,
    kept: VecDeque<Arc<Message>>,
    /// How many of them are in the batch that gathers.
    given: usize,
}

/// What stands before events when others before them are lost.
#[derive(Clone, Debug, Serialize)]
struct ResetLine {
    event: &'static str,
    /// The last event that was taken.
    boot: u64,
    seq: u64,
    /// Where it goes on.
    next: String,
    detail: String,
}

/// What gathering found out, beside the entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Findings {
    /// Times that the place to go on from was gone.
    pub(crate) resets: u64,
    /// Events that are missing for that, as far as they can be counted.
    pub(crate) missed: u64,
}

/// What follows cannot be read at the moment.
#[derive(Debug)]
pub(crate) struct Unreadable(pub(crate) String);

impl Supply {
    /// What follows `taken` of a target's stream, and how many messages are known to be lost. They
    /// come by `sink`, where there is one already.
    pub(crate) fn new(
        sources: &Sources,
        target: &Target,
        stream: Stream,
        taken: Position,
        sink: Option<Sink>,
    ) -> (Self, u64) {
        let Sources { ledger, hub } = sources.clone();
        let (source, missed) = match stream {
            Stream::Events => (Source::Events(None), 0),
            Stream::Messages => {
                let (sink, missed) = match sink {
                    Some(sink) => (sink.hand_over(topics_of(target), taken.seq), 0),
                    None => subscribe(&hub, target, taken.seq),
                };
                let messages = Messages { sink, kept: VecDeque::new(), given: 0 };
                (Source::Messages(messages), missed)
            }
            Stream::Transport => (Source::Transport, 0),
        };
        (Self { newest: ledger.door.subscribe(), ledger, taken, source, reset: None }, missed)
    }

    /// What comes from now on is news.
    pub(crate) fn mark_seen(&mut self) {
        self.newest.borrow_and_update();
    }

    /// Waits until there may be more, if that is said at all.
    pub(crate) async fn changed(&mut self) {
        match &mut self.source {
            // At the end there is nothing to wait for.
            Source::Messages(messages) => drop(messages.sink.changed().await),
            Source::Events(_) | Source::Transport => drop(self.newest.changed().await),
        }
    }

    pub(crate) fn taken(&self) -> Position {
        self.taken
    }

    /// The target has everything up to here.
    pub(crate) fn on_taken(&mut self, last: Position) {
        self.taken = last;
        self.reset = None;
        if let Source::Messages(messages) = &mut self.source {
            messages.on_taken(last.seq);
        }
    }

    /// What was handed out and not taken is wanted again.
    pub(crate) fn rewind(&mut self) {
        match &mut self.source {
            Source::Events(trail) => *trail = None,
            Source::Messages(messages) => messages.given = 0,
            Source::Transport => {}
        }
    }

    /// Begins a batch.
    pub(crate) fn gathering(&self, stream: Stream, entries_max: usize) -> Gathering {
        Gathering::new(stream, self.taken, entries_max)
    }

    /// Passes by messages that are for others, if there are none left that are for this target.
    pub(crate) fn pass_by(&mut self) {
        if let Source::Messages(messages) = &self.source
            && messages.kept.is_empty()
        {
            self.taken.seq = messages.sink.looked_at();
        }
    }

    /// What is left of it for whoever goes on in its place.
    pub(crate) fn leave(self) -> Left {
        let sink = match self.source {
            Source::Messages(messages) => Some(messages.sink),
            Source::Events(_) | Source::Transport => None,
        };
        Left { taken: self.taken, sink }
    }

    /// Whether the door says when there is more.
    pub(crate) fn is_in_memory(&self) -> bool {
        match &self.source {
            Source::Events(trail) => trail.as_ref().is_none_or(Trail::is_in_memory),
            Source::Messages(_) | Source::Transport => true,
        }
    }

    /// Adds what is there, as far as there is room.
    pub(crate) async fn take(&mut self, into: &mut Gathering) -> Result<Findings, Unreadable> {
        let mut findings = Findings::default();
        match &mut self.source {
            Source::Transport => {
                let after = into.at();
                findings.missed = take_transport(&self.ledger, after, into);
            }
            Source::Messages(messages) => {
                findings.missed = messages.take(&self.ledger.identity, into);
            }
            Source::Events(_) => self.take_events(into, &mut findings).await?,
        }
        Ok(findings)
    }

    async fn take_events(
        &mut self,
        into: &mut Gathering,
        findings: &mut Findings,
    ) -> Result<(), Unreadable> {
        let Source::Events(slot) = &mut self.source else { return Ok(()) };
        let mut trail = match slot.take() {
            Some(trail) => trail,
            None => match Trail::begin(self.ledger.clone(), into.at()).await {
                Ok(trail) => {
                    if into.count() == 0
                        && let Some(reset) = &self.reset
                    {
                        into.announce(&serde_json::to_vec(reset).expect("texts and numbers"));
                    }
                    trail
                }
                Err(Lost::Machine(cause)) => return Err(Unreadable(cause)),
                Err(Lost::Gone(detail)) => {
                    // Those that were gathered before are sent first.
                    if into.count() == 0 {
                        *findings = self.give_up(into, detail).await;
                    }
                    return Ok(());
                }
            },
        };
        let taken = trail.take(into.room(), |end, json| into.add(end, json)).await;
        match taken {
            Ok(()) => {
                *slot = Some(trail);
                Ok(())
            }
            // The next call begins anew, and finds out what that means.
            Err(Lost::Gone(_)) => Ok(()),
            Err(Lost::Machine(cause)) => Err(Unreadable(cause)),
        }
    }

    /// What follows is lost: goes on with the oldest event that is kept, and has it said.
    async fn give_up(&mut self, into: &mut Gathering, detail: String) -> Findings {
        let at = into.at();
        let next = self.ledger.oldest_after(at).await;
        let Position { boot, seq } = self.reset.as_ref().map_or(at, ResetLine::taken);
        let is_countable = at.boot == next.boot;
        let missed = if is_countable { next.seq.saturating_sub(at.seq) } else { 0 };
        let line = ResetLine { event: "reset", boot, seq, next: next.to_string(), detail };
        self.reset = Some(line);
        into.restart(next);
        Findings { resets: 1, missed }
    }
}

/// The topics of a target; none: all.
fn topics_of(target: &Target) -> Vec<Box<str>> {
    target.topics.iter().map(|topic| Box::from(topic.as_str())).collect()
}

/// Wants a target's messages from now on.
pub(crate) fn subscribe_from_now(hub: &Hub, target: &Target) -> Sink {
    let sink = hub.subscribe_to(topics_of(target), None);
    sink.expect("what comes from now on is not forgotten")
}

/// What follows number `after`, as far as it is kept; how many are not is said.
fn subscribe(hub: &Hub, target: &Target, after: u64) -> (Sink, u64) {
    match hub.subscribe_to(topics_of(target), Some(after)) {
        Ok(sink) => (sink, 0),
        Err(Forgotten) => {
            let missed = hub.last_useq().saturating_sub(after);
            (subscribe_from_now(hub, target), missed)
        }
    }
}

impl Messages {
    /// Says how many were forgotten before they could be taken.
    fn take(&mut self, identity: &Identity, into: &mut Gathering) -> u64 {
        if self.given == self.kept.len() {
            self.kept.extend(self.sink.take(into.room(), into.room_bytes()));
        }
        for message in self.kept.iter().skip(self.given).take(into.room()) {
            let mut json = Vec::new();
            messages::append_json(message, identity, &mut json);
            into.add(Position { boot: identity.boot, seq: message.useq }, &json);
            self.given += 1;
        }
        self.sink.missed()
    }

    fn on_taken(&mut self, useq: u64) {
        while self.kept.front().is_some_and(|message| message.useq <= useq) {
            self.kept.pop_front();
            self.given = self.given.saturating_sub(1);
        }
        self.sink.done(useq);
    }
}

impl ResetLine {
    fn taken(&self) -> Position {
        Position { boot: self.boot, seq: self.seq }
    }
}

/// Adds transport events, and says how many before and between them were dropped.
fn take_transport(ledger: &Ledger, after: Position, into: &mut Gathering) -> u64 {
    let Position { boot, mut seq } = after;
    let (mut json, mut missed) = (Vec::new(), 0);
    for dated in ledger.door.transport_after(seq, into.room()) {
        let dropped = dated.record.tseq.saturating_sub(seq + 1);
        seq = dated.record.tseq;
        missed += dropped;
        json.clear();
        transport::append_json(&dated.record, &ledger.identity, dated.wall, dropped, &mut json);
        into.add(Position { boot, seq }, &json);
    }
    missed
}
