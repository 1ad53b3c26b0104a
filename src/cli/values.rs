//! One value as typed, one value as meant: how long, where, which of several words.
//!
//! Flags, environment and file all read their values here, so a value means the same wherever it
//! stands.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::base::config::{Duplicate, ProbePolicy, UserTimeout};
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::admin::AdminArg;
use crate::control::caller::Place;
use crate::control::events::EventsTarget;
use crate::control::webhook::target::{Stream, UrlError};

/// Why a text is not the value that was asked for. Shown after the flag's or key's name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// Not a length of time.
    #[error("expected a length of time such as 250ms, 15s or 4min: {cause}")]
    Span {
        /// What the reader stumbled over.
        cause: humantime::DurationError,
    },
    /// Longer than can be counted in nanoseconds.
    #[error("expected a length of time below 500 years")]
    SpanTooLong,
    /// Not two lengths of time.
    #[error("expected two lengths of time, shorter first, such as 1s..10s")]
    Window,
    /// Not an address with a port.
    #[error("expected an address and a port such as 127.0.0.1:7070 or [::1]:7070")]
    Address,
    /// A name without an address.
    #[error("no address is known for this name: {cause}")]
    Unresolved {
        /// What the resolver said.
        cause: String,
    },
    /// Not a way to probe.
    #[error("expected auto, off or a length of time such as 5s")]
    Probe,
    /// Not a number of shards.
    #[error("expected auto or a number from 1 to {}", limits::SHARDS_MAX)]
    Shards,
    /// Not a policy for second logins.
    #[error("expected take-over or reject")]
    Duplicate,
    /// Not a class.
    #[error(
        "expected a class such as lock:interval=15s,timeout=35s,grace=30s,duplicate=reject, \
         several of them with ';' between"
    )]
    Class,
    /// Not the name of a class.
    #[error(
        "expected a name of 1 to {} bytes without control characters and ';' before the ':'",
        limits::CLASS_BYTES_MAX
    )]
    ClassName,
    /// A key that classes do not have.
    #[error("unknown key '{}'; did you mean '{nearest}'?", key.escape_debug())]
    ClassKey {
        /// The key.
        key: String,
        /// The one that looks most like it.
        nearest: &'static str,
    },
    /// A key of a class that is given twice.
    #[error("{key} stands there twice")]
    ClassKeyTwice {
        /// The key.
        key: String,
    },
    /// Not a webhook.
    #[error(
        "expected a webhook such as audit:url=https://backend.example/hook,secret-file=/etc/key, \
         several of them with ';' between, and %2C and %3B for ',' and ';' in a URL"
    )]
    Webhook,
    /// Not the name of a webhook.
    #[error(
        "expected a name of 1 to {} letters, digits, '-', '_' and '.' before the ':'",
        limits::WEBHOOK_NAME_BYTES_MAX
    )]
    WebhookName,
    /// Not where a webhook could be.
    #[error(transparent)]
    WebhookUrl(UrlError),
    /// Not what a webhook could be sent.
    #[error("expected one or several of {} with + between, each once", stream_words())]
    WebhookStream,
    /// Not topics.
    #[error(
        "expected 1 to {} topics of at most {} bytes with + between; a + in one is %2B",
        limits::WEBHOOK_TOPICS_MAX,
        limits::TOPIC_BYTES_MAX
    )]
    WebhookTopics,
    /// Not a number.
    #[error("expected a whole number")]
    WebhookCount,
    /// Not where a webhook could begin.
    #[error("expected now or start")]
    WebhookFrom,
    /// Not a file.
    #[error("expected a path")]
    WebhookFile,
    /// Not a part of a whole.
    #[error("expected a percentage such as 10% or a fraction such as 0.1")]
    Fraction,
    /// No path at all.
    #[error("expected a path, or - for standard output")]
    Path,
}

fn stream_words() -> String {
    Stream::ALL.map(Stream::word).join(", ")
}

/// How many shards there shall be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShardsArg {
    /// One for each processor.
    Auto,
    /// So many.
    Count(u16),
}

