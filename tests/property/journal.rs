//! A journal against a list: whatever is written, crashes, is cut or rots, what is read is what
//! was written, in order, once, and what is missing is told. Each property takes bytes, so that
//! proptest here and the fuzzer (`fuzz/fuzz_targets/journal.rs`) call the same function.

#![allow(dead_code, reason = "a fuzz target calls one of the properties, not all")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use heartwheel::base::event::{CloseReason, Event, Evidence, FormerBoot, FormerEnd, Record};
use heartwheel::base::ids::{ClientId, ConnId};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span, WallAnchor};
use heartwheel::control::events::Identity;
use heartwheel::control::journal::{
    Change, Entry, Gap, JournalOptions, Page, Position, ReadError, Reader, Snapshot, Writer,
    recover,
};
use heartwheel::gateway::{Command, Presence};
use heartwheel::server::mailbox::Ticket;

/// Small, so that few steps fill a segment, and few segments the journal.
const SEGMENT_BYTES: u64 = limits::JOURNAL_SEGMENT_BYTES_MIN as u64;
const RETAIN_BYTES: u64 = 6 * SEGMENT_BYTES;
const SLOTS: u8 = 16;

/// Client ids and epochs: the naive snapshot.
type Present = BTreeMap<String, u64>;

/// One thing that was written, and who was online afterwards.
#[derive(Clone, Debug)]
struct Told {
    what: What,
    from: Position,
    end: Position,
    present: Present,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Record,
    Gap,
    Damage,
}

/// A node over several boots, its journal, and the list of what it wrote.
struct World {
    folder: PathBuf,
    writer: Writer,
    _lock: File,
    boot: u64,
    seq: u64,
    epoch: u64,
    now: Moment,
    by_slot: BTreeMap<u32, Presence>,
    ticket: u64,
    question: Option<(Ticket, u32)>,
    history: Vec<Told>,
}

impl World {
    fn new(folder: &Path) -> Self {
        let (writer, lock, _) = begin_boot(folder, 1);
        let mut world = Self {
            folder: folder.to_owned(),
            writer,
            _lock: lock,
            boot: 1,
            seq: 0,
            epoch: 0,
            now: Moment::ZERO,
            by_slot: BTreeMap::new(),
            ticket: 0,
            question: None,
            history: Vec::new(),
        };
        world.write(Event::Started { former: None });
        world.turn();
        world
    }

    fn step(&mut self, byte: u8) {
        let argument = byte / 16;
        match byte % 16 {
            0..=9 => {
                let event = self.toggle(u32::from(argument % SLOTS));
                self.write(event);
            }
            10 => self.lose(u64::from(argument) + 1),
            11 => self.crash(),
            12 => self.stop(),
            13 => self.now += limits::JOURNAL_SNAPSHOT_PATIENCE,
            14 => return self.turn_unanswered(),
            _ => {
                for slot in 0..u32::from(SLOTS) {
                    let event = self.toggle(slot);
                    self.write(event);
                }
            }
        }
        self.turn();
    }

    fn toggle(&mut self, slot: u32) -> Event {
        let conn = ConnId { slot, generation: 0 };
        let remote = "127.0.0.1:5000".parse().expect("an address");
        match self.by_slot.remove(&slot) {
            Some(gone) => Event::Offline {
                client: gone.client,
                epoch: gone.epoch,
                conn,
                remote,
                reason: CloseReason::Bye,
                last_beat: self.now,
                evidence: Evidence::default(),
            },
            None => {
                self.epoch += 1;
                let here = Presence {
                    client: ClientId::new(&format!("client \"{slot}\"")).expect("a client id"),
                    epoch: self.epoch,
                    conn,
                    remote,
                    interval: Span::from_secs(15),
                    timeout: Span::from_secs(35),
                };
                self.by_slot.insert(slot, here.clone());
                Event::Online {
                    client: here.client,
                    epoch: here.epoch,
                    conn,
                    remote,
                    interval: here.interval,
                    timeout: here.timeout,
                    flaps: 0,
                }
            }
        }
    }

    fn write(&mut self, event: Event) {
        self.seq += 1;
        let record = Record { seq: self.seq, at: self.now, event };
        self.writer.write(&record, WallAnchor::default());
        self.note(What::Record, self.seq);
    }

    fn lose(&mut self, records: u64) {
        let from_seq = self.seq + 1;
        for number in 0..records {
            self.toggle(u32::try_from(number).expect("few") % u32::from(SLOTS));
        }
        self.seq += records;
        let gap = Gap { from_seq, to_seq: self.seq, at: self.now };
        self.writer.write_gap(&gap, WallAnchor::default());
        self.note(What::Gap, from_seq);
    }

