//! What clients send up, and who has to wait when it is not taken.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use heartwheel::base::limits;
use heartwheel::wire::message::{AckWanted, Message, Reply};
use heartwheel::wire::native;
use serde_json::Value;

use crate::gate::{Caller, Heard as Word, PATIENCE};
use crate::http::{Follower, Said, get, start};
use crate::pages::metrics;

const WAYS: [&[&str]; 3] = [&[], &["--shards", "2"], &["--driver", "epoll"]];

fn data(seq: u32, topic: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode(&Message::Data { seq, ack: AckWanted::Yes, topic, body }, &mut bytes);
    bytes
}

fn acked(seq: u32) -> Word {
    Word::Other(format!("{:?}", Message::Ack { seq }))
}

fn stats(admin: SocketAddr) -> Value {
    get(admin, "/v1/stats").json()
}

/// Waits until the counts are as wished for.
fn wait_for(admin: SocketAddr, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let stats = stats(admin);
        if is_so(&stats) {
            return stats;
        }
        assert!(Instant::now() < until, "{what}: {stats}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn messages_go_to_whoever_wants_their_topic_and_are_acknowledged_then() {
    for way in WAYS {
        let (gate, admin) = start(way);
        let mut callers: Vec<_> =
            (0..8).map(|n| Caller::login(gate.address, &format!("c-{n}"))).collect();
        callers[0].send(&data(1, "a", b"nobody is there"));
        wait_for(admin, "unclaimed", |stats| stats["data_unclaimed"] == 1);
        let mut of_a = Follower::start(admin, "/v1/messages?topic=a", "");
        let mut of_all = Follower::start(admin, "/v1/messages", "");
        for (n, caller) in callers.iter_mut().enumerate() {
            let body = format!("text of {n}");
            caller.send(&[data(2, "a", body.as_bytes()), data(3, "b", b"\xff")].concat());
        }
        let (mut a, mut all) = (of_a.events(8), of_all.events(16));
        for caller in &mut callers {
            // One for both, or one for each.
            let word = caller.hear();
            assert!(word == acked(3) || (word == acked(2) && caller.hear() == acked(3)), "{way:?}");
        }
        let by_client = |event: &Value| (event["client"].to_string(), event["seq"].as_u64());
        for events in [&mut a, &mut all] {
            let useqs: Vec<_> = events.iter().map(|event| event["useq"].as_u64()).collect();
            assert!(useqs.is_sorted(), "{way:?}: {useqs:?}");
            events.sort_by_key(by_client);
        }
        for (n, event) in a.iter().enumerate() {
            assert_eq!(event["topic"], "a");
            assert_eq!(event["text"], format!("text of {n}"));
            assert_eq!(event["base64"], Value::Null);
            assert_eq!(*event, all[2 * n]);
            assert_eq!(
                (&all[2 * n + 1]["topic"], &all[2 * n + 1]["base64"]),
                (&"b".into(), &"/w==".into())
            );
            assert!(event["at_unix_ms"].as_u64() > Some(1_600_000_000_000));
            assert!(event["epoch"].is_u64() && event["node"].is_string());
        }
        let counts = wait_for(admin, "taken", |stats| stats["data_taken"] == 16);
        assert_eq!((&counts["data_received"], &counts["up_bytes"]), (&17.into(), &0.into()));
        let until = Instant::now() + PATIENCE;
        while !metrics(admin).contains("heartwheel_data_taken_total 16\n") {
            assert!(Instant::now() < until, "{}", metrics(admin));
            std::thread::sleep(Duration::from_millis(50));
        }
        // Whoever comes back has missed nothing.
        let id = format!("{}:{}", a[0]["boot"], 14);
        let mut back = Follower::start(admin, "/v1/messages", &id);
        let useqs: Vec<_> = back.events(2).iter().map(|event| event["useq"].clone()).collect();
        assert_eq!(useqs, [15, 16]);
        for (wrong, status) in [("x", 400), ("1:1", 410), (&*format!("{}:99", a[0]["boot"]), 410)] {
            let refused = Follower::try_start(admin, "/v1/messages", wrong);
            assert_eq!(refused.err().map(|heard| heard.status), Some(status), "{wrong}");
        }
    }
}

/// Sends as much as the other side takes, and hears what it says.
struct Chatty {
    caller: Caller,
    unsent: Vec<u8>,
    sent: usize,
}

impl Chatty {
    fn start(gate: SocketAddr, messages: u32) -> Self {
        // Made first: a slow machine takes longer than a client may be silent.
        let unsent = (1..=messages).flat_map(|seq| data(seq, "t", &[b'x'; BODY_BYTES])).collect();
        let caller = Caller::login(gate, "chatty");
        caller.stream.set_nonblocking(true).expect("an option");
        Self { caller, unsent, sent: 0 }
    }

    fn push(&mut self) {
        while self.sent < self.unsent.len() {
            match self.caller.stream.write(&self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn has_sent_all(&self) -> bool {
        self.sent == self.unsent.len()
    }
}

const BODY_BYTES: usize = 10_000;
const BUDGET_BYTES: u64 = 400_000;
/// More than fits into the buffers of sockets and the budget together.
const MESSAGES: u32 = 2_000;

fn pong(caller: &mut Caller) {
    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"x" });
    loop {
        let word = caller.hear();
        if matches!(word, Word::Pong(_)) {
            return;
        }
        assert!(matches!(word, Word::Other(_)), "{word:?}");
    }
}

fn start_small(way: &[&str]) -> (crate::gate::Gate, SocketAddr) {
    let budget = BUDGET_BYTES.to_string();
    let rhythm = ["--interval", "200ms", "--timeout", "1s", "--min-interval", "100ms"];
    start(&[way, &rhythm, &["--up-bytes", &budget]].concat())
}

#[test]
fn the_chattiest_waits_while_a_reader_is_slow_and_others_do_not() {
    for way in WAYS {
        let (gate, admin) = start_small(way);
        let mut slow = Follower::start_keeping_little(admin, "/v1/messages?topic=t");
        let mut quick = Follower::start(admin, "/v1/messages?topic=calm", "");
        let mut chatty = Chatty::start(gate.address, MESSAGES);
        let mut calm = Caller::login(gate.address, "calm");
        let until = Instant::now() + PATIENCE;
        while stats(admin)["up_paused"] != 1 {
            chatty.push();
            pong(&mut calm);
            assert!(Instant::now() < until, "{way:?}: it is never stopped");
        }
        let shards = if way.contains(&"--shards") { 2 } else { 1 };
        let most = 2 * BUDGET_BYTES.max(shards * limits::UP_BYTES_MIN as u64)
            + shards * limits::UP_OVERSHOOT_BYTES as u64;
        // Longer than its timeout: its beats wait behind what it sent, and count.
        let until = Instant::now() + Duration::from_secs(3);
        let (mut seq, mut stopped) = (0, 0);
        while Instant::now() < until {
            chatty.push();
            seq += 1;
            calm.send(&data(seq, "calm", b"and this goes on"));
            assert_eq!(quick.events(1)[0]["seq"], seq, "{way:?}");
            pong(&mut calm);
            let stats = stats(admin);
            let held = stats["up_bytes"].as_u64().zip(stats["up_unread_bytes"].as_u64());
            assert!(held.is_some_and(|(up, unread)| up + unread <= most), "{stats}");
            assert_eq!(stats["online"], 2, "{way:?}: {stats}");
            stopped += u32::from(stats["up_paused"] == 1);
            std::thread::sleep(Duration::from_millis(50));
        }
        // The kernel's buffers on the way to the slow one may take a little more at times.
        assert!(stopped > seq / 2, "{way:?}: stopped at {stopped} of {seq} looks");
        assert!(!chatty.has_sent_all(), "{way:?}: the kernel holds the rest");
        let mut expected = 1;
        while expected <= MESSAGES {
            chatty.push();
            calm.beat();
            match slow.next_within(PATIENCE) {
                Said::Event(event) => assert_eq!(event["seq"], expected, "{way:?}: in order"),
                other @ (Said::Reset(_) | Said::Nothing | Said::End) => panic!("{other:?}"),
            }
            expected += 1;
        }
        chatty.caller.stream.set_nonblocking(false).expect("an option");
        while chatty.caller.hear() != acked(MESSAGES) {}
        let stats = wait_for(admin, "all is taken", |stats| stats["up_bytes"] == 0);
        assert_eq!((&stats["up_paused"], &stats["up_unread_bytes"]), (&0.into(), &0.into()));
        assert_eq!(stats["ended"]["heartbeat_timeout"], Value::Null, "{way:?}");
    }
}

#[test]
fn the_python_client_says_something_until_somebody_has_taken_it() {
    let (gate, admin) = start(&[]);
    let mut follower = Follower::start(admin, "/v1/messages?topic=door", "");
    let output = std::process::Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/client.py"))
        .args([&gate.address.ip().to_string(), &gate.address.port().to_string(), "py-1"])
        .args(["--interval-ms", "1000", "--beats", "2", "--say", "open", "--topic", "door"])
        .output()
        .expect("python3 is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("taken up to seq=1"), "{said}");
    let event = &follower.events(1)[0];
    assert_eq!((&event["client"], &event["text"]), (&"py-1".into(), &"open".into()));
}

#[test]
fn whoever_takes_nothing_is_given_up_and_nobody_waits_for_it_any_longer() {
    let (gate, admin) = start_small(&[]);
    let _slow = Follower::start_keeping_little(admin, "/v1/messages");
    let mut chatty = Chatty::start(gate.address, MESSAGES);
    let until = Instant::now() + PATIENCE;
    while !chatty.has_sent_all() {
        chatty.push();
        std::thread::sleep(Duration::from_millis(10));
        assert!(Instant::now() < until, "it waits for ever: {}", stats(admin));
    }
    let stats = wait_for(admin, "all is over", |stats| {
        stats["data_received"] == MESSAGES && stats["up_bytes"] == 0
    });
    assert!(stats["up_pauses"].as_u64() > Some(0) && stats["data_unclaimed"].as_u64() > Some(0));
}
