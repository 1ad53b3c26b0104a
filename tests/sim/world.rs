//! One world: the real gateway, a pretend kernel, pretend clients, a naive twin, and a clock that
//! is only a number. Everything follows from the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;
use heartwheel::base::config::{GatewayConfig, Mode, Rhythm};
use heartwheel::base::event::{CloseReason, Event};
use heartwheel::base::ids::{ClientId, ConnId};
use heartwheel::base::io::{Completion, IoFault, Op};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{Command, Gateway, Reply};

use crate::clients::{Clients, Patience};
use crate::faults::{Faults, happens, part_of, span_upto};
use crate::kernel::{Kernel, News, Word, socket_of};
use crate::oracle::{Oracle, Phase};
use crate::script::{Step, client_id};

/// More turns than this without the clock moving on: the gateway is busy with nothing.
const IDLE_TURNS_MAX: u32 = 200;

/// More steps than this are no story any more.
const STEPS_MAX: usize = 300_000;
/// In how many steps the world goes on while the process stands still.
const STALL_SLICES: u64 = 10;

/// What happens by itself at some moment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Happening {
    /// A device connects.
    Connect { device: usize },
    /// The client at this link does the next thing of its script.
    Act { link: usize },
    /// It answers a ping.
    Answer { link: usize },
    /// It does as it was told and leaves.
    Leave { link: usize },
    /// TCP gives the link up.
    GiveUp { link: usize },
    /// An operator ends somebody's session.
    Kick,
}

/// What a world came to, for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) lived: Span,
    pub(crate) steps: usize,
    pub(crate) records: usize,
    pub(crate) verdicts: usize,
    pub(crate) rescued: usize,
}

struct World {
    now: Moment,
    rng: Rng,
    config: GatewayConfig,
    gateway: Gateway,
    kernel: Kernel,
    oracle: Oracle,
    clients: Clients,
    agenda: BinaryHeap<Reverse<(Moment, u64, Happening)>>,
    agenda_next: u64,
    steps: usize,
    idle_turns: u32,
    accept_failed_at: Option<Moment>,
    /// Commands that the loop has not taken yet.
    kicks_waiting: u32,
    /// Whether the gateway always had the time that it gives itself.
    patience: Patience,
    has_leaps: bool,
    is_traced: bool,
}

/// Lives through the world of this seed, and panics when a promise is broken in it.
pub(crate) fn live(seed: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let config = config(&mut rng);
    let faults = Faults::swarm(&mut rng);
    let mut world = World::new(config, faults, rng);
    if world.is_traced {
        println!("{:?}\n{faults:?}", world.config);
    }
    world.populate();
    let end = world.now + part_of(&mut world.rng, world.config.rhythm.timeout, 200..900);
    while world.now < end {
        world.turn();
        world.pass_time(end);
    }
    world.drain();
    let stats = world.gateway.stats();
    assert_eq!((stats.connections, stats.online), (0, 0), "somebody was left behind");
    assert_eq!(stats.stale, 0, "completions for connections that do not exist");
    assert_eq!(stats.seq_last, world.oracle.records as u64, "an event was not told");
    world.kernel.check_empty();
    world.oracle.check_empty();
    Outcome {
        lived: world.now.since(Moment::ZERO),
        steps: world.steps,
        records: world.oracle.records,
        verdicts: world.oracle.verdicts,
        rescued: usize::try_from(stats.rescued).expect("a small number"),
    }
}

