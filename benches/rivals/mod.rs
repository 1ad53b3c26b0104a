//! The ways to keep a deadline for each client, and the work on which they are compared.
//!
//! The work: clients beat every 30 s in random order, and are dead after 90 s of silence; a tick is
//! 10 ms. Time is virtual. Nobody dies while beats are measured: this is a working day.
//!
//! What to beware of when such things are compared:
//! - In a server a beat touches the client's connection record, so between two beats the caches see
//!   other things. Here every batch touches its clients' records first, outside the measurement.
//! - Cascades come at boundaries. The longest tick is taken over 300 virtual seconds.
//! - tokio's `DelayQueue` hands out 128 items and then yields where it runs as a task; here it is
//!   polled outside of one, and drains. Its clock moves once a batch, which flatters it.
//! - Equal deadlines make a heap or a tree look better than it is. Here they differ.
//! - A pause of 4 ms is most often another program's time slice. Here the thread's own time counts.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use heartwheel::tracker::{Progress, Tick, Wheel};
use hierarchical_hash_wheel_timer::IdOnlyTimerEntry;
use hierarchical_hash_wheel_timer::wheels::cancellable::QuadWheelWithOverflow;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

pub(crate) const TICK: Duration = Duration::from_millis(10);
pub(crate) const INTERVAL_TICKS: u64 = 3_000;
pub(crate) const TIMEOUT_TICKS: u64 = 9_000;

/// Timed at once, at least: reading the clock must not count.
const BATCH_BEATS_MIN: u64 = 2_048;
/// Words of a connection record of 128 bytes.
const RECORD_WORDS: usize = 16;

/// Something that keeps a deadline for each client. Clients are numbered, ticks start at 0.
pub(crate) trait Deadlines {
    /// Its name in the results.
    const NAME: &'static str;

    fn new(clients: u32) -> Self;
    /// A client is heard: this is its deadline now. The first beat makes it known.
    fn beat(&mut self, client: u32, deadline: u64);
    /// Lets time pass for whoever has a clock of its own; not measured.
    fn pass(&mut self, _now: u64) {}
    /// Ends whose deadline has come, and says how many.
    fn tick(&mut self, now: u64) -> usize;
}

/// The beats of a working day, in batches.
pub(crate) struct Workload {
    order: Vec<u32>,
    position: usize,
    records: Vec<[u64; RECORD_WORDS]>,
    now: u64,
    /// Beats since the beginning, with their fraction: 3,000 of these are one.
    beats_due: u64,
    beats_done: u64,
}

impl Workload {
    pub(crate) fn new(clients: u32) -> Self {
        let mut order: Vec<u32> = (0..clients).collect();
        fastrand::Rng::with_seed(7).shuffle(&mut order);
        let records = vec![[0; RECORD_WORDS]; order.len()];
        Self { order, position: 0, records, now: 0, beats_due: 0, beats_done: 0 }
    }

    /// Every client is heard once, within the first interval.
    pub(crate) fn connect<D: Deadlines>(&mut self, deadlines: &mut D) {
        for _ in 0..INTERVAL_TICKS {
            self.run_tick(deadlines);
        }
    }

    /// Time for so many beats with their share of ticks.
    pub(crate) fn measure<D: Deadlines>(&mut self, deadlines: &mut D, beats: u64) -> Duration {
        let beats_before = self.beats_done;
        let mut elapsed = Duration::ZERO;
        while self.beats_done - beats_before < beats {
            elapsed += self.run_batch(deadlines);
        }
        elapsed.mul_f64(beats as f64 / (self.beats_done - beats_before) as f64)
    }

    /// What each of so many ticks took, beats not included, the longest last.
    pub(crate) fn ticks<D: Deadlines>(&mut self, deadlines: &mut D, ticks: u64) -> Vec<Duration> {
        let mut took: Vec<_> = (0..ticks).map(|_| self.run_tick(deadlines)).collect();
        took.sort_unstable();
        took
    }

