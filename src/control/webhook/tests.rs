//! Targets that are changed while others go on. What they do by themselves is in `tests/webhook`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::base::config::Shard;
use crate::base::event::{Event, Record};
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::door::{self, Teller};
use crate::control::events::Identity;
use crate::control::hub::{self, Feeder};
use crate::control::ledger::Ledger;
use crate::control::webhook::health::{Health, State};
use crate::control::webhook::target::{Beginning, Stream, Target};
use crate::control::webhook::{Sources, Webhooks, lock};
use crate::os::wake::Waker;
use crate::server::mailbox;
use crate::server::shards::Switchboard;

const PATIENCE: Duration = Duration::from_secs(30);

/// A batch that came: by which connection, to which path, with which events, and what was answered.
struct Came {
    connection: usize,
    path: String,
    seqs: Vec<u64>,
    status: u16,
}

/// A backend that answers with the same status until told otherwise.
struct Backend {
    url: String,
    status: Arc<AtomicU16>,
    came: Receiver<Came>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let status = Arc::new(AtomicU16::new(200));
        let (came_in, came) = channel();
        let answers = Arc::clone(&status);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (answers, came_in) = (Arc::clone(&answers), came_in.clone());
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some((path, seqs)) = hear(&mut stream) {
                        let status = answers.load(Relaxed);
                        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                        let _ = came_in.send(Came { connection, path, seqs, status });
                        let _ = stream.get_mut().write_all(answer.as_bytes());
                    }
                });
            }
        });
        Self { url, status, came }
    }

    fn next(&self) -> Came {
        self.came.recv_timeout(PATIENCE).expect("nothing comes")
    }

    /// What was taken up to an event, and by which connection.
    fn taken(&self, upto: u64) -> (Vec<u64>, usize) {
        let mut seqs = Vec::new();
        loop {
            let came = self.next();
            if came.status == 200 {
                seqs.extend(came.seqs);
            }
            if seqs.last() == Some(&upto) {
                return (seqs, came.connection);
            }
        }
    }
}

/// The path of a request and the numbers of its events; `None` at the end of the connection.
fn hear(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u64>)> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).ok().filter(|count| *count > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let seqs = json["events"].as_array().expect("a list").iter();
    let seqs = seqs.filter_map(|event| event["seq"].as_u64()).collect();
    Some((first.split(' ').nth(1)?.to_owned(), seqs))
}

/// Webhooks to a loop that says what the test says.
struct Rig {
    webhooks: Webhooks,
    teller: Teller,
    seq: u64,
    /// The loop's ends of everything.
    _loop: (mailbox::Inside, Feeder),
}

impl Rig {
    fn new() -> Self {
        let (inside, asker, _reader) = mailbox::open(Waker::new().expect("an eventfd"));
        let switchboard = Switchboard::new(vec![asker], Shard::ONLY);
        let clock = crate::os::clock::Clock::new();
        let (door, teller) = door::open(Arc::new(Mutex::new(switchboard)), clock);
        let identity = Identity { node: "north".to_owned(), boot: 7 };
        let ledger = Ledger { door, identity, journal: None };
        let (hub, feeder) = hub::open(Vec::new());
        let webhooks = Webhooks::new(Sources { ledger, hub });
        Self { webhooks, teller, seq: 0, _loop: (inside, feeder) }
    }

    fn tell(&mut self, count: u64) {
        for _ in 0..count {
            self.seq += 1;
            let record = Record { seq: self.seq, at: Moment::ZERO, event: Event::Stopped };
            self.teller.tell(&record, WallAnchor::default());
        }
        self.teller.wake();
    }

    /// Waits until a target is worked for, and knows where it is.
    fn wait_for(&self, name: &str) {
        let begun = |row: &Arc<Health>| row.target == name && row.position().boot == 7;
        let is_there = (0..3_000).any(|_| {
            crate::os::clock::Clock::new().sleep(Span::from_millis(10));
            self.webhooks.rows().iter().any(begun)
        });
        assert!(is_there, "{name}");
    }
}

fn target(name: &str, url: &str) -> Target {
    Target {
        name: name.to_owned(),
        url: url.parse().expect("a URL"),
        secret_file: None,
        ca_file: None,
        streams: vec![Stream::Events],
        topics: Vec::new(),
        batch_max: 10,
        batch_wait: Span::ZERO,
        timeout: Span::from_secs(20),
        retry_max: Span::from_millis(300),
        from: Beginning::Now,
    }
}

