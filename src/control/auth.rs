//! Who may use the admin API.
//!
//! With a token: whoever has it. Without one: whoever is on this machine, which the address sees
//! to, and no page in a browser on this machine. A browser does send requests of foreign pages to
//! 127.0.0.1; it says `Origin` then, or, where a name was made to point here, another `Host`.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::limits;
use crate::control::api::problem::{Kind, Problem};

/// A secret that whoever asks must know. Kept as a keyed hash, which is also how it is compared:
/// how long that takes says nothing about the secret.
#[derive(Clone)]
pub struct Token {
    key: [u64; 2],
    digest: (u64, u64),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a file has no token.
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
    /// It is too short or too long, or not what can stand in a header.
    #[error(
        "{} has no token; expected one line of {} to {} visible ASCII characters, as from \
         `openssl rand -hex 32`",
        path.display(),
        limits::ADMIN_TOKEN_BYTES_MIN,
        limits::ADMIN_TOKEN_BYTES_MAX
    )]
    NoToken {
        /// Which file.
        path: PathBuf,
    },
}

/// The token in a file, without the space around it.
///
/// # Errors
/// When there is none, or it could be guessed.
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let unreadable = |cause| TokenError::Unreadable { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let most = limits::ADMIN_TOKEN_BYTES_MAX as u64 + 3;
    file.take(most).read_to_string(&mut text).map_err(unreadable)?;
    let token = text.trim();
    let fits =
        (limits::ADMIN_TOKEN_BYTES_MIN..=limits::ADMIN_TOKEN_BYTES_MAX).contains(&token.len());
    if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::NoToken { path: path.to_owned() });
    }
    Ok(token.to_owned())
}

impl Token {
    /// Takes `secret` as the token; `key` is random.
    pub fn new(secret: &str, key: [u64; 2]) -> Self {
        Self { key, digest: digest(key, secret.as_bytes()) }
    }

    /// Whether this is it.
    pub fn is(&self, said: &[u8]) -> bool {
        digest(self.key, said) == self.digest
    }
}

fn digest(key: [u64; 2], bytes: &[u8]) -> (u64, u64) {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    std::hash::Hasher::write(&mut hasher, bytes);
    let hash = hasher.finish128();
    (hash.h1, hash.h2)
}

/// Lets in who may use the API. `token` is `None` where only this machine can connect.
pub(crate) fn check(token: Option<&Token>, headers: &HeaderMap) -> Result<(), Problem> {
    refuse_foreign_pages(headers)?;
    let Some(token) = token else { return require_own_name(headers) };
    let said = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let said = said.and_then(|said| said.split_at_checked("Bearer ".len()));
    match said {
        Some((scheme, said)) if scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(said) => Ok(()),
        _ => Err(Problem::new(Kind::Unauthorized, "expected Authorization: Bearer and the token")),
    }
}

/// A page that was not served here may not ask here.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let foreign = || Problem::new(Kind::Foreign, "a page from elsewhere may not ask here");
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(foreign());
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let own = headers.get(header::HOST).map(|host| host.as_bytes());
    match origin.as_bytes().strip_prefix(b"http://") {
        Some(origin) if Some(origin) == own => Ok(()),
        _ => Err(foreign()),
    }
}

/// The name in `Host` must be one that no stranger can make point here.
fn require_own_name(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_address = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_address || name.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    let detail = "without a token the API answers to localhost and loopback addresses only";
    Err(Problem::new(Kind::Foreign, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn without_a_token_this_machine_may_ask_and_no_page_in_its_browser() {
        let kind =
            |lines: &[(&'static str, &str)]| check(None, &headers(lines)).map_err(|p| p.kind);
        for host in ["127.0.0.1:7071", "127.0.0.1", "localhost:7071", "LocalHost", "[::1]:7071"] {
            assert_eq!(kind(&[("host", host)]), Ok(()), "{host}");
        }
        for host in ["", "evil.example:7071", "127.0.0.1.evil.example", "10.0.0.1:7071", "[::2]"] {
            assert_eq!(kind(&[("host", host)]), Err(Kind::Foreign), "{host}");
        }
        let own = ("host", "localhost:7071");
        assert_eq!(kind(&[own, ("origin", "http://localhost:7071")]), Ok(()));
        assert_eq!(kind(&[own, ("sec-fetch-site", "none")]), Ok(()));
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(kind(&[own, foreign]), Err(Kind::Foreign), "{foreign:?}");
        }
        assert_eq!(kind(&[]), Err(Kind::Foreign));
    }

    #[test]
    fn with_a_token_only_whoever_has_it_may_ask() {
        let token = Token::new("0123456789abcdef", [1, 2]);
        let kind = |value: &str| {
            let lines = [("host", "gate.example"), ("authorization", value)];
            check(Some(&token), &headers(&lines)).map_err(|problem| problem.kind)
        };
        assert_eq!(kind("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(kind("bearer 0123456789abcdef"), Ok(()));
        for wrong in ["", "Bearer ", "Bearer 0123456789abcdeF", "Basic 0123456789abcdef", "Bear"] {
            assert_eq!(kind(wrong), Err(Kind::Unauthorized), "{wrong}");
        }
        let nothing = check(Some(&token), &headers(&[("host", "localhost")]));
        assert_eq!(nothing.map_err(|problem| problem.kind), Err(Kind::Unauthorized));
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn a_token_is_one_long_word_in_a_file() {
        let folder = tempfile::tempdir().expect("there is room for a file");
        let path = folder.path().join("token");
        assert!(matches!(read_token(&path), Err(TokenError::Unreadable { .. })));
        for (text, expected) in [
            ("0123456789abcdef\n", Some("0123456789abcdef")),
            ("  0123456789abcdef", Some("0123456789abcdef")),
            ("0123456789abcde", None),
            ("", None),
            ("0123456789 abcdef", None),
            ("0123456789abcdef\nsecond", None),
        ] {
            std::fs::write(&path, text).expect("there is room");
            assert_eq!(read_token(&path).ok().as_deref(), expected, "{text:?}");
        }
        std::fs::write(&path, "a".repeat(2_000)).expect("there is room");
        assert!(read_token(&path).is_err());
    }
}
