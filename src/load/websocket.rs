//! As much of a WebSocket as a client needs that carries the native protocol in it.
//!
//! It asks for an upgrade, waits until it is granted, and then puts each native frame into a
//! message of its own; a ping is answered by a pong, as a browser does by itself.

use crate::base::event::CloseReason;
use crate::base::limits;
use crate::load::dialect::{Said, next_native};
use crate::wire::message::{Message, Reply};
use crate::wire::native::{self, Deframer};
use crate::wire::websocket::{
    HeadReader, Opcode, SUBPROTOCOL, accept_key, take_whole, write_frame,
};

/// A key that nobody has to guess: it keeps caches from answering, of which there are none here.
const KEY: &str = "aGVhcnR3aGVlbCBsb2FkIQ==";
const END: &[u8] = b"\r\n\r\n";

/// One connection's ear and mouth.
#[derive(Debug)]
pub(super) struct WebSocket {
    stage: Stage,
    head: HeadReader,
    opcode: Opcode,
    /// Bytes of the frame that are still to come.
    left: u64,
    /// The answer to the request, then payloads of control frames, as far as they came.
    kept: Vec<u8>,
    /// Whether `kept` was lent to the caller.
    is_lent: bool,
    deframer: Deframer,
    /// The next mask: it has to be there, and hides nothing.
    mask: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Opening,
    Open,
}

impl WebSocket {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Opening,
            head: HeadReader::default(),
            opcode: Opcode::Binary,
            left: 0,
            kept: Vec::new(),
            is_lent: false,
            deframer: Deframer::client_side(),
            mask: 0x9E37_79B9,
        }
    }

    /// Whether HELLO can be said.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Asks for it.
    pub(super) fn write_request(out: &mut Vec<u8>) {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: heartwheel\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
             Sec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
    }

    /// Puts the native frames behind `start` into messages.
    pub(super) fn wrap(&mut self, start: usize, out: &mut Vec<u8>) {
        if self.stage == Stage::Opening {
            return;
        }
        let native = out.split_off(start);
        let mut rest = &native[..];
        if let Some(behind) = rest.strip_prefix(&native::MAGIC) {
            // The preface goes with HELLO.
            let length = native.len() - behind.len() + limits::PREFACE_BYTES - native::MAGIC.len();
            rest = &native[length..];
            let hello = take_whole(&mut rest).map_or(0, |hello| hello.bytes.len());
            write_frame(Opcode::Binary, self.next_mask(), &native[..length + hello], out);
        }
        while let Some(frame) = take_whole(&mut rest) {
            let (opcode, payload) = match frame.kind {
                native::kind::PONG => (Opcode::Pong, frame.payload),
                _ => (Opcode::Binary, frame.bytes),
            };
            write_frame(opcode, self.next_mask(), payload, out);
        }
    }

    fn next_mask(&mut self) -> Option<[u8; 4]> {
        self.mask = self.mask.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        Some(self.mask.to_be_bytes())
    }

    /// The next thing said at the front of `*bytes`, as [`Tongue::next`](super::dialect::Tongue).
    pub(super) fn next<'a, 'b: 'a>(
        &'a mut self,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Said<'a>>, CloseReason> {
        if std::mem::take(&mut self.is_lent) {
            self.kept = Vec::new();
        }
        if self.stage == Stage::Opening {
            return self.take_answer(bytes);
        }
        while self.left == 0 {
            let head = self.head.next(bytes).map_err(|_| CloseReason::Malformed)?;
            let Some(head) = head else { return Ok(None) };
            if head.mask.is_some() {
                return Err(CloseReason::Malformed);
            }
            (self.opcode, self.left) = (head.opcode, head.length);
            if self.opcode == Opcode::Ping && self.left == 0 {
                return Ok(Some(question(&[])));
            }
        }
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (mut part, rest) = bytes.split_at(here);
        if part.is_empty() {
            return Ok(None);
        }
        if self.opcode.is_control() {
            *bytes = rest;
            self.left -= part.len() as u64;
            self.kept.extend_from_slice(part);
            if self.left > 0 {
                return Ok(None);
            }
            self.is_lent = true;
            // What a close frame says ERROR and GOAWAY have said.
            let is_ping = self.opcode == Opcode::Ping;
            return Ok(Some(if is_ping { question(&self.kept) } else { Said::Nothing }));
        }
        let said = next_native(&mut self.deframer, &mut part)?;
        self.left -= (here - part.len()) as u64;
        *bytes = &bytes[here - part.len()..];
        // Where this frame ends another begins.
        Ok(said.or_else(|| (!bytes.is_empty()).then_some(Said::Nothing)))
    }

    fn take_answer(&mut self, bytes: &mut &[u8]) -> Result<Option<Said<'static>>, CloseReason> {
        while let Some((first, rest)) = bytes.split_first() {
            self.kept.push(*first);
            *bytes = rest;
            if self.kept.ends_with(END) {
                let answer = String::from_utf8_lossy(&self.kept);
                let is_granted = answer.starts_with("HTTP/1.1 101 ")
                    && answer.contains(&format!(": {}\r\n", accept_key(KEY.as_bytes())));
                self.kept = Vec::new();
                self.stage = Stage::Open;
                return Ok(Some(if is_granted { Said::Opened } else { Said::TurnedAway }));
            }
            if self.kept.len() > limits::WEBSOCKET_REQUEST_BYTES_MAX {
                return Err(CloseReason::BadWebsocket);
            }
        }
        Ok(None)
    }
}

