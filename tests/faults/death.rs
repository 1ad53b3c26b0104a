//! Many die at once: killed, so that the kernel closes their sockets, or silenced, so that nothing
//! tells of it.

use std::time::{Duration, Instant};

use heartwheel::base::time::Span;

use crate::feed::{Feed, longest_silence};
use crate::fleet::{Crew, Fleet, OtherProcess, assert_unharmed};
use crate::gate::Gate;
use crate::{LATE_MAX, alone, figure, seconds};

#[test]
pub(crate) fn when_a_fleet_is_killed_each_of_its_connections_ends_once() {
    let _alone = alone();
    // Nobody is judged here: the closes must do it.
    let mut gate = Gate::start(&["--interval", "5s", "--timeout", "60s"]);
    let crew = Crew { prefix: "k-", clients: 5_000, interval_ms: 5_000 };
    let doomed = OtherProcess::launch(gate.address, crew);
    let mut feed = Feed::default();
    feed.until(&gate, "everybody is online", |feed| feed.online() == 5_000);
    doomed.kill();
    let killed = Instant::now();
    feed.until(&gate, "everybody is offline", |feed| feed.endings.len() == 5_000);
    let took = killed.elapsed();
    let reasons = feed.reasons();
    assert!(reasons.keys().all(|word| ["closed_by_peer", "reset"].contains(word)), "{reasons:?}");
    let said = format!("{reasons:?}");
    feed.until_stopped(&mut gate);
    figure(
        "kill",
        format_args!("5000 connections of a killed process offline in {}: {said}", seconds(took)),
    );
}

#[test]
pub(crate) fn when_ten_thousand_fall_silent_in_one_instant_the_survivors_notice_nothing() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let _alone = alone();
    let mut gate = Gate::start(&["--interval", "1s", "--timeout", "3s"]);
    let many = Crew { prefix: "many-", clients: 10_000, interval_ms: 1_000 };
    let few = Crew { prefix: "few-", clients: 100, interval_ms: 1_000 };
    let doomed = OtherProcess::launch(gate.address, many);
    let mut feed = Feed::default();
    feed.until(&gate, "the many are online", |feed| feed.online() == 10_000);
    let survivors = Fleet::launch(gate.address, few);
    feed.until(&gate, "the few are online", |feed| feed.online() == 10_100);
    feed.during(&gate, Duration::from_secs(1));
    assert_eq!(feed.endings.len(), 0, "{:?}", feed.reasons());

    doomed.stop();
    let died = Instant::now();
    feed.until(&gate, "every death is found", |feed| feed.endings.len() >= 10_000);
    let found_after = died.elapsed();
    let tally = survivors.end();
    assert_unharmed("survivors", few, &tally);
    for ending in feed.endings_of("many-") {
        assert_eq!(ending.reason, "heartbeat_timeout", "{}", ending.client);
        assert!(ending.silence >= TIMEOUT, "never early: {ending:?}");
        assert!(ending.silence <= TIMEOUT + LATE_MAX, "never late: {ending:?}");
    }
    let longest = longest_silence(feed.endings_of("many-"));
    let rtt = tally.rtt.summary();
    assert!(rtt.p99 <= Span::from_secs(1), "the survivors wait: {rtt:?}");
    feed.until_stopped(&mut gate);
    figure(
        "mass death",
        format_args!(
            "10000 silent in one instant (timeout 3 s): all found after {}, longest silence {}; \
             100 survivors meanwhile: 0 lost, {} beats answered, p50 {} us, p99 {} us, max {} us",
            seconds(found_after),
            seconds(longest),
            tally.pongs_received,
            rtt.p50.as_micros(),
            rtt.p99.as_micros(),
            rtt.max.as_micros()
        ),
    );
}
