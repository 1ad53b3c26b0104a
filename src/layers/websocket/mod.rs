//! A WebSocket (RFC 6455): native frames in binary messages, for browsers.
//!
//! What a client's messages carry is its native stream, preface first, cut as it likes; it is
//! unmasked and passed up as it comes, so that a message may be of any length and costs nothing.
//! Towards the client one native frame is one message.
//!
//! A browser answers a ping by itself, without the page, whose timers it may have stopped. So a
//! PING that wants an answer goes out as the WebSocket's own, and its pong comes up as PONG.

mod opening;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use crate::layers::websocket::opening::{NoPages, NoPath, Origins, Pages, Rules, WebPath};

use crate::base::event::CloseReason;
use crate::base::introduction::{Carrier, Introduction};
use crate::base::limits;
use crate::layers::layer::{Goes, Layer};
use crate::layers::terms::Begin;
use crate::layers::websocket::opening::{Begun, Refused};
use crate::wire::message::{Message, Reply};
use crate::wire::native;
use crate::wire::websocket::{
    Closing, Head, HeadReader, Opcode, Track, Whole, apply_mask, close, close_code, read_close,
    take_whole, write_close, write_frame,
};

/// Begins a WebSocket for whoever keeps these rules.
#[derive(Clone, Debug, Default)]
pub struct WebSockets {
    rules: Arc<Rules>,
}

impl WebSockets {
    /// Under these rules.
    pub fn new(rules: Rules) -> Self {
        Self { rules: Arc::new(rules) }
    }
}

impl Begin for WebSockets {
    fn begin(&self) -> Box<dyn Layer> {
        Box::new(WebSocket {
            stage: Stage::Opening { begun: Begun::default(), rules: Arc::clone(&self.rules) },
            word: None,
        })
    }
}

/// One of them.
struct WebSocket {
    stage: Stage,
    /// The code of the last GOAWAY.
    word: Option<u16>,
}

enum Stage {
    /// The request is awaited.
    Opening {
        begun: Begun,
        rules: Arc<Rules>,
    },
    Open(Box<Open>),
    /// It was refused. Nothing is said or understood any more.
    Refused,
}

/// One that is open.
#[derive(Debug, Default)]
struct Open {
    head: HeadReader,
    /// The frame whose payload comes now.
    frame: Option<Payload>,
    /// A message is begun, and not all of its fragments came.
    is_in_message: bool,
    /// Payload of a control frame, as far as it came.
    control: Vec<u8>,
    /// How far the client's native stream is.
    track: Track,
    /// A sign of life that waits for the end of the native frame that is begun.
    sign: Option<Sign>,
    /// WELCOME was said: before it, nothing but HELLO has a place.
    is_welcomed: bool,
    /// We have said that we close.
    is_closed: bool,
    /// Frames in a row that said nothing to anybody but us.
    empty: u8,
}

/// Of a frame whose payload comes now.
#[derive(Clone, Copy, Debug)]
struct Payload {
    opcode: Opcode,
    mask: [u8; 4],
    /// So much of it came.
    at: u64,
    length: u64,
}

/// A control frame that proves life, as the native frame that does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sign {
    Ping,
    Pong,
}

impl Sign {
    fn write(self, up: &mut Vec<u8>) {
        let message = match self {
            // It was answered here.
            Self::Ping => Message::Ping { reply: Reply::NotWanted, payload: &[] },
            Self::Pong => Message::Pong { payload: &[] },
        };
        native::encode(&message, up);
    }
}

/// How a client broke the rules, and hears of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Wrong {
    code: u16,
    text: &'static str,
}

const fn wrong(text: &'static str) -> Wrong {
    Wrong { code: close::PROTOCOL_ERROR, text }
}

