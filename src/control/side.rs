//! What the side thread does: takes records from the loop and writes them, until the loop ends.

use std::io;
use std::mem;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use crate::base::event::{Event, Record};
use crate::base::limits;
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::events::EventWriter;
use crate::control::journal::{self, Page};
use crate::control::limiter::{Admission, Limiter};
use crate::control::log::Strange;

/// Where the side thread hears from the loop, and what it is told about time.
pub trait Source {
    /// Appends at most `limit` records to `into`.
    ///
    /// [`Supply::Ended`] promises that nothing will be added any more; there may still be something
    /// left to take, and from then on every call appends at least one record as long as any is
    /// left. Whoever asks with a `limit` of zero only wants to know whether it has ended.
    fn take_records(&mut self, limit: usize, into: &mut Vec<Record>) -> Supply;

    /// Appends the pages of who is online that came with the records taken last. They belong before
    /// those: a page never comes after an event that it does not know.
    fn take_pages(&mut self, _into: &mut Vec<Page>) {}

    /// Sleeps until there is something to take, the loop has ended, or `at_most` is over. May
    /// return early.
    fn wait(&mut self, at_most: Span);

    /// Sleeps for `span`, whatever there is to take, or until the loop has ended.
    fn pause(&mut self, span: Span);

    /// Sleeps for `span`, or until something else than records comes, or many of them.
    fn let_gather(&mut self, span: Span);

    /// The moment.
    fn now(&mut self) -> Moment;

    /// What the wall clock says.
    fn wall(&mut self) -> WallAnchor;
}

/// Whether the loop may still have something to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Supply {
    /// It may.
    Open,
    /// It has ended.
    Ended,
}

/// How the side thread ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every record was written.
    Complete,
    /// The target did not take these.
    Unwritten {
        /// How many records.
        records: usize,
        /// What the machine said last.
        cause: io::Error,
    },
}

/// Takes records from `source` and writes them, until the loop has ended and all is written or
/// nothing more can be.
///
/// What the target does not take is tried again every
/// [`EVENTS_FLUSH`](limits::EVENTS_FLUSH). When there is no room for more, nothing is taken: the
/// loop notices, and refuses newcomers. At the end all is taken, and tried once more.
///
/// A journal is handed the same records and never waited for.
pub fn run(
    source: &mut impl Source,
    writer: &mut EventWriter,
    journal: Option<journal::Door>,
) -> Outcome {
    let mut side = Side {
        writer,
        journal,
        limiter: Limiter::default(),
        flushed_at: source.now(),
        refused: None,
        is_stuck: false,
    };
    let mut records = Vec::new();
    let mut density = Density::default();
    loop {
        let limit = side.writer.room().min(limits::EVENTS_TAKEN_MAX);
        let supply = source.take_records(limit, &mut records);
        let drained = records.len() < limit;
        let is_dense = density.is_dense(records.len(), source.now());
        side.pass_pages(source);
        side.write(&mut records, source.wall());
        if supply == Supply::Ended {
            return side.finish(source, records);
        }

        side.flush(source.now(), if drained { Flush::Now } else { Flush::WhenOverdue });
        if side.writer.room() == 0 {
            source.pause(side.patience());
        } else if drained {
            if is_dense && !side.is_stuck {
                source.let_gather(limits::EVENTS_GATHER);
            }
            source.wait(side.patience());
        }
    }
}

/// Whether records come so densely that it pays to let them gather.
#[derive(Debug, Default)]
struct Density {
    is_dense: bool,
    taken_at: Option<Moment>,
}

impl Density {
    /// So many were taken now. They are dense when the last ones were taken a shorter time ago than
    /// they would gather, and stay so while at least two gather.
    fn is_dense(&mut self, taken: usize, now: Moment) -> bool {
        if taken == 0 {
            return false;
        }
        let before = self.taken_at.replace(now);
        let is_within = |span| before.is_some_and(|before| now.since(before) < span);
        self.is_dense = match self.is_dense {
            true => taken >= 2 && is_within(limits::EVENTS_GATHER.times(2)),
            false => is_within(limits::EVENTS_GATHER),
        };
        self.is_dense
    }
}

