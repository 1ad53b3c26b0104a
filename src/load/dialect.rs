//! How a pretend client speaks, so that one load bench serves servers of more than one kind.

use crate::base::event::CloseReason;
use crate::base::limits;
use crate::base::time::Span;
use crate::load::mqtt::{self, Packet};
use crate::load::websocket::WebSocket;
use crate::wire::message::{Message, Reply};
use crate::wire::native::{self, Deframer, Inbound};

/// The protocol that all clients of a run speak.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Dialect {
    /// Our own.
    #[default]
    Native,
    /// MQTT 3.1.1: PINGREQ is the beat, PINGRESP its answer.
    Mqtt,
    /// Our own in messages of a WebSocket.
    WebSocket,
}

impl Dialect {
    /// Its name on the command line and in the report.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Mqtt => "mqtt",
            Self::WebSocket => "websocket",
        }
    }

    /// What a client asks for that speaks it behind TLS (ALPN). A WebSocket begins as HTTP, and
    /// whoever forwards by this name must not take it for anything else.
    pub const fn protocol(self) -> &'static [u8] {
        match self {
            Self::Native => b"heartwheel/1",
            Self::Mqtt => b"mqtt",
            Self::WebSocket => b"http/1.1",
        }
    }
}

/// One connection's ear: what is read so far.
#[derive(Debug)]
pub(super) enum Tongue {
    Native(Deframer),
    Mqtt(mqtt::Reader),
    WebSocket(Box<WebSocket>),
}

/// What a server said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Said<'a> {
    /// A message of the native protocol.
    Message(Message<'a>),
    /// HELLO may be said now.
    Opened,
    /// You are in, at the rhythm you have chosen.
    Admitted,
    /// You are not.
    TurnedAway,
    /// The oldest beat without an answer has arrived.
    Answered,
    /// Something that is of no interest to a pretend client.
    Nothing,
}

impl Tongue {
    pub(super) fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Native => Self::Native(Deframer::client_side()),
            Dialect::Mqtt => Self::Mqtt(mqtt::Reader::default()),
            Dialect::WebSocket => Self::WebSocket(Box::new(WebSocket::new())),
        }
    }

    /// One that speaks the same, while it is listened to.
    pub(super) fn stand_in(&self) -> Self {
        match self {
            Self::Native(_) | Self::WebSocket(_) => Self::new(Dialect::Native),
            Self::Mqtt(_) => Self::new(Dialect::Mqtt),
        }
    }

    /// The next thing said at the front of `*bytes`, which it takes; `None` when all of them are
    /// taken and more are needed.
    pub(super) fn next<'a, 'b: 'a>(
        &'a mut self,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Said<'a>>, CloseReason> {
        match self {
            Self::Native(deframer) => next_native(deframer, bytes),
            Self::WebSocket(websocket) => websocket.next(bytes),
            Self::Mqtt(reader) => match reader.next(bytes) {
                Ok(None) => Ok(None),
                Ok(Some(Packet::Accepted)) => Ok(Some(Said::Admitted)),
                Ok(Some(Packet::Refused { .. })) => Ok(Some(Said::TurnedAway)),
                Ok(Some(Packet::Pong)) => Ok(Some(Said::Answered)),
                Err(mqtt::Garbled) => Err(CloseReason::Malformed),
            },
        }
    }

    /// Whether an answer tells which beat it answers. Where it does not, one beat at a time is
    /// under way.
    pub(super) const fn answers_have_names(&self) -> bool {
        match self {
            Self::Native(_) | Self::WebSocket(_) => true,
            Self::Mqtt(_) => false,
        }
    }

    pub(super) fn write_hello(
        &self,
        client_id: &str,
        token: &[u8],
        interval: Span,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::WebSocket(websocket) if !websocket.is_open() => WebSocket::write_request(out),
            Self::Native(_) | Self::WebSocket(_) => {
                native::encode_preface(native::VERSIONS, out);
                let hello = Message::Hello {
                    wanted_interval_ms: interval.as_millis_u32(),
                    client_id,
                    class: "",
                    token,
                    resume: b"",
                    last_seq: 0,
                    before: None,
                };
                native::encode(&hello, out);
            }
            Self::Mqtt(_) => mqtt::write_connect(client_id, mqtt::keep_alive_secs(interval), out),
        }
    }

    /// `payload` comes back in the answer, where answers have names.
    pub(super) fn write_beat(&self, reply: Reply, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Native(_) | Self::WebSocket(_) => {
                native::encode(&Message::Ping { reply, payload }, out)
            }
            Self::Mqtt(_) => out.extend_from_slice(&mqtt::PINGREQ),
        }
    }

    /// Puts what was written from `start` on into the form in which it is sent.
    pub(super) fn wrap(&mut self, start: usize, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket(websocket) => websocket.wrap(start, out),
            Self::Native(_) | Self::Mqtt(_) => {}
        }
    }

    pub(super) fn write_bye(&self, out: &mut Vec<u8>) {
        match self {
            Self::Native(_) | Self::WebSocket(_) => {
                native::encode(&Message::Bye { code: CloseReason::Bye.code() }, out)
            }
            Self::Mqtt(_) => out.extend_from_slice(&mqtt::DISCONNECT),
        }
    }
}

pub(super) fn next_native<'a, 'b: 'a>(
    deframer: &'a mut Deframer,
    bytes: &mut &'b [u8],
) -> Result<Option<Said<'a>>, CloseReason> {
    match deframer.next(bytes, limits::PAYLOAD_BYTES_LIMIT) {
        Ok(Some(Inbound::Message(message))) => Ok(Some(Said::Message(message))),
        Ok(None) => Ok(None),
        Ok(Some(Inbound::Preface(_) | Inbound::Skipped { .. })) => Ok(Some(Said::Nothing)),
        Err(error) => Err(error.reason()),
    }
}
