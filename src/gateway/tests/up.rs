//! DATA on its way up: who takes it, who is told, and who has to wait.

use crate::base::config::{GatewayConfig, Mode, ProbePolicy};
use crate::base::data::{Credit, DataRecord, Fate};
use crate::base::event::CloseReason;
use crate::base::ids::{ClientId, ConnId};
use crate::base::introduction::{Carrier, Introduction};
use crate::base::io::{Chunk, Completion, Found, IoFault, Op, ReceiveEnd};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, Drain, Kick};
use crate::wire::message::{AckWanted, Message, Reply};
use crate::wire::native::{self, Deframer, Inbound};

/// A small budget: of 8 charges of a thousand bytes.
const BODY: [u8; 1_000 - limits::DATA_CHARGE_BYTES] = [7; 1_000 - limits::DATA_CHARGE_BYTES];

fn stage() -> Stage {
    let mut stage = Stage::new(GatewayConfig { up_bytes_max: 8_000, ..config() });
    stage.gateway.set_data_wanted(true);
    stage
}

fn frame(seq: u32, ack: AckWanted) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode(&Message::Data { seq, ack, topic: "", body: &BODY }, &mut bytes);
    bytes
}

pub(super) fn frames(seqs: impl IntoIterator<Item = u32>) -> Vec<u8> {
    seqs.into_iter().flat_map(|seq| frame(seq, AckWanted::Yes)).collect()
}

impl Stage {
    pub(super) fn online(&mut self, client: &str) -> ConnId {
        let conn = self.connect();
        self.hello(conn, client, "", 0);
        self.send_home(conn);
        conn
    }

    /// Whatever is being sent arrives.
    pub(super) fn send_home(&mut self, conn: ConnId) -> Vec<u8> {
        let mut sent = Vec::new();
        while let Some(index) =
            self.ops.iter().position(|op| matches!(op, Op::Send { conn: of, .. } if *of == conn))
        {
            let Op::Send { chunk, .. } = self.ops.remove(index) else { unreachable!() };
            sent.extend_from_slice(chunk.unsent());
            let result = Ok(chunk.len());
            self.complete(Completion::Sent { conn, chunk, result });
        }
        sent
    }

    pub(super) fn data(&mut self) -> Vec<DataRecord> {
        let mut records = Vec::new();
        self.gateway.take_data(&mut records, usize::MAX);
        records.into_iter().map(|record| *record).collect()
    }

    pub(super) fn credit(&mut self, records: &[DataRecord]) {
        self.fate(records, Fate::Taken);
    }

    fn fate(&mut self, records: &[DataRecord], fate: Fate) {
        let credits: Vec<_> =
            records.iter().map(|record| Credit { ticket: record.ticket, fate }).collect();
        self.gateway.on_credits(&credits, self.now);
        self.settle();
    }

    fn take_op(&mut self, wanted: impl Fn(&Op) -> bool) -> bool {
        let before = self.ops.len();
        self.ops.retain(|op| !wanted(op));
        self.ops.len() < before
    }

    pub(super) fn paused(&mut self, conn: ConnId) -> bool {
        let is_asked = self.take_op(|op| matches!(op, Op::Pause { conn: of } if *of == conn));
        if is_asked {
            self.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Paused });
        }
        is_asked
    }

    pub(super) fn receives(&mut self, conn: ConnId) -> bool {
        self.take_op(|op| matches!(op, Op::Receive { conn: of } if *of == conn))
    }

    fn looks(&mut self, conn: ConnId) -> bool {
        self.take_op(|op| matches!(op, Op::Look { conn: of } if *of == conn))
    }
}

fn seqs(records: &[DataRecord]) -> Vec<u32> {
    records.iter().map(|record| record.seq).collect()
}

pub(super) fn ack(seq: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode(&Message::Ack { seq }, &mut bytes);
    bytes
}

#[test]
fn what_nobody_wants_is_counted_and_kept_nowhere() {
    let mut stage = stage();
    stage.gateway.set_data_wanted(false);
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=20));
    assert!(stage.data().is_empty());
    let stats = stage.gateway.stats();
    assert_eq!((stats.data_received, stats.up.unclaimed, stats.up.bytes), (20, 20, 0));
    assert!(stage.send_home(conn).is_empty(), "nobody says that it was taken");
}

