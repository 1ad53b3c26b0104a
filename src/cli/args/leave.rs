//! What can be typed about asking clients to leave: a drain, a rebalance, the end.

use clap::Args;

use crate::base::time::Span;
use crate::cli::values::{parse_fraction, parse_span, parse_window};

/// How `serve` ends, as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct StoppingArgs {
    /// From SIGTERM to closing whoever is still there (default: 5s)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Stopping")]
    pub drain_timeout: Option<Span>,
    /// From a drain by the admin API to the first word to a client: not ready by then, but letting
    /// in, so that a balancer notices. SIGTERM does not wait (default: 2s)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Stopping")]
    pub drain_notice: Option<Span>,
    /// When drained and refused clients are asked to come back, spread over it (default: 1s..10s)
    #[arg(long, value_name = "MIN..MAX", value_parser = parse_window, help_heading = "Stopping")]
    pub reconnect_window: Option<(Span, Span)>,
}

/// `ctl drain` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The gateway is not ready at once, lets in until the notice is over, and then asks one client after
the other to leave: at the rate given, or else evenly over the time there is. Whoever is still there
in the end is closed. Said again, the shorter time and the faster pace hold.

Examples:
  heartwheel ctl drain --within 30s
  heartwheel ctl drain --per-second 500 --wait
  heartwheel ctl drain --within 0s          everybody, now")]
pub struct CtlDrainArgs {
    /// From now to closing whoever is still there (default: as the gateway was told, or what the
    /// rate takes)
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub within: Option<Span>,
    /// So many clients are asked to leave in a second (default: evenly over the time)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_second: Option<u32>,
    /// Not ready, but letting in, for so long before the first client is asked; at most half of the
    /// time (default: as the gateway was told)
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub notice: Option<Span>,
    /// Wait until the gateway has ended
    #[arg(long)]
    pub wait: bool,
}

/// `ctl rebalance` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each of those online has the same chance of being asked to go elsewhere. The gateway stays ready, so
put those who are asked where they find another one: behind a balancer.

Examples:
  heartwheel ctl rebalance 10%
  heartwheel ctl rebalance 0.25 --per-second 200
  heartwheel ctl rebalance 0              ends one that is under way")]
pub struct CtlRebalanceArgs {
    /// How many: a percentage or a fraction
    #[arg(value_name = "FRACTION", value_parser = parse_fraction)]
    pub parts_per_million: u32,
    /// From now to its end, whoever was asked by then (default: as long as the gateway drains, or
    /// what the rate takes)
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub within: Option<Span>,
    /// So many clients are asked in a second (default: evenly over the time)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_second: Option<u32>,
    /// When they are asked to come back (default: as the gateway was told)
    #[arg(long, value_name = "MIN..MAX", value_parser = parse_window)]
    pub window: Option<(Span, Span)>,
}
