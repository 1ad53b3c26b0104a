//! A hierarchical timing wheel for deadlines that nearly always move away before they come.
//!
//! Deadlines stand in a dense array of `u32` ticks, 4 bytes for each key. What is queued on the
//! wheel are *blocks* of 64 neighbouring keys, each at a lower bound of its deadlines. Putting a
//! deadline off is therefore one store: the block is looked at too early, finds that nothing is
//! due, and is queued again at its new minimum. Only a deadline that comes *nearer* than its
//! block's bound moves the block at once. Nothing is queued for a single timer, so nothing can be
//! left behind when it is disarmed.

use std::fmt;

use crate::base::limits::WHEEL_VISITS_MAX;
use crate::tracker::calendar::{Calendar, NEAR_SLOTS, NEVER, earlier_by};

/// A point in time, counted in ticks from an origin of the caller's choice.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tick(pub u64);

/// Whether a call did everything there was to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Progress {
    /// Nothing is left that is due.
    Done,
    /// The budget is used up. Call again with the same time or a later one: it goes on where it
    /// stopped.
    More,
}

/// How far ahead of the last [`Wheel::advance`] a deadline may lie, in ticks: 24 days of 1 ms.
/// What lies beyond is kept as lying there.
pub const REACH_TICKS: u64 = (LAST - RECOUNT_AFTER) as u64;

const BLOCK_KEYS: usize = 64;
/// The last tick that can be told from [`NEVER`].
const LAST: u32 = NEVER - 1;
/// Counting begins anew when time is this many ticks past where it began.
const RECOUNT_AFTER: u32 = 1 << 31;
/// Blocks are added this many at a time: few for a small wheel, and for a large one no more than
/// are filled in some microseconds.
const GROW_BLOCKS_MIN: usize = 16;
const GROW_BLOCKS_MAX: usize = 1_024;
/// Blocks due sooner than this (87 minutes of 10 ms) are kept off the calendar's upper levels,
/// where all that is due in a span of minutes comes down in one tick.
const SPREAD_TICKS: u32 = 32 * NEAR_SLOTS;

/// Deadlines of 64 neighbouring keys, in ticks since `Wheel::base`: four cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Block([u32; BLOCK_KEYS]);

/// Deadlines by key. Keys are small numbers, such as slots of a slab.
///
/// | operation | cost |
/// |---|---|
/// | [`arm`](Self::arm), put off | one store, and two loads of 12 bytes for 64 keys |
/// | `arm` for the first time or nearer, [`disarm`](Self::disarm) | O(1) |
/// | [`advance`](Self::advance) | blocks due, 64 keys each; empty time costs nothing |
/// | [`next_wake`](Self::next_wake) | O(1) |
/// | memory | 4.3 bytes for each key, and 66 KiB |
///
/// ```
/// use heartwheel::tracker::{Progress, Tick, Wheel};
///
/// let mut wheel = Wheel::new(Tick(1_000));
/// wheel.arm(7, Tick(1_500));
/// wheel.arm(7, Tick(1_900)); // put off
/// let mut fired = Vec::new();
/// assert_eq!(wheel.advance(Tick(1_899), 64, &mut fired), Progress::Done);
/// assert!(fired.is_empty());
/// assert_eq!(wheel.advance(Tick(1_900), 64, &mut fired), Progress::Done);
/// assert_eq!(fired, [7]);
/// ```
pub struct Wheel {
    blocks: Vec<Block>,
    /// Which keys of each block are armed, a bit for each.
    armed_in: Vec<u64>,
    /// Invariant: a block with an armed key is filed at or before its earliest deadline, or under
    /// the tick that is open when that deadline has passed already.
    calendar: Calendar,
    /// The tick that is 0 inside.
    base: u64,
    /// The latest time heard of, since `base`. At most [`RECOUNT_AFTER`].
    now: u32,
    armed: usize,
    visits: u64,
}

impl Wheel {
    /// An empty wheel at a time.
    pub fn new(now: Tick) -> Self {
        Self::with_capacity(now, 0)
    }

    /// An empty wheel with room set aside for the keys below `keys`: no later growth copies.
    pub fn with_capacity(now: Tick, keys: u32) -> Self {
        let blocks = (keys as usize).div_ceil(BLOCK_KEYS);
        let mut calendar = Calendar::new();
        calendar.reserve(blocks);
        Self {
            blocks: Vec::with_capacity(blocks),
            armed_in: Vec::with_capacity(blocks),
            calendar,
            base: now.0,
            now: 0,
            armed: 0,
            visits: 0,
        }
    }

    /// Sets a key's deadline, whatever it was: nearer, farther or none.
    ///
    /// A deadline in the past fires at the next [`advance`](Self::advance). A key seen for the
    /// first time makes the wheel grow up to it.
    #[inline]
    pub fn arm(&mut self, key: u32, deadline: Tick) {
        let at = self.since_base(deadline);
        let Some(lane) = lane_mut(&mut self.blocks, key) else {
            return self.arm_new(key, at);
        };
        // What stood there is not read. The two that are read are small enough for the nearest
        // caches; the deadline itself, far away, is a store that nothing waits for.
        *lane = at;
        if !self.is_armed(key) || at < self.calendar.filed_at(block_of(key)) {
            self.bring_forward(key, at);
        }
    }

