//! `serve`: the gateway as a program.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use clap::ArgMatches;

use crate::base::config::{GatewayConfig, Shard};
use crate::base::event::FormerBoot;
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::admin::{self, Admin};
use crate::cli::args::Descriptors;
use crate::cli::config::{ConnectionsFrom, ListenerOptions, ServeOptions};
use crate::cli::configuration;
use crate::cli::edge::EdgeTaker;
use crate::cli::error::CliError;
use crate::cli::identity as who;
use crate::cli::machine;
use crate::cli::reload::{Prepared, ReadProof, ReloadBell, Reloader, Taker};
use crate::cli::signals::{self, SignalWatch, Wish};
use crate::cli::webhooks::{self, WebhooksTaker};
use crate::control::api::JournalView;
use crate::control::door::{self, LoopHandle};
use crate::control::events::{EventWriter, EventsTarget, Identity};
use crate::control::from_loop::FromLoop;
use crate::control::hub::Hub;
use crate::control::identity::{Judge, Office};
use crate::control::journal::{
    self, Cut, Door, JournalOptions, JournalOutcome, JournalThread, Recovered, Writer,
};
use crate::control::ledger::Ledger;
use crate::control::live::Live;
use crate::control::log::{self, Log};
use crate::control::side::{self, Outcome};
use crate::control::summary;
use crate::control::transport::{self, TransportFeed, TransportThread};
use crate::control::watchdog::Watchdog;
use crate::control::webhook::{Sources, Webhooks};
use crate::gateway::{Command, Drain};
use crate::os::clock::Clock;
use crate::os::driver::DriverConfig;
use crate::os::machine::{Plan, Wanted};
use crate::os::ring;
use crate::os::socket::{self, KeepAlive, ListenOptions, Listener};
use crate::os::supervisor::{self, Supervisor};
use crate::os::{inherited, process, random};
use crate::server::Server;
use crate::server::mailbox::Reader;
use crate::server::shards::{self, Ended, Shards, Switchboard};

/// Longest that the end of the program waits for the log to be written.
const LOG_PATIENCE: Span = Span::from_secs(1);
/// Longest that the end of the program waits for transport events to be written.
const TRANSPORT_PATIENCE: Span = Span::from_secs(1);
/// A node's name where neither the operator nor the machine knows one.
const NODE_UNKNOWN: &str = "heartwheel";

/// Runs `serve` with what was typed as `flags`, until it is told to stop.
pub fn run(flags: &ArgMatches) -> Result<(), CliError> {
    let (configuration, wrong) = configuration::read(flags, |name| std::env::var_os(name));
    let options = wrong.or(configuration.options)?;
    let log = log::start(options.log_format, options.log_level)
        .map_err(|error| CliError::machine(error.to_string()))?;
    let outcome = serve(&options, flags, &log);
    log.flush(LOG_PATIENCE);
    outcome
}

