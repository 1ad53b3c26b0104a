//! Certificates that were taken back, by an authority that OpenSSL runs.

use std::fs;
use std::process::Command;

use heartwheel::wire::message::{Message, Reply};
use rustls::version::{TLS12, TLS13};

use crate::gate::{Gate, Heard};
use crate::papers::Papers;
use crate::secured::Secured;
use crate::start;

/// How `openssl ca` keeps its books.
const BOOKS: &str = "
[ca]
default_ca = fleet
[fleet]
database = index
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = fleet.pem
private_key = fleet.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = anybody
copy_extensions = copy
x509_extensions = client
[anybody]
commonName = supplied
[client]
extendedKeyUsage = clientAuth
";

/// An authority of OpenSSL's in the folder of `papers`, beside the one that signs for the gateway.
struct Fleet<'p>(&'p Papers);

impl<'p> Fleet<'p> {
    fn new(papers: &'p Papers) -> Self {
        let fleet = Self(papers);
        for (file, text) in [("books", BOOKS), ("index", ""), ("serial", "01"), ("crlnumber", "01")]
        {
            fs::write(papers.at(file), text).expect("there is room");
        }
        fleet.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=fleet -days 30 \
             -addext keyUsage=critical,keyCertSign,cRLSign -keyout fleet.key -out fleet.pem",
        );
        fleet.list("");
        fleet
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.0.at(""))
            .output()
            .expect("openssl is installed");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {told}");
    }

    fn issue(&self, name: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -addext \
             subjectAltName=DNS:{name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!("ca -config books -batch -notext -in {name}.csr -out {name}.pem"));
    }

    fn revoke(&self, name: &str) {
        self.openssl(&format!("ca -config books -revoke {name}.pem"));
    }

    /// Writes what is revoked by now.
    fn list(&self, dates: &str) {
        self.openssl(&format!("ca -config books -gencrl {dates} -out revoked.pem"));
    }

    /// Whether a client with this certificate is let in, in both versions.
    fn is_let_in(&self, gate: &Gate, name: &str) -> bool {
        let are_in = [&TLS13, &TLS12].map(|version| {
            let known = self.0.client(&[version], Some(name));
            let heard = Secured::connect(gate.address, &known).hello(name);
            matches!(heard, Heard::Welcome { .. })
        });
        assert_eq!(are_in[0], are_in[1], "{name}");
        are_in[0]
    }
}

fn reload(gate: &mut Gate) {
    gate.signal("HUP");
    gate.wait_for_log("tls-cert (content)");
}

#[test]
fn whoever_was_revoked_comes_in_no_more_and_nobody_is_dropped() {
    let papers = Papers::new();
    let fleet = Fleet::new(&papers);
    fleet.issue("anna");
    fleet.issue("bert");
    let (ca, crl) = (papers.path("fleet.pem"), papers.path("revoked.pem"));
    let flags = ["--tls-client-ca", &ca, "--tls-crl", &crl, "--tls-client-name", "id"];
    let mut gate = start(&papers, &flags);
    assert!(fleet.is_let_in(&gate, "anna") && fleet.is_let_in(&gate, "bert"));
    let mut before = Secured::login(gate.address, &papers.client(&[&TLS13], Some("anna")), "anna");

    fs::write(papers.at("revoked.pem"), "no list").expect("there is room");
    gate.signal("HUP");
    let line = gate.wait_for_log("nothing changed");
    assert!(line.contains("tls-crl") && line.contains("BEGIN X509 CRL"), "{line}");

    fleet.revoke("anna");
    fleet.list("");
    reload(&mut gate);
    assert!(!fleet.is_let_in(&gate, "anna"), "her certificate was taken back");
    assert!(fleet.is_let_in(&gate, "bert"));
    before.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
    assert_eq!(before.hear(), Heard::Pong(b"12345678".to_vec()), "she is in, and stays");

    fleet.list("-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z");
    reload(&mut gate);
    assert!(!fleet.is_let_in(&gate, "anna"), "an old list still counts");
    assert!(fleet.is_let_in(&gate, "bert"), "and locks out nobody else");
}

#[test]
fn an_authority_without_a_list_is_not_believed() {
    let papers = Papers::new();
    let fleet = Fleet::new(&papers);
    fleet.issue("anna");
    papers.issue("other", &["other"]);
    let both = [papers.at("fleet.pem"), papers.at("ca.pem")]
        .map(|path| fs::read_to_string(path).expect("it is there"));
    fs::write(papers.at("both.pem"), both.concat()).expect("there is room");
    let (ca, crl) = (papers.path("both.pem"), papers.path("revoked.pem"));
    let gate = start(&papers, &["--tls-client-ca", &ca]);
    assert!(fleet.is_let_in(&gate, "anna") && fleet.is_let_in(&gate, "other"));
    let gate = start(&papers, &["--tls-client-ca", &ca, "--tls-crl", &crl]);
    assert!(fleet.is_let_in(&gate, "anna"));
    assert!(!fleet.is_let_in(&gate, "other"), "its authority's list was forgotten");
}

#[test]
fn a_list_that_is_none_ends_the_start_with_one_line() {
    let papers = Papers::new();
    let garbled = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    fs::write(papers.at("garbled.pem"), garbled).expect("there is room");
    let (ca, garbled) = (papers.path("ca.pem"), papers.path("garbled.pem"));
    for (flags, words) in [
        (vec!["--tls-crl", &ca], "tls-crl needs tls-client-ca"),
        (vec!["--tls-client-ca", &ca, "--tls-crl", "/no/file"], "tls-crl: cannot read /no/file"),
        (vec!["--tls-client-ca", &ca, "--tls-crl", &ca], "holds no list of revoked certificates"),
        (vec!["--tls-client-ca", &ca, "--tls-crl", &garbled], "a list that cannot be read"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off"])
            .args(papers.flags())
            .args(&flags)
            .output()
            .expect("the binary starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{flags:?}");
        let lines: Vec<&str> = told.lines().filter(|line| line.contains("tls-crl")).collect();
        assert_eq!(lines.len(), 1, "{flags:?}: {told}");
        assert!(lines[0].contains(words), "{flags:?}: {told}");
    }
}
