//! What the libraries offer.

use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hierarchical_hash_wheel_timer::IdOnlyTimerEntry;
use hierarchical_hash_wheel_timer::wheels::cancellable::QuadWheelWithOverflow;
use tokio::runtime::Handle;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use super::Deadlines;
use super::workload::{Beat, TICK, TICK_NANOS};

/// The one of tokio-util, under tokio's paused clock, which moves at every tick.
///
/// A beat is `reset_at`. Not counted against it: reading the clock, which `reset` does at every
/// beat, and moving the paused one. Its key would stand in the connection's record, and is as near.
pub(crate) struct TokioDelayQueue {
    queue: DelayQueue<u32>,
    keys: Vec<Option<Key>>,
    runtime: tokio::runtime::Runtime,
    start: tokio::time::Instant,
    now: u64,
}

impl Deadlines for TokioDelayQueue {
    const NAME: &'static str = "delay_queue";
    const HAS_CLOCK: bool = true;

    fn new(clients: u32) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let start = runtime.block_on(async { tokio::time::Instant::now() });
        let queue = {
            let _inside = runtime.enter();
            DelayQueue::with_capacity(clients as usize)
        };
        Self { queue, keys: vec![None; clients as usize], runtime, start, now: 0 }
    }

    fn runtime(&self) -> Option<Handle> {
        Some(self.runtime.handle().clone())
    }

    fn recall(&self, client: u32) {
        black_box(self.keys[client as usize]);
    }

    fn beat(&mut self, beat: Beat) {
        let at = self.start + Duration::from_nanos(beat.deadline_nanos);
        match &self.keys[beat.client as usize] {
            Some(key) => self.queue.reset_at(key, at),
            None => {
                let key = self.queue.insert_at(beat.client, at);
                self.keys[beat.client as usize] = Some(key);
            }
        }
    }

    fn pass(&mut self, now: u64) {
        let ticks = u32::try_from(now - self.now).expect("a short run");
        self.runtime.block_on(tokio::time::advance(TICK * ticks));
        self.now = now;
    }

    fn tick(&mut self, _now: u64) -> usize {
        let mut expired = 0;
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(item)) = self.queue.poll_expired(&mut context) {
            self.keys[*item.get_ref() as usize] = None;
            expired += 1;
        }
        expired
    }
}

/// The crate `hierarchical_hash_wheel_timer`, its unit as it is meant: a millisecond.
pub(crate) struct HashWheel(QuadWheel<{ TICK.as_millis() as u64 }>);

/// The same, its unit taken for a tick of 10 ms: coarser, and a tenth of the steps.
pub(crate) struct CoarseHashWheel(QuadWheel<1>);

struct QuadWheel<const UNITS_A_TICK: u64> {
    wheel: QuadWheelWithOverflow<IdOnlyTimerEntry<u32>>,
    units: u64,
}

impl<const UNITS_A_TICK: u64> QuadWheel<UNITS_A_TICK> {
    const UNIT_NANOS: u64 = TICK_NANOS / UNITS_A_TICK;

    fn beat(&mut self, beat: Beat) {
        // An unknown client is not an error: it is a first beat.
        let _known = self.wheel.cancel(&beat.client);
        let deadline = beat.deadline_nanos.div_ceil(Self::UNIT_NANOS);
        let delay = Duration::from_millis(deadline - self.units);
        self.wheel.insert(IdOnlyTimerEntry::new(beat.client, delay)).expect("lies ahead");
    }

    fn tick(&mut self, now: u64) -> usize {
        let mut expired = 0;
        while self.units < now * UNITS_A_TICK {
            self.units += 1;
            expired += self.wheel.tick().len();
        }
        expired
    }
}

impl Deadlines for HashWheel {
    const NAME: &'static str = "hierarchical_hash_wheel_timer";

    fn new(_clients: u32) -> Self {
        Self(QuadWheel { wheel: QuadWheelWithOverflow::new(), units: 0 })
    }

    fn beat(&mut self, beat: Beat) {
        self.0.beat(beat);
    }

    fn tick(&mut self, now: u64) -> usize {
        self.0.tick(now)
    }
}

impl Deadlines for CoarseHashWheel {
    const NAME: &'static str = "hierarchical_hash_wheel_timer_10ms";

    fn new(_clients: u32) -> Self {
        Self(QuadWheel { wheel: QuadWheelWithOverflow::new(), units: 0 })
    }

    fn beat(&mut self, beat: Beat) {
        self.0.beat(beat);
    }

    fn tick(&mut self, now: u64) -> usize {
        self.0.tick(now)
    }
}
