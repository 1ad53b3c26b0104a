//! The server stands still, and nobody may pay for it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::feed::{Feed, longest_silence};
use crate::files::serve_with;
use crate::fleet::{Crew, Fleet};
use crate::gate::Gate;
use crate::{LATE_MAX, alone, figure, seconds};

const TIMEOUT: Duration = Duration::from_secs(3);

#[test]
pub(crate) fn after_a_stop_of_twice_the_timeout_the_living_are_online_and_the_dead_are_found() {
    let _alone = alone();
    let gate = Gate::start(&["--interval", "1s", "--timeout", "3s"]);
    figure("stall", stand_still(gate, 10_000, || {}));
}

#[test]
fn with_many_rings_too_the_living_are_online_after_a_stop_and_the_dead_are_found() {
    let _alone = alone();
    // Where no more than 1,000 files may be open, a ring holds no more than 1,000 connections.
    let rhythm = ["--interval", "1s", "--timeout", "3s", "--descriptors", "direct"];
    let mut gate = Gate::start_by(
        serve_with(1_000),
        &[rhythm.as_slice(), &["--max-connections", "6000"]].concat(),
    );
    gate.read_events();
    let pid = gate.pid();
    figure(
        "stall, many rings",
        stand_still(gate, 6_000, || {
            let rings = rings_of(pid);
            assert!(rings >= 6, "{rings} rings");
        }),
    );
}

/// How many rings this process has.
fn rings_of(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    names.filter(|name| name.as_os_str() == "anon_inode:[io_uring]").count()
}

/// The server stands still for twice the timeout, and some die meanwhile. `inspect` is called when
/// everybody is online.
fn stand_still(mut gate: Gate, clients: u32, inspect: impl FnOnce()) -> String {
    let crew = Crew { prefix: "c-", clients, interval_ms: 1_000 };
    let fleet = Fleet::launch(gate.address, crew);
    let mut feed = Feed::default();
    feed.until(&gate, "everybody is online", |feed| feed.online() == clients as usize);
    inspect();
    feed.during(&gate, Duration::from_secs(1));
    assert_eq!(feed.endings.len(), 0, "{:?}", feed.reasons());

    gate.signal("STOP");
    let stopped = Instant::now();
    let silence = |indices: std::ops::Range<u32>| indices.for_each(|index| fleet.silence(index));
    silence(0..50); // Whether their last beat was read before the stop is chance.
    std::thread::sleep(TIMEOUT / 2);
    silence(50..100); // Their last beat waits to be read.
    std::thread::sleep((TIMEOUT * 2).saturating_sub(stopped.elapsed()));
    let stood_still = stopped.elapsed();
    gate.signal("CONT");
    let resumed = Instant::now();

    feed.until(&gate, "the dead are found", |feed| feed.endings.len() >= 100);
    let found_after = resumed.elapsed();
    // Whoever is judged wrongly for what the server did not read is judged within a timeout.
    feed.during(&gate, TIMEOUT);
    let tally = fleet.end();
    let expected: HashSet<String> = (0..100).map(|index| crew.client_id(index)).collect();
    let judged: HashSet<String> = feed.endings_of("c-").filter_map(by_silence).collect();
    assert_eq!(tally.overslept, 0, "the fleet itself was too slow, which proves nothing");
    assert_eq!(tally.false_offline, 0, "no living client is judged dead");
    assert_eq!(judged, expected, "the dead, and nobody else");
    assert!(found_after <= TIMEOUT + LATE_MAX, "{found_after:?}");
    assert!(feed.endings_of("c-").filter(|e| e.reason == WORD).all(|e| e.silence >= TIMEOUT));
    let longest = longest_silence(feed.endings.iter().filter(|e| e.reason == WORD));
    feed.until_stopped(&mut gate);
    format!(
        "stopped for {} with {clients} beating clients (timeout 3 s): 0 false offline; 100 that \
         died meanwhile found {} after the end of the stop, longest silence {}",
        seconds(stood_still),
        seconds(found_after),
        seconds(longest)
    )
}

const WORD: &str = "heartbeat_timeout";

fn by_silence(ending: &crate::feed::Ending) -> Option<String> {
    (ending.reason == WORD).then(|| ending.client.clone())
}
