use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::Resumption;
use rustls::{HandshakeKind, SupportedProtocolVersion, version};

use super::{
    Arc, Begin, ClientConfig, ClientConnection, Clients, Dial, Files, Goes, Layer, Read,
    RootCertStore, Serve, ServerName, TlsError, Write, certificate, limits, provider,
};
use crate::base::event::CloseReason;
use crate::base::introduction::Introduction;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// An authority, and a pair of files that it has signed.
struct Papers {
    authority: CertifiedIssuer<'static, KeyPair>,
    certificate: String,
    key: String,
}

impl Papers {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, new_key()).expect("an authority");
        let (certificate, key) = sign(&authority, "localhost");
        Self { authority, certificate, key }
    }

    fn files(&self) -> Files<'_> {
        let (certificates, key) = (self.certificate.as_bytes(), self.key.as_bytes());
        Files { certificates, key, clients: None }
    }

    fn serve(&self) -> Serve {
        Serve::new(self.files()).expect("they are good")
    }

    /// Serves those who show a certificate of the same authority.
    fn serve_known(&self, are_required: bool) -> Serve {
        let authorities = self.authority.pem();
        let authorities = authorities.as_bytes();
        let clients = Some(Clients { authorities, revoked: None, are_required });
        Serve::new(Files { clients, ..self.files() }).expect("they are good")
    }

    /// A client's configuration; `name`: of the certificate that it shows.
    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        name: Option<&str>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (certificate, key) = sign(&self.authority, name);
                let chain = certificate::certificates(certificate.as_bytes()).expect("PEM");
                let key = certificate::private_key(key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        }
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

fn sign(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let key = new_key();
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, authority).expect("it signs");
    (certificate.pem(), key.serialize_pem())
}

/// A gateway's layer, and a client that is nobody's.
struct Wire {
    server: Box<dyn Layer>,
    client: ClientConnection,
    /// Bytes that go over the wire at once.
    step: usize,
    /// What the gateway was told.
    heard: Vec<u8>,
    /// What it has for the client, in TLS.
    down: Vec<u8>,
    goes: Result<Goes, CloseReason>,
}

impl Wire {
    fn new(serve: &Serve, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(config), name).expect("a client");
        Self {
            server: serve.begin(),
            client,
            step: usize::MAX,
            heard: Vec::new(),
            down: Vec::new(),
            goes: Ok(Goes::On),
        }
    }

    fn in_steps_of(mut self, step: usize) -> Self {
        self.step = step;
        self
    }

    /// Everything that one end has for the other is carried over.
    fn settle(&mut self) {
        while self.client.wants_write() || !self.down.is_empty() {
            let mut up = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut up).expect("memory");
            }
            for bytes in up.chunks(self.step) {
                if self.goes == Ok(Goes::On) {
                    self.goes = self.server.take_in(bytes, &mut self.heard, &mut self.down);
                }
            }
            for mut bytes in std::mem::take(&mut self.down).chunks(self.step) {
                while !bytes.is_empty() && self.client.read_tls(&mut bytes).is_ok_and(|n| n > 0) {
                    let _ = self.client.process_new_packets();
                    self.client.set_buffer_limit(None);
                }
            }
        }
    }

    fn shake_hands(mut self) -> Self {
        self.settle();
        assert_eq!(self.goes, Ok(Goes::On));
        assert!(!self.client.is_handshaking() && !self.server.is_costly());
        self
    }

    fn name(&self) -> Option<Box<str>> {
        let mut introduction = Introduction::default();
        self.server.introduce(&mut introduction);
        assert!(introduction.is_encrypted);
        introduction.name
    }
}

#[test]
fn hands_are_shaken_whatever_the_pieces_and_the_version() {
    let papers = Papers::new();
    let serve = papers.serve();
    for version in VERSIONS {
        for step in [1, 7, 1_460, usize::MAX] {
            let config = Arc::new(papers.client(version, None));
            let mut wire = Wire::new(&serve, &config).in_steps_of(step);
            assert!(wire.server.is_costly());
            wire.server.send(b"too early", &mut wire.down);
            assert!(wire.down.is_empty(), "nothing can be said yet");
            wire.client.writer().write_all(b"HELLO").expect("there is room");
            let mut wire = wire.shake_hands();
            wire.server.send(b"WELCOME", &mut wire.down);
            wire.settle();
            assert_eq!(wire.heard, b"HELLO", "{version:?} in steps of {step}");
            let mut heard = [0; 7];
            wire.client.reader().read_exact(&mut heard).expect("it is there");
            assert_eq!(&heard, b"WELCOME", "{version:?} in steps of {step}");
            assert_eq!(wire.name(), None);
        }
    }
}

