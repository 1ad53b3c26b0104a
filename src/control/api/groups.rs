//! Groups of clients: who is in which.

use axum::http::StatusCode;
use serde::Serialize;

use crate::base::ids::{ClientId, GroupName};
use crate::control::api::clients::{self, answer_about, unexpected};
use crate::control::api::problem::Problem;
use crate::control::api::{Answer, Asked, json};
use crate::gateway::{Command, Reply};

#[derive(Serialize)]
struct GroupPage {
    groups: Vec<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Group {
    group: String,
    clients: usize,
}

/// `GET /v1/groups`
pub(crate) async fn list(asked: Asked) -> Answer {
    let limit = clients::limit(asked.parameter("limit"))?;
    let after = asked.parameter("after").map(clients::group).transpose()?;
    // One more shows whether there is one more.
    let command = Command::Groups { after, limit: limit + 1 };
    let Reply::Groups(mut groups) = asked.api.door.ask(command).await? else {
        return Err(unexpected());
    };
    let has_more = groups.len() > limit;
    groups.truncate(limit);
    let next = groups.last().filter(|_| has_more).map(|(name, _)| name.to_string());
    let groups = groups.into_iter();
    let groups = groups.map(|(name, clients)| Group { group: name.to_string(), clients });
    json(StatusCode::OK, &GroupPage { groups: groups.collect(), next })
}

/// `PUT /v1/groups/{group}/clients/{id}`
pub(crate) async fn join(asked: Asked) -> Answer {
    let (group, client) = who_and_where(&asked)?;
    let name = client.to_string();
    let reply = asked.api.door.ask(Command::Join { client, group }).await?;
    answer_about(&name, reply)
}

/// `DELETE /v1/groups/{group}/clients/{id}`
pub(crate) async fn leave(asked: Asked) -> Answer {
    let (group, client) = who_and_where(&asked)?;
    let name = client.to_string();
    let reply = asked.api.door.ask(Command::Leave { client, group }).await?;
    answer_about(&name, reply)
}

fn who_and_where(asked: &Asked) -> Result<(GroupName, ClientId), Problem> {
    let part = |place: usize| asked.path.get(place).map(String::as_str).unwrap_or_default();
    let client = ClientId::new(part(1)).map_err(|_| Problem::no_such_client(part(1)))?;
    Ok((clients::group(part(0))?, client))
}
