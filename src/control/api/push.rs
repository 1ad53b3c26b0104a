//! Messages for clients: to one, to several, to a group, to all.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json as value};
use tokio::time::sleep;

use crate::base::ids::{ClientId, GroupName};
use crate::base::limits;
use crate::base::time::Span;
use crate::control::api::clients::{self, answer_about, unexpected};
use crate::control::api::openapi::{object, reference};
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Api, Asked, json, present};
use crate::gateway::{
    Body, Broadcast, BroadcastReply, BroadcastView, Command, Outcome, Post, Push, Pushed, Reply,
    Taken,
};

/// What a request says. Which of the last four it may say depends on the path.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PushBody {
    #[serde(default, deserialize_with = "present")]
    topic: Option<String>,
    #[serde(default, deserialize_with = "present")]
    text: Option<String>,
    #[serde(default, deserialize_with = "present")]
    base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    ack: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    ttl_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    wait_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    epoch: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    clients: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    per_second: Option<u32>,
}

/// What became of a message for one client, as it is told.
#[derive(Serialize)]
struct PushedBody<'a> {
    client: &'a str,
    result: &'static str,
    epoch: Option<u64>,
    seq: Option<u32>,
}

#[derive(Serialize)]
struct PushedMany<'a> {
    results: Vec<PushedBody<'a>>,
}

#[derive(Serialize)]
struct BroadcastBody {
    id: String,
    state: &'static str,
    targets: u64,
    /// By result; those that there are none of are left out.
    results: Map<String, Value>,
    others: Vec<OtherBody>,
}

#[derive(Serialize)]
struct OtherBody {
    client: String,
    result: &'static str,
}

impl<'a> PushedBody<'a> {
    fn new(client: &'a str, pushed: Pushed) -> Self {
        let was_taken = pushed.seq > 0;
        Self {
            client,
            result: pushed.outcome.word(),
            epoch: was_taken.then_some(pushed.epoch),
            seq: was_taken.then_some(pushed.seq),
        }
    }
}

impl BroadcastBody {
    fn new(boot: u64, view: BroadcastView) -> Self {
        let results = Outcome::ALL.into_iter().zip(view.results);
        let results = results.filter(|(_, count)| *count > 0);
        let other = |(client, outcome): (ClientId, Outcome)| OtherBody {
            client: client.to_string(),
            result: outcome.word(),
        };
        Self {
            id: format!("{boot:x}-{:x}", view.id),
            state: if view.is_running { "running" } else { "done" },
            targets: view.targets,
            results: results.map(|(one, count)| (one.word().into(), count.into())).collect(),
            others: view.others.into_iter().map(other).collect(),
        }
    }
}

// --- what is asked -------------------------------------------------------------------------------

impl PushBody {
    /// The message, if it is one.
    fn post(&mut self) -> Result<Post, Problem> {
        let bytes = match (self.text.take(), self.base64.take()) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => BASE64_STANDARD
                .decode(text)
                .map_err(|error| Problem::bad(format!("base64: {error}")))?,
            (None, None) => return Err(Problem::bad("expected text or base64")),
            (Some(_), Some(_)) => return Err(Problem::bad("expected text or base64, not both")),
        };
        let out_of_bounds = |detail: String| Problem::new(Kind::OutOfBounds, detail);
        let body = Body::new(self.topic.take().unwrap_or_default(), bytes)
            .map_err(|error| out_of_bounds(error.to_string()))?;
        let ttl = self.ttl_ms.map(Span::from_millis);
        if ttl.is_some_and(|ttl| ttl > limits::QUEUE_TTL_MAX || ttl == Span::ZERO) {
            let most = limits::QUEUE_TTL_MAX.as_millis();
            return Err(out_of_bounds(format!("ttl_ms: expected 1 to {most}")));
        }
        Ok(Post { body: Arc::new(body), ack: self.ack.unwrap_or(false), ttl })
    }

    fn wait(&self) -> Result<Option<Span>, Problem> {
        let wait = self.wait_ms.map(Span::from_millis);
        if wait.is_some_and(|wait| wait > limits::PUSH_WAIT_MAX) {
            let most = limits::PUSH_WAIT_MAX.as_millis();
            let detail = format!("wait_ms: expected at most {most}");
            return Err(Problem::new(Kind::OutOfBounds, detail));
        }
        Ok(wait)
    }

    /// Complains of what has no meaning at this path.
    fn refuse(&self, names: &[&str]) -> Result<(), Problem> {
        for (name, is_said) in [
            ("wait_ms", self.wait_ms.is_some()),
            ("epoch", self.epoch.is_some()),
            ("clients", self.clients.is_some()),
            ("per_second", self.per_second.is_some()),
        ] {
            if is_said && names.contains(&name) {
                return Err(Problem::bad(format!("{name} has no meaning here")));
            }
        }
        Ok(())
    }
}

