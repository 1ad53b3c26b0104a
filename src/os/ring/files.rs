//! Who owns ordinary descriptors: a direct one dies with its ring, an ordinary one with us.
#![allow(unsafe_code, reason = "descriptors come from the kernel as numbers")]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// The ordinary descriptors of a driver's sockets, by number.
#[derive(Default)]
pub(super) struct Files {
    open: Vec<Option<OwnedFd>>,
}

impl Files {
    /// Takes a descriptor that the kernel just made.
    pub(super) fn adopt(&mut self, number: u32) {
        // SAFETY: the number comes from the completion of an accept, which gave it to us alone.
        let file = unsafe { OwnedFd::from_raw_fd(number.cast_signed()) };
        self.keep(file);
    }

    /// Keeps a descriptor, and says its number.
    pub(super) fn keep(&mut self, file: OwnedFd) -> u32 {
        let number = std::os::fd::AsRawFd::as_raw_fd(&file).unsigned_abs();
        let index = number as usize;
        if index >= self.open.len() {
            self.open.resize_with(index + 1, || None);
        }
        assert!(self.open[index].is_none(), "the kernel gives a number to one socket at a time");
        self.open[index] = Some(file);
        number
    }

    /// Gives a descriptor to whoever will own it from now on.
    pub(super) fn take(&mut self, number: u32) -> OwnedFd {
        self.open[number as usize].take().expect("a socket is given away once")
    }

    /// Lets go of a descriptor that the kernel is being told to close.
    pub(super) fn let_go(&mut self, number: u32) {
        let file = self.open[number as usize].take();
        let _closed_by_the_kernel = file.expect("a socket is closed once").into_raw_fd();
    }
}
