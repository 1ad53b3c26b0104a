//! What holds for sessions, whatever a few clients send and however it arrives. The property takes
//! bytes, so that proptest here and the fuzzer (`fuzz/fuzz_targets/session.rs`) call the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use heartwheel::base::config::{GatewayConfig, Mode, Preset, QueuePolicy, SlowPolicy};
use heartwheel::base::event::{CloseReason, Event, Record};
use heartwheel::base::ids::{ClientId, ConnId};
use heartwheel::base::io::{CloseHow, Completion, Found, IoFault, Op, ReceiveEnd, SocketHandle};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{
    self, Body, Command, Drain, Gateway, Outcome, Post, Push, Pushed, Taken,
};
use heartwheel::wire::message::{AckWanted, Message, Reply};
use heartwheel::wire::native::{Deframer, Inbound, VERSIONS, encode, encode_preface};

const CONNECTIONS_MAX: u32 = 4;
const CLIENTS: [&str; 2] = ["anna", "bert"];
/// Looks at the time until nothing is due any more. More: the gateway is busy with nothing.
const LOOKS_AT_TIME_MAX: u32 = 1_000;

/// One thing that happens to the gateway.
#[derive(Debug)]
enum Step {
    Connect,
    Pause(Span),
    Receive {
        nth: usize,
        bytes: Vec<u8>,
    },
    ReceiveEnds {
        nth: usize,
        end: ReceiveEnd,
    },
    SendsComplete,
    SendsFail,
    Drain,
    Push(Letter),
    /// A client says who it is, and shows the token of the latest session of that name.
    Resume {
        nth: usize,
        client: &'static str,
        last_seq: u32,
    },
}

/// A message for a client.
#[derive(Clone, Copy, Debug)]
struct Letter {
    client: &'static str,
    wants_ack: bool,
    ttl: Option<Span>,
    bytes: usize,
}

/// Takes `bytes` as a story of a few connections, and lives through it three times: with everything
/// that was written arriving whole, cut into small pieces, and cut with a network that takes what
/// is sent as slowly as the story says. The gateway never panics and its books balance after every
/// step each time, and what is pushed to clients comes in order, and not again when it was
/// acknowledged; and how the bytes were cut changes nothing: ledger, answers, ends and what becomes
/// of each message are the same.
///
/// The last of the three is not compared. How much of an answer was out when its connection ended
/// depends on how many sends it took, and that on how the questions came in.
pub(crate) fn does_not_depend_on_the_cut(bytes: &[u8]) {
    let (&[first, second], story) = bytes.split_first_chunk().unwrap_or((&[0, 0], &[]));
    let steps = steps(story);
    let config = config(first);
    let piece_bytes = 1 + usize::from(second % 24);
    let whole = Stage::live(&config, &steps, usize::MAX, Sends::AtOnce);
    let cut = Stage::live(&config, &steps, piece_bytes, Sends::AtOnce);
    Stage::live(&config, &steps, piece_bytes, Sends::AsTold);
    assert_eq!(whole.course, cut.course, "who is closed when depends on the cut");
    assert_eq!(whole.records, cut.records, "the ledger depends on the cut");
    assert_eq!(whole.post.told, cut.post.told, "what is said of a message depends on the cut");
    let goodbyes = whole.goodbyes();
    for conn in whole.said.keys().chain(cut.said.keys()) {
        let [whole, cut] = [&whole, &cut].map(|stage| stage.said.get(conn).map(Vec::as_slice));
        if goodbyes.contains(conn) {
            // Whoever asks and leaves in one breath is not answered.
            let (whole, cut) = (whole.unwrap_or_default(), cut.unwrap_or_default());
            assert!(cut.starts_with(whole), "{conn}: {whole:?} or {cut:?} depends on the cut");
        } else {
            assert_eq!(whole, cut, "{conn}: the answers depend on the cut");
        }
    }
}

