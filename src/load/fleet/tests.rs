//! The fleet against a pretend kernel and a pretend server: short sends, torn bytes, starved
//! receives, and a server that may be wrong.

use std::collections::BTreeMap;

use crate::base::config::Mode;
use crate::base::ids::ConnId;
use crate::base::io::{
    Chunk, CloseHow, Completion, Connect, IoFault, Op, ReceiveEnd, SocketHandle,
};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::load::dialect::Dialect;
use crate::load::fleet::{Fleet, FleetError, TRIES_MAX, WhenIdle};
use crate::load::plan::{LoadOptions, Pace, Part, Parts, Plan, PlanError, Talk};
use crate::load::tally::Tally;
use crate::wire::message::{Message, Reply};
use crate::wire::native::{self, Deframer, Inbound};

const INTERVAL: Span = Span::from_millis(500);
const TIMEOUT: Span = Span::from_millis(1_200);
const LATENCY: Span = Span::from_micros(200);

/// What is wrong with the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Server {
    Good,
    /// Judges everybody 100 ms before the deadline.
    Hasty,
    /// Never judges anybody.
    Blind,
    /// Is not there.
    Absent,
    /// Takes connections and says nothing.
    Mute,
}

enum News {
    Connected { ticket: u32 },
    ConnectFailed { ticket: u32 },
    Arrive { conn: ConnId, bytes: Vec<u8> },
    Deliver { conn: ConnId, bytes: Vec<u8> },
    Sent { conn: ConnId, chunk: Chunk, bytes: usize },
    Eof { conn: ConnId },
    Verdict { conn: ConnId },
    Closed { conn: ConnId },
}

/// The server's end of one connection.
#[derive(Default)]
struct Peer {
    conn: Option<ConnId>,
    deframer: Deframer,
    last_beat: Moment,
    is_receiving: bool,
    undelivered: Vec<u8>,
    is_eof: bool,
}

struct World {
    fleet: Fleet,
    server: Server,
    now: Moment,
    news: BTreeMap<(Moment, u64), News>,
    numbered: u64,
    peers: Vec<Peer>,
    random: fastrand::Rng,
    byes: u64,
    resets: u64,
    verdicts: u64,
    connects: Vec<Connect>,
}

fn options(parts: Parts) -> LoadOptions {
    LoadOptions {
        target: "127.0.0.1:7070".parse().unwrap(),
        clients: 200,
        interval: INTERVAL,
        run_time: Span::from_secs(10),
        dialect: Dialect::Native,
        pace: Pace::Rhythm,
        connects_per_s: Some(400),
        entering_max: None,
        talk: Talk::default(),
        parts,
        seed: 5,
        id_prefix: "c".into(),
        source_key: 0,
        tokens: None,
    }
}

impl World {
    fn new(options: LoadOptions, server: Server, when_idle: WhenIdle) -> Self {
        let now = Moment::from_millis(77_000);
        let plan = Plan::new(options).unwrap();
        let peers = (0..plan.clients()).map(|_| Peer::default()).collect();
        Self {
            fleet: Fleet::new(plan, when_idle, now),
            server,
            now,
            news: BTreeMap::new(),
            numbered: 0,
            peers,
            random: fastrand::Rng::with_seed(1),
            byes: 0,
            resets: 0,
            verdicts: 0,
            connects: Vec::new(),
        }
    }

    /// Runs until the fleet is over or `end` has come.
    fn run_until(&mut self, end: Moment) {
        let mut ops = Vec::new();
        for step in 0..2_000_000 {
            self.fleet.take_ops(&mut ops);
            for op in ops.drain(..) {
                self.on_op(op);
            }
            let Some(wake) = self.fleet.next_wake() else { return };
            let next_news = self.news.keys().next().map(|(at, _)| *at);
            if let Some(at) = next_news.filter(|at| *at <= wake) {
                if at > end {
                    return;
                }
                self.now = self.now.max(at);
                let (_, news) = self.news.pop_first().unwrap();
                self.on_news(news);
            } else {
                self.now = self.now.max(wake);
                if self.now > end {
                    return;
                }
                self.fleet.on_time(self.now);
            }
            if step % 97 == 0 {
                self.fleet.check();
            }
        }
        panic!("the run does not end");
    }

