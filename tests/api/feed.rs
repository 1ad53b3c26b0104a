//! The feeds: cut, resumed, overtaken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heartwheel::base::limits;
use heartwheel::wire::message::Message;
use serde_json::Value;

use crate::gate::{Caller, Gate};
use crate::http::{Follower, Said, admin_of, get, start};

/// Clients that come and go until told to stop.
struct Churn {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Churn {
    fn start(address: SocketAddr, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..4).map(|thread| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut caller = Caller::login(address, &format!("{thread}-{}", count % 7));
                    caller.say(&Message::Bye { code: 100 });
                    count += 1;
                    std::thread::sleep(pause);
                }
                count
            })
        });
        Self { stop: Arc::clone(&stop), threads: threads.collect() }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.threads.into_iter();
        counts.map(|thread| thread.join().expect("it does not panic")).sum()
    }
}

pub(crate) fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap_or_else(|| panic!("no number: {event}"))
}

/// A follower who is cut off at random moments and comes back with the last id it had: nothing is
/// missing, nothing comes twice, and every event is what the file of events says.
#[test]
fn a_feed_that_is_cut_goes_on_where_it_was() {
    feed_that_is_cut(&[]);
}

pub(crate) fn feed_that_is_cut(arguments: &[&str]) {
    let (gate, admin) = start(arguments);
    let mut rng = fastrand::Rng::with_seed(7);
    let churn = Churn::start(gate.address, Duration::from_millis(2));
    let boot = get(admin, "/v1/stats").json()["boot"].as_u64().expect("a number");
    let (mut id, mut seen, mut cuts) = (format!("{boot}:0"), Vec::new(), 0);
    while seen.len() < 2_000 {
        let mut follower = Follower::start(admin, "/v1/events", &id);
        for _ in 0..rng.usize(0..120) {
            match follower.next() {
                Said::Event(event) => seen.push(event),
                other @ (Said::Reset(_) | Said::Nothing | Said::End) => panic!("{other:?}"),
            }
            id.clone_from(&follower.last_id);
        }
        cuts += 1;
    }
    churn.end();
    assert!(cuts > 10);
    assert!(seen.iter().map(seq).eq(1..=seen.len() as u64));
    for event in seen {
        assert_eq!(event, gate.next_event());
    }
}

/// A snapshot and the events after it are the truth, however many come and go meanwhile.
#[test]
fn a_snapshot_and_what_follows_it_are_the_truth() {
    snapshots_are_true(&[]);
}

pub(crate) fn snapshots_are_true(arguments: &[&str]) {
    let (gate, admin) = start(arguments);
    let mut stayers: Vec<_> =
        (0..200).map(|number| Caller::login(gate.address, &format!("stays-{number}"))).collect();
    let churn = Churn::start(gate.address, Duration::from_millis(1));
    for _ in 0..10 {
        stayers.truncate(stayers.len() - 10);
        let snapshot = get(admin, "/v1/snapshot").json();
        let clients = snapshot["clients"].as_array().expect("a list");
        assert_eq!(snapshot["online"], clients.len());
        let seq_at = snapshot["seq"].as_u64().expect("a number");
        // The same from the beginning of the ledger on.
        let boot = snapshot["boot"].as_u64().expect("a number");
        let mut follower = Follower::start(admin, "/v1/events", &format!("{boot}:0"));
        let mut online = std::collections::BTreeMap::new();
        loop {
            let Said::Event(event) = follower.next() else { panic!("the feed ends") };
            let client = event["client"].as_str().unwrap_or_default().to_owned();
            match event["event"].as_str() {
                Some("online") => drop(online.insert(client, event["epoch"].clone())),
                Some("offline") => drop(online.remove(&client)),
                _ => {}
            }
            if seq(&event) == seq_at {
                break;
            }
        }
        let told = clients.iter().map(|client| {
            (client["client"].as_str().expect("a name").to_owned(), client["epoch"].clone())
        });
        assert_eq!(told.collect::<std::collections::BTreeMap<_, _>>(), online);
    }
    churn.end();
}

