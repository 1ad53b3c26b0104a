//! A WebSocket within TLS, as every page that came by https opens one; and a load balancer before.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tungstenite::{ClientRequestBuilder, Error, Message as Frame, WebSocket};

use crate::gate::{Heard, PATIENCE, heard, hello};
use crate::papers::Papers;
use crate::{QUICK, start};

/// tungstenite over rustls, as a library would do it.
struct Page(WebSocket<StreamOwned<ClientConnection, TcpStream>>);

impl Page {
    /// Says `first` in the clear, then TLS, then asks for a WebSocket.
    fn open(address: SocketAddr, config: &Arc<ClientConfig>, first: &[u8]) -> Self {
        Self::open_asking(address, config, first, Some(b"http/1.1"))
    }

    /// The same, and asks for this protocol (ALPN).
    fn open_asking(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        first: &[u8],
        protocol: Option<&[u8]>,
    ) -> Self {
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE).expect("connects");
        socket.set_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        socket.write_all(first).expect("sent");
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let uri = format!("wss://localhost:{}/", address.port()).parse().expect("an address");
        let request = ClientRequestBuilder::new(uri).with_sub_protocol("heartwheel.v1");
        let opened = tungstenite::client::client(request, StreamOwned::new(client, socket));
        let (page, _) = opened.expect("it is let in");
        assert_eq!(page.get_ref().conn.alpn_protocol(), protocol);
        Self(page)
    }

    fn hello(&mut self, client: &str) -> Heard {
        self.0.send(Frame::binary(hello(client, "", 0))).expect("it is sent");
        self.hear()
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        self.0.send(Frame::binary(bytes)).expect("it is sent");
    }

    /// The next native message; pings are answered on the way.
    fn hear(&mut self) -> Heard {
        loop {
            match self.0.read() {
                Ok(Frame::Binary(bytes)) => {
                    let mut rest = &bytes[..];
                    let mut deframer = Deframer::client_side();
                    let inbound = deframer.next(&mut rest, 65_535).expect("it speaks well");
                    let Some(Inbound::Message(message)) = inbound else { panic!("{inbound:?}") };
                    return heard(&message);
                }
                Ok(Frame::Close(_)) | Err(Error::ConnectionClosed) => return Heard::Closed,
                Ok(Frame::Ping(_)) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A beat that is answered, and BYE.
fn beat_and_leave(page: &mut Page) {
    page.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
    assert_eq!(page.hear(), Heard::Pong(b"12345678".to_vec()));
    page.say(&Message::Bye { code: 100 });
    assert_eq!(page.hear(), Heard::Closed);
}

#[test]
fn a_websocket_within_tls_comes_beats_and_goes() {
    let papers = Papers::new();
    let gate = start(&papers, &["--websocket", "on", "--tls-only", "on"]);
    for (version, client, protocol) in [
        (&TLS13, "anna", Some(&b"http/1.1"[..])),
        (&TLS12, "bert", Some(b"http/1.1")),
        // What is asked for is for those between: the first byte within decides.
        (&TLS13, "carl", Some(b"heartwheel/1")),
        (&TLS13, "dora", None),
    ] {
        let known = papers.client(&[version], None);
        let mut page = Page::open_asking(gate.address, &known, b"", protocol);
        assert!(matches!(page.hello(client), Heard::Welcome { .. }), "{client}");
        assert_eq!(gate.wait_for_event("online")["client"], client);
        beat_and_leave(&mut page);
        assert_eq!(gate.wait_for_event("offline")["reason"], "bye");
    }
}

/// PROXY, TLS, WebSocket, and a certificate: each says its part, in whichever shard it ends up.
#[test]
fn behind_a_load_balancer_all_layers_are_taken_off_in_every_shard() {
    let papers = Papers::new();
    let ca = papers.path("ca.pem");
    let gate = start(
        &papers,
        &[
            &["--websocket", "on", "--proxy-from", "127.0.0.1", "--shards", "2"][..],
            &["--tls-client-ca", &ca, "--tls-client-name", "id", "--tls-only", "on"],
        ]
        .concat(),
    );
    for number in 0..8_u8 {
        let client = format!("page-{number}");
        papers.issue(&client, &[&client]);
        let known = papers.client(&[&TLS13], Some(&client));
        let header = [
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C"[..],
            &[192, 0, 2, number, 127, 0, 0, 1, 0x12, 0x67, 0x1B, 0x9E],
        ]
        .concat();
        let mut liar = Page::open(gate.address, &known, &header);
        let told = liar.hello("somebody-else");
        assert!(matches!(told, Heard::Goaway { code: 301, .. } | Heard::Error(301)), "{told:?}");
        let mut page = Page::open(gate.address, &known, &header);
        assert!(matches!(page.hello(&client), Heard::Welcome { .. }), "{client}");
        let online = gate.wait_for_event("online");
        assert_eq!(online["client"], client.as_str());
        assert_eq!(online["remote"], format!("192.0.2.{number}:4711"));
        beat_and_leave(&mut page);
    }
}

#[test]
fn the_example_in_python_comes_by_wss() {
    let papers = Papers::new();
    let gate = start(&papers, &["--websocket", "on", "--interval", "300ms", "--timeout", "20s"]);
    let python = |ca: &str| {
        let out = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/websocket.py"))
            .args(["localhost", &gate.address.port().to_string(), "anna", "--ca", ca])
            .stdin(Stdio::null())
            .output()
            .expect("python3 is installed, as the README asks");
        let printed = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        (out.status.success(), printed.into_owned())
    };
    let (is_well, printed) = python(&papers.path("ca.pem"));
    assert!(is_well && printed.contains("answered"), "{printed}");
    assert_eq!(gate.wait_for_event("offline")["reason"], "bye");
    let (is_well, printed) = python(&Papers::new().path("ca.pem"));
    assert!(!is_well && printed.contains("CERTIFICATE_VERIFY_FAILED"), "{printed}");
}

fn load(target: SocketAddr, arguments: &[&str]) -> Command {
    let mut load = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    load.args(["load", "--ws", "--tls", "--target", &target.to_string(), "--interval", "200ms"]);
    load.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    load
}

#[test]
fn the_load_bench_plays_pages_that_came_by_https() {
    let papers = Papers::new();
    let more = ["--min-interval", "200ms", "--websocket", "on", "--tls-only", "on"];
    let gate = start(&papers, &[&QUICK[..], &more].concat());
    let (ca, json) = (papers.path("ca.pem"), papers.path("report.json"));
    let crowd = ["--clients", "60", "--for", "4s", "--silent", "5", "--leave", "5", "--flap", "5"];
    let tls = ["--tls-ca", &ca, "--json", &json];
    let output = load(gate.address, &[&crowd[..], &tls].concat()).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report = std::fs::read(&json).expect("it was written");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["protocol"], "websocket over TLS");
    assert_eq!((&report["connected"], &report["false_offline"]), (&60.into(), &0.into()));
    assert_eq!((&report["fell_silent"], &report["undetected"]), (&5.into(), &0.into()));
}

/// Whoever forwards connections by what is asked for (ALPN) sends these to where HTTP is spoken.
#[test]
fn the_load_bench_asks_for_http_where_it_means_a_websocket() {
    let papers = Papers::new();
    let chain = CertificateDer::from_pem_file(papers.at("gate.pem")).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(papers.at("gate.key")).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a pair");
    config.alpn_protocols = vec![b"heartwheel/1".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = listener.local_addr().expect("an address");
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("somebody comes");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let mut connection = ServerConnection::new(Arc::new(config)).expect("a server");
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).expect("it shakes hands");
        }
        connection.alpn_protocol().map(<[u8]>::to_vec)
    });
    let ca = papers.path("ca.pem");
    let arguments = ["--clients", "1", "--for", "2s", "--tls-ca", &ca];
    let output = load(target, &arguments).output().expect("it starts");
    assert!(!output.status.success(), "nobody was welcomed");
    assert_eq!(server.join().expect("it does not panic"), Some(b"http/1.1".to_vec()));
}
