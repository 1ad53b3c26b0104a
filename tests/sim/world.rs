//! One world: the real gateway, a pretend kernel, pretend clients, a naive twin, and a clock that
//! is only a number. Everything follows from the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};

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

use crate::admission;
use crate::clients::{Clients, Patience};
use crate::faults::{Fault, Faults, happens, part_of, span_upto, stream};
use crate::kernel::{Kernel, News, link_of, socket_of};
use crate::leave;
use crate::link::Word;
use crate::oracle::Oracle;
use crate::script::{Label, Step, client_id};
use crate::tally::Tally;
use crate::trial::{Bounds, tell_begin, tell_turn};
use crate::world::agenda::Happening;
use crate::world::mail::Pushes;

mod agenda;
mod mail;

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

fn config(rng: &mut Rng) -> GatewayConfig {
    let rhythms =
        [(200, 500), (1_000, 2_500), (2_000, 7_000), (15_000, 35_000), (240_000, 300_000)];
    let (interval, timeout) = rhythms[rng.usize(0..rhythms.len())];
    let rhythm = Rhythm::new(Span::from_millis(interval), Span::from_millis(timeout));
    // A tick that is long beside the timeout leaves no time for a ping and its answer.
    let tick_millis = [1, 10, 10, 64, 1_000][rng.usize(0..5)];
    let (handshake, frame, linger) = [(10, 10, 2), (3, 5, 1), (1, 1, 5)][rng.usize(0..3)];
    let patience = Span::from_millis(timeout - interval);
    let probe = match rng.u32(0..4) {
        0 => ProbePolicy::Off,
        1 => ProbePolicy::Fixed(part_of(rng, patience, 10..60)),
        _ => ProbePolicy::Auto,
    };
    let rhythm = rhythm.expect("a rhythm of the table");
    let grace = if rng.bool() { Span::ZERO } else { part_of(rng, rhythm.timeout, 1..300) };
    let duplicate = if happens(rng, 200) { Duplicate::Reject } else { Duplicate::TakeOver };
    let own = Class { rhythm, probe, grace, duplicate };
    let kept = Class { grace: part_of(rng, rhythm.timeout, 1..300), ..own };
    let strict = Class { duplicate: Duplicate::Reject, rhythm: Preset::Typical.rhythm(), ..own };
    let mut classes = vec![("kept".to_owned(), kept), ("strict".to_owned(), strict)];
    classes.truncate(rng.usize(0..3));
    GatewayConfig {
        queue: mail::queue(rng, rhythm),
        rhythm,
        grace,
        duplicate,
        classes,
        resume_key: [rng.u64(..), rng.u64(..)],
        mode: [Mode::Client, Mode::Client, Mode::Server, Mode::Either][rng.usize(0..4)],
        probe,
        tick: Span::from_millis(tick_millis.min(timeout / 20)),
        connections_max: [3, 20, 1_000, 1_000][rng.usize(0..4)],
        handshake_timeout: Span::from_secs(handshake),
        frame_timeout: Span::from_secs(frame),
        linger_timeout: Span::from_secs(linger),
        outbox_bytes_max: [2_048, limits::OUTBOX_BYTES_MAX][rng.usize(0..2)],
        payload_bytes_max: 1_024,
        epoch_first: rng.u64(1..1_000_000),
        hash_key: [rng.u64(..), rng.u64(..)],
        seed: rng.u64(..),
        admission: admission::loose(rng),
        client_limits: admission::patient(rng),
        ..GatewayConfig::default()
    }
}

/// How many devices: mostly a few, now and then a crowd.
fn devices(rng: &mut Rng, config: &GatewayConfig) -> usize {
    let (few, crowd) = (rng.usize(1..=25), rng.usize(100..=300));
    // Sometimes more than there are slots for, the refused ones included.
    let is_crowd = match config.connections_max {
        3 => happens(rng, 150),
        20 => false,
        _ => happens(rng, 40),
    };
    if is_crowd { crowd } else { few }
}

