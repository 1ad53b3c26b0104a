//! As much of MQTT 3.1.1 as a client needs that connects, beats and leaves.
//!
//! CONNECT asks to be let in, CONNACK lets in; PINGREQ is the beat and PINGRESP its answer;
//! DISCONNECT says good-bye. Nothing is subscribed to, so a broker has nothing else to say; what it
//! says all the same is passed over.

use crate::base::time::Span;

/// PINGREQ: the beat.
pub const PINGREQ: [u8; 2] = [0xC0, 0x00];
/// DISCONNECT: I leave on purpose.
pub const DISCONNECT: [u8; 2] = [0xE0, 0x00];

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PINGRESP: u8 = 0xD0;
/// Packet types that only a client sends, by their upper four bits: 0 and 15 are nobody's.
const NOT_FROM_A_SERVER: [u8; 7] = [0x00, 0x10, 0x80, 0xA0, 0xC0, 0xE0, 0xF0];
/// A remaining length has no more bytes than this.
const LENGTH_BYTES_MAX: u8 = 4;
const CONNACK_BYTES: usize = 2;
const CONNACK_ACCEPTED: u8 = 0;

/// Something that a broker said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packet {
    /// CONNACK with return code 0.
    Accepted,
    /// CONNACK with another one.
    Refused {
        /// The return code.
        code: u8,
    },
    /// PINGRESP.
    Pong,
}

/// What came is not MQTT from a broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Garbled;

/// Reads what a broker says, however it is cut into pieces. Keeps 12 bytes and no heap.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reader {
    stage: Stage,
    /// Type of the packet that was begun.
    kind: u8,
    /// The first bytes of its body, of which a CONNACK has no more.
    body: [u8; CONNACK_BYTES],
    body_bytes: u32,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Kind,
    /// The remaining length; so many bytes of it are read.
    Length { read: u8 },
    /// The body; so many bytes of it are read.
    Body { read: u32 },
}

impl Reader {
    /// The next packet that matters from the front of `*bytes`, which it takes; `None` when all of
    /// them are taken and more are needed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Packet>, Garbled> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.stage {
                Stage::Kind => {
                    *bytes = rest;
                    self.begin(*first)?;
                }
                Stage::Length { read } => {
                    *bytes = rest;
                    self.grow_length(*first, read)?;
                }
                Stage::Body { read } => self.take_body(bytes, read),
            }
            if self.stage == (Stage::Body { read: self.body_bytes }) {
                self.stage = Stage::Kind;
                if let Some(packet) = self.packet()? {
                    return Ok(Some(packet));
                }
            }
        }
        Ok(None)
    }

    fn begin(&mut self, first: u8) -> Result<(), Garbled> {
        if NOT_FROM_A_SERVER.contains(&(first & 0xF0)) {
            return Err(Garbled);
        }
        *self = Self { stage: Stage::Length { read: 0 }, kind: first, ..Self::default() };
        Ok(())
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn grow_length(&mut self, byte: u8, read: u8) -> Result<(), Garbled> {
        self.body_bytes |= u32::from(byte & 0x7F) << (7 * read);
        self.stage = if byte & 0x80 == 0 {
            Stage::Body { read: 0 }
        } else if read + 1 < LENGTH_BYTES_MAX {
            Stage::Length { read: read + 1 }
        } else {
            return Err(Garbled);
        };
        Ok(())
    }

    fn take_body(&mut self, bytes: &mut &[u8], read: u32) {
        let wanted = (self.body_bytes - read) as usize;
        let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
        let place = (read as usize).min(CONNACK_BYTES);
        for (kept, byte) in self.body[place..].iter_mut().zip(taken) {
            *kept = *byte;
        }
        *bytes = rest;
        let taken = u32::try_from(taken.len()).expect("no more than the body has");
        self.stage = Stage::Body { read: read + taken };
    }

    fn packet(&self) -> Result<Option<Packet>, Garbled> {
        match self.kind {
            CONNACK if self.body_bytes as usize != CONNACK_BYTES => Err(Garbled),
            CONNACK => match self.body {
                [_, CONNACK_ACCEPTED] => Ok(Some(Packet::Accepted)),
                [_, code] => Ok(Some(Packet::Refused { code })),
            },
            PINGRESP if self.body_bytes != 0 => Err(Garbled),
            PINGRESP => Ok(Some(Packet::Pong)),
            _ => Ok(None),
        }
    }
}

