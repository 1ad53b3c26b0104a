//! The wheel against its naive twin: a map of deadlines, scanned whole.

use std::collections::BTreeMap;

use heartwheel::tracker::{Progress, REACH_TICKS, Tick, Wheel};

/// Where a wheel's levels, its counting and the tick's width have their edges.
const DISTANCES: [u64; 24] = [
    0,
    1,
    2,
    15,
    16,
    63,
    64,
    255,
    256,
    4_500,
    (1 << 14) - 1,
    1 << 14,
    (1 << 14) + 1,
    360_000,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + (1 << 14),
    8_640_000,
    (1 << 26) - 1,
    1 << 26,
    (1 << 26) + (1 << 20),
    1 << 30,
    REACH_TICKS - 300,
    REACH_TICKS,
];

const STARTS: [u64; 6] = [0, 1, (1 << 31) - 40, (1 << 32) - 40, (1 << 32) + 7, 1 << 45];

/// Reads `bytes` as steps, does them to a wheel and to its twin, and panics where they differ.
pub(crate) fn agrees_with_naive_bytes(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let Some(start) = bytes.next() else { return };
    let mut pair = Pair::new(STARTS[usize::from(start) % STARTS.len()]);
    let mut steps = 0_u32;
    while let Some(step) = bytes.next() {
        let mut next = || bytes.next().unwrap_or(0);
        match step % 8 {
            0 | 1 => pair.arm(key(next()), pair.now + distance(next(), next())),
            2 => pair.arm(key(next()), pair.now.saturating_sub(distance(next(), next()))),
            3 => pair.move_deadline(key(next()), distance(next(), next()), next()),
            4 => pair.disarm(key(next())),
            5 => pair.advance_to_wake(budget(next())),
            6 => pair.advance(pair.now + distance(next(), next()), budget(next())),
            _ => pair.advance(pair.now.saturating_sub(u64::from(next() % 3)), budget(next())),
        }
        pair.compare();
        steps += 1;
        if steps.is_multiple_of(32) {
            pair.wheel.check();
        }
    }
    pair.run_dry();
    pair.wheel.check();
}

/// The same few keys again and again, in blocks that make the wheel grow in between.
fn key(byte: u8) -> u32 {
    let block = [0, 1, 2, 15, 16, 17, 200, 2_000][usize::from(byte >> 5)];
    let lane = [0, 1, 2, 3, 31, 32, 62, 63][usize::from(byte & 7)];
    block * 64 + lane
}

fn distance(which: u8, more: u8) -> u64 {
    let distance = DISTANCES[usize::from(which) % DISTANCES.len()];
    (distance + u64::from(more)).min(REACH_TICKS)
}

fn budget(byte: u8) -> usize {
    match byte % 8 {
        few @ 0..=5 => usize::from(few),
        _ => usize::MAX,
    }
}

struct Pair {
    wheel: Wheel,
    twin: BTreeMap<u32, u64>,
    now: u64,
}

impl Pair {
    fn new(start: u64) -> Self {
        Self { wheel: Wheel::new(Tick(start)), twin: BTreeMap::new(), now: start }
    }

    fn arm(&mut self, key: u32, deadline: u64) {
        self.wheel.arm(key, Tick(deadline));
        self.twin.insert(key, deadline);
    }

    /// Puts a deadline off, or brings it nearer, from where it is.
    fn move_deadline(&mut self, key: u32, by: u64, direction: u8) {
        let Some(&deadline) = self.twin.get(&key) else { return };
        let moved = if direction & 1 == 0 { deadline + by } else { deadline.saturating_sub(by) };
        self.arm(key, moved.min(self.now + REACH_TICKS));
    }

    fn disarm(&mut self, key: u32) {
        self.wheel.disarm(key);
        self.twin.remove(&key);
    }

    fn advance(&mut self, now: u64, budget: usize) {
        self.now = self.now.max(now);
        let mut fired = Vec::new();
        let progress = self.wheel.advance(Tick(now), budget, &mut fired);
        assert!(fired.len() <= budget, "{} fired, budget {budget}", fired.len());
        for key in &fired {
            let deadline = self.twin.remove(key).expect("fired once, and only what is armed");
            assert!(deadline <= self.now, "key {key} fired {} early", deadline - self.now);
        }
        let left_over = self.twin.values().filter(|deadline| **deadline <= self.now).count();
        match progress {
            Progress::Done => assert_eq!(left_over, 0, "due, and not handed out"),
            Progress::More => {
                assert_eq!(fired.len(), budget, "stopped before the budget was used up");
                assert!(left_over > 0, "stopped although nothing was left");
            }
        }
    }

    /// Time moved to the wake must make the next wake later, or a caller would spin.
    fn advance_to_wake(&mut self, budget: usize) {
        let Some(wake) = self.wheel.next_wake() else { return };
        self.advance(wake.0, budget);
        if budget == usize::MAX
            && let Some(next) = self.wheel.next_wake()
        {
            assert!(next > wake, "the wake {wake:?} did not move");
        }
    }

    fn compare(&self) {
        assert_eq!(self.wheel.len(), self.twin.len());
        for (key, deadline) in &self.twin {
            let told = self.wheel.deadline(*key).expect("armed").0;
            if *deadline > self.now {
                assert_eq!(told, *deadline, "key {key}");
            } else {
                assert!(told <= self.now, "key {key} is overdue");
            }
        }
        let earliest = self.twin.values().min();
        match (self.wheel.next_wake(), earliest) {
            (Some(Tick(wake)), Some(earliest)) => {
                assert!(wake <= (*earliest).max(self.now), "sleeps past a deadline");
            }
            (None, None) => {}
            (wake, earliest) => panic!("wake {wake:?}, earliest deadline {earliest:?}"),
        }
    }

    /// Sleeping from wake to wake brings out everything, each at its tick, in few steps.
    fn run_dry(&mut self) {
        let mut wakes_left = 256 * (self.twin.len() + 1);
        while let Some(Tick(wake)) = self.wheel.next_wake() {
            assert!(wakes_left > 0, "too many wakes for nothing");
            wakes_left -= 1;
            let due: Vec<_> = self.twin.iter().filter(|(_, at)| **at < wake).collect();
            assert!(due.iter().all(|(_, at)| **at <= self.now), "{due:?} slept through");
            self.advance(wake, usize::MAX);
        }
        assert!(self.twin.is_empty(), "never fired: {:?}", self.twin);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::agrees_with_naive_bytes;

    #[test]
    fn the_wheel_agrees_on_every_seed() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/wheel");
        let mut read = 0;
        for seed in std::fs::read_dir(seeds).expect("the seeds are in the repository") {
            let path = seed.expect("a directory entry").path();
            agrees_with_naive_bytes(&std::fs::read(path).expect("a readable seed"));
            read += 1;
        }
        assert!(read > 0, "no seeds in {seeds}");
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_scan_of_all_deadlines(
            bytes in proptest::collection::vec(any::<u8>(), 0..1_500),
        ) {
            agrees_with_naive_bytes(&bytes);
        }
    }
}
