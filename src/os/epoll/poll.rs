//! Sleeping until a socket has news: `epoll_pwait2`, or `epoll_wait` where that is missing.
#![allow(unsafe_code, reason = "waiting to the nanosecond, which rustix leaves to new kernels")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::base::limits::EPOLL_EVENTS_MAX;
use crate::base::time::Span;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// An epoll instance, and the news it had last.
pub(super) struct Poll {
    file: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// How many of `events` are news.
    count: usize,
    /// How many of those were taken.
    taken: usize,
    clock: Clock,
}

/// How finely the kernel lets us sleep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Clock {
    /// To the nanosecond (5.11, where no filter forbids it).
    Nanos,
    /// To the millisecond; rounded up, or the loop would spin through the last one.
    Millis,
}

/// What happened to a socket, as a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    /// What the socket was added with.
    pub(super) token: u64,
    flags: u32,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waited {
    /// With the time, and nothing came until then.
    ToTheEnd,
    /// With all the news there was.
    ForNews,
    /// With as much news as it could bring; there may be more.
    ForMany,
    /// By a signal.
    InVain,
}

impl News {
    /// Whether a send that did not fit may fit now, or fails.
    pub(super) const fn is_writable(self) -> bool {
        self.flags & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP).cast_unsigned() != 0
    }

    /// Whether there may be bytes, an end, or an error.
    pub(super) const fn is_readable(self) -> bool {
        self.flags & libc::EPOLLIN.cast_unsigned() != 0 || self.is_last()
    }

    /// Whether an end or an error is behind the bytes: no further news might tell of it.
    pub(super) const fn is_last(self) -> bool {
        self.flags & (libc::EPOLLRDHUP | libc::EPOLLERR | libc::EPOLLHUP).cast_unsigned() != 0
    }
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        let file = epoll::create(CreateFlags::CLOEXEC)?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EPOLL_EVENTS_MAX];
        Ok(Self { file, events, count: 0, taken: 0, clock: Clock::Nanos })
    }

    /// Hears of everything that happens to `file` from now on, and of what it has already, each
    /// once. It ends when the last descriptor of the file is closed.
    pub(super) fn add(&self, file: impl AsFd, token: u64) -> Result<(), Errno> {
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.file, file, EventData::new_u64(token), all)
    }

    /// Hears no more of `file`, which somebody else keeps open.
    pub(super) fn forget(&self, file: impl AsFd) {
        // It was added, so it can be taken out; and what is not there is not heard of.
        let _ = epoll::delete(&self.file, file);
    }

    /// The next of the news that the latest wait brought.
    pub(super) fn next(&mut self) -> Option<News> {
        let event = self.events[..self.count].get(self.taken)?;
        self.taken += 1;
        Some(News { token: event.u64, flags: event.events })
    }

    /// Whether all news was taken.
    pub(super) const fn is_empty(&self) -> bool {
        self.taken == self.count
    }

    /// Sleeps until there is news, or the time is over; `None`: for ever.
    ///
    /// # Panics
    /// When there is news that was not taken.
    pub(super) fn wait(&mut self, longest: Option<Span>) -> io::Result<Waited> {
        assert!(self.is_empty(), "news is taken before it is asked for again");
        (self.count, self.taken) = (0, 0);
        let waited = match longest {
            None => self.wait_millis(-1),
            Some(Span::ZERO) => self.wait_millis(0),
            Some(span) => self.wait_span(span),
        };
        match waited {
            Ok(count) => {
                self.count = count;
                Ok(match count {
                    0 => Waited::ToTheEnd,
                    EPOLL_EVENTS_MAX => Waited::ForMany,
                    _ => Waited::ForNews,
                })
            }
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(Waited::InVain),
            Err(error) => Err(error),
        }
    }

    fn wait_span(&mut self, span: Span) -> io::Result<usize> {
        if self.clock == Clock::Nanos {
            let waited = self.wait_nanos(span);
            match waited.as_ref().map_err(io::Error::raw_os_error) {
                // An older kernel, or a filter that does not know the call.
                Err(Some(libc::ENOSYS | libc::EPERM)) => self.clock = Clock::Millis,
                Ok(_) | Err(_) => return waited,
            }
        }
        let millis = span.as_nanos().div_ceil(NANOS_PER_MILLI);
        self.wait_millis(i32::try_from(millis).unwrap_or(i32::MAX))
    }

    fn wait_nanos(&mut self, span: Span) -> io::Result<usize> {
        let time = KernelTimespec::of(span);
        let (file, count_max) = (self.file.as_raw_fd(), self.events.len());
        let (events, time) = (self.events.as_mut_ptr(), std::ptr::from_ref(&time));
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: `events` has room for `count_max` events and `time` is laid out as the kernel
        // documents; both outlive the call, and no mask of signals is given.
        let result = unsafe {
            libc::syscall(libc::SYS_epoll_pwait2, file, events, count_max, time, no_mask, 0)
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn wait_millis(&mut self, millis: i32) -> io::Result<usize> {
        let count_max = i32::try_from(self.events.len()).expect("limits keep the events few");
        let (file, events) = (self.file.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: `events` has room for `count_max` events and outlives the call.
        let result = unsafe { libc::epoll_wait(file, events, count_max, millis) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    secs: i64,
    nanos: i64,
}

impl KernelTimespec {
    fn of(span: Span) -> Self {
        let nanos = span.as_nanos();
        Self {
            secs: i64::try_from(nanos / 1_000_000_000).expect("2^64 ns are 584 years"),
            nanos: i64::try_from(nanos % 1_000_000_000).expect("less than a second"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_sleep_is_not_shorter_than_it_was_told_to_be_however_fine_the_kernel_counts() {
        for clock in [Clock::Nanos, Clock::Millis] {
            let mut poll = Poll { clock, ..Poll::new().unwrap() };
            for micros in [1, 300, 1_500, 10_100] {
                let began = Instant::now();
                poll.wait(Some(Span::from_micros(micros))).unwrap();
                assert!(began.elapsed() >= Duration::from_micros(micros), "{clock:?} {micros}");
                assert!(poll.is_empty());
            }
        }
    }
}
