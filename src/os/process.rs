//! What the machine says about processes: time used, memory held, who listens where.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

use crate::base::time::Span;

/// Processor time that this process has used, all threads together.
pub fn own_cpu() -> Span {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Span::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Processor time that a process has used, all threads together; `None` when it cannot be seen.
///
/// To the nanosecond where the kernel says it of each thread, else in steps of ten milliseconds.
pub fn cpu(pid: u32) -> Option<Span> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = cpu_ticks(&stat)?;
    let nanos_per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let rounded = Span::from_nanos(ticks.saturating_mul(nanos_per_tick));
    // The rounded figure has the threads that have ended, too.
    Some(cpu_of_threads(pid).map_or(rounded, |exact| exact.max(rounded)))
}

/// Processor time of the threads that are there.
fn cpu_of_threads(pid: u32) -> Option<Span> {
    let mut nanos: u64 = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = thread.ok()?.path().join("schedstat");
        let used: u64 = fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()?;
        nanos = nanos.saturating_add(used);
    }
    Some(Span::from_nanos(nanos))
}

/// Memory of this process that is in use, in bytes; `None` when the machine does not say.
pub fn own_rss_bytes() -> Option<u64> {
    rss_bytes(std::process::id())
}

/// Address space of this process, in bytes; `None` when the machine does not say.
pub fn own_virtual_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').next()?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Files that this process has open; those of a ring alone are not among them. `None` when the
/// machine does not say, or they are too many to be counted: before kernel 6.2 it has to be done
/// one by one.
pub fn own_open_files() -> Option<u64> {
    const COUNTED_MAX: usize = 100_000;
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told);
    }
    // One of them is what we read by.
    let count = fs::read_dir("/proc/self/fd").ok()?.take(COUNTED_MAX).count();
    (count < COUNTED_MAX).then(|| count.saturating_sub(1) as u64)
}

/// Files that this process may have open; `None`: any number.
pub fn own_open_files_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Memory of a process that is in use, in bytes; `None` when it cannot be seen.
pub fn rss_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// The process that listens on a TCP port of this machine; `None` when there is none or it belongs
/// to somebody else. Looks through all processes: milliseconds.
pub fn listening_on(port: u16) -> Option<u32> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| holds_any(*pid, &wanted))
}

/// How this machine calls itself.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What kind of processor this machine has; empty when it does not say.
pub fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim());
    model.unwrap_or_default().to_owned()
}

/// How many processors this process may use.
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// User and system ticks out of `/proc/PID/stat`. The name of the program may contain anything, so
/// counting starts after its closing bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// The sockets that listen on `port`, out of `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTENING: &str = "0A";
    let inode_of = |line: &str| -> Option<u64> {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        let (_, local_port) = local.rsplit_once(':')?;
        let local_port = u16::from_str_radix(local_port, 16).ok()?;
        (state == LISTENING && local_port == port).then_some(inode)
    };
    table.lines().skip(1).filter_map(inode_of).collect()
}

/// Whether a process has one of these files open, as far as we may see.
fn holds_any(pid: u32, wanted: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.filter_map(Result::ok).any(|file| {
        let Ok(target) = fs::read_link(file.path()) else { return false };
        wanted.iter().any(|name| target.as_os_str() == name.as_str())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
        for broken in ["", "7 (a)", "7 (a) S 1 2 3"] {
            assert_eq!(cpu_ticks(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1B9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:1B9E 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 0100007F:1B9F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1
   3: short line
";
        assert_eq!(listening_inodes(table, 7070), [4711]);
        assert!(listening_inodes(table, 1).is_empty());
    }

    #[test]
    fn we_find_ourselves() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listening_on(port), Some(std::process::id()));
        let (own, told) = (own_cpu(), cpu(std::process::id()).unwrap());
        let tolerance = Span::from_millis(200); // other tests run in other threads meanwhile
        assert!(told + tolerance >= own, "{told} of {own}");
        assert!(told <= own_cpu() + tolerance, "{told} of {own}");
        assert!(own_rss_bytes().unwrap() > 100_000);
        assert!(own_cpu() > Span::ZERO);
        assert!(cpu_count() > 0);
        assert!(!hostname().is_empty());
    }
}