    fn note(&mut self, what: What, from_seq: u64) {
        let present =
            self.by_slot.values().map(|one| (one.client.to_string(), one.epoch)).collect();
        let at = |seq| Position { boot: self.boot, seq };
        self.history.push(Told { what, from: at(from_seq), end: at(self.seq), present });
    }

    /// The process dies between two turns, and the next one takes over.
    fn crash(&mut self) {
        let (writer, lock, former) = {
            // The lock dies with the process.
            self._lock.unlock().expect("it was held");
            begin_boot(&self.folder, self.boot + 1)
        };
        (self.writer, self._lock) = (writer, lock);
        (self.boot, self.seq) = (self.boot + 1, 0);
        self.by_slot.clear();
        self.question = None;
        self.write(Event::Started { former });
    }

    fn stop(&mut self) {
        for slot in self.by_slot.keys().copied().collect::<Vec<_>>() {
            let event = self.toggle(slot);
            self.write(event);
        }
        self.write(Event::Stopped);
        self.turn_unanswered();
        self._lock.unlock().expect("it was held");
        let recovered = recover(&self.folder).expect("it can be read");
        let former = recovered.former.expect("there was a boot");
        assert_eq!((former.boot, former.seq), (self.boot, self.seq));
        assert_eq!(former.ended, FormerEnd::Stopped);
        drop(recovered);
        self._lock.lock().expect("free again");
        self.crash();
    }

    /// A turn, and an answer to its question before anything else happens.
    fn turn(&mut self) {
        // As many questions as a snapshot has pages, and two turns for the segment.
        for _ in 0..6 {
            self.turn_unanswered();
            if let Some((ticket, from_slot)) = self.question.take() {
                let next_slot = (from_slot + 5 < u32::from(SLOTS)).then_some(from_slot + 5);
                let slots = from_slot..next_slot.unwrap_or(u32::MAX);
                let clients = self.by_slot.range(slots).map(|(_, one)| one.clone()).collect();
                self.writer.on_page(Page { ticket, seq: self.seq, clients, next_slot });
            }
        }
    }

    fn turn_unanswered(&mut self) {
        self.now += Span::from_millis(100);
        let (ticket, question) = (&mut self.ticket, &mut self.question);
        let mut ask = |command| {
            let Command::Clients { from_slot, .. } = command else { panic!("{command:?}") };
            *ticket += 1;
            *question = Some((Ticket(*ticket), from_slot));
            Ok(Ticket(*ticket))
        };
        self.writer.turn(self.now, &mut ask).expect("the disk is well");
        assert!(!self.writer.is_blocked());
    }

    /// What is kept, read from the oldest place on, is the end of the list.
    fn check_all(&self) -> Position {
        let mut reader = Reader::from_oldest(&self.folder).expect("there is a journal");
        let oldest = reader.position();
        assert_eq!(read(&mut reader), self.expected_after(oldest), "from {oldest}");
        oldest
    }

    /// A reader goes on exactly where it stopped, wherever that was, or is told that it cannot.
    fn check_every_place(&self, oldest: Position) {
        let starts = self.history.iter().filter(|told| told.from.seq == 1);
        let starts = starts.map(|told| Position { boot: told.from.boot, seq: 0 });
        let places = self.history.iter().flat_map(|told| {
            (told.from.seq..=told.end.seq).map(|seq| Position { boot: told.end.boot, seq })
        });
        for place in starts.chain(places) {
            match Reader::after(&self.folder, place) {
                Ok(mut reader) => {
                    assert!(place >= oldest);
                    assert_eq!(reader.position(), place);
                    assert_eq!(read(&mut reader), self.expected_after(place), "after {place}");
                }
                Err(ReadError::TooOld { wanted, kept }) => {
                    assert!(place < oldest, "{place} is kept");
                    assert_eq!((wanted, kept.oldest), (place, oldest));
                }
                Err(error) => panic!("{place}: {error}"),
            }
        }
        let beyond = Position { boot: self.boot, seq: self.seq + 1 };
        assert!(matches!(Reader::after(&self.folder, beyond), Err(ReadError::Unknown { .. })));
        let never = Position { boot: self.boot + 1, seq: 0 };
        assert!(matches!(Reader::after(&self.folder, never), Err(ReadError::Unknown { .. })));
    }

