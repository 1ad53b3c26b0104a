//! The feed of events: who came and who went, as JSON lines.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::base::event::{Event, Evidence, Probe, Record};
use crate::base::io::TcpFacts;
use crate::base::limits;
use crate::base::pulse::Pulse;
use crate::base::time::{Span, WallAnchor};
use crate::os::writable::{Outlet, PIPE_BYTES_AT_ONCE};

/// Where events are written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum EventsTarget {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Standard output.
    Stdout,
    /// A file, appended to, made if it is missing.
    File(PathBuf),
}

impl Display for EventsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("nowhere"),
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Who speaks: part of every line, so that the lines of many nodes and boots can be told apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Name of the node.
    pub node: String,
    /// Number of this boot; larger than that of the boot before.
    pub boot: u64,
}

/// Writes records as JSON lines.
///
/// What the target does not take waits here, in order; nothing is lost while there is room. A line
/// that was written in part is continued where it stopped.
pub struct EventWriter {
    /// `None`: nobody wants to know.
    output: Option<Box<dyn Write + Send>>,
    /// Where the output has a reader, who may sleep.
    outlet: Option<Outlet>,
    identity: Identity,
    /// Whole lines, of which the first `written` bytes are out already.
    waiting: Vec<u8>,
    written: usize,
    /// Lines in `waiting` whose last byte is not out yet.
    lines_waiting: usize,
}

/// Whether a reader who sleeps is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Haste {
    /// He is not: there is more to do.
    Some,
    /// He is: there is nothing else to do.
    None,
}

/// Capacity that is kept for the next lines once all is written.
const WAITING_BYTES_KEPT: usize = 256 * 1_024;
/// Who wrote it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl EventWriter {
    /// Opens `target`. Fails when a file cannot be opened for appending, or standard output is
    /// closed.
    pub fn new(target: &EventsTarget, identity: Identity) -> io::Result<Self> {
        let file = open(target)?;
        let outlet = file.as_ref().map(Outlet::of).transpose()?.flatten();
        let output = file.map(|file| -> Box<dyn Write + Send> { Box::new(file) });
        Ok(Self { outlet, ..Self::to_output(output, identity) })
    }

    fn to_output(output: Option<Box<dyn Write + Send>>, identity: Identity) -> Self {
        let outlet = None;
        Self { output, outlet, identity, waiting: Vec::new(), written: 0, lines_waiting: 0 }
    }

    /// Takes a record, to be written with the next flush.
    pub fn write(&mut self, record: &Record, wall: WallAnchor) {
        if self.output.is_none() {
            return;
        }
        append_json(record, &self.identity, wall, &mut self.waiting);
        self.waiting.push(b'\n');
        self.lines_waiting += 1;
    }

    /// Writes what is waiting. On error the rest goes on waiting, and the next flush continues. A
    /// reader who does not take it is waited for only a moment: that is
    /// [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_out(Haste::Some)
    }

    /// The same, and a reader is waited for however long it takes.
    pub fn flush_whole(&mut self) -> io::Result<()> {
        self.write_out(Haste::None)
    }

    fn write_out(&mut self, haste: Haste) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        while self.written < self.waiting.len() {
            let mut piece = &self.waiting[self.written..];
            if let (Some(outlet), Haste::Some) = (&self.outlet, haste) {
                if !outlet.is_ready(limits::EVENTS_OUTLET_PATIENCE) {
                    self.forget_written();
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                piece = &piece[..piece.len().min(PIPE_BYTES_AT_ONCE)];
            }
            match output.write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let out = &self.waiting[self.written..self.written + count];
                    self.lines_waiting -= out.iter().filter(|byte| **byte == b'\n').count();
                    self.written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.forget_written();
                    return Err(error);
                }
            }
        }
        self.forget_written();
        Ok(())
    }

    /// Records that were taken and not yet written to their last byte.
    pub fn unwritten(&self) -> usize {
        self.lines_waiting
    }

    /// How many more records may be taken before some must be written.
    pub fn room(&self) -> usize {
        limits::EVENTS_UNWRITTEN_MAX.saturating_sub(self.lines_waiting)
    }

    fn forget_written(&mut self) {
        if self.written == self.waiting.len() {
            self.waiting.clear();
            self.waiting.shrink_to(WAITING_BYTES_KEPT);
            self.written = 0;
        } else if self.written > self.waiting.len() / 2 {
            // Moves less than what was written, so the moving is paid for.
            self.waiting.drain(..self.written);
            self.written = 0;
        }
    }
}

