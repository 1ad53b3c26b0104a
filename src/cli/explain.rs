//! What is known of one client, in words: how it is, how it beat, why it went.
//!
//! Everything here is made from answers of the API: those of an older gateway lack some facts, and
//! then less is said.

use serde_json::Value;

use crate::base::event::CloseReason;
use crate::cli::ctl::{shown, shown_value, time_of_day};

/// What TCP's facts may be off by, in milliseconds: its own delays, and a tick of ours.
const SLACK_MS: u64 = 500;

/// A length of time as people say it.
pub(crate) fn span(ms: u64) -> String {
    let secs = ms / 1_000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{secs}.{} s", ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", secs / 3_600, secs / 60 % 60),
    }
}

fn number(value: &Value, name: &str) -> Option<u64> {
    value[name].as_u64()
}

fn span_of(value: &Value, name: &str) -> Option<String> {
    number(value, name).map(span)
}

fn text(value: &Value, name: &str) -> String {
    shown_value(&value[name])
}

/// A client that is here, as `GET /v1/clients/{id}` tells it.
pub(crate) fn client(client: &Value) -> Vec<String> {
    let mut said = vec![state(client)];
    if let (Some(interval), Some(timeout)) =
        (span_of(client, "interval_ms"), span_of(client, "timeout_ms"))
    {
        said.push(format!(
            "It promised a beat every {interval}, and is judged dead after {timeout} of silence."
        ));
    }
    if let Some(silence) = span_of(client, "silence_ms") {
        said.push(format!("It was last heard {silence} ago."));
    }
    said.extend(beats(client));
    said.extend(way(client));
    let partial = number(client, "partial_bytes").filter(|bytes| *bytes > 0);
    said.extend(partial.map(|bytes| {
        format!("It has begun a frame and not completed it: {bytes} bytes, which prove no life.")
    }));
    let outbox = number(client, "outbox_bytes").filter(|bytes| *bytes > 0);
    said.extend(outbox.map(|bytes| format!("{bytes} bytes wait to be read by it.")));
    said.extend(what_next(client));
    said
}

fn state(client: &Value) -> String {
    let state = match client["state"].as_str() {
        Some("live") => "is here and was heard in time",
        Some("suspect") => "is suspect: it was silent for so long that it was asked, or is judged",
        Some("held") => "lost its connection, and its session waits for it to come back",
        Some(_) | None => "is in a state that this version does not know",
    };
    let class = match client["class"].as_str() {
        Some("") | None => "of no class".to_owned(),
        Some(class) => format!("of class {}", shown(class)),
    };
    let since = number(client, "since_unix_ms").map(time_of_day).unwrap_or_default();
    format!(
        "{} {state}. It is {class}, came from {}, and its session {} began at {since} UTC.",
        text(client, "client"),
        text(client, "remote"),
        text(client, "epoch")
    )
}

/// How it beat, as a client and the evidence of its end both tell it.
fn beats(facts: &Value) -> Option<String> {
    let count = number(facts, "beats")?;
    if count == 0 {
        return Some("It said nothing after its HELLO.".to_owned());
    }
    let longest = span_of(facts, "longest_gap_ms").unwrap_or_default();
    let mut said = format!("It was heard {count} times since its HELLO, at most {longest} apart");
    let gaps: Vec<String> =
        facts["gaps_ms"].as_array()?.iter().filter_map(Value::as_u64).map(span).collect();
    if !gaps.is_empty() {
        said.push_str(&format!("; the latest gaps, oldest first: about {}", gaps.join(", ")));
    }
    said.push('.');
    Some(said)
}

/// The way to it and back.
fn way(client: &Value) -> Option<String> {
    let micros = |name: &str| number(client, name).map(|us| us as f64 / 1_000.0);
    let tcp = micros("rtt_us").map(|ms| format!("TCP says that the way there and back is {ms} ms"));
    let answer = micros("answer_us")
        .map(|ms| format!("its latest answer to a PING of ours took about {ms:.0} ms"));
    match (tcp, answer) {
        (Some(tcp), Some(answer)) => Some(format!("{tcp}; {answer}.")),
        (Some(tcp), None) => Some(format!("{tcp}.")),
        (None, Some(answer)) => Some(format!("In this session {answer}.")),
        (None, None) => None,
    }
}

