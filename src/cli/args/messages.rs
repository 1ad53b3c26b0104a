//! Flags of `serve` on messages for clients.

use clap::Args;

use crate::base::config::{GatewayConfig, QueuePolicy, SlowPolicy};
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::config::within;
use crate::cli::mistakes::Mistakes;
use crate::cli::values::{choice, parse_span};

/// How messages wait for clients, as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct MessageArgs {
    /// Bytes of messages that may wait for one client or be unacknowledged, 64 for each of them
    /// beside its own (default: 262144)
    #[arg(long, value_name = "BYTES", help_heading = "Messages")]
    pub queue_bytes: Option<u32>,
    /// How long a message waits for its client or its ACK, unless it says itself (default: 5m)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Messages")]
    pub queue_ttl: Option<Span>,
    /// What happens to a client whose messages have no more room: the oldest are dropped, the
    /// newest, or the session is closed (default: oldest)
    #[arg(long, value_name = "HOW", value_parser = choice(&POLICIES), help_heading = "Messages")]
    pub slow_policy: Option<SlowPolicy>,
    /// Clients in a second that get a message which is for a group or for all, unless it says
    /// itself (default: 20000)
    #[arg(long, value_name = "N", help_heading = "Messages")]
    pub broadcast_rate: Option<u32>,
}

pub(crate) static POLICIES: [(&str, SlowPolicy); 3] =
    [("oldest", SlowPolicy::Oldest), ("newest", SlowPolicy::Newest), ("close", SlowPolicy::Close)];

impl MessageArgs {
    /// What was typed, as meant; what is `wrong` with it has its default. `payload_bytes_max` is
    /// the largest payload of a frame.
    pub fn apply(
        &self,
        gateway: GatewayConfig,
        payload_bytes_max: u16,
        wrong: &mut Mistakes,
    ) -> GatewayConfig {
        let defaults = QueuePolicy::default();
        // The largest message must fit into an empty queue.
        let bytes_min = usize::from(payload_bytes_max) + limits::LETTER_BYTES;
        let queue = QueuePolicy {
            bytes_max: match self.queue_bytes {
                Some(bytes) => {
                    let most = limits::QUEUE_BYTES_LIMIT;
                    let bytes = within("queue-bytes", bytes as usize, bytes_min, most);
                    wrong.keep(bytes, defaults.bytes_max)
                }
                None => defaults.bytes_max,
            },
            ttl: match self.queue_ttl {
                Some(ttl) => {
                    let ttl =
                        within("queue-ttl", ttl, limits::QUEUE_TTL_MIN, limits::QUEUE_TTL_MAX);
                    wrong.keep(ttl, defaults.ttl)
                }
                None => defaults.ttl,
            },
            slow: self.slow_policy.unwrap_or_default(),
        };
        let broadcast_per_second = match self.broadcast_rate {
            Some(rate) => {
                let rate = within("broadcast-rate", rate, 1, limits::BROADCAST_PER_SECOND_LIMIT);
                wrong.keep(rate, limits::BROADCAST_PER_SECOND_DEFAULT)
            }
            None => limits::BROADCAST_PER_SECOND_DEFAULT,
        };
        GatewayConfig { queue, broadcast_per_second, ..gateway }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::CliError;

    fn applied(args: &MessageArgs, payload_bytes_max: u16) -> Result<GatewayConfig, CliError> {
        let mut wrong = Mistakes::default();
        let gateway = args.apply(GatewayConfig::default(), payload_bytes_max, &mut wrong);
        wrong.or(gateway)
    }

    fn refusal(args: &MessageArgs) -> String {
        applied(args, 512).expect_err("it is out of bounds").line()
    }

    #[test]
    fn what_is_typed_is_meant_and_nothing_typed_are_the_defaults() {
        let nothing = applied(&MessageArgs::default(), u16::MAX);
        assert_eq!(nothing.expect("the defaults are fine").queue, QueuePolicy::default());
        let args = MessageArgs {
            queue_bytes: Some(1_000),
            queue_ttl: Some(Span::from_secs(2)),
            slow_policy: Some(SlowPolicy::Close),
            broadcast_rate: Some(7),
        };
        let gateway = applied(&args, 512).expect("within bounds");
        let queue =
            QueuePolicy { bytes_max: 1_000, ttl: Span::from_secs(2), slow: SlowPolicy::Close };
        assert_eq!((gateway.queue, gateway.broadcast_per_second), (queue, 7));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_what_was_expected() {
        let base = MessageArgs::default;
        for (args, text) in [
            (MessageArgs { queue_bytes: Some(575), ..base() }, "expected 576 to 16777216"),
            (MessageArgs { queue_ttl: Some(Span::ZERO), ..base() }, "queue-ttl 0s is out of"),
            (MessageArgs { broadcast_rate: Some(0), ..base() }, "expected 1 to 10000000"),
        ] {
            let line = refusal(&args);
            assert!(line.contains(text), "{line}");
        }
        let all = MessageArgs {
            queue_bytes: Some(575),
            queue_ttl: Some(Span::ZERO),
            broadcast_rate: Some(0),
            ..base()
        };
        let lines = applied(&all, 512).expect_err("nothing of it is fine").lines();
        assert_eq!(lines.len(), 3, "all at once: {lines:?}");
    }
}
