//! Webhooks: `--webhook NAME:KEY=VALUE,...`, and `[webhook.NAME]` in the file.
//!
//! Both become the same text, so a webhook means the same wherever it stands, and is refused with
//! the same words.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::base::limits;
use crate::base::time::Span;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::keys::exact;
use crate::cli::mistakes::Mistakes;
use crate::cli::reload::{Prepared, Taker};
use crate::cli::tables::{in_a_list, nearest_key};
use crate::cli::values::{ValueError, parse_span};
use crate::control::webhook::target::{self, Beginning, Scheme, Stream, Target, TargetUrl};
use crate::control::webhook::{Sources, Webhooks};

/// The keys of a webhook.
pub const WEBHOOK_KEYS: [&str; 10] = [
    "url",
    "secret-file",
    "ca-file",
    "streams",
    "topics",
    "batch-max",
    "batch-wait",
    "timeout",
    "retry-max",
    "from",
];
/// Those that are lists in the file.
pub const WEBHOOK_LISTS: [&str; 2] = ["streams", "topics"];
/// Those that are numbers in the file.
pub const WEBHOOK_NUMBERS: [&str; 1] = ["batch-max"];
/// What stands between the entries of a list in one text.
pub const LIST_DELIMITER: &str = "+";

/// A webhook as typed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WebhookArg {
    /// Its name.
    pub name: String,
    /// Where batches go.
    pub url: Option<TargetUrl>,
    /// File with the key of the signature.
    pub secret_file: Option<PathBuf>,
    /// File with those who may vouch for the target.
    pub ca_file: Option<PathBuf>,
    /// What is sent.
    pub streams: Option<Vec<Stream>>,
    /// Of which topics messages are sent.
    pub topics: Option<Vec<String>>,
    /// Most entries of a batch.
    pub batch_max: Option<usize>,
    /// How long a batch gathers.
    pub batch_wait: Option<Span>,
    /// How long the target has to answer.
    pub timeout: Option<Span>,
    /// Longest pause between two attempts.
    pub retry_max: Option<Span>,
    /// Where it begins.
    pub from: Option<Beginning>,
}

/// `NAME:KEY=VALUE,KEY=VALUE`, with any of the [`WEBHOOK_KEYS`], each at most once.
pub fn parse_webhook(text: &str) -> Result<WebhookArg, ValueError> {
    let (name, settings) = text.split_once(':').ok_or(ValueError::Webhook)?;
    if !target::is_name(name) {
        return Err(ValueError::WebhookName);
    }
    let mut webhook = WebhookArg { name: name.to_owned(), ..WebhookArg::default() };
    for setting in settings.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
        let (key, value) = setting.split_once('=').ok_or(ValueError::Webhook)?;
        webhook.set(key.trim(), value.trim())?;
    }
    Ok(webhook)
}

impl WebhookArg {
    fn set(&mut self, key: &str, value: &str) -> Result<(), ValueError> {
        let is_first = match key {
            "url" => self.url.replace(value.parse().map_err(ValueError::WebhookUrl)?).is_none(),
            "secret-file" => self.secret_file.replace(path(value)?).is_none(),
            "ca-file" => self.ca_file.replace(path(value)?).is_none(),
            "streams" => self.streams.replace(streams(value)?).is_none(),
            "topics" => self.topics.replace(topics(value)?).is_none(),
            "batch-max" => self.batch_max.replace(count(value)?).is_none(),
            "batch-wait" => self.batch_wait.replace(parse_span(value)?).is_none(),
            "timeout" => self.timeout.replace(parse_span(value)?).is_none(),
            "retry-max" => self.retry_max.replace(parse_span(value)?).is_none(),
            "from" => self.from.replace(beginning(value)?).is_none(),
            _ => {
                let nearest = nearest_key(&WEBHOOK_KEYS, key);
                return Err(ValueError::ClassKey { key: key.to_owned(), nearest });
            }
        };
        if is_first { Ok(()) } else { Err(ValueError::ClassKeyTwice { key: key.to_owned() }) }
    }

