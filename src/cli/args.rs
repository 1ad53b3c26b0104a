//! What can be typed: parsing, `--help`, the man page and the completions come out of this file.
//!
//! A value is checked here for its form only. What the values mean together is decided in
//! `cli::config`, where the file and the environment have joined them; that is why nothing in
//! [`ServeArgs`] has a default here.

pub mod admin;
mod check;
pub mod edge;
mod hook;
mod identity;
mod leave;
mod talk;
pub mod tls;
mod top;
pub mod up;
mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};

use crate::base::config::{Duplicate, Mode, Preset, ProbePolicy, UserTimeout};
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::admin::AdminArg;
use crate::cli::args::messages::MessageArgs;
use crate::cli::args::push::{CtlGroupCommand, CtlPushArgs};
use crate::cli::classes::{CLASS_DELIMITER, ClassArg, parse_class};
use crate::cli::ctl::Form;
use crate::cli::values::{
    DUPLICATES, ShardsArg, choice, parse_address, parse_admin, parse_events, parse_probe,
    parse_shards, parse_span, parse_user_timeout,
};
use crate::control::events::EventsTarget;
use crate::control::journal::Position;
use crate::control::log::{LogFormat, LogLevel};
use crate::load::dialect::Dialect;

pub use crate::cli::args::check::CheckConfigArgs;
pub use crate::cli::args::hook::HookArgs;
pub(crate) use crate::cli::args::identity::IDENTITIES;
pub use crate::cli::args::identity::{CtlTokenArgs, IdentityArgs, IdentityKind};
pub use crate::cli::args::leave::{CtlDrainArgs, CtlRebalanceArgs, StoppingArgs};
pub use crate::cli::args::talk::TalkArgs;
pub use crate::cli::args::top::TopArgs;
pub use crate::cli::args::webhook::WebhookArgs;
pub mod admission;
pub mod messages;
pub mod push;

/// Holds long-lived TCP connections and knows within one tick which of a million is gone
#[derive(Clone, Debug, Parser)]
#[command(
    name = "heartwheel",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Examples:
  heartwheel demo                                a gateway and 100 pretend clients, to play with
  heartwheel doctor                              what this machine allows, and what to change
  heartwheel serve                               listen on 127.0.0.1:7070, log to standard error
  heartwheel serve --events - | jq               who came and who went, one JSON line each
  heartwheel load --target 127.0.0.1:7070 --clients 1000 --interval 5s --for 1min --silent 10

Exit codes:
  0 done    1 failed    2 not understood: a flag, a key or a value"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the gateway: accept clients, watch their heartbeats, report who comes and goes
    Serve(Box<ServeArgs>),
    /// Say what serve would make of flags, environment and file, without serving
    CheckConfig(Box<CheckConfigArgs>),
    /// Show it in one process: a gateway and pretend clients that you can silence
    Demo(DemoArgs),
    /// Put a gateway under load: pretend clients that beat, fall silent, reset, leave and flap
    Load(Box<LoadArgs>),
    /// Print what a journal holds: events from any place on, or who is online
    Events(EventsArgs),
    /// Say what this machine allows, and what to change
    Doctor(DoctorArgs),
    /// Ask a running gateway, and tell it what to do: clients, kick, rhythm, push, drain, events
    Ctl(Box<CtlArgs>),
    /// Watch a running gateway in a terminal: rates, who went and why, events, busiest clients
    Top(Box<TopArgs>),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print a man page
    Man(ManArgs),
}

/// `serve` as typed: on the command line, in the environment, or in the file.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
D is a length of time: 250ms, 15s, 4min, 1h.

Presets:
  typical      a beat every 15s, dead after 35s of silence     desktops, servers, most devices
  demanding    every 2s, after 7s                              games, trading, robots
  mobile       every 4min, after 5min                          phones that should sleep

Every flag is also a key of the file, and a variable of the environment:
  --drain-timeout 5s      drain-timeout = \"5s\"      HEARTWHEEL_DRAIN_TIMEOUT=5s
A flag goes before the environment, the environment before the file.

A class is said once a flag, or in the file as a table:
  --class lock:grace=30s,duplicate=reject
  [class.lock]
  grace = \"30s\"
  duplicate = \"reject\"

