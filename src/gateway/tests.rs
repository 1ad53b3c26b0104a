//! The gateway with a kernel that does what the test says. Virtual time, no sockets.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks out the operation it looks for, whatever others there are"
)]

use std::net::SocketAddr;

use crate::base::config::{GatewayConfig, Mode, ProbePolicy, Rhythm};
use crate::base::event::{CloseReason, Event, Probe, Record};
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::{
    Chunk, CloseHow, Completion, Found, IoFault, Op, ReceiveEnd, SocketHandle, TcpFacts,
};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::{Command, Drain, Gateway, Kick, Reply, resume};
use crate::wire::message::{Before, Message, Reply as PingReply};
use crate::wire::native::{self, Deframer, Inbound};

mod admission;
mod answers;
mod broadcast;
mod browsers;
mod certified;
mod drain;
mod edges;
mod groups;
mod identity;
mod measure;
mod moves;
mod paused;
mod push;
mod reconfigure;
mod sessions;
mod strangers;
mod transport;
mod up;

/// A gateway, and what it asked for.
struct Stage {
    gateway: Gateway,
    now: Moment,
    ops: Vec<Op>,
    records: Vec<Record>,
    accepts: u32,
    sockets: u64,
}

fn config() -> GatewayConfig {
    GatewayConfig {
        rhythm: Rhythm { interval: Span::from_secs(15), timeout: Span::from_secs(35) },
        probe: ProbePolicy::Off,
        connections_max: 4,
        ..GatewayConfig::default()
    }
}

impl Stage {
    fn new(config: GatewayConfig) -> Self {
        let now = Moment::from_millis(1_000);
        let mut stage = Self {
            gateway: Gateway::new(config, now),
            now,
            ops: Vec::new(),
            records: Vec::new(),
            accepts: 0,
            sockets: 0,
        };
        stage.settle();
        stage
    }

    fn settle(&mut self) {
        self.gateway.check();
        self.gateway.take_ops(&mut self.ops);
        self.gateway.take_events(&mut self.records, usize::MAX);
        self.ops.retain(|op| match op {
            Op::Accept { count } => {
                self.accepts += count;
                false
            }
            _ => true,
        });
    }

    fn complete(&mut self, completion: Completion<'_>) {
        self.gateway.on_completion(completion, self.now);
        self.settle();
    }

