//! Broken on purpose: one-line breakages of the code, each of which must make a named test fail.
//!
//! The lists are `tests/breakages/*.toml`; `tests/breakages/run` breaks the code in a copy of the
//! tree and runs the named tests, which takes a while. Here is only what keeps the lists from
//! rotting: that each breakage can still be made, and that its test is there.
//!
//! ```toml
//! [[breakage]]
//! name = "a beat does not move the deadline"      # a sentence: what is wrong then
//! file = "src/gateway/requests.rs"
//! was = 'session.last_beat = now;'                # stands in the file exactly once
//! now = ''                                        # what stands there instead
//! test = "--lib gateway::tests::beats_put_…"      # what `cargo test` must see fail
//! ```

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tested::has_test;

#[path = "tidy/tested.rs"]
mod tested;

/// At least so many: a list that shrinks is one that nobody minds.
const BREAKAGES_MIN: usize = 100;
/// What must be broken, and how often at least.
const ROOMS: [(&str, usize); 7] = [
    ("src/tracker/", 30),
    ("src/gateway/", 50),
    ("src/os/ring/", 20),
    ("src/os/epoll/", 15),
    ("src/server/", 5),
    ("src/control/journal/", 10),
    ("src/wire/", 10),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    breakage: Vec<Breakage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Breakage {
    name: String,
    file: String,
    was: String,
    now: String,
    test: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn breakages() -> Vec<Breakage> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root().join("tests/breakages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    let lists = paths.into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        toml::from_str::<List>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
    lists.flat_map(|list| list.breakage).collect()
}

#[test]
fn every_breakage_can_be_made() {
    let mut wrong = Vec::new();
    for Breakage { name, file, was, now, .. } in breakages() {
        let text = fs::read_to_string(root().join(&file)).unwrap_or_default();
        match text.matches(was.as_str()).count() {
            1 if was != now => {}
            1 => wrong.push(format!("{name}: nothing is broken")),
            count => wrong.push(format!("{name}: `{was}` stands {count} times in {file}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_breakage_names_a_test_that_is_there() {
    let missing: Vec<String> = breakages()
        .iter()
        .filter(|breakage| !is_there(&breakage.test))
        .map(|breakage| format!("{}: there is no test `{}`", breakage.name, breakage.test))
        .collect();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn every_breakage_has_a_name_of_its_own_and_every_room_is_broken() {
    let breakages = breakages();
    assert!(breakages.len() >= BREAKAGES_MIN, "{} are few", breakages.len());
    let names: BTreeSet<&str> = breakages.iter().map(|breakage| breakage.name.as_str()).collect();
    assert_eq!(names.len(), breakages.len(), "two have the same name");
    let is_sentence = |name: &&str| name.contains(' ') && !name.ends_with('.');
    assert!(names.iter().all(is_sentence), "a name says what is wrong then: {names:?}");
    for (room, count_min) in ROOMS {
        let count = breakages.iter().filter(|breakage| breakage.file.starts_with(room)).count();
        assert!(count >= count_min, "only {count} breakages of {room}");
    }
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    for (test, expected) in [
        ("--lib gateway::connection::tests::a_connection_is_small", true),
        ("--lib gateway::tests::sessions::a_verdict_is_held_as_well", true),
        ("--lib tracker::pitfalls::a_deadline_now_fires_now", true),
        ("--test ring bytes_go_both_ways", true),
        ("--test ring chaos::chaos_is_heard_in_order_and_ends_once", true),
        ("--test property wheel::tests::the_wheel_agrees_on_every_seed", true),
        ("--lib gateway::connection::tests::no_such_test", false),
        ("--lib gateway::connection::a_connection_is_small", false),
        ("--lib gateway::connection::tests::write", false),
        ("--test ring rig::bytes_go_both_ways", false),
        ("--test no_such_crate bytes_go_both_ways", false),
        ("bytes_go_both_ways", false),
    ] {
        assert_eq!(is_there(test), expected, "{test}");
    }
}

/// Whether a test, named as for `cargo test`, is in the sources.
fn is_there(test: &str) -> bool {
    let words: Vec<&str> = test.split_whitespace().collect();
    let (crate_files, folder, path) = match words[..] {
        ["--lib", path] => (vec!["src/lib.rs".to_owned()], "src".to_owned(), path),
        ["--test", name, path] => {
            let files = vec![format!("tests/{name}.rs"), format!("tests/{name}/main.rs")];
            (files, format!("tests/{name}"), path)
        }
        _ => return false,
    };
    let mut modules: Vec<&str> = path.split("::").collect();
    let Some(function) = modules.pop() else { return false };
    // The file of the innermost module that has one; the modules within it are inline.
    let with_file = (0..=modules.len()).rev().find_map(|count| {
        let files = match count {
            0 => crate_files.clone(),
            count => {
                let stem = format!("{folder}/{}", modules[..count].join("/"));
                vec![format!("{stem}.rs"), format!("{stem}/mod.rs")]
            }
        };
        let text = files.iter().find_map(|file| fs::read_to_string(root().join(file)).ok())?;
        Some((text, &modules[count..]))
    });
    let Some((text, inline)) = with_file else { return false };
    let is_in_its_module = match inline {
        [] => !text.contains("mod tests {"),
        inline => inline.iter().all(|module| text.contains(&format!("mod {module} {{"))),
    };
    is_in_its_module && has_test(&text, function)
}
