//! What a run found out: a table for people and JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::base::config::Mode;
use crate::base::time::Span;
use crate::load::histogram::Summary;
use crate::load::plan::LoadOptions;
use crate::load::tally::{Tally, Window};

/// What the load bench learns from its surroundings, not from its clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Surroundings {
    /// Processor, cores, kernel: one line.
    pub machine: String,
    /// Processor time that the server used during the run, where its process can be seen.
    pub server_cpu: Option<Span>,
    /// Processor time that this process used during the run.
    pub own_cpu: Option<Span>,
    /// Processor time that the server used until everybody was in.
    pub connect_server_cpu: Option<Span>,
    /// Memory of the server before the first connect, in bytes.
    pub server_rss_before_bytes: Option<u64>,
    /// What was used while beats were counted apart, where they were.
    pub window: Option<WindowCost>,
}

/// What the machine says of the time for which beats were counted apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WindowCost {
    /// Processor time that the server used.
    pub server_cpu: Option<Span>,
    /// Processor time that this process used.
    pub own_cpu: Option<Span>,
    /// Memory of the server at the end, in bytes.
    pub server_rss_bytes: Option<u64>,
}

/// Everything that is told about one run. Its JSON has these names; a name is never given another
/// meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of the program that measured.
    pub version: &'static str,
    /// Where it measured.
    pub machine: String,
    /// Repeats the run's choices.
    pub seed: u64,
    /// The server.
    pub target: String,
    /// How the clients spoke: `native` or `mqtt`, or one of them `over TLS`.
    pub protocol: &'static str,
    /// Clients asked for.
    pub clients: u32,
    /// How many of them played which part; the others were steady.
    pub parts: BTreeMap<&'static str, u32>,
    /// Interval the clients wished for.
    pub interval_wanted_ms: u64,
    /// Interval the server granted last; `null` when it welcomed nobody.
    pub interval_ms: Option<u64>,
    /// Timeout the server granted last.
    pub timeout_ms: Option<u64>,
    /// Who sends the beats, by the server's word.
    pub mode: Option<&'static str>,
    /// From the first connect to the last beat.
    pub run_s: f64,
    /// Clients that were welcomed, each once; slow readers, who do not hear it, by their HELLO.
    pub connected: u64,
    /// `connected` by the time from the first connect to the last welcome.
    pub connect_per_s: f64,
    /// Welcomes in all: more than `connected` where clients come and go.
    pub sessions: u64,
    /// From HELLO to WELCOME.
    pub welcome_us: Micros,
    /// PINGs sent.
    pub beats_sent: u64,
    /// PONGs that answer them.
    pub pongs_received: u64,
    /// PINGs without an answer at the end, of clients that were still in.
    pub unanswered: u64,
    /// PINGs left out, because the one before could not be sent for a whole interval.
    pub beats_skipped: u64,
    /// PONGs sent to answer the server's PINGs.
    pub answers_sent: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Those that were acknowledged.
    pub messages_acked: u64,
    /// Messages left out, because too many before were not acknowledged.
    pub messages_skipped: u64,
    /// Messages that came for clients.
    pub messages_received: u64,
    /// From when a message should have been sent to its ACK.
    pub ack_us: Micros,
    /// `beats_sent` by the time from the first beat to the end of the run.
    pub beats_per_s: f64,
    /// From when a beat should have been sent to its PONG: no coordinated omission.
    pub rtt_us: Micros,
    /// How much later than intended the beats were sent: the bench's own share of `rtt_us`.
    pub lateness_us: Micros,
    /// Living clients that the server ended although they had beaten in time.
    pub false_offline: u64,
    /// Living clients that the server ended because this bench had not beaten in time for them.
    pub overslept: u64,
    /// Clients that fell silent.
    pub fell_silent: u64,
    /// Of the silent: from last beat + timeout to the server's close.
    pub detection_ms: Millis,
    /// Of the silent: ended before last beat + timeout.
    pub detected_early: u64,
    /// Of the silent: not ended although it was time.
    pub undetected: u64,
    /// Of the silent: the run ended before it was time.
    pub undecided: u64,
    /// Clients that were in at the end.
    pub present_at_end: u64,
    /// Living clients that the server ended for a reason that has nothing to do with beats.
    pub sent_away: u64,
    /// Clients that the server ended before it welcomed them.
    pub refused: u64,
    /// Slow readers that the server ended.
    pub slow_readers_ended: u64,
    /// What went wrong, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Processor time of the server, where its process can be seen.
    pub server_cpu_s: Option<f64>,
    /// Processor time of this process.
    pub own_cpu_s: Option<f64>,
    /// Processor time of the server until everybody was in, and up to a tenth of a second longer;
    /// `null` when not everybody was.
    pub connect_server_cpu_s: Option<f64>,
    /// Memory of the server before the first connect.
    pub server_rss_before_bytes: Option<u64>,
    /// What `--measure` asked for; `null` where it did not, or the run ended before it was over.
    pub window: Option<WindowReport>,
}

