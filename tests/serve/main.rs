//! The built binary on real sockets: what a user would see, good and bad.

mod admission;
#[path = "../webhook/authority.rs"]
mod authority;
#[path = "../webhook/backend.rs"]
#[allow(dead_code, reason = "shared with the tests of webhooks, which use more of it")]
mod backend;
mod forbidden;
mod gate;
mod hook;
#[path = "../api/http.rs"]
#[allow(dead_code, reason = "shared with the tests of the admin API, which use more of it")]
mod http;
mod identity;
mod injection;
mod on_epoll;
mod policies;
mod proxy;
mod shards;

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};
use serde_json::Value;

use crate::forbidden::{EPERM, without_io_uring};
use crate::gate::{Caller, Gate, Heard, PATIENCE};

/// A rhythm that lets a verdict come within a test's time.
const QUICK: [&str; 4] = ["--interval", "200ms", "--timeout", "600ms"];

fn text(event: &Value, key: &str) -> String {
    event[key].as_str().unwrap_or_else(|| panic!("no {key} in {event}")).to_owned()
}

fn number(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

#[test]
fn a_client_comes_and_goes_and_the_feed_says_so() {
    let gate = Gate::start(&[]);
    assert_eq!(gate.next_event()["event"], "started");
    let mut caller = Caller::hello(gate.address, "anna");
    let Heard::Welcome { epoch, interval_ms, timeout_ms, first_beat_ms, .. } = caller.hear() else {
        panic!("no WELCOME");
    };
    assert_eq!((interval_ms, timeout_ms), (15_000, 35_000), "the preset `typical`");
    assert!(first_beat_ms <= interval_ms);
    let online = gate.next_event();
    assert_eq!(online["event"], "online");
    assert_eq!(online["client"], "anna");
    assert_eq!(number(&online, "epoch"), epoch);
    assert_eq!(text(&online, "remote"), caller.stream.local_addr().unwrap().to_string());

    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
    assert_eq!(caller.hear(), Heard::Pong(b"12345678".to_vec()));

    caller.say(&Message::Bye { code: 100 });
    let offline = gate.next_event();
    assert_eq!(offline["event"], "offline");
    assert_eq!(offline["client"], "anna");
    assert_eq!(offline["reason"], "bye");
    assert_eq!(number(&offline, "epoch"), epoch);
    assert_eq!(number(&offline, "seq"), number(&online, "seq") + 1);
    assert!(number(&offline, "last_beat_unix_ms") >= number(&online, "at_unix_ms"));
    assert_eq!(caller.hear(), Heard::Closed);
}

#[test]
fn silence_is_noticed_at_the_timeout_and_beats_prevent_it() {
    for descriptors in ["direct", "ordinary"] {
        let mut arguments = QUICK.to_vec();
        arguments.extend(["--descriptors", descriptors]);
        notices_silence(&Gate::start(&arguments));
    }
}

fn notices_silence(gate: &Gate) {
    let mut silent = Caller::login(gate.address, "silent");
    let mut beating = Caller::login(gate.address, "beating");
    let until = Instant::now() + Duration::from_secs(2);
    let mut offline = Vec::new();
    while Instant::now() < until {
        beating.beat();
        while let Some(event) = gate.try_event(Duration::from_millis(100)) {
            if event["event"] == "offline" {
                offline.push(event);
            }
        }
    }
    assert_eq!(offline.len(), 1, "{offline:#?}");
    assert_eq!(offline[0]["client"], "silent");
    assert_eq!(offline[0]["reason"], "heartbeat_timeout");
    let silence_ms = number(&offline[0], "silence_ms");
    assert!(silence_ms >= 600, "never early: {silence_ms}");
    assert_eq!(silent.hear(), Heard::Error(202), "should it listen after all, it hears why");
    assert!(matches!(silent.hear(), Heard::Reset | Heard::Closed));
}

#[test]
fn a_second_login_takes_over_and_the_first_is_told() {
    let gate = Gate::start(&[]);
    let mut older = Caller::login(gate.address, "anna");
    let mut newer = Caller::login(gate.address, "anna");
    assert!(matches!(older.hear(), Heard::Goaway { code: 102, .. }));
    drop(older);
    newer.say(&Message::Ping { reply: Reply::Wanted, payload: b"" });
    assert_eq!(newer.hear(), Heard::Pong(Vec::new()));
    let kinds: Vec<String> = (0..4).map(|_| text(&gate.next_event(), "event")).collect();
    assert_eq!(kinds, ["started", "online", "offline", "online"]);
    assert!(
        gate.try_event(Duration::from_millis(300)).is_none(),
        "the late close of the older ends nothing"
    );
    newer.say(&Message::Bye { code: 100 });
    assert_eq!(gate.next_event()["reason"], "bye");
}

#[test]
fn whoever_comes_back_has_a_larger_epoch() {
    let gate = Gate::start(&[]);
    let mut last = 0;
    for _ in 0..5 {
        drop(Caller::login(gate.address, "anna"));
        let epoch = number(&gate.wait_for_event("online"), "epoch");
        assert!(epoch > last);
        last = epoch;
        assert_eq!(gate.wait_for_event("offline")["reason"], "closed_by_peer");
    }
}

#[test]
fn a_reset_is_told_from_a_close() {
    let gate = Gate::start(&[]);
    let mut caller = Caller::login(gate.address, "anna");
    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"unread" });
    std::thread::sleep(Duration::from_millis(200));
    drop(caller); // closed with unread bytes: the kernel sends RST
    assert_eq!(gate.wait_for_event("offline")["reason"], "reset");
}