    /// Time passes, and the gateway is told as often as it wants to be.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        while self.now < until {
            self.now = (self.now + limits::SLEEP_MAX).min(until);
            self.gateway.on_time(self.now);
            self.settle();
        }
        self.gateway.on_time(self.now);
        self.settle();
    }

    /// Time passes, and we stand still.
    fn stand_still(&mut self, span: Span) {
        self.now += span;
    }

    fn connect(&mut self) -> ConnId {
        self.connect_from("127.0.0.1").expect("every socket becomes a connection")
    }

    /// A connection from there; `None`: it was closed unread.
    fn connect_from(&mut self, address: &str) -> Option<ConnId> {
        assert!(self.accepts > 0, "nobody can come in");
        self.accepts -= 1;
        self.sockets += 1;
        let socket = SocketHandle(self.sockets);
        let port = 10_000 + u16::try_from(self.sockets % 50_000).expect("small");
        let peer = SocketAddr::new(address.parse().expect("an address"), port);
        self.complete(Completion::Accepted { socket, peer });
        if self.takes(|op| matches!(op, Op::Discard { socket: of } if *of == socket)) {
            return None;
        }
        let adopted = self.ops.iter().find_map(|op| match op {
            Op::Adopt { socket: adopted, conn } if *adopted == socket => Some(*conn),
            _ => None,
        });
        let conn = adopted.expect("every socket becomes a connection");
        assert!(self.ops.iter().any(|op| matches!(op, Op::Receive { conn: of } if *of == conn)));
        self.ops.retain(|op| !matches!(op, Op::Adopt { .. } | Op::Receive { .. }));
        Some(conn)
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.complete(Completion::Received { conn, bytes });
    }

    fn say(&mut self, conn: ConnId, message: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        self.receive(conn, &bytes);
    }

    fn hello(&mut self, conn: ConnId, client_id: &str, class: &str, wanted_interval_ms: u32) {
        self.say_hello(
            conn,
            &Message::Hello {
                wanted_interval_ms,
                client_id,
                class,
                token: &[],
                resume: &[],
                last_seq: 0,
                before: None,
            },
        );
    }

    fn say_hello(&mut self, conn: ConnId, hello: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode_preface(native::VERSIONS, &mut bytes);
        native::encode(hello, &mut bytes);
        self.receive(conn, &bytes);
    }

    /// A client comes back by a new connection, with the token it has and what it saw.
    fn come_back(&mut self, client_id: &str, resume: &[u8], before: Option<Before>) -> ConnId {
        let hello = self.hello_again(client_id, resume, before);
        self.come_back_with(&hello)
    }

    fn hello_again<'a>(
        &self,
        client_id: &'a str,
        resume: &'a [u8],
        before: Option<Before>,
    ) -> Message<'a> {
        Message::Hello {
            wanted_interval_ms: 0,
            client_id,
            class: "",
            token: &[],
            resume,
            last_seq: 0,
            before,
        }
    }

    fn come_back_with(&mut self, hello: &Message<'_>) -> ConnId {
        let conn = self.connect();
        self.say_hello(conn, hello);
        conn
    }

    /// The resume token of a session.
    fn token(&self, client: &str, epoch: u64) -> Vec<u8> {
        resume::token([0, 0], client, epoch).to_vec()
    }

    fn is_lost(&mut self, conn: ConnId) {
        self.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Fault(IoFault::Reset) });
        assert!(self.closes(conn).is_some());
    }

    fn login(&mut self, client: &str) -> ConnId {
        let conn = self.connect();
        self.hello(conn, client, "", 0);
        let heard = self.hear(conn);
        assert!(heard[0].starts_with("Welcome"), "{heard:?}");
        conn
    }

    /// Lets a send that is under way succeed, and says what the peer heard by it.
    fn hear(&mut self, conn: ConnId) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(chunk) = self.take_send(conn) {
            let mut deframer = Deframer::client_side();
            let mut bytes = chunk.unsent();
            while let Some(inbound) = deframer.next(&mut bytes, 65_535).expect("our own frames") {
                match inbound {
                    Inbound::Message(message) => heard.push(format!("{message:?}")),
                    Inbound::Preface(_) | Inbound::Skipped { .. } => panic!("{inbound:?}"),
                }
            }
            let result = Ok(chunk.len());
            self.complete(Completion::Sent { conn, chunk, result });
        }
        heard
    }

    fn take_send(&mut self, conn: ConnId) -> Option<Chunk> {
        let at =
            self.ops.iter().position(|op| matches!(op, Op::Send { conn: of, .. } if *of == conn));
        match self.ops.remove(at?) {
            Op::Send { chunk, .. } => Some(chunk),
            op => panic!("{op:?}"),
        }
    }

    fn takes(&mut self, wanted: impl Fn(&Op) -> bool) -> bool {
        let at = self.ops.iter().position(wanted);
        at.map(|at| self.ops.remove(at)).is_some()
    }

    fn looks_at(&mut self, conn: ConnId) -> bool {
        self.takes(|op| matches!(op, Op::Look { conn: of } if *of == conn))
    }

    fn sees_nothing(&mut self, conn: ConnId) {
        assert!(self.looks_at(conn));
        self.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    }

    fn closes(&mut self, conn: ConnId) -> Option<CloseHow> {
        let at =
            self.ops.iter().position(|op| matches!(op, Op::Close { conn: of, .. } if *of == conn));
        match self.ops.remove(at?) {
            Op::Close { how, .. } => {
                self.complete(Completion::Closed { conn });
                Some(how)
            }
            op => panic!("{op:?}"),
        }
    }

    /// The events since the last call, in a word or two each.
    fn events(&mut self) -> Vec<String> {
        let words = self.records.drain(..).map(|record| match record.event {
            Event::Online { client, epoch, .. } => format!("online {client} {epoch}"),
            Event::Offline { client, epoch, reason, .. } => {
                format!("offline {client} {epoch} {reason}")
            }
            Event::Resumed { client, epoch, away, .. } => {
                format!("resumed {client} {epoch} {away}")
            }
            Event::Contested { client, count, .. } => format!("contested {client} {count}"),
            Event::Rhythm { client, epoch, interval, timeout } => {
                format!("rhythm {client} {epoch} {interval} {timeout}")
            }
            Event::Stalled { gap } => format!("stalled {gap}"),
            Event::Started { .. } | Event::Stopped => record.event.word().to_owned(),
        });
        words.collect()
    }
}

