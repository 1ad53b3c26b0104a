//! Our own frames.
//!
//! ```text
//! preface   0xB7 'H' 'W' 'P' | version_min u8 | version_max u8 | flags u16      client, once
//! frame     type u8 | flags u8 | length u16 | payload (length bytes)            both, big-endian
//! ```
//!
//! The normative text, with every frame byte by byte, is in the manual: `manual::protocol`.

use std::ops::RangeInclusive;

use crate::base::config::Mode;
use crate::base::ids::{ClientId, ClientIdError};
use crate::base::limits;
use crate::wire::cursor::Cursor;
use crate::wire::error::{Flaw, Unsayable, WireError};
use crate::wire::message::{AckWanted, Before, EndedBy, Message, Reply};

/// The versions spoken here.
pub const VERSIONS: RangeInclusive<u8> = 1..=1;

/// The first bytes of the preface. The first of them is none of TLS, MQTT, PROXY or HTTP.
pub const MAGIC: [u8; 4] = [0xB7, b'H', b'W', b'P'];

/// Frame types.
pub mod kind {
    /// HELLO.
    pub const HELLO: u8 = 0x01;
    /// WELCOME.
    pub const WELCOME: u8 = 0x02;
    /// PING.
    pub const PING: u8 = 0x03;
    /// PONG.
    pub const PONG: u8 = 0x04;
    /// DATA.
    pub const DATA: u8 = 0x05;
    /// ACK.
    pub const ACK: u8 = 0x06;
    /// GOAWAY.
    pub const GOAWAY: u8 = 0x07;
    /// BYE.
    pub const BYE: u8 = 0x08;
    /// ERROR.
    pub const ERROR: u8 = 0x09;
    /// BEAT.
    pub const BEAT: u8 = 0x0A;
}

/// Bits of a frame's flags.
pub mod flag {
    /// PING: wants no PONG.
    pub const NO_REPLY: u8 = 0x01;
    /// PING: wants its PONG at once.
    pub const PROBE: u8 = 0x02;
    /// DATA: wants an ACK.
    pub const ACK_REQ: u8 = 0x01;
    /// Any frame: whoever does not know its type must not go on.
    pub const CRITICAL: u8 = 0x80;
}

/// What a client says before anything else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Preface {
    /// Oldest version the client speaks.
    pub version_min: u8,
    /// Newest version the client speaks.
    pub version_max: u8,
}

impl Preface {
    /// The newest version that both sides speak; what WELCOME names.
    ///
    /// A decoded preface always has one.
    pub fn version(self) -> Option<u8> {
        let newest = self.version_max.min(*VERSIONS.end());
        (newest >= self.version_min && newest >= *VERSIONS.start()).then_some(newest)
    }
}

/// What can come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Inbound<'a> {
    /// The preface: first of all, to the server only.
    Preface(Preface),
    /// A message.
    Message(Message<'a>),
    /// A frame of a type that is not known here and need not be.
    Skipped {
        /// Its type.
        kind: u8,
    },
}

/// Appends a preface that names `versions`.
pub fn encode_preface(versions: RangeInclusive<u8>, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[*versions.start(), *versions.end(), 0, 0]);
}

/// Appends `message` as a frame. Texts for people are cut to their limit.
///
/// # Panics
///
/// When the message cannot be said (see [`Message::check_sayable`]). Use it for what this program
/// itself makes up within the limits, and [`try_encode`] for what somebody else put together.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) {
    if let Err(unsayable) = try_encode(message, out) {
        panic!("a message of our own is within the limits: {unsayable}");
    }
}

