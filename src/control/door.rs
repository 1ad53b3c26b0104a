//! The door at which everybody outside asks the loop and hears of it.
//!
//! [`LoopHandle`] is all that the API, its feeds and its metrics know of the loop. Whoever asks
//! gets a ticket, and the side thread hands out answers by ticket; what happened lately is kept
//! here, at most so much, for whoever follows. Nobody outside can hold up the side thread: it only
//! puts down what it has, under locks that are held for copying.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::base::event::{Record, TransportRecord};
use crate::base::ids::ClientId;
use crate::base::limits;
use crate::base::time::{Moment, WallAnchor};
use crate::control::past::{Past, Sample};
use crate::gateway::{Command, Reply, Stats};
use crate::os::clock::Clock;
use crate::os::driver::DriverStats;
use crate::server::mailbox::{Busy, Ticket};
use crate::server::shards::Switchboard;
use crate::server::turns::LoopStats;

/// Asks the loop and hears of it, from any task or thread. Clones are the same handle.
#[derive(Clone)]
pub struct LoopHandle {
    shared: Arc<Shared>,
    newest: watch::Receiver<Newest>,
    samples: watch::Receiver<u64>,
}

/// The side thread's part: puts up what it hears. Dropping it says that the loop has ended.
pub struct Teller {
    shared: Arc<Shared>,
    newest: watch::Sender<Newest>,
    samples: watch::Sender<u64>,
    told: Newest,
}

/// The latest numbers that were put up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Newest {
    /// Of the ledger; 0 before its first event.
    pub seq: u64,
    /// Of the transport events; 0 before the first.
    pub tseq: u64,
}

/// Something numbered, and what the wall clock said by then.
#[derive(Clone, Debug)]
pub struct Dated<T> {
    /// What happened.
    pub record: T,
    /// What its moments are dated by.
    pub wall: WallAnchor,
}

/// How things were, about a second ago at most, if the loop turns.
#[derive(Clone, Debug)]
pub struct Report {
    /// When the side thread heard it.
    pub heard_at: Moment,
    /// What the gateway counts.
    pub stats: Stats,
    /// What the loops count, all together.
    pub turns: LoopStats,
    /// What the drivers count, all together.
    pub driver: DriverStats,
    /// How many loops there are.
    pub shards: usize,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AskError {
    /// Too many questions wait.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The loop did not answer in time. What was asked for may have happened, or still happen.
    #[error("the loop did not answer within {}", limits::ASK_PATIENCE)]
    Late,
    /// The loop has ended.
    #[error("the loop has ended")]
    Ended,
}

/// What follows a number is no longer kept here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("what follows is no longer in memory")]
pub struct Forgotten;

struct Shared {
    asker: Arc<Mutex<Switchboard>>,
    clock: Clock,
    awaited: Mutex<Awaited>,
    events: Mutex<Recent<Record>>,
    transport: Mutex<Recent<TransportRecord>>,
    report: Mutex<Option<Report>>,
    past: Mutex<Past>,
    opened_at: Moment,
}

#[derive(Default)]
struct Awaited {
    by_ticket: HashMap<Ticket, oneshot::Sender<Reply>>,
    ended: bool,
}

/// Opens the door: one part for whoever is outside, one for the side thread.
pub fn open(asker: Arc<Mutex<Switchboard>>, clock: Clock) -> (LoopHandle, Teller) {
    let shared = Arc::new(Shared {
        asker,
        clock,
        awaited: Mutex::default(),
        events: Mutex::new(Recent::new(limits::FEED_RECENT_MAX)),
        transport: Mutex::new(Recent::new(limits::FEED_TRANSPORT_RECENT_MAX)),
        report: Mutex::default(),
        past: Mutex::default(),
        opened_at: clock.now(),
    });
    let (newest_in, newest) = watch::channel(Newest::default());
    let (samples_in, samples) = watch::channel(0);
    let told = Newest::default();
    let teller =
        Teller { shared: Arc::clone(&shared), newest: newest_in, samples: samples_in, told };
    (LoopHandle { shared, newest, samples }, teller)
}

/// A thread that panicked has left nothing half done behind these locks: each is held for one
/// insertion, one removal or one copy.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LoopHandle {
    /// Asks, and waits for the answer, at most [`ASK_PATIENCE`](limits::ASK_PATIENCE).
    ///
    /// # Errors
    /// At once when too many questions wait or the loop has ended; later when it does not answer.
    pub async fn ask(&self, command: Command) -> Result<Reply, AskError> {
        let answer = self.put(command)?;
        match tokio::time::timeout(limits::ASK_PATIENCE.into(), answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(AskError::Ended),
            Err(_) => Err(AskError::Late),
        }
    }

