//! The wheel of the textbooks: levels of slots, each a doubly linked list of timers.

use std::hint::black_box;

use super::Deadlines;
use super::workload::Beat;

/// No node, or in no slot.
const NONE: u32 = u32::MAX;
const LEVEL_0_BITS: u32 = 8;
const LEVEL_BITS: u32 = 6;
const LEVELS: u32 = 5;
const SLOTS: usize = (1 << LEVEL_0_BITS) + (LEVELS as usize - 1) * (1 << LEVEL_BITS);

/// One timer: 16 bytes.
#[derive(Clone, Copy)]
struct Node {
    next: u32,
    /// The node before it, or [`NONE`] for the first of its slot.
    prev: u32,
    deadline: u32,
    slot: u32,
}

/// Levels of 256, 64, 64, 64 and 64 slots, by distance. Eager: a beat moves its timer to another
/// list. Lazy: a beat writes the deadline down, and the timer is moved when its old slot opens.
pub(crate) struct Intrusive<const LAZY: bool> {
    nodes: Vec<Node>,
    heads: Vec<u32>,
    now: u32,
}

impl<const LAZY: bool> Intrusive<LAZY> {
    fn new(clients: u32) -> Self {
        let unused = Node { next: NONE, prev: NONE, deadline: 0, slot: NONE };
        Self { nodes: vec![unused; clients as usize], heads: vec![NONE; SLOTS], now: 0 }
    }

    #[inline]
    fn put_off(&mut self, client: u32, deadline: u32) {
        let node = &mut self.nodes[client as usize];
        if LAZY && node.slot != NONE && deadline >= node.deadline {
            node.deadline = deadline;
            return;
        }
        if node.slot != NONE {
            self.unlink(client);
        }
        self.link(client, deadline);
    }

    #[inline]
    fn link(&mut self, client: u32, deadline: u32) {
        let slot = self.slot_of(deadline);
        let next = std::mem::replace(&mut self.heads[slot as usize], client);
        if next != NONE {
            self.nodes[next as usize].prev = client;
        }
        self.nodes[client as usize] = Node { next, prev: NONE, deadline, slot };
    }

    #[inline]
    fn unlink(&mut self, client: u32) {
        let Node { next, prev, slot, .. } = self.nodes[client as usize];
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev == NONE {
            self.heads[slot as usize] = next;
        } else {
            self.nodes[prev as usize].next = next;
        }
    }

    fn slot_of(&self, deadline: u32) -> u32 {
        let distance = deadline.saturating_sub(self.now);
        if distance < 1 << LEVEL_0_BITS {
            return deadline.max(self.now) % (1 << LEVEL_0_BITS);
        }
        let level = (1..LEVELS - 1).find(|level| distance < 1 << shift(level + 1));
        slot_in(level.unwrap_or(LEVELS - 1), deadline)
    }

    /// Moves time on, one tick after the other, and says how many timers have come due.
    fn advance(&mut self, now: u32) -> usize {
        let mut expired = 0;
        while self.now < now {
            self.now += 1;
            for level in 1..LEVELS {
                if !self.now.is_multiple_of(1 << shift(level)) {
                    break;
                }
                expired += self.open(slot_in(level, self.now));
            }
            expired += self.open(self.now % (1 << LEVEL_0_BITS));
        }
        expired
    }

    fn open(&mut self, slot: u32) -> usize {
        let mut expired = 0;
        let mut client = std::mem::replace(&mut self.heads[slot as usize], NONE);
        while client != NONE {
            let Node { next, deadline, .. } = self.nodes[client as usize];
            if deadline <= self.now {
                self.nodes[client as usize].slot = NONE;
                black_box(client);
                expired += 1;
            } else {
                self.link(client, deadline);
            }
            client = next;
        }
        expired
    }
}

/// By how many bits a tick is wider on that level.
fn shift(level: u32) -> u32 {
    LEVEL_0_BITS + (level - 1) * LEVEL_BITS
}

fn slot_in(level: u32, tick: u32) -> u32 {
    let first = (1 << LEVEL_0_BITS) + (level - 1) * (1 << LEVEL_BITS);
    first + (tick >> shift(level)) % (1 << LEVEL_BITS)
}

/// A beat moves its timer.
pub(crate) type EagerList = Intrusive<false>;

/// A beat leaves its timer where it is.
pub(crate) type LazyList = Intrusive<true>;

impl<const LAZY: bool> Deadlines for Intrusive<LAZY> {
    const NAME: &'static str = if LAZY { "lazy_list_wheel" } else { "eager_list_wheel" };

    fn new(clients: u32) -> Self {
        Self::new(clients)
    }

    fn beat(&mut self, beat: Beat) {
        self.put_off(beat.client, u32::try_from(beat.deadline).expect("a short run"));
    }

    fn tick(&mut self, now: u64) -> usize {
        self.advance(u32::try_from(now).expect("a short run"))
    }
}