const fn question(payload: &[u8]) -> Said<'_> {
    Said::Message(Message::Ping { reply: Reply::AtOnce, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dialect::{Dialect, Tongue};
    use crate::wire::websocket::{Head, apply_mask};

    fn answer() -> String {
        let accept = accept_key(KEY.as_bytes());
        format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
    }

    /// What is said in these bytes when they come in pieces of `piece_bytes`.
    fn hear(bytes: &[u8], piece_bytes: usize) -> Vec<String> {
        let mut tongue = Tongue::new(Dialect::WebSocket);
        let mut said = Vec::new();
        for mut piece in bytes.chunks(piece_bytes) {
            loop {
                match tongue.next(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Said::Nothing)) => {}
                    Ok(Some(it)) => said.push(format!("{it:?}")),
                    Err(reason) => {
                        said.push(reason.to_string());
                        return said;
                    }
                }
            }
            assert!(piece.is_empty());
        }
        said
    }

    #[test]
    fn messages_pings_and_ends_are_heard_however_they_are_cut() {
        let mut bytes = answer().into_bytes();
        write_frame(Opcode::Binary, None, &[4, 0, 0, 1, 7], &mut bytes);
        write_frame(Opcode::Ping, None, b"", &mut bytes);
        write_frame(Opcode::Ping, None, b"abc", &mut bytes);
        write_frame(Opcode::Binary, None, &[4, 0, 0, 0, 6, 0, 0, 4, 0, 0, 0, 1], &mut bytes);
        write_frame(Opcode::Close, None, &[3, 0xE8], &mut bytes);
        let expected = [
            Said::Opened,
            Said::Message(Message::Pong { payload: &[7] }),
            question(&[]),
            question(b"abc"),
            Said::Message(Message::Pong { payload: &[] }),
            Said::Message(Message::Ack { seq: 1 }),
        ]
        .map(|said| format!("{said:?}"));
        for piece_bytes in 1..=bytes.len() {
            assert_eq!(hear(&bytes, piece_bytes), expected, "by {piece_bytes}");
        }
    }

    #[test]
    fn who_is_refused_or_hears_no_websocket_is_told() {
        let refused = "HTTP/1.1 403 Forbidden\r\n\r\n";
        let wrong = answer().replace("Accept: ", "Accept: x");
        let masked = [answer().as_bytes(), &[0x82, 0x80]].concat();
        for (bytes, expected) in [
            (refused.as_bytes(), "TurnedAway"),
            (wrong.as_bytes(), "TurnedAway"),
            (&b"x".repeat(5_000), "bad_websocket"),
            (&[&masked[..], &[0; 4]].concat(), "malformed"),
        ] {
            let heard = hear(bytes, bytes.len());
            assert_eq!(heard.last().map(String::as_str), Some(expected), "{heard:?}");
        }
    }

    #[test]
    fn native_frames_go_out_in_masked_messages() {
        let mut websocket = WebSocket::new();
        let mut out = b"before".to_vec();
        WebSocket::write_request(&mut out);
        let request = out.clone();
        websocket.wrap(6, &mut out);
        assert_eq!(out, request, "what is not open is not wrapped");
        websocket.stage = Stage::Open;
        out.truncate(6);
        let hello = [&b"\xB7HWP\x01\x01\0\0"[..], &[1, 0, 0, 1, 9]].concat();
        out.extend_from_slice(&hello);
        out.extend_from_slice(&[3, 0, 0, 0, 4, 0, 0, 2, 7, 7]);
        websocket.wrap(6, &mut out);
        let mut rest = &out[6..];
        for (opcode, expected) in
            [(Opcode::Binary, &hello[..]), (Opcode::Binary, &[3, 0, 0, 0]), (Opcode::Pong, &[7, 7])]
        {
            let head = HeadReader::default().next(&mut rest).expect("a head").expect("whole");
            let Head { is_final: true, mask: Some(key), .. } = head else { panic!("{head:?}") };
            assert_eq!(head.opcode, opcode);
            let (payload, behind) = rest.split_at(usize::try_from(head.length).expect("short"));
            rest = behind;
            let mut payload = payload.to_vec();
            apply_mask(key, 0, &mut payload);
            assert_eq!(payload, expected);
        }
        assert_eq!(rest, b"");
    }
}
