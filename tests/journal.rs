//! The journal of the built binary: crashes, resuming, a full disk.

#[allow(dead_code, reason = "the tests of `serve` need more of it")]
#[path = "serve/gate.rs"]
mod gate;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use heartwheel::base::limits;
use heartwheel::control::journal::{Entry, Position, Reader};
use heartwheel::wire::message::Message;
use heartwheel::wire::native;
use serde_json::Value;

use crate::gate::{Caller, Gate, Heard, PATIENCE};

fn start(folder: &Path, arguments: &[&str]) -> Gate {
    let mut all = vec!["--journal", folder.to_str().expect("UTF-8")];
    all.extend(arguments);
    Gate::start(&all)
}

fn come_and_go(gate: &Gate, client: &str) {
    let mut caller = Caller::login(gate.address, client);
    caller.say(&Message::Bye { code: 100 });
    assert_eq!(caller.hear(), Heard::Closed);
}

/// Runs `heartwheel events` on the journal, and gives back its lines.
fn events(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = try_events(folder, arguments);
    assert!(output.status.success(), "{output:?}");
    lines_of(&output)
}

fn lines_of(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("lines are text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn try_events(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.args(["events", "--journal"]).arg(folder).args(arguments);
    command.output().expect("the binary starts")
}

/// Waits until the journal has as many lines as `wanted` says.
fn wait_for(folder: &Path, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Right after the start there is no segment yet.
        let output = try_events(folder, &[]);
        if output.status.success() {
            let lines = lines_of(&output);
            if wanted(&lines) {
                return lines;
            }
        }
        assert!(Instant::now() < deadline, "{what} does not come: {output:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn words(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().expect("every line has one")).collect()
}

fn position(line: &Value) -> String {
    format!("{}:{}", line["boot"], line["seq"])
}

fn newest_segment(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths.filter(|path| path.to_string_lossy().ends_with(".journal")).max().expect("a segment")
}

#[test]
fn a_reader_resumes_over_a_crash_without_gap_or_repeat() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut gate = start(folder, &[]);
    let _stays = Caller::login(gate.address, "stays");
    come_and_go(&gate, "comes and goes");
    let before = wait_for(folder, "the first OFFLINE", |lines| lines.len() == 4);
    assert_eq!(words(&before), ["started", "online", "online", "offline"]);
    assert!(before[0].get("former_boot").is_none(), "a new journal has no former boot");

    // A reader has read two lines and goes away.
    let left_off = position(&before[1]);
    let _second = Caller::login(gate.address, "second");
    wait_for(folder, "the next ONLINE", |lines| lines.len() == 5);
    gate.signal("KILL");
    gate.wait();
    // The kill came in the middle of a line.
    let mut file = File::options().append(true).open(newest_segment(folder)).expect("a segment");
    file.write_all(b"01234567 {\"event\":\"onl").expect("there is room");
    drop(file);

    let mut gate = start(folder, &[]);
    let torn = gate.logged.iter().find(|line| line.contains("torn")).expect("it says so");
    assert!(torn.contains("bytes=22"), "{torn}");
    come_and_go(&gate, "later");
    wait_for(folder, "the second boot", |lines| lines.len() == 8);
    let rest = events(folder, &["--after", &left_off]);
    let expected = ["online", "offline", "online", "started", "online", "offline"];
    assert_eq!(words(&rest), expected);
    assert_eq!([&before[..2], &rest[..]].concat(), events(folder, &[]), "no gap, no repeat");
    let started = &rest[3];
    assert_eq!(started["former_boot"], before[0]["boot"]);
    assert_eq!(started["former_seq"], 5);
    assert_eq!(started["former_ended"], "lost");
    assert_eq!(started["former_sessions_lost"], 2);
    assert_eq!(gate.next_event()["former_ended"], "lost", "the feed says the same");
    let epoch = |line: &Value| line["epoch"].as_u64().expect("a number");
    assert!(epoch(&rest[4]) > epoch(&rest[2]), "epochs outlive a crash");

    gate.signal("TERM");
    assert!(gate.wait().success());
    let mut gate = start(folder, &[]);
    let last = wait_for(folder, "the third boot", |lines| lines.len() == 10);
    assert_eq!(words(&last[8..]), ["stopped", "started"]);
    assert_eq!(last[9]["former_ended"], "stopped");
    assert!(last[9].get("former_sessions_lost").is_none());
    gate.signal("TERM");
    assert!(gate.wait().success());
}

#[test]
fn the_lines_are_those_of_the_feed_behind_a_checksum() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gate = start(folder.path(), &[]);
    come_and_go(&gate, "anna");
    gate.signal("TERM");
    assert!(gate.wait().success());
    let feed: Vec<Value> = (0..4).map(|_| gate.next_event()).collect();
    assert_eq!(events(folder.path(), &[]), feed);
    let text = fs::read_to_string(newest_segment(folder.path())).expect("a segment is text");
    let with_boot = text.lines().map(|line| line.split_once(' ').expect("sum and JSON"));
    let lines: Vec<Value> = with_boot
        .map(|(sum, json)| {
            assert_eq!(sum, format!("{:08x}", crc32fast::hash(json.as_bytes())));
            serde_json::from_str(json).expect("JSON")
        })
        .collect();
    assert_eq!(lines[0]["event"], "segment");
    assert_eq!(lines[1..], feed);
}

