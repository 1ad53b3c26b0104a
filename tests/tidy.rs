//! Holds the code to what it says about itself.
//!
//! The drawing in `src/lib.rs` says which rooms there are and which lies above which. The `May
//! import:` line of each room says what it uses. The rules below read these lines and the sources,
//! and complain where they disagree. A rule is a function from a path and a text to complaints, so
//! `tidy/bites.rs` can show each rule something bad and see that it bites.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use reading::{code_of, end_of_item, is_word, line_of, modules_open_at, without_tests, words};

#[path = "tidy/bites.rs"]
mod bites;
#[path = "tidy/reading.rs"]
mod reading;
#[path = "tidy/tested.rs"]
mod tested;
#[path = "tidy/threats.rs"]
mod threats;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
/// A fuzz target calls a property; it is none itself.
const FUZZ_TARGET_LINES_MAX: usize = 30;

/// Columns of the drawing in `src/lib.rs` where the names of a layer's rooms stand.
const DRAWING_NAMES: std::ops::Range<usize> = 8..32;
/// Prose, and therefore in no layer.
const NOT_IN_THE_DRAWING: [&str; 1] = ["manual"];
/// Names that say nothing: whatever is called so has no subject.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "common", "misc", "manager"];
/// What only `os` may say, as words of code.
const WORDS_OF_THE_MACHINE: [&str; 5] =
    ["unsafe", "unsafe_code", "Instant", "SystemTime", "UNIX_EPOCH"];
/// What only `os` may say, as pieces of paths.
const PATHS_OF_THE_MACHINE: [&str; 5] =
    ["libc::", "io_uring::", "rustix::", "thread::sleep", "core::arch::"];
/// Folders of what was built or found, and of inputs that are bytes.
const NOT_TEXTS: [&str; 7] =
    [".git", "target", "artifacts", "coverage", "corpus", "mutants.out", "__pycache__"];

/// Where a page can point to.
const OUR_FOLDERS: [&str; 6] = ["src/", "tests/", "benches/", "fuzz/", "examples/", "deploy/"];

/// Something a rule does not like.
#[derive(Debug)]
struct Complaint {
    path: String,
    line: usize,
    text: String,
}

fn complain(path: &str, line: usize, text: impl Into<String>) -> Complaint {
    Complaint { path: path.to_owned(), line, text: text.into() }
}

// --- the law on imports --------------------------------------------------------------------------

/// What `src/lib.rs` and the headers say about the rooms.
#[derive(Debug, Default)]
struct House {
    /// Layer of each room in the drawing.
    layers: BTreeMap<String, usize>,
    /// What each room may import, from its header.
    may_import: BTreeMap<String, Vec<String>>,
}

/// The rooms and their layers, from the drawing.
fn drawing(lib: &str) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    for line in lib.lines().filter(|line| line.starts_with("//!")) {
        let number = line.trim_start_matches("//!").split_whitespace().next().unwrap_or_default();
        let Ok(layer) = number.parse() else { continue };
        let names: String =
            line.chars().skip(DRAWING_NAMES.start).take(DRAWING_NAMES.len()).collect();
        layers.extend(names.split_whitespace().map(|name| (name.to_owned(), layer)));
    }
    layers
}

/// The drawing, the `mod` lines and the folders name the same rooms.
fn rule_rooms_are_drawn(lib: &str, folders: &[String]) -> Vec<Complaint> {
    let layers = drawing(lib);
    let modules: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod ")))
        .map(|rest| rest.trim_end_matches(';'))
        .collect();
    let mut complaints = Vec::new();
    let mut say = |text: String| complaints.push(complain("src/lib.rs", 1, text));
    for folder in folders {
        let is_prose = NOT_IN_THE_DRAWING.contains(&folder.as_str());
        if !is_prose && !layers.contains_key(folder) {
            say(format!("room {folder} is not in the drawing"));
        }
        if !modules.contains(&folder.as_str()) {
            say(format!("room {folder} has no `pub mod` line"));
        }
    }
    for name in layers.keys().filter(|name| !folders.contains(name)) {
        say(format!("room {name} is drawn and has no folder"));
    }
    for name in modules.iter().filter(|name| !folders.iter().any(|folder| folder == *name)) {
        say(format!("`mod {name}` beside the rooms: everything lives in one of them"));
    }
    complaints
}

/// A room's header says what the room is, what it may import and what is never there.
fn rule_header(path: &str, text: &str) -> Vec<Complaint> {
    let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let mut complaints = Vec::new();
    if header.first().is_none_or(|line| line.trim().is_empty()) {
        complaints.push(complain(path, 1, "the header does not begin with what the room is"));
    }
    for begin in ["May import: ", "Never here: "] {
        let count = header.iter().filter(|line| line.trim_start().starts_with(begin)).count();
        if count != 1 {
            complaints.push(complain(path, 1, format!("{count} lines `{begin}`, should be one")));
        }
    }
    complaints
}

