//! Every path, asked well and badly.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::gate::{Caller, Gate, Heard as Word, PATIENCE};
use crate::http::{Follower, Said, admin_of, ask, get, post, start, token_file};

fn names(page: &Value) -> Vec<String> {
    let clients = page["clients"].as_array().expect("a list");
    clients.iter().map(|one| one["client"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn clients_are_listed_page_by_page_and_filtered() {
    let (gate, admin) = start(&["--class", "lock:grace=30s"]);
    let mut callers = Vec::new();
    for number in 0..25 {
        let mut caller = Caller::connect(gate.address);
        let class = ["lock", "mobile", ""][number % 3];
        caller.say_hello(&format!("{}-{number:02}", ["a", "b"][number % 2]), class, 0);
        assert!(matches!(caller.hear(), Word::Welcome { .. }));
        callers.push(caller);
    }
    for (query, expected) in [
        ("", 25),
        ("prefix=a-", 13),
        ("class=lock", 9),
        ("class=mobile&prefix=b-", 4),
        ("class=", 8),
        ("prefix=none", 0),
    ] {
        for limit in [1, 3, 7, 25, 1_000] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            for _ in 0..100 {
                let heard = get(admin, &format!("/v1/clients?limit={limit}&{query}{cursor}"));
                assert_eq!(heard.status, 200, "{heard:?}");
                let page = heard.json();
                let names = names(&page);
                assert!(names.len() <= limit);
                seen.extend(names);
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), expected, "{query} by {limit}");
        }
    }
    let shown = get(admin, "/v1/clients/a-00").json();
    assert_eq!((&shown["class"], &shown["grace_ms"]), (&json!("lock"), &json!(30_000)));
    assert_eq!((&shown["state"], &shown["interval_ms"]), (&json!("live"), &json!(15_000)));
    drop(callers.swap_remove(0));
    gate.wait_for_event("online");
    let held = (0..100).find(|_| {
        std::thread::sleep(Duration::from_millis(20));
        get(admin, "/v1/clients/a-00").json()["state"] == "held"
    });
    assert!(held.is_some(), "a lock is held when it is lost");
}

#[test]
fn a_client_is_kicked_and_hears_why() {
    let (gate, admin) = start(&[]);
    let mut caller = Caller::login(gate.address, "a/b c");
    let epoch = get(admin, "/v1/clients/a%2Fb%20c").json()["epoch"].as_u64().expect("a number");
    let other = format!("{{\"epoch\":{}}}", epoch + 1);
    assert_eq!(post(admin, "/v1/clients/a%2Fb%20c/kick", &other).problem(), "other-session");
    let body = json!({ "epoch": epoch, "code": 1_234, "text": "off with you" }).to_string();
    assert_eq!(post(admin, "/v1/clients/a%2Fb%20c/kick", &body).status, 200);
    assert_eq!(caller.hear(), Word::Error(1_234));
    let offline = gate.wait_for_event("offline");
    assert_eq!((&offline["reason"], &offline["code"]), (&json!("kicked"), &json!(300)));
    assert_eq!(post(admin, "/v1/clients/a%2Fb%20c/kick", "").problem(), "no-such-client");
    for (body, problem) in [
        (r#"{"code":202}"#, "out-of-bounds"),
        (r#"{"text":"a\u0007"}"#, "out-of-bounds"),
        (r#"{"reason":"x"}"#, "bad-request"),
        (r#"{"code":"#, "bad-request"),
        (r#"[1]"#, "bad-request"),
    ] {
        assert_eq!(post(admin, "/v1/clients/anna/kick", body).problem(), problem, "{body}");
    }
    let long = json!({ "text": "x".repeat(256) }).to_string();
    assert_eq!(post(admin, "/v1/clients/anna/kick", &long).problem(), "out-of-bounds");
}

#[test]
fn a_rhythm_is_moved_and_counts_for_the_verdict() {
    let (gate, admin) = start(&["--min-interval", "100ms"]);
    let mut caller = Caller::login(gate.address, "anna");
    let body = r#"{"interval_ms":200,"timeout_ms":600}"#;
    assert_eq!(post(admin, "/v1/clients/anna/rhythm", body).status, 200);
    let heard = caller.hear();
    let expected = "Beat { interval_ms: 200, timeout_ms: 600 }".to_owned();
    assert_eq!(heard, Word::Other(expected));
    let event = gate.wait_for_event("rhythm");
    assert_eq!((&event["interval_ms"], &event["timeout_ms"]), (&json!(200), &json!(600)));
    assert_eq!(get(admin, "/v1/clients/anna").json()["timeout_ms"], 600);
    caller.beat();
    let offline = gate.wait_for_event("offline");
    let silence = offline["silence_ms"].as_u64().expect("a number");
    assert!((600..2_000).contains(&silence), "{offline}");
    for (body, problem) in [
        (r#"{"interval_ms":200}"#, "bad-request"),
        (r#"{"interval_ms":200,"timeout_ms":100}"#, "out-of-bounds"),
        (r#"{"interval_ms":1,"timeout_ms":600}"#, "out-of-bounds"),
        (r#"{"interval_ms":-1,"timeout_ms":600}"#, "bad-request"),
    ] {
        assert_eq!(post(admin, "/v1/clients/anna/rhythm", body).problem(), problem, "{body}");
    }
    let body = r#"{"interval_ms":200,"timeout_ms":600}"#;
    assert_eq!(post(admin, "/v1/clients/anna/rhythm", body).problem(), "no-such-client");
    let mut late = Caller::login(gate.address, "bert");
    let body = r#"{"interval_ms":60,"timeout_ms":600}"#;
    assert_eq!(post(admin, "/v1/clients/bert/rhythm", body).problem(), "out-of-bounds");
    assert_eq!(late.hear_within(Duration::from_millis(100)), Word::Nothing);
}

/// What the document says is a number or a text is not null, and what it says is an object is not
/// its values in a row.
#[test]
fn null_is_no_value_and_a_list_no_object() {
    let (gate, admin) = start(&[]);
    let _caller = Caller::login(gate.address, "anna");
    for (path, body) in [
        ("/v1/clients/anna/kick", r#"{"epoch":null}"#),
        ("/v1/clients/anna/kick", r#"{"code":null}"#),
        ("/v1/clients/anna/kick", r#"{"text":null}"#),
        ("/v1/clients/anna/rhythm", r#"{"interval_ms":null,"timeout_ms":600}"#),
        ("/v1/drain", r#"{"within_ms":null}"#),
        ("/v1/drain", "[]"),
        ("/v1/drain", "[4000]"),
        ("/v1/clients/anna/rhythm", "[200, 600]"),
    ] {
        assert_eq!(post(admin, path, body).problem(), "bad-request", "{body}");
    }
    assert_eq!(get(admin, "/v1/clients/anna").status, 200, "nothing was done");
}

#[test]
fn a_drain_is_seen_by_whoever_looks_and_ends_the_program() {
    let (mut gate, admin) = start(&["--drain-timeout", "60s"]);
    let _caller = Caller::login(gate.address, "anna");
    assert_eq!(get(admin, "/healthz").status, 200);
    assert_eq!(get(admin, "/readyz").status, 200);
    let mut follower = Follower::start(admin, "/v1/events", "");
    let limit = r#"{"within_ms":3600001}"#;
    assert_eq!(post(admin, "/v1/drain", limit).problem(), "out-of-bounds");
    let heard = post(admin, "/v1/drain", r#"{"within_ms":4000}"#);
    assert_eq!((heard.status, &heard.json()["within_ms"]), (202, &json!(4_000)));
    let unready = (0..100).find(|_| {
        std::thread::sleep(Duration::from_millis(30));
        get(admin, "/readyz").status == 503
    });
    assert!(unready.is_some(), "the next report says so");
    assert_eq!(get(admin, "/healthz").status, 200, "it still turns");
    assert!(gate.wait().success());
    let events = follower.events(2);
    assert_eq!(events[0]["reason"], "drain");
    assert_eq!(events[1]["event"], "stopped", "whoever follows hears the end");
    assert_eq!(follower.next(), Said::End);
}

#[test]
fn what_is_asked_badly_is_refused_in_one_shape() {
    let (_gate, admin) = start(&[]);
    for (method, path, body, status, problem) in [
        ("GET", "/v1", "", 404, "no-such-path"),
        ("GET", "/v1/clients/a/b", "", 404, "no-such-path"),
        ("GET", "/v1/clients/nobody", "", 404, "no-such-client"),
        ("GET", "/v1/clients/%00", "", 404, "no-such-client"),
        ("POST", "/v1/clients", "", 405, "wrong-method"),
        ("GET", "/v1/drain", "", 405, "wrong-method"),
        ("DELETE", "/v1/clients/anna", "", 405, "wrong-method"),
        ("GET", "/v1/clients?cursor=zz", "", 400, "bad-request"),
        ("GET", "/v1/clients?limit=1001", "", 400, "bad-request"),
        ("GET", "/v1/clients?limit=1&limit=2", "", 400, "bad-request"),
        ("GET", "/v1/clients?class=unknown", "", 400, "bad-request"),
        ("GET", "/v1/clients?colour=red", "", 400, "bad-request"),
        ("GET", "/v1/stats?x", "", 400, "bad-request"),
        ("GET", "/v1/events?after=7", "", 400, "bad-request"),
        ("GET", "/v1/events?follow=maybe", "", 400, "bad-request"),
        ("GET", "/v1/events?after=1:1", "", 410, "gone"),
        ("GET", "/v1/transport", "", 409, "untold"),
        ("POST", "/v1/drain", "nonsense", 400, "bad-request"),
    ] {
        let heard = ask(admin, method, path, &[], body);
        assert_eq!(heard.status, status, "{method} {path}: {heard:?}");
        assert_eq!(heard.problem(), problem, "{method} {path}");
        assert!(heard.head.contains("cache-control: no-store"), "{}", heard.head);
        assert!(!heard.head.contains("access-control"), "{}", heard.head);
    }
    let heard = post(admin, "/v1/drain", &"x".repeat(200_000));
    assert_eq!((heard.status, heard.problem().as_str()), (413, "too-large"));
    let boot = get(admin, "/v1/stats").json()["boot"].as_u64().expect("a number");
    let beyond = format!("/v1/events?after={boot}:99");
    assert_eq!(get(admin, &beyond).problem(), "gone", "no such place yet");
}

#[test]
fn without_a_token_no_page_in_a_browser_may_ask() {
    let (_gate, admin) = start(&[]);
    for line in ["Host: evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site"]
    {
        for (method, path) in [("POST", "/v1/drain"), ("GET", "/v1/clients"), ("GET", "/nope")] {
            let heard = ask(admin, method, path, &[line], "");
            assert_eq!((heard.status, heard.problem().as_str()), (403, "foreign"), "{line}");
        }
    }
    assert_eq!(get(admin, "/readyz").status, 200, "and nobody was drained");
}

#[test]
fn with_a_token_only_whoever_has_it_may_ask() {
    let (_folder, file) = token_file();
    let (_gate, admin) = start(&["--admin-token-file", &file]);
    for path in ["/v1/clients", "/v1/events", "/metrics", "/openapi.json", "/nope"] {
        assert_eq!(get(admin, path).problem(), "unauthorized", "{path}");
        let wrong = ask(admin, "GET", path, &["Authorization: Bearer correct-horse-batterz"], "");
        assert_eq!(wrong.status, 401);
        assert!(wrong.head.contains("www-authenticate: bearer"), "{}", wrong.head);
    }
    let right = ["Authorization: Bearer correct-horse-battery", "Host: gate.example"];
    assert_eq!(ask(admin, "GET", "/v1/clients", &right, "").status, 200);
    assert_eq!(get(admin, "/healthz").status, 200, "a probe has no token");
}

#[test]
fn an_address_that_cannot_be_had_is_one_line() {
    let (_gate, admin) = start(&[]);
    let taken = admin.to_string();
    for (arguments, code, part) in [
        (vec!["--admin", &taken], 1, "cannot serve the admin API on"),
        (vec!["--admin", "0.0.0.0:0"], 2, "needs admin-token-file"),
        (vec!["--admin", "here"], 2, "address"),
        (vec!["--admin", "127.0.0.1:0", "--admin-token-file", "/no/such/file"], 1, "cannot read"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn"])
            .args(&arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let line = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn it_answers_while_nobody_takes_the_events() {
    let gate = Gate::start_unread(&["--admin", "127.0.0.1:0"]);
    let admin = admin_of(&gate);
    let until = std::time::Instant::now() + PATIENCE;
    // Until the pipe is full: 64 KiB are some 300 events.
    for _ in 0..400 {
        drop(Caller::login(gate.address, "anna"));
        assert!(std::time::Instant::now() < until);
    }
    let _anna = Caller::login(gate.address, "anna");
    assert_eq!(get(admin, "/v1/clients/anna").status, 200);
    assert_eq!(get(admin, "/healthz").status, 200);
    assert!(get(admin, "/v1/stats").json()["accepted"].as_u64() >= Some(401));
}
