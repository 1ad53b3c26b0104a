//! Shows every rule something bad, and something good that looks like it.

use crate::*;

/// A house of four rooms for the samples.
fn sample_house() -> House {
    let lib = "//!  2  gate                    what we do\n//!  1  wire   os               two\n\
               //!  0  base                    words\n";
    let imports = [("gate", "base, wire"), ("wire", "base"), ("os", "base"), ("base", "nothing")];
    let may = |list: &str| may_import(&format!("//! A room.\n//!\n//! May import: {list}.\n"));
    House {
        layers: drawing(lib),
        may_import: imports.map(|(room, list)| (room.to_owned(), may(list))).into(),
    }
}

/// Each row: what is shown, where it stands, the text, and a word of the one complaint that must
/// come. An empty word: nothing is wrong with it.
fn assert_bites(rows: &[(&str, &str, &str, &str)], rule: impl Fn(&str, &str) -> Vec<Complaint>) {
    for (name, path, text, expected) in rows {
        let said: Vec<String> = rule(path, text).into_iter().map(|found| found.text).collect();
        if expected.is_empty() {
            assert!(said.is_empty(), "{name}: complains of what is right: {said:?}");
        } else {
            assert_eq!(said.len(), 1, "{name}: {said:?}");
            assert!(said[0].contains(expected), "{name}: {said:?}");
        }
    }
}

#[test]
fn the_rule_on_imports_bites() {
    let house = sample_house();
    let rows = [
        ("listed", "src/gate/mod.rs", "use crate::wire::Frame;", ""),
        ("own room", "src/gate/a.rs", "use crate::gate::b::B;", ""),
        ("in prose only", "src/wire/mod.rs", "//! See [`crate::gate`].\n// crate::os", ""),
        ("in a literal only", "src/wire/mod.rs", "const A: &str = \"crate::os\";", ""),
        ("upwards", "src/wire/mod.rs", "use crate::gate::Gate;", "`gate`"),
        ("sideways", "src/wire/mod.rs", "use crate::os::Ring;", "`os`"),
        ("not listed", "src/gate/mod.rs", "use crate::os::Ring;", "`os`"),
        ("in a group", "src/wire/a.rs", "use crate::{base::{ids, io}, os::Ring};", "`os`"),
        ("in an expression", "src/base/mod.rs", "fn f() { crate::wire::encode() }", "`wire`"),
        ("published", "src/wire/mod.rs", "pub(crate) use crate::gate;", "`gate`"),
        ("everything", "src/gate/mod.rs", "use crate::*;", "`*`"),
        ("in tests too", "src/os/a.rs", "#[cfg(test)] mod tests { use crate::wire::A; }", "`wire`"),
    ];
    assert_bites(&rows, |path, text| rule_imports_are_listed(path, &code_of(text), &house));
    let rows = [
        ("sibling", "src/gate/a.rs", "use super::b;", ""),
        ("own file", "src/gate/a.rs", "mod tests { use super::super::b; }", ""),
        ("one too far", "src/gate/a.rs", "use super::super::os;", "leads out"),
        ("from the top", "src/gate/mod.rs", "use super::os;", "leads out"),
        ("from a module within", "src/gate/mod.rs", "mod a { use super::super::os; }", "leads out"),
    ];
    assert_bites(&rows, |path, text| rule_no_way_out_by_super(path, &code_of(text)));
}

