//! The whole gateway in worlds that follow from a seed.
//!
//! ```text
//! cargo test --test sim                    the first 300 seeds
//! SEEDS=100000 cargo test --release --test sim    a night
//! SEED=17 TRACE=1 cargo test --test sim -- --nocapture    one world, step by step
//! ```

mod clients;
mod faults;
mod kernel;
mod lived;
mod oracle;
mod script;
mod world;

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::world::{Outcome, live};

const SEEDS_DEFAULT: u64 = 300;

/// The seeds to live through: one that was asked for, or so many from zero.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS_DEFAULT),
    }
}

#[test]
fn no_world_breaks_a_promise() {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let outcomes = Mutex::new(Vec::new());
    let failed = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().expect("nobody panics with the lock").len() < 3 {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match catch_unwind(|| live(seed)) {
                        Ok(outcome) => outcomes.lock().expect("the same").push(outcome),
                        Err(_) => failed.lock().expect("the same").push(seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("the same");
    for seed in &failed {
        eprintln!("repeat with: SEED={seed} TRACE=1 cargo test --test sim -- --nocapture");
    }
    assert!(failed.is_empty(), "seeds {failed:?} broke a promise");
    sum_up(&outcomes.into_inner().expect("the same"));
}

/// Says what was lived through, and that it was worth living through.
fn sum_up(outcomes: &[Outcome]) {
    let total = |part: fn(&Outcome) -> usize| outcomes.iter().map(part).sum::<usize>();
    let (verdicts, rescued) = (total(|world| world.verdicts), total(|world| world.rescued));
    println!(
        "{} worlds, {:.1} h lived, {} steps, {} events, {verdicts} verdicts, {rescued} rescued",
        outcomes.len(),
        outcomes.iter().map(|world| world.lived.as_secs_f64()).sum::<f64>() / 3_600.0,
        total(|world| world.steps),
        total(|world| world.records),
    );
    if outcomes.len() >= 100 {
        assert!(verdicts > outcomes.len(), "worlds in which hardly anybody dies prove little");
        assert!(rescued > 0, "nobody was rescued by a last look");
    }
}
