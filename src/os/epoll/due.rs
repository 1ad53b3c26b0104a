//! Answers that need no further news.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::ids::ConnId;
use crate::base::introduction::Baggage;
use crate::base::io::{Chunk, IoFault, SocketHandle};

/// An answer on its way.
pub(super) enum Due {
    AcceptFailed { fault: IoFault },
    Connected { ticket: u32, socket: SocketHandle },
    ConnectFailed { ticket: u32, fault: IoFault },
    Sent { conn: ConnId, chunk: Chunk, result: Result<usize, IoFault> },
    Look { conn: ConnId },
    Paused { conn: ConnId },
    Closed { conn: ConnId },
    Moved { conn: ConnId },
    Arrived { socket: SocketHandle, peer: SocketAddr, bytes: Vec<u8>, baggage: Baggage },
    ArrivalFailed { fault: IoFault },
}

impl Due {
    /// Whether a sleep would make somebody wait for it. Of a send that took everything nobody
    /// needs to hear.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Sent { chunk, result, .. } => *result != Ok(chunk.len()),
            Self::AcceptFailed { .. }
            | Self::Connected { .. }
            | Self::ConnectFailed { .. }
            | Self::Look { .. }
            | Self::Paused { .. }
            | Self::Closed { .. }
            | Self::Moved { .. }
            | Self::Arrived { .. }
            | Self::ArrivalFailed { .. } => true,
        }
    }
}

/// Answers in the order in which they are given.
#[derive(Default)]
pub(super) struct Dues {
    queue: VecDeque<Due>,
    urgent: usize,
}

impl Dues {
    pub(super) fn push(&mut self, due: Due) {
        self.urgent += usize::from(due.is_urgent());
        self.queue.push_back(due);
    }

    pub(super) fn pop(&mut self) -> Option<Due> {
        let due = self.queue.pop_front()?;
        self.urgent -= usize::from(due.is_urgent());
        Some(due)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether there is one that no sleep may delay.
    pub(super) const fn has_urgent(&self) -> bool {
        self.urgent > 0
    }
}
