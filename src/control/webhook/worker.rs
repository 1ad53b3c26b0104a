//! What is done for one stream of one target: gather, send until it is taken, remember.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::control::hub::Sink;
use crate::control::journal::Position;
use crate::control::webhook::Sources;
use crate::control::webhook::backoff::Backoff;
use crate::control::webhook::batch::Batch;
use crate::control::webhook::complaint::Complaint;
use crate::control::webhook::health::Health;
use crate::control::webhook::position::{Found, PositionFile};
use crate::control::webhook::sender::{Outcome, Sender};
use crate::control::webhook::supply::{Findings, Left, Supply, Unreadable};
use crate::control::webhook::target::{Beginning, Stream, Target};
use crate::os::clock::Clock;
use crate::os::random;

/// Works for one stream of one target.
pub(crate) struct Worker {
    target: Arc<Target>,
    stream: Stream,
    sources: Sources,
    health: Arc<Health>,
    sender: Sender,
    backoff: Backoff,
    /// `None`: nothing is kept over a restart.
    file: Option<PositionFile>,
    /// Fewer than the target was configured for, where it refuses as many.
    batch_max: usize,
    stop: watch::Receiver<Order>,
    clock: Clock,
    complaint: Complaint,
}

/// What a worker is made of.
pub(crate) struct Making {
    pub(crate) target: Arc<Target>,
    pub(crate) stream: Stream,
    pub(crate) sources: Sources,
    pub(crate) health: Arc<Health>,
    pub(crate) sender: Sender,
    /// Whether it has to end.
    pub(crate) stop: watch::Receiver<Order>,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    Work,
    /// To end, and leave what waits for it to somebody else.
    HandOver,
    /// To end: nobody goes on.
    Leave,
}

/// Where a worker begins that finds no position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// Where the one before it ended.
    At(Position),
    /// With the program.
    Program,
    /// In the middle of its life.
    Later,
}

/// Why a batch is not sent any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Course {
    Taken,
    Smaller,
    Off,
    Stopped,
}

impl Worker {
    pub(crate) fn new(making: Making) -> Self {
        let Making { target, stream, sources, health, sender, stop } = making;
        let ledger = &sources.ledger;
        let folder = ledger.journal.as_ref().filter(|_| stream == Stream::Events);
        let clock = ledger.door.clock();
        Self {
            backoff: Backoff::new(target.retry_max, random::u64()),
            file: folder.map(|folder| PositionFile::new(folder, &target.name)),
            batch_max: target.batch_max,
            target,
            stream,
            sources,
            health,
            sender,
            stop,
            clock,
            complaint: Complaint::default(),
        }
    }

    /// Works until it is stopped, or the loop has ended and everything is told. Returns what is
    /// left for the next one; `None`: it does not know. Messages come by `sink`, where they wait
    /// for somebody already.
    pub(crate) async fn run(mut self, start: Start, sink: Option<Sink>) -> Option<Left> {
        let taken = match (&sink, start) {
            (Some(sink), Start::Program | Start::Later) => {
                let boot = self.sources.ledger.identity.boot;
                Position { boot, seq: sink.looked_at() }
            }
            (Some(_) | None, _) => self.find_start(start).await?,
        };
        self.health.on_place(taken);
        let (mut supply, missed) =
            Supply::new(&self.sources, &self.target, self.stream, taken, sink);
        self.health.missed.fetch_add(missed, Relaxed);
        while let Some(batch) = self.gather(&mut supply).await {
            match self.deliver(&batch).await {
                Course::Taken => {
                    supply.on_taken(batch.last);
                    self.save(batch.last).await;
                }
                Course::Smaller => supply.rewind(),
                Course::Stopped => break,
                Course::Off => {
                    // Clients whose messages nobody takes here must not wait for that.
                    let Left { taken, .. } = supply.leave();
                    let _ = self.stop.wait_for(|order| *order != Order::Work).await;
                    return Some(Left { taken, sink: None });
                }
            }
        }
        self.say_what_is_left();
        match *self.stop.borrow() {
            Order::HandOver => Some(supply.leave()),
            Order::Work | Order::Leave => None,
        }
    }

    // --- where it is -----------------------------------------------------------------------------

