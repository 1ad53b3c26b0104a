//! A backend that is asked to take batches, and does what a test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use heartwheel::control::journal::Position;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::gate::PATIENCE;

/// What the backend answers to one batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Status(u16),
    /// 503, and not before so many seconds.
    NotBefore(u64),
    /// Elsewhere, it says.
    Redirect,
    /// 200, with a body that takes its time.
    Slowly,
    /// 200, with a body without end.
    Endlessly,
    /// Nothing, and the connection stays.
    Silence,
    /// The connection ends without an answer; whether the backend has taken the batch.
    CutOff {
        has_taken: bool,
    },
}

impl Answer {
    pub(crate) fn has_taken(self) -> bool {
        match self {
            Self::Status(status) => (200..300).contains(&status),
            Self::Slowly | Self::Endlessly => true,
            Self::CutOff { has_taken } => has_taken,
            Self::NotBefore(_) | Self::Redirect | Self::Silence => false,
        }
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) answer: Answer,
    /// Which connection it came by.
    pub(crate) connection: usize,
}

type Behaviour = Box<dyn FnMut(&Delivery) -> Answer + Send>;

/// A running backend.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    deliveries: Receiver<Delivery>,
    behaviour: Arc<Mutex<Behaviour>>,
    /// Dropped, it ends.
    _stop: oneshot::Sender<()>,
}

impl Backend {
    /// Starts it on any port.
    pub(crate) fn start(behaviour: impl FnMut(&Delivery) -> Answer + Send + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), None, behaviour)
    }

    /// Starts it here, in the clear or by TLS.
    pub(crate) fn start_at(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        behaviour: impl FnMut(&Delivery) -> Answer + Send + 'static,
    ) -> Self {
        let behaviour: Behaviour = Box::new(behaviour);
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (delivery_in, deliveries) = channel();
        let (stop, mut stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind(address).expect("a port");
        listener.set_nonblocking(true).expect("an option");
        let address = listener.local_addr().expect("an address");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let own = Arc::clone(&behaviour);
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                for connection in 0.. {
                    let stream = tokio::select! {
                        accepted = listener.accept() => accepted.expect("a connection").0,
                        _ = &mut stopped => return,
                    };
                    let (behaviour, delivery_in) = (Arc::clone(&own), delivery_in.clone());
                    let desk = Desk { behaviour, delivery_in, connection };
                    tokio::spawn(converse(stream, tls.clone(), desk));
                }
            });
        });
        Self { address, deliveries, behaviour, _stop: stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Behaves otherwise from now on.
    pub(crate) fn behave(&self, behaviour: impl FnMut(&Delivery) -> Answer + Send + 'static) {
        *self.behaviour.lock().expect("nobody panics") = Box::new(behaviour);
    }

    /// The next request, however it was answered.
    pub(crate) fn next(&self) -> Delivery {
        self.deliveries.recv_timeout(PATIENCE).expect("nothing comes")
    }

    /// The next request, if one comes in time.
    pub(crate) fn next_within(&self, patience: Duration) -> Option<Delivery> {
        self.deliveries.recv_timeout(patience).ok()
    }

    /// The next request that was taken.
    pub(crate) fn next_taken(&self) -> Delivery {
        loop {
            let delivery = self.next();
            if delivery.answer.has_taken() {
                return delivery;
            }
        }
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    behaviour: Arc<Mutex<Behaviour>>,
    delivery_in: Sender<Delivery>,
    connection: usize,
}

async fn converse(stream: TcpStream, tls: Option<TlsAcceptor>, desk: Desk) {
    let service = service_fn(move |request| take(request, desk.clone()));
    // Whoever breaks off has its reasons.
    match tls {
        None => drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cut off")]
struct CutOff;

async fn take(
    request: Request<Incoming>,
    desk: Desk,
) -> Result<Response<Channel<Bytes, Infallible>>, CutOff> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
    let text = |value: &hyper::header::HeaderValue| value.to_str().expect("text").to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let mut delivery = Delivery {
        path: head.uri.to_string(),
        headers: headers.collect(),
        body,
        answer: Answer::Silence,
        connection: desk.connection,
    };
    let answer = desk.behaviour.lock().expect("nobody panics")(&delivery);
    delivery.answer = answer;
    // A test that is over does not want to know.
    let _ = desk.delivery_in.send(delivery);
    let (mut body_in, body) = Channel::new(1);
    let response = Response::builder();
    let response = match answer {
        Answer::Status(status) => response.status(status),
        Answer::NotBefore(secs) => response.status(503).header("retry-after", secs),
        Answer::Redirect => response.status(307).header("location", "/elsewhere"),
        Answer::Silence => {
            tokio::time::sleep(PATIENCE * 10).await;
            response.status(500)
        }
        Answer::CutOff { .. } => return Err(CutOff),
        Answer::Slowly | Answer::Endlessly => {
            tokio::spawn(async move {
                while body_in.send_data(Bytes::from_static(&[b'x'; 1_000])).await.is_ok() {
                    if answer == Answer::Slowly {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            });
            response.status(200)
        }
    };
    Ok(response.body(body).expect("a response"))
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Its events, as they are in the body.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().expect("a list").clone()
    }

    pub(crate) fn first(&self) -> Position {
        self.json()["first"].as_str().and_then(|text| text.parse().ok()).expect("a position")
    }

    pub(crate) fn last(&self) -> Position {
        self.json()["last"].as_str().and_then(|text| text.parse().ok()).expect("a position")
    }

    /// Whether the batch says of itself what is true, to its signature by this key.
    pub(crate) fn check(&self, key: Option<&str>) {
        let json = self.json();
        assert_eq!(self.header("content-type"), Some("application/json"));
        let agent = self.header("user-agent").expect("a name");
        assert!(agent.starts_with("heartwheel/"), "{agent}");
        let delivery = format!("{}-{}", self.first(), self.last());
        assert_eq!(self.header("heartwheel-delivery"), Some(delivery.as_str()));
        let places = self.events().into_iter().filter(|event| event["event"] != "reset");
        let places: Vec<Position> = places.map(|event| place(&event)).collect();
        assert_eq!(places.first(), Some(&self.first()), "{json}");
        assert_eq!(places.last(), Some(&self.last()), "{json}");
        for pair in places.windows(2) {
            assert!(follows(pair[0], pair[1]), "{pair:?}");
        }
        match key {
            Some(key) => assert!(self.is_signed_by(key), "{:?}", self.headers),
            None => assert_eq!(self.header("heartwheel-signature"), None),
        }
    }

    pub(crate) fn is_signed_by(&self, key: &str) -> bool {
        let header = self.header("heartwheel-signature").expect("it is signed");
        let (time, signatures) = header.split_once(",v1=").expect("a signature");
        let time = time.strip_prefix("t=").expect("a time");
        let made_at: u64 = time.parse().expect("seconds");
        let clock = heartwheel::os::clock::Clock::new();
        let now = clock.wall().unix_millis(clock.now()) / 1_000;
        assert!(now.abs_diff(made_at) < 300, "{header} at {now}");
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key will do");
        mac.update(format!("{time}.").as_bytes());
        mac.update(&self.body);
        let expected: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        signatures.split(",v1=").any(|signature| signature == expected)
    }
}

/// Where an event is.
pub(crate) fn place(event: &Value) -> Position {
    let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("no {key}: {event}"));
    Position { boot: number("boot"), seq: number("seq") }
}

/// Whether nothing is between the two.
pub(crate) fn follows(one: Position, next: Position) -> bool {
    match one.boot == next.boot {
        true => next.seq == one.seq + 1,
        false => next.boot > one.boot && next.seq == 1,
    }
}
