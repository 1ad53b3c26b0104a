//! What holds for any bytes that a client says to a WebSocket, however they are cut.

#![allow(dead_code, reason = "a fuzz target calls one of the properties, not all")]

use heartwheel::base::event::CloseReason;
use heartwheel::base::limits;
use heartwheel::layers::layer::{Goes, Layer};
use heartwheel::layers::terms::Begin;
use heartwheel::layers::websocket::{Rules, WebSockets};
use heartwheel::wire::native::kind;

const REQUEST: &[u8] = b"GET /live HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What comes of some bytes.
#[derive(Debug, Eq, PartialEq)]
struct Outcome {
    up: Vec<u8>,
    down: Vec<u8>,
    end: Result<Goes, CloseReason>,
}

/// `begins`: how far the conversation is. Bit 0: it is open; bit 1: and welcomed.
fn layer(begins: u8) -> Box<dyn Layer> {
    let mut layer = WebSockets::new(Rules::default()).begin();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    if begins & 1 != 0 {
        assert_eq!(layer.take_in(REQUEST, &mut up, &mut down), Ok(Goes::On));
        assert!(down.starts_with(b"HTTP/1.1 101 ") && up.is_empty());
    }
    if begins & 3 == 3 {
        layer.send(&[kind::WELCOME, 0, 0, 0], &mut down);
    }
    layer
}

fn feed<'a>(begins: u8, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut layer = layer(begins);
    let mut outcome = Outcome { up: Vec::new(), down: Vec::new(), end: Ok(Goes::On) };
    for piece in pieces {
        outcome.end = layer.take_in(piece, &mut outcome.up, &mut outcome.down);
        if outcome.end != Ok(Goes::On) {
            break;
        }
    }
    layer.finish(&mut outcome.down);
    let said = outcome.down.len();
    layer.send(&[kind::PING, 0, 0, 0], &mut outcome.down);
    assert_eq!(outcome.down.len(), said, "nothing is said behind the last word");
    outcome
}

/// In one piece, in two and byte by byte the same goes up and down, and it ends alike. The first
/// two bytes say how far the conversation is, and where to cut.
pub(crate) fn any_split_goes_up_alike(bytes: &[u8]) {
    let Some((&[begins, at], bytes)) = bytes.split_first_chunk() else { return };
    let whole = feed(begins, [bytes]);
    assert_eq!(feed(begins, bytes.chunks(1)), whole, "byte by byte");
    let (head, tail) = bytes.split_at(usize::from(at).min(bytes.len()));
    assert_eq!(feed(begins, [head, tail]), whole, "cut at {at}");
    // A sign of life is two bytes of head, four of mask, and comes up as four.
    assert!(whole.up.len() <= bytes.len(), "nobody says more than came");
    let most = bytes.len() + limits::WEBSOCKET_REQUEST_BYTES_MAX;
    assert!(whole.down.len() <= most, "answers are no larger than questions");
}

#[cfg(test)]
mod tests {
    use heartwheel::wire::websocket::{Head, Opcode, apply_mask, write_head};
    use proptest::prelude::*;

    use super::*;

    /// Something like a frame of a client: most keep the rules.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let opcode = prop_oneof![
            6 => Just(Opcode::Binary),
            3 => Just(Opcode::Continuation),
            2 => Just(Opcode::Ping),
            2 => Just(Opcode::Pong),
            1 => Just(Opcode::Text),
            1 => Just(Opcode::Close),
        ];
        let payload = proptest::collection::vec(any::<u8>(), 0..140);
        (opcode, any::<bool>(), any::<[u8; 4]>(), payload).prop_map(
            |(opcode, is_final, key, payload)| {
                let head = Head {
                    opcode,
                    is_final: is_final || opcode.is_control(),
                    mask: Some(key),
                    length: payload.len() as u64,
                };
                let mut bytes = Vec::new();
                write_head(&head, &mut bytes);
                let start = bytes.len();
                bytes.extend_from_slice(&payload);
                apply_mask(key, 0, &mut bytes[start..]);
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn frames_go_up_alike(
            begins in 0_u8..4,
            at: u8,
            frames in proptest::collection::vec(frame(), 0..12),
        ) {
            any_split_goes_up_alike(&[&[begins, at], &frames.concat()[..]].concat());
        }

        #[test]
        fn any_bytes_go_up_alike(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            any_split_goes_up_alike(&bytes);
        }
    }

    #[test]
    fn requests_are_answered_alike() {
        for at in 0..=u8::MAX {
            any_split_goes_up_alike(&[&[0, at], REQUEST, b"\x8A\x80abcd"].concat());
            any_split_goes_up_alike(&[&[0, at], &REQUEST[..at as usize / 2], b"\r\n\r\n"].concat());
        }
    }
}
