//! HELLO and WELCOME, PING and PONG.

/// Bytes of the preface.
pub const PREFACE_BYTES: usize = 8;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 4;
/// Bytes of the WELCOME that every peer says.
pub const WELCOME_BYTES: usize = HEADER_BYTES + 34;
/// Longest HELLO with its preface.
pub const HANDSHAKE_BYTES_MAX: usize = 1_024;

const MAGIC: u8 = 0xB7;
const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;
const PING: u8 = 0x03;
const PONG: u8 = 0x04;
const BYE: u8 = 0x08;
const NO_REPLY: u8 = 0x01;
/// A client that wishes for no interval gets this one.
const INTERVAL_MS: u32 = 15_000;
/// Longer than any run: the floors judge nobody.
const TIMEOUT_MS: u32 = 3_600_000;

/// Whether bytes that begin so are a handshake: frames begin with their type.
pub const fn is_handshake(first: u8) -> bool {
    first == MAGIC
}

/// What is at the front of some bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Inbound<'a> {
    /// The preface and HELLO.
    Hello {
        /// In milliseconds; 0 where the client has no wish.
        wanted_interval_ms: u32,
        /// Who.
        client_id: &'a [u8],
    },
    /// PING that wants an answer; its payload.
    Ping(&'a [u8]),
    /// A beat that wants no answer.
    Beat,
    /// BYE.
    Bye,
}

/// What came is not the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Garbled;

/// The next thing at the front of `*bytes`, which it takes; `None` when it is not complete.
pub fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Inbound<'a>>, Garbled> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let skip = if is_handshake(*first) { PREFACE_BYTES } else { 0 };
    let Some(header) = bytes.get(skip..skip + HEADER_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let whole = skip + HEADER_BYTES + length;
    let Some(payload) = bytes.get(skip + HEADER_BYTES..whole) else { return Ok(None) };
    let inbound = match header[0] {
        HELLO if skip > 0 => hello(payload)?,
        PING if header[1] & NO_REPLY != 0 => Inbound::Beat,
        PING => Inbound::Ping(payload),
        BYE => Inbound::Bye,
        kind if kind <= 0x0A && skip == 0 => Inbound::Beat,
        _ => return Err(Garbled),
    };
    *bytes = &bytes[whole..];
    Ok(Some(inbound))
}

fn hello(payload: &[u8]) -> Result<Inbound<'_>, Garbled> {
    let (wish, rest) = payload.split_first_chunk().ok_or(Garbled)?;
    let (length, rest) = rest.split_first().ok_or(Garbled)?;
    let client_id = rest.get(..usize::from(*length)).ok_or(Garbled)?;
    Ok(Inbound::Hello { wanted_interval_ms: u32::from_be_bytes(*wish), client_id })
}

/// Spreads first beats over the interval. Good enough for that, and for nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u32);

impl Spread {
    /// The WELCOME to a client with this wish.
    pub fn welcome(&mut self, wanted_interval_ms: u32) -> [u8; WELCOME_BYTES] {
        self.0 = self.0.wrapping_add(0x9E37_79B9);
        let interval = if wanted_interval_ms == 0 { INTERVAL_MS } else { wanted_interval_ms };
        let first = (u64::from(self.0) * u64::from(interval)) >> 32;
        welcome(interval, u32::try_from(first).expect("below the interval"))
    }
}

fn welcome(interval_ms: u32, first_beat_ms: u32) -> [u8; WELCOME_BYTES] {
    let mut frame = [0; WELCOME_BYTES];
    frame[0] = WELCOME;
    frame[3] = (WELCOME_BYTES - HEADER_BYTES) as u8;
    frame[4] = 1; // version
    frame[14] = 1; // epoch 1
    frame[15..19].copy_from_slice(&interval_ms.to_be_bytes());
    frame[19..23].copy_from_slice(&TIMEOUT_MS.to_be_bytes());
    frame[23..27].copy_from_slice(&first_beat_ms.to_be_bytes());
    frame[27] = 0x40; // payload_max 16384
    frame
}

/// Appends the PONG to a PING with this payload.
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(payload.len()).expect("read from a length of 16 bits");
    let [high, low] = length.to_be_bytes();
    out.extend_from_slice(&[PONG, 0, high, low]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a block of the manual.
    fn golden(name: &str) -> Vec<u8> {
        let manual = include_str!("../../../src/manual/protocol.md");
        let title = format!("golden {name}\n");
        let (_, block) = manual.split_once(&title).expect("the manual has it");
        let (block, _) = block.split_once("```").expect("a block ends");
        let bytes = block.lines().flat_map(|line| {
            let (hex, _) = line.split_once('|').expect("bytes | what they are");
            hex.split_whitespace()
        });
        bytes.map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect()
    }

    #[test]
    fn what_clients_say_is_read_as_the_manual_has_it() {
        let mut said = golden("PREFACE");
        said.extend(golden("HELLO"));
        said.extend(golden("PING with a number"));
        said.extend(golden("PING without reply"));
        said.extend(golden("BYE"));
        let mut bytes = said.as_slice();
        let hello = Inbound::Hello { wanted_interval_ms: 0, client_id: b"device-7" };
        for expected in [hello, Inbound::Ping(&[0, 0, 0, 7]), Inbound::Beat, Inbound::Bye] {
            assert_eq!(next(&mut bytes), Ok(Some(expected)));
        }
        assert_eq!(next(&mut bytes), Ok(None));
        let handshake = PREFACE_BYTES + golden("HELLO").len();
        for cut in 0..handshake {
            assert_eq!(next(&mut &said[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_answered_is_as_the_manual_has_it() {
        let mut pong = Vec::new();
        write_pong(&[0, 0, 0, 7], &mut pong);
        assert_eq!(pong, golden("PONG"));
        let mut theirs = golden("WELCOME");
        let mut ours = welcome(15_000, 4_200).to_vec();
        assert_eq!(ours.len(), theirs.len());
        // Epoch, timeout and clock are the server's own business.
        for place in (7..15).chain(19..23).chain(29..37) {
            (ours[place], theirs[place]) = (0, 0);
        }
        assert_eq!(ours, theirs);
    }

    #[test]
    fn first_beats_are_spread_over_the_interval() {
        let mut spread = Spread::default();
        let mut tenths = [0; 10];
        for _ in 0..1_000 {
            let welcome = spread.welcome(1_000);
            let first = u32::from_be_bytes(welcome[23..27].try_into().expect("four bytes"));
            tenths[first as usize / 100] += 1;
        }
        assert!(tenths.iter().all(|count| (80..=120).contains(count)), "{tenths:?}");
    }
}
