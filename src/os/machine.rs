//! What this machine can do for us, found out before anything is promised.
//!
//! Looking ([`survey`]) and deciding ([`Survey::plan`]) are two things: the decision is a function
//! of what was found, so machines that we do not have can be tested.

use std::fmt;
use std::fs;

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use crate::base::limits::{
    ARRIVALS_MAX, CONNECTIONS_DEFAULT, MOVE_DESCRIPTORS_MAX, REFUSALS_MAX, RINGS_MAX,
    SHARE_SLACK_MIN, SHARE_SLACK_PART,
};
use crate::os::driver::{DriverConfig, DriverKind};
use crate::os::ring::{self, Descriptors, RingSizes};
use crate::os::socket::Listener;
use crate::os::{epoll, process};

/// Largest table of files that a ring can have.
const TABLE_FILES_MAX: u64 = 1 << 20;
/// Descriptors kept for everything that is not a connection: files, the side thread, standard
/// streams.
const FILES_RESERVE: u64 = 128;
/// Descriptors of one ring: itself and its bell.
const FILES_PER_RING: u64 = 2;
/// Descriptors of a further shard: its ring, its bells, the listening socket, and connections on
/// their way to other shards.
const FILES_PER_SHARD: u64 = 4 + MOVE_DESCRIPTORS_MAX as u64;
/// Memory that the kernel locks for one ring of many; 35 fitted into 8 MiB.
const RING_LOCKED_BYTES: u64 = 256 * 1_024;
/// Before this kernel, one long-lived operation on a direct descriptor kept every slot that was
/// closed after it from being freed.
pub const DIRECT_SINCE: KernelVersion = KernelVersion { major: 6, minor: 13 };

/// A kernel, as far as features depend on it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KernelVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads a release such as `6.1.0-18-amd64`.
    pub fn from_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What came of trying to set up a ring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RingTrial {
    /// It works, but for these operations.
    Works {
        /// Operations that the kernel does not know.
        missing: Vec<&'static str>,
    },
    /// It was refused.
    Refused {
        /// The kernel's error number.
        errno: i32,
    },
}

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Survey {
    /// The kernel; `None` when its release cannot be read.
    pub kernel: Option<KernelVersion>,
    /// Whether io_uring can be used.
    pub ring: RingTrial,
    /// `kernel.io_uring_disabled`; `None` before kernel 6.6.
    pub io_uring_disabled: Option<u8>,
    /// Files this process may have open, after raising the limit as far as it goes.
    pub files_max: u64,
    /// Memory that may be locked, in bytes; `None` when that is not limited.
    pub locked_bytes_max: Option<u64>,
    /// Processors this process may use.
    pub cpus: usize,
    /// Where the operator wants sockets to be kept; `None` leaves it to the kernel's version.
    pub descriptors_wanted: Option<Descriptors>,
    /// Which driver the operator wants; `None`: io_uring, and epoll where that cannot be used.
    pub driver_wanted: Option<DriverKind>,
    /// How many loops the operator wants.
    pub shards: u16,
}

/// How many connections are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// So many, or as many as the machine allows.
    UpTo(u32),
    /// So many, or it is an error.
    Exactly(u32),
}

/// How the machine will be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// By what means the kernel is asked.
    pub driver: DriverKind,
    /// Where sockets are kept.
    pub descriptors: Descriptors,
    /// Connections that can be held.
    pub connections_max: u32,
    /// Sockets that one ring holds at most.
    pub files_per_ring: u32,
    /// Rings needed when all connections are there; none with epoll.
    pub rings_max: u32,
    /// How many loops share the connections.
    pub shards: u16,
}

