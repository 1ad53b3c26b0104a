//! What `top` is told.

use clap::Args;

use crate::cli::args::admin::GatewayArgs;

/// `top` as typed.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Keys: q quit, p pause, s sort clients by something else, / filter clients and events by their id

Examples:
  heartwheel top
  heartwheel top --admin https://gate-1.example:7071 --token-file token
  heartwheel top --once --json | jq .beats_per_s")]
pub struct TopArgs {
    /// Which gateway.
    #[command(flatten)]
    pub gateway: GatewayArgs,
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
