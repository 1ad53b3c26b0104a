//! The layers between a pretend kernel and a pretend gateway.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks out what it looks for, whatever else there is"
)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::introduction::Introduction;
use crate::base::io::{
    Chunk, CloseHow, Completion, IoFault, Move, Op, ReceiveEnd, SocketHandle, Stay,
};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::layers::Layers;
use crate::layers::layer::{Goes, Layer};
use crate::layers::terms::{Begin, SharedTerms, Terms};

const CONN: ConnId = ConnId { slot: 7, generation: 3 };
const SOCKET: SocketHandle = SocketHandle(11);
const HELLO: &[u8] = b"\xB7HWP\x01\x01\0\0";

/// What the gateway was told.
#[derive(Debug, Eq, PartialEq)]
enum Told {
    Introduced(Introduction),
    Received(Vec<u8>),
    Ended(ReceiveEnd),
    Sent(Result<usize, IoFault>),
    Spoilt(CloseReason),
    Stayed(Stay),
    Closed,
    Other(String),
}

fn told(completion: Completion<'_>) -> Told {
    match completion {
        Completion::Introduced { as_what, .. } => Told::Introduced(as_what.clone()),
        Completion::Received { bytes, .. } => Told::Received(bytes.to_vec()),
        Completion::ReceiveEnded { end, .. } => Told::Ended(end),
        Completion::Sent { result, .. } => Told::Sent(result),
        Completion::Spoilt { reason, .. } => Told::Spoilt(reason),
        Completion::Stayed { why, .. } => Told::Stayed(why),
        Completion::Closed { .. } => Told::Closed,
        other @ (Completion::Accepted { .. }
        | Completion::AcceptFailed { .. }
        | Completion::Connected { .. }
        | Completion::ConnectFailed { .. }
        | Completion::Looked { .. }
        | Completion::Moved { .. }
        | Completion::Arrived { .. }
        | Completion::ArrivalFailed { .. }) => Told::Other(format!("{other:?}")),
    }
}

/// Layers, what the kernel was asked and what the gateway was told.
struct Stage {
    layers: Layers,
    now: Moment,
    asked: VecDeque<Op>,
    told: Vec<Told>,
}

impl Stage {
    fn new(terms: Terms, peer: &str) -> Self {
        let mut stage = Self {
            layers: Layers::new(SharedTerms::new(terms)),
            now: Moment::from_millis(1_000),
            asked: VecDeque::new(),
            told: Vec::new(),
        };
        let peer: SocketAddr = peer.parse().expect("an address");
        stage.complete(Completion::Accepted { socket: SOCKET, peer });
        stage.ask(Op::Adopt { socket: SOCKET, conn: CONN });
        stage.told.clear();
        stage.asked.clear();
        stage
    }

    fn complete(&mut self, completion: Completion<'_>) {
        let heard = &mut self.told;
        self.layers.on_completion(completion, |completion| heard.push(told(completion)));
        self.settle();
    }

    fn ask(&mut self, op: Op) {
        let mut ops = vec![op];
        self.layers.on_ops(&mut ops, self.now);
        self.asked.extend(ops);
        self.settle();
    }

    fn settle(&mut self) {
        let mut ops = Vec::new();
        self.layers.on_ops(&mut ops, self.now);
        self.asked.extend(ops);
        self.layers.check();
    }

    fn turn(&mut self) {
        let heard = &mut self.told;
        self.layers.work(self.now, |completion| heard.push(told(completion)));
        self.settle();
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.complete(Completion::Received { conn: CONN, bytes });
    }

    fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// The send that is asked for next.
    fn sends(&mut self) -> Option<Chunk> {
        match self.asked.pop_front()? {
            Op::Send { chunk, .. } => Some(chunk),
            other => panic!("asked {other:?}"),
        }
    }

    fn sent(&mut self, chunk: Chunk, result: Result<usize, IoFault>) {
        self.complete(Completion::Sent { conn: CONN, chunk, result });
    }
}

fn proxies() -> Terms {
    Terms { proxies: "10.0.0.0/8".parse().expect("a network"), ..Terms::default() }
}

/// A layer that turns every byte around, answers `?` with `!`, cannot stand `X`, is done at `.`,
/// and takes everything until `:` for a handshake.
#[derive(Default)]
struct Mirror {
    is_open: bool,
}