// --- to one or several ---------------------------------------------------------------------------

/// `POST /v1/clients/{id}/push`
pub(crate) async fn one(asked: Asked) -> Answer {
    let mut body: PushBody = asked.json()?;
    body.refuse(&["clients", "per_second"])?;
    let (post, wait) = (body.post()?, body.wait()?);
    let name = asked.client();
    // Whoever has no client id is nobody who could ever have been here.
    let Ok(client) = ClientId::new(name) else {
        return Err(Problem::bad(format!("{name:?} is no client id")));
    };
    let ack = post.ack;
    let push = Push { clients: vec![client.clone()], epoch: body.epoch, post };
    let reply = asked.api.door.ask(Command::Push(Box::new(push))).await?;
    let Reply::Pushed(pushed) = reply else { return answer_about(name, reply) };
    let mut pushed: Vec<_> = std::iter::once(client).zip(pushed).collect();
    settle(&asked.api, &mut pushed, ack, wait).await?;
    let Some((_, pushed)) = pushed.first() else { return Err(unexpected()) };
    json(StatusCode::OK, &PushedBody::new(name, *pushed))
}

/// `POST /v1/push`
pub(crate) async fn many(asked: Asked) -> Answer {
    let mut body: PushBody = asked.json()?;
    body.refuse(&["epoch", "per_second"])?;
    let names = body.clients.take().unwrap_or_default();
    if names.is_empty() || names.len() > limits::PUSH_CLIENTS_MAX {
        let detail = format!("clients: expected 1 to {}", limits::PUSH_CLIENTS_MAX);
        return Err(Problem::new(Kind::OutOfBounds, detail));
    }
    let (post, wait) = (body.post()?, body.wait()?);
    let client = |name: &String| {
        ClientId::new(name).map_err(|_| Problem::bad(format!("{name:?} is no client id")))
    };
    let clients: Vec<ClientId> = names.iter().map(client).collect::<Result<_, _>>()?;
    let ack = post.ack;
    let mut pushed = push_to_all(&asked.api, clients, post).await?;
    settle(&asked.api, &mut pushed, ack, wait).await?;
    let results = pushed.iter().map(|(one, pushed)| PushedBody::new(one.as_str(), *pushed));
    json(StatusCode::OK, &PushedMany { results: results.collect() })
}

/// Asks every shard for its own clients, and puts the answers in the order of all of them.
async fn push_to_all(
    api: &Api,
    clients: Vec<ClientId>,
    post: Post,
) -> Result<Vec<(ClientId, Pushed)>, Problem> {
    let places = by_shard(api, clients.iter());
    let mut all: Vec<Option<Pushed>> = vec![None; clients.len()];
    for places in places.into_values() {
        let own = places.iter().map(|place| clients[*place].clone()).collect();
        let push = Push { clients: own, epoch: None, post: post.clone() };
        let reply = api.door.ask(Command::Push(Box::new(push))).await?;
        let Reply::Pushed(pushed) = reply else {
            return Err(answer_about("", reply).err().unwrap_or_else(unexpected));
        };
        for (place, pushed) in places.into_iter().zip(pushed) {
            all[place] = Some(pushed);
        }
    }
    let all: Option<Vec<Pushed>> = all.into_iter().collect();
    Ok(clients.into_iter().zip(all.ok_or_else(unexpected)?).collect())
}