#[test]
fn a_follower_hears_everything_and_a_snapshot_says_who_is_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["--journal-segment-bytes", "4096", "--journal-retain-bytes", "16384"];
    let gate = start(folder.path(), &arguments);
    let present: Vec<Caller> =
        (0..20).map(|number| Caller::login(gate.address, &format!("stays-{number:02}"))).collect();
    wait_for(folder.path(), "everybody", |lines| lines.len() == 21);
    let mut reader = Reader::from_oldest(folder.path()).expect("there is a journal");
    let mut seen = 0;
    let mut follow = |wanted: u64| {
        let deadline = Instant::now() + PATIENCE;
        while seen < wanted {
            match reader.next_entry().expect("a reader this close is never too late") {
                Some(Entry::Record { position, .. }) => {
                    assert_eq!(position.seq, seen + 1);
                    seen = position.seq;
                }
                Some(other) => panic!("{other:?}"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(Instant::now() < deadline, "{seen} of {wanted}");
        }
    };
    // Many segments: the oldest ones go, and every one begins with a snapshot.
    for number in 0..200 {
        come_and_go(&gate, &format!("passes-{number}"));
        follow(21 + number * 2);
    }
    follow(421);
    let kept = fs::read_dir(folder.path()).expect("the folder is there").count();
    assert!((2..=6).contains(&kept), "{kept} files");
    for entry in fs::read_dir(folder.path()).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_some_and(|ending| ending == "journal") {
            let text = fs::read_to_string(&path).expect("a segment is text");
            let first = text.lines().next().expect("a segment has a first line");
            assert!(!first.contains("\"snapshot_seq\":null"), "{first}");
            assert!(first.contains("\"snapshot_clients\":2"), "20, or 21 with a passer: {first}");
        }
    }

    let snapshot = events(folder.path(), &["--snapshot"]);
    assert_eq!(snapshot[0]["event"], "snapshot");
    assert_eq!(snapshot[0]["seq"], 421);
    assert_eq!(snapshot[0]["clients"], 20);
    let names: Vec<_> = snapshot[1..].iter().map(|line| line["client"].clone()).collect();
    let expected: Vec<_> =
        (0..20).map(|number| Value::from(format!("stays-{number:02}"))).collect();
    assert_eq!(names, expected);
    assert_eq!(
        snapshot[1]["remote"],
        present[0].stream.local_addr().expect("connected").to_string()
    );

    let boot = snapshot[0]["boot"].as_u64().expect("a number");
    let too_old = try_events(folder.path(), &["--after", &format!("{boot}:1")]);
    assert_eq!(too_old.status.code(), Some(1));
    let line = String::from_utf8_lossy(&too_old.stderr).into_owned();
    let parts = ["no longer kept; take a snapshot (the newest is at ", "what follows "];
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
    let unknown = try_events(folder.path(), &["--after", &format!("{boot}:9999")]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("is no place in this journal"));
    // The oldest place that the error names can be read from.
    let oldest = line.rsplit("what follows ").next().and_then(|rest| rest.split(' ').next());
    let oldest: Position = oldest.expect("named").parse().expect("a position");
    let rest = events(folder.path(), &["--after", &oldest.to_string()]);
    assert_eq!(rest.len() as u64, 421 - oldest.seq);
}

