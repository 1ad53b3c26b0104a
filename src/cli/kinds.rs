//! What a key takes in the file: which kind of value, and how that is typed behind the flag.

use std::any::TypeId;

use clap::Arg;
use clap::builder::PossibleValue;
use toml::de::DeValue;

use crate::cli::args::Switch;
use crate::cli::args::admission::Bound;
use crate::cli::values::ShardsArg;

/// The value as it would be typed behind the flag.
pub(crate) fn text_of(arg: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let kind = Kind::of(arg);
    let found = match (kind, value) {
        (Kind::Number | Kind::Shards | Kind::Bound, DeValue::Integer(number)) => {
            return Ok(decimal(number.as_str(), number.radix()));
        }
        (Kind::Text | Kind::Switch | Kind::Shards | Kind::Bound, DeValue::String(text)) => {
            return Ok(text.as_ref().to_owned());
        }
        (Kind::Switch, DeValue::Boolean(true)) => return Ok("on".to_owned()),
        (Kind::Switch, DeValue::Boolean(false)) => return Ok("off".to_owned()),
        (_, DeValue::String(_)) => "a text",
        (_, DeValue::Integer(_)) => "a whole number",
        (_, DeValue::Float(_)) => "a fraction",
        (_, DeValue::Boolean(_)) => "true or false",
        (_, DeValue::Datetime(_)) => "a date",
        (_, DeValue::Array(_)) => "a list",
        (_, DeValue::Table(_)) => "a table",
    };
    let key = arg.get_long().unwrap_or_default();
    Err(format!("{key} is {found}; expected {}", kind.expected(arg)))
}

/// What a key takes in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Number,
    Switch,
    Text,
    /// A number, or a word in its place.
    Shards,
    /// The same with another word.
    Bound,
}

impl Kind {
    pub(crate) fn of(arg: &Arg) -> Self {
        let typed = arg.get_value_parser().type_id();
        if typed == TypeId::of::<u32>() || typed == TypeId::of::<u64>() {
            Self::Number
        } else if typed == TypeId::of::<Switch>() {
            Self::Switch
        } else if typed == TypeId::of::<ShardsArg>() {
            Self::Shards
        } else if typed == TypeId::of::<Bound<u32>>() {
            Self::Bound
        } else {
            Self::Text
        }
    }

    fn expected(self, arg: &Arg) -> String {
        match self {
            Self::Number => "a whole number without quotes".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Shards => "a whole number without quotes, or \"auto\"".to_owned(),
            Self::Bound => "a whole number without quotes, or \"off\"".to_owned(),
            Self::Text => {
                let words = arg.get_possible_values();
                let words: Vec<_> = words.iter().map(PossibleValue::get_name).collect();
                let example = match arg.get_value_names().unwrap_or_default() {
                    [name] if words.is_empty() => name.as_str().to_owned(),
                    _ => words.join("|"),
                };
                format!("a text in quotes: \"{example}\"")
            }
        }
    }
}

/// The number as a flag takes it. One that is too large for any flag stays as it was written, and
/// is refused like one that was typed.
fn decimal(digits: &str, radix: u32) -> String {
    match i64::from_str_radix(digits, radix) {
        Ok(number) => number.to_string(),
        Err(_) => digits.to_owned(),
    }
}
