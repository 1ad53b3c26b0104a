//! Client ids that are written to be taken for something else where they are shown.

use std::time::Duration;

use crate::gate::{Caller, Gate, Heard, hello};

/// Each of them may be an id: nothing in it is a control character.
const ALLOWED: [&str; 5] = [
    "anna epoch=1 remote=10.0.0.1:1",
    "a\" remote=10.0.0.1:1 b=\"",
    "\u{202e}anna",
    "anna\u{2028}2026-01-01T00:00:00Z ERROR forged",
    "back\\slash\\\"",
];

/// These are none.
const REFUSED: [&str; 3] =
    ["a\n2026-01-01T00:00:00Z ERROR forged", "a\u{1b}[2J", "a\u{9b}31mforged"];

/// HELLO with an id that our own encoder refuses: one of the same length is changed.
fn forbidden(client: &str) -> Vec<u8> {
    let stand_in = "~".repeat(client.len());
    let mut bytes = hello(&stand_in, "", 0);
    let at = bytes.windows(client.len()).position(|part| part == stand_in.as_bytes());
    let at = at.expect("it is in there");
    bytes[at..at + client.len()].copy_from_slice(client.as_bytes());
    bytes
}

/// All that is logged of these clients at the most talkative level, and of their takeovers.
fn logged(format: &str) -> Vec<String> {
    let mut gate = Gate::start(&["--log-level", "trace", "--log-format", format]);
    let mut here = Vec::new();
    for client in ALLOWED {
        // The fourth login within a minute is a fight, which is worth a warning.
        for _ in 0..5 {
            let mut caller = Caller::hello(gate.address, client);
            let heard = caller.hear();
            assert!(matches!(heard, Heard::Welcome { .. } | Heard::Goaway { .. }), "{client:?}");
            here.push(caller);
        }
    }
    for client in REFUSED {
        let mut caller = Caller::connect(gate.address);
        caller.send(&forbidden(client));
        assert_eq!(caller.hear(), Heard::Error(407), "{client:?}");
    }
    drop(here);
    gate.signal("TERM");
    assert!(gate.wait().success());
    std::thread::sleep(Duration::from_millis(100));
    gate.take_logs()
}

#[test]
fn no_client_id_forges_a_line_or_a_field_of_the_log_or_steers_a_terminal() {
    let lines = logged("human");
    assert!(lines.iter().any(|line| line.contains("fight for a client id")), "{lines:#?}");
    for line in &lines {
        assert!(line.starts_with("20") || line.starts_with("heartwheel"), "{line:?}");
        let steers = |sign: char| sign.is_control() || "\u{202e}\u{2028}".contains(sign);
        assert!(!line.contains(steers), "{line:?}");
        // What stands in quotes is an id.
        let line = line.replace("\\\\", "").replace("\\\"", "");
        let outside: String = line.split('"').step_by(2).collect();
        for field in ["epoch=", "remote=", "ERROR"] {
            assert!(outside.matches(field).count() <= 1, "{field}: {line}");
        }
        assert!(!outside.contains("10.0.0.1") && !outside.contains("forged"), "{line}");
    }
    let lines = logged("json");
    for line in lines.iter().filter(|line| !line.starts_with("heartwheel")) {
        let line: serde_json::Value = serde_json::from_str(line).expect("one JSON object");
        assert_ne!(line["level"], "ERROR", "{line}");
    }
}