#[test]
fn targets_are_changed_added_and_removed_while_others_go_on() {
    let [stays, moves, comes] = [(); 3].map(|()| Backend::start());
    let mut rig = Rig::new();
    let (staying, moving) = (target("stays", &stays.url), target("moves", &moves.url));
    rig.webhooks.reload(vec![staying.clone(), moving.clone()]).expect("fine");
    rig.tell(1);
    let (_, connection) = stays.taken(1);
    assert_eq!(moves.taken(1).0, [1]);

    // The one that moves is in the middle of a failure when it does.
    moves.status.store(503, Relaxed);
    rig.tell(4);
    assert_eq!(stays.taken(5).0, [2, 3, 4, 5]);
    moves.next();
    let moved = Target { url: format!("{}moved", moves.url).parse().expect("a URL"), ..moving };
    let coming = target("comes", &comes.url);
    rig.webhooks.reload(vec![coming.clone(), moved, staying.clone()]).expect("fine");
    while moves.next().path != "/moved" {}
    moves.status.store(200, Relaxed);
    assert_eq!(moves.taken(5).0, [2, 3, 4, 5], "nothing is lost, and nothing comes twice");

    // The new one knows nothing of what was before, and the one that stays was not disturbed.
    rig.wait_for("comes");
    rig.tell(1);
    assert_eq!((comes.taken(6).0, moves.taken(6).0), (vec![6], vec![6]));
    assert_eq!(stays.taken(6), (vec![6], connection));

    // A file that is not there changes nothing.
    let wrong = Target { secret_file: Some("/nowhere/at/all".into()), ..staying.clone() };
    let error = rig.webhooks.reload(vec![wrong]).expect_err("there is no key").to_string();
    assert!(error.starts_with("webhook stays: cannot read /nowhere/at/all: "), "{error}");
    rig.webhooks.reload(vec![staying, coming]).expect("fine");
    let is_removed = (0..3_000).any(|_| {
        crate::os::clock::Clock::new().sleep(Span::from_millis(10));
        rig.webhooks.rows().len() == 2
    });
    assert!(is_removed);
    rig.tell(2);
    assert_eq!(stays.taken(8), (vec![7, 8], connection));
    assert_eq!(comes.taken(8).0, [7, 8]);
    assert!(moves.came.try_recv().is_err(), "it was removed");
    drop(rig.teller);
    rig.webhooks.finish(Span::from_secs(20));
}

/// Without a target there is no thread; the first one may come when there is much already.
#[test]
fn the_first_target_can_come_late() {
    let (new, all) = (Backend::start(), Backend::start());
    let mut rig = Rig::new();
    rig.webhooks.reload(Vec::new()).expect("fine");
    rig.tell(3);
    let from_start = Target { from: Beginning::Start, ..target("all", &all.url) };
    rig.webhooks.reload(vec![from_start, target("new", &new.url)]).expect("fine");
    assert_eq!(all.taken(3).0, [1, 2, 3]);
    rig.wait_for("new");
    rig.tell(1);
    assert_eq!((all.taken(4).0, new.taken(4).0), (vec![4], vec![4]));
}

/// A target that is gone is asked again when its configuration is read again.
#[test]
fn a_target_that_was_switched_off_begins_again_with_the_next_configuration() {
    let backend = Backend::start();
    backend.status.store(410, Relaxed);
    let mut rig = Rig::new();
    rig.webhooks.reload(vec![target("a", &backend.url)]).expect("fine");
    rig.tell(2);
    backend.next();
    let is_off = (0..3_000).any(|_| {
        crate::os::clock::Clock::new().sleep(Span::from_millis(10));
        rig.webhooks.rows()[0].state() == State::Off
    });
    assert!(is_off);
    backend.status.store(200, Relaxed);
    rig.webhooks.reload(vec![target("a", &backend.url)]).expect("fine");
    assert_eq!(backend.taken(2).0.first(), Some(&1), "nothing is lost");
}

/// Messages are wanted from the moment on at which a target is known, by one claim; and with the
/// target the claim goes.
#[test]
fn messages_are_wanted_when_a_target_is_known_and_not_when_its_worker_has_begun() {
    let backend = Backend::start();
    let rig = Rig::new();
    let of_messages =
        |name: &str| Target { streams: vec![Stream::Messages], ..target(name, &backend.url) };
    let hub = rig.webhooks.sources().hub.clone();
    rig.webhooks.reload(vec![of_messages("a")]).expect("fine");
    assert!(hub.stats().sinks > 0, "before anything else");
    let sinks_become = |count| {
        (0..3_000).any(|_| {
            crate::os::clock::Clock::new().sleep(Span::from_millis(10));
            hub.stats().sinks == count
        })
    };
    rig.wait_for("a");
    assert!(sinks_become(1));
    rig.webhooks.reload(vec![of_messages("a"), of_messages("b")]).expect("fine");
    rig.wait_for("b");
    assert!(sinks_become(2));
    rig.webhooks.reload(vec![of_messages("b")]).expect("fine");
    assert!(sinks_become(1), "who is removed claims nothing");
}

/// The gateway has ended: a reload that comes behind that begins nothing, for nobody would wait
/// for it.
#[test]
fn no_reload_begins_a_webhook_at_the_end() {
    let backend = Backend::start();
    let both = |name: &str| Target {
        streams: vec![Stream::Events, Stream::Messages],
        ..target(name, &backend.url)
    };
    for first in [None, Some(both("a"))] {
        let mut rig = Rig::new();
        let hub = rig.webhooks.sources().hub.clone();
        rig.webhooks.reload(first.iter().cloned().collect()).expect("fine");
        rig.tell(1);
        if let Some(target) = &first {
            rig.wait_for(&target.name);
        }
        let before = (rig.webhooks.rows().len(), hub.stats().sinks);
        rig.webhooks.finish(Span::ZERO);
        rig.webhooks.reload(vec![both("b")]).expect("it is too late, and no fault");
        assert!(lock(&rig.webhooks.shared.thread).is_none(), "nobody would wait for it");
        assert_eq!(hub.stats().sinks, before.1, "nor take its messages");
        let rows = rig.webhooks.rows();
        assert_eq!(rows.len(), before.0);
        assert!(rows.iter().all(|row| row.target != "b"));
    }
}
