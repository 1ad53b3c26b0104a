//! The journal's thread, and the door through which the side thread feeds it.
//!
//! A disk may stand still for seconds, and a sync may take as long as it likes. So the journal is
//! written by a thread of its own, and the side thread only hands over: it never waits here, and
//! neither does the loop behind it. Records that the journal has not taken wait, at most
//! [`EVENTS_UNWRITTEN_MAX`](limits::EVENTS_UNWRITTEN_MAX) of them; further ones are dropped and
//! counted, and the journal says so in their place.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use crate::base::event::Record;
use crate::base::limits;
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::journal::fold::Page;
use crate::control::journal::words::Gap;
use crate::control::journal::writer::{Refusal, Step, Writer};
use crate::control::limiter::{Admission, Limiter};
use crate::gateway::Command;
use crate::os::clock::Clock;
use crate::server::mailbox::{Busy, Ticket};

/// Before records are taken again after some were dropped, so many places must be free: many gaps
/// of a few records would say no more than one.
const ROOM_AFTER_DROP: usize = limits::EVENTS_UNWRITTEN_MAX / 2;

/// Where records and pages are handed to the journal. Dropping it ends the journal.
#[derive(Debug)]
pub struct Door {
    queue: Sender<Message>,
    shared: Arc<Shared>,
    /// Records dropped since the last one that was handed over.
    dropped: Option<(Gap, WallAnchor)>,
}

/// The running journal.
#[derive(Debug)]
pub struct JournalThread {
    outcome: Receiver<JournalOutcome>,
}

/// How the journal ended.
#[derive(Debug)]
pub enum JournalOutcome {
    /// All is written and synced.
    Complete,
    /// The disk did not take the last lines, or does not say whether it has them.
    Unwritten {
        /// How many.
        lines: usize,
        /// What the machine said.
        cause: io::Error,
    },
}

#[derive(Debug)]
enum Message {
    Records(Vec<Record>, WallAnchor),
    Gap(Gap, WallAnchor),
    Page(Page),
}

#[derive(Debug, Default)]
struct Shared {
    /// Records handed over and not yet taken by the writer.
    waiting: AtomicUsize,
    /// Whether the door was dropped.
    ended: AtomicBool,
    /// Whether the disk refuses what it should take.
    blocked: AtomicBool,
    /// Records that were dropped because too many waited, all together.
    dropped: AtomicU64,
    /// Times that this began.
    gaps: AtomicU64,
    /// When the oldest record happened that the writer took and that is not synced, in nanoseconds;
    /// 0: there is none.
    unsynced_nanos: AtomicU64,
    /// When the first record happened that was handed over while none waited.
    handed_nanos: AtomicU64,
    /// When the latest record happened that the writer took.
    taken_nanos: AtomicU64,
}

/// How a journal is, for whoever watches it.
#[derive(Clone, Debug)]
pub struct Health {
    shared: Arc<Shared>,
}

impl Health {
    /// Records that wait to be written.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// When the oldest record happened that is not on the disk; those that were dropped are none of
    /// them. `None`: all are. While some wait to be taken it may be a little too early.
    pub fn oldest_unsynced(&self) -> Option<Moment> {
        let nanos = |cell: &AtomicU64| cell.load(Ordering::Acquire);
        let unsynced = nanos(&self.shared.unsynced_nanos);
        let handed = nanos(&self.shared.handed_nanos).max(nanos(&self.shared.taken_nanos));
        match unsynced {
            0 => (self.waiting() > 0).then(|| Moment::from_nanos(handed)),
            _ => Some(Moment::from_nanos(unsynced)),
        }
    }

    /// Records that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Acquire)
    }

    /// How often some were.
    pub fn gaps(&self) -> u64 {
        self.shared.gaps.load(Ordering::Acquire)
    }

    /// Whether the disk takes what is written.
    pub fn is_writable(&self) -> bool {
        !self.shared.blocked.load(Ordering::Acquire)
    }
}

/// Starts the thread of a journal. `ask` puts questions to the loop; the answers are to be handed
/// to the [`Door`].
///
/// # Errors
/// When the machine gives no further thread.
pub fn spawn(
    writer: Writer,
    clock: Clock,
    ask: impl FnMut(Command) -> Result<Ticket, Busy> + Send + 'static,
) -> io::Result<(Door, JournalThread)> {
    let (queue, messages) = channel();
    let (done, outcome) = sync_channel(1);
    let shared = Arc::new(Shared::default());
    let door = Door { queue, shared: Arc::clone(&shared), dropped: None };
    thread::Builder::new().name("journal".to_owned()).spawn(move || {
        let mut side = Side { writer, clock, messages, shared, limiter: Limiter::default() };
        // Whoever does not wait for the outcome does not want to know it.
        let _ = done.send(side.run(ask));
    })?;
    Ok((door, JournalThread { outcome }))
}

