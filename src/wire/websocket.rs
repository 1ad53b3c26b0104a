//! Frames of a WebSocket (RFC 6455), as far as both ends of one need the same: heads, masks, close
//! codes, and the key of the opening handshake.
//!
//! ```text
//! FIN, RSV x 3, opcode x 4 | MASK, length x 7 | length u16 or u64 | key (4 bytes) | payload
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::base::event::CloseReason;
use crate::base::limits::PREFACE_BYTES;
use crate::wire::native;

/// The name of the native protocol among a WebSocket's subprotocols.
pub const SUBPROTOCOL: &str = "heartwheel.v1";
/// Longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;
/// Longest head of a frame.
pub const HEAD_BYTES_MAX: usize = 14;

/// Close codes of the standard that are said here.
pub mod close {
    /// Everything is done.
    pub const NORMAL: u16 = 1_000;
    /// The rules were broken.
    pub const PROTOCOL_ERROR: u16 = 1_002;
    /// Text came, and only bytes are understood.
    pub const NOT_BINARY: u16 = 1_003;
    /// A text is not UTF-8.
    pub const NOT_UTF8: u16 = 1_007;
    /// What came is allowed, but not so much of it.
    pub const POLICY: u16 = 1_008;
    /// What is added to a code of our own.
    pub const OURS: u16 = 4_000;
}

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation,
    /// Begins a text.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// The last frame of a side.
    Close,
    /// Wants a pong.
    Ping,
    /// Answers a ping, or is a sign of life.
    Pong,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Whether it may stand between the fragments of a message.
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// What it is.
    pub opcode: Opcode,
    /// Whether it is the last of its message.
    pub is_final: bool,
    /// The key of its mask, if it is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow.
    pub length: u64,
}

/// How a head breaks the rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadHead {
    /// A bit is set that nothing was agreed for.
    #[error("a reserved bit is set")]
    Reserved,
    /// An opcode that the standard does not have.
    #[error("no such opcode")]
    Opcode,
    /// A control frame in fragments, or longer than one may be.
    #[error("a control frame that is long or in fragments")]
    Control,
    /// A length in more bytes than it needs, or over 63 bits.
    #[error("a length that is not said in the shortest form")]
    Length,
}

/// Collects the head of a frame, however it is cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadReader {
    bytes: [u8; HEAD_BYTES_MAX],
    count: u8,
}

impl HeadReader {
    /// Takes bytes of the head from the front of `*bytes`; `None`: more are needed.
    ///
    /// # Errors
    /// When the head breaks the rules, at the first byte by which that can be seen.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Head>, BadHead> {
        loop {
            let have = usize::from(self.count);
            let needed = head_bytes(&self.bytes[..have])?;
            if have == needed {
                self.count = 0;
                return read_head(&self.bytes[..have]).map(Some);
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
            self.bytes[have] = *first;
            self.count += 1;
            *bytes = rest;
        }
    }

    /// Whether a head was begun.
    pub const fn is_partial(&self) -> bool {
        self.count > 0
    }
}

