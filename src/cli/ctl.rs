//! `ctl`: asks a running gateway, and tells it what to do.

mod push;
mod show;

use std::io::{self, BufWriter, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::base::time::Span;
use crate::cli::args::{
    CtlArgs, CtlClientsArgs, CtlCommand, CtlDrainArgs, CtlEventsArgs, CtlKickArgs,
    CtlRebalanceArgs, CtlRhythmArgs,
};
use crate::cli::error::CliError;
use crate::cli::explain;
use crate::cli::identity;
use crate::control::caller::{CallError, Caller};
use crate::os::pause;

/// What stands for itself in a path.
const IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Clients asked for at once.
const PAGE: usize = 1_000;
/// Longest line of a feed.
const LINE_BYTES_MAX: usize = 64 * 1_024;
/// Between two looks at a gateway that is to end.
const WAIT_PAUSE: Span = Span::from_millis(500);
/// Looks in a row that may go wrong.
const WAIT_MISSES_MAX: u32 = 10;
/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Runs `ctl`.
pub fn run(args: &CtlArgs) -> Result<(), CliError> {
    if let CtlCommand::Token(args) = &args.command {
        return identity::make(args);
    }
    let caller = args.gateway.caller()?;
    let mut desk = Desk { caller, form: args.form(), out: BufWriter::new(io::stdout().lock()) };
    match &args.command {
        CtlCommand::Clients(args) => desk.clients(args)?,
        CtlCommand::Show { client } => desk.show_client(client)?,
        CtlCommand::Explain { client, limit } => desk.explain(client, *limit)?,
        CtlCommand::Kick(args) => desk.kick(args)?,
        CtlCommand::Rhythm(args) => desk.rhythm(args)?,
        CtlCommand::Push(args) => desk.push(args)?,
        CtlCommand::Group(command) => desk.group(command)?,
        CtlCommand::Events(args) => desk.events(args)?,
        CtlCommand::Drain(args) => desk.drain(args)?,
        CtlCommand::Reload => return desk.reload(),
        CtlCommand::Rebalance(args) => desk.rebalance(args)?,
        CtlCommand::Snapshot => desk.snapshot()?,
        CtlCommand::Stats => desk.show("/v1/stats")?,
        CtlCommand::Webhooks => desk.webhooks()?,
        // Made above, without asking anybody.
        CtlCommand::Token(_) => {}
        CtlCommand::Health => desk.is_well("/healthz")?,
        CtlCommand::Ready => desk.is_well("/readyz")?,
    }
    desk.flush()
}

fn put_span(body: &mut Value, name: &str, span: Option<Span>) {
    if let Some(span) = span {
        body[name] = span.as_millis().into();
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// For people.
    Human,
    /// For programs: as they came, or a line each.
    Json,
}

struct Desk<'a> {
    caller: Caller,
    form: Form,
    out: BufWriter<io::StdoutLock<'a>>,
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        Self::machine(error.to_string())
    }
}

fn client_path(client: &str, action: &str) -> String {
    format!("/v1/clients/{}{action}", utf8_percent_encode(client, IN_A_PATH))
}

pub(crate) fn understood(bytes: &[u8]) -> Result<Value, CliError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CliError::machine(format!("the answer is no JSON: {error}")))
}

