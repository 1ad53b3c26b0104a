//! Where the entries of a target's batches come from, and how far it has taken them.

use serde::Serialize;

use crate::control::journal::Position;
use crate::control::ledger::{Ledger, Lost, Trail};
use crate::control::transport;
use crate::control::webhook::batch::Gathering;
use crate::control::webhook::target::Stream;

/// What one stream to one target reads.
pub(crate) struct Supply {
    ledger: Ledger,
    /// The last that was taken by the target.
    taken: Position,
    source: Source,
    /// What was lost, until a batch that says so was taken.
    reset: Option<ResetLine>,
}

enum Source {
    /// `None` until something is wanted, and after everything that went wrong.
    Events(Option<Trail>),
    Transport,
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
    pub(crate) fn new(ledger: Ledger, stream: Stream, taken: Position) -> Self {
        let source = match stream {
            Stream::Events => Source::Events(None),
            Stream::Transport => Source::Transport,
        };
        Self { ledger, taken, source, reset: None }
    }

    pub(crate) fn taken(&self) -> Position {
        self.taken
    }

    /// The target has everything up to here.
    pub(crate) fn on_taken(&mut self, last: Position) {
        self.taken = last;
        self.reset = None;
    }

    /// What was handed out and not taken is wanted again.
    pub(crate) fn rewind(&mut self) {
        if let Source::Events(trail) = &mut self.source {
            *trail = None;
        }
    }

    /// Begins a batch.
    pub(crate) fn gathering(&self, stream: Stream, entries_max: usize) -> Gathering {
        Gathering::new(stream, self.taken, entries_max)
    }

    /// Whether the door says when there is more.
    pub(crate) fn is_in_memory(&self) -> bool {
        match &self.source {
            Source::Events(trail) => trail.as_ref().is_none_or(Trail::is_in_memory),
            Source::Transport => true,
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