/// Appends `message` as a frame, or nothing when one of its fields is over its limit.
pub fn try_encode(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), Unsayable> {
    message.check_sayable()?;
    let start = out.len();
    out.extend_from_slice(&[kind_of(message), flags_of(message), 0, 0]);
    put_payload(message, out);
    let payload_bytes = out.len() - start - limits::FRAME_HEADER_BYTES;
    let length = u16::try_from(payload_bytes).expect("check_sayable bounds every payload");
    out[start + 2..start + limits::FRAME_HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Cuts a stream of bytes into what was said.
///
/// Frames that are complete in the received bytes are decoded where they lie, without a copy. Only
/// the beginning of one that is not is kept, in memory that grows with what has really come, never
/// beyond the one frame, and is given back with it.
#[derive(Debug, Default)]
pub struct Deframer {
    /// The beginning of what is not complete yet; empty and unallocated when nothing is.
    partial: Vec<u8>,
    /// `partial` is complete and was lent to the caller: to be dropped at the next call.
    is_lent: bool,
    stage: Stage,
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Preface,
    Frames,
}

impl Deframer {
    /// The server's: expects the preface first.
    pub const fn server_side() -> Self {
        Self { partial: Vec::new(), is_lent: false, stage: Stage::Preface }
    }

    /// The client's: frames at once.
    pub const fn client_side() -> Self {
        Self { partial: Vec::new(), is_lent: false, stage: Stage::Frames }
    }

    /// The next complete thing from what was kept plus `*bytes`; takes what it used from the front
    /// of `*bytes`. `None`: all of `*bytes` was taken, and more is needed.
    ///
    /// `payload_max` is the longest payload allowed now: before WELCOME
    /// [`limits::HELLO_PAYLOAD_BYTES_MAX`]. What is wrong is reported as soon as it can be seen: a
    /// bad preface at its first wrong byte, a long frame at its header. After an error the
    /// connection ends; there is no going on behind it.
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        bytes: &mut &'b [u8],
        payload_max: usize,
    ) -> Result<Option<Inbound<'a>>, WireError> {
        if self.is_lent {
            self.partial = Vec::new();
            self.is_lent = false;
        }
        let stage = self.stage;
        if self.partial.is_empty() {
            if bytes.is_empty() {
                return Ok(None);
            }
            if let Some(bytes_needed) = measure(stage, bytes, payload_max)?
                && let Some((whole, rest)) = bytes.split_at_checked(bytes_needed)
            {
                *bytes = rest;
                self.stage = Stage::Frames;
                return decode(stage, whole).map(Some);
            }
        }
        if !self.fill(bytes, payload_max)? {
            return Ok(None);
        }
        self.is_lent = true;
        self.stage = Stage::Frames;
        decode(stage, &self.partial).map(Some)
    }

    /// Whether something was begun and is not complete.
    pub const fn is_partial(&self) -> bool {
        !self.partial.is_empty() && !self.is_lent
    }

    /// How many bytes were begun and are not complete.
    pub const fn partial_bytes(&self) -> usize {
        if self.is_lent { 0 } else { self.partial.len() }
    }

    /// Memory on the heap, in bytes.
    pub const fn memory_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Moves bytes to `partial` until it is complete, and says whether it is.
    fn fill(&mut self, bytes: &mut &[u8], payload_max: usize) -> Result<bool, WireError> {
        loop {
            let known = measure(self.stage, &self.partial, payload_max)?;
            let wanted = known.unwrap_or(limits::FRAME_HEADER_BYTES);
            let missing = wanted.saturating_sub(self.partial.len());
            if missing == 0 && known.is_some() {
                return Ok(true);
            }
            let (head, rest) = bytes.split_at(missing.min(bytes.len()));
            if head.is_empty() {
                return Ok(false);
            }
            self.keep(head, wanted);
            *bytes = rest;
        }
    }

    /// Appends `head`. Memory doubles, but never beyond `wanted`, so that a header which claims
    /// much and brings nothing costs nothing.
    fn keep(&mut self, head: &[u8], wanted: usize) {
        let needed = self.partial.len() + head.len();
        if needed > self.partial.capacity() {
            let roomy = needed.max(2 * self.partial.capacity()).min(wanted.max(needed));
            self.partial.reserve_exact(roomy - self.partial.len());
        }
        self.partial.extend_from_slice(head);
    }
}

/// How long what begins with `head` is in all; `None` while too little of it is there to tell.
fn measure(stage: Stage, head: &[u8], payload_max: usize) -> Result<Option<usize>, WireError> {
    match stage {
        Stage::Preface => {
            if head.iter().zip(&MAGIC).any(|(byte, expected)| byte != expected) {
                return Err(WireError::BadPreface);
            }
            Ok(Some(limits::PREFACE_BYTES))
        }
        Stage::Frames => {
            let Some((&[kind, flags, high, low], _)) = head.split_first_chunk() else {
                return Ok(None);
            };
            let claimed_bytes = usize::from(u16::from_be_bytes([high, low]));
            if claimed_bytes > payload_max {
                return Err(WireError::FrameTooLong { claimed_bytes, limit_bytes: payload_max });
            }
            if flags & flag::CRITICAL != 0 && !matches!(kind, kind::HELLO..=kind::BEAT) {
                return Err(WireError::UnknownCritical { kind });
            }
            Ok(Some(limits::FRAME_HEADER_BYTES + claimed_bytes))
        }
    }
}

