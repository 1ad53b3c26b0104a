//! The parts together, where the properties in `tests/property` do not look: disks that refuse,
//! loops that do not answer, and the thread.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::base::event::{Event, FormerBoot, FormerEnd, Record};
use crate::base::ids::{ClientId, ConnId};
use crate::base::limits;
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::events::Identity;
use crate::control::journal::segment::{self, SegmentName};
use crate::control::journal::{
    Change, Entry, Gap, JournalOptions, JournalOutcome, Position, ReadError, Reader, Step, Writer,
    boot_after, recover, spawn,
};
use crate::gateway::Command;
use crate::os::clock::Clock;
use crate::server::mailbox::{Busy, Ticket};

const BOOT: u64 = 7;

fn writer(folder: &Path, boot: u64) -> Writer {
    let options = JournalOptions {
        folder: folder.to_owned(),
        segment_bytes: u64::from(limits::JOURNAL_SEGMENT_BYTES_MIN),
        retain_bytes: 1 << 20,
    };
    let identity = Identity { node: "north".to_owned(), boot };
    Writer::new(options, identity, WallAnchor::default()).expect("the folder is there")
}

fn online(seq: u64) -> Record {
    let event = Event::Online {
        client: ClientId::new(&format!("client-{seq}")).expect("a client id"),
        epoch: seq,
        conn: ConnId { slot: u32::try_from(seq).expect("few"), generation: 0 },
        remote: "127.0.0.1:5000".parse().expect("an address"),
        interval: Span::from_secs(15),
        timeout: Span::from_secs(35),
        flaps: 0,
    };
    Record { seq, at: Moment::ZERO, event }
}

/// A loop that is too busy to take a question.
fn busy(_: Command) -> Result<Ticket, Busy> {
    Err(Busy)
}

fn read(folder: &Path) -> Vec<Entry> {
    let mut reader = Reader::from_oldest(folder).expect("there is a journal");
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().expect("it can be read") {
        entries.push(entry);
    }
    entries
}

fn records(entries: &[Entry]) -> Vec<u64> {
    let seq = |entry: &Entry| match entry {
        Entry::Record { position, .. } => Some(position.seq),
        Entry::Gap { .. } | Entry::Damaged { .. } => None,
    };
    entries.iter().filter_map(seq).collect()
}

#[test]
fn a_disk_that_refuses_is_tried_again_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = SegmentName { boot: BOOT, first_seq: 1 };
    // Whoever opens the first segment writes to a full disk.
    symlink("/dev/full", name.path_unfinished(folder.path())).expect("a link");
    let mut writer = writer(folder.path(), BOOT);
    writer.write(&online(1), WallAnchor::default());
    let refusal = writer.turn(Moment::ZERO, &mut busy).expect_err("the disk is full");
    assert_eq!((refusal.step, refusal.cause.kind()), (Step::Begin, ErrorKind::StorageFull));
    assert!(writer.is_blocked());
    assert_eq!(writer.lines_waiting(), 1);
    // The failed attempt took its remains away, and the next one finds room.
    writer.turn(Moment::ZERO, &mut busy).expect("there is room");
    assert!(!writer.is_blocked());
    assert_eq!(records(&read(folder.path())), [1]);
}

#[test]
fn while_a_segment_cannot_begin_the_old_one_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = writer(folder.path(), BOOT);
    writer.turn(Moment::ZERO, &mut busy).expect("there is room");
    let mut now = Moment::ZERO;
    for seq in 1..=40 {
        writer.write(&online(seq), WallAnchor::default());
        writer.turn(now, &mut busy).expect("there is room");
    }
    // The loop says nothing, and then the next segment has no place.
    let name = SegmentName { boot: BOOT, first_seq: 41 };
    fs::create_dir(name.path_unfinished(folder.path())).expect("a folder in the way");
    now += limits::JOURNAL_SNAPSHOT_PATIENCE;
    let refusal = writer.turn(now, &mut busy).expect_err("there is a folder in the way");
    assert_eq!(refusal.step, Step::Begin);
    assert!(!writer.is_blocked(), "records are still written");
    writer.write(&online(41), WallAnchor::default());
    writer.turn(now, &mut busy).expect("not tried again at once");
    assert_eq!(records(&read(folder.path())), (1..=41).collect::<Vec<_>>());
}

