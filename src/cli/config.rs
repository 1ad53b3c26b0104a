//! From what was typed to what is meant: the values that the rooms below receive.
//!
//! Every bound is from `base::limits`, and whatever lies outside is refused in one line that names
//! the key, the value and what was expected.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use crate::base::config::{GatewayConfig, Mode, Preset, Rhythm, TransportEvents, UserTimeout};
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::admin::AdminOptions;
use crate::cli::args::{DemoArgs, Descriptors, DriverChoice, ServeArgs, Switch};
use crate::cli::classes;
use crate::cli::edge::EdgeOptions;
use crate::cli::error::CliError;
use crate::cli::identity::IdentityOptions;
use crate::cli::mistakes::Mistakes;
use crate::cli::tls::TlsOptions;
use crate::cli::values::ShardsArg;
use crate::cli::webhooks::{self, Told};
use crate::control::events::EventsTarget;
use crate::control::journal::JournalOptions;
use crate::control::log::{LogFormat, LogLevel};
use crate::control::webhook::target::Target;
use crate::os::process;

/// Where a gateway listens unless told otherwise: this machine only, until somebody decides.
pub const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7_070);

/// All that `serve` was told.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// What the gateway needs to know, but for what only the machine can say: `epoch_first`,
    /// `hash_key`, `resume_key`, `seed` and `wall` still have their default.
    pub gateway: GatewayConfig,
    /// Whether the number of connections was asked for. If it was not, it is the default, and may
    /// be lowered to what the machine allows.
    pub connections_from: ConnectionsFrom,
    /// The socket that listens.
    pub listener: ListenerOptions,
    /// How long beats wait for each other where many come.
    pub coalesce: Span,
    /// By what means the kernel is asked.
    pub driver: DriverChoice,
    /// How the ring names connections.
    pub descriptors: Descriptors,
    /// Name of this node, if one was given.
    pub node: Option<String>,
    /// How many loops share the clients.
    pub shards: u16,
    /// Where events are written.
    pub events: EventsTarget,
    /// Where events are kept, if they are.
    pub journal: Option<JournalOptions>,
    /// How clients prove their ids. What is in the files is not read yet.
    pub identity: IdentityOptions,
    /// Where the admin API is, and who may use it.
    pub admin: AdminOptions,
    /// Where transport events are written.
    pub transport_events: EventsTarget,
    /// What is between clients' frames and their connections.
    pub edge: EdgeOptions,
    /// Where events are sent in batches.
    pub webhooks: Vec<Target>,
    /// How the log looks.
    pub log_format: LogFormat,
    /// What the log leaves out.
    pub log_level: LogLevel,
}

/// Who chose the number of connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionsFrom {
    /// The operator: less is an error.
    Asked,
    /// Nobody: less is worth a line in the log.
    Default,
}

/// What the listening socket is told; accepted sockets inherit it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenerOptions {
    /// Where to listen. Port 0 lets the machine choose one.
    pub address: SocketAddr,
    /// How TCP probes silent connections, if at all.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`, if it is set at all.
    pub user_timeout: Option<Span>,
}

/// How TCP probes a silent connection. The spans are whole seconds: the kernel counts in them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Span,
    /// Between two probes.
    pub interval: Span,
    /// Unanswered probes before TCP gives up.
    pub count: u32,
}

impl Keepalive {
    /// The probes that fit a rhythm: the first when a beat is missing, the verdict within the
    /// timeout, as far as whole seconds allow.
    pub fn for_rhythm(rhythm: Rhythm) -> Self {
        let idle = rhythm.interval.as_nanos().div_ceil(SECOND.as_nanos()).max(1);
        Self::after_idle(Span::from_secs(idle), rhythm.timeout)
    }