impl World {
    fn new(bounds: &Bounds) -> Self {
        let mut rng = stream(bounds.seed, WORLD, 0);
        let config = config(&mut rng);
        let faults = Faults::swarm(&mut rng, bounds.faults.as_deref());
        let all = devices(&mut rng, &config);
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
            kernel: Kernel::new(faults, stream(bounds.seed, KERNEL, 0), all, bounds.sabotage),
            oracle: Oracle::new(config.clone(), now),
            clients: Clients::new(bounds.seed),
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
        tell_turn(self.turns);
        let before = self.steps;
        self.live_upto_now();
        let begun_at = self.now;
        self.drain_kernel();
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
        self.kernel.check_heard();
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
        let dues = [agenda, self.kernel.next_due(), self.gateway.next_wake()];
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

    // --- between kernel and gateway --------------------------------------------------------------

    fn hand_in(&mut self, news: News) {
        self.trace(|| format!("kernel: {news:?}"));
        self.steps += 1;
        let now = self.now;
        self.oracle.on_told(now);
        match news {
            News::Accepted { link } => {
                let peer = self.kernel.link(link).peer;
                self.gateway
                    .on_completion(Completion::Accepted { socket: socket_of(link), peer }, now);
                self.hand_ops_over();
                let stats = self.gateway.stats();
                let room = self.capacity() - stats.connections;
                let is_open = stats.held == 0 || room >= limits::HELD_ROOM_MIN;
                assert!(is_open, "P6: {} sessions are held, and the house is full", stats.held);
            }
            News::AcceptFailed { fault } => {
                self.accept_failed_at = Some(now);
                self.gateway.on_completion(Completion::AcceptFailed { fault }, now);
            }
            News::Of { link, conn, word } => self.hand_in_word(link, conn, word),
        }
        self.read_ledger(now);
        if self.steps.is_multiple_of(COMPLETIONS_PER_CHECK) {
            self.gateway.check();
        }
    }

    fn hand_in_word(&mut self, link: usize, conn: ConnId, word: Word) {
        let now = self.now;
        match word {
            Word::Received(bytes) => {
                let (labels, begun_bytes) = self.kernel.hand_over(link, bytes.len());
                self.trace(|| format!("  is {labels:?}, then {begun_bytes} bytes"));
                self.gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
                self.oracle.on_received(conn, &labels, begun_bytes, now);
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
                let waiting_since = self.kernel.link(link).waiting_since();
                self.oracle.on_looked(conn, found, tcp, waiting_since, now);
            }
            Word::Closed => {
                self.gateway.on_completion(Completion::Closed { conn }, now);
                let (reason, silences) = self.oracle.on_closed(conn);
                self.let_clients_hear();
                self.clients.check_pings(link, silences);
                self.clients.on_closed(link, reason, self.kernel.link(link), self.patience);
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
                    self.oracle.on_adopted(*conn, link_of(*socket), self.now);
                }
                Op::Send { conn, .. } => self.oracle.on_send_asked(*conn, self.now),
                Op::Look { conn } => self.oracle.on_look_asked(*conn),
                Op::Close { conn, .. } => self.oracle.on_close_asked(*conn),
                Op::Accept { .. }
                | Op::StopAccepting
                | Op::Connect(_)
                | Op::Discard { .. }
                | Op::Receive { .. }
                | Op::Pause { .. }
                | Op::SetUserTimeout { .. }
                | Op::Move(_) => {}
            }
            self.kernel.submit(op, self.now);
        }
    }

    /// Reads what the ledger says since the last time, all of it of this moment.
    fn read_ledger(&mut self, at: Moment) {
        let mut records = Vec::new();
        self.gateway.take_events(&mut records, usize::MAX);
        for record in &records {
            self.trace(|| format!("ledger: {record:?}"));
            (record.seq, record.at, record.event.word()).hash(&mut self.fingerprint);
            self.assert_was_asked(&record.event);
        }
        // A small outbox can run full of answers before the kernel had a chance to send any.
        let is_small = self.config.outbox_bytes_max < limits::OUTBOX_BYTES_MAX;
        let is_stuck = |link: usize| is_small || !self.kernel.link(link).is_reading();
        self.oracle.on_records(&records, at, is_stuck);
    }

    /// Whoever is asked before it is judged was asked indeed.
    fn assert_was_asked(&mut self, event: &Event) {
        let Event::Offline { conn, reason: CloseReason::HeartbeatTimeout, last_beat, .. } = event
        else {
            return;
        };
        self.let_clients_hear();
        let Some(link) = self.oracle.seats.get(conn).map(|seat| seat.link) else { return };
        let wire = self.kernel.link(link);
        let can_be_asked = wire.is_reading() && !wire.is_peer_gone();
        // Standing still for less than what is credited takes from the time to answer.
        let still = match self.stands_still {
            true => (limits::SLEEP_MAX + limits::STALL_THRESHOLD).times(2),
            false => Span::ZERO,
        };
        let has_time = self.oracle.leaves_time_for_a_ping(*conn, still);
        if can_be_asked && has_time {
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
            let is_dark =
                at < self.dark_until && !matches!(happening, Happening::Kick | Happening::Push);
            if is_dark {
                self.plan(self.dark_until, happening);
            } else {
                self.trace(|| format!("{happening:?}"));
                self.happen(happening, at);
            }
        }
    }

