//! The whole gateway in worlds that follow from a seed.
//!
//! ```text
//! cargo test --test sim                    the first 1,000 seeds, and 300 with layers
//! SEEDS=100000 cargo test --release --test sim -- --nocapture    a night
//! SEED=17 TRACE=1 cargo test --test sim -- --nocapture    one world, step by step
//! UP_SEED=17 cargo test --test sim up:: -- --nocapture    one world in which clients talk
//! UP_SEEDS=10000 cargo test --release --test sim up::    many of those
//! SEED=17 SCENE=layered TRACE=1 cargo test --test sim -- --nocapture    one with layers
//! CONNECTIONS=1000000 cargo test --release --test sim scale    a million connections
//! ```
//!
//! A world in which a promise breaks is made smaller until nothing more can be left out, and what
//! is printed then repeats it: `SEED=17 CLIENTS=3 FAULTS=cut,stall TURNS=412`.

mod admission;
mod clients;
mod faults;
mod guard;
mod inbox;
mod kernel;
mod leave;
mod ledger;
mod link;
mod lived;
mod oracle;
mod past;
mod scale;
mod script;
mod shards;
mod tally;
mod trial;
mod up;
mod ways;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use heartwheel::base::time::Span;
use heartwheel::os::process;

use crate::faults::Fault;
use crate::link::Sabotage;
use crate::tally::Tally;
use crate::trial::{Bounds, Failure, SCENES, Scene, attempt, shrink};
use crate::world::Outcome;

const SEEDS_DEFAULT: u64 = 1_000;
/// With handshakes a world takes longer.
const SEEDS_LAYERED: u64 = 300;

/// From so many worlds on, something that never happened in them cannot happen.
const SEEDS_TELLING: u64 = 1_000;

/// Virtual seconds that pass in one of processor time, at the least: how busy the machine is with
/// other work makes no difference.
const SPEED_MIN: f64 = 1_000.0;

/// Worlds that are made smaller before we give up.
const FAILURES_MAX: usize = 3;

#[test]
fn no_world_breaks_a_promise() {
    let (sum, spent) = live_through(Scene::Bare, SEEDS_DEFAULT);
    if let Some(spent) = spent {
        sum.insist(spent);
    }
}

#[test]
fn no_world_of_layers_breaks_a_promise() {
    let (sum, spent) = live_through(Scene::Layered, SEEDS_LAYERED);
    let missing = sum.tally.missing_in_layers();
    let is_telling = spent.is_some() && sum.worlds >= SEEDS_LAYERED;
    assert!(missing.is_empty() || !is_telling, "in {} worlds never: {missing:?}", sum.worlds);
}

