//! TLS as a client has it, by rustls.
//!
//! What it says differs from run to run, and how long that is does not: keys and signatures are
//! Ed25519, whose length is always the same, certificates have a serial number of a fixed length,
//! and what else is random fills a field of a fixed size. The simulation sees lengths only, so that
//! its worlds follow from their seeds with TLS as well.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use fastrand::Rng;
use heartwheel::layers::terms::Begin;
use heartwheel::layers::tls::{Files, Serve};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SerialNumber,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};

const NAME: &str = "gate.example";

/// What is served, and the authority that vouches for it: made once for all worlds.
struct Papers {
    serve: Arc<Serve>,
    authority: CertificateDer<'static>,
}

fn params(names: Vec<String>, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::new(names).expect("names");
    params.serial_number = Some(SerialNumber::from_slice(&[1, serial]));
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

fn papers() -> &'static Papers {
    static PAPERS: OnceLock<Papers> = OnceLock::new();
    PAPERS.get_or_init(|| {
        let mut own = params(Vec::new(), 1);
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        own.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(own, key()).expect("an authority");
        let key = key();
        let mut gate = params(vec![NAME.to_owned()], 2);
        gate.distinguished_name.push(rcgen::DnType::CommonName, "gate");
        let gate = gate.signed_by(&key, &authority).expect("it signs");
        let (certificates, key) = (gate.pem(), key.serialize_pem());
        let files =
            Files { certificates: certificates.as_bytes(), key: key.as_bytes(), clients: None };
        let serve = Arc::new(Serve::new(files).expect("they fit together"));
        Papers { serve, authority: authority.der().clone() }
    })
}

/// The gateway's side.
pub(super) fn serve() -> Arc<dyn Begin> {
    Arc::clone(&papers().serve) as Arc<dyn Begin>
}

/// The clients of a world that speak TLS.
pub(super) struct Callers {
    configs: [Arc<ClientConfig>; 2],
}

impl Callers {
    /// `come_back`: whether they use the tickets that they were given in the same world.
    pub(super) fn new(come_back: bool) -> Self {
        Self { configs: [&TLS13, &TLS12].map(|version| config(version, come_back)) }
    }

    /// One of them.
    pub(super) fn call(&self, rng: &mut Rng) -> Tls {
        let config = &self.configs[usize::from(rng.u32(0..4) == 0)];
        let name = ServerName::try_from(NAME).expect("a name");
        Tls(ClientConnection::new(Arc::clone(config), name).expect("it begins"))
    }
}

fn config(version: &'static SupportedProtocolVersion, come_back: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(papers().authority.clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = builder.with_no_client_auth();
    if !come_back {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// One client's end.
pub(super) struct Tls(ClientConnection);

impl Tls {
    pub(super) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Says these bytes, in records of any length.
    pub(super) fn say(&mut self, rng: &mut Rng, bytes: &[u8], wire: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = if rng.bool() { rest.len() } else { rng.usize(1..=rest.len()) };
            self.0.writer().write_all(&rest[..count]).expect("there is room");
            self.flush(wire);
            rest = &rest[count..];
        }
    }

    pub(super) fn flush(&mut self, wire: &mut Vec<u8>) {
        while self.0.wants_write() {
            self.0.write_tls(wire).expect("into memory");
        }
    }

    pub(super) fn finish(&mut self, wire: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.flush(wire);
    }

    /// Bytes of the gateway's, and what is in them. Whether they end it.
    pub(super) fn hear(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<bool, rustls::Error> {
        let mut is_over = false;
        while !bytes.is_empty() && !is_over {
            self.0.read_tls(&mut bytes).expect("from memory");
            let state = self.0.process_new_packets()?;
            is_over = state.peer_has_closed();
            let mut read = vec![0; state.plaintext_bytes_to_read()];
            self.0.reader().read_exact(&mut read).expect("it is there");
            plain.extend(read);
        }
        assert!(bytes.is_empty(), "bytes behind the end of TLS");
        Ok(is_over)
    }
}