/// Why this machine will not do, and what would help.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MachineError {
    /// Switched off for everybody, or for those without privilege.
    #[error(
        "io_uring is switched off: kernel.io_uring_disabled is {value}; \
         set it to 0 (sysctl -w kernel.io_uring_disabled=0){}",
        if *.value == 1 { ", or run with CAP_SYS_ADMIN or in the group kernel.io_uring_group" }
        else { "" }
    )]
    SwitchedOff {
        /// What the setting is.
        value: u8,
    },
    /// A filter forbids it.
    #[error(
        "io_uring is forbidden by a system call filter, as containers have it by default; allow \
         io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (for a trial: \
         docker run --security-opt seccomp=unconfined)"
    )]
    Filtered,
    /// There is none.
    #[error(
        "this kernel has no io_uring (or a system call filter hides it); use a kernel from 6.1 up, \
         built with CONFIG_IO_URING"
    )]
    NotThere,
    /// It is too old.
    #[error("kernel {kernel} is too old: it lacks {missing}; use 6.1 or later, best 6.13 or later")]
    TooOld {
        /// The kernel.
        kernel: KernelVersion,
        /// What is missing, as words.
        missing: String,
    },
    /// No memory may be locked.
    #[error(
        "there is no memory for io_uring: raise the limit of locked memory \
         (ulimit -l, LimitMEMLOCK= in systemd, --ulimit memlock=-1 in docker)"
    )]
    NoMemory,
    /// Anything else.
    #[error("cannot set up io_uring: {}", std::io::Error::from_raw_os_error(*.errno))]
    Other {
        /// The kernel's error number.
        errno: i32,
    },
    /// More connections are wanted than can be had.
    #[error(
        "{wanted} connections are more than this machine allows, which is {possible}; raise the \
         limit of {what}"
    )]
    TooManyConnections {
        /// How many are wanted.
        wanted: u32,
        /// How many can be had.
        possible: u32,
        /// What stands in the way.
        what: Bottleneck,
    },
}

/// What bounds the number of connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bottleneck {
    /// Open files.
    Files,
    /// Locked memory.
    LockedMemory,
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "open files (ulimit -n, LimitNOFILE= in systemd)",
            Self::LockedMemory => "locked memory (ulimit -l, LimitMEMLOCK= in systemd)",
        })
    }
}

/// Looks at the machine, and raises the limit of open files as far as it goes.
pub fn survey() -> Survey {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Survey {
        kernel: KernelVersion::from_release(&release),
        ring: try_ring(),
        io_uring_disabled: fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        files_max: raise_file_limit(),
        locked_bytes_max: locked_bytes_max(),
        cpus: process::cpu_count(),
        descriptors_wanted: None,
        driver_wanted: None,
        shards: 1,
    }
}

impl Survey {
    /// How to use this machine for so many connections, or why it will not do.
    pub fn plan(&self, wanted: Wanted) -> Result<Plan, MachineError> {
        let driver = self.driver()?;
        let (Wanted::UpTo(count) | Wanted::Exactly(count)) = wanted;
        let (possible, what) = self.connections_possible();
        if count > possible && matches!(wanted, Wanted::Exactly(_)) {
            return Err(MachineError::TooManyConnections { wanted: count, possible, what });
        }
        let connections_max = count.min(possible).max(1);
        let files_per_ring = self.files_per_ring();
        let rings_max = match driver {
            DriverKind::IoUring => (connections_max + REFUSALS_MAX).div_ceil(files_per_ring),
            DriverKind::Epoll => 0,
        };
        let (descriptors, shards) = (self.descriptors(), self.shards);
        Ok(Plan { driver, descriptors, connections_max, files_per_ring, rings_max, shards })
    }

    /// Why epoll is used though nobody asked for it; `None` where it is not so.
    pub fn fallback(&self) -> Option<MachineError> {
        match self.driver_wanted {
            None => self.check_ring().err(),
            Some(DriverKind::IoUring | DriverKind::Epoll) => None,
        }
    }

    /// By what means the kernel is asked, or why not by those that are wanted.
    pub fn driver(&self) -> Result<DriverKind, MachineError> {
        match (self.driver_wanted, self.check_ring()) {
            (Some(DriverKind::Epoll), _) | (None, Err(_)) => Ok(DriverKind::Epoll),
            (Some(DriverKind::IoUring) | None, Ok(())) => Ok(DriverKind::IoUring),
            (Some(DriverKind::IoUring), Err(error)) => Err(error),
        }
    }