#[test]
fn an_ack_says_that_everything_up_to_it_was_taken_and_comes_once() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &[frames([5, 6]), frame(7, AckWanted::No)].concat());
    let records = stage.data();
    assert_eq!(seqs(&records), [5, 6, 7]);
    assert!(stage.send_home(conn).is_empty(), "not taken yet");
    stage.credit(&records[1..]);
    assert!(stage.send_home(conn).is_empty(), "the first is not taken yet");
    stage.credit(&records[..1]);
    assert_eq!(stage.send_home(conn), ack(6), "one for all");
    assert_eq!(stage.gateway.stats().up.bytes, 0);
    stage.credit(&records);
    assert!(stage.send_home(conn).is_empty());
    assert_eq!(stage.gateway.stats().stale, 3, "credit comes once");
}

#[test]
fn what_turns_out_to_be_unclaimed_is_not_acknowledged() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames([1]));
    let records = stage.data();
    stage.fate(&records, Fate::Unclaimed);
    assert!(stage.send_home(conn).is_empty());
    let stats = stage.gateway.stats();
    assert_eq!((stats.up.taken, stats.up.unclaimed, stats.up.bytes), (0, 1, 0));
}

#[test]
fn who_sends_most_is_stopped_first_and_read_on_in_order() {
    let mut stage = stage();
    let (chatty, calm) = (stage.online("chatty"), stage.online("calm"));
    stage.receive(chatty, &frames(1..=6));
    assert!(stage.paused(chatty), "five are more than the three that are left");
    assert_eq!(seqs(&stage.data()), [1, 2, 3, 4, 5]);
    stage.receive(calm, &frames([1]));
    assert!(!stage.paused(calm));
    let calms = stage.data();
    assert_eq!(seqs(&calms), [1], "and it is heard");
    let stats = stage.gateway.stats();
    assert_eq!((stats.up.bytes, stats.up.stopped, stats.up.stops), (6_000, 1, 1));
    assert_eq!(stats.up.unread_bytes, frames([6]).len());
    stage.credit(&calms);
    assert_eq!(stage.send_home(calm), ack(1));
    assert!(!stage.receives(chatty));
}

#[test]
fn who_was_stopped_goes_on_where_it_was_as_soon_as_there_is_credit() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=8));
    assert!(stage.paused(conn));
    stage.receive(conn, &[]);
    let records = stage.data();
    assert_eq!(records.len(), 5);
    stage.credit(&records[..2]);
    assert!(!stage.receives(conn), "three are more than half of five");
    stage.credit(&records[2..3]);
    // What was kept is acted on first, and it is three more.
    assert_eq!(seqs(&stage.data()), [6, 7, 8]);
    assert_eq!(stage.send_home(conn), [ack(2), ack(3)].concat());
    assert!(!stage.receives(conn), "and so it is stopped again");
    assert_eq!(stage.gateway.stats().up.stops, 2);
    stage.credit(&records[3..]);
    assert!(!stage.receives(conn));
}

#[test]
fn credit_that_comes_before_the_kernel_has_stopped_is_not_lost() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=5));
    let records = stage.data();
    stage.credit(&records);
    assert!(!stage.receives(conn), "one is under way");
    assert!(stage.paused(conn));
    assert!(stage.receives(conn));
    stage.receive(conn, &frames([6]));
    assert_eq!(seqs(&stage.data()), [6]);
}

#[test]
fn a_client_that_is_not_read_is_not_judged_while_its_bytes_wait() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=5));
    assert!(stage.paused(conn));
    stage.pass(Span::from_secs(35));
    for round in 0..10 {
        assert!(stage.looks(conn), "round {round}");
        let found = Found::Bytes;
        stage.complete(Completion::Looked { conn, found, tcp: None });
        stage.pass(Span::from_secs(10));
        assert!(!stage.looks(conn), "once in an interval is often enough");
        stage.pass(Span::from_secs(5));
    }
    assert!(stage.looks(conn));
    let found = Found::Bytes;
    stage.complete(Completion::Looked { conn, found, tcp: None });
    assert_eq!(stage.gateway.stats().online, 1);
    let records = stage.data();
    stage.credit(&records);
    assert!(stage.receives(conn));
    stage.receive(conn, &frames([6]));
    stage.pass(Span::from_secs(34));
    assert!(!stage.looks(conn), "it was heard");
    stage.pass(Span::from_secs(1));
    assert!(stage.looks(conn), "and has its timeout from then on");
}

