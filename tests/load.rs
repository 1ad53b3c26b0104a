//! The fleet on the real kernel, against a small server of its own: threads, std sockets, and as
//! much of the protocol as is needed to judge the fleet.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heartwheel::base::config::Mode;
use heartwheel::base::limits;
use heartwheel::base::time::Span;
use heartwheel::load::dialect::Dialect;
use heartwheel::load::drive::{self, Helm, Outcome, Room, Steer, Wish};
use heartwheel::load::fleet::FleetError;
use heartwheel::load::plan::{LoadOptions, Pace, Parts, Plan, Talk};
use heartwheel::os::driver::DriverKind;
use heartwheel::os::ring::Descriptors;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound};

/// Generous, since a busy machine may let the fleet wait: the late leave a fifth of the time
/// between the two unused.
const INTERVAL: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(2_000);
const ROOM: Room =
    Room { driver: DriverKind::IoUring, descriptors: Descriptors::Direct, files_per_ring: 10_000 };

/// Why the server's end of a connection ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum End {
    Bye,
    Eof,
    Reset,
    Silence,
}

/// What the server does beside answering.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    /// Judges by the timeout.
    Fair,
    /// Ends everybody half a second after HELLO.
    Rude,
    /// Pings, and lets the clients only answer.
    Pinging,
}

struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Connections that have not ended yet.
    present: Arc<AtomicUsize>,
    ends: Arc<Mutex<Vec<(String, End)>>>,
    thread: JoinHandle<()>,
}

impl Server {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let present = Arc::new(AtomicUsize::new(0));
        let ends = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let (stop, present, ends) =
                (Arc::clone(&stop), Arc::clone(&present), Arc::clone(&ends));
            move || serve(&listener, manner, &stop, &present, &ends)
        });
        Self { address, stop, present, ends, thread }
    }

    /// Stops it when everybody has gone, and counts how its connections had ended.
    fn ends(self) -> HashMap<End, usize> {
        let patience = Instant::now();
        while self.present.load(Ordering::Relaxed) > 0 {
            assert!(patience.elapsed() < Duration::from_secs(5), "somebody does not go");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let mut counts = HashMap::new();
        for (_, end) in self.ends.lock().unwrap().iter() {
            *counts.entry(*end).or_default() += 1;
        }
        counts
    }
}

