//! The configuration as a whole, read in one way by `serve`, by `check-config` and by a reload.

use std::ffi::OsString;

use clap::ArgMatches;

use crate::cli::args::ServeArgs;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::layers;
use crate::cli::mistakes::Mistakes;
use crate::cli::origins::Origins;

/// A configuration that was read.
#[derive(Debug)]
pub struct Configuration {
    /// As typed, joined.
    pub args: ServeArgs,
    /// Where each of it was said.
    pub origins: Origins,
    /// As meant. What is wrong has its default here.
    pub options: ServeOptions,
}

/// Reads what was typed as `flags`, the environment and the file that either names, and says all
/// that is wrong with them.
pub fn read(
    flags: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> (Configuration, Mistakes) {
    let (gathered, mut wrong) = layers::gather(flags, variable);
    let (options, meant) = ServeOptions::meant(&gathered.args);
    for line in meant.lines() {
        wrong.add(CliError::usage(placed(&line, &gathered.origins)));
    }
    (Configuration { args: gathered.args, origins: gathered.origins, options }, wrong)
}

/// The line of a mistake behind the place where its key stands, where that is not a flag: whoever
/// typed a flag knows.
fn placed(line: &str, origins: &Origins) -> String {
    let is_end = |c: char| c == ' ' || c == ':';
    let first = |text: &str| text.split(is_end).next().unwrap_or_default().to_owned();
    let in_a_table = [layers::KEY_CLASS, layers::KEY_WEBHOOK].into_iter().find_map(|noun| {
        let rest = line.strip_prefix(noun)?.strip_prefix(' ')?;
        let (name, rest) = rest.split_once(": ")?;
        Some((format!("{noun}.{name}"), rest))
    });
    let key = match in_a_table {
        Some((table, rest)) => {
            let key = format!("{table}.{}", first(rest));
            if origins.of(&key).is_some() { key } else { table }
        }
        None => first(line),
    };
    match origins.of(&key).filter(|origin| !origin.starts_with("--")) {
        Some(origin) => format!("{origin}: {line}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(file: &str, flags: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("room for a file");
        let path = folder.path().join("heartwheel.toml");
        std::fs::write(&path, file).expect("room for a file");
        let flags = [flags, &["--config", path.to_str().expect("text")]].concat();
        let (_, wrong) = read(&layers::flags_of(&flags), |_| None);
        let folder = format!("{}/", folder.path().display());
        wrong.lines().into_iter().map(|line| line.replace(&folder, "")).collect()
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let file = "\
tick = \"2s\"
intervall = \"5s\"
mode = \"both\"
max-connections = 0
grace = \"2h\"
[class.lock]
grace = \"3h\"
probe = \"soon\"
[class.door]
timeout = \"1s\"
colour = \"red\"
[webhook.audit]
url = \"http://a/\"
timeout = \"1h\"
ca-file = 5
[webhook.other]
url = \"http://a/\"
uri = \"http://a/\"
[webhook.\"a/b\"]
";
        let lines = wrong(file, &["--coalesce", "1s"]);
        let expected = [
            "heartwheel.toml:2: unknown key 'intervall'",
            "heartwheel.toml:11: unknown key 'colour' in class door",
            "heartwheel.toml:3: invalid value 'both' for mode",
            "heartwheel.toml:8: invalid value 'lock:probe=soon' for class",
            "heartwheel.toml:1: tick 2s is out of bounds",
            "heartwheel.toml:4: max-connections 0 is out of bounds",
            "heartwheel.toml:5: grace 7200s is out of bounds",
            "heartwheel.toml:7: class lock: grace 10800s is out of bounds",
            "heartwheel.toml:10: class door: timeout 1s must be longer",
            "heartwheel.toml:15: ca-file of webhook audit is no text",
            "heartwheel.toml:18: unknown key 'uri' in webhook other; did you mean 'url'?",
            "heartwheel.toml:19: expected a name of 1 to 64",
            "heartwheel.toml:14: webhook audit: timeout 3600s is out of bounds",
            "coalesce 1s is out of bounds",
        ];
        for part in expected {
            assert!(lines.iter().any(|line| line.starts_with(part)), "{part}: {lines:#?}");
        }
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    }

    #[test]
    fn every_mistake_of_the_grammar_is_told_and_nothing_is_guessed_from_the_rest() {
        let lines = wrong("interval: 5s\ntick 3\nintervall = \"5s\"\n", &[]);
        assert!(lines.len() >= 2, "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("heartwheel.toml:1: ")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("heartwheel.toml:2: ")), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("unknown key")), "{lines:#?}");
    }

    #[test]
    fn each_value_knows_where_it_was_said() {
        let folder = tempfile::tempdir().expect("room for a file");
        let path = folder.path().join("h.toml");
        let file = "interval = \"5s\"\ntimeout = \"12s\"\n\n[class.lock]\ngrace = \"1s\"\n\
                    probe = \"off\"\n";
        std::fs::write(&path, file).expect("room for a file");
        let path = path.to_str().expect("text");
        let flags = ["--config", path, "--class", "lock:grace=2s", "--timeout", "20s"];
        let variable = |name: &str| match name {
            "HEARTWHEEL_TICK" => Some("20ms".into()),
            "HEARTWHEEL_TIMEOUT" => Some("30s".into()),
            _ => None,
        };
        let (configuration, wrong) = read(&layers::flags_of(&flags), variable);
        assert!(wrong.is_empty(), "{:#?}", wrong.lines());
        for (key, origin) in [
            ("interval", Some(format!("{path}:1"))),
            ("timeout", Some("--timeout".to_owned())),
            ("tick", Some("HEARTWHEEL_TICK".to_owned())),
            ("class.lock.grace", Some("--class".to_owned())),
            ("class.lock.probe", Some(format!("{path}:6"))),
            ("grace", None),
        ] {
            assert_eq!(configuration.origins.of(key), origin.as_deref(), "{key}");
        }
        let flags = [&flags[..4], &["--preset", "mobile"]].concat();
        let (configuration, _) = read(&layers::flags_of(&flags), |_| None);
        assert_eq!(configuration.origins.of("interval"), None, "the preset silenced it");
    }
}
