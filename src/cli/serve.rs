//! `serve`: the gateway as a program.

use std::fs;
use std::net::SocketAddr;

use clap::ArgMatches;

use crate::base::limits;
use crate::base::time::Span;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::layers;
use crate::control::events::{EventWriter, EventsTarget, Identity};
use crate::control::log;
use crate::control::side::Outcome;

/// Longest that the end of the program waits for the log to be written.
const LOG_PATIENCE: Span = Span::from_secs(1);
/// A node's name where neither the operator nor the machine knows one.
const NODE_UNKNOWN: &str = "heartwheel";

/// Runs `serve` with what was typed as `flags`, until it is told to stop.
pub fn run(flags: &ArgMatches) -> Result<(), CliError> {
    let args = layers::join(flags, |name| std::env::var_os(name))?;
    let options = ServeOptions::new(&args)?;
    let log = log::start(options.log_format, options.log_level)
        .map_err(|error| CliError::machine(error.to_string()))?;
    let outcome = serve(&options);
    log.flush(LOG_PATIENCE);
    outcome
}

/// Runs a gateway as `options` say, until a signal ends it.
pub fn serve(options: &ServeOptions) -> Result<(), CliError> {
    let identity = Identity { node: node_name(options), boot: 0 };
    let _writer = open_events(&options.events, identity)?;
    Err(CliError::machine("serve is not part of this build"))
}

/// The name under which this node speaks: the one given, or the host's.
fn node_name(options: &ServeOptions) -> String {
    if let Some(name) = &options.node {
        return name.clone();
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let speakable = (1..=limits::NODE_BYTES_MAX).contains(&host.len());
    if speakable && !host.chars().any(char::is_control) {
        host.to_owned()
    } else {
        NODE_UNKNOWN.to_owned()
    }
}

/// Opens the feed of events, or says why it cannot be.
fn open_events(target: &EventsTarget, identity: Identity) -> Result<EventWriter, CliError> {
    EventWriter::new(target, identity).map_err(|cause| match target {
        EventsTarget::File(path) => CliError::FileUnwritable { path: path.clone(), cause },
        EventsTarget::Stdout | EventsTarget::Nowhere => CliError::Stdout { cause },
    })
}

/// The line that says that clients can come. `address` is the one that was bound, with its port.
pub fn ready_line(options: &ServeOptions, address: SocketAddr) -> String {
    let gateway = &options.gateway;
    format!(
        "listening on {address} (a beat every {}, dead after {}, at most {} connections, events to \
         {})",
        gateway.rhythm.interval, gateway.rhythm.timeout, gateway.connections_max, options.events,
    )
}

/// What the side thread's end means for the exit code. `None`: it did not end in time.
pub fn events_outcome(target: &EventsTarget, outcome: Option<Outcome>) -> Result<(), CliError> {
    match outcome {
        Some(Outcome::Complete) => Ok(()),
        Some(Outcome::Unwritten { records, cause }) => Err(CliError::EventsLost {
            records: records as u64,
            target: target.to_string(),
            cause: cause.to_string(),
        }),
        None => Err(CliError::machine(format!(
            "{target} takes no more events; the last ones are lost with this process"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::ServeArgs;

    fn options() -> ServeOptions {
        ServeOptions::new(&ServeArgs::default()).expect("the defaults are fine")
    }

    #[test]
    fn the_ready_line_tells_the_bound_port_and_the_rhythm() {
        let address = SocketAddr::from(([127, 0, 0, 1], 45_678));
        assert_eq!(
            ready_line(&options(), address),
            "listening on 127.0.0.1:45678 (a beat every 15s, dead after 35s, at most 1000000 \
             connections, events to nowhere)"
        );
    }

    #[test]
    fn a_node_is_called_as_told_or_like_its_host() {
        let mut options = options();
        let host = node_name(&options);
        assert!((1..=limits::NODE_BYTES_MAX).contains(&host.len()), "{host}");
        options.node = Some("north".to_owned());
        assert_eq!(node_name(&options), "north");
    }

    #[test]
    fn lost_events_are_a_failure_and_their_number_is_told() {
        let target = EventsTarget::Stdout;
        assert!(events_outcome(&target, Some(Outcome::Complete)).is_ok());
        let cause = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let lost = events_outcome(&target, Some(Outcome::Unwritten { records: 3, cause }));
        let line = lost.expect_err("three are lost").line();
        assert!(line.starts_with("3 events could not be written to standard output: "), "{line}");
        assert!(events_outcome(&target, None).is_err());
    }

    #[test]
    fn a_target_that_cannot_be_opened_is_named() {
        let identity = Identity { node: "north".to_owned(), boot: 1 };
        let target = EventsTarget::File("/nowhere/at/all".into());
        let line = open_events(&target, identity).err().expect("no such directory").line();
        assert!(line.starts_with("cannot write /nowhere/at/all: "), "{line}");
    }
}
