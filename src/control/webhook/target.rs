//! What a webhook is to do: where, what, how much at once, how patiently. Data and its checks.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Authority;

use crate::base::limits;
use crate::base::time::Span;

/// One target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Its name, in the log, the metrics and the file of its position.
    pub name: String,
    /// Where batches go.
    pub url: TargetUrl,
    /// The file with the key of the signature; without one nothing is signed.
    pub secret_file: Option<PathBuf>,
    /// The file of the authorities that may vouch for the target; without one those of the machine.
    pub ca_file: Option<PathBuf>,
    /// What is sent there, each at most once.
    pub streams: Vec<Stream>,
    /// The topics of messages that are sent there; none named: all.
    pub topics: Vec<String>,
    /// Most entries of a batch.
    pub batch_max: usize,
    /// How long a batch gathers from its first entry on.
    pub batch_wait: Span,
    /// From the begin of an attempt to the answer's status.
    pub timeout: Span,
    /// Longest pause between two attempts.
    pub retry_max: Span,
    /// Where a target begins that has no position yet.
    pub from: Beginning,
}

/// A kind of thing that is told.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stream {
    /// The ledger: at least once, in order.
    Events,
    /// What clients send up: in order, and taken by the target before its client hears so.
    Messages,
    /// Comings and goings of connections: as far as there is room.
    Transport,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Events, Self::Messages, Self::Transport];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Messages => "messages",
            Self::Transport => "transport",
        }
    }
}

/// Where a target begins that has no position yet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Beginning {
    /// With what comes from now on; at the start of the program, with this boot.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Start,
}

/// An address of the web, taken apart. It is shown without what stands behind a question mark: that
/// may be a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetUrl {
    /// Whether the way there is encrypted.
    pub scheme: Scheme,
    /// The name or the address of the host, an IPv6 one without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as they stood there, for the `Host` line.
    pub authority: String,
    /// The rest, from the first slash on.
    pub path: String,
}

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Not the URL of a webhook.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "expected a URL such as https://backend.example/hook, http or https, of at most {} bytes, \
     without a user, a password and a fragment",
    limits::WEBHOOK_URL_BYTES_MAX
)]
pub struct UrlError;

impl FromStr for TargetUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // A fragment would be dropped in silence.
        if text.len() > limits::WEBHOOK_URL_BYTES_MAX || text.contains('#') {
            return Err(UrlError);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError)?;
        let (scheme, port_default) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            Some(_) | None => return Err(UrlError),
        };
        let authority = uri.authority().ok_or(UrlError)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(UrlError);
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port: port(authority)?.unwrap_or(port_default),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// The port, if one is said. Whatever stands behind the last colon and is none is an error.
fn port(authority: &Authority) -> Result<Option<u16>, UrlError> {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => Ok(None),
        Some(rest) => {
            let port = rest.strip_prefix(':').and_then(|digits| digits.parse().ok());
            port.filter(|port| *port > 0).map(Some).ok_or(UrlError)
        }
        None => Err(UrlError),
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme.word(), self.authority)
    }
}

/// Whether this can be a target's name. It is part of a file's name.
pub fn is_name(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=limits::WEBHOOK_NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(is_fine)
        && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, scheme, host, port, path) in [
            ("http://127.0.0.1:8080/hook", Scheme::Http, "127.0.0.1", 8_080, "/hook"),
            ("https://backend.example", Scheme::Https, "backend.example", 443, "/"),
            ("http://backend.example/a/b?c=d", Scheme::Http, "backend.example", 80, "/a/b?c=d"),
            ("https://[::1]:9/x", Scheme::Https, "::1", 9, "/x"),
            ("https://[2001:db8::1]/x", Scheme::Https, "2001:db8::1", 443, "/x"),
        ] {
            let url: TargetUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.scheme, url.host.as_str(), url.port), (scheme, host, port), "{text}");
            assert_eq!(url.path, path, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "backend.example",
            "/hook",
            "ftp://backend.example/",
            "http://",
            "http:///hook",
            "http://user:secret@backend.example/",
            "http://backend.example:0/",
            "http://backend.example:99999/",
            "http://backend.example:x/",
            "http://backend.example/a b",
            "http://backend.example/#top",
        ] {
            assert_eq!(text.parse::<TargetUrl>(), Err(UrlError), "{text}");
        }
        let long = format!("http://a/{}", "x".repeat(limits::WEBHOOK_URL_BYTES_MAX));
        assert_eq!(long.parse::<TargetUrl>(), Err(UrlError));
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        let url: TargetUrl = "https://a.example:44/b?token=secret".parse().expect("a URL");
        assert_eq!(url.to_string(), "https://a.example:44/b");
    }

    #[test]
    fn a_name_can_be_part_of_a_file_name() {
        for name in ["a", "audit-2", "A_b.c", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".a", "a/b", "a b", "ä", "a:b", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
