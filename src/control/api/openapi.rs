//! The description of the API for machines, made from the table of routes.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::base::limits;
use crate::control::api::problem::{Kind, TYPE_PREFIX};
use crate::control::api::routes::{
    Access, PROBLEMS_ANYWHERE, PROBLEMS_ASKING, PROBLEMS_GUARDED, ROUTES, Route, Verb,
};
use crate::control::api::{Answer, Asked, json as answer, push};
use crate::control::tokens::Role;

/// `GET /openapi.json`
pub(crate) async fn serve(_asked: Asked) -> Answer {
    answer(StatusCode::OK, &document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES.iter().filter(|route| route.access != Access::Page) {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        let verb = match route.verb {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Delete => "delete",
        };
        path[verb] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "heartwheel",
            "summary": "The admin API of a heartwheel gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "Each token has a role: read, push or admin; each includes those \
                                before it. What an operation needs is its `x-role`",
            } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = path_parameters(route.path)
        .map(|name| {
            json!({ "name": name, "in": "path", "required": true,
                    "schema": { "type": "string" } })
        })
        .collect();
    parameters.extend(route.query.iter().map(|parameter| {
        json!({ "name": parameter.name, "in": "query", "description": parameter.about,
                "schema": { "type": parameter.kind } })
    }));
    let content = match route.success.schema {
        Some(name) => json!({ route.success.content_type: { "schema": reference(name) } }),
        None => json!({ route.success.content_type: {} }),
    };
    let mut responses = Map::new();
    let success = json!({ "description": route.success.about, "content": content });
    responses.insert(route.success.status.to_string(), success);
    for (status, kinds) in problems_by_status(route) {
        let words: Vec<_> = kinds.iter().map(|kind| kind.word()).collect();
        let response = json!({
            "description": words.join(", "),
            "content": { "application/problem+json": { "schema": reference("Problem") } },
        });
        responses.insert(status, response);
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.about,
        "parameters": parameters,
        "responses": responses,
    });
    if let Access::Needs(role) = route.access {
        // Without tokens nobody but this machine can ask, and none is needed.
        operation["security"] = json!([{ "token": [role.word()] }, {}]);
        operation["x-role"] = json!(role.word());
    }
    if let Some(name) = route.body {
        operation["requestBody"] =
            json!({ "content": { "application/json": { "schema": reference(name) } } });
    }
    operation
}

/// The variable parts of a path.
fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn problems_by_status(route: &Route) -> Vec<(String, Vec<Kind>)> {
    let guarded: [&[Kind]; 2] = match route.access {
        Access::Needs(_) => [PROBLEMS_GUARDED, PROBLEMS_ASKING],
        Access::Open | Access::Page => [&[], &[]],
    };
    let mut by_status: Vec<(String, Vec<Kind>)> = Vec::new();
    let all = [route.problems, PROBLEMS_ANYWHERE].into_iter().chain(guarded).flatten();
    for kind in all {
        let status = kind.status().as_u16().to_string();
        match by_status.iter_mut().find(|(other, _)| *other == status) {
            Some((_, kinds)) if kinds.contains(kind) => {}
            Some((_, kinds)) => kinds.push(*kind),
            None => by_status.push((status, vec![*kind])),
        }
    }
    by_status
}

pub(crate) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn schemas() -> Value {
    let mut all = answer_schemas();
    let schemas = body_schemas()
        .into_iter()
        .chain(reload_schemas())
        .chain(webhook_schemas())
        .chain(push::schemas());
    for (name, schema) in schemas {
        all[name] = schema;
    }
    all
}

/// What requests say.
fn body_schemas() -> [(&'static str, Value); 4] {
    let kick = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "epoch": { "type": "integer", "minimum": 0, "description": "Only this session" },
            "code": { "type": "integer", "description": "What it hears: 300, or from 1000 on" },
            "text": { "type": "string", "maxLength": limits::TEXT_BYTES_MAX },
        },
    });
    let rhythm = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["interval_ms", "timeout_ms"],
        "properties": {
            "interval_ms": { "type": "integer", "minimum": limits::INTERVAL_MIN.as_millis() },
            "timeout_ms": { "type": "integer", "minimum": limits::TIMEOUT_MIN.as_millis() },
        },
    });
    let drain = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "within_ms": span("Until whoever is still there is closed"),
            "per_second": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            "notice_ms": span("Not ready, but letting in, before the first GOAWAY"),
        },
    });
    let rebalance = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["fraction"],
        "properties": {
            "fraction": { "type": "number", "minimum": 0, "maximum": 1 },
            "within_ms": span("Until it ends, whoever was asked by then"),
            "per_second": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            "window_min_ms": span("When they are asked to come back, at the earliest"),
            "window_max_ms": span("And at the latest"),
        },
    });
    [("Kick", kick), ("Rhythm", rhythm), ("Drain", drain), ("Rebalance", rebalance)]
}

