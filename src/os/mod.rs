//! The machine: drivers, sockets, the clock, waking the loop. All `unsafe` of the crate is here.
//!
//! May import: base.
//! Never here: decisions. It carries operations to the kernel and completions back.

pub mod clock;
pub mod driver;
pub mod epoll;
mod facts;
mod fault;
pub mod file;
pub mod inherited;
pub mod inspect;
pub mod machine;
mod outgoing;
pub mod parcel;
pub mod pause;
pub mod prefetch;
pub mod process;
pub mod random;
pub mod ring;
pub mod socket;
pub mod supervisor;
pub mod wake;
pub mod writable;
