//! A connection to somebody whom we ask by HTTP: in the clear or by TLS, kept from request to
//! request.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::http::request;
use hyper::rt::{Read, Write};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::base::limits;
use crate::base::time::Span;
use crate::control::webhook::target::TargetUrl;

/// Who we say we are.
const AGENT: &str = concat!("heartwheel/", env!("CARGO_PKG_VERSION"));

/// A conversation; dropping it ends it.
pub(crate) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    conversation: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.conversation.abort();
    }
}

/// Why there is no answer. No word of what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Secret(String),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no TLS with it: {0}")]
    Tls(io::Error),
    #[error("{}", chain(.0))]
    Http(hyper::Error),
    #[error("{0}")]
    Request(hyper::http::Error),
}

/// An error of HTTP says little itself; what caused it says more.
fn chain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Connection {
    /// Connects to the first of these addresses of `host` that lets us.
    pub(crate) async fn open(
        host: &str,
        addresses: &[SocketAddr],
        tls: Option<&TlsConnector>,
        patience: Span,
    ) -> Result<Self, Fault> {
        let stream = connect_tcp(addresses, patience).await.map_err(Fault::Connect)?;
        // A request is one write, and its end should not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return Self::begin(TokioIo::new(stream)).await };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Fault::Tls(io::Error::other(error)))?;
        let stream = tls.connect(name, stream).await.map_err(Fault::Tls)?;
        Self::begin(TokioIo::new(stream)).await
    }

    async fn begin(stream: impl Read + Write + Send + Unpin + 'static) -> Result<Self, Fault> {
        let handshake = http1::Builder::new()
            .max_buf_size(limits::HTTP_BUFFER_BYTES)
            .max_headers(limits::HTTP_HEADERS_MAX)
            .handshake(stream);
        let (requests, conversation) = handshake.await.map_err(Fault::Http)?;
        let conversation = tokio::spawn(async {
            // Why it broke off is heard by whoever waits for the answer.
            let _ = conversation.await;
        });
        Ok(Self { requests, conversation: conversation.abort_handle() })
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.requests.is_closed()
    }

    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        self.requests.ready().await?;
        self.requests.send_request(request).await
    }
}

/// The head of a POST of JSON to this place.
pub(crate) fn post(url: &TargetUrl) -> request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(&url.path)
        .header(HOST, &url.authority)
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/json")
}

/// The addresses of a host.
pub(crate) async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host((host, port)).await?.collect())
}

/// Connects to the first of these addresses that lets us.
async fn connect_tcp(addresses: &[SocketAddr], patience: Span) -> io::Result<TcpStream> {
    // An address that swallows everything must leave time for the next one.
    let each = Duration::from(patience.divided_by(addresses.len().max(1) as u64));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Reads what is left of an answer, so that its connection can be used again. Whether that is done;
/// where it is much, or slow, it is not.
pub(crate) async fn is_forgotten(response: Response<Incoming>, patience: Span) -> bool {
    let mut body = response.into_body();
    let reading = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > limits::WEBHOOK_ANSWER_BYTES_MAX {
                return false;
            }
        }
        true
    };
    let patience = patience.min(limits::WEBHOOK_ANSWER_PATIENCE);
    timeout(patience.into(), reading).await == Ok(true)
}
