//! Clients: who they are, how they are, and what may be done to them.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::base::config::{ClassId, GatewayConfig, Rhythm};
use crate::base::event::CloseReason;
use crate::base::ids::{ClientId, GroupName};
use crate::base::limits;
use crate::base::pulse::Pulse;
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Asked, json};
use crate::control::events::as_millis;
use crate::gateway::{Command, Filter, Kick, Mood, Reply, SessionView};

/// The smallest number of the application's own, in what a kicked client hears.
const OWN_CODES_FROM: u16 = 1_000;

/// A client as the API tells it.
#[derive(Serialize)]
struct Client {
    client: String,
    epoch: u64,
    state: &'static str,
    class: String,
    conn: String,
    remote: String,
    interval_ms: u64,
    timeout_ms: u64,
    grace_ms: u64,
    since_unix_ms: u64,
    last_beat_unix_ms: u64,
    silence_ms: u64,
    outbox_bytes: usize,
    partial_bytes: usize,
    groups: Vec<String>,
    beats: u32,
    longest_gap_ms: u64,
    /// The latest gaps between beats, oldest first.
    #[serde(serialize_with = "as_millis")]
    gaps_ms: Pulse,
    /// After how much silence it is asked whether it is there, if at all.
    probe_after_ms: Option<u64>,
    /// How long its latest answer to that took, if there was one.
    answer_us: Option<u64>,
    /// What TCP says of the way to it, where it was asked just now.
    rtt_us: Option<u32>,
}

#[derive(Serialize)]
struct ClientPage {
    clients: Vec<Client>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What is said when something was done.
#[derive(Serialize)]
pub(crate) struct Done {
    pub(crate) done: bool,
}

impl Client {
    fn new(view: &SessionView, gateway: &GatewayConfig, now: Moment, wall: WallAnchor) -> Self {
        let presence = &view.presence;
        Self {
            client: presence.client.to_string(),
            epoch: presence.epoch,
            state: view.mood.word(),
            class: gateway.class_name(view.class).to_owned(),
            conn: presence.conn.to_string(),
            remote: presence.remote.to_string(),
            interval_ms: presence.interval.as_millis(),
            timeout_ms: presence.timeout.as_millis(),
            grace_ms: view.grace.as_millis(),
            since_unix_ms: wall.unix_millis(view.since),
            last_beat_unix_ms: wall.unix_millis(view.last_beat),
            silence_ms: now.since(view.last_beat).as_millis(),
            outbox_bytes: view.outbox_bytes,
            partial_bytes: view.partial_bytes,
            groups: view.groups.iter().map(ToString::to_string).collect(),
            beats: view.pulse.beats(),
            longest_gap_ms: view.pulse.longest_gap().as_millis(),
            gaps_ms: view.pulse,
            probe_after_ms: view.ping_after.map(Span::as_millis),
            answer_us: view.answered_in.map(Span::as_micros),
            rtt_us: view.tcp.map(|tcp| tcp.rtt_us),
        }
    }
}

/// `GET /v1/clients`
pub(crate) async fn list(asked: Asked) -> Answer {
    let limit = limit(asked.parameter("limit"))?;
    let filter = Filter {
        prefix: asked.parameter("prefix").unwrap_or_default().into(),
        class: asked.parameter("class").map(|name| class(&asked.api.gateway, name)).transpose()?,
        group: asked.parameter("group").map(group).transpose()?,
    };
    let boot = asked.api.identity.boot;
    let mut next = Some(match asked.parameter("cursor") {
        Some(cursor) => slot_of(cursor, boot)?,
        None => 0,
    });
    let clock = asked.api.door.clock();
    let mut clients = Vec::new();
    for _ in 0..limits::LIST_QUESTIONS_MAX {
        let Some(from_slot) = next else { break };
        // A slot has at most one client, so a page never has more than there is room for.
        let room = u32::try_from(limit - clients.len()).unwrap_or(u32::MAX);
        let slots = if filter == Filter::default() { room } else { limits::CLIENTS_PAGE_MAX };
        let slots = slots.min(limits::CLIENTS_PAGE_MAX);
        let command = Command::Sessions { from_slot, limit: slots, filter: filter.clone() };
        let Reply::Sessions { sessions, next_slot } = asked.api.door.ask(command).await? else {
            return Err(unexpected());
        };
        let (now, wall) = (clock.now(), clock.wall());
        let mut sessions = sessions.iter();
        for view in sessions.by_ref().take(limit - clients.len()) {
            clients.push(Client::new(view, &asked.api.gateway, now, wall));
        }
        // Whoever found no place on the page comes first on the next one.
        next = sessions.next().map(|view| view.presence.conn.slot).or(next_slot);
        if clients.len() >= limit {
            break;
        }
    }
    let next = next.map(|slot| cursor_of(slot, boot));
    json(StatusCode::OK, &ClientPage { clients, next })
}

pub(crate) fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(limits::LIST_CLIENTS_DEFAULT) };
    let limit = text.parse().ok().filter(|limit| (1..=limits::LIST_CLIENTS_MAX).contains(limit));
    limit.ok_or_else(|| {
        Problem::bad(format!("limit {text:?}: expected 1 to {}", limits::LIST_CLIENTS_MAX))
    })
}

