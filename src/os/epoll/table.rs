//! What is under way for each connection.

use slab::Slab;

use crate::base::ids::ConnId;
use crate::base::io::{Chunk, SocketHandle};

const NO_CHUNK: u32 = u32::MAX;

/// The operations of a connection that end with a completion of their own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    Receive,
    Send,
    Look,
}

/// Until when a connection is read once it has news.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Until {
    /// Until less comes than there was room for: what comes later is news again.
    Short,
    /// Until nothing comes: an end may be behind the bytes, of which no news tells again.
    Dry,
}

/// One connection. 24 bytes, for there are as many as files.
#[derive(Clone, Copy, Debug)]
struct Entry {
    socket: SocketHandle,
    generation: u32,
    chunk: u32,
    state: u16,
}

const HELD: u16 = 1;
const RECEIVING: u16 = 1 << 1;
const SENDING: u16 = 1 << 2;
const LOOKING: u16 = 1 << 3;
const CLOSING: u16 = 1 << 4;
/// It waits for its turn to be read.
const QUEUED: u16 = 1 << 5;
/// It is read until nothing comes.
const UNTIL_DRY: u16 = 1 << 6;
/// Its receive was asked to end.
const PAUSING: u16 = 1 << 7;
const UNDER_WAY: u16 = RECEIVING | SENDING | LOOKING;

const VACANT: Entry = Entry { socket: SocketHandle(0), generation: 0, chunk: NO_CHUNK, state: 0 };

/// The connections, by slot, and the chunks for which their sockets had no room.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    blocked: Slab<Chunk>,
    held: usize,
    under_way: usize,
}

impl Table {
    /// This socket is that connection from now on.
    pub(super) fn adopt(&mut self, conn: ConnId, socket: SocketHandle) {
        let slot = conn.slot as usize;
        if slot >= self.entries.len() {
            self.entries.resize(slot + 1, VACANT);
        }
        let entry = &mut self.entries[slot];
        assert!(entry.state == 0, "slot {conn} is adopted while it is in use");
        *entry = Entry { socket, generation: conn.generation, state: HELD, ..VACANT };
        self.held += 1;
    }

    /// Notes that an operation begins, and says on which socket.
    pub(super) fn begin(&mut self, conn: ConnId, operation: Operation) -> SocketHandle {
        let bit = bit_of(operation);
        let entry = self.open_entry(conn);
        assert!(entry.state & bit == 0, "{conn} has two of {operation:?} under way");
        entry.state |= bit;
        let socket = entry.socket;
        self.under_way += 1;
        socket
    }

    /// The socket of an open connection.
    pub(super) fn socket(&mut self, conn: ConnId) -> SocketHandle {
        self.open_entry(conn).socket
    }

    /// Notes that an operation ended. Whether there was one: a close ends receives and looks.
    pub(super) fn end(&mut self, conn: ConnId, operation: Operation) -> bool {
        let bit = bit_of(operation);
        let Some(entry) = self.entry(conn).filter(|entry| entry.state & bit != 0) else {
            return false;
        };
        entry.state &= !bit;
        if operation == Operation::Receive {
            entry.state &= !PAUSING;
        }
        self.under_way -= 1;
        true
    }

    /// Notes that the receive shall end. Whether one is under way, and was not asked to before.
    pub(super) fn begin_pause(&mut self, conn: ConnId) -> bool {
        let entry = self.open_entry(conn);
        let begins = entry.state & (RECEIVING | PAUSING) == RECEIVING;
        if begins {
            entry.state |= PAUSING;
        }
        begins
    }

    /// Ends the receive that was asked to end, unless it ended by itself or with its connection.
    pub(super) fn end_pause(&mut self, conn: ConnId) -> bool {
        self.entry(conn).is_some_and(|entry| entry.state & PAUSING != 0)
            && self.end(conn, Operation::Receive)
    }

    /// Keeps a chunk for which there is no room in its socket.
    pub(super) fn block(&mut self, conn: ConnId, chunk: Chunk) {
        let key = u32::try_from(self.blocked.insert(chunk)).expect("fewer than connections");
        self.open_entry(conn).chunk = key;
    }

    /// The chunk for which there was no room, if there is one.
    pub(super) fn unblock(&mut self, conn: ConnId) -> Option<Chunk> {
        let entry = self.entry(conn)?;
        let key = std::mem::replace(&mut entry.chunk, NO_CHUNK);
        (key != NO_CHUNK).then(|| self.blocked.remove(key as usize))
    }

    /// The connection in a slot that a socket belongs to.
    pub(super) fn conn(&self, slot: u32) -> ConnId {
        ConnId { slot, generation: self.entries[slot as usize].generation }
    }

    /// Notes that a connection has news. Whether it is to be put into the queue of those that are
    /// read: it is receiving, and not in it.
    pub(super) fn enqueue(&mut self, conn: ConnId, until: Until) -> bool {
        let Some(entry) = self.entry(conn).filter(|entry| entry.state & RECEIVING != 0) else {
            return false;
        };
        if until == Until::Dry {
            entry.state |= UNTIL_DRY;
        }
        let is_new = entry.state & QUEUED == 0;
        entry.state |= QUEUED;
        is_new
    }

    /// A connection whose turn it is: its socket, and until when it is read; `None` when it was
    /// closed meanwhile.
    pub(super) fn dequeue(&mut self, conn: ConnId) -> Option<(SocketHandle, Until)> {
        let entry = self.entry(conn).filter(|entry| entry.state & QUEUED != 0)?;
        entry.state &= !QUEUED;
        let until = if entry.state & UNTIL_DRY == 0 { Until::Short } else { Until::Dry };
        (entry.state & RECEIVING != 0).then_some((entry.socket, until))
    }