/// Whoever does not read falls behind what is kept in memory, is told so, and costs nobody else
/// anything.
#[test]
fn whoever_reads_too_slowly_is_told_to_take_a_snapshot() {
    let (gate, admin) = start(&["--events", "/dev/null"]);
    let mut slow = Follower::start_keeping_little(admin, "/v1/events");
    let churn = Churn::start(gate.address, Duration::ZERO);
    // It takes a hundred events a second, so that its connection is not given up, until it must
    // have missed some: beyond what is kept is what fits into the sockets' buffers, some megabytes.
    let (began, mut churn) = (Instant::now(), Some(churn));
    let mut last_of_slow = 0;
    let kept = limits::FEED_RECENT_MAX as u64;
    let reset = loop {
        let is_ahead = u128::from(last_of_slow) > began.elapsed().as_millis() / 10;
        if churn.is_some() && is_ahead {
            let seq_now = get(admin, "/v1/stats").json()["seq"].as_u64();
            if seq_now > Some(last_of_slow + kept + 12_000) {
                churn.take().map(Churn::end);
            }
            continue;
        }
        match slow.next() {
            Said::Event(event) => {
                let is_next = last_of_slow == 0 || seq(&event) == last_of_slow + 1;
                assert!(is_next, "in order to the last: {event} after {last_of_slow}");
                last_of_slow = seq(&event);
            }
            Said::Reset(reset) => break reset,
            other @ (Said::Nothing | Said::End) => panic!("{other:?} after {last_of_slow}"),
        }
    };
    churn.take().map(Churn::end);
    assert_eq!(reset["seq"], last_of_slow, "{reset}");
    assert_eq!(slow.next(), Said::End);
    let id = slow.last_id.clone();
    let refused = Follower::try_start(admin, "/v1/events", &id).err().expect("it is gone");
    assert_eq!((refused.status, refused.problem().as_str()), (410, "gone"));
}

/// With a journal a follower resumes from any place that is kept, over restarts.
#[test]
fn with_a_journal_a_feed_goes_on_over_a_restart() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let journal = folder.path().to_str().expect("plain text").to_owned();
    let arguments = ["--admin", "127.0.0.1:0", "--journal", &journal];
    let mut told = Vec::new();
    let mut id = String::new();
    for boot in 0..3 {
        let mut gate = Gate::start(&arguments);
        let admin = admin_of(&gate);
        let callers: Vec<_> =
            (0..5).map(|n| Caller::login(gate.address, &format!("c{n}"))).collect();
        let mut follower = match boot {
            0 => {
                let boot = get(admin, "/v1/stats").json()["boot"].as_u64().expect("a number");
                Follower::start(admin, "/v1/events", &format!("{boot}:0"))
            }
            // The last events of the boot before were not seen.
            _ => Follower::start(admin, "/v1/events", &id),
        };
        for _ in 0..4 {
            let Said::Event(event) = follower.next() else { panic!("the feed ends") };
            told.push(event);
            id.clone_from(&follower.last_id);
        }
        drop((follower, callers));
        gate.signal("TERM");
        assert!(gate.wait().success());
    }
    let gate = Gate::start(&arguments);
    let mut follower = Follower::start(admin_of(&gate), "/v1/events?follow=false", &id);
    while let Said::Event(event) = follower.next() {
        told.push(event);
    }
    // Three boots of started, 5 online, 5 offline, stopped; and one that began.
    assert_eq!(told.len(), 3 * 12 + 1);
    let kinds: Vec<_> = told.iter().map(|event| event["event"].as_str().expect("a word")).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "started").count(), 4);
    let places: Vec<_> = told.iter().map(|event| (event["boot"].as_u64(), seq(event))).collect();
    assert!(places.is_sorted_by(|one, next| one < next), "{places:?}");
}

#[test]
fn comings_and_goings_of_connections_have_a_feed_of_their_own() {
    let (gate, admin) = start(&["--transport-events", "/dev/null"]);
    let mut follower = Follower::start(admin, "/v1/transport", "");
    drop(Caller::login(gate.address, "anna"));
    let events = follower.events(2);
    assert_eq!((&events[0]["event"], &events[0]["dropped"]), (&"connected".into(), &0.into()));
    assert_eq!(events[1]["event"], "disconnected");
    assert_eq!(events[1]["client"], "anna");
    let id = follower.last_id.clone();
    drop(Caller::login(gate.address, "bert"));
    let mut again = Follower::start(admin, "/v1/transport", &id);
    assert_eq!(again.events(2)[1]["client"], "bert", "from memory");
}

#[test]
fn only_so_many_follow() {
    let (_gate, admin) = start(&[]);
    let most = limits::FEED_FOLLOWERS_MAX;
    let mut followers: Vec<_> =
        (0..most).map(|_| Follower::start(admin, "/v1/events", "")).collect();
    let refused = Follower::try_start(admin, "/v1/events", "").err().expect("one too many");
    assert_eq!((refused.status, refused.problem().as_str()), (503, "busy"));
    assert_eq!(get(admin, "/v1/stats").status, 200, "others still find room");
    followers.pop();
    let freed = (0..100).find(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Follower::try_start(admin, "/v1/events", "").is_ok()
    });
    assert!(freed.is_some(), "whoever goes leaves a place");
}