#[test]
fn whatever_bytes_come_the_loop_goes_on() {
    let mut gate = Gate::start(&["--handshake-timeout", "1s"]);
    let mut living = Caller::login(gate.address, "living");
    let nothing: &[u8] = b"";
    for (name, bytes, expected) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), None),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), None),
        ("MQTT", b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab".as_slice(), None),
        ("zeros", &[0; 64], None),
        ("a newer version only", b"\xb7HWP\x09\x09\0\0", Some(406)),
        ("a frame too long", b"\xb7HWP\x01\x01\0\0\x01\0\xff\xff", Some(401)),
        ("a frame before HELLO", b"\xb7HWP\x01\x01\0\0\x03\0\0\0", Some(402)),
        ("an empty HELLO", b"\xb7HWP\x01\x01\0\0\x01\0\0\0", Some(403)),
        ("nothing at all", nothing, Some(404)),
        ("half a preface", b"\xb7HW", Some(404)),
    ] {
        let mut stranger = Caller::connect(gate.address);
        stranger.send(bytes);
        let heard = stranger.hear();
        match expected {
            Some(code) => assert_eq!(heard, Heard::Error(code), "{name}"),
            None => assert!(matches!(heard, Heard::Closed | Heard::Reset), "{name}: {heard:?}"),
        }
        living.say(&Message::Ping { reply: Reply::Wanted, payload: b"" });
        assert_eq!(living.hear(), Heard::Pong(Vec::new()), "{name}");
    }
    gate.wait_for_log("bad_preface");
}

#[test]
fn two_thousand_bad_callers_are_a_few_lines_in_the_log() {
    let mut gate = Gate::start(&[]);
    let began = Instant::now();
    for _ in 0..2_000 {
        let mut stranger = Caller::connect(gate.address);
        stranger.send(b"rubbish");
    }
    let _living = Caller::login(gate.address, "living");
    std::thread::sleep(Duration::from_millis(1_500));
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let lines = gate.take_logs();
    let about = lines.iter().filter(|line| line.contains("bad_preface")).count();
    assert!(about >= 1, "{lines:#?}");
    assert!(about <= seconds, "{about} lines in {seconds} seconds");
}

