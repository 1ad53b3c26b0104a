//! Where the values of `serve` come from: flags, environment, file; the first that says something
//! wins.
//!
//! The three share one definition. A key of the file and a variable of the environment become the
//! flag of the same name and are read by the same parser, so they mean the same and are refused
//! with the same words, plus where they stand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::Error;
use clap::{Arg, ArgMatches, Args, FromArgMatches};
use toml::de::DeTable;

use crate::base::limits;
use crate::cli::args::ServeArgs;
use crate::cli::classes;
use crate::cli::error::CliError;
use crate::cli::kinds::{Kind, text_of};
use crate::cli::mistakes::Mistakes;
use crate::cli::origins::{self, Origins};
use crate::cli::tables;
use crate::cli::usage;
use crate::cli::webhooks;
use crate::os::file::read_at_most;

/// What the variables of the environment begin with.
const VARIABLE_PREFIX: &str = "HEARTWHEEL_";
/// The key that only flags and environment can give: a file does not name another file.
pub(crate) const KEY_CONFIG: &str = "config";
/// Keys that are tables of tables in the file.
pub(crate) const KEY_CLASS: &str = "class";
pub(crate) const KEY_WEBHOOK: &str = "webhook";

/// Joins what was typed as `flags` with the environment and with the file that either names.
///
/// # Errors
/// All that is wrong: the file cannot be read, or a key, a variable or a value is not understood.
pub fn join(
    flags: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<ServeArgs, CliError> {
    let (gathered, wrong) = gather(flags, variable);
    wrong.or(gathered.args)
}

/// What flags, environment and file say together.
#[derive(Debug, Default)]
pub struct Gathered {
    /// As far as it was understood.
    pub args: ServeArgs,
    /// Where each of it was said.
    pub origins: Origins,
}

/// Joins what was typed as `flags` with the environment and with the file that either names, and
/// notes all that is wrong on the way.
///
/// `variable` looks up a variable of the environment; an empty one counts as not set.
pub fn gather(
    flags: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> (Gathered, Mistakes) {
    let keys = Keys::new();
    let mut wrong = Mistakes::default();
    let environment = keys.read(environment_words(&keys, variable), &mut wrong);
    let mut named = Gathered::default();
    for layer in [&environment.matches, flags] {
        // What is wrong is noted below.
        let _ = update(&mut named.args, layer);
    }
    let file = named.args.config.as_deref().map(|path| {
        let text = read_file(path);
        let text = wrong.keep(text, String::new());
        let words = file_words(&keys, path, &text, &mut wrong);
        keys.read(words, &mut wrong)
    });
    let typed =
        Layer { origins: origins::of_flags(flags, keys.arguments()), matches: flags.clone() };
    let mut gathered = Gathered::default();
    for layer in file.into_iter().chain([environment, typed]) {
        wrong.keep(update(&mut gathered.args, &layer.matches), ());
        gathered.origins.speak_over(layer.origins);
    }
    (gathered, wrong)
}

/// The file that flags or environment name, if one of them does.
pub(crate) fn file_named(
    flags: &ArgMatches,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let typed = flags.get_one::<PathBuf>(KEY_CONFIG).cloned();
    let name = format!("{VARIABLE_PREFIX}{}", KEY_CONFIG.to_uppercase());
    typed.or_else(|| variable(&name).filter(|text| !text.is_empty()).map(PathBuf::from))
}

/// The names of all keys, `config` among them, in the order of `--help`.
#[cfg(test)]
pub(crate) fn key_names() -> Vec<String> {
    Keys::new().names().map(str::to_owned).collect()
}

/// What `--help` says of each key, and under which heading, in its order.
pub(crate) fn helps() -> Vec<(String, String, String)> {
    let keys = Keys::new();
    let help = |arg: &Arg| {
        let name = arg.get_long()?.to_owned();
        let heading = arg.get_help_heading().unwrap_or_default().to_owned();
        Some((name, arg.get_help().map(ToString::to_string).unwrap_or_default(), heading))
    };
    keys.arguments().filter_map(help).collect()
}

/// Whether a key's value stands without quotes in the file.
pub(crate) fn is_bare(name: &str) -> bool {
    let keys = Keys::new();
    let kind = keys.find(name).map(Kind::of);
    matches!(kind, Some(Kind::Number | Kind::Shards | Kind::Bound | Kind::Switch))
}

/// What one of the three says.
struct Layer {
    matches: ArgMatches,
    origins: Origins,
}

/// A value as text, and where it stands.
#[derive(Clone, Debug)]
struct Word {
    key: String,
    text: OsString,
    /// Such as `heartwheel.toml:3` or `HEARTWHEEL_TICK`.
    origin: String,
}

/// The flags of `serve`, as keys.
struct Keys {
    command: clap::Command,
}

impl Keys {
    fn new() -> Self {
        let bare = clap::Command::new("serve").no_binary_name(true).disable_help_flag(true);
        let mut command = ServeArgs::augment_args(bare);
        command.build();
        Self { command }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.command.get_arguments().filter_map(Arg::get_long)
    }

    fn find(&self, name: &str) -> Option<&Arg> {
        self.command.get_arguments().find(|arg| arg.get_long() == Some(name))
    }

    /// The key that looks most like `name`.
    fn nearest(&self, name: &str) -> &str {
        let distance = |key: &&str| strsim::damerau_levenshtein(key, name);
        let candidates = self.names().filter(|key| *key != KEY_CONFIG);
        candidates.min_by_key(distance).expect("serve has flags")
    }

    fn arguments(&self) -> impl Iterator<Item = &Arg> {
        self.command.get_arguments()
    }

    /// Reads a layer: each word alone, so that an error can say where it stands, then all.
    fn read(&self, words: Vec<Word>, wrong: &mut Mistakes) -> Layer {
        let is_understood = |word: &Word| {
            let parsed = self.parse(std::slice::from_ref(word));
            parsed.map(|_| true).map_err(|error| self.refusal(word, &error))
        };
        let mut words: Vec<Word> =
            words.into_iter().filter(|word| wrong.keep(is_understood(word), false)).collect();
        let matches = loop {
            match self.parse(&words) {
                Ok(matches) => break matches,
                Err(error) => {
                    // Alone each word is fine, so two of them contradict each other.
                    let text = usage::one_line(&error).replace("--", "");
                    let last = words.pop().expect("nothing is no contradiction");
                    if self.parse(&words).is_ok() {
                        wrong.add(CliError::usage(format!("{}: {text}", last.origin)));
                    }
                }
            }
        };
        let mut origins = Origins::default();
        for word in &words {
            let table = match tables::find(&word.key) {
                Some(_) => self.parse(std::slice::from_ref(word)).ok(),
                None => None,
            };
            match table {
                Some(table) => origins.note_tables(&word.key, &table, &word.origin),
                None => origins.note(&word.key, &word.origin),
            }
        }
        Layer { matches, origins }
    }

    fn parse(&self, words: &[Word]) -> Result<ArgMatches, Error> {
        let flags = words.iter().map(|word| {
            let mut flag = OsString::from(format!("--{}=", word.key));
            flag.push(&word.text);
            flag
        });
        self.command.clone().try_get_matches_from(flags)
    }

    /// The parser's words, with the key in place of the flag.
    fn refusal(&self, word: &Word, error: &Error) -> CliError {
        let text = usage::one_line(error);
        let text = match self.find(&word.key) {
            Some(arg) => text.replace(&format!("'{arg}'"), &word.key),
            None => text,
        };
        CliError::usage(format!("{}: {text}", word.origin))
    }
}

/// Lets `layer` speak over what was said before. A preset and a rhythm of one's own exclude each
/// other, so whichever is said in the upper layer silences the other one below.
fn update(joined: &mut ServeArgs, layer: &ArgMatches) -> Result<(), CliError> {
    if layer.contains_id("preset") {
        joined.interval = None;
        joined.timeout = None;
    }
    if layer.contains_id("interval") || layer.contains_id("timeout") {
        joined.preset = None;
    }
    let lower = std::mem::take(&mut joined.class);
    let lower_webhooks = std::mem::take(&mut joined.webhooks.webhook);
    let updated = joined.update_from_arg_matches(layer);
    let upper = std::mem::take(&mut joined.class);
    joined.class = classes::join(lower, upper);
    let upper = std::mem::take(&mut joined.webhooks.webhook);
    joined.webhooks.webhook = webhooks::join(lower_webhooks, upper);
    updated.map_err(|error| CliError::usage(usage::one_line(&error)))
}

fn environment_words(keys: &Keys, variable: impl Fn(&str) -> Option<OsString>) -> Vec<Word> {
    let mut words = Vec::new();
    for key in keys.names() {
        let name = format!("{VARIABLE_PREFIX}{}", key.replace('-', "_").to_uppercase());
        let Some(text) = variable(&name).filter(|text| !text.is_empty()) else { continue };
        words.push(Word { key: key.to_owned(), text, origin: name });
    }
    words
}

fn read_file(path: &Path) -> Result<String, CliError> {
    let unreadable = |cause| CliError::ConfigUnreadable { path: path.to_owned(), cause };
    let name = path.display();
    let Some(bytes) = read_at_most(path, limits::CONFIG_BYTES_MAX).map_err(unreadable)? else {
        return Err(CliError::usage(format!(
            "{name} has more than {} bytes; expected a short file of keys",
            limits::CONFIG_BYTES_MAX
        )));
    };
    String::from_utf8(bytes).map_err(|_| {
        CliError::usage(format!("{name} is not UTF-8 text; expected TOML such as tick = \"10ms\""))
    })
}

/// The keys of the file, in the order in which they stand there.
fn file_words(keys: &Keys, path: &Path, text: &str, wrong: &mut Mistakes) -> Vec<Word> {
    let origin_of = |position: usize| format!("{}:{}", path.display(), line_of(text, position));
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut told = None;
        for error in errors {
            let origin = origin_of(error.span().map_or(0, |span| span.start));
            // The first of a line is the mistake, and others on it follow from that.
            if told.as_ref() != Some(&origin) {
                wrong.add(CliError::usage(format!("{origin}: {}", error.message())));
                told = Some(origin);
            }
        }
        // What the rest means is not known.
        return Vec::new();
    }
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);

    let mut words = Vec::new();
    for (key, value) in entries {
        let span = key.span();
        let origin = origin_of(span.start);
        let key = key.get_ref().as_ref();
        let refuse = |text: String| CliError::usage(format!("{origin}: {text}"));
        if key == KEY_CONFIG {
            wrong.add(refuse("a file cannot name another one with config".to_owned()));
            continue;
        }
        let Some(arg) = keys.find(key) else {
            let nearest = keys.nearest(key);
            wrong.add(refuse(format!("unknown key '{key}'; did you mean '{nearest}'?")));
            continue;
        };
        if let Some(tables) = tables::find(key) {
            let (said, refused) = tables.read(value.get_ref(), span.start);
            words.extend(said.into_iter().map(|said| Word {
                key: key.to_owned(),
                text: said.text.into(),
                origin: origin_of(said.at),
            }));
            for refusal in refused {
                let origin = origin_of(refusal.at);
                wrong.add(CliError::usage(format!("{origin}: {}", refusal.text)));
            }
            continue;
        }
        match text_of(arg, value.get_ref()) {
            Ok(text) => words.push(Word { key: key.to_owned(), text: text.into(), origin }),
            Err(text) => wrong.add(refuse(text)),
        }
    }
    words
}