    /// Takes a key's deadline away, if it has one. It does not fire any more.
    #[inline]
    pub fn disarm(&mut self, key: u32) {
        if let Some(lane) = lane_mut(&mut self.blocks, key)
            && *lane != NEVER
        {
            *lane = NEVER;
            self.armed_in[block_of(key) as usize] &= !bit_of(key);
            self.armed -= 1;
        }
    }

    /// The deadline of a key, if it has one. One that was missed may be told as less long ago.
    pub fn deadline(&self, key: u32) -> Option<Tick> {
        let at = self.blocks.get(block_of(key) as usize)?.0[lane_of(key)];
        (at != NEVER).then(|| self.tick(at))
    }

    /// Moves time to `now` and appends the keys whose deadline has come, no more than `budget`.
    /// They are disarmed.
    ///
    /// After [`Progress::Done`] no armed deadline is at or before `now`. Never fires early. Time
    /// that goes back is ignored. Work is bounded by `budget` and
    /// [`WHEEL_VISITS_MAX`] blocks, however many ticks have passed; only when counting begins anew,
    /// every 2^31 ticks, is every deadline touched once.
    pub fn advance(&mut self, now: Tick, budget: usize, out: &mut Vec<u32>) -> Progress {
        let now = self.turn_to(now);
        if self.calendar.is_quiet_at(now) {
            self.calendar.open(now);
            return Progress::Done;
        }
        self.advance_to(now, budget, out)
    }

    /// Looks at every block that is due at `now` or before, as far as the budget goes.
    fn advance_to(&mut self, now: u32, budget: usize, out: &mut Vec<u32>) -> Progress {
        let mut visits_left = WHEEL_VISITS_MAX;
        let mut room = budget;
        let mut earliest = self.calendar.earliest();
        while let Some(due) = earliest
            && due.tick <= now
        {
            self.calendar.open(due.tick);
            while let Some(block) = self.calendar.first_in(due) {
                if visits_left == 0 {
                    return Progress::More;
                }
                visits_left -= 1;
                self.visits += 1;
                match self.visit(block, now, &mut room, out) {
                    Progress::Done => {}
                    Progress::More => return Progress::More,
                }
            }
            earliest = self.calendar.earliest();
        }
        self.calendar.rest(earliest);
        self.calendar.open(now);
        Progress::Done
    }

    /// When [`advance`](Self::advance) is worth calling: at or before the earliest deadline, and
    /// `None` when nothing is armed. Once time has been moved to it, the next one is later; while
    /// something is left over from a call that said [`Progress::More`], it is now.
    pub fn next_wake(&self) -> Option<Tick> {
        if self.armed == 0 {
            return None;
        }
        self.calendar.earliest().map(|due| self.tick(due.tick.max(self.now)))
    }

    /// Number of armed keys.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no key is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Blocks looked at since the wheel was made: the unit of its work.
    pub fn visits(&self) -> u64 {
        self.visits
    }

