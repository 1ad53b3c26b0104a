//! What TCP knows of a connection.

#![allow(unsafe_code, reason = "TCP_INFO is known to libc only")]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::base::io::TcpFacts;

/// Asks the kernel for `TCP_INFO`; `None` when it does not say. About 1 µs.
pub(crate) fn tcp_facts(socket: BorrowedFd<'_>) -> Option<TcpFacts> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: `info` is as large as `length` says and outlives the call, and so does the
    // descriptor, which is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: all zeros is a valid `tcp_info`, and the kernel wrote over as much as it knows.
    let info = unsafe { info.assume_init() };
    Some(TcpFacts {
        last_data_received_ms: info.tcpi_last_data_recv,
        last_ack_received_ms: info.tcpi_last_ack_recv,
        unacked: info.tcpi_unacked,
        rtt_us: info.tcpi_rtt,
        retransmits: info.tcpi_retransmits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_peer_that_acknowledges_is_told_from_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut socket, _) = listener.accept().expect("accepts");
        peer.write_all(b"beat").expect("sends");
        let mut bytes = [0; 4];
        socket.read_exact(&mut bytes).expect("receives");
        socket.write_all(b"answer").expect("sends");
        let facts = tcp_facts(socket.as_fd()).expect("a TCP socket");
        assert!(facts.last_data_received_ms < 10_000, "{facts:?}");
        assert!(facts.rtt_us > 0, "{facts:?}");
        let file = std::fs::File::open("/dev/null").expect("is there");
        assert_eq!(tcp_facts(file.as_fd()), None, "a file has no TCP");
    }
}
