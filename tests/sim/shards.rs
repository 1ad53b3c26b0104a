//! Several gateways as one: connections that come in at the wrong one are handed over, with delays
//! and failures, in worlds that follow from a seed.
//!
//! Smaller than the world of one gateway (`world.rs`), which finds what is wrong with a gateway by
//! itself. Here it is about what lies between them: one owner for each client, no byte lost on the
//! way, no socket and no slot left behind.

mod town;
mod wire;

use crate::number;
use crate::shards::town::{Sum, Town};

const TOWNS_DEFAULT: u64 = 300;

/// `SHARD_SEEDS=20000 cargo test --release --test sim shards` for a long run, `SHARD_SEED=7` for
/// one town.
#[test]
fn no_town_of_several_gateways_breaks_a_promise() {
    let seeds = match number("SHARD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHARD_SEEDS").unwrap_or(TOWNS_DEFAULT),
    };
    let mut sum = Sum::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        println!("town {seed}");
        sum.add(&Town::new(seed).live());
    }
    println!("{count} towns: {sum:?}");
    if count >= TOWNS_DEFAULT {
        sum.insist();
    }
}