#[test]
fn the_rules_on_rooms_bite() {
    assert_none(rule_imports_point_down(&sample_house()));
    for (name, room, import, expected) in [
        ("upwards", "wire", "gate", "not below"),
        ("sideways", "wire", "os", "not below"),
        ("nowhere", "gate", "cellar", "no room cellar"),
    ] {
        let mut house = sample_house();
        house.may_import.insert(room.to_owned(), vec![import.to_owned()]);
        let said = rule_imports_point_down(&house);
        assert!(said.len() == 1 && said[0].text.contains(expected), "{name}: {said:?}");
    }
    let rows = [
        ("complete", "", "//! A room.\n//!\n//! May import: base.\n//! Never here: x.\n", ""),
        ("imports what", "", "//! A room.\n//!\n//! Never here: x.\n", "0 lines `May import"),
        ("never what", "", "//! A room.\n//!\n//! May import: base.\n", "0 lines `Never here"),
        ("is what", "", "//!\n//! May import: base.\n//! Never here: x.\n", "does not begin"),
        ("below code", "", "//! A.\n//! May import: a.\n\n//! Never here: x.\n", "`Never here"),
    ];
    assert_bites(&rows, rule_header);
    let folders = ["base".to_owned(), "wire".to_owned()];
    let drawn = "//!  1  wire                    b\n//!  0  base                    a\n";
    let rows = [
        ("complete", "", "pub mod base;\npub mod wire;\n", ""),
        ("not declared", "", "pub mod base;\n", "no `pub mod`"),
        ("beside the rooms", "", "pub mod base;\npub mod wire;\nmod attic;\n", "attic"),
    ];
    assert_bites(&rows, |_, text| rule_rooms_are_drawn(&format!("{drawn}{text}"), &folders));
    let modules = "pub mod base;\npub mod wire;\n";
    let rows = [
        ("not drawn", "", "//!  0  base                    a\n", "not in the drawing"),
        (
            "no folder",
            "",
            "//!  1  wire   attic            b\n//!  0  base                    a\n",
            "no folder",
        ),
    ];
    assert_bites(&rows, |_, text| rule_rooms_are_drawn(&format!("{text}{modules}"), &folders));
}

#[test]
fn the_rule_on_the_machine_bites() {
    let rows = [
        ("in os", "src/os/clock.rs", "fn now() { Instant::now() }", ""),
        ("not ours", "tests/serve.rs", "fn f() { Instant::now() }", ""),
        ("in prose", "src/gate/mod.rs", "/// An `Instant` is unsafe, says libc::x.\nfn f() {}", ""),
        ("another word", "src/gate/mod.rs", "struct Instantly; fn f() { mylibc::f() }", ""),
        ("unsafe", "src/gate/mod.rs", "fn f() { unsafe { g() } }", "`unsafe`"),
        ("allowed unsafe", "src/gate/mod.rs", "#![allow(unsafe_code)]", "`unsafe_code`"),
        ("the clock", "src/base/time.rs", "use std::time::{Duration, Instant};", "`Instant`"),
        ("the date", "src/base/time.rs", "let a = std::time::SystemTime::now();", "`SystemTime`"),
        ("raw calls", "src/gate/mod.rs", "let a = libc::getpid();", "`libc::`"),
        ("sleep", "src/cli/demo.rs", "std::thread::sleep(span);", "`thread::sleep`"),
        ("in the binary", "src/main.rs", "fn main() { rustix::f() }", "`rustix::`"),
    ];
    assert_bites(&rows, |path, text| rule_machine_only_in_os(path, &code_of(text)));
}

#[test]
fn the_rules_on_sizes_and_names_bite() {
    let long_file = "// x\n".repeat(FILE_LINES_MAX + 1);
    let long_line = format!("// {}\n", "x".repeat(COLUMNS_MAX));
    let body = "    g();\n".repeat(FUNCTION_LINES_MAX);
    let long_function = format!("fn f() {{\n{body}}}\n");
    let long_method = format!("impl A {{ fn f<T>(a: [u8; 4]) -> fn(u8) where T: B {{\n{body}}} }}");
    let long_test = format!("#[test]\nfn f() {{\n{body}}}\n");
    let rows = [
        ("short", "src/a/b.rs", "fn f() {\n    g();\n}\n", ""),
        ("long test", "src/a/b.rs", long_test.as_str(), ""),
        ("long file", "src/a/b.rs", long_file.as_str(), "801 lines"),
        ("long line", "src/a/b.rs", long_line.as_str(), "103 columns"),
        ("long function", "src/a/b.rs", long_function.as_str(), "`f` has 72 lines"),
        ("long method", "src/a/b.rs", long_method.as_str(), "`f` has 72 lines"),
    ];
    let sizes = |path: &str, text: &str| rule_sizes(path, text, &without_tests(&code_of(text)));
    assert_bites(&rows, sizes);
    let rows = [
        ("a subject", "src/wire/cursor.rs", "mod commonplace;", ""),
        ("file", "src/wire/util.rs", "", "`util.rs`"),
        ("part of a name", "src/wire/test_helpers.rs", "", "`test_helpers.rs`"),
        ("folder", "src/common/mod.rs", "", "`common`"),
        ("module", "src/wire/mod.rs", "pub mod misc { }", "`mod misc`"),
    ];
    assert_bites(&rows, |path, text| rule_names(path, &code_of(text)));
    let rows = [
        ("named", "src/a/mod.rs", "use std::fmt::{self, Write};", ""),
        ("in tests", "src/a/mod.rs", "#[cfg(test)]\nmod tests { use super::*; }", ""),
        ("glob", "src/a/mod.rs", "use super::b::*;", "glob"),
        ("glob in a group", "benches/a.rs", "use std::{fmt::*, io};", "glob"),
    ];
    assert_bites(&rows, |path, text| rule_no_globs(path, &without_tests(&code_of(text))));
}