/// Runs a gateway as `options` say, until a signal ends it. They came out of `flags`, which are
/// read again when somebody asks for a reload.
fn serve(options: &ServeOptions, flags: &ArgMatches, log: &Log) -> Result<(), CliError> {
    // Before anything else is opened: these have numbers and no names.
    let var = |name: &str| std::env::var_os(name);
    let inherited = inherited::take(var, std::process::id())
        .map_err(|error| CliError::machine(error.to_string()))?;
    let supervisor = supervisor(var);
    let clock = Clock::new();
    webhooks::check(&options.webhooks)?;
    let edge = EdgeTaker::new(&options.edge)?;
    let plan = look_at_machine(options)?;
    let listener = listen(&options.listener, inherited.clients)?;
    let address = listener.local_address();
    let admin = admin::bind(&options.admin, inherited.admin)?;
    let wall = clock.wall();
    let recovered = options.journal.as_ref().map(recover).transpose()?;
    let former = recovered.as_ref().and_then(|recovered| recovered.former);
    let boot = journal::boot_after(wall.unix_millis(clock.now()), former.as_ref());
    let identity = Identity { node: node_name(options), boot };
    let writer = open_events(&options.events, identity.clone())?;
    let transport = open_transport(&options.transport_events, identity.clone())?;
    let (transport_feed, transport) = transport.unzip();
    let who::Reading { proof, judge } = who::read(options, Some(address))?;
    let gateway = GatewayConfig { wall, former, proof, ..gateway_of(options, &plan, boot) };
    let admin_address = admin.as_ref().map(Admin::address);
    let ready = ready_line(&gateway, &options.events, address, admin_address);
    let plans = plans_of_shards(&plan, &gateway, listener)?;
    let (shards, asker, mut readers) = shards::start(plans, clock, options.coalesce, edge.shared())
        .map_err(|error| CliError::machine(error.to_string()))?;
    say_what_coalescing_costs(shards.first(), options.coalesce);
    let office = open_office(&judge, &mut readers)?;
    let asker = Arc::new(Mutex::new(asker));
    let start = |options| start_journal(options, identity.clone(), clock, Arc::clone(&asker));
    let (door, journal) = options.journal.as_ref().map(start).transpose()?.unzip();
    // Webhooks may come later, when there is no admin API either.
    let (heard, teller) = door::open(Arc::clone(&asker), clock);
    let view = journal_view(options, door.as_ref());
    let watchdog = watchdog(&supervisor, var);
    let source = FromLoop::new(readers, clock)
        .with_transport(transport_feed)
        .with_door(Some(teller))
        .with_watchdog(watchdog);
    let (source, hub) = source.with_hub();
    let side = side::spawn(source, writer, door).map_err(no_thread)?;
    let webhooks = start_webhooks(options, heard, hub, &identity)?;
    let takers = takers(log, edge, admin.as_ref(), &webhooks);
    let (hook, read_proof) = (office.counts(), who::reads_again(address, office));
    let reloader = reloader(flags, options, gateway, &asker, (takers, read_proof), clock);
    let serve = |admin: Admin| admin.serve(webhooks.clone(), hook, &reloader, view);
    let http = admin.map(serve).transpose()?;
    let status = {
        let events = options.events.clone();
        move |gateway: &GatewayConfig| ready_line(gateway, &events, address, admin_address)
    };
    let signals = watch_signals(asker, reloader, &supervisor, status)?;
    tracing::info!("{ready}");
    supervisor.ready(&ready);
    let outcome = run_to_the_end(shards);
    signals.end();
    // What was told is written even when the ring failed.
    let side = side.finish(limits::SIDE_PATIENCE);
    let journal = journal.map(|journal| journal.finish(limits::SIDE_PATIENCE));
    if let Some(transport) = transport {
        transport.finish(TRANSPORT_PATIENCE);
    }
    webhooks.finish(limits::WEBHOOK_END_PATIENCE);
    admin::finish(http);
    let untold = outcome?;
    events_outcome(&options.events, side, untold)?;
    journal.map_or(Ok(()), journal_outcome)
}

/// What was said, and what only the machine can say.
fn gateway_of(options: &ServeOptions, plan: &Plan, boot: u64) -> GatewayConfig {
    GatewayConfig {
        connections_max: plan.connections_max,
        epoch_first: epoch_first(boot),
        hash_key: random::hash_key(),
        resume_key: random::hash_key(),
        ..options.gateway.clone()
    }
}

/// Reads what `flags` said again, while `gateway` is what the loops were told.
fn reloader(
    flags: &ArgMatches,
    options: &ServeOptions,
    gateway: GatewayConfig,
    asker: &Arc<Mutex<Switchboard>>,
    (takers, read_proof): (Vec<Box<dyn Taker>>, ReadProof),
    clock: Clock,
) -> Arc<Reloader> {
    let mut running = options.clone();
    running.gateway.connections_max = gateway.connections_max;
    let (flags, asker) = (flags.clone(), Arc::clone(asker));
    Arc::new(Reloader::new(flags, running, Live::new(gateway), asker, takers, read_proof, clock))
}

/// Where tokens are looked at that take too long for the loops.
fn open_office(judge: &Arc<Judge>, readers: &mut [Reader]) -> Result<Office, CliError> {
    let office = Office::new(readers.iter_mut().filter_map(Reader::take_desk).collect());
    who::open(&office, judge)?;
    office.appoint(judge);
    Ok(office)
}

/// Those beside the loops who take up another configuration.
fn takers(
    log: &Log,
    edge: EdgeTaker,
    admin: Option<&Admin>,
    webhooks: &Webhooks,
) -> Vec<Box<dyn Taker>> {
    let mut takers: Vec<Box<dyn Taker>> = vec![
        Box::new(LogTaker(log.clone())),
        Box::new(edge),
        Box::new(WebhooksTaker(webhooks.clone())),
    ];
    if let Some(admin) = admin {
        takers.push(Box::new(admin.taker()));
    }
    takers
}

/// Takes up another level of the log.
struct LogTaker(Log);