fn line_of(text: &str, position: usize) -> usize {
    let before = text.as_bytes().get(..position).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Flags as they would be typed behind `serve`.
#[cfg(test)]
pub(crate) fn flags_of<T: AsRef<str>>(words: &[T]) -> ArgMatches {
    let words = words.iter().map(|word| OsString::from(word.as_ref()));
    Keys::new().command.try_get_matches_from(words).expect("flags are fine")
}

/// What these flags mean.
#[cfg(test)]
pub(crate) fn options_of<T: AsRef<str>>(words: &[T]) -> crate::cli::config::ServeOptions {
    let args = join(&flags_of(words), |_| None).expect("all is well");
    crate::cli::config::ServeOptions::new(&args).expect("in bounds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Preset;
    use crate::base::time::Span;
    use crate::cli::args::Switch;
    use crate::cli::classes::parse_class;
    use crate::cli::values::ShardsArg;
    use crate::cli::webhooks::parse_webhook;

    /// Joins `flags`, variables and a file's text.
    fn joined(
        flags: &[&str],
        variables: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<ServeArgs, String> {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let path = directory.path().join("heartwheel.toml");
        let mut flags: Vec<_> = flags.iter().map(OsString::from).collect();
        if let Some(text) = file {
            std::fs::write(&path, text).expect("there is room for a file");
            flags.push("--config".into());
            flags.push(path.clone().into());
        }
        let flags = Keys::new().command.try_get_matches_from(flags).expect("flags are fine");
        let look_up = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| OsString::from(text))
        };
        let directory = format!("{}/", directory.path().display());
        join(&flags, look_up).map_err(|error| error.line().replace(&directory, ""))
    }

    fn refusal(file: &str) -> String {
        joined(&[], &[], Some(file)).expect_err("this file is wrong")
    }

    #[test]
    fn flags_go_before_the_environment_and_the_environment_before_the_file() {
        let secs = |secs| Some(Span::from_secs(secs));
        let file = Some("drain-timeout = \"1s\"\n");
        let environment = ("HEARTWHEEL_DRAIN_TIMEOUT", "2s");
        let flags = ["--drain-timeout", "3s"];
        for (name, flags, variables, file, expected) in [
            ("nothing", &[][..], &[][..], None, None),
            ("file", &[], &[], file, secs(1)),
            ("environment and file", &[], &[environment], file, secs(2)),
            ("all three", &flags, &[environment], file, secs(3)),
            ("flag and file", &flags, &[], file, secs(3)),
            ("empty variable", &[], &[("HEARTWHEEL_DRAIN_TIMEOUT", "")], file, secs(1)),
        ] {
            let args = joined(flags, variables, file).expect("all is well");
            assert_eq!(args.stopping.drain_timeout, expected, "{name}");
        }
    }

    #[test]
    fn an_upper_preset_silences_a_lower_rhythm_and_the_other_way_round() {
        let rhythm = "interval = \"5s\"\ntimeout = \"12s\"\n";
        let args = joined(&["--preset", "mobile"], &[], Some(rhythm)).expect("all is well");
        assert_eq!((args.preset, args.interval, args.timeout), (Some(Preset::Mobile), None, None));

        let flags = ["--interval", "5s", "--timeout", "12s"];
        let preset = [("HEARTWHEEL_PRESET", "mobile")];
        let args = joined(&flags, &preset, None).expect("all is well");
        assert_eq!((args.preset, args.interval), (None, Some(Span::from_secs(5))));

        let args = joined(&["--timeout", "20s"], &[], Some(rhythm)).expect("all is well");
        assert_eq!(args.interval, Some(Span::from_secs(5)), "the lower interval is still there");
        assert_eq!(args.timeout, Some(Span::from_secs(20)));
    }

    #[test]
    fn classes_are_joined_key_by_key() {
        let file = "[class.lock]\ngrace = \"9s\"\nprobe = \"off\"\n[class.door]\n";
        let variables = [("HEARTWHEEL_CLASS", "lock:grace=8s;gate:timeout=50s")];
        let flags = ["--class", "lock:interval=5s", "--class", "gate:grace=1s"];
        let args = joined(&flags, &variables, Some(file)).expect("all is well");
        let mut classes = args.class;
        classes.sort_by(|one, other| one.name.cmp(&other.name));
        let expected =
            ["door:", "gate:timeout=50s,grace=1s", "lock:interval=5s,grace=8s,probe=off"];
        assert_eq!(classes, expected.map(|text| parse_class(text).expect("a class")));
    }

    #[test]
    fn every_flag_is_a_key() {
        let values = [
            ("listen", "\"127.0.0.1:1\""),
            ("node", "\"n\""),
            ("shards", "3"),
            ("interval", "\"5s\""),
            ("timeout", "\"12s\""),
            ("mode", "\"either\""),
            ("min-interval", "\"1s\""),
            ("tick", "\"10ms\""),
            ("coalesce", "\"5ms\""),
            ("probe", "\"5s\""),
            ("grace", "\"30s\""),
            ("duplicate", "\"reject\""),
            ("class", "{ lock = { grace = \"9s\", duplicate = \"take-over\" } }"),
            ("max-connections", "10"),
            ("handshake-timeout", "\"1s\""),
            ("frame-timeout", "\"1s\""),
            ("max-payload", "0x1000"),
            ("outbox-bytes", "65_536"),
            ("up-bytes", "1_048_576"),
            ("proxy-from", "\"10.0.0.0/8, 192.0.2.7\""),
            ("address-connections", "256"),
            ("address-connects", "\"10/s:50\""),
            ("prefix-connections", "\"off\""),
            ("prefix-connects", "\"90/min\""),
            ("address-bits", "\"32/64\""),
            ("prefix-bits", "\"24/48\""),
            ("accept-rate", "\"10000/s\""),
            ("newcomer-rate", "\"1000/s\""),
            ("client-frames", "\"50/s\""),
            ("client-bytes", "\"10/s:100000\""),
            ("client-beats", "\"1/s\""),
            ("websocket", "true"),
            ("websocket-origin", "\"https://example.org, http://localhost:8080\""),
            ("websocket-path", "\"/live\""),
            ("tls-cert", "\"c\""),
            ("tls-key", "\"k\""),
            ("tls-only", "true"),
            ("tls-client-ca", "\"a\""),
            ("tls-crl", "\"l\""),
            ("tls-client-cert", "\"optional\""),
            ("tls-client-name", "\"id\""),
            ("identity", "\"tokens\""),
            ("identity-file", "\"f\""),
            ("identity-issuer", "\"i\""),
            ("identity-audience", "\"a\""),
            ("identity-url", "\"http://b/\""),
            ("identity-secret-file", "\"s\""),
            ("identity-ca-file", "\"c\""),
            ("identity-timeout", "\"2s\""),
            ("identity-cache", "10_000"),
            ("identity-cache-age", "\"30s\""),
            ("queue-bytes", "100_000"),
            ("queue-ttl", "\"1min\""),
            ("slow-policy", "\"close\""),
            ("broadcast-rate", "100"),
            ("keepalive", "false"),
            ("keepalive-idle", "\"5s\""),
            ("keepalive-interval", "\"5s\""),
            ("keepalive-count", "3"),
            ("user-timeout", "\"off\""),
            ("driver", "\"io_uring\""),
            ("descriptors", "\"direct\""),
            ("drain-timeout", "\"1s\""),
            ("drain-notice", "\"1s\""),
            ("reconnect-window", "\"1s..2s\""),
            ("events", "\"-\""),
            ("journal", "\"d\""),
            ("journal-segment-bytes", "65536"),
            ("journal-retain-bytes", "0x1_0000_0000"),
            ("transport-events", "\"t\""),
            (
                "webhook",
                "{ a = { url = \"http://b/\", batch-max = 7, streams = [\"events\"], \
                 topics = [\"a+b\", \"c,d\"] } }",
            ),
            ("admin", "\"off\""),
            ("admin-token-file", "\"t\""),
            ("admin-tls-cert", "\"c\""),
            ("admin-tls-key", "\"k\""),
            ("admin-cors", "\"https://a.example,https://b.example:8443\""),
            ("log-format", "\"json\""),
            ("log-level", "\"off\""),
        ];
        let known: Vec<_> = values.iter().map(|(key, _)| *key).collect();
        for key in Keys::new().names().filter(|key| ![KEY_CONFIG, "preset"].contains(key)) {
            assert!(known.contains(&key), "{key} has no row");
        }
        let file: String = values.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let args = joined(&[], &[], Some(&file)).expect("all is well");
        assert_eq!(args.max_payload, Some(4_096));
        assert_eq!(args.coalesce, Some(Span::from_millis(5)));
        assert_eq!(args.outbox_bytes, Some(65_536));
        assert_eq!(args.up.up_bytes, Some(1_048_576));
        assert_eq!(args.keepalive, Some(Switch::Off));
        assert_eq!(args.node.as_deref(), Some("n"));
        assert_eq!(args.shards, Some(ShardsArg::Count(3)));
        let auto = joined(&[], &[], Some("shards = \"auto\"")).expect("all is well");
        assert_eq!(auto.shards, Some(ShardsArg::Auto));
        assert_eq!(args.journal_retain_bytes, Some(1 << 32));
        assert_eq!(
            args.class,
            [parse_class("lock:grace=9s,duplicate=take-over").expect("a class")]
        );
        let webhook =
            parse_webhook("a:url=http://b/,batch-max=7,streams=events,topics=a%2Bb+c%2Cd");
        assert_eq!(args.webhooks.webhook, [webhook.expect("a webhook")]);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_with_its_line() {
        for (name, file, expected) in [
            (
                "unknown key",
                "# a comment\n\nintervall = \"5s\"\n",
                "heartwheel.toml:3: unknown key 'intervall'; did you mean 'interval'?",
            ),
            (
                "underscore",
                "max_connections = 5",
                "heartwheel.toml:1: unknown key 'max_connections'; did you mean 'max-connections'?",
            ),
            (
                "number for a text",
                "tick = \"10ms\"\ninterval = 5",
                "heartwheel.toml:2: interval is a whole number; expected a text in quotes: \"D\"",
            ),
            (
                "text for a number",
                "max-connections = \"many\"",
                "heartwheel.toml:1: max-connections is a text; expected a whole number without \
                 quotes",
            ),
            (
                "number for a word",
                "mode = 1",
                "heartwheel.toml:1: mode is a whole number; expected a text in quotes: \
                 \"client|server|either\"",
            ),
            (
                "text for a switch",
                "keepalive = 1",
                "heartwheel.toml:1: keepalive is a whole number; expected true or false",
            ),
            (
                "a table",
                "[listen]\naddress = 1",
                "heartwheel.toml:1: listen is a table; expected a text in quotes: \"ADDR:PORT\"",
            ),
            (
                "unknown key of a class",
                "[class.lock]\ngrace = \"1s\"\ngraze = \"1s\"",
                "heartwheel.toml:3: unknown key 'graze' in class lock; did you mean 'grace'?",
            ),
            (
                "number in a class",
                "[class.lock]\ngrace = 5",
                "heartwheel.toml:2: grace of class lock is no text; expected one in quotes",
            ),
            (
                "class that is no table",
                "[class]\nlock = \"grace\"",
                "heartwheel.toml:2: class is no table; expected tables such as [class.lock]",
            ),
            (
                "classes that are no table",
                "class = 1",
                "heartwheel.toml:1: class is no table; expected tables such as [class.lock]",
            ),
            (
                "unknown key of a webhook",
                "[webhook.a]\nuri = \"http://b/\"",
                "heartwheel.toml:2: unknown key 'uri' in webhook a; did you mean 'url'?",
            ),
            (
                "text for a webhook's number",
                "[webhook.a]\nbatch-max = \"7\"",
                "heartwheel.toml:2: batch-max of webhook a is no whole number; expected one \
                 without quotes",
            ),
            (
                "number for a webhook's list",
                "[webhook.a]\nstreams = 1",
                "heartwheel.toml:2: streams of webhook a is no list; expected [\"…\", \"…\"]",
            ),
            (
                "number for a webhook's text",
                "[webhook.a]\nurl = 1",
                "heartwheel.toml:2: url of webhook a is no text; expected one in quotes",
            ),
            (
                "webhook that is no table",
                "webhook = \"http://b/\"",
                "heartwheel.toml:1: webhook is no table; expected tables such as [webhook.audit]",
            ),
            (
                "another file",
                "config = \"other.toml\"",
                "heartwheel.toml:1: a file cannot name another one with config",
            ),
        ] {
            assert_eq!(refusal(file), expected, "{name}");
        }
    }

    #[test]
    fn a_value_in_a_file_is_refused_like_a_flag() {
        for (name, file, parts) in [
            ("bad duration", "tick = \"soon\"", vec!["heartwheel.toml:1: ", "'soon' for tick: "]),
            ("too large", "max-connections = 99999999999", vec![":1: ", "99999999999"]),
            ("larger than i64", "max-connections = 99999999999999999999", vec![":1: "]),
            ("negative", "\nmax-connections = -1", vec![":2: ", "-1"]),
            ("bad word", "mode = \"both\"", vec!["'both' for mode ", "client, server, either"]),
            (
                "preset and rhythm",
                "preset = \"mobile\"\ntimeout = \"9s\"",
                vec!["preset", "timeout"],
            ),
            (
                "bad value in a class",
                "[class.lock]\n\ngrace = \"soon\"",
                vec![":3: ", "'lock:grace=soon' for class: expected a length of time"],
            ),
            (
                "two values at once",
                "[class.lock]\nprobe = \"off,grace=1s\"",
                vec![":2: ", "'off,grace=1s' for probe of class lock is more than one value"],
            ),
            (
                "bad value in a webhook",
                "[webhook.a]\n\nurl = \"b\"",
                vec![":3: ", "'a:url=b' for webhook: expected a URL such as"],
            ),
            ("webhook with a bad name", "[webhook.\"a b\"]", vec![":1: ", "a name of 1 to 64"]),
            ("class without a name", "[class.\"\"]", vec![":1: ", "a name of 1 to 64 bytes"]),
            ("class with a name of two", "[class.\"a:;b:\"]", vec![":1: ", "and ';'"]),
            ("no TOML", "interval: 5s", vec!["heartwheel.toml:1: "]),
            ("a key twice", "tick = \"1ms\"\ntick = \"2ms\"", vec![":2: ", "duplicate key"]),
        ] {
            let line = refusal(file);
            for part in parts {
                assert!(line.contains(part), "{name}: {part:?} is not in: {line}");
            }
        }
    }

    proptest::proptest! {
        /// Whatever stands in a file, the answer is one line or a configuration, and never a panic.
        #[test]
        fn any_text_is_read_or_refused_in_one_line(
            lines in proptest::collection::vec(
                "([a-z-]{0,12}|tick|max-connections|keepalive) ?=? ?.{0,12}",
                0..4,
            ),
        ) {
            if let Err(line) = joined(&[], &[], Some(&lines.join("\n"))) {
                proptest::prop_assert!(!line.chars().any(char::is_control), "{}", line);
                proptest::prop_assert!(line.starts_with("heartwheel.toml"), "{}", line);
            }
        }
    }

    #[test]
    fn a_bad_variable_is_named() {
        let line = joined(&[], &[("HEARTWHEEL_TICK", "soon")], None).expect_err("not a length");
        assert!(line.starts_with("HEARTWHEEL_TICK: invalid value 'soon' for tick: "), "{line}");
    }

    #[test]
    fn a_file_that_is_no_file_of_keys_is_refused() {
        let flags = |path: &str| {
            let words = ["--config", path];
            let flags = Keys::new().command.try_get_matches_from(words).expect("flags are fine");
            join(&flags, |_| None).expect_err("no file of keys").line()
        };
        assert!(flags("/nowhere/at/all").starts_with("cannot read /nowhere/at/all: "));
        assert!(flags("/").starts_with("cannot read /: "));
        assert!(flags("/dev/zero").starts_with("/dev/zero has more than 1048576 bytes"));
    }
}
