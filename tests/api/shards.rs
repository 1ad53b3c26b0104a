//! Several loops behind one API: whoever asks is not told that there are several.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::feed::{feed_that_is_cut, seq, snapshots_are_true};
use crate::gate::{Caller, Gate, Heard as Word};
use crate::http::{Follower, Said, get, post, start};
use crate::pages::metrics;

const CLIENTS: usize = 60;

/// How many shards the connections of these clients are in: the shard is in the name of each.
fn shards_of(clients: &[Value]) -> BTreeSet<u64> {
    let shard = |client: &Value| {
        let conn = client["conn"].as_str().expect("a text");
        let slot = conn.split('.').next().and_then(|slot| slot.parse::<u64>().ok());
        slot.unwrap_or_else(|| panic!("no slot in {conn}")) >> 24
    };
    clients.iter().map(shard).collect()
}

fn start_two() -> (Gate, std::net::SocketAddr, Vec<Caller>) {
    let (gate, admin) = start(&["--shards", "2"]);
    let login = |number| Caller::login(gate.address, &format!("c-{number:02}"));
    let callers = (0..CLIENTS).map(login).collect();
    (gate, admin, callers)
}

#[test]
fn pages_lead_through_all_shards() {
    let (_gate, admin, _callers) = start_two();
    for limit in [1, 7, CLIENTS, 1_000] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = get(admin, &format!("/v1/clients?limit={limit}{cursor}")).json();
            let clients = page["clients"].as_array().expect("a list");
            assert!(clients.len() <= limit);
            seen.extend(clients.iter().cloned());
            pages += 1;
            assert!(pages < 1_000, "it comes to an end");
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let names: BTreeSet<_> = seen.iter().map(|one| one["client"].to_string()).collect();
        assert_eq!((seen.len(), names.len()), (CLIENTS, CLIENTS), "each once, by {limit}");
        assert_eq!(shards_of(&seen).len(), 2);
    }
    let page = get(admin, "/v1/clients?prefix=c-1&limit=1000").json();
    assert_eq!(page["clients"].as_array().map(Vec::len), Some(10));
}

#[test]
fn what_is_asked_of_one_client_finds_its_shard() {
    let (gate, admin, callers) = start_two();
    let boot = get(admin, "/v1/stats").json()["boot"].as_u64().expect("a number");
    let mut feed = Follower::start(admin, "/v1/events", &format!("{boot}:0"));
    let events = feed.events(1 + CLIENTS);
    assert!(events.iter().map(seq).eq(1..=1 + CLIENTS as u64), "one row of numbers");
    let mut conns = BTreeMap::new();
    for event in &events[1..] {
        conns.insert(event["client"].as_str().expect("a name").to_owned(), event["conn"].clone());
    }
    for (number, mut caller) in callers.into_iter().enumerate() {
        let client = format!("c-{number:02}");
        let shown = get(admin, &format!("/v1/clients/{client}")).json();
        assert_eq!((&shown["client"], &shown["conn"]), (&json!(client), &conns[&client]));
        let rhythm = json!({ "interval_ms": 20_000, "timeout_ms": 50_000 }).to_string();
        assert_eq!(post(admin, &format!("/v1/clients/{client}/rhythm"), &rhythm).status, 200);
        let body = json!({ "epoch": shown["epoch"], "code": 1_000 + number }).to_string();
        assert_eq!(post(admin, &format!("/v1/clients/{client}/kick"), &body).status, 200);
        let code = u16::try_from(1_000 + number).expect("few");
        assert!(matches!(caller.hear(), Word::Other(_)), "its new rhythm");
        assert_eq!(caller.hear(), Word::Error(code), "{client} hears what it was told");
        let told = feed.events(2);
        assert_eq!((&told[0]["event"], &told[0]["client"]), (&json!("rhythm"), &json!(client)));
        assert_eq!((&told[1]["event"], &told[1]["client"]), (&json!("offline"), &json!(client)));
        assert_eq!(told[1]["conn"], conns[&client]);
        assert_eq!(seq(&told[1]), (1 + CLIENTS + 2 * (number + 1)) as u64, "no gap");
    }
    drop(gate);
}

#[test]
fn counts_are_those_of_all_and_a_drain_is_for_all() {
    let (mut gate, admin, callers) = start_two();
    let stats = get(admin, "/v1/stats").json();
    assert_eq!((&stats["online"], &stats["accepting"]), (&json!(CLIENTS), &json!(true)));
    assert_eq!(stats["seq"], 1 + CLIENTS, "the ledger began once");
    assert_eq!(get(admin, "/readyz").status, 200);
    let snapshot = get(admin, "/v1/snapshot").json();
    let clients = snapshot["clients"].as_array().expect("a list");
    assert_eq!(snapshot["seq"], 1 + CLIENTS);
    assert_eq!((clients.len(), shards_of(clients).len()), (CLIENTS, 2));
    let online = format!("heartwheel_connections{{state=\"online\"}} {CLIENTS}\n");
    let counted = (0..100).find(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        metrics(admin).contains(&online)
    });
    let text = metrics(admin);
    assert!(counted.is_some() && text.contains("heartwheel_shards 2\n"), "{text}");
    let position = snapshot["position"].as_str().expect("a text");
    let mut feed = Follower::start(admin, "/v1/events", position);
    assert_eq!(post(admin, "/v1/drain", r#"{"within_ms":200}"#).status, 202);
    drop(callers);
    assert!(gate.wait().success());
    let mut told = Vec::new();
    while let Said::Event(event) = feed.next() {
        told.push(event);
    }
    let first = 2 + CLIENTS as u64;
    assert!(told.iter().map(seq).eq(first..=first + CLIENTS as u64), "to the end: {told:?}");
    assert_eq!(told.last().map(|event| &event["event"]), Some(&json!("stopped")));
}

#[test]
fn feeds_and_snapshots_of_several_shards_are_the_truth() {
    feed_that_is_cut(&["--shards", "2"]);
    snapshots_are_true(&["--shards", "3"]);
}