fn class(gateway: &GatewayConfig, name: &str) -> Result<ClassId, Problem> {
    let id = gateway.class_id(name);
    if gateway.class_name(id) == name {
        return Ok(id);
    }
    let names: Vec<_> = gateway.class_names().collect();
    Err(Problem::bad(format!("class {name:?}: expected one of {}", names.join(", "))))
}

/// The name of a group.
pub(crate) fn group(name: &str) -> Result<GroupName, Problem> {
    GroupName::new(name).map_err(|error| Problem::bad(format!("group {name:?}: {error}")))
}

/// A place in the table of connections, for whoever asks for the next page. It means nothing on
/// another boot.
fn cursor_of(slot: u32, boot: u64) -> String {
    format!("{boot:x}-{slot:x}")
}

fn slot_of(cursor: &str, boot: u64) -> Result<u32, Problem> {
    let parse = || {
        let (of_boot, slot) = cursor.split_once('-')?;
        (u64::from_str_radix(of_boot, 16).ok()? == boot).then_some(())?;
        u32::from_str_radix(slot, 16).ok()
    };
    parse().ok_or_else(|| {
        Problem::bad(format!("cursor {cursor:?} is not one of this boot; begin without one"))
    })
}

/// `GET /v1/clients/{id}`
pub(crate) async fn show(asked: Asked) -> Answer {
    let client = client(&asked)?;
    let reply = measured(&asked, &client).await?;
    let Reply::Session(view) = reply else { return answer(reply, &asked) };
    let clock = asked.api.door.clock();
    let client = Client::new(&view, &asked.api.gateway, clock.now(), clock.wall());
    json(StatusCode::OK, &client)
}

