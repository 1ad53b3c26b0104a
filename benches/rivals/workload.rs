//! The work on which the ways to keep deadlines are compared.
//!
//! Clients beat once in each interval, in random order, spread evenly over it; each beat has a
//! time of its own, to the nanosecond, and so has each deadline. A tick is 10 ms. Time is virtual.
//! Nobody dies: this is a working day. Whoever is compared lives the same day.

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;

use super::Deadlines;

pub(crate) const TICK: Duration = Duration::from_millis(10);
pub(crate) const TICK_NANOS: u64 = TICK.as_nanos() as u64;

/// Timed at once, at least: reading the clock costs as much as some hundred stores.
const BATCH_BEATS_MIN: u64 = 2_048;
/// Words of a connection record of 128 bytes.
const RECORD_WORDS: usize = 16;

/// One client is heard.
#[derive(Clone, Copy)]
pub(crate) struct Beat {
    pub(crate) client: u32,
    /// The first tick at or after its deadline.
    pub(crate) deadline: u64,
    /// Its deadline, exactly.
    pub(crate) deadline_nanos: u64,
}

impl Beat {
    /// One whose deadline falls on a tick.
    pub(crate) fn at_tick(client: u32, deadline: u64) -> Self {
        Self { client, deadline, deadline_nanos: deadline * TICK_NANOS }
    }
}

/// In which order the clients beat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// A new random order in each interval.
    New,
    /// Random at first; then each client comes a tenth of the interval too early or too late, at
    /// most.
    Drifting,
    /// One random order for ever, as of perfect clocks. Kind to linked lists: a client's
    /// neighbours in the list are those that have just been heard and those that will be next.
    Same,
}

/// How often clients beat, and after how much silence they are dead. In ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
}

impl Pace {
    /// 30 s and 90 s.
    pub(crate) const USUAL: Self = Self { interval: 3_000, timeout: 9_000 };
    /// 1 s and 3 s.
    pub(crate) const BRISK: Self = Self { interval: 100, timeout: 300 };
}

/// The beats of a working day, one interval after the other.
pub(crate) struct Day {
    pace: Pace,
    order: Order,
    random: fastrand::Rng,
    /// Who beats, in this interval.
    clients: Vec<u32>,
    records: Vec<[u64; RECORD_WORDS]>,
    /// Intervals that are over.
    intervals: u64,
    /// What it takes to look at the clock twice.
    clock_cost: Duration,
}