    /// The keys that it says something about.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        let said = [
            self.url.is_some(),
            self.secret_file.is_some(),
            self.ca_file.is_some(),
            self.streams.is_some(),
            self.topics.is_some(),
            self.batch_max.is_some(),
            self.batch_wait.is_some(),
            self.timeout.is_some(),
            self.retry_max.is_some(),
            self.from.is_some(),
        ];
        WEBHOOK_KEYS.into_iter().zip(said).filter_map(|(key, said)| said.then_some(key))
    }

    /// What this one says goes before what the other says.
    fn over(&self, lower: &Self) -> Self {
        Self {
            name: self.name.clone(),
            url: self.url.clone().or(lower.url.clone()),
            secret_file: self.secret_file.clone().or(lower.secret_file.clone()),
            ca_file: self.ca_file.clone().or(lower.ca_file.clone()),
            streams: self.streams.clone().or(lower.streams.clone()),
            topics: self.topics.clone().or(lower.topics.clone()),
            batch_max: self.batch_max.or(lower.batch_max),
            batch_wait: self.batch_wait.or(lower.batch_wait),
            timeout: self.timeout.or(lower.timeout),
            retry_max: self.retry_max.or(lower.retry_max),
            from: self.from.or(lower.from),
        }
    }

    /// What is sent, if there is such a thing.
    fn streams(&self, told: Told) -> Result<Vec<Stream>, String> {
        let streams = self.streams.clone().unwrap_or_else(|| vec![Stream::Events]);
        if streams.contains(&Stream::Transport) && told == Told::Untold {
            return Err("streams has transport, but there are no transport events; add \
                        transport-events with a file, such as /dev/null"
                .to_owned());
        }
        if self.topics.is_some() && !streams.contains(&Stream::Messages) {
            return Err("topics says which messages are sent, but streams has no messages; leave \
                        topics out, or add messages to streams"
                .to_owned());
        }
        Ok(streams)
    }

    /// The target, checked.
    fn meant(&self, told: Told) -> Result<Target, CliError> {
        let name = &self.name;
        let refuse = |text: String| Err(CliError::usage(format!("webhook {name}: {text}")));
        let Some(url) = self.url.clone() else {
            return refuse(
                "there is no url; expected one such as url=https://backend.example/hook".to_owned(),
            );
        };
        if self.ca_file.is_some() && url.scheme == Scheme::Http {
            return refuse(
                "ca-file says who vouches for the target, but url is http, where nobody does; \
                 leave it out, or take https"
                    .to_owned(),
            );
        }
        let streams = match self.streams(told) {
            Ok(streams) => streams,
            Err(text) => return refuse(text),
        };
        let span = |key: &str, typed: Option<Span>, min, max, default| {
            let span = typed.unwrap_or(default);
            if span < min || span > max {
                return Err(CliError::usage(format!(
                    "webhook {name}: {key} {span} is out of bounds; expected {min} to {max}"
                )));
            }
            Ok(span)
        };
        let batch_max = self.batch_max.unwrap_or(limits::WEBHOOK_BATCH_DEFAULT);
        if !(1..=limits::WEBHOOK_BATCH_MAX).contains(&batch_max) {
            let most = limits::WEBHOOK_BATCH_MAX;
            return refuse(format!("batch-max {batch_max} is out of bounds; expected 1 to {most}"));
        }
        Ok(Target {
            name: name.clone(),
            url,
            secret_file: self.secret_file.clone(),
            ca_file: self.ca_file.clone(),
            streams,
            topics: self.topics.clone().unwrap_or_default(),
            batch_max,
            batch_wait: span(
                "batch-wait",
                self.batch_wait,
                Span::ZERO,
                limits::WEBHOOK_WAIT_MAX,
                limits::WEBHOOK_WAIT_DEFAULT,
            )?,
            timeout: span(
                "timeout",
                self.timeout,
                limits::WEBHOOK_TIMEOUT_MIN,
                limits::WEBHOOK_TIMEOUT_MAX,
                limits::WEBHOOK_TIMEOUT_DEFAULT,
            )?,
            retry_max: span(
                "retry-max",
                self.retry_max,
                limits::WEBHOOK_RETRY_BASE,
                limits::WEBHOOK_RETRY_MAX,
                limits::WEBHOOK_RETRY_DEFAULT,
            )?,
            from: self.from.unwrap_or_default(),
        })
    }
}

/// Whether there are transport events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// There are.
    Told,
    /// The gateway was not told to tell them.
    Untold,
}

fn path(text: &str) -> Result<PathBuf, ValueError> {
    if text.is_empty() { Err(ValueError::WebhookFile) } else { Ok(PathBuf::from(text)) }
}

fn count(text: &str) -> Result<usize, ValueError> {
    text.parse().map_err(|_| ValueError::WebhookCount)
}

fn beginning(text: &str) -> Result<Beginning, ValueError> {
    match text {
        "now" => Ok(Beginning::Now),
        "start" => Ok(Beginning::Start),
        _ => Err(ValueError::WebhookFrom),
    }
}

fn streams(text: &str) -> Result<Vec<Stream>, ValueError> {
    let mut streams = Vec::new();
    for word in list(text)? {
        let known = Stream::ALL.into_iter().find(|stream| stream.word() == word);
        let stream = known.ok_or(ValueError::WebhookStream)?;
        if streams.contains(&stream) {
            return Err(ValueError::WebhookStream);
        }
        streams.push(stream);
    }
    if streams.is_empty() { Err(ValueError::WebhookStream) } else { Ok(streams) }
}