struct Side<'a> {
    writer: &'a mut EventWriter,
    journal: Option<journal::Door>,
    limiter: Limiter<io::ErrorKind>,
    flushed_at: Moment,
    /// Why the last flush failed, if it did.
    refused: Option<io::ErrorKind>,
    /// Whether whoever reads the events did not take them at the last flush.
    is_stuck: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flush {
    /// Nothing more is coming at the moment.
    Now,
    /// More is coming, and shall not hold up what is here for long.
    WhenOverdue,
}

impl Side<'_> {
    fn write(&mut self, records: &mut Vec<Record>, wall: WallAnchor) {
        for record in records.iter() {
            log_record(record);
            self.writer.write(record, wall);
        }
        match &mut self.journal {
            Some(journal) => journal.pass(mem::take(records), wall),
            None => records.clear(),
        }
    }

    fn pass_pages(&mut self, source: &mut impl Source) {
        let mut pages = Vec::new();
        source.take_pages(&mut pages);
        if let Some(journal) = &mut self.journal {
            pages.into_iter().for_each(|page| journal.pass_page(page));
        }
    }

    /// Writes what is waiting, but does not try more often than it makes sense to.
    fn flush(&mut self, now: Moment, when: Flush) {
        let overdue = now.since(self.flushed_at) >= limits::EVENTS_FLUSH;
        let may_wait = when == Flush::WhenOverdue || self.refused.is_some();
        if !overdue && !self.is_stuck && may_wait {
            return;
        }
        self.flushed_at = now;
        let outcome = self.writer.flush();
        let would_wait = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.is_stuck = outcome.as_ref().is_err_and(would_wait);
        match outcome {
            // A slow reader is no fault, and takes them when he wakes.
            Err(_) if self.is_stuck => {}
            Ok(()) => {
                if self.refused.take().is_some() {
                    tracing::info!("events are written again, and none was lost");
                }
            }
            Err(error) => {
                self.refused = Some(error.kind());
                self.log_refusal(&error, now);
            }
        }
    }

    fn log_refusal(&mut self, error: &io::Error, now: Moment) {
        match self.limiter.admit(error.kind(), now) {
            Admission::Write { suppressed } => {
                let unwritten = self.writer.unwritten();
                tracing::error!(
                    %error, unwritten, suppressed, "events cannot be written, and wait"
                );
            }
            Admission::Suppress => {}
        }
    }

    /// How long to sleep when the queue is empty.
    fn patience(&self) -> Span {
        match self.writer.unwritten() {
            0 => limits::SLEEP_MAX,
            // It was waited for in the flush, and will be in the next.
            _ if self.is_stuck => Span::from_millis(1),
            _ => limits::EVENTS_FLUSH,
        }
    }

    /// Takes what the loop left behind, which is no more than the queue holds, and writes it.
    fn finish(&mut self, source: &mut impl Source, mut records: Vec<Record>) -> Outcome {
        loop {
            source.take_records(limits::EVENTS_TAKEN_MAX, &mut records);
            if records.is_empty() {
                break;
            }
            self.write(&mut records, source.wall());
        }
        match self.writer.flush_whole() {
            Ok(()) => Outcome::Complete,
            Err(cause) => Outcome::Unwritten { records: self.writer.unwritten(), cause },
        }
    }
}