    /// What was found, a line each, for a person.
    pub fn lines(&self) -> Vec<String> {
        let kernel = self.kernel.map_or("of unknown version".to_owned(), |k| k.to_string());
        let mut lines = Vec::new();
        let driver = match self.driver() {
            Ok(driver) => driver,
            Err(error) => return vec![format!("kernel {kernel}"), error.to_string()],
        };
        lines.push(match self.descriptors() {
            _ if driver == DriverKind::Epoll => format!("kernel {kernel}: epoll"),
            Descriptors::Direct => {
                format!("kernel {kernel}: io_uring with direct descriptors")
            }
            Descriptors::Ordinary => format!(
                "kernel {kernel}: io_uring with ordinary descriptors (direct ones from 6.13 up)"
            ),
        });
        let (possible, what) = self.connections_possible();
        let files = self.files_max;
        lines.push(match self.descriptors() {
            Descriptors::Direct => {
                format!("file limit {files}: that many connections in each ring, {possible} in all")
            }
            Descriptors::Ordinary => {
                format!("file limit {files}: {possible} connections")
            }
        });
        if what == Bottleneck::LockedMemory {
            let mib = self.locked_bytes_max.unwrap_or(u64::MAX) >> 20;
            lines.push(format!("locked memory limit {mib} MiB: {possible} connections"));
        }
        if possible < CONNECTIONS_DEFAULT {
            lines.push(format!("for more than {possible} connections, raise the limit of {what}"));
        }
        lines
    }

    /// The error, if io_uring cannot be used at all.
    fn check_ring(&self) -> Result<(), MachineError> {
        match &self.ring {
            RingTrial::Works { missing } if missing.is_empty() => Ok(()),
            RingTrial::Works { missing } => Err(self.too_old(&missing.join(", "))),
            RingTrial::Refused { errno } => Err(self.refusal(*errno)),
        }
    }

    fn refusal(&self, errno: i32) -> MachineError {
        match errno {
            libc::EPERM | libc::EACCES => match self.io_uring_disabled {
                None | Some(0) => MachineError::Filtered,
                Some(value) => MachineError::SwitchedOff { value },
            },
            libc::ENOSYS => MachineError::NotThere,
            libc::EINVAL => self.too_old(&self.missing_features()),
            libc::ENOMEM => MachineError::NoMemory,
            errno => MachineError::Other { errno },
        }
    }

    fn too_old(&self, missing: &str) -> MachineError {
        let kernel = self.kernel.unwrap_or(KernelVersion { major: 0, minor: 0 });
        MachineError::TooOld { kernel, missing: missing.to_owned() }
    }

    /// What a kernel of this version does not have yet.
    fn missing_features(&self) -> String {
        const FEATURES: [(u32, u32, &str); 3] = [
            (5, 19, "rings of receive buffers (5.19)"),
            (6, 0, "multishot receive (6.0)"),
            (6, 1, "deferred task work (6.1)"),
        ];
        let has = |major, minor| self.kernel >= Some(KernelVersion { major, minor });
        let missing: Vec<_> = FEATURES
            .into_iter()
            .filter(|(major, minor, _)| !has(*major, *minor))
            .map(|(_, _, feature)| feature)
            .collect();
        if missing.is_empty() { FEATURES[2].2.to_owned() } else { missing.join(", ") }
    }

    fn descriptors(&self) -> Descriptors {
        if matches!(self.driver(), Ok(DriverKind::Epoll)) {
            return Descriptors::Ordinary;
        }
        if let Some(wanted) = self.descriptors_wanted {
            return wanted;
        }
        if self.kernel >= Some(DIRECT_SINCE) { Descriptors::Direct } else { Descriptors::Ordinary }
    }

    fn files_per_ring(&self) -> u32 {
        let files = match self.descriptors() {
            Descriptors::Direct => self.files_max.clamp(1, TABLE_FILES_MAX),
            Descriptors::Ordinary => self.ordinary_files(),
        };
        u32::try_from(files).unwrap_or(u32::MAX)
    }