/// Places in the list, by the shard that the client there belongs to.
fn by_shard<'a>(
    api: &Api,
    clients: impl Iterator<Item = &'a ClientId>,
) -> BTreeMap<usize, Vec<usize>> {
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, client) in clients.enumerate() {
        places.entry(api.door.owner_of(client)).or_default().push(place);
    }
    places
}

/// Asks again and again, less and less often, until all is as far as it is waited for: acknowledged
/// where an ACK was asked for and time to wait was given, and handed over otherwise.
async fn settle(
    api: &Api,
    pushed: &mut [(ClientId, Pushed)],
    ack: bool,
    wait: Option<Span>,
) -> Result<(), Problem> {
    let wants_ack = ack && wait.is_some();
    let is_open = |pushed: &Pushed| match pushed.outcome {
        // Nobody waits by default for a client that is away.
        Outcome::Queued => wait.is_some() || !pushed.is_away,
        Outcome::Delivered => wants_ack,
        Outcome::Acked | Outcome::Offline | Outcome::Slow | Outcome::Unknown => false,
    };
    let clock = api.door.clock();
    let until = clock.now() + wait.unwrap_or(limits::PUSH_WAIT_DEFAULT);
    let mut pause = limits::PUSH_LOOK_MIN;
    let mut open: Vec<usize> = (0..pushed.len()).filter(|at| is_open(&pushed[*at].1)).collect();
    loop {
        let left = until.since(clock.now());
        if open.is_empty() || left == Span::ZERO {
            return Ok(());
        }
        sleep(pause.min(left).into()).await;
        pause = pause.times(2).min(limits::PUSH_LOOK_MAX);
        let seen = look(api, pushed, &open, ack).await?;
        open.clear();
        for (place, outcome) in seen {
            let pushed = &mut pushed[place].1;
            // What was handed over stays so, although the session may be gone by now.
            let was_delivered = pushed.outcome == Outcome::Delivered;
            if !was_delivered || outcome == Outcome::Acked {
                pushed.outcome = outcome;
            }
            let is_the_same = !was_delivered || outcome == Outcome::Delivered;
            if is_the_same && is_open(pushed) {
                open.push(place);
            }
        }
    }
}

/// Asks what became of those at these places.
async fn look(
    api: &Api,
    pushed: &[(ClientId, Pushed)],
    open: &[usize],
    ack: bool,
) -> Result<Vec<(usize, Outcome)>, Problem> {
    let mut seen = Vec::with_capacity(open.len());
    for places in by_shard(api, open.iter().map(|place| &pushed[*place].0)).into_values() {
        let taken = |place: &usize| {
            let (client, Pushed { epoch, seq, .. }) = &pushed[open[*place]];
            Taken { client: client.clone(), epoch: *epoch, seq: *seq, ack }
        };
        let of = places.iter().map(taken).collect();
        let reply = api.door.ask(Command::Outcomes { of }).await?;
        let Reply::Outcomes(outcomes) = reply else { return Err(unexpected()) };
        seen.extend(places.into_iter().map(|place| open[place]).zip(outcomes));
    }
    Ok(seen)
}

// --- to many -------------------------------------------------------------------------------------

/// `POST /v1/groups/{group}/push`
pub(crate) async fn to_group(asked: Asked) -> Answer {
    let group = clients::group(asked.client())?;
    broadcast(asked, Some(group)).await
}

/// `POST /v1/broadcast`
pub(crate) async fn to_all(asked: Asked) -> Answer {
    broadcast(asked, None).await
}