fn topics(text: &str) -> Result<Vec<String>, ValueError> {
    let topics = list(text)?;
    let fits = |topic: &String| topic.len() <= limits::TOPIC_BYTES_MAX;
    let is_fine = (1..=limits::WEBHOOK_TOPICS_MAX).contains(&topics.len());
    if is_fine && topics.iter().all(fits) { Ok(topics) } else { Err(ValueError::WebhookTopics) }
}

/// The entries of a list; what would be taken for something else is written as in a URL.
fn list(text: &str) -> Result<Vec<String>, ValueError> {
    let entries = text.split(LIST_DELIMITER).filter(|entry| !entry.is_empty());
    let decoded = entries.map(|entry| {
        let text = percent_decode_str(entry).decode_utf8();
        text.map(|text| text.into_owned()).map_err(|_| ValueError::Webhook)
    });
    decoded.collect()
}

/// Joins webhooks, the lower ones first: of two with one name, the upper one's keys go before the
/// lower one's.
#[must_use]
pub fn join(lower: Vec<WebhookArg>, upper: Vec<WebhookArg>) -> Vec<WebhookArg> {
    let mut joined = lower;
    for webhook in upper {
        match joined.iter_mut().find(|known| known.name == webhook.name) {
            Some(known) => *known = webhook.over(known),
            None => joined.push(webhook),
        }
    }
    joined
}

/// The targets as meant.
pub fn meant(typed: &[WebhookArg], told: Told) -> Result<Vec<Target>, CliError> {
    let typed = join(Vec::new(), typed.to_vec());
    if typed.len() > limits::WEBHOOKS_MAX {
        return Err(CliError::usage(format!(
            "{} webhooks are too many; expected at most {}",
            typed.len(),
            limits::WEBHOOKS_MAX
        )));
    }
    let mut wrong = Mistakes::default();
    let mut targets = Vec::new();
    for webhook in typed {
        match webhook.meant(told) {
            Ok(target) => targets.push(target),
            Err(error) => wrong.add(error),
        }
    }
    wrong.or(targets)
}

/// Whether the files of all targets can be used.
///
/// # Errors
/// Those that cannot, all of them.
pub fn check(targets: &[Target]) -> Result<(), CliError> {
    let mut wrong = Mistakes::default();
    for target in targets {
        let checked = Webhooks::check(std::slice::from_ref(target));
        wrong.keep(checked.map_err(|error| CliError::machine(error.to_string())), ());
    }
    wrong.or(())
}

