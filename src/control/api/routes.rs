//! The table of all paths. Whatever is served is a row here, and is described by it.

use std::future::Future;
use std::pin::Pin;

use crate::control::api::problem::Kind;
use crate::control::api::{
    Answer, Asked, clients, groups, history, leave, node, openapi, past, push, snapshot, webhooks,
};
use crate::control::tokens::Role;
use crate::control::{dashboard, feed, messages, metrics};

/// One path with one method.
pub(crate) struct Route {
    pub(crate) verb: Verb,
    /// With its variable parts in braces.
    pub(crate) path: &'static str,
    /// Its name in the OpenAPI document.
    pub(crate) id: &'static str,
    pub(crate) about: &'static str,
    pub(crate) access: Access,
    pub(crate) query: &'static [Parameter],
    /// Name of the schema of its body, if it takes one.
    pub(crate) body: Option<&'static str>,
    pub(crate) success: Success,
    /// What can go wrong, beside what can everywhere.
    pub(crate) problems: &'static [Kind],
    pub(crate) run: fn(Asked) -> Running,
}

type Running = Pin<Box<dyn Future<Output = Answer> + Send>>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

/// Who may use it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// Anybody who can connect: it says nothing but yes or no.
    Open,
    /// Anybody who can connect: a file of the dashboard, the same for everybody. It is for browsers
    /// and not in the OpenAPI document.
    Page,
    /// Whoever has a token with this role, or with one that includes it.
    Needs(Role),
}

const READ: Access = Access::Needs(Role::Read);
const PUSH: Access = Access::Needs(Role::Push);
const ADMIN: Access = Access::Needs(Role::Admin);

/// What can stand behind the question mark.
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// Its type in JSON's words.
    pub(crate) kind: &'static str,
    pub(crate) about: &'static str,
}

/// What is answered when all is well.
pub(crate) struct Success {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// Name of its schema, where it is JSON.
    pub(crate) schema: Option<&'static str>,
    pub(crate) about: &'static str,
}