/// The rooms that a header lists.
fn may_import(text: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("//! May import: "));
    let list = line.unwrap_or_default().trim_end_matches('.').split(',').map(str::trim);
    list.filter(|name| !name.is_empty() && *name != "nothing").map(str::to_owned).collect()
}

/// Each room that a header lists lies in a lower layer.
fn rule_imports_point_down(house: &House) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (room, imports) in &house.may_import {
        for import in imports {
            let path = format!("src/{room}/mod.rs");
            match (house.layers.get(room), house.layers.get(import)) {
                (_, None) => complaints.push(complain(&path, 1, format!("no room {import}"))),
                (Some(own), Some(other)) if other >= own => {
                    let text = format!("{import} (layer {other}) is not below {room} ({own})");
                    complaints.push(complain(&path, 1, text));
                }
                (Some(_) | None, Some(_)) => {}
            }
        }
    }
    complaints
}

/// Code names no other rooms than its room's header lists.
fn rule_imports_are_listed(path: &str, code: &str, house: &House) -> Vec<Complaint> {
    let Some(room) = room_of(path) else { return Vec::new() };
    let listed = house.may_import.get(room).map(Vec::as_slice).unwrap_or_default();
    let mut complaints = Vec::new();
    for (at, piece) in code.match_indices("crate::") {
        for name in first_names(&code[at + piece.len()..]) {
            if name != room && !listed.iter().any(|import| import == name) {
                let text = format!("{room} may not import `{name}`, says its header");
                complaints.push(complain(path, line_of(code, at), text));
            }
        }
    }
    complaints
}

/// No path climbs out of its room by `super`.
fn rule_no_way_out_by_super(path: &str, code: &str) -> Vec<Complaint> {
    if room_of(path).is_none() {
        return Vec::new();
    }
    // src/room/mod.rs is one step below the crate, src/room/file.rs two.
    let steps = path.split('/').count() - 1 - usize::from(path.ends_with("/mod.rs"));
    let mut complaints = Vec::new();
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue; // counted with the first of its chain
        }
        let climbed =
            code[at..].split("super::").skip(1).take_while(|rest| rest.is_empty()).count();
        if climbed + 1 >= steps + modules_open_at(code, at) {
            let text = "`super` leads out of the room; say `crate::` and the room";
            complaints.push(complain(path, line_of(code, at), text));
        }
    }
    complaints
}

/// The room that a file under `src/` belongs to.
fn room_of(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split_once('/').map(|(room, _)| room)
}

/// The first names of a path's tail: `a::b` gives `a`, `{a::b, c::{d}}` gives `a` and `c`, and `*`
/// gives `*`, which is no room.
fn first_names(tail: &str) -> Vec<&str> {
    let Some(group) = tail.strip_prefix('{') else {
        let end = tail.find(|letter: char| !is_word(letter)).unwrap_or(tail.len());
        return vec![if end == 0 { "*" } else { &tail[..end] }];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        if depth == 0 && matches!(letter, ',' | '}') {
            if !group[start..at].trim().is_empty() {
                names.extend(first_names(group[start..at].trim()));
            }
            start = at + 1;
        }
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

// --- rules on one source -------------------------------------------------------------------------

/// `unsafe`, raw system calls, the clock and sleeping are in `os` alone.
fn rule_machine_only_in_os(path: &str, code: &str) -> Vec<Complaint> {
    if !path.starts_with("src/") || room_of(path) == Some("os") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (at, word) in words(code) {
        if WORDS_OF_THE_MACHINE.contains(&word) {
            complaints.push(complain(path, line_of(code, at), format!("`{word}` outside src/os")));
        }
    }
    for piece in PATHS_OF_THE_MACHINE {
        for (at, _) in code.match_indices(piece) {
            if !code[..at].ends_with(is_word) {
                let text = format!("`{piece}` outside src/os");
                complaints.push(complain(path, line_of(code, at), text));
            }
        }
    }
    complaints
}

/// No glob imports outside tests: a reader must see where a name comes from.
fn rule_no_globs(path: &str, code_without_tests: &str) -> Vec<Complaint> {
    if path.starts_with("tests/") {
        return Vec::new();
    }
    let globs = code_without_tests.match_indices("::*");
    globs.map(|(at, _)| complain(path, line_of(code_without_tests, at), "a glob import")).collect()
}

/// Files, lines and functions that a person can hold in mind.
fn rule_sizes(path: &str, text: &str, code_without_tests: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        let text = format!("{lines} lines, limit {FILE_LINES_MAX}: perhaps two nouns in one file");
        complaints.push(complain(path, 1, text));
    }
    for (index, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let text = format!("{columns} columns, limit {COLUMNS_MAX}");
            complaints.push(complain(path, index + 1, text));
        }
    }
    for (at, name, lines) in functions(code_without_tests) {
        if lines > FUNCTION_LINES_MAX {
            let text = format!("`{name}` has {lines} lines, limit {FUNCTION_LINES_MAX}");
            complaints.push(complain(path, line_of(code_without_tests, at), text));
        }
    }
    complaints
}

