//! Where each value of a configuration was said.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};

use crate::cli::classes::ClassArg;
use crate::cli::layers::{KEY_CLASS, KEY_WEBHOOK};
use crate::cli::tables;
use crate::cli::webhooks::WebhookArg;

/// Where keys were said: a flag, a variable, or a line of the file. A class's keys are called
/// `class.NAME.KEY`, and the class itself `class.NAME`; a webhook's likewise.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origins(BTreeMap<String, String>);

impl Origins {
    /// Where `key` was said; `None`: nowhere, so it has its default.
    pub fn of(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(crate) fn note(&mut self, key: &str, origin: &str) {
        self.0.insert(key.to_owned(), origin.to_owned());
    }

    /// Notes the tables of this key among `matches`, all of which stand at `origin`.
    pub(crate) fn note_tables(&mut self, key: &str, matches: &ArgMatches, origin: &str) {
        if key == KEY_CLASS {
            for class in matches.get_many::<ClassArg>(key).into_iter().flatten() {
                self.note_table(format!("{key}.{}", class.name), class.keys(), origin);
            }
        } else if key == KEY_WEBHOOK {
            for webhook in matches.get_many::<WebhookArg>(key).into_iter().flatten() {
                self.note_table(format!("{key}.{}", webhook.name), webhook.keys(), origin);
            }
        }
    }

    fn note_table(&mut self, name: String, keys: impl Iterator<Item = &'static str>, origin: &str) {
        for key in keys {
            self.note(&format!("{name}.{key}"), origin);
        }
        self.0.entry(name).or_insert_with(|| origin.to_owned());
    }

    /// Lets an upper layer speak over what was said before, as `layers` does with the values.
    pub(crate) fn speak_over(&mut self, upper: Self) {
        if upper.of("preset").is_some() {
            self.0.remove("interval");
            self.0.remove("timeout");
        }
        if upper.of("interval").is_some() || upper.of("timeout").is_some() {
            self.0.remove("preset");
        }
        self.0.extend(upper.0);
    }
}

/// Where the flags that were typed stand: they name themselves.
pub(crate) fn of_flags<'a>(
    flags: &ArgMatches,
    arguments: impl Iterator<Item = &'a Arg>,
) -> Origins {
    let mut origins = Origins::default();
    for arg in arguments {
        let (id, Some(key)) = (arg.get_id().as_str(), arg.get_long()) else { continue };
        let is_known = flags.try_contains_id(id).is_ok();
        if !is_known || flags.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let flag = format!("--{key}");
        match tables::find(key) {
            Some(_) => origins.note_tables(key, flags, &flag),
            None => origins.note(key, &flag),
        }
    }
    origins
}