impl Taker for LogTaker {
    fn prepare(&mut self, wanted: &ServeOptions) -> Result<Prepared, CliError> {
        let (log, level) = (self.0.clone(), wanted.log_level);
        let commit = Box::new(move || log.set_level(level));
        Ok(Prepared { changes: Vec::new(), commit })
    }
}

/// The journal as the admin API sees it.
fn journal_view(options: &ServeOptions, door: Option<&Door>) -> Option<JournalView> {
    let folder = options.journal.as_ref()?.folder.clone();
    Some(JournalView { folder, health: door?.health() })
}

/// Starts the webhooks, which go on where they were if there is a journal.
fn start_webhooks(
    options: &ServeOptions,
    door: LoopHandle,
    hub: Hub,
    identity: &Identity,
) -> Result<Webhooks, CliError> {
    let journal = options.journal.as_ref().map(|journal| journal.folder.clone());
    let ledger = Ledger { door, identity: identity.clone(), journal };
    webhooks::start(Sources { ledger, hub }, &options.webhooks)
}

/// Takes over the journal, and says what was found.
fn recover(options: &JournalOptions) -> Result<Recovered, CliError> {
    let recovered =
        journal::recover(&options.folder).map_err(|error| CliError::machine(error.to_string()))?;
    if let Some(Cut { path, bytes }) = &recovered.cut {
        let path = path.display();
        tracing::warn!(bytes, %path, "the end of the journal was torn, and is cut off");
    }
    if recovered.damaged > 0 {
        let records = recovered.damaged;
        tracing::warn!(records, "records of the journal are damaged; readers are told where");
    }
    if let Some(FormerBoot { boot, seq, ended, sessions_lost }) = recovered.former {
        let ended = ended.word();
        tracing::info!(boot, seq, ended, sessions_lost, "the boot before is in the journal");
    }
    Ok(recovered)
}

/// Starts the journal's thread, which asks the loop who is online when a segment begins.
fn start_journal(
    options: &JournalOptions,
    identity: Identity,
    clock: Clock,
    asker: Arc<Mutex<Switchboard>>,
) -> Result<(Door, JournalThread), CliError> {
    signals::outlive_file_size_limit().map_err(no_thread)?;
    let writer = Writer::new(options.clone(), identity, clock.wall())
        .map_err(|cause| CliError::FileUnwritable { path: options.folder.clone(), cause })?;
    let ask = move |command| asker.lock().expect("whoever asks does not panic").ask(command);
    journal::spawn(writer, clock, ask).map_err(no_thread)
}

fn no_thread(cause: io::Error) -> CliError {
    CliError::machine(format!("cannot start a thread: {cause}"))
}

/// What the journal's end means for the exit code. `None`: it did not end in time.
fn journal_outcome(outcome: Option<JournalOutcome>) -> Result<(), CliError> {
    let target = || "the journal".to_owned();
    match outcome {
        Some(JournalOutcome::Complete) => Ok(()),
        Some(JournalOutcome::Unwritten { lines, cause }) => Err(CliError::EventsLost {
            records: lines as u64,
            target: target(),
            cause: cause.to_string(),
        }),
        None => Err(CliError::machine(
            "the journal's disk does not answer; its last events are lost with this process",
        )),
    }
}

/// What each shard is made of: its part of the plan, its part of the clients, and the listening
/// socket, which all share.
fn plans_of_shards(
    plan: &Plan,
    gateway: &GatewayConfig,
    listener: Listener,
) -> Result<Vec<(DriverConfig, GatewayConfig)>, CliError> {
    let one = plan.of_one_shard();
    let key = random::hash_key();
    let mut listeners = Vec::new();
    for _ in 1..plan.shards {
        let shared = listener.share();
        let cannot = |cause| CliError::machine(format!("cannot share the listener: {cause}"));
        listeners.push(shared.map_err(cannot)?);
    }
    listeners.push(listener);
    let plans = (0..plan.shards).zip(listeners).map(|(index, listener)| {
        let driver = one.driver_config(Some(listener));
        let connections_total = plan.connections_max;
        let gateway = GatewayConfig {
            connections_max: one.connections_max,
            up_bytes_max: up_bytes_of_one(gateway.up_bytes_max, plan.shards),
            shard: Shard { index, count: plan.shards, key, connections_total },
            seed: random::u64(),
            ..gateway.clone()
        };
        (driver, gateway)
    });
    Ok(plans.collect())
}

/// A shard's part of the budget for DATA.
fn up_bytes_of_one(all: usize, shards: u16) -> usize {
    (all / usize::from(shards.max(1))).max(limits::UP_BYTES_MIN)
}

