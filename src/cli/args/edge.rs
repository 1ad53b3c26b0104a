//! What clients speak, and who speaks for them.

use clap::Args;

use crate::base::networks::Networks;
use crate::cli::args::tls::TlsArgs;
use crate::cli::args::{SWITCH, Switch, choice};
use crate::layers::websocket::{Pages, WebPath};

/// What is between a client's frames and its connection.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeArgs {
    /// Load balancers that begin each connection with a PROXY header (version 1 or 2) and are
    /// believed: addresses or networks with commas between them. A header from anybody else, or
    /// none from them, closes the connection (default: none)
    #[arg(long, value_name = "NETWORKS", help_heading = "Edge")]
    pub proxy_from: Option<Networks>,
    /// Whether browsers may connect to the clients' port by WebSocket (default: off, or on where
    /// the keys for its pages or its path are given)
    #[arg(long, value_name = "on|off", value_parser = choice(&SWITCH), help_heading = "Edge",
        hide_possible_values = true)]
    pub websocket: Option<Switch>,
    /// Web pages that may open a WebSocket: their origin, as browsers say it, or * for every page
    /// there is; once for each, or with commas between them. Programs that are no browsers say
    /// none, and may (default: none)
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', help_heading = "Edge")]
    pub websocket_origin: Vec<Pages>,
    /// Path that a WebSocket has to be asked for at (default: any)
    #[arg(long, value_name = "PATH", help_heading = "Edge")]
    pub websocket_path: Option<WebPath>,
    /// With what TLS is served.
    #[command(flatten)]
    pub tls: TlsArgs,
}