#[test]
fn the_command_follows_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gate = start(folder.path(), &[]);
    wait_for(folder.path(), "the start", |lines| lines.len() == 1);
    let mut follower = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["events", "--follow", "--snapshot", "--journal"])
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stdout = follower.stdout.take().expect("piped");
    let (line_in, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if line_in.send(line).is_err() {
                return;
            }
        }
    });
    let mut heard = vec![lines.recv_timeout(PATIENCE).expect("the snapshot")];
    come_and_go(&gate, "anna");
    gate.signal("TERM");
    assert!(gate.wait().success());
    let gate = start(folder.path(), &[]);
    come_and_go(&gate, "ben");
    let expected = ["snapshot", "online", "offline", "stopped", "started", "online", "offline"];
    while heard.len() < expected.len() {
        heard.push(lines.recv_timeout(PATIENCE).expect("the next line"));
    }
    follower.kill().expect("our own child");
    follower.wait().expect("our own child");
    assert_eq!(words(&heard), expected);
}

#[test]
fn one_journal_has_one_writer() {
    let folder = tempfile::tempdir().expect("a folder");
    let _gate = start(folder.path(), &[]);
    let second = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--journal"])
        .arg(folder.path())
        .output()
        .expect("the binary starts");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another process writes to the journal in "), "{said}");
}

/// A file system of this size on `folder`, for the gate alone and whoever looks through its eyes.
/// Fails where the test may not mount: then nothing about full disks is proved.
fn start_on_small_disk(folder: &Path, bytes: u32, arguments: &[&str]) -> (Gate, PathBuf) {
    let may_mount = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs none /mnt"])
        .status()
        .expect("unshare is installed");
    assert!(
        may_mount.success(),
        "this test mounts a tmpfs in a namespace of its own: run it as root"
    );
    let mut shell = Command::new("unshare");
    shell.arg("-m");
    let name = folder.to_str().expect("UTF-8");
    let line = format!("mount -t tmpfs -o size={bytes} none '{name}' && exec \"$@\"");
    let mut all = vec!["--journal", name];
    all.extend(arguments);
    shell.args(shell_line(&line));
    let mut gate = Gate::start_by(shell, &all);
    gate.read_events();
    let seen = PathBuf::from(format!("/proc/{}/root{name}", gate.pid()));
    (gate, seen)
}

/// A shell that does what `line` says, whose `exec "$@"` is the binary.
fn shell_line(line: &str) -> [&str; 6] {
    ["sh", "-c", line, "sh", env!("CARGO_BIN_EXE_heartwheel"), "serve"]
}

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("room for a name");
    let block = [0; 4_096];
    while file.write(&block).is_ok_and(|count| count > 0) {}
}