    /// The probes that fit between `idle` and `timeout`. Where not even one does there are as many
    /// as by default, a second apart.
    fn after_idle(idle: Span, timeout: Span) -> Self {
        let rest_secs = timeout.minus(idle).as_nanos() / SECOND.as_nanos();
        let count = match u32::try_from(rest_secs) {
            Ok(0) => limits::KEEPALIVE_COUNT_DEFAULT,
            Ok(secs) => secs.min(limits::KEEPALIVE_COUNT_DEFAULT),
            Err(_) => limits::KEEPALIVE_COUNT_DEFAULT,
        };
        let interval_secs = (rest_secs / u64::from(count)).clamp(1, limits::KEEPALIVE_SECS_MAX);
        Self { idle, interval: Span::from_secs(interval_secs), count }
    }
}

impl ServeOptions {
    /// Checks what was typed, each value for itself and then all together.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn new(args: &ServeArgs) -> Result<Self, CliError> {
        let (options, wrong) = Self::meant(args);
        wrong.or(options)
    }

    /// The same, with all that is wrong beside it. What is wrong has its default.
    pub fn meant(args: &ServeArgs) -> (Self, Mistakes) {
        let mut wrong = Mistakes::default();
        let rhythm = serve_rhythm(args);
        // Against a rhythm that is not meant nothing can be checked.
        let is_rhythm = rhythm.is_ok();
        let rhythm = wrong.keep(rhythm, Preset::Typical.rhythm());
        let mut gateway = gateway_config(args, rhythm, &mut wrong);
        if is_rhythm {
            for line in classes::check_policies((args.probe, args.grace), rhythm, gateway.tick) {
                wrong.add(CliError::usage(line));
            }
            gateway.classes = wrong.keep(classes::meant(&args.class, &gateway), Vec::new());
        }
        let edge = wrong.keep(EdgeOptions::new(&args.edge), EdgeOptions::default());
        gateway.certified_ids = edge.tls.as_ref().is_some_and(TlsOptions::has_certified_ids);
        let options = Self {
            connections_from: match args.max_connections {
                Some(_) => ConnectionsFrom::Asked,
                None => ConnectionsFrom::Default,
            },
            listener: ListenerOptions {
                address: args.listen.unwrap_or(LISTEN_DEFAULT),
                keepalive: wrong.keep(keepalive(args, rhythm), None),
                user_timeout: match gateway.user_timeout {
                    UserTimeout::FollowTimeout => Some(rhythm.timeout),
                    UserTimeout::Fixed(span) => Some(span),
                    UserTimeout::Off => None,
                },
            },
            coalesce: match args.coalesce {
                Some(window) => {
                    let window = within("coalesce", window, Span::ZERO, limits::COALESCE_MAX);
                    wrong.keep(window, limits::COALESCE_DEFAULT)
                }
                None => limits::COALESCE_DEFAULT,
            },
            gateway,
            driver: args.driver.unwrap_or_default(),
            descriptors: wrong.keep(descriptors(args), Descriptors::Auto),
            node: wrong.keep(args.node.as_deref().map(node_name).transpose(), None),
            shards: shards(args.shards),
            events: args.events.clone().unwrap_or_default(),
            journal: wrong.keep(journal(args), None),
            identity: wrong.keep(
                IdentityOptions::new(args, edge.certifies_everybody()),
                IdentityOptions::default(),
            ),
            admin: wrong.keep(AdminOptions::new(args), AdminOptions::nowhere()),
            transport_events: wrong.keep(transport_events(args), EventsTarget::Nowhere),
            edge,
            webhooks: wrong.keep(webhooks::meant(&args.webhooks.webhook, told(args)), Vec::new()),
            log_format: args.log_format.unwrap_or_default(),
            log_level: args.log_level.unwrap_or_default(),
        };
        (options, wrong)
    }
}

fn shards(typed: Option<ShardsArg>) -> u16 {
    match typed {
        None => 1,
        Some(ShardsArg::Count(count)) => count,
        Some(ShardsArg::Auto) => u16::try_from(process::cpu_count())
            .map_or(limits::SHARDS_MAX, |cpus| cpus.clamp(1, limits::SHARDS_MAX)),
    }
}

/// The rhythm of a demo: brisk, unless told otherwise.
pub fn demo_rhythm(args: &DemoArgs) -> Result<Rhythm, CliError> {
    match (args.interval, args.timeout) {
        (None, None) => Ok(Preset::Demanding.rhythm()),
        (interval, timeout) => own_rhythm(interval, timeout),
    }
}