    /// A connection was read until nothing came.
    pub(super) fn is_dry(&mut self, conn: ConnId) {
        if let Some(entry) = self.entry(conn) {
            entry.state &= !UNTIL_DRY;
        }
    }

    /// Notes that a connection is being closed: it receives and looks no more.
    pub(super) fn begin_close(&mut self, conn: ConnId) -> SocketHandle {
        let entry = self.open_entry(conn);
        let ended = entry.state & (RECEIVING | LOOKING);
        entry.state = (entry.state & (HELD | SENDING)) | CLOSING;
        let socket = entry.socket;
        self.under_way -= ended.count_ones() as usize;
        socket
    }

    /// Forgets a connection; its slot may be used again.
    pub(super) fn release(&mut self, conn: ConnId) {
        let entry = self.entry(conn).expect("a connection is released once");
        assert!(entry.state == HELD | CLOSING, "{conn} is released with something under way");
        assert!(entry.chunk == NO_CHUNK);
        *entry = VACANT;
        self.held -= 1;
    }

    /// How many connections are held.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// How many operations of connections are under way.
    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Panics when the books disagree. How many connections have a socket.
    pub(super) fn check(&self) -> usize {
        let (mut held, mut under_way, mut blocked, mut open) = (0, 0, 0, 0);
        for entry in &self.entries {
            if entry.state & HELD == 0 {
                assert!(entry.state == 0, "a vacant slot has nothing under way");
                continue;
            }
            held += 1;
            open += usize::from(entry.state & CLOSING == 0);
            under_way += (entry.state & UNDER_WAY).count_ones() as usize;
            if entry.chunk != NO_CHUNK {
                assert!(entry.state & SENDING != 0);
                assert!(self.blocked.contains(entry.chunk as usize));
                blocked += 1;
            }
        }
        assert_eq!(held, self.held);
        assert_eq!(under_way, self.under_way);
        assert_eq!(blocked, self.blocked.len());
        open
    }

    /// The entry of a connection, unless that life is over.
    fn entry(&mut self, conn: ConnId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(conn.slot as usize)?;
        (entry.state & HELD != 0 && entry.generation == conn.generation).then_some(entry)
    }

    /// An entry that operations may still be asked for.
    fn open_entry(&mut self, conn: ConnId) -> &mut Entry {
        let entry = self.entries.get_mut(conn.slot as usize).unwrap_or_else(|| {
            panic!("{conn} was never adopted");
        });
        assert!(entry.state & HELD != 0, "{conn} is used after its end");
        assert!(entry.generation == conn.generation, "{conn} is used in another's life");
        assert!(entry.state & CLOSING == 0, "{conn} is used after its close");
        entry
    }
}

const fn bit_of(operation: Operation) -> u16 {
    match operation {
        Operation::Receive => RECEIVING,
        Operation::Send => SENDING,
        Operation::Look => LOOKING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { slot: 3, generation: 9 };
    const SOCKET: SocketHandle = SocketHandle(17);

    fn with_one() -> Table {
        let mut table = Table::default();
        table.adopt(CONN, SOCKET);
        table
    }

    #[test]
    fn an_entry_stays_small() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn a_close_ends_receives_and_looks_and_waits_for_the_chunk() {
        let mut table = with_one();
        for operation in [Operation::Receive, Operation::Send, Operation::Look] {
            assert_eq!(table.begin(CONN, operation), SOCKET);
        }
        table.block(CONN, Chunk::from(vec![1]));
        assert_eq!(table.begin_close(CONN), SOCKET);
        assert_eq!(table.under_way(), 1, "the chunk is not home");
        assert!(!table.end(CONN, Operation::Look), "nobody hears of the look");
        assert_eq!(table.unblock(CONN), Some(Chunk::from(vec![1])));
        assert!(table.end(CONN, Operation::Send));
        assert_eq!(table.check(), 0);
        table.release(CONN);
        assert_eq!((table.held(), table.under_way()), (0, 0));
    }

    #[test]
    fn whoever_has_news_twice_is_read_once() {
        let mut table = with_one();
        assert!(!table.enqueue(CONN, Until::Short), "it does not receive");
        table.begin(CONN, Operation::Receive);
        assert!(table.enqueue(CONN, Until::Short));
        assert!(!table.enqueue(CONN, Until::Dry));
        assert_eq!(table.dequeue(CONN), Some((SOCKET, Until::Dry)));
        assert_eq!(table.dequeue(CONN), None);
        table.is_dry(CONN);
        assert!(table.enqueue(CONN, Until::Short));
        assert_eq!(table.dequeue(CONN), Some((SOCKET, Until::Short)));
    }

    #[test]
    fn a_turn_of_a_former_life_is_nobodys() {
        let mut table = with_one();
        table.begin(CONN, Operation::Receive);
        assert!(table.enqueue(CONN, Until::Short));
        table.begin_close(CONN);
        assert_eq!(table.dequeue(CONN), None);
        table.release(CONN);
        let heir = ConnId { generation: 10, ..CONN };
        table.adopt(heir, SOCKET);
        table.begin(heir, Operation::Receive);
        assert!(table.enqueue(heir, Until::Short));
        assert_eq!(table.dequeue(CONN), None);
        assert_eq!(table.dequeue(heir), Some((SOCKET, Until::Short)));
    }

    #[test]
    #[should_panic(expected = "is used after its close")]
    fn nothing_begins_after_the_close() {
        let mut table = with_one();
        table.begin_close(CONN);
        table.begin(CONN, Operation::Send);
    }
}
