//! What is in `deploy/`, checked by the tools that will read it, and the built binary under a
//! service manager that the tests play.

mod files;
#[path = "../serve/gate.rs"]
#[allow(dead_code, reason = "shared with the tests of serve, which use more of it")]
mod gate;
mod sockets;
mod supervisor;

use std::path::PathBuf;
use std::process::Command;

/// A file of the repository.
fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a program is there. Where it is not the test says so by name.
fn has(program: &str, package: &str) -> bool {
    let is_there = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !is_there {
        println!("not checked: there is no {program} (install {package})");
    }
    is_there
}