    fn run(&mut self) -> Tally {
        self.run_until(self.now + Span::from_secs(1_000));
        assert!(self.fleet.is_over());
        self.fleet.check();
        assert!(self.news.values().all(|news| !matches!(news, News::Sent { .. })));
        self.fleet.tally().clone()
    }

    fn later(&mut self, after: Span, news: News) {
        self.numbered += 1;
        self.news.insert((self.now + after, self.numbered), news);
    }

    fn on_op(&mut self, op: Op) {
        match op {
            Op::Connect(connect) => {
                self.connects.push(*connect);
                let ticket = connect.ticket;
                let news = match self.server {
                    Server::Absent => News::ConnectFailed { ticket },
                    Server::Good | Server::Hasty | Server::Blind | Server::Mute => {
                        News::Connected { ticket }
                    }
                };
                self.later(LATENCY, news);
            }
            Op::Adopt { conn, .. } => {
                let peer = &mut self.peers[conn.slot as usize];
                assert_eq!(peer.conn, None, "the slot is free");
                *peer =
                    Peer { conn: Some(conn), deframer: Deframer::server_side(), ..Peer::default() };
            }
            Op::Receive { conn } => {
                let peer = &mut self.peers[conn.slot as usize];
                assert_eq!(peer.conn, Some(conn));
                assert!(!peer.is_receiving, "never twice at once");
                peer.is_receiving = true;
                let bytes = std::mem::take(&mut peer.undelivered);
                self.later(Span::ZERO, News::Deliver { conn, bytes });
            }
            Op::Send { conn, chunk } => {
                assert_eq!(self.peers[conn.slot as usize].conn, Some(conn));
                let bytes = self.random.usize(1..=chunk.len());
                let arrived = chunk.unsent()[..bytes].to_vec();
                self.later(LATENCY, News::Arrive { conn, bytes: arrived });
                self.later(LATENCY, News::Sent { conn, chunk, bytes });
            }
            Op::Close { conn, how } => {
                assert_eq!(self.peers[conn.slot as usize].conn, Some(conn));
                if how == CloseHow::Abort {
                    self.resets += 1;
                }
                self.later(LATENCY.times(2), News::Closed { conn });
            }
            Op::Discard { .. } => {}
            Op::Accept { .. }
            | Op::StopAccepting
            | Op::Look { .. }
            | Op::Pause { .. }
            | Op::SetUserTimeout { .. }
            | Op::Move(_) => {
                panic!("the fleet has no use for {op:?}")
            }
        }
    }

    fn on_news(&mut self, news: News) {
        let now = self.now;
        match news {
            News::Connected { ticket } => {
                let socket = SocketHandle(u64::from(ticket));
                self.fleet.on_completion(Completion::Connected { ticket, socket }, now);
            }
            News::ConnectFailed { ticket } => {
                let fault = IoFault::Refused;
                self.fleet.on_completion(Completion::ConnectFailed { ticket, fault }, now);
            }
            News::Sent { conn, chunk, bytes } => {
                let result = Ok(bytes);
                self.fleet.on_completion(Completion::Sent { conn, chunk, result }, now);
            }
            News::Closed { conn } => {
                self.peers[conn.slot as usize] = Peer::default();
                self.fleet.on_completion(Completion::Closed { conn }, now);
            }
            News::Arrive { conn, bytes } => self.serve(conn, &bytes),
            News::Verdict { conn } => self.judge(conn),
            News::Deliver { conn, bytes } => self.deliver(conn, &bytes),
            News::Eof { conn } => {
                let peer = &mut self.peers[conn.slot as usize];
                peer.is_eof = peer.conn == Some(conn);
                self.deliver(conn, &[]);
            }
        }
    }