impl Layer for Mirror {
    fn take_in(
        &mut self,
        bytes: &[u8],
        up: &mut Vec<u8>,
        down: &mut Vec<u8>,
    ) -> Result<Goes, CloseReason> {
        for byte in bytes {
            match byte {
                b':' if !self.is_open => self.is_open = true,
                _ if !self.is_open => {}
                b'?' => down.push(b'!'),
                b'X' => {
                    down.push(b'#');
                    return Err(CloseReason::BadTls);
                }
                b'.' => return Ok(Goes::Over),
                byte => up.push(!byte),
            }
        }
        Ok(Goes::On)
    }

    fn send(&mut self, bytes: &[u8], down: &mut Vec<u8>) {
        if self.is_open {
            down.extend(bytes.iter().map(|byte| !byte));
        }
    }

    fn finish(&mut self, down: &mut Vec<u8>) {
        if self.is_open {
            down.push(b'$');
        }
    }

    fn is_costly(&self) -> bool {
        !self.is_open
    }

    fn introduce(&self, introduction: &mut Introduction) {
        introduction.is_encrypted = true;
    }
}

struct BeginMirror;

impl Begin for BeginMirror {
    fn begin(&self) -> Box<dyn Layer> {
        Box::new(Mirror::default())
    }
}

fn mirrors() -> Terms {
    Terms { tls: Some(Arc::new(BeginMirror)), ..Terms::default() }
}

fn mirrored(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| !byte).collect()
}

/// A stage with a client whose handshake is over.
fn open() -> Stage {
    let mut stage = Stage::new(mirrors(), "192.0.2.1:5");
    stage.receive(b"\x16hello:");
    stage.turn();
    assert_eq!(stage.told(), []);
    stage.receive(&mirrored(b"one"));
    let introduction = Introduction { is_encrypted: true, ..Introduction::default() };
    assert_eq!(stage.told(), [Told::Introduced(introduction), Told::Received(b"one".to_vec())]);
    stage
}

#[test]
fn a_proxy_says_for_whom_it_speaks_and_the_rest_goes_on_untouched() {
    let mut stage = Stage::new(proxies(), "10.1.2.3:5");
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 7\r\n";
    for byte in header {
        stage.receive(&[*byte]);
    }
    assert_eq!(stage.told(), []);
    stage.receive(HELLO);
    let peer = Some("192.0.2.7:4711".parse().expect("an address"));
    let introduction = Introduction { peer, ..Introduction::default() };
    assert_eq!(stage.told(), [Told::Introduced(introduction), Told::Received(HELLO.to_vec())]);
    assert_eq!(stage.layers.stats().wrapped, 0, "it is as any other from here on");
    assert_eq!(stage.layers.stats().proxied, 1);
}

