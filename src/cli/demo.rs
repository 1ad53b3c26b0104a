//! `demo`: a gateway and its clients in one process, and a person who may pull their plugs.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::base::config::{GatewayConfig, Rhythm};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::cli::args::{DemoArgs, DriverChoice};
use crate::cli::board::{Board, Typed};
use crate::cli::config;
use crate::cli::error::CliError;
use crate::cli::machine;
use crate::cli::signals::{self, Wish};
use crate::gateway::{Command, Drain};
use crate::load::dialect::Dialect;
use crate::load::drive::{Helm, Room, Steer};
use crate::load::plan::{LoadOptions, Pace, Parts, Plan, Talk};
use crate::os::clock::Clock;
use crate::os::driver::{DriverConfig, DriverError};
use crate::os::machine::Wanted;
use crate::os::random;
use crate::os::socket::{self, ListenOptions};
use crate::server::Server;
use crate::server::mailbox::{Asker, Heard, News, Reader};

/// All clients connect within about so many seconds: slowly enough to be watched.
const ENTRANCE_SECS: u32 = 2;
/// So long the demo waits for the clients before it listens to the keyboard all the same.
const ENTRANCE_MAX: Span = Span::from_secs(10);
/// Longer than anybody watches.
const FOR_EVER: Span = Span::from_secs(10 * 365 * 24 * 60 * 60);
/// Longest line that is read at once.
const LINE_BYTES_MAX: u64 = 256;

/// What the demo is to show, as meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DemoOptions {
    /// Pretend clients, numbered from 1.
    pub clients: u32,
    /// When it ends by itself; `None`: with the end of input.
    pub duration: Option<Span>,
    /// How they beat, and when they are dead.
    pub rhythm: Rhythm,
    /// By what means the kernel is asked.
    pub driver: DriverChoice,
}

/// What the person's thread is told by the others.
#[derive(Debug)]
enum Cue {
    /// The loop tells something.
    News(News),
    /// The loop has ended, and nobody asked it to.
    GatewayEnded,
    /// Somebody typed a line.
    Line(String),
    /// Nobody will type any more.
    InputEnded,
    /// A signal asks to stop.
    Signal,
}

/// Runs `demo` as typed.
pub fn run(args: &DemoArgs) -> Result<(), CliError> {
    let rhythm = config::demo_rhythm(args)?;
    let driver = machine::choice(args.driver)?;
    show(&DemoOptions { clients: args.clients, duration: args.duration, rhythm, driver })
}

/// Sets the stage, plays, and clears it away.
pub fn show(options: &DemoOptions) -> Result<(), CliError> {
    let (cues, cued) = sync_channel(limits::COMMAND_QUEUE_MAX);
    let theatre = Theatre::open(options, &cues)?;
    let on_signal = cues.clone();
    let signals = signals::watch(move |wish| match wish {
        Wish::Drain | Wish::Stop => {
            // Where the queue is full, the next signal is heard.
            let _ = on_signal.try_send(Cue::Signal);
        }
        Wish::Report | Wish::Reload => {}
    });
    let signals =
        signals.map_err(|error| CliError::machine(format!("cannot watch for signals: {error}")))?;
    let board = Board::new(theatre.plan.clone(), Clock::new().wall());
    let mut play = Play { options, helm: &theatre.helm, board, out: io::stdout() };
    let played = play.run(&cued, &cues);
    drop(cued);
    signals.end();
    let closed = theatre.close();
    played.and(closed)
}

/// The gateway on one thread, its clients on another.
struct Theatre {
    plan: Plan,
    helm: Helm,
    asker: Asker,
    gateway: JoinHandle<Result<usize, DriverError>>,
}

impl Theatre {
    fn open(options: &DemoOptions, cues: &SyncSender<Cue>) -> Result<Self, CliError> {
        let wanted = Wanted::Exactly(options.clients);
        let survey = machine::survey(options.driver);
        let machine = machine::plan(&survey, wanted)?;
        machine::warn_of_fallback(&survey);
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = socket::listen(loopback, &ListenOptions::default())
            .map_err(|error| CliError::machine(error.to_string()))?;
        let target = listener.local_address();
        let driver = machine.driver_config(Some(listener));
        let Gateway { asker, reader, thread } = Gateway::start(driver, gateway_config(options))?;
        let cues = cues.clone();
        start_thread("events", move || pass_on(reader, &cues))?;
        let plan = Plan::new(load_options(options, target))
            .map_err(|error| CliError::usage(error.to_string()))?;
        let helm = Helm::launch(plan.clone(), Room::from(machine))
            .map_err(|error| CliError::machine(error.to_string()))?;
        Ok(Self { plan, helm, asker, gateway: thread })
    }