/// One thread polls all of its connections: plain, slow, and right.
fn serve(
    listener: &TcpListener,
    manner: Manner,
    stop: &AtomicBool,
    present: &AtomicUsize,
    ends: &Mutex<Vec<(String, End)>>,
) {
    listener.set_nonblocking(true).unwrap();
    let mut guests: Vec<Guest> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).unwrap();
            guests.push(Guest::new(stream));
        }
        present.store(guests.len(), Ordering::Relaxed);
        guests.retain_mut(|guest| match guest.turn(manner) {
            None => true,
            Some(end) => {
                ends.lock().unwrap().push((guest.name.clone(), end));
                false
            }
        });
        present.store(guests.len(), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Guest {
    stream: TcpStream,
    deframer: Deframer,
    name: String,
    last_beat: Instant,
    welcomed_at: Option<Instant>,
    pinged_at: Instant,
}

impl Guest {
    fn new(stream: TcpStream) -> Self {
        let now = Instant::now();
        Self {
            stream,
            deframer: Deframer::server_side(),
            name: String::new(),
            last_beat: now,
            welcomed_at: None,
            pinged_at: now,
        }
    }

    fn turn(&mut self, manner: Manner) -> Option<End> {
        let mut buffer = [0; 512];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Some(End::Eof),
            Ok(count) => {
                if let Some(end) = self.hear(&buffer[..count], manner) {
                    return Some(end);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Some(End::Reset),
        }
        let is_tired = self.last_beat.elapsed() >= TIMEOUT;
        let rudeness = Duration::from_millis(500);
        let is_rude =
            manner == Manner::Rude && self.welcomed_at.is_some_and(|at| at.elapsed() >= rudeness);
        if is_tired || is_rude {
            return Some(End::Silence);
        }
        if manner == Manner::Pinging && self.pinged_at.elapsed() >= INTERVAL {
            self.pinged_at = Instant::now();
            self.say(&Message::Ping { reply: Reply::Wanted, payload: b"well?" });
        }
        None
    }

    fn hear(&mut self, mut bytes: &[u8], manner: Manner) -> Option<End> {
        let mut answers = Vec::new();
        while let Some(inbound) = self.deframer.next(&mut bytes, 1_000).unwrap() {
            match inbound {
                Inbound::Message(Message::Hello { client_id, .. }) => {
                    self.name = client_id.to_owned();
                    self.welcomed_at = Some(Instant::now());
                    native::encode(&welcome(manner), &mut answers);
                }
                Inbound::Message(Message::Ping { payload, reply: Reply::Wanted }) => {
                    native::encode(&Message::Pong { payload }, &mut answers);
                }
                Inbound::Message(Message::Ping { reply: Reply::NotWanted, .. }) => {}
                Inbound::Message(Message::Pong { payload }) => assert_eq!(payload, b"well?"),
                Inbound::Message(Message::Data { seq, topic: "load", body, .. }) => {
                    assert_eq!(body.len(), usize::from(Talk::default().bytes));
                    native::encode(&Message::Ack { seq }, &mut answers);
                }
                Inbound::Message(Message::Bye { .. }) => return Some(End::Bye),
                Inbound::Message(other) => panic!("{other:?}"),
                Inbound::Preface(_) | Inbound::Skipped { .. } => {}
            }
            self.last_beat = Instant::now();
        }
        // What does not fit into the socket of somebody who does not read is lost, as it may be.
        let _ = self.stream.write(&answers);
        None
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        let _ = self.stream.write(&bytes);
    }
}

fn welcome(manner: Manner) -> Message<'static> {
    let mode = match manner {
        Manner::Fair | Manner::Rude => Mode::Client,
        Manner::Pinging => Mode::Server,
    };
    Message::Welcome {
        version: 1,
        mode,
        resumed: false,
        epoch: 1,
        interval_ms: u32::try_from(INTERVAL.as_millis()).unwrap(),
        timeout_ms: u32::try_from(TIMEOUT.as_millis()).unwrap(),
        first_beat_ms: 50,
        payload_max: 1_024,
        server_unix_ms: 0,
        resume: b"",
    }
}

fn options(target: SocketAddr) -> LoadOptions {
    LoadOptions {
        target,
        clients: 60,
        interval: INTERVAL.into(),
        run_time: Span::from_secs(5),
        dialect: Dialect::Native,
        pace: Pace::Rhythm,
        connects_per_s: Some(500),
        entering_max: None,
        talk: Talk::default(),
        parts: Parts::default(),
        seed: 11,
        id_prefix: "t".into(),
        source_key: std::process::id(),
        tokens: None,
    }
}

fn run(options: LoadOptions) -> Outcome {
    run_by(ROOM, options)
}

fn run_by(room: Room, options: LoadOptions) -> Outcome {
    let plan = Plan::new(options).unwrap();
    let most = plan.options().run_time + limits::LOAD_SETTLE_MAX + limits::LOAD_LEAVE_MAX;
    let began = Instant::now();
    let outcome = drive::run(plan, room, |_| Wish::GoOn).unwrap();
    assert!(began.elapsed() < Duration::from(most) + Duration::from_secs(2));
    outcome
}

#[test]
fn every_part_is_played_and_every_ending_is_told_right() {
    plays_every_part(ROOM);
}

#[test]
fn every_part_is_played_by_epoll_too() {
    plays_every_part(Room { driver: DriverKind::Epoll, ..ROOM });
}

fn plays_every_part(room: Room) {
    let server = Server::start(Manner::Fair);
    let parts = Parts {
        silent: 10,
        reset: 5,
        leave: 6,
        flap: 4,
        slow_readers: 3,
        late: 5,
        no_reply: 2,
        talk: 3,
    };
    let options = LoadOptions { parts, ..options(server.address) };
    let Outcome { tally, trouble } = run_by(room, options);
    assert_eq!(trouble, None);
    assert_eq!(tally.connected, 60);
    assert_eq!(tally.fell_silent, 10);
    assert_eq!(tally.detection.count(), 10, "{tally:?}");
    assert_eq!((tally.detected_early, tally.undetected, tally.undecided), (0, 0, 0));
    assert_eq!((tally.false_offline, tally.overslept), (0, 0));
    assert_eq!(tally.errors().count(), 0);
    assert!(tally.sessions > 57, "{} welcomes: some came again", tally.sessions);
    let detection = tally.detection.summary();
    assert!(detection.max < Span::from_millis(200), "{}", detection.max);
    // 25 living clients beat three times a second for nearly five seconds.
    assert!(tally.beats_sent > 350, "{}", tally.beats_sent);
    assert!(tally.rtt.count() > 250, "{}", tally.rtt.count());
    assert_eq!(tally.unanswered, 0);
    // Three of them send a message as often as they wished to beat.
    assert!(tally.messages_sent >= 20, "{}", tally.messages_sent);
    assert_eq!((tally.acks.count(), tally.messages_skipped), (tally.messages_sent, 0));

    let ends = server.ends();
    assert_eq!(ends.get(&End::Silence), Some(&10), "{ends:?}");
    assert!(ends.get(&End::Reset).is_some_and(|count| *count >= 5), "{ends:?}");
    assert!(ends.get(&End::Bye).is_some_and(|count| *count >= 6 + 25), "{ends:?}");
}

#[test]
fn living_clients_that_a_server_ends_are_false_offlines() {
    let server = Server::start(Manner::Rude);
    let Outcome { tally, .. } = run(LoadOptions { clients: 20, ..options(server.address) });
    assert_eq!(tally.false_offline, 20, "{tally:?}");
    assert_eq!(tally.errors().next(), Some(("ended_closed".into(), 20)));
    assert!(tally.ran_for < Span::from_secs(2), "nobody is left, and the run ends");
}

#[test]
fn pings_of_the_server_keep_its_clients_alive() {
    let server = Server::start(Manner::Pinging);
    let parts = Parts { silent: 3, ..Parts::default() };
    let Outcome { tally, .. } = run(LoadOptions { clients: 20, parts, ..options(server.address) });
    assert_eq!(tally.beats_sent, 0);
    assert!(tally.answers_sent > 80, "{}", tally.answers_sent);
    assert_eq!((tally.false_offline, tally.present_at_end), (0, 17));
    assert_eq!(tally.detection.count(), 3);
}

#[test]
fn where_nobody_listens_one_is_told_so_soon() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let began = Instant::now();
    let Outcome { tally, trouble } = run(options(address));
    assert!(matches!(trouble, Some(FleetError::NobodyConnected { .. })), "{trouble:?}");
    assert_eq!(tally.connected, 0);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_run_can_be_ended_by_whoever_watches() {
    let server = Server::start(Manner::Fair);
    let plan = Plan::new(LoadOptions { run_time: Span::from_secs(60), ..options(server.address) });
    let outcome = drive::run(plan.unwrap(), ROOM, |progress| {
        if progress.elapsed >= Span::from_secs(1) { Wish::End } else { Wish::GoOn }
    });
    let tally = outcome.unwrap().tally;
    assert!(tally.ran_for >= Span::from_secs(1) && tally.ran_for < Span::from_secs(3));
    assert_eq!((tally.present_at_end, tally.false_offline), (60, 0));
    assert_eq!(server.ends().get(&End::Bye), Some(&60));
}

#[test]
fn clients_can_be_silenced_and_revived_from_another_thread() {
    let server = Server::start(Manner::Fair);
    let run_time = Span::from_secs(60);
    let plan = Plan::new(LoadOptions { clients: 5, run_time, ..options(server.address) }).unwrap();
    let helm = Helm::launch(plan, ROOM).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert!(helm.steer(Steer::Silence(2)));
    assert!(helm.steer(Steer::Silence(77)), "there is no such client, and no harm in asking");
    let noticed = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !server.ends.lock().unwrap().is_empty()
    });
    assert!(noticed);
    assert_eq!(server.ends.lock().unwrap().as_slice(), [("t3".into(), End::Silence)]);
    assert!(helm.steer(Steer::Revive(2)));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!helm.is_over());
    let tally = helm.join().unwrap().tally;
    assert_eq!((tally.sessions, tally.present_at_end), (6, 5));
    assert_eq!((tally.detection.count(), tally.false_offline), (1, 0));
}

