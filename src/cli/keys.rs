//! What is known of each key of `serve`: what it is in effect, and whether a running gateway takes
//! another value.
//!
//! `check-config`, the reload, the annotated example file and the table in the manual all come out
//! of this one.

use crate::base::admission::Rate;
use crate::base::config::{Class, Duplicate, Preset, ProbePolicy, UserTimeout};
use crate::base::time::Span;
use crate::cli::args::admission::{bits_text, rate_text};
use crate::cli::args::messages::POLICIES;
use crate::cli::args::tls::{CLIENT_CERTS, CLIENT_NAMES, ClientName};
use crate::cli::args::{
    DESCRIPTORS, DRIVERS, Descriptors, DriverChoice, IDENTITIES, IdentityKind, LOG_FORMATS,
    LOG_LEVELS, MODES,
};
use crate::cli::config::ServeOptions;
use crate::cli::tls::ClientCerts;
use crate::cli::values::DUPLICATES;
use crate::cli::webhooks::target_text;
use crate::control::events::EventsTarget;
use crate::control::webhook::target::Target;

/// What becomes of another value while the gateway runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnReload {
    /// It holds from then on.
    Applied,
    /// It is told and left alone: it holds from the next start on.
    Restart,
}

impl OnReload {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Applied => "reload",
            Self::Restart => "restart",
        }
    }
}

/// One key.
pub struct Key {
    /// As it stands in the file, and behind `--` as a flag.
    pub name: &'static str,
    /// What a reload does with it.
    pub on_reload: OnReload,
    /// What it is in effect, as one would type it behind the flag; `None`: there is none.
    pub value: fn(&ServeOptions) -> Option<String>,
    /// A value for the example file, where the default is none that could be typed.
    pub sample: Option<&'static str>,
}

const fn key(
    name: &'static str,
    on_reload: OnReload,
    value: fn(&ServeOptions) -> Option<String>,
) -> Key {
    Key { name, on_reload, value, sample: None }
}

impl Key {
    const fn such_as(self, sample: &'static str) -> Self {
        Self { sample: Some(sample), ..self }
    }
}

use OnReload::{Applied, Restart};