/// What was counted while everybody was in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WindowReport {
    /// How long.
    pub lasted_s: f64,
    /// PINGs sent.
    pub beats_sent: u64,
    /// PONGs that answer PINGs; more or fewer than `beats_sent` by what was under way.
    pub pongs_received: u64,
    /// `beats_sent` by `lasted_s`.
    pub beats_per_s: f64,
    /// From when a beat should have been sent to its PONG.
    pub rtt_us: Micros,
    /// How much later than intended the beats were sent.
    pub lateness_us: Micros,
    /// Processor time of the server, where its process can be seen.
    pub server_cpu_s: Option<f64>,
    /// Processor time of this process.
    pub own_cpu_s: Option<f64>,
    /// Memory of the server at the end.
    pub server_rss_bytes: Option<u64>,
}

/// Lengths of time in whole microseconds; all 0 when there were none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Micros {
    /// How many.
    pub n: u64,
    /// Half were no longer.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// Lengths of time in milliseconds, to the microsecond; all 0 when there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Millis {
    /// How many.
    pub n: u64,
    /// The shortest.
    pub min: f64,
    /// Half were no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Report {
    /// Puts together what was asked for, what was counted and what was seen besides.
    pub fn new(options: &LoadOptions, tally: &Tally, surroundings: Surroundings) -> Self {
        let Surroundings { machine, server_cpu, own_cpu, .. } = surroundings;
        let (granted, cost) = (tally.granted, surroundings.window);
        let parts = options.parts.listed().into_iter().filter(|(_, count)| *count > 0);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            seed: options.seed,
            target: options.target.to_string(),
            protocol: options.dialect.word(),
            clients: options.clients,
            parts: parts.map(|(part, count)| (part.word(), count)).collect(),
            interval_wanted_ms: options.interval.as_millis(),
            interval_ms: granted.map(|(rhythm, _)| rhythm.interval.as_millis()),
            timeout_ms: granted.map(|(rhythm, _)| rhythm.timeout.as_millis()),
            mode: granted.map(|(_, mode)| mode_word(mode)),
            run_s: tally.ran_for.as_secs_f64(),
            connected: tally.connected,
            connect_per_s: rate(tally.connected, tally.connecting_took),
            sessions: tally.sessions,
            welcome_us: tally.welcome.summary().into(),
            beats_sent: tally.beats_sent,
            pongs_received: tally.pongs_received,
            unanswered: tally.unanswered,
            beats_skipped: tally.beats_skipped,
            answers_sent: tally.answers_sent,
            messages_sent: tally.messages_sent,
            messages_acked: tally.acks.count(),
            messages_received: tally.messages_received,
            messages_skipped: tally.messages_skipped,
            ack_us: tally.acks.summary().into(),
            beats_per_s: rate(tally.beats_sent, tally.beat_for()),
            rtt_us: tally.rtt.summary().into(),
            lateness_us: tally.lateness.summary().into(),
            false_offline: tally.false_offline,
            overslept: tally.overslept,
            fell_silent: tally.fell_silent,
            detection_ms: tally.detection.summary().into(),
            detected_early: tally.detected_early,
            undetected: tally.undetected,
            undecided: tally.undecided,
            present_at_end: tally.present_at_end,
            sent_away: tally.sent_away,
            refused: tally.refused,
            slow_readers_ended: tally.slow_readers_ended,
            errors: tally.errors().collect(),
            server_cpu_s: server_cpu.map(Span::as_secs_f64),
            own_cpu_s: own_cpu.map(Span::as_secs_f64),
            connect_server_cpu_s: surroundings.connect_server_cpu.map(Span::as_secs_f64),
            server_rss_before_bytes: surroundings.server_rss_before_bytes,
            window: tally.window.as_ref().zip(cost).map(|(w, cost)| WindowReport::new(w, cost)),
        }
    }

    /// The report as JSON, over several lines, with a line feed at its end.
    pub fn to_json(&self) -> String {
        let mut json =
            serde_json::to_string_pretty(self).expect("numbers, texts and string keys only");
        json.push('\n');
        json
    }
}

