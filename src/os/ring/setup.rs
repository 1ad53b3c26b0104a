//! One ring: making it, entering it, queueing for it.
#![allow(unsafe_code, reason = "io_uring_enter and io_uring_register, and pushing entries")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{IoUring, cqueue, squeue};
use rustix::event::{EventfdFlags, eventfd};

use crate::base::ids::ConnId;
use crate::base::time::Span;
use crate::os::ring::buffers::Buffers;
use crate::os::ring::{Descriptors, RingError, RingSizes};

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const REGISTER_PBUF_STATUS: u32 = 26;
/// How often the queues are halved when the kernel has no memory for them.
const HALVINGS_MAX: u32 = 2;

/// How long an enter may sleep.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sleep {
    /// Not at all.
    No,
    /// At most so long.
    AtMost(Span),
    /// Until something comes.
    Forever,
}

/// One ring with its buffers and its table of files.
pub(super) struct Ring {
    // The ring is closed before the memory that the kernel may write to is freed: fields are
    // dropped in this order.
    uring: IoUring,
    buffers: Buffers,
    bell: Option<OwnedFd>,
    backlog: VecDeque<squeue::Entry>,
    /// In the order in which they were queued.
    pub(super) quiet: VecDeque<QuietSend>,
    registered: Option<u32>,
    wait_flags: u32,
    /// How long a sleep lasts at least, unless enough comes to be worth waking for.
    gather: Span,
    /// Whether the kernel can sleep on when nothing came in that time (6.12).
    pub(super) can_sleep_on: bool,
    /// Entries queued so far.
    queued: u64,
    latest: Ran,
    pub(super) files_free: u32,
    pub(super) files_max: u32,
    pub(super) enters: u64,
}

/// What the latest enter did with the work that waited when it began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ran {
    /// Perhaps not all of it was run.
    Part,
    /// All of it.
    All,
    /// All of it, and all that came until the sleep was over.
    AllToTheEnd,
}

/// Whether a ring wakes another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bell {
    /// The thread sleeps in this ring; it needs none.
    None,
    /// It rings a bell that the first ring listens to.
    Fitted,
}

impl Ring {
    /// Makes a ring for `files` sockets. To be used by the thread that made it.
    pub(super) fn new(
        sizes: &RingSizes,
        descriptors: Descriptors,
        files: u32,
        bell: Bell,
    ) -> Result<Self, RingError> {
        let uring = build(sizes)?;
        if descriptors == Descriptors::Direct {
            uring
                .submitter()
                .register_files_sparse(files)
                .map_err(|source| RingError::Files { files, source })?;
        }
        let buffers = Buffers::register(&uring, sizes.buffers, sizes.buffer_bytes)
            .map_err(|source| RingError::Buffers { source })?;
        let bell = match bell {
            Bell::None => None,
            Bell::Fitted => Some(fit_bell(&uring)?),
        };
        let wait_flags = if uring.params().is_feature_no_iowait() { ENTER_NO_IOWAIT } else { 0 };
        let can_sleep_on = uring.params().is_feature_min_timeout();
        let mut ring = Self {
            uring,
            buffers,
            bell,
            backlog: VecDeque::new(),
            quiet: VecDeque::new(),
            registered: None,
            wait_flags,
            gather: Span::ZERO,
            can_sleep_on,
            queued: 0,
            latest: Ran::Part,
            files_free: files,
            files_max: files,
            enters: 0,
        };
        ring.register_itself();
        Ok(ring)
    }

    /// What wakes the first ring, if this is a further one.
    pub(super) const fn bell(&self) -> Option<&OwnedFd> {
        self.bell.as_ref()
    }

    /// Rings the bell at every completion from now on.
    pub(super) fn ring_bell(&mut self) {
        self.uring.completion().enable_eventfd();
    }

    /// Rings no bell: the thread is awake and looks by itself.
    pub(super) fn silence_bell(&mut self) {
        self.uring.completion().disable_eventfd();
    }

    /// Lets every sleep for more than one completion last so long.
    pub(super) const fn gather(&mut self, window: Span) {
        self.gather = window;
    }

    /// Whether sleeps gather completions.
    pub(super) fn gathers(&self) -> bool {
        self.gather > Span::ZERO
    }

    /// How long a gathering sleep of `longest` may be.
    pub(super) fn gathering(&self, longest: Option<Span>) -> Option<Span> {
        if self.can_sleep_on {
            return longest;
        }
        Some(longest.map_or(self.gather, |longest| longest.min(self.gather)))
    }

    /// What the latest enter did with the work that waited when it began.
    pub(super) const fn latest(&self) -> Ran {
        self.latest
    }

    /// Entries that were queued before the next one.
    pub(super) const fn queued(&self) -> u64 {
        self.queued
    }

    /// Entries that the kernel has taken, of all that were queued.
    pub(super) fn taken(&mut self) -> u64 {
        self.queued - self.unsubmitted() as u64
    }