async fn broadcast(asked: Asked, group: Option<GroupName>) -> Answer {
    let mut body: PushBody = asked.json()?;
    body.refuse(&["wait_ms", "epoch", "clients"])?;
    let post = body.post()?;
    let most = limits::BROADCAST_PER_SECOND_LIMIT;
    if body.per_second.is_some_and(|rate| rate == 0 || rate > most) {
        let detail = format!("per_second: expected 1 to {most}");
        return Err(Problem::new(Kind::OutOfBounds, detail));
    }
    let api = &asked.api;
    let too_many = || {
        let most = limits::BROADCASTS_RUNNING_MAX;
        Problem::new(Kind::TooMany, format!("{most} broadcasts are under way"))
    };
    // One after the other: between asking whether there is room and taking it nobody takes it, in
    // any shard.
    let mut id = api.broadcasts.lock().await;
    let Reply::Stats(stats) = api.door.ask(Command::Stats).await? else {
        return Err(unexpected());
    };
    if stats.mail.broadcasts_running >= limits::BROADCASTS_RUNNING_MAX {
        return Err(too_many());
    }
    *id += 1;
    let broadcast = Broadcast { id: *id, group, post, per_second: body.per_second };
    let reply = api.door.ask(Command::Broadcast(Box::new(broadcast))).await?;
    let Reply::Broadcast(reply) = reply else { return answer_about("", reply) };
    match reply {
        BroadcastReply::Is(view) => {
            json(StatusCode::ACCEPTED, &BroadcastBody::new(api.identity.boot, view))
        }
        BroadcastReply::Busy => Err(too_many()),
        BroadcastReply::Unknown => Err(unexpected()),
    }
}

/// `GET /v1/broadcasts/{id}`
pub(crate) async fn status(asked: Asked) -> Answer {
    let (name, boot) = (asked.client(), asked.api.identity.boot);
    let unknown = || {
        let detail = format!("{name:?} is not known: it is too long ago, or of another boot");
        Problem::new(Kind::NoSuchBroadcast, detail)
    };
    let id = id_of(name, boot).ok_or_else(unknown)?;
    let Reply::Broadcast(reply) = asked.api.door.ask(Command::BroadcastStatus { id }).await? else {
        return Err(unexpected());
    };
    match reply {
        BroadcastReply::Is(view) => json(StatusCode::OK, &BroadcastBody::new(boot, view)),
        BroadcastReply::Unknown | BroadcastReply::Busy => Err(unknown()),
    }
}

/// A broadcast's number, if it is of this boot.
fn id_of(name: &str, boot: u64) -> Option<u64> {
    let (of_boot, id) = name.split_once('-')?;
    (u64::from_str_radix(of_boot, 16).ok()? == boot).then_some(())?;
    u64::from_str_radix(id, 16).ok()
}

// --- described -----------------------------------------------------------------------------------

/// What is said about messages, for the OpenAPI document.
pub(crate) fn schemas() -> Vec<(&'static str, Value)> {
    let wait = (
        "wait_ms",
        value!({ "type": "integer", "minimum": 0,
        "maximum": limits::PUSH_WAIT_MAX.as_millis(),
        "description": "How long to wait for delivered, or for acked where ack is true" }),
    );
    let epoch = ("epoch", value!({ "type": "integer", "description": "Only this session" }));
    let clients = (
        "clients",
        value!({ "type": "array", "items": { "type": "string" },
        "minItems": 1, "maxItems": limits::PUSH_CLIENTS_MAX }),
    );
    let per_second = (
        "per_second",
        value!({ "type": "integer", "minimum": 1,
        "maximum": limits::BROADCAST_PER_SECOND_LIMIT }),
    );
    let mut groups = list_of("groups", "Group");
    groups["properties"]["next"] = value!({ "type": "string" });
    vec![
        ("Push", message(&[wait.clone(), epoch], &[])),
        ("PushMany", message(&[wait, clients], &["clients"])),
        ("Broadcast", message(&[per_second], &[])),
        ("Pushed", pushed()),
        ("PushedMany", list_of("results", "Pushed")),
        ("BroadcastStatus", broadcast_status()),
        ("Group", object([("group", "string"), ("clients", "integer")])),
        ("GroupPage", groups),
    ]
}