    fn put(&self, command: Command) -> Result<oneshot::Receiver<Reply>, AskError> {
        // Locked until the ticket is noted, or its answer could come before.
        let mut awaited = lock(&self.shared.awaited);
        if awaited.ended {
            return Err(AskError::Ended);
        }
        if awaited.by_ticket.len() >= limits::COMMAND_QUEUE_MAX {
            return Err(Busy.into());
        }
        let ticket = lock(&self.shared.asker).ask(command)?;
        let (sender, answer) = oneshot::channel();
        awaited.by_ticket.insert(ticket, sender);
        Ok(answer)
    }

    /// Which shard a client belongs to.
    pub fn owner_of(&self, client: &ClientId) -> usize {
        lock(&self.shared.asker).owner_of(client)
    }

    /// Says when there is something new, and fails when the loop has ended.
    pub fn subscribe(&self) -> watch::Receiver<Newest> {
        self.newest.clone()
    }

    /// The latest numbers that can be had here.
    pub fn newest(&self) -> Newest {
        *self.newest.borrow()
    }

    /// Whether the loop has ended. What it told before can still be had.
    pub fn has_ended(&self) -> bool {
        lock(&self.shared.awaited).ended
    }

    /// At most `limit` events that follow number `seq`, in order.
    ///
    /// # Errors
    /// When some of them are no longer kept here.
    pub fn events_after(&self, seq: u64, limit: usize) -> Result<Vec<Dated<Record>>, Forgotten> {
        lock(&self.shared.events).after(seq, limit)
    }

    /// The latest events of one client that are kept here, at most `limit`, in order; and whether
    /// there were no others on this boot. Looks through all that is kept: a millisecond or so.
    pub fn events_of(&self, client: &str, limit: usize) -> (Vec<Dated<Record>>, bool) {
        let events = lock(&self.shared.events);
        let own = |dated: &&Dated<Record>| {
            dated.record.event.client().is_some_and(|own| own.as_str() == client)
        };
        let latest = events.kept.iter().rev().map(|(_, dated)| dated).filter(own);
        let mut latest: Vec<Dated<Record>> = latest.take(limit + 1).cloned().collect();
        let are_all = events.before == 0 && latest.len() <= limit;
        latest.truncate(limit);
        latest.reverse();
        (latest, are_all)
    }

    /// The number of the latest event that can be had here.
    pub fn last_seq(&self) -> u64 {
        lock(&self.shared.events).last()
    }

    /// The number up to which events are no longer kept here.
    pub fn events_forgotten_up_to(&self) -> u64 {
        lock(&self.shared.events).before
    }

    /// At most `limit` transport events that follow number `tseq`, in order. Those that were
    /// dropped on the way, or are no longer kept, are missing.
    pub fn transport_after(&self, tseq: u64, limit: usize) -> Vec<Dated<TransportRecord>> {
        lock(&self.shared.transport).what_is_left_after(tseq, limit)
    }

    /// How things were lately; `None` before the loop has said it once.
    pub fn report(&self) -> Option<Report> {
        lock(&self.shared.report).clone()
    }

    /// Says the number of the latest sample of how things were, and fails when the loop has ended.
    pub fn subscribe_to_samples(&self) -> watch::Receiver<u64> {
        self.samples.clone()
    }

    /// At most `limit` samples that follow number `n`, as far as they are kept.
    pub fn samples_after(&self, n: u64, limit: usize) -> Vec<Sample> {
        lock(&self.shared.past).after(n, limit)
    }

