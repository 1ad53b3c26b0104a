//! What the machine says of itself where a gateway depends on it. Looking only; what it means is
//! said by whoever asked.

use std::fs;
use std::path::Path;

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, getrlimit};

/// Numbers of the machine; `None` where it does not say, or has no such thing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inspection {
    /// The kernel's release.
    pub release: String,
    /// What a ring can do beyond the least that is needed; empty where there is no ring.
    pub ring: Vec<RingFeature>,
    /// `kernel.io_uring_disabled`.
    pub io_uring_disabled: Option<u64>,
    /// Filter of system calls: 0 none, 1 strict, 2 a filter.
    pub seccomp: Option<u64>,
    /// Files that may be open now; `None`: any number.
    pub files_soft: Option<u64>,
    /// Files to which the process may raise that itself; `None`: any number.
    pub files_hard: Option<u64>,
    /// `fs.nr_open`: the highest that the hard limit can be raised to.
    pub nr_open: Option<u64>,
    /// `fs.file-max`: files of all processes together.
    pub file_max: Option<u64>,
    /// `fs.epoll.max_user_watches`: sockets that a user's epoll instances can listen to.
    pub epoll_watches_max: Option<u64>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: first and last.
    pub local_ports: Option<(u64, u64)>,
    /// TCP sockets of this network that are in use, those that wait for their end among them.
    pub tcp_sockets: Option<u64>,
    /// The highest of `net.ipv4.tcp_mem`, in bytes.
    pub tcp_bytes_max: Option<u64>,
    /// Memory that is free or can be freed, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// What TCP's buffers take now, in bytes.
    pub tcp_bytes: Option<u64>,
    /// `net.netfilter.nf_conntrack_max`.
    pub conntrack_max: Option<u64>,
    /// `net.netfilter.nf_conntrack_count`: how many of them there are.
    pub conntrack_count: Option<u64>,
    /// `net.ipv4.tcp_keepalive_time`, in seconds.
    pub keepalive_secs: Option<u64>,
    /// `net.ipv4.tcp_keepalive_intvl`, in seconds.
    pub keepalive_interval_secs: Option<u64>,
    /// `net.ipv4.tcp_keepalive_probes`.
    pub keepalive_probes: Option<u64>,
}

/// Something that newer kernels do for a ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingFeature {
    /// What it is for.
    pub name: &'static str,
    /// Whether it is there.
    pub is_there: bool,
    /// The first kernel that has it.
    pub since: &'static str,
}

/// Looks at the machine as it is: raises no limit. A few dozen small files.
pub fn inspect() -> Inspection {
    let limit = getrlimit(Resource::Nofile);
    Inspection {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        ring: ring_features(),
        files_soft: limit.current,
        files_hard: limit.maximum,
        ..of_files(Path::new("/proc"), rustix::param::page_size() as u64)
    }
}

/// What stands in the files below `proc`.
fn of_files(proc: &Path, page_bytes: u64) -> Inspection {
    let numbers = |name: &str| numbers_of(&proc.join("sys").join(name));
    let number = |name: &str| numbers(name).and_then(|numbers| numbers.first().copied());
    let (status, memory) = (proc.join("self/status"), proc.join("meminfo"));
    let sockets = fs::read_to_string(proc.join("net/sockstat")).unwrap_or_default();
    let tcp = |name: &str| number_behind(&sockets, "TCP:", name);
    Inspection {
        io_uring_disabled: number("kernel/io_uring_disabled"),
        seccomp: field_of(&status, "Seccomp:"),
        nr_open: number("fs/nr_open"),
        file_max: number("fs/file-max"),
        epoll_watches_max: number("fs/epoll/max_user_watches"),
        somaxconn: number("net/core/somaxconn"),
        syn_backlog: number("net/ipv4/tcp_max_syn_backlog"),
        local_ports: match numbers("net/ipv4/ip_local_port_range").as_deref() {
            Some([first, last]) => Some((*first, *last)),
            Some(_) | None => None,
        },
        tcp_bytes_max: match numbers("net/ipv4/tcp_mem").as_deref() {
            Some([_, _, pages]) => Some(pages.saturating_mul(page_bytes)),
            Some(_) | None => None,
        },
        memory_available_bytes: field_of(&memory, "MemAvailable:").map(|kib| kib * 1_024),
        tcp_sockets: match (tcp("inuse"), tcp("tw")) {
            (Some(used), Some(ending)) => Some(used + ending),
            (used, _) => used,
        },
        tcp_bytes: tcp("mem").map(|pages| pages.saturating_mul(page_bytes)),
        conntrack_max: number("net/netfilter/nf_conntrack_max"),
        conntrack_count: number("net/netfilter/nf_conntrack_count"),
        keepalive_secs: number("net/ipv4/tcp_keepalive_time"),
        keepalive_interval_secs: number("net/ipv4/tcp_keepalive_intvl"),
        keepalive_probes: number("net/ipv4/tcp_keepalive_probes"),
        ..Inspection::default()
    }
}

