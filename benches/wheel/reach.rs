//! What the wheel is to reach, each demand with what was measured.
//!
//! Demands on time are multiples of something measured in the same rounds where that is possible.
//! A missed demand is told, not punished: it may be the machine's.

use std::time::Duration;

use heartwheel::base::limits::EXPIRE_BATCH_MAX;
use heartwheel::tracker::{Progress, Tick, Wheel};

use crate::rivals::{BareStore, Beat, Day, Deadlines, HeartWheel, Order, Pace};
use crate::rivals::{own_time, spread_of};

/// How large the measured things are.
struct Scale {
    clients: u32,
    many_clients: u32,
    rounds: usize,
    intervals: u64,
}

const WHOLE: Scale =
    Scale { clients: 1_000_000, many_clients: 4_000_000, rounds: 9, intervals: 10 };
const TRIAL: Scale = Scale { clients: 1_000, many_clients: 2_000, rounds: 1, intervals: 1 };
const HOUR_TICKS: u64 = 360_000;

/// The least of so many runs: noise only adds.
const RUNS: usize = 3;

pub(crate) fn run(is_trial: bool) {
    let scale = if is_trial { TRIAL } else { WHOLE };
    let Scale { clients, many_clients, intervals, .. } = scale;
    println!("\n{:<64} {:>12} {:>12}", format!("{clients} timers"), "demand", "measured");
    refresh(&scale);
    mixed(&scale);
    for (what, clients, pace, demand) in [
        ("longest tick, all connected within a second", clients, Pace::USUAL, 50.0),
        ("the same with four times as many", many_clients, Pace::USUAL, 250.0),
        ("the same, a beat a second, timeout 3 s", clients, Pace::BRISK, 500.0),
    ] {
        let intervals = intervals * Pace::USUAL.interval / pace.interval;
        let worst = worst_tick::<HeartWheel>(clients, pace, intervals);
        row(what, demand, worst.nanos / 1e3, "us");
        println!(
            "{:<64} {:>25}",
            "  its busiest tick",
            format!("{} of {} blocks", worst.visits, clients.div_ceil(64))
        );
    }
    deaths(clients);
    coming_and_going(clients);
    idle(clients);
    let wheel = armed(clients, Pace::USUAL.timeout);
    row("memory in all", 5.0, wheel.memory_bytes() as f64 / f64::from(clients), "B each");
}

fn row(what: &str, at_most: f64, measured: f64, unit: &str) {
    let met = if measured <= at_most { "" } else { "  MISSED" };
    println!(
        "{what:<64} {:>12} {:>12}{met}",
        format!("{at_most} {unit}"),
        format!("{measured:.2}")
    );
}

/// The wheel with beats alone: time does not pass for it.
struct RefreshOnly(HeartWheel);

impl Deadlines for RefreshOnly {
    const NAME: &'static str = "refresh alone";

    fn new(clients: u32) -> Self {
        Self(HeartWheel::new(clients))
    }

    fn beat(&mut self, beat: Beat) {
        self.0.beat(beat);
    }

    fn tick(&mut self, _now: u64) -> usize {
        std::hint::black_box(&self.0);
        0
    }
}

/// A line of 64 bytes for each client, read and written: what a node of any kind costs at least.
struct LineUpdate(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Deadlines for LineUpdate {
    const NAME: &'static str = "a line updated";

    fn new(clients: u32) -> Self {
        Self(vec![Line([0; 8]); clients as usize])
    }

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
        let Line(words) = &mut self.0[client as usize];
        words[0] = words[0].wrapping_add(deadline);
    }

    fn tick(&mut self, _now: u64) -> usize {
        std::hint::black_box(&self.0);
        0
    }
}

fn refresh(scale: &Scale) {
    let mut day = Day::new(scale.clients, Pace::USUAL, Order::New);
    let mut store = BareStore::new(scale.clients);
    let mut line = LineUpdate::new(scale.clients);
    let mut refresh = RefreshOnly::new(scale.clients);
    let mut wheel = HeartWheel::new(scale.clients);
    day.live(&mut refresh);
    day.live(&mut wheel);
    let (mut of_store, mut of_line, mut all_in) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        day.next_interval();
        let store_nanos = day.measure(&mut store);
        let refresh_nanos = day.measure(&mut refresh);
        of_store.push(refresh_nanos / store_nanos);
        of_line.push(refresh_nanos / day.measure(&mut line));
        all_in.push(day.measure(&mut wheel) / store_nanos);
    }
    row("refresh alone", 2.5, median(&of_store), "stores");
    row("refresh alone, against a line of 64 bytes updated", 0.8, median(&of_line), "lines");
    row("beat with its share of ticks", 3.0, median(&all_in), "stores");
}