/// What becomes of it if nothing more is heard.
fn what_next(client: &Value) -> Option<String> {
    let grace = number(client, "grace_ms").filter(|grace| *grace > 0);
    if client["state"] == "held" {
        let grace = grace.map(span).unwrap_or_default();
        return Some(format!(
            "If it does not come back within {grace} of its loss, it is offline."
        ));
    }
    let silence = number(client, "silence_ms")?;
    let left = |after: u64| after.checked_sub(silence).filter(|left| *left > 0).map(span);
    let dead = match left(number(client, "timeout_ms")?) {
        Some(left) => format!("judged dead in {left}"),
        None => "judged dead at any moment".to_owned(),
    };
    let asked = number(client, "probe_after_ms").and_then(left);
    let asked = asked.map(|left| format!("asked in {left} and ")).unwrap_or_default();
    let held = grace.map(|grace| format!("; its session is then held for {}", span(grace)));
    Some(format!("If nothing more comes, it is {asked}{dead}{}.", held.unwrap_or_default()))
}

/// An event of a client, in one line and, for an end, what is known about it in further ones.
pub(crate) fn event(event: &Value) -> Vec<String> {
    let at = number(event, "at_unix_ms").map(time_of_day).unwrap_or_default();
    let mut further = Vec::new();
    let what = match event["event"].as_str() {
        Some("online") => {
            let flaps = number(event, "flaps").filter(|flaps| *flaps > 0);
            let flaps = flaps
                .map(|flaps| format!("; it had come {flaps} times within the ten minutes before"));
            format!("came online from {}{}", text(event, "remote"), flaps.unwrap_or_default())
        }
        Some("resumed") => format!(
            "came back from {} after {}, and its session went on",
            text(event, "remote"),
            span_of(event, "away_ms").unwrap_or_default()
        ),
        Some("contested") => format!(
            "another login for its id, from {}, was sent away; {} tried lately",
            text(event, "remote"),
            text(event, "count")
        ),
        Some("rhythm") => format!(
            "was given another rhythm: a beat every {}, dead after {}",
            span_of(event, "interval_ms").unwrap_or_default(),
            span_of(event, "timeout_ms").unwrap_or_default()
        ),
        Some("offline") => {
            further = evidence(event);
            format!("went offline ({})", text(event, "reason"))
        }
        Some(_) | None => text(event, "event"),
    };
    let mut said = vec![format!("{at}  {what}")];
    said.extend(further.into_iter().map(|line| format!("              {line}")));
    said
}

/// Why it went, and what speaks for it.
fn evidence(event: &Value) -> Vec<String> {
    let held = number(event, "held_ms").unwrap_or(0);
    let silence = number(event, "silence_ms").map(|silence| silence.saturating_sub(held));
    let is_by_silence = event["reason"] == CloseReason::HeartbeatTimeout.word();
    let mut said = vec![match is_by_silence {
        true => by_silence(event, silence),
        false => by_reason(event, silence),
    }];
    said.extend(probe(event, is_by_silence));
    said.extend(tcp(event, is_by_silence));
    let partial = number(event, "partial_bytes").filter(|bytes| *bytes > 0);
    said.extend(partial.map(|bytes| {
        format!("It had begun a frame ({bytes} bytes): it stopped in the middle of a word.")
    }));
    match number(event, "stalled_ms") {
        Some(0) if is_by_silence => {
            said.push("The server itself did not stand still meanwhile.".to_owned());
        }
        Some(0) | None => {}
        Some(ms) => said.push(format!(
            "The server stood still for {} meanwhile, and counted none of it against the client.",
            span(ms)
        )),
    }
    if held > 0 {
        said.push(format!("Its session was held for {}, and it did not come back.", span(held)));
    }
    said.extend(beats(event));
    said
}