#[test]
fn a_loop_that_does_not_answer_costs_a_snapshot_and_no_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = writer(folder.path(), BOOT);
    let mut now = Moment::ZERO;
    for seq in 1..=40 {
        writer.write(&online(seq), WallAnchor::default());
        writer.turn(now, &mut busy).expect("there is room");
    }
    assert_eq!(segment::list(folder.path()).expect("it is there").len(), 1, "it waits");
    now += limits::JOURNAL_SNAPSHOT_PATIENCE;
    writer.turn(now, &mut busy).expect("there is room");
    writer.write(&online(41), WallAnchor::default());
    writer.turn(now, &mut busy).expect("there is room");
    let segments = segment::list(folder.path()).expect("it is there");
    assert_eq!(segments.len(), 2);
    let text = fs::read_to_string(segments[1].path(folder.path())).expect("text");
    assert!(text.contains("\"snapshot_seq\":null"), "it says so: {text}");

    // A reader who needs a start takes the one before, and loses nothing.
    let (snapshot, _) = Reader::snapshot(folder.path()).expect("the first segment has one");
    assert_eq!(snapshot.position, Position { boot: BOOT, seq: 41 });
    assert_eq!(snapshot.clients.len(), 41);
    assert_eq!(records(&read(folder.path())), (1..=41).collect::<Vec<_>>());
}

#[test]
fn the_next_boot_knows_how_the_former_one_ended() {
    for (name, last, missing, expected) in [
        ("nothing written", 0, None, (0, FormerEnd::Lost, Some(0))),
        ("two online", 2, None, (2, FormerEnd::Lost, Some(2))),
        ("records missing", 2, Some(9), (9, FormerEnd::Lost, None)),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(folder.path(), BOOT);
        for seq in 1..=last {
            writer.write(&online(seq), WallAnchor::default());
        }
        if let Some(to_seq) = missing {
            let gap = Gap { from_seq: last + 1, to_seq, at: Moment::ZERO };
            writer.write_gap(&gap, WallAnchor::default());
        }
        writer.turn(Moment::ZERO, &mut busy).expect("there is room");
        let former = recover(folder.path()).expect("it can be read").former;
        let (seq, ended, sessions_lost) = expected;
        assert_eq!(former, Some(FormerBoot { boot: BOOT, seq, ended, sessions_lost }), "{name}");
    }
}

#[test]
fn the_next_boot_knows_that_the_former_one_ended_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = writer(folder.path(), BOOT);
    let stopped = Record { seq: 1, at: Moment::ZERO, event: Event::Stopped };
    writer.write(&stopped, WallAnchor::default());
    writer.turn(Moment::ZERO, &mut busy).expect("there is room");
    let former = recover(folder.path()).expect("it can be read").former;
    let ended = FormerEnd::Stopped;
    assert_eq!(former, Some(FormerBoot { boot: BOOT, seq: 1, ended, sessions_lost: None }));
}

#[test]
fn a_clock_that_was_set_back_does_not_bring_old_numbers_back() {
    let former =
        |boot, seq| Some(FormerBoot { boot, seq, ended: FormerEnd::Lost, sessions_lost: None });
    assert_eq!(boot_after(100, None), 100);
    assert_eq!(boot_after(100, former(50, 7).as_ref()), 100);
    assert!(boot_after(100, former(100, 7).as_ref()) > 100);
    for seq in [0, 5, 2_047, 2_048, 1_000_000] {
        let boot = boot_after(100, former(200, seq).as_ref());
        let epoch_last = (200 << 11) + seq * u64::from(limits::SHARDS_MAX);
        assert!(boot << 11 > epoch_last, "{seq}");
    }
}

#[test]
fn damage_in_the_middle_is_counted_and_a_torn_end_is_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = writer(folder.path(), BOOT);
    for seq in 1..=5 {
        writer.write(&online(seq), WallAnchor::default());
    }
    writer.turn(Moment::ZERO, &mut busy).expect("there is room");
    let path = SegmentName { boot: BOOT, first_seq: 1 }.path(folder.path());
    let text = fs::read_to_string(&path).expect("text");
    fs::write(&path, text.replace("client-3", "client-x") + "torn").expect("there is room");
    let recovered = recover(folder.path()).expect("it can be read");
    assert_eq!(recovered.damaged, 1);
    assert_eq!(recovered.cut.expect("a torn end").bytes, 4);
    assert!(fs::read_to_string(&path).expect("text").ends_with("}\n"), "it is cut off");
    assert_eq!(recovered.former.expect("a boot").seq, 5);
    let entries = read(folder.path());
    let damage = Entry::Damaged { from: Position { boot: BOOT, seq: 3 }, to_seq: 3 };
    assert_eq!(entries[2], damage);
    assert_eq!(records(&entries), [1, 2, 4, 5]);
}

