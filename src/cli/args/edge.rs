//! What clients speak, and who speaks for them.

use clap::Args;

use crate::cli::args::{SWITCH, Switch, choice};
use crate::layers::terms::Networks;
use crate::layers::websocket::{Origins, WebPath};

/// What is between a client's frames and its connection.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeArgs {
    /// Load balancers that begin each connection with a PROXY header (version 1 or 2) and are
    /// believed: addresses or networks with commas between them. A header from anybody else, or
    /// none from them, closes the connection (default: none)
    #[arg(long, value_name = "NETWORKS", help_heading = "Edge")]
    pub proxy_from: Option<Networks>,
    /// Whether browsers may connect to the clients' port by WebSocket (default: on)
    #[arg(long, value_name = "on|off", value_parser = choice(&SWITCH), help_heading = "Edge",
        hide_possible_values = true)]
    pub websocket: Option<Switch>,
    /// Web pages that may open a WebSocket: their origins, as browsers say them, with commas
    /// between them, or * for every page there is. Programs that are no browsers say none, and may
    /// (default: none)
    #[arg(long, value_name = "ORIGINS", help_heading = "Edge")]
    pub websocket_origin: Option<Origins>,
    /// Path that a WebSocket has to be asked for at (default: any)
    #[arg(long, value_name = "PATH", help_heading = "Edge")]
    pub websocket_path: Option<WebPath>,
}