#[test]
fn a_client_says_hello_and_is_online() {
    let mut stage = Stage::new(config());
    let conn = stage.connect();
    stage.hello(conn, "anna", "", 0);
    let heard = stage.hear(conn);
    assert!(heard[0].contains("interval_ms: 15000, timeout_ms: 35000"), "{heard:?}");
    assert_eq!(stage.events(), ["started", "online anna 1"]);
    assert_eq!(stage.gateway.stats().online, 1);
}

#[test]
fn beats_put_the_deadline_off_and_are_answered_in_one_send() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    for _ in 0..20 {
        stage.pass(Span::from_secs(30));
        let mut bytes = Vec::new();
        for payload in [b"1", b"2"] {
            let ping = Message::Ping { reply: PingReply::Wanted, payload };
            native::encode(&ping, &mut bytes);
        }
        stage.receive(conn, &bytes);
        assert_eq!(stage.hear(conn).len(), 2);
    }
    assert!(!stage.looks_at(conn));
    assert_eq!(stage.events().len(), 2, "started, online, and nothing else");
}

#[test]
fn a_beat_that_wants_no_answer_gets_none() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.say(conn, &Message::Ping { reply: PingReply::NotWanted, payload: b"" });
    assert!(stage.hear(conn).is_empty());
}

#[test]
fn silence_is_judged_at_the_deadline_and_not_before() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(34_999));
    assert!(!stage.looks_at(conn));
    stage.pass(Span::from_millis(1 + 10));
    assert!(stage.looks_at(conn));
    assert_eq!(stage.events(), ["started", "online anna 1"], "a suspicion is not a verdict");
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    assert_eq!(stage.events(), ["offline anna 1 heartbeat_timeout"]);
    assert!(stage.hear(conn)[0].contains("code: 202"));
    assert_eq!(stage.closes(conn), Some(CloseHow::Abort));
    assert_eq!(stage.gateway.stats().connections, 0);
}

#[test]
fn bytes_that_wait_to_be_read_save_a_client() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_secs(36));
    assert!(stage.looks_at(conn));
    stage.complete(Completion::Looked { conn, found: Found::Bytes, tcp: None });
    stage.say(conn, &Message::Ping { reply: PingReply::NotWanted, payload: b"" });
    stage.pass(Span::from_secs(1));
    assert!(!stage.looks_at(conn));
    assert_eq!(stage.gateway.stats().rescued, 1);
    stage.pass(Span::from_secs(36));
    assert!(stage.looks_at(conn), "and only once");
}

#[test]
fn a_beat_between_suspicion_and_look_saves_a_client() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_secs(36));
    assert!(stage.looks_at(conn));
    stage.say(conn, &Message::Ping { reply: PingReply::NotWanted, payload: b"" });
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    assert_eq!(stage.events(), ["started", "online anna 1"]);
    stage.pass(Span::from_secs(36));
    assert!(stage.looks_at(conn));
}

#[test]
fn a_look_that_was_answered_late_judges_by_when_it_was_asked() {
    let mut stage = Stage::new(config());
    let newcomer = stage.connect();
    stage.pass(Span::from_millis(10_010));
    assert!(stage.looks_at(newcomer));
    stage.hello(newcomer, "anna", "", 0);
    // The process stands still; beats came meanwhile, and wait behind the answer to the look.
    stage.now += Span::from_secs(100);
    stage.complete(Completion::Looked { conn: newcomer, found: Found::Nothing, tcp: None });
    stage.say(newcomer, &Message::Ack { seq: 1 });
    stage.pass(Span::from_secs(1));
    assert_eq!(stage.gateway.stats().online, 1);
}

