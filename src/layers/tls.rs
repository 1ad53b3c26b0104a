//! TLS, by rustls: 1.3 and 1.2, nothing older.
//!
//! Nothing is kept for who comes back: what a session needs is in its ticket, whose key changes
//! every six hours. Where clients show certificates there are no tickets, for whoever comes back
//! with one is not asked for its certificate again.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::{CryptoProvider, aws_lc_rs::Ticketer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ServerConfig, ServerConnection, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::{ClientConnection, Connection, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::base::event::CloseReason;
use crate::base::introduction::Introduction;
use crate::base::limits;
use crate::layers::certificate::{self, PemError};
use crate::layers::layer::{Goes, Layer};
use crate::layers::terms::Begin;

/// What we speak behind TLS, for those who ask (ALPN): frames, or the request of a WebSocket.
const PROTOCOLS: [&[u8]; 2] = [b"heartwheel/1", b"http/1.1"];
/// Tickets after a handshake of TLS 1.3: whoever comes back does so once.
const TICKETS: usize = 1;

/// Begins TLS with those who connect to us.
pub struct Serve {
    config: Arc<ServerConfig>,
}

/// Begins TLS with whom we connect to.
pub struct Dial {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// What TLS is served with, as files.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// Our certificate, and those between it and its authority, in PEM.
    pub certificates: &'a [u8],
    /// Its key, in PEM.
    pub key: &'a [u8],
    /// Whether clients show certificates.
    pub clients: Option<Clients<'a>>,
}

/// Whose certificates clients show.
#[derive(Clone, Copy, Debug)]
pub struct Clients<'a> {
    /// The authorities that are believed, in PEM.
    pub authorities: &'a [u8],
    /// What they have revoked, in PEM; with a list, each of them needs one. `None`: nobody looks.
    pub revoked: Option<&'a [u8]>,
    /// Whether who shows none is sent away.
    pub are_required: bool,
}

