//! `doctor`: what this machine allows, and what to change. Nothing is changed.

use std::fmt;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::base::limits;
use crate::cli::args::DoctorArgs;
use crate::cli::config::LISTEN_DEFAULT;
use crate::cli::error::CliError;
use crate::cli::machine;
use crate::cli::write_stdout;
use crate::os::driver::DriverKind;
use crate::os::inspect::{Inspection, inspect};
use crate::os::machine::{DIRECT_SINCE, Plan, RingTrial, Survey, Wanted};
use crate::os::ring::Descriptors;
use crate::os::socket::{self, ListenOptions};

/// Ports for the load bench below which it soon runs out of them.
const PORTS_FEW: u64 = 10_000;
/// What the kernel needs for a connection, measured: see the manual.
const CONNECTION_BYTES: u64 = 4_608;
const MIB: u64 = 1 << 20;
/// Where all of a machine's numbers stand together, with their reasons.
const SYSCTL_FILES: &str = "deploy/sysctl/sysctl-100k.conf and sysctl-1m.conf";

/// How much something matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Level {
    /// As it should be.
    Fine,
    /// It works, and could be better.
    Note,
    /// `serve` would not start.
    Problem,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

/// One line of what was found, and the remedy where there is something to mend.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Finding {
    level: Level,
    name: &'static str,
    text: String,
    remedy: Option<String>,
}

impl Finding {
    fn fine(name: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Fine, name, text: text.into(), remedy: None }
    }

    fn note(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Note, name, text: text.into(), remedy: Some(remedy.into()) }
    }

    fn problem(name: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Problem, name, text: text.into(), remedy: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9}{:<18}{}", self.level.word(), self.name, self.text)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n{:27}-> {remedy}", ""),
            None => Ok(()),
        }
    }
}

/// Runs `doctor` as typed. Fails when `serve` would not start here.
pub fn run(args: &DoctorArgs) -> Result<(), CliError> {
    // Before the survey, which raises the limit of open files.
    let found = inspect();
    let survey = machine::survey(machine::choice(args.driver)?);
    let wanted =
        args.max_connections.map_or(Wanted::UpTo(limits::CONNECTIONS_DEFAULT), Wanted::Exactly);
    let mut findings = examine(&found, &survey, wanted);
    findings.push(try_port(args.listen.unwrap_or(LISTEN_DEFAULT)));
    let plan = survey.plan(wanted).ok();
    let page = if args.json { to_json(&findings, plan) } else { to_text(&findings, plan) };
    write_stdout(page.as_bytes())?;
    let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
    if problems > 0 {
        return Err(CliError::machine(format!(
            "serve would not start here: {problems} to mend, see the lines that begin with \
             'problem'"
        )));
    }
    Ok(())
}

fn to_text(findings: &[Finding], plan: Option<Plan>) -> String {
    let mut page: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let is_fine = findings.iter().all(|finding| finding.level != Level::Problem);
    if let Some(plan) = plan.filter(|_| is_fine) {
        let (driver, count) = (plan.driver.word(), plan.connections_max);
        page.push_str(&format!(
            "\nserve works here, with {driver} and up to {count} connections\n"
        ));
    }
    page
}

fn to_json(findings: &[Finding], plan: Option<Plan>) -> String {
    let lines: Vec<Value> = findings
        .iter()
        .map(|Finding { level, name, text, remedy }| {
            json!({ "level": level.word(), "name": name, "text": text, "remedy": remedy })
        })
        .collect();
    let page = json!({
        "ok": findings.iter().all(|finding| finding.level != Level::Problem),
        "driver": plan.map(|plan| plan.driver.word()),
        "connections_max": plan.map(|plan| plan.connections_max),
        "findings": lines,
    });
    format!("{page}\n")
}