/// What is known of a client, and what TCP says of the way to it: that is there a turn or two after
/// it was asked for. What does not come soon is left out.
async fn measured(asked: &Asked, client: &ClientId) -> Result<Reply, Problem> {
    let measure = Command::Measure { client: client.clone() };
    let mut reply = asked.api.door.ask(measure).await?;
    for _ in 0..limits::MEASURE_ASKS_MAX {
        let Reply::Session(view) = &reply else { break };
        if view.mood == Mood::Held || view.tcp.is_some() {
            break;
        }
        tokio::time::sleep(limits::MEASURE_PAUSE.into()).await;
        reply = asked.api.door.ask(Command::Session { client: client.clone() }).await?;
    }
    Ok(reply)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KickBody {
    epoch: Option<u64>,
    code: Option<u16>,
    text: Option<String>,
}

/// `POST /v1/clients/{id}/kick`
pub(crate) async fn kick(asked: Asked) -> Answer {
    let client = client(&asked)?;
    let body: KickBody = asked.json()?;
    let code = body.code.unwrap_or(CloseReason::Kicked.code());
    if code != CloseReason::Kicked.code() && code < OWN_CODES_FROM {
        let kicked = CloseReason::Kicked.code();
        let detail = format!("code {code}: expected {kicked}, or {OWN_CODES_FROM} and above");
        return Err(Problem::new(Kind::OutOfBounds, detail));
    }
    let text = body.text.unwrap_or_default();
    if text.len() > limits::TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let most = limits::TEXT_BYTES_MAX;
        let detail = format!("text: expected at most {most} bytes without control characters");
        return Err(Problem::new(Kind::OutOfBounds, detail));
    }
    let kick = Kick { client, epoch: body.epoch, code, text: text.into() };
    let reply = asked.api.door.ask(Command::Kick(kick)).await?;
    answer(reply, &asked)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RhythmBody {
    interval_ms: Option<u64>,
    timeout_ms: Option<u64>,
}

/// `POST /v1/clients/{id}/rhythm`
pub(crate) async fn set_rhythm(asked: Asked) -> Answer {
    let client = client(&asked)?;
    let body: RhythmBody = asked.json()?;
    let (Some(interval_ms), Some(timeout_ms)) = (body.interval_ms, body.timeout_ms) else {
        return Err(Problem::bad("expected interval_ms and timeout_ms"));
    };
    let rhythm = Rhythm::new(Span::from_millis(interval_ms), Span::from_millis(timeout_ms))
        .map_err(|error| Problem::new(Kind::OutOfBounds, error.to_string()))?;
    let reply = asked.api.door.ask(Command::SetRhythm { client, rhythm }).await?;
    answer(reply, &asked)
}

/// Whoever has no client id is nobody who could be online.
fn client(asked: &Asked) -> Result<ClientId, Problem> {
    ClientId::new(asked.client()).map_err(|_| Problem::no_such_client(asked.client()))
}

/// What the loop answered to a command about one client.
fn answer(reply: Reply, asked: &Asked) -> Answer {
    answer_about(asked.client(), reply)
}

/// What the loop answered to a command about this client.
pub(crate) fn answer_about(client: &str, reply: Reply) -> Answer {
    let problem = match reply {
        Reply::Done => return json(StatusCode::OK, &Done { done: true }),
        Reply::NoSuchClient => Problem::no_such_client(client),
        Reply::OtherSession => {
            let detail = format!("{:?} is online with another epoch", client);
            Problem::new(Kind::OtherSession, detail)
        }
        Reply::NotConnected => {
            let detail = format!("the session of {:?} is held", client);
            Problem::new(Kind::NotConnected, detail)
        }
        Reply::OutOfBounds { shortest, longest } => {
            let detail = format!("interval: expected {shortest} to {longest}");
            Problem::new(Kind::OutOfBounds, detail)
        }
        Reply::GroupsFull => {
            let detail = format!("{client:?} cannot be in a further group");
            Problem::new(Kind::GroupsFull, detail)
        }
        Reply::TooLong { payload_bytes_max } => {
            let most = usize::from(payload_bytes_max) - 5;
            let detail = format!("topic and content: expected at most {most} bytes together");
            Problem::new(Kind::OutOfBounds, detail)
        }
        Reply::Draining
        | Reply::Stats(_)
        | Reply::Groups(_)
        | Reply::Pushed(_)
        | Reply::Outcomes(_)
        | Reply::Broadcast(_)
        | Reply::Session(_)
        | Reply::Sessions { .. }
        | Reply::Clients { .. } => unexpected(),
    };
    Err(problem)
}

/// The loop answered something else than was asked.
pub(crate) fn unexpected() -> Problem {
    Problem::new(Kind::Machine, "the loop answered another question")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_and_only_on_its_boot() {
        for slot in [0, 1, 0xabc, u32::MAX] {
            assert_eq!(slot_of(&cursor_of(slot, 77), 77), Ok(slot));
            assert!(slot_of(&cursor_of(slot, 77), 78).is_err());
        }
        for bad in ["", "-", "4d", "4d-", "4d-100000000", "4d--1", "x-1"] {
            assert!(slot_of(bad, 77).is_err(), "{bad}");
        }
    }
}