impl Day {
    pub(crate) fn new(clients: u32, pace: Pace, order: Order) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut clients: Vec<u32> = (0..clients).collect();
        random.shuffle(&mut clients);
        let records = vec![[0; RECORD_WORDS]; clients.len()];
        Self { pace, order, random, clients, records, intervals: 0, clock_cost: clock_cost() }
    }

    /// Everybody beats once, and the interval passes; nothing is measured.
    pub(crate) fn live<D: Deadlines>(&self, deadlines: &mut D) {
        let runtime = deadlines.runtime();
        let _inside = runtime.as_ref().map(Handle::enter);
        for tick in 1..=self.pace.interval {
            deadlines.pass(self.time(tick));
            self.beats_of(tick, deadlines);
            self.tick(tick, deadlines);
        }
    }

    /// The same, and what a beat cost, its share of ticks included. A part of the interval passes
    /// before measuring begins, so that the caches forget who was measured before.
    pub(crate) fn measure<D: Deadlines>(&mut self, deadlines: &mut D) -> f64 {
        let begin = self.pace.interval / 4;
        let at_once = BATCH_BEATS_MIN * self.pace.interval;
        let at_once = at_once.div_ceil(self.clients.len() as u64).min(begin);
        let (mut spent, mut beats) = (Duration::ZERO, 0);
        let mut tick = 1;
        while tick <= self.pace.interval {
            let last = (tick + at_once - 1).min(self.pace.interval);
            let took = self.measure_ticks(tick..=last, deadlines);
            if tick > begin {
                spent += took;
                beats += self.beats_until(last) - self.beats_until(tick - 1);
            }
            tick = last + 1;
        }
        spent.as_secs_f64() * 1e9 / beats as f64
    }

    /// So many beats, in whole intervals.
    pub(crate) fn measure_beats<D: Deadlines>(
        &mut self,
        deadlines: &mut D,
        beats: u64,
    ) -> Duration {
        let mut nanos = Vec::new();
        for _ in 0..beats.div_ceil(self.clients.len() as u64) {
            nanos.push(self.measure(deadlines));
            self.next_interval();
        }
        let mean = nanos.iter().sum::<f64>() / nanos.len() as f64;
        Duration::from_secs_f64(mean * beats as f64 * 1e-9)
    }

    /// Everybody beats once, and the interval passes: what each tick took, beats not included, and
    /// the most blocks that were looked at in one.
    pub(crate) fn ticks<D: Deadlines>(&mut self, deadlines: &mut D) -> (Vec<Duration>, u64) {
        let mut busiest = 0;
        let ticks = 1..=self.pace.interval;
        let took = ticks.map(|tick| {
            let visits_before = deadlines.visits();
            let took = self.measure_tick(tick, deadlines);
            busiest = busiest.max(deadlines.visits() - visits_before);
            took
        });
        (took.collect(), busiest)
    }

    /// Makes the next interval the current one.
    pub(crate) fn next_interval(&mut self) {
        self.intervals += 1;
        match self.order {
            Order::New => self.random.shuffle(&mut self.clients),
            Order::Drifting => {
                let drift = self.clients.len() as u64 / 5 + 1;
                let mut moved: Vec<(u64, u32)> = (0..)
                    .zip(&self.clients)
                    .map(|(at, client)| (at + self.random.u64(..drift), *client))
                    .collect();
                moved.sort_unstable();
                self.clients.clear();
                self.clients.extend(moved.into_iter().map(|(_, client)| client));
            }
            Order::Same => {}
        }
    }

    /// Everybody connects within so many ticks; then the rest of the interval passes.
    pub(crate) fn storm<D: Deadlines>(&self, deadlines: &mut D, ticks: u64) {
        let runtime = deadlines.runtime();
        let _inside = runtime.as_ref().map(Handle::enter);
        let until = |tick: u64| (tick.min(ticks) * self.clients.len() as u64 / ticks) as usize;
        for tick in 1..=self.pace.interval {
            deadlines.pass(self.time(tick));
            for &client in &self.clients[until(tick - 1)..until(tick)] {
                deadlines.beat(Beat::at_tick(client, self.time(tick) + self.pace.timeout));
            }
            self.tick(tick, deadlines);
        }
    }

    fn measure_ticks<D: Deadlines>(
        &mut self,
        mut ticks: RangeInclusive<u64>,
        deadlines: &mut D,
    ) -> Duration {
        self.touch_records(*ticks.start(), *ticks.end(), deadlines);
        let runtime = deadlines.runtime();
        let _inside = runtime.as_ref().map(Handle::enter);
        let mut spent = Duration::ZERO;
        while let Some(first) = ticks.next() {
            // Whoever has a clock is interrupted at each tick to have it moved.
            let last = if D::HAS_CLOCK { first } else { *ticks.end() };
            deadlines.pass(self.time(last));
            let took = own_time(|| {
                for tick in first..=last {
                    self.beats_of(tick, deadlines);
                    self.tick(tick, deadlines);
                }
            });
            spent += took.saturating_sub(self.clock_cost);
            ticks = last + 1..=*ticks.end();
        }
        spent
    }

    fn measure_tick<D: Deadlines>(&mut self, tick: u64, deadlines: &mut D) -> Duration {
        self.touch_records(tick, tick, deadlines);
        let runtime = deadlines.runtime();
        let _inside = runtime.as_ref().map(Handle::enter);
        self.beats_of(tick, deadlines);
        deadlines.pass(self.time(tick));
        own_time(|| self.tick(tick, deadlines)).saturating_sub(self.clock_cost)
    }

    #[inline]
    fn beats_of<D: Deadlines>(&self, tick: u64, deadlines: &mut D) {
        let (first, last) = (self.beats_until(tick - 1), self.beats_until(tick));
        let interval_nanos = self.pace.interval * TICK_NANOS;
        let nanos_apart = interval_nanos / self.clients.len() as u64;
        let deadline = self.time(tick) + self.pace.timeout;
        let mut deadline_nanos = (self.intervals * self.pace.interval + self.pace.timeout)
            * TICK_NANOS
            + (first as u64 * interval_nanos).div_ceil(self.clients.len() as u64);
        for &client in &self.clients[first..last] {
            deadlines.beat(Beat { client, deadline, deadline_nanos });
            deadline_nanos += nanos_apart;
        }
    }

    #[inline]
    fn tick<D: Deadlines>(&self, tick: u64, deadlines: &mut D) {
        assert_eq!(deadlines.tick(self.time(tick)), 0, "nobody dies on a working day");
    }

    /// A tick of this interval, counted from the beginning of the day.
    fn time(&self, tick: u64) -> u64 {
        self.intervals * self.pace.interval + tick
    }

    /// How many have beaten when a tick of this interval is over.
    fn beats_until(&self, tick: u64) -> usize {
        let beats = tick * self.clients.len() as u64 / self.pace.interval;
        usize::try_from(beats).expect("not more than there are clients")
    }

    /// What a server does with the bytes of a beat before it comes to deadlines.
    fn touch_records<D: Deadlines>(&mut self, first: u64, last: u64, deadlines: &D) {
        for &client in &self.clients[self.beats_until(first - 1)..self.beats_until(last)] {
            for word in self.records[client as usize].iter_mut().step_by(RECORD_WORDS / 2) {
                *word += 1;
            }
            deadlines.recall(client);
        }
        black_box(&self.records);
    }
}

