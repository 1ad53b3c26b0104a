//! The built binary and clients that speak TLS: ours, OpenSSL's, Python's, and those who only
//! pretend to.

mod floods;
#[path = "../serve/gate.rs"]
#[allow(dead_code, reason = "shared with the tests of serve, which use more of it")]
mod gate;
mod names;
#[allow(dead_code, reason = "shared with the tests of memory and layers, which use more of it")]
mod papers;
mod reload;
mod revoked;
mod secured;
mod tools;
mod websocket;

use heartwheel::wire::message::{Message, Reply};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};

use crate::gate::{Caller, Gate, Heard};
use crate::papers::Papers;
use crate::secured::Secured;

/// A rhythm that lets a verdict come within a test's time.
pub(crate) const QUICK: [&str; 4] = ["--interval", "200ms", "--timeout", "600ms"];

/// Serves TLS with these papers.
pub(crate) fn start(papers: &Papers, arguments: &[&str]) -> Gate {
    let flags = papers.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Gate::start(&[&flags, arguments].concat())
}

#[test]
fn both_versions_and_the_plain_protocol_share_a_port() {
    let papers = Papers::new();
    let gate = start(&papers, &[]);
    for (version, client, expected) in
        [(&TLS13, "anna", ProtocolVersion::TLSv1_3), (&TLS12, "bert", ProtocolVersion::TLSv1_2)]
    {
        let mut secured = Secured::login(gate.address, &papers.client(&[version], None), client);
        let online = gate.wait_for_event("online");
        assert_eq!(online["client"], client);
        let own = secured.stream.sock.local_addr().expect("an address").to_string();
        assert_eq!(online["remote"], own);
        secured.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
        assert_eq!(secured.hear(), Heard::Pong(b"12345678".to_vec()));
        assert_eq!(secured.stream.conn.protocol_version(), Some(expected));
        secured.say(&Message::Bye { code: 100 });
        let offline = gate.wait_for_event("offline");
        assert_eq!((&offline["client"], &offline["reason"]), (&client.into(), &"bye".into()));
        assert_eq!(secured.hear(), Heard::Closed, "with a close_notify");
    }
    let mut plain = Caller::login(gate.address, "carl");
    plain.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
    assert_eq!(plain.hear(), Heard::Pong(b"12345678".to_vec()));
}

#[test]
fn where_only_tls_is_spoken_nobody_else_is_let_in() {
    let papers = Papers::new();
    let gate = start(&papers, &["--tls-only", "on"]);
    assert_eq!(Caller::hello(gate.address, "anna").hear(), Heard::Closed);
    Secured::login(gate.address, &papers.client(&[&TLS13], None), "bert");
    assert_eq!(gate.wait_for_event("online")["client"], "bert", "nobody came before");
}

#[test]
fn whoever_comes_back_is_known_by_its_ticket_in_whichever_shard() {
    let papers = Papers::new();
    let gate = start(&papers, &["--shards", "2"]);
    for version in [&TLS13, &TLS12] {
        let config = papers.client(&[version], None);
        for number in 0..12 {
            let mut secured = Secured::login(gate.address, &config, &format!("client-{number}"));
            secured.say(&Message::Ping { reply: Reply::Wanted, payload: b"1" });
            assert_eq!(secured.hear(), Heard::Pong(b"1".to_vec()));
            let is_known = secured.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(is_known, number > 0, "{version:?}, {number} times before");
        }
    }
}

#[test]
fn silent_clients_are_found_and_beating_ones_are_not_over_shards() {
    let papers = Papers::new();
    let gate = start(&papers, &[&QUICK[..], &["--shards", "2"]].concat());
    let config = papers.client(&[&TLS13], None);
    let mut clients: Vec<Secured> = (0..24)
        .map(|number| Secured::login(gate.address, &config, &format!("client-{number}")))
        .collect();
    // Half of them live on shards that they did not come in by, and one falls silent.
    let _silent = clients.pop();
    let mut offline = None;
    while offline.is_none() {
        for client in &mut clients {
            client.say(&Message::Ping { reply: Reply::NotWanted, payload: &[] });
        }
        while let Some(event) = gate.try_event(std::time::Duration::from_millis(20)) {
            if event["event"] == "offline" {
                offline = Some(event);
            }
        }
    }
    let offline = offline.expect("found above");
    assert_eq!(offline["client"], "client-23");
    assert_eq!(offline["reason"], "heartbeat_timeout");
}
