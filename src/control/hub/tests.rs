//! A hub with pretend loops behind it.

use std::sync::Arc;

use crate::base::data::{Credit, DataRecord, DataTicket, Fate};
use crate::base::ids::ClientId;
use crate::base::limits;
use crate::base::time::{Moment, WallAnchor};
use crate::control::hub::{Ended, Feeder, Hub, Message, Sink, open};
use crate::os::wake::Waker;
use crate::server::line::{self, LineInside};

/// A hub to pretend loops.
struct Rig {
    hub: Hub,
    feeder: Feeder,
    loops: Vec<LineInside>,
    sent: u64,
}

impl Rig {
    fn new(shards: usize) -> Self {
        let line = |_| line::open(Waker::new().expect("an eventfd"));
        let (loops, lines): (Vec<_>, Vec<_>) = (0..shards).map(line).unzip();
        let (hub, feeder) = open(lines);
        Self { hub, feeder, loops, sent: 0 }
    }

    fn send_to(&mut self, shard: usize, topic: &str, body: &[u8]) -> DataTicket {
        let ticket = DataTicket { epoch: shard as u64, number: self.sent };
        self.sent += 1;
        self.loops[shard].hand_up(Box::new(DataRecord {
            ticket,
            client: ClientId::new("c").expect("it is one"),
            seq: u32::try_from(self.sent).expect("few"),
            topic: topic.into(),
            body: body.into(),
            at: Moment::ZERO,
        }));
        self.feeder.gather(WallAnchor::default());
        ticket
    }

    fn send(&mut self, topic: &str) -> DataTicket {
        self.send_to(0, topic, b"body")
    }

    fn credits(&mut self, shard: usize) -> Vec<Credit> {
        let mut credits = Vec::new();
        self.loops[shard].take_credits(usize::MAX, &mut credits);
        credits
    }
}

fn useqs(messages: &[Arc<Message>]) -> Vec<u64> {
    messages.iter().map(|message| message.useq).collect()
}

fn take(sink: &mut Sink) -> Vec<u64> {
    useqs(&sink.take(100, usize::MAX))
}

#[test]
fn credit_comes_back_when_everybody_who_wants_a_message_is_done_with_it() {
    let mut rig = Rig::new(1);
    let mut of_a = rig.hub.subscribe(Some("a"), None).expect("nothing is asked for");
    let mut of_all = rig.hub.subscribe(None, None).expect("the same");
    let (a, b) = (rig.send("a"), rig.send("b"));
    assert_eq!((take(&mut of_a), take(&mut of_all)), (vec![1], vec![1, 2]));
    assert!(rig.credits(0).is_empty(), "taken, but not done with");
    of_all.done(2);
    assert_eq!(rig.credits(0), [Credit { ticket: b, fate: Fate::Taken }], "a is waited for");
    of_a.done(1);
    assert_eq!(rig.credits(0), [Credit { ticket: a, fate: Fate::Taken }]);
    of_a.done(1);
    assert!(rig.credits(0).is_empty(), "once");
}

#[test]
fn nobody_is_done_with_what_it_did_not_take() {
    let mut rig = Rig::new(1);
    let mut sink = rig.hub.subscribe(None, None).expect("nothing is asked for");
    let first = rig.send("a");
    rig.send("a");
    assert_eq!(useqs(&sink.take(1, usize::MAX)), [1]);
    sink.done(u64::MAX);
    assert_eq!(rig.credits(0), [Credit { ticket: first, fate: Fate::Taken }]);
}

#[test]
fn what_nobody_wants_is_unclaimed_and_so_is_what_is_left_behind() {
    let mut rig = Rig::new(1);
    assert!(!rig.loops[0].is_wished());
    let sink = rig.hub.subscribe(Some("a"), None).expect("nothing is asked for");
    assert!(rig.loops[0].is_wished());
    let other = rig.send("b");
    assert_eq!(rig.credits(0), [Credit { ticket: other, fate: Fate::Unclaimed }]);
    let left = rig.send("a");
    drop(sink);
    assert_eq!(rig.credits(0), [Credit { ticket: left, fate: Fate::Unclaimed }]);
    assert!(!rig.loops[0].is_wished());
}

#[test]
fn what_one_leaves_behind_was_taken_by_the_other() {
    let mut rig = Rig::new(1);
    let slow = rig.hub.subscribe(None, None).expect("nothing is asked for");
    let mut quick = rig.hub.subscribe(None, None).expect("the same");
    let ticket = rig.send("a");
    take(&mut quick);
    quick.done(1);
    assert!(rig.credits(0).is_empty());
    drop(slow);
    assert_eq!(rig.credits(0), [Credit { ticket, fate: Fate::Taken }]);
}

#[test]
fn credit_goes_back_to_the_loop_that_gave_it_however_much_there_is() {
    let mut rig = Rig::new(2);
    let mut sink = rig.hub.subscribe(None, None).expect("nothing is asked for");
    let count = limits::DATA_QUEUE_MAX + 10;
    for _ in 0..count {
        rig.send_to(1, "a", b"");
    }
    rig.send_to(0, "a", b"");
    sink.take(usize::MAX, usize::MAX);
    sink.done(u64::MAX);
    assert_eq!(rig.credits(0).len(), 1);
    assert_eq!(rig.credits(1).len(), limits::DATA_QUEUE_MAX);
    assert!(rig.credits(1).is_empty());
    rig.feeder.gather(WallAnchor::default());
    assert_eq!(rig.credits(1).len(), 10, "the rest had to wait for room");
}