A webhook likewise:
  --webhook audit:url=https://backend.example/hook,secret-file=/etc/audit.key
  [webhook.audit]
  url = \"https://backend.example/hook\"
  secret-file = \"/etc/audit.key\"

SIGUSR1 makes it log how its verdicts go. SIGHUP makes it read all of this again and take up what
can be changed at run time; the log says what was, and what takes a restart.

Examples:
  heartwheel serve --preset mobile --listen 0.0.0.0:7070 --identity hmac --identity-file keys
  heartwheel serve --interval 5s --timeout 12s --events /var/log/heartwheel.jsonl
  heartwheel serve --config /etc/heartwheel.toml --log-format json")]
pub struct ServeArgs {
    /// Address and port to listen on (default: 127.0.0.1:7070)
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
    /// File of keys named like these flags (default: none)
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Name of this node, as events tell it (default: the host's name)
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Loops that share the clients, each on a thread of its own; auto: one for each processor
    /// (default: 1)
    #[arg(long, value_name = "N|auto", value_parser = parse_shards)]
    pub shards: Option<ShardsArg>,

    /// Rhythm of clients that ask for none, see below (default: typical)
    #[arg(long, value_name = "NAME", value_parser = preset_words(), help_heading = "Heartbeats",
        conflicts_with_all = ["interval", "timeout"])]
    pub preset: Option<Preset>,
    /// Between two beats, instead of a preset
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Heartbeats")]
    pub interval: Option<Span>,
    /// Silence after which a client is dead, instead of a preset
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Heartbeats")]
    pub timeout: Option<Span>,
    /// Who sends the beats; either: the client, and the server asks when none came (default:
    /// client)
    #[arg(long, value_name = "WHO", value_parser = choice(&MODES), help_heading = "Heartbeats")]
    pub mode: Option<Mode>,
    /// Shortest interval a client may ask for (default: 1s, or the interval where that is shorter)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Heartbeats")]
    pub min_interval: Option<Span>,
    /// How long before the verdict a silent client is asked whether it is there (default: auto,
    /// which is a quarter of what lies between interval and timeout, at most 5s, and off where that
    /// is below 10s)
    #[arg(long, value_name = "auto|off|D", value_parser = parse_probe,
        help_heading = "Heartbeats")]
    pub probe: Option<ProbePolicy>,
    /// Resolution of verdicts, 1ms to 1s (default: 10ms)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Heartbeats")]
    pub tick: Option<Span>,
    /// How long beats wait for each other where many come, so that one turn of the loop serves
    /// several; up to 40ms where nothing else comes; 0s: never. No verdict waits (default: 10ms)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Heartbeats")]
    pub coalesce: Option<Span>,

    /// How long a lost session is held for its client to come back, up to 1h (default: 0s)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Sessions")]
    pub grace: Option<Span>,
    /// What a second login of a client id does: take over, or be refused (default: take-over)
    #[arg(long, value_name = "HOW", value_parser = choice(&DUPLICATES),
        help_heading = "Sessions")]
    pub duplicate: Option<Duplicate>,
    /// A class with an interval, timeout, probe, grace or duplicate of its own (default: none)
    #[arg(long, value_name = "NAME:KEY=VALUE,...", value_parser = parse_class,
        value_delimiter = CLASS_DELIMITER, help_heading = "Sessions")]
    pub class: Vec<ClassArg>,

    /// Connections held; further ones are refused politely (default: 1000000, or what the machine
    /// allows)
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_connections: Option<u32>,
    /// From accepting a connection to knowing who it is (default: 10s)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Limits")]
    pub handshake_timeout: Option<Span>,
    /// From the first byte of a frame to its last (default: 10s)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "Limits")]
    pub frame_timeout: Option<Span>,
    /// Largest payload of a frame (default: 16384)
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub max_payload: Option<u32>,
    /// Bytes that may wait for one client that does not read (default: 65536)
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub outbox_bytes: Option<u32>,
    /// How much of what clients send up may wait.
    #[command(flatten)]
    pub up: up::UpArgs,

    /// What clients speak, and who speaks for them.
    #[command(flatten)]
    pub edge: edge::EdgeArgs,

    /// Who may come in, and how much a client may say.
    #[command(flatten)]
    pub admission: admission::AdmissionArgs,

    /// Who may come in.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// How messages wait for clients.
    #[command(flatten)]
    pub messages: MessageArgs,

    /// Whether TCP probes silent connections too (default: on)
    #[arg(long, value_name = "on|off", value_parser = choice(&SWITCH), help_heading = "TCP",
        hide_possible_values = true)]
    pub keepalive: Option<Switch>,
    /// Silence before the first probe, whole seconds (default: the interval)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "TCP")]
    pub keepalive_idle: Option<Span>,
    /// Between two probes, whole seconds (default: what fits into the timeout)
    #[arg(long, value_name = "D", value_parser = parse_span, help_heading = "TCP")]
    pub keepalive_interval: Option<Span>,
    /// Unanswered probes before TCP gives up (default: 3, or what fits into the timeout)
    #[arg(long, value_name = "N", help_heading = "TCP")]
    pub keepalive_count: Option<u32>,
    /// How long sent bytes may stay unacknowledged: D, follow the client's
    /// timeout, or off (default: follow)
    #[arg(long, value_name = "D|follow|off", value_parser = parse_user_timeout,
        help_heading = "TCP")]
    pub user_timeout: Option<UserTimeout>,
    /// By what means the kernel is asked; auto: io_uring, and epoll where it is forbidden (default:
    /// auto)
    #[arg(long, value_name = "HOW", value_parser = choice(&DRIVERS), help_heading = "TCP")]
    pub driver: Option<DriverChoice>,
    /// How the ring names connections; auto decides by the kernel (default: auto)
    #[arg(long, value_name = "HOW", value_parser = choice(&DESCRIPTORS), help_heading = "TCP")]
    pub descriptors: Option<Descriptors>,

    /// How it ends.
    #[command(flatten)]
    pub stopping: StoppingArgs,

    /// Where ONLINE and OFFLINE go as JSON lines: a file, or - for standard output (default:
    /// nowhere)
    #[arg(long, value_name = "PATH|-", value_parser = parse_events, help_heading = "Output")]
    pub events: Option<EventsTarget>,
    /// Folder in which the events are kept, so that readers resume (default: none)
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub journal: Option<PathBuf>,
    /// Bytes of events in a file of the journal (default: 67108864)
    #[arg(long, value_name = "BYTES", help_heading = "Output")]
    pub journal_segment_bytes: Option<u32>,
    /// Bytes of the journal that are kept; the oldest go first (default: 1073741824)
    #[arg(long, value_name = "BYTES", help_heading = "Output")]
    pub journal_retain_bytes: Option<u64>,
    /// Where comings and goings of connections go, as far as there is room: a file, or - for
    /// standard output (default: nowhere)
    #[arg(long, value_name = "PATH|-", value_parser = parse_events, help_heading = "Output")]
    pub transport_events: Option<EventsTarget>,
    /// Where events are sent in batches.
    #[command(flatten)]
    pub webhooks: WebhookArgs,
    /// Where the admin API is, or off; a port that is taken matters only when asked for
    /// (default: 127.0.0.1:7071)
    #[arg(long, value_name = "ADDR:PORT|off", value_parser = parse_admin, help_heading = "Admin")]
    pub admin: Option<AdminArg>,
    /// File with the token that whoever uses the admin API must know, or with a line ROLE TOKEN for
    /// each of several, where ROLE is read, push or admin; an address that can be reached from
    /// elsewhere needs one (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Admin")]
    pub admin_token_file: Option<PathBuf>,
    /// How the admin API is reached.
    #[command(flatten)]
    pub admin_door: admin::AdminDoorArgs,
    /// How the log on standard error looks (default: human)
    #[arg(long, value_name = "HOW", value_parser = choice(&LOG_FORMATS), help_heading = "Output")]
    pub log_format: Option<LogFormat>,
    /// What the log leaves out (default: info)
    #[arg(long, value_name = "LEVEL", value_parser = choice(&LOG_LEVELS),
        help_heading = "Output")]
    pub log_level: Option<LogLevel>,
}

