//! What a pretend client does on one connection, written down before it begins: every behaviour
//! that real clients have, and some that only bad ones have.

use std::collections::VecDeque;

use fastrand::Rng;
use heartwheel::base::config::{GatewayConfig, Mode};
use heartwheel::base::event::CloseReason;
use heartwheel::base::identity::Proof;
use heartwheel::base::limits;
use heartwheel::base::time::Span;
use heartwheel::wire::message::{AckWanted, Before, EndedBy, Message, Reply};
use heartwheel::wire::native::{self, VERSIONS};

use crate::faults::{happens, part_of, span_upto};
use crate::guard::Claim;

/// What the gateway should make of a piece of the stream, once it has the piece whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Label {
    Preface,
    Hello(Hello),
    /// Any frame that is a beat and nothing else.
    Beat,
    Bye,
    /// A frame that has no place there.
    Unexpected,
    /// The stream is wrong here, and nothing behind it counts.
    Bad(CloseReason),
}

/// What a HELLO says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    pub(crate) device: usize,
    pub(crate) class: &'static str,
    /// The interval it wishes for; zero: none.
    pub(crate) wish_ms: u32,
    /// The epoch of the session that it proves to have had.
    pub(crate) resumes: Option<u64>,
    pub(crate) before: Option<Before>,
    /// What it shows is worth this.
    pub(crate) claim: Claim,
}

/// Names of classes that clients say. Some of them mean something here and there.
pub(crate) const CLASSES: [&str; 6] = ["", "", "demanding", "kept", "strict", "nonesuch"];

/// What a HELLO shows of a session before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shows {
    Nothing,
    /// The token, if it was given one.
    Token,
    /// Something else.
    Forgery,
}

/// One thing that a client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Bytes arrive at the gateway; with where in them frames end.
    Write { bytes: Vec<u8>, ends: Vec<(usize, Label)> },
    /// It says who it is; what it shows is known then.
    Greet { hello: Hello, shows: Shows },
    /// The client closes its side.
    Finish,
    /// The connection is reset.
    Reset,
    /// The client is gone without a word; TCP may notice later.
    Vanish,
    /// The path is gone, and the kernel was told so.
    Fail,
    /// The client's machine starts anew and knows nothing of the connection.
    Restart,
    /// The client reads no more.
    StopReading,
    /// The same client connects once more, whatever became of this connection.
    ConnectAgain,
}

/// The words for the steps, for counting them.
pub(crate) const STEPS: [&str; 9] = [
    "write",
    "finish",
    "reset",
    "vanish",
    "path fails",
    "machine restarts",
    "stops reading",
    "connects again",
    "says hello",
];

impl Step {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Write { .. } => STEPS[0],
            Self::Finish => STEPS[1],
            Self::Reset => STEPS[2],
            Self::Vanish => STEPS[3],
            Self::Fail => STEPS[4],
            Self::Restart => STEPS[5],
            Self::StopReading => STEPS[6],
            Self::ConnectAgain => STEPS[7],
            Self::Greet { .. } => STEPS[8],
        }
    }
}

/// Steps, each with the time since the one before.
pub(crate) type Script = VecDeque<(Span, Step)>;

/// Name of the numbered client.
pub(crate) fn client_id(device: usize) -> String {
    format!("device-{device}")
}

/// Writes scripts.
pub(crate) struct Writer<'a> {
    rng: &'a mut Rng,
    config: &'a GatewayConfig,
    script: Script,
    pause: Span,
}

impl<'a> Writer<'a> {
    /// A random life of this client on one connection.
    pub(crate) fn life(rng: &'a mut Rng, config: &'a GatewayConfig, device: usize) -> Script {
        let mut writer = Writer { rng, config, script: Script::new(), pause: Span::ZERO };
        if writer.greet(device) == Entered::Yes {
            if matches!(config.proof, Proof::Asked(_)) && happens(writer.rng, 20) {
                writer.talk_before_it_is_known();
            }
            match writer.rng.u32(0..10) {
                0 => writer.flood(),
                1 => writer.stream(),
                2 => {
                    writer.step(Step::StopReading);
                    for _ in 0..40 {
                        writer.pause_part(1..20);
                        writer.pings(4);
                    }
                }
                _ => {
                    for _ in 0..writer.rng.u32(0..12) {
                        writer.beat();
                    }
                }
            }
            writer.part(device);
        }
        if happens(writer.rng, 600) {
            writer.pause = span_upto(writer.rng, config.rhythm.timeout.times(2));
            writer.step(Step::ConnectAgain);
        }
        writer.script
    }