/// The built program, with these words; it must end by itself.
fn load_command(target: SocketAddr, words: &str) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["load", "--target", &target.to_string()])
        .args(words.split(' '))
        .output()
        .unwrap()
}

#[test]
fn the_command_prints_a_table_and_writes_json() {
    let server = Server::start(Manner::Fair);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("result.json");
    let words = format!(
        "--clients 30 --interval 300ms --for 5s --silent 5 --seed 77 --connect-rate 300 --json {}",
        path.display()
    );
    let output = load_command(server.address, &words);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no bar where there is no terminal");
    assert!(table.contains("connected      30 of 30"), "{table}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (name, expected) in [
        ("connected", 30),
        ("seed", 77),
        ("false_offline", 0),
        ("undetected", 0),
        ("present_at_end", 25),
    ] {
        assert_eq!(json[name], expected, "{name} in {json}");
    }
    assert_eq!(json["detection_ms"]["n"], 5, "{json}");
    assert!(json["beats_sent"].as_u64().is_some_and(|beats| beats > 200), "{json}");
    assert!(json["server_cpu_s"].is_number(), "the server is this test: {json}");
    assert!(json["errors"].as_object().is_some_and(serde_json::Map::is_empty), "{json}");
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    let server = Server::start(Manner::Fair);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    for (name, target, words, code, says) in [
        ("refused", nobody, "--clients 9 --interval 1s --for 9s", 1, "connection refused"),
        (
            "too short for the timeout",
            server.address,
            "--clients 9 --interval 200ms --for 1s --silent 1",
            2,
            "too short",
        ),
        ("more parts", nobody, "--clients 9 --interval 1s --for 9s --reset 10", 2, "only 9"),
        ("bad id", nobody, "--clients 9 --interval 1s --for 9s --id-prefix \n", 2, "client id"),
        (
            "no process",
            nobody,
            "--clients 9 --interval 1s --for 9s --server-pid 0",
            2,
            "server-pid 0",
        ),
        ("no such place", nobody, "--clients 9 --interval 1s --for 9s --json /no/x", 1, "/no/x"),
    ] {
        let output = load_command(target, words);
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {line}");
        assert_eq!(line.lines().count(), 1, "{name}: {line}");
        assert!(line.starts_with("heartwheel: ") && line.contains(says), "{name}: {line}");
        assert!(output.stdout.is_empty(), "{name}");
    }
}