    fn run_batch<D: Deadlines>(&mut self, deadlines: &mut D) -> Duration {
        let per_tick = (self.order.len() as u64).div_ceil(INTERVAL_TICKS);
        let ticks = BATCH_BEATS_MIN.div_ceil(per_tick);
        let beats = ticks * self.order.len() as u64 / INTERVAL_TICKS + 1;
        self.touch_records(usize::try_from(beats).expect("a batch is small"));
        deadlines.pass(self.now + ticks);
        own_time(|| {
            for _ in 0..ticks {
                self.beats_of_tick(deadlines);
                let expired = deadlines.tick(self.now);
                assert_eq!(expired, 0, "nobody dies on a working day");
            }
        })
    }

    fn run_tick<D: Deadlines>(&mut self, deadlines: &mut D) -> Duration {
        self.beats_of_tick(deadlines);
        deadlines.pass(self.now);
        own_time(|| assert_eq!(deadlines.tick(self.now), 0, "nobody dies on a working day"))
    }

    fn beats_of_tick<D: Deadlines>(&mut self, deadlines: &mut D) {
        self.now += 1;
        self.beats_due += self.order.len() as u64;
        while (self.beats_done + 1) * INTERVAL_TICKS <= self.beats_due {
            deadlines.beat(self.order[self.position], self.now + TIMEOUT_TICKS);
            self.position += 1;
            if self.position == self.order.len() {
                self.position = 0; // a division would cost as much as a beat
            }
            self.beats_done += 1;
        }
    }