    /// Gives bytes to the fleet, torn, and now and then with a starved receive before them.
    fn deliver(&mut self, conn: ConnId, bytes: &[u8]) {
        let peer = &mut self.peers[conn.slot as usize];
        if peer.conn != Some(conn) {
            return;
        }
        peer.undelivered.extend_from_slice(bytes);
        if !peer.is_receiving {
            return;
        }
        if self.random.u8(0..20) == 0 {
            peer.is_receiving = false;
            let end = ReceiveEnd::Starved;
            return self.fleet.on_completion(Completion::ReceiveEnded { conn, end }, self.now);
        }
        let whole = std::mem::take(&mut peer.undelivered);
        let is_eof = std::mem::take(&mut peer.is_eof);
        let (head, tail) = whole.split_at(self.random.usize(0..=whole.len()));
        for bytes in [head, tail].into_iter().filter(|bytes| !bytes.is_empty()) {
            self.fleet.on_completion(Completion::Received { conn, bytes }, self.now);
        }
        if is_eof {
            let end = ReceiveEnd::Eof;
            self.fleet.on_completion(Completion::ReceiveEnded { conn, end }, self.now);
        }
    }

    fn serve(&mut self, conn: ConnId, mut bytes: &[u8]) {
        let (now, mut answers) = (self.now, Vec::new());
        let peer = &mut self.peers[conn.slot as usize];
        if peer.conn != Some(conn) || self.server == Server::Mute {
            return;
        }
        while let Some(inbound) = peer.deframer.next(&mut bytes, 1_000).expect("well said") {
            peer.last_beat = now;
            match inbound {
                Inbound::Message(Message::Hello { .. }) => native::encode(&welcome(), &mut answers),
                Inbound::Message(Message::Ping { reply: Reply::NotWanted, .. }) => {}
                Inbound::Message(Message::Ping { payload, .. }) => {
                    native::encode(&Message::Pong { payload }, &mut answers);
                }
                Inbound::Message(Message::Data { seq, .. }) => {
                    native::encode(&Message::Ack { seq }, &mut answers);
                }
                Inbound::Message(Message::Bye { .. }) => self.byes += 1,
                Inbound::Message(other) => panic!("{other:?}"),
                Inbound::Preface(_) | Inbound::Skipped { .. } => {}
            }
        }
        let patience = if self.server == Server::Hasty {
            TIMEOUT.minus(Span::from_millis(100))
        } else {
            TIMEOUT
        };
        self.later(LATENCY, News::Deliver { conn, bytes: answers });
        self.later(patience, News::Verdict { conn });
    }

    fn judge(&mut self, conn: ConnId) {
        let peer = &self.peers[conn.slot as usize];
        let silence = self.now.since(peer.last_beat) + Span::from_millis(100);
        let is_dead = peer.conn == Some(conn) && silence >= TIMEOUT && !peer.is_eof;
        if self.server == Server::Blind || !is_dead {
            return;
        }
        // A beat that came meanwhile has brought a verdict of its own.
        if self.server == Server::Good && self.now.since(peer.last_beat) < TIMEOUT {
            return;
        }
        self.verdicts += 1;
        self.later(Span::ZERO, News::Eof { conn });
    }
}

fn welcome() -> Message<'static> {
    Message::Welcome {
        version: 1,
        mode: Mode::Client,
        resumed: false,
        epoch: 1,
        interval_ms: INTERVAL.as_millis_u32(),
        timeout_ms: TIMEOUT.as_millis_u32(),
        first_beat_ms: 50,
        payload_max: 1_024,
        server_unix_ms: 0,
        resume: b"",
    }
}

fn all_parts() -> Parts {
    Parts {
        silent: 30,
        reset: 10,
        leave: 20,
        flap: 15,
        slow_readers: 5,
        late: 25,
        no_reply: 10,
        talk: 8,
    }
}