const SECOND: Span = Span::from_secs(1);

fn serve_rhythm(args: &ServeArgs) -> Result<Rhythm, CliError> {
    match (args.preset, args.interval, args.timeout) {
        (None, None, None) => Ok(Preset::Typical.rhythm()),
        (Some(preset), None, None) => Ok(preset.rhythm()),
        (None, interval, timeout) => own_rhythm(interval, timeout),
        (Some(_), _, _) => Err(CliError::usage(
            "preset stands beside interval or timeout; keep the preset, or both of the others",
        )),
    }
}

fn own_rhythm(interval: Option<Span>, timeout: Option<Span>) -> Result<Rhythm, CliError> {
    match (interval, timeout) {
        (Some(interval), Some(timeout)) => {
            Rhythm::new(interval, timeout).map_err(|error| CliError::usage(error.to_string()))
        }
        (Some(interval), None) => Err(CliError::usage(format!(
            "interval {interval} stands without a timeout; give both, such as --interval 5s \
             --timeout 12s"
        ))),
        (None, timeout) => Err(CliError::usage(format!(
            "timeout {} stands without an interval; give both, such as --interval 5s --timeout 12s",
            timeout.unwrap_or_default()
        ))),
    }
}

fn gateway_config(args: &ServeArgs, rhythm: Rhythm, wrong: &mut Mistakes) -> GatewayConfig {
    let defaults = GatewayConfig::default();
    let mut deadline = |key, typed: Option<Span>, min, default| match typed {
        Some(span) => wrong.keep(within(key, span, min, limits::DEADLINE_MAX), default),
        None => default,
    };
    let min = limits::DEADLINE_MIN;
    let handshake_timeout =
        deadline("handshake-timeout", args.handshake_timeout, min, defaults.handshake_timeout);
    let frame_timeout = deadline("frame-timeout", args.frame_timeout, min, defaults.frame_timeout);
    let stopping = &args.stopping;
    let drain_timeout =
        deadline("drain-timeout", stopping.drain_timeout, Span::ZERO, defaults.drain_timeout);
    let drain_notice =
        deadline("drain-notice", stopping.drain_notice, Span::ZERO, defaults.drain_notice);
    let payload_bytes_max = wrong.keep(payload(args.max_payload), defaults.payload_bytes_max);
    let interval_wish_min = interval_wish_min(args.min_interval, rhythm);
    let gateway = GatewayConfig {
        rhythm,
        interval_wish_min: wrong.keep(interval_wish_min, defaults.interval_wish_min),
        mode: args.mode.unwrap_or(Mode::Client),
        probe: args.probe.unwrap_or_default(),
        grace: args.grace.unwrap_or_default(),
        duplicate: args.duplicate.unwrap_or_default(),
        transport_events: match args.transport_events {
            Some(_) => TransportEvents::Told,
            None => TransportEvents::Untold,
        },
        tick: wrong.keep(tick(args.tick, rhythm), limits::TICK_DEFAULT),
        connections_max: wrong.keep(connections(args.max_connections), limits::CONNECTIONS_DEFAULT),
        handshake_timeout,
        frame_timeout,
        drain_timeout,
        drain_notice,
        reconnect_window: match stopping.reconnect_window {
            Some((from, to)) => {
                let until = within("reconnect-window", to, Span::ZERO, limits::DEADLINE_MAX);
                (from, wrong.keep(until, to))
            }
            None => defaults.reconnect_window,
        },
        payload_bytes_max,
        outbox_bytes_max: wrong
            .keep(outbox(args.outbox_bytes, payload_bytes_max), defaults.outbox_bytes_max),
        up_bytes_max: wrong.keep(args.up.bytes(), defaults.up_bytes_max),
        proxies: args.edge.proxy_from.clone().unwrap_or_default(),
        user_timeout: wrong.keep(user_timeout(args.user_timeout), UserTimeout::FollowTimeout),
        ..defaults
    };
    let gateway = args.admission.apply(gateway, payload_bytes_max, wrong);
    args.messages.apply(gateway, payload_bytes_max, wrong)
}