/// Appends a record as one JSON object, without a line end.
pub(crate) fn append_json(
    record: &Record,
    identity: &Identity,
    wall: WallAnchor,
    out: &mut Vec<u8>,
) {
    serde_json::to_writer(out, &Line::new(record, identity, wall))
        .expect("a vector takes every byte, and a line has texts and numbers only");
}

/// Opens a target; `None` when nobody wants to know.
pub(crate) fn open(target: &EventsTarget) -> io::Result<Option<File>> {
    Ok(match target {
        EventsTarget::Nowhere => None,
        // A descriptor of its own: `io::stdout` would keep a torn line in a buffer of its own.
        EventsTarget::Stdout => Some(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        EventsTarget::File(path) => Some(open_to_append(path)?),
    })
}

/// Opens a file for appending. One that ends in the middle of a line, because the machine died
/// while it was written, gets the missing newline first.
fn open_to_append(path: &Path) -> io::Result<File> {
    let mut file = File::options().append(true).create(true).open(path)?;
    if ends_torn(path) {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Whether a regular file's last byte is not a newline. A file that cannot be read is left alone.
fn ends_torn(path: &Path) -> bool {
    let regular = fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0);
    let last_byte = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        io::Result::Ok(byte[0])
    };
    regular && last_byte().is_ok_and(|byte| byte != b'\n')
}

/// One line of the feed. The order of the fields is the order in the line.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    node: &'a str,
    boot: u64,
    seq: u64,
    at_unix_ms: u64,
    #[serde(flatten)]
    detail: Detail<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Node {
        version: &'static str,
    },
    AfterFormer {
        version: &'static str,
        former_boot: u64,
        former_seq: u64,
        former_ended: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        former_sessions_lost: Option<u64>,
    },
    Online {
        client: &'a str,
        epoch: u64,
        #[serde(serialize_with = "as_text")]
        conn: &'a dyn Display,
        #[serde(serialize_with = "as_text")]
        remote: &'a dyn Display,
        interval_ms: u64,
        timeout_ms: u64,
        flaps: u32,
    },
    Resumed {
        client: &'a str,
        epoch: u64,
        #[serde(serialize_with = "as_text")]
        conn: &'a dyn Display,
        #[serde(serialize_with = "as_text")]
        remote: &'a dyn Display,
        away_ms: u64,
        interval_ms: u64,
        timeout_ms: u64,
    },
    Contested {
        client: &'a str,
        epoch: u64,
        #[serde(serialize_with = "as_text")]
        remote: &'a dyn Display,
        count: u32,
    },
    Offline {
        client: &'a str,
        epoch: u64,
        #[serde(serialize_with = "as_text")]
        conn: &'a dyn Display,
        #[serde(serialize_with = "as_text")]
        remote: &'a dyn Display,
        reason: &'static str,
        code: u16,
        last_beat_unix_ms: u64,
        silence_ms: u64,
        #[serde(flatten)]
        evidence: Known,
    },
    Rhythm {
        client: &'a str,
        epoch: u64,
        interval_ms: u64,
        timeout_ms: u64,
    },
    Stalled {
        gap_ms: u64,
    },
}

/// The evidence of an end.
#[derive(Serialize)]
struct Known {
    beats_missed: u32,
    partial_bytes: u32,
    stalled_ms: u64,
    probe: &'static str,
    held_ms: u64,
    tcp: Option<Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_ago_ms: Option<u64>,
    timeout_ms: u64,
    beats: u32,
    longest_gap_ms: u64,
    #[serde(serialize_with = "as_millis")]
    gaps_ms: Pulse,
}

impl From<&Evidence> for Known {
    fn from(evidence: &Evidence) -> Self {
        Self {
            beats_missed: evidence.beats_missed,
            partial_bytes: evidence.partial_bytes,
            stalled_ms: evidence.stalled.as_millis(),
            probe: evidence.probe.word(),
            held_ms: evidence.held.as_millis(),
            tcp: evidence.tcp.map(Tcp::from),
            probe_ago_ms: match evidence.probe {
                Probe::NotSent => None,
                Probe::Unanswered => Some(evidence.probe_ago.span().as_millis()),
            },
            timeout_ms: evidence.timeout.span().as_millis(),
            beats: evidence.pulse.beats(),
            longest_gap_ms: evidence.pulse.longest_gap().as_millis(),
            gaps_ms: evidence.pulse,
        }
    }
}

