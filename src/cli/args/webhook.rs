//! The flags of webhooks.

use clap::Args;

use crate::cli::classes::CLASS_DELIMITER;
use crate::cli::webhooks::{WebhookArg, parse_webhook};

/// Webhooks as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct WebhookArgs {
    /// A target to which events are sent in batches, in order and at least once; keys: url,
    /// secret-file, ca-file, streams, topics, batch-max, batch-wait, timeout, retry-max, from
    /// (default: none)
    #[arg(long, value_name = "NAME:KEY=VALUE,...", value_parser = parse_webhook,
        value_delimiter = CLASS_DELIMITER, help_heading = "Output")]
    pub webhook: Vec<WebhookArg>,
}