/// Every function with a body: where it begins, its name, and how many lines it has.
fn functions(code: &str) -> Vec<(usize, &str, usize)> {
    let mut found = Vec::new();
    for pair in words(code).windows(2) {
        let ((at, keyword), (name_at, name)) = (pair[0], pair[1]);
        if keyword != "fn" || !code[at + 2..name_at].trim().is_empty() {
            continue; // not a function, or a type such as `fn(u8)`
        }
        found.push((at, name, code[at..end_of_item(code, at)].lines().count()));
    }
    found
}

/// File and module names that say something.
fn rule_names(path: &str, code: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let is_empty = |name: &str| name.split(['_', '-']).any(|part| EMPTY_NAMES.contains(&part));
    for part in path.split('/') {
        if is_empty(part.split('.').next().unwrap_or(part)) {
            complaints.push(complain(path, 1, format!("`{part}` names no subject")));
        }
    }
    for pair in words(code).windows(2) {
        if pair[0].1 == "mod" && is_empty(pair[1].1) {
            let text = format!("`mod {}` names no subject", pair[1].1);
            complaints.push(complain(path, line_of(code, pair[0].0), text));
        }
    }
    complaints
}

// --- rules on any text ---------------------------------------------------------------------------

/// Nothing is put off in a comment, and no path is one machine's.
fn rule_words(path: &str, text: &str) -> Vec<Complaint> {
    // Put together here, or this file would complain about itself.
    let put_off = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    let machine = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let mut complaints = Vec::new();
    for (at, word) in words(text) {
        if put_off.iter().any(|banned| banned == word) {
            let words = format!("`{word}`: do it, or file an issue");
            complaints.push(complain(path, line_of(text, at), words));
        }
    }
    for folder in machine {
        for (at, _) in text.match_indices(&folder) {
            // Within a longer path or an address it is somebody else's.
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|letter| is_word(letter) || matches!(letter, '.' | '/' | '-')) {
                let words = format!("`{folder}`: a path of one machine");
                complaints.push(complain(path, line_of(text, at), words));
            }
        }
    }
    complaints
}

/// A text ends with one line end, and has no tabs where Rust is spoken.
fn rule_layout(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let last = text.lines().count();
    if !text.is_empty() && !text.ends_with('\n') {
        complaints.push(complain(path, last, "no line end at the end"));
    }
    if text.ends_with("\n\n") {
        complaints.push(complain(path, last, "empty lines at the end"));
    }
    for (index, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) && !path.ends_with(".md") {
            complaints.push(complain(path, index + 1, "blanks at the end of the line"));
        }
        if line.contains('\t') && path.ends_with(".rs") {
            complaints.push(complain(path, index + 1, "a tab"));
        }
    }
    complaints
}

/// What a page names exists: files and folders of ours, and tests by the beginning of their name.
fn rule_pages_name_what_is(
    path: &str,
    text: &str,
    is_there: impl Fn(&str) -> bool,
    functions: &[String],
) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_ours = OUR_FOLDERS.iter().any(|folder| quoted.starts_with(folder));
            if is_ours && !quoted.contains(['*', ' ', '<', ':']) && !is_there(quoted) {
                complaints.push(complain(path, index + 1, format!("there is no `{quoted}`")));
            }
        }
        if !line.starts_with("| P") {
            continue; // only the table of promises names tests
        }
        for (_, name) in words(line).into_iter().filter(|(_, word)| word.contains('_')) {
            if !functions.iter().any(|function| function.starts_with(name)) {
                complaints.push(complain(path, index + 1, format!("there is no test `{name}`")));
            }
        }
    }
    complaints
}

