//! Listening sockets, and the options that every accepted socket inherits from them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::base::limits::BACKLOG_MAX;
use crate::base::time::Span;

/// A dying process holds its listener until its rings are torn down, which takes up to a second.
const BIND_PATIENCE: Span = Span::from_secs(2);
const BIND_PAUSE: Span = Span::from_millis(20);
/// Unsent bytes that a socket takes before it calls itself full: what lies in the kernel cannot be
/// taken back, and a client that does not read shall be noticed.
const NOT_SENT_BYTES: u32 = 16 * 1_024;

/// TCP's own probes, which find a vanished peer where nobody beats.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeepAlive {
    /// From the last byte to the first probe. Whole seconds, at least one.
    pub idle: Span,
    /// Between two probes. Whole seconds, at least one.
    pub interval: Span,
    /// Unanswered probes until the connection is given up.
    pub count: u32,
}

/// What accepted sockets inherit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenOptions {
    /// TCP's own probes; `None`: off.
    pub keep_alive: Option<KeepAlive>,
    /// How long sent bytes may stay without an acknowledgement; `None`: the kernel's default.
    pub user_timeout: Option<Span>,
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// For so long the kernel keeps a newcomer to itself that has said nothing yet (whole seconds,
    /// at least one); `None`: not at all. Who has spoken is accepted and read at once, in one turn.
    pub defer_accept: Option<Span>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { keep_alive: None, user_timeout: None, backlog: BACKLOG_MAX, defer_accept: None }
    }
}

/// A socket that listens. Dropping it stops that.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    local_address: SocketAddr,
}

/// Why nobody can connect to an address.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there already.
    #[error(
        "{address} is already in use; stop the program that listens there, or choose another port"
    )]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// Ports below 1024 are for the privileged.
    #[error(
        "listening on {address} is not permitted; use a port from 1024 up, or grant the program \
         CAP_NET_BIND_SERVICE"
    )]
    NotPermitted {
        /// Where.
        address: SocketAddr,
    },
    /// The machine has no such address.
    #[error(
        "this machine has no address {}; use one that it has, or 0.0.0.0 for all", address.ip()
    )]
    NoSuchAddress {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {step} failed: {source}")]
    Failed {
        /// Where.
        address: SocketAddr,
        /// What failed.
        step: &'static str,
        /// What the kernel says.
        source: std::io::Error,
    },
}

/// Listens on `address`; port 0 lets the kernel choose one.
///
/// An address in use is tried again for two seconds, since the rings of a process that just ended
/// hold its listener a little longer.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> Result<Listener, SocketError> {
    let failed =
        |step| move |errno: Errno| SocketError::Failed { address, step, source: errno.into() };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket"))?;
    set_options(socket.as_fd(), options).map_err(failed("setting options"))?;
    bind_patiently(socket.as_fd(), address, options.backlog)?;
    let local = rustix::net::getsockname(&socket).map_err(failed("asking for the address"))?;
    let local_address = SocketAddr::try_from(local).map_err(failed("reading the address"))?;
    Ok(Listener { socket, local_address })
}

/// Listens by a socket that does so already, and gives it the same options.
///
/// # Errors
/// When the machine refuses an option.
pub fn adopt(socket: TcpListener, options: &ListenOptions) -> Result<Listener, io::Error> {
    let local_address = socket.local_addr()?;
    // A ring waits by itself, and does not where the socket says that it must not.
    socket.set_nonblocking(false)?;
    let socket = OwnedFd::from(socket);
    set_options(socket.as_fd(), options)?;
    Ok(Listener { socket, local_address })
}

/// Bounds what the kernel holds of what is sent on each connection that `listener` accepts later.
///
/// # Errors
/// When the machine refuses the option, which it has no reason to.
pub fn bound_send_buffer(listener: &TcpListener, bytes: usize) -> io::Result<()> {
    Ok(sockopt::set_socket_send_buffer_size(listener, bytes)?)
}

impl Listener {
    /// Where it listens, with the port that the kernel chose.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The same socket again, for another driver: whoever accepts first has the connection, and it
    /// listens until all of them are dropped.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn share(&self) -> std::io::Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Self { socket, local_address: self.local_address })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set_options(socket: BorrowedFd<'_>, options: &ListenOptions) -> Result<(), Errno> {
    sockopt::set_socket_reuseaddr(socket, true)?;
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, options.keep_alive.is_some())?;
    if let Some(keep_alive) = options.keep_alive {
        sockopt::set_tcp_keepidle(socket, at_least_a_second(keep_alive.idle))?;
        sockopt::set_tcp_keepintvl(socket, at_least_a_second(keep_alive.interval))?;
        sockopt::set_tcp_keepcnt(socket, keep_alive.count)?;
    }
    if let Some(timeout) = options.user_timeout {
        sockopt::set_tcp_user_timeout(socket, timeout.as_millis_u32())?;
    }
    if let Some(longest) = options.defer_accept {
        let seconds = at_least_a_second(longest).as_secs();
        raw::set_tcp_defer_accept(socket, u32::try_from(seconds).unwrap_or(u32::MAX))?;
    }
    raw::set_tcp_not_sent_low_water(socket, NOT_SENT_BYTES)
}