fn decode(stage: Stage, whole: &[u8]) -> Result<Inbound<'_>, WireError> {
    match stage {
        Stage::Preface => decode_preface(whole),
        Stage::Frames => decode_frame(whole),
    }
}

fn decode_preface(whole: &[u8]) -> Result<Inbound<'_>, WireError> {
    let Some(&[_, _, _, _, version_min, version_max, _, _]) = whole.first_chunk() else {
        return Err(WireError::BadPreface);
    };
    let preface = Preface { version_min, version_max };
    match preface.version() {
        Some(_) => Ok(Inbound::Preface(preface)),
        None => Err(WireError::UnsupportedVersion { version_min, version_max }),
    }
}

fn decode_frame(whole: &[u8]) -> Result<Inbound<'_>, WireError> {
    let Some((&[kind, flags, _, _], payload)) = whole.split_first_chunk() else {
        return Err(WireError::Malformed { kind: 0, flaw: Flaw::TooShort });
    };
    let mut cursor = Cursor::new(payload);
    let message = match kind {
        kind::HELLO => return take_hello(&mut cursor).map(Inbound::Message),
        kind::WELCOME => take_welcome(&mut cursor),
        kind::PING => take_ping(&mut cursor, flags),
        kind::PONG => take_echo(&mut cursor).map(|payload| Message::Pong { payload }),
        kind::DATA => take_data(&mut cursor, flags),
        kind::ACK => seen(cursor.take_u32()).map(|seq| Message::Ack { seq }),
        kind::GOAWAY => take_goaway(&mut cursor),
        kind::BYE => seen(cursor.take_u16()).map(|code| Message::Bye { code }),
        kind::ERROR => take_error(&mut cursor),
        kind::BEAT => take_beat(&mut cursor),
        _ => return Ok(Inbound::Skipped { kind }),
    };
    match message {
        Ok(message) => Ok(Inbound::Message(message)),
        Err(flaw) => Err(WireError::Malformed { kind, flaw }),
    }
}

fn take_hello<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, WireError> {
    let malformed = |flaw| WireError::Malformed { kind: kind::HELLO, flaw };
    let wanted_interval_ms = seen(cursor.take_u32()).map_err(malformed)?;
    let client_id = seen(cursor.take_short()).map_err(malformed)?;
    let client_id = std::str::from_utf8(client_id)
        .map_err(|_| WireError::BadClientId(ClientIdError::NotUtf8))?;
    ClientId::validate(client_id).map_err(WireError::BadClientId)?;
    let class = take_name(cursor, limits::CLASS_BYTES_MAX).map_err(malformed)?;
    let token = seen(cursor.take_long()).map_err(malformed)?;
    let resume = take_resume(cursor).map_err(malformed)?;
    let last_seq = seen(cursor.take_u32()).map_err(malformed)?;
    let before = take_before(cursor).map_err(malformed)?;
    Ok(Message::Hello { wanted_interval_ms, client_id, class, token, resume, last_seq, before })
}

/// A field that older clients do not have.
fn take_before(cursor: &mut Cursor<'_>) -> Result<Option<Before>, Flaw> {
    let Some(last_beat_ago_ms) = cursor.take_u32() else { return Ok(None) };
    let ended_by = match cursor.take_u8() {
        Some(1) => EndedBy::Server,
        Some(2) => EndedBy::Client,
        // Not said, or said in a later version's words.
        None | Some(_) => return Ok(None),
    };
    Ok(Some(Before { last_beat_ago_ms, ended_by }))
}

fn take_welcome<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, Flaw> {
    Ok(Message::Welcome {
        version: seen(cursor.take_u8())?,
        mode: take_mode(cursor)?,
        resumed: take_flag(cursor)?,
        epoch: seen(cursor.take_u64())?,
        interval_ms: seen(cursor.take_u32())?,
        timeout_ms: seen(cursor.take_u32())?,
        first_beat_ms: seen(cursor.take_u32())?,
        payload_max: seen(cursor.take_u16())?,
        server_unix_ms: seen(cursor.take_u64())?,
        resume: take_resume(cursor)?,
    })
}

