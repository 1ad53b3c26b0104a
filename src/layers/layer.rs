//! What a layer is: bytes in, bytes out, and it does nothing by itself.

use crate::base::event::CloseReason;
use crate::base::introduction::Introduction;

/// Something between a client's frames and the bytes of its connection. A value without I/O.
pub trait Layer: Send {
    /// Takes bytes of the peer: appends what was in them to `up`, and what the peer is to be sent
    /// at once to `down`.
    ///
    /// # Errors
    /// When the peer breaks the layer's rules. What it is to hear of that is in `down`.
    fn take_in(
        &mut self,
        bytes: &[u8],
        up: &mut Vec<u8>,
        down: &mut Vec<u8>,
    ) -> Result<Goes, CloseReason>;

    /// Appends `bytes` for the peer to `down`, in the form of this layer. Where nothing can be said
    /// yet, nothing is.
    fn send(&mut self, bytes: &[u8], down: &mut Vec<u8>);

    /// Appends the layer's own last word to `down`.
    fn finish(&mut self, down: &mut Vec<u8>);

    /// Whether the next bytes cost much: a handshake is under way.
    fn is_costly(&self) -> bool;

    /// Notes what it knows of the peer.
    fn introduce(&self, introduction: &mut Introduction);
}

/// Whether the peer goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Goes {
    /// It does.
    On,
    /// It has said that it is done.
    Over,
}

/// Where bytes are put on their way; used again and again, by one connection after the other.
#[derive(Default)]
pub(crate) struct Flow {
    /// Out of the outer layer and not out of the inner one.
    pub(crate) between: Vec<u8>,
    /// Out of all layers.
    pub(crate) up: Vec<u8>,
    /// What the inner layer says, for the outer one.
    pub(crate) down: Vec<u8>,
}

impl Flow {
    /// Forgets the bytes, and what memory is more than is worth keeping.
    pub(crate) fn clear(&mut self) {
        for bytes in [&mut self.between, &mut self.up, &mut self.down] {
            bytes.clear();
            bytes.shrink_to(crate::base::limits::PAYLOAD_BYTES_LIMIT);
        }
    }
}
