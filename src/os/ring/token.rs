//! What comes back with a completion: which operation, of whom, in which life of the slot.
//!
//! 64 bits: kind 8, generation 24, slot 32. Never a pointer: a token of a former life is recognised
//! and ignored, where a pointer would be followed.

use crate::base::ids::ConnId;

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    /// One accept; the slot is its room.
    Accept = 1,
    /// Taking back an accept.
    CancelAccept,
    /// The receive of a connection.
    Receive,
    /// Taking back a receive.
    CancelReceive,
    /// The send of a connection.
    Send,
    /// Taking back a send.
    CancelSend,
    /// The last look at a connection.
    Look,
    /// An ordinary descriptor for a moment, to ask TCP about a connection.
    Inspect,
    /// Making the close of a connection a RST.
    Linger,
    /// The close of a connection.
    Close,
    /// Setting `TCP_USER_TIMEOUT`; the slot is the room of the value.
    UserTimeout,
    /// The close of a socket that nobody wants; the slot is its descriptor.
    Discard,
    /// Moving an outgoing socket into the ring's table; the slot is the attempt.
    Install,
    /// Connecting an outgoing socket; the slot is the attempt.
    Connect,
    /// The waker's bell.
    Wake,
    /// The bell of a further ring; the slot is which.
    Bell,
    /// The send of a connection that is told of only if it fails.
    QuietSend,
    /// An ordinary descriptor for a connection that leaves.
    Depart,
    /// Its way out of the ring's table.
    Left,
    /// The way of another driver's connection into the table; the slot is the arrival.
    Arrive,
}

impl Kind {
    const ALL: [Self; 20] = [
        Self::Accept,
        Self::CancelAccept,
        Self::Receive,
        Self::CancelReceive,
        Self::Send,
        Self::CancelSend,
        Self::Look,
        Self::Inspect,
        Self::Linger,
        Self::Close,
        Self::UserTimeout,
        Self::Discard,
        Self::Install,
        Self::Connect,
        Self::Wake,
        Self::Bell,
        Self::QuietSend,
        Self::Depart,
        Self::Left,
        Self::Arrive,
    ];
}

/// The user data of one operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Token(u64);

/// As much of a generation as a token carries.
pub(super) const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Token {
    pub(super) const fn new(kind: Kind, generation: u32, slot: u32) -> Self {
        Self((kind as u64) << 56 | ((generation & GENERATION_MASK) as u64) << 32 | slot as u64)
    }

    /// The token of a connection's operation.
    pub(super) const fn of(kind: Kind, conn: ConnId) -> Self {
        Self::new(kind, conn.generation, conn.slot)
    }

    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    /// What was asked; `None` for a number that we never gave out.
    pub(super) fn kind(self) -> Option<Kind> {
        let code = usize::from(self.0.to_be_bytes()[0]);
        Kind::ALL.get(code.checked_sub(1)?).copied()
    }

    /// Whether this was asked.
    pub(super) const fn is_of(self, kind: Kind) -> bool {
        self.0 >> 56 == kind as u64
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked to 24 bits")]
    pub(super) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low 32 bits are the slot")]
    pub(super) const fn slot(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_what_was_put_in() {
        for kind in Kind::ALL {
            for (generation, slot) in [(0, 0), (GENERATION_MASK, u32::MAX), (77, 123_456)] {
                let token = Token::from_raw(Token::new(kind, generation, slot).raw());
                assert_eq!(token.kind(), Some(kind));
                assert!(token.is_of(kind));
                assert_eq!(token.generation(), generation);
                assert_eq!(token.slot(), slot);
            }
        }
    }

    #[test]
    fn a_foreign_number_is_no_token() {
        for raw in [0, u64::MAX, 200 << 56] {
            assert_eq!(Token::from_raw(raw).kind(), None);
        }
    }

    #[test]
    fn generations_wrap_at_24_bits() {
        let conn = ConnId { slot: 1, generation: 0xff00_0002 };
        for kind in Kind::ALL {
            let token = Token::of(kind, conn);
            assert_eq!((token.kind(), token.generation(), token.slot()), (Some(kind), 2, 1));
        }
    }
}
