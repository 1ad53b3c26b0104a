//! All of them in one process, in turn: what a beat costs, how long a tick stops everything, what
//! the death of all costs.

use std::time::Duration;

use crate::rivals::{BareStore, CoarseHashWheel, EagerList, HashWheel, HeartWheel, LazyList};
use crate::rivals::{Day, Deadlines, MapScan, Order, Pace, TokioDelayQueue, Tree};
use crate::rivals::{mass_expiry_nanos, spread_of};

/// How much is measured: all, or just enough to see that it runs.
struct Scale {
    /// Clients, and rounds for them.
    beats: &'static [(u32, usize)],
    orders: (u32, usize),
    pauses: &'static [u32],
    pause_intervals: u64,
}

const WHOLE: Scale = Scale {
    beats: &[(10_000, 101), (100_000, 31), (1_000_000, 7), (4_000_000, 3)],
    orders: (1_000_000, 5),
    pauses: &[10_000, 100_000, 1_000_000],
    pause_intervals: 10,
};
const TRIAL: Scale =
    Scale { beats: &[(1_000, 2)], orders: (1_000, 1), pauses: &[1_000], pause_intervals: 1 };

/// A noise that hits a tick does not hit the same tick the next time; work does.
const PAUSE_RUNS: usize = 2;

/// What was measured.
pub(crate) struct Results {
    pub(crate) beats: Vec<Beats>,
    pub(crate) pauses: Vec<Pause>,
}

/// Nanoseconds for a beat, a number for each round.
pub(crate) struct Beats {
    pub(crate) name: &'static str,
    pub(crate) clients: u32,
    pub(crate) order: Order,
    pub(crate) nanos: Vec<f64>,
    /// As a multiple of the bare store in the same round.
    pub(crate) of_store: Vec<f64>,
    /// As a multiple of the wheel in the same round.
    pub(crate) of_wheel: Vec<f64>,
}

/// Ticks over 300 s in which nobody dies, and then one in which all do.
pub(crate) struct Pause {
    pub(crate) name: &'static str,
    pub(crate) clients: u32,
    /// 99.9 % of ticks take at most this.
    pub(crate) usual: Duration,
    /// The longest that is as long in every run.
    pub(crate) longest: Duration,
    /// The longest of any run, with whatever the machine did meanwhile.
    pub(crate) longest_once: Duration,
    pub(crate) death_nanos: f64,
}

/// Somebody who takes part, whatever its type.
trait Entrant {
    fn name(&self) -> &'static str;
    fn live(&mut self, day: &Day);
    fn measure(&mut self, day: &mut Day) -> f64;
}

impl<D: Deadlines> Entrant for D {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn live(&mut self, day: &Day) {
        day.live(self);
    }

    fn measure(&mut self, day: &mut Day) -> f64 {
        day.measure(self)
    }
}

pub(crate) fn run(is_trial: bool) -> Results {
    let scale = if is_trial { TRIAL } else { WHOLE };
    let mut beats = Vec::new();
    for &(clients, rounds) in scale.beats {
        let entrants = all(clients);
        let here = rounds_of(entrants, clients, Order::New, rounds);
        print_beats(&here);
        beats.extend(here);
    }
    let (clients, rounds) = scale.orders;
    for order in [Order::Drifting, Order::Same] {
        let here = rounds_of(some(clients), clients, order, rounds);
        print_beats(&here);
        beats.extend(here);
    }
    let mut pauses = Vec::new();
    for &clients in scale.pauses {
        let here = pauses_of(clients, scale.pause_intervals);
        print_pauses(&here, scale.pause_intervals);
        pauses.extend(here);
    }
    Results { beats, pauses }
}

/// Above this many, those who take longest are left out: they would take minutes.
const ALL_CLIENTS_MAX: u32 = 1_000_000;

fn all(clients: u32) -> Vec<Box<dyn Entrant>> {
    let mut entrants = some(clients);
    entrants.push(Box::new(LazyList::new(clients)));
    entrants.push(Box::new(MapScan::new(clients)));
    if clients <= ALL_CLIENTS_MAX {
        entrants.push(Box::new(Tree::new(clients)));
        entrants.push(Box::new(CoarseHashWheel::new(clients)));
    }
    entrants
}

fn some(clients: u32) -> Vec<Box<dyn Entrant>> {
    vec![
        Box::new(BareStore::new(clients)),
        Box::new(HeartWheel::new(clients)),
        Box::new(EagerList::new(clients)),
        Box::new(TokioDelayQueue::new(clients)),
        Box::new(HashWheel::new(clients)),
    ]
}

