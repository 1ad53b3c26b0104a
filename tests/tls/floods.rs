//! Handshakes that cost us something and lead to nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::ServerName;

use crate::gate::{Caller, PATIENCE};
use crate::papers::Papers;
use crate::secured::Secured;
use crate::start;

/// The first flight of a client.
fn client_hello(papers: &Papers) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let config = papers.client(&[&TLS13, &TLS12], None);
    let mut client = ClientConnection::new(config, name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory");
    bytes
}

#[test]
fn a_flood_of_handshakes_makes_no_living_client_offline() {
    let papers = Papers::new();
    // Longer than what a busy machine may keep a test's own thread from beating.
    let rhythm = ["--interval", "500ms", "--timeout", "3s", "--handshake-timeout", "1s"];
    let gate = start(&papers, &rhythm);
    let mut living: Vec<Caller> =
        (0..20).map(|number| Caller::login(gate.address, &format!("plain-{number}"))).collect();
    let known = papers.client(&[&TLS13], None);
    let mut encrypted = Secured::login(gate.address, &known, "encrypted");
    let (is_over, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let (hello, address) = (client_hello(&papers), gate.address);
            let (is_over, begun) = (Arc::clone(&is_over), Arc::clone(&begun));
            thread::spawn(move || {
                let mut open = std::collections::VecDeque::new();
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(address) else { continue };
                    let _ = stream.write_all(&hello);
                    begun.fetch_add(1, Ordering::Relaxed);
                    // Some hold on until they are closed, most go at once.
                    open.push_back(stream);
                    if open.len() > 50 {
                        open.pop_front();
                    }
                }
            })
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        living.iter_mut().for_each(Caller::beat);
        let beat = heartwheel::wire::message::Message::Ping {
            reply: heartwheel::wire::message::Reply::NotWanted,
            payload: &[],
        };
        encrypted.say(&beat);
        thread::sleep(Duration::from_millis(100));
    }
    is_over.store(true, Ordering::Relaxed);
    floods.into_iter().for_each(|flood| flood.join().expect("it does not panic"));
    assert!(begun.load(Ordering::Relaxed) > 200, "it was no flood");
    while let Some(event) = gate.try_event(Duration::from_millis(50)) {
        assert_ne!(event["event"], "offline", "{event}");
    }
    // And newcomers are let in again.
    let _after = Secured::login(gate.address, &known, "after");
}

#[test]
fn a_handshake_that_does_not_end_is_ended_by_its_deadline() {
    let papers = Papers::new();
    let gate = start(&papers, &["--handshake-timeout", "600ms"]);
    let hello = client_hello(&papers);
    for (name, bytes) in [("half a ClientHello", &hello[..hello.len() / 2]), ("one", &hello[..])] {
        let mut stream = TcpStream::connect(gate.address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let began = Instant::now();
        // A byte now and then is no handshake either.
        let (start, rest) = bytes.split_at(bytes.len() - 20);
        stream.write_all(start).expect("it is open");
        for byte in rest {
            thread::sleep(Duration::from_millis(50));
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let mut heard = Vec::new();
        match stream.read_to_end(&mut heard) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}"),
        }
        let lasted = began.elapsed();
        assert!(lasted >= Duration::from_millis(590), "{name}: closed after {lasted:?}");
    }
    assert!(gate.try_event(Duration::from_millis(50)).is_some_and(|e| e["event"] == "started"));
    assert!(gate.try_event(Duration::from_millis(50)).is_none(), "nobody came in");
}
