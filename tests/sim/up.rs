//! Worlds in which clients talk and backends are slow: the real gateway on the pretend kernel, with
//! a budget that is always too small.
//!
//! What must hold: of every session each DATA frame is handed up once and in order, and none is
//! left out; an ACK comes when everything up to it was taken, and comes at last; what is not taken
//! stays within its bound; nobody is judged who beats, however long it is not read; whoever fell
//! silent is found once it is read again; and nobody waits for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use fastrand::Rng;
use heartwheel::base::config::{GatewayConfig, ProbePolicy, Rhythm};
use heartwheel::base::data::{Credit, DataTicket, Fate};
use heartwheel::base::event::{CloseReason, Event};
use heartwheel::base::io::{Completion, IoFault};
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{Command, Drain, Gateway};
use heartwheel::wire::message::{AckWanted, Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound, VERSIONS};

use crate::faults::{Faults, happens, part_of, span_upto};
use crate::guard::Claim;
use crate::kernel::{Kernel, News, socket_of};
use crate::link::Word;
use crate::script::{Hello, Label, client_id, encoded, hello_bytes};

const SEEDS: u64 = 100;

/// How a client ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// It is still here when the world ends.
    Stays,
    Bye,
    Fin,
    Reset,
    /// It says nothing more, and its connection stays.
    Silent,
}

#[derive(Debug)]
struct Talker {
    link: usize,
    end: End,
    has_ended: bool,
    /// Whether it sends much.
    is_chatty: bool,
    /// Of each number: whether an ACK was wanted.
    sent: Vec<AckWanted>,
    /// How many of them were handed up.
    taken: usize,
    /// Those whose credit was given back, and what became of them.
    fates: BTreeMap<u32, Fate>,
    acked: u32,
    deframer: Deframer,
    offline: Option<CloseReason>,
}

/// What happens by itself.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Happening {
    Speak(usize),
    End(usize),
    /// Something that was handed up is dealt with.
    Credit(DataTicket),
}

struct World {
    now: Moment,
    rng: Rng,
    config: GatewayConfig,
    gateway: Gateway,
    kernel: Kernel,
    talkers: Vec<Talker>,
    epochs: BTreeMap<u64, usize>,
    agenda: BinaryHeap<Reverse<(Moment, Happening)>>,
    /// Of what was handed up, by ticket: whose it is, and its number.
    waiting: BTreeMap<DataTicket, (usize, u32)>,
    credits: Vec<Credit>,
    /// How long backends take at most.
    slowness: Span,
    /// Nothing is dealt with until then.
    stuck_until: Moment,
    /// Clients beat and send nothing.
    is_quiet: bool,
    stops: u64,
}

#[test]
fn whoever_talks_is_heard_in_order_and_waits_its_turn() {
    let (mut stops, mut ends) = (0, BTreeSet::new());
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| live(seed));
        let (stopped, seen) = outcome.unwrap_or_else(|_| panic!("seed {seed} broke a promise"));
        stops += stopped;
        ends.extend(seen);
    }
    assert!(stops > 10 * SEEDS, "clients were not read {stops} times");
    let seen: Vec<_> = ends.into_iter().collect();
    let all = ["bye", "closed_by_peer", "drain", "heartbeat_timeout", "reset"];
    assert_eq!(seen, all, "not everything happened");
}

