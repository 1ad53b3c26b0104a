//! A WebSocket as a client has it, by the letter of RFC 6455.

use std::collections::VecDeque;

use fastrand::Rng;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What the standard says belongs to it.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a control frame of a client's means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sign {
    Ping,
    Pong,
}

#[derive(Default)]
pub(super) struct Web {
    is_open: bool,
    is_refused: bool,
    begun: Vec<u8>,
    /// A message of ours is begun.
    is_in_message: bool,
    /// Pings whose pongs are awaited, in order.
    asked: VecDeque<Vec<u8>>,
    /// What we closed with, and what the server did; zero: no code.
    closed_with: Option<u16>,
    heard_close: Option<u16>,
}

/// What was heard, and what follows.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) native: Vec<u8>,
    pub(super) is_opened: bool,
    pub(super) is_refused: bool,
    pub(super) is_closed: bool,
}

/// A request that has to be granted.
pub(super) fn request(rng: &mut Rng) -> Vec<u8> {
    let path = ["/", "/live", "/a?b=c"][rng.usize(0..3)];
    let protocol = match rng.bool() {
        true => "Sec-WebSocket-Protocol: other, heartwheel.v1\r\n",
        false => "",
    };
    let cookie = match rng.bool() {
        true => format!("Cookie: a={}\r\n", "x".repeat(rng.usize(1..900))),
        false => String::new(),
    };
    let head = format!("GET {path} HTTP/1.1\r\nHost: gate.example\r\nConnection: Upgrade\r\n");
    let key = format!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n");
    format!("{head}Upgrade: websocket\r\n{key}{protocol}{cookie}\r\n").into_bytes()
}

/// One that must not be.
pub(super) fn bad_request(rng: &mut Rng) -> Vec<u8> {
    let good = String::from_utf8(request(rng)).expect("a text");
    let bad = match rng.u32(0..4) {
        0 => good.replace("Upgrade: websocket\r\n", ""),
        1 => good.replace(KEY, "c2hvcnQ="),
        2 => good.replace("Version: 13", "Version: 8"),
        _ => good
            .replace("Host: gate.example\r\n", "Origin: https://elsewhere.example\r\nHost: a\r\n"),
    };
    bad.into_bytes()
}

/// A frame against the rules.
pub(super) fn bad_frame(rng: &mut Rng) -> Vec<u8> {
    match rng.u32(0..6) {
        0 => vec![0x82, 1, 9],                         // not masked
        1 => vec![0x81, 0x81, 1, 2, 3, 4, 5],          // text
        2 => vec![0xC2, 0x81, 1, 2, 3, 4, 5],          // a reserved bit
        3 => vec![0x83, 0x81, 1, 2, 3, 4, 5],          // no such opcode
        4 => vec![0x09, 0x80, 1, 2, 3, 4],             // a ping in fragments
        _ => vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xED], // a code that may not be said
    }
}

fn put_frame(rng: &mut Rng, first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        short @ 0..126 => out.push(0x80 | u8::try_from(short).expect("below 126")),
        long => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(long).expect("no long frames here").to_be_bytes());
        }
    }
    let mask = if rng.u32(0..10) == 0 { [0; 4] } else { rng.u32(..).to_be_bytes() };
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

impl Web {
    /// Says a piece of the stream, as a message or a fragment; `is_end`: of what is said at once.
    pub(super) fn say(&mut self, rng: &mut Rng, piece: &[u8], is_end: bool, out: &mut Vec<u8>) {
        let is_final = if is_end { rng.u32(0..4) > 0 } else { rng.u32(0..4) == 0 };
        let opcode = if self.is_in_message { 0x0 } else { 0x2 };
        self.is_in_message = !is_final;
        put_frame(rng, opcode | if is_final { 0x80 } else { 0 }, piece, out);
        if self.is_in_message && rng.u32(0..10) == 0 {
            put_frame(rng, 0x0, &[], out); // a fragment that says nothing
        }
    }

    /// A ping, or a pong that nobody asked for.
    pub(super) fn control(&mut self, rng: &mut Rng, out: &mut Vec<u8>) -> Sign {
        if rng.bool() {
            self.pong(rng, out);
            return Sign::Pong;
        }
        let payload = vec![rng.u8(..); rng.usize(0..=125)];
        put_frame(rng, 0x89, &payload, out);
        self.asked.push_back(payload);
        Sign::Ping
    }

    pub(super) fn pong(&mut self, rng: &mut Rng, out: &mut Vec<u8>) {
        put_frame(rng, 0x8A, &[], out);
    }

