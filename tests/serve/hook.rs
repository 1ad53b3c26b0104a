//! Somebody else says who may come in: the binary and a hook that behaves in every way.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects, and whatever else is heard fails it"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};
use serde_json::Value;

use crate::authority::authority;
use crate::backend::{Answer, Backend, Delivery};
use crate::gate::{Caller, Gate, Heard, PATIENCE};
use crate::http::{admin_of, get};
use crate::identity::{Secret, comes_in, everything_logged, say_hello};

const BUSY: u16 = 302;
const KEY: &str = "a-key-of-the-hook-with-34-letters-";

/// The token of a client that the hook lets in.
fn good(client: &str) -> String {
    format!("good-token-of-{client}")
}

/// Whether this question is about such a one.
fn is_good(delivery: &Delivery) -> bool {
    let json = delivery.json();
    json["token"] == good(json["client"].as_str().expect("a text")).as_str()
}

fn yes_to_the_good(delivery: &Delivery) -> Answer {
    Answer::Status(if is_good(delivery) { 204 } else { 403 })
}

fn gate(url: &str, more: &[&str]) -> Gate {
    let arguments = ["--identity", "hook", "--identity-url", url, "--log-level", "trace"];
    Gate::start(&[&arguments, more].concat())
}

/// Whether it is told to come back, at a time that is not everybody's.
fn is_put_off(caller: &mut Caller) -> bool {
    match caller.hear() {
        Heard::Goaway { code, reconnect_min_ms, reconnect_max_ms } => {
            assert!(reconnect_min_ms < reconnect_max_ms, "{reconnect_min_ms}");
            code == BUSY
        }
        _ => false,
    }
}

/// How many requests came, until none does for a moment.
fn requests(backend: &Backend) -> usize {
    let moment = Duration::from_millis(200);
    std::iter::from_fn(|| backend.next_within(moment)).count()
}

#[test]
fn whom_the_hook_proves_comes_in_and_nobody_else() {
    let backend = Backend::start(yes_to_the_good);
    let gate = gate(&format!("{}?secret=in-the-query", backend.url()), &["--shards", "2"]);
    let mut caller = say_hello(&gate, "anna", &good("anna"));
    assert!(matches!(caller.hear(), Heard::Welcome { .. }));
    let delivery = backend.next();
    assert_eq!(delivery.path, "/hook?secret=in-the-query");
    assert_eq!(delivery.header("content-type"), Some("application/json"));
    assert_eq!(delivery.header("heartwheel-signature"), None);
    let remote = caller.stream.local_addr().expect("an address").to_string();
    let expected = [("client", "anna"), ("token", &good("anna")), ("remote", &remote)];
    let json = delivery.json();
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(3), "{json}");
    for (key, value) in expected {
        assert_eq!(json[key], value, "{json}");
    }
    for client in 0..8 {
        let name = format!("client-{client}");
        assert!(comes_in(&gate, &name, &good(&name)), "{name}");
        assert!(!comes_in(&gate, &name, &good("anna")), "another client's: {name}");
    }
    assert_eq!(requests(&backend), 16);
    assert!(!comes_in(&gate, "anna", ""), "nobody is asked about no token");
    for status in [401, 403, 404] {
        backend.behave(move |_| Answer::Status(status));
        assert!(!comes_in(&gate, "bert", &good("bert")), "{status}");
    }
    assert_eq!(requests(&backend), 3, "a refusal is not remembered");
    for answer in [
        Answer::Status(500),
        Answer::Status(202),
        Answer::Status(400),
        Answer::Status(429),
        Answer::NotBefore(7),
        Answer::Redirect,
        Answer::CutOff { has_taken: false },
    ] {
        backend.behave(move |_| answer);
        assert!(is_put_off(&mut say_hello(&gate, "bert", &good("bert"))), "{answer:?}");
    }
    backend.behave(|_| Answer::Endlessly);
    assert!(comes_in(&gate, "bert", &good("bert")), "the status decides");
    let logged = everything_logged(gate);
    assert!(logged.contains("neither yes nor no"), "{logged}");
    assert!(!logged.contains("good-token") && !logged.contains("in-the-query"), "{logged}");
}

#[test]
fn whoever_was_proven_is_not_asked_about_again_for_a_while() {
    let backend = Backend::start(yes_to_the_good);
    let gate = gate(&backend.url(), &["--identity-cache-age", "3s", "--identity-cache", "2"]);
    let begun = Instant::now();
    for _ in 0..5 {
        assert!(comes_in(&gate, "anna", &good("anna")));
    }
    // On a busy machine the first answer may be over before the last is asked for.
    let is_quick = begun.elapsed() < Duration::from_secs(2);
    let first = requests(&backend);
    assert!(first == 1 || !is_quick, "{first} requests");
    assert!(!comes_in(&gate, "anna", &good("bert")), "another token");
    assert!(!comes_in(&gate, "bert", &good("anna")), "another client");
    assert_eq!(requests(&backend), 2);
    std::thread::sleep(Duration::from_millis(3_100));
    assert!(comes_in(&gate, "anna", &good("anna")));
    assert_eq!(requests(&backend), 1, "it is over");
    for client in ["bert", "carl"] {
        assert!(comes_in(&gate, client, &good(client)));
    }
    assert!(comes_in(&gate, "anna", &good("anna")));
    assert_eq!(requests(&backend), 3, "there is room for two");
}

