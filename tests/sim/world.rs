//! One world: the real gateway, a pretend kernel, pretend clients, a naive twin, and a clock that
//! is only a number. Everything follows from the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use fastrand::Rng;
use heartwheel::base::config::{
    Class, Duplicate, GatewayConfig, Mode, Preset, ProbePolicy, Rhythm,
};
use heartwheel::base::event::{CloseReason, Event};
use heartwheel::base::ids::{ClientId, ConnId};
use heartwheel::base::io::{Completion, IoFault, Op};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{Command, Gateway, Kick, Pace, Reply};
use heartwheel::layers::Layers;

use crate::admission;
use crate::clients::{Clients, Patience};
use crate::faults::{Fault, Faults, happens, part_of, span_upto, stream};
use crate::kernel::{Kernel, News, link_of, socket_of};
use crate::leave;
use crate::link::Word;
use crate::oracle::Oracle;
use crate::script::{Step, client_id};
use crate::tally::Tally;
use crate::trial::{Bounds, Scene, tell_begin, tell_turn};
use crate::ways::Fleet;
use crate::world::agenda::Happening;
use crate::world::mail::Pushes;

mod agenda;
mod fleet;
mod life;
mod mail;
mod making;
mod proofs;
mod seam;

/// More turns than this without the clock moving on: the gateway is busy with nothing.
const IDLE_TURNS_MAX: u32 = 200;

/// More steps than this are no story any more.
const STEPS_MAX: usize = 1_000_000;

/// In how many steps the world goes on while the process stands still.
const STALL_SLICES: u64 = 10;

/// All structures are checked after every turn in which something happened, and after every so
/// manieth completion or idle turn: walking them takes longer than all else.
const COMPLETIONS_PER_CHECK: usize = if cfg!(debug_assertions) { 8 } else { 1 };

/// Faults that come at moments planned before.
const STROKES: [Fault; 5] =
    [Fault::Stall, Fault::Nap, Fault::StallInTurn, Fault::Leap, Fault::Blackout];

/// Streams of randomness, beside those of the devices.
const WORLD: u64 = 1 << 40;
const KERNEL: u64 = 2 << 40;
const TURNS: u64 = 3 << 40;

/// What a world came to, for the summary.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) lived: Span,
    pub(crate) steps: usize,
    pub(crate) records: usize,
    pub(crate) clients: usize,
    pub(crate) tally: Tally,
    /// Differs when anything went differently.
    pub(crate) fingerprint: u64,
}

struct World {
    began_at: Moment,
    now: Moment,
    /// Beats from afar: the network is down until then.
    dark_until: Moment,
    rng: Rng,
    devices: Vec<usize>,
    config: GatewayConfig,
    gateway: Gateway,
    /// Between the kernel and the gateway.
    layers: Layers,
    fleet: Fleet,
    kernel: Kernel,
    oracle: Oracle,
    clients: Clients,
    agenda: BinaryHeap<Reverse<(Moment, u64, Happening)>>,
    agenda_next: u64,
    /// What befalls everything, and when; the latest first.
    strokes: Vec<(Moment, Fault)>,
    steps: usize,
    turns: u64,
    idle_turns: u32,
    /// Commands that the loop has not taken yet.
    kicks_waiting: u32,
    pushes: Pushes,
    /// What became of tokens, and was not told to the gateway yet.
    verdicts_waiting: Vec<(ConnId, u64)>,
    accept_failed_at: Option<Moment>,
    /// Whether the gateway always had the time that it gives itself.
    patience: Patience,
    /// Whether the process or the clock ever stands still or leaps.
    stands_still: bool,
    tally: Tally,
    fingerprint: DefaultHasher,
    is_traced: bool,
}

/// Lives through a world, and panics when a promise is broken in it.
pub(crate) fn live(bounds: &Bounds) -> Outcome {
    let mut world = World::new(bounds);
    world.populate();
    let end = world.now + part_of(&mut world.rng, world.config.rhythm.timeout, 200..900);
    while world.now < end && bounds.turns.is_none_or(|most| world.turns < most) {
        world.turn();
        world.pass_time(end);
    }
    world.drain();
    world.sum_up()
}