/// The kernel takes its time to stop, and what it still receives is told before the look is
/// answered, which then finds an empty socket.
#[test]
fn what_comes_between_the_suspicion_and_the_look_counts_though_it_is_not_read() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=5));
    stage.pass(Span::from_secs(35));
    assert!(stage.looks(conn), "so far it has said nothing");
    stage.receive(conn, &frames([6]));
    let found = Found::Nothing;
    stage.complete(Completion::Looked { conn, found, tcp: None });
    assert_eq!(stage.gateway.stats().online, 1, "it said something, and was not read");
    stage.pass(Span::from_secs(100));
    assert!(!stage.looks(conn), "there is no need to look for what is here");
    assert_eq!(stage.gateway.stats().online, 1);
    let records = stage.data();
    stage.credit(&records);
    assert_eq!(seqs(&stage.data()), [6]);
}

#[test]
fn a_client_that_is_not_read_and_says_nothing_is_judged_as_ever() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=5));
    assert!(stage.paused(conn));
    stage.pass(Span::from_secs(35));
    assert!(stage.looks(conn));
    let found = Found::Nothing;
    stage.complete(Completion::Looked { conn, found, tcp: None });
    assert_eq!(stage.gateway.stats().ended(CloseReason::HeartbeatTimeout), 1);
    assert!(stage.receives(conn), "its end is waited for");
    let records = stage.data();
    stage.credit(&records);
    assert_eq!(stage.gateway.stats().up.bytes, 0, "what it sent is taken all the same");
}

/// It waits for the answer to a PING that we have not read.
#[test]
fn a_client_that_is_not_read_is_shown_in_every_interval_that_we_live() {
    for unread in [5, 6] {
        let mut stage = stage();
        let conn = stage.online("a");
        stage.receive(conn, &frames(1..=unread));
        let mut ping = Vec::new();
        native::encode(&Message::Ping { reply: Reply::NotWanted, payload: &[] }, &mut ping);
        for interval in 0..10 {
            for _ in 0..15 {
                stage.pass(Span::from_millis(1_001));
                if stage.looks(conn) {
                    let found = Found::Bytes;
                    stage.complete(Completion::Looked { conn, found, tcp: None });
                }
            }
            // Once more where its deadline passes.
            let sent = stage.send_home(conn);
            assert!(sent == ping || sent == ping.repeat(2), "{interval}: {sent:?}");
        }
        let records = stage.data();
        stage.credit(&records);
        stage.pass(Span::from_secs(16));
        let sent = stage.send_home(conn);
        assert!(!sent.ends_with(&ping), "it is read");
    }
}

#[test]
fn what_was_received_before_the_kernel_stopped_counts_as_waiting() {
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=6));
    stage.pass(Span::from_secs(120));
    assert!(!stage.looks(conn), "it is known that it has said something");
    assert_eq!(stage.gateway.stats().online, 1);
}

#[test]
fn an_end_behind_bytes_that_are_not_read_is_found_behind_them() {
    let mut first = stage();
    let conn = first.online("a");
    first.receive(conn, &frames(1..=6));
    first.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
    assert_eq!(first.gateway.stats().online, 1, "it said something before that");
    let records = first.data();
    first.credit(&records);
    assert_eq!(seqs(&first.data()), [6]);
    assert_eq!(first.gateway.stats().online, 0);
    let mut stage = stage();
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=5));
    stage.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
    assert_eq!(stage.gateway.stats().online, 0, "nothing is before it");
}

/// Its peer sends nothing again, whoever waits for what came before.
#[test]
fn a_connection_that_breaks_behind_unread_bytes_is_told_at_once() {
    for is_found_by_a_look in [false, true] {
        let mut stage = stage();
        let conn = stage.online("a");
        stage.receive(conn, &frames(1..=5));
        if is_found_by_a_look {
            stage.pass(Span::from_secs(35));
            assert!(stage.looks(conn));
        }
        stage.receive(conn, &frames([6]));
        assert_eq!(stage.gateway.stats().up.unread_bytes, frames([6]).len());
        let fault = IoFault::Reset;
        stage.complete(match is_found_by_a_look {
            false => Completion::ReceiveEnded { conn, end: ReceiveEnd::Fault(fault) },
            true => Completion::Looked { conn, found: Found::Fault(fault), tcp: None },
        });
        let stats = stage.gateway.stats();
        assert_eq!((stats.online, stats.up.stopped, stats.up.unread_bytes), (0, 0, 0));
        let records = stage.data();
        stage.credit(&records);
        assert_eq!(seqs(&records), [1, 2, 3, 4, 5], "what was handed up before is taken");
    }
}

