//! What a pretend client tells those around it.

use crate::base::config::{Mode, Rhythm};
use crate::base::event::CloseReason;
use crate::base::io::{CloseHow, IoFault};
use crate::base::time::{Moment, Span};

/// What fell due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Nothing; the alarm was early.
    Nothing,
    /// It wants to connect.
    Connect,
    /// It has something to say.
    Say,
    /// A beat fell due while the one before is not even sent; this one is left out.
    SkipBeat,
    /// A message fell due while too many are not acknowledged; this one is left out.
    SkipMessage,
    /// It fell silent.
    FallSilent,
    /// It leaves without a word.
    Close(CloseHow),
}

/// What it heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// It is in.
    Welcomed {
        /// What was granted.
        granted: Rhythm,
        /// Who sends the beats.
        mode: Mode,
        /// From HELLO to WELCOME.
        took: Span,
    },
    /// The answer to a beat.
    Pong {
        /// From the moment when the PING was to be sent, not from when it was.
        rtt: Span,
    },
    /// A message for it.
    Message,
    /// A message of its was acknowledged.
    Acked {
        /// From the moment when it was to be sent, not from when it was.
        took: Span,
    },
    /// It has something to say.
    Say,
    /// The server ends this connection.
    Ended(Sign, Ending),
}

/// The first sign that the server ends a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sign {
    /// GOAWAY or ERROR with a reason known here.
    Told(CloseReason),
    /// GOAWAY or ERROR with another code.
    ToldUnknown,
    /// What came is not the protocol.
    Garbled(CloseReason),
    /// FIN.
    Eof,
    /// The connection broke.
    Fault(IoFault),
}

/// What it means that the server ended the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// It had not been welcomed.
    Refused,
    /// It was silent, and so long after its deadline the server noticed.
    Detected {
        /// From last beat + timeout to the first sign.
        late: Span,
    },
    /// It was silent, and the server did not wait for the deadline.
    DetectedEarly {
        /// From the first sign to last beat + timeout.
        early: Span,
    },
    /// It was alive and had beaten in time.
    FalseOffline,
    /// It was alive but had not beaten in time: the load bench's fault, not the server's.
    Overslept,
    /// It was alive, and the server gave a reason that has nothing to do with beats.
    SentAway,
    /// It does not read, and the server lost patience.
    SlowReader,
    /// It was leaving anyway, or this was counted before.
    NoMatter,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Written {
    /// A PING, and when it should have been sent.
    pub ping: Option<Moment>,
    /// Answers to the server's PINGs.
    pub pongs: u32,
    /// Whether a message.
    pub message: bool,
}

/// Where a client is, for whoever looks from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// Not connected.
    Away,
    /// Not yet welcomed.
    Coming,
    /// In, and beating.
    Live,
    /// In, and silent; its last beat, and when it must be noticed.
    Silent {
        /// Last beat + timeout.
        deadline: Moment,
    },
    /// On its way out.
    Leaving,
}
