//! The gateway against the naive model: a map of who is here and when it was last heard, scanned at
//! every step. Both live through the same story; the ledger must say what the map says.

use std::collections::{BTreeMap, BTreeSet};

use heartwheel::base::config::{GatewayConfig, ProbePolicy, Rhythm};
use heartwheel::base::event::{CloseReason, Event, Record};
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Found, IoFault, Op, ReceiveEnd, SocketHandle};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::Gateway;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;

const INTERVAL: Span = Span::from_secs(2);
const TIMEOUT: Span = Span::from_secs(7);
const FRAME_TIMEOUT: Span = Span::from_secs(3);
const TICK: Span = Span::from_millis(10);
const CLIENTS: u8 = 5;
const STEPS_MAX: usize = 400;

/// One step of a story: what happens, and to whom or for how long.
#[derive(Clone, Copy, Debug)]
enum Step {
    Hello { client: u8 },
    Beat { client: u8 },
    Begin { client: u8 },
    Bye { client: u8 },
    Eof { client: u8 },
    Reset { client: u8 },
    Pass { millis: u64 },
}

/// Any bytes are a story.
pub(crate) fn gateway_agrees_with_the_model(bytes: &[u8]) {
    let mut world = World::new();
    for pair in bytes.chunks_exact(2).take(STEPS_MAX) {
        let client = pair[1] % CLIENTS;
        world.step(match pair[0] % 10 {
            0 | 1 => Step::Hello { client },
            2 | 3 => Step::Beat { client },
            4 => Step::Begin { client },
            5 => Step::Bye { client },
            6 => Step::Eof { client },
            7 => Step::Reset { client },
            _ => Step::Pass { millis: u64::from(pair[1]) * 20 },
        });
    }
}

/// What the map knows of a client that is here.
#[derive(Clone, Copy, Debug)]
struct Here {
    conn: ConnId,
    epoch: u64,
    last_beat: Moment,
    /// Since when a frame is begun.
    begun: Option<Moment>,
}

/// What is to be in the ledger: who, which session, came or went, and why.
type Line = (String, u64, Option<CloseReason>);

struct World {
    gateway: Gateway,
    now: Moment,
    sockets: u64,
    here: BTreeMap<u8, Here>,
    /// Take-overs of each client id: since when they are counted, and how many.
    fights: BTreeMap<u8, (Moment, u32)>,
    epochs: u64,
    expected: Vec<Line>,
    ops: Vec<Op>,
}

impl World {
    fn new() -> Self {
        let config = GatewayConfig {
            rhythm: Rhythm { interval: INTERVAL, timeout: TIMEOUT },
            frame_timeout: FRAME_TIMEOUT,
            tick: TICK,
            probe: ProbePolicy::Off,
            connections_max: 1_000,
            ..GatewayConfig::default()
        };
        let now = Moment::from_millis(1);
        let gateway = Gateway::new(config, now);
        let (here, fights) = (BTreeMap::new(), BTreeMap::new());
        let (expected, ops) = (Vec::new(), Vec::new());
        let mut world = Self { gateway, now, sockets: 0, here, fights, epochs: 1, expected, ops };
        world.gateway.take_events(&mut Vec::new(), usize::MAX);
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Hello { client } => self.hello(client),
            Step::Beat { client } => self.beat(client),
            Step::Begin { client } => self.say(client, &[native::kind::PING]),
            Step::Bye { client } => {
                let mut bytes = Vec::new();
                native::encode(&Message::Bye { code: 100 }, &mut bytes);
                // What was begun is completed by the first bytes of BYE, and makes no sense.
                if self.here.get(&client).is_some_and(|here| here.begun.is_none()) {
                    self.goes(client, CloseReason::Bye, |world, conn| {
                        world.completion(Completion::Received { conn, bytes: &bytes });
                    });
                }
            }
            Step::Eof { client } => self.goes(client, CloseReason::ClosedByPeer, |world, conn| {
                world.completion(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
            }),
            Step::Reset { client } => self.goes(client, CloseReason::Reset, |world, conn| {
                let end = ReceiveEnd::Fault(IoFault::Reset);
                world.completion(Completion::ReceiveEnded { conn, end });
            }),
            Step::Pass { millis } => self.pass(Span::from_millis(millis)),
        }
        self.compare(step);
        self.gateway.check();
    }

    fn hello(&mut self, client: u8) {
        self.sockets += 1;
        let socket = SocketHandle(self.sockets);
        let peer = "127.0.0.1:9".parse().expect("an address");
        self.gateway.on_completion(Completion::Accepted { socket, peer }, self.now);
        self.gateway.take_ops(&mut self.ops);
        let mut adopted = None;
        for op in &self.ops {
            if let Op::Adopt { conn, .. } = op {
                adopted = Some(*conn);
            }
        }
        let conn = adopted.expect("there is room");
        let mut bytes = Vec::new();
        native::encode_preface(native::VERSIONS, &mut bytes);
        let client_id = name(client);
        let hello = Message::Hello {
            wanted_interval_ms: 0,
            client_id: &client_id,
            class: "",
            token: &[],
            resume: &[],
            last_seq: 0,
            before: None,
        };
        native::encode(&hello, &mut bytes);
        if let Some(older) = self.here.get(&client).copied() {
            if self.is_contested(client) {
                return self.completion(Completion::Received { conn, bytes: &bytes });
            }
            self.expected.push((name(client), older.epoch, Some(CloseReason::Replaced)));
        }
        let epoch = self.epochs;
        self.epochs += 1;
        self.expected.push((name(client), epoch, None));
        self.here.insert(client, Here { conn, epoch, last_beat: self.now, begun: None });
        self.completion(Completion::Received { conn, bytes: &bytes });
    }

