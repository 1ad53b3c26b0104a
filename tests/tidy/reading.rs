//! Reads Rust, as far as the rules need it: words, items, and what is prose.

/// Whether the letter can be part of a word.
pub(crate) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Every word with its place.
pub(crate) fn words(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|letter| !is_word(letter)).unwrap_or(word.len());
        found.push((text.len() - word.len(), &word[..end]));
        rest = &word[end..];
    }
    found
}

/// The line, counted from one, on which the byte `at` stands.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Just behind the item that begins at `start`: behind its `;`, or behind the brace that closes it.
pub(crate) fn end_of_item(code: &str, start: usize) -> usize {
    let (mut round, mut braces) = (0_usize, 0_usize);
    for (at, letter) in code[start..].bytes().enumerate() {
        match letter {
            b'(' | b'[' => round += 1,
            b')' | b']' => round = round.saturating_sub(1),
            b'{' => braces += 1,
            b'}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        if (letter == b'}' && braces == 0) || (letter == b';' && braces + round == 0) {
            return start + at + 1;
        }
    }
    code.len()
}

/// How many inline modules are open at byte `at`.
pub(crate) fn modules_open_at(code: &str, at: usize) -> usize {
    let is_around = |start: usize| start < at && at < end_of_item(code, start);
    words(code).iter().filter(|(start, word)| *word == "mod" && is_around(*start)).count()
}

/// The code with comments and the insides of literals blanked out; every byte keeps its place.
pub(crate) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    while code.len() < bytes.len() {
        let at = code.len();
        let begins_word = at == 0 || !is_word(char::from(bytes[at - 1]));
        let prose = prose_bytes(&text[at..], begins_word);
        if prose == 0 {
            let letter = text[at..].chars().next().map_or(1, char::len_utf8);
            code.extend_from_slice(&bytes[at..at + letter]);
        } else {
            code.extend(bytes[at..at + prose].iter().map(|byte| match byte {
                b'\n' => b'\n',
                _ => b' ',
            }));
        }
    }
    String::from_utf8(code).expect("letters are kept or blanked as a whole")
}

/// How many bytes at the front are a comment or a literal.
fn prose_bytes(rest: &str, begins_word: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_bytes(rest);
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return 1 + quoted_bytes(inside, '"');
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        let letter = inside.chars().next().map_or(0, char::len_utf8);
        let is_literal = inside.starts_with('\\') || inside[letter..].starts_with('\'');
        return if is_literal { 1 + quoted_bytes(inside, '\'') } else { 0 }; // or a lifetime
    }
    let Some(raw) = rest.trim_start_matches(['b', 'c']).strip_prefix('r') else { return 0 };
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if !begins_word || !raw[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = &raw[hashes + 1..];
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    rest.len() - inside.len() + length
}

/// The bytes of a literal up to and with its closing quote.
fn quoted_bytes(inside: &str, quote: char) -> usize {
    let mut letters = inside.char_indices();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter == quote {
            return at + 1;
        }
    }
    inside.len()
}

/// The bytes of a block comment, which may have others inside.
fn block_comment_bytes(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let (step, change) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth = depth.saturating_add_signed(change);
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The code without `#[cfg(test)]` items and `#[test]` functions.
pub(crate) fn without_tests(code: &str) -> String {
    let mut left = code.to_owned();
    for attribute in ["#[cfg(test)]", "#[test]"] {
        while let Some(start) = left.find(attribute) {
            let end = end_of_item(&left, start);
            let blank: String = left[start..end]
                .chars()
                .map(|letter| if letter == '\n' { '\n' } else { ' ' })
                .collect();
            left.replace_range(start..end, &blank);
        }
    }
    left
}

#[test]
fn prose_is_told_from_code() {
    for (name, text, code) in [
        ("line comment", "a; // b\nc", "a;     \nc"),
        ("nested comment", "a /* b /* c */ d */ e", "a                   e"),
        ("string", "f(\"a\\\"b\") + c", "f(      ) + c"),
        ("raw string", "f(r#\"a\"b\"#) + c", "f(        ) + c"),
        ("byte string", "f(b\"a\", br\"b\")", "f(b   ,      )"),
        ("letters", "f('a', '\\'', 'ü', b'{')", "f(   ,     ,     , b   )"),
        ("lifetimes", "fn f<'a>(b: &'a u8)", "fn f<'a>(b: &'a u8)"),
        ("raw name", "r#type + for_r", "r#type + for_r"),
    ] {
        assert_eq!(code_of(text), code, "{name}");
        assert_eq!(code_of(text).len(), text.len(), "{name}: every byte keeps its place");
    }
}