#[test]
fn a_proxy_that_says_nothing_and_a_stranger_that_does_are_not_let_in() {
    for (name, peer, bytes) in [
        ("a proxy without a header", "10.1.2.3:5", HELLO),
        ("a header of somebody else", "192.0.2.1:5", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n"),
        ("the same, version 2", "192.0.2.1:5", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let mut stage = Stage::new(proxies(), peer);
        stage.receive(bytes);
        assert_eq!(stage.told(), [Told::Spoilt(CloseReason::BadProxyHeader)], "{name}");
        stage.receive(b"more");
        assert_eq!(stage.told(), [], "{name}: nothing is told behind it");
    }
}

#[test]
fn who_is_behind_no_proxy_comes_in_directly() {
    let mut stage = Stage::new(proxies(), "192.0.2.1:5");
    stage.receive(HELLO);
    assert_eq!(stage.told(), [Told::Received(HELLO.to_vec())]);
    stage.receive(b"PROXY is only a text by now");
    assert_eq!(stage.told().len(), 1);
}

#[test]
fn a_chunk_comes_home_when_all_of_it_went_out_in_its_layers() {
    let mut stage = open();
    stage.ask(Op::Send { conn: CONN, chunk: Chunk::from(b"pong".to_vec()) });
    let chunk = stage.sends().expect("it is sent");
    assert_eq!(chunk.unsent(), mirrored(b"pong"));
    stage.receive(b"?");
    assert!(stage.sends().is_none(), "one send at a time");
    stage.sent(chunk, Ok(1));
    let rest = stage.sends().expect("the rest of it");
    assert_eq!(rest.unsent(), mirrored(b"ong"));
    stage.sent(rest, Ok(3));
    assert_eq!(stage.told(), [], "the layer's own answer is still to be sent");
    let answer = stage.sends().expect("the answer");
    assert_eq!(answer.unsent(), b"!");
    stage.sent(answer, Ok(1));
    assert_eq!(stage.told(), [Told::Sent(Ok(4))]);
}

#[test]
fn what_cannot_be_said_yet_is_not_and_its_chunk_comes_home() {
    let mut stage = Stage::new(mirrors(), "192.0.2.1:5");
    stage.receive(b"\x16hel");
    stage.ask(Op::Send { conn: CONN, chunk: Chunk::from(b"too late".to_vec()) });
    assert!(stage.sends().is_none());
    assert!(stage.layers.has_work());
    stage.turn();
    assert_eq!(stage.told(), [Told::Sent(Ok(8))]);
    assert!(!stage.layers.has_work());
}

#[test]
fn a_failed_send_is_the_gateways_to_know() {
    let mut stage = open();
    stage.ask(Op::Send { conn: CONN, chunk: Chunk::from(b"pong".to_vec()) });
    let chunk = stage.sends().expect("it is sent");
    stage.sent(chunk, Err(IoFault::Reset));
    assert_eq!(stage.told(), [Told::Sent(Err(IoFault::Reset))]);
    stage.ask(Op::Close { conn: CONN, how: CloseHow::Finish });
    assert!(matches!(stage.asked.pop_front(), Some(Op::Close { .. })), "it waits for nothing");
}

#[test]
fn a_layer_has_the_last_word_before_the_close() {
    let mut stage = open();
    stage.ask(Op::Close { conn: CONN, how: CloseHow::Finish });
    let word = stage.sends().expect("the layer's last word");
    assert_eq!(word.unsent(), b"$");
    stage.receive(b"nobody listens");
    stage.complete(Completion::ReceiveEnded { conn: CONN, end: ReceiveEnd::Eof });
    assert_eq!(stage.told(), []);
    stage.sent(word, Ok(1));
    assert!(matches!(stage.asked.pop_front(), Some(Op::Close { how: CloseHow::Finish, .. })));
    stage.complete(Completion::Closed { conn: CONN });
    assert_eq!(stage.told(), [Told::Closed]);
    assert_eq!(stage.layers.stats().wrapped, 0);
}

#[test]
fn who_does_not_read_the_last_word_is_not_waited_for() {
    let mut stage = open();
    stage.ask(Op::Close { conn: CONN, how: CloseHow::Finish });
    let word = stage.sends().expect("the layer's last word");
    assert_eq!(stage.layers.next_wake(), Some(stage.now + limits::LAYER_LINGER));
    stage.now += limits::LAYER_LINGER;
    stage.turn();
    assert!(matches!(stage.asked.pop_front(), Some(Op::Close { how: CloseHow::Abort, .. })));
    stage.sent(word, Err(IoFault::Cancelled));
    stage.complete(Completion::Closed { conn: CONN });
    assert_eq!(stage.told(), [Told::Closed]);
    assert_eq!(stage.layers.next_wake(), None);
}

#[test]
fn a_chunk_that_is_out_when_its_connection_closes_comes_home_before_that() {
    let mut stage = open();
    stage.ask(Op::Send { conn: CONN, chunk: Chunk::from(b"pong".to_vec()) });
    stage.ask(Op::Close { conn: CONN, how: CloseHow::Abort });
    stage.complete(Completion::Closed { conn: CONN });
    assert_eq!(stage.told(), [Told::Sent(Err(IoFault::Cancelled)), Told::Closed]);
}

#[test]
fn what_breaks_a_layer_ends_its_connection_with_the_layers_word() {
    let mut stage = open();
    stage.receive(&[!b'a', b'X', !b'b']);
    let spoilt = Told::Spoilt(CloseReason::BadTls);
    assert_eq!(stage.told(), [Told::Received(b"a".to_vec()), spoilt]);
    let alert = stage.sends().expect("the layer says why");
    assert_eq!(alert.unsent(), b"#");
    stage.ask(Op::Close { conn: CONN, how: CloseHow::Finish });
    stage.sent(alert, Ok(1));
    let word = stage.sends().expect("and its last word");
    stage.sent(word, Ok(1));
    assert!(matches!(stage.asked.pop_front(), Some(Op::Close { how: CloseHow::Finish, .. })));
}

#[test]
fn a_peer_that_is_done_in_its_layer_is_told_as_gone_and_once() {
    let mut stage = open();
    stage.receive(b".");
    stage.complete(Completion::ReceiveEnded { conn: CONN, end: ReceiveEnd::Eof });
    assert_eq!(stage.told(), [Told::Ended(ReceiveEnd::Eof)]);
}

#[test]
fn only_so_many_steps_of_handshakes_are_taken_in_a_turn() {
    let mut stage = Stage::new(mirrors(), "192.0.2.1:5");
    stage.layers.budget = 0;
    stage.receive(b"\x16");
    stage.receive(b"hello:");
    stage.receive(&mirrored(b"one"));
    stage.complete(Completion::ReceiveEnded { conn: CONN, end: ReceiveEnd::Eof });
    assert_eq!(stage.told(), [], "it waits");
    assert_eq!(stage.layers.stats().waiting, 1);
    stage.turn();
    let told = stage.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[1..], [Told::Received(b"one".to_vec()), Told::Ended(ReceiveEnd::Eof)]);
    assert_eq!(stage.layers.stats().put_off, 1);
    assert_eq!(stage.layers.stats().waiting, 0);
}

#[test]
fn what_waits_for_its_handshake_is_bounded() {
    let mut stage = Stage::new(mirrors(), "192.0.2.1:5");
    stage.layers.budget = 0;
    stage.receive(b"\x16");
    let piece = vec![0; limits::RECEIVE_BYTES_AT_ONCE];
    (0..3).for_each(|_| stage.receive(&piece));
    assert_eq!(stage.told(), [Told::Spoilt(CloseReason::Flood)]);
}

#[test]
fn who_asks_and_does_not_read_the_answers_costs_only_so_much() {
    let mut stage = open();
    stage.receive(b"?");
    let _with_the_kernel = stage.sends().expect("the first answer");
    let piece = vec![b'?'; limits::RECEIVE_BYTES_AT_ONCE];
    (0..8).for_each(|_| stage.receive(&piece));
    assert_eq!(stage.told(), [Told::Spoilt(CloseReason::SlowConsumer)]);
}

/// Moves it, with `behind` received by the kernel after it was asked to.
fn moved(stage: &mut Stage, behind: &[u8]) -> Stage {
    let baggage = stage.layers.pack(CONN);
    assert!(!baggage.is_empty());
    stage.complete(Completion::Moved { conn: CONN });
    let mut there = Stage::new(mirrors(), "192.0.2.9:5");
    there.complete(Completion::Closed { conn: CONN });
    there.told.clear();
    let peer = "192.0.2.1:5".parse().expect("an address");
    there.complete(Completion::Arrived { socket: SOCKET, peer, bytes: behind, baggage });
    there.ask(Op::Adopt { socket: SOCKET, conn: CONN });
    there.asked.clear();
    there
}

fn departure(bytes: &[u8]) -> Op {
    let peer = "192.0.2.1:5".parse().expect("an address");
    Op::Move(Box::new(Move { conn: CONN, to: 1, peer, bytes: bytes.to_vec() }))
}

#[test]
fn a_connection_moves_in_its_layers_and_loses_nothing() {
    let mut stage = open();
    stage.receive(b"?");
    let answer = stage.sends().expect("it is sent");
    stage.ask(departure(b"onetwo"));
    assert!(stage.asked.is_empty(), "no move while a send is under way");
    stage.receive(&mirrored(b"three"));
    stage.sent(answer, Ok(1));
    let Some(Op::Move(departure)) = stage.asked.pop_front() else { panic!("it is moved") };
    assert_eq!(departure.bytes, b"", "what was taken out of its layers does not go by the kernel");
    assert_eq!(stage.told(), []);
    let mut there = moved(&mut stage, &mirrored(b"four"));
    assert!(
        matches!(there.told().as_slice(), [Told::Other(arrived)] if arrived.contains("bytes: []"))
    );
    there.turn();
    let told = there.told();
    let introduction = Introduction { is_encrypted: true, ..Introduction::default() };
    assert_eq!(told[0], Told::Introduced(introduction));
    let received: Vec<u8> = told[1..]
        .iter()
        .flat_map(|told| match told {
            Told::Received(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(received, b"onetwothreefour");
    there.receive(&mirrored(b"five"));
    assert_eq!(there.told(), [Told::Received(b"five".to_vec())]);
}

#[test]
fn a_connection_that_cannot_leave_stays() {
    for (name, fate) in [("broken", 0), ("not read", 1), ("too much", 2)] {
        let mut stage = open();
        stage.receive(b"?");
        let answer = stage.sends().expect("it is sent");
        stage.ask(departure(b"one"));
        let why = match fate {
            0 => {
                stage.sent(answer, Err(IoFault::Reset));
                Stay::Broken(IoFault::Reset)
            }
            1 => {
                stage.now += limits::LAYER_LINGER + Span::from_millis(1);
                stage.turn();
                Stay::NoRoom
            }
            _ => {
                let piece = vec![0; limits::RECEIVE_BYTES_AT_ONCE];
                (0..3).for_each(|_| stage.receive(&piece));
                Stay::TooMuch
            }
        };
        assert_eq!(stage.told(), [Told::Stayed(why)], "{name}");
    }
}