impl World {
    fn new(bounds: &Bounds) -> Self {
        let mut rng = stream(bounds.seed, WORLD, 0);
        let mut config = making::config(&mut rng);
        let fleet = fleet::fleet(bounds);
        let faults = Faults::swarm(&mut rng, bounds.faults.as_deref());
        let all = making::devices(&mut rng, &config);
        let guard = proofs::guard(bounds);
        guard.set_up(&mut config, all);
        let is_there = |device: &usize| match &bounds.devices {
            Some(devices) => devices.contains(device),
            None => true,
        };
        let devices: Vec<_> = (0..all).filter(is_there).collect();
        tell_begin(&devices, faults.all());
        // Not from zero: nothing may depend on it.
        let now = Moment::from_nanos(rng.u64(0..1 << 45));
        let stalls = [Fault::Stall, Fault::Nap, Fault::StallInTurn, Fault::Leap];
        let is_patient = !stalls.into_iter().any(|fault| faults.has(fault));
        let mut world = Self {
            began_at: now,
            now,
            dark_until: now,
            devices,
            gateway: Gateway::new(config.clone(), now),
            layers: Layers::new(fleet.terms()),
            fleet,
            kernel: Kernel::new(faults, stream(bounds.seed, KERNEL, 0), all, bounds.sabotage),
            oracle: Oracle::new(config.clone(), now),
            clients: Clients::new(bounds.seed),
            verdicts_waiting: Vec::new(),
            agenda: BinaryHeap::new(),
            agenda_next: 0,
            strokes: Vec::new(),
            steps: 0,
            turns: 0,
            idle_turns: 0,
            kicks_waiting: 0,
            pushes: Pushes::default(),
            accept_failed_at: None,
            patience: if is_patient { Patience::Kept } else { Patience::Slept },
            stands_still: !is_patient,
            tally: Tally::default(),
            fingerprint: DefaultHasher::new(),
            is_traced: std::env::var_os("TRACE").is_some(),
            config,
            rng: stream(bounds.seed, TURNS, bounds.course),
        };
        world.clients.guard = guard;
        world.clients.inboxes.is_roomy = mail::is_roomy(world.config.queue);
        world.trace(|| format!("{:?}\n{:?}", world.config, world.kernel.shop.faults.all()));
        world.hand_ops_over();
        world.read_ledger(now);
        world
    }

    fn populate(&mut self) {
        let timeout = self.config.rhythm.timeout;
        let rush = if self.rng.bool() { Span::from_millis(1) } else { timeout };
        for device in self.devices.clone() {
            let at = self.now + span_upto(&mut self.clients.rng_of(device), rush);
            self.plan(at, Happening::Connect { device });
        }
        for _ in 0..self.rng.u32(0..4) {
            let at = self.now + span_upto(&mut self.rng, timeout.times(4));
            self.plan(at, Happening::Kick);
        }
        for fault in [Fault::MassDeath, Fault::MassReset, Fault::Storm, Fault::Duel] {
            let at = self.now + span_upto(&mut self.rng, timeout.times(4));
            if self.kernel.shop.faults.strikes(&mut self.rng, fault) {
                self.plan(at, Happening::Disaster { fault });
            }
        }
        self.plan_pushes();
        self.plan_strokes();
        if self.devices.len() > 100 {
            self.tally.note("find", "more than a hundred clients", 1);
        }
    }

    /// Stalls and the like come at moments of their own, whatever else happens.
    fn plan_strokes(&mut self) {
        let longest = self.config.rhythm.timeout.times(6);
        for fault in STROKES {
            let count = if fault == Fault::Nap { 12 } else { 3 };
            for _ in 0..self.rng.u32(1..=count) {
                let at = self.now + span_upto(&mut self.rng, longest);
                if self.kernel.shop.faults.has(fault) {
                    self.strokes.push((at, fault));
                }
            }
        }
        self.strokes.sort_unstable();
        self.strokes.reverse();
    }

    /// Whether this is to happen now.
    fn is_struck_by(&mut self, fault: Fault) -> bool {
        let due = |(at, planned): &mut (Moment, Fault)| *at <= self.now && *planned == fault;
        let is_struck = self.strokes.last_mut().is_some_and(due);
        if is_struck {
            self.strokes.pop();
            self.kernel.shop.faults.played[fault as usize] += 1;
        }
        is_struck
    }

    // --- a turn ----------------------------------------------------------------------------------

    /// One turn of the loop: all input, then the time.
    fn turn(&mut self) {
        self.turns += 1;
        if self.oracle.drain_ordered.is_none() {
            tell_turn(self.turns); // a world is repeated by those before its end
        }
        let before = self.steps;
        self.live_upto_now();
        let begun_at = self.now;
        self.drain_kernel();
        self.work_layers();
        self.stand_still(Fault::StallInTurn);
        if self.strikes(Fault::Hurry) {
            return;
        }
        // The loop reads the clock before it drains, and perhaps again.
        let at = if self.rng.bool() { begun_at } else { self.now };
        self.oracle.on_told(at);
        self.oracle.turns += 1;
        self.oracle.on_time(at);
        self.gateway.on_time(at);
        self.steps += 1;
        self.read_ledger(at);
        self.hand_ops_over();
        self.check(at, before);
        for _ in 0..std::mem::take(&mut self.kicks_waiting) {
            self.kick();
        }
        self.push_what_waits();
        self.look_at_tokens();
        self.hand_ops_over();
        self.let_clients_hear();
    }