/// Lives through so many worlds, or those that are asked for. How long that took, unless it was one
/// that was asked for.
fn live_through(scene: Scene, seeds_default: u64) -> (Sum, Option<Span>) {
    let asked = asked_for();
    let seeds = match &asked {
        Some(bounds) if bounds.scene != scene => return (Sum::default(), None),
        Some(bounds) => bounds.seed..bounds.seed + 1,
        None => 0..number("SEEDS").unwrap_or(seeds_default),
    };
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let failures = Mutex::new(Vec::new());
    let (begin, cpu_begin) = (Instant::now(), process::own_cpu());
    let work = || {
        while failures.lock().expect("nobody panics with the lock").len() < FAILURES_MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let bounds = asked.clone().unwrap_or(Bounds { seed, scene, ..Bounds::default() });
            match attempt(&bounds) {
                Ok(outcome) => sum.lock().expect("the same").add(&outcome, begin),
                Err(failure) => failures.lock().expect("the same").push(failure),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("the same");
    tell_failures(&failures, asked.is_some());
    let sum = sum.into_inner().expect("the same");
    let spent = process::own_cpu().minus(cpu_begin);
    sum.tell(spent);
    (sum, asked.is_none().then_some(spent))
}

#[test]
fn the_same_seed_makes_the_same_world() {
    for (seed, scene) in (0..5).flat_map(|seed| SCENES.map(|(scene, _)| (seed, scene))) {
        let bounds = Bounds { seed, scene, ..Bounds::default() };
        let (once, again) = (attempt(&bounds), attempt(&bounds));
        let (once, again) = (once.expect("no promise breaks"), again.expect("nor here"));
        assert_eq!(once.fingerprint, again.fingerprint, "seed {seed} {scene:?}");
    }
}

#[test]
fn a_kernel_that_lies_is_found_out_and_the_world_shrinks() {
    // A blind look does harm only when much comes together; lost bytes need nobody else.
    for (sabotage, promise, devices_max) in
        [(Sabotage::BlindLook, "P3", usize::MAX), (Sabotage::LostBytes, "", 2)]
    {
        let worlds =
            (0..200).map(|seed| Bounds { seed, sabotage: Some(sabotage), ..Bounds::default() });
        let failure = worlds.into_iter().find_map(|bounds| attempt(&bounds).err());
        let failure = failure.unwrap_or_else(|| panic!("nobody notices {sabotage:?}"));
        let before = failure.bounds.clone();
        assert!(failure.text.contains(promise), "{sabotage:?}: {}", failure.text);
        let smallest = shrink(failure);
        let count = |bounds: &Bounds| bounds.devices.as_ref().map_or(0, Vec::len);
        assert!(count(&smallest.bounds) <= count(&before).min(devices_max), "{}", smallest.bounds);
        println!("{before} shrinks to {}", smallest.bounds);
        let again = attempt(&smallest.bounds).expect_err("it repeats");
        assert_eq!((again.place, again.text), (smallest.place, smallest.text));
    }
}

/// The world that is asked for on the command line, if one is.
fn asked_for() -> Option<Bounds> {
    let list = |name| std::env::var(name).ok();
    let devices = list("CLIENTS").map(|text| {
        let numbers = text.split(',').filter(|word| !word.is_empty());
        numbers.map(|word| word.parse().expect("CLIENTS are numbers")).collect()
    });
    let faults = list("FAULTS").map(|text| {
        let words = text.split(',').filter(|word| !word.is_empty());
        let fault = |word| Fault::from_word(word).unwrap_or_else(|| panic!("no fault {word}"));
        words.map(fault).collect()
    });
    let turns = number("TURNS");
    let course = number("COURSE").unwrap_or_default();
    let scene = list("SCENE")
        .map(|word| Scene::from_word(&word).unwrap_or_else(|| panic!("no scene {word}")));
    let scene = scene.unwrap_or_default();
    number("SEED").map(|seed| Bounds {
        seed,
        scene,
        devices,
        faults,
        turns,
        course,
        sabotage: None,
    })
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Makes the worlds in which a promise broke smaller, and says how to repeat them.
fn tell_failures(failures: &[Box<Failure>], is_asked: bool) {
    for failure in failures {
        let smallest = if is_asked { failure.clone() } else { shrink(failure.clone()) };
        eprintln!("seed {} at {}:\n{}", failure.bounds.seed, smallest.place, smallest.text);
        eprintln!(
            "repeat with: {} TRACE=1 cargo test --test sim promise -- --nocapture\n",
            smallest.bounds
        );
    }
    let seeds: Vec<_> = failures.iter().map(|failure| failure.bounds.seed).collect();
    assert!(failures.is_empty(), "seeds {seeds:?} broke a promise");
}

/// What was lived through in all worlds together.
#[derive(Default)]
struct Sum {
    worlds: u64,
    lived: Span,
    steps: usize,
    records: usize,
    clients: usize,
    tally: Tally,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome, begin: Instant) {
        self.worlds += 1;
        self.lived = self.lived + outcome.lived;
        self.steps += outcome.steps;
        self.records += outcome.records;
        self.clients += outcome.clients;
        self.tally.add(&outcome.tally);
        if self.worlds.is_multiple_of(1_000) {
            let seconds = begin.elapsed().as_secs_f64();
            println!("{} worlds in {seconds:.0} s", self.worlds);
        }
    }

    fn speed(&self, spent: Span) -> f64 {
        self.lived.as_secs_f64() / spent.as_secs_f64()
    }

    fn tell(&self, spent: Span) {
        println!(
            "{} worlds with {} connections, {:.3} years lived, {:.0} times faster than real, {} \
             steps, {} events",
            self.worlds,
            self.clients,
            self.lived.as_secs_f64() / (365.25 * 86_400.0),
            self.speed(spent),
            self.steps,
            self.records,
        );
        println!("{}", self.tally);
    }

    /// That it was worth living through.
    fn insist(&self, spent: Span) {
        assert!(self.speed(spent) > SPEED_MIN, "{:.0} times faster", self.speed(spent));
        if self.worlds >= SEEDS_TELLING {
            let missing = self.tally.missing();
            assert!(missing.is_empty(), "in {} worlds never: {missing:?}", self.worlds);
        }
    }
}
