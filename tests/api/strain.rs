//! Whoever is slow or hostile at the admin API costs himself only.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::gate::{Caller, Gate, Heard as Word, PATIENCE};
use crate::http::{TOKEN, connect, get, start, token_file};
use crate::namespace::Namespace;

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

/// Connections that ask with a token what they may ask, and stay for more. Whoever finds no place
/// is not among them.
fn known(admin: SocketAddr, count: usize) -> Vec<TcpStream> {
    let head =
        format!("GET /v1/stats HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let ask = |_| {
        let mut stream = connect(admin);
        let mut first = [0; 15];
        stream.write_all(head.as_bytes()).ok()?;
        stream.read_exact(&mut first).ok()?;
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        Some(stream)
    };
    (0..count).filter_map(ask).collect()
}

#[test]
fn one_address_elsewhere_leaves_half_of_the_places_to_others() {
    const PLACES: usize = 64;
    let (house, elsewhere) = (Namespace::new(), Namespace::new());
    house.join(("in", "10.77.0.1/24"), &elsewhere, ("out", "10.77.0.2/24"));
    let (_folder, file) = token_file();
    // Nobody else has a port there.
    let _gate =
        house.inside(|| Gate::start(&["--admin", "0.0.0.0:7071", "--admin-token-file", &file]));
    let local = SocketAddr::from(([127, 0, 0, 1], 7071));
    let remote = SocketAddr::from(([10, 77, 0, 1], 7071));
    let crowd = elsewhere.inside(|| known(remote, PLACES));
    assert_eq!(crowd.len(), PLACES / 2, "one address has no more");
    let own = house.inside(|| known(local, PLACES / 2));
    assert_eq!(own.len(), PLACES / 2, "and the others have the rest");
    drop(crowd);
    let more = house.inside(|| {
        // Whoever has gone has to be noticed first.
        let until = Instant::now() + PATIENCE;
        let mut more = Vec::new();
        while more.len() < PLACES / 2 && Instant::now() < until {
            more.extend(known(local, PLACES / 2 - more.len()));
        }
        more
    });
    assert_eq!(more.len(), PLACES / 2, "a proxy on this machine may have them all");
    drop((own, more));

    // Its strangers make room for whoever of it is known.
    let served = elsewhere.inside(|| {
        let begun = Instant::now();
        // Those before may not be gone yet.
        loop {
            let strangers: Vec<_> = (0..PLACES / 2).map(|_| connect(remote)).collect();
            let served = known(remote, 1).len();
            drop(strangers);
            if served > 0 || begun.elapsed() > PATIENCE {
                return served;
            }
        }
    });
    assert_eq!(served, 1);
    let metrics = house.inside(|| {
        let mut stream = connect(local);
        let head = format!("Host: {local}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close");
        let _ = stream.write_all(format!("GET /metrics HTTP/1.1\r\n{head}\r\n\r\n").as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    let refused = "heartwheel_api_connections_refused_total{why=\"share\"} 32";
    assert!(metrics.contains(refused), "{metrics}");
}