/// Who beats, for how long sessions are held, and what becomes of messages.
fn config(first: u8) -> GatewayConfig {
    let is_roomy = (first / 6).is_multiple_of(2);
    let slow = [SlowPolicy::Oldest, SlowPolicy::Newest, SlowPolicy::Close];
    GatewayConfig {
        rhythm: Preset::Demanding.rhythm(),
        mode: [Mode::Client, Mode::Server, Mode::Either][usize::from(first % 3)],
        grace: if (first / 3).is_multiple_of(2) { Span::ZERO } else { Span::from_secs(5) },
        queue: QueuePolicy {
            bytes_max: if is_roomy { limits::QUEUE_BYTES_LIMIT } else { 500 },
            ttl: limits::QUEUE_TTL_MAX,
            slow: slow[usize::from(first / 12 % 3)],
        },
        connections_max: CONNECTIONS_MAX,
        payload_bytes_max: 256,
        outbox_bytes_max: 1_024,
        ..GatewayConfig::default()
    }
}

/// Every byte string is a story; a story that ends early is one too.
fn steps(story: &[u8]) -> Vec<Step> {
    let mut steps = vec![Step::Connect];
    let mut rest = story.iter().copied();
    while let (Some(what), Some(detail)) = (rest.next(), rest.next()) {
        let nth = usize::from(detail % 6);
        let number = detail / 6;
        let client = CLIENTS[usize::from(number % 2)];
        steps.push(match what % 16 {
            0 => Step::Connect,
            1 => Step::Pause(Span::from_millis(100 * u64::from(detail))),
            2 => Step::Pause(Span::from_secs(u64::from(detail))),
            3 => {
                let ends =
                    [ReceiveEnd::Eof, ReceiveEnd::Fault(IoFault::Reset), ReceiveEnd::Starved];
                Step::ReceiveEnds { nth, end: ends[usize::from(number % 3)] }
            }
            4 => Step::SendsComplete,
            5 if detail == 0 => Step::Drain,
            5 if detail < 10 => Step::SendsFail,
            6 => Step::Receive { nth, bytes: login(number) },
            7 => Step::Receive { nth, bytes: beats(number) },
            10 | 11 => {
                let ttl = (what % 16 == 11).then(|| Span::from_millis(200 << nth));
                let wants_ack = number / 2 % 4 > 0;
                Step::Push(Letter { client, wants_ack, ttl, bytes: nth * 30 })
            }
            12 => Step::Receive { nth, bytes: encoded(&Message::Ack { seq: u32::from(number) }) },
            13 => Step::Resume { nth, client, last_seq: u32::from(number / 2 % 8) },
            _ => {
                let bytes = rest.by_ref().take(usize::from(number) * 7).collect();
                Step::Receive { nth, bytes }
            }
        });
    }
    steps
}

fn login(number: u8) -> Vec<u8> {
    let class = ["", "mobile"][usize::from(number / 2 % 2)];
    hello(CLIENTS[usize::from(number % 2)], class, &[], 0)
}

/// Preface and HELLO.
fn hello(client_id: &str, class: &str, resume: &[u8], last_seq: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_preface(VERSIONS, &mut bytes);
    let (wanted_interval_ms, token, before) = (0, &[], None);
    let hello =
        Message::Hello { wanted_interval_ms, client_id, class, token, resume, last_seq, before };
    encode(&hello, &mut bytes);
    bytes
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

/// The token of a session. A gateway that begins with this session says it.
fn token_of(config: &GatewayConfig, client: &str, epoch: u64) -> Vec<u8> {
    let grace = Span::from_secs(5);
    let config = GatewayConfig { epoch_first: epoch, grace, ..config.clone() };
    let mut stage = Stage::new(&config, usize::MAX, Sends::AtOnce);
    stage.connect();
    let conn = stage.conns[0];
    stage.complete(Completion::Received { conn, bytes: &hello(client, "", &[], 0) });
    let mut said = stage.said[&conn].as_slice();
    let mut deframer = Deframer::client_side();
    match deframer.next(&mut said, limits::PAYLOAD_BYTES_LIMIT) {
        Ok(Some(Inbound::Message(Message::Welcome { resume, .. }))) => resume.to_vec(),
        other => panic!("{other:?} instead of WELCOME"),
    }
}

fn beats(number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for nth in 0..number {
        let reply = if nth % 3 == 2 { Reply::NotWanted } else { Reply::Wanted };
        encode(&Message::Ping { reply, payload: &[nth; 16] }, &mut bytes);
    }
    bytes
}

/// How the network takes what is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sends {
    /// All of it, at once.
    AtOnce,
    /// When the story says so, half of it, or not at all.
    AsTold,
}