    fn drain_kernel(&mut self) {
        loop {
            while let Some(news) = self.kernel.next(self.now) {
                self.hand_in(news);
                if happens(&mut self.rng, 100) {
                    self.now += span_upto(&mut self.rng, Span::from_micros(30));
                    self.live_upto_now();
                }
                if !self.strikes(Fault::LateOps) {
                    self.hand_ops_over();
                }
            }
            self.hand_ops_over();
            // What the kernel can do at once it is given time for, or not until the next turn.
            let is_all = self.kernel.next_due().is_none_or(|due| due > self.now);
            if is_all || self.strikes(Fault::LateOps) {
                return;
            }
        }
    }

    /// Everything that must hold after the gateway looked at the time.
    fn check(&mut self, at: Moment, steps_before: usize) {
        // Of the turns in which nobody said anything only some.
        let is_idle = self.steps == steps_before + 1;
        if !is_idle || self.turns.is_multiple_of(COMPLETIONS_PER_CHECK as u64) {
            self.gateway.check();
        }
        let oracle = &self.oracle;
        self.kernel.check_heard(|conn| oracle.is_closing(conn));
        self.check_layers();
        assert!(self.steps < STEPS_MAX, "a world without end");
        let next_wake = self.gateway.next_wake();
        self.check_accepting(at, next_wake);
        let is_settled = next_wake.is_none_or(|wake| wake > at);
        if is_settled {
            self.oracle.check(at, next_wake);
            self.idle_turns = 0;
        } else if is_idle {
            self.idle_turns += 1;
            assert!(self.idle_turns < IDLE_TURNS_MAX, "busy with nothing: wake {next_wake:?}");
        }
        let stats = self.gateway.stats();
        assert_eq!(stats.online, self.oracle.online_count());
        assert_eq!(stats.held, self.oracle.held_count());
        assert_eq!(stats.connections, self.oracle.seats.len(), "a slot got lost");
        assert!(stats.connections <= self.capacity(), "P6: {} are here", stats.connections);
    }

    /// Whoever waits to be accepted is, unless the house is full or the machine was short of
    /// something a moment ago.
    fn check_accepting(&self, at: Moment, next_wake: Option<Moment>) {
        if self.kernel.is_deaf() && self.oracle.seats.len() < self.capacity() {
            let again_at = self.accept_failed_at;
            let again_at = again_at.map(|from| self.oracle.lived.due(from, limits::ACCEPT_PAUSE));
            let is_pause = again_at.is_some_and(|again_at| at < again_at);
            assert!(is_pause, "nobody accepts, and {} are here", self.oracle.seats.len());
            assert!(next_wake <= again_at, "nobody will accept again: wake {next_wake:?}");
        }
    }

    fn capacity(&self) -> usize {
        (self.config.connections_max + limits::REFUSALS_MAX) as usize
    }

    // --- time ------------------------------------------------------------------------------------

    /// Time passes until something is due, and sometimes longer.
    fn pass_time(&mut self, end: Moment) {
        let agenda = self.agenda.peek().map(|Reverse((at, _, _))| *at);
        let layers = if self.layers.has_work() { Some(self.now) } else { self.layers.next_wake() };
        let dues = [agenda, self.kernel.next_due(), self.gateway.next_wake(), layers];
        let next = dues.into_iter().flatten().min().unwrap_or(end).min(end);
        self.now = next.max(self.now + Span::from_nanos(self.rng.u64(1..2_000)));
        if self.is_struck_by(Fault::Blackout) {
            self.dark_until = self.now + span_upto(&mut self.rng, self.config.rhythm.timeout);
            self.trace(|| format!("the network is down until {:?}", self.dark_until));
        }
        if self.stand_still(Fault::Stall) || self.stand_still(Fault::Nap) {
            return;
        }
        if self.is_struck_by(Fault::Leap) {
            let leap = span_upto(&mut self.rng, self.config.rhythm.timeout.times(3));
            self.trace(|| format!("the clock leaps by {leap}"));
            self.now += leap;
            let agenda = std::mem::take(&mut self.agenda);
            let later = |Reverse((at, nth, what))| Reverse((at + leap, nth, what));
            self.agenda = agenda.into_iter().map(later).collect();
        } else if happens(&mut self.rng, 100) {
            self.now += span_upto(&mut self.rng, Span::from_millis(5));
        }
    }