/// What was found, as far as it can be said without trying anything.
fn examine(found: &Inspection, survey: &Survey, wanted: Wanted) -> Vec<Finding> {
    let mut findings = vec![kernel(found, survey), io_uring(survey)];
    findings.extend(found.ring.iter().map(|feature| {
        let (name, since) = (feature.name, feature.since);
        if feature.is_there {
            Finding::fine("io_uring feature", name)
        } else {
            let text = format!("{name}: not in this kernel");
            Finding::note("io_uring feature", text, format!("kernel {since}; it works without"))
        }
    }));
    findings.push(seccomp(found, survey));
    findings.push(locked_memory(survey));
    findings.push(files(found, survey));
    findings.push(connections(survey, wanted));
    findings.extend(epoll_watches(found, survey));
    findings.push(queues(found));
    findings.push(ports(found));
    findings.push(memory(found));
    findings.push(tcp_memory(found));
    findings.push(conntrack(found));
    findings.push(keepalive(found));
    findings
}

fn kernel(found: &Inspection, survey: &Survey) -> Finding {
    let release = &found.release;
    if survey.kernel >= Some(DIRECT_SINCE) {
        return Finding::fine("kernel", release);
    }
    let remedy = format!(
        "from {DIRECT_SINCE} on sockets are kept in the rings' own tables, and the limit of open \
         files bounds a ring instead of the process"
    );
    Finding::note("kernel", release, remedy)
}

fn io_uring(survey: &Survey) -> Finding {
    let switch = match survey.io_uring_disabled {
        Some(value) => format!("kernel.io_uring_disabled is {value}"),
        None => "this kernel has no kernel.io_uring_disabled".to_owned(),
    };
    match (survey.driver(), survey.fallback()) {
        (Ok(DriverKind::Epoll), Some(reason)) => Finding::note(
            "io_uring",
            format!("epoll stands in for it ({switch})"),
            reason.to_string(),
        ),
        (Ok(DriverKind::Epoll), None) => Finding::fine("io_uring", "not wanted: epoll is"),
        (Ok(DriverKind::IoUring), _) => Finding::fine("io_uring", format!("works ({switch})")),
        (Err(error), _) => Finding::problem("io_uring", error.to_string()),
    }
}

fn seccomp(found: &Inspection, survey: &Survey) -> Finding {
    let lets_through = matches!(survey.ring, RingTrial::Works { .. });
    let text = match (found.seccomp, lets_through) {
        (Some(0), _) => "no filter of system calls",
        (Some(_), true) => "a filter of system calls is on, and lets io_uring through",
        (Some(_), false) => "a filter of system calls is on, and io_uring does not work",
        (None, _) => "the kernel does not say whether system calls are filtered",
    };
    Finding::fine("seccomp", text)
}

fn locked_memory(survey: &Survey) -> Finding {
    match survey.locked_bytes_max {
        None => Finding::fine("locked memory", "not limited for this process"),
        Some(bytes) => Finding::fine("locked memory", format!("at most {} MiB", bytes / MIB)),
    }
}

fn files(found: &Inspection, survey: &Survey) -> Finding {
    let number = |limit: Option<u64>| limit.map_or("any number".to_owned(), |n| n.to_string());
    let text = format!(
        "{} now, {} when serve has raised that; the hard limit can be raised to {} (fs.nr_open), \
         all processes together have {} (fs.file-max)",
        number(found.files_soft),
        number(found.files_hard),
        number(found.nr_open),
        number(found.file_max)
    );
    if survey.files_max >= u64::from(limits::CONNECTIONS_DEFAULT) {
        return Finding::fine("open files", text);
    }
    let remedy = "LimitNOFILE=1048576 in systemd, --ulimit nofile=1048576 in docker, ulimit -n: \
                  fewer rings, or more connections where sockets are ordinary descriptors";
    Finding::note("open files", text, remedy)
}

