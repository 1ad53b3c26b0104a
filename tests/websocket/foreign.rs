//! Clients that others wrote: tungstenite, and Python with its standard library.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use heartwheel::wire::message::{AckWanted, Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound};
use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{ClientRequestBuilder, Error, Message as Frame, WebSocket};

use crate::gate::{Gate, PATIENCE, hello, on_epoll};
use crate::http::{post, start};

/// A client by tungstenite on a blocking socket.
struct Foreign(WebSocket<TcpStream>);

/// What it hears, as far as tests ask.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Heard {
    /// A native message.
    Said(String),
    Ping,
    Closed(Option<u16>),
}

impl Foreign {
    fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[]).expect("it is let in")
    }

    fn open_with(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, String> {
        Self::over(TcpStream::connect(address).expect("connects"), address, headers)
    }

    fn over(
        stream: TcpStream,
        address: SocketAddr,
        headers: &[(&str, &str)],
    ) -> Result<Self, String> {
        stream.set_nodelay(true).expect("an option");
        let uri = format!("ws://{address}/live").parse().expect("an address");
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol("heartwheel.v1");
        for (name, value) in headers {
            request = request.with_header(*name, *value);
        }
        let config = WebSocketConfig::default();
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["sec-websocket-protocol"], "heartwheel.v1");
                socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("not zero");
                Ok(Self(socket))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn login(address: SocketAddr, client: &str) -> Self {
        let mut foreign = Self::open(address);
        foreign.say_bytes(&hello(client, "", 0));
        let heard = foreign.hear();
        assert!(matches!(&heard, Heard::Said(text) if text.starts_with("Welcome")), "{heard:?}");
        foreign
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        self.0.send(Frame::binary(bytes.to_vec())).expect("it is sent");
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        self.say_bytes(&bytes);
    }

    /// The next thing heard. Pings are answered by reading on.
    fn hear(&mut self) -> Heard {
        let heard = loop {
            match self.0.read() {
                // A read with a time limit is not taken up again by the kernel.
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                heard => break heard,
            }
        };
        match heard {
            Ok(Frame::Binary(bytes)) => {
                let mut rest = &bytes[..];
                let mut deframer = Deframer::client_side();
                let inbound = deframer.next(&mut rest, 65_535).expect("the server speaks well");
                let Some(Inbound::Message(message)) = inbound else { panic!("{inbound:?}") };
                let said = format!("{message:?}");
                assert!(rest.is_empty(), "one frame is one message");
                Heard::Said(said)
            }
            Ok(Frame::Ping(_)) => Heard::Ping,
            Ok(Frame::Close(frame)) => Heard::Closed(frame.map(|frame| frame.code.into())),
            Ok(other) => panic!("{other:?}"),
            Err(Error::ConnectionClosed) => Heard::Closed(None),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_foreign_client_comes_beats_is_pushed_to_and_goes() {
    let (gate, admin) = start(&["--websocket", "on"]);
    let mut anna = Foreign::login(gate.address, "anna");
    let online = gate.wait_for_event("online");
    assert_eq!(online["client"], "anna");
    anna.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
    let pong = Heard::Said(format!("{:?}", Message::Pong { payload: b"12345678" }));
    assert_eq!(anna.hear(), pong);
    // A message in two, and two in one.
    anna.say_bytes(&[3, 0, 0]);
    anna.say_bytes(&[8, 1, 2, 3, 4, 5, 6, 7, 8, 3, 0, 0, 0]);
    let pong = |payload| Heard::Said(format!("{:?}", Message::Pong { payload }));
    assert_eq!((anna.hear(), anna.hear()), (pong(&[1, 2, 3, 4, 5, 6, 7, 8]), pong(&[])));
    let pushed = post(admin, "/v1/clients/anna/push", r#"{"topic":"t","text":"hello"}"#);
    assert_eq!(pushed.json()["result"], "delivered", "{pushed:?}");
    let data = Message::Data { seq: 1, ack: AckWanted::No, topic: "t", body: b"hello" };
    assert_eq!(anna.hear(), Heard::Said(format!("{data:?}")));
    // A ping is answered, and so is a large one in whole.
    anna.0.send(Frame::Ping(vec![7; 125].into())).expect("sent");
    assert_eq!(anna.0.read().expect("a pong"), Frame::Pong(vec![7; 125].into()));
    anna.say(&Message::Bye { code: 100 });
    assert_eq!(gate.wait_for_event("offline")["reason"], "bye");
    assert_eq!(anna.hear(), Heard::Closed(Some(1_000)));
}

fn closes_have_codes() {
    let (gate, admin) = start(&["--websocket", "on"]);
    let mut anna = Foreign::login(gate.address, "anna");
    let mut other = Foreign::login(gate.address, "anna");
    assert!(matches!(anna.hear(), Heard::Said(text) if text.contains("Goaway { code: 102")));
    assert_eq!(anna.hear(), Heard::Closed(Some(4_102)), "after it did not close by itself");
    let kicked = post(admin, "/v1/clients/anna/kick", "{}");
    assert_eq!(kicked.status, 200, "{kicked:?}");
    assert!(matches!(other.hear(), Heard::Said(text) if text.contains("Error { code: 300")));
    assert_eq!(other.hear(), Heard::Closed(Some(4_300)));

    let mut wrong = Foreign::login(gate.address, "berta");
    wrong.say_bytes(&[0x7F, 0x80, 0, 0]);
    assert!(matches!(wrong.hear(), Heard::Said(text) if text.contains("Error { code: 408")));
    assert_eq!(wrong.hear(), Heard::Closed(Some(4_408)));

    let mut text = Foreign::login(gate.address, "carl");
    text.0.send(Frame::text("beat")).expect("sent");
    assert_eq!(text.hear(), Heard::Closed(Some(CloseCode::Unsupported.into())));
    let reason = loop {
        let offline = gate.wait_for_event("offline");
        if offline["client"] == "carl" {
            break offline["reason"].clone();
        }
    };
    assert_eq!(reason, "bad_websocket");

    // Its own close is answered in kind, and is a loss like a FIN without BYE.
    let mut gone = Foreign::login(gate.address, "dora");
    gone.0.close(None).expect("sent");
    assert_eq!(gone.hear(), Heard::Closed(None));
    assert_eq!(gate.wait_for_event("offline")["reason"], "closed_by_peer");
}

#[test]
fn the_close_code_says_why() {
    closes_have_codes();
}

#[test]
fn it_is_the_same_on_epoll() {
    on_epoll(closes_have_codes);
    on_epoll(a_silent_client_is_pinged);
}

const QUICK: [&str; 4] = ["--interval", "300ms", "--timeout", "900ms"];

fn a_silent_client_is_pinged() {
    let gate = Gate::start(&[&QUICK[..], &["--websocket", "on"]].concat());
    let mut anna = Foreign::login(gate.address, "anna");
    let began = Instant::now();
    let mut pings = 0;
    // Far beyond its timeout: it says nothing of its own, and its library answers.
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(anna.hear(), Heard::Ping);
        anna.0.flush().expect("the pong goes out");
        pings += 1;
    }
    assert!(pings >= 3, "{pings}");
    let ends: Vec<_> = std::iter::from_fn(|| gate.try_event(Duration::ZERO))
        .filter(|event| event["event"] == "offline")
        .collect();
    assert_eq!(ends, Vec::<Value>::new(), "it lives");
    // Now it does not answer any more.
    let offline = gate.wait_for_event("offline");
    assert_eq!(offline["reason"], "heartbeat_timeout");
}

#[test]
fn a_client_that_only_answers_pings_lives_and_one_that_does_not_is_dead() {
    a_silent_client_is_pinged();
}

#[test]
fn a_page_of_another_origin_is_refused() {
    let gate =
        Gate::start(&["--websocket-origin", "https://example.org", "--websocket-path", "/live"]);
    for (origin, is_let_in) in [
        (Some("https://example.org"), true),
        (None, true),
        (Some("https://evil.example"), false),
        (Some("null"), false),
    ] {
        let header = origin.map(|origin| ("Origin", origin));
        let opened = Foreign::open_with(gate.address, header.as_slice());
        match opened {
            Ok(_) => assert!(is_let_in, "{origin:?}"),
            Err(error) => {
                assert!(!is_let_in && error.contains("403"), "{origin:?}: {error}");
            }
        }
    }
}

/// A load balancer says for whom it speaks, and the WebSocket follows.
#[test]
fn behind_a_proxy_they_have_their_own_address() {
    let gate = Gate::start(&["--websocket", "on", "--proxy-from", "127.0.0.1"]);
    let mut stream = TcpStream::connect(gate.address).expect("connects");
    stream.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 7070\r\n").expect("sent");
    let mut anna = Foreign::over(stream, gate.address, &[]).expect("it is let in");
    anna.say_bytes(&hello("anna", "", 0));
    assert!(matches!(anna.hear(), Heard::Said(text) if text.starts_with("Welcome")));
    assert_eq!(gate.wait_for_event("online")["remote"], "192.0.2.7:4711");
}

#[test]
fn a_drain_tells_them_and_a_closed_door_is_closed() {
    let gate = Gate::start(&["--websocket", "on", "--drain-notice", "0s"]);
    let mut anna = Foreign::login(gate.address, "anna");
    gate.signal("TERM");
    assert!(matches!(anna.hear(), Heard::Said(text) if text.contains("Goaway { code: 101")));
    anna.0.close(None).expect("sent");
    assert!(matches!(anna.hear(), Heard::Closed(_)));
    let gate = Gate::start(&["--websocket", "off"]);
    Foreign::open_with(gate.address, &[]).map(|_| ()).expect_err("nobody listens for it");
}

#[test]
fn over_shards_they_find_their_own() {
    let gate = Gate::start(&["--websocket", "on", "--shards", "2"]);
    let mut all: Vec<_> =
        (0..24).map(|number| Foreign::login(gate.address, &format!("client-{number}"))).collect();
    for foreign in &mut all {
        foreign.say(&Message::Ping { reply: Reply::Wanted, payload: b"x" });
    }
    for foreign in &mut all {
        assert_eq!(foreign.hear(), Heard::Said(format!("{:?}", Message::Pong { payload: b"x" })));
    }
}

fn python(gate: &Gate, client: &str, more: &[&str]) -> (bool, String) {
    let out = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/websocket.py"))
        .args(["127.0.0.1", &gate.address.port().to_string(), client])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is installed, as the README asks");
    let printed = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.success(), printed.into_owned())
}

#[test]
fn the_example_in_python_beats_and_is_pinged() {
    let gate = Gate::start(&["--websocket", "on", "--interval", "300ms", "--timeout", "20s"]);
    let (is_well, printed) = python(&gate, "anna", &[]);
    assert!(is_well, "{printed}");
    assert!(printed.contains("online epoch=") && printed.contains(" mode=2 "), "{printed}");
    assert!(printed.contains("answered") && printed.contains("closed code=1000"), "{printed}");
    assert_eq!(gate.wait_for_event("offline")["reason"], "bye");
    let (is_well, printed) = python(&gate, "anna", &["--silent"]);
    assert!(is_well && printed.contains("pinged"), "{printed}");
    let gate = Gate::start(&["--websocket-path", "/live"]);
    let (is_well, printed) = python(&gate, "anna", &[]);
    assert!(!is_well && printed.contains("404 Not Found"), "{printed}");
    let found: Value =
        json!(gate.try_event(Duration::from_millis(200)).map(|e| e["event"].clone()));
    assert_eq!(found, json!("started"), "nobody came in");
}