fn at_least_a_second(span: Span) -> Duration {
    Duration::from(span).max(Duration::from_secs(1))
}

/// Binds and listens: two ends of one attempt, for either can say that the address is in use.
fn bind_patiently(
    socket: BorrowedFd<'_>,
    address: SocketAddr,
    backlog: i32,
) -> Result<(), SocketError> {
    let attempts = BIND_PATIENCE.as_nanos() / BIND_PAUSE.as_nanos();
    let mut attempt = 0;
    loop {
        let tried =
            rustix::net::bind(socket, &address).and_then(|()| rustix::net::listen(socket, backlog));
        match tried {
            Ok(()) => return Ok(()),
            Err(Errno::ADDRINUSE) if attempt < attempts => {
                attempt += 1;
                std::thread::sleep(BIND_PAUSE.into());
            }
            Err(Errno::ADDRINUSE) => return Err(SocketError::InUse { address }),
            Err(Errno::ACCESS | Errno::PERM) => return Err(SocketError::NotPermitted { address }),
            Err(Errno::ADDRNOTAVAIL) => return Err(SocketError::NoSuchAddress { address }),
            Err(errno) => {
                return Err(SocketError::Failed { address, step: "bind", source: errno.into() });
            }
        }
    }
}

/// Options that rustix has no word for, and those of sockets known by number only.
pub(crate) mod raw {
    #![allow(unsafe_code, reason = "setsockopt(2) for options that rustix has no word for")]

    use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

    use rustix::io::Errno;

    /// Sets `TCP_NOTSENT_LOWAT`, in bytes.
    pub(crate) fn set_tcp_not_sent_low_water(
        socket: BorrowedFd<'_>,
        count_bytes: u32,
    ) -> Result<(), Errno> {
        set(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &count_bytes)
    }

    /// Sets `TCP_DEFER_ACCEPT`, in seconds.
    pub(crate) fn set_tcp_defer_accept(socket: BorrowedFd<'_>, seconds: u32) -> Result<(), Errno> {
        set(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
    }

    /// Lets `connect` choose the port, so that as many are free as there are targets.
    pub(crate) fn set_bind_address_no_port(socket: BorrowedFd<'_>) -> Result<(), Errno> {
        set(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1_u32)
    }

    /// Sets `TCP_USER_TIMEOUT`, in milliseconds.
    pub(crate) fn set_tcp_user_timeout(socket: RawFd, millis: u32) -> Result<(), Errno> {
        set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &millis)
    }

    /// Makes the close of `socket` a RST.
    pub(crate) fn set_linger_reset(socket: RawFd) -> Result<(), Errno> {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        set(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
    }

    fn set<T: Copy>(socket: RawFd, level: i32, name: i32, value: &T) -> Result<(), Errno> {
        let length = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
        let pointer = std::ptr::from_ref(value).cast::<libc::c_void>();
        // SAFETY: `pointer` and `length` describe `value`, which outlives the call. A descriptor
        // that is not open is an error and no more.
        let result = unsafe { libc::setsockopt(socket, level, name, pointer, length) };
        if result == 0 { Ok(()) } else { Err(last_error()) }
    }

    fn last_error() -> Errno {
        let number = std::io::Error::last_os_error().raw_os_error();
        Errno::from_raw_os_error(number.unwrap_or(libc::EIO))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_kernel_chooses_a_port() {
        let listener = listen(address("127.0.0.1:0"), &ListenOptions::default()).unwrap();
        assert_ne!(listener.local_address().port(), 0);
        std::net::TcpStream::connect(listener.local_address()).unwrap();
    }

    #[test]
    fn who_says_nothing_is_not_accepted_before_who_speaks() {
        let defer_accept = Some(Span::from_secs(30));
        let options = ListenOptions { defer_accept, ..ListenOptions::default() };
        let listener = listen(address("127.0.0.1:0"), &options).unwrap();
        let connect = || std::net::TcpStream::connect(listener.local_address()).unwrap();
        let (_silent, mut speaker) = (connect(), connect());
        std::io::Write::write_all(&mut speaker, b"HW").unwrap();
        let (_accepted, peer) = rustix::net::acceptfrom(listener.socket()).unwrap();
        let peer = SocketAddr::try_from(peer.unwrap()).unwrap();
        assert_eq!(peer, speaker.local_addr().unwrap());
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let first = listen(address("127.0.0.1:0"), &ListenOptions::default()).unwrap();
        let error = listen(first.local_address(), &ListenOptions::default()).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&first.local_address().to_string()));
    }

    #[test]
    fn a_port_that_is_given_up_soon_is_waited_for() {
        let first = listen(address("127.0.0.1:0"), &ListenOptions::default()).unwrap();
        let local = first.local_address();
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(first);
        });
        assert!(listen(local, &ListenOptions::default()).is_ok());
        holder.join().unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let error = listen(address("192.0.2.1:7070"), &ListenOptions::default()).unwrap_err();
        assert!(matches!(error, SocketError::NoSuchAddress { .. }), "{error}");
        assert!(error.to_string().contains("192.0.2.1"));
    }
}