/// As much of a broker as lets clients in and answers their beats; counts CONNECT, PINGREQ and
/// DISCONNECT until nobody is left of those who came.
fn serve_mqtt(listener: &TcpListener, clients: usize) -> [usize; 3] {
    let count = |stream: TcpStream| {
        let (mut stream, mut counts) = (stream, [0; 3]);
        let mut head = [0; 2];
        while stream.read_exact(&mut head).is_ok() {
            let mut body = vec![0; usize::from(head[1])];
            stream.read_exact(&mut body).unwrap();
            let (which, answer): (usize, &[u8]) = match head[0] {
                0x10 => (0, &[0x20, 2, 0, 0]),
                0xC0 => (1, &[0xD0, 0]),
                0xE0 => (2, &[]),
                other => panic!("no client says {other:#x}"),
            };
            counts[which] += 1;
            stream.write_all(answer).unwrap();
        }
        counts
    };
    let guests: Vec<_> = (0..clients).map(|_| listener.accept().unwrap().0).collect();
    let threads: Vec<_> =
        guests.into_iter().map(|stream| std::thread::spawn(move || count(stream))).collect();
    threads.into_iter().fold([0; 3], |sum, thread| {
        let counts = thread.join().unwrap();
        std::array::from_fn(|which| sum[which] + counts[which])
    })
}

#[test]
fn clients_of_a_broker_connect_beat_and_leave() {
    const CLIENTS: u32 = 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let broker = std::thread::spawn(move || serve_mqtt(&listener, CLIENTS as usize));
    let options = LoadOptions {
        clients: CLIENTS,
        dialect: Dialect::Mqtt,
        run_time: Span::from_secs(2),
        parts: Parts::default(),
        ..options(target)
    };
    let outcome = drive::run(Plan::new(options).unwrap(), ROOM, |_| Wish::GoOn).unwrap();
    let tally = outcome.tally;
    let [connects, beats, goodbyes] = broker.join().unwrap();
    assert_eq!((connects, goodbyes), (CLIENTS as usize, CLIENTS as usize));
    assert_eq!((tally.connected, tally.unanswered, tally.sent_away), (20, 0, 0));
    assert_eq!(tally.beats_sent, beats as u64);
    assert_eq!(tally.pongs_received, tally.beats_sent);
    assert!(beats >= 2 * CLIENTS as usize, "{beats} beats in six intervals");
}