/// A length of time as a request says it.
fn span(about: &str) -> Value {
    let longest = limits::DEADLINE_MAX.as_millis();
    json!({ "type": "integer", "minimum": 0, "maximum": longest, "description": about })
}

/// What a reload says.
fn reload_schemas() -> [(&'static str, Value); 2] {
    let list = |item: Value| json!({ "type": "array", "items": item });
    let value = json!({ "type": ["string", "null"] });
    let mut change = object([("key", "string"), ("old", "string"), ("new", "string")]);
    change["properties"]["old"] = value.clone();
    change["properties"]["new"] = value;
    let mut reloaded = object([("changed", ""), ("needs_restart", ""), ("errors", "")]);
    reloaded["properties"] = json!({
        "changed": list(reference("Change")),
        "needs_restart": list(reference("Change")),
        "errors": list(json!({ "type": "string" })),
    });
    [("Reloaded", reloaded), ("Change", change)]
}

/// What every client that is online has.
const PRESENT: [(&str, &str); 6] = [
    ("client", "string"),
    ("epoch", "integer"),
    ("conn", "string"),
    ("remote", "string"),
    ("interval_ms", "integer"),
    ("timeout_ms", "integer"),
];

/// What is known of one client.
fn client_schema() -> Value {
    let client = [
        ("state", "string"),
        ("class", "string"),
        ("grace_ms", "integer"),
        ("since_unix_ms", "integer"),
        ("last_beat_unix_ms", "integer"),
        ("silence_ms", "integer"),
        ("outbox_bytes", "integer"),
        ("partial_bytes", "integer"),
        ("beats", "integer"),
        ("longest_gap_ms", "integer"),
        ("data_in", "integer"),
        ("data_out", "integer"),
        ("gaps_ms", "array"),
        ("probe_after_ms", "integer"),
        ("answer_us", "integer"),
        ("rtt_us", "integer"),
    ];
    let mut client = object(PRESENT.into_iter().chain(client));
    client["properties"]["gaps_ms"]["items"] = json!({ "type": "integer" });
    for unknown_at_times in ["probe_after_ms", "answer_us", "rtt_us"] {
        client["properties"][unknown_at_times]["type"] = json!(["integer", "null"]);
    }
    client["properties"]["state"]["enum"] = json!(["live", "suspect", "held"]);
    client["properties"]["groups"] = json!({ "type": "array", "items": { "type": "string" } });
    client["required"].as_array_mut().expect("made above").push("groups".into());
    client
}

fn history_schema() -> Value {
    let mut history = object([("client", "string"), ("complete", "boolean"), ("events", "array")]);
    history["properties"]["complete"]["description"] = json!("Nothing older is kept anywhere");
    history["properties"]["events"]["items"] = json!({ "type": "object" });
    history
}

/// What answers say.
fn answer_schemas() -> Value {
    let kinds: Vec<String> =
        Kind::ALL.iter().map(|kind| format!("{TYPE_PREFIX}{}", kind.word())).collect();
    json!({
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": { "type": "string", "enum": kinds },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "role": {
                    "type": "string",
                    "enum": Role::ALL.map(Role::word),
                    "description": "What would have been enough, where the problem is `forbidden`",
                },
            },
        },
        "Done": object([("done", "boolean")]),
        "Client": client_schema(),
        "History": history_schema(),
        "Present": object(PRESENT),
        "ClientPage": {
            "type": "object",
            "required": ["clients"],
            "properties": {
                "clients": { "type": "array", "items": reference("Client") },
                "next": { "type": "string" },
            },
        },
        "Snapshot": {
            "type": "object",
            "required": ["node", "boot", "seq", "position", "online", "clients"],
            "properties": {
                "node": { "type": "string" },
                "boot": { "type": "integer" },
                "seq": { "type": "integer" },
                "position": { "type": "string" },
                "online": { "type": "integer" },
                "clients": { "type": "array", "items": reference("Present") },
            },
        },
        "Draining": draining(),
        "Rebalancing": object([("rebalancing", "boolean"), ("fraction", "number")]),
        "Stats": {
            "type": "object",
            "description": "Counts by name; `ended` has one for each reason that happened",
            "properties": {
                "node": { "type": "string" },
                "boot": { "type": "integer" },
                "version": { "type": "string" },
                "ended": { "type": "object", "additionalProperties": { "type": "integer" } },
            },
            "additionalProperties": { "type": ["number", "boolean"] },
        },
        "StatsHistory": stats_history_schema(),
        "StatsSample": sample_schema(),
    })
}