/// Every beat with another timeout, 90 to 501 s: many bring the deadline nearer.
struct Mixed<D> {
    deadlines: D,
    more_ticks: Vec<u16>,
    turn: usize,
}

impl<D: Deadlines> Deadlines for Mixed<D> {
    const NAME: &'static str = "mixed deadlines";

    fn new(clients: u32) -> Self {
        const TURNS: usize = 1 << 12;
        let mut random = fastrand::Rng::with_seed(5);
        let more_ticks = (0..TURNS).map(|_| random.u16(..41_100)).collect();
        Self { deadlines: D::new(clients), more_ticks, turn: 0 }
    }

    fn beat(&mut self, beat: Beat) {
        let more = u64::from(self.more_ticks[self.turn % self.more_ticks.len()]);
        self.turn += 1;
        self.deadlines.beat(Beat { deadline: beat.deadline + more, ..beat });
    }

    fn tick(&mut self, now: u64) -> usize {
        self.deadlines.tick(now)
    }

    fn visits(&self) -> u64 {
        self.deadlines.visits()
    }
}

/// Counts how often a beat brings the deadline nearer.
struct Nearer {
    deadlines: Vec<u64>,
    nearer: u64,
    beats: u64,
}

impl Deadlines for Nearer {
    const NAME: &'static str = "deadlines brought nearer";

    fn new(clients: u32) -> Self {
        Self { deadlines: vec![0; clients as usize], nearer: 0, beats: 0 }
    }

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
        let before = std::mem::replace(&mut self.deadlines[client as usize], deadline);
        self.beats += u64::from(before != 0);
        self.nearer += u64::from(deadline < before);
    }

    fn tick(&mut self, _now: u64) -> usize {
        0
    }
}

fn mixed(scale: &Scale) {
    let mut day = Day::new(scale.clients, Pace::USUAL, Order::New);
    let mut store = Mixed::<BareStore>::new(scale.clients);
    let mut wheel = Mixed::<HeartWheel>::new(scale.clients);
    let mut nearer = Mixed::<Nearer>::new(scale.clients);
    day.live(&mut wheel);
    day.live(&mut nearer);
    let mut ratios = Vec::new();
    for _ in 0..scale.rounds {
        day.next_interval();
        day.live(&mut nearer);
        let store_nanos = day.measure(&mut store);
        ratios.push(day.measure(&mut wheel) / store_nanos);
    }
    let Nearer { nearer, beats, .. } = nearer.deadlines;
    let percent = nearer * 100 / beats;
    let what = format!("beat, {percent} % of them bring the deadline nearer");
    row(&what, 6.0, median(&ratios), "stores");
    let worst = worst_tick::<Mixed<HeartWheel>>(scale.clients, Pace::USUAL, scale.intervals);
    row("longest tick of that", 150.0, worst.nanos / 1e3, "us");
}

/// The longest tick, as long in each of the runs, and the blocks looked at in the busiest.
struct Worst {
    nanos: f64,
    visits: u64,
}

/// Everybody connects within a second; then so many intervals pass.
fn worst_tick<D: Deadlines>(clients: u32, pace: Pace, intervals: u64) -> Worst {
    let mut least: Vec<Duration> = Vec::new();
    let mut visits = 0;
    for _ in 0..RUNS {
        let (mut day, mut deadlines) = (Day::new(clients, pace, Order::New), D::new(clients));
        day.storm(&mut deadlines, 100);
        let mut took = Vec::new();
        for _ in 0..intervals {
            day.next_interval();
            let (ticks, busiest) = day.ticks(&mut deadlines);
            took.extend(ticks);
            visits = visits.max(busiest);
        }
        if least.is_empty() {
            least = took;
        } else {
            least.iter_mut().zip(took).for_each(|(least, took)| *least = took.min(*least));
        }
    }
    let worst = least.into_iter().max().expect("an interval has ticks");
    Worst { nanos: worst.as_secs_f64() * 1e9, visits }
}