    /// A third take-over within a minute is one too many, and keeps the fight alive.
    fn is_contested(&mut self, client: u8) -> bool {
        let (since, count) = self.fights.entry(client).or_insert((self.now, 0));
        if self.now.since(*since) > limits::CONTEST_WINDOW {
            (*since, *count) = (self.now, 0);
        }
        *count += 1;
        if *count > limits::CONTEST_FREE {
            *since = self.now;
        }
        *count > limits::CONTEST_FREE
    }

    fn beat(&mut self, client: u8) {
        let mut bytes = Vec::new();
        native::encode(&Message::Ping { reply: Reply::Wanted, payload: b"" }, &mut bytes);
        let Some(here) = self.here.get_mut(&client) else { return };
        // The rest of what was begun.
        if here.begun.take().is_some() {
            bytes.remove(0);
        }
        here.last_beat = self.now;
        self.say(client, &bytes);
    }

    fn say(&mut self, client: u8, bytes: &[u8]) {
        let Some(here) = self.here.get_mut(&client) else { return };
        if bytes.len() == 1 {
            if here.begun.is_some() {
                return;
            }
            here.begun = Some(self.now);
        }
        let conn = here.conn;
        self.completion(Completion::Received { conn, bytes });
    }

    fn goes(&mut self, client: u8, reason: CloseReason, how: impl FnOnce(&mut Self, ConnId)) {
        let Some(here) = self.here.remove(&client) else { return };
        self.expected.push((name(client), here.epoch, Some(reason)));
        how(self, here.conn);
    }

    /// Time passes in steps no longer than the gateway may sleep; the map is scanned after each.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        while self.now < until {
            self.now = (self.now + Span::from_millis(500)).min(until);
            let now = self.now;
            let due = |deadline: Moment| {
                let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
                ticks * TICK.as_nanos() <= now.as_nanos()
            };
            let mut gone = Vec::new();
            for (client, here) in &self.here {
                let is_slow = here.begun.is_some_and(|begun| due(begun + FRAME_TIMEOUT));
                let is_dead = due(here.last_beat + TIMEOUT);
                // A frame whose deadline is in a later tick than the scan is judged by silence if
                // that is over as well.
                if is_dead || (is_slow && here.last_beat + TIMEOUT <= now) {
                    gone.push((*client, CloseReason::HeartbeatTimeout));
                } else if is_slow {
                    gone.push((*client, CloseReason::FrameTimeout));
                }
            }
            for (client, reason) in gone {
                let here = self.here.remove(&client).expect("found above");
                self.expected.push((name(client), here.epoch, Some(reason)));
            }
            self.gateway.on_time(now);
            self.settle();
        }
    }

    fn completion(&mut self, completion: Completion<'_>) {
        self.gateway.on_completion(completion, self.now);
        self.settle();
    }

    /// The kernel does at once whatever it is asked; a peer that is told to go goes.
    fn settle(&mut self) {
        loop {
            self.gateway.take_ops(&mut self.ops);
            let ops = std::mem::take(&mut self.ops);
            if ops.is_empty() {
                return;
            }
            for op in ops {
                self.answer(op);
            }
        }
    }

    fn answer(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::Send { conn, chunk } => {
                let result = Ok(chunk.len());
                let is_goodbye = chunk.unsent().first() == Some(&native::kind::GOAWAY);
                self.gateway.on_completion(Completion::Sent { conn, chunk, result }, now);
                if is_goodbye {
                    let end = ReceiveEnd::Eof;
                    self.gateway.on_completion(Completion::ReceiveEnded { conn, end }, now);
                }
            }
            Op::Look { conn } => {
                let looked = Completion::Looked { conn, found: Found::Nothing, tcp: None };
                self.gateway.on_completion(looked, now);
            }
            Op::Close { conn, .. } => {
                self.gateway.on_completion(Completion::Closed { conn }, now);
            }
            Op::Accept { .. }
            | Op::StopAccepting
            | Op::Connect(_)
            | Op::Adopt { .. }
            | Op::Discard { .. }
            | Op::Receive { .. }
            | Op::Pause { .. }
            | Op::SetUserTimeout { .. }
            | Op::Move(_) => {}
        }
    }

    /// Whoever goes in the same instant may go in any order.
    fn compare(&mut self, step: Step) {
        let mut records = Vec::new();
        self.gateway.take_events(&mut records, usize::MAX);
        let told: BTreeSet<Line> = records.iter().filter_map(line).collect();
        let expected: BTreeSet<Line> = self.expected.drain(..).collect();
        assert_eq!(told, expected, "at {:?} after {step:?}", self.now);
        assert_eq!(self.gateway.stats().online, self.here.len());
    }
}

fn name(client: u8) -> String {
    format!("client-{client}")
}

fn line(record: &Record) -> Option<Line> {
    match &record.event {
        Event::Online { client, epoch, .. } => Some((client.to_string(), *epoch, None)),
        Event::Offline { client, epoch, reason, .. } => {
            Some((client.to_string(), *epoch, Some(*reason)))
        }
        Event::Contested { .. } => None,
        Event::Started { .. }
        | Event::Stopped
        | Event::Stalled { .. }
        | Event::Resumed { .. }
        | Event::Rhythm { .. } => {
            panic!("nobody asked for {record:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gateway_and_model_tell_the_same_story(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            gateway_agrees_with_the_model(&bytes);
        }
    }
}