fn config(rng: &mut Rng) -> GatewayConfig {
    let rhythms =
        [(200, 500), (1_000, 2_500), (2_000, 7_000), (15_000, 35_000), (240_000, 300_000)];
    let (interval, timeout) = rhythms[rng.usize(0..rhythms.len())];
    let rhythm = Rhythm::new(Span::from_millis(interval), Span::from_millis(timeout));
    // A tick that is long beside the timeout leaves no time for a ping and its answer.
    let tick_millis = [1, 10, 10, 64, 1_000][rng.usize(0..5)];
    let (handshake, frame, linger) = [(10, 10, 2), (3, 5, 1), (1, 1, 5)][rng.usize(0..3)];
    GatewayConfig {
        rhythm: rhythm.expect("a rhythm of the table"),
        mode: [Mode::Client, Mode::Client, Mode::Server, Mode::Either][rng.usize(0..4)],
        tick: Span::from_millis(tick_millis.min(timeout / 20)),
        connections_max: [3, 20, 1_000][rng.usize(0..3)],
        handshake_timeout: Span::from_secs(handshake),
        frame_timeout: Span::from_secs(frame),
        linger_timeout: Span::from_secs(linger),
        outbox_bytes_max: [2_048, limits::OUTBOX_BYTES_MAX][rng.usize(0..2)],
        payload_bytes_max: 1_024,
        epoch_first: rng.u64(1..1_000_000),
        hash_key: [rng.u64(..), rng.u64(..)],
        seed: rng.u64(..),
        ..GatewayConfig::default()
    }
}

impl World {
    fn new(config: GatewayConfig, faults: Faults, mut rng: Rng) -> Self {
        // Not from zero: nothing may depend on it.
        let now = Moment::from_nanos(rng.u64(0..1 << 45));
        let gateway = Gateway::new(config.clone(), now);
        let kernel = Kernel::new(faults, rng.fork());
        let mut world = Self {
            now,
            gateway,
            kernel,
            oracle: Oracle::new(config.clone(), now),
            clients: Clients::new(rng.fork()),
            agenda: BinaryHeap::new(),
            agenda_next: 0,
            steps: 0,
            idle_turns: 0,
            accept_failed_at: None,
            kicks_waiting: 0,
            patience: if faults.stall + faults.leap == 0 {
                Patience::Kept
            } else {
                Patience::Slept
            },
            has_leaps: faults.leap > 0,
            is_traced: std::env::var_os("TRACE").is_some(),
            config,
            rng,
        };
        world.hand_ops_over();
        world.read_ledger();
        world
    }

    fn populate(&mut self) {
        // Sometimes more than there are slots for, the refused ones included.
        let is_crowd = self.config.connections_max == 3 && happens(&mut self.rng, 200);
        let devices = if is_crowd { 100 } else { self.rng.usize(1..=40) };
        for device in 0..devices {
            let rush =
                if self.rng.bool() { Span::from_millis(1) } else { self.config.rhythm.timeout };
            let at = self.now + span_upto(&mut self.rng, rush);
            self.plan(at, Happening::Connect { device });
        }
        for _ in 0..self.rng.u32(0..4) {
            let at = self.now + span_upto(&mut self.rng, self.config.rhythm.timeout.times(4));
            self.plan(at, Happening::Kick);
        }
    }

    // --- a turn ----------------------------------------------------------------------------------

    /// One turn of the loop: all input, then the time.
    fn turn(&mut self) {
        let before = self.steps;
        self.live_upto_now();
        loop {
            while let Some(news) = self.kernel.next(self.now) {
                self.hand_in(news);
                if happens(&mut self.rng, 100) {
                    self.now += span_upto(&mut self.rng, Span::from_micros(30));
                    self.live_upto_now();
                }
                if !happens(&mut self.rng, self.kernel.faults.late_ops) {
                    self.hand_ops_over();
                }
            }
            self.hand_ops_over();
            // What the kernel can do at once it is given time for, or not until the next turn.
            let is_all = self.kernel.next_due().is_none_or(|due| due > self.now);
            if is_all || happens(&mut self.rng, self.kernel.faults.late_ops) {
                break;
            }
        }
        if happens(&mut self.rng, self.kernel.faults.hurry) {
            return;
        }
        self.oracle.on_told(self.now);
        self.oracle.on_time(self.now);
        self.gateway.on_time(self.now);
        self.steps += 1;
        self.read_ledger();
        self.hand_ops_over();
        for _ in 0..std::mem::take(&mut self.kicks_waiting) {
            self.kick();
        }
        self.hand_ops_over();
        self.gateway.check();
        self.kernel.check_heard();
        assert!(self.steps < STEPS_MAX, "a world without end");
        let next_wake = self.gateway.next_wake();
        self.check_accepting(next_wake);
        let is_settled = next_wake.is_none_or(|wake| wake > self.now);
        if is_settled {
            self.oracle.check(self.now, next_wake);
            self.idle_turns = 0;
        } else if self.steps == before + 1 {
            self.idle_turns += 1;
            assert!(self.idle_turns < IDLE_TURNS_MAX, "busy with nothing: wake {next_wake:?}");
        }
        assert_eq!(self.gateway.stats().online, self.oracle.online_count());
        self.let_clients_hear();
    }