    /// When this door was opened, which is when the gateway was started.
    pub fn opened_at(&self) -> Moment {
        self.shared.opened_at
    }

    /// The clock by which moments of the loop are told.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }
}

impl Teller {
    /// Hands an answer to whoever asked. Gives it back when nobody outside did.
    pub fn answer(&mut self, ticket: Ticket, reply: Reply) -> Option<Reply> {
        match lock(&self.shared.awaited).by_ticket.remove(&ticket) {
            Some(asker) => {
                // Whoever has given up does not want to know it.
                let _ = asker.send(reply);
                None
            }
            None => Some(reply),
        }
    }

    /// Puts up an event.
    pub fn tell(&mut self, record: &Record, wall: WallAnchor) {
        self.told.seq = record.seq;
        lock(&self.shared.past).on_event(&record.event);
        let dated = Dated { record: record.clone(), wall };
        lock(&self.shared.events).push(record.seq, dated);
    }

    /// Puts up a transport event.
    pub fn tell_transport(&mut self, record: &TransportRecord, wall: WallAnchor) {
        self.told.tseq = record.tseq;
        let dated = Dated { record: record.clone(), wall };
        lock(&self.shared.transport).push(record.tseq, dated);
    }

    /// Puts up how things are.
    pub fn report(&mut self, report: Report) {
        let at_unix_ms = self.shared.clock.wall().unix_millis(report.heard_at);
        let latest = lock(&self.shared.past).on_report(&report, at_unix_ms);
        *lock(&self.shared.report) = Some(report);
        self.samples.send_if_modified(|sample| std::mem::replace(sample, latest) != latest);
    }

    /// Wakes whoever follows, once for all that was put up before.
    pub fn wake(&mut self) {
        let told = self.told;
        self.newest.send_if_modified(|newest| std::mem::replace(newest, told) != told);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut awaited = lock(&self.shared.awaited);
        awaited.ended = true;
        awaited.by_ticket.clear();
        drop(awaited);
        self.wake();
    }
}

/// The latest of something numbered.
struct Recent<T> {
    kept: VecDeque<(u64, Dated<T>)>,
    kept_max: usize,
    /// The number before the oldest one kept: what follows it can be had.
    before: u64,
}

impl<T: Clone> Recent<T> {
    fn new(kept_max: usize) -> Self {
        Self { kept: VecDeque::new(), kept_max, before: 0 }
    }

    fn push(&mut self, number: u64, dated: Dated<T>) {
        if self.kept.len() >= self.kept_max
            && let Some((oldest, _)) = self.kept.pop_front()
        {
            self.before = oldest;
        }
        self.kept.push_back((number, dated));
    }

    fn after(&self, number: u64, limit: usize) -> Result<Vec<Dated<T>>, Forgotten> {
        if number < self.before {
            return Err(Forgotten);
        }
        Ok(self.what_is_left_after(number, limit))
    }

    fn what_is_left_after(&self, number: u64, limit: usize) -> Vec<Dated<T>> {
        let start = self.kept.partition_point(|(kept, _)| *kept <= number);
        self.kept.iter().skip(start).take(limit).map(|(_, dated)| dated.clone()).collect()
    }