/// What a target is, key by key, as behind `--webhook NAME:`; the URL without what may be secret.
pub fn settings(target: &Target) -> [(&'static str, Option<String>); 10] {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let streams: Vec<_> = target.streams.iter().map(|stream| stream.word()).collect();
    let topics: Vec<_> = target.topics.iter().map(|topic| in_a_list(topic)).collect();
    let from = match target.from {
        Beginning::Now => "now",
        Beginning::Start => "start",
    };
    [
        ("url", Some(target.url.to_string())),
        ("secret-file", path(&target.secret_file)),
        ("ca-file", path(&target.ca_file)),
        ("streams", Some(streams.join(LIST_DELIMITER))),
        ("topics", (!topics.is_empty()).then(|| topics.join(LIST_DELIMITER))),
        ("batch-max", Some(target.batch_max.to_string())),
        ("batch-wait", Some(exact(target.batch_wait))),
        ("timeout", Some(exact(target.timeout))),
        ("retry-max", Some(exact(target.retry_max))),
        ("from", Some(from.to_owned())),
    ]
}

/// The same as one text.
pub fn target_text(target: &Target) -> String {
    let said = settings(target).into_iter();
    let said = said.filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    said.collect::<Vec<_>>().join(",")
}

/// Takes up other targets at run time.
pub struct WebhooksTaker(pub Webhooks);

impl Taker for WebhooksTaker {
    fn prepare(&mut self, wanted: &ServeOptions) -> Result<Prepared, CliError> {
        let targets = wanted.webhooks.clone();
        check(&targets)?;
        let webhooks = self.0.clone();
        let commit = move || {
            if let Err(error) = webhooks.reload(targets) {
                tracing::error!("the webhooks go on as before: {error}");
            }
        };
        Ok(Prepared { changes: Vec::new(), commit: Box::new(commit) })
    }
}

/// Starts the webhooks; targets can be added, changed and removed later.
pub fn start(sources: Sources, targets: &[Target]) -> Result<Webhooks, CliError> {
    let webhooks = Webhooks::new(sources);
    let started = webhooks.reload(targets.to_vec());
    started.map_err(|error| CliError::machine(error.to_string()))?;
    Ok(webhooks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(text: &str) -> WebhookArg {
        parse_webhook(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refusal(text: &str) -> String {
        match parse_webhook(text) {
            Err(error) => error.to_string(),
            Ok(webhook) => meant(&[webhook], Told::Untold).expect_err("this is wrong").line(),
        }
    }

    #[test]
    fn a_webhook_is_a_name_and_its_keys() {
        let text = "audit:url=https://a.example:8443/hook?x=y,secret-file=/etc/key,ca-file=ca.pem,\
                    streams=events+messages+transport,topics=orders+a%2Bb,batch-max=10,\
                    batch-wait=0s,timeout=3s,retry-max=1min,from=start";
        let targets = meant(&[webhook(text)], Told::Told).expect("all is well");
        let expected = Target {
            name: "audit".to_owned(),
            url: "https://a.example:8443/hook?x=y".parse().expect("a URL"),
            secret_file: Some("/etc/key".into()),
            ca_file: Some("ca.pem".into()),
            streams: vec![Stream::Events, Stream::Messages, Stream::Transport],
            topics: vec!["orders".to_owned(), "a+b".to_owned()],
            batch_max: 10,
            batch_wait: Span::ZERO,
            timeout: Span::from_secs(3),
            retry_max: Span::from_secs(60),
            from: Beginning::Start,
        };
        assert_eq!(targets, [expected]);
        let default = &meant(&[webhook("a:url=http://b/")], Told::Untold).expect("fine")[0];
        assert_eq!(default.streams, [Stream::Events]);
        assert_eq!(default.batch_max, limits::WEBHOOK_BATCH_DEFAULT);
        assert_eq!(default.from, Beginning::Now);
    }

    #[test]
    fn the_upper_webhooks_keys_go_before_the_lower_ones() {
        let lower = vec![webhook("a:url=http://b/,timeout=5s"), webhook("c:url=http://d/")];
        let upper = vec![webhook("a:timeout=7s"), webhook("e:url=http://f/")];
        let expected = [
            webhook("a:url=http://b/,timeout=7s"),
            webhook("c:url=http://d/"),
            webhook("e:url=http://f/"),
        ];
        assert_eq!(join(lower, upper), expected);
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_said_in_one_line() {
        for (text, part) in [
            ("audit", "expected a webhook such as audit:url=https://backend.example/hook"),
            ("audit:url", "expected a webhook such as"),
            (":url=http://a/", "expected a name of 1 to 64"),
            ("a/b:url=http://a/", "expected a name of 1 to 64"),
            ("audit:", "webhook audit: there is no url; expected one such as url=https://"),
            ("audit:url=backend", "expected a URL such as https://backend.example/hook"),
            ("audit:url=http://u:p@b/", "without a user"),
            ("audit:uri=http://b/", "unknown key 'uri'; did you mean 'url'?"),
            ("audit:timeout=1s,timeout=2s", "timeout stands there twice"),
            (
                "audit:streams=event",
                "expected one or several of events, messages, transport with + between",
            ),
            ("audit:streams=", "expected one or several of events, messages"),
            ("audit:streams=events+events", "expected one or several of events, messages"),
            ("audit:batch-max=many", "expected a whole number"),
            ("audit:from=yesterday", "expected now or start"),
            ("audit:secret-file=", "expected a path"),
            ("a:url=http://b/,batch-max=0", "webhook a: batch-max 0 is out of bounds; expected 1 "),
            ("a:url=http://b/,timeout=1ms", "webhook a: timeout 1ms is out of bounds; expected "),
            ("a:url=http://b/,retry-max=2h", "webhook a: retry-max 7200s is out of bounds"),
            ("a:url=http://b/,batch-wait=2min", "webhook a: batch-wait 120s is out of bounds"),
            ("audit:topics=", "expected 1 to 64 topics of at most 255 bytes with + between"),
            ("a:url=http://b/,topics=t", "webhook a: topics says which messages are sent, but"),
            ("a:url=http://b/,ca-file=c", "webhook a: ca-file says who vouches"),
            ("a:url=http://b/,streams=transport", "webhook a: streams has transport, but there"),
        ] {
            let line = refusal(text);
            assert!(line.contains(part), "{text}: {part:?} is not in: {line}");
        }
        let many: Vec<_> = (0..=limits::WEBHOOKS_MAX).map(|n| webhook(&format!("w{n}:"))).collect();
        let line = meant(&many, Told::Untold).expect_err("too many").line();
        assert_eq!(line, "17 webhooks are too many; expected at most 16");
    }
}