    /// Heap bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
            + self.armed_in.capacity() * size_of::<u64>()
            + self.calendar.memory_bytes()
    }

    /// Panics when the structure is wrong. Walks everything: for tests.
    pub fn check(&self) {
        self.calendar.check();
        let mut armed = 0;
        for (block, Block(lanes)) in (0_u32..).zip(&self.blocks) {
            let earliest = lanes.iter().copied().min().expect("a block has 64 lanes");
            let filed_at = self.calendar.filed_at(block);
            if earliest != NEVER {
                let bound = earliest.max(self.calendar.opened());
                assert!(filed_at <= bound, "block {block}: looked at too late");
            }
            let armed_here =
                (0..).zip(lanes).fold(0, |mask, (lane, &at)| mask | u64::from(at != NEVER) << lane);
            assert_eq!(self.armed_in[block as usize], armed_here, "block {block}: armed keys");
            armed += armed_here.count_ones() as usize;
        }
        assert_eq!(armed, self.armed, "armed keys");
        assert!(self.now <= RECOUNT_AFTER, "time within its count");
    }

    #[inline]
    fn since_base(&self, tick: Tick) -> u32 {
        u32::try_from(tick.0.saturating_sub(self.base)).map_or(LAST, |at| at.min(LAST))
    }

    fn tick(&self, at: u32) -> Tick {
        Tick(self.base + u64::from(at))
    }

    #[cold]
    fn arm_new(&mut self, key: u32, at: u32) {
        let step = (self.blocks.len() / 8).max(GROW_BLOCKS_MIN);
        let wanted = block_of(key) as usize + 1;
        if wanted > self.blocks.capacity() {
            let more = wanted.max(self.blocks.len() + step) - self.blocks.len();
            self.blocks.reserve_exact(more);
            self.armed_in.reserve_exact(self.blocks.capacity() - self.armed_in.len());
            self.calendar.reserve(self.blocks.capacity());
        }
        let blocks = wanted.max(self.blocks.len() + step.min(GROW_BLOCKS_MAX));
        let blocks = blocks.min(self.blocks.capacity());
        self.blocks.resize(blocks, Block([NEVER; BLOCK_KEYS]));
        self.armed_in.resize(blocks, 0);
        self.calendar.grow(blocks);
        self.blocks[block_of(key) as usize].0[lane_of(key)] = at;
        self.bring_forward(key, at);
    }

    /// Counts a key as armed that was not, and moves its block where it is queued too late.
    #[cold]
    fn bring_forward(&mut self, key: u32, at: u32) {
        let block = block_of(key);
        if !self.is_armed(key) {
            self.armed_in[block as usize] |= bit_of(key);
            self.armed += 1;
        }
        if at < self.calendar.filed_at(block) {
            self.calendar.file(block, spread(block, self.now, at));
        }
    }

    #[inline]
    fn is_armed(&self, key: u32) -> bool {
        self.armed_in[block_of(key) as usize] & bit_of(key) != 0
    }

    /// The time to work with: not before what was heard of already, and counted anew when the count
    /// grows long.
    fn turn_to(&mut self, now: Tick) -> u32 {
        let passed = now.0.saturating_sub(self.base).max(u64::from(self.now));
        match u32::try_from(passed) {
            Ok(passed) if passed <= RECOUNT_AFTER => self.now = passed,
            Ok(_) | Err(_) => {
                for lane in self.blocks.iter_mut().flat_map(|block| &mut block.0) {
                    if *lane != NEVER {
                        *lane = earlier_by(*lane, passed);
                    }
                }
                self.calendar.recount(passed);
                self.base += passed;
                self.now = 0;
            }
        }
        self.now
    }

    /// Looks at a block of the open slot: hands out what is due and files the block by the rest.
    fn visit(&mut self, block: u32, now: u32, room: &mut usize, out: &mut Vec<u32>) -> Progress {
        let lanes = &mut self.blocks[block as usize].0;
        let mut earliest = lanes.iter().fold(NEVER, |earliest, &at| earliest.min(at));
        if earliest <= now {
            let mut due = due_mask(lanes, now);
            let fires = (due.count_ones() as usize).min(*room);
            let first = block * 64;
            if fires == BLOCK_KEYS {
                // A mass death hands out whole blocks; bit by bit costs three times as much.
                lanes.fill(NEVER);
                out.extend(first..first + 64);
                due = 0;
                self.armed_in[block as usize] = 0;
            } else {
                out.reserve(fires);
                let due_before = due;
                for _ in 0..fires {
                    let lane = due.trailing_zeros();
                    due &= due - 1;
                    lanes[lane as usize] = NEVER;
                    out.push(first + lane);
                }
                self.armed_in[block as usize] &= !(due_before ^ due);
            }
            *room -= fires;
            self.armed -= fires;
            if due != 0 {
                return Progress::More;
            }
            earliest = lanes.iter().fold(NEVER, |earliest, &at| earliest.min(at));
        }
        if earliest == NEVER {
            self.calendar.withdraw(block);
        } else {
            self.calendar.file(block, spread(block, now, earliest));
        }
        Progress::Done
    }
}

impl fmt::Debug for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("now", &self.tick(self.now))
            .field("armed", &self.armed)
            .field("keys", &(self.blocks.len() * BLOCK_KEYS))
            .finish_non_exhaustive()
    }
}

/// Bit `i` says whether lane `i` is due.
fn due_mask(lanes: &[u32; BLOCK_KEYS], now: u32) -> u64 {
    (0..).zip(lanes).fold(0, |mask, (lane, &at)| mask | u64::from(at <= now) << lane)
}

/// A tick after `now` and at or before `earliest`, by which a block should be looked at.
///
/// Blocks that filled up in the same storm of connects would otherwise come due in the same tick,
/// for ever. The hash of the block's number pulls them apart: by up to a sixteenth of the way, and
/// over the second half of the near level where the way is longer than that level.
fn spread(block: u32, now: u32, earliest: u32) -> u32 {
    let distance = earliest.saturating_sub(now);
    let hash = u64::from(block.wrapping_mul(0x9e37_79b1));
    if (NEAR_SLOTS..SPREAD_TICKS).contains(&distance) {
        earlier_by(now + NEAR_SLOTS - 1, (u64::from(NEAR_SLOTS / 2) * hash) >> 32)
    } else {
        earlier_by(earliest, (u64::from(distance / 16) * hash) >> 32)
    }
}

#[inline]
fn lane_mut(blocks: &mut [Block], key: u32) -> Option<&mut u32> {
    blocks.get_mut(block_of(key) as usize).map(|block| &mut block.0[lane_of(key)])
}

#[inline]
fn block_of(key: u32) -> u32 {
    key / 64
}

/// A key's bit among those of its block.
#[inline]
fn bit_of(key: u32) -> u64 {
    1 << (key % 64)
}

#[inline]
fn lane_of(key: u32) -> usize {
    (key % 64) as usize
}