/// All die in one tick: in one call, and in slices.
fn deaths(clients: u32) {
    let at_once = least(|| {
        let mut wheel = armed(clients, Pace::USUAL.timeout);
        let mut fired = Vec::with_capacity(clients as usize);
        own_time(|| while drain(&mut wheel, usize::MAX, &mut fired) == Progress::More {})
    });
    let mut longest_of_runs = Duration::MAX;
    let in_slices = least(|| {
        let mut wheel = armed(clients, Pace::USUAL.timeout);
        let mut fired = Vec::with_capacity(clients as usize);
        let (mut all, mut longest, mut progress) = (Duration::ZERO, Duration::ZERO, Progress::More);
        while progress == Progress::More {
            let took = own_time(|| progress = drain(&mut wheel, EXPIRE_BATCH_MAX, &mut fired));
            all += took;
            longest = longest.max(took);
        }
        assert_eq!(fired.len(), clients as usize, "each once");
        longest_of_runs = longest_of_runs.min(longest);
        all
    });
    let each = |all: Duration| all.as_secs_f64() * 1e9 / f64::from(clients);
    row("all expire in one tick", 3.0, each(at_once), "ns each");
    row("the same in slices of 1,024, reading the clock included", 5.0, each(in_slices), "ns each");
    row("longest of these slices", 100.0, longest_of_runs.as_secs_f64() * 1e6, "us");
}

fn drain(wheel: &mut Wheel, budget: usize, fired: &mut Vec<u32>) -> Progress {
    wheel.advance(Tick(Pace::USUAL.timeout), budget, fired)
}

fn coming_and_going(clients: u32) {
    let mut keys: Vec<u32> = (0..clients).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut keys);
    let deadline = Tick(Pace::USUAL.timeout);
    let (mut cancel, mut purge) = (Duration::MAX, Duration::MAX);
    let insert = least(|| {
        let mut wheel = armed(clients, Pace::USUAL.timeout);
        keys.iter().for_each(|key| wheel.disarm(*key));
        let took = own_time(|| keys.iter().for_each(|key| wheel.arm(*key, deadline)));
        cancel = cancel.min(own_time(|| keys.iter().for_each(|key| wheel.disarm(*key))));
        let mut fired = Vec::new();
        let drain_all = || while drain(&mut wheel, 1, &mut fired) == Progress::More {};
        purge = purge.min(own_time(drain_all));
        assert!(fired.is_empty(), "all were cancelled");
        took
    });
    let each = |all: Duration| all.as_secs_f64() * 1e9 / f64::from(clients);
    row("insert, in random order", 15.0, each(insert), "ns");
    row("cancel, in random order", 3.0, each(cancel), "ns");
    row("purge of what was cancelled", 1.0, each(purge), "ns each");
}

fn idle(clients: u32) {
    const TICKS: u64 = 100_000;
    let mut fired = Vec::new();
    let mut jump = Duration::MAX;
    let empty = least(|| {
        let mut wheel = armed(clients, TICKS * 2 + HOUR_TICKS * 2);
        // What is due on the way up is looked at first.
        let mut advance = |wheel: &mut Wheel, now| {
            while wheel.advance(Tick(now), usize::MAX, &mut fired) == Progress::More {}
        };
        advance(&mut wheel, 1);
        let took = own_time(|| (2..TICKS).for_each(|now| advance(&mut wheel, now)));
        let mut alone = Wheel::with_capacity(Tick(0), clients);
        alone.arm(7, Tick(HOUR_TICKS * 2));
        jump = jump.min(own_time(|| advance(&mut alone, HOUR_TICKS)));
        took
    });
    row("a tick in which nothing is due", 40.0, empty.as_nanos() as f64 / TICKS as f64, "ns");
    row("an hour that passes at once, the clock's cost in it", 5.0, jump.as_secs_f64() * 1e6, "us");
    assert!(fired.is_empty(), "nobody was due");
}

fn armed(clients: u32, deadline: u64) -> Wheel {
    let mut wheel = Wheel::with_capacity(Tick(0), clients);
    (0..clients).for_each(|key| wheel.arm(key, Tick(deadline)));
    wheel
}

fn least(mut run: impl FnMut() -> Duration) -> Duration {
    (0..RUNS).map(|_| run()).min().expect("some runs")
}

fn median(values: &[f64]) -> f64 {
    let [_, median, _] = spread_of(values);
    median
}
