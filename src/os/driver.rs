//! Either driver behind one name: io_uring, or epoll where that is forbidden.
//!
//! Both obey the contract of [`base::io`](crate::base::io), and `tests/ring.rs` holds both to it.

use crate::base::io::{Completion, Op};
use crate::base::time::Span;
use crate::os::epoll::{self, EpollError};
use crate::os::parcel::Parcel;
use crate::os::ring::{self, RingError};
use crate::os::wake::Waker;

/// By what means the kernel is asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DriverKind {
    /// By io_uring.
    #[default]
    IoUring,
    /// By epoll and ordinary system calls.
    Epoll,
}

impl DriverKind {
    /// The word for it, everywhere.
    pub const fn word(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// What a driver is made of, and so which one it is.
#[derive(Debug)]
pub enum DriverConfig {
    /// One on io_uring.
    Ring(ring::DriverConfig),
    /// One on epoll.
    Epoll(epoll::DriverConfig),
}

impl From<ring::DriverConfig> for DriverConfig {
    fn from(config: ring::DriverConfig) -> Self {
        Self::Ring(config)
    }
}

impl From<epoll::DriverConfig> for DriverConfig {
    fn from(config: epoll::DriverConfig) -> Self {
        Self::Epoll(config)
    }
}

/// Whoever completions are handed to.
pub trait Sink {
    /// A completion of the connection in this slot follows soon, so that its memory may be
    /// prefetched meanwhile. A hint: bytes and sends that are done are announced, other completions
    /// are not, and by then the slot may hold another connection, or none.
    fn expect(&mut self, slot: u32);

    /// Here it is.
    fn take(&mut self, completion: Completion<'_>);
}

/// A function that takes completions as they come, and expects nothing.
pub(super) struct Each<F>(pub(super) F);

impl<F: FnMut(Completion<'_>)> Sink for Each<F> {
    fn expect(&mut self, _: u32) {}

    fn take(&mut self, completion: Completion<'_>) {
        self.0(completion);
    }
}

/// Why a driver cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// What io_uring says.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// What epoll says.
    #[error(transparent)]
    Epoll(#[from] EpollError),
}

/// What one drain did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drained {
    /// Completions handled, those that concern nobody included, and bytes in pieces of as many as a
    /// ring would receive them in.
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
    /// Which driver it is.
    pub kind: DriverKind,
    /// Times the kernel was entered, or asked for news.
    pub enters: u64,
    /// Completions taken.
    pub completions: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Bytes received, in so many pieces.
    pub received: u64,
    /// Receives armed, first times included.
    pub receives_armed: u64,
    /// Receives that ended for want of a buffer: on io_uring only, as the next two.
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
    /// Whether a gathering sleep goes on where nothing came: on io_uring, kernel 6.12.
    pub gathers_without_waking: bool,
    /// All receive buffers.
    pub buffers: usize,
    /// Now: receive buffers that the kernel has, by its own account; `None` before kernel 6.8.
    /// Those that are missing hold bytes that were not drained yet.
    pub buffers_with_kernel: Option<usize>,
}

impl DriverStats {
    /// Adds what another driver of the same kind says of itself.
    pub fn add(&mut self, other: &Self) {
        // Every field is named, so that a new one does not compile until it is added.
        let Self {
            kind: _,
            enters,
            completions,
            accepted,
            received,
            receives_armed,
            starved,
            interrupted,
            overflows,
            options_refused,
            rings,
            sockets,
            in_flight,
            accepts_waiting,
            gathers,
            gathers_without_waking,
            buffers,
            buffers_with_kernel,
        } = other;
        for (sum, count) in [
            (&mut self.enters, enters),
            (&mut self.completions, completions),
            (&mut self.accepted, accepted),
            (&mut self.received, received),
            (&mut self.receives_armed, receives_armed),
            (&mut self.starved, starved),
            (&mut self.interrupted, interrupted),
            (&mut self.overflows, overflows),
            (&mut self.options_refused, options_refused),
            (&mut self.sockets, sockets),
        ] {
            *sum += count;
        }
        for (sum, count) in [
            (&mut self.rings, rings),
            (&mut self.in_flight, in_flight),
            (&mut self.accepts_waiting, accepts_waiting),
            (&mut self.buffers, buffers),
        ] {
            *sum += count;
        }
        self.gathers |= gathers;
        self.gathers_without_waking |= gathers_without_waking;
        let with_kernel = self.buffers_with_kernel.zip(*buffers_with_kernel);
        self.buffers_with_kernel = with_kernel.map(|(sum, count)| sum + count);
    }
}

/// A driver of either kind. Belongs to the thread that made it.
#[allow(clippy::large_enum_variant, reason = "there is one for each loop, and it stays in place")]
pub enum Driver {
    /// On io_uring.
    Ring(ring::Driver),
    /// On epoll.
    Epoll(epoll::Driver),
}

impl Driver {
    /// Makes the driver that `config` is for.
    pub fn new(config: impl Into<DriverConfig>) -> Result<Self, DriverError> {
        Ok(match config.into() {
            DriverConfig::Ring(config) => Self::Ring(ring::Driver::new(config)?),
            DriverConfig::Epoll(config) => Self::Epoll(epoll::Driver::new(config)?),
        })
    }

    /// Takes all of `ops`.
    ///
    /// # Panics
    /// When an operation breaks the contract of [`base::io`](crate::base::io).
    pub fn submit(&mut self, ops: &mut Vec<Op>) {
        match self {
            Self::Ring(driver) => driver.submit(ops),
            Self::Epoll(driver) => driver.submit(ops),
        }
    }

    /// Sleeps until there is a completion, a wake, or `longest` is over. To be followed by
    /// [`drain`](Self::drain).
    pub fn wait(&mut self, longest: Option<Span>) -> Result<(), DriverError> {
        match self {
            Self::Ring(driver) => driver.wait(longest)?,
            Self::Epoll(driver) => driver.wait(longest)?,
        }
        Ok(())
    }

    /// Sleeps until there is a completion other than of a send that is done, a wake, or `longest`
    /// is over. To be followed by [`reap`](Self::reap).
    pub fn enter(&mut self, longest: Span) -> Result<Heard, DriverError> {
        Ok(match self {
            Self::Ring(driver) => driver.enter(longest)?,
            Self::Epoll(driver) => driver.enter(longest)?,
        })
    }

    /// Hands over what is there without asking for news, at most `budget` completions, and says how
    /// many; bytes count in pieces of as many as a ring would receive them in. Fewer than
    /// `budget`: all that there was.
    pub fn reap(&mut self, budget: usize, each: impl FnMut(Completion<'_>)) -> usize {
        self.reap_into(budget, &mut Each(each))
    }

    /// The same for whoever can make use of knowing what comes next. epoll does not say.
    pub fn reap_into(&mut self, budget: usize, sink: &mut impl Sink) -> usize {
        match self {
            Self::Ring(driver) => driver.reap_into(budget, sink),
            Self::Epoll(driver) => driver.reap(budget, |completion| sink.take(completion)),
        }
    }

    /// Whether [`reap`](Self::reap) may hand over what came after the latest enter returned: then
    /// the time of a completion is not known before it is handed over.
    pub const fn reaps_latecomers(&self) -> bool {
        match self {
            Self::Ring(_) => false,
            Self::Epoll(_) => true,
        }
    }

    /// Pieces of bytes received since the driver was made.
    pub const fn received(&self) -> u64 {
        match self {
            Self::Ring(driver) => driver.received(),
            Self::Epoll(driver) => driver.received(),
        }
    }

    /// Hands over what is there without sleeping, at most `budget` completions.
    ///
    /// A caller that lets time advance reads the clock first, and then drains until there is
    /// nothing more: so it has seen all that arrived before that moment.
    pub fn drain(
        &mut self,
        budget: usize,
        each: impl FnMut(Completion<'_>),
    ) -> Result<Drained, DriverError> {
        Ok(match self {
            Self::Ring(driver) => driver.drain(budget, each)?,
            Self::Epoll(driver) => driver.drain(budget, each)?,
        })
    }

    /// Lets a sleep that something ends last for `window` all the same, so that one turn serves
    /// what comes in that time. Zero, as at first: wake at once.
    pub fn gather(&mut self, window: Span) {
        match self {
            Self::Ring(driver) => driver.gather(window),
            Self::Epoll(driver) => driver.gather(window),
        }
    }

    /// A connection that is ready to go to a shard for which `may_go` holds, if there is one. Its
    /// `Moved` is told by the next drain.
    pub fn take_departure(&mut self, may_go: impl Fn(u16) -> bool) -> Option<Parcel> {
        match self {
            Self::Ring(driver) => driver.take_departure(may_go),
            Self::Epoll(driver) => driver.take_departure(may_go),
        }
    }

    /// Whether connections are ready to go.
    pub fn has_departures(&self) -> bool {
        match self {
            Self::Ring(driver) => driver.has_departures(),
            Self::Epoll(driver) => driver.has_departures(),
        }
    }

    /// Takes in a connection of another driver: `Arrived` is told when it is here.
    pub fn arrive(&mut self, parcel: Parcel) {
        match self {
            Self::Ring(driver) => driver.arrive(parcel),
            Self::Epoll(driver) => driver.arrive(parcel),
        }
    }

    /// How many connections are on their way in, those that were not told included.
    pub fn arriving(&self) -> usize {
        match self {
            Self::Ring(driver) => driver.arriving(),
            Self::Epoll(driver) => driver.arriving(),
        }
    }

    /// What wakes this driver from another thread.
    pub fn waker(&self) -> Waker {
        match self {
            Self::Ring(driver) => driver.waker(),
            Self::Epoll(driver) => driver.waker(),
        }
    }

    /// Numbers about this driver. At most a system call for each ring.
    pub fn stats(&self) -> DriverStats {
        match self {
            Self::Ring(driver) => driver.stats(),
            Self::Epoll(driver) => driver.stats(),
        }
    }

    /// How many connections are held, from `Adopt` to `Closed`.
    pub fn connections(&self) -> usize {
        match self {
            Self::Ring(driver) => driver.connections(),
            Self::Epoll(driver) => driver.connections(),
        }
    }

    /// Walks everything and panics when the books disagree. O(n): tests only.
    pub fn check(&self) {
        match self {
            Self::Ring(driver) => driver.check(),
            Self::Epoll(driver) => driver.check(),
        }
    }
}