/// `demo` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
While it runs, type a line and Enter:
  7     client 7 falls silent      +7    client 7 comes back      l    list      0    quit

Without a terminal it runs for --for, or until the input ends.")]
pub struct DemoArgs {
    /// Pretend clients, numbered from 1
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=DEMO_CLIENTS_MAX))]
    pub clients: u32,
    /// How long to run (default: until 0 or the end of input)
    #[arg(long = "for", value_name = "D", value_parser = parse_span)]
    pub duration: Option<Span>,
    /// Between two beats (default: 2s)
    #[arg(long, value_name = "D", value_parser = parse_span, requires = "timeout")]
    pub interval: Option<Span>,
    /// Silence after which a client is dead (default: 7s)
    #[arg(long, value_name = "D", value_parser = parse_span, requires = "interval")]
    pub timeout: Option<Span>,
    /// By what means the kernel is asked, as for serve (default: auto)
    #[arg(long, value_name = "HOW", value_parser = choice(&DRIVERS))]
    pub driver: Option<DriverChoice>,
}

/// `load` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
N of the clients, at random moments after their first beats, early enough that the verdict falls
inside the run. Whoever has no such fate beats on time to the end.

Examples:
  heartwheel load --target 127.0.0.1:7070 --clients 100 --interval 1s --for 30s --silent 5
  heartwheel load --target 127.0.0.1:7070 --clients 20000 --interval 15s --for 5min \\
      --reset 100 --leave 100 --flap 50 --connect-rate 5000 --json result.json")]