/// A gateway, and what is known about its connections.
struct Stage {
    gateway: Gateway,
    now: Moment,
    piece_bytes: usize,
    sends: Sends,
    conns: Vec<ConnId>,
    sockets: u64,
    accepts: u32,
    ops: Vec<Op>,
    records: Vec<Record>,
    /// What each connection was sent.
    said: BTreeMap<ConnId, Vec<u8>>,
    /// In which step which connection was closed, and how.
    course: Vec<(usize, ConnId, CloseHow)>,
    step: usize,
    config: GatewayConfig,
    post: Desk,
}

/// What was pushed, and what clients saw of it.
#[derive(Default)]
struct Desk {
    /// By session and number.
    letters: BTreeMap<(u64, u32), Letter>,
    heard: BTreeSet<(u64, u32)>,
    /// Since which step it is said to be acknowledged.
    acked: BTreeMap<(u64, u32), usize>,
    ears: BTreeMap<ConnId, Ear>,
    /// What was said of each message, in which step.
    told: Vec<(usize, Vec<Outcome>)>,
}

/// What is heard by one connection.
struct Ear {
    deframer: Deframer,
    /// Bytes of what was said that were heard.
    upto: usize,
    epoch: Option<u64>,
    /// The number of the last message.
    last: u32,
    /// In which step it resumed a session.
    resumed_in: Option<usize>,
}

impl Default for Ear {
    fn default() -> Self {
        let deframer = Deframer::client_side();
        Self { deframer, upto: 0, epoch: None, last: 0, resumed_in: None }
    }
}

impl Stage {
    fn live(config: &GatewayConfig, steps: &[Step], piece_bytes: usize, sends: Sends) -> Self {
        let mut stage = Self::new(config, piece_bytes, sends);
        for step in steps {
            stage.step += 1;
            stage.take(step);
            stage.ask_what_became_of_it();
            stage.hear();
        }
        stage.end();
        stage
    }

