//! The other end: what a client of the native protocol does, and a small blocking client.
//!
//! May import: base, wire, os.
//! Never here: the server's side. It knows the gateway only by what is on the wire.
//!
//! ```text
//! blocking  Client: std sockets and the clock around the machine; for threads and examples
//! machine   Machine: every duty of the protocol, without sockets and without a clock
//! news      what goes in and what comes out: profile, actions, news, losses
//! ```

pub mod blocking;
pub mod machine;
pub mod news;

#[cfg(test)]
mod tests;

pub use crate::client::blocking::Client;
pub use crate::client::machine::Machine;
pub use crate::client::news::{Action, Loss, News, Profile, SendError};
pub use crate::wire::message::EndedBy;
