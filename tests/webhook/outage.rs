//! A backend that is away for long.

use std::time::{Duration, Instant};

use heartwheel::base::limits;
use serde_json::Value;

use crate::backend::{Answer, Backend};
use crate::gate::{Gate, PATIENCE};
use crate::http::{admin_of, get};
use crate::kills::{Churn, kept};
use crate::rules::row_when;

/// Memory of the process.
fn resident_bytes(gate: &Gate) -> u64 {
    let text = String::from_utf8(get(admin_of(gate), "/metrics").body).expect("text");
    let name = "process_resident_memory_bytes ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

fn seq(gate: &Gate) -> u64 {
    get(admin_of(gate), "/v1/stats").json()["seq"].as_u64().expect("a number")
}

/// Lets so many events happen.
fn let_happen(gate: &Gate, count: u64) {
    let churn = Churn::start(gate.address, Duration::ZERO);
    let until = seq(gate) + count;
    let deadline = Instant::now() + PATIENCE * 6;
    while seq(gate) < until {
        assert!(Instant::now() < deadline, "too little happens");
        std::thread::sleep(Duration::from_millis(50));
    }
    churn.end();
}

/// More happens than memory keeps, and again as much: the second time costs no memory.
fn sleep_through(gate: &Gate) {
    let kept = limits::FEED_RECENT_MAX as u64;
    let_happen(gate, kept + 1_000);
    let before = resident_bytes(gate);
    let_happen(gate, kept / 2);
    let after = resident_bytes(gate);
    assert!(after < before + 8 * 1_024 * 1_024, "{before} bytes became {after}");
    let row = row_when(gate, |row| row["state"] == "failing");
    assert!(row["lag"].as_u64() >= Some(kept * 3 / 2), "{row}");
}

#[test]
fn with_a_journal_an_outage_costs_no_memory_and_loses_nothing() {
    let backend = Backend::start(|_| Answer::Status(503));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let journal = folder.path().to_str().expect("plain text").to_owned();
    let webhook = format!("a:url={},retry-max=300ms,batch-max=500", backend.url());
    let arguments = ["--admin", "127.0.0.1:0", "--journal", &journal, "--webhook", &webhook];
    let mut gate = Gate::start(&arguments);
    sleep_through(&gate);
    backend.behave(|_| Answer::Status(200));
    let newest = seq(&gate);
    let mut last = 0;
    while last < newest {
        let delivery = backend.next_taken();
        delivery.check(None);
        assert_eq!(delivery.first().seq, last + 1);
        last = delivery.last().seq;
    }
    let row = row_when(&gate, |row| row["lag"] == 0);
    assert_eq!((&row["resets"], &row["missed"]), (&0.into(), &0.into()), "{row}");
    assert!(kept(&journal).len() as u64 >= newest);
    let complaints = gate.take_logs().into_iter().filter(|line| line.contains("a webhook fails"));
    let complaints: Vec<_> = complaints.collect();
    assert!((1..=3).contains(&complaints.len()), "{complaints:#?}");
}

#[test]
fn without_a_journal_a_gap_is_told_and_counted() {
    let backend = Backend::start(|_| Answer::Status(503));
    let webhook = format!("a:url={},retry-max=300ms,batch-max=500", backend.url());
    let gate = Gate::start(&["--admin", "127.0.0.1:0", "--webhook", &webhook]);
    sleep_through(&gate);
    backend.behave(|_| Answer::Status(200));
    // What was tried all the time is in a batch, and is not lost.
    let first = backend.next_taken();
    assert_eq!(first.first().seq, 1);
    let next = backend.next_taken();
    next.check(None);
    let reset = &next.events()[0];
    assert_eq!((&reset["event"], &reset["seq"]), (&Value::from("reset"), &first.last().seq.into()));
    assert!(reset["detail"].as_str().is_some_and(|text| text.contains("no journal")), "{reset}");
    let missed = next.first().seq - first.last().seq - 1;
    assert!(missed > 0);
    let mut last = next.last().seq;
    let newest = seq(&gate);
    while last < newest {
        let delivery = backend.next_taken();
        delivery.check(None);
        assert_eq!(delivery.first().seq, last + 1, "the reset is told once");
        assert_ne!(delivery.events()[0]["event"], "reset");
        last = delivery.last().seq;
    }
    let row = row_when(&gate, |row| row["lag"] == 0);
    assert_eq!((&row["resets"], &row["missed"]), (&1.into(), &missed.into()), "{row}");
}
