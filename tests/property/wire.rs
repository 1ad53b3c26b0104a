//! What holds for any bytes on the wire. Each property takes bytes, so that proptest here and the
//! fuzzers (`fuzz/fuzz_targets/frame.rs`, `stream.rs`) call the same function.

#![allow(dead_code, reason = "a fuzz target calls one of the properties, not all")]

use heartwheel::base::limits;
use heartwheel::wire::error::WireError;
use heartwheel::wire::message::Message;
use heartwheel::wire::native::{Deframer, Inbound, encode, encode_preface};

/// Whose end of the connection reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Server,
    Client,
}

impl Side {
    fn deframer(self) -> Deframer {
        match self {
            Self::Server => Deframer::server_side(),
            Self::Client => Deframer::client_side(),
        }
    }
}

/// Longest payload in these tests: small, so that short inputs reach the limit.
const PAYLOAD_MAX: usize = 512;

/// Reading any bytes never panics, keeps at most one frame, and every message that comes out says
/// the same when it is written and read again.
pub(crate) fn decode_any_bytes(bytes: &[u8]) {
    for side in [Side::Server, Side::Client] {
        let mut deframer = side.deframer();
        let mut rest = bytes;
        while let Ok(Some(inbound)) = deframer.next(&mut rest, PAYLOAD_MAX) {
            match inbound {
                Inbound::Message(message) => written_and_read_is_the_same(&message),
                Inbound::Preface(preface) => {
                    assert_eq!(preface.version(), Some(1));
                    let mut out = Vec::new();
                    encode_preface(preface.version_min..=preface.version_max, &mut out);
                    let again = Deframer::server_side().next(&mut out.as_slice(), 0).map(|again| {
                        assert_eq!(again, Some(inbound));
                    });
                    assert_eq!(again, Ok(()));
                }
                Inbound::Skipped { kind } => assert!(!(0x01..=0x0A).contains(&kind)),
            }
        }
        assert!(deframer.memory_bytes() <= limits::FRAME_HEADER_BYTES + PAYLOAD_MAX);
    }
}

/// A message that can be said reads back as it was.
pub(crate) fn written_and_read_is_the_same(message: &Message<'_>) {
    let mut out = Vec::new();
    encode(message, &mut out);
    let mut rest = out.as_slice();
    let mut deframer = Deframer::client_side();
    let read = deframer.next(&mut rest, limits::PAYLOAD_BYTES_LIMIT);
    assert_eq!(read, Ok(Some(Inbound::Message(*message))));
    assert!(rest.is_empty());
}

/// However a stream is cut, the same comes out of it, the error at its end included.
///
/// `bytes`: side (bit 7) and number of lengths (the low bits), so many lengths of pieces, used in
/// turn and again from the first, then the stream.
pub(crate) fn any_split_gives_the_same(bytes: &[u8]) {
    let Some((&head, rest)) = bytes.split_first() else { return };
    let side = if head & 0x80 == 0 { Side::Server } else { Side::Client };
    let Some((lengths, stream)) = rest.split_at_checked(usize::from(head & 0x0F)) else { return };
    let lengths: Vec<usize> = lengths.iter().map(|length| usize::from(*length)).collect();
    let whole = heard(side, &[stream.len()], stream);
    assert_eq!(heard(side, &lengths, stream), whole, "pieces of {lengths:?} bytes");
    assert_eq!(heard(side, &[1], stream), whole, "byte by byte");
}

