//! The built binary under a service manager: what it hears, and when it hears nothing.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::gate::{Caller, Gate, Heard, PATIENCE};

/// A service manager: a socket that is told how a gateway is.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        Self { socket, folder }
    }

    /// Starts a gateway that it watches over. Half of the patience is 2 s.
    fn start(&self, arguments: &[&str]) -> Gate {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
        command.arg("serve").env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.env("WATCHDOG_USEC", "4000000");
        Gate::start_by(command, arguments)
    }

    fn next(&self, patience: Duration) -> Option<String> {
        let patience = patience.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(patience)).expect("not zero");
        let mut buffer = [0; 4_096];
        let count = loop {
            match self.socket.recv(&mut buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                // A read with a time limit is not taken up again by the kernel.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        };
        Some(String::from_utf8(buffer[..count].to_vec()).expect("text"))
    }

    /// The next message with a line that begins so, and when it came.
    fn wait_for(&self, head: &str) -> (String, Instant) {
        let until = Instant::now() + PATIENCE;
        while let Some(told) = self.next(until.saturating_duration_since(Instant::now())) {
            if told.lines().any(|line| line.starts_with(head)) {
                return (told, Instant::now());
            }
        }
        panic!("{head} was not told");
    }

    /// Whether a sign of life comes within `patience`.
    fn hears_life(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.next(left) {
                Some(told) if told.lines().any(|line| line == "WATCHDOG=1") => return true,
                Some(_) if !left.is_zero() => {}
                Some(_) | None => return false,
            }
        }
    }
}

#[test]
fn it_is_told_when_clients_can_come_and_that_it_ends() {
    let manager = Manager::new();
    let mut gate = manager.start(&["--drain-timeout", "30s"]);
    let (ready, _) = manager.wait_for("READY=1");
    let status = ready.lines().nth(1).expect("a status");
    assert_eq!(status.split(" (").next(), Some(&*format!("STATUS=listening on {}", gate.address)));
    let mut anna = Caller::login(gate.address, "anna");
    let (status, _) = manager.wait_for("STATUS=1 online");
    assert!(!status.contains("STOPPING=1"), "{status}");
    gate.signal("TERM");
    let (stopping, _) = manager.wait_for("STOPPING=1");
    assert!(stopping.contains("STATUS=draining") && stopping.contains("EXTEND_TIMEOUT_USEC="));
    assert!(matches!(anna.hear(), Heard::Goaway { .. }));
    drop(anna);
    assert!(gate.wait().success());
}

#[test]
fn it_is_told_of_a_reload_and_what_holds_behind_it() {
    let manager = Manager::new();
    let file = manager.folder.path().join("heartwheel.toml");
    std::fs::write(&file, "preset = \"typical\"\n").expect("room for a file");
    let gate = manager.start(&["--config", file.to_str().expect("text")]);
    manager.wait_for("READY=1");
    for (text, beat) in
        [("preset = \"demanding\"\n", "a beat every 2s"), ("tick = 5\n", "a beat every 2s")]
    {
        std::fs::write(&file, text).expect("room for a file");
        gate.signal("HUP");
        let (reloading, _) = manager.wait_for("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        let (ready, _) = manager.wait_for("READY=1");
        assert!(ready.contains(beat), "{ready}");
    }
}

#[test]
fn signs_of_life_come_while_it_turns_and_not_while_it_stands_still() {
    for shards in ["1", "2"] {
        let manager = Manager::new();
        let gate = manager.start(&["--shards", shards]);
        for _ in 0..3 {
            manager.wait_for("WATCHDOG=1");
        }
        gate.signal("STOP");
        // What was sent before is read off.
        while manager.next(Duration::from_millis(200)).is_some() {}
        assert!(!manager.hears_life(Duration::from_secs(6)), "the process stands still");
        gate.signal("CONT");
        manager.wait_for("WATCHDOG=1");
    }
}

/// A loop that hangs beside threads that live: its thread alone is stopped, as by a bug in it.
#[test]
fn a_loop_that_hangs_beside_a_living_side_thread_is_silent() {
    if !crate::has("python3", "python3") {
        return;
    }
    for shards in ["1", "2"] {
        let manager = Manager::new();
        let gate = manager.start(&["--shards", shards, "--admin", "127.0.0.1:0"]);
        manager.wait_for("WATCHDOG=1");
        // Of several loops one hangs: the main thread is the first loop.
        let mut tracer = Command::new("python3")
            .args(["-c", HOLD_THREAD, &gate.pid().to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut said = String::new();
        let stdout = tracer.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said)
            .expect("a line");
        assert_eq!(said.trim(), "held", "the thread can be held, as root or as its parent");
        // Its last report counts for as long as half of the patience.
        let until = Instant::now() + Duration::from_millis(2_500);
        while Instant::now() < until {
            manager.next(Duration::from_millis(100));
        }
        assert!(!manager.hears_life(Duration::from_secs(8)), "{shards} shards: one hangs");
        drop(tracer.stdin.take());
        assert!(tracer.wait().expect("our own child").success());
        manager.wait_for("WATCHDOG=1");
    }
}

/// Holds the main thread of a process by ptrace, and only that, until the input ends.
const HOLD_THREAD: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
pid = int(sys.argv[1])
if libc.ptrace(SEIZE, pid, None, None) != 0 or libc.ptrace(INTERRUPT, pid, None, None) != 0:
    print('not held:', os.strerror(ctypes.get_errno()), flush=True)
    sys.exit(1)
os.waitpid(pid, WALL)
print('held', flush=True)
sys.stdin.read()
libc.ptrace(DETACH, pid, None, None)
";

#[test]
fn whoever_has_no_manager_or_a_wrong_one_serves_all_the_same() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.arg("serve").env("NOTIFY_SOCKET", "/nowhere/at/all");
    let mut gate = Gate::start_by(command, &[]);
    let logs = gate.take_logs();
    assert!(logs.iter().any(|line| line.contains("NOTIFY_SOCKET")), "{logs:#?}");
    Caller::login(gate.address, "anna");
    gate.signal("TERM");
    assert!(gate.wait().success());
}
