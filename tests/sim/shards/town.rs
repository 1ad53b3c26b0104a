//! A town: its gateways, its connections, the kernel between them, and an oracle.

use std::collections::BTreeMap;

use fastrand::Rng;
use heartwheel::base::config::{GatewayConfig, ProbePolicy, Rhythm, Shard};
use heartwheel::base::event::{CloseReason, Event, Record};
use heartwheel::base::ids::ConnId;
use heartwheel::base::introduction::Baggage;
use heartwheel::base::io::{
    CloseHow, Completion, Found, IoFault, Op, ReceiveEnd, SocketHandle, Stay,
};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{Command, Drain, Gateway, Reply, owner};

use crate::faults::{happens, span_upto};
use crate::shards::wire::{Habit, Place, Wire, client_id};

const TICK: Span = Span::from_millis(10);
const TIMEOUT: Span = Span::from_secs(3);
const STEP_MAX: Span = Span::from_millis(150);
const STEPS: usize = 250;
const COMPLETIONS_PER_CHECK: u64 = 16;

/// A connection between two shards.
struct Parcel {
    wire: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// What happened in a town, so that it can be seen to have been worth it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    connections: u64,
    moved: u64,
    stayed: u64,
    arrivals_failed: u64,
    online: u64,
    replaced: u64,
    resumed: u64,
    verdicts: u64,
    refused: u64,
    drained_on_the_way: u64,
}

impl Sum {
    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.moved += other.moved;
        self.stayed += other.stayed;
        self.arrivals_failed += other.arrivals_failed;
        self.online += other.online;
        self.replaced += other.replaced;
        self.resumed += other.resumed;
        self.verdicts += other.verdicts;
        self.refused += other.refused;
        self.drained_on_the_way += other.drained_on_the_way;
    }

    pub(super) fn insist(&self) {
        for (what, count) in [
            ("moved", self.moved),
            ("stayed", self.stayed),
            ("failed to arrive", self.arrivals_failed),
            ("came online", self.online),
            ("was replaced", self.replaced),
            ("was resumed", self.resumed),
            ("was judged dead", self.verdicts),
            ("was refused", self.refused),
            ("was on its way in a drain", self.drained_on_the_way),
        ] {
            assert!(count > 0, "nobody {what}: {self:?}");
        }
    }
}

pub(super) struct Town {
    rng: Rng,
    now: Moment,
    gateways: Vec<Gateway>,
    accepts: Vec<u32>,
    wires: Vec<Wire>,
    conns: BTreeMap<(usize, ConnId), usize>,
    parcels: Vec<Parcel>,
    shard: Shard,
    clients: usize,
    badges: BTreeMap<usize, Vec<u8>>,
    /// By client: its epoch, and the connection.
    online: BTreeMap<String, (u64, usize)>,
    epochs: BTreeMap<String, u64>,
    epochs_seen: BTreeMap<u64, usize>,
    is_open: bool,
    completions: u64,
    sum: Sum,
}

