//! Keys that are tables of tables in the file: `[class.lock]`, `[webhook.audit]`.
//!
//! Each table becomes what would be typed behind the flag, `NAME:KEY=VALUE`, a word for each key,
//! so that an error can say where it stands.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use toml::de::DeValue;

use crate::cli::classes::{CLASS_DELIMITER, CLASS_KEYS};
use crate::cli::values::ValueError;
use crate::cli::webhooks::{LIST_DELIMITER, WEBHOOK_KEYS, WEBHOOK_LISTS, WEBHOOK_NUMBERS};
use crate::control::webhook::target;

/// What would be taken for something else inside a list.
const IN_A_LIST: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'+').add(b',').add(b';');

/// A key that is a table of tables.
pub struct Tables {
    /// The key, which is also what one of them is called.
    pub key: &'static str,
    /// The keys of each table.
    pub keys: &'static [&'static str],
    /// Those of them that take a list.
    lists: &'static [&'static str],
    /// Those of them that take a number.
    numbers: &'static [&'static str],
    example: &'static str,
    check_name: fn(&str) -> Result<(), ValueError>,
}

static TABLES: [Tables; 2] = [
    Tables {
        key: "class",
        keys: &CLASS_KEYS,
        lists: &[],
        numbers: &[],
        example: "[class.lock]",
        check_name: |name| match name.contains(CLASS_DELIMITER) {
            true => Err(ValueError::ClassName),
            false => Ok(()),
        },
    },
    Tables {
        key: "webhook",
        keys: &WEBHOOK_KEYS,
        lists: &WEBHOOK_LISTS,
        numbers: &WEBHOOK_NUMBERS,
        example: "[webhook.audit]",
        check_name: |name| match target::is_name(name) {
            true => Ok(()),
            false => Err(ValueError::WebhookName),
        },
    },
];

/// What one key of one table says, and where that stands in the file.
pub struct Said {
    /// As typed behind the flag.
    pub text: String,
    /// A position in bytes.
    pub at: usize,
}

/// An error, and where it stands in the file.
pub struct Refusal {
    /// The error.
    pub text: String,
    /// A position in bytes.
    pub at: usize,
}

/// The tables of this key, if it is such a key.
pub fn find(key: &str) -> Option<&'static Tables> {
    TABLES.iter().find(|tables| tables.key == key)
}

/// The key that looks most like `name`.
pub fn nearest_key(keys: &'static [&'static str], name: &str) -> &'static str {
    let distance = |key: &&&str| strsim::damerau_levenshtein(key, name);
    keys.iter().min_by_key(distance).expect("every table has keys")
}

impl Tables {
    /// What the tables say, in the order in which they stand there, and what of it is no such
    /// thing; `at` is where their key stands.
    pub fn read(&self, tables: &DeValue<'_>, at: usize) -> (Vec<Said>, Vec<Refusal>) {
        let (mut said, mut refused) = (Vec::new(), Vec::new());
        let DeValue::Table(tables) = tables else { return (said, vec![self.no_table(at)]) };
        for (name, table) in tables {
            let at = name.span().start;
            let DeValue::Table(table) = table.get_ref() else {
                refused.push(self.no_table(at));
                continue;
            };
            let name = name.get_ref().as_ref();
            if let Err(error) = (self.check_name)(name) {
                refused.push(Refusal { text: error.to_string(), at });
                continue;
            }
            // One without any key is one, too.
            said.push(Said { text: format!("{name}:"), at });
            for (key, value) in table {
                let at = key.span().start;
                let key = key.get_ref().as_ref();
                match self.value(name, key, value.get_ref()) {
                    Ok(text) => said.push(Said { text: format!("{name}:{key}={text}"), at }),
                    Err(text) => refused.push(Refusal { text, at }),
                }
            }
        }
        (said, refused)
    }

    fn no_table(&self, at: usize) -> Refusal {
        let Self { key, example, .. } = self;
        Refusal { text: format!("{key} is no table; expected tables such as {example}"), at }
    }

    /// The value as it would be typed.
    fn value(&self, name: &str, key: &str, value: &DeValue<'_>) -> Result<String, String> {
        let noun = self.key;
        if !self.keys.contains(&key) {
            let nearest = nearest_key(self.keys, key);
            return Err(format!("unknown key '{key}' in {noun} {name}; did you mean '{nearest}'?"));
        }
        let (is_list, is_number) = (self.lists.contains(&key), self.numbers.contains(&key));
        let text = match value {
            DeValue::Array(values) if is_list => {
                let texts = values.iter().map(|value| match value.get_ref().as_str() {
                    Some(text) => Ok(in_a_list(text)),
                    None => Err(format!("{key} of {noun} {name} is no list of texts")),
                });
                return Ok(texts.collect::<Result<Vec<_>, _>>()?.join(LIST_DELIMITER));
            }
            DeValue::String(text) if is_list => return Ok(in_a_list(text)),
            DeValue::Integer(number) if is_number => {
                return Ok(number.as_str().replace('_', ""));
            }
            DeValue::String(text) if !is_number => text,
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                let expected = match (is_list, is_number) {
                    (true, _) => "no list; expected [\"…\", \"…\"]",
                    (_, true) => "no whole number; expected one without quotes",
                    (false, false) => "no text; expected one in quotes",
                };
                return Err(format!("{key} of {noun} {name} is {expected}"));
            }
        };
        if text.contains([',', CLASS_DELIMITER]) {
            let text = text.escape_debug();
            return Err(format!("'{text}' for {key} of {noun} {name} is more than one value"));
        }
        Ok(text.as_ref().to_owned())
    }
}

pub(crate) fn in_a_list(text: &str) -> String {
    utf8_percent_encode(text, IN_A_LIST).to_string()
}