fn take_ping<'a>(cursor: &mut Cursor<'a>, flags: u8) -> Result<Message<'a>, Flaw> {
    let reply = if flags & flag::PROBE != 0 {
        Reply::AtOnce
    } else if flags & flag::NO_REPLY != 0 {
        Reply::NotWanted
    } else {
        Reply::Wanted
    };
    Ok(Message::Ping { reply, payload: take_echo(cursor)? })
}

fn take_data<'a>(cursor: &mut Cursor<'a>, flags: u8) -> Result<Message<'a>, Flaw> {
    Ok(Message::Data {
        seq: seen(cursor.take_u32())?,
        ack: if flags & flag::ACK_REQ != 0 { AckWanted::Yes } else { AckWanted::No },
        topic: take_name(cursor, limits::TOPIC_BYTES_MAX)?,
        body: cursor.take_rest(),
    })
}

fn take_goaway<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, Flaw> {
    Ok(Message::Goaway {
        code: seen(cursor.take_u16())?,
        reconnect_min_ms: seen(cursor.take_u32())?,
        reconnect_max_ms: seen(cursor.take_u32())?,
        address: take_name(cursor, limits::ADDRESS_BYTES_MAX)?,
        text: take_text(cursor)?,
    })
}

fn take_error<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, Flaw> {
    Ok(Message::Error { code: seen(cursor.take_u16())?, text: take_text(cursor)? })
}

fn take_beat<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, Flaw> {
    Ok(Message::Beat {
        interval_ms: seen(cursor.take_u32())?,
        timeout_ms: seen(cursor.take_u32())?,
    })
}

fn take_mode(cursor: &mut Cursor<'_>) -> Result<Mode, Flaw> {
    let value = seen(cursor.take_u8())?;
    Mode::from_code(value).ok_or(Flaw::UnknownValue { value })
}

fn take_flag(cursor: &mut Cursor<'_>) -> Result<bool, Flaw> {
    match seen(cursor.take_u8())? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(Flaw::UnknownValue { value }),
    }
}

fn take_echo<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Flaw> {
    bounded(cursor.take_rest(), limits::PING_BYTES_MAX)
}

fn take_resume<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Flaw> {
    bounded(seen(cursor.take_short())?, limits::RESUME_TOKEN_BYTES_MAX)
}

fn take_name<'a>(cursor: &mut Cursor<'a>, limit_bytes: usize) -> Result<&'a str, Flaw> {
    let name = take_text(cursor)?;
    bounded(name.as_bytes(), limit_bytes)?;
    if name.chars().any(char::is_control) { Err(Flaw::Control) } else { Ok(name) }
}

fn take_text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Flaw> {
    std::str::from_utf8(seen(cursor.take_short())?).map_err(|_| Flaw::NotUtf8)
}

fn bounded(field: &[u8], limit_bytes: usize) -> Result<&[u8], Flaw> {
    if field.len() > limit_bytes {
        Err(Flaw::FieldTooLong { bytes: field.len(), limit_bytes })
    } else {
        Ok(field)
    }
}

/// A field that must be there.
fn seen<T>(field: Option<T>) -> Result<T, Flaw> {
    field.ok_or(Flaw::TooShort)
}

const fn kind_of(message: &Message<'_>) -> u8 {
    match message {
        Message::Hello { .. } => kind::HELLO,
        Message::Welcome { .. } => kind::WELCOME,
        Message::Ping { .. } => kind::PING,
        Message::Pong { .. } => kind::PONG,
        Message::Data { .. } => kind::DATA,
        Message::Ack { .. } => kind::ACK,
        Message::Goaway { .. } => kind::GOAWAY,
        Message::Bye { .. } => kind::BYE,
        Message::Error { .. } => kind::ERROR,
        Message::Beat { .. } => kind::BEAT,
    }
}

const fn flags_of(message: &Message<'_>) -> u8 {
    match message {
        Message::Ping { reply: Reply::NotWanted, .. } => flag::NO_REPLY,
        Message::Ping { reply: Reply::AtOnce, .. } => flag::PROBE,
        Message::Data { ack: AckWanted::Yes, .. } => flag::ACK_REQ,
        Message::Ping { reply: Reply::Wanted, .. }
        | Message::Data { ack: AckWanted::No, .. }
        | Message::Hello { .. }
        | Message::Welcome { .. }
        | Message::Pong { .. }
        | Message::Ack { .. }
        | Message::Goaway { .. }
        | Message::Bye { .. }
        | Message::Error { .. }
        | Message::Beat { .. } => 0,
    }
}

