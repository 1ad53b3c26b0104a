//! Clients that break the rules, or keep them in bad faith, and what that costs the others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;
use heartwheel::wire::websocket::{Head, Opcode, apply_mask, write_frame, write_head};

use crate::gate::{Caller, Gate, Heard, PATIENCE, hello};
use crate::http::{get, start};

const MASK: [u8; 4] = [1, 2, 3, 4];
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// Everything up to the end.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}: {bytes:?}"),
        Ok(_) | Err(_) => bytes,
    }
}

fn open(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(REQUEST.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// One that was welcomed.
fn login(address: SocketAddr, client: &str) -> TcpStream {
    let mut stream = open(address);
    let mut frame = Vec::new();
    write_frame(Opcode::Binary, Some(MASK), &hello(client, "", 0), &mut frame);
    stream.write_all(&frame).expect("sent");
    let mut head = [0; 3];
    stream.read_exact(&mut head).expect("WELCOME");
    assert_eq!((head[0], head[2]), (0x82, native::kind::WELCOME));
    let mut rest = vec![0; usize::from(head[1]) - 1];
    stream.read_exact(&mut rest).expect("the rest of it");
    stream
}

#[test]
fn whoever_asks_slowly_is_sent_away_at_the_deadline_of_the_handshake() {
    let gate = Gate::start(&["--websocket", "on", "--handshake-timeout", "600ms"]);
    let mut stream = connect(gate.address);
    let began = Instant::now();
    // A header every now and then, for ever.
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n").expect("sent");
    let mut feeder = stream.try_clone().expect("a descriptor");
    let slow = std::thread::spawn(move || {
        while feeder.write_all(b"X-A: b\r\n").is_ok() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut heard = Vec::new();
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => heard.extend_from_slice(&buffer[..count]),
            // A read with a time limit is not taken up again by the kernel.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard:?}");
    assert!(began.elapsed() < PATIENCE, "not at the end of our patience");
    slow.join().expect("it ends when its socket does");
    // The same for who is open and never says HELLO.
    let mut stream = open(gate.address);
    let heard = read_to_end(&mut stream);
    assert_eq!(heard[..2], [0x82, 4 + 3 + 17], "ERROR in a message");
    assert_eq!(heard[26..30], *b"\x88\x13\x11\x34", "and in the close frame: 4404");
}

#[test]
fn requests_that_are_refused_are_answered_and_closed() {
    let (gate, admin) = start(&["--websocket", "on"]);
    let long = format!("GET / HTTP/1.1\r\nCookie: {}", "c".repeat(8_192));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: here\r\n\r\n", "426"),
        ("GARBAGE", "400"),
        (&*long, "431"),
        (&*REQUEST.replace("Host: here\r\n", "Host: here\r\nOrigin: https://evil\r\n"), "403"),
        (&*REQUEST.replace("Key: dGhl", "Key: dGh"), "400"),
    ] {
        let mut stream = connect(gate.address);
        stream.write_all(request.as_bytes()).expect("sent");
        let answer = String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.20}: {answer}");
    }
    let opened = |count: u32| format!("heartwheel_websockets_opened_total {count}\n");
    wait_for_metric(admin, "heartwheel_connections_ended_total{reason=\"bad_websocket\"} 5\n");
    wait_for_metric(admin, &opened(0));
    let _one = open(gate.address);
    wait_for_metric(admin, &opened(1));
    // What is no request of HTTP is heard as before.
    let mut caller = Caller::login(gate.address, "anna");
    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"1" });
    assert_eq!(caller.hear(), Heard::Pong(b"1".to_vec()));
}

/// Waits until the metrics have this line.
fn wait_for_metric(admin: SocketAddr, line: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let page = String::from_utf8(get(admin, "/metrics").body).expect("text");
        if page.contains(line) {
            return;
        }
        assert!(Instant::now() < until, "{line}: {page}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn frames_against_the_rules_are_answered_with_their_code() {
    let gate = Gate::start(&["--websocket", "on"]);
    for (name, bytes, code) in [
        ("not masked", vec![0x82, 4, 3, 0, 0, 0], 1_002_u16),
        ("text", vec![0x81, 0x80, 0, 0, 0, 0], 1_003),
        ("RSV", vec![0xC2, 0x80, 0, 0, 0, 0], 1_002),
        ("a long ping", vec![0x89, 0xFE, 0, 126], 1_002),
    ] {
        let mut stream = login(gate.address, "anna");
        stream.write_all(&bytes).expect("sent");
        let heard = read_to_end(&mut stream);
        assert_eq!(heard.first(), Some(&0x88), "{name}: {heard:?}");
        assert_eq!(heard[2..4], code.to_be_bytes(), "{name}");
        let offline = gate.wait_for_event("offline");
        assert_eq!(offline["reason"], "bad_websocket", "{name}");
    }
}

#[test]
fn a_message_without_end_costs_no_memory_and_no_time_of_others() {
    let gate = Gate::start(&["--websocket", "on"]);
    let mut other = Caller::login(gate.address, "other");
    let mut stream = login(gate.address, "endless");
    // Of 2^62 bytes; PINGs that want no answer.
    let head = Head { opcode: Opcode::Binary, is_final: true, mask: Some(MASK), length: 1 << 62 };
    let mut bytes = Vec::new();
    write_head(&head, &mut bytes);
    stream.write_all(&bytes).expect("sent");
    let mut pings = [native::kind::PING, native::flag::NO_REPLY, 0, 0].repeat(16_384);
    apply_mask(MASK, 0, &mut pings);
    let before = memory_kib(gate.pid());
    for _ in 0..64 {
        stream.write_all(&pings).expect("taken");
    }
    other.say(&Message::Ping { reply: Reply::Wanted, payload: b"1" });
    assert_eq!(other.hear(), Heard::Pong(b"1".to_vec()));
    let grown = memory_kib(gate.pid()).saturating_sub(before);
    assert!(grown < 2_048, "{grown} KiB for 4 MiB of one message");
}

/// Memory that a process has to itself.
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a line");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn pings_whose_pongs_nobody_reads_cost_only_so_much() {
    let gate = Gate::start(&["--websocket", "on"]);
    let mut other = Caller::login(gate.address, "other");
    let mut stream = login(gate.address, "flood");
    let mut ping = Vec::new();
    write_frame(Opcode::Ping, Some(MASK), &[7; 125], &mut ping);
    let pings = ping.repeat(512);
    let before = memory_kib(gate.pid());
    let began = Instant::now();
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    // Until it is cut off: the kernel's buffers and ours are full, and it does not read.
    while stream.write_all(&pings).is_ok() {
        assert!(began.elapsed() < PATIENCE, "it may do so for ever");
    }
    let offline = loop {
        let offline = gate.wait_for_event("offline");
        if offline["client"] == "flood" {
            break offline;
        }
    };
    assert_eq!(offline["reason"], "slow_consumer");
    let grown = memory_kib(gate.pid()).saturating_sub(before);
    assert!(grown < 4_096, "{grown} KiB");
    other.say(&Message::Ping { reply: Reply::Wanted, payload: b"1" });
    assert_eq!(other.hear(), Heard::Pong(b"1".to_vec()));
}
