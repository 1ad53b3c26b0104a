//! Classes of one's own: `--class NAME:KEY=VALUE,...`, and `[class.NAME]` in the file.
//!
//! Both become the same text, so a class means the same wherever it stands, and is refused with the
//! same words.

use crate::base::config::{Class, Duplicate, GatewayConfig, ProbePolicy, Rhythm};
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::error::CliError;
use crate::cli::mistakes::Mistakes;
use crate::cli::tables::nearest_key;
use crate::cli::values::{ValueError, parse_duplicate, parse_probe, parse_span};

/// The keys of a class.
pub const CLASS_KEYS: [&str; 5] = ["interval", "timeout", "probe", "grace", "duplicate"];
/// What stands between two classes in one text.
pub const CLASS_DELIMITER: char = ';';

/// A class as typed: what is not said is as for everybody, or as the preset of that name has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClassArg {
    /// Its name, as clients say it in HELLO.
    pub name: String,
    /// Between two beats.
    pub interval: Option<Span>,
    /// Silence after which its clients are dead.
    pub timeout: Option<Span>,
    /// Whether a silent client is asked before the verdict.
    pub probe: Option<ProbePolicy>,
    /// For how long a lost session is held.
    pub grace: Option<Span>,
    /// What a second login does.
    pub duplicate: Option<Duplicate>,
}

/// `NAME:KEY=VALUE,KEY=VALUE`, with any of the [`CLASS_KEYS`], each at most once.
pub fn parse_class(text: &str) -> Result<ClassArg, ValueError> {
    // A name may have a colon in it, and no value has.
    let (name, settings) = text.rsplit_once(':').ok_or(ValueError::Class)?;
    let is_name = (1..=limits::CLASS_BYTES_MAX).contains(&name.len());
    if !is_name || name.chars().any(|c| c.is_control() || c == CLASS_DELIMITER) {
        return Err(ValueError::ClassName);
    }
    let mut class = ClassArg { name: name.to_owned(), ..ClassArg::default() };
    for setting in settings.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
        let (key, value) = setting.split_once('=').ok_or(ValueError::Class)?;
        class.set(key.trim(), value.trim())?;
    }
    Ok(class)
}

impl ClassArg {
    fn set(&mut self, key: &str, value: &str) -> Result<(), ValueError> {
        let is_first = match key {
            "interval" => self.interval.replace(parse_span(value)?).is_none(),
            "timeout" => self.timeout.replace(parse_span(value)?).is_none(),
            "probe" => self.probe.replace(parse_probe(value)?).is_none(),
            "grace" => self.grace.replace(parse_span(value)?).is_none(),
            "duplicate" => self.duplicate.replace(parse_duplicate(value)?).is_none(),
            _ => {
                let nearest = nearest_key(&CLASS_KEYS, key);
                return Err(ValueError::ClassKey { key: key.to_owned(), nearest });
            }
        };
        if is_first { Ok(()) } else { Err(ValueError::ClassKeyTwice { key: key.to_owned() }) }
    }