#[test]
fn endings_that_the_kernel_reports_have_their_reasons() {
    let conn_fault = |fault| ReceiveEnd::Fault(fault);
    for (name, end, reason) in [
        ("a FIN", ReceiveEnd::Eof, "closed_by_peer"),
        ("a RST", conn_fault(IoFault::Reset), "reset"),
        ("keep-alive", conn_fault(IoFault::TimedOut), "tcp_timeout"),
        ("anything else", conn_fault(IoFault::Other(5)), "network_fault"),
    ] {
        let mut stage = Stage::new(config());
        let conn = stage.login("anna");
        stage.complete(Completion::ReceiveEnded { conn, end });
        let offline = format!("offline anna 1 {reason}");
        assert_eq!(stage.events(), ["started", "online anna 1", offline.as_str()], "{name}");
        assert!(stage.closes(conn).is_some(), "{name}");
    }
}

#[test]
fn a_receive_that_ended_for_no_fault_of_the_peer_is_armed_again() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    for end in [ReceiveEnd::Starved, ReceiveEnd::Interrupted] {
        stage.complete(Completion::ReceiveEnded { conn, end });
        assert!(stage.takes(|op| matches!(op, Op::Receive { conn: of } if *of == conn)));
    }
    assert_eq!(stage.gateway.stats().receives_rearmed, 2);
    assert_eq!(stage.gateway.stats().online, 1);
}

#[test]
fn a_newer_login_takes_over_and_the_older_one_is_told_why() {
    let mut stage = Stage::new(config());
    let older = stage.login("anna");
    let newer = stage.login("anna");
    let events = stage.events();
    assert_eq!(events, ["started", "online anna 1", "offline anna 1 replaced", "online anna 2"]);
    assert!(stage.hear(older)[0].contains("code: 102"));
    stage.complete(Completion::ReceiveEnded { conn: older, end: ReceiveEnd::Eof });
    assert_eq!(stage.closes(older), Some(CloseHow::Finish));
    assert!(stage.events().is_empty(), "the late close of the older ends nothing");
    assert_eq!(stage.gateway.stats().online, 1);
    stage.say(newer, &Message::Bye { code: 100 });
    assert_eq!(stage.events(), ["offline anna 2 bye"]);
}

#[test]
fn whoever_comes_back_is_online_again_with_a_larger_epoch() {
    let mut stage = Stage::new(config());
    for epoch in 1..=3 {
        let conn = stage.login("anna");
        stage.say(conn, &Message::Bye { code: 100 });
        assert_eq!(stage.closes(conn), Some(CloseHow::Finish));
        let events = stage.events();
        let expected = [format!("online anna {epoch}"), format!("offline anna {epoch} bye")];
        assert_eq!(events[events.len() - 2..], expected);
    }
}

#[test]
fn wishes_are_granted_within_limits() {
    for (name, class, wanted_ms, interval_ms, timeout_ms) in [
        ("no wish", "", 0, 15_000, 35_000),
        ("a preset", "demanding", 0, 2_000, 7_000),
        ("another preset", "mobile", 0, 240_000, 300_000),
        ("an unknown class", "toaster", 0, 15_000, 35_000),
        ("an interval", "", 30_000, 30_000, 70_000),
        ("nonsense, too short", "", 1, 1_000, 2_333),
        ("nonsense, too long", "", u32::MAX, 3_600_000, 8_400_000),
    ] {
        let mut stage = Stage::new(config());
        let conn = stage.connect();
        stage.hello(conn, "anna", class, wanted_ms);
        let heard = stage.hear(conn);
        let granted = format!("interval_ms: {interval_ms}, timeout_ms: {timeout_ms}");
        assert!(heard[0].contains(&granted), "{name}: {heard:?}");
        let tuned = stage.takes(|op| matches!(op, Op::SetUserTimeout { .. }));
        assert_eq!(tuned, timeout_ms != 35_000, "{name}");
    }
}

#[test]
fn nobody_dawdles() {
    let mut stage = Stage::new(config());
    let conn = stage.connect();
    stage.receive(conn, b"\xb7HWP");
    stage.pass(Span::from_millis(10_010));
    stage.sees_nothing(conn);
    assert!(stage.hear(conn)[0].contains("code: 404"), "the handshake has a deadline");

    let conn = stage.login("anna");
    stage.receive(conn, &[3]);
    for _ in 0..9 {
        stage.pass(Span::from_secs(1));
    }
    stage.receive(conn, &[0]);
    stage.pass(Span::from_millis(1_010));
    stage.sees_nothing(conn);
    assert!(
        stage.hear(conn)[0].contains("code: 405"),
        "a frame has a deadline from its first byte"
    );
}