const fn parameter(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

const fn success(status: u16, schema: &'static str, about: &'static str) -> Success {
    Success { status, content_type: "application/json", schema: Some(schema), about }
}

const fn text(content_type: &'static str, about: &'static str) -> Success {
    Success { status: 200, content_type, schema: None, about }
}

const EVENT_STREAM: &str = "text/event-stream";

const AFTER: Parameter = parameter(
    "after",
    "string",
    "Begin right after this event, BOOT:SEQ; Last-Event-ID goes before it (default: with what \
     comes from now on)",
);
const FOLLOW: Parameter =
    parameter("follow", "boolean", "false: end when all that is there was sent (default: true)");

/// Every path that is served.
pub(crate) static ROUTES: &[Route] = &[
    Route {
        verb: Verb::Get,
        path: "/v1/clients",
        id: "listClients",
        about: "Who is online, page by page",
        access: READ,
        query: &[
            parameter("cursor", "string", "Where to go on: `next` of the page before"),
            parameter("limit", "integer", "Most clients on the page, 1 to 1000 (default: 100)"),
            parameter("prefix", "string", "Only client ids that begin with this"),
            parameter("class", "string", "Only clients of this class; empty: of none"),
            parameter("group", "string", "Only clients in this group"),
        ],
        body: None,
        success: success(200, "ClientPage", "A page; the last one has no `next`"),
        problems: &[Kind::BadRequest],
        run: |asked| Box::pin(clients::list(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/clients/{id}",
        id: "showClient",
        about: "What is known of one client",
        access: READ,
        query: &[],
        body: None,
        success: success(200, "Client", "The client"),
        problems: &[Kind::NoSuchClient],
        run: |asked| Box::pin(clients::show(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/clients/{id}/history",
        id: "showHistory",
        about: "The latest events of one client, oldest first, whether it is here or not",
        access: READ,
        query: &[parameter("limit", "integer", "Most events, 1 to 1000 (default: 20)")],
        body: None,
        success: success(200, "History", "Its events, as in the feed"),
        problems: &[Kind::BadRequest, Kind::Busy, Kind::Machine],
        run: |asked| Box::pin(history::show(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/clients/{id}/kick",
        id: "kickClient",
        about: "End a client's session; it hears why, and the ledger says kicked",
        access: ADMIN,
        query: &[],
        body: Some("Kick"),
        success: success(200, "Done", "The session has ended"),
        problems: &[Kind::BadRequest, Kind::NoSuchClient, Kind::OtherSession, Kind::OutOfBounds],
        run: |asked| Box::pin(clients::kick(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/clients/{id}/rhythm",
        id: "setRhythm",
        about: "Give a client another rhythm, from its next beat on",
        access: ADMIN,
        query: &[],
        body: Some("Rhythm"),
        success: success(200, "Done", "The client was told, and so was the ledger"),
        problems: &[Kind::BadRequest, Kind::NoSuchClient, Kind::NotConnected, Kind::OutOfBounds],
        run: |asked| Box::pin(clients::set_rhythm(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/clients/{id}/push",
        id: "pushToClient",
        about: "Send a message to one client, and say what became of it",
        access: PUSH,
        query: &[],
        body: Some("Push"),
        success: success(200, "Pushed", "What became of it by now"),
        problems: &[Kind::BadRequest, Kind::OtherSession, Kind::OutOfBounds],
        run: |asked| Box::pin(push::one(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/push",
        id: "pushToClients",
        about: "Send a message to several clients, and say of each what became of it",
        access: PUSH,
        query: &[],
        body: Some("PushMany"),
        success: success(200, "PushedMany", "What became of it by now, in their order"),
        problems: &[Kind::BadRequest, Kind::OutOfBounds],
        run: |asked| Box::pin(push::many(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/groups",
        id: "listGroups",
        about: "The groups that have somebody in them, by name, page by page",
        access: READ,
        query: &[
            parameter("after", "string", "Where to go on: `next` of the page before"),
            parameter("limit", "integer", "Most groups on the page, 1 to 1000 (default: 100)"),
        ],
        body: None,
        success: success(200, "GroupPage", "A page; the last one has no `next`"),
        problems: &[Kind::BadRequest],
        run: |asked| Box::pin(groups::list(asked)),
    },
    Route {
        verb: Verb::Put,
        path: "/v1/groups/{group}/clients/{id}",
        id: "joinGroup",
        about: "Put a client into a group, for as long as its session lasts",
        access: PUSH,
        query: &[],
        body: None,
        success: success(200, "Done", "It is in there"),
        problems: &[Kind::BadRequest, Kind::NoSuchClient, Kind::GroupsFull],
        run: |asked| Box::pin(groups::join(asked)),
    },
    Route {
        verb: Verb::Delete,
        path: "/v1/groups/{group}/clients/{id}",
        id: "leaveGroup",
        about: "Take a client out of a group",
        access: PUSH,
        query: &[],
        body: None,
        success: success(200, "Done", "It is not in there"),
        problems: &[Kind::BadRequest, Kind::NoSuchClient],
        run: |asked| Box::pin(groups::leave(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/groups/{group}/push",
        id: "pushToGroup",
        about: "Send a message to everybody in a group, some in each turn of the loop",
        access: PUSH,
        query: &[],
        body: Some("Broadcast"),
        success: success(202, "BroadcastStatus", "It has begun"),
        problems: &[Kind::BadRequest, Kind::OutOfBounds, Kind::TooMany],
        run: |asked| Box::pin(push::to_group(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/broadcast",
        id: "broadcast",
        about: "Send a message to everybody, some in each turn of the loop",
        access: PUSH,
        query: &[],
        body: Some("Broadcast"),
        success: success(202, "BroadcastStatus", "It has begun"),
        problems: &[Kind::BadRequest, Kind::OutOfBounds, Kind::TooMany],
        run: |asked| Box::pin(push::to_all(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/broadcasts/{id}",
        id: "showBroadcast",
        about: "How a message to a group or to everybody goes",
        access: READ,
        query: &[],
        body: None,
        success: success(200, "BroadcastStatus", "How far it is"),
        problems: &[Kind::NoSuchBroadcast],
        run: |asked| Box::pin(push::status(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/drain",
        id: "drain",
        about: "Ask everybody to leave, and end",
        access: ADMIN,
        query: &[],
        body: Some("Drain"),
        success: success(202, "Draining", "It has begun"),
        problems: &[Kind::BadRequest, Kind::OutOfBounds],
        run: |asked| Box::pin(leave::drain(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/rebalance",
        id: "rebalance",
        about: "Ask a part of the clients to go elsewhere, and go on",
        access: ADMIN,
        query: &[],
        body: Some("Rebalance"),
        success: success(202, "Rebalancing", "It has begun"),
        problems: &[Kind::BadRequest, Kind::OutOfBounds, Kind::Draining],
        run: |asked| Box::pin(leave::rebalance(asked)),
    },
    Route {
        verb: Verb::Post,
        path: "/v1/reload",
        id: "reload",
        about: "Read the configuration again, as SIGHUP does, and take up what can change",
        access: ADMIN,
        query: &[],
        body: None,
        success: success(200, "Reloaded", "What changed; with any error, nothing did"),
        problems: &[Kind::BadRequest],
        run: |asked| Box::pin(node::reload(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/snapshot",
        id: "takeSnapshot",
        about: "Who is online, all of them, exactly true at the position it names",
        access: READ,
        query: &[],
        body: None,
        success: success(200, "Snapshot", "Go on with /v1/events?after= its position"),
        problems: &[Kind::Busy],
        run: |asked| Box::pin(snapshot::take(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/stats",
        id: "showStats",
        about: "How things are: counts since the start, unless said otherwise",
        access: READ,
        query: &[],
        body: None,
        success: success(200, "Stats", "The counts"),
        problems: &[],
        run: |asked| Box::pin(node::stats(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/stats/history",
        id: "showStatsHistory",
        about: "How things were, about one sample a second, a quarter of an hour back",
        access: READ,
        query: &[],
        body: None,
        success: success(200, "StatsHistory", "Who speaks, and the samples in their order"),
        problems: &[],
        run: |asked| Box::pin(past::history(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/stats/stream",
        id: "followStats",
        about: "How things are, as server-sent events: the latest sample, then each as it is taken",
        access: READ,
        query: &[FOLLOW],
        body: None,
        success: text(EVENT_STREAM, "One sample each, with its boot and number as id"),
        problems: &[Kind::BadRequest, Kind::Busy],
        run: |asked| Box::pin(past::stream(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/events",
        id: "followEvents",
        about: "The ledger as server-sent events, from any position that is kept",
        access: READ,
        query: &[AFTER, FOLLOW],
        body: None,
        success: text(EVENT_STREAM, "One event each, with its position as id"),
        problems: &[Kind::BadRequest, Kind::Gone, Kind::Busy],
        run: |asked| Box::pin(feed::events(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/transport",
        id: "followTransport",
        about: "Comings and goings of connections as server-sent events, best effort",
        access: READ,
        query: &[AFTER, FOLLOW],
        body: None,
        success: text(EVENT_STREAM, "One event each, with its boot and tseq as id"),
        problems: &[Kind::BadRequest, Kind::Untold, Kind::Gone, Kind::Busy],
        run: |asked| Box::pin(feed::transport(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/messages",
        // Whoever follows takes messages in the name of the backends, and holds credit.
        id: "followMessages",
        about: "What clients send up, as server-sent events; what is not read holds their credit",
        access: PUSH,
        query: &[
            parameter("topic", "string", "Only messages of this topic (default: of all)"),
            parameter(
                "after",
                "string",
                "Begin right after this message, BOOT:USEQ, as far as it is kept; Last-Event-ID \
                 goes before it (default: with what comes from now on)",
            ),
            FOLLOW,
        ],
        body: None,
        success: text(EVENT_STREAM, "One message each, with BOOT:USEQ as id"),
        problems: &[Kind::BadRequest, Kind::Gone, Kind::Busy],
        run: |asked| Box::pin(messages::messages(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/v1/webhooks",
        id: "listWebhooks",
        about: "How the webhooks are: every stream of every target",
        access: READ,
        query: &[],
        body: None,
        success: success(200, "WebhookList", "The targets; none where none is configured"),
        problems: &[],
        run: |asked| Box::pin(webhooks::list(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/metrics",
        id: "metrics",
        about: "How things are, for Prometheus",
        access: READ,
        query: &[],
        body: None,
        success: text(metrics::CONTENT_TYPE, "Every metric"),
        problems: &[],
        run: |asked| Box::pin(node::metrics(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/healthz",
        id: "health",
        about: "Whether the loop turns",
        access: Access::Open,
        query: &[],
        body: None,
        success: success(200, "Done", "It does"),
        problems: &[Kind::NotReady],
        run: |asked| Box::pin(node::health(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/readyz",
        id: "readiness",
        about: "Whether clients can come: it turns, lets in, is not drained, and the journal is \
                written",
        access: Access::Open,
        query: &[],
        body: None,
        success: success(200, "Done", "They can"),
        problems: &[Kind::NotReady],
        run: |asked| Box::pin(node::readiness(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/",
        id: "dashboard",
        about: "The dashboard, for browsers",
        access: Access::Page,
        query: &[],
        body: None,
        success: text("text/html; charset=utf-8", "The page"),
        problems: &[],
        run: |asked| Box::pin(dashboard::page(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/dashboard/{file}",
        id: "dashboardFile",
        about: "What the dashboard is made of",
        access: Access::Page,
        query: &[],
        body: None,
        success: text("text/javascript; charset=utf-8", "The file"),
        problems: &[Kind::NoSuchPath],
        run: |asked| Box::pin(dashboard::file(asked)),
    },
    Route {
        verb: Verb::Get,
        path: "/openapi.json",
        id: "openapi",
        about: "This document",
        access: READ,
        query: &[],
        body: None,
        success: Success {
            status: 200,
            content_type: "application/json",
            schema: None,
            about: "OpenAPI 3.1",
        },
        problems: &[],
        run: |asked| Box::pin(openapi::serve(asked)),
    },
];

/// What can go wrong everywhere.
pub(crate) const PROBLEMS_ANYWHERE: &[Kind] = &[Kind::BadRequest, Kind::TooLarge, Kind::TooSlow];
/// What can go wrong wherever a token is asked for.
pub(crate) const PROBLEMS_GUARDED: &[Kind] = &[Kind::Unauthorized, Kind::Foreign, Kind::Forbidden];
/// What can go wrong wherever the loop is asked.
pub(crate) const PROBLEMS_ASKING: &[Kind] = &[Kind::Busy, Kind::NoAnswer];

#[cfg(test)]
mod tests {
    use super::*;

    /// Looking changes nothing, so whoever may only look may use no other verb.
    #[test]
    fn whatever_is_no_get_needs_more_than_the_role_to_look() {
        for route in ROUTES.iter().filter(|route| route.verb != Verb::Get) {
            assert!(matches!(route.access, PUSH | ADMIN), "{}", route.id);
        }
        for route in ROUTES.iter().filter(|route| route.verb == Verb::Get) {
            assert!(route.body.is_none(), "{}: a GET says nothing in a body", route.id);
            assert_ne!(route.access, ADMIN, "{}", route.id);
        }
    }

    #[test]
    fn only_the_probes_and_the_files_of_the_page_are_open() {
        let open =
            ROUTES.iter().filter(|route| matches!(route.access, Access::Open | Access::Page));
        let paths: Vec<_> = open.map(|route| route.path).collect();
        assert_eq!(paths, ["/healthz", "/readyz", "/", "/dashboard/{file}"]);
    }
}