    /// The keys that it says something about.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        let said = [
            self.interval.is_some(),
            self.timeout.is_some(),
            self.probe.is_some(),
            self.grace.is_some(),
            self.duplicate.is_some(),
        ];
        CLASS_KEYS.into_iter().zip(said).filter_map(|(key, said)| said.then_some(key))
    }

    /// What this one says goes before what the other says.
    fn over(&self, lower: &Self) -> Self {
        Self {
            name: self.name.clone(),
            interval: self.interval.or(lower.interval),
            timeout: self.timeout.or(lower.timeout),
            probe: self.probe.or(lower.probe),
            grace: self.grace.or(lower.grace),
            duplicate: self.duplicate.or(lower.duplicate),
        }
    }

    /// What a client of this class gets, checked.
    fn meant(&self, everybody: &GatewayConfig) -> Result<Class, CliError> {
        let name = self.name.escape_debug();
        let wrong = |text: String| CliError::usage(format!("class {name}: {text}"));
        let refuse = |text: String| Err(wrong(text));
        let base = everybody.class(&self.name);
        let interval = self.interval.unwrap_or(base.rhythm.interval);
        let timeout = self.timeout.unwrap_or(base.rhythm.timeout);
        let rhythm = match Rhythm::new(interval, timeout) {
            Ok(rhythm) => rhythm,
            Err(error) => return refuse(error.to_string()),
        };
        if everybody.tick > interval {
            return refuse(format!("tick {} is longer than interval {interval}", everybody.tick));
        }
        let policies = (self.probe, self.grace);
        let mut mistakes = Mistakes::default();
        for text in check_policies(policies, rhythm, everybody.tick) {
            mistakes.add(wrong(text));
        }
        mistakes.or(Class {
            rhythm,
            probe: self.probe.unwrap_or(base.probe),
            grace: self.grace.unwrap_or(base.grace),
            duplicate: self.duplicate.unwrap_or(base.duplicate),
        })
    }
}

/// Joins classes, the lower ones first: of two with one name, the upper one's keys go before the
/// lower one's.
#[must_use]
pub fn join(lower: Vec<ClassArg>, upper: Vec<ClassArg>) -> Vec<ClassArg> {
    let mut joined = lower;
    for class in upper {
        match joined.iter_mut().find(|known| known.name == class.name) {
            Some(known) => *known = class.over(known),
            None => joined.push(class),
        }
    }
    joined
}

/// The classes as meant. `everybody` has the policies of clients without one.
pub fn meant(
    typed: &[ClassArg],
    everybody: &GatewayConfig,
) -> Result<Vec<(String, Class)>, CliError> {
    let typed = join(Vec::new(), typed.to_vec());
    if typed.len() > limits::CLASSES_MAX {
        return Err(CliError::usage(format!(
            "{} classes are too many; expected at most {}",
            typed.len(),
            limits::CLASSES_MAX
        )));
    }
    let mut wrong = Mistakes::default();
    let mut classes = Vec::new();
    for class in typed {
        match class.meant(everybody) {
            Ok(meant) => classes.push((class.name, meant)),
            Err(error) => wrong.add(error),
        }
    }
    wrong.or(classes)
}

