//! One attempt to hand a batch to its target: connect if need be, sign, POST, hear the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response, StatusCode};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::base::time::Span;
use crate::control::webhook::batch::Batch;
use crate::control::webhook::connection::{Connection, Fault, is_forgotten, lookup, post};
use crate::control::webhook::sign;
use crate::control::webhook::target::{Target, TargetUrl};
use crate::os::clock::Clock;

/// What marks a batch, however often it is sent.
const DELIVERY: &str = "heartwheel-delivery";
/// How often it was sent, this time included.
const ATTEMPT: &str = "heartwheel-attempt";

/// Speaks to one target. Keeps its connection from batch to batch.
pub(crate) struct Sender {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    connection: Option<Connection>,
    clock: Clock,
}

/// What became of an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The target has it.
    Taken,
    /// The target wants nothing any more.
    Gone,
    /// The target takes smaller ones only.
    TooLarge,
    /// To be tried again, after this pause at least.
    Failed {
        /// Why.
        cause: String,
        /// What the target asked for.
        pause: Span,
    },
}

impl Sender {
    pub(crate) fn new(target: Arc<Target>, tls: Option<TlsConnector>, clock: Clock) -> Self {
        Self { target, tls, connection: None, clock }
    }

    /// Sends a batch once, and hears what the target says to it.
    pub(crate) async fn send(&mut self, batch: &Batch, attempt: u64) -> Outcome {
        let patience = Duration::from(self.target.timeout);
        let began_at = self.clock.now();
        match timeout(patience, self.exchange(batch, attempt)).await {
            Ok(Ok(response)) => {
                let outcome = judge(&response);
                let left = self.target.timeout.minus(self.clock.now().since(began_at));
                self.forget_body(response, left).await;
                outcome
            }
            Ok(Err(fault)) => {
                self.connection = None;
                Outcome::Failed { cause: fault.to_string(), pause: Span::ZERO }
            }
            Err(_) => {
                self.connection = None;
                let cause = format!("no answer within {}", self.target.timeout);
                Outcome::Failed { cause, pause: Span::ZERO }
            }
        }
    }

    async fn exchange(&mut self, batch: &Batch, attempt: u64) -> Result<Response<Incoming>, Fault> {
        let signature = self.signature(batch).await?;
        // A target may have closed a connection that nothing was said on for a while: that is no
        // failure of it.
        if let Some(mut connection) = self.connection.take() {
            let request = self.request(batch, attempt, signature.as_deref())?;
            if let Ok(response) = connection.exchange(request).await {
                self.connection = Some(connection);
                return Ok(response);
            }
        }
        let TargetUrl { host, port, .. } = &self.target.url;
        let addresses = lookup(host, *port).await.map_err(Fault::Connect)?;
        let tls = self.tls.as_ref();
        let mut connection = Connection::open(host, &addresses, tls, self.target.timeout).await?;
        let request = self.request(batch, attempt, signature.as_deref())?;
        let response = connection.exchange(request).await.map_err(Fault::Http)?;
        self.connection = Some(connection);
        Ok(response)
    }

    /// The keys are read each time: whoever changes them need not tell us.
    async fn signature(&self, batch: &Batch) -> Result<Option<String>, Fault> {
        let Some(path) = self.target.secret_file.clone() else { return Ok(None) };
        let body = batch.body.clone();
        let clock = self.clock;
        let signing = spawn_blocking(move || {
            let keys = sign::read_keys(&path).map_err(|error| Fault::Secret(error.to_string()))?;
            let unix_secs = clock.wall().unix_millis(clock.now()) / 1_000;
            Ok(sign::signature(&keys, unix_secs, &body))
        });
        let signed = signing.await.map_err(|error| Fault::Secret(error.to_string()))?;
        signed.map(Some)
    }

    fn request(
        &self,
        batch: &Batch,
        attempt: u64,
        signature: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request =
            post(&self.target.url).header(DELIVERY, batch.key()).header(ATTEMPT, attempt);
        if let Some(signature) = signature {
            request = request.header(sign::SIGNATURE, signature);
        }
        request.body(Full::new(batch.body.clone())).map_err(Fault::Request)
    }

    /// The connection can be used again once the answer is read; where that is much, or slow, it is
    /// given up instead.
    async fn forget_body(&mut self, response: Response<Incoming>, patience: Span) {
        if !is_forgotten(response, patience).await {
            self.connection = None;
        }
    }
}

/// What a status means. Redirects are not followed: what is meant for one place is for no other.
fn judge<B>(response: &Response<B>) -> Outcome {
    let status = response.status();
    match status {
        StatusCode::GONE => Outcome::Gone,
        StatusCode::PAYLOAD_TOO_LARGE => Outcome::TooLarge,
        status if status.is_success() => Outcome::Taken,
        status => {
            let wish = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let secs = wish.and_then(|text| text.parse().ok()).unwrap_or(0);
            Outcome::Failed { cause: format!("answered {status}"), pause: Span::from_secs(secs) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_success_is_one() {
        let judged = |status: u16, wish: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(wish) = wish {
                response = response.header(RETRY_AFTER, wish);
            }
            judge(&response.body(()).expect("a status"))
        };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status, None), Outcome::Taken, "{status}");
        }
        for status in [301, 302, 307, 400, 401, 404, 409, 429, 500, 503] {
            assert!(matches!(judged(status, None), Outcome::Failed { .. }), "{status}");
        }
        assert_eq!(judged(410, None), Outcome::Gone);
        assert_eq!(judged(413, None), Outcome::TooLarge);
        let pause = |wish| match judged(503, Some(wish)) {
            Outcome::Failed { pause, .. } => pause,
            other @ (Outcome::Taken | Outcome::Gone | Outcome::TooLarge) => panic!("{other:?}"),
        };
        assert_eq!(pause("7"), Span::from_secs(7));
        for other in ["", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999999"] {
            assert_eq!(pause(other), Span::ZERO, "{other}");
        }
    }
}
