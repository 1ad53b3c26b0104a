//! When which block of the wheel must be looked at: three levels of slots, each a list of blocks.
//!
//! ```text
//! level   slots    a slot is          reach at 10 ms a tick
//! near    16,384   1 tick             163.84 s
//! far         64   16,384 ticks       2.9 h
//! remote      64   1,048,576 ticks    7.8 days, and what is beyond waits in its last slot
//! ```
//!
//! A slot of the near level holds the blocks of exactly one tick. A slot of the upper levels is
//! opened at its *first* tick, so its blocks are seen too early and never too late; whoever opens
//! it files them again by what they find.
//!
//! The level follows from the distance, not from the digits in which two ticks differ: by digits,
//! fresh deadlines a moment away would wait in an upper level, and come down at one boundary.

/// Not a tick, and not a block.
pub(crate) const NEVER: u32 = u32::MAX;

/// How many ticks ahead blocks are told apart to the tick.
pub(crate) const NEAR_SLOTS: u32 = 1 << FAR_SHIFT;
const FAR_SHIFT: u32 = 14;
const REMOTE_SHIFT: u32 = 20;
const UPPER_SLOTS: u32 = 64;
const FAR_FIRST: u32 = NEAR_SLOTS;
const REMOTE_FIRST: u32 = FAR_FIRST + UPPER_SLOTS;
const SLOTS: usize = (REMOTE_FIRST + UPPER_SLOTS) as usize;
const NEAR_WORDS: usize = (NEAR_SLOTS / 64) as usize;

/// Marks a `prev` that names a slot instead of a block.
const FIRST: u32 = 1 << 31;

/// One block's place in its slot's list.
#[derive(Clone, Copy)]
struct Node {
    /// The block after it, or [`NEVER`].
    next: u32,
    /// The block before it, or [`FIRST`] and the slot's number.
    prev: u32,
}

const UNFILED: Node = Node { next: NEVER, prev: NEVER };

/// Blocks by the tick at which they must be looked at.
///
/// Invariant: every filed block is in a slot that opens at or after `opened`, and at or before
/// `max(at, opened)`.
pub(crate) struct Calendar {
    nodes: Vec<Node>,
    /// The tick each block is filed under, or [`NEVER`] when it is in no list. Apart from the
    /// nodes: every beat reads it, and so dense it stays in the nearest caches.
    at: Vec<u32>,
    /// First block of each slot, or [`NEVER`]: near, far and remote one after the other.
    heads: Box<[u32]>,
    /// Which near slots hold blocks, and which words of that are not zero.
    near: Box<[u64]>,
    near_words: [u64; NEAR_WORDS / 64],
    /// Which far and which remote slots hold blocks.
    far: u64,
    remote: u64,
    /// The tick that is being looked at: nothing is filed to open before it.
    opened: u32,
    /// No slot opens before this tick. A bound: it stays where it was when blocks are withdrawn.
    quiet_until: u32,
}

/// A slot that holds blocks, and the tick at which it opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Due {
    pub(crate) tick: u32,
    slot: u32,
}