/// Turns all loops until they are drained, says how their verdicts went, and closes the doors to
/// them.
fn run_to_the_end(shards: Shards) -> Result<usize, CliError> {
    let Ended { outcome, stats } = shards.run();
    summary::log(&stats);
    outcome.map_err(|error| CliError::machine(format!("the loop ended: {error}")))
}

/// Says what the machine is, and what can be had of it.
fn look_at_machine(options: &ServeOptions) -> Result<Plan, CliError> {
    let mut survey = machine::survey(options.driver);
    survey.descriptors_wanted = match options.descriptors {
        Descriptors::Auto => None,
        Descriptors::Direct => Some(ring::Descriptors::Direct),
        Descriptors::Ordinary => Some(ring::Descriptors::Ordinary),
    };
    survey.shards = options.shards;
    let count = options.gateway.connections_max;
    let wanted = match options.connections_from {
        ConnectionsFrom::Asked => Wanted::Exactly(count),
        ConnectionsFrom::Default => Wanted::UpTo(count),
    };
    let plan = machine::plan(&survey, wanted)?;
    if let Some(line) = machine::fallback(&survey) {
        tracing::warn!(driver = plan.driver.word(), "{line}");
    }
    for line in survey.lines() {
        tracing::info!("{line}");
    }
    if plan.shards > 1 {
        let (shards, each) = (plan.shards, plan.of_one_shard().connections_max);
        let all = plan.connections_max;
        tracing::info!("{shards} shards: {all} connections together, at most {each} in each");
    }
    Ok(plan)
}

/// The service manager, if there is one. One that cannot be reached is no reason not to serve.
fn supervisor(var: impl Fn(&str) -> Option<OsString>) -> Supervisor {
    Supervisor::from_environment(var).unwrap_or_else(|cause| {
        tracing::warn!(%cause, "the service manager of NOTIFY_SOCKET cannot be told anything");
        Supervisor::default()
    })
}

/// What tells it that the loops turn, if there is one.
fn watchdog(supervisor: &Supervisor, var: impl Fn(&str) -> Option<OsString>) -> Option<Watchdog> {
    if !supervisor.is_there() {
        return None;
    }
    let patience = supervisor::watchdog(var, std::process::id());
    let shortest = limits::SLEEP_MAX.times(3);
    if let Some(patience) = patience.filter(|patience| *patience < shortest) {
        tracing::warn!(
            "the service manager wants a sign of life every {patience}, and the loops report once \
             a second; set WatchdogSec to {shortest} or more"
        );
    }
    Some(Watchdog::new(supervisor.clone(), patience))
}

fn listen(options: &ListenerOptions, inherited: Option<TcpListener>) -> Result<Listener, CliError> {
    let listen = ListenOptions {
        keep_alive: options.keepalive.map(|keepalive| KeepAlive {
            idle: keepalive.idle,
            interval: keepalive.interval,
            count: keepalive.count,
        }),
        user_timeout: options.user_timeout,
        defer_accept: Some(limits::ACCEPT_DEFER),
        ..ListenOptions::default()
    };
    if let Some(socket) = inherited {
        let adopted = socket::adopt(socket, &listen);
        return adopted.map_err(|cause| {
            CliError::machine(format!("cannot use the socket passed for clients: {cause}"))
        });
    }
    socket::listen(options.address, &listen).map_err(|error| CliError::machine(error.to_string()))
}

/// Says where the kernel makes it dearer than it is that beats wait for each other.
fn say_what_coalescing_costs(server: &Server, window: Span) {
    if window > Span::ZERO && !server.driver().stats().gathers_without_waking {
        tracing::info!(
            "this kernel cannot sleep on when nothing came within {window} (Linux 6.12 can): under \
             load the loop wakes once in every window"
        );
    }
}

/// Larger than every epoch of the boot before (decision D-5).
fn epoch_first(boot_unix_ms: u64) -> u64 {
    boot_unix_ms << 11
}