/// A length of time such as `250ms`, `15s`, `4min`, `1h 30min`.
pub fn parse_span(text: &str) -> Result<Span, ValueError> {
    let duration = humantime::parse_duration(text).map_err(|cause| ValueError::Span { cause })?;
    match u64::try_from(duration.as_nanos()) {
        Ok(nanos) => Ok(Span::from_nanos(nanos)),
        Err(_) => Err(ValueError::SpanTooLong),
    }
}

/// Two lengths of time such as `1s..10s`, the first no longer than the second.
pub fn parse_window(text: &str) -> Result<(Span, Span), ValueError> {
    let (from, to) = text.split_once("..").ok_or(ValueError::Window)?;
    let window = (parse_span(from)?, parse_span(to)?);
    if window.0 > window.1 {
        return Err(ValueError::Window);
    }
    Ok(window)
}

/// A percentage such as `10%` or a fraction such as `0.1`, in parts of a million.
pub fn parse_fraction(text: &str) -> Result<u32, ValueError> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percentage) => (percentage, 100.0),
        None => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| ValueError::Fraction)?;
    if !(0.0..=whole).contains(&number) {
        return Err(ValueError::Fraction);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is 0 to a million"
    )]
    let parts = (number / whole * 1_000_000.0).round() as u32;
    Ok(parts)
}

/// `follow`, `off`, or a length of time.
pub fn parse_user_timeout(text: &str) -> Result<UserTimeout, ValueError> {
    match text {
        "follow" => Ok(UserTimeout::FollowTimeout),
        "off" => Ok(UserTimeout::Off),
        other => parse_span(other).map(UserTimeout::Fixed),
    }
}

/// `off`, or an address with a port.
pub fn parse_admin(text: &str) -> Result<AdminArg, ValueError> {
    match text {
        "off" => Ok(AdminArg::Off),
        other => parse_address(other).map(AdminArg::At),
    }
}

/// `auto`, `off`, or a length of time.
pub fn parse_probe(text: &str) -> Result<ProbePolicy, ValueError> {
    match text {
        "auto" => Ok(ProbePolicy::Auto),
        "off" => Ok(ProbePolicy::Off),
        other => parse_span(other).map(ProbePolicy::Fixed).map_err(|_| ValueError::Probe),
    }
}

/// `auto`, or a number of shards.
pub fn parse_shards(text: &str) -> Result<ShardsArg, ValueError> {
    if text == "auto" {
        return Ok(ShardsArg::Auto);
    }
    let count: u16 = text.parse().map_err(|_| ValueError::Shards)?;
    match count {
        1..=limits::SHARDS_MAX => Ok(ShardsArg::Count(count)),
        _ => Err(ValueError::Shards),
    }
}

/// `take-over` or `reject`.
pub fn parse_duplicate(text: &str) -> Result<Duplicate, ValueError> {
    let found = DUPLICATES.iter().find(|(word, _)| *word == text);
    found.map(|(_, duplicate)| *duplicate).ok_or(ValueError::Duplicate)
}

/// The policies for second logins.
pub static DUPLICATES: [(&str, Duplicate); 2] =
    [("take-over", Duplicate::TakeOver), ("reject", Duplicate::Reject)];

/// An address with a port. A name is looked up, and an IPv4 address of it is preferred.
pub fn parse_address(text: &str) -> Result<SocketAddr, ValueError> {
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(address);
    }
    match text.rsplit_once(':') {
        // A host with a colon is an IPv6 address that lacks its brackets.
        Some((host, port))
            if !host.is_empty() && !host.contains(':') && u16::from_str(port).is_ok() => {}
        Some(_) | None => return Err(ValueError::Address),
    }
    let unresolved = |cause: std::io::Error| ValueError::Unresolved { cause: cause.to_string() };
    let addresses: Vec<_> = text.to_socket_addrs().map_err(unresolved)?.collect();
    let preferred = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    preferred.copied().ok_or(ValueError::Address)
}