/// How many connections there can be in every way, and whether that is enough.
fn connections(survey: &Survey, wanted: Wanted) -> Finding {
    let most = |driver, descriptors| {
        let survey = Survey {
            driver_wanted: Some(driver),
            descriptors_wanted: Some(descriptors),
            ..survey.clone()
        };
        let plan = survey.plan(Wanted::UpTo(limits::CONNECTIONS_LIMIT));
        plan.map_or("none".to_owned(), |plan| plan.connections_max.to_string())
    };
    let direct = match survey.kernel >= Some(DIRECT_SINCE) {
        true => most(DriverKind::IoUring, Descriptors::Direct),
        false => "none (kernel)".to_owned(),
    };
    let text = format!(
        "at most: io_uring with direct descriptors {direct}, with ordinary ones {}; epoll {}",
        most(DriverKind::IoUring, Descriptors::Ordinary),
        most(DriverKind::Epoll, Descriptors::Ordinary)
    );
    match (survey.plan(wanted), wanted) {
        // Said by the finding about io_uring.
        (Err(_), _) if survey.driver().is_err() => Finding::fine("connections", text),
        (Err(error), _) => Finding::problem("connections", error.to_string()),
        (Ok(plan), Wanted::UpTo(count)) if plan.connections_max < count => {
            Finding::note("connections", text, format!("the default of {count} is lowered to that"))
        }
        (Ok(_), _) => Finding::fine("connections", text),
    }
}

fn epoll_watches(found: &Inspection, survey: &Survey) -> Option<Finding> {
    let plan = survey.plan(Wanted::UpTo(limits::CONNECTIONS_DEFAULT)).ok()?;
    let watches = found.epoll_watches_max.filter(|_| plan.driver == DriverKind::Epoll)?;
    Some(if watches < plan.sockets_max().into() {
        let text = format!("{watches} sockets can be listened to (fs.epoll.max_user_watches)");
        let remedy = format!("sysctl -w fs.epoll.max_user_watches={}", plan.sockets_max());
        Finding::note("epoll", text, remedy)
    } else {
        Finding::fine("epoll", format!("{watches} sockets can be listened to"))
    })
}

fn queues(found: &Inspection) -> Finding {
    let number = |limit: Option<u64>| limit.map_or("unknown".to_owned(), |n| n.to_string());
    let text = format!(
        "{} may wait to be accepted (net.core.somaxconn), {} while they connect \
         (tcp_max_syn_backlog)",
        number(found.somaxconn),
        number(found.syn_backlog)
    );
    let enough = u64::from(limits::BACKLOG_MAX.unsigned_abs());
    if found.somaxconn.is_some_and(|limit| limit < enough) {
        let remedy = format!(
            "for storms of reconnects: sysctl -w net.core.somaxconn={enough}, or {SYSCTL_FILES}"
        );
        return Finding::note("newcomers", text, remedy);
    }
    Finding::fine("newcomers", text)
}

fn ports(found: &Inspection) -> Finding {
    let Some((first, last)) = found.local_ports else {
        return Finding::fine("local ports", "the kernel does not say which it gives out");
    };
    let count = (last + 1).saturating_sub(first);
    let sockets = found.tcp_sockets.map_or(String::new(), |n| format!("; {n} TCP sockets in use"));
    let text = format!("{first} to {last}: {count} for the load bench, from each address{sockets}");
    if count < PORTS_FEW {
        let remedy = "for the load bench: sysctl -w net.ipv4.ip_local_port_range='1024 65535'";
        return Finding::note("local ports", text, remedy);
    }
    Finding::fine("local ports", text)
}

fn memory(found: &Inspection) -> Finding {
    let mib = |bytes: Option<u64>| {
        bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes / MIB))
    };
    let possible = found.memory_available_bytes.map_or(String::new(), |bytes| {
        format!(", enough for {} connections", bytes / CONNECTION_BYTES)
    });
    Finding::fine("memory", format!("{} can be had{possible}", mib(found.memory_available_bytes),))
}