#[test]
fn a_reader_whose_segment_was_removed_reads_it_to_the_end_and_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut reader = None;
    for boot in 1..=3 {
        let mut writer = writer(folder.path(), boot);
        for seq in 1..=3 {
            writer.write(&online(seq), WallAnchor::default());
        }
        writer.turn(Moment::ZERO, &mut busy).expect("there is room");
        reader.get_or_insert_with(|| Reader::from_oldest(folder.path()).expect("a journal"));
    }
    let mut reader = reader.expect("opened in the first round");
    for name in segment::list(folder.path()).expect("it is there") {
        fs::remove_file(name.path(folder.path())).expect("it is there");
    }
    let options = JournalOptions {
        folder: folder.path().to_owned(),
        segment_bytes: 4_096,
        retain_bytes: 1 << 20,
    };
    // What is left begins in the middle of a boot.
    let identity = Identity { node: "north".to_owned(), boot: 4 };
    let mut late = Writer::new(options, identity, WallAnchor::default()).expect("a folder");
    late.turn(Moment::ZERO, &mut busy).expect("there is room");
    let (from, to) = (SegmentName { boot: 4, first_seq: 1 }, SegmentName { boot: 4, first_seq: 9 });
    fs::rename(from.path(folder.path()), to.path(folder.path())).expect("it is there");
    for _ in 1..=3 {
        assert!(matches!(reader.next_entry(), Ok(Some(Entry::Record { .. }))));
    }
    let error = reader.next_entry().expect_err("the next ones are gone");
    let ReadError::TooOld { wanted, kept } = error else { panic!("{error}") };
    assert_eq!(wanted, Position { boot: 1, seq: 3 });
    assert_eq!(kept.oldest, Position { boot: 4, seq: 8 });
}

#[test]
fn what_cannot_wait_is_dropped_and_one_gap_says_so() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("journal");
    fs::create_dir(&folder).expect("a folder");
    let journal = writer(&folder, BOOT);
    fs::remove_dir(&folder).expect("it is empty");
    let (mut door, thread) = spawn(journal, Clock::new(), busy).expect("a thread");
    // Far more than may wait, while the disk is away.
    let batch = |first: u64| (first..first + 1_000).map(online).collect::<Vec<_>>();
    let mut seq = 1;
    while seq < 2 * limits::EVENTS_UNWRITTEN_MAX as u64 {
        door.pass(batch(seq), WallAnchor::default());
        seq += 1_000;
    }
    fs::create_dir(&folder).expect("a folder");
    let patience = Clock::new().now() + Span::from_secs(60);
    // Later records are written once there is room, behind the gap.
    while !has_gap(&folder) {
        assert!(Clock::new().now() < patience, "no gap");
        door.pass(batch(seq), WallAnchor::default());
        seq += 1_000;
        Clock::new().sleep(Span::from_millis(100));
    }
    drop(door);
    let outcome = thread.finish(Span::from_secs(60));
    assert!(matches!(outcome, Some(JournalOutcome::Complete)), "{outcome:?}");
    let entries = read(&folder);
    let mut expected_seq = 1;
    for entry in &entries {
        match entry {
            Entry::Record { position, .. } => assert_eq!(position.seq, expected_seq),
            Entry::Gap { from, .. } => assert_eq!(from.seq, expected_seq),
            Entry::Damaged { .. } => panic!("{entry:?}"),
        }
        expected_seq = entry.end().seq + 1;
    }
    assert_eq!(expected_seq, seq, "all is told");
    let gaps = entries.iter().filter(|entry| matches!(entry, Entry::Gap { .. })).count();
    assert_eq!(gaps, 1);
    let written = entries.len() - gaps;
    assert!(written >= limits::EVENTS_UNWRITTEN_MAX - 2_000, "{written} waited");
}

fn has_gap(folder: &Path) -> bool {
    segment::list(folder).is_ok_and(|segments| {
        segments.iter().any(|name| {
            fs::read_to_string(name.path(folder))
                .is_ok_and(|text| text.contains("\"event\":\"gap\""))
        })
    })
}

#[test]
fn at_the_end_all_is_written_or_the_rest_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = writer(folder.path(), BOOT);
    let (mut door, thread) = spawn(journal, Clock::new(), busy).expect("a thread");
    door.pass(vec![online(1), online(2)], WallAnchor::default());
    drop(door);
    let outcome = thread.finish(Span::from_secs(60));
    assert!(matches!(outcome, Some(JournalOutcome::Complete)), "{outcome:?}");
    let entries = read(folder.path());
    assert_eq!(records(&entries), [1, 2]);
    assert!(matches!(&entries[0], Entry::Record { change: Change::Online(_), .. }));

    let folder = tempfile::tempdir().expect("a folder");
    let journal = writer(folder.path(), BOOT);
    folder.close().expect("it is empty");
    let (mut door, thread) = spawn(journal, Clock::new(), busy).expect("a thread");
    door.pass(vec![online(1), online(2)], WallAnchor::default());
    drop(door);
    match thread.finish(Span::from_secs(60)) {
        Some(JournalOutcome::Unwritten { lines: 2, cause }) => {
            assert_eq!(cause.kind(), ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}