    /// Our close: an answer to the server's, or of our own accord.
    pub(super) fn close(&mut self, rng: &mut Rng, out: &mut Vec<u8>) {
        let code: u16 = [0, 1_000, 1_001, 4_001][rng.usize(0..4)];
        let payload =
            if code == 0 { Vec::new() } else { [&code.to_be_bytes()[..], b"bye"].concat() };
        put_frame(rng, 0x88, &payload, out);
        if self.heard_close.is_none() {
            self.closed_with = Some(code);
        }
    }

    /// Whether nothing was heard yet.
    pub(super) fn is_untouched(&self) -> bool {
        !self.is_open && self.begun.is_empty()
    }

    /// Bytes of the server's, who may hold against us that we broke the rules.
    pub(super) fn hear(&mut self, bytes: &[u8], is_rogue: bool) -> Heard {
        let mut heard = Heard::default();
        self.begun.extend_from_slice(bytes);
        if self.is_refused {
            return heard;
        }
        if !self.is_open {
            let Some(end) = self.begun.windows(4).position(|four| four == b"\r\n\r\n") else {
                return heard;
            };
            let answer: Vec<u8> = self.begun.drain(..end + 4).collect();
            self.is_open = is_granted(&answer, is_rogue);
            self.is_refused = !self.is_open;
            (heard.is_opened, heard.is_refused) = (self.is_open, self.is_refused);
        }
        while self.is_open
            && let Some((opcode, payload)) = self.next_frame()
        {
            self.hear_frame(opcode, payload, is_rogue, &mut heard);
        }
        heard
    }

    /// The next whole frame, which is a whole message and not masked.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, rest @ ..] = self.begun.as_slice() else { return None };
        assert_eq!(first & 0xF0, 0x80, "a frame of the gateway is whole, and has no reserved bits");
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (head, length) = match (second & 0x7F, rest) {
            (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (126, _) => return None,
            (127, _) => panic!("no frame of ours is so long"),
            (short, _) => (2, usize::from(short)),
        };
        assert!(head == 2 || length > 125, "a length in more bytes than it needs");
        if self.begun.len() < head + length {
            return None;
        }
        let opcode = first & 0x0F;
        let payload = self.begun.drain(..head + length).skip(head).collect();
        Some((opcode, payload))
    }

    fn hear_frame(&mut self, opcode: u8, payload: Vec<u8>, is_rogue: bool, heard: &mut Heard) {
        assert_eq!(self.heard_close, None, "a frame behind the close");
        match opcode {
            0x2 => {
                let length = payload
                    .get(2..4)
                    .map_or(0, |two| usize::from(two[0]) << 8 | usize::from(two[1]));
                assert_eq!(payload.len(), 4 + length, "a message is one native frame");
                heard.native.extend(payload);
            }
            0x9 => {
                assert!(payload.len() <= 125, "a long control frame");
                let length = u8::try_from(payload.len()).expect("it is short");
                // What it means: a PING that wants an answer.
                heard.native.extend([3, 0, 0, length]);
                heard.native.extend(payload);
            }
            0xA => assert_eq!(self.asked.pop_front(), Some(payload), "the pong of no ping"),
            0x8 => {
                let code = payload.first_chunk().map_or(0, |two| u16::from_be_bytes(*two));
                let text = payload.get(2..).unwrap_or_default();
                assert!(std::str::from_utf8(text).is_ok() && payload.len() <= 125);
                let is_fault = (1_002..4_000).contains(&code);
                assert!(!is_fault || is_rogue, "closed with {code} and was no rogue");
                self.heard_close = Some(code);
                heard.is_closed = true;
            }
            other => panic!("the gateway says a frame of kind {other}"),
        }
    }

    /// It was closed, and `word` was the native last word.
    pub(super) fn check_closed(&self, word: Option<u16>) {
        let heard = self.heard_close.expect("a WebSocket is closed before its connection is");
        let own = match word {
            Some(code) if code < 1_000 => 4_000 + code,
            Some(code) => code,
            None => 1_000,
        };
        assert!(heard == own || self.closed_with == Some(heard), "closed with {heard}, not {own}");
    }
}

/// Whether the answer to the request grants it.
fn is_granted(answer: &[u8], is_rogue: bool) -> bool {
    let text = std::str::from_utf8(answer).expect("an answer in letters");
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("HTTP");
    if status == "101" {
        assert!(!is_rogue, "a bad request is granted");
        let accept = format!("\r\nSec-WebSocket-Accept: {ACCEPT}\r\n");
        assert!(text.contains(&accept), "{text}");
        return true;
    }
    let is_right = match is_rogue {
        true => ["400", "403", "426", "503", "408"].contains(&status),
        false => ["503", "408"].contains(&status),
    };
    assert!(is_right, "{text}");
    false
}