/// The same sentence for people who read the log in detail.
fn log_record(record: &Record) {
    let word = record.event.word();
    match &record.event {
        Event::Started { .. } | Event::Stopped => tracing::debug!(seq = record.seq, "{word}"),
        Event::Resumed { client, epoch, conn, remote, away, .. } => {
            let away_ms = away.as_millis();
            let client = Strange(client.as_str());
            tracing::debug!(seq = record.seq, %client, epoch, %conn, %remote, away_ms, "{word}");
        }
        Event::Contested { client, epoch, remote, count } => {
            let client = Strange(client.as_str());
            tracing::warn!(%client, epoch, %remote, count, "logins fight for a client id");
        }
        Event::Rhythm { client, epoch, interval, timeout } => {
            let client = Strange(client.as_str());
            tracing::debug!(seq = record.seq, %client, epoch, %interval, %timeout, "{word}");
        }
        Event::Stalled { gap } => {
            tracing::warn!(%gap, "the loop stood still; every deadline is put off by as much");
        }
        Event::Online { client, epoch, conn, remote, .. } => {
            let client = Strange(client.as_str());
            tracing::debug!(seq = record.seq, %client, epoch, %conn, %remote, "{word}");
        }
        Event::Offline { client, epoch, conn, remote, reason, last_beat, .. } => {
            let silence_ms = record.at.since(*last_beat).as_millis();
            let client = Strange(client.as_str());
            tracing::debug!(
                seq = record.seq, %client, epoch, %conn, %remote, %reason, silence_ms, "{word}"
            );
        }
    }
}

/// The running side thread.
#[derive(Debug)]
pub struct SideThread {
    outcome: Receiver<Outcome>,
}

/// Starts [`run`] on a thread of its own.
pub fn spawn(
    mut source: impl Source + Send + 'static,
    mut writer: EventWriter,
    journal: Option<journal::Door>,
) -> io::Result<SideThread> {
    let (done, outcome) = sync_channel(1);
    thread::Builder::new().name("side".to_owned()).spawn(move || {
        // Whoever does not wait for the outcome does not want to know it.
        let _ = done.send(run(&mut source, &mut writer, journal));
    })?;
    Ok(SideThread { outcome })
}

