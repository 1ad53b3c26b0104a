//! Limits as whoever meets them sees them, from many addresses of the loopback.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects, and whatever else is heard fails it"
)]

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::Deframer;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::gate::{Caller, Gate, Heard, PATIENCE};
use crate::policies::{login, reset};
use crate::text;

/// A caller from that address.
fn caller_from(address: [u8; 4], gate: SocketAddr) -> Caller {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(IpAddr::from(address), 0)).expect("an address of loopback");
    connect(&socket, &gate).expect("connects");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("an option");
    Caller { stream, deframer: Deframer::client_side(), received: Vec::new() }
}

fn is_answered(caller: &mut Caller) -> bool {
    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"there?" });
    caller.hear() == Heard::Pong(b"there?".to_vec())
}

/// Ends a flood, whatever becomes of the test.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects without an end, and keeps what it gets; returns how many it tried and how many of these
/// are connections in the end.
fn flood(gate: SocketAddr, is_over: &AtomicBool) -> (usize, usize) {
    let mut callers = Vec::new();
    let mut tried = 0;
    while !is_over.load(Ordering::Relaxed) {
        tried += 1;
        let mut caller = caller_from([127, 9, 9, 9], gate);
        caller.say_hello(&format!("flooder-{tried}"), "", 0);
        match caller.hear() {
            Heard::Welcome { .. } => callers.push(caller),
            Heard::Goaway { code, .. } => assert_eq!(code, 307),
            Heard::Closed | Heard::Reset => {}
            heard => panic!("{heard:?}"),
        }
    }
    let is_open = |caller: &mut Caller| is_answered(caller);
    (tried, callers.iter_mut().filter_map(|caller| is_open(caller).then_some(())).count())
}

#[test]
pub(crate) fn a_flood_of_one_address_leaves_the_others_alone() {
    for (shards, most) in [("1", 20), ("2", 2 * (20 + 2))] {
        let limit = ["--address-connections", "20", "--prefix-connections", "500"];
        let gate = Gate::start(&[&limit[..], &["--shards", shards]].concat());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flood = scope.spawn(|| flood(gate.address, &is_over));
            let ends = Ends(&is_over);
            let mut stay = Vec::new();
            for round in 0..100 {
                let mut caller = caller_from([127, 1, round, 1], gate.address);
                caller.say_hello(&format!("other-{round}"), "", 0);
                let heard = caller.hear();
                assert!(matches!(heard, Heard::Welcome { .. }), "{heard:?}");
                assert!(is_answered(&mut caller));
                // Some stay and some go.
                if round.is_multiple_of(3) {
                    stay.push(caller);
                }
                thread::sleep(Duration::from_millis(10));
            }
            assert!(stay.iter_mut().all(is_answered), "nobody suffers from the flood");
            drop(ends);
            let (tried, got_in) = flood.join().expect("no panic");
            assert!(tried > 50, "{tried} are no flood");
            assert!((20..=most).contains(&got_in), "{shards} shards: {got_in} of {tried}");
        });
    }
}

/// A newcomer that does as it is told until it is in; how often it had to come again.
fn insist(gate: SocketAddr, client: &str) -> (u32, Caller) {
    let begin = Instant::now();
    let mut random = fastrand::Rng::new();
    for again in 0.. {
        assert!(begin.elapsed() < PATIENCE, "{client} is not let in");
        let mut caller = Caller::hello(gate, client);
        match caller.hear() {
            Heard::Welcome { .. } => return (again, caller),
            Heard::Goaway { code: 302, reconnect_min_ms: min, reconnect_max_ms: max } => {
                drop(caller);
                let wait = random.u64(u64::from(min)..=u64::from(max));
                thread::sleep(Duration::from_millis(wait));
            }
            heard => panic!("{client}: {heard:?}"),
        }
    }
    unreachable!("it is let in or it panics")
}

#[test]
pub(crate) fn in_a_storm_whoever_resumes_goes_first() {
    const CROWD: usize = 30;
    let flags = ["--grace", "60s", "--newcomer-rate", "20/s:30"];
    let gate = Gate::start(&[&flags[..], &["--reconnect-window", "100ms..600ms"]].concat());
    let names: Vec<_> = (0..CROWD).map(|number| format!("old-{number}")).collect();
    let before = names.iter().map(|name| login(gate.address, name, &[]));
    let before: Vec<_> = before.collect();
    let tokens: Vec<_> = before.iter().map(|(.., token)| token.clone()).collect();
    before.into_iter().for_each(|(caller, ..)| reset(caller));
    thread::scope(|scope| {
        // As many newcomers come at the same time as those who were here.
        let newcomers: Vec<_> = (0..CROWD)
            .map(|number| {
                let address = gate.address;
                scope.spawn(move || insist(address, &format!("new-{number}")))
            })
            .collect();
        let mut resumed = Vec::new();
        for (name, token) in names.iter().zip(&tokens) {
            let (caller, is_resumed, ..) = login(gate.address, name, token);
            assert!(is_resumed, "{name}");
            resumed.push(caller);
        }
        let newcomers: Vec<_> =
            newcomers.into_iter().map(|newcomer| newcomer.join().expect("no panic")).collect();
        let again: u32 = newcomers.iter().map(|(again, _)| again).sum();
        assert!(again > 0, "nobody had to wait: this was no storm");
        for mut caller in newcomers.into_iter().map(|(_, caller)| caller).chain(resumed) {
            assert!(is_answered(&mut caller), "all are in");
        }
    });
}

#[test]
pub(crate) fn whoever_says_too_much_hears_why_and_others_do_not_notice() {
    let gate = Gate::start(&["--client-frames", "20/s:50", "--client-beats", "5/s:10"]);
    let mut calm = Caller::login(gate.address, "calm");
    let mut hasty = Caller::login(gate.address, "hasty");
    for _ in 0..40 {
        hasty.say(&Message::Ping { reply: Reply::Wanted, payload: &[] });
        thread::sleep(Duration::from_millis(1));
    }
    let mut answers = 0;
    while let Heard::Pong(_) = hasty.hear_within(Duration::from_millis(500)) {
        answers += 1;
    }
    assert!((10..=30).contains(&answers), "{answers} of 40 are answered");
    let until = Instant::now() + PATIENCE;
    let heard = loop {
        assert!(Instant::now() < until, "it goes on for ever");
        hasty.say(&Message::Ping { reply: Reply::Wanted, payload: &[] });
        match hasty.hear_within(Duration::from_millis(2)) {
            Heard::Nothing | Heard::Pong(_) => {}
            heard => break heard,
        }
    };
    assert_eq!(heard, Heard::Error(304));
    let offline = gate.wait_for_event("offline");
    assert_eq!(
        (text(&offline, "client"), text(&offline, "reason")),
        ("hasty".into(), "flood".into())
    );
    assert!(is_answered(&mut calm));
}

#[test]
fn limits_are_taken_up_by_a_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("heartwheel.toml");
    std::fs::write(&path, "").expect("a file");
    let mut gate = Gate::start(&["--config", path.to_str().expect("UTF-8")]);
    let before: Vec<_> = (0..3).map(|n| Caller::login(gate.address, &format!("b{n}"))).collect();
    std::fs::write(&path, "address-connections = 2\n").expect("a file");
    gate.signal("HUP");
    gate.wait_for_log("address-connections");
    let after: Vec<_> = (0..2).map(|n| Caller::login(gate.address, &format!("a{n}"))).collect();
    let mut caller = Caller::hello(gate.address, "one more");
    assert!(matches!(caller.hear(), Heard::Goaway { code: 307, .. }));
    drop((before, after));
}
