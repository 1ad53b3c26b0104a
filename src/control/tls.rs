//! What the admin API shows of itself where it is reached by TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{Error, ServerConfig};

use crate::base::limits;
use crate::layers::certificate;
use crate::os::file::read_at_most;

/// The one protocol spoken within.
const ALPN: &[u8] = b"http/1.1";

/// Where certificate and key are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// The certificate, and those between it and an authority, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM and not encrypted.
    pub key: PathBuf,
}

/// A certificate and its key, ready to be used.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// No two certificates are the same, and each belongs to one key.
    chain: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.chain.len()).finish()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The machine does not let us read it.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the machine said.
        cause: io::Error,
    },
    /// No certificate is in there.
    #[error(
        "{} has no certificate; expected PEM text of at most {} bytes that begins with -----BEGIN \
         CERTIFICATE-----",
        path.display(),
        limits::ADMIN_TLS_BYTES_MAX
    )]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// No key is in there.
    #[error(
        "{} has no private key; expected PEM text that begins with -----BEGIN PRIVATE KEY-----, \
         not encrypted",
        path.display()
    )]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// They are of no use together.
    #[error(
        "the key in {} does not go with the first certificate in {}: {cause}; expected the two \
         that were made together",
        files.key.display(),
        files.certificate.display()
    )]
    Unfit {
        /// Which files.
        files: TlsFiles,
        /// What is wrong.
        cause: Error,
    },
}

impl Tls {
    /// Reads certificate and key, and looks whether they belong together.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let no_certificate = || TlsError::NoCertificate { path: files.certificate.clone() };
        let pem = read_pem(&files.certificate)?.ok_or_else(no_certificate)?;
        let chain = certificate::certificates(&pem).map_err(|_| no_certificate())?;
        let no_key = || TlsError::NoKey { path: files.key.clone() };
        let pem = read_pem(&files.key)?.ok_or_else(no_key)?;
        let key = certificate::private_key(&pem).map_err(|_| no_key())?;
        let unfit = |cause| TlsError::Unfit { files: files.clone(), cause };
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider has what its protocols need")
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key)
                .map_err(unfit)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config), chain })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// The bytes of a file; `None`: there are more than in any that is meant.
fn read_pem(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    let unreadable = |cause| TlsError::Unreadable { path: path.to_owned(), cause };
    read_at_most(path, limits::ADMIN_TLS_BYTES_MAX).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    fn made() -> (String, String) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_read_and_whatever_is_none_is_told_apart() {
        let folder = tempfile::tempdir().expect("there is room for files");
        let path = |name: &str| folder.path().join(name);
        let read = |certificate: &str, key: &str| {
            let files = TlsFiles { certificate: path("certificate"), key: path("key") };
            std::fs::write(&files.certificate, certificate).expect("there is room");
            std::fs::write(&files.key, key).expect("there is room");
            Tls::read(&files)
        };
        let ((certificate, key), (other, other_key)) = (made(), made());
        let ours = read(&certificate, &key).expect("fine");
        assert_eq!(ours, read(&certificate, &key).expect("fine"));
        assert_ne!(ours, read(&other, &other_key).expect("fine"));
        let both = format!("{key}\n{certificate}");
        assert!(read(&both, &both).is_ok(), "one file may have both");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE \
                         KEY-----\n";
        let long = format!("{certificate}{}", "#".repeat(300_000));
        for (certificate, key, expected) in [
            ("", key.as_str(), "has no certificate"),
            (key.as_str(), key.as_str(), "has no certificate"),
            (long.as_str(), key.as_str(), "has no certificate"),
            (certificate.as_str(), "", "has no private key"),
            (certificate.as_str(), certificate.as_str(), "has no private key"),
            (certificate.as_str(), encrypted, "has no private key"),
            (certificate.as_str(), other_key.as_str(), "does not go with"),
        ] {
            let line = read(certificate, key).expect_err("it is not fine").to_string();
            assert!(line.contains(expected), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
        let nowhere = TlsFiles { certificate: path("none"), key: path("none") };
        assert!(matches!(Tls::read(&nowhere), Err(TlsError::Unreadable { .. })));
    }
}