    fn new(config: &GatewayConfig, piece_bytes: usize, sends: Sends) -> Self {
        let now = Moment::from_millis(5);
        let mut stage = Self {
            gateway: Gateway::new(config.clone(), now),
            now,
            piece_bytes,
            sends,
            conns: Vec::new(),
            sockets: 0,
            accepts: 0,
            ops: Vec::new(),
            records: Vec::new(),
            said: BTreeMap::new(),
            course: Vec::new(),
            step: 0,
            config: config.clone(),
            post: Desk::default(),
        };
        stage.settle();
        stage
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Connect => self.connect(),
            Step::Pause(span) => {
                self.now += *span;
                self.look_at_the_time();
            }
            Step::Receive { nth, bytes } => self.receive(*nth, bytes),
            Step::Push(letter) => self.push(*letter),
            Step::Resume { nth, client, last_seq } => {
                let epoch = self.epochs(client).next_back();
                let token = epoch.map(|epoch| token_of(&self.config, client, epoch));
                // It may say a number that it never heard.
                let epoch = epoch.unwrap_or_default();
                let heard = self.post.heard.range((epoch, 0)..=(epoch, *last_seq));
                let last = heard.last().map_or(0, |(_, seq)| *seq);
                if let Some(conn) = self.nth(*nth)
                    && !self.is_greeted(conn)
                {
                    let ear = self.post.ears.entry(conn).or_default();
                    (ear.last, ear.resumed_in) = (last, Some(self.step));
                }
                let token = token.unwrap_or_default();
                self.receive(*nth, &hello(client, "", &token, *last_seq));
            }
            Step::ReceiveEnds { nth, end } => {
                if let Some(conn) = self.nth(*nth) {
                    self.complete(Completion::ReceiveEnded { conn, end: *end });
                }
            }
            Step::SendsComplete => self.answer_sends(|bytes| Ok(bytes.div_ceil(2))),
            Step::SendsFail => self.answer_sends(|_| Err(IoFault::Reset)),
            Step::Drain => {
                self.gateway
                    .on_command(Command::Drain(Drain::at_once(Span::from_secs(1))), self.now);
                self.settle();
            }
        }
        self.answer_closes();
        self.gateway.check();
    }

    fn receive(&mut self, nth: usize, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece_bytes) {
            let Some(conn) = self.nth(nth) else { break };
            self.complete(Completion::Received { conn, bytes: piece });
        }
        self.look_at_the_time();
    }

    // --- messages --------------------------------------------------------------------------------

    /// The sessions that a client has had.
    fn epochs(&self, client: &str) -> impl DoubleEndedIterator<Item = u64> {
        self.records.iter().filter_map(move |record| {
            let Event::Online { client: who, epoch, .. } = &record.event else { return None };
            (who.as_str() == client).then_some(*epoch)
        })
    }

    /// Whether this connection has said who it is, though WELCOME may not be heard yet.
    fn is_greeted(&self, conn: ConnId) -> bool {
        self.records.iter().any(|record| {
            matches!(
                record.event,
                Event::Online { conn: by, .. } | Event::Resumed { conn: by, .. } if by == conn
            )
        })
    }

    /// The session of a client, as far as the ledger knows.
    fn session(&self, client: &str) -> Option<u64> {
        let latest = self.epochs(client).next_back()?;
        let is_its_end = |record: &Record| match &record.event {
            Event::Offline { epoch, .. } => *epoch == latest,
            Event::Started { .. }
            | Event::Online { .. }
            | Event::Resumed { .. }
            | Event::Contested { .. }
            | Event::Rhythm { .. }
            | Event::Stalled { .. }
            | Event::Stopped => false,
        };
        (!self.records.iter().any(is_its_end)).then_some(latest)
    }

    fn is_roomy(&self) -> bool {
        self.config.queue.bytes_max == limits::QUEUE_BYTES_LIMIT
    }

    fn push(&mut self, letter: Letter) {
        let online = self.session(letter.client);
        let body = Body::new("t", vec![b'x'; letter.bytes]).expect("it is short");
        let post = Post { body: Arc::new(body), ack: letter.wants_ack, ttl: letter.ttl };
        let clients = vec![ClientId::new(letter.client).expect("a name")];
        let push = Command::Push(Box::new(Push { clients, epoch: None, post }));
        let reply = self.gateway.on_command(push, self.now);
        self.settle();
        let gateway::Reply::Pushed(pushed) = reply else { panic!("{reply:?}") };
        let [Pushed { outcome, epoch, seq, .. }] = pushed[..] else { panic!("{pushed:?}") };
        match (online, outcome) {
            (Some(online), Outcome::Queued) => {
                assert_eq!(epoch, online);
                let other = self.post.letters.insert((epoch, seq), letter);
                assert!(other.is_none(), "{seq} of {epoch} was given twice");
            }
            (Some(_), Outcome::Slow) => assert!(!self.is_roomy(), "there was room"),
            (None, Outcome::Offline | Outcome::Unknown) => {}
            (online, outcome) => panic!("{outcome:?} for {online:?}"),
        }
        self.post.told.push((self.step, vec![outcome]));
    }

    /// What is said of each message agrees with what its client saw and said.
    fn ask_what_became_of_it(&mut self) {
        let of = self.post.letters.iter().map(|((epoch, seq), letter)| {
            let client = ClientId::new(letter.client).expect("a name");
            Taken { client, epoch: *epoch, seq: *seq, ack: letter.wants_ack }
        });
        let reply = self.gateway.on_command(Command::Outcomes { of: of.collect() }, self.now);
        let gateway::Reply::Outcomes(outcomes) = reply else { panic!("{reply:?}") };
        for ((key, letter), outcome) in self.post.letters.iter().zip(&outcomes) {
            let is_over = self.session(letter.client) != Some(key.0);
            match outcome {
                Outcome::Acked => {
                    assert!(letter.wants_ack, "{key:?} {letter:?}");
                    self.post.acked.entry(*key).or_insert(self.step);
                }
                Outcome::Delivered => {}
                Outcome::Queued => assert!(!is_over, "{key:?} {letter:?}"),
                Outcome::Offline => assert!(is_over || letter.ttl.is_some(), "{key:?} {letter:?}"),
                Outcome::Slow => {
                    assert!(!self.is_roomy() || letter.ttl.is_some(), "{key:?} {letter:?}");
                }
                Outcome::Unknown => panic!("{key:?} {letter:?}"),
            }
        }
        self.post.told.push((self.step, outcomes));
    }

    /// Clients hear what was sent: in order, and nothing that was acknowledged before.
    fn hear(&mut self) {
        let is_roomy = self.is_roomy();
        let Desk { letters, heard, acked, ears, told } = &mut self.post;
        for (conn, said) in &self.said {
            let ear = ears.entry(*conn).or_default();
            let mut rest = &said[ear.upto..];
            ear.upto = said.len();
            while let Some(inbound) =
                ear.deframer.next(&mut rest, limits::PAYLOAD_BYTES_LIMIT).expect("good frames")
            {
                match inbound {
                    Inbound::Message(Message::Welcome { epoch, resumed, .. }) => {
                        assert_eq!(ear.epoch.replace(epoch), None, "WELCOME comes once");
                        if !resumed {
                            (ear.last, ear.resumed_in) = (0, None);
                        }
                    }
                    Inbound::Message(Message::Data { seq, ack, body, .. }) => {
                        let key = (ear.epoch.expect("WELCOME comes first"), seq);
                        let letter = letters[&key];
                        assert_eq!(
                            (ack == AckWanted::Yes, body.len()),
                            (letter.wants_ack, letter.bytes,)
                        );
                        assert!(seq > ear.last, "{seq} behind {}", ear.last);
                        for (key, missing) in letters.range((key.0, ear.last + 1)..key) {
                            let may_be = !is_roomy || missing.ttl.is_some() || !missing.wants_ack;
                            let is_had = heard.contains(key) || acked.contains_key(key);
                            assert!(may_be || is_had, "{key:?} is lost before {seq}");
                        }
                        let is_done = acked.get(&key).zip(ear.resumed_in);
                        let is_again = is_done.is_some_and(|(acked, resumed)| *acked < resumed);
                        assert!(!is_again, "{key:?} comes again though it was acknowledged");
                        ear.last = seq;
                        heard.insert(key);
                    }
                    Inbound::Preface(_) | Inbound::Message(_) | Inbound::Skipped { .. } => {}
                }
            }
        }
        // Everything was sent that was handed over.
        if self.sends == Sends::AtOnce
            && let Some((_, outcomes)) = told.last()
        {
            for ((key, letter), outcome) in letters.iter().zip(outcomes) {
                let is_handed = matches!(outcome, Outcome::Delivered | Outcome::Acked);
                let is_heard = heard.contains(key);
                assert!(!is_handed || is_heard || !letter.wants_ack, "{key:?} was not sent");
            }
        }
    }

    // --- the kernel ------------------------------------------------------------------------------

    fn connect(&mut self) {
        if self.accepts == 0 {
            return;
        }
        self.accepts -= 1;
        self.sockets += 1;
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        self.complete(Completion::Accepted { socket: SocketHandle(self.sockets), peer });
    }

    /// The connection of that number, as long as the gateway has not closed it.
    fn nth(&self, nth: usize) -> Option<ConnId> {
        let conn = *self.conns.get(nth)?;
        let closes = |op: &Op| matches!(op, Op::Close { conn: other, .. } if *other == conn);
        (!self.ops.iter().any(closes)).then_some(conn)
    }

    fn complete(&mut self, completion: Completion<'_>) {
        self.gateway.on_completion(completion, self.now);
        self.settle();
    }

    /// Takes operations and events. What is not answered at once stays in `ops`.
    fn settle(&mut self) {
        let mut ops = Vec::new();
        self.gateway.take_ops(&mut ops);
        for op in ops {
            match op {
                Op::Accept { count } => self.accepts += count,
                Op::Adopt { conn, .. } => self.conns.push(conn),
                Op::Send { .. } | Op::Look { .. } | Op::Close { .. } | Op::StopAccepting => {
                    self.ops.push(op);
                }
                Op::Receive { .. } | Op::SetUserTimeout { .. } | Op::Discard { .. } => {}
                Op::Connect(_) | Op::Pause { .. } | Op::Move(_) => {
                    panic!("nobody asked for {op:?}")
                }
            }
        }
        assert!(self.accepts <= limits::ACCEPTS_MAX);
        assert!(self.conns.len() <= (CONNECTIONS_MAX + limits::REFUSALS_MAX) as usize);
        if self.sends == Sends::AtOnce {
            self.answer_sends(Ok);
        }
        self.gateway.take_events(&mut self.records, usize::MAX);
    }

    /// Everything is read: time is looked at until nothing is due, and looks find nothing.
    fn look_at_the_time(&mut self) {
        for _ in 0..LOOKS_AT_TIME_MAX {
            self.gateway.on_time(self.now);
            self.settle();
            let looks = self.ops.extract_if(.., |op| matches!(op, Op::Look { .. }));
            for op in looks.collect::<Vec<_>>() {
                if let Op::Look { conn } = op {
                    self.complete(Completion::Looked { conn, found: Found::Nothing, tcp: None });
                }
            }
            if self.gateway.next_wake().is_none_or(|wake| wake > self.now) {
                return;
            }
        }
        panic!("busy with nothing at {:?}", self.now);
    }

    /// The connections whose clients left on purpose.
    fn goodbyes(&self) -> BTreeSet<ConnId> {
        let goodbye = |record: &Record| {
            let Event::Offline { conn, reason: CloseReason::Bye, .. } = &record.event else {
                return None;
            };
            Some(*conn)
        };
        self.records.iter().filter_map(goodbye).collect()
    }

    /// Answers every send that waits, once.
    fn answer_sends(&mut self, answer: impl Fn(usize) -> Result<usize, IoFault>) {
        let sends = self.ops.extract_if(.., |op| matches!(op, Op::Send { .. }));
        for op in sends.collect::<Vec<_>>() {
            if let Op::Send { conn, chunk } = op {
                let result = answer(chunk.len());
                if let Ok(count) = result {
                    self.said.entry(conn).or_default().extend(&chunk.unsent()[..count]);
                }
                self.complete(Completion::Sent { conn, chunk, result });
            }
        }
    }

    /// Answers every close: the chunk comes home, the slot is free.
    fn answer_closes(&mut self) {
        let closes = self.ops.extract_if(.., |op| matches!(op, Op::Close { .. }));
        for op in closes.collect::<Vec<_>>() {
            let Op::Close { conn, how } = op else { continue };
            self.course.push((self.step, conn, how));
            self.conns.retain(|other| *other != conn);
            let of_it = |op: &mut Op| {
                let (Op::Send { conn: other, .. } | Op::Look { conn: other }) = op else {
                    return false;
                };
                *other == conn
            };
            let left: Vec<Op> = self.ops.extract_if(.., of_it).collect();
            for op in left {
                if let Op::Send { chunk, .. } = op {
                    self.complete(Completion::Sent {
                        conn,
                        chunk,
                        result: Err(IoFault::Cancelled),
                    });
                }
            }
            self.complete(Completion::Closed { conn });
        }
    }

    /// Empties the gateway, and insists that nothing is left.
    fn end(&mut self) {
        self.take(&Step::Drain);
        for _ in 0..LOOKS_AT_TIME_MAX {
            if let Some(at) = self.ops.iter().position(|op| matches!(op, Op::StopAccepting)) {
                self.ops.remove(at);
                for _ in 0..std::mem::take(&mut self.accepts) {
                    self.complete(Completion::AcceptFailed { fault: IoFault::Cancelled });
                }
            }
            self.take(&Step::SendsComplete);
            self.take(&Step::Pause(Span::from_millis(200)));
            if self.gateway.is_drained() {
                break;
            }
        }
        self.settle();
        self.hear();
        assert!(self.gateway.is_drained(), "{:?}", self.ops);
        assert_eq!(self.gateway.stats().connections, 0);
        assert_eq!(self.gateway.stats().stale, 0, "no completion was for nobody");
        let mail = self.gateway.stats().mail;
        let ended = mail.delivered + mail.expired + mail.dropped_oldest + mail.orphaned;
        assert_eq!((mail.pushed, mail.queue_bytes), (ended, 0), "each comes to one end: {mail:?}");
        let numbers: Vec<u64> = self.records.iter().map(|record| record.seq).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no gaps");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    /// Steps that go together, two bytes each.
    fn deeds() -> impl Strategy<Value = Vec<u8>> {
        let step = |what: u8, nth: u8, number: u8| vec![what, nth + 6 * number];
        prop_oneof![
            5 => (10_u8..12, 0_u8..6, 0_u8..8).prop_map(move |(what, nth, number)| {
                step(what, nth, number)
            }),
            3 => (0_u8..2, 0_u8..8).prop_map(move |(nth, number)| step(12, nth, number)),
            // Of two connections one is lost, and a client comes back by another.
            3 => (0_u8..2, 0_u8..2, 0_u8..16).prop_map(move |(nth, end, number)| {
                [step(3, nth, end), step(0, 0, 0), step(13, 1, number)].concat()
            }),
            // Nothing is lost, and it comes back all the same.
            1 => (0_u8..16).prop_map(move |number| [step(0, 0, 0), step(13, 2, number)].concat()),
            2 => Just([4, 0].repeat(9)),
            1 => (1_u8..10).prop_map(|span| vec![1, span]),
            1 => (any::<u8>(), any::<u8>()).prop_map(|(what, detail)| vec![what, detail]),
        ]
    }

    #[test]
    fn the_seeds_of_the_fuzzer_hold() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/session");
        let mut seeds = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            does_not_depend_on_the_cut(&std::fs::read(file.unwrap().path()).unwrap());
            seeds += 1;
        }
        assert!(seeds > 0, "the fuzzer has seeds");
    }

    proptest! {
        /// Two clients are online, and then happens what matters for messages.
        #[test]
        fn messages_do_not_depend_on_the_cut(head in any::<[u8; 2]>(), deeds in vec(deeds(), 0..40))
        {
            let both = [6, 0, 0, 0, 6, 1 + 6];
            does_not_depend_on_the_cut(&[&head, &both[..], &deeds.concat()].concat());
        }

        #[test]
        fn sessions_do_not_depend_on_the_cut(bytes in vec(any::<u8>(), 0..400)) {
            does_not_depend_on_the_cut(&bytes);
        }
    }
}