#[test]
fn with_a_good_server_the_books_balance() {
    for seed in 0..10 {
        let options = LoadOptions { seed, ..options(all_parts()) };
        let mut world = World::new(options, Server::Good, WhenIdle::End);
        let tally = world.run();
        assert_eq!(tally.connected, 200, "seed {seed}");
        assert_eq!(tally.fell_silent, 30, "seed {seed}");
        assert!(tally.messages_sent > 8 * 10, "seed {seed}: {}", tally.messages_sent);
        assert_eq!(tally.acks.count(), tally.messages_sent, "seed {seed}");
        assert_eq!(tally.detection.count(), 30, "seed {seed}");
        assert_eq!(world.verdicts, 30, "seed {seed}");
        for (name, count) in [
            ("false_offline", tally.false_offline),
            ("overslept", tally.overslept),
            ("early", tally.detected_early),
            ("undetected", tally.undetected),
            ("undecided", tally.undecided),
            ("skipped", tally.beats_skipped),
            ("unanswered", tally.unanswered),
        ] {
            assert_eq!(count, 0, "seed {seed}: {name}");
        }
        assert!(tally.detection.summary().max < Span::from_millis(5), "seed {seed}");
        assert!(tally.sessions > 200, "seed {seed}: those who come and go came again");
        assert!(world.byes >= 20 && world.resets >= 10, "seed {seed}");
        assert_eq!(tally.errors().count(), 0, "seed {seed}");
        let round_trip = tally.rtt.summary();
        assert!(round_trip.min >= LATENCY && round_trip.p50 < Span::from_millis(5), "seed {seed}");
    }
}

#[test]
fn a_server_that_judges_early_is_found_out() {
    let parts = Parts { silent: 30, ..Parts::default() };
    let tally = World::new(options(parts), Server::Hasty, WhenIdle::End).run();
    assert_eq!(tally.detected_early, 30);
    assert_eq!(tally.detection.count(), 0);
    assert_eq!(tally.false_offline, 0);
}

#[test]
fn a_server_that_judges_nobody_is_found_out() {
    let parts = Parts { silent: 30, ..Parts::default() };
    let tally = World::new(options(parts), Server::Blind, WhenIdle::End).run();
    assert_eq!(tally.undetected, 30);
    assert_eq!(tally.undecided, 0);
}

#[test]
fn where_nobody_listens_the_fleet_gives_up_soon() {
    let mut world = World::new(options(Parts::default()), Server::Absent, WhenIdle::End);
    let began = world.now;
    let tally = world.run();
    let fault = IoFault::Refused;
    assert_eq!(world.fleet.trouble(), Some(&FleetError::NobodyConnected { fault }));
    assert!(world.now.since(began) < Span::from_secs(2), "long before the end of the run");
    assert_eq!(tally.connected, 0);
    assert_eq!(tally.errors().next(), Some(("connect_refused".into(), TRIES_MAX)));
}

#[test]
fn a_mute_server_does_not_hold_the_run_up() {
    let mut world = World::new(options(Parts::default()), Server::Mute, WhenIdle::End);
    let began = world.now;
    let tally = world.run();
    assert_eq!((tally.connected, tally.beats_sent), (0, 0));
    assert!(world.now.since(began) < Span::from_secs(12));
}

#[test]
fn a_run_that_is_too_short_for_the_granted_timeout_ends_at_once() {
    let parts = Parts { silent: 1, ..Parts::default() };
    let short = LoadOptions { run_time: Span::from_secs(3), ..options(parts) };
    let mut world = World::new(short, Server::Good, WhenIdle::End);
    let began = world.now;
    world.run();
    let trouble = world.fleet.trouble();
    assert!(matches!(trouble, Some(FleetError::Plan(PlanError::TooShortForVerdicts { .. }))));
    assert!(world.now.since(began) < Span::from_millis(100));
}

