//! The admin API: requests in, commands to the loop, answers out as JSON.
//!
//! Every path is one row of `routes`; the router, the OpenAPI document and the tests read that
//! table. A dashboard is a further row and a further file beside `clients`.

pub(crate) mod clients;
pub(crate) mod groups;
pub(crate) mod history;
pub(crate) mod leave;
pub(crate) mod node;
pub(crate) mod openapi;
mod page;
pub(crate) mod past;
pub(crate) mod problem;
pub(crate) mod push;
pub(crate) mod routes;
pub(crate) mod snapshot;
pub(crate) mod webhooks;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use futures_core::Stream;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::timeout;

use crate::base::config::GatewayConfig;
use crate::base::limits;
use crate::base::time::Moment;
use crate::control::api::page::Page;
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::routes::{Access, ROUTES, Route, Verb};
use crate::control::auth::{self, Guard, Visit};
use crate::control::door::LoopHandle;
use crate::control::events::Identity;
use crate::control::hub::Hub;
use crate::control::identity::counts::HookCounts;
use crate::control::journal::Health;
use crate::control::ledger::Ledger;
use crate::control::live::Live;
use crate::control::reload::{Reload, ReloadCounts};
use crate::control::seats::SeatCounts;
use crate::control::tokens::Role;
use crate::control::webhook::Webhooks;
use crate::control::webhook::target::Scheme;

/// All that the API needs to know.
pub struct Api {
    /// The loop.
    pub door: LoopHandle,
    /// Where DATA of clients comes together.
    pub hub: Hub,
    /// When this was made: with the process, or nearly.
    pub(crate) began: Moment,
    /// Who speaks.
    pub identity: Identity,
    /// What the gateway was told last: its classes, its bounds.
    pub gateway: Live<GatewayConfig>,
    /// What is asked of whoever asks.
    pub guard: Live<Guard>,
    /// Reads the configuration again.
    pub reload: Reload,
    /// How often that was done.
    pub reloads: Arc<ReloadCounts>,
    /// The journal, if there is one.
    pub journal: Option<JournalView>,
    /// The webhooks, if there can be any.
    pub webhooks: Option<Webhooks>,
    /// What is counted of the hook that is asked about tokens.
    pub hook: Arc<HookCounts>,
    /// Places for those who follow a feed.
    pub(crate) followers: Arc<Semaphore>,
    /// How often there was no place for a connection.
    pub(crate) seats: Arc<SeatCounts>,
    /// The number of the latest broadcast, and the place of whoever begins one.
    pub(crate) broadcasts: Arc<Mutex<u64>>,
    /// The place for whoever takes a snapshot: each costs memory for every client.
    pub(crate) snapshots: Arc<Semaphore>,
    /// The place for whoever has the journal looked through for one client.
    pub(crate) histories: Arc<Semaphore>,
}

/// The journal as the API sees it.
#[derive(Clone, Debug)]
pub struct JournalView {
    /// Where its segments are.
    pub folder: PathBuf,
    /// How it is.
    pub health: Health,
}

/// What an operator said, and how to hear it again.
pub struct Told {
    /// What the gateway was told last.
    pub gateway: Live<GatewayConfig>,
    /// What is asked of whoever asks.
    pub guard: Live<Guard>,
    /// Reads the configuration again.
    pub reload: Reload,
    /// How often that was done.
    pub reloads: Arc<ReloadCounts>,
}

impl Api {
    /// An API to the loop behind `door`.
    pub fn new(
        door: LoopHandle,
        hub: Hub,
        identity: Identity,
        told: Told,
        journal: Option<JournalView>,
    ) -> Self {
        let Told { gateway, guard, reload, reloads } = told;
        Self {
            began: door.clock().now(),
            door,
            hub,
            identity,
            gateway,
            guard,
            reload,
            reloads,
            journal,
            webhooks: None,
            hook: Arc::default(),
            followers: Arc::new(Semaphore::new(limits::FEED_FOLLOWERS_MAX)),
            seats: Arc::default(),
            broadcasts: Arc::default(),
            snapshots: Arc::new(Semaphore::new(1)),
            histories: Arc::new(Semaphore::new(1)),
        }
    }

    /// Tells how these webhooks are, too.
    #[must_use]
    pub fn with_webhooks(mut self, webhooks: Webhooks) -> Self {
        self.webhooks = Some(webhooks);
        self
    }

    /// Tells how often whoever looks at tokens was asked, too.
    #[must_use]
    pub fn with_hook(mut self, hook: Arc<HookCounts>) -> Self {
        self.hook = hook;
        self
    }

    /// Where the ledger can be read.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger {
            door: self.door.clone(),
            identity: self.identity.clone(),
            journal: self.journal.as_ref().map(|journal| journal.folder.clone()),
        }
    }
}

/// A request, as handlers see it.
pub(crate) struct Asked {
    pub(crate) api: Arc<Api>,
    /// The parts of the path that are no words of ours, in order.
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) type Answer = Result<Response, Problem>;