/// Every key but `config`, which only a flag or a variable can give.
pub static KEYS: &[Key] = &[
    key("listen", Restart, |o| Some(o.listener.address.to_string())),
    key("node", Restart, |o| o.node.clone()).such_as("gate-1"),
    key("shards", Restart, |o| Some(o.shards.to_string())),
    key("preset", Applied, |o| {
        let preset = Preset::ALL.into_iter().find(|preset| preset.rhythm() == o.gateway.rhythm);
        preset.map(|preset| preset.word().to_owned())
    }),
    key("interval", Applied, |o| span(o.gateway.rhythm.interval)),
    key("timeout", Applied, |o| span(o.gateway.rhythm.timeout)),
    key("mode", Restart, |o| word(&MODES, o.gateway.mode)),
    key("min-interval", Applied, |o| span(o.gateway.interval_wish_min)),
    key("probe", Applied, |o| Some(probe(o.gateway.probe))),
    key("tick", Restart, |o| span(o.gateway.tick)),
    key("coalesce", Applied, |o| span(o.coalesce)),
    key("grace", Applied, |o| span(o.gateway.grace)),
    key("duplicate", Applied, |o| word(&DUPLICATES, o.gateway.duplicate)),
    key("class", Applied, |o| {
        let classes = o.gateway.classes_in_force();
        let texts: Vec<_> =
            classes.map(|(name, class)| format!("{name}:{}", class_text(class))).collect();
        (!texts.is_empty()).then(|| texts.join(";"))
    })
    .such_as("lock"),
    key("max-connections", Applied, |o| Some(o.gateway.connections_max.to_string())),
    key("handshake-timeout", Applied, |o| span(o.gateway.handshake_timeout)),
    key("frame-timeout", Applied, |o| span(o.gateway.frame_timeout)),
    key("max-payload", Restart, |o| Some(o.gateway.payload_bytes_max.to_string())),
    key("outbox-bytes", Applied, |o| Some(o.gateway.outbox_bytes_max.to_string())),
    // The loops divide it, and what is on somebody's account is measured by it.
    key("up-bytes", Restart, |o| Some(o.gateway.up_bytes_max.to_string())),
    key("address-connections", Applied, |o| bound(o.gateway.admission.address.connections))
        .such_as("256"),
    key("address-connects", Applied, |o| rate(o.gateway.admission.address.connects))
        .such_as("20/s:200"),
    key("prefix-connections", Applied, |o| bound(o.gateway.admission.prefix.connections))
        .such_as("4096"),
    key("prefix-connects", Applied, |o| rate(o.gateway.admission.prefix.connects))
        .such_as("100/s:2000"),
    // Whoever is counted is taken off by the same bits.
    key("address-bits", Restart, |o| Some(bits_text(o.gateway.admission.address.bits))),
    key("prefix-bits", Restart, |o| Some(bits_text(o.gateway.admission.prefix.bits))),
    key("accept-rate", Applied, |o| rate(o.gateway.admission.accepts)).such_as("20000/s:40000"),
    key("newcomer-rate", Applied, |o| rate(o.gateway.admission.newcomers)).such_as("2000/s:4000"),
    key("client-frames", Applied, |o| rate(o.gateway.client_limits.frames)).such_as("50/s:500"),
    key("client-bytes", Applied, |o| rate(o.gateway.client_limits.bytes))
        .such_as("65536/s:1048576"),
    key("client-beats", Applied, |o| rate(o.gateway.client_limits.beats)).such_as("1/s:20"),
    // `none` is like saying nothing, and stands beside none of the keys below.
    key("identity", Applied, |o| {
        word(&IDENTITIES, o.identity.kind).filter(|_| o.identity.kind != IdentityKind::None)
    })
    .such_as("jwt"),
    key("identity-file", Applied, |o| Some(o.identity.file.as_ref()?.display().to_string()))
        .such_as("/etc/heartwheel/identity"),
    key("identity-issuer", Applied, |o| o.identity.claims.issuer.clone())
        .such_as("https://login.example"),
    key("identity-audience", Applied, |o| o.identity.claims.audience.clone()).such_as("gate"),
    key("identity-url", Applied, |o| Some(o.identity.hook.as_ref()?.url.to_string()))
        .such_as("https://backend.example/may-come-in"),
    key("identity-secret-file", Applied, |o| {
        Some(o.identity.hook.as_ref()?.secret_file.as_ref()?.display().to_string())
    })
    .such_as("/etc/heartwheel/identity.key"),
    key("identity-ca-file", Applied, |o| {
        Some(o.identity.hook.as_ref()?.ca_file.as_ref()?.display().to_string())
    })
    .such_as("/etc/heartwheel/identity-ca.pem"),
    key("identity-timeout", Applied, |o| span(o.identity.hook.as_ref()?.timeout)).such_as("3s"),
    key("identity-cache", Applied, |o| Some(o.identity.hook.as_ref()?.cache_entries.to_string()))
        .such_as("100000"),
    key("identity-cache-age", Applied, |o| span(o.identity.hook.as_ref()?.cache_age))
        .such_as("60s"),
    key("queue-bytes", Applied, |o| Some(o.gateway.queue.bytes_max.to_string())),
    key("queue-ttl", Applied, |o| span(o.gateway.queue.ttl)),
    key("slow-policy", Applied, |o| word(&POLICIES, o.gateway.queue.slow)),
    key("broadcast-rate", Applied, |o| Some(o.gateway.broadcast_per_second.to_string())),
    key("proxy-from", Applied, |o| {
        let proxies = &o.edge.proxies;
        (!proxies.is_empty()).then(|| proxies.to_string())
    })
    .such_as("10.0.0.0/8,fd00::/8"),
    key("websocket", Applied, |o| Some(switch(o.edge.has_websocket))),
    key("websocket-origin", Applied, |o| {
        let origins = &o.edge.websocket.origins;
        (!origins.is_empty()).then(|| origins.to_string())
    })
    .such_as("https://example.org,http://localhost:8080"),
    key("websocket-path", Applied, |o| Some(o.edge.websocket.path.as_ref()?.to_string()))
        .such_as("/live"),
    key("tls-cert", Applied, |o| Some(o.edge.tls.as_ref()?.cert.display().to_string()))
        .such_as("/etc/heartwheel/cert.pem"),
    key("tls-key", Applied, |o| Some(o.edge.tls.as_ref()?.key.display().to_string()))
        .such_as("/etc/heartwheel/key.pem"),
    key("tls-only", Applied, |o| Some(switch(o.edge.tls.as_ref().is_some_and(|tls| tls.only)))),
    key("tls-client-ca", Applied, |o| Some(clients(o)?.ca.display().to_string()))
        .such_as("/etc/heartwheel/clients.pem"),
    key("tls-crl", Applied, |o| Some(clients(o)?.crl.as_ref()?.display().to_string()))
        .such_as("/etc/heartwheel/revoked.pem"),
    key("tls-client-cert", Applied, |o| word(&CLIENT_CERTS, clients(o)?.cert)).such_as("required"),
    // The loops are told at the start.
    key("tls-client-name", Restart, |o| {
        let name = if o.gateway.certified_ids { ClientName::Id } else { ClientName::None };
        word(&CLIENT_NAMES, name)
    }),
    key("keepalive", Restart, |o| Some(switch(o.listener.keepalive.is_some()))),
    key("keepalive-idle", Restart, |o| span(o.listener.keepalive?.idle)),
    key("keepalive-interval", Restart, |o| span(o.listener.keepalive?.interval)),
    key("keepalive-count", Restart, |o| Some(o.listener.keepalive?.count.to_string())),
    key("user-timeout", Restart, |o| match o.gateway.user_timeout {
        UserTimeout::FollowTimeout => Some("follow".to_owned()),
        UserTimeout::Fixed(fixed) => span(fixed),
        UserTimeout::Off => Some("off".to_owned()),
    }),
    key("driver", Restart, |o| word::<DriverChoice>(&DRIVERS, o.driver)),
    key("descriptors", Restart, |o| word::<Descriptors>(&DESCRIPTORS, o.descriptors)),
    key("drain-timeout", Applied, |o| span(o.gateway.drain_timeout)),
    key("drain-notice", Applied, |o| span(o.gateway.drain_notice)),
    key("reconnect-window", Applied, |o| {
        let (from, to) = o.gateway.reconnect_window;
        Some(format!("{}..{}", exact(from), exact(to)))
    }),
    key("events", Restart, |o| target(&o.events)).such_as("/var/log/heartwheel/events.jsonl"),
    key("journal", Restart, |o| Some(o.journal.as_ref()?.folder.display().to_string()))
        .such_as("/var/lib/heartwheel/journal"),
    key("journal-segment-bytes", Restart, |o| Some(o.journal.as_ref()?.segment_bytes.to_string()))
        .such_as("67108864"),
    key("journal-retain-bytes", Restart, |o| Some(o.journal.as_ref()?.retain_bytes.to_string()))
        .such_as("1073741824"),
    key("transport-events", Restart, |o| target(&o.transport_events))
        .such_as("/var/log/heartwheel/transport.jsonl"),
    key("webhook", Applied, |o| {
        let text = |target: &Target| format!("{}:{}", target.name, target_text(target));
        let texts: Vec<_> = o.webhooks.iter().map(text).collect();
        (!texts.is_empty()).then(|| texts.join(";"))
    })
    .such_as("audit"),
    key("admin", Restart, |o| {
        Some(o.admin.address.map_or("off".to_owned(), |address| address.to_string()))
    }),
    key("admin-token-file", Applied, |o| Some(o.admin.token_file.as_ref()?.display().to_string()))
        .such_as("/etc/heartwheel/token"),
    key("admin-tls-cert", Applied, |o| {
        Some(o.admin.tls.as_ref()?.certificate.display().to_string())
    })
    .such_as("/etc/heartwheel/admin.pem"),
    key("admin-tls-key", Applied, |o| Some(o.admin.tls.as_ref()?.key.display().to_string()))
        .such_as("/etc/heartwheel/admin.key"),
    key("admin-cors", Applied, |o| {
        let origins: Vec<_> = o.admin.origins.iter().map(ToString::to_string).collect();
        (!origins.is_empty()).then(|| origins.join(","))
    })
    .such_as("https://ops.example"),
    key("log-format", Restart, |o| word(&LOG_FORMATS, o.log_format)),
    key("log-level", Applied, |o| word(&LOG_LEVELS, o.log_level)),
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// What a class is, key by key, as behind `--class NAME:`.
pub fn class_text(class: &Class) -> String {
    let settings = class_settings(class).map(|(key, value)| format!("{key}={value}"));
    settings.join(",")
}

/// What a class is, key by key.
pub fn class_settings(class: &Class) -> [(&'static str, String); 5] {
    let duplicate: Option<String> = word::<Duplicate>(&DUPLICATES, class.duplicate);
    [
        ("interval", exact(class.rhythm.interval)),
        ("timeout", exact(class.rhythm.timeout)),
        ("probe", probe(class.probe)),
        ("grace", exact(class.grace)),
        ("duplicate", duplicate.unwrap_or_default()),
    ]
}

fn bound(limit: Option<u32>) -> Option<String> {
    limit.map(|limit| limit.to_string())
}

fn rate(limit: Option<Rate>) -> Option<String> {
    limit.map(rate_text)
}

#[expect(clippy::unnecessary_wraps, reason = "some values are not there at times")]
fn span(span: Span) -> Option<String> {
    Some(exact(span))
}

/// A length of time that is read as exactly the same.
pub(crate) fn exact(span: Span) -> String {
    let nanos = span.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")];
    let unit = units.into_iter().find(|(unit, _)| nanos.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "ns"));
    format!("{}{name}", nanos / unit)
}

fn probe(policy: ProbePolicy) -> String {
    match policy {
        ProbePolicy::Auto => "auto".to_owned(),
        ProbePolicy::Off => "off".to_owned(),
        ProbePolicy::Fixed(span) => exact(span),
    }
}

fn clients(options: &ServeOptions) -> Option<&ClientCerts> {
    options.edge.tls.as_ref()?.clients.as_ref()
}

fn switch(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.to_owned()
}

fn target(target: &EventsTarget) -> Option<String> {
    match target {
        EventsTarget::Nowhere => None,
        EventsTarget::Stdout => Some("-".to_owned()),
        EventsTarget::File(path) => Some(path.display().to_string()),
    }
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> Option<String> {
    words.iter().find(|(_, own)| *own == value).map(|(word, _)| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Mode;
    use crate::cli::args::ServeArgs;
    use crate::cli::layers;
    use crate::cli::values::parse_span;

    fn defaults() -> ServeOptions {
        ServeOptions::new(&ServeArgs::default()).expect("the defaults are fine")
    }

    #[test]
    fn every_key_says_what_a_reload_does_with_it() {
        let mut names = layers::key_names();
        names.retain(|name| name != "config");
        for name in &names {
            assert!(find(name).is_some(), "{name} has no row in cli/keys.rs");
        }
        for key in KEYS {
            assert!(names.iter().any(|name| name == key.name), "{} is no key", key.name);
        }
        assert_eq!(names.len(), KEYS.len(), "one row each");
    }

    #[test]
    fn what_is_in_effect_is_read_as_the_same_again() {
        let flags = ["--interval", "1500ms", "--timeout", "12345ms", "--class", "lock:grace=9s"];
        let hook = ["--webhook", "a:url=http://b/,streams=messages,topics=x%2By+z"];
        let more = ["--journal", "/j", "--events", "-", "--probe", "333ms", "--node", "north"];
        let options = layers::options_of(&[&flags[..], &hook[..], &more[..]].concat());
        let typed: Vec<String> = KEYS
            .iter()
            .filter(|key| key.name != "preset")
            .filter_map(|key| Some(format!("--{}={}", key.name, (key.value)(&options)?)))
            .collect();
        let again = layers::options_of(&typed);
        for key in KEYS {
            assert_eq!((key.value)(&options), (key.value)(&again), "{}", key.name);
        }
        assert!(typed.contains(&"--timeout=12345ms".to_owned()), "{typed:?}");
    }

    /// What `--help` promises as a default is the default.
    #[test]
    fn the_help_names_the_defaults() {
        let options = defaults();
        for (name, help, _) in layers::helps() {
            let Some(key) = find(&name) else { continue };
            // Two keys stand in place of a preset, which has a default.
            let Some((_, said)) = help.rsplit_once("(default: ") else {
                assert!(help.contains("instead of a preset"), "{name}: no default in: {help}");
                continue;
            };
            let said = said.split([',', ')']).next().unwrap_or_default();
            if let Some(value) = (key.value)(&options).filter(|_| key.sample.is_none())
                && !said.starts_with("the ")
                && !said.starts_with("what ")
            {
                // A length of time may be said in another unit.
                let is_same =
                    matches!((parse_span(said), parse_span(&value)), (Ok(a), Ok(b)) if a == b);
                assert!(is_same || said == value, "{name}: {said} is not {value}");
            }
        }
    }

    /// The table in the manual.
    #[test]
    fn the_manual_says_of_every_key_whether_it_takes_a_restart() {
        let manual = include_str!("../manual/operating.md");
        for key in KEYS {
            let row = format!("| `{}` | {} |", key.name, key.on_reload.word());
            assert!(manual.contains(&row), "{row}");
        }
        let rows = manual.lines().filter(|line| line.starts_with("| `"));
        let rows =
            rows.filter(|line| line.contains("` | reload |") || line.contains("` | restart |"));
        assert_eq!(rows.count(), KEYS.len(), "and of no other");
    }

    #[test]
    fn a_word_of_every_kind_is_known() {
        assert_eq!(word(&MODES, Mode::Either).as_deref(), Some("either"));
        assert_eq!(exact(Span::from_nanos(1_500)), "1500ns");
        assert_eq!(exact(Span::ZERO), "0s");
    }
}