#[test]
fn a_client_that_is_not_read_can_be_ended_and_is_then_read_for_its_end() {
    for drains in [false, true] {
        let mut stage = stage();
        let conn = stage.online("a");
        stage.receive(conn, &frames(1..=6));
        if drains {
            assert!(stage.paused(conn));
            let within = Span::from_secs(5);
            stage.gateway.on_command(Command::Drain(Drain::at_once(within)), stage.now);
            stage.pass(Span::ZERO);
            assert!(stage.receives(conn));
        } else {
            let client = ClientId::new("a").expect("an id");
            stage.gateway.on_command(Command::Kick(Kick::of(client)), stage.now);
            stage.settle();
            assert!(stage.paused(conn), "that was on its way");
            assert!(stage.receives(conn));
        }
        let stats = stage.gateway.stats();
        assert_eq!((stats.online, stats.up.stopped, stats.up.unread_bytes), (0, 0, 0));
        let records = stage.data();
        stage.credit(&records);
        assert_eq!(stage.gateway.stats().up.bytes, 0);
    }
}

#[test]
fn memory_has_a_bound_that_no_credit_moves() {
    let mut stage = stage();
    let conn = stage.online("a");
    let most = 2 * 8_000 + limits::UP_OVERSHOOT_BYTES;
    let piece = frames(1..=100);
    for _ in 0..=most / piece.len() {
        if stage.gateway.stats().online == 1 {
            stage.receive(conn, &piece);
        }
        let stats = stage.gateway.stats();
        assert!(stats.up.bytes + stats.up.unread_bytes <= most);
    }
    assert_eq!(stage.gateway.stats().ended(CloseReason::Busy), 1);
    assert_eq!(stage.gateway.stats().up.unread_bytes, 0);
}

#[test]
fn those_who_wait_are_read_on_some_in_each_turn_and_nobody_is_forgotten() {
    let count = 3 * limits::TURN_RESUMES_MAX;
    let connections_max = u32::try_from(count).expect("few");
    let limit = GatewayConfig { up_bytes_max: 8_000, connections_max, ..config() };
    let mut stage = Stage::new(limit);
    stage.gateway.set_data_wanted(true);
    let conns: Vec<_> = (0..count).map(|n| stage.online(&format!("c{n}"))).collect();
    for conn in &conns {
        stage.receive(*conn, &frames([1]));
        stage.paused(*conn);
    }
    let stopped = stage.gateway.stats().up.stopped;
    assert!(stopped > count - 9, "{stopped}");
    let records = stage.data();
    stage.credit(&records);
    assert_eq!(stage.gateway.stats().up.stopped, stopped - limits::TURN_RESUMES_MAX);
    assert_eq!(stage.gateway.next_wake(), Some(Moment::ZERO), "the others wait for no sleep");
    for _ in 0..3 {
        stage.pass(Span::ZERO);
    }
    assert_eq!(stage.gateway.stats().up.stopped, 0);
    let receives = conns.iter().filter(|conn| stage.receives(**conn)).count();
    assert_eq!(receives, stopped);
}

#[test]
fn who_comes_back_to_its_session_hears_what_was_taken_meanwhile() {
    let classes = GatewayConfig { grace: Span::from_secs(30), up_bytes_max: 8_000, ..config() };
    let mut stage = Stage::new(classes);
    stage.gateway.set_data_wanted(true);
    let conn = stage.connect();
    stage.hello(conn, "a", "", 0);
    let token = token_of(&stage.send_home(conn));
    stage.receive(conn, &frames(1..=6));
    let fault = IoFault::Reset;
    stage.paused(conn);
    let chunk = Chunk::from(vec![1]);
    stage.complete(Completion::Sent { conn, chunk, result: Err(fault) });
    let stats = stage.gateway.stats();
    assert_eq!((stats.held, stats.up.stopped, stats.up.unread_bytes), (1, 0, 0));
    let records = stage.data();
    stage.credit(&records[..3]);
    let again = stage.come_back("a", &token, None);
    let sent = stage.send_home(again);
    assert!(sent.ends_with(&ack(3)), "{sent:?}");
    stage.credit(&records[3..]);
    assert_eq!(stage.send_home(again), ack(5));
    stage.receive(again, &frames([6]));
    assert_eq!(seqs(&stage.data()), [6]);
}

