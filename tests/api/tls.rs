//! The admin API by TLS: who is spoken to, who is not, and certificates that are changed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use tempfile::TempDir;

use crate::gate::{Caller, Gate, PATIENCE};
use crate::http::{TOKEN, admin_of, connect};

/// A private authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names, and its key.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "a gateway of tests");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// What a client trusts that knows this authority.
    fn trusted(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let pem = self.pem.as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).expect("PEM")).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("protocols")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// A gateway with TLS, its files, and who vouches for it.
struct Secure {
    gate: Gate,
    admin: SocketAddr,
    folder: TempDir,
    authority: Authority,
}

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

impl Secure {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("there is room for files");
        let authority = Authority::new();
        let path = |name: &str| folder.path().join(name).to_str().expect("plain text").to_owned();
        std::fs::write(path("ca.pem"), &authority.pem).expect("there is room");
        let (certificate, key) = authority.issue(&NAMES);
        std::fs::write(path("cert.pem"), certificate).expect("there is room");
        std::fs::write(path("key.pem"), key).expect("there is room");
        let files = ["--admin-tls-cert", &path("cert.pem"), "--admin-tls-key", &path("key.pem")];
        let words = [&["--admin", "127.0.0.1:0"], &files[..], arguments].concat();
        let gate = Gate::start(&words);
        let admin = admin_of(&gate);
        Self { gate, admin, folder, authority }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("plain text").to_owned()
    }

    /// Gives it a certificate of another key; it is not told yet.
    fn renew(&self) {
        let (certificate, key) = self.authority.issue(&NAMES);
        std::fs::write(self.path("cert.pem"), certificate).expect("there is room");
        std::fs::write(self.path("key.pem"), key).expect("there is room");
    }

    fn connect(&self, versions: &[&'static SupportedProtocolVersion]) -> Talk {
        Talk::new(self.admin, self.authority.trusted(versions))
    }

    fn get(&self, path: &str, line: &str) -> String {
        let mut talk = self.connect(ALL_VERSIONS);
        talk.ask(path, &format!("Connection: close\r\n{line}"));
        talk.rest()
    }

    fn ctl(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts")
    }
}

/// A conversation by TLS.
struct Talk {
    stream: StreamOwned<ClientConnection, TcpStream>,
    admin: SocketAddr,
    heard: String,
}

impl Talk {
    fn new(admin: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(config, name).expect("a client");
        let stream = StreamOwned::new(connection, connect(admin));
        Self { stream, admin, heard: String::new() }
    }

    fn ask(&mut self, path: &str, lines: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", self.admin);
        self.stream.write_all(head.as_bytes()).expect("it is trusted, and listens");
    }

    /// Reads until this was said.
    fn until(&mut self, text: &str) {
        while !self.heard.contains(text) {
            let mut bytes = [0; 4_096];
            let count = self.stream.read(&mut bytes).expect("it goes on");
            assert!(count > 0, "it ended without {text:?}: {}", self.heard);
            self.heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("it ends as it should");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn certificate(&self) -> Vec<u8> {
        let chain = self.stream.conn.peer_certificates().expect("it was shown");
        chain[0].to_vec()
    }
}

#[test]
fn it_speaks_tls_of_two_versions_and_nothing_in_the_clear() {
    let secure = Secure::start(&[]);
    for (wanted, name) in [(&version::TLS12, "1.2"), (&version::TLS13, "1.3")] {
        let mut talk = secure.connect(&[wanted]);
        talk.ask("/v1/stats", "Connection: close\r\n");
        assert!(talk.rest().starts_with("HTTP/1.1 200"), "TLS {name}");
    }
    let mut plain = connect(secure.admin);
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it listens");
    let mut heard = Vec::new();
    // What comes is an alert, or a reset where more was sent than it has read.
    let _ = plain.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&heard));
    // Its own page comes by https, and one in the clear is another one's.
    let admin = secure.admin;
    let own = secure.get("/v1/stats", &format!("Origin: https://{admin}\r\n"));
    assert!(own.starts_with("HTTP/1.1 200"), "{own}");
    let other = secure.get("/v1/stats", &format!("Origin: http://{admin}\r\n"));
    assert!(other.starts_with("HTTP/1.1 403"), "{other}");
}

