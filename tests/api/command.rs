//! `heartwheel ctl` against a running gateway.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::gate::{Caller, Heard as Word};
use crate::http::{start, token_file};

pub(crate) fn ctl(admin: SocketAddr, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["ctl", "--admin", &admin.to_string()])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

pub(crate) fn said(admin: SocketAddr, words: &[&str]) -> String {
    let output = ctl(admin, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) fn refused(admin: SocketAddr, words: &[&str]) -> String {
    let output = ctl(admin, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    let line = String::from_utf8(output.stderr).expect("text");
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn every_command_does_what_it_says() {
    let (mut gate, admin) = start(&["--class", "lock:grace=1s"]);
    let mut anna = Caller::login(gate.address, "anna");
    let mut bert = Caller::connect(gate.address);
    bert.say_hello("bert \u{202e}x/y", "lock", 0);
    assert!(matches!(bert.hear(), Word::Welcome { .. }));

    let table = said(admin, &["clients"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("\\u{202e}") && !table.contains('\u{202e}'), "{table}");
    let lines = said(admin, &["clients", "--json", "--class", "lock"]);
    let client: Value = serde_json::from_str(&lines).expect("one line of JSON");
    assert_eq!(client["client"], "bert \u{202e}x/y");
    assert_eq!(said(admin, &["clients", "--json", "--limit", "1"]).lines().count(), 1);
    assert_eq!(said(admin, &["clients", "--json", "--prefix", "an"]).lines().count(), 1);

    assert!(said(admin, &["show", "bert \u{202e}x/y"]).contains("  class          lock"));
    assert!(refused(admin, &["show", "nobody"]).contains("is not online (404)"));
    assert!(said(admin, &["stats"]).contains("online                   2"));
    let snapshot: Value =
        serde_json::from_str(&said(admin, &["snapshot", "--json"])).expect("JSON");
    assert_eq!(snapshot["online"], 2);
    assert!(said(admin, &["snapshot"]).starts_with("2 online at "));

    let words = ["rhythm", "anna", "--interval", "5s", "--timeout", "12s"];
    assert_eq!(said(admin, &words), "done\n");
    assert!(matches!(anna.hear(), Word::Other(text) if text.contains("interval_ms: 5000")));
    assert_eq!(said(admin, &["kick", "anna", "--code", "1001", "--text", "go"]), "done\n");
    assert_eq!(anna.hear(), Word::Error(1_001));

    let after = format!("{}:0", snapshot["boot"]);
    let events = said(admin, &["events", "--json", "--after", &after]);
    let kinds: Vec<_> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["event"].clone())
        .collect();
    assert_eq!(kinds, ["started", "online", "online", "rhythm", "offline"]);
    let human = said(admin, &["events", "--after", &after]);
    assert!(human.lines().last().expect("some").contains("offline      anna"), "{human}");
    assert!(refused(admin, &["events", "--after", "1:1"]).contains("(410)"));

    let follower = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["ctl", "events", "--follow", "--json", "--admin", &admin.to_string()])
        .args(["--after", &after])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    assert_eq!(said(admin, &["drain", "--within", "100ms"]), "done\n");
    assert!(gate.wait().success());
    let output = follower.wait_with_output().expect("our own child");
    assert!(output.status.success(), "the end of the ledger is no failure");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.lines().last().expect("some").contains("\"event\":\"stopped\""), "{text}");
    assert!(refused(admin, &["stats"]).contains("no admin API at"));
}

#[test]
fn a_part_is_sent_elsewhere_and_the_end_is_waited_for() {
    let (mut gate, admin) = start(&[]);
    let mut anna = Caller::login(gate.address, "anna");
    assert_eq!(said(admin, &["rebalance", "100%", "--window", "1s..3s"]), "done\n");
    let goaway = Word::Goaway { code: 103, reconnect_min_ms: 1_000, reconnect_max_ms: 3_000 };
    assert_eq!(anna.hear(), goaway);
    drop(anna);
    for words in [["rebalance", "110%"], ["rebalance", "some"]] {
        assert_eq!(ctl(admin, &words).status.code(), Some(2), "{words:?}");
    }
    let mut bert = Caller::login(gate.address, "bert");
    let waits = std::thread::spawn(move || {
        said(admin, &["drain", "--per-second", "50", "--notice", "100ms", "--wait"])
    });
    assert!(matches!(bert.hear(), Word::Goaway { code: 101, .. }));
    drop(bert);
    let text = waits.join().expect("it succeeds");
    assert!(text.starts_with("done\n") && text.ends_with("ended\n"), "{text}");
    assert!(gate.wait().success());
}

#[test]
fn a_token_is_read_from_a_file() {
    let (_folder, file) = token_file();
    let (_gate, admin) = start(&["--admin-token-file", &file]);
    assert!(refused(admin, &["stats"]).contains("(401)"));
    assert!(said(admin, &["stats", "--token-file", &file]).contains("online"));
}
