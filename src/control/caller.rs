//! Talks to the admin API of a running gateway, and waits for it: for commands, not for servers.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};

use crate::control::webhook::tls::{Tls, TlsError};

/// Longest wait for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest silence within an answer; a feed says something more often than that.
const SILENCE_PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is kept in memory as a whole.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Where the admin API of a gateway is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    address: SocketAddr,
    /// What its certificate must say; `None`: it is asked in the clear.
    name: Option<ServerName<'static>>,
    /// What it is called in `Host`.
    authority: String,
}

impl Place {
    /// Asked in the clear.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, name: None, authority: address.to_string() }
    }

    /// Asked by TLS, where the certificate must be for `host`.
    ///
    /// # Errors
    /// When no certificate can be for that.
    pub fn encrypted(
        address: SocketAddr,
        host: &str,
        authority: &str,
    ) -> Result<Self, InvalidDnsNameError> {
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Self { address, name: Some(name), authority: authority.to_owned() })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is asked by TLS.
    pub fn is_encrypted(&self) -> bool {
        self.name.is_some()
    }
}

/// One who asks a gateway.
pub struct Caller {
    place: Place,
    tls: Option<TlsConnector>,
    token: Option<String>,
    runtime: Runtime,
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The machine does not give what waiting needs.
    #[error("cannot wait for an answer: {0}")]
    Machine(#[from] io::Error),
    /// Nobody could vouch for the gateway.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why there is no answer, or another one than was wished for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody is there.
    #[error("no admin API at {address}: {cause}; is the gateway running, with this address?")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the machine said.
        cause: io::Error,
    },
    /// Its certificate is not trusted, or it has none.
    #[error(
        "no TLS with the admin API at {address}: {cause}; does it have TLS, and does --admin-ca \
         name who vouches for it?"
    )]
    Untrusted {
        /// Where.
        address: SocketAddr,
        /// What is known.
        cause: io::Error,
    },
    /// The conversation broke off.
    #[error("the admin API at {address} broke off: {cause}")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// What is known.
        cause: String,
    },
    /// It answered that something is wrong.
    #[error("{title}: {detail} ({status})")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// What it is, whatever the case.
        title: String,
        /// What it is in this case.
        detail: String,
    },
}

/// What a problem says.
#[derive(Deserialize)]
struct Document {
    title: String,
    detail: String,
}

/// A question.
struct Question<'a> {
    method: Method,
    path: &'a str,
    body: String,
    last_event_id: Option<&'a str>,
}

impl Caller {
    /// Asks the gateway whose admin API is at `place`. Authorities in `ca_file` may vouch for it;
    /// without one those of this machine.
    ///
    /// # Errors
    /// When the machine does not give what waiting needs, or nobody could vouch.
    pub fn new(
        place: Place,
        token: Option<String>,
        ca_file: Option<&Path>,
    ) -> Result<Self, CallerError> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let tls = match place.is_encrypted() {
            true => Some(Tls::by(ca_file)?.connector()),
            false => None,
        };
        Ok(Self { place, tls, token, runtime })
    }

    /// Reads what is at `path`.
    ///
    /// # Errors
    /// When there is no answer, or one that says what is wrong.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, CallError> {
        let question =
            Question { method: Method::GET, path, body: String::new(), last_event_id: None };
        self.whole(&question)
    }

    /// Sends `body`, which is JSON, to `path`.
    ///
    /// # Errors
    /// When there is no answer, or one that says what is wrong.
    pub fn post(&self, path: &str, body: String) -> Result<Vec<u8>, CallError> {
        self.whole(&Question { method: Method::POST, path, body, last_event_id: None })
    }

    /// Puts up what `path` names.
    ///
    /// # Errors
    /// When there is no answer, or one that says what is wrong.
    pub fn put(&self, path: &str) -> Result<Vec<u8>, CallError> {
        let body = String::new();
        self.whole(&Question { method: Method::PUT, path, body, last_event_id: None })
    }

    /// Takes away what `path` names.
    ///
    /// # Errors
    /// When there is no answer, or one that says what is wrong.
    pub fn delete(&self, path: &str) -> Result<Vec<u8>, CallError> {
        let body = String::new();
        self.whole(&Question { method: Method::DELETE, path, body, last_event_id: None })
    }

    /// Hands what comes from `path` to `take`, piece by piece, until it ends or `take` fails.
    /// `last_event_id` is the last event of a feed that was dealt with.
    ///
    /// # Errors
    /// When there is no answer, or one that says what is wrong; or what `take` says.
    pub fn follow<E: From<CallError>>(
        &self,
        path: &str,
        last_event_id: Option<&str>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.runtime.block_on(async {
            let body = String::new();
            let question = Question { method: Method::GET, path, body, last_event_id };
            let mut response = self.ask(&question).await?;
            while let Some(piece) = self.next_piece(&mut response).await? {
                take(&piece)?;
            }
            Ok(())
        })
    }

    fn whole(&self, question: &Question<'_>) -> Result<Vec<u8>, CallError> {
        self.runtime.block_on(async {
            let mut response = self.ask(question).await?;
            self.rest(&mut response).await
        })
    }

    /// The response, if it is a success.
    async fn ask(&self, question: &Question<'_>) -> Result<Response<Incoming>, CallError> {
        let mut sender = self.connect().await?;
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(question.path)
            .header(HOST, &self.place.authority)
            .header(ACCEPT, "*/*")
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(id) = question.last_event_id {
            request = request.header("last-event-id", id);
        }
        let request =
            request.body(Full::from(question.body.clone())).map_err(|error| self.broken(&error))?;
        let answering = timeout(SILENCE_PATIENCE, sender.send_request(request)).await;
        let mut response =
            answering.map_err(|error| self.broken(&error))?.map_err(|error| self.broken(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.rest(&mut response).await?;
        let (title, detail) = match serde_json::from_slice::<Document>(&body) {
            Ok(Document { title, detail }) => (title, detail),
            Err(_) => ("this is no heartwheel".to_owned(), status.to_string()),
        };
        Err(CallError::Refused { status: status.as_u16(), title, detail })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let address = self.place.address;
        let unreachable = |cause| CallError::Unreachable { address, cause };
        let connecting = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await;
        let stream = connecting.unwrap_or_else(|_| Err(late())).map_err(unreachable)?;
        let (Some(tls), Some(name)) = (&self.tls, &self.place.name) else {
            return self.begin(stream).await;
        };
        let handshake = timeout(CONNECT_PATIENCE, tls.connect(name.clone(), stream)).await;
        let untrusted = |cause| CallError::Untrusted { address, cause };
        let stream = handshake.unwrap_or_else(|_| Err(late())).map_err(untrusted)?;
        self.begin(stream).await
    }

    async fn begin(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let handshake = http1::handshake(TokioIo::new(stream));
        let (sender, conversation) = handshake.await.map_err(|error| self.broken(&error))?;
        tokio::spawn(conversation);
        Ok(sender)
    }

    async fn rest(&self, response: &mut Response<Incoming>) -> Result<Vec<u8>, CallError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next_piece(response).await? {
            if whole.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(self.broken(&"the answer is too long"));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    async fn next_piece(
        &self,
        response: &mut Response<Incoming>,
    ) -> Result<Option<Bytes>, CallError> {
        loop {
            let frame = timeout(SILENCE_PATIENCE, response.body_mut().frame()).await;
            match frame.map_err(|error| self.broken(&error))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    fn broken(&self, cause: &dyn std::fmt::Display) -> CallError {
        CallError::Broken { address: self.place.address, cause: cause.to_string() }
    }
}

fn late() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
