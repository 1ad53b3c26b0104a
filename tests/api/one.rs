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
