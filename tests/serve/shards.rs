//! Several loops as one gateway: one owner for each client, one ledger, one end.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use heartwheel::control::journal::{Change, Entry, Reader, Snapshot};
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;
use serde_json::Value;

use crate::gate::{Caller, Gate, Heard, PATIENCE, hello};
use crate::policies::{login, reset};
use crate::{QUICK, begin_to_end, number, text};

/// The ledger as a reader sees it: it has no gap, every client comes and goes in turn, and each
/// session has a larger epoch than the one before.
#[derive(Default)]
struct Reading {
    seq: u64,
    online: HashMap<String, u64>,
    epochs: HashMap<String, u64>,
    ended: BTreeMap<String, Vec<String>>,
    shards: HashMap<u64, u32>,
    has_stopped: bool,
}

impl Reading {
    fn note(&mut self, event: &Value) {
        self.seq += 1;
        assert_eq!(number(event, "seq"), self.seq, "no gap: {event}");
        assert!(!self.has_stopped, "the end is the end: {event}");
        match text(event, "event").as_str() {
            "started" => assert_eq!(self.seq, 1, "it begins once"),
            "online" => {
                let (client, epoch) = (text(event, "client"), number(event, "epoch"));
                let before = self.epochs.insert(client.clone(), epoch);
                assert!(before.is_none_or(|before| before < epoch), "{client}: epochs grow");
                let slot = text(event, "conn");
                let slot: u64 = slot.split('.').next().expect("a slot").parse().expect("a number");
                *self.shards.entry(slot >> 24).or_default() += 1;
                assert_eq!(self.online.insert(client, epoch), None, "one owner: {event}");
            }
            "offline" => {
                let (client, epoch) = (text(event, "client"), number(event, "epoch"));
                assert_eq!(self.online.remove(&client), Some(epoch), "it was here: {event}");
                self.ended.entry(client).or_default().push(text(event, "reason"));
            }
            "resumed" => {
                let (client, epoch) = (text(event, "client"), number(event, "epoch"));
                assert_eq!(self.online.get(&client), Some(&epoch), "it was here: {event}");
            }
            "stopped" => {
                assert!(self.online.is_empty(), "nobody is left: {:?}", self.online);
                self.has_stopped = true;
            }
            _ => {}
        }
    }

    fn note_all(&mut self, gate: &Gate, patience: Duration) {
        while let Some(event) = gate.try_event(patience) {
            self.note(&event);
        }
    }

    fn note_until(&mut self, gate: &Gate, wanted: impl Fn(&Self) -> bool) {
        while !wanted(self) {
            self.note(&gate.next_event());
        }
    }

    /// Asks the gateway to end, and reads to the end.
    fn end(&mut self, gate: &mut Gate) {
        gate.signal("TERM");
        assert_eq!(gate.wait().code(), Some(0));
        self.note_until(gate, |reading| reading.has_stopped);
        assert!(gate.try_event(Duration::from_millis(50)).is_none());
    }
}

#[test]
fn clients_of_all_shards_each_end_as_they_do_and_make_one_ledger() {
    for (shards, descriptors) in [("2", "direct"), ("4", "ordinary")] {
        let mut gate = Gate::start(&[
            "--shards",
            shards,
            "--descriptors",
            descriptors,
            "--interval",
            "2s",
            "--timeout",
            "6s",
            "--frame-timeout",
            "1s",
        ]);
        let mut reading = Reading::default();
        let crowd = 1_000;
        let mut callers: Vec<Option<Caller>> = Vec::new();
        for number in 0..crowd {
            callers.push(Some(Caller::login(gate.address, &format!("client-{number}"))));
            if number % 300 == 299 {
                callers.iter_mut().flatten().for_each(Caller::beat);
            }
        }
        let expected = begin_to_end(&mut callers);
        let deadline = Instant::now() + PATIENCE;
        while reading.ended.len() < crowd * 4 / 5 {
            assert!(Instant::now() < deadline, "{} have ended", reading.ended.len());
            for caller in callers.iter_mut().skip(4).step_by(5).flatten() {
                caller.beat();
            }
            reading.note_all(&gate, Duration::from_millis(200));
        }
        reading.end(&mut gate);
        for (client, reason) in &expected {
            assert_eq!(reading.ended[client], [*reason], "{client}");
        }
        let count = reading.shards.len().to_string();
        assert_eq!(shards, count, "every shard has clients");
        let least = reading.shards.values().min().expect("there are shards");
        let fair = u32::try_from(crowd / reading.shards.len() / 2).expect("few");
        assert!(*least > fair, "{:?}", reading.shards);
    }
}

