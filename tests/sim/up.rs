//! Worlds in which clients talk and are talked to, and backends are slow: the real gateway on the
//! pretend kernel, with a budget that is always too small, in every mode, while the configuration
//! changes under it.
//!
//! What must hold, on the way up: of every connection each DATA frame is handed up once and in
//! order, and none is left out; an ACK comes when everything up to it was taken, and comes at last;
//! what is not taken stays within its bound; nobody is judged who beats, however long it is not
//! read; whoever fell silent is found once it is read again; and nobody waits for ever.
//!
//! And on the way down: messages come in order, and none before what was acknowledged; none is
//! lost but for want of room, for its age, or with its session; and what is said of each agrees
//! with what its client saw.

mod device;
mod down;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use fastrand::Rng;
use heartwheel::base::config::{GatewayConfig, Mode, Rhythm, TransportEvents};
use heartwheel::base::data::{Credit, DataTicket, Fate};
use heartwheel::base::event::{CloseReason, Event, TransportEvent};
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Op};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{Command, Drain, Gateway};

use crate::faults::{Faults, happens, part_of, span_upto};
use crate::kernel::{Kernel, News, link_of, socket_of};
use crate::link::Word;
use crate::script::client_id;
use crate::up::device::{Device, End, Wire};
use crate::up::down::{Down, Session};

const SEEDS: u64 = 100;
/// Of one message, topic and content included, at the most.
const BODY_BYTES_MAX: usize = 900;

/// What happens by itself.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Happening {
    Connect(usize),
    /// A device says something, by the connection with that number.
    Speak(usize, usize),
    /// A device loses its connection, if it has one.
    Lose(usize),
    /// A device reads on.
    ReadOn(usize),
    End(usize),
    /// Something that was handed up is dealt with.
    Credit(DataTicket),
    Push,
    Regroup,
    Reload,
    Measure,
}

struct World {
    now: Moment,
    rng: Rng,
    config: GatewayConfig,
    gateway: Gateway,
    kernel: Kernel,
    devices: Vec<Device>,
    /// By link.
    wires: BTreeMap<usize, Wire>,
    links: BTreeMap<ConnId, usize>,
    sessions: BTreeMap<u64, Session>,
    agenda: BinaryHeap<Reverse<(Moment, Happening)>>,
    /// Of what was handed up, by ticket: whose it is, and its number.
    waiting: BTreeMap<DataTicket, (usize, u32)>,
    credits: Vec<Credit>,
    /// How long backends take at most.
    slowness: Span,
    /// Nothing is dealt with until then.
    stuck_until: Moment,
    /// Clients beat and send nothing, and nobody sends anything to them.
    is_quiet: bool,
    is_draining: bool,
    /// That of the start; whatever is configured later is no shorter.
    rhythm: Rhythm,
    down: Down,
    /// What happened, by its word.
    seen: BTreeMap<&'static str, u64>,
}

#[test]
fn whoever_talks_is_heard_in_order_and_waits_its_turn() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let only = number("UP_SEED");
    let seeds = only.map_or(0..number("UP_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let is_all = only.is_none();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| live(seed));
        let lived = outcome.unwrap_or_else(|_| panic!("UP_SEED={seed} broke a promise"));
        lived.into_iter().for_each(|(word, count)| *seen.entry(word).or_default() += count);
    }
    println!("{seen:?}");
    assert!(!is_all || seen["stopped"] > 10 * SEEDS, "{seen:?}");
    let missing: Vec<_> = HAPPENINGS.iter().filter(|word| !seen.contains_key(*word)).collect();
    assert!(!is_all || missing.is_empty(), "never: {missing:?}");
}

/// What has to happen in some world.
const HAPPENINGS: [&str; 27] = [
    "bye",
    "closed_by_peer",
    "drain",
    "heartbeat_timeout",
    "replaced",
    "reset",
    "slow_consumer",
    "stopped",
    "resumed",
    "resumed while stopped",
    "sent again",
    "acked",
    "delivered",
    "queued",
    "slow",
    "offline",
    "unknown",
    "too old",
    "dropped as the oldest",
    "dropped as the newest",
    "another session",
    "broadcast",
    "group",
    "reloaded",
    "measured",
    "refused",
    "slept",
];