impl Calendar {
    /// An empty calendar, opened at tick 0.
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            at: Vec::new(),
            heads: vec![NEVER; SLOTS].into_boxed_slice(),
            near: vec![0; NEAR_WORDS].into_boxed_slice(),
            near_words: [0; NEAR_WORDS / 64],
            far: 0,
            remote: 0,
            opened: 0,
            quiet_until: NEVER,
        }
    }

    /// Makes room for that many blocks.
    pub(crate) fn reserve(&mut self, blocks: usize) {
        self.nodes.reserve_exact(blocks.saturating_sub(self.nodes.len()));
        self.at.reserve_exact(blocks.saturating_sub(self.at.len()));
    }

    /// Knows that many blocks from now on; the new ones are not filed.
    pub(crate) fn grow(&mut self, blocks: usize) {
        self.nodes.resize(blocks, UNFILED);
        self.at.resize(blocks, NEVER);
    }

    /// The tick under which a block is filed, or [`NEVER`].
    #[inline]
    pub(crate) fn filed_at(&self, block: u32) -> u32 {
        self.at[block as usize]
    }

    /// Files a block under a tick, wherever it was before. A tick that was opened already counts as
    /// the one open now.
    pub(crate) fn file(&mut self, block: u32, tick: u32) {
        self.withdraw(block);
        let at = tick.max(self.opened);
        let slot = self.slot_of(at);
        self.quiet_until = self.quiet_until.min(self.opens_at(slot));
        let after = std::mem::replace(&mut self.heads[slot as usize], block);
        if after == NEVER {
            self.mark(slot);
        } else {
            self.nodes[after as usize].prev = block;
        }
        self.nodes[block as usize] = Node { next: after, prev: FIRST | slot };
        self.at[block as usize] = at;
    }

    /// Takes a block out, if it is filed.
    pub(crate) fn withdraw(&mut self, block: u32) {
        if std::mem::replace(&mut self.at[block as usize], NEVER) == NEVER {
            return;
        }
        let Node { next, prev } = std::mem::replace(&mut self.nodes[block as usize], UNFILED);
        if next != NEVER {
            self.nodes[next as usize].prev = prev;
        }
        if prev & FIRST == 0 {
            self.nodes[prev as usize].next = next;
            return;
        }
        let slot = prev ^ FIRST;
        self.heads[slot as usize] = next;
        if next == NEVER {
            self.unmark(slot);
        }
    }

    /// The slot that opens first. Constant time, however far away it is.
    pub(crate) fn earliest(&self) -> Option<Due> {
        let far = self.earliest_above(self.far, FAR_SHIFT, FAR_FIRST);
        let remote = self.earliest_above(self.remote, REMOTE_SHIFT, REMOTE_FIRST);
        [self.earliest_near(), far, remote].into_iter().flatten().min_by_key(|due| due.tick)
    }

    /// Whether no slot opens at or before a tick: one comparison. May deny what is so, for as long
    /// as nobody has said [`rest`](Self::rest).
    #[inline]
    pub(crate) fn is_quiet_at(&self, tick: u32) -> bool {
        tick < self.quiet_until
    }

    /// Nothing opens before `due`, as [`earliest`](Self::earliest) has just said.
    pub(crate) fn rest(&mut self, due: Option<Due>) {
        self.quiet_until = due.map_or(NEVER, |due| due.tick);
    }

    /// Moves to a tick. Nothing may be filed to open before it.
    #[inline]
    pub(crate) fn open(&mut self, tick: u32) {
        debug_assert!(tick >= self.opened, "the calendar does not turn back");
        self.opened = tick;
    }

    /// A block of an open slot, if one is left.
    pub(crate) fn first_in(&self, due: Due) -> Option<u32> {
        Some(self.heads[due.slot as usize]).filter(|&block| block != NEVER)
    }

    /// Counts from `ticks` later: what was filed under an earlier tick is due at 0, which is the
    /// tick open afterwards. Costs a step for each block.
    pub(crate) fn recount(&mut self, ticks: u64) {
        self.heads.fill(NEVER);
        self.near.fill(0);
        self.near_words.fill(0);
        self.far = 0;
        self.remote = 0;
        self.opened = 0;
        self.quiet_until = NEVER;
        self.nodes.fill(UNFILED);
        for block in 0..self.at.len() {
            let at = std::mem::replace(&mut self.at[block], NEVER);
            if at != NEVER {
                self.file(block_number(block), earlier_by(at, ticks));
            }
        }
    }

    /// The tick that is being looked at.
    pub(crate) fn opened(&self) -> u32 {
        self.opened
    }

    /// Heap bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.at.capacity() * size_of::<u32>()
            + size_of_val(&*self.heads)
            + size_of_val(&*self.near)
    }

    /// Panics when lists, bitmaps and ticks disagree. Walks everything.
    pub(crate) fn check(&self) {
        let earliest = self.earliest().map_or(NEVER, |due| due.tick);
        assert!(self.quiet_until <= earliest, "a slot opens while all is believed quiet");
        let mut filed = 0;
        for (slot, bits) in (0..NEAR_SLOTS).step_by(64).zip(&self.near) {
            let heads = &self.heads[slot as usize..][..64];
            if *bits == 0 {
                assert_eq!(heads, [NEVER; 64], "slots from {slot}: bitmap and lists");
            } else {
                filed += (slot..slot + 64).map(|slot| self.check_slot(slot)).sum::<usize>();
            }
        }
        filed += (FAR_FIRST..REMOTE_FIRST + UPPER_SLOTS)
            .map(|slot| self.check_slot(slot))
            .sum::<usize>();
        let believed = self.at.iter().filter(|at| **at != NEVER).count();
        assert_eq!(filed, believed, "blocks in lists and blocks that say they are");
        for (word, bits) in self.near.iter().enumerate() {
            let marked = self.near_words[word / 64] >> (word % 64) & 1 == 1;
            assert_eq!(marked, *bits != 0, "near word {word}");
        }
    }

    /// Walks the list of one slot, and says how many blocks are in it.
    fn check_slot(&self, slot: u32) -> usize {
        let mut filed = 0;
        let head = self.heads[slot as usize];
        assert_eq!(self.is_marked(slot), head != NEVER, "slot {slot}: bitmap and list");
        let mut prev = FIRST | slot;
        let mut block = head;
        while block != NEVER {
            let node = self.nodes[block as usize];
            assert_eq!(node.prev, prev, "block {block}: its way back");
            let at = self.filed_at(block);
            assert_ne!(at, NEVER, "block {block}: in a list, but not filed");
            let opens = self.opens_at(slot);
            assert!(opens <= at.max(self.opened), "block {block}: seen too late");
            filed += 1;
            assert!(filed <= self.nodes.len(), "slot {slot}: a list without end");
            (prev, block) = (block, node.next);
        }
        filed
    }

    /// The slot for a tick that is not before `opened`.
    fn slot_of(&self, at: u32) -> u32 {
        if at - self.opened < NEAR_SLOTS {
            return at % NEAR_SLOTS;
        }
        let number = at >> FAR_SHIFT;
        if number - first_to_open(self.opened, FAR_SHIFT) < UPPER_SLOTS {
            return FAR_FIRST + number % UPPER_SLOTS;
        }
        let last = first_to_open(self.opened, REMOTE_SHIFT) + UPPER_SLOTS - 1;
        REMOTE_FIRST + last.min(at >> REMOTE_SHIFT) % UPPER_SLOTS
    }

    /// The tick at which a slot opens next.
    fn opens_at(&self, slot: u32) -> u32 {
        if slot < FAR_FIRST {
            return self.opened + slot.wrapping_sub(self.opened) % NEAR_SLOTS;
        }
        let (shift, number) = if slot < REMOTE_FIRST {
            (FAR_SHIFT, slot - FAR_FIRST)
        } else {
            (REMOTE_SHIFT, slot - REMOTE_FIRST)
        };
        let first = first_to_open(self.opened, shift);
        (first + number.wrapping_sub(first) % UPPER_SLOTS) << shift
    }

    fn earliest_near(&self) -> Option<Due> {
        let start = self.opened % NEAR_SLOTS;
        let word = (start / 64) as usize;
        let here = self.near[word] & (u64::MAX << (start % 64));
        let (word, bits) = if here != 0 {
            (word, here)
        } else {
            let word = self.next_near_word(word)?;
            (word, self.near[word])
        };
        let slot = block_number(word) * 64 + bits.trailing_zeros();
        Some(Due { tick: self.opens_at(slot), slot })
    }

    /// The first word that is not zero after `word`, going round; `word` itself comes last.
    fn next_near_word(&self, word: usize) -> Option<usize> {
        let (group, bit) = (word / 64, word % 64);
        let groups = self.near_words.len();
        let after = self.near_words[group] & (u64::MAX << bit << 1);
        if after != 0 {
            return Some(group * 64 + after.trailing_zeros() as usize);
        }
        (1..=groups).map(|step| (group + step) % groups).find_map(|group| {
            let bits = self.near_words[group];
            (bits != 0).then(|| group * 64 + bits.trailing_zeros() as usize)
        })
    }

    fn earliest_above(&self, marks: u64, shift: u32, slots_first: u32) -> Option<Due> {
        if marks == 0 {
            return None;
        }
        let first = first_to_open(self.opened, shift);
        let number = first + marks.rotate_right(first % UPPER_SLOTS).trailing_zeros();
        Some(Due { tick: number << shift, slot: slots_first + number % UPPER_SLOTS })
    }

    fn mark(&mut self, slot: u32) {
        if slot < FAR_FIRST {
            let word = (slot / 64) as usize;
            self.near[word] |= 1 << (slot % 64);
            self.near_words[word / 64] |= 1 << (word % 64);
        } else if slot < REMOTE_FIRST {
            self.far |= 1 << (slot - FAR_FIRST);
        } else {
            self.remote |= 1 << (slot - REMOTE_FIRST);
        }
    }

    fn unmark(&mut self, slot: u32) {
        if slot < FAR_FIRST {
            let word = (slot / 64) as usize;
            self.near[word] &= !(1 << (slot % 64));
            if self.near[word] == 0 {
                self.near_words[word / 64] &= !(1 << (word % 64));
            }
        } else if slot < REMOTE_FIRST {
            self.far &= !(1 << (slot - FAR_FIRST));
        } else {
            self.remote &= !(1 << (slot - REMOTE_FIRST));
        }
    }

    fn is_marked(&self, slot: u32) -> bool {
        let marks = if slot < FAR_FIRST {
            self.near[(slot / 64) as usize] >> (slot % 64)
        } else if slot < REMOTE_FIRST {
            self.far >> (slot - FAR_FIRST)
        } else {
            self.remote >> (slot - REMOTE_FIRST)
        };
        marks & 1 == 1
    }
}

/// A tick as it is called when counting begins `ticks` later; what would be before that is 0.
pub(crate) fn earlier_by(tick: u32, ticks: u64) -> u32 {
    u32::try_from(u64::from(tick).saturating_sub(ticks)).expect("not more than it was")
}

/// Number of the first slot of that width that opens at or after a tick.
fn first_to_open(tick: u32, shift: u32) -> u32 {
    tick.div_ceil(1 << shift)
}

fn block_number(index: usize) -> u32 {
    u32::try_from(index).expect("keys are 32 bits, so blocks and words have fewer")
}