    fn last(&self) -> u64 {
        self.kept.back().map_or(self.before, |(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Shard;
    use crate::base::event::Event;
    use crate::os::wake::Waker;
    use crate::server::mailbox;

    fn record(seq: u64) -> Record {
        Record { seq, at: Moment::ZERO, event: Event::Stopped }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    /// A door without a loop behind it, and the loop's side of the mailbox.
    fn rig() -> (LoopHandle, Teller, mailbox::Inside) {
        let (inside, asker, _reader) = mailbox::open(Waker::new().expect("an eventfd"));
        let switchboard = Switchboard::new(vec![asker], Shard::ONLY);
        let (handle, teller) = open(Arc::new(Mutex::new(switchboard)), Clock::new());
        (handle, teller, inside)
    }

    #[test]
    fn answers_find_whoever_asked() {
        let (handle, mut teller, mut inside) = rig();
        runtime().block_on(async {
            let ask = tokio::spawn({
                let handle = handle.clone();
                async move { handle.ask(Command::Stats).await }
            });
            tokio::task::yield_now().await;
            let (ticket, command) = inside.next_question().expect("it was asked");
            assert_eq!(command, Command::Stats);
            assert_eq!(teller.answer(Ticket(99), Reply::Done), Some(Reply::Done), "not ours");
            assert_eq!(teller.answer(ticket, Reply::NoSuchClient), None);
            assert_eq!(ask.await.expect("it does not panic"), Ok(Reply::NoSuchClient));
        });
    }

    #[test]
    fn a_full_mailbox_is_said_at_once_and_a_dead_loop_too() {
        let (handle, teller, inside) = rig();
        let questions: Vec<_> = (0..limits::COMMAND_QUEUE_MAX)
            .map(|_| handle.put(Command::Stats).expect("there is room"))
            .collect();
        runtime().block_on(async {
            assert_eq!(handle.ask(Command::Stats).await, Err(AskError::Busy(Busy)));
            drop(teller);
            for question in questions {
                assert!(question.await.is_err(), "nobody waits for a loop that has ended");
            }
            assert_eq!(handle.ask(Command::Stats).await, Err(AskError::Ended));
        });
        drop(inside);
    }

    #[test]
    fn questions_that_nobody_waits_for_any_more_are_bounded_too() {
        let (handle, mut teller, mut inside) = rig();
        for _ in 0..limits::COMMAND_QUEUE_MAX {
            drop(handle.put(Command::Stats).expect("there is room"));
            inside.next_question().expect("it was asked");
        }
        assert_eq!(handle.put(Command::Stats).err(), Some(AskError::Busy(Busy)));
        assert_eq!(teller.answer(Ticket(1), Reply::Done), None);
        assert!(handle.put(Command::Stats).is_ok(), "room again");
    }

    /// The thread that serves the API may die at any point, with a lock in its hand even.
    #[test]
    fn a_dead_api_does_not_stop_the_side_thread() {
        let (handle, mut teller, mut inside) = rig();
        drop(handle.put(Command::Stats).expect("there is room"));
        let shared = Arc::clone(&handle.shared);
        let died = std::thread::spawn(move || {
            let _events = lock(&shared.events);
            let _awaited = lock(&shared.awaited);
            panic!("as if serving had");
        });
        assert!(died.join().is_err());
        drop(handle);
        let (ticket, _) = inside.next_question().expect("it was asked");
        assert_eq!(teller.answer(ticket, Reply::Done), None);
        teller.tell(&record(1), WallAnchor::default());
        teller.report(Report {
            heard_at: Moment::ZERO,
            stats: Stats::default(),
            turns: LoopStats::default(),
            driver: DriverStats::default(),
            shards: 1,
        });
        teller.wake();
    }

    #[test]
    fn what_was_lately_is_kept_and_what_is_gone_is_said() {
        let (handle, mut teller, _inside) = rig();
        let kept = limits::FEED_RECENT_MAX as u64;
        for seq in 1..=kept + 5 {
            teller.tell(&record(seq), WallAnchor::default());
        }
        assert_eq!(handle.newest(), Newest::default(), "not woken yet");
        teller.wake();
        assert_eq!(handle.newest(), Newest { seq: kept + 5, tseq: 0 });
        assert_eq!(handle.events_after(4, 1).err(), Some(Forgotten));
        let seqs = |after, limit| {
            let events = handle.events_after(after, limit).expect("kept");
            events.iter().map(|dated| dated.record.seq).collect::<Vec<_>>()
        };
        assert_eq!(seqs(5, 3), [6, 7, 8]);
        assert_eq!(seqs(kept + 3, 9), [kept + 4, kept + 5]);
        assert!(seqs(kept + 5, 9).is_empty());
        drop(teller);
        assert!(handle.has_ended());
        assert_eq!(seqs(kept + 4, 9), [kept + 5], "still there after the end");
    }
}