fn connections(typed: Option<u32>) -> Result<u32, CliError> {
    let count = typed.unwrap_or(limits::CONNECTIONS_DEFAULT);
    within("max-connections", count, 1, limits::CONNECTIONS_LIMIT)
}

fn interval_wish_min(typed: Option<Span>, rhythm: Rhythm) -> Result<Span, CliError> {
    match typed {
        Some(span) => within("min-interval", span, limits::INTERVAL_MIN, limits::INTERVAL_MAX),
        None => Ok(limits::INTERVAL_WISH_MIN.min(rhythm.interval)),
    }
}

fn tick(typed: Option<Span>, rhythm: Rhythm) -> Result<Span, CliError> {
    let Some(tick) = typed else { return Ok(limits::TICK_DEFAULT) };
    let tick = within("tick", tick, limits::TICK_MIN, limits::TICK_MAX)?;
    if tick > rhythm.interval {
        return Err(CliError::usage(format!(
            "tick {tick} is longer than interval {}; expected a fraction of it, such as 10ms",
            rhythm.interval
        )));
    }
    Ok(tick)
}

fn payload(typed: Option<u32>) -> Result<u16, CliError> {
    let Some(bytes) = typed else { return Ok(limits::PAYLOAD_BYTES_DEFAULT) };
    // Whatever does not fit into 16 bits is larger than the limit as well.
    let clipped = u16::try_from(bytes).unwrap_or(u16::MAX);
    let (min, max) = (u32::from(limits::PAYLOAD_BYTES_MIN), limits::PAYLOAD_BYTES_LIMIT as u64);
    within("max-payload", u64::from(bytes), u64::from(min), max)?;
    Ok(clipped)
}

fn outbox(typed: Option<u32>, payload_bytes_max: u16) -> Result<usize, CliError> {
    let answer_bytes = limits::FRAME_HEADER_BYTES + limits::PING_BYTES_MAX;
    let min = limits::FRAME_HEADER_BYTES + usize::from(payload_bytes_max) + answer_bytes;
    let bytes = match typed {
        Some(bytes) => bytes as usize,
        None => limits::OUTBOX_BYTES_MAX.max(min),
    };
    within("outbox-bytes", bytes, min, limits::OUTBOX_BYTES_LIMIT)
}

fn user_timeout(typed: Option<UserTimeout>) -> Result<UserTimeout, CliError> {
    match typed.unwrap_or_default() {
        UserTimeout::Fixed(span) => {
            within("user-timeout", span, limits::TIMEOUT_MIN, limits::TIMEOUT_MAX)
                .map(UserTimeout::Fixed)
        }
        other @ (UserTimeout::FollowTimeout | UserTimeout::Off) => Ok(other),
    }
}

fn keepalive(args: &ServeArgs, rhythm: Rhythm) -> Result<Option<Keepalive>, CliError> {
    if args.keepalive == Some(Switch::Off) {
        let finer = [
            ("keepalive-idle", args.keepalive_idle.is_some()),
            ("keepalive-interval", args.keepalive_interval.is_some()),
            ("keepalive-count", args.keepalive_count.is_some()),
        ];
        return match finer.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(CliError::usage(format!(
                "{key} says how to probe, but keepalive is off; leave one of them out"
            ))),
            None => Ok(None),
        };
    }
    let fitting = match args.keepalive_idle {
        Some(idle) => Keepalive::after_idle(whole_secs("keepalive-idle", idle)?, rhythm.timeout),
        None => Keepalive::for_rhythm(rhythm),
    };
    Ok(Some(Keepalive {
        idle: fitting.idle,
        interval: match args.keepalive_interval {
            Some(interval) => whole_secs("keepalive-interval", interval)?,
            None => fitting.interval,
        },
        count: match args.keepalive_count {
            Some(count) => within("keepalive-count", count, 1, limits::KEEPALIVE_COUNT_MAX)?,
            None => fitting.count,
        },
    }))
}

