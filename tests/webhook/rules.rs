//! What an answer means, and what may be configured.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backend::{Answer, Backend};
use crate::gate::{Caller, Gate, PATIENCE};
use crate::http::{admin_of, get, start};

/// The row of a target, when it is as wished for.
pub(crate) fn row_when(gate: &Gate, wished: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = get(admin_of(gate), "/v1/webhooks").json();
        let row = rows["webhooks"].as_array().and_then(|rows| rows.first()).cloned();
        if let Some(row) = row.as_ref().filter(|row| wished(row)) {
            return row.clone();
        }
        assert!(Instant::now() < deadline, "{row:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_target_that_is_gone_is_switched_off_until_the_next_start() {
    let backend = Backend::start(|_| Answer::Status(410));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let journal = folder.path().to_str().expect("plain text").to_owned();
    let webhook = format!("a:url={}", backend.url());
    let arguments = ["--admin", "127.0.0.1:0", "--journal", &journal, "--webhook", &webhook];
    let mut gate = Gate::start(&arguments);
    let gone = backend.next();
    gate.wait_for_log("says that it is gone (410)");
    row_when(&gate, |row| row["state"] == "off");
    let _caller = Caller::login(gate.address, "anna");
    assert!(backend.next_within(Duration::from_millis(800)).is_none(), "nothing is sent to it");
    backend.behave(|_| Answer::Status(200));
    gate.signal("KILL");
    drop(gate);
    let _gate = Gate::start(&arguments);
    assert_eq!(backend.next().first(), gone.first(), "nothing was lost meanwhile");
}

/// A target refuses batches of more than three; a batch of one it cannot refuse for long.
#[test]
fn batches_that_are_too_large_are_halved() {
    let backend = Backend::start(|delivery| match delivery.events().len() {
        0..=3 => Answer::Status(200),
        _ => Answer::Status(413),
    });
    let webhook = format!("a:url={},batch-wait=700ms", backend.url());
    let gate = Gate::start(&["--webhook", &webhook]);
    let callers: Vec<_> =
        (0..40).map(|number| Caller::login(gate.address, &format!("c{number}"))).collect();
    let (mut last, mut refused) = (0, 0);
    while last < 41 {
        let delivery = backend.next();
        delivery.check(None);
        match delivery.answer.has_taken() {
            true => {
                assert_eq!(delivery.first().seq, last + 1);
                last = delivery.last().seq;
            }
            false => refused += 1,
        }
    }
    assert!((1..=6).contains(&refused), "{refused} were refused");
    drop(callers);
}

#[test]
fn a_redirect_is_not_followed_and_whoever_asks_for_time_gets_it() {
    let mut count = 0;
    let mut refused_at = None;
    let backend = Backend::start(move |delivery| {
        assert_eq!(delivery.path, "/hook?x=1");
        count += 1;
        match count {
            1 | 2 => Answer::Redirect,
            3 => {
                refused_at = Some(Instant::now());
                Answer::NotBefore(2)
            }
            _ => {
                let waited = refused_at.expect("refused").elapsed();
                assert!(waited >= Duration::from_secs(2), "{waited:?}");
                Answer::Status(200)
            }
        }
    });
    let webhook = format!("a:url={}?x=1,retry-max=10s", backend.url());
    let _gate = Gate::start(&["--webhook", &webhook]);
    for attempt in 1..=4_u32 {
        let delivery = backend.next();
        assert_eq!(delivery.header("heartwheel-attempt"), Some(attempt.to_string().as_str()));
        assert_eq!(delivery.answer.has_taken(), attempt == 4);
    }
}

/// What a target does not have when it is new comes only if it is asked for.
#[test]
fn a_new_target_begins_with_this_boot_or_with_all_that_is_kept() {
    let backend = Backend::start(|_| Answer::Status(200));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let journal = folder.path().to_str().expect("plain text").to_owned();
    let mut gate = Gate::start(&["--journal", &journal]);
    let former = gate.next_event();
    gate.signal("TERM");
    gate.wait();
    let (now, all) = (format!("now:url={}", backend.url()), format!("all:url={}", backend.url()));
    let gate = Gate::start(&["--journal", &journal, "--webhook", &now]);
    let own = gate.next_event();
    assert_eq!(backend.next().events()[0], own);
    drop(gate);
    let _gate = Gate::start(&["--journal", &journal, "--webhook", &format!("{all},from=start")]);
    assert_eq!(backend.next().events()[0], former);
}

#[test]
fn comings_and_goings_of_connections_are_a_stream_of_their_own() {
    let backend = Backend::start(|_| Answer::Status(200));
    let webhook = format!("a:url={},streams=events+transport", backend.url());
    let gate = Gate::start(&["--transport-events", "/dev/null", "--webhook", &webhook]);
    drop(Caller::login(gate.address, "anna"));
    let (mut events, mut transport) = (Vec::new(), Vec::new());
    while events.len() < 3 || transport.len() < 2 {
        let json = backend.next().json();
        let stream = json["stream"].as_str().expect("a word").to_owned();
        let entries = json[&stream].as_array().expect("a list").clone();
        match stream.as_str() {
            "events" => events.extend(entries),
            "transport" => transport.extend(entries),
            other => panic!("{other}"),
        }
    }
    let words = |all: &[Value]| {
        all.iter().map(|it| it["event"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(words(&events), ["started", "online", "offline"]);
    assert_eq!(words(&transport), ["connected", "disconnected"]);
}

#[test]
fn how_a_webhook_is_can_be_asked_by_hand() {
    let backend = Backend::start(|_| Answer::Status(200));
    let webhook = format!("audit:url={}?token=secret", backend.url());
    let (gate, admin) = start(&["--webhook", &webhook]);
    backend.next();
    let row = row_when(&gate, |row| row["lag"] == 0);
    assert_eq!((&row["target"], &row["state"]), (&"audit".into(), &"ok".into()), "{row}");
    assert_eq!(row["url"], backend.url(), "without what may be secret");
    let metrics = String::from_utf8(get(admin, "/metrics").body).expect("text");
    let line = "heartwheel_webhook_up{target=\"audit\",stream=\"events\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    let ctl = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["ctl", "webhooks", "--admin", &admin.to_string()])
        .output()
        .expect("it runs");
    let text = String::from_utf8(ctl.stdout).expect("text");
    let row = text.lines().nth(1).expect("a row below the head");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(&words[..4], ["audit", "events", "ok", "0"], "{text}");
}

/// What is wrong is said in one line, before a client can come.
#[test]
fn a_target_that_cannot_be_used_ends_the_start() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("plain text").to_owned();
    std::fs::write(path("short"), "key\n").expect("there is room for a file");
    for (webhook, code, expected) in [
        (format!("a:url=http://b/,secret-file={}", path("none")), 1, "webhook a: cannot read "),
        (format!("a:url=http://b/,secret-file={}", path("short")), 1, "has no key; expected a"),
        (format!("a:url=https://b/,ca-file={}", path("none")), 1, "webhook a: cannot read "),
        (format!("a:url=https://b/,ca-file={}", path("short")), 1, "has no certificate of an"),
        ("a:url=backend".to_owned(), 2, "expected a URL such as https://backend.example/hook"),
        ("a:".to_owned(), 2, "webhook a: there is no url"),
        ("a:url=http://b/,colour=red".to_owned(), 2, "unknown key 'colour'"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--webhook", &webhook])
            .output()
            .expect("it runs");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{webhook}: {line}");
        assert!(line.contains(expected), "{webhook}: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}