fn put_before(before: Option<Before>, out: &mut Vec<u8>) {
    let Some(Before { last_beat_ago_ms, ended_by }) = before else { return };
    out.extend_from_slice(&last_beat_ago_ms.to_be_bytes());
    out.push(match ended_by {
        EndedBy::Server => 1,
        EndedBy::Client => 2,
    });
}

fn put_payload(message: &Message<'_>, out: &mut Vec<u8>) {
    match *message {
        Message::Hello {
            wanted_interval_ms,
            client_id,
            class,
            token,
            resume,
            last_seq,
            before,
        } => {
            out.extend_from_slice(&wanted_interval_ms.to_be_bytes());
            put_short(client_id.as_bytes(), out);
            put_short(class.as_bytes(), out);
            let token_bytes = u16::try_from(token.len()).expect("check_sayable bounds tokens");
            out.extend_from_slice(&token_bytes.to_be_bytes());
            out.extend_from_slice(token);
            put_short(resume, out);
            out.extend_from_slice(&last_seq.to_be_bytes());
            put_before(before, out);
        }
        Message::Welcome {
            version,
            mode,
            resumed,
            epoch,
            interval_ms,
            timeout_ms,
            first_beat_ms,
            payload_max,
            server_unix_ms,
            resume,
        } => {
            out.extend_from_slice(&[version, mode.code(), u8::from(resumed)]);
            out.extend_from_slice(&epoch.to_be_bytes());
            out.extend_from_slice(&interval_ms.to_be_bytes());
            out.extend_from_slice(&timeout_ms.to_be_bytes());
            out.extend_from_slice(&first_beat_ms.to_be_bytes());
            out.extend_from_slice(&payload_max.to_be_bytes());
            out.extend_from_slice(&server_unix_ms.to_be_bytes());
            put_short(resume, out);
        }
        Message::Ping { payload, .. } | Message::Pong { payload } => {
            out.extend_from_slice(payload);
        }
        Message::Data { seq, topic, body, .. } => {
            out.extend_from_slice(&seq.to_be_bytes());
            put_short(topic.as_bytes(), out);
            out.extend_from_slice(body);
        }
        Message::Ack { seq } => out.extend_from_slice(&seq.to_be_bytes()),
        Message::Goaway { code, reconnect_min_ms, reconnect_max_ms, address, text } => {
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&reconnect_min_ms.to_be_bytes());
            out.extend_from_slice(&reconnect_max_ms.to_be_bytes());
            put_short(address.as_bytes(), out);
            put_short(cut(text).as_bytes(), out);
        }
        Message::Bye { code } => out.extend_from_slice(&code.to_be_bytes()),
        Message::Error { code, text } => {
            out.extend_from_slice(&code.to_be_bytes());
            put_short(cut(text).as_bytes(), out);
        }
        Message::Beat { interval_ms, timeout_ms } => {
            out.extend_from_slice(&interval_ms.to_be_bytes());
            out.extend_from_slice(&timeout_ms.to_be_bytes());
        }
    }
}

fn put_short(field: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(field.len()).expect("check_sayable and cut bound every short field"));
    out.extend_from_slice(field);
}