/// A text as a terminal can be shown it: whatever would steer it, or turn its direction, is
/// escaped.
pub(crate) fn shown(text: &str) -> String {
    let turns = ['\u{200e}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    let steers = |c: char| c.is_control() || turns.iter().any(|turn| turn.contains(&c));
    let mut out = String::new();
    for c in text.chars() {
        match steers(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

pub(crate) fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => shown(&value.to_string()),
    }
}

/// The time of the day, UTC.
pub(crate) fn time_of_day(unix_ms: u64) -> String {
    let ms = unix_ms % DAY_MS;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1_000)
}

impl Desk<'_> {
    fn line(&mut self, line: &str) -> Result<(), CliError> {
        writeln!(self.out, "{line}").map_err(|cause| CliError::Stdout { cause })
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).map_err(|cause| CliError::Stdout { cause })
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(|cause| CliError::Stdout { cause })
    }

    fn clients(&mut self, args: &CtlClientsArgs) -> Result<(), CliError> {
        let mut left = args.limit.unwrap_or(usize::MAX);
        let mut cursor: Option<String> = None;
        if self.form == Form::Human {
            self.client_line(["CLIENT", "STATE", "CLASS", "REMOTE", "EVERY", "SILENT"])?;
        }
        while left > 0 {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &left.min(PAGE).to_string());
            for (name, value) in [
                ("prefix", &args.prefix),
                ("class", &args.class),
                ("group", &args.group),
                ("cursor", &cursor),
            ] {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            let page = self.caller.get(&format!("/v1/clients?{}", query.finish()))?;
            let page = understood(&page)?;
            for client in page["clients"].as_array().into_iter().flatten() {
                self.client(client)?;
                left -= 1;
            }
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(())
    }

    fn client(&mut self, client: &Value) -> Result<(), CliError> {
        if self.form == Form::Json {
            return self.line(&client.to_string());
        }
        let text = |key: &str| shown_value(&client[key]);
        let millis = |key: &str| format!("{}ms", shown_value(&client[key]));
        let (name, state, class) = (text("client"), text("state"), text("class"));
        let (remote, every, silent) = (text("remote"), millis("interval_ms"), millis("silence_ms"));
        self.client_line([&name, &state, &class, &remote, &every, &silent])
    }

    fn client_line(&mut self, columns: [&str; 6]) -> Result<(), CliError> {
        let [name, state, class, remote, every, silent] = columns;
        self.line(&format!(
            "{name:<24}  {state:<8} {class:<10} {remote:<22} {every:>10} {silent:>10}"
        ))
    }

    fn show_client(&mut self, client: &str) -> Result<(), CliError> {
        let answer = understood(&self.caller.get(&client_path(client, ""))?)?;
        match self.form {
            Form::Json => self.line(&answer.to_string()),
            Form::Human => show::lines(&answer).iter().try_for_each(|line| self.line(line)),
        }
    }

    /// One object, a line for each of its fields.
    fn show(&mut self, path: &str) -> Result<(), CliError> {
        let answer = understood(&self.caller.get(path)?)?;
        if self.form == Form::Json {
            return self.line(&answer.to_string());
        }
        self.fields("", answer.as_object().unwrap_or(&Map::new()))
    }

    fn fields(&mut self, before: &str, fields: &Map<String, Value>) -> Result<(), CliError> {
        for (name, value) in fields {
            if let Value::Object(inner) = value {
                self.fields(&format!("{before}{name}."), inner)?;
                continue;
            }
            let name = shown(&format!("{before}{name}"));
            self.line(&format!("{name:<24} {}", shown_value(value)))?;
        }
        Ok(())
    }

    /// One client in words: as it is now, and what it did lately.
    fn explain(&mut self, client: &str, limit: usize) -> Result<(), CliError> {
        const NOT_FOUND: u16 = 404;
        let here = match self.caller.get(&client_path(client, "")) {
            Ok(answer) => Some(understood(&answer)?),
            Err(CallError::Refused { status: NOT_FOUND, .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let history = client_path(client, &format!("/history?limit={limit}"));
        let history = understood(&self.caller.get(&history)?)?;
        let events = history["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let words: Vec<String> = match &here {
            Some(here) => explain::client(here),
            None if events.is_empty() => {
                vec![format!("{} is not here, and nothing is known of it.", shown(client))]
            }
            None => vec![format!("{} is not here.", shown(client))],
        };
        let past: Vec<String> = events.iter().flat_map(explain::event).collect();
        if self.form == Form::Json {
            let all = json!({ "client": here, "history": history, "words": words, "past": past });
            return self.line(&all.to_string());
        }
        words.iter().try_for_each(|line| self.line(line))?;
        if !past.is_empty() {
            let older = match history["complete"].as_bool() {
                Some(true) => "",
                Some(false) | None => ", the latest of more",
            };
            self.line("")?;
            self.line(&format!("What it did (UTC{older}):"))?;
        }
        past.iter().try_for_each(|line| self.line(line))
    }

    fn tell(&mut self, path: &str, body: &Value) -> Result<(), CliError> {
        let answer = self.caller.post(path, body.to_string())?;
        match self.form {
            Form::Json => self.line(&understood(&answer)?.to_string()),
            Form::Human => self.line("done"),
        }
    }

    fn is_well(&mut self, path: &str) -> Result<(), CliError> {
        let answer = self.caller.get(path)?;
        match self.form {
            Form::Json => self.line(&understood(&answer)?.to_string()),
            Form::Human => self.line("ok"),
        }
    }

    fn kick(&mut self, args: &CtlKickArgs) -> Result<(), CliError> {
        let mut body = json!({});
        if let Some(epoch) = args.epoch {
            body["epoch"] = epoch.into();
        }
        if let Some(code) = args.code {
            body["code"] = code.into();
        }
        if let Some(text) = &args.text {
            body["text"] = text.as_str().into();
        }
        self.tell(&client_path(&args.client, "/kick"), &body)
    }

    fn rhythm(&mut self, args: &CtlRhythmArgs) -> Result<(), CliError> {
        let body = json!({
            "interval_ms": args.interval.as_millis(),
            "timeout_ms": args.timeout.as_millis(),
        });
        self.tell(&client_path(&args.client, "/rhythm"), &body)
    }

    fn drain(&mut self, args: &CtlDrainArgs) -> Result<(), CliError> {
        let mut body = json!({});
        put_span(&mut body, "within_ms", args.within);
        put_span(&mut body, "notice_ms", args.notice);
        if let Some(rate) = args.per_second {
            body["per_second"] = rate.into();
        }
        self.tell("/v1/drain", &body)?;
        if args.wait { self.wait_for_end() } else { Ok(()) }
    }

    /// Looks until nobody answers any more, and says what it sees.
    fn wait_for_end(&mut self) -> Result<(), CliError> {
        let mut said = String::new();
        let mut misses = 0;
        loop {
            self.flush()?;
            pause::pause(WAIT_PAUSE);
            let stats = match self.caller.get("/v1/stats") {
                Ok(stats) => understood(&stats)?,
                Err(CallError::Unreachable { .. }) => return self.line("ended"),
                // It may be busy, or ending just now.
                Err(_) if misses < WAIT_MISSES_MAX => {
                    misses += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            misses = 0;
            if stats["draining"] == false {
                // Another one is in its place already.
                return self.line("ended");
            }
            let number = |key: &str| stats[key].as_u64().unwrap_or_default();
            let (told, left) = (number("leavers_told"), number("leavers_left"));
            let (closed, here) = (number("leavers_closed"), number("connections"));
            let line = format!("told {told}, left {left}, closed {closed}, still here {here}");
            if line != said && self.form == Form::Human {
                self.line(&line)?;
                said = line;
            }
        }
    }

    fn rebalance(&mut self, args: &CtlRebalanceArgs) -> Result<(), CliError> {
        let mut body = json!({ "fraction": f64::from(args.parts_per_million) / 1_000_000.0 });
        put_span(&mut body, "within_ms", args.within);
        put_span(&mut body, "window_min_ms", args.window.map(|(min, _)| min));
        put_span(&mut body, "window_max_ms", args.window.map(|(_, max)| max));
        if let Some(rate) = args.per_second {
            body["per_second"] = rate.into();
        }
        self.tell("/v1/rebalance", &body)
    }

    fn webhooks(&mut self) -> Result<(), CliError> {
        let answer = understood(&self.caller.get("/v1/webhooks")?)?;
        if self.form == Form::Human {
            self.webhook_line([
                "TARGET",
                "STREAM",
                "STATE",
                "LAG",
                "TOOK",
                "FAILED",
                "LAST FAILURE",
            ])?;
        }
        for row in answer["webhooks"].as_array().into_iter().flatten() {
            if self.form == Form::Json {
                self.line(&row.to_string())?;
                continue;
            }
            let text = |key: &str| row.get(key).map(shown_value).unwrap_or_default();
            let columns =
                ["target", "stream", "state", "lag", "events", "failures", "last_failure"];
            let columns = columns.map(text);
            self.webhook_line(columns.each_ref().map(String::as_str))?;
        }
        Ok(())
    }

    fn webhook_line(&mut self, columns: [&str; 7]) -> Result<(), CliError> {
        let [target, stream, state, lag, took, failed, why] = columns;
        let line = format!(
            "{target:<24}  {stream:<10} {state:<8} {lag:>10} {took:>12} {failed:>8}  {why}"
        );
        self.line(line.trim_end())
    }

    /// Fails when nothing was reloaded, after every mistake was told.
    fn reload(&mut self) -> Result<(), CliError> {
        let answer = understood(&self.caller.post("/v1/reload", String::new())?)?;
        let entries = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
        let errors = entries("errors");
        match self.form {
            Form::Json => self.line(&answer.to_string())?,
            Form::Human => {
                for (name, mark) in [("changed", "changed"), ("needs_restart", "needs a restart")] {
                    for change in entries(name) {
                        self.change(mark, &change)?;
                    }
                }
                for error in &errors {
                    self.line(&format!("wrong: {}", shown_value(error)))?;
                }
                if errors.is_empty() && entries("changed").is_empty() {
                    self.line("nothing changed")?;
                }
            }
        }
        self.flush()?;
        match errors.len() {
            0 => Ok(()),
            count => Err(CliError::machine(format!(
                "the gateway goes on as before: {count} to mend in its configuration"
            ))),
        }
    }

    fn change(&mut self, mark: &str, change: &Value) -> Result<(), CliError> {
        let text = |name: &str| match change[name].is_null() {
            true => "(none)".to_owned(),
            false => shown_value(&change[name]),
        };
        self.line(&format!("{mark}: {}: {} -> {}", text("key"), text("old"), text("new")))
    }

    fn snapshot(&mut self) -> Result<(), CliError> {
        let snapshot = self.caller.get("/v1/snapshot")?;
        if self.form == Form::Json {
            self.raw(&snapshot)?;
            return self.line("");
        }
        let snapshot = understood(&snapshot)?;
        let (position, online) = (&snapshot["position"], &snapshot["online"]);
        self.line(&format!("{online} online at {}", shown_value(position)))?;
        for client in snapshot["clients"].as_array().into_iter().flatten() {
            let text = |key: &str| shown_value(&client[key]);
            self.line(&format!("{}  {}  {}", text("client"), text("epoch"), text("remote")))?;
        }
        Ok(())
    }

    /// Prints events, and takes the feed up again where it was cut off.
    fn events(&mut self, args: &CtlEventsArgs) -> Result<(), CliError> {
        let stream = if args.transport { "transport" } else { "events" };
        let path = format!("/v1/{stream}?follow={}", args.follow);
        let mut last_id = args.after.map(|position| position.to_string());
        loop {
            let mut feed = Feed::after(last_id.clone());
            let outcome = {
                let Self { caller, form, out } = &mut *self;
                caller.follow(&path, last_id.as_deref(), |piece| {
                    feed.take(piece, |event| print_event(out, *form, event))?;
                    out.flush().map_err(|cause| CliError::Stdout { cause })
                })
            };
            if let Some(reset) = feed.reset {
                return Err(CliError::machine(shown(&reset)));
            }
            // Cut off: whatever was heard by then counts, and the rest is asked for again.
            if feed.has_stopped || !args.follow || feed.last_id == last_id {
                return outcome;
            }
            last_id = feed.last_id;
        }
    }
}

fn print_event(out: &mut impl Write, form: Form, json: &str) -> Result<(), CliError> {
    let line = match form {
        Form::Json => json.to_owned(),
        Form::Human => human_event(&understood(json.as_bytes())?),
    };
    writeln!(out, "{line}").map_err(|cause| CliError::Stdout { cause })
}

fn human_event(event: &Value) -> String {
    let at = event["at_unix_ms"].as_u64().map(time_of_day).unwrap_or_default();
    let mut line = format!("{at}  {:<12}", shown_value(&event["event"]));
    if let Some(client) = event.get("client") {
        line.push_str(&format!(" {}", shown_value(client)));
    }
    for (name, value) in event.as_object().into_iter().flatten() {
        match name.as_str() {
            "event" | "at_unix_ms" | "node" | "boot" | "client" => {}
            name => line.push_str(&format!(" {}={}", shown(name), shown_value(value))),
        }
    }
    line
}

/// What was read of a feed of server-sent events.
#[derive(Default)]
pub(crate) struct Feed {
    /// Bytes of a line that has not ended.
    unread: Vec<u8>,
    pub(crate) last_id: Option<String>,
    kind: String,
    /// Why the feed cannot be taken up again.
    pub(crate) reset: Option<String>,
    has_stopped: bool,
}

impl Feed {
    /// One that goes on behind this event.
    pub(crate) fn after(last_id: Option<String>) -> Self {
        Self { last_id, ..Self::default() }
    }

    /// Hands the data of each event to `print`, but for what ends the feed.
    pub(crate) fn take(
        &mut self,
        piece: &[u8],
        mut print: impl FnMut(&str) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.unread.extend_from_slice(piece);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            self.line(&line, &mut print)?;
        }
        match self.unread.len() > LINE_BYTES_MAX {
            true => Err(CliError::machine("the feed has an endless line")),
            false => Ok(()),
        }
    }

    fn line(
        &mut self,
        line: &str,
        print: &mut impl FnMut(&str) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        match line.split_once(": ") {
            Some(("id", id)) => self.last_id = Some(id.to_owned()),
            Some(("event", kind)) => kind.clone_into(&mut self.kind),
            Some(("data", json)) if self.kind == "reset" => {
                let reset = understood(json.as_bytes())?;
                self.reset = reset["detail"].as_str().map(str::to_owned);
            }
            Some(("data", json)) => {
                self.has_stopped = json.starts_with("{\"event\":\"stopped\"");
                print(json)?;
            }
            _ => {}
        }
        if line.is_empty() {
            self.kind.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_says_steers_the_terminal() {
        assert_eq!(shown("till-12 ä"), "till-12 ä");
        assert_eq!(shown("\u{1b}[2J\u{9b}\r"), "\\u{1b}[2J\\u{9b}\\u{d}");
        assert_eq!(shown("a\u{202e}b\u{2066}"), "a\\u{202e}b\\u{2066}");
        let event = json!({ "event": "online", "at_unix_ms": 90_061_001_u64, "boot": 1,
            "client": "\u{7}x", "epoch": 3 });
        assert_eq!(human_event(&event), "01:01:01.001  online       \\u{7}x epoch=3");
    }

    #[test]
    fn a_client_id_is_one_part_of_a_path() {
        assert_eq!(client_path("a/b?c d%", "/kick"), "/v1/clients/a%2Fb%3Fc%20d%25/kick");
    }

    #[test]
    fn a_feed_is_read_however_it_is_cut() {
        let text = "id: 7:1\n\n: alive\n\nid: 7:2\ndata: {\"event\":\"a\"}\n\nid: 7:3\n\
                    data: {\"event\":\"stopped\"}\n\nevent: reset\ndata: {\"detail\":\"gone\"}\n\n";
        for cut in 1..text.len() {
            let (mut feed, mut printed) = (Feed::default(), Vec::new());
            for piece in [&text[..cut], &text[cut..]] {
                let print = |json: &str| {
                    printed.push(json.to_owned());
                    Ok(())
                };
                feed.take(piece.as_bytes(), print).expect("it is a feed");
            }
            assert_eq!(printed, ["{\"event\":\"a\"}", "{\"event\":\"stopped\"}"]);
            assert_eq!(feed.last_id.as_deref(), Some("7:3"));
            assert_eq!(feed.reset.as_deref(), Some("gone"));
            assert!(feed.has_stopped);
        }
        let endless = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(Feed::default().take(&endless, |_| Ok(())).is_err());
    }
}