#[test]
fn a_full_server_refuses_politely_and_opens_again() {
    let gate = Gate::start(&["--max-connections", "3"]);
    let mut inside: Vec<Caller> =
        (0..3).map(|number| Caller::login(gate.address, &format!("c{number}"))).collect();
    let mut refused = Caller::hello(gate.address, "late");
    let Heard::Goaway { code, reconnect_min_ms, reconnect_max_ms } = refused.hear() else {
        panic!("no GOAWAY");
    };
    assert_eq!(code, 302);
    assert!(reconnect_max_ms > reconnect_min_ms);
    drop(refused);
    inside.pop().expect("three").say(&Message::Bye { code: 100 });
    gate.wait_for_event("offline");
    let deadline = Instant::now() + PATIENCE;
    while !matches!(Caller::hello(gate.address, "late").hear(), Heard::Welcome { .. }) {
        assert!(Instant::now() < deadline, "the place stays taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_pings_is_answered() {
    let gate = Gate::start(&["--mode", "server", "--interval", "200ms", "--timeout", "600ms"]);
    let mut caller = Caller::login(gate.address, "anna");
    for _ in 0..5 {
        assert_eq!(caller.hear(), Heard::Ping { at_once: true });
        caller.say(&Message::Pong { payload: b"" });
    }
    assert_eq!(gate.wait_for_event("offline")["reason"], "heartbeat_timeout");
}

#[test]
fn sigterm_sends_everybody_away_and_ends_the_ledger() {
    let mut gate = Gate::start(&["--drain-timeout", "1s", "--reconnect-window", "2s..9s"]);
    let mut obedient = Caller::login(gate.address, "obedient");
    let _deaf = Caller::login(gate.address, "deaf");
    let began = Instant::now();
    gate.signal("TERM");
    let goaway = Heard::Goaway { code: 101, reconnect_min_ms: 2_000, reconnect_max_ms: 9_000 };
    assert_eq!(obedient.hear(), goaway);
    drop(obedient);
    assert_eq!(gate.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "bounded");
    let mut ended = HashSet::new();
    for _ in 0..2 {
        let offline = gate.wait_for_event("offline");
        assert_eq!(offline["reason"], "drain");
        ended.insert(text(&offline, "client"));
    }
    assert_eq!(ended.len(), 2);
    assert_eq!(gate.next_event()["event"], "stopped");
}

#[test]
fn a_second_sigterm_does_not_wait() {
    let mut gate = Gate::start(&["--drain-timeout", "1h"]);
    let mut deaf = Caller::login(gate.address, "deaf");
    gate.signal("INT");
    assert!(matches!(deaf.hear(), Heard::Goaway { .. }));
    gate.signal("INT");
    assert_eq!(gate.wait().code(), Some(0));
    assert_eq!(gate.wait_for_event("offline")["client"], "deaf");
    assert_eq!(gate.next_event()["event"], "stopped");
}

/// Lets the callers end, or go on, each fifth in its own way: which reason is to be told of whom.
fn begin_to_end(callers: &mut [Option<Caller>]) -> HashMap<String, &'static str> {
    let mut expected = HashMap::new();
    for (number, place) in callers.iter_mut().enumerate() {
        let caller = place.as_mut().expect("everybody is here");
        let reason = match number % 5 {
            0 => "heartbeat_timeout",
            1 => {
                caller.say(&Message::Bye { code: 100 });
                "bye"
            }
            2 => {
                *place = None;
                "closed_by_peer"
            }
            3 => {
                caller.send(&[0x03]);
                "frame_timeout"
            }
            _ => "drain",
        };
        expected.insert(format!("client-{number}"), reason);
    }
    expected
}

#[test]
fn three_thousand_clients_each_end_as_they_do_and_the_ledger_has_no_gap() {
    let gate = Gate::start(&["--interval", "2s", "--timeout", "8s", "--frame-timeout", "1s"]);
    let crowd = 3_000;
    let mut callers: Vec<Option<Caller>> = Vec::new();
    for number in 0..crowd {
        callers.push(Some(Caller::login(gate.address, &format!("client-{number}"))));
        // On a busy machine the first would be dead before the last is here.
        if number % 500 == 499 {
            callers.iter_mut().flatten().for_each(Caller::beat);
        }
    }
    let expected = begin_to_end(&mut callers);
    let mut living: Vec<&mut Caller> =
        callers.iter_mut().skip(4).step_by(5).map(|place| place.as_mut().expect("here")).collect();
    let mut ended = HashMap::new();
    let mut seq = 0;
    let mut note = |event: &Value| {
        seq += 1;
        assert_eq!(number(event, "seq"), seq, "no gap");
        if event["event"] == "offline" {
            let before = ended.insert(text(event, "client"), text(event, "reason"));
            assert_eq!(before, None, "every ONLINE is closed once");
        }
        ended.len()
    };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for caller in &mut living {
            caller.beat();
        }
        let mut count = 0;
        while let Some(event) = gate.try_event(Duration::from_millis(200)) {
            count = note(&event);
        }
        if count == crowd * 4 / 5 {
            break;
        }
    }
    gate.signal("TERM");
    drop(callers);
    loop {
        let event = gate.next_event();
        note(&event);
        if event["event"] == "stopped" {
            break;
        }
    }
    assert_eq!(ended.len(), crowd);
    for (client, reason) in &expected {
        let found = &ended[client];
        assert!(
            found == reason || (*reason == "drain" && found == "closed_by_peer"),
            "{client}: {found}"
        );
    }
}