#[test]
fn connects_keep_to_their_rate() {
    let mut world = World::new(options(Parts::default()), Server::Good, WhenIdle::End);
    let began = world.now;
    world.run_until(began + Span::from_millis(250));
    let connected = world.fleet.progress(world.now).connected;
    assert!((95..=101).contains(&connected), "{connected} in 250 ms at 400/s");
    let loopback = world.connects.iter().all(|connect| connect.source.is_some());
    assert!(loopback, "the source is the plan's");
}

#[test]
fn a_fleet_can_be_steered_while_it_runs() {
    let run_time = Span::from_secs(60);
    let steady = LoadOptions { run_time, clients: 3, ..options(Parts::default()) };
    let mut world = World::new(steady, Server::Good, WhenIdle::Stay);
    let began = world.now;
    world.run_until(began + Span::from_secs(2));
    assert!(world.fleet.silence(1));
    assert!(!world.fleet.silence(1), "it is silent already");
    world.run_until(began + Span::from_secs(5));
    assert_eq!(world.fleet.tally().detection.count(), 1);
    assert_eq!(world.fleet.progress(world.now).open, 2);
    assert!(world.fleet.revive(1, world.now));
    assert!(!world.fleet.revive(0, world.now), "it is alive");
    world.run_until(began + Span::from_secs(8));
    assert_eq!(world.fleet.progress(world.now).open, 3);
    assert!(world.fleet.silence(1));
    assert!(world.fleet.revive(1, world.now), "before anybody noticed");
    world.run_until(began + Span::from_secs(12));
    assert_eq!(world.fleet.tally().detection.count(), 1);
    world.fleet.stop(world.now);
    let tally = world.run();
    assert_eq!(tally.present_at_end, 3);
    assert_eq!(world.byes, 3);
}

#[test]
fn whoever_is_wanted_back_while_its_end_is_under_way_comes_back_after_it() {
    let run_time = Span::from_secs(60);
    let steady = LoadOptions { run_time, clients: 3, ..options(Parts::default()) };
    let mut world = World::new(steady, Server::Good, WhenIdle::Stay);
    world.run_until(world.now + Span::from_secs(2));
    assert!(world.fleet.silence(1));
    let conn = ConnId { slot: 1, generation: world.fleet.lines[1].generation };
    let end = ReceiveEnd::Eof;
    world.fleet.on_completion(Completion::ReceiveEnded { conn, end }, world.now);
    world.fleet.revive(1, world.now);
    let mut ops = Vec::new();
    world.fleet.take_ops(&mut ops);
    assert!(ops.iter().any(|op| matches!(op, Op::Close { conn: of, .. } if *of == conn)));
    world.fleet.on_completion(Completion::Closed { conn }, world.now);
    world.fleet.on_time(world.now);
    ops.clear();
    world.fleet.take_ops(&mut ops);
    assert!(ops.iter().any(|op| matches!(op, Op::Connect(_))), "{ops:?}");
}

#[test]
fn only_so_many_connect_at_once() {
    let many = LoadOptions { clients: 2_000, connects_per_s: None, ..options(Parts::default()) };
    let mut world = World::new(many, Server::Good, WhenIdle::End);
    world.fleet.on_time(world.now);
    let mut ops = Vec::new();
    world.fleet.take_ops(&mut ops);
    assert_eq!(ops.len(), limits::LOAD_CONNECTS_MAX as usize);
    world.fleet.on_time(world.now);
    world.fleet.take_ops(&mut ops);
    assert_eq!(ops.len(), limits::LOAD_CONNECTS_MAX as usize, "until one of them is done");
    let fault = IoFault::TimedOut;
    world.fleet.on_completion(Completion::ConnectFailed { ticket: 0, fault }, world.now);
    world.fleet.on_time(world.now);
    world.fleet.take_ops(&mut ops);
    assert_eq!(ops.len(), limits::LOAD_CONNECTS_MAX as usize + 1);
    world.fleet.check();
}