    /// Connections that can be held at most, and what bounds them.
    fn connections_possible(&self) -> (u32, Bottleneck) {
        let per_ring = u64::from(self.files_per_ring());
        let sockets = |rings: u64| (rings * per_ring).saturating_sub(REFUSALS_MAX.into());
        let of_files = match self.descriptors() {
            Descriptors::Direct => sockets(self.rings_by_files()),
            Descriptors::Ordinary => sockets(1),
        };
        let of_memory = match self.locked_bytes_max {
            Some(bytes) if !matches!(self.driver(), Ok(DriverKind::Epoll)) => {
                sockets((bytes / RING_LOCKED_BYTES).max(1))
            }
            Some(_) | None => u64::MAX,
        };
        let what = if of_memory < of_files { Bottleneck::LockedMemory } else { Bottleneck::Files };
        let possible = of_files.min(of_memory).min(crate::base::limits::CONNECTIONS_LIMIT.into());
        (u32::try_from(possible).unwrap_or(u32::MAX), what)
    }

    /// Rings that there can be: each has descriptors of its own.
    fn rings_by_files(&self) -> u64 {
        let rings = self.files_max.saturating_sub(self.files_reserved()) / FILES_PER_RING;
        rings.clamp(1, RINGS_MAX as u64)
    }

    fn ordinary_files(&self) -> u64 {
        self.files_max.saturating_sub(self.files_reserved()).clamp(1, u32::MAX.into())
    }

    /// Descriptors that no connection gets.
    fn files_reserved(&self) -> u64 {
        FILES_RESERVE + FILES_PER_SHARD * u64::from(self.shards.saturating_sub(1))
    }
}

impl Plan {
    /// What one of the shards may hold. All together hold no more than the plan says; since clients
    /// are spread by a hash, each has room for some more than its share.
    #[must_use]
    pub fn of_one_shard(&self) -> Self {
        if self.shards <= 1 {
            return *self;
        }
        let share = self.connections_max.div_ceil(self.shards.into());
        let slack = (share / SHARE_SLACK_PART).max(SHARE_SLACK_MIN);
        let connections_max = share.saturating_add(slack).min(self.connections_max);
        let one = Self { connections_max, ..*self };
        Self { rings_max: one.sockets_max().div_ceil(one.files_per_ring), ..one }
    }

    /// Sockets that a driver must have room for: the connections, those kept for refusals, and
    /// those that come from other shards.
    pub const fn sockets_max(&self) -> u32 {
        let for_arrivals = if self.shards > 1 { ARRIVALS_MAX } else { 0 };
        self.connections_max.saturating_add(REFUSALS_MAX).saturating_add(for_arrivals)
    }

    /// What a driver for so many connections is made of.
    pub fn driver_config(&self, listener: Option<Listener>) -> DriverConfig {
        let connections_max = self.sockets_max();
        match self.driver {
            DriverKind::IoUring => {
                let (descriptors, sizes) = (self.descriptors, self.ring_sizes());
                ring::DriverConfig { connections_max, descriptors, listener, sizes }.into()
            }
            DriverKind::Epoll => epoll::DriverConfig { connections_max, listener }.into(),
        }
    }

    /// Sizes of the rings.
    pub const fn ring_sizes(&self) -> RingSizes {
        RingSizes::new(self.sockets_max(), self.files_per_ring)
    }
}

/// Sets up a small ring as the driver does, and asks for the operations it needs.
fn try_ring() -> RingTrial {
    let refused = |error: std::io::Error| RingTrial::Refused {
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    };
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    let ring: IoUring = match builder.build(4) {
        Ok(ring) => ring,
        Err(error) => return refused(error),
    };
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return refused(error);
    }
    let needed = [
        ("accept", opcode::Accept::CODE),
        ("connect", opcode::Connect::CODE),
        ("receive", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("close", opcode::Close::CODE),
        ("cancel", opcode::AsyncCancel::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("files update", opcode::FilesUpdate::CODE),
    ];
    let missing = needed.into_iter().filter(|(_, code)| !probe.is_supported(*code));
    RingTrial::Works { missing: missing.map(|(name, _)| name).collect() }
}

/// Raises the limit of open files to what is allowed, and says what it is then.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where that is refused, the old limit stands and is reported.
    let _refused = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(TABLE_FILES_MAX)
}

