//! An io_uring set up as heartwheel's, and nothing above it.

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, DestinationSlot, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::listen::listen;

/// Bytes of a receive buffer, and of the place for one connection's answer.
pub const BUFFER_BYTES: usize = 256;

const SQ_ENTRIES: u32 = 1_024;
const CQ_ENTRIES: u32 = 16_384;
const BUFFERS: u16 = 8_192;
const ACCEPTS: u32 = 64;
const GROUP: u16 = 0;
const PAGE_BYTES: usize = 4_096;

/// What was asked for, in the upper half of a token; the slot is in the lower.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An accept; its slot is that of its address.
    Accept = 1,
    /// A receive.
    Receive = 2,
    /// A send; heard of only when it failed.
    Send = 3,
    /// A close.
    Close = 4,
}

/// What the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// What was asked for.
    pub kind: Kind,
    /// Of which slot.
    pub slot: u32,
    /// Bytes, a slot, or a negative error.
    pub result: i32,
    /// Whether more of the same will follow.
    pub has_more: bool,
    /// The receive buffer that was used.
    pub buffer: Option<u16>,
}

/// Who connected; the kernel writes it.
#[repr(C)]
struct Peer {
    address: libc::sockaddr_in6,
    length: libc::socklen_t,
}

/// The ring with its buffers, its table of files and its listener.
pub struct Ring {
    uring: IoUring,
    listener: TcpListener,
    peers: Vec<Peer>,
    entries: *mut BufRingEntry,
    tail: u16,
    // One piece of zeroes each, which take no memory until they are used.
    data: Vec<u8>,
    answers: Vec<u8>,
}