/// All clients die within a second, and are handed out at its end: nanoseconds for each.
pub(crate) fn mass_expiry_nanos<D: Deadlines>(clients: u32) -> f64 {
    const SPREAD_TICKS: u64 = 100;
    let mut deadlines = D::new(clients);
    let mut order: Vec<u32> = (0..clients).collect();
    fastrand::Rng::with_seed(11).shuffle(&mut order);
    let (first, last) = (Pace::USUAL.timeout, Pace::USUAL.timeout + SPREAD_TICKS);
    let runtime = deadlines.runtime();
    let _inside = runtime.as_ref().map(Handle::enter);
    for (turn, client) in (0..).zip(order) {
        // In no order, as after beats that came in no order.
        let nanos = (first - 1) * TICK_NANOS + turn * 48_271 % (SPREAD_TICKS * TICK_NANOS) + 1;
        let deadline = nanos.div_ceil(TICK_NANOS);
        deadlines.beat(Beat { client, deadline, deadline_nanos: nanos });
    }
    deadlines.pass(first - 1);
    assert_eq!(deadlines.tick(first - 1), 0);
    deadlines.pass(last);
    let took = own_time(|| assert_eq!(deadlines.tick(last), clients as usize));
    took.as_secs_f64() * 1e9 / f64::from(clients)
}

/// A quarter of the values lies below, one half, and three quarters.
pub(crate) fn spread_of(values: &[f64]) -> [f64; 3] {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|part| {
        let at = (values.len() - 1) as f64 * part;
        let (below, above) = (values[at.floor() as usize], values[at.ceil() as usize]);
        below + (above - below) * at.fract()
    })
}

/// What this thread needed for it, whatever else the machine did meanwhile.
pub(crate) fn own_time(work: impl FnOnce()) -> Duration {
    let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("not negative");
    let start = clock();
    work();
    clock() - start
}

/// What [`own_time`] says of nothing at all.
fn clock_cost() -> Duration {
    let mut costs: Vec<Duration> = (0..1_001).map(|_| own_time(|| ())).collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}