/// One interval of the same day for each, in turn, there and back.
fn rounds_of(
    mut entrants: Vec<Box<dyn Entrant>>,
    clients: u32,
    order: Order,
    rounds: usize,
) -> Vec<Beats> {
    let mut day = Day::new(clients, Pace::USUAL, order);
    entrants.iter_mut().for_each(|entrant| entrant.live(&day));
    let mut nanos = vec![Vec::with_capacity(rounds); entrants.len()];
    for round in 0..rounds {
        day.next_interval();
        for turn in 0..entrants.len() {
            let who = if round % 2 == 0 { turn } else { entrants.len() - 1 - turn };
            nanos[who].push(entrants[who].measure(&mut day));
        }
    }
    let position = |name| entrants.iter().position(|entrant| entrant.name() == name);
    let store = position(BareStore::NAME).expect("takes part");
    let wheel = position(HeartWheel::NAME).expect("takes part");
    let of = |who: usize, other: usize| {
        nanos[who].iter().zip(&nanos[other]).map(|(who, other)| who / other).collect()
    };
    let result = |who: usize| Beats {
        name: entrants[who].name(),
        clients,
        order,
        nanos: nanos[who].clone(),
        of_store: of(who, store),
        of_wheel: of(who, wheel),
    };
    (0..entrants.len()).map(result).collect()
}

fn print_beats(results: &[Beats]) {
    let Beats { clients, order, nanos, .. } = &results[0];
    println!(
        "\nns a beat with its share of ticks: {clients} clients, order {order:?}, {} rounds",
        nanos.len()
    );
    println!("median (a quarter below .. a quarter above)");
    println!("{:<36} {:>22} {:>22} {:>22}", "", "ns", "times the bare store", "times the wheel");
    for Beats { name, nanos, of_store, of_wheel, .. } in results {
        let [nanos, of_store, of_wheel] = [nanos, of_store, of_wheel].map(|values| told(values));
        println!("{name:<36} {nanos:>22} {of_store:>22} {of_wheel:>22}");
    }
}

/// The median, and where the middle half of the values lies.
pub(crate) fn told(values: &[f64]) -> String {
    let [low, median, high] = spread_of(values);
    let digits = if median < 20.0 { 2 } else { 0 };
    format!("{median:.digits$} ({low:.digits$}..{high:.digits$})")
}

fn pauses_of(clients: u32, intervals: u64) -> Vec<Pause> {
    vec![
        pause::<HeartWheel>(clients, intervals),
        pause::<EagerList>(clients, intervals),
        pause::<LazyList>(clients, intervals),
        pause::<MapScan>(clients, intervals),
        pause::<Tree>(clients, intervals),
        pause::<TokioDelayQueue>(clients, intervals),
        pause::<HashWheel>(clients, intervals),
    ]
}

fn pause<D: Deadlines>(clients: u32, intervals: u64) -> Pause {
    let mut longest_once = Duration::ZERO;
    let mut least: Vec<Duration> = Vec::new();
    for _ in 0..PAUSE_RUNS {
        let took = ticks_of_days::<D>(clients, intervals);
        longest_once = longest_once.max(*took.iter().max().expect("an interval has ticks"));
        if least.is_empty() {
            least = took;
        } else {
            least.iter_mut().zip(took).for_each(|(least, took)| *least = took.min(*least));
        }
    }
    least.sort_unstable();
    Pause {
        name: D::NAME,
        clients,
        usual: least[least.len() * 999 / 1_000],
        longest: least[least.len() - 1],
        longest_once,
        death_nanos: mass_expiry_nanos::<D>(clients),
    }
}

fn ticks_of_days<D: Deadlines>(clients: u32, intervals: u64) -> Vec<Duration> {
    let (mut day, mut deadlines) = (Day::new(clients, Pace::USUAL, Order::New), D::new(clients));
    day.live(&mut deadlines);
    let mut took = Vec::new();
    for _ in 0..intervals {
        day.next_interval();
        took.extend(day.ticks(&mut deadlines).0);
    }
    took
}

fn print_pauses(results: &[Pause], intervals: u64) {
    let seconds = intervals * 30;
    println!("\nticks over {seconds} s: {} clients, {PAUSE_RUNS} runs", results[0].clients);
    println!("'longest' is as long in every run; 'once' in one of them, noise included");
    let columns = ["99.9 % at most", "longest", "once", "all die in 1 s, ns each"];
    println!(
        "{:<36} {:>14} {:>14} {:>14} {:>24}",
        "", columns[0], columns[1], columns[2], columns[3]
    );
    for Pause { name, usual, longest, longest_once, death_nanos, .. } in results {
        println!(
            "{name:<36} {usual:>14.1?} {longest:>14.1?} {longest_once:>14.1?} {death_nanos:>24.1}"
        );
    }
}