    /// The buffers of this ring.
    pub(super) const fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    pub(super) const fn buffers_ref(&self) -> &Buffers {
        &self.buffers
    }

    /// Queues an entry. What the queue cannot take now is kept, in order.
    ///
    /// The caller keeps the memory that the entry points to until its completion: chunks in
    /// [`Flight`](crate::os::ring::flight::Flight), the rest in rooms.
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        self.queued += 1;
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: the memory behind the entry outlives its operation, as the caller promises.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        if pushed.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Entries that the kernel has not seen yet.
    pub(super) fn unsubmitted(&mut self) -> usize {
        self.uring.submission().len() + self.backlog.len()
    }

    /// Whether of every send that the kernel has taken the driver knows how it ended.
    pub(super) fn all_sends_told(&mut self) -> bool {
        let taken = self.taken();
        self.quiet.front().is_none_or(|quiet| quiet.place >= taken)
    }

    /// Completions that can be taken now.
    pub(super) fn ready(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// Whether completions wait outside the queue for want of room in it.
    pub(super) fn has_overflowed(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Whether entering might bring something. The kernel's flag can be up with nothing behind it:
    /// a reason to enter once, never to loop.
    pub(super) fn may_have_news(&mut self) -> bool {
        self.ready() > 0 || self.has_work()
    }

    /// Whether the kernel might have something to do for this ring, by the same flag.
    pub(super) fn has_work(&mut self) -> bool {
        if !self.backlog.is_empty() {
            return true;
        }
        let queue = self.uring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Takes at most `count_max` completions off the queue.
    pub(super) fn take_completions(&mut self, count_max: usize, into: &mut Vec<Cqe>) {
        into.extend(self.uring.completion().take(count_max).map(|entry| Cqe::of(&entry)));
    }

    /// Submits everything and sleeps until `want` completions are there or the time is over. Runs
    /// the kernel's deferred work for up to `want` connections, and for at least 20.
    ///
    /// Where there is so much to submit that its completions would not fit, some of it stays
    /// unsubmitted, and there is no sleep.
    pub(super) fn enter(&mut self, want: u32, sleep: Sleep) -> Result<(), RingError> {
        while !self.backlog.is_empty() {
            self.fill_queue();
            if self.backlog.is_empty() {
                break;
            }
            let before = self.unsubmitted();
            self.enter_once(0, Sleep::No)?;
            let is_half_full = self.ready() > self.uring.completion().capacity() / 2;
            if is_half_full || self.unsubmitted() == before {
                self.latest = Ran::Part;
                return Ok(()); // completions are to be taken before more of them come
            }
        }
        self.enter_once(want, sleep)
    }

    /// How many buffers the kernel has, by its own account; `None` on kernels before 6.8.
    pub(super) fn buffers_with_kernel(&self) -> Option<u16> {
        let mut status = BufferStatus::default();
        let pointer = (&raw mut status).cast::<libc::c_void>();
        let (fd, op) = (self.uring.as_raw_fd(), REGISTER_PBUF_STATUS);
        // SAFETY: `pointer` is to a `BufferStatus`, laid out as the kernel documents, which
        // outlives the call.
        let result = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, op, pointer, 1) };
        let head = u16::try_from(status.head & 0xffff).expect("masked");
        (result == 0).then(|| self.buffers.with_kernel(head))
    }

    fn fill_queue(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            let pushed = unsafe { queue.push(entry) };
            if pushed.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    fn enter_once(&mut self, want: u32, sleep: Sleep) -> Result<(), RingError> {
        // The kernel is content with a full queue.
        let full = u32::try_from(self.uring.completion().capacity()).expect("a queue length");
        let want = want.min(full);
        let end = self.call_enter(want, sleep)?;
        // With what was wanted the kernel stops, and raises the flag when there is more to do. With
        // less it has done all, and the flag is stale or was raised by what came later.
        let has_enough = self.ready() >= want as usize;
        let queue = self.uring.submission();
        let is_left = queue.cq_overflow() || !queue.is_empty() || !self.backlog.is_empty();
        let is_flagged = queue.taskrun();
        self.latest = match end {
            _ if is_left || (has_enough && is_flagged) => Ran::Part,
            End::NotRun => Ran::Part,
            End::OfTime if !is_flagged => Ran::AllToTheEnd,
            End::OfTime | End::Early => Ran::All,
        };
        Ok(())
    }

    fn call_enter(&mut self, want: u32, sleep: Sleep) -> Result<End, RingError> {
        self.enters += 1;
        let count = u32::try_from(self.uring.submission().len()).expect("a queue length");
        let nanos = match sleep {
            Sleep::No => Some(0),
            Sleep::AtMost(span) => Some(span.as_nanos()),
            Sleep::Forever => None,
        };
        let time = nanos.map(KernelTimespec::of);
        let argument = EnterArgument {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_micros: if want > 1 { self.gather_micros_within(sleep) } else { 0 },
            time: time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
        };
        let mut flags = ENTER_GETEVENTS | ENTER_EXT_ARG | self.wait_flags;
        let fd = match self.registered {
            None => self.uring.as_raw_fd(),
            Some(index) => {
                flags |= ENTER_REGISTERED_RING;
                index.cast_signed()
            }
        };
        let pointer = std::ptr::from_ref(&argument);
        let bytes = size_of::<EnterArgument>();
        // SAFETY: `argument` is laid out as the kernel documents, and it and the time it points to
        // outlive the call. The entries submitted are sound by `push`.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, count, want, flags, pointer, bytes)
        };
        if result >= 0 {
            return Ok(End::Early);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ETIME) => Ok(End::OfTime),
            Some(libc::EINTR) => Ok(End::Early),
            // The completion queue must be emptied first.
            Some(libc::EBUSY | libc::EAGAIN) => Ok(End::NotRun),
            _ => Err(RingError::Enter { source: error }),
        }
    }