/// What comes out of `stream` when it arrives in pieces of these lengths.
fn heard(side: Side, lengths: &[usize], stream: &[u8]) -> (Vec<String>, Option<WireError>) {
    let mut deframer = side.deframer();
    let mut heard = Vec::new();
    let mut rest = stream;
    let mut lengths = lengths.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |length| (*length).clamp(1, rest.len()));
        let (mut piece, behind) = rest.split_at(length);
        rest = behind;
        loop {
            match deframer.next(&mut piece, PAYLOAD_MAX) {
                Ok(Some(inbound)) => heard.push(format!("{inbound:?}")),
                Ok(None) => break,
                Err(error) => return (heard, Some(error)),
            }
        }
        assert!(piece.is_empty(), "None means that all was taken");
        let fed = stream.len() - rest.len();
        let memory_bytes_max = (limits::FRAME_HEADER_BYTES + PAYLOAD_MAX).min(2 * fed);
        assert!(deframer.memory_bytes() <= memory_bytes_max);
        assert_eq!(deframer.memory_bytes() > 0, deframer.is_partial(), "memory only for a part");
    }
    (heard, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heartwheel::base::config::Mode;
    use heartwheel::wire::message::{AckWanted, Reply};
    use heartwheel::wire::native::{MAGIC, kind};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::path::Path;

    /// The parts of which a message is made, owned.
    #[derive(Clone, Debug)]
    struct Parts {
        choice: u8,
        numbers: [u32; 4],
        long: u64,
        names: [String; 2],
        text: String,
        bytes: Vec<u8>,
    }

    impl Parts {
        fn message(&self) -> Message<'_> {
            let [first, second, third, fourth] = self.numbers;
            let code = u16::try_from(first & 0xFFFF).unwrap();
            let [id, name] = &self.names;
            let short = &self.bytes[..self.bytes.len().min(limits::PING_BYTES_MAX)];
            match self.choice % 10 {
                0 => Message::Hello {
                    wanted_interval_ms: first,
                    client_id: id,
                    class: name,
                    token: &self.bytes,
                    resume: short,
                    last_seq: second,
                    before: None,
                },
                1 => Message::Welcome {
                    version: u8::try_from(first & 0xFF).unwrap(),
                    mode: [Mode::Client, Mode::Server, Mode::Either][first as usize % 3],
                    resumed: second & 1 == 1,
                    epoch: self.long,
                    interval_ms: second,
                    timeout_ms: third,
                    first_beat_ms: fourth,
                    payload_max: code,
                    server_unix_ms: !self.long,
                    resume: short,
                },
                2 => Message::Ping {
                    reply: [Reply::Wanted, Reply::NotWanted, Reply::AtOnce][first as usize % 3],
                    payload: short,
                },
                3 => Message::Pong { payload: short },
                4 => Message::Data {
                    seq: first,
                    ack: if second & 1 == 1 { AckWanted::Yes } else { AckWanted::No },
                    topic: name,
                    body: &self.bytes,
                },
                5 => Message::Ack { seq: first },
                6 => Message::Goaway {
                    code,
                    reconnect_min_ms: second,
                    reconnect_max_ms: third,
                    address: name,
                    text: &self.text,
                },
                7 => Message::Bye { code },
                8 => Message::Error { code, text: &self.text },
                _ => Message::Beat { interval_ms: first, timeout_ms: second },
            }
        }
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let names = ["[^\\p{Cc}]{1,32}", "[^\\p{Cc}]{0,16}"];
        (any::<u8>(), any::<[u32; 4]>(), any::<u64>(), names, ".{0,63}", vec(any::<u8>(), 0..600))
            .prop_map(|(choice, numbers, long, names, text, bytes)| Parts {
                choice,
                numbers,
                long,
                names,
                text,
                bytes,
            })
    }

    /// Bytes that look like a session: headers are right more often than chance would have them.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let frame = (0u8..=0x0B, prop_oneof![Just(0u8), any::<u8>()], vec(any::<u8>(), 0..40))
            .prop_map(|(kind, flags, payload)| {
                let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
                [&[kind, flags], &length[..], &payload].concat()
            });
        let said = parts().prop_map(|parts| {
            let mut out = Vec::new();
            encode(&parts.message(), &mut out);
            out
        });
        let part = prop_oneof![
            2 => frame,
            4 => said,
            1 => vec(any::<u8>(), 0..8),
            1 => Just([&MAGIC[..], &[1, 1, 0, 0]].concat()),
        ];
        let preface = prop_oneof![Just(vec![]), Just([&MAGIC[..], &[1, 1, 0, 0]].concat())];
        (preface, vec(part, 0..8)).prop_map(|(preface, parts)| [preface, parts.concat()].concat())
    }

    /// The seeds of a fuzz target.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = std::fs::read_dir(corpus).unwrap();
        let seeds: Vec<_> =
            files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        seeds
    }

    #[test]
    fn the_seeds_of_the_fuzzers_hold() {
        for seed in seeds("frame") {
            decode_any_bytes(&seed);
        }
        for seed in seeds("stream") {
            any_split_gives_the_same(&seed);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            decode_any_bytes(&bytes);
        }

        #[test]
        fn any_session_is_read_or_refused(stream in streams()) {
            decode_any_bytes(&stream);
        }

        #[test]
        fn what_can_be_said_reads_back(parts in parts()) {
            written_and_read_is_the_same(&parts.message());
        }

        #[test]
        fn cuts_do_not_matter(
            is_client in any::<bool>(),
            lengths in vec(any::<u8>(), 0..16),
            stream in streams(),
        ) {
            let count = u8::try_from(lengths.len()).unwrap();
            let head = if is_client { 0x80 | count } else { count };
            any_split_gives_the_same(&[&[head], &lengths[..], &stream].concat());
        }

        #[test]
        fn a_payload_of_any_length_is_read_whole(payload_bytes in 0..=PAYLOAD_MAX) {
            let length = u16::try_from(payload_bytes).unwrap().to_be_bytes();
            let frame = [&[kind::DATA, 0], &length[..], &vec![0; payload_bytes]].concat();
            any_split_gives_the_same(&[&[0x82, 3, 200], &frame[..]].concat());
            decode_any_bytes(&frame);
        }
    }
}
