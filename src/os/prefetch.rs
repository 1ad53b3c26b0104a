//! Bringing memory near before it is used.

#![allow(unsafe_code, reason = "an instruction that no safe function stands for")]

use std::ops::Range;

/// Bytes that the processor fetches at once.
const LINE_BYTES: usize = 64;

/// Lets the processor fetch what is there, and does not wait for it. A hint: nothing is read, so
/// whatever or nothing may be there. Does nothing on other processors than x86-64.
#[inline]
pub fn prefetch(memory: Range<*const u8>) {
    let first = memory.start.map_addr(|address| address & !(LINE_BYTES - 1));
    // Counted, for the line behind the last may be the first of all memory.
    let lines = memory.end.addr().saturating_sub(first.addr()).div_ceil(LINE_BYTES);
    for line in 0..lines {
        fetch(first.wrapping_add(line * LINE_BYTES));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction neither reads nor faults, whatever the address, and every x86-64 has
    // it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_may_be_asked_for() {
        let null = std::ptr::null::<u8>();
        prefetch(null..null.wrapping_add(1_000));
        let near_the_end = null.wrapping_sub(1_000);
        prefetch(near_the_end..near_the_end.wrapping_add(999));
        prefetch(near_the_end..null);
        let there = [1_u8; 200];
        prefetch(there.as_ptr_range());
        prefetch(there[7..7].as_ptr_range());
        assert_eq!(there, [1; 200]);
    }
}
