//! One thread with epoll, as well as one can: edges, one receive and one send a beat, and no
//! allocation.
//!
//! A receive that does not fill its buffer has emptied the socket, so none is made to hear EAGAIN.
//! When clients were last heard is stored; nobody is judged.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use heartwheel_peers::address;
use heartwheel_peers::beats::{HANDSHAKE_BYTES_MAX, Inbound, Spread, next, write_pong};
use heartwheel_peers::listen::listen;

const EVENTS: usize = 1_024;
const ACCEPTS: usize = 64;
const INTERESTS: i32 = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;

/// What is kept of a connection, under the number of its descriptor.
#[derive(Clone, Default)]
struct Connection {
    last_beat_ms: u64,
    /// The beginning of what is not complete; empty and unallocated nearly always.
    torn: Vec<u8>,
}

/// What is kept for all.
struct Server {
    poll: RawFd,
    connections: Vec<Connection>,
    spread: Spread,
    answer: Vec<u8>,
    now_ms: u64,
}

fn main() -> io::Result<()> {
    let listener = listen(address())?;
    listener.set_nonblocking(true)?;
    // SAFETY: a system call without memory.
    let poll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    watch(poll, listener.as_raw_fd(), libc::EPOLLIN)?;
    let mut server = Server {
        poll,
        connections: Vec::new(),
        spread: Spread::default(),
        answer: Vec::new(),
        now_ms: 0,
    };
    let (began, mut events) = (Instant::now(), [libc::epoll_event { events: 0, u64: 0 }; EVENTS]);
    loop {
        let place = events.as_mut_ptr();
        // SAFETY: `place` has room for `EVENTS` events.
        let waited = unsafe { libc::epoll_wait(poll, place, EVENTS as i32, -1) };
        let count = match check(waited) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        server.now_ms = began.elapsed().as_millis() as u64;
        for event in &events[..count] {
            let fd = event.u64 as RawFd;
            if fd == listener.as_raw_fd() {
                server.accept(&listener)?;
            } else if server.serve(fd).is_none() {
                server.close(fd);
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        for _ in 0..ACCEPTS {
            let fd = listener.as_raw_fd();
            let (none, flags) = (std::ptr::null_mut(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
            // SAFETY: the kernel writes no address where none is asked for.
            let accepted = unsafe { libc::accept4(fd, none, std::ptr::null_mut(), flags) };
            let Ok(fd) = check(accepted) else { return Ok(()) };
            if self.connections.len() <= fd as usize {
                self.connections.resize(fd as usize + 1, Connection::default());
            }
            watch(self.poll, fd, INTERESTS)?;
        }
        Ok(())
    }

    /// Everything that one readable connection has to say; `None`: it has ended.
    fn serve(&mut self, fd: RawFd) -> Option<()> {
        let mut buffer = [0_u8; HANDSHAKE_BYTES_MAX];
        loop {
            let place = buffer.as_mut_ptr().cast();
            // SAFETY: `place` has room for as many bytes as are asked for.
            let received = unsafe { libc::recv(fd, place, buffer.len(), 0) };
            match received {
                1.. => {}
                0 => return None,
                _ => return would_block().then_some(()),
            }
            let bytes = received as usize;
            self.hear(fd, &buffer[..bytes])?;
            if bytes < buffer.len() {
                return Some(());
            }
        }
    }

    fn hear(&mut self, fd: RawFd, received: &[u8]) -> Option<()> {
        let connection = &mut self.connections[fd as usize];
        let joined;
        let mut bytes = if connection.torn.is_empty() {
            received
        } else {
            connection.torn.extend_from_slice(received);
            joined = std::mem::take(&mut connection.torn);
            &joined
        };
        self.answer.clear();
        while let Some(inbound) = next(&mut bytes).ok()? {
            connection.last_beat_ms = self.now_ms;
            match inbound {
                Inbound::Hello { wanted_interval_ms, .. } => {
                    self.answer.extend_from_slice(&self.spread.welcome(wanted_interval_ms));
                }
                Inbound::Ping(payload) => write_pong(payload, &mut self.answer),
                Inbound::Beat => {}
                Inbound::Bye => return None,
            }
        }
        if !bytes.is_empty() {
            connection.torn = bytes.to_vec();
        }
        if self.answer.is_empty() {
            return Some(());
        }
        let (place, length) = (self.answer.as_ptr().cast(), self.answer.len());
        // SAFETY: so many bytes are there.
        let sent = unsafe { libc::send(fd, place, length, libc::MSG_NOSIGNAL) };
        // Whoever leaves so much unread that a few bytes do not fit is not served any more.
        (sent == length as isize).then_some(())
    }

    fn close(&mut self, fd: RawFd) {
        self.connections[fd as usize] = Connection::default();
        // SAFETY: the descriptor came from accept and is closed once.
        unsafe { libc::close(fd) };
    }
}

fn watch(poll: RawFd, fd: RawFd, interests: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: interests as u32, u64: fd as u64 };
    // SAFETY: the kernel reads `event`, which outlives the call.
    check(unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
    Ok(())
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn would_block() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}