#[test]
fn events_go_to_a_file_and_a_restart_appends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.jsonl");
    for _ in 0..2 {
        let mut gate = Gate::start(&["--events", path.to_str().expect("UTF-8")]);
        let mut caller = Caller::login(gate.address, "anna");
        caller.say(&Message::Bye { code: 100 });
        assert_eq!(caller.hear(), Heard::Closed);
        gate.signal("TERM");
        assert!(gate.wait().success());
    }
    let lines = std::fs::read_to_string(&path).expect("it was written");
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<String> = events.iter().map(|event| text(event, "event")).collect();
    assert_eq!(kinds, ["started", "online", "offline", "stopped"].repeat(2));
    assert!(number(&events[5], "epoch") > number(&events[1], "epoch"), "epochs outlive a boot");
    assert_ne!(number(&events[5], "boot"), number(&events[1], "boot"));
}

#[test]
fn a_feed_that_nobody_reads_does_not_hold_up_the_end() {
    let mut gate = Gate::start_unread(&["--drain-timeout", "1s"]);
    // More events than the pipe, the side thread and the queue to it hold together.
    for number in 0..10_000 {
        drop(Caller::login(gate.address, &format!("client-{number}")));
    }
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(1), "events were lost, and that is a failure");
    gate.wait_for_log("heartwheel: ");
}

#[test]
fn the_python_client_written_from_the_manual_gets_along() {
    let gate = Gate::start(&[]);
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/client.py"))
        .args([&gate.address.ip().to_string(), &gate.address.port().to_string(), "py-1"])
        .args(["--interval-ms", "1000", "--beats", "2"])
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("welcome epoch="), "{said}");
    assert_eq!(said.matches("pong").count(), 2, "{said}");
    assert_eq!(gate.wait_for_event("online")["client"], "py-1");
    assert_eq!(gate.wait_for_event("offline")["reason"], "bye");
}

/// The same client, and a gateway that asks for a token. Files of secrets end with a new line.
#[test]
fn the_python_client_proves_its_id_by_the_token_in_a_file() {
    let folder = tempfile::tempdir().expect("room for files");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("room for a file");
        path.display().to_string()
    };
    let tokens = file("tokens", "py-1 the-word-of-py-1\npy-2 the-word-of-py-2\n");
    let own = file("own", "the-word-of-py-1\n");
    let other = file("other", "the-word-of-py-2\n");
    let gate = Gate::start(&["--identity", "tokens", "--identity-file", &tokens]);
    let client = |more: &[&str]| {
        let output = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/client.py"))
            .args([&gate.address.ip().to_string(), &gate.address.port().to_string(), "py-1"])
            .args(["--interval-ms", "1000", "--beats", "1"])
            .args(more)
            .output()
            .expect("python3 is installed");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = client(&["--token-file", &own]);
    assert!(code == Some(0) && said.contains("welcome epoch="), "{said}");
    assert_eq!(gate.wait_for_event("online")["client"], "py-1");
    assert_eq!(gate.wait_for_event("offline")["reason"], "bye");
    for more in [&["--token-file", &other][..], &[]] {
        let (code, said) = client(more);
        assert!(code == Some(1) && said.contains("error code=301"), "{more:?}: {said}");
    }
}

#[test]
fn what_the_machine_refuses_is_said_in_one_line() {
    let gate = Gate::start(&[]);
    let address = gate.address.to_string();
    let binary = env!("CARGO_BIN_EXE_heartwheel");
    for (name, mut command, words) in [
        (
            "a taken port",
            {
                let mut command = Command::new(binary);
                command.args(["serve", "--listen", &address]);
                command
            },
            vec!["in use", &address],
        ),
        (
            "an address of another machine",
            {
                let mut command = Command::new(binary);
                command.args(["serve", "--listen", "192.0.2.1:7070", "--identity", "anybody"]);
                command
            },
            vec!["192.0.2.1", "address"],
        ),
        (
            "events into a folder that is not there",
            {
                let mut command = Command::new(binary);
                command.args(["serve", "--listen", "127.0.0.1:0", "--events", "/no/such/folder/x"]);
                command
            },
            vec!["/no/such/folder/x"],
        ),
        (
            "io_uring forbidden",
            {
                let mut command = without_io_uring(EPERM);
                command.args(["serve", "--listen", "127.0.0.1:0", "--driver", "io_uring"]);
                command
            },
            vec!["io_uring", "seccomp"],
        ),
        (
            "a file limit that leaves no room",
            {
                let mut command = Command::new("sh");
                let line = "ulimit -n 500; exec \"$0\" serve --listen 127.0.0.1:0 \
                    --max-connections 100000 --descriptors ordinary";
                command.args(["-c", line, binary]);
                command
            },
            vec!["100000", "open files", "ulimit -n"],
        ),
    ] {
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("heartwheel: "), "{name}: {said}");
        for word in words {
            assert!(last.contains(word), "{name}: {word:?} is not in {last:?}");
        }
    }
}
