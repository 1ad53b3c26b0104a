//! heartwheel: knows within one tick which of a million connections is gone.
//!
//! ```text
//!  6  cli                     words in, exit code out
//!  5  control                 the side thread: asks the loop, holds no truth
//!  4  server   load   client  the loop          |  pretend clients  |  the other end
//!  3  gateway   layers        what we do  |  what is around frames: PROXY, TLS, WebSocket   pure
//!  1  wire   tracker   os     bytes  |  who is here, until when  |  the machine   pure, pure, not
//!  0  base                    words shared: ids, moments, limits, Op, Completion, Event
//! ```
//!
//! Imports point down only, and never sideways. Each room's `mod.rs` begins with what it is, what
//! it may import and what is never there; `tests/tidy.rs` reads these lines and holds the code to
//! them.

pub mod base;
pub mod cli;
pub mod client;
pub mod control;
pub mod gateway;
pub mod layers;
pub mod load;
pub mod manual;
pub mod os;
pub mod server;
pub mod tracker;
pub mod wire;
