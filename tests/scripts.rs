//! The scripts in `benches/` that need a whole machine, run small, so that they still run when they
//! are needed.

use std::path::Path;
use std::process::{Command, ExitStatus};

/// Runs a script with the built program, and gives back what it printed.
fn run(script: &str, words: &[&str]) -> String {
    let (status, printed, told) = tried(script, words);
    assert!(status.success(), "{status}:\n{printed}\n{told}");
    printed
}

/// How a script ended, what it printed, and what it complained of.
fn tried(script: &str, words: &[&str]) -> (ExitStatus, String, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(script);
    let out = Command::new("python3")
        .arg(script)
        .args(["--program", env!("CARGO_BIN_EXE_heartwheel")])
        .args(words)
        .output()
        .expect("python3 is installed, as the README asks");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status, text(&out.stdout), text(&out.stderr))
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
fn a_small_soak_leaks_nothing_and_everybody_tells_the_same() {
    let folder = tempfile::tempdir().expect("room for a file");
    let json = folder.path().join("soak.json");
    let path = json.to_str().expect("a path of text");
    // Rhythms that a busy machine can keep.
    let small = ["--clients", "300", "--minutes", "0.4", "--interval", "1.5", "--timeout", "6"];
    let printed = run("soak.py", &[&small[..], &["--json", path]].concat());
    assert!(printed.contains("everybody tells the same, and nothing leaks"), "{printed}");
    let text = std::fs::read_to_string(&json).expect("the figures were written");
    let figures: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    // A soak in which nothing happened proves nothing.
    for name in [
        "found",
        "kicks",
        "rhythms",
        "broadcasts",
        "messages_up",
        "heard_by_witnesses",
        "feeds_resumed",
        "webhook_restarts",
        "webhook_repeated",
    ] {
        assert!(figures[name].as_u64().expect(name) > 0, "{name}: {text}");
    }
    assert!(figures["sessions"].as_u64().expect("a number") > 300, "{text}");
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

#[test]
fn the_comparison_measures_heartwheel_and_draws() {
    let folder = tempfile::tempdir().expect("room for files");
    let path = folder.path().to_str().expect("a path of text");
    let printed = run("compare.py", &["--smoke", "--out", path]);
    assert!(printed.contains("| **heartwheel** |"), "{printed}");
    let read = |name| std::fs::read_to_string(folder.path().join(name)).expect(name);
    let results: serde_json::Value = serde_json::from_str(&read("results.json")).expect("JSON");
    let runs = results["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 3, "one of each kind of scenario");
    for run in runs {
        assert_eq!(run["load"]["connected"], 100, "{run}");
        // The last kind only connects.
        let beats = run["load"]["window"]["beats_sent"].as_u64().expect("a number");
        assert!(beats > 100 || run["scenario"] == "connect-15000", "{run}");
    }
    assert!(read("cpu-per-beat.svg").ends_with("</svg>\n"));
    assert!(read("table.md").contains("CPU µs per beat"));
}

/// Not everybody can make network namespaces; where nobody can nothing is proved.
#[test]
fn the_comparison_over_a_wire_counts_what_the_kernel_receives() {
    let folder = tempfile::tempdir().expect("room for files");
    let path = folder.path().to_str().expect("a path of text");
    let (status, printed, told) = tried("compare.py", &["--smoke", "--wire", "--out", path]);
    if told.starts_with("no wire here:") {
        println!("nothing is proved about the wire: {told}");
        return;
    }
    assert!(status.success(), "{status}:\n{printed}\n{told}");
    assert!(printed.contains("over the wire"), "{printed}");
    let text = std::fs::read_to_string(folder.path().join("results.json")).expect("results");
    let results: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let runs = results["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 3, "one of each kind of scenario");
    for run in runs {
        assert_eq!(run["load"]["connected"], 100, "{run}");
        assert_eq!(run["load"]["lost_on_wire"], 0, "{run}");
        if run["scenario"] == "connect-15000" {
            continue; // hardly anybody beats
        }
        // In another namespace only its number says which process is the server's.
        for used in [&run["load"]["window"]["server_cpu_s"], &run["receiving"]["cpu_s"]] {
            assert!(used.as_f64().is_some_and(|seconds| seconds > 0.0), "{run}");
        }
    }
}

#[test]
fn the_comparison_counts_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let words = ["-B", "-m", "unittest", "discover"];
    let out = Command::new("python3").args(words).current_dir(folder).output();
    let out = out.expect("python3 is installed, as the README asks");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{told}");
    // Where there may be no wire, it says that some tests were skipped.
    println!("{told}");
}