    /// Says hello, or what some say instead.
    fn greet(&mut self, device: usize) -> Entered {
        let rogue = if happens(self.rng, 200) { self.rng.u32(1..=7) } else { 0 };
        let mut preface = Vec::new();
        native::encode_preface(VERSIONS, &mut preface);
        let hello = self.hello(device);
        match rogue {
            1 => return Entered::No, // says nothing at all
            2 => {
                self.write(b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1, bad(CloseReason::BadPreface));
                return Entered::No;
            }
            3 => {
                preface[4] = 7;
                preface[5] = 9;
                self.whole(preface, bad(CloseReason::UnsupportedVersion));
                return Entered::No;
            }
            _ => self.whole(preface, Label::Preface),
        }
        match rogue {
            4 => {
                self.say(
                    &Message::Ping { reply: Reply::Wanted, payload: b"early" },
                    Label::Unexpected,
                );
                Entered::No
            }
            5 => {
                let payload = [0, 0, 0, 0, 2, b'a', b'\n', 0, 0, 0, 0, 0, 0, 0, 0];
                self.whole(frame(native::kind::HELLO, 0, &payload), bad(CloseReason::BadClientId));
                Entered::No
            }
            6 => {
                let patience = self.config.handshake_timeout;
                self.pause = part_of(self.rng, patience, 50..150);
                self.greet_with(hello);
                Entered::Yes
            }
            7 => {
                let bytes = hello_bytes(&hello, &[], &[], 0);
                let over = part_of(self.rng, self.config.handshake_timeout, 20..150);
                self.dribble(bytes, Label::Hello(hello), over);
                Entered::Yes
            }
            _ => {
                if self.rng.bool() {
                    self.pause = span_upto(self.rng, Span::from_millis(200));
                }
                self.greet_with(hello);
                Entered::Yes
            }
        }
    }

    fn hello(&mut self, device: usize) -> Hello {
        let has_wish = happens(self.rng, 100);
        let wish_ms = [1, 700, 3_000, 90_000, u32::MAX][self.rng.usize(0..5)];
        let longest = self.config.rhythm.timeout.times(2).as_millis_u32();
        let before = Before {
            last_beat_ago_ms: self.rng.u32(0..longest),
            ended_by: if self.rng.bool() { EndedBy::Server } else { EndedBy::Client },
        };
        Hello {
            device,
            class: CLASSES[self.rng.usize(0..CLASSES.len())],
            wish_ms: if has_wish { wish_ms } else { 0 },
            resumes: None,
            before: self.rng.bool().then_some(before),
            claim: match self.config.proof {
                Proof::None => Claim::Unneeded,
                Proof::Certificate | Proof::Words(_) | Proof::Keys(_) | Proof::Asked(_) => {
                    Claim::Missing
                }
            },
        }
    }

    fn greet_with(&mut self, hello: Hello) {
        let shows = match self.rng.u32(0..10) {
            0..3 => Shows::Nothing,
            3 => Shows::Forgery,
            _ => Shows::Token,
        };
        self.step(Step::Greet { hello, shows });
    }

    /// One beat of some kind, nearly always in time.
    fn beat(&mut self) {
        match self.config.mode {
            // It answers pings; now and then it says something by itself.
            Mode::Server => self.pause_part(100..400),
            Mode::Client | Mode::Either => {
                let late = happens(self.rng, 100);
                let hundredths = if late { 90..99 } else { 5..60 };
                self.pause = part_of(self.rng, self.config.rhythm.timeout, hundredths);
            }
        }
        match self.rng.u32(0..9) {
            0..3 => self.pings(1),
            3 => self.pings(3),
            4 => self.say(&Message::Ping { reply: Reply::NotWanted, payload: &[] }, Label::Beat),
            5 => self.say(&data(&[7; 300]), Label::Beat),
            6 => self.whole(frame(0x7F, 0x11, b"from the future"), Label::Beat),
            7 => {
                let over = span_upto(self.rng, self.config.frame_timeout);
                let bytes = encoded(&data(&[9; 90]));
                self.dribble(bytes, Label::Beat, part_of_span(over, 80));
            }
            // Of nothing: what it really heard it acknowledges by itself.
            _ => self.say(&Message::Ack { seq: 0 }, Label::Beat),
        }
    }

    fn pings(&mut self, count: usize) {
        let payload = [5; 16];
        let ping = encoded(&Message::Ping { reply: Reply::Wanted, payload: &payload });
        let ends = (1..=count).map(|nth| (nth * ping.len(), Label::Beat)).collect();
        self.step(Step::Write { bytes: ping.repeat(count), ends });
    }

    /// Much at once.
    fn flood(&mut self) {
        for _ in 0..5 {
            self.pause_part(1..10);
            self.pings(30);
        }
    }

    /// More than is kept of somebody whose token is looked at.
    fn talk_before_it_is_known(&mut self) {
        let one = encoded(&data(&[8; 900]));
        for _ in 0..=limits::CHECK_BYTES_MAX / one.len() {
            self.whole(one.clone(), Label::Beat);
        }
    }

