//! With what TLS is served.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::{SWITCH, Switch};
use crate::cli::values::choice;

/// TLS for clients, as typed.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsArgs {
    /// File with the certificate that clients are shown, and those between it and its authority,
    /// in PEM: TLS 1.3 and 1.2 are spoken on the same port as everything else (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Edge")]
    pub tls_cert: Option<PathBuf>,
    /// File with its key, in PEM (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Edge")]
    pub tls_key: Option<PathBuf>,
    /// Whether whoever does not speak TLS is sent away (default: off)
    #[arg(long, value_name = "on|off", value_parser = choice(&SWITCH), help_heading = "Edge",
        hide_possible_values = true)]
    pub tls_only: Option<Switch>,
    /// File with the authorities whose certificates clients show, in PEM (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Edge")]
    pub tls_client_ca: Option<PathBuf>,
    /// File with lists of the certificates that those authorities have revoked, in PEM; then each
    /// authority needs one (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Edge")]
    pub tls_crl: Option<PathBuf>,
    /// Whether TLS is broken off with who shows none (default: required)
    #[arg(long, value_name = "HOW", value_parser = choice(&CLIENT_CERTS), help_heading = "Edge")]
    pub tls_client_cert: Option<ClientCert>,
    /// What the name in it is: none, or the id of which the client has to be (default: none)
    #[arg(long, value_name = "WHAT", value_parser = choice(&CLIENT_NAMES), help_heading = "Edge")]
    pub tls_client_name: Option<ClientName>,
}

/// TLS to a gateway, as typed.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub struct DialArgs {
    /// Speak TLS
    #[arg(long)]
    pub tls: bool,
    /// File with the authorities that are believed, in PEM (default: the machine's own)
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub tls_ca: Option<PathBuf>,
    /// Name that the gateway's certificate is for (default: the address of --target)
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub tls_name: Option<String>,
}

/// Whether a client shows a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCert {
    /// It may.
    Optional,
    /// It has to.
    Required,
}

/// What the name in a client's certificate is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClientName {
    /// Nothing to us.
    #[default]
    None,
    /// The id of the client.
    Id,
}

/// Whether a client shows a certificate, as words.
pub(crate) static CLIENT_CERTS: [(&str, ClientCert); 2] =
    [("optional", ClientCert::Optional), ("required", ClientCert::Required)];
/// What the name in it is, as words.
pub(crate) static CLIENT_NAMES: [(&str, ClientName); 2] =
    [("none", ClientName::None), ("id", ClientName::Id)];
