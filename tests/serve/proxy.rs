//! Clients behind a load balancer: who they are is what it says, if it may.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};

use crate::gate::{Caller, Gate, Heard, PATIENCE, hello};
use crate::{QUICK, text};

/// What a load balancer says first, version 2, over IPv4.
fn version_2(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".to_vec();
    header.extend(source);
    header.extend([127, 0, 0, 1]);
    header.extend(port.to_be_bytes());
    header.extend(7070_u16.to_be_bytes());
    header
}

fn behind(gate: &Gate, header: &[u8], client: &str) -> Caller {
    let mut caller = Caller::connect(gate.address);
    caller.send(&[header, &hello(client, "", 0)].concat());
    caller
}

#[test]
fn the_address_that_the_proxy_tells_is_the_clients_in_events() {
    let gate = Gate::start(&["--proxy-from", "127.0.0.0/8"]);
    let mut first = behind(&gate, b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 7070\r\n", "anna");
    assert!(matches!(first.hear(), Heard::Welcome { .. }));
    let online = gate.wait_for_event("online");
    assert_eq!(online["remote"], "192.0.2.7:4711");
    let mut second = behind(&gate, &version_2([192, 0, 2, 8], 4712), "bert");
    assert!(matches!(second.hear(), Heard::Welcome { .. }));
    assert_eq!(gate.wait_for_event("online")["remote"], "192.0.2.8:4712");
    second.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
    assert_eq!(second.hear(), Heard::Pong(b"12345678".to_vec()));
    first.say(&Message::Bye { code: 100 });
    assert_eq!(gate.wait_for_event("offline")["client"], "anna");
}

#[test]
fn one_that_comes_in_pieces_and_one_that_never_ends() {
    let gate = Gate::start(&["--proxy-from", "127.0.0.1", "--handshake-timeout", "500ms"]);
    let mut slow = Caller::connect(gate.address);
    for piece in [&version_2([192, 0, 2, 9], 1)[..], &hello("carl", "", 0)].concat().chunks(5) {
        slow.send(piece);
        thread::sleep(Duration::from_millis(2));
    }
    assert!(matches!(slow.hear(), Heard::Welcome { .. }));
    let mut never = Caller::connect(gate.address);
    never.send(b"PROXY TCP4 192.0.2.7 ");
    // Whoever has not said what it speaks is told nothing that it could not read.
    let heard = never.hear();
    assert!(matches!(heard, Heard::Error(404) | Heard::Closed), "{heard:?}");
}

#[test]
fn nobody_else_may_say_so_and_the_proxy_has_to() {
    let gate = Gate::start(&["--proxy-from", "10.0.0.0/8,fd00::/8"]);
    let mut liar = behind(&gate, b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 7070\r\n", "anna");
    assert_eq!(liar.hear(), Heard::Closed);
    let mut liar = behind(&gate, &version_2([192, 0, 2, 7], 1), "anna");
    assert_eq!(liar.hear(), Heard::Closed);
    let direct = Caller::login(gate.address, "dora");
    let online = gate.wait_for_event("online");
    assert_eq!(online["client"], "dora", "nobody else came in");
    assert_eq!(text(&online, "remote"), direct.stream.local_addr().expect("one").to_string());

    let gate = Gate::start(&["--proxy-from", "127.0.0.1"]);
    let mut silent = Caller::hello(gate.address, "emil");
    assert_eq!(silent.hear(), Heard::Closed);
}

#[test]
pub(crate) fn it_is_the_same_over_shards_and_a_silent_client_is_found() {
    let arguments = [&QUICK[..], &["--proxy-from", "127.0.0.1", "--shards", "2"]].concat();
    let gate = Gate::start(&arguments);
    let mut callers = Vec::new();
    for number in 0..40_u8 {
        let client = format!("client-{number}");
        let mut caller = behind(&gate, &version_2([192, 0, 2, number], 99), &client);
        assert!(matches!(caller.hear(), Heard::Welcome { .. }), "{client}");
        let online = gate.wait_for_event("online");
        assert_eq!(text(&online, "remote"), format!("192.0.2.{number}:99"), "{client}");
        callers.push(caller);
    }
    let offline = gate.wait_for_event("offline");
    assert_eq!(offline["reason"], "heartbeat_timeout");
}

/// A load balancer that is stopped when the test is over.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_in_front_tells_the_clients_own_address() {
    let gate = Gate::start(&["--proxy-from", "127.0.0.1"]);
    let folder = tempfile::tempdir().expect("there is room for a file");
    for (version, client) in [("send-proxy", "frida"), ("send-proxy-v2", "gustav")] {
        // A port that was free just now.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let front: SocketAddr = free.expect("a free port");
        let path = folder.path().join(version);
        let server = gate.address;
        let config = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen front\n bind {front}\n server gate {server} {version}\n"
        );
        fs::write(&path, config).expect("there is room");
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
        let _balancer = Balancer(haproxy.spawn().expect("haproxy is installed"));
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(front).is_err() {
            assert!(Instant::now() < deadline, "haproxy does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        let mut caller = Caller::connect(front);
        let own = caller.stream.local_addr().expect("an address").to_string();
        caller.say_hello(client, "", 0);
        assert!(matches!(caller.hear(), Heard::Welcome { .. }), "{version}");
        let online = gate.wait_for_event("online");
        assert_eq!((text(&online, "client"), text(&online, "remote")), (client.to_owned(), own));
    }
}
