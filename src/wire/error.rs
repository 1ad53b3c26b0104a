//! What a peer did wrong, and what cannot be said.

use crate::base::event::CloseReason;
use crate::base::ids::ClientIdError;

/// What the peer did wrong. The connection ends after it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// The first bytes are not the preface. There is no reply to this: it is not our protocol.
    #[error("the first bytes are not the preface")]
    BadPreface,
    /// The preface names versions that are not spoken here.
    #[error("versions {version_min} to {version_max} are not spoken here")]
    UnsupportedVersion {
        /// Oldest version the peer speaks.
        version_min: u8,
        /// Newest version the peer speaks.
        version_max: u8,
    },
    /// A frame's header claims more than is allowed now.
    #[error("frame of {claimed_bytes} bytes of payload, the limit is {limit_bytes}")]
    FrameTooLong {
        /// What the header claims.
        claimed_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// A payload does not have the form of its frame type.
    #[error("malformed frame of type {kind:#04x}: {flaw}")]
    Malformed {
        /// The frame type.
        kind: u8,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The frame type is not known here, and its sender insists that it must be.
    #[error("unknown critical frame of type {kind:#04x}")]
    UnknownCritical {
        /// The frame type.
        kind: u8,
    },
    /// HELLO names a client id that is none.
    #[error("bad client id: {0}")]
    BadClientId(ClientIdError),
}

/// What can be wrong with a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// It ends before its last field does.
    #[error("it ends before its last field")]
    TooShort,
    /// A field is longer than it may be.
    #[error("a field of {bytes} bytes, the limit is {limit_bytes}")]
    FieldTooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// A text is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotUtf8,
    /// A name contains a control character.
    #[error("a name with a control character")]
    Control,
    /// A number stands for nothing.
    #[error("{value} stands for nothing")]
    UnknownValue {
        /// The number.
        value: u8,
    },
}

impl WireError {
    /// The reason with which the connection ends.
    pub const fn reason(&self) -> CloseReason {
        match self {
            Self::BadPreface => CloseReason::BadPreface,
            Self::UnsupportedVersion { .. } => CloseReason::UnsupportedVersion,
            Self::FrameTooLong { .. } => CloseReason::FrameTooLong,
            Self::Malformed { .. } => CloseReason::Malformed,
            Self::UnknownCritical { .. } => CloseReason::UnknownCriticalFrame,
            Self::BadClientId(_) => CloseReason::BadClientId,
        }
    }
}

/// Why a message cannot be written. It is the fault of whoever made the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsayable {
    /// A field, or all of it, is longer than a frame can carry.
    #[error("{field} has {bytes} bytes, the limit is {limit_bytes}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// A name contains a control character.
    #[error("{field} has a control character")]
    Control {
        /// Which field.
        field: &'static str,
    },
    /// It is not a client id.
    #[error(transparent)]
    BadClientId(#[from] ClientIdError),
}
