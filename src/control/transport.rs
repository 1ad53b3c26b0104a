//! The feed of transport events, as JSON lines: best effort, on a thread of its own, so that
//! whoever reads it slowly, or not at all, never holds up the ledger.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use serde::Serialize;

use crate::base::event::{TransportEvent, TransportRecord};
use crate::base::limits;
use crate::base::time::{Span, WallAnchor};
use crate::control::events::{self, EventsTarget, Identity};

/// Where transport events are handed in. What the target does not take in time is dropped, and the
/// next line says how many.
#[derive(Debug)]
pub struct TransportFeed {
    records: SyncSender<(TransportRecord, WallAnchor)>,
}

/// The thread that writes them.
#[derive(Debug)]
pub struct TransportThread {
    /// Nothing comes out of it but its end.
    ended: Receiver<()>,
}

/// Opens `target` and starts the thread; `None` when nobody wants to know. Fails when a file cannot
/// be opened for appending, standard output is closed, or there is no further thread.
pub fn open(
    target: &EventsTarget,
    identity: Identity,
) -> io::Result<Option<(TransportFeed, TransportThread)>> {
    match events::open(target)? {
        Some(file) => start(Box::new(file), identity).map(Some),
        None => Ok(None),
    }
}

fn start(
    output: Box<dyn Write + Send>,
    identity: Identity,
) -> io::Result<(TransportFeed, TransportThread)> {
    let (handed_in, records) = sync_channel(limits::TRANSPORT_UNWRITTEN_MAX);
    let (end, ended) = sync_channel(1);
    let mut writer = Writer::new(output, identity);
    thread::Builder::new().name("transport".to_owned()).spawn(move || {
        writer.run(&records);
        drop(end);
    })?;
    Ok((TransportFeed { records: handed_in }, TransportThread { ended }))
}

impl TransportFeed {
    /// Hands in a record. Never waits: where there is no room it is dropped, and its number is
    /// missed by whoever writes the next one.
    pub fn write(&self, record: TransportRecord, wall: WallAnchor) {
        let _ = self.records.try_send((record, wall));
    }
}

impl TransportThread {
    /// Waits until everything handed in is written, at most for `patience`. The feed must be gone.
    pub fn finish(self, patience: Span) {
        match self.ended.recv_timeout(patience.into()) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the last transport events are lost: nobody takes them");
            }
        }
    }
}

/// Bytes written at once, about.
const BATCH_BYTES: usize = 64 * 1_024;

struct Writer {
    output: Box<dyn Write + Send>,
    identity: Identity,
    batch: Batch,
    /// Number of the last record that was written to its end.
    tseq_written: u64,
    /// Whether the last thing written is a piece of a line.
    is_torn: bool,
    /// Whether the last attempt to write failed.
    is_failing: bool,
}

/// Lines to be written at once.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each line ends, and its number.
    ends: Vec<(usize, u64)>,
}

impl Writer {
    fn new(output: Box<dyn Write + Send>, identity: Identity) -> Self {
        Self {
            output,
            identity,
            batch: Batch::default(),
            tseq_written: 0,
            is_torn: false,
            is_failing: false,
        }
    }

    fn run(&mut self, records: &Receiver<(TransportRecord, WallAnchor)>) {
        while let Ok((record, wall)) = records.recv() {
            self.begin();
            self.add(&record, wall);
            while self.batch.bytes.len() < BATCH_BYTES
                && let Ok((record, wall)) = records.try_recv()
            {
                self.add(&record, wall);
            }
            self.end();
        }
    }

    fn begin(&mut self) {
        self.batch.bytes.clear();
        self.batch.ends.clear();
        if self.is_torn {
            self.batch.bytes.push(b'\n');
        }
    }

    fn add(&mut self, record: &TransportRecord, wall: WallAnchor) {
        let before = self.batch.ends.last().map_or(self.tseq_written, |(_, tseq)| *tseq);
        // Every event has a number, so the ones that are missing are those that were dropped,
        // wherever that was.
        let dropped = record.tseq.saturating_sub(before + 1);
        append_json(record, &self.identity, wall, dropped, &mut self.batch.bytes);
        self.batch.bytes.push(b'\n');
        self.batch.ends.push((self.batch.bytes.len(), record.tseq));
    }

