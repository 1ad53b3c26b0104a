//! What is under way for each connection.

use slab::Slab;

use crate::base::ids::ConnId;
use crate::base::io::{Chunk, CloseHow};
use crate::os::prefetch::prefetch;
use crate::os::ring::token::{GENERATION_MASK, Token};

const NO_CHUNK: u32 = u32::MAX;

/// A socket: in which ring, and which descriptor or slot of the ring's table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Socket {
    pub(super) ring: u16,
    pub(super) file: u32,
}

/// The operations of a connection that end with a completion of their own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    Receive,
    Send,
    Look,
}

/// One connection. 16 bytes, for there are a million.
#[derive(Clone, Copy, Debug)]
struct Entry {
    generation: u32,
    file: u32,
    chunk: u32,
    ring: u16,
    state: u16,
}

/// Memory for each connection, in bytes.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

const HELD: u16 = 1;
const RECEIVING: u16 = 1 << 1;
const SENDING: u16 = 1 << 2;
const LOOKING: u16 = 1 << 3;
const CLOSING: u16 = 1 << 4;
const ABORTING: u16 = 1 << 5;
const CLOSE_SENT: u16 = 1 << 6;
/// Its receive was asked to end.
const PAUSING: u16 = 1 << 7;
const UNDER_WAY: u16 = RECEIVING | SENDING | LOOKING;

const VACANT: Entry = Entry { generation: 0, file: 0, chunk: NO_CHUNK, ring: 0, state: 0 };

/// A chunk that is being sent.
struct Sending {
    chunk: Chunk,
    told: Told,
}

/// Of which sends the kernel tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    /// Of this one, however it ends.
    Ever,
    /// Of this one only if it fails. It is over when the kernel has taken the entry that was queued
    /// in its ring after so many others.
    OfFailure(u64),
}

/// The connections, by slot, and the chunks that are being sent.
#[derive(Default)]
pub(super) struct Flight {
    entries: Vec<Entry>,
    chunks: Slab<Sending>,
    held: usize,
    under_way: usize,
}

/// What a connection is to be told when one of its operations ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Audience {
    /// It is open: everything.
    Open,
    /// It is closing: only that its chunk is home.
    Closing,
}

impl Flight {
    /// This socket is that connection from now on.
    pub(super) fn adopt(&mut self, conn: ConnId, socket: Socket) {
        let slot = index(conn.slot);
        if slot >= self.entries.len() {
            self.entries.resize(slot + 1, VACANT);
        }
        let entry = &mut self.entries[slot];
        assert!(entry.state == 0, "slot {conn} is adopted while it is in use");
        *entry = Entry {
            generation: conn.generation,
            file: socket.file,
            chunk: NO_CHUNK,
            ring: socket.ring,
            state: HELD,
        };
        self.held += 1;
    }

    /// Notes that an operation begins, and says on which socket.
    pub(super) fn begin(&mut self, conn: ConnId, operation: Operation) -> Socket {
        let bit = bit_of(operation);
        let entry = self.open_entry(conn);
        assert!(entry.state & bit == 0, "{conn} has two of {operation:?} under way");
        entry.state |= bit;
        let socket = socket_of(entry);
        self.under_way += 1;
        socket
    }

    /// The socket of an open connection.
    pub(super) fn socket(&mut self, conn: ConnId) -> Socket {
        socket_of(self.open_entry(conn))
    }

    /// Brings near what is known of a slot.
    pub(super) fn prefetch(&self, slot: u32) {
        if let Some(entry) = self.entries.get(index(slot)) {
            let memory = std::slice::from_ref(entry).as_ptr_range();
            prefetch(memory.start.cast()..memory.end.cast());
        }
    }

    /// The ring of a connection, open or closing.
    pub(super) fn ring(&self, conn: ConnId) -> u16 {
        self.entries[index(conn.slot)].ring
    }

    /// Keeps the chunk that is being sent, and says where its bytes are.
    pub(super) fn keep_chunk(
        &mut self,
        conn: ConnId,
        chunk: Chunk,
        told: Told,
    ) -> (*const u8, u32) {
        let place = place_of(&chunk);
        let key = self.chunks.insert(Sending { chunk, told });
        let key = u32::try_from(key).expect("fewer chunks than connections");
        self.open_entry(conn).chunk = key;
        place
    }

    /// Of the send under way the kernel will tell from now on; where its bytes are.
    pub(super) fn tell_of_send(&mut self, conn: ConnId) -> (*const u8, u32) {
        let key = self.entries[index(conn.slot)].chunk;
        let sending = &mut self.chunks[index(key)];
        sending.told = Told::Ever;
        place_of(&sending.chunk)
    }

    /// Whether the send under way ends by itself as soon as the kernel sees it.
    pub(super) fn is_sending_quietly(&self, conn: ConnId) -> bool {
        let sending = self.chunks.get(index(self.entries[index(conn.slot)].chunk));
        sending.is_some_and(|sending| sending.told != Told::Ever)
    }