/// Where an admin API is: an address with a port, behind `https://` where it has TLS.
pub fn parse_gateway(text: &str) -> Result<Place, ValueError> {
    let Some(rest) = text.strip_prefix("https://") else {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        return parse_address(rest.strip_suffix('/').unwrap_or(rest)).map(Place::plain);
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let address = parse_address(authority)?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    Place::encrypted(address, host.trim_matches(['[', ']']), authority)
        .map_err(|_| ValueError::Address)
}

/// `-` for standard output, anything else is a path.
pub fn parse_events(text: &str) -> Result<EventsTarget, ValueError> {
    match text {
        "" => Err(ValueError::Path),
        "-" => Ok(EventsTarget::Stdout),
        path => Ok(EventsTarget::File(PathBuf::from(path))),
    }
}

/// One of several words, each of which means something.
pub fn choice<T>(words: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let possible = words.iter().map(|(word, _)| PossibleValue::new(*word));
    PossibleValuesParser::new(possible).map(move |typed| {
        let found = words.iter().find(|(word, _)| *word == typed);
        found.expect("the parser before this lets only these words through").1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_written_as_a_person_would() {
        for (text, millis) in [
            ("250ms", 250),
            ("15s", 15_000),
            ("4min", 240_000),
            ("4m", 240_000),
            ("1h 30min", 5_400_000),
            ("1m30s", 90_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_span(text), Ok(Span::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn shards_are_a_number_or_one_for_each_processor() {
        assert_eq!(parse_shards("auto"), Ok(ShardsArg::Auto));
        assert_eq!(parse_shards("1"), Ok(ShardsArg::Count(1)));
        assert_eq!(parse_shards("64"), Ok(ShardsArg::Count(64)));
        for text in ["", "0", "65", "-1", "2.5", "all", "99999999"] {
            assert_eq!(parse_shards(text), Err(ValueError::Shards), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_length_of_time_is_refused() {
        for text in ["", "15", "s", "-5s", "15 parsecs", "1..2", "99999999999999999999s"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        assert_eq!(parse_span("600years"), Err(ValueError::SpanTooLong));
    }

    #[test]
    fn a_window_is_two_lengths_of_time_shorter_first() {
        let secs = Span::from_secs;
        assert_eq!(parse_window("1s..10s"), Ok((secs(1), secs(10))));
        assert_eq!(parse_window("5s..5s"), Ok((secs(5), secs(5))));
        assert_eq!(parse_window("10s..1s"), Err(ValueError::Window));
        assert_eq!(parse_window("10s"), Err(ValueError::Window));
        assert!(parse_window("1s..").is_err());
    }

    #[test]
    fn the_user_timeout_follows_is_off_or_fixed() {
        assert_eq!(parse_user_timeout("follow"), Ok(UserTimeout::FollowTimeout));
        assert_eq!(parse_user_timeout("off"), Ok(UserTimeout::Off));
        assert_eq!(parse_user_timeout("20s"), Ok(UserTimeout::Fixed(Span::from_secs(20))));
        assert!(parse_user_timeout("on").is_err());
    }

    #[test]
    fn a_probe_is_automatic_off_or_fixed_and_a_second_login_wins_or_not() {
        assert_eq!(parse_probe("auto"), Ok(ProbePolicy::Auto));
        assert_eq!(parse_probe("off"), Ok(ProbePolicy::Off));
        assert_eq!(parse_probe("200ms"), Ok(ProbePolicy::Fixed(Span::from_millis(200))));
        assert_eq!(parse_probe("on"), Err(ValueError::Probe));
        assert_eq!(parse_duplicate("take-over"), Ok(Duplicate::TakeOver));
        assert_eq!(parse_duplicate("reject"), Ok(Duplicate::Reject));
        assert_eq!(parse_duplicate("both"), Err(ValueError::Duplicate));
    }

    #[test]
    fn addresses_have_a_port() {
        let v4 = SocketAddr::from(([127, 0, 0, 1], 7_070));
        assert_eq!(parse_address("127.0.0.1:7070"), Ok(v4));
        assert!(parse_address("[::1]:7070").is_ok_and(|address| address.is_ipv6()));
        for text in ["", "7070", ":7070", "127.0.0.1", "127.0.0.1:70707", "::1", "localhost:http"] {
            assert_eq!(parse_address(text), Err(ValueError::Address), "{text}");
        }
    }

    #[test]
    fn events_go_to_a_file_or_to_standard_output() {
        assert_eq!(parse_events("-"), Ok(EventsTarget::Stdout));
        assert_eq!(parse_events("a/b"), Ok(EventsTarget::File(PathBuf::from("a/b"))));
        assert_eq!(parse_events(""), Err(ValueError::Path));
    }
}