    /// Writes the batch. What is not taken is dropped.
    fn end(&mut self) {
        let mut written = 0;
        let outcome = loop {
            let rest = &self.batch.bytes[written..];
            if rest.is_empty() {
                break Ok(());
            }
            match self.output.write(rest) {
                Ok(0) => break Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let whole = self.batch.ends.iter().take_while(|(end, _)| *end <= written).last();
        if let Some((_, tseq)) = whole {
            self.tseq_written = *tseq;
        }
        if let Some(last) = written.checked_sub(1) {
            self.is_torn = self.batch.bytes[last] != b'\n';
        }
        self.note(outcome);
    }

    /// Tells the log when it begins to fail, and when it ends.
    fn note(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) if self.is_failing => tracing::info!("transport events are written again"),
            Ok(()) => {}
            Err(error) if !self.is_failing => {
                tracing::warn!(%error, "transport events cannot be written, and are dropped");
                self.is_failing = true;
                return;
            }
            Err(_) => return,
        }
        self.is_failing = false;
    }
}

/// Appends a transport event as one JSON object, without a line end; `dropped` are missing before
/// it.
pub(crate) fn append_json(
    record: &TransportRecord,
    identity: &Identity,
    wall: WallAnchor,
    dropped: u64,
    out: &mut Vec<u8>,
) {
    serde_json::to_writer(out, &Line::new(record, identity, wall, dropped))
        .expect("a vector takes every byte, and a line has texts and numbers only");
}

/// One line of the feed. The order of the fields is the order in the line.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    node: &'a str,
    boot: u64,
    tseq: u64,
    dropped: u64,
    at_unix_ms: u64,
    #[serde(serialize_with = "events::as_text")]
    conn: &'a dyn Display,
    #[serde(flatten)]
    detail: Detail<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    /// It came, or it goes on in another shard.
    Connected {
        #[serde(serialize_with = "events::as_text")]
        remote: &'a dyn Display,
    },
    Disconnected {
        #[serde(serialize_with = "events::as_text")]
        remote: &'a dyn Display,
        client: Option<&'a str>,
        reason: &'static str,
        code: u16,
    },
    Suspect {
        client: &'a str,
        silence_ms: u64,
    },
    Rescued {
        client: &'a str,
        by: &'static str,
    },
}

