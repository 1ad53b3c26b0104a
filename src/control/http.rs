//! The thread that serves the admin API over HTTP/1.1, in the clear or by TLS.
//!
//! It is one thread with one reactor, beside everything else: if it stands still, or dies, nobody
//! notices but whoever asks. Everything it gives to a connection is bounded, and whoever is slow
//! costs only a place among [`HTTP_CONNECTIONS_MAX`](limits::HTTP_CONNECTIONS_MAX).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::base::limits;
use crate::base::time::Span;
use crate::control::api::{Api, router};
use crate::control::auth::Visit;
use crate::control::door::LoopHandle;
use crate::control::live::Live;
use crate::control::patient::Patient;
use crate::control::seats::Seats;
use crate::control::tls::Tls;
use crate::control::webhook::target::Scheme;
use crate::os::socket::bound_send_buffer;

/// Before accepting again after the machine refused a descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds `address`; port 0 lets the machine choose one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        Self::inherited(TcpListener::bind(address)?)
    }

    /// Takes a socket that listens already.
    ///
    /// # Errors
    /// When the machine refuses an option.
    pub fn inherited(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        bound_send_buffer(&listener, limits::HTTP_SEND_BUFFER_BYTES)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The running thread.
#[derive(Debug)]
pub struct HttpThread {
    /// Nothing comes out of it but its end.
    ended: Receiver<()>,
}

/// Serves `api` at `bound`, by TLS where there is a certificate, until the loop has ended and those
/// who follow have heard it.
///
/// # Errors
/// When the machine gives no further thread or descriptor.
pub fn spawn(bound: Bound, tls: Live<Option<Tls>>, api: Api) -> io::Result<HttpThread> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(limits::HTTP_READERS_MAX)
        .thread_name("reader")
        .build()?;
    let (end, ended) = sync_channel(1);
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        serve(&runtime, bound.listener, tls, api);
        // Readers of a journal on a dead disk are not waited for.
        runtime.shutdown_background();
        drop(end);
    })?;
    Ok(HttpThread { ended })
}

impl HttpThread {
    /// Waits until it has ended, at most for `patience`.
    pub fn finish(self, patience: Span) {
        let _ = self.ended.recv_timeout(patience.into());
    }
}

fn serve(runtime: &Runtime, listener: TcpListener, tls: Live<Option<Tls>>, api: Api) {
    runtime.block_on(async move {
        let door = api.door.clone();
        let followers = Arc::clone(&api.followers);
        let seats = Seats::new(Arc::clone(&api.seats));
        let router = router(Arc::new(api));
        tokio::select! {
            refused = accept(listener, router, tls, seats) => {
                if let Err(error) = refused {
                    tracing::error!(%error, "the admin API cannot be served");
                }
            }
            () = loop_ends(door) => {
                // Those who follow hear the end before it is one.
                let all = u32::try_from(limits::FEED_FOLLOWERS_MAX).unwrap_or(u32::MAX);
                let gone = followers.acquire_many(all);
                let _ = timeout(limits::HTTP_END_PATIENCE.into(), gone).await;
            }
        }
    });
}

async fn loop_ends(door: LoopHandle) {
    let mut newest = door.subscribe();
    while newest.changed().await.is_ok() {}
}

async fn accept(
    listener: TcpListener,
    router: Router,
    tls: Live<Option<Tls>>,
    mut seats: Seats,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Whoever gets no place is sent away by the closing of its socket.
        let Some(place) = seats.take(peer.ip()).await else { continue };
        let acceptor = tls.get().as_ref().as_ref().map(Tls::acceptor);
        let scheme = if acceptor.is_some() { Scheme::Https } else { Scheme::Http };
        let visit = Arc::new(Visit::new(scheme));
        let router = Visited { router: TowerToHyperService::new(router.clone()), visit };
        let visit = Arc::clone(&router.visit);
        let conversation = tokio::spawn(async move {
            come_in(stream, acceptor, router).await;
            drop(place);
        });
        seats.note(peer.ip(), visit, conversation.abort_handle());
    }
}

/// The router, for the requests of one connection.
struct Visited {
    router: TowerToHyperService<Router>,
    visit: Arc<Visit>,
}

impl Service<Request<Incoming>> for Visited {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.visit));
        self.router.call(request)
    }
}

async fn come_in(stream: TcpStream, acceptor: Option<TlsAcceptor>, router: Visited) {
    // Events are small, and whoever follows wants each at once.
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, limits::HTTP_WRITE_PATIENCE.into());
    let Some(acceptor) = acceptor else { return converse(stream, router).await };
    let handshake = timeout(limits::HTTP_HANDSHAKE_PATIENCE.into(), acceptor.accept(stream));
    // Why there is none is the other end's concern.
    if let Ok(Ok(stream)) = handshake.await {
        converse(stream, router).await;
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Visited) {
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from(limits::HTTP_HEAD_PATIENCE))
        .max_buf_size(limits::HTTP_BUFFER_BYTES)
        .max_headers(limits::HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), router);
    // Why a conversation broke off is the other end's concern.
    let _ = conversation.await;
}