    async fn find_start(&mut self, start: Start) -> Option<Position> {
        if let Start::At(position) = start {
            return Some(position);
        }
        let found = match self.file.clone() {
            Some(file) => self.load(file).await?,
            None => Found::Nothing,
        };
        let boot = self.sources.ledger.identity.boot;
        let begin = Position { boot, seq: 0 };
        let position = match (found, self.stream, self.target.from, start) {
            (Found::At(position), ..) => return Some(position),
            (Found::Damaged, ..) | (Found::Nothing, Stream::Events, Beginning::Start, _) => {
                self.sources.ledger.oldest().await
            }
            (Found::Nothing, Stream::Transport, Beginning::Start, _)
            | (Found::Nothing, Stream::Events | Stream::Transport, _, Start::Program) => begin,
            // Nobody wanted those that came before.
            (Found::Nothing, Stream::Messages, ..) => {
                Position { boot, seq: self.sources.hub.last_useq() }
            }
            (Found::Nothing, Stream::Transport, ..) => {
                Position { boot, seq: self.sources.ledger.door.newest().tseq }
            }
            (Found::Nothing, Stream::Events, ..) => self.sources.ledger.newest(),
        };
        // From now on nothing may be missed, whatever happens before the first batch is taken.
        self.save(position).await;
        Some(position)
    }

    /// Reads the position. A file that cannot be read at the moment is tried again: without it
    /// events would be missed, or all come again.
    async fn load(&mut self, file: PositionFile) -> Option<Found> {
        loop {
            let own = file.clone();
            let cause = match spawn_blocking(move || own.load()).await {
                Ok(Ok(Found::Damaged)) => {
                    let (webhook, path) = (&self.target.name, file.path().display());
                    tracing::error!(
                        %webhook, %path,
                        "the position of a webhook is damaged; it begins with the oldest event kept"
                    );
                    return Some(Found::Damaged);
                }
                Ok(Ok(found)) => return Some(found),
                Ok(Err(cause)) => cause.to_string(),
                Err(cause) => cause.to_string(),
            };
            self.complain(&format!("its position cannot be read: {cause}"));
            if self.is_stopped_within(limits::WEBHOOK_RETRY_BASE.times(4)).await {
                return None;
            }
        }
    }

    /// Keeps a position for the next start. Where the disk does not take it, events come again.
    async fn save(&mut self, position: Position) {
        let Some(file) = self.file.clone() else { return };
        let cause = match spawn_blocking(move || file.save(position)).await {
            Ok(Ok(())) => return,
            Ok(Err(cause)) => cause.to_string(),
            Err(cause) => cause.to_string(),
        };
        self.health.positions_unsaved.fetch_add(1, Relaxed);
        self.complain(&format!("its position cannot be kept: {cause}"));
    }

    fn say_what_is_left(&self) {
        let lag = self.health.lag(&self.sources);
        // Whoever sent a message that was not taken was not told that it was.
        if lag == 0 || self.stream == Stream::Messages || !self.sources.ledger.door.has_ended() {
            return;
        }
        let (webhook, stream) = (&self.target.name, self.stream.word());
        match &self.file {
            Some(_) => tracing::info!(
                %webhook, stream, lag, "a webhook has not taken everything; it goes on next time"
            ),
            None => tracing::warn!(
                %webhook, stream, lag, "a webhook has not taken everything; the rest is lost"
            ),
        }
    }

    // --- a batch ---------------------------------------------------------------------------------

    /// The next batch. `None`: stopped, or the loop has ended and everything is told.
    async fn gather(&mut self, supply: &mut Supply) -> Option<Batch> {
        let mut gathering = supply.gathering(self.stream, self.batch_max);
        let mut due_at = None;
        while *self.stop.borrow() == Order::Work {
            supply.mark_seen();
            // Asked first: what was told before the end is seen below.
            let has_ended = self.sources.ledger.door.has_ended();
            let before = gathering.count();
            let pause = match supply.take(&mut gathering).await {
                Ok(findings) => self.note(findings, &gathering.at()),
                Err(Unreadable(cause)) => {
                    self.complain(&format!("what follows cannot be read: {cause}"));
                    Pause::AWhile
                }
            };
            if gathering.room() == 0 {
                break;
            }
            if gathering.count() > before {
                due_at.get_or_insert(self.clock.now() + self.target.batch_wait);
                continue;
            }
            let left = due_at.map(|due_at: Moment| due_at.since(self.clock.now()));
            if has_ended || left == Some(Span::ZERO) {
                break;
            }
            supply.pass_by();
            self.health.on_place(supply.taken());
            self.wait(pause, supply, left).await;
        }
        if *self.stop.borrow() != Order::Work {
            return None;
        }
        gathering.finish(&self.sources.ledger.identity)
    }