    /// The window of a gathering sleep: the kernel would let it outlast the sleep.
    fn gather_micros_within(&self, sleep: Sleep) -> u32 {
        let window = match sleep {
            Sleep::No => Span::ZERO,
            _ if !self.can_sleep_on => Span::ZERO,
            Sleep::AtMost(span) => self.gather.min(span),
            Sleep::Forever => self.gather,
        };
        u32::try_from(window.as_micros()).unwrap_or(u32::MAX)
    }

    /// Spares the kernel a look-up at every enter, where it can.
    fn register_itself(&mut self) {
        let mut update = RingUpdate {
            offset: u32::MAX,
            reserved: 0,
            data: self.uring.as_raw_fd().unsigned_abs().into(),
        };
        if self.register_ring_call(REGISTER_RING_FDS, &mut update) == 1 {
            self.registered = Some(update.offset);
        }
    }

    fn register_ring_call(&self, op: u32, update: &mut RingUpdate) -> libc::c_long {
        let pointer = std::ptr::from_mut(update).cast::<libc::c_void>();
        let fd = self.uring.as_raw_fd();
        // SAFETY: `pointer` is to one `RingUpdate`, laid out as the kernel documents, which
        // outlives the call.
        unsafe { libc::syscall(libc::SYS_io_uring_register, fd, op, pointer, 1) }
    }
}

impl Drop for Ring {
    /// Lets go of the ring, or it would stay open until the thread ends.
    fn drop(&mut self) {
        if let Some(offset) = self.registered.take() {
            let mut update = RingUpdate { offset, reserved: 0, data: 0 };
            self.register_ring_call(UNREGISTER_RING_FDS, &mut update);
        }
    }
}

/// A send that the kernel tells of only if it fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuietSend {
    pub(super) conn: ConnId,
    /// So many entries were queued before its own.
    pub(super) place: u64,
}

/// How an enter ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// With what was wanted, or by a signal.
    Early,
    /// With the sleep, and without a completion.
    OfTime,
    /// It was refused before it did anything but submit.
    NotRun,
}

/// What a completion says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cqe {
    pub(super) user_data: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Cqe {
    fn of(entry: &cqueue::Entry) -> Self {
        Self { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }

    /// Whether further completions of the same operation will follow.
    pub(super) fn has_more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// Which buffer was used.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct EnterArgument {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_micros: u32,
    time: *const KernelTimespec,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    secs: i64,
    nanos: i64,
}

impl KernelTimespec {
    fn of(nanos: u64) -> Self {
        let secs = i64::try_from(nanos / 1_000_000_000).expect("2^64 ns are 584 years");
        let nanos = i64::try_from(nanos % 1_000_000_000).expect("less than a second");
        Self { secs, nanos }
    }
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_buf_status`.
#[repr(C)]
#[derive(Default)]
struct BufferStatus {
    group: u32,
    head: u32,
    reserved: [u32; 8],
}

/// Tries the newest way first, and smaller queues where there is no memory for large ones.
fn build(sizes: &RingSizes) -> Result<IoUring, RingError> {
    let mut halvings = 0;
    loop {
        let (sq, cq) = (sizes.sq_entries >> halvings, sizes.cq_entries >> halvings);
        let tried = builder(cq).setup_no_sqarray().build(sq).or_else(|error| {
            match error.raw_os_error() {
                Some(libc::EINVAL) => builder(cq).build(sq), // before 6.6
                _ => Err(error),
            }
        });
        match tried {
            Ok(uring) => return Ok(uring),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && halvings < HALVINGS_MAX => {
                halvings += 1;
            }
            Err(source) => return Err(RingError::SetUp { source }),
        }
    }
}

/// What every supported kernel can do; 6.1 is the oldest.
fn builder(cq_entries: u32) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(cq_entries)
        .dontfork();
    builder
}

fn fit_bell(uring: &IoUring) -> Result<OwnedFd, RingError> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| RingError::Bell { source: errno.into() })?;
    uring
        .submitter()
        .register_eventfd(bell.as_raw_fd())
        .map_err(|source| RingError::Bell { source })?;
    Ok(bell)
}