#[test]
pub(crate) fn silence_is_noticed_in_time_wherever_the_connection_came_in() {
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--shards", "4"]);
    let gate = Gate::start(&arguments);
    let mut reading = Reading::default();
    let mut silent = Vec::new();
    let mut beating = Vec::new();
    for number in 0..60 {
        silent.push(Caller::login(gate.address, &format!("silent-{number}")));
        beating.push(Caller::login(gate.address, &format!("beating-{number}")));
        beating.iter_mut().for_each(Caller::beat);
    }
    let deadline = Instant::now() + PATIENCE;
    while reading.ended.len() < silent.len() {
        assert!(Instant::now() < deadline);
        beating.iter_mut().for_each(Caller::beat);
        while let Some(event) = gate.try_event(Duration::from_millis(50)) {
            if event["event"] == "offline" {
                assert!(text(&event, "client").starts_with("silent"), "{event}");
                assert_eq!(event["reason"], "heartbeat_timeout");
                assert!(number(&event, "silence_ms") >= 600, "never early: {event}");
                assert!(number(&event, "silence_ms") < 2_000, "nor late: {event}");
            }
            reading.note(&event);
            // However many events come: nobody stops beating to read them.
            beating.iter_mut().for_each(Caller::beat);
        }
    }
}

#[test]
pub(crate) fn a_second_login_takes_over_whichever_shard_takes_the_call() {
    let mut gate = Gate::start(&["--shards", "2"]);
    let mut reading = Reading::default();
    for number in 0..60 {
        let client = format!("client-{number}");
        let mut older = Caller::login(gate.address, &client);
        for _ in 0..2 {
            let mut newer = Caller::login(gate.address, &client);
            assert!(matches!(older.hear(), Heard::Goaway { code: 102, .. }));
            newer.say(&Message::Ping { reply: Reply::Wanted, payload: b"here" });
            assert_eq!(newer.hear(), Heard::Pong(b"here".to_vec()));
            older = newer;
        }
        older.say(&Message::Bye { code: 100 });
        assert_eq!(older.hear(), Heard::Closed);
    }
    reading.end(&mut gate);
    assert_eq!(reading.ended.len(), 60);
    assert!(reading.ended.values().all(|ends| *ends == ["replaced", "replaced", "bye"]));
}

#[test]
pub(crate) fn a_lost_session_is_resumed_whichever_shard_takes_the_call() {
    let mut gate = Gate::start(&["--shards", "2", "--grace", "20s"]);
    let mut reading = Reading::default();
    let crowd = 40;
    let mut back = Vec::new();
    for number in 0..crowd {
        let client = format!("client-{number}");
        let (lost, _, epoch, token) = login(gate.address, &client, &[]);
        reset(lost);
        let (caller, resumed, epoch_back, _) = login(gate.address, &client, &token);
        assert!(resumed, "{client}");
        assert_eq!(epoch_back, epoch, "{client}: the same session");
        back.push(caller);
    }
    reading.note_until(&gate, |reading| reading.online.len() == crowd);
    drop(back);
    reading.end(&mut gate);
    assert_eq!(reading.ended.len(), crowd);
}

