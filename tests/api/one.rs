//! All that is known of one client, on either driver.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gate::{Caller, PATIENCE};
use crate::http::{get, start};

fn show(admin: std::net::SocketAddr, client: &str) -> Value {
    let heard = get(admin, &format!("/v1/clients/{client}"));
    assert_eq!(heard.status, 200, "{heard:?}");
    heard.json()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn a_client_is_shown_with_its_beats_and_the_way_to_it_measured_now() {
    for driver in ["io_uring", "epoll"] {
        let (gate, admin) = start(&["--driver", driver]);
        let mut anna = Caller::login(gate.address, "anna");
        let mut sent = 0;
        let until = Instant::now() + PATIENCE;
        while sent < 5 {
            std::thread::sleep(Duration::from_millis(30));
            anna.beat();
            sent += 1;
        }
        let mut shown = show(admin, "anna");
        while number(&shown, "beats") < sent && Instant::now() < until {
            shown = show(admin, "anna");
        }
        assert_eq!(number(&shown, "beats"), sent, "{driver}");
        let gaps: Vec<u64> =
            shown["gaps_ms"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
        let longest = number(&shown, "longest_gap_ms");
        assert!((1..=5).contains(&gaps.len()) && longest >= 30, "{driver}: {shown}");
        let most = gaps.iter().max().expect("not empty");
        assert!(most.abs_diff(longest) <= longest / 10 + 2, "{driver}: {shown}");
        assert!(number(&shown, "rtt_us") > 0, "{driver}: {shown}");
        assert_eq!(shown["state"], "live", "a measurement is no suspicion");
        let listed = get(admin, "/v1/clients").json();
        assert!(listed["clients"][0].get("rtt_us").is_some(), "{listed}");
    }
}

/// Shown all the time, a client is judged when it would have been otherwise.
#[test]
fn whoever_is_shown_all_the_time_is_judged_as_before() {
    for driver in ["io_uring", "epoll"] {
        let rhythm = ["--interval", "300ms", "--timeout", "900ms"];
        let (gate, admin) = start(&[&["--driver", driver], rhythm.as_slice()].concat());
        let _anna = Caller::login(gate.address, "anna");
        let until = Instant::now() + PATIENCE;
        while get(admin, "/v1/clients/anna").status == 200 {
            assert!(Instant::now() < until, "{driver}: it is shown for ever");
        }
        let offline = gate.wait_for_event("offline");
        assert_eq!(offline["reason"], "heartbeat_timeout", "{offline}");
        let silence = number(&offline, "silence_ms");
        assert!(silence >= 900, "{driver}: {offline}");
        assert_eq!((number(&offline, "timeout_ms"), number(&offline, "beats")), (900, 0));
        assert!(offline["tcp"]["rtt_us"].is_u64(), "{driver}: its own look had facts: {offline}");
    }
}

fn history(admin: std::net::SocketAddr, client: &str, query: &str) -> (Vec<String>, bool) {
    let heard = get(admin, &format!("/v1/clients/{client}/history{query}"));
    assert_eq!(heard.status, 200, "{heard:?}");
    let history = heard.json();
    assert_eq!(history["client"].as_str().map(str::len), Some(client.replace("%20", " ").len()));
    let events = history["events"].as_array().expect("a list");
    let word = |event: &Value| event["event"].as_str().expect("a word").to_owned();
    (events.iter().map(word).collect(), history["complete"].as_bool().expect("yes or no"))
}

/// Who came and went is known afterwards; with a journal also what was before the restart.
#[test]
fn what_a_client_did_is_told_from_memory_and_from_the_journal() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let journal = folder.path().join("journal");
    let journal = journal.to_str().expect("plain text");
    for (boot, arguments) in
        [vec![], vec!["--journal", journal], vec!["--journal", journal]].into_iter().enumerate()
    {
        let (mut gate, admin) = start(&arguments);
        for _ in 0..2 {
            drop(Caller::login(gate.address, "anna b"));
            gate.wait_for_event("offline");
        }
        let _bert = Caller::login(gate.address, "bert");
        let times = if boot == 2 { 4 } else { 2 };
        let all: Vec<&str> = ["online", "offline"].into_iter().cycle().take(2 * times).collect();
        let until = Instant::now() + PATIENCE;
        // The side thread tells the feed's file first.
        while history(admin, "anna%20b", "").0.len() < all.len() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(history(admin, "anna%20b", "").0, all);
        assert!(history(admin, "anna%20b", "").1, "nothing else is known");
        let (last, is_complete) = history(admin, "anna%20b", "?limit=3");
        assert_eq!(
            (last.as_slice(), is_complete),
            (&["offline", "online", "offline"].map(str::to_owned)[..], false)
        );
        assert_eq!(history(admin, "nobody", "?limit=1000"), (vec![], true));
        for bad in ["?limit=0", "?limit=1001", "?limit=x", "?limits=1"] {
            let path = format!("/v1/clients/anna/history{bad}");
            assert_eq!(get(admin, &path).problem(), "bad-request", "{bad}");
        }
        gate.signal("TERM");
        assert!(gate.wait().success());
    }
}

fn explain(admin: std::net::SocketAddr, words: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["ctl", "--admin", &admin.to_string(), "explain"])
        .args(words)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_client_is_explained_while_it_is_here_and_afterwards() {
    for driver in ["io_uring", "epoll"] {
        let rhythm = ["--interval", "400ms", "--timeout", "1s", "--probe", "300ms"];
        let (gate, admin) = start(&[&["--driver", driver], rhythm.as_slice()].concat());
        let mut anna = Caller::login(gate.address, "anna \u{202e}x");
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(100));
            anna.beat();
        }
        let here = explain(admin, &["anna \u{202e}x"]);
        for part in ["anna \\u{202e}x is here", "a beat every 400 ms", "came online from 127.0.0.1"]
        {
            assert!(here.contains(part), "{part:?} in {here}");
        }
        assert!(!here.contains('\u{202e}'), "{here}");
        gate.wait_for_event("offline");
        let until = Instant::now() + PATIENCE;
        let mut gone = explain(admin, &["anna \u{202e}x"]);
        while !gone.contains("went offline") && Instant::now() < until {
            gone = explain(admin, &["anna \u{202e}x"]);
        }
        // Our own kernel acknowledges for a client whose program says nothing.
        for part in [
            "is not here.",
            "went offline (heartbeat_timeout)",
            "its timeout is 1.0 s",
            "before the end went unanswered",
            "the application hung",
            "heard 3 times since its HELLO",
        ] {
            assert!(gone.contains(part), "{driver}: {part:?} in {gone}");
        }
        let json: Value = serde_json::from_str(&explain(admin, &["anna \u{202e}x", "--json"]))
            .expect("one line of JSON");
        assert!(json["client"].is_null() && json["history"]["complete"] == true, "{json}");
        assert!(json["past"].as_array().is_some_and(|past| past.len() > 2), "{json}");
        assert!(explain(admin, &["nobody"]).contains("nothing is known of it"));
    }
}
