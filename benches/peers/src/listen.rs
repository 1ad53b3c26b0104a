//! A listening socket whose options accepted sockets inherit.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};

/// As deep as heartwheel's.
const BACKLOG: i32 = 4_096;
const NOT_SENT_BYTES: i32 = 16 * 1_024;

/// Listens as heartwheel does.
///
/// # Errors
/// What the kernel says.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    let fd = listener.as_raw_fd();
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)?;
    // Listening again is how the depth is changed.
    // SAFETY: a system call on a socket that is open.
    if unsafe { libc::listen(fd, BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(listener)
}

fn set(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    let pointer = (&raw const value).cast::<libc::c_void>();
    // SAFETY: `pointer` is to `length` bytes that outlive the call.
    match unsafe { libc::setsockopt(fd, level, name, pointer, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
