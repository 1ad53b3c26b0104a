//! The flags that say who is asked about tokens.

use std::path::PathBuf;

use clap::Args;

use crate::base::time::Span;
use crate::cli::values::{ValueError, parse_span};
use crate::control::webhook::target::TargetUrl;

/// Who is asked about tokens, as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct HookArgs {
    /// Who is asked about each token, with identity hook: 200 or 204 is yes, 401, 403 or 404 is no
    /// (default: nobody)
    #[arg(long, value_name = "URL", value_parser = parse_url, help_heading = "Identity")]
    pub identity_url: Option<TargetUrl>,
    /// File with the key with which questions are signed, as webhooks are (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub identity_secret_file: Option<PathBuf>,
    /// PEM file of the authorities that may vouch for whoever is asked (default: those of the
    /// machine)
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub identity_ca_file: Option<PathBuf>,
    /// How long an answer may take, less than handshake-timeout (default: 3s)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Identity")]
    pub identity_timeout: Option<Span>,
    /// How many clients that were proven are remembered (default: 100000)
    #[arg(long, value_name = "N", help_heading = "Identity")]
    pub identity_cache: Option<u32>,
    /// For how long each is remembered; 0s is off (default: 60s)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Identity")]
    pub identity_cache_age: Option<Span>,
}

fn parse_url(text: &str) -> Result<TargetUrl, ValueError> {
    text.parse().map_err(ValueError::WebhookUrl)
}
