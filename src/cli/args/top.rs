//! What `top` is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::values::parse_address;

/// `top` as typed.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Keys: q quit, p pause, s sort clients by something else, / filter clients and events by their id

Examples:
  heartwheel top
  heartwheel top --admin 10.0.0.5:7071 --token-file token
  heartwheel top --once --json | jq .beats_per_s")]
pub struct TopArgs {
    /// The gateway's admin API (default: 127.0.0.1:7071)
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub admin: Option<SocketAddr>,
    /// File with its token (default: none)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Only clients and events whose client id contains this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Print one frame as text, and end
    #[arg(long)]
    pub once: bool,
    /// Print it as one JSON object instead
    #[arg(long, requires = "once")]
    pub json: bool,
}
