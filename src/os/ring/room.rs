//! Memory lent to the kernel.
#![allow(unsafe_code, reason = "a fixed address that the kernel writes to needs raw pointers")]

use std::ptr::NonNull;

/// A value at a fixed address that the kernel may read and write while an operation is under way.
///
/// A `Box` would promise the compiler that nobody else writes to it.
pub(super) struct Room<T: Copy> {
    place: NonNull<T>,
}

impl<T: Copy> Room<T> {
    pub(super) fn new(value: T) -> Self {
        Self { place: NonNull::from(Box::leak(Box::new(value))) }
    }

    /// Where the kernel finds it, until this room is dropped.
    pub(super) const fn as_ptr(&self) -> *mut T {
        self.place.as_ptr()
    }

    /// What is in it. To be asked when the operation is over.
    pub(super) fn get(&self) -> T {
        // SAFETY: `place` came from a Box and is freed in `drop` only. The kernel is done with it:
        // the caller asks after the completion, whose reading from the queue orders the two.
        unsafe { self.place.read_volatile() }
    }
}

impl<T: Copy> Drop for Room<T> {
    fn drop(&mut self) {
        // SAFETY: `place` came from a Box and is freed once, here. The driver drops a room after
        // its operation's completion, or after the ring is closed.
        drop(unsafe { Box::from_raw(self.place.as_ptr()) });
    }
}