#[test]
fn a_full_disk_costs_nobody_anything_but_the_journal_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["--journal-segment-bytes", "65536", "--journal-retain-bytes", "50331648"];
    let (mut gate, seen) = start_on_small_disk(folder.path(), 64 * 1_024 * 1_024, &arguments);
    let mut stays = Caller::login(gate.address, "stays");
    wait_for(&seen, "the first events", |lines| lines.len() == 2);
    fill(&seen.join("filler"));
    // More events than may wait. All of them are in the feed, and nobody is refused.
    let passers = limits::EVENTS_UNWRITTEN_MAX / 2 + 2_000;
    let address = gate.address;
    let crowd = std::thread::spawn(move || {
        for number in 0..passers {
            pass_by(address, &format!("passes-{number}"));
        }
    });
    for seq in 1..=2 + 2 * passers as u64 {
        let event = gate.next_event();
        assert_eq!(event["seq"], seq, "{event}");
    }
    crowd.join().expect("nobody was refused");
    stays.say(&Message::Ping { reply: heartwheel::wire::message::Reply::Wanted, payload: b"" });
    assert_eq!(stays.hear(), Heard::Pong(Vec::new()));
    let error = gate.wait_for_log("the journal cannot");
    assert!(error.contains("No space left"), "{error}");

    fs::remove_file(seen.join("filler")).expect("it is there");
    gate.wait_for_log("the journal is written again");
    let errors = gate.logged.iter().filter(|line| line.contains("the journal cannot")).count();
    assert!(errors <= 60, "{errors} lines");
    // The gap is written before whatever comes next.
    let deadline = Instant::now() + PATIENCE;
    while !gate.take_logs().iter().any(|line| line.contains("events are missing")) {
        assert!(Instant::now() < deadline, "no gap");
        come_and_go(&gate, "later");
        std::thread::sleep(Duration::from_millis(50));
    }
    come_and_go(&gate, "last");
    let is_last = |lines: &[Value]| lines.last().is_some_and(|line| line["client"] == "last");
    let lines = wait_for(&seen, "the last one", is_last);
    let mut expected_seq = lines[0]["seq"].as_u64().expect("a number");
    let mut gaps = 0;
    for line in &lines {
        if line["event"] == "gap" {
            assert_eq!(line["from_seq"], expected_seq);
            expected_seq = line["to_seq"].as_u64().expect("a number") + 1;
            gaps += 1;
        } else {
            assert_eq!(line["seq"], expected_seq);
            expected_seq += 1;
        }
    }
    assert_eq!(gaps, 1);
    // After the gap there is a new start for readers.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let snapshot = events(&seen, &["--snapshot"]);
        if snapshot[0]["seq"].as_u64() >= Some(expected_seq - 1) {
            assert_eq!(snapshot[1]["client"], "stays");
            assert_eq!(snapshot.len(), 2);
            break;
        }
        assert!(Instant::now() < deadline, "no snapshot after the gap: {snapshot:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Comes and goes with one write.
fn pass_by(address: std::net::SocketAddr, client: &str) {
    let mut caller = Caller::connect(address);
    let mut bytes = Vec::new();
    native::encode_preface(native::VERSIONS, &mut bytes);
    let hello = Message::Hello {
        wanted_interval_ms: 0,
        client_id: client,
        class: "",
        token: &[],
        resume: &[],
        last_seq: 0,
        before: None,
    };
    native::encode(&hello, &mut bytes);
    native::encode(&Message::Bye { code: 100 }, &mut bytes);
    caller.send(&bytes);
    let heard = caller.hear();
    assert!(!matches!(heard, Heard::Goaway { .. } | Heard::Error(_)), "{client}: {heard:?}");
}

#[test]
fn a_file_size_limit_does_not_end_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().to_str().expect("UTF-8");
    // Four or eight KiB, whichever the shell's blocks are.
    let mut shell = Command::new("env");
    shell.args(shell_line("ulimit -f 8 || exit 1; exec \"$@\""));
    let mut gate = Gate::start_by(shell, &["--journal", name]);
    gate.read_events();
    for number in 0..100 {
        come_and_go(&gate, &format!("client-{number}"));
    }
    gate.wait_for_log("the journal cannot write");
    for seq in 1..=201 {
        assert_eq!(gate.next_event()["seq"], seq);
    }
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(1), "the journal lacks the last events");
    gate.wait_for_log("could not be written to the journal");
    // What was written until then is whole, and the next start says what became of the rest.
    let lines = events(folder.path(), &[]);
    assert!((5..200).contains(&lines.len()), "{}", lines.len());
    let gate = start(folder.path(), &[]);
    let started = gate.next_event();
    assert_eq!(started["former_ended"], "lost");
    assert_eq!(started["former_seq"], lines.len());
}