/// Beyond this TCP drops what it has received, of everybody.
fn tcp_memory(found: &Inspection) -> Finding {
    let Some(most) = found.tcp_bytes_max else {
        return Finding::fine("TCP memory", "the kernel does not say how much it may be");
    };
    let used = found.tcp_bytes.unwrap_or_default();
    let text = format!("buffers take {} MiB of {} MiB (net.ipv4.tcp_mem)", used / MIB, most / MIB);
    if used >= most / 2 {
        let remedy = format!("more than half is taken: raise it, see {SYSCTL_FILES}");
        return Finding::note("TCP memory", text, remedy);
    }
    Finding::fine("TCP memory", text)
}

fn conntrack(found: &Inspection) -> Finding {
    let Some(connections) = found.conntrack_max else {
        return Finding::fine("conntrack", "not there: no table of connections to overflow");
    };
    let now = found.conntrack_count.map_or(String::new(), |count| format!(", {count} now"));
    let text = format!("at most {connections} connections (net.netfilter.nf_conntrack_max){now}");
    if connections < u64::from(limits::CONNECTIONS_DEFAULT) {
        let remedy = format!(
            "more would be dropped without a word: raise it, or exempt the port (notrack in \
             nftables), see {SYSCTL_FILES}"
        );
        return Finding::note("conntrack", text, remedy);
    }
    Finding::fine("conntrack", text)
}

fn keepalive(found: &Inspection) -> Finding {
    let number = |value: Option<u64>| value.map_or("unknown".to_owned(), |n| n.to_string());
    Finding::fine(
        "TCP keep-alive",
        format!(
            "by itself after {} s, every {} s, {} times; serve sets its own",
            number(found.keepalive_secs),
            number(found.keepalive_interval_secs),
            number(found.keepalive_probes)
        ),
    )
}