fn live(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed);
    let timeout = world.rhythm.timeout;
    world.run(world.now + timeout.times(10));
    // Everybody has said all it wants to; now everything is dealt with, and time passes.
    world.is_quiet = true;
    world.stuck_until = world.now;
    world.slowness = Span::from_millis(1);
    world.run(world.now + timeout.times(8));
    world.check_end();
    let within = Span::from_secs(2);
    world.is_draining = true;
    world.gateway.on_command(Command::Drain(Drain::at_once(within)), world.now);
    world.run(world.now + Span::from_secs(5));
    assert!(world.gateway.is_drained());
    assert_eq!(world.gateway.stats().up.bytes, 0);
    assert_eq!(world.gateway.stats().stale, 0, "somebody spoke of what is gone");
    world.sum_up_messages();
    world.kernel.check_empty();
    world.seen
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x7A1C);
        let rhythm = Rhythm::new(Span::from_millis(1_000), Span::from_millis(2_500));
        let rhythm = rhythm.expect("a rhythm");
        let config = GatewayConfig {
            rhythm,
            mode: [Mode::Client, Mode::Server, Mode::Either][rng.usize(0..3)],
            probe: down::probe(&mut rng),
            grace: down::grace(&mut rng, rhythm),
            up_bytes_max: rng.usize(1_500..20_000),
            payload_bytes_max: 1_024,
            outbox_bytes_max: [2_000, limits::OUTBOX_BYTES_MAX][rng.usize(0..2)],
            queue: down::queue(&mut rng, rhythm),
            classes: down::classes(&mut rng, rhythm),
            transport_events: TransportEvents::Told,
            resume_key: [seed, 1],
            seed,
            ..GatewayConfig::default()
        };
        let faults = Faults::swarm(&mut rng, None);
        let count = rng.usize(1..12);
        let now = Moment::from_millis(1_000);
        let mut world = Self {
            now,
            gateway: Gateway::new(config.clone(), now),
            kernel: Kernel::new(faults, rng.fork(), count, None),
            devices: (0..count).map(|_| Device::new(&mut rng, config.mode)).collect(),
            wires: BTreeMap::new(),
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            credits: Vec::new(),
            slowness: [1, 50, 3_000].map(Span::from_millis)[rng.usize(0..3)],
            stuck_until: now,
            is_quiet: false,
            is_draining: false,
            rhythm,
            down: Down::new(config.queue),
            seen: BTreeMap::new(),
            config,
            rng,
        };
        world.gateway.set_data_wanted(true);
        world.hand_ops_over();
        (0..count).for_each(|device| world.plan_life(device));
        world.plan_talk();
        world
    }

    fn plan(&mut self, at: Moment, happening: Happening) {
        self.agenda.push(Reverse((at, happening)));
    }

    fn note(&mut self, word: &'static str) {
        *self.seen.entry(word).or_default() += 1;
    }

    // --- time ------------------------------------------------------------------------------------

    fn run(&mut self, end: Moment) {
        while self.now < end {
            self.turn();
            let agenda = self.agenda.peek().map(|Reverse((at, _))| *at);
            let dues = [agenda, self.kernel.next_due(), self.gateway.next_wake()];
            let next = dues.into_iter().flatten().min().unwrap_or(end).min(end);
            self.now = next.max(self.now + Span::from_micros(self.rng.u64(1..50)));
            if happens(&mut self.rng, 1) && !self.is_quiet {
                // The process stands still, and the others go on.
                let until = self.now + part_of(&mut self.rng, self.rhythm.timeout, 1..200);
                while self.now < until {
                    self.now += Span::from_millis(100);
                    self.live_upto_now();
                    self.kernel.work(self.now);
                }
            }
        }
    }

    fn turn(&mut self) {
        self.live_upto_now();
        loop {
            while let Some(news) = self.kernel.next(self.now) {
                self.hand_in(news);
                self.hand_ops_over();
            }
            if self.kernel.next_due().is_none_or(|due| due > self.now) {
                break;
            }
        }
        self.gateway.on_time(self.now);
        self.gateway.on_credits(&std::mem::take(&mut self.credits), self.now);
        self.settle();
        self.command();
        self.kernel.check_heard(|_| false);
        self.let_clients_hear();
    }

    /// What the gateway has to say is taken from it.
    fn settle(&mut self) {
        self.hand_ops_over();
        self.gateway.check();
        let offline = self.read_ledger();
        self.take_data();
        self.read_transport();
        for (conn, reason) in offline {
            let link = self.links[&conn];
            let ended_by = self.wire(link).ended_by;
            // Whoever is away is ended by the policy as well.
            let is_policy = reason == CloseReason::SlowConsumer && self.down.has_ever_closed;
            let is_told = ended_by == Some(reason) || reason == CloseReason::Drain || is_policy;
            assert!(is_told, "{conn} {reason} {ended_by:?}: {:?}", self.wires[&link]);
        }
    }

    fn hand_in(&mut self, news: News) {
        let now = self.now;
        let completion = match &news {
            News::Accepted { link } => {
                let peer = self.kernel.link(*link).peer;
                Completion::Accepted { socket: socket_of(*link), peer }
            }
            News::AcceptFailed { fault } => Completion::AcceptFailed { fault: *fault },
            News::Of { link, word: Word::Received(bytes), conn } => {
                self.kernel.hand_over(*link, bytes);
                let wire = self.wire(*link);
                wire.handed_at = Some(now);
                wire.handed_bytes += bytes.len() as u64;
                Completion::Received { conn: *conn, bytes }
            }
            News::Of { conn, word: Word::Ended(end), .. } => {
                Completion::ReceiveEnded { conn: *conn, end: *end }
            }
            News::Of { conn, word: Word::Looked(found, tcp), .. } => {
                Completion::Looked { conn: *conn, found: *found, tcp: *tcp }
            }
            News::Of { conn, word: Word::Closed, .. } => Completion::Closed { conn: *conn },
            News::Of { word: Word::Sent(..), .. } => {
                let News::Of { conn, word: Word::Sent(chunk, result), .. } = news else { return };
                let sent = Completion::Sent { conn, chunk, result };
                return self.gateway.on_completion(sent, now);
            }
        };
        self.gateway.on_completion(completion, now);
    }

    fn hand_ops_over(&mut self) {
        let mut ops = Vec::new();
        self.gateway.take_ops(&mut ops);
        for op in ops {
            if let Op::Adopt { socket, conn } = &op {
                self.links.insert(*conn, link_of(*socket));
            }
            self.kernel.submit(op, self.now);
        }
    }

    fn wire(&mut self, link: usize) -> &mut Wire {
        self.wires.get_mut(&link).expect("a device's")
    }

    fn live_upto_now(&mut self) {
        while let Some(Reverse((at, happening))) = self.agenda.peek().copied() {
            if at > self.now {
                return;
            }
            self.agenda.pop();
            match happening {
                Happening::Connect(device) => self.connect(device, at),
                Happening::Speak(device, number) => self.speak(device, number, at),
                Happening::Lose(device) => self.lose(device, at),
                Happening::ReadOn(device) => self.read_on(device),
                Happening::End(device) => self.end(device, at),
                Happening::Credit(ticket) if at < self.stuck_until => {
                    self.plan(self.stuck_until, Happening::Credit(ticket));
                }
                Happening::Credit(ticket) => self.give_back(ticket),
                Happening::Push => self.down.pushes += 1,
                Happening::Regroup => self.down.regroups += 1,
                Happening::Reload => self.down.reloads += 1,
                Happening::Measure => self.down.measures += 1,
            }
        }
        if happens(&mut self.rng, 1) && self.slowness > Span::from_millis(1) {
            let longest = self.rhythm.timeout.times(3);
            self.stuck_until = self.now + span_upto(&mut self.rng, longest);
        }
    }

    // --- backends --------------------------------------------------------------------------------

    fn take_data(&mut self) {
        let mut records = Vec::new();
        self.gateway.take_data(&mut records, usize::MAX);
        for record in records {
            let device = self.device_of(record.client.as_str());
            let number = record.body.first_chunk().expect("the connection's number");
            let number = u32::from_be_bytes(*number) as usize;
            let epoch = record.ticket.epoch;
            let acked = self.devices[device].on_taken(epoch, number, record.seq);
            let session = self.sessions.get_mut(&epoch).expect("it is online");
            assert_eq!(session.device, device);
            session.ack_read = session.ack_read.max(acked);
            let other = self.waiting.insert(record.ticket, (device, record.seq));
            assert_eq!(other, None, "{:?} stands for two", record.ticket);
            let at = self.now + span_upto(&mut self.rng, self.slowness);
            self.plan(at, Happening::Credit(record.ticket));
        }
        let up = self.gateway.stats().up;
        self.seen.insert("stopped", up.stops);
        // Beyond the budget there is one message for each client that was stopped by it, and each
        // session may have been before it lost its connection.
        let over = self.sessions.len() * 1_500;
        assert!(up.bytes <= self.config.up_bytes_max + over, "{up:?}");
        let most = 2 * self.config.up_bytes_max + limits::UP_OVERSHOOT_BYTES;
        assert!(up.bytes + up.unread_bytes <= most, "{up:?}");
    }

    fn give_back(&mut self, ticket: DataTicket) {
        let (device, seq) = self.waiting.remove(&ticket).expect("it was handed up");
        let fate = if happens(&mut self.rng, 50) { Fate::Unclaimed } else { Fate::Taken };
        self.credits.push(Credit { ticket, fate });
        self.devices[device].on_fate(ticket.epoch, seq, fate);
    }

    // --- what the gateway tells ------------------------------------------------------------------

    fn device_of(&self, client: &str) -> usize {
        let named = |nth: &usize| client_id(*nth) == client;
        (0..self.devices.len()).find(named).expect("a client of ours")
    }

    /// Who went, by which connection, and why.
    fn read_ledger(&mut self) -> Vec<(ConnId, CloseReason)> {
        let (mut records, mut offline) = (Vec::new(), Vec::new());
        self.gateway.take_events(&mut records, usize::MAX);
        for record in records {
            match record.event {
                Event::Online { client, epoch, conn, .. } => {
                    let device = self.device_of(client.as_str());
                    let before = self.devices[device].online.replace(epoch);
                    assert_eq!(before, None, "P5: ONLINE follows OFFLINE");
                    let is_deaf = self.wires[&self.links[&conn]].is_deaf;
                    let other = self.sessions.insert(epoch, Session::new(device, is_deaf));
                    assert!(other.is_none(), "{epoch} is another's");
                }
                Event::Resumed { client, epoch, conn, .. } => {
                    let device = self.device_of(client.as_str());
                    let session = self.sessions.get_mut(&epoch).expect("it is online");
                    session.is_deaf |= self.wires[&self.links[&conn]].is_deaf;
                    assert_eq!(self.devices[device].online, Some(epoch));
                    self.note("resumed");
                }
                Event::Offline { client, epoch, conn, reason, .. } => {
                    let device = self.device_of(client.as_str());
                    assert_eq!(self.devices[device].online.take(), Some(epoch));
                    let session = self.sessions.get_mut(&epoch).expect("it was online");
                    session.over = Some(reason);
                    offline.push((conn, reason));
                    self.note(reason.word());
                }
                Event::Started { .. }
                | Event::Stalled { .. }
                | Event::Stopped
                | Event::Contested { .. }
                | Event::Rhythm { .. } => {}
            }
        }
        offline
    }

    fn read_transport(&mut self) {
        let mut records = Vec::new();
        self.gateway.take_transport(&mut records, usize::MAX);
        for record in records {
            if let TransportEvent::Disconnected { conn, client: Some(_), reason, .. } = record.event
            {
                self.check_reason(conn, reason);
                let link = self.links[&conn];
                self.wire(link).ended_by.get_or_insert(reason);
            }
        }
    }

    /// Nobody ends but by its own doing, or by what the policies say.
    fn check_reason(&mut self, conn: ConnId, reason: CloseReason) {
        let now = self.now;
        let wire = &self.wires[&self.links[&conn]];
        let is_right = if reason == CloseReason::Drain {
            self.is_draining
        } else if reason == CloseReason::SlowConsumer {
            let is_policy = self.down.is_ever_tight && self.down.has_ever_closed;
            is_policy || wire.has_been_slow
        } else if reason == CloseReason::HeartbeatTimeout {
            let heard_at = wire.handed_at.expect("it said HELLO");
            assert!(now.since(heard_at) >= self.rhythm.timeout, "P1: {wire:?} at {now:?}");
            let unread = self.devices[wire.device].unread(wire);
            assert_eq!(unread, 0, "P3: {wire:?} said something that is not read");
            wire.is_silent || wire.is_asleep()
        } else {
            wire.excuses.contains(&reason)
        };
        assert!(is_right, "P3: {reason} of {wire:?} at {now:?}");
    }

    /// Everything was dealt with a while ago.
    fn check_end(&mut self) {
        let stats = self.gateway.stats();
        assert_eq!(stats.up.stopped, 0, "somebody waits for ever");
        assert_eq!(stats.up.bytes, 0, "everything was taken");
        for (nth, device) in self.devices.iter().enumerate() {
            let is_here = device.online.is_some();
            assert_eq!(is_here, device.end == End::Stays, "{nth}: {device:?}");
            device.check_end(&self.wires);
        }
        self.let_clients_hear();
        self.check_messages_at_end();
    }
}