fn by_silence(event: &Value, silence: Option<u64>) -> String {
    let silent = silence.map(span).unwrap_or_else(|| "its timeout".to_owned());
    match span_of(event, "timeout_ms") {
        Some(timeout) => format!("It was silent for {silent}; its timeout is {timeout}."),
        None => format!("It was silent for {silent}, which is its timeout."),
    }
}

fn by_reason(event: &Value, silence: Option<u64>) -> String {
    let words = event["reason"].as_str().unwrap_or_default();
    let reason = CloseReason::ALL.into_iter().find(|reason| reason.word() == words);
    let why = match reason {
        Some(reason) => reason_words(reason).to_owned(),
        None => format!("The reason is {}, which this version does not know", shown(words)),
    };
    let heard = silence.map(|silence| format!("; it was last heard {} before", span(silence)));
    format!("{why}{}.", heard.unwrap_or_default())
}

const fn reason_words(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Bye => "It said BYE: it left on purpose",
        CloseReason::Drain => "The server was being emptied, and asked it to leave",
        CloseReason::Rebalance => "A part of the clients was asked to go elsewhere, it among them",
        CloseReason::Replaced => "A newer login of the same client id took over",
        CloseReason::ClosedByPeer => "It closed the connection without BYE",
        CloseReason::Reset => "The connection was reset from its side or on the way",
        CloseReason::HeartbeatTimeout => "It was silent for its timeout",
        CloseReason::TcpTimeout => {
            "TCP gave up: what was sent to it, or keep-alive, stayed unacknowledged"
        }
        CloseReason::NetworkFault => "The network or the socket failed",
        CloseReason::Kicked => "An operator or a backend ended its session",
        CloseReason::BadToken => "Its proof of identity was not accepted",
        CloseReason::Busy => "As many as allowed were here already, or came at once",
        CloseReason::SlowConsumer => "It did not read what it was sent, until that was too much",
        CloseReason::Flood => "It sent more than it may",
        CloseReason::AlreadyConnected => "Its id was in use, and the older login is kept",
        CloseReason::Contested => "Too many logins fought for its id",
        CloseReason::TooManyConnections => "Too many came from its address or network",
        CloseReason::BadPreface => "Its first bytes were not those of the protocol",
        CloseReason::FrameTooLong => "It sent a frame that is longer than allowed",
        CloseReason::UnexpectedFrame => "It sent a frame that has no place where it came",
        CloseReason::Malformed => "It sent a frame that does not have its form",
        CloseReason::HandshakeTimeout => "It did not say who it is in time",
        CloseReason::FrameTimeout => "It began a frame and did not complete it in time",
        CloseReason::UnsupportedVersion => "It speaks no version that is spoken here",
        CloseReason::BadClientId => "Its client id is none",
        CloseReason::UnknownCriticalFrame => "It sent a critical frame that is not known here",
        CloseReason::BadProxyHeader => "Who stands behind the proxy was not said as agreed",
        CloseReason::BadTls => "TLS was not agreed upon, or broke off",
        CloseReason::BadWebsocket => "It did not keep to the rules of a WebSocket",
        CloseReason::ServerError => "The server failed",
    }
}

fn probe(event: &Value, is_by_silence: bool) -> Option<String> {
    match (event["probe"].as_str(), span_of(event, "probe_ago_ms")) {
        (Some("unanswered"), Some(ago)) => {
            Some(format!("A probe sent {ago} before the end went unanswered."))
        }
        (Some("unanswered"), None) => Some("A probe before the end went unanswered.".to_owned()),
        (Some("not_sent"), _) if is_by_silence => Some("It was not asked before.".to_owned()),
        _ => None,
    }
}

