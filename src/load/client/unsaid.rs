//! What a pretend client has to say as soon as its last send is over.

use crate::base::limits;
use crate::base::time::Moment;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsaid {
    /// A beat that was to be sent at this moment; `Moment::ZERO` for none.
    pub(super) beat: Moment,
    pub(super) answer: Option<Answer>,
    /// Number of the latest DATA that wants an ACK; 0 for none.
    pub(super) ack: u32,
    pub(super) hello: bool,
    pub(super) bye: bool,
}

/// Payload of a PONG. The latest PING is answered; nobody needs the answers to those before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) payload: [u8; limits::PING_BYTES_MAX],
    pub(super) len: u8,
}
