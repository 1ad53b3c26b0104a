//! `heartwheel top` against a running gateway: one frame as text, and in a real terminal, which
//! tmux plays.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::gate::{Caller, Gate};
use crate::http::{start, token_file};

/// Nobody dies of a slow machine by this one.
const CALM: [&str; 4] = ["--interval", "1min", "--timeout", "10min"];
const PATIENCE: Duration = Duration::from_secs(60);

fn top(admin: SocketAddr, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["top", "--admin", &admin.to_string()])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn said(admin: SocketAddr, words: &[&str]) -> String {
    let output = top(admin, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn refused(admin: SocketAddr, words: &[&str], code: i32) -> String {
    let output = top(admin, words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    let line = String::from_utf8(output.stderr).expect("text");
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

/// Asks until what is said is so: the gateway's samples come once a second.
fn until(mut look: impl FnMut() -> Option<String>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it is not said");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_frame_is_text_or_json_and_nothing_in_it_steers_a_terminal() {
    let (gate, admin) = start(&[&["--node", "north", "--shards", "2"], &CALM[..]].concat());
    let _anna = Caller::login(gate.address, "anna");
    let _evil = Caller::login(gate.address, "x\u{202e}y");
    drop(Caller::login(gate.address, "gone"));
    let text = until(|| {
        let text = said(admin, &["--once"]);
        (text.contains("2 online") && text.contains("closed_by_peer ")).then_some(text)
    });
    for part in ["heartwheel north", "2 shards", "anna", "x\\u{202e}y", "offline   gone", "live"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    let filtered = said(admin, &["--once", "--filter", "ann"]);
    assert!(filtered.contains("anna") && !filtered.contains("gone"), "{filtered}");

    let json = said(admin, &["--once", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("one object");
    assert_eq!((&json["node"], &json["online"]), (&"north".into(), &2.into()));
    assert_eq!(json["went"]["closed_by_peer"]["known"], 1);
    assert_eq!(json["clients"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["events"][0]["event"], "offline");
    assert!(json["beats_per_s"].is_number());
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let (mut gate, admin) = start(&[]);
    assert!(refused(admin, &[], 2).contains("without one, use --once"));
    assert!(refused(admin, &["--json"], 2).contains("--once"));
    gate.signal("KILL");
    gate.wait();
    assert!(refused(admin, &["--once"], 1).contains("no admin API at"));
}

#[test]
fn a_token_is_read_from_a_file() {
    let (_folder, file) = token_file();
    let (_gate, admin) = start(&["--admin-token-file", &file]);
    assert!(refused(admin, &["--once"], 1).contains("(401)"));
    assert!(said(admin, &["--once", "--token-file", &file]).contains(" online "));
}

/// A terminal of 110 by 40.
struct Screen {
    folder: TempDir,
}

impl Screen {
    /// Runs `top` in it, and then a shell that says how it ended.
    fn start(admin: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a socket");
        let screen = Self { folder };
        let program = env!("CARGO_BIN_EXE_heartwheel");
        let line = format!("'{program}' top --admin {admin}; echo \"ended $?\"; exec sleep 600");
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "40", &line]);
        screen
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(words)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .expect("tmux is installed: it plays the terminal of heartwheel top");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn until(&self, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.tmux(&["capture-pane", "-p"]);
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "the screen says\n{seen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_says(&self, text: &str) -> String {
        self.until(|seen| seen.contains(text))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let socket = self.folder.path().join("socket");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

#[test]
fn a_terminal_shows_what_happens_and_obeys_its_keys() {
    let (gate, admin) = start(&CALM);
    let mut anna = Caller::login(gate.address, "anna");
    let _bert = Caller::login(gate.address, "bert");
    let screen = Screen::start(admin);
    screen.until_says("2 online");
    anna.beat();
    drop(anna);
    screen.until_says("offline   anna  closed_by_peer");
    screen.until_says("1 online");

    screen.keys(&["/"]);
    screen.until_says("filter:");
    screen.keys(&["b", "e", "q", "BSpace", "Enter"]);
    screen.until(|seen| seen.contains("with \"be\"") && !seen.contains("anna"));
    screen.keys(&["/", "Escape"]);
    screen.until_says("anna");
    for order in ["outbox", "silence", "newest"] {
        screen.keys(&["s"]);
        screen.until_says(&format!("clients by {order}"));
    }
    screen.keys(&["p"]);
    screen.until_says("paused");
    let _cora = Caller::login(gate.address, "cora");
    std::iter::from_fn(|| Some(gate.wait_for_event("online"))).find(|one| one["client"] == "cora");
    screen.keys(&["p"]);
    screen.until_says("online    cora");
    screen.tmux(&["resize-window", "-x", "60", "-y", "12"]);
    screen.until(|seen| seen.lines().count() <= 12 && seen.contains("2 online"));
    screen.tmux(&["resize-window", "-x", "110", "-y", "40"]);
    screen.until_says("beats/s,");
    screen.keys(&["q"]);
    let seen = screen.until_says("ended 0");
    assert!(!seen.contains("cora"), "the screen from before is there again:\n{seen}");
}

#[test]
fn a_restart_of_the_gateway_is_outlived_and_a_signal_gives_the_terminal_back() {
    let (mut gate, admin) = start(&[]);
    let screen = Screen::start(admin);
    screen.until_says("live");
    gate.signal("KILL");
    gate.wait();
    screen.until_says("LOST: ");
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpListener::bind(admin).is_err() {
        assert!(Instant::now() < deadline, "the port stays taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    let again = Gate::start(&[&["--admin", &admin.to_string()], &CALM[..]].concat());
    let _dora = Caller::login(again.address, "dora");
    screen.until(|seen| seen.contains("live") && seen.contains("online    dora"));
    let shell = screen.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let child = Command::new("pgrep").args(["-P", shell.trim()]).output().expect("pgrep runs");
    let child = String::from_utf8_lossy(&child.stdout).trim().to_owned();
    assert!(Command::new("kill").args(["-s", "TERM", &child]).status().expect("it runs").success());
    screen.until_says("ended 0");
    let modes = screen.tmux(&["display-message", "-p", "#{alternate_on}"]);
    assert_eq!(modes.trim(), "0", "the screen was given back");
}