/// The limit of locked memory, if there is one for this process.
fn locked_bytes_max() -> Option<u64> {
    let exempt = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if exempt { None } else { getrlimit(Resource::Memlock).current }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn kernel(major: u32, minor: u32) -> Option<KernelVersion> {
        Some(KernelVersion { major, minor })
    }

    fn works() -> RingTrial {
        RingTrial::Works { missing: Vec::new() }
    }

    fn machine() -> Survey {
        Survey {
            kernel: kernel(6, 18),
            ring: works(),
            io_uring_disabled: Some(0),
            files_max: 20_000,
            locked_bytes_max: None,
            cpus: 2,
            descriptors_wanted: None,
            driver_wanted: None,
            shards: 1,
        }
    }

    #[test]
    fn releases_are_read() {
        for (release, expected) in [
            ("6.18.44-fc-v769", kernel(6, 18)),
            ("6.1.0-18-amd64", kernel(6, 1)),
            ("5.15.153.1-microsoft-standard-WSL2", kernel(5, 15)),
            ("6.13-rc2", kernel(6, 13)),
            ("7.0", kernel(7, 0)),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(KernelVersion::from_release(release), expected, "{release}");
        }
    }

    #[test]
    fn kernels_decide_where_sockets_are_kept() {
        for (version, descriptors, connections_max, rings_max) in [
            (kernel(6, 1), Descriptors::Ordinary, 19_808, 1),
            (kernel(6, 12), Descriptors::Ordinary, 19_808, 1),
            (kernel(6, 13), Descriptors::Direct, 200_000, 11),
            (kernel(7, 0), Descriptors::Direct, 200_000, 11),
            (None, Descriptors::Ordinary, 19_808, 1),
        ] {
            let plan = Survey { kernel: version, ..machine() }.plan(Wanted::UpTo(200_000)).unwrap();
            assert_eq!(plan.descriptors, descriptors, "{version:?}");
            assert_eq!(plan.connections_max, connections_max, "{version:?}");
            assert_eq!(plan.rings_max, rings_max, "{version:?}");
        }
    }

    #[test]
    fn limits_bound_the_connections() {
        let names = ["as here", "a small limit", "a large limit", "little memory"];
        let machines = [
            machine(),
            Survey { files_max: 1_024, ..machine() },
            Survey { files_max: 1_048_576, ..machine() },
            Survey { locked_bytes_max: Some(8 << 20), ..machine() },
        ];
        let expected = [
            (1_000_000, 20_000, 51),
            (262_080, 1_024, 256),
            (1_000_000, 1_048_576, 1),
            (639_936, 20_000, 32),
        ];
        for ((name, machine), expected) in names.into_iter().zip(machines).zip(expected) {
            let plan = machine.plan(Wanted::UpTo(1_000_000)).unwrap();
            let found = (plan.connections_max, plan.files_per_ring, plan.rings_max);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn shards_have_their_share_and_some_more() {
        let shares = |shards, connections| {
            let survey = Survey { shards, ..machine() };
            let plan = survey.plan(Wanted::UpTo(connections)).unwrap();
            let one = plan.of_one_shard();
            (plan.connections_max, one.connections_max, one.rings_max)
        };
        assert_eq!(shares(1, 200_000), (200_000, 200_000, 11));
        assert_eq!(shares(2, 200_000), (200_000, 106_250, 6));
        assert_eq!(shares(4, 1_000_000), (1_000_000, 265_625, 14));
        assert_eq!(shares(4, 3), (3, 3, 1), "never more than the total");
        assert_eq!(shares(64, 40_000), (40_000, 1_649, 1));
        // In the process's table the shards share what is left beside their own descriptors.
        let old = Survey { kernel: kernel(6, 1), shards: 4, ..machine() };
        let plan = old.plan(Wanted::UpTo(50_000)).unwrap();
        assert_eq!(plan.connections_max, 20_000 - 128 - 3 * 68 - 64);
    }

    #[test]
    fn what_was_demanded_and_cannot_be_had_is_an_error() {
        let old = Survey { kernel: kernel(6, 1), ..machine() };
        assert!(old.plan(Wanted::Exactly(10_000)).is_ok());
        let error = old.plan(Wanted::Exactly(50_000)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "50000 connections are more than this machine allows, which is 19808; raise the limit \
             of open files (ulimit -n, LimitNOFILE= in systemd)"
        );
        let poor = Survey { locked_bytes_max: Some(512 << 10), ..machine() };
        let error = poor.plan(Wanted::Exactly(50_000)).unwrap_err();
        assert!(error.to_string().contains("locked memory"), "{error}");
    }

    #[test]
    fn a_machine_that_will_not_do_says_what_would_help() {
        let refused = |errno| RingTrial::Refused { errno };
        for (name, machine, words) in [
            (
                "container",
                Survey { ring: refused(libc::EPERM), ..machine() },
                ["system call filter", "seccomp"],
            ),
            (
                "container on an older kernel",
                Survey { ring: refused(libc::EPERM), io_uring_disabled: None, ..machine() },
                ["system call filter", "seccomp"],
            ),
            (
                "switched off",
                Survey { ring: refused(libc::EPERM), io_uring_disabled: Some(2), ..machine() },
                ["kernel.io_uring_disabled is 2", "sysctl -w"],
            ),
            (
                "switched off for most",
                Survey { ring: refused(libc::EPERM), io_uring_disabled: Some(1), ..machine() },
                ["kernel.io_uring_disabled is 1", "kernel.io_uring_group"],
            ),
            (
                "no io_uring",
                Survey { ring: refused(libc::ENOSYS), ..machine() },
                ["no io_uring", "CONFIG_IO_URING"],
            ),
            (
                "5.15",
                Survey { ring: refused(libc::EINVAL), kernel: kernel(5, 15), ..machine() },
                ["kernel 5.15 is too old", "rings of receive buffers (5.19), multishot"],
            ),
            (
                "6.0",
                Survey { ring: refused(libc::EINVAL), kernel: kernel(6, 0), ..machine() },
                ["lacks deferred task work (6.1)", "6.13"],
            ),
            (
                "an operation is missing",
                Survey { ring: RingTrial::Works { missing: vec!["send"] }, ..machine() },
                ["lacks send", "6.1"],
            ),
            (
                "no memory",
                Survey { ring: refused(libc::ENOMEM), ..machine() },
                ["ulimit -l", "LimitMEMLOCK"],
            ),
            ("odd", Survey { ring: refused(libc::EIO), ..machine() }, ["io_uring", "error 5"]),
        ] {
            let insisting = Survey { driver_wanted: Some(DriverKind::IoUring), ..machine.clone() };
            let error = insisting.plan(Wanted::UpTo(1_000)).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{name}: {error}");
            }
            assert!(insisting.lines().contains(&error), "{name}");
            assert_eq!(insisting.fallback(), None, "{name}");
            // Whoever does not insist is served by epoll, and hears the same reason.
            assert_eq!(machine.plan(Wanted::UpTo(1_000)).unwrap().driver, DriverKind::Epoll);
            assert_eq!(machine.fallback().unwrap().to_string(), error, "{name}");
        }
    }

    #[test]
    fn with_epoll_the_limit_of_files_bounds_the_connections_and_that_of_memory_does_not() {
        let forbidden = RingTrial::Refused { errno: libc::EPERM };
        let machines = [
            Survey { ring: forbidden, ..machine() },
            Survey { driver_wanted: Some(DriverKind::Epoll), ..machine() },
        ];
        for machine in machines {
            let machine = Survey {
                locked_bytes_max: Some(64 << 10),
                descriptors_wanted: Some(Descriptors::Direct),
                ..machine
            };
            let plan = machine.plan(Wanted::UpTo(1_000_000)).unwrap();
            assert_eq!((plan.driver, plan.rings_max), (DriverKind::Epoll, 0));
            assert_eq!(plan.connections_max, 19_808);
            let error = machine.plan(Wanted::Exactly(50_000)).unwrap_err().to_string();
            assert!(error.contains("open files"), "{error}");
            assert_eq!(
                machine.lines(),
                [
                    "kernel 6.18: epoll",
                    "file limit 20000: 19808 connections",
                    "for more than 19808 connections, raise the limit of open files (ulimit -n, \
                     LimitNOFILE= in systemd)",
                ]
            );
        }
        assert_eq!(machine().plan(Wanted::UpTo(1)).unwrap().driver, DriverKind::IoUring);
        assert_eq!(machine().fallback(), None);
    }

    #[test]
    fn this_machine_is_described() {
        let survey = survey();
        let lines = survey.lines();
        assert!(lines[0].starts_with("kernel "), "{lines:?}");
        assert!(lines.len() >= 2, "{lines:?}");
    }
}