/// The first signal asks everybody to leave, the second does not wait for them; SIGUSR1 asks how
/// verdicts go, and SIGHUP for a reload.
fn watch_signals(
    asker: Arc<Mutex<Switchboard>>,
    reloader: Arc<Reloader>,
    supervisor: &Supervisor,
    status: impl Fn(&GatewayConfig) -> String + Send + 'static,
) -> Result<SignalWatch, CliError> {
    let gateway = reloader.gateway();
    let bell = ReloadBell::new(reloader, supervisor.clone(), status).map_err(no_thread)?;
    let watch = signals::watch_reloads(move |wish| {
        let within = match wish {
            Wish::Drain => Some(gateway.get().drain_timeout),
            Wish::Stop => Some(Span::ZERO),
            Wish::Report => None,
            Wish::Reload => return bell.ring(),
        };
        let command = match within {
            Some(within) => {
                tracing::info!(%within, "stopping: clients are asked to leave");
                Command::Drain(Drain::at_once(within))
            }
            // The side thread logs the answer.
            None => Command::Stats,
        };
        let mut asker = asker.lock().expect("whoever asks does not panic");
        if let Err(error) = asker.ask(command) {
            tracing::warn!(%error, "the signal was not heeded");
        }
    });
    watch.map_err(|error| CliError::machine(format!("cannot watch for signals: {error}")))
}

/// The name under which this node speaks: the one given, or the host's.
fn node_name(options: &ServeOptions) -> String {
    if let Some(name) = &options.node {
        return name.clone();
    }
    let host = process::hostname();
    let speakable = (1..=limits::NODE_BYTES_MAX).contains(&host.len());
    if speakable && !host.chars().any(char::is_control) { host } else { NODE_UNKNOWN.to_owned() }
}

/// Opens the feed of events, or says why it cannot be.
fn open_events(target: &EventsTarget, identity: Identity) -> Result<EventWriter, CliError> {
    EventWriter::new(target, identity).map_err(|cause| unwritable(target, cause))
}

/// Opens the feed of transport events, if there is one, or says why it cannot be.
fn open_transport(
    target: &EventsTarget,
    identity: Identity,
) -> Result<Option<(TransportFeed, TransportThread)>, CliError> {
    transport::open(target, identity).map_err(|cause| unwritable(target, cause))
}

fn unwritable(target: &EventsTarget, cause: io::Error) -> CliError {
    match target {
        EventsTarget::File(path) => CliError::FileUnwritable { path: path.clone(), cause },
        EventsTarget::Stdout | EventsTarget::Nowhere => CliError::Stdout { cause },
    }
}

/// The line that says that clients can come. The addresses are those that were bound, with their
/// ports.
fn ready_line(
    gateway: &GatewayConfig,
    events: &EventsTarget,
    address: SocketAddr,
    admin: Option<SocketAddr>,
) -> String {
    let admin = admin.map_or("off".to_owned(), |address| format!("on {address}"));
    format!(
        "listening on {address} (a beat every {}, dead after {}, at most {} connections, events to \
         {events}, admin API {admin})",
        gateway.rhythm.interval, gateway.rhythm.timeout, gateway.connections_max,
    )
}

/// What the side thread's end means for the exit code. `None`: it did not end in time.
pub fn events_outcome(
    target: &EventsTarget,
    outcome: Option<Outcome>,
    untold: usize,
) -> Result<(), CliError> {
    let lost = |records: usize, cause: String| {
        let target = target.to_string();
        Err(CliError::EventsLost { records: records as u64, target, cause })
    };
    match outcome {
        Some(Outcome::Complete) if untold == 0 => Ok(()),
        Some(Outcome::Complete) => lost(untold, "they could not be taken in time".to_owned()),
        Some(Outcome::Unwritten { records, cause }) => lost(records + untold, cause.to_string()),
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
            ready_line(&options().gateway, &options().events, address, None),
            "listening on 127.0.0.1:45678 (a beat every 15s, dead after 35s, at most 1000000 \
             connections, events to nowhere, admin API off)"
        );
        let line = ready_line(&options().gateway, &options().events, address, Some(address));
        assert!(line.ends_with(", admin API on 127.0.0.1:45678)"), "{line}");
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
        assert!(events_outcome(&target, Some(Outcome::Complete), 0).is_ok());
        let cause = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let lost = events_outcome(&target, Some(Outcome::Unwritten { records: 2, cause }), 1);
        let line = lost.expect_err("three are lost").line();
        assert!(line.starts_with("3 events could not be written to standard output: "), "{line}");
        assert!(events_outcome(&target, None, 0).is_err());
        assert!(events_outcome(&target, Some(Outcome::Complete), 1).is_err());
    }

    #[test]
    fn a_target_that_cannot_be_opened_is_named() {
        let identity = Identity { node: "north".to_owned(), boot: 1 };
        let target = EventsTarget::File("/nowhere/at/all".into());
        let line = open_events(&target, identity).err().expect("no such directory").line();
        assert!(line.starts_with("cannot write /nowhere/at/all: "), "{line}");
    }
}
