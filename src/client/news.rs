//! What goes into a client and what comes out of it.

use crate::base::config::Mode;
use crate::base::event::{CloseReason, ComeBack};
use crate::base::ids::ClientId;
use crate::base::time::Span;
use crate::wire::error::{Unsayable, WireError};

/// How a client presents itself.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name.
    pub client_id: ClientId,
    /// Its kind; the name of a preset chooses its rhythm. May be empty.
    pub class: String,
    /// Proof of identity. May be empty.
    pub token: Vec<u8>,
    /// How often it would like to beat; zero: the server chooses.
    pub wanted_interval: Span,
}

impl Profile {
    /// A client of no class that leaves the rhythm to the server.
    pub const fn new(client_id: ClientId) -> Self {
        Self { client_id, class: String::new(), token: Vec::new(), wanted_interval: Span::ZERO }
    }
}

/// What the machine wants done with the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Open one, and report `on_connected` or `on_disconnected`.
    Connect {
        /// Where the server asked us to go; `None`: home.
        address: Option<String>,
    },
    /// Close it. There is nothing to report.
    Close,
}

/// What the machine has to tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// We are in.
    Welcome {
        /// Number of the session.
        epoch: u64,
        /// Whether it continues the one before.
        resumed: bool,
        /// Who beats.
        mode: Mode,
        /// How often.
        interval: Span,
        /// After so much silence the other side is judged dead.
        timeout: Span,
    },
    /// The server answered a PING.
    Pong {
        /// Since the PING; `None` when it answers an older one than the last.
        round_trip: Option<Span>,
    },
    /// A message of the application.
    Data {
        /// Its number.
        seq: u32,
        /// What it is about.
        topic: String,
        /// Its content.
        body: Vec<u8>,
    },
    /// Everything we sent up to this number has arrived.
    Acked {
        /// The number.
        seq: u32,
    },
    /// The server changed the rhythm.
    Rhythm {
        /// How often to beat.
        interval: Span,
        /// After so much silence the other side is judged dead.
        timeout: Span,
    },
    /// The server asked us to leave, and we did.
    Goaway {
        /// Why.
        code: u16,
        /// For people; filter control characters before you show it.
        text: String,
        /// When we come back; `None`: not by ourselves.
        back_in: Option<Span>,
    },
    /// The server says that we did something wrong.
    Refused {
        /// What.
        code: u16,
        /// For people; filter control characters before you show it.
        text: String,
        /// When we come back; `None`: not by ourselves.
        back_in: Option<Span>,
    },
    /// The connection is lost, or could not be made.
    Lost {
        /// How.
        loss: Loss,
        /// When we try again.
        back_in: Span,
    },
}

/// How a connection is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Loss {
    /// It could not be made.
    #[error("cannot connect")]
    Unreachable,
    /// It ended without a word.
    #[error("the connection was closed")]
    Closed,
    /// No WELCOME came in time.
    #[error("no WELCOME within the deadline")]
    NoWelcome,
    /// A PING stayed unanswered for the whole timeout: the server is gone.
    #[error("the server is silent: a PING stayed unanswered for the whole timeout")]
    Silent,
    /// The server does not speak the protocol.
    #[error("not the protocol: {0}")]
    Wire(WireError),
    /// The server sent a frame that has no place here.
    #[error("a frame that has no place here")]
    Unexpected,
    /// More waits to be sent than is kept.
    #[error("the connection takes no more bytes")]
    Full,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SendError {
    /// There is no session now. Nothing is kept for later.
    #[error("not connected")]
    Offline,
    /// More waits to be sent than is kept.
    #[error("too much waits to be sent")]
    Full,
    /// It is longer than the server takes.
    #[error("payload of {bytes} bytes, the server takes {limit_bytes}")]
    TooLong {
        /// How long topic and body make the payload.
        bytes: usize,
        /// What the server takes.
        limit_bytes: usize,
    },
    /// It cannot be written.
    #[error(transparent)]
    Unsayable(#[from] Unsayable),
}

/// What a client may do by itself after this code. Of a code that is newer than this program, the
/// hundreds decide.
pub fn come_back(code: u16) -> ComeBack {
    match CloseReason::from_code(code) {
        Some(reason) => reason.come_back(),
        None => match code / 100 {
            1 | 2 | 5 => ComeBack::Resume,
            4 => ComeBack::StayAway,
            _ => ComeBack::Reconnect,
        },
    }
}