fn try_port(address: SocketAddr) -> Finding {
    match socket::listen(address, &ListenOptions::default()) {
        Ok(listener) => Finding::fine("listen", format!("{} is free", listener.local_address())),
        Err(error) => Finding::problem("listen", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::machine::KernelVersion;

    /// A machine as it should be.
    fn good() -> (Inspection, Survey) {
        let found = Inspection {
            release: "6.18.1".to_owned(),
            seccomp: Some(0),
            files_soft: Some(1_024),
            files_hard: Some(1_048_576),
            somaxconn: Some(4_096),
            local_ports: Some((32_768, 60_999)),
            ..Inspection::default()
        };
        let survey = Survey {
            kernel: KernelVersion::from_release("6.18.1"),
            ring: RingTrial::Works { missing: Vec::new() },
            io_uring_disabled: Some(0),
            files_max: 1_048_576,
            locked_bytes_max: None,
            cpus: 2,
            descriptors_wanted: None,
            driver_wanted: None,
            shards: 1,
        };
        (found, survey)
    }

    #[test]
    fn memory_of_tcp_that_runs_short_is_worth_a_note() {
        for (used_mib, level) in [(0, Level::Fine), (499, Level::Fine), (500, Level::Note)] {
            let (found, survey) = good();
            let found = Inspection {
                tcp_bytes: Some(used_mib * MIB),
                tcp_bytes_max: Some(1_000 * MIB),
                tcp_sockets: Some(77),
                conntrack_max: Some(2_000_000),
                conntrack_count: Some(5),
                ..found
            };
            let findings = examine(&found, &survey, by_default());
            let of = |name| findings.iter().find(|one| one.name == name).expect("it is said");
            assert_eq!(of("TCP memory").level, level, "{used_mib} of 1000 MiB");
            assert!(of("local ports").text.contains("77 TCP sockets in use"));
            assert!(of("conntrack").text.ends_with(", 5 now"));
        }
    }

    fn forbidden() -> RingTrial {
        const EPERM: i32 = 1;
        RingTrial::Refused { errno: EPERM }
    }

    fn by_default() -> Wanted {
        Wanted::UpTo(limits::CONNECTIONS_DEFAULT)
    }

    #[test]
    fn a_machine_as_it_should_be_has_nothing_to_mend() {
        let (found, survey) = good();
        let findings = examine(&found, &survey, by_default());
        let levels: Vec<_> = findings.iter().map(|finding| finding.level).collect();
        assert!(levels.iter().all(|level| *level == Level::Fine), "{findings:#?}");
        let text = to_text(&findings, survey.plan(by_default()).ok());
        assert!(text.ends_with("with io_uring and up to 1000000 connections\n"), "{text}");
    }

    #[test]
    fn each_thing_that_could_be_better_is_named_with_its_remedy() {
        let (found, survey) = good();
        let feature = crate::os::inspect::RingFeature {
            name: "sleeps that gather",
            is_there: false,
            since: "6.12",
        };
        let old = KernelVersion::from_release("6.1.0");
        let (as_found, as_surveyed) = (|| found.clone(), || survey.clone());
        for (name, found, survey, words) in [
            ("kernel", as_found(), Survey { kernel: old, ..as_surveyed() }, "from 6.13 on"),
            ("io_uring", as_found(), Survey { ring: forbidden(), ..as_surveyed() }, "seccomp"),
            (
                "io_uring feature",
                Inspection { ring: vec![feature], ..as_found() },
                as_surveyed(),
                "kernel 6.12",
            ),
            ("open files", as_found(), Survey { files_max: 9_000, ..as_surveyed() }, "ulimit -n"),
            (
                "connections",
                as_found(),
                Survey { files_max: 9_000, ring: forbidden(), ..as_surveyed() },
                "lowered to that",
            ),
            (
                "epoll",
                Inspection { epoll_watches_max: Some(5_000), ..as_found() },
                Survey { ring: forbidden(), ..as_surveyed() },
                "fs.epoll.max_user_watches=",
            ),
            ("newcomers", Inspection { somaxconn: Some(128), ..as_found() }, as_surveyed(), "4096"),
            (
                "local ports",
                Inspection { local_ports: Some((60_000, 60_999)), ..as_found() },
                as_surveyed(),
                "ip_local_port_range",
            ),
            (
                "conntrack",
                Inspection { conntrack_max: Some(65_536), ..as_found() },
                as_surveyed(),
                "notrack",
            ),
        ] {
            let findings = examine(&found, &survey, by_default());
            let notes: Vec<_> =
                findings.iter().filter(|finding| finding.level == Level::Note).collect();
            let note = notes.iter().find(|finding| finding.name == name);
            let remedy = note.and_then(|finding| finding.remedy.as_deref()).unwrap_or_default();
            assert!(remedy.contains(words), "{name}: {findings:#?}");
            assert!(findings.iter().all(|finding| finding.level != Level::Problem), "{name}");
        }
    }

    #[test]
    fn what_keeps_serve_from_starting_is_a_problem() {
        let (found, survey) = good();
        let insisting = Survey {
            driver_wanted: Some(DriverKind::IoUring),
            ring: forbidden(),
            ..survey.clone()
        };
        let few = Survey { files_max: 1_000, driver_wanted: Some(DriverKind::Epoll), ..survey };
        for (name, survey, wanted, words) in [
            ("io_uring", insisting, by_default(), "seccomp"),
            ("connections", few, Wanted::Exactly(5_000), "5000 connections are more"),
        ] {
            let findings = examine(&found, &survey, wanted);
            let problems: Vec<_> =
                findings.iter().filter(|finding| finding.level == Level::Problem).collect();
            assert_eq!(problems.len(), 1, "{findings:#?}");
            assert_eq!(problems[0].name, name);
            assert!(problems[0].text.contains(words), "{}", problems[0].text);
            let plan = survey.plan(wanted).ok();
            assert!(!to_text(&findings, plan).contains("serve works"));
            let json: Value = serde_json::from_str(&to_json(&findings, plan)).expect("JSON");
            assert_eq!((&json["ok"], &json["driver"]), (&json!(false), &Value::Null));
        }
    }

    #[test]
    fn a_port_is_tried() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(try_port(any).level, Level::Fine);
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 7_070));
        assert_eq!(try_port(elsewhere).level, Level::Problem);
    }
}
