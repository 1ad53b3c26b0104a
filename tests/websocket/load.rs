//! The load bench by WebSocket: the same report as by TCP.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::gate::Gate;

#[test]
fn a_fleet_by_websocket_is_judged_like_any_other() {
    let gate = Gate::start(&[
        "--websocket",
        "on",
        "--interval",
        "300ms",
        "--timeout",
        "3s",
        "--min-interval",
        "100ms",
    ]);
    let folder = tempfile::tempdir().expect("there is room for a file");
    let file = folder.path().join("report.json");
    let out = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["load", "--ws", "--target", &gate.address.to_string(), "--clients", "200"])
        .args(["--interval", "300ms", "--for", "8s", "--seed", "7", "--connect-rate", "400"])
        .args(["--silent", "10", "--reset", "5", "--leave", "5", "--flap", "10", "--talk", "5"])
        .arg("--json")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{told}\n{}", String::from_utf8_lossy(&out.stdout));
    let report = std::fs::read(&file).expect("it was written");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    for (key, expected) in [
        ("connected", 200),
        ("false_offline", 0),
        ("fell_silent", 10),
        ("undetected", 0),
        ("detected_early", 0),
        ("refused", 0),
    ] {
        assert_eq!(report[key], expected, "{key}: {report:#}");
    }
    assert_eq!(report["protocol"], "websocket");
    assert_eq!(report["mode"], "clients beat, and the server pings");
    let beats = report["beats_sent"].as_u64().expect("a number");
    assert!(beats > 1_000, "{report:#}");
}

#[test]
fn who_does_not_read_gets_in_by_no_websocket() {
    let out = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["load", "--ws", "--target", "127.0.0.1:9", "--clients", "2", "--interval", "1s"])
        .args(["--for", "5s", "--slow-readers", "1"])
        .output()
        .expect("the binary starts");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && told.contains("WebSocket waits for answers"), "{told}");
}
