//! What goes wrong, in one shape: problem details as RFC 9457 has them.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::control::door::AskError;
use crate::control::tokens::Role;

/// Why a request was not answered as it wished.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// One sentence about this case.
    pub(crate) detail: String,
    /// The role that would have been enough, where that is what is wrong.
    pub(crate) role: Option<Role>,
}

macro_rules! kinds {
    ($(
        $(#[doc = $about:literal])*
        $name:ident = $status:ident, $word:literal, $title:literal;
    )*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub(crate) enum Kind {
            $($(#[doc = $about])* $name,)*
        }

        impl Kind {
            /// Every kind.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The status of the answer.
            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The last word of its type.
            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What it is, whatever the case.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

kinds! {
    /// A parameter, a cursor, a body.
    BadRequest = BAD_REQUEST, "bad-request", "The request is not understood";
    /// No token, or another one.
    Unauthorized = UNAUTHORIZED, "unauthorized", "The token is missing or wrong";
    /// A page of a browser, or a name that is not ours.
    Foreign = FORBIDDEN, "foreign", "The request comes from a foreign page";
    /// A token whose role is not enough.
    Forbidden = FORBIDDEN, "forbidden", "The token's role does not allow this";
    /// No such path.
    NoSuchPath = NOT_FOUND, "no-such-path", "There is nothing at this path";
    /// Nobody of that name is online.
    NoSuchClient = NOT_FOUND, "no-such-client", "No such client is online";
    /// The path is there, but not for this method.
    WrongMethod = METHOD_NOT_ALLOWED, "wrong-method", "The path does not know this method";
    /// No broadcast of that id, or it was too long ago.
    NoSuchBroadcast = NOT_FOUND, "no-such-broadcast", "No such broadcast is known";
    /// The body did not come in time.
    TooSlow = REQUEST_TIMEOUT, "too-slow", "The request did not arrive in time";
    /// The client has another session than the one that was meant.
    OtherSession = CONFLICT, "other-session", "The client has another session by now";
    /// The client's session is held.
    NotConnected = CONFLICT, "not-connected", "The client has no connection at the moment";
    /// What is asked for makes no sense in a drain.
    Draining = CONFLICT, "draining", "A drain is under way";
    /// The client is in as many groups as it may be, or there are as many as there may be.
    GroupsFull = CONFLICT, "groups-full", "There are too many groups";
    /// Nobody told the gateway to tell transport events.
    Untold = CONFLICT, "untold", "Transport events are not told";
    /// What follows that number is no longer kept, or never was.
    Gone = GONE, "gone", "What follows is not kept; take a snapshot";
    /// The body is too long.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The body is too long";
    /// Understood, and not allowed.
    OutOfBounds = UNPROCESSABLE_ENTITY, "out-of-bounds", "The value is not allowed";
    /// As many broadcasts as there may be are under way.
    TooMany = TOO_MANY_REQUESTS, "too-many", "Too many are under way; try again later";
    /// Too many questions, followers or snapshots.
    Busy = SERVICE_UNAVAILABLE, "busy", "Too much is asked at once; ask again later";
    /// The loop does not answer, or has ended.
    NoAnswer = SERVICE_UNAVAILABLE, "no-answer", "The loop does not answer";
    /// What `/healthz` and `/readyz` say when it is not so.
    NotReady = SERVICE_UNAVAILABLE, "not-ready", "Not at the moment";
    /// The journal cannot be read, or the like.
    Machine = INTERNAL_SERVER_ERROR, "machine", "The machine does not do it";
}

/// What every type of problem begins with.
pub(crate) const TYPE_PREFIX: &str = "urn:heartwheel:problem:";
/// Seconds after which it makes sense to ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// What is asked for where it is missing, as RFC 6750 says it.
const REALM: &str = "Bearer realm=\"heartwheel\"";
const CHALLENGE: HeaderValue = HeaderValue::from_static(REALM);
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), role: None }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// Whoever asks has the role `own`, and would need another.
    pub(crate) fn weak(own: Role, needed: Role) -> Self {
        let (own, needs) = (own.word(), needed.word());
        let detail = format!("this needs a token with the role {needs}; the one given has {own}");
        Self { role: Some(needed), ..Self::new(Kind::Forbidden, detail) }
    }

    pub(crate) fn no_such_client(client: &str) -> Self {
        Self::new(Kind::NoSuchClient, format!("{client:?} is not online"))
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let kind = match error {
            AskError::Busy(_) => Kind::Busy,
            AskError::Late | AskError::Ended => Kind::NoAnswer,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let document = Document {
            r#type: format!("{TYPE_PREFIX}{}", self.kind.word()),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: &self.detail,
            role: self.role.map(Role::word),
        };
        let json = serde_json::to_vec(&document).expect("texts and a number");
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
            }
            _ => {}
        }
        if let Some(role) = self.role {
            let challenge =
                format!("{REALM}, error=\"insufficient_scope\", scope=\"{}\"", role.word());
            let challenge = HeaderValue::from_str(&challenge).expect("words of ours");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let words: HashSet<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
    }
}