    fn note(&self, findings: Findings, next: &Position) -> Pause {
        let Findings { resets, missed } = findings;
        self.health.missed.fetch_add(missed, Relaxed);
        if resets == 0 {
            return Pause::ForNews;
        }
        self.health.resets.fetch_add(resets, Relaxed);
        let (webhook, stream) = (&self.target.name, self.stream.word());
        tracing::warn!(
            %webhook, stream, missed, %next,
            "events for a webhook are no longer kept; it is told to take a snapshot"
        );
        Pause::AWhile
    }

    /// Waits for something new, at most for `left`.
    async fn wait(&mut self, pause: Pause, supply: &mut Supply, left: Option<Span>) {
        let is_in_memory = supply.is_in_memory();
        let longest = match (pause, is_in_memory) {
            (Pause::ForNews, true) => left.unwrap_or(limits::FEED_HEARTBEAT),
            (Pause::ForNews, false) | (Pause::AWhile, _) => limits::JOURNAL_FOLLOW_PAUSE,
        };
        let is_news = pause == Pause::ForNews && is_in_memory;
        tokio::select! {
            () = supply.changed(), if is_news => {}
            _ = self.stop.wait_for(|order| *order != Order::Work) => {}
            () = sleep(longest.into()) => {}
        }
    }

    // --- sending ---------------------------------------------------------------------------------

    /// Sends a batch until it is taken.
    async fn deliver(&mut self, batch: &Batch) -> Course {
        for attempt in 1_u64.. {
            // After the end each batch has one attempt.
            let has_ended = self.sources.ledger.door.has_ended();
            if attempt > 1 {
                self.health.retries.fetch_add(1, Relaxed);
            }
            let (cause, wish) = match self.sender.send(batch, attempt).await {
                Outcome::Taken => {
                    self.on_taken(batch);
                    return Course::Taken;
                }
                Outcome::Gone => {
                    self.on_gone();
                    return Course::Off;
                }
                Outcome::TooLarge if batch.count > 1 => {
                    self.batch_max = batch.count / 2;
                    let (webhook, batch_max) = (&self.target.name, self.batch_max);
                    tracing::warn!(%webhook, batch_max, "batches are too large for a webhook");
                    return Course::Smaller;
                }
                Outcome::TooLarge => ("a batch of one is too large for it".to_owned(), Span::ZERO),
                Outcome::Failed { cause, pause } => (cause, pause),
            };
            self.health.on_failure(cause.clone(), self.unix_ms());
            self.complain(&cause);
            let pause = self.backoff.next_pause().max(wish.min(self.target.retry_max));
            if has_ended || self.is_stopped_within(pause).await {
                return Course::Stopped;
            }
        }
        Course::Stopped
    }

    fn on_taken(&mut self, batch: &Batch) {
        self.health.on_taken(batch.count, batch.last, self.unix_ms());
        self.backoff.reset();
        if let Some(failures) = self.complaint.on_succeeded() {
            let (webhook, stream) = (&self.target.name, self.stream.word());
            tracing::info!(%webhook, stream, failures, "a webhook takes its batches again");
        }
    }

    fn on_gone(&self) {
        self.health.on_off();
        let (webhook, stream) = (&self.target.name, self.stream.word());
        tracing::error!(
            %webhook, stream,
            "a webhook says that it is gone (410), and is switched off until it is configured anew"
        );
    }

    /// Logs what is wrong, once in a while.
    fn complain(&mut self, cause: &str) {
        let Some(failures) = self.complaint.on_failed(self.clock.now()) else { return };
        let (webhook, stream) = (&self.target.name, self.stream.word());
        let cause = cause.escape_debug();
        tracing::warn!(%webhook, stream, failures, %cause, "a webhook fails, and is tried again");
    }

    /// Waits for `pause`, or until the loop has ended. Says whether it was stopped meanwhile.
    async fn is_stopped_within(&mut self, pause: Span) -> bool {
        let ended = async {
            let mut newest = self.sources.ledger.door.subscribe();
            while newest.changed().await.is_ok() {}
        };
        tokio::select! {
            _ = self.stop.wait_for(|order| *order != Order::Work) => true,
            () = ended => false,
            () = sleep(pause.into()) => false,
        }
    }

    fn unix_ms(&self) -> u64 {
        self.clock.wall().unix_millis(self.clock.now())
    }
}

/// For what it waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pause {
    ForNews,
    AWhile,
}
