//! The ways to keep a deadline for each client, and the work on which they are compared.
//!
//! What to beware of when such things are compared:
//! - In a server a beat touches the client's connection record, so between two beats the caches see
//!   other things. Here the records of 128 bytes are touched before each batch of some thousand
//!   beats, outside the measurement.
//! - Cascades come at boundaries. The longest tick is taken over 300 virtual seconds.
//! - tokio's `DelayQueue` hands out 128 items and then yields where it runs as a task; here it is
//!   polled outside of one, and drains. It is polled at each tick, its clock moved at each tick.
//! - Equal deadlines make a heap or a tree look better than it is. Here they differ.
//! - Clients that beat in one order for ever keep linked lists sorted the way they are walked. Here
//!   each interval has an order of its own; how much that matters is measured too.
//! - A pause of 4 ms is most often another program's time slice. Here the thread's own time counts.
#![allow(
    clippy::cast_possible_truncation,
    reason = "constants, places in a list, and counts that were counted in u32"
)]

mod intrusive;
mod libraries;
mod workload;

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;

use heartwheel::tracker::{Progress, Tick, Wheel};
use tokio::runtime::Handle;

pub(crate) use intrusive::{EagerList, LazyList};
pub(crate) use libraries::{CoarseHashWheel, HashWheel, TokioDelayQueue};
pub(crate) use workload::{Beat, Day, Order, Pace, mass_expiry_nanos, own_time, spread_of};

/// Something that keeps a deadline for each client. Clients are numbered, ticks start at 0.
pub(crate) trait Deadlines {
    /// Its name in the results.
    const NAME: &'static str;
    /// Whether it reads a clock of its own, which must be moved at each tick.
    const HAS_CLOCK: bool = false;

    fn new(clients: u32) -> Self;
    /// Where it must be to do its work.
    fn runtime(&self) -> Option<Handle> {
        None
    }
    /// Brings into the caches what would stand in the client's connection record; not measured.
    fn recall(&self, _client: u32) {}
    /// A client is heard. The first beat makes it known.
    fn beat(&mut self, beat: Beat);
    /// Moves the clock of whoever has one of its own; not measured.
    fn pass(&mut self, _now: u64) {}
    /// Ends whose deadline has come, and says how many.
    fn tick(&mut self, now: u64) -> usize;
    /// Blocks looked at so far, by whoever has blocks.
    fn visits(&self) -> u64 {
        0
    }
}

/// A random store into an array: what a beat cannot do without. Never expires anybody.
pub(crate) struct BareStore(Vec<u32>);

impl Deadlines for BareStore {
    const NAME: &'static str = "bare_store";

    fn new(clients: u32) -> Self {
        Self(vec![0; clients as usize])
    }

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
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

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
        self.wheel.arm(client, Tick(deadline));
    }

    fn tick(&mut self, now: u64) -> usize {
        self.fired.clear();
        while self.wheel.advance(Tick(now), usize::MAX, &mut self.fired) == Progress::More {}
        self.fired.len()
    }

    fn visits(&self) -> u64 {
        self.wheel.visits()
    }
}

/// The classic: a dictionary, and a scan of it once a second.
pub(crate) struct MapScan(HashMap<u32, u64>);

impl Deadlines for MapScan {
    const NAME: &'static str = "map_scan";

    fn new(clients: u32) -> Self {
        Self(HashMap::with_capacity(clients as usize))
    }

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
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

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
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
