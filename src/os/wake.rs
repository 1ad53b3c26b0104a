//! Waking the loop from another thread.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a [`Driver`](crate::os::driver::Driver) out of its wait, from any thread.
///
/// A wake that comes while the driver is awake is not lost: its next wait returns at once.
#[derive(Clone, Debug)]
pub struct Waker {
    bell: Arc<OwnedFd>,
}

impl Waker {
    /// A bell that nobody listens to yet.
    pub(crate) fn new() -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell: Arc::new(bell) })
    }

    /// Rings the bell. One system call, never blocks.
    pub fn wake(&self) {
        // The count would overflow after 2^64 rings; then it stands at its highest, still rung.
        let _rung = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }

    /// What the driver listens to.
    pub(crate) fn raw(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// The same, as epoll wants it.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