#[test]
fn without_a_cache_everybody_is_asked_about() {
    for off in [["--identity-cache-age", "0s"], ["--identity-cache", "0"]] {
        let backend = Backend::start(yes_to_the_good);
        let gate = gate(&backend.url(), &off);
        for _ in 0..3 {
            assert!(comes_in(&gate, "anna", &good("anna")));
        }
        let connections: Vec<_> = (0..3).map(|_| backend.next().connection).collect();
        assert_eq!(connections, [0; 3], "by one connection");
    }
}

fn metric(admin: SocketAddr, series: &str) -> u64 {
    let text = String::from_utf8(get(admin, "/metrics").body).expect("text");
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")));
    let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

/// Those who are in, who beat and are answered.
fn are_answered(callers: &mut [Caller]) {
    for caller in callers {
        caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"there?" });
        assert_eq!(caller.hear(), Heard::Pong(b"there?".to_vec()));
    }
}

#[test]
fn while_hundreds_wait_for_a_hook_that_never_answers_beats_go_on() {
    const CROWD: usize = 300;
    let backend = Backend::start(yes_to_the_good);
    let rhythm = ["--interval", "2s", "--timeout", "8s"];
    let more = ["--identity-timeout", "5s", "--identity-cache", "0", "--admin", "127.0.0.1:0"];
    let gate = gate(&backend.url(), &[&rhythm[..], &["--shards", "2"], &more].concat());
    let admin = admin_of(&gate);
    let name = |number: usize| format!("client-{number}");
    let login = |number| {
        let mut caller = say_hello(&gate, &name(number), &good(&name(number)));
        assert!(matches!(caller.hear(), Heard::Welcome { .. }));
        caller
    };
    let mut inside: Vec<Caller> = (0..10).map(login).collect();
    backend.behave(|_| Answer::Silence);
    let begun = Instant::now();
    let crowd = 100..100 + CROWD;
    let mut crowd: Vec<Caller> =
        crowd.map(|number| say_hello(&gate, &name(number), &good(&name(number)))).collect();
    let came_within = begun.elapsed();
    let (mut rounds, mut most) = (0, (0, 0));
    loop {
        are_answered(&mut inside);
        rounds += 1;
        let asked = metric(admin, "heartwheel_hook_requests_under_way");
        let waiting = metric(admin, "heartwheel_hook_waiting");
        if most.0 > 0 && asked + waiting == 0 {
            break;
        }
        most = (most.0.max(asked), most.1.max(waiting));
        assert!(begun.elapsed() < PATIENCE, "they wait for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(rounds >= 3, "{rounds} rounds of beats, and all were told already");
    assert_eq!(most.0, 32, "so many requests and no more");
    let is_quick = came_within < Duration::from_secs(3);
    assert!(most.1 == (CROWD - 32) as u64 || !is_quick, "{most:?} in {came_within:?}");
    assert!(begun.elapsed() >= Duration::from_secs(5), "before its time");
    for caller in &mut crowd {
        assert!(is_put_off(caller), "nobody is let in, and nobody sent away for good");
    }
    are_answered(&mut inside);
    let outcome =
        |it| metric(admin, &format!("heartwheel_hook_requests_total{{outcome=\"{it}\"}}"));
    assert_eq!(outcome("proven"), 10);
    let waited = metric(admin, "heartwheel_hook_put_off_total{why=\"waited\"}");
    assert_eq!(outcome("timeout") + waited, CROWD as u64);
    // The loops say once a second how things are.
    while metric(admin, "heartwheel_connections_refused_total{reason=\"busy\"}") < CROWD as u64 {
        are_answered(&mut inside);
        assert!(begun.elapsed() < PATIENCE, "they are not counted");
        std::thread::sleep(Duration::from_millis(100));
    }
    backend.behave(yes_to_the_good);
    assert!(comes_in(&gate, "late", &good("late")), "it answers again");
    let events = std::iter::from_fn(|| gate.try_event(Duration::from_millis(100)));
    let offline: Vec<Value> = events.filter(|event| event["event"] == "offline").collect();
    assert!(offline.iter().all(|event| event["client"] == "late"), "{offline:?}");
}

#[test]
fn of_several_who_show_the_same_at_once_one_is_asked_about() {
    let backend = Backend::start(|_| Answer::Silence);
    let gate = gate(&backend.url(), &["--identity-timeout", "1s", "--shards", "2"]);
    let mut callers: Vec<Caller> =
        (0..20).map(|_| say_hello(&gate, "anna", &good("anna"))).collect();
    assert!(callers.iter_mut().all(is_put_off));
    let count = requests(&backend);
    // On a busy machine the last may come when the first is told.
    assert!((1..10).contains(&count), "{count} requests");
}

#[test]
fn a_private_authority_vouches_for_the_hook_and_questions_are_signed() {
    let (ours, other) = (authority(), authority());
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("plain text").to_owned();
    std::fs::write(path("ours.pem"), &ours.pem).expect("there is room for a file");
    std::fs::write(path("other.pem"), &other.pem).expect("there is room for a file");
    std::fs::write(path("key"), format!("{KEY}\n")).expect("there is room for a file");
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let backend = Backend::start_at(address, Some(ours.acceptor.clone()), yes_to_the_good);
    let url = format!("https://localhost:{}/hook", backend.address.port());
    let (ca, key) = (path("ours.pem"), path("key"));
    let more = ["--identity-ca-file", &ca, "--identity-secret-file", &key];
    let gate_of_ours = gate(&url, &more);
    for client in ["anna", "bert"] {
        assert!(comes_in(&gate_of_ours, client, &good(client)));
        let delivery = backend.next();
        assert!(delivery.is_signed_by(KEY) && !delivery.is_signed_by("another-key-than-that"));
        assert_eq!(delivery.connection, 0, "one connection serves both");
    }
    let ca = path("other.pem");
    let mut gate_of_other = gate(&url, &["--identity-ca-file", &ca]);
    assert!(is_put_off(&mut say_hello(&gate_of_other, "anna", &good("anna"))));
    gate_of_other.wait_for_log("no TLS with it");
    assert!(backend.next_within(Duration::from_millis(500)).is_none(), "nothing is told");
    for gate in [gate_of_ours, gate_of_other] {
        let logged = everything_logged(gate);
        assert!(!logged.contains("good-token") && !logged.contains(KEY), "{logged}");
    }
}

/// A configuration with this hook.
fn config(backend: &Backend, more: &str) -> String {
    let url = format!("{}{more}", backend.url());
    format!("identity = \"hook\"\nidentity-url = \"{url}\"\nidentity-timeout = \"9s\"\n")
}

#[test]
fn a_reload_turns_to_the_hook_and_to_another_one_which_is_asked_anew() {
    let (backend, other) = (Backend::start(yes_to_the_good), Backend::start(yes_to_the_good));
    let file = Secret::new("identity = \"anybody\"\n");
    let path = file.path();
    let mut gate = Gate::start(&["--config", path.to_str().expect("a plain path")]);
    assert!(comes_in(&gate, "anna", ""));
    file.write(&config(&backend, ""));
    gate.signal("HUP");
    gate.wait_for_log("reloaded: identity-url is ");
    assert!(!comes_in(&gate, "anna", "") && comes_in(&gate, "anna", &good("anna")));
    assert_eq!(requests(&backend), 1);
    gate.signal("HUP");
    gate.wait_for_log("reloaded: nothing changed");
    assert!(comes_in(&gate, "anna", &good("anna")));
    assert_eq!(requests(&backend), 0, "it is the same, and remembers");
    file.write(&config(&backend, "?key=of-somebody-else"));
    gate.signal("HUP");
    let line = gate.wait_for_log("reloaded: identity-url (what it does not show)");
    assert!(!line.contains("somebody"), "{line}");
    assert!(comes_in(&gate, "anna", &good("anna")));
    assert_eq!(requests(&backend), 1, "what it said under another key counts no longer");
    backend.behave(|_| Answer::Silence);
    let mut waits = say_hello(&gate, "bert", &good("bert"));
    assert_eq!(backend.next().json()["client"], "bert");
    file.write(&config(&other, ""));
    gate.signal("HUP");
    assert!(matches!(waits.hear(), Heard::Welcome { .. }), "the other one is asked instead");
    file.write("identity = \"hook\"\nidentity-url = \"ftp://nowhere/\"\n");
    gate.signal("HUP");
    gate.wait_for_log("not reloaded, nothing changed: ");
    assert!(comes_in(&gate, "carl", &good("carl")));
    file.write("identity = \"anybody\"\n");
    gate.signal("HUP");
    gate.wait_for_log("reloaded: identity is ");
    assert!(comes_in(&gate, "dora", "whatever"));
    assert_eq!(requests(&other), 2);
}

#[test]
fn nobody_is_there_who_could_be_asked() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    let mut gate = gate(&format!("http://{address}/"), &[]);
    assert!(is_put_off(&mut say_hello(&gate, "anna", &good("anna"))));
    gate.wait_for_log("cannot connect");
    let backend = Backend::start_at(address, None, yes_to_the_good);
    assert!(comes_in(&gate, "anna", &good("anna")));
    assert!(is_good(&backend.next()));
    gate.wait_for_log("answers again");
}
