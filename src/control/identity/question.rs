//! One question to the hook: may this client come in with this token?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::identity::Check;
use crate::base::limits;
use crate::base::time::Span;
use crate::control::identity::hook::Plan;
use crate::control::webhook::connection::{self, Connection, Fault, is_forgotten};
use crate::control::webhook::sign;
use crate::control::webhook::target::TargetUrl;
use crate::control::webhook::tls::Tls;
use crate::os::clock::Clock;

/// What came of it, and the connection if it can be used again.
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    pub(crate) connection: Option<Connection>,
}

/// What the hook said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Yes,
    No,
    /// Nothing that says either, and why.
    Other(String),
    Nothing,
}

/// One who asks, with all that it needs.
pub(crate) struct Question {
    pub(crate) plan: Arc<Plan>,
    pub(crate) body: Bytes,
    /// A connection that was used before.
    pub(crate) kept: Option<Connection>,
    pub(crate) lookups: Arc<Semaphore>,
    pub(crate) patience: Span,
    pub(crate) clock: Clock,
}

/// What is sent. A token that is no text comes as base64.
#[derive(Serialize)]
struct Body<'a> {
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_base64: Option<String>,
    remote: String,
}

/// The body of the question about this token.
pub(crate) fn body_of(check: &Check) -> Bytes {
    let token = std::str::from_utf8(&check.token).ok();
    let body = Body {
        client: check.client.as_str(),
        token,
        token_base64: token.is_none().then(|| STANDARD.encode(&check.token)),
        remote: check.peer.to_string(),
    };
    serde_json::to_vec(&body).expect("texts are JSON").into()
}

impl Question {
    /// Asks, and hears the answer.
    pub(crate) async fn ask(mut self) -> Asked {
        let began_at = self.clock.now();
        let answered = timeout(Duration::from(self.patience), self.exchange()).await;
        match answered {
            Ok(Ok((response, connection))) => {
                let answer = answer_of(response.status());
                let left = self.patience.minus(self.clock.now().since(began_at));
                let can_go_on = is_forgotten(response, left.min(limits::HOOK_BODY_PATIENCE)).await;
                Asked { answer, connection: can_go_on.then_some(connection) }
            }
            Ok(Err(fault)) => Asked { answer: Answer::Other(fault.to_string()), connection: None },
            Err(_) => Asked { answer: Answer::Nothing, connection: None },
        }
    }

    async fn exchange(&mut self) -> Result<(Response<Incoming>, Connection), Fault> {
        // It may have been closed while nothing was said on it: that is no answer.
        if let Some(mut connection) = self.kept.take()
            && let Ok(response) = connection.exchange(self.request()?).await
        {
            return Ok((response, connection));
        }
        let TargetUrl { host, port, .. } = &self.plan.options.url;
        let addresses = self.lookup(host.clone(), *port).await?;
        let tls = self.plan.tls.as_ref().map(Tls::connector);
        let mut connection =
            Connection::open(host, &addresses, tls.as_ref(), self.patience).await?;
        let response = connection.exchange(self.request()?).await.map_err(Fault::Http)?;
        Ok((response, connection))
    }

    /// A lookup that hangs keeps its place for as long as it does, whoever is not interested any
    /// more: there are never more of them.
    async fn lookup(&self, host: String, port: u16) -> Result<Vec<SocketAddr>, Fault> {
        let gone = |_| Fault::Connect(std::io::ErrorKind::Interrupted.into());
        let place = Arc::clone(&self.lookups)
            .acquire_owned()
            .await
            .map_err(|_| Fault::Connect(std::io::Error::other("nobody looks up names any more")))?;
        let looking = tokio::spawn(async move {
            let found = connection::lookup(&host, port).await;
            drop(place);
            found
        });
        looking.await.map_err(gone)?.map_err(Fault::Connect)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request = connection::post(&self.plan.options.url);
        if !self.plan.keys.is_empty() {
            let unix_secs = self.clock.wall().unix_millis(self.clock.now()) / 1_000;
            let signature = sign::signature(&self.plan.keys, unix_secs, &self.body);
            request = request.header(sign::SIGNATURE, signature);
        }
        request.body(Full::new(self.body.clone())).map_err(Fault::Request)
    }
}

/// What a status means. Whatever says neither yes nor no lets nobody in, and sends nobody away for
/// good.
fn answer_of(status: StatusCode) -> Answer {
    match status {
        StatusCode::OK | StatusCode::NO_CONTENT => Answer::Yes,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Answer::No,
        _ => Answer::Other(format!("answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ClientId, ConnId};

    #[test]
    fn only_two_answers_are_yes_and_three_are_no() {
        for status in 100..600 {
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = answer_of(status);
            match status.as_u16() {
                200 | 204 => assert_eq!(answer, Answer::Yes, "{status}"),
                401 | 403 | 404 => assert_eq!(answer, Answer::No, "{status}"),
                _ => assert!(matches!(answer, Answer::Other(_)), "{status}"),
            }
        }
    }

    #[test]
    fn a_question_has_who_what_and_from_where() {
        for (token, expected) in [
            (&b"a \"token\""[..], r#"{"client":"anna","token":"a \"token\"","remote":"[::1]:7"}"#),
            (b"\xff\x00", r#"{"client":"anna","token_base64":"/wA=","remote":"[::1]:7"}"#),
        ] {
            let check = Check {
                conn: ConnId { slot: 1, generation: 1 },
                client: ClientId::new("anna").expect("an id"),
                token: token.into(),
                peer: "[::1]:7".parse().expect("an address"),
            };
            assert_eq!(String::from_utf8_lossy(&body_of(&check)), expected);
        }
    }
}
