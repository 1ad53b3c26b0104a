//! Messages for clients by the built binary: to one, to several, to groups, to all, and to those
//! who do not read.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use heartwheel::wire::message::Message;
use serde_json::{Value, json};

use crate::command::{ctl, refused, said};
use crate::gate::{Caller, Gate, Heard as Word, PATIENCE, on_epoll};
use crate::http::{ask, get, post, start};

/// The number of the next DATA that a caller hears.
fn hear_data(caller: &mut Caller) -> u32 {
    let heard = caller.hear();
    let Word::Other(text) = &heard else { panic!("no DATA: {heard:?}") };
    let number = text.strip_prefix("Data { seq: ").and_then(|rest| rest.split(',').next());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no DATA: {text}"))
}

fn push(admin: SocketAddr, client: &str, body: &Value) -> Value {
    let heard = post(admin, &format!("/v1/clients/{client}/push"), &body.to_string());
    assert_eq!(heard.status, 200, "{heard:?}");
    heard.json()
}

fn done(admin: SocketAddr, path: &str, body: &Value) -> Value {
    let heard = post(admin, path, &body.to_string());
    assert_eq!(heard.status, 202, "{heard:?}");
    let id = heard.json()["id"].as_str().expect("a name").to_owned();
    let until = Instant::now() + PATIENCE;
    loop {
        let status = get(admin, &format!("/v1/broadcasts/{id}")).json();
        if status["state"] == "done" && status["results"]["queued"].is_null() {
            return status;
        }
        assert!(Instant::now() < until, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_push_is_delivered_or_acknowledged() {
    let (gate, admin) = start(&["--grace", "30s"]);
    let mut anna = Caller::login(gate.address, "a/b c");
    let pushed = push(admin, "a%2Fb%20c", &json!({ "topic": "t", "text": "é\n" }));
    assert_eq!((&pushed["result"], &pushed["seq"]), (&json!("delivered"), &json!(1)), "{pushed}");
    assert_eq!(pushed["client"], "a/b c");
    let Word::Other(text) = anna.hear() else { panic!("no DATA") };
    assert_eq!(text, r#"Data { seq: 1, ack: No, topic: "t", body: [195, 169, 10] }"#);
    push(admin, "a%2Fb%20c", &json!({ "base64": "AP8=" }));
    let Word::Other(text) = anna.hear() else { panic!("no DATA") };
    assert_eq!(text, r#"Data { seq: 2, ack: No, topic: "", body: [0, 255] }"#);

    let asked = std::thread::spawn(move || {
        push(admin, "a%2Fb%20c", &json!({ "text": "x", "ack": true, "wait_ms": 20_000 }))
    });
    assert_eq!(hear_data(&mut anna), 3);
    anna.say(&Message::Ack { seq: 3 });
    let pushed = asked.join().expect("it does not panic");
    assert_eq!(pushed["result"], "acked", "{pushed}");

    let epoch = pushed["epoch"].as_u64().expect("a number");
    let body = json!({ "text": "x", "epoch": epoch + 1 }).to_string();
    assert_eq!(post(admin, "/v1/clients/a%2Fb%20c/push", &body).problem(), "other-session");
    assert_eq!(push(admin, "nobody", &json!({ "text": "x" }))["result"], "unknown");
    anna.say(&Message::Bye { code: 100 });
    gate.wait_for_event("offline");
    let pushed = push(admin, "a%2Fb%20c", &json!({ "text": "x" }));
    assert_eq!((&pushed["result"], &pushed["seq"]), (&json!("offline"), &Value::Null));
    let stats = get(admin, "/v1/stats").json();
    let counts = ["pushed", "delivered", "acked", "queue_bytes"].map(|name| stats[name].clone());
    assert_eq!(counts, [3, 3, 1, 0].map(Value::from));
}

#[test]
fn a_push_is_delivered_or_acknowledged_on_io_uring() {
    a_push_is_delivered_or_acknowledged();
}

#[test]
fn a_push_is_delivered_or_acknowledged_on_epoll() {
    on_epoll(a_push_is_delivered_or_acknowledged);
}

#[test]
fn what_is_no_message_is_refused() {
    let (gate, admin) = start(&["--max-payload", "600"]);
    let _anna = Caller::login(gate.address, "anna");
    let long = "x".repeat(600);
    for (path, body, problem) in [
        ("/v1/clients/anna/push", json!({}), "bad-request"),
        ("/v1/clients/anna/push", json!({ "text": "x", "base64": "AA==" }), "bad-request"),
        ("/v1/clients/anna/push", json!({ "base64": "?" }), "bad-request"),
        ("/v1/clients/anna/push", json!({ "text": "x", "clients": ["a"] }), "bad-request"),
        ("/v1/clients/anna/push", json!({ "text": "x", "why": 1 }), "bad-request"),
        ("/v1/clients/anna/push", json!({ "text": "x", "topic": "a\nb" }), "out-of-bounds"),
        ("/v1/clients/anna/push", json!({ "text": "x", "wait_ms": 99_999 }), "out-of-bounds"),
        ("/v1/clients/anna/push", json!({ "text": "x", "ttl_ms": 0 }), "out-of-bounds"),
        ("/v1/clients/anna/push", json!({ "text": long }), "out-of-bounds"),
        ("/v1/push", json!({ "text": "x" }), "out-of-bounds"),
        ("/v1/push", json!({ "text": "x", "clients": ["a\nb"] }), "bad-request"),
        ("/v1/push", json!({ "text": "x", "clients": ["a"], "epoch": 1 }), "bad-request"),
        ("/v1/push", json!({ "text": long, "clients": ["anna"] }), "out-of-bounds"),
        ("/v1/broadcast", json!({ "text": "x", "wait_ms": 1 }), "bad-request"),
        ("/v1/broadcast", json!({ "text": "x", "per_second": 0 }), "out-of-bounds"),
        ("/v1/broadcast", json!({ "text": long }), "out-of-bounds"),
        ("/v1/groups/a%0Ab/push", json!({ "text": "x" }), "bad-request"),
    ] {
        let heard = post(admin, path, &body.to_string());
        assert_eq!(heard.problem(), problem, "{path} {body}");
    }
    assert_eq!(get(admin, "/v1/broadcasts/1-1").problem(), "no-such-broadcast");
    assert_eq!(get(admin, "/v1/broadcasts/x").problem(), "no-such-broadcast");
    let put = |path: &str| ask(admin, "PUT", path, &[], "");
    assert_eq!(put("/v1/groups/g/clients/nobody").problem(), "no-such-client");
    assert_eq!(put("/v1/groups/a%0Ab/clients/anna").problem(), "bad-request");
    assert_eq!(put("/v1/groups").problem(), "wrong-method");
}

#[test]
fn a_batch_says_of_each_what_became_of_it_in_every_shard() {
    for shards in ["1", "3"] {
        let (gate, admin) = start(&["--shards", shards]);
        let names: Vec<String> = (0..20).map(|number| format!("c-{number}")).collect();
        let mut callers: Vec<_> =
            names.iter().map(|name| Caller::login(gate.address, name)).collect();
        let mut clients = names.clone();
        clients.insert(7, "nobody".to_owned());
        let body = json!({ "clients": clients, "text": "x", "ack": true });
        let heard = post(admin, "/v1/push", &body.to_string());
        assert_eq!(heard.status, 200, "{heard:?}");
        let results = heard.json()["results"].as_array().cloned().expect("a list");
        for (result, name) in results.iter().zip(&clients) {
            let expected = if name == "nobody" { "unknown" } else { "delivered" };
            assert_eq!((&result["client"], &result["result"]), (&json!(name), &json!(expected)));
        }
        assert_eq!(results.len(), clients.len());
        callers.iter_mut().for_each(|caller| assert_eq!(hear_data(caller), 1));
    }
}

#[test]
fn what_was_not_acknowledged_comes_again_with_the_session() {
    let (gate, admin) = start(&["--grace", "30s"]);
    let mut anna = Caller::connect(gate.address);
    anna.say_hello("anna", "", 0);
    let Word::Welcome { resume, .. } = anna.hear() else { panic!("no WELCOME") };
    for text in ["1", "2", "3"] {
        push(admin, "anna", &json!({ "text": text, "ack": true }));
    }
    (1..=3).for_each(|seq| assert_eq!(hear_data(&mut anna), seq));
    anna.say(&Message::Ack { seq: 1 });
    drop(anna);
    let until = Instant::now() + PATIENCE;
    while get(admin, "/v1/clients/anna").json()["state"] != "held" {
        assert!(Instant::now() < until, "it is held");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pushed = push(admin, "anna", &json!({ "text": "4" }));
    assert_eq!((&pushed["result"], &pushed["seq"]), (&json!("queued"), &json!(4)));
    let mut anna = Caller::connect(gate.address);
    let mut bytes = Vec::new();
    heartwheel::wire::native::encode_preface(heartwheel::wire::native::VERSIONS, &mut bytes);
    let hello = Message::Hello {
        wanted_interval_ms: 0,
        client_id: "anna",
        class: "",
        token: &[],
        resume: &resume,
        last_seq: 2,
        before: None,
    };
    heartwheel::wire::native::encode(&hello, &mut bytes);
    anna.send(&bytes);
    assert!(matches!(anna.hear(), Word::Welcome { resumed: true, .. }));
    assert_eq!((hear_data(&mut anna), hear_data(&mut anna)), (3, 4), "2 was acknowledged by HELLO");
}

fn a_broadcast_reaches_all_and_a_group_its_own(arguments: &[&str]) {
    let (gate, admin) = start(arguments);
    let names: Vec<String> = (0..30).map(|number| format!("c-{number:02}")).collect();
    let mut callers: Vec<_> = names.iter().map(|name| Caller::login(gate.address, name)).collect();
    let status = done(admin, "/v1/broadcast", &json!({ "text": "all", "topic": "t" }));
    assert_eq!((&status["targets"], &status["results"]["delivered"]), (&json!(30), &json!(30)));
    callers.iter_mut().for_each(|caller| assert_eq!(hear_data(caller), 1));

    for name in &names[..10] {
        let path = format!("/v1/groups/t%2F1/clients/{name}");
        assert_eq!(ask(admin, "PUT", &path, &[], "").status, 200);
    }
    ask(admin, "PUT", "/v1/groups/a/clients/c-00", &[], "");
    let groups = get(admin, "/v1/groups").json();
    assert_eq!(
        groups,
        json!({ "groups": [{ "group": "a", "clients": 1 }, { "group": "t/1", "clients": 10 }] })
    );
    let page = get(admin, "/v1/groups?limit=1").json();
    assert_eq!((&page["groups"][0]["group"], &page["next"]), (&json!("a"), &json!("a")));
    let page = get(admin, "/v1/groups?limit=1&after=a").json();
    assert_eq!((&page["groups"][0]["clients"], page.get("next")), (&json!(10), None));
    let path = "/v1/groups/t%2F1/clients/c-09";
    assert_eq!(ask(admin, "DELETE", path, &[], "").status, 200);
    let members = get(admin, "/v1/clients?group=t%2F1&limit=100").json();
    assert_eq!(members["clients"].as_array().map(Vec::len), Some(9));
    assert_eq!(get(admin, "/v1/clients/c-00").json()["groups"], json!(["t/1", "a"]));

    let status = done(admin, "/v1/groups/t%2F1/push", &json!({ "text": "g", "ack": true }));
    assert_eq!(status["results"], json!({ "delivered": 9 }));
    for (place, caller) in callers.iter_mut().enumerate() {
        match place < 9 {
            true => {
                assert_eq!(hear_data(caller), 2);
                caller.say(&Message::Ack { seq: 2 });
            }
            false => assert_eq!(caller.hear_within(Duration::from_millis(5)), Word::Nothing),
        }
    }
    let path = format!("/v1/broadcasts/{}", status["id"].as_str().expect("a name"));
    let until = Instant::now() + PATIENCE;
    while get(admin, &path).json()["results"] != json!({ "acked": 9 }) {
        assert!(Instant::now() < until, "{:?}", get(admin, &path));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_broadcast_reaches_all_and_a_group_its_own_on_one_shard() {
    a_broadcast_reaches_all_and_a_group_its_own(&[]);
}

#[test]
fn a_broadcast_reaches_all_and_a_group_its_own_on_three_shards() {
    a_broadcast_reaches_all_and_a_group_its_own(&["--shards", "3"]);
}

#[test]
fn only_so_many_broadcasts_go_on_at_once() {
    let (gate, admin) = start(&["--shards", "2", "--broadcast-rate", "1"]);
    let _callers: Vec<_> = (0..40).map(|n| Caller::login(gate.address, &format!("c{n}"))).collect();
    let body = json!({ "text": "x" }).to_string();
    for _ in 0..8 {
        assert_eq!(post(admin, "/v1/broadcast", &body).status, 202);
    }
    let refused = post(admin, "/v1/broadcast", &body);
    assert_eq!((refused.status, refused.problem().as_str()), (429, "too-many"));
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
}

/// A client that stops reading, until what the kernel takes for it is full.
fn stuck(gate: &Gate, admin: SocketAddr) -> Caller {
    let anna = Caller::login(gate.address, "anna");
    rustix::net::sockopt::set_socket_recv_buffer_size(&anna.stream, 4_096).expect("an option");
    let body = json!({ "text": "x".repeat(16_000), "wait_ms": 0 });
    let until = Instant::now() + PATIENCE;
    while get(admin, "/v1/stats").json()["queue_bytes"].as_u64() < Some(64 * 1_024) {
        assert!(Instant::now() < until, "it never fills");
        push(admin, "anna", &body);
    }
    anna
}

#[test]
fn the_oldest_make_way_where_a_client_does_not_read() {
    let (gate, admin) = start(&["--queue-bytes", "100000"]);
    let mut anna = stuck(&gate, admin);
    let mut last = 0;
    for _ in 0..20 {
        let pushed = push(admin, "anna", &json!({ "text": "x".repeat(16_000), "wait_ms": 0 }));
        assert_eq!(pushed["result"], "queued", "{pushed}");
        last = u32::try_from(pushed["seq"].as_u64().expect("a number")).expect("few");
    }
    let stats = get(admin, "/v1/stats").json();
    assert!(stats["dropped_oldest"].as_u64() >= Some(10), "{stats}");
    assert!(stats["queue_bytes"].as_u64() <= Some(100_000), "{stats}");
    let mut seqs = Vec::new();
    while seqs.last() != Some(&last) {
        seqs.push(hear_data(&mut anna));
    }
    assert!(seqs.is_sorted_by(|one, next| one < next), "in order, and none twice: {seqs:?}");
    assert!(seqs.len() + 10 <= last as usize, "what made way is missing");
}

#[test]
fn the_newest_is_not_taken_where_a_client_does_not_read() {
    let (gate, admin) = start(&["--queue-bytes", "100000", "--slow-policy", "newest"]);
    let mut anna = stuck(&gate, admin);
    let slow = (0..20).find(|_| {
        let pushed = push(admin, "anna", &json!({ "text": "x".repeat(16_000), "wait_ms": 0 }));
        pushed["result"] == "slow"
    });
    assert!(slow.is_some(), "there is an end to the room");
    let taken = get(admin, "/v1/stats").json()["pushed"].as_u64().expect("a number");
    for seq in 1..=u32::try_from(taken).expect("few") {
        assert_eq!(hear_data(&mut anna), seq, "all that was taken, without a gap");
    }
}

#[test]
fn a_session_is_closed_where_a_client_does_not_read() {
    let (gate, admin) = start(&["--queue-bytes", "100000", "--slow-policy", "close"]);
    let _anna = stuck(&gate, admin);
    let until = Instant::now() + PATIENCE;
    loop {
        let pushed = push(admin, "anna", &json!({ "text": "x".repeat(16_000), "wait_ms": 0 }));
        match pushed["result"].as_str() {
            Some("queued") => assert!(Instant::now() < until, "there is an end to the room"),
            other => {
                assert_eq!(other, Some("slow"));
                break;
            }
        }
    }
    assert_eq!(gate.wait_for_event("offline")["reason"], "slow_consumer");
}

#[test]
fn what_waits_too_long_is_dropped() {
    let (gate, admin) = start(&["--grace", "30s", "--queue-ttl", "200ms"]);
    drop(Caller::login(gate.address, "anna"));
    let until = Instant::now() + PATIENCE;
    while get(admin, "/v1/clients/anna").json()["state"] != "held" {
        assert!(Instant::now() < until, "it is held");
        std::thread::sleep(Duration::from_millis(20));
    }
    push(admin, "anna", &json!({ "text": "x" }));
    let pushed = push(admin, "anna", &json!({ "text": "x", "ttl_ms": 100, "wait_ms": 15_000 }));
    assert_eq!(pushed["result"], "offline", "it was not here to take it");
    while get(admin, "/v1/stats").json()["expired"] != 2 {
        assert!(Instant::now() < until, "by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ctl_pushes_and_puts_clients_into_groups() {
    let (gate, admin) = start(&[]);
    let mut anna = Caller::login(gate.address, "anna");
    let mut bert = Caller::login(gate.address, "b/ert");
    let line = said(admin, &["push", "anna", "--topic", "t", "--text", "hello"]);
    assert!(line.starts_with("delivered  epoch ") && line.ends_with("  seq 1\n"), "{line}");
    assert_eq!(hear_data(&mut anna), 1);
    let words = ["push", "b/ert", "--base64", "AP8=", "--ack", "--ttl", "5s", "--json"];
    let json: Value = serde_json::from_str(&said(admin, &words)).expect("JSON");
    assert_eq!((&json["client"], &json["result"]), (&json!("b/ert"), &json!("delivered")));
    assert_eq!(hear_data(&mut bert), 1);
    assert!(refused(admin, &["push", "carl", "--text", "x"]).contains("did not get it: unknown"));
    assert!(refused(admin, &["push", "anna", "--file", "/no/such"]).contains("/no/such"));
    assert_eq!(ctl(admin, &["push", "anna", "--all", "--text", "x"]).status.code(), Some(2));
    assert_eq!(ctl(admin, &["push", "--text", "x"]).status.code(), Some(2));
    assert_eq!(ctl(admin, &["push", "anna"]).status.code(), Some(2));

    assert_eq!(said(admin, &["group", "add", "tills", "anna", "b/ert"]), "done\n");
    assert_eq!(said(admin, &["group", "list"]), format!("{:<24}  2\n", "tills"));
    assert_eq!(said(admin, &["group", "list", "tills", "--json"]).lines().count(), 2);
    let words = ["push", "--group", "tills", "--text", "x"];
    assert_eq!(said(admin, &words), "to 2 clients: 2 delivered\n");
    assert_eq!((hear_data(&mut anna), hear_data(&mut bert)), (2, 2));
    assert_eq!(said(admin, &["group", "remove", "tills", "anna"]), "done\n");
    assert!(refused(admin, &["group", "add", "tills", "carl"]).contains("is not online (404)"));
    assert_eq!(said(admin, &["clients", "--json", "--group", "tills"]).lines().count(), 1);
    let words = ["push", "--all", "--text", "x", "--per-second", "1000", "--json"];
    let json: Value = serde_json::from_str(&said(admin, &words)).expect("JSON");
    assert_eq!(json["results"], json!({ "delivered": 2 }));
}