impl SideThread {
    /// Waits until it has ended, at most for `patience`: a pipe whose reader sleeps would hold it
    /// for ever, and then it ends with the process. `None` says so.
    pub fn finish(self, patience: Span) -> Option<Outcome> {
        self.outcome.recv_timeout(Duration::from(patience)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::events::{EventsTarget, Identity};
    use std::collections::VecDeque;
    use std::fs;
    use std::path::PathBuf;

    /// A loop that says `burst` records at each sleep of the side thread, which wakes it after
    /// `woken_after` if that is sooner, and ends after `sleeps_max` sleeps or when it has said all.
    struct Script {
        queue: VecDeque<Record>,
        unsaid: VecDeque<Record>,
        burst: usize,
        woken_after: Span,
        gathered: usize,
        sleeps: Vec<Span>,
        pauses: usize,
        sleeps_max: usize,
        now: Moment,
    }

    impl Script {
        fn new(records: u64, burst: usize) -> Self {
            let record =
                |seq| Record { seq, at: Moment::ZERO, event: Event::Started { former: None } };
            Self {
                queue: VecDeque::new(),
                unsaid: (1..=records).map(record).collect(),
                burst,
                woken_after: limits::SLEEP_MAX,
                gathered: 0,
                sleeps: Vec::new(),
                pauses: 0,
                sleeps_max: usize::MAX,
                now: Moment::ZERO,
            }
        }
    }

    impl Source for Script {
        fn take_records(&mut self, limit: usize, into: &mut Vec<Record>) -> Supply {
            into.extend(self.queue.drain(..limit.min(self.queue.len())));
            let ended = self.unsaid.is_empty() || self.sleeps.len() >= self.sleeps_max;
            if ended { Supply::Ended } else { Supply::Open }
        }

        fn wait(&mut self, at_most: Span) {
            self.sleeps.push(at_most);
            self.now += at_most.min(self.woken_after);
            self.queue.extend(self.unsaid.drain(..self.burst.min(self.unsaid.len())));
        }

        fn pause(&mut self, span: Span) {
            self.pauses += 1;
            self.wait(span);
        }

        fn let_gather(&mut self, span: Span) {
            self.gathered += 1;
            self.now += span;
        }

        fn now(&mut self) -> Moment {
            self.now
        }

        fn wall(&mut self) -> WallAnchor {
            WallAnchor::default()
        }
    }

    fn writer(target: &EventsTarget) -> EventWriter {
        let identity = Identity { node: "north".to_owned(), boot: 1 };
        EventWriter::new(target, identity).expect("the target is there")
    }

    #[test]
    fn everything_is_written_in_order_and_sleep_is_long() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let path = directory.path().join("events.jsonl");
        for burst in [1, 7, limits::EVENTS_TAKEN_MAX, 10_000] {
            let mut source = Script::new(10_000, burst);
            let outcome = run(&mut source, &mut writer(&EventsTarget::File(path.clone())), None);
            assert!(matches!(outcome, Outcome::Complete), "{outcome:?}");
            let text = fs::read_to_string(&path).expect("the file is there");
            let seqs = text.lines().map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                value["seq"].as_u64().expect("a number")
            });
            assert!(seqs.eq(1..=10_000), "burst {burst}");
            assert!(source.sleeps.iter().all(|span| *span == limits::SLEEP_MAX));
            fs::remove_file(&path).expect("the file is there");
        }
    }

    #[test]
    fn a_full_disk_stops_the_taking_and_is_told_at_the_end() {
        let records = 2 * limits::EVENTS_UNWRITTEN_MAX;
        let mut source = Script::new(records as u64, 10_000);
        source.sleeps_max = 20;
        let full = EventsTarget::File(PathBuf::from("/dev/full"));
        let outcome = run(&mut source, &mut writer(&full), None);
        let Outcome::Unwritten { records: unwritten, cause } = outcome else {
            panic!("written to a full disk: {outcome:?}")
        };
        assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
        assert_eq!(unwritten, records, "what waited in the queue is counted as well");
        assert_eq!(source.sleeps.last(), Some(&limits::EVENTS_FLUSH), "it goes on trying");
        assert!(source.pauses > 0, "a full queue does not wake it");
    }

    #[test]
    fn in_a_storm_records_gather_between_takes() {
        for (woken_after, gathered) in [(limits::EVENTS_GATHER, 0), (Span::from_micros(100), 49)] {
            let mut source = Script::new(100, 1);
            source.woken_after = woken_after;
            run(&mut source, &mut writer(&EventsTarget::Nowhere), None);
            assert_eq!(source.gathered, gathered, "woken after {woken_after}");
        }
    }

    /// How often the side thread is woken, and how often it lets records gather, while one comes
    /// every so often for a second.
    fn woken(every: Span) -> (usize, usize) {
        let (mut density, mut now, mut taken) = (Density::default(), Moment::ZERO, 0);
        let (mut woken, mut gathered) = (0, 0);
        while now < Moment::ZERO + Span::from_secs(1) {
            let came = now.as_nanos() / every.as_nanos();
            let count = usize::try_from(came - taken).expect("few");
            woken += usize::from(count > 0);
            if density.is_dense(count, now) {
                gathered += 1;
                now += limits::EVENTS_GATHER;
            }
            taken = came;
            now += Span::from_micros(10);
        }
        (woken, gathered)
    }

    #[test]
    fn records_that_come_densely_gather_and_others_do_not() {
        let gather = limits::EVENTS_GATHER;
        let seldom = usize::try_from(1_000 / gather.as_millis()).expect("few") + 10;
        for every in [gather.divided_by(100), gather.divided_by(20), gather.divided_by(3)] {
            let (woken, gathered) = woken(every);
            assert!(woken <= seldom, "one in {every}: woken {woken} times in a second");
            assert!(gathered + 10 >= woken, "one in {every}: {gathered} of {woken} times");
        }
        let (_, gathered) = woken(gather + Span::from_micros(20));
        assert_eq!(gathered, 0, "one by one");
        // A tick's, now and then.
        let mut density = Density::default();
        let mut now = Moment::ZERO;
        for _ in 0..100 {
            now += Span::from_millis(10);
            assert!(!density.is_dense(500, now));
        }
        // As long as a storm lasts, and no longer.
        for (later, count, is_dense) in [
            (gather.divided_by(2), 1, true),
            (gather, 9, true),
            (gather, 1, false),
            (gather, 0, false),
        ] {
            now += later;
            assert_eq!(density.is_dense(count, now), is_dense, "{count}");
        }
    }

    #[test]
    fn while_there_is_no_room_the_queue_is_left_alone() {
        struct Watched(Script, usize);
        impl Source for Watched {
            fn take_records(&mut self, limit: usize, into: &mut Vec<Record>) -> Supply {
                let supply = self.0.take_records(limit, into);
                if supply == Supply::Open {
                    self.1 += into.len();
                    assert!(self.1 <= limits::EVENTS_UNWRITTEN_MAX);
                }
                supply
            }
            fn wait(&mut self, at_most: Span) {
                self.0.wait(at_most);
            }
            fn pause(&mut self, span: Span) {
                self.0.pause(span);
            }
            fn let_gather(&mut self, span: Span) {
                self.0.let_gather(span);
            }
            fn now(&mut self) -> Moment {
                self.0.now()
            }
            fn wall(&mut self) -> WallAnchor {
                self.0.wall()
            }
        }
        let mut script = Script::new(2 * limits::EVENTS_UNWRITTEN_MAX as u64, 50_000);
        script.sleeps_max = 10;
        let mut source = Watched(script, 0);
        run(&mut source, &mut writer(&EventsTarget::File(PathBuf::from("/dev/full"))), None);
        assert_eq!(source.1, limits::EVENTS_UNWRITTEN_MAX);
    }

    #[test]
    fn a_refusal_is_not_answered_with_a_storm_of_attempts() {
        let full = EventsTarget::File(PathBuf::from("/dev/full"));
        let mut writer = writer(&full);
        let mut side = Side {
            writer: &mut writer,
            journal: None,
            limiter: Limiter::default(),
            flushed_at: Moment::ZERO,
            refused: None,
            is_stuck: false,
        };
        let record = Record { seq: 1, at: Moment::ZERO, event: Event::Started { former: None } };
        side.write(&mut vec![record], WallAnchor::default());
        let mut attempts = 0;
        for millis in 0..1_000 {
            let now = Moment::from_millis(millis);
            side.flush(now, Flush::Now);
            attempts += usize::from(side.flushed_at == now);
        }
        assert_eq!(attempts, 10);
    }

    #[test]
    fn the_thread_tells_its_outcome() {
        let side =
            spawn(Script::new(10, 3), writer(&EventsTarget::Nowhere), None).expect("a thread");
        assert!(matches!(side.finish(Span::from_secs(10)), Some(Outcome::Complete)));
    }

    #[test]
    fn a_thread_that_does_not_end_is_not_waited_for() {
        struct Asleep(Script);
        impl Source for Asleep {
            fn take_records(&mut self, limit: usize, into: &mut Vec<Record>) -> Supply {
                self.0.take_records(limit, into)
            }
            fn wait(&mut self, _: Span) {
                thread::park();
            }
            fn pause(&mut self, _: Span) {}
            fn let_gather(&mut self, _: Span) {}
            fn now(&mut self) -> Moment {
                Moment::ZERO
            }
            fn wall(&mut self) -> WallAnchor {
                WallAnchor::default()
            }
        }
        let source = Asleep(Script::new(10, 0));
        let side = spawn(source, writer(&EventsTarget::Nowhere), None).expect("a thread");
        assert!(side.finish(Span::from_millis(20)).is_none());
    }
}
