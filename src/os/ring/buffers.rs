//! The buffers that received bytes arrive in: lent to the kernel, borrowed back for one call each.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The only group of buffers in a ring.
pub(super) const GROUP: u16 = 0;
/// The kernel wants the ring of buffers at the start of a page.
const PAGE_BYTES: usize = 4_096;
/// No more than the allocator gives anyway: then its zeroed pages are not touched until used.
const DATA_ALIGN_BYTES: usize = 16;

/// A ring of buffers that the kernel takes from as bytes arrive.
pub(super) struct Buffers {
    entries: Memory,
    data: Memory,
    count: u16,
    each_bytes: usize,
    /// Where the next buffer is given back; runs ahead of what the kernel sees until `publish`.
    tail: u16,
}

impl Buffers {
    /// `count` buffers of `each_bytes`, all given to the kernel. `count` is a power of two.
    ///
    /// To be kept until `uring` is closed.
    pub(super) fn register(uring: &IoUring, count: u16, each_bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        assert!(count <= 32_768);
        assert!(each_bytes > 0);
        let entries = Memory::new(usize::from(count) * size_of::<BufRingEntry>(), PAGE_BYTES);
        let data = Memory::new(usize::from(count) * each_bytes, DATA_ALIGN_BYTES);
        let mut buffers = Self { entries, data, count, each_bytes, tail: 0 };
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        let address = buffers.entries.place.as_ptr() as u64;
        // SAFETY: the memory lives as long as `Buffers`, which the ring's owner keeps until the
        // ring is closed (`Ring` drops its fields in that order).
        unsafe { uring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        Ok(buffers)
    }

    pub(super) const fn count(&self) -> u16 {
        self.count
    }

    /// The first `count_bytes` bytes of a buffer that a completion named and that was not given
    /// back yet.
    pub(super) fn bytes(&self, id: u16, count_bytes: usize) -> &[u8] {
        assert!(id < self.count);
        assert!(count_bytes <= self.each_bytes);
        let start = self.data_of(id);
        // SAFETY: in bounds by the two assertions, initialised (zeroed when made), and not written
        // to by the kernel: the buffer is ours from its completion until `give_back`, which
        // takes `&mut self` and so ends this borrow first.
        unsafe { std::slice::from_raw_parts(start, count_bytes) }
    }

    /// Puts a buffer back into the ring; the kernel sees it after the next `publish`.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < self.count);
        let address = self.data_of(id) as u64;
        let length = u32::try_from(self.each_bytes).expect("limits keep buffers small");
        let place = self.tail & (self.count - 1);
        let first = self.entries.place.cast::<BufRingEntry>();
        // SAFETY: `place` is below `count`, and so many entries were allocated.
        let mut entry = unsafe { first.add(usize::from(place)) };
        // SAFETY: in bounds as said; the kernel only reads entries between its head and the
        // published tail, and this one is not there yet. The setters leave the tail, which shares
        // memory with entry 0, alone.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(length);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(super) fn publish(&self) {
        let first = self.entries.place.cast::<BufRingEntry>().as_ptr();
        // SAFETY: the first entry of an allocation of at least one.
        let tail = unsafe { BufRingEntry::tail(first) }.cast_mut();
        // SAFETY: aligned and alive as the entry is; the kernel reads it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The number of buffers that the kernel has, by its own account: `head` is where it takes the
    /// next one.
    pub(super) const fn with_kernel(&self, head: u16) -> u16 {
        self.tail.wrapping_sub(head)
    }

    fn data_of(&self, id: u16) -> *mut u8 {
        // SAFETY: callers checked `id`, so the result stays within the allocation.
        unsafe { self.data.place.add(usize::from(id) * self.each_bytes) }.as_ptr()
    }
}

/// Zeroed memory at a fixed address.
struct Memory {
    place: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(count_bytes: usize, align_bytes: usize) -> Self {
        assert!(count_bytes > 0);
        let layout = Layout::from_size_align(count_bytes, align_bytes)
            .expect("limits keep the size far from overflow");
        // SAFETY: the layout has a size, by the assertion.
        let place = unsafe { alloc_zeroed(layout) };
        let Some(place) = NonNull::new(place) else { handle_alloc_error(layout) };
        Self { place, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`, freed once.
        unsafe { dealloc(self.place.as_ptr(), self.layout) };
    }
}