/// Whether the application hung or the path was gone, as far as TCP can tell.
fn tcp(event: &Value, is_by_silence: bool) -> Option<String> {
    let facts = &event["tcp"];
    if facts.is_null() {
        return is_by_silence.then(|| "TCP could not be asked.".to_owned());
    }
    let (acked, data) =
        (number(facts, "last_ack_received_ms")?, number(facts, "last_data_received_ms")?);
    let unacked = number(facts, "unacked").unwrap_or(0);
    let ago = span(acked);
    if unacked > 0 {
        let again = number(facts, "retransmits").unwrap_or(0);
        return Some(format!(
            "TCP had last heard an acknowledgement {ago} before, and {unacked} segments were \
             unacknowledged, the oldest sent again {again} times: the path or the machine was \
             gone, rather than the application hung."
        ));
    }
    let was_asked = event["probe"] == "unanswered";
    // Older gateways do not say when they asked.
    let asked = number(event, "probe_ago_ms").unwrap_or(acked);
    if was_asked && acked <= asked + SLACK_MS {
        return Some(format!(
            "Its kernel acknowledged the probe ({ago} before): the machine and the path lived, \
             and the application hung."
        ));
    }
    if acked + SLACK_MS < data {
        return Some(format!(
            "Its kernel acknowledged something {ago} before, long after its last data: the \
             machine and the path lived, and the application hung."
        ));
    }
    Some(format!(
        "TCP had last heard an acknowledgement {ago} before, and waited for none: it cannot tell \
         a path that is gone from an application that hung."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn offline(over: &Value) -> Value {
        let mut event = json!({
            "event": "offline", "at_unix_ms": 90_061_001_u64, "client": "anna", "epoch": 3,
            "remote": "127.0.0.1:9", "reason": "heartbeat_timeout", "code": 202,
            "silence_ms": 35_004, "beats_missed": 2, "partial_bytes": 0, "stalled_ms": 0,
            "probe": "unanswered", "held_ms": 0, "tcp": null, "probe_ago_ms": 5_001,
            "timeout_ms": 35_000, "beats": 40, "longest_gap_ms": 15_120,
            "gaps_ms": [15_000, 15_000, 900],
        });
        for (name, value) in over.as_object().expect("an object") {
            event[name] = value.clone();
        }
        event
    }

    fn tcp_facts(data: u64, ack: u64, unacked: u64, retransmits: u64) -> Value {
        json!({ "tcp": { "last_data_received_ms": data, "last_ack_received_ms": ack,
                "unacked": unacked, "rtt_us": 900, "retransmits": retransmits } })
    }

    fn words(event_value: &Value) -> String {
        event(event_value).join("\n")
    }

    #[test]
    fn a_verdict_of_silence_says_what_speaks_for_it() {
        let said = words(&offline(&tcp_facts(35_001, 34_000, 1, 4)));
        for part in [
            "01:01:01.001  went offline (heartbeat_timeout)",
            "silent for 35.0 s; its timeout is 35.0 s",
            "A probe sent 5.0 s before the end went unanswered",
            "acknowledgement 34.0 s before, and 1 segments were unacknowledged",
            "sent again 4 times",
            "the path or the machine was gone, rather than the application hung",
            "The server itself did not stand still",
            "heard 40 times since its HELLO, at most 15.1 s apart",
            "about 15.0 s, 15.0 s, 900 ms",
        ] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }

    #[test]
    fn each_kind_of_evidence_has_its_words() {
        let mut probed_not = tcp_facts(35_001, 35_000, 0, 0);
        probed_not["probe"] = json!("not_sent");
        probed_not["probe_ago_ms"] = Value::Null;
        let mut kept_alive = tcp_facts(35_001, 4_000, 0, 0);
        kept_alive["probe"] = json!("not_sent");
        for (over, parts) in [
            (tcp_facts(35_001, 4_980, 0, 0), vec!["acknowledged the probe", "application hung"]),
            (probed_not, vec!["It was not asked before", "cannot tell"]),
            (kept_alive, vec!["long after its last data", "application hung"]),
            (json!({}), vec!["TCP could not be asked"]),
            (json!({ "stalled_ms": 2_500 }), vec!["stood still for 2.5 s", "counted none"]),
            (json!({ "partial_bytes": 7 }), vec!["begun a frame (7 bytes)"]),
            (
                json!({ "held_ms": 60_000, "silence_ms": 95_004 }),
                vec!["silent for 35.0 s", "held for 60.0 s, and it did not come back"],
            ),
            (json!({ "beats": 0, "gaps_ms": [] }), vec!["said nothing after its HELLO"]),
            (json!({ "reason": "bye", "probe": "not_sent" }), vec!["left on purpose"]),
            (json!({ "reason": "new\u{7}" }), vec!["new\\u{7}, which this version does not know"]),
        ] {
            let said = words(&offline(&over));
            for part in parts {
                assert!(said.contains(part), "{part:?} in {said}");
            }
        }
        for reason in CloseReason::ALL {
            let said = words(&offline(&json!({ "reason": reason.word(), "probe": "not_sent" })));
            assert!(said.contains(&format!("({})", reason.word())), "{said}");
            assert!(!said.contains("does not know"), "{said}");
            let is_by_silence = reason == CloseReason::HeartbeatTimeout;
            assert_eq!(said.contains("was not asked"), is_by_silence, "{said}");
        }
    }

    /// A line of a journal that an older version wrote.
    #[test]
    fn an_end_that_an_older_version_wrote_down_is_explained_as_far_as_it_goes() {
        let old = json!({ "event": "offline", "at_unix_ms": 1, "reason": "heartbeat_timeout",
            "silence_ms": 35_004, "probe": "unanswered", "held_ms": 0, "stalled_ms": 0,
            "tcp": { "last_data_received_ms": 35_003, "last_ack_received_ms": 4_988,
                     "unacked": 0, "rtt_us": 18_400, "retransmits": 0 } });
        let said = words(&old);
        assert!(said.contains("silent for 35.0 s, which is its timeout"), "{said}");
        assert!(said.contains("A probe before the end went unanswered"), "{said}");
        assert!(said.contains("application hung"), "{said}");
        assert_eq!(event(&json!({})), ["  null"]);
    }

    #[test]
    fn comings_have_words_and_nothing_in_them_steers_the_terminal() {
        for (value, part) in [
            (json!({ "event": "online", "remote": "a\u{1b}[2J" }), "from a\\u{1b}[2J"),
            (json!({ "event": "online", "remote": "a", "flaps": 3 }), "come 3 times"),
            (json!({ "event": "resumed", "remote": "b", "away_ms": 4_200 }), "after 4.2 s"),
            (json!({ "event": "contested", "remote": "b", "count": 8 }), "8 tried lately"),
            (
                json!({ "event": "rhythm", "interval_ms": 5_000, "timeout_ms": 150_000 }),
                "every 5.0 s, dead after 2 min 30 s",
            ),
            (json!({ "event": "later\u{202e}" }), "later\\u{202e}"),
        ] {
            let said = words(&value);
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }

    #[test]
    fn a_client_that_is_here_is_told_with_what_comes_next() {
        let mut here = json!({
            "client": "anna\u{7}", "epoch": 7, "state": "live", "class": "", "conn": "0.0",
            "remote": "127.0.0.1:9", "interval_ms": 15_000, "timeout_ms": 35_000, "grace_ms": 0,
            "since_unix_ms": 90_061_001_u64, "silence_ms": 4_200, "outbox_bytes": 0,
            "partial_bytes": 0, "beats": 2, "longest_gap_ms": 15_000, "gaps_ms": [15_000],
            "probe_after_ms": 30_000, "answer_us": null, "rtt_us": 400,
        });
        let said = client(&here).join("\n");
        for part in [
            "anna\\u{7} is here and was heard in time",
            "of no class",
            "a beat every 15.0 s, and is judged dead after 35.0 s",
            "last heard 4.2 s ago",
            "TCP says that the way there and back is 0.4 ms.",
            "asked in 25.8 s and judged dead in 30.8 s.",
        ] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
        here["state"] = json!("suspect");
        here["silence_ms"] = json!(35_003);
        here["grace_ms"] = json!(60_000);
        here["answer_us"] = json!(41_000);
        here["partial_bytes"] = json!(5);
        let said = client(&here).join("\n");
        for part in [
            "is suspect",
            "took about 41 ms",
            "5 bytes, which prove no life",
            "it is judged dead at any moment; its session is then held for 60.0 s",
        ] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
        here["state"] = json!("held");
        assert!(client(&here).join("\n").contains("does not come back within 60.0 s"));
    }
}