/// What TCP knew at the last look.
#[derive(Serialize)]
struct Tcp {
    last_data_received_ms: u32,
    last_ack_received_ms: u32,
    unacked: u32,
    rtt_us: u32,
    retransmits: u8,
}

impl From<TcpFacts> for Tcp {
    fn from(tcp: TcpFacts) -> Self {
        Self {
            last_data_received_ms: tcp.last_data_received_ms,
            last_ack_received_ms: tcp.last_ack_received_ms,
            unacked: tcp.unacked,
            rtt_us: tcp.rtt_us,
            retransmits: tcp.retransmits,
        }
    }
}

impl<'a> Line<'a> {
    fn new(record: &'a Record, identity: &'a Identity, wall: WallAnchor) -> Self {
        let detail = match &record.event {
            Event::Started { former: None } | Event::Stopped => Detail::Node { version: VERSION },
            Event::Started { former: Some(former) } => Detail::AfterFormer {
                version: VERSION,
                former_boot: former.boot,
                former_seq: former.seq,
                former_ended: former.ended.word(),
                former_sessions_lost: former.sessions_lost,
            },
            Event::Online { client, epoch, conn, remote, interval, timeout, flaps } => {
                Detail::Online {
                    client: client.as_str(),
                    epoch: *epoch,
                    conn,
                    remote,
                    interval_ms: interval.as_millis(),
                    timeout_ms: timeout.as_millis(),
                    flaps: *flaps,
                }
            }
            Event::Resumed { client, epoch, conn, remote, away, interval, timeout } => {
                Detail::Resumed {
                    client: client.as_str(),
                    epoch: *epoch,
                    conn,
                    remote,
                    away_ms: away.as_millis(),
                    interval_ms: interval.as_millis(),
                    timeout_ms: timeout.as_millis(),
                }
            }
            Event::Contested { client, epoch, remote, count } => {
                Detail::Contested { client: client.as_str(), epoch: *epoch, remote, count: *count }
            }
            Event::Rhythm { client, epoch, interval, timeout } => Detail::Rhythm {
                client: client.as_str(),
                epoch: *epoch,
                interval_ms: interval.as_millis(),
                timeout_ms: timeout.as_millis(),
            },
            Event::Stalled { gap } => Detail::Stalled { gap_ms: gap.as_millis() },
            Event::Offline { client, epoch, conn, remote, reason, last_beat, evidence } => {
                Detail::Offline {
                    client: client.as_str(),
                    epoch: *epoch,
                    conn,
                    remote,
                    reason: reason.word(),
                    code: reason.code(),
                    last_beat_unix_ms: wall.unix_millis(*last_beat),
                    silence_ms: record.at.since(*last_beat).as_millis(),
                    evidence: evidence.into(),
                }
            }
        };
        Self {
            event: record.event.word(),
            node: &identity.node,
            boot: identity.boot,
            seq: record.seq,
            at_unix_ms: wall.unix_millis(record.at),
            detail,
        }
    }
}