/// A message in a request, with fields of its path's own.
fn message(own: &[(&'static str, Value)], required: &[&str]) -> Value {
    let all = [
        ("topic", value!({ "type": "string", "maxLength": limits::TOPIC_BYTES_MAX })),
        ("text", value!({ "type": "string", "description": "The content, or base64" })),
        ("base64", value!({ "type": "string", "contentEncoding": "base64" })),
        ("ack", value!({ "type": "boolean", "description": "Ask the client for an ACK" })),
        (
            "ttl_ms",
            value!({ "type": "integer", "minimum": 1,
                "maximum": limits::QUEUE_TTL_MAX.as_millis() }),
        ),
    ];
    let properties: Map<String, Value> =
        all.iter().chain(own).map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    value!({ "type": "object", "additionalProperties": false, "properties": properties,
        "required": required,
        "oneOf": [{ "required": ["text"] }, { "required": ["base64"] }] })
}

fn result() -> Value {
    value!({ "type": "string", "enum": Outcome::ALL.map(Outcome::word) })
}

fn pushed() -> Value {
    value!({
        "type": "object",
        "required": ["client", "result", "epoch", "seq"],
        "properties": {
            "client": { "type": "string" },
            "result": result(),
            "epoch": { "type": ["integer", "null"] },
            "seq": { "type": ["integer", "null"] },
        },
    })
}

fn broadcast_status() -> Value {
    let fields = [
        ("id", "string"),
        ("state", "string"),
        ("targets", "integer"),
        ("results", "object"),
        ("others", "array"),
    ];
    let mut status = object(fields);
    status["properties"]["state"]["enum"] = value!(["running", "done"]);
    status["properties"]["results"]["additionalProperties"] = value!({ "type": "integer" });
    status["properties"]["others"]["items"] = value!({
        "type": "object", "required": ["client", "result"],
        "properties": { "client": { "type": "string" }, "result": result() },
    });
    status
}

fn list_of(name: &str, schema: &str) -> Value {
    value!({
        "type": "object",
        "required": [name],
        "properties": { name: { "type": "array", "items": reference(schema) } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> PushBody {
        serde_json::from_str(json).expect("the fields are known")
    }

    #[test]
    fn a_message_has_one_content_and_it_may_be_bytes() {
        let post = body(r#"{"topic":"t","base64":"AP8="}"#).post().expect("a message");
        assert_eq!((post.body.topic(), post.body.bytes()), ("t", &[0, 255][..]));
        assert!(!post.ack && post.ttl.is_none());
        for (json, kind) in [
            (r#"{"topic":"t"}"#, Kind::BadRequest),
            (r#"{"text":"a","base64":"AA=="}"#, Kind::BadRequest),
            (r#"{"base64":"A"}"#, Kind::BadRequest),
            (r#"{"text":"a","topic":"\u0007"}"#, Kind::OutOfBounds),
            (r#"{"text":"a","ttl_ms":0}"#, Kind::OutOfBounds),
            (r#"{"text":"a","ttl_ms":99999999999}"#, Kind::OutOfBounds),
        ] {
            assert_eq!(body(json).post().map_err(|problem| problem.kind), Err(kind), "{json}");
        }
    }

    #[test]
    fn a_broadcast_is_known_on_its_boot_alone() {
        assert_eq!(id_of("4d-a", 0x4d), Some(10));
        for bad in ["4e-a", "4d-", "4d", "", "-", "a-4d", "4d--1"] {
            assert_eq!(id_of(bad, 0x4d), None, "{bad}");
        }
    }
}