#[test]
fn whoever_comes_back_gets_what_is_kept_and_is_told_when_it_is_not() {
    let mut rig = Rig::new(1);
    let keeper = rig.hub.subscribe(Some("kept"), None).expect("nothing is asked for");
    for _ in 0..3 {
        rig.send("a");
    }
    let mut late = rig.hub.subscribe(Some("a"), Some(1)).expect("it is kept");
    assert_eq!(take(&mut late), [2, 3]);
    rig.credits(0);
    late.done(3);
    assert!(rig.credits(0).is_empty(), "that was taken or not before it came");
    let body = vec![0; 64 * 1_024];
    for _ in 0..2 * limits::DATA_RECENT_BYTES_MAX / body.len() {
        rig.send_to(0, "b", &body);
    }
    assert!(rig.hub.stats().recent_bytes <= limits::DATA_RECENT_BYTES_MAX);
    assert!(rig.hub.subscribe(None, Some(3)).is_err());
    assert!(rig.hub.subscribe(None, Some(rig.hub.last_useq())).is_ok());
    assert!(rig.hub.subscribe(None, Some(u64::MAX)).is_ok());
    drop(keeper);
}

#[test]
fn a_slow_sink_of_one_topic_does_not_keep_the_messages_of_others() {
    let mut rig = Rig::new(1);
    let slow = rig.hub.subscribe(Some("slow"), None).expect("nothing is asked for");
    let mut quick = rig.hub.subscribe(Some("quick"), None).expect("the same");
    rig.send("slow");
    let body = vec![0; 64 * 1_024];
    for _ in 0..4 * limits::DATA_RECENT_BYTES_MAX / body.len() {
        rig.send_to(0, "quick", &body);
        take(&mut quick);
        quick.done(u64::MAX);
    }
    let stats = rig.hub.stats();
    assert_eq!(stats.waiting, 1);
    assert!(stats.recent_bytes <= limits::DATA_RECENT_BYTES_MAX);
    drop(slow);
}

#[test]
fn a_batch_is_bounded_and_whoever_waits_is_woken() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut rig = Rig::new(1);
    let mut sink = rig.hub.subscribe(None, None).expect("nothing is asked for");
    for _ in 0..5 {
        rig.send_to(0, "a", &[0; 100]);
    }
    assert_eq!(useqs(&sink.take(100, 250)), [1, 2]);
    assert_eq!(useqs(&sink.take(1, 250)), [3]);
    assert_eq!(useqs(&sink.take(100, 10)), [4], "a long one comes alone");
    assert_eq!(runtime.block_on(sink.changed()), Ok(()), "there is more");
    assert_eq!(take(&mut sink), [5]);
    let Rig { feeder, .. } = rig;
    drop(feeder);
    assert_eq!(runtime.block_on(sink.changed()), Err(Ended));
}

#[test]
fn what_one_was_not_done_with_is_its_successors_and_nobody_calls_it_unclaimed() {
    let mut rig = Rig::new(1);
    let topics = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<_>>();
    let mut former = rig.hub.subscribe_to(topics(&["a", "b"]), None).expect("nothing is asked for");
    let first = rig.send("a");
    let body = vec![0; 64 * 1_024];
    let count = 2 * limits::DATA_RECENT_BYTES_MAX / body.len();
    let tickets: Vec<_> = (0..count).map(|_| rig.send_to(0, "a", &body)).collect();
    let no_longer = rig.send("b");
    let not_yet = rig.send("c");
    assert_eq!(rig.credits(0), [Credit { ticket: not_yet, fate: Fate::Unclaimed }]);
    assert_eq!(useqs(&former.take(3, usize::MAX)), [1, 2, 3]);
    former.done(1);
    assert_eq!(rig.credits(0), [Credit { ticket: first, fate: Fate::Taken }]);
    let mut heir = former.hand_over(topics(&["a", "c"]), 1);
    assert_eq!(rig.credits(0), [Credit { ticket: no_longer, fate: Fate::Unclaimed }]);
    assert!(rig.loops[0].is_wished());
    let taken = useqs(&heir.take(usize::MAX, usize::MAX));
    assert_eq!(taken.first(), Some(&2), "it was taken, and nobody was done with it");
    assert_eq!(taken.iter().filter(|useq| **useq <= count as u64 + 1).count(), count);
    assert!(rig.credits(0).is_empty());
    heir.done(u64::MAX);
    let credits = rig.credits(0);
    assert_eq!(credits.len(), count);
    assert!(credits.iter().all(|credit| credit.fate == Fate::Taken));
    assert!(credits.iter().map(|credit| credit.ticket).eq(tickets));
}

#[test]
fn whoever_is_too_slow_for_what_is_kept_hears_that_something_is_missing() {
    let mut rig = Rig::new(1);
    let mut other = rig.hub.subscribe(None, None).expect("nothing is asked for");
    for _ in 0..4 {
        rig.send("a");
    }
    take(&mut other);
    other.done(u64::MAX);
    let mut back = rig.hub.subscribe(Some("a"), Some(0)).expect("it is kept");
    assert_eq!(useqs(&back.take(1, usize::MAX)), [1]);
    assert_eq!(back.missed(), 0);
    let body = vec![0; 64 * 1_024];
    for _ in 0..2 * limits::DATA_RECENT_BYTES_MAX / body.len() {
        rig.send_to(0, "b", &body);
        take(&mut other);
        other.done(u64::MAX);
    }
    assert_eq!(take(&mut back).len(), 0);
    assert_eq!(back.missed(), 3);
    assert_eq!(back.missed(), 0, "it is told once");
}