impl Layer for WebSocket {
    fn take_in(
        &mut self,
        bytes: &[u8],
        up: &mut Vec<u8>,
        down: &mut Vec<u8>,
    ) -> Result<Goes, CloseReason> {
        let mut bytes = bytes;
        if let Stage::Opening { begun, rules } = &mut self.stage {
            match begun.take_in(&mut bytes, rules, down) {
                Ok(false) => return Ok(Goes::On),
                Ok(true) => self.stage = Stage::Open(Box::default()),
                Err(refused) => {
                    self.refuse(refused, down);
                    return Err(CloseReason::BadWebsocket);
                }
            }
        }
        match &mut self.stage {
            Stage::Open(open) => open.take_in(bytes, up, down).map_err(|Wrong { code, text }| {
                open.close(code, text, down);
                CloseReason::BadWebsocket
            }),
            Stage::Opening { .. } | Stage::Refused => Ok(Goes::On),
        }
    }

    fn send(&mut self, bytes: &[u8], down: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(frame) = take_whole(&mut rest) {
            let is_goaway = frame.kind == native::kind::GOAWAY;
            match &mut self.stage {
                Stage::Open(open) => {
                    open.send(&frame, down);
                    if is_goaway {
                        self.word = frame.code();
                    }
                }
                // Whoever asks for a WebSocket understands nothing else.
                Stage::Opening { .. } if is_goaway || frame.kind == native::kind::ERROR => {
                    let is_slow = frame.code() == Some(CloseReason::HandshakeTimeout.code());
                    let why = if is_slow { Refused::TooSlow } else { Refused::Unavailable };
                    self.refuse(why, down);
                }
                Stage::Opening { .. } | Stage::Refused => {}
            }
        }
    }

    fn finish(&mut self, down: &mut Vec<u8>) {
        let word = self.word;
        match &mut self.stage {
            Stage::Open(open) => match word {
                Some(code) => open.close_saying(code, down),
                None => open.close(close::NORMAL, "", down),
            },
            Stage::Opening { .. } | Stage::Refused => {}
        }
    }

    fn is_costly(&self) -> bool {
        matches!(self.stage, Stage::Opening { .. })
    }

    fn introduce(&self, introduction: &mut Introduction) {
        introduction.carrier = Carrier::WebSocket;
    }
}

impl WebSocket {
    fn refuse(&mut self, why: Refused, down: &mut Vec<u8>) {
        why.write(down);
        self.stage = Stage::Refused;
    }
}

impl Open {
    fn take_in(
        &mut self,
        bytes: &[u8],
        up: &mut Vec<u8>,
        down: &mut Vec<u8>,
    ) -> Result<Goes, Wrong> {
        let mut rest = bytes;
        loop {
            let Some(payload) = &mut self.frame else {
                let head = self.head.next(&mut rest);
                match head.map_err(|_| wrong("a frame against the rules"))? {
                    Some(head) => self.begin(&head)?,
                    None => return Ok(Goes::On),
                }
                continue;
            };
            let missing = usize::try_from(payload.length - payload.at).unwrap_or(usize::MAX);
            let (part, behind) = rest.split_at(missing.min(rest.len()));
            rest = behind;
            let (opcode, mask, at) = (payload.opcode, payload.mask, payload.at);
            payload.at += part.len() as u64;
            let (is_whole, is_void) = (payload.at == payload.length, payload.length == 0);
            if opcode.is_control() {
                let start = self.control.len();
                self.control.extend_from_slice(part);
                apply_mask(mask, at, &mut self.control[start..]);
            } else {
                self.pass_up(part, mask, at, up);
            }
            if !is_whole {
                return Ok(Goes::On);
            }
            let is_empty = if opcode.is_control() { !self.is_welcomed } else { is_void };
            self.frame = None;
            if opcode.is_control() && self.on_control(opcode, up, down)? == Goes::Over {
                return Ok(Goes::Over);
            }
            self.count(is_empty)?;
        }
    }

    /// A frame is over; whoever sends only such as say nothing has no other limit.
    fn count(&mut self, is_empty: bool) -> Result<(), Wrong> {
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        if self.empty > limits::WEBSOCKET_EMPTY_FRAMES_MAX {
            return Err(Wrong { code: close::POLICY, text: "too many frames that say nothing" });
        }
        Ok(())
    }