fn live(seed: u64) -> (u64, BTreeSet<&'static str>) {
    let mut world = World::new(seed);
    let timeout = world.config.rhythm.timeout;
    world.run(world.now + timeout.times(8));
    // Everybody has said all it wants to; now everything is dealt with, and time passes.
    world.is_quiet = true;
    world.stuck_until = world.now;
    world.slowness = Span::from_millis(1);
    world.run(world.now + timeout.times(3));
    world.check_end();
    let within = Span::from_secs(2);
    world.gateway.on_command(Command::Drain(Drain::at_once(within)), world.now);
    world.run(world.now + Span::from_secs(5));
    assert!(world.gateway.is_drained());
    assert_eq!(world.gateway.stats().up.bytes, 0);
    world.kernel.check_empty();
    let ends = world.talkers.iter().filter_map(|talker| talker.offline);
    (world.stops, ends.map(CloseReason::word).collect())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x7A1C);
        let rhythm = Rhythm::new(Span::from_millis(1_000), Span::from_millis(2_500));
        let config = GatewayConfig {
            rhythm: rhythm.expect("a rhythm"),
            probe: ProbePolicy::Off,
            up_bytes_max: rng.usize(1_500..20_000),
            payload_bytes_max: 1_024,
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
            talkers: Vec::new(),
            epochs: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            credits: Vec::new(),
            slowness: [1, 50, 3_000].map(Span::from_millis)[rng.usize(0..3)],
            stuck_until: now,
            is_quiet: false,
            stops: 0,
            config,
            rng,
        };
        world.gateway.set_data_wanted(true);
        world.hand_ops_over();
        (0..count).for_each(|_| world.connect());
        world
    }

    fn connect(&mut self) {
        let link = self.kernel.connect(self.rng.fork());
        let device = self.talkers.len();
        let ends = [End::Stays, End::Stays, End::Bye, End::Fin, End::Reset, End::Silent];
        let talker = Talker {
            link,
            end: ends[self.rng.usize(0..ends.len())],
            has_ended: false,
            is_chatty: happens(&mut self.rng, 400),
            sent: Vec::new(),
            taken: 0,
            fates: BTreeMap::new(),
            acked: 0,
            deframer: Deframer::client_side(),
            offline: None,
        };
        let mut preface = Vec::new();
        native::encode_preface(VERSIONS, &mut preface);
        let hello = Hello {
            device,
            class: "",
            wish_ms: 0,
            resumes: None,
            before: None,
            claim: Claim::Unneeded,
        };
        let bytes = hello_bytes(&hello, &[], &[], 0);
        let ends = [(preface.len(), Label::Preface), (preface.len() + bytes.len(), Label::Beat)];
        self.kernel.arrive(link, &[preface, bytes].concat(), &ends, self.now);
        let end_at = self.now + span_upto(&mut self.rng, self.config.rhythm.timeout.times(5));
        self.plan(self.now, Happening::Speak(device));
        if talker.end != End::Stays {
            self.plan(end_at, Happening::End(device));
        }
        self.talkers.push(talker);
    }

    fn plan(&mut self, at: Moment, happening: Happening) {
        self.agenda.push(Reverse((at, happening)));
    }

    // --- time ------------------------------------------------------------------------------------

    fn run(&mut self, end: Moment) {
        while self.now < end {
            self.turn();
            let agenda = self.agenda.peek().map(|Reverse((at, _))| *at);
            let dues = [agenda, self.kernel.next_due(), self.gateway.next_wake()];
            let next = dues.into_iter().flatten().min().unwrap_or(end).min(end);
            self.now = next.max(self.now + Span::from_micros(self.rng.u64(1..50)));
            if happens(&mut self.rng, 1) {
                // The process stands still, and the others go on.
                let until = self.now + part_of(&mut self.rng, self.config.rhythm.timeout, 1..200);
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
        self.hand_ops_over();
        self.gateway.check();
        self.kernel.check_heard(|_| false);
        self.take_data();
        self.read_ledger();
        self.let_clients_hear();
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
            self.kernel.submit(op, self.now);
        }
    }

    // --- clients ---------------------------------------------------------------------------------

    fn live_upto_now(&mut self) {
        while let Some(Reverse((at, happening))) = self.agenda.peek().copied() {
            if at > self.now {
                return;
            }
            self.agenda.pop();
            match happening {
                Happening::Speak(device) => self.speak(device, at),
                Happening::End(device) => self.end(device, at),
                Happening::Credit(ticket) if at < self.stuck_until => {
                    self.plan(self.stuck_until, Happening::Credit(ticket));
                }
                Happening::Credit(ticket) => self.give_back(ticket),
            }
        }
        if happens(&mut self.rng, 1) && self.slowness > Span::from_millis(1) {
            let longest = self.config.rhythm.timeout.times(3);
            self.stuck_until = self.now + span_upto(&mut self.rng, longest);
        }
    }

    fn speak(&mut self, device: usize, at: Moment) {
        let talker = &mut self.talkers[device];
        if talker.has_ended {
            return;
        }
        let most = if talker.is_chatty { 8 } else { 2 };
        let count = if self.is_quiet { 0 } else { self.rng.usize(0..most) };
        let mut bytes = encoded(&Message::Ping { reply: Reply::NotWanted, payload: &[] });
        for _ in 0..count {
            let ack = if self.rng.bool() { AckWanted::Yes } else { AckWanted::No };
            talker.sent.push(ack);
            let seq = u32::try_from(talker.sent.len()).expect("few");
            let body = vec![7; self.rng.usize(0..900)];
            bytes.extend(encoded(&Message::Data { seq, ack, topic: "t", body: &body }));
        }
        self.kernel.arrive(talker.link, &bytes, &[(bytes.len(), Label::Beat)], at);
        let pause = part_of(&mut self.rng, self.config.rhythm.interval, 5..100);
        self.plan(at + pause, Happening::Speak(device));
    }

    fn end(&mut self, device: usize, at: Moment) {
        let talker = &mut self.talkers[device];
        talker.has_ended = true;
        let link = talker.link;
        match talker.end {
            End::Stays | End::Silent => {}
            End::Bye => {
                let bye = encoded(&Message::Bye { code: CloseReason::Bye.code() });
                self.kernel.arrive(link, &bye, &[(bye.len(), Label::Bye)], at);
            }
            End::Fin => self.kernel.touch(link, |wire| wire.finish()),
            End::Reset => self.kernel.touch(link, |wire| wire.break_with(IoFault::Reset)),
        }
    }

    fn let_clients_hear(&mut self) {
        for (link, bytes) in self.kernel.take_heard() {
            let talker = self.talkers.iter_mut().find(|talker| talker.link == link);
            let talker = talker.expect("nobody else connects");
            let mut rest = bytes.as_slice();
            let mut leaves = false;
            while let Some(inbound) = talker.deframer.next(&mut rest, 65_535).expect("good frames")
            {
                match inbound {
                    Inbound::Message(Message::Ack { seq }) => {
                        assert!(seq > talker.acked, "{seq} after {}", talker.acked);
                        assert_eq!(talker.sent[seq as usize - 1], AckWanted::Yes);
                        for before in 1..=seq {
                            assert!(talker.fates.contains_key(&before), "{before} of {seq}");
                        }
                        talker.acked = seq;
                    }
                    Inbound::Message(Message::Goaway { .. }) => leaves = true,
                    Inbound::Message(_) | Inbound::Preface(_) | Inbound::Skipped { .. } => {}
                }
            }
            if leaves {
                self.kernel.touch(link, |wire| wire.finish());
            }
        }
    }

    // --- backends --------------------------------------------------------------------------------

    fn take_data(&mut self) {
        let mut records = Vec::new();
        self.gateway.take_data(&mut records, usize::MAX);
        for record in records {
            let device = *self.epochs.entry(record.ticket.epoch).or_insert_with(|| {
                let named = |nth: &usize| client_id(*nth) == record.client.as_str();
                (0..self.talkers.len()).find(named).expect("a client of ours")
            });
            let talker = &mut self.talkers[device];
            talker.taken += 1;
            assert_eq!(record.seq as usize, talker.taken, "once and in order");
            let other = self.waiting.insert(record.ticket, (device, record.seq));
            assert_eq!(other, None, "{:?} stands for two", record.ticket);
            let at = self.now + span_upto(&mut self.rng, self.slowness);
            self.agenda.push(Reverse((at, Happening::Credit(record.ticket))));
        }
        let up = self.gateway.stats().up;
        self.stops = up.stops;
        // Beyond the budget there is one message for each client that was stopped by it.
        let over = self.talkers.len() * 1_500;
        assert!(up.bytes <= self.config.up_bytes_max + over, "{up:?}");
    }

    fn give_back(&mut self, ticket: DataTicket) {
        let (device, seq) = self.waiting.remove(&ticket).expect("it was handed up");
        let fate = if happens(&mut self.rng, 50) { Fate::Unclaimed } else { Fate::Taken };
        self.credits.push(Credit { ticket, fate });
        self.talkers[device].fates.insert(seq, fate);
    }

    fn read_ledger(&mut self) {
        let mut records = Vec::new();
        self.gateway.take_events(&mut records, usize::MAX);
        for record in records {
            let Event::Offline { client, reason, .. } = record.event else { continue };
            let named = |nth: &usize| client_id(*nth) == client.as_str();
            let device = (0..self.talkers.len()).find(named).expect("a client of ours");
            let talker = &mut self.talkers[device];
            talker.offline = Some(reason);
            let is_expected = match talker.end {
                End::Stays => reason == CloseReason::Drain,
                End::Bye => talker.has_ended && reason == CloseReason::Bye,
                End::Fin => talker.has_ended && reason == CloseReason::ClosedByPeer,
                End::Reset => talker.has_ended && reason == CloseReason::Reset,
                End::Silent => talker.has_ended && reason == CloseReason::HeartbeatTimeout,
            };
            assert!(is_expected, "P3: {reason} of {talker:?}");
        }
    }

    /// Everything was dealt with a while ago.
    fn check_end(&self) {
        assert_eq!(self.gateway.stats().up.stopped, 0, "somebody waits for ever");
        for talker in &self.talkers {
            let is_gone = talker.offline.is_some();
            assert_eq!(is_gone, talker.end != End::Stays, "{talker:?}");
            if talker.end == End::Reset {
                continue; // what was not read by then is lost
            }
            assert_eq!(talker.taken, talker.sent.len(), "{talker:?}");
            if is_gone {
                continue;
            }
            let wanted = |(seq, fate): &(&u32, &Fate)| {
                talker.sent[**seq as usize - 1] == AckWanted::Yes && **fate == Fate::Taken
            };
            let owed = talker.fates.iter().rev().find(wanted).map_or(0, |(seq, _)| *seq);
            assert!(talker.acked >= owed, "{owed} was taken: {talker:?}");
        }
    }
}
