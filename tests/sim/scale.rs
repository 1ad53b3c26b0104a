//! Very many connections at once, without sockets: what is proved for a few hundred holds for a
//! million, and no turn does more than its share.
//!
//! 200,000 unless `CONNECTIONS` says otherwise.

use std::time::Instant;

use heartwheel::base::config::{GatewayConfig, ProbePolicy, Rhythm};
use heartwheel::base::event::{CloseReason, Event, Record};
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Found, Op, SocketHandle};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{Command, Drain, Gateway, Reply};
use heartwheel::wire::message::{Message, Reply as Wanted};
use heartwheel::wire::native::{self, VERSIONS};

use crate::number;
use crate::script::encoded;

const CONNECTIONS_DEFAULT: u64 = 200_000;

/// Every so manieth client falls silent.
const SILENT: usize = 3;

/// A kernel that answers everything at once.
struct Crowd {
    gateway: Gateway,
    now: Moment,
    conns: Vec<ConnId>,
    ops: Vec<Op>,
    records: Vec<Record>,
    accepts: u32,
    looks: usize,
    /// Most operations that one call left behind.
    ops_max: usize,
}

#[test]
fn a_crowd_at_scale_is_told_apart_to_the_last_client() {
    let begin = Instant::now();
    let count = number("CONNECTIONS").unwrap_or(CONNECTIONS_DEFAULT);
    let count = usize::try_from(count).expect("a number of connections");
    let mut crowd = Crowd::new(count);
    crowd.come(count);
    crowd.gateway.check();
    let rhythm = Rhythm { interval: Span::from_secs(60), timeout: Span::from_secs(150) };
    // Two thirds beat, twice; then time runs past the deadline of the others.
    for _ in 0..2 {
        crowd.now += rhythm.interval.times(4).divided_by(5);
        crowd.beat();
    }
    let offline = crowd.wait(rhythm.timeout.minus(rhythm.interval));
    let silent = count.div_ceil(SILENT);
    assert_eq!(offline.len(), silent, "exactly the silent ones are judged");
    let mut judged = offline;
    judged.sort_unstable();
    let mut expected: Vec<_> = crowd.conns.iter().step_by(SILENT).copied().collect();
    expected.sort_unstable();
    assert_eq!(judged, expected);
    assert_eq!(crowd.looks, silent, "one last look each, and nobody else pays");
    let bound = limits::EXPIRE_BATCH_MAX * 4;
    assert!(crowd.ops_max <= bound, "P6: one call asked for {} operations", crowd.ops_max);
    crowd.gateway.check();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{count} connections came, beat, were told apart: {seconds:.1} s");
    crowd.leave(count - silent);
    println!("and left: {:.1} s", begin.elapsed().as_secs_f64());
}

impl Crowd {
    fn new(count: usize) -> Self {
        let config = GatewayConfig {
            rhythm: Rhythm::new(Span::from_secs(60), Span::from_secs(150)).expect("a rhythm"),
            probe: ProbePolicy::Off,
            connections_max: u32::try_from(count).expect("below the limit"),
            ..GatewayConfig::default()
        };
        let now = Moment::from_millis(1);
        let mut crowd = Self {
            gateway: Gateway::new(config, now),
            now,
            conns: Vec::new(),
            ops: Vec::new(),
            records: Vec::new(),
            accepts: 0,
            looks: 0,
            ops_max: 0,
        };
        crowd.carry_out();
        crowd
    }

    fn tell(&mut self, completion: Completion<'_>) {
        self.gateway.on_completion(completion, self.now);
        self.carry_out();
    }

    /// Does what the gateway asks for, and tells it so, until it asks for nothing more.
    fn carry_out(&mut self) {
        let mut ops = std::mem::take(&mut self.ops);
        loop {
            self.gateway.take_ops(&mut ops);
            self.ops_max = self.ops_max.max(ops.len());
            if ops.is_empty() {
                self.ops = ops;
                return;
            }
            for op in ops.drain(..) {
                self.carry_out_one(op);
            }
        }
    }

