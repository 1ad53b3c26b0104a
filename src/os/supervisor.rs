//! The service manager that started us, if one did: what it is told, as `sd_notify(3)` has it.
//!
//! Each message is one datagram of lines to a socket that the environment names. It is sent without
//! waiting, and a manager that does not take it misses it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};

use crate::base::time::Span;

/// What stands in front of a name that is in no folder.
const ABSTRACT: u8 = b'@';

/// Tells the service manager how we are. Clones tell the same one.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    /// `None`: nobody wants to know.
    socket: Option<Arc<UnixDatagram>>,
}

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` names, or nobody.
    ///
    /// # Errors
    /// When it is named and cannot be reached.
    pub fn from_environment(var: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        match var("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            Some(name) => Self::at(&name),
            None => Ok(Self::default()),
        }
    }

    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [ABSTRACT, name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Self { socket: Some(Arc::new(socket)) })
    }

    /// Whether anybody wants to know.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends lines such as `READY=1`. One system call, never waits.
    pub fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket {
            // What it does not take is said again with the next report, or it is gone.
            let _ = socket.send(lines.as_bytes());
        }
    }

    /// A reload begins; it has ended when [`ready`](Self::ready) is told.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the file again"));
    }

    /// Clients can come. `status` is one line for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }
}

/// How long the service manager waits for a sign of life before it acts; `None`: it does not wait,
/// or not for us.
pub fn watchdog(var: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Option<Span> {
    let number = |name: &str| var(name)?.to_str()?.parse::<u64>().ok();
    let is_for_us = match var("WATCHDOG_PID") {
        Some(_) => number("WATCHDOG_PID") == Some(own_pid.into()),
        None => true,
    };
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_for_us)?;
    Some(Span::from_micros(micros))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1_024];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_in_a_folder_or_without_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@heartwheel-test-{}", std::process::id());
        let hidden = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        for (manager, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&hidden).unwrap(), name.into()),
        ] {
            let var = |key: &str| (key == "NOTIFY_SOCKET").then(|| name.clone());
            let supervisor = Supervisor::from_environment(var).unwrap();
            assert!(supervisor.is_there());
            supervisor.ready("here");
            assert_eq!(received(&manager), "READY=1\nSTATUS=here");
            supervisor.reloading();
            let told = received(&manager);
            let micros = told.lines().nth(1).unwrap().strip_prefix("MONOTONIC_USEC=").unwrap();
            assert!(told.starts_with("RELOADING=1\n") && micros.parse::<u64>().unwrap() > 0);
        }
    }

    #[test]
    fn without_a_manager_nothing_happens_and_a_wrong_name_is_an_error() {
        let nobody = Supervisor::from_environment(|_| None).unwrap();
        assert!(!nobody.is_there());
        nobody.tell("READY=1");
        let nowhere = |_: &str| Some(OsString::from("/nowhere/at/all"));
        assert!(Supervisor::from_environment(nowhere).is_err());
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names() {
        for (micros, pid, expected) in [
            (None, None, None),
            (Some("3000000"), None, Some(Span::from_secs(3))),
            (Some("3000000"), Some("7"), Some(Span::from_secs(3))),
            (Some("3000000"), Some("8"), None),
            (Some("3000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
        ] {
            let var = |name: &str| match name {
                "WATCHDOG_USEC" => micros.map(OsString::from),
                _ => pid.map(OsString::from),
            };
            assert_eq!(watchdog(var, 7), expected, "{micros:?} {pid:?}");
        }
    }
}