    /// A frame begins: whether it may stand here.
    fn begin(&mut self, head: &Head) -> Result<(), Wrong> {
        let Some(mask) = head.mask else {
            return Err(wrong("a client masks what it says"));
        };
        match head.opcode {
            Opcode::Text => {
                let text = "bytes are expected, not text";
                return Err(Wrong { code: close::NOT_BINARY, text });
            }
            Opcode::Binary if self.is_in_message => {
                return Err(wrong("a message begins before another one ends"));
            }
            Opcode::Continuation if !self.is_in_message => {
                return Err(wrong("a fragment without a message"));
            }
            Opcode::Binary | Opcode::Continuation => self.is_in_message = !head.is_final,
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        let (opcode, length) = (head.opcode, head.length);
        self.frame = Some(Payload { opcode, mask, at: 0, length });
        Ok(())
    }

    fn pass_up(&mut self, part: &[u8], mask: [u8; 4], at: u64, up: &mut Vec<u8>) {
        let start = up.len();
        up.extend_from_slice(part);
        apply_mask(mask, at, &mut up[start..]);
        let first_end = self.track.follow(&up[start..]);
        if let (Some(end), Some(sign)) = (first_end, self.sign) {
            self.sign = None;
            let mut frame = Vec::new();
            sign.write(&mut frame);
            up.splice(start + end..start + end, frame);
        }
    }

    fn on_control(
        &mut self,
        opcode: Opcode,
        up: &mut Vec<u8>,
        down: &mut Vec<u8>,
    ) -> Result<Goes, Wrong> {
        let payload = std::mem::take(&mut self.control);
        match opcode {
            Opcode::Ping => {
                if !self.is_closed {
                    write_frame(Opcode::Pong, None, &payload, down);
                }
                self.tell(Sign::Ping, up);
            }
            Opcode::Pong => self.tell(Sign::Pong, up),
            Opcode::Close => {
                match read_close(&payload) {
                    // What has no code has none in the answer either.
                    Closing::Silent if !self.is_closed => {
                        self.is_closed = true;
                        write_frame(Opcode::Close, None, &[], down);
                    }
                    Closing::Silent => {}
                    Closing::Code(code) => self.close(code, "", down),
                    Closing::Wrong => return Err(wrong("a close frame against the rules")),
                    Closing::NotUtf8 => {
                        let text = "a reason that is not UTF-8";
                        return Err(Wrong { code: close::NOT_UTF8, text });
                    }
                }
                return Ok(Goes::Over);
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        Ok(Goes::On)
    }

    /// It lives. Between two native frames that can be said at once.
    fn tell(&mut self, sign: Sign, up: &mut Vec<u8>) {
        if !self.is_welcomed {
            return;
        }
        match self.track.is_between() {
            true => sign.write(up),
            false => self.sign = Some(sign),
        }
    }

    fn send(&mut self, frame: &Whole<'_>, down: &mut Vec<u8>) {
        if self.is_closed {
            return;
        }
        if frame.is_question() {
            return write_frame(Opcode::Ping, None, frame.payload, down);
        }
        write_frame(Opcode::Binary, None, frame.bytes, down);
        match frame.kind {
            native::kind::WELCOME => self.is_welcomed = true,
            // It is always the last word.
            native::kind::ERROR => self.close_saying(frame.code().unwrap_or_default(), down),
            _ => {}
        }
    }

    /// Closes with a code of the native protocol.
    fn close_saying(&mut self, code: u16, down: &mut Vec<u8>) {
        let word = CloseReason::from_code(code).map_or("", CloseReason::word);
        self.close(close_code(code), word, down);
    }

    fn close(&mut self, code: u16, text: &str, down: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_closed, true) {
            write_close(code, None, text, down);
        }
    }
}
