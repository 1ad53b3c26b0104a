//! Who vouches for a target that is reached by TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::base::limits;
use crate::control::webhook::target::{Scheme, Target};
use crate::layers::certificate;
use crate::os::file::read_at_most;

/// What a target's certificate is checked with.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    /// What was in the file; empty: the machine's authorities count.
    authorities: Vec<u8>,
}

/// Why there is nobody who could vouch.
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
    /// It is not what it should be.
    #[error(
        "{} has no certificate of an authority; expected PEM text of at most {} bytes that begins \
         with -----BEGIN CERTIFICATE-----",
        path.display(),
        limits::WEBHOOK_CA_BYTES_MAX
    )]
    NoAuthority {
        /// Which file.
        path: PathBuf,
    },
    /// The machine has none.
    #[error("this machine has no certificates of authorities; install them, or name a ca-file")]
    NoMachineAuthority,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("authorities_bytes", &self.authorities.len()).finish()
    }
}

impl Tls {
    /// What the target needs; `None` where nothing is encrypted.
    pub(crate) fn for_target(target: &Target) -> Result<Option<Self>, TlsError> {
        match target.url.scheme {
            Scheme::Http => Ok(None),
            Scheme::Https => Self::by(target.ca_file.as_deref()).map(Some),
        }
    }

    /// The authorities in this file may vouch; `None`: those of this machine.
    pub(crate) fn by(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let (roots, authorities) = match ca_file {
            Some(path) => {
                let authorities = read(path)?;
                (roots_of(path, &authorities)?, authorities)
            }
            None => {
                let roots = roots_of_machine()?;
                let keys = roots.roots.iter().map(|root| root.subject_public_key_info.as_ref());
                let authorities = keys.flatten().copied().collect();
                (roots, authorities)
            }
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has what its protocols need")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), authorities })
    }

    /// What was in the file, or the keys of those of this machine: differs where others count.
    pub(crate) fn authorities(&self) -> &[u8] {
        &self.authorities
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |cause| TlsError::Unreadable { path: path.to_owned(), cause };
    let bytes = read_at_most(path, limits::WEBHOOK_CA_BYTES_MAX).map_err(unreadable)?;
    bytes.ok_or_else(|| TlsError::NoAuthority { path: path.to_owned() })
}

fn roots_of(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let none = || TlsError::NoAuthority { path: path.to_owned() };
    for certificate in certificate::certificates(pem).map_err(|_| none())? {
        roots.add(certificate).map_err(|_| none())?;
    }
    Ok(roots)
}

fn roots_of_machine() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(TlsError::NoMachineAuthority) } else { Ok(roots) }
}
