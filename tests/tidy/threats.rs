//! The table of threats: each of its rows names tests that are there.

use crate::tested::has_test;
use crate::{Complaint, complain};

/// Where the table is.
pub(crate) const PAGE: &str = "src/manual/security.md";

/// A row has an attack, what happens, and tests: `crate name, name; crate name`, where the crate is
/// `lib` or a name under `tests/`, and each name is that of a test as a whole.
pub(crate) fn rule_threats_are_tested(
    path: &str,
    text: &str,
    sources: &[(String, String)],
) -> Vec<Complaint> {
    if path != PAGE {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, attack, _, tests, _] = cells[..] else {
            if line.starts_with('|') {
                complaints.push(complain(path, index + 1, "a row has three cells"));
            }
            continue;
        };
        if attack == "attack" || attack.starts_with("---") {
            continue;
        }
        for part in tests.split(';').map(str::trim) {
            let (room, names) = part.split_once(' ').unwrap_or((part, ""));
            for name in names.split(',').map(str::trim) {
                if !is_test_of(room, name, sources) {
                    let text = format!("{room} has no test `{name}`");
                    complaints.push(complain(path, index + 1, text));
                }
            }
        }
    }
    complaints
}

fn is_test_of(room: &str, name: &str, sources: &[(String, String)]) -> bool {
    let is_in = |path: &str| match room {
        "lib" => path.starts_with("src/"),
        room => path == format!("tests/{room}.rs") || path.starts_with(&format!("tests/{room}/")),
    };
    !name.is_empty() && sources.iter().any(|(path, text)| is_in(path) && has_test(text, name))
}

#[test]
fn the_rule_on_threats_bites() {
    let test = "#[test]\nfn it_holds() {}\nfn helps() {}\n".to_owned();
    let sources = [("src/a.rs".to_owned(), test.clone()), ("tests/gate/b.rs".to_owned(), test)];
    for (row, expected) in [
        ("| a flood | nothing | lib it_holds; gate it_holds |", ""),
        ("| attack | what happens | test |", ""),
        ("|---|---|---|", ""),
        ("prose | with a bar", ""),
        ("| a flood | nothing | lib it_holds, it_hold |", "lib has no test `it_hold`"),
        ("| a flood | nothing | lib helps |", "lib has no test `helps`"),
        ("| a flood | nothing | door it_holds |", "door has no test `it_holds`"),
        ("| a flood | nothing | |", " has no test ``"),
        ("| a flood | nothing |", "a row has three cells"),
    ] {
        let said = rule_threats_are_tested(PAGE, row, &sources);
        let said: Vec<&str> = said.iter().map(|found| found.text.as_str()).collect();
        let expected: Vec<&str> =
            Some(expected).filter(|text| !text.is_empty()).into_iter().collect();
        assert_eq!(said, expected, "{row}");
    }
}