    fn touch_records(&mut self, beats: usize) {
        for beat in 0..beats {
            let client = self.order[(self.position + beat) % self.order.len()];
            for word in self.records[client as usize].iter_mut().step_by(RECORD_WORDS / 2) {
                *word += 1;
            }
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
    for (turn, client) in (0..).zip(order) {
        deadlines.beat(client, TIMEOUT_TICKS + turn % SPREAD_TICKS);
    }
    assert_eq!(deadlines.tick(0), 0);
    deadlines.pass(TIMEOUT_TICKS + SPREAD_TICKS);
    let now = TIMEOUT_TICKS + SPREAD_TICKS;
    let took = own_time(|| assert_eq!(deadlines.tick(now), clients as usize));
    took.as_secs_f64() * 1e9 / f64::from(clients)
}

/// What this thread needed for it, whatever else the machine did meanwhile.
pub(crate) fn own_time(work: impl FnOnce()) -> Duration {
    let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("not negative");
    let start = clock();
    work();
    clock() - start
}

/// A random store into an array: what a beat cannot do without. Never expires anybody.
pub(crate) struct BareStore(Vec<u32>);

impl Deadlines for BareStore {
    const NAME: &'static str = "bare_store";

    fn new(clients: u32) -> Self {
        Self(vec![0; clients as usize])
    }

    fn beat(&mut self, client: u32, deadline: u64) {
        self.0[client as usize] = u32::try_from(deadline).expect("a short run");
    }

    fn tick(&mut self, _now: u64) -> usize {
        black_box(&self.0);
        0
    }
}

/// Ours.
pub(crate) struct HeartWheel {
    wheel: Wheel,
    fired: Vec<u32>,
}

impl Deadlines for HeartWheel {
    const NAME: &'static str = "heartwheel";

    fn new(clients: u32) -> Self {
        Self { wheel: Wheel::with_capacity(Tick(0), clients), fired: Vec::new() }
    }

    fn beat(&mut self, client: u32, deadline: u64) {
        self.wheel.arm(client, Tick(deadline));
    }

    fn tick(&mut self, now: u64) -> usize {
        self.fired.clear();
        while self.wheel.advance(Tick(now), usize::MAX, &mut self.fired) == Progress::More {}
        self.fired.len()
    }
}

/// The classic: a dictionary, and a scan of it once a second.
pub(crate) struct MapScan(HashMap<u32, u64>);

impl Deadlines for MapScan {
    const NAME: &'static str = "map_scan";

    fn new(clients: u32) -> Self {
        Self(HashMap::with_capacity(clients as usize))
    }

    fn beat(&mut self, client: u32, deadline: u64) {
        self.0.insert(client, deadline);
    }

    fn tick(&mut self, now: u64) -> usize {
        if !now.is_multiple_of(100) {
            return 0;
        }
        let before = self.0.len();
        self.0.retain(|_, deadline| *deadline > now);
        before - self.0.len()
    }
}

/// Deadlines in order.
pub(crate) struct Tree {
    by_deadline: BTreeSet<(u64, u32)>,
    by_client: Vec<u64>,
}

impl Deadlines for Tree {
    const NAME: &'static str = "btree_set";

    fn new(clients: u32) -> Self {
        Self { by_deadline: BTreeSet::new(), by_client: vec![0; clients as usize] }
    }

    fn beat(&mut self, client: u32, deadline: u64) {
        let before = std::mem::replace(&mut self.by_client[client as usize], deadline);
        self.by_deadline.remove(&(before, client));
        self.by_deadline.insert((deadline, client));
    }

    fn tick(&mut self, now: u64) -> usize {
        let mut expired = 0;
        while self.by_deadline.first().is_some_and(|(deadline, _)| *deadline <= now) {
            black_box(self.by_deadline.pop_first());
            expired += 1;
        }
        expired
    }
}

/// The one of tokio-util, under tokio's paused clock.
pub(crate) struct TokioDelayQueue {
    queue: DelayQueue<u32>,
    keys: Vec<Option<Key>>,
    runtime: tokio::runtime::Runtime,
    start: tokio::time::Instant,
    now: u64,
}

impl Deadlines for TokioDelayQueue {
    const NAME: &'static str = "delay_queue";

    fn new(clients: u32) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let start = runtime.block_on(async { tokio::time::Instant::now() });
        let queue = DelayQueue::with_capacity(clients as usize);
        Self { queue, keys: vec![None; clients as usize], runtime, start, now: 0 }
    }

    fn beat(&mut self, client: u32, deadline: u64) {
        let _inside = self.runtime.enter();
        let at = self.start + TICK * u32::try_from(deadline).expect("a short run");
        match &self.keys[client as usize] {
            Some(key) => self.queue.reset_at(key, at),
            None => self.keys[client as usize] = Some(self.queue.insert_at(client, at)),
        }
    }

    fn pass(&mut self, now: u64) {
        let ticks = u32::try_from(now - self.now).expect("a short run");
        self.runtime.block_on(tokio::time::advance(TICK * ticks));
        self.now = now;
    }

    fn tick(&mut self, _now: u64) -> usize {
        let _inside = self.runtime.enter();
        let mut expired = 0;
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(item)) = self.queue.poll_expired(&mut context) {
            self.keys[*item.get_ref() as usize] = None;
            expired += 1;
        }
        expired
    }
}

/// The crate `hierarchical_hash_wheel_timer`, its millisecond taken as our tick.
pub(crate) struct HashWheel {
    wheel: QuadWheelWithOverflow<IdOnlyTimerEntry<u32>>,
    now: u64,
}

impl Deadlines for HashWheel {
    const NAME: &'static str = "hierarchical_hash_wheel_timer";

    fn new(_clients: u32) -> Self {
        Self { wheel: QuadWheelWithOverflow::new(), now: 0 }
    }

    fn beat(&mut self, client: u32, deadline: u64) {
        // An unknown client is not an error: it is a first beat.
        let _known = self.wheel.cancel(&client);
        let delay = Duration::from_millis(deadline - self.now);
        self.wheel.insert(IdOnlyTimerEntry::new(client, delay)).expect("lies ahead");
    }

    fn tick(&mut self, now: u64) -> usize {
        let mut expired = 0;
        while self.now < now {
            self.now += 1;
            expired += self.wheel.tick().len();
        }
        expired
    }
}
