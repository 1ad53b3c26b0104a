//! Moving a connection to the driver of another thread.
//!
//! Nothing is read ahead here, so there is nothing to wait for: the socket leaves this epoll
//! instance and is added to the other one, which hears of all that waits in it by then. At any
//! moment one thread owns it.

use std::collections::VecDeque;

use crate::base::ids::ConnId;
use crate::base::introduction::Baggage;
use crate::base::io::{IoFault, Move};
use crate::os::epoll::Driver;
use crate::os::epoll::due::Due;
use crate::os::fault::fault_of_error;
use crate::os::parcel::Parcel;

/// Connections on their way out or in.
#[derive(Default)]
pub(super) struct Moves {
    leaving: VecDeque<(ConnId, Parcel)>,
    /// Those on their way in that were not told yet.
    pub(super) arriving: usize,
}

impl Driver {
    pub(super) fn begin_move(&mut self, departure: Move) {
        let Move { conn, to, peer, bytes } = departure;
        let handle = self.table.begin_close(conn);
        // The other driver keeps the file open, so it would go on being news here.
        self.poll.forget(self.sockets.file(handle));
        let socket = self.sockets.take(handle);
        let baggage = Baggage::default();
        let parcel = Parcel { to, peer, bytes, from: conn, baggage, socket };
        self.moves.leaving.push_back((conn, parcel));
    }

    /// A connection that is ready to go to a shard for which `may_go` holds, if there is one. Its
    /// `Moved` is told by the next drain.
    pub fn take_departure(&mut self, may_go: impl Fn(u16) -> bool) -> Option<Parcel> {
        let index = self.moves.leaving.iter().position(|(_, parcel)| may_go(parcel.to))?;
        let (conn, parcel) = self.moves.leaving.remove(index)?;
        self.due.push(Due::Moved { conn });
        Some(parcel)
    }

    /// Whether connections are ready to go.
    pub fn has_departures(&self) -> bool {
        !self.moves.leaving.is_empty()
    }

    /// Takes in a connection of another driver: `Arrived` is told when it is here.
    pub fn arrive(&mut self, parcel: Parcel) {
        let Parcel { peer, bytes, baggage, socket, .. } = parcel;
        let kept = match self.room() {
            0 => Err(IoFault::NoDescriptors),
            _ => self.keep(socket).map_err(fault_of_error),
        };
        let due = match kept {
            Ok(socket) => {
                self.moves.arriving += 1;
                Due::Arrived { socket, peer, bytes, baggage }
            }
            Err(fault) => Due::ArrivalFailed { fault },
        };
        self.due.push(due);
    }

    /// How many connections are on their way in, those that were not told included.
    pub fn arriving(&self) -> usize {
        self.moves.arriving
    }
}