impl WindowReport {
    fn new(window: &Window, cost: WindowCost) -> Self {
        Self {
            lasted_s: window.lasted.as_secs_f64(),
            beats_sent: window.beats_sent,
            pongs_received: window.pongs_received,
            beats_per_s: rate(window.beats_sent, window.lasted),
            rtt_us: window.rtt.summary().into(),
            lateness_us: window.lateness.summary().into(),
            server_cpu_s: cost.server_cpu.map(Span::as_secs_f64),
            own_cpu_s: cost.own_cpu.map(Span::as_secs_f64),
            server_rss_bytes: cost.server_rss_bytes,
        }
    }
}

impl fmt::Display for Report {
    /// The table for people; ends with a line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_course(f)?;
        self.write_beats(f)?;
        self.write_messages(f)?;
        self.write_endings(f)?;
        self.write_window(f)?;
        self.write_surroundings(f)
    }
}

impl Report {
    fn write_course(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "target", format_args!("{}, for {:.1} s", self.target, self.run_s))?;
        if let (Some(interval_ms), Some(timeout_ms), Some(mode)) =
            (self.interval_ms, self.timeout_ms, self.mode)
        {
            let (interval, timeout) = (seconds(interval_ms), seconds(timeout_ms));
            row(f, "granted", format_args!("beat every {interval}, dead after {timeout}; {mode}"))?;
        }
        let (connected, clients, per_s) = (self.connected, self.clients, self.connect_per_s);
        row(f, "connected", format_args!("{connected} of {clients}, {per_s:.0} /s"))?;
        if self.sessions > self.connected {
            row(f, "sessions", format_args!("{}", self.sessions))?;
        }
        row(f, "welcome", self.welcome_us)
    }

    fn write_beats(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, per_s, pongs) = (self.beats_sent, self.beats_per_s, self.pongs_received);
        row(f, "beats", format_args!("{sent} sent, {per_s:.0} /s; {pongs} answered"))?;
        row_if(f, "answers sent", self.answers_sent)?;
        row_if(f, "unanswered", self.unanswered)?;
        row_if(f, "left out", self.beats_skipped)?;
        row(f, "round trip", self.rtt_us)?;
        row(f, "bench late by", self.lateness_us)
    }

    fn write_messages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, acked, skipped) =
            (self.messages_sent, self.messages_acked, self.messages_skipped);
        row_if(f, "messages heard", self.messages_received)?;
        if sent == 0 {
            return Ok(());
        }
        row(f, "messages", format_args!("{sent} sent; {acked} acknowledged"))?;
        row_if(f, "left out", skipped)?;
        row(f, "until the ACK", self.ack_us)
    }

    fn write_endings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "false offline", format_args!("{}", self.false_offline))?;
        row_if(f, "overslept", self.overslept)?;
        if self.fell_silent > 0 {
            let (silent, n) = (self.fell_silent, self.detection_ms.n + self.detected_early);
            row(f, "silent", format_args!("{silent}, of which {n} detected"))?;
            row(f, "detection", self.detection_ms)?;
            row(f, "early", format_args!("{}", self.detected_early))?;
            row(f, "undetected", format_args!("{}", self.undetected))?;
            row_if(f, "undecided", self.undecided)?;
        }
        row_if(f, "sent away", self.sent_away)?;
        row_if(f, "refused", self.refused)?;
        row_if(f, "slow, ended", self.slow_readers_ended)?;
        row(f, "still in", format_args!("{}", self.present_at_end))?;
        for (kind, count) in &self.errors {
            row(f, "error", format_args!("{kind}: {count}"))?;
        }
        Ok(())
    }

    fn write_window(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(window) = &self.window else { return Ok(()) };
        let WindowReport { lasted_s, beats_sent, beats_per_s, .. } = *window;
        row(
            f,
            "measured",
            format_args!("{beats_sent} beats in {lasted_s:.1} s, {beats_per_s:.0} /s"),
        )?;
        if let (Some(cpu_s), 1..) = (window.server_cpu_s, beats_sent) {
            #[allow(clippy::cast_precision_loss, reason = "a mean needs no more than 52 bits")]
            let micros = cpu_s * 1e6 / beats_sent as f64;
            row(f, "server CPU", format_args!("{micros:.2} us a beat"))?;
        }
        row(f, "round trip", window.rtt_us)
    }

    fn write_surroundings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server_cpu_s {
            Some(cpu_s) => row(f, "server CPU", format_args!("{cpu_s:.2} s"))?,
            None => row(f, "server CPU", format_args!("not visible from here"))?,
        }
        if let Some(cpu_s) = self.own_cpu_s {
            row(f, "bench CPU", format_args!("{cpu_s:.2} s"))?;
        }
        row(f, "machine", format_args!("{}", self.machine))?;
        row(f, "version", format_args!("{}, seed {}", self.version, self.seed))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.n == 0 {
            return f.write_str("none measured");
        }
        let Self { p50, p90, p99, p999, max, .. } = self;
        write!(f, "p50 {p50}  p90 {p90}  p99 {p99}  p999 {p999}  max {max} us")
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.n == 0 {
            return f.write_str("none measured");
        }
        let Self { min, p50, p99, max, .. } = self;
        write!(f, "min {min:.1}  p50 {p50:.1}  p99 {p99:.1}  max {max:.1} ms after the deadline")
    }
}