    /// Perhaps the process stands still, while the others go on: what was handed to the kernel is
    /// done, and clients answer.
    fn stand_still(&mut self, fault: Fault) -> bool {
        // It is worst while a verdict waits for its answer.
        let is_worst = self.kernel.is_looking() && self.strikes(fault);
        if !is_worst && !self.is_struck_by(fault) {
            return false;
        }
        let longest = match fault == Fault::Nap {
            true => limits::STALL_THRESHOLD,
            false => self.config.rhythm.timeout.times(3),
        };
        let stall = span_upto(&mut self.rng, longest);
        self.trace(|| format!("the process stands still for {stall}"));
        for _ in 0..STALL_SLICES {
            self.now += stall.divided_by(STALL_SLICES);
            self.live_upto_now();
            self.kernel.work(self.now);
            self.let_clients_hear();
        }
        true
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        self.kernel.shop.faults.strikes(&mut self.rng, fault)
    }

    // --- the end ---------------------------------------------------------------------------------

    fn drain(&mut self) {
        self.trace(|| "drain".to_owned());
        for fault in [Fault::Stall, Fault::Nap, Fault::StallInTurn, Fault::Leap] {
            self.kernel.shop.faults.forbid(fault);
        }
        self.strokes.clear();
        let within = span_upto(&mut self.rng, Span::from_secs(5));
        if within < Span::from_secs(1) {
            self.patience = Patience::Slept; // it gives itself too little on purpose
        }
        let until = self.now + within;
        let drain = leave::drain(&mut self.rng, within);
        self.oracle.on_told(self.now);
        assert_eq!(self.gateway.on_command(Command::Drain(drain), self.now), Reply::Done);
        self.oracle.on_drain(drain.notice, within, self.now);
        self.tally.note("drain", "with notice", u64::from(drain.notice > Span::ZERO));
        self.tally.note("drain", "paced", u64::from(drain.pace != Pace::AtOnce));
        self.read_ledger(self.now);
        let mut end = until + self.config.tick.times(2) + Span::from_secs(2);
        if self.fleet.is_layered() {
            end += limits::LAYER_LINGER; // for the last word of a layer, which some do not take
        }
        while !self.gateway.is_drained() {
            assert!(self.now < end, "not drained by {end:?}");
            self.turn();
            self.pass_time(end);
        }
    }

    /// Nothing is left of it but numbers.
    fn sum_up(mut self) -> Outcome {
        let stats = self.gateway.stats();
        assert_eq!((stats.connections, stats.online), (0, 0), "somebody was left behind");
        assert_eq!(stats.stale, 0, "completions for connections that do not exist");
        assert_eq!(stats.seq_last, self.oracle.records as u64, "an event was not told");
        assert_eq!(stats.stalls, self.oracle.stalls, "a stall was not told");
        assert_eq!(stats.lateness.count, self.oracle.verdicts, "a verdict was not timed");
        assert_eq!(stats.resumed, self.oracle.resumed, "a return was not counted");
        assert_eq!(stats.returned, self.oracle.returned, "a return after a verdict");
        assert_eq!(stats.false_offline, self.oracle.false_offline, "a wrong verdict");
        self.sum_up_mail();
        assert_eq!(stats.held, 0, "a session is held for nobody");
        self.sum_up_layers();
        self.sum_up_tokens();
        self.kernel.check_empty();
        self.oracle.check_empty();
        for reason in CloseReason::ALL {
            self.tally.note("reason", reason.word(), stats.ended(reason));
        }
        let faults = &self.kernel.shop.faults;
        for (fault, played) in crate::faults::FAULTS.iter().zip(faults.played) {
            self.tally.note("fault", fault.1, played);
        }
        self.tally.note("find", "rescued", stats.rescued);
        self.tally.note("find", "ping answered", stats.pings_answered);
        self.tally.note("find", "wrong verdict", stats.false_offline);
        self.tally.add(&self.oracle.tally);
        (self.now, self.steps).hash(&mut self.fingerprint);
        Outcome {
            lived: self.now.since(self.began_at),
            steps: self.steps,
            records: self.oracle.records,
            clients: self.clients.len(),
            tally: self.tally,
            fingerprint: self.fingerprint.finish(),
        }
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>12} us  {}", self.now.as_nanos() / 1_000, line());
        }
    }
}

/// Reasons after which the other end is told with GOAWAY, and closes first.
pub(crate) fn is_told(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Replaced
            | CloseReason::Drain
            | CloseReason::Rebalance
            | CloseReason::Busy
            | CloseReason::Contested
    )
}
