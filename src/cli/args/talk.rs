//! Messages of pretend clients.

use clap::Args;

use crate::base::limits;
use crate::base::time::Span;
use crate::cli::values::parse_span;

/// Who of the pretend clients sends messages, and which.
#[derive(Args, Clone, Debug)]
pub struct TalkArgs {
    /// Beat, and send messages that want an ACK; the gateway acknowledges what somebody takes from
    /// it
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub talk: u32,
    /// Bytes of such a message
    #[arg(long, value_name = "BYTES", default_value_t = limits::LOAD_TALK_BYTES_DEFAULT,
        value_parser = clap::value_parser!(u16).range(..=i64::from(limits::LOAD_TALK_BYTES_MAX)),
        requires = "talk", help_heading = "Fates")]
    pub talk_bytes: u16,
    /// From one such message of a client to its next (default: --interval)
    #[arg(long, value_name = "D", value_parser = parse_span, requires = "talk",
        help_heading = "Fates")]
    pub talk_every: Option<Span>,
}