#[test]
fn a_partial_frame_proves_no_life() {
    let mut stage = Stage::new(GatewayConfig { frame_timeout: Span::from_secs(100), ..config() });
    let conn = stage.login("anna");
    stage.pass(Span::from_secs(34));
    stage.receive(conn, &[3, 0]);
    stage.pass(Span::from_millis(1_010));
    assert!(stage.looks_at(conn));
}

#[test]
fn a_stream_cut_within_every_frame_is_no_dawdling() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.receive(conn, &[3, 1]);
    for _ in 0..30 {
        stage.pass(Span::from_secs(1));
        stage.receive(conn, &[0, 0, 3, 1]);
        assert!(!stage.looks_at(conn));
    }
    assert_eq!(stage.gateway.stats().online, 1, "each frame was complete within a second");
    stage.pass(Span::from_millis(10_010));
    stage.sees_nothing(conn);
    assert_eq!(stage.gateway.stats().ended(CloseReason::FrameTimeout), 1);
}

#[test]
fn a_look_does_not_forget_the_deadline_of_a_frame() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_secs(36));
    assert!(stage.looks_at(conn));
    stage.receive(conn, &[3, 1, 0, 0, 3]);
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    stage.pass(Span::from_millis(10_010));
    stage.sees_nothing(conn);
    assert_eq!(stage.gateway.stats().ended(CloseReason::FrameTimeout), 1);
}

#[test]
fn a_server_that_pings_does_so_after_an_interval_of_silence() {
    let mut stage = Stage::new(GatewayConfig { mode: Mode::Server, ..config() });
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(15_010));
    assert!(stage.hear(conn)[0].contains("AtOnce"));
    stage.say(conn, &Message::Pong { payload: b"" });
    stage.pass(Span::from_millis(15_010));
    assert_eq!(stage.hear(conn).len(), 1, "one PING an interval");
    stage.pass(Span::from_millis(20_000));
    assert!(stage.looks_at(conn), "dead after the timeout, counted from the last frame");
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    assert!(stage.events().last().is_some_and(|event| event.ends_with("heartbeat_timeout")));
}

#[test]
fn nobody_is_judged_who_was_not_pinged_in_time_to_answer() {
    let mut stage = Stage::new(GatewayConfig { mode: Mode::Server, ..config() });
    let conn = stage.login("anna");
    // Standing still more briefly than is noticed, again and again, past ping and deadline.
    for _ in 0..40 {
        stage.stand_still(Span::from_millis(1_400));
        stage.receive(conn, &[]);
    }
    stage.pass(Span::ZERO);
    assert!(!stage.looks_at(conn));
    assert!(stage.hear(conn)[0].contains("AtOnce"));
    stage.pass(Span::from_millis(9_980));
    assert!(!stage.looks_at(conn), "half of the usual twenty seconds");
    stage.pass(Span::from_millis(40));
    stage.sees_nothing(conn);
    assert!(stage.events().last().is_some_and(|event| event.ends_with("heartbeat_timeout")));
}

#[test]
fn standing_still_is_credited_to_everybody_at_once() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_secs(30));
    stage.stand_still(Span::from_secs(600));
    stage.pass(Span::ZERO);
    stage.pass(Span::from_millis(4_990));
    assert!(!stage.looks_at(conn), "of thirty-five seconds it has lived fewer");
    stage.pass(Span::from_millis(30));
    stage.sees_nothing(conn);
    assert_eq!(stage.gateway.stats().stalls, 1);
    assert_eq!(stage.gateway.stats().stalled, Span::from_secs(600));
    let offline = stage.records.iter().find_map(|record| match &record.event {
        Event::Offline { last_beat, evidence, .. } => {
            Some((record.at.since(*last_beat), *evidence))
        }
        _ => None,
    });
    let (silence, evidence) = offline.expect("it is dead");
    assert_eq!(evidence.stalled, Span::from_secs(600));
    assert_eq!(evidence.beats_missed, 2);
    assert_eq!(silence, Span::from_millis(635_020), "dates are the clock's");
    let events = stage.events();
    assert_eq!(events[2..], ["stalled 600s", "offline anna 1 heartbeat_timeout"]);
}

