//! Who may use the admin API.
//!
//! With tokens: whoever has one whose role is enough. Without: whoever is on this machine, which
//! the address sees to, and no page in a browser on this machine. A browser does send requests of
//! foreign pages to 127.0.0.1; it says `Origin` then, or, where a name was made to point here,
//! another `Host`. Pages of an origin that was configured may ask like everybody else.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderValue, header};

use crate::base::origin::Origin;
use crate::control::api::problem::{Kind, Problem};
use crate::control::tokens::{Role, Tokens};
use crate::control::webhook::target::Scheme;

/// What is asked of whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// The tokens that count; `None` where only this machine can connect.
    pub tokens: Option<Tokens>,
    /// Where pages may come from that are not served here.
    pub origins: Vec<Origin>,
}

/// The connection that a request came by.
#[derive(Debug)]
pub(crate) struct Visit {
    /// How it came.
    pub(crate) scheme: Scheme,
    is_known: AtomicBool,
}

impl Visit {
    pub(crate) fn new(scheme: Scheme) -> Self {
        Self { scheme, is_known: AtomicBool::new(false) }
    }

    /// Whoever is there asked for something that it may ask for.
    pub(crate) fn note_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Whether it ever did.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }
}

/// Lets in whoever has the role that is needed.
pub(crate) fn check(
    guard: &Guard,
    scheme: Scheme,
    headers: &HeaderMap,
    needed: Role,
) -> Result<(), Problem> {
    refuse_foreign_pages(guard, scheme, headers)?;
    let Some(tokens) = &guard.tokens else { return require_own_name(headers) };
    let said = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let said = said.and_then(|said| said.split_at_checked("Bearer ".len()));
    let role = match said {
        Some((word, said)) if word.eq_ignore_ascii_case(b"Bearer ") => tokens.role_of(said),
        _ => None,
    };
    match role {
        Some(role) if role >= needed => Ok(()),
        Some(role) => Err(Problem::weak(role, needed)),
        None => Err(Problem::new(Kind::Unauthorized, "expected Authorization: Bearer and a token")),
    }
}

/// The origin of a page that is served elsewhere and may ask all the same.
pub(crate) fn welcome_origin<'a>(guard: &Guard, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    guard.origins.iter().any(|own| own.is_said_by(origin.as_bytes())).then_some(origin)
}

