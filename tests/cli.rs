//! The built program as a person meets it: what it prints, where, and with which exit code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const EXIT_FAILURE: i32 = 1;
const EXIT_USAGE: i32 = 2;

/// Runs the program with `words`, separated by spaces, and no variables of its own.
fn heartwheel(words: &str) -> Output {
    command(words).output().expect("the program is built")
}

fn command(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.args(words.split_whitespace()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTWHEEL_") {
            command.env_remove(name);
        }
    }
    command
}

/// The page that the program prints when all is well.
fn page(words: &str) -> String {
    let output = heartwheel(words);
    assert!(output.status.success(), "{words}: {output:?}");
    assert!(output.stderr.is_empty(), "{words}: {output:?}");
    String::from_utf8(output.stdout).expect("a page is text")
}

/// The one line on standard error with which the program refuses.
fn refusal(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {text:?}"));
    assert!(!line.contains('\n'), "more than one line: {text}");
    line.strip_prefix("heartwheel: ").unwrap_or_else(|| panic!("nobody speaks: {line}")).to_owned()
}

fn assert_contains(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[test]
fn help_is_a_page_with_examples() {
    for (words, parts) in [
        ("--help", &["serve", "demo", "load", "completions", "Examples:", "Exit codes:"][..]),
        ("serve --help", &["--grace", "--class", "[class.lock]", "--transport-events", "SIGUSR1"]),
        ("serve --help", &["--listen", "127.0.0.1:7070", "--preset", "Examples:", "HEARTWHEEL_"]),
        ("demo --help", &["--clients", "falls silent", "quit"]),
        ("serve --help", &["--admin", "127.0.0.1:7071", "--admin-token-file"]),
        ("ctl --help", &["clients", "kick", "rhythm", "--json", "--token-file", "Examples:"]),
        ("events --help", &["--journal", "--after", "BOOT:SEQ", "--snapshot", "Examples:"]),
        ("load --help", &["--target", "--silent", "--slow-readers", "--json", "Examples:"]),
    ] {
        let page = page(words);
        assert_contains(&page, parts);
        let widest = page.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{words} has a line of {widest:?} characters");
    }
}

#[test]
fn version_is_one_line() {
    assert_eq!(page("--version"), format!("heartwheel {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_typed_wrong_is_refused_in_one_line() {
    for (name, words, parts) in [
        ("nothing", "", &["no command given", "--help"][..]),
        ("unknown command", "sevre", &["'sevre'", "'serve'"]),
        ("unknown flag", "serve --intervall 5s", &["'--intervall'", "'--interval'"]),
        ("flag without a value", "serve --interval", &["'--interval <D>'", "value is required"]),
        ("flag twice", "serve --tick 1ms --tick 2ms", &["--tick", "multiple times"]),
        ("extra word", "serve now", &["'now'"]),
        ("bad length of time", "serve --interval soon", &["'soon'", "such as 250ms, 15s or 4min"]),
        ("no unit", "serve --interval 15 --timeout 35", &["'15'", "15s"]),
        ("bad number", "serve --max-connections many", &["'many'", "--max-connections"]),
        ("negative number", "serve --max-connections=-1", &["'-1'"]),
        ("bad preset", "serve --preset fast", &["'fast'", "typical, demanding, mobile"]),
        ("bad mode", "serve --mode both", &["'both'", "client, server, either"]),
        ("bad probe", "serve --probe maybe", &["'maybe'", "auto, off or a length of time"]),
        ("bad duplicate", "serve --duplicate both", &["'both'", "take-over, reject"]),
        ("class without keys", "serve --class lock", &["'lock'", "such as lock:interval=15s"]),
        ("unknown key", "serve --class lock:graze=1s", &["'graze'", "did you mean 'grace'?"]),
        ("bad value", "serve --class lock:grace=soon", &["'lock:grace=soon'", "15s or 4min"]),
        ("bad address", "serve --listen 127.0.0.1", &["'127.0.0.1'", "such as 127.0.0.1:7070"]),
        ("bad window", "serve --reconnect-window 9s..1s", &["shorter first"]),
        ("demo without clients", "demo --clients 0", &["0", "--clients"]),
        ("load without target", "load --clients 1 --interval 1s --for 9s", &["--target"]),
        ("unknown shell", "completions cmd", &["'cmd'", "bash"]),
        ("page of nothing", "man dance", &["'dance'"]),
    ] {
        eprintln!("row: {name}");
        assert_contains(&refusal(&heartwheel(words), EXIT_USAGE), parts);
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_with_what_was_expected() {
    for (name, words, parts) in [
        (
            "timeout within interval",
            "serve --interval 5s --timeout 5s",
            &["timeout 5s must be longer than interval 5s"][..],
        ),
        ("interval alone", "serve --interval 5s", &["interval 5s", "timeout"]),
        ("interval too short", "serve --interval 1ms --timeout 9s", &["1ms", "50ms to 3600s"]),
        (
            "preset and interval",
            "serve --preset mobile --interval 5s",
            &["--preset", "cannot be used with", "--interval"],
        ),
        ("tick too long", "serve --tick 5s", &["tick 5s is out of bounds", "1ms to 1s"]),
        (
            "probe too long",
            "serve --interval 5s --timeout 12s --probe 4s",
            &["probe 4s is out of bounds", "10ms to 3500ms", "interval 5s and timeout 12s"],
        ),
        ("grace too long", "serve --grace 2h", &["grace 7200s is out of bounds", "0s to 3600s"]),
        (
            "rhythm of a class",
            "serve --class lock:interval=40s",
            &["class lock: timeout 35s must be longer than interval 40s"],
        ),
        (
            "two feeds in one place",
            "serve --events - --transport-events -",
            &["events and transport-events both go to standard output"],
        ),
        ("no connections", "serve --max-connections 0", &["max-connections 0", "1 to "]),
        ("payload", "serve --max-payload 70000", &["max-payload 70000", "512 to 65535"]),
        ("outbox", "serve --outbox-bytes 1", &["outbox-bytes 1 ", "16408 to "]),
        ("half a second", "serve --keepalive-idle 1500ms", &["keepalive-idle 1500ms", "whole"]),
        ("contradiction", "serve --keepalive off --keepalive-count 3", &["keepalive is off"]),
    ] {
        eprintln!("row: {name}");
        assert_contains(&refusal(&heartwheel(words), EXIT_USAGE), parts);
    }
}

#[test]
fn a_wrong_file_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().expect("there is room for a file");
    let path = directory.path().join("heartwheel.toml");
    for (name, text, line, parts) in [
        (
            "unknown key",
            "tick = \"10ms\"\nintervall = \"5s\"\n",
            2,
            &["unknown key 'intervall'", "did you mean 'interval'?"][..],
        ),
        ("wrong type", "\n\ninterval = 15\n", 3, &["interval is a whole number", "in quotes"]),
        ("text for a number", "max-connections = \"9\"", 1, &["max-connections is a text"]),
        ("bad value", "tick = \"soon\"", 1, &["'soon' for tick", "such as 250ms"]),
        ("bad choice", "mode = \"both\"", 1, &["'both' for mode", "client, server, either"]),
        (
            "unknown key of a class",
            "[class.lock]\nduplikate = \"reject\"\n",
            2,
            &["unknown key 'duplikate' in class lock", "did you mean 'duplicate'?"],
        ),
        ("bad value of a class", "[class.lock]\ngrace = \"soon\"\n", 2, &["'lock:grace=soon'"]),
        ("no TOML", "tick: 10ms\n", 1, &[]),
    ] {
        eprintln!("row: {name}");
        fs::write(&path, text).expect("there is room for a file");
        let output = heartwheel(&format!("serve --config {}", path.display()));
        let refused = refusal(&output, EXIT_USAGE);
        let place = format!("{}:{line}: ", path.display());
        assert!(refused.starts_with(&place), "{place} does not begin: {refused}");
        assert_contains(&refused, parts);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_failure() {
    for path in ["/nowhere/at/all.toml", "/"] {
        let refused = refusal(&heartwheel(&format!("serve --config {path}")), EXIT_FAILURE);
        assert!(refused.starts_with(&format!("cannot read {path}: ")), "{refused}");
    }
}

#[test]
fn a_file_of_events_that_cannot_be_written_is_a_failure() {
    for feed in ["events", "transport-events"] {
        let words = format!("serve --listen 127.0.0.1:0 --log-level off --{feed} /nowhere/events");
        let output = heartwheel(&words);
        assert_contains(&refusal(&output, EXIT_FAILURE), &["cannot write /nowhere/events: "]);
    }
}

#[test]
fn a_wrong_variable_is_refused_by_its_name() {
    let output = command("serve").env("HEARTWHEEL_INTERVAL", "soon").output();
    let refused = refusal(&output.expect("the program is built"), EXIT_USAGE);
    assert_contains(&refused, &["HEARTWHEEL_INTERVAL: ", "'soon' for interval"]);
}

#[test]
fn a_newline_in_what_is_typed_does_not_break_the_line() {
    let mut command = command("serve --listen");
    let output = command.arg("a\nb\u{1b}[2J").output().expect("the program is built");
    assert_contains(&refusal(&output, EXIT_USAGE), &["--listen"]);
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let output = command("serve --node").arg(odd).output().expect("the program is built");
    refusal(&output, EXIT_USAGE);
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = page(&format!("completions {shell}"));
        assert_contains(&script, &["heartwheel", "serve", "max-connections", "slow-readers"]);
    }
}

#[test]
fn bash_accepts_its_completions() {
    let directory = tempfile::tempdir().expect("there is room for a file");
    let path = directory.path().join("heartwheel.bash");
    fs::write(&path, page("completions bash")).expect("there is room for a file");
    let Ok(output) = Command::new("bash").arg("-n").arg(&path).output() else {
        eprintln!("no bash on this machine");
        return;
    };
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn there_is_a_man_page_of_the_program_and_of_each_command() {
    for (words, parts) in [
        ("man", &[".TH heartwheel 1", ".SH NAME", "serve", "demo", "load", "Examples:"][..]),
        ("man serve", &[".TH heartwheel", "\\-\\-listen", "\\-\\-drain\\-timeout"]),
        ("man demo", &["\\-\\-clients"]),
        ("man load", &["\\-\\-target", "\\-\\-slow\\-readers"]),
    ] {
        assert_contains(&page(words), parts);
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_failure() {
    let mut child = command("completions bash")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is built");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_full_standard_output_is_a_failure() {
    if !Path::new("/dev/full").exists() {
        eprintln!("no /dev/full on this machine");
        return;
    }
    let full = fs::File::options().write(true).open("/dev/full").expect("the device opens");
    let output = command("completions bash").stdout(full).output().expect("the program is built");
    assert_contains(&refusal(&output, EXIT_FAILURE), &["cannot write to standard output"]);
}

/// What `check-config` says on standard error, a line for each mistake.
fn mistakes(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(EXIT_USAGE), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text.lines().map(|line| {
        line.strip_prefix("heartwheel: ").unwrap_or_else(|| panic!("nobody speaks: {line}"))
    });
    lines.map(str::to_owned).collect()
}

#[test]
fn a_check_says_what_is_in_effect_and_where_that_was_said() {
    let folder = tempfile::tempdir().expect("room for a file");
    let file = folder.path().join("h.toml");
    fs::write(&file, "preset = \"mobile\"\n\n[class.lock]\ngrace = \"9s\"\n").expect("room");
    let path = file.display().to_string();
    let output = command(&format!("check-config --config {path} --coalesce 1ms"))
        .env("HEARTWHEEL_DRAIN_TIMEOUT", "7s")
        .output()
        .expect("the program is built");
    assert!(output.status.success(), "{output:?}");
    let page = String::from_utf8(output.stdout).expect("text");
    for (key, value, from) in [
        ("interval", "240s", format!("preset, {path}:1")),
        ("drain-timeout", "7s", "HEARTWHEEL_DRAIN_TIMEOUT".to_owned()),
        ("coalesce", "1ms", "--coalesce".to_owned()),
        ("class.lock.grace", "9s", format!("{path}:4")),
        ("listen", "127.0.0.1:7070", "default".to_owned()),
    ] {
        let line = page.lines().find(|line| line.split_whitespace().next() == Some(key));
        let line = line.unwrap_or_else(|| panic!("no {key} in {page}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[1], words[2..].join(" ")), (value, from), "{key}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&self::page(&format!("check-config --config {path} --json")))
            .expect("JSON");
    assert_eq!(json["ok"], true);
    let grace = json["values"].as_array().expect("values").iter();
    let grace =
        grace.clone().find(|value| value["key"] == "class.lock.grace").expect("it is there");
    assert_eq!(grace["from"], format!("{path}:4"));
    assert_eq!(grace["on_change"], "reload");
}

#[test]
fn a_check_finds_every_mistake_at_once_and_touches_nothing() {
    let folder = tempfile::tempdir().expect("room for a file");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("token"), "short\n").expect("room");
    let text = format!(
        "tick = \"2s\"\ngraze = \"1s\"\nadmin-token-file = {:?}\nevents = {:?}\njournal = {:?}\n",
        at("token"),
        at("nowhere/events.jsonl"),
        at("token"),
    );
    fs::write(at("h.toml"), text).expect("room");
    let path = at("h.toml").display().to_string();
    let words = format!("check-config --config {path} --shards 0 --node=");
    let lines = mistakes(&heartwheel(&words));
    for part in [
        "--shards",
        "h.toml:2: unknown key 'graze'",
        "h.toml:1: tick 2s is out of bounds",
        "admin-token-file: ",
        "events: cannot write ",
        "journal: cannot keep it in ",
        "node '' is not a name",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
    let json = heartwheel(&format!("{words} --json"));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(
        (json["ok"].as_bool(), json["errors"].as_array().map(Vec::len)),
        (Some(false), Some(7))
    );
    let serve = heartwheel(&format!("serve --config {path} --node="));
    let lines = mistakes(&serve);
    assert!(lines.iter().any(|line| line.contains("graze")), "serve reads alike: {lines:#?}");

    let fine = at("fine.toml");
    let text = format!("events = {:?}\njournal = {:?}\n", at("e.jsonl"), at("j/k"));
    fs::write(&fine, text).expect("room");
    page(&format!("check-config --config {}", fine.display()));
    assert!(!at("e.jsonl").exists() && !at("j").exists(), "it was only looked at");
}

#[test]
fn the_example_file_is_printed_and_can_be_checked() {
    let folder = tempfile::tempdir().expect("room for a file");
    let file = folder.path().join("h.toml");
    fs::write(&file, page("check-config --example")).expect("room");
    page(&format!("check-config --config {}", file.display()));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/heartwheel.toml");
    page(&format!("check-config --config {}", shipped.display()));
}