impl From<Summary> for Micros {
    fn from(summary: Summary) -> Self {
        Self {
            n: summary.count,
            p50: summary.p50.as_micros(),
            p90: summary.p90.as_micros(),
            p99: summary.p99.as_micros(),
            p999: summary.p999.as_micros(),
            max: summary.max.as_micros(),
        }
    }
}

impl From<Summary> for Millis {
    fn from(summary: Summary) -> Self {
        let millis = |span: Span| (span.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
        Self {
            n: summary.count,
            min: millis(summary.min),
            p50: millis(summary.p50),
            p99: millis(summary.p99),
            max: millis(summary.max),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<14} {value}")
}

/// A row for what is seldom there.
fn row_if(f: &mut fmt::Formatter<'_>, name: &str, count: u64) -> fmt::Result {
    if count > 0 { row(f, name, count) } else { Ok(()) }
}

fn seconds(millis: u64) -> String {
    Span::from_millis(millis).to_string()
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Client => "clients beat",
        Mode::Server => "the server pings",
        Mode::Either => "clients beat, and the server pings",
    }
}

/// Per second; 0 for no time at all.
fn rate(count: u64, span: Span) -> f64 {
    if span == Span::ZERO {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    let count = count as f64;
    count / span.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Rhythm;
    use crate::base::io::IoFault;
    use crate::base::time::Moment;
    use crate::load::client::{Ending, Heard, Sign, Written};
    use crate::load::dialect::Dialect;
    use crate::load::plan::{Pace, Parts, Talk};

    fn report() -> Report {
        let options = LoadOptions {
            target: "127.0.0.1:7070".parse().unwrap(),
            clients: 10,
            interval: Span::from_secs(1),
            run_time: Span::from_secs(20),
            dialect: Dialect::Native,
            pace: Pace::Rhythm,
            connects_per_s: None,
            entering_max: None,
            talk: Talk::default(),
            parts: Parts { silent: 1, late: 2, ..Parts::default() },
            seed: 99,
            id_prefix: "load-".into(),
            source_key: 0,
            tokens: None,
        };
        let mut tally = Tally::new(Moment::from_millis(5_000));
        tally.connected = 10;
        tally.connecting_took = Span::from_millis(100);
        tally.fell_silent = 1;
        tally.ran_for = Span::from_secs(20);
        let granted = Rhythm { interval: Span::from_secs(2), timeout: Span::from_secs(7) };
        let took = Span::from_micros(300);
        tally.on_heard(Heard::Welcomed { granted, mode: Mode::Client, took });
        for beat in 0..100 {
            let intended = Moment::from_millis(15_000 + beat);
            tally.on_written(Written { ping: Some(intended), pongs: 0, message: true }, intended);
            tally.on_heard(Heard::Pong { rtt: Span::from_micros(200 + beat) });
            if beat < 98 {
                tally.on_heard(Heard::Acked { took: Span::from_micros(500 + beat) });
            }
        }
        tally.on_ended(Sign::Eof, Ending::Detected { late: Span::from_micros(3_517) });
        tally.on_ended(Sign::Fault(IoFault::Reset), Ending::FalseOffline);
        let surroundings = Surroundings {
            machine: "a machine".into(),
            server_cpu: Some(Span::from_millis(1_500)),
            own_cpu: None,
            ..Surroundings::default()
        };
        Report::new(&options, &tally, surroundings)
    }

    #[test]
    fn the_json_has_every_promised_name() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        for (pointer, expected) in [
            ("/connected", serde_json::json!(10)),
            ("/connect_per_s", serde_json::json!(100.0)),
            ("/beats_sent", serde_json::json!(100)),
            ("/pongs_received", serde_json::json!(100)),
            ("/beats_per_s", serde_json::json!(10.0)),
            ("/rtt_us/p50", serde_json::json!(249)),
            ("/rtt_us/p90", serde_json::json!(289)),
            ("/rtt_us/p99", serde_json::json!(298)),
            ("/rtt_us/p999", serde_json::json!(299)),
            ("/rtt_us/max", serde_json::json!(299)),
            ("/messages_sent", serde_json::json!(100)),
            ("/messages_acked", serde_json::json!(98)),
            ("/ack_us/max", serde_json::json!(597)),
            ("/false_offline", serde_json::json!(1)),
            ("/detection_ms/n", serde_json::json!(1)),
            ("/undetected", serde_json::json!(0)),
            ("/errors/ended_reset", serde_json::json!(1)),
            ("/server_cpu_s", serde_json::json!(1.5)),
            ("/own_cpu_s", serde_json::json!(null)),
            ("/machine", serde_json::json!("a machine")),
            ("/version", serde_json::json!(env!("CARGO_PKG_VERSION"))),
            ("/seed", serde_json::json!(99)),
            ("/parts", serde_json::json!({"silent": 1, "late": 2})),
            ("/interval_ms", serde_json::json!(2_000)),
        ] {
            assert_eq!(json.pointer(pointer), Some(&expected), "{pointer}");
        }
        for pointer in ["/detection_ms/min", "/detection_ms/p50", "/detection_ms/p99"] {
            let millis = json.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap();
            assert!(format!("{millis}").len() <= 5, "{pointer}: {millis} has three decimals");
            assert!((millis - 3.517).abs() < 0.01, "{pointer}: {millis}");
        }
    }

    #[test]
    fn the_table_can_be_read() {
        let table = report().to_string();
        for line in [
            "target         127.0.0.1:7070, for 20.0 s",
            "granted        beat every 2s, dead after 7s; clients beat",
            "connected      10 of 10, 100 /s",
            "beats          100 sent, 10 /s; 100 answered",
            "round trip     p50 249  p90 289  p99 298  p999 299  max 299 us",
            "messages       100 sent; 98 acknowledged",
            "until the ACK  p50 548  p90 588  p99 597  p999 597  max 597 us",
            "false offline  1",
            "silent         1, of which 1 detected",
            "undetected     0",
            "error          ended_reset: 1",
            "server CPU     1.50 s",
        ] {
            assert!(table.lines().any(|found| found == line), "{line:?} is not in\n{table}");
        }
    }

    #[test]
    fn a_run_without_anything_has_no_nonsense_in_it() {
        let options = LoadOptions {
            target: "127.0.0.1:1".parse().unwrap(),
            clients: 1,
            interval: Span::from_secs(1),
            run_time: Span::from_secs(1),
            dialect: Dialect::Native,
            pace: Pace::Rhythm,
            connects_per_s: None,
            entering_max: None,
            talk: Talk::default(),
            parts: Parts::default(),
            seed: 0,
            id_prefix: String::new(),
            source_key: 0,
            tokens: None,
        };
        let empty = Report::new(&options, &Tally::default(), Surroundings::default());
        assert!(!empty.to_string().contains("NaN"));
        assert!(!empty.to_json().contains("NaN"));
        assert_eq!(empty.connect_per_s, 0.0);
        assert_eq!(empty.interval_ms, None);
    }
}
