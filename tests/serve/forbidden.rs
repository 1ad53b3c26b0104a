//! Where io_uring is forbidden, as container engines have it by default.

use std::process::Command;

use serde_json::Value;

use crate::gate::{Caller, Gate, on_epoll};
use crate::{QUICK, notices_silence};

pub(crate) const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Becomes the binary under a seccomp filter that answers `errno` to io_uring_setup (425).
pub(crate) fn without_io_uring(errno: u32) -> Command {
    let filter = "import ctypes,struct,sys,os\n\
        libc=ctypes.CDLL(None,use_errno=True)\n\
        answer=0x50000+int(sys.argv[1])\n\
        steps=[(0x20,0,0,0),(0x15,0,1,425),(6,0,0,answer),(6,0,0,0x7fff0000)]\n\
        f=b''.join(struct.pack('HBBI',*step) for step in steps)\n\
        b=ctypes.create_string_buffer(f)\n\
        class P(ctypes.Structure): _fields_=[('n',ctypes.c_ushort),('p',ctypes.c_void_p)]\n\
        p=P(4,ctypes.addressof(b))\n\
        assert libc.prctl(38,1,0,0,0)==0 and libc.prctl(22,2,ctypes.byref(p),0,0)==0\n\
        os.execv(sys.argv[2],sys.argv[2:])";
    let mut command = Command::new("python3");
    command.args(["-c", filter, &errno.to_string(), env!("CARGO_BIN_EXE_heartwheel")]);
    command
}

#[test]
fn epoll_stands_in_with_one_line_that_says_why() {
    for (errno, reason) in [(EPERM, "seccomp"), (ENOSYS, "CONFIG_IO_URING")] {
        let mut command = without_io_uring(errno);
        command.arg("serve");
        let mut gate = Gate::start_by(command, &QUICK);
        gate.read_events();
        let warnings: Vec<_> = gate.logged.iter().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{:#?}", gate.logged);
        for word in ["epoll stands in", reason, "open files"] {
            assert!(warnings[0].contains(word), "{word} is not in {}", warnings[0]);
        }
        assert!(gate.logged.iter().any(|line| line.contains(": epoll")), "{:#?}", gate.logged);
        notices_silence(&gate);
        gate.signal("TERM");
        assert!(gate.wait().success());
    }
}

#[test]
fn a_choice_of_epoll_is_no_reason_to_warn() {
    on_epoll(|| {
        let mut gate = Gate::start(&[]);
        let _caller = Caller::login(gate.address, "anna");
        assert!(!gate.take_logs().iter().any(|line| line.contains("WARN")));
    });
}

#[test]
fn the_doctor_says_what_stands_in_the_way_and_whether_serve_would_start() {
    let taken = Gate::start(&[]);
    let (taken, free) = (taken.address.to_string(), "127.0.0.1:0");
    let healthy = || Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    for (name, mut command, listen, more, driver, words) in [
        ("all is well", healthy(), free, vec![], "io_uring", "works"),
        ("epoll is chosen", healthy(), free, vec!["--driver", "epoll"], "epoll", "not wanted"),
        ("a filter", without_io_uring(EPERM), free, vec![], "epoll", "seccomp"),
        ("no choice", without_io_uring(EPERM), free, vec!["--driver", "io_uring"], "", "seccomp"),
        ("the port is taken", healthy(), &taken, vec![], "", "already in use"),
        (
            "too many",
            healthy(),
            free,
            vec!["--driver", "epoll", "--max-connections", "4000000"],
            "",
            "4000000 connections are more than this machine allows",
        ),
    ] {
        command.args(["doctor", "--json", "--listen", listen]).args(more);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let page: Value = serde_json::from_str(&said).expect("one JSON object");
        let would_start = !driver.is_empty();
        assert_eq!(output.status.code(), Some(i32::from(!would_start)), "{name}: {said}");
        assert_eq!(page["ok"], would_start, "{name}: {said}");
        if would_start {
            assert_eq!(page["driver"], driver, "{name}: {said}");
            assert!(page["connections_max"].as_u64().is_some_and(|count| count > 0), "{said}");
        } else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(complaint.starts_with("heartwheel: serve would not start"), "{complaint}");
        }
        assert!(said.contains(words), "{name}: {words} is not in {said}");
    }
    let page = healthy().args(["doctor", "--listen", free]).output().expect("it runs").stdout;
    let page = String::from_utf8_lossy(&page);
    assert!(page.contains("serve works here, with io_uring and up to "), "{page}");
}

#[test]
fn the_load_bench_and_the_demo_go_on_without_io_uring() {
    let gate = Gate::start(&["--interval", "500ms", "--timeout", "2s"]);
    let target = gate.address.to_string();
    let load = ["load", "--target", &target, "--clients", "20", "--interval", "500ms"];
    let load = [load.as_slice(), &["--for", "6s", "--silent", "2"]].concat();
    let demo = ["demo", "--clients", "5", "--for", "1s"].to_vec();
    for (words, sign) in [(load, "detected"), (demo, "online")] {
        let run = |more: &[&str]| {
            let mut command = without_io_uring(EPERM);
            command.args(&words).args(more).stdin(std::process::Stdio::null());
            let output = command.output().expect("it runs");
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            (output.status.success(), text(output.stdout), text(output.stderr))
        };
        let (is_fine, said, warned) = run(&[]);
        assert!(is_fine, "{said}{warned}");
        assert!(said.contains(sign), "{said}");
        assert_eq!(warned.matches("epoll stands in").count(), 1, "{warned}");
        let (is_fine, _, refused) = run(&["--driver", "io_uring"]);
        assert!(!is_fine);
        assert!(refused.contains("seccomp"), "{refused}");
    }
}
