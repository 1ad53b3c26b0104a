//! TLS for clients, as an operator says it: files, and who has to show what.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::base::limits;
use crate::cli::args::Switch;
use crate::cli::args::tls::{ClientCert, ClientName, DialArgs, TlsArgs};
use crate::cli::error::CliError;
use crate::layers::certificate;
use crate::layers::tls::{Clients, Dial, Files, Serve, TlsError};
use crate::os::file::read_at_most;

/// With what TLS is served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsOptions {
    /// File with our certificate.
    pub cert: PathBuf,
    /// File with its key.
    pub key: PathBuf,
    /// Whether whoever does not speak TLS is sent away.
    pub only: bool,
    /// Whose certificates clients show.
    pub clients: Option<ClientCerts>,
}

/// Whose certificates clients show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCerts {
    /// File with the authorities.
    pub ca: PathBuf,
    /// File with what they have revoked.
    pub crl: Option<PathBuf>,
    /// Whether they have to.
    pub cert: ClientCert,
    /// What the names in them are.
    pub name: ClientName,
}

/// What was read of the files; what they hold is told by no one.
pub struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

impl TlsOptions {
    /// What was typed, as meant; `None`: no TLS.
    ///
    /// # Errors
    /// When one thing is missing beside another.
    pub fn new(args: &TlsArgs) -> Result<Option<Self>, CliError> {
        let missing = |key, wants, with| {
            let text = format!("{key} needs {wants}, and there is none; add {wants} with {with}");
            Err(CliError::usage(text))
        };
        let pem = "a file in PEM";
        let only = args.tls_only == Some(Switch::On);
        let (cert, key) = match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (Some(_), None) => return missing("tls-cert", "tls-key", pem),
            (None, Some(_)) => return missing("tls-key", "tls-cert", pem),
            (None, None) if only => return missing("tls-only", "tls-cert", pem),
            (None, None) if args.tls_client_ca.is_some() => {
                return missing("tls-client-ca", "tls-cert", pem);
            }
            (None, None) => (PathBuf::new(), PathBuf::new()),
        };
        let Some(ca) = args.tls_client_ca.clone() else {
            if args.tls_crl.is_some() {
                return missing("tls-crl", "tls-client-ca", pem);
            }
            if args.tls_client_cert.is_some() {
                return missing("tls-client-cert", "tls-client-ca", pem);
            }
            if args.tls_client_name == Some(ClientName::Id) {
                return missing("tls-client-name", "tls-client-ca", pem);
            }
            let is_on = args.tls_cert.is_some();
            return Ok(is_on.then_some(Self { cert, key, only, clients: None }));
        };
        let clients = ClientCerts {
            ca,
            crl: args.tls_crl.clone(),
            cert: args.tls_client_cert.unwrap_or(ClientCert::Required),
            name: args.tls_client_name.unwrap_or_default(),
        };
        Ok(Some(Self { cert, key, only, clients: Some(clients) }))
    }

    /// Whether the name in a client's certificate is its id.
    pub fn has_certified_ids(&self) -> bool {
        self.clients.as_ref().is_some_and(|clients| clients.name == ClientName::Id)
    }

    /// Whether nobody comes in without a certificate whose name is its id.
    pub fn certifies_everybody(&self) -> bool {
        let is_required = |clients: &ClientCerts| clients.cert == ClientCert::Required;
        self.only && self.has_certified_ids() && self.clients.as_ref().is_some_and(is_required)
    }

    /// What an operator may have overlooked; `is_proven`: others prove their ids in another way.
    pub fn warning(&self, is_proven: bool) -> Option<String> {
        let is_open = self.has_certified_ids() && !self.certifies_everybody() && !is_proven;
        is_open.then(|| {
            "tls-client-name binds those who show a certificate, and others may come without one; \
             tls-only and tls-client-cert = \"required\" leave nobody out, and identity asks the \
             others for a token"
                .to_owned()
        })
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<Contents, CliError> {
        let most = limits::TLS_FILE_BYTES_MAX;
        let ca = self.clients.as_ref().map(|clients| read("tls-client-ca", &clients.ca, most));
        let crl = self.clients.as_ref().and_then(|clients| clients.crl.as_deref());
        let crl = crl.map(|crl| read("tls-crl", crl, limits::TLS_CRL_BYTES_MAX));
        Ok(Contents {
            cert: read("tls-cert", &self.cert, most)?,
            key: read("tls-key", &self.key, most)?,
            ca: ca.transpose()?,
            crl: crl.transpose()?,
        })
    }

    /// TLS with what was read.
    ///
    /// # Errors
    /// When that is not what it should be.
    pub fn serve(&self, read: &Contents) -> Result<Serve, CliError> {
        let clients = match (&read.ca, &self.clients) {
            (Some(authorities), Some(clients)) => {
                let are_required = clients.cert == ClientCert::Required;
                Some(Clients { authorities, revoked: read.crl.as_deref(), are_required })
            }
            (Some(_), None) | (None, _) => None,
        };
        let files = Files { certificates: &read.cert, key: &read.key, clients };
        Serve::new(files).map_err(|error| self.refusal(&error))
    }

    fn refusal(&self, error: &TlsError) -> CliError {
        let (cert, key) = (self.cert.display(), self.key.display());
        let clients = self.clients.as_ref();
        let ca = clients.map(|clients| clients.ca.clone()).unwrap_or_default();
        let crl = clients.and_then(|clients| clients.crl.clone()).unwrap_or_default();
        let (ca, crl) = (ca.display(), crl.display());
        CliError::machine(match error {
            TlsError::Certificate(error) => format!("tls-cert {cert} {error}"),
            TlsError::Key(error) => format!("tls-key {key} {error}"),
            TlsError::Authorities(error) => format!("tls-client-ca {ca} {error}"),
            TlsError::Authority(_) | TlsError::NoAuthority => format!(
                "tls-client-ca {ca} holds a certificate that is no authority's; expected those \
                 that have signed the clients'"
            ),
            TlsError::Lists(error) => format!("tls-crl {crl} {error}"),
            TlsError::List(error) => format!(
                "tls-crl {crl} holds a list that cannot be read ({error}); expected whole lists, \
                 as openssl ca -gencrl makes them"
            ),
            TlsError::Pair(error) => format!(
                "tls-key {key} is not the key of tls-cert {cert} ({error}); expected a pair, our \
                 certificate first in its file"
            ),
            TlsError::Library(_) | TlsError::NoName(_) => error.to_string(),
        })
    }
}

