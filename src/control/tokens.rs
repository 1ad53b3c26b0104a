//! The tokens of the admin API, and what each allows.
//!
//! A file has one word, which is a token that allows everything, or a line `ROLE TOKEN` for each of
//! several. Of a role there may be more than one: while a token is being replaced both count.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::limits;
use crate::os::file::read_text_at_most;

/// What whoever asks may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Look.
    Read,
    /// Send to clients and take what they send: what a backend does.
    Push,
    /// Everything, such as to end sessions, and the gateway.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Push, Self::Admin];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Push => "push",
            Self::Admin => "admin",
        }
    }
}

/// A secret that whoever asks must know. Kept as a keyed hash, which is also how it is compared:
/// how long that takes says nothing about the secret.
#[derive(Clone)]
struct Token {
    digest: (u64, u64),
    role: Role,
}

/// All tokens that count.
#[derive(Clone)]
pub struct Tokens {
    key: [u64; 2],
    tokens: Vec<Token>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.tokens.len())
    }
}

/// What a file says: tokens as they are typed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secrets(Vec<(Role, String)>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// Why a file has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token in {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the machine said.
        cause: io::Error,
    },
    /// It is empty, or longer than any that is meant.
    #[error(
        "{} has no token; expected one as from `openssl rand -hex 32`, or 1 to {} lines `ROLE \
         TOKEN`, where ROLE is read, push or admin",
        path.display(),
        limits::ADMIN_TOKENS_MAX
    )]
    NoToken {
        /// Which file.
        path: PathBuf,
    },
    /// A line is not what it should be. What stands there is not told: it may be a secret.
    #[error("{}:{line}: {what}", path.display())]
    BadLine {
        /// Which file.
        path: PathBuf,
        /// Which of its lines, from 1 on.
        line: usize,
        /// What is wrong with it.
        what: LineError,
    },
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineError {
    /// Too short or too long, or not what can stand in a header.
    #[error(
        "this is no token; expected {} to {} visible ASCII characters, as from `openssl rand -hex \
         32`",
        limits::ADMIN_TOKEN_BYTES_MIN,
        limits::ADMIN_TOKEN_BYTES_MAX
    )]
    Token,
    /// No role that is known.
    #[error("expected `ROLE TOKEN`, where ROLE is read, push or admin")]
    Role,
    /// The same token stands above.
    #[error("the same token stands above; each may stand once")]
    Twice,
}

/// The tokens in a file.
///
/// # Errors
/// When there are none, or one could be guessed.
pub fn read_tokens(path: &Path) -> Result<Secrets, TokenError> {
    let unreadable = |cause| TokenError::Unreadable { path: path.to_owned(), cause };
    let none = || TokenError::NoToken { path: path.to_owned() };
    let text = read_text_at_most(path, limits::ADMIN_TOKEN_FILE_BYTES_MAX).map_err(unreadable)?;
    let text = text.ok_or_else(none)?;
    let lines: Vec<(usize, &str)> = lines(&text).collect();
    if lines.is_empty() || lines.len() > limits::ADMIN_TOKENS_MAX {
        return Err(none());
    }
    let mut seen = HashSet::new();
    let mut secrets = Vec::new();
    for (number, line) in &lines {
        let read = understand(line, lines.len() == 1).and_then(|(role, token)| {
            let is_new = seen.insert(token);
            is_new.then(|| (role, token.to_owned())).ok_or(LineError::Twice)
        });
        let bad = |what| TokenError::BadLine { path: path.to_owned(), line: *number, what };
        secrets.push(read.map_err(bad)?);
    }
    Ok(Secrets(secrets))
}

/// The lines of a file with secrets that say something, with their numbers from 1 on: neither blank
/// ones nor those that begin with `#`.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// A line; one that is `alone` may leave out its role.
fn understand(line: &str, alone: bool) -> Result<(Role, &str), LineError> {
    let mut words = line.split_ascii_whitespace();
    let (role, token) = match (words.next(), words.next(), words.next()) {
        (Some(token), None, None) if alone => (Role::Admin, token),
        (Some(word), Some(token), None) => {
            let role = Role::ALL.into_iter().find(|role| role.word() == word);
            (role.ok_or(LineError::Role)?, token)
        }
        _ => return Err(LineError::Role),
    };
    let fits =
        (limits::ADMIN_TOKEN_BYTES_MIN..=limits::ADMIN_TOKEN_BYTES_MAX).contains(&token.len());
    if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(LineError::Token);
    }
    Ok((role, token))
}

impl Secrets {
    /// The token of one who asks with this file: the first of those that allow the most.
    #[must_use]
    pub fn strongest(&self) -> &str {
        let most = self.0.iter().map(|(role, _)| *role).max();
        let found = self.0.iter().find(|(role, _)| Some(*role) == most);
        found.map(|(_, token)| token.as_str()).unwrap_or_default()
    }
}

impl Tokens {
    /// Takes these `secrets`; `key` is random.
    pub fn new(secrets: &Secrets, key: [u64; 2]) -> Self {
        let token = |(role, text): &(Role, String)| Token {
            digest: digest(key, text.as_bytes()),
            role: *role,
        };
        Self { key, tokens: secrets.0.iter().map(token).collect() }
    }

    /// What whoever says this may do; `None`: it is no token of ours. All are looked at, whichever
    /// it is.
    pub(crate) fn role_of(&self, said: &[u8]) -> Option<Role> {
        let said = digest(self.key, said);
        self.tokens.iter().fold(None, |found, token| match token.digest == said {
            true => Some(token.role),
            false => found,
        })
    }

