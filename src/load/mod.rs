//! Pretend clients: the load bench, with the behaviours that real clients have.
//!
//! May import: base, wire, os.
//! Never here: gateway, tracker. The load bench knows us only by what is on the wire.

pub mod client;
pub mod histogram;
pub mod plan;
pub mod timers;