#[test]
fn no_ending_is_counted_after_the_beats_have_stopped() {
    let mut world = World::new(options(Parts::default()), Server::Good, WhenIdle::End);
    world.run_until(world.now + Span::from_secs(2));
    world.fleet.stop(world.now);
    let mut goaway = Vec::new();
    native::encode(&Message::Error { code: 202, text: "" }, &mut goaway);
    let conn = |slot| ConnId { slot, generation: 0 };
    let told = Completion::Received { conn: conn(0), bytes: &goaway };
    let cut = Completion::ReceiveEnded { conn: conn(1), end: ReceiveEnd::Eof };
    world.fleet.on_completion(told, world.now);
    world.fleet.on_completion(cut, world.now);
    let tally = world.run();
    assert_eq!(tally.present_at_end, 200);
    assert_eq!((tally.false_offline, tally.errors().count()), (0, 0));
}

#[test]
fn a_saturating_fleet_beats_without_a_pause_and_comes_to_an_end() {
    let few = LoadOptions {
        clients: 3,
        run_time: Span::from_secs(2),
        pace: Pace::Saturating,
        ..options(Parts::default())
    };
    let mut world = World::new(few, Server::Good, WhenIdle::End);
    let began = world.now;
    world.run_until(began + Span::from_millis(1_500));
    world.fleet.open_window(world.now);
    world.run_until(began + Span::from_millis(1_800));
    world.fleet.stop(world.now);
    let beats_before_end = world.fleet.tally().beats_sent;
    let tally = world.run();
    assert!(tally.beats_sent <= beats_before_end + 3, "one of each that was not sent");
    let in_step = 3 * TIMEOUT.as_micros() / (4 * LATENCY.as_micros());
    assert!(tally.beats_sent > in_step, "{} beats", tally.beats_sent);
    assert_eq!(tally.pongs_received, tally.beats_sent);
    assert_eq!((tally.unanswered, tally.false_offline, world.byes), (0, 0, 3));
    let window = tally.window.expect("it was opened");
    assert!(window.lasted <= Span::from_millis(300), "{}", window.lasted);
    assert!(window.lasted >= Span::from_millis(290), "{}", window.lasted);
    assert!(window.beats_sent > 100 && window.beats_sent < tally.beats_sent / 2);
}

#[test]
fn no_more_are_at_the_door_than_were_allowed() {
    let narrow = |server| {
        let few =
            LoadOptions { entering_max: Some(7), connects_per_s: None, ..options(all_parts()) };
        World::new(few, server, WhenIdle::End)
    };
    let mut world = narrow(Server::Mute);
    world.run_until(world.now + Span::from_secs(5));
    world.fleet.check();
    // Slow readers do not wait to be welcomed.
    let slow = world
        .connects
        .iter()
        .filter(|connect| world.fleet.plan().part(connect.ticket) == Part::SlowReader);
    assert_eq!(world.connects.len() - slow.count(), 7, "nobody is let in, nobody follows");
    let mut world = narrow(Server::Good);
    assert_eq!(world.run().connected, 200, "who is let in makes room");
}

#[test]
fn while_others_connect_nobody_saturates() {
    let late = LoadOptions {
        clients: 3,
        connects_per_s: Some(1),
        run_time: Span::from_secs(4),
        pace: Pace::Saturating,
        ..options(Parts::default())
    };
    let mut world = World::new(late, Server::Good, WhenIdle::End);
    world.run_until(world.now + Span::from_millis(1_900));
    let in_rhythm = world.fleet.tally().beats_sent;
    assert!((3..20).contains(&in_rhythm), "{in_rhythm} beats of two clients");
    let tally = world.run();
    assert!(tally.beats_sent > 1_000, "{} beats", tally.beats_sent);
    assert_eq!((tally.connected, tally.beats_skipped), (3, 0));
}