#[test]
fn a_beat_that_waited_while_we_stood_still_counts_from_when_we_heard_it() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.stand_still(Span::from_secs(100));
    stage.say(conn, &Message::Ping { reply: PingReply::NotWanted, payload: b"" });
    stage.pass(Span::from_millis(34_990));
    assert!(!stage.looks_at(conn));
    stage.pass(Span::from_millis(30));
    assert!(stage.looks_at(conn), "and the gap is not credited to it as well");
}

#[test]
fn a_silent_client_is_suspect_is_asked_and_only_then_judged() {
    let mut stage = Stage::new(GatewayConfig { probe: ProbePolicy::Auto, ..config() });
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(30_010));
    assert!(stage.hear(conn)[0].contains("AtOnce"), "five seconds before the deadline");
    assert_eq!(stage.gateway.stats().tally.suspected, 1, "whoever listens");
    stage.say(conn, &Message::Pong { payload: b"" });
    assert_eq!(stage.gateway.stats().pings_answered, 1);
    stage.pass(Span::from_millis(30_010));
    assert_eq!(stage.hear(conn).len(), 1);
    stage.pass(Span::from_millis(4_970));
    assert!(!stage.looks_at(conn));
    stage.pass(Span::from_millis(30));
    stage.sees_nothing(conn);
    let probe = stage.records.iter().find_map(|record| match &record.event {
        Event::Offline { evidence, .. } => Some(evidence.probe),
        _ => None,
    });
    assert_eq!(probe, Some(Probe::Unanswered), "the verdict comes no later for the probe");
}

#[test]
fn what_tcp_knew_at_the_last_look_is_in_the_evidence() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    stage.pass(Span::from_millis(35_010));
    assert!(stage.looks_at(conn));
    let tcp = Some(TcpFacts { last_ack_received_ms: 7, ..TcpFacts::default() });
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp });
    let other = stage.login("bert");
    stage.say(other, &Message::Bye { code: 100 });
    let seen = stage.records.iter().filter_map(|record| match &record.event {
        Event::Offline { evidence, .. } => Some(evidence.tcp),
        _ => None,
    });
    assert_eq!(seen.collect::<Vec<_>>(), [tcp, None], "each end has its own");
}

#[test]
fn whoever_is_slow_before_hello_or_within_a_frame_gets_a_last_look_too() {
    let mut stage = Stage::new(config());
    let newcomer = stage.connect();
    let dawdler = stage.login("anna");
    stage.receive(dawdler, &[3]);
    stage.pass(Span::from_millis(10_010));
    for conn in [newcomer, dawdler] {
        assert!(stage.looks_at(conn));
        stage.complete(Completion::Looked { conn, found: Found::Bytes, tcp: None });
    }
    stage.hello(newcomer, "bert", "", 0);
    stage.receive(dawdler, &[0, 0, 0]);
    stage.pass(Span::from_secs(1));
    assert_eq!(stage.gateway.stats().online, 2);
    assert_eq!(stage.gateway.stats().rescued, 2);
}

#[test]
fn a_full_house_refuses_politely_and_opens_again() {
    let mut stage = Stage::new(config());
    let inside: Vec<ConnId> = (0..4).map(|number| stage.login(&format!("c{number}"))).collect();
    let refused = stage.connect();
    let heard = stage.hear(refused);
    assert!(heard[0].contains("code: 302"), "{heard:?}");
    assert!(heard[0].contains("reconnect_min_ms: 1000"), "{heard:?}");
    stage.complete(Completion::ReceiveEnded { conn: refused, end: ReceiveEnd::Eof });
    assert!(stage.closes(refused).is_some());
    stage.say(inside[0], &Message::Bye { code: 100 });
    assert!(stage.closes(inside[0]).is_some());
    stage.login("next");
}

#[test]
fn when_even_the_refused_fill_the_table_nobody_more_is_accepted() {
    let mut stage = Stage::new(config());
    let conns: Vec<ConnId> = (0..4 + limits::REFUSALS_MAX).map(|_| stage.connect()).collect();
    assert_eq!(stage.accepts, 0);
    let last = *conns.last().expect("some");
    stage.hear(last);
    stage.pass(Span::from_millis(2_010));
    assert!(stage.closes(last).is_some(), "a refused peer that does not go is closed");
    assert_eq!(stage.accepts, 1);
}

