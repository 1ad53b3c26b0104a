//! What a turn costs in system calls, and that nothing waits for what saves them.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heartwheel::base::config::{GatewayConfig, Rhythm};
use heartwheel::base::io::{Chunk, Completion, Found, Op};
use heartwheel::base::limits;
use heartwheel::base::time::Span;
use heartwheel::gateway::{Command, Drain, Stats};
use heartwheel::os::clock::Clock;
use heartwheel::os::driver::{Heard, Sink};
use heartwheel::os::ring::RingSizes;
use heartwheel::os::socket::{ListenOptions, listen};
use heartwheel::server::mailbox::Asker;
use heartwheel::server::{Server, Turn};
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;

use crate::rig::{PATIENCE, Rig, Seen, Way, raise_file_limit};
use crate::{each_ring, each_way, on_its_thread, sizes};

#[test]
fn an_enter_says_whether_all_was_heard() {
    each_way(|way| {
        let several = RingSizes { files_per_ring: 100, ..sizes() };
        for sizes in [sizes(), several] {
            let mut rig = Rig::new(way, RingSizes { buffers: 1_024, ..sizes }, 600);
            let mut pairs = rig.crowd(300);
            for (peer, _) in &mut pairs {
                peer.write_all(b"I live!!").unwrap();
            }
            let mut enters = 0;
            loop {
                let heard = rig.driver.enter(Span::ZERO).unwrap();
                enters += 1;
                let seen = &mut rig.seen;
                rig.driver.reap(1_024, |completion| seen.push(Seen::of(completion)));
                rig.driver.check();
                if heard != Heard::Part {
                    break;
                }
            }
            assert_eq!(rig.seen.len(), 300, "after {enters} enters");
            let least = if way == Way::Epoll { 1 } else { 2 };
            assert!((least..20).contains(&enters), "{enters} enters");
        }
    });
}

#[test]
fn a_sleep_to_its_end_heard_all_until_then() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, _) = rig.pair();
        rig.turn(Duration::ZERO);
        let span = Span::from_millis(5);
        assert_eq!(rig.driver.enter(span).unwrap(), Heard::All { after: span });
        peer.write_all(b"early").unwrap();
        let heard = rig.driver.enter(PATIENCE.into()).unwrap();
        assert_eq!(heard, Heard::All { after: Span::ZERO }, "it did not sleep to the end");
    });
}

#[test]
fn a_send_that_is_done_ends_no_sleep() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        rig.ask(Op::Send { conn, chunk: Chunk::from(vec![7; 8]) });
        let (start, span) = (Instant::now(), Duration::from_millis(20));
        rig.driver.enter(span.into()).unwrap();
        assert!(start.elapsed() >= span, "{:?}", start.elapsed());
        peer.read_exact(&mut [0; 8]).unwrap();
        let seen = &mut rig.seen;
        rig.driver.reap(1_024, |completion| seen.push(Seen::of(completion)));
        assert_eq!(rig.seen, [Seen::Sent(conn, 8, Ok(8))], "it is told at the next occasion");
    });
}

/// Notes what is said before a completion comes.
#[derive(Default)]
struct Listener {
    expected: HashMap<u32, usize>,
    taken: Vec<Seen>,
}

impl Sink for Listener {
    fn expect(&mut self, slot: u32) {
        *self.expected.entry(slot).or_default() += 1;
    }

    fn take(&mut self, completion: Completion<'_>) {
        let seen = Seen::of(completion);
        let (Seen::Received(conn, _) | Seen::Sent(conn, ..)) = &seen else { panic!("{seen:?}") };
        let expected = self.expected.get_mut(&conn.slot).expect("it is expected first");
        *expected = expected.checked_sub(1).expect("once for each time that it comes");
        self.taken.push(seen);
    }
}

#[test]
fn who_is_handed_over_is_announced_before() {
    each_ring(|way| {
        let several = RingSizes { files_per_ring: 20, ..sizes() };
        for sizes in [sizes(), several] {
            let mut rig = Rig::new(way, sizes, 64);
            let mut pairs = rig.crowd(50);
            for (peer, conn) in &mut pairs {
                rig.ask(Op::Send { conn: *conn, chunk: Chunk::from(vec![7; 8]) });
                peer.write_all(b"I live!!").unwrap();
            }
            let mut listener = Listener::default();
            let patience = Instant::now() + PATIENCE;
            while listener.taken.len() < 2 * pairs.len() && Instant::now() < patience {
                rig.driver.enter(Span::from_millis(1)).unwrap();
                // Fewer than there are: what is announced comes in the same reap.
                rig.driver.reap_into(30, &mut listener);
                let open: usize = listener.expected.values().sum();
                assert_eq!(open, 0, "announced, and did not come");
            }
            assert_eq!(listener.taken.len(), 2 * pairs.len());
        }
    });
}