fn whole_secs(key: &str, span: Span) -> Result<Span, CliError> {
    let span = within(key, span, SECOND, Span::from_secs(limits::KEEPALIVE_SECS_MAX))?;
    if span.as_nanos() % SECOND.as_nanos() != 0 {
        return Err(CliError::usage(format!(
            "{key} {span} has a fraction of a second; the kernel counts whole seconds here"
        )));
    }
    Ok(span)
}

fn journal(args: &ServeArgs) -> Result<Option<JournalOptions>, CliError> {
    let Some(folder) = &args.journal else {
        let finer = [
            ("journal-segment-bytes", args.journal_segment_bytes.is_some()),
            ("journal-retain-bytes", args.journal_retain_bytes.is_some()),
        ];
        return match finer.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(CliError::usage(format!(
                "{key} says how to keep a journal, but there is none; add journal with a folder"
            ))),
            None => Ok(None),
        };
    };
    if folder.as_os_str().is_empty() {
        return Err(CliError::usage("journal '' is not a path; expected a folder"));
    }
    let segment_bytes = u64::from(within(
        "journal-segment-bytes",
        args.journal_segment_bytes.unwrap_or(limits::JOURNAL_SEGMENT_BYTES_DEFAULT),
        limits::JOURNAL_SEGMENT_BYTES_MIN,
        limits::JOURNAL_SEGMENT_BYTES_LIMIT,
    )?);
    let retain_min = segment_bytes * limits::JOURNAL_RETAIN_SEGMENTS_MIN;
    let retain_default = limits::JOURNAL_RETAIN_BYTES_DEFAULT.max(retain_min);
    let retain_bytes = within(
        "journal-retain-bytes",
        args.journal_retain_bytes.unwrap_or(retain_default),
        retain_min,
        limits::JOURNAL_RETAIN_BYTES_LIMIT,
    )?;
    Ok(Some(JournalOptions { folder: folder.clone(), segment_bytes, retain_bytes }))
}

/// Each feed has a place of its own: two writers would tear each other's lines.
fn transport_events(args: &ServeArgs) -> Result<EventsTarget, CliError> {
    match &args.transport_events {
        None => Ok(EventsTarget::Nowhere),
        Some(target) if args.events.as_ref() == Some(target) => Err(CliError::usage(format!(
            "events and transport-events both go to {target}; expected a file of its own for one"
        ))),
        Some(target) => Ok(target.clone()),
    }
}

fn told(args: &ServeArgs) -> Told {
    if args.transport_events.is_some() { Told::Told } else { Told::Untold }
}

fn descriptors(args: &ServeArgs) -> Result<Descriptors, CliError> {
    match (args.driver, args.descriptors.unwrap_or_default()) {
        (Some(DriverChoice::Epoll), Descriptors::Direct) => Err(CliError::usage(
            "descriptors direct are slots of a ring, but driver is epoll; leave one of them out",
        )),
        (_, descriptors) => Ok(descriptors),
    }
}

fn node_name(name: &str) -> Result<String, CliError> {
    let fits = (1..=limits::NODE_BYTES_MAX).contains(&name.len());
    if !fits || name.chars().any(char::is_control) {
        return Err(CliError::usage(format!(
            "node '{}' is not a name; expected 1 to {} bytes without control characters",
            name.escape_debug(),
            limits::NODE_BYTES_MAX
        )));
    }
    Ok(name.to_owned())
}

