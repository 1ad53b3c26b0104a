//! Certificates for tests, and files that hold them as long as they are needed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// An authority, and in a folder its certificate, ours and our key.
pub(crate) struct Papers {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

impl Papers {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = called("authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, new_key()).expect("an authority");
        let folder = tempfile::tempdir().expect("there is room for files");
        let papers = Self { folder, authority };
        fs::write(papers.at("ca.pem"), papers.authority.pem()).expect("there is room");
        papers.issue("gate", &["localhost", "127.0.0.1"]);
        papers
    }

    /// The authority's own certificate.
    pub(crate) fn authority(&self) -> CertificateDer<'static> {
        self.authority.der().clone()
    }

    /// Signs a certificate for these names, as `FILE.pem` and `FILE.key`.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) {
        let key = new_key();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        // Who is called like its authority is taken for it.
        params.distinguished_name = called(file);
        let certificate = params.signed_by(&key, &self.authority).expect("it signs");
        fs::write(self.at(&format!("{file}.pem")), certificate.pem()).expect("there is room");
        fs::write(self.at(&format!("{file}.key")), key.serialize_pem()).expect("there is room");
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// The flags with which TLS is served.
    pub(crate) fn flags(&self) -> Vec<String> {
        vec![
            format!("--tls-cert={}", self.path("gate.pem")),
            format!("--tls-key={}", self.path("gate.key")),
        ]
    }

    fn of(&self, file: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::from_pem_file(self.at(&format!("{file}.pem"))).expect("PEM");
        let key = PrivateKeyDer::from_pem_file(self.at(&format!("{file}.key"))).expect("PEM");
        (vec![chain], key)
    }

    /// The certificate in a file, as it is seen on the wire.
    pub(crate) fn seen(&self, file: &str) -> CertificateDer<'static> {
        self.of(file).0.remove(0)
    }

    /// What a client of these versions speaks; `shows`: the file of its certificate.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&str>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match shows {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let (chain, key) = self.of(file);
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        })
    }
}