impl Town {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Moment::from_millis(1_000);
        let count = rng.u16(2..=3);
        let connections_max = if rng.bool() { 100 } else { rng.u32(2..8) };
        let shard = Shard { index: 0, count, key: [seed, 9], connections_total: u32::MAX };
        let config = GatewayConfig {
            rhythm: Rhythm { interval: Span::from_secs(1), timeout: TIMEOUT },
            probe: ProbePolicy::Off,
            grace: if rng.bool() { Span::from_secs(2) } else { Span::ZERO },
            connections_max,
            tick: TICK,
            epoch_first: 1_000,
            ..GatewayConfig::default()
        };
        let gateway = |index| {
            let shard = Shard { index, ..shard };
            let seed = seed * 7 + u64::from(index);
            Gateway::new(GatewayConfig { shard, seed, ..config.clone() }, now)
        };
        Self {
            gateways: (0..count).map(gateway).collect(),
            accepts: vec![0; usize::from(count)],
            clients: rng.usize(1..12),
            rng,
            now,
            wires: Vec::new(),
            conns: BTreeMap::new(),
            parcels: Vec::new(),
            shard,
            badges: BTreeMap::new(),
            online: BTreeMap::new(),
            epochs: BTreeMap::new(),
            epochs_seen: BTreeMap::new(),
            is_open: true,
            completions: 0,
            sum: Sum::default(),
        }
    }

    pub(super) fn live(mut self) -> Sum {
        self.take_ops();
        for _ in 0..STEPS {
            for _ in 0..self.rng.usize(0..3) {
                self.connect();
            }
            self.clients_act();
            for _ in 0..self.rng.usize(0..30) {
                self.kernel_acts();
            }
            self.turn();
        }
        self.drain();
        self.check_end();
        self.sum
    }

    // --- the clients -----------------------------------------------------------------------------

    fn connect(&mut self) {
        let client = self.rng.usize(0..self.clients);
        let habit = if happens(&mut self.rng, 150) { Habit::IsSilent } else { Habit::Beats };
        let badge = self.badges.get(&client).filter(|_| self.rng.bool());
        let badge = badge.cloned().unwrap_or_default();
        let mut wire = Wire::new(client, habit, &badge, self.now);
        for _ in 0..self.rng.usize(0..4) {
            wire.ping(); // behind the greeting, in the same breath
        }
        self.sum.connections += 1;
        self.wires.push(wire);
    }

    fn clients_act(&mut self) {
        let now = self.now;
        for wire in self.wires.iter_mut().filter(|wire| wire.is_there() && wire.acts_at <= now) {
            let rng = &mut self.rng;
            wire.acts_at = now + span_upto(rng, Span::from_millis(400));
            if !wire.unsaid.is_empty() {
                wire.acts_at = now + span_upto(rng, Span::from_millis(20));
            } else if wire.last_word.is_some() {
                wire.is_finished |= rng.bool();
            } else if happens(rng, 20) {
                wire.is_finished = true;
            } else if happens(rng, 20) {
                wire.breaks();
            } else if wire.epoch.is_some() && happens(rng, 20) {
                wire.bye();
            } else if wire.habit == Habit::Beats {
                wire.ping();
            }
            wire.write(rng, now);
        }
    }

    // --- the kernel ------------------------------------------------------------------------------

    /// Somebody is accepted, or something of a connection happens: anything that can.
    fn kernel_acts(&mut self) {
        let count = self.gateways.len();
        match self.rng.usize(0..10) {
            0 => {
                let shard = self.rng.usize(0..count);
                let waiting = self.wires.iter().position(|wire| wire.place == Place::Backlog);
                if let Some(index) = waiting.filter(|_| self.accepts[shard] > 0) {
                    self.accepts[shard] -= 1;
                    self.wires[index].place = Place::Offered(shard);
                    let peer = "127.0.0.1:9".parse().expect("an address");
                    let socket = handle_of(index);
                    self.tell(shard, Completion::Accepted { socket, peer });
                }
            }
            1 => self.carry_parcel(),
            _ if !self.conns.is_empty() => {
                let nth = self.rng.usize(0..self.conns.len());
                let (&(shard, conn), &index) =
                    self.conns.iter().nth(nth).expect("below the length");
                self.act_on(shard, conn, index);
            }
            _ => {}
        }
    }

    /// A connection between two shards arrives, if there is room, or is lost.
    fn carry_parcel(&mut self) {
        if self.parcels.is_empty() {
            return;
        }
        let nth = self.rng.usize(0..self.parcels.len());
        let to = self.parcels[nth].to;
        if self.gateways[to].room_for_arrivals() == 0 {
            return;
        }
        let Parcel { wire, bytes, .. } = self.parcels.remove(nth);
        if happens(&mut self.rng, 20) {
            self.sum.arrivals_failed += 1;
            self.wires[wire].place = Place::Gone;
            let fault = IoFault::NoDescriptors;
            self.tell(to, Completion::ArrivalFailed { fault });
            return;
        }
        self.wires[wire].place = Place::Offered(to);
        self.wires[wire].last_heard_at = self.now;
        let peer = "127.0.0.1:9".parse().expect("an address");
        let (socket, baggage) = (handle_of(wire), Baggage::default());
        self.tell(to, Completion::Arrived { socket, peer, bytes: &bytes, baggage });
    }

    fn act_on(&mut self, shard: usize, conn: ConnId, index: usize) {
        let wire = &mut self.wires[index];
        let rng = &mut self.rng;
        if wire.moving.is_some() {
            return self.act_on_move(shard, conn, index);
        }
        if let Some(chunk) = wire.sending.take() {
            let result = match wire.broken {
                Some(fault) => Err(fault),
                None if wire.is_closing => Err(IoFault::Cancelled),
                None if rng.bool() => Ok(chunk.len()),
                None => Ok(rng.usize(1..=chunk.len())),
            };
            if let Ok(count) = result
                && let Some(badge) = wire.hear(&chunk.unsent()[..count])
            {
                self.badges.insert(wire.client, badge);
            }
            return self.tell(shard, Completion::Sent { conn, chunk, result });
        }
        if wire.is_closing {
            wire.place = Place::Gone;
            self.conns.remove(&(shard, conn));
            return self.tell(shard, Completion::Closed { conn });
        }
        if wire.is_looking {
            wire.is_looking = false;
            let found = match wire.broken {
                Some(fault) => Found::Fault(fault),
                None if !wire.inbox.is_empty() => Found::Bytes,
                None if wire.is_finished => Found::Eof,
                None => Found::Nothing,
            };
            return self.tell(shard, Completion::Looked { conn, found, tcp: None });
        }
        if wire.is_armed {
            self.receive(shard, conn, index);
        }
    }

    fn receive(&mut self, shard: usize, conn: ConnId, index: usize) {
        let wire = &mut self.wires[index];
        let rng = &mut self.rng;
        let end = if happens(rng, 50) {
            Some(if rng.bool() { ReceiveEnd::Starved } else { ReceiveEnd::Interrupted })
        } else if let Some(fault) = wire.broken.filter(|_| !wire.is_break_told) {
            wire.is_break_told = true;
            Some(ReceiveEnd::Fault(fault))
        } else if wire.inbox.is_empty() {
            if !wire.is_finished && wire.broken.is_none() {
                return;
            }
            Some(ReceiveEnd::Eof)
        } else {
            None
        };
        if let Some(end) = end {
            wire.is_armed = false;
            return self.tell(shard, Completion::ReceiveEnded { conn, end });
        }
        wire.last_heard_at = self.now;
        let count = rng.usize(1..=wire.inbox.len().min(limits::RECEIVE_BUFFER_BYTES));
        let bytes: Vec<u8> = wire.inbox.drain(..count).collect();
        // More of it may be in the same batch, before anybody takes operations.
        let now = self.now;
        self.gateways[shard].on_completion(Completion::Received { conn, bytes: &bytes }, now);
        if self.rng.bool() {
            let wire = &mut self.wires[index];
            let more: Vec<u8> = wire.inbox.drain(..).collect();
            if !more.is_empty() {
                let more = Completion::Received { conn, bytes: &more };
                self.gateways[shard].on_completion(more, now);
            }
        }
        self.after(shard);
    }

    /// A moving connection: what was received until the receive is over travels too.
    fn act_on_move(&mut self, shard: usize, conn: ConnId, index: usize) {
        let wire = &mut self.wires[index];
        let Some(mut departure) = wire.moving.take() else { return };
        let mut why = None;
        if wire.is_armed {
            wire.is_armed = false;
            let count = self.rng.usize(0..=wire.inbox.len());
            departure.bytes.extend(wire.inbox.drain(..count));
            if let Some(fault) = wire.broken.filter(|_| self.rng.bool()) {
                wire.is_break_told = true;
                why = Some(Stay::Broken(fault));
            }
        }
        if why.is_none() && happens(&mut self.rng, 40) {
            why = Some(if self.rng.bool() { Stay::NoRoom } else { Stay::TooMuch });
        }
        if let Some(why) = why {
            self.sum.stayed += 1;
            return self.tell(shard, Completion::Stayed { conn, why });
        }
        self.sum.moved += 1;
        wire.place = Place::Between;
        let (to, bytes) = (usize::from(departure.to), departure.bytes);
        assert_ne!(to, shard, "it is moved to where it is");
        self.parcels.push(Parcel { wire: index, to, bytes });
        self.conns.remove(&(shard, conn));
        self.tell(shard, Completion::Moved { conn });
    }

    // --- the gateways ----------------------------------------------------------------------------

    fn tell(&mut self, shard: usize, completion: Completion<'_>) {
        self.gateways[shard].on_completion(completion, self.now);
        self.after(shard);
    }

    fn after(&mut self, shard: usize) {
        self.completions += 1;
        if self.completions.is_multiple_of(COMPLETIONS_PER_CHECK) {
            self.gateways[shard].check();
        }
        self.take_ops();
        self.read(shard);
    }

    fn take_ops(&mut self) {
        for shard in 0..self.gateways.len() {
            let mut ops = Vec::new();
            self.gateways[shard].take_ops(&mut ops);
            for op in ops {
                self.submit(shard, op);
            }
        }
    }

    fn submit(&mut self, shard: usize, op: Op) {
        match op {
            Op::Accept { count } => {
                assert!(self.is_open, "accept after the end");
                self.accepts[shard] += count;
            }
            Op::StopAccepting => {
                for _ in 0..std::mem::take(&mut self.accepts[shard]) {
                    let fault = IoFault::Cancelled;
                    self.gateways[shard]
                        .on_completion(Completion::AcceptFailed { fault }, self.now);
                }
            }
            Op::Adopt { socket, conn } => {
                let wire = &mut self.wires[index_of(socket)];
                assert_eq!(
                    wire.place,
                    Place::Offered(shard),
                    "{conn}: adopts what it is not offered"
                );
                wire.place = Place::At(shard, conn);
                let before = self.conns.insert((shard, conn), index_of(socket));
                assert_eq!(before, None, "{conn} is in use");
            }
            Op::Discard { socket } => {
                let wire = &mut self.wires[index_of(socket)];
                assert_eq!(wire.place, Place::Offered(shard));
                wire.place = Place::Gone;
            }
            Op::Receive { conn } => {
                let wire = self.open(shard, conn);
                assert!(!wire.is_armed, "{conn}: a second receive");
                wire.is_armed = true;
            }
            Op::Pause { conn } => panic!("{conn}: nobody sends DATA"),
            Op::Send { conn, chunk } => {
                let wire = self.open(shard, conn);
                assert!(wire.sending.is_none(), "{conn}: a second send");
                wire.sending = Some(chunk);
            }
            Op::Look { conn } => self.open(shard, conn).is_looking = true,
            Op::SetUserTimeout { conn, .. } => {
                self.open(shard, conn);
            }
            Op::Move(departure) => {
                let wire = self.open(shard, departure.conn);
                assert!(wire.sending.is_none(), "{}: moves while it sends", departure.conn);
                wire.is_looking = false;
                wire.moving = Some(departure);
            }
            Op::Close { conn, how } => {
                let wire = self.open(shard, conn);
                wire.is_closing = true;
                wire.is_armed = false;
                wire.is_looking = false;
                if how == CloseHow::Abort {
                    wire.inbox.clear();
                }
            }
            Op::Connect(_) => panic!("a gateway opens no connections"),
        }
    }

    /// A connection that may be used in operations.
    fn open(&mut self, shard: usize, conn: ConnId) -> &mut Wire {
        let index = self.conns.get(&(shard, conn)).unwrap_or_else(|| panic!("{conn} is not here"));
        let wire = &mut self.wires[*index];
        assert!(!wire.is_closing, "{conn}: an operation after close");
        assert!(wire.moving.is_none(), "{conn}: an operation while it moves");
        wire
    }

    /// Time passes: everything that arrived is handed in before.
    fn turn(&mut self) {
        self.now += span_upto(&mut self.rng, STEP_MAX);
        for shard in 0..self.gateways.len() {
            self.hand_in_all(shard);
            self.gateways[shard].on_time(self.now);
            self.after(shard);
            let mut looks = 0;
            while self.answer_looks(shard) {
                looks += 1;
                assert!(looks < 100, "it looks for ever");
                self.gateways[shard].on_time(self.now);
                self.after(shard);
            }
        }
    }

    fn hand_in_all(&mut self, shard: usize) {
        for _ in 0..10_000 {
            let has_input = |wire: &Wire| {
                let is_gone = wire.is_finished || wire.broken.is_some();
                wire.is_armed && wire.moving.is_none() && (!wire.inbox.is_empty() || is_gone)
            };
            let mut here = self.conns.iter().filter(|((at, _), _)| *at == shard);
            let next = here.find(|(_, index)| has_input(&self.wires[**index]));
            let Some((&(_, conn), &index)) = next else { return };
            self.receive(shard, conn, index);
        }
        panic!("it is never drained");
    }

    fn answer_looks(&mut self, shard: usize) -> bool {
        let mut here = self.conns.iter().filter(|((at, _), _)| *at == shard);
        let next = here.find(|(_, index)| {
            let wire = &self.wires[**index];
            wire.is_looking && wire.sending.is_none()
        });
        let Some((&(_, conn), &index)) = next else { return false };
        self.act_on(shard, conn, index);
        self.hand_in_all(shard);
        true
    }

    // --- the oracle ------------------------------------------------------------------------------

    fn read(&mut self, shard: usize) {
        let mut records: Vec<Record> = Vec::new();
        self.gateways[shard].take_events(&mut records, usize::MAX);
        for record in records {
            match record.event {
                Event::Online { client, epoch, conn, .. } => {
                    let client = client.as_str().to_owned();
                    self.assert_owner(&client, shard);
                    let index = self.conns.get(&(shard, conn)).copied();
                    let index = index.expect("whoever is online has a connection");
                    let before = self.online.insert(client.clone(), (epoch, index));
                    assert_eq!(before, None, "P4: {client} is online twice");
                    let before = self.epochs.insert(client.clone(), epoch);
                    assert!(before.is_none_or(|before| before < epoch), "{client}: epochs grow");
                    let before = self.epochs_seen.insert(epoch, shard);
                    assert_eq!(before, None, "epoch {epoch} was used before");
                    self.sum.online += 1;
                }
                Event::Resumed { client, epoch, conn, .. } => {
                    self.assert_owner(client.as_str(), shard);
                    let index = self.conns[&(shard, conn)];
                    let before = self.online.insert(client.as_str().to_owned(), (epoch, index));
                    assert_eq!(before.map(|(epoch, _)| epoch), Some(epoch), "P5: it was here");
                    self.sum.resumed += 1;
                }
                Event::Offline { client, epoch, reason, evidence, .. } => {
                    self.assert_owner(client.as_str(), shard);
                    let before = self.online.remove(client.as_str());
                    assert_eq!(before.map(|(epoch, _)| epoch), Some(epoch), "P5: it was here");
                    self.sum.replaced += u64::from(reason == CloseReason::Replaced);
                    if reason == CloseReason::HeartbeatTimeout && evidence.held == Span::ZERO {
                        self.sum.verdicts += 1;
                        self.assert_was_silent(before.map_or(0, |(_, index)| index));
                    }
                }
                Event::Rhythm { client, .. } => panic!("nobody moved {client}"),
                Event::Started { .. }
                | Event::Contested { .. }
                | Event::Stalled { .. }
                | Event::Stopped => {}
            }
        }
    }

    fn assert_owner(&self, client: &str, shard: usize) {
        assert_eq!(usize::from(owner(self.shard, client)), shard, "P4: {client} is another's");
    }

    /// P1 and P2, as far as they can be seen from outside.
    fn assert_was_silent(&self, index: usize) {
        let silence = self.now.since(self.wires[index].last_whole_at);
        let client = self.wires[index].client;
        assert!(silence >= TIMEOUT, "P1: {client} was judged after {silence}");
    }

    // --- the end ---------------------------------------------------------------------------------

    /// All leave, in whatever state they are, and nothing is left.
    fn drain(&mut self) {
        let is_moving = |wire: &&Wire| wire.moving.is_some() || wire.place == Place::Between;
        self.sum.drained_on_the_way += self.wires.iter().filter(is_moving).count() as u64;
        self.assert_nobody_is_forgotten();
        self.is_open = false;
        for shard in 0..self.gateways.len() {
            let within = span_upto(&mut self.rng, Span::from_secs(2));
            let drain = Command::Drain(Drain::at_once(within));
            assert_eq!(self.gateways[shard].on_command(drain, self.now), Reply::Done);
            self.after(shard);
        }
        let end = self.now + Span::from_secs(30);
        let is_over = |gateway: &Gateway| {
            gateway.is_drained() && gateway.moves_no_more() && gateway.is_empty()
        };
        while !(self.parcels.is_empty() && self.gateways.iter().all(is_over)) {
            assert!(self.now < end, "it does not end");
            self.clients_act();
            for _ in 0..30 {
                self.kernel_acts();
            }
            self.turn();
        }
    }

    /// Whoever fell silent was found, wherever its connection came in.
    fn assert_nobody_is_forgotten(&self) {
        let longest = TIMEOUT + STEP_MAX.times(2) + TICK.times(2);
        for (client, (epoch, index)) in &self.online {
            let wire = &self.wires[*index];
            let is_here = matches!(wire.place, Place::At(..)) && !wire.is_closing;
            if is_here && wire.epoch == Some(*epoch) {
                let silence = self.now.since(wire.last_heard_at);
                assert!(silence <= longest, "P2: {client} is silent for {silence}");
            }
        }
    }

    fn check_end(&mut self) {
        assert!(self.online.is_empty(), "still online: {:?}", self.online);
        assert!(self.conns.is_empty(), "connections are left");
        let (mut arrived, mut moved, mut accepted, mut ended) = (0, 0, 0, 0);
        for gateway in &self.gateways {
            let stats = gateway.stats();
            assert_eq!(stats.stale, 0, "completions for connections that do not exist");
            assert_eq!((stats.connections, stats.held), (0, 0));
            arrived += stats.arrived;
            moved += stats.moved;
            accepted += stats.accepted;
            ended += CloseReason::ALL.iter().map(|reason| stats.ended(*reason)).sum::<u64>();
            self.sum.refused += stats.ended(CloseReason::Busy);
        }
        assert_eq!(moved, self.sum.moved);
        assert_eq!(moved, arrived + self.sum.arrivals_failed, "who left has arrived");
        assert_eq!(accepted, ended + self.sum.arrivals_failed, "everybody ended once");
        for (index, wire) in self.wires.iter().enumerate() {
            let is_settled = matches!(wire.place, Place::Gone | Place::Backlog);
            assert!(is_settled, "connection {index} is {:?}", wire.place);
            assert!(wire.sending.is_none(), "a chunk did not come home");
            let name = client_id(wire.client);
            assert!(wire.epoch.is_none_or(|epoch| epoch <= self.epochs[&name]));
        }
    }
}

/// The offset catches whoever takes another number for it.
fn handle_of(index: usize) -> SocketHandle {
    SocketHandle(index as u64 + 5_000)
}

fn index_of(socket: SocketHandle) -> usize {
    usize::try_from(socket.0 - 5_000).expect("a handle of ours")
}
