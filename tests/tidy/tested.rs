//! Which functions are tests.

/// Whether a text has a function of that name that is a test.
pub(crate) fn has_test(text: &str, function: &str) -> bool {
    text.match_indices(&format!("fn {function}(")).any(|(at, _)| {
        let above = text[..at].rsplit_once('\n').map_or("", |(above, _)| above);
        let above = above.lines().rev().map(str::trim).skip_while(|line| line.is_empty());
        above.take_while(|line| line.starts_with("#[")).any(|line| line == "#[test]")
    })
}