/// How many bytes of head are needed to go on from these.
fn head_bytes(begun: &[u8]) -> Result<usize, BadHead> {
    let Some(&first) = begun.first() else { return Ok(1) };
    if first & 0x70 != 0 {
        return Err(BadHead::Reserved);
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(BadHead::Opcode)?;
    if opcode.is_control() && first & 0x80 == 0 {
        return Err(BadHead::Control);
    }
    let Some(&second) = begun.get(1) else { return Ok(2) };
    let extra = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if opcode.is_control() && extra > 0 {
        return Err(BadHead::Control);
    }
    Ok(2 + extra + if second & 0x80 == 0 { 0 } else { 4 })
}

fn read_head(bytes: &[u8]) -> Result<Head, BadHead> {
    let opcode = Opcode::from_bits(bytes[0] & 0x0F).ok_or(BadHead::Opcode)?;
    let (short, rest) = (bytes[1] & 0x7F, &bytes[2..]);
    let (extra, shortest) = match short {
        126 => (2, 126),
        127 => (8, 1 << 16),
        _ => (0, 0),
    };
    let length = match extra {
        0 => u64::from(short),
        _ => rest[..extra].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    if length < shortest || length >> 63 != 0 {
        return Err(BadHead::Length);
    }
    let mask = rest[extra..].first_chunk().copied();
    Ok(Head { opcode, is_final: bytes[0] & 0x80 != 0, mask, length })
}

/// Appends a head.
pub fn write_head(head: &Head, out: &mut Vec<u8>) {
    let masked = if head.mask.is_some() { 0x80 } else { 0 };
    out.push(head.opcode.bits() | if head.is_final { 0x80 } else { 0 });
    match (u8::try_from(head.length), u16::try_from(head.length)) {
        (Ok(short @ 0..=125), _) => out.push(masked | short),
        (_, Ok(length)) => {
            out.push(masked | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(masked | 127);
            out.extend_from_slice(&head.length.to_be_bytes());
        }
    }
    out.extend_from_slice(head.mask.as_ref().map_or(&[], |key| key));
}

/// Appends a whole frame, which is a whole message.
pub fn write_frame(opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8], out: &mut Vec<u8>) {
    write_head(&Head { opcode, is_final: true, mask, length: payload.len() as u64 }, out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(key, 0, &mut out[start..]);
    }
}

/// Appends a close frame. The text is cut to what has room.
pub fn write_close(code: u16, mask: Option<[u8; 4]>, text: &str, out: &mut Vec<u8>) {
    let mut payload = code.to_be_bytes().to_vec();
    let most = text.len().min(CONTROL_BYTES_MAX - payload.len());
    let room = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    payload.extend_from_slice(&text.as_bytes()[..room]);
    write_frame(Opcode::Close, mask, &payload, out);
}

/// Masks bytes, or takes their mask off; the first of them is number `at` of its frame.
pub fn apply_mask(key: [u8; 4], at: u64, bytes: &mut [u8]) {
    let mut key = key;
    key.rotate_left((at % 4) as usize);
    let (fours, rest) = bytes.as_chunks_mut::<4>();
    let key_bits = u32::from_ne_bytes(key);
    for four in fours {
        *four = (u32::from_ne_bytes(*four) ^ key_bits).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// What a close frame says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closing {
    /// Nothing.
    Silent,
    /// A code that may be said.
    Code(u16),
    /// What may not be said.
    Wrong,
    /// Its text is not UTF-8.
    NotUtf8,
}

/// Reads the payload of a close frame.
pub fn read_close(payload: &[u8]) -> Closing {
    let Some((code, text)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Closing::Silent } else { Closing::Wrong };
    };
    match u16::from_be_bytes(*code) {
        _ if std::str::from_utf8(text).is_err() => Closing::NotUtf8,
        code @ (1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999) => Closing::Code(code),
        _ => Closing::Wrong,
    }
}

/// The close code for a code of ours, or of an application's own.
pub const fn close_code(code: u16) -> u16 {
    match code {
        0..=999 => close::OURS + code,
        // What an application may say in a close frame it may say here.
        3_000..=4_999 => code,
        _ => close::OURS + CloseReason::Kicked.code(),
    }
}

/// What answers the key of an opening handshake.
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Whether this is a key: 16 bytes in base64.
pub fn is_key(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Follows a stream of native frames, from the preface on, and knows where one ends.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    header: [u8; 4],
    header_count: u8,
    /// Of the preface or of a payload.
    left: usize,
}

impl Track {
    /// Before the preface.
    pub const fn new() -> Self {
        Self { header: [0; 4], header_count: 0, left: PREFACE_BYTES }
    }

    /// Whether nothing is begun.
    pub const fn is_between(&self) -> bool {
        self.left == 0 && self.header_count == 0
    }

    /// Follows these bytes, and says behind how many of them something ended for the first time.
    pub fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut first_end = None;
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if self.left > 0 {
                let count = self.left.min(rest.len());
                self.left -= count;
                rest = &rest[count..];
            } else {
                self.header[usize::from(self.header_count)] = byte;
                self.header_count += 1;
                rest = &rest[1..];
                if usize::from(self.header_count) == self.header.len() {
                    self.header_count = 0;
                    self.left = usize::from(u16::from_be_bytes([self.header[2], self.header[3]]));
                }
            }
            if first_end.is_none() && self.is_between() {
                first_end = Some(bytes.len() - rest.len());
            }
        }
        first_end
    }
}

impl Default for Track {
    fn default() -> Self {
        Self::new()
    }
}

/// A whole native frame at the front of some.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Whole<'a> {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Behind its header.
    pub payload: &'a [u8],
    /// All of it.
    pub bytes: &'a [u8],
}

impl Whole<'_> {
    /// Whether it asks "are you there?" and wants an answer, which a WebSocket's own ping does.
    pub const fn is_question(&self) -> bool {
        self.kind == native::kind::PING
            && (self.flags & native::flag::NO_REPLY == 0 || self.flags & native::flag::PROBE != 0)
    }

    /// The code that a GOAWAY, an ERROR or a BYE begins with.
    pub fn code(&self) -> Option<u16> {
        self.payload.first_chunk().copied().map(u16::from_be_bytes)
    }
}

