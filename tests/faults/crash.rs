//! The server dies without a word, and comes back on the same port.

use std::time::{Duration, Instant};

use crate::feed::Feed;
use crate::fleet::{Crew, Fleet};
use crate::gate::{Caller, Gate, Heard};
use crate::{PATIENCE, alone, figure, seconds};

#[test]
fn a_killed_server_starts_again_at_once_on_its_port_and_epochs_grow() {
    let _alone = alone();
    let crew = Crew { prefix: "f-", clients: 2_000, interval_ms: 2_000 };
    let first = Gate::start(&["--interval", "2s", "--timeout", "10s"]);
    let address = first.address;
    let mut before = Feed::default();
    let fleet = Fleet::launch(address, crew);
    let callers: Vec<Caller> = (0..50).map(|n| Caller::login(address, &format!("b-{n}"))).collect();
    before.until(&first, "everybody is online", |feed| feed.online() == 2_050);

    first.signal("KILL");
    let killed = Instant::now();
    let listen = address.to_string();
    let mut second = Gate::start(&["--listen", &listen, "--interval", "2s", "--timeout", "10s"]);
    let listens_after = killed.elapsed();
    assert_eq!(second.address, address);
    for mut caller in callers {
        let heard = caller.hear();
        assert!(matches!(heard, Heard::Closed | Heard::Reset), "{heard:?}");
    }
    let back: Vec<Caller> = (0..50).map(|n| Caller::login(address, &format!("b-{n}"))).collect();
    let mut after = Feed::default();
    let deadline = Instant::now() + PATIENCE;
    while after.online() < 2_050 {
        assert!(Instant::now() < deadline, "only {} are back", after.online());
        // Who has not yet noticed the loss cannot be sent back yet.
        (0..crew.clients).for_each(|index| fleet.revive(index));
        after.during(&second, Duration::from_millis(100));
    }
    let back_after = killed.elapsed();

    assert!(after.boot() > before.boot(), "boots count up");
    for client in before.clients() {
        assert!(after.epoch(client) > before.epoch(client), "{client}: epochs outlive a crash");
    }
    fleet.end();
    drop(back);
    after.until_stopped(&mut second);
    figure(
        "crash",
        format_args!(
            "killed with 2050 connections: listens again on its port after {}, everybody back \
             with a larger epoch after {}",
            seconds(listens_after),
            seconds(back_after)
        ),
    );
}