/// A value as its own text.
pub(crate) fn as_text<S: Serializer>(
    value: &&dyn Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The latest gaps between beats, oldest first.
pub(crate) fn as_millis<S: Serializer>(pulse: &Pulse, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pulse.gaps().map(Span::as_millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::{CloseReason, FormerBoot, FormerEnd};
    use crate::base::ids::{ClientId, ConnId};
    use crate::base::time::{Millis, Moment};
    use std::sync::mpsc::{Receiver, Sender, channel};

    const WALL: WallAnchor = WallAnchor { unix_millis_at_zero: 1_700_000_000_000 };

    fn identity() -> Identity {
        Identity { node: "north".to_owned(), boot: 3 }
    }

    fn online(seq: u64, client: &str) -> Record {
        let event = Event::Online {
            client: ClientId::new(client).expect("a client id"),
            epoch: 9,
            conn: ConnId { slot: 4, generation: 2 },
            remote: "127.0.0.1:5000".parse().expect("an address"),
            interval: Span::from_secs(15),
            timeout: Span::from_secs(35),
            flaps: 1,
        };
        Record { seq, at: Moment::from_millis(1_500), event }
    }

    fn line(record: &Record) -> String {
        serde_json::to_string(&Line::new(record, &identity(), WALL)).expect("texts and numbers")
    }

    /// Takes at most so many bytes of a write, or none with this error.
    type Plan = Vec<Result<usize, io::ErrorKind>>;

    struct Moody {
        plan: std::vec::IntoIter<Result<usize, io::ErrorKind>>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.plan.next().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.taken.send(bytes[..count].to_vec()).expect("the test listens");
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn moody(plan: Plan) -> (EventWriter, Receiver<Vec<u8>>) {
        let (taken, output) = channel();
        let moody = Moody { plan: plan.into_iter(), taken };
        (EventWriter::to_output(Some(Box::new(moody)), identity()), output)
    }

    #[test]
    fn every_event_is_one_line_with_its_evidence() {
        assert_eq!(
            line(&online(7, "device-1")),
            concat!(
                r#"{"event":"online","node":"north","boot":3,"seq":7,"at_unix_ms":1700000001500,"#,
                r#""client":"device-1","epoch":9,"conn":"4.2","remote":"127.0.0.1:5000","#,
                r#""interval_ms":15000,"timeout_ms":35000,"flaps":1}"#
            )
        );
        let mut pulse = Pulse::default();
        pulse.note(Span::from_millis(15_001));
        pulse.note(Span::from_millis(2));
        let event = Event::Offline {
            client: ClientId::new("device-1").expect("a client id"),
            epoch: 9,
            conn: ConnId { slot: 4, generation: 2 },
            remote: "[::1]:5000".parse().expect("an address"),
            reason: CloseReason::HeartbeatTimeout,
            last_beat: Moment::from_millis(1_500),
            evidence: Evidence {
                beats_missed: 2,
                partial_bytes: 3,
                stalled: Span::from_millis(1_600),
                timeout: Millis::at_least(Span::from_secs(35)),
                pulse,
                probe: Probe::Unanswered,
                probe_ago: Millis::at_least(Span::from_secs(5)),
                held: Span::ZERO,
                tcp: Some(TcpFacts {
                    last_data_received_ms: 35_004,
                    last_ack_received_ms: 12,
                    unacked: 1,
                    rtt_us: 250,
                    retransmits: 0,
                }),
            },
        };
        let record = Record { seq: 8, at: Moment::from_millis(36_503), event };
        assert_eq!(
            line(&record),
            concat!(
                r#"{"event":"offline","node":"north","boot":3,"seq":8,"at_unix_ms":1700000036503,"#,
                r#""client":"device-1","epoch":9,"conn":"4.2","remote":"[::1]:5000","#,
                r#""reason":"heartbeat_timeout","code":202,"last_beat_unix_ms":1700000001500,"#,
                r#""silence_ms":35003,"beats_missed":2,"partial_bytes":3,"stalled_ms":1600,"#,
                r#""probe":"unanswered","held_ms":0,"tcp":{"last_data_received_ms":35004,"#,
                r#""last_ack_received_ms":12,"unacked":1,"rtt_us":250,"retransmits":0},"#,
                r#""probe_ago_ms":5000,"timeout_ms":35000,"beats":2,"longest_gap_ms":15000,"#,
                r#""gaps_ms":[14487,1]}"#
            )
        );
        let version = env!("CARGO_PKG_VERSION");
        let started = Event::Started { former: None };
        for (event, word) in [(started, "started"), (Event::Stopped, "stopped")] {
            let record = Record { seq: 1, at: Moment::ZERO, event };
            assert_eq!(
                line(&record),
                format!(
                    concat!(
                        r#"{{"event":"{}","node":"north","boot":3,"seq":1,"#,
                        r#""at_unix_ms":1700000000000,"version":"{}"}}"#
                    ),
                    word, version
                )
            );
        }
    }

    #[test]
    fn the_first_line_tells_what_became_of_the_boot_before() {
        for (ended, sessions_lost, expected) in [
            (FormerEnd::Lost, Some(3), r#""former_ended":"lost","former_sessions_lost":3}"#),
            (FormerEnd::Lost, None, r#""former_ended":"lost"}"#),
            (FormerEnd::Stopped, None, r#""former_ended":"stopped"}"#),
        ] {
            let former = Some(FormerBoot { boot: 2, seq: 41, ended, sessions_lost });
            let event = Event::Started { former };
            let text = line(&Record { seq: 1, at: Moment::ZERO, event });
            let expected = format!(r#""former_boot":2,"former_seq":41,{expected}"#);
            assert!(text.ends_with(&expected), "{text}");
        }
    }

    #[test]
    fn a_hostile_client_id_does_not_break_the_line() {
        let text = line(&online(1, "a\"},{\\\u{2028}"));
        let back: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(back["client"], "a\"},{\\\u{2028}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn what_is_refused_is_written_later_once_and_in_order() {
        use io::ErrorKind::{BrokenPipe, Interrupted, StorageFull};
        let plan = vec![Ok(10), Err(StorageFull), Err(Interrupted), Ok(300), Err(BrokenPipe)];
        let (mut writer, output) = moody(plan);
        let records: Vec<_> = (1..=5).map(|seq| online(seq, "device")).collect();
        let expected: String = records.iter().map(|record| line(record) + "\n").collect();

        writer.write(&records[0], WALL);
        writer.write(&records[1], WALL);
        assert_eq!(writer.flush().expect_err("the plan says so").kind(), StorageFull);
        assert_eq!(writer.unwritten(), 2, "a line written in part is not written");
        writer.write(&records[2], WALL);
        assert_eq!(writer.flush().expect_err("the plan says so").kind(), BrokenPipe);
        assert_eq!(writer.unwritten(), 2);
        writer.write(&records[3], WALL);
        writer.write(&records[4], WALL);
        writer.flush().expect("the plan is over");
        assert_eq!(writer.unwritten(), 0);
        assert_eq!(writer.room(), limits::EVENTS_UNWRITTEN_MAX);

        let taken: Vec<u8> = output.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(taken).expect("lines are text"), expected);
    }

    #[test]
    fn there_is_no_room_for_more_than_the_limit() {
        let (mut writer, _output) = moody(vec![Err(io::ErrorKind::StorageFull)]);
        let record = online(1, "device");
        for _ in 0..limits::EVENTS_UNWRITTEN_MAX {
            assert!(writer.room() > 0);
            writer.write(&record, WALL);
        }
        assert_eq!(writer.room(), 0);
    }

    #[test]
    fn a_file_is_continued_and_a_torn_line_is_ended() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let path = directory.path().join("events.jsonl");
        for (name, before, after) in [
            ("missing", None, ""),
            ("empty", Some(""), ""),
            ("whole", Some("{}\n"), "{}\n"),
            ("torn", Some("{}\n{\"event\":\"onl"), "{}\n{\"event\":\"onl\n"),
        ] {
            if let Some(text) = before {
                fs::write(&path, text).expect("there is room for a file");
            }
            let target = EventsTarget::File(path.clone());
            let mut writer = EventWriter::new(&target, identity()).expect("a file");
            let record = online(1, "device");
            writer.write(&record, WALL);
            writer.flush().expect("there is room for a line");
            let text = fs::read_to_string(&path).expect("the file is there");
            assert_eq!(text, format!("{after}{}\n", line(&record)), "{name}");
            fs::remove_file(&path).expect("the file is there");
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_not_the_end() {
        let target = EventsTarget::File(PathBuf::from("/dev/full"));
        let mut writer = EventWriter::new(&target, identity()).expect("the device is there");
        writer.write(&online(1, "device"), WALL);
        assert_eq!(writer.flush().expect_err("it is full").kind(), io::ErrorKind::StorageFull);
        assert_eq!(writer.unwritten(), 1);
    }

    #[test]
    fn a_target_that_cannot_be_opened_is_an_error() {
        for path in ["/nowhere/at/all", "/"] {
            let target = EventsTarget::File(PathBuf::from(path));
            assert!(EventWriter::new(&target, identity()).is_err(), "{path}");
        }
    }

    #[test]
    fn nobody_who_listens_costs_nothing() {
        let mut writer = EventWriter::new(&EventsTarget::Nowhere, identity()).expect("no file");
        writer.write(&online(1, "device"), WALL);
        assert_eq!(writer.unwritten(), 0);
        writer.flush().expect("nothing to do");
    }
}
