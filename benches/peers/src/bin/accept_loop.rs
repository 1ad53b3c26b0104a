//! The floor of connecting: accept, take a HELLO, say a WELCOME, and forget the connection, which
//! stays open until this process ends.

use heartwheel_peers::address;
use heartwheel_peers::beats::{Inbound, Spread, next};
use heartwheel_peers::ring::{Kind, Ring};

fn main() -> std::io::Result<()> {
    let mut ring = Ring::new(address())?;
    let (mut news, mut spread) = (Vec::new(), Spread::default());
    loop {
        ring.wait(&mut news)?;
        for done in news.drain(..) {
            match (done.kind, done.buffer) {
                (Kind::Accept, _) => {
                    let slot = ring.accepted(done)?;
                    ring.receive_once(slot);
                }
                (Kind::Receive, Some(buffer)) => {
                    let length = usize::try_from(done.result).unwrap_or(0);
                    let mut bytes = ring.received(buffer, length);
                    let welcome = match next(&mut bytes) {
                        Ok(Some(Inbound::Hello { wanted_interval_ms, .. })) => {
                            Some(spread.welcome(wanted_interval_ms))
                        }
                        _ => None,
                    };
                    ring.give_back(buffer);
                    match welcome {
                        Some(welcome) => ring.send(done.slot, &welcome),
                        None => ring.close(done.slot),
                    }
                }
                (Kind::Receive, None) => ring.close(done.slot),
                (Kind::Send | Kind::Close, _) => {}
            }
        }
        ring.publish();
    }
}