    /// Whoever waits to be accepted is, unless the house is full or the machine was short of
    /// something a moment ago.
    fn check_accepting(&self, next_wake: Option<Moment>) {
        let capacity = (self.config.connections_max + limits::REFUSALS_MAX) as usize;
        if self.kernel.is_deaf() && self.oracle.seats.len() < capacity {
            let again_at = self.accept_failed_at.map(|at| at + limits::ACCEPT_PAUSE);
            let is_pause = again_at.is_some_and(|at| self.now < at);
            assert!(is_pause, "nobody accepts, and {} are here", self.oracle.seats.len());
            assert!(next_wake <= again_at, "nobody will accept again: wake {next_wake:?}");
        }
    }

    /// Time passes until something is due, and sometimes longer.
    fn pass_time(&mut self, end: Moment) {
        let agenda = self.agenda.peek().map(|Reverse((at, _, _))| *at);
        let dues = [agenda, self.kernel.next_due(), self.gateway.next_wake()];
        let next = dues.into_iter().flatten().min().unwrap_or(end).min(end);
        self.now = next.max(self.now + Span::from_nanos(self.rng.u64(1..2_000)));
        let timeout = self.config.rhythm.timeout;
        // A stall is worst while a verdict waits for its answer.
        let worst = if self.kernel.is_looking() { 10 } else { 1 };
        if happens(&mut self.rng, self.kernel.faults.stall * worst) {
            let stall = span_upto(&mut self.rng, timeout.times(3));
            self.trace(|| format!("the process stands still for {stall}"));
            // The others go on: what was handed to the kernel is done, and clients answer.
            for _ in 0..STALL_SLICES {
                self.now += stall.divided_by(STALL_SLICES);
                self.live_upto_now();
                self.kernel.work(self.now);
                self.let_clients_hear();
            }
        } else if happens(&mut self.rng, self.kernel.faults.leap) {
            let leap = span_upto(&mut self.rng, timeout.times(3));
            self.trace(|| format!("the clock leaps by {leap}"));
            self.now += leap;
            let agenda = std::mem::take(&mut self.agenda);
            let later = |Reverse((at, nth, what))| Reverse((at + leap, nth, what));
            self.agenda = agenda.into_iter().map(later).collect();
        } else if happens(&mut self.rng, 100) {
            self.now += span_upto(&mut self.rng, Span::from_millis(5));
        }
    }

    fn hand_in(&mut self, news: News) {
        self.trace(|| format!("kernel: {news:?}"));
        self.steps += 1;
        let now = self.now;
        self.oracle.on_told(now);
        match news {
            News::Accepted { link } => {
                let peer = self.kernel.links[link].peer;
                self.gateway
                    .on_completion(Completion::Accepted { socket: socket_of(link), peer }, now);
                self.hand_ops_over();
            }
            News::AcceptFailed { fault } => {
                self.accept_failed_at = Some(now);
                self.gateway.on_completion(Completion::AcceptFailed { fault }, now);
            }
            News::Of { link, conn, word } => self.hand_in_word(link, conn, word),
        }
        self.read_ledger();
        self.gateway.check();
    }

