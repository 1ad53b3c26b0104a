//! Sockets that listen already and are passed to the built binary.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::gate::{Caller, Gate};
use crate::has;

/// A parent that makes sockets, passes them from descriptor 3 on and becomes what is behind `--`.
const PARENT: &str = "
import os, socket, sys
kinds, names = sys.argv[1].split(','), sys.argv[2]
command = sys.argv[4:]
made = []
for kind in kinds:
    if kind == 'udp':
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(('127.0.0.1', 0))
    else:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.bind((kind, 0))
        if kind != '127.0.0.2':
            one.listen(128)
        one.setblocking(False)
    made.append(os.dup2(one.fileno(), 100 + len(made)))
for number, one in enumerate(made):
    os.dup2(one, 3 + number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(made)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
";

fn passing(kinds: &str, names: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", PARENT, kinds, names, "--", env!("CARGO_BIN_EXE_heartwheel"), "serve"]);
    command
}

#[test]
fn a_socket_that_was_passed_is_used_instead_of_the_address() {
    for driver in ["io_uring", "epoll"] {
        for names in ["clients", "heartwheel.socket", ""] {
            // The port of --listen is taken, which does not matter any more.
            let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let taken = taken.local_addr().expect("an address").to_string();
            let arguments = ["--listen", &taken, "--driver", driver, "--shards", "2"];
            let mut gate = Gate::start_by(passing("127.0.0.1", names), &arguments);
            assert_ne!(gate.address.to_string(), taken);
            for number in 0..8 {
                Caller::login(gate.address, &format!("client-{number}"));
            }
            gate.signal("TERM");
            assert!(gate.wait().success());
        }
    }
}

#[test]
fn both_sockets_can_be_passed_in_any_order() {
    for (names, order) in [("clients:admin", 0), ("admin:clients", 1), ("admin:", 1)] {
        let gate =
            Gate::start_by(passing("127.0.0.1,127.0.0.1", names), &["--admin", "127.0.0.1:0"]);
        let line = gate.logged.iter().find(|line| line.contains("admin API on ")).expect("it is");
        let admin = line.split("admin API on ").nth(1).expect("there").trim_end_matches(')');
        let admin: SocketAddr = admin.parse().expect("an address");
        assert_ne!(admin, gate.address, "{names} {order}");
        Caller::login(gate.address, "anna");
        let health = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["ctl", "stats", "--admin", &admin.to_string()])
            .output();
        assert!(health.expect("it runs").status.success(), "{names}");
    }
}

#[test]
fn what_nobody_can_connect_to_is_refused_with_one_line() {
    for (kinds, names, admin, line) in [
        ("udp", "clients", "off", "no listening TCP socket"),
        ("127.0.0.2", "clients", "off", "no listening TCP socket"),
        ("127.0.0.1,127.0.0.1", "clients:clients", "off", "one 'clients'"),
        ("127.0.0.1,127.0.0.1", "clients:other", "off", "one 'clients'"),
        ("127.0.0.1,127.0.0.1,127.0.0.1", "", "off", "LISTEN_FDS is '3'"),
        ("127.0.0.1,127.0.0.1", "clients:admin", "off", "admin is off"),
        ("127.0.0.1,0.0.0.0", "clients:admin", "127.0.0.1:0", "needs admin-token-file"),
    ] {
        let output = passing(kinds, names).args(["--admin", admin]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{kinds} {names}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("heartwheel: ") && last.contains(line), "{kinds} {names}: {said}");
    }
}

#[test]
fn systemds_own_tool_passes_its_socket() {
    if !has("systemd-socket-activate", "systemd") {
        return;
    }
    // A port that was free just now; somebody may take it, and then another is tried.
    let served = (0..5).any(|_| {
        let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = probe.local_addr().expect("an address");
        drop(probe);
        is_served(address)
    });
    assert!(served);
}

fn is_served(address: SocketAddr) -> bool {
    let mut child = Command::new("systemd-socket-activate")
        .args(["--listen", &address.to_string(), "--fdname=clients"])
        .args([env!("CARGO_BIN_EXE_heartwheel"), "serve", "--admin", "off"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let until = Instant::now() + Duration::from_secs(30);
    let mut served = false;
    // The first connection starts it, and waits in the backlog until it is served.
    while !served && Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
        if TcpStream::connect(address).is_ok() {
            Caller::login(address, "anna");
            served = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    served
}