    fn carry_out_one(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::Accept { count } => self.accepts += count,
            Op::StopAccepting => {
                for _ in 0..std::mem::take(&mut self.accepts) {
                    let fault = heartwheel::base::io::IoFault::Cancelled;
                    self.gateway.on_completion(Completion::AcceptFailed { fault }, now);
                }
            }
            Op::Adopt { conn, .. } => self.conns.push(conn),
            Op::Send { conn, chunk } => {
                let result = Ok(chunk.len());
                self.gateway.on_completion(Completion::Sent { conn, chunk, result }, now);
            }
            Op::Look { conn } => {
                self.looks += 1;
                let found = Found::Nothing;
                self.gateway.on_completion(Completion::Looked { conn, found, tcp: None }, now);
            }
            Op::Close { conn, .. } => {
                self.gateway.on_completion(Completion::Closed { conn }, now);
            }
            Op::Receive { .. } | Op::SetUserTimeout { .. } => {}
            Op::Connect(_) | Op::Discard { .. } | Op::Pause { .. } | Op::Move(_) => {
                panic!("nobody asked for {op:?}")
            }
        }
    }

    fn come(&mut self, count: usize) {
        let mut preface = Vec::new();
        native::encode_preface(VERSIONS, &mut preface);
        let peer = "127.0.0.1:9".parse().expect("an address");
        for number in 0..count {
            assert!(self.accepts > 0, "nobody accepts");
            self.accepts -= 1;
            self.tell(Completion::Accepted { socket: SocketHandle(number as u64), peer });
            let hello = encoded(&Message::Hello {
                wanted_interval_ms: 0,
                client_id: &format!("device-{number}"),
                class: "",
                token: &[],
                resume: &[],
                last_seq: 0,
                before: None,
            });
            let bytes = [preface.as_slice(), &hello].concat();
            let conn = self.conns[number];
            self.tell(Completion::Received { conn, bytes: &bytes });
            if number.is_multiple_of(limits::EXPIRE_BATCH_MAX) {
                self.read();
                self.records.clear();
            }
        }
        self.read();
        self.records.clear();
        let stats = self.gateway.stats();
        assert_eq!((stats.connections, stats.online), (count, count));
    }

    fn beat(&mut self) {
        let beat = encoded(&Message::Ping { reply: Wanted::NotWanted, payload: &[] });
        self.walk_to_now();
        for index in (0..self.conns.len()).filter(|index| !index.is_multiple_of(SILENT)) {
            let conn = self.conns[index];
            self.tell(Completion::Received { conn, bytes: &beat });
        }
    }

    /// The loop turns while nothing happens: it must not take the wait for a stall.
    fn walk_to_now(&mut self) {
        let upto = self.now;
        self.now = self.gateway.next_wake().expect("somebody is here").min(upto);
        while self.now < upto {
            self.gateway.on_time(self.now);
            self.carry_out();
            let wake = self.gateway.next_wake().expect("somebody is here");
            self.now = wake.max(self.now + Span::from_micros(1)).min(upto);
        }
        self.gateway.on_time(upto);
        self.carry_out();
    }

    /// Waits, and says who was judged.
    fn wait(&mut self, span: Span) -> Vec<ConnId> {
        self.now += span;
        self.walk_to_now();
        self.read();
        let judged = self.records.drain(..).map(|record| {
            let Event::Offline { conn, reason: CloseReason::HeartbeatTimeout, .. } = record.event
            else {
                panic!("the ledger says {record:?}")
            };
            conn
        });
        judged.collect()
    }

    fn read(&mut self) {
        self.gateway.take_events(&mut self.records, usize::MAX);
    }

    /// Everybody is asked to leave, a batch in each turn, and does.
    fn leave(mut self, count: usize) {
        let drain = Command::Drain(Drain::at_once(Span::from_secs(1)));
        assert_eq!(self.gateway.on_command(drain, self.now), Reply::Done);
        let mut turns = 0;
        while !self.gateway.is_drained() {
            turns += 1;
            assert!(turns < self.conns.len() + 1_000, "it never ends");
            self.gateway.on_time(self.now);
            self.carry_out();
            let wake = self.gateway.next_wake().unwrap_or(self.now);
            self.now = wake.max(self.now + Span::from_micros(1));
        }
        self.read();
        let offline = |record: &&Record| matches!(record.event, Event::Offline { .. });
        assert_eq!(self.records.iter().filter(offline).count(), count);
        assert_eq!(self.gateway.stats().connections, 0);
    }
}