#[test]
fn a_client_that_does_not_read_is_ended() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    let mut flood = Vec::new();
    for _ in 0..16 {
        native::encode(&Message::Ping { reply: PingReply::Wanted, payload: &[7; 16] }, &mut flood);
    }
    let mut rounds = 0;
    while stage.gateway.stats().online == 1 {
        stage.receive(conn, &flood);
        rounds += 1;
        assert!(rounds < 1_000, "the outbox has a bound");
    }
    assert_eq!(stage.events().last().map(String::as_str), Some("offline anna 1 slow_consumer"));
    let chunk = stage.take_send(conn).expect("one send is under way");
    assert!(stage.take_send(conn).is_none(), "and only one");
    stage.complete(Completion::Sent { conn, chunk, result: Err(IoFault::Cancelled) });
    assert_eq!(stage.closes(conn), Some(CloseHow::Abort));
}

#[test]
fn a_drain_tells_everybody_closes_the_rest_and_ends_the_ledger() {
    let mut stage = Stage::new(config());
    let (obedient, deaf) = (stage.login("anna"), stage.login("bert"));
    let greeting = stage.connect();
    stage.gateway.on_command(Command::Drain(Drain::at_once(Span::from_secs(5))), stage.now);
    stage.settle();
    assert!(stage.takes(|op| matches!(op, Op::StopAccepting)));
    for _ in 0..stage.accepts {
        stage.complete(Completion::AcceptFailed { fault: IoFault::Cancelled });
    }
    stage.pass(Span::ZERO);
    for conn in [obedient, deaf, greeting] {
        let heard = stage.hear(conn);
        assert!(heard[0].contains("code: 101"), "{heard:?}");
        assert!(heard[0].contains("reconnect_max_ms: 10000"), "{heard:?}");
    }
    for conn in [obedient, greeting] {
        stage.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
        assert!(stage.closes(conn).is_some());
    }
    stage.pass(Span::from_millis(4_000));
    assert!(stage.closes(deaf).is_none());
    assert!(!stage.gateway.is_drained());
    stage.pass(Span::from_millis(1_010));
    assert!(stage.closes(deaf).is_some());
    stage.pass(Span::ZERO);
    assert!(stage.gateway.is_drained());
    let events = stage.events();
    assert_eq!(events[3..], ["offline anna 1 drain", "offline bert 2 drain", "stopped"]);
}

#[test]
fn an_operator_can_end_a_session() {
    let mut stage = Stage::new(config());
    let conn = stage.login("anna");
    let anna = ClientId::new("anna").expect("a client id");
    let kick = Command::Kick(Kick::of(anna));
    assert_eq!(stage.gateway.on_command(kick.clone(), stage.now), Reply::Done);
    stage.settle();
    assert_eq!(stage.events()[2], "offline anna 1 kicked");
    assert!(stage.hear(conn)[0].contains("code: 300"));
    assert_eq!(stage.gateway.on_command(kick, stage.now), Reply::NoSuchClient);
}

#[test]
fn accepting_pauses_when_the_machine_is_short_of_something() {
    let mut stage = Stage::new(config());
    stage.accepts = 0;
    stage.complete(Completion::AcceptFailed { fault: IoFault::NoDescriptors });
    assert_eq!(stage.accepts, 0);
    assert_eq!(stage.gateway.next_wake(), Some(stage.now + limits::ACCEPT_PAUSE));
    stage.pass(limits::ACCEPT_PAUSE);
    assert_eq!(stage.accepts, 1);
}

#[test]
fn completions_of_a_connection_that_is_gone_do_nothing() {
    let mut stage = Stage::new(config());
    let gone = stage.login("anna");
    stage.say(gone, &Message::Bye { code: 100 });
    assert!(stage.closes(gone).is_some());
    let successor = stage.login("bert");
    stage.receive(gone, b"late bytes");
    stage.complete(Completion::ReceiveEnded { conn: gone, end: ReceiveEnd::Eof });
    stage.complete(Completion::Looked { conn: gone, found: Found::Nothing, tcp: None });
    assert_eq!(stage.gateway.stats().stale, 3);
    assert_eq!(stage.gateway.stats().online, 1);
    assert_ne!(successor, gone);
}