impl Contents {
    /// Tells what was read from other files.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let parts = [Some(&self.cert), Some(&self.key), self.ca.as_ref(), self.crl.as_ref()];
        for part in parts.into_iter().flatten() {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}

/// How those speak TLS that connect to `target` and speak this `protocol` (ALPN) within.
///
/// # Errors
/// When nobody is believed, or the name is none.
pub fn dial(
    args: &DialArgs,
    target: SocketAddr,
    protocol: &[u8],
) -> Result<Option<Dial>, CliError> {
    if !args.tls {
        return Ok(None);
    }
    let name = args.tls_name.clone().unwrap_or_else(|| target.ip().to_string());
    let authorities = match &args.tls_ca {
        None => rustls_native_certs::load_native_certs().certs,
        Some(path) => certificate::certificates(&read("tls-ca", path, limits::TLS_FILE_BYTES_MAX)?)
            .map_err(|error| CliError::machine(format!("tls-ca {} {error}", path.display())))?,
    };
    match Dial::new(authorities, &name) {
        Ok(dial) => Ok(Some(dial.to_speak(protocol))),
        Err(error @ TlsError::NoName(_)) => Err(CliError::usage(format!("tls-name {error}"))),
        Err(error) => {
            let text = format!("{error}; name a file with one behind --tls-ca");
            Err(CliError::machine(text))
        }
    }
}

/// Reads the file that a key names.
fn read(key: &str, path: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    let fails = |cause: io::Error| {
        let path = path.display();
        CliError::machine(format!("{key}: cannot read {path}: {cause}; expected a file in PEM"))
    };
    let bytes = read_at_most(path, most).map_err(fails)?;
    bytes.ok_or_else(|| fails(io::ErrorKind::FileTooLarge.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(path: &str) -> Option<PathBuf> {
        Some(path.into())
    }

    #[test]
    fn what_is_missing_beside_another_is_said() {
        let pair = TlsArgs { tls_cert: some("c"), tls_key: some("k"), ..TlsArgs::default() };
        let none = TlsArgs::default();
        let id = Some(ClientName::Id);
        let required = Some(ClientCert::Required);
        for (args, word) in [
            (TlsArgs { tls_key: None, ..pair.clone() }, "add tls-key"),
            (TlsArgs { tls_cert: None, ..pair.clone() }, "add tls-cert"),
            (TlsArgs { tls_only: Some(Switch::On), ..none.clone() }, "add tls-cert"),
            (TlsArgs { tls_client_ca: some("a"), ..none.clone() }, "add tls-cert"),
            (TlsArgs { tls_crl: some("l"), ..pair.clone() }, "add tls-client-ca"),
            (TlsArgs { tls_client_cert: required, ..pair.clone() }, "add tls-client-ca"),
            (TlsArgs { tls_client_name: id, ..pair.clone() }, "add tls-client-ca"),
        ] {
            let error = TlsOptions::new(&args).expect_err(word).line();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(TlsOptions::new(&none).expect("nothing is wrong"), None);
        let options = TlsOptions::new(&pair).expect("nothing is wrong").expect("TLS");
        assert!(!options.has_certified_ids() && options.clients.is_none());
    }

    #[test]
    fn names_that_not_everybody_has_are_warned_of() {
        let args = TlsArgs {
            tls_cert: some("c"),
            tls_key: some("k"),
            tls_client_ca: some("a"),
            tls_crl: None,
            tls_client_name: Some(ClientName::Id),
            tls_only: Some(Switch::On),
            tls_client_cert: None,
        };
        let options =
            |args: &TlsArgs| TlsOptions::new(args).expect("all is well").expect("there is TLS");
        let warning = |args: &TlsArgs| options(args).warning(false);
        assert_eq!(warning(&args), None, "required is the default");
        assert!(options(&args).certifies_everybody());
        let optional = Some(ClientCert::Optional);
        for open in [
            TlsArgs { tls_client_cert: optional, ..args.clone() },
            TlsArgs { tls_only: None, ..args.clone() },
        ] {
            assert!(warning(&open).is_some());
            assert!(!options(&open).certifies_everybody());
            assert_eq!(options(&open).warning(true), None, "the others have tokens");
        }
        let unnamed = TlsArgs { tls_client_name: None, ..args };
        assert_eq!(warning(&unnamed), None);
        assert!(!options(&unnamed).certifies_everybody());
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_its_key() {
        let error = read("tls-cert", Path::new("/no/such/file"), 9).expect_err("none").line();
        assert!(error.starts_with("tls-cert: cannot read /no/such/file: "), "{error}");
        assert!(read("tls-key", Path::new("/dev/zero"), 9).is_err(), "it never ends");
    }
}