/// All numbers of a file that has nothing else.
fn numbers_of(path: &Path) -> Option<Vec<u64>> {
    let text = fs::read_to_string(path).ok()?;
    let numbers: Result<Vec<u64>, _> = text.split_ascii_whitespace().map(str::parse).collect();
    numbers.ok().filter(|numbers| !numbers.is_empty())
}

/// The number behind a name in a file of such lines.
fn field_of(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// The number behind `name` in the line of such pairs that begins with `head`.
fn number_behind(text: &str, head: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(head))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

fn ring_features() -> Vec<RingFeature> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    let Ok(ring) = builder.build(4) else { return Vec::new() };
    let ring: IoUring = ring;
    let mut probe = Probe::new();
    if ring.submitter().register_probe(&mut probe).is_err() {
        return Vec::new();
    }
    let params = ring.params();
    let feature = |name, is_there, since| RingFeature { name, is_there, since };
    vec![
        feature(
            "TCP facts of direct sockets",
            probe.is_supported(opcode::FixedFdInstall::CODE),
            "6.8",
        ),
        feature("sleeps that gather", params.is_feature_min_timeout(), "6.12"),
        feature("idle time told as idle", params.is_feature_no_iowait(), "6.15"),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let folder = folder(&[
            ("sys/kernel/io_uring_disabled", "2\n"),
            ("self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            ("sys/fs/nr_open", "1048576\n"),
            ("sys/fs/file-max", "9223372036854775807\n"),
            ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("sys/net/ipv4/tcp_mem", "22830\t30443\t45660\n"),
            ("sys/net/ipv4/tcp_keepalive_time", "7200\n"),
            (
                "net/sockstat",
                "sockets: used 9\nTCP: inuse 5 orphan 0 tw 3 alloc 7 mem 2\nUDP: inuse 1 mem 9\n",
            ),
            ("sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("sys/net/netfilter/nf_conntrack_count", "17\n"),
            ("meminfo", "MemTotal:  100 kB\nMemAvailable:    2048 kB\n"),
        ]);
        assert_eq!(
            of_files(folder.path(), 4_096),
            Inspection {
                io_uring_disabled: Some(2),
                seccomp: Some(2),
                nr_open: Some(1_048_576),
                file_max: Some(9_223_372_036_854_775_807),
                local_ports: Some((32_768, 60_999)),
                tcp_bytes_max: Some(45_660 * 4_096),
                keepalive_secs: Some(7_200),
                memory_available_bytes: Some(2_097_152),
                tcp_sockets: Some(8),
                tcp_bytes: Some(2 * 4_096),
                conntrack_max: Some(65_536),
                conntrack_count: Some(17),
                ..Inspection::default()
            }
        );
    }

    #[test]
    fn what_is_missing_or_odd_is_not_said() {
        let folder = folder(&[
            ("sys/net/core/somaxconn", "many\n"),
            ("sys/net/ipv4/tcp_mem", "1 2\n"),
            ("sys/net/ipv4/ip_local_port_range", "\n"),
            ("sys/fs/nr_open", "-1\n"),
            ("self/status", "Seccomp:\n"),
            ("net/sockstat", "TCP: inuse\nTCP6: inuse 4\n"),
        ]);
        assert_eq!(of_files(folder.path(), 4_096), Inspection::default());
        assert_eq!(of_files(Path::new("/nowhere"), 4_096), Inspection::default());
    }

    #[test]
    fn this_machine_says_something() {
        let found = inspect();
        assert!(!found.release.is_empty());
        assert!(found.somaxconn.is_some() && found.seccomp.is_some(), "{found:?}");
        assert!(found.local_ports.is_some_and(|(first, last)| first < last), "{found:?}");
    }
}