pub struct LoadArgs {
    /// The gateway
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub target: SocketAddr,
    /// Pretend clients
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=LOAD_CLIENTS_MAX))]
    pub clients: u32,
    /// Between two beats of a client
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub interval: Span,
    /// How long to run, from the first connection
    #[arg(long = "for", value_name = "D", value_parser = parse_span)]
    pub duration: Span,
    /// New connections a second (default: as fast as the gateway takes them)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connect_rate: Option<u32>,
    /// Clients at most that have connected or are about to, and are not welcomed yet (default:
    /// any number)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connects_at_once: Option<u32>,
    /// How the clients speak: the native protocol, the same by WebSocket, or MQTT 3.1.1 to a
    /// broker, where PINGREQ is the beat
    #[arg(long, value_name = "HOW", value_parser = choice(&PROTOCOLS), default_value = "native")]
    pub protocol: Dialect,
    /// The same as --protocol websocket
    #[arg(long, conflicts_with = "protocol")]
    pub ws: bool,
    /// Once everybody is in, beat again as soon as the last beat is answered
    #[arg(long)]
    pub saturate: bool,
    /// When everybody is in, count beats and processor time apart for so long, then end the run
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub measure: Option<Span>,
    /// From the last connection to the begin of --measure
    #[arg(long, value_name = "D", value_parser = parse_span, default_value = "1s",
        requires = "measure")]
    pub warm_up: Span,
    /// The server's process, of which processor time and memory are read (default: whoever listens
    /// on the target's port, where that is on this machine's loopback)
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Seed of everything random; a run with the same seed makes the same choices (default: a new
    /// one)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// File for the result as JSON (default: none)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What the client ids begin with (default: load- and the process id)
    #[arg(long, value_name = "TEXT")]
    pub id_prefix: Option<String>,
    /// File with the key that makes each client a token, as for identity hmac (default: none)
    #[arg(long, value_name = "FILE")]
    pub token_key: Option<PathBuf>,
    /// By what means the kernel is asked, as for serve (default: auto)
    #[arg(long, value_name = "HOW", value_parser = choice(&DRIVERS))]
    pub driver: Option<DriverChoice>,
    /// What is around the clients' frames.
    #[command(flatten)]
    pub dial: tls::DialArgs,

    /// Fall silent with the socket left open
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub silent: u32,
    /// Reset the connection
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub reset: u32,
    /// Say BYE
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub leave: u32,
    /// Come and go
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub flap: u32,
    /// Do not read what they are sent
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub slow_readers: u32,
    /// Beat late, but in time
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub late: u32,
    /// Beat without asking for an answer
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Fates")]
    pub no_reply: u32,
    /// Who sends messages.
    #[command(flatten)]
    pub talk: TalkArgs,
}

/// `events` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
BOOT:SEQ are the boot and seq of the last event that was dealt with; what follows it is printed.
When it is no longer kept the command fails and says so: take a snapshot, and go on after it.

A line \"gap\" stands for events that could not be written, \"damaged\" for events that cannot be
read any more.

Examples:
  heartwheel events --journal /var/lib/heartwheel --follow
  heartwheel events --journal /var/lib/heartwheel --after 1763884800000:42
  heartwheel events --journal /var/lib/heartwheel --snapshot --follow | jq")]