#[test]
fn the_rules_on_texts_bite() {
    let put_off = format!("// {}{}: later\n", "TO", "DO");
    let own_path = format!("run {}/tool\n", ["", "root"].join("/"));
    let address = format!("https://example.com{}/a\n", ["", "home"].join("/"));
    let rows = [
        ("plain", "README.md", "Works at home and at the root of things.\n", ""),
        ("address", "README.md", address.as_str(), ""),
        ("put off", "src/a/mod.rs", put_off.as_str(), "do it"),
        ("a machine's path", ".ci/run", own_path.as_str(), "one machine"),
    ];
    assert_bites(&rows, rule_words);
    let rows = [
        ("finished", "a.toml", "a = 1\n", ""),
        ("empty", "a.toml", "", ""),
        ("unfinished", "a.toml", "a = 1", "no line end"),
        ("too finished", "a.toml", "a = 1\n\n", "empty lines"),
        ("trailing blank", "a.toml", "a = 1 \n", "blanks"),
        ("tab", "src/a/mod.rs", "fn f() {\n\tg();\n}\n", "a tab"),
    ];
    assert_bites(&rows, rule_layout);
}

#[test]
fn the_rule_on_pages_bites() {
    let rows = [
        ("a file", "README.md", "see `src/lib.rs`, and `ls src/` lists more\n", ""),
        ("a proof", "README.md", "| P1 never early | `src/lib.rs`: it_is_never_ea… |\n", ""),
        ("not a proof", "README.md", "set `idle_timeout_ms` as you like\n", ""),
        ("no such file", "README.md", "see `tests/gone.rs`\n", "no `tests/gone.rs`"),
        (
            "no such test",
            "README.md",
            "| P1 never early | it_is_never_late |\n",
            "it_is_never_late",
        ),
    ];
    let functions = ["it_is_never_early".to_owned()];
    assert_bites(&rows, |path, text| {
        rule_pages_name_what_is(path, text, |path| path == "src/lib.rs", &functions)
    });
}

#[test]
fn the_rule_on_fuzz_targets_bites() {
    let manifest = "[[bin]]\nname = \"frame\"\npath = \"fuzz_targets/frame.rs\"\n";
    let long = "// x\n".repeat(FUZZ_TARGET_LINES_MAX + 1);
    for (name, path, text, seeds, expected) in [
        ("complete", "fuzz/fuzz_targets/frame.rs", "", 1, ""),
        ("not built", "fuzz/fuzz_targets/stream.rs", "", 1, "not named"),
        ("no seeds", "fuzz/fuzz_targets/frame.rs", "", 0, "no seeds in fuzz/corpus/frame"),
        ("long", "fuzz/fuzz_targets/frame.rs", long.as_str(), 1, "belongs to tests/"),
    ] {
        let row = [(name, path, text, expected)];
        assert_bites(&row, |path, text| rule_fuzz_target(path, text, manifest, seeds));
    }
}