    fn happen(&mut self, happening: Happening, at: Moment) {
        match happening {
            Happening::Connect { device } => {
                let rng = self.clients.next_rng_of(device);
                let link = self.kernel.connect(rng);
                let wait = self.clients.on_connected(link, device, &self.config);
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::Act { link });
                }
            }
            Happening::Act { link } => {
                let Some((step, wait)) = self.clients.next_step(link) else { return };
                self.tally.note("step", step.word(), 1);
                self.act(link, step, at);
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::Act { link });
                }
            }
            Happening::Answer { link } => {
                if let Some(pong) = self.clients.pong(link) {
                    self.kernel.arrive(link, &pong, &[(pong.len(), Label::Beat)], at);
                }
            }
            Happening::Ack { link, seq } => {
                if let Some(ack) = self.clients.ack(link, seq) {
                    self.kernel.arrive(link, &ack, &[(ack.len(), Label::Beat)], at);
                }
            }
            Happening::Leave { link } => self.kernel.touch(link, |wire| wire.finish()),
            Happening::GiveUp { link } => {
                self.kernel.touch(link, |wire| wire.break_with(IoFault::TimedOut));
            }
            Happening::Kick => self.kicks_waiting += 1,
            Happening::Push => self.pushes.waiting += 1,
            Happening::Disaster { fault } => self.befall(fault, at),
        }
    }

    fn act(&mut self, link: usize, step: Step, at: Moment) {
        match step {
            Step::Write { bytes, ends } => self.kernel.arrive(link, &bytes, &ends, at),
            Step::Greet { hello, shows } => {
                let (bytes, label) = self.clients.hello(link, hello, shows);
                self.kernel.arrive(link, &bytes, &[(bytes.len(), label)], at);
            }
            Step::Finish => self.kernel.touch(link, |wire| wire.finish()),
            Step::Reset => self.kernel.touch(link, |wire| wire.break_with(IoFault::Reset)),
            Step::Fail => self.kernel.touch(link, |wire| wire.break_with(IoFault::Unreachable)),
            Step::Restart => self.kernel.touch(link, |wire| wire.forget()),
            Step::Vanish => {
                let patience = self.config.rhythm.timeout.times(2);
                let mut wait = None;
                self.kernel.touch(link, |wire| {
                    let window_bytes = wire.rng.usize(0..3_000);
                    wire.stop_reading(window_bytes);
                    wait = wire.rng.bool().then(|| span_upto(&mut wire.rng, patience));
                });
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::GiveUp { link });
                }
            }
            Step::StopReading => self.kernel.touch(link, |wire| {
                let window_bytes = wire.rng.usize(100..2_000);
                wire.stop_reading(window_bytes);
            }),
            Step::ConnectAgain => {
                let device = self.clients.device(link);
                self.plan(at, Happening::Connect { device });
            }
        }
    }

    fn befall(&mut self, fault: Fault, at: Moment) {
        if fault == Fault::Storm {
            for device in self.devices.clone() {
                self.plan(at, Happening::Connect { device });
            }
            return;
        }
        if fault == Fault::Duel {
            let Some(device) = self.devices.first().copied() else { return };
            let mut at = at;
            for _ in 0..self.rng.u32(4..30) {
                at += span_upto(&mut self.rng, Span::from_secs(2));
                self.plan(at, Happening::Connect { device });
            }
            return;
        }
        for link in self.kernel.held() {
            let is_hit = self.clients.device(link).is_multiple_of(2);
            if is_hit && fault == Fault::MassDeath {
                self.clients.vanish(link);
                self.act(link, Step::Vanish, at);
            } else if is_hit {
                self.act(link, Step::Reset, at);
            }
        }
    }

    /// Clients read what came, and do what follows from it.
    fn let_clients_hear(&mut self) {
        for (link, bytes) in self.kernel.take_heard() {
            let answers = self.clients.hear(link, &bytes, self.now);
            for wait in answers.pongs {
                self.plan(self.now + wait, Happening::Answer { link });
            }
            for (seq, wait) in answers.acks {
                self.plan(self.now + wait, Happening::Ack { link, seq });
            }
            if let Some(wait) = answers.leaves {
                self.plan(self.now + wait, Happening::Leave { link });
            }
        }
    }

    fn kick(&mut self) {
        self.oracle.on_told(self.now);
        if self.rng.usize(0..3) == 0 {
            return self.rebalance();
        }
        let online = self.oracle.online();
        let absent = Command::Kick(Kick::of(ClientId::new("nobody").expect("a client id")));
        assert_eq!(self.gateway.on_command(absent, self.now), Reply::NoSuchClient);
        if !online.is_empty() {
            let device = online[self.rng.usize(0..online.len())];
            let client = ClientId::new(&client_id(device)).expect("a client id");
            let kick = Command::Kick(Kick::of(client));
            assert_eq!(self.gateway.on_command(kick, self.now), Reply::Done);
            self.oracle.on_kick(device, self.now);
        }
        self.read_ledger(self.now);
    }

    /// A part of them is asked to go elsewhere.
    fn rebalance(&mut self) {
        let rebalance = leave::rebalance(&mut self.rng);
        let reply = self.gateway.on_command(Command::Rebalance(rebalance), self.now);
        self.read_ledger(self.now);
        if self.oracle.drain_ordered.is_some() {
            return assert_eq!(reply, Reply::Draining);
        }
        assert_eq!(reply, Reply::Done);
        self.oracle.on_rebalance();
        self.tally.note("drain", "rebalance", 1);
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
        let end = until + self.config.tick.times(2) + Span::from_secs(2);
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