    fn hand_in_word(&mut self, link: usize, conn: ConnId, word: Word) {
        let now = self.now;
        match word {
            Word::Received(bytes) => {
                let (labels, begun) = self.kernel.hand_over(link, bytes.len());
                self.trace(|| format!("  is {labels:?}, then {begun} bytes"));
                self.gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
                self.oracle.on_received(conn, &labels, begun, now);
            }
            Word::Ended(end) => {
                self.gateway.on_completion(Completion::ReceiveEnded { conn, end }, now);
                self.oracle.on_receive_ended(conn, end, now);
            }
            Word::Sent(chunk, result) => {
                self.gateway.on_completion(Completion::Sent { conn, chunk, result }, now);
                self.oracle.on_sent(conn, result, now);
            }
            Word::Looked(found, tcp) => {
                self.gateway.on_completion(Completion::Looked { conn, found, tcp }, now);
                self.oracle.on_looked(conn, found, tcp, now);
            }
            Word::Closed => {
                self.gateway.on_completion(Completion::Closed { conn }, now);
                let seat = self.oracle.on_closed(conn);
                if let Phase::Over { reason, .. } = seat.phase {
                    self.let_clients_hear();
                    self.clients.on_closed(link, reason, &self.kernel.links[link], self.patience);
                }
            }
        }
    }

    fn hand_ops_over(&mut self) {
        let mut ops = Vec::new();
        self.gateway.take_ops(&mut ops);
        for op in ops {
            self.trace(|| format!("gateway: {op:?}"));
            match &op {
                Op::Adopt { socket, conn } => {
                    let link = usize::try_from(socket.0 - socket_of(0).0).expect("a link");
                    self.oracle.on_adopted(*conn, link, self.now);
                }
                Op::Send { conn, .. } => self.oracle.on_send_asked(*conn, self.now),
                Op::Look { conn } => self.oracle.on_look_asked(*conn, self.now),
                Op::Close { conn, .. } => self.oracle.on_close_asked(*conn),
                Op::Accept { .. }
                | Op::StopAccepting
                | Op::Connect(_)
                | Op::Discard { .. }
                | Op::Receive { .. }
                | Op::SetUserTimeout { .. } => {}
            }
            self.kernel.submit(op, self.now);
        }
    }

    fn read_ledger(&mut self) {
        let mut records = Vec::new();
        self.gateway.take_events(&mut records, usize::MAX);
        for record in &records {
            self.trace(|| format!("ledger: {record:?}"));
            self.assert_was_asked(&record.event);
        }
        // A small outbox can run full of answers before the kernel had a chance to send any.
        let is_small = self.config.outbox_bytes_max < limits::OUTBOX_BYTES_MAX;
        let is_stuck = |link: usize| is_small || !self.kernel.links[link].is_reading();
        self.oracle.on_records(&records, self.now, is_stuck);
    }

    /// Where the server pings, nobody is judged silent who was not asked before.
    fn assert_was_asked(&mut self, event: &Event) {
        let Event::Offline { conn, reason: CloseReason::HeartbeatTimeout, last_beat, .. } = event
        else {
            return;
        };
        self.let_clients_hear();
        let link = self.oracle.seats[conn].link;
        let wire = &self.kernel.links[link];
        // A clock that leaps leaves no time for a ping to travel.
        let can_be_asked = wire.is_reading() && !wire.is_peer_gone() && !self.has_leaps;
        if self.config.mode.server_pings() && can_be_asked {
            let was_asked = self.clients.pinged_at(link).is_some_and(|at| at >= *last_beat);
            assert!(was_asked, "{conn}: judged without having been pinged");
        }
    }

    // --- the clients' side -----------------------------------------------------------------------

    fn plan(&mut self, at: Moment, happening: Happening) {
        self.agenda_next += 1;
        self.agenda.push(Reverse((at, self.agenda_next, happening)));
    }

    fn live_upto_now(&mut self) {
        while let Some(Reverse((at, _, happening))) = self.agenda.peek().copied() {
            if at > self.now {
                return;
            }
            self.agenda.pop();
            self.trace(|| format!("{happening:?}"));
            self.happen(happening, at);
        }
    }