    /// The bytes of the send under way of this connection, if it is still this very one.
    pub(super) fn find_quiet(&self, conn: ConnId, told: Told) -> Option<(usize, Audience)> {
        let entry = self.entries.get(index(conn.slot))?;
        if entry.generation != conn.generation {
            return None;
        }
        let sending = self.chunks.get(index(entry.chunk))?;
        (sending.told == told).then(|| (sending.chunk.len(), audience_of(entry)))
    }

    /// The connection that a token speaks of; `None` when that life is over.
    pub(super) fn find(&self, token: Token) -> Option<(ConnId, Audience)> {
        let entry = self.entries.get(index(token.slot()))?;
        let alive =
            entry.state & HELD != 0 && entry.generation & GENERATION_MASK == token.generation();
        let conn = ConnId { slot: token.slot(), generation: entry.generation };
        alive.then_some((conn, audience_of(entry)))
    }

    /// Notes that an operation ended.
    pub(super) fn end(&mut self, conn: ConnId, operation: Operation) {
        let bit = bit_of(operation);
        let entry = &mut self.entries[index(conn.slot)];
        assert!(entry.state & bit != 0, "{operation:?} of {conn} ended without having begun");
        entry.state &= !bit;
        if operation == Operation::Receive {
            entry.state &= !PAUSING;
        }
        self.under_way -= 1;
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

    /// Whether the receive under way was asked to end.
    pub(super) fn is_pausing(&self, conn: ConnId) -> bool {
        self.entries[index(conn.slot)].state & PAUSING != 0
    }

    /// Whether an operation is under way.
    pub(super) fn is_under_way(&self, conn: ConnId, operation: Operation) -> bool {
        self.entries[index(conn.slot)].state & bit_of(operation) != 0
    }

    /// The chunk that was being sent.
    pub(super) fn take_chunk(&mut self, conn: ConnId) -> Chunk {
        let entry = &mut self.entries[index(conn.slot)];
        let key = std::mem::replace(&mut entry.chunk, NO_CHUNK);
        assert!(key != NO_CHUNK, "{conn} sent nothing");
        self.chunks.remove(index(key)).chunk
    }

    /// Notes that a connection shall be closed.
    pub(super) fn begin_close(&mut self, conn: ConnId, how: CloseHow) -> Socket {
        let entry = self.open_entry(conn);
        entry.state |= CLOSING;
        match how {
            CloseHow::Finish => {}
            CloseHow::Abort => entry.state |= ABORTING,
        }
        socket_of(entry)
    }

    /// The socket to close and in what manner, once nothing of a closing connection is under way;
    /// says so once.
    pub(super) fn take_ready_to_close(&mut self, conn: ConnId) -> Option<(Socket, CloseHow)> {
        let entry = &mut self.entries[index(conn.slot)];
        assert!(entry.state & CLOSING != 0);
        if entry.state & (UNDER_WAY | CLOSE_SENT) != 0 {
            return None;
        }
        entry.state |= CLOSE_SENT;
        let how = if entry.state & ABORTING == 0 { CloseHow::Finish } else { CloseHow::Abort };
        Some((socket_of(entry), how))
    }

    /// Forgets a connection whose socket is closed; its slot may be used again.
    pub(super) fn release(&mut self, conn: ConnId) -> Socket {
        let entry = &mut self.entries[index(conn.slot)];
        assert!(entry.state & CLOSE_SENT != 0, "{conn} is released before its socket is closed");
        assert!(entry.state & UNDER_WAY == 0);
        assert!(entry.chunk == NO_CHUNK);
        let socket = socket_of(entry);
        *entry = VACANT;
        self.held -= 1;
        socket
    }

    /// The socket of a connection that is closing, or leaving for another driver.
    pub(super) fn socket_of_closing(&self, conn: ConnId) -> Socket {
        socket_of(&self.entries[index(conn.slot)])
    }

    /// A connection that was to leave stays, and is open again.
    pub(super) fn reopen(&mut self, conn: ConnId) {
        let entry = &mut self.entries[index(conn.slot)];
        assert!(entry.state & CLOSE_SENT != 0, "{conn} stays while something is under way");
        assert!(entry.state & UNDER_WAY == 0);
        entry.state = HELD;
    }

    /// How many connections are held.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// How many operations of connections are under way.
    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Adds the connections of each ring to `held_by_ring`, and panics when the books disagree.
    pub(super) fn check(&self, held_by_ring: &mut [u32]) {
        let (mut held, mut under_way, mut chunks) = (0, 0, 0);
        for entry in &self.entries {
            if entry.state & HELD == 0 {
                assert!(entry.state == 0, "a vacant slot has nothing under way");
                continue;
            }
            held += 1;
            held_by_ring[usize::from(entry.ring)] += 1;
            under_way += (entry.state & UNDER_WAY).count_ones() as usize;
            assert!((entry.chunk != NO_CHUNK) == (entry.state & SENDING != 0));
            if entry.chunk != NO_CHUNK {
                assert!(self.chunks.contains(index(entry.chunk)));
                chunks += 1;
            }
        }
        assert_eq!(held, self.held);
        assert_eq!(under_way, self.under_way);
        assert_eq!(chunks, self.chunks.len());
    }

    /// An entry that operations may still be asked for.
    fn open_entry(&mut self, conn: ConnId) -> &mut Entry {
        let entry = self.entries.get_mut(index(conn.slot)).unwrap_or_else(|| {
            panic!("{conn} was never adopted");
        });
        assert!(entry.state & HELD != 0, "{conn} is used after its end");
        assert!(entry.generation == conn.generation, "{conn} is used in another's life");
        assert!(entry.state & CLOSING == 0, "{conn} is used after its close");
        entry
    }
}

const fn index(slot: u32) -> usize {
    slot as usize
}

const fn bit_of(operation: Operation) -> u16 {
    match operation {
        Operation::Receive => RECEIVING,
        Operation::Send => SENDING,
        Operation::Look => LOOKING,
    }
}

const fn audience_of(entry: &Entry) -> Audience {
    if entry.state & CLOSING == 0 { Audience::Open } else { Audience::Closing }
}

/// Where the kernel finds the bytes of a chunk, and how many there are.
fn place_of(chunk: &Chunk) -> (*const u8, u32) {
    let length = u32::try_from(chunk.len()).expect("limits keep chunks small");
    (chunk.unsent().as_ptr(), length)
}

const fn socket_of(entry: &Entry) -> Socket {
    Socket { ring: entry.ring, file: entry.file }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::ring::token::Kind;

    const CONN: ConnId = ConnId { slot: 3, generation: 9 };
    const SOCKET: Socket = Socket { ring: 1, file: 17 };

    #[test]
    fn an_entry_stays_small() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn a_close_waits_for_everything_under_way() {
        let mut flight = Flight::default();
        flight.adopt(CONN, SOCKET);
        flight.begin(CONN, Operation::Receive);
        flight.begin(CONN, Operation::Send);
        flight.keep_chunk(CONN, Chunk::from(vec![1]), Told::Ever);
        flight.begin_close(CONN, CloseHow::Abort);
        assert_eq!(flight.take_ready_to_close(CONN), None);
        flight.end(CONN, Operation::Receive);
        assert_eq!(flight.take_ready_to_close(CONN), None);
        flight.end(CONN, Operation::Send);
        flight.take_chunk(CONN);
        assert_eq!(flight.take_ready_to_close(CONN), Some((SOCKET, CloseHow::Abort)));
        assert_eq!(flight.take_ready_to_close(CONN), None, "it is said once");
        assert_eq!(flight.release(CONN), SOCKET);
        flight.check(&mut [0, 0]);
        assert_eq!(flight.held(), 0);
    }

    #[test]
    fn a_token_of_a_former_life_finds_nobody() {
        let mut flight = Flight::default();
        flight.adopt(CONN, SOCKET);
        let token = Token::of(Kind::Receive, CONN);
        assert_eq!(flight.find(token), Some((CONN, Audience::Open)));
        flight.begin_close(CONN, CloseHow::Finish);
        assert_eq!(flight.find(token), Some((CONN, Audience::Closing)));
        flight.take_ready_to_close(CONN);
        flight.release(CONN);
        assert_eq!(flight.find(token), None);
        flight.adopt(ConnId { generation: 10, ..CONN }, SOCKET);
        assert_eq!(flight.find(token), None);
    }

    #[test]
    fn a_quiet_send_is_taken_for_no_later_one() {
        let mut flight = Flight::default();
        flight.adopt(CONN, SOCKET);
        flight.begin(CONN, Operation::Send);
        let (first, second) = (Told::OfFailure(5), Told::OfFailure(9));
        flight.keep_chunk(CONN, Chunk::from(vec![1, 2]), first);
        assert!(flight.is_sending_quietly(CONN));
        assert_eq!(flight.find_quiet(CONN, first), Some((2, Audience::Open)));
        let former = ConnId { generation: CONN.generation - 1, ..CONN };
        assert_eq!(flight.find_quiet(former, first), None);
        // It fails, and another one follows before anybody asks after the first.
        flight.end(CONN, Operation::Send);
        flight.take_chunk(CONN);
        assert_eq!(flight.find_quiet(CONN, first), None);
        flight.begin(CONN, Operation::Send);
        flight.keep_chunk(CONN, Chunk::from(vec![3]), second);
        assert_eq!(flight.find_quiet(CONN, first), None);
        // The socket is full, and it goes on as one that is told of.
        flight.tell_of_send(CONN);
        assert!(!flight.is_sending_quietly(CONN));
        assert_eq!(flight.find_quiet(CONN, second), None);
    }

    #[test]
    #[should_panic(expected = "is used after its close")]
    fn nothing_begins_after_the_close() {
        let mut flight = Flight::default();
        flight.adopt(CONN, SOCKET);
        flight.begin_close(CONN, CloseHow::Finish);
        flight.begin(CONN, Operation::Receive);
    }
}
