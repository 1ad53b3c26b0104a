//! `check-config` as typed.

use clap::Args;

use crate::cli::args::ServeArgs;

/// `check-config` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Reads flags, environment and file exactly as serve does, takes no port, makes no file, and says
what each key is in effect and where that was said: a flag, a variable, FILE:LINE, or nowhere, which
is the default. Every mistake has a line on standard error.

Exit codes:
  0 serve would understand this    2 it would not

Examples:
  heartwheel check-config --config /etc/heartwheel.toml && systemctl reload heartwheel
  heartwheel check-config --config heartwheel.toml --json | jq -r '.errors[]'
  heartwheel check-config --example > heartwheel.toml")]
pub struct CheckConfigArgs {
    /// What serve would be told.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Print one JSON object
    #[arg(long, help_heading = "Checking")]
    pub json: bool,
    /// Print a file of all keys with their defaults instead, each explained and commented out
    #[arg(long, help_heading = "Checking", conflicts_with = "json")]
    pub example: bool,
}
