//! What the lines of a journal say: those that are no events are made here, and all are understood.

use serde::{Deserialize, Serialize};

use crate::base::time::{Moment, WallAnchor};
use crate::control::events::Identity;
use crate::control::journal::line::append_line;
use crate::gateway::Presence;

/// Version of the form of a segment.
const FORMAT: u32 = 1;

/// Records that are missing because they could not be written, first and last number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// The first one that is missing.
    pub from_seq: u64,
    /// The last one that is missing.
    pub to_seq: u64,
    /// When the first of them happened.
    pub at: Moment,
}

impl Gap {
    /// How many records are missing.
    pub fn count(&self) -> u64 {
        (self.to_seq + 1).saturating_sub(self.from_seq)
    }
}

/// Who is online, exactly true at a number of the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SnapshotHead {
    pub(crate) seq: u64,
    pub(crate) clients: u64,
}

/// A client that is online, as snapshots tell it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Present {
    /// Who.
    pub client: String,
    /// Its session.
    pub epoch: u64,
    /// By which connection.
    pub conn: String,
    /// From where.
    pub remote: String,
    /// How often it promised to beat.
    pub interval_ms: u64,
    /// After how much silence it is judged dead.
    pub timeout_ms: u64,
}

impl From<&Presence> for Present {
    fn from(presence: &Presence) -> Self {
        Self {
            client: presence.client.as_str().to_owned(),
            epoch: presence.epoch,
            conn: presence.conn.to_string(),
            remote: presence.remote.to_string(),
            interval_ms: presence.interval.as_millis(),
            timeout_ms: presence.timeout.as_millis(),
        }
    }
}

#[derive(Serialize)]
struct SegmentLine<'a> {
    event: &'static str,
    node: &'a str,
    boot: u64,
    first_seq: u64,
    at_unix_ms: u64,
    format: u32,
    /// Null: there is no snapshot in this segment.
    snapshot_seq: Option<u64>,
    snapshot_clients: u64,
}

#[derive(Serialize)]
struct GapLine<'a> {
    event: &'static str,
    node: &'a str,
    boot: u64,
    from_seq: u64,
    to_seq: u64,
    count: u64,
    at_unix_ms: u64,
}

#[derive(Serialize)]
struct PresentLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    present: &'a Present,
}

/// Appends the first line of a segment.
pub(crate) fn append_segment_line(
    out: &mut Vec<u8>,
    identity: &Identity,
    first_seq: u64,
    at_unix_ms: u64,
    snapshot: Option<SnapshotHead>,
) {
    let line = SegmentLine {
        event: "segment",
        node: &identity.node,
        boot: identity.boot,
        first_seq,
        at_unix_ms,
        format: FORMAT,
        snapshot_seq: snapshot.map(|head| head.seq),
        snapshot_clients: snapshot.map_or(0, |head| head.clients),
    };
    append_line(out, |out| append_value(out, &line));
}

/// Appends a line of a snapshot.
pub(crate) fn append_present_line(out: &mut Vec<u8>, presence: &Presence) {
    append_line(out, |out| append_present(out, &presence.into()));
}

/// Appends a client of a snapshot as JSON.
pub(crate) fn append_present(out: &mut Vec<u8>, present: &Present) {
    append_value(out, &PresentLine { event: "present", present });
}

/// Appends a line that says what is missing.
pub(crate) fn append_gap_line(out: &mut Vec<u8>, identity: &Identity, gap: &Gap, wall: WallAnchor) {
    let line = GapLine {
        event: "gap",
        node: &identity.node,
        boot: identity.boot,
        from_seq: gap.from_seq,
        to_seq: gap.to_seq,
        count: gap.count(),
        at_unix_ms: wall.unix_millis(gap.at),
    };
    append_line(out, |out| append_value(out, &line));
}

fn append_value(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value)
        .expect("a vector takes every byte, and a line has texts and numbers only");
}

/// What a line says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    /// A segment begins, perhaps with a snapshot.
    Segment { snapshot: Option<SnapshotHead> },
    /// Somebody is in the snapshot.
    Present(Present),
    /// Something happened.
    Record { seq: u64, news: RecordNews },
    /// Records are missing.
    Gap { from_seq: u64, to_seq: u64 },
    /// Something that this version does not know, and that has no number.
    Unknown,
}

/// What a record means for who is online.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum RecordNews {
    /// Nobody is online any more. The numbers say how far the boot before came, if it is known.
    Started {
        former: Option<(u64, u64)>,
    },
    Online(Present),
    Offline {
        client: String,
        epoch: u64,
    },
    Rhythm {
        client: String,
        epoch: u64,
        interval_ms: u64,
        timeout_ms: u64,
    },
    Stopped,
    /// Nothing, as far as this version knows.
    Other,
}

/// All fields that matter to a reader, in whatever line they stand.
#[derive(Deserialize)]
struct Fields {
    event: String,
    seq: Option<u64>,
    snapshot_seq: Option<u64>,
    snapshot_clients: Option<u64>,
    from_seq: Option<u64>,
    to_seq: Option<u64>,
    former_boot: Option<u64>,
    former_seq: Option<u64>,
    client: Option<String>,
    epoch: Option<u64>,
    interval_ms: Option<u64>,
    timeout_ms: Option<u64>,
}

/// Understands the JSON of a line. `None`: it is not what a journal says, whatever its checksum.
pub(crate) fn understand(json: &str) -> Option<Said> {
    let fields: Fields = serde_json::from_str(json).ok()?;
    let said = match (fields.event.as_str(), fields.seq) {
        ("segment", None) => {
            let clients = fields.snapshot_clients.unwrap_or(0);
            Said::Segment { snapshot: fields.snapshot_seq.map(|seq| SnapshotHead { seq, clients }) }
        }
        ("present", None) => Said::Present(serde_json::from_str(json).ok()?),
        ("gap", None) => {
            let (from_seq, to_seq) = (fields.from_seq?, fields.to_seq?);
            if from_seq == 0 || from_seq > to_seq || to_seq == u64::MAX {
                return None;
            }
            Said::Gap { from_seq, to_seq }
        }
        (_, None) => Said::Unknown,
        (_, Some(0 | u64::MAX)) => return None,
        ("started", Some(seq)) => {
            let former = fields.former_boot.zip(fields.former_seq);
            Said::Record { seq, news: RecordNews::Started { former } }
        }
        // A session that goes on by another connection is here as the line says.
        ("online" | "resumed", Some(seq)) => {
            let present = serde_json::from_str(json).ok()?;
            Said::Record { seq, news: RecordNews::Online(present) }
        }
        ("offline", Some(seq)) => {
            let (client, epoch) = (fields.client?, fields.epoch?);
            Said::Record { seq, news: RecordNews::Offline { client, epoch } }
        }
        ("rhythm", Some(seq)) => {
            let (client, epoch) = (fields.client?, fields.epoch?);
            let (interval_ms, timeout_ms) = (fields.interval_ms?, fields.timeout_ms?);
            Said::Record {
                seq,
                news: RecordNews::Rhythm { client, epoch, interval_ms, timeout_ms },
            }
        }
        ("stopped", Some(seq)) => Said::Record { seq, news: RecordNews::Stopped },
        (_, Some(seq)) => Said::Record { seq, news: RecordNews::Other },
    };
    Some(said)
}