/// What was not acknowledged when the connection was lost comes again, and its credit comes back in
/// one batch with that of the first time.
#[test]
fn an_ack_of_what_came_twice_says_all_that_was_taken() {
    let grace = Span::from_secs(30);
    let mut stage = Stage::new(GatewayConfig { grace, up_bytes_max: 16_000, ..config() });
    stage.gateway.set_data_wanted(true);
    let conn = stage.connect();
    stage.hello(conn, "a", "", 0);
    let token = token_of(&stage.send_home(conn));
    stage.receive(conn, &frames(1..=3));
    let end = ReceiveEnd::Fault(IoFault::Reset);
    stage.complete(Completion::ReceiveEnded { conn, end });
    let again = stage.come_back("a", &token, None);
    stage.send_home(again);
    stage.receive(again, &frames([1]));
    let records = stage.data();
    assert_eq!(seqs(&records), [1, 2, 3, 1]);
    stage.credit(&records);
    assert_eq!(stage.send_home(again), ack(3), "all three were taken");
}

pub(super) fn token_of(bytes: &[u8]) -> Vec<u8> {
    let mut deframer = Deframer::client_side();
    let mut rest = bytes;
    match deframer.next(&mut rest, 1_024) {
        Ok(Some(Inbound::Message(Message::Welcome { resume, .. }))) => resume.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_is_not_read_is_not_asked_what_it_could_not_answer() {
    let probe = ProbePolicy::Fixed(Span::from_secs(5));
    let mut stage = Stage::new(GatewayConfig { up_bytes_max: 8_000, probe, ..config() });
    stage.gateway.set_data_wanted(true);
    let conn = stage.online("a");
    stage.receive(conn, &frames(1..=5));
    assert!(stage.paused(conn));
    let mut heard = Vec::new();
    for _ in 0..34 {
        stage.pass(Span::from_secs(1));
        heard.extend(stage.send_home(conn));
    }
    assert_eq!(stage.gateway.stats().pings_sent, 0);
    let mut probe = Vec::new();
    native::encode(&Message::Ping { reply: Reply::AtOnce, payload: &[] }, &mut probe);
    assert!(!heard.windows(probe.len()).any(|bytes| bytes == probe), "no probe");
    // And it is judged at its timeout, if nothing of it waits.
    stage.pass(Span::from_secs(2));
    assert!(stage.looks(conn));
    stage.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
    assert_eq!(stage.gateway.stats().ended(CloseReason::HeartbeatTimeout), 1);
}

/// Where our PING is what a client answers instead of beating, one that is not read goes on to be
/// asked: its answer, which waits in the socket, is all that it ever says.
#[test]
fn a_client_that_beats_by_answering_is_not_judged_while_it_is_not_read() {
    for (name, mode, carrier) in [
        ("server", Mode::Server, Carrier::Stream),
        ("either", Mode::Either, Carrier::Stream),
        ("a browser", Mode::Client, Carrier::WebSocket),
    ] {
        let mut stage = Stage::new(GatewayConfig { up_bytes_max: 8_000, mode, ..config() });
        stage.gateway.set_data_wanted(true);
        let conn = stage.connect();
        let as_what = Introduction { carrier, ..Introduction::default() };
        stage.complete(Completion::Introduced { conn, as_what: &as_what });
        stage.hello(conn, "a", "", 0);
        stage.send_home(conn);
        stage.receive(conn, &frames(1..=5));
        assert!(stage.paused(conn), "{name}");
        let mut question = Vec::new();
        native::encode(&Message::Ping { reply: Reply::AtOnce, payload: &[] }, &mut question);
        let mut has_answered = false;
        for _ in 0..200 {
            stage.pass(Span::from_secs(1));
            let heard = stage.send_home(conn);
            has_answered |= heard.windows(question.len()).any(|bytes| bytes == question);
            if stage.looks(conn) {
                let found = if has_answered { Found::Bytes } else { Found::Nothing };
                stage.complete(Completion::Looked { conn, found, tcp: None });
            }
        }
        let ended = stage.gateway.stats().ended(CloseReason::HeartbeatTimeout);
        assert_eq!((has_answered, ended), (true, 0), "{name}");
    }
}
