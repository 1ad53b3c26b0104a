//! Pages that are served elsewhere and may ask here all the same, as browsers want it said (CORS).
//! There are none unless somebody configured them.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use crate::control::api::Api;
use crate::control::auth;

/// What a browser is told about the page that asks.
pub(super) struct Page {
    /// Where it comes from, if it may ask.
    pub(super) origin: Option<HeaderValue>,
    /// Whether the answer is another one for other pages.
    depends: bool,
}

/// Every verb of the table; what a path does not know is refused when it is asked.
const VERBS: &str = "GET, POST, PUT, DELETE";
/// What a page may say beside what it always may.
const MAY_SAY: &str = "authorization, content-type, last-event-id";
/// What a page may hear beside what it always may.
const MAY_HEAR: &str = "retry-after, www-authenticate";
/// Seconds for which a browser need not ask again. Who may ask can change by a reload.
const MAX_AGE: &str = "60";

impl Page {
    pub(super) fn of(api: &Api, headers: &HeaderMap) -> Self {
        let guard = api.guard.get();
        Self {
            origin: auth::welcome_origin(&guard, headers).cloned(),
            depends: !guard.origins.is_empty(),
        }
    }

    /// Says so in an answer.
    pub(super) fn dress(self, headers: &mut HeaderMap) {
        if self.depends {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let may_hear = HeaderValue::from_static(MAY_HEAR);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, may_hear);
        }
    }
}

/// Whether a browser asks if a page may ask. It says no token with that.
pub(super) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// It may. Nothing is sent along that a browser keeps, so no credentials are allowed for.
pub(super) fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, VERBS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, MAY_SAY),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