impl JournalThread {
    /// Waits until it has ended, at most for `patience`. `None`: it has not, and what it holds is
    /// lost with the process.
    pub fn finish(self, patience: Span) -> Option<JournalOutcome> {
        self.outcome.recv_timeout(Duration::from(patience)).ok()
    }
}

impl Door {
    /// How the journal is, now and later.
    pub fn health(&self) -> Health {
        Health { shared: Arc::clone(&self.shared) }
    }

    /// Hands over records, or drops and counts them when too many wait. Never waits.
    pub fn pass(&mut self, records: Vec<Record>, wall: WallAnchor) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        let waiting = self.shared.waiting.load(Ordering::Acquire);
        let room = limits::EVENTS_UNWRITTEN_MAX.saturating_sub(waiting);
        let needed = if self.dropped.is_some() { ROOM_AFTER_DROP } else { 0 };
        if room < needed.max(records.len()) {
            self.shared.dropped.fetch_add(records.len() as u64, Ordering::AcqRel);
            self.shared.gaps.fetch_add(u64::from(self.dropped.is_none()), Ordering::AcqRel);
            let gap = Gap { from_seq: first.seq, to_seq: last.seq, at: first.at };
            self.dropped.get_or_insert((gap, wall)).0.to_seq = last.seq;
            return;
        }
        self.tell_dropped();
        if waiting == 0 {
            self.shared.handed_nanos.store(first.at.as_nanos(), Ordering::Release);
        }
        self.shared.waiting.fetch_add(records.len(), Ordering::AcqRel);
        self.send(Message::Records(records, wall));
    }

    /// Hands over a page, which belongs before the records that came with it.
    pub fn pass_page(&mut self, page: Page) {
        self.send(Message::Page(page));
    }

    fn tell_dropped(&mut self) {
        if let Some((gap, wall)) = self.dropped.take() {
            self.send(Message::Gap(gap, wall));
        }
    }

    /// A journal that has ended takes nothing, which its outcome tells.
    fn send(&self, message: Message) {
        let _ = self.queue.send(message);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.tell_dropped();
        self.shared.ended.store(true, Ordering::Release);
    }
}

/// The thread's own side.
struct Side {
    writer: Writer,
    clock: Clock,
    messages: Receiver<Message>,
    shared: Arc<Shared>,
    limiter: Limiter<(Step, io::ErrorKind)>,
}

impl Side {
    fn run(&mut self, mut ask: impl FnMut(Command) -> Result<Ticket, Busy>) -> JournalOutcome {
        let mut was_blocked = false;
        loop {
            let now = self.clock.now();
            if let Err(refusal) = self.writer.turn(now, &mut ask) {
                self.log_refusal(&refusal, now);
            }
            self.tell_unsynced();
            let is_blocked = self.writer.is_blocked();
            self.shared.blocked.store(is_blocked, Ordering::Release);
            if mem::replace(&mut was_blocked, is_blocked) && !is_blocked {
                tracing::info!("the journal is written again");
            }
            if is_blocked {
                if self.shared.ended.load(Ordering::Acquire) {
                    return self.finish();
                }
                self.clock.sleep(limits::EVENTS_FLUSH);
                continue;
            }
            match self.messages.recv_timeout(self.writer.patience(now).into()) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Records(records, wall) => {
                for record in &records {
                    self.writer.write(record, wall);
                }
                if let Some(last) = records.last() {
                    self.shared.taken_nanos.store(last.at.as_nanos(), Ordering::Release);
                }
                self.tell_unsynced();
                self.shared.waiting.fetch_sub(records.len(), Ordering::AcqRel);
            }
            Message::Gap(gap, wall) => {
                let (from_seq, to_seq, count) = (gap.from_seq, gap.to_seq, gap.count());
                tracing::warn!(from_seq, to_seq, count, "events are missing in the journal");
                self.writer.write_gap(&gap, wall);
            }
            Message::Page(page) => self.writer.on_page(page),
        }
    }

    fn tell_unsynced(&self) {
        let nanos = self.writer.oldest_unsynced().map_or(0, |at| at.as_nanos().max(1));
        self.shared.unsynced_nanos.store(nanos, Ordering::Release);
    }