    /// Frame after frame, each write ending within one.
    fn stream(&mut self) {
        let one = encoded(&data(&[3; 200]));
        let mut rest = one.repeat(60);
        let mut at = 0;
        while !rest.is_empty() {
            let longest = rest.len().min(350);
            let count = if longest == rest.len() { longest } else { self.rng.usize(205..=longest) };
            let bytes: Vec<u8> = rest.drain(..count).collect();
            let ends =
                (1..=60).map(|nth| nth * one.len()).filter(|end| *end > at && *end <= at + count);
            let ends = ends.map(|end| (end - at, Label::Beat)).collect();
            at += count;
            let patience = self.config.frame_timeout.min(self.config.rhythm.timeout);
            self.pause = part_of(self.rng, patience, 1..30);
            self.step(Step::Write { bytes, ends });
        }
    }

    /// How it ends.
    fn part(&mut self, device: usize) {
        self.pause_part(5..60);
        match self.rng.u32(0..16) {
            0..3 => {} // falls silent with the connection open
            14 => self.step(Step::Restart),
            15 => self.step(Step::Fail),
            3 => self.step(Step::Vanish),
            4 | 5 => self.say(&Message::Bye { code: CloseReason::Bye.code() }, Label::Bye),
            6 => self.step(Step::Reset),
            7 => self.step(Step::Finish),
            8 => self.step(Step::ConnectAgain), // and is replaced by itself
            9 => {
                let bytes = encoded(&data(&[1; 40]));
                let half = bytes[..bytes.len() / 2].to_vec();
                self.step(Step::Write { bytes: half, ends: Vec::new() });
            }
            10 => {
                let hello = self.hello(device);
                self.whole(hello_bytes(&hello, &[], &[], 0), Label::Hello(hello));
            }
            11 => {
                let bytes = encoded(&Message::Beat { interval_ms: 1_000, timeout_ms: 3_000 });
                self.whole(bytes, Label::Unexpected);
            }
            _ => self.garbage(),
        }
    }

    fn garbage(&mut self) {
        match self.rng.u32(0..3) {
            0 => {
                let bytes = vec![native::kind::DATA, 0, 0xFF, 0xFF, 1, 2, 3];
                self.write(bytes, 4, bad(CloseReason::FrameTooLong));
            }
            1 => {
                let bytes = frame(0x7F, native::flag::CRITICAL, b"");
                self.whole(bytes, bad(CloseReason::UnknownCriticalFrame));
            }
            _ => self.whole(frame(native::kind::ACK, 0, &[1, 2]), bad(CloseReason::Malformed)),
        }
        self.pings(2);
    }

    // --- writing ---------------------------------------------------------------------------------

    fn step(&mut self, step: Step) {
        self.script.push_back((std::mem::take(&mut self.pause), step));
    }

    fn pause_part(&mut self, hundredths: std::ops::Range<u64>) {
        self.pause = part_of(self.rng, self.config.rhythm.interval, hundredths);
    }

    fn write(&mut self, bytes: Vec<u8>, end: usize, label: Label) {
        self.step(Step::Write { bytes, ends: vec![(end, label)] });
    }

    fn whole(&mut self, bytes: Vec<u8>, label: Label) {
        let end = bytes.len();
        self.write(bytes, end, label);
    }

    fn say(&mut self, message: &Message<'_>, label: Label) {
        self.whole(encoded(message), label);
    }

    /// The same bytes in small pieces, over this time.
    fn dribble(&mut self, bytes: Vec<u8>, label: Label, over: Span) {
        let pieces: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(self.rng.usize(2..6))).collect();
        let pause = over.divided_by(pieces.len() as u64);
        for (index, piece) in pieces.iter().enumerate() {
            let is_last = index + 1 == pieces.len();
            let ends = if is_last { vec![(piece.len(), label)] } else { Vec::new() };
            self.step(Step::Write { bytes: piece.to_vec(), ends });
            self.pause = pause;
        }
        self.pause = Span::ZERO;
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Entered {
    Yes,
    No,
}

const fn bad(reason: CloseReason) -> Label {
    Label::Bad(reason)
}

const fn data(body: &[u8]) -> Message<'_> {
    Message::Data { seq: 1, ack: AckWanted::No, topic: "t", body }
}

fn part_of_span(span: Span, hundredths: u64) -> Span {
    span.times(hundredths).divided_by(100)
}

/// A HELLO as bytes, with these tokens.
pub(crate) fn hello_bytes(hello: &Hello, token: &[u8], resume: &[u8], last_seq: u32) -> Vec<u8> {
    encoded(&Message::Hello {
        wanted_interval_ms: hello.wish_ms,
        client_id: &client_id(hello.device),
        class: hello.class,
        token,
        resume,
        last_seq,
        before: hello.before,
    })
}

/// A message as bytes.
pub(crate) fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode(message, &mut bytes);
    bytes
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&[kind, flags, length[0], length[1]], payload].concat()
}
