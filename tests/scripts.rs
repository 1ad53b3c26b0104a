//! The scripts in `benches/` that need a whole machine, run small, so that they still run when they
//! are needed.

use std::path::Path;
use std::process::Command;

/// Runs a script with the built program, and gives back what it printed.
fn run(script: &str, words: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(script);
    let out = Command::new("python3")
        .arg(script)
        .args(["--program", env!("CARGO_BIN_EXE_heartwheel")])
        .args(words)
        .output()
        .expect("python3 is installed, as the README asks");
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}:\n{printed}\n{told}", out.status);
    printed
}

#[test]
fn the_run_of_a_million_finds_everybody_when_it_is_small() {
    let folder = tempfile::tempdir().expect("room for a file");
    let json = folder.path().join("million.json");
    let path = json.to_str().expect("a path of text");
    let small = ["--clients", "300", "--silent", "20", "--interval", "1", "--timeout", "3"];
    run("million.py", &[&small[..], &["--fleets", "2", "--json", path]].concat());
    let text = std::fs::read_to_string(&json).expect("the figures were written");
    let figures: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (name, number) in [("connected", 300), ("fell_silent", 20), ("found", 20)] {
        assert_eq!(figures[name], number, "{name}: {text}");
    }
}

#[test]
fn silence_is_measured_at_each_number_of_clients() {
    let folder = tempfile::tempdir().expect("room for a file");
    let plot = folder.path().join("idle.svg");
    let path = plot.to_str().expect("a path of text");
    // What it costs on this machine at this moment is nobody's promise here.
    let any = ["--up-to", "1000", "--window", "1", "--share-max", "1", "--plot", path];
    let printed = run("idle.py", &any);
    assert!(printed.contains("1,000 clients"), "{printed}");
    let drawn = std::fs::read_to_string(&plot).expect("the plot was written");
    assert!(drawn.contains("<circle") && drawn.ends_with("</svg>\n"), "{drawn}");
}
