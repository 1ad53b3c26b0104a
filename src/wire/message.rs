//! What can be said. How it looks in bytes is the dialect's business.

use crate::base::config::Mode;
use crate::base::ids::ClientId;
use crate::base::limits;
use crate::wire::error::Unsayable;

/// One message. Texts and bytes are borrowed from where they were received.
///
/// Numbers are as they are on the wire: milliseconds, and codes that may be newer than this program
/// ([`CloseReason::from_code`](crate::base::event::CloseReason::from_code) tells).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// Client: who I am. The first frame, once.
    Hello {
        /// How often I would like to beat; 0: you choose.
        wanted_interval_ms: u32,
        /// My name. What was decoded is a valid [`ClientId`].
        client_id: &'a str,
        /// My kind; the name of a preset chooses its rhythm. May be empty.
        class: &'a str,
        /// Proof of identity. May be empty.
        token: &'a [u8],
        /// Token of the session to resume; empty: a new one.
        resume: &'a [u8],
        /// Number of the last DATA received in the session to resume.
        last_seq: u32,
        /// How the connection before this one ended, seen from the client; `None`: there was none,
        /// or the client does not say.
        before: Option<Before>,
    },
    /// Server: you are in. The answer to HELLO.
    Welcome {
        /// The version spoken from here on.
        version: u8,
        /// Who sends the beats.
        mode: Mode,
        /// Whether this continues the session that HELLO asked for.
        resumed: bool,
        /// Number of the session, larger at every new session.
        epoch: u64,
        /// Beat this often.
        interval_ms: u32,
        /// After so much silence you are judged dead, and may judge the server dead.
        timeout_ms: u32,
        /// Send the first beat after this long: a reconnect storm must not beat in step.
        first_beat_ms: u32,
        /// Longest payload that either side may send from here on.
        payload_max: u16,
        /// The server's clock, milliseconds since 1970-01-01 UTC.
        server_unix_ms: u64,
        /// Token with which this session can be resumed; empty: it cannot.
        resume: &'a [u8],
    },
    /// Both: a beat.
    Ping {
        /// Whether it wants an answer.
        reply: Reply,
        /// Comes back in the answer. At most 16 bytes.
        payload: &'a [u8],
    },
    /// Both: the answer to a PING.
    Pong {
        /// The PING's payload.
        payload: &'a [u8],
    },
    /// Both: a message of the application.
    Data {
        /// Its number.
        seq: u32,
        /// Whether it wants an ACK.
        ack: AckWanted,
        /// What it is about. May be empty.
        topic: &'a str,
        /// Its content.
        body: &'a [u8],
    },
    /// Both: everything up to this number has arrived.
    Ack {
        /// The number.
        seq: u32,
    },
    /// Server: please leave, and come back at a random moment of the window.
    Goaway {
        /// Why.
        code: u16,
        /// Start of the window, from now.
        reconnect_min_ms: u32,
        /// End of the window, from now.
        reconnect_max_ms: u32,
        /// Where to come back to; empty: here.
        address: &'a str,
        /// For people.
        text: &'a str,
    },
    /// Client: I leave on purpose.
    Bye {
        /// Why.
        code: u16,
    },
    /// Server: what you did wrong. The connection closes after it.
    Error {
        /// Why.
        code: u16,
        /// For people.
        text: &'a str,
    },
    /// Server: from your next beat on, this is the rhythm.
    Beat {
        /// Beat this often.
        interval_ms: u32,
        /// After so much silence you are judged dead.
        timeout_ms: u32,
    },
}

/// How a client's former connection ended, as the client saw it. With it a server can tell a client
/// that it judged wrongly from one whose path was gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Before {
    /// How long ago the last beat was sent on it.
    pub last_beat_ago_ms: u32,
    /// Who ended it.
    pub ended_by: EndedBy,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndedBy {
    /// The server closed it, reset it, or said good-bye.
    Server,
    /// The client gave it up: the server was silent, or the network was gone.
    Client,
}

/// Whether a PING wants an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A PONG, with the next thing that is sent.
    Wanted,
    /// None: a beat and nothing else. Flag NO_REPLY.
    NotWanted,
    /// A PONG at once: "are you there?". Flag PROBE.
    AtOnce,
}

/// Whether a DATA wants an ACK.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckWanted {
    /// It does. Flag ACK_REQ.
    Yes,
    /// It does not.
    No,
}

impl Message<'_> {
    /// Whether the message can be written: every field within its limits.
    ///
    /// The text of GOAWAY and ERROR has none, it is cut where it is written.
    pub fn check_sayable(&self) -> Result<(), Unsayable> {
        match *self {
            Self::Hello { client_id, class, token, resume, before, .. } => {
                ClientId::validate(client_id)?;
                check_name("class", class, limits::CLASS_BYTES_MAX)?;
                check_len("resume token", resume.len(), limits::RESUME_TOKEN_BYTES_MAX)?;
                let before_bytes = if before.is_some() { BEFORE_BYTES } else { 0 };
                let others =
                    HELLO_FIXED_BYTES + client_id.len() + class.len() + resume.len() + before_bytes;
                let token_max = limits::HELLO_PAYLOAD_BYTES_MAX.saturating_sub(others);
                check_len("token", token.len(), token_max)
            }
            Self::Welcome { resume, .. } => {
                check_len("resume token", resume.len(), limits::RESUME_TOKEN_BYTES_MAX)
            }
            Self::Ping { payload, .. } | Self::Pong { payload } => {
                check_len("payload", payload.len(), limits::PING_BYTES_MAX)
            }
            Self::Data { topic, body, .. } => {
                check_name("topic", topic, limits::TOPIC_BYTES_MAX)?;
                let body_max = limits::PAYLOAD_BYTES_LIMIT - DATA_FIXED_BYTES - topic.len();
                check_len("body", body.len(), body_max)
            }
            Self::Goaway { address, .. } => {
                check_name("address", address, limits::ADDRESS_BYTES_MAX)
            }
            Self::Ack { .. } | Self::Bye { .. } | Self::Error { .. } | Self::Beat { .. } => Ok(()),
        }
    }
}

/// Bytes of HELLO beside its texts and tokens.
const HELLO_FIXED_BYTES: usize = 4 + 1 + 1 + 2 + 1 + 4;
const BEFORE_BYTES: usize = 4 + 1;
/// Bytes of DATA beside topic and body.
const DATA_FIXED_BYTES: usize = 4 + 1;

fn check_name(field: &'static str, name: &str, limit_bytes: usize) -> Result<(), Unsayable> {
    check_len(field, name.len(), limit_bytes)?;
    if name.chars().any(char::is_control) { Err(Unsayable::Control { field }) } else { Ok(()) }
}

fn check_len(field: &'static str, bytes: usize, limit_bytes: usize) -> Result<(), Unsayable> {
    if bytes > limit_bytes { Err(Unsayable::TooLong { field, bytes, limit_bytes }) } else { Ok(()) }
}
