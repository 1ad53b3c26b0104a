//! What a world is like: its rhythms, its limits, and how many live in it.

use super::*;

pub(super) fn config(rng: &mut Rng) -> GatewayConfig {
    let rhythms =
        [(200, 500), (1_000, 2_500), (2_000, 7_000), (15_000, 35_000), (240_000, 300_000)];
    let (interval, timeout) = rhythms[rng.usize(0..rhythms.len())];
    let rhythm = Rhythm::new(Span::from_millis(interval), Span::from_millis(timeout));
    // A tick that is long beside the timeout leaves no time for a ping and its answer.
    let tick_millis = [1, 10, 10, 64, 1_000][rng.usize(0..5)];
    let (handshake, frame, linger) = [(10, 10, 2), (3, 5, 1), (1, 1, 5)][rng.usize(0..3)];
    let patience = Span::from_millis(timeout - interval);
    let probe = match rng.u32(0..4) {
        0 => ProbePolicy::Off,
        1 => ProbePolicy::Fixed(part_of(rng, patience, 10..60)),
        _ => ProbePolicy::Auto,
    };
    let rhythm = rhythm.expect("a rhythm of the table");
    let grace = if rng.bool() { Span::ZERO } else { part_of(rng, rhythm.timeout, 1..300) };
    let duplicate = if happens(rng, 200) { Duplicate::Reject } else { Duplicate::TakeOver };
    let own = Class { rhythm, probe, grace, duplicate };
    let kept = Class { grace: part_of(rng, rhythm.timeout, 1..300), ..own };
    let strict = Class { duplicate: Duplicate::Reject, rhythm: Preset::Typical.rhythm(), ..own };
    let mut classes = vec![("kept".to_owned(), kept), ("strict".to_owned(), strict)];
    classes.truncate(rng.usize(0..3));
    GatewayConfig {
        queue: mail::queue(rng, rhythm),
        rhythm,
        grace,
        duplicate,
        classes,
        resume_key: [rng.u64(..), rng.u64(..)],
        mode: [Mode::Client, Mode::Client, Mode::Server, Mode::Either][rng.usize(0..4)],
        probe,
        tick: Span::from_millis(tick_millis.min(timeout / 20)),
        connections_max: [3, 20, 1_000, 1_000][rng.usize(0..4)],
        handshake_timeout: Span::from_secs(handshake),
        frame_timeout: Span::from_secs(frame),
        linger_timeout: Span::from_secs(linger),
        outbox_bytes_max: [2_048, limits::OUTBOX_BYTES_MAX][rng.usize(0..2)],
        payload_bytes_max: 1_024,
        epoch_first: rng.u64(1..1_000_000),
        hash_key: [rng.u64(..), rng.u64(..)],
        seed: rng.u64(..),
        admission: admission::loose(rng),
        client_limits: admission::patient(rng),
        ..GatewayConfig::default()
    }
}

/// How many devices: mostly a few, now and then a crowd.
pub(super) fn devices(rng: &mut Rng, config: &GatewayConfig) -> usize {
    let (few, crowd) = (rng.usize(1..=25), rng.usize(100..=300));
    // Sometimes more than there are slots for, the refused ones included.
    let is_crowd = match config.connections_max {
        3 => happens(rng, 150),
        20 => false,
        _ => happens(rng, 40),
    };
    if is_crowd { crowd } else { few }
}