/// What an old client of another making is told.
#[test]
fn openssl_gets_along_and_old_versions_do_not() {
    let secure = Secure::start(&[]);
    let connect = secure.admin.to_string();
    for (version, is_spoken) in
        [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false), ("-tls1", false)]
    {
        let ca = secure.path("ca.pem");
        let words = ["s_client", "-connect", &connect, "-CAfile", &ca, version, "-brief"];
        let output = Command::new("openssl")
            .args(words)
            .args(["-verify_return_error", "-verify_hostname", "localhost"])
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed, as the README asks");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), is_spoken, "{version}: {said}");
        assert_eq!(said.contains("Verification: OK"), is_spoken, "{version}: {said}");
    }
}

/// Whoever says nothing, half a greeting, or a byte now and then, is given up.
#[test]
fn a_handshake_that_does_not_go_on_is_given_up() {
    let secure = Secure::start(&[]);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for dawdles in [false, true] {
        for begun in [&b""[..], &hello[..3], &hello[..]] {
            let mut stream = connect(secure.admin);
            stream.write_all(begun).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_millis(500))).expect("not zero");
            let began = Instant::now();
            loop {
                assert!(began.elapsed() < PATIENCE, "{begun:?} is waited for");
                match stream.read(&mut [0; 64]) {
                    Ok(0) => break,
                    // An alert comes before the end.
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if dawdles && stream.write_all(&[0]).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    }
    let answer = secure.get("/healthz", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_certificate_is_changed_and_nobody_is_dropped() {
    let mut secure = Secure::start(&[]);
    let mut follower = secure.connect(ALL_VERSIONS);
    follower.ask("/v1/events", "");
    follower.until("HTTP/1.1 200");
    let old = follower.certificate();
    // A file that is no use leaves the old one, and everything else as it is.
    std::fs::write(secure.path("key.pem"), "nothing").expect("there is room");
    secure.gate.signal("HUP");
    let line = secure.gate.wait_for_log("not reloaded, nothing changed: admin-tls-key: ");
    assert!(line.contains("has no private key; expected PEM text"), "{line}");
    let mut between = secure.connect(ALL_VERSIONS);
    between.ask("/healthz", "");
    between.until("HTTP/1.1 200");
    assert_eq!(between.certificate(), old);

    secure.renew();
    secure.gate.signal("HUP");
    let line = secure.gate.wait_for_log("admin-tls-cert (content) is another certificate now");
    assert!(!line.contains("BEGIN"), "{line}");
    let mut newcomer = secure.connect(ALL_VERSIONS);
    newcomer.ask("/healthz", "");
    newcomer.until("HTTP/1.1 200");
    assert_ne!(newcomer.certificate(), old);
    // Whoever was there goes on, with what it follows and with further questions.
    between.heard.clear();
    between.ask("/healthz", "");
    between.until("HTTP/1.1 200");
    let _anna = Caller::login(secure.gate.address, "anna");
    follower.until("\"client\":\"anna\"");
    // The same files again are no change.
    secure.gate.signal("HUP");
    secure.gate.wait_for_log("reloaded: nothing changed");
}

/// TLS can be begun, and tokens asked for, without a restart.
#[test]
fn tls_begins_with_a_reload() {
    let secure = Secure::start(&[]);
    let file = secure.path("heartwheel.toml");
    std::fs::write(&file, "").expect("there is room");
    let mut gate = Gate::start(&["--admin", "127.0.0.1:0", "--config", &file]);
    let admin = admin_of(&gate);
    assert_eq!(crate::http::get(admin, "/v1/stats").status, 200);
    let (certificate, key) = (secure.path("cert.pem"), secure.path("key.pem"));
    let text = format!("admin-tls-cert = {certificate:?}\nadmin-tls-key = {key:?}\n");
    std::fs::write(&file, text).expect("there is room");
    gate.signal("HUP");
    gate.wait_for_log("admin-tls-cert (content) is another certificate now, was (none)");
    let mut talk = Talk::new(admin, secure.authority.trusted(ALL_VERSIONS));
    talk.ask("/v1/stats", "");
    talk.until("HTTP/1.1 200");
}

#[test]
fn commands_ask_by_https_whom_they_trust_and_nobody_else() {
    let folder = tempfile::tempdir().expect("there is room for a file");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).expect("there is room");
    let token = token.to_str().expect("plain text");
    let secure = Secure::start(&["--admin-token-file", token]);
    let _anna = Caller::login(secure.gate.address, "anna");
    let port = secure.admin.port();
    let (ca, other) = (secure.path("ca.pem"), secure.path("other.pem"));
    std::fs::write(&other, Authority::new().pem).expect("there is room");
    for host in ["localhost", "127.0.0.1"] {
        let place = format!("https://{host}:{port}");
        let trust = ["--admin", &place, "--admin-ca", &ca, "--token-file", token];
        let output = secure.ctl(&[&["ctl"], &trust[..], &["clients"]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("anna"), "{host}: {output:?}");
        let output = secure.ctl(&[&["top", "--once"], &trust[..]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("anna"), "{host}: {output:?}");
    }
    let place = format!("https://localhost:{port}");
    let plain = format!("127.0.0.1:{port}");
    // The same machine by a name that the certificate is not for.
    let unnamed = format!("https://[::ffff:127.0.0.1]:{port}");
    for (words, code, part) in [
        (vec!["--admin", &place, "--admin-ca", &other], 1, "no TLS with the admin API"),
        (vec!["--admin", &unnamed, "--admin-ca", &ca], 1, "no TLS with the admin API"),
        (vec!["--admin", &plain], 1, "broke off"),
        (vec!["--admin", &plain, "--admin-ca", &ca], 2, "expected --admin https://"),
        (vec!["--admin", &place, "--admin-ca", token], 1, "has no certificate of an authority"),
        (vec!["--admin", "https://localhost"], 2, "expected an address and a port"),
    ] {
        let output = secure.ctl(&[&["ctl"], &words[..], &["stats"]].concat());
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {line}");
        assert!(line.contains(part), "{words:?}: {line}");
        assert!(!line.contains(TOKEN) && output.stdout.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn files_of_no_use_are_one_line_at_the_start() {
    let secure = Secure::start(&[]);
    let (certificate, key) = (secure.path("cert.pem"), secure.path("key.pem"));
    let strange = secure.path("strange.pem");
    std::fs::write(&strange, secure.authority.issue(&NAMES).1).expect("there is room");
    let none = secure.path("none.pem");
    for (words, code, part) in [
        (vec!["--admin-tls-cert", &certificate], 2, "stands without admin-tls-key"),
        (vec!["--admin-tls-key", &key], 2, "stands without admin-tls-cert"),
        (
            vec!["--admin-tls-cert", &none, "--admin-tls-key", &key],
            1,
            "admin-tls-cert: cannot read",
        ),
        (vec!["--admin-tls-cert", &certificate, "--admin-tls-key", &none], 1, "admin-tls-key: can"),
        (vec!["--admin-tls-cert", &key, "--admin-tls-key", &key], 1, "has no certificate"),
        (vec!["--admin-tls-cert", &certificate, "--admin-tls-key", &certificate], 1, "no private"),
        (
            vec!["--admin-tls-cert", &certificate, "--admin-tls-key", &strange],
            1,
            "does not go with",
        ),
        (vec!["--admin-cors", "*"], 2, "expected an origin as a browser says it"),
        (
            vec!["--admin-cors", "https://ops.example/page"],
            2,
            "expected an origin as a browser says it",
        ),
    ] {
        for command in ["serve", "check-config"] {
            let admin = ["--listen", "127.0.0.1:0", "--log-level", "error", "--admin", "[::1]:0"];
            let output = secure.ctl(&[&[command], &admin[..], &words[..]].concat());
            let line = String::from_utf8_lossy(&output.stderr).into_owned();
            // Whoever only looks says of every mistake that it is one.
            let code = if command == "serve" { code } else { 2 };
            assert_eq!(output.status.code(), Some(code), "{words:?}: {line}");
            assert_eq!(line.lines().count(), 1, "{words:?}: {line}");
            assert!(line.contains(part), "{words:?}: {line}");
        }
    }
    let off =
        ["serve", "--admin", "off", "--admin-tls-cert", &certificate, "--admin-tls-key", &key];
    let line = String::from_utf8_lossy(&secure.ctl(&off).stderr).into_owned();
    assert!(line.contains("but admin is off"), "{line}");
}

#[test]
fn beyond_this_machine_without_tls_there_is_one_warning() {
    let secure = Secure::start(&[]);
    let token = secure.path("token");
    std::fs::write(&token, TOKEN).expect("there is room");
    let (certificate, key) = (secure.path("cert.pem"), secure.path("key.pem"));
    let open = ["--admin", "0.0.0.0:0", "--admin-token-file", &token];
    let tls = ["--admin-tls-cert", &certificate, "--admin-tls-key", &key];
    for (words, expected) in [(open.to_vec(), 1), ([&open[..], &tls[..]].concat(), 0)] {
        let mut gate = Gate::start(&words);
        let logs = gate.take_logs();
        let warnings = logs.iter().filter(|line| line.contains("without TLS: tokens can be"));
        assert_eq!(warnings.count(), expected, "{logs:#?}");
    }
}