pub(crate) fn within<T: Copy + fmt::Display + PartialOrd>(
    key: &str,
    value: T,
    min: T,
    max: T,
) -> Result<T, CliError> {
    if value < min || value > max {
        return Err(CliError::usage(format!(
            "{key} {value} is out of bounds; expected {min} to {max}"
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::{Duplicate, ProbePolicy};
    use crate::cli::args::StoppingArgs;
    use crate::cli::classes::parse_class;

    const fn secs(secs: u64) -> Span {
        Span::from_secs(secs)
    }

    fn refusal(args: &ServeArgs) -> String {
        ServeOptions::new(args).expect_err("out of bounds").line()
    }

    #[test]
    fn nothing_typed_is_a_complete_configuration() {
        let options = ServeOptions::new(&ServeArgs::default()).expect("the defaults are fine");
        assert_eq!(options.gateway.rhythm, Preset::Typical.rhythm());
        assert_eq!(options.gateway.connections_max, limits::CONNECTIONS_DEFAULT);
        assert_eq!(options.connections_from, ConnectionsFrom::Default);
        assert_eq!(options.listener.address.to_string(), "127.0.0.1:7070");
        assert_eq!(options.listener.user_timeout, Some(secs(35)));
        assert_eq!(options.events, EventsTarget::Nowhere);
    }

    #[test]
    fn help_tells_the_defaults_that_hold() {
        let GatewayConfig {
            tick,
            connections_max,
            handshake_timeout,
            frame_timeout,
            grace,
            drain_timeout,
            drain_notice,
            payload_bytes_max,
            outbox_bytes_max,
            up_bytes_max,
            queue,
            broadcast_per_second,
            reconnect_window: (from, to),
            interval_wish_min,
            ..
        } = ServeOptions::new(&ServeArgs::default()).expect("the defaults are fine").gateway;
        let brief = |span: Span| humantime::format_duration(span.into()).to_string();
        let command = <ServeArgs as clap::Args>::augment_args(clap::Command::new("serve"));
        for (key, shown) in [
            ("listen", LISTEN_DEFAULT.to_string()),
            ("admin", crate::cli::admin::ADMIN_DEFAULT.to_string()),
            ("tick", brief(tick)),
            ("coalesce", brief(limits::COALESCE_DEFAULT)),
            ("max-connections", connections_max.to_string()),
            ("handshake-timeout", brief(handshake_timeout)),
            ("frame-timeout", brief(frame_timeout)),
            ("grace", brief(grace)),
            ("drain-timeout", brief(drain_timeout)),
            ("drain-notice", brief(drain_notice)),
            ("max-payload", payload_bytes_max.to_string()),
            ("outbox-bytes", outbox_bytes_max.to_string()),
            ("up-bytes", up_bytes_max.to_string()),
            ("queue-bytes", queue.bytes_max.to_string()),
            ("queue-ttl", brief(queue.ttl)),
            ("broadcast-rate", broadcast_per_second.to_string()),
            ("reconnect-window", format!("{}..{}", brief(from), brief(to))),
            ("min-interval", brief(interval_wish_min)),
            ("keepalive-count", limits::KEEPALIVE_COUNT_DEFAULT.to_string()),
            ("journal-segment-bytes", limits::JOURNAL_SEGMENT_BYTES_DEFAULT.to_string()),
            ("journal-retain-bytes", limits::JOURNAL_RETAIN_BYTES_DEFAULT.to_string()),
        ] {
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(key));
            let help = arg.and_then(clap::Arg::get_help).expect("the flag exists").to_string();
            let default = help.rsplit_once("(default: ").expect("help ends with it").1;
            let default = default.split([',', ')']).next();
            assert_eq!(default, Some(shown.as_str()), "{key}: {help}");
        }
    }

    #[test]
    fn help_tells_the_presets_as_they_are() {
        let command = <ServeArgs as clap::Args>::augment_args(clap::Command::new("serve"));
        let help = command.get_after_help().expect("there is one").to_string();
        let brief =
            |span: Span| humantime::format_duration(span.into()).to_string().replace('m', "min");
        for preset in Preset::ALL {
            let rhythm = preset.rhythm();
            let line = help.lines().find(|line| line.trim().starts_with(preset.word()));
            let line = line.expect("every preset has a line");
            assert!(line.contains(&format!("every {},", brief(rhythm.interval))), "{line}");
            assert!(line.contains(&format!("after {} ", brief(rhythm.timeout))), "{line}");
        }
    }

    #[test]
    fn keep_alive_gives_up_within_the_timeout() {
        for (name, interval, timeout, expected) in [
            ("typical", secs(15), secs(35), (15, 6, 3)),
            ("demanding", secs(2), secs(7), (2, 1, 3)),
            ("mobile", secs(240), secs(300), (240, 20, 3)),
            ("room for two probes", secs(5), secs(7), (5, 1, 2)),
            ("less than a second", Span::from_millis(200), Span::from_millis(900), (1, 1, 3)),
            ("rounded up", Span::from_millis(1_500), secs(5), (2, 1, 3)),
            ("longest", secs(3_600), secs(86_400), (3_600, 27_600, 3)),
        ] {
            let rhythm = Rhythm::new(interval, timeout).expect("a rhythm");
            let keepalive = Keepalive::for_rhythm(rhythm);
            let (idle, interval, count) = expected;
            let expected = Keepalive { idle: secs(idle), interval: secs(interval), count };
            assert_eq!(keepalive, expected, "{name}");
            let verdict = keepalive.idle + keepalive.interval.times(u64::from(keepalive.count));
            assert!(verdict <= timeout || timeout < secs(2), "{name}: {verdict}");
        }
    }

    #[test]
    fn tcp_can_be_told_otherwise() {
        let args = ServeArgs {
            keepalive_idle: Some(secs(20)),
            keepalive_count: Some(5),
            user_timeout: Some(UserTimeout::Off),
            ..ServeArgs::default()
        };
        let listener = ServeOptions::new(&args).expect("in bounds").listener;
        let expected = Keepalive { idle: secs(20), interval: secs(5), count: 5 };
        assert_eq!(listener.keepalive, Some(expected));
        assert_eq!(listener.user_timeout, None);

        let args = ServeArgs { keepalive: Some(Switch::Off), ..ServeArgs::default() };
        assert_eq!(ServeOptions::new(&args).expect("in bounds").listener.keepalive, None);
    }

    #[test]
    fn policies_and_classes_reach_the_gateway() {
        let args = ServeArgs {
            probe: Some(ProbePolicy::Off),
            grace: Some(secs(30)),
            duplicate: Some(Duplicate::Reject),
            class: vec![parse_class("lock:probe=2s").expect("a class")],
            ..ServeArgs::default()
        };
        let gateway = ServeOptions::new(&args).expect("in bounds").gateway;
        assert_eq!(gateway.class("any").grace, secs(30));
        assert_eq!(gateway.class("any").duplicate, Duplicate::Reject);
        assert_eq!(gateway.class("any").probe, ProbePolicy::Off);
        assert_eq!(gateway.class("lock").probe, ProbePolicy::Fixed(secs(2)));
        assert_eq!(gateway.class("lock").grace, secs(30), "as for everybody");
    }

    #[test]
    fn the_shortest_wish_is_never_longer_than_the_interval() {
        let args = ServeArgs {
            interval: Some(Span::from_millis(200)),
            timeout: Some(secs(1)),
            ..ServeArgs::default()
        };
        let gateway = ServeOptions::new(&args).expect("in bounds").gateway;
        assert_eq!(gateway.interval_wish_min, Span::from_millis(200));
    }

    #[test]
    fn the_largest_payload_fits_into_the_default_outbox() {
        let args = ServeArgs { max_payload: Some(65_535), ..ServeArgs::default() };
        let gateway = ServeOptions::new(&args).expect("in bounds").gateway;
        assert_eq!(gateway.payload_bytes_max, 65_535);
        assert!(gateway.outbox_bytes_max > 65_535);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_the_bounds() {
        let base = ServeArgs::default;
        let stopping = |change: fn(&mut StoppingArgs)| {
            let mut args = base();
            change(&mut args.stopping);
            args
        };
        let journal = || Some("journal".into());
        let (interval, timeout) = (Some(secs(5)), Some(secs(5)));
        let rows: Vec<(ServeArgs, &str)> = vec![
            (ServeArgs { interval, timeout, ..base() }, "timeout 5s must be longer than"),
            (ServeArgs { interval, ..base() }, "interval 5s stands without a timeout"),
            (ServeArgs { timeout, ..base() }, "timeout 5s stands without an interval"),
            (
                ServeArgs { preset: Some(Preset::Mobile), timeout, ..base() },
                "preset stands beside interval or timeout",
            ),
            (ServeArgs { tick: Some(secs(2)), ..base() }, "tick 2s is out of bounds"),
            (ServeArgs { coalesce: Some(secs(1)), ..base() }, "coalesce 1s is out of bounds"),
            (
                ServeArgs {
                    tick: Some(secs(1)),
                    interval: Some(Span::from_millis(900)),
                    timeout,
                    ..base()
                },
                "tick 1s is longer than interval 900ms",
            ),
            (ServeArgs { max_connections: Some(0), ..base() }, "expected 1 to 4194304"),
            (ServeArgs { max_payload: Some(65_536), ..base() }, "expected 512 to 65535"),
            (ServeArgs { max_payload: Some(511), ..base() }, "max-payload 511 is out of"),
            (ServeArgs { outbox_bytes: Some(16_384), ..base() }, "expected 16408 to 16777216"),
            (ServeArgs { min_interval: Some(Span::ZERO), ..base() }, "min-interval 0s"),
            (
                stopping(|stopping| stopping.drain_timeout = Some(secs(3_601))),
                "drain-timeout 3601s",
            ),
            (stopping(|stopping| stopping.drain_notice = Some(secs(3_601))), "drain-notice 3601s"),
            (ServeArgs { frame_timeout: Some(Span::ZERO), ..base() }, "frame-timeout 0s"),
            (ServeArgs { handshake_timeout: Some(Span::ZERO), ..base() }, "handshake-timeout 0s"),
            (
                stopping(|stopping| stopping.reconnect_window = Some((secs(1), secs(9_999)))),
                "reconnect-window 9999s is out of bounds",
            ),
            (
                ServeArgs { user_timeout: Some(UserTimeout::Fixed(Span::ZERO)), ..base() },
                "user-timeout 0s is out of bounds",
            ),
            (
                ServeArgs { keepalive_interval: Some(Span::from_millis(2_500)), ..base() },
                "keepalive-interval 2500ms has a fraction of a second",
            ),
            (ServeArgs { keepalive_count: Some(128), ..base() }, "expected 1 to 127"),
            (
                ServeArgs { keepalive: Some(Switch::Off), keepalive_count: Some(3), ..base() },
                "keepalive-count says how to probe, but keepalive is off",
            ),
            (
                ServeArgs { probe: Some(ProbePolicy::Fixed(secs(11))), ..base() },
                "probe 11s is out of bounds; expected 10ms to 10s, half of what lies between",
            ),
            (
                ServeArgs { grace: Some(secs(3_601)), ..base() },
                "grace 3601s is out of bounds; expected 0s to 3600s",
            ),
            (
                ServeArgs { class: vec![parse_class("lock:grace=2h").expect("a class")], ..base() },
                "class lock: grace 7200s is out of bounds",
            ),
            (
                ServeArgs {
                    events: Some(EventsTarget::Stdout),
                    transport_events: Some(EventsTarget::Stdout),
                    ..base()
                },
                "events and transport-events both go to standard output",
            ),
            (ServeArgs { node: Some(String::new()), ..base() }, "node '' is not a name"),
            (
                ServeArgs {
                    driver: Some(DriverChoice::Epoll),
                    descriptors: Some(Descriptors::Direct),
                    ..base()
                },
                "descriptors direct are slots of a ring, but driver is epoll",
            ),
            (
                ServeArgs { journal_retain_bytes: Some(1), ..base() },
                "journal-retain-bytes says how to keep a journal, but there is none",
            ),
            (
                ServeArgs { journal: journal(), journal_segment_bytes: Some(4_095), ..base() },
                "journal-segment-bytes 4095 is out of bounds; expected 4096 to 1073741824",
            ),
            (
                ServeArgs { journal: journal(), journal_retain_bytes: Some(7), ..base() },
                "journal-retain-bytes 7 is out of bounds; expected 268435456 to",
            ),
            (ServeArgs { node: Some("a\nb".to_owned()), ..base() }, "node 'a\\nb' is not"),
        ];
        for (args, part) in rows {
            let line = refusal(&args);
            assert!(line.contains(part), "{part:?} is not in: {line}");
        }
    }
}
