//! What clients speak, and who speaks for them.

use clap::Args;

use crate::cli::args::tls::TlsArgs;
use crate::layers::terms::Networks;

/// What is between a client's frames and its connection.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeArgs {
    /// Load balancers that begin each connection with a PROXY header (version 1 or 2) and are
    /// believed: addresses or networks with commas between them. A header from anybody else, or
    /// none from them, closes the connection (default: none)
    #[arg(long, value_name = "NETWORKS", help_heading = "Edge")]
    pub proxy_from: Option<Networks>,
    /// With what TLS is served.
    #[command(flatten)]
    pub tls: TlsArgs,
}
