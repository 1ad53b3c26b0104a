//! The sockets that are open, by number of their descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::base::io::SocketHandle;

/// Whose a socket is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// Nobody's yet: it was handed over and is not adopted.
    Nobody,
    /// The connection's in this slot.
    Connection(u32),
    /// An attempt's to connect, with this ticket.
    Attempt(u32),
}

/// One socket. 16 bytes, for there are as many as connections.
struct Socket {
    file: OwnedFd,
    serial: u32,
    owner: Owner,
}

/// All sockets of a driver but its listener.
#[derive(Default)]
pub(super) struct Sockets {
    open: Vec<Option<Socket>>,
    count: u32,
    serial: u32,
}

impl Sockets {
    /// Keeps a socket. What comes back names it until it is closed, and nothing afterwards: the
    /// serial number above, the descriptor below.
    pub(super) fn keep(&mut self, file: OwnedFd, owner: Owner) -> SocketHandle {
        let number = file.as_raw_fd().unsigned_abs();
        let index = number as usize;
        if index >= self.open.len() {
            self.open.resize_with(index + 1, || None);
        }
        assert!(self.open[index].is_none(), "the kernel gives a number to one socket at a time");
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        self.open[index] = Some(Socket { file, serial, owner });
        self.count += 1;
        SocketHandle(u64::from(serial) << 32 | u64::from(number))
    }

    /// Whose the socket is; `None` when it is closed.
    pub(super) fn owner(&self, handle: SocketHandle) -> Option<Owner> {
        let (serial, index) = parts_of(handle);
        let socket = self.open.get(index)?.as_ref()?;
        (socket.serial == serial).then_some(socket.owner)
    }

    /// Gives a socket to somebody.
    pub(super) fn give(&mut self, handle: SocketHandle, owner: Owner) {
        let (serial, index) = parts_of(handle);
        let socket = self.open.get_mut(index).and_then(Option::as_mut);
        let socket = socket.filter(|socket| socket.serial == serial);
        socket.expect("a socket that was handed over is open").owner = owner;
    }

    /// The socket itself.
    pub(super) fn file(&self, handle: SocketHandle) -> BorrowedFd<'_> {
        let (serial, index) = parts_of(handle);
        let socket = self.open.get(index).and_then(Option::as_ref);
        let socket = socket.filter(|socket| socket.serial == serial);
        socket.expect("a connection's socket is open").file.as_fd()
    }

    /// Closes a socket.
    pub(super) fn close(&mut self, handle: SocketHandle) {
        drop(self.take(handle));
    }

    /// Gives a socket away.
    pub(super) fn take(&mut self, handle: SocketHandle) -> OwnedFd {
        assert!(self.owner(handle).is_some(), "a socket is closed once, or given away");
        let (_, index) = parts_of(handle);
        let socket = self.open[index].take().expect("it has an owner");
        self.count -= 1;
        socket.file
    }

    /// How many are open.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Panics when the books disagree. How many belong to connections.
    pub(super) fn check(&self) -> usize {
        let open = self.open.iter().flatten();
        assert_eq!(open.clone().count(), self.count as usize);
        open.filter(|socket| matches!(socket.owner, Owner::Connection(_))).count()
    }
}

fn parts_of(handle: SocketHandle) -> (u32, usize) {
    let [s3, s2, s1, s0, n3, n2, n1, n0] = handle.0.to_be_bytes();
    let number = u32::from_be_bytes([n3, n2, n1, n0]);
    (u32::from_be_bytes([s3, s2, s1, s0]), number as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn any_file() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_socket_stays_small() {
        assert_eq!(size_of::<Option<Socket>>(), 16);
    }

    #[test]
    fn a_handle_of_a_former_life_of_a_descriptor_finds_nobody() {
        let mut sockets = Sockets::default();
        let handle = sockets.keep(any_file(), Owner::Nobody);
        sockets.give(handle, Owner::Connection(3));
        assert_eq!(sockets.owner(handle), Some(Owner::Connection(3)));
        let number = sockets.file(handle).as_raw_fd();
        sockets.close(handle);
        assert_eq!(sockets.owner(handle), None);
        // Whatever has the number next is another socket, even if other tests took it meanwhile.
        let next = sockets.keep(any_file(), Owner::Attempt(7));
        assert_eq!(sockets.owner(next), Some(Owner::Attempt(7)));
        assert_eq!(sockets.owner(handle), None, "{number}");
        assert_eq!((sockets.count(), sockets.check()), (1, 0));
    }
}
