//! What every driver says of itself.

use crate::base::time::Span;

/// What one drain did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drained {
    /// Completions handled, those that concern nobody included.
    pub completions: usize,
    /// Whether to call again before time advances.
    pub more: More,
}

/// Whether something that has arrived may not have been handed over yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum More {
    /// Perhaps.
    Maybe,
    /// No: whatever had arrived when the drain was called has been handed over.
    Nothing,
}

/// What an enter brought within reach of a reap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// Perhaps not all that had arrived when it was called.
    Part,
    /// All that had arrived until so long after it was called.
    All {
        /// Zero, or how long it slept.
        after: Span,
    },
}

/// Numbers about a driver, counted since it was made unless said otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DriverStats {
    /// Times the kernel was entered.
    pub enters: u64,
    /// Completions taken.
    pub completions: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Bytes received, in so many pieces.
    pub received: u64,
    /// Receives armed, first times included.
    pub receives_armed: u64,
    /// Receives that ended for want of a buffer.
    pub starved: u64,
    /// Receives that the kernel ended for other reasons.
    pub interrupted: u64,
    /// Times that the completion queue was found overflowing.
    pub overflows: u64,
    /// Options that could not be set on a socket.
    pub options_refused: u64,
    /// Now: rings.
    pub rings: usize,
    /// Now: sockets in use, of connections or on their way to become one.
    pub sockets: u64,
    /// Now: operations of connections under way.
    pub in_flight: usize,
    /// Now: accepts waiting in the kernel.
    pub accepts_waiting: usize,
    /// Now: whether sleeps gather completions, as asked for and as far as the kernel can.
    pub gathers: bool,
    /// Whether a gathering sleep goes on where nothing came: kernel 6.12.
    pub gathers_without_waking: bool,
    /// All receive buffers.
    pub buffers: usize,
    /// Now: receive buffers that the kernel has, by its own account; `None` before kernel 6.8.
    /// Those that are missing hold bytes that were not drained yet.
    pub buffers_with_kernel: Option<usize>,
}