    /// Whether they are the same as these.
    pub(crate) fn are(&self, secrets: &Secrets) -> bool {
        self.tokens.len() == secrets.0.len()
            && secrets.0.iter().all(|(role, text)| self.role_of(text.as_bytes()) == Some(*role))
    }

    /// How many there are of which role, for people.
    pub(crate) fn summary(&self) -> String {
        summary(self.tokens.iter().map(|token| token.role))
    }
}

impl Secrets {
    /// How many there are of which role, for people.
    pub(crate) fn summary(&self) -> String {
        summary(self.0.iter().map(|(role, _)| *role))
    }
}

fn summary(roles: impl Iterator<Item = Role> + Clone) -> String {
    let counted = Role::ALL.into_iter().filter_map(|role| {
        let count = roles.clone().filter(|own| *own == role).count();
        (count > 0).then(|| format!("{count} {}", role.word()))
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn digest(key: [u64; 2], bytes: &[u8]) -> (u64, u64) {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    std::hash::Hasher::write(&mut hasher, bytes);
    let hash = hasher.finish128();
    (hash.h1, hash.h2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef";
    const B: &str = "fedcba9876543210";

    fn read(text: &str) -> Result<Secrets, String> {
        let folder = tempfile::tempdir().expect("there is room for a file");
        let path = folder.path().join("token");
        std::fs::write(&path, text).expect("there is room");
        read_tokens(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_is_one_long_word_or_a_role_and_a_word_in_each_line() {
        let one = |role, token: &str| (role, token.to_owned());
        for (text, expected) in [
            (format!("{A}\n"), vec![one(Role::Admin, A)]),
            (format!("  {A}"), vec![one(Role::Admin, A)]),
            (format!("# ours\n\n{A}\n"), vec![one(Role::Admin, A)]),
            (format!("read {A}"), vec![one(Role::Read, A)]),
            (
                format!("push\t{A} \r\n# the old one\r\npush {B}\r\n"),
                vec![one(Role::Push, A), one(Role::Push, B)],
            ),
        ] {
            assert_eq!(read(&text).expect("fine").0, expected, "{text:?}");
        }
        for (text, expected) in [
            (String::new(), "has no token"),
            ("# nothing\n".to_owned(), "has no token"),
            ("a".repeat(50_000), "has no token"),
            (format!("read {A}\n").repeat(limits::ADMIN_TOKENS_MAX + 1), "has no token"),
            ("0123456789abcde".to_owned(), ":1: this is no token"),
            ("a".repeat(2_000), ":1: this is no token"),
            ("0123456789abcd\u{e9}f".to_owned(), ":1: this is no token"),
            ("read 0123456789abcde".to_owned(), ":1: this is no token"),
            (format!("{A}\n{B}\n"), ":1: expected `ROLE TOKEN`"),
            (format!("read {A}\n{B}\n"), ":2: expected `ROLE TOKEN`"),
            (format!("root {A}"), ":1: expected `ROLE TOKEN`"),
            (format!("Read {A}"), ":1: expected `ROLE TOKEN`"),
            (format!("read {A} {B}"), ":1: expected `ROLE TOKEN`"),
            (format!("read {A}\n\nadmin {A}"), ":3: the same token"),
        ] {
            let line = read(&text).expect_err("it is not fine");
            assert!(line.contains(expected), "{text:?}: {line}");
            assert!(!line.contains(A) && !line.contains(B), "{line}");
        }
        let nowhere = read_tokens(Path::new("/no/such/file"));
        assert!(matches!(nowhere, Err(TokenError::Unreadable { .. })));
    }

    #[test]
    fn each_token_has_its_role_and_nothing_else_has_one() {
        let secrets = read(&format!("read {A}\npush {B}\n")).expect("fine");
        let tokens = Tokens::new(&secrets, [1, 2]);
        assert_eq!(tokens.role_of(A.as_bytes()), Some(Role::Read));
        assert_eq!(tokens.role_of(B.as_bytes()), Some(Role::Push));
        for other in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "read"] {
            assert_eq!(tokens.role_of(other.as_bytes()), None, "{other}");
        }
        assert!(Role::Read < Role::Push && Role::Push < Role::Admin);
        for shown in [format!("{tokens:?}"), format!("{secrets:?}"), tokens.summary()] {
            assert!(!shown.contains("0123") && !shown.contains("fedc"), "{shown}");
        }
        assert_eq!(tokens.summary(), "1 read, 1 push");
    }

    #[test]
    fn whoever_asks_with_a_file_of_several_takes_the_first_that_allows_the_most() {
        let text = format!("read {A}\nadmin {B}\nadmin third-of-the-tokens\n");
        assert_eq!(read(&text).expect("fine").strongest(), B);
        assert_eq!(read(A).expect("fine").strongest(), A);
    }

    #[test]
    fn the_same_tokens_with_other_roles_are_others() {
        let tokens = |text: &str| read(text).expect("fine");
        let known = Tokens::new(&tokens(&format!("read {A}\npush {B}")), [3, 4]);
        assert!(known.are(&tokens(&format!("# moved\npush {B}\nread {A}"))));
        for other in [format!("push {A}\npush {B}"), format!("read {A}"), B.to_owned()] {
            assert!(!known.are(&tokens(&other)), "{other}");
        }
    }
}