    /// Everybody goes home: the clients with BYE, the gateway after them.
    fn close(mut self) -> Result<(), CliError> {
        let sailed = self.helm.join().map_err(|error| CliError::machine(error.to_string()));
        // One question in an empty queue has room; a gateway that has ended needs none.
        let _ = self.asker.ask(Command::Drain(Drain::at_once(Span::ZERO)));
        match self.gateway.join() {
            Ok(turned) => {
                turned.map_err(|error| CliError::machine(format!("the loop ended: {error}")))?;
            }
            Err(_) => return Err(CliError::machine("the gateway's thread ended by a panic")),
        }
        sailed.map(drop)
    }
}

fn gateway_config(options: &DemoOptions) -> GatewayConfig {
    GatewayConfig {
        rhythm: options.rhythm,
        interval_wish_min: options.rhythm.interval.min(limits::INTERVAL_WISH_MIN),
        connections_max: options.clients,
        hash_key: random::hash_key(),
        resume_key: random::hash_key(),
        seed: random::u64(),
        wall: Clock::new().wall(),
        ..GatewayConfig::default()
    }
}

fn load_options(options: &DemoOptions, target: SocketAddr) -> LoadOptions {
    LoadOptions {
        target,
        clients: options.clients,
        interval: options.rhythm.interval,
        run_time: FOR_EVER,
        dialect: Dialect::Native,
        pace: Pace::Rhythm,
        connects_per_s: Some(options.clients.div_ceil(ENTRANCE_SECS)),
        entering_max: None,
        talk: Talk::default(),
        parts: Parts::default(),
        seed: random::u64(),
        id_prefix: String::new(),
        source_key: std::process::id(),
        tokens: None,
    }
}

/// A gateway that turns on a thread of its own.
struct Gateway {
    asker: Asker,
    reader: Reader,
    thread: JoinHandle<Result<usize, DriverError>>,
}

impl Gateway {
    /// The loop belongs to the thread that made it; what belongs to others is handed out.
    fn start(driver: DriverConfig, config: GatewayConfig) -> Result<Self, CliError> {
        let (door, opened) = sync_channel(1);
        let thread = start_thread("gateway", move || {
            let (mut server, asker, reader) = Server::new(driver, config, Clock::new())?;
            // Nobody waits for the door any more when the program is about to end.
            let _ = door.send((asker, reader));
            drop(door);
            server.run()
        })?;
        if let Ok((asker, reader)) = opened.recv() {
            return Ok(Self { asker, reader, thread });
        }
        Err(match thread.join() {
            Ok(Err(error)) => CliError::machine(error.to_string()),
            Ok(Ok(_)) | Err(_) => CliError::machine("the gateway's thread ended at once"),
        })
    }
}

fn start_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, CliError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| CliError::machine(format!("cannot start a thread: {error}")))
}

/// Passes the loop's news on until nobody wants it any more.
fn pass_on(mut reader: Reader, cues: &SyncSender<Cue>) {
    let mut news = Vec::new();
    loop {
        reader.wait(limits::SLEEP_MAX);
        let heard = reader.take(limits::COMMAND_QUEUE_MAX, &mut news);
        let is_last = heard == Heard::Ended && news.is_empty();
        for news in news.drain(..) {
            if cues.send(Cue::News(news)).is_err() {
                return;
            }
        }
        if is_last {
            // Whoever does not listen any more knows.
            let _ = cues.send(Cue::GatewayEnded);
            return;
        }
    }
}

/// Passes lines on. A line without an end is passed on in pieces, so that it takes no memory.
fn read_lines(mut input: impl BufRead, cues: &SyncSender<Cue>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let cue = match read {
            Ok(0) | Err(_) => Cue::InputEnded,
            Ok(_) => Cue::Line(String::from_utf8_lossy(&line).trim().to_owned()),
        };
        let is_last = matches!(cue, Cue::InputEnded);
        if cues.send(cue).is_err() || is_last {
            return;
        }
    }
}

/// The person's side of it.
struct Play<'a, W> {
    options: &'a DemoOptions,
    helm: &'a Helm,
    board: Board,
    out: W,
}

/// Whether the play goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    GoesOn,
    Ends,
}