impl Asked {
    /// The part of the path that names a client.
    pub(crate) fn client(&self) -> &str {
        self.path.first().map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; an empty one says nothing.
    pub(crate) fn json<T: Default + DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.body.is_empty() {
            return Ok(T::default());
        }
        // A list would be taken for the fields in their order.
        if self.body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::bad("the body is not as expected: it is no object"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Problem::bad(format!("the body is not as expected: {error}")))
    }
}

/// Reads a field that may be left out and is never null: for `deserialize_with`, beside `default`.
pub(crate) fn present<'de, T, D>(field: D) -> Result<Option<T>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    T::deserialize(field).map(Some)
}

/// The router of all routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let filter = match route.verb {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Delete => MethodFilter::DELETE,
        };
        let handler = move |state, path, request| serve(route, state, path, request);
        router = router.route(route.path, on(filter, handler));
    }
    router
        .fallback(|state, request| nothing_here(state, request, Kind::NoSuchPath))
        .method_not_allowed_fallback(|state, request| {
            nothing_here(state, request, Kind::WrongMethod)
        })
        .with_state(api)
}

async fn serve(
    route: &'static Route,
    State(api): State<Arc<Api>>,
    path: RawPathParams,
    request: Request,
) -> Response {
    let page = Page::of(&api, request.headers());
    let answer = answer(route, api, &path, request).await;
    dressed(answer.unwrap_or_else(IntoResponse::into_response), page)
}

async fn answer(
    route: &'static Route,
    api: Arc<Api>,
    path: &RawPathParams,
    request: Request,
) -> Answer {
    let (head, body) = request.into_parts();
    if let Access::Needs(role) = route.access {
        admit(&api, &head.headers, &head.extensions, role)?;
    }
    let query: Vec<(String, String)> =
        form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    for (at, (name, _)) in query.iter().enumerate() {
        if !route.query.iter().any(|parameter| parameter.name == name) {
            return Err(Problem::bad(format!("there is no parameter {name:?} here")));
        }
        if query[..at].iter().any(|(other, _)| other == name) {
            return Err(Problem::bad(format!("parameter {name:?} stands twice")));
        }
    }
    let path = path.iter().map(|(_, value)| value.to_owned()).collect();
    let body = read(body).await?;
    (route.run)(Asked { api, path, query, headers: head.headers, body }).await
}

/// The whole body, if it is short enough and comes in time.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let whole = Limited::new(body, limits::HTTP_BODY_BYTES_MAX).collect();
    match timeout(limits::HTTP_BODY_PATIENCE.into(), whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("a body has at most {} bytes", limits::HTTP_BODY_BYTES_MAX);
            Err(Problem::new(Kind::TooLarge, detail))
        }
        Ok(Err(_)) => Err(Problem::bad("the body ended early")),
        Err(_) => {
            let detail = format!("the body did not come within {}", limits::HTTP_BODY_PATIENCE);
            Err(Problem::new(Kind::TooSlow, detail))
        }
    }
}

/// Lets in whoever has the role that is needed.
fn admit(
    api: &Api,
    headers: &HeaderMap,
    extensions: &Extensions,
    needed: Role,
) -> Result<(), Problem> {
    let visit = extensions.get::<Arc<Visit>>();
    let scheme = visit.map_or(Scheme::Http, |visit| visit.scheme);
    auth::check(&api.guard.get(), scheme, headers, needed)?;
    if let Some(visit) = visit {
        visit.note_known();
    }
    Ok(())
}

async fn nothing_here(State(api): State<Arc<Api>>, request: Request, kind: Kind) -> Response {
    let page = Page::of(&api, request.headers());
    if page.origin.is_some() && page::is_preflight(&request) {
        return dressed(page::preflight(), page);
    }
    let problem = match admit(&api, request.headers(), request.extensions(), Role::Read) {
        Ok(()) => {
            let (method, path) = (request.method(), request.uri().path());
            Problem::new(kind, format!("{method} {path}; see /openapi.json"))
        }
        Err(problem) => problem,
    };
    dressed(problem.into_response(), page)
}

/// What every answer says to whoever would keep, show or interpret it.
fn dressed(mut response: Response, page: Page) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    page.dress(headers);
    response
}

// --- answers -------------------------------------------------------------------------------------

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A short answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(value).expect("texts and numbers");
    Ok(with_type(status, JSON, Body::from(bytes)))
}

pub(crate) fn with_type(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A long answer, piece by piece as they are put into the other end. Whoever puts them in waits
/// for whoever reads.
pub(crate) fn pieces() -> (mpsc::Sender<Bytes>, Body) {
    pieces_of(limits::HTTP_PIECES_WAITING_MAX)
}

/// The same, with so many pieces waiting at most.
pub(crate) fn pieces_of(waiting_max: usize) -> (mpsc::Sender<Bytes>, Body) {
    let (sender, pieces) = mpsc::channel(waiting_max);
    (sender, Body::from_stream(Pieces(pieces)))
}

struct Pieces(mpsc::Receiver<Bytes>);

impl Stream for Pieces {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| piece.map(Ok))
    }
}