fn stats_history_schema() -> Value {
    let mut history = object([
        ("node", "string"),
        ("boot", "integer"),
        ("version", "string"),
        ("driver", "string"),
        ("shards", "integer"),
        ("started_unix_ms", "integer"),
        ("now_unix_ms", "integer"),
        ("late_bounds_ms", "array"),
        ("samples", "array"),
    ]);
    history["properties"]["late_bounds_ms"]["items"] = json!({ "type": "integer" });
    history["properties"]["samples"]["items"] = reference("StatsSample");
    history
}

/// What one sample of the past says; beside what is now, counts within its span.
fn sample_schema() -> Value {
    let counts = ["beats", "bytes", "accepted", "came", "resumed", "rescued", "stalled_ms"];
    let counts = counts.into_iter().chain(["turns", "busy_us", "busy_p99_us"]);
    let now = ["n", "at_unix_ms", "span_ms", "connections", "online", "held"];
    let integers = now.into_iter().chain(counts).map(|name| (name, "integer"));
    let others =
        [("accepting", "boolean"), ("draining", "boolean"), ("went", "object"), ("late", "array")];
    let mut sample = object(integers.chain(others));
    sample["properties"]["went"]["additionalProperties"] = json!({ "type": "integer" });
    sample["properties"]["late"]["items"] = json!({ "type": "integer" });
    sample["properties"]["busy_p99_us"]["type"] = json!(["integer", "null"]);
    sample
}

/// How the webhooks are: each stream to each target.
fn webhook_schemas() -> [(&'static str, Value); 2] {
    let texts = ["target", "stream", "url", "state", "position"].map(|name| (name, "string"));
    let counts = ["lag", "batches", "events", "failures", "retries", "resets", "missed"];
    let mut webhook = object(texts.into_iter().chain(counts.map(|name| (name, "integer"))));
    webhook["properties"]["state"]["enum"] = json!(["ok", "failing", "off"]);
    let properties = &mut webhook["properties"];
    properties["last_success_unix_ms"] = json!({ "type": "integer" });
    properties["last_failure_unix_ms"] = json!({ "type": "integer" });
    properties["last_failure"] = json!({ "type": "string" });
    let list = json!({
        "type": "object",
        "required": ["webhooks"],
        "properties": { "webhooks": { "type": "array", "items": reference("Webhook") } },
    });
    [("Webhook", webhook), ("WebhookList", list)]
}

/// The rate may decide instead of a time.
fn draining() -> Value {
    let mut draining = object([("draining", "boolean"), ("notice_ms", "integer")]);
    draining["properties"]["within_ms"] = json!({ "type": "integer" });
    draining
}

/// An object that has all of these.
pub(crate) fn object(fields: impl IntoIterator<Item = (&'static str, &'static str)>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, kind) in fields {
        properties.insert(name.to_owned(), json!({ "type": kind }));
        required.push(name);
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_schema_that_is_named_is_there_and_the_other_way_round() {
        let document = document();
        let text = document.to_string();
        let named: HashSet<&str> = text
            .split("#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap_or_default())
            .collect();
        let schemas = document["components"]["schemas"].as_object().expect("an object");
        let there: HashSet<&str> = schemas.keys().map(String::as_str).collect();
        assert_eq!(named, there);
    }

    #[test]
    fn every_route_has_a_name_of_its_own() {
        let ids: HashSet<_> = ROUTES.iter().map(|route| route.id).collect();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