    /// Takes all that was handed over, which is bounded, and tries once to write it.
    fn finish(&mut self) -> JournalOutcome {
        while let Ok(message) = self.messages.recv_timeout(Duration::ZERO) {
            self.take(message);
        }
        match self.writer.finish(self.clock.now()) {
            Ok(()) => JournalOutcome::Complete,
            Err(Refusal { cause, .. }) => {
                JournalOutcome::Unwritten { lines: self.writer.lines_waiting(), cause }
            }
        }
    }

    fn log_refusal(&mut self, refusal: &Refusal, now: Moment) {
        let Refusal { step, cause } = refusal;
        match self.limiter.admit((*step, cause.kind()), now) {
            Admission::Write { suppressed } => {
                let waiting = self.shared.waiting.load(Ordering::Acquire);
                tracing::error!(%cause, waiting, suppressed, "the journal {step}, clients stay");
            }
            Admission::Suppress => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Event;

    fn batch(first_seq: u64) -> Vec<Record> {
        let record = |seq| Record { seq, at: Moment::ZERO, event: Event::Stopped };
        (first_seq..first_seq + limits::EVENTS_TAKEN_MAX as u64).map(record).collect()
    }

    #[test]
    fn once_some_are_dropped_all_are_until_there_is_much_room() {
        let (queue, messages) = channel();
        let shared = Arc::new(Shared::default());
        let mut door = Door { queue, shared: Arc::clone(&shared), dropped: None };
        let mut seq = 1;
        let mut pass = |door: &mut Door| {
            door.pass(batch(seq), WallAnchor::default());
            seq += limits::EVENTS_TAKEN_MAX as u64;
        };
        let batches_max = limits::EVENTS_UNWRITTEN_MAX / limits::EVENTS_TAKEN_MAX;
        for _ in 0..batches_max + 2 {
            pass(&mut door);
        }
        assert_eq!(messages.try_iter().count(), batches_max);
        let health = door.health();
        assert_eq!(health.waiting(), limits::EVENTS_UNWRITTEN_MAX);
        assert_eq!((health.gaps(), health.dropped()), (1, 2 * limits::EVENTS_TAKEN_MAX as u64));

        let taken = limits::EVENTS_TAKEN_MAX;
        shared.waiting.fetch_sub(taken, Ordering::AcqRel);
        pass(&mut door);
        assert_eq!(messages.try_iter().count(), 0, "a little room is not enough");

        shared.waiting.fetch_sub(ROOM_AFTER_DROP - taken, Ordering::AcqRel);
        pass(&mut door);
        let came: Vec<Message> = messages.try_iter().collect();
        let [Message::Gap(gap, _), Message::Records(records, _)] = &came[..] else {
            panic!("{came:?}")
        };
        assert_eq!(gap.from_seq, limits::EVENTS_UNWRITTEN_MAX as u64 + 1);
        assert_eq!(gap.count(), 3 * taken as u64);
        assert_eq!(records[0].seq, gap.to_seq + 1);
    }

    #[test]
    fn the_oldest_record_that_is_not_on_the_disk_is_known() {
        let (queue, _messages) = channel();
        let mut door = Door { queue, shared: Arc::default(), dropped: None };
        let health = door.health();
        assert_eq!(health.oldest_unsynced(), None);
        let at = Moment::from_millis;
        let record = |ms| Record { seq: 1, at: at(ms), event: Event::Stopped };
        door.pass(vec![record(70), record(71)], WallAnchor::default());
        door.pass(vec![record(80)], WallAnchor::default());
        assert_eq!(health.oldest_unsynced(), Some(at(70)), "none was taken");
        let store = |cell: &AtomicU64, ms| cell.store(at(ms).as_nanos(), Ordering::Release);
        store(&door.shared.unsynced_nanos, 60);
        assert_eq!(health.oldest_unsynced(), Some(at(60)), "what was taken first is not synced");
        store(&door.shared.taken_nanos, 71);
        door.shared.unsynced_nanos.store(0, Ordering::Release);
        assert_eq!(health.oldest_unsynced(), Some(at(71)), "one waits, and came behind that");
        door.shared.waiting.store(0, Ordering::Release);
        assert_eq!(health.oldest_unsynced(), None);
    }

    #[test]
    fn what_was_dropped_last_is_told_at_the_end() {
        let (queue, messages) = channel();
        let mut door = Door { queue, shared: Arc::default(), dropped: None };
        door.shared.waiting.store(limits::EVENTS_UNWRITTEN_MAX, Ordering::Release);
        door.pass(batch(1), WallAnchor::default());
        drop(door);
        assert!(matches!(messages.try_recv(), Ok(Message::Gap(gap, _)) if gap.from_seq == 1));
    }
}
