//! Sockets that listen already and were passed to us, as `sd_listen_fds(3)` has it.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was passed.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For clients.
    pub clients: Option<TcpListener>,
    /// For the admin API.
    pub admin: Option<TcpListener>,
}

/// Why what was passed cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InheritedError {
    /// The environment contradicts itself.
    #[error(
        "LISTEN_FDS is '{}'; expected the number of sockets that were passed, 1 or 2",
        .count.escape_debug()
    )]
    Count {
        /// What it says.
        count: String,
    },
    /// There is no such descriptor.
    #[error("descriptor {number} was announced by LISTEN_FDS, and is not open")]
    NotOpen {
        /// Which.
        number: i32,
    },
    /// Nobody can connect to it.
    #[error(
        "descriptor {number}, which was passed as '{}', is no listening TCP socket; expected \
         ListenStream with an address and a port in the socket unit", .name.escape_debug()
    )]
    NotListening {
        /// Which.
        number: i32,
        /// What it was called.
        name: String,
    },
    /// There are two for the same.
    #[error(
        "descriptor {number} was passed as '{}'; expected one 'clients' and at most one 'admin' \
         (FileDescriptorName in the socket unit)", .name.escape_debug()
    )]
    OneTooMany {
        /// Which.
        number: i32,
        /// What it was called.
        name: String,
    },
}

/// The first descriptor that is passed.
const FIRST: i32 = 3;
/// Sockets that there is a use for.
const COUNT_MAX: i32 = 2;
/// What it is for is said by its name...
const CLIENTS: &str = "clients";
const ADMIN: &str = "admin";

/// Takes what was passed, and closes it in programs that are started from here. Nothing the second
/// time. To be called before any other descriptor is opened.
///
/// A socket without one of our names is for clients, if none else is.
///
/// # Errors
/// When something was passed that is of no use.
pub fn take(
    var: impl Fn(&str) -> Option<OsString>,
    own_pid: u32,
) -> Result<Inherited, InheritedError> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let text = |name: &str| var(name).map(|value| value.to_string_lossy().into_owned());
    let is_for_us = text("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(own_pid));
    if !is_for_us || IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Inherited::default());
    }
    let count = text("LISTEN_FDS").unwrap_or_default();
    let number = count.parse().ok().filter(|number| (0..=COUNT_MAX).contains(number));
    let number = number.ok_or(InheritedError::Count { count })?;
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut inherited = Inherited::default();
    let mut nameless = Vec::new();
    for number in FIRST..FIRST + number {
        let name = names.next().unwrap_or_default().to_owned();
        let socket = raw::take(number).ok_or(InheritedError::NotOpen { number })?;
        if !is_listening(&socket) {
            return Err(InheritedError::NotListening { number, name });
        }
        let place = match name.as_str() {
            CLIENTS => &mut inherited.clients,
            ADMIN => &mut inherited.admin,
            _ => {
                nameless.push((number, name, socket));
                continue;
            }
        };
        if place.replace(socket.into()).is_some() {
            return Err(InheritedError::OneTooMany { number, name });
        }
    }
    for (number, name, socket) in nameless {
        if inherited.clients.is_some() {
            return Err(InheritedError::OneTooMany { number, name });
        }
        inherited.clients = Some(socket.into());
    }
    Ok(inherited)
}

/// Whether it is a TCP socket to which one can connect.
fn is_listening(socket: &OwnedFd) -> bool {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    let domain = sockopt::socket_domain(socket);
    matches!(domain, Ok(AddressFamily::INET | AddressFamily::INET6))
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(socket) == Ok(true)
}

mod raw {
    #![allow(unsafe_code, reason = "a descriptor that is known by its number only")]

    use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

    use rustix::io::{FdFlags, fcntl_setfd};

    /// The descriptor with this number as ours, if it is open.
    pub(super) fn take(number: i32) -> Option<OwnedFd> {
        // SAFETY: a number that is not open is an error of the one call that is made with it, and
        // nobody here closes it meanwhile: nobody knows of it yet.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(borrowed, FdFlags::CLOEXEC).ok()?;
        // SAFETY: it is open, and whoever started us passed it for us to own. It is taken once,
        // which the flag in `take` sees to.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;
    use std::net::{TcpStream, UdpSocket};

    #[test]
    fn only_what_one_can_connect_to_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!is_listening(&stream.into()));
        assert!(is_listening(&listener.into()));
        assert!(!is_listening(&UdpSocket::bind("127.0.0.1:0").unwrap().into()));
        assert!(!is_listening(&std::fs::File::open("/dev/null").unwrap().into()));
        let path = tempfile::tempdir().unwrap();
        let local = std::os::unix::net::UnixListener::bind(path.path().join("x")).unwrap();
        assert!(!is_listening(&local.into()));
    }

    #[test]
    fn what_was_passed_to_another_process_is_not_touched() {
        for pid in [None, Some("1"), Some("x")] {
            let var = |name: &str| match name {
                "LISTEN_PID" => pid.map(OsString::from),
                _ => Some("1".into()),
            };
            let inherited = take(var, 7).unwrap();
            assert!(inherited.clients.is_none() && inherited.admin.is_none());
        }
    }
}