#[test]
pub(crate) fn no_byte_is_lost_on_the_way_however_the_first_ones_are_cut() {
    let gate = Gate::start(&["--shards", "2"]);
    let mut whole = Vec::new();
    for number in 0..6_u8 {
        let mut ping = Vec::new();
        let message = Message::Ping { reply: Reply::Wanted, payload: &[number; 9] };
        native::encode(&message, &mut ping);
        whole.extend(ping);
    }
    let mut answers = 0;
    for (number, cut) in (0..80).zip((1..).step_by(3)) {
        let greeting = hello(&format!("client-{number}"), "", 0);
        let bytes = [&greeting[..], &whole[..]].concat();
        let cut = cut % (bytes.len() - 1) + 1;
        let mut caller = Caller::connect(gate.address);
        caller.send(&bytes[..cut]);
        if number % 3 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        caller.send(&bytes[cut..]);
        assert!(matches!(caller.hear(), Heard::Welcome { .. }), "cut at {cut}");
        for number in 0..6_u8 {
            assert_eq!(caller.hear(), Heard::Pong(vec![number; 9]), "cut at {cut}");
            answers += 1;
        }
    }
    assert_eq!(answers, 480);
}

#[test]
fn all_shards_together_hold_what_one_would() {
    let gate = Gate::start(&["--max-connections", "5", "--shards", "2"]);
    let names: Vec<String> = (0..5).map(|number| format!("c{number}")).collect();
    let mut inside: Vec<Caller> =
        names.iter().map(|name| Caller::login(gate.address, name)).collect();
    for number in 0..6 {
        let mut refused = Caller::hello(gate.address, &format!("late-{number}"));
        assert!(matches!(refused.hear(), Heard::Goaway { code: 302, .. }), "late-{number}");
    }
    inside.pop().expect("five").say(&Message::Bye { code: 100 });
    gate.wait_for_event("offline");
    let deadline = Instant::now() + PATIENCE;
    while !matches!(Caller::hello(gate.address, "late").hear(), Heard::Welcome { .. }) {
        assert!(Instant::now() < deadline, "the place stays taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
pub(crate) fn sigterm_in_a_storm_ends_all_shards_in_time() {
    for round in 0..3 {
        let mut gate = Gate::start(&["--shards", "4", "--drain-timeout", "1s"]);
        let address = gate.address;
        let storms: Vec<_> = (0..3)
            .map(|storm| {
                std::thread::spawn(move || {
                    let mut callers = std::collections::VecDeque::new();
                    for number in 0..400 {
                        let Ok(mut stream) = TcpStream::connect(address) else { break };
                        let greeting = hello(&format!("storm-{storm}-{number}"), "", 0);
                        let _ = stream.write_all(&greeting);
                        callers.push_back(stream);
                        if callers.len() > 50 {
                            callers.pop_front();
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(30 + 20 * round));
        let began = Instant::now();
        let mut reading = Reading::default();
        reading.end(&mut gate);
        assert!(began.elapsed() < Duration::from_secs(8), "bounded");
        for storm in storms {
            storm.join().expect("it does not panic");
        }
    }
}

#[test]
fn after_a_stop_the_living_of_every_shard_are_online() {
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--shards", "3"]);
    let gate = Gate::start(&arguments);
    let mut living = Vec::new();
    for number in 0..60 {
        living.push(Caller::login(gate.address, &format!("living-{number}")));
        living.iter_mut().for_each(Caller::beat);
    }
    let mut beat_for = |span| {
        let until = Instant::now() + span;
        while Instant::now() < until {
            living.iter_mut().for_each(Caller::beat);
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    gate.signal("STOP");
    beat_for(Duration::from_millis(1_800));
    gate.signal("CONT");
    beat_for(Duration::from_secs(1));
    let mut reading = Reading::default();
    reading.note_all(&gate, Duration::from_millis(100));
    assert_eq!(reading.online.len(), 60);
    assert!(reading.ended.is_empty(), "{:?}", reading.ended);
}

#[test]
fn an_operator_is_told_of_all_shards_at_once() {
    for shards in ["4", "auto"] {
        let mut gate = Gate::start(&["--shards", shards]);
        let _inside: Vec<Caller> =
            (0..20).map(|number| Caller::login(gate.address, &format!("c{number}"))).collect();
        gate.signal("USR1");
        let line = gate.wait_for_log("verdicts so far");
        assert!(line.contains("online=20"), "{line}");
        std::thread::sleep(Duration::from_millis(300));
        let lines = gate.take_logs();
        let more = lines.iter().filter(|line| line.contains("verdicts so far")).count();
        assert_eq!(more, 1, "one line for all");
    }
}

#[test]
fn snapshots_of_several_shards_are_exactly_true() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = folder.path().join("journal");
    let path = journal.to_str().expect("UTF-8");
    let segments = ["--journal", path, "--journal-segment-bytes", "4096"];
    let mut gate = Gate::start(&[&segments[..], &["--shards", "3"]].concat());
    let mut stay = Vec::new();
    let mut snapshots: Vec<Snapshot> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(4);
    let mut count = 0;
    while Instant::now() < deadline {
        for _ in 0..10 {
            count += 1;
            let mut caller = Caller::login(gate.address, &format!("client-{count}"));
            if count % 3 == 0 {
                stay.push(caller);
            } else {
                caller.say(&Message::Bye { code: 100 });
            }
        }
        if stay.len() > 40 {
            stay.drain(..20);
        }
        if let Ok((snapshot, _)) = Reader::snapshot(&journal) {
            snapshots.push(snapshot);
        }
    }
    drop(stay);
    gate.signal("TERM");
    assert!(gate.wait().success());
    let files = std::fs::read_dir(&journal).expect("it is there").count();
    assert!(files > 5, "only {files} segments");

    let mut reader = Reader::from_oldest(&journal).expect("it can be read");
    let mut replayed = Snapshot { position: reader.position(), clients: BTreeMap::new() };
    let mut snapshots = snapshots.into_iter().peekable();
    let (mut compared, mut online) = (0, 0);
    let mut seq = 0;
    while let Some(entry) = reader.next_entry().expect("it can be read") {
        assert!(replayed.apply(&entry), "nothing is missing");
        seq += 1;
        assert_eq!(replayed.position.seq, seq, "no gap");
        if let Entry::Record { change: Change::Online(_), .. } = &entry {
            online += 1;
        }
        while let Some(snapshot) =
            snapshots.next_if(|snapshot| snapshot.position == replayed.position)
        {
            assert_eq!(snapshot.clients, replayed.clients, "at {}", snapshot.position);
            compared += 1;
        }
    }
    assert!(snapshots.next().is_none(), "every snapshot has its place in the ledger");
    assert!(compared > 5, "{compared} snapshots of {online} sessions");
    assert!(replayed.clients.is_empty());
}

#[test]
fn the_number_of_shards_may_change_from_boot_to_boot() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let mut last = 0;
    for (boot, shards) in ["4", "1", "3"].into_iter().enumerate() {
        let mut gate = Gate::start(&["--journal", path, "--shards", shards]);
        let started = gate.next_event();
        let ended = started.get("former_ended").and_then(Value::as_str);
        assert_eq!(ended, (boot > 0).then_some("stopped"), "{started}");
        let last_of_boot = last;
        for client in 0..10 {
            let mut caller = Caller::login(gate.address, &format!("client-{client}"));
            let epoch = number(&gate.wait_for_event("online"), "epoch");
            assert!(epoch > last_of_boot, "epochs outlive a boot");
            last = last.max(epoch);
            caller.say(&Message::Bye { code: 100 });
            gate.wait_for_event("offline");
        }
        gate.signal("TERM");
        assert!(gate.wait().success());
    }
}

#[test]
fn a_number_of_shards_that_makes_no_sense_is_refused() {
    for wrong in ["0", "65", "many", "-1"] {
        let output = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["serve", &format!("--shards={wrong}")])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("auto or a number from 1 to 64"), "{said}");
    }
}