impl Ring {
    /// Listens, and keeps 64 accepts in the kernel.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(address: std::net::SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(CQ_ENTRIES)
            .build(SQ_ENTRIES)?;
        let files = files_max()?;
        uring.submitter().register_files_sparse(files)?;
        let mut ring = Self {
            uring,
            listener,
            peers: (0..ACCEPTS).map(|_| no_peer()).collect(),
            entries: memory_for_entries(),
            tail: 0,
            data: vec![0; usize::from(BUFFERS) * BUFFER_BYTES],
            answers: vec![0; files as usize * BUFFER_BYTES],
        };
        for id in 0..BUFFERS {
            ring.give_back(id);
        }
        ring.publish();
        let place = ring.entries as u64;
        // SAFETY: the memory is never freed.
        unsafe { ring.uring.submitter().register_buf_ring_with_flags(place, BUFFERS, GROUP, 0) }?;
        for slot in 0..ACCEPTS {
            ring.accept(slot);
        }
        Ok(ring)
    }

    /// Submits what was queued, waits for something to happen, and takes all of it.
    ///
    /// # Errors
    /// What the kernel says, but for an interruption.
    pub fn wait(&mut self, into: &mut Vec<Done>) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            other => drop(other?),
        }
        into.extend(self.uring.completion().map(|entry| done(&entry)));
        Ok(())
    }

    /// Asks for one more connection, with its address in place `slot`.
    fn accept(&mut self, slot: u32) {
        let peer = &raw mut self.peers[slot as usize];
        // SAFETY: fields of the place that was looked up above.
        let (address, length) = unsafe { (&raw mut (*peer).address, &raw mut (*peer).length) };
        // SAFETY: as above; nobody else has this place while its accept is over.
        unsafe { *length = size_of::<libc::sockaddr_in6>() as libc::socklen_t };
        let entry = opcode::Accept::new(Fd(self.listener.as_raw_fd()), address.cast(), length)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push(entry, Kind::Accept, slot);
    }

    /// The slot of a connection that an accept has brought; one more is asked for.
    ///
    /// # Errors
    /// What the accept failed of: a floor is given room for every client, and has no other plan.
    pub fn accepted(&mut self, done: Done) -> io::Result<u32> {
        self.accept(done.slot);
        match u32::try_from(done.result) {
            Ok(slot) => Ok(slot),
            Err(_) => Err(io::Error::from_raw_os_error(-done.result)),
        }
    }

    /// Receives from a connection until it ends.
    pub fn receive_many(&mut self, slot: u32) {
        self.push(opcode::RecvMulti::new(Fixed(slot), GROUP).build(), Kind::Receive, slot);
    }

    /// Receives from a connection once.
    pub fn receive_once(&mut self, slot: u32) {
        let place = std::ptr::null_mut();
        let entry = opcode::Recv::new(Fixed(slot), place, 0)
            .buf_group(GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, Kind::Receive, slot);
    }

    /// The first bytes of a receive buffer.
    pub fn received(&self, id: u16, count_bytes: usize) -> &[u8] {
        &self.data[usize::from(id) * BUFFER_BYTES..][..count_bytes]
    }

    /// Lends a buffer to the kernel again; it sees that after the next `publish`.
    pub fn give_back(&mut self, id: u16) {
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: below `BUFFERS`, and so many entries were allocated.
        let entry = unsafe { &mut *self.entries.add(place) };
        entry.set_addr(self.data[usize::from(id) * BUFFER_BYTES..].as_ptr() as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub fn publish(&self) {
        // SAFETY: the first entry of an allocation of many; the tail lies within it.
        let tail = unsafe { BufRingEntry::tail(self.entries) }.cast_mut();
        // SAFETY: aligned, never freed, and read by the kernel as an atomic.
        unsafe { AtomicU16::from_ptr(tail) }.store(self.tail, Ordering::Release);
    }

    /// Sends an answer without hearing that it was sent. The place of the answer is the slot's: a
    /// client that takes its answers before it asks again, as ours do, sees no answer overwritten.
    pub fn send(&mut self, slot: u32, answer: &[u8]) {
        let place = &mut self.answers[slot as usize * BUFFER_BYTES..][..BUFFER_BYTES];
        let bytes = answer.len().min(BUFFER_BYTES);
        place[..bytes].copy_from_slice(&answer[..bytes]);
        let entry = opcode::Send::new(Fixed(slot), place.as_ptr(), bytes as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry, Kind::Send, slot);
    }

    /// Closes a connection whose receive has ended.
    pub fn close(&mut self, slot: u32) {
        self.push(opcode::Close::new(Fixed(slot)).build(), Kind::Close, slot);
    }

    fn push(&mut self, entry: squeue::Entry, kind: Kind, slot: u32) {
        let entry = entry.user_data((kind as u64) << 32 | u64::from(slot));
        // SAFETY: what entries point to (places of addresses, of answers) is never freed or moved.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit().expect("a full queue can be submitted");
        }
    }
}

fn done(entry: &cqueue::Entry) -> Done {
    let kind = match entry.user_data() >> 32 {
        1 => Kind::Accept,
        2 => Kind::Receive,
        3 => Kind::Send,
        _ => Kind::Close,
    };
    Done {
        kind,
        slot: (entry.user_data() & u64::from(u32::MAX)) as u32,
        result: entry.result(),
        has_more: cqueue::more(entry.flags()),
        buffer: cqueue::buffer_select(entry.flags()),
    }
}

/// A ring's table has as many places as the process may have files.
fn files_max() -> io::Result<u32> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes to `limit`, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX).min(1 << 20))
}

fn no_peer() -> Peer {
    // SAFETY: a socket address of zeroes is one.
    let address = unsafe { std::mem::zeroed() };
    Peer { address, length: 0 }
}

fn memory_for_entries() -> *mut BufRingEntry {
    let bytes = usize::from(BUFFERS) * size_of::<BufRingEntry>();
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("small");
    // SAFETY: the layout has a size.
    let place = unsafe { alloc_zeroed(layout) };
    assert!(!place.is_null(), "no memory");
    place.cast()
}
