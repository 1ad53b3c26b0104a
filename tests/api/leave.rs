//! Drains and rebalances of the built binary, as clients and a balancer see them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::gate::{Caller, Heard as Word};
use crate::http::{get, post, start};

/// The code and the window of a GOAWAY that is there already.
fn goaway(caller: &mut Caller) -> Option<(u16, u32, u32)> {
    let heard = caller.hear_within(Duration::from_millis(1));
    if let Word::Goaway { code, reconnect_min_ms, reconnect_max_ms } = heard {
        return Some((code, reconnect_min_ms, reconnect_max_ms));
    }
    assert_eq!(heard, Word::Nothing);
    None
}

fn number(admin: std::net::SocketAddr, key: &str) -> u64 {
    get(admin, "/v1/stats").json()[key].as_u64().unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn readiness_flips_first_newcomers_are_let_in_for_a_while_and_then_clients_are_told() {
    let (mut gate, admin) = start(&[]);
    let mut early = Caller::login(gate.address, "early");
    let heard = post(admin, "/v1/drain", r#"{"within_ms":20000,"notice_ms":4000}"#);
    let answer = json!({ "draining": true, "within_ms": 20_000, "notice_ms": 4_000 });
    assert_eq!((heard.status, heard.json()), (202, answer));
    let ordered = Instant::now();
    let unready = get(admin, "/readyz");
    assert_eq!((unready.status, unready.problem().as_str()), (503, "not-ready"), "at once");
    let mut late = Caller::login(gate.address, "late");
    assert_eq!(early.hear_within(Duration::from_millis(500)), Word::Nothing, "nobody was told");
    assert!(matches!(early.hear(), Word::Goaway { code: 101, .. }));
    assert!(ordered.elapsed() >= Duration::from_millis(3_900), "{:?}", ordered.elapsed());
    assert!(matches!(late.hear(), Word::Goaway { code: 101, .. }));
    drop((early, late));
    assert!(gate.wait().success());
}

#[test]
fn a_drain_keeps_its_rate_and_counts_what_becomes_of_it() {
    const CLIENTS: usize = 40;
    const RATE: f64 = 10.0;
    for shards in ["1", "2"] {
        let (mut gate, admin) = start(&["--shards", shards]);
        let mut callers: Vec<Caller> = (0..CLIENTS)
            .map(|number| Caller::login(gate.address, &format!("client-{number}")))
            .collect();
        let body = r#"{"per_second":10,"notice_ms":0,"within_ms":60000}"#;
        let ordered = Instant::now();
        assert_eq!(post(admin, "/v1/drain", body).status, 202);
        let mut told = 0;
        while told < CLIENTS {
            // What was told when this round began cannot be more than the rate allows by its end.
            let before = callers.len();
            callers.retain_mut(|caller| match goaway(caller) {
                Some((code, min_ms, max_ms)) => {
                    assert_eq!((code, min_ms, max_ms), (101, 1_000, 10_000), "a small crowd");
                    false
                }
                None => true,
            });
            told += before - callers.len();
            let allowed = RATE * ordered.elapsed().as_secs_f64() + 2.0;
            assert!(told as f64 <= allowed, "{told} told, {allowed} allowed, {shards} shards");
            assert!(ordered.elapsed() < Duration::from_secs(40), "{told} told");
        }
        assert!(ordered.elapsed() >= Duration::from_millis(3_600), "{:?}", ordered.elapsed());
        assert!(gate.wait().success());
    }
}

#[test]
fn a_rebalance_sheds_about_its_part_and_nobody_else_notices() {
    for shards in ["1", "2"] {
        let (gate, admin) = start(&["--shards", shards]);
        let mut callers: Vec<Caller> = (0..200)
            .map(|number| Caller::login(gate.address, &format!("client-{number}")))
            .collect();
        let body = r#"{"fraction":0.1,"within_ms":500,"window_min_ms":7,"window_max_ms":9}"#;
        let heard = post(admin, "/v1/rebalance", body);
        let answer = json!({ "rebalancing": true, "fraction": 0.1 });
        assert_eq!((heard.status, heard.json()), (202, answer));
        let until = Instant::now() + Duration::from_secs(30);
        while get(admin, "/v1/stats").json()["rebalancing"] == true {
            assert!(Instant::now() < until, "it does not end");
        }
        let shed = number(admin, "leavers_told");
        assert!((18..=22).contains(&shed), "{shed}: a chance in each shard, and no more");
        let told: Vec<_> = callers.iter_mut().filter_map(goaway).collect();
        assert_eq!(told.len() as u64, shed);
        assert!(told.iter().all(|told| *told == (103, 7, 9)), "{told:?}");
        assert_eq!(number(admin, "online"), 200 - shed);
        assert_eq!(get(admin, "/v1/stats").json()["ended"]["rebalance"], shed);
        assert_eq!(get(admin, "/readyz").status, 200);
        Caller::login(gate.address, "newcomer");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (_gate, admin) = start(&[]);
    for (path, body, problem) in [
        ("/v1/drain", r#"{"per_second":0}"#, "out-of-bounds"),
        ("/v1/drain", r#"{"per_second":-1}"#, "bad-request"),
        ("/v1/drain", r#"{"notice_ms":3600001}"#, "out-of-bounds"),
        ("/v1/rebalance", "", "bad-request"),
        ("/v1/rebalance", r#"{"fraction":1.5}"#, "out-of-bounds"),
        ("/v1/rebalance", r#"{"fraction":-0.1}"#, "out-of-bounds"),
        ("/v1/rebalance", r#"{"fraction":"10%"}"#, "bad-request"),
        ("/v1/rebalance", r#"{"fraction":0.1,"within_ms":3600001}"#, "out-of-bounds"),
        ("/v1/rebalance", r#"{"fraction":0.1,"window_min_ms":2}"#, "out-of-bounds"),
    ] {
        assert_eq!(post(admin, path, body).problem(), problem, "{path} {body}");
    }
    assert_eq!(get(admin, "/readyz").status, 200, "and nobody is drained");
    assert_eq!(post(admin, "/v1/drain", r#"{"within_ms":60000}"#).status, 202);
    assert_eq!(post(admin, "/v1/rebalance", r#"{"fraction":0.1}"#).problem(), "draining");
}

#[test]
fn a_signal_overtakes_a_slow_drain_and_a_second_one_ends_it() {
    let (mut gate, admin) = start(&["--drain-timeout", "1h"]);
    let mut callers: Vec<Caller> =
        (0..20).map(|number| Caller::login(gate.address, &format!("client-{number}"))).collect();
    let slow = r#"{"per_second":1,"notice_ms":0,"within_ms":3600000}"#;
    assert_eq!(post(admin, "/v1/drain", slow).status, 202);
    gate.signal("TERM");
    for caller in &mut callers {
        assert!(matches!(caller.hear(), Word::Goaway { code: 101, .. }), "not one a second");
    }
    gate.signal("TERM");
    assert!(gate.wait().success(), "though nobody left");
}