pub struct EventsArgs {
    /// The folder that `serve` was given
    #[arg(long, value_name = "DIR")]
    pub journal: PathBuf,
    /// Begin right after this event (default: with the oldest that is kept)
    #[arg(long, value_name = "BOOT:SEQ", conflicts_with = "snapshot")]
    pub after: Option<Position>,
    /// Go on with events as they come
    #[arg(long)]
    pub follow: bool,
    /// Print who is online and at which BOOT:SEQ that is true
    #[arg(long)]
    pub snapshot: bool,
}

/// `doctor` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A line begins with ok, note (it works, and could be better) or problem (serve would not start).
Exit code 0 where serve would start, 1 where it would not. Nothing is changed.

Examples:
  heartwheel doctor
  heartwheel doctor --listen 0.0.0.0:7070 --max-connections 200000 --json | jq")]
pub struct DoctorArgs {
    /// Address and port that serve is to listen on (default: 127.0.0.1:7070)
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
    /// Connections that serve is to hold (default: as many as the machine allows)
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=LOAD_CLIENTS_MAX))]
    pub max_connections: Option<u32>,
    /// By what means serve is to ask the kernel (default: auto)
    #[arg(long, value_name = "HOW", value_parser = choice(&DRIVERS))]
    pub driver: Option<DriverChoice>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `ctl` as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  heartwheel ctl clients --prefix till-
  heartwheel ctl show till-12
  heartwheel ctl kick till-12 --text 'replaced by till-13'
  heartwheel ctl rhythm till-12 --interval 5s --timeout 12s
  heartwheel ctl push till-12 --topic prices --text '{\"tea\": 2}' --ack --wait 5s
  heartwheel ctl group add tills till-12 till-13
  heartwheel ctl push --group tills --text 'back in five minutes'
  heartwheel ctl events --follow --json | jq
  heartwheel ctl rebalance 10% --per-second 100
  heartwheel ctl drain --within 30s")]
pub struct CtlArgs {
    /// Which gateway.
    #[command(flatten)]
    pub gateway: admin::GatewayArgs,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to ask or tell.
    #[command(subcommand)]
    pub command: CtlCommand,
}

impl CtlArgs {
    /// How answers are printed.
    pub fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Human }
    }
}

/// What can be asked of a running gateway.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Print who is online
    Clients(CtlClientsArgs),
    /// Print what is known of one client
    Show {
        /// Its client id
        client: String,
    },
    /// Say in words how a client is, how it came and went, and why
    Explain {
        /// Its client id
        client: String,
        /// At most so many of its latest events
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
    },
    /// End a client's session
    Kick(CtlKickArgs),
    /// Give a client another rhythm, from its next beat on
    Rhythm(CtlRhythmArgs),
    /// Send a message to a client, a group or everybody
    Push(Box<CtlPushArgs>),
    /// Put clients into groups, and print who is in which
    #[command(subcommand)]
    Group(CtlGroupCommand),
    /// Print events as they come
    Events(CtlEventsArgs),
    /// Ask everybody to leave, and end the gateway
    Drain(CtlDrainArgs),
    /// Have the gateway read its configuration again, and print what changed
    Reload,
    /// Ask a part of the clients to go elsewhere
    Rebalance(CtlRebalanceArgs),
    /// Print who is online, exactly true at one position of the ledger
    Snapshot,
    /// Print how things are
    Stats,
    /// Print how the webhooks are
    Webhooks,
    /// Make a token by which a client proves its id; no gateway is asked
    Token(CtlTokenArgs),
    /// Say whether the loops turn, by the exit code too: for the health checks of containers
    Health,
    /// Say whether clients can come, by the exit code too
    Ready,
}

