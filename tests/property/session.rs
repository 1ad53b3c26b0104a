//! What holds for sessions, whatever a few clients send and however it arrives. The property takes
//! bytes, so that proptest here and the fuzzer (`fuzz/fuzz_targets/session.rs`) call the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use heartwheel::base::config::{GatewayConfig, Mode, Preset};
use heartwheel::base::event::{CloseReason, Event, Record};
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{CloseHow, Completion, Found, IoFault, Op, ReceiveEnd, SocketHandle};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{Command, Drain, Gateway};
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::{VERSIONS, encode, encode_preface};

const CONNECTIONS_MAX: u32 = 4;
/// Looks at the time until nothing is due any more. More: the gateway is busy with nothing.
const LOOKS_AT_TIME_MAX: u32 = 1_000;

/// One thing that happens to the gateway.
#[derive(Debug)]
enum Step {
    Connect,
    Pause(Span),
    Receive { nth: usize, bytes: Vec<u8> },
    ReceiveEnds { nth: usize, end: ReceiveEnd },
    SendsComplete,
    SendsFail,
    Drain,
}

/// Takes `bytes` as a story of a few connections, and lives through it three times: with everything
/// that was written arriving whole, cut into small pieces, and cut with a network that takes what
/// is sent as slowly as the story says. The gateway never panics and its books balance after every
/// step each time; and how the bytes were cut changes nothing: ledger, answers and ends are the
/// same.
///
/// The last of the three is not compared. How much of an answer was out when its connection ended
/// depends on how many sends it took, and that on how the questions came in.
pub(crate) fn does_not_depend_on_the_cut(bytes: &[u8]) {
    let (&[first, second], story) = bytes.split_first_chunk().unwrap_or((&[0, 0], &[]));
    let steps = steps(story);
    let mode = [Mode::Client, Mode::Server, Mode::Either][usize::from(first % 3)];
    let piece_bytes = 1 + usize::from(second % 24);
    let whole = Stage::live(mode, &steps, usize::MAX, Sends::AtOnce);
    let cut = Stage::live(mode, &steps, piece_bytes, Sends::AtOnce);
    Stage::live(mode, &steps, piece_bytes, Sends::AsTold);
    assert_eq!(whole.course, cut.course, "who is closed when depends on the cut");
    assert_eq!(whole.records, cut.records, "the ledger depends on the cut");
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

/// Every byte string is a story; a story that ends early is one too.
fn steps(story: &[u8]) -> Vec<Step> {
    let mut steps = vec![Step::Connect];
    let mut rest = story.iter().copied();
    while let (Some(what), Some(detail)) = (rest.next(), rest.next()) {
        let nth = usize::from(detail % 6);
        let number = detail / 6;
        steps.push(match what % 10 {
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
            _ => {
                let bytes = rest.by_ref().take(usize::from(number) * 7).collect();
                Step::Receive { nth, bytes }
            }
        });
    }
    steps
}

fn login(number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_preface(VERSIONS, &mut bytes);
    let hello = Message::Hello {
        wanted_interval_ms: 0,
        client_id: ["anna", "bert"][usize::from(number % 2)],
        class: ["", "mobile"][usize::from(number / 2 % 2)],
        token: &[],
        resume: &[],
        last_seq: 0,
        before: None,
    };
    encode(&hello, &mut bytes);
    bytes
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
}

impl Stage {
    fn live(mode: Mode, steps: &[Step], piece_bytes: usize, sends: Sends) -> Self {
        let now = Moment::from_millis(5);
        let config = GatewayConfig {
            rhythm: Preset::Demanding.rhythm(),
            mode,
            connections_max: CONNECTIONS_MAX,
            payload_bytes_max: 256,
            outbox_bytes_max: 1_024,
            ..GatewayConfig::default()
        };
        let mut stage = Self {
            gateway: Gateway::new(config, now),
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
        };
        stage.settle();
        for step in steps {
            stage.step += 1;
            stage.take(step);
        }
        stage.end();
        stage
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Connect => self.connect(),
            Step::Pause(span) => {
                self.now += *span;
                self.look_at_the_time();
            }
            Step::Receive { nth, bytes } => {
                for piece in bytes.chunks(self.piece_bytes) {
                    let Some(conn) = self.nth(*nth) else { break };
                    self.complete(Completion::Received { conn, bytes: piece });
                }
                self.look_at_the_time();
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
        assert!(self.gateway.is_drained(), "{:?}", self.ops);
        assert_eq!(self.gateway.stats().connections, 0);
        assert_eq!(self.gateway.stats().stale, 0, "no completion was for nobody");
        let numbers: Vec<u64> = self.records.iter().map(|record| record.seq).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no gaps");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

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
        #[test]
        fn sessions_do_not_depend_on_the_cut(bytes in vec(any::<u8>(), 0..400)) {
            does_not_depend_on_the_cut(&bytes);
        }
    }
}