/// Why TLS cannot be served or dialled like this.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with our certificate.
    #[error("the certificate {0}")]
    Certificate(#[source] PemError),
    /// The file with its key.
    #[error("the key {0}")]
    Key(#[source] PemError),
    /// The file with authorities.
    #[error("the file of authorities {0}")]
    Authorities(#[source] PemError),
    /// An authority that nobody can be judged by.
    #[error("the file of authorities holds a certificate that is none of an authority ({0})")]
    Authority(#[source] rustls::Error),
    /// The file with lists of what they have revoked.
    #[error("the file of revoked certificates {0}")]
    Lists(#[source] PemError),
    /// A list that cannot be read.
    #[error("the file of revoked certificates holds a list that cannot be read ({0})")]
    List(#[source] VerifierBuilderError),
    /// None at all.
    #[error("no certificate authority is known")]
    NoAuthority,
    /// Nobody can be called so.
    #[error("{0} is no name; expected one such as gate.example")]
    NoName(String),
    /// They do not fit together.
    #[error("certificate and key are of no use together ({0})")]
    Pair(#[source] rustls::Error),
    /// The library refuses.
    #[error("TLS cannot be set up ({0})")]
    Library(#[source] rustls::Error),
}

impl Serve {
    /// TLS with these files.
    ///
    /// # Errors
    /// When they are not what they should be.
    pub fn new(files: Files<'_>) -> Result<Self, TlsError> {
        let provider = provider();
        let chain = certificate::certificates(files.certificates).map_err(TlsError::Certificate)?;
        let key = certificate::private_key(files.key).map_err(TlsError::Key)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?;
        let builder = match files.clients {
            Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if files.clients.is_none() {
            config.ticketer = Ticketer::new().map_err(TlsError::Library)?;
            config.send_tls13_tickets = TICKETS;
        }
        Ok(Self { config: Arc::new(config) })
    }
}

impl Dial {
    /// TLS with whom these authorities know by this name, or address.
    ///
    /// # Errors
    /// When there is none of them, or the name is none.
    pub fn new(authorities: Vec<CertificateDer<'static>>, name: &str) -> Result<Self, TlsError> {
        let server = ServerName::try_from(name.to_owned());
        let name = server.map_err(|_| TlsError::NoName(name.escape_debug().to_string()))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        if roots.is_empty() {
            return Err(TlsError::NoAuthority);
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOLS[0].to_vec()];
        Ok(Self { config: Arc::new(config), name })
    }

    /// Says beforehand that this is spoken within (ALPN), and not the native protocol.
    #[must_use]
    pub fn to_speak(mut self, protocol: &[u8]) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![protocol.to_vec()];
        self
    }
}

/// Whoever does the arithmetic.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Who judges the certificates of clients.
fn verifier(
    clients: Clients<'_>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let authorities =
        certificate::certificates(clients.authorities).map_err(TlsError::Authorities)?;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(TlsError::Authority)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match clients.are_required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    // A list beyond its time still counts: one that nobody has renewed does not lock out everybody.
    let builder = match clients.revoked {
        Some(pem) => {
            builder.with_crls(certificate::revocation_lists(pem).map_err(TlsError::Lists)?)
        }
        None => builder,
    };
    builder.build().map_err(|error| match error {
        VerifierBuilderError::NoRootAnchors => TlsError::NoAuthority,
        VerifierBuilderError::InvalidCrl(_) => TlsError::List(error),
        // More kinds may come with other versions of the library.
        _ => TlsError::Library(rustls::Error::General(error.to_string())),
    })
}

impl Begin for Serve {
    fn begin(&self) -> Box<dyn Layer> {
        let connection = ServerConnection::new(Arc::clone(&self.config));
        Box::new(Tls::new(connection.map(Connection::Server)))
    }
}

impl Begin for Dial {
    fn begin(&self) -> Box<dyn Layer> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        Box::new(Tls::new(connection.map(Connection::Client)))
    }
}

/// One end of TLS.
struct Tls {
    /// `None`: it could not even be begun.
    connection: Option<Connection>,
    /// How many bytes of its handshake came.
    handshake_bytes: usize,
    /// It went wrong, and the peer was told.
    is_broken: bool,
}

impl Tls {
    fn new(connection: Result<Connection, rustls::Error>) -> Self {
        let mut connection = connection.ok();
        if let Some(connection) = &mut connection {
            connection.set_buffer_limit(Some(limits::TLS_BUFFER_BYTES_MAX));
        }
        Self { is_broken: connection.is_none(), connection, handshake_bytes: 0 }
    }
}

/// A source in which nothing is at present.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Takes a part of `bytes`, and what was in it. An error of any kind ends it, and it has told the
/// peer of what kind.
fn take(connection: &mut Connection, bytes: &mut &[u8], up: &mut Vec<u8>) -> Result<Goes, ()> {
    let before = bytes.len();
    let is_read = connection.read_tls(bytes).is_ok();
    let processed = connection.process_new_packets();
    let mut reader = connection.reader();
    while let Ok(plain) = reader.fill_buf()
        && !plain.is_empty()
    {
        let length = plain.len();
        up.extend_from_slice(plain);
        reader.consume(length);
    }
    match processed {
        Ok(state) if state.peer_has_closed() => Ok(Goes::Over),
        Ok(_) if is_read && bytes.len() < before => Ok(Goes::On),
        Ok(_) | Err(_) => Err(()),
    }
}

/// Appends what is to be sent to `down`.
fn flush(connection: &mut Connection, down: &mut Vec<u8>) {
    while connection.wants_write() && connection.write_tls(down).is_ok_and(|written| written > 0) {}
}

impl Layer for Tls {
    fn take_in(
        &mut self,
        mut bytes: &[u8],
        up: &mut Vec<u8>,
        down: &mut Vec<u8>,
    ) -> Result<Goes, CloseReason> {
        let Some(connection) = self.connection.as_mut().filter(|_| !self.is_broken) else {
            return Err(CloseReason::BadTls);
        };
        let mut goes = Ok(Goes::On);
        while !bytes.is_empty() && goes == Ok(Goes::On) {
            let before = bytes.len();
            let was_handshaking = connection.is_handshaking();
            goes = take(connection, &mut bytes, up);
            if was_handshaking {
                self.handshake_bytes += before - bytes.len();
            }
            let is_long = self.handshake_bytes > limits::TLS_HANDSHAKE_BYTES_MAX;
            if connection.is_handshaking() && is_long {
                goes = Err(());
            }
        }
        flush(connection, down);
        // Makes it give back what a large record took.
        let _ = connection.read_tls(&mut Nothing);
        goes.map_err(|()| {
            self.is_broken = true;
            CloseReason::BadTls
        })
    }

    fn send(&mut self, mut bytes: &[u8], down: &mut Vec<u8>) {
        let Some(connection) = self.connection.as_mut().filter(|_| !self.is_broken) else {
            return;
        };
        // Who dials speaks first, and what it says waits in here until it may.
        if connection.is_handshaking() && matches!(connection, Connection::Server(_)) {
            return;
        }
        loop {
            let written = connection.writer().write(bytes).unwrap_or(0);
            bytes = &bytes[written..];
            flush(connection, down);
            if bytes.is_empty() || written == 0 {
                return;
            }
        }
    }

    fn finish(&mut self, down: &mut Vec<u8>) {
        if let Some(connection) = self.connection.as_mut().filter(|_| !self.is_broken) {
            connection.send_close_notify();
            flush(connection, down);
        }
    }

    fn is_costly(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_handshaking())
    }

    fn introduce(&self, introduction: &mut Introduction) {
        introduction.is_encrypted = true;
        let shown = self.connection.as_ref().and_then(|connection| connection.peer_certificates());
        let shown = shown.and_then(<[_]>::first);
        introduction.name = shown.map(|shown| certificate::name(shown).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
