//! Whoever is slow or hostile at the admin API costs himself only.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::gate::{Caller, Heard as Word, PATIENCE};
use crate::http::{connect, get, start};

/// Hundreds of connections that say half a word: the gateway goes on, nobody is lost, and the API
/// is there again when they were given up.
#[test]
fn slow_connections_at_the_api_do_not_make_beats_late() {
    let (gate, admin) =
        start(&["--interval", "200ms", "--timeout", "1s", "--min-interval", "100ms"]);
    let mut callers: Vec<_> =
        (0..50).map(|n| Caller::login(gate.address, &format!("beats-{n}"))).collect();
    let mut slow = Vec::new();
    let until = Instant::now() + Duration::from_secs(4);
    let mut longest = Duration::ZERO;
    while Instant::now() < until {
        for _ in 0..20 {
            if slow.len() < 400 {
                let mut stream = connect(admin);
                let _ = stream.write_all(b"GET /v1/clients HTTP/1.1\r\nHost: lo");
                slow.push(stream);
            }
        }
        for caller in &mut callers {
            caller.beat();
        }
        let asked = Instant::now();
        callers[0].say(&heartwheel::wire::message::Message::Ping {
            reply: heartwheel::wire::message::Reply::Wanted,
            payload: b"x",
        });
        assert_eq!(callers[0].hear(), Word::Pong(b"x".to_vec()));
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(longest < Duration::from_millis(800), "a beat was answered after {longest:?}");
    let offline = std::iter::from_fn(|| gate.try_event(Duration::from_millis(10)))
        .find(|event| event["event"] == "offline");
    assert_eq!(offline, None, "nobody is lost");
    let answered = (0..100).find(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let mut stream = connect(admin);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200")
    });
    assert!(answered.is_some(), "half a word is not waited for for ever");
}

/// A head, a body and a pause that never end are given up after a while.
#[test]
fn whoever_does_not_go_on_is_given_up() {
    let (_gate, admin) = start(&[]);
    for begun in [
        "",
        "GET /v1/sta",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
    ] {
        let mut stream = connect(admin);
        stream.write_all(begun.as_bytes()).expect("it listens");
        let began = Instant::now();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{begun:?}: {error}"));
        assert!(began.elapsed() < PATIENCE, "{begun:?}");
        let is_body = begun.starts_with("POST");
        assert_eq!(answer.starts_with("HTTP/1.1 408"), is_body, "{begun:?}: {answer}");
    }
    assert_eq!(get(admin, "/readyz").status, 200, "half a body drains nobody");
}