/// Appends a CONNECT with a clean session. `client_id` is no longer than a
/// [`ClientId`](crate::base::ids::ClientId).
pub fn write_connect(client_id: &str, keep_alive_secs: u16, out: &mut Vec<u8>) {
    const PROTOCOL: [u8; 8] = [0, 4, b'M', b'Q', b'T', b'T', 4, 0b10];
    let id_bytes = u16::try_from(client_id.len()).expect("a client id is short");
    let body_bytes = PROTOCOL.len() + 2 + 2 + client_id.len();
    out.push(CONNECT);
    write_length(body_bytes, out);
    out.extend_from_slice(&PROTOCOL);
    out.extend_from_slice(&keep_alive_secs.to_be_bytes());
    out.extend_from_slice(&id_bytes.to_be_bytes());
    out.extend_from_slice(client_id.as_bytes());
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(length & 0x7F).expect("seven bits");
        length >>= 7;
        if length == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// The keep alive, in seconds, of a client that beats every `interval`: twice that, so that a beat
/// may be late by half of what a broker grants.
pub fn keep_alive_secs(interval: Span) -> u16 {
    let secs = interval.times(2).as_millis().div_ceil(1_000).max(1);
    u16::try_from(secs).unwrap_or(u16::MAX)
}

/// After so much silence a broker must end the connection: one and a half times the keep alive.
pub fn timeout(keep_alive_secs: u16) -> Span {
    Span::from_millis(u64::from(keep_alive_secs) * 1_500)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits;

    /// Everything that is read from `bytes` when they come in pieces of `piece_bytes`.
    fn read_all(bytes: &[u8], piece_bytes: usize) -> Result<Vec<Packet>, Garbled> {
        let mut reader = Reader::default();
        let mut packets = Vec::new();
        for mut piece in bytes.chunks(piece_bytes) {
            while let Some(packet) = reader.next(&mut piece)? {
                packets.push(packet);
            }
            assert!(piece.is_empty());
        }
        Ok(packets)
    }

    #[test]
    fn packets_are_read_however_they_are_cut() {
        let mut bytes = vec![0x20, 2, 0, 0]; // CONNACK, accepted
        bytes.extend([0xD0, 0]); // PINGRESP
        bytes.extend([0x30, 0x83, 0x01]); // PUBLISH of 131 bytes: passed over
        bytes.extend([0xD0; 131]);
        bytes.extend([0x90, 3, 0, 1, 0]); // SUBACK: passed over
        bytes.extend([0x20, 2, 1, 5]); // CONNACK, not authorised
        bytes.extend([0xD0, 0]);
        let expected =
            [Packet::Accepted, Packet::Pong, Packet::Refused { code: 5 }, Packet::Pong].to_vec();
        for piece_bytes in 1..=bytes.len() {
            assert_eq!(read_all(&bytes, piece_bytes), Ok(expected.clone()), "by {piece_bytes}");
        }
    }

    #[test]
    fn what_no_broker_says_is_garbled() {
        for (name, bytes) in [
            ("CONNECT", &[0x10, 2, 0, 0][..]),
            ("PINGREQ", &PINGREQ),
            ("DISCONNECT", &DISCONNECT),
            ("native WELCOME", &[0x02, 0, 0, 0x22]),
            ("a long CONNACK", &[0x20, 3, 0, 0, 0]),
            ("a short CONNACK", &[0x20, 1, 0]),
            ("PINGRESP with a body", &[0xD0, 1, 0]),
            ("a length of five bytes", &[0x30, 0x80, 0x80, 0x80, 0x80, 1]),
        ] {
            assert_eq!(read_all(bytes, bytes.len()), Err(Garbled), "{name}");
        }
    }

    #[test]
    fn connect_is_what_the_standard_draws() {
        let mut out = Vec::new();
        write_connect("a7", 30, &mut out);
        let expected = b"\x10\x0E\x00\x04MQTT\x04\x02\x00\x1E\x00\x02a7";
        assert_eq!(out, expected);
        out.clear();
        write_connect(&"x".repeat(limits::CLIENT_ID_BYTES_MAX), 1, &mut out);
        assert_eq!(out[1..3], [0x8C, 0x01], "140 bytes take two to say");
        assert_eq!(out.len(), 3 + 140);
    }

    #[test]
    fn the_keep_alive_outlasts_a_late_beat() {
        for (interval, keep_alive, timeout_ms) in [
            (Span::from_millis(50), 1, 1_500),
            (Span::from_millis(700), 2, 3_000),
            (Span::from_secs(30), 60, 90_000),
            (Span::from_secs(60 * 60), 7_200, 10_800_000),
            (Span::from_secs(24 * 60 * 60), u16::MAX, 98_302_500),
        ] {
            assert_eq!(keep_alive_secs(interval), keep_alive, "{interval}");
            assert_eq!(timeout(keep_alive), Span::from_millis(timeout_ms), "{interval}");
        }
    }
}