/// `ctl clients` as typed.
#[derive(Args, Clone, Debug)]
pub struct CtlClientsArgs {
    /// Only client ids that begin with this
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only clients of this class
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// Only clients in this group
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// At most so many (default: all)
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// `ctl kick` as typed.
#[derive(Args, Clone, Debug)]
pub struct CtlKickArgs {
    /// Its client id
    pub client: String,
    /// Only this session
    #[arg(long, value_name = "N")]
    pub epoch: Option<u64>,
    /// What the client hears: 300, which keeps it away, or a number of your own from 1000 on
    #[arg(long, value_name = "N")]
    pub code: Option<u16>,
    /// What it hears, for people
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
}

/// `ctl rhythm` as typed.
#[derive(Args, Clone, Debug)]
pub struct CtlRhythmArgs {
    /// Its client id
    pub client: String,
    /// Between two beats
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub interval: Span,
    /// Silence after which it is dead
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub timeout: Span,
}

/// `ctl events` as typed.
#[derive(Args, Clone, Debug)]
pub struct CtlEventsArgs {
    /// Begin right after this event (default: with what comes from now on)
    #[arg(long, value_name = "BOOT:SEQ")]
    pub after: Option<Position>,
    /// Go on with events as they come
    #[arg(long)]
    pub follow: bool,
    /// Comings and goings of connections instead of the ledger
    #[arg(long)]
    pub transport: bool,
}

/// `completions` as typed.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// `man` as typed.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Of which command (default: the program's own page)
    pub command: Option<String>,
}

/// On or off, where a flag can say either.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Switch {
    /// Wanted.
    On,
    /// Not wanted.
    Off,
}

/// How the ring names connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Descriptors {
    /// Direct where the kernel frees them properly, which is from 6.13 on.
    #[default]
    Auto,
    /// Slots of the ring's own table.
    Direct,
    /// Descriptors of the process.
    Ordinary,
}

/// By what means the kernel is asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DriverChoice {
    /// By io_uring, and by epoll where that cannot be used.
    #[default]
    Auto,
    /// By io_uring or not at all.
    IoUring,
    /// By epoll.
    Epoll,
}

/// Most clients of a demo: more scroll by faster than a person reads.
const DEMO_CLIENTS_MAX: i64 = 10_000;
/// Most clients of one load process, as many as a shard can hold.
const LOAD_CLIENTS_MAX: i64 = limits::CONNECTIONS_LIMIT as i64;

pub(crate) static MODES: [(&str, Mode); 3] =
    [("client", Mode::Client), ("server", Mode::Server), ("either", Mode::Either)];
pub(crate) static SWITCH: [(&str, Switch); 2] = [("on", Switch::On), ("off", Switch::Off)];
/// The drivers, as words.
pub(crate) static DRIVERS: [(&str, DriverChoice); 3] = [
    ("auto", DriverChoice::Auto),
    ("io_uring", DriverChoice::IoUring),
    ("epoll", DriverChoice::Epoll),
];
pub(crate) static DESCRIPTORS: [(&str, Descriptors); 3] = [
    ("auto", Descriptors::Auto),
    ("direct", Descriptors::Direct),
    ("ordinary", Descriptors::Ordinary),
];
static PROTOCOLS: [(&str, Dialect); 3] = [
    (Dialect::Native.word(), Dialect::Native),
    (Dialect::Mqtt.word(), Dialect::Mqtt),
    (Dialect::WebSocket.word(), Dialect::WebSocket),
];
pub(crate) static LOG_FORMATS: [(&str, LogFormat); 2] =
    [("human", LogFormat::Human), ("json", LogFormat::Json)];
pub(crate) static LOG_LEVELS: [(&str, LogLevel); 6] = [
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

fn preset_words() -> impl TypedValueParser<Value = Preset> {
    static PRESETS: [(&str, Preset); 3] = [
        (Preset::Typical.word(), Preset::Typical),
        (Preset::Demanding.word(), Preset::Demanding),
        (Preset::Mobile.word(), Preset::Mobile),
    ];
    choice(&PRESETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_says_what_it_is_for() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn a_load_needs_its_four_numbers() {
        let full = "heartwheel load --target 127.0.0.1:1 --clients 5 --interval 1s --for 10s";
        let words: Vec<_> = full.split(' ').collect();
        assert!(Cli::try_parse_from(&words).is_ok());
        for left_out in [2, 4, 6, 8] {
            let mut fewer = words.clone();
            fewer.drain(left_out..left_out + 2);
            assert!(Cli::try_parse_from(&fewer).is_err(), "without {}", words[left_out]);
        }
    }

    #[test]
    fn no_client_is_not_a_demo() {
        assert!(Cli::try_parse_from(["heartwheel", "demo", "--clients", "0"]).is_err());
        assert!(Cli::try_parse_from(["heartwheel", "demo", "--clients", "1"]).is_ok());
    }
}
