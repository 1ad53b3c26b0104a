//! The other end: what a client of the native protocol does, and a small blocking client.
//!
//! May import: base, wire, os.
//! Never here: the server's side. It knows the gateway only by what is on the wire.