impl<'a> Line<'a> {
    fn new(
        record: &'a TransportRecord,
        identity: &'a Identity,
        wall: WallAnchor,
        dropped: u64,
    ) -> Self {
        let (conn, detail) = match &record.event {
            TransportEvent::Connected { conn, remote } | TransportEvent::Moved { conn, remote } => {
                (conn, Detail::Connected { remote })
            }
            TransportEvent::Disconnected { conn, remote, client, reason } => {
                let client = client.as_ref().map(|client| client.as_str());
                let (reason, code) = (reason.word(), reason.code());
                (conn, Detail::Disconnected { remote, client, reason, code })
            }
            TransportEvent::Suspect { conn, client, silence } => {
                let silence_ms = silence.as_millis();
                (conn, Detail::Suspect { client: client.as_str(), silence_ms })
            }
            TransportEvent::Rescued { conn, client, by } => {
                (conn, Detail::Rescued { client: client.as_str(), by: by.word() })
            }
        };
        Self {
            event: record.event.word(),
            node: &identity.node,
            boot: identity.boot,
            tseq: record.tseq,
            dropped,
            at_unix_ms: wall.unix_millis(record.at),
            conn,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::{CloseReason, Rescue};
    use crate::base::ids::{ClientId, ConnId};
    use crate::base::time::Moment;
    use std::sync::{Arc, Mutex};

    const CONN: ConnId = ConnId { slot: 4, generation: 2 };
    const WALL: WallAnchor = WallAnchor { unix_millis_at_zero: 1_700_000_000_000 };

    fn identity() -> Identity {
        Identity { node: "north".to_owned(), boot: 3 }
    }

    fn record(tseq: u64, event: TransportEvent) -> TransportRecord {
        TransportRecord { tseq, at: Moment::from_millis(1_500), dropped: 0, event }
    }

    fn connected(tseq: u64) -> TransportRecord {
        let remote = "127.0.0.1:5000".parse().expect("an address");
        record(tseq, TransportEvent::Connected { conn: CONN, remote })
    }

    #[test]
    fn every_transport_event_is_one_line() {
        let anna = || ClientId::new("anna").expect("a client id");
        let remote = "127.0.0.1:5000".parse().expect("an address");
        for (event, rest) in [
            (
                TransportEvent::Connected { conn: CONN, remote },
                r#""connected",#"remote":"127.0.0.1:5000"}"#,
            ),
            (
                TransportEvent::Disconnected {
                    conn: CONN,
                    remote,
                    client: Some(anna()),
                    reason: CloseReason::Reset,
                },
                concat!(
                    r#""disconnected",#"remote":"127.0.0.1:5000","client":"anna","#,
                    r#""reason":"reset","code":201}"#
                ),
            ),
            (
                TransportEvent::Suspect {
                    conn: CONN,
                    client: anna(),
                    silence: Span::from_secs(30),
                },
                r#""suspect",#"client":"anna","silence_ms":30000}"#,
            ),
            (
                TransportEvent::Rescued { conn: CONN, client: anna(), by: Rescue::LastLook },
                r#""rescued",#"client":"anna","by":"last_look"}"#,
            ),
        ] {
            let (word, rest) = rest.split_once('#').expect("a word and the rest");
            let expected = format!(
                concat!(
                    r#"{{"event":{}"node":"north","boot":3,"tseq":7,"dropped":5,"#,
                    r#""at_unix_ms":1700000001500,"conn":"4.2",{}"#
                ),
                word, rest
            );
            let (record, identity) = (record(7, event), identity());
            let line = serde_json::to_string(&Line::new(&record, &identity, WALL, 5));
            assert_eq!(line.expect("texts and numbers"), expected);
        }
    }

    /// Takes what is in its plan, then everything.
    #[derive(Clone, Default)]
    struct Moody {
        plan: Arc<Mutex<Vec<io::Result<usize>>>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Moody {
        fn taken(&self) -> String {
            let taken = self.taken.lock().expect("nobody panics").clone();
            String::from_utf8(taken).expect("JSON is UTF-8")
        }
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut plan = self.plan.lock().expect("nobody panics");
            let count = if plan.is_empty() { Ok(usize::MAX) } else { plan.remove(0) };
            let count = count?.min(bytes.len());
            self.taken.lock().expect("nobody panics").extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The numbers of the whole lines, and how many each says are missing before it.
    fn numbers(text: &str) -> Vec<(u64, u64)> {
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let number = |line: &serde_json::Value, key: &str| line[key].as_u64().expect("a number");
        lines
            .map(|line: serde_json::Value| (number(&line, "tseq"), number(&line, "dropped")))
            .collect()
    }

    #[test]
    fn what_the_disk_does_not_take_is_dropped_and_counted_by_the_next_line() {
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        let one_line = {
            let mut writer = Writer::new(Box::new(Moody::default()), identity());
            writer.add(&connected(1), WALL);
            writer.batch.bytes.len()
        };
        for (name, plan, expected) in [
            ("all is well", vec![], vec![(1, 0), (2, 0), (3, 0), (5, 1), (6, 0)]),
            ("torn within a line", vec![Ok(10), full()], vec![(2, 1), (3, 0), (5, 1), (6, 0)]),
            ("nothing at all", vec![full()], vec![(2, 1), (3, 0), (5, 1), (6, 0)]),
            ("again and again", vec![Ok(10), full(), full(), full()], vec![(5, 4), (6, 0)]),
            ("short", vec![Ok(10), Ok(20)], vec![(1, 0), (2, 0), (3, 0), (5, 1), (6, 0)]),
            (
                "all but the newline",
                vec![Ok(one_line - 1), full()],
                vec![(1, 0), (2, 1), (3, 0), (5, 1), (6, 0)],
            ),
            (
                "the first of a batch",
                vec![Ok(usize::MAX), Ok(usize::MAX), Ok(usize::MAX), Ok(one_line), full()],
                vec![(1, 0), (2, 0), (3, 0), (5, 1)],
            ),
        ] {
            let output = Moody { plan: Arc::new(Mutex::new(plan)), ..Moody::default() };
            let mut writer = Writer::new(Box::new(output.clone()), identity());
            for tseqs in [vec![1], vec![2], vec![3], vec![5, 6]] {
                writer.begin();
                tseqs.into_iter().for_each(|tseq| writer.add(&connected(tseq), WALL));
                writer.end();
            }
            assert_eq!(numbers(&output.taken()), expected, "{name}");
        }
    }

    #[test]
    fn a_reader_who_sleeps_holds_up_nobody() {
        let (handed_in, records) = sync_channel(2);
        let feed = TransportFeed { records: handed_in };
        for tseq in 1..=5 {
            feed.write(connected(tseq), WALL);
        }
        let output = Moody::default();
        let mut writer = Writer::new(Box::new(output.clone()), identity());
        let mut kept: Vec<_> = records.try_iter().collect();
        feed.write(connected(6), WALL);
        kept.extend(records.try_iter());
        writer.begin();
        kept.iter().for_each(|(record, wall)| writer.add(record, *wall));
        writer.end();
        assert_eq!(numbers(&output.taken()), [(1, 0), (2, 0), (6, 3)]);
    }

    #[test]
    fn the_thread_writes_all_that_was_handed_in() {
        let output = Moody::default();
        let (feed, thread) =
            start(Box::new(output.clone()), identity()).expect("there is a thread");
        for tseq in 1..=1_000 {
            feed.write(connected(tseq), WALL);
        }
        drop(feed);
        thread.finish(Span::from_secs(10));
        assert_eq!(numbers(&output.taken()), (1..=1_000).map(|tseq| (tseq, 0)).collect::<Vec<_>>());
    }
}
