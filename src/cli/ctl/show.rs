//! One client for people: what is known of it, by what it is about.

use serde_json::Value;

use crate::cli::ctl::{shown, shown_value, time_of_day};
use crate::cli::explain::span;

/// How the value of a field is said.
#[derive(Clone, Copy)]
enum As {
    Text,
    Millis,
    MillisOrNever,
    Micros,
    Bytes,
    /// A moment, as the time of the day.
    Moment,
    /// Several lengths of time.
    Spans,
    /// Several texts.
    Names,
}

/// A field, its name for people, and how it is said.
type Field = (&'static str, &'static str, As);

/// By what they are about. What is not here is told as it came.
const GROUPS: [(&str, &[Field]); 4] = [
    (
        "Session",
        &[
            ("state", "state", As::Text),
            ("class", "class", As::Text),
            ("epoch", "epoch", As::Text),
            ("since_unix_ms", "since", As::Moment),
            ("grace_ms", "held for", As::Millis),
            ("groups", "groups", As::Names),
        ],
    ),
    (
        "Beats",
        &[
            ("interval_ms", "every", As::Millis),
            ("timeout_ms", "dead after", As::Millis),
            ("silence_ms", "silent for", As::Millis),
            ("last_beat_unix_ms", "last at", As::Moment),
            ("beats", "so far", As::Text),
            ("longest_gap_ms", "longest gap", As::Millis),
            ("gaps_ms", "latest gaps", As::Spans),
            ("probe_after_ms", "asked after", As::MillisOrNever),
            ("answer_us", "answered in", As::Micros),
        ],
    ),
    (
        "Connection",
        &[
            ("remote", "from", As::Text),
            ("conn", "slot", As::Text),
            ("rtt_us", "round trip", As::Micros),
            ("outbox_bytes", "to be sent", As::Bytes),
            ("partial_bytes", "begun frame", As::Bytes),
        ],
    ),
    ("Messages", &[("data_in", "from it", As::Text), ("data_out", "to it", As::Text)]),
];

/// The lines for one client.
pub(super) fn lines(client: &Value) -> Vec<String> {
    let Some(fields) = client.as_object() else { return vec![shown_value(client)] };
    let mut lines = vec![shown_value(&client["client"])];
    for (group, known) in GROUPS {
        let there = known.iter().filter(|(name, ..)| fields.contains_key(*name));
        let rows: Vec<String> =
            there.map(|(name, words, kind)| row(words, &said(&client[*name], *kind))).collect();
        if !rows.is_empty() {
            lines.extend([String::new(), group.to_owned()]);
            lines.extend(rows);
        }
    }
    let is_known = |name: &str| {
        name == "client" || GROUPS.iter().any(|(_, known)| known.iter().any(|one| one.0 == name))
    };
    let others: Vec<String> = fields
        .iter()
        .filter(|(name, _)| !is_known(name))
        .map(|(name, value)| row(&shown(name), &shown_value(value)))
        .collect();
    if !others.is_empty() {
        lines.extend([String::new(), "Further".to_owned()]);
        lines.extend(others);
    }
    lines
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<14} {value}")
}

fn said(value: &Value, kind: As) -> String {
    let number = value.as_u64();
    match (kind, number) {
        (As::MillisOrNever, None) if value.is_null() => "never".to_owned(),
        (_, None) if value.is_null() => "not known".to_owned(),
        (As::Millis | As::MillisOrNever, Some(ms)) => span(ms),
        (As::Micros, Some(us)) => format!("{}.{:03} ms", us / 1_000, us % 1_000),
        (As::Bytes, Some(1)) => "1 byte".to_owned(),
        (As::Bytes, Some(bytes)) => format!("{bytes} bytes"),
        (As::Moment, Some(unix_ms)) => format!("{} UTC", time_of_day(unix_ms)),
        (As::Spans, _) => several(value, |one| one.as_u64().map_or_else(|| shown_value(one), span)),
        (As::Names, _) => several(value, shown_value),
        _ if value == "" => "none".to_owned(),
        _ => shown_value(value),
    }
}

fn several(value: &Value, each: impl Fn(&Value) -> String) -> String {
    match value.as_array() {
        Some(values) if values.is_empty() => "none".to_owned(),
        Some(values) => values.iter().map(each).collect::<Vec<_>>().join(", "),
        None => shown_value(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_is_shown_in_words_and_steers_no_terminal() {
        let client = json!({
            "client": "a\u{202e}b", "state": "live", "class": "", "interval_ms": 15_000,
            "silence_ms": 274, "gaps_ms": [15_000, 900], "rtt_us": 1_234, "answer_us": null,
            "probe_after_ms": null,
            "since_unix_ms": 3_723_004, "groups": ["g\u{1b}[2J", "h"], "outbox_bytes": 1,
            "data_in": 3, "data_out": 0, "later_\u{7}": { "x": "\n" },
        });
        let lines = lines(&client);
        for line in [
            "a\\u{202e}b",
            "Session",
            "  state          live",
            "  class          none",
            "  since          01:02:03.004 UTC",
            "  groups         g\\u{1b}[2J, h",
            "  every          15.0 s",
            "  silent for     274 ms",
            "  latest gaps    15.0 s, 900 ms",
            "  answered in    not known",
            "  round trip     1.234 ms",
            "  asked after    never",
            "  to be sent     1 byte",
            "  from it        3",
            "Further",
            "  later_\\u{7}    {\"x\":\"\\n\"}",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line:?} is not in {lines:#?}");
        }
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:#?}");
        assert!(
            !lines.iter().any(|line| line.contains("dead after")),
            "an older gateway says less"
        );
    }
}