#[test]
fn who_comes_after_the_enter_is_reaped_only_where_the_driver_says_so() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (mut peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        peer.write_all(b"early").unwrap();
        rig.driver.enter(PATIENCE.into()).unwrap();
        peer.write_all(b"late").unwrap();
        let mut bytes = Vec::new();
        rig.driver.reap(1_024, |completion| match Seen::of(completion) {
            Seen::Received(of, piece) if of == conn => bytes.extend(piece),
            seen => panic!("{seen:?}"),
        });
        let reaps_latecomers = rig.driver.reaps_latecomers();
        assert_eq!(bytes, if reaps_latecomers { &b"earlylate"[..] } else { b"early" });
    });
}

#[test]
fn who_asks_for_more_than_sending_is_not_made_to_wait() {
    each_way(|way| {
        let mut rig = Rig::new(way, sizes(), 16);
        let (_peer, conn) = rig.pair();
        rig.turn(Duration::ZERO);
        rig.driver.gather(PATIENCE.into());
        let start = Instant::now();
        rig.ask(Op::Look { conn });
        let mut looked = None;
        while looked.is_none() {
            rig.driver.enter(PATIENCE.into()).unwrap();
            rig.driver.reap(1_024, |completion| looked = Some(Seen::of(completion)));
        }
        assert_eq!(looked, Some(Seen::Looked(conn, Found::Nothing)));
        assert!(start.elapsed() < PATIENCE / 2, "it waited for {:?}", start.elapsed());
    });
}

/// What a server did so far.
#[derive(Clone, Debug, Default)]
struct Account {
    turns: u64,
    enters: u64,
    stats: Stats,
}

/// A server on a thread of its own, which gives account after every turn.
struct Stage {
    address: SocketAddr,
    account: Arc<Mutex<Account>>,
    asker: Asker,
    thread: JoinHandle<()>,
}

