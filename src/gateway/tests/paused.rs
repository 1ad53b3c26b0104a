//! Messages for a client that is not read: it may have acknowledged them, and cannot be heard.

use crate::base::config::{GatewayConfig, QueuePolicy, SlowPolicy};
use crate::base::data::DataRecord;
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::io::{Chunk, Completion, IoFault};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::tests::push::{ask, client, post};
use crate::gateway::tests::up::{ack, frames, token_of};
use crate::gateway::tests::{Stage, config};
use crate::gateway::{Command, MailStats, Outcome, Push, Reply};
use crate::wire::message::Message;

/// How long a message waits.
const TTL: Span = Span::from_secs(30);

/// A stopped client with a message on its way that has 10 s left, in a queue with room for three.
struct Paused {
    stage: Stage,
    conn: ConnId,
    token: Vec<u8>,
    records: Vec<DataRecord>,
}

impl Paused {
    fn new(slow: SlowPolicy) -> Self {
        let queue = QueuePolicy { bytes_max: 3 * (limits::LETTER_BYTES + 2), slow, ttl: TTL };
        let grace = Span::from_secs(300);
        let mut stage = Stage::new(GatewayConfig { up_bytes_max: 8_000, queue, grace, ..config() });
        stage.gateway.set_data_wanted(true);
        let conn = stage.connect();
        stage.hello(conn, "a", "", 0);
        let token = token_of(&stage.send_home(conn));
        let mut paused = Self { stage, conn, token, records: Vec::new() };
        paused.push("1");
        paused.stage.send_home(conn);
        paused.stage.pass(Span::from_secs(20));
        paused.stage.receive(conn, &frames(1..=5));
        assert!(paused.stage.paused(conn));
        paused.records = paused.stage.data();
        paused
    }

    fn push(&mut self, text: &str) -> Outcome {
        let push = Push { clients: vec![client("a")], epoch: None, post: post(text) };
        match ask(&mut self.stage, Command::Push(Box::new(push))) {
            Reply::Pushed(pushed) => pushed[0].outcome,
            other => panic!("{other:?}"),
        }
    }

    fn read_on(&mut self) {
        self.stage.credit(&self.records);
        assert!(self.stage.receives(self.conn), "it is read on");
    }

    fn mail(&self) -> MailStats {
        self.stage.gateway.stats().mail
    }
}

#[test]
fn a_client_that_is_not_read_does_not_lose_what_it_may_have_acknowledged() {
    for slow in [SlowPolicy::Oldest, SlowPolicy::Newest, SlowPolicy::Close] {
        let mut paused = Paused::new(slow);
        for text in ["2", "3", "4", "5"] {
            paused.push(text);
            paused.stage.send_home(paused.conn);
        }
        paused.stage.pass(Span::from_secs(50));
        let stats = paused.stage.gateway.stats();
        assert_eq!(stats.ended(CloseReason::SlowConsumer), 0, "{slow:?}");
        assert_eq!((stats.mail.ack_missed, stats.up.stopped), (0, 1), "{slow:?}");
        paused.read_on();
        paused.stage.pass(Span::from_secs(1));
        paused.stage.receive(paused.conn, &ack(3));
        assert_eq!((paused.mail().acked, paused.mail().ack_missed), (3, 0), "{slow:?}");
        paused.stage.pass(Span::from_secs(40));
        assert_eq!(paused.mail().queue_bytes, 0, "{slow:?}");
    }
}

#[test]
fn what_is_sent_does_not_age_while_its_ack_could_not_be_heard() {
    let mut paused = Paused::new(SlowPolicy::Newest);
    paused.stage.pass(Span::from_secs(25));
    paused.push("2");
    paused.stage.send_home(paused.conn);
    paused.stage.pass(Span::from_secs(25));
    paused.read_on();
    // The first has the 10 s that it had, and the second all of its time, and no more than that.
    for (seconds, missed) in [(8, 0), (4, 1), (16, 1), (4, 2)] {
        paused.stage.pass(Span::from_secs(seconds));
        assert_eq!(paused.mail().ack_missed, missed, "{seconds} s later");
    }
}

#[test]
fn what_could_hardly_be_sent_before_it_was_too_old_waits_for_its_ack_all_the_same() {
    let mut paused = Paused::new(SlowPolicy::Newest);
    paused.push("2");
    paused.stage.pass(TTL);
    paused.stage.send_home(paused.conn);
    paused.read_on();
    paused.push("3");
    paused.stage.receive(paused.conn, &ack(2));
    assert_eq!((paused.mail().acked, paused.mail().ack_missed), (2, 0));
}

#[test]
fn a_client_that_is_lost_while_it_is_not_read_has_time_to_come_back() {
    for way in ["a reset", "another connection"] {
        let mut paused = Paused::new(SlowPolicy::Newest);
        paused.stage.pass(Span::from_secs(50));
        if way == "a reset" {
            let (conn, chunk) = (paused.conn, Chunk::from(vec![1]));
            let result = Err(IoFault::Reset);
            paused.stage.complete(Completion::Sent { conn, chunk, result });
            assert_eq!(paused.stage.gateway.stats().held, 1);
            paused.stage.pass(Span::from_secs(8));
        }
        assert_eq!(paused.mail().ack_missed, 0, "{way}");
        let token = std::mem::take(&mut paused.token);
        let mut hello = paused.stage.hello_again("a", &token, None);
        let Message::Hello { last_seq, .. } = &mut hello else { unreachable!() };
        *last_seq = 1;
        paused.stage.come_back_with(&hello);
        assert_eq!((paused.mail().acked, paused.mail().queue_bytes), (1, 0), "{way}");
    }
}

#[test]
fn what_a_lost_client_does_not_come_back_for_is_given_up_at_its_time() {
    let mut paused = Paused::new(SlowPolicy::Newest);
    paused.stage.pass(Span::from_secs(50));
    let (conn, chunk) = (paused.conn, Chunk::from(vec![1]));
    paused.stage.complete(Completion::Sent { conn, chunk, result: Err(IoFault::Reset) });
    assert_eq!(paused.stage.gateway.stats().held, 1);
    paused.stage.pass(Span::from_secs(12));
    assert_eq!((paused.mail().ack_missed, paused.mail().queue_bytes), (1, 0));
}

/// It has its last second once.
#[test]
fn whoever_is_stopped_again_and_again_keeps_nothing_for_ever() {
    let mut paused = Paused::new(SlowPolicy::Newest);
    for round in 0..150_u32 {
        paused.read_on();
        paused.stage.pass(Span::from_millis(100));
        let seqs = 6 + 5 * round;
        paused.stage.receive(paused.conn, &frames(seqs..seqs + 5));
        assert!(paused.stage.paused(paused.conn));
        paused.records = paused.stage.data();
        paused.stage.pass(Span::from_millis(500));
    }
    assert_eq!((paused.mail().ack_missed, paused.mail().queue_bytes), (1, 0));
}

/// What cannot be dropped is nothing to look for.
#[test]
fn nobody_looks_through_queues_for_what_waits_to_be_heard() {
    let mut paused = Paused::new(SlowPolicy::Newest);
    paused.stage.pass(Span::from_secs(40));
    assert_eq!(paused.stage.gateway.post.next_wake(), None);
    paused.read_on();
    assert!(paused.stage.gateway.post.next_wake().is_some());
}
