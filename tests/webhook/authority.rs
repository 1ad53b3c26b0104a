//! A private authority, and a server that it vouches for.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The certificate of the one, and what the other needs.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) acceptor: TlsAcceptor,
}

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server_key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(names).expect("names").signed_by(&server_key, &issuer);
    let server = server.expect("a certificate").der().clone();
    let key = PrivateKeyDer::try_from(server_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(vec![server], key)
        .expect("they belong together");
    Authority { pem: certificate.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
}
