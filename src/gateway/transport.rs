//! What happens to connections, for whoever wants to see it: numbered apart from the ledger,
//! bounded, and dropped where there is no room. Off unless the configuration asks for it.

use std::collections::VecDeque;

use crate::base::event::{CloseReason, Rescue, TransportEvent, TransportRecord};
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::Gateway;
use crate::gateway::connection::State;

/// Transport events in order, until the side thread takes them; at most
/// [`limits::TRANSPORT_WAITING_MAX`].
pub(crate) struct TransportQueue {
    waiting: VecDeque<TransportRecord>,
    tseq_next: u64,
    /// Dropped since the last one that was kept.
    dropped: u64,
    /// Dropped altogether.
    dropped_ever: u64,
}

impl TransportQueue {
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::new(), tseq_next: 1, dropped: 0, dropped_ever: 0 }
    }

    fn tell(&mut self, event: TransportEvent, at: Moment) {
        let tseq = self.tseq_next;
        self.tseq_next += 1;
        if self.waiting.len() >= limits::TRANSPORT_WAITING_MAX {
            self.dropped += 1;
            self.dropped_ever += 1;
            return;
        }
        let dropped = std::mem::take(&mut self.dropped);
        self.waiting.push_back(TransportRecord { tseq, at, dropped, event });
    }

    /// Those not yet taken.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Those for which there was no room, altogether.
    pub(crate) fn dropped_ever(&self) -> u64 {
        self.dropped_ever
    }

    fn take(&mut self, out: &mut Vec<TransportRecord>, budget: usize) {
        let count = budget.min(self.waiting.len());
        out.extend(self.waiting.drain(..count));
    }
}

impl Gateway {
    /// Moves at most `budget` transport events to the end of `out`, in order. There are none unless
    /// the configuration asks for them.
    pub fn take_transport(&mut self, out: &mut Vec<TransportRecord>, budget: usize) {
        if let Some(transport) = &mut self.transport {
            transport.take(out, budget);
        }
    }

    /// A connection was accepted.
    pub(crate) fn tell_connected(&mut self, conn: ConnId, now: Moment) {
        let Some(transport) = &mut self.transport else { return };
        let Some(connection) = self.tracker.get(conn) else { return };
        let event = TransportEvent::Connected { conn, remote: connection.peer() };
        transport.tell(event, self.time.expected(now));
    }

    /// A connection goes on in another shard.
    pub(crate) fn tell_moved(&mut self, conn: ConnId, now: Moment) {
        let Some(transport) = &mut self.transport else { return };
        let Some(connection) = self.tracker.get(conn) else { return };
        let event = TransportEvent::Moved { conn, remote: connection.peer() };
        transport.tell(event, self.time.expected(now));
    }

    /// A connection ends. Called before its session loses its name.
    pub(crate) fn tell_disconnected(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        let Some(transport) = &mut self.transport else { return };
        let Some(connection) = self.tracker.get(conn) else { return };
        let client = self.tracker.client(conn).cloned();
        let event =
            TransportEvent::Disconnected { conn, remote: connection.peer(), client, reason };
        transport.tell(event, self.time.expected(now));
    }

    /// A client was silent for too long.
    pub(crate) fn tell_suspect(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get(conn) else { return };
        let State::Live(session) = &connection.state else { return };
        self.stats.tally.suspected += 1;
        let Some(transport) = &mut self.transport else { return };
        let Some(client) = self.tracker.client(conn).cloned() else { return };
        let silence = now.since(session.last_beat);
        let event = TransportEvent::Suspect { conn, client, silence };
        transport.tell(event, self.time.expected(now));
    }

    /// A suspect is alive.
    pub(crate) fn tell_rescued(&mut self, conn: ConnId, by: Rescue, now: Moment) {
        let Some(transport) = &mut self.transport else { return };
        let Some(client) = self.tracker.client(conn).cloned() else { return };
        let event = TransportEvent::Rescued { conn, client, by };
        transport.tell(event, self.time.expected(now));
    }
}
