//! Where a page in a browser comes from.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::base::limits;

/// Where a page comes from, as a browser says it in `Origin`: scheme, host, and the port where it
/// does not go without saying; in small letters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin(Box<str>);

/// Not an origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "expected an origin as a browser says it, such as https://ops.example or \
     http://127.0.0.1:3000: a scheme, a host, perhaps a port, no path"
)]
pub struct NoOrigin;

impl Origin {
    /// Whether a browser that says this means it. Browsers have one way to say it, so nothing but
    /// that is it.
    pub fn is_said_by(&self, said: &[u8]) -> bool {
        self.0.as_bytes() == said
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let text = text.trim().to_ascii_lowercase();
        if text.len() > limits::ORIGIN_BYTES_MAX {
            return Err(NoOrigin);
        }
        let (scheme, authority) = text.split_once("://").ok_or(NoOrigin)?;
        // Whatever it is: extensions and the pages of apps have schemes of their own.
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => (&authority[..at], Some(port(&authority[at + 1..])?)),
            None => (authority, None),
        };
        if !is_scheme || !is_host(host) {
            return Err(NoOrigin);
        }
        let port = match (scheme, port) {
            // Browsers leave out what goes without saying.
            ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        Ok(Self(format!("{scheme}://{host}{port}").into()))
    }
}

fn port(text: &str) -> Result<u16, NoOrigin> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0).ok_or(NoOrigin)
}

/// A name in ASCII, as browsers write all of them, or an address.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']');
        // In the one short form that there is.
        return address.is_some_and(|text| {
            text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_string() == text)
        });
    }
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_browsers_say_it() {
        for (text, expected) in [
            ("https://ops.example", "https://ops.example"),
            ("https://OPS.example:443", "https://ops.example"),
            (" http://a ", "http://a"),
            ("http://a:443", "http://a:443"),
            ("https://a:80", "https://a:80"),
            ("http://a:080", "http://a"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[2001:DB8::1]:7", "http://[2001:db8::1]:7"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://my_host", "https://my_host"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            let origin: Origin = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(origin.to_string(), expected);
            assert!(origin.is_said_by(expected.as_bytes()));
        }
    }

    #[test]
    fn what_no_browser_says_is_none() {
        for text in [
            "",
            "*",
            "null",
            "ops.example",
            "https://",
            "://a",
            "1a://b",
            "ht tp://a",
            "https://a b",
            "https://ops.example/",
            "https://ops.example/page",
            "https://ops.example?x",
            "https://ops.example#",
            "https://*.example",
            "https://user@ops.example",
            "https://bücher.example",
            "https://a:",
            "https://a:0",
            "https://a:+7",
            "https://a:65536",
            "https://a:7:8",
            "http://::1",
            "http://[::1",
            "http://[0:0:0:0:0:0:0:1]",
            "http://[::1]x",
            "https://a,https://b",
            "https://a\\b",
            &format!("https://{}", "a".repeat(300)),
        ] {
            assert_eq!(text.parse::<Origin>(), Err(NoOrigin), "{text}");
        }
    }

    #[test]
    fn nothing_but_the_whole_of_it_is_it() {
        let origin: Origin = "https://ops.example".parse().expect("an origin");
        for other in [
            "",
            "null",
            "https://ops.exampl",
            "https://ops.example.evil.example",
            "https://ops.example:443",
            "https://ops.example/",
            "HTTPS://ops.example",
            "https://OPS.example",
            "http://ops.example",
        ] {
            assert!(!origin.is_said_by(other.as_bytes()), "{other}");
        }
    }
}
