//! The floor of io_uring: what a beat costs when nobody keeps a deadline, a name or a state.

use heartwheel_peers::address;
use heartwheel_peers::beats::{Inbound, Spread, next, write_pong};
use heartwheel_peers::ring::{Done, Kind, Ring};

fn main() -> std::io::Result<()> {
    let mut ring = Ring::new(address())?;
    let (mut news, mut answer, mut spread) = (Vec::new(), Vec::new(), Spread::default());
    loop {
        ring.wait(&mut news)?;
        for done in news.drain(..) {
            match done.kind {
                Kind::Accept => {
                    let slot = ring.accepted(done)?;
                    ring.receive_many(slot);
                }
                Kind::Receive => on_received(&mut ring, done, &mut answer, &mut spread),
                Kind::Send | Kind::Close => {}
            }
        }
        ring.publish();
    }
}

fn on_received(ring: &mut Ring, done: Done, answer: &mut Vec<u8>, spread: &mut Spread) {
    let is_starved = done.result == -libc::ENOBUFS;
    let mut is_over = done.result <= 0 && !is_starved;
    if let (Some(buffer), false) = (done.buffer, is_over) {
        let mut bytes = ring.received(buffer, done.result.unsigned_abs() as usize);
        answer.clear();
        loop {
            match next(&mut bytes) {
                Ok(Some(Inbound::Hello { wanted_interval_ms, .. })) => {
                    answer.extend_from_slice(&spread.welcome(wanted_interval_ms));
                }
                Ok(Some(Inbound::Ping(payload))) => write_pong(payload, answer),
                Ok(Some(Inbound::Beat | Inbound::Bye)) => {}
                Ok(None) => break,
                Err(_) => {
                    is_over = !done.has_more;
                    break;
                }
            }
        }
        ring.give_back(buffer);
        if !answer.is_empty() {
            ring.send(done.slot, answer);
        }
    } else if let Some(buffer) = done.buffer {
        ring.give_back(buffer);
    }
    if is_over {
        ring.close(done.slot);
    } else if !done.has_more {
        ring.receive_many(done.slot);
    }
}
