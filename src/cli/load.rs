//! `load`: the load bench as a command.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::io::IoFault;
use crate::base::time::Span;
use crate::cli::args::LoadArgs;
use crate::cli::error::CliError;
use crate::cli::gauge::{self, Gauge, Measure};
use crate::cli::identity;
use crate::cli::machine;
use crate::cli::signals;
use crate::cli::tls;
use crate::cli::write_stdout;
use crate::layers::terms::{Begin, Terms};
use crate::load::dialect::Dialect;
use crate::load::drive::{self, Outcome, Room, Wish};
use crate::load::fleet::{FleetError, Progress};
use crate::load::plan::{LoadOptions, Pace, Parts, Plan, Talk, Tokens};
use crate::load::report::Report;
use crate::load::tally::Tally;
use crate::os::machine::{Survey, Wanted};
use crate::os::{process, random};

/// Runs `load` as typed: the table goes to standard output, JSON to the file that was asked for.
pub fn run(args: &LoadArgs) -> Result<(), CliError> {
    let tokens = args.token_key.as_deref().map(tokens).transpose()?;
    let options = LoadOptions { tokens, ..options(args) };
    let plan = Plan::new(options).map_err(|error| CliError::usage(error.to_string()))?;
    let options = plan.options().clone();
    let server = gauge::server_of(options.target, args.server_pid)?;
    let dial = tls::dial(&args.dial, options.target, options.dialect.protocol())?;
    let is_encrypted = dial.is_some();
    let dial = dial.map(|dial| Arc::new(dial) as Arc<dyn Begin>);
    let terms = Terms { dial, ..Terms::default() };
    let survey = machine::survey(machine::choice(args.driver)?);
    let room = Room::from(machine::plan(&survey, Wanted::Exactly(options.clients))?);
    machine::warn_of_fallback(&survey);
    // Opened first: nobody wants to hear after a long run that its result has no place.
    let json = args.json.as_deref().map(create).transpose()?;
    let measure = args.measure.map(|lasts| Measure { warm_up: args.warm_up, lasts });
    let mut gauge = Gauge::new(server, options.clients, measure);
    let outcome = watch(plan, room, terms, &mut gauge)?;
    let mut report = Report::new(&options, &outcome.tally, gauge.read(describe(&survey)));
    if is_encrypted {
        report.protocol = match options.dialect {
            Dialect::Native => "native over TLS",
            Dialect::Mqtt => "mqtt over TLS",
            Dialect::WebSocket => "websocket over TLS",
        };
    }
    if let (Some(mut file), Some(path)) = (json, &args.json) {
        let written = file.write_all(report.to_json().as_bytes());
        written.map_err(|cause| CliError::FileUnwritable { path: path.clone(), cause })?;
    }
    check(&outcome, &options)?;
    write_stdout(report.to_string().as_bytes())?;
    if gauge.is_complete() { Ok(()) } else { Err(unmeasured(&outcome.tally, &options)) }
}

/// Tokens hold for so long: longer than a run, and not for ever.
const TOKEN_LIFE: Span = Span::from_secs(7 * 24 * 60 * 60);

fn tokens(key: &Path) -> Result<Tokens, CliError> {
    let keys = identity::read_keys(key)?;
    let key = keys.all().next().expect("there is at least one");
    Ok(Tokens { key: key.into(), expires_unix_s: identity::expiry(TOKEN_LIFE) })
}

/// What was typed, as meant.
fn options(args: &LoadArgs) -> LoadOptions {
    LoadOptions {
        target: args.target,
        clients: args.clients,
        interval: args.interval,
        run_time: args.duration,
        dialect: if args.ws { Dialect::WebSocket } else { args.protocol },
        pace: if args.saturate { Pace::Saturating } else { Pace::Rhythm },
        connects_per_s: args.connect_rate,
        entering_max: args.connects_at_once,
        parts: Parts {
            silent: args.silent,
            reset: args.reset,
            leave: args.leave,
            flap: args.flap,
            slow_readers: args.slow_readers,
            late: args.late,
            no_reply: args.no_reply,
            talk: args.talk.talk,
        },
        talk: Talk { bytes: args.talk.talk_bytes, every: args.talk.talk_every },
        seed: args.seed.unwrap_or_else(new_seed),
        id_prefix: args.id_prefix.clone().unwrap_or_else(own_prefix),
        source_key: std::process::id(),
        tokens: None,
    }
}

/// No larger than what every reader of JSON takes without rounding.
fn new_seed() -> u64 {
    random::u64() >> 11
}

/// Two load benches at one server must not take each other's clients over.
fn own_prefix() -> String {
    format!("load-{}-", std::process::id())
}

fn describe(survey: &Survey) -> String {
    let kernel = survey.kernel.map_or("unknown".to_owned(), |version| version.to_string());
    format!("{}, {} processors, kernel {kernel}", process::cpu_model(), survey.cpus)
}

fn create(path: &Path) -> Result<File, CliError> {
    File::create(path).map_err(|cause| CliError::FileUnwritable { path: path.into(), cause })
}