    /// A snapshot is what the naive map says at its place, and what follows it follows.
    fn check_snapshot(&self) {
        let (snapshot, mut reader) = match Reader::snapshot(&self.folder) {
            Ok(found) => found,
            // Segments with a snapshot were removed, and the loop answered too late since.
            Err(ReadError::NoSnapshot { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let position = snapshot.position;
        self.check_true(snapshot);
        let rest = read(&mut reader);
        assert_eq!(rest, self.expected_after(position));
        assert!(rest.first().is_none_or(|(what, ..)| *what == What::Gap), "it went on to the end");
    }

    fn check_true(&self, snapshot: Snapshot) {
        let position = snapshot.position;
        let told = self.history.iter().rfind(|told| told.end == position);
        let nobody = Present::new();
        let expected = match position.seq {
            0 => Some(&nobody),
            _ => told.map(|told| &told.present),
        };
        let found: Present =
            snapshot.clients.into_values().map(|one| (one.client, one.epoch)).collect();
        assert_eq!(Some(&found), expected, "at {position}");
    }

    fn expected_after(&self, place: Position) -> Vec<(What, Position, Position)> {
        let later = self.history.iter().filter(|told| told.end > place);
        later.map(|told| (told.what, told.from, told.end)).collect()
    }
}

fn begin_boot(folder: &Path, boot: u64) -> (Writer, File, Option<FormerBoot>) {
    let recovered = recover(folder).expect("it can be taken over");
    assert_eq!(recovered.cut, None, "nothing was torn");
    assert_eq!(recovered.damaged, 0);
    let options = JournalOptions {
        folder: folder.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        retain_bytes: RETAIN_BYTES,
    };
    let identity = Identity { node: "north".to_owned(), boot };
    let writer = Writer::new(options, identity, WallAnchor::default()).expect("it can be read");
    (writer, recovered.lock, recovered.former)
}

/// A folder in memory, where there is one: a test that syncs a thousand times proves nothing more.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// Reads to the end; every record says what its place says.
fn read(reader: &mut Reader) -> Vec<(What, Position, Position)> {
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().expect("it can be read") {
        let end = entry.end();
        assert_eq!(reader.position(), end);
        found.push(match entry {
            Entry::Record { position, json, change } => {
                let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
                assert_eq!(json["seq"], position.seq);
                assert_eq!(json["boot"], position.boot);
                assert_eq!(change == Change::Started, position.seq == 1);
                (What::Record, position, end)
            }
            Entry::Gap { from, .. } => (What::Gap, from, end),
            Entry::Damaged { from, .. } => (What::Damage, from, end),
        });
    }
    found
}

/// Whatever happens to a node, its journal is read as it was written.
pub(crate) fn is_read_as_it_was_written(bytes: &[u8]) {
    let folder = folder();
    let mut world = World::new(folder.path());
    for byte in bytes.iter().take(100) {
        world.step(*byte);
    }
    let oldest = world.check_all();
    world.check_every_place(oldest);
    world.check_snapshot();
    let kept: u64 = files(folder.path()).iter().map(|path| size(path)).sum();
    assert!(kept <= RETAIN_BYTES + 4 * SEGMENT_BYTES, "{kept} bytes");
}

/// One file is cut anywhere: what is left is a prefix of it, and what is missing is told.
/// Gives back the file's length.
pub(crate) fn a_cut_leaves_a_prefix(bytes: &[u8], cut: u64) -> u64 {
    let folder = folder();
    let mut world = World::new(folder.path());
    for byte in bytes {
        world.step(*byte);
    }
    let oldest = Reader::from_oldest(folder.path()).expect("a journal").position();
    let newest = files(folder.path()).pop().expect("there is a segment");
    let length = size(&newest);
    let kept = cut % (length + 1);
    File::options().write(true).open(&newest).expect("it is there").set_len(kept).expect("cut");
    world._lock.unlock().expect("it was held");

    let recovered = recover(folder.path()).expect("whatever is left is read");
    let former = recovered.former.expect("there was a boot");
    assert_eq!(former.boot, world.boot);
    assert!(recovered.cut.is_none_or(|cut| cut.bytes <= kept));
    let found = read(&mut Reader::from_oldest(folder.path()).expect("there is a journal"));
    let expected = world.expected_after(oldest);
    assert_eq!(found[..], expected[..found.len()], "a prefix");
    let last = found.last().map_or(oldest, |(.., end)| *end);
    if last.boot == former.boot {
        assert_eq!(former.seq, last.seq);
    } else {
        assert_eq!(former.seq, 0);
    }
    if let Some(lost) = former.sessions_lost {
        let present = world.history.iter().rfind(|told| told.end == last);
        let open =
            present.filter(|_| last.boot == former.boot).map_or(0, |told| told.present.len());
        assert_eq!(lost, open as u64);
    }
    if length == kept {
        assert_eq!(found.len(), expected.len(), "nothing was cut");
    }
    length
}

/// One bit of the journal flips: nothing wrong is read, and what is missing is told, unless it was
/// the very last.
pub(crate) fn a_flipped_bit_is_told(bytes: &[u8], bit: u64) {
    let folder = folder();
    let mut world = World::new(folder.path());
    for byte in bytes {
        world.step(*byte);
    }
    let oldest = Reader::from_oldest(folder.path()).expect("a journal").position();
    let files = files(folder.path());
    let total: u64 = files.iter().map(|path| size(path)).sum();
    let mut at = (bit / 8) % total;
    for path in files {
        if at < size(&path) {
            let mut content = fs::read(&path).expect("it is there");
            content[usize::try_from(at).expect("short")] ^= 1 << (bit % 8);
            fs::write(&path, content).expect("it is there");
            break;
        }
        at -= size(&path);
    }
    let found = read(&mut Reader::from_oldest(folder.path()).expect("there is a journal"));
    let expected = world.expected_after(oldest);
    let mut written = expected.iter();
    for (what, from, end) in found {
        if what == What::Damage {
            for (_, lost_from, lost_end) in written.by_ref() {
                assert!(*lost_from >= from && *lost_end <= end);
                if *lost_end == end {
                    break;
                }
            }
        } else {
            assert_eq!(written.next(), Some(&(what, from, end)));
        }
    }
    // Two, when the line end between them went.
    assert!(written.count() <= 2, "only the last record can go without a word");
    // And a snapshot is right, or an older one is taken.
    if let Ok((snapshot, _)) = Reader::snapshot(folder.path()) {
        world.check_true(snapshot);
    }
}

/// Any bytes are a segment: they are read or reported, in order, and taken over.
pub(crate) fn any_bytes_are_read(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join(format!("{:020}-{:020}.journal", 1, 1));
    fs::write(&path, with_checksums(bytes)).expect("there is room for a file");
    let mut last = Position { boot: 1, seq: 0 };
    let mut reader = Reader::from_oldest(folder.path()).expect("there is a journal");
    while let Some(entry) = reader.next_entry().expect("it can be read") {
        assert!(entry.end() > last);
        last = entry.end();
    }
    let _ = Reader::snapshot(folder.path());
    let recovered = recover(folder.path()).expect("it can be taken over");
    assert_eq!(recovered.former.expect("there was a boot").seq, last.seq);
}

/// Lines that begin with `+` get the checksum that they lack, or nothing would ever be sound.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"+").and_then(|line| line.strip_suffix(b"\n")) {
            Some(json) => {
                out.extend(format!("{:08x} ", crc32fast::hash(json)).as_bytes());
                out.extend(json);
                out.push(b'\n');
            }
            None => out.extend(line),
        }
    }
    out
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "journal")).collect();
    paths.sort();
    paths
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_was_written_is_read(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            is_read_as_it_was_written(&bytes);
        }

        #[test]
        fn a_flip_is_told(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            bit in any::<u64>(),
        ) {
            a_flipped_bit_is_told(&bytes, bit);
        }

        #[test]
        fn a_cut_is_a_prefix(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            cut in any::<u64>(),
        ) {
            a_cut_leaves_a_prefix(&bytes, cut);
        }

        #[test]
        fn nonsense_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            any_bytes_are_read(&bytes);
        }
    }

    #[test]
    fn a_cut_at_every_offset_leaves_a_prefix() {
        // Two boots, comings and goings, and a gap.
        let steps = [0x00, 0x10, 0x0b, 0x20, 0x30, 0x1a, 0x20, 0x40];
        let length = a_cut_leaves_a_prefix(&steps, 0);
        assert!(length > 1_000, "{length}");
        for cut in 1..=length {
            a_cut_leaves_a_prefix(&steps, cut);
        }
    }

    #[test]
    fn a_flip_anywhere_in_boots_of_one_record_is_told() {
        // Three boots, and somebody comes at the end. A step of 19 meets every bit of a byte.
        for bit in (0..1_500 * 8).step_by(19) {
            a_flipped_bit_is_told(&[0x0b, 0x0b, 0x00], bit);
        }
    }

    #[test]
    fn sound_nonsense_is_survived() {
        for lines in [
            "+{\"event\":\"gap\",\"from_seq\":1,\"to_seq\":18446744073709551615}\n",
            "+{\"event\":\"gap\",\"from_seq\":5,\"to_seq\":3}\n",
            "+{\"event\":\"online\",\"seq\":0}\n+{\"event\":\"online\",\"seq\":1}\n",
            "+{\"event\":\"x\",\"seq\":18446744073709551614}\n+{\"event\":\"x\",\"seq\":3}\n",
            "+{\"event\":\"segment\",\"snapshot_seq\":0,\"snapshot_clients\":99999999999}\n",
            "+{\"event\":\"started\",\"seq\":1,\"former_boot\":1,\"former_seq\":9}\n",
            "+[]\n+7\n+{}\n+\n",
        ] {
            any_bytes_are_read(lines.as_bytes());
        }
    }
}