    fn happen(&mut self, happening: Happening, at: Moment) {
        match happening {
            Happening::Connect { device } => {
                let link = self.kernel.connect();
                let wait = self.clients.on_connected(link, device, &self.config);
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::Act { link });
                }
            }
            Happening::Act { link } => {
                let Some((step, wait)) = self.clients.next_step(link) else { return };
                self.act(link, step, at);
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::Act { link });
                }
            }
            Happening::Answer { link } => {
                if let Some(pong) = self.clients.pong(link) {
                    let end = (pong.len(), crate::script::Label::Beat);
                    self.kernel.links[link].arrive(&pong, &[end]);
                }
            }
            Happening::Leave { link } => self.kernel.links[link].finish(),
            Happening::GiveUp { link } => self.kernel.links[link].break_with(IoFault::TimedOut),
            Happening::Kick => self.kicks_waiting += 1,
        }
    }

    fn act(&mut self, link: usize, step: Step, at: Moment) {
        match step {
            Step::Write { bytes, ends } => self.kernel.links[link].arrive(&bytes, &ends),
            Step::Finish => self.kernel.links[link].finish(),
            Step::Reset => self.kernel.links[link].break_with(IoFault::Reset),
            Step::Vanish => {
                self.kernel.links[link].stop_reading(self.rng.usize(0..3_000));
                if self.rng.bool() {
                    let patience = self.config.rhythm.timeout.times(2);
                    let at = at + span_upto(&mut self.rng, patience);
                    self.plan(at, Happening::GiveUp { link });
                }
            }
            Step::StopReading => self.kernel.links[link].stop_reading(self.rng.usize(100..2_000)),
            Step::ConnectAgain => {
                let device = self.clients.device(link);
                self.plan(at, Happening::Connect { device });
            }
        }
    }

    /// Clients read what came, and do what follows from it.
    fn let_clients_hear(&mut self) {
        for link in 0..self.kernel.links.len() {
            let bytes = self.kernel.links[link].take_heard();
            if bytes.is_empty() {
                continue;
            }
            let answers = self.clients.hear(link, &bytes, self.now);
            for wait in answers.pongs {
                self.plan(self.now + wait, Happening::Answer { link });
            }
            if let Some(wait) = answers.leaves {
                self.plan(self.now + wait, Happening::Leave { link });
            }
        }
    }

    fn kick(&mut self) {
        self.oracle.on_told(self.now);
        let online = self.oracle.online();
        let absent = Command::Kick { client: ClientId::new("nobody").expect("a client id") };
        assert_eq!(self.gateway.on_command(absent, self.now), Reply::NoSuchClient);
        if online.is_empty() {
            self.read_ledger();
            return;
        }
        let device = online[self.rng.usize(0..online.len())];
        let client = ClientId::new(&client_id(device)).expect("a client id");
        assert_eq!(self.gateway.on_command(Command::Kick { client }, self.now), Reply::Done);
        self.oracle.on_kick(device, self.now);
        self.read_ledger();
    }

    // --- the end ---------------------------------------------------------------------------------

    fn drain(&mut self) {
        self.trace(|| "drain".to_owned());
        self.kernel.faults.stall = 0;
        self.kernel.faults.leap = 0;
        let within = span_upto(&mut self.rng, Span::from_secs(5));
        if within < Span::from_secs(1) {
            self.patience = Patience::Slept; // it gives itself too little on purpose
        }
        let until = self.now + within;
        self.oracle.on_told(self.now);
        assert_eq!(self.gateway.on_command(Command::Drain { within }, self.now), Reply::Done);
        self.oracle.on_drain(within, self.now);
        let end = until + self.config.tick.times(2) + Span::from_secs(2);
        while !self.gateway.is_drained() {
            assert!(self.now < end, "not drained by {end:?}");
            self.turn();
            self.pass_time(end);
        }
        self.read_ledger();
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>12} us  {}", self.now.as_nanos() / 1_000, line());
        }
    }
}

/// Reasons after which the other end is told with GOAWAY, and closes first.
pub(crate) fn is_told(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::Replaced | CloseReason::Drain | CloseReason::Busy)
}