#[test]
fn large_payloads_arrive_in_order_and_only_once() {
    let papers = Papers::new();
    let serve = papers.serve();
    let large: Vec<u8> =
        (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    for version in VERSIONS {
        let config = Arc::new(papers.client(version, None));
        let mut wire = Wire::new(&serve, &config).in_steps_of(4_096).shake_hands();
        wire.client.set_buffer_limit(None);
        wire.client.writer().write_all(&large).expect("memory");
        wire.settle();
        assert!(wire.heard == large, "{version:?}: {} bytes", wire.heard.len());
        let mut heard = Vec::new();
        for part in large.chunks(16_000) {
            wire.server.send(part, &mut wire.down);
            wire.settle();
            let mut piece = vec![0; part.len()];
            wire.client.reader().read_exact(&mut piece).expect("it is there");
            heard.extend_from_slice(&piece);
        }
        assert!(heard == large, "{version:?}: {} bytes back", heard.len());
        wire.server.send(&large, &mut wire.down);
        assert!(wire.down.len() > large.len(), "all of it is taken at once");
    }
}

#[test]
fn whoever_comes_back_with_a_ticket_is_known_and_who_shows_certificates_is_asked_again() {
    let papers = Papers::new();
    for version in VERSIONS {
        for (serve, name, expected) in [
            (papers.serve(), None, HandshakeKind::Resumed),
            (papers.serve_known(true), Some("mill-7"), HandshakeKind::Full),
        ] {
            let mut config = papers.client(version, name);
            config.resumption = Resumption::in_memory_sessions(4);
            let config = Arc::new(config);
            let first = Wire::new(&serve, &config).shake_hands();
            assert_ne!(first.client.handshake_kind(), Some(HandshakeKind::Resumed));
            let second = Wire::new(&serve, &config).shake_hands();
            assert_eq!(second.client.handshake_kind(), Some(expected), "{version:?} {name:?}");
        }
    }
}

#[test]
fn the_name_in_a_certificate_is_told_and_who_has_to_show_one_and_does_not_is_sent_away() {
    let (papers, others) = (Papers::new(), Papers::new());
    for version in VERSIONS {
        let known = Arc::new(papers.client(version, Some("mill-7")));
        let nobody = Arc::new(papers.client(version, None));
        for are_required in [false, true] {
            let serve = papers.serve_known(are_required);
            let wire = Wire::new(&serve, &known).shake_hands();
            assert_eq!(wire.name().as_deref(), Some("mill-7"));
            let mut wire = Wire::new(&serve, &nobody);
            wire.settle();
            let is_let_in = wire.goes == Ok(Goes::On) && !wire.server.is_costly();
            assert_eq!(is_let_in, !are_required, "{version:?}");
            assert_eq!(wire.name(), None);
        }
        let strange = Wire::new(&others.serve_known(false), &known);
        let mut strange = strange;
        strange.client = {
            let mut config = others.client(version, None);
            let key = sign(&papers.authority, "mill-7");
            let chain = certificate::certificates(key.0.as_bytes()).expect("PEM");
            let key = certificate::private_key(key.1.as_bytes()).expect("PEM");
            let pair =
                rustls::sign::CertifiedKey::from_der(chain, key, &provider()).expect("a pair");
            let resolver = rustls::sign::SingleCertAndKey::from(pair);
            config.client_auth_cert_resolver = Arc::new(resolver);
            let name = ServerName::try_from("localhost").expect("a name");
            ClientConnection::new(Arc::new(config), name).expect("a client")
        };
        strange.settle();
        assert_eq!(strange.goes, Err(CloseReason::BadTls), "another authority's certificate");
    }
}

/// The first byte of a record that says what is wrong.
const ALERT: u8 = 21;

#[test]
fn what_is_no_tls_is_answered_with_an_alert_and_then_with_nothing() {
    let papers = Papers::new();
    let serve = papers.serve();
    for (name, bytes) in [
        ("no handshake", vec![0x16, 3, 1, 0, 4, 1, 0, 0, 0]),
        ("an older version", [&[0x16, 3, 0, 0, 45, 1, 0, 0, 41, 3, 0][..], &[0; 39]].concat()),
        ("data first", vec![0x17, 3, 3, 0, 1, 0]),
        ("a record that is too long", vec![0x16, 3, 3, 0xFF, 0xFF, 0]),
    ] {
        let (mut server, mut up, mut down) = (serve.begin(), Vec::new(), Vec::new());
        let goes = server.take_in(&bytes, &mut up, &mut down);
        assert_eq!((goes, up.len()), (Err(CloseReason::BadTls), 0), "{name}");
        assert_eq!(down.first(), Some(&ALERT), "{name}");
        down.clear();
        server.send(b"GOAWAY", &mut down);
        server.finish(&mut down);
        assert_eq!(server.take_in(&bytes, &mut up, &mut down), Err(CloseReason::BadTls));
        assert!(down.is_empty() && up.is_empty(), "{name}");
    }
}

#[test]
fn a_record_that_was_changed_on_its_way_ends_it_behind_what_came_before() {
    let papers = Papers::new();
    let serve = papers.serve();
    for version in VERSIONS {
        let config = Arc::new(papers.client(version, None));
        let mut wire = Wire::new(&serve, &config).shake_hands();
        let mut bytes = Vec::new();
        for word in [&b"good"[..], b"evil"] {
            wire.client.writer().write_all(word).expect("there is room");
            wire.client.write_tls(&mut bytes).expect("memory");
        }
        *bytes.last_mut().expect("there are some") ^= 1;
        let goes = wire.server.take_in(&bytes, &mut wire.heard, &mut wire.down);
        assert_eq!(goes, Err(CloseReason::BadTls));
        assert_eq!(wire.heard, b"good");
        assert!(!wire.down.is_empty(), "it is told");
    }
}

#[test]
fn the_end_is_said_and_heard() {
    let papers = Papers::new();
    let serve = papers.serve();
    for version in VERSIONS {
        let config = Arc::new(papers.client(version, None));
        let mut wire = Wire::new(&serve, &config).shake_hands();
        wire.server.finish(&mut wire.down);
        wire.settle();
        assert_eq!(wire.client.reader().read(&mut [0; 9]).expect("a clean end"), 0);

        let mut wire = Wire::new(&serve, &config).shake_hands();
        wire.client.writer().write_all(b"BYE").expect("there is room");
        wire.client.send_close_notify();
        wire.settle();
        assert_eq!((wire.goes, wire.heard.as_slice()), (Ok(Goes::Over), &b"BYE"[..]));
    }
}

#[test]
fn who_never_comes_to_the_end_of_a_handshake_is_given_no_more_memory() {
    let papers = Papers::new();
    let (mut server, mut down) = (papers.serve().begin(), Vec::new());
    // A ClientHello of 60,000 bytes, in records.
    let mut hello = vec![1, 0, 0xEA, 0x60];
    hello.resize(4 + 60_000, 0);
    let mut taken = 0;
    for fragment in hello.chunks(1_000) {
        let record = [&[0x16, 3, 1, 3, 0xE8][..], fragment].concat();
        taken += record.len();
        if server.take_in(&record, &mut Vec::new(), &mut down).is_err() {
            break;
        }
    }
    assert!(taken <= limits::TLS_HANDSHAKE_BYTES_MAX + 1_005, "{taken} bytes were taken");
    assert!(down.len() < 100, "{} bytes were answered", down.len());
}

#[test]
fn who_changes_keys_again_and_again_is_sent_away() {
    let papers = Papers::new();
    let config = Arc::new(papers.client(&version::TLS13, None));
    let mut wire = Wire::new(&papers.serve(), &config).shake_hands();
    let mut changes = 0;
    while wire.goes == Ok(Goes::On) && changes < 1_000 {
        changes += 1;
        wire.client.refresh_traffic_keys().expect("a client may");
        wire.client.writer().write_all(b"x").expect("there is room");
        wire.settle();
    }
    // Data between two of them is forgiven nothing, or something: both are bounded.
    assert!(wire.down.len() < limits::LAYER_ANSWERS_BYTES_MAX);
    let mut wire = Wire::new(&papers.serve(), &config).shake_hands();
    let mut bytes = Vec::new();
    for _ in 0..1_000 {
        wire.client.refresh_traffic_keys().expect("a client may");
        wire.client.write_tls(&mut bytes).expect("memory");
    }
    let goes = wire.server.take_in(&bytes, &mut wire.heard, &mut wire.down);
    assert_eq!(goes, Err(CloseReason::BadTls));
    assert!(wire.down.len() < 4_096, "{} bytes were answered", wire.down.len());
}

#[test]
fn a_flood_of_tiny_records_is_what_it_says_and_no_more() {
    let papers = Papers::new();
    for version in VERSIONS {
        let config = Arc::new(papers.client(version, None));
        let mut wire = Wire::new(&papers.serve(), &config).shake_hands();
        for round in 1..=50 {
            for _ in 0..200 {
                wire.client.writer().write_all(b"x").expect("there is room");
            }
            wire.settle();
            assert_eq!((wire.goes, wire.heard.len()), (Ok(Goes::On), round * 200), "{version:?}");
            assert!(wire.down.is_empty(), "nothing is answered");
        }
    }
}

#[test]
fn files_that_are_of_no_use_are_refused_in_one_line() {
    let (papers, others) = (Papers::new(), Papers::new());
    let good = papers.files();
    let authorities =
        |authorities| Some(Clients { authorities, revoked: None, are_required: true });
    let mixed = others.key.as_bytes();
    for (files, words) in [
        (Files { certificates: b"", ..good }, "the certificate holds no certificate"),
        (Files { key: b"", ..good }, "the key holds no private key"),
        (Files { key: mixed, ..good }, "certificate and key are of no use together"),
        (Files { clients: authorities(b""), ..good }, "the file of authorities holds no"),
    ] {
        let error = Serve::new(files).err().expect(words).to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{error}");
    }
    assert!(matches!(Dial::new(Vec::new(), "localhost"), Err(TlsError::NoAuthority)));
    assert!(matches!(Dial::new(Vec::new(), "no name"), Err(TlsError::NoName(_))));
}

#[test]
fn who_dials_speaks_first_and_both_understand_each_other() {
    let papers = Papers::new();
    let authorities = vec![papers.authority.der().clone()];
    let dial = Dial::new(authorities, "localhost").expect("an authority");
    let (mut client, mut server) = (dial.begin(), papers.serve().begin());
    let (mut up, mut down, mut to_client, mut to_server) = <(Vec<u8>, Vec<u8>, _, _)>::default();
    client.send(b"HELLO", &mut to_server);
    for _ in 0..4 {
        let bytes = std::mem::take(&mut to_server);
        assert_eq!(server.take_in(&bytes, &mut up, &mut to_client), Ok(Goes::On));
        let bytes: Vec<u8> = std::mem::take(&mut to_client);
        assert_eq!(client.take_in(&bytes, &mut down, &mut to_server), Ok(Goes::On));
    }
    assert!(!client.is_costly() && !server.is_costly());
    server.send(b"WELCOME", &mut to_client);
    client.take_in(&to_client, &mut down, &mut to_server).expect("it goes on");
    assert_eq!((up.as_slice(), down.as_slice()), (&b"HELLO"[..], &b"WELCOME"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_a_peer_sends_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let papers = Papers::new();
        let (mut server, mut up, mut down) = (papers.serve().begin(), Vec::new(), Vec::new());
        let bytes = [&[0x16, 3, 1][..], &bytes].concat();
        let mut is_on = true;
        for piece in bytes.chunks(50) {
            is_on = is_on && server.take_in(piece, &mut up, &mut down).is_ok();
        }
        prop_assert!(up.is_empty() && down.len() < 1_000);
    }
}
