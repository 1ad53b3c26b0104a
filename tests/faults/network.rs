//! The network between a client and the server is gone, and nothing tells either of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};

use crate::feed::Feed;
use crate::gate::{Caller, Gate, Heard};
use crate::namespace::Namespace;
use crate::{LATE_MAX, PATIENCE, alone, figure, seconds};

const TIMEOUT: Duration = Duration::from_millis(1_500);
const BEAT_EVERY: Duration = Duration::from_millis(300);
const FAR: usize = 20;
const NEAR: usize = 20;

/// A server, and clients behind two cables.
struct Net {
    server: Namespace,
    near: Namespace,
    far: Namespace,
}

impl Net {
    fn new() -> Self {
        let net = Self { server: Namespace::new(), near: Namespace::new(), far: Namespace::new() };
        // Addresses for tests of networks (RFC 2544); nobody else is in these namespaces anyway.
        net.server.join(("to-near", "198.18.1.1/24"), &net.near, ("cable", "198.18.1.2/24"));
        net.server.join(("to-far", "198.18.2.1/24"), &net.far, ("cable", "198.18.2.2/24"));
        net
    }

    fn gate(&self) -> Gate {
        self.server.inside(|| {
            Gate::start(&[
                "--listen",
                "0.0.0.0:0",
                "--identity",
                "anybody",
                "--interval",
                "500ms",
                "--timeout",
                "1500ms",
            ])
        })
    }
}

#[test]
fn a_client_whose_link_goes_down_is_found_and_comes_back() {
    let _alone = alone();
    let net = Net::new();
    let line =
        lose_and_find(&net, &|| net.far.run(&["ip", "link", "set", "cable", "down"]), &|| {
            net.far.run(&["ip", "link", "set", "cable", "up"])
        });
    figure("link down", line);
}

#[test]
fn a_client_whose_packets_are_dropped_is_found_and_comes_back() {
    let _alone = alone();
    let net = Net::new();
    let drop_all = "add table inet cut; \
        add chain inet cut in { type filter hook prerouting priority -300; }; \
        add rule inet cut in iifname to-far drop; \
        add chain inet cut out { type filter hook postrouting priority 300; }; \
        add rule inet cut out oifname to-far drop";
    let line = lose_and_find(&net, &|| net.server.run(&["nft", drop_all]), &|| {
        net.server.run(&["nft", "delete table inet cut"])
    });
    figure("packets dropped", line);
}

fn lose_and_find(net: &Net, cut: &dyn Fn(), mend: &dyn Fn()) -> String {
    let mut gate = net.gate();
    let port = gate.address.port();
    let (to_near, to_far) =
        (SocketAddr::from(([198, 18, 1, 1], port)), SocketAddr::from(([198, 18, 2, 1], port)));
    let mut near = net.near.inside(|| log_in(to_near, "near", NEAR));
    let mut far = net.far.inside(|| log_in(to_far, "far", FAR));
    let mut feed = Feed::default();
    feed.until(&gate, "everybody is online", |feed| feed.online() == NEAR + FAR);
    let mut worst_answer = Duration::ZERO;
    // They beat as before, whether anything gets through or not.
    let mut beat_all = |far: &mut [Caller]| {
        far.iter_mut().for_each(Caller::beat);
        worst_answer = worst_answer.max(near.iter_mut().map(ask).max().expect("some"));
    };
    for _ in 0..10 {
        beat_all(&mut far);
        feed.during(&gate, BEAT_EVERY);
    }
    assert_eq!(feed.endings.len(), 0, "{:?}", feed.reasons());

    cut();
    let lost = Instant::now();
    while feed.endings.len() < FAR {
        assert!(lost.elapsed() < PATIENCE, "not found: {:?}", feed.reasons());
        beat_all(&mut far);
        feed.during(&gate, BEAT_EVERY);
    }
    let found_after = lost.elapsed();
    let mut longest = Duration::ZERO;
    for ending in &feed.endings {
        assert!(ending.client.starts_with("far-"), "a neighbour pays: {ending:?}");
        assert_eq!(ending.reason, "heartbeat_timeout", "{ending:?}");
        assert!(ending.silence >= TIMEOUT, "never early: {ending:?}");
        assert!(ending.silence <= TIMEOUT + LATE_MAX, "never late: {ending:?}");
        longest = longest.max(ending.silence);
    }

    mend();
    let mended = Instant::now();
    // Its own old connection tells it that it was given up, as soon as a packet gets through.
    for caller in &mut far {
        let mut heard = caller.hear();
        if heard == Heard::Error(202) {
            // The server's last word, which waited on its side of the cut.
            heard = caller.hear();
        }
        assert!(matches!(heard, Heard::Reset | Heard::Closed), "{heard:?}");
    }
    let told_after = mended.elapsed();
    let epochs: Vec<u64> = (0..FAR).map(|number| feed.epoch(&format!("far-{number}"))).collect();
    let back = net.far.inside(|| log_in(to_far, "far", FAR));
    near.iter_mut().for_each(Caller::beat);
    feed.until(&gate, "everybody is online again", |feed| feed.online() == NEAR + FAR);
    for (number, epoch) in epochs.into_iter().enumerate() {
        assert!(feed.epoch(&format!("far-{number}")) > epoch, "a larger epoch");
    }
    drop((near, back));
    feed.until_stopped(&mut gate);
    format!(
        "{FAR} clients cut off (timeout 1.5 s): all found {} after the cut, longest silence {}, \
         told so {} after the mending, back with larger epochs; {NEAR} others: 0 lost, longest \
         round trip {} us",
        seconds(found_after),
        seconds(longest),
        seconds(told_after),
        worst_answer.as_micros()
    )
}

fn log_in(server: SocketAddr, name: &str, count: usize) -> Vec<Caller> {
    (0..count).map(|number| Caller::login(server, &format!("{name}-{number}"))).collect()
}

/// How long the answer to a beat takes.
fn ask(caller: &mut Caller) -> Duration {
    let asked = Instant::now();
    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"here" });
    assert_eq!(caller.hear(), Heard::Pong(b"here".to_vec()));
    asked.elapsed()
}