/// A page that was not served here may not ask here.
fn refuse_foreign_pages(guard: &Guard, scheme: Scheme, headers: &HeaderMap) -> Result<(), Problem> {
    let foreign = || Problem::new(Kind::Foreign, "a page from elsewhere may not ask here");
    if headers.get_all(header::ORIGIN).iter().nth(1).is_some() {
        // No browser says two, and whoever looks at them next may believe the other one.
        return Err(foreign());
    }
    if welcome_origin(guard, headers).is_some() {
        return Ok(());
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(foreign());
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let own = headers.get(header::HOST).map(|host| host.as_bytes());
    let host = origin.as_bytes().strip_prefix(scheme.word().as_bytes());
    match host.and_then(|rest| rest.strip_prefix(b"://")) {
        Some(origin) if Some(origin) == own => Ok(()),
        _ => Err(foreign()),
    }
}

/// Whether this name, or address without brackets, is always of this machine.
pub fn is_this_machine(name: &str) -> bool {
    let is_address = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_address || name.eq_ignore_ascii_case("localhost")
}

/// The name in `Host` must be one that no stranger can make point here.
fn require_own_name(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    if is_this_machine(name) {
        return Ok(());
    }
    let detail = "without a token the API answers to localhost and loopback addresses only";
    Err(Problem::new(Kind::Foreign, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tokens::read_tokens;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    fn tokens(text: &str) -> Option<Tokens> {
        let folder = tempfile::tempdir().expect("there is room for a file");
        let path = folder.path().join("token");
        std::fs::write(&path, text).expect("there is room");
        Some(Tokens::new(&read_tokens(&path).expect("fine"), [1, 2]))
    }

    #[test]
    fn without_a_token_this_machine_may_ask_and_no_page_in_its_browser() {
        let guard = Guard::default();
        let kind = |scheme, lines: &[(&'static str, &str)]| {
            check(&guard, scheme, &headers(lines), Role::Admin).map_err(|problem| problem.kind)
        };
        let plain = |lines: &[(&'static str, &str)]| kind(Scheme::Http, lines);
        for host in ["127.0.0.1:7071", "127.0.0.1", "localhost:7071", "LocalHost", "[::1]:7071"] {
            assert_eq!(plain(&[("host", host)]), Ok(()), "{host}");
        }
        for host in ["", "evil.example:7071", "127.0.0.1.evil.example", "10.0.0.1:7071", "[::2]"] {
            assert_eq!(plain(&[("host", host)]), Err(Kind::Foreign), "{host}");
        }
        let own = ("host", "localhost:7071");
        assert_eq!(plain(&[own, ("origin", "http://localhost:7071")]), Ok(()));
        assert_eq!(plain(&[own, ("sec-fetch-site", "none")]), Ok(()));
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:8080"),
            ("origin", "https://localhost:7071"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(plain(&[own, foreign]), Err(Kind::Foreign), "{foreign:?}");
        }
        assert_eq!(plain(&[]), Err(Kind::Foreign));
        // Under TLS our own pages come from https, and from nowhere else.
        let page = ("origin", "https://localhost:7071");
        assert_eq!(kind(Scheme::Https, &[own, page]), Ok(()));
        let plain_page = ("origin", "http://localhost:7071");
        assert_eq!(kind(Scheme::Https, &[own, plain_page]), Err(Kind::Foreign));
    }

    #[test]
    fn with_a_token_only_whoever_has_it_may_ask() {
        let guard = Guard { tokens: tokens("0123456789abcdef"), origins: Vec::new() };
        let kind = |value: &str| {
            let lines = [("host", "gate.example"), ("authorization", value)];
            let checked = check(&guard, Scheme::Http, &headers(&lines), Role::Admin);
            checked.map_err(|problem| problem.kind)
        };
        assert_eq!(kind("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(kind("bearer 0123456789abcdef"), Ok(()));
        for wrong in ["", "Bearer ", "Bearer 0123456789abcdeF", "Basic 0123456789abcdef", "Bear"] {
            assert_eq!(kind(wrong), Err(Kind::Unauthorized), "{wrong}");
        }
        let nothing = check(&guard, Scheme::Http, &headers(&[("host", "localhost")]), Role::Read);
        assert_eq!(nothing.map_err(|problem| problem.kind), Err(Kind::Unauthorized));
    }

    #[test]
    fn a_role_does_what_those_before_it_do_and_nothing_more() {
        let text = "read 0000000000000000\npush 1111111111111111\nadmin 2222222222222222\n";
        let guard = Guard { tokens: tokens(text), origins: Vec::new() };
        for (own, digit) in Role::ALL.into_iter().zip(0..) {
            let value = format!("Bearer {}", digit.to_string().repeat(16));
            let headers = headers(&[("authorization", &value)]);
            for needed in Role::ALL {
                let checked = check(&guard, Scheme::Http, &headers, needed);
                let expected = if own >= needed { Ok(()) } else { Err(Kind::Forbidden) };
                assert_eq!(checked.map_err(|problem| problem.kind), expected, "{own:?} {needed:?}");
            }
        }
    }

    #[test]
    fn a_page_of_a_configured_origin_asks_like_everybody_else() {
        let origins = vec!["https://ops.example".parse().expect("an origin")];
        let open = Guard { tokens: None, origins: origins.clone() };
        let locked = Guard { tokens: tokens("0123456789abcdef"), origins };
        let ask = |guard: &Guard, origin: &str, host: &str| {
            let lines = [("origin", origin), ("host", host), ("sec-fetch-site", "cross-site")];
            let checked = check(guard, Scheme::Http, &headers(&lines), Role::Read);
            checked.map_err(|problem| problem.kind)
        };
        assert_eq!(ask(&open, "https://ops.example", "localhost"), Ok(()));
        let elsewhere = ask(&open, "https://ops.example", "evil.example");
        assert_eq!(elsewhere, Err(Kind::Foreign), "a name that was made to point here");
        let no_token = ask(&locked, "https://ops.example", "gate.example");
        assert_eq!(no_token, Err(Kind::Unauthorized), "an origin is no token");
        for other in [
            "http://ops.example",
            "https://ops.example:8443",
            "https://ops.example.evil.example",
            "https://evil.example",
            "null",
        ] {
            assert_eq!(ask(&open, other, "localhost"), Err(Kind::Foreign), "{other}");
        }
        let page = ("origin", "https://ops.example");
        let mut two = headers(&[("host", "localhost"), page]);
        two.append(header::ORIGIN, HeaderValue::from_static("https://evil.example"));
        let checked = check(&open, Scheme::Http, &two, Role::Read);
        assert_eq!(checked.map_err(|problem| problem.kind), Err(Kind::Foreign), "one of two");
    }
}