impl<W: Write> Play<'_, W> {
    fn run(&mut self, cued: &Receiver<Cue>, cues: &SyncSender<Cue>) -> Result<(), CliError> {
        let clock = Clock::new();
        let began = clock.now();
        let end = self.options.duration.map(|duration| began + duration);
        // The keyboard is read when there is somebody to silence.
        let mut listen_at = Some(began + ENTRANCE_MAX);
        self.say(&self.board.opening(self.options.rhythm))?;
        loop {
            if listen_at.is_some_and(|at| clock.now() >= at || self.board.is_complete()) {
                listen_at = None;
                self.say(&self.board.invitation())?;
                let cues = cues.clone();
                start_thread("keyboard", move || read_lines(io::stdin().lock(), &cues))?;
            }
            let wake = earliest(end, listen_at).unwrap_or(clock.now() + limits::SLEEP_MAX);
            match cued.recv_timeout(wake.since(clock.now()).into()) {
                Ok(cue) => {
                    if self.on_cue(cue)? == Next::Ends {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if end.is_some_and(|end| clock.now() >= end) {
                break;
            }
        }
        self.say(&self.board.closing())
    }

    fn on_cue(&mut self, cue: Cue) -> Result<Next, CliError> {
        match cue {
            Cue::News(News::Event(record)) => {
                if let Some(line) = self.board.on_event(&record) {
                    self.say(&line)?;
                }
            }
            Cue::News(News::Wall(wall)) => self.board.set_wall(wall),
            Cue::News(
                News::Stats(_)
                | News::Loop(_)
                | News::Driver(_)
                | News::Reply { .. }
                | News::Transport(_),
            ) => {}
            Cue::Line(line) => return self.on_line(&line),
            Cue::InputEnded if self.options.duration.is_none() => return Ok(Next::Ends),
            Cue::InputEnded => {}
            Cue::Signal => return Ok(Next::Ends),
            Cue::GatewayEnded => return Err(CliError::machine("the gateway ended by itself")),
        }
        Ok(Next::GoesOn)
    }

    fn on_line(&mut self, line: &str) -> Result<Next, CliError> {
        let typed = self.board.read(line);
        match typed {
            Typed::Quit => return Ok(Next::Ends),
            Typed::Silence(index) if self.board.may_silence(index) => {
                self.helm.steer(Steer::Silence(index));
            }
            Typed::Revive(index) if self.board.may_revive(index) => {
                self.helm.steer(Steer::Revive(index));
            }
            Typed::Silence(_)
            | Typed::Revive(_)
            | Typed::List
            | Typed::Nothing
            | Typed::Unclear => {}
        }
        if let Some(answer) = self.board.on_typed(typed) {
            self.say(&answer)?;
        }
        Ok(Next::GoesOn)
    }

    fn say(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .map_err(|cause| CliError::Stdout { cause })
    }
}

fn earliest(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_passed_on_and_then_their_end() {
        let (cues, cued) = sync_channel(100);
        read_lines(&b"7\n +7 \r\n\xff\nl"[..], &cues);
        for expected in ["7", "+7", "\u{fffd}", "l"] {
            let Ok(Cue::Line(line)) = cued.recv() else { panic!("a line") };
            assert_eq!(line, expected);
        }
        assert!(matches!(cued.recv(), Ok(Cue::InputEnded)));
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let (cues, cued) = sync_channel(3);
        let reader = thread::spawn(move || read_lines(io::BufReader::new(io::repeat(b'7')), &cues));
        for _ in 0..5 {
            let Ok(Cue::Line(piece)) = cued.recv() else { panic!("a piece of it") };
            assert_eq!(piece.len() as u64, LINE_BYTES_MAX);
        }
        drop(cued);
        reader.join().expect("it ends with whom it talks to");
    }

    #[test]
    fn the_demo_is_brisk_and_its_ids_are_numbers() {
        let rhythm = Rhythm { interval: Span::from_millis(200), timeout: Span::from_millis(700) };
        let driver = DriverChoice::Auto;
        let options = DemoOptions { clients: 101, duration: None, rhythm, driver };
        let target = "127.0.0.1:1".parse().expect("an address");
        let load = load_options(&options, target);
        assert_eq!(load.connects_per_s, Some(51));
        let plan = Plan::new(load).expect("the demo's own plan is sound");
        assert_eq!(plan.index_of("101"), Some(100));
        assert_eq!(gateway_config(&options).interval_wish_min, rhythm.interval);
    }
}