impl Stage {
    fn new(way: Way, config: GatewayConfig, window: Span) -> Self {
        raise_file_limit();
        let any_port = "127.0.0.1:0".parse().unwrap();
        let listener = listen(any_port, &ListenOptions::default()).unwrap();
        let address = listener.local_address();
        let sockets = config.connections_max + limits::REFUSALS_MAX;
        let sizes = RingSizes::new(sockets, 20_000);
        let driver = way.config(sockets, listener, sizes);
        let account = Arc::new(Mutex::new(Account::default()));
        let told = Arc::clone(&account);
        let (asker_in, asker_out) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let (mut server, asker, reader) = Server::new(driver, config, Clock::new()).unwrap();
            drop(reader);
            server.coalesce(window);
            asker_in.send(asker).unwrap();
            let mut turns = 0;
            while server.turn().unwrap() == Turn::Goes {
                turns += 1;
                let enters = server.driver().stats().enters;
                *told.lock().unwrap() = Account { turns, enters, stats: server.gateway().stats() };
            }
        });
        Self { address, account, asker: asker_out.recv().unwrap(), thread }
    }

    fn login(&self, name: &str) -> TcpStream {
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.set_nodelay(true).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.write_all(&hello(name)).unwrap();
        // WELCOME comes in one piece, and some thread's end may interrupt the reading.
        let read = loop {
            match peer.read(&mut [0; 256]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        assert!(read.unwrap() > 0, "no WELCOME");
        peer
    }

    fn account(&self) -> Account {
        self.account.lock().unwrap().clone()
    }

    fn end(mut self) {
        self.asker.ask(Command::Drain(Drain::at_once(Span::ZERO))).unwrap();
        self.thread.join().unwrap();
    }
}

fn hello(client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode_preface(native::VERSIONS, &mut bytes);
    let message = Message::Hello {
        wanted_interval_ms: 0,
        client_id,
        class: "",
        token: &[],
        resume: &[],
        last_seq: 0,
        before: None,
    };
    native::encode(&message, &mut bytes);
    bytes
}

fn ping(reply: Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode(&Message::Ping { reply, payload: b"12345678" }, &mut bytes);
    bytes
}

fn config() -> GatewayConfig {
    GatewayConfig { connections_max: 256, ..GatewayConfig::default() }
}

#[test]
fn a_turn_under_load_is_one_enter() {
    each_way(|way| {
        for window in [Span::ZERO, limits::COALESCE_DEFAULT] {
            let stage = Stage::new(way, config(), window);
            let mut peers: Vec<_> = (0..200).map(|i| stage.login(&format!("client-{i}"))).collect();
            let before = stage.account();
            for _ in 0..20 {
                for peer in &mut peers {
                    peer.write_all(&ping(Reply::Wanted)).unwrap();
                    peer.write_all(&ping(Reply::NotWanted)).unwrap();
                }
                for peer in &mut peers {
                    let mut pong = ping(Reply::Wanted);
                    peer.read_exact(&mut pong).unwrap();
                }
            }
            // Whatever was said before the last answer is heard in its turn or in the next one.
            std::thread::sleep(2 * Duration::from(limits::COALESCE_DEFAULT));
            let after = stage.account();
            let beats = after.stats.frames_received - before.stats.frames_received;
            assert!(beats >= 7_999, "{beats} beats");
            let (enters, turns) = (after.enters - before.enters, after.turns - before.turns);
            // A sleep that gathers on epoll waits for the first news, and asks again at its end.
            let is_asked_twice = way == Way::Epoll && window > Span::ZERO;
            let enters_max = if is_asked_twice { 2 * turns } else { turns };
            assert!(enters <= enters_max, "{enters} enters in {turns} turns, {window}");
            if window > Span::ZERO {
                assert!(turns <= 2_000, "{turns} turns for {beats} beats");
            }
            drop(peers);
            stage.end();
        }
    });
}

#[test]
fn an_idle_server_hardly_enters_the_kernel() {
    each_way(|way| {
        let stage = Stage::new(way, config(), limits::COALESCE_DEFAULT);
        let peers: Vec<_> = (0..200).map(|i| stage.login(&format!("client-{i}"))).collect();
        std::thread::sleep(Duration::from_millis(100));
        let before = stage.account();
        std::thread::sleep(Duration::from_secs(2));
        let after = stage.account();
        let enters = after.enters - before.enters;
        assert!((1..2 * 20).contains(&enters), "{enters} enters in two idle seconds");
        drop(peers);
        stage.end();
    });
}

/// Clients that wait for each other's answers would otherwise be held to a window a round.
#[test]
fn a_crowd_that_is_there_at_once_does_not_wait_out_the_window() {
    each_ring(|way| {
        let mut rig = Rig::new(way, RingSizes::new(100, 20_000), 100);
        let mut pairs = rig.crowd(80);
        rig.driver.gather(PATIENCE.into());
        for (peer, _) in &mut pairs {
            peer.write_all(b"beat").unwrap();
        }
        let start = Instant::now();
        rig.driver.wait(Some(PATIENCE.into())).unwrap();
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        for (_, conn) in pairs {
            assert_eq!(rig.received(conn, 4), b"beat");
        }
    });
}

#[test]
fn what_waits_behind_a_send_does_not_wait_for_a_sleep() {
    each_way(|way| {
        let stage = Stage::new(way, config(), Span::ZERO);
        let mut peer = stage.login("talker");
        // Too many for one buffer: the answers to the rest wait until the first ones are sent.
        let pings = ping(Reply::Wanted).repeat(3 * limits::RECEIVE_BUFFER_BYTES / 12);
        for _ in 0..10 {
            let start = Instant::now();
            peer.write_all(&pings).unwrap();
            peer.read_exact(&mut pings.clone()).unwrap();
            assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        stage.end();
    });
}

#[test]
fn a_last_word_is_followed_by_the_end_at_once() {
    each_way(|way| {
        let stage = Stage::new(way, config(), Span::ZERO);
        let mut peer = stage.login("stranger");
        std::thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        peer.write_all(&hello("stranger")[limits::PREFACE_BYTES..]).unwrap(); // said already
        let mut error = Vec::new();
        peer.read_to_end(&mut error).unwrap();
        assert!(!error.is_empty());
        assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
        stage.end();
    });
}

#[test]
fn who_is_alone_is_answered_at_once() {
    for way in [Way::Ordinary, Way::Epoll] {
        on_its_thread(way, &a_hermit_is_answered_at_once);
    }
}

fn a_hermit_is_answered_at_once(way: Way) {
    let stage = Stage::new(way, config(), limits::COALESCE_MAX);
    let mut peer = stage.login("hermit");
    for _ in 0..5 {
        // Twice within a window, and that rarely.
        std::thread::sleep(Duration::from_millis(400));
        for _ in 0..2 {
            let start = Instant::now();
            peer.write_all(&ping(Reply::Wanted)).unwrap();
            peer.read_exact(&mut ping(Reply::Wanted)).unwrap();
            assert!(start.elapsed() < Duration::from_millis(80), "{:?}", start.elapsed());
        }
    }
    stage.end();
}

#[test]
fn no_verdict_waits_for_a_gathering_sleep() {
    each_way(|way| {
        let (interval, timeout) = (Span::from_millis(50), Span::from_millis(730));
        let rhythm = Rhythm::new(interval, timeout).unwrap();
        let config = GatewayConfig { rhythm, interval_wish_min: interval, ..config() };
        let stage = Stage::new(way, config, limits::COALESCE_MAX);
        let mut peers: Vec<_> = (0..20).map(|i| stage.login(&format!("client-{i}"))).collect();
        let end = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < end {
            for peer in &mut peers[10..] {
                peer.write_all(&ping(Reply::NotWanted)).unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let stats = stage.account().stats;
        assert_eq!(stats.online, 10, "whoever beats is here");
        assert_eq!(stats.lateness.count, 10, "whoever is silent was judged");
        // A tick and a turn; the window is ten ticks.
        assert!(stats.lateness.max < Span::from_millis(60), "{}", stats.lateness.max);
        drop(peers);
        stage.end();
    });
}
