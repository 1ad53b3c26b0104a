//! What the wheel's work is, counted: in blocks looked at and in bytes, the same on every machine.

use crate::base::limits::EXPIRE_BATCH_MAX;
use crate::tracker::{Progress, Tick, Wheel};

const INTERVAL_TICKS: u64 = 3_000;
const TIMEOUT_TICKS: u64 = 9_000;

/// Blocks looked at.
#[derive(Debug, Default)]
struct Effort {
    in_all: u64,
    in_busiest_tick: u64,
    beats: u64,
}

/// Clients that beat every 30 s, in another random order each time, on ticks of 10 ms; the first
/// time all within `connect_ticks`.
struct Day {
    wheel: Wheel,
    clients: Vec<u32>,
    random: fastrand::Rng,
    now: u64,
    fired: Vec<u32>,
}

impl Day {
    fn new(clients: u32, connect_ticks: u64) -> Self {
        let mut day = Self {
            wheel: Wheel::with_capacity(Tick(0), clients),
            clients: (0..clients).collect(),
            random: fastrand::Rng::with_seed(7),
            now: 0,
            fired: Vec::new(),
        };
        day.interval(connect_ticks);
        day
    }

    /// Everybody beats within so many ticks; then the rest of the interval passes.
    fn interval(&mut self, beat_ticks: u64) -> Effort {
        self.random.shuffle(&mut self.clients);
        let mut effort = Effort { beats: self.clients.len() as u64, ..Effort::default() };
        let until = |tick: u64| {
            usize::try_from(tick.min(beat_ticks) * effort.beats / beat_ticks).expect("an index")
        };
        for tick in 1..=INTERVAL_TICKS {
            self.now += 1;
            for &client in &self.clients[until(tick - 1)..until(tick)] {
                self.wheel.arm(client, Tick(self.now + TIMEOUT_TICKS));
            }
            let before = self.wheel.visits();
            let progress = self.wheel.advance(Tick(self.now), EXPIRE_BATCH_MAX, &mut self.fired);
            assert_eq!(progress, Progress::Done, "a tick of a working day fits into one call");
            let visits = self.wheel.visits() - before;
            effort.in_all += visits;
            effort.in_busiest_tick = effort.in_busiest_tick.max(visits);
        }
        assert!(self.fired.is_empty(), "everybody beats in time");
        effort
    }

    fn intervals(&mut self, intervals: u64) -> Effort {
        let mut sum = Effort::default();
        for _ in 0..intervals {
            let Effort { in_all, in_busiest_tick, beats } = self.interval(INTERVAL_TICKS);
            sum.in_all += in_all;
            sum.in_busiest_tick = sum.in_busiest_tick.max(in_busiest_tick);
            sum.beats += beats;
        }
        sum
    }
}

#[test]
fn a_beat_costs_a_hundredth_of_a_look_however_many_there_are() {
    for clients in [10_000, 50_000, 200_000] {
        let mut day = Day::new(clients, INTERVAL_TICKS);
        day.intervals(3); // the first looks come after two of them
        let effort = day.intervals(4);
        let looks = effort.in_all as f64 / effort.beats as f64;
        assert!(looks <= 0.012, "{clients} clients: {looks:.4} blocks looked at for each beat");
        let blocks = u64::from(clients).div_ceil(64);
        let busiest = effort.in_busiest_tick;
        assert!(busiest <= 12 + blocks / 300, "{clients} clients: {busiest} blocks in one tick");
    }
}

#[test]
fn all_may_connect_within_a_second_in_any_order() {
    let mut day = Day::new(128_000, 100);
    let effort = day.intervals(6);
    // 2,000 blocks. Filed at their earliest deadline, nearly half would come due in one tick.
    assert!(effort.in_busiest_tick <= 24, "{effort:?}");
}

#[test]
fn a_beat_in_a_block_that_is_known_moves_nothing() {
    let mut wheel = Wheel::with_capacity(Tick(0), 640);
    (0..640).for_each(|key| wheel.arm(key, Tick(TIMEOUT_TICKS)));
    let (bytes, wake) = (wheel.memory_bytes(), wheel.next_wake());
    for beat in 0..100_000_u32 {
        wheel.arm(beat * 7_919 % 640, Tick(TIMEOUT_TICKS + u64::from(beat)));
        assert_eq!(wheel.next_wake(), wake, "queued anew for a deadline that was put off");
    }
    assert_eq!((wheel.memory_bytes(), wheel.visits(), wheel.len()), (bytes, 0, 640));
}
