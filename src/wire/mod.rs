//! What is said on the connection, and how it looks in bytes.
//!
//! May import: base.
//! Never here: connections, sessions, time. Bytes in, messages out, and back.
//!
//! ```text
//! cursor    takes numbers and texts from the front of received bytes
//! message   what can be said, whatever the dialect
//! native    our own frames: preface, header, payload; the normative text is in the manual
//! error     what a peer did wrong
//! websocket frames of a WebSocket, whose messages carry the native ones
//! token     proofs of identity that whoever has the key makes
//! ```

pub mod cursor;
pub mod error;
pub mod message;
pub mod native;
pub mod token;
pub mod websocket;