/// As much of a text for people as a frame carries, cut between two characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(limits::TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::CloseReason;

    const PAYLOAD_MAX: usize = limits::PAYLOAD_BYTES_DEFAULT as usize;

    fn frame(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(message, &mut out);
        out
    }

    /// Feeds `pieces` one after the other and writes down what comes out.
    fn heard(mut deframer: Deframer, pieces: &[&[u8]]) -> Vec<String> {
        let mut heard = Vec::new();
        for piece in pieces {
            let mut bytes = *piece;
            loop {
                match deframer.next(&mut bytes, PAYLOAD_MAX) {
                    Ok(Some(inbound)) => heard.push(format!("{inbound:?}")),
                    Ok(None) => break,
                    Err(error) => {
                        heard.push(error.reason().word().to_owned());
                        return heard;
                    }
                }
            }
        }
        heard
    }

    fn ping(payload: &[u8]) -> Vec<u8> {
        frame(&Message::Ping { reply: Reply::Wanted, payload })
    }

    #[test]
    fn a_complete_ping_is_borrowed_from_the_received_bytes() {
        let burst = ping(b"1234").repeat(10);
        let mut deframer = Deframer::client_side();
        let mut bytes = burst.as_slice();
        for _ in 0..10 {
            let inbound = deframer.next(&mut bytes, PAYLOAD_MAX).unwrap();
            let Some(Inbound::Message(Message::Ping { payload, .. })) = inbound else {
                panic!("not a ping: {inbound:?}");
            };
            assert!(burst.as_ptr_range().contains(&payload.as_ptr()));
        }
        assert_eq!(deframer.next(&mut bytes, PAYLOAD_MAX), Ok(None));
        assert_eq!(deframer.memory_bytes(), 0);
    }

    #[test]
    fn a_split_frame_is_whole_again_and_its_memory_given_back() {
        let stream = [ping(b"first"), ping(b"second")].concat();
        let expected = heard(Deframer::client_side(), &[&stream]);
        assert_eq!(expected.len(), 2);
        for at in 0..=stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(heard(Deframer::client_side(), &[head, tail]), expected, "cut at {at}");
        }
        let mut deframer = Deframer::client_side();
        let (mut head, mut tail) = stream.split_at(3);
        assert_eq!(deframer.next(&mut head, PAYLOAD_MAX), Ok(None));
        assert!(deframer.is_partial());
        assert!(deframer.next(&mut tail, PAYLOAD_MAX).unwrap().is_some());
        assert!(!deframer.is_partial(), "it is complete, though it still lies here");
        while deframer.next(&mut tail, PAYLOAD_MAX).unwrap().is_some() {}
        assert_eq!(deframer.memory_bytes(), 0);
    }

    #[test]
    fn a_header_that_claims_much_and_brings_nothing_costs_nothing() {
        let mut deframer = Deframer::client_side();
        let mut bytes: &[u8] = &[kind::DATA, 0, 0x40, 0];
        assert_eq!(deframer.next(&mut bytes, PAYLOAD_MAX), Ok(None));
        assert!(deframer.memory_bytes() <= 8, "{} bytes", deframer.memory_bytes());
        for received in 1..PAYLOAD_MAX {
            assert_eq!(deframer.next(&mut &[0u8][..], PAYLOAD_MAX), Ok(None));
            let held = limits::FRAME_HEADER_BYTES + received;
            assert!(deframer.memory_bytes() <= 2 * held, "{received} bytes of many came");
        }
        assert!(deframer.memory_bytes() <= limits::FRAME_HEADER_BYTES + PAYLOAD_MAX);
        assert!(deframer.next(&mut &[0u8][..], PAYLOAD_MAX).unwrap().is_some());
        assert_eq!(deframer.next(&mut &[][..], PAYLOAD_MAX), Ok(None));
        assert_eq!(deframer.memory_bytes(), 0, "the buffer of a large frame is not kept");
    }

    #[test]
    fn what_is_wrong_is_said_as_soon_as_it_can_be_seen() {
        let magic = |rest: &[u8]| [&MAGIC[..], rest].concat();
        for (name, bytes, reason) in [
            ("TLS", vec![0x16], CloseReason::BadPreface),
            ("HTTP", b"G".to_vec(), CloseReason::BadPreface),
            ("fourth byte", vec![0xB7, b'H', b'W', b'Q'], CloseReason::BadPreface),
            ("only newer versions", magic(&[2, 9, 0, 0]), CloseReason::UnsupportedVersion),
            ("versions reversed", magic(&[1, 0, 0, 0]), CloseReason::UnsupportedVersion),
            ("long", magic(&[1, 1, 0, 0, kind::DATA, 0, 0x40, 1]), CloseReason::FrameTooLong),
            (
                "unknown and critical",
                magic(&[1, 1, 0, 0, 0x7F, flag::CRITICAL, 0, 9]),
                CloseReason::UnknownCriticalFrame,
            ),
        ] {
            let expected = Some(reason.word().to_owned());
            assert_eq!(heard(Deframer::server_side(), &[&bytes]).pop(), expected, "{name}");
            let singles: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(heard(Deframer::server_side(), &singles).pop(), expected, "{name}");
        }
    }

    #[test]
    fn payloads_without_their_form_are_malformed() {
        let hello = |id: &[u8]| {
            let id_bytes = u8::try_from(id.len()).unwrap();
            let payload = [&[0, 0, 0, 0, id_bytes], id, &[0, 0, 0, 0, 0, 0, 0, 0]].concat();
            [&[kind::HELLO, 0, 0, u8::try_from(payload.len()).unwrap()], &payload[..]].concat()
        };
        let long_id = [b'x'; 129];
        for (name, bytes, reason) in [
            ("ping of 17 bytes", [&[kind::PING, 0, 0, 17][..], &[0; 17]].concat(), "malformed"),
            ("short ack", vec![kind::ACK, 0, 0, 3, 0, 0, 0], "malformed"),
            ("empty bye", vec![kind::BYE, 0, 0, 0], "malformed"),
            ("topic with a newline", vec![kind::DATA, 0, 0, 6, 0, 0, 0, 1, 1, 10], "malformed"),
            ("text not UTF-8", vec![kind::ERROR, 0, 0, 4, 1, 144, 1, 0xFF], "malformed"),
            ("id empty", hello(b""), "bad_client_id"),
            ("id not UTF-8", hello(b"\xFF"), "bad_client_id"),
            ("id too long", hello(&long_id), "bad_client_id"),
            ("id with a control character", hello(b"a\nb"), "bad_client_id"),
        ] {
            assert_eq!(heard(Deframer::client_side(), &[&bytes]), [reason], "{name}");
        }
        let good = heard(Deframer::client_side(), &[&hello(b"device-7")]);
        assert!(good[0].contains("device-7"), "{good:?}");
    }

    #[test]
    fn later_versions_may_add_fields_frames_and_flags() {
        let grown = [kind::BEAT, 0x40, 0, 10, 0, 0, 0, 1, 0, 0, 0, 2, 77, 77];
        let message = Message::Beat { interval_ms: 1, timeout_ms: 2 };
        assert_eq!(
            heard(Deframer::client_side(), &[&grown]),
            [format!("{:?}", Inbound::Message(message))]
        );
        let both = [kind::PING, flag::NO_REPLY | flag::PROBE, 0, 0];
        let probe = Message::Ping { reply: Reply::AtOnce, payload: &[] };
        assert_eq!(
            heard(Deframer::client_side(), &[&both]),
            [format!("{:?}", Inbound::Message(probe))]
        );
        let unknown = [0x7F, 0, 0, 1, 0];
        assert_eq!(
            heard(Deframer::client_side(), &[&unknown]),
            [format!("{:?}", Inbound::Skipped { kind: 0x7F })]
        );
        let newer = Preface { version_min: 1, version_max: 9 };
        assert_eq!(newer.version(), Some(1));
    }

    #[test]
    fn what_cannot_be_said_is_not_half_said() {
        let long = "x".repeat(256);
        let big = [0; limits::PAYLOAD_BYTES_LIMIT];
        let hello = |client_id, token| Message::Hello {
            wanted_interval_ms: 0,
            client_id,
            class: "",
            token,
            resume: &[],
            last_seq: 0,
            before: None,
        };
        let data = |topic, body| Message::Data { seq: 1, ack: AckWanted::No, topic, body };
        for (name, message) in [
            ("long id", hello(long.as_str(), &[])),
            ("long token", hello("a", &big[..1_000])),
            ("long topic", data(long.as_str(), &[])),
            ("control in a topic", data("a\nb", &[])),
            ("long body", data("", &big)),
            ("long ping", Message::Ping { reply: Reply::Wanted, payload: &big[..17] }),
        ] {
            let mut out = vec![7];
            assert!(try_encode(&message, &mut out).is_err(), "{name}");
            assert_eq!(out, [7], "{name}");
        }
        let longest = hello("a", &big[..998]);
        let mut out = Vec::new();
        encode_preface(VERSIONS, &mut out);
        try_encode(&longest, &mut out).unwrap();
        assert_eq!(out.len(), limits::HANDSHAKE_BYTES_MAX, "the longest HELLO just fits");
    }

    #[test]
    fn a_text_for_people_is_cut_between_characters() {
        for (before, cut_bytes) in [("", 254), ("x", 255)] {
            let text = format!("{before}{}", "ä".repeat(200));
            let bytes = frame(&Message::Error { code: 500, text: &text });
            let mut rest = bytes.as_slice();
            let mut deframer = Deframer::client_side();
            let Ok(Some(Inbound::Message(Message::Error { text: cut, .. }))) =
                deframer.next(&mut rest, PAYLOAD_MAX)
            else {
                panic!("not an error: {bytes:?}");
            };
            assert_eq!(cut.len(), cut_bytes);
            assert!(text.starts_with(cut));
        }
    }
}
