//! How the admin API is reached: its certificate, and pages from elsewhere.

use std::path::PathBuf;

use clap::Args;

use crate::base::limits;
use crate::base::origin::{NoOrigin, Origin};
use crate::cli::admin::ADMIN_DEFAULT;
use crate::cli::error::CliError;
use crate::cli::values::parse_gateway;
use crate::control::caller::{Caller, Place};
use crate::control::tls::TlsFiles;
use crate::control::tokens;

/// Between two origins.
const ORIGIN_DELIMITER: char = ',';

/// The door of the admin API, as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct AdminDoorArgs {
    /// File with the certificate by which the admin API is reached by TLS, and those between it and
    /// an authority, in PEM (default: none, in the clear)
    #[arg(long, value_name = "FILE", help_heading = "Admin")]
    pub admin_tls_cert: Option<PathBuf>,
    /// File with its private key, in PEM (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Admin")]
    pub admin_tls_key: Option<PathBuf>,
    /// Origin of pages that may use the admin API though they are served elsewhere: scheme and
    /// host; several with ',' between, or the flag again (default: none)
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin,
        value_delimiter = ORIGIN_DELIMITER, help_heading = "Admin")]
    pub admin_cors: Vec<Origin>,
}

fn parse_origin(text: &str) -> Result<Origin, NoOrigin> {
    text.parse()
}

impl AdminDoorArgs {
    /// Certificate and key, both or none.
    pub fn tls(&self) -> Result<Option<TlsFiles>, CliError> {
        let one = |given, missing| {
            Err(CliError::usage(format!(
                "{given} stands without {missing}; give both, or none of them"
            )))
        };
        match (&self.admin_tls_cert, &self.admin_tls_key) {
            (Some(certificate), Some(key)) => {
                Ok(Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => one("admin-tls-cert", "admin-tls-key"),
            (None, Some(_)) => one("admin-tls-key", "admin-tls-cert"),
        }
    }

    /// Each origin once.
    pub fn origins(&self) -> Result<Vec<Origin>, CliError> {
        let mut origins: Vec<Origin> = Vec::new();
        for origin in &self.admin_cors {
            if !origins.contains(origin) {
                origins.push(origin.clone());
            }
        }
        let (count, max) = (origins.len(), limits::ADMIN_ORIGINS_MAX);
        match count <= max {
            true => Ok(origins),
            false => Err(CliError::usage(format!(
                "admin-cors has {count} origins; expected at most {max}"
            ))),
        }
    }
}

/// The gateway that a command asks, as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct GatewayArgs {
    /// The gateway's admin API, https:// before it where that has TLS (default: 127.0.0.1:7071)
    #[arg(long, value_name = "[https://]ADDR:PORT", value_parser = parse_gateway, global = true)]
    pub admin: Option<Place>,
    /// File with its token (default: none)
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// File of the authorities that may vouch for its certificate, in PEM (default: those of this
    /// machine)
    #[arg(long, value_name = "FILE", global = true)]
    pub admin_ca: Option<PathBuf>,
}

impl GatewayArgs {
    /// One who asks it.
    pub fn caller(&self) -> Result<Caller, CliError> {
        let place = self.admin.clone().unwrap_or_else(|| Place::plain(ADMIN_DEFAULT));
        if self.admin_ca.is_some() && !place.is_encrypted() {
            return Err(CliError::usage(
                "admin-ca vouches for a certificate, but the gateway is asked in the clear; \
                 expected --admin https://ADDR:PORT",
            ));
        }
        let secrets = self.token_file.as_deref().map(tokens::read_tokens).transpose();
        let secrets = secrets.map_err(|error| CliError::machine(error.to_string()))?;
        let token = secrets.map(|secrets| secrets.strongest().to_owned());
        Caller::new(place, token, self.admin_ca.as_deref())
            .map_err(|error| CliError::machine(error.to_string()))
    }
}