/// Takes the native frame at the front of `*bytes`; `None`: there is no whole one.
pub fn take_whole<'a>(bytes: &mut &'a [u8]) -> Option<Whole<'a>> {
    let &[kind, flags, high, low] = bytes.first_chunk()?;
    let length = 4 + usize::from(u16::from_be_bytes([high, low]));
    let (whole, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Whole { kind, flags, payload: &whole[4..], bytes: whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
        let mut by_one = HeadReader::default();
        let singly = bytes.iter().try_fold(None, |found, byte| match found {
            Some(head) => Ok(Some(head)),
            None => by_one.next(&mut std::slice::from_ref(byte)),
        });
        let whole = HeadReader::default().next(&mut &bytes[..]);
        assert_eq!(singly, whole, "{bytes:02X?}");
        whole
    }

    #[test]
    fn heads_break_the_rules_in_these_ways() {
        for (name, bytes, expected) in [
            ("RSV1", &[0xC2][..], BadHead::Reserved),
            ("RSV2", &[0xA2], BadHead::Reserved),
            ("RSV3", &[0x92], BadHead::Reserved),
            ("opcode 3", &[0x83], BadHead::Opcode),
            ("opcode 7", &[0x87], BadHead::Opcode),
            ("opcode 11", &[0x8B], BadHead::Opcode),
            ("opcode 15", &[0x8F], BadHead::Opcode),
            ("a fragment of a ping", &[0x09], BadHead::Control),
            ("a fragment of a close", &[0x08], BadHead::Control),
            ("a ping of 126 bytes", &[0x89, 0xFE], BadHead::Control),
            ("a pong of very many", &[0x8A, 0xFF], BadHead::Control),
            ("125 in two bytes", &[0x82, 0x7E, 0, 125], BadHead::Length),
            ("65,535 in eight", &[0x82, 0x7F, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], BadHead::Length),
            ("64 bits", &[0x82, 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0], BadHead::Length),
        ] {
            assert_eq!(read(bytes), Err(expected), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_head_is_read_as_it_was_written(
            is_final: bool,
            mask: Option<[u8; 4]>,
            length in prop_oneof![0_u64..200, 65_500_u64..65_600, 0..=u64::MAX >> 1],
        ) {
            let head = Head { opcode: Opcode::Binary, is_final, mask, length };
            let mut bytes = Vec::new();
            write_head(&head, &mut bytes);
            prop_assert!(bytes.len() <= HEAD_BYTES_MAX);
            prop_assert_eq!(read(&bytes), Ok(Some(head)));
            for short in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..short]), Ok(None));
            }
        }

        #[test]
        fn a_mask_comes_off_however_the_payload_is_cut(
            key: [u8; 4],
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            cut in 0_usize..40,
        ) {
            let expected: Vec<u8> =
                payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            let mut masked = payload.clone();
            let cut = cut.min(masked.len());
            apply_mask(key, 0, &mut masked[..cut]);
            apply_mask(key, cut as u64, &mut masked[cut..]);
            prop_assert_eq!(masked, expected);
        }
    }

    #[test]
    fn the_key_is_answered_as_the_standard_shows() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for no_key in
            ["", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZQ", "not base64 at all!!==="]
        {
            assert!(!is_key(no_key.as_bytes()), "{no_key}");
        }
    }

    #[test]
    fn close_frames_say_what_may_be_said() {
        let said = |code: u16, text: &[u8]| read_close(&[&code.to_be_bytes()[..], text].concat());
        assert_eq!(read_close(&[]), Closing::Silent);
        assert_eq!(read_close(&[3]), Closing::Wrong);
        for code in [1_000, 1_001, 1_002, 1_003, 1_007, 1_011, 1_014, 3_000, 4_999] {
            assert_eq!(said(code, b"so"), Closing::Code(code));
        }
        for code in [0, 999, 1_004, 1_005, 1_006, 1_015, 1_016, 2_999, 5_000, 65_535] {
            assert_eq!(said(code, b""), Closing::Wrong, "{code}");
        }
        assert_eq!(said(1_000, &[0xC3]), Closing::NotUtf8);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        write_close(1_000, None, &"ä".repeat(100), &mut out);
        assert_eq!(out[..2], [0x88, 124], "61 of them, and the code");
        assert_eq!(read_close(&out[2..]), Closing::Code(1_000));
    }

    #[test]
    fn our_codes_have_codes_that_may_be_said() {
        for reason in CloseReason::ALL {
            let code = close_code(reason.code());
            assert_eq!(code, 4_000 + reason.code());
            assert_eq!(read_close(&code.to_be_bytes()), Closing::Code(code));
        }
        for (own, expected) in [(3_000, 3_000), (4_999, 4_999), (1_000, 4_300), (5_000, 4_300)] {
            assert_eq!(close_code(own), expected);
        }
    }

    #[test]
    fn the_end_of_a_frame_is_found_wherever_it_is_cut() {
        let mut stream = vec![7; 8];
        stream.extend_from_slice(&[3, 0, 0, 0]);
        stream.extend_from_slice(&[5, 0, 0, 3, 1, 2, 3]);
        for (upto, is_between) in [
            (0, false),
            (7, false),
            (8, true),
            (9, false),
            (12, true),
            (16, false),
            (18, false),
            (19, true),
        ] {
            let mut track = Track::new();
            track.follow(&stream[..upto]);
            assert_eq!(track.is_between(), is_between, "{upto}");
            let mut singly = Track::new();
            for byte in &stream[..upto] {
                singly.follow(&[*byte]);
            }
            assert_eq!(singly.is_between(), is_between, "{upto}, byte by byte");
        }
        assert_eq!(Track::new().follow(&stream), Some(8));
        assert_eq!(Track::new().follow(&stream[..5]), None);
    }
}