/// A line for each of a probe and a grace that were typed and are not within bounds.
pub fn check_policies(
    (probe, grace): (Option<ProbePolicy>, Option<Span>),
    rhythm: Rhythm,
    tick: Span,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(ProbePolicy::Fixed(span)) = probe {
        let longest = rhythm.timeout.minus(rhythm.interval).divided_by(2);
        if span < tick || span > longest {
            lines.push(format!(
                "probe {span} is out of bounds; expected {tick} to {longest}, half of what lies \
                 between interval {} and timeout {}",
                rhythm.interval, rhythm.timeout
            ));
        }
    }
    if let Some(grace) = grace.filter(|grace| *grace > limits::GRACE_MAX) {
        let (min, max) = (Span::ZERO, limits::GRACE_MAX);
        lines.push(format!("grace {grace} is out of bounds; expected {min} to {max}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Span {
        Span::from_secs(secs)
    }

    fn class(text: &str) -> ClassArg {
        parse_class(text).expect("a class")
    }

    fn refusal(text: &str) -> String {
        match parse_class(text) {
            Err(error) => error.to_string(),
            Ok(class) => {
                let refused = meant(&[class], &GatewayConfig::default());
                refused.expect_err("this is wrong").line()
            }
        }
    }

    #[test]
    fn a_class_is_a_name_and_what_is_different() {
        let full = class("lock:interval=5s, timeout=12s,probe=2s,grace=1min,duplicate=reject");
        let expected = ClassArg {
            name: "lock".to_owned(),
            interval: Some(secs(5)),
            timeout: Some(secs(12)),
            probe: Some(ProbePolicy::Fixed(secs(2))),
            grace: Some(secs(60)),
            duplicate: Some(Duplicate::Reject),
        };
        assert_eq!(full, expected);
        assert_eq!(class("a:b:probe=off").name, "a:b", "a name may have a colon");
        assert_eq!(class("lock:"), ClassArg { name: "lock".to_owned(), ..ClassArg::default() });
    }

    #[test]
    fn what_a_class_does_not_say_is_as_for_everybody_or_its_preset() {
        let everybody = GatewayConfig {
            grace: secs(30),
            duplicate: Duplicate::Reject,
            ..GatewayConfig::default()
        };
        let typed = [class("lock:grace=0s"), class("mobile:probe=off"), class("own:timeout=50s")];
        let classes = meant(&typed, &everybody).expect("all is well");
        let rhythm =
            |interval, timeout| Rhythm { interval: secs(interval), timeout: secs(timeout) };
        for ((name, found), (expected_name, rhythm, grace, probe)) in classes.iter().zip([
            ("lock", rhythm(15, 35), Span::ZERO, ProbePolicy::Auto),
            ("mobile", rhythm(240, 300), secs(30), ProbePolicy::Off),
            ("own", rhythm(15, 50), secs(30), ProbePolicy::Auto),
        ]) {
            assert_eq!(name, expected_name);
            let expected = Class { rhythm, probe, grace, duplicate: Duplicate::Reject };
            assert_eq!(*found, expected, "{name}");
        }
        assert_eq!(classes.len(), 3);
    }

    #[test]
    fn the_upper_classs_keys_go_before_the_lower_ones() {
        let lower = vec![class("lock:interval=5s,grace=9s"), class("door:grace=1s")];
        let upper = vec![class("lock:grace=7s"), class("gate:probe=off")];
        let joined = join(lower, upper);
        let expected =
            [class("lock:interval=5s,grace=7s"), class("door:grace=1s"), class("gate:probe=off")];
        assert_eq!(joined, expected);
    }

    #[test]
    fn what_is_wrong_with_a_class_is_said_in_one_line() {
        for (text, part) in [
            ("lock", "expected a class such as lock:interval=15s,timeout=35s,grace=30s"),
            ("lock:grace", "expected a class such as"),
            (":grace=1s", "expected a name of 1 to 64 bytes"),
            ("lock:graze=1s", "unknown key 'graze'; did you mean 'grace'?"),
            ("lock:grace=soon", "expected a length of time"),
            ("lock:grace=1s,grace=2s", "grace stands there twice"),
            ("lock:duplicate=both", "expected take-over or reject"),
            ("lock:probe=maybe", "expected auto, off or a length of time"),
            ("lock:interval=1ms", "class lock: interval 1ms is out of bounds: 50ms to 3600s"),
            ("lock:interval=35s", "class lock: timeout 35s must be longer than interval 35s"),
            (
                "lock:probe=10001ms",
                "class lock: probe 10s is out of bounds; expected 10ms to 10s, half of what lies \
                 between interval 15s and timeout 35s",
            ),
            ("demanding:probe=3s", "class demanding: probe 3s is out of bounds"),
            ("lock:probe=0s", "class lock: probe 0s is out of bounds"),
            ("lock:grace=2h", "class lock: grace 7200s is out of bounds; expected 0s to 3600s"),
        ] {
            let line = refusal(text);
            assert!(line.contains(part), "{text}: {part:?} is not in: {line}");
        }
        let many: Vec<_> = (0..=limits::CLASSES_MAX).map(|n| class(&format!("c{n}:"))).collect();
        let line = meant(&many, &GatewayConfig::default()).expect_err("too many").line();
        assert_eq!(line, "65 classes are too many; expected at most 64");
    }

    #[test]
    fn a_tick_fits_into_the_interval_of_every_class() {
        let everybody = GatewayConfig { tick: secs(1), ..GatewayConfig::default() };
        let refused = meant(&[class("lock:interval=900ms")], &everybody);
        let line = refused.expect_err("too coarse").line();
        assert_eq!(line, "class lock: tick 1s is longer than interval 900ms");
    }
}
