//! What clients send up, by webhook.

use std::time::Duration;

use heartwheel::wire::message::{AckWanted, Message};
use serde_json::Value;

use crate::backend::{Answer, Backend, Delivery};
use crate::gate::{Caller, Gate, Heard};

fn data(seq: u32, topic: &str, body: &[u8]) -> Message<'static> {
    let (topic, body) = (topic.to_owned().leak(), body.to_vec().leak());
    Message::Data { seq, ack: AckWanted::Yes, topic, body }
}

fn acked(seq: u32) -> Heard {
    Heard::Other(format!("{:?}", Message::Ack { seq }))
}

fn messages(delivery: &Delivery) -> Vec<Value> {
    let json = delivery.json();
    assert_eq!(json["stream"], "messages");
    json["messages"].as_array().expect("a list").clone()
}

/// A client hears that its message was taken when the backend has taken it, and not before; what
/// was refused comes again, in order; what is of no topic wished for does not come.
#[test]
fn messages_are_acknowledged_when_the_backend_has_taken_them() {
    for way in [&[][..], &["--shards", "2"], &["--driver", "epoll"]] {
        let backend = Backend::start(|_| Answer::Status(503));
        let webhook = format!(
            "a:url={},streams=messages,topics=orders+alarms,retry-max=250ms,batch-wait=0s",
            backend.url()
        );
        let gate = Gate::start(&[&["--webhook", &webhook], way].concat());
        let mut caller = Caller::login(gate.address, "anna");
        caller.say(&data(1, "orders", b"one"));
        let first = backend.next();
        assert_eq!(first.header("heartwheel-attempt"), Some("1"));
        assert_eq!(messages(&first)[0]["text"], "one");
        caller.say(&data(2, "other", b"for nobody"));
        caller.say(&data(3, "alarms", b"\xff"));
        let again = backend.next();
        assert_eq!(again.body, first.body, "the same to the last byte");
        assert_eq!(caller.hear_within(Duration::from_millis(300)), Heard::Nothing, "{way:?}");
        backend.behave(|_| Answer::Status(200));
        let mut taken = Vec::new();
        while taken.len() < 2 {
            taken.extend(messages(&backend.next_taken()));
        }
        assert_eq!(taken[0]["text"], "one");
        assert_eq!((&taken[1]["seq"], &taken[1]["base64"]), (&3.into(), &"/w==".into()));
        assert!(taken[0]["useq"].as_u64() < taken[1]["useq"].as_u64());
        let mut words = vec![caller.hear()];
        while words.last() != Some(&acked(3)) {
            words.push(caller.hear());
        }
        assert_eq!(backend.next_within(Duration::from_millis(300)).map(|it| it.body), None);
    }
}

/// A batch that is refused for its size is halved, and nothing of it is lost or comes out of order.
#[test]
fn messages_of_a_batch_that_is_too_large_come_in_smaller_ones() {
    let backend = Backend::start(|delivery| match messages(delivery).len() {
        0..=2 => Answer::Status(200),
        _ => Answer::Status(413),
    });
    let webhook = format!("a:url={},streams=messages,batch-wait=500ms", backend.url());
    let gate = Gate::start(&["--webhook", &webhook]);
    let mut caller = Caller::login(gate.address, "anna");
    for seq in 1..=20 {
        caller.say(&data(seq, "t", format!("text {seq}").as_bytes()));
    }
    let (mut seqs, mut refused) = (Vec::new(), 0);
    while seqs.len() < 20 {
        let delivery = backend.next();
        match delivery.answer.has_taken() {
            true => seqs.extend(messages(&delivery).iter().map(|it| it["seq"].as_u64())),
            false => refused += 1,
        }
    }
    assert!(refused > 0);
    assert!(seqs.into_iter().eq((1..=20).map(Some)), "in order, each once");
    while caller.hear() != acked(20) {}
}

/// A target that is gone takes nothing, and does not hold up clients either.
#[test]
fn messages_are_unclaimed_when_the_backend_is_gone() {
    let backend = Backend::start(|_| Answer::Status(410));
    let webhook = format!("a:url={},streams=messages,batch-wait=0s", backend.url());
    let mut gate = Gate::start(&["--admin", "127.0.0.1:0", "--webhook", &webhook]);
    let mut caller = Caller::login(gate.address, "anna");
    caller.say(&data(1, "t", b"x"));
    gate.wait_for_log("says that it is gone (410)");
    caller.say(&data(2, "t", b"y"));
    let admin = crate::http::admin_of(&gate);
    let is_over = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let stats = crate::http::get(admin, "/v1/stats").json();
        stats["data_unclaimed"] == 2 && stats["up_bytes"] == 0
    });
    assert!(is_over, "{}", crate::http::get(admin, "/v1/stats").json());
}

/// What a target has not taken goes to the one that a reload puts in its place, and only then is it
/// acknowledged.
#[test]
fn messages_that_wait_for_a_target_go_to_the_one_that_takes_its_place() {
    let down = Backend::start(|_| Answer::Status(503));
    let up = Backend::start(|_| Answer::Status(200));
    let folder = tempfile::tempdir().expect("there is room for a file");
    let path = folder.path().join("heartwheel.toml");
    let configure = |url: String| {
        let text = format!("[webhook.a]\nurl = \"{url}\"\nstreams = [\"messages\"]\n");
        std::fs::write(&path, format!("{text}retry-max = \"250ms\"\nbatch-wait = \"0s\"\n"))
            .expect("there is room");
    };
    configure(down.url());
    let file = path.to_str().expect("it is text");
    let mut gate = Gate::start(&["--config", file]);
    let mut caller = Caller::login(gate.address, "anna");
    caller.say(&data(1, "t", b"one"));
    caller.say(&data(2, "t", b"two"));
    let _tried = down.next();
    configure(up.url());
    gate.signal("HUP");
    gate.wait_for_log("reloaded: ");
    let mut seqs = Vec::new();
    while seqs.len() < 2 {
        seqs.extend(messages(&up.next_taken()).iter().map(|it| it["seq"].as_u64()));
    }
    assert_eq!(seqs, [Some(1), Some(2)]);
    while caller.hear() != acked(2) {}
}

/// A message that comes as soon as the gateway listens is for the webhook as any later one.
#[test]
fn messages_of_the_first_moment_are_not_unclaimed() {
    for way in [&[][..], &["--shards", "2"]] {
        let backend = Backend::start(|_| Answer::Status(200));
        let webhook = format!("a:url={},streams=messages,batch-wait=0s", backend.url());
        let gate = Gate::start(&[&["--webhook", &webhook], way].concat());
        for number in 0..8 {
            let mut caller = Caller::connect(gate.address);
            let mut bytes = crate::gate::hello(&format!("client-{number}"), "", 0);
            heartwheel::wire::native::encode(&data(1, "t", b"early"), &mut bytes);
            caller.send(&bytes);
            while caller.hear() != acked(1) {}
        }
    }
}
