//! `ctl push` and `ctl group`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};

use crate::base::limits;
use crate::base::time::Span;
use crate::cli::args::CtlClientsArgs;
use crate::cli::args::push::{CtlGroupArgs, CtlGroupCommand, CtlPushArgs};
use crate::cli::ctl::{Desk, Form, IN_A_PATH, PAGE, client_path, shown, shown_value, understood};
use crate::cli::error::CliError;
use crate::os::clock::Clock;

/// Between two looks at a message that is on its way to many.
const LOOK_PAUSE: Span = Span::from_millis(50);
/// How long it is waited for that what was queued is handed over, when everybody has got a turn.
const SETTLE_MAX: Span = Span::from_millis(500);

fn group_path(group: &str, action: &str) -> String {
    format!("/v1/groups/{}{action}", utf8_percent_encode(group, IN_A_PATH))
}

impl Desk<'_> {
    pub(super) fn push(&mut self, args: &CtlPushArgs) -> Result<(), CliError> {
        let body = body(args)?;
        match (&args.client, &args.group) {
            (Some(client), _) => self.push_to_client(client, &body),
            (None, Some(group)) => self.push_to_many(&group_path(group, "/push"), &body, args.wait),
            (None, None) => self.push_to_many("/v1/broadcast", &body, args.wait),
        }
    }

    fn push_to_client(&mut self, client: &str, body: &Value) -> Result<(), CliError> {
        let answer = self.caller.post(&client_path(client, "/push"), body.to_string())?;
        let answer = understood(&answer)?;
        let result = answer["result"].as_str().unwrap_or_default();
        match self.form {
            Form::Json => self.line(&answer.to_string())?,
            Form::Human if answer["seq"].is_null() => self.line(&shown(result))?,
            Form::Human => self.line(&format!(
                "{}  epoch {}  seq {}",
                shown(result),
                shown_value(&answer["epoch"]),
                shown_value(&answer["seq"]),
            ))?,
        }
        match result {
            "delivered" | "acked" | "queued" => Ok(()),
            _ => {
                self.flush()?;
                let text = format!("{} did not get it: {}", shown(client), shown(result));
                Err(CliError::machine(text))
            }
        }
    }

    /// Begins it, and looks until everybody has got a turn.
    fn push_to_many(
        &mut self,
        path: &str,
        body: &Value,
        wait: Option<Span>,
    ) -> Result<(), CliError> {
        let mut status = understood(&self.caller.post(path, body.to_string())?)?;
        let id = status["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/v1/broadcasts/{}", utf8_percent_encode(&id, IN_A_PATH));
        let clock = Clock::new();
        let mut settled_by = None;
        let is_open = |status: &Value| {
            let waits_for_ack = wait.is_some() && body["ack"] == true;
            let results = &status["results"];
            results["queued"].as_u64() > Some(0)
                || waits_for_ack && results["delivered"].as_u64() > Some(0)
        };
        while status["state"] == "running"
            || is_open(&status)
                && clock.now() < *settled_by.get_or_insert(clock.now() + wait.unwrap_or(SETTLE_MAX))
        {
            clock.sleep(LOOK_PAUSE);
            status = understood(&self.caller.get(&path)?)?;
        }
        if self.form == Form::Json {
            return self.line(&status.to_string());
        }
        let results = status["results"].as_object().into_iter().flatten();
        let results: Vec<String> =
            results.map(|(word, count)| format!("{count} {}", shown(word))).collect();
        let targets = &status["targets"];
        self.line(&format!("to {targets} clients: {}", results.join(", ")))?;
        for other in status["others"].as_array().into_iter().flatten() {
            let (client, result) = (shown_value(&other["client"]), shown_value(&other["result"]));
            self.line(&format!("{client:<24}  {result}"))?;
        }
        Ok(())
    }

    pub(super) fn group(&mut self, command: &CtlGroupCommand) -> Result<(), CliError> {
        match command {
            CtlGroupCommand::Add(args) => {
                self.each(args, |desk, path| Ok(desk.caller.put(path)?))
            }
            CtlGroupCommand::Remove(args) => {
                self.each(args, |desk, path| Ok(desk.caller.delete(path)?))
            }
            CtlGroupCommand::List { group: None } => self.groups(),
            CtlGroupCommand::List { group: Some(group) } => self.clients(&CtlClientsArgs {
                prefix: None,
                class: None,
                group: Some(group.clone()),
                limit: None,
            }),
        }
    }

    /// Does it to one client after the other, and stops at the first that is refused.
    fn each(
        &mut self,
        args: &CtlGroupArgs,
        act: impl Fn(&Self, &str) -> Result<Vec<u8>, CliError>,
    ) -> Result<(), CliError> {
        for client in &args.clients {
            let client = utf8_percent_encode(client, IN_A_PATH);
            let path = group_path(&args.group, &format!("/clients/{client}"));
            let answer = act(self, &path)?;
            if self.form == Form::Json {
                self.line(&understood(&answer)?.to_string())?;
            }
        }
        if self.form == Form::Human {
            self.line("done")?;
        }
        Ok(())
    }

    fn groups(&mut self) -> Result<(), CliError> {
        let mut after: Option<String> = None;
        loop {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &PAGE.to_string());
            if let Some(after) = &after {
                query.append_pair("after", after);
            }
            let page = understood(&self.caller.get(&format!("/v1/groups?{}", query.finish()))?)?;
            for group in page["groups"].as_array().into_iter().flatten() {
                match self.form {
                    Form::Json => self.line(&group.to_string())?,
                    Form::Human => {
                        let (name, clients) = (shown_value(&group["group"]), &group["clients"]);
                        self.line(&format!("{name:<24}  {clients}"))?;
                    }
                }
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return Ok(()),
            }
        }
    }
}

/// The message as the API takes it.
fn body(args: &CtlPushArgs) -> Result<Value, CliError> {
    let mut body = json!({});
    if let Some(text) = &args.text {
        body["text"] = text.as_str().into();
    }
    if let Some(base64) = &args.base64 {
        body["base64"] = base64.as_str().into();
    }
    if let Some(path) = &args.file {
        body["base64"] = BASE64_STANDARD.encode(read(path)?).into();
    }
    if let Some(topic) = &args.topic {
        body["topic"] = topic.as_str().into();
    }
    if args.ack {
        body["ack"] = true.into();
    }
    // Whoever waits for many does so here.
    let wait = args.wait.filter(|_| args.client.is_some());
    for (name, value) in [
        ("ttl_ms", args.ttl.map(Span::as_millis)),
        ("wait_ms", wait.map(Span::as_millis)),
        ("epoch", args.epoch),
        ("per_second", args.per_second.map(u64::from)),
    ] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    Ok(body)
}

/// The file, or standard input where it is `-`; no more of it than a message can have.
fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let name = path.display();
    let unreadable = |cause: io::Error| CliError::machine(format!("cannot read {name}: {cause}"));
    let mut bytes = Vec::new();
    let most = limits::PAYLOAD_BYTES_LIMIT as u64 + 1;
    match path.as_os_str() == "-" {
        true => io::stdin().lock().take(most).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)),
    }
    .map_err(unreadable)?;
    match bytes.len() > limits::PAYLOAD_BYTES_LIMIT {
        true => Err(CliError::machine(format!(
            "{name} has more than {} bytes, which is more than a message can have",
            limits::PAYLOAD_BYTES_LIMIT
        ))),
        false => Ok(bytes),
    }
}