/// Runs the plan with a progress bar, until its end or a signal.
fn watch(plan: Plan, room: Room, terms: Terms, gauge: &mut Gauge) -> Result<Outcome, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    let heeded = Arc::clone(&stop);
    let signals = signals::watch(move |_| stop.store(true, Ordering::Relaxed))
        .map_err(|error| CliError::machine(format!("cannot watch for signals: {error}")))?;
    let bar = bar(plan.options().run_time);
    let outcome = drive::run_in_layers(plan, room, terms, |progress| {
        show(&bar, progress);
        if heeded.load(Ordering::Relaxed) { Wish::End } else { gauge.look(progress) }
    });
    bar.finish_and_clear();
    signals.end();
    outcome.map_err(|error| CliError::machine(error.to_string()))
}

/// On standard error, and only where that is a terminal.
fn bar(run_time: Span) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(Some(run_time.as_millis()), ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template("{bar:20} {wide_msg}").expect("the template is a constant");
    bar.set_style(style);
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    let Progress { elapsed, connected, open, beats, detected, false_offline } = progress;
    bar.set_position(elapsed.as_millis());
    bar.set_message(format!(
        "{:.0} s  {connected} connected, {open} open, {beats} beats, {detected} detected, \
         {false_offline} false offline",
        elapsed.as_secs_f64(),
    ));
}

/// Whether the run was one at all.
fn check(outcome: &Outcome, options: &LoadOptions) -> Result<(), CliError> {
    let target = options.target;
    match &outcome.trouble {
        Some(FleetError::Plan(error)) => Err(CliError::usage(format!("{error}; give more --for"))),
        Some(FleetError::NobodyConnected { fault }) => {
            Err(CliError::machine(format!("cannot connect to {target}: {fault}{}", remedy(*fault))))
        }
        None if outcome.tally.connected == 0 => Err(CliError::machine(format!(
            "{target} takes connections but welcomed nobody ({}); is a gateway listening there?",
            commonest(&outcome.tally)
        ))),
        None => Ok(()),
    }
}

/// The run was over before what should be measured was.
fn unmeasured(tally: &Tally, options: &LoadOptions) -> CliError {
    let (connected, clients, run_time) = (tally.connected, options.clients, options.run_time);
    CliError::machine(format!(
        "nothing was measured: {connected} of {clients} clients came in, and the run ended after \
         {run_time}; give more --for"
    ))
}

/// What went wrong most often.
fn commonest(tally: &Tally) -> String {
    match tally.errors().max_by_key(|(_, count)| *count) {
        Some((kind, count)) => format!("{kind}: {count}"),
        None => "it said nothing".to_owned(),
    }
}

fn remedy(fault: IoFault) -> &'static str {
    match fault {
        IoFault::Refused => "; is the gateway running, and on this port?",
        IoFault::Unreachable | IoFault::TimedOut => "; is the address right?",
        IoFault::AddressUnavailable => {
            "; widen net.ipv4.ip_local_port_range or start fewer clients"
        }
        IoFault::NoDescriptors => "; raise the limit of open files (ulimit -n)",
        IoFault::Reset | IoFault::Cancelled | IoFault::NoMemory | IoFault::Other(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::CloseReason;
    use crate::load::client::{Ending, Sign};
    use crate::load::plan::PlanError;

    fn options() -> LoadOptions {
        LoadOptions {
            target: "127.0.0.1:7070".parse().unwrap(),
            clients: 10,
            interval: Span::from_secs(1),
            run_time: Span::from_secs(20),
            dialect: Dialect::Native,
            pace: Pace::Rhythm,
            connects_per_s: None,
            entering_max: None,
            parts: Parts::default(),
            talk: Talk::default(),
            seed: 1,
            id_prefix: own_prefix(),
            source_key: 0,
            tokens: None,
        }
    }

    #[test]
    fn a_run_that_was_none_is_a_failure_in_one_line() {
        let nobody = |fault| Some(FleetError::NobodyConnected { fault });
        let short = PlanError::ConnectRate;
        for (name, trouble, connected, code, words) in [
            ("fine", None, 10, None, ""),
            ("refused", nobody(IoFault::Refused), 0, Some(1), "connection refused"),
            ("no ports", nobody(IoFault::AddressUnavailable), 0, Some(1), "ip_local_port_range"),
            ("mute", None, 0, Some(1), "welcomed nobody"),
            ("short", Some(FleetError::Plan(short)), 1, Some(2), "--for"),
        ] {
            let mut tally = Tally::default();
            tally.connected = connected;
            let checked = check(&Outcome { tally, trouble }, &options());
            assert_eq!(checked.as_ref().err().map(CliError::exit_code), code, "{name}");
            if let Err(error) = checked {
                assert!(error.line().contains(words), "{name}: {}", error.line());
                assert!(!error.line().contains("; ;"), "{name}: {}", error.line());
            }
        }
    }

    #[test]
    fn who_is_not_welcome_hears_why() {
        let mut tally = Tally::default();
        assert_eq!(commonest(&tally), "it said nothing");
        for reason in [CloseReason::Drain, CloseReason::Busy, CloseReason::Busy] {
            tally.on_ended(Sign::Told(reason), Ending::Refused);
        }
        assert_eq!(commonest(&tally), "ended_busy: 2");
    }

    #[test]
    fn processes_do_not_share_client_ids_by_chance() {
        assert!(own_prefix().contains(&std::process::id().to_string()));
    }
}