/// Every fuzz target is short, is built, and has something to start from.
fn rule_fuzz_target(path: &str, text: &str, manifest: &str, seeds: usize) -> Vec<Complaint> {
    let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let mut complaints = Vec::new();
    if text.lines().count() > FUZZ_TARGET_LINES_MAX {
        let words = format!("over {FUZZ_TARGET_LINES_MAX} lines: the property belongs to tests/");
        complaints.push(complain(path, 1, words));
    }
    if !manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")) {
        complaints.push(complain(path, 1, "not named in fuzz/Cargo.toml"));
    }
    if seeds == 0 {
        complaints.push(complain(path, 1, format!("no seeds in fuzz/corpus/{name}")));
    }
    complaints
}

// --- the repository ------------------------------------------------------------------------------

/// Every text of the repository, its path beginning at the repository's root.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder was listed a moment ago") {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy();
            if NOT_TEXTS.contains(&name.as_ref()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).expect("it was found below the root");
                texts.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    texts.sort();
    texts
}

/// The text of one file of the repository.
fn text_of(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The folders under `src`.
fn room_folders() -> Vec<String> {
    let mut rooms: Vec<String> =
        texts().iter().filter_map(|(path, _)| room_of(path).map(str::to_owned)).collect();
    rooms.dedup();
    rooms
}

fn house() -> House {
    let header_of = |room: &String| may_import(&text_of(&format!("src/{room}/mod.rs")));
    House {
        layers: drawing(&text_of("src/lib.rs")),
        may_import: room_folders().iter().map(|room| (room.clone(), header_of(room))).collect(),
    }
}

/// Holds every text whose path ends so to a rule.
fn hold(ending: &str, rule: impl Fn(&str, &str) -> Vec<Complaint>) {
    let all: Vec<_> = texts().into_iter().filter(|(path, _)| path.ends_with(ending)).collect();
    assert!(!all.is_empty(), "nothing ends with {ending}: the rule holds nobody");
    assert_none(all.iter().flat_map(|(path, text)| rule(path, text)).collect());
}

fn assert_none(complaints: Vec<Complaint>) {
    let lines: Vec<String> = complaints
        .iter()
        .map(|complaint| format!("{}:{}: {}", complaint.path, complaint.line, complaint.text))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn every_room_is_drawn_once_and_says_what_it_is() {
    assert_none(rule_rooms_are_drawn(&text_of("src/lib.rs"), &room_folders()));
    for room in room_folders() {
        let path = format!("src/{room}/mod.rs");
        assert_none(rule_header(&path, &text_of(&path)));
    }
}

#[test]
fn imports_point_down_and_are_listed() {
    let house = house();
    assert_none(rule_imports_point_down(&house));
    hold(".rs", |path, text| rule_imports_are_listed(path, &code_of(text), &house));
    hold(".rs", |path, text| rule_no_way_out_by_super(path, &code_of(text)));
    hold(".rs", |path, text| rule_no_globs(path, &without_tests(&code_of(text))));
}

#[test]
fn the_machine_is_touched_in_os_alone() {
    hold(".rs", |path, text| rule_machine_only_in_os(path, &code_of(text)));
}

#[test]
fn files_and_functions_fit_into_a_head_and_have_a_subject() {
    hold(".rs", |path, text| rule_sizes(path, text, &without_tests(&code_of(text))));
    hold(".rs", |path, text| rule_names(path, &code_of(text)));
}

#[test]
fn every_text_is_finished_and_belongs_to_no_machine() {
    hold("", rule_words);
    hold("", rule_layout);
}

#[test]
fn pages_name_what_there_is() {
    let sources = texts().into_iter().filter(|(path, _)| path.ends_with(".rs"));
    let names = sources.flat_map(|(_, text)| {
        let code = code_of(&text);
        let names = functions(&code).into_iter().map(|(_, name, _)| name.to_owned());
        names.collect::<Vec<_>>()
    });
    let names: Vec<String> = names.collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_there = |path: &str| root.join(path).exists();
    hold(".md", |path, text| rule_pages_name_what_is(path, text, is_there, &names));
}

#[test]
fn every_threat_names_tests_that_are_there() {
    let sources: Vec<_> = texts().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    let page = text_of(threats::PAGE);
    assert!(page.contains("| attack | what happens | test |"), "there is a table");
    assert_none(threats::rule_threats_are_tested(threats::PAGE, &page, &sources));
}

#[test]
fn every_fuzz_target_is_built_and_has_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets = texts().into_iter().filter(|(path, _)| path.starts_with("fuzz/fuzz_targets/"));
    for (path, text) in targets {
        let name = path.rsplit('/').next().expect("rsplit gives one piece at least");
        let corpus = root.join("fuzz/corpus").join(name.trim_end_matches(".rs"));
        let seeds = fs::read_dir(corpus).map_or(0, Iterator::count);
        assert_none(rule_fuzz_target(&path, &text, &text_of("fuzz/Cargo.toml"), seeds));
    }
}
